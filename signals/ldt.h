/* Guest segments as descriptors in this process's LDT. See ldt.c. */
#ifndef RING3_LDT_H
#define RING3_LDT_H

#include <stdbool.h>
#include <stdint.h>

#include "vcpu/vcpu.h"

#define LDT_MAX_ENTRIES 128 /* a larger LDT makes every modify_ldt dearer: the kernel copies it */

struct ldt_descriptor {
    uint32_t base;  /* host address */
    uint32_t limit; /* in pages if is_paged, else in bytes; the last one that is valid */
    bool is_code, is_down, is_restricted /* read-only data or execute-only code */, is_paged, is_32bit;
};

struct ldt_entry {
    struct ldt_descriptor descriptor;
    uint64_t last_use; /* 0: free */
};

struct ldt {
    struct ldt_entry entry[LDT_MAX_ENTRIES];
    uint64_t tick;     /* one per round of loads; entries used in the current round are not evicted */
    uint64_t n_writes; /* modify_ldt calls */
};

/* A new round of ldt_load: entries loaded before may be evicted from now on. */
void ldt_begin(struct ldt *ldt);
/* The host selector of a descriptor; made if there is none (*is_new is set then, never cleared). */
uint16_t ldt_load(struct ldt *ldt, const struct ldt_descriptor *descriptor, bool *is_new);
/* The descriptor behind a host selector of ours, or NULL. */
const struct ldt_descriptor *ldt_find(const struct ldt *ldt, uint16_t selector);

/* What a segment register holds after loading a descriptor of ours, with the host's base; no selector. */
struct segment ldt_segment(const struct ldt_descriptor *descriptor);
/* The mirror of a guest segment: shifted by `bias`, and for the user view cut off below `reach` (1<<32: no
 * cut), rounded down to what a descriptor can say. What is cut off faults, and the emulator decides. */
void ldt_mirror(const struct segment *segment, uint32_t bias, uint64_t reach,
                struct ldt_descriptor *descriptor);

#endif
