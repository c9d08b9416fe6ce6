/*
 * Where a stepper's commands come from: the command line (-x), files (--commands), and standard input: by
 * line editing with a history on a terminal, else as plain lines. What is not typed is echoed behind the
 * prompt, so that the output of a script reads like a session.
 */
#ifndef RING3_STEP_INPUT_H
#define RING3_STEP_INPUT_H

#include <stdbool.h>
#include <stddef.h>

#define STEP_PROMPT      "(ring3) "
#define STEP_MAX_SOURCES 32

struct step_source {
    const char *name; /* for messages: "-x", or the file */
    const char *text; /* its lines; the caller's */
    size_t size;
    unsigned line;
};

struct step_editor; /* libedit, on a terminal */

struct step_input {
    struct step_source source[STEP_MAX_SOURCES];
    unsigned n_sources, next;
    bool reads_stdin;
    struct step_editor *editor; /* NULL: standard input or output is no terminal */
    char *line;
    size_t line_size;
    unsigned n_stdin_lines;
};

/* Sets up the editor, if it will be used: it reads the terminal's description from files, so this must be
 * before the sandbox closes. With `sources`, standard input is read only if it is a terminal. */
void step_input_open(struct step_input *input);
void step_input_close(struct step_input *input);

enum step_read {
    STEP_READ_LINE,
    STEP_READ_INTERRUPTED, /* Ctrl-C at the prompt */
    STEP_READ_END,         /* no more, or a signal that asks to end */
};

/* *line is valid until the next call. *is_typed: by a person, who can correct a mistake. */
enum step_read step_input_next(struct step_input *input, const char **line, bool *is_typed);
/* "FILE, line 3" of the line last read. */
void step_input_place(const struct step_input *input, char *text, size_t size);
/* From the handler of SIGINT. */
void step_input_interrupt(void);

#endif
