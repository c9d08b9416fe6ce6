/* When exits count as rare. */
#include <check.h>
#include <stdlib.h>

#include "signals/pace.h"

#define MS UINT64_C(1000000)

START_TEST(the_first_interruption_says_nothing)
{
    struct pace pace = {0};

    ck_assert(!pace_note_interruption(&pace, 1000 * MS, 1));
    ck_assert(!pace.is_slow);
}
END_TEST

START_TEST(rare_exits_are_slow_and_frequent_ones_are_not)
{
    struct pace pace = {.since_ns = 1000 * MS, .n_exits = 50};

    ck_assert(!pace_note_interruption(&pace, 1010 * MS, 80)); /* 30 in 10 ms: neither */
    ck_assert(!pace.is_slow);
    ck_assert(pace_note_interruption(&pace, 1020 * MS, 90)); /* 10 in 10 ms */
    ck_assert(pace.is_slow);
    ck_assert(!pace_note_interruption(&pace, 1030 * MS, 130)); /* 40 in 10 ms: it stays as it was */
    ck_assert(pace.is_slow);
    ck_assert(pace_note_interruption(&pace, 1040 * MS, 300));
    ck_assert(!pace.is_slow);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("pace");
    TCase *cases = tcase_create("pace");
    SRunner *runner;
    int failed;

    tcase_add_test(cases, the_first_interruption_says_nothing);
    tcase_add_test(cases, rare_exits_are_slow_and_frequent_ones_are_not);
    suite_add_tcase(suite, cases);
    runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
