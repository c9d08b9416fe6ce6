/*
 * From a raised fault to its handler, and what happens when the handler cannot be entered: the next fault, a
 * double fault, or the end (SDM Vol 3A 6.15, interrupt 8).
 *
 * Read next: interrupt.c (one attempt), triple_fault.c (the story of the end).
 */
#include <string.h>

#include "vcpu/fail.h"
#include "vcpu/internal.h"
#include "vcpu/interrupt.h"

/* ---- double fault: SDM Vol 3A tables 6-4 and 6-5 ------------------------------------------------------ */

enum severity { BENIGN, CONTRIBUTORY, PAGE_FAULT, DOUBLE_FAULT };

static enum severity severity_of(const struct event *event)
{
    if (event->kind != INJECT_EXCEPTION)
        return BENIGN;
    switch (event->vector) {
    case EXCEPTION_DE:
    case EXCEPTION_TS:
    case EXCEPTION_NP:
    case EXCEPTION_SS:
    case EXCEPTION_GP:
        return CONTRIBUTORY;
    case EXCEPTION_PF:
        return PAGE_FAULT;
    case EXCEPTION_DF:
        return DOUBLE_FAULT;
    default:
        return BENIGN;
    }
}

enum escalation { HANDLE_SERIALLY, MAKE_DOUBLE_FAULT, SHUT_DOWN };

/* By the severity of what is being delivered, and of what this raises. (#DF itself is never raised.) */
static const enum escalation escalations[][DOUBLE_FAULT] = {
    [BENIGN] = {HANDLE_SERIALLY, HANDLE_SERIALLY, HANDLE_SERIALLY},
    [CONTRIBUTORY] = {HANDLE_SERIALLY, MAKE_DOUBLE_FAULT, HANDLE_SERIALLY},
    [PAGE_FAULT] = {HANDLE_SERIALLY, MAKE_DOUBLE_FAULT, MAKE_DOUBLE_FAULT},
    [DOUBLE_FAULT] = {HANDLE_SERIALLY, SHUT_DOWN, SHUT_DOWN},
};

/* ---- events ------------------------------------------------------------------------------------------- */

/* RF, so that an instruction breakpoint does not fire again when the faulting instruction is restarted: for
 * faults only (SDM Vol 3B 17.3.1.1). */
static bool is_trap(const struct fault *fault)
{
    return fault->is_trap || fault->vector == EXCEPTION_BP || fault->vector == EXCEPTION_OF;
}

static struct event event_of_fault(const struct vcpu *vcpu, const struct fault *fault)
{
    return (struct event){
        .kind = INJECT_EXCEPTION,
        .vector = (uint8_t)fault->vector,
        .has_error = fault->has_error,
        .error = fault->error,
        .return_eip = vcpu->eip,
        .saved_eflags = vcpu->eflags | (is_trap(fault) ? 0 : EFLAGS_RF),
        .ext = ERROR_EXT,
    };
}

/* ---- delivery ----------------------------------------------------------------------------------------- */

static void begin_chain(struct vcpu *vcpu, int16_t interrupt)
{
    vcpu->chain.count = 0;
    vcpu->chain.interrupt = interrupt;
    vcpu->chain.cs = vcpu->segment[SEG_CS].selector;
    vcpu->chain.eip = vcpu->eip;
}

static void add_to_chain(struct vcpu *vcpu, const struct fault *fault)
{
    vcpu->chain.fault[vcpu->chain.count++] = *fault;
    if (fault->vector == EXCEPTION_PF)
        vcpu->cr2 = fault->cr2;
}

/* Delivers one event after another until a handler is entered or there is none to try. */
static enum outcome deliver(struct vcpu *vcpu, struct event event)
{
    static const struct fault double_fault = {.vector = EXCEPTION_DF, .has_error = true};
    enum outcome outcome;

    for (;;) {
        enum severity severity = severity_of(&event);

        vcpu->delivering_vector = event.kind == INJECT_EXCEPTION ? event.vector : -1;
        outcome = interrupt_deliver(vcpu, &event);
        if (outcome != OUTCOME_FAULT)
            break;
        if (vcpu->chain.count == VCPU_FAULT_CHAIN) {
            /* Only benign faults chain without end: an #AC handler in ring 3 with a misaligned stack. */
            vcpu->ops->stop(vcpu, STOP_IMPOSSIBLE, "endless exception: %s while delivering %s, at %04x:%08x",
                            vcpu_exception_name(vcpu->fault.vector), vcpu_exception_name(event.vector),
                            vcpu->chain.cs, vcpu->chain.eip);
            outcome = OUTCOME_STOP;
            break;
        }
        add_to_chain(vcpu, &vcpu->fault);
        event = event_of_fault(vcpu, &vcpu->fault);
        switch (escalations[severity][severity_of(&event)]) {
        case HANDLE_SERIALLY:
            break;
        case MAKE_DOUBLE_FAULT:
            event = event_of_fault(vcpu, &double_fault);
            break;
        case SHUT_DOWN:
            outcome = exception_stop_at_triple_fault(vcpu);
            vcpu->delivering_vector = -1;
            return outcome;
        }
    }
    vcpu->delivering_vector = -1;
    return outcome;
}

enum outcome vcpu_deliver_fault(struct vcpu *vcpu, const struct fault *fault)
{
    struct fault first = *fault; /* it may be vcpu->fault */

    begin_chain(vcpu, -1);
    add_to_chain(vcpu, &first);
    return deliver(vcpu, event_of_fault(vcpu, &first));
}

enum outcome vcpu_deliver_interrupt(struct vcpu *vcpu, enum injection_kind kind, uint8_t vector)
{
    struct event event = {
        .kind = kind,
        .vector = vector,
        .return_eip = vcpu->eip,
        .saved_eflags = vcpu->eflags,
        .ext = ERROR_EXT,
    };

    BUG_ON(kind != INJECT_EXTERNAL && kind != INJECT_NMI);
    if (kind == INJECT_NMI) {
        vcpu->nmi_pending = false;
        vcpu->nmi_blocked = true; /* until the next IRET */
    }
    begin_chain(vcpu, vector);
    return deliver(vcpu, event);
}
