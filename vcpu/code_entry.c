/* Entering a code segment: see code_entry.h. */
#include "vcpu/code_entry.h"

enum outcome code_entry_prepare(struct vcpu *vcpu, struct code_entry *entry)
{
    enum outcome outcome = vcpu_stack_check_room(vcpu, &entry->stack, entry->n, entry->size);

    if (outcome != OUTCOME_DONE)
        return outcome;
    if (entry->eip > descriptor_segment(&entry->code, entry->selector).limit)
        return vcpu_raise_error(vcpu, EXCEPTION_GP, entry->ext);
    outcome = descriptor_mark_accessed(vcpu, &entry->code);
    if (outcome == OUTCOME_DONE && entry->n > 0)
        outcome = vcpu_stack_push_frame(vcpu, &entry->stack, entry->frame, entry->n, entry->size);
    return outcome;
}

void code_entry_commit(struct vcpu *vcpu, const struct code_entry *entry)
{
    vcpu->segment[SEG_CS] = descriptor_segment(&entry->code, entry->selector);
    vcpu->eip = entry->eip;
    vcpu->cpl = entry->selector & SELECTOR_RPL;
    vcpu->segment[SEG_SS] = entry->stack.segment;
    vcpu_commit_stack_pointer(vcpu, &entry->stack);
}
