/* The console on standard input and output: see console.h. Read next: terminal.c, screen_lines.c, requests.c.
 */
#include "monitor/console.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "monitor/requests.h"
#include "monitor/terminal.h"

#define CTRL_A 0x01

static const char key_help[] = "\n"
                               "Ctrl-A x       quit ring3\n"
                               "Ctrl-A h       this list\n"
                               "Ctrl-A Ctrl-A  send Ctrl-A to the guest\n"
                               "All other keys go to the guest, Ctrl-C too.\n";

/* ---- output -------------------------------------------------------------------------------------------- */

static void call_for_attention(struct console *console)
{
    if (console->attention != NULL)
        *console->attention = 1;
}

/* Waits until standard output takes more. false: the run is to end first. (It is non-blocking only if whoever
 * gave it to us has made it so.) */
static bool wait_for_output(void)
{
    struct pollfd output = {.fd = STDOUT_FILENO, .events = POLLOUT};
    sigset_t old;
    bool ok;

    requests_block(&old);
    ok = !requests_is_stop_wanted() && (ppoll(&output, 1, NULL, &old) >= 0 || errno == EINTR);
    sigprocmask(SIG_SETMASK, &old, NULL);
    return ok && !requests_is_stop_wanted();
}

/* The run is to end, and a write now would wait for the reader. */
static bool must_give_up(void)
{
    struct pollfd output = {.fd = STDOUT_FILENO, .events = POLLOUT};

    return requests_is_stop_wanted() && poll(&output, 1, 0) == 0;
}

/* When the run is to end and the reader keeps us waiting, the rest is lost: the guest may have thousands of
 * bytes more in the same instruction. */
static void write_out(struct console *console, const void *bytes, size_t n)
{
    const uint8_t *next = bytes, *end = next + n;

    while (next < end && console->write_errno == 0 && !must_give_up()) {
        ssize_t written = write(STDOUT_FILENO, next, (size_t)(end - next));

        if (written > 0)
            next += written;
        else if (written < 0 && errno == EAGAIN && !wait_for_output())
            return;
        else if (written < 0 && errno != EAGAIN && errno != EINTR)
            console->write_errno = errno;
        if (next < end && requests_is_stop_wanted())
            return;
    }
    if (console->write_errno != 0)
        call_for_attention(console);
    else if (n > 0)
        console->is_line_open = end[-1] != '\n';
}

static void end_quoted_line(struct console *console)
{
    static const char mark[] = "        | ";
    char text[sizeof mark + CONSOLE_LINE_SIZE];
    int n;

    n = snprintf(text, sizeof text, "%s%.*s\n", mark, (int)console->line_length, console->line);
    console->line_length = 0;
    write_out(console, text, (size_t)n);
}

/* One write a line; a longer line is cut in two. */
static void write_quoted(struct console *console, const char *bytes, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (bytes[i] == '\n' || console->line_length == sizeof console->line - 1)
            end_quoted_line(console);
        if (bytes[i] != '\n' && bytes[i] != '\r' && bytes[i] != '\0')
            console->line[console->line_length++] = bytes[i];
    }
}

static void show(struct console *console, const void *bytes, size_t n)
{
    if (console->is_quoted)
        write_quoted(console, bytes, n);
    else
        write_out(console, bytes, n);
}

static void emit_screen_text(void *opaque, const char *text, size_t n)
{
    show(opaque, text, n);
}

static void console_write(void *opaque, const void *bytes, size_t n)
{
    struct console *console = opaque;

    if (!console->uses_stdio)
        return;
    if (!console->has_serial)
        screen_lines_end(&console->screen);
    console->has_serial = true;
    show(console, bytes, n);
}

static void console_screen(void *opaque, const struct screen *screen)
{
    struct console *console = opaque;

    if (console->uses_stdio && !console->has_serial)
        screen_lines_update(&console->screen, screen);
}

/* ---- input from a terminal ----------------------------------------------------------------------------- */

static void take_escape(struct console *console, uint8_t key)
{
    console->has_escape = false;
    switch (key) {
    case 'x':
    case 'X':
        console->is_quit = true;
        call_for_attention(console);
        break;
    case 'h':
    case 'H':
    case '?':
        fputs(key_help, stderr);
        break;
    case CTRL_A:
        if (console->n_typed < sizeof console->typed)
            console->typed[console->n_typed++] = CTRL_A;
        break;
    default:
        fputs("\nring3: Ctrl-A h lists the keys\n", stderr);
        break;
    }
}

/* Keys are read even when the guest has no room for them, so that Ctrl-A x always works; what does not fit is
 * lost, as on a real keyboard. */
static void read_keys(struct console *console)
{
    uint8_t keys[256];
    struct pollfd input = {.fd = STDIN_FILENO, .events = POLLIN};
    ssize_t n;

    if (console->is_over || poll(&input, 1, 0) <= 0)
        return;
    n = read(STDIN_FILENO, keys, sizeof keys);
    if (n == 0 || (n < 0 && errno != EINTR && errno != EAGAIN))
        console->is_over = true; /* the terminal is gone */
    for (ssize_t i = 0; i < n; i++) {
        if (console->has_escape)
            take_escape(console, keys[i]);
        else if (keys[i] == CTRL_A)
            console->has_escape = true;
        else if (console->n_typed < sizeof console->typed)
            console->typed[console->n_typed++] = keys[i];
    }
}

static size_t take_typed(struct console *console, uint8_t *bytes, size_t n)
{
    size_t taken = n < console->n_typed ? n : console->n_typed;

    memcpy(bytes, console->typed, taken);
    console->n_typed -= taken;
    memmove(console->typed, console->typed + taken, console->n_typed);
    return taken;
}

/* ---- waiting ------------------------------------------------------------------------------------------- */

/* Until standard input has something (if `reads`), a signal, or the time is over. */
static void wait_for_input(const struct console *console, bool reads, uint64_t timeout_ns)
{
    static const volatile int never;
    struct pollfd input = {.fd = STDIN_FILENO, .events = POLLIN};

    if (timeout_ns != 0)
        requests_wait(&input, reads ? 1 : 0, timeout_ns,
                      console->attention != NULL ? console->attention : &never);
}

static bool is_input_ready(void)
{
    struct pollfd input = {.fd = STDIN_FILENO, .events = POLLIN};

    return poll(&input, 1, 0) > 0;
}

static size_t read_terminal(struct console *console, uint8_t *bytes, size_t n, uint64_t timeout_ns)
{
    read_keys(console);
    if ((n == 0 || console->n_typed == 0) && !console->is_quit) {
        wait_for_input(console, !console->is_over, timeout_ns);
        read_keys(console);
    }
    if (n > 0 && console->n_typed == 0 && console->is_over)
        return CONSOLE_OVER;
    return n == 0 ? 0 : take_typed(console, bytes, n);
}

static size_t read_stream(struct console *console, uint8_t *bytes, size_t n, uint64_t timeout_ns)
{
    ssize_t got;

    wait_for_input(console, n > 0 && !console->is_over, timeout_ns);
    if (n == 0)
        return 0;
    if (!console->is_over && !is_input_ready())
        return 0;
    got = console->is_over ? 0 : read(STDIN_FILENO, bytes, n);
    if (got < 0 && (errno == EINTR || errno == EAGAIN))
        return 0;
    console->is_over = got <= 0;
    return got <= 0 ? CONSOLE_OVER : (size_t)got;
}

static size_t console_read(void *opaque, uint8_t *bytes, size_t n, uint64_t timeout_ns)
{
    struct console *console = opaque;

    if (!console->has_serial && console->uses_stdio)
        screen_lines_pause(&console->screen);
    if (!console->uses_stdio) {
        wait_for_input(console, false, timeout_ns);
        return n == 0 ? 0 : CONSOLE_OVER;
    }
    return terminal_is_raw() ? read_terminal(console, bytes, n, timeout_ns)
                             : read_stream(console, bytes, n, timeout_ns);
}

/* ---- requests ------------------------------------------------------------------------------------------ */

static void console_poll(void *opaque, struct vm *vm)
{
    struct console *console = opaque;

    if (requests_take_continued())
        terminal_make_raw_again();
    if (terminal_is_raw())
        read_keys(console);
    if (console->is_quit)
        vm_stop(vm, STOP_SIGNAL, "quit by Ctrl-A x");
    else if (requests_stop_signal() != 0)
        vm_stop(vm, STOP_SIGNAL, "stopped by SIG%s", sigabbrev_np(requests_stop_signal()));
    else if (requests_is_timed_out())
        vm_stop(vm, STOP_TIMEOUT, "the time given by --timeout is over");
    else if (console->write_errno != 0)
        vm_stop(vm, STOP_HOST, "standard output cannot be written: %s", strerror(console->write_errno));
}

/* ---- life ---------------------------------------------------------------------------------------------- */

void console_init(struct console *console, bool uses_stdio)
{
    *console = (struct console){.uses_stdio = uses_stdio};
    screen_lines_init(&console->screen, emit_screen_text, console);
}

bool console_open(struct console *console, bool uses_stdio, char *error, size_t error_size)
{
    console_init(console, uses_stdio);
    if (!uses_stdio)
        return true;
    if (!terminal_make_raw(error, error_size))
        return false;
    if (terminal_is_raw() && isatty(STDERR_FILENO))
        fputs("ring3: Ctrl-A x quits, Ctrl-A h lists the keys\n", stderr);
    return true;
}

void console_quote(struct console *console)
{
    console->is_quoted = true;
}

void console_configure(struct console *console, struct vm_config *config)
{
    config->console = console;
    config->console_write = console_write;
    config->console_screen = console_screen;
    config->console_read = console_read;
    config->poll = console_poll;
}

void console_attach(struct console *console, volatile int *attention)
{
    console->attention = attention;
}

void console_close(struct console *console)
{
    if (console->uses_stdio && !console->has_serial)
        screen_lines_end(&console->screen);
    if (console->line_length != 0)
        end_quoted_line(console);
    console->attention = NULL;
    terminal_restore();
}
