/* Delivery of interrupts and exceptions: gates, stacks, error codes, double and triple faults. */
#include "fake_guest.h"

static struct fake_machine machine;

enum { HANDLER = 0x12345, VECTOR = 0x40 };

#define INT_VECTOR 0xcd, VECTOR

static struct vcpu *reset_with_gate(uint16_t selector, uint8_t access)
{
    struct vcpu *vcpu = guest_reset(&machine);

    guest_set_idt(&machine, VECTOR, selector, HANDLER, access);
    return vcpu;
}

static void deliver_fault(struct vcpu *vcpu, int vector, uint32_t error)
{
    struct fault fault = {.vector = (int16_t)vector, .has_error = true, .error = error};

    ck_assert_int_eq(vcpu_deliver_fault(vcpu, &fault), OUTCOME_DONE);
}

/* ---- the frame ---------------------------------------------------------------------------------------- */

START_TEST(an_interrupt_gate_pushes_three_values_and_closes_if)
{
    struct vcpu *vcpu = reset_with_gate(SEL_CODE0, 0x8e);

    vcpu->eflags |= EFLAGS_IF | EFLAGS_TF | EFLAGS_NT | EFLAGS_AC | EFLAGS_CF | EFLAGS_DF | EFLAGS_IOPL;
    guest_assert_done(vcpu, INT_VECTOR);
    ck_assert_uint_eq(vcpu->eip, HANDLER);
    ck_assert_uint_eq(vcpu->segment[SEG_CS].selector, SEL_CODE0);
    ck_assert_uint_eq(vcpu->gpr[ESP], GUEST_STACK - 12);
    ck_assert_uint_eq(guest_stack32(vcpu, 0), GUEST_CODE + 2); /* past INT n */
    ck_assert_uint_eq(guest_stack32(vcpu, 1), SEL_CODE0);
    ck_assert_uint_eq(guest_stack32(vcpu, 2), 0x47703); /* AC NT IOPL DF IF TF CF */
    ck_assert_uint_eq(vcpu->eflags, 0x43403);           /* without NT IF TF */
    ck_assert_uint_eq(machine.n_writes, 1);             /* the frame in one piece; CS is accessed already */
}
END_TEST

START_TEST(a_trap_gate_leaves_if_alone)
{
    struct vcpu *vcpu = reset_with_gate(SEL_CODE0, 0x8f);

    vcpu->eflags |= EFLAGS_IF;
    guest_assert_done(vcpu, INT_VECTOR);
    ck_assert_uint_eq(vcpu->eflags, 0x202);
}
END_TEST

START_TEST(a_16_bit_gate_pushes_words_and_has_a_16_bit_offset)
{
    struct vcpu *vcpu = guest_reset(&machine);

    fake_set_gate(&machine, GUEST_IDT + VECTOR * 8, SEL_CODE0, 0xdead1234, 0x86, 0);
    vcpu->eflags |= EFLAGS_ID;
    guest_assert_done(vcpu, INT_VECTOR);
    ck_assert_uint_eq(vcpu->eip, 0x1234);
    ck_assert_uint_eq(vcpu->gpr[ESP], GUEST_STACK - 6);
    ck_assert_uint_eq(fake_read16(&machine, GUEST_STACK - 6), (GUEST_CODE + 2) & 0xffff);
    ck_assert_uint_eq(fake_read16(&machine, GUEST_STACK - 4), SEL_CODE0);
    ck_assert_uint_eq(fake_read16(&machine, GUEST_STACK - 2), 2);
}
END_TEST

START_TEST(an_error_code_is_pushed_last)
{
    struct vcpu *vcpu = guest_reset(&machine);

    guest_set_idt(&machine, EXCEPTION_GP, SEL_CODE0, HANDLER, 0x8e);
    deliver_fault(vcpu, EXCEPTION_GP, 0x1234);
    ck_assert_uint_eq(vcpu->gpr[ESP], GUEST_STACK - 16);
    ck_assert_uint_eq(guest_stack32(vcpu, 0), 0x1234);
    ck_assert_uint_eq(guest_stack32(vcpu, 1), GUEST_CODE); /* at the instruction */
    ck_assert_uint_eq(guest_stack32(vcpu, 2), SEL_CODE0);
    ck_assert_uint_eq(machine.n_injections, 1);
    ck_assert_int_eq(machine.injection[0].kind, INJECT_EXCEPTION);
    ck_assert_uint_eq(machine.injection[0].vector, EXCEPTION_GP);
    ck_assert_uint_eq(machine.injection[0].error, 0x1234);
}
END_TEST

START_TEST(faults_save_rf_and_traps_do_not)
{
    static const struct {
        struct fault fault;
        bool has_rf;
    } cases[] = {
        {{.vector = EXCEPTION_DE}, true},
        {{.vector = EXCEPTION_PF, .has_error = true}, true},
        {{.vector = EXCEPTION_BP}, false},
        {{.vector = EXCEPTION_OF}, false},
        {{.vector = EXCEPTION_DB, .is_trap = true}, false},
        {{.vector = EXCEPTION_DB}, true}, /* MOV DR under GD */
    };

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct vcpu *vcpu = guest_reset(&machine);
        unsigned eflags_slot = cases[i].fault.has_error ? 3 : 2;

        guest_set_idt(&machine, (unsigned)cases[i].fault.vector, SEL_CODE0, HANDLER, 0x8e);
        ck_assert_int_eq(vcpu_deliver_fault(vcpu, &cases[i].fault), OUTCOME_DONE);
        ck_assert_uint_eq(guest_stack32(vcpu, eflags_slot), cases[i].has_rf ? 0x10002 : 2);
        ck_assert_uint_eq(vcpu->eflags & EFLAGS_RF, 0);
    }
}
END_TEST

START_TEST(a_page_fault_sets_cr2)
{
    struct vcpu *vcpu = guest_reset(&machine);

    guest_set_idt(&machine, EXCEPTION_PF, SEL_CODE0, HANDLER, 0x8e);
    vcpu_raise_page_fault(vcpu, 0xdeadbeef, PF_WRITE);
    ck_assert_int_eq(vcpu_deliver_fault(vcpu, &vcpu->fault), OUTCOME_DONE);
    ck_assert_uint_eq(vcpu->cr2, 0xdeadbeef);
    ck_assert_uint_eq(guest_stack32(vcpu, 0), PF_WRITE);
}
END_TEST

/* ---- inner rings -------------------------------------------------------------------------------------- */

START_TEST(user_to_kernel_takes_the_stack_of_the_tss)
{
    struct vcpu *vcpu = guest_reset(&machine);

    guest_enter_ring(vcpu, 3);
    vcpu->eflags |= EFLAGS_IF;
    guest_set_idt(&machine, EXCEPTION_PF, SEL_CODE0, HANDLER, 0x8e);
    vcpu_raise_page_fault(vcpu, 0x1000, PF_USER);
    ck_assert_int_eq(vcpu_deliver_fault(vcpu, &vcpu->fault), OUTCOME_DONE);
    ck_assert_uint_eq(vcpu->cpl, 0);
    ck_assert_uint_eq(vcpu->segment[SEG_CS].selector, SEL_CODE0);
    ck_assert_uint_eq(vcpu->segment[SEG_SS].selector, SEL_DATA0);
    ck_assert_uint_eq(vcpu->gpr[ESP], GUEST_STACK0 - 24);
    ck_assert_uint_eq(guest_stack32(vcpu, 0), PF_USER);
    ck_assert_uint_eq(guest_stack32(vcpu, 1), GUEST_CODE);
    ck_assert_uint_eq(guest_stack32(vcpu, 2), SEL_CODE3);
    ck_assert_uint_eq(guest_stack32(vcpu, 3), 0x10202);
    ck_assert_uint_eq(guest_stack32(vcpu, 4), GUEST_USER_STACK);
    ck_assert_uint_eq(guest_stack32(vcpu, 5), SEL_DATA3);
    ck_assert_uint_eq(vcpu->segment[SEG_DS].selector, SEL_DATA3); /* data segments stay */
}
END_TEST

START_TEST(the_kernel_stack_is_pushed_to_with_supervisor_rights)
{
    struct vcpu *vcpu = reset_with_gate(SEL_CODE0, 0xee);

    guest_enter_ring(vcpu, 3);
    fake_set_rights(&machine, GUEST_STACK0 - 1, PTE_P | PTE_W);
    fake_set_rights(&machine, GUEST_TSS, PTE_P | PTE_W);
    fake_set_rights(&machine, GUEST_IDT, PTE_P | PTE_W);
    fake_set_rights(&machine, GUEST_GDT, PTE_P);
    guest_assert_done(vcpu, INT_VECTOR);
    ck_assert_uint_eq(vcpu->gpr[ESP], GUEST_STACK0 - 20);
}
END_TEST

START_TEST(ring_1_has_a_stack_of_its_own)
{
    struct vcpu *vcpu = reset_with_gate(SEL_CODE1, 0xee);

    guest_enter_ring(vcpu, 3);
    guest_assert_done(vcpu, INT_VECTOR);
    ck_assert_uint_eq(vcpu->cpl, 1);
    ck_assert_uint_eq(vcpu->segment[SEG_CS].selector,
                      SEL_CODE1 | 1); /* RPL is the CPL, whatever the gate had */
    ck_assert_uint_eq(vcpu->segment[SEG_SS].selector, SEL_DATA1 | 1);
    ck_assert_uint_eq(vcpu->gpr[ESP], GUEST_STACK1 - 20);
}
END_TEST

START_TEST(a_conforming_handler_stays_in_the_ring)
{
    struct vcpu *vcpu = reset_with_gate(SEL_CONFORMING, 0xee);

    guest_enter_ring(vcpu, 3);
    guest_assert_done(vcpu, INT_VECTOR);
    ck_assert_uint_eq(vcpu->cpl, 3);
    ck_assert_uint_eq(vcpu->segment[SEG_CS].selector, SEL_CONFORMING | 3);
    ck_assert_uint_eq(vcpu->gpr[ESP], GUEST_USER_STACK - 12);
}
END_TEST

START_TEST(a_16_bit_tss_has_sp_and_ss_next_to_each_other)
{
    struct vcpu *vcpu = reset_with_gate(SEL_CODE0, 0xee);

    vcpu->tr = (struct segment){SEL_TSS_16, 0x83, GUEST_TSS_16, 0x2b};
    fake_write16(&machine, GUEST_TSS_16 + 2, 0x8000);
    fake_write16(&machine, GUEST_TSS_16 + 4, SEL_DATA0);
    guest_enter_ring(vcpu, 3);
    guest_assert_done(vcpu, INT_VECTOR);
    ck_assert_uint_eq(vcpu->gpr[ESP], 0x8000 - 20);
}
END_TEST

START_TEST(a_bad_inner_stack_is_refused)
{
    static const struct {
        uint16_t tss_limit, ss;
        uint32_t esp;
        int vector;
        uint32_t error;
    } cases[] = {
        {0x2ff, SEL_DATA0, GUEST_STACK0, -1, 0},
        {9, SEL_DATA0, GUEST_STACK0, -1, 0}, /* SS0 ends at byte 9 */
        {8, SEL_DATA0, GUEST_STACK0, EXCEPTION_TS, SEL_TSS},
        {0x2ff, 0, GUEST_STACK0, EXCEPTION_TS, 0},
        {0x2ff, 3, GUEST_STACK0, EXCEPTION_TS, 0},
        {0x2ff, SEL_DATA0 | 3, GUEST_STACK0, EXCEPTION_TS, SEL_DATA0},  /* RPL */
        {0x2ff, SEL_DATA3, GUEST_STACK0, EXCEPTION_TS, SEL_DATA3 & ~3}, /* DPL */
        {0x2ff, SEL_DATA_READONLY, GUEST_STACK0, EXCEPTION_TS, SEL_DATA_READONLY},
        {0x2ff, SEL_CODE0, GUEST_STACK0, EXCEPTION_TS, SEL_CODE0},
        {0x2ff, SEL_TSS_B, GUEST_STACK0, EXCEPTION_TS, SEL_TSS_B},
        {0x2ff, SEL_BEYOND, GUEST_STACK0, EXCEPTION_TS, SEL_BEYOND},
        {0x2ff, SEL_DATA_ABSENT, GUEST_STACK0, EXCEPTION_SS, SEL_DATA_ABSENT},
        {0x2ff, SEL_DATA_SHORT, 0x1014, EXCEPTION_SS, SEL_DATA_SHORT}, /* no room */
        {0x2ff, SEL_DATA_SHORT, 0x10, EXCEPTION_SS, SEL_DATA_SHORT},   /* 20 bytes below 0x10 wrap */
        {0x2ff, SEL_DATA_SHORT, 0x1000, -1, 0},
    };

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct vcpu *vcpu = reset_with_gate(SEL_CODE0, 0xee);

        guest_enter_ring(vcpu, 3);
        vcpu->tr.limit = cases[i].tss_limit;
        fake_write32(&machine, GUEST_TSS + 4, cases[i].esp);
        fake_write16(&machine, GUEST_TSS + 8, cases[i].ss);
        if (cases[i].vector < 0)
            guest_assert_done(vcpu, INT_VECTOR);
        else
            guest_assert_fault(vcpu, cases[i].vector, cases[i].error, INT_VECTOR);
    }
}
END_TEST

START_TEST(a_page_fault_on_the_inner_stack_changes_nothing)
{
    struct vcpu *vcpu = reset_with_gate(SEL_CODE0, 0xee);

    guest_enter_ring(vcpu, 3);
    fake_set_rights(&machine, GUEST_STACK0 - 1, 0);
    guest_assert_fault(vcpu, EXCEPTION_PF, PF_WRITE, INT_VECTOR);
    ck_assert_uint_eq(vcpu->fault.cr2, GUEST_STACK0 - 20);
}
END_TEST

/* ---- gates --------------------------------------------------------------------------------------------- */

START_TEST(a_bad_gate_is_refused)
{
    static const struct {
        unsigned ring;
        uint16_t selector;
        uint8_t access;
        int vector;
        uint32_t error;
    } cases[] = {
        {0, SEL_CODE0, 0x8e, -1, 0},
        {3, SEL_CODE0, 0xee, -1, 0},
        {3, SEL_CODE0, 0x8e, EXCEPTION_GP, VECTOR * 8 + 2}, /* DPL < CPL */
        {3, SEL_CODE0, 0x0e, EXCEPTION_GP, VECTOR * 8 + 2}, /* before presence */
        {0, SEL_CODE0, 0x0e, EXCEPTION_NP, VECTOR * 8 + 2},
        {0, SEL_CODE0, 0x8c, EXCEPTION_GP, VECTOR * 8 + 2}, /* call gate */
        {0, SEL_CODE0, 0x89, EXCEPTION_GP, VECTOR * 8 + 2}, /* TSS */
        {0, SEL_CODE0, 0x9e, EXCEPTION_GP, VECTOR * 8 + 2}, /* S=1 */
        {0, SEL_CODE0, 0x00, EXCEPTION_GP, VECTOR * 8 + 2},
        {0, 0, 0x8e, EXCEPTION_GP, 0},
        {0, 3, 0x8e, EXCEPTION_GP, 0},
        {0, SEL_BEYOND, 0x8e, EXCEPTION_GP, SEL_BEYOND},
        {0, SEL_DATA0, 0x8e, EXCEPTION_GP, SEL_DATA0},
        {0, SEL_CODE3, 0x8e, EXCEPTION_GP, SEL_CODE3 & ~3}, /* DPL > CPL: interrupts never go outward */
        {0, SEL_CODE_ABSENT, 0x8e, EXCEPTION_NP, SEL_CODE_ABSENT},
        {0, SEL_CODE_SHORT, 0x8e, EXCEPTION_GP, 0}, /* offset beyond the segment */
        {0, SEL_CODE0 | 3, 0x8e, -1, 0},            /* the gate's RPL does not count */
        {0, SEL_LOCAL_BEYOND, 0x8e, EXCEPTION_GP, SEL_LOCAL_BEYOND},
    };

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct vcpu *vcpu = reset_with_gate(cases[i].selector, cases[i].access);

        guest_enter_ring(vcpu, cases[i].ring);
        if (cases[i].vector < 0)
            guest_assert_done(vcpu, INT_VECTOR);
        else
            guest_assert_fault(vcpu, cases[i].vector, cases[i].error, INT_VECTOR);
    }
}
END_TEST

START_TEST(an_entry_must_lie_within_the_idt)
{
    struct vcpu *vcpu = reset_with_gate(SEL_CODE0, 0x8e);

    vcpu->idtr.limit = VECTOR * 8 + 6;
    guest_assert_fault(vcpu, EXCEPTION_GP, VECTOR * 8 + 2, INT_VECTOR);
    vcpu->idtr.limit = VECTOR * 8 + 7;
    guest_assert_done(vcpu, INT_VECTOR);
}
END_TEST

START_TEST(no_room_on_the_current_stack_is_ss_0)
{
    struct vcpu *vcpu = reset_with_gate(SEL_CODE0, 0x8e);

    vcpu->segment[SEG_SS].limit = 0xfff;
    vcpu->gpr[ESP] = 0x1004;
    guest_assert_fault(vcpu, EXCEPTION_SS, 0, INT_VECTOR);
}
END_TEST

START_TEST(a_first_use_marks_the_code_segment)
{
    struct vcpu *vcpu = reset_with_gate(SEL_EXECUTE_ONLY, 0x8e);

    guest_set_gdt(&machine, SEL_EXECUTE_ONLY, 0, 0xfffff, 0x98, 0xc);
    guest_assert_done(vcpu, INT_VECTOR);
    ck_assert_uint_eq(fake_read8(&machine, GUEST_GDT + SEL_EXECUTE_ONLY + 5), 0x99);
    ck_assert_uint_eq(vcpu->segment[SEG_CS].attributes & 0xff, 0x99);
}
END_TEST

/* ---- INT3, INTO, INT1 --------------------------------------------------------------------------------- */

START_TEST(int3_and_into_are_checked_like_int_n)
{
    struct vcpu *vcpu = guest_reset(&machine);

    guest_set_idt(&machine, EXCEPTION_BP, SEL_CODE0, HANDLER, 0x8e);
    guest_set_idt(&machine, EXCEPTION_OF, SEL_CODE0, HANDLER, 0x8e);
    guest_enter_ring(vcpu, 3);
    guest_assert_fault(vcpu, EXCEPTION_GP, 3 * 8 + 2, 0xcc);
    guest_assert_done(vcpu, 0xce); /* OF is clear */
    ck_assert_uint_eq(vcpu->eip, GUEST_CODE + 1);
    vcpu->eflags |= EFLAGS_OF;
    guest_assert_fault(vcpu, EXCEPTION_GP, 4 * 8 + 2, 0xce);
    guest_set_idt(&machine, EXCEPTION_BP, SEL_CODE0, HANDLER, 0xee);
    guest_assert_done(vcpu, 0xcc);
    ck_assert_uint_eq(vcpu->eip, HANDLER);
    ck_assert_uint_eq(guest_stack32(vcpu, 0), GUEST_CODE + 2);
    ck_assert_int_eq(machine.injection[0].kind, INJECT_SOFTWARE);
}
END_TEST

START_TEST(int1_passes_any_gate_and_counts_as_external)
{
    struct vcpu *vcpu = guest_reset(&machine);

    guest_set_idt(&machine, EXCEPTION_DB, SEL_CODE0, HANDLER, 0x8e);
    guest_enter_ring(vcpu, 3);
    guest_assert_done(vcpu, 0xf1);
    ck_assert_uint_eq(vcpu->eip, HANDLER);
    vcpu = guest_reset(&machine);
    guest_set_idt(&machine, EXCEPTION_DB, SEL_CODE0, HANDLER, 0x0e);
    guest_assert_fault(vcpu, EXCEPTION_NP, 1 * 8 + 3, 0xf1);
}
END_TEST

START_TEST(int_n_is_not_followed_by_a_single_step_trap)
{
    struct vcpu *vcpu = reset_with_gate(SEL_CODE0, 0x8e);

    vcpu->eflags |= EFLAGS_TF;
    guest_assert_done(vcpu, INT_VECTOR);
    ck_assert_uint_eq(vcpu->eip, HANDLER);
    ck_assert_uint_eq(vcpu->eflags & EFLAGS_TF, 0);
}
END_TEST

/* ---- virtual-8086 and real mode ----------------------------------------------------------------------- */

START_TEST(virtual_8086_mode_is_left_for_ring_0_with_nine_values)
{
    struct vcpu *vcpu = reset_with_gate(SEL_CODE0, 0xee);

    guest_enter_v8086(vcpu);
    vcpu->eflags |= EFLAGS_IOPL | EFLAGS_IF;
    vcpu->segment[SEG_DS].selector = 0x1111;
    vcpu->segment[SEG_ES].selector = 0x2222;
    vcpu->segment[SEG_FS].selector = 0x3333;
    vcpu->segment[SEG_GS].selector = 0x4444;
    guest_assert_done(vcpu, INT_VECTOR);
    ck_assert_uint_eq(vcpu->cpl, 0);
    ck_assert_uint_eq(vcpu->eflags, 0x3002);
    ck_assert_uint_eq(vcpu->gpr[ESP], GUEST_STACK0 - 36);
    ck_assert_uint_eq(guest_stack32(vcpu, 0), 2);
    ck_assert_uint_eq(guest_stack32(vcpu, 1), 0x1000);
    ck_assert_uint_eq(guest_stack32(vcpu, 2), 0x23202);
    ck_assert_uint_eq(guest_stack32(vcpu, 3), 0x1000);
    ck_assert_uint_eq(guest_stack32(vcpu, 4), 0x2000);
    ck_assert_uint_eq(guest_stack32(vcpu, 5), 0x2222);
    ck_assert_uint_eq(guest_stack32(vcpu, 6), 0x1111);
    ck_assert_uint_eq(guest_stack32(vcpu, 7), 0x3333);
    ck_assert_uint_eq(guest_stack32(vcpu, 8), 0x4444);
    for (unsigned i = 0; i < 4; i++) {
        static const enum segment_index data[] = {SEG_DS, SEG_ES, SEG_FS, SEG_GS};
        ck_assert_uint_eq(vcpu->segment[data[i]].selector, 0);
        ck_assert_uint_eq(vcpu->segment[data[i]].attributes, 0);
    }
    ck_assert_uint_eq(vcpu->segment[SEG_SS].selector, SEL_DATA0);
}
END_TEST

START_TEST(int_n_in_virtual_8086_mode_needs_iopl_3)
{
    struct vcpu *vcpu = reset_with_gate(SEL_CODE0, 0xee);

    guest_set_idt(&machine, EXCEPTION_BP, SEL_CODE0, HANDLER, 0xee);
    guest_enter_v8086(vcpu);
    vcpu->eflags |= 0x2000; /* IOPL 2 */
    guest_assert_fault(vcpu, EXCEPTION_GP, 0, INT_VECTOR);
    guest_assert_done(vcpu, 0xcc); /* INT3 does not ask */
    ck_assert_uint_eq(vcpu->eip, HANDLER);
}
END_TEST

START_TEST(virtual_8086_mode_cannot_be_left_for_another_ring)
{
    static const uint16_t selectors[] = {SEL_CODE3, SEL_CODE1, SEL_CONFORMING};

    for (size_t i = 0; i < 3; i++) {
        struct vcpu *vcpu = reset_with_gate(selectors[i], 0xee);

        guest_enter_v8086(vcpu);
        vcpu->eflags |= EFLAGS_IOPL;
        guest_assert_fault(vcpu, EXCEPTION_GP, selectors[i] & ~3u, INT_VECTOR);
    }
}
END_TEST

START_TEST(real_mode_goes_through_the_vector_table)
{
    struct vcpu *vcpu = guest_reset(&machine);

    guest_enter_real_mode(vcpu);
    fake_write16(&machine, VECTOR * 4, 0x5678);
    fake_write16(&machine, VECTOR * 4 + 2, 0x1234);
    vcpu->eflags |= EFLAGS_IF | EFLAGS_TF | EFLAGS_AC | EFLAGS_NT;
    guest_assert_done(vcpu, INT_VECTOR);
    ck_assert_uint_eq(vcpu->eip, 0x5678);
    ck_assert_uint_eq(vcpu->segment[SEG_CS].selector, 0x1234);
    ck_assert_uint_eq(vcpu->segment[SEG_CS].base, 0x12340);
    ck_assert_uint_eq(vcpu->gpr[ESP], 0x1000 - 6);
    ck_assert_uint_eq(guest_stack16(vcpu, 0), 2);
    ck_assert_uint_eq(guest_stack16(vcpu, 1), 0x1000);
    ck_assert_uint_eq(guest_stack16(vcpu, 2), 0x4302);
    ck_assert_uint_eq(vcpu->eflags, 0x4002);
}
END_TEST

START_TEST(real_mode_pushes_no_error_codes)
{
    struct vcpu *vcpu = guest_reset(&machine);

    guest_enter_real_mode(vcpu);
    fake_write32(&machine, EXCEPTION_GP * 4, 0x12345678);
    deliver_fault(vcpu, EXCEPTION_GP, 0);
    ck_assert_uint_eq(vcpu->gpr[ESP], 0x1000 - 6);
    ck_assert_uint_eq(vcpu->eip, 0x5678);
}
END_TEST

START_TEST(a_short_vector_table_shuts_real_mode_down)
{
    struct vcpu *vcpu = guest_reset(&machine);

    guest_enter_real_mode(vcpu);
    vcpu->idtr.limit = 0x1f; /* vectors 0-7: no #GP, no #DF */
    ck_assert_int_eq(vcpu_deliver_interrupt(vcpu, INJECT_EXTERNAL, VECTOR), OUTCOME_STOP);
    ck_assert_int_eq(machine.stop, STOP_TRIPLE_FAULT);
}
END_TEST

/* ---- external interrupts, NMI ------------------------------------------------------------------------- */

START_TEST(an_external_interrupt_ends_hlt_and_ignores_the_dpl)
{
    struct vcpu *vcpu = reset_with_gate(SEL_CODE0, 0x8e);

    guest_enter_ring(vcpu, 3);
    vcpu->eflags |= EFLAGS_IF;
    vcpu->halted = true;
    ck_assert(vcpu_accepts_interrupt(vcpu));
    ck_assert_int_eq(vcpu_deliver_interrupt(vcpu, INJECT_EXTERNAL, VECTOR), OUTCOME_DONE);
    ck_assert(!vcpu->halted);
    ck_assert(!vcpu_accepts_interrupt(vcpu));
    ck_assert_uint_eq(guest_stack32(vcpu, 0), GUEST_CODE);
    ck_assert_int_eq(machine.injection[0].kind, INJECT_EXTERNAL);
    ck_assert_uint_eq(machine.injection[0].vector, VECTOR);
}
END_TEST

START_TEST(a_refused_external_interrupt_becomes_a_fault_with_ext)
{
    struct vcpu *vcpu = reset_with_gate(SEL_CODE0, 0x0e);

    guest_set_idt(&machine, EXCEPTION_NP, SEL_CODE0, HANDLER + 1, 0x8e);
    ck_assert_int_eq(vcpu_deliver_interrupt(vcpu, INJECT_EXTERNAL, VECTOR), OUTCOME_DONE);
    ck_assert_uint_eq(vcpu->eip, HANDLER + 1);
    ck_assert_uint_eq(guest_stack32(vcpu, 0), VECTOR * 8 + 3);
    ck_assert_uint_eq(machine.n_injections, 1); /* the interrupt itself never arrived */
}
END_TEST

START_TEST(sti_holds_interrupts_back_for_one_instruction_but_not_nmi)
{
    struct vcpu *vcpu = guest_reset(&machine);

    ck_assert(!vcpu_accepts_interrupt(vcpu));
    guest_assert_done(vcpu, 0xfb); /* sti */
    ck_assert(!vcpu_accepts_interrupt(vcpu));
    ck_assert(vcpu_accepts_nmi(vcpu));
    guest_assert_done(vcpu, 0x8c, 0xd8); /* mov eax, ds */
    ck_assert(vcpu_accepts_interrupt(vcpu));
}
END_TEST

START_TEST(an_nmi_blocks_the_next_until_iret)
{
    struct vcpu *vcpu = guest_reset(&machine);

    guest_set_idt(&machine, EXCEPTION_NMI, SEL_CODE0, GUEST_CODE + 0x100, 0x8e);
    vcpu->nmi_pending = true;
    ck_assert(vcpu_accepts_nmi(vcpu));
    ck_assert_int_eq(vcpu_deliver_interrupt(vcpu, INJECT_NMI, EXCEPTION_NMI), OUTCOME_DONE);
    ck_assert(!vcpu->nmi_pending);
    ck_assert(!vcpu_accepts_nmi(vcpu));
    ck_assert_int_eq(machine.injection[0].kind, INJECT_NMI);
    guest_assert_done(vcpu, 0xcf); /* iret */
    ck_assert_uint_eq(vcpu->eip, GUEST_CODE);
    ck_assert(vcpu_accepts_nmi(vcpu));
}
END_TEST

START_TEST(a_debug_exception_clears_gd)
{
    struct vcpu *vcpu = guest_reset(&machine);

    guest_set_idt(&machine, EXCEPTION_DB, SEL_CODE0, HANDLER, 0x8e);
    vcpu->dr[7] |= DR7_GD;
    ck_assert_int_eq(vcpu_raise_debug(vcpu, DR6_BD), OUTCOME_FAULT);
    ck_assert(!vcpu->fault.is_trap);
    ck_assert_int_eq(vcpu_deliver_fault(vcpu, &vcpu->fault), OUTCOME_DONE);
    ck_assert_uint_eq(vcpu->dr[6], DR6_FIXED | DR6_BD);
    ck_assert_uint_eq(vcpu->dr[7], DR7_FIXED);
}
END_TEST

/* ---- double and triple faults ------------------------------------------------------------------------- */

/* SDM Vol 3A table 6-5. */
START_TEST(two_contributory_faults_make_a_double_fault)
{
    static const int first[] = {EXCEPTION_DE, EXCEPTION_TS, EXCEPTION_NP,
                                EXCEPTION_SS, EXCEPTION_GP, EXCEPTION_PF};

    for (size_t i = 0; i < sizeof first / sizeof first[0]; i++) {
        struct vcpu *vcpu = guest_reset(&machine);
        struct fault fault = {.vector = (int16_t)first[i]};

        guest_set_idt(&machine, EXCEPTION_DF, SEL_CODE0, HANDLER, 0x8e);
        ck_assert_int_eq(vcpu_deliver_fault(vcpu, &fault), OUTCOME_DONE); /* its gate is empty: #GP */
        ck_assert_uint_eq(vcpu->eip, HANDLER);
        ck_assert_uint_eq(guest_stack32(vcpu, 0), 0); /* #DF's error code */
        ck_assert_uint_eq(guest_stack32(vcpu, 1), GUEST_CODE);
        ck_assert_uint_eq(vcpu->gpr[ESP], GUEST_STACK - 16);
        ck_assert_uint_eq(machine.n_injections, 1);
        ck_assert_uint_eq(machine.injection[0].vector, EXCEPTION_DF);
    }
}
END_TEST

START_TEST(a_benign_exception_and_a_fault_are_handled_one_after_the_other)
{
    static const int first[] = {EXCEPTION_DB, EXCEPTION_BP, EXCEPTION_OF, EXCEPTION_BR, EXCEPTION_UD,
                                EXCEPTION_NM, EXCEPTION_MF, EXCEPTION_AC, EXCEPTION_XM};

    for (size_t i = 0; i < sizeof first / sizeof first[0]; i++) {
        struct vcpu *vcpu = guest_reset(&machine);
        struct fault fault = {.vector = (int16_t)first[i]};

        guest_set_idt(&machine, EXCEPTION_GP, SEL_CODE0, HANDLER, 0x8e);
        ck_assert_int_eq(vcpu_deliver_fault(vcpu, &fault), OUTCOME_DONE);
        ck_assert_uint_eq(vcpu->eip, HANDLER);
        ck_assert_uint_eq(guest_stack32(vcpu, 0), (uint32_t)first[i] * 8 + 3);
    }
}
END_TEST

START_TEST(a_page_fault_while_delivering_a_contributory_fault_is_handled_first)
{
    struct vcpu *vcpu = guest_reset(&machine);
    struct fault fault = {.vector = EXCEPTION_DE};

    /* #DE's code segment lies in a part of the GDT that is not mapped; #PF's does not. */
    vcpu->gdtr = (struct table_register){0x6000 - 0x100, 0x1ff};
    fake_set_descriptor(&machine, 0x6000 - 0x100, SEL_CODE0, 0, 0xfffff, 0x9b, 0xc);
    fake_set_rights(&machine, 0x6000, 0);
    guest_set_idt(&machine, EXCEPTION_DE, 0x108, HANDLER, 0x8e);
    guest_set_idt(&machine, EXCEPTION_PF, SEL_CODE0, HANDLER + 1, 0x8e);
    ck_assert_int_eq(vcpu_deliver_fault(vcpu, &fault), OUTCOME_DONE);
    ck_assert_uint_eq(vcpu->eip, HANDLER + 1);
    ck_assert_uint_eq(vcpu->cr2, 0x6008);
    ck_assert_uint_eq(guest_stack32(vcpu, 0), 0);
}
END_TEST

START_TEST(two_page_faults_make_a_double_fault)
{
    struct vcpu *vcpu = guest_reset(&machine);
    struct fault fault = {.vector = EXCEPTION_PF, .has_error = true, .cr2 = 0x1234};

    vcpu->idtr.base = 0x6000 - (EXCEPTION_DF + 1) * 8; /* the gate of #PF lies on an absent page */
    fake_set_rights(&machine, 0x6000, 0);
    fake_set_gate(&machine, vcpu->idtr.base + EXCEPTION_DF * 8, SEL_CODE0, HANDLER, 0x8e, 0);
    ck_assert_int_eq(vcpu_deliver_fault(vcpu, &fault), OUTCOME_DONE);
    ck_assert_uint_eq(vcpu->eip, HANDLER);
    ck_assert_uint_eq(vcpu->cr2, vcpu->idtr.base + EXCEPTION_PF * 8); /* of the second */
}
END_TEST

START_TEST(a_triple_fault_is_explained)
{
    struct vcpu *vcpu = guest_reset(&machine);
    struct fault fault = {.vector = EXCEPTION_PF, .has_error = true, .error = 2, .cr2 = 0xdeadbeef};

    vcpu->idtr.limit = EXCEPTION_PF * 8 + 7;
    guest_set_idt(&machine, EXCEPTION_PF, SEL_CODE0, HANDLER, 0x0e);
    guest_set_idt(&machine, EXCEPTION_DF, SEL_CODE_ABSENT, HANDLER, 0x8e);
    ck_assert_int_eq(vcpu_deliver_fault(vcpu, &fault), OUTCOME_STOP);
    ck_assert_int_eq(machine.stop, STOP_TRIPLE_FAULT);
    ck_assert_str_eq(machine.stop_text, "triple fault: #PF at 0008:00010000 (cr2 deadbeef, error 2), "
                                        "then #NP delivering it (IDT entry 14 is not present), "
                                        "then #NP delivering #DF (segment 0070 is not present)");
    ck_assert_uint_eq(machine.n_injections, 0);
    ck_assert_uint_eq(vcpu->eip, GUEST_CODE);
}
END_TEST

START_TEST(a_triple_fault_out_of_an_interrupt_is_explained)
{
    struct vcpu *vcpu = guest_reset(&machine);

    vcpu->idtr.limit = 7;
    ck_assert_int_eq(vcpu_deliver_interrupt(vcpu, INJECT_EXTERNAL, 0x20), OUTCOME_STOP);
    ck_assert_str_eq(machine.stop_text,
                     "triple fault: interrupt 20 at 0008:00010000, "
                     "then #GP delivering it (IDT entry 32 lies beyond the IDT's limit of 0007), "
                     "then #GP delivering it (IDT entry 13 lies beyond the IDT's limit of 0007), "
                     "then #GP delivering #DF (IDT entry 8 lies beyond the IDT's limit of 0007)");
}
END_TEST

START_TEST(a_triple_fault_for_want_of_a_stack_is_explained)
{
    struct vcpu *vcpu = guest_reset(&machine);
    struct fault fault = {.vector = EXCEPTION_GP, .has_error = true, .error = 0};

    guest_enter_ring(vcpu, 3);
    fake_write16(&machine, GUEST_TSS + 8, 0);
    guest_set_idt(&machine, EXCEPTION_GP, SEL_CODE0, HANDLER, 0x8e);
    guest_set_idt(&machine, EXCEPTION_DF, SEL_CODE0, HANDLER, 0x8e);
    ck_assert_int_eq(vcpu_deliver_fault(vcpu, &fault), OUTCOME_STOP);
    ck_assert_str_eq(machine.stop_text,
                     "triple fault: #GP at 001b:00010000 (error 0000), "
                     "then #TS delivering it (the TSS has a null SS for the handler's ring), "
                     "then #TS delivering #DF (the TSS has a null SS for the handler's ring)");
}
END_TEST

/* An #AC handler in ring 3 whose stack is misaligned: #AC delivering #AC, which is benign, and so for ever.
 */
START_TEST(an_endless_chain_of_alignment_checks_ends_the_run)
{
    struct vcpu *vcpu = guest_reset(&machine);
    struct fault fault = {.vector = EXCEPTION_AC, .has_error = true};

    guest_enter_ring(vcpu, 3);
    vcpu->cr0 |= CR0_AM;
    vcpu->eflags |= EFLAGS_AC;
    vcpu->gpr[ESP]--;
    guest_set_idt(&machine, EXCEPTION_AC, SEL_CODE3, HANDLER, 0xee);
    ck_assert_int_eq(vcpu_deliver_fault(vcpu, &fault), OUTCOME_STOP);
    ck_assert_int_eq(machine.stop, STOP_IMPOSSIBLE);
    ck_assert_ptr_nonnull(strstr(machine.stop_text, "#AC while delivering #AC"));
}
END_TEST

int main(void)
{
    const TTest *tests[] = {
        an_interrupt_gate_pushes_three_values_and_closes_if,
        a_trap_gate_leaves_if_alone,
        a_16_bit_gate_pushes_words_and_has_a_16_bit_offset,
        an_error_code_is_pushed_last,
        faults_save_rf_and_traps_do_not,
        a_page_fault_sets_cr2,
        user_to_kernel_takes_the_stack_of_the_tss,
        the_kernel_stack_is_pushed_to_with_supervisor_rights,
        ring_1_has_a_stack_of_its_own,
        a_conforming_handler_stays_in_the_ring,
        a_16_bit_tss_has_sp_and_ss_next_to_each_other,
        a_bad_inner_stack_is_refused,
        a_page_fault_on_the_inner_stack_changes_nothing,
        a_bad_gate_is_refused,
        an_entry_must_lie_within_the_idt,
        no_room_on_the_current_stack_is_ss_0,
        a_first_use_marks_the_code_segment,
        int3_and_into_are_checked_like_int_n,
        int1_passes_any_gate_and_counts_as_external,
        int_n_is_not_followed_by_a_single_step_trap,
        virtual_8086_mode_is_left_for_ring_0_with_nine_values,
        int_n_in_virtual_8086_mode_needs_iopl_3,
        virtual_8086_mode_cannot_be_left_for_another_ring,
        real_mode_goes_through_the_vector_table,
        real_mode_pushes_no_error_codes,
        a_short_vector_table_shuts_real_mode_down,
        an_external_interrupt_ends_hlt_and_ignores_the_dpl,
        a_refused_external_interrupt_becomes_a_fault_with_ext,
        sti_holds_interrupts_back_for_one_instruction_but_not_nmi,
        an_nmi_blocks_the_next_until_iret,
        a_debug_exception_clears_gd,
        two_contributory_faults_make_a_double_fault,
        a_benign_exception_and_a_fault_are_handled_one_after_the_other,
        a_page_fault_while_delivering_a_contributory_fault_is_handled_first,
        two_page_faults_make_a_double_fault,
        a_triple_fault_is_explained,
        a_triple_fault_out_of_an_interrupt_is_explained,
        a_triple_fault_for_want_of_a_stack_is_explained,
        an_endless_chain_of_alignment_checks_ends_the_run,
    };

    return guest_run_suite("interrupt", tests, sizeof tests / sizeof tests[0]);
}
