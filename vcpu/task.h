/*
 * Hardware tasks: the task-state segment as the source of inner stacks, and the task switch (SDM Vol 3A ch.
 * 7).
 *
 * Read next: task.c.
 */
#ifndef RING3_VCPU_TASK_H
#define RING3_VCPU_TASK_H

#include "vcpu/descriptor.h"
#include "vcpu/internal.h"
#include "vcpu/vcpu.h"

/* SS:ESP for privilege level `cpl` (0-2) out of the current TSS, checked for that level: #TS, or #SS(SS) if
 * the segment is not present. Pushes beyond its limit raise #SS(SS). */
enum outcome task_inner_stack(struct vcpu *vcpu, unsigned cpl, uint32_t ext, struct stack *stack);

enum task_switch_cause { TASK_JUMP, TASK_CALL, TASK_INTERRUPT, TASK_IRET };

struct task_switch {
    uint16_t selector;
    struct descriptor descriptor; /* of the TSS it names: found and checked */
    enum task_switch_cause cause;
    uint32_t return_eip;   /* what is saved in the old TSS */
    uint32_t saved_eflags; /* likewise */
    bool has_error;        /* an exception's error code, pushed on the new task's stack */
    uint32_t error;
    uint32_t ext;
};

/* The TSS descriptor of a selector in a task gate, or in a far jump or call (which check the privilege
 * first): #GP unless it is in the GDT and an available TSS, #NP unless present. */
enum outcome task_find_available(struct vcpu *vcpu, uint16_t selector, uint32_t ext,
                                 struct descriptor *descriptor);
/* DONE: the new task runs next. FAULT: raised either in the old task, with nothing changed, or in the new one
 * (SDM Vol 3A table 7-1), with the switch made: vcpu->tr tells, but nobody has to know. */
enum outcome task_switch(struct vcpu *vcpu, const struct task_switch *task);
/* IRET with NT set: back to the task that the back link names. */
enum outcome task_return(struct vcpu *vcpu, uint32_t return_eip);

#endif
