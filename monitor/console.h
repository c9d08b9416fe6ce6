/*
 * The console of a run: the guest's serial port, port 0xE9 and VGA text on standard input and output.
 *
 * What the guest writes to the serial port or to port 0xE9 goes out byte by byte. VGA text is shown as lines,
 * but only as long as the guest has written nothing there: many kernels write the same text to both. On a
 * terminal, input is raw, and Ctrl-A introduces the console's own keys; from a pipe or a file, every byte
 * goes to the guest.
 */
#ifndef RING3_CONSOLE_H
#define RING3_CONSOLE_H

#include "monitor/monitor.h"
#include "monitor/screen_lines.h"

#define CONSOLE_BUFFER_SIZE 1024
#define CONSOLE_LINE_SIZE   256

struct console {
    bool uses_stdio;
    bool has_escape;   /* the last key was Ctrl-A */
    bool is_quit;      /* Ctrl-A x */
    bool has_serial;   /* the guest wrote to the serial port or to port 0xE9 */
    bool is_over;      /* standard input has ended */
    int write_errno;   /* standard output failed: nothing more is written */
    bool is_line_open; /* the last byte written was not a newline */
    bool is_quoted; /* whole lines, marked as the guest's: standard output carries the readable trace, too */
    volatile int *attention;
    char line[CONSOLE_LINE_SIZE]; /* is_quoted: the line that is not complete yet */
    size_t line_length;
    uint8_t typed[CONSOLE_BUFFER_SIZE]; /* on a terminal: read, and not yet asked for by the guest */
    size_t n_typed;
    struct screen_lines screen;
};

/* For output alone: the terminal stays as it is. */
void console_init(struct console *console, bool uses_stdio);
/* Raw terminal, if standard input is one and uses_stdio. false: one line in `error`. */
bool console_open(struct console *console, bool uses_stdio, char *error, size_t error_size);
/* Guest output is shown as whole lines behind a mark, so that it can stand between the lines of a readable
 * trace. */
void console_quote(struct console *console);
/* Fills in the callbacks. */
void console_configure(struct console *console, struct vm_config *config);
/* The word that makes the run loop call the console's poll; before the machine runs. */
void console_attach(struct console *console, volatile int *attention);
/* Shows what the VGA still holds back, and puts the terminal back. */
void console_close(struct console *console);

#endif
