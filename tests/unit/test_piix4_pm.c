/* The PIIX4's power management by its ports and configuration registers: the timer and its event, SCI, soft
 * off, the APM ports, the empty SMBus. */
#include "devices/piix4_pm.h"

#include "unit/fake_clock.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>

#define PM  PIIX4_FIRMWARE_PMBASE
#define SMB PIIX4_FIRMWARE_SMBASE

static struct fake_clock fake;
static struct bus bus;
static struct piix4_pm pm;
static bool sci;
static unsigned n_power_offs;

static void set_sci(void *ctx, unsigned pin, bool level)
{
    (void)ctx;
    ck_assert_uint_eq(pin, 9);
    sci = level;
}

static void power_off(void *ctx)
{
    (void)ctx;
    n_power_offs++;
}

static const struct board_host host = {.power_off = power_off};

static void setup(void)
{
    sci = false;
    n_power_offs = 0;
    memset(&bus, 0, sizeof bus);
    fake_clock_init(&fake);
    piix4_pm_init(&pm, &bus, &fake.clock, (struct irq_line){.set = set_sci, .pin = 9}, &host);
    bus_claim(&bus, BUS_PORT, PIIX4_APM_PORT, PIIX4_APM_PORT + 1, &piix4_apm_ops, &pm, "apm");
}

static void setup_open(void)
{
    setup();
    piix4_pm_open(&pm);
}

static uint32_t in(uint32_t port, unsigned size)
{
    return bus_read(&bus, BUS_PORT, port, size);
}

static void out(uint32_t port, unsigned size, uint32_t value)
{
    bus_write(&bus, BUS_PORT, port, size, value);
}

START_TEST(after_reset_its_ports_are_off)
{
    ck_assert_uint_eq(in(PM + 8, 4), 0xffffffff);
    pci_write_config(&pm.function, 0x40, 4, 0x0601);
    ck_assert_uint_eq(pci_read_config(&pm.function, 0x40, 4), 0x0601);
    ck_assert_uint_eq(in(PM + 8, 4), 0xffffffff);
    pci_write_config(&pm.function, 0x80, 1, 1); /* PMREGMISC: now */
    ck_assert_uint_eq(in(PM + 8, 4), 0);
    pci_write_config(&pm.function, 0x40, 4, 0xb000);
    ck_assert_uint_eq(in(PM + 8, 4), 0xffffffff);
    ck_assert_uint_eq(in(0xb008, 4), 0);
    piix4_pm_reset(&pm);
    ck_assert_uint_eq(in(0xb008, 4), 0xffffffff);
}
END_TEST

START_TEST(it_is_a_piix4_without_management_mode_to_set_up)
{
    ck_assert_uint_eq(pci_read_config(&pm.function, 0, 4), 0x71138086);
    ck_assert_uint_eq(pci_read_config(&pm.function, 8, 1), 3); /* older ones have a bad timer */
    ck_assert(pci_read_config(&pm.function, 0x58, 4) & 1u << 25);
    ck_assert_uint_eq(pci_read_config(&pm.function, 0x3d, 1), 1);
}
END_TEST

START_TEST(the_timer_counts_3579545_a_second_in_24_bits)
{
    ck_assert_uint_eq(in(PM + 8, 4), 0);
    fake.now = 1000000000;
    ck_assert_uint_eq(in(PM + 8, 4), 3579545);
    fake.now = 10 * UINT64_C(1000000000);
    ck_assert_uint_eq(in(PM + 8, 4), 35795450 & 0xffffff);
    out(PM + 8, 4, 0); /* read-only */
    ck_assert_uint_eq(in(PM + 8, 4), 35795450 & 0xffffff);
    ck_assert_uint_eq(in(PM + 9, 1), 35795450 >> 8 & 0xff);
    ck_assert_uint_eq(in(PM + 10, 2), 35795450 >> 16 & 0xff);
}
END_TEST

START_TEST(bit_23_of_the_timer_interrupts_when_enabled)
{
    uint64_t half = clock_from_ticks(1 << 23, PIIX4_PM_TIMER_HZ);

    ck_assert_uint_eq(clock_next_deadline(&fake.clock), CLOCK_NO_DEADLINE);
    out(PM + 4, 2, 1); /* SCI_EN */
    out(PM + 2, 2, 1); /* TMR_EN */
    ck_assert_uint_eq(clock_next_deadline(&fake.clock), half);
    fake_clock_run_to(&fake, half);
    ck_assert(sci);
    ck_assert_uint_eq(in(PM, 2), 1);
    out(PM, 2, 1);
    ck_assert(!sci);
    ck_assert_uint_eq(in(PM, 2), 0);
    fake_clock_run_to(&fake, 2 * half);
    ck_assert(sci);
    out(PM + 2, 2, 0);
    ck_assert(!sci);
    ck_assert_uint_eq(clock_next_deadline(&fake.clock), CLOCK_NO_DEADLINE);
}
END_TEST

START_TEST(an_overflow_shows_in_the_status_without_an_interrupt)
{
    fake.now = clock_from_ticks(1 << 23, PIIX4_PM_TIMER_HZ) - 1;
    ck_assert_uint_eq(in(PM, 2), 0);
    fake.now++;
    ck_assert_uint_eq(in(PM, 2), 1);
    ck_assert(!sci);
    out(PM + 2, 2, 1);
    ck_assert(!sci); /* SCI_EN is off */
    out(PM + 4, 1, 1);
    ck_assert(sci);
}
END_TEST

START_TEST(sleep_type_0_switches_the_power_off)
{
    out(PM + 4, 2, 0x3401); /* another type */
    ck_assert_uint_eq(n_power_offs, 0);
    ck_assert_uint_eq(in(PM + 4, 2), 0x1401); /* SLP_EN reads as 0 */
    out(PM + 4, 2, 0x2001);
    ck_assert_uint_eq(n_power_offs, 1);
    out(PM + 4, 4, 0x2001);
    ck_assert_uint_eq(n_power_offs, 2);
    out(PM + 4, 1, 0);
    out(PM + 5, 1, 0x20);
    ck_assert_uint_eq(n_power_offs, 3);
}
END_TEST

START_TEST(acpi_is_switched_by_the_apm_port)
{
    out(PIIX4_APM_PORT, 1, PIIX4_ACPI_ENABLE);
    ck_assert_uint_eq(in(PM + 4, 2), 1);
    ck_assert_uint_eq(in(PIIX4_APM_PORT, 1), PIIX4_ACPI_ENABLE);
    out(PIIX4_APM_PORT, 1, PIIX4_ACPI_DISABLE);
    ck_assert_uint_eq(in(PM + 4, 2), 0);
    out(PIIX4_APM_PORT + 1, 1, 0x5a);
    ck_assert_uint_eq(in(PIIX4_APM_PORT + 1, 1), 0x5a);
}
END_TEST

START_TEST(nobody_acknowledges_on_the_smbus)
{
    ck_assert_uint_eq(in(SMB, 1), 0);
    out(SMB + 4, 1, 0xa1);
    out(SMB + 2, 1, 0x44); /* start a byte transfer */
    ck_assert_uint_eq(in(SMB + 2, 1), 0x04);
    ck_assert_uint_eq(in(SMB, 1), 0x06); /* done: device error */
    out(SMB, 1, 0x06);
    ck_assert_uint_eq(in(SMB, 1), 0);
    ck_assert_uint_eq(in(SMB + 4, 1), 0xa1);
}
END_TEST

static Suite *pm_suite(void)
{
    Suite *suite = suite_create("piix4_pm");
    TCase *reset = tcase_create("after reset");
    TCase *open = tcase_create("as firmware leaves it");

    tcase_add_checked_fixture(reset, setup, NULL);
    tcase_add_test(reset, after_reset_its_ports_are_off);
    tcase_add_test(reset, it_is_a_piix4_without_management_mode_to_set_up);
    suite_add_tcase(suite, reset);
    tcase_add_checked_fixture(open, setup_open, NULL);
    tcase_add_test(open, the_timer_counts_3579545_a_second_in_24_bits);
    tcase_add_test(open, bit_23_of_the_timer_interrupts_when_enabled);
    tcase_add_test(open, an_overflow_shows_in_the_status_without_an_interrupt);
    tcase_add_test(open, sleep_type_0_switches_the_power_off);
    tcase_add_test(open, acpi_is_switched_by_the_apm_port);
    tcase_add_test(open, nobody_acknowledges_on_the_smbus);
    suite_add_tcase(suite, open);
    return suite;
}

int main(void)
{
    SRunner *runner = srunner_create(pm_suite());

    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
