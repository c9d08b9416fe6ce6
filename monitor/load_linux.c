/*
 * A Linux kernel's surroundings: Linux's Documentation/arch/x86/boot.rst, "32-bit boot protocol". The boot
 * parameters ("zero page"), the command line and the GDT lie in one block of low memory; the initial RAM disk
 * as high as it may.
 *
 * Read next: loader.c.
 */
#include "monitor/load.h"

#include <string.h>

#include "devices/acpi.h"
#include "devices/mptable.h"
#include "devices/vga.h"
#include "vcpu/fail.h"

#define BOOT_CS 0x10u
#define BOOT_DS 0x18u

/* The block. */
#define PARAMS_SIZE    4096u
#define GDT_OFFSET     PARAMS_SIZE
#define GDT_SIZE       32u
#define COMMAND_OFFSET (GDT_OFFSET + GDT_SIZE)
#define COMMAND_MAX    65535u
#define BLOCK_MAX      (COMMAND_OFFSET + COMMAND_MAX + 1)

/* Fields of struct boot_params (arch/x86/include/uapi/asm/bootparam.h), and of the set-up header in it. */
enum {
    PARAMS_SCREEN_EXT_MEM_K = 0x002,
    PARAMS_SCREEN_MODE = 0x006,
    PARAMS_SCREEN_COLUMNS = 0x007,
    PARAMS_SCREEN_EGA_BX = 0x00a,
    PARAMS_SCREEN_LINES = 0x00e,
    PARAMS_SCREEN_IS_VGA = 0x00f,
    PARAMS_SCREEN_POINTS = 0x010,
    PARAMS_ACPI_RSDP = 0x070,
    PARAMS_ALT_MEM_K = 0x1e0,
    PARAMS_E820_ENTRIES = 0x1e8,
    PARAMS_VID_MODE = 0x1fa,
    PARAMS_TYPE_OF_LOADER = 0x210,
    PARAMS_LOADFLAGS = 0x211,
    PARAMS_CODE32_START = 0x214,
    PARAMS_RAMDISK_IMAGE = 0x218,
    PARAMS_RAMDISK_SIZE = 0x21c,
    PARAMS_CMD_LINE_PTR = 0x228,
    PARAMS_SETUP_DATA = 0x250,
    PARAMS_E820_TABLE = 0x2d0,
};

#define VID_MODE_NORMAL  0xffffu
#define LOADER_UNDEFINED 0xffu
#define LOADED_HIGH      0x01u

enum e820_type { E820_RAM = 1, E820_RESERVED = 2 };

struct e820_entry {
    uint64_t gpa, size;
    uint32_t type;
} __attribute__((packed));
_Static_assert(sizeof(struct e820_entry) == 20, "layout of the BIOS call");

static void put(uint8_t *block, unsigned offset, uint64_t value, unsigned size)
{
    for (unsigned i = 0; i < size; i++)
        block[offset + i] = (uint8_t)(value >> 8 * i);
}

/* ---- the boot parameters ------------------------------------------------------------------------------- */

static void add_range(uint8_t *params, uint64_t first, uint64_t end, enum e820_type type)
{
    struct e820_entry entry = {.gpa = first, .size = end - first, .type = (uint32_t)type};
    unsigned n = params[PARAMS_E820_ENTRIES];

    if (first >= end)
        return;
    memcpy(params + PARAMS_E820_TABLE + n * sizeof entry, &entry, sizeof entry);
    params[PARAMS_E820_ENTRIES] = (uint8_t)(n + 1);
}

/* As a PC's BIOS gives it: see bootinfo.c. */
static void put_memory_map(uint8_t *params, const struct guest_memory *memory)
{
    uint64_t extended_k = (memory->ram_size - MEMORY_EXTENDED) >> 10;

    add_range(params, 0, EBDA_GPA, E820_RAM);
    add_range(params, EBDA_GPA, MEMORY_VGA_FIRST, E820_RESERVED);
    add_range(params, MPTABLE_GPA & ~0xffffu, MEMORY_EXTENDED, E820_RESERVED);
    add_range(params, MEMORY_EXTENDED, memory->ram_size, E820_RAM);
    put(params, PARAMS_SCREEN_EXT_MEM_K, extended_k < 0xfc00 ? extended_k : 0xfc00, 2);
    put(params, PARAMS_ALT_MEM_K, extended_k, 4);
}

/* The text mode that the board starts in. */
static void put_screen(uint8_t *params)
{
    put(params, PARAMS_SCREEN_MODE, 3, 1);
    put(params, PARAMS_SCREEN_COLUMNS, VGA_COLUMNS, 1);
    put(params, PARAMS_SCREEN_EGA_BX, 3, 2);
    put(params, PARAMS_SCREEN_LINES, VGA_ROWS, 1);
    put(params, PARAMS_SCREEN_IS_VGA, 1, 1);
    put(params, PARAMS_SCREEN_POINTS, 16, 2);
}

static void put_params(struct load *load, uint8_t *params, uint64_t gpa, uint64_t initrd)
{
    const struct kernel_image *image = load->image;

    memcpy(params + LINUX_HEADER, image->bytes + LINUX_HEADER, image->linux_header.size);
    put(params, PARAMS_VID_MODE, VID_MODE_NORMAL, 2);
    put(params, PARAMS_TYPE_OF_LOADER, LOADER_UNDEFINED, 1);
    put(params, PARAMS_LOADFLAGS, LOADED_HIGH, 1);
    put(params, PARAMS_CODE32_START, LINUX_LOAD_ADDRESS, 4);
    put(params, PARAMS_RAMDISK_IMAGE, initrd, 4);
    put(params, PARAMS_RAMDISK_SIZE, image->initrd.size, 4);
    put(params, PARAMS_CMD_LINE_PTR, gpa + COMMAND_OFFSET, 4);
    put(params, PARAMS_SETUP_DATA, 0, 8);
    put(params, PARAMS_ACPI_RSDP, ACPI_RSDP_GPA, 8);
    put_memory_map(params, &load->vm->memory);
    put_screen(params);
}

/* ---- places -------------------------------------------------------------------------------------------- */

static bool check_memory(struct load *load)
{
    uint64_t end = load->image->linux_header.run_end, ram_size = load->vm->memory.ram_size;

    if (end <= ram_size)
        return true;
    return image_fail(&load->error, "unpacks itself up to 0x%llx, outside the memory of %lluM",
                      (unsigned long long)end, (unsigned long long)(ram_size >> 20));
}

static bool place_initrd(struct load *load, uint64_t *gpa)
{
    const struct file_bytes *initrd = &load->image->initrd;
    const struct linux_header *header = &load->image->linux_header;
    uint64_t end = load->vm->memory.ram_size < header->initrd_end ? load->vm->memory.ram_size
                                                                  : header->initrd_end & ~(uint64_t)PAGE_MASK;

    *gpa = 0;
    if (initrd->size == 0)
        return true;
    if (!load_find_highest(load, header->run_end, end, initrd->size, PAGE_SIZE, gpa))
        return file_fail(
            load->config->initrd, load->error.text, load->error.size,
            "no room for this initial RAM disk of %zu bytes between the kernel's 0x%llx and 0x%llx",
            initrd->size, (unsigned long long)header->run_end, (unsigned long long)end);
    load_put(load, *gpa, initrd->bytes, initrd->size);
    load_take(load, *gpa, initrd->size);
    return true;
}

static bool check_command_line(struct load *load, size_t length)
{
    uint32_t most = load->image->linux_header.command_line;

    if (length <= most && length <= COMMAND_MAX)
        return true;
    return image_fail(&load->error, "--append has %zu characters; this kernel takes %u", length,
                      most < COMMAND_MAX ? most : COMMAND_MAX);
}

static bool place_block(struct load *load, uint64_t initrd, uint64_t *gpa)
{
    static const uint64_t gdt[] = {0, 0, UINT64_C(0x00cf9b000000ffff), UINT64_C(0x00cf93000000ffff)};
    const char *command_line = load->config->append != NULL ? load->config->append : "";
    size_t length = strlen(command_line);
    uint8_t block[BLOCK_MAX] = {0};

    _Static_assert(sizeof gdt == GDT_SIZE, "flat code at 0x10, flat data at 0x18");
    if (!check_command_line(load, length))
        return false;
    if (!load_find_lowest(load, LOAD_LOW_FIRST, LOAD_LOW_END, COMMAND_OFFSET + length + 1, PAGE_SIZE, gpa))
        return image_fail(&load->error, "no room in low memory for its boot parameters");
    put_params(load, block, *gpa, initrd);
    memcpy(block + GDT_OFFSET, gdt, sizeof gdt);
    memcpy(block + COMMAND_OFFSET, command_line, length + 1);
    load_put(load, *gpa, block, COMMAND_OFFSET + length + 1);
    load_take(load, *gpa, COMMAND_OFFSET + length + 1);
    return true;
}

/* ---- the processor ------------------------------------------------------------------------------------- */

#define MTRR_FIXED_WRITE_BACK    UINT64_C(0x0606060606060606)
#define MTRR_FIXED_WRITE_PROTECT UINT64_C(0x0505050505050505)
#define MTRR_ENABLED_WRITE_BACK  0xc06
#define MTRR_PCI_BASE            UINT64_C(0x0c0000000)
#define MTRR_PCI_MASK            UINT64_C(0xfc0000800) /* 1 GiB of 36 bits, valid */

/* As firmware does on every PC; kernels do without PAT if the MTRRs are off. RAM is written back, the BIOS
 * area is ROM, video memory and what is above 3 GiB are devices. */
static void set_memory_types(struct vcpu *vcpu)
{
    enum { FIX_64K, FIX_16K_80000, FIX_16K_A0000, FIX_4K_C0000, FIX_COUNT = 11 };

    vcpu->msr.mtrr_fixed[FIX_64K] = MTRR_FIXED_WRITE_BACK;
    vcpu->msr.mtrr_fixed[FIX_16K_80000] = MTRR_FIXED_WRITE_BACK;
    vcpu->msr.mtrr_fixed[FIX_16K_A0000] = 0;
    for (unsigned i = FIX_4K_C0000; i < FIX_COUNT; i++)
        vcpu->msr.mtrr_fixed[i] = MTRR_FIXED_WRITE_PROTECT;
    vcpu->msr.mtrr_variable[0] = MTRR_PCI_BASE;
    vcpu->msr.mtrr_variable[1] = MTRR_PCI_MASK;
    vcpu->msr.mtrr_def_type = MTRR_ENABLED_WRITE_BACK;
}

static void set_linux_processor(struct load *load, uint64_t params)
{
    struct vcpu *vcpu = &load->vm->vcpu;

    memset(vcpu->gpr, 0, sizeof vcpu->gpr);
    vcpu_set_flat(vcpu, BOOT_CS, BOOT_DS, load->image->entry);
    vcpu->gdtr = (struct table_register){.base = (uint32_t)params + GDT_OFFSET, .limit = GDT_SIZE - 1};
    vcpu->idtr = (struct table_register){0};
    vcpu->gpr[ESI] = (uint32_t)params;
    set_memory_types(vcpu);
}

bool load_linux(struct load *load)
{
    uint64_t initrd, params;

    if (!check_memory(load) || !place_initrd(load, &initrd) || !place_block(load, initrd, &params))
        return false;
    set_linux_processor(load, params);
    return true;
}
