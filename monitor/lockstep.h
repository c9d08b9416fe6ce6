/*
 * A reference beside a running machine: every turn of the machine's loop is repeated on a second processor
 * with memory of its own, one instruction at a time by vcpu/, and the two must agree. See lockstep.c.
 */
#ifndef RING3_LOCKSTEP_H
#define RING3_LOCKSTEP_H

#include "monitor/monitor.h"

struct lockstep;

/* For a machine with its kernel loaded that has not run yet. From here on vm_run_once is lockstep_turn's to
 * call. NULL: one line in `error`. */
struct lockstep *lockstep_create(struct vm *vm, char *error, size_t error_size);
/* The machine goes on alone. */
void lockstep_destroy(struct lockstep *lockstep);
/* vm_run_once, and the reference follows. false: they differ, and `text` (of LOCKSTEP_TEXT) tells where and
 * how. */
#define LOCKSTEP_TEXT 2048
bool lockstep_turn(struct lockstep *lockstep, char *text);
/* Instructions that the reference has run. */
uint64_t lockstep_instructions(const struct lockstep *lockstep);

/* The first differences of two processors, as a line; false: there is none. */
bool lockstep_compare_processors(const struct vcpu *reference, const struct vcpu *other, char *text,
                                 size_t size);

#endif
