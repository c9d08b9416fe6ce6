/* The local APIC against the APIC chapter of the Intel SDM: registers, priorities, messages, pins, timer. */
#include "devices/lapic.h"
#include "fake_clock.h"

#include <check.h>
#include <stdlib.h>

static struct fake_clock fake;
static struct lapic lapic;
static unsigned nmis, inits, eois, inta_cycles;
static uint8_t last_eoi;

static void host_eoi(void *ctx, uint8_t vector)
{
    ck_assert_ptr_eq(ctx, &lapic);
    eois++;
    last_eoi = vector;
}

static uint8_t host_extint_acknowledge(void *ctx)
{
    ck_assert_ptr_eq(ctx, &lapic);
    inta_cycles++;
    return 0x77;
}

static void host_nmi(void *ctx)
{
    ck_assert_ptr_eq(ctx, &lapic);
    nmis++;
}

static void host_init(void *ctx)
{
    ck_assert_ptr_eq(ctx, &lapic);
    inits++;
}

static uint32_t rd(uint32_t reg)
{
    return lapic_ops.read(&lapic, reg, 4);
}

static void wr(uint32_t reg, uint32_t value)
{
    lapic_ops.write(&lapic, reg, 4, value);
}

static void setup(void)
{
    const struct lapic_host host = {&lapic, host_eoi, host_extint_acknowledge, host_nmi, host_init};

    nmis = inits = eois = inta_cycles = 0;
    fake_clock_init(&fake);
    lapic_init(&lapic, &fake.clock, &host);
    wr(0xf0, 0x1ff); /* software-enabled, spurious vector 0xff */
}

static bool send_level(uint8_t vector, bool level)
{
    return lapic_deliver(&lapic,
                         &(struct apic_message){.mode = APIC_FIXED, .vector = vector, .level = level});
}

static bool send_mode(enum apic_delivery_mode mode, uint8_t vector)
{
    return lapic_deliver(&lapic, &(struct apic_message){.mode = mode, .vector = vector});
}

/* ---- registers --------------------------------------------------------------------------------------- */

START_TEST(power_up_state)
{
    static const struct {
        uint32_t reg, value;
    } expected[] = {
        {0x020, 0},          {0x030, 0x00050014}, {0x080, 0},       {0x0a0, 0},       {0x0d0, 0},
        {0x0e0, 0xffffffff}, {0x0f0, 0xff},       {0x100, 0},       {0x180, 0},       {0x200, 0},
        {0x280, 0},          {0x300, 0},          {0x310, 0},       {0x320, 0x10000}, {0x330, 0x10000},
        {0x340, 0x10000},    {0x350, 0x10000},    {0x360, 0x10000}, {0x370, 0x10000}, {0x380, 0},
        {0x390, 0},          {0x3e0, 0},
    };
    lapic_reset(&lapic);
    for (size_t i = 0; i < sizeof(expected) / sizeof(expected[0]); i++)
        ck_assert_msg(rd(expected[i].reg) == expected[i].value, "register %#x is %#x", expected[i].reg,
                      rd(expected[i].reg));
    ck_assert_uint_eq(lapic.base, 0xfee00900);
    ck_assert(!lapic_intr(&lapic));
}
END_TEST

START_TEST(register_write_masks)
{
    static const struct {
        uint32_t reg, value;
    } all_ones[] = {
        {0x020, 0xff000000}, {0x080, 0xff},    {0x0d0, 0xff000000}, {0x0e0, 0xffffffff}, {0x0f0, 0x1ff},
        {0x310, 0xff000000}, {0x320, 0x300ff}, {0x330, 0x107ff},    {0x340, 0x107ff},    {0x350, 0x1a7ff},
        {0x360, 0x1a7ff},    {0x370, 0x100ff}, {0x3e0, 0xb},
    };
    for (size_t i = 0; i < sizeof(all_ones) / sizeof(all_ones[0]); i++) {
        wr(all_ones[i].reg, 0xffffffff);
        ck_assert_msg(rd(all_ones[i].reg) == all_ones[i].value, "register %#x is %#x", all_ones[i].reg,
                      rd(all_ones[i].reg));
    }
    wr(0x0e0, 0);
    ck_assert_uint_eq(rd(0x0e0), 0x0fffffff);
    wr(0x030, 0); /* read-only */
    wr(0x200, 0xffffffff);
    ck_assert_uint_eq(rd(0x030), 0x00050014);
    ck_assert_uint_eq(rd(0x200), 0);
    ck_assert_uint_eq(rd(0x280), 0);
    wr(0x280, 0);
    ck_assert_uint_eq(rd(0x280), 0); /* and no error was gathered */
}
END_TEST

START_TEST(access_sizes)
{
    wr(0xd0, 0xab000000);
    ck_assert_uint_eq(lapic_ops.read(&lapic, 0xd3, 1), 0xab);
    ck_assert_uint_eq(lapic_ops.read(&lapic, 0xd2, 2), 0xab00);
    ck_assert_uint_eq(lapic_ops.read(&lapic, 0xd4, 4), 0);
    ck_assert_uint_eq(lapic_ops.read(&lapic, 0xd1, 4), 0);
    lapic_ops.write(&lapic, 0xd0, 1, 0);
    lapic_ops.write(&lapic, 0xd4, 4, 0);
    ck_assert_uint_eq(rd(0xd0), 0xab000000);
}
END_TEST

START_TEST(reserved_register_is_an_error)
{
    wr(0x370, 0x40); /* error interrupt, vector 0x40 */
    ck_assert_uint_eq(rd(0x3f0), 0);
    ck_assert_uint_eq(rd(0x280), 0); /* not latched yet */
    ck_assert(lapic_intr(&lapic));
    ck_assert_uint_eq(lapic_acknowledge(&lapic), 0x40);
    wr(0x0b0, 0);
    wr(0x000, 1);
    ck_assert(!lapic_intr(&lapic)); /* not rearmed */
    wr(0x280, 0);
    ck_assert_uint_eq(rd(0x280), 0x80);
    wr(0x280, 0);
    ck_assert_uint_eq(rd(0x280), 0);
    wr(0x000, 1);
    ck_assert(lapic_intr(&lapic));
}
END_TEST

START_TEST(every_offset_is_harmless)
{
    for (uint32_t offset = 0; offset < 0x1000; offset++)
        for (unsigned size = 1; size <= 4 && offset + size <= 0x1000; size *= 2) {
            lapic_ops.write(&lapic, offset, size, 0xffffffff);
            lapic_ops.read(&lapic, offset, size);
            lapic_ops.write(&lapic, offset, size, 0);
        }
    while (lapic_intr(&lapic))
        lapic_acknowledge(&lapic);
}
END_TEST

/* ---- priorities -------------------------------------------------------------------------------------- */

START_TEST(interrupts_nest_by_class)
{
    ck_assert(send_level(0x41, false));
    ck_assert(send_level(0x45, false));
    ck_assert_uint_eq(rd(0x220), 0x22);
    ck_assert_uint_eq(lapic_acknowledge(&lapic), 0x45);
    ck_assert_uint_eq(rd(0x0a0), 0x40);
    ck_assert_uint_eq(rd(0x120), 0x20);
    ck_assert(!lapic_intr(&lapic)); /* 0x41 is of the class in service */
    ck_assert(send_level(0x50, false));
    ck_assert_uint_eq(lapic_acknowledge(&lapic), 0x50);
    ck_assert(!lapic_intr(&lapic));
    wr(0x0b0, 0); /* ends 0x50, the highest */
    ck_assert(!lapic_intr(&lapic));
    wr(0x0b0, 0); /* ends 0x45 */
    ck_assert(lapic_intr(&lapic));
    ck_assert_uint_eq(lapic_acknowledge(&lapic), 0x41);
    wr(0x0b0, 0);
    wr(0x0b0, 0); /* one too many */
    ck_assert_uint_eq(eois, 0);
    ck_assert_uint_eq(rd(0x0a0), 0);
}
END_TEST

START_TEST(task_priority_holds_back)
{
    wr(0x080, 0x4f);
    ck_assert_uint_eq(rd(0x0a0), 0x4f);
    ck_assert(send_level(0x4f, false));
    ck_assert(!lapic_intr(&lapic));
    wr(0x080, 0x3f);
    ck_assert(lapic_intr(&lapic));
    wr(0x080, 0xf0); /* raised between INTR and INTA: spurious, and nothing is lost */
    ck_assert_uint_eq(lapic_acknowledge(&lapic), 0xff);
    ck_assert_uint_eq(rd(0x120), 0);
    wr(0x080, 0);
    ck_assert_uint_eq(lapic_acknowledge(&lapic), 0x4f);
    ck_assert_uint_eq(rd(0x0a0), 0x40);
    wr(0x080, 0x48); /* same class: the TPR shows */
    ck_assert_uint_eq(rd(0x0a0), 0x48);
}
END_TEST

START_TEST(level_eoi_is_broadcast)
{
    send_level(0x60, true);
    ck_assert_uint_eq(rd(0x1b0), 1);
    ck_assert_uint_eq(lapic_acknowledge(&lapic), 0x60);
    wr(0x0b0, 0);
    ck_assert_uint_eq(eois, 1);
    ck_assert_uint_eq(last_eoi, 0x60);
    send_level(0x60, false); /* TMR follows the last acceptance */
    ck_assert_uint_eq(rd(0x1b0), 0);
    lapic_acknowledge(&lapic);
    wr(0x0b0, 0);
    ck_assert_uint_eq(eois, 1);
}
END_TEST

/* ---- messages ---------------------------------------------------------------------------------------- */

START_TEST(illegal_vector_is_an_error)
{
    ck_assert(send_level(15, false));
    wr(0x280, 0);
    ck_assert_uint_eq(rd(0x280), 0x40);
    ck_assert(!lapic_intr(&lapic));
    wr(0x370, 3); /* the error interrupt's own vector is illegal too */
    send_level(0, false);
    ck_assert(!lapic_intr(&lapic));
    ck_assert(send_level(16, false)); /* the lowest legal one */
    ck_assert_uint_eq(lapic_acknowledge(&lapic), 16);
}
END_TEST

START_TEST(software_disabled_takes_no_fixed)
{
    wr(0x320, 0x20040);
    send_level(0x90, false);
    wr(0x0f0, 0xff);
    ck_assert_uint_eq(rd(0x320), 0x30040); /* masked */
    wr(0x320, 0x20040);
    ck_assert_uint_eq(rd(0x320), 0x30040); /* and cannot be unmasked */
    ck_assert(!send_level(0x91, false));
    ck_assert(send_mode(APIC_NMI, 0));
    ck_assert_uint_eq(nmis, 1);
    ck_assert_uint_eq(lapic_acknowledge(&lapic), 0x90); /* what was pending is held */
}
END_TEST

START_TEST(destinations)
{
    static const struct {
        uint32_t dfr, ldr;
        uint8_t destination;
        bool logical, accepted;
    } cases[] = {
        {0xffffffff, 0, 0x05, false, true},          {0xffffffff, 0, 0x04, false, false},
        {0xffffffff, 0, 0xff, false, true},          {0xffffffff, 0x02000000, 0x02, true, true},
        {0xffffffff, 0x02000000, 0x06, true, true},  {0xffffffff, 0x02000000, 0x05, true, false},
        {0xffffffff, 0, 0xff, true, true},           {0x0fffffff, 0x32000000, 0x32, true, true},
        {0x0fffffff, 0x32000000, 0x36, true, true},  {0x0fffffff, 0x32000000, 0x22, true, false},
        {0x0fffffff, 0x32000000, 0x3d, true, false},
    };
    wr(0x020, 0x05000000);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        wr(0x0e0, cases[i].dfr);
        wr(0x0d0, cases[i].ldr);
        struct apic_message message = {.mode = APIC_LOWEST_PRIORITY,
                                       .vector = 0x30,
                                       .destination = cases[i].destination,
                                       .logical = cases[i].logical};
        ck_assert_msg(lapic_deliver(&lapic, &message) == cases[i].accepted, "case %zu", i);
    }
}
END_TEST

START_TEST(ipi_to_self)
{
    wr(0x300, 0x00044040); /* self, fixed, asserted */
    ck_assert_uint_eq(rd(0x300), 0x00044040);
    ck_assert_uint_eq(lapic_acknowledge(&lapic), 0x40);
    wr(0x300, 0x00088041); /* all including self; an IPI is an edge although it says level */
    wr(0x0b0, 0);
    ck_assert_uint_eq(lapic_acknowledge(&lapic), 0x41);
    wr(0x0b0, 0);
    ck_assert_uint_eq(eois, 0);
    wr(0x300, 0x000c4042); /* all but self */
    wr(0x310, 0x01000000);
    wr(0x300, 0x00004042); /* somebody else */
    ck_assert(!lapic_intr(&lapic));
    wr(0x310, 0);
    wr(0x300, 0x00005042); /* the delivery status bit is read-only */
    ck_assert_uint_eq(rd(0x300), 0x00004042);
    ck_assert_uint_eq(lapic_acknowledge(&lapic), 0x42);
}
END_TEST

START_TEST(ipi_modes)
{
    wr(0x300, 0x4400); /* NMI */
    ck_assert_uint_eq(nmis, 1);
    wr(0x300, 0x88500); /* xv6: INIT level de-assert to all, which resets nobody */
    wr(0x300, 0x8500);
    ck_assert_uint_eq(inits, 0);
    wr(0x300, 0x4500);
    ck_assert_uint_eq(inits, 1);
    wr(0x300, 0x4608); /* STARTUP to a running CPU */
    wr(0x300, 0x4240); /* SMI */
    wr(0x300, 0x4340); /* reserved */
    wr(0x300, 0x4740); /* reserved */
    ck_assert(!lapic_intr(&lapic));
    wr(0x300, 0x400f); /* illegal vector */
    wr(0x280, 0);
    ck_assert_uint_eq(rd(0x280), 0x20);
    ck_assert_uint_eq(nmis, 1);
    ck_assert_uint_eq(inits, 1);
}
END_TEST

START_TEST(extint_message)
{
    ck_assert(send_mode(APIC_EXTINT, 0x33));
    wr(0x080, 0xff); /* ExtINT passes the priorities by */
    ck_assert(lapic_intr(&lapic));
    ck_assert_uint_eq(lapic_acknowledge(&lapic), 0x77);
    ck_assert_uint_eq(inta_cycles, 1);
    ck_assert(!lapic_intr(&lapic));
}
END_TEST

/* ---- pins -------------------------------------------------------------------------------------------- */

START_TEST(virtual_wire_mode)
{
    lapic_reset(&lapic);
    lapic_set_lint(&lapic, 0, true);
    ck_assert(!lapic_intr(&lapic)); /* masked */
    lapic_enter_virtual_wire_mode(&lapic);
    ck_assert(lapic_intr(&lapic));
    ck_assert_uint_eq(lapic_acknowledge(&lapic), 0x77);
    lapic_set_lint(&lapic, 0, false);
    ck_assert(!lapic_intr(&lapic));
    lapic_set_lint(&lapic, 1, true);
    lapic_set_lint(&lapic, 1, true); /* NMI is an edge */
    ck_assert_uint_eq(nmis, 1);
    lapic_set_lint(&lapic, 1, false);
    wr(0x360, 0x10400);
    lapic_set_lint(&lapic, 1, true);
    ck_assert_uint_eq(nmis, 1);
    wr(0x350, 0x10700);
    lapic_set_lint(&lapic, 0, true);
    ck_assert(!lapic_intr(&lapic));
    lapic_set_lint(&lapic, 2, true); /* no such pin */
}
END_TEST

START_TEST(lint_fixed_edge)
{
    wr(0x350, 0x40);
    lapic_set_lint(&lapic, 0, true);
    lapic_set_lint(&lapic, 0, true);
    ck_assert_uint_eq(lapic_acknowledge(&lapic), 0x40);
    wr(0x0b0, 0);
    ck_assert(!lapic_intr(&lapic));
}
END_TEST

START_TEST(lint_fixed_level)
{
    wr(0x350, 0x8040);
    lapic_set_lint(&lapic, 0, true);
    ck_assert_uint_eq(rd(0x350), 0xc040); /* remote IRR */
    ck_assert_uint_eq(lapic_acknowledge(&lapic), 0x40);
    ck_assert(!lapic_intr(&lapic));
    wr(0x0b0, 0); /* still asserted: again */
    ck_assert_uint_eq(lapic_acknowledge(&lapic), 0x40);
    lapic_set_lint(&lapic, 0, false);
    wr(0x0b0, 0);
    ck_assert(!lapic_intr(&lapic));
    ck_assert_uint_eq(rd(0x350), 0x8040);
    wr(0x350, 0x18040);
    lapic_set_lint(&lapic, 0, true);
    ck_assert(!lapic_intr(&lapic));
    wr(0x350, 0x8040); /* unmasked while asserted */
    ck_assert(lapic_intr(&lapic));
}
END_TEST

START_TEST(apic_base)
{
    ck_assert_int_eq(lapic_write_base(&lapic, 0xfee00d00), LAPIC_BASE_FAULT); /* x2APIC */
    ck_assert_int_eq(lapic_write_base(&lapic, 0xfee00901), LAPIC_BASE_FAULT);
    ck_assert_int_eq(lapic_write_base(&lapic, 0x1000fee00900), LAPIC_BASE_FAULT);
    ck_assert_int_eq(lapic_write_base(&lapic, 0xd0000900), LAPIC_BASE_RELOCATION);
    ck_assert_uint_eq(lapic.base, 0xfee00900);
    wr(0x380, 1000);
    ck_assert_int_eq(lapic_write_base(&lapic, 0xfee00000), LAPIC_BASE_WRITTEN);
    ck_assert_uint_eq(lapic.base, 0xfee00100);
    ck_assert_uint_eq(rd(0x030), 0xffffffff); /* nobody there */
    wr(0x0f0, 0x1ff);
    ck_assert(!send_level(0x40, false));
    lapic_set_lint(&lapic, 0, true); /* the pins are the core's own now */
    lapic_set_lint(&lapic, 1, true);
    ck_assert(lapic_intr(&lapic));
    ck_assert_uint_eq(lapic_acknowledge(&lapic), 0x77);
    ck_assert_uint_eq(nmis, 1);
    ck_assert_int_eq(lapic_write_base(&lapic, 0xfee00900), LAPIC_BASE_WRITTEN);
    ck_assert_uint_eq(rd(0x0f0), 0xff); /* its state was lost */
    ck_assert_uint_eq(rd(0x380), 0);
}
END_TEST

/* ---- timer ------------------------------------------------------------------------------------------- */

START_TEST(timer_one_shot)
{
    wr(0x320, 0x40);
    wr(0x3e0, 0xb); /* divide by 1 */
    wr(0x380, 1000);
    ck_assert_uint_eq(rd(0x390), 1000);
    ck_assert_uint_eq(clock_next_deadline(&fake.clock), 1000);
    fake_clock_run_to(&fake, 999);
    ck_assert_uint_eq(rd(0x390), 1);
    ck_assert(!lapic_intr(&lapic));
    fake_clock_run_to(&fake, 1000);
    ck_assert_uint_eq(rd(0x390), 0);
    ck_assert_uint_eq(lapic_acknowledge(&lapic), 0x40);
    ck_assert_uint_eq(clock_next_deadline(&fake.clock), CLOCK_NO_DEADLINE);
    wr(0x380, 500);
    wr(0x380, 0); /* stops it */
    ck_assert_uint_eq(clock_next_deadline(&fake.clock), CLOCK_NO_DEADLINE);
    ck_assert_uint_eq(rd(0x390), 0);
}
END_TEST

START_TEST(timer_divides)
{
    static const unsigned divisor[8] = {2, 4, 8, 16, 32, 64, 128, 1};
    for (unsigned code = 0; code < 8; code++) {
        wr(0x320, 0x40);
        wr(0x3e0, (code & 3) | (code & 4) << 1);
        wr(0x380, 10);
        ck_assert_uint_eq(clock_next_deadline(&fake.clock) - fake.now, 10 * divisor[code]);
        fake.now += divisor[code] * 3;
        ck_assert_uint_eq(rd(0x390), 7);
    }
    wr(0x3e0, 0xb);
    wr(0x380, 0xffffffff);
    ck_assert_uint_eq(rd(0x390), 0xffffffff);
    wr(0x3e0, 0xa); /* divide by 128 from here on */
    ck_assert_uint_eq(rd(0x390), 0xffffffff);
    ck_assert_uint_eq(clock_next_deadline(&fake.clock) - fake.now, 0xffffffffull * 128);
}
END_TEST

START_TEST(timer_periodic)
{
    wr(0x320, 0x20040);
    wr(0x3e0, 0xb);
    wr(0x380, 100);
    for (unsigned i = 1; i <= 5; i++) {
        fake_clock_run_to(&fake, 100 * i);
        ck_assert_uint_eq(lapic_acknowledge(&lapic), 0x40);
        ck_assert_uint_eq(clock_next_deadline(&fake.clock), 100 * (i + 1));
        wr(0x0b0, 0);
        ck_assert(!lapic_intr(&lapic));
    }
    fake_clock_run_to(&fake,
                      1000 * 1000 * 1000 * 1000ull + 50); /* slept through 10^10 periods: one interrupt */
    ck_assert_uint_eq(rd(0x390), 50);
    ck_assert_uint_eq(lapic_acknowledge(&lapic), 0x40);
    wr(0x0b0, 0);
    ck_assert(!lapic_intr(&lapic));
    ck_assert_uint_eq(clock_next_deadline(&fake.clock), 1000 * 1000 * 1000 * 1000ull + 100);
}
END_TEST

START_TEST(timer_masked_does_not_wake_the_clock)
{
    wr(0x320, 0x30040);
    wr(0x3e0, 0xb);
    wr(0x380, 100);
    ck_assert_uint_eq(clock_next_deadline(&fake.clock), CLOCK_NO_DEADLINE);
    fake.now = 250;
    ck_assert_uint_eq(rd(0x390), 50);
    wr(0x320, 0x20040); /* unmasking does not bring the missed ones back */
    ck_assert(!lapic_intr(&lapic));
    ck_assert_uint_eq(clock_next_deadline(&fake.clock), 300);
    fake.now = 310; /* expired but not yet fired by the clock; masking now does not lose it */
    wr(0x320, 0x30040);
    ck_assert_uint_eq(lapic_acknowledge(&lapic), 0x40);
}
END_TEST

START_TEST(timer_shortest_period_is_bounded_by_acknowledgement)
{
    wr(0x320, 0x20040);
    wr(0x3e0, 0xb);
    wr(0x380, 1);
    fake_clock_run_to(&fake, 1);
    ck_assert_uint_eq(clock_next_deadline(&fake.clock), CLOCK_NO_DEADLINE); /* pending: nothing to add */
    fake.now = 1000;
    ck_assert_uint_eq(lapic_acknowledge(&lapic), 0x40);
    ck_assert_uint_eq(clock_next_deadline(&fake.clock), 1001);
}
END_TEST

START_TEST(timer_survives_software_disable_silently)
{
    wr(0x320, 0x20040);
    wr(0x3e0, 0xb);
    wr(0x380, 100);
    wr(0x0f0, 0xff);
    fake_clock_run_to(&fake, 150);
    ck_assert(!lapic_intr(&lapic));
    ck_assert_uint_eq(rd(0x390), 50);
    lapic_reset(&lapic);
    ck_assert_uint_eq(clock_next_deadline(&fake.clock), CLOCK_NO_DEADLINE);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("lapic");
    TCase *tcase = tcase_create("lapic");
    tcase_add_checked_fixture(tcase, setup, NULL);
    tcase_add_test(tcase, power_up_state);
    tcase_add_test(tcase, register_write_masks);
    tcase_add_test(tcase, access_sizes);
    tcase_add_test(tcase, reserved_register_is_an_error);
    tcase_add_test(tcase, every_offset_is_harmless);
    tcase_add_test(tcase, interrupts_nest_by_class);
    tcase_add_test(tcase, task_priority_holds_back);
    tcase_add_test(tcase, level_eoi_is_broadcast);
    tcase_add_test(tcase, illegal_vector_is_an_error);
    tcase_add_test(tcase, software_disabled_takes_no_fixed);
    tcase_add_test(tcase, destinations);
    tcase_add_test(tcase, ipi_to_self);
    tcase_add_test(tcase, ipi_modes);
    tcase_add_test(tcase, extint_message);
    tcase_add_test(tcase, virtual_wire_mode);
    tcase_add_test(tcase, lint_fixed_edge);
    tcase_add_test(tcase, lint_fixed_level);
    tcase_add_test(tcase, apic_base);
    tcase_add_test(tcase, timer_one_shot);
    tcase_add_test(tcase, timer_divides);
    tcase_add_test(tcase, timer_periodic);
    tcase_add_test(tcase, timer_masked_does_not_wake_the_clock);
    tcase_add_test(tcase, timer_shortest_period_is_bounded_by_acknowledgement);
    tcase_add_test(tcase, timer_survives_software_disable_silently);
    suite_add_tcase(suite, tcase);

    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
