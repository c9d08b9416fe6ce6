/* monitor/trap_kind, step_place, step_commands: what a person types, and mistakes in it. */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "elf_builder.h"
#include "event_world.h"
#include "monitor/step_commands.h"
#include "monitor/step_print.h"
#include "monitor/symbols.h"
#include "monitor/trap_kind.h"

static char error[256];

/* ---- kinds of traps ------------------------------------------------------------------------------------ */

static struct trap_kind parse(const char *text)
{
    struct trap_kind kind;

    ck_assert_msg(trap_kind_parse(text, &kind, error, sizeof error), "%s: %s", text, error);
    return kind;
}

static bool matches(const char *text)
{
    struct trap_kind kind = parse(text);

    return trap_kind_matches(&kind, &event_vm.event);
}

START_TEST(kind_of_an_instruction)
{
    static const struct {
        const char *bytes;
        size_t n;
        const char *fitting[4], *others[4];
    } cases[] = {
        {"\xfa", 1, {"cli", "CLI", "emulated cli kernel #GP", "exception"}, {"sti", "user", "reflected"}},
        {"\x9d", 1, {"popf", "popfd"}, {"pushf", "pop"}},
        {"\xcf", 1, {"iret", "iretd"}, {"in"}},
        {"\x0f\x22\xd8", 3, {"mov", "mov-to-cr", "MOV-TO-CR"}, {"mov-from-cr", "mov-to-dr"}},
        {"\x0f\x20\xd8", 3, {"mov", "mov-from-cr"}, {"mov-to-cr"}},
        {"\x6c", 1, {"ins", "insb"}, {"in", "insd", "ordinary"}},
        {"\xec", 1, {"in"}, {"ins", "int"}},
        {"\x89\x03", 2, {"ordinary", "emulated"}, {"mov", "cli"}},
    };

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        event_make(1, cases[i].bytes, cases[i].n);
        for (size_t k = 0; k < 4 && cases[i].fitting[k] != NULL; k++)
            ck_assert_msg(matches(cases[i].fitting[k]), "case %zu: %s", i, cases[i].fitting[k]);
        for (size_t k = 0; k < 4 && cases[i].others[k] != NULL; k++)
            ck_assert_msg(!matches(cases[i].others[k]), "case %zu: %s", i, cases[i].others[k]);
    }
}
END_TEST

START_TEST(kind_of_a_fault)
{
    struct vm_event *event = event_make(1, "\x90", 1);

    event->has_insn = false;
    event->before.cpl = 3;
    event->disposition = DISPOSITION_REFLECTED;
    event->exit =
        (struct vm_exit){.reason = EXIT_PAGE_FAULT, .fault = {.vector = EXCEPTION_PF, .has_error = true}};
    event->note[0] = (struct note){.kind = NOTE_INJECTED, .injection = INJECT_EXCEPTION, .vector = 14};
    event->n_notes = 1;
    ck_assert(matches("#PF"));
    ck_assert(matches("#pf reflected user"));
    ck_assert(matches("page-fault"));
    ck_assert(matches("inject"));
    ck_assert(matches("inject #PF"));
    ck_assert(matches("inject e user"));
    ck_assert(matches("inject reflected"));
    ck_assert(!matches("#GP"));
    ck_assert(!matches("exception"));
    ck_assert(!matches("inject #GP"));
    ck_assert(!matches("inject 20"));
    ck_assert(!matches("#PF filled"));
    ck_assert(!matches("#PF kernel"));
    ck_assert(!matches("ordinary"));
}
END_TEST

START_TEST(kind_of_an_interrupt)
{
    struct vm_event *event = event_make(1, "\x90", 1);

    event->has_insn = false;
    event->disposition = DISPOSITION_INTERRUPT;
    event->exit = (struct vm_exit){.reason = EXIT_EXCEPTION}; /* means nothing then */
    event->note[0] = (struct note){.kind = NOTE_INJECTED, .injection = INJECT_EXTERNAL, .vector = 0x20};
    event->n_notes = 1;
    ck_assert(matches("interrupt"));
    ck_assert(matches("inject 20"));
    ck_assert(matches("interrupt inject 0x20"));
    ck_assert(!matches("exception"));
    ck_assert(!matches("inject 21"));
}
END_TEST

START_TEST(kind_of_a_port)
{
    struct vm_event *event = event_make(1, "\xef", 1);

    event->note[0] = (struct note){.kind = NOTE_PORT_WRITE, .address = 0x3f8, .size = 4};
    event->n_notes = 1;
    ck_assert(matches("port 3f8"));
    ck_assert(matches("out port 3fb"));
    ck_assert(!matches("port 3fc"));
    ck_assert(!matches("port 3f7"));
    ck_assert(!matches("port 3f8 in"));
}
END_TEST

START_TEST(wrong_kinds)
{
    static const struct {
        const char *text, *error;
    } cases[] = {
        {"", "on what kind of trap?"},
        {"clli", "\"clli\"; did you mean cli?"},
        {"nonsense", "no kind of trap is called \"nonsense\" ("},
        {"#XX", "\"#XX\""},
        {"port", "port needs a number"},
        {"port xyz", "port needs a number"},
        {"port 10000", "port needs a number"},
        {"inject 100", "\"100\""},
        {"cli cli cli cli cli cli cli cli cli cli cli cli cli cli cli cli cli", "too many words"},
    };
    struct trap_kind kind;

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        ck_assert_msg(!trap_kind_parse(cases[i].text, &kind, error, sizeof error), "%s", cases[i].text);
        ck_assert_msg(strstr(error, cases[i].error) != NULL, "%s: %s", cases[i].text, error);
    }
}
END_TEST

/* ---- places -------------------------------------------------------------------------------------------- */

static struct symbols *make_symbols(void)
{
    static struct elf_builder builder;
    static const struct builder_symbol symbols[] = {
        {"main", 0x101000, 0x40, ELF32_ST_INFO(STB_GLOBAL, STT_FUNC), 1},
        {"face", 0x102000, 0x40, ELF32_ST_INFO(STB_GLOBAL, STT_FUNC), 1},
    };

    builder_start(&builder, 0x101000);
    builder_add_section(&builder, (Elf32_Shdr){.sh_type = SHT_PROGBITS,
                                               .sh_flags = SHF_ALLOC | SHF_EXECINSTR,
                                               .sh_addr = 0x101000,
                                               .sh_size = 0x2000});
    builder_add_symbols(&builder, symbols, 2);
    return symbols_load_bytes(builder.bytes, builder.size);
}

START_TEST(places)
{
    static const struct {
        const char *text;
        gva_t place;
    } cases[] = {
        {"main", 0x101000},       {"main+1c", 0x10101c},   {"main-0x10+4", 0x100ff4},
        {"c0101234", 0xc0101234}, {"0x1000", 0x1000},      {"0", 0},
        {"face", 0x102000}, /* symbols first... */
        {"0xface", 0xface}, /* ...unless it is said to be a number */
        {"$esp", 0x9000},         {"$ESP-4", 0x8ffc},      {"$eip", 0x30010},
        {"$cr3", 0x5000},         {"main+$esp", 0x10a000}, {"0-1", 0xffffffff},
        {"ffffffff+2", 1},
    };
    struct symbols *symbols = make_symbols();

    ck_assert_ptr_nonnull(symbols);
    event_vm.symbols = symbols;
    event_vm.vcpu.gpr[ESP] = 0x9000;
    event_vm.vcpu.eip = 0x10;
    event_vm.vcpu.segment[SEG_CS].base = 0x30000; /* $eip is linear, as all places are */
    event_vm.vcpu.cr3 = 0x5000;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        gva_t place;

        ck_assert_msg(step_parse_place(&event_vm, cases[i].text, &place, error, sizeof error), "%s: %s",
                      cases[i].text, error);
        ck_assert_msg(place == cases[i].place, "%s: %x", cases[i].text, place);
    }
    symbols_free(symbols);
}
END_TEST

START_TEST(wrong_places)
{
    static const char *const cases[] = {"",   "nothere", "main+",     "main++1", "0x", "$",      "$xyz",
                                        "1g", "+1",      "100000000", "main 1",  "-1", "main+zz"};
    char text[300];
    gva_t place;

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        error[0] = '\0';
        ck_assert_msg(!step_parse_place(&event_vm, cases[i], &place, error, sizeof error), "accepted: %s",
                      cases[i]);
        ck_assert_str_ne(error, "");
    }
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    ck_assert(!step_parse_place(&event_vm, text, &place, error, sizeof error));
}
END_TEST

/* ---- commands ------------------------------------------------------------------------------------------ */

static struct step_session session;
static char *said;
static size_t said_size;

/* What it says; the machine has stopped, so that nothing is run. */
static bool execute(const char *line, bool repeats)
{
    bool ok;

    free(said);
    session.stepper.vm = &event_vm;
    session.out = open_memstream(&said, &said_size);
    event_vm.stop_reason = STOP_HALTED;
    strcpy(event_vm.stop_text, "over");
    ok = step_execute(&session, line, repeats);
    fclose(session.out);
    return ok;
}

START_TEST(wrong_commands)
{
    static const struct {
        const char *line, *error;
    } cases[] = {
        {"nonsense", "no command is called nonsense"},
        {"stp", "no command is called stp; did you mean step?"},
        {"step x", "x is not a number of times"},
        {"step 0", "0 is not a number of times"},
        {"trap -1", "-1 is not a number of times"},
        {"until", "a place is missing"},
        {"break on", "on what kind of trap?"},
        {"break on clli", "did you mean cli?"},
        {"break nothere", "nothere is neither a symbol nor a hexadecimal number"},
        {"delete 7", "there is no breakpoint 7"},
        {"delete x", "there is no breakpoint x"},
        {"x", "a place is missing"},
        {"x/8q 0", "/8q is no layout"},
        {"x/99999999b 0", "is no layout"},
        {"x/-1 0", "is no layout"},
        {"xp/4i 0", "instructions are shown by linear address"},
        {"walk", "a place is missing"},
        {"trace", "trace on, or trace off"},
        {"help nonsense", "no command is called nonsense"},
        {"step", "the machine has stopped: over"},
        {"continue", "the machine has stopped: over"},
        {"\x1b[2J", "no command is called"},
    };
    char text[2000];

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        ck_assert_msg(!execute(cases[i].line, false), "accepted: %s", cases[i].line);
        ck_assert_msg(strstr(session.error, cases[i].error) != NULL, "%s: %s", cases[i].line, session.error);
    }
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    ck_assert(!execute(text, false));
}
END_TEST

START_TEST(right_commands)
{
    ck_assert(execute("", false));
    ck_assert(execute("  # a comment\n", false));
    ck_assert(execute("help", false));
    ck_assert_ptr_nonnull(strstr(said, "continue [N]"));
    ck_assert(execute("h kinds", false));
    ck_assert_ptr_nonnull(strstr(said, "reflected"));
    ck_assert(execute("help w", false));
    ck_assert_ptr_nonnull(strstr(said, "walk PLACE"));
    ck_assert(execute("break", false));
    ck_assert_str_eq(said, "no breakpoints\n");
    ck_assert(execute(" break  1000 ", false));
    ck_assert_str_eq(said, "  1  at 00001000, met 0 times\n");
    ck_assert(execute("b on  #PF reflected", false));
    ck_assert_str_eq(said, "  2  on #PF reflected, met 0 times\n");
    ck_assert(execute("del 1", false));
    ck_assert(execute("break", false));
    ck_assert_str_eq(said, "  2  on #PF reflected, met 0 times\n");
    ck_assert(execute("delete", false));
    ck_assert(execute("why", false));
    ck_assert_str_eq(said, "nothing has trapped yet\n");
    ck_assert(execute("symbol $eip+10", false));
    ck_assert(execute("quit", false));
    ck_assert(session.is_over);
}
END_TEST

START_TEST(empty_lines_repeat)
{
    ck_assert(!execute("step", true));
    ck_assert(!execute("", true)); /* again */
    ck_assert(execute("", false));
    ck_assert(execute("help", true));
    ck_assert(execute("", true)); /* not help */
    ck_assert_str_eq(said, "");
}
END_TEST

static void setup(void)
{
    event_world_open();
    memset(&session, 0, sizeof session);
    said = NULL;
}

static void teardown(void)
{
    free(said);
    event_world_close();
}

int main(void)
{
    Suite *suite = suite_create("step words");
    TCase *tests = tcase_create("step words");
    SRunner *runner;
    int failed;

    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_test(tests, kind_of_an_instruction);
    tcase_add_test(tests, kind_of_a_fault);
    tcase_add_test(tests, kind_of_an_interrupt);
    tcase_add_test(tests, kind_of_a_port);
    tcase_add_test(tests, wrong_kinds);
    tcase_add_test(tests, places);
    tcase_add_test(tests, wrong_places);
    tcase_add_test(tests, wrong_commands);
    tcase_add_test(tests, right_commands);
    tcase_add_test(tests, empty_lines_repeat);
    suite_add_tcase(suite, tests);
    runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
