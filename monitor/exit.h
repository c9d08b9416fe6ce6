/* Shared by exit.c, run.c and vm.c: building events, and stopping at an instruction. */
#ifndef RING3_EXIT_H
#define RING3_EXIT_H

#include "monitor/machine.h"
#include "monitor/monitor.h"

/* An event is open between begin and end; notes go to it (notes between two events go to the next). */
void vm_event_begin(struct vm *vm, const struct vm_exit *exit);
void vm_event_end(struct vm *vm, enum disposition disposition);
/* Ends the run because this instruction cannot be run exactly: STOP_IMPOSSIBLE with its bytes and text. */
void vm_stop_at_insn(struct vm *vm, const struct insn *insn, const char *why);
/* Delivers an interrupt or NMI as an event of its own. */
void vm_deliver_interrupt(struct vm *vm, enum injection_kind kind, uint8_t vector);
void vm_check_spinning(struct vm *vm, uint64_t limit_cpu_ns);
/* The debug option: ends the process with the exit's number if the shadow invariant is broken. */
void vm_check_shadow(struct vm *vm);

#endif
