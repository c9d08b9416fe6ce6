/* Selectors and descriptors: every load, and the instructions that ask. Expected values are the SDM's. */
#include "fake_guest.h"

static struct fake_machine machine;

/* mov ds, ax; mov ss, ax and so on: 8E /r with rm = eax. */
#define MOV_SREG(index) 0x8e, (uint8_t)(0xc0 | (index) << 3)

static void load_ax(struct vcpu *vcpu, uint16_t selector)
{
    vcpu->gpr[EAX] = selector;
}

/* ---- DS, ES, FS, GS ----------------------------------------------------------------------------------- */

START_TEST(a_data_load_fills_the_hidden_part)
{
    struct vcpu *vcpu = guest_reset(&machine);

    guest_set_gdt(&machine, SEL_SPARE, 0x89abcdef, 0x12345, 0x93, 0xd); /* G=1, D=1, AVL=1 */
    load_ax(vcpu, SEL_SPARE);
    guest_assert_done(vcpu, MOV_SREG(SEG_DS));
    ck_assert_uint_eq(vcpu->segment[SEG_DS].selector, SEL_SPARE);
    ck_assert_uint_eq(vcpu->segment[SEG_DS].base, 0x89abcdef);
    ck_assert_uint_eq(vcpu->segment[SEG_DS].limit, 0x12345fff);
    ck_assert_uint_eq(vcpu->segment[SEG_DS].attributes, 0xd093);
    ck_assert_uint_eq(vcpu->eip, GUEST_CODE + 2);
    ck_assert_uint_eq(machine.n_writes, 0); /* accessed already */
}
END_TEST

START_TEST(a_byte_granular_limit_is_taken_as_it_is)
{
    struct vcpu *vcpu = guest_reset(&machine);

    guest_set_gdt(&machine, SEL_SPARE, 0, 0xabcde, 0x93, 0x4);
    load_ax(vcpu, SEL_SPARE);
    guest_assert_done(vcpu, MOV_SREG(SEG_ES));
    ck_assert_uint_eq(vcpu->segment[SEG_ES].limit, 0xabcde);
    ck_assert_uint_eq(vcpu->segment[SEG_ES].attributes, 0x4093);
}
END_TEST

START_TEST(the_first_load_sets_the_accessed_bit)
{
    struct vcpu *vcpu = guest_reset(&machine);

    load_ax(vcpu, SEL_FRESH);
    guest_assert_done(vcpu, MOV_SREG(SEG_FS));
    ck_assert_uint_eq(fake_read8(&machine, GUEST_GDT + SEL_FRESH + 5), 0x93);
    ck_assert_uint_eq(vcpu->segment[SEG_FS].attributes & 0xff, 0x93);
    ck_assert_uint_eq(machine.n_writes, 1);
}
END_TEST

START_TEST(the_accessed_bit_is_written_with_supervisor_rights)
{
    struct vcpu *vcpu = guest_reset(&machine);

    guest_enter_ring(vcpu, 3);
    guest_set_gdt(&machine, SEL_SPARE, 0, 0xfffff, 0xf2, 0xc);
    fake_set_rights(&machine, GUEST_GDT, PTE_P | PTE_W); /* no U */
    load_ax(vcpu, SEL_SPARE | 3);
    guest_assert_done(vcpu, MOV_SREG(SEG_GS));
    ck_assert_uint_eq(fake_read8(&machine, GUEST_GDT + SEL_SPARE + 5), 0xf3);
}
END_TEST

START_TEST(a_read_only_table_faults_only_if_the_bit_must_be_set)
{
    struct vcpu *vcpu = guest_reset(&machine);

    fake_set_rights(&machine, GUEST_GDT, PTE_P | PTE_U);
    load_ax(vcpu, SEL_DATA0);
    guest_assert_done(vcpu, MOV_SREG(SEG_DS));
    load_ax(vcpu, SEL_FRESH);
    guest_assert_fault(vcpu, EXCEPTION_PF, PF_PRESENT | PF_WRITE, MOV_SREG(SEG_DS));
    ck_assert_uint_eq(vcpu->fault.cr2, GUEST_GDT + SEL_FRESH + 5);
}
END_TEST

START_TEST(an_absent_table_is_a_page_fault)
{
    struct vcpu *vcpu = guest_reset(&machine);

    guest_enter_ring(vcpu, 3);
    fake_set_rights(&machine, GUEST_GDT, 0);
    load_ax(vcpu, SEL_DATA3);
    guest_assert_fault(vcpu, EXCEPTION_PF, 0, MOV_SREG(SEG_DS)); /* supervisor, read, not present */
    ck_assert_uint_eq(vcpu->fault.cr2, GUEST_GDT + (SEL_DATA3 & ~7));
}
END_TEST

START_TEST(null_selectors_load_and_keep_their_rpl)
{
    struct vcpu *vcpu = guest_reset(&machine);

    for (uint16_t selector = 0; selector < 4; selector++) {
        load_ax(vcpu, selector);
        guest_assert_done(vcpu, MOV_SREG(SEG_DS));
        ck_assert_uint_eq(vcpu->segment[SEG_DS].selector, selector);
        ck_assert_uint_eq(vcpu->segment[SEG_DS].attributes, 0);
    }
    guest_assert_fault(vcpu, EXCEPTION_GP, 0, 0xa1, guest_le32(0)); /* mov eax, [0] through it */
}
END_TEST

/* SDM Vol 2 MOV: DPL >= max(CPL, RPL), but for conforming code; readable; present. */
START_TEST(data_loads_are_checked)
{
    static const struct {
        unsigned ring;
        uint16_t selector;
        int vector; /* -1: loads */
        uint32_t error;
    } cases[] = {
        {0, SEL_DATA0, -1, 0},
        {0, SEL_DATA0 | 1, EXCEPTION_GP, SEL_DATA0}, /* RPL > DPL */
        {0, SEL_DATA3, -1, 0},
        {0, SEL_DATA1 | 1, -1, 0},
        {0, SEL_DATA1 | 2, EXCEPTION_GP, SEL_DATA1},
        {1, SEL_DATA1, -1, 0},
        {1, SEL_DATA0, EXCEPTION_GP, SEL_DATA0}, /* CPL > DPL */
        {3, SEL_DATA0, EXCEPTION_GP, SEL_DATA0},
        {3, SEL_DATA3 & ~3, -1, 0}, /* a lower RPL does not hurt */
        {3, SEL_CODE3, -1, 0},      /* readable code */
        {3, SEL_CODE0, EXCEPTION_GP, SEL_CODE0},
        {3, SEL_CONFORMING | 3, -1, 0}, /* conforming: any privilege */
        {0, SEL_DATA_READONLY, -1, 0},
        {0, SEL_EXECUTE_ONLY, EXCEPTION_GP, SEL_EXECUTE_ONLY},
        {0, SEL_DATA_ABSENT, EXCEPTION_NP, SEL_DATA_ABSENT},
        {3, SEL_DATA_ABSENT, EXCEPTION_GP, SEL_DATA_ABSENT}, /* privilege comes first */
        {0, SEL_TSS_B, EXCEPTION_GP, SEL_TSS_B},             /* system segments */
        {0, SEL_LDT, EXCEPTION_GP, SEL_LDT},
        {0, SEL_BEYOND, EXCEPTION_GP, SEL_BEYOND},
        {0, SEL_BEYOND | 3, EXCEPTION_GP, SEL_BEYOND}, /* the RPL is not in the error code */
        {0, 0xffff, EXCEPTION_GP, 0xfffc},
        {0, SEL_LOCAL_DATA, -1, 0},
        {0, SEL_LOCAL_BEYOND, EXCEPTION_GP, SEL_LOCAL_BEYOND}, /* the TI bit is */
        {0, 0x04, EXCEPTION_GP, 0x04}, /* entry 0 of the LDT is not null; here it is empty */
    };
    static const enum segment_index registers[] = {SEG_ES, SEG_DS, SEG_FS, SEG_GS};

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        for (unsigned j = 0; j < 4; j++) {
            struct vcpu *vcpu = guest_reset(&machine);

            guest_enter_ring(vcpu, cases[i].ring);
            load_ax(vcpu, cases[i].selector);
            if (cases[i].vector < 0) {
                guest_assert_done(vcpu, MOV_SREG(registers[j]));
                ck_assert_uint_eq(vcpu->segment[registers[j]].selector, cases[i].selector);
            } else {
                guest_assert_fault(vcpu, cases[i].vector, cases[i].error, MOV_SREG(registers[j]));
            }
        }
    }
}
END_TEST

START_TEST(a_null_ldtr_has_no_entries)
{
    struct vcpu *vcpu = guest_reset(&machine);

    vcpu->ldtr = (struct segment){0};
    load_ax(vcpu, SEL_LOCAL_DATA);
    guest_assert_fault(vcpu, EXCEPTION_GP, SEL_LOCAL_DATA, MOV_SREG(SEG_DS));
}
END_TEST

START_TEST(the_limit_of_the_table_counts_whole_descriptors)
{
    struct vcpu *vcpu = guest_reset(&machine);

    load_ax(vcpu, SEL_DATA0);
    vcpu->gdtr.limit = SEL_DATA0 + 7;
    guest_assert_done(vcpu, MOV_SREG(SEG_DS));
    vcpu->gdtr.limit = SEL_DATA0 + 6;
    guest_assert_fault(vcpu, EXCEPTION_GP, SEL_DATA0, MOV_SREG(SEG_DS));
}
END_TEST

/* ---- SS ----------------------------------------------------------------------------------------------- */

START_TEST(stack_loads_are_checked)
{
    static const struct {
        unsigned ring;
        uint16_t selector;
        int vector;
        uint32_t error;
    } cases[] = {
        {0, SEL_DATA0, -1, 0},
        {0, 0, EXCEPTION_GP, 0},
        {0, 3, EXCEPTION_GP, 0},
        {0, SEL_DATA0 | 1, EXCEPTION_GP, SEL_DATA0}, /* RPL != CPL */
        {0, SEL_DATA1, EXCEPTION_GP, SEL_DATA1},     /* DPL != CPL */
        {0, SEL_DATA3, EXCEPTION_GP, SEL_DATA3 & ~3},
        {3, SEL_DATA3, -1, 0},
        {3, SEL_DATA3 & ~3, EXCEPTION_GP, SEL_DATA3 & ~3},
        {0, SEL_DATA_READONLY, EXCEPTION_GP, SEL_DATA_READONLY},
        {0, SEL_CODE0, EXCEPTION_GP, SEL_CODE0},
        {0, SEL_DATA_ABSENT, EXCEPTION_SS, SEL_DATA_ABSENT},
        {0, SEL_DOWN, -1, 0},
        {0, SEL_TSS_B, EXCEPTION_GP, SEL_TSS_B},
        {0, SEL_BEYOND, EXCEPTION_GP, SEL_BEYOND},
        {0, SEL_LOCAL_DATA, -1, 0},
    };

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct vcpu *vcpu = guest_reset(&machine);

        guest_enter_ring(vcpu, cases[i].ring);
        load_ax(vcpu, cases[i].selector);
        if (cases[i].vector < 0) {
            guest_assert_done(vcpu, MOV_SREG(SEG_SS));
            ck_assert_uint_eq(vcpu->segment[SEG_SS].selector, cases[i].selector);
            ck_assert_int_eq(vcpu->interrupt_shadow, SHADOW_MOV_SS);
        } else {
            guest_assert_fault(vcpu, cases[i].vector, cases[i].error, MOV_SREG(SEG_SS));
        }
    }
}
END_TEST

START_TEST(the_shadow_of_mov_ss_lasts_one_instruction)
{
    struct vcpu *vcpu = guest_reset(&machine);

    vcpu->eflags |= EFLAGS_IF;
    load_ax(vcpu, SEL_DATA0);
    guest_assert_done(vcpu, MOV_SREG(SEG_SS));
    ck_assert(!vcpu_accepts_interrupt(vcpu));
    ck_assert(!vcpu_accepts_nmi(vcpu));
    guest_assert_done(vcpu, MOV_SREG(SEG_DS));
    ck_assert(vcpu_accepts_interrupt(vcpu));
    ck_assert(vcpu_accepts_nmi(vcpu));
}
END_TEST

/* ---- MOV, PUSH, POP, LxS ------------------------------------------------------------------------------ */

START_TEST(mov_from_a_segment_register_zero_extends_into_32_bits)
{
    struct vcpu *vcpu = guest_reset(&machine);

    vcpu->gpr[EAX] = vcpu->gpr[EBX] = 0xffffffff;
    guest_assert_done(vcpu, 0x8c, 0xd8); /* mov eax, ds */
    ck_assert_uint_eq(vcpu->gpr[EAX], SEL_DATA0);
    guest_assert_done(vcpu, 0x66, 0x8c, 0xdb); /* mov bx, ds */
    ck_assert_uint_eq(vcpu->gpr[EBX], 0xffff0000 | SEL_DATA0);
    fake_write32(&machine, 0x5000, 0xffffffff);
    guest_assert_done(vcpu, 0x8c, 0x0d, guest_le32(0x5000)); /* mov [0x5000], cs */
    ck_assert_uint_eq(fake_read32(&machine, 0x5000), 0xffff0000 | SEL_CODE0);
}
END_TEST

START_TEST(mov_takes_a_selector_from_memory)
{
    struct vcpu *vcpu = guest_reset(&machine);

    fake_write16(&machine, 0x5000, SEL_DATA3);
    guest_assert_done(vcpu, 0x8e, 0x25, guest_le32(0x5000)); /* mov fs, [0x5000] */
    ck_assert_uint_eq(vcpu->segment[SEG_FS].selector, SEL_DATA3);
}
END_TEST

START_TEST(push_moves_two_bytes_whatever_the_operand_size)
{
    struct vcpu *vcpu = guest_reset(&machine);

    fake_write32(&machine, GUEST_STACK - 4, 0xaaaaaaaa);
    guest_assert_done(vcpu, 0x1e); /* push ds */
    ck_assert_uint_eq(vcpu->gpr[ESP], GUEST_STACK - 4);
    ck_assert_uint_eq(fake_read32(&machine, GUEST_STACK - 4), 0xaaaa0000 | SEL_DATA0);
    guest_assert_done(vcpu, 0x66, 0x0e); /* push cs, 16 bits */
    ck_assert_uint_eq(vcpu->gpr[ESP], GUEST_STACK - 6);
    ck_assert_uint_eq(fake_read16(&machine, GUEST_STACK - 6), SEL_CODE0);
    vcpu->segment[SEG_GS].selector = 0x77;
    guest_assert_done(vcpu, 0x0f, 0xa8); /* push gs */
    ck_assert_uint_eq(fake_read16(&machine, GUEST_STACK - 10), 0x77);
}
END_TEST

START_TEST(pop_moves_esp_by_the_operand_size)
{
    struct vcpu *vcpu = guest_reset(&machine);

    guest_push(vcpu, 0xbeef0000 | SEL_DATA3);
    guest_assert_done(vcpu, 0x07); /* pop es */
    ck_assert_uint_eq(vcpu->gpr[ESP], GUEST_STACK);
    ck_assert_uint_eq(vcpu->segment[SEG_ES].selector, SEL_DATA3);
    guest_push(vcpu, SEL_DATA1 | 1);
    guest_assert_done(vcpu, 0x66, 0x0f, 0xa1); /* pop fs, 16 bits */
    ck_assert_uint_eq(vcpu->gpr[ESP], GUEST_STACK - 2);
    ck_assert_uint_eq(vcpu->segment[SEG_FS].selector, SEL_DATA1 | 1);
}
END_TEST

START_TEST(pop_ss_casts_a_shadow_and_a_bad_one_changes_nothing)
{
    struct vcpu *vcpu = guest_reset(&machine);

    guest_push(vcpu, SEL_DATA16);
    guest_assert_done(vcpu, 0x17); /* pop ss */
    ck_assert_uint_eq(vcpu->segment[SEG_SS].selector, SEL_DATA16);
    ck_assert_int_eq(vcpu->interrupt_shadow, SHADOW_MOV_SS);
    vcpu = guest_reset(&machine);
    guest_push(vcpu, SEL_DATA_ABSENT);
    guest_assert_fault(vcpu, EXCEPTION_SS, SEL_DATA_ABSENT, 0x17);
}
END_TEST

START_TEST(pops_and_pushes_fault_at_the_limit_of_the_stack)
{
    struct vcpu *vcpu = guest_reset(&machine);

    load_ax(vcpu, SEL_DATA_SHORT);
    guest_assert_done(vcpu, MOV_SREG(SEG_SS));
    vcpu->gpr[ESP] = 0xfff;
    guest_assert_fault(vcpu, EXCEPTION_SS, 0, 0x07); /* pop es: bytes fff, 1000 */
    vcpu->gpr[ESP] = 0x2000;
    guest_assert_fault(vcpu, EXCEPTION_SS, 0, 0x06); /* push es */
}
END_TEST

START_TEST(a_16_bit_stack_wraps_sp_and_keeps_the_rest_of_esp)
{
    struct vcpu *vcpu = guest_reset(&machine);

    load_ax(vcpu, SEL_DATA16);
    guest_assert_done(vcpu, MOV_SREG(SEG_SS));
    vcpu->gpr[ESP] = 0xabcd0000;
    guest_assert_done(vcpu, 0x1e); /* push ds */
    ck_assert_uint_eq(vcpu->gpr[ESP], 0xabcdfffc);
    ck_assert_uint_eq(fake_read16(&machine, 0xfffc), SEL_DATA0);
    guest_assert_done(vcpu, 0x1f); /* pop ds */
    ck_assert_uint_eq(vcpu->gpr[ESP], 0xabcd0000);
}
END_TEST

START_TEST(an_expand_down_stack_lies_above_its_limit)
{
    struct vcpu *vcpu = guest_reset(&machine);

    load_ax(vcpu, SEL_DOWN); /* valid: 10000 and up */
    guest_assert_done(vcpu, MOV_SREG(SEG_SS));
    vcpu->gpr[ESP] = 0x10004;
    guest_assert_done(vcpu, 0x66, 0x1e); /* push ds at 10002 */
    guest_assert_done(vcpu, 0x66, 0x1e); /* and at 10000 */
    guest_assert_fault(vcpu, EXCEPTION_SS, 0, 0x66, 0x1e);
}
END_TEST

START_TEST(far_pointers_load_both_halves_or_none)
{
    struct vcpu *vcpu = guest_reset(&machine);
    const uint8_t pointer[] = {0x78, 0x56, 0x34, 0x12, SEL_DATA3, 0};

    fake_write(&machine, 0x5000, pointer, sizeof pointer);
    guest_assert_done(vcpu, 0xc5, 0x05, guest_le32(0x5000)); /* lds eax, [0x5000] */
    ck_assert_uint_eq(vcpu->gpr[EAX], 0x12345678);
    ck_assert_uint_eq(vcpu->segment[SEG_DS].selector, SEL_DATA3);
    guest_assert_done(vcpu, 0x0f, 0xb5, 0x1d, guest_le32(0x5000)); /* lgs ebx, [0x5000] */
    ck_assert_uint_eq(vcpu->gpr[EBX], 0x12345678);
    ck_assert_uint_eq(vcpu->segment[SEG_GS].selector, SEL_DATA3);

    guest_assert_fault(vcpu, EXCEPTION_GP, SEL_DATA3 & ~3, 0x0f, 0xb2, 0x0d,
                       guest_le32(0x5000)); /* lss ecx */
    fake_write16(&machine, 0x5004, SEL_DATA0);
    guest_assert_done(vcpu, 0x0f, 0xb2, 0x25, guest_le32(0x5000)); /* lss esp, [0x5000] */
    ck_assert_uint_eq(vcpu->gpr[ESP], 0x12345678);
    ck_assert_int_eq(vcpu->interrupt_shadow, SHADOW_NONE); /* there is no gap to protect */

    fake_write16(&machine, 0x5002, SEL_DATA1 | 1);
    vcpu->gpr[EDX] = 0xffffffff;
    guest_assert_done(vcpu, 0x66, 0xc4, 0x15, guest_le32(0x5000)); /* les dx, [0x5000] */
    ck_assert_uint_eq(vcpu->gpr[EDX], 0xffff5678);
    ck_assert_uint_eq(vcpu->segment[SEG_ES].selector, SEL_DATA1 | 1);
}
END_TEST

/* ---- GDTR, IDTR, LDTR, TR ----------------------------------------------------------------------------- */

START_TEST(lgdt_takes_24_bits_of_base_with_a_16_bit_operand)
{
    struct vcpu *vcpu = guest_reset(&machine);
    const uint8_t table[] = {0x34, 0x12, 0xef, 0xcd, 0xab, 0x89};

    fake_write(&machine, 0x5000, table, sizeof table);
    guest_assert_done(vcpu, 0x0f, 0x01, 0x1d, guest_le32(0x5000)); /* lidt */
    ck_assert_uint_eq(vcpu->idtr.limit, 0x1234);
    ck_assert_uint_eq(vcpu->idtr.base, 0x89abcdef);
    guest_assert_done(vcpu, 0x66, 0x0f, 0x01, 0x15, guest_le32(0x5000)); /* lgdt, 16 bits */
    ck_assert_uint_eq(vcpu->gdtr.limit, 0x1234);
    ck_assert_uint_eq(vcpu->gdtr.base, 0x00abcdef);
}
END_TEST

START_TEST(lgdt_and_lidt_are_privileged)
{
    struct vcpu *vcpu = guest_reset(&machine);

    guest_enter_ring(vcpu, 3);
    guest_assert_fault(vcpu, EXCEPTION_GP, 0, 0x0f, 0x01, 0x15, guest_le32(0x5000));
    guest_assert_fault(vcpu, EXCEPTION_GP, 0, 0x0f, 0x01, 0x1d, guest_le32(0x5000));
}
END_TEST

START_TEST(sgdt_and_sidt_store_six_bytes_at_any_privilege)
{
    struct vcpu *vcpu = guest_reset(&machine);

    guest_enter_ring(vcpu, 3);
    vcpu->gdtr.base = 0x89abcdef;
    fake_write32(&machine, 0x5004, 0xffffffff);
    guest_assert_done(vcpu, 0x66, 0x0f, 0x01, 0x05, guest_le32(0x5000)); /* sgdt */
    ck_assert_uint_eq(fake_read16(&machine, 0x5000), GUEST_GDT_LIMIT);
    ck_assert_uint_eq(fake_read32(&machine, 0x5002), 0x89abcdef); /* all of it */
    ck_assert_uint_eq(fake_read16(&machine, 0x5006), 0xffff);
    guest_assert_done(vcpu, 0x0f, 0x01, 0x0d, guest_le32(0x5000)); /* sidt */
    ck_assert_uint_eq(fake_read16(&machine, 0x5000), 0x7ff);
    ck_assert_uint_eq(fake_read32(&machine, 0x5002), GUEST_IDT);
}
END_TEST

START_TEST(lldt_is_checked)
{
    static const struct {
        unsigned ring;
        uint16_t selector;
        int vector;
        uint32_t error;
    } cases[] = {
        {0, SEL_LDT, -1, 0},
        {0, SEL_LDT | 3, -1, 0},
        {0, 0, -1, 0},
        {3, SEL_LDT, EXCEPTION_GP, 0},
        {0, SEL_LDT | SELECTOR_TI, EXCEPTION_GP, SEL_LDT | SELECTOR_TI},
        {0, SEL_DATA0, EXCEPTION_GP, SEL_DATA0},
        {0, SEL_TSS_B, EXCEPTION_GP, SEL_TSS_B},
        {0, SEL_BEYOND, EXCEPTION_GP, SEL_BEYOND},
        {0, SEL_SPARE, EXCEPTION_NP, SEL_SPARE},
    };

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct vcpu *vcpu = guest_reset(&machine);

        guest_set_gdt(&machine, SEL_SPARE, GUEST_LDT, 7, 0x02, 0); /* an LDT, not present */
        vcpu->ldtr = (struct segment){.selector = 0xffff};
        guest_enter_ring(vcpu, cases[i].ring);
        load_ax(vcpu, cases[i].selector);
        if (cases[i].vector >= 0) {
            guest_assert_fault(vcpu, cases[i].vector, cases[i].error, 0x0f, 0x00, 0xd0);
            continue;
        }
        guest_assert_done(vcpu, 0x0f, 0x00, 0xd0);
        ck_assert_uint_eq(vcpu->ldtr.selector, cases[i].selector);
        ck_assert_uint_eq(vcpu->ldtr.base, cases[i].selector ? GUEST_LDT : 0);
        ck_assert_uint_eq(machine.n_writes, 0);
    }
}
END_TEST

START_TEST(ltr_is_checked_and_marks_the_tss_busy)
{
    static const struct {
        unsigned ring;
        uint16_t selector;
        int vector;
        uint32_t error;
    } cases[] = {
        {0, SEL_TSS_B, -1, 0},
        {0, SEL_TSS_16, -1, 0},
        {0, 0, EXCEPTION_GP, 0},
        {3, SEL_TSS_B, EXCEPTION_GP, 0},
        {0, SEL_TSS, EXCEPTION_GP, SEL_TSS}, /* busy */
        {0, SEL_TSS_B | SELECTOR_TI, EXCEPTION_GP, SEL_TSS_B | SELECTOR_TI},
        {0, SEL_LDT, EXCEPTION_GP, SEL_LDT},
        {0, SEL_DATA0, EXCEPTION_GP, SEL_DATA0},
        {0, SEL_BEYOND, EXCEPTION_GP, SEL_BEYOND},
        {0, SEL_SPARE, EXCEPTION_NP, SEL_SPARE},
    };

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct vcpu *vcpu = guest_reset(&machine);

        guest_set_gdt(&machine, SEL_SPARE, GUEST_TSS_B, 0x67, 0x09, 0); /* a TSS, not present */
        guest_enter_ring(vcpu, cases[i].ring);
        load_ax(vcpu, cases[i].selector);
        if (cases[i].vector >= 0) {
            guest_assert_fault(vcpu, cases[i].vector, cases[i].error, 0x0f, 0x00, 0xd8);
            continue;
        }
        guest_assert_done(vcpu, 0x0f, 0x00, 0xd8);
        ck_assert_uint_eq(vcpu->tr.selector, cases[i].selector);
        ck_assert_uint_eq(vcpu->tr.attributes & 2, 2);
        ck_assert_uint_eq(fake_read8(&machine, GUEST_GDT + cases[i].selector + 5) & 2, 2);
    }
}
END_TEST

START_TEST(sldt_and_str_tell_at_any_privilege)
{
    struct vcpu *vcpu = guest_reset(&machine);

    guest_enter_ring(vcpu, 3);
    vcpu->gpr[EAX] = vcpu->gpr[EBX] = 0xffffffff;
    guest_assert_done(vcpu, 0x0f, 0x00, 0xc0); /* sldt eax */
    ck_assert_uint_eq(vcpu->gpr[EAX], SEL_LDT);
    guest_assert_done(vcpu, 0x66, 0x0f, 0x00, 0xcb); /* str bx */
    ck_assert_uint_eq(vcpu->gpr[EBX], 0xffff0000 | SEL_TSS);
    fake_write32(&machine, 0x5000, 0xffffffff);
    guest_assert_done(vcpu, 0x0f, 0x00, 0x0d, guest_le32(0x5000)); /* str [0x5000] */
    ck_assert_uint_eq(fake_read32(&machine, 0x5000), 0xffff0000 | SEL_TSS);
}
END_TEST

START_TEST(selectors_mean_nothing_in_real_and_virtual_8086_mode)
{
    void (*const enter[])(struct vcpu *) = {guest_enter_real_mode, guest_enter_v8086};

    for (unsigned i = 0; i < 2; i++) {
        struct vcpu *vcpu = guest_reset(&machine);

        enter[i](vcpu);
        guest_assert_fault(vcpu, EXCEPTION_UD, 0, 0x0f, 0x00, 0xd0); /* lldt */
        guest_assert_fault(vcpu, EXCEPTION_UD, 0, 0x0f, 0x00, 0xd8); /* ltr */
        guest_assert_fault(vcpu, EXCEPTION_UD, 0, 0x0f, 0x00, 0xc0); /* sldt */
        guest_assert_fault(vcpu, EXCEPTION_UD, 0, 0x0f, 0x00, 0xc8); /* str */
        guest_assert_fault(vcpu, EXCEPTION_UD, 0, 0x0f, 0x00, 0xe0); /* verr */
        guest_assert_fault(vcpu, EXCEPTION_UD, 0, 0x0f, 0x00, 0xe8); /* verw */
        guest_assert_fault(vcpu, EXCEPTION_UD, 0, 0x0f, 0x02, 0xc3); /* lar */
        guest_assert_fault(vcpu, EXCEPTION_UD, 0, 0x0f, 0x03, 0xc3); /* lsl */
        guest_assert_fault(vcpu, EXCEPTION_UD, 0, 0x63, 0xd8);       /* arpl */
    }
}
END_TEST

START_TEST(a_real_mode_load_sets_the_base_and_nothing_else)
{
    struct vcpu *vcpu = guest_reset(&machine);

    guest_enter_real_mode(vcpu);
    vcpu->segment[SEG_DS].limit = 0xffffffff; /* "unreal mode" */
    load_ax(vcpu, 0xffff);
    guest_assert_done(vcpu, MOV_SREG(SEG_DS));
    ck_assert_uint_eq(vcpu->segment[SEG_DS].base, 0xffff0);
    ck_assert_uint_eq(vcpu->segment[SEG_DS].limit, 0xffffffff);
}
END_TEST

START_TEST(a_virtual_8086_load_sets_all_of_it)
{
    struct vcpu *vcpu = guest_reset(&machine);

    guest_enter_v8086(vcpu);
    vcpu->segment[SEG_DS] = (struct segment){0};
    load_ax(vcpu, 0x1234);
    guest_assert_done(vcpu, MOV_SREG(SEG_DS));
    ck_assert_uint_eq(vcpu->segment[SEG_DS].base, 0x12340);
    ck_assert_uint_eq(vcpu->segment[SEG_DS].limit, 0xffff);
    ck_assert_uint_eq(vcpu->segment[SEG_DS].attributes, 0xf3);
}
END_TEST

/* ---- LAR, LSL, VERR, VERW, ARPL ----------------------------------------------------------------------- */

#define NO -1 /* ZF=0, and the destination as it was */

START_TEST(lar_and_lsl_answer_by_type_and_privilege)
{
    static const struct {
        unsigned ring;
        uint16_t selector;
        int64_t rights, limit;
    } cases[] = {
        {0, SEL_DATA0, 0x00cf9300, 0xffffffff},
        {0, SEL_CODE0, 0x00cf9b00, 0xffffffff},
        {0, SEL_DATA_SHORT, 0x00409300, 0xfff},
        {0, SEL_DATA_ABSENT, 0x00cf1300, 0xffffffff}, /* need not be present */
        {0, SEL_DATA0 | 3, NO, NO},
        {3, SEL_DATA0, NO, NO},
        {3, SEL_DATA3, 0x00cff300, 0xffffffff},
        {3, SEL_CONFORMING | 3, 0x00cf9f00, 0xffffffff},
        {0, SEL_TSS, 0x00008b00, 0x2ff},
        {0, SEL_TSS_16, 0x00008100, 0x2b},
        {0, SEL_LDT, 0x00008200, 0x1f},
        {0, 0, NO, NO},
        {0, SEL_BEYOND, NO, NO},
        {0, SEL_LOCAL_BEYOND, NO, NO},
        {0, SEL_SPARE, 0x00008c00, NO},     /* call gate: LAR only */
        {0, SEL_SPARE + 8, 0x00008500, NO}, /* task gate */
        {0, SEL_SPARE + 16, NO, NO},        /* interrupt gates do not belong here */
        {0, SEL_SPARE + 24, NO, NO},        /* type 0 */
    };

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct vcpu *vcpu = guest_reset(&machine);

        fake_set_gate(&machine, GUEST_GDT + SEL_SPARE, SEL_CODE0, 0, 0x8c, 0);
        fake_set_gate(&machine, GUEST_GDT + SEL_SPARE + 8, SEL_TSS_B, 0, 0x85, 0);
        fake_set_gate(&machine, GUEST_GDT + SEL_SPARE + 16, SEL_CODE0, 0, 0x8e, 0);
        guest_enter_ring(vcpu, cases[i].ring);
        vcpu->gpr[EBX] = 0xffff0000u | cases[i].selector; /* only its low half counts */
        vcpu->gpr[EAX] = 0x55555555;
        guest_assert_done(vcpu, 0x0f, 0x02, 0xc3); /* lar eax, ebx */
        ck_assert_uint_eq(vcpu->gpr[EAX], cases[i].rights == NO ? 0x55555555 : cases[i].rights);
        ck_assert_int_eq((vcpu->eflags & EFLAGS_ZF) != 0, cases[i].rights != NO);

        vcpu->gpr[EAX] = 0x55555555;
        vcpu->eflags ^= EFLAGS_ZF;
        guest_assert_done(vcpu, 0x0f, 0x03, 0xc3); /* lsl eax, ebx */
        ck_assert_uint_eq(vcpu->gpr[EAX], cases[i].limit == NO ? 0x55555555 : cases[i].limit);
        ck_assert_int_eq((vcpu->eflags & EFLAGS_ZF) != 0, cases[i].limit != NO);
    }
}
END_TEST

START_TEST(lar_and_lsl_with_16_bits_keep_the_upper_half)
{
    struct vcpu *vcpu = guest_reset(&machine);

    vcpu->gpr[EAX] = 0x12345678;
    vcpu->gpr[EBX] = SEL_DATA0;
    guest_assert_done(vcpu, 0x66, 0x0f, 0x02, 0xc3);
    ck_assert_uint_eq(vcpu->gpr[EAX], 0x12349300);
    guest_assert_done(vcpu, 0x66, 0x0f, 0x03, 0xc3);
    ck_assert_uint_eq(vcpu->gpr[EAX], 0x1234ffff);
}
END_TEST

START_TEST(verr_and_verw_answer)
{
    static const struct {
        unsigned ring;
        uint16_t selector;
        bool is_readable, is_writable;
    } cases[] = {
        {0, SEL_DATA0, true, true},
        {0, SEL_DATA_READONLY, true, false},
        {0, SEL_CODE0, true, false},
        {0, SEL_EXECUTE_ONLY, false, false},
        {3, SEL_DATA0, false, false},
        {3, SEL_DATA3, true, true},
        {0, SEL_DATA0 | 3, false, false},
        {3, SEL_CONFORMING | 3, true, false},
        {0, 0, false, false},
        {0, SEL_BEYOND, false, false},
        {0, SEL_TSS, false, false},
        {0, SEL_DATA_ABSENT, true, true},
    };

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct vcpu *vcpu = guest_reset(&machine);

        guest_enter_ring(vcpu, cases[i].ring);
        load_ax(vcpu, cases[i].selector);
        guest_assert_done(vcpu, 0x0f, 0x00, 0xe0); /* verr ax */
        ck_assert_int_eq((vcpu->eflags & EFLAGS_ZF) != 0, cases[i].is_readable);
        guest_assert_done(vcpu, 0x0f, 0x00, 0xe8); /* verw ax */
        ck_assert_int_eq((vcpu->eflags & EFLAGS_ZF) != 0, cases[i].is_writable);
    }
}
END_TEST

START_TEST(arpl_raises_the_rpl)
{
    struct vcpu *vcpu = guest_reset(&machine);

    vcpu->gpr[EAX] = 0x12340010;
    vcpu->gpr[EBX] = 3;
    guest_assert_done(vcpu, 0x63, 0xd8); /* arpl ax, bx */
    ck_assert_uint_eq(vcpu->gpr[EAX], 0x12340013);
    ck_assert(vcpu->eflags & EFLAGS_ZF);
    vcpu->gpr[EBX] = 1;
    guest_assert_done(vcpu, 0x63, 0xd8);
    ck_assert_uint_eq(vcpu->gpr[EAX], 0x12340013);
    ck_assert(!(vcpu->eflags & EFLAGS_ZF));
}
END_TEST

int main(void)
{
    const TTest *tests[] = {
        a_data_load_fills_the_hidden_part,
        a_byte_granular_limit_is_taken_as_it_is,
        the_first_load_sets_the_accessed_bit,
        the_accessed_bit_is_written_with_supervisor_rights,
        a_read_only_table_faults_only_if_the_bit_must_be_set,
        an_absent_table_is_a_page_fault,
        null_selectors_load_and_keep_their_rpl,
        data_loads_are_checked,
        a_null_ldtr_has_no_entries,
        the_limit_of_the_table_counts_whole_descriptors,
        stack_loads_are_checked,
        the_shadow_of_mov_ss_lasts_one_instruction,
        mov_from_a_segment_register_zero_extends_into_32_bits,
        mov_takes_a_selector_from_memory,
        push_moves_two_bytes_whatever_the_operand_size,
        pop_moves_esp_by_the_operand_size,
        pop_ss_casts_a_shadow_and_a_bad_one_changes_nothing,
        pops_and_pushes_fault_at_the_limit_of_the_stack,
        a_16_bit_stack_wraps_sp_and_keeps_the_rest_of_esp,
        an_expand_down_stack_lies_above_its_limit,
        far_pointers_load_both_halves_or_none,
        lgdt_takes_24_bits_of_base_with_a_16_bit_operand,
        lgdt_and_lidt_are_privileged,
        sgdt_and_sidt_store_six_bytes_at_any_privilege,
        lldt_is_checked,
        ltr_is_checked_and_marks_the_tss_busy,
        sldt_and_str_tell_at_any_privilege,
        selectors_mean_nothing_in_real_and_virtual_8086_mode,
        a_real_mode_load_sets_the_base_and_nothing_else,
        a_virtual_8086_load_sets_all_of_it,
        lar_and_lsl_answer_by_type_and_privilege,
        lar_and_lsl_with_16_bits_keep_the_upper_half,
        verr_and_verw_answer,
        arpl_raises_the_rpl,
    };

    return guest_run_suite("segment", tests, sizeof tests / sizeof tests[0]);
}
