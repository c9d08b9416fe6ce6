/*
 * Descriptor tables, TSSs and stacks full of chance: whatever they hold, an instruction finishes or faults, a
 * fault leaves the processor as it was, and no ring gains what its descriptors deny it. The generator is
 * seeded, so that a failure repeats; the case number is in its message.
 */
#include "fake_guest.h"

enum { N_CASES = 30000 };

static struct fake_machine machine;
static uint64_t generator;

/* Marsaglia's xorshift64. */
static uint32_t chance(uint32_t below)
{
    generator ^= generator << 13;
    generator ^= generator >> 7;
    generator ^= generator << 17;
    return (uint32_t)(generator >> 32) % below;
}

static bool one_in(uint32_t n)
{
    return chance(n) == 0;
}

/* Mostly a selector of something, of either table. */
static uint16_t any_selector(void)
{
    if (one_in(8))
        return (uint16_t)chance(0x10000);
    return (uint16_t)(chance(0x20) << 3 | (one_in(4) ? SELECTOR_TI : 0) | chance(4));
}

/* A descriptor that is nearly right: flat or short, with any type and DPL; or a gate. */
static void put_descriptor(gva_t address)
{
    static const uint32_t limits[] = {0xfffff, 0xfff, 0x67, 0x2b, 0};
    uint8_t access = (uint8_t)chance(0x100);

    if (one_in(2)) {
        fake_set_gate(&machine, address, any_selector(), one_in(4) ? chance(0xffffffff) : 0x5000,
                      (uint8_t)(access & ~0x10), (uint8_t)chance(0x100));
    } else {
        bool is_system = (access & 0x10) == 0;
        uint32_t base = is_system ? GUEST_TSS_B + chance(2) * 0x400 : one_in(4) ? chance(0x2000) : 0;

        fake_set_descriptor(&machine, address, 0, base, limits[chance(5)], access | (one_in(8) ? 0 : 0x80),
                            (uint8_t)chance(0x10));
    }
}

static void put_tss(gva_t tss)
{
    for (unsigned offset = 0; offset < 0x68; offset += 4)
        fake_write32(&machine, tss + offset, one_in(3) ? chance(0xffffffff) : any_selector());
    fake_write32(&machine, tss + 0x20, 0x5000);
    fake_write32(&machine, tss + 4, one_in(8) ? chance(0xffffffff) : GUEST_STACK0);
    fake_write16(&machine, tss + 8, one_in(2) ? SEL_DATA0 : any_selector());
}

/* An IRET frame, or parts of one, as the stack's next values. */
static void put_stack(const struct vcpu *vcpu)
{
    for (unsigned i = 0; i < 12; i++) {
        uint32_t value = one_in(3) ? chance(0xffffffff) : any_selector();

        if (i == 0 || (i == 3 && one_in(2)))
            value = 0x5000;
        fake_write32(&machine, vcpu->gpr[ESP] + 4 * i, value);
    }
}

static struct vcpu *make_case(unsigned number)
{
    struct vcpu *vcpu = &machine.vcpu;

    generator = 0x9e3779b97f4a7c15 ^ ((uint64_t)number << 20 | number);
    for (unsigned i = 0; i < 4; i++)
        chance(2);
    vcpu_reset(vcpu);
    memset(machine.rights, FAKE_ALL_RIGHTS, sizeof machine.rights);
    machine.stop = STOP_NONE;
    machine.n_injections = 0;
    for (unsigned i = 1; i < 0x40; i++)
        put_descriptor(GUEST_GDT + i * 8);
    guest_fill_tables(&machine);
    for (unsigned i = 1; i < 8; i++) /* and something new in places that everybody knows */
        if (one_in(3))
            put_descriptor(GUEST_GDT + chance(0x20) * 8);
    for (unsigned i = 0; i < 4; i++)
        put_descriptor(GUEST_LDT + i * 8);
    for (unsigned i = 0; i < 0x100; i++) {
        if (one_in(3))
            put_descriptor(GUEST_IDT + i * 8);
        else
            guest_set_idt(&machine, i, one_in(4) ? SEL_TSS_B : SEL_CODE0, 0x5000, one_in(4) ? 0xe5 : 0xee);
    }
    put_tss(GUEST_TSS);
    put_tss(GUEST_TSS_B);
    put_tss(GUEST_TSS_16);

    vcpu_set_flat(vcpu, SEL_CODE0, SEL_DATA0, GUEST_CODE);
    vcpu->gdtr = (struct table_register){GUEST_GDT, (uint16_t)(one_in(8) ? chance(0x200) : 0x1ff)};
    vcpu->idtr = (struct table_register){GUEST_IDT, (uint16_t)(one_in(8) ? chance(0x800) : 0x7ff)};
    vcpu->tr =
        (struct segment){SEL_TSS, one_in(4) ? 0x83 : 0x8b, GUEST_TSS, one_in(4) ? chance(0x80) : 0x2ff};
    vcpu->ldtr = (struct segment){SEL_LDT, 0x82, GUEST_LDT, GUEST_LDT_LIMIT};
    vcpu->gpr[ESP] = GUEST_STACK;
    if (one_in(2))
        guest_enter_ring(vcpu, one_in(3) ? 1 : 3);
    else if (one_in(4))
        guest_enter_v8086(vcpu);
    if (one_in(8))
        vcpu->segment[SEG_SS].limit = GUEST_STACK + chance(0x20);
    if (one_in(4))
        vcpu->eflags |= EFLAGS_IOPL;
    if (one_in(4) && !vcpu_is_v8086(vcpu))
        vcpu->eflags |= EFLAGS_NT;
    if (one_in(8))
        fake_set_rights(&machine, chance(5) * PAGE_SIZE, (uint8_t)chance(8));
    put_stack(vcpu);
    return vcpu;
}

static unsigned make_instruction(const struct vcpu *vcpu, uint8_t *bytes)
{
    static const uint8_t templates[][8] = {
        {0xea},
        {0x9a},
        {0xcb},
        {0xca, 8, 0},
        {0xcf},
        {0xcd},
        {0xcc},
        {0xf1},
        {0x8e, 0xd8},
        {0x8e, 0xd0},
        {0x07},
        {0x17},
        {0x1f},
        {0x0f, 0xa1},
        {0x0f, 0x00, 0xd0},
        {0x0f, 0x00, 0xd8},
        {0x0f, 0x02, 0xd8},
        {0x0f, 0x03, 0xd8},
        {0x0f, 0x00, 0xe0},
        {0x0f, 0x00, 0xe8},
        {0x0f, 0x34},
        {0x0f, 0x35},
    };
    static const uint8_t lengths[] = {7, 7, 1, 3, 1, 2, 1, 1, 2, 2, 1, 1, 1, 2, 3, 3, 3, 3, 3, 3, 2, 2};
    unsigned i = chance(sizeof lengths);
    unsigned n = 0;

    if (one_in(6))
        bytes[n++] = 0x66;
    memcpy(bytes + n, templates[i], lengths[i]);
    if (i < 2) {
        unsigned operand = (vcpu_code_size(vcpu) == 4) == (n == 0) ? 4 : 2;
        uint16_t selector = any_selector();

        fake_write32(&machine, 0x8000, 0x5000);
        memcpy(bytes + n + 1, &(uint32_t){0x5000}, operand);
        memcpy(bytes + n + 1 + operand, &selector, 2);
        return n + 3 + operand;
    }
    if (bytes[n] == 0xcd)
        bytes[n + 1] = (uint8_t)chance(0x100);
    return n + lengths[i];
}

/* A task switch sets CR0.TS; what faults after it is the new task's. */
static bool has_switched(const struct vcpu *vcpu)
{
    return (vcpu->cr0 & CR0_TS) != 0;
}

/* What the CPL may use, wherever it came from. */
static void assert_privileges_hold(const struct vcpu *vcpu, unsigned number)
{
    static const enum segment_index data[] = {SEG_DS, SEG_ES, SEG_FS, SEG_GS};

    if (vcpu_is_v8086(vcpu)) {
        ck_assert_uint_eq(vcpu->cpl, 3);
        return;
    }
    ck_assert_msg(vcpu->cpl == (vcpu->segment[SEG_CS].selector & SELECTOR_RPL), "case %u: CS", number);
    ck_assert_msg((vcpu->segment[SEG_CS].attributes & 0x98) == 0x98, "case %u: CS is not code", number);
    ck_assert_msg(vcpu->eip <= vcpu->segment[SEG_CS].limit, "case %u: eip", number);
    ck_assert_msg((vcpu->segment[SEG_SS].attributes & 0x9a) == 0x92, "case %u: SS is not writable", number);
    ck_assert_msg((vcpu->segment[SEG_SS].attributes >> SEGMENT_DPL_SHIFT & 3) == vcpu->cpl, "case %u: SS",
                  number);
    for (unsigned i = 0; i < 4; i++) {
        uint16_t attributes = vcpu->segment[data[i]].attributes;

        if (attributes == 0 || (attributes & 0x1c) == 0x1c)
            continue;
        ck_assert_msg((attributes >> SEGMENT_DPL_SHIFT & 3) >= vcpu->cpl, "case %u: data segment %u", number,
                      i);
    }
}

START_TEST(no_table_breaks_the_processor)
{
    unsigned n_done = 0, n_faults = 0, n_switches = 0, n_stops = 0;

    fake_machine_reset(&machine);
    for (unsigned number = 0; number < N_CASES; number++) {
        struct vcpu *vcpu = make_case(number);
        uint8_t bytes[16];
        unsigned n = make_instruction(vcpu, bytes);
        struct vcpu before;
        struct insn insn;
        enum outcome outcome;

        ck_assert_int_eq(decode_insn(bytes, n, vcpu_code_size(vcpu), &insn), DECODE_OK);
        memcpy(&before, vcpu, sizeof before);
        outcome = vcpu_emulate(vcpu, &insn);
        ck_assert_msg(outcome == OUTCOME_DONE || outcome == OUTCOME_FAULT, "case %u: outcome %d", number,
                      outcome);
        if (outcome == OUTCOME_FAULT && !has_switched(vcpu)) {
            struct fault fault = vcpu->fault;

            n_faults++;
            memcpy(&vcpu->fault, &before.fault, sizeof before.fault);
            ck_assert_msg(memcmp(vcpu, &before, sizeof before) == 0, "case %u: a fault changed the processor",
                          number);
            outcome = vcpu_deliver_fault(vcpu, &fault);
            ck_assert_msg(outcome == OUTCOME_DONE || outcome == OUTCOME_STOP, "case %u: delivery", number);
        }
        n_stops += outcome == OUTCOME_STOP;
        n_switches += has_switched(vcpu);
        if (outcome != OUTCOME_DONE)
            continue;
        n_done++;
        if (insn.opcode != 0x35) /* SYSEXIT leaves the kernel's data segments, by design */
            assert_privileges_hold(vcpu, number);
    }
    /* The cases are worth something only if they reach everything. */
    ck_assert_uint_gt(n_done, N_CASES / 10);
    ck_assert_uint_gt(n_faults, N_CASES / 10);
    ck_assert_uint_gt(n_stops, N_CASES / 100);
    ck_assert_uint_gt(n_switches, N_CASES / 100);
}
END_TEST

int main(void)
{
    const TTest *tests[] = {no_table_breaks_the_processor};

    return guest_run_suite("hostile tables", tests, sizeof tests / sizeof tests[0]);
}
