/* Processes: how they begin and end, and how they wake one another. Read next: files.c. */
#include "rows.h"
#include "system.h"

#define WARM_UP 64u /* turns before the clock runs: what is measured is not how a process begins */

static long child;

static void wait_for(long pid)
{
    must(system3(SYS_WAITPID, pid, 0, 0), "waitpid");
}

static void run_fork(uint32_t n)
{
    while (n-- > 0) {
        long pid = must(system0(SYS_FORK), "fork");

        if (pid == 0)
            leave(0);
        wait_for(pid);
    }
}

static void run_exec(uint32_t n)
{
    const char *const arguments[] = {own_path, EXIT_COMMAND, 0};
    const char *const environment[] = {0};

    while (n-- > 0) {
        long pid = must(system0(SYS_FORK), "fork");

        if (pid == 0) {
            system3(SYS_EXECVE, (long)own_path, (long)arguments, (long)environment);
            fail("execve");
        }
        wait_for(pid);
    }
}

static void finish_child(void)
{
    system2(SYS_KILL, child, SIGKILL);
    wait_for(child);
}

/* ---- a byte there and back, through two pipes ---------------------------------------------------------- */

static int there[2], back[2];

static void run_pipes(uint32_t n)
{
    char byte = 0;

    while (n-- > 0) {
        must(system3(SYS_WRITE, there[1], (long)&byte, 1), "write to a pipe");
        must(system3(SYS_READ, back[0], (long)&byte, 1), "read from a pipe");
    }
}

static void prepare_pipes(uint32_t n)
{
    (void)n;
    must(system1(SYS_PIPE, (long)there), "pipe");
    must(system1(SYS_PIPE, (long)back), "pipe");
    child = must(system0(SYS_FORK), "fork");
    if (child == 0) {
        char byte;

        while (system3(SYS_READ, there[0], (long)&byte, 1) == 1)
            system3(SYS_WRITE, back[1], (long)&byte, 1);
        leave(0);
    }
    run_pipes(WARM_UP);
}

static void finish_pipes(void)
{
    finish_child();
    for (unsigned i = 0; i < 2; i++) {
        system1(SYS_CLOSE, there[i]);
        system1(SYS_CLOSE, back[i]);
    }
}

/* ---- a turn there and back, by futexes ----------------------------------------------------------------- */

static volatile uint32_t *turns; /* in shared memory: odd, it is the child's turn */

static void pass_turn(uint32_t mine)
{
    uint32_t theirs = mine + 1;

    *turns = theirs;
    system3(SYS_FUTEX, (long)turns, FUTEX_WAKE, 1);
    while (*turns == theirs)
        system4(SYS_FUTEX, (long)turns, FUTEX_WAIT, (long)theirs, 0);
}

static void run_turns(uint32_t n)
{
    while (n-- > 0)
        pass_turn(*turns);
}

static void prepare_turns(uint32_t n)
{
    (void)n;
    turns = (volatile uint32_t *)map_pages(0, 1, MAP_SHARED);
    *turns = 0;
    child = must(system0(SYS_FORK), "fork");
    if (child == 0) {
        while (*turns == 0)
            system4(SYS_FUTEX, (long)turns, FUTEX_WAIT, 0, 0);
        for (;;)
            pass_turn(*turns);
    }
    run_turns(WARM_UP);
}

static void finish_turns(void)
{
    finish_child();
    unmap_pages((uint8_t *)turns, 1);
}

/* ---- system calls and signals -------------------------------------------------------------------------- */

static void run_getppid(uint32_t n)
{
    while (n-- > 0)
        system0(SYS_GETPPID);
}

static void run_getppid_int80(uint32_t n)
{
    while (n-- > 0) {
        long number = SYS_GETPPID;

        __asm__ volatile("int $0x80" : "+a"(number) : : "memory");
    }
}

static void run_yield(uint32_t n)
{
    while (n-- > 0)
        system0(SYS_SCHED_YIELD);
}

static volatile uint32_t n_signals;

static void handle_signal(int number)
{
    (void)number;
    n_signals++;
}

/* struct sigaction of the i386 kernel; it returns from the handler through its vDSO. */
struct kernel_action {
    void (*handler)(int);
    uint32_t flags, restorer, mask[2];
};

static void prepare_signal(uint32_t n)
{
    const struct kernel_action action = {.handler = handle_signal};

    (void)n;
    must(system4(SYS_RT_SIGACTION, SIGUSR1, (long)&action, 0, sizeof action.mask), "rt_sigaction");
    n_signals = 0;
}

static void run_signal(uint32_t n)
{
    long self = system0(SYS_GETPID);

    for (uint32_t i = 0; i < n; i++)
        system2(SYS_KILL, self, SIGUSR1);
    if (n_signals != n)
        fail("signals were lost");
}

const struct measure process_measures[] = {
    {"getppid", 0, run_getppid, 0, 0},
    {"getppid-int80", 0, run_getppid_int80, 0, 0},
    {"fork", 0, run_fork, 0, 0},
    {"exec", 0, run_exec, 0, 0},
    {"pipe", prepare_pipes, run_pipes, finish_pipes, 0},
    {"futex", prepare_turns, run_turns, finish_turns, 0},
    {"yield", 0, run_yield, 0, 0},
    {"signal", prepare_signal, run_signal, 0, 0},
    {0, 0, 0, 0, 0},
};
