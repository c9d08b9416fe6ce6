/* String instructions: direction, address size, segments, repetition, and how far they get before a fault. */
#include "fake_guest.h"

static struct fake_machine machine;

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

int main(void)
{
    const TTest *tests[] = {
        movs_moves_in_both_directions,     overlapping_bytes_move_one_by_one,
        a_count_of_zero_does_nothing,      sixteen_bit_addresses_wrap_and_leave_the_upper_halves,
        only_the_source_can_be_overridden, lods_keeps_the_rest_of_eax,
        repe_and_repne_end_where_zf_says,  a_fault_leaves_the_elements_before_it_done,
        a_long_one_comes_back_in_between,  single_step_traps_after_each_element,
    };

    return guest_run_suite("string", tests, sizeof tests / sizeof tests[0]);
}
