/* The kernel inside a bzImage: found, unpacked and checked; and files in which it is not what the header
 * says. */
#include <check.h>
#include <lzma.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "monitor/check.h"
#include "monitor/payload.h"

#include "unit/elf_builder.h"
#include "unit/hostile_values.h"

#define SETUP        3u /* sectors of set-up code */
#define CODE         ((size_t)512 * (1 + SETUP))
#define OFFSET       64u /* of the payload in the protected-mode code */
#define PLACE        (CODE + OFFSET)
#define FILE_MAX     (PLACE + BUILDER_MAX)
#define CODE_ADDRESS 0xc1000000u

static uint8_t file[FILE_MAX];
static size_t file_size;
static char error[512];
static char path[] = "/tmp/ring3-payload-XXXXXX";

static void put(size_t offset, uint64_t value, unsigned size)
{
    memcpy(file + offset, &value, size);
}

/* A bzImage around these bytes. */
static void wrap(const void *payload, size_t n)
{
    memset(file, 0xee, sizeof file);
    put(0x1f1, SETUP, 1);
    put(0x1fe, 0xaa55, 2);
    put(0x200, 0x6aeb, 2);     /* the header ends at 0x26c */
    put(0x202, 0x53726448, 4); /* HdrS */
    put(0x206, 0x020f, 2);
    put(0x211, 0x01, 1); /* LOADED_HIGH */
    put(0x22c, 0x7fffffff, 4);
    put(0x236, 0, 2);
    put(0x238, 2047, 4);
    put(0x248, OFFSET, 4);
    put(0x24c, n, 4);
    put(0x258, 0x1000000, 8);
    put(0x260, 0x800000, 4);
    memcpy(file + PLACE, payload, n);
    file_size = PLACE + n;
}

/* As Linux's build does it: the filter for x86, and behind the stream the size. */
static size_t compress(const void *bytes, size_t n, uint8_t *out, size_t room)
{
    lzma_options_lzma options;
    lzma_filter filters[] = {
        {.id = LZMA_FILTER_X86}, {.id = LZMA_FILTER_LZMA2, .options = &options}, {.id = LZMA_VLI_UNKNOWN}};
    uint32_t size = (uint32_t)n;
    size_t length = 0;

    ck_assert(!lzma_lzma_preset(&options, 0));
    ck_assert_int_eq(lzma_stream_buffer_encode(filters, LZMA_CHECK_CRC32, NULL, bytes, n, out, &length,
                                               room - sizeof size),
                     LZMA_OK);
    memcpy(out + length, &size, sizeof size);
    return length + sizeof size;
}

static void wrap_compressed(const void *bytes, size_t n)
{
    static uint8_t out[BUILDER_MAX];

    wrap(out, compress(bytes, n, out, sizeof out));
}

/* cli; pushf; pop %eax; hlt */
static void wrap_kernel(void)
{
    static const uint8_t code[] = {0xfa, 0x9c, 0x58, 0xf4};
    static struct elf_builder elf;

    builder_start(&elf, CODE_ADDRESS - 0xc0000000u);
    builder_segment(&elf, builder_add_segment(&elf, CODE_ADDRESS - 0xc0000000u, CODE_ADDRESS, code,
                                              sizeof code, sizeof code))
        ->p_flags = PF_R | PF_X;
    wrap_compressed(elf.bytes, elf.size);
}

static bool check(struct check_report *report)
{
    int fd = mkstemp(strcpy(path, "/tmp/ring3-payload-XXXXXX"));
    bool ok;

    ck_assert(fd >= 0 && write(fd, file, file_size) == (ssize_t)file_size);
    close(fd);
    error[0] = '\0';
    ok = check_open_report(report, path, error, sizeof error);
    unlink(path);
    if (!ok) {
        ck_assert_msg(strncmp(error, path, strlen(path)) == 0, "%s", error);
        ck_assert_ptr_null(strchr(error, '\n'));
    }
    return ok;
}

static void expect_refused(const char *part)
{
    struct check_report report;

    ck_assert_msg(!check(&report), "was checked; want \"%s\"", part);
    ck_assert_msg(strstr(error, part) != NULL, "got \"%s\", want \"%s\"", error, part);
}

START_TEST(the_kernel_inside_is_checked)
{
    struct check_report report;

    wrap_kernel();
    ck_assert_msg(check(&report), "%s", error);
    ck_assert_uint_eq(report.n_sensitive, 3);
    ck_assert_uint_eq(report.n_holes, 1);
    ck_assert_uint_eq(report.finding[1].address, CODE_ADDRESS + 1);
    ck_assert(!check_is_classically_virtualizable(&report));
    check_close_report(&report);
}
END_TEST

/* Nobody can patch code that is compressed. */
START_TEST(the_advice_is_to_translate)
{
    struct check_report report;
    char *text;
    size_t size;
    FILE *out = open_memstream(&text, &size);

    wrap_kernel();
    ck_assert_msg(check(&report), "%s", error);
    check_print_report(&report, false, out);
    check_print_json(&report, out);
    fclose(out);
    ck_assert_ptr_nonnull(strstr(text, "a Linux bzImage; this is of the kernel in it"));
    ck_assert_ptr_nonnull(strstr(text, "\"options\":\"--engine translate\""));
    ck_assert_ptr_null(strstr(text, "--holes patch"));
    free(text);
    check_close_report(&report);
}
END_TEST

START_TEST(a_header_that_points_nowhere)
{
    wrap_kernel();
    put(0x206, 0x0207, 2);
    expect_refused("does not say where the compressed kernel is");
    wrap_kernel();
    put(0x24c, 0, 4);
    expect_refused("does not say where the compressed kernel is");
    wrap_kernel();
    put(0x24c, file_size - PLACE + 1, 4);
    expect_refused("are the compressed kernel, and there are");
    wrap_kernel();
    put(0x248, file_size - CODE + 1, 4);
    expect_refused("are the compressed kernel, and there are");
    wrap_kernel();
    put(0x248, 0xffffffff, 4);
    put(0x24c, 2, 4);
    expect_refused("are the compressed kernel, and there are");
}
END_TEST

static const struct {
    const char *magic, *part;
} other_formats[] = {
    {"\x1f\x8b", "gzip"},        {"\x28\xb5\x2f\xfd", "zstd"},
    {"\x02\x21\x4c\x18", "LZ4"}, {"\x89LZO", "LZO"},
    {"BZh9", "bzip2"},           {"\x5d", "LZMA"},
    {"x", "unknown format"},
};

START_TEST(other_ways_to_compress)
{
    uint8_t bytes[100] = {0};

    memcpy(bytes, other_formats[_i].magic, strlen(other_formats[_i].magic));
    wrap(bytes, sizeof bytes);
    expect_refused(other_formats[_i].part);
    wrap(bytes, 1); /* a magic number that is cut off */
    expect_refused("unknown format");
}
END_TEST

START_TEST(something_else_inside)
{
    wrap_compressed("no kernel at all", 16);
    expect_refused("not an ELF file");
    wrap_compressed("\x7f", 1);
    expect_refused("not an ELF file");
    wrap_compressed("", 0);
    expect_refused("not an ELF file");
    wrap_compressed("\x7f"
                    "ELF",
                    4);
    expect_refused("truncated");
}
END_TEST

/* One bzImage inside the other: it is unpacked once. */
START_TEST(a_bzimage_inside)
{
    uint8_t inner[2 * CODE];

    wrap_kernel();
    memcpy(inner, file, sizeof inner);
    wrap_compressed(inner, sizeof inner);
    expect_refused("not an ELF file");
}
END_TEST

/* 130 MiB of zeros in a few KiB. */
START_TEST(a_bomb)
{
    static uint8_t out[BUILDER_MAX], zeros[1 << 20];
    lzma_stream stream = LZMA_STREAM_INIT;

    ck_assert_int_eq(lzma_easy_encoder(&stream, 0, LZMA_CHECK_NONE), LZMA_OK);
    stream.next_out = out;
    stream.avail_out = sizeof out;
    for (unsigned i = 0; i < 130; i++) {
        stream.next_in = zeros;
        stream.avail_in = sizeof zeros;
        ck_assert_int_eq(lzma_code(&stream, LZMA_RUN), LZMA_OK);
    }
    ck_assert_int_eq(lzma_code(&stream, LZMA_FINISH), LZMA_STREAM_END);
    wrap(out, sizeof out - stream.avail_out);
    lzma_end(&stream);
    expect_refused("unpacks to more than 128 MiB");
}
END_TEST

START_TEST(data_that_ends_early)
{
    size_t size;

    wrap_kernel();
    size = file_size - PLACE - 4; /* the stream */
    for (size_t n = 6; n < size; n++) {
        put(0x24c, n, 4);
        expect_refused("XZ data cut off");
    }
}
END_TEST

/* Whatever the header and the data say: a report, or one line. */
START_TEST(damaged_files)
{
    struct chance chance = chance_of_seed((uint64_t)_i);
    struct check_report report;

    wrap_kernel();
    for (unsigned n = 1 + chance_below(&chance, 4); n > 0; n--) {
        if (chance_one_in(&chance, 3))
            put(0x248 + chance_below(&chance, 8), hostile_value(&chance), 1u << chance_below(&chance, 3));
        else
            file[PLACE + chance_below(&chance, (uint32_t)(file_size - PLACE))] ^= 1u
                                                                                  << chance_below(&chance, 8);
    }
    if (check(&report))
        check_close_report(&report);
    else
        ck_assert_str_ne(error, "");
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("payload");
    TCase *tests = tcase_create("payload");
    SRunner *runner = srunner_create(suite);
    int failed;

    tcase_add_test(tests, the_kernel_inside_is_checked);
    tcase_add_test(tests, the_advice_is_to_translate);
    tcase_add_test(tests, a_header_that_points_nowhere);
    tcase_add_loop_test(tests, other_ways_to_compress, 0, sizeof other_formats / sizeof other_formats[0]);
    tcase_add_test(tests, something_else_inside);
    tcase_add_test(tests, a_bzimage_inside);
    tcase_add_test(tests, a_bomb);
    tcase_add_test(tests, data_that_ends_early);
    tcase_add_loop_test(tests, damaged_files, 0, 1000);
    suite_add_tcase(suite, tests);
    srunner_run_all(runner, CK_ENV);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
