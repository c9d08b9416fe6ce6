/*
 * The ways back: RET far and IRET, to the same or an outer ring, to virtual-8086 mode, to the interrupted
 * task (SDM Vol 3A 5.8.6, 6.12.1; the steps are those of Vol 2 RET and IRET).
 *
 * Read next: flat_switch.c.
 */
#include "vcpu/flat_switch.h"
#include "vcpu/internal.h"
#include "vcpu/segment.h"
#include "vcpu/task.h"

/* ---- to a code segment in protected mode -------------------------------------------------------------- */

static enum outcome check_code(struct vcpu *vcpu, uint16_t selector, struct descriptor *code)
{
    unsigned rpl = selector & SELECTOR_RPL, dpl;
    enum outcome outcome;

    if (selector_is_null(selector))
        return vcpu_raise_error(vcpu, EXCEPTION_GP, 0);
    outcome = descriptor_fetch(vcpu, selector, EXCEPTION_GP, 0, code);
    if (outcome != OUTCOME_DONE)
        return outcome;
    dpl = descriptor_dpl(code);
    if (!descriptor_is_code(code) || rpl < vcpu->cpl ||
        (descriptor_is_conforming(code) ? dpl > rpl : dpl != rpl))
        return vcpu_raise_error(vcpu, EXCEPTION_GP, selector_error(selector, 0));
    if (!descriptor_is_present(code))
        return vcpu_raise_error(vcpu, EXCEPTION_NP, selector_error(selector, 0));
    return OUTCOME_DONE;
}

/* Pops SS:ESP of the outer ring off `stack` and puts them in its place. */
static enum outcome pop_outer_stack(struct vcpu *vcpu, struct stack *stack, unsigned cpl, unsigned size)
{
    uint32_t frame[2]; /* ESP, SS */
    struct segment ss;
    enum outcome outcome = vcpu_stack_pop_frame(vcpu, stack, frame, 2, size);

    if (outcome == OUTCOME_DONE)
        outcome = segment_check_stack(vcpu, (uint16_t)frame[1], cpl, EXCEPTION_GP, 0, &ss);
    if (outcome != OUTCOME_DONE)
        return outcome;

    /* A stack that is addressed by SP gets SP only: the upper half of ESP stays the inner ring's. */
    stack->pointer =
        (ss.attributes & SEGMENT_DB) ? frame[0] : (vcpu->gpr[ESP] & 0xffff0000u) | (frame[0] & 0xffff);
    stack->segment = ss;
    stack->cpl = (uint8_t)cpl;
    return OUTCOME_DONE;
}

/* The common end of RET and IRET, whose frame up to CS or EFLAGS is popped off `stack`. RET n takes n bytes
 * of parameters off both stacks. */
static enum outcome return_to_code(struct vcpu *vcpu, uint16_t selector, uint32_t eip, struct stack *stack,
                                   unsigned size, uint32_t n_parameter_bytes)
{
    unsigned cpl = selector & SELECTOR_RPL;
    struct descriptor code;
    struct segment cs;
    bool is_outer = cpl > vcpu->cpl;
    enum outcome outcome = check_code(vcpu, selector, &code);

    vcpu_stack_skip(stack, n_parameter_bytes);
    if (outcome == OUTCOME_DONE && is_outer) {
        outcome = pop_outer_stack(vcpu, stack, cpl, size);
        vcpu_stack_skip(stack, n_parameter_bytes);
    }
    if (outcome != OUTCOME_DONE)
        return outcome;
    cs = descriptor_segment(&code, selector);
    if (eip > cs.limit)
        return vcpu_raise_error(vcpu, EXCEPTION_GP, 0);
    outcome = descriptor_mark_accessed(vcpu, &code);
    if (outcome != OUTCOME_DONE)
        return outcome;

    vcpu->segment[SEG_CS] = descriptor_segment(&code, selector);
    vcpu->eip = eip;
    vcpu->cpl = (uint8_t)cpl;
    vcpu->segment[SEG_SS] = stack->segment;
    vcpu_commit_stack_pointer(vcpu, stack);
    if (is_outer)
        segment_drop_inaccessible(vcpu, cpl);
    return OUTCOME_DONE;
}

/* The same in real and virtual-8086 mode. */
static enum outcome return_to_paragraph(struct vcpu *vcpu, uint16_t selector, uint32_t eip,
                                        const struct stack *stack)
{
    struct segment cs = segment_of_paragraph(selector, vcpu_is_v8086(vcpu), &vcpu->segment[SEG_CS]);

    if (eip > cs.limit)
        return vcpu_raise_error(vcpu, EXCEPTION_GP, 0);
    vcpu->segment[SEG_CS] = cs;
    vcpu->eip = eip;
    vcpu_commit_stack_pointer(vcpu, stack);
    return OUTCOME_DONE;
}

/* ---- RET far ------------------------------------------------------------------------------------------ */

enum outcome handle_far_return(struct vcpu *vcpu, const struct insn *insn)
{
    uint32_t n_parameter_bytes =
        insn->operand[0].kind == OPERAND_IMMEDIATE ? insn->operand[0].immediate & 0xffff : 0;
    struct stack stack = vcpu_current_stack(vcpu);
    uint32_t frame[2]; /* EIP, CS */
    enum outcome outcome = vcpu_stack_pop_frame(vcpu, &stack, frame, 2, insn->operand_size);

    if (outcome != OUTCOME_DONE)
        return outcome;
    if (segment_uses_descriptors(vcpu))
        return return_to_code(vcpu, (uint16_t)frame[1], frame[0], &stack, insn->operand_size,
                              n_parameter_bytes);
    vcpu_stack_skip(&stack, n_parameter_bytes);
    return return_to_paragraph(vcpu, (uint16_t)frame[1], frame[0], &stack);
}

/* ---- IRET ---------------------------------------------------------------------------------------------- */

#define EFLAGS_ARITHMETIC (EFLAGS_CF | EFLAGS_PF | EFLAGS_AF | EFLAGS_ZF | EFLAGS_SF | EFLAGS_OF)
/* What IRET sets at any privilege, with a 16- and a 32-bit operand. */
#define EFLAGS_ALWAYS    (EFLAGS_ARITHMETIC | EFLAGS_TF | EFLAGS_DF | EFLAGS_NT)
#define EFLAGS_ALWAYS_32 (EFLAGS_RF | EFLAGS_AC | EFLAGS_ID)

/* The bits of EFLAGS that IRET may change, by mode and by the privilege it runs at. */
static uint32_t changeable_flags(const struct vcpu *vcpu, unsigned size)
{
    unsigned iopl = (vcpu->eflags & EFLAGS_IOPL) >> EFLAGS_IOPL_SHIFT;
    uint32_t flags = EFLAGS_ALWAYS | EFLAGS_ALWAYS_32;

    if (!vcpu_is_protected(vcpu)) {
        flags |= EFLAGS_IF | EFLAGS_IOPL;
    } else if (vcpu_is_v8086(vcpu)) {
        flags |= EFLAGS_IF; /* IOPL is 3 here */
    } else {
        if (vcpu->cpl <= iopl)
            flags |= EFLAGS_IF;
        if (vcpu->cpl == 0)
            flags |= EFLAGS_IOPL | EFLAGS_VIF | EFLAGS_VIP;
    }
    return size == 2 ? flags & 0xffff : flags;
}

/* The nine values of the frame that an interrupt out of virtual-8086 mode leaves, in the order popped. */
enum v8086_frame { V86_EIP, V86_CS, V86_EFLAGS, V86_ESP, V86_SS, V86_ES, V86_DS, V86_FS, V86_GS, V86_COUNT };

static enum outcome return_to_v8086(struct vcpu *vcpu)
{
    static const uint8_t selectors[SEG_COUNT] = {V86_ES, V86_CS, V86_SS, V86_DS, V86_FS, V86_GS};
    struct stack stack = vcpu_current_stack(vcpu);
    uint32_t frame[V86_COUNT];
    enum outcome outcome = vcpu_stack_pop_frame(vcpu, &stack, frame, V86_COUNT, 4);

    if (outcome != OUTCOME_DONE)
        return outcome;
    if (frame[V86_EIP] > 0xffff)
        return vcpu_raise_error(vcpu, EXCEPTION_GP, 0);

    for (unsigned i = 0; i < SEG_COUNT; i++)
        vcpu->segment[i] = segment_of_paragraph((uint16_t)frame[selectors[i]], true, &vcpu->segment[i]);
    vcpu->eip = frame[V86_EIP];
    vcpu->gpr[ESP] = frame[V86_ESP];
    vcpu->eflags = (frame[V86_EFLAGS] & EFLAGS_DEFINED) | EFLAGS_FIXED;
    vcpu->cpl = 3;
    return OUTCOME_DONE;
}

static void set_flags(struct vcpu *vcpu, uint32_t flags, uint32_t changeable)
{
    vcpu->eflags = (vcpu->eflags & ~changeable) | (flags & changeable);
}

static enum outcome return_from_interrupt(struct vcpu *vcpu, unsigned size)
{
    const uint32_t changeable = changeable_flags(vcpu, size);
    struct stack stack;
    uint32_t frame[3]; /* EIP, CS, EFLAGS */
    enum outcome outcome;

    if (size == 4 && flat_return(vcpu, &frame[2])) {
        set_flags(vcpu, frame[2], changeable);
        return OUTCOME_DONE;
    }
    stack = vcpu_current_stack(vcpu);
    outcome = vcpu_stack_pop_frame(vcpu, &stack, frame, 3, size);
    if (outcome != OUTCOME_DONE)
        return outcome;
    if (!segment_uses_descriptors(vcpu))
        outcome = return_to_paragraph(vcpu, (uint16_t)frame[1], frame[0], &stack);
    else if ((frame[2] & EFLAGS_VM) && vcpu->cpl == 0)
        return return_to_v8086(vcpu);
    else
        outcome = return_to_code(vcpu, (uint16_t)frame[1], frame[0], &stack, size, 0);
    if (outcome == OUTCOME_DONE)
        set_flags(vcpu, frame[2], changeable);
    return outcome;
}

enum outcome handle_iret(struct vcpu *vcpu, const struct insn *insn)
{
    if (vcpu_is_v8086(vcpu) && (vcpu->eflags & EFLAGS_IOPL) != EFLAGS_IOPL)
        return vcpu_raise_error(vcpu, EXCEPTION_GP, 0);
    /* Even if it faults: the handler of that fault is on its own (SDM Vol 3A 6.7.1). */
    vcpu->nmi_blocked = false;
    if (segment_uses_descriptors(vcpu) && (vcpu->eflags & EFLAGS_NT))
        return task_return(vcpu, vcpu->eip + insn->length);
    return return_from_interrupt(vcpu, insn->operand_size);
}
