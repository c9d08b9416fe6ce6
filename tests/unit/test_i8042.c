/* The keyboard controller and the keyboard: commands, typing, interrupts, reset and A20. */
#include "devices/i8042.h"
#include "devices/scancodes.h"

#include <check.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

static struct i8042 kbc;
static bool irq1;
static unsigned irq1_rises, resets;

static void irq1_set(void *ctx, unsigned pin, bool level)
{
    (void)ctx;
    (void)pin;
    irq1_rises += level && !irq1;
    irq1 = level;
}

static void reset(void *ctx, const char *why)
{
    (void)ctx;
    ck_assert_ptr_nonnull(strstr(why, "RESET"));
    resets++;
}

static const struct board_host host = {.reset = reset};

static void setup(void)
{
    irq1 = false;
    irq1_rises = resets = 0;
    i8042_init(&kbc, (struct irq_line){.set = irq1_set}, &host);
}

static uint8_t in60(void)
{
    return (uint8_t)i8042_data_ops.read(&kbc, 0, 1);
}

static uint8_t in64(void)
{
    return (uint8_t)i8042_command_ops.read(&kbc, 0, 1);
}

static void out60(uint8_t value)
{
    i8042_data_ops.write(&kbc, 0, 1, value);
}

static void out64(uint8_t value)
{
    i8042_command_ops.write(&kbc, 0, 1, value);
}

/* Reads the output buffer until it is empty and compares. */
static void assert_bytes(unsigned n, ...)
{
    va_list bytes;

    va_start(bytes, n);
    for (unsigned i = 0; i < n; i++) {
        ck_assert_uint_eq(in64() & 0x21, 0x01);
        ck_assert_uint_eq(in60(), (unsigned)va_arg(bytes, int));
    }
    va_end(bytes);
    ck_assert_uint_eq(in64() & 0x01, 0);
}

START_TEST(power_on)
{
    ck_assert_uint_eq(in64(), 0x14); /* unlocked, self test passed, nothing to read */
    out64(0x20);
    assert_bytes(1, 0x65);
    ck_assert(kbc.a20_enabled);
    ck_assert(!kbc.attended);
}
END_TEST

START_TEST(self_tests_and_ports)
{
    out64(0xaa);
    ck_assert_uint_eq(in64() & 0x08, 0x08); /* the last write was a command */
    assert_bytes(1, 0x55);
    out64(0xab);
    assert_bytes(1, 0x00);
    out64(0xc0);
    assert_bytes(1, 0xa0);
    out64(0xd0);
    assert_bytes(1, 0xc3);
    out64(0xe0);
    assert_bytes(1, 0x03);
    out64(0xa4);
    assert_bytes(1, 0xf1);
    out64(0xb7); /* no such command */
    assert_bytes(0);
}
END_TEST

START_TEST(the_command_byte_and_memory)
{
    out64(0x60);
    out60(0x44);
    ck_assert_uint_eq(in64() & 0x08, 0);
    out64(0x20);
    assert_bytes(1, 0x64); /* the auxiliary interface cannot be enabled */
    out64(0x7f);
    out60(0x5a);
    out64(0x3f);
    assert_bytes(1, 0x5a);
    out64(0x60);
    out60(0x00);
    ck_assert_uint_eq(in64() & 0x04, 0); /* the system flag follows bit 2 */
}
END_TEST

START_TEST(keys_arrive_translated_to_set_1)
{
    i8042_type(&kbc, 'a');
    ck_assert(irq1);
    ck_assert_uint_eq(in64(), 0x15);
    ck_assert_uint_eq(in60(), 0x1e);
    ck_assert(irq1); /* the release follows, with an edge of its own */
    ck_assert_uint_eq(irq1_rises, 2);
    ck_assert_uint_eq(in60(), 0x9e);
    ck_assert(!irq1);
    ck_assert_uint_eq(in60(), 0x9e); /* the buffer can be read again */
    i8042_type(&kbc, 'A');
    assert_bytes(4, 0x2a, 0x1e, 0x9e, 0xaa);
    i8042_type(&kbc, 3); /* Ctrl-C */
    assert_bytes(4, 0x1d, 0x2e, 0xae, 0x9d);
    i8042_type(&kbc, '\r');
    assert_bytes(2, 0x1c, 0x9c);
    i8042_type(&kbc, '\n');
    assert_bytes(2, 0x1c, 0x9c);
    i8042_type(&kbc, 0x7f);
    assert_bytes(2, 0x0e, 0x8e);
    i8042_type(&kbc, 0x1b);
    assert_bytes(2, 0x01, 0x81);
    i8042_type(&kbc, 0x1f); /* Ctrl-_ */
    assert_bytes(4, 0x1d, 0x0c, 0x8c, 0x9d);
    i8042_type(&kbc, 0xe4); /* no key */
    i8042_type(&kbc, 0x00);
    assert_bytes(0);
}
END_TEST

/* xv6 and Linux both have this table: set 1 make code to character. */
START_TEST(every_printable_character_comes_back_through_a_kernels_table)
{
    static const char plain[] = "\0\0331234567890-=\b\tqwertyuiop[]\r\0asdfghjkl;'`\0\\zxcvbnm,./\0*\0 ";
    static const char shifted[] = "\0\033!@#$%^&*()_+\b\tQWERTYUIOP{}\r\0ASDFGHJKL:\"~\0|ZXCVBNM<>?\0*\0 ";
    for (unsigned character = 0x20; character < 0x7f; character++) {
        bool shift = false, seen = false;
        i8042_type(&kbc, (uint8_t)character);
        while (in64() & 1) {
            uint8_t code = in60();
            if (code == 0x2a || code == 0xaa) {
                shift = code == 0x2a;
            } else if (!(code & 0x80)) {
                ck_assert_uint_lt(code, sizeof(plain));
                ck_assert_uint_eq((uint8_t)(shift ? shifted : plain)[code], character);
                seen = true;
            }
        }
        ck_assert(seen && !shift);
    }
}
END_TEST

START_TEST(untranslated_keys_are_set_2)
{
    out64(0x60);
    out60(0x05);
    i8042_type(&kbc, 'a');
    assert_bytes(3, 0x1c, 0xf0, 0x1c);
    i8042_type(&kbc, '?');
    assert_bytes(6, 0x12, 0x4a, 0xf0, 0x4a, 0xf0, 0x12);
}
END_TEST

START_TEST(the_scan_code_set_can_be_chosen)
{
    out64(0x60);
    out60(0x05);
    out60(0xf0);
    assert_bytes(1, 0xfa);
    out60(0x00);
    assert_bytes(2, 0xfa, 0x02);
    out60(0xf0);
    out60(0x01);
    assert_bytes(2, 0xfa, 0xfa);
    i8042_type(&kbc, 'a');
    assert_bytes(2, 0x1e, 0x9e);
    out60(0xf0);
    out60(0x03); /* not there */
    assert_bytes(2, 0xfa, 0xfe);
    out60(0xf6); /* defaults */
    assert_bytes(1, 0xfa);
    i8042_type(&kbc, 'a');
    assert_bytes(3, 0x1c, 0xf0, 0x1c);
}
END_TEST

START_TEST(keyboard_commands)
{
    out60(0xff);
    assert_bytes(2, 0xfa, 0xaa);
    out60(0xf2);
    assert_bytes(3, 0xfa, 0xab, 0x41); /* 0x83, translated */
    out60(0xee);
    assert_bytes(1, 0xee);
    out60(0xed);
    assert_bytes(1, 0xfa);
    out60(0x07);
    assert_bytes(1, 0xfa);
    ck_assert_uint_eq(kbc.keyboard.leds, 7);
    out60(0xf3);
    assert_bytes(1, 0xfa);
    out60(0x20);
    assert_bytes(1, 0xfa);
    ck_assert_uint_eq(kbc.keyboard.typematic, 0x20);
    out60(0xfe); /* the last byte once more */
    assert_bytes(1, 0xfa);
    out60(0x12); /* no command */
    assert_bytes(1, 0xfe);
    out60(0xed);
    out60(0xf4); /* a command in place of the parameter is a command */
    assert_bytes(2, 0xfa, 0xfa);
    out60(0x01);
    assert_bytes(1, 0xfe);
}
END_TEST

START_TEST(scanning_can_be_disabled)
{
    out60(0xf5);
    assert_bytes(1, 0xfa);
    ck_assert(!i8042_can_type(&kbc));
    i8042_type(&kbc, 'a');
    assert_bytes(0);
    out60(0xf4);
    assert_bytes(1, 0xfa);
    i8042_type(&kbc, 'a');
    assert_bytes(2, 0x1e, 0x9e);
}
END_TEST

START_TEST(the_interface_can_be_disabled)
{
    out64(0xad);
    ck_assert(!i8042_can_type(&kbc));
    i8042_type(&kbc, 'a');
    assert_bytes(0);
    out64(0xae); /* what was typed comes now */
    assert_bytes(2, 0x1e, 0x9e);
    out64(0xad);
    out60(0xee); /* sending enables it */
    assert_bytes(1, 0xee);
}
END_TEST

START_TEST(the_next_key_waits_until_the_last_was_read)
{
    ck_assert(i8042_can_type(&kbc));
    i8042_type(&kbc, 'a');
    ck_assert(!i8042_can_type(&kbc));
    in60();
    ck_assert(!i8042_can_type(&kbc));
    in60();
    ck_assert(i8042_can_type(&kbc));
}
END_TEST

START_TEST(an_answer_waits_for_the_output_buffer)
{
    i8042_type(&kbc, 'a');
    out64(0xaa);
    assert_bytes(3, 0x1e, 0x55, 0x9e); /* and comes before the rest of the key */
}
END_TEST

START_TEST(the_keyboards_queue_is_bounded)
{
    for (unsigned i = 0; i < 1000; i++)
        out60(0xf2);
    unsigned n = 0;
    while (in64() & 1) {
        in60();
        n++;
    }
    ck_assert_uint_eq(n, 1 + 16);
}
END_TEST

START_TEST(interrupts_can_be_disabled)
{
    out64(0x60);
    out60(0x44);
    i8042_type(&kbc, 'a');
    ck_assert_uint_eq(irq1_rises, 0);
    ck_assert_uint_eq(in64() & 1, 1);
    out64(0x60);
    out60(0x45);
    ck_assert(irq1);
}
END_TEST

START_TEST(the_auxiliary_port_is_answered_as_absent)
{
    out64(0xa8);
    out64(0x20);
    assert_bytes(1, 0x65); /* enabling it has no effect: how Linux finds out */
    out64(0xa7);
    assert_bytes(0);
    out64(0xa9);
    assert_bytes(1, 0x02);
    irq1_rises = 0;
    out64(0xd4);
    out60(0xf2);
    ck_assert_uint_eq(in64() & 0x61, 0x61); /* timeout, from the auxiliary port */
    ck_assert_uint_eq(in60(), 0xfe);
    out64(0xd3);
    out60(0x5a);
    ck_assert_uint_eq(in64() & 0x61, 0x21);
    ck_assert_uint_eq(in60(), 0x5a);
    ck_assert_uint_eq(irq1_rises, 0);
    out64(0xd2);
    out60(0xa5);
    assert_bytes(1, 0xa5);
    ck_assert_uint_eq(irq1_rises, 1);
}
END_TEST

START_TEST(reset_and_a20)
{
    out64(0xd1);
    out60(0xdd);
    ck_assert(!kbc.a20_enabled);
    out64(0xdf);
    ck_assert(kbc.a20_enabled);
    out64(0xdd);
    ck_assert(!kbc.a20_enabled);
    out64(0xff); /* pulses nothing */
    ck_assert_uint_eq(resets, 0);
    out64(0xfe);
    ck_assert_uint_eq(resets, 1);
    out64(0xd1);
    out60(0x02);
    ck_assert_uint_eq(resets, 2);
    i8042_reset(&kbc);
    ck_assert(kbc.a20_enabled);
}
END_TEST

START_TEST(attention)
{
    out64(0xad);
    out64(0xd1);
    out60(0xdf);
    in60();
    ck_assert(!kbc.attended);
    out64(0xae);
    ck_assert(kbc.attended);
    i8042_reset(&kbc);
    out60(0xf4);
    ck_assert(kbc.attended);
}
END_TEST

START_TEST(any_sequence_of_writes_is_survived)
{
    uint32_t seed = 1;
    for (unsigned i = 0; i < 100000; i++) {
        seed = seed * 1664525 + 1013904223;
        uint8_t value = (uint8_t)(seed >> 16);
        if (seed >> 30 == 0)
            out60(value);
        else if (seed >> 30 == 1)
            out64(value);
        else if (seed >> 30 == 2)
            in60();
        else
            i8042_type(&kbc, value);
        ck_assert_uint_le(kbc.keyboard.queue_count, 16);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("i8042");
    TCase *tests = tcase_create("i8042");
    tcase_add_checked_fixture(tests, setup, NULL);
    tcase_add_test(tests, power_on);
    tcase_add_test(tests, self_tests_and_ports);
    tcase_add_test(tests, the_command_byte_and_memory);
    tcase_add_test(tests, keys_arrive_translated_to_set_1);
    tcase_add_test(tests, every_printable_character_comes_back_through_a_kernels_table);
    tcase_add_test(tests, untranslated_keys_are_set_2);
    tcase_add_test(tests, the_scan_code_set_can_be_chosen);
    tcase_add_test(tests, keyboard_commands);
    tcase_add_test(tests, scanning_can_be_disabled);
    tcase_add_test(tests, the_interface_can_be_disabled);
    tcase_add_test(tests, the_next_key_waits_until_the_last_was_read);
    tcase_add_test(tests, an_answer_waits_for_the_output_buffer);
    tcase_add_test(tests, the_keyboards_queue_is_bounded);
    tcase_add_test(tests, interrupts_can_be_disabled);
    tcase_add_test(tests, the_auxiliary_port_is_answered_as_absent);
    tcase_add_test(tests, reset_and_a20);
    tcase_add_test(tests, attention);
    tcase_add_test(tests, any_sequence_of_writes_is_survived);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
