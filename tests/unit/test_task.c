/* Hardware task switches and the I/O permission bitmap (SDM Vol 3A chapter 7, Vol 1 19.5). */
#include "fake_guest.h"
#include "vcpu/internal.h"

static struct fake_machine machine;

enum { TASK_B_EIP = 0x12345, TASK_B_STACK = 0x24000 };

/* Offsets in a 32-bit TSS (SDM Vol 3A figure 7-2). */
enum {
    TSS_LINK = 0x00,
    TSS_CR3 = 0x1c,
    TSS_EIP = 0x20,
    TSS_EFLAGS = 0x24,
    TSS_EAX = 0x28,
    TSS_ESP = 0x38,
    TSS_EDI = 0x44,
    TSS_ES = 0x48,
    TSS_CS = 0x4c,
    TSS_SS = 0x50,
    TSS_DS = 0x54,
    TSS_FS = 0x58,
    TSS_GS = 0x5c,
    TSS_LDT = 0x60,
    TSS_T = 0x64,
    TSS_IO_MAP = 0x66,
};

#define JMP_FAR(selector)  0xea, guest_le32(0), guest_le16(selector)
#define CALL_FAR(selector) 0x9a, guest_le32(0), guest_le16(selector)
#define IRET               0xcf

/* Ring 0 in task A; task B is ready to run, also in ring 0. */
static struct vcpu *reset_tasks(void)
{
    struct vcpu *vcpu = guest_reset(&machine);

    fake_write32(&machine, GUEST_TSS_B + TSS_CR3, 0x7000);
    fake_write32(&machine, GUEST_TSS_B + TSS_EIP, TASK_B_EIP);
    fake_write32(&machine, GUEST_TSS_B + TSS_EFLAGS, 0x203);
    for (uint32_t i = 0; i < GPR_COUNT; i++)
        fake_write32(&machine, GUEST_TSS_B + TSS_EAX + 4 * i, 0xb0000000 + i);
    fake_write32(&machine, GUEST_TSS_B + TSS_ESP, TASK_B_STACK);
    fake_write16(&machine, GUEST_TSS_B + TSS_ES, SEL_DATA3);
    fake_write16(&machine, GUEST_TSS_B + TSS_CS, SEL_CODE0);
    fake_write16(&machine, GUEST_TSS_B + TSS_SS, SEL_DATA0);
    fake_write16(&machine, GUEST_TSS_B + TSS_DS, SEL_DATA0);
    fake_write16(&machine, GUEST_TSS_B + TSS_FS, 0);
    fake_write16(&machine, GUEST_TSS_B + TSS_GS, SEL_LOCAL_DATA);
    fake_write16(&machine, GUEST_TSS_B + TSS_LDT, SEL_LDT);
    for (uint32_t i = 0; i < GPR_COUNT; i++)
        vcpu->gpr[i] = 0xa0000000 + i;
    vcpu->gpr[ESP] = GUEST_STACK;
    return vcpu;
}

static bool is_busy(uint16_t selector)
{
    return fake_read8(&machine, GUEST_GDT + (selector & ~7u) + 5) & 2;
}

static void assert_in_task_b(const struct vcpu *vcpu)
{
    ck_assert_uint_eq(vcpu->tr.selector, SEL_TSS_B);
    ck_assert_uint_eq(vcpu->tr.base, GUEST_TSS_B);
    ck_assert_uint_eq(vcpu->tr.attributes, 0x8b);
    ck_assert_uint_eq(vcpu->eip, TASK_B_EIP);
    ck_assert_uint_eq(vcpu->segment[SEG_CS].selector, SEL_CODE0);
    ck_assert_uint_eq(vcpu->segment[SEG_ES].selector, SEL_DATA3);
    ck_assert_uint_eq(vcpu->segment[SEG_FS].attributes, 0);
    ck_assert_uint_eq(vcpu->segment[SEG_GS].base, 0x100);
    ck_assert_uint_eq(vcpu->ldtr.base, GUEST_LDT);
    ck_assert_uint_eq(vcpu->gpr[EAX], 0xb0000000);
    ck_assert_uint_eq(vcpu->gpr[EDI], 0xb0000007);
    ck_assert(vcpu->cr0 & CR0_TS);
}

/* ---- the switch --------------------------------------------------------------------------------------- */

START_TEST(a_jump_to_a_tss_switches_tasks)
{
    struct vcpu *vcpu = reset_tasks();

    vcpu->dr[7] = 0x5ff; /* local and global breakpoints */
    guest_assert_done(vcpu, JMP_FAR(SEL_TSS_B));
    assert_in_task_b(vcpu);
    ck_assert_uint_eq(vcpu->gpr[ESP], TASK_B_STACK);
    ck_assert_uint_eq(vcpu->eflags, 0x203);
    ck_assert_uint_eq(vcpu->dr[7], 0x4aa); /* the local ones are the old task's */
    ck_assert(!is_busy(SEL_TSS));
    ck_assert(is_busy(SEL_TSS_B));
    ck_assert_uint_eq(fake_read16(&machine, GUEST_TSS_B + TSS_LINK), 0);
}
END_TEST

START_TEST(the_old_task_is_saved)
{
    struct vcpu *vcpu = reset_tasks();

    vcpu->eflags |= EFLAGS_ID | EFLAGS_IF;
    vcpu->segment[SEG_FS].selector = SEL_DATA3;
    fake_write32(&machine, GUEST_TSS + TSS_CR3, 0x12345678);
    fake_write16(&machine, GUEST_TSS + TSS_LDT, 0x5555);
    fake_write32(&machine, GUEST_TSS + TSS_ES, 0xffffffff);
    guest_assert_done(vcpu, JMP_FAR(SEL_TSS_B));
    ck_assert_uint_eq(fake_read32(&machine, GUEST_TSS + TSS_EIP), GUEST_CODE + 7);
    ck_assert_uint_eq(fake_read32(&machine, GUEST_TSS + TSS_EFLAGS), 0x200202);
    ck_assert_uint_eq(fake_read32(&machine, GUEST_TSS + TSS_EAX), 0xa0000000);
    ck_assert_uint_eq(fake_read32(&machine, GUEST_TSS + TSS_ESP), GUEST_STACK);
    ck_assert_uint_eq(fake_read32(&machine, GUEST_TSS + TSS_EDI), 0xa0000007);
    ck_assert_uint_eq(fake_read32(&machine, GUEST_TSS + TSS_ES), 0xffff0000 | SEL_DATA0);
    ck_assert_uint_eq(fake_read16(&machine, GUEST_TSS + TSS_CS), SEL_CODE0);
    ck_assert_uint_eq(fake_read16(&machine, GUEST_TSS + TSS_FS), SEL_DATA3);
    /* Static fields are the kernel's. */
    ck_assert_uint_eq(fake_read32(&machine, GUEST_TSS + TSS_CR3), 0x12345678);
    ck_assert_uint_eq(fake_read16(&machine, GUEST_TSS + TSS_LDT), 0x5555);
    ck_assert_uint_eq(fake_read32(&machine, GUEST_TSS + 4), GUEST_STACK0);
}
END_TEST

START_TEST(a_call_links_back_and_iret_follows_the_link)
{
    struct vcpu *vcpu = reset_tasks();

    guest_assert_done(vcpu, CALL_FAR(SEL_TSS_B));
    assert_in_task_b(vcpu);
    ck_assert_uint_eq(vcpu->eflags, 0x4203); /* NT */
    ck_assert_uint_eq(fake_read16(&machine, GUEST_TSS_B + TSS_LINK), SEL_TSS);
    ck_assert(is_busy(SEL_TSS));
    ck_assert(is_busy(SEL_TSS_B));

    guest_assert_done(vcpu, IRET);
    ck_assert_uint_eq(vcpu->tr.selector, SEL_TSS);
    ck_assert_uint_eq(vcpu->eip, GUEST_CODE + 7);
    ck_assert_uint_eq(vcpu->gpr[EBX], 0xa0000003);
    ck_assert_uint_eq(vcpu->gpr[ESP], GUEST_STACK);
    ck_assert_uint_eq(vcpu->eflags, 2);
    ck_assert(is_busy(SEL_TSS));
    ck_assert(!is_busy(SEL_TSS_B));
    ck_assert_uint_eq(fake_read32(&machine, GUEST_TSS_B + TSS_EFLAGS), 0x203); /* saved without NT */
    ck_assert_uint_eq(fake_read32(&machine, GUEST_TSS_B + TSS_EIP), TASK_B_EIP + 1);
}
END_TEST

START_TEST(a_task_gate_of_the_idt_pushes_the_error_code_in_the_new_task)
{
    struct vcpu *vcpu = reset_tasks();
    struct fault fault = {.vector = EXCEPTION_DF, .has_error = true};

    guest_set_idt(&machine, EXCEPTION_DF, SEL_TSS_B, 0, 0x85);
    vcpu->gpr[ESP] = 0xffffffff; /* a double fault's task is there for this */
    ck_assert_int_eq(vcpu_deliver_fault(vcpu, &fault), OUTCOME_DONE);
    assert_in_task_b(vcpu);
    ck_assert_uint_eq(vcpu->gpr[ESP], TASK_B_STACK - 4);
    ck_assert_uint_eq(guest_stack32(vcpu, 0), 0);
    ck_assert_uint_eq(vcpu->eflags, 0x4203);
    ck_assert_uint_eq(fake_read16(&machine, GUEST_TSS_B + TSS_LINK), SEL_TSS);
    ck_assert_uint_eq(fake_read32(&machine, GUEST_TSS + TSS_EIP), GUEST_CODE);
    ck_assert_uint_eq(fake_read32(&machine, GUEST_TSS + TSS_EFLAGS), 0x10002); /* RF */
    ck_assert_uint_eq(machine.n_injections, 1);
}
END_TEST

START_TEST(an_interrupt_through_a_task_gate_pushes_nothing)
{
    struct vcpu *vcpu = reset_tasks();

    guest_set_idt(&machine, 0x40, SEL_TSS_B, 0, 0x85);
    guest_assert_done(vcpu, 0xcd, 0x40);
    assert_in_task_b(vcpu);
    ck_assert_uint_eq(vcpu->gpr[ESP], TASK_B_STACK);
    ck_assert_uint_eq(fake_read32(&machine, GUEST_TSS + TSS_EIP), GUEST_CODE + 2);
}
END_TEST

START_TEST(a_task_gate_works_in_the_gdt_and_in_the_ldt)
{
    struct vcpu *vcpu = reset_tasks();

    fake_set_gate(&machine, GUEST_GDT + SEL_SPARE, SEL_TSS_B, 0, 0x85, 0);
    guest_assert_done(vcpu, JMP_FAR(SEL_SPARE));
    assert_in_task_b(vcpu);
    vcpu = reset_tasks();
    fake_set_gate(&machine, GUEST_LDT + 0x10, SEL_TSS_B, 0, 0xe5, 0);
    guest_enter_ring(vcpu, 3);
    guest_assert_done(vcpu, CALL_FAR(0x17)); /* DPL 3: a user task may use it, though not the TSS itself */
    assert_in_task_b(vcpu);
    ck_assert_uint_eq(vcpu->cpl, 0);
}
END_TEST

START_TEST(cr3_is_loaded_when_paging_is_on)
{
    struct vcpu *vcpu = reset_tasks();

    guest_assert_done(vcpu, JMP_FAR(SEL_TSS_B));
    ck_assert_uint_eq(vcpu->cr3, 0);
    ck_assert_uint_eq(machine.n_paging_changes, 0);
    vcpu = reset_tasks();
    vcpu->cr0 |= CR0_PG;
    vcpu->cr3 = 0x1000;
    guest_assert_done(vcpu, JMP_FAR(SEL_TSS_B));
    ck_assert_uint_eq(vcpu->cr3, 0x7000);
    ck_assert_uint_eq(machine.n_paging_changes, 1);
    ck_assert_uint_eq(machine.old_cr3, 0x1000);
}
END_TEST

START_TEST(pdptes_come_with_cr3)
{
    struct vcpu *vcpu = reset_tasks();
    uint64_t pdpte = 0x8001;

    vcpu->cr0 |= CR0_PG;
    vcpu->cr4 |= CR4_PAE;
    fake_write(&machine, 0x7008, &pdpte, sizeof pdpte);
    guest_assert_done(vcpu, JMP_FAR(SEL_TSS_B));
    ck_assert_uint_eq(vcpu->pdpte[1], pdpte);

    vcpu = reset_tasks();
    vcpu->cr0 |= CR0_PG;
    vcpu->cr4 |= CR4_PAE;
    vcpu->cr3 = 0x1000;
    pdpte |= 0x100; /* reserved */
    fake_write(&machine, 0x7008, &pdpte, sizeof pdpte);
    ck_assert_int_eq(guest_run(vcpu, JMP_FAR(SEL_TSS_B)), OUTCOME_FAULT);
    ck_assert_int_eq(vcpu->fault.vector, EXCEPTION_GP); /* in the new task */
    ck_assert_uint_eq(vcpu->tr.selector, SEL_TSS_B);
    ck_assert_uint_eq(vcpu->cr3, 0x1000);
}
END_TEST

START_TEST(a_16_bit_tss_holds_words)
{
    struct vcpu *vcpu = reset_tasks();
    static const uint16_t tss[22] = {
        [7] = 0x1234,     [8] = 0x0203,                                                        /* IP, FLAGS */
        [9] = 0x1000,     0x1001,       0x1002,    0x1003,    0x8000,  0x1005, 0x1006, 0x1007, /* AX .. DI */
        [17] = SEL_DATA0, SEL_CODE0,    SEL_DATA0, SEL_DATA0, SEL_LDT, /* ES CS SS DS LDT */
    };

    fake_write(&machine, GUEST_TSS_16, tss, sizeof tss);
    guest_assert_done(vcpu, CALL_FAR(SEL_TSS_16));
    ck_assert_uint_eq(vcpu->tr.selector, SEL_TSS_16);
    ck_assert_uint_eq(vcpu->tr.attributes, 0x83);
    ck_assert_uint_eq(vcpu->eip, 0x1234);
    ck_assert_uint_eq(vcpu->eflags, 0x4203);
    ck_assert_uint_eq(vcpu->gpr[EAX], 0xffff1000);
    ck_assert_uint_eq(vcpu->gpr[EDI], 0xffff1007);
    ck_assert_uint_eq(vcpu->segment[SEG_FS].attributes, 0); /* it has no FS */
    ck_assert_uint_eq(vcpu->ldtr.selector, SEL_LDT);

    vcpu->gpr[EAX] = 0xabcd5678;
    guest_assert_done(vcpu, IRET);
    ck_assert_uint_eq(vcpu->tr.selector, SEL_TSS);
    ck_assert_uint_eq(fake_read16(&machine, GUEST_TSS_16 + 18), 0x5678);
    ck_assert_uint_eq(fake_read16(&machine, GUEST_TSS_16 + 14), 0x1235);
    ck_assert_uint_eq(fake_read16(&machine, GUEST_TSS_16 + 16), 0x0203);
    ck_assert_uint_eq(fake_read16(&machine, GUEST_TSS_16 + 36), SEL_CODE0);
}
END_TEST

START_TEST(a_task_may_be_a_virtual_8086_one)
{
    struct vcpu *vcpu = reset_tasks();

    fake_write32(&machine, GUEST_TSS_B + TSS_EFLAGS, 0x23202);
    fake_write16(&machine, GUEST_TSS_B + TSS_CS, 0x1234);
    fake_write32(&machine, GUEST_TSS_B + TSS_EIP, 0x10);
    guest_assert_done(vcpu, JMP_FAR(SEL_TSS_B));
    ck_assert(vcpu_is_v8086(vcpu));
    ck_assert_uint_eq(vcpu->cpl, 3);
    ck_assert_uint_eq(vcpu->segment[SEG_CS].base, 0x12340);
    ck_assert_uint_eq(vcpu->segment[SEG_CS].limit, 0xffff);
    ck_assert_uint_eq(vcpu->segment[SEG_GS].base, SEL_LOCAL_DATA << 4);
    ck_assert_uint_eq(vcpu->eip, 0x10);
}
END_TEST

/* ---- faults of the old task --------------------------------------------------------------------------- */

START_TEST(a_task_that_may_not_be_entered_leaves_the_old_one_alone)
{
    static const struct {
        unsigned ring;
        uint16_t selector;
        uint8_t access;
        uint16_t limit;
        int vector;
        uint32_t error;
    } cases[] = {
        {0, SEL_TSS_B, 0x89, 0x67, -1, 0},
        {0, SEL_TSS_B, 0x8b, 0x67, EXCEPTION_GP, SEL_TSS_B}, /* busy */
        {0, SEL_TSS_B, 0x09, 0x67, EXCEPTION_NP, SEL_TSS_B},
        {0, SEL_TSS_B, 0x89, 0x66, EXCEPTION_TS, SEL_TSS_B}, /* too short */
        {0, SEL_TSS_B, 0x81, 0x2a, EXCEPTION_TS, SEL_TSS_B},
        {3, SEL_TSS_B, 0x89, 0x67, EXCEPTION_GP, SEL_TSS_B},     /* DPL < CPL */
        {0, SEL_TSS_B | 3, 0x89, 0x67, EXCEPTION_GP, SEL_TSS_B}, /* DPL < RPL */
        {3, SEL_TSS_B | 3, 0xe9, 0x67, -1, 0},
    };

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct vcpu *vcpu = reset_tasks();

        guest_set_gdt(&machine, SEL_TSS_B, GUEST_TSS_B, cases[i].limit, cases[i].access, 0);
        guest_enter_ring(vcpu, cases[i].ring);
        if (cases[i].vector < 0) {
            guest_assert_done(vcpu, JMP_FAR(cases[i].selector));
            ck_assert_uint_eq(vcpu->tr.base, GUEST_TSS_B);
            continue;
        }
        guest_assert_fault(vcpu, cases[i].vector, cases[i].error, JMP_FAR(cases[i].selector));
        guest_assert_fault(vcpu, cases[i].vector, cases[i].error, CALL_FAR(cases[i].selector));
        ck_assert(is_busy(SEL_TSS));
        ck_assert_uint_eq(fake_read32(&machine, GUEST_TSS + TSS_EIP), 0);
    }
}
END_TEST

START_TEST(task_gates_are_checked)
{
    static const struct {
        uint16_t selector, tss;
        uint8_t access;
        int vector;
        uint32_t error;
    } cases[] = {
        {SEL_SPARE | 3, SEL_TSS_B, 0x85, EXCEPTION_GP, SEL_SPARE},
        {SEL_SPARE, SEL_TSS_B, 0x05, EXCEPTION_NP, SEL_SPARE},
        {SEL_SPARE, 0, 0x85, EXCEPTION_GP, 0},
        {SEL_SPARE, SEL_TSS_B | SELECTOR_TI, 0x85, EXCEPTION_GP, SEL_TSS_B | SELECTOR_TI},
        {SEL_SPARE, SEL_BEYOND, 0x85, EXCEPTION_GP, SEL_BEYOND},
        {SEL_SPARE, SEL_DATA0, 0x85, EXCEPTION_GP, SEL_DATA0},
        {SEL_SPARE, SEL_TSS, 0x85, EXCEPTION_GP, SEL_TSS}, /* ourselves: busy */
    };

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct vcpu *vcpu = reset_tasks();

        fake_set_gate(&machine, GUEST_GDT + SEL_SPARE, cases[i].tss, 0, cases[i].access, 0);
        guest_assert_fault(vcpu, cases[i].vector, cases[i].error, JMP_FAR(cases[i].selector));
        guest_assert_fault(vcpu, cases[i].vector, cases[i].error, CALL_FAR(cases[i].selector));
    }
}
END_TEST

START_TEST(what_cannot_be_written_or_read_is_found_before_anything_changes)
{
    static const struct {
        gva_t page;
        uint8_t rights;
        uint32_t cr2, error;
    } cases[] = {
        {0x5000, 0, 0x5020, PF_WRITE}, /* the old TSS is saved to */
        {0x5000, PTE_P, 0x5020, PF_PRESENT | PF_WRITE},
        {0x6000, 0, 0x6000, 0},                                           /* the new TSS is read, */
        {0x6000, PTE_P, 0x6000, PF_PRESENT | PF_WRITE},                   /* and the back link written */
        {GUEST_GDT, PTE_P, GUEST_GDT + SEL_TSS_B, PF_PRESENT | PF_WRITE}, /* and the busy bit */
    };

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct vcpu *vcpu = reset_tasks();

        vcpu->tr.base = 0x5000;
        guest_set_gdt(&machine, SEL_TSS_B, 0x6000, 0x67, 0x89, 0);
        fake_set_rights(&machine, cases[i].page, cases[i].rights);
        guest_assert_fault(vcpu, EXCEPTION_PF, cases[i].error, CALL_FAR(SEL_TSS_B));
        ck_assert_uint_eq(vcpu->fault.cr2, cases[i].cr2);
        ck_assert_uint_eq(fake_read32(&machine, 0x5000 + TSS_EIP), 0);
        ck_assert(!is_busy(SEL_TSS_B));
    }
}
END_TEST

START_TEST(a_bad_back_link_is_an_invalid_tss)
{
    static const struct {
        uint16_t link;
        int vector;
        uint32_t error;
    } cases[] = {
        {0, EXCEPTION_TS, 0},
        {SEL_TSS_B, EXCEPTION_TS, SEL_TSS_B}, /* not busy */
        {SEL_DATA0, EXCEPTION_TS, SEL_DATA0},
        {SEL_BEYOND, EXCEPTION_TS, SEL_BEYOND},
        {SEL_TSS | SELECTOR_TI, EXCEPTION_TS, SEL_TSS | SELECTOR_TI},
        {SEL_SPARE, EXCEPTION_NP, SEL_SPARE},
    };

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct vcpu *vcpu = reset_tasks();

        guest_set_gdt(&machine, SEL_SPARE, GUEST_TSS_B, 0x67, 0x0b, 0);
        fake_write16(&machine, GUEST_TSS + TSS_LINK, cases[i].link);
        vcpu->eflags |= EFLAGS_NT;
        guest_assert_fault(vcpu, cases[i].vector, cases[i].error, IRET);
    }
}
END_TEST

/* ---- faults of the new task --------------------------------------------------------------------------- */

/* SDM Vol 3A table 7-1: the switch is made, and the fault is the new task's first. */
START_TEST(bad_segments_fault_in_the_new_task)
{
    static const struct {
        unsigned field;
        uint16_t selector;
        int vector;
        uint32_t error;
    } cases[] = {
        {TSS_LDT, SEL_DATA0, EXCEPTION_TS, SEL_DATA0},
        {TSS_LDT, SEL_LDT | SELECTOR_TI, EXCEPTION_TS, SEL_LDT | SELECTOR_TI},
        {TSS_LDT, SEL_SPARE, EXCEPTION_TS, SEL_SPARE}, /* not present: #TS, unlike LLDT */
        {TSS_CS, 0, EXCEPTION_TS, 0},
        {TSS_CS, SEL_DATA0, EXCEPTION_TS, SEL_DATA0},
        {TSS_CS, SEL_BEYOND, EXCEPTION_TS, SEL_BEYOND},
        {TSS_CS, SEL_CODE0 | 3, EXCEPTION_TS, SEL_CODE0}, /* DPL != RPL */
        {TSS_CS, SEL_CODE_ABSENT, EXCEPTION_NP, SEL_CODE_ABSENT},
        {TSS_CS, SEL_CODE_SHORT, EXCEPTION_GP, 0}, /* eip beyond the limit */
        {TSS_SS, 0, EXCEPTION_TS, 0},
        {TSS_SS, SEL_DATA3, EXCEPTION_TS, SEL_DATA3 & ~3},
        {TSS_SS, SEL_DATA_READONLY, EXCEPTION_TS, SEL_DATA_READONLY},
        {TSS_SS, SEL_DATA_ABSENT, EXCEPTION_SS, SEL_DATA_ABSENT},
        {TSS_DS, SEL_EXECUTE_ONLY, EXCEPTION_TS, SEL_EXECUTE_ONLY},
        {TSS_ES, SEL_DATA0 | 3, EXCEPTION_TS, SEL_DATA0},
        {TSS_FS, SEL_BEYOND, EXCEPTION_TS, SEL_BEYOND},
        {TSS_GS, SEL_DATA_ABSENT, EXCEPTION_NP, SEL_DATA_ABSENT},
    };

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct vcpu *vcpu = reset_tasks();

        guest_set_gdt(&machine, SEL_SPARE, GUEST_LDT, 7, 0x02, 0);
        fake_write16(&machine, GUEST_TSS_B + cases[i].field, cases[i].selector);
        ck_assert_int_eq(guest_run(vcpu, CALL_FAR(SEL_TSS_B)), OUTCOME_FAULT);
        ck_assert_str_eq(vcpu_exception_name((unsigned)vcpu->fault.vector),
                         vcpu_exception_name((unsigned)cases[i].vector));
        ck_assert_uint_eq(vcpu->fault.error, cases[i].error);
        ck_assert_uint_eq(vcpu->tr.selector, SEL_TSS_B);
        ck_assert_uint_eq(vcpu->eip, TASK_B_EIP);
        ck_assert_uint_eq(vcpu->gpr[EAX], 0xb0000000);
        ck_assert(is_busy(SEL_TSS_B));
        ck_assert_uint_eq(fake_read16(&machine, GUEST_TSS_B + TSS_LINK), SEL_TSS);
    }
}
END_TEST

START_TEST(faults_on_the_way_to_an_exceptions_task_have_ext)
{
    struct vcpu *vcpu = reset_tasks();
    struct fault fault = {.vector = EXCEPTION_UD};

    guest_set_idt(&machine, EXCEPTION_UD, SEL_TSS_B, 0, 0x85);
    guest_set_idt(&machine, EXCEPTION_TS, SEL_CODE0, 0x5000, 0x8e);
    fake_write16(&machine, GUEST_TSS_B + TSS_DS, SEL_EXECUTE_ONLY);
    ck_assert_int_eq(vcpu_deliver_fault(vcpu, &fault), OUTCOME_DONE);
    ck_assert_uint_eq(vcpu->eip, 0x5000); /* the handler of #TS, in the new task */
    ck_assert_uint_eq(vcpu->tr.selector, SEL_TSS_B);
    ck_assert_uint_eq(guest_stack32(vcpu, 0), SEL_EXECUTE_ONLY | ERROR_EXT);
    ck_assert_uint_eq(guest_stack32(vcpu, 1), TASK_B_EIP);
}
END_TEST

START_TEST(the_debug_trap_bit_traps_before_the_first_instruction)
{
    struct vcpu *vcpu = reset_tasks();

    fake_write16(&machine, GUEST_TSS_B + TSS_T, 1);
    ck_assert_int_eq(guest_run(vcpu, JMP_FAR(SEL_TSS_B)), OUTCOME_FAULT);
    ck_assert_int_eq(vcpu->fault.vector, EXCEPTION_DB);
    ck_assert(vcpu->fault.is_trap);
    ck_assert_uint_eq(vcpu->dr[6], DR6_FIXED | DR6_BT);
    assert_in_task_b(vcpu);
}
END_TEST

/* ---- the I/O permission bitmap ------------------------------------------------------------------------ */

START_TEST(ports_are_allowed_by_iopl_or_by_the_bitmap)
{
    static const struct {
        unsigned ring, iopl;
        uint16_t port;
        uint8_t size;
        bool is_allowed;
    } cases[] = {
        {0, 0, 0x3f8, 1, true},   {3, 3, 0x3f8, 1, true}, {1, 1, 0x3f8, 1, true},
        {3, 0, 0x3f8, 1, false},                                                 /* bit set */
        {3, 2, 0x3f8, 1, false},  {3, 0, 0x60, 1, true},                         /* bit clear */
        {3, 0, 0x60, 4, true},    {3, 0, 0x66, 1, true},  {3, 0, 0x66, 2, true}, /* 66, 67 */
        {3, 0, 0x66, 4, false},                           /* 68 is set: it is in the next byte */
        {3, 0, 0x67, 2, false},   {3, 0, 0x5f, 2, false}, /* 5f is set */
        {3, 0, 0xcb7, 1, true},  /* the last bits that the CPU can read two bytes for */
        {3, 0, 0xcb8, 1, false}, /* byte 197 is the TSS's last: the one after it is missing */
        {3, 0, 0xffff, 1, false},
    };

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct vcpu *vcpu = guest_reset(&machine);

        /* The map begins at 0x168 and the limit is 0x2ff: bytes 0 .. 0x197. All bits set, but for a few
         * ports. */
        fake_write16(&machine, GUEST_TSS + TSS_IO_MAP, 0x168);
        memset(machine.ram + GUEST_TSS + 0x168, 0xff, 0x300 - 0x168);
        machine.ram[GUEST_TSS + 0x168 + 0x60 / 8] = 0;
        machine.ram[GUEST_TSS + 0x168 + 0xcb7 / 8] = 0;
        machine.ram[GUEST_TSS + 0x168 + 0xcb8 / 8] = 0;
        guest_enter_ring(vcpu, cases[i].ring);
        vcpu->eflags |= cases[i].iopl << EFLAGS_IOPL_SHIFT;
        if (cases[i].is_allowed) {
            ck_assert_int_eq(vcpu_check_io_permission(vcpu, cases[i].port, cases[i].size), OUTCOME_DONE);
        } else {
            ck_assert_int_eq(vcpu_check_io_permission(vcpu, cases[i].port, cases[i].size), OUTCOME_FAULT);
            ck_assert_int_eq(vcpu->fault.vector, EXCEPTION_GP);
            ck_assert_uint_eq(vcpu->fault.error, 0);
        }
    }
}
END_TEST

START_TEST(virtual_8086_mode_asks_the_bitmap_whatever_the_iopl)
{
    struct vcpu *vcpu = guest_reset(&machine);

    fake_write16(&machine, GUEST_TSS + TSS_IO_MAP, 0x68);
    machine.ram[GUEST_TSS + 0x68 + 0x60 / 8] = 1;
    guest_enter_v8086(vcpu);
    vcpu->eflags |= EFLAGS_IOPL;
    ck_assert_int_eq(vcpu_check_io_permission(vcpu, 0x60, 1), OUTCOME_FAULT);
    ck_assert_int_eq(vcpu_check_io_permission(vcpu, 0x61, 1), OUTCOME_DONE);
}
END_TEST

START_TEST(without_a_bitmap_there_is_no_permission)
{
    struct vcpu *vcpu = guest_reset(&machine);

    guest_enter_ring(vcpu, 3);
    fake_write16(&machine, GUEST_TSS + TSS_IO_MAP, 0x68);
    ck_assert_int_eq(vcpu_check_io_permission(vcpu, 0x60, 1), OUTCOME_DONE);
    fake_write16(&machine, GUEST_TSS + TSS_IO_MAP, 0xffff);
    ck_assert_int_eq(vcpu_check_io_permission(vcpu, 0x60, 1), OUTCOME_FAULT);
    fake_write16(&machine, GUEST_TSS + TSS_IO_MAP, 0x68);
    vcpu->tr.limit = 0x66; /* the map's base is cut off */
    ck_assert_int_eq(vcpu_check_io_permission(vcpu, 0x60, 1), OUTCOME_FAULT);
    vcpu->tr = (struct segment){SEL_TSS_16, 0x83, GUEST_TSS, 0x2ff}; /* 16-bit ones have none */
    ck_assert_int_eq(vcpu_check_io_permission(vcpu, 0x60, 1), OUTCOME_FAULT);
    vcpu->tr = (struct segment){SEL_TSS, 0x8b, 0x5000, 0x2ff};
    fake_set_rights(&machine, 0x5000, 0);
    ck_assert_int_eq(vcpu_check_io_permission(vcpu, 0x60, 1), OUTCOME_FAULT);
    ck_assert_int_eq(vcpu->fault.vector, EXCEPTION_PF);
    ck_assert_uint_eq(vcpu->fault.error, 0); /* a supervisor read */
}
END_TEST

int main(void)
{
    const TTest *tests[] = {
        a_jump_to_a_tss_switches_tasks,
        the_old_task_is_saved,
        a_call_links_back_and_iret_follows_the_link,
        a_task_gate_of_the_idt_pushes_the_error_code_in_the_new_task,
        an_interrupt_through_a_task_gate_pushes_nothing,
        a_task_gate_works_in_the_gdt_and_in_the_ldt,
        cr3_is_loaded_when_paging_is_on,
        pdptes_come_with_cr3,
        a_16_bit_tss_holds_words,
        a_task_may_be_a_virtual_8086_one,
        a_task_that_may_not_be_entered_leaves_the_old_one_alone,
        task_gates_are_checked,
        what_cannot_be_written_or_read_is_found_before_anything_changes,
        a_bad_back_link_is_an_invalid_tss,
        bad_segments_fault_in_the_new_task,
        faults_on_the_way_to_an_exceptions_task_have_ext,
        the_debug_trap_bit_traps_before_the_first_instruction,
        ports_are_allowed_by_iopl_or_by_the_bitmap,
        virtual_8086_mode_asks_the_bitmap_whatever_the_iopl,
        without_a_bitmap_there_is_no_permission,
    };

    return guest_run_suite("task", tests, sizeof tests / sizeof tests[0]);
}
