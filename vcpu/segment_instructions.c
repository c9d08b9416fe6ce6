/*
 * The instructions that move selectors: MOV, PUSH and POP of segment registers, LDS and its kin.
 *
 * Read next: table_instructions.c (GDTR, LDTR, TR and the questions about descriptors).
 */
#include <string.h>

#include "vcpu/internal.h"
#include "vcpu/segment.h"

enum outcome handle_mov_to_segment(struct vcpu *vcpu, const struct insn *insn)
{
    enum segment_index index = insn->operand[0].reg.index;
    struct segment segment;
    uint32_t selector;
    enum outcome outcome;

    if (index == SEG_CS)
        return vcpu_raise(vcpu, EXCEPTION_UD);
    outcome = vcpu_operand_read(vcpu, insn, &insn->operand[1], &selector);
    if (outcome == OUTCOME_DONE)
        outcome = segment_check_load(vcpu, index, (uint16_t)selector, &segment);
    if (outcome != OUTCOME_DONE)
        return outcome;

    vcpu->segment[index] = segment;
    if (index == SEG_SS)
        vcpu->interrupt_shadow = SHADOW_MOV_SS;
    return vcpu_finish(vcpu, insn);
}

enum outcome handle_mov_from_segment(struct vcpu *vcpu, const struct insn *insn)
{
    enum outcome outcome =
        vcpu_operand_write(vcpu, insn, &insn->operand[0], vcpu->segment[insn->operand[1].reg.index].selector);

    return outcome == OUTCOME_DONE ? vcpu_finish(vcpu, insn) : outcome;
}

/* PUSH and POP have the register in the opcode: 06 0E 16 1E, 0F A0 and 0F A8 (07 .. 0F A9). */
static enum segment_index segment_of_opcode(const struct insn *insn)
{
    return insn->opcode >> 3 & 7;
}

/* With a 32-bit operand size ESP moves by four, but only the selector's two bytes are touched: SDM Vol 2 PUSH
 * gives the choice, and says that this is what today's processors do (so this is also what an unpatched PUSH
 * does here). */
enum outcome handle_push_segment(struct vcpu *vcpu, const struct insn *insn)
{
    struct stack stack = vcpu_current_stack(vcpu);
    enum outcome outcome;

    vcpu_stack_skip(&stack, 2 - insn->operand_size);
    outcome = vcpu_stack_push(vcpu, &stack, vcpu->segment[segment_of_opcode(insn)].selector, 2);
    if (outcome != OUTCOME_DONE)
        return outcome;
    vcpu_commit_stack_pointer(vcpu, &stack);
    return vcpu_finish(vcpu, insn);
}

/* Here the whole operand is read (SDM Vol 2B POP, "copy a doubleword"), and must be within the limit. */
enum outcome handle_pop_segment(struct vcpu *vcpu, const struct insn *insn)
{
    enum segment_index index = segment_of_opcode(insn);
    struct stack stack = vcpu_current_stack(vcpu);
    struct segment segment;
    uint32_t selector;
    enum outcome outcome = vcpu_stack_pop(vcpu, &stack, &selector, insn->operand_size);

    if (outcome == OUTCOME_DONE)
        outcome = segment_check_load(vcpu, index, (uint16_t)selector, &segment);
    if (outcome != OUTCOME_DONE)
        return outcome;

    vcpu_commit_stack_pointer(vcpu, &stack);
    vcpu->segment[index] = segment;
    if (index == SEG_SS)
        vcpu->interrupt_shadow = SHADOW_MOV_SS;
    return vcpu_finish(vcpu, insn);
}

/* LES is C4, LDS C5; the others have the register in the low bits: 0F B2, 0F B4, 0F B5. */
static enum segment_index segment_of_far_load(const struct insn *insn)
{
    if (insn->opcode_map == 0)
        return insn->opcode == 0xc4 ? SEG_ES : SEG_DS;
    return insn->opcode & 7;
}

enum outcome handle_load_far_pointer(struct vcpu *vcpu, const struct insn *insn)
{
    enum segment_index index = segment_of_far_load(insn);
    const struct operand *source = &insn->operand[1];
    struct segment segment;
    uint8_t pointer[6];
    uint32_t offset = 0;
    uint16_t selector;
    enum outcome outcome = vcpu_read(vcpu, source->mem.segment, vcpu_effective_address(vcpu, insn, source),
                                     pointer, insn->operand_size + 2);

    if (outcome != OUTCOME_DONE)
        return outcome;
    memcpy(&offset, pointer, insn->operand_size);
    memcpy(&selector, pointer + insn->operand_size, sizeof selector);
    outcome = segment_check_load(vcpu, index, selector, &segment);
    if (outcome == OUTCOME_DONE) /* a register: cannot fail */
        outcome = vcpu_operand_write(vcpu, insn, &insn->operand[0], offset);
    if (outcome != OUTCOME_DONE)
        return outcome;
    vcpu->segment[index] = segment;
    return vcpu_finish(vcpu, insn);
}
