/*
 * Where the guest's linear addresses lie in this process: at host address a + bias.
 *
 * The best bias is 0. A bias is the base of the guest's code segment, and processors are not made for code
 * segments with a base: AMD's Zen 4 then predicts no branches, and guest code runs 4 to 17 times slower
 * (docs/benchmarks.md). But an ordinary user may not map the lowest 64 KiB of a process (vm.mmap_min_addr),
 * and some guests live there. What little others do there (interrupt vectors, the BIOS data area) is
 * emulated. A guest that does much, or runs code there, gets the other bias, which turns the hole to where it
 * has no memory; it gets the first one back when it has left its low pages.
 *
 * Only what the guest does counts, not the host's time: the same guest moves its window at the same places in
 * every run.
 */
#include "signals/window.h"

#define HOLE_SIZE 0x10000u /* vm.mmap_min_addr's default */

/* Compat-mode addresses wrap at 4 GiB, so with a bias the hole is at -bias. This one puts it at fee00000, the
 * local APIC: hardly ever RAM. */
#define BIAS_FOR_LOW_PAGES 0x01200000u

/* An emulated access costs about as much as any trap, a move what it takes to fill the window again. */
#define PRESSURE_OF_ACCESS 16u
#define PRESSURE_LIMIT     1024u /* 64 accesses in a row, or more with other faults in between */

#define FAULTS_BETWEEN_LOOKS 16384u

struct shadow_window window_place(const struct window *window)
{
    uint32_t hole = 0u - window->bias;

    return (struct shadow_window){
        .base = 0, .bias = window->bias, .hole_first = hole, .hole_last = hole + HOLE_SIZE - 1};
}

static void move(struct window *window, struct shadow *shadow, uint32_t bias)
{
    struct shadow_window place;

    *window = (struct window){.bias = bias};
    place = window_place(window);
    shadow_move_window(shadow, &place);
}

bool window_uncover(struct window *window, struct shadow *shadow, bool must)
{
    if (window->bias == 0) {
        window->pressure += PRESSURE_OF_ACCESS;
        must = must || window->pressure >= PRESSURE_LIMIT;
    }
    if (must)
        move(window, shadow, window->bias == 0 ? BIAS_FOR_LOW_PAGES : 0);
    return must;
}

static void unmap_low_pages(struct shadow *shadow)
{
    struct shadow_mapping mapping;

    for (gva_t gva = 0; gva < HOLE_SIZE; gva += PAGE_SIZE)
        if (shadow_find(shadow, gva, &mapping))
            shadow_drop_page(shadow, mapping.rpn);
}

/* Has the guest left its low pages? They are unmapped now and then, so that their use shows as a fault. */
static bool look(struct window *window, struct shadow *shadow)
{
    window->n_faults = 0;
    if (!window->is_low_page_used) {
        move(window, shadow, 0);
        return true;
    }
    window->is_low_page_used = false;
    unmap_low_pages(shadow);
    return false;
}

bool window_note_fault(struct window *window, struct shadow *shadow, bool is_page_fault, gva_t linear)
{
    if (window->bias == 0) {
        if (window->pressure > 0)
            window->pressure--;
        return false;
    }
    if (is_page_fault && linear < HOLE_SIZE)
        window->is_low_page_used = true;
    return ++window->n_faults >= FAULTS_BETWEEN_LOOKS && look(window, shadow);
}
