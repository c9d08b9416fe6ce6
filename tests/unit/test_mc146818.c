/* The MC146818: time in all formats, setting it, its three interrupts, and the CMOS memory. */
#include "devices/calendar.h"
#include "devices/mc146818.h"

#include "unit/fake_clock.h"

#include <check.h>
#include <stdlib.h>
#include <time.h>

#define SECOND UINT64_C(1000000000)
#define MINUTE (60 * SECOND)
#define HOUR   (60 * MINUTE)

/* Sunday, 22 November 2026, 13:37:42 UTC, and a quarter of a second */
#define POWER_ON INT64_C(1795354662)

static struct fake_clock fake;
static struct mc146818 rtc;
static bool irq8;

static void irq8_set(void *ctx, unsigned pin, bool level)
{
    (void)ctx;
    (void)pin;
    irq8 = level;
}

static void power_on(int64_t wall_offset, uint64_t ram_size)
{
    irq8 = false;
    fake_clock_init(&fake);
    fake.clock.wall_offset = wall_offset;
    mc146818_init(&rtc, &fake.clock, (struct irq_line){.set = irq8_set}, ram_size);
}

static void setup(void)
{
    power_on(POWER_ON * (int64_t)SECOND + 250000000, 64u << 20);
}

static uint8_t in(unsigned index)
{
    mc146818_ops.write(&rtc, 0, 1, index);
    return (uint8_t)mc146818_ops.read(&rtc, 1, 1);
}

static void out(unsigned index, uint8_t value)
{
    mc146818_ops.write(&rtc, 0, 1, index);
    mc146818_ops.write(&rtc, 1, 1, value);
}

static void pass(uint64_t ns)
{
    fake_clock_run_to(&fake, fake.now + ns);
}

static unsigned in_word(unsigned index)
{
    return (unsigned)in(index + 1) << 8 | in(index);
}

START_TEST(the_time_in_bcd)
{
    ck_assert_uint_eq(in(RTC_SECONDS), 0x42);
    ck_assert_uint_eq(in(RTC_MINUTES), 0x37);
    ck_assert_uint_eq(in(RTC_HOURS), 0x13);
    ck_assert_uint_eq(in(RTC_DAY_OF_WEEK), 1);
    ck_assert_uint_eq(in(RTC_DAY), 0x22);
    ck_assert_uint_eq(in(RTC_MONTH), 0x11);
    ck_assert_uint_eq(in(RTC_YEAR), 0x26);
    ck_assert_uint_eq(in(RTC_CENTURY), 0x20);
    pass(3 * SECOND / 4 - 1);
    ck_assert_uint_eq(in(RTC_SECONDS), 0x42);
    pass(1);
    ck_assert_uint_eq(in(RTC_SECONDS), 0x43);
    pass(11 * HOUR);
    ck_assert_uint_eq(in(RTC_DAY), 0x23);
    ck_assert_uint_eq(in(RTC_DAY_OF_WEEK), 2);
}
END_TEST

START_TEST(the_time_in_binary_and_on_a_dial_of_twelve)
{
    out(RTC_B, 0x06);
    ck_assert_uint_eq(in(RTC_HOURS), 13);
    ck_assert_uint_eq(in(RTC_SECONDS), 42);
    out(RTC_B, 0x04);
    ck_assert_uint_eq(in(RTC_HOURS), 0x81);
    out(RTC_B, 0x00);
    ck_assert_uint_eq(in(RTC_HOURS), 0x81);
    pass(10 * HOUR);
    ck_assert_uint_eq(in(RTC_HOURS), 0x91);
    pass(HOUR);
    ck_assert_uint_eq(in(RTC_HOURS), 0x12); /* midnight */
    pass(HOUR);
    ck_assert_uint_eq(in(RTC_HOURS), 0x01);
    pass(11 * HOUR);
    ck_assert_uint_eq(in(RTC_HOURS), 0x92); /* noon */
}
END_TEST

START_TEST(registers_a_to_d)
{
    out(RTC_A, 0xa6);
    ck_assert_uint_eq(in(RTC_A), 0x26); /* UIP cannot be written */
    out(RTC_C, 0xff);
    ck_assert_uint_eq(in(RTC_C), 0x00);
    out(RTC_D, 0x00);
    ck_assert_uint_eq(in(RTC_D), 0x80);
    ck_assert_uint_eq(mc146818_ops.read(&rtc, 0, 1), 0xff);
    mc146818_ops.write(&rtc, 0, 1, 0x80 | RTC_D); /* NMI mask */
    ck_assert_uint_eq(mc146818_ops.read(&rtc, 1, 1), 0x80);
}
END_TEST

START_TEST(uip_announces_the_update)
{
    ck_assert_uint_eq(in(RTC_A)&0x80, 0);
    pass(750000000 - 2228000 - 1);
    ck_assert_uint_eq(in(RTC_A)&0x80, 0);
    pass(1);
    ck_assert_uint_eq(in(RTC_A)&0x80, 0x80);
    pass(2227999);
    ck_assert_uint_eq(in(RTC_A)&0x80, 0x80);
    ck_assert_uint_eq(in(RTC_SECONDS), 0x42);
    pass(1);
    ck_assert_uint_eq(in(RTC_A)&0x80, 0);
    ck_assert_uint_eq(in(RTC_SECONDS), 0x43);
    out(RTC_B, 0x82); /* SET: no updates to announce */
    pass(SECOND - 1000);
    ck_assert_uint_eq(in(RTC_A)&0x80, 0);
}
END_TEST

START_TEST(setting_the_time)
{
    out(RTC_B, 0x92);
    ck_assert_uint_eq(in(RTC_B), 0x82); /* SET clears UIE */
    pass(10 * SECOND);
    ck_assert_uint_eq(in(RTC_SECONDS), 0x42); /* held */
    out(RTC_SECONDS, 0x59);
    out(RTC_MINUTES, 0x59);
    out(RTC_HOURS, 0x23);
    out(RTC_DAY, 0x28);
    out(RTC_MONTH, 0x02);
    out(RTC_YEAR, 0x24);
    out(RTC_CENTURY, 0x20);
    out(RTC_DAY_OF_WEEK, 7); /* whatever the calendar says */
    ck_assert_uint_eq(in(RTC_SECONDS), 0x59);
    out(RTC_B, 0x02);
    pass(SECOND);
    ck_assert_uint_eq(in(RTC_SECONDS), 0x00);
    ck_assert_uint_eq(in(RTC_HOURS), 0x00);
    ck_assert_uint_eq(in(RTC_DAY), 0x29); /* a leap year */
    ck_assert_uint_eq(in(RTC_DAY_OF_WEEK), 1);
    pass(24 * HOUR);
    ck_assert_uint_eq(in(RTC_DAY), 0x01);
    ck_assert_uint_eq(in(RTC_MONTH), 0x03);
    ck_assert_uint_eq(in(RTC_DAY_OF_WEEK), 2);
}
END_TEST

START_TEST(setting_one_register_of_a_running_clock)
{
    out(RTC_HOURS, 0x07);
    ck_assert_uint_eq(in(RTC_HOURS), 0x07);
    ck_assert_uint_eq(in(RTC_MINUTES), 0x37);
    pass(750000000);
    ck_assert_uint_eq(in(RTC_SECONDS), 0x43); /* the divider chain went on */
    out(RTC_CENTURY, 0x99);
    ck_assert_uint_eq(in(RTC_CENTURY), 0x99);
    ck_assert_uint_eq(in(RTC_YEAR), 0x26);
    ck_assert_uint_eq(in(RTC_DAY), 0x22);
}
END_TEST

START_TEST(the_divider_starts_half_a_second_before_an_update)
{
    out(RTC_A, 0x76);
    pass(5 * SECOND);
    ck_assert_uint_eq(in(RTC_SECONDS), 0x42);
    out(RTC_A, 0x26);
    pass(SECOND / 2 - 1);
    ck_assert_uint_eq(in(RTC_SECONDS), 0x42);
    pass(1);
    ck_assert_uint_eq(in(RTC_SECONDS), 0x43);
}
END_TEST

START_TEST(nonsense_becomes_some_date)
{
    out(RTC_B, 0x82);
    for (unsigned index = 0; index < 10; index++)
        out(index, 0xff);
    out(RTC_CENTURY, 0xff);
    out(RTC_B, 0x02);
    for (unsigned i = 0; i < 100; i++) {
        pass(3 * HOUR);
        ck_assert_uint_le(in(RTC_MONTH), 0x12);
        ck_assert_uint_ge(in(RTC_MONTH), 0x01);
        ck_assert_uint_le(in(RTC_HOURS), 0x23);
    }
    out(RTC_B, 0x82);
    for (unsigned index = 0; index < 10; index++)
        out(index, 0);
    out(RTC_CENTURY, 0);
    out(RTC_B, 0x02);
    pass(SECOND);
    ck_assert_uint_ge(in(RTC_DAY), 0x01);
}
END_TEST

START_TEST(the_update_interrupt)
{
    out(RTC_B, 0x12);
    ck_assert_uint_eq(clock_next_deadline(&fake.clock), 750000000);
    pass(750000000);
    ck_assert(irq8);
    ck_assert_uint_eq(clock_next_deadline(&fake.clock), CLOCK_NO_DEADLINE); /* until C is read */
    ck_assert_uint_eq(in(RTC_C)&0xf0, 0xd0); /* the periodic flag, at 1024 Hz, is set as well */
    ck_assert(!irq8);
    ck_assert_uint_eq(in(RTC_C), 0);
    pass(100 * SECOND); /* many, seen late: one interrupt */
    ck_assert(irq8);
    in(RTC_C);
    ck_assert_uint_eq(clock_next_deadline(&fake.clock), fake.now + SECOND);
}
END_TEST

START_TEST(the_periodic_interrupt)
{
    static const unsigned rates_hz[16] = {0,   256, 128, 8192, 4096, 2048, 1024, 512,
                                          256, 128, 64,  32,   16,   8,    4,    2};
    for (unsigned rate = 1; rate < 16; rate++) {
        setup();
        out(RTC_A, (uint8_t)(0x20 | rate));
        in(RTC_C);
        out(RTC_B, 0x42);
        unsigned interrupts = 0;
        while (clock_next_deadline(&fake.clock) <= 2 * SECOND) {
            fake_clock_run_to(&fake, clock_next_deadline(&fake.clock));
            ck_assert(irq8);
            ck_assert_uint_eq(in(RTC_C)&0xc0, 0xc0);
            ck_assert(!irq8);
            interrupts++;
        }
        ck_assert_uint_eq(interrupts, rates_hz[rate] * UINT64_C(2));
    }
    out(RTC_A, 0x20);
    ck_assert_uint_eq(clock_next_deadline(&fake.clock), CLOCK_NO_DEADLINE);
}
END_TEST

/* The guest looks when the interrupt is due, and the timer has not run yet. */
START_TEST(a_read_ahead_of_the_timer)
{
    out(RTC_A, 0x26);
    in(RTC_C);
    out(RTC_B, 0x42);
    fake.now = clock_next_deadline(&fake.clock);
    ck_assert(!irq8);
    ck_assert_uint_eq(in(RTC_C)&0xc0, 0xc0);
    ck_assert(!irq8);
    ck_assert_uint_eq(in(RTC_C), 0);
    ck_assert_uint_gt(clock_next_deadline(&fake.clock), fake.now);
}
END_TEST

START_TEST(the_alarm)
{
    out(RTC_HOURS_ALARM, 0x13);
    out(RTC_MINUTES_ALARM, 0x40);
    out(RTC_SECONDS_ALARM, 0x05);
    out(RTC_B, 0x22);
    uint64_t alarm = (2 * 60 + 23) * SECOND - 250000000; /* 13:37:42.25 to 13:40:05 */
    ck_assert_uint_eq(clock_next_deadline(&fake.clock), alarm);
    pass(alarm);
    ck_assert(irq8);
    ck_assert_uint_eq(in(RTC_C)&0xa0, 0xa0);
    ck_assert_uint_eq(clock_next_deadline(&fake.clock), alarm + 24 * HOUR);
    out(RTC_HOURS_ALARM, 0xc0); /* every hour */
    ck_assert_uint_eq(clock_next_deadline(&fake.clock), alarm + HOUR);
    out(RTC_MINUTES_ALARM, 0xff); /* every minute */
    ck_assert_uint_eq(clock_next_deadline(&fake.clock), alarm + MINUTE);
    out(RTC_SECONDS_ALARM, 0xff);
    ck_assert_uint_eq(clock_next_deadline(&fake.clock), alarm + SECOND);
    out(RTC_SECONDS_ALARM, 0x60); /* no such second */
    ck_assert_uint_eq(clock_next_deadline(&fake.clock), CLOCK_NO_DEADLINE);
}
END_TEST

START_TEST(an_alarm_of_tomorrow_and_of_the_twelve_hour_dial)
{
    out(RTC_B, 0x20); /* 12 hours */
    out(RTC_SECONDS_ALARM, 0x00);
    out(RTC_MINUTES_ALARM, 0x00);
    out(RTC_HOURS_ALARM, 0x12); /* midnight */
    uint64_t midnight = 10 * HOUR + 22 * MINUTE + 18 * SECOND - 250000000;
    ck_assert_uint_eq(clock_next_deadline(&fake.clock), midnight);
    out(RTC_HOURS_ALARM, 0x92); /* noon: tomorrow */
    ck_assert_uint_eq(clock_next_deadline(&fake.clock), midnight + 12 * HOUR);
}
END_TEST

START_TEST(flags_are_set_without_interrupts_too)
{
    out(RTC_SECONDS_ALARM, 0x44);
    out(RTC_MINUTES_ALARM, 0xff);
    out(RTC_HOURS_ALARM, 0xff);
    ck_assert_uint_eq(in(RTC_C), 0);
    pass(SECOND);
    ck_assert_uint_eq(in(RTC_C), 0x50);
    pass(SECOND);
    ck_assert_uint_eq(in(RTC_C), 0x70);
    ck_assert(!irq8);
    pass(60 * SECOND);
    out(RTC_B, 0x22); /* enabling an interrupt whose flag is set raises it */
    ck_assert(irq8);
    mc146818_reset(&rtc);
    ck_assert(!irq8);
    ck_assert_uint_eq(in(RTC_B), 0x02);
}
END_TEST

START_TEST(memory_sizes_as_firmware_reads_them)
{
    ck_assert_uint_eq(in_word(RTC_BASE_MEMORY), 640);
    ck_assert_uint_eq(in_word(RTC_EXTENDED_MEMORY), 64512);
    ck_assert_uint_eq(in_word(RTC_EXTENDED_MEMORY_2), 64512);
    ck_assert_uint_eq(in_word(RTC_HIGH_MEMORY), 768);
    power_on(0, UINT64_C(2) << 30);
    ck_assert_uint_eq(in_word(RTC_EXTENDED_MEMORY), 0xffff);
    ck_assert_uint_eq(in_word(RTC_HIGH_MEMORY), 32512);
    power_on(0, 512u << 10);
    ck_assert_uint_eq(in_word(RTC_BASE_MEMORY), 512);
    ck_assert_uint_eq(in_word(RTC_EXTENDED_MEMORY), 0);
    ck_assert_uint_eq(in_word(RTC_HIGH_MEMORY), 0);
}
END_TEST

START_TEST(memory_survives_a_reset)
{
    out(RTC_SHUTDOWN, 0x0a);
    out(0x7f, 0x5a);
    mc146818_reset(&rtc);
    ck_assert_uint_eq(in(RTC_SHUTDOWN), 0x0a);
    ck_assert_uint_eq(in(0x7f), 0x5a);
    ck_assert_uint_eq(in(RTC_HOURS), 0x13);
}
END_TEST

START_TEST(power_on_before_1970)
{
    power_on(-1, 64u << 20); /* one nanosecond */
    ck_assert_uint_eq(in(RTC_YEAR), 0x69);
    ck_assert_uint_eq(in(RTC_SECONDS), 0x59);
    pass(1);
    ck_assert_uint_eq(in(RTC_YEAR), 0x70);
    ck_assert_uint_eq(in(RTC_DAY), 0x01);
    ck_assert_uint_eq(in(RTC_DAY_OF_WEEK), 5);
}
END_TEST

START_TEST(the_calendar_agrees_with_libc)
{
    for (int64_t t = -INT64_C(62000000000); t < INT64_C(250000000000); t += 86400 * 197 + 5077) {
        time_t libc_time = (time_t)t;
        struct tm tm;
        ck_assert_ptr_nonnull(gmtime_r(&libc_time, &tm));
        struct calendar_time time = calendar_from_unix(t);
        ck_assert_uint_eq(time.year, (uint32_t)tm.tm_year + 1900);
        ck_assert_uint_eq(time.month, (uint32_t)tm.tm_mon + 1);
        ck_assert_uint_eq(time.day, (uint32_t)tm.tm_mday);
        ck_assert_uint_eq(time.hour, (uint32_t)tm.tm_hour);
        ck_assert_uint_eq(time.minute, (uint32_t)tm.tm_min);
        ck_assert_uint_eq(time.second, (uint32_t)tm.tm_sec);
        ck_assert_uint_eq(time.day_of_week, (uint32_t)tm.tm_wday);
        ck_assert_int_eq(calendar_to_unix(&time), t);
    }
}
END_TEST

START_TEST(any_sequence_of_writes_is_survived)
{
    uint32_t seed = 1;
    for (unsigned i = 0; i < 20000; i++) {
        seed = seed * 1664525 + 1013904223;
        unsigned index = seed >> 28;
        if (index == 14)
            index = RTC_CENTURY;
        if (seed >> 8 & 1)
            out(index, (uint8_t)(seed >> 16));
        else
            in(index);
        pass((uint64_t)(seed >> 10 & 0xffff) << (seed >> 27));
        ck_assert_uint_gt(clock_next_deadline(&fake.clock), fake.now);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("mc146818");
    TCase *tests = tcase_create("mc146818");
    tcase_add_checked_fixture(tests, setup, NULL);
    tcase_add_test(tests, the_time_in_bcd);
    tcase_add_test(tests, the_time_in_binary_and_on_a_dial_of_twelve);
    tcase_add_test(tests, registers_a_to_d);
    tcase_add_test(tests, uip_announces_the_update);
    tcase_add_test(tests, setting_the_time);
    tcase_add_test(tests, setting_one_register_of_a_running_clock);
    tcase_add_test(tests, the_divider_starts_half_a_second_before_an_update);
    tcase_add_test(tests, nonsense_becomes_some_date);
    tcase_add_test(tests, the_update_interrupt);
    tcase_add_test(tests, the_periodic_interrupt);
    tcase_add_test(tests, a_read_ahead_of_the_timer);
    tcase_add_test(tests, the_alarm);
    tcase_add_test(tests, an_alarm_of_tomorrow_and_of_the_twelve_hour_dial);
    tcase_add_test(tests, flags_are_set_without_interrupts_too);
    tcase_add_test(tests, memory_sizes_as_firmware_reads_them);
    tcase_add_test(tests, memory_survives_a_reset);
    tcase_add_test(tests, power_on_before_1970);
    tcase_add_test(tests, the_calendar_agrees_with_libc);
    tcase_add_test(tests, any_sequence_of_writes_is_survived);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
