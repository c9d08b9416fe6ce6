/* ring3 check: what it finds in kernels made here byte by byte, what it prints, and that no file makes it
 * fall over. */
#include <check.h>
#include <elf.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "monitor/check.h"

#define COUNT(array) ((int)(sizeof(array) / sizeof((array)[0])))

/* ---- a kernel: code linked at 1 MiB, with or without sections and symbols
 * ------------------------------------ */

#define CODE_ADDRESS 0x00100000u

static const uint8_t code[] = {
    /* start: */
    0xfa,                             /* 00 cli */
    0x9c,                             /* 01 pushfd */
    0xe8, 0x19, 0x00, 0x00, 0x00,     /* 02 call function */
    0x0f, 0x20, 0xc0,                 /* 07 mov eax, cr0 */
    0xb8, 0x34, 0x00, 0x10, 0x00,     /* 0a mov eax, offset indirect */
    0xff, 0xd0,                       /* 0f call eax */
    0xf4,                             /* 11 hlt */
    0xeb, 0xfd,                       /* 12 jmp 11 */
    'G', 'R', 'U', 'B', ' ', 'c',     /* 14 a string: contains what would be ARPL */
    'l', 'i', 0x00, 0xcf, 0x0f, 0xff, /* 1a and IRETD */
    /* function: */
    0x8e, 0xd8,                               /* 20 mov ds, ax */
    0xea, 0x29, 0x00, 0x10, 0x00, 0x08,       /* 22 jmp far 8:29 */
    0x00,                                     /* 28 */
    0x9d,                                     /* 29 popfd */
    0xcd, 0x80,                               /* 2a int 0x80 */
    0xc3,                                     /* 2c ret */
    0x9d, 0x0f, 0x04, 0x06, 0x07, 0x0f, 0xff, /* 2d data: nothing leads here */
    /* indirect: */
    0x0f, 0x01, 0x08, /* 34 sidt [eax] */
    0xce,             /* 37 into */
    0xc3,             /* 38 ret */
};

static const char symbol_names[] = "\0start\0function\0indirect";

struct kernel {
    uint8_t bytes[2048];
    size_t size;
};

enum { WITH_SECTIONS = 1, WITH_SYMBOLS = 2 };

static uint32_t append(struct kernel *kernel, const void *bytes, size_t n)
{
    uint32_t offset = (uint32_t)((kernel->size + 3) & ~(size_t)3);

    ck_assert_uint_le(offset + n, sizeof kernel->bytes);
    memcpy(kernel->bytes + offset, bytes, n);
    kernel->size = offset + n;
    return offset;
}

static struct kernel make_kernel(unsigned parts, const uint8_t *text, size_t n_text)
{
    struct kernel kernel = {.size = sizeof(Elf32_Ehdr) + sizeof(Elf32_Phdr)};
    const Elf32_Sym symbols[] = {
        {0},
        {.st_name = 1,
         .st_value = CODE_ADDRESS,
         .st_size = 0x14,
         .st_info = ELF32_ST_INFO(STB_GLOBAL, STT_FUNC),
         .st_shndx = 1},
        {.st_name = 7,
         .st_value = CODE_ADDRESS + 0x20,
         .st_size = 0x0d,
         .st_info = ELF32_ST_INFO(STB_GLOBAL, STT_FUNC),
         .st_shndx = 1},
        {.st_name = 16,
         .st_value = CODE_ADDRESS + 0x34,
         .st_size = 4,
         .st_info = ELF32_ST_INFO(STB_LOCAL, STT_FUNC),
         .st_shndx = 1},
    };
    uint32_t text_offset = append(&kernel, text, n_text);
    Elf32_Phdr segment = {.p_type = PT_LOAD,
                          .p_offset = text_offset,
                          .p_vaddr = CODE_ADDRESS,
                          .p_paddr = CODE_ADDRESS,
                          .p_filesz = (Elf32_Word)n_text,
                          .p_memsz = (Elf32_Word)n_text,
                          .p_flags = PF_R | PF_X};
    Elf32_Ehdr header = {.e_ident = {ELFMAG0, ELFMAG1, ELFMAG2, ELFMAG3, ELFCLASS32, ELFDATA2LSB, EV_CURRENT},
                         .e_type = ET_EXEC,
                         .e_machine = EM_386,
                         .e_version = EV_CURRENT,
                         .e_entry = CODE_ADDRESS,
                         .e_phoff = sizeof header,
                         .e_ehsize = sizeof header,
                         .e_phentsize = sizeof segment,
                         .e_phnum = 1,
                         .e_shentsize = sizeof(Elf32_Shdr)};

    if (parts & WITH_SECTIONS) {
        Elf32_Shdr sections[] = {
            {0},
            {.sh_type = SHT_PROGBITS,
             .sh_flags = SHF_ALLOC | SHF_EXECINSTR,
             .sh_addr = CODE_ADDRESS,
             .sh_offset = text_offset,
             .sh_size = (Elf32_Word)n_text,
             .sh_addralign = 4},
            {.sh_type = SHT_STRTAB, .sh_size = sizeof symbol_names, .sh_addralign = 1},
            {.sh_type = SHT_SYMTAB,
             .sh_size = sizeof symbols,
             .sh_link = 2,
             .sh_info = 1,
             .sh_addralign = 4,
             .sh_entsize = sizeof symbols[0]},
        };

        sections[2].sh_offset = append(&kernel, symbol_names, sizeof symbol_names);
        sections[3].sh_offset = append(&kernel, symbols, sizeof symbols);
        header.e_shnum = parts & WITH_SYMBOLS ? 4 : 3;
        header.e_shstrndx = 2;
        header.e_shoff = append(&kernel, sections, sizeof sections);
    }
    memcpy(kernel.bytes, &header, sizeof header);
    memcpy(kernel.bytes + sizeof header, &segment, sizeof segment);
    return kernel;
}

/* ---- files
 * ------------------------------------------------------------------------------------------------------ */

static char directory[] = "/tmp/ring3-check-XXXXXX";
static char path[sizeof directory + 16];

static void make_directory(void)
{
    ck_assert_ptr_nonnull(mkdtemp(directory));
    snprintf(path, sizeof path, "%s/kernel", directory);
}

static void remove_directory(void)
{
    unlink(path);
    rmdir(directory);
}

static void write_file(const void *bytes, size_t n)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(write(fd, bytes, n), (ssize_t)n);
    close(fd);
}

static struct check_report open_kernel(unsigned parts)
{
    struct kernel kernel = make_kernel(parts, code, sizeof code);
    struct check_report report;
    char error[256] = "";

    write_file(kernel.bytes, kernel.size);
    ck_assert_msg(check_open_report(&report, path, error, sizeof error), "%s", error);
    return report;
}

static const struct check_finding *find_at(const struct check_report *report, uint32_t offset)
{
    for (size_t i = 0; i < report->n_findings; i++) {
        if (report->finding[i].address == CODE_ADDRESS + offset)
            return &report->finding[i];
    }
    return NULL;
}

/* ---- the report
 * ---------------------------------------------------------------------------------------------------- */

/* With symbols, without, and without even sections: the same code, so the same findings. */
START_TEST(test_findings)
{
    static const unsigned kinds[] = {WITH_SECTIONS | WITH_SYMBOLS, WITH_SECTIONS, 0};
    static const struct {
        uint32_t offset;
        const char *row;
    } expected[] = {
        {0x00, "CLI"},     {0x01, "PUSHFD"}, {0x07, "MOV from CR"}, {0x11, "HLT"},  {0x20, "MOV to Sreg"},
        {0x22, "JMP far"}, {0x29, "POPFD"},  {0x2a, "INT 0x80"},    {0x34, "SIDT"}, {0x37, "INTO"},
    };
    struct check_report report = open_kernel(kinds[_i]);
    size_t n_reached = 0;

    for (int i = 0; i < COUNT(expected); i++) {
        const struct check_finding *finding = find_at(&report, expected[i].offset);

        ck_assert_msg(finding != NULL && finding->is_reached, "%s at %#x", expected[i].row,
                      expected[i].offset);
        ck_assert_str_eq(finding->row->name, expected[i].row);
        ck_assert_mem_eq(finding->bytes, code + expected[i].offset, finding->length);
    }
    for (size_t i = 0; i < report.n_findings; i++)
        n_reached += report.finding[i].is_reached;
    ck_assert_uint_eq(n_reached, COUNT(expected));
    ck_assert_uint_eq(report.n_sensitive, COUNT(expected));
    ck_assert_uint_eq(report.n_holes, 5);     /* PUSHFD, MOV to Sreg, JMP far, POPFD, SIDT */
    ck_assert_uint_eq(report.n_depending, 1); /* INTO */
    ck_assert_uint_eq(report.n_trapping, 4);
    ck_assert(!check_is_classically_virtualizable(&report));
    ck_assert_uint_eq(report.counts.bytes, sizeof code);
    /* The string and the bytes behind the return are not taken for code that runs. */
    ck_assert_uint_eq(report.n_doubtful, report.n_findings - n_reached);
    ck_assert_uint_gt(report.n_doubtful, 0);
    check_close_report(&report);
}
END_TEST

START_TEST(test_virtualizable)
{
    static const uint8_t text[] = {0xfa, 0xb8, 0x01, 0x00, 0x00, 0x00, 0xe6, 0xe9, 0xf4, 0xeb, 0xfd};
    struct kernel kernel = make_kernel(WITH_SECTIONS, text, sizeof text);
    struct check_report report;
    char error[256], *output;
    size_t n_output;
    FILE *out = open_memstream(&output, &n_output);

    write_file(kernel.bytes, kernel.size);
    ck_assert(check_open_report(&report, path, error, sizeof error));
    ck_assert_uint_eq(report.n_sensitive, 3);
    ck_assert_uint_eq(report.n_trapping, 3);
    ck_assert(check_is_classically_virtualizable(&report));
    check_print_report(&report, false, out);
    fclose(out);
    ck_assert_ptr_nonnull(strstr(output, "Classically virtualizable here"));
    ck_assert_ptr_nonnull(strstr(output, "runs it right with --engine trap. "));
    ck_assert_ptr_null(strstr(output, "patch"));
    free(output);
    check_close_report(&report);
}
END_TEST

START_TEST(test_human_report)
{
    struct check_report report = open_kernel(WITH_SECTIONS | WITH_SYMBOLS);
    char *output;
    size_t n_output;
    FILE *out = open_memstream(&output, &n_output);

    check_print_report(&report, false, out);
    fclose(out);
    ck_assert_ptr_nonnull(strstr(output, "Sensitive: 10: 4 trap, 1 by operand or mode, 5 holes"));
    ck_assert_ptr_nonnull(strstr(output, "  00100029  function+0x9                    hole  popfd\n"));
    ck_assert_ptr_nonnull(
        strstr(output, "  00100022  function+0x2                    hole  jmp far 0x0008:0x00100029\n"));
    ck_assert_ptr_nonnull(strstr(output, "Not classically virtualizable here"));
    ck_assert_ptr_nonnull(strstr(output, "runs it right with --engine trap --holes patch. "));
    ck_assert_ptr_null(strstr(output, "  00100000  ")); /* the cli traps: listed with --all */
    free(output);

    out = open_memstream(&output, &n_output);
    check_print_report(&report, true, out);
    fclose(out);
    ck_assert_ptr_nonnull(strstr(output, "  00100000  start+0x0                                 cli\n"));
    free(output);
    check_close_report(&report);
}
END_TEST

/* The JSON is an interface: its keys and their order do not change. */
START_TEST(test_json)
{
    static const uint8_t text[] = {0xfa, 0x9c, 0xf4, 0xeb, 0xfd};
    static const char expected[] =
        "{\"version\":1,\n"
        "  \"file\":\"%s\",\n"
        "  \"code\":[{\"address\":\"0x00100000\",\"size\":5}],\n"
        "  \"bytes\":5,\"instructions\":4,\"reached\":4,\"skipped\":0,\n"
        "  \"sensitive\":3,\"trapping\":2,\"conditional\":0,\"holes\":1,\"doubtful\":0,\n"
        "  \"symbols\":false,\n"
        "  \"classically_virtualizable\":false,\"options\":\"--engine trap --holes patch\",\n"
        "  \"by_instruction\":[\n"
        "    "
        "{\"name\":\"CLI\",\"class\":\"control\",\"privileged\":true,\"substrate\":\"traps\",\"hole\":false,"
        "\"count\":1},\n"
        "    "
        "{\"name\":\"HLT\",\"class\":\"control\",\"privileged\":true,\"substrate\":\"traps\",\"hole\":false,"
        "\"count\":1},\n"
        "    "
        "{\"name\":\"PUSHFD\",\"class\":\"behaviour\",\"privileged\":false,\"substrate\":\"hole\",\"hole\":"
        "true,"
        "\"count\":1}],\n"
        "  \"found\":[\n"
        "    {\"address\":\"0x00100000\",\"symbol\":null,\"offset\":0,\"bytes\":\"fa\",\"text\":\"cli\","
        "\"name\":\"CLI\",\"hole\":false,\"doubtful\":false},\n"
        "    {\"address\":\"0x00100001\",\"symbol\":null,\"offset\":0,\"bytes\":\"9c\",\"text\":\"pushfd\","
        "\"name\":\"PUSHFD\",\"hole\":true,\"doubtful\":false},\n"
        "    {\"address\":\"0x00100002\",\"symbol\":null,\"offset\":0,\"bytes\":\"f4\",\"text\":\"hlt\","
        "\"name\":\"HLT\",\"hole\":false,\"doubtful\":false}]}\n";
    struct kernel kernel = make_kernel(0, text, sizeof text);
    struct check_report report;
    char error[256], *output, *whole;
    size_t n_output;
    FILE *out = open_memstream(&output, &n_output);

    write_file(kernel.bytes, kernel.size);
    ck_assert(check_open_report(&report, path, error, sizeof error));
    check_print_json(&report, out);
    fclose(out);
    ck_assert_int_gt(asprintf(&whole, expected, path), 0);
    ck_assert_str_eq(output, whole);
    free(whole);
    free(output);
    check_close_report(&report);
}
END_TEST

/* ---- the sweep
 * ------------------------------------------------------------------------------------------------------- */

struct log {
    uint32_t address[16];
    size_t n;
};

static void log_found(void *context, const struct insn *insn, uint32_t address, bool is_reached)
{
    struct log *log = context;

    ck_assert_ptr_nonnull(insn->sensitive);
    ck_assert(is_reached);
    ck_assert_uint_lt(log->n, COUNT(log->address));
    log->address[log->n++] = address;
}

START_TEST(test_sweep)
{
    /* cli; a byte that is nothing and what it hides (add al, imm8); popfd; mov eax, imm32 (holding cli);
     * sidt, cut off */
    static const uint8_t bytes[] = {0xfa, 0x0f, 0x04, 0x90, 0x9d, 0xb8, 0xfa, 0xfa, 0xfa, 0xfa, 0x0f, 0x01};
    struct sweep_counts counts = {0};
    struct log log = {0};

    check_sweep(bytes, sizeof bytes, 0xfffffff8, NULL, log_found, &log, &counts); /* it wraps: no harm */
    ck_assert_uint_eq(log.n, 2);
    ck_assert_uint_eq(log.address[0], 0xfffffff8);
    ck_assert_uint_eq(log.address[1], 0xfffffffc);
    ck_assert_uint_eq(counts.bytes, sizeof bytes);
    ck_assert_uint_eq(counts.instructions, 4);
    ck_assert_uint_eq(counts.skipped, 3);
    check_sweep(bytes, 0, 0, NULL, log_found, &log, &counts);
    ck_assert_uint_eq(log.n, 2);
}
END_TEST

/* ---- files that are no kernels
 * ------------------------------------------------------------------------------------------ */

static void assert_refused(const char *file, const char *reason)
{
    struct check_report report;
    char error[512] = "";

    ck_assert_msg(!check_open_report(&report, file, error, sizeof error), "%s was taken", file);
    ck_assert_msg(strncmp(error, file, strlen(file)) == 0, "the message does not name the file: %s", error);
    ck_assert_msg(strstr(error, reason) != NULL, "\"%s\" does not say \"%s\"", error, reason);
    ck_assert_ptr_null(strchr(error, '\n'));
}

START_TEST(test_refused_files)
{
    struct kernel kernel = make_kernel(WITH_SECTIONS, code, sizeof code);
    struct kernel changed;

    assert_refused("/nonexistent/kernel", "No such file");
    assert_refused(directory, "");
    write_file("", 0);
    assert_refused(path, "empty");
    write_file("hello", 5);
    assert_refused(path, "");
    assert_refused("/proc/self/exe", ""); /* 64-bit; or refused for what it is */
    write_file(kernel.bytes, 40);
    assert_refused(path, "truncated");

    changed = kernel;
    changed.bytes[EI_CLASS] = ELFCLASS64;
    write_file(changed.bytes, changed.size);
    assert_refused(path, "64-bit");

    changed = make_kernel(0, code, sizeof code);
    ((Elf32_Phdr *)(void *)(changed.bytes + sizeof(Elf32_Ehdr)))->p_flags = PF_R;
    write_file(changed.bytes, changed.size);
    assert_refused(path, "no code");
}
END_TEST

/* The same bytes listed as code again and again would make a small file a long run. */
START_TEST(test_overlapping_sections)
{
    struct kernel kernel = make_kernel(WITH_SECTIONS, code, sizeof code);
    Elf32_Ehdr *header = (Elf32_Ehdr *)(void *)kernel.bytes;
    Elf32_Shdr sections[32] = {{0}};

    for (int i = 1; i < COUNT(sections); i++)
        sections[i] = (Elf32_Shdr){.sh_type = SHT_PROGBITS,
                                   .sh_flags = SHF_ALLOC | SHF_EXECINSTR,
                                   .sh_addr = CODE_ADDRESS,
                                   .sh_size = (Elf32_Word)kernel.size};
    header->e_shnum = COUNT(sections);
    header->e_shstrndx = 0;
    kernel.size = 512;
    header->e_shoff = append(&kernel, sections, sizeof sections);
    write_file(kernel.bytes, kernel.size);
    assert_refused(path, "overlap");
}
END_TEST

/* Opens whatever it is, and prints it all if it is taken. */
static void try_file(const void *bytes, size_t n)
{
    struct check_report report;
    char error[512], *output;
    size_t n_output;
    FILE *out;

    write_file(bytes, n);
    if (!check_open_report(&report, path, error, sizeof error))
        return;
    out = open_memstream(&output, &n_output);
    check_print_report(&report, true, out);
    check_print_json(&report, out);
    fclose(out);
    free(output);
    check_close_report(&report);
}

/* A segment that needs no memory is not loaded, so nobody has looked where its bytes would be. */
START_TEST(test_segment_without_memory)
{
    struct kernel kernel = make_kernel(0, code, sizeof code);
    Elf32_Ehdr *header = (Elf32_Ehdr *)(void *)kernel.bytes;
    Elf32_Phdr segments[2];

    memcpy(&segments[0], kernel.bytes + header->e_phoff, sizeof segments[0]);
    segments[1] = segments[0];
    segments[1].p_vaddr += 0x1000;
    segments[1].p_offset = 0x7fffff00;
    segments[1].p_memsz = 0;
    header->e_phnum = 2;
    header->e_phoff = append(&kernel, segments, sizeof segments);
    try_file(kernel.bytes, kernel.size);
}
END_TEST

/* Loaded by the addresses of its multiboot header, so nobody has looked at its ELF headers. */
START_TEST(test_unchecked_elf_headers)
{
    struct kernel kernel = make_kernel(0, code, sizeof code);
    Elf32_Ehdr *header = (Elf32_Ehdr *)(void *)kernel.bytes;
    const uint32_t flags = 0x10000, load = 0x100000;
    uint32_t offset = (uint32_t)((kernel.size + 3) & ~(size_t)3);
    const uint32_t multiboot[] = {0x1badb002, flags,        0u - 0x1badb002 - flags, load + offset, load, 0,
                                  0,          load + offset};

    append(&kernel, multiboot, sizeof multiboot);
    header->e_phnum = 2;
    header->e_phoff = 0x7fffff00;
    try_file(kernel.bytes, kernel.size);
    try_file(kernel.bytes + offset, kernel.size - offset); /* without any */
}
END_TEST

START_TEST(test_every_truncation)
{
    struct kernel kernel = make_kernel(WITH_SECTIONS | WITH_SYMBOLS, code, sizeof code);

    for (size_t n = 0; n <= kernel.size; n++)
        try_file(kernel.bytes, n);
}
END_TEST

START_TEST(test_corrupted_files)
{
    struct kernel kernel = make_kernel(WITH_SECTIONS | WITH_SYMBOLS, code, sizeof code);
    uint32_t random = 4711;

    for (int round = 0; round < 4000; round++) {
        struct kernel changed = kernel;

        for (int i = 0; i < 1 + round % 4; i++) {
            static const uint8_t values[] = {0x00, 0x01, 0x7f, 0x80, 0xff, 0xf4};

            random = random * 1664525 + 1013904223;
            changed.bytes[(random >> 8) % changed.size] =
                round % 2 == 0 ? values[(random >> 24) % sizeof values] : (uint8_t)(random >> 24);
        }
        try_file(changed.bytes, changed.size);
    }
}
END_TEST

/* ---- the command
 * -------------------------------------------------------------------------------------------------------- */

/* Runs it with its output thrown away. */
static int run_quietly(int argc, char **argv, const char *output)
{
    int saved_out = dup(STDOUT_FILENO), saved_error = dup(STDERR_FILENO);
    int out = open(output, O_WRONLY | O_CLOEXEC), error = open("/dev/null", O_WRONLY | O_CLOEXEC);
    int status;

    fflush(stdout);
    dup2(out, STDOUT_FILENO);
    dup2(error, STDERR_FILENO);
    status = check_main(argc, argv);
    fflush(stdout);
    clearerr(stdout);
    dup2(saved_out, STDOUT_FILENO);
    dup2(saved_error, STDERR_FILENO);
    close(saved_out);
    close(saved_error);
    close(out);
    close(error);
    return status;
}

START_TEST(test_exit_status)
{
    struct kernel kernel = make_kernel(WITH_SECTIONS, code, sizeof code);
    static char name[] = "check", json[] = "--json", all[] = "--all", table[] = "--table", help[] = "--help",
                wrong[] = "--wrong", missing[] = "/nonexistent/kernel";

    write_file(kernel.bytes, kernel.size);
    ck_assert_int_eq(run_quietly(2, (char *[]){name, path, NULL}, "/dev/null"), 0);
    ck_assert_int_eq(run_quietly(3, (char *[]){name, path, json, NULL}, "/dev/null"), 0);
    ck_assert_int_eq(run_quietly(3, (char *[]){name, all, path, NULL}, "/dev/null"), 0);
    ck_assert_int_eq(run_quietly(2, (char *[]){name, table, NULL}, "/dev/null"), 0);
    ck_assert_int_eq(run_quietly(2, (char *[]){name, help, NULL}, "/dev/null"), 0);
    ck_assert_int_eq(run_quietly(1, (char *[]){name, NULL}, "/dev/null"), 2);
    ck_assert_int_eq(run_quietly(3, (char *[]){name, path, path, NULL}, "/dev/null"), 2);
    ck_assert_int_eq(run_quietly(3, (char *[]){name, wrong, path, NULL}, "/dev/null"), 2);
    ck_assert_int_eq(run_quietly(3, (char *[]){name, table, path, NULL}, "/dev/null"), 2);
    ck_assert_int_eq(run_quietly(2, (char *[]){name, missing, NULL}, "/dev/null"), 1);
    ck_assert_int_eq(run_quietly(2, (char *[]){name, path, NULL}, "/dev/full"), 1);
}
END_TEST

/* docs/sensitive.md is printed, not written. */
START_TEST(test_table_page_is_current)
{
    char source[] = __FILE__, page[512], *printed, *stored;
    size_t n_printed, n_stored = 0;
    FILE *out = open_memstream(&printed, &n_printed), *in;

    check_print_table(out);
    fclose(out);
    snprintf(page, sizeof page, "%s/../../docs/sensitive.md", dirname(source));
    in = fopen(page, "re");
    ck_assert_msg(in != NULL, "no %s: make it with 'ring3 check --table'", page);
    stored = calloc(1, n_printed + 2);
    n_stored = fread(stored, 1, n_printed + 1, in);
    fclose(in);
    ck_assert_msg(n_stored == n_printed && memcmp(stored, printed, n_printed) == 0,
                  "docs/sensitive.md is out of date: ring3 check --table > docs/sensitive.md");
    free(stored);
    free(printed);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("check");
    TCase *tests = tcase_create("check");
    SRunner *runner;
    int failed;

    tcase_add_unchecked_fixture(tests, make_directory, remove_directory);
    tcase_set_timeout(tests, 60);
    tcase_add_loop_test(tests, test_findings, 0, 3);
    tcase_add_test(tests, test_virtualizable);
    tcase_add_test(tests, test_human_report);
    tcase_add_test(tests, test_json);
    tcase_add_test(tests, test_sweep);
    tcase_add_test(tests, test_refused_files);
    tcase_add_test(tests, test_overlapping_sections);
    tcase_add_test(tests, test_segment_without_memory);
    tcase_add_test(tests, test_unchecked_elf_headers);
    tcase_add_test(tests, test_every_truncation);
    tcase_add_test(tests, test_corrupted_files);
    tcase_add_test(tests, test_exit_status);
    tcase_add_test(tests, test_table_page_is_current);
    suite_add_tcase(suite, tests);
    runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
