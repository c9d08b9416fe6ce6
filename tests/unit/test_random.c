/*
 * Random instruction sequences against the CPU, under each engine: the seeds that every test run has. For
 * other seeds, and for more of them, tests/random/random_compare.c.
 */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>

#include "random/compare.h"

#define SEED            1
#define CASES_PER_CLASS 400

static bool can_run(void)
{
#ifdef __SANITIZE_ADDRESS__
    fprintf(stderr, "skipped: with AddressSanitizer most of the low 4 GiB is mapped\n");
    return false;
#else
    return true;
#endif
}

/* false: this host cannot run it, or has no such engine. */
static bool start(struct random_pair *pair, const char *engine)
{
    char error[256] = "";

    pair->memory_seed = SEED;
    pair->native = runner_start(&native_runner, NULL, error, sizeof error);
    pair->ours = NULL;
    if (pair->native == NULL) {
        fprintf(stderr, "skipped: %s\n", error);
        return false;
    }
    pair->ours = runner_start(&machine_runner, engine, error, sizeof error);
    ck_assert_msg(pair->ours != NULL, "engine %s: %s", engine, error);
    return true;
}

static void compare(const char *engine, bool has_holes)
{
    struct random_pair pair;
    struct random_tally tally = {.compared = 0};

    if (!can_run() || !start(&pair, engine))
        return;
    for (size_t i = 0; i < random_n_classes; i++) {
        struct random_plan plan = {.engine = engine,
                                   .class = &random_classes[i],
                                   .seed = SEED,
                                   .count = CASES_PER_CLASS,
                                   .is_user = true,
                                   .is_supervisor = true,
                                   .max_printed = 3};

        if (!has_holes || !plan.class->needs_all_holes_closed)
            random_run_plan(&pair, &plan, &tally);
    }
    runner_stop(pair.ours);
    runner_stop(pair.native);
    printf("%s: %llu sequences compared, %llu skipped\n", engine, (unsigned long long)tally.compared,
           (unsigned long long)tally.skipped);
    ck_assert_uint_eq(tally.different, 0);
    ck_assert_uint_gt(tally.compared, 10 * tally.skipped);
}

START_TEST(the_interpreter_does_what_the_cpu_does)
{
    compare("interpret", false);
}
END_TEST

START_TEST(the_trap_engine_does_what_the_cpu_does)
{
    compare("trap", true);
}
END_TEST

START_TEST(the_translator_does_what_the_cpu_does)
{
    compare("translate", false);
}
END_TEST

/* A seed is worth something only if it means the same sequence everywhere. */
START_TEST(a_seed_fixes_the_sequence)
{
    static struct sequence sequence;
    static struct random_case random_case, again;
    uint64_t sum = 0;

    for (size_t i = 0; i < random_n_classes; i++) {
        for (uint64_t number = 0; number < 50; number++) {
            sequence_generate(&sequence, SEED, number, &random_classes[i], false);
            sequence_assemble(&sequence, SEED, &random_case);
            sequence_generate(&sequence, SEED, number, &random_classes[i], false);
            sequence_assemble(&sequence, SEED, &again);
            ck_assert_mem_eq(random_case.code, again.code, sizeof random_case.code);
            ck_assert_mem_eq(random_case.gpr, again.gpr, sizeof random_case.gpr);
            sum += random_case.end - random_case.eip;
        }
    }
    ck_assert_uint_gt(sum, UINT64_C(60) * 50 * random_n_classes); /* bytes of code: not all came to nothing */
}
END_TEST

/* Leaving items out keeps the rest together: branches still lead to items, and the end is the end. */
START_TEST(items_can_be_left_out)
{
    static struct sequence sequence;
    static struct random_case random_case;

    sequence_generate(&sequence, SEED, 7, random_find_class("control"), false);
    ck_assert_uint_gt(sequence.n_items, 2);
    for (unsigned i = 0; i < sequence.n_items; i++)
        sequence.item[i].is_dropped = true;
    sequence_assemble(&sequence, SEED, &random_case);
    ck_assert_uint_eq(random_case.end, random_case.eip);
    ck_assert_uint_eq(random_case.code[random_case.end - RANDOM_CODE], 0x0f);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("random");
    TCase *cases = tcase_create("sequences");
    SRunner *runner = srunner_create(suite);
    int failed;

    tcase_set_timeout(cases, 0);
    tcase_add_test(cases, a_seed_fixes_the_sequence);
    tcase_add_test(cases, items_can_be_left_out);
    tcase_add_test(cases, the_interpreter_does_what_the_cpu_does);
    tcase_add_test(cases, the_trap_engine_does_what_the_cpu_does);
    tcase_add_test(cases, the_translator_does_what_the_cpu_does);
    suite_add_tcase(suite, cases);
    srunner_set_fork_status(runner, CK_NOFORK); /* the runners are processes of their own */
    srunner_run_all(runner, CK_NORMAL);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
