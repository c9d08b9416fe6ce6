/*
 * CLI, STI, PUSHF, POPF: IF, and who may change it. On a real CPU ring 3 faults on the first two and lets the
 * last one pass with IF unchanged: the hole that Popek and Goldberg's theorem is famous for. Here all four
 * see the virtual CPL and IOPL. CR4.VME and CR4.PVI do not exist in the CPUID profile.
 *
 * Read next: control.c.
 */
#include "vcpu/internal.h"

/* What POPF changes at any privilege (SDM Vol 2B, POPF). */
#define POPF_FREE                                                                                            \
    (EFLAGS_CF | EFLAGS_PF | EFLAGS_AF | EFLAGS_ZF | EFLAGS_SF | EFLAGS_TF | EFLAGS_DF | EFLAGS_OF |         \
     EFLAGS_NT | EFLAGS_AC | EFLAGS_ID)

static unsigned vcpu_iopl(const struct vcpu *vcpu)
{
    return (vcpu->eflags & EFLAGS_IOPL) >> EFLAGS_IOPL_SHIFT;
}

/* SDM Vol 1 19.5.2; in virtual-8086 mode CPL is 3, so the same comparison serves. */
static bool may_change_if(const struct vcpu *vcpu)
{
    return vcpu->cpl <= vcpu_iopl(vcpu);
}

static bool may_touch_flags(const struct vcpu *vcpu)
{
    return !vcpu_is_v8086(vcpu) || vcpu_iopl(vcpu) == 3;
}

enum outcome handle_cli(struct vcpu *vcpu, const struct insn *insn)
{
    if (!may_change_if(vcpu))
        return vcpu_raise_error(vcpu, EXCEPTION_GP, 0);
    vcpu->eflags &= ~EFLAGS_IF;
    return vcpu_finish(vcpu, insn);
}

enum outcome handle_sti(struct vcpu *vcpu, const struct insn *insn)
{
    if (!may_change_if(vcpu))
        return vcpu_raise_error(vcpu, EXCEPTION_GP, 0);
    if (!(vcpu->eflags & EFLAGS_IF))
        vcpu->interrupt_shadow = SHADOW_STI;
    vcpu->eflags |= EFLAGS_IF;
    return vcpu_finish(vcpu, insn);
}

enum outcome handle_pushf(struct vcpu *vcpu, const struct insn *insn)
{
    struct stack stack = vcpu_current_stack(vcpu);
    enum outcome outcome;

    if (!may_touch_flags(vcpu))
        return vcpu_raise_error(vcpu, EXCEPTION_GP, 0);
    outcome = vcpu_stack_push(vcpu, &stack, vcpu->eflags & ~(EFLAGS_VM | EFLAGS_RF), insn->operand_size);
    if (outcome != OUTCOME_DONE)
        return outcome;
    vcpu_commit_stack_pointer(vcpu, &stack);
    return vcpu_finish(vcpu, insn);
}

enum outcome handle_popf(struct vcpu *vcpu, const struct insn *insn)
{
    struct stack stack = vcpu_current_stack(vcpu);
    uint32_t value, changeable = POPF_FREE;
    enum outcome outcome;

    if (!may_touch_flags(vcpu))
        return vcpu_raise_error(vcpu, EXCEPTION_GP, 0);
    outcome = vcpu_stack_pop(vcpu, &stack, &value, insn->operand_size);
    if (outcome != OUTCOME_DONE)
        return outcome;

    if (may_change_if(vcpu))
        changeable |= EFLAGS_IF;
    if (vcpu->cpl == 0)
        changeable |= EFLAGS_IOPL;
    if (insn->operand_size == 2)
        changeable &= 0xffff;
    vcpu->eflags = (vcpu->eflags & ~changeable) | (value & changeable);
    vcpu_commit_stack_pointer(vcpu, &stack);
    return vcpu_finish(vcpu, insn);
}
