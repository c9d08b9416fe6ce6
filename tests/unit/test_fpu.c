/*
 * x87, MMX and SSE: when they may run, which exceptions they raise and when, the memory images, and that the
 * monitor's own FPU state survives. What they compute is test_ordinary_native's to check.
 */
#include <fenv.h>

#include "fake_guest.h"
#include "vcpu/fxsave.h"

static struct fake_machine machine;

#define DATA 0x40000u

#define FLD1      0xd9, 0xe8
#define FLDZ      0xd9, 0xee
#define FDIVP     0xde, 0xf9 /* fdivp st1, st0 */
#define FNINIT    0xdb, 0xe3
#define FNSTSW_AX 0xdf, 0xe0
#define FWAIT     0x9b
#define EMMS      0x0f, 0x77
#define PADDB_MM  0x0f, 0xfc, 0xc1       /* paddb mm0, mm1 */
#define PADDB_XMM 0x66, 0x0f, 0xfc, 0xc1 /* paddb xmm0, xmm1 */
#define DIVSS     0xf3, 0x0f, 0x5e, 0xc1 /* divss xmm0, xmm1 */
#define FXSAVE    0x0f, 0xae, 0x03       /* [ebx] */
#define FXRSTOR   0x0f, 0xae, 0x0b
#define LDMXCSR   0x0f, 0xae, 0x13
#define STMXCSR   0x0f, 0xae, 0x1b

static struct vcpu *reset(void)
{
    struct vcpu *vcpu = guest_reset(&machine);

    vcpu->cr0 |= CR0_NE | CR0_MP;
    vcpu->cr4 = CR4_OSFXSR | CR4_OSXMMEXCPT;
    vcpu->gpr[EBX] = DATA;
    guest_assert_done(vcpu, FNINIT);
    vcpu->eip = GUEST_CODE;
    return vcpu;
}

/* ---- availability -------------------------------------------------------------------------------------- */

struct availability_case {
    const char *name;
    uint32_t cr0, cr4; /* on top of PE and NE */
    int x87, wait, mmx, sse, fxsave;
};

START_TEST(cr0_and_cr4_decide_what_may_run)
{
    enum { OK = -1, NM = EXCEPTION_NM, UD = EXCEPTION_UD };
    static const struct availability_case cases[] = {
        {"all on", 0, CR4_OSFXSR, OK, OK, OK, OK, OK},
        {"no OSFXSR", 0, 0, OK, OK, OK, UD, OK},
        {"TS", CR0_TS, CR4_OSFXSR, NM, OK, NM, NM, NM},
        {"TS and MP", CR0_TS | CR0_MP, CR4_OSFXSR, NM, NM, NM, NM, NM},
        {"TS, no OSFXSR", CR0_TS, 0, NM, OK, NM, UD, NM},
        {"EM", CR0_EM, CR4_OSFXSR, NM, OK, UD, UD, UD},
        {"EM and TS", CR0_EM | CR0_TS, CR4_OSFXSR, NM, OK, UD, UD, UD},
    };

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        static const uint8_t insns[][4] = {{FLD1}, {FWAIT}, {PADDB_MM}, {PADDB_XMM}, {FXSAVE}};
        static const unsigned lengths[] = {2, 1, 3, 4, 3};
        const int expected[] = {cases[i].x87, cases[i].wait, cases[i].mmx, cases[i].sse, cases[i].fxsave};

        for (unsigned j = 0; j < 5; j++) {
            struct vcpu *vcpu = reset();
            enum outcome outcome;

            vcpu->cr0 = CR0_PE | CR0_NE | cases[i].cr0;
            vcpu->cr4 = cases[i].cr4;
            outcome = guest_run_bytes(vcpu, insns[j], lengths[j]);
            ck_assert_msg(outcome == (expected[j] < 0 ? OUTCOME_DONE : OUTCOME_FAULT), "%s, %u",
                          cases[i].name, j);
            if (expected[j] >= 0)
                ck_assert_msg(vcpu->fault.vector == expected[j], "%s, %u", cases[i].name, j);
        }
    }
}
END_TEST

START_TEST(fences_and_movnti_do_not_need_the_fpu)
{
    struct vcpu *vcpu = reset();

    vcpu->cr0 |= CR0_TS | CR0_EM;
    vcpu->cr4 = 0;
    guest_assert_done(vcpu, 0x0f, 0xae, 0xf8); /* sfence */
    guest_assert_done(vcpu, 0x0f, 0xae, 0xf0); /* mfence */
    guest_assert_done(vcpu, 0x0f, 0xc3, 0x03); /* movnti [ebx], eax */
    guest_assert_done(vcpu, 0xf3, 0x90);       /* pause */
}
END_TEST

/* ---- x87 exceptions ------------------------------------------------------------------------------------ */

/* 1 / 0 with #Z unmasked. */
static void divide_by_zero(struct vcpu *vcpu)
{
    fake_write16(&machine, DATA, X87_CONTROL_INIT & ~4u);
    guest_assert_done(vcpu, 0xd9, 0x2b); /* fldcw [ebx] */
    guest_assert_done(vcpu, FLD1);
    guest_assert_done(vcpu, FLDZ);
    guest_assert_done(vcpu, FDIVP); /* the exception waits */
}

START_TEST(an_x87_exception_is_raised_by_the_next_waiting_instruction)
{
    struct vcpu *vcpu = reset();

    divide_by_zero(vcpu);
    guest_assert_done(vcpu, FNSTSW_AX);
    ck_assert_uint_eq(vcpu->gpr[EAX] & 0x80bf, 0x8084); /* B, ES, ZE */
    guest_assert_fault(vcpu, EXCEPTION_MF, 0, FLD1);
    guest_assert_fault(vcpu, EXCEPTION_MF, 0, FWAIT);
    guest_assert_fault(vcpu, EXCEPTION_MF, 0, PADDB_MM);
    guest_assert_fault(vcpu, EXCEPTION_MF, 0, EMMS);
    guest_assert_done(vcpu, PADDB_XMM);
    guest_assert_done(vcpu, 0xdb, 0xe2); /* fnclex */
    guest_assert_done(vcpu, FWAIT);
    guest_assert_done(vcpu, FLD1);
}
END_TEST

START_TEST(without_cr0_ne_the_run_stops)
{
    struct vcpu *vcpu = reset();

    divide_by_zero(vcpu);
    vcpu->cr0 &= ~CR0_NE;
    ck_assert_int_eq(guest_run(vcpu, FWAIT), OUTCOME_STOP);
    ck_assert_int_eq(machine.stop, STOP_IMPOSSIBLE);
}
END_TEST

START_TEST(an_unmasked_exception_withholds_the_store)
{
    struct vcpu *vcpu = reset();

    fake_write16(&machine, DATA, X87_CONTROL_INIT & ~1u); /* #IA */
    guest_assert_done(vcpu, 0xd9, 0x2b);
    fake_write32(&machine, DATA + 4, 0xffffffff);
    fake_write32(&machine, DATA + 8, 0x7f800000); /* infinity */
    guest_assert_done(vcpu, 0xd9, 0x43, 0x08);    /* fld dword [ebx+8] */
    guest_assert_done(vcpu, 0xdb, 0x53, 0x04);    /* fist dword [ebx+4]: invalid */
    ck_assert_uint_eq(fake_read32(&machine, DATA + 4), 0xffffffff);
    guest_assert_fault(vcpu, EXCEPTION_MF, 0, FWAIT);
}
END_TEST

/* ---- SSE exceptions ------------------------------------------------------------------------------------ */

static void set_xmm(struct vcpu *vcpu, unsigned i, uint32_t low)
{
    struct fxsave image = fxsave_get(vcpu);

    memset(image.xmm[i], 0, sizeof image.xmm[i]);
    memcpy(image.xmm[i], &low, sizeof low);
    fxsave_put(vcpu, &image);
}

static uint32_t get_xmm(const struct vcpu *vcpu, unsigned i)
{
    struct fxsave image = fxsave_get(vcpu);
    uint32_t low;

    memcpy(&low, image.xmm[i], sizeof low);
    return low;
}

static void set_mxcsr(struct vcpu *vcpu, uint32_t mxcsr)
{
    struct fxsave image = fxsave_get(vcpu);

    image.mxcsr = mxcsr;
    fxsave_put(vcpu, &image);
}

#define ONE 0x3f800000u

START_TEST(an_unmasked_sse_exception_commits_only_flags)
{
    struct vcpu *vcpu = reset();

    set_xmm(vcpu, 0, ONE);
    set_xmm(vcpu, 1, 0);
    set_mxcsr(vcpu, 0x1f80 & ~0x200u); /* #Z unmasked */
    ck_assert_int_eq(guest_run(vcpu, DIVSS), OUTCOME_FAULT);
    ck_assert_int_eq(vcpu->fault.vector, EXCEPTION_XM);
    ck_assert_uint_eq(get_xmm(vcpu, 0), ONE);
    ck_assert_uint_eq(fxsave_get(vcpu).mxcsr, (0x1f80 & ~0x200u) | MXCSR_ZE);
    ck_assert_uint_eq(vcpu->eip, GUEST_CODE);

    vcpu->cr4 &= ~CR4_OSXMMEXCPT;
    ck_assert_int_eq(guest_run(vcpu, DIVSS), OUTCOME_FAULT);
    ck_assert_int_eq(vcpu->fault.vector, EXCEPTION_UD);

    set_mxcsr(vcpu, 0x1f80);
    guest_assert_done(vcpu, DIVSS);
    ck_assert_uint_eq(get_xmm(vcpu, 0), 0x7f800000);
    ck_assert_uint_eq(fxsave_get(vcpu).mxcsr, 0x1f80 | MXCSR_ZE);
}
END_TEST

START_TEST(flags_of_before_raise_nothing)
{
    struct vcpu *vcpu = reset();

    set_xmm(vcpu, 0, ONE);
    set_xmm(vcpu, 1, ONE);
    set_mxcsr(vcpu, MXCSR_FLAGS); /* all unmasked, all flags set, and 1/1 is exact */
    guest_assert_done(vcpu, DIVSS);
    ck_assert_uint_eq(fxsave_get(vcpu).mxcsr, MXCSR_FLAGS);
}
END_TEST

START_TEST(unmasked_underflow_sees_exact_denormals)
{
    struct vcpu *vcpu = reset();

    set_xmm(vcpu, 0, 0x00800000); /* the least normal number */
    set_xmm(vcpu, 1, 0x40000000); /* 2 */
    set_mxcsr(vcpu, 0x1f80);
    guest_assert_done(vcpu, DIVSS);
    ck_assert_uint_eq(get_xmm(vcpu, 0), 0x00400000);
    ck_assert_uint_eq(fxsave_get(vcpu).mxcsr, 0x1f80); /* masked: exact, so nothing to say */

    vcpu->eip = GUEST_CODE;
    set_xmm(vcpu, 0, 0x00800000);
    set_mxcsr(vcpu, 0x1f80 & ~MXCSR_UM);
    ck_assert_int_eq(guest_run(vcpu, DIVSS), OUTCOME_FAULT);
    ck_assert_int_eq(vcpu->fault.vector, EXCEPTION_XM);
    ck_assert_uint_eq(fxsave_get(vcpu).mxcsr, (0x1f80 & ~MXCSR_UM) | MXCSR_UE);
}
END_TEST

START_TEST(sse_memory_operands_must_be_aligned)
{
    struct vcpu *vcpu = reset();

    vcpu->gpr[EBX] = DATA + 8;
    guest_assert_fault(vcpu, EXCEPTION_GP, 0, 0x0f, 0x28, 0x03);       /* movaps xmm0, [ebx] */
    guest_assert_fault(vcpu, EXCEPTION_GP, 0, 0x66, 0x0f, 0xfe, 0x03); /* paddd xmm0, [ebx] */
    guest_assert_done(vcpu, 0x0f, 0x10, 0x03);                         /* movups */
    guest_assert_done(vcpu, 0xf3, 0x0f, 0x6f, 0x03);                   /* movdqu */
    guest_assert_done(vcpu, 0xf3, 0x0f, 0x58, 0x03);                   /* addss: four bytes */
}
END_TEST

/* ---- images -------------------------------------------------------------------------------------------- */

START_TEST(fnstenv_writes_the_guest_s_pointers)
{
    struct vcpu *vcpu = reset();

    vcpu->eip = GUEST_CODE;
    guest_assert_done(vcpu, 0xdd, 0x43, 0x10); /* fld qword [ebx+10h] */
    guest_assert_done(vcpu, 0xd9, 0x33);       /* fnstenv [ebx] */
    ck_assert_uint_eq(fake_read32(&machine, DATA), 0xffff0000 | X87_CONTROL_INIT);
    ck_assert_uint_eq(fake_read32(&machine, DATA + 4), 0xffff3800); /* TOP = 7 */
    ck_assert_uint_eq(fake_read32(&machine, DATA + 8), 0xffff7fff); /* register 7 is zero, the others empty */
    ck_assert_uint_eq(fake_read32(&machine, DATA + 12), GUEST_CODE);
    ck_assert_uint_eq(fake_read32(&machine, DATA + 16), 0x05430000 | SEL_CODE0);
    ck_assert_uint_eq(fake_read32(&machine, DATA + 20), DATA + 0x10);
    ck_assert_uint_eq(fake_read32(&machine, DATA + 24), 0xffff0000 | SEL_DATA0);
}
END_TEST

START_TEST(the_real_mode_environment_has_linear_addresses)
{
    struct vcpu *vcpu = reset();

    guest_enter_real_mode(vcpu);
    vcpu->gpr[EBX] = 0x8000;
    guest_assert_done(vcpu, 0xdd, 0x47, 0x10); /* fld qword [bx+10h], at 1000:0000 */
    guest_assert_done(vcpu, 0xd9, 0x37);       /* fnstenv [bx] */
    ck_assert_uint_eq(fake_read16(&machine, 0x18000 + 6), 0x0000);
    ck_assert_uint_eq(fake_read16(&machine, 0x18000 + 8), 0x1000 | 0x547);
    ck_assert_uint_eq(fake_read16(&machine, 0x18000 + 10), 0x8010);
    ck_assert_uint_eq(fake_read16(&machine, 0x18000 + 12), 0x1000);
}
END_TEST

START_TEST(fnsave_and_frstor_are_inverse)
{
    struct vcpu *vcpu = reset();
    struct fxsave before, after;

    guest_assert_done(vcpu, FLD1);
    guest_assert_done(vcpu, 0xd9, 0xeb); /* fldpi */
    guest_assert_done(vcpu, FLDZ);
    before = fxsave_get(vcpu);
    guest_assert_done(vcpu, 0xdd, 0x33); /* fnsave [ebx] */
    after = fxsave_get(vcpu);
    ck_assert_uint_eq(after.tags, 0);
    ck_assert_uint_eq(after.control, X87_CONTROL_INIT);
    ck_assert_uint_eq(after.status, 0);
    ck_assert_uint_eq(fake_read16(&machine, DATA + 8), 0x07ff); /* 5: zero, 6 and 7: valid */
    guest_assert_done(vcpu, 0xdd, 0x23);                        /* frstor [ebx] */
    after = fxsave_get(vcpu);
    ck_assert_mem_eq(&after, &before, sizeof before);
}
END_TEST

START_TEST(fldenv_moves_the_top_and_not_the_registers)
{
    struct vcpu *vcpu = reset();

    guest_assert_done(vcpu, FLD1);
    guest_assert_done(vcpu, 0xd9, 0xeb); /* fldpi: ST0 pi, ST1 1 */
    guest_assert_done(vcpu, 0xd9, 0x33); /* fnstenv */
    fake_write32(&machine, DATA + 4, 0x3800);
    guest_assert_done(vcpu, 0xd9, 0x23);       /* fldenv with TOP = 7: ST0 is 1 */
    guest_assert_done(vcpu, 0xd9, 0x5b, 0x40); /* fstp dword [ebx+40h] */
    ck_assert_uint_eq(fake_read32(&machine, DATA + 0x40), ONE);
}
END_TEST

START_TEST(fxsave_writes_the_32_bit_image)
{
    struct vcpu *vcpu = reset();
    struct fxsave image, written;

    memset(machine.ram + DATA, 0xcc, sizeof image);
    set_xmm(vcpu, 7, 0x12345678);
    guest_assert_done(vcpu, FLD1);
    guest_assert_done(vcpu, FXSAVE);
    image = fxsave_get(vcpu);
    image.mxcsr_mask = 0xffff;
    memcpy(&written, machine.ram + DATA, sizeof written);
    ck_assert_mem_eq(&written, &image, FXSAVE_USED);
    for (unsigned i = 0; i < sizeof written.reserved3; i++)
        ck_assert_uint_eq(written.reserved3[i], 0xcc);

    guest_assert_done(vcpu, FNINIT);
    set_xmm(vcpu, 7, 0);
    guest_assert_done(vcpu, FXRSTOR);
    ck_assert_uint_eq(get_xmm(vcpu, 7), 0x12345678);
    ck_assert_uint_eq(fxsave_get(vcpu).tags, 0x80);
}
END_TEST

START_TEST(fxsave_and_fxrstor_check_before_they_move)
{
    struct vcpu *vcpu = reset();

    vcpu->gpr[EBX] = DATA + 8;
    guest_assert_fault(vcpu, EXCEPTION_GP, 0, FXSAVE);
    guest_assert_fault(vcpu, EXCEPTION_GP, 0, FXRSTOR);
    vcpu->gpr[EBX] = DATA + PAGE_SIZE - 0x100;
    fake_set_rights(&machine, DATA + PAGE_SIZE, 0);
    guest_assert_fault(vcpu, EXCEPTION_PF, PF_WRITE, FXSAVE);
    ck_assert_uint_eq(machine.n_writes, 0);
    vcpu->gpr[EBX] = DATA;
    fake_write32(&machine, DATA + 24, 0x10000);
    guest_assert_fault(vcpu, EXCEPTION_GP, 0, FXRSTOR);
    fake_write32(&machine, DATA, 0xffff0000);
    guest_assert_fault(vcpu, EXCEPTION_GP, 0, LDMXCSR);
}
END_TEST

START_TEST(mxcsr_moves_to_and_from_memory)
{
    struct vcpu *vcpu = reset();

    fake_write32(&machine, DATA, 0xffbf);
    guest_assert_done(vcpu, LDMXCSR);
    vcpu->gpr[EBX] = DATA + 4;
    guest_assert_done(vcpu, STMXCSR);
    ck_assert_uint_eq(fake_read32(&machine, DATA + 4), 0xffbf);
}
END_TEST

START_TEST(a_masked_store_touches_the_selected_bytes)
{
    struct vcpu *vcpu = reset();
    struct fxsave image = fxsave_get(vcpu);

    memset(image.xmm[0], 0xaa, 16);
    memset(image.xmm[1], 0, 16);
    image.xmm[1][0] = image.xmm[1][15] = 0x80;
    fxsave_put(vcpu, &image);
    vcpu->gpr[EDI] = DATA + 3;
    guest_assert_done(vcpu, 0x66, 0x0f, 0xf7, 0xc1); /* maskmovdqu xmm0, xmm1 */
    ck_assert_uint_eq(machine.n_writes, 2);
    ck_assert_uint_eq(fake_read32(&machine, DATA), 0xaa000000);
    ck_assert_uint_eq(fake_read8(&machine, DATA + 18), 0xaa);
    vcpu->gpr[EDI] = DATA + PAGE_SIZE - 8;
    fake_set_rights(&machine, DATA + PAGE_SIZE, 0);
    guest_assert_fault(vcpu, EXCEPTION_PF, PF_WRITE, 0x66, 0x0f, 0xf7, 0xc1);
    ck_assert_uint_eq(machine.n_writes, 0);
}
END_TEST

/* ---- the monitor's own state --------------------------------------------------------------------------- */

START_TEST(the_host_s_state_survives)
{
    struct vcpu *vcpu = reset();
    volatile double third = 1.0;

    ck_assert_int_eq(fesetround(FE_UPWARD), 0);
    set_mxcsr(vcpu, 0xffc0);
    guest_assert_done(vcpu, DIVSS);
    divide_by_zero(vcpu);
    ck_assert_int_eq(fegetround(), FE_UPWARD);
    third = third / 3;
    ck_assert(third * 3 >= 1.0);
    fesetround(FE_TONEAREST);
    ck_assert_uint_eq(fxsave_get(vcpu).mxcsr & 0xffc0, 0xffc0);
}
END_TEST

int main(void)
{
    const TTest *tests[] = {
        cr0_and_cr4_decide_what_may_run,
        fences_and_movnti_do_not_need_the_fpu,
        an_x87_exception_is_raised_by_the_next_waiting_instruction,
        without_cr0_ne_the_run_stops,
        an_unmasked_exception_withholds_the_store,
        an_unmasked_sse_exception_commits_only_flags,
        flags_of_before_raise_nothing,
        unmasked_underflow_sees_exact_denormals,
        sse_memory_operands_must_be_aligned,
        fnstenv_writes_the_guest_s_pointers,
        the_real_mode_environment_has_linear_addresses,
        fnsave_and_frstor_are_inverse,
        fldenv_moves_the_top_and_not_the_registers,
        fxsave_writes_the_32_bit_image,
        fxsave_and_fxrstor_check_before_they_move,
        mxcsr_moves_to_and_from_memory,
        a_masked_store_touches_the_selected_bytes,
        the_host_s_state_survives,
    };

    return guest_run_suite("fpu", tests, sizeof tests / sizeof tests[0]);
}
