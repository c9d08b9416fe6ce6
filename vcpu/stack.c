/*
 * PUSH, POP, PUSHA, POPA, ENTER, LEAVE. 64-bit mode pushes 8 bytes or has them not at all, so they are
 * written out (SDM Vol 2). Every one works on a copy of the stack (internal.h) and commits ESP last.
 *
 * Read next: branch.c.
 */
#include <Zydis/Zydis.h>

#include "vcpu/internal.h"
#include "vcpu/ordinary.h"
#include "vcpu/segment.h"

static enum outcome push(struct vcpu *vcpu, const struct insn *insn)
{
    struct stack stack = vcpu_current_stack(vcpu);
    uint32_t value; /* of ESP itself: as it was before */
    enum outcome outcome = vcpu_operand_read(vcpu, insn, &insn->operand[0], &value);

    if (outcome == OUTCOME_DONE)
        outcome = vcpu_stack_push(vcpu, &stack, value, insn->operand_size);
    if (outcome != OUTCOME_DONE)
        return outcome;
    vcpu_commit_stack_pointer(vcpu, &stack);
    return vcpu_finish(vcpu, insn);
}

/* A destination in memory is addressed with the incremented ESP; POP ESP overwrites it (SDM Vol 2B). */
static enum outcome pop(struct vcpu *vcpu, const struct insn *insn)
{
    const uint32_t old_esp = vcpu->gpr[ESP];
    struct stack stack = vcpu_current_stack(vcpu);
    uint32_t value;
    enum outcome outcome = vcpu_stack_pop(vcpu, &stack, &value, insn->operand_size);

    if (outcome != OUTCOME_DONE)
        return outcome;
    vcpu_commit_stack_pointer(vcpu, &stack);
    outcome = vcpu_operand_write(vcpu, insn, &insn->operand[0], value);
    if (outcome != OUTCOME_DONE) {
        vcpu->gpr[ESP] = old_esp;
        return outcome;
    }
    return vcpu_finish(vcpu, insn);
}

/* Where segments are paragraphs, and SP is one of these, PUSHA runs against the end of the segment half-way
 * through: #GP (SDM Vol 2B PUSHA), not the #SS of its pushes. With SP 1, 3 or 5 it is #SS, which has no room
 * to be delivered either. */
static bool is_refused_as_a_whole(const struct vcpu *vcpu)
{
    uint32_t sp = vcpu->gpr[ESP] & 0xffff;

    return !segment_uses_descriptors(vcpu) && (sp & 1) && sp >= 7 && sp <= 15;
}

/* EAX first. One by one, so that CR2 names the push that faulted; what is written below ESP does no harm. */
static enum outcome push_all(struct vcpu *vcpu, const struct insn *insn)
{
    struct stack stack = vcpu_current_stack(vcpu);

    if (is_refused_as_a_whole(vcpu))
        return vcpu_raise_error(vcpu, EXCEPTION_GP, 0);
    for (unsigned i = 0; i < GPR_COUNT; i++) {
        enum outcome outcome = vcpu_stack_push(vcpu, &stack, vcpu->gpr[i], insn->operand_size);

        if (outcome != OUTCOME_DONE)
            return outcome;
    }
    vcpu_commit_stack_pointer(vcpu, &stack);
    return vcpu_finish(vcpu, insn);
}

static enum outcome pop_all(struct vcpu *vcpu, const struct insn *insn)
{
    const uint32_t mask = insn->operand_size == 2 ? 0xffff : 0xffffffff;
    struct stack stack = vcpu_current_stack(vcpu);
    uint32_t values[GPR_COUNT]; /* EDI first */
    enum outcome outcome = vcpu_stack_pop_frame(vcpu, &stack, values, GPR_COUNT, insn->operand_size);

    if (outcome != OUTCOME_DONE)
        return outcome;
    for (unsigned i = 0; i < GPR_COUNT; i++) {
        if (i != ESP) /* the value saved for it is skipped */
            vcpu->gpr[i] = (vcpu->gpr[i] & ~mask) | (values[GPR_COUNT - 1 - i] & mask);
    }
    vcpu_commit_stack_pointer(vcpu, &stack);
    return vcpu_finish(vcpu, insn);
}

static uint32_t merge(uint32_t old, uint32_t value, unsigned size)
{
    return size == 2 ? (old & 0xffff0000u) | (value & 0xffff) : value;
}

static unsigned stack_address_size(const struct vcpu *vcpu)
{
    return (vcpu->segment[SEG_SS].attributes & SEGMENT_DB) ? 4 : 2;
}

/* The display of a nested procedure: the frame pointers of the levels around it, from the caller's frame. */
static enum outcome push_display(struct vcpu *vcpu, struct stack *stack, unsigned levels, unsigned size)
{
    uint32_t frame = vcpu->gpr[EBP];

    for (unsigned i = 0; i < levels; i++) {
        uint32_t pointer = 0;
        enum outcome outcome;

        frame = merge(frame, frame - size, stack_address_size(vcpu));
        outcome =
            vcpu_read(vcpu, SEG_SS, stack_address_size(vcpu) == 2 ? frame & 0xffff : frame, &pointer, size);
        if (outcome == OUTCOME_DONE)
            outcome = vcpu_stack_push(vcpu, stack, pointer, size);
        if (outcome != OUTCOME_DONE)
            return outcome;
    }
    return OUTCOME_DONE;
}

/* SDM Vol 2A ENTER: it faults too if the final top of the stack could not be written. */
static enum outcome enter(struct vcpu *vcpu, const struct insn *insn)
{
    const unsigned size = insn->operand_size;
    const uint16_t locals = (uint16_t)insn->operand[0].immediate;
    const unsigned level = insn->operand[1].immediate & 31;
    struct stack stack = vcpu_current_stack(vcpu);
    uint32_t frame;
    gva_t linear;
    enum outcome outcome = vcpu_stack_push(vcpu, &stack, vcpu->gpr[EBP], size);

    if (outcome != OUTCOME_DONE)
        return outcome;
    frame = stack.pointer;
    if (level > 0) {
        outcome = push_display(vcpu, &stack, level - 1, size);
        if (outcome == OUTCOME_DONE)
            outcome = vcpu_stack_push(vcpu, &stack, frame, size);
        if (outcome != OUTCOME_DONE)
            return outcome;
    }
    vcpu_stack_skip(&stack, -(uint32_t)locals);

    outcome = vcpu_segment_check(vcpu, SEG_SS,
                                 stack_address_size(vcpu) == 2 ? stack.pointer & 0xffff : stack.pointer, size,
                                 ACCESS_WRITE, &linear);
    if (outcome == OUTCOME_DONE)
        outcome = vcpu_access(vcpu, linear, NULL, size,
                              ACCESS_WRITE | ACCESS_PROBE | vcpu_access_rights(vcpu->cpl));
    if (outcome != OUTCOME_DONE)
        return outcome;
    vcpu->gpr[EBP] = merge(vcpu->gpr[EBP], frame, size);
    vcpu_commit_stack_pointer(vcpu, &stack);
    return vcpu_finish(vcpu, insn);
}

static enum outcome leave(struct vcpu *vcpu, const struct insn *insn)
{
    struct stack stack = vcpu_current_stack(vcpu);
    uint32_t value;
    enum outcome outcome;

    stack.pointer = merge(stack.pointer, vcpu->gpr[EBP], stack_address_size(vcpu));
    outcome = vcpu_stack_pop(vcpu, &stack, &value, insn->operand_size);
    if (outcome != OUTCOME_DONE)
        return outcome;
    vcpu->gpr[EBP] = merge(vcpu->gpr[EBP], value, insn->operand_size);
    vcpu_commit_stack_pointer(vcpu, &stack);
    return vcpu_finish(vcpu, insn);
}

enum outcome ordinary_stack(struct vcpu *vcpu, const struct insn *insn)
{
    switch (insn->mnemonic) {
    case ZYDIS_MNEMONIC_PUSH:
        return push(vcpu, insn);
    case ZYDIS_MNEMONIC_POP:
        return pop(vcpu, insn);
    case ZYDIS_MNEMONIC_PUSHA:
    case ZYDIS_MNEMONIC_PUSHAD:
        return push_all(vcpu, insn);
    case ZYDIS_MNEMONIC_POPA:
    case ZYDIS_MNEMONIC_POPAD:
        return pop_all(vcpu, insn);
    case ZYDIS_MNEMONIC_ENTER:
        return enter(vcpu, insn);
    case ZYDIS_MNEMONIC_LEAVE:
        return leave(vcpu, insn);
    default:
        return OUTCOME_UNKNOWN;
    }
}
