/* String instructions: direction, address size, segments, repetition, and how far they get before a fault. */
#include "fake_guest.h"
#include "hostile_values.h"

static struct fake_machine machine, reachable;

#define SOURCE      0x40000u
#define DESTINATION 0x50000u

static struct vcpu *reset(uint32_t ecx)
{
    struct vcpu *vcpu = guest_reset(&machine);

    vcpu->gpr[ESI] = SOURCE;
    vcpu->gpr[EDI] = DESTINATION;
    vcpu->gpr[ECX] = ecx;
    return vcpu;
}

START_TEST(movs_moves_in_both_directions)
{
    struct vcpu *vcpu = reset(3);

    fake_write(&machine, SOURCE, "abcdefghijkl", 12);
    guest_assert_done(vcpu, 0xf3, 0xa5); /* rep movsd */
    ck_assert_mem_eq(machine.ram + DESTINATION, "abcdefghijkl", 12);
    ck_assert_uint_eq(vcpu->gpr[ESI], SOURCE + 12);
    ck_assert_uint_eq(vcpu->gpr[EDI], DESTINATION + 12);
    ck_assert_uint_eq(vcpu->gpr[ECX], 0);
    ck_assert_uint_eq(vcpu->eip, GUEST_CODE + 2);

    vcpu = reset(4);
    fake_write(&machine, SOURCE - 3, "wxyz", 4);
    vcpu->eflags |= EFLAGS_DF;
    guest_assert_done(vcpu, 0xf3, 0xa4); /* rep movsb */
    ck_assert_mem_eq(machine.ram + DESTINATION - 3, "wxyz", 4);
    ck_assert_uint_eq(vcpu->gpr[ESI], SOURCE - 4);
    ck_assert_uint_eq(vcpu->gpr[EDI], DESTINATION - 4);
}
END_TEST

START_TEST(overlapping_bytes_move_one_by_one)
{
    struct vcpu *vcpu = reset(7);

    vcpu->gpr[EDI] = SOURCE + 1;
    fake_write(&machine, SOURCE, "a.......", 8);
    guest_assert_done(vcpu, 0xf3, 0xa4);
    ck_assert_mem_eq(machine.ram + SOURCE, "aaaaaaaa", 8);
}
END_TEST

START_TEST(a_count_of_zero_does_nothing)
{
    struct vcpu *vcpu = reset(0);
    uint32_t eflags = vcpu->eflags;

    vcpu->gpr[ESI] = vcpu->gpr[EDI] = 0xf0000000; /* nothing there */
    guest_assert_done(vcpu, 0xf3, 0xa4);
    guest_assert_done(vcpu, 0xf3, 0xa6);
    ck_assert_uint_eq(vcpu->gpr[ESI], 0xf0000000);
    ck_assert_uint_eq(vcpu->eflags, eflags);
}
END_TEST

START_TEST(sixteen_bit_addresses_wrap_and_leave_the_upper_halves)
{
    struct vcpu *vcpu = reset(0xabcd0002);

    vcpu->gpr[EDI] = 0x7777ffff;
    vcpu->gpr[EAX] = 0x5a;
    guest_assert_done(vcpu, 0xf3, 0x67, 0xaa); /* rep stosb, by DI and CX */
    ck_assert_uint_eq(vcpu->gpr[EDI], 0x77770001);
    ck_assert_uint_eq(vcpu->gpr[ECX], 0xabcd0000);
    ck_assert_uint_eq(fake_read8(&machine, 0xffff), 0x5a);
    ck_assert_uint_eq(fake_read8(&machine, 0), 0x5a);
}
END_TEST

START_TEST(only_the_source_can_be_overridden)
{
    struct vcpu *vcpu = reset(1);

    vcpu->segment[SEG_FS].base = 0x100;
    fake_write32(&machine, SOURCE + 0x100, 0xcafef00d);
    guest_assert_done(vcpu, 0x64, 0xa5); /* fs movsd */
    ck_assert_uint_eq(fake_read32(&machine, DESTINATION), 0xcafef00d);
    vcpu->gpr[EDI] = DESTINATION + 0x200;
    vcpu->gpr[EAX] = 0x12345678;
    guest_assert_done(vcpu, 0x64, 0xab); /* fs stosd: to ES all the same */
    ck_assert_uint_eq(fake_read32(&machine, DESTINATION + 0x200), 0x12345678);
}
END_TEST

START_TEST(lods_keeps_the_rest_of_eax)
{
    struct vcpu *vcpu = reset(0);

    vcpu->gpr[EAX] = 0xffffffff;
    fake_write32(&machine, SOURCE, 0x44332211);
    guest_assert_done(vcpu, 0xac);
    ck_assert_uint_eq(vcpu->gpr[EAX], 0xffffff11);
    guest_assert_done(vcpu, 0x66, 0xad);
    ck_assert_uint_eq(vcpu->gpr[EAX], 0xffff3322);
    ck_assert_uint_eq(vcpu->gpr[ESI], SOURCE + 3);
}
END_TEST

/* As processors do it, which counts where both operands fault. */
START_TEST(cmps_reads_the_second_operand_first)
{
    struct vcpu *vcpu = reset(1);

    vcpu->gpr[ESI] = 0xf0000000; /* nothing there */
    vcpu->gpr[EDI] = 0xe0000000;
    ck_assert_int_eq(guest_run(vcpu, 0xa7), OUTCOME_FAULT); /* cmpsd */
    ck_assert_uint_eq(vcpu->fault.cr2, 0xe0000000);

    vcpu = reset(1);
    guest_enter_ring(vcpu, 3);
    vcpu->cr0 |= CR0_AM;
    vcpu->eflags |= EFLAGS_AC;
    vcpu->gpr[ESI]++;
    vcpu->gpr[EDI] = 0xe0000000;
    ck_assert_int_eq(guest_run(vcpu, 0xa7), OUTCOME_FAULT);
    ck_assert_int_eq(vcpu->fault.vector, EXCEPTION_PF);
}
END_TEST

START_TEST(repe_and_repne_end_where_zf_says)
{
    struct vcpu *vcpu = reset(8);

    fake_write(&machine, SOURCE, "abcXefgh", 8);
    fake_write(&machine, DESTINATION, "abcdefgh", 8);
    guest_assert_done(vcpu, 0xf3, 0xa6); /* repe cmpsb */
    ck_assert_uint_eq(vcpu->gpr[ECX], 4);
    ck_assert_uint_eq(vcpu->gpr[ESI], SOURCE + 4);
    /* 'X' - 'd' is f4h */
    ck_assert_uint_eq(vcpu->eflags & 0x8d5, EFLAGS_CF | EFLAGS_SF);

    vcpu = reset(8);
    fake_write(&machine, DESTINATION, "abcdefgh", 8);
    vcpu->gpr[EAX] = 'c';
    guest_assert_done(vcpu, 0xf2, 0xae); /* repne scasb */
    ck_assert_uint_eq(vcpu->gpr[ECX], 5);
    ck_assert_uint_eq(vcpu->gpr[EDI], DESTINATION + 3);
    ck_assert_uint_eq(vcpu->eflags & EFLAGS_ZF, EFLAGS_ZF);
}
END_TEST

START_TEST(a_fault_leaves_the_elements_before_it_done)
{
    struct vcpu *vcpu = reset(10);

    vcpu->gpr[EDI] = DESTINATION + PAGE_SIZE - 12;
    vcpu->gpr[EAX] = 0xa5a5a5a5;
    fake_set_rights(&machine, DESTINATION + PAGE_SIZE, PTE_P);
    ck_assert_int_eq(guest_run(vcpu, 0xf3, 0xab), OUTCOME_FAULT); /* rep stosd */
    ck_assert_int_eq(vcpu->fault.vector, EXCEPTION_PF);
    ck_assert_uint_eq(vcpu->fault.cr2, DESTINATION + PAGE_SIZE);
    ck_assert_uint_eq(vcpu->gpr[ECX], 7);
    ck_assert_uint_eq(vcpu->gpr[EDI], DESTINATION + PAGE_SIZE);
    ck_assert_uint_eq(vcpu->eip, GUEST_CODE);

    fake_set_rights(&machine, DESTINATION + PAGE_SIZE, FAKE_ALL_RIGHTS);
    guest_assert_done(vcpu, 0xf3, 0xab);
    ck_assert_uint_eq(vcpu->gpr[ECX], 0);
    ck_assert_uint_eq(fake_read32(&machine, DESTINATION + PAGE_SIZE + 24), 0xa5a5a5a5);
    ck_assert_uint_eq(fake_read32(&machine, DESTINATION + PAGE_SIZE + 28), 0);
}
END_TEST

START_TEST(a_long_one_comes_back_in_between)
{
    struct vcpu *vcpu = reset(10000);
    unsigned n_calls = 1;
    enum outcome outcome;

    while ((outcome = guest_run(vcpu, 0xf3, 0xaa)) == OUTCOME_PARTIAL) {
        ck_assert_uint_eq(vcpu->eip, GUEST_CODE);
        ck_assert_uint_eq(vcpu->gpr[EDI] - DESTINATION, 10000 - vcpu->gpr[ECX]);
        ck_assert_uint_eq(vcpu->eflags & EFLAGS_RF, EFLAGS_RF);
        n_calls++;
    }
    ck_assert_int_eq(outcome, OUTCOME_DONE);
    ck_assert_uint_eq(n_calls, 3);
    ck_assert_uint_eq(vcpu->gpr[ECX], 0);
    ck_assert_uint_eq(vcpu->eflags & EFLAGS_RF, 0);
}
END_TEST

START_TEST(single_step_traps_after_each_element)
{
    struct vcpu *vcpu = reset(2);

    vcpu->eflags |= EFLAGS_TF;
    ck_assert_int_eq(guest_run(vcpu, 0xf3, 0xaa), OUTCOME_FAULT);
    ck_assert_int_eq(vcpu->fault.vector, EXCEPTION_DB);
    ck_assert_uint_eq(vcpu->gpr[ECX], 1);
    ck_assert_uint_eq(vcpu->eip, GUEST_CODE);
    ck_assert_int_eq(guest_run(vcpu, 0xf3, 0xaa), OUTCOME_FAULT);
    ck_assert_uint_eq(vcpu->gpr[ECX], 0);
    ck_assert_uint_eq(vcpu->eip, GUEST_CODE + 2);
}
END_TEST

/* ---- many elements at once: the same as one by one ----------------------------------------------------- */

#define LOW  0x60000u /* copies are between addresses around here, so that they often overlap */
#define HIGH 0x64000u

static uint32_t near_an_edge(struct chance *chance)
{
    static const uint32_t edges[] = {LOW, LOW, LOW + 0x200, LOW + PAGE_SIZE, HIGH, 0xffff, 0, FAKE_RAM_SIZE};

    return PICK(chance, edges) + chance_below(chance, 40) - 20;
}

static struct segment any_segment(struct chance *chance)
{
    struct segment segment = {.selector = SEL_DATA0, .attributes = 0xc093, .limit = UINT32_MAX};

    switch (chance_below(chance, 6)) {
    case 0:
        segment.limit = near_an_edge(chance);
        break;
    case 1:
        segment.attributes = 0x4097; /* expand-down */
        segment.limit = near_an_edge(chance);
        break;
    case 2:
        segment.base = -near_an_edge(chance);
        break;
    case 3:
        segment.base = chance_below(chance, 8);
        break;
    default:
        break;
    }
    return segment;
}

static void prepare(struct fake_machine *to, struct chance chance, bool is_reachable)
{
    struct vcpu *vcpu = guest_reset(to);
    static const uint32_t counts[] = {1, 3, 4, 5, 40, 500, 1024, 1025, 2000, 5000, 0x10002};

    to->is_reachable = is_reachable;
    for (uint32_t i = 0; i < FAKE_RAM_SIZE - LOW / 2; i++)
        to->ram[LOW / 2 + i] = (uint8_t)(i ^ i >> 7);
    if (chance_one_in(&chance, 3))
        fake_set_rights(to, LOW + PAGE_SIZE * chance_below(&chance, 4), (uint8_t)chance_below(&chance, 8));
    vcpu->gpr[ESI] = near_an_edge(&chance);
    vcpu->gpr[EDI] =
        chance_one_in(&chance, 3) ? vcpu->gpr[ESI] + chance_below(&chance, 9) - 4 : near_an_edge(&chance);
    vcpu->gpr[ECX] = PICK(&chance, counts);
    vcpu->gpr[EAX] = chance_any(&chance);
    vcpu->segment[SEG_DS] = any_segment(&chance);
    vcpu->segment[SEG_ES] = any_segment(&chance);
    if (chance_one_in(&chance, 2))
        vcpu->eflags |= EFLAGS_DF;
    if (chance_one_in(&chance, 4)) {
        vcpu->cpl = 3;
        vcpu->cr0 |= CR0_AM;
        vcpu->eflags |= EFLAGS_AC;
    }
}

/* What is run, and what has to be the same. */
static enum outcome run_one(struct fake_machine *on, struct chance chance)
{
    static const uint8_t opcodes[] = {0xa4, 0xa5, 0xaa, 0xab};
    uint8_t prefix = chance_one_in(&chance, 2) ? 0x66 : 0x3e, width = chance_one_in(&chance, 4) ? 0x67 : 0x3e;

    return guest_run(&on->vcpu, 0xf3, prefix, width, PICK(&chance, opcodes));
}

START_TEST(at_once_is_as_one_by_one)
{
    for (uint64_t seed = 1; seed <= 4000; seed++) {
        struct chance chance = chance_of_seed(seed), code = chance_of_seed(~seed);
        enum outcome one_by_one, at_once;
        unsigned turns = 0;

        prepare(&machine, chance, false);
        prepare(&reachable, chance, true);
        do {
            one_by_one = run_one(&machine, code);
            at_once = run_one(&reachable, code);
            ck_assert_msg(one_by_one == at_once, "seed %u: outcome %d, at once %d", (unsigned)seed,
                          one_by_one, at_once);
            ck_assert_msg(memcmp(machine.vcpu.gpr, reachable.vcpu.gpr, sizeof machine.vcpu.gpr) == 0 &&
                              machine.vcpu.eip == reachable.vcpu.eip &&
                              machine.vcpu.eflags == reachable.vcpu.eflags,
                          "seed %u: registers differ", (unsigned)seed);
            ck_assert_msg(one_by_one != OUTCOME_FAULT ||
                              (machine.vcpu.fault.vector == reachable.vcpu.fault.vector &&
                               machine.vcpu.fault.error == reachable.vcpu.fault.error &&
                               machine.vcpu.fault.cr2 == reachable.vcpu.fault.cr2),
                          "seed %u: faults differ", (unsigned)seed);
            ck_assert_msg(memcmp(machine.ram, reachable.ram, sizeof machine.ram) == 0,
                          "seed %u: memory differs", (unsigned)seed);
        } while (one_by_one == OUTCOME_PARTIAL && ++turns < 20);
    }
    /* Nor was it one by one. */
    prepare(&reachable, chance_of_seed(1), true);
    reachable.vcpu.segment[SEG_ES] = reachable.vcpu.segment[SEG_SS];
    reachable.vcpu.gpr[EDI] = DESTINATION;
    reachable.vcpu.gpr[ECX] = 1024;
    reachable.vcpu.cpl = 0;
    reachable.n_writes = 0;
    guest_assert_done(&reachable.vcpu, 0xf3, 0xab);
    ck_assert_uint_eq(reachable.n_writes, 0);
}
END_TEST

int main(void)
{
    const TTest *tests[] = {
        movs_moves_in_both_directions,
        overlapping_bytes_move_one_by_one,
        a_count_of_zero_does_nothing,
        sixteen_bit_addresses_wrap_and_leave_the_upper_halves,
        only_the_source_can_be_overridden,
        lods_keeps_the_rest_of_eax,
        cmps_reads_the_second_operand_first,
        repe_and_repne_end_where_zf_says,
        a_fault_leaves_the_elements_before_it_done,
        a_long_one_comes_back_in_between,
        single_step_traps_after_each_element,
        at_once_is_as_one_by_one,
    };

    return guest_run_suite("string", tests, sizeof tests / sizeof tests[0]);
}
