/* The PCI bus and the functions on it, by their ports alone: configuration mechanism 1, the host bridge's
 * PAM registers, PIRQ routing, and what firmware sizes. */
#include "devices/i440fx.h"
#include "devices/pci.h"
#include "devices/piix3.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>

static struct pci_bus pci;
static struct i440fx bridge;
static struct piix3 piix3;
static unsigned n_written, written_offset;

static struct shadow_call {
    uint64_t gpa, size;
    bool is_read, is_write;
} shadow_call[16];
static unsigned n_shadow_calls;

static uint16_t isa;

static void host_shadow_ram(void *ctx, uint64_t gpa, uint64_t size, bool is_read, bool is_write)
{
    (void)ctx;
    ck_assert_uint_lt(n_shadow_calls, 16);
    shadow_call[n_shadow_calls++] = (struct shadow_call){gpa, size, is_read, is_write};
}

static void set_isa(void *ctx, unsigned irq, bool level)
{
    ck_assert_ptr_eq(ctx, &isa);
    isa = (uint16_t)((isa & ~(1u << irq)) | (unsigned)level << irq);
}

static void written(void *ctx, unsigned offset, unsigned size)
{
    ck_assert_ptr_eq(ctx, &n_written);
    ck_assert_uint_ge(size, 1);
    n_written++;
    written_offset = offset;
}

static const struct pci_register toy_registers[] = {
    {PCI_VENDOR_ID, 4, 0xbeef1234, 0, 0},          {PCI_COMMAND, 2, 0, 0x0007, 0},
    {PCI_STATUS, 2, 0x8280, 0, PCI_STATUS_ERRORS}, {PCI_BAR_0, 4, PCI_BAR_IO, 0xffffffc0, 0},
    {PCI_BAR_0 + 4, 4, 0, 0xfffff000, 0},
};
static struct pci_function toy;

static const struct board_host host = {.shadow_ram = host_shadow_ram};

static void setup(void)
{
    n_written = n_shadow_calls = 0;
    isa = 0;
    pci_init(&pci);
    i440fx_init(&bridge, &host);
    piix3_init(&piix3, set_isa, &isa);
    pci_function_init(&toy, toy_registers, sizeof toy_registers / sizeof toy_registers[0], written,
                      &n_written);
    pci_plug(&pci, 0, 0, &bridge.function);
    pci_plug(&pci, 1, 0, &piix3.function);
    pci_plug(&pci, 7, 2, &toy);
}

static void address(unsigned bus, unsigned slot, unsigned number, unsigned reg)
{
    pci_config_ops.write(&pci, 0, 4, 0x80000000 | bus << 16 | slot << 11 | number << 8 | reg);
}

static uint32_t read_config(unsigned slot, unsigned number, unsigned reg, unsigned size)
{
    address(0, slot, number, reg & ~3u);
    return pci_config_ops.read(&pci, 4 + (reg & 3), size);
}

static void write_config(unsigned slot, unsigned number, unsigned reg, unsigned size, uint32_t value)
{
    address(0, slot, number, reg & ~3u);
    pci_config_ops.write(&pci, 4 + (reg & 3), size, value);
}

START_TEST(the_address_register_keeps_what_a_probe_writes)
{
    ck_assert_uint_eq(pci_config_ops.read(&pci, 0, 4), 0);
    pci_config_ops.write(&pci, 0, 4, 0x80000000); /* as Linux probes */
    ck_assert_uint_eq(pci_config_ops.read(&pci, 0, 4), 0x80000000);
    pci_config_ops.write(&pci, 0, 4, 0xffffffff);
    ck_assert_uint_eq(pci_config_ops.read(&pci, 0, 4), 0x80fffffc);
    pci_config_ops.write(&pci, 0, 1, 0); /* mechanism 2, and other narrow accesses: not for it */
    pci_config_ops.write(&pci, 2, 2, 0);
    ck_assert_uint_eq(pci_config_ops.read(&pci, 0, 4), 0x80fffffc);
    ck_assert_uint_eq(pci_config_ops.read(&pci, 0, 1), 0xff);
    ck_assert_uint_eq(pci_config_ops.read(&pci, 2, 2), 0xffff);
}
END_TEST

START_TEST(functions_are_found_where_they_are_plugged)
{
    ck_assert_uint_eq(read_config(0, 0, 0, 4), 0x12378086);
    ck_assert_uint_eq(read_config(1, 0, 0, 4), 0x70008086);
    ck_assert_uint_eq(read_config(7, 2, 0, 4), 0xbeef1234);
    ck_assert_uint_eq(read_config(7, 2, 2, 2), 0xbeef);
    ck_assert_uint_eq(read_config(7, 2, 3, 1), 0xbe);
    ck_assert_uint_eq(read_config(0, 0, 0x0a, 2), 0x0600); /* host bridge */
    ck_assert_uint_eq(read_config(1, 0, 0x0a, 2), 0x0601); /* ISA bridge, */
    ck_assert_uint_eq(read_config(1, 0, 0x0e, 1), 0x80);   /* of several functions */
    ck_assert_uint_eq(read_config(0, 0, 0x0e, 1), 0);
}
END_TEST

START_TEST(nobody_answers_with_ones)
{
    ck_assert_uint_eq(read_config(7, 0, 0, 4), 0xffffffff);
    ck_assert_uint_eq(read_config(2, 0, 0, 2), 0xffff);
    address(1, 0, 0, 0);
    ck_assert_uint_eq(pci_config_ops.read(&pci, 4, 4), 0xffffffff);
    pci_config_ops.write(&pci, 4, 4, 0);
    pci_config_ops.write(&pci, 0, 4, 0); /* not enabled */
    ck_assert_uint_eq(pci_config_ops.read(&pci, 4, 4), 0xffffffff);
}
END_TEST

START_TEST(only_what_is_writable_changes)
{
    write_config(7, 2, PCI_VENDOR_ID, 4, 0);
    ck_assert_uint_eq(read_config(7, 2, PCI_VENDOR_ID, 4), 0xbeef1234);
    write_config(7, 2, PCI_COMMAND, 2, 0xffff);
    ck_assert_uint_eq(read_config(7, 2, PCI_COMMAND, 2), 0x0007);
    write_config(7, 2, PCI_COMMAND, 1, 0x05);
    ck_assert_uint_eq(read_config(7, 2, PCI_COMMAND, 4), 0x82800005);
    write_config(7, 2, PCI_STATUS, 2, 0x8000); /* ones clear */
    ck_assert_uint_eq(read_config(7, 2, PCI_STATUS, 2), 0x0280);
    write_config(7, 2, 0x40, 4, 0xffffffff); /* no register there */
    ck_assert_uint_eq(read_config(7, 2, 0x40, 4), 0);
    ck_assert_uint_eq(n_written, 5);
    ck_assert_uint_eq(written_offset, 0x40);
}
END_TEST

START_TEST(base_addresses_tell_their_size)
{
    write_config(7, 2, PCI_BAR_0, 4, 0xffffffff);
    ck_assert_uint_eq(read_config(7, 2, PCI_BAR_0, 4), 0xffffffc1);
    write_config(7, 2, PCI_BAR_0 + 4, 4, 0xffffffff);
    ck_assert_uint_eq(read_config(7, 2, PCI_BAR_0 + 4, 4), 0xfffff000);
    write_config(7, 2, PCI_BAR_0 + 8, 4, 0xffffffff);
    ck_assert_uint_eq(read_config(7, 2, PCI_BAR_0 + 8, 4), 0);
    pci_function_reset(&toy);
    ck_assert_uint_eq(read_config(7, 2, PCI_BAR_0, 4), PCI_BAR_IO);
}
END_TEST

START_TEST(accesses_may_run_over_the_end_of_the_address)
{
    address(0, 7, 2, 0);
    ck_assert_uint_eq(pci_config_ops.read(&pci, 2, 4), 0x1234ffff);
    pci_config_ops.write(&pci, 2, 4, 0); /* the vendor is not writable */
    ck_assert_uint_eq(pci_config_ops.read(&pci, 4, 4), 0xbeef1234);
    address(0, 7, 2, 0xfc);
    ck_assert_uint_eq(pci_config_ops.read(&pci, 5, 2), 0);
}
END_TEST

/* ---- the host bridge ----------------------------------------------------------------------------------- */

START_TEST(after_reset_the_bios_area_is_rom)
{
    uint64_t covered = 0;

    i440fx_reset(&bridge);
    ck_assert_uint_eq(n_shadow_calls, 13);
    for (unsigned i = 0; i < n_shadow_calls; i++) {
        ck_assert(!shadow_call[i].is_read && !shadow_call[i].is_write);
        covered += shadow_call[i].size;
    }
    ck_assert_uint_eq(covered, 0x40000);
}
END_TEST

START_TEST(seabios_makes_its_segment_writable_and_locks_it_again)
{
    write_config(0, 0, I440FX_PAM, 1, 0x30);
    ck_assert_uint_eq(n_shadow_calls, 1);
    ck_assert_uint_eq(shadow_call[0].gpa, 0xf0000);
    ck_assert_uint_eq(shadow_call[0].size, 0x10000);
    ck_assert(shadow_call[0].is_read && shadow_call[0].is_write);
    write_config(0, 0, I440FX_PAM, 1, 0x10);
    ck_assert(shadow_call[1].is_read && !shadow_call[1].is_write);
    ck_assert_uint_eq(read_config(0, 0, I440FX_PAM, 1), 0x10);
    write_config(0, 0, I440FX_PAM, 1, 0xff); /* reserved bits stay 0 */
    ck_assert_uint_eq(read_config(0, 0, I440FX_PAM, 1), 0x30);
}
END_TEST

START_TEST(each_half_of_a_pam_register_has_16_kib)
{
    write_config(0, 0, I440FX_PAM + 5, 1, 0x12); /* E0000: write only; E4000: read only */
    ck_assert_uint_eq(n_shadow_calls, 2);
    ck_assert_uint_eq(shadow_call[0].gpa, 0xe0000);
    ck_assert(!shadow_call[0].is_read && shadow_call[0].is_write);
    ck_assert_uint_eq(shadow_call[1].gpa, 0xe4000);
    ck_assert(shadow_call[1].is_read && !shadow_call[1].is_write);
    n_shadow_calls = 0;
    write_config(0, 0, 0x5c, 4, 0x33333333); /* PAM3-6 at once: D0000-EFFFF */
    ck_assert_uint_eq(n_shadow_calls, 8);
    ck_assert_uint_eq(shadow_call[0].gpa, 0xd0000);
    ck_assert_uint_eq(shadow_call[7].gpa + shadow_call[7].size, 0xf0000);
}
END_TEST

START_TEST(without_firmware_the_bios_area_reads_ram)
{
    i440fx_shadow_bios_area(&bridge);
    ck_assert_uint_eq(read_config(0, 0, 0x59, 1), 0x10);
    ck_assert_uint_eq(read_config(0, 0, 0x5a, 2), 0x1111);
    ck_assert_uint_eq(read_config(0, 0, 0x5c, 4), 0x11111111);
    for (unsigned i = 0; i < n_shadow_calls; i++)
        ck_assert(shadow_call[i].is_read && !shadow_call[i].is_write);
}
END_TEST

START_TEST(management_memory_is_locked)
{
    write_config(0, 0, 0x72, 1, 0x4a); /* SMRAM.D_OPEN */
    ck_assert_uint_eq(read_config(0, 0, 0x72, 1), 0x1a);
}
END_TEST

/* ---- PCI interrupts ------------------------------------------------------------------------------------ */

START_TEST(pci_interrupts_go_where_the_router_says)
{
    piix3_set_intx(&piix3, 3, 0, true); /* slot 3, INTA: PIRQ C */
    ck_assert_uint_eq(isa, 0);          /* not routed after reset */
    write_config(1, 0, PIIX3_PIRQ_ROUTE + 2, 1, 0x0b);
    ck_assert_uint_eq(isa, 1 << 11);
    write_config(1, 0, PIIX3_PIRQ_ROUTE + 2, 1, 0x05);
    ck_assert_uint_eq(isa, 1 << 5);
    piix3_set_intx(&piix3, 3, 0, false);
    ck_assert_uint_eq(isa, 0);
}
END_TEST

START_TEST(an_interrupt_line_is_shared)
{
    piix3_route_pirqs(&piix3);
    ck_assert_uint_eq(read_config(1, 0, PIIX3_PIRQ_ROUTE, 4), 0x0b0b0a0a);
    piix3_set_intx(&piix3, 1, 0, true); /* PIRQ A */
    piix3_set_intx(&piix3, 5, 0, true); /* PIRQ A, too */
    piix3_set_intx(&piix3, 2, 0, true); /* PIRQ B: the same IRQ */
    ck_assert_uint_eq(isa, 1 << 10);
    piix3_set_intx(&piix3, 1, 0, false);
    piix3_set_intx(&piix3, 2, 0, false);
    ck_assert_uint_eq(isa, 1 << 10);
    piix3_set_intx(&piix3, 5, 0, false);
    ck_assert_uint_eq(isa, 0);
}
END_TEST

START_TEST(reserved_interrupts_are_not_driven)
{
    static const uint8_t reserved[] = {0, 1, 2, 8, 13};

    piix3_set_intx(&piix3, 1, 0, true);
    for (size_t i = 0; i < sizeof reserved; i++) {
        write_config(1, 0, PIIX3_PIRQ_ROUTE, 1, reserved[i]);
        ck_assert_uint_eq(isa, 0);
    }
    write_config(1, 0, PIIX3_PIRQ_ROUTE, 1, 0x8b); /* off */
    ck_assert_uint_eq(isa, 0);
}
END_TEST

START_TEST(a_reset_takes_the_routing_away)
{
    piix3_route_pirqs(&piix3);
    piix3_set_intx(&piix3, 4, 3, true); /* PIRQ C */
    ck_assert_uint_eq(isa, 1 << 11);
    piix3_reset(&piix3);
    ck_assert_uint_eq(isa, 0);
    piix3_route_pirqs(&piix3); /* still asserted */
    ck_assert_uint_eq(isa, 1 << 11);
}
END_TEST

/* ---- windows ------------------------------------------------------------------------------------------- */

static uint32_t window_read(void *device, uint32_t offset, unsigned size)
{
    (void)device;
    (void)size;
    return 0x50 + offset;
}

static void window_write(void *device, uint32_t offset, unsigned size, uint32_t value)
{
    (void)device;
    (void)offset;
    (void)size;
    (void)value;
}

START_TEST(a_window_moves_but_not_onto_others)
{
    static const struct bus_device_ops ops = {.read = window_read, .write = window_write, .max_size = 1};
    static struct bus bus;
    struct pci_window window = {.bus = &bus, .space = BUS_PORT, .size = 16, .ops = &ops, .name = "window"};

    bus_claim(&bus, BUS_PORT, 0x20, 0x21, &ops, NULL, "fixed");
    pci_window_move(&window, true, 0x1000);
    ck_assert_uint_eq(bus_read(&bus, BUS_PORT, 0x1003, 1), 0x53);
    pci_window_move(&window, true, 0x2000);
    ck_assert_uint_eq(bus_read(&bus, BUS_PORT, 0x1003, 1), 0xff);
    ck_assert_uint_eq(bus_read(&bus, BUS_PORT, 0x2000, 1), 0x50);
    pci_window_move(&window, true, 0x20);
    ck_assert(!window.is_open);
    ck_assert_uint_eq(bus_read(&bus, BUS_PORT, 0x22, 1), 0xff);
    pci_window_move(&window, true, 0xfff8); /* past the last port */
    ck_assert(!window.is_open);
    pci_window_move(&window, true, 0xfff0);
    ck_assert(window.is_open);
    pci_window_move(&window, false, 0xfff0);
    ck_assert(!window.is_open);
    ck_assert_uint_eq(bus.n_ports, 1);
}
END_TEST

static Suite *pci_suite(void)
{
    Suite *suite = suite_create("pci");
    TCase *mechanism = tcase_create("configuration");
    TCase *chips = tcase_create("bridges");

    tcase_add_checked_fixture(mechanism, setup, NULL);
    tcase_add_test(mechanism, the_address_register_keeps_what_a_probe_writes);
    tcase_add_test(mechanism, functions_are_found_where_they_are_plugged);
    tcase_add_test(mechanism, nobody_answers_with_ones);
    tcase_add_test(mechanism, only_what_is_writable_changes);
    tcase_add_test(mechanism, base_addresses_tell_their_size);
    tcase_add_test(mechanism, accesses_may_run_over_the_end_of_the_address);
    tcase_add_test(mechanism, a_window_moves_but_not_onto_others);
    suite_add_tcase(suite, mechanism);
    tcase_add_checked_fixture(chips, setup, NULL);
    tcase_add_test(chips, after_reset_the_bios_area_is_rom);
    tcase_add_test(chips, seabios_makes_its_segment_writable_and_locks_it_again);
    tcase_add_test(chips, each_half_of_a_pam_register_has_16_kib);
    tcase_add_test(chips, without_firmware_the_bios_area_reads_ram);
    tcase_add_test(chips, management_memory_is_locked);
    tcase_add_test(chips, pci_interrupts_go_where_the_router_says);
    tcase_add_test(chips, an_interrupt_line_is_shared);
    tcase_add_test(chips, reserved_interrupts_are_not_driven);
    tcase_add_test(chips, a_reset_takes_the_routing_away);
    suite_add_tcase(suite, chips);
    return suite;
}

int main(void)
{
    SRunner *runner = srunner_create(pci_suite());

    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
