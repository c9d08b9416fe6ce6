/*
 * The texts of an event: its symbol, its notes, and the whole of it as one line for a person. Read next:
 * changes.c.
 */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "monitor/symbols.h"
#include "monitor/trace.h"

#define SYMBOL_MAX_CHARS 48 /* of a name; longer ones are cut */

const char *trace_fault_name(const struct vm_exit *exit)
{
    if (exit_has_fault(exit))
        return vcpu_exception_name((unsigned)exit->fault.vector);
    return NULL;
}

/* The name comes from the guest's file, and goes to terminals. */
void trace_format_symbol(const struct symbols *symbols, uint32_t address, char *text, size_t size)
{
    uint32_t offset = 0;
    const char *name = symbols_find(symbols, address, &offset);
    size_t length = 0;

    text[0] = '\0';
    if (name == NULL)
        return;
    for (unsigned i = 0; i < SYMBOL_MAX_CHARS && name[i] != '\0' && length < size; i++) {
        unsigned char c = (unsigned char)name[i];

        length += (size_t)snprintf(text + length, size - length, c >= 0x20 && c < 0x7f ? "%c" : "\\x%02x", c);
    }
    if (offset != 0 && length < size)
        snprintf(text + length, size - length, "+%#x", offset);
}

/* ---- notes --------------------------------------------------------------------------------------------- */

static const char *const injection_names[] = {[INJECT_EXCEPTION] = "exception",
                                              [INJECT_SOFTWARE] = "software",
                                              [INJECT_EXTERNAL] = "external",
                                              [INJECT_NMI] = "nmi"};
static const char *const shadow_change_names[] = {[SHADOW_CHANGE_FILL] = "fill",
                                                  [SHADOW_CHANGE_DROP] = "drop",
                                                  [SHADOW_CHANGE_PROTECT] = "protect",
                                                  [SHADOW_CHANGE_TABLE_WRITE] = "table-write"};

/* "out 03f8:1=41": port or physical address, bytes, value. */
static void format_access(const struct note *note, const char *verb, int address_digits, char *text,
                          size_t size)
{
    snprintf(text, size, "%s %0*llx:%u=%0*llx", verb, address_digits, (unsigned long long)note->address,
             note->size, (int)note->size * 2, (unsigned long long)note->value);
}

static void format_injection(const struct note *note, char *text, size_t size)
{
    const char *exception = vcpu_exception_name(note->vector);

    if (note->injection != INJECT_EXCEPTION)
        snprintf(text, size, "inject %s %02x", injection_names[note->injection], note->vector);
    else if (note->has_error)
        snprintf(text, size, "inject %s(%08x)", exception, note->error);
    else
        snprintf(text, size, "inject %s", exception);
}

void trace_format_note(const struct note *note, char *text, size_t size)
{
    bool is_port = note->size >> 8 == BUS_PORT;

    switch (note->kind) {
    case NOTE_PORT_READ:
        format_access(note, "in", 4, text, size);
        break;
    case NOTE_PORT_WRITE:
        format_access(note, "out", 4, text, size);
        break;
    case NOTE_MEMORY_READ:
        format_access(note, "mmio-read", 8, text, size);
        break;
    case NOTE_MEMORY_WRITE:
        format_access(note, "mmio-write", 8, text, size);
        break;
    case NOTE_INJECTED:
        format_injection(note, text, size);
        break;
    case NOTE_UNCLAIMED:
        snprintf(text, size, "unclaimed %s-%s %0*llx", is_port ? "port" : "memory",
                 note->flag ? "write" : "read", is_port ? 4 : 8, (unsigned long long)note->address);
        break;
    case NOTE_UNKNOWN_MSR:
        snprintf(text, size, "unknown-msr-%s %08llx", note->flag ? "write" : "read",
                 (unsigned long long)note->address);
        break;
    case NOTE_LINE:
        snprintf(text, size, "line %s.%llu %s", note->name, (unsigned long long)note->address,
                 note->flag ? "high" : "low");
        break;
    case NOTE_HOLE:
        snprintf(text, size, "hole: %s was loaded with %04llx and nothing trapped", note->name,
                 (unsigned long long)note->address);
        break;
    case NOTE_SHADOW:
        snprintf(text, size, "shadow %s %08llx+%u", shadow_change_names[note->change],
                 (unsigned long long)note->address, note->size);
        break;
    }
}

/* ---- a line for a person ------------------------------------------------------------------------------- */

struct line {
    char *text;
    size_t size, length;
};

static void append(struct line *line, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void append(struct line *line, const char *format, ...)
{
    va_list arguments;
    int n;

    va_start(arguments, format);
    n = vsnprintf(line->text + line->length, line->size - line->length, format, arguments);
    va_end(arguments);
    if (n > 0)
        line->length += (size_t)n < line->size - line->length ? (size_t)n : line->size - line->length - 1;
}

#define COLUMNS "%-22s %-28s %-13s %-9s"

void trace_format_titles(char *line, size_t size)
{
    snprintf(line, size, "%7s  %-13s " COLUMNS "  %s", "number", "cs:eip", "symbol", "instruction", "fault",
             "act", "what changed");
}

static void format_cause(const struct vm_event *event, char *text, size_t size)
{
    const char *fault = trace_fault_name(&event->exit);

    if (event->disposition == DISPOSITION_INTERRUPT)
        text[0] = '\0'; /* nothing stopped the guest: the monitor came by */
    else if (event->exit.reason == EXIT_PAGE_FAULT)
        snprintf(text, size, "%s %08x", fault, event->exit.fault.cr2);
    else if (fault != NULL && event->exit.fault.has_error)
        snprintf(text, size, "%s(%x)", fault, event->exit.fault.error);
    else
        snprintf(text, size, "%s", fault != NULL ? fault : exit_reason_name(event->exit.reason));
}

void trace_format_event(const struct symbols *symbols, const struct vm_event *event, const struct vcpu *after,
                        char *text, size_t size)
{
    const struct vcpu *before = &event->before;
    struct line line = {.text = text, .size = size};
    char symbol[TRACE_TEXT_SIZE], insn[TRACE_TEXT_SIZE] = "", cause[48];
    char changes[TRACE_MAX_CHANGES][CHANGE_TEXT_SIZE];
    size_t n = trace_changes(before, after, changes, TRACE_MAX_CHANGES);
    const char *separator = "  ";

    trace_format_symbol(symbols, trace_linear(before), symbol, sizeof symbol);
    if (event->has_insn)
        decode_format(&event->insn, before->eip, insn, sizeof insn);
    format_cause(event, cause, sizeof cause);
    append(&line, "%7llu  %04x:%08x " COLUMNS, (unsigned long long)event->sequence,
           before->segment[SEG_CS].selector, before->eip, symbol, insn, cause,
           disposition_name(event->disposition));
    for (size_t i = 0; i < n; i++, separator = ", ")
        append(&line, "%s%s", separator, changes[i]);
    for (unsigned i = 0; i < event->n_notes; i++, separator = ", ") {
        char note[TRACE_TEXT_SIZE];

        trace_format_note(&event->note[i], note, sizeof note);
        append(&line, "%s%s", separator, note);
    }
    if (event->dropped_notes != 0)
        append(&line, "%sand %u more", separator, event->dropped_notes);
    while (line.length > 0 && text[line.length - 1] == ' ')
        text[--line.length] = '\0';
}
