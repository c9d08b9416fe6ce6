/* What every kernel format must satisfy; and which format a file is. Read next: image_elf.c,
 * image_multiboot.c, image_linux.c. */
#include "monitor/image.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "monitor/symbols.h"
#include "vcpu/fail.h"

static bool segments_overlap(const struct image_segment *a, const struct image_segment *b)
{
    return a->gpa < (uint64_t)b->gpa + b->memory_size && b->gpa < (uint64_t)a->gpa + a->memory_size;
}

bool image_add_segment(struct kernel_image *image, const struct image_segment *segment,
                       const struct image_error *error)
{
    uint64_t end = (uint64_t)segment->gpa + segment->memory_size;

    BUG_ON(segment->file_offset > image->size || segment->file_size > image->size - segment->file_offset);
    BUG_ON(segment->memory_size == 0 || segment->file_size > segment->memory_size);
    if (end > UINT64_C(1) << 32)
        return image_fail(error, "segment at 0x%08x of 0x%x bytes runs past 4 GiB", segment->gpa,
                          segment->memory_size);
    for (unsigned i = 0; i < image->n_segments; i++) {
        if (segments_overlap(&image->segment[i], segment))
            return image_fail(error, "segments overlap: 0x%08x of 0x%x bytes and 0x%08x of 0x%x bytes",
                              image->segment[i].gpa, image->segment[i].memory_size, segment->gpa,
                              segment->memory_size);
    }
    if (image->n_segments == IMAGE_MAX_SEGMENTS)
        return image_fail(error, "more than %d loadable segments", IMAGE_MAX_SEGMENTS);
    image->segment[image->n_segments++] = *segment;
    return true;
}

/* Files that people hand to a loader by mistake. */
static const struct {
    uint32_t offset;
    const char *magic, *what;
} mistaken[] = {
    {0, "\x1f\x8b", "compressed with gzip; unpack it first"},
    {0,
     "\xfd"
     "7zXZ",
     "compressed with xz; unpack it first"},
    {0, "\x28\xb5\x2f\xfd", "compressed with zstd; unpack it first"},
    {0, "MZ", "a DOS or Windows program"},
    {0, "#!", "a script"},
    {510, "\x55\xaa", "a boot sector or a disk image; give it as --drive, with --boot disk"},
};

static bool fail_unknown_format(const struct kernel_image *image, const struct image_error *error)
{
    for (size_t i = 0; i < sizeof mistaken / sizeof mistaken[0]; i++) {
        size_t length = strlen(mistaken[i].magic);

        if (mistaken[i].offset + length <= image->size &&
            memcmp(image->bytes + mistaken[i].offset, mistaken[i].magic, length) == 0)
            return image_fail(error, "not a kernel that can be loaded: it is %s", mistaken[i].what);
    }
    return image_fail(error,
                      "not a kernel: neither an ELF file nor a multiboot 1 header in its first %u bytes",
                      MULTIBOOT_SEARCH);
}

/* A multiboot header that carries addresses takes precedence over the ELF headers (Multiboot
 * Specification 3.1.1). */
static bool read_format(struct kernel_image *image, bool is_bios, const struct image_error *error)
{
    struct multiboot_header header;

    bool is_multiboot;

    if (image->size == 0)
        return image_fail(error, "the file is empty");
    if (is_bios) {
        image->format = IMAGE_BIOS;
        return bios_read_image(image, error);
    }
    is_multiboot = multiboot_find(image, &header);
    image->format = is_multiboot ? IMAGE_MULTIBOOT : IMAGE_ELF;
    if (is_multiboot && !multiboot_check(&header, error))
        return false;
    if (is_multiboot && (header.flags & MULTIBOOT_ADDRESSES) != 0)
        return multiboot_read(image, &header, error);
    if (elf_is_image(image))
        return elf_read_image(image, error);
    if (linux_is_image(image)) {
        image->format = IMAGE_LINUX;
        return linux_read_image(image, error);
    }
    if (is_multiboot)
        return image_fail(error,
                          "its multiboot header has no load addresses (flag 16), and it is not an ELF file");
    return fail_unknown_format(image, error);
}

/* What a kernel of another format could not be told. */
static bool check_options(const struct kernel_image *image, const struct loader_config *config,
                          const struct image_error *error)
{
    if (config->n_modules != 0 && image->format != IMAGE_MULTIBOOT)
        return image_fail(error, "--module needs a multiboot kernel, and it has no multiboot header");
    if (config->append != NULL && image->format != IMAGE_MULTIBOOT && image->format != IMAGE_LINUX)
        return image_fail(error, "--append needs a multiboot kernel or a Linux bzImage, and it is neither");
    if (config->holes == HOLES_PATCH && image->format == IMAGE_LINUX)
        return image_fail(error,
                          "--holes patch cannot see the code of a bzImage, which is compressed; give it a "
                          "vmlinux (ELF) file, or choose another engine");
    if (config->holes == HOLES_PATCH && image->format == IMAGE_BIOS)
        return image_fail(error, "--holes patch cannot tell the code of a BIOS from its data");
    if (config->initrd != NULL && image->format != IMAGE_LINUX)
        return image_fail(error, "--initrd needs a Linux bzImage, and it is none");
    return true;
}

static bool read_companions(struct kernel_image *image, const struct loader_config *config, char *error,
                            size_t error_size)
{
    for (unsigned i = 0; i < config->n_modules; i++) {
        if (!file_read(config->module[i].path, &image->module[i], error, error_size))
            return false;
    }
    if (config->initrd != NULL && !file_read(config->initrd, &image->initrd, error, error_size))
        return false;
    /* A BIOS without it does everything but show text. */
    if (config->is_bios && access(LOADER_VGA_BIOS, F_OK) == 0 &&
        !file_read(LOADER_VGA_BIOS, &image->vga_rom, error, error_size))
        return false;
    for (unsigned i = 0; i < config->n_blobs; i++) {
        const struct loader_blob *blob = &config->blob[i];

        if (!file_read(blob->path, &image->blob[i], error, error_size))
            return false;
        if (blob->gpa > UINT32_MAX || blob->gpa + image->blob[i].size > UINT64_C(1) << 32)
            return file_fail(blob->path, error, error_size, "0x%llx and its %zu bytes run past 4 GiB",
                             (unsigned long long)blob->gpa, image->blob[i].size);
        image->blob_gpa[i] = blob->gpa;
        image->n_blobs = i + 1;
    }
    return true;
}

struct kernel_image *kernel_open(const struct loader_config *config, char *error, size_t error_size)
{
    struct image_error where = {.path = config->kernel_path, .text = error, .size = error_size};
    struct kernel_image *image = calloc(1, sizeof *image);

    if (image == NULL)
        die("out of memory");
    BUG_ON(config->n_modules > LOADER_MAX_MODULES || config->n_blobs > LOADER_MAX_BLOBS);
    image->path = config->kernel_path;
    if (config->kernel_bytes != NULL) {
        image->bytes = config->kernel_bytes;
        image->size = config->kernel_size;
    } else {
        if (!file_read(config->kernel_path, &image->file, error, error_size))
            goto fail;
        image->bytes = image->file.bytes;
        image->size = image->file.size;
    }
    if (!read_format(image, config->is_bios, &where) || !check_options(image, config, &where))
        goto fail;
    if (!read_companions(image, config, error, error_size))
        goto fail;
    image->symbols = symbols_load_bytes(image->bytes, image->size);
    return image;

fail:
    kernel_close(image);
    return NULL;
}

const uint8_t *kernel_bytes(const struct kernel_image *kernel, gva_t address, size_t *n)
{
    for (unsigned i = 0; i < kernel->n_segments; i++) {
        const struct image_segment *segment = &kernel->segment[i];
        uint32_t offset = address - segment->gva;

        if (offset >= segment->file_size)
            continue;
        *n = segment->file_size - offset;
        return kernel->bytes + segment->file_offset + offset;
    }
    return NULL;
}

bool kernel_is_firmware(const struct kernel_image *kernel)
{
    return kernel->format == IMAGE_BIOS;
}

const struct symbols *kernel_symbols(const struct kernel_image *kernel)
{
    return kernel->symbols;
}

void kernel_close(struct kernel_image *kernel)
{
    if (kernel == NULL)
        return;
    symbols_free(kernel->symbols);
    file_free(&kernel->file);
    file_free(&kernel->initrd);
    file_free(&kernel->vga_rom);
    for (unsigned i = 0; i < LOADER_MAX_MODULES; i++)
        file_free(&kernel->module[i]);
    for (unsigned i = 0; i < LOADER_MAX_BLOBS; i++)
        file_free(&kernel->blob[i]);
    free(kernel);
}
