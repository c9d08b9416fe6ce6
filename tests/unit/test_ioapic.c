/* The I/O APIC against the 82093AA data sheet, alone and together with the local APIC. */
#include "devices/ioapic.h"
#include "devices/lapic.h"
#include "fake_clock.h"

#include <check.h>
#include <stdlib.h>

static struct ioapic ioapic;
static unsigned sent;
static struct apic_message last;
static bool is_accepting;

static bool deliver(void *ctx, const struct apic_message *message)
{
    ck_assert_ptr_eq(ctx, &sent);
    sent++;
    last = *message;
    return is_accepting;
}

static void setup(void)
{
    sent = 0;
    is_accepting = true;
    ioapic_init(&ioapic, deliver, &sent);
}

static uint32_t rd(uint8_t reg)
{
    ioapic_ops.write(&ioapic, 0x00, 4, reg);
    return ioapic_ops.read(&ioapic, 0x10, 4);
}

static void wr(uint8_t reg, uint32_t value)
{
    ioapic_ops.write(&ioapic, 0x00, 4, reg);
    ioapic_ops.write(&ioapic, 0x10, 4, value);
}

static void set_entry(unsigned pin, uint32_t high, uint32_t low)
{
    wr((uint8_t)(0x11 + 2 * pin), high);
    wr((uint8_t)(0x10 + 2 * pin), low);
}

START_TEST(registers)
{
    ck_assert_uint_eq(rd(0x01), 0x00170011);
    ck_assert_uint_eq(ioapic_ops.read(&ioapic, 0, 4), 1);
    ck_assert_uint_eq(rd(0x00), 0);
    wr(0x00, 0xffffffff);
    ck_assert_uint_eq(rd(0x00), 0x0f000000);
    ck_assert_uint_eq(rd(0x02), 0x0f000000);
    ioapic_set_id(&ioapic, 1);
    ck_assert_uint_eq(rd(0x00), 0x01000000);
    for (unsigned pin = 0; pin < 24; pin++) {
        ck_assert_uint_eq(rd((uint8_t)(0x10 + 2 * pin)), 0x10000);
        ck_assert_uint_eq(rd((uint8_t)(0x11 + 2 * pin)), 0);
    }
    set_entry(23, 0xffffffff, 0xffffffff);
    ck_assert_uint_eq(rd(0x3e), 0x0001afff); /* without delivery status and remote IRR */
    ck_assert_uint_eq(rd(0x3f), 0xff000000);
    wr(0x01, 0);
    ck_assert_uint_eq(rd(0x01), 0x00170011);
    ioapic_reset(&ioapic);
    ck_assert_uint_eq(rd(0x3e), 0x10000);
    ck_assert_uint_eq(rd(0x3f), 0);
}
END_TEST

START_TEST(every_access_is_harmless)
{
    for (unsigned reg = 0; reg < 256; reg++) {
        wr((uint8_t)reg, 0xffffffff);
        uint32_t value = rd((uint8_t)reg);
        if ((reg > 2 && reg < 0x10) || reg >= 0x40)
            ck_assert_uint_eq(value, 0); /* reserved */
    }
    for (uint32_t offset = 0; offset < 0x1000; offset++)
        for (unsigned size = 1; size <= 4 && offset + size <= 0x1000; size *= 2) {
            ioapic_ops.write(&ioapic, offset, size, 0xffffffff);
            uint32_t value = ioapic_ops.read(&ioapic, offset, size);
            if (offset != 0 && offset != 0x10)
                ck_assert_uint_eq(value, 0);
        }
    ioapic_set_pin(&ioapic, 24, true);
    ioapic_set_pin(&ioapic, UINT32_MAX, true);
    ck_assert_uint_eq(sent, 0);
}
END_TEST

START_TEST(edge)
{
    set_entry(4, 0x03000000, 0x0924); /* lowest priority, logical destination 3, vector 0x24 */
    ioapic_set_pin(&ioapic, 4, true);
    ioapic_set_pin(&ioapic, 4, true);
    ck_assert_uint_eq(sent, 1);
    ck_assert_int_eq(last.mode, APIC_LOWEST_PRIORITY);
    ck_assert_uint_eq(last.vector, 0x24);
    ck_assert_uint_eq(last.destination, 3);
    ck_assert(last.logical);
    ck_assert(!last.level);
    ioapic_set_pin(&ioapic, 4, false);
    ioapic_set_pin(&ioapic, 4, true);
    ck_assert_uint_eq(sent, 2);
    ck_assert_uint_eq(rd(0x18), 0x0924);
}
END_TEST

START_TEST(masked_edge_is_lost)
{
    set_entry(4, 0, 0x10024);
    ioapic_set_pin(&ioapic, 4, true);
    set_entry(4, 0, 0x24);
    ck_assert_uint_eq(sent, 0);
    ioapic_set_pin(&ioapic, 4, false);
    ioapic_set_pin(&ioapic, 4, true);
    ck_assert_uint_eq(sent, 1);
}
END_TEST

START_TEST(level_waits_for_eoi)
{
    set_entry(10, 0, 0x802a);
    ioapic_set_pin(&ioapic, 10, true);
    ck_assert_uint_eq(sent, 1);
    ck_assert(last.level);
    ck_assert_uint_eq(rd(0x24), 0xc02a); /* remote IRR */
    ioapic_set_pin(&ioapic, 10, false);
    ioapic_set_pin(&ioapic, 10, true);
    ck_assert_uint_eq(sent, 1);
    ioapic_eoi(&ioapic, 0x2b); /* not ours */
    ck_assert_uint_eq(sent, 1);
    ioapic_eoi(&ioapic, 0x2a); /* still asserted: again */
    ck_assert_uint_eq(sent, 2);
    ioapic_set_pin(&ioapic, 10, false);
    ioapic_eoi(&ioapic, 0x2a);
    ck_assert_uint_eq(sent, 2);
    ck_assert_uint_eq(rd(0x24), 0x802a);
}
END_TEST

START_TEST(level_masked_and_unmasked)
{
    set_entry(10, 0, 0x1802a);
    ioapic_set_pin(&ioapic, 10, true);
    ck_assert_uint_eq(sent, 0);
    set_entry(10, 0, 0x802a);
    ck_assert_uint_eq(sent, 1);
    set_entry(10, 0, 0x1802a);
    ck_assert_uint_eq(rd(0x24), 0x1c02a); /* masking keeps remote IRR */
    set_entry(10, 0, 0x1002a);            /* the way to clear it: edge, then level again */
    set_entry(10, 0, 0x1802a);
    ck_assert_uint_eq(rd(0x24), 0x1802a);
}
END_TEST

START_TEST(level_not_accepted_asks_again)
{
    is_accepting = false;
    set_entry(10, 0, 0x802a);
    ioapic_set_pin(&ioapic, 10, true);
    ck_assert_uint_eq(rd(0x24), 0x802a);
    is_accepting = true;
    ioapic_set_pin(&ioapic, 10, true);
    ck_assert_uint_eq(sent, 2);
    ck_assert_uint_eq(rd(0x24), 0xc02a);
}
END_TEST

START_TEST(modes_other_than_fixed_are_edges)
{
    static const enum apic_delivery_mode modes[] = {APIC_SMI, APIC_NMI, APIC_INIT, APIC_EXTINT};
    for (unsigned i = 0; i < 4; i++) {
        set_entry(i, 0, 0x8000 | (uint32_t)modes[i] << 8);
        ioapic_set_pin(&ioapic, i, true);
        ck_assert_uint_eq(sent, i + 1);
        ck_assert_int_eq(last.mode, modes[i]);
        ck_assert(!last.level);
        ck_assert_uint_eq(rd((uint8_t)(0x10 + 2 * i)) & 0x4000, 0);
    }
}
END_TEST

/* ---- with the local APIC ----------------------------------------------------------------------------- */

static void pair_eoi(void *ctx, uint8_t vector)
{
    ioapic_eoi(ctx, vector);
}

static bool pair_deliver(void *ctx, const struct apic_message *message)
{
    return lapic_deliver(ctx, message);
}

START_TEST(pair)
{
    struct fake_clock fake;
    struct lapic lapic;

    fake_clock_init(&fake);
    lapic_init(&lapic, &fake.clock, &(struct lapic_host){.ctx = &ioapic, .eoi = pair_eoi});
    ioapic_init(&ioapic, pair_deliver, &lapic);
    set_entry(5, 0, 0x8035);
    ioapic_set_pin(&ioapic, 5, true);
    ck_assert_uint_eq(rd(0x1a), 0x8035); /* the local APIC is still disabled by software */
    lapic_ops.write(&lapic, 0xf0, 4, 0x1ff);
    ioapic_set_pin(&ioapic, 5, true);
    for (unsigned i = 0; i < 3; i++) {
        ck_assert(lapic_intr(&lapic));
        ck_assert_uint_eq(lapic_acknowledge(&lapic), 0x35);
        ck_assert(!lapic_intr(&lapic));
        if (i == 2)
            ioapic_set_pin(&ioapic, 5, false);
        lapic_ops.write(&lapic, 0xb0, 4, 0);
    }
    ck_assert(!lapic_intr(&lapic));
    ck_assert_uint_eq(rd(0x1a), 0x8035);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("ioapic");
    TCase *tcase = tcase_create("ioapic");
    tcase_add_checked_fixture(tcase, setup, NULL);
    tcase_add_test(tcase, registers);
    tcase_add_test(tcase, every_access_is_harmless);
    tcase_add_test(tcase, edge);
    tcase_add_test(tcase, masked_edge_is_lost);
    tcase_add_test(tcase, level_waits_for_eoi);
    tcase_add_test(tcase, level_masked_and_unmasked);
    tcase_add_test(tcase, level_not_accepted_asks_again);
    tcase_add_test(tcase, modes_other_than_fixed_are_edges);
    tcase_add_test(tcase, pair);
    suite_add_tcase(suite, tcase);

    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
