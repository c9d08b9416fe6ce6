/*
 * The front door of emulation: finds the routine of an instruction, and keeps the rules that hold for every
 * instruction (internal.h lists them), so that no routine has to.
 *
 * Read next: flags.c for the shortest routines, ordinary.c for what is not sensitive.
 */
#include "vcpu/internal.h"
#include "vcpu/ordinary.h"

static enum outcome (*const handlers[HANDLE_COUNT])(struct vcpu *, const struct insn *) = {
#define SENSITIVE_HANDLER(name) [HANDLE_##name] = handle_##name,
#include "decode/sensitive_handlers.def"
#undef SENSITIVE_HANDLER
};

/* A lone handler for all that the CPUID profile leaves out. */
enum outcome handle_undefined(struct vcpu *vcpu, const struct insn *insn)
{
    (void)insn;
    return vcpu_raise(vcpu, EXCEPTION_UD);
}

/* The instruction began with TF set (SDM Vol 3B 17.3.1.4). An iteration of a string instruction counts as
 * one. The instruction after MOV SS or POP SS is not separated from it. */
static enum outcome trap_single_step(struct vcpu *vcpu, const struct insn *insn, enum outcome outcome)
{
    bool is_interrupt = insn->sensitive != NULL && insn->sensitive->handler == HANDLE_interrupt;

    if (is_interrupt || vcpu->interrupt_shadow == SHADOW_MOV_SS)
        return outcome;
    return vcpu_raise_debug(vcpu, DR6_BS);
}

enum outcome vcpu_emulate(struct vcpu *vcpu, const struct insn *insn)
{
    const uint32_t old_eflags = vcpu->eflags;
    const uint8_t old_shadow = vcpu->interrupt_shadow;
    enum outcome outcome;

    vcpu->eflags &= ~EFLAGS_RF;
    vcpu->interrupt_shadow = SHADOW_NONE;
    if (insn->sensitive != NULL)
        outcome = handlers[insn->sensitive->handler](vcpu, insn);
    else
        outcome = ordinary_emulate(vcpu, insn);

    if (outcome == OUTCOME_DONE || outcome == OUTCOME_PARTIAL) {
        if (outcome == OUTCOME_PARTIAL)
            vcpu->eflags |= EFLAGS_RF;
        return (old_eflags & EFLAGS_TF) ? trap_single_step(vcpu, insn, outcome) : outcome;
    }
    /* As if it had not begun; but a trap (of a task switch) comes after its instruction. */
    if (outcome != OUTCOME_FAULT || !vcpu->fault.is_trap) {
        vcpu->eflags |= old_eflags & EFLAGS_RF;
        vcpu->interrupt_shadow = old_shadow;
    }
    return outcome;
}

bool vcpu_can_emulate(const struct insn *insn)
{
    return insn->sensitive != NULL || ordinary_is_known(insn);
}
