/* monitor/options and run_options: parsing, values, mistakes and what they are told, help. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "monitor/run_options.h"

#define COUNT(array) (sizeof(array) / sizeof(array)[0])
#define MAX_WORDS    80

static struct run_options options;

/* Runs the parser on words separated by spaces, with standard output and error going to `told`. */
static char told[16384];

static enum options_result parse(const char *words)
{
    static char copy[4096];
    char *argv[MAX_WORDS] = {"run"};
    FILE *capture = tmpfile();
    int argc = 1, saved_out, saved_err;
    enum options_result result;
    size_t n;

    ck_assert_ptr_nonnull(capture);
    snprintf(copy, sizeof copy, "%s", words);
    for (char *word = strtok(copy, " "); word != NULL; word = strtok(NULL, " "))
        argv[argc++] = strcmp(word, "EMPTY") == 0 ? "" : word;
    fflush(NULL);
    saved_out = dup(STDOUT_FILENO);
    saved_err = dup(STDERR_FILENO);
    dup2(fileno(capture), STDOUT_FILENO);
    dup2(fileno(capture), STDERR_FILENO);
    run_options_free(&options);
    result = run_options_parse(&options, argc, argv);
    fflush(NULL);
    dup2(saved_out, STDOUT_FILENO);
    dup2(saved_err, STDERR_FILENO);
    close(saved_out);
    close(saved_err);
    rewind(capture);
    n = fread(told, 1, sizeof told - 1, capture);
    told[n] = '\0';
    fclose(capture);
    return result;
}

static void expect_ok(const char *words)
{
    enum options_result result = parse(words);

    ck_assert_msg(result == OPTIONS_OK, "\"%s\" was refused: %s", words, told);
    ck_assert_str_eq(told, "");
}

START_TEST(defaults)
{
    expect_ok("");
    ck_assert_ptr_null(options.kernel);
    ck_assert_ptr_null(options.engine);
    ck_assert_uint_eq(options.memory, UINT64_C(256) << 20);
    ck_assert_int_eq(options.holes, HOLES_EXPOSE);
    ck_assert_int_eq(options.clock, CLOCK_HOST);
    ck_assert_int_eq(options.console, CONSOLE_STDIO);
    ck_assert_uint_eq(options.timeout, 0);
    ck_assert(!options.check_shadow && !options.no_userfaultfd);
}
END_TEST

START_TEST(all_of_them)
{
    expect_ok("--engine trap -m 64M --append quiet --module a,x=1,y --module b --load c@0xfff0 --load d@e@16 "
              "--drive disk.img --drive other,snapshot --holes patch --clock virtual --console none "
              "--trace t.jsonl --stats s.json --timeout 2.5 --check-shadow --no-userfaultfd kernel.elf");
    ck_assert_str_eq(options.kernel, "kernel.elf");
    ck_assert_str_eq(options.engine, "trap");
    ck_assert_uint_eq(options.memory, UINT64_C(64) << 20);
    ck_assert_str_eq(options.append, "quiet");
    ck_assert_uint_eq(options.n_modules, 2);
    ck_assert_str_eq(options.module[0].path, "a");
    ck_assert_str_eq(options.module[0].command_line, "x=1,y"); /* all after the first comma */
    ck_assert_str_eq(options.module[1].path, "b");
    ck_assert_ptr_null(options.module[1].command_line);
    ck_assert_uint_eq(options.n_blobs, 2);
    ck_assert_str_eq(options.blob[0].path, "c");
    ck_assert_uint_eq(options.blob[0].gpa, 0xfff0);
    ck_assert_str_eq(options.blob[1].path, "d@e");
    ck_assert_uint_eq(options.blob[1].gpa, 16);
    ck_assert_uint_eq(options.n_drives, 2);
    ck_assert_str_eq(options.drive[0].path, "disk.img");
    ck_assert(!options.drive[0].snapshot);
    ck_assert_str_eq(options.drive[1].path, "other");
    ck_assert(options.drive[1].snapshot);
    ck_assert_int_eq(options.holes, HOLES_PATCH);
    ck_assert_int_eq(options.clock, CLOCK_VIRTUAL);
    ck_assert_int_eq(options.console, CONSOLE_NONE);
    ck_assert_str_eq(options.trace, "t.jsonl");
    ck_assert_str_eq(options.stats, "s.json");
    ck_assert_uint_eq(options.timeout, 2500000000u);
    ck_assert(options.check_shadow && options.no_userfaultfd);
}
END_TEST

START_TEST(a_disk_to_boot)
{
    expect_ok("--boot disk --bios b.bin --drive disk.img --reboot --input serial");
    ck_assert_int_eq(options.input, BOARD_INPUT_UART);
    ck_assert_int_eq(options.boot, BOOT_DISK);
    ck_assert_str_eq(options.bios, "b.bin");
    ck_assert(options.reboots);
    ck_assert_ptr_null(options.kernel);
    expect_ok("--boot kernel --initrd rd vmlinuz");
    ck_assert_int_eq(options.boot, BOOT_KERNEL);
    ck_assert_str_eq(options.initrd, "rd");
    ck_assert(!options.reboots);
}
END_TEST

START_TEST(the_last_of_reboot_and_no_reboot_counts)
{
    expect_ok("--no-reboot kernel");
    ck_assert(!options.reboots);
    expect_ok("--reboot --no-reboot kernel");
    ck_assert(!options.reboots);
    expect_ok("--no-reboot --reboot kernel");
    ck_assert(options.reboots);
}
END_TEST

START_TEST(ways_to_write_them)
{
    expect_ok("kernel --memory=32M");
    ck_assert_uint_eq(options.memory, 32 << 20);
    ck_assert_str_eq(options.kernel, "kernel");
    expect_ok("-m8M kernel");
    ck_assert_uint_eq(options.memory, 8 << 20);
    expect_ok("-m 8M -- --kernel");
    ck_assert_str_eq(options.kernel, "--kernel");
    expect_ok("--append=a=b --trace -");
    ck_assert_str_eq(options.append, "a=b");
    ck_assert_str_eq(options.trace, "-");
    expect_ok("-"); /* an argument like any other */
    ck_assert_str_eq(options.kernel, "-");
    expect_ok("-m 4M -m 5M");
    ck_assert_uint_eq(options.memory, 5 << 20); /* the last one counts */
}
END_TEST

static const struct {
    const char *text;
    uint64_t bytes;
} sizes[] = {
    {"1", 1 << 20},        {"64", 64 << 20},
    {"64M", 64 << 20},     {"64m", 64 << 20},
    {"2048K", 2 << 20},    {"2048k", 2 << 20},
    {"1G", 1u << 30},      {"3G", UINT64_C(3) << 30},
    {"0x10M", 16u << 20},  {"3072M", UINT64_C(3) << 30},
    {"1028K", 1028 << 10},
};

START_TEST(memory_sizes)
{
    char words[64];

    snprintf(words, sizeof words, "-m %s", sizes[_i].text);
    expect_ok(words);
    ck_assert_uint_eq(options.memory, sizes[_i].bytes);
}
END_TEST

static const struct {
    const char *words, *part;
} mistakes[] = {
    {"--nonsense", "unknown option --nonsense\n"},
    {"--memroy 4M", "unknown option --memroy; did you mean --memory?"},
    {"--mem 4M", "unknown option --mem; did you mean --memory?"},
    {"--hlep", "unknown option --hlep; did you mean --help?"},
    {"--memory=4M --x=y", "unknown option --x\n"},
    {"-z", "unknown option -z"},
    {"-m", "--memory needs a value: SIZE"},
    {"--append", "--append needs a value: STRING"},
    {"--check-shadow=yes", "--check-shadow takes no value"},
    {"a b", "one argument too many: b"},
    {"-m 64X", "--memory 64X: not a size"},
    {"-m EMPTY", "not a size"},
    {"-m M", "not a size"},
    {"-m -1M", "not a size"},
    {"-m 0x", "not a size"},
    {"-m 1.5G", "not a size"},
    {"-m 99999999999999999999", "not a size"},
    {"-m 18446744073709551615G", "not a size"},
    {"-m 512K", "1M to 3G"},
    {"-m 0", "1M to 3G"},
    {"-m 4G", "1M to 3G"},
    {"-m 1025K", "in whole 4K pages"},
    {"--holes fill", "--holes fill: must be one of: expose patch"},
    {"--clock EMPTY", "must be one of: host virtual"},
    {"--input mouse", "must be one of: auto serial keyboard"},
    {"--console vga", "must be one of: stdio none"},
    {"--timeout 0", "not a number of seconds above 0"},
    {"--timeout -1", "not a number of seconds"},
    {"--timeout 5s", "not a number of seconds"},
    {"--timeout nan", "not a number of seconds"},
    {"--timeout 1e999", "not a number of seconds"},
    {"--timeout .", "not a number of seconds"},
    {"--timeout EMPTY", "not a number of seconds"},
    {"--trace EMPTY", "must not be empty"},
    {"--module EMPTY", "names no file"},
    {"--module ,cmdline", "names no file"},
    {"--drive EMPTY", "names no file"},
    {"--drive ,snapshot", "names no file"},
    {"--drive a --drive b --drive c --drive d --drive e", "too many drives"},
    {"--boot floppy", "must be one of: kernel disk"},
    {"--boot disk", "--boot disk needs a disk"},
    {"--boot disk --drive a kernel", "it takes no KERNEL"},
    {"--boot disk --drive a --append x", "--boot disk takes none"},
    {"--boot disk --drive a --initrd x", "--boot disk takes none"},
    {"--bios x", "--bios is for --boot disk"},
    {"--load file", "must be FILE@ADDRESS"},
    {"--load @16", "must be FILE@ADDRESS"},
    {"--load file@", "not a 32-bit physical address"},
    {"--load file@0x100000000", "not a 32-bit physical address"},
    {"--load file@12q", "not a 32-bit physical address"},
};

START_TEST(mistakes_are_told)
{
    const char *words = mistakes[_i].words;

    ck_assert_msg(parse(words) == OPTIONS_BAD, "\"%s\" was accepted", words);
    ck_assert_msg(strncmp(told, "ring3 run: ", 11) == 0 && strstr(told, mistakes[_i].part) != NULL,
                  "\"%s\": told \"%s\", want \"%s\"", words, told, mistakes[_i].part);
    ck_assert_ptr_nonnull(strstr(told, "Try `ring3 run --help`.\n"));
}
END_TEST

START_TEST(too_many_modules)
{
    char words[1024] = "";

    for (unsigned i = 0; i <= LOADER_MAX_MODULES; i++)
        strcat(words, " --module m");
    ck_assert_int_eq(parse(words), OPTIONS_BAD);
    ck_assert_ptr_nonnull(strstr(told, "too many modules"));
    words[0] = '\0';
    for (unsigned i = 0; i <= LOADER_MAX_BLOBS; i++)
        strcat(words, " --load f@1");
    ck_assert_int_eq(parse(words), OPTIONS_BAD);
    ck_assert_ptr_nonnull(strstr(told, "too many files"));
}
END_TEST

START_TEST(help_names_every_option)
{
    static const char *const names[] = {"--engine NAME",
                                        "-m, --memory SIZE",
                                        "--append STRING",
                                        "--module FILE",
                                        "--load FILE@",
                                        "--drive FILE[,snapshot]",
                                        "--holes expose",
                                        "--clock host",
                                        "--console stdio|none",
                                        "--trace FILE",
                                        "--stats FILE",
                                        "--timeout SECONDS",
                                        "--check-shadow",
                                        "--no-userfaultfd",
                                        "--lockstep",
                                        "-h, --help",
                                        "usage: ring3 run [OPTIONS] [KERNEL]",
                                        "exit status:"};

    ck_assert_int_eq(parse("--help"), OPTIONS_HELP);
    for (size_t i = 0; i < COUNT(names); i++)
        ck_assert_msg(strstr(told, names[i]) != NULL, "%s is not in the help", names[i]);
    for (const char *line = told; *line != '\0';) {
        size_t length = strcspn(line, "\n");

        ck_assert_msg(length <= 100, "a long line: %.*s", (int)length, line);
        line += length + 1;
    }
    ck_assert_int_eq(parse("-m 4M -h ignored too many"), OPTIONS_HELP);
}
END_TEST

START_TEST(suggestions)
{
    static const char *const names[] = {"run", "check", "doctor", "step", "trace"};

    ck_assert_str_eq(options_suggest("rnu", names, COUNT(names)), "run");
    ck_assert_str_eq(options_suggest("chekc", names, COUNT(names)), "check");
    ck_assert_str_eq(options_suggest("doc", names, COUNT(names)), "doctor");
    ck_assert_str_eq(options_suggest("traces", names, COUNT(names)), "trace");
    ck_assert_ptr_null(options_suggest("kernel.elf", names, COUNT(names)));
    ck_assert_ptr_null(options_suggest("", names, COUNT(names)));
    ck_assert_ptr_null(options_suggest("x", names, COUNT(names)));
    ck_assert_ptr_null(options_suggest(
        "a word that is much longer than any name that a command could have, by far", names, COUNT(names)));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("options");
    TCase *tests = tcase_create("options");
    SRunner *runner;
    int failed;

    tcase_add_test(tests, defaults);
    tcase_add_test(tests, all_of_them);
    tcase_add_test(tests, a_disk_to_boot);
    tcase_add_test(tests, the_last_of_reboot_and_no_reboot_counts);
    tcase_add_test(tests, ways_to_write_them);
    tcase_add_loop_test(tests, memory_sizes, 0, COUNT(sizes));
    tcase_add_loop_test(tests, mistakes_are_told, 0, COUNT(mistakes));
    tcase_add_test(tests, too_many_modules);
    tcase_add_test(tests, help_names_every_option);
    tcase_add_test(tests, suggestions);
    suite_add_tcase(suite, tests);
    runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
