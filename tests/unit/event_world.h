/*
 * A vm with nothing in it but what observers of events look at, and a way to give them an event: for the
 * tests of the trace and the statistics.
 */
#ifndef RING3_TESTS_EVENT_WORLD_H
#define RING3_TESTS_EVENT_WORLD_H

#include <check.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "monitor/monitor.h"

static struct vm event_vm;
static char event_path[64]; /* a file of its own for each test */

static uint64_t event_now(void *opaque)
{
    (void)opaque;
    return 12345;
}

static inline void event_world_open(void)
{
    static const struct engine engine = {.name = "fake"};
    int fd;

    memset(&event_vm, 0, sizeof event_vm);
    event_vm.engine = &engine;
    event_vm.clock.now = event_now;
    event_vm.config.clock = CLOCK_VIRTUAL;
    event_vm.config.ram_size = 64 << 20;
    strcpy(event_path, "/tmp/ring3-test-XXXXXX");
    fd = mkstemp(event_path);
    ck_assert_int_ge(fd, 0);
    close(fd);
}

static inline void event_world_close(void)
{
    unlink(event_path);
}

/* An emulated instruction at 0008:00100000 + n; the caller changes what it wants, then shows it. */
static inline struct vm_event *event_make(unsigned n, const char *bytes, size_t length)
{
    struct vm_event *event = &event_vm.event;

    memset(event, 0, sizeof *event);
    event->sequence = n;
    event->time = 1000 * n;
    event->exit = (struct vm_exit){.reason = EXIT_EXCEPTION,
                                   .fault = {.vector = EXCEPTION_GP, .has_error = true, .error = 0}};
    event->disposition = DISPOSITION_EMULATED;
    event->has_insn = true;
    ck_assert_int_eq(decode_insn((const uint8_t *)bytes, length, 4, &event->insn), DECODE_OK);
    event->before.segment[SEG_CS].selector = 8;
    event->before.eip = 0x100000 + n;
    event_vm.vcpu = event->before;
    event_vm.vcpu.eip += event->insn.length;
    return event;
}

static inline void event_show(void)
{
    for (unsigned i = 0; i < event_vm.n_observers; i++)
        event_vm.observer[i].event(event_vm.observer[i].ctx, &event_vm, &event_vm.event);
}

/* The file's contents, NUL-terminated; the caller frees. */
static inline char *event_read_file(const char *path, size_t *size)
{
    int fd = open(path, O_RDONLY);
    char *text;
    off_t end;

    ck_assert_int_ge(fd, 0);
    end = lseek(fd, 0, SEEK_END);
    text = malloc((size_t)end + 1);
    ck_assert_ptr_nonnull(text);
    ck_assert_int_eq(pread(fd, text, (size_t)end, 0), end);
    text[end] = '\0';
    if (size != NULL)
        *size = (size_t)end;
    close(fd);
    return text;
}

#endif
