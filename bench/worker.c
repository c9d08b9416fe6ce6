/*
 * Two sides, each in a process of its own, doing rounds in turn. A worker is told by a byte to do a round and
 * answers with how long it took and what it computed.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "bench/bench.h"
#include "vcpu/fail.h"

#define WARM_UP_ROUNDS 5u
#define DO_ROUND       'r'

struct worker {
    pid_t pid;
    int command, answer; /* pipes */
};

struct answer {
    double ns; /* an operation */
    uint32_t result;
};

/* By the real system call: the vDSO's RDTSC faults once a machine has run in the process. */
static uint64_t cpu_ns(void)
{
    struct timespec ts;

    syscall(SYS_clock_gettime, CLOCK_THREAD_CPUTIME_ID, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/* The machine's timer may interrupt the wait. */
static bool is_round_wanted(int command)
{
    char byte = 0;
    ssize_t n;

    do
        n = read(command, &byte, 1);
    while (n < 0 && errno == EINTR);
    return n == 1 && byte == DO_ROUND;
}

static _Noreturn void serve(const struct side *side, int command, int answer)
{
    side->open(side);
    while (is_round_wanted(command)) {
        struct answer reply;
        uint64_t began;

        if (side->prepare != NULL)
            side->prepare(side);
        began = cpu_ns();
        reply.result = side->round(side);
        reply.ns = (double)(cpu_ns() - began) / side->n;
        if (write(answer, &reply, sizeof reply) != sizeof reply)
            break;
    }
    _exit(0);
}

static void start(const struct side *side, struct worker *worker)
{
    int command[2], answer[2];

    if (pipe(command) != 0 || pipe(answer) != 0 || (worker->pid = fork()) < 0)
        die("cannot start a process");
    if (worker->pid == 0) {
        close(command[1]);
        close(answer[0]);
        serve(side, command[0], answer[1]);
    }
    close(command[0]);
    close(answer[1]);
    worker->command = command[1];
    worker->answer = answer[0];
}

/* Not by closing its pipe alone: the other worker has inherited our end of it. */
static void stop(struct worker *worker)
{
    static const char done = 'q';

    if (write(worker->command, &done, 1) != 1)
        kill(worker->pid, SIGKILL);
    close(worker->command);
    close(worker->answer);
    waitpid(worker->pid, NULL, 0);
}

static bool do_round(const struct worker *worker, struct answer *answer)
{
    static const char command = DO_ROUND;

    return write(worker->command, &command, 1) == 1 &&
           read(worker->answer, answer, sizeof *answer) == sizeof *answer;
}

/* ---- figures ------------------------------------------------------------------------------------------- */

static int compare_values(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static double at_fraction(const double *sorted, unsigned n, double fraction)
{
    double place = fraction * (n - 1);
    unsigned below = (unsigned)place;

    return below + 1 < n ? sorted[below] + (place - below) * (sorted[below + 1] - sorted[below])
                         : sorted[below];
}

struct summary summarize(double *values, unsigned n)
{
    qsort(values, n, sizeof *values, compare_values);
    return (struct summary){.median = at_fraction(values, n, 0.5),
                            .low = at_fraction(values, n, 0.25),
                            .high = at_fraction(values, n, 0.75)};
}

bool compare_sides(const struct side *subject, const struct side *yardstick, unsigned n_rounds,
                   struct comparison *comparison, char *error, unsigned error_size)
{
    const struct side *sides[2] = {subject, yardstick};
    struct worker workers[2];
    double *ns[2], *ratio = calloc(n_rounds, sizeof *ratio);
    bool ok = true;

    for (int i = 0; i < 2; i++) {
        ns[i] = calloc(n_rounds, sizeof *ns[i]);
        if (ns[i] == NULL || ratio == NULL)
            die("out of memory");
        start(sides[i], &workers[i]);
    }
    for (unsigned round = 0; ok && round < n_rounds + WARM_UP_ROUNDS; round++) {
        struct answer answers[2];
        int first = round & 1; /* by turns: a drift of the machine's speed favours neither */

        ok = do_round(&workers[first], &answers[first]) && do_round(&workers[!first], &answers[!first]);
        if (!ok) {
            snprintf(error, error_size, "a measuring process failed");
        } else if (answers[0].result != answers[1].result) {
            snprintf(error, error_size, "the sides computed %#x and %#x", answers[0].result,
                     answers[1].result);
            ok = false;
        } else if (round >= WARM_UP_ROUNDS) {
            ns[0][round - WARM_UP_ROUNDS] = answers[0].ns;
            ns[1][round - WARM_UP_ROUNDS] = answers[1].ns;
            ratio[round - WARM_UP_ROUNDS] = answers[0].ns / answers[1].ns;
        }
    }
    for (int i = 0; i < 2; i++)
        stop(&workers[i]);
    if (ok)
        *comparison = (struct comparison){.subject = summarize(ns[0], n_rounds),
                                          .yardstick = summarize(ns[1], n_rounds),
                                          .ratio = summarize(ratio, n_rounds)};
    free(ns[0]);
    free(ns[1]);
    free(ratio);
    return ok;
}
