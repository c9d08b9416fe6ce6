/* monitor/trace: records from made-up events: their form, hostile names, full disks, cleanups. */
#include <check.h>
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "elf_builder.h"
#include "event_world.h"
#include "monitor/symbols.h"
#include "monitor/trace.h"
#include "monitor/trace_record.h"

#define HEADER                                                                                               \
    "{\"ring3-trace\":1,\"ring3\":\"" RING3_VERSION                                                          \
    "\",\"engine\":\"fake\",\"holes\":\"expose\",\"clock\":\"virtual\",\"memory\":67108864,\"kernel\":"

static char error[512];

static struct trace *open_trace(const char *path)
{
    struct trace *trace = trace_open(path, &event_vm, "dir/kernel.elf", HOLES_EXPOSE, error, sizeof error);

    ck_assert_msg(trace != NULL, "%s", error);
    return trace;
}

/* The nth line, from 0, of what was written, without its newline. */
static char *line_of(char *text, unsigned n)
{
    for (; n > 0; n--) {
        text = strchr(text, '\n');
        ck_assert_ptr_nonnull(text);
        text++;
    }
    *strchrnul(text, '\n') = '\0';
    return text;
}

/* Each line is an object that our reader accepts, and the last one says how the run ended. Returns how many
 * records there are between. */
static unsigned check_readable(void)
{
    struct trace_reader *reader = calloc(1, sizeof *reader);
    enum trace_read read;
    unsigned n = 0;

    ck_assert_ptr_nonnull(reader);
    ck_assert_msg(trace_reader_open(reader, event_path), "%s", reader->error);
    while ((read = trace_reader_next(reader)) == TRACE_READ_RECORD)
        n++;
    ck_assert_msg(read == TRACE_READ_END, "%s", reader->error);
    trace_reader_close(reader);
    free(reader);
    return n;
}

/* ---- form ---------------------------------------------------------------------------------------------- */

START_TEST(records)
{
    struct trace *trace = open_trace(event_path);
    struct vm_event *event = event_make(1, "\xfa", 1);
    char *text;

    event->before.eflags = EFLAGS_IF;
    event_show();

    event = event_make(2, "\xee", 1);
    event->is_patched = true;
    event->before.cpl = event_vm.vcpu.cpl = 3;
    event->note[0] = (struct note){.kind = NOTE_PORT_WRITE, .address = 0x3f8, .size = 1, .value = 0x41};
    event->note[1] = (struct note){.kind = NOTE_UNCLAIMED, .address = 0x80, .size = 1, .flag = true};
    event->n_notes = 2;
    event->dropped_notes = 7;
    event_show();

    event = event_make(3, "\x90", 1);
    event->has_insn = false;
    event->exit = (struct vm_exit){
        .reason = EXIT_PAGE_FAULT,
        .fault = {.vector = EXCEPTION_PF, .has_error = true, .error = PF_WRITE, .cr2 = 0x40000123}};
    event->disposition = DISPOSITION_FILLED;
    event->note[0] =
        (struct note){.kind = NOTE_SHADOW, .change = SHADOW_CHANGE_FILL, .address = 0x40000000, .size = 3};
    event->n_notes = 1;
    event_show();

    event = event_make(4, "\x90", 1);
    event->has_insn = false;
    event->exit = (struct vm_exit){.reason = EXIT_INTERRUPTED};
    event->disposition = DISPOSITION_INTERRUPT;
    event->note[0] = (struct note){.kind = NOTE_INJECTED, .injection = INJECT_EXTERNAL, .vector = 0x20};
    event->n_notes = 1;
    event_show();

    event_vm.stop_reason = STOP_HALTED;
    ck_assert_msg(trace_close(trace, error, sizeof error), "%s", error);
    ck_assert_uint_eq(check_readable(), 4);

    text = event_read_file(event_path, NULL);
    ck_assert_str_eq(line_of(text, 0), HEADER "\"kernel.elf\"}");
    free(text);
    text = event_read_file(event_path, NULL);
    ck_assert_str_eq(
        line_of(text, 1),
        "{\"seq\":1,\"t\":1000,\"cs\":\"0008\",\"eip\":\"00100001\",\"cpl\":0,\"exit\":\"exception\","
        "\"fault\":\"#GP\",\"error\":\"00000000\",\"bytes\":\"fa\",\"insn\":\"cli\",\"class\":\"control\","
        "\"act\":\"emulated\",\"changes\":[\"IF_virt 1→0\"],\"notes\":[],\"resume\":\"0008:00100002\"}");
    free(text);
    text = event_read_file(event_path, NULL);
    ck_assert_str_eq(
        line_of(text, 2),
        "{\"seq\":2,\"t\":2000,\"cs\":\"0008\",\"eip\":\"00100002\",\"cpl\":3,\"exit\":\"exception\","
        "\"fault\":\"#GP\",\"error\":\"00000000\",\"bytes\":\"ee\",\"insn\":\"out dx, al\","
        "\"class\":\"control\",\"patched\":true,\"act\":\"emulated\",\"changes\":[],"
        "\"notes\":[\"out 03f8:1=41\",\"unclaimed port-write 0080\",\"and 7 more\"],"
        "\"resume\":\"0008:00100003\"}");
    free(text);
    text = event_read_file(event_path, NULL);
    ck_assert_str_eq(
        line_of(text, 3),
        "{\"seq\":3,\"t\":3000,\"cs\":\"0008\",\"eip\":\"00100003\",\"cpl\":0,\"exit\":\"page-fault\","
        "\"fault\":\"#PF\",\"error\":\"00000002\",\"address\":\"40000123\",\"act\":\"filled\","
        "\"changes\":[],\"notes\":[\"shadow fill 40000000+3\"],\"resume\":\"0008:00100004\"}");
    free(text);
    text = event_read_file(event_path, NULL);
    ck_assert_str_eq(line_of(text, 4),
                     "{\"seq\":4,\"t\":4000,\"cs\":\"0008\",\"eip\":\"00100004\",\"cpl\":0,\"exit\":\"none\","
                     "\"act\":\"interrupt\",\"changes\":[],\"notes\":[\"inject external 20\"],"
                     "\"resume\":\"0008:00100005\"}");
    free(text);
    text = event_read_file(event_path, NULL);
    ck_assert_str_eq(line_of(text, 5),
                     "{\"end\":\"halted\",\"records\":4,\"cs\":\"0008\",\"eip\":\"00100005\"}");
    free(text);
}
END_TEST

START_TEST(notes)
{
    static const struct {
        struct note note;
        const char *text;
    } cases[] = {
        {{.kind = NOTE_PORT_READ, .address = 0x1f0, .size = 2, .value = 0xbeef}, "in 01f0:2=beef"},
        {{.kind = NOTE_PORT_WRITE, .address = 0xcf8, .size = 4, .value = 0x80000000}, "out 0cf8:4=80000000"},
        {{.kind = NOTE_MEMORY_READ, .address = 0xfee00020, .size = 4, .value = 1},
         "mmio-read fee00020:4=00000001"},
        {{.kind = NOTE_MEMORY_WRITE, .address = 0xb8000, .size = 2, .value = 0x741},
         "mmio-write 000b8000:2=0741"},
        {{.kind = NOTE_INJECTED, .injection = INJECT_EXCEPTION, .vector = 14, .has_error = true, .error = 6},
         "inject #PF(00000006)"},
        {{.kind = NOTE_INJECTED, .injection = INJECT_EXCEPTION, .vector = 6}, "inject #UD"},
        {{.kind = NOTE_INJECTED, .injection = INJECT_SOFTWARE, .vector = 0x80}, "inject software 80"},
        {{.kind = NOTE_INJECTED, .injection = INJECT_NMI, .vector = 2}, "inject nmi 02"},
        {{.kind = NOTE_UNCLAIMED, .address = 0xfed00000, .size = 4 | BUS_MEMORY << 8},
         "unclaimed memory-read fed00000"},
        {{.kind = NOTE_UNKNOWN_MSR, .address = 0xc0000103, .flag = true}, "unknown-msr-write c0000103"},
        {{.kind = NOTE_LINE, .name = "i8259", .address = 4, .flag = true}, "line i8259.4 high"},
        {{.kind = NOTE_HOLE, .name = "ds", .address = 0x2b},
         "hole: ds was loaded with 002b and nothing trapped"},
        {{.kind = NOTE_SHADOW, .change = SHADOW_CHANGE_TABLE_WRITE, .address = 0x1000, .size = 1},
         "shadow table-write 00001000+1"},
    };

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char text[TRACE_TEXT_SIZE];

        trace_format_note(&cases[i].note, text, sizeof text);
        ck_assert_str_eq(text, cases[i].text);
    }
}
END_TEST

START_TEST(readable_line)
{
    struct vm_event *event = event_make(42, "\xfa", 1);
    char line[TRACE_LINE_SIZE], titles[TRACE_LINE_SIZE];

    event->before.eflags = EFLAGS_IF;
    event->note[0] = (struct note){.kind = NOTE_LINE, .name = "i8259", .address = 0};
    event->n_notes = 1;
    event->dropped_notes = 2;
    trace_format_event(NULL, event, &event_vm.vcpu, line, sizeof line);
    trace_format_titles(titles, sizeof titles);
    ck_assert_str_eq(line,
                     "     42  0008:0010002a                        cli                          #GP(0) "
                     "       emulated   IF_virt 1→0, line i8259.0 low, and 2 more");
    ck_assert_int_eq(strstr(line, "cli") - line, strstr(titles, "instruction") - titles);
    ck_assert_int_eq(strstr(line, "#GP") - line, strstr(titles, "fault") - titles);
    ck_assert_int_eq(strstr(line, "emulated") - line, strstr(titles, "act") - titles);
    ck_assert_int_eq(strstr(line, "IF_virt") - line, strstr(titles, "what") - titles);

    trace_format_event(NULL, event, &event_vm.vcpu, line, 20); /* cut, and still a string */
    ck_assert_uint_eq(strlen(line), 19);
}
END_TEST

/* The largest record there can be. */
START_TEST(largest)
{
    struct trace *trace = open_trace(event_path);
    struct vm_event *event;

    for (unsigned n = 0; n < 50; n++) {
        event = event_make(n, "\x3e\x67\xf0\x81\x84\x88\x44\x33\x22\x11\x88\x77\x66\x55", 14);
        memset(&event_vm.vcpu, 0xff, offsetof(struct vcpu, fault));
        for (unsigned i = 0; i < EVENT_MAX_NOTES; i++)
            event->note[i] = (struct note){
                .kind = NOTE_MEMORY_WRITE, .address = UINT32_MAX, .size = 8, .value = UINT64_MAX};
        event->n_notes = EVENT_MAX_NOTES;
        event->dropped_notes = UINT32_MAX;
        event_show();
    }
    ck_assert_msg(trace_close(trace, error, sizeof error), "%s", error);
    ck_assert_uint_eq(check_readable(), 50);
}
END_TEST

/* ---- hostile names ------------------------------------------------------------------------------------- */

static struct symbols *hostile_symbols(const char *name)
{
    static struct elf_builder builder;
    const struct builder_symbol symbol = {name, 0x100000, 0x1000, ELF32_ST_INFO(STB_GLOBAL, STT_FUNC), 1};

    builder_start(&builder, 0x100000);
    builder_add_section(&builder, (Elf32_Shdr){.sh_type = SHT_PROGBITS,
                                               .sh_flags = SHF_ALLOC | SHF_EXECINSTR,
                                               .sh_addr = 0x100000,
                                               .sh_size = 0x1000});
    builder_add_symbols(&builder, &symbol, 1);
    return symbols_load_bytes(builder.bytes, builder.size);
}

START_TEST(hostile_symbol)
{
    static const char name[] = "a\"b\\c\x1b[2J\x9b\xff\n\xe2\x86";
    struct symbols *symbols = hostile_symbols(name);
    struct trace *trace;
    char text[TRACE_TEXT_SIZE], *file;

    ck_assert_ptr_nonnull(symbols);
    trace_format_symbol(symbols, 0x100012, text, sizeof text);
    ck_assert_str_eq(text, "a\"b\\c\\x1b[2J\\x9b\\xff\\x0a\\xe2\\x86+0x12");

    event_vm.symbols = symbols;
    trace = open_trace(event_path);
    event_make(1, "\xfa", 1);
    event_show();
    ck_assert(trace_close(trace, error, sizeof error));
    ck_assert_uint_eq(check_readable(), 1);
    file = event_read_file(event_path, NULL);
    ck_assert_ptr_nonnull(
        strstr(file, "\"sym\":\"a\\\"b\\\\c\\\\x1b[2J\\\\x9b\\\\xff\\\\x0a\\\\xe2\\\\x86+0x1\""));
    free(file);
    symbols_free(symbols);
}
END_TEST

/* Long names, every byte of which is shown in four characters. */
START_TEST(long_symbol)
{
    char name[200], text[TRACE_TEXT_SIZE];
    struct symbols *symbols;

    memset(name, '\x80', sizeof name - 1);
    name[sizeof name - 1] = '\0';
    symbols = hostile_symbols(name);
    ck_assert_ptr_nonnull(symbols);
    for (size_t size = 1; size <= sizeof text; size++) {
        memset(text, 'x', sizeof text);
        trace_format_symbol(symbols, 0x100001, text, size);
        ck_assert_uint_lt(strlen(text), size);
    }
    symbols_free(symbols);
}
END_TEST

START_TEST(hostile_kernel_name)
{
    static const struct {
        const char *path, *json;
    } cases[] = {{"/x/\xff.elf", "\"\\u00ff.elf\"}"},
                 {"a\"\\\t\x7f", "\"a\\\"\\\\\\u0009\\u007f\"}"},
                 {"ker\xc3\xa4.elf", "\"ker\xc3\xa4.elf\"}"},
                 {"\xc2\x9b\xe2\x82", "\"\\u00c2\\u009b\\u00e2\\u0082\"}"},
                 {"dir/", "\"\"}"}};

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct trace *trace =
            trace_open(event_path, &event_vm, cases[i].path, HOLES_EXPOSE, error, sizeof error);
        char *text;

        ck_assert_ptr_nonnull(trace);
        ck_assert(trace_close(trace, error, sizeof error));
        event_vm.n_observers = 0;
        check_readable();
        text = event_read_file(event_path, NULL);
        ck_assert_str_eq(line_of(text, 0) + strlen(HEADER), cases[i].json);
        free(text);
    }
}
END_TEST

/* ---- failures ------------------------------------------------------------------------------------------ */

START_TEST(full_device)
{
    struct trace *trace = open_trace("/dev/full");

    event_make(1, "\xfa", 1);
    event_show();
    ck_assert(!vm_is_stopped(&event_vm));
    trace_flush(trace);
    ck_assert_int_eq(event_vm.stop_reason, STOP_HOST);
    ck_assert_str_eq(event_vm.stop_text, "cannot write the trace to /dev/full: No space left on device");
    event_show(); /* nothing more is tried */
    ck_assert(!trace_close(trace, error, sizeof error));
    ck_assert_str_eq(error, "the trace in /dev/full is not complete: No space left on device");
}
END_TEST

/* Files can only grow so far, Check's own included: no assertion may stand before the limit is lifted again.
 */
static void limit_files(rlim_t size)
{
    struct rlimit limit = {.rlim_cur = size, .rlim_max = RLIM_INFINITY};

    signal(SIGXFSZ, SIG_IGN);
    if (setrlimit(RLIMIT_FSIZE, &limit) != 0)
        abort();
}

/* What is there at the end is whole records. */
START_TEST(full_disk)
{
    struct trace *trace = open_trace(event_path);
    size_t size;
    char *text;
    bool is_whole;

    for (unsigned n = 1; n <= 20; n++) {
        event_make(n, "\xfa", 1);
        event_show();
    }
    limit_files(1000);
    trace_flush(trace);
    is_whole = trace_close(trace, error, sizeof error);
    limit_files(RLIM_INFINITY);
    ck_assert_int_eq(event_vm.stop_reason, STOP_HOST);
    ck_assert_str_eq(event_vm.stop_text + strlen(event_vm.stop_text) - strlen("File too large"),
                     "File too large");
    ck_assert(!is_whole);
    text = event_read_file(event_path, &size);
    ck_assert_uint_gt(size, 700); /* as much as fits */
    ck_assert_uint_le(size, 1000);
    ck_assert_int_eq(text[size - 1], '\n');
    free(text);
}
END_TEST

/* Not even the header fits. */
START_TEST(full_disk_at_once)
{
    struct trace *trace = open_trace(event_path);
    size_t size;
    bool is_whole;

    limit_files(10);
    is_whole = trace_close(trace, error, sizeof error);
    limit_files(RLIM_INFINITY);
    ck_assert(!is_whole);
    free(event_read_file(event_path, &size));
    ck_assert_uint_eq(size, 0);
}
END_TEST

START_TEST(reader_gone)
{
    int ends[2];
    char path[32];
    struct trace *trace;

    signal(SIGPIPE, SIG_IGN);
    ck_assert_int_eq(pipe(ends), 0);
    snprintf(path, sizeof path, "/dev/fd/%d", ends[1]);
    trace = open_trace(path);
    close(ends[0]);
    ck_assert(!trace_close(trace, error, sizeof error));
    ck_assert_ptr_nonnull(strstr(error, "Broken pipe")); /* not what asking a pipe for its offset says */
    close(ends[1]);
}
END_TEST

START_TEST(cannot_open)
{
    ck_assert_ptr_null(trace_open("/nonexistent/trace", &event_vm, "k", HOLES_EXPOSE, error, sizeof error));
    ck_assert_str_eq(error, "cannot open the trace file /nonexistent/trace: No such file or directory");
    ck_assert_uint_eq(event_vm.n_observers, 0);
}
END_TEST

/* More than the buffer holds; and what a crash leaves: whole records. */
START_TEST(many)
{
    struct trace *trace = open_trace(event_path);
    size_t size;
    char *text;

    for (unsigned n = 1; n <= 5000; n++) {
        event_make(n, "\xfa", 1);
        event_show();
    }
    text = event_read_file(event_path, &size);
    ck_assert_uint_gt(size, 200000);
    ck_assert_int_eq(text[size - 1], '\n');
    free(text);
    trace_flush(trace); /* as a cleanup does */
    text = event_read_file(event_path, &size);
    ck_assert_ptr_nonnull(strstr(text, "{\"seq\":5000,"));
    ck_assert_int_eq(text[size - 1], '\n');
    free(text);
    ck_assert(trace_close(trace, error, sizeof error));
    ck_assert_uint_eq(check_readable(), 5000);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("trace");
    TCase *tests = tcase_create("trace");
    SRunner *runner;
    int failed;

    tcase_add_checked_fixture(tests, event_world_open, event_world_close);
    tcase_add_test(tests, records);
    tcase_add_test(tests, notes);
    tcase_add_test(tests, readable_line);
    tcase_add_test(tests, largest);
    tcase_add_test(tests, hostile_symbol);
    tcase_add_test(tests, long_symbol);
    tcase_add_test(tests, hostile_kernel_name);
    tcase_add_test(tests, full_device);
    tcase_add_test(tests, full_disk);
    tcase_add_test(tests, full_disk_at_once);
    tcase_add_test(tests, reader_gone);
    tcase_add_test(tests, cannot_open);
    tcase_add_test(tests, many);
    suite_add_tcase(suite, tests);
    runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
