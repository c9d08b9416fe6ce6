/* The end of a monitor that faulted: a report, and exit status 1. */
#ifndef RING3_CRASH_H
#define RING3_CRASH_H

#include <signal.h>
#include <ucontext.h>

struct vcpu;

/* Whose registers the report shows; NULL: none. */
void crash_set_vcpu(const struct vcpu *vcpu);
_Noreturn void crash_report(int signo, const siginfo_t *info, ucontext_t *uc);

#endif
