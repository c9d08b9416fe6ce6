/* How often the guest exits. See pace.c. */
#ifndef RING3_PACE_H
#define RING3_PACE_H

#include <stdbool.h>
#include <stdint.h>

struct pace {
    uint64_t since_ns, n_exits; /* at the last interruption */
    bool is_slow; /* exits are rare: one may cost more, if the code between them then costs less */
};

/* To be called whenever the host has interrupted the guest. True: is_slow has changed. */
bool pace_note_interruption(struct pace *pace, uint64_t now_ns, uint64_t n_exits);

#endif
