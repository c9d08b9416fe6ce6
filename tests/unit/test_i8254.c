/* The 8254's modes at exact CLK pulses, its bus protocol, and port 0x61. */
#include "devices/i8254.h"

#include "unit/fake_clock.h"

#include <check.h>
#include <stdlib.h>

static struct fake_clock fake;
static struct i8254 pit;
static bool irq0;
static unsigned irq0_rises;

static void irq0_set(void *ctx, unsigned pin, bool level)
{
    (void)ctx;
    (void)pin;
    if (level && !irq0)
        irq0_rises++;
    irq0 = level;
}

static void setup(void)
{
    irq0 = false;
    irq0_rises = 0;
    fake_clock_init(&fake);
    i8254_init(&pit, &fake.clock, (struct irq_line){.set = irq0_set});
}

static void out(unsigned port, uint8_t value)
{
    i8254_ops.write(&pit, port - I8254_PORT, 1, value);
}

static uint8_t in(unsigned port)
{
    return (uint8_t)i8254_ops.read(&pit, port - I8254_PORT, 1);
}

static void out61(uint8_t value)
{
    i8254_port_b_ops.write(&pit, 0, 1, value);
}

static uint8_t in61(void)
{
    return (uint8_t)i8254_port_b_ops.read(&pit, 0, 1);
}

/* Time as pulses of CLK. */
static void at(uint64_t pulse)
{
    fake_clock_run_to(&fake, clock_from_ticks(pulse, I8254_HZ));
}

static void program(unsigned channel, unsigned mode, uint16_t count)
{
    out(0x43, (uint8_t)(channel << 6 | 0x30 | mode << 1));
    out(0x40 + channel, (uint8_t)count);
    out(0x40 + channel, (uint8_t)(count >> 8));
}

static uint16_t latched_count(unsigned channel)
{
    out(0x43, (uint8_t)(channel << 6));
    uint8_t low = in(0x40 + channel);
    return (uint16_t)(in(0x40 + channel) << 8 | low);
}

static uint8_t status(unsigned channel)
{
    out(0x43, (uint8_t)(0xe0 | 2u << channel));
    return in(0x40 + channel);
}

static bool out_pin(unsigned channel)
{
    return status(channel) & 0x80;
}

START_TEST(nothing_counts_after_power_on)
{
    ck_assert_uint_eq(clock_next_deadline(&fake.clock), CLOCK_NO_DEADLINE);
    at(1000000);
    ck_assert_uint_eq(irq0_rises, 0);
    ck_assert_uint_eq(in(0x43), 0xff);
}
END_TEST

START_TEST(mode_0_interrupts_once_on_terminal_count)
{
    at(100);
    program(0, 0, 4);
    ck_assert(!irq0);
    at(101); /* loaded */
    ck_assert_uint_eq(latched_count(0), 4);
    at(104);
    ck_assert_uint_eq(latched_count(0), 1);
    ck_assert(!irq0);
    at(105); /* N + 1 pulses after the count was written */
    ck_assert(irq0);
    at(106);
    ck_assert_uint_eq(latched_count(0), 0xffff); /* counting goes on */
    at(200000);
    ck_assert_uint_eq(irq0_rises, 1);
    out(0x40, 2); /* the first byte of a new count lowers OUT, the second starts again */
    ck_assert(!irq0);
    at(200010);
    out(0x40, 0);
    at(200012);
    ck_assert(!irq0);
    at(200013);
    ck_assert(irq0);
}
END_TEST

START_TEST(mode_0_stops_while_the_gate_is_low)
{
    out61(1);
    program(2, 0, 10);
    at(5); /* 4 counted */
    out61(0);
    at(1000);
    ck_assert_uint_eq(latched_count(2), 6);
    out61(1);
    at(1005);
    ck_assert_uint_eq(latched_count(2), 1);
    ck_assert(!out_pin(2));
    at(1006);
    ck_assert(out_pin(2));
    out61(0); /* and keeps what it has */
    ck_assert(out_pin(2));
}
END_TEST

START_TEST(mode_1_is_a_retriggerable_one_shot)
{
    program(2, 1, 10);
    ck_assert(out_pin(2));
    ck_assert(status(2) & 0x40); /* not loaded before the trigger */
    at(50);
    out61(1);
    ck_assert(out_pin(2));
    at(51);
    ck_assert(!out_pin(2));
    ck_assert(!(status(2) & 0x40));
    out61(0); /* the gate's level does not matter */
    at(58);
    out61(1); /* its edge does */
    ck_assert(!out_pin(2));
    at(68);
    ck_assert(!out_pin(2));
    at(69);
    ck_assert(out_pin(2));
    at(100);
    ck_assert(out_pin(2));
}
END_TEST

START_TEST(mode_2_divides_by_n)
{
    program(0, 2, 5);
    unsigned rises = irq0_rises; /* OUT went high with the control word */
    at(1);
    ck_assert_uint_eq(latched_count(0), 5);
    for (unsigned period = 0; period < 4; period++) {
        at(1 + 5 * period + 3);
        ck_assert_uint_eq(latched_count(0), 2);
        ck_assert(irq0);
        at(1 + 5 * period + 4);
        ck_assert_uint_eq(latched_count(0), 1);
        ck_assert(!irq0);
        at(1 + 5 * period + 5);
        ck_assert_uint_eq(latched_count(0), 5);
        ck_assert(irq0);
        ck_assert_uint_eq(irq0_rises, rises + period + 1);
    }
}
END_TEST

START_TEST(a_late_run_gives_one_edge_however_many_periods_passed)
{
    program(0, 2, 2);
    unsigned rises = irq0_rises;
    at(1000001);
    ck_assert(irq0);
    ck_assert_uint_eq(irq0_rises, rises + 1);
    ck_assert_uint_eq(clock_next_deadline(&fake.clock), clock_from_ticks(1000002, I8254_HZ));
}
END_TEST

START_TEST(mode_2_takes_a_new_count_at_the_end_of_the_period)
{
    program(0, 2, 10);
    at(4);
    out(0x40, 6);
    out(0x40, 0);
    ck_assert(status(0) & 0x40);
    at(10);
    ck_assert_uint_eq(latched_count(0), 1);
    at(11);
    ck_assert_uint_eq(latched_count(0), 6);
    ck_assert(!(status(0) & 0x40));
    at(16);
    ck_assert(!irq0);
    at(17);
    ck_assert(irq0);
}
END_TEST

START_TEST(mode_2_restarts_with_the_gate)
{
    out61(1);
    program(2, 2, 10);
    at(10); /* the low pulse */
    ck_assert(!out_pin(2));
    out61(0);
    ck_assert(out_pin(2));
    at(500);
    ck_assert_uint_eq(latched_count(2), 1);
    out61(1);
    at(501);
    ck_assert_uint_eq(latched_count(2), 10);
    at(509);
    ck_assert(out_pin(2));
    at(510);
    ck_assert(!out_pin(2));
}
END_TEST

START_TEST(mode_3_is_a_square_wave)
{
    program(0, 3, 6);
    static const uint16_t even_counts[] = {6, 4, 2, 6, 4, 2};
    for (unsigned i = 0; i < 12; i++) {
        at(1 + i);
        ck_assert_uint_eq(latched_count(0), even_counts[i % 6]);
        ck_assert_int_eq(irq0, i % 6 < 3);
    }
    setup();
    program(0, 3, 5); /* odd: high for one pulse more */
    static const uint16_t odd_counts[] = {4, 2, 0, 4, 2};
    for (unsigned i = 0; i < 10; i++) {
        at(1 + i);
        ck_assert_uint_eq(latched_count(0), odd_counts[i % 5]);
        ck_assert_int_eq(irq0, i % 5 < 3);
    }
}
END_TEST

START_TEST(mode_3_takes_a_new_count_at_the_end_of_the_half_period)
{
    program(0, 3, 20);
    at(5);
    out(0x40, 8);
    out(0x40, 0);
    at(10);
    ck_assert(irq0);
    at(11); /* the low half is already a new one: 4 pulses */
    ck_assert(!irq0);
    ck_assert_uint_eq(latched_count(0), 8);
    at(14);
    ck_assert(!irq0);
    at(15);
    ck_assert(irq0);
    at(19);
    ck_assert(!irq0);

    at(20);
    out(0x40, 10);
    out(0x40, 0);
    at(1000); /* the reload, and many periods since, in one step: high from 23 on, 5 and 5 */
    ck_assert_int_eq(irq0, (1000 - 23) % 10 < 5);
    ck_assert_uint_eq(latched_count(0), 10 - 2 * ((1000 - 23) % 5));
}
END_TEST

START_TEST(mode_4_strobes_once)
{
    program(0, 4, 3);
    unsigned rises = irq0_rises;
    at(3);
    ck_assert(irq0);
    at(4); /* low for one pulse, N + 1 after the count was written */
    ck_assert(!irq0);
    at(5);
    ck_assert(irq0);
    at(500);
    ck_assert_uint_eq(irq0_rises, rises + 1);
    out(0x40, 3);
    out(0x40, 0);
    at(1000); /* low and high again since the last look: still an edge */
    ck_assert(irq0);
    ck_assert_uint_eq(irq0_rises, rises + 2);
}
END_TEST

START_TEST(mode_5_strobes_after_a_trigger)
{
    program(2, 5, 3);
    at(100);
    ck_assert(out_pin(2));
    out61(1);
    at(103);
    ck_assert(out_pin(2));
    at(104);
    ck_assert(!out_pin(2));
    at(105);
    ck_assert(out_pin(2));
}
END_TEST

START_TEST(a_count_of_0_is_the_largest)
{
    program(0, 2, 0);
    at(1);
    ck_assert_uint_eq(latched_count(0), 0);
    at(2);
    ck_assert_uint_eq(latched_count(0), 0xffff);
    at(65536);
    ck_assert(!irq0);
    at(65537);
    ck_assert(irq0);
    out(0x43, 0x35); /* mode 2, BCD */
    out(0x40, 0);
    out(0x40, 0);
    at(65538 + 1);
    ck_assert_uint_eq(latched_count(0), 0x9999);
    at(65538 + 9999);
    ck_assert_uint_eq(latched_count(0), 0x0001);
    ck_assert(!irq0);
}
END_TEST

START_TEST(bcd_counts_in_decimal)
{
    out(0x43, 0x31); /* mode 0, BCD */
    out(0x40, 0x00);
    out(0x40, 0x12);
    at(2);
    ck_assert_uint_eq(latched_count(0), 0x1199);
    at(1200);
    ck_assert_uint_eq(latched_count(0), 0x0001);
    at(1202);
    ck_assert(irq0);
    ck_assert_uint_eq(latched_count(0), 0x9999);
    out(0x40, 0xff); /* no decimal number: no harm */
    out(0x40, 0xff);
    at(1203);
    latched_count(0);
    at(1203 + 16665);
    ck_assert(irq0);
}
END_TEST

START_TEST(forbidden_counts_of_1_do_no_harm)
{
    program(0, 2, 1);
    at(100);
    program(0, 3, 1);
    at(200);
    latched_count(0);
    program(0, 0, 1);
    at(202);
    ck_assert(irq0);
}
END_TEST

START_TEST(the_count_goes_through_the_port_as_the_control_word_says)
{
    out(0x43, 0x14); /* channel 0, LSB only, mode 2 */
    out(0x40, 0x80);
    at(1);
    ck_assert_uint_eq(in(0x40), 0x80);
    ck_assert_uint_eq(in(0x40), 0x80);
    out(0x43, 0x24); /* MSB only */
    out(0x40, 0x02);
    at(2);
    ck_assert_uint_eq(in(0x40), 0x02);
    at(3);
    ck_assert_uint_eq(in(0x40), 0x01);
}
END_TEST

START_TEST(a_latched_count_stays_until_it_is_read)
{
    program(0, 2, 0x1234);
    at(1);
    out(0x43, 0x00);
    at(100);
    out(0x43, 0x00); /* ignored: one is latched */
    ck_assert_uint_eq(in(0x40), 0x34);
    ck_assert_uint_eq(in(0x40), 0x12);
    ck_assert_uint_eq(in(0x40), (uint8_t)(0x1234 - 99));
    ck_assert_uint_eq(in(0x40), 0x11);
}
END_TEST

START_TEST(read_back_latches_status_and_count_of_several_channels)
{
    out61(1);
    program(0, 2, 0x100);
    program(2, 3, 0x200);
    at(1);
    out(0x43, 0xc0 | 2 | 8); /* both, of channels 0 and 2 */
    at(50);
    ck_assert_uint_eq(in(0x40), 0xb4); /* OUT, LSB/MSB, mode 2: the status comes first */
    ck_assert_uint_eq(in(0x40), 0x00);
    ck_assert_uint_eq(in(0x40), 0x01);
    ck_assert_uint_eq(in(0x42), 0xb6);
    ck_assert_uint_eq(in(0x42), 0x00);
    ck_assert_uint_eq(in(0x42), 0x02);
}
END_TEST

START_TEST(port_61_shows_and_gates_channel_2)
{
    /* How kernels calibrate: count down 1000 pulses with the speaker off, wait for OUT2. */
    ck_assert_uint_eq(in61() & 0x2f, 0);
    out61(0xfd); /* gate on, speaker off; the upper bits cannot be written */
    ck_assert_uint_eq(in61() & 0xcf, 0x0d);
    program(2, 0, 1000);
    at(1000);
    ck_assert_uint_eq(in61() & 0x20, 0);
    at(1001);
    ck_assert_uint_eq(in61() & 0x20, 0x20);
}
END_TEST

START_TEST(the_refresh_bit_toggles_about_every_15_us)
{
    unsigned toggles = 0;
    uint8_t last = in61() & 0x10;
    for (fake.now = 0; fake.now < 1000000; fake.now += 1000) {
        uint8_t bit = in61() & 0x10;
        toggles += bit != last;
        last = bit;
    }
    ck_assert_uint_eq(toggles, 66); /* 1 ms / 15.085 us */
}
END_TEST

START_TEST(linux_periodic_tick_has_no_drift)
{
    program(0, 2, 11932); /* HZ=100 */
    unsigned rises = irq0_rises;
    while (clock_next_deadline(&fake.clock) <= UINT64_C(100000000000)) {
        fake_clock_run_to(&fake, clock_next_deadline(&fake.clock));
    }
    ck_assert_uint_eq(irq0_rises - rises, 100u * I8254_HZ / 11932);
}
END_TEST

START_TEST(any_sequence_of_writes_is_survived)
{
    uint32_t seed = 1;
    for (unsigned i = 0; i < 200000; i++) {
        seed = seed * 1664525 + 1013904223;
        unsigned port = seed >> 30, value = seed >> 16 & 0xff;
        if (seed >> 8 & 1)
            out(0x40 + port, (uint8_t)value);
        else if (seed >> 9 & 1)
            in(0x40 + port);
        else
            out61((uint8_t)value);
        fake.now += seed >> 10 & 0x3fff;
        clock_run(&fake.clock);
        ck_assert_uint_gt(clock_next_deadline(&fake.clock), fake.now);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("i8254");
    TCase *tests = tcase_create("i8254");
    tcase_add_checked_fixture(tests, setup, NULL);
    tcase_add_test(tests, nothing_counts_after_power_on);
    tcase_add_test(tests, mode_0_interrupts_once_on_terminal_count);
    tcase_add_test(tests, mode_0_stops_while_the_gate_is_low);
    tcase_add_test(tests, mode_1_is_a_retriggerable_one_shot);
    tcase_add_test(tests, mode_2_divides_by_n);
    tcase_add_test(tests, a_late_run_gives_one_edge_however_many_periods_passed);
    tcase_add_test(tests, mode_2_takes_a_new_count_at_the_end_of_the_period);
    tcase_add_test(tests, mode_2_restarts_with_the_gate);
    tcase_add_test(tests, mode_3_is_a_square_wave);
    tcase_add_test(tests, mode_3_takes_a_new_count_at_the_end_of_the_half_period);
    tcase_add_test(tests, mode_4_strobes_once);
    tcase_add_test(tests, mode_5_strobes_after_a_trigger);
    tcase_add_test(tests, a_count_of_0_is_the_largest);
    tcase_add_test(tests, bcd_counts_in_decimal);
    tcase_add_test(tests, forbidden_counts_of_1_do_no_harm);
    tcase_add_test(tests, the_count_goes_through_the_port_as_the_control_word_says);
    tcase_add_test(tests, a_latched_count_stays_until_it_is_read);
    tcase_add_test(tests, read_back_latches_status_and_count_of_several_channels);
    tcase_add_test(tests, port_61_shows_and_gates_channel_2);
    tcase_add_test(tests, the_refresh_bit_toggles_about_every_15_us);
    tcase_add_test(tests, linux_periodic_tick_has_no_drift);
    tcase_add_test(tests, any_sequence_of_writes_is_survived);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
