/* monitor/trace_record, trace_diff: what is a record and what is not, and where two traces first differ. */
#include <check.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "monitor/trace_diff.h"
#include "monitor/trace_record.h"
#include "monitor/utf8.h"

#define RECORD(seq, eip, rest)                                                                               \
    "{\"seq\":" seq ",\"t\":" seq "000,\"cs\":\"0008\",\"eip\":\"" eip "\",\"sym\":\"main+0x" seq            \
    "\",\"cpl\":0," rest ",\"resume\":\"0008:00101000\"}\n"
#define CLI                                                                                                  \
    "\"exit\":\"exception\",\"fault\":\"#GP\",\"insn\":\"cli\",\"class\":\"control\",\"act\":\"emulated\","
#define CLI_IF CLI "\"changes\":[\"IF_virt 1→0\"],\"notes\":[]"
#define FILL                                                                                                 \
    "\"exit\":\"page-fault\",\"fault\":\"#PF\",\"act\":\"filled\",\"changes\":[],"                           \
    "\"notes\":[\"shadow fill 00100000+4\"]"
#define OUT(port)                                                                                            \
    "\"exit\":\"exception\",\"fault\":\"#GP\",\"insn\":\"out\",\"class\":\"control\",\"act\":\"emulated\","  \
    "\"changes\":[],\"notes\":[\"line i8259.4 high\",\"out " port ":1=41\",\"shadow drop 00100000+1\"]"
#define HEADER(holes) "{\"ring3-trace\":1,\"engine\":\"trap\",\"holes\":\"" holes "\",\"kernel\":\"k\"}\n"
#define END(records)  "{\"end\":\"halted\",\"records\":" records ",\"cs\":\"0008\",\"eip\":\"00101000\"}\n"

static char path_a[] = "/tmp/ring3-test-a-XXXXXX", path_b[] = "/tmp/ring3-test-b-XXXXXX";
static char error[512];
static char *report;
static size_t report_size;
static struct trace_diff_options options;

static void make_file(char *path)
{
    int fd;

    strcpy(path + strlen(path) - 6, "XXXXXX");
    fd = mkstemp(path);
    ck_assert_int_ge(fd, 0);
    close(fd);
}

static void setup(void)
{
    make_file(path_a);
    make_file(path_b);
    options = (struct trace_diff_options){.n_context = 2};
    report = NULL;
}

static void teardown(void)
{
    unlink(path_a);
    unlink(path_b);
    free(report);
}

static void write_file(const char *path, const char *bytes, size_t n)
{
    int fd = open(path, O_WRONLY | O_TRUNC);

    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(write(fd, bytes, n), (ssize_t)n);
    close(fd);
}

static enum trace_diff_result diff_files(void)
{
    enum trace_diff_result result;
    FILE *out;

    free(report);
    out = open_memstream(&report, &report_size);
    error[0] = '\0';
    result = trace_diff(path_a, path_b, &options, out, error, sizeof error);
    fclose(out);
    return result;
}

static enum trace_diff_result diff(const char *a, const char *b)
{
    write_file(path_a, a, strlen(a));
    write_file(path_b, b, strlen(b));
    return diff_files();
}

static void expect(const char *text)
{
    ck_assert_msg(strstr(report, text) != NULL, "no \"%s\" in:\n%s", text, report);
}

static void expect_not(const char *text)
{
    ck_assert_msg(strstr(report, text) == NULL, "\"%s\" in:\n%s", text, report);
}

static void expect_error(const char *text)
{
    ck_assert_msg(strstr(error, text) != NULL, "no \"%s\" in: %s", text, error);
}

/* ---- records ------------------------------------------------------------------------------------------- */

static bool parses(const char *line, size_t n, struct trace_record *record)
{
    char *copy = malloc(n == 0 ? 1 : n); /* so that the sanitizer sees a read past the end */
    bool ok;

    memcpy(copy, line, n);
    ok = trace_record_parse(copy, n, record, error, sizeof error);
    free(copy);
    return ok;
}

START_TEST(good_records)
{
    static const char *const lines[] = {
        "{\"a\":\"\"}",
        "{\"a\":1,\"b\":\"x\",\"c\":[],\"d\":[\"x\"],\"e\":[\"x\",\"y\"],\"f\":true,\"g\":false,\"h\":null}",
        "{\"a\":\"\\\"\\\\\\/\\b\\f\\n\\r\\t\\u12aF\"}",
        "{\"\":\"→ä\"}",
        "{\"a\":18446744073709551615}",
        "{\"a\":[\"]\",\"\\\"]\"]}",
    };
    struct trace_record record;

    for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++)
        ck_assert_msg(parses(lines[i], strlen(lines[i]), &record), "%s: %s", lines[i], error);
}
END_TEST

START_TEST(bad_records)
{
    static const struct {
        const char *line, *error;
    } cases[] = {
        {"", "column 1: no JSON object"},
        {"[]", "column 1: no JSON object"},
        {"{}", "column 2: a string is expected"},
        {"{\"a\"}", "column 5: a colon is expected"},
        {"{\"a\":}", "column 6: a value is expected"},
        {"{\"a\":1", "column 7: the object does not end"},
        {"{\"a\":1}x", "column 8: more after the object"},
        {"{\"a\":1,}", "column 8: a string is expected"},
        {"{\"a\":1,\"a\":2}", "a key that was there before"},
        {"{\"a\":\"x}", "column 9: the string does not end"},
        {"{\"a\":\"\\x\"}", "no such escape"},
        {"{\"a\":\"\\u12g4\"}", "\\u needs four hexadecimal digits"},
        {"{\"a\":\"\\", "no such escape"},
        {"{\"a\":[\"x\"", "the list does not end"},
        {"{\"a\":[1]}", "a string is expected"},
        {"{\"a\":[\"x\",]}", "a string is expected"},
        {"{\"a\":{}}", "a value is expected"},
        {"{\"a\":-1}", "a value is expected"},
        {"{\"a\":tru}", "a value is expected"},
        {"{\"a\":123456789012345678901}", "a number of more than 64 bits"},
        {"{\"a\":\"\x01\"}", "a byte that no string can hold"},
        {"{\"a\":\"\x1b[2J\"}", "a byte that no string can hold"},
        {"{\"a\":\"\x7f\"}", "a byte that no string can hold"},
        {"{\"a\":\"\xff\"}", "a byte that no string can hold"},
        {"{\"a\":\"\xc2\x9b\"}", "a byte that no string can hold"}, /* CSI, to a terminal */
        {"{\"a\":\"\xe2\x86", "a byte that no string can hold"},
    };
    struct trace_record record;

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        ck_assert_msg(!parses(cases[i].line, strlen(cases[i].line), &record), "accepted: %s", cases[i].line);
        ck_assert_msg(strstr(error, cases[i].error) != NULL, "%s: got %s", cases[i].line, error);
    }
    ck_assert(!parses("{\"a\":\"x\0y\"}", 11, &record));
}
END_TEST

START_TEST(too_many_fields)
{
    struct trace_record record;
    char line[1024] = "{";

    for (unsigned i = 0; i <= TRACE_RECORD_MAX_FIELDS; i++)
        sprintf(line + strlen(line), "%s\"k%u\":1", i == 0 ? "" : ",", i);
    strcat(line, "}");
    ck_assert(!parses(line, strlen(line), &record));
    ck_assert_ptr_nonnull(strstr(error, "too many fields"));
}
END_TEST

START_TEST(utf8)
{
    static const struct {
        const char *bytes;
        size_t n, length;
    } cases[] = {
        {"a", 1, 1},
        {" ", 1, 1},
        {"~", 1, 1},
        {"\x1f", 1, 0},
        {"\x7f", 1, 0},
        {"", 0, 0},
        {"\0", 1, 0},
        {"\xc3\xa4", 2, 2},
        {"\xc3\xa4", 1, 0},
        {"\xc0\x80", 2, 0},
        {"\xc1\xbf", 2, 0},
        {"\xc2\x9f", 2, 0},
        {"\xc2\xa0", 2, 2},
        {"\x80", 1, 0},
        {"\xe2\x86\x92", 3, 3},
        {"\xe2\x86", 2, 0},
        {"\xe2\x86\xc0", 3, 0},
        {"\xe0\x9f\xbf", 3, 0},
        {"\xed\xa0\x80", 3, 0},
        {"\xef\xbf\xbd", 3, 3},
        {"\xf0\x9f\x98\x80", 4, 4},
        {"\xf0\x8f\xbf\xbf", 4, 0},
        {"\xf4\x90\x80\x80", 4, 0},
        {"\xf5\x80\x80\x80", 4, 0},
    };

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        ck_assert_msg(utf8_length(cases[i].bytes, cases[i].n) == cases[i].length, "case %zu: %zu", i,
                      utf8_length(cases[i].bytes, cases[i].n));
}
END_TEST

START_TEST(access_to_fields)
{
    static const char line[] = "{\"insn\":\"cli\",\"notes\":[\"a\",\"b \\\" c\",\"\"],\"t\":12}";
    struct trace_record record;
    struct text rest, item;

    ck_assert(trace_record_parse(line, strlen(line), &record, error, sizeof error));
    ck_assert_uint_eq(record.n_fields, 3);
    ck_assert(text_is(trace_record_get(&record, "insn"), "\"cli\""));
    ck_assert(text_is(text_unquote(trace_record_get(&record, "insn")), "cli"));
    ck_assert(text_is(text_unquote(trace_record_get(&record, "t")), "12"));
    ck_assert_ptr_null(trace_record_get(&record, "ins").start);
    rest = trace_record_get(&record, "notes");
    ck_assert(text_next_item(&rest, &item) && text_is(item, "a"));
    ck_assert(text_next_item(&rest, &item) && text_is(item, "b \\\" c"));
    ck_assert(text_next_item(&rest, &item) && text_is(item, ""));
    ck_assert(!text_next_item(&rest, &item));
    rest = (struct text){NULL, 0}; /* a key that is not there */
    ck_assert(!text_next_item(&rest, &item));
}
END_TEST

/* Any bytes: no crash, and what is accepted can be walked. Deterministic: the same bytes in every run. */
START_TEST(mutated_records)
{
    static const char seed[] =
        "{\"seq\":57,\"t\":1000,\"sym\":\"a\\\"b\",\"patched\":true,\"changes\":[\"IF_virt 1→0\",\"x\"],"
        "\"notes\":[],\"resume\":\"0008:00101000\"}";
    uint32_t random = 12345;
    unsigned n_accepted = 0;

    for (unsigned round = 0; round < 50000; round++) {
        char line[sizeof seed], *copy;
        size_t n = sizeof seed - 1;
        struct trace_record record;

        memcpy(line, seed, sizeof seed);
        for (unsigned change = 0; change <= round % 4; change++) {
            random = random * 1664525 + 1013904223;
            line[(random >> 8) % n] = "\"\\{}[]:,u0\x80\xff\n\0az"[(random >> 24) % 16];
        }
        random = random * 1664525 + 1013904223;
        if (round % 3 == 0)
            n = (random >> 8) % n;
        copy = malloc(n == 0 ? 1 : n);
        memcpy(copy, line, n);
        if (trace_record_parse(copy, n, &record, error, sizeof error)) {
            n_accepted++;
            for (size_t i = 0; i < record.n_fields; i++) {
                struct text rest = record.field[i].value, item;
                size_t sum = text_unquote(rest).length;

                while (text_next_item(&rest, &item))
                    for (size_t k = 0; k < item.length; k++)
                        sum += (unsigned char)item.start[k];
                ck_assert_uint_lt(sum, 1000000);
            }
        }
        free(copy);
    }
    ck_assert_uint_gt(n_accepted, 100);
}
END_TEST

/* ---- differences --------------------------------------------------------------------------------------- */

START_TEST(same)
{
    const char *trace =
        HEADER("expose") RECORD("1", "00100000", CLI_IF) RECORD("2", "00100004", FILL) END("2");

    ck_assert_int_eq(diff(trace, trace), TRACE_DIFF_SAME);
    ck_assert_str_eq(report, "2 records are the same\n");
    ck_assert_int_eq(diff(HEADER("expose") END("0"), HEADER("expose") END("0")), TRACE_DIFF_SAME);
}
END_TEST

START_TEST(one_field_differs)
{
    ck_assert_int_eq(diff(HEADER("expose") RECORD("1", "00100000", CLI_IF) RECORD("2", "00100001", CLI_IF)
                              RECORD("3", "00100002", CLI_IF) RECORD("4", "00100003", CLI_IF) END("4"),
                          HEADER("expose") RECORD("1", "00100000", CLI_IF) RECORD("2", "00100001", CLI_IF)
                              RECORD("3", "00100002", CLI_IF)
                                  RECORD("4", "00100003", CLI "\"changes\":[],\"notes\":[]") END("4")),
                     TRACE_DIFF_DIFFERENT);
    expect("first difference after 3 equal records: line 5 of A (");
    expect_not("00100000"); /* two records of context */
    expect("\n        2  0008:00100001 main+0x2");
    expect("\n        3  0008:00100002 main+0x3");
    expect("\nA       4  0008:00100003 main+0x4               cli                          #GP   emulated   "
           "IF_virt 1→0\n");
    expect(
        "\nB       4  0008:00100003 main+0x4               cli                          #GP   emulated   \n");
    expect("what differs:\n"
           "  changes      A: [\"IF_virt 1→0\"]\n"
           "               B: []\n");
    expect_not("resume");
}
END_TEST

START_TEST(key_in_one_only)
{
    ck_assert_int_eq(diff(HEADER("expose") RECORD("1", "00100000", CLI_IF) END("1"),
                          HEADER("expose") RECORD("1", "00100000", "\"patched\":true," CLI_IF) END("1")),
                     TRACE_DIFF_DIFFERENT);
    expect("patched      A: (not there)\n               B: true\n");
}
END_TEST

START_TEST(ignored_keys)
{
    options.ignored[options.n_ignored++] = "t";
    options.ignored[options.n_ignored++] = "seq";
    options.ignored[options.n_ignored++] = "sym";
    ck_assert_int_eq(diff(HEADER("expose") RECORD("1", "00100000", CLI_IF) END("1"),
                          HEADER("expose") RECORD("7", "00100000", CLI_IF) END("1")),
                     TRACE_DIFF_SAME);
    ck_assert_int_eq(diff(HEADER("expose") RECORD("1", "00100000", CLI_IF) END("1"),
                          HEADER("expose") RECORD("7", "00100001", CLI_IF) END("1")),
                     TRACE_DIFF_DIFFERENT);
}
END_TEST

START_TEST(one_ends_first)
{
    ck_assert_int_eq(diff(HEADER("expose") RECORD("1", "00100000", CLI_IF) END("1"),
                          HEADER("expose") RECORD("1", "00100000", CLI_IF) RECORD("2", "00100001", CLI_IF)
                              END("2")),
                     TRACE_DIFF_DIFFERENT);
    expect("after 1 equal records");
    expect("A     end  0008:00101000");
    expect("B       2  0008:00100001");
    expect("\nA ends here, B goes on\n");
}
END_TEST

START_TEST(headers_differ)
{
    ck_assert_int_eq(diff(HEADER("expose") END("0"), HEADER("patch") END("0")), TRACE_DIFF_DIFFERENT);
    ck_assert_str_eq(report, "headers differ: holes: A \"expose\", B \"patch\"\n0 records are the same\n");
    options.ignored[options.n_ignored++] = "holes";
    ck_assert_int_eq(diff(HEADER("expose") END("0"), HEADER("patch") END("0")), TRACE_DIFF_SAME);
}
END_TEST

/* What only the monitor did does not count, nor the numbers that it moves. */
START_TEST(guest_visible)
{
    const char *a = HEADER("expose") RECORD("1", "00100000", FILL) RECORD("2", "00100004", OUT("03f8"))
        RECORD("3", "00100005", CLI_IF) END("3");
    const char *b = HEADER("patch")
        RECORD("2", "00100004",
               "\"exit\":\"exception\",\"fault\":\"#GP\",\"insn\":\"out\",\"class\":\"control\","
               "\"act\":\"emulated\",\"changes\":[],\"notes\":[\"out 03f8:1=41\"]")
            RECORD("3", "00100005", CLI_IF) RECORD("4", "00100009", FILL) END("3");

    ck_assert_int_eq(diff(a, b), TRACE_DIFF_DIFFERENT);
    options.is_guest_visible = true;
    ck_assert_int_eq(diff(a, b), TRACE_DIFF_SAME);
    ck_assert_str_eq(report, "2 records that the guest can see are the same\n");

    b = HEADER("patch") RECORD("2", "00100004", OUT("02f8")) RECORD("3", "00100005", CLI_IF) END("3");
    ck_assert_int_eq(diff(a, b), TRACE_DIFF_DIFFERENT);
    expect("notes ");
    expect_not("headers");
}
END_TEST

#define MOV_CR3                                                                                              \
    "\"exit\":\"sensitive\",\"insn\":\"mov cr3, eax\",\"class\":\"control\",\"act\":\"emulated\","           \
    "\"changes\":[\"cr3 00000000→00001000\"],\"notes\":[]"

/* The translator has no exits for CLI and the like, but it has for what it cannot run itself. */
START_TEST(guest_visible_beside_the_translator)
{
    const char *translated =
        "{\"ring3-trace\":1,\"engine\":\"translate\",\"kernel\":\"k\"}\n" RECORD("1", "00100004", OUT("03f8"))
            RECORD("2", "00100008", MOV_CR3) END("2");
    const char *trapped = HEADER("expose") RECORD("1", "00100000", CLI_IF)
        RECORD("2", "00100004", OUT("03f8")) RECORD("3", "00100008", MOV_CR3) END("3");
    const char *other = HEADER("expose") RECORD("1", "00100004", OUT("03f8")) END("1");

    options.is_guest_visible = true;
    options.ignored[options.n_ignored++] = "sym";
    ck_assert_int_eq(diff(translated, trapped), TRACE_DIFF_SAME);
    ck_assert_int_eq(diff(trapped, translated), TRACE_DIFF_SAME);
    ck_assert_str_eq(report, "2 records that the guest can see are the same\n");
    ck_assert_int_eq(diff(trapped, other), TRACE_DIFF_DIFFERENT);
    expect("00100000");
    ck_assert_int_eq(diff(translated, other), TRACE_DIFF_DIFFERENT);
    expect("mov cr3, eax");
}
END_TEST

/* When RF is seen to be cleared, whether an instruction was read, and where a trap is told. */
START_TEST(guest_visible_in_other_words)
{
    const char *a = HEADER("expose") RECORD("1", "00100000",
                                            "\"exit\":\"exception\",\"fault\":\"#GP\",\"insn\":\"aam 0x0\","
                                            "\"act\":\"reflected\",\"changes\":[\"RF 1→0\",\"esp 1→0\"],"
                                            "\"notes\":[\"inject #DE\"]")
        RECORD("2", "00100005",
               "\"exit\":\"exception\",\"fault\":\"#BP\",\"act\":\"emulated\",\"changes\":[],"
               "\"notes\":[\"inject software 03\"]") END("2");
    const char *b =
        HEADER("expose") RECORD("1", "00100000",
                                "\"exit\":\"guest-fault\",\"fault\":\"#DE\",\"act\":\"reflected\","
                                "\"changes\":[\"esp 1→0\"],\"notes\":[\"inject #DE\"]")
            RECORD("2", "00100004",
                   "\"exit\":\"sensitive\",\"act\":\"emulated\",\"changes\":[],"
                   "\"notes\":[\"inject software 03\"]") END("2");

    ck_assert_int_eq(diff(a, b), TRACE_DIFF_DIFFERENT);
    options.is_guest_visible = true;
    ck_assert_int_eq(diff(a, b), TRACE_DIFF_SAME);
}
END_TEST

/* ---- traces that cannot be read ------------------------------------------------------------------------ */

START_TEST(unreadable)
{
    static const struct {
        const char *trace, *error;
    } cases[] = {
        {"", "line 1: the file is empty"},
        {"\n", "line 1: not a ring3 trace: column 1: no JSON object"},
        {"\x7f"
         "ELF\x01\x01\n",
         "line 1: not a ring3 trace"},
        {"{\"a\":1}\n", "line 1: not a ring3 trace: the first line has no \"ring3-trace\""},
        {"{\"ring3-trace\":2}\n", "line 1: a trace of version 2; this program reads version 1"},
        {"{\"ring3-trace\":\"1\"}\n", "a trace of version \"1\""},
        {HEADER("expose"), "line 1: the trace was cut off here"},
        {HEADER("expose") RECORD("1", "00100000", CLI_IF), "line 2: the trace was cut off here"},
        {HEADER("expose") "{\"seq\":1", "line 2: cut off in the middle of a record"},
        {HEADER("expose") "{\"seq\":1\n", "line 2: column 9: the object does not end"},
        {HEADER("expose") END("0") RECORD("1", "00100000", CLI_IF),
         "line 2: the run ends here, but the file goes on"},
        {HEADER("expose") "\n", "line 2: column 1: no JSON object"},
    };
    const char *good =
        HEADER("expose") RECORD("1", "00100000", CLI_IF) RECORD("2", "00100000", CLI_IF) END("2");

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        ck_assert_int_eq(diff(cases[i].trace, good), TRACE_DIFF_UNREADABLE);
        expect_error(cases[i].error);
        expect_error(path_a);
        ck_assert_int_eq(diff(good, cases[i].trace), TRACE_DIFF_UNREADABLE);
        expect_error(cases[i].error);
        expect_error(path_b);
    }
}
END_TEST

START_TEST(difference_before_damage)
{
    ck_assert_int_eq(diff(HEADER("expose") RECORD("1", "00100000", CLI_IF) "garbage",
                          HEADER("expose") RECORD("1", "00100001", CLI_IF) END("1")),
                     TRACE_DIFF_DIFFERENT);
    ck_assert_int_eq(diff(HEADER("expose") RECORD("1", "00100000", CLI_IF) "garbage",
                          HEADER("expose") RECORD("1", "00100000", CLI_IF) END("1")),
                     TRACE_DIFF_UNREADABLE);
    expect("the first 1 records are the same\n");
}
END_TEST

START_TEST(endless_line)
{
    size_t n = 3 * TRACE_RECORD_MAX_SIZE;
    char *bytes = malloc(n);

    memset(bytes, '{', n);
    write_file(path_a, bytes, n);
    write_file(path_b, bytes, n);
    free(bytes);
    ck_assert_int_eq(diff_files(), TRACE_DIFF_UNREADABLE);
    expect_error("line 1: longer than any record");
}
END_TEST

START_TEST(not_a_file)
{
    unlink(path_a);
    ck_assert_int_eq(diff_files(), TRACE_DIFF_UNREADABLE);
    expect_error("No such file or directory");
    ck_assert_int_eq(mkdir(path_a, 0700), 0);
    ck_assert_int_eq(diff_files(), TRACE_DIFF_UNREADABLE);
    expect_error("cannot be read: Is a directory");
    rmdir(path_a);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("trace diff");
    TCase *tests = tcase_create("trace diff");
    SRunner *runner;
    int failed;

    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_test(tests, good_records);
    tcase_add_test(tests, bad_records);
    tcase_add_test(tests, too_many_fields);
    tcase_add_test(tests, utf8);
    tcase_add_test(tests, access_to_fields);
    tcase_add_test(tests, mutated_records);
    tcase_add_test(tests, same);
    tcase_add_test(tests, one_field_differs);
    tcase_add_test(tests, key_in_one_only);
    tcase_add_test(tests, ignored_keys);
    tcase_add_test(tests, one_ends_first);
    tcase_add_test(tests, headers_differ);
    tcase_add_test(tests, guest_visible);
    tcase_add_test(tests, guest_visible_beside_the_translator);
    tcase_add_test(tests, guest_visible_in_other_words);
    tcase_add_test(tests, unreadable);
    tcase_add_test(tests, difference_before_damage);
    tcase_add_test(tests, endless_line);
    tcase_add_test(tests, not_a_file);
    suite_add_tcase(suite, tests);
    runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
