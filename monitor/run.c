/*
 * The run loop, on one page. Everything that can happen to the machine happens in one of these steps, in this
 * order. Read next: exit.c.
 */
#include <string.h>

#include "monitor/exit.h"
#include "monitor/profile.h"

/* --clock=virtual with any other: what one exit costs in machine time. Any constant would do; this one is of
 * the order of a trap's real cost, so that delays written for real time take about as long as they say. */
#define VIRTUAL_NS_PER_EXIT 1000u

/* While the guest runs, console input is looked for this often; an idle guest is woken by it at once. */
#define INPUT_PERIOD_NS 10000000u

/* --clock=virtual: a guest that runs this long without an exit never will see time pass. */
#define SPIN_CPU_NS 3000000000u

/* --clock=virtual ends here. */
#define VIRTUAL_END_NS (UINT64_C(1) << 62)

/* After the devices' timers have run they rest, so that a timer with a period shorter than what an exit costs
 * leaves the guest time. As long as it is due again before the rest is over, each rest is twice the last. */
#define MIN_SLICE_NS 20000u
#define MAX_SLICE_NS 320000u

/* What the host timer is put off by beyond the end of a wait. An idle guest wakes for its tick, sets the next
 * one and halts again before this is over: then arming happens once for each tick. */
#define GUARD_NS 1000000u

static uint64_t earliest(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static uint64_t latest(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

/* ---- the steps ----------------------------------------------------------------------------------------- */

/* What the board has no room for is kept, and no more is read until it has gone; then at once, since more may
 * have come with it. */
static void offer_input(struct vm *vm)
{
    size_t taken;

    if (vm->n_input == 0)
        return;
    taken = board_console_input(vm->board, vm->input, vm->n_input);
    vm->n_input -= taken;
    memmove(vm->input, vm->input + taken, vm->n_input);
    if (vm->n_input == 0) {
        vm->next_input = 0;
        vm->attention = 1;
    }
}

/* Waits for console input no longer than `timeout_ns`, and offers it to the board. */
static void take_console_input(struct vm *vm, uint64_t timeout_ns)
{
    size_t n;

    if (vm->config.console_read == NULL)
        return;
    if (vm->n_input == 0 && !vm->is_input_over && board_console_wants_input(vm->board)) {
        n = vm->config.console_read(vm->config.console, vm->input, sizeof vm->input, timeout_ns);
        if (n == CONSOLE_OVER)
            vm->is_input_over = true;
        else
            vm->n_input = n;
    } else if (timeout_ns != 0) {
        vm->config.console_read(vm->config.console, vm->input, 0, timeout_ns);
    }
    offer_input(vm);
}

static bool may_get_input(const struct vm *vm)
{
    return vm->config.console_read != NULL && (!vm->is_input_over || vm->n_input != 0);
}

static uint64_t next_timer_run(const struct vm *vm)
{
    return latest(vm->next_deadline, vm->slice_end);
}

static void run_timers(struct vm *vm)
{
    bool is_storm = vm->next_deadline < vm->slice_end;

    clock_run(&vm->clock);
    vm->slice_ns = is_storm ? earliest(2 * vm->slice_ns, MAX_SLICE_NS) : MIN_SLICE_NS;
    vm->slice_end = machine_now(vm) + vm->slice_ns;
}

/* Devices whose time has come, input that has arrived, requests from outside. */
static void attend(struct vm *vm)
{
    uint64_t now = machine_now(vm);

    vm->attention = 0; /* before the work: what arrives during it must count again */
    vm->armed_ns = 0;  /* it may have struck; by another clock than ours, that may be a little behind */
    if (vm->profile != NULL)
        profile_attend(vm->profile, vm);
    if (vm->config.poll != NULL)
        vm->config.poll(vm->config.console, vm);
    if (now >= next_timer_run(vm))
        run_timers(vm);
    pvclock_attend(&vm->pvclock, &vm->memory, &vm->vcpu, now);
    if (now >= vm->next_input) {
        vm->next_input = may_get_input(vm) ? now + INPUT_PERIOD_NS : CLOCK_NO_DEADLINE;
        take_console_input(vm, 0);
    }
    vm->deadline_moved = true;
}

/* Machine time at which the guest is to be interrupted for the monitor's sake. */
static uint64_t next_event(const struct vm *vm)
{
    return earliest(next_timer_run(vm), vm->next_input);
}

static uint64_t host_time(const struct vm *vm, uint64_t when)
{
    return when == CLOCK_NO_DEADLINE ? UINT64_MAX : vm->host_start_ns + when;
}

static void arm(struct vm *vm, uint64_t host_ns)
{
    vm->engine->arm(vm->engine_state, host_ns);
    vm->armed_ns = host_ns;
}

/* It will strike in time, if perhaps once for nothing before: that costs less than arming anew for each
 * deadline that moves further away. */
static bool is_armed_by(const struct vm *vm, uint64_t host_ns)
{
    return host_ns == UINT64_MAX || (vm->armed_ns != 0 && vm->armed_ns <= host_ns);
}

/* The host timer interrupts the guest for whatever comes first. Virtual time needs none: it passes at exits;
 * there the timer only watches for a guest that never exits. */
static void arm_host_timer(struct vm *vm)
{
    uint64_t when = host_time(vm, next_event(vm));

    vm->deadline_moved = false;
    if (vm_is_counted(vm))
        return;
    if (vm->config.clock == CLOCK_VIRTUAL)
        arm(vm, vm->engine->host_ns() + SPIN_CPU_NS);
    else if (!is_armed_by(vm, when))
        arm(vm, when);
}

void vm_interrupt_within(struct vm *vm, uint64_t ns)
{
    if (vm->armed_ns == 0)
        arm(vm, vm->engine->host_ns() + ns);
}

/* The wait ends by itself: a signal at the same time would cost more than this. */
static void put_off_host_timer(struct vm *vm, uint64_t wait_end)
{
    uint64_t end = host_time(vm, wait_end);

    if (vm->armed_ns == 0 || vm->armed_ns > end)
        return;
    arm(vm, end == UINT64_MAX ? 0 : end + GUARD_NS);
}

void vm_note_deadline(struct vm *vm)
{
    vm->next_deadline = clock_next_deadline(&vm->clock);
    if (vm->config.clock == CLOCK_VIRTUAL || !is_armed_by(vm, host_time(vm, next_event(vm))))
        vm->deadline_moved = true;
}

static void deliver_pending(struct vm *vm)
{
    struct vcpu *vcpu = &vm->vcpu;

    if (board_nmi_take(vm->board))
        vcpu->nmi_pending = true;
    if (vcpu->nmi_pending && vcpu_accepts_nmi(vcpu)) {
        vcpu->nmi_pending = false;
        vcpu->halted = false;
        vm_deliver_interrupt(vm, INJECT_NMI, EXCEPTION_NMI);
    } else if (board_intr(vm->board) && vcpu_accepts_interrupt(vcpu)) {
        vcpu->halted = false;
        vm_deliver_interrupt(vm, INJECT_EXTERNAL, board_acknowledge(vm->board));
    }
}

/* Idle time costs nothing, so a guest can use up the clock's 64 bits; chips add to them without a thought. */
static void check_virtual_end(struct vm *vm)
{
    if (vm->virtual_ns >= VIRTUAL_END_NS)
        vm_stop(vm, STOP_IMPOSSIBLE, "the virtual clock has run for 146 years: there is no more");
}

/* With KVM's clock the guest reads what time it is, and need not be told of each tick. */
static uint64_t allowed_slack(const struct vm *vm)
{
    bool has_clock = (vm->vcpu.msr.kvm_system_time & MSR_KVM_ENABLED) != 0;

    return has_clock && clock_next_is_one_shot(&vm->clock) ? vm->config.idle_slack_ns : 0;
}

static uint64_t end_of_wait(struct vm *vm, uint64_t now)
{
    struct idle_halt halt = {.n_exits = vm->n_exits,
                             .now = now,
                             .deadline = vm->next_deadline,
                             .others = clock_deadline_after_next(&vm->clock),
                             .slack = allowed_slack(vm),
                             .is_kernel = !vm->has_run_user};

    vm->has_run_user = false;
    return vm->next_deadline == CLOCK_NO_DEADLINE ? CLOCK_NO_DEADLINE : idle_wait_end(&vm->idle, &halt);
}

/* Until a timer's time has come, or input, or a signal. */
static void wait_for_host(struct vm *vm, uint64_t now)
{
    uint64_t end = end_of_wait(vm, now);

    put_off_host_timer(vm, end);
    vm->deadline_moved = true;
    take_console_input(vm, end == CLOCK_NO_DEADLINE ? UINT64_MAX : end - now);
    if (vm->next_input != CLOCK_NO_DEADLINE && vm->next_input != 0) /* it has just been looked for */
        vm->next_input = machine_now(vm) + INPUT_PERIOD_NS;
}

/* HLT: nothing to run until an interrupt comes. */
static void wait_for_interrupt(struct vm *vm)
{
    uint64_t now;

    if ((vm->vcpu.eflags & EFLAGS_IF) == 0 && !vm->vcpu.nmi_pending) {
        vm_stop(vm, STOP_HALTED, "halted with interrupts off");
        return;
    }
    if (vm->next_deadline == CLOCK_NO_DEADLINE && !may_get_input(vm)) {
        vm_stop(vm, STOP_HALTED,
                "halted, waiting for an interrupt that can never come: no timer is armed and "
                "the console has no more input");
        return;
    }
    now = machine_now(vm);
    if (now >= vm->next_deadline) {
        clock_run(&vm->clock);
    } else if (vm->config.clock == CLOCK_VIRTUAL && vm->next_deadline != CLOCK_NO_DEADLINE) {
        take_console_input(vm, 0);
        vm->virtual_ns = vm->next_deadline;
        check_virtual_end(vm);
        clock_run(&vm->clock);
    } else {
        wait_for_host(vm, now);
    }
    if (vm->attention)
        attend(vm);
}

/* A pending interrupt that only the shadow of STI or MOV SS holds back: run exactly one instruction, and look
 * again. */
static bool is_held_by_shadow(const struct vm *vm)
{
    return vm->vcpu.interrupt_shadow != SHADOW_NONE &&
           (vm->vcpu.nmi_pending || (board_intr(vm->board) && (vm->vcpu.eflags & EFLAGS_IF) != 0));
}

/* The emulator ends a shadow when it runs an instruction; one that ran natively shows by EIP having moved, or
 * by the step that was made of it: STI is often followed by a jump to itself. */
static void end_interrupt_shadow(struct vm *vm, uint32_t entry_eip, const struct vm_exit *exit)
{
    if (!vm->engine->ends_shadows && (vm->vcpu.eip != entry_eip || exit->reason == EXIT_STEP))
        vm->vcpu.interrupt_shadow = SHADOW_NONE;
}

bool vm_is_counted(const struct vm *vm)
{
    return vm->config.clock == CLOCK_VIRTUAL && vm->engine->counts_instructions;
}

bool vm_is_due(const struct vm *vm)
{
    return vm_is_counted(vm) && vm->n_instructions >= vm->instruction_deadline;
}

void vm_pass_instructions(struct vm *vm)
{
    vm->virtual_ns += (vm->n_instructions - vm->n_timed_instructions) * VIRTUAL_NS_PER_INSTRUCTION;
    vm->n_timed_instructions = vm->n_instructions;
}

static void set_instruction_deadline(struct vm *vm)
{
    uint64_t when = next_event(vm);

    vm_pass_instructions(vm);
    vm->instruction_deadline =
        when == CLOCK_NO_DEADLINE ? UINT64_MAX
        : when <= vm->virtual_ns  ? vm->n_instructions
                                  : vm->n_instructions + (when - vm->virtual_ns) / VIRTUAL_NS_PER_INSTRUCTION;
}

static void pass_virtual_time(struct vm *vm, const struct vm_exit *exit)
{
    if (vm->config.clock != CLOCK_VIRTUAL)
        return;
    if (vm_is_counted(vm)) {
        vm_pass_instructions(vm);
        if (vm->virtual_ns >= next_event(vm))
            vm->attention = 1;
        return;
    }
    if (exit->reason == EXIT_INTERRUPTED) { /* not the guest's doing: must not show in its time */
        vm_check_spinning(vm, SPIN_CPU_NS);
        return;
    }
    vm->virtual_ns += VIRTUAL_NS_PER_EXIT;
    if (vm->virtual_ns >= next_event(vm))
        vm->attention = 1;
}

/* Is this exit a debugger's, and none of the machine's? */
static bool is_debugger_exit(struct vm *vm, const struct vm_exit *exit, bool is_held)
{
    const struct vm_debugger *debugger = vm->debugger;

    if (debugger == NULL || !debugger->leave(debugger->ctx, vm, exit))
        return false;
    return !is_held || exit->reason != EXIT_STEP; /* that step the machine would have made without it */
}

/* Runs the guest until it exits. false: the exit is the debugger's, not the machine's. */
static bool run_guest(struct vm *vm, struct vm_exit *exit)
{
    uint32_t entry_eip = vm->vcpu.eip;
    bool is_held = is_held_by_shadow(vm), is_stepping;

    vm->has_run_user |= vm->vcpu.cpl == 3;
    if (vm->debugger != NULL)
        vm->debugger->enter(vm->debugger->ctx, vm);
    is_stepping = vm->single_step;
    vm->single_step = is_stepping || is_held;
    vm->is_guest_interrupted = false;
    vm->engine->run(vm->engine_state, exit);
    if (vm_is_counted(vm))
        vm_pass_instructions(vm); /* before anybody asks what time it is */
    vm->single_step = is_stepping;
    end_interrupt_shadow(vm, entry_eip, exit);
    if (is_debugger_exit(vm, exit, is_held)) {
        vm->spin_exits = UINT64_MAX; /* a guest that is being stepped does not spin */
        return false;
    }
    if (vm->engine->settle != NULL)
        vm->engine->settle(vm->engine_state);
    return true;
}

/* ---- the loop ------------------------------------------------------------------------------------------ */

void vm_run_once(struct vm *vm)
{
    struct vm_exit exit;

    if (vm->attention)
        attend(vm);
    offer_input(vm);
    deliver_pending(vm);
    if (vm_is_stopped(vm))
        return;
    if (vm->vcpu.halted) {
        wait_for_interrupt(vm);
        return;
    }
    if (vm->deadline_moved)
        arm_host_timer(vm);
    if (vm_is_counted(vm))
        set_instruction_deadline(vm);

    if (!run_guest(vm, &exit))
        return;
    vm_handle_exit(vm, &exit);
    pass_virtual_time(vm, &exit);
    vm_check_shadow(vm);
}

void vm_run(struct vm *vm)
{
    while (!vm_is_stopped(vm)) {
        vm_run_once(vm);
        if (vm->stop_reason == STOP_RESET && vm->config.load != NULL)
            vm_restart(vm);
    }
}
