/*
 * The life of a trap, from the instruction that caused it to the one after it, with what each part cost. Read
 * next: exit.c, which lived it.
 */
#include <ctype.h>

#include "monitor/step_print.h"
#include "monitor/trace.h"

#define TEXT_COLUMN 62

static void print_part(const char *name, const char *text, FILE *out)
{
    fprintf(out, "  %-12s %s\n", name, text);
}

static void print_part_with_cost(const char *name, const char *text, uint64_t ns, FILE *out)
{
    fprintf(out, "  %-12s %-*s %7llu ns\n", name, TEXT_COLUMN, text, (unsigned long long)ns);
}

void step_print_trap(const struct stepper *stepper, FILE *out)
{
    const struct stepper_trap *trap = &stepper->last;
    char line[TRACE_LINE_SIZE];

    trace_format_event(stepper->vm->symbols, &trap->event, &trap->after, line, sizeof line);
    fprintf(out, "%s\n", line);
}

static void print_instruction(const struct stepper *stepper, FILE *out)
{
    const struct vm_event *event = &stepper->last.event;
    char symbol[TRACE_TEXT_SIZE], insn[TRACE_TEXT_SIZE] = "(not looked at: the exit tells enough)", text[320];

    trace_format_symbol(stepper->vm->symbols, trace_linear(&event->before), symbol, sizeof symbol);
    if (event->has_insn)
        decode_format(&event->insn, event->before.eip, insn, sizeof insn);
    snprintf(text, sizeof text, "%04x:%08x %s%s%s%s, at CPL %u", event->before.segment[SEG_CS].selector,
             event->before.eip, symbol, symbol[0] != '\0' ? "  " : "", insn,
             event->is_patched ? " (patched: what ran was HLT)" : "", event->before.cpl);
    print_part("instruction", text, out);
}

static void print_fault(const struct vm_exit *exit, FILE *out)
{
    const struct fault *fault = &exit->fault;
    char text[160];

    if (exit->reason == EXIT_PAGE_FAULT)
        snprintf(text, sizeof text, "#PF at %08x: the CPU found no mapping that allows this %s", fault->cr2,
                 (fault->error & PF_FETCH)   ? "fetch"
                 : (fault->error & PF_WRITE) ? "write"
                                             : "read");
    else if (exit->reason == EXIT_EXCEPTION && fault->has_error)
        snprintf(text, sizeof text, "%s(%x): raised by the CPU, which runs the guest at ring 3",
                 vcpu_exception_name((unsigned)fault->vector), fault->error);
    else if (exit->reason == EXIT_EXCEPTION)
        snprintf(text, sizeof text, "%s: raised by the CPU, which runs the guest at ring 3",
                 vcpu_exception_name((unsigned)fault->vector));
    else if (exit->reason == EXIT_HOST_CALL)
        snprintf(text, sizeof text, "none: it went to the host's kernel, and the sandbox sent it back");
    else if (exit->reason == EXIT_GUEST_FAULT)
        snprintf(text, sizeof text, "%s: raised by the virtual processor",
                 vcpu_exception_name((unsigned)fault->vector));
    else if (exit->reason == EXIT_SENSITIVE)
        snprintf(text, sizeof text, "none: the engine looked at the instruction before it ran");
    else
        snprintf(text, sizeof text, "none: %s", exit_reason_name(exit->reason));
    print_part("fault", text, out);
}

static void print_class(const struct vm_event *event, FILE *out)
{
    const struct sensitive *row = event->insn.sensitive;
    char text[320];

    if (!event->has_insn)
        snprintf(text, sizeof text, "decided without the instruction, by the address or the vector");
    else if (row == NULL)
        snprintf(text, sizeof text, "innocuous: it trapped for the memory that it touches");
    else
        snprintf(text, sizeof text, "%s: %s-sensitive, %sprivileged (%s); ring 3 here: %s", row->name,
                 sensitive_class_name(row), row->is_privileged ? "" : "not ", row->state,
                 substrate_name(row->substrate));
    print_part("class", text, out);
}

static const char *disposition_meaning(enum disposition disposition)
{
    switch (disposition) {
    case DISPOSITION_EMULATED:
        return "emulated on the virtual state";
    case DISPOSITION_REFLECTED:
        return "the guest's own exception: delivered through its IDT";
    case DISPOSITION_FILLED:
        return "the shadow has the page now; the instruction is tried again";
    case DISPOSITION_RESUMED:
        return "nothing to do";
    case DISPOSITION_STOPPED:
        return "the run ends here";
    case DISPOSITION_INTERRUPT:
    case DISPOSITION_COUNT:
        break;
    }
    return disposition_name(disposition);
}

static void print_effects(const struct stepper_trap *trap, FILE *out)
{
    char changes[TRACE_MAX_CHANGES][CHANGE_TEXT_SIZE], note[TRACE_TEXT_SIZE];
    size_t n = trace_changes(&trap->event.before, &trap->after, changes, TRACE_MAX_CHANGES);

    for (size_t i = 0; i < n; i++)
        print_part("", changes[i], out);
    for (unsigned i = 0; i < trap->event.n_notes; i++) {
        trace_format_note(&trap->event.note[i], note, sizeof note);
        print_part("", note, out);
    }
    if (trap->event.dropped_notes != 0)
        fprintf(out, "  %-12s and %u more\n", "", trap->event.dropped_notes);
}

static void print_costs_of_signal(const struct stepper *stepper, FILE *out)
{
    const struct stepper_trap *trap = &stepper->last;
    char text[TRACE_TEXT_SIZE];

    print_part("signal", trap->how, out);
    if (trap->event.guest_ns == 0)
        return;
    print_part_with_cost("", "guest entered, ran, faulted; the kernel came in and sent the signal",
                         trap->event.guest_ns, out);
    snprintf(text, sizeof text, "(the least that this took so far was %llu ns)",
             (unsigned long long)stepper->least_guest_ns);
    print_part("", text, out);
    print_part_with_cost("", "signal frame to virtual processor, and to an exit", trap->event.capture_ns,
                         out);
}

static void print_resume(const struct vm *vm, const struct stepper_trap *trap, FILE *out)
{
    char symbol[TRACE_TEXT_SIZE], text[TRACE_TEXT_SIZE * 2];

    trace_format_symbol(vm->symbols, trace_linear(&trap->after), symbol, sizeof symbol);
    snprintf(text, sizeof text, "%04x:%08x %s", trap->after.segment[SEG_CS].selector, trap->after.eip,
             symbol);
    print_part("resume", text, out);
}

void step_print_why(const struct stepper *stepper, FILE *out)
{
    const struct stepper_trap *trap = &stepper->last;
    const struct vm_event *event = &trap->event;

    if (event->sequence == 0) {
        fputs("nothing has trapped yet\n", out);
        return;
    }
    fprintf(out, "event %llu, at machine time %llu ns\n", (unsigned long long)event->sequence,
            (unsigned long long)event->time);
    if (event->disposition == DISPOSITION_INTERRUPT) {
        print_part("cause", "no trap: an interrupt was pending, and the guest could take it", out);
    } else {
        print_instruction(stepper, out);
        print_fault(&event->exit, out);
        if (trap->how[0] != '\0')
            print_costs_of_signal(stepper, out);
        print_class(event, out);
    }
    print_part_with_cost("handling", disposition_meaning(event->disposition), event->handle_ns, out);
    print_effects(trap, out);
    print_resume(stepper->vm, trap, out);
}
