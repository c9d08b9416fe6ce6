/*
 * Multiboot 1: the header in the file (Multiboot Specification 0.6.96, section 3.1). What a kernel that has
 * one is told at its start is in bootinfo.c.
 *
 * Read next: bootinfo.c.
 */
#include <string.h>

#include "monitor/image.h"

#define HEADER_FIXED   12u /* magic, flags, checksum */
#define HEADER_ADDRESS 32u /* with the five addresses */

static uint32_t read_u32(const uint8_t *bytes)
{
    uint32_t value;

    memcpy(&value, bytes, sizeof value);
    return value;
}

bool multiboot_find(const struct kernel_image *image, struct multiboot_header *header)
{
    size_t end = image->size < MULTIBOOT_SEARCH ? image->size : MULTIBOOT_SEARCH;

    *header = (struct multiboot_header){0};
    for (size_t offset = 0; offset + HEADER_FIXED <= end; offset += 4) {
        const uint8_t *bytes = image->bytes + offset;
        uint32_t flags = read_u32(bytes + 4);

        if (read_u32(bytes) != MULTIBOOT_HEADER_MAGIC ||
            MULTIBOOT_HEADER_MAGIC + flags + read_u32(bytes + 8) != 0)
            continue;
        if ((flags & MULTIBOOT_ADDRESSES) != 0 && offset + HEADER_ADDRESS > end)
            continue;
        header->offset = (uint32_t)offset;
        header->flags = flags;
        if ((flags & MULTIBOOT_ADDRESSES) != 0) {
            header->header_addr = read_u32(bytes + 12);
            header->load_addr = read_u32(bytes + 16);
            header->load_end_addr = read_u32(bytes + 20);
            header->bss_end_addr = read_u32(bytes + 24);
            header->entry_addr = read_u32(bytes + 28);
        }
        return true;
    }
    return false;
}

bool multiboot_check(const struct multiboot_header *header, const struct image_error *error)
{
    uint32_t known = MULTIBOOT_PAGE_ALIGN | MULTIBOOT_MEMORY_INFO | MULTIBOOT_VIDEO_MODE;
    uint32_t unknown = header->flags & MULTIBOOT_MUST_UNDERSTAND & ~known;

    if (unknown != 0)
        return image_fail(
            error, "its multiboot header requires features that ring3 does not have (flags 0x%x)", unknown);
    return true;
}

bool multiboot_read(struct kernel_image *image, const struct multiboot_header *header,
                    const struct image_error *error)
{
    struct image_segment segment = {.gpa = header->load_addr, .gva = header->load_addr};
    uint32_t before = header->header_addr - header->load_addr; /* bytes loaded before the header */

    if (header->header_addr < header->load_addr || before > header->offset)
        return image_fail(
            error, "multiboot load address 0x%08x does not fit the header's (0x%08x, 0x%x in the file)",
            header->load_addr, header->header_addr, header->offset);
    segment.file_offset = header->offset - before;
    segment.file_size = (uint32_t)(image->size - segment.file_offset);
    if (header->load_end_addr != 0) { /* 0: to the end of the file */
        uint32_t size = header->load_end_addr - header->load_addr;

        if (header->load_end_addr <= header->load_addr || size > segment.file_size)
            return image_fail(error, "multiboot load end 0x%08x is not within the file",
                              header->load_end_addr);
        segment.file_size = size;
    }
    segment.memory_size = segment.file_size;
    if (header->bss_end_addr != 0) { /* 0: no bss */
        uint32_t size = header->bss_end_addr - header->load_addr;

        if (header->bss_end_addr < header->load_addr || size < segment.file_size)
            return image_fail(error, "multiboot bss end 0x%08x is before the end of the loaded bytes",
                              header->bss_end_addr);
        segment.memory_size = size;
    }
    if (header->entry_addr < segment.gpa || header->entry_addr - segment.gpa >= segment.memory_size)
        return image_fail(error, "its entry point 0x%08x is in none of its segments", header->entry_addr);
    image->entry = header->entry_addr;
    return image_add_segment(image, &segment, error);
}
