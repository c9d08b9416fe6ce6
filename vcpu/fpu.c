/*
 * x87, MMX and SSE instructions. Whether they may run is the virtual CR0's and CR4's to say (SDM Vol
 * 3A 2.5, 12.1, 13.1), which the real CPU does not see: hence sensitive. Then they run in a stub, on the
 * guest's FXSAVE image, in a way that no exception reaches the host:
 *   - x87 reports an unmasked exception at the *next* waiting instruction. Each stub is one instruction, and
 * before it the image is asked for what is pending.
 *   - SSE instructions run with all exceptions masked; the flags they leave tell what would have been raised.
 *
 * Read next: sse_exception.c, fpu_image.c.
 */
#include <Zydis/Zydis.h>
#include <string.h>

#include "vcpu/fxsave.h"
#include "vcpu/internal.h"
#include "vcpu/ordinary.h"

/* ---- what it is ---------------------------------------------------------------------------------------- */

enum fpu_unit { UNIT_X87, UNIT_FXSAVE, UNIT_MMX, UNIT_SSE };

static bool has_register(const struct insn *insn, enum register_class class)
{
    for (unsigned i = 0; i < insn->n_operands; i++) {
        if (insn->operand[i].kind == OPERAND_REGISTER && insn->operand[i].reg.class == class)
            return true;
    }
    return false;
}

static enum fpu_unit unit_of(const struct insn *insn)
{
    if (insn->opcode_map == 0)
        return UNIT_X87;
    switch (insn->mnemonic) {
    case ZYDIS_MNEMONIC_FXSAVE:
    case ZYDIS_MNEMONIC_FXRSTOR:
        return UNIT_FXSAVE;
    case ZYDIS_MNEMONIC_EMMS:
        return UNIT_MMX;
    case ZYDIS_MNEMONIC_LDMXCSR:
    case ZYDIS_MNEMONIC_STMXCSR:
        return UNIT_SSE;
    default: /* MMX registers alone need no CR4.OSFXSR, even in instructions that SSE brought */
        return has_register(insn, REGISTER_MMX) && !has_register(insn, REGISTER_XMM) ? UNIT_MMX : UNIT_SSE;
    }
}

/* Control instructions do not set the instruction and data pointers; some do not wait either (SDM Vol
 * 1 8.1.8, 8.3.12).
 */
static bool is_x87_control(const struct insn *insn, bool *is_waiting)
{
    static const struct {
        uint16_t mnemonic;
        bool is_waiting;
    } table[] = {
        {ZYDIS_MNEMONIC_FNINIT, false},        {ZYDIS_MNEMONIC_FNCLEX, false},
        {ZYDIS_MNEMONIC_FNSTSW, false},        {ZYDIS_MNEMONIC_FNSTCW, false},
        {ZYDIS_MNEMONIC_FNSTENV, false},       {ZYDIS_MNEMONIC_FNSAVE, false},
        {ZYDIS_MNEMONIC_FENI8087_NOP, false},  {ZYDIS_MNEMONIC_FDISI8087_NOP, false},
        {ZYDIS_MNEMONIC_FSETPM287_NOP, false}, {ZYDIS_MNEMONIC_FLDCW, true},
        {ZYDIS_MNEMONIC_FLDENV, true},         {ZYDIS_MNEMONIC_FRSTOR, true},
        {ZYDIS_MNEMONIC_FNOP, true},           {ZYDIS_MNEMONIC_FFREE, true},
        {ZYDIS_MNEMONIC_FINCSTP, true},        {ZYDIS_MNEMONIC_FDECSTP, true},
        {ZYDIS_MNEMONIC_FWAIT, true},
    };

    *is_waiting = true;
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        if (table[i].mnemonic == insn->mnemonic) {
            *is_waiting = table[i].is_waiting;
            return true;
        }
    }
    return false;
}

/* ---- may it run ---------------------------------------------------------------------------------------- */

static bool is_waiting(const struct insn *insn, enum fpu_unit unit)
{
    bool waits;

    switch (unit) {
    case UNIT_X87:
        is_x87_control(insn, &waits);
        return waits;
    case UNIT_FXSAVE:
        return false;
    default:
        return unit == UNIT_MMX || has_register(insn, REGISTER_MMX);
    }
}

static enum outcome check_pending(struct vcpu *vcpu)
{
    struct fxsave image = fxsave_get(vcpu);

    if (!fxsave_pending(&image))
        return OUTCOME_DONE;
    if (vcpu->cr0 & CR0_NE)
        return vcpu_raise(vcpu, EXCEPTION_MF);
    vcpu->ops->stop(vcpu, STOP_IMPOSSIBLE,
                    "x87 exception at eip %08x with CR0.NE clear: FERR# and IRQ 13 are not modelled",
                    vcpu->eip);
    return OUTCOME_STOP;
}

static enum outcome check_available(struct vcpu *vcpu, const struct insn *insn, enum fpu_unit unit)
{
    uint32_t not_available = CR0_TS;

    if (insn->mnemonic == ZYDIS_MNEMONIC_FWAIT) {
        if ((vcpu->cr0 & (CR0_MP | CR0_TS)) == (CR0_MP | CR0_TS))
            return vcpu_raise(vcpu, EXCEPTION_NM);
        return check_pending(vcpu);
    }
    if (unit == UNIT_X87)
        not_available |= CR0_EM;
    else if (vcpu->cr0 & CR0_EM)
        return vcpu_raise(vcpu, EXCEPTION_UD);
    if (unit == UNIT_SSE && !(vcpu->cr4 & CR4_OSFXSR))
        return vcpu_raise(vcpu, EXCEPTION_UD);
    if (vcpu->cr0 & not_available)
        return vcpu_raise(vcpu, EXCEPTION_NM);
    return is_waiting(insn, unit) ? check_pending(vcpu) : OUTCOME_DONE;
}

/* ---- running ------------------------------------------------------------------------------------------- */

/* FXSAVE in the stub saw the host's code and data pointers, or on some processors none. Here they are the
 * guest's. */
static void set_pointers(const struct vcpu *vcpu, const struct insn *insn, const struct native_run *run,
                         const struct fxsave *before, struct fxsave *image)
{
    bool waits;

    image->opcode = before->opcode;
    image->instruction = before->instruction;
    image->instruction_selector = before->instruction_selector;
    image->reserved1 = before->reserved1;
    image->data = before->data;
    image->data_selector = before->data_selector;
    image->reserved2 = before->reserved2;
    image->mxcsr_mask = before->mxcsr_mask;
    if (insn->mnemonic == ZYDIS_MNEMONIC_FNINIT) {
        image->opcode = 0;
        image->instruction = image->data = 0;
        image->instruction_selector = image->data_selector = 0;
    }
    if (unit_of(insn) != UNIT_X87 || is_x87_control(insn, &waits))
        return;
    image->opcode = (uint16_t)((insn->opcode & 7) << 8 | insn->bytes[insn->modrm_offset]);
    image->instruction = vcpu->eip;
    image->instruction_selector = vcpu->segment[SEG_CS].selector;
    if (run->memory != NULL) {
        image->data = run->offset;
        image->data_selector = vcpu->segment[run->memory->mem.segment].selector;
    }
}

/* An unmasked exception other than #P keeps an x87 store from happening (SDM Vol 1 8.5). */
static bool is_store_withheld(const struct insn *insn, const struct fxsave *after)
{
    return unit_of(insn) == UNIT_X87 && is_waiting(insn, UNIT_X87) && (fxsave_pending(after) & ~X87_PE) != 0;
}

static enum outcome raise_simd(struct vcpu *vcpu, uint32_t raised)
{
    struct fxsave image = fxsave_get(vcpu);

    image.mxcsr |= raised;
    fxsave_put(vcpu, &image);
    return vcpu_raise(vcpu, (vcpu->cr4 & CR4_OSXMMEXCPT) ? EXCEPTION_XM : EXCEPTION_UD);
}

static enum outcome run_native(struct vcpu *vcpu, const struct insn *insn)
{
    const struct fxsave before = fxsave_get(vcpu);
    _Alignas(16) struct fxsave image = before;
    struct native_run run;
    uint32_t raised;
    enum outcome outcome = native_begin(vcpu, insn, &run);

    if (outcome != OUTCOME_DONE)
        return outcome;
    image.mxcsr = sse_quiet_mxcsr(before.mxcsr);
    fxsave_set_summary(&image);
    run.context.fpu = (uint8_t *)&image;
    native_execute(&run);

    raised = sse_raised(insn, before.mxcsr, &image);
    if (raised & ~(before.mxcsr >> MXCSR_MASKS_SHIFT))
        return raise_simd(vcpu, raised);
    if (is_store_withheld(insn, &image))
        run.memory = NULL;
    outcome = native_commit(vcpu, &run);
    if (outcome != OUTCOME_DONE)
        return outcome;
    set_pointers(vcpu, insn, &run, &before, &image);
    image.mxcsr = before.mxcsr | raised;
    fxsave_put(vcpu, &image);
    return vcpu_finish(vcpu, insn);
}

enum outcome handle_fpu(struct vcpu *vcpu, const struct insn *insn)
{
    enum outcome outcome = check_available(vcpu, insn, unit_of(insn));

    if (outcome != OUTCOME_DONE)
        return outcome;
    switch (insn->mnemonic) {
    case ZYDIS_MNEMONIC_FWAIT:
        return vcpu_finish(vcpu, insn);
    case ZYDIS_MNEMONIC_FNSTENV:
        return fpu_save_environment(vcpu, insn);
    case ZYDIS_MNEMONIC_FLDENV:
        return fpu_restore_environment(vcpu, insn);
    case ZYDIS_MNEMONIC_FNSAVE:
        return fpu_save(vcpu, insn);
    case ZYDIS_MNEMONIC_FRSTOR:
        return fpu_restore(vcpu, insn);
    case ZYDIS_MNEMONIC_FXSAVE:
        return fpu_fxsave(vcpu, insn);
    case ZYDIS_MNEMONIC_FXRSTOR:
        return fpu_fxrstor(vcpu, insn);
    case ZYDIS_MNEMONIC_LDMXCSR:
        return fpu_load_mxcsr(vcpu, insn);
    case ZYDIS_MNEMONIC_STMXCSR:
        return fpu_store_mxcsr(vcpu, insn);
    case ZYDIS_MNEMONIC_MASKMOVQ:
    case ZYDIS_MNEMONIC_MASKMOVDQU:
        return fpu_masked_store(vcpu, insn);
    default:
        return run_native(vcpu, insn);
    }
}
