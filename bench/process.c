/*
 * Whole processes: how soon `ring3 run` executes the guest's first instruction, and how much memory it holds
 * beyond the guest's RAM.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "bench/bench.h"
#include "vcpu/fail.h"

#define ARGUMENTS_MAX 16
#define BOOT_TIMEOUT  "60" /* seconds */

struct process {
    pid_t pid;
    int input, output; /* pipes to its standard input and from its standard output */
};

static double now_ns(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec * 1e9 + (double)ts.tv_nsec;
}

static bool start(const char *program, const char *const *arguments, struct process *process)
{
    const char *argv[ARGUMENTS_MAX + 7] = {program, "run", "--engine", "trap", "--timeout", BOOT_TIMEOUT};
    posix_spawn_file_actions_t actions;
    int input[2], output[2];
    bool ok;

    for (int i = 0; arguments[i] != NULL && i < ARGUMENTS_MAX; i++)
        argv[i + 6] = arguments[i];
    if (pipe2(input, O_CLOEXEC) != 0 || pipe2(output, O_CLOEXEC) != 0 ||
        posix_spawn_file_actions_init(&actions) != 0)
        die("cannot start a process: %s", strerror(errno));
    posix_spawn_file_actions_adddup2(&actions, input[0], STDIN_FILENO);
    posix_spawn_file_actions_adddup2(&actions, output[1], STDOUT_FILENO);
    posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
    ok = posix_spawn(&process->pid, program, &actions, NULL, (char **)(uintptr_t)argv, environ) == 0;
    posix_spawn_file_actions_destroy(&actions);
    close(input[0]);
    close(output[1]);
    process->input = input[1];
    process->output = output[0];
    return ok;
}

/* Reads its output until `text` has appeared. */
static bool wait_for_text(const struct process *process, const char *text)
{
    char seen[4096];
    size_t n = 0;

    for (;;) {
        ssize_t got = read(process->output, seen + n, sizeof seen - 1 - n);

        if (got <= 0)
            return false;
        n += (size_t)got;
        seen[n] = '\0';
        if (strstr(seen, text) != NULL)
            return true;
        if (n > sizeof seen / 2) { /* keep the end: the text may be cut in two */
            memmove(seen, seen + n - sizeof seen / 4, sizeof seen / 4);
            n = sizeof seen / 4;
        }
    }
}

static void finish(struct process *process, struct rusage *usage)
{
    close(process->input);
    close(process->output);
    wait4(process->pid, NULL, 0, usage);
}

bool measure_start(const char *program, const char *kernel, unsigned n_rounds, struct summary *wall_ns,
                   struct summary *cpu_ns, char *error, unsigned error_size)
{
    const char *const arguments[] = {kernel, NULL};
    double *wall = calloc(n_rounds, sizeof *wall), *cpu = calloc(n_rounds, sizeof *cpu);
    bool ok = wall != NULL && cpu != NULL;

    for (unsigned i = 0; ok && i < n_rounds; i++) {
        double began = now_ns();
        struct process process;
        struct rusage usage;

        ok = start(program, arguments, &process);
        if (!ok)
            break;
        ok = wait_for_text(&process, "!");
        wall[i] = now_ns() - began;
        finish(&process, &usage);
        cpu[i] = (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1e9 +
                 (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) * 1e3;
    }
    if (ok) {
        *wall_ns = summarize(wall, n_rounds);
        *cpu_ns = summarize(cpu, n_rounds);
    } else {
        snprintf(error, error_size, "%s run %s did not run the guest", program, kernel);
    }
    free(wall);
    free(cpu);
    return ok;
}

static bool read_status(pid_t pid, struct footprint *footprint)
{
    const struct {
        const char *name;
        unsigned *kib;
    } fields[] = {{"RssAnon:", &footprint->anon_kib},
                  {"RssFile:", &footprint->file_kib},
                  {"VmPTE:", &footprint->page_table_kib}};
    char path[64], line[256];
    unsigned n_found = 0;
    FILE *file;

    snprintf(path, sizeof path, "/proc/%d/status", (int)pid);
    file = fopen(path, "r");
    if (file == NULL)
        return false;
    while (fgets(line, sizeof line, file) != NULL)
        for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++)
            if (strncmp(line, fields[i].name, strlen(fields[i].name)) == 0) {
                *fields[i].kib = (unsigned)strtoul(line + strlen(fields[i].name), NULL, 10);
                n_found++;
            }
    fclose(file);
    return n_found == sizeof fields / sizeof fields[0];
}

bool measure_footprint(const char *program, const char *const *arguments, const char *input,
                       const char *until, struct footprint *footprint, char *error, unsigned error_size)
{
    struct process process;
    struct rusage usage;
    bool ok;

    if (!start(program, arguments, &process)) {
        snprintf(error, error_size, "%s cannot be started", program);
        return false;
    }
    ok = write(process.input, input, strlen(input)) == (ssize_t)strlen(input) &&
         wait_for_text(&process, until) && read_status(process.pid, footprint);
    if (!ok)
        snprintf(error, error_size, "the guest did not get as far as \"%s\"", until);
    kill(process.pid, SIGTERM);
    finish(&process, &usage);
    return ok;
}
