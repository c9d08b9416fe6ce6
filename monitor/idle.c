/*
 * A tick is told from a timer that somebody waits for by what comes of it: the deadlines follow each other at
 * one distance, nothing else ends a wait, the kernel halts again at once, and no user code has run between.
 * So programs that sleep for a moment again and again are never late. But the end of a longer sleep is
 * unknown to us until the last tick before it, as the kernel sets its timer only for what comes first.
 * Therefore the slack grows with the time for which the guest has been idle: what it waits for is late by a
 * small part of the wait. (Linux itself gives a process that calls poll() a thousandth, up to 0.1 s.)
 *
 * The caller gives slack only where a late interrupt is not a lost one: to a timer that the kernel sets anew
 * each time, in a guest that reads what time it is instead of counting its ticks.
 *
 * Read next: run.c, who waits.
 */
#include "monitor/idle.h"

/* The part of the time spent idle by which a timer may be late: 1/32. */
#define PATIENCE_SHIFT 5

/* A kernel sets its timer a little after it has read the time: two deadlines are a tick apart by so much more
 * or less. */
static uint64_t tolerance(uint64_t tick)
{
    return tick / 8;
}

static bool is_a_tick(uint64_t distance, uint64_t tick)
{
    return distance > tick - tolerance(tick) && distance < tick + tolerance(tick);
}

static uint64_t least(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static void begin_anew(struct idle *idle, const struct idle_halt *halt)
{
    idle->tick = halt->deadline > idle->end ? halt->deadline - idle->end : 0;
    idle->since = halt->now;
}

/* Whole ticks: to be late for less would spare nothing. */
static uint64_t ticks_to_pass(const struct idle *idle, const struct idle_halt *halt)
{
    uint64_t patience = least((halt->now - idle->since) >> PATIENCE_SHIFT, halt->slack);

    if (idle->tick == 0)
        return 0;
    return least((patience + tolerance(idle->tick)) / idle->tick,
                 (halt->others - halt->deadline) / idle->tick);
}

uint64_t idle_wait_end(struct idle *idle, const struct idle_halt *halt)
{
    uint64_t n;

    if (halt->n_exits == idle->n_exits && halt->deadline == idle->deadline)
        return least(idle->end, halt->others);
    if (!halt->is_kernel || !is_a_tick(halt->deadline - idle->end, idle->tick) ||
        halt->now - idle->end > idle->tick / 2)
        begin_anew(idle, halt);
    n = ticks_to_pass(idle, halt);
    idle->n_passed += n;
    idle->n_exits = halt->n_exits;
    idle->deadline = halt->deadline;
    idle->end = halt->deadline + n * idle->tick;
    return idle->end;
}
