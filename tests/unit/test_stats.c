/* monitor/stats: what is counted where, percentiles, and files that cannot be written. */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "event_world.h"
#include "monitor/stats.h"
#include "shadow_world.h"

static struct world world; /* for its shadow's own counts */
static struct stats *stats;
static char error[512], *text;

static void setup(void)
{
    event_world_open();
    world_open(&world, 4 << 20, 0, 0, false, 0);
    event_vm.shadow = world.shadow;
    stats = stats_open(event_path, &event_vm, error, sizeof error);
    ck_assert_msg(stats != NULL, "%s", error);
}

static void teardown(void)
{
    free(text);
    text = NULL;
    world_close(&world);
    event_world_close();
}

static void finish(void)
{
    ck_assert_msg(stats_close(stats, error, sizeof error), "%s", error);
    text = event_read_file(event_path, NULL);
}

/* The number behind `key` in the object behind `object`. */
static unsigned long long number(const char *object, const char *key)
{
    char quoted[64];
    const char *place;

    snprintf(quoted, sizeof quoted, "\"%s\": {", object);
    place = strstr(text, quoted);
    ck_assert_msg(place != NULL, "no %s in:\n%s", quoted, text);
    snprintf(quoted, sizeof quoted, "\"%s\": ", key);
    place = strstr(place, quoted);
    ck_assert_msg(place != NULL, "no %s of %s in:\n%s", quoted, object, text);
    return strtoull(place + strlen(quoted), NULL, 10);
}

static void show_cost(const char *bytes, size_t n, uint64_t capture_ns, uint64_t handle_ns)
{
    struct vm_event *event = event_make(1, bytes, n);

    event->capture_ns = capture_ns;
    event->handle_ns = handle_ns;
    event_show();
}

START_TEST(costs_are_measured)
{
    ck_assert(event_vm.timed);
    finish();
}
END_TEST

START_TEST(nothing_happened)
{
    finish();
    ck_assert_ptr_nonnull(strstr(text, "{\n  \"ring3-stats\": 1,\n  \"engine\": \"fake\",\n"));
    ck_assert_ptr_nonnull(strstr(text, "\"machine_ns\": 12345,"));
    ck_assert_ptr_nonnull(strstr(text, "\"ticks_passed_over\": 0,"));
    ck_assert_ptr_nonnull(strstr(text, "\"exits\": {\n  },"));
    ck_assert_uint_eq(number("shadow", "fills"), 0);
}
END_TEST

/* They only count: an engine may handle exits on the spot. */
START_TEST(nobody_watches)
{
    ck_assert_uint_eq(event_vm.n_observers, 1);
    ck_assert_uint_eq(event_vm.n_watchers, 0);
    vm_observe(&event_vm, event_vm.observer[0].event, event_vm.observer[0].ctx);
    ck_assert_uint_eq(event_vm.n_watchers, 1);
    finish();
}
END_TEST

static void engine_counts(void *state, struct engine_stats *engine)
{
    (void)state;
    *engine = (struct engine_stats){
        .shadow = {.fills = 7}, .n_counters = 2, .counter = {{"blocks", 11}, {"build_ns", 22}}};
}

START_TEST(the_engines_own)
{
    static const struct engine engine = {.name = "counting", .stats = engine_counts};

    event_vm.engine = &engine;
    finish();
    ck_assert_uint_eq(number("engine_counts", "blocks"), 11);
    ck_assert_uint_eq(number("engine_counts", "build_ns"), 22);
    ck_assert_uint_eq(number("shadow", "fills"), 7);
}
END_TEST

START_TEST(counts)
{
    struct vm_event *event;

    show_cost("\xfa", 1, 100, 200);      /* cli */
    show_cost("\xfa", 1, 100, 400);      /* cli */
    show_cost("\x0f\x20\xc0", 3, 0, 50); /* mov eax, cr0 */
    show_cost("\x89\x03", 2, 10, 10);    /* mov [ebx], eax: an ordinary one */

    event = event_make(5, "\x90", 1);
    event->has_insn = false;
    event->disposition = DISPOSITION_REFLECTED;
    event->exit.reason = EXIT_PAGE_FAULT;
    event->handle_ns = 7;
    event->note[0] = (struct note){.kind = NOTE_INJECTED, .injection = INJECT_EXCEPTION, .vector = 14};
    event->n_notes = 1;
    event_show();

    event = event_make(6, "\x90", 1);
    event->has_insn = false;
    event->disposition = DISPOSITION_INTERRUPT;
    event->note[0] = (struct note){.kind = NOTE_INJECTED, .injection = INJECT_EXTERNAL, .vector = 0x20};
    event->n_notes = 1;
    event_show();
    event_show();

    finish();
    ck_assert_uint_eq(number("exception", "count"), 4);
    ck_assert_uint_eq(number("exception", "total_ns"), 870);
    ck_assert_uint_eq(number("page-fault", "count"), 1);
    ck_assert_uint_eq(number("CLI", "count"), 2);
    ck_assert_uint_eq(number("CLI", "total_ns"), 800);
    ck_assert_uint_eq(number("CLI", "min_ns"), 300);
    ck_assert_uint_eq(number("mov", "count"), 1);
    ck_assert_uint_eq(number("dispositions", "emulated"), 4);
    ck_assert_uint_eq(number("dispositions", "reflected"), 1);
    ck_assert_uint_eq(number("dispositions", "interrupt"), 2);
    ck_assert_uint_eq(number("injected_exceptions", "#PF"), 1);
    ck_assert_uint_eq(number("injected_interrupts", "32"), 2);
    ck_assert_ptr_null(strstr(text, "\"interrupted\"")); /* an interrupt is not an exit */
}
END_TEST

/* 8 steps to an octave: never above the true value, and less than an eighth below it; never below the least.
 */
START_TEST(percentiles)
{
    for (uint64_t i = 1; i <= 1000; i++) /* 10 us to 10 ms, shuffled: 7 is prime to 1000 */
        show_cost("\xfa", 1, 0, (i * 7 % 1000 + 1) * 10000);
    show_cost("\xfb", 1, 0, 1000);                  /* sti: a single value is all its percentiles */
    show_cost("\xf4", 1, 0, 0);                     /* hlt */
    show_cost("\x0f\x06", 2, 0, UINT64_C(1) << 60); /* clts: off the scale */
    finish();
    ck_assert_uint_eq(number("CLI", "min_ns"), 10000);
    ck_assert_uint_le(number("CLI", "p50_ns"), 5000000);
    ck_assert_uint_gt(number("CLI", "p50_ns"), 5000000 * 7 / 8);
    ck_assert_uint_le(number("CLI", "p99_ns"), 9900000);
    ck_assert_uint_gt(number("CLI", "p99_ns"), 9900000 * 7 / 8);
    ck_assert_uint_eq(number("STI", "min_ns"), 1000);
    ck_assert_uint_eq(number("STI", "p50_ns"), 1000);
    ck_assert_uint_eq(number("STI", "p99_ns"), 1000);
    ck_assert_uint_eq(number("HLT", "p99_ns"), 0);
    ck_assert_uint_eq(number("CLTS", "min_ns"), UINT64_C(1) << 60);
    ck_assert_uint_gt(number("CLTS", "p50_ns"), UINT64_C(1) << 40);
}
END_TEST

/* More kinds of instructions than there is room for: the rest is counted together, and none is lost. */
START_TEST(many_instructions)
{
    unsigned n = 0;
    const char *place;
    unsigned long long sum = 0;

    for (unsigned opcode = 0; opcode < 512; opcode++) {
        const uint8_t bytes[15] = {opcode < 256 ? (uint8_t)opcode : 0x0f, (uint8_t)opcode, 0x05};
        struct insn insn;

        if (decode_insn(bytes, sizeof bytes, 4, &insn) != DECODE_OK)
            continue;
        show_cost((const char *)bytes, sizeof bytes, 0, 1);
        n++;
    }
    finish();
    ck_assert_uint_gt(n, 300);
    ck_assert_uint_eq(number("exception", "count"), n);
    place = strstr(text, "\"instructions\"");
    ck_assert_ptr_nonnull(place);
    while ((place = strstr(place, "{\"count\": ")) != NULL) {
        place += strlen("{\"count\": ");
        sum += strtoull(place, NULL, 10);
    }
    ck_assert_uint_eq(sum, n);
    ck_assert_ptr_nonnull(strstr(text, "\"others\": {"));
}
END_TEST

START_TEST(cannot_be_written)
{
    finish();
    ck_assert_ptr_null(stats_open("/nonexistent/stats", &event_vm, error, sizeof error));
    ck_assert_str_eq(error, "cannot open the statistics file /nonexistent/stats: No such file or directory");
    stats = stats_open("/dev/full", &event_vm, error, sizeof error);
    ck_assert_ptr_nonnull(stats);
    ck_assert(!stats_close(stats, error, sizeof error));
    ck_assert_str_eq(error, "cannot write the statistics to /dev/full: No space left on device");
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("stats");
    TCase *tests = tcase_create("stats");
    SRunner *runner;
    int failed;

    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_test(tests, costs_are_measured);
    tcase_add_test(tests, nothing_happened);
    tcase_add_test(tests, nobody_watches);
    tcase_add_test(tests, the_engines_own);
    tcase_add_test(tests, counts);
    tcase_add_test(tests, percentiles);
    tcase_add_test(tests, many_instructions);
    tcase_add_test(tests, cannot_be_written);
    suite_add_tcase(suite, tests);
    runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
