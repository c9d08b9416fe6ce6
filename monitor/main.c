/*
 * ring3: one binary, one subcommand for each thing a person does with a machine. This file is the list of
 * them. Read next: cmd_run.c.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "monitor/check.h"
#include "monitor/commands.h"
#include "monitor/options.h"

struct command {
    const char *name, *arguments, *summary;
    int (*main)(int argc, char **argv);
};

static const struct command commands[] = {
    {"run", "[KERNEL]", "boot a kernel, or the embedded tour guest", run_main},
    {"check", "KERNEL", "report a kernel's sensitive instructions", check_main},
    {"step", "[KERNEL]", "run one instruction, one trap, one breakpoint at a time", step_main},
    {"translate", "[KERNEL]", "show what the translator makes of a kernel's code", translate_main},
    {"doctor", "", "tell what this host offers, and what is missing", doctor_main},
    {"trace", "diff A B", "find the first difference of two traces", trace_main},
};

#define N_COMMANDS (sizeof commands / sizeof commands[0])

static void print_help(void)
{
    printf("usage: ring3 COMMAND [OPTIONS] [ARGUMENTS]\n\n"
           "A PC in an unprivileged process: boots unmodified i386 kernels, by trap-and-emulate or "
           "translation.\n\ncommands:\n");
    for (size_t i = 0; i < N_COMMANDS; i++)
        printf("  %-9s %-14s %s\n", commands[i].name, commands[i].arguments, commands[i].summary);
    printf("\n`ring3 COMMAND --help` tells more; `ring3 --version` shows the version.\n");
}

static int fail_unknown_command(const char *name)
{
    const char *names[N_COMMANDS];
    const char *suggestion;

    if (name[0] == '-')
        return options_usage_error("ring3", "unknown option %s", name);
    for (size_t i = 0; i < N_COMMANDS; i++)
        names[i] = commands[i].name;
    suggestion = options_suggest(name, names, N_COMMANDS);
    if (suggestion != NULL)
        return options_usage_error("ring3", "unknown command %s; did you mean %s?", name, suggestion);
    if (access(name, F_OK) == 0)
        return options_usage_error("ring3", "unknown command %s; to boot that file: ring3 run %s", name,
                                   name);
    return options_usage_error("ring3", "unknown command %s", name);
}

/* A descriptor 0, 1 or 2 that is closed would be taken by the next file opened, and the console would write
 * there. /dev/null opened the wrong way round keeps the place, and fails as the closed one would. */
static void keep_standard_descriptors(void)
{
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++) {
        if (fcntl(fd, F_GETFD) < 0 && errno == EBADF &&
            open("/dev/null", fd == STDIN_FILENO ? O_WRONLY : O_RDONLY) != fd)
            exit(EXIT_STATUS_HOST);
    }
}

/* Help and reports that could not be written are a failure, not a success nobody saw. */
static int finish(int status)
{
    bool failed = fflush(stdout) != 0 || ferror(stdout);

    if (failed && status == EXIT_STATUS_OK) {
        fprintf(stderr, "ring3: standard output cannot be written: %s\n", strerror(errno));
        return EXIT_STATUS_HOST;
    }
    return status;
}

int main(int argc, char **argv)
{
    const char *name = argc > 1 ? argv[1] : "";

    keep_standard_descriptors();
    signal(SIGXFSZ, SIG_IGN); /* a limit on file sizes fails the write, which says so */
    if (argc < 2) {
        fprintf(stderr, "ring3: no command\nTry `ring3 --help`.\n");
        return EXIT_STATUS_USAGE;
    }
    if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0 || strcmp(name, "help") == 0) {
        print_help();
        return finish(EXIT_STATUS_OK);
    }
    if (strcmp(name, "--version") == 0) {
        printf("ring3 %s\n", RING3_VERSION);
        return finish(EXIT_STATUS_OK);
    }
    for (size_t i = 0; i < N_COMMANDS; i++) {
        if (strcmp(name, commands[i].name) == 0)
            return finish(commands[i].main(argc - 1, argv + 1));
    }
    return fail_unknown_command(name);
}
