/*
 * Debian's U-Boot for QEMU's PC, as a kernel whose memory is measured. Its uboot.elf is linked without the
 * device tree that it expects right behind its image; u-boot.bin, the same build as it goes into a ROM, has
 * it there.
 */
#include <elf.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bench/bench.h"

#define FOLDER            "/usr/lib/u-boot/qemu-x86"
#define DEVICE_TREE_MAGIC "\xd0\x0d\xfe\xed"
#define DEVICE_TREE_MAX   (1u << 20)

static size_t read_at(const char *path, long offset, void *bytes, size_t n)
{
    FILE *file = fopen(path, "rb");
    size_t got = 0;

    if (file == NULL)
        return 0;
    if (fseek(file, offset, SEEK_SET) == 0)
        got = fread(bytes, 1, n, file);
    fclose(file);
    return got;
}

static bool write_temporary(struct uboot *uboot, const void *bytes, size_t n)
{
    int fd = mkstemp(uboot->tree);
    bool ok = fd >= 0 && write(fd, bytes, n) == (ssize_t)n;

    if (fd >= 0)
        close(fd);
    return ok;
}

bool uboot_prepare(struct uboot *uboot)
{
    static const char kernel[] = FOLDER "/uboot.elf";
    Elf32_Ehdr header;
    Elf32_Phdr image;
    uint8_t *tree = malloc(DEVICE_TREE_MAX);
    size_t n = 0;
    bool ok = false;

    *uboot = (struct uboot){.kernel = kernel, .tree = "/tmp/ring3-bench-XXXXXX"};
    if (tree != NULL && read_at(kernel, 0, &header, sizeof header) == sizeof header &&
        read_at(kernel, (long)header.e_phoff, &image, sizeof image) == sizeof image)
        n = read_at(FOLDER "/u-boot.bin", (long)image.p_filesz, tree, DEVICE_TREE_MAX);
    if (n > 4 && memcmp(tree, DEVICE_TREE_MAGIC, 4) == 0 && write_temporary(uboot, tree, n)) {
        snprintf(uboot->load, sizeof uboot->load, "%s@0x%x", uboot->tree, image.p_paddr + image.p_filesz);
        ok = true;
    }
    free(tree);
    return ok;
}

void uboot_clean_up(const struct uboot *uboot)
{
    unlink(uboot->tree);
}
