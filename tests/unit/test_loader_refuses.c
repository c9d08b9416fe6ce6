/* monitor/loader: every way to fail, each with one line that says what was wrong. */
#include <sys/stat.h>

#include "loader_world.h"

/* One line that begins with the file's name and holds `part`. */
static void expect_error(const char *name, const char *part)
{
    ck_assert_msg(strncmp(error, name, strlen(name)) == 0 && strstr(error, part) != NULL,
                  "got \"%s\", want \"%s: ... %s ...\"", error, name, part);
    ck_assert_ptr_null(strchr(error, '\n'));
}

static void expect_no_kernel(const char *part)
{
    ck_assert_msg(load(RAM_SIZE) == NULL, "was loaded; want \"%s\"", part);
    expect_error("kernel.elf: ", part);
}

/* ---- what does not: files ------------------------------------------------------------------------------ */

START_TEST(bad_files)
{
    char fifo[512];

    fresh(0);
    config.kernel_bytes = NULL;
    config.kernel_path = "/nonexistent/kernel";
    ck_assert_ptr_null(open_kernel());
    expect_error("/nonexistent/kernel: ", "cannot be opened: No such file or directory");
    config.kernel_path = directory;
    ck_assert_ptr_null(open_kernel());
    expect_error(directory, "is a directory");
    config.kernel_path = write_file("empty", "", 0);
    ck_assert_ptr_null(open_kernel());
    expect_error(config.kernel_path, "the file is empty");
    snprintf(fifo, sizeof fifo, "%s/fifo", directory);
    ck_assert_int_eq(mkfifo(fifo, 0600), 0);
    config.kernel_path = fifo;
    ck_assert_ptr_null(open_kernel());
    expect_error(fifo, "is not a regular file");
    config.kernel_path = "/dev/null";
    ck_assert_ptr_null(open_kernel());
    expect_error("/dev/null: ", "is not a regular file");
    config.kernel_path = write_file("two\nlines", "", 0);
    ck_assert_ptr_null(open_kernel());
    expect_error(directory, "two?lines: the file is empty");
}
END_TEST

START_TEST(unreadable_file)
{
    fresh(0);
    config.kernel_bytes = NULL;
    config.kernel_path = write_file("secret", "x", 1);
    ck_assert_int_eq(chmod(config.kernel_path, 0), 0);
    if (geteuid() == 0)
        return; /* root reads everything: nothing to see */
    ck_assert_ptr_null(open_kernel());
    expect_error(config.kernel_path, "cannot be opened: Permission denied");
}
END_TEST

static const struct {
    const char *bytes;
    size_t size, at;
    const char *part;
} mistaken[] = {
    {"hello, world", 12, 0, "not a kernel: neither an ELF file nor a multiboot 1 header"},
    {"\x1f\x8b", 2, 0, "compressed with gzip"},
    {"\xfd"
     "7zXZ",
     5, 0, "compressed with xz"},
    {"\x28\xb5\x2f\xfd", 4, 0, "compressed with zstd"},
    {"MZ", 2, 0, "a DOS or Windows program"},
    {"#!/bin/sh", 9, 0, "a script"},
    {"\x55\xaa", 2, 510, "a boot sector"},
    {"\177EL", 3, 0, "not a kernel"},
};

START_TEST(not_a_kernel)
{
    fresh(0);
    memset(builder.bytes, 0, sizeof builder.bytes);
    memcpy(builder.bytes + mistaken[_i].at, mistaken[_i].bytes, mistaken[_i].size);
    builder.size = mistaken[_i].at + mistaken[_i].size;
    expect_no_kernel(mistaken[_i].part);
}
END_TEST

START_TEST(bad_companions)
{
    fresh_multiboot(0);
    config.n_modules = 1;
    config.module[0].path = "/nonexistent/module";
    ck_assert_ptr_null(load(RAM_SIZE));
    expect_error("/nonexistent/module: ", "cannot be opened");
    config.module[0].path = directory;
    ck_assert_ptr_null(load(RAM_SIZE));
    expect_error(directory, "is a directory");
    config.module[0].path = write_file("big", builder.bytes, BUILDER_MAX);
    builder_segment(&builder, 0)->p_memsz = (15u << 20) - 8 * 4096; /* 16 pages do not fit above it */
    ck_assert_ptr_null(load(RAM_SIZE));
    expect_error(config.module[0].path, "no room for this module of 65536 bytes above the kernel in 16M");

    fresh_multiboot(0);
    config.n_blobs = 1;
    config.blob[0] = (struct loader_blob){.path = "/nonexistent/blob", .gpa = 0};
    ck_assert_ptr_null(load(RAM_SIZE));
    expect_error("/nonexistent/blob: ", "cannot be opened");
    config.blob[0] = (struct loader_blob){.path = write_file("blob", "12", 2), .gpa = 0xffffffff};
    ck_assert_ptr_null(load(RAM_SIZE));
    expect_error(config.blob[0].path, "past 4 GiB");
    config.blob[0].gpa = UINT64_MAX;
    ck_assert_ptr_null(load(RAM_SIZE));
    expect_error(config.blob[0].path, "past 4 GiB");
    config.blob[0].gpa = RAM_SIZE;
    ck_assert_ptr_null(load(RAM_SIZE));
    expect_error(config.blob[0].path,
                 "--load at 0x01000000 of 0x2 bytes is outside the memory of 16M: --memory 17M");
}
END_TEST

START_TEST(multiboot_options_without_multiboot)
{
    fresh(0x100000);
    builder_add_segment(&builder, 0x100000, 0x100000, code, sizeof code, 64);
    config.append = "quiet";
    expect_no_kernel("--append needs a multiboot kernel");
    config.append = NULL;
    config.n_modules = 1;
    config.module[0].path = "/dev/null";
    expect_no_kernel("--module needs a multiboot kernel");
}
END_TEST

/* ---- what does not: ELF headers ------------------------------------------------------------------------ */

static void cut_ident(void)
{
    builder.size = 10;
}
static void cut_header(void)
{
    builder.size = 40;
}
static void class_64(void)
{
    builder.bytes[EI_CLASS] = ELFCLASS64;
}
static void class_none(void)
{
    builder.bytes[EI_CLASS] = 7;
}
static void big_endian(void)
{
    builder.bytes[EI_DATA] = ELFDATA2MSB;
}
static void other_machine(void)
{
    builder_header(&builder)->e_machine = EM_ARM;
}
static void other_version(void)
{
    builder_header(&builder)->e_version = 9;
}
static void relocatable(void)
{
    builder_header(&builder)->e_type = ET_REL;
}
static void shared(void)
{
    builder_header(&builder)->e_type = ET_DYN;
}
static void core(void)
{
    builder_header(&builder)->e_type = ET_CORE;
}
static void strange_type(void)
{
    builder_header(&builder)->e_type = 0xfe00;
}
static void no_program_headers(void)
{
    builder_header(&builder)->e_phnum = 0;
}
static void program_header_size(void)
{
    builder_header(&builder)->e_phentsize = 33;
}
static void program_headers_outside(void)
{
    builder_header(&builder)->e_phoff = 0xffffffe0;
}
static void program_headers_inside_header(void)
{
    builder_header(&builder)->e_phoff = 4;
}
static void too_many_program_headers(void)
{
    builder_header(&builder)->e_phnum = 0xffff;
}
static void nothing_to_load(void)
{
    builder_segment(&builder, 0)->p_type = PT_NOTE;
}
static void nothing_in_memory(void)
{
    builder_segment(&builder, 0)->p_memsz = builder_segment(&builder, 0)->p_filesz = 0;
}
static void interpreter(void)
{
    builder_add_segment(&builder, 0x200000, 0x200000, "/lib/ld.so", 11, 11);
    builder_segment(&builder, 1)->p_type = PT_INTERP;
}
static void more_in_file(void)
{
    builder_segment(&builder, 0)->p_memsz = 8;
}
static void segment_outside_file(void)
{
    builder_segment(&builder, 0)->p_offset = 0xfffffff0;
}
static void segment_cut(void)
{
    builder.size -= 1;
}
static void segment_wraps(void)
{
    builder_segment(&builder, 0)->p_memsz = 0xfff00001;
}
static void segments_overlap(void)
{
    builder_add_segment(&builder, 0x10003f, 0x400000, code, 16, 16);
}
static void segment_in_video(void)
{
    builder_add_segment(&builder, 0x9fff0, 0x9fff0, code, 32, 32);
}
static void segment_in_bios(void)
{
    builder_add_segment(&builder, 0xf0000, 0xf0000, code, 32, 32);
}
static void segment_beyond_ram(void)
{
    builder_add_segment(&builder, 0x2000000, 0x2000000, code, 16, 0x100001);
}
static void segment_beyond_all(void)
{
    builder_add_segment(&builder, 0xc0100000, 0xc0100000, code, 16, 16);
}
static void entry_outside(void)
{
    builder_header(&builder)->e_entry = 0x100040;
}
static void many_segments(void)
{
    for (unsigned i = 1; i <= IMAGE_MAX_SEGMENTS; i++)
        *builder_segment(&builder, i) =
            (Elf32_Phdr){.p_type = PT_LOAD, .p_paddr = 0x200000 + i * 16, .p_memsz = 16};
    builder_header(&builder)->e_phnum = IMAGE_MAX_SEGMENTS + 1;
}
static void kernel_fills_memory(void)
{
    builder_segment(&builder, 0)->p_memsz = 15u << 20;
    builder_add_segment(&builder, 0x9000, 0x9000, code, 16, 0xa0000 - 0x9000);
}

static const struct {
    void (*damage)(void);
    const char *part;
} damages[] = {
    {cut_ident, "truncated: 10 bytes, and an ELF header has 52"},
    {cut_header, "truncated: 40 bytes"},
    {class_64, "a 64-bit ELF file"},
    {class_none, "unknown ELF class 7"},
    {big_endian, "a big-endian ELF file"},
    {other_machine, "an ELF file for another machine (e_machine 40)"},
    {other_version, "unknown ELF version"},
    {relocatable, "a relocatable object (ET_REL)"},
    {shared, "position-independent program (ET_DYN)"},
    {core, "a core dump"},
    {strange_type, "not an executable"},
    {no_program_headers, "no program headers"},
    {program_header_size, "program headers of 33 bytes: 32 expected"},
    {program_headers_outside, "the program header table (0xffffffe0, 1 entries) is outside the file"},
    {program_headers_inside_header, "the program header table (0x4, 1 entries)"},
    {too_many_program_headers, "the program header table (0x40, 65535 entries) is outside the file"},
    {nothing_to_load, "no loadable segments"},
    {nothing_in_memory, "no loadable segments"},
    {interpreter, "it names an interpreter"},
    {more_in_file, "segment 0 has more bytes in the file (0x40) than in memory (0x8)"},
    {segment_outside_file, "truncated: segment 0 (0x40 bytes at 0xfffffff0) is outside the file"},
    {segment_cut, "truncated: segment 0"},
    {segment_wraps, "runs past 4 GiB"},
    {segments_overlap, "segments overlap: 0x00100000 of 0x40 bytes and 0x0010003f of 0x10 bytes"},
    {segment_in_video, "runs into the video and BIOS area"},
    {segment_in_bios, "runs into the video and BIOS area"},
    {segment_beyond_ram,
     "segment at 0x02000000 of 0x100001 bytes is outside the memory of 16M: --memory 34M"},
    {segment_beyond_all, "segment at physical address 0xc0100000 is outside any memory a machine can have"},
    {entry_outside, "its entry point 0x00100040 is in none of its segments"},
    {many_segments, "more than 64 loadable segments"},
    {kernel_fills_memory, "no room for 0x1020 bytes of boot information"},
};

START_TEST(damaged_elf)
{
    fresh(0x100000);
    builder_add_segment(&builder, 0x100000, 0x100000, code, sizeof code, 64);
    damages[_i].damage();
    expect_no_kernel(damages[_i].part);
}
END_TEST

/* ---- what does not: multiboot headers ------------------------------------------------------------------ */

START_TEST(bad_multiboot)
{
    uint32_t *header;

    fresh_multiboot(0x0008);
    expect_no_kernel("requires features that ring3 does not have (flags 0x8)");
    fresh_flat();
    put_multiboot(16, 0);
    expect_no_kernel("has no load addresses (flag 16), and it is not an ELF file");
    header = fresh_flat();
    header[2]++;
    expect_no_kernel("not a kernel");
    fresh_flat();
    builder.size = 40; /* the addresses are cut off */
    expect_no_kernel("not a kernel");
    header = fresh_flat();
    header[4] = 0x200011; /* loading would start after the header */
    expect_no_kernel("multiboot load address 0x00200011 does not fit");
    header = fresh_flat();
    header[4] = 0x1fffff; /* or before the file */
    expect_no_kernel("multiboot load address 0x001fffff does not fit");
    header = fresh_flat();
    header[5] = 0x200101;
    expect_no_kernel("multiboot load end 0x00200101 is not within the file");
    header = fresh_flat();
    header[5] = 0x200000;
    expect_no_kernel("multiboot load end 0x00200000 is not within the file");
    header = fresh_flat();
    header[6] = 0x2000ff;
    expect_no_kernel("multiboot bss end 0x002000ff is before the end");
    header = fresh_flat();
    header[6] = 0x1000;
    expect_no_kernel("multiboot bss end 0x00001000 is before the end");
    header = fresh_flat();
    header[7] = 0x200100;
    expect_no_kernel("entry point 0x00200100 is in none");
    header = fresh_flat();
    header[7] = 0x1fffff;
    expect_no_kernel("entry point 0x001fffff is in none");
}
END_TEST

/* Hostile words everywhere in the headers, and random damage: loaded or one line, never anything else. */
static void try_load(void)
{
    struct kernel_image *kernel;

    error[0] = '\0';
    kernel = load(UINT64_C(4) << 20);
    if (kernel != NULL) {
        unload(kernel);
    } else {
        ck_assert_ptr_null(strchr(error, '\n'));
        ck_assert_uint_ne(strlen(error), 0);
    }
}

START_TEST(hostile_headers)
{
    static const uint32_t values[] = {0,          1,          0x34,       0x1000,    0x100000,
                                      0x7fffffff, 0x80000000, 0xfffff000, 0xffffffff};
    static struct elf_builder good;

    fresh_multiboot(0);
    builder_add_segment(&builder, 0x200000, 0x200000, code, sizeof code, 4096);
    good = builder;
    for (size_t at = 0x10; at < BUILDER_PHOFF + 2 * sizeof(Elf32_Phdr); at += 4) {
        for (size_t i = 0; i < COUNT(values); i++) {
            builder = good;
            memcpy(builder.bytes + at, &values[i], 4);
            try_load();
        }
    }
    fresh_flat();
    good = builder;
    for (size_t at = 16; at < 16 + 32; at += 4) {
        for (size_t i = 0; i < COUNT(values); i++) {
            builder = good;
            memcpy(builder.bytes + at, &values[i], 4);
            try_load();
        }
    }
    for (size_t size = 0; size < 64; size++) {
        builder = good;
        builder.size = size;
        try_load();
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("loader/refuses");
    TCase *bad = tcase_create("refuses");

    tcase_add_test(bad, bad_files);
    tcase_add_test(bad, unreadable_file);
    tcase_add_loop_test(bad, not_a_kernel, 0, COUNT(mistaken));
    tcase_add_test(bad, bad_companions);
    tcase_add_test(bad, multiboot_options_without_multiboot);
    tcase_add_loop_test(bad, damaged_elf, 0, COUNT(damages));
    tcase_add_test(bad, bad_multiboot);
    tcase_add_test(bad, hostile_headers);
    tcase_set_timeout(bad, 60);
    suite_add_tcase(suite, bad);
    return run_suite(suite);
}
