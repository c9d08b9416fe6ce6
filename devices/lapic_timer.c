/*
 * The local APIC's timer ("APIC Timer" in the SDM): one-shot or periodic, counting LAPIC_BUS_HZ divided by
 * 1-128. The state is a deadline, not a count: the count at any moment follows from it.
 *
 * Read next: clock.c.
 */
#include "devices/lapic_internal.h"

_Static_assert(LAPIC_BUS_HZ == 1000000000u, "one undivided tick is one nanosecond");

#define DIVIDE_WRITABLE 0xbu

static unsigned timer_shift(const struct lapic *lapic) /* "Divide Configuration Register" */
{
    unsigned code = (lapic->timer_divide & 3) | (lapic->timer_divide >> 1 & 4);
    return (code + 1) & 7;
}

static uint64_t timer_period(const struct lapic *lapic)
{
    return (uint64_t)lapic->timer_initial << timer_shift(lapic);
}

/* Lets what happened up to now happen: the interrupt, and the reload or the stop. Any number of missed
 * periods is one interrupt, as one IRR bit holds no more. Called before everything that looks at or changes
 * the timer. */
void lapic_timer_catch_up(struct lapic *lapic)
{
    uint32_t lvt = lapic->lvt[LVT_TIMER];

    if (!lapic->timer_running)
        return;
    uint64_t now = clock_now(lapic->clock);
    if (now < lapic->timer_deadline)
        return;
    if (lvt & LVT_PERIODIC) {
        uint64_t period = timer_period(lapic);
        lapic->timer_deadline += period * ((now - lapic->timer_deadline) / period + 1);
    } else {
        lapic->timer_running = false;
    }
    if (!(lvt & LVT_MASKED))
        lapic_accept_vector(lapic, lvt & LVT_VECTOR, false);
}

/* The clock need not call while an expiry could not be seen: masked, or its IRR bit set already. That bounds
 * the calls by the guest's own acknowledgements, however short a period it asks for. */
void lapic_timer_schedule(struct lapic *lapic)
{
    uint32_t lvt = lapic->lvt[LVT_TIMER];

    lapic->timer.is_one_shot = !(lvt & LVT_PERIODIC);
    if (lapic->timer_running && !(lvt & LVT_MASKED) && !lapic_vector_is_set(lapic->irr, lvt & LVT_VECTOR))
        clock_arm(lapic->clock, &lapic->timer, lapic->timer_deadline);
    else
        clock_disarm(lapic->clock, &lapic->timer);
}

void lapic_timer_fire(void *ctx)
{
    lapic_timer_catch_up(ctx);
    lapic_timer_schedule(ctx);
}

uint32_t lapic_timer_current_count(const struct lapic *lapic)
{
    if (!lapic->timer_running)
        return 0;
    uint64_t now = clock_now(lapic->clock);
    uint64_t left =
        lapic->timer_deadline > now ? lapic->timer_deadline - now : 0; /* time may have moved on */
    unsigned shift = timer_shift(lapic);
    return (uint32_t)((left + (1u << shift) - 1) >> shift);
}

void lapic_timer_write_initial(struct lapic *lapic, uint32_t value)
{
    lapic->timer_initial = value;
    lapic->timer_running = value != 0;
    lapic->timer_deadline = clock_now(lapic->clock) + timer_period(lapic);
}

/* The count goes on from where it is, at the new rate. */
void lapic_timer_write_divide(struct lapic *lapic, uint32_t value)
{
    uint64_t count = lapic_timer_current_count(lapic);

    lapic->timer_divide = value & DIVIDE_WRITABLE;
    lapic->timer_deadline = clock_now(lapic->clock) + (count << timer_shift(lapic));
}
