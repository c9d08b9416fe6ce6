/* The guest's segment registers as the host's. See mirror.c. */
#ifndef RING3_MIRROR_H
#define RING3_MIRROR_H

#include "monitor/monitor.h"
#include "signals/ldt.h"

struct mirror {
    struct ldt ldt;
    /* What the host segments were made from; nothing is done while it still holds. */
    struct segment mirrored[SEG_COUNT];
    uint16_t selector[SEG_COUNT]; /* what the guest is entered with */
    uint64_t reach;               /* the user view's limit then; 1<<32 in the kernel view */
    uint32_t bias;                /* of the window */
    bool is_valid;
};

/* Makes the host's segments those of the vcpu. *is_new is set (never cleared) if a descriptor changed. */
void mirror_load(struct mirror *mirror, const struct vcpu *vcpu, uint64_t reach, bool *is_new);
/* What mirror_load made, or would make, of the vcpu's segments. */
void mirror_describe(const struct mirror *mirror, const struct vcpu *vcpu, uint64_t reach,
                     struct real_registers *real);

#endif
