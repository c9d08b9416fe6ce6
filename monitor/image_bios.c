/* A PC BIOS: raw bytes that end where the address space does, as on the flash chip of a board. Read next:
 * devices/firmware.c, for what it finds. */
#include "monitor/image.h"

#define BIOS_ALIGN 0x10000u
#define BIOS_MAX   (16u << 20)

bool bios_read_image(struct kernel_image *image, const struct image_error *error)
{
    struct image_segment segment;

    if (image->size % BIOS_ALIGN != 0 || image->size > BIOS_MAX)
        return image_fail(error,
                          "not a BIOS: a BIOS has a multiple of 64 KiB up to 16 MiB, this has %zu bytes",
                          image->size);
    segment = (struct image_segment){.gpa = (uint32_t)-image->size,
                                     .gva = (uint32_t)-image->size,
                                     .file_size = (uint32_t)image->size,
                                     .memory_size = (uint32_t)image->size};
    return image_add_segment(image, &segment, error);
}
