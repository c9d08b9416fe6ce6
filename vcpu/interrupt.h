/*
 * One attempt to enter a handler. exception.c decides what follows when the attempt faults.
 *
 * Read next: interrupt.c.
 */
#ifndef RING3_VCPU_INTERRUPT_H
#define RING3_VCPU_INTERRUPT_H

#include "vcpu/vcpu.h"

struct event {
    enum injection_kind kind;
    uint8_t vector;
    bool has_error;
    uint32_t error;
    uint32_t return_eip;
    uint32_t saved_eflags;
    uint32_t ext;          /* ERROR_EXT in the error code of a fault on the way; 0: a software interrupt's */
    bool checks_privilege; /* INT n, INT3, INTO: the gate's DPL must admit the CPL */
};

/* DONE: the handler runs next. FAULT: nothing has changed (but for a task switch, which may have happened).
 */
enum outcome interrupt_deliver(struct vcpu *vcpu, const struct event *event);

/* Nothing can fail any more: the CPU turns to the handler. */
void interrupt_accept(struct vcpu *vcpu, const struct event *event);

/* Triple fault: ops->stop with the story that vcpu->chain tells. */
enum outcome exception_stop_at_triple_fault(struct vcpu *vcpu);

#endif
