/* PUSH, POP and their relatives, near CALL and RET, PUSHF and POPF: in 16-bit sizes too, which
 * native_oracle.h does not reach, and at the edges. Expected values are the SDM's. */
#include "fake_guest.h"

static struct fake_machine machine;

static struct vcpu *reset_16bit_stack(uint32_t esp)
{
    struct vcpu *vcpu = guest_reset(&machine);

    vcpu->segment[SEG_SS] = (struct segment){SEL_DATA16, 0x0093, 0x60000, 0xffff};
    vcpu->gpr[ESP] = esp;
    return vcpu;
}

/* ---- push and pop -------------------------------------------------------------------------------------- */

START_TEST(push_esp_pushes_its_old_value)
{
    struct vcpu *vcpu = guest_reset(&machine);

    guest_assert_done(vcpu, 0x54);
    ck_assert_uint_eq(vcpu->gpr[ESP], GUEST_STACK - 4);
    ck_assert_uint_eq(guest_stack32(vcpu, 0), GUEST_STACK);
    guest_assert_done(vcpu, 0xff, 0x34, 0x24); /* push [esp] */
    ck_assert_uint_eq(guest_stack32(vcpu, 0), GUEST_STACK);
}
END_TEST

START_TEST(pop_to_memory_uses_the_incremented_esp)
{
    struct vcpu *vcpu = guest_reset(&machine);

    guest_push(vcpu, 0x12345678);
    guest_assert_done(vcpu, 0x8f, 0x04, 0x24); /* pop [esp] */
    ck_assert_uint_eq(vcpu->gpr[ESP], GUEST_STACK);
    ck_assert_uint_eq(fake_read32(&machine, GUEST_STACK), 0x12345678);
    guest_push(vcpu, 0x87654321);
    guest_assert_done(vcpu, 0x5c); /* pop esp */
    ck_assert_uint_eq(vcpu->gpr[ESP], 0x87654321);
}
END_TEST

START_TEST(pop_to_memory_that_faults_leaves_esp)
{
    struct vcpu *vcpu = guest_reset(&machine);

    guest_push(vcpu, 1);
    vcpu->gpr[EBX] = FAKE_RAM_SIZE;
    guest_assert_fault(vcpu, EXCEPTION_PF, PF_WRITE, 0x8f, 0x03); /* pop [ebx] */
}
END_TEST

START_TEST(immediates_are_extended_to_the_operand_size)
{
    struct vcpu *vcpu = guest_reset(&machine);

    guest_assert_done(vcpu, 0x6a, 0x80);
    ck_assert_uint_eq(guest_stack32(vcpu, 0), 0xffffff80);
    guest_assert_done(vcpu, 0x66, 0x6a, 0x80);
    ck_assert_uint_eq(vcpu->gpr[ESP], GUEST_STACK - 6);
    ck_assert_uint_eq(fake_read16(&machine, GUEST_STACK - 6), 0xff80);
}
END_TEST

START_TEST(a_16_bit_stack_moves_sp_only)
{
    struct vcpu *vcpu = reset_16bit_stack(0x12340000);

    vcpu->gpr[EAX] = 0xcafef00d;
    guest_assert_done(vcpu, 0x50); /* push eax */
    ck_assert_uint_eq(vcpu->gpr[ESP], 0x1234fffc);
    ck_assert_uint_eq(fake_read32(&machine, 0x6fffc), 0xcafef00d);
    guest_assert_done(vcpu, 0x5b); /* pop ebx */
    ck_assert_uint_eq(vcpu->gpr[ESP], 0x12340000);
    ck_assert_uint_eq(vcpu->gpr[EBX], 0xcafef00d);
    vcpu->gpr[ESP] = 0x12340002;
    guest_assert_fault(vcpu, EXCEPTION_SS, 0, 0x50); /* fffe-10001 */
}
END_TEST

START_TEST(pusha_and_popa_skip_esp)
{
    struct vcpu *vcpu = guest_reset(&machine);

    for (unsigned i = 0; i < GPR_COUNT; i++) {
        if (i != ESP)
            vcpu->gpr[i] = 0x11111111 * (i + 1);
    }
    guest_assert_done(vcpu, 0x60);
    ck_assert_uint_eq(vcpu->gpr[ESP], GUEST_STACK - 32);
    ck_assert_uint_eq(guest_stack32(vcpu, 7), 0x11111111); /* eax */
    ck_assert_uint_eq(guest_stack32(vcpu, 3), GUEST_STACK);
    ck_assert_uint_eq(guest_stack32(vcpu, 0), 0x88888888); /* edi */
    fake_write32(&machine, vcpu->gpr[ESP] + 12, 0xdeadbeef);
    vcpu->gpr[EAX] = vcpu->gpr[EDI] = 0;
    guest_assert_done(vcpu, 0x61);
    ck_assert_uint_eq(vcpu->gpr[EAX], 0x11111111);
    ck_assert_uint_eq(vcpu->gpr[EDI], 0x88888888);
    ck_assert_uint_eq(vcpu->gpr[ESP], GUEST_STACK);

    guest_assert_done(vcpu, 0x66, 0x60);
    ck_assert_uint_eq(vcpu->gpr[ESP], GUEST_STACK - 16);
    vcpu->gpr[EAX] = 0xaaaaaaaa;
    guest_assert_done(vcpu, 0x66, 0x61);
    ck_assert_uint_eq(vcpu->gpr[EAX], 0xaaaa1111);
}
END_TEST

/* ---- frames -------------------------------------------------------------------------------------------- */

START_TEST(enter_and_leave_are_each_other_s_inverse)
{
    struct vcpu *vcpu = guest_reset(&machine);

    vcpu->gpr[EBP] = 0x11112222;
    guest_assert_done(vcpu, 0xc8, 0x10, 0x00, 0x00); /* enter 16, 0 */
    ck_assert_uint_eq(vcpu->gpr[EBP], GUEST_STACK - 4);
    ck_assert_uint_eq(vcpu->gpr[ESP], GUEST_STACK - 20);
    ck_assert_uint_eq(fake_read32(&machine, GUEST_STACK - 4), 0x11112222);
    guest_assert_done(vcpu, 0xc9);
    ck_assert_uint_eq(vcpu->gpr[EBP], 0x11112222);
    ck_assert_uint_eq(vcpu->gpr[ESP], GUEST_STACK);
}
END_TEST

START_TEST(enter_copies_the_display)
{
    struct vcpu *vcpu = guest_reset(&machine);
    uint32_t outer = GUEST_STACK + 0x100;

    vcpu->gpr[EBP] = outer;
    fake_write32(&machine, outer - 4, 0xaaaa0001);
    fake_write32(&machine, outer - 8, 0xaaaa0002);
    guest_assert_done(vcpu, 0xc8, 0x08, 0x00, 0x03); /* enter 8, 3 */
    ck_assert_uint_eq(vcpu->gpr[EBP], GUEST_STACK - 4);
    ck_assert_uint_eq(vcpu->gpr[ESP], GUEST_STACK - 16 - 8);
    ck_assert_uint_eq(fake_read32(&machine, GUEST_STACK - 4), outer);
    ck_assert_uint_eq(fake_read32(&machine, GUEST_STACK - 8), 0xaaaa0001);
    ck_assert_uint_eq(fake_read32(&machine, GUEST_STACK - 12), 0xaaaa0002);
    ck_assert_uint_eq(fake_read32(&machine, GUEST_STACK - 16), GUEST_STACK - 4);
}
END_TEST

START_TEST(enter_needs_a_writable_final_top)
{
    struct vcpu *vcpu = guest_reset(&machine);

    fake_set_rights(&machine, GUEST_STACK - 0x2000, PTE_P);
    guest_assert_fault(vcpu, EXCEPTION_PF, PF_PRESENT | PF_WRITE, 0xc8, 0x00, 0x18,
                       0x00); /* enter 1800h, 0 */
}
END_TEST

/* ---- calls --------------------------------------------------------------------------------------------- */

START_TEST(call_and_ret_use_the_operand_size)
{
    struct vcpu *vcpu = guest_reset(&machine);

    guest_assert_done(vcpu, 0xe8, guest_le32(0x100));
    ck_assert_uint_eq(vcpu->eip, GUEST_CODE + 5 + 0x100);
    ck_assert_uint_eq(guest_stack32(vcpu, 0), GUEST_CODE + 5);
    guest_assert_done(vcpu, 0xc2, 0x08, 0x00); /* ret 8 */
    ck_assert_uint_eq(vcpu->eip, GUEST_CODE + 5);
    ck_assert_uint_eq(vcpu->gpr[ESP], GUEST_STACK + 8);

    vcpu->eip = GUEST_CODE;
    guest_assert_done(vcpu, 0x66, 0xe8, 0x10, 0x00); /* a 16-bit call cuts eip */
    ck_assert_uint_eq(vcpu->eip, (GUEST_CODE + 0x14) & 0xffff);
    ck_assert_uint_eq(vcpu->gpr[ESP], GUEST_STACK + 6);
}
END_TEST

START_TEST(a_target_beyond_the_limit_faults_before_anything_changes)
{
    struct vcpu *vcpu = guest_reset(&machine);

    vcpu->segment[SEG_CS].limit = GUEST_CODE + 0x7f;
    vcpu->gpr[EBX] = GUEST_CODE + 0x80;
    vcpu->gpr[ECX] = 2;
    guest_assert_fault(vcpu, EXCEPTION_GP, 0, 0xff, 0xe3);               /* jmp ebx */
    guest_assert_fault(vcpu, EXCEPTION_GP, 0, 0xff, 0xd3);               /* call ebx */
    guest_assert_fault(vcpu, EXCEPTION_GP, 0, 0xe8, guest_le32(0x1000)); /* call */
    guest_assert_fault(vcpu, EXCEPTION_GP, 0, 0xe2, 0x7e);               /* loop */
    guest_assert_fault(vcpu, EXCEPTION_GP, 0, 0x75, 0x7e);               /* jnz, taken */
    guest_push(vcpu, GUEST_CODE + 0x80);
    guest_assert_fault(vcpu, EXCEPTION_GP, 0, 0xc3); /* ret */
    guest_assert_done(vcpu, 0x74, 0x7e);             /* jz, not taken: not checked */
}
END_TEST

/* ---- flags --------------------------------------------------------------------------------------------- */

START_TEST(pushf_shows_the_virtual_flags)
{
    struct vcpu *vcpu = guest_reset(&machine);

    vcpu->eflags |= EFLAGS_IF | EFLAGS_IOPL | EFLAGS_CF | EFLAGS_NT | EFLAGS_ID;
    guest_assert_done(vcpu, 0x9c);
    ck_assert_uint_eq(guest_stack32(vcpu, 0), vcpu->eflags);
    vcpu->eflags |= EFLAGS_RF;
    guest_assert_done(vcpu, 0x66, 0x9c);
    ck_assert_uint_eq(vcpu->gpr[ESP], GUEST_STACK - 6);
    ck_assert_uint_eq(fake_read16(&machine, GUEST_STACK - 6), vcpu->eflags & 0xffff);
}
END_TEST

struct popf_case {
    unsigned ring, iopl;
    uint32_t changeable; /* of IF and IOPL */
};

START_TEST(popf_changes_what_privilege_allows)
{
    static const struct popf_case cases[] = {
        {0, 0, EFLAGS_IF | EFLAGS_IOPL},
        {0, 3, EFLAGS_IF | EFLAGS_IOPL},
        {1, 0, 0},
        {1, 1, EFLAGS_IF},
        {3, 0, 0},
        {3, 3, EFLAGS_IF},
    };
    const uint32_t always = EFLAGS_CF | EFLAGS_DF | EFLAGS_NT | EFLAGS_AC | EFLAGS_ID;

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        for (unsigned is_set = 0; is_set < 2; is_set++) {
            struct vcpu *vcpu = guest_reset(&machine);
            uint32_t old, mask = cases[i].changeable | always, value = is_set ? ~EFLAGS_TF : 0;

            guest_enter_ring(vcpu, cases[i].ring);
            vcpu->eflags |= cases[i].iopl << EFLAGS_IOPL_SHIFT | (is_set ? 0 : EFLAGS_IF);
            old = vcpu->eflags;
            guest_push(vcpu, value);
            guest_assert_done(vcpu, 0x9d);
            ck_assert_uint_eq(vcpu->eflags & (mask | EFLAGS_IF | EFLAGS_IOPL),
                              (value & mask) | (old & (EFLAGS_IF | EFLAGS_IOPL) & ~mask));
            ck_assert_uint_eq(vcpu->eflags & (EFLAGS_VM | EFLAGS_RF | EFLAGS_VIF | EFLAGS_VIP), 0);
            ck_assert_uint_eq(vcpu->eflags & EFLAGS_FIXED, EFLAGS_FIXED);
        }
    }
}
END_TEST

START_TEST(a_16_bit_popf_leaves_the_upper_flags)
{
    struct vcpu *vcpu = guest_reset(&machine);

    vcpu->eflags |= EFLAGS_AC | EFLAGS_ID;
    guest_push(vcpu, EFLAGS_CF);
    guest_assert_done(vcpu, 0x66, 0x9d);
    ck_assert_uint_eq(vcpu->eflags, EFLAGS_FIXED | EFLAGS_CF | EFLAGS_AC | EFLAGS_ID);
}
END_TEST

START_TEST(virtual_8086_mode_needs_iopl_3)
{
    struct vcpu *vcpu = guest_reset(&machine);

    guest_enter_v8086(vcpu);
    guest_assert_fault(vcpu, EXCEPTION_GP, 0, 0x9c);
    guest_assert_fault(vcpu, EXCEPTION_GP, 0, 0x9d);
    guest_assert_fault(vcpu, EXCEPTION_GP, 0, 0xfa);
    guest_assert_fault(vcpu, EXCEPTION_GP, 0, 0xfb);
    vcpu->eflags |= EFLAGS_IOPL;
    guest_assert_done(vcpu, 0x9c);
    guest_assert_done(vcpu, 0xfb);
    ck_assert_uint_eq(vcpu->eflags & EFLAGS_IF, EFLAGS_IF);
    guest_assert_done(vcpu, 0x9d);
    ck_assert_uint_eq(vcpu->eflags & (EFLAGS_VM | EFLAGS_IF | EFLAGS_IOPL), EFLAGS_VM | EFLAGS_IOPL);
}
END_TEST

START_TEST(pusha_at_the_bottom_of_a_paragraph_segment_is_refused_as_a_whole)
{
    void (*const enter[])(struct vcpu *) = {guest_enter_real_mode, guest_enter_v8086};

    for (unsigned i = 0; i < 2; i++) {
        struct vcpu *vcpu = guest_reset(&machine);

        enter[i](vcpu);
        for (uint32_t sp = 7; sp <= 15; sp += 2) {
            vcpu->gpr[ESP] = sp;
            guest_assert_fault(vcpu, EXCEPTION_GP, 0, 0x60);
        }
        vcpu->gpr[ESP] = 5;
        guest_assert_fault(vcpu, EXCEPTION_SS, 0, 0x60);
        vcpu->gpr[ESP] = 8; /* even: it wraps */
        guest_assert_done(vcpu, 0x60);
        ck_assert_uint_eq(vcpu->gpr[ESP] & 0xffff, 0xfff8);
    }
}
END_TEST

START_TEST(cli_and_sti_obey_iopl)
{
    struct vcpu *vcpu = guest_reset(&machine);

    guest_assert_done(vcpu, 0xfb);
    guest_enter_ring(vcpu, 3);
    guest_assert_fault(vcpu, EXCEPTION_GP, 0, 0xfa);
    guest_assert_fault(vcpu, EXCEPTION_GP, 0, 0xfb);
    vcpu->eflags |= EFLAGS_IOPL;
    guest_assert_done(vcpu, 0xfa);
    ck_assert_uint_eq(vcpu->eflags & EFLAGS_IF, 0);
}
END_TEST

int main(void)
{
    const TTest *tests[] = {
        push_esp_pushes_its_old_value,
        pop_to_memory_uses_the_incremented_esp,
        pop_to_memory_that_faults_leaves_esp,
        immediates_are_extended_to_the_operand_size,
        a_16_bit_stack_moves_sp_only,
        pusha_and_popa_skip_esp,
        enter_and_leave_are_each_other_s_inverse,
        enter_copies_the_display,
        enter_needs_a_writable_final_top,
        call_and_ret_use_the_operand_size,
        a_target_beyond_the_limit_faults_before_anything_changes,
        pushf_shows_the_virtual_flags,
        popf_changes_what_privilege_allows,
        a_16_bit_popf_leaves_the_upper_flags,
        virtual_8086_mode_needs_iopl_3,
        pusha_at_the_bottom_of_a_paragraph_segment_is_refused_as_a_whole,
        cli_and_sti_obey_iopl,
    };

    return guest_run_suite("stack", tests, sizeof tests / sizeof tests[0]);
}
