/* Who called: the guest's stack, by its frame pointers. */
#ifndef RING3_BACKTRACE_H
#define RING3_BACKTRACE_H

#include "monitor/monitor.h"

/* EIP and the return addresses above it, the innermost first, up to `max`. As far as frames are linked by
 * EBP, and lie ever higher: of code without frame pointers there is only the EIP. Returns how many; at
 * least 1. */
unsigned backtrace_walk(struct vm *vm, uint32_t *eip, unsigned max);

#endif
