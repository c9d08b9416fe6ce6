/*
 * A triple fault, told to the person in front of the machine: which fault came first and where, and why each
 * attempt to deliver it failed. All of it is reconstructed from the error codes, which name the IDT entry or
 * the selector that was bad (SDM Vol 3A 6.13).
 *
 * Read next: exception.c, which gets here.
 */
#include <stdarg.h>
#include <stdio.h>

#include "vcpu/internal.h"
#include "vcpu/interrupt.h"

struct text {
    char buffer[768];
    size_t length;
};

__attribute__((format(printf, 2, 3))) static void append(struct text *text, const char *format, ...)
{
    va_list arguments;
    int n;

    va_start(arguments, format);
    n = vsnprintf(text->buffer + text->length, sizeof text->buffer - text->length, format, arguments);
    va_end(arguments);
    if (n > 0)
        text->length += (size_t)n;
    if (text->length >= sizeof text->buffer)
        text->length = sizeof text->buffer - 1;
}

static void append_idt_reason(const struct vcpu *vcpu, const struct fault *fault, struct text *text)
{
    unsigned entry = fault->error >> 3;
    unsigned entry_size = vcpu_is_protected(vcpu) ? 8 : 4;

    append(text, "IDT entry %u ", entry);
    if (fault->vector == EXCEPTION_NP)
        append(text, "is not present");
    else if (entry * entry_size + entry_size - 1 > vcpu->idtr.limit)
        append(text, "lies beyond the IDT's limit of %04x", vcpu->idtr.limit);
    else
        append(text, "is not an interrupt, trap or task gate");
}

static void append_selector_reason(const struct vcpu *vcpu, const struct fault *fault, struct text *text)
{
    unsigned selector = fault->error & ~(ERROR_EXT | ERROR_IDT);

    switch (fault->vector) {
    case EXCEPTION_TS:
        if (selector == 0)
            append(text, "the TSS has a null SS for the handler's ring");
        else if (selector == (vcpu->tr.selector & ~SELECTOR_RPL))
            append(text, "TSS %04x does not reach to the handler's stack", selector);
        else
            append(text, "selector %04x out of the TSS is not usable", selector);
        break;
    case EXCEPTION_NP:
        append(text, "segment %04x is not present", selector);
        break;
    case EXCEPTION_SS:
        if (selector == 0)
            append(text, "no room on the stack, esp %08x", vcpu->gpr[ESP]);
        else
            append(text, "stack segment %04x is not present or too small", selector);
        break;
    default:
        if (selector == 0)
            append(text, "the gate's code selector is null or its offset beyond the segment");
        else
            append(text, "selector %04x is not a code segment for the handler", selector);
        break;
    }
}

/* Why delivering something raised `fault`. */
static void append_reason(const struct vcpu *vcpu, const struct fault *fault, struct text *text)
{
    if (fault->vector == EXCEPTION_PF)
        append(text, "cr2 %08x, error %x", fault->cr2, fault->error);
    else if (!fault->has_error)
        append(text, "no error code");
    else if (fault->error & ERROR_IDT)
        append_idt_reason(vcpu, fault, text);
    else
        append_selector_reason(vcpu, fault, text);
}

/* The first fault was raised by an instruction: its error code is its own. */
static void append_first(const struct vcpu *vcpu, struct text *text)
{
    const struct fault *first = &vcpu->chain.fault[0];

    if (vcpu->chain.interrupt >= 0)
        append(text, "interrupt %02x", vcpu->chain.interrupt);
    else
        append(text, "%s", vcpu_exception_name((unsigned)first->vector));
    append(text, " at %04x:%08x", vcpu->chain.cs, vcpu->chain.eip);
    if (vcpu->chain.interrupt >= 0)
        return;
    if (first->vector == EXCEPTION_PF)
        append(text, " (cr2 %08x, error %x)", first->cr2, first->error);
    else if (first->has_error)
        append(text, " (error %04x)", first->error);
}

enum outcome exception_stop_at_triple_fault(struct vcpu *vcpu)
{
    unsigned first_of_delivery = vcpu->chain.interrupt >= 0 ? 0 : 1;
    unsigned last = vcpu->chain.count - 1u;
    struct text text = {.length = 0};

    append_first(vcpu, &text);
    for (unsigned i = first_of_delivery; i <= last; i++) {
        const struct fault *fault = &vcpu->chain.fault[i];

        append(&text, ", then %s delivering %s (", vcpu_exception_name((unsigned)fault->vector),
               i == last ? "#DF" : "it");
        append_reason(vcpu, fault, &text);
        append(&text, ")");
    }
    vcpu->ops->stop(vcpu, STOP_TRIPLE_FAULT, "triple fault: %s", text.buffer);
    return OUTCOME_STOP;
}
