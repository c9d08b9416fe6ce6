/* die and BUG: see fail.h. */
#include "vcpu/fail.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static void (*cleanup_hook)(void);

void fail_set_cleanup(void (*cleanup)(void))
{
    cleanup_hook = cleanup;
}

void fail_run_cleanup(void)
{
    void (*cleanup)(void) = cleanup_hook;

    cleanup_hook = NULL; /* a failure inside the cleanup must not run it again */
    if (cleanup != NULL)
        cleanup();
}

static _Noreturn void fail_end(const char *prefix, const char *format, va_list arguments)
{
    fail_run_cleanup();
    fputs(prefix, stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    fflush(stderr);
    _exit(1);
}

void die(const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    fail_end("ring3: ", format, arguments);
}

void fail_bug(const char *file, int line, const char *format, ...)
{
    char prefix[256];
    va_list arguments;

    snprintf(prefix, sizeof prefix, "ring3: bug at %s:%d: ", file, line);
    va_start(arguments, format);
    fail_end(prefix, format, arguments);
}
