/*
 * Runs one hostile machine in a process of its own, under an engine and in the closed sandbox, and judges the
 * end: a reason, or its time being up, and the monitor as it was. Anything else is a complaint: the monitor
 * died, gave up, hung, went on when it was told to stop, grew, or has a shadow or memory that is not right.
 */
#ifndef RING3_HOSTILE_RUN_H
#define RING3_HOSTILE_RUN_H

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "monitor/monitor.h"
#include "monitor/stats.h"
#include "monitor/trace.h"
#include "signals/signals.h"
#include "translate/translate.h"

#define HANG_MS        20000 /* nothing that is right takes that long */
#define CPU_LIMIT_S    10
#define GROWTH_BYTES   (192ul << 20) /* of the address space: caches and the like */
#define SPACE_BYTES    (64ul << 20)  /* for each space that the translator makes */
#define CANARY_ADDRESS 0x200000000ul /* above all that 32-bit addresses can be added up to */
#define CANARY_SIZE    0x10000ul
#define MAX_LATENCY_NS 2000000000u /* from the end of its time to the end of the run, on a busy host too */

struct hostile_machine {
    struct vm_config config;
    const struct engine *engine;
    unsigned cpu_us, real_us; /* its time, busy and asleep */
    bool is_observed;         /* by the trace and the statistics */
    bool is_stepped;          /* through the CPU's trap flag */
    void (*build)(struct vm *vm, void *ctx);
    void (*finish)(struct vm *vm, void *ctx); /* in the child, at the end; NULL: nothing to do */
    void *ctx;
};

/* What the child tells. */
struct hostile_result {
    bool is_complete;
    enum stop_reason reason;
    char text[512];
    uint64_t n_exits, latency_ns, console_bytes;
    char complaint[256];
};

static struct vm hostile_vm;
static struct hostile_result *hostile_result; /* shared with the child */
static volatile sig_atomic_t hostile_time_is_up;
static uint64_t hostile_time_up_ns;
static uint64_t hostile_until_ns; /* of machine time; 0: only the host's counts */

/* ---- the child ----------------------------------------------------------------------------------------- */

/* Not the vDSO's, which reads the TSC. */
static inline uint64_t hostile_now_ns(void)
{
    struct timespec ts;

    syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static inline void hostile_on_time_up(int signo)
{
    (void)signo;
    if (!hostile_time_is_up)
        hostile_time_up_ns = hostile_now_ns();
    hostile_time_is_up = 1;
    hostile_vm.attention = 1;
}

static inline void hostile_poll(void *console, struct vm *vm)
{
    (void)console;
    if (hostile_time_is_up)
        vm_stop(vm, STOP_TIMEOUT, "its time is up");
    if (hostile_until_ns != 0 && vm->virtual_ns >= hostile_until_ns)
        vm_stop(vm, STOP_TIMEOUT, "the end that was chosen");
}

static inline void hostile_console_write(void *console, const void *bytes, size_t n)
{
    (void)console;
    (void)bytes;
    hostile_result->console_bytes += n;
}

static inline size_t hostile_console_read(void *console, uint8_t *bytes, size_t n, uint64_t timeout_ns)
{
    struct timespec wait = {.tv_sec = (time_t)(timeout_ns / 1000000000u),
                            .tv_nsec = (long)(timeout_ns % 1000000000u)};

    (void)console;
    if (timeout_ns != 0 && !hostile_time_is_up)
        ppoll(NULL, 0, timeout_ns == UINT64_MAX ? NULL : &wait, NULL);
    if (n != 0)
        memset(bytes, 'x', n);
    return n;
}

/* Again and again, since a wait may begin just after the first. */
static inline void hostile_start_timer(int which, int signo, unsigned us)
{
    struct sigaction action = {.sa_handler = hostile_on_time_up, .sa_flags = SA_ONSTACK};
    struct itimerval timer = {.it_interval = {0, 10000}, .it_value = {us / 1000000, us % 1000000}};

    sigaction(signo, &action, NULL);
    setitimer(which, &timer, NULL);
}

static inline void hostile_limit(int resource, rlim_t value)
{
    struct rlimit limit = {value, value};

    setrlimit(resource, &limit);
}

static inline unsigned long hostile_address_space(void)
{
    unsigned long pages = 0;
    FILE *statm = fopen("/proc/self/statm", "r");

    if (statm == NULL)
        return 0;
    if (fscanf(statm, "%lu", &pages) != 1)
        pages = 0;
    fclose(statm);
    return pages << PAGE_SHIFT;
}

static inline uint8_t *hostile_make_canary(void)
{
    uint8_t *canary = mmap((void *)CANARY_ADDRESS, CANARY_SIZE, PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);

    if (canary == MAP_FAILED)
        return NULL;
    memset(canary, 0xa5, CANARY_SIZE);
    return canary;
}

static inline void hostile_complain(const char *what, const char *detail)
{
    snprintf(hostile_result->complaint, sizeof hostile_result->complaint, "%s%s", what, detail);
}

static inline void hostile_check_canary(const uint8_t *canary)
{
    for (size_t i = 0; canary != NULL && i < CANARY_SIZE; i++)
        if (canary[i] != 0xa5) {
            hostile_complain("memory of the monitor was written", "");
            return;
        }
}

static inline void hostile_run_child(const struct hostile_machine *machine)
{
    struct vm *vm = &hostile_vm;
    struct vm_config config = machine->config;
    char error[256] = "";
    uint8_t *canary = hostile_make_canary();
    struct trace *trace = NULL;
    struct stats *stats = NULL;

    config.poll = hostile_poll;
    if (!vm_create(vm, &config, machine->engine, error, sizeof error)) {
        hostile_complain("no machine: ", error);
        _exit(0);
    }
    machine->build(vm, machine->ctx);
    vm->single_step = machine->is_stepped;
    if (machine->is_observed) {
        trace = trace_open("/dev/null", vm, "hostile", HOLES_EXPOSE, error, sizeof error);
        stats = stats_open("/dev/null", vm, error, sizeof error);
    }
    hostile_limit(RLIMIT_CORE, 0);
    hostile_limit(RLIMIT_CPU, CPU_LIMIT_S);
    hostile_limit(RLIMIT_AS,
                  hostile_address_space() + GROWTH_BYTES +
                      (machine->engine == &translate_engine ? SHADOW_MAX_SPACES * SPACE_BYTES : 0));
    hostile_start_timer(ITIMER_PROF, SIGPROF, machine->cpu_us);
    hostile_start_timer(ITIMER_REAL, SIGALRM, machine->real_us);
    if (!signals_close_sandbox(error, sizeof error)) {
        hostile_complain("no sandbox: ", error);
        _exit(0);
    }
    vm_run(vm);
    if (hostile_time_is_up)
        hostile_result->latency_ns = hostile_now_ns() - hostile_time_up_ns;
    hostile_result->reason = vm->stop_reason;
    memcpy(hostile_result->text, vm->stop_text, sizeof hostile_result->text);
    hostile_result->n_exits = vm->n_exits;
    if (machine->finish != NULL)
        machine->finish(vm, machine->ctx);
    if (vm->shadow != NULL && !shadow_check(vm->shadow, &vm->vcpu, true, error, sizeof error))
        hostile_complain("shadow: ", error);
    hostile_check_canary(canary);
    if (machine->is_observed &&
        (!trace_close(trace, error, sizeof error) || !stats_close(stats, error, sizeof error)))
        hostile_complain("records: ", error);
    hostile_result->is_complete = true;
    _exit(0);
}

/* ---- the parent ---------------------------------------------------------------------------------------- */

static inline const char *hostile_judge(int status, bool is_hung)
{
    static char text[sizeof hostile_result->complaint];

    if (is_hung)
        return "it hung: neither its time nor its CPU limit stopped it";
    if (WIFSIGNALED(status)) {
        snprintf(text, sizeof text, "the monitor died of signal %d", WTERMSIG(status));
        return text;
    }
    if (hostile_result->complaint[0] != '\0')
        return hostile_result->complaint;
    if (WEXITSTATUS(status) != 0 || !hostile_result->is_complete) {
        snprintf(text, sizeof text, "the monitor gave up, exit status %d", WEXITSTATUS(status));
        return text;
    }
    if (hostile_result->latency_ns > MAX_LATENCY_NS) {
        snprintf(text, sizeof text, "it ran on for %llu ms after its time was up",
                 (unsigned long long)hostile_result->latency_ns / 1000000);
        return text;
    }
    return NULL;
}

/* NULL: all is well, and hostile_result tells how it ended. Else the complaint. */
static inline const char *hostile_run(const struct hostile_machine *machine)
{
    struct pollfd end = {.events = POLLIN};
    bool is_hung;
    int status = 0;
    pid_t child;

    if (hostile_result == NULL)
        hostile_result =
            mmap(NULL, sizeof *hostile_result, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (hostile_result == MAP_FAILED)
        return "mmap";
    memset(hostile_result, 0, sizeof *hostile_result);
    fflush(stdout);
    child = fork();
    if (child == 0)
        hostile_run_child(machine);
    end.fd = (int)syscall(SYS_pidfd_open, child, 0);
    if (child < 0 || end.fd < 0)
        return "fork or pidfd_open";
    is_hung = poll(&end, 1, HANG_MS) == 0;
    if (is_hung)
        kill(child, SIGKILL);
    close(end.fd);
    if (waitpid(child, &status, 0) != child)
        return "waitpid";
    return hostile_judge(status, is_hung);
}

/* $RING3_FUZZ_SEEDS, "1234" or "1000-1999"; else those from 1 to n_default. */
static inline void hostile_read_seeds(uint64_t *first, uint64_t *last, uint64_t n_default)
{
    const char *text = getenv("RING3_FUZZ_SEEDS");
    char *end;

    *first = 1;
    *last = n_default;
    if (text == NULL)
        return;
    *first = *last = strtoull(text, &end, 10);
    if (*end == '-')
        *last = strtoull(end + 1, NULL, 10);
}

#endif
