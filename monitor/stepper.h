/*
 * Stepping a machine: to the next instruction, to the next trap, to a breakpoint. The core of every stepper;
 * it prints nothing and asks nothing.
 *
 * The golden rule: the guest cannot tell. Stepping makes no exits of the machine's own (they are taken by
 * struct vm_debugger before anything is done about them), so no virtual time passes, no event is counted, and
 * a trace of a stepped run is the trace of the run. Breakpoints change no byte of the guest: stepper.c says
 * how.
 *
 * Read next: stepper.c, trap_kind.h; cmd_step.c is the line-oriented user of this.
 */
#ifndef RING3_STEPPER_H
#define RING3_STEPPER_H

#include "monitor/monitor.h"
#include "monitor/trap_kind.h"

#define STEPPER_MAX_BREAKPOINTS 32
#define STEPPER_HOW_SIZE        160

enum stepper_goal {
    STEPPER_INSTRUCTION, /* until one instruction has run, or an interrupt was delivered */
    STEPPER_TRAP,        /* until the machine has handled an exit, or an interrupt was delivered */
    STEPPER_CONTINUE,    /* until a breakpoint */
};

enum stepper_stop {
    STEPPER_REACHED,     /* the goal */
    STEPPER_BREAKPOINT,  /* stepper->hit */
    STEPPER_INTERRUPTED, /* stepper_interrupt was called */
    STEPPER_ENDED,       /* vm_is_stopped */
};

struct breakpoint {
    unsigned number; /* from 1, never used again; 0: the one of stepper_run_to */
    bool is_trap;    /* `kind`; else a place */
    gva_t place;     /* linear */
    struct trap_kind kind;
    uint64_t n_hits;
};

/* A trap as it is remembered: what is needed to tell its life. */
struct stepper_trap {
    struct vm_event event; /* sequence 0: none yet */
    struct vcpu after;
    char how[STEPPER_HOW_SIZE]; /* by what way it came: the engine's word for it */
};

struct stepper {
    struct vm *vm;
    struct vm_debugger debugger;
    struct breakpoint breakpoint[STEPPER_MAX_BREAKPOINTS + 1];
    unsigned n_breakpoints, n_numbers;
    const struct breakpoint *hit; /* valid until the next call that changes breakpoints */

    struct stepper_trap last;
    uint64_t least_guest_ns; /* the quickest way through the guest that was seen: next to nothing but the
                                fault and the signal; UINT64_MAX: none yet */
    uint64_t n_instructions; /* run natively, one by one */

    /* of the run that goes on */
    enum stepper_goal goal;
    bool is_stepping;             /* this entry runs one instruction */
    bool must_step;               /* a held page was reached: run one instruction with nothing held */
    bool has_stepped, has_trap;   /* since the last turn */
    bool has_moved;               /* off the place where the run began */
    const struct breakpoint *met; /* by the trap of this turn */
    gva_t held[STEPPER_MAX_BREAKPOINTS + 1];
    unsigned n_held;
    volatile int is_interrupted;
};

/* Observes vm and becomes its debugger; vm->timed is on from now on. Both must live as long as each other. */
void stepper_init(struct stepper *stepper, struct vm *vm);

/* Returns the breakpoint's number, or 0: there is no room for another. */
unsigned stepper_break_at(struct stepper *stepper, gva_t place);
unsigned stepper_break_on(struct stepper *stepper, const struct trap_kind *kind);
bool stepper_delete(struct stepper *stepper, unsigned number);

enum stepper_stop stepper_run(struct stepper *stepper, enum stepper_goal goal);
/* As STEPPER_CONTINUE, and STEPPER_REACHED at the place. */
enum stepper_stop stepper_run_to(struct stepper *stepper, gva_t place);
/* Ends the run that goes on, or the next one at once; may be called from a signal handler. */
void stepper_interrupt(struct stepper *stepper);

#endif
