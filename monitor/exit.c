/*
 * What is done about an exit. The shape is lguest's: is it something we caused by de-privileging (emulate),
 * something our shadow has not caught up with (fill), or the guest's own business (reflect)? Read next:
 * vcpu/emulate.c.
 */
#include "monitor/exit.h"

#include <string.h>

#include "monitor/fetch.h"
#include "vcpu/fail.h"

#define OPCODE_INT1 0xf1

#define NAME_ROW(enumerator, name) [enumerator] = (name),

bool exit_has_fault(const struct vm_exit *exit)
{
    return exit->reason == EXIT_EXCEPTION || exit->reason == EXIT_PAGE_FAULT ||
           exit->reason == EXIT_GUEST_FAULT;
}

const char *exit_reason_name(enum exit_reason reason)
{
    static const char *const names[] = {EXIT_REASONS(NAME_ROW)};

    return names[reason];
}

const char *disposition_name(enum disposition disposition)
{
    static const char *const names[] = {DISPOSITIONS(NAME_ROW)};

    return names[disposition];
}

static enum disposition reflect(struct vm *vm, const struct fault *fault)
{
    struct fault copy = *fault; /* delivery may raise faults of its own into vcpu->fault */

    return vcpu_deliver_fault(&vm->vcpu, &copy) == OUTCOME_DONE ? DISPOSITION_REFLECTED : DISPOSITION_STOPPED;
}

static void record_insn(struct vm *vm, const struct insn *insn, bool is_patched)
{
    if (vm->n_observers == 0)
        return;
    vm->event.has_insn = true;
    vm->event.is_patched = is_patched;
    vm->event.insn = *insn;
}

enum disposition vm_end_insn(struct vm *vm, enum outcome outcome)
{
    struct vcpu *vcpu = &vm->vcpu;

    if (outcome == OUTCOME_DONE || (outcome == OUTCOME_FAULT && vcpu->fault.is_trap))
        vm->n_instructions++;
    if (outcome == OUTCOME_FAULT)
        return reflect(vm, &vcpu->fault);
    return outcome == OUTCOME_STOP || vm_is_stopped(vm) ? DISPOSITION_STOPPED : DISPOSITION_EMULATED;
}

/* Runs the instruction at CS:EIP on virtual state. `unknown` is the guest's own fault, for an instruction
 * that the emulator does not know: then it was not de-privileging that made it fault. */
static enum disposition emulate_insn(struct vm *vm, const struct insn *insn, const struct fault *unknown)
{
    bool is_patched = false;
    enum outcome outcome = insn != NULL ? OUTCOME_DONE : vm_fetch(vm, &insn, &is_patched);

    if (outcome == OUTCOME_DONE) {
        record_insn(vm, insn, is_patched);
        outcome = vcpu_emulate(&vm->vcpu, insn);
    }
    if (outcome != OUTCOME_UNKNOWN)
        return vm_end_insn(vm, outcome);
    if (unknown != NULL)
        return reflect(vm, unknown);
    vm_stop_at_insn(vm, insn,
                    "it touches memory that no host mapping can serve, and this form is not emulated");
    return DISPOSITION_STOPPED;
}

static enum disposition emulate(struct vm *vm, const struct fault *unknown)
{
    return emulate_insn(vm, NULL, unknown);
}

/* Processors look further ahead than the SDM says when they run a sensitive instruction (a far return to a
 * lower privilege level reads the outer stack before it refuses): whether its fault counts is the emulator's
 * to say. */
static bool is_sensitive_at_eip(struct vm *vm)
{
    const struct insn *insn;
    bool is_patched;

    return vm_fetch(vm, &insn, &is_patched) == OUTCOME_DONE && insn->sensitive != NULL;
}

/* Memory, but the window's hole is in the way. Code there is not run instruction by instruction: the window
 * must move. */
static bool uncover_hole(struct vm *vm, const struct vm_exit *exit)
{
    return vm->engine->uncover != NULL &&
           vm->engine->uncover(vm->engine_state, (exit->fault.error & PF_FETCH) != 0);
}

static enum disposition handle_page_fault(struct vm *vm, const struct vm_exit *exit)
{
    struct fault fault;

    switch (shadow_fault(vm->shadow, &vm->vcpu, exit->fault.cr2, exit->fault.error, &fault)) {
    case SHADOW_FILLED:
        return DISPOSITION_FILLED;
    case SHADOW_GUEST:
        if ((exit->fault.error & PF_FETCH) == 0 && is_sensitive_at_eip(vm))
            break;
        return reflect(vm, &fault);
    case SHADOW_HOLE:
        if (uncover_hole(vm, exit))
            return DISPOSITION_RESUMED;
        break;
    case SHADOW_EMULATE:
        break;
    }
    return emulate(vm, NULL);
}

/* int3 and into are traps: EIP is behind them. Delivery through the guest's gate (and its DPL check) is the
 * emulator's, from the instruction itself: go back to it. */
static void rewind_software_interrupt(struct vm *vm, uint8_t one_byte, uint8_t vector)
{
    uint8_t bytes[2] = {0, 0};
    gva_t end = vm->vcpu.segment[SEG_CS].base + vm->vcpu.eip;

    vm_peek(vm, end - 2, bytes, sizeof bytes);
    vm->vcpu.eip -= bytes[1] == one_byte ? 1 : bytes[0] == 0xcd && bytes[1] == vector ? 2 : 0;
}

/* #DB comes from TF: a trap, after the instruction (SDM Vol 3B 17.3.1.4); or from INT1 (F1), which some
 * processors report at the instruction and some after it. */
static enum disposition handle_debug(struct vm *vm, const struct vm_exit *exit)
{
    uint8_t byte = 0;

    if (!exit->fault.is_trap) {
        if (vm_peek(vm, vm->vcpu.segment[SEG_CS].base + vm->vcpu.eip, &byte, 1) != 1 || byte != OPCODE_INT1)
            vm->vcpu.eip--;
        return emulate(vm, &exit->fault);
    }
    vm->vcpu.dr[6] |= DR6_BS;
    return reflect(vm, &(struct fault){.vector = EXCEPTION_DB, .is_trap = true});
}

static enum disposition handle_exception(struct vm *vm, const struct vm_exit *exit)
{
    switch (exit->fault.vector) {
    case EXCEPTION_UD:
    case EXCEPTION_TS:
    case EXCEPTION_NP:
    case EXCEPTION_SS:
    case EXCEPTION_GP:
        /* The emulator checks the instruction against the guest's own state: if it may run it runs, and if it
         * may not, the fault raised is the one that hardware would have raised. */
        return emulate(vm, &exit->fault);
    case EXCEPTION_BP:
        rewind_software_interrupt(vm, 0xcc, EXCEPTION_BP);
        return emulate(vm, &exit->fault);
    case EXCEPTION_OF:
        rewind_software_interrupt(vm, 0xce, EXCEPTION_OF);
        return emulate(vm, &exit->fault);
    case EXCEPTION_DB:
        return handle_debug(vm, exit);
    case EXCEPTION_MF:
        /* The host's NE is set. With the guest's clear it is no exception but a wire: the emulator's to say.
         */
        return vm->vcpu.cr0 & CR0_NE ? reflect(vm, &exit->fault) : emulate(vm, &exit->fault);
    default:
        return reflect(vm, &exit->fault); /* #DE #BR #AC #XM: the guest's own, as they are */
    }
}

static enum disposition handle(struct vm *vm, const struct vm_exit *exit)
{
    switch (exit->reason) {
    case EXIT_EXCEPTION:
        return handle_exception(vm, exit);
    case EXIT_PAGE_FAULT:
        return handle_page_fault(vm, exit);
    case EXIT_HOST_CALL:
        return emulate(vm, NULL);
    case EXIT_SENSITIVE:
        return emulate_insn(vm, exit->insn, NULL);
    case EXIT_GUEST_FAULT:
        return reflect(vm, &exit->fault);
    case EXIT_INTERRUPTED:
    case EXIT_STEP:
        return vm_is_stopped(vm) ? DISPOSITION_STOPPED : DISPOSITION_RESUMED;
    case EXIT_REASON_COUNT:
        break;
    }
    BUG("exit reason %d", exit->reason);
}

void vm_event_begin(struct vm *vm, const struct vm_exit *exit)
{
    struct vm_event *event = &vm->event;

    if (vm->n_observers == 0)
        return;
    event->exit = *exit;
    event->time = machine_now(vm);
    event->before = vm->vcpu;
    event->has_insn = event->is_patched = false;
    event->handle_ns = vm->timed ? vm->engine->host_ns() : 0; /* for now, when it began */
    event->capture_ns = event->guest_ns = 0;
    if (vm->timed && exit->host_ns != 0) {
        event->capture_ns = event->handle_ns - exit->host_ns;
        event->guest_ns = exit->host_ns - exit->entered_ns;
    }
}

void vm_event_end(struct vm *vm, enum disposition disposition)
{
    struct vm_event *event = &vm->event;

    if (vm->n_observers == 0)
        return;
    event->sequence++;
    event->disposition = disposition;
    if (vm->timed)
        event->handle_ns = vm->engine->host_ns() - event->handle_ns;
    for (unsigned i = 0; i < vm->n_observers; i++)
        vm->observer[i].event(vm->observer[i].ctx, vm, event);
    event->n_notes = event->dropped_notes = 0;
}

void vm_handle_exit(struct vm *vm, const struct vm_exit *exit)
{
    enum disposition disposition;

    vm->n_exits++;
    if (exit->reason == EXIT_INTERRUPTED && !vm_is_stopped(vm))
        return; /* the host's business: no event, so that traces do not depend on it */
    vm_event_begin(vm, exit);
    disposition = handle(vm, exit);
    vm_event_end(vm, disposition);
    vm->foreseen.is_there = false; /* it was about this instruction */
}
