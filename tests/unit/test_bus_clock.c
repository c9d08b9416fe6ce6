/* The bus's dispatch and splitting rules, and the clock's timers and unit conversions. */
#include "devices/devices.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>

/* ---- bus: chips that log what reaches them ------------------------------------------------------------- */

struct log_entry {
    char chip;
    bool is_write;
    uint32_t offset;
    unsigned size;
    uint32_t value;
};

static struct log_entry log_entries[16];
static unsigned n_log;

static void log_add(char chip, bool is_write, uint32_t offset, unsigned size, uint32_t value)
{
    ck_assert_uint_lt(n_log, 16);
    log_entries[n_log++] = (struct log_entry){chip, is_write, offset, size, value};
}

static void assert_log(unsigned i, char chip, bool is_write, uint32_t offset, unsigned size, uint32_t value)
{
    ck_assert_uint_lt(i, n_log);
    ck_assert_int_eq(log_entries[i].chip, chip);
    ck_assert_int_eq(log_entries[i].is_write, is_write);
    ck_assert_uint_eq(log_entries[i].offset, offset);
    ck_assert_uint_eq(log_entries[i].size, size);
    ck_assert_uint_eq(log_entries[i].value, value);
}

/* Reads give the offset in each byte, and more bits than were asked for. */
static uint32_t chip_read(void *device, uint32_t offset, unsigned size)
{
    log_add(*(char *)device, false, offset, size, 0);
    return 0x03020100 + 0x01010101 * offset;
}

static void chip_write(void *device, uint32_t offset, unsigned size, uint32_t value)
{
    log_add(*(char *)device, true, offset, size, value);
}

static void unclaimed(void *ctx, enum bus_space space, uint32_t address, unsigned size, bool is_write,
                      uint32_t value)
{
    ck_assert_ptr_eq(ctx, log_entries);
    log_add(space == BUS_PORT ? '?' : '!', is_write, address, size, value);
}

static const struct bus_device_ops byte_ops = {chip_read, chip_write, 1, false};
static const struct bus_device_ops word_ops = {chip_read, chip_write, 2, false};
static const struct bus_device_ops dword_ops = {chip_read, chip_write, 4, false};
static const struct bus_device_ops exact_byte_ops = {chip_read, chip_write, 1, true};

static struct bus bus;
static char a = 'a', b = 'b', w = 'w', d = 'd', x = 'x';

static void bus_setup(void)
{
    memset(&bus, 0, sizeof(bus));
    n_log = 0;
    bus.observer = (struct board_observer){.unclaimed = unclaimed, .ctx = log_entries};
    bus_claim(&bus, BUS_PORT, 0x20, 0x21, &byte_ops, &a, "a");
    bus_claim(&bus, BUS_PORT, 0x22, 0x22, &byte_ops, &b, "b");
    bus_claim(&bus, BUS_PORT, 0x1f0, 0x1f7, &word_ops, &w, "w");
    bus_claim(&bus, BUS_PORT, 0xcf9, 0xcf9, &exact_byte_ops, &x, "x");
    bus_claim(&bus, BUS_MEMORY, 0xfffffff0, 0xffffffff, &dword_ops, &d, "d");
}

START_TEST(an_access_that_fits_is_passed_whole)
{
    ck_assert_uint_eq(bus_read(&bus, BUS_PORT, 0x21, 1), 0x01);
    assert_log(0, 'a', false, 1, 1, 0);
    bus_write(&bus, BUS_PORT, 0x1f0, 2, 0xabcd1234); /* bits above the size do not reach the chip */
    assert_log(1, 'w', true, 0, 2, 0x1234);
    ck_assert_uint_eq(bus_read(&bus, BUS_MEMORY, 0xfffffffc, 4), 0x0f0e0d0c);
    assert_log(2, 'd', false, 12, 4, 0);
    ck_assert_uint_eq(n_log, 3);
}
END_TEST

START_TEST(a_wide_access_is_split_low_byte_first)
{
    bus_write(&bus, BUS_PORT, 0x20, 2, 0x1234);
    assert_log(0, 'a', true, 0, 1, 0x34);
    assert_log(1, 'a', true, 1, 1, 0x12);
    ck_assert_uint_eq(bus_read(&bus, BUS_PORT, 0x1f4, 4), 0x07060504);
    assert_log(2, 'w', false, 4, 2, 0);
    assert_log(3, 'w', false, 6, 2, 0);
}
END_TEST

START_TEST(an_access_across_ranges_reaches_each)
{
    /* 0x21 is a's, 0x22 b's, 0x23 and 0x24 nobody's */
    ck_assert_uint_eq(bus_read(&bus, BUS_PORT, 0x21, 4), 0xffff0001);
    assert_log(0, 'a', false, 1, 1, 0);
    assert_log(1, 'b', false, 0, 1, 0);
    assert_log(2, '?', false, 0x23, 2, 0xffff);
    ck_assert_uint_eq(n_log, 3);
}
END_TEST

START_TEST(unclaimed_accesses_read_ones_and_are_reported_once)
{
    ck_assert_uint_eq(bus_read(&bus, BUS_PORT, 0x300, 4), 0xffffffff);
    ck_assert_uint_eq(bus_read(&bus, BUS_PORT, 0x300, 2), 0xffff);
    ck_assert_uint_eq(bus_read(&bus, BUS_MEMORY, 0xd0000000, 1), 0xff);
    bus_write(&bus, BUS_PORT, 0x300, 2, 0x99991234);
    assert_log(0, '?', false, 0x300, 4, 0xffffffff);
    assert_log(1, '?', false, 0x300, 2, 0xffff);
    assert_log(2, '!', false, 0xd0000000, 1, 0xff);
    assert_log(3, '?', true, 0x300, 2, 0x1234);
    ck_assert_uint_eq(n_log, 4);
}
END_TEST

START_TEST(an_access_past_the_end_of_memory_does_not_wrap_into_a_range)
{
    ck_assert_uint_eq(bus_read(&bus, BUS_MEMORY, 0xfffffffe, 4), 0xffff0f0e);
    assert_log(0, 'd', false, 14, 2, 0);
    assert_log(1, '!', false, 0, 2, 0xffff);
}
END_TEST

START_TEST(a_bytes_only_chip_is_passed_by_by_wider_accesses)
{
    bus_write(&bus, BUS_PORT, 0xcf8, 4, 0x80000600); /* a PCI configuration address, no reset */
    assert_log(0, '?', true, 0xcf8, 4, 0x80000600);
    bus_write(&bus, BUS_PORT, 0xcf9, 1, 6);
    assert_log(1, 'x', true, 0, 1, 6);
    ck_assert_uint_eq(n_log, 2);
}
END_TEST

START_TEST(find_and_release)
{
    ck_assert_str_eq(bus_find(&bus, BUS_PORT, 0x1f7)->name, "w");
    ck_assert_ptr_null(bus_find(&bus, BUS_PORT, 0x1f8));
    bus_release(&bus, BUS_PORT, 0x1f0);
    ck_assert_ptr_null(bus_find(&bus, BUS_PORT, 0x1f0));
    bus_release(&bus, BUS_PORT, 0x1f0); /* nothing there: nothing happens */
    ck_assert_uint_eq(bus.n_ports, 3);
    ck_assert_str_eq(bus_find(&bus, BUS_PORT, 0x22)->name, "b");
}
END_TEST

/* What an address led to is remembered, but not for longer than the claim. */
START_TEST(an_address_changes_hands)
{
    bus_write(&bus, BUS_PORT, 0x1f1, 1, 1);
    bus_write(&bus, BUS_PORT, 0x1f1, 1, 2);
    bus_release(&bus, BUS_PORT, 0x1f0);
    bus_write(&bus, BUS_PORT, 0x1f1, 1, 3);
    bus_claim(&bus, BUS_PORT, 0x1f1, 0x1f1, &byte_ops, &a, "new");
    bus_write(&bus, BUS_PORT, 0x1f1, 1, 4);
    assert_log(0, 'w', true, 1, 1, 1);
    assert_log(1, 'w', true, 1, 1, 2);
    assert_log(2, '?', true, 0x1f1, 1, 3);
    assert_log(3, 'a', true, 0, 1, 4);
}
END_TEST

START_TEST(overlapping_claims_are_a_bug)
{
    bus_claim(&bus, BUS_PORT, 0x1f7, 0x1f8, &byte_ops, &a, "clash"); /* ends the process with status 1 */
}
END_TEST

/* ---- clock --------------------------------------------------------------------------------------------- */

static uint64_t now;
static struct clock machine_clock;
static unsigned n_deadline_changes;
static char fired[16];

static uint64_t read_now(void *ctx)
{
    (void)ctx;
    return now;
}

static void deadline_changed(void *ctx)
{
    (void)ctx;
    n_deadline_changes++;
}

struct named_timer {
    struct timer timer;
    char name;
    uint64_t again; /* re-arm this much beyond the present; 0: do not */
    struct named_timer *disarms;
};

static void named_timer_fire(void *ctx)
{
    struct named_timer *timer = ctx;
    size_t n = strlen(fired);

    ck_assert_uint_lt(n, sizeof(fired) - 1);
    fired[n] = timer->name;
    if (timer->again != 0)
        clock_arm(&machine_clock, &timer->timer, now + timer->again);
    if (timer->disarms != NULL)
        clock_disarm(&machine_clock, &timer->disarms->timer);
}

static struct named_timer timers[3];

static void clock_setup(void)
{
    now = 1000;
    n_deadline_changes = 0;
    memset(fired, 0, sizeof(fired));
    machine_clock = (struct clock){.now = read_now, .deadline_changed = deadline_changed};
    for (unsigned i = 0; i < 3; i++)
        timers[i] = (struct named_timer){.timer = {.fire = named_timer_fire, .ctx = &timers[i]},
                                         .name = (char)('0' + i)};
}

START_TEST(timers_fire_in_order_of_deadline_then_of_arming)
{
    clock_arm(&machine_clock, &timers[0].timer, 3000);
    clock_arm(&machine_clock, &timers[1].timer, 2000);
    clock_arm(&machine_clock, &timers[2].timer, 2000);
    ck_assert_uint_eq(clock_next_deadline(&machine_clock), 2000);
    clock_run(&machine_clock);
    ck_assert_str_eq(fired, "");
    now = 2000;
    clock_run(&machine_clock);
    ck_assert_str_eq(fired, "12");
    ck_assert(timers[0].timer.armed && !timers[1].timer.armed);
    now = 9000;
    clock_run(&machine_clock);
    ck_assert_str_eq(fired, "120");
    ck_assert_uint_eq(clock_next_deadline(&machine_clock), CLOCK_NO_DEADLINE);
}
END_TEST

START_TEST(arming_again_moves_a_timer)
{
    clock_arm(&machine_clock, &timers[0].timer, 2000);
    clock_arm(&machine_clock, &timers[1].timer, 3000);
    clock_arm(&machine_clock, &timers[0].timer, 4000);
    ck_assert_uint_eq(clock_next_deadline(&machine_clock), 3000);
    clock_arm(&machine_clock, &timers[1].timer, CLOCK_NO_DEADLINE);
    ck_assert(!timers[1].timer.armed);
    ck_assert_uint_eq(clock_next_deadline(&machine_clock), 4000);
}
END_TEST

START_TEST(a_run_fires_each_periodic_timer_once)
{
    timers[0].again = 1;
    clock_arm(&machine_clock, &timers[0].timer, 1001);
    now = UINT64_C(1000000000000);
    clock_run(&machine_clock);
    ck_assert_str_eq(fired, "0");
    ck_assert_uint_eq(clock_next_deadline(&machine_clock), now + 1);
}
END_TEST

START_TEST(a_due_timer_can_be_disarmed_by_an_earlier_one)
{
    timers[0].disarms = &timers[1];
    clock_arm(&machine_clock, &timers[0].timer, 2000);
    clock_arm(&machine_clock, &timers[1].timer, 2001);
    now = 5000;
    clock_run(&machine_clock);
    ck_assert_str_eq(fired, "0");
    clock_disarm(&machine_clock, &timers[1].timer); /* twice does no harm */
    ck_assert_ptr_null(machine_clock.timers);
}
END_TEST

START_TEST(the_monitor_hears_of_a_new_earliest_deadline_only)
{
    clock_arm(&machine_clock, &timers[0].timer, 3000);
    ck_assert_uint_eq(n_deadline_changes, 1);
    clock_arm(&machine_clock, &timers[1].timer, 4000);
    ck_assert_uint_eq(n_deadline_changes, 1);
    clock_arm(&machine_clock, &timers[2].timer, 2000);
    ck_assert_uint_eq(n_deadline_changes, 2);
    clock_disarm(&machine_clock, &timers[1].timer);
    ck_assert_uint_eq(n_deadline_changes, 2);
    now = 2500;
    clock_run(&machine_clock);
    ck_assert_uint_eq(n_deadline_changes, 3);
}
END_TEST

START_TEST(ticks_convert_without_overflow_or_drift)
{
    ck_assert_uint_eq(clock_to_ticks(1000000000, 1193182), 1193182);
    ck_assert_uint_eq(clock_to_ticks(999999999, 1193182), 1193181);
    ck_assert_uint_eq(clock_from_ticks(1, 1193182), 839); /* 838.09... ns */
    /* 500 years, and the largest number there is */
    ck_assert_uint_eq(clock_to_ticks(UINT64_C(15768000000000000000), 1193182),
                      UINT64_C(15768000000) * 1193182);
    ck_assert_uint_eq(clock_to_ticks(UINT64_MAX, 1), 18446744073u);
    ck_assert_uint_eq(clock_from_ticks(UINT64_MAX, 1193182), CLOCK_NO_DEADLINE);
    static const uint32_t rates[] = {1, 32768, 115200, 1193182, 1000000000};
    for (unsigned i = 0; i < 5; i++)
        for (uint64_t ticks = 1; ticks < UINT64_C(10000000000); ticks = ticks * 3 + 1)
            ck_assert_uint_eq(clock_to_ticks(clock_from_ticks(ticks, rates[i]), rates[i]), ticks);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("bus_clock");
    TCase *on_bus = tcase_create("bus");
    tcase_add_checked_fixture(on_bus, bus_setup, NULL);
    tcase_add_test(on_bus, an_access_that_fits_is_passed_whole);
    tcase_add_test(on_bus, a_wide_access_is_split_low_byte_first);
    tcase_add_test(on_bus, an_access_across_ranges_reaches_each);
    tcase_add_test(on_bus, unclaimed_accesses_read_ones_and_are_reported_once);
    tcase_add_test(on_bus, an_access_past_the_end_of_memory_does_not_wrap_into_a_range);
    tcase_add_test(on_bus, a_bytes_only_chip_is_passed_by_by_wider_accesses);
    tcase_add_test(on_bus, find_and_release);
    tcase_add_test(on_bus, an_address_changes_hands);
    tcase_add_exit_test(on_bus, overlapping_claims_are_a_bug, 1);
    suite_add_tcase(suite, on_bus);
    TCase *on_clock = tcase_create("clock");
    tcase_add_checked_fixture(on_clock, clock_setup, NULL);
    tcase_add_test(on_clock, timers_fire_in_order_of_deadline_then_of_arming);
    tcase_add_test(on_clock, arming_again_moves_a_timer);
    tcase_add_test(on_clock, a_run_fires_each_periodic_timer_once);
    tcase_add_test(on_clock, a_due_timer_can_be_disarmed_by_an_earlier_one);
    tcase_add_test(on_clock, the_monitor_hears_of_a_new_earliest_deadline_only);
    tcase_add_test(on_clock, ticks_convert_without_overflow_or_drift);
    suite_add_tcase(suite, on_clock);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
