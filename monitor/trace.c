/*
 * Writing the trace, as JSON Lines or as lines for a person. Records are put into the file whole: what a full
 * disk or a kill leaves behind ends with a complete line. Read next: changes.c; the format is docs/trace.md.
 */
#include "monitor/trace.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "monitor/symbols.h"

#define BUFFER_SIZE     (256u << 10)
#define RECORD_MAX_SIZE 8192u
#define MAX_CHANGES     32

struct trace {
    int fd;
    bool is_readable; /* "-": for a person */
    bool has_failed;
    int failure; /* errno */
    struct vm *vm;
    size_t length; /* of what is in buffer: whole records only, except while one is being built */
    char path[256];
    char buffer[BUFFER_SIZE];
};

/* ---- output -------------------------------------------------------------------------------------------- */

/* The disk is full or the reader is gone: keep what was written readable, and end the run. */
static void fail(struct trace *trace, size_t written)
{
    off_t end = lseek(trace->fd, 0, SEEK_CUR);

    trace->has_failed = true;
    trace->failure = errno;
    /* A record cut in the middle goes, if this is a file. */
    while (written > 0 && trace->buffer[written - 1] != '\n') {
        written--;
        end--;
    }
    if (end > 0 && ftruncate(trace->fd, end) != 0)
        trace->failure = trace->failure != 0 ? trace->failure : errno;
    trace->length = 0;
    vm_stop(trace->vm, STOP_HOST, "cannot write the trace to %s: %s", trace->path, strerror(trace->failure));
}

void trace_flush(struct trace *trace)
{
    size_t done = 0;

    while (done < trace->length && !trace->has_failed) {
        ssize_t n = write(trace->fd, trace->buffer + done, trace->length - done);

        if (n >= 0)
            done += (size_t)n;
        else if (errno != EINTR)
            fail(trace, done);
    }
    trace->length = 0;
}

static void put(struct trace *trace, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void put(struct trace *trace, const char *format, ...)
{
    va_list arguments;
    int n;

    va_start(arguments, format);
    n = vsnprintf(trace->buffer + trace->length, BUFFER_SIZE - trace->length, format, arguments);
    va_end(arguments);
    if (n > 0 && (size_t)n < BUFFER_SIZE - trace->length)
        trace->length += (size_t)n;
}

/* A JSON string: guest symbols and paths are hostile text. Bytes that are not ASCII pass (our own arrows are
 * UTF-8; symbol names were checked by the loader of symbols). */
static void put_string(struct trace *trace, const char *text)
{
    put(trace, "\"");
    for (const char *c = text; *c != '\0'; c++) {
        if (*c == '"' || *c == '\\')
            put(trace, "\\%c", *c);
        else if ((unsigned char)*c < 0x20 || *c == 0x7f)
            put(trace, "\\u%04x", (unsigned char)*c);
        else
            put(trace, "%c", *c);
    }
    put(trace, "\"");
}

/* ---- pieces of a record ----------------------------------------------------------------------------------
 */

void trace_format_symbol(const struct symbols *symbols, uint32_t address, char *text, size_t size)
{
    uint32_t offset = 0;
    const char *name = symbols_find(symbols, address, &offset);

    text[0] = '\0';
    if (name != NULL)
        snprintf(text, size, offset == 0 ? "%.48s" : "%.48s+%#x", name, offset);
}

static const char *const injection_names[] = {[INJECT_EXCEPTION] = "exception",
                                              [INJECT_SOFTWARE] = "software",
                                              [INJECT_EXTERNAL] = "external",
                                              [INJECT_NMI] = "nmi"};
static const char *const shadow_change_names[] = {[SHADOW_CHANGE_FILL] = "fill",
                                                  [SHADOW_CHANGE_DROP] = "drop",
                                                  [SHADOW_CHANGE_PROTECT] = "protect",
                                                  [SHADOW_CHANGE_TABLE_WRITE] = "table-write"};

/* The exception of an exit; NULL where it has none. */
static const char *exit_fault_name(const struct vm_exit *exit)
{
    if (exit->reason == EXIT_EXCEPTION || exit->reason == EXIT_PAGE_FAULT)
        return vcpu_exception_name((unsigned)exit->fault.vector);
    return NULL;
}

/* A note as text, the same in both forms of the trace. */
static void format_note(const struct note *note, char *text, size_t size)
{
    int digits = (int)(note->size & 0xff) * 2;

    switch (note->kind) {
    case NOTE_PORT_READ:
        snprintf(text, size, "in %04llx:%u=%0*llx", (unsigned long long)note->address, note->size, digits,
                 (unsigned long long)note->value);
        break;
    case NOTE_PORT_WRITE:
        snprintf(text, size, "out %04llx:%u=%0*llx", (unsigned long long)note->address, note->size, digits,
                 (unsigned long long)note->value);
        break;
    case NOTE_MEMORY_READ:
        snprintf(text, size, "mmio-read %08llx:%u=%0*llx", (unsigned long long)note->address, note->size,
                 digits, (unsigned long long)note->value);
        break;
    case NOTE_MEMORY_WRITE:
        snprintf(text, size, "mmio-write %08llx:%u=%0*llx", (unsigned long long)note->address, note->size,
                 digits, (unsigned long long)note->value);
        break;
    case NOTE_INJECTED:
        if (note->injection == INJECT_EXCEPTION && note->has_error)
            snprintf(text, size, "inject %s(%08x)", vcpu_exception_name(note->vector), note->error);
        else if (note->injection == INJECT_EXCEPTION)
            snprintf(text, size, "inject %s", vcpu_exception_name(note->vector));
        else
            snprintf(text, size, "inject %s %02x", injection_names[note->injection], note->vector);
        break;
    case NOTE_UNCLAIMED:
        snprintf(text, size, "unclaimed %s-%s %0*llx", note->size >> 8 == BUS_PORT ? "port" : "memory",
                 note->flag ? "write" : "read", note->size >> 8 == BUS_PORT ? 4 : 8,
                 (unsigned long long)note->address);
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

/* ---- JSON Lines ------------------------------------------------------------------------------------------
 */

static void put_insn(struct trace *trace, const struct vm_event *event)
{
    char text[96];

    put(trace, ",\"bytes\":\"");
    for (unsigned i = 0; i < event->insn.length; i++)
        put(trace, "%02x", event->insn.bytes[i]);
    decode_format(&event->insn, event->before.eip, text, sizeof text);
    put(trace, "\",\"insn\":");
    put_string(trace, text);
    if (event->insn.sensitive != NULL)
        put(trace, ",\"class\":\"%s\"", sensitive_class_name(event->insn.sensitive));
    if (event->is_patched)
        put(trace, ",\"patched\":true");
}

static void put_changes(struct trace *trace, const struct vm_event *event)
{
    char texts[MAX_CHANGES][CHANGE_TEXT_SIZE];
    size_t n = trace_changes(&event->before, &trace->vm->vcpu, texts, MAX_CHANGES);

    put(trace, ",\"changes\":[");
    for (size_t i = 0; i < n && i < MAX_CHANGES; i++) {
        put(trace, i == 0 ? "" : ",");
        put_string(trace, texts[i]);
    }
    put(trace, "],\"notes\":[");
    for (unsigned i = 0; i < event->n_notes; i++) {
        char text[96];

        format_note(&event->note[i], text, sizeof text);
        put(trace, i == 0 ? "" : ",");
        put_string(trace, text);
    }
    if (event->dropped_notes != 0)
        put(trace, "%s\"and %u more\"", event->n_notes == 0 ? "" : ",", event->dropped_notes);
    put(trace, "]");
}

static void put_json_event(struct trace *trace, const struct vm_event *event)
{
    const struct vcpu *before = &event->before, *after = &trace->vm->vcpu;
    const char *fault = exit_fault_name(&event->exit);
    char symbol[80];

    put(trace, "{\"seq\":%llu,\"t\":%llu,\"cs\":\"%04x\",\"eip\":\"%08x\"",
        (unsigned long long)event->sequence, (unsigned long long)event->time,
        before->segment[SEG_CS].selector, before->eip);
    trace_format_symbol(trace->vm->symbols, before->eip, symbol, sizeof symbol);
    if (symbol[0] != '\0') {
        put(trace, ",\"sym\":");
        put_string(trace, symbol);
    }
    put(trace, ",\"cpl\":%u,\"exit\":\"%s\"", before->cpl,
        event->disposition == DISPOSITION_INTERRUPT ? "none" : exit_reason_name(event->exit.reason));
    if (fault != NULL)
        put(trace, ",\"fault\":\"%s\"", fault);
    if (fault != NULL && event->exit.fault.has_error)
        put(trace, ",\"error\":\"%08x\"", event->exit.fault.error);
    if (event->exit.reason == EXIT_PAGE_FAULT)
        put(trace, ",\"address\":\"%08x\"", event->exit.fault.cr2);
    if (event->has_insn)
        put_insn(trace, event);
    put(trace, ",\"act\":\"%s\"", disposition_name(event->disposition));
    put_changes(trace, event);
    put(trace, ",\"resume\":\"%04x:%08x\"}\n", after->segment[SEG_CS].selector, after->eip);
}

static void put_json_header(struct trace *trace, const char *kernel, enum holes_mode holes)
{
    const struct vm_config *config = &trace->vm->config;
    const char *name = strrchr(kernel, '/');

    put(trace,
        "{\"ring3-trace\":%d,\"ring3\":\"%s\",\"engine\":\"%s\",\"holes\":\"%s\",\"clock\":\"%s\",\"memory\":"
        "%llu",
        TRACE_VERSION, RING3_VERSION, trace->vm->engine->name, holes == HOLES_PATCH ? "patch" : "expose",
        config->clock == CLOCK_VIRTUAL ? "virtual" : "host", (unsigned long long)config->ram_size);
    put(trace, ",\"kernel\":");
    put_string(trace, name != NULL ? name + 1 : kernel);
    put(trace, "}\n");
}

/* ---- for a person ----------------------------------------------------------------------------------------
 */

static void append(char *line, size_t size, const char *format, ...) __attribute__((format(printf, 3, 4)));
static void append(char *line, size_t size, const char *format, ...)
{
    size_t length = strlen(line);
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(line + length, size - length, format, arguments);
    va_end(arguments);
}

void trace_format_event(const struct vm *vm, const struct vm_event *event, char *line, size_t size)
{
    const struct vcpu *before = &event->before;
    const char *fault = exit_fault_name(&event->exit);
    char text[96] = "", what[48] = "", changes[4][CHANGE_TEXT_SIZE];
    const char *separator = "  ";
    size_t n;

    trace_format_symbol(vm->symbols, before->eip, text, sizeof text);
    snprintf(line, size, "%7llu  %04x:%08x %-22s ", (unsigned long long)event->sequence,
             before->segment[SEG_CS].selector, before->eip, text);
    text[0] = '\0';
    if (event->has_insn)
        decode_format(&event->insn, before->eip, text, sizeof text);
    if (fault != NULL && event->exit.reason == EXIT_PAGE_FAULT)
        snprintf(what, sizeof what, "%s %08x", fault, event->exit.fault.cr2);
    else if (fault != NULL && event->exit.fault.has_error)
        snprintf(what, sizeof what, "%s(%x)", fault, event->exit.fault.error);
    else if (fault != NULL)
        snprintf(what, sizeof what, "%s", fault);
    else if (event->disposition != DISPOSITION_INTERRUPT)
        snprintf(what, sizeof what, "%s", exit_reason_name(event->exit.reason));
    append(line, size, "%-28s %-12s %-9s", text, what, disposition_name(event->disposition));
    n = trace_changes(before, &vm->vcpu, changes, 4);
    for (size_t i = 0; i < n && i < 4; i++, separator = ", ")
        append(line, size, "%s%s", separator, changes[i]);
    if (n > 4)
        append(line, size, ", and %zu more", n - 4);
    for (unsigned i = 0; i < event->n_notes; i++, separator = ", ") {
        format_note(&event->note[i], text, sizeof text);
        append(line, size, "%s%s", separator, text);
    }
}

/* ---- life ------------------------------------------------------------------------------------------------
 */

static void observe(void *opaque, const struct vm *vm, const struct vm_event *event)
{
    struct trace *trace = opaque;

    if (trace->has_failed)
        return;
    if (trace->length + RECORD_MAX_SIZE > BUFFER_SIZE)
        trace_flush(trace);
    if (trace->is_readable) {
        char line[1024];

        trace_format_event(vm, event, line, sizeof line);
        put(trace, "%s\n", line);
        trace_flush(trace); /* in step with the guest's own output */
    } else {
        put_json_event(trace, event);
    }
}

struct trace *trace_open(const char *path, struct vm *vm, const char *kernel, enum holes_mode holes,
                         char *error, size_t error_size)
{
    bool is_readable = strcmp(path, "-") == 0;
    int fd = is_readable ? STDOUT_FILENO : open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    struct trace *trace;

    if (fd < 0) {
        snprintf(error, error_size, "cannot open the trace file %s: %s", path, strerror(errno));
        return NULL;
    }
    trace = malloc(sizeof *trace);
    if (trace == NULL) {
        snprintf(error, error_size, "out of memory for the trace");
        if (!is_readable)
            close(fd);
        return NULL;
    }
    trace->fd = fd;
    trace->is_readable = is_readable;
    trace->has_failed = false;
    trace->failure = 0;
    trace->vm = vm;
    trace->length = 0;
    snprintf(trace->path, sizeof trace->path, "%s", is_readable ? "standard output" : path);
    if (is_readable)
        put(trace, "%7s  %-13s %-22s %-28s %-12s %-9s  %s\n", "exit", "cs:eip", "symbol", "instruction",
            "fault", "act", "what changed");
    else
        put_json_header(trace, kernel, holes);
    vm_observe(vm, observe, trace);
    return trace;
}

bool trace_close(struct trace *trace, char *error, size_t error_size)
{
    bool is_whole;

    trace_flush(trace);
    if (!trace->is_readable && close(trace->fd) != 0 && !trace->has_failed) {
        trace->has_failed = true;
        trace->failure = errno;
    }
    is_whole = !trace->has_failed;
    if (!is_whole)
        snprintf(error, error_size, "the trace in %s is not complete: %s", trace->path,
                 strerror(trace->failure));
    free(trace);
    return is_whole;
}
