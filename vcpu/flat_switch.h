/*
 * The usual ways into ring 0 and back: see flat_switch.c. Each does all that the long way would, or nothing
 * at all and returns false; then the long way decides.
 */
#ifndef RING3_VCPU_FLAT_SWITCH_H
#define RING3_VCPU_FLAT_SWITCH_H

#include "vcpu/descriptor.h"
#include "vcpu/interrupt.h"
#include "vcpu/vcpu.h"

/* Through an interrupt or trap gate that was found present and may be used. Left to do: EFLAGS. */
bool flat_enter(struct vcpu *vcpu, const struct event *event, const struct descriptor *gate);
/* IRET with a 32-bit operand; *eflags is what was popped for them. Left to do: EFLAGS. */
bool flat_return(struct vcpu *vcpu, uint32_t *eflags);

#endif
