/* Where the guest's linear addresses lie in this process. See window.c. */
#ifndef RING3_WINDOW_H
#define RING3_WINDOW_H

#include "shadowpt/shadowpt.h"

struct window {
    uint32_t bias;         /* guest address a lives at host address a + bias, mod 4 GiB */
    unsigned pressure;     /* at bias 0: how much the guest does in the hole */
    bool is_low_page_used; /* at the other: since the last look */
    unsigned n_faults;     /* since the last look */
};

struct shadow_window window_place(const struct window *window);
/* The guest needs memory in the hole; `must`: it runs code there. True: the window has moved, let the guest
 * try again. */
bool window_uncover(struct window *window, struct shadow *shadow, bool must);
/* To be called at every fault of the guest; `linear` is the address of a page fault, for others is_page_fault
 * is false. True: the window has moved. */
bool window_note_fault(struct window *window, struct shadow *shadow, bool is_page_fault, gva_t linear);

#endif
