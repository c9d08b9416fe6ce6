/*
 * Linux's Documentation/arch/x86/boot.rst, "payload_offset" and "payload_length": where in the file the
 * compressed kernel lies, and that its magic number says how it is compressed. Debian's are compressed with
 * XZ, the only format that is unpacked here.
 *
 * All of it is hostile: the place is checked against the file, and what comes out against PAYLOAD_MAX_SIZE.
 * Read next: check.c.
 */
#include "monitor/payload.h"

#include <elf.h>
#include <lzma.h>
#include <stdlib.h>
#include <string.h>

#include "vcpu/fail.h"

#define FIRST_SIZE (UINT64_C(1) << 20)
#define MEMORY_LIMIT                                                                                         \
    (UINT64_C(256) << 20) /* the kernel's own dictionary is 128 MiB at most (scripts/xz_wrap.sh) */

static const struct {
    const char *magic;
    unsigned length;
    const char *name; /* NULL: XZ */
} formats[] = {
    {"\xfd\x37zXZ\0", 6, NULL},     {"\x1f\x8b", 2, "gzip"}, {"\x28\xb5\x2f\xfd", 4, "zstd"},
    {"\x02\x21\x4c\x18", 4, "LZ4"}, {"\x89LZO", 4, "LZO"},   {"BZh", 3, "bzip2"},
    {"\x5d\0\0", 3, "LZMA"},
};

static bool check_format(const uint8_t *bytes, size_t n, const struct image_error *error)
{
    for (size_t i = 0; i < sizeof formats / sizeof formats[0]; i++) {
        if (n < formats[i].length || memcmp(bytes, formats[i].magic, formats[i].length) != 0)
            continue;
        return formats[i].name == NULL ||
               image_fail(error,
                          "its kernel is compressed with %s, and ring3 unpacks XZ alone; give it the vmlinux "
                          "(Linux's scripts/extract-vmlinux makes one)",
                          formats[i].name);
    }
    return image_fail(error, "its kernel is compressed in an unknown format");
}

/* Room for twice as much, or the first time. */
static bool grow(struct file_bytes *to, const struct image_error *error)
{
    uint64_t size = to->size == 0 ? FIRST_SIZE : 2 * (uint64_t)to->size;
    uint8_t *bytes;

    if (size > PAYLOAD_MAX_SIZE)
        return image_fail(error, "its kernel unpacks to more than %llu MiB",
                          (unsigned long long)(PAYLOAD_MAX_SIZE >> 20));
    bytes = realloc(to->bytes, size);
    if (bytes == NULL)
        die("out of memory for %llu bytes of %s", (unsigned long long)size, error->path);
    *to = (struct file_bytes){.bytes = bytes, .size = (size_t)size};
    return true;
}

static const char *explain(lzma_ret result)
{
    switch (result) {
    case LZMA_BUF_ERROR:
        return "cut off";
    case LZMA_MEMLIMIT_ERROR:
        return "its dictionary is larger than any kernel's";
    case LZMA_OPTIONS_ERROR:
        return "options that are unknown";
    case LZMA_MEM_ERROR:
        return "out of memory";
    default:
        return "damaged";
    }
}

/* What follows the stream (Linux's build appends the size) is not looked at. On failure, too, *to is the
 * caller's to free. */
static bool unpack_xz(const uint8_t *bytes, size_t n, struct file_bytes *to, const struct image_error *error)
{
    lzma_stream stream = LZMA_STREAM_INIT;
    lzma_ret result = lzma_stream_decoder(&stream, MEMORY_LIMIT, 0);
    bool has_room = true;

    stream.next_in = bytes;
    stream.avail_in = n;
    while (has_room && result == LZMA_OK) {
        if (stream.avail_out == 0) {
            has_room = grow(to, error);
            stream.next_out = to->bytes + stream.total_out;
            stream.avail_out = to->size - (size_t)stream.total_out;
        }
        if (has_room)
            result = lzma_code(&stream, LZMA_FINISH);
    }
    to->size = (size_t)stream.total_out;
    lzma_end(&stream);
    if (has_room && result != LZMA_STREAM_END)
        return image_fail(error, "its kernel cannot be unpacked: XZ data %s", explain(result));
    return has_room;
}

bool payload_unpack(const struct kernel_image *image, struct file_bytes *unpacked,
                    const struct image_error *error)
{
    struct linux_payload place;
    bool is_good;

    *unpacked = (struct file_bytes){0};
    if (!linux_find_payload(image, &place, error) ||
        !check_format(image->bytes + place.file_offset, place.size, error))
        return false;
    is_good = unpack_xz(image->bytes + place.file_offset, place.size, unpacked, error);
    if (is_good && (unpacked->size < SELFMAG || memcmp(unpacked->bytes, ELFMAG, SELFMAG) != 0))
        is_good = image_fail(error, "its kernel unpacks to something that is not an ELF file");
    if (!is_good)
        file_free(unpacked);
    return is_good;
}
