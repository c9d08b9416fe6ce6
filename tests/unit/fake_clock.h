/* A machine clock that stands still until the test moves it. */
#ifndef RING3_FAKE_CLOCK_H
#define RING3_FAKE_CLOCK_H

#include "devices/devices.h"

struct fake_clock {
    struct clock clock;
    uint64_t now;
};

static uint64_t fake_clock_now(void *ctx)
{
    return ((struct fake_clock *)ctx)->now;
}

static inline void fake_clock_init(struct fake_clock *fake)
{
    *fake = (struct fake_clock){.clock = {.now = fake_clock_now, .ctx = fake}};
}

/* Jumps to a moment and fires what came due, once. */
static inline void fake_clock_run_to(struct fake_clock *fake, uint64_t now)
{
    fake->now = now;
    clock_run(&fake->clock);
}

#endif
