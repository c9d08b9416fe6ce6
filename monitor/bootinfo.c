/*
 * The block of boot information: see bootinfo.h. It is built as bytes and knows guest addresses only as
 * numbers, so it can be built twice: once to learn its size, and again for the place that was found for it.
 */
#include "monitor/bootinfo.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "devices/mptable.h"
#include "devices/vga.h"
#include "vcpu/fail.h"

#define BOOT_STACK_SIZE 4096u
#define BOOT_ALIGN      16u

/* Access byte and flags of a present, accessed, DPL 0, 4 GiB segment (SDM Vol 3A 3.4.5). */
#define DESCRIPTOR_FLAT_CODE UINT64_C(0x00cf9b000000ffff)
#define DESCRIPTOR_FLAT_DATA UINT64_C(0x00cf93000000ffff)

struct builder {
    uint8_t *bytes;
    uint32_t size, capacity;
    uint32_t gpa;
};

/* Room for n bytes, zeroed; returns their offset. Pointers into the block do not survive it. */
static uint32_t builder_reserve(struct builder *builder, size_t n, uint32_t align)
{
    size_t offset = (builder->size + align - 1) & ~(size_t)(align - 1);
    size_t size = offset + n;

    if (size > builder->capacity) {
        size_t capacity = size * 2;
        uint8_t *bytes = size > UINT32_MAX / 4 ? NULL : realloc(builder->bytes, capacity);

        if (bytes == NULL)
            die("out of memory for the boot information");
        builder->bytes = bytes;
        builder->capacity = (uint32_t)capacity;
    }
    memset(builder->bytes + builder->size, 0, size - builder->size);
    builder->size = (uint32_t)size;
    return (uint32_t)offset;
}

/* Returns the guest address. */
static uint32_t builder_add(struct builder *builder, const void *bytes, size_t n, uint32_t align)
{
    uint32_t offset = builder_reserve(builder, n, align);

    memcpy(builder->bytes + offset, bytes, n);
    return builder->gpa + offset;
}

/* "first second", or "first" alone where second is NULL. */
static uint32_t add_command_line(struct builder *builder, const char *first, const char *second)
{
    size_t first_size = strlen(first), second_size = second == NULL ? 0 : strlen(second);
    uint32_t offset = builder_reserve(builder, first_size + 1 + second_size + 1, 1);

    memcpy(builder->bytes + offset, first, first_size);
    if (second != NULL) {
        builder->bytes[offset + first_size] = ' ';
        memcpy(builder->bytes + offset + first_size + 1, second, second_size);
    }
    return builder->gpa + offset;
}

static uint32_t add_gdt(struct builder *builder)
{
    static const uint64_t gdt[BOOT_GDT_ENTRIES] = {0, DESCRIPTOR_FLAT_CODE, DESCRIPTOR_FLAT_DATA,
                                                   DESCRIPTOR_FLAT_DATA};

    return builder_add(builder, gdt, sizeof gdt, BOOT_ALIGN);
}

static void add_range(struct builder *builder, uint64_t first, uint64_t end, uint32_t type)
{
    uint64_t length = end - first;
    struct multiboot_mmap entry = {
        .size = sizeof entry - sizeof entry.size,
        .addr_low = (uint32_t)first,
        .addr_high = (uint32_t)(first >> 32),
        .len_low = (uint32_t)length,
        .len_high = (uint32_t)(length >> 32),
        .type = type,
    };

    if (first < end)
        builder_add(builder, &entry, sizeof entry, 4);
}

/* The map that a PC's BIOS gives: conventional memory up to the EBDA, the BIOS area, all RAM from 1 MiB, the
 * ROM. */
static void add_memory_map(struct builder *builder, const struct guest_memory *memory,
                           struct multiboot_info *info)
{
    uint32_t start = builder_reserve(builder, 0, 4);

    add_range(builder, 0, EBDA_GPA, MULTIBOOT_MEMORY_AVAILABLE);
    add_range(builder, EBDA_GPA, MEMORY_VGA_FIRST, MULTIBOOT_MEMORY_RESERVED);
    add_range(builder, MPTABLE_GPA & ~0xffffu, MEMORY_EXTENDED, MULTIBOOT_MEMORY_RESERVED);
    add_range(builder, MEMORY_EXTENDED, memory->ram_size, MULTIBOOT_MEMORY_AVAILABLE);
    for (unsigned i = 0; i < memory->n_regions; i++) {
        const struct memory_region *region = &memory->region[i];

        if (region->is_rom && region->gpa >= MEMORY_EXTENDED)
            add_range(builder, region->gpa, region->gpa + region->size, MULTIBOOT_MEMORY_RESERVED);
    }
    info->mmap_addr = builder->gpa + start;
    info->mmap_length = builder->size - start;
}

static void add_modules(struct builder *builder, const struct boot_request *request,
                        struct multiboot_info *info)
{
    struct multiboot_module module[LOADER_MAX_MODULES] = {0};
    unsigned n = request->config->n_modules;

    for (unsigned i = 0; i < n; i++) {
        const struct loader_module *source = &request->config->module[i];

        module[i].mod_start = request->module[i].gpa;
        module[i].mod_end = request->module[i].gpa + request->module[i].size;
        module[i].string = add_command_line(builder, source->path, source->command_line);
    }
    info->mods_count = n;
    info->mods_addr = builder_add(builder, module, n * sizeof module[0], 4);
}

static uint32_t add_multiboot_info(struct builder *builder, const struct boot_request *request)
{
    /* First in the block, so that a kernel which clobbers the end of it still finds the fixed part. */
    uint32_t offset = builder_reserve(builder, sizeof(struct multiboot_info), BOOT_ALIGN);
    struct multiboot_info info = {
        .flags = MULTIBOOT_INFO_MEMORY | MULTIBOOT_INFO_CMDLINE | MULTIBOOT_INFO_MODULES |
                 MULTIBOOT_INFO_MMAP | MULTIBOOT_INFO_LOADER_NAME | MULTIBOOT_INFO_FRAMEBUFFER,
        .mem_lower = BASE_MEMORY_KIB,
        .mem_upper = (uint32_t)((request->memory->ram_size - MEMORY_EXTENDED) / 1024),
        .framebuffer_addr_low = 0xb8000,
        .framebuffer_pitch = 2 * VGA_COLUMNS,
        .framebuffer_width = VGA_COLUMNS,
        .framebuffer_height = VGA_ROWS,
        .framebuffer_bpp = 16,
        .framebuffer_type = 2, /* EGA text */
    };

    info.cmdline = add_command_line(builder, request->config->kernel_path, request->config->append);
    info.boot_loader_name = add_command_line(builder, "ring3", NULL);
    add_modules(builder, request, &info);
    add_memory_map(builder, request->memory, &info);
    memcpy(builder->bytes + offset, &info, sizeof info);
    return builder->gpa + offset;
}

void bootinfo_build(const struct boot_request *request, uint32_t gpa, struct boot_block *block)
{
    struct builder builder = {.gpa = gpa};

    builder_reserve(&builder, BOOT_STACK_SIZE, BOOT_ALIGN);
    *block = (struct boot_block){.stack_top = gpa + BOOT_STACK_SIZE, .gdt = add_gdt(&builder)};
    if (request->image->format == IMAGE_MULTIBOOT)
        block->multiboot_info = add_multiboot_info(&builder, request);
    block->bytes = builder.bytes;
    block->size = builder.size;
}
