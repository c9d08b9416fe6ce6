/*
 * The reference engine: each instruction is fetched, decoded and run by vcpu/, on virtual state alone. It is
 * the slowest engine and the simplest: nothing of the guest touches the processor, so there are no holes, no
 * window, no signals, and real mode is like any other. What it does is what vcpu/ says, which makes it the
 * yardstick for the engines that are fast.
 *
 * To the monitor it looks like the others: a sensitive instruction, an access to a device and a fault of the
 * guest's are exits, everything else happens in here.
 *
 * Read next: fetch.c, vcpu/emulate.c.
 */
#include "monitor/interpret.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "monitor/exit.h"
#include "monitor/fetch.h"

/* No host timer: after so many instructions the clock is read. */
#define INSTRUCTIONS_PER_LOOK 256

struct interpreter {
    struct vm *vm;
    uint64_t deadline_ns; /* host time at which the loop wants to look; 0: never */
    unsigned until_look;  /* instructions */
};

static uint64_t interpret_host_ns(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static bool is_interrupted(struct interpreter *interpreter)
{
    if (interpreter->vm->attention)
        return true;
    if (--interpreter->until_look != 0)
        return false;
    interpreter->until_look = INSTRUCTIONS_PER_LOOK;
    if (interpreter->deadline_ns == 0 || interpret_host_ns() < interpreter->deadline_ns)
        return false;
    interpreter->vm->attention = 1;
    return true;
}

/* The guest's own fault, or one that keeps a device from being touched in here. */
static void exit_by_fault(struct vm *vm, struct vm_exit *exit)
{
    exit->reason = vm->held_device ? EXIT_PAGE_FAULT : EXIT_GUEST_FAULT;
    exit->fault = vm->vcpu.fault;
    vm->held_device = false;
    if (exit->fault.is_trap)
        vm->n_instructions++;
}

/* An instruction that needs nobody. true: the next one may follow. */
static bool run_ordinary(struct vm *vm, const struct insn *insn, struct vm_exit *exit)
{
    enum outcome outcome;

    vm->holds_devices = true;
    outcome = vcpu_emulate(&vm->vcpu, insn);
    vm->holds_devices = false;
    switch (outcome) {
    case OUTCOME_DONE:
        vm->n_instructions++;
        return true;
    case OUTCOME_PARTIAL:
        return true;
    case OUTCOME_FAULT:
        exit_by_fault(vm, exit);
        return false;
    case OUTCOME_STOP:
        return false;
    case OUTCOME_UNKNOWN:
        break;
    }
    vm_stop_at_insn(vm, insn, "this instruction is not emulated");
    return false;
}

bool interpret_one(struct vm *vm, struct vm_exit *exit)
{
    const struct insn *insn;
    bool is_patched;

    switch (vm_fetch(vm, &insn, &is_patched)) {
    case OUTCOME_DONE:
        break;
    case OUTCOME_FAULT:
        exit_by_fault(vm, exit);
        return false;
    default:
        return false;
    }
    if (insn->sensitive != NULL) {
        exit->reason = EXIT_SENSITIVE;
        return false;
    }
    return run_ordinary(vm, insn, exit);
}

static void interpret_run(void *opaque, struct vm_exit *exit)
{
    struct interpreter *interpreter = opaque;
    struct vm *vm = interpreter->vm;

    *exit = (struct vm_exit){.reason = EXIT_INTERRUPTED};
    exit->entered_ns = vm->timed ? interpret_host_ns() : 0;
    while (!is_interrupted(interpreter) && !vm_is_due(vm) && interpret_one(vm, exit)) {
        if (vm->single_step) {
            exit->reason = EXIT_STEP;
            break;
        }
    }
    vm->is_guest_interrupted = exit->reason == EXIT_INTERRUPTED;
    exit->host_ns = vm->timed ? interpret_host_ns() : 0;
}

static void interpret_arm(void *opaque, uint64_t host_ns)
{
    struct interpreter *interpreter = opaque;

    interpreter->deadline_ns = host_ns;
}

static void *interpret_create(struct vm *vm, char *error, size_t error_size)
{
    struct interpreter *interpreter = calloc(1, sizeof *interpreter);

    if (interpreter == NULL) {
        snprintf(error, error_size, "out of memory");
        return NULL;
    }
    *interpreter = (struct interpreter){.vm = vm, .until_look = INSTRUCTIONS_PER_LOOK};
    return interpreter;
}

static void interpret_destroy(void *opaque)
{
    free(opaque);
}

/* Nothing is kept that a walk did not just say. */
static void interpret_a20_changed(void *opaque)
{
    (void)opaque;
}

const struct engine interpret_engine = {
    .name = "interpret",
    .create = interpret_create,
    .destroy = interpret_destroy,
    .run = interpret_run,
    .host_ns = interpret_host_ns,
    .arm = interpret_arm,
    .a20_changed = interpret_a20_changed,
    .counts_instructions = true,
    .ends_shadows = true,
};
