/*
 * The stepping core. Two tools, neither of which the guest can see:
 *
 * Single steps: the engine runs one instruction and gives EXIT_STEP (under the trap engine some 10 us each).
 * Exact, and the only way to see each instruction, but far too slow to reach a place millions of them away.
 *
 * Held pages: a breakpoint is a linear address, and while the guest runs at full speed the page that holds it
 * cannot be fetched from. So the guest exits when it gets there, by a page fault that is ours and not its
 * own; on such a page it is stepped, one instruction after the other, until it stands on the breakpoint or
 * has left the page. Pages are held only between `enter` and `leave`: to the shadow nothing has happened.
 *
 * The usual breakpoint, an instruction written over the guest's, was not chosen: the guest would read it, sum
 * it, or overwrite it (kernels copy, relocate and clear themselves at boot, and a page may not even be mapped
 * yet when the breakpoint is set). Debug registers the host does not give us without ptrace. The price of
 * held pages: code that shares a page with a breakpoint runs at the speed of single steps.
 *
 * A breakpoint is met when CS:EIP comes to be there, before that instruction, by whatever way: native code,
 * an emulated IRET, the delivery of an interrupt. All of these end a turn of the loop in stepper_run.
 */
#include "monitor/stepper.h"

#include <string.h>

#include "monitor/trace.h"

static gva_t page_of(gva_t gva)
{
    return gva & ~(gva_t)PAGE_MASK;
}

/* ---- between the loop and the engine ------------------------------------------------------------------- */

static bool is_on_breakpoint_page(const struct stepper *stepper, gva_t gva)
{
    for (unsigned i = 0; i < stepper->n_breakpoints; i++)
        if (!stepper->breakpoint[i].is_trap && page_of(stepper->breakpoint[i].place) == page_of(gva))
            return true;
    return false;
}

static bool is_held(const struct stepper *stepper, gva_t gva)
{
    for (unsigned i = 0; i < stepper->n_held; i++)
        if (stepper->held[i] == page_of(gva))
            return true;
    return false;
}

static void hold_pages(struct stepper *stepper)
{
    for (unsigned i = 0; i < stepper->n_breakpoints; i++) {
        const struct breakpoint *breakpoint = &stepper->breakpoint[i];

        if (!breakpoint->is_trap && !is_held(stepper, breakpoint->place) &&
            shadow_allow_fetch(stepper->vm->shadow, breakpoint->place, false))
            stepper->held[stepper->n_held++] = page_of(breakpoint->place);
    }
}

static void release_pages(struct stepper *stepper)
{
    for (unsigned i = 0; i < stepper->n_held; i++)
        shadow_allow_fetch(stepper->vm->shadow, stepper->held[i], true);
    stepper->n_held = 0;
}

static void enter(void *opaque, struct vm *vm)
{
    struct stepper *stepper = opaque;

    /* `must_step`: an instruction that begins on the page before may reach into a held one. */
    stepper->is_stepping = stepper->goal == STEPPER_INSTRUCTION || stepper->must_step ||
                           vm->engine->window == NULL || /* there are no pages to hold */
                           is_on_breakpoint_page(stepper, trace_linear(&vm->vcpu));
    stepper->must_step = false;
    vm->single_step = stepper->is_stepping;
    if (!stepper->is_stepping)
        hold_pages(stepper);
}

/* Did the guest fetch from a page that only we deny it? It may also be one that the guest's own tables keep
 * from its user code. */
static bool is_fetch_from_held(const struct stepper *stepper, const struct vm_exit *exit)
{
    struct shadow_mapping mapping;

    return exit->reason == EXIT_PAGE_FAULT && (exit->fault.error & PF_FETCH) != 0 &&
           is_held(stepper, exit->fault.cr2) && shadow_find(stepper->vm->shadow, exit->fault.cr2, &mapping) &&
           (stepper->vm->vcpu.cpl != 3 || mapping.user);
}

static bool leave(void *opaque, struct vm *vm, const struct vm_exit *exit)
{
    struct stepper *stepper = opaque;

    vm->single_step = false;
    stepper->must_step = is_fetch_from_held(stepper, exit);
    release_pages(stepper);
    if (exit->reason == EXIT_STEP) {
        stepper->has_stepped = true;
        stepper->n_instructions++;
        return true;
    }
    return stepper->must_step;
}

/* ---- traps --------------------------------------------------------------------------------------------- */

static void remember(struct stepper *stepper, const struct vm_event *event)
{
    struct vm *vm = stepper->vm;
    struct stepper_trap *last = &stepper->last;

    last->event = *event;
    last->after = vm->vcpu;
    last->how[0] = '\0';
    if (event->disposition == DISPOSITION_INTERRUPT)
        return;
    if (vm->engine->describe_exit != NULL)
        vm->engine->describe_exit(vm->engine_state, last->how, sizeof last->how);
    if (event->guest_ns != 0 && event->guest_ns < stepper->least_guest_ns)
        stepper->least_guest_ns = event->guest_ns;
}

static void observe(void *opaque, const struct vm *vm, const struct vm_event *event)
{
    struct stepper *stepper = opaque;

    (void)vm;
    if (event->disposition != DISPOSITION_FILLED && event->disposition != DISPOSITION_RESUMED)
        stepper->has_moved = true;
    if (event->exit.reason == EXIT_STEP)
        return; /* the machine's own: an instruction that ran, but no trap */
    stepper->has_trap = true;
    remember(stepper, event);
    for (unsigned i = 0; i < stepper->n_breakpoints && stepper->met == NULL; i++)
        if (stepper->breakpoint[i].is_trap && trap_kind_matches(&stepper->breakpoint[i].kind, event))
            stepper->met = &stepper->breakpoint[i];
}

/* ---- running ------------------------------------------------------------------------------------------- */

static const struct breakpoint *breakpoint_here(const struct stepper *stepper)
{
    gva_t here = trace_linear(&stepper->vm->vcpu);

    for (unsigned i = 0; i < stepper->n_breakpoints; i++)
        if (!stepper->breakpoint[i].is_trap && stepper->breakpoint[i].place == here)
            return &stepper->breakpoint[i];
    return NULL;
}

static bool has_run_instruction(const struct stepper *stepper)
{
    enum disposition disposition = stepper->last.event.disposition;

    return stepper->has_stepped ||
           (stepper->has_trap && disposition != DISPOSITION_FILLED && disposition != DISPOSITION_RESUMED);
}

static bool is_goal_reached(const struct stepper *stepper)
{
    switch (stepper->goal) {
    case STEPPER_INSTRUCTION:
        return has_run_instruction(stepper);
    case STEPPER_TRAP:
        return stepper->has_trap;
    case STEPPER_CONTINUE:
        break;
    }
    return false;
}

static enum stepper_stop stop_at(struct stepper *stepper, const struct breakpoint *breakpoint)
{
    struct breakpoint *own = &stepper->breakpoint[breakpoint - stepper->breakpoint];

    own->n_hits++;
    stepper->hit = own;
    return STEPPER_BREAKPOINT;
}

/* One turn of the machine's loop. */
static void turn(struct stepper *stepper)
{
    gva_t before = trace_linear(&stepper->vm->vcpu);

    stepper->has_stepped = stepper->has_trap = false;
    stepper->met = NULL;
    vm_run_once(stepper->vm);
    if (stepper->has_stepped || trace_linear(&stepper->vm->vcpu) != before)
        stepper->has_moved = true;
}

enum stepper_stop stepper_run(struct stepper *stepper, enum stepper_goal goal)
{
    stepper->goal = goal;
    stepper->has_moved = stepper->must_step = false;
    stepper->hit = NULL;
    while (!vm_is_stopped(stepper->vm)) {
        const struct breakpoint *here;

        if (stepper->is_interrupted) {
            stepper->is_interrupted = 0;
            return STEPPER_INTERRUPTED;
        }
        turn(stepper);
        if (stepper->met != NULL)
            return stop_at(stepper, stepper->met);
        here = stepper->has_moved && !vm_is_stopped(stepper->vm) ? breakpoint_here(stepper) : NULL;
        if (here != NULL)
            return stop_at(stepper, here);
        if (is_goal_reached(stepper))
            return STEPPER_REACHED;
    }
    return STEPPER_ENDED;
}

enum stepper_stop stepper_run_to(struct stepper *stepper, gva_t place)
{
    struct breakpoint *here = &stepper->breakpoint[stepper->n_breakpoints++]; /* there is room for this one */
    enum stepper_stop stop;

    *here = (struct breakpoint){.place = place};
    stop = stepper_run(stepper, STEPPER_CONTINUE);
    stepper->n_breakpoints--;
    if (stop != STEPPER_BREAKPOINT || stepper->hit != here)
        return stop;
    stepper->hit = NULL;
    return STEPPER_REACHED;
}

void stepper_interrupt(struct stepper *stepper)
{
    stepper->is_interrupted = 1;
    stepper->vm->attention = 1;
}

/* ---- life, breakpoints --------------------------------------------------------------------------------- */

void stepper_init(struct stepper *stepper, struct vm *vm)
{
    memset(stepper, 0, sizeof *stepper);
    stepper->vm = vm;
    stepper->debugger = (struct vm_debugger){.enter = enter, .leave = leave, .ctx = stepper};
    stepper->least_guest_ns = UINT64_MAX;
    vm->debugger = &stepper->debugger;
    vm->timed = true;
    vm_observe(vm, observe, stepper);
}

static struct breakpoint *add(struct stepper *stepper)
{
    struct breakpoint *breakpoint = &stepper->breakpoint[stepper->n_breakpoints];

    if (stepper->n_breakpoints == STEPPER_MAX_BREAKPOINTS)
        return NULL;
    *breakpoint = (struct breakpoint){.number = ++stepper->n_numbers};
    stepper->n_breakpoints++;
    return breakpoint;
}

unsigned stepper_break_at(struct stepper *stepper, gva_t place)
{
    struct breakpoint *breakpoint = add(stepper);

    if (breakpoint == NULL)
        return 0;
    breakpoint->place = place;
    return breakpoint->number;
}

unsigned stepper_break_on(struct stepper *stepper, const struct trap_kind *kind)
{
    struct breakpoint *breakpoint = add(stepper);

    if (breakpoint == NULL)
        return 0;
    breakpoint->is_trap = true;
    breakpoint->kind = *kind;
    return breakpoint->number;
}

bool stepper_delete(struct stepper *stepper, unsigned number)
{
    unsigned i = 0;

    while (i < stepper->n_breakpoints && stepper->breakpoint[i].number != number)
        i++;
    if (i == stepper->n_breakpoints)
        return false;
    stepper->n_breakpoints--;
    memmove(&stepper->breakpoint[i], &stepper->breakpoint[i + 1],
            (stepper->n_breakpoints - i) * sizeof stepper->breakpoint[0]);
    return true;
}
