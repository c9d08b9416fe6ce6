/*
 * Far jumps and calls: to code, through call gates, to tasks (SDM Vol 3A 5.8; the steps are those of Vol 2
 * JMP and CALL).
 *
 * Read next: return.c.
 */
#include <string.h>

#include "vcpu/code_entry.h"
#include "vcpu/internal.h"
#include "vcpu/segment.h"
#include "vcpu/task.h"

struct transfer {
    bool is_call;
    uint16_t selector;
    uint32_t offset;
    uint32_t return_eip;
    unsigned size; /* of the operands: 2 or 4 */
};

static enum outcome read_target(struct vcpu *vcpu, const struct insn *insn, struct transfer *transfer)
{
    const struct operand *operand = &insn->operand[0];
    uint8_t pointer[6];
    enum outcome outcome;

    if (operand->kind == OPERAND_FAR) {
        transfer->selector = operand->far.selector;
        transfer->offset = operand->far.offset;
        return OUTCOME_DONE;
    }
    outcome = vcpu_read(vcpu, operand->mem.segment, vcpu_effective_address(vcpu, insn, operand), pointer,
                        insn->operand_size + 2);
    if (outcome != OUTCOME_DONE)
        return outcome;
    transfer->offset = 0;
    memcpy(&transfer->offset, pointer, insn->operand_size);
    memcpy(&transfer->selector, pointer + insn->operand_size, sizeof transfer->selector);
    return OUTCOME_DONE;
}

static void push_return_address(const struct vcpu *vcpu, const struct transfer *transfer,
                                struct code_entry *entry)
{
    if (!transfer->is_call)
        return;
    entry->frame[entry->n++] = vcpu->segment[SEG_CS].selector;
    entry->frame[entry->n++] = transfer->return_eip;
}

/* ---- real and virtual-8086 mode ----------------------------------------------------------------------- */

static enum outcome transfer_to_paragraph(struct vcpu *vcpu, const struct transfer *transfer)
{
    struct segment cs = segment_of_paragraph(transfer->selector, vcpu_is_v8086(vcpu), &vcpu->segment[SEG_CS]);
    struct stack stack = vcpu_current_stack(vcpu);
    uint32_t frame[] = {vcpu->segment[SEG_CS].selector, transfer->return_eip};
    unsigned n = transfer->is_call ? 2 : 0;
    enum outcome outcome = vcpu_stack_check_room(vcpu, &stack, n, transfer->size);

    if (outcome != OUTCOME_DONE)
        return outcome;
    if (transfer->offset > cs.limit)
        return vcpu_raise_error(vcpu, EXCEPTION_GP, 0);
    if (n > 0)
        outcome = vcpu_stack_push_frame(vcpu, &stack, frame, n, transfer->size);
    if (outcome != OUTCOME_DONE)
        return outcome;

    vcpu_commit_stack_pointer(vcpu, &stack);
    vcpu->segment[SEG_CS] = cs;
    vcpu->eip = transfer->offset;
    return OUTCOME_DONE;
}

/* ---- to code, at the same privilege ------------------------------------------------------------------- */

static enum outcome transfer_to_code(struct vcpu *vcpu, const struct transfer *transfer,
                                     const struct descriptor *code)
{
    unsigned rpl = transfer->selector & SELECTOR_RPL;
    unsigned dpl = descriptor_dpl(code);
    bool is_allowed =
        descriptor_is_conforming(code) ? dpl <= vcpu->cpl : rpl <= vcpu->cpl && dpl == vcpu->cpl;
    uint32_t frame[CODE_ENTRY_FRAME_MAX];
    struct code_entry entry = {
        .frame = frame,
        .code = *code,
        .selector = (uint16_t)((transfer->selector & ~SELECTOR_RPL) | vcpu->cpl),
        .eip = transfer->offset,
        .stack = vcpu_current_stack(vcpu),
        .size = transfer->size,
    };
    enum outcome outcome;

    if (!is_allowed)
        return vcpu_raise_error(vcpu, EXCEPTION_GP, selector_error(transfer->selector, 0));
    if (!descriptor_is_present(code))
        return vcpu_raise_error(vcpu, EXCEPTION_NP, selector_error(transfer->selector, 0));
    push_return_address(vcpu, transfer, &entry);
    outcome = code_entry_prepare(vcpu, &entry);
    if (outcome == OUTCOME_DONE)
        code_entry_commit(vcpu, &entry);
    return outcome;
}

/* ---- through a gate ----------------------------------------------------------------------------------- */

/* CPL and RPL must be allowed to use what the selector names: gates, and TSSs named directly. */
static enum outcome check_use(struct vcpu *vcpu, uint16_t selector, const struct descriptor *descriptor)
{
    unsigned dpl = descriptor_dpl(descriptor);

    if (dpl < vcpu->cpl || dpl < (selector & SELECTOR_RPL))
        return vcpu_raise_error(vcpu, EXCEPTION_GP, selector_error(selector, 0));
    return OUTCOME_DONE;
}

static enum outcome check_gate(struct vcpu *vcpu, uint16_t selector, const struct descriptor *gate)
{
    enum outcome outcome = check_use(vcpu, selector, gate);

    if (outcome == OUTCOME_DONE && !descriptor_is_present(gate))
        return vcpu_raise_error(vcpu, EXCEPTION_NP, selector_error(selector, 0));
    return outcome;
}

/* Only a call may go inward. */
static enum outcome check_gate_code(struct vcpu *vcpu, const struct transfer *transfer, uint16_t selector,
                                    struct descriptor *code)
{
    unsigned dpl;
    enum outcome outcome;

    if (selector_is_null(selector))
        return vcpu_raise_error(vcpu, EXCEPTION_GP, 0);
    outcome = descriptor_fetch(vcpu, selector, EXCEPTION_GP, 0, code);
    if (outcome != OUTCOME_DONE)
        return outcome;
    dpl = descriptor_dpl(code);
    if (!descriptor_is_code(code) || dpl > vcpu->cpl ||
        (!transfer->is_call && !descriptor_is_conforming(code) && dpl != vcpu->cpl))
        return vcpu_raise_error(vcpu, EXCEPTION_GP, selector_error(selector, 0));
    if (!descriptor_is_present(code))
        return vcpu_raise_error(vcpu, EXCEPTION_NP, selector_error(selector, 0));
    return OUTCOME_DONE;
}

/* The caller's SS:ESP and the parameters it pushed, in their old order, onto the inner stack. */
static enum outcome make_inner_frame(struct vcpu *vcpu, const struct descriptor *gate,
                                     struct code_entry *entry)
{
    unsigned n_parameters = gate_parameter_count(gate);
    struct stack outer = vcpu_current_stack(vcpu);
    uint32_t parameters[GATE_PARAMETERS_MAX];
    enum outcome outcome = OUTCOME_DONE;

    entry->frame[entry->n++] = vcpu->segment[SEG_SS].selector;
    entry->frame[entry->n++] = vcpu->gpr[ESP];
    if (n_parameters > 0)
        outcome = vcpu_stack_pop_frame(vcpu, &outer, parameters, n_parameters, entry->size);
    for (unsigned i = n_parameters; i > 0 && outcome == OUTCOME_DONE; i--)
        entry->frame[entry->n++] = parameters[i - 1];
    return outcome;
}

static enum outcome transfer_through_call_gate(struct vcpu *vcpu, const struct transfer *transfer,
                                               const struct descriptor *gate)
{
    uint32_t frame[CODE_ENTRY_FRAME_MAX];
    struct code_entry entry = {.frame = frame, .eip = gate_offset(gate), .size = gate_is_32bit(gate) ? 4 : 2};
    unsigned cpl = vcpu->cpl;
    enum outcome outcome = check_gate(vcpu, transfer->selector, gate);

    if (outcome == OUTCOME_DONE)
        outcome = check_gate_code(vcpu, transfer, gate_selector(gate), &entry.code);
    if (outcome != OUTCOME_DONE)
        return outcome;

    if (transfer->is_call && !descriptor_is_conforming(&entry.code))
        cpl = descriptor_dpl(&entry.code);
    entry.selector = (uint16_t)((gate_selector(gate) & ~SELECTOR_RPL) | cpl);
    if (cpl < vcpu->cpl) {
        outcome = task_inner_stack(vcpu, cpl, 0, &entry.stack);
        if (outcome == OUTCOME_DONE)
            outcome = make_inner_frame(vcpu, gate, &entry);
    } else {
        entry.stack = vcpu_current_stack(vcpu);
    }
    push_return_address(vcpu, transfer, &entry);
    if (outcome == OUTCOME_DONE)
        outcome = code_entry_prepare(vcpu, &entry);
    if (outcome == OUTCOME_DONE)
        code_entry_commit(vcpu, &entry);
    return outcome;
}

/* ---- to a task ---------------------------------------------------------------------------------------- */

static enum outcome transfer_to_task(struct vcpu *vcpu, const struct transfer *transfer, uint16_t selector)
{
    struct task_switch task = {
        .selector = selector,
        .cause = transfer->is_call ? TASK_CALL : TASK_JUMP,
        .return_eip = transfer->return_eip,
        .saved_eflags = vcpu->eflags,
    };
    enum outcome outcome = task_find_available(vcpu, selector, 0, &task.descriptor);

    return outcome == OUTCOME_DONE ? task_switch(vcpu, &task) : outcome;
}

static enum outcome transfer_through_task_gate(struct vcpu *vcpu, const struct transfer *transfer,
                                               const struct descriptor *gate)
{
    enum outcome outcome = check_gate(vcpu, transfer->selector, gate);

    return outcome == OUTCOME_DONE ? transfer_to_task(vcpu, transfer, gate_selector(gate)) : outcome;
}

static enum outcome transfer_to_tss(struct vcpu *vcpu, const struct transfer *transfer,
                                    const struct descriptor *tss)
{
    enum outcome outcome = check_use(vcpu, transfer->selector, tss);

    return outcome == OUTCOME_DONE ? transfer_to_task(vcpu, transfer, transfer->selector) : outcome;
}

/* ---- what the selector names -------------------------------------------------------------------------- */

static enum outcome transfer_by_descriptor(struct vcpu *vcpu, const struct transfer *transfer)
{
    struct descriptor descriptor;
    enum outcome outcome;

    if (selector_is_null(transfer->selector))
        return vcpu_raise_error(vcpu, EXCEPTION_GP, 0);
    outcome = descriptor_fetch(vcpu, transfer->selector, EXCEPTION_GP, 0, &descriptor);
    if (outcome != OUTCOME_DONE)
        return outcome;
    if (descriptor_is_code(&descriptor))
        return transfer_to_code(vcpu, transfer, &descriptor);
    switch (descriptor_system_type(&descriptor)) {
    case SYSTEM_CALL16:
    case SYSTEM_CALL32:
        return transfer_through_call_gate(vcpu, transfer, &descriptor);
    case SYSTEM_TASK_GATE:
        return transfer_through_task_gate(vcpu, transfer, &descriptor);
    case SYSTEM_TSS16:
    case SYSTEM_TSS32:
        return transfer_to_tss(vcpu, transfer, &descriptor);
    default: /* a busy TSS too: tasks are not re-entrant */
        return vcpu_raise_error(vcpu, EXCEPTION_GP, selector_error(transfer->selector, 0));
    }
}

static enum outcome transfer_far(struct vcpu *vcpu, const struct insn *insn, bool is_call)
{
    struct transfer transfer = {
        .is_call = is_call,
        .return_eip = vcpu->eip + insn->length,
        .size = insn->operand_size,
    };
    enum outcome outcome = read_target(vcpu, insn, &transfer);

    if (outcome != OUTCOME_DONE)
        return outcome;
    return segment_uses_descriptors(vcpu) ? transfer_by_descriptor(vcpu, &transfer)
                                          : transfer_to_paragraph(vcpu, &transfer);
}

enum outcome handle_far_jump(struct vcpu *vcpu, const struct insn *insn)
{
    return transfer_far(vcpu, insn, false);
}

enum outcome handle_far_call(struct vcpu *vcpu, const struct insn *insn)
{
    return transfer_far(vcpu, insn, true);
}
