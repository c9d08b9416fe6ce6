/*
 * Linux bzImages, by the 32-bit boot protocol: Linux's Documentation/arch/x86/boot.rst. The file is real-mode
 * code, which is not used, with the set-up header in its first sectors, and behind it the compressed kernel.
 *
 * The header is as hostile as everything in a file. Read next: load_linux.c; payload.c, which unpacks the
 * kernel for ring3 check.
 */
#include "monitor/image.h"

#include <string.h>

#define SECTOR 512u

/* Fields of the set-up header, by their offset in the file: "The real-mode kernel header". */
enum {
    OFFSET_SETUP_SECTS = 0x1f1,
    OFFSET_BOOT_FLAG = 0x1fe,
    OFFSET_JUMP_LENGTH = 0x201, /* of the jump over the rest of the header: where that ends */
    OFFSET_MAGIC = 0x202,
    OFFSET_VERSION = 0x206,
    OFFSET_LOADFLAGS = 0x211,
    OFFSET_INITRD_ADDR_MAX = 0x22c,
    OFFSET_XLOADFLAGS = 0x236,
    OFFSET_CMDLINE_SIZE = 0x238,
    OFFSET_PAYLOAD_OFFSET = 0x248,
    OFFSET_PAYLOAD_LENGTH = 0x24c,
    OFFSET_PREF_ADDRESS = 0x258,
    OFFSET_INIT_SIZE = 0x260,
    OFFSET_END = 0x264,
};

#define OLDEST_VERSION     0x0206 /* 2.06, Linux 2.6.22: cmdline_size */
#define VERSION_PAYLOAD    0x0208
#define VERSION_INIT_SIZE  0x020a
#define VERSION_XLOADFLAGS 0x020c

#define LOADED_HIGH   0x01
#define XLF_KERNEL_64 0x01
#define DEFAULT_SECTS 4

static uint32_t get(const struct kernel_image *image, unsigned offset, unsigned size)
{
    uint32_t value = 0;

    memcpy(&value, image->bytes + offset, size);
    return value;
}

bool linux_is_image(const struct kernel_image *image)
{
    return image->size >= OFFSET_END && get(image, OFFSET_BOOT_FLAG, 2) == 0xaa55 &&
           memcmp(image->bytes + OFFSET_MAGIC, "HdrS", 4) == 0;
}

static bool check_kind(const struct kernel_image *image, const struct image_error *error)
{
    uint32_t version = get(image, OFFSET_VERSION, 2);

    if (version < OLDEST_VERSION)
        return image_fail(error, "a Linux kernel of boot protocol %u.%02u: older than 2.06 (Linux 2.6.22)",
                          version >> 8, version & 0xff);
    if (!(get(image, OFFSET_LOADFLAGS, 1) & LOADED_HIGH))
        return image_fail(error, "a Linux zImage, which is loaded low; only a bzImage can be loaded");
    if (version >= VERSION_XLOADFLAGS && (get(image, OFFSET_XLOADFLAGS, 2) & XLF_KERNEL_64))
        return image_fail(error, "a 64-bit Linux kernel: ring3's guests are 32-bit (i386) kernels");
    return true;
}

/* The kernel unpacks itself to its preferred address, and needs `init_size` bytes from there on. Kernels that
 * do not tell must do with what the map shows them. */
static bool read_run_end(struct kernel_image *image, uint64_t load_end, const struct image_error *error)
{
    uint64_t preferred, end;

    image->linux_header.run_end = load_end;
    if (get(image, OFFSET_VERSION, 2) < VERSION_INIT_SIZE)
        return true;
    memcpy(&preferred, image->bytes + OFFSET_PREF_ADDRESS, sizeof preferred);
    if (preferred > UINT32_MAX)
        return image_fail(error, "its header asks for the address 0x%llx, beyond 4 GiB",
                          (unsigned long long)preferred);
    if (preferred < LINUX_LOAD_ADDRESS)
        preferred = LINUX_LOAD_ADDRESS;
    end = preferred + get(image, OFFSET_INIT_SIZE, 4);
    if (end > image->linux_header.run_end)
        image->linux_header.run_end = end;
    return true;
}

bool linux_read_image(struct kernel_image *image, const struct image_error *error)
{
    uint32_t sectors = get(image, OFFSET_SETUP_SECTS, 1);
    uint32_t header_end = OFFSET_MAGIC + get(image, OFFSET_JUMP_LENGTH, 1);
    uint64_t payload;
    struct image_segment segment;

    if (!check_kind(image, error))
        return false;
    payload = (uint64_t)SECTOR * (1 + (sectors == 0 ? DEFAULT_SECTS : sectors));
    if (payload >= image->size)
        return image_fail(error, "cut off: its %u sectors of set-up code alone need %llu bytes, it has %zu",
                          sectors, (unsigned long long)payload, image->size);
    if (header_end < OFFSET_CMDLINE_SIZE + 4)
        return image_fail(error, "its set-up header ends at 0x%x, before the fields that its version has",
                          header_end);
    segment = (struct image_segment){.gpa = LINUX_LOAD_ADDRESS,
                                     .gva = LINUX_LOAD_ADDRESS,
                                     .file_offset = (uint32_t)payload,
                                     .file_size = (uint32_t)(image->size - payload),
                                     .memory_size = (uint32_t)(image->size - payload)};
    image->entry = LINUX_LOAD_ADDRESS;
    image->linux_header = (struct linux_header){
        .size = (header_end < LINUX_HEADER_END ? header_end : LINUX_HEADER_END) - LINUX_HEADER,
        .initrd_end = (uint64_t)get(image, OFFSET_INITRD_ADDR_MAX, 4) + 1,
        .command_line = get(image, OFFSET_CMDLINE_SIZE, 4),
    };
    return image_add_segment(image, &segment, error) &&
           read_run_end(image, (uint64_t)segment.gpa + segment.memory_size, error);
}

/* It counts from the start of the protected-mode code, which is the one segment. */
bool linux_find_payload(const struct kernel_image *image, struct linux_payload *payload,
                        const struct image_error *error)
{
    uint32_t offset = get(image, OFFSET_PAYLOAD_OFFSET, 4), size = get(image, OFFSET_PAYLOAD_LENGTH, 4);
    uint32_t has = image->segment[0].file_size;

    if (get(image, OFFSET_VERSION, 2) < VERSION_PAYLOAD || size == 0)
        return image_fail(error, "its header does not say where the compressed kernel is");
    if (offset > has || size > has - offset)
        return image_fail(error,
                          "its header says that 0x%x bytes at 0x%x are the compressed kernel, and there are "
                          "0x%x",
                          size, offset, has);
    *payload = (struct linux_payload){.file_offset = image->segment[0].file_offset + offset, .size = size};
    return true;
}
