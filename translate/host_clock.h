/*
 * The host's monotonic clock, told by its TSC: so that translated code can read it, too, and nobody who asks
 * in another way gets an answer that does not fit. See host_clock.c.
 */
#ifndef RING3_TRANSLATE_HOST_CLOCK_H
#define RING3_TRANSLATE_HOST_CLOCK_H

#include <stdbool.h>
#include <stdint.h>

/* At TSC t the time is ns + ((t - tsc) * mul >> 64). */
struct host_clock_line {
    uint64_t tsc, ns, mul;
};

/* Can it be told by the TSC here? Must come before the sandbox closes. */
void host_clock_open(void);
/* From here on it is, if it can: returns whether. Takes a millisecond the first time. */
bool host_clock_start(void);
/* Now and then: keeps it with CLOCK_MONOTONIC. */
void host_clock_adjust(void);
/* CLOCK_MONOTONIC, or once it is told by the TSC nearly: it never goes back, and where the host's clock stood
 * still (in suspend) it may be ahead. */
uint64_t host_clock_ns(void);
/* The CLOCK_MONOTONIC of such a time. */
uint64_t host_clock_to_monotonic(uint64_t ns);
struct host_clock_line host_clock_line(void);

/* For tests: the line for what comes after `now`, where the last one was `last` and the clocks said tsc and
 * monotonic before; lead: what the clock is ahead for good. */
struct host_clock_sample {
    uint64_t tsc, ns;
};
struct host_clock_line host_clock_next_line(const struct host_clock_line *last,
                                            const struct host_clock_sample *before,
                                            const struct host_clock_sample *now, uint64_t *lead);
uint64_t host_clock_at(const struct host_clock_line *line, uint64_t tsc);

#endif
