/*
 * The last steps of every way into a code segment but the returns: far jumps and calls, call gates, interrupt
 * and trap gates. The target is known and its privilege checked; what is left is the stack, the limit, and
 * the change of registers.
 */
#ifndef RING3_VCPU_CODE_ENTRY_H
#define RING3_VCPU_CODE_ENTRY_H

#include "vcpu/descriptor.h"
#include "vcpu/internal.h"
#include "vcpu/vcpu.h"

#define CODE_ENTRY_FRAME_MAX 35 /* a call gate's: SS, ESP, 31 parameters, CS, EIP */

struct code_entry {
    struct descriptor code;
    uint16_t selector; /* its RPL is the CPL to be */
    uint32_t eip;
    struct stack stack; /* the one to use from now on */
    uint32_t *frame;    /* room for as many values as will be pushed: not zeroed each time */
    unsigned n;         /* of them so far, in the order they are pushed */
    unsigned size;      /* of each: 2 or 4 */
    uint32_t ext;
};

/* #SS if the frame does not fit, #GP(EXT) if eip lies beyond the segment, #PF; the frame is pushed. */
enum outcome code_entry_prepare(struct vcpu *vcpu, struct code_entry *entry);
/* CS:EIP, CPL, SS:ESP. Cannot fail. */
void code_entry_commit(struct vcpu *vcpu, const struct code_entry *entry);

#endif
