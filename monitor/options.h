/*
 * Command lines: each command has one table of options, from which they are parsed, checked and shown by
 * --help.
 *
 * A row says where the value goes (an offset in the command's own struct) and which function puts it there.
 */
#ifndef RING3_OPTIONS_H
#define RING3_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Exit statuses, the same for every command; `ring3 run` adds (value << 1) | 1 for isa-debug-exit. */
enum exit_status {
    EXIT_STATUS_OK = 0,
    EXIT_STATUS_HOST = 1, /* the host or the monitor failed */
    EXIT_STATUS_USAGE = 2,
    EXIT_STATUS_GUEST = 3, /* the guest died */
    EXIT_STATUS_TIMEOUT = 4,
};

struct option {
    char letter;          /* 0: none */
    const char *name;     /* without the dashes */
    const char *argument; /* what --help calls it; NULL: the option takes none */
    const char *help;
    /* Puts the value (NULL where argument is NULL) at `field`. false: what is wrong with it, in `error`. */
    bool (*set)(const struct option *option, const char *value, void *field, char *error, size_t error_size);
    size_t field;               /* offset in the command's struct */
    const char *const *choices; /* for option_choice: NULL-terminated, in the order of the enum */
};

struct command_line {
    const char *command;   /* "ring3 run" */
    const char *arguments; /* "[KERNEL]", for the usage line */
    const char *summary;   /* one or two sentences */
    const char *epilogue;  /* shown after the options; may be NULL */
    const struct option *options;
    size_t n_options;
    unsigned min_arguments, max_arguments; /* besides options */
};

enum options_result {
    OPTIONS_OK,
    OPTIONS_HELP, /* --help was asked for and shown: exit with EXIT_STATUS_OK */
    OPTIONS_BAD,  /* the mistake was shown: exit with EXIT_STATUS_USAGE */
};

/* Parses argv[1..]. Options and arguments may be mixed; "--" ends the options. `arguments` gets up to
 * max_arguments pointers into argv, and is not touched beyond what was given. */
enum options_result options_parse(const struct command_line *line, int argc, char **argv, void *target,
                                  const char **arguments);
void options_print_help(const struct command_line *line);
/* Prints "command: what" and where to look for help, to stderr; returns EXIT_STATUS_USAGE. */
int options_usage_error(const char *command, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* ---- setters ------------------------------------------------------------------------------------------- */

typedef bool option_setter(const struct option *option, const char *value, void *field, char *error,
                           size_t error_size);

option_setter option_flag;   /* bool: true */
option_setter option_string; /* const char *: the value itself */
option_setter option_choice; /* an enum (int): the value's index in option->choices */
option_setter option_size;   /* uint64_t: bytes, with a suffix K, M or G; a number alone counts MiB */
option_setter
    option_duration; /* uint64_t: nanoseconds, given as seconds with an optional fraction, above 0 */

/* 0x1000, 4096: false if it is not a whole number that fits. */
bool options_parse_number(const char *text, uint64_t *number);
/* The one of the n names that `word` is probably a misspelling of; NULL: none is close. */
const char *options_suggest(const char *word, const char *const *names, size_t n);

#endif
