/* Far jumps and calls, call gates, far returns, IRET, SYSENTER and SYSEXIT. Expected values are the SDM's. */
#include "fake_guest.h"

static struct fake_machine machine;

enum { TARGET = 0x12345 };

#define JMP_FAR(selector, offset)  0xea, guest_le32(offset), guest_le16(selector)
#define CALL_FAR(selector, offset) 0x9a, guest_le32(offset), guest_le16(selector)
#define RETF                       0xcb
#define RETF_N(n)                  0xca, guest_le16(n)
#define IRET                       0xcf
#define OPERAND_SIZE               0x66

static void assert_at(const struct vcpu *vcpu, uint16_t cs, uint32_t eip, unsigned cpl)
{
    ck_assert_uint_eq(vcpu->segment[SEG_CS].selector, cs);
    ck_assert_uint_eq(vcpu->eip, eip);
    ck_assert_uint_eq(vcpu->cpl, cpl);
}

/* ---- JMP and CALL to code ----------------------------------------------------------------------------- */

START_TEST(a_far_jump_changes_cs_and_eip_only)
{
    struct vcpu *vcpu = guest_reset(&machine);

    guest_assert_done(vcpu, JMP_FAR(SEL_CODE16, 0x1234));
    assert_at(vcpu, SEL_CODE16, 0x1234, 0);
    ck_assert_uint_eq(vcpu->segment[SEG_CS].limit, 0xffff);
    ck_assert_uint_eq(vcpu_code_size(vcpu), 2);
    ck_assert_uint_eq(vcpu->gpr[ESP], GUEST_STACK);
    ck_assert_uint_eq(machine.n_writes, 0);
}
END_TEST

START_TEST(a_far_jump_through_memory_reads_offset_then_selector)
{
    struct vcpu *vcpu = guest_reset(&machine);

    fake_write32(&machine, 0x5000, TARGET);
    fake_write16(&machine, 0x5004, SEL_CODE0);
    guest_assert_done(vcpu, 0xff, 0x2d, guest_le32(0x5000));
    assert_at(vcpu, SEL_CODE0, TARGET, 0);

    fake_write16(&machine, 0x5002, SEL_CODE16); /* m16:16 */
    guest_assert_done(vcpu, OPERAND_SIZE, 0xff, 0x2d, guest_le32(0x5000));
    assert_at(vcpu, SEL_CODE16, TARGET & 0xffff, 0);
}
END_TEST

START_TEST(a_far_call_pushes_cs_and_eip)
{
    struct vcpu *vcpu = guest_reset(&machine);

    guest_assert_done(vcpu, CALL_FAR(SEL_CODE0, TARGET));
    assert_at(vcpu, SEL_CODE0, TARGET, 0);
    ck_assert_uint_eq(vcpu->gpr[ESP], GUEST_STACK - 8);
    ck_assert_uint_eq(guest_stack32(vcpu, 0), GUEST_CODE + 7);
    ck_assert_uint_eq(guest_stack32(vcpu, 1), SEL_CODE0);
}
END_TEST

START_TEST(a_16_bit_far_call_pushes_words)
{
    struct vcpu *vcpu = guest_reset(&machine);

    guest_assert_done(vcpu, OPERAND_SIZE, 0x9a, guest_le16(0x1234), guest_le16(SEL_CODE0));
    assert_at(vcpu, SEL_CODE0, 0x1234, 0);
    ck_assert_uint_eq(vcpu->gpr[ESP], GUEST_STACK - 4);
    ck_assert_uint_eq(fake_read16(&machine, GUEST_STACK - 4), (GUEST_CODE + 6) & 0xffff);
    ck_assert_uint_eq(fake_read16(&machine, GUEST_STACK - 2), SEL_CODE0);
}
END_TEST

START_TEST(direct_transfers_stay_in_the_ring)
{
    static const struct {
        unsigned ring;
        uint16_t selector;
        int vector;
        uint32_t error;
        uint16_t cs;
    } cases[] = {
        {0, SEL_CODE0, -1, 0, SEL_CODE0},
        {3, SEL_CODE3, -1, 0, SEL_CODE3},
        {3, SEL_CODE3 & ~3, -1, 0, SEL_CODE3},          /* the RPL becomes the CPL */
        {0, SEL_CODE0 | 1, EXCEPTION_GP, SEL_CODE0, 0}, /* RPL > CPL */
        {0, SEL_CODE3, EXCEPTION_GP, SEL_CODE3 & ~3, 0},
        {3, SEL_CODE0, EXCEPTION_GP, SEL_CODE0, 0},
        {1, SEL_CODE0, EXCEPTION_GP, SEL_CODE0, 0},
        {0, SEL_CONFORMING, -1, 0, SEL_CONFORMING},
        {3, SEL_CONFORMING, -1, 0, SEL_CONFORMING | 3}, /* code of ring 0 at CPL 3 */
        {0, SEL_CONFORMING | 3, -1, 0, SEL_CONFORMING}, /* its RPL does not count */
        {0, SEL_SPARE, EXCEPTION_GP, SEL_SPARE, 0},     /* conforming, DPL 3 > CPL */
        {0, 0, EXCEPTION_GP, 0, 0},
        {0, 2, EXCEPTION_GP, 0, 0},
        {0, SEL_BEYOND, EXCEPTION_GP, SEL_BEYOND, 0},
        {0, SEL_LOCAL_BEYOND, EXCEPTION_GP, SEL_LOCAL_BEYOND, 0},
        {0, SEL_DATA0, EXCEPTION_GP, SEL_DATA0, 0},
        {0, SEL_LDT, EXCEPTION_GP, SEL_LDT, 0},
        {0, SEL_TSS, EXCEPTION_GP, SEL_TSS, 0}, /* busy */
        {0, SEL_CODE_ABSENT, EXCEPTION_NP, SEL_CODE_ABSENT, 0},
        {0, SEL_CODE_ABSENT | 3, EXCEPTION_GP, SEL_CODE_ABSENT, 0},
        {0, SEL_CODE_SHORT, EXCEPTION_GP, 0, 0}, /* TARGET beyond the limit */
        {0, SEL_EXECUTE_ONLY, -1, 0, SEL_EXECUTE_ONLY},
    };

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        for (unsigned is_call = 0; is_call < 2; is_call++) {
            struct vcpu *vcpu = guest_reset(&machine);
            const uint8_t bytes[] = {is_call ? 0x9a : 0xea, guest_le32(TARGET),
                                     guest_le16(cases[i].selector)};

            guest_set_gdt(&machine, SEL_SPARE, 0, 0xfffff, 0xff, 0xc);
            guest_enter_ring(vcpu, cases[i].ring);
            if (cases[i].vector >= 0) {
                guest_check_fault(vcpu, bytes, sizeof bytes, cases[i].vector, cases[i].error);
            } else {
                ck_assert_int_eq(guest_run_bytes(vcpu, bytes, sizeof bytes), OUTCOME_DONE);
                assert_at(vcpu, cases[i].cs, TARGET, cases[i].ring);
            }
        }
    }
}
END_TEST

START_TEST(a_far_call_needs_room_and_a_mapped_stack)
{
    struct vcpu *vcpu = guest_reset(&machine);

    fake_set_rights(&machine, GUEST_STACK - 1, PTE_P);
    guest_assert_fault(vcpu, EXCEPTION_PF, PF_PRESENT | PF_WRITE, CALL_FAR(SEL_CODE0, TARGET));
    vcpu->segment[SEG_SS].limit = 0xfff;
    vcpu->gpr[ESP] = 4; /* the second push would wrap below 0 */
    guest_assert_fault(vcpu, EXCEPTION_SS, 0, CALL_FAR(SEL_CODE0, TARGET));
}
END_TEST

/* ---- call gates --------------------------------------------------------------------------------------- */

static void set_call_gate(uint16_t selector, uint8_t access, uint8_t parameters)
{
    fake_set_gate(&machine, GUEST_GDT + SEL_SPARE, selector, TARGET, access, parameters);
}

START_TEST(a_call_gate_to_an_inner_ring_copies_parameters)
{
    struct vcpu *vcpu = guest_reset(&machine);

    guest_enter_ring(vcpu, 3);
    set_call_gate(SEL_CODE0, 0xec, 3);
    guest_push(vcpu, 0x33333333);
    guest_push(vcpu, 0x22222222);
    guest_push(vcpu, 0x11111111);
    guest_assert_done(vcpu, CALL_FAR(SEL_SPARE | 3, 0xffffffff)); /* the offset does not count */
    assert_at(vcpu, SEL_CODE0, TARGET, 0);
    ck_assert_uint_eq(vcpu->segment[SEG_SS].selector, SEL_DATA0);
    ck_assert_uint_eq(vcpu->gpr[ESP], GUEST_STACK0 - 28);
    ck_assert_uint_eq(guest_stack32(vcpu, 0), GUEST_CODE + 7);
    ck_assert_uint_eq(guest_stack32(vcpu, 1), SEL_CODE3);
    ck_assert_uint_eq(guest_stack32(vcpu, 2), 0x11111111);
    ck_assert_uint_eq(guest_stack32(vcpu, 3), 0x22222222);
    ck_assert_uint_eq(guest_stack32(vcpu, 4), 0x33333333);
    ck_assert_uint_eq(guest_stack32(vcpu, 5), GUEST_USER_STACK - 12);
    ck_assert_uint_eq(guest_stack32(vcpu, 6), SEL_DATA3);
}
END_TEST

START_TEST(a_call_gate_copies_up_to_31_parameters)
{
    struct vcpu *vcpu = guest_reset(&machine);

    guest_enter_ring(vcpu, 3);
    set_call_gate(SEL_CODE0, 0xec, 31);
    for (uint32_t i = 31; i > 0; i--)
        guest_push(vcpu, i);
    guest_assert_done(vcpu, CALL_FAR(SEL_SPARE, 0));
    ck_assert_uint_eq(vcpu->gpr[ESP], GUEST_STACK0 - 35 * 4);
    for (uint32_t i = 0; i < 31; i++)
        ck_assert_uint_eq(guest_stack32(vcpu, 2 + i), i + 1);
}
END_TEST

START_TEST(a_16_bit_call_gate_copies_words)
{
    struct vcpu *vcpu = guest_reset(&machine);

    guest_enter_ring(vcpu, 3);
    set_call_gate(SEL_CODE0, 0xe4, 2);
    guest_push(vcpu, 0x22221111);
    guest_assert_done(vcpu, CALL_FAR(SEL_SPARE, 0));
    assert_at(vcpu, SEL_CODE0, TARGET & 0xffff, 0);
    ck_assert_uint_eq(vcpu->gpr[ESP], GUEST_STACK0 - 12);
    ck_assert_uint_eq(fake_read16(&machine, GUEST_STACK0 - 12), (GUEST_CODE + 7) & 0xffff);
    ck_assert_uint_eq(fake_read16(&machine, GUEST_STACK0 - 10), SEL_CODE3);
    ck_assert_uint_eq(fake_read32(&machine, GUEST_STACK0 - 8), 0x22221111);
    ck_assert_uint_eq(fake_read16(&machine, GUEST_STACK0 - 4), (GUEST_USER_STACK - 4) & 0xffff);
    ck_assert_uint_eq(fake_read16(&machine, GUEST_STACK0 - 2), SEL_DATA3);
}
END_TEST

START_TEST(a_call_gate_in_the_same_ring_pushes_by_its_own_size)
{
    struct vcpu *vcpu = guest_reset(&machine);

    set_call_gate(SEL_CODE0, 0x84, 5); /* nothing is copied within a ring */
    guest_assert_done(vcpu, CALL_FAR(SEL_SPARE, 0));
    assert_at(vcpu, SEL_CODE0, TARGET & 0xffff, 0);
    ck_assert_uint_eq(vcpu->gpr[ESP], GUEST_STACK - 4);
}
END_TEST

START_TEST(call_gates_are_checked)
{
    static const struct {
        unsigned ring;
        uint16_t rpl, code;
        uint8_t access;
        int call_vector; /* -1: goes through */
        uint32_t call_error;
        int jump_vector;
        uint32_t jump_error;
    } cases[] = {
        {0, 0, SEL_CODE0, 0x8c, -1, 0, -1, 0},
        {3, 3, SEL_CODE3, 0xec, -1, 0, -1, 0},
        {3, 3, SEL_CODE0, 0xec, -1, 0, EXCEPTION_GP, SEL_CODE0}, /* a jump never goes inward */
        {3, 3, SEL_CONFORMING, 0xec, -1, 0, -1, 0},
        {3, 3, SEL_CODE0, 0x8c, EXCEPTION_GP, SEL_SPARE, EXCEPTION_GP, SEL_SPARE}, /* gate DPL < CPL */
        {0, 3, SEL_CODE0, 0x8c, EXCEPTION_GP, SEL_SPARE, EXCEPTION_GP, SEL_SPARE}, /* gate DPL < RPL */
        {3, 3, SEL_CODE0, 0x6c, EXCEPTION_NP, SEL_SPARE, EXCEPTION_NP, SEL_SPARE},
        {0, 0, SEL_CODE3, 0x8c, EXCEPTION_GP, SEL_CODE3 & ~3, EXCEPTION_GP, SEL_CODE3 & ~3}, /* outward */
        {0, 0, 0, 0x8c, EXCEPTION_GP, 0, EXCEPTION_GP, 0},
        {0, 0, SEL_DATA0, 0x8c, EXCEPTION_GP, SEL_DATA0, EXCEPTION_GP, SEL_DATA0},
        {0, 0, SEL_BEYOND, 0x8c, EXCEPTION_GP, SEL_BEYOND, EXCEPTION_GP, SEL_BEYOND},
        {0, 0, SEL_CODE_ABSENT, 0x8c, EXCEPTION_NP, SEL_CODE_ABSENT, EXCEPTION_NP, SEL_CODE_ABSENT},
        {0, 0, SEL_CODE_SHORT, 0x8c, EXCEPTION_GP, 0, EXCEPTION_GP, 0},
        {0, 0, SEL_CODE0 | 3, 0x8c, -1, 0, -1, 0}, /* the RPL in the gate does not count */
    };

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        for (unsigned is_call = 0; is_call < 2; is_call++) {
            struct vcpu *vcpu = guest_reset(&machine);
            const uint8_t bytes[] = {is_call ? 0x9a : 0xea, guest_le32(0),
                                     guest_le16(SEL_SPARE | cases[i].rpl)};
            int vector = is_call ? cases[i].call_vector : cases[i].jump_vector;

            set_call_gate(cases[i].code, cases[i].access, 0);
            guest_enter_ring(vcpu, cases[i].ring);
            if (vector < 0)
                ck_assert_int_eq(guest_run_bytes(vcpu, bytes, sizeof bytes), OUTCOME_DONE);
            else
                guest_check_fault(vcpu, bytes, sizeof bytes, vector,
                                  is_call ? cases[i].call_error : cases[i].jump_error);
        }
    }
}
END_TEST

START_TEST(the_inner_stack_of_a_call_gate_is_checked)
{
    static const struct {
        uint16_t tss_limit, ss;
        uint32_t esp;
        int vector;
        uint32_t error;
    } cases[] = {
        {8, SEL_DATA0, GUEST_STACK0, EXCEPTION_TS, SEL_TSS},
        {0x2ff, 0, GUEST_STACK0, EXCEPTION_TS, 0},
        {0x2ff, SEL_DATA3, GUEST_STACK0, EXCEPTION_TS, SEL_DATA3 & ~3},
        {0x2ff, SEL_CODE0, GUEST_STACK0, EXCEPTION_TS, SEL_CODE0},
        {0x2ff, SEL_BEYOND, GUEST_STACK0, EXCEPTION_TS, SEL_BEYOND},
        {0x2ff, SEL_DATA_ABSENT, GUEST_STACK0, EXCEPTION_SS, SEL_DATA_ABSENT},
        {0x2ff, SEL_DATA_SHORT, 23, EXCEPTION_SS, SEL_DATA_SHORT}, /* 16 bytes and 2 parameters */
        {0x2ff, SEL_DATA_SHORT, 24, -1, 0},
    };

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct vcpu *vcpu = guest_reset(&machine);

        guest_enter_ring(vcpu, 3);
        set_call_gate(SEL_CODE0, 0xec, 2);
        vcpu->tr.limit = cases[i].tss_limit;
        fake_write32(&machine, GUEST_TSS + 4, cases[i].esp);
        fake_write16(&machine, GUEST_TSS + 8, cases[i].ss);
        if (cases[i].vector < 0)
            guest_assert_done(vcpu, CALL_FAR(SEL_SPARE, 0));
        else
            guest_assert_fault(vcpu, cases[i].vector, cases[i].error, CALL_FAR(SEL_SPARE, 0));
    }
}
END_TEST

START_TEST(parameters_are_read_with_the_rights_of_the_caller)
{
    struct vcpu *vcpu = guest_reset(&machine);

    guest_enter_ring(vcpu, 3);
    set_call_gate(SEL_CODE0, 0xec, 1);
    fake_set_rights(&machine, GUEST_USER_STACK, PTE_P | PTE_W); /* a supervisor page */
    guest_assert_fault(vcpu, EXCEPTION_PF, PF_PRESENT | PF_USER, CALL_FAR(SEL_SPARE, 0));
    vcpu->segment[SEG_SS].limit = GUEST_USER_STACK + 2;
    guest_assert_fault(vcpu, EXCEPTION_SS, 0, CALL_FAR(SEL_SPARE, 0));
}
END_TEST

/* ---- real and virtual-8086 mode ----------------------------------------------------------------------- */

START_TEST(paragraphs_are_called_jumped_to_and_returned_from)
{
    void (*const enter[])(struct vcpu *) = {guest_enter_real_mode, guest_enter_v8086};

    for (unsigned i = 0; i < 2; i++) {
        struct vcpu *vcpu = guest_reset(&machine);

        enter[i](vcpu);
        guest_assert_done(vcpu, 0x9a, guest_le16(0x0010), guest_le16(0x1100)); /* call 1100:0010 */
        ck_assert_uint_eq(vcpu->segment[SEG_CS].selector, 0x1100);
        ck_assert_uint_eq(vcpu->segment[SEG_CS].base, 0x11000);
        ck_assert_uint_eq(vcpu->eip, 0x10);
        ck_assert_uint_eq(vcpu->gpr[ESP], 0xffc);
        ck_assert_uint_eq(guest_stack16(vcpu, 0), 5);
        ck_assert_uint_eq(guest_stack16(vcpu, 1), 0x1000);
        guest_assert_done(vcpu, RETF_N(6));
        ck_assert_uint_eq(vcpu->segment[SEG_CS].selector, 0x1000);
        ck_assert_uint_eq(vcpu->eip, 5);
        ck_assert_uint_eq(vcpu->gpr[ESP], 0x1006);
        guest_assert_done(vcpu, 0xea, guest_le16(0x0020), guest_le16(0x1200));
        ck_assert_uint_eq(vcpu->segment[SEG_CS].base, 0x12000);
        ck_assert_uint_eq(vcpu->eip, 0x20);
        guest_assert_fault(vcpu, EXCEPTION_GP, 0, OPERAND_SIZE, 0xea, guest_le32(0x10000),
                           guest_le16(0x1200));
    }
}
END_TEST

/* ---- RET far ------------------------------------------------------------------------------------------ */

START_TEST(a_far_return_within_the_ring)
{
    struct vcpu *vcpu = guest_reset(&machine);

    guest_push(vcpu, 0xffff0000 | SEL_CODE0); /* the upper half of the slot does not count */
    guest_push(vcpu, TARGET);
    guest_assert_done(vcpu, RETF);
    assert_at(vcpu, SEL_CODE0, TARGET, 0);
    ck_assert_uint_eq(vcpu->gpr[ESP], GUEST_STACK);
    guest_push(vcpu, SEL_CODE0);
    guest_push(vcpu, TARGET);
    guest_assert_done(vcpu, RETF_N(0x10));
    ck_assert_uint_eq(vcpu->gpr[ESP], GUEST_STACK + 0x10);
}
END_TEST

START_TEST(a_far_return_to_user_switches_stacks_and_drops_kernel_segments)
{
    struct vcpu *vcpu = guest_reset(&machine);

    vcpu->segment[SEG_ES] = (struct segment){SEL_DATA3, 0xc0f3, 0, 0xffffffff};
    vcpu->segment[SEG_FS] = (struct segment){SEL_CONFORMING, 0xc09f, 0, 0xffffffff};
    vcpu->segment[SEG_GS] = (struct segment){SEL_DATA1, 0xc0b3, 0, 0xffffffff};
    guest_push(vcpu, SEL_DATA3);
    guest_push(vcpu, GUEST_USER_STACK);
    vcpu->gpr[ESP] -= 8; /* parameters */
    guest_push(vcpu, SEL_CODE3);
    guest_push(vcpu, TARGET);
    guest_assert_done(vcpu, RETF_N(8));
    assert_at(vcpu, SEL_CODE3, TARGET, 3);
    ck_assert_uint_eq(vcpu->segment[SEG_SS].selector, SEL_DATA3);
    ck_assert_uint_eq(vcpu->gpr[ESP], GUEST_USER_STACK + 8); /* off the caller's stack too */
    ck_assert_uint_eq(vcpu->segment[SEG_DS].selector, 0);
    ck_assert_uint_eq(vcpu->segment[SEG_DS].attributes, 0);
    ck_assert_uint_eq(vcpu->segment[SEG_ES].selector, SEL_DATA3);
    ck_assert_uint_eq(vcpu->segment[SEG_FS].selector, SEL_CONFORMING); /* conforming code may stay */
    ck_assert_uint_eq(vcpu->segment[SEG_GS].selector, 0);
}
END_TEST

/* The code selectors that RET and IRET go back to, from ring `ring`. */
static const struct {
    unsigned ring;
    uint16_t selector;
    int vector;
    uint32_t error;
} return_cases[] = {
    {0, SEL_CODE0, -1, 0},
    {3, SEL_CODE3, -1, 0},
    {0, SEL_CONFORMING, -1, 0},
    {3, SEL_CONFORMING | 3, -1, 0},
    {0, 0, EXCEPTION_GP, 0},
    {0, 3, EXCEPTION_GP, 0},
    {0, SEL_BEYOND, EXCEPTION_GP, SEL_BEYOND},
    {0, SEL_DATA0, EXCEPTION_GP, SEL_DATA0},
    {0, SEL_TSS_B, EXCEPTION_GP, SEL_TSS_B},
    {3, SEL_CODE0, EXCEPTION_GP, SEL_CODE0},     /* RPL < CPL: never inward */
    {3, SEL_CODE0 | 3, EXCEPTION_GP, SEL_CODE0}, /* DPL != RPL */
    {0, SEL_CODE3 & ~3, EXCEPTION_GP, SEL_CODE3 & ~3},
    {0, SEL_SPARE, EXCEPTION_GP, SEL_SPARE}, /* conforming, DPL 3 > RPL */
    {0, SEL_CODE_ABSENT, EXCEPTION_NP, SEL_CODE_ABSENT},
    {0, SEL_CODE_SHORT, EXCEPTION_GP, 0}, /* TARGET beyond the limit */
};

START_TEST(the_code_returned_to_is_checked)
{
    for (size_t i = 0; i < sizeof return_cases / sizeof return_cases[0]; i++) {
        for (unsigned is_iret = 0; is_iret < 2; is_iret++) {
            struct vcpu *vcpu = guest_reset(&machine);
            const uint8_t opcode = is_iret ? IRET : RETF;

            guest_set_gdt(&machine, SEL_SPARE, 0, 0xfffff, 0xff, 0xc);
            guest_enter_ring(vcpu, return_cases[i].ring);
            if (is_iret)
                guest_push(vcpu, 2);
            guest_push(vcpu, return_cases[i].selector);
            guest_push(vcpu, TARGET);
            if (return_cases[i].vector >= 0) {
                guest_check_fault(vcpu, &opcode, 1, return_cases[i].vector, return_cases[i].error);
            } else {
                ck_assert_int_eq(guest_run_bytes(vcpu, &opcode, 1), OUTCOME_DONE);
                assert_at(vcpu, return_cases[i].selector, TARGET, return_cases[i].ring);
            }
        }
    }
}
END_TEST

START_TEST(the_outer_stack_returned_to_is_checked)
{
    static const struct {
        uint16_t ss;
        int vector;
        uint32_t error;
    } cases[] = {
        {SEL_DATA3, -1, 0},
        {0, EXCEPTION_GP, 0},
        {3, EXCEPTION_GP, 0},
        {SEL_DATA3 & ~3, EXCEPTION_GP, SEL_DATA3 & ~3}, /* RPL */
        {SEL_DATA0 | 3, EXCEPTION_GP, SEL_DATA0},       /* DPL */
        {SEL_CODE3, EXCEPTION_GP, SEL_CODE3 & ~3},
        {SEL_BEYOND | 3, EXCEPTION_GP, SEL_BEYOND},
        {SEL_SPARE | 3, EXCEPTION_SS, SEL_SPARE},           /* not present */
        {(SEL_SPARE + 8) | 3, EXCEPTION_GP, SEL_SPARE + 8}, /* read-only */
    };

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        for (unsigned is_iret = 0; is_iret < 2; is_iret++) {
            struct vcpu *vcpu = guest_reset(&machine);
            const uint8_t opcode = is_iret ? IRET : RETF;

            guest_set_gdt(&machine, SEL_SPARE, 0, 0xfffff, 0x73, 0xc);
            guest_set_gdt(&machine, SEL_SPARE + 8, 0, 0xfffff, 0xf1, 0xc);
            guest_push(vcpu, cases[i].ss);
            guest_push(vcpu, GUEST_USER_STACK);
            if (is_iret)
                guest_push(vcpu, 2);
            guest_push(vcpu, SEL_CODE3);
            guest_push(vcpu, TARGET);
            if (cases[i].vector >= 0)
                guest_check_fault(vcpu, &opcode, 1, cases[i].vector, cases[i].error);
            else
                ck_assert_int_eq(guest_run_bytes(vcpu, &opcode, 1), OUTCOME_DONE);
        }
    }
}
END_TEST

START_TEST(a_short_stack_is_ss_0)
{
    struct vcpu *vcpu = guest_reset(&machine);

    vcpu->segment[SEG_SS].limit = GUEST_STACK + 6; /* no room for CS */
    guest_assert_fault(vcpu, EXCEPTION_SS, 0, RETF);
    guest_assert_fault(vcpu, EXCEPTION_SS, 0, IRET);
    vcpu->segment[SEG_SS].limit = GUEST_STACK + 11; /* CS, but not SS */
    fake_write32(&machine, GUEST_STACK, TARGET);
    fake_write32(&machine, GUEST_STACK + 4, SEL_CODE3);
    guest_assert_fault(vcpu, EXCEPTION_SS, 0, RETF);
    guest_assert_fault(vcpu, EXCEPTION_SS, 0, IRET);
}
END_TEST

/* ---- IRET ---------------------------------------------------------------------------------------------- */

static void push_iret_frame(struct vcpu *vcpu, uint32_t eflags, uint16_t cs, uint32_t eip)
{
    guest_push(vcpu, eflags);
    guest_push(vcpu, cs);
    guest_push(vcpu, eip);
}

START_TEST(iret_restores_the_flags_that_its_privilege_allows)
{
    static const struct {
        unsigned ring;
        uint32_t old, popped, expected;
        bool is_16bit;
    } cases[] = {
        {0, 0x2, 0x3d7fd7 & ~0x4000u, 0x3d3fd7, false}, /* ring 0: everything but VM (NT: see test_task) */
        {0, 0x3d3fd7, 0, 0x2, false},
        {3, 0x202, 0xffffffff & ~EFLAGS_VM, 0x254fd7, false}, /* IOPL 0: no IF change, no IOPL, no VIF, VIP */
        {3, 0x3202, 0, 0x3002, false},                        /* IOPL 3: IF may change */
        {3, 0x202, 0, 0x202, false},                          /* IOPL 0: it may not */
        {1, 0x1202, 0x2000, 0x1002, false},                   /* CPL 1, IOPL 1: IF, but not IOPL */
        {3, 0x2, EFLAGS_VM | 2, 0x2, false},                  /* VM is not for ring 3 */
        {0, 0x240002, 0x3202, 0x243202, true},                /* 16 bits: the upper half stays */
        {3, 0x2, 0xffff, 0x4dd7 | 0x2, true},
    };

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        static const uint16_t code[] = {SEL_CODE0, SEL_CODE1 | 1, 0, SEL_CODE3};
        struct vcpu *vcpu = guest_reset(&machine);

        guest_enter_ring(vcpu, cases[i].ring);
        vcpu->eflags = cases[i].old;
        if (cases[i].is_16bit) {
            vcpu->gpr[ESP] -= 6;
            fake_write16(&machine, vcpu->gpr[ESP], 0x1234);
            fake_write16(&machine, vcpu->gpr[ESP] + 2, code[cases[i].ring]);
            fake_write16(&machine, vcpu->gpr[ESP] + 4, (uint16_t)cases[i].popped);
            guest_assert_done(vcpu, OPERAND_SIZE, IRET);
            ck_assert_uint_eq(vcpu->eip, 0x1234);
        } else {
            push_iret_frame(vcpu, cases[i].popped, code[cases[i].ring], TARGET);
            guest_run(vcpu, IRET); /* a #DB trap where TF was set */
            ck_assert_uint_eq(vcpu->eip, TARGET);
        }
        ck_assert_uint_eq(vcpu->eflags, cases[i].expected);
    }
}
END_TEST

START_TEST(iret_to_user_mode)
{
    struct vcpu *vcpu = guest_reset(&machine);

    guest_push(vcpu, SEL_DATA3);
    guest_push(vcpu, GUEST_USER_STACK);
    push_iret_frame(vcpu, 0x202, SEL_CODE3, TARGET);
    guest_assert_done(vcpu, IRET);
    assert_at(vcpu, SEL_CODE3, TARGET, 3);
    ck_assert_uint_eq(vcpu->segment[SEG_SS].selector, SEL_DATA3);
    ck_assert_uint_eq(vcpu->gpr[ESP], GUEST_USER_STACK);
    ck_assert_uint_eq(vcpu->eflags, 0x202);
    ck_assert_uint_eq(vcpu->segment[SEG_DS].attributes, 0); /* was ring 0's */
}
END_TEST

START_TEST(iret_to_a_16_bit_stack_keeps_the_upper_half_of_esp)
{
    struct vcpu *vcpu = guest_reset(&machine);

    guest_set_gdt(&machine, SEL_SPARE, 0, 0xffff, 0xf3, 0);
    vcpu->gpr[ESP] = 0x123800;
    guest_push(vcpu, SEL_SPARE | 3);
    guest_push(vcpu, 0xabcd1234);
    push_iret_frame(vcpu, 2, SEL_CODE3, TARGET);
    guest_assert_done(vcpu, IRET);
    ck_assert_uint_eq(vcpu->gpr[ESP], 0x121234);
}
END_TEST

START_TEST(a_16_bit_iret_to_user_pops_five_words)
{
    struct vcpu *vcpu = guest_reset(&machine);
    static const uint16_t frame[] = {0x1234, SEL_CODE3, 0x202, 0x5678, SEL_DATA3};

    vcpu->gpr[ESP] -= sizeof frame;
    fake_write(&machine, vcpu->gpr[ESP], frame, sizeof frame);
    guest_assert_done(vcpu, OPERAND_SIZE, IRET);
    assert_at(vcpu, SEL_CODE3, 0x1234, 3);
    ck_assert_uint_eq(vcpu->gpr[ESP], 0x5678);
    ck_assert_uint_eq(vcpu->segment[SEG_SS].selector, SEL_DATA3);
}
END_TEST

static void push_v8086_frame(struct vcpu *vcpu, uint32_t eip)
{
    guest_push(vcpu, 0x6666); /* GS */
    guest_push(vcpu, 0x5555);
    guest_push(vcpu, 0x4444);
    guest_push(vcpu, 0x3333); /* ES */
    guest_push(vcpu, 0x2222); /* SS */
    guest_push(vcpu, 0xabcd8000);
    push_iret_frame(vcpu, 0x23202, 0x1111, eip);
}

START_TEST(iret_to_virtual_8086_mode)
{
    struct vcpu *vcpu = guest_reset(&machine);
    static const uint16_t selectors[] = {0x3333, 0x1111, 0x2222, 0x4444, 0x5555, 0x6666};

    push_v8086_frame(vcpu, 0x1234);
    guest_assert_done(vcpu, IRET);
    assert_at(vcpu, 0x1111, 0x1234, 3);
    ck_assert_uint_eq(vcpu->eflags, 0x23202);
    ck_assert_uint_eq(vcpu->gpr[ESP], 0xabcd8000);
    for (unsigned i = 0; i < SEG_COUNT; i++) {
        ck_assert_uint_eq(vcpu->segment[i].selector, selectors[i]);
        ck_assert_uint_eq(vcpu->segment[i].base, (uint32_t)selectors[i] << 4);
        ck_assert_uint_eq(vcpu->segment[i].limit, 0xffff);
        ck_assert_uint_eq(vcpu->segment[i].attributes, 0xf3);
    }
}
END_TEST

START_TEST(iret_to_virtual_8086_mode_is_checked)
{
    struct vcpu *vcpu = guest_reset(&machine);

    push_v8086_frame(vcpu, 0x10000);
    guest_assert_fault(vcpu, EXCEPTION_GP, 0, IRET);
    fake_write32(&machine, vcpu->gpr[ESP], 0x1234);
    vcpu->segment[SEG_SS].limit = GUEST_STACK - 2; /* GS does not fit */
    guest_assert_fault(vcpu, EXCEPTION_SS, 0, IRET);
    vcpu->segment[SEG_SS].limit = GUEST_STACK - 1;
    guest_assert_done(vcpu, IRET);
}
END_TEST

START_TEST(iret_in_virtual_8086_mode_needs_iopl_3_and_keeps_it)
{
    struct vcpu *vcpu = guest_reset(&machine);

    guest_enter_v8086(vcpu);
    fake_write16(&machine, 0x21000, 0x1234);
    fake_write16(&machine, 0x21002, 0x1100);
    fake_write16(&machine, 0x21004, 0x4ed7); /* all but IOPL and TF */
    guest_assert_fault(vcpu, EXCEPTION_GP, 0, IRET);
    vcpu->eflags |= EFLAGS_IOPL;
    guest_assert_done(vcpu, IRET);
    ck_assert_uint_eq(vcpu->segment[SEG_CS].selector, 0x1100);
    ck_assert_uint_eq(vcpu->eip, 0x1234);
    ck_assert_uint_eq(vcpu->cpl, 3);
    ck_assert_uint_eq(vcpu->eflags, 0x27ed7);
    ck_assert_uint_eq(vcpu->gpr[ESP], 0x1006);
}
END_TEST

START_TEST(iret_in_real_mode)
{
    struct vcpu *vcpu = guest_reset(&machine);

    guest_enter_real_mode(vcpu);
    fake_write16(&machine, 0x21000, 0x1234);
    fake_write16(&machine, 0x21002, 0x1100);
    fake_write16(&machine, 0x21004, 0x7ed7);
    guest_assert_done(vcpu, IRET);
    ck_assert_uint_eq(vcpu->segment[SEG_CS].base, 0x11000);
    ck_assert_uint_eq(vcpu->eip, 0x1234);
    ck_assert_uint_eq(vcpu->eflags, 0x7ed7);

    vcpu->gpr[ESP] = 0x1000; /* SDM: mask 257fd5 with a 32-bit operand */
    vcpu->eflags = 2;
    fake_write32(&machine, 0x21000, 0x5678);
    fake_write32(&machine, 0x21004, 0x1100);
    fake_write32(&machine, 0x21008, 0xffffffff);
    guest_assert_done(vcpu, OPERAND_SIZE, IRET);
    ck_assert_uint_eq(vcpu->eip, 0x5678);
    ck_assert_uint_eq(vcpu->eflags, 0x257fd7);
}
END_TEST

START_TEST(iret_undoes_an_interrupt_from_user_mode)
{
    struct vcpu *vcpu = guest_reset(&machine);
    struct vcpu before;

    guest_set_idt(&machine, 0x80, SEL_CODE0, TARGET, 0xef);
    guest_enter_ring(vcpu, 3);
    vcpu->eflags |= EFLAGS_IF | EFLAGS_CF | EFLAGS_ID;
    memcpy(&before, vcpu, sizeof before);
    guest_assert_done(vcpu, 0xcd, 0x80);
    ck_assert_uint_eq(vcpu->cpl, 0);
    guest_assert_done(vcpu, IRET);
    before.eip += 2;
    ck_assert_mem_eq(vcpu->gpr, before.gpr, sizeof before.gpr);
    ck_assert_mem_eq(vcpu->segment, before.segment, sizeof before.segment);
    ck_assert_uint_eq(vcpu->eip, before.eip);
    ck_assert_uint_eq(vcpu->eflags, before.eflags);
    ck_assert_uint_eq(vcpu->cpl, 3);
}
END_TEST

START_TEST(a_faulting_iret_unblocks_nmis_too)
{
    struct vcpu *vcpu = guest_reset(&machine);

    vcpu->nmi_blocked = true;
    push_iret_frame(vcpu, 2, 0, TARGET);
    ck_assert_int_eq(guest_run(vcpu, IRET), OUTCOME_FAULT);
    ck_assert(!vcpu->nmi_blocked);
}
END_TEST

/* ---- SYSENTER, SYSEXIT -------------------------------------------------------------------------------- */

START_TEST(sysenter_makes_flat_ring_0_segments)
{
    struct vcpu *vcpu = guest_reset(&machine);

    guest_enter_ring(vcpu, 3);
    vcpu->msr.sysenter_cs = 0x63; /* the RPL is ignored */
    vcpu->msr.sysenter_esp = 0x7000;
    vcpu->msr.sysenter_eip = TARGET;
    vcpu->eflags |= EFLAGS_IF | EFLAGS_CF;
    guest_assert_done(vcpu, 0x0f, 0x34);
    assert_at(vcpu, 0x60, TARGET, 0);
    ck_assert_uint_eq(vcpu->segment[SEG_CS].attributes, 0xc09b);
    ck_assert_uint_eq(vcpu->segment[SEG_CS].limit, 0xffffffff);
    ck_assert_uint_eq(vcpu->segment[SEG_SS].selector, 0x68);
    ck_assert_uint_eq(vcpu->segment[SEG_SS].attributes, 0xc093);
    ck_assert_uint_eq(vcpu->gpr[ESP], 0x7000);
    ck_assert_uint_eq(vcpu->eflags, 0x3);
}
END_TEST

START_TEST(sysexit_makes_flat_ring_3_segments)
{
    struct vcpu *vcpu = guest_reset(&machine);

    vcpu->msr.sysenter_cs = 0x60;
    vcpu->gpr[ECX] = GUEST_USER_STACK;
    vcpu->gpr[EDX] = TARGET;
    vcpu->eflags |= EFLAGS_IF;
    guest_assert_done(vcpu, 0x0f, 0x35);
    assert_at(vcpu, 0x73, TARGET, 3);
    ck_assert_uint_eq(vcpu->segment[SEG_CS].attributes, 0xc0fb);
    ck_assert_uint_eq(vcpu->segment[SEG_SS].selector, 0x7b);
    ck_assert_uint_eq(vcpu->segment[SEG_SS].attributes, 0xc0f3);
    ck_assert_uint_eq(vcpu->gpr[ESP], GUEST_USER_STACK);
    ck_assert_uint_eq(vcpu->eflags, 0x202);
    ck_assert_uint_eq(vcpu->segment[SEG_DS].selector, SEL_DATA0); /* data segments stay */
}
END_TEST

START_TEST(sysenter_and_sysexit_are_refused)
{
    struct vcpu *vcpu = guest_reset(&machine);

    vcpu->msr.sysenter_cs = 3; /* null */
    guest_assert_fault(vcpu, EXCEPTION_GP, 0, 0x0f, 0x34);
    guest_assert_fault(vcpu, EXCEPTION_GP, 0, 0x0f, 0x35);
    vcpu->msr.sysenter_cs = 0x60;
    guest_enter_ring(vcpu, 3);
    guest_assert_fault(vcpu, EXCEPTION_GP, 0, 0x0f, 0x35);
    vcpu = guest_reset(&machine);
    vcpu->msr.sysenter_cs = 0x60;
    guest_enter_real_mode(vcpu);
    guest_assert_fault(vcpu, EXCEPTION_GP, 0, 0x0f, 0x34);
    guest_assert_fault(vcpu, EXCEPTION_GP, 0, 0x0f, 0x35);
}
END_TEST

int main(void)
{
    const TTest *tests[] = {
        a_far_jump_changes_cs_and_eip_only,
        a_far_jump_through_memory_reads_offset_then_selector,
        a_far_call_pushes_cs_and_eip,
        a_16_bit_far_call_pushes_words,
        direct_transfers_stay_in_the_ring,
        a_far_call_needs_room_and_a_mapped_stack,
        a_call_gate_to_an_inner_ring_copies_parameters,
        a_call_gate_copies_up_to_31_parameters,
        a_16_bit_call_gate_copies_words,
        a_call_gate_in_the_same_ring_pushes_by_its_own_size,
        call_gates_are_checked,
        the_inner_stack_of_a_call_gate_is_checked,
        parameters_are_read_with_the_rights_of_the_caller,
        paragraphs_are_called_jumped_to_and_returned_from,
        a_far_return_within_the_ring,
        a_far_return_to_user_switches_stacks_and_drops_kernel_segments,
        the_code_returned_to_is_checked,
        the_outer_stack_returned_to_is_checked,
        a_short_stack_is_ss_0,
        iret_restores_the_flags_that_its_privilege_allows,
        iret_to_user_mode,
        iret_to_a_16_bit_stack_keeps_the_upper_half_of_esp,
        a_16_bit_iret_to_user_pops_five_words,
        iret_to_virtual_8086_mode,
        iret_to_virtual_8086_mode_is_checked,
        iret_in_virtual_8086_mode_needs_iopl_3_and_keeps_it,
        iret_in_real_mode,
        iret_undoes_an_interrupt_from_user_mode,
        a_faulting_iret_unblocks_nmis_too,
        sysenter_makes_flat_ring_0_segments,
        sysexit_makes_flat_ring_3_segments,
        sysenter_and_sysexit_are_refused,
    };

    return guest_run_suite("transfer", tests, sizeof tests / sizeof tests[0]);
}
