/*
 * clock: machine time, and the timers that chips keep armed in it.
 *
 * The armed timers are one list, earliest first; a board has fewer than ten. Nothing here knows where time
 * comes from, so a run under virtual time repeats exactly. Read next: i8254.c, the oldest user.
 */
#include "devices/devices.h"

#include "vcpu/fail.h"

#define NS_PER_SECOND 1000000000u

uint64_t clock_now(const struct clock *clock)
{
    return clock->now(clock->ctx);
}

uint64_t clock_next_deadline(const struct clock *clock)
{
    return clock->timers != NULL ? clock->timers->deadline : CLOCK_NO_DEADLINE;
}

uint64_t clock_deadline_after_next(const struct clock *clock)
{
    return clock->timers != NULL && clock->timers->next != NULL ? clock->timers->next->deadline
                                                                : CLOCK_NO_DEADLINE;
}

bool clock_next_is_one_shot(const struct clock *clock)
{
    return clock->timers != NULL && clock->timers->is_one_shot;
}

static void clock_tell_deadline(const struct clock *clock, uint64_t before)
{
    if (clock->deadline_changed != NULL && clock_next_deadline(clock) != before)
        clock->deadline_changed(clock->ctx);
}

static void timer_unlink(struct clock *clock, struct timer *timer)
{
    if (!timer->armed)
        return;
    struct timer **link = &clock->timers;
    while (*link != timer) {
        BUG_ON(*link == NULL); /* armed, but in another clock */
        link = &(*link)->next;
    }
    *link = timer->next;
    timer->next = NULL;
    timer->armed = false;
}

static void timer_link(struct clock *clock, struct timer *timer)
{
    struct timer **link = &clock->timers;
    while (*link != NULL && (*link)->deadline <= timer->deadline)
        link = &(*link)->next;
    timer->next = *link;
    timer->armed = true;
    *link = timer;
}

void clock_arm(struct clock *clock, struct timer *timer, uint64_t deadline)
{
    uint64_t before = clock_next_deadline(clock);

    timer_unlink(clock, timer);
    timer->deadline = deadline;
    if (deadline != CLOCK_NO_DEADLINE)
        timer_link(clock, timer);
    clock_tell_deadline(clock, before);
}

void clock_disarm(struct clock *clock, struct timer *timer)
{
    clock_arm(clock, timer, CLOCK_NO_DEADLINE);
}

/* The present is read once: a timer re-armed beyond it by its own `fire` waits for the next call, also when
 * host time moves on meanwhile, and so the loop ends. */
void clock_run(struct clock *clock)
{
    uint64_t before = clock_next_deadline(clock);
    uint64_t now = clock_now(clock);

    while (clock_next_deadline(clock) <= now && clock->timers != NULL) {
        struct timer *timer = clock->timers;
        timer_unlink(clock, timer);
        timer->fire(timer->ctx);
    }
    clock_tell_deadline(clock, before);
}

/* Whole seconds and the rest are converted apart: rest * hz < 10^9 * 2^32 fits in 64 bits. */
uint64_t clock_to_ticks(uint64_t ns, uint32_t hz)
{
    return ns / NS_PER_SECOND * hz + ns % NS_PER_SECOND * hz / NS_PER_SECOND;
}

uint64_t clock_from_ticks(uint64_t ticks, uint32_t hz)
{
    uint64_t seconds = ticks / hz;
    uint64_t rest = (ticks % hz * NS_PER_SECOND + hz - 1) / hz; /* rounded up: the tick is completed */

    if (seconds > (CLOCK_NO_DEADLINE - NS_PER_SECOND) / NS_PER_SECOND)
        return CLOCK_NO_DEADLINE;
    return seconds * NS_PER_SECOND + rest;
}
