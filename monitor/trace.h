/*
 * The trace: one record for each exit and each interrupt delivered. As a file it is JSON Lines (docs/trace.md
 * is the format); as "-" the same events are aligned lines for a person. No record carries a host address, a
 * pid or wall time, so under --clock=virtual two runs of one guest give the same bytes.
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
/* Writes out what is buffered and closes. false: something could not be written; one line in `error`. */
bool trace_close(struct trace *trace, char *error, size_t error_size);
/* Only writes out: from a cleanup. */
void trace_flush(struct trace *trace);

/* "IF_virt 1→0, cr3 00000000→00101000": what differs between two states of the processor, as a list of at
 * most `max` texts. Returns how many there are. For the trace and the stepper. */
#define CHANGE_TEXT_SIZE 64
size_t trace_changes(const struct vcpu *before, const struct vcpu *after, char texts[][CHANGE_TEXT_SIZE],
                     size_t max);
/* One readable line (no newline) for an event. */
void trace_format_event(const struct vm *vm, const struct vm_event *event, char *line, size_t size);
/* "main+0x12", or "" if there is no symbol. */
void trace_format_symbol(const struct symbols *symbols, uint32_t address, char *text, size_t size);

#endif
