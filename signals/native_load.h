/* Segment registers that the guest loaded without a trap: the holes of data-segment loads. See native_load.c.
 */
#ifndef RING3_NATIVE_LOAD_H
#define RING3_NATIVE_LOAD_H

#include "monitor/monitor.h"
#include "signals/ldt.h"

/* The register now holds `selector`, which is not the one it was entered with: brings the vcpu up to date.
 * `bias` is the window's. */
void native_load_follow(struct vm *vm, const struct ldt *ldt, uint32_t bias, enum segment_index index,
                        uint16_t selector);

#endif
