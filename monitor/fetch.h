/* The instruction at an exit: fetched, un-patched, decoded, and remembered. See fetch.c. */
#ifndef RING3_FETCH_H
#define RING3_FETCH_H

#include "monitor/monitor.h"

struct insn_cache *insn_cache_create(void);
void insn_cache_free(struct insn_cache *cache);

/* The instruction at CS:EIP, the original one where a hole was patched. DONE: *insn points to it, until the
 * next call. FAULT, STOP: as vcpu_fetch. */
enum outcome vm_fetch(struct vm *vm, const struct insn **insn, bool *is_patched);

#endif
