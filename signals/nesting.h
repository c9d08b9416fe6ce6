/*
 * Which signals may interrupt a handler. The engines' handlers all run on one alternate stack, and those for
 * what comes from outside must not pile up there, however fast it comes: while one runs, no other begins.
 * What an instruction raises is never held back.
 *
 * A handler that leaves by a jump, and not by its return, must put the mask back (nesting_end).
 */
#ifndef RING3_NESTING_H
#define RING3_NESTING_H

#include <signal.h>
#include <stddef.h>
#include <ucontext.h>

static const int synchronous_signals[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP, SIGSYS};

#define N_SYNCHRONOUS_SIGNALS (sizeof synchronous_signals / sizeof synchronous_signals[0])

static inline sigset_t nesting_asynchronous(void)
{
    sigset_t set;

    sigfillset(&set);
    for (size_t i = 0; i < N_SYNCHRONOUS_SIGNALS; i++)
        sigdelset(&set, synchronous_signals[i]);
    return set;
}

/* `uc` is what the handler of an asynchronous signal was given. */
static inline void nesting_end(const ucontext_t *uc)
{
    sigprocmask(SIG_SETMASK, &uc->uc_sigmask, NULL);
}

#endif
