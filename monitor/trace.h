/*
 * The trace: one record for each exit and each interrupt delivered. As a file it is JSON Lines (docs/trace.md
 * is the format); as "-" the same events are aligned lines for a person. No record carries a host address, a
 * pid or wall time, so under --clock=virtual two runs of one guest give the same bytes.
 *
 * Read next: trace.c (the file), trace_text.c (the texts in it), changes.c (what an exit changed);
 * trace_diff.c compares two.
 */
#ifndef RING3_TRACE_H
#define RING3_TRACE_H

#include "monitor/monitor.h"

#define TRACE_VERSION 1

struct trace;

/* Opens `path` ("-": readable lines on stdout) and writes the header; observes vm from now on. `kernel` and
 * `holes` go into the header. NULL: one line in `error`. */
struct trace *trace_open(const char *path, struct vm *vm, const char *kernel, enum holes_mode holes,
                         char *error, size_t error_size);
/* Writes how the run ended and what is buffered, and closes. The vm must still be there. false: something
 * could not be written; one line in `error`. */
bool trace_close(struct trace *trace, char *error, size_t error_size);
/* Only writes out the records that are whole: from a cleanup. */
void trace_flush(struct trace *trace);

/* ---- texts, for the trace and the stepper -------------------------------------------------------------- */

#define TRACE_TEXT_SIZE   128 /* enough for a note, an instruction and a symbol */
#define TRACE_LINE_SIZE   4096
#define TRACE_MAX_CHANGES 104 /* more than there are fields to differ */

/* "IF_virt 1→0", "cr3 00000000→00101000": what differs between two states of the processor. Returns how many
 * there are, at most TRACE_MAX_CHANGES; `max` of them are in texts. */
#define CHANGE_TEXT_SIZE 64
size_t trace_changes(const struct vcpu *before, const struct vcpu *after, char texts[][CHANGE_TEXT_SIZE],
                     size_t max);
/* One readable line (no newline) for an event that left the processor as `after`; the titles of its columns.
 */
void trace_format_event(const struct symbols *symbols, const struct vm_event *event, const struct vcpu *after,
                        char *line, size_t size);
void trace_format_titles(char *line, size_t size);
void trace_format_note(const struct note *note, char *text, size_t size);
/* "main+0x12", or "" if there is no symbol. What is not printable ASCII in the name is shown as \xNN. */
void trace_format_symbol(const struct symbols *symbols, uint32_t address, char *text, size_t size);
/* "#GP": the exception of an exit; NULL where it has none. */
const char *trace_fault_name(const struct vm_exit *exit);
/* Where an event happened: the linear address of CS:EIP. */
static inline gva_t trace_linear(const struct vcpu *vcpu)
{
    return vcpu->segment[SEG_CS].base + vcpu->eip;
}

#endif
