/*
 * How long an idle guest sleeps. Some kernels tick although nothing is to be done (Linux with
 * CONFIG_HZ_PERIODIC, as Debian's i386 kernels: 250 times a second), and each tick wakes a processor of the
 * host, runs through cold caches and sleeps again. So some ticks are passed over while nothing else happens:
 * the wait ends with a later one. See idle.c for the conditions.
 */
#ifndef RING3_IDLE_H
#define RING3_IDLE_H

#include <stdbool.h>
#include <stdint.h>

/* Zeroed: nothing is known yet. All times are machine times, ns. */
struct idle {
    uint64_t n_exits;  /* when the guest halted last */
    uint64_t deadline; /* of that wait */
    uint64_t end;      /* where it ends */
    uint64_t tick;     /* what lay between the last two ends */
    uint64_t since;    /* only the tick has happened since */
    uint64_t n_passed; /* ticks passed over, ever */
};

/* A guest that has halted. */
struct idle_halt {
    uint64_t n_exits; /* of the machine: what tells one HLT from the next */
    uint64_t now;
    uint64_t deadline; /* of the timer that is due next */
    uint64_t others;   /* of the one after it; CLOCK_NO_DEADLINE: none */
    uint64_t slack;    /* as late as the timer may be, and an eighth of a tick more; 0: not at all */
    bool is_kernel;    /* user code has not run since the last HLT */
};

/* When the wait is to end. Asked again in the same wait, the answer is the same, or earlier for `others`. */
uint64_t idle_wait_end(struct idle *idle, const struct idle_halt *halt);

#endif
