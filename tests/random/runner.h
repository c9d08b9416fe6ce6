/*
 * Where sequences are run: each runner is a process of its own, so that a crash, a hang or a guest that got
 * out shows as a result and not as the end of the test. Case and result are shared memory.
 *
 * Read next: runner.c, native.c, machine.c.
 */
#ifndef RING3_RANDOM_RUNNER_H
#define RING3_RANDOM_RUNNER_H

#include "sequence.h"

enum run_status {
    RUN_OK,      /* ended by an exception */
    RUN_TIMEOUT, /* ran on and on */
    RUN_STOPPED, /* the machine stopped for another reason: `text` */
    RUN_DIED,    /* the runner's process ended: `text` */
};

struct random_result {
    enum run_status status;
    char text[256];
    uint32_t gpr[GPR_COUNT], eip, eflags;
    int vector; /* of the exception that ended it */
    uint32_t error, cr2;
    uint64_t ns; /* how long it took, natively */
    uint8_t fxsave[512];
    uint8_t memory[RANDOM_PAGES][PAGE_SIZE];
};

struct runner;

/* What a runner's process does: `create` once, then `run` for each case. NULL from create: why, in `error`.
 */
struct runner_kind {
    void *(*create)(const char *argument, char *error, size_t error_size);
    void (*run)(void *state, const struct random_case *random_case, struct random_result *result);
};

extern const struct runner_kind native_runner;  /* the CPU itself, in 32-bit compatibility mode */
extern const struct runner_kind machine_runner; /* ring3's machine; the argument is the engine's name */

/* NULL: one line in `error`. */
struct runner *runner_start(const struct runner_kind *kind, const char *argument, char *error,
                            size_t error_size);
void runner_stop(struct runner *runner);
/* Hands the case over and returns; runner_wait returns the result, which is valid until the next case. A
 * process that died is replaced. */
void runner_begin(struct runner *runner, const struct random_case *random_case);
const struct random_result *runner_wait(struct runner *runner);

/* ---- for the kinds ------------------------------------------------------------------------------------- */

#define NATIVE_LIMIT_US  20000
#define MACHINE_LIMIT_US 400000

/* SIGPROF after so much processor time; 0: not any more. */
void runner_set_alarm(unsigned us);
/* A 32-bit system call of this process becomes SIGSYS, and is not made. */
bool runner_forbid_compat_calls(void);

#endif
