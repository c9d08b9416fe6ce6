/*
 * A runner's process, and both ends of the two pipes to it. Read next: native.c.
 */
#include "runner.h"

#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#define HANG_MS 20000

struct shared {
    struct random_case random_case;
    struct random_result result;
    char error[256]; /* of create */
};

struct runner {
    const struct runner_kind *kind;
    const char *argument;
    struct shared *shared;
    int to_child, from_child;
    pid_t child;
};

/* ---- the child ----------------------------------------------------------------------------------------- */

void runner_set_alarm(unsigned us)
{
    struct itimerval timer = {.it_value = {us / 1000000, us % 1000000},
                              .it_interval = {0, us == 0 ? 0 : 20000}};

    setitimer(ITIMER_PROF, &timer, NULL);
}

bool runner_forbid_compat_calls(void)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AUDIT_ARCH_I386, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {.len = sizeof code / sizeof code[0], .filter = code};

    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
           prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

/* A late signal of its timers may arrive here. */
static bool wait_for_parent(int from_parent)
{
    char byte;
    ssize_t n;

    do {
        n = read(from_parent, &byte, 1);
    } while (n < 0 && errno == EINTR);
    return n == 1;
}

_Noreturn static void serve(struct runner *runner, int from_parent, int to_parent)
{
    struct shared *shared = runner->shared;
    void *state;
    char byte = 0;

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    state = runner->kind->create(runner->argument, shared->error, sizeof shared->error);
    if (state == NULL || write(to_parent, &byte, 1) != 1)
        _exit(1);
    while (wait_for_parent(from_parent)) {
        runner->kind->run(state, &shared->random_case, &shared->result);
        while (write(to_parent, &byte, 1) != 1)
            if (errno != EINTR)
                _exit(1);
    }
    _exit(0);
}

/* ---- the parent ---------------------------------------------------------------------------------------- */

static bool wait_for_child(struct runner *runner)
{
    struct pollfd end = {.fd = runner->from_child, .events = POLLIN};
    char byte;

    return poll(&end, 1, HANG_MS) == 1 && read(runner->from_child, &byte, 1) == 1;
}

static bool start_child(struct runner *runner)
{
    int down[2], up[2];

    if (pipe(down) != 0)
        return false;
    if (pipe(up) != 0) {
        close(down[0]);
        close(down[1]);
        return false;
    }
    fflush(stdout);
    runner->shared->error[0] = '\0';
    runner->child = fork();
    if (runner->child == 0) {
        close(down[1]);
        close(up[0]);
        serve(runner, down[0], up[1]);
    }
    close(down[0]);
    close(up[1]);
    runner->to_child = down[1];
    runner->from_child = up[0];
    return runner->child > 0 && wait_for_child(runner);
}

/* Returns how it ended. */
static int end_child(struct runner *runner)
{
    int status = 0;

    close(runner->to_child); /* if it lives, this ends it */
    close(runner->from_child);
    for (unsigned i = 0; runner->child > 0 && waitpid(runner->child, &status, WNOHANG) == 0; i++) {
        if (i == 100)
            kill(runner->child, SIGKILL);
        usleep(1000);
    }
    return status;
}

struct runner *runner_start(const struct runner_kind *kind, const char *argument, char *error,
                            size_t error_size)
{
    struct runner *runner = calloc(1, sizeof *runner);

    if (runner == NULL)
        return NULL;
    *runner = (struct runner){.kind = kind, .argument = argument};
    signal(SIGPIPE, SIG_IGN);
    runner->shared =
        mmap(NULL, sizeof *runner->shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (runner->shared == MAP_FAILED) {
        free(runner);
        return NULL;
    }
    if (!start_child(runner)) {
        snprintf(error, error_size, "%s",
                 runner->shared->error[0] != '\0' ? runner->shared->error
                                                  : "the runner's process did not start");
        runner_stop(runner);
        return NULL;
    }
    return runner;
}

void runner_stop(struct runner *runner)
{
    end_child(runner);
    munmap(runner->shared, sizeof *runner->shared);
    free(runner);
}

void runner_begin(struct runner *runner, const struct random_case *random_case)
{
    runner->shared->random_case = *random_case;
    runner->shared->result.status = RUN_DIED;
    runner->shared->result.text[0] = '\0';
    if (write(runner->to_child, "r", 1) != 1)
        return; /* it died: runner_wait sees it */
}

const struct random_result *runner_wait(struct runner *runner)
{
    struct random_result *result = &runner->shared->result;
    int status;

    if (wait_for_child(runner))
        return result;
    status = end_child(runner);
    result->status = RUN_DIED;
    if (WIFSIGNALED(status))
        snprintf(result->text, sizeof result->text, "the runner's process hung, or died of signal %d",
                 WTERMSIG(status));
    else
        snprintf(result->text, sizeof result->text, "the runner's process ended with status %d",
                 WEXITSTATUS(status));
    if (!start_child(runner)) {
        fprintf(stderr, "cannot start the runner again: %s\n", runner->shared->error);
        exit(1);
    }
    return result;
}
