/*
 * Writing the trace, as JSON Lines or as lines for a person. Only whole records are written: what a full disk
 * or a signal leaves behind ends with a complete line. Read next: trace_text.c; the format is docs/trace.md.
 */
#include "monitor/trace.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "monitor/requests.h"
#include "monitor/utf8.h"
#include "vcpu/fail.h"

#define BUFFER_SIZE (256u << 10)
/* More than any record: 24 notes and 96 changes of up to 128 and 64 bytes, a symbol whose every byte may be
 * escaped, and the rest. */
#define RECORD_MAX_SIZE 16384u

struct trace {
    int fd;
    bool is_readable; /* "-": for a person */
    bool has_failed;
    int failure; /* errno */
    struct vm *vm;
    uint64_t n_records;
    size_t length; /* of what is in buffer */
    size_t whole;  /* of it, records that are complete */
    char path[256];
    char buffer[BUFFER_SIZE];
};

/* ---- output -------------------------------------------------------------------------------------------- */

/* The disk is full or the reader is gone: keep what was written readable, and end the run. `written` bytes of
 * the buffer have gone out. */
static void fail(struct trace *trace, size_t written, int failure)
{
    off_t end = trace->is_readable ? -1 : lseek(trace->fd, 0, SEEK_CUR);

    trace->has_failed = true;
    trace->failure = failure;
    /* A record cut in the middle goes, if this is a file; in a pipe it has gone already. */
    for (; written > 0 && trace->buffer[written - 1] != '\n'; written--)
        end--;
    if (end >= 0)
        (void)!ftruncate(trace->fd, end); /* /dev/full is no file, and says so here */
    vm_stop(trace->vm, STOP_HOST, "cannot write the trace to %s: %s", trace->path, strerror(failure));
}

/* May the write be tried again? A reader that keeps us waiting must not keep us from ending. */
static bool is_worth_retrying(const struct trace *trace, int failure)
{
    struct pollfd output = {.fd = trace->fd, .events = POLLOUT};

    if (failure == EAGAIN)
        return poll(&output, 1, -1) >= 0 || (errno == EINTR && !requests_is_stop_wanted());
    return failure == EINTR && !requests_is_stop_wanted();
}

void trace_flush(struct trace *trace)
{
    size_t done = 0;

    while (done < trace->whole && !trace->has_failed) {
        ssize_t n = write(trace->fd, trace->buffer + done, trace->whole - done);
        int failure = errno;

        if (n >= 0)
            done += (size_t)n;
        else if (!is_worth_retrying(trace, failure))
            fail(trace, done, failure);
    }
    memmove(trace->buffer, trace->buffer + trace->whole, trace->length - trace->whole);
    trace->length -= trace->whole;
    trace->whole = 0;
}

static void begin_record(struct trace *trace)
{
    if (trace->length + RECORD_MAX_SIZE > BUFFER_SIZE)
        trace_flush(trace);
}

static void put(struct trace *trace, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void put(struct trace *trace, const char *format, ...)
{
    size_t room = BUFFER_SIZE - trace->length;
    va_list arguments;
    int n;

    va_start(arguments, format);
    n = vsnprintf(trace->buffer + trace->length, room, format, arguments);
    va_end(arguments);
    BUG_ON(n < 0 || (size_t)n >= room);
    trace->length += (size_t)n;
}

static void end_record(struct trace *trace)
{
    put(trace, "\n");
    trace->whole = trace->length;
    trace->n_records++;
}

/* A JSON string, valid whatever the text is: file names are anybody's bytes. Those that are no UTF-8 are
 * taken as Latin-1. */
static void put_string(struct trace *trace, const char *text)
{
    const char *end = text + strlen(text);

    put(trace, "\"");
    while (text < end) {
        size_t n = utf8_length(text, (size_t)(end - text));

        if (*text == '"' || *text == '\\')
            put(trace, "\\%c", *text);
        else if (n == 0)
            put(trace, "\\u%04x", (unsigned char)*text);
        else
            put(trace, "%.*s", (int)n, text);
        text += n == 0 ? 1 : n;
    }
    put(trace, "\"");
}

static void put_list_string(struct trace *trace, const char *text, const char **separator)
{
    put(trace, "%s", *separator);
    put_string(trace, text);
    *separator = ",";
}

/* ---- records ------------------------------------------------------------------------------------------- */

static void put_insn(struct trace *trace, const struct vm_event *event)
{
    char text[TRACE_TEXT_SIZE];

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
    char texts[TRACE_MAX_CHANGES][CHANGE_TEXT_SIZE];
    size_t n = trace_changes(&event->before, &trace->vm->vcpu, texts, TRACE_MAX_CHANGES);
    const char *separator = "";

    put(trace, ",\"changes\":[");
    for (size_t i = 0; i < n; i++)
        put_list_string(trace, texts[i], &separator);
    put(trace, "]");
}

static void put_notes(struct trace *trace, const struct vm_event *event)
{
    char text[TRACE_TEXT_SIZE];
    const char *separator = "";

    put(trace, ",\"notes\":[");
    for (unsigned i = 0; i < event->n_notes; i++) {
        trace_format_note(&event->note[i], text, sizeof text);
        put_list_string(trace, text, &separator);
    }
    if (event->dropped_notes != 0) {
        snprintf(text, sizeof text, "and %u more", event->dropped_notes);
        put_list_string(trace, text, &separator);
    }
    put(trace, "]");
}

static void put_symbol(struct trace *trace, const struct vcpu *vcpu)
{
    char symbol[TRACE_TEXT_SIZE];

    trace_format_symbol(trace->vm->symbols, trace_linear(vcpu), symbol, sizeof symbol);
    if (symbol[0] == '\0')
        return;
    put(trace, ",\"sym\":");
    put_string(trace, symbol);
}

static void put_event(struct trace *trace, const struct vm_event *event)
{
    const struct vcpu *before = &event->before, *after = &trace->vm->vcpu;
    const char *fault = trace_fault_name(&event->exit);

    put(trace, "{\"seq\":%llu,\"t\":%llu,\"cs\":\"%04x\",\"eip\":\"%08x\"",
        (unsigned long long)event->sequence, (unsigned long long)event->time,
        before->segment[SEG_CS].selector, before->eip);
    put_symbol(trace, before);
    put(trace, ",\"cpl\":%u,\"exit\":\"%s\"", before->cpl,
        event->disposition == DISPOSITION_INTERRUPT ? "none" : exit_reason_name(event->exit.reason));
    if (fault != NULL)
        put(trace, ",\"fault\":\"%s\"", fault);
    if (fault != NULL && event->exit.fault.has_error)
        put(trace, ",\"error\":\"%08x\"", event->exit.fault.error);
    if (fault != NULL && event->exit.fault.vector == EXCEPTION_PF)
        put(trace, ",\"address\":\"%08x\"", event->exit.fault.cr2);
    if (event->has_insn)
        put_insn(trace, event);
    put(trace, ",\"act\":\"%s\"", disposition_name(event->disposition));
    put_changes(trace, event);
    put_notes(trace, event);
    put(trace, ",\"resume\":\"%04x:%08x\"}", after->segment[SEG_CS].selector, after->eip);
}

static void put_header(struct trace *trace, const char *kernel, enum holes_mode holes)
{
    const struct vm_config *config = &trace->vm->config;
    const char *slash = strrchr(kernel, '/');
    char name[256];

    snprintf(name, sizeof name, "%s", slash != NULL ? slash + 1 : kernel);
    put(trace,
        "{\"ring3-trace\":%d,\"ring3\":\"%s\",\"engine\":\"%s\",\"holes\":\"%s\",\"clock\":\"%s\",\"memory\":"
        "%llu,\"kernel\":",
        TRACE_VERSION, RING3_VERSION, trace->vm->engine->name, holes == HOLES_PATCH ? "patch" : "expose",
        config->clock == CLOCK_VIRTUAL ? "virtual" : "host", (unsigned long long)config->ram_size);
    put_string(trace, name);
    put(trace, "}");
}

/* A trace without it was cut off: by a crash, a kill, a full disk. */
static void put_end(struct trace *trace)
{
    const struct vcpu *vcpu = &trace->vm->vcpu;

    put(trace, "{\"end\":\"%s\",\"records\":%llu,\"cs\":\"%04x\",\"eip\":\"%08x\"",
        stop_reason_name(trace->vm->stop_reason), (unsigned long long)trace->n_records,
        vcpu->segment[SEG_CS].selector, vcpu->eip);
    put_symbol(trace, vcpu);
    put(trace, "}");
}

/* ---- life ---------------------------------------------------------------------------------------------- */

static void observe(void *opaque, const struct vm *vm, const struct vm_event *event)
{
    struct trace *trace = opaque;

    if (trace->has_failed)
        return;
    begin_record(trace);
    if (trace->is_readable) {
        char line[TRACE_LINE_SIZE];

        trace_format_event(vm->symbols, event, &vm->vcpu, line, sizeof line);
        put(trace, "%s", line);
        end_record(trace);
        trace_flush(trace); /* in step with the guest's own output */
    } else {
        put_event(trace, event);
        end_record(trace);
    }
}

static void begin_trace(struct trace *trace, const char *kernel, enum holes_mode holes)
{
    if (trace->is_readable) {
        char titles[TRACE_LINE_SIZE];

        trace_format_titles(titles, sizeof titles);
        put(trace, "%s", titles);
    } else {
        put_header(trace, kernel, holes);
    }
    end_record(trace);
    trace->n_records = 0; /* that was none */
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
    trace->length = trace->whole = 0;
    snprintf(trace->path, sizeof trace->path, "%s", is_readable ? "standard output" : path);
    begin_trace(trace, kernel, holes);
    vm_observe(vm, observe, trace);
    return trace;
}

bool trace_close(struct trace *trace, char *error, size_t error_size)
{
    bool is_whole;

    if (!trace->is_readable && !trace->has_failed) {
        begin_record(trace);
        put_end(trace);
        end_record(trace);
    }
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
