/* How the parts of the machine reach one another: the ops of the vcpu and the host side of the board. See
 * machine.c. */
#ifndef RING3_MACHINE_H
#define RING3_MACHINE_H

#include "monitor/monitor.h"

extern const struct vcpu_ops machine_vcpu_ops;

/* The board's view of its surroundings, for board_config.host and .observer; ctx is the vm. */
struct board_host machine_board_host(struct vm *vm);
struct board_observer machine_board_observer(struct vm *vm);
/* Machine time: ns since power-on. */
uint64_t machine_now(void *vm);
void machine_observe_shadow(void *vm, enum shadow_change change, gva_t first, uint32_t n_pages);

/* After a write to any port: the A20 gate may have moved. */
void machine_follow_a20(struct vm *vm, uint16_t port);

void machine_add_note(struct vm *vm, const struct note *note);
/* Adds a note to the event being built, if anybody observes. */
static inline void machine_note(struct vm *vm, const struct note *note)
{
    if (vm->n_observers != 0)
        machine_add_note(vm, note);
}

#endif
