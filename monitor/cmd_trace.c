/* ring3 trace: what can be done with the traces of `ring3 run --trace`. Read next: trace_diff.c. */
#include <stdio.h>
#include <string.h>

#include "monitor/commands.h"
#include "monitor/options.h"
#include "monitor/trace_diff.h"

#define DEFAULT_CONTEXT 5
#define EXIT_DIFFERENT  1
#define EXIT_UNREADABLE 3

static bool add_ignored(const struct option *option, const char *value, void *field, char *error,
                        size_t error_size)
{
    struct trace_diff_options *options = field;

    (void)option;
    if (options->n_ignored == TRACE_DIFF_MAX_IGNORED) {
        snprintf(error, error_size, "too many keys");
        return false;
    }
    options->ignored[options->n_ignored++] = value;
    return true;
}

static bool set_context(const struct option *option, const char *value, void *field, char *error,
                        size_t error_size)
{
    uint64_t number;

    (void)option;
    if (!options_parse_number(value, &number) || number > TRACE_DIFF_MAX_CONTEXT) {
        snprintf(error, error_size, "must be a number up to %d", TRACE_DIFF_MAX_CONTEXT);
        return false;
    }
    *(unsigned *)field = (unsigned)number;
    return true;
}

#define FIELD(member) offsetof(struct trace_diff_options, member)

static const struct option diff_options[] = {
    {'C', "context", "N", "show N equal records before the difference (default 5)", set_context,
     FIELD(n_context), NULL},
    {'g', "guest", NULL,
     "compare only what the guest could see: not numbers, times,\ncauses of exits, nor what the monitor did "
     "for itself",
     option_flag, FIELD(is_guest_visible), NULL},
    {0, "ignore", "KEY", "leave a key out of the comparison; may be given several times", add_ignored, 0,
     NULL},
};

static const struct command_line diff_line = {
    .command = "ring3 trace diff",
    .arguments = "A B",
    .summary =
        "Finds the first difference of two traces and shows it in context. Differences of the headers\n"
        "(options, kernel, version) are told first.",
    .epilogue =
        "exit status:\n"
        "  0  the traces are the same\n"
        "  1  they differ\n"
        "  2  the command line is wrong\n"
        "  3  they are the same up to a place where one cannot be read: cut off, damaged, or no trace\n",
    .options = diff_options,
    .n_options = sizeof diff_options / sizeof diff_options[0],
    .min_arguments = 2,
    .max_arguments = 2,
};

static int diff_main(int argc, char **argv)
{
    struct trace_diff_options options = {.n_context = DEFAULT_CONTEXT};
    const char *paths[2];
    char error[512];

    switch (options_parse(&diff_line, argc, argv, &options, paths)) {
    case OPTIONS_OK:
        break;
    case OPTIONS_HELP:
        return EXIT_STATUS_OK;
    case OPTIONS_BAD:
        return EXIT_STATUS_USAGE;
    }
    switch (trace_diff(paths[0], paths[1], &options, stdout, error, sizeof error)) {
    case TRACE_DIFF_SAME:
        return EXIT_STATUS_OK;
    case TRACE_DIFF_DIFFERENT:
        return EXIT_DIFFERENT;
    case TRACE_DIFF_UNREADABLE:
        break;
    }
    fflush(stdout);
    fprintf(stderr, "ring3: %s\n", error);
    return EXIT_UNREADABLE;
}

int trace_main(int argc, char **argv)
{
    if (argc >= 2 && strcmp(argv[1], "diff") == 0)
        return diff_main(argc - 1, argv + 1);
    if (argc >= 2 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)) {
        printf("usage: ring3 trace diff [OPTIONS] A B\n\n"
               "  diff  the first difference of two traces (`ring3 trace diff --help`)\n");
        return EXIT_STATUS_OK;
    }
    if (argc < 2)
        return options_usage_error("ring3 trace", "missing argument: diff");
    return options_usage_error("ring3 trace", "unknown argument %s; there is: diff", argv[1]);
}
