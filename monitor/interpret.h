/* The reference engine: see interpret.c. */
#ifndef RING3_INTERPRET_H
#define RING3_INTERPRET_H

#include "monitor/monitor.h"

/* Needs nothing of the host, and any number of machines may run under it. */
extern const struct engine interpret_engine;

/* One instruction. true: it was an ordinary one that ran, and the next may follow; false: *exit says what
 * else, and an exit that it leaves as it is was a machine that stopped, or an exit of the host's. */
bool interpret_one(struct vm *vm, struct vm_exit *exit);

#endif
