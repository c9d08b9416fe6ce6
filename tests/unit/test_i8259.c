/* The 8259A pair, mode by mode, as the data sheet describes it. */
#include "devices/i8259.h"

#include <check.h>
#include <stdlib.h>

static struct i8259_pair pic;
static bool intr;

static void intr_set(void *ctx, unsigned pin, bool level)
{
    (void)ctx;
    (void)pin;
    intr = level;
}

static void out(uint16_t port, uint8_t value)
{
    const struct bus_device_ops *ops = port >= I8259_ELCR_PORT    ? &i8259_elcr_ops
                                       : port >= I8259_SLAVE_PORT ? &i8259_slave_ops
                                                                  : &i8259_master_ops;
    ops->write(&pic, port & 1, 1, value);
}

static uint8_t in(uint16_t port)
{
    const struct bus_device_ops *ops = port >= I8259_ELCR_PORT    ? &i8259_elcr_ops
                                       : port >= I8259_SLAVE_PORT ? &i8259_slave_ops
                                                                  : &i8259_master_ops;
    return (uint8_t)ops->read(&pic, port & 1, 1);
}

static void initialise(uint8_t master_icw4, uint8_t slave_icw4)
{
    out(0x20, 0x11);
    out(0x21, 0x20);
    out(0x21, 0x04);
    out(0x21, master_icw4);
    out(0xa0, 0x11);
    out(0xa1, 0x28);
    out(0xa1, 0x02);
    out(0xa1, slave_icw4);
}

static void setup(void)
{
    intr = false;
    i8259_init(&pic, (struct irq_line){.set = intr_set});
    initialise(0x01, 0x01);
}

static void raise(unsigned irq)
{
    i8259_set_pin(&pic, irq, true);
}

static void drop(unsigned irq)
{
    i8259_set_pin(&pic, irq, false);
}

static uint8_t master_irr(void)
{
    out(0x20, 0x0a);
    return in(0x20);
}

static uint8_t master_isr(void)
{
    out(0x20, 0x0b);
    return in(0x20);
}

START_TEST(nothing_interrupts_before_initialisation)
{
    i8259_reset(&pic);
    raise(1);
    ck_assert(!intr);
    ck_assert_uint_eq(master_irr(), 0x02);
}
END_TEST

START_TEST(an_edge_requests_once)
{
    raise(1);
    ck_assert(intr && i8259_intr(&pic));
    ck_assert_uint_eq(i8259_acknowledge(&pic), 0x21);
    ck_assert(!intr);
    ck_assert_uint_eq(master_isr(), 0x02);
    ck_assert_uint_eq(master_irr(), 0x00); /* though the line is still high */
    out(0x20, 0x20);
    ck_assert_uint_eq(master_isr(), 0);
    ck_assert(!intr);
    drop(1);
    raise(1);
    ck_assert(intr);
}
END_TEST

START_TEST(a_level_input_requests_until_it_falls)
{
    out(0x4d0, 0xff);
    out(0x4d1, 0xff);
    ck_assert_uint_eq(in(0x4d0), 0xf8); /* timer, keyboard and cascade stay edge-triggered */
    ck_assert_uint_eq(in(0x4d1), 0xde); /* so do RTC and coprocessor */
    raise(5);
    ck_assert_uint_eq(i8259_acknowledge(&pic), 0x25);
    ck_assert(!intr);
    out(0x20, 0x20);
    ck_assert(intr);
    ck_assert_uint_eq(i8259_acknowledge(&pic), 0x25);
    drop(5);
    out(0x20, 0x20);
    ck_assert(!intr);
}
END_TEST

START_TEST(a_request_that_falls_away_is_spurious)
{
    raise(3);
    drop(3);
    ck_assert(!intr);
    ck_assert_uint_eq(i8259_acknowledge(&pic), 0x27);
    ck_assert_uint_eq(master_isr(), 0); /* which is how a handler tells it from a real one */
}
END_TEST

START_TEST(a_spurious_request_of_the_slave_leaves_the_master_in_service)
{
    /* The slave's request falls between the two halves of the cycle, after the master has latched it. */
    raise(10);
    pic.slave.lines = 0;
    ck_assert_uint_eq(i8259_acknowledge(&pic), 0x2f);
    ck_assert_uint_eq(master_isr(), 0x04);
    out(0xa0, 0x0b);
    ck_assert_uint_eq(in(0xa0), 0);
}
END_TEST

START_TEST(higher_priority_nests_and_lower_waits)
{
    raise(4);
    ck_assert_uint_eq(i8259_acknowledge(&pic), 0x24);
    raise(6);
    ck_assert(!intr);
    raise(0);
    ck_assert(intr);
    ck_assert_uint_eq(i8259_acknowledge(&pic), 0x20);
    ck_assert_uint_eq(master_isr(), 0x11);
    out(0x20, 0x20); /* non-specific: the highest in service, IR0 */
    ck_assert_uint_eq(master_isr(), 0x10);
    ck_assert(!intr);
    out(0x20, 0x20);
    ck_assert(intr);
    ck_assert_uint_eq(i8259_acknowledge(&pic), 0x26);
}
END_TEST

START_TEST(the_mask_holds_a_request_back_but_keeps_it)
{
    out(0x21, 0x02);
    ck_assert_uint_eq(in(0x21), 0x02);
    raise(1);
    ck_assert(!intr);
    ck_assert_uint_eq(master_irr(), 0x02);
    out(0x21, 0x00);
    ck_assert(intr);
    out(0x21, 0x02);
    ck_assert(!intr);
}
END_TEST

START_TEST(the_slave_comes_through_the_cascade)
{
    raise(14);
    ck_assert(intr);
    ck_assert_uint_eq(master_irr(), 0x04);
    raise(8);
    ck_assert_uint_eq(i8259_acknowledge(&pic), 0x28); /* IR8 before IR14 */
    ck_assert(!intr);
    out(0xa0, 0x20);
    ck_assert(!intr); /* the master's own bit is still in service */
    out(0x20, 0x20);
    ck_assert(intr);
    ck_assert_uint_eq(i8259_acknowledge(&pic), 0x2e);
}
END_TEST

START_TEST(no_card_drives_the_cascade_pin)
{
    raise(2);
    ck_assert(!intr);
    raise(9); /* the AT's IRQ2 */
    ck_assert_uint_eq(i8259_acknowledge(&pic), 0x29);
}
END_TEST

START_TEST(special_fully_nested_mode_lets_the_slave_nest)
{
    initialise(0x01, 0x01);
    raise(12);
    ck_assert_uint_eq(i8259_acknowledge(&pic), 0x2c);
    raise(8);
    ck_assert(!intr); /* normally the master's bit 2 blocks its own slave */

    setup();
    initialise(0x11, 0x01);
    raise(12);
    ck_assert_uint_eq(i8259_acknowledge(&pic), 0x2c);
    raise(14);
    ck_assert(!intr);
    raise(8);
    ck_assert(intr);
    ck_assert_uint_eq(i8259_acknowledge(&pic), 0x28);
    raise(3); /* lower than the cascade */
    ck_assert(!intr);
}
END_TEST

START_TEST(automatic_eoi_leaves_nothing_in_service)
{
    initialise(0x03, 0x03);
    raise(12);
    raise(14);
    ck_assert_uint_eq(i8259_acknowledge(&pic), 0x2c);
    ck_assert_uint_eq(master_isr(), 0);
    ck_assert(intr); /* the slave's second request is a new edge for the master */
    ck_assert_uint_eq(i8259_acknowledge(&pic), 0x2e);
    ck_assert(!intr);
}
END_TEST

START_TEST(specific_eoi_and_rotation)
{
    raise(4);
    i8259_acknowledge(&pic);
    raise(1);
    i8259_acknowledge(&pic);
    out(0x20, 0x64); /* specific EOI for 4, not the highest */
    ck_assert_uint_eq(master_isr(), 0x02);
    out(0x20, 0xa0); /* rotate on non-specific EOI: IR1 becomes lowest, IR2 highest */
    ck_assert_uint_eq(pic.master.lowest, 1);
    drop(1);
    raise(1);
    raise(7);
    ck_assert_uint_eq(i8259_acknowledge(&pic), 0x27);
    out(0x20, 0xe7); /* rotate on specific EOI: IR7 lowest, the normal order */
    ck_assert_uint_eq(i8259_acknowledge(&pic), 0x21);
    out(0x20, 0x20);
    out(0x20, 0xc5); /* set priority: IR5 lowest, IR6 highest */
    drop(1);
    raise(1);
    raise(6);
    ck_assert_uint_eq(i8259_acknowledge(&pic), 0x26);
    out(0x20, 0x40); /* no operation */
    ck_assert_uint_eq(master_isr(), 0x40);
}
END_TEST

START_TEST(rotation_in_automatic_eoi_mode)
{
    initialise(0x03, 0x01);
    out(0x20, 0x80);
    raise(3);
    i8259_acknowledge(&pic);
    ck_assert_uint_eq(pic.master.lowest, 3);
    out(0x20, 0x00);
    raise(5);
    i8259_acknowledge(&pic);
    ck_assert_uint_eq(pic.master.lowest, 3);
}
END_TEST

START_TEST(special_mask_mode_enables_lower_levels)
{
    raise(3);
    i8259_acknowledge(&pic);
    raise(6);
    ck_assert(!intr);
    out(0x21, 0x08);
    out(0x20, 0x68);
    ck_assert(intr);
    out(0x20, 0x20); /* non-specific: bit 3 is masked and stays */
    ck_assert_uint_eq(master_isr(), 0x08);
    out(0x20, 0x48);
    ck_assert(!intr);
    out(0x20, 0x20);
    ck_assert_uint_eq(master_isr(), 0x00);
}
END_TEST

START_TEST(poll_mode_acknowledges_by_reading)
{
    out(0x20, 0x0c);
    ck_assert_uint_eq(in(0x20), 0x00);
    raise(4);
    out(0x20, 0x0c);
    ck_assert_uint_eq(in(0x20), 0x84);
    ck_assert(!intr);
    ck_assert_uint_eq(master_isr(), 0x10);
    out(0x20, 0x20);
    raise(11);
    out(0x20, 0x0c);
    ck_assert_uint_eq(in(0x21), 0x82); /* the next read, whatever the port */
    out(0xa0, 0x0c);
    ck_assert_uint_eq(in(0xa0), 0x83);
    ck_assert_uint_eq(in(0x21), 0x00); /* the mask again */
}
END_TEST

START_TEST(icw1_starts_afresh)
{
    out(0x20, 0x0b);
    out(0x21, 0x55);
    raise(1);
    i8259_acknowledge(&pic);
    raise(3);
    out(0x20, 0xc3);
    initialise(0x01, 0x01);
    ck_assert_uint_eq(in(0x20), 0x00); /* IRR again, and the edge of IR3 is forgotten */
    ck_assert_uint_eq(in(0x21), 0x00);
    ck_assert_uint_eq(master_isr(), 0x00);
    ck_assert_uint_eq(pic.master.lowest, 7);
    ck_assert(!intr);
    drop(3);
    raise(3);
    ck_assert_uint_eq(i8259_acknowledge(&pic), 0x23);
}
END_TEST

START_TEST(a_single_chip_without_icw4_needs_icw2_only)
{
    out(0x20, 0x12);
    out(0x21, 0x4f); /* the low three bits are not part of the base */
    out(0x21, 0xfd);
    ck_assert_uint_eq(in(0x21), 0xfd);
    raise(1);
    ck_assert_uint_eq(i8259_acknowledge(&pic), 0x49);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("i8259");
    TCase *tests = tcase_create("i8259");
    tcase_add_checked_fixture(tests, setup, NULL);
    tcase_add_test(tests, nothing_interrupts_before_initialisation);
    tcase_add_test(tests, an_edge_requests_once);
    tcase_add_test(tests, a_level_input_requests_until_it_falls);
    tcase_add_test(tests, a_request_that_falls_away_is_spurious);
    tcase_add_test(tests, a_spurious_request_of_the_slave_leaves_the_master_in_service);
    tcase_add_test(tests, higher_priority_nests_and_lower_waits);
    tcase_add_test(tests, the_mask_holds_a_request_back_but_keeps_it);
    tcase_add_test(tests, the_slave_comes_through_the_cascade);
    tcase_add_test(tests, no_card_drives_the_cascade_pin);
    tcase_add_test(tests, special_fully_nested_mode_lets_the_slave_nest);
    tcase_add_test(tests, automatic_eoi_leaves_nothing_in_service);
    tcase_add_test(tests, specific_eoi_and_rotation);
    tcase_add_test(tests, rotation_in_automatic_eoi_mode);
    tcase_add_test(tests, special_mask_mode_enables_lower_levels);
    tcase_add_test(tests, poll_mode_acknowledges_by_reading);
    tcase_add_test(tests, icw1_starts_afresh);
    tcase_add_test(tests, a_single_chip_without_icw4_needs_icw2_only);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
