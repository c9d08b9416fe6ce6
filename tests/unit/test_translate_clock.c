/* The host's clock by its TSC: right, and never going back, whatever the host's two clocks do. */
#include <check.h>
#include <stdlib.h>
#include <time.h>

#include "translate/host_clock.h"

#define MS UINT64_C(1000000)
#define S  (1000 * MS)

/* A made-up host: 2.5 cycles a ns, beginning at some number. */
#define CYCLES(ns) ((ns) / 2 * 5)
#define TSC_START  UINT64_C(1000000000000)
#define MUL        ((uint64_t)(0.4 * 18446744073709551616.0))

static struct host_clock_line line;
static struct host_clock_sample last;
static uint64_t lead;

static void setup(void)
{
    last = (struct host_clock_sample){.tsc = TSC_START, .ns = 5 * S};
    line = (struct host_clock_line){.tsc = last.tsc, .ns = last.ns, .mul = MUL};
    lead = 0;
}

/* The clocks say this now; the line goes on. Returns how far it is ahead of monotonic + lead. */
static int64_t go_on(uint64_t tsc, uint64_t ns)
{
    struct host_clock_sample now = {.tsc = tsc, .ns = ns};
    uint64_t before = host_clock_at(&line, tsc > last.tsc ? tsc : line.tsc);

    line = host_clock_next_line(&line, &last, &now, &lead);
    last = now;
    ck_assert_uint_ge(host_clock_at(&line, tsc), before); /* for the guest it does not go back */
    return (int64_t)(host_clock_at(&line, tsc) - ns - lead);
}

START_TEST(it_follows_a_clock_that_is_being_slewed)
{
    static const int64_t ppm[] = {0, 500, -500, 20};
    uint64_t tsc = last.tsc, ns = last.ns;

    for (unsigned i = 0; i < 400; i++) {
        int64_t ahead;

        tsc += CYCLES(250 * MS);
        ns += 250 * MS + (uint64_t)(ppm[i / 100] * 250);
        ahead = go_on(tsc, ns);
        ck_assert_int_lt(llabs(ahead), 500000);
        if (i % 100 > 40)
            ck_assert_int_lt(llabs(ahead), 2000);
    }
    ck_assert_uint_eq(lead, 0);
}
END_TEST

START_TEST(a_bad_first_slope_is_made_good)
{
    int64_t ahead = 0;

    line.mul += line.mul / 10000; /* 100 ppm */
    for (uint64_t i = 1; i <= 40; i++)
        ahead = go_on(TSC_START + CYCLES(i * 250 * MS), 5 * S + i * 250 * MS);
    ck_assert_int_lt(llabs(ahead), 100);
    /* ...also after an hour without a look */
    setup();
    line.mul -= line.mul / 10000;
    ahead = go_on(TSC_START + CYCLES(3600 * S), 3605 * S);
    ck_assert_int_lt(llabs(ahead), (int64_t)(400 * MS));
    for (uint64_t i = 1; i <= 4000; i++)
        ahead = go_on(TSC_START + CYCLES(3600 * S + i * 250 * MS), 3605 * S + i * 250 * MS);
    ck_assert_int_lt(llabs(ahead), 1000);
    ck_assert_uint_eq(lead, 0);
}
END_TEST

/* The host was suspended: its TSC went on, CLOCK_MONOTONIC did not. The time has passed for the guest. */
START_TEST(a_clock_that_stood_still_is_left_behind)
{
    (void)go_on(TSC_START + CYCLES(100 * S), 5 * S + 250 * MS);
    ck_assert_uint_ge(lead, 99 * S);
    ck_assert_uint_le(lead, 100 * S);
    ck_assert_int_lt(llabs(go_on(TSC_START + CYCLES(101 * S), 6 * S + 250 * MS)), 10000);
}
END_TEST

START_TEST(a_clock_that_went_on_is_followed_at_once)
{
    ck_assert_int_lt(llabs(go_on(TSC_START + CYCLES(250 * MS), 100 * S)), 10);
    ck_assert_uint_eq(lead, 0);
}
END_TEST

START_TEST(a_tsc_that_began_anew)
{
    ck_assert_int_lt(llabs(go_on(TSC_START + CYCLES(250 * MS), 5 * S + 250 * MS)), 10);
    ck_assert_int_lt(llabs(go_on(1000, 6 * S)), 10);
    ck_assert_int_lt(llabs(go_on(1000 + CYCLES(1 * S), 7 * S)), 10);
}
END_TEST

static uint64_t monotonic_ns(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * S + (uint64_t)ts.tv_nsec;
}

/* Or CLOCK_MONOTONIC itself, where the host's TSC is no clock. Between two reads of the one lies the other:
 * by how much it may be out says the first slope, made in a millisecond. */
START_TEST(it_is_the_hosts_clock)
{
    uint64_t begin, before = 0, ns, after;

    host_clock_open();
    begin = monotonic_ns();
    (void)host_clock_start();
    do {
        uint64_t slack;

        host_clock_adjust();
        after = monotonic_ns();
        ns = host_clock_ns();
        slack = 20000 + (after - begin) / 1000;
        ck_assert_uint_ge(ns, before);
        ck_assert_uint_ge(ns + slack, after);
        ck_assert_uint_le(host_clock_to_monotonic(ns), monotonic_ns() + slack);
        before = ns;
    } while (after - begin < 600 * MS);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("translate/host_clock");
    TCase *tests = tcase_create("clock");
    SRunner *runner;
    int failed;

    tcase_add_checked_fixture(tests, setup, NULL);
    tcase_add_test(tests, it_follows_a_clock_that_is_being_slewed);
    tcase_add_test(tests, a_bad_first_slope_is_made_good);
    tcase_add_test(tests, a_clock_that_stood_still_is_left_behind);
    tcase_add_test(tests, a_clock_that_went_on_is_followed_at_once);
    tcase_add_test(tests, a_tsc_that_began_anew);
    tcase_add_test(tests, it_is_the_hosts_clock);
    suite_add_tcase(suite, tests);
    runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? 0 : 1;
}
