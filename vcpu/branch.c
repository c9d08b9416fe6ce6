/*
 * Near transfers of control: JMP, CALL, RET, Jcc, LOOPcc, JCXZ. The target is truncated to the operand size
 * and must lie within CS before anything changes (SDM Vol 1 6.4.1; Vol 2 of each).
 *
 * Read next: string.c.
 */
#include <Zydis/Zydis.h>

#include "vcpu/internal.h"
#include "vcpu/ordinary.h"

static uint32_t next_eip(const struct vcpu *vcpu, const struct insn *insn)
{
    return vcpu->eip + insn->length;
}

static enum outcome check_target(struct vcpu *vcpu, const struct insn *insn, uint32_t *target)
{
    if (insn->operand_size == 2)
        *target &= 0xffff;
    if (*target > vcpu->segment[SEG_CS].limit)
        return vcpu_raise_error(vcpu, EXCEPTION_GP, 0);
    return OUTCOME_DONE;
}

/* Operand 0: a displacement, or an absolute offset in a register or memory. */
static enum outcome read_target(struct vcpu *vcpu, const struct insn *insn, uint32_t *target)
{
    const struct operand *operand = &insn->operand[0];
    enum outcome outcome = OUTCOME_DONE;

    if (operand->kind == OPERAND_RELATIVE)
        *target = next_eip(vcpu, insn) + (uint32_t)operand->immediate;
    else
        outcome = vcpu_operand_read(vcpu, insn, operand, target);
    return outcome == OUTCOME_DONE ? check_target(vcpu, insn, target) : outcome;
}

static enum outcome jump_if(struct vcpu *vcpu, const struct insn *insn, bool is_taken)
{
    uint32_t target;
    enum outcome outcome;

    if (!is_taken)
        return vcpu_finish(vcpu, insn);
    outcome = read_target(vcpu, insn, &target);
    if (outcome == OUTCOME_DONE)
        vcpu->eip = target;
    return outcome;
}

/* The low four bits of a conditional opcode; odd: the negation (SDM Vol 1 appendix B). */
static bool is_condition_true(uint32_t eflags, unsigned condition)
{
    bool less = !(eflags & EFLAGS_SF) != !(eflags & EFLAGS_OF);
    bool is_true;

    switch (condition >> 1) {
    case 0:
        is_true = eflags & EFLAGS_OF;
        break;
    case 1:
        is_true = eflags & EFLAGS_CF;
        break;
    case 2:
        is_true = eflags & EFLAGS_ZF;
        break;
    case 3:
        is_true = eflags & (EFLAGS_CF | EFLAGS_ZF);
        break;
    case 4:
        is_true = eflags & EFLAGS_SF;
        break;
    case 5:
        is_true = eflags & EFLAGS_PF;
        break;
    case 6:
        is_true = less;
        break;
    default:
        is_true = less || (eflags & EFLAGS_ZF);
    }
    return is_true != (condition & 1);
}

/* LOOP and JCXZ count in ECX or CX, by the address size. */
static uint32_t count_mask(const struct insn *insn)
{
    return insn->address_size == 2 ? 0xffff : 0xffffffff;
}

static enum outcome loop(struct vcpu *vcpu, const struct insn *insn, bool condition)
{
    uint32_t mask = count_mask(insn);
    uint32_t count = (vcpu->gpr[ECX] - 1) & mask;
    enum outcome outcome = jump_if(vcpu, insn, count != 0 && condition);

    if (outcome == OUTCOME_DONE)
        vcpu->gpr[ECX] = (vcpu->gpr[ECX] & ~mask) | count;
    return outcome;
}

static enum outcome call(struct vcpu *vcpu, const struct insn *insn)
{
    struct stack stack = vcpu_current_stack(vcpu);
    uint32_t target;
    enum outcome outcome = read_target(vcpu, insn, &target);

    if (outcome == OUTCOME_DONE)
        outcome = vcpu_stack_push(vcpu, &stack, next_eip(vcpu, insn), insn->operand_size);
    if (outcome != OUTCOME_DONE)
        return outcome;
    vcpu_commit_stack_pointer(vcpu, &stack);
    vcpu->eip = target;
    return OUTCOME_DONE;
}

static enum outcome ret(struct vcpu *vcpu, const struct insn *insn)
{
    struct stack stack = vcpu_current_stack(vcpu);
    uint32_t target;
    enum outcome outcome = vcpu_stack_pop(vcpu, &stack, &target, insn->operand_size);

    if (outcome == OUTCOME_DONE)
        outcome = check_target(vcpu, insn, &target);
    if (outcome != OUTCOME_DONE)
        return outcome;
    if (insn->immediate_length != 0)
        vcpu_stack_skip(&stack, (uint16_t)insn->operand[0].immediate);
    vcpu_commit_stack_pointer(vcpu, &stack);
    vcpu->eip = target;
    return OUTCOME_DONE;
}

enum outcome ordinary_branch(struct vcpu *vcpu, const struct insn *insn)
{
    switch (insn->mnemonic) {
    case ZYDIS_MNEMONIC_JMP:
        return jump_if(vcpu, insn, true);
    case ZYDIS_MNEMONIC_CALL:
        return call(vcpu, insn);
    case ZYDIS_MNEMONIC_RET:
        return ret(vcpu, insn);
    case ZYDIS_MNEMONIC_LOOP:
        return loop(vcpu, insn, true);
    case ZYDIS_MNEMONIC_LOOPE:
        return loop(vcpu, insn, (vcpu->eflags & EFLAGS_ZF) != 0);
    case ZYDIS_MNEMONIC_LOOPNE:
        return loop(vcpu, insn, !(vcpu->eflags & EFLAGS_ZF));
    case ZYDIS_MNEMONIC_JCXZ:
    case ZYDIS_MNEMONIC_JECXZ:
        return jump_if(vcpu, insn, (vcpu->gpr[ECX] & count_mask(insn)) == 0);
    default: /* 70-7F and 0F 80-8F are all that is left */
        return jump_if(vcpu, insn, is_condition_true(vcpu->eflags, insn->opcode & 0x0f));
    }
}
