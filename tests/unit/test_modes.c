/*
 * Real and virtual-8086 mode as a whole: the processor as it wakes up, the ways from mode to mode, what does
 * not exist and what is not allowed, the edges of 64 KiB. Expected values are the SDM's (Vol 3A 9.1, 9.9, ch.
 * 20).
 */
#include "fake_guest.h"

static struct fake_machine machine;

#define N_OF(array) (sizeof(array) / sizeof((array)[0]))

struct code {
    uint8_t n, bytes[6];
};

#define CODE(...)                                                                                            \
    {                                                                                                        \
        sizeof GUEST_BYTES(__VA_ARGS__),                                                                     \
        {                                                                                                    \
            __VA_ARGS__                                                                                      \
        }                                                                                                    \
    }

/* ---- the beginning ------------------------------------------------------------------------------------- */

START_TEST(the_first_instruction_is_fetched_below_4_gib)
{
    struct vcpu *vcpu = fake_machine_reset(&machine);
    struct insn insn;

    ck_assert(!vcpu_is_protected(vcpu));
    ck_assert_uint_eq(vcpu->cpl, 0);
    ck_assert_int_eq(vcpu_fetch(vcpu, &insn), OUTCOME_FAULT); /* the fake machine has nothing there */
    ck_assert_uint_eq(vcpu->fault.cr2, 0xfffffff0);
}
END_TEST

/* The far jump that every BIOS begins with brings CS's base down. */
START_TEST(a_far_jump_leaves_the_high_base)
{
    struct vcpu *vcpu = fake_machine_reset(&machine);

    vcpu->segment[SEG_CS].base = 0x10000;
    vcpu->eip = 0;
    guest_assert_done(vcpu, 0xea, 0x5b, 0xe0, 0x00, 0xf0);
    ck_assert_uint_eq(vcpu->segment[SEG_CS].base, 0xf0000);
    ck_assert_uint_eq(vcpu->segment[SEG_CS].limit, 0xffff);
    ck_assert_uint_eq(vcpu->eip, 0xe05b);
    ck_assert_uint_eq(vcpu_code_size(vcpu), 2);
}
END_TEST

/* ---- from mode to mode --------------------------------------------------------------------------------- */

START_TEST(protected_mode_begins_with_what_real_mode_had)
{
    struct vcpu *vcpu = guest_reset(&machine);

    guest_enter_real_mode(vcpu);
    fake_write16(&machine, 0x10100, GUEST_GDT_LIMIT); /* the pseudo-descriptor at DS:0100 */
    fake_write32(&machine, 0x10102, 0xff000000 | GUEST_GDT);
    guest_assert_done(vcpu, 0x0f, 0x01, 0x16, 0x00, 0x01);
    ck_assert_uint_eq(vcpu->gdtr.base, GUEST_GDT); /* a 16-bit operand has 24 bits of base */
    guest_assert_done(vcpu, 0x66, 0x0f, 0x01, 0x16, 0x00, 0x01);
    ck_assert_uint_eq(vcpu->gdtr.base, 0xff000000 | GUEST_GDT);
    vcpu->gdtr.base = GUEST_GDT;

    vcpu->gpr[EAX] = vcpu->cr0 | CR0_PE;
    guest_assert_done(vcpu, 0x0f, 0x22, 0xc0); /* mov cr0, eax */
    ck_assert(vcpu_is_protected(vcpu));
    ck_assert_uint_eq(machine.n_paging_changes, 1);
    ck_assert_uint_eq(vcpu->segment[SEG_CS].selector, 0x1000);
    ck_assert_uint_eq(vcpu->segment[SEG_CS].base, 0x10000);
    guest_assert_done(vcpu, 0xa1, 0x00, 0x01); /* mov ax, [0100]: DS is as it was */
    ck_assert_uint_eq(vcpu->gpr[EAX] & 0xffff, GUEST_GDT_LIMIT);
    guest_assert_done(vcpu, 0x66, 0xea, guest_le32(GUEST_CODE), guest_le16(SEL_CODE0)); /* jmp ptr16:32 */
    ck_assert_uint_eq(vcpu_code_size(vcpu), 4);
    ck_assert_uint_eq(vcpu->eip, GUEST_CODE);
}
END_TEST

START_TEST(real_mode_inherits_limits_and_sizes)
{
    struct vcpu *vcpu = guest_reset(&machine);

    vcpu->segment[SEG_CS] = (struct segment){SEL_CODE16, 0x009b, 0x10000, 0xffff};
    vcpu->eip = 0;
    vcpu->gpr[EAX] = vcpu->cr0 & ~CR0_PE;
    guest_assert_done(vcpu, 0x0f, 0x22, 0xc0); /* mov cr0, eax: DS is still flat */
    guest_assert_done(vcpu, 0xea, 0x10, 0x00, 0x00, 0x10);
    ck_assert_uint_eq(vcpu->segment[SEG_CS].base, 0x10000);

    vcpu->gpr[EAX] = 0x3000;
    guest_assert_done(vcpu, 0x8e, 0xd8); /* mov ds, ax */
    ck_assert_uint_eq(vcpu->segment[SEG_DS].base, 0x30000);
    ck_assert_uint_eq(vcpu->segment[SEG_DS].limit, 0xffffffff);
    fake_write32(&machine, 0x150000, 0x11223344);
    vcpu->gpr[EBX] = 0x120000;
    guest_assert_done(vcpu, 0x67, 0x66, 0x8b, 0x03); /* mov eax, [ebx] */
    ck_assert_uint_eq(vcpu->gpr[EAX], 0x11223344);
    vcpu->gpr[ESP] = 0x28000;
    guest_assert_done(vcpu, 0x50); /* push ax: SS.B is still set */
    ck_assert_uint_eq(vcpu->gpr[ESP], 0x27ffe);
}
END_TEST

/* ---- what is not there, what is not allowed -------------------------------------------------------------
 */

START_TEST(without_descriptors_their_instructions_do_not_exist)
{
    static const struct code absent[] = {
        CODE(0x0f, 0x00, 0xc0), /* sldt ax */
        CODE(0x0f, 0x00, 0xc8), /* str ax */
        CODE(0x0f, 0x00, 0xd0), /* lldt ax */
        CODE(0x0f, 0x00, 0xd8), /* ltr ax */
        CODE(0x0f, 0x00, 0xe0), /* verr ax */
        CODE(0x0f, 0x00, 0xe8), /* verw ax */
        CODE(0x0f, 0x02, 0xc0), /* lar ax, ax */
        CODE(0x0f, 0x03, 0xc0), /* lsl ax, ax */
        CODE(0x63, 0xc0),       /* arpl ax, ax */
        CODE(0x8e, 0xc8),       /* mov cs, ax */
    };
    void (*const enter[])(struct vcpu *) = {guest_enter_real_mode, guest_enter_v8086};

    for (size_t mode = 0; mode < N_OF(enter); mode++) {
        for (size_t i = 0; i < N_OF(absent); i++) {
            struct vcpu *vcpu = guest_reset(&machine);

            enter[mode](vcpu);
            guest_check_fault(vcpu, absent[i].bytes, absent[i].n, EXCEPTION_UD, 0);
        }
    }
}
END_TEST

static const struct code privileged[] = {
    CODE(0xf4),             /* hlt */
    CODE(0x0f, 0x06),       /* clts */
    CODE(0x0f, 0x08),       /* invd */
    CODE(0x0f, 0x09),       /* wbinvd */
    CODE(0x0f, 0x20, 0xc0), /* mov eax, cr0 */
    CODE(0x0f, 0x21, 0xf8), /* mov eax, dr7 */
    CODE(0x0f, 0x01, 0x17), /* lgdt [bx] */
    CODE(0x0f, 0x01, 0x1f), /* lidt [bx] */
    CODE(0x0f, 0x01, 0x3f), /* invlpg [bx] */
    CODE(0x0f, 0x01, 0xf0), /* lmsw ax */
    CODE(0x0f, 0x32),       /* rdmsr */
};

START_TEST(real_mode_is_privileged_and_virtual_8086_mode_is_not)
{
    for (size_t i = 0; i < N_OF(privileged); i++) {
        struct vcpu *vcpu = guest_reset(&machine);

        guest_enter_real_mode(vcpu);
        vcpu->gpr[ECX] = MSR_TSC;
        vcpu->gpr[EAX] = 0;
        ck_assert_int_eq(guest_run_bytes(vcpu, privileged[i].bytes, privileged[i].n), OUTCOME_DONE);
        guest_reset(&machine);
        guest_enter_v8086(vcpu);
        vcpu->eflags |= EFLAGS_IOPL;
        guest_check_fault(vcpu, privileged[i].bytes, privileged[i].n, EXCEPTION_GP, 0);
    }
}
END_TEST

/* SDM Vol 1 19.5.2: with any IOPL. */
START_TEST(ports_are_free_in_real_mode_and_behind_the_bitmap_in_virtual_8086_mode)
{
    struct vcpu *vcpu = guest_reset(&machine);

    guest_enter_real_mode(vcpu);
    guest_assert_done(vcpu, 0xe4, 0x60);

    vcpu = guest_reset(&machine);
    fake_write16(&machine, GUEST_TSS + 0x66, 0x68);
    fake_write16(&machine, GUEST_TSS + 0x68 + 0x60 / 8, 0x0002); /* port 61 is denied */
    vcpu->tr = (struct segment){SEL_TSS, SEGMENT_P | SYSTEM_TSS32_BUSY, GUEST_TSS, 0x2ff};
    guest_enter_v8086(vcpu);
    for (unsigned iopl = 0; iopl <= 3; iopl += 3) {
        vcpu->eflags = (vcpu->eflags & ~EFLAGS_IOPL) | iopl << EFLAGS_IOPL_SHIFT;
        guest_assert_done(vcpu, 0xe4, 0x60);
        guest_assert_fault(vcpu, EXCEPTION_GP, 0, 0xe4, 0x61);
        guest_assert_fault(vcpu, EXCEPTION_GP, 0, 0xe5, 0x60); /* a word: 60 and 61 */
        vcpu->gpr[EDX] = 0x61;
        guest_assert_fault(vcpu, EXCEPTION_GP, 0, 0x6c); /* insb */
    }
}
END_TEST

START_TEST(virtual_8086_mode_is_user_mode)
{
    struct vcpu *vcpu = guest_reset(&machine);

    guest_enter_v8086(vcpu);
    fake_set_rights(&machine, 0x12000, PTE_P | PTE_W);
    guest_assert_fault(vcpu, EXCEPTION_PF, PF_PRESENT | PF_USER, 0xa1, 0x00, 0x20); /* mov ax, [2000] */
    vcpu->cr0 |= CR0_AM;
    vcpu->eflags |= EFLAGS_AC;
    guest_assert_fault(vcpu, EXCEPTION_AC, 0, 0xa1, 0x01, 0x30); /* mov ax, [3001] */
}
END_TEST

/* ---- 64 KiB ---------------------------------------------------------------------------------------------
 */

START_TEST(data_ends_at_64_kib)
{
    void (*const enter[])(struct vcpu *) = {guest_enter_real_mode, guest_enter_v8086};

    for (size_t mode = 0; mode < N_OF(enter); mode++) {
        struct vcpu *vcpu = guest_reset(&machine);

        enter[mode](vcpu);
        guest_assert_fault(vcpu, EXCEPTION_GP, 0, 0xa1, 0xff, 0xff);       /* mov ax, [ffff] */
        guest_assert_fault(vcpu, EXCEPTION_GP, 0, 0x66, 0xa1, 0xfd, 0xff); /* mov eax, [fffd] */
        guest_assert_fault(vcpu, EXCEPTION_SS, 0, 0x36, 0xa1, 0xff, 0xff); /* mov ax, ss:[ffff] */
        guest_assert_done(vcpu, 0xa0, 0xff, 0xff);                         /* mov al, [ffff] */
        vcpu->gpr[EBX] = 0x10000;
        guest_assert_fault(vcpu, EXCEPTION_GP, 0, 0x67, 0x8a, 0x03); /* mov al, [ebx] */
        vcpu->gpr[ESP] = 1;
        guest_assert_fault(vcpu, EXCEPTION_SS, 0, 0x50); /* push ax */
        vcpu->gpr[ESP] = 0;
        guest_assert_done(vcpu, 0x50);
        ck_assert_uint_eq(vcpu->gpr[ESP], 0xfffe);
    }
}
END_TEST

/* Code does not run on from FFFF to 0, but a jump wraps (SDM Vol 3B, "Segment Wraparound"; Vol 2A JMP). */
START_TEST(code_ends_at_64_kib)
{
    struct vcpu *vcpu = guest_reset(&machine);
    struct insn insn;

    guest_enter_real_mode(vcpu);
    vcpu->eip = 0xffff;
    guest_assert_done(vcpu, 0x90);
    ck_assert_uint_eq(vcpu->eip, 0x10000);
    ck_assert_int_eq(vcpu_fetch(vcpu, &insn), OUTCOME_FAULT);
    ck_assert_int_eq(vcpu->fault.vector, EXCEPTION_GP);

    vcpu->eip = 0xffff;
    fake_write16(&machine, 0x1ffff, 0x00b0); /* mov al, 0: its second byte is beyond */
    ck_assert_int_eq(vcpu_fetch(vcpu, &insn), OUTCOME_FAULT);
    ck_assert_int_eq(vcpu->fault.vector, EXCEPTION_GP);

    vcpu->eip = 0xfff0;
    guest_assert_done(vcpu, 0xeb, 0x7f);
    ck_assert_uint_eq(vcpu->eip, 0x71);
    vcpu->eip = 0xfff0;
    guest_assert_fault(vcpu, EXCEPTION_GP, 0, 0x66, 0xe9, guest_le32(0x100)); /* jmp rel32 does not */
}
END_TEST

int main(void)
{
    const TTest *tests[] = {
        the_first_instruction_is_fetched_below_4_gib,
        a_far_jump_leaves_the_high_base,
        protected_mode_begins_with_what_real_mode_had,
        real_mode_inherits_limits_and_sizes,
        without_descriptors_their_instructions_do_not_exist,
        real_mode_is_privileged_and_virtual_8086_mode_is_not,
        ports_are_free_in_real_mode_and_behind_the_bitmap_in_virtual_8086_mode,
        virtual_8086_mode_is_user_mode,
        data_ends_at_64_kib,
        code_ends_at_64_kib,
    };

    return guest_run_suite("modes", tests, N_OF(tests));
}
