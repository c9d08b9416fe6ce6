/*
 * How often the guest exits, looked at only when the host interrupts it anyway (a timer, the console's poll):
 * a clock costs as much as a tenth of an exit.
 *
 * Guest user code runs in a code segment that ends below the guest's kernel. Some processors check that end
 * at each branch (AMD's Zen 4: up to 1.5 times as long; docs/benchmarks.md). A guest whose exits are rare is
 * better off with a whole segment and without its kernel's pages, which then are mapped again after each
 * change of view.
 */
#include "signals/pace.h"

/* Mapping a kernel's pages again takes some ten fills, about 50 us. */
#define SLOW_FROM_NS                                                                                         \
    500000u /* an exit: a guest with a 1 kHz tick makes ten exits in 1 ms, one with 100 Hz in 10 */
#define FAST_FROM_NS 100000u /* those fills are exits, too: less than what became slow has then */

bool pace_note_interruption(struct pace *pace, uint64_t now_ns, uint64_t n_exits)
{
    uint64_t ns = now_ns - pace->since_ns, exits = n_exits - pace->n_exits;
    bool was_slow = pace->is_slow, is_first = pace->since_ns == 0;

    pace->since_ns = now_ns;
    pace->n_exits = n_exits;
    if (!is_first && ns >= exits * SLOW_FROM_NS)
        pace->is_slow = true;
    else if (ns < exits * FAST_FROM_NS)
        pace->is_slow = false;
    return pace->is_slow != was_slow;
}
