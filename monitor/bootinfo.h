/*
 * What a kernel finds at its start: a stack, a GDT and the multiboot information, in one block of guest
 * memory. Private to the loader.
 */
#ifndef RING3_BOOTINFO_H
#define RING3_BOOTINFO_H

#include "monitor/image.h"

/* The GDT that the entry states of multiboot, and of kernels started without it, ask for: flat 4 GiB
 * segments. */
#define BOOT_CODE_SELECTOR 0x08u
#define BOOT_DATA_SELECTOR 0x10u
#define BOOT_GDT_ENTRIES                                                                                     \
    4u /* null, code 0x08, data 0x10, data 0x18 (firmware that loads 0x18 before its own GDT) */

/* Multiboot Specification 0.6.96, section 3.3. */
enum multiboot_info_flag {
    MULTIBOOT_INFO_MEMORY = 0x0001,
    MULTIBOOT_INFO_CMDLINE = 0x0004,
    MULTIBOOT_INFO_MODULES = 0x0008,
    MULTIBOOT_INFO_MMAP = 0x0040,
    MULTIBOOT_INFO_LOADER_NAME = 0x0200,
    MULTIBOOT_INFO_FRAMEBUFFER = 0x1000,
};

struct multiboot_info {
    uint32_t flags;
    uint32_t mem_lower, mem_upper; /* KiB below 1 MiB; KiB from 1 MiB to the first hole */
    uint32_t boot_device;
    uint32_t cmdline;
    uint32_t mods_count, mods_addr;
    uint32_t syms[4];
    uint32_t mmap_length, mmap_addr;
    uint32_t drives_length, drives_addr;
    uint32_t config_table;
    uint32_t boot_loader_name;
    uint32_t apm_table;
    uint32_t vbe_control_info, vbe_mode_info;
    uint16_t vbe_mode, vbe_interface_seg, vbe_interface_off, vbe_interface_len;
    uint32_t framebuffer_addr_low, framebuffer_addr_high;
    uint32_t framebuffer_pitch, framebuffer_width, framebuffer_height;
    uint8_t framebuffer_bpp, framebuffer_type;
    uint8_t color_info[6];
};
_Static_assert(sizeof(struct multiboot_info) == 116, "layout of the multiboot specification");

struct multiboot_module {
    uint32_t mod_start, mod_end; /* mod_end is the first byte past it */
    uint32_t string;
    uint32_t reserved;
};

enum multiboot_memory_type { MULTIBOOT_MEMORY_AVAILABLE = 1, MULTIBOOT_MEMORY_RESERVED = 2 };

struct multiboot_mmap {
    uint32_t size; /* of what follows */
    uint32_t addr_low, addr_high, len_low, len_high;
    uint32_t type;
};

/* Where a module's bytes were put. */
struct loaded_module {
    uint32_t gpa, size;
};

struct boot_request {
    const struct kernel_image *image;
    const struct loader_config *config;
    const struct guest_memory *memory;
    struct loaded_module module[LOADER_MAX_MODULES];
};

/* The addresses in the block that go into registers. */
struct boot_block {
    uint8_t *bytes; /* the caller frees it */
    uint32_t size;
    uint32_t gdt, stack_top, multiboot_info; /* guest-physical */
};

/* Builds the block for guest address `gpa` (16-byte aligned). Its size does not depend on `gpa`. */
void bootinfo_build(const struct boot_request *request, uint32_t gpa, struct boot_block *block);

#endif
