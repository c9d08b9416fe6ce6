/*
 * translate: dynamic binary translation. All guest code, of kernel and user, becomes 64-bit host code in a
 * cache, block by block; sensitive instructions become calls into the monitor or a few instructions in line.
 * Nothing of the guest is ever executed as it is, so there are no holes, and no signals but for page faults.
 *
 * Read next: context.h (which register holds what), cache.h, build.h, engine.c.
 */
#ifndef RING3_TRANSLATE_H
#define RING3_TRANSLATE_H

#include "monitor/monitor.h"

extern const struct engine translate_engine;

#endif
