/* Single steps by the trap flag, hidden from the guest. See step.c. */
#ifndef RING3_STEP_H
#define RING3_STEP_H

#include "monitor/monitor.h"

enum step_insn { STEP_INSN_OTHER, STEP_INSN_PUSHF, STEP_INSN_POPF };

struct step {
    enum step_insn insn; /* what is about to run; then what has run */
    bool guest_tf;       /* the guest's own trap flag before it ran */
};

/* Before the guest is entered with TF set for us. */
void step_begin(struct step *step, struct vm *vm);
/* It came back; is_done: by #DB, so the instruction has run to its end. */
void step_end(struct step *step, bool is_done);
/* The instruction that has run loaded TF from the guest's own image: what the CPU holds now is the guest's.
 */
bool step_loads_flags(const struct step *step);
/* Takes our TF out of the image that PUSHF has just put on the guest's stack. To be called with the guest's
 * ESP and SS in the vcpu. */
void step_hide_flag(const struct step *step, struct vm *vm);

#endif
