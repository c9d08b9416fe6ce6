/*
 * The trap engine's side of the run loop: before the guest runs, its segments and view are made true on the
 * host; after it stopped, the captured state goes back to the vcpu and the signal becomes an exit. Read next:
 * entry.S, frame.c.
 */
#include <asm/prctl.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#if __has_include(<sys/rseq.h>)
#include <sys/rseq.h>
#endif
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "signals/crash.h"
#include "signals/frame.h"
#include "signals/mirror.h"
#include "signals/native_load.h"
#include "signals/pace.h"
#include "signals/signals.h"
#include "signals/step.h"
#include "signals/window.h"
#include "signals/world.h"
#include "vcpu/fail.h"

/* What of the low 4 GiB an ordinary user may map; window.c says where in it the guest lies. */
#define WINDOW_FIRST 0x10000ul
#define WINDOW_END   0x100000000ul

/* Linux emulates the instructions that UMIP catches (signals/probe.c), and adds a segment's base to an offset
 * without cutting the sum to 32 bits: what it then writes to must never be ours. */
#define GUARD_END 0x200000000ul

#define ALTERNATE_STACK_SIZE (256ul << 10)
#define HWCAP2_FSGSBASE_BIT  2
#define VDSO_MAX_SIZE        0x4000u
#define RSEQ_AREA_SIZE       32u /* what glibc registers */

/* EFLAGS bits that the CPU keeps for us; the others are virtual. AC is added where it does something. RF
 * goes in, but does not come back: the CPU sets it in the image that every fault saves, and it is 0 once an
 * instruction has run. */
#define NATIVE_FLAGS                                                                                         \
    (EFLAGS_CF | EFLAGS_PF | EFLAGS_AF | EFLAGS_ZF | EFLAGS_SF | EFLAGS_OF | EFLAGS_DF | EFLAGS_TF |         \
     EFLAGS_NT | EFLAGS_ID)

struct trap_state {
    struct vm *vm;
    struct window window;
    struct pace pace;
    struct mirror mirror;
    timer_t timer;
    bool has_timer, is_started, has_cpuid_fault;
    void *stack;
    bool is_user; /* the view that the window and the mirror have */
    struct step step;
    unsigned loaded_natively; /* segment registers, by bits 1 << enum segment_index */
    bool is_exit_signal;      /* the last exit came by a signal: trap_world tells of it */
};

static bool vector_has_error(int vector)
{
    return vector == EXCEPTION_DF || (vector >= EXCEPTION_TS && vector <= EXCEPTION_PF) ||
           vector == EXCEPTION_AC;
}

/* ---- into the guest ------------------------------------------------------------------------------------ */

static void exit_with_fetch_fault(struct vm_exit *exit, gva_t address, bool is_user)
{
    *exit = (struct vm_exit){.reason = EXIT_PAGE_FAULT,
                             .fault = {.vector = EXCEPTION_PF,
                                       .has_error = true,
                                       .error = PF_FETCH | (is_user ? PF_USER : 0),
                                       .cr2 = address}};
}

/* Makes the host's segments and the window's view those of the vcpu. false: the guest cannot be entered at
 * this EIP, and *exit says why. */
static bool prepare(struct trap_state *state, struct vm_exit *exit)
{
    struct vm *vm = state->vm;
    struct vcpu *vcpu = &vm->vcpu;
    const struct segment *code = &vcpu->segment[SEG_CS];
    gva_t linear = code->base + vcpu->eip;
    bool is_user = vcpu->cpl == 3;
    uint64_t reach = UINT64_C(1) << 32;
    bool is_new = false;

    *exit = (struct vm_exit){.reason = EXIT_INTERRUPTED};
    if (!vcpu_is_protected(vcpu) || vcpu_is_v8086(vcpu)) {
        vm_stop(vm, STOP_IMPOSSIBLE,
                "the guest went into %s mode, which no 64-bit host can run natively; "
                "the trap engine runs 32-bit protected mode only",
                vcpu_is_v8086(vcpu) ? "virtual-8086" : "real");
        return false;
    }
    if (is_user != state->is_user || !state->mirror.is_valid) {
        shadow_set_view(vm->shadow, vcpu, is_user);
        state->is_user = is_user;
    }
    if (vcpu->eip > code->limit) {
        *exit = (struct vm_exit){.reason = EXIT_EXCEPTION,
                                 .fault = {.vector = EXCEPTION_GP, .has_error = true, .error = 0}};
        return false;
    }
    if (is_user) {
        reach = shadow_user_limit(vm->shadow);
        if (linear >= reach) {
            struct walk walk;
            struct fault fault;

            /* A real CPU would fault at the target; the truncated segment would fault at the branch. */
            if (!guest_walk(&vm->memory, vcpu, linear, ACCESS_FETCH | ACCESS_USER, true, &walk, &fault)) {
                exit_with_fetch_fault(exit, linear, true);
                return false;
            }
            shadow_raise_user_limit(vm->shadow, linear);
            shadow_set_view(vm->shadow, vcpu, true);
            reach = shadow_user_limit(vm->shadow);
        }
    }
    mirror_load(&state->mirror, vcpu, reach, &is_new);
    if (is_new)
        trap_world.reload = 1;
    return true;
}

static bool is_stack_16bit(const struct vcpu *vcpu)
{
    return (vcpu->segment[SEG_SS].attributes & (SEGMENT_P | SEGMENT_DB)) == SEGMENT_P;
}

/* AC does the same on the host where it does something for the guest. */
static uint32_t kept_by_cpu(const struct vcpu *vcpu)
{
    return NATIVE_FLAGS | ((vcpu->cr0 & CR0_AM) && vcpu->cpl == 3 ? EFLAGS_AC : 0);
}

static uint32_t native_flags(const struct vm *vm)
{
    const struct vcpu *vcpu = &vm->vcpu;
    uint32_t flags = (vcpu->eflags & (kept_by_cpu(vcpu) | EFLAGS_RF)) | EFLAGS_IF | EFLAGS_FIXED;

    if (vm->single_step)
        flags |= EFLAGS_TF;
    return flags;
}

static void enter_state(struct trap_state *state)
{
    const struct vm *vm = state->vm;
    const struct vcpu *vcpu = &vm->vcpu;
    struct world *world = &trap_world;

    memcpy(world->gpr, vcpu->gpr, sizeof world->gpr);
    world->iret.rip = vcpu->eip;
    world->iret.cs = state->mirror.selector[SEG_CS];
    world->iret.rflags = native_flags(vm);
    world->iret.rsp = vcpu->gpr[ESP];
    world->iret.ss = state->mirror.selector[SEG_SS];
    world->ds = state->mirror.selector[SEG_DS];
    world->es = state->mirror.selector[SEG_ES];
    world->fs = state->mirror.selector[SEG_FS];
    world->gs = state->mirror.selector[SEG_GS];
    world->timed = vm->timed;
}

/* ---- out of the guest ---------------------------------------------------------------------------------- */

/* Copies the captured state to the vcpu. */
static void leave_state(struct trap_state *state)
{
    struct vm *vm = state->vm;
    struct vcpu *vcpu = &vm->vcpu;
    const struct world *world = &trap_world;
    const struct {
        enum segment_index index;
        uint16_t selector;
    } now[] = {{SEG_SS, (uint16_t)world->iret.ss},
               {SEG_DS, world->ds},
               {SEG_ES, world->es},
               {SEG_FS, world->fs},
               {SEG_GS, world->gs}};
    uint32_t native = kept_by_cpu(vcpu);

    if (vm->single_step && !step_loads_flags(&state->step))
        native &= ~EFLAGS_TF; /* TF is ours, the guest's is virtual */
    memcpy(vcpu->gpr, world->gpr, sizeof world->gpr);
    vcpu->gpr[ESP] = (uint32_t)world->iret.rsp;
    vcpu->eip = (uint32_t)world->iret.rip;
    vcpu->eflags =
        (vcpu->eflags & ~(native | EFLAGS_RF)) | ((uint32_t)world->iret.rflags & native) | EFLAGS_FIXED;
    for (size_t i = 0; i < sizeof now / sizeof now[0]; i++) {
        if (now[i].selector == state->mirror.selector[now[i].index])
            continue;
        state->mirror.selector[now[i].index] = now[i].selector; /* until the machine itself has an exit */
        state->loaded_natively |= 1u << now[i].index;
    }
}

static void trap_settle(void *opaque)
{
    struct trap_state *state = opaque;

    for (unsigned i = 0; i < SEG_COUNT && state->loaded_natively != 0; i++) {
        if ((state->loaded_natively & 1u << i) == 0)
            continue;
        state->loaded_natively &= ~(1u << i);
        native_load_follow(state->vm, &state->mirror.ldt, state->mirror.bias, (enum segment_index)i,
                           state->mirror.selector[i]);
        state->mirror.is_valid = false;
    }
}

static void stop_at_lost_call(struct vm *vm)
{
    vm_stop(vm, STOP_IMPOSSIBLE,
            "the guest executed sysenter or syscall, which this host's kernel took and whose return address "
            "it lost "
            "(a virtualization hole: `ring3 check` finds it, --holes patch closes it)");
}

/* sysenter or syscall with an ESP that the kernel cannot read fails there and then: no SIGSYS, but 32-bit
 * code resumed at the vDSO's landing pad, with the upper half of its address gone. */
static bool is_landing_pad(const struct world *world)
{
    return (world->iret.cs & 0xffff) == HOST_CS_COMPAT &&
           (uint32_t)world->iret.rip - (uint32_t)getauxval(AT_SYSINFO_EHDR) < VDSO_MAX_SIZE;
}

/* The guest is in a code segment that is not the one it was entered with: nothing can be said about its
 * state. */
static void stop_at_foreign_code(struct vm *vm)
{
    if (is_landing_pad(&trap_world))
        stop_at_lost_call(vm);
    else
        vm_stop(vm, STOP_IMPOSSIBLE,
                "the guest reached the host's code segment %04x by a far branch that the CPU did not trap (a "
                "virtualization hole)",
                (unsigned)trap_world.iret.cs & 0xffff);
}

/* A system call instruction in 32-bit code, kept from the host kernel by the sandbox. After int 0x80 EIP and
 * CS are the guest's; after sysenter or syscall the kernel has put its own landing pad there, and the guest's
 * EIP is lost. */
static void classify_host_call(struct trap_state *state, struct vm_exit *exit)
{
    static const uint8_t int_0x80[2] = {0xcd, 0x80};
    struct vm *vm = state->vm;
    struct vcpu *vcpu = &vm->vcpu;
    uint8_t bytes[2];
    gva_t start = vcpu->segment[SEG_CS].base + vcpu->eip - sizeof int_0x80;

    if (trap_world.iret.cs == state->mirror.selector[SEG_CS] &&
        vm_peek(vm, start, bytes, sizeof bytes) == sizeof bytes &&
        memcmp(bytes, int_0x80, sizeof bytes) == 0) {
        vcpu->eip -= sizeof int_0x80; /* to the instruction, as for every fault */
        exit->reason = EXIT_HOST_CALL;
        return;
    }
    if ((trap_world.iret.cs & 0xffff) == HOST_CS)
        stop_at_foreign_code(vm);
    else
        stop_at_lost_call(vm);
}

static void classify_fault(struct trap_state *state, struct vm_exit *exit)
{
    struct vm *vm = state->vm;
    struct vcpu *vcpu = &vm->vcpu;
    const struct world *world = &trap_world;

    exit->reason = EXIT_EXCEPTION;
    exit->fault = (struct fault){.vector = (int16_t)world->trapno};
    exit->fault.has_error = vector_has_error(world->trapno);
    if (exit->fault.has_error)
        exit->fault.error = world->error;
    switch (world->trapno) {
    case EXCEPTION_PF:
        if (world->cr2 >= WINDOW_END) { /* the kernel's own, for what the CPU had refused by #GP(0) */
            exit->fault = (struct fault){.vector = EXCEPTION_GP, .has_error = true};
            break;
        }
        exit->reason = EXIT_PAGE_FAULT;
        exit->fault.cr2 = (uint32_t)world->cr2 - state->window.bias;
        /* Not PF_PRESENT: what the host's tables held is its kernel's business, and may differ each time. */
        exit->fault.error = (world->error & (PF_WRITE | PF_FETCH)) | (vcpu->cpl == 3 ? PF_USER : 0);
        break;
    case EXCEPTION_DB:
        exit->fault.is_trap = world->code == TRAP_TRACE; /* else INT1 */
        if (exit->fault.is_trap && vm->single_step && !state->step.guest_tf)
            exit->reason = EXIT_STEP;
        break;
    case EXCEPTION_AC:
        /* The guest set AC natively (a hole) where its own CR0.AM or CPL makes it harmless: the virtual flag
         * keeps it. */
        if ((vcpu->cr0 & CR0_AM) == 0 || vcpu->cpl != 3) {
            vcpu->eflags |= EFLAGS_AC;
            exit->reason = EXIT_INTERRUPTED;
        }
        break;
    default:
        break;
    }
}

/* The window has moved: segments have another base now. */
static void follow_window(struct trap_state *state)
{
    state->mirror.bias = state->window.bias;
    state->mirror.is_valid = false;
}

/* The host has interrupted the guest: time to look at its pace. Not where the mappings that this costs or
 * saves would make one run's trace differ from the next's. */
static void follow_pace(struct trap_state *state)
{
    struct vm *vm = state->vm;

    if (vm->config.clock == CLOCK_HOST && pace_note_interruption(&state->pace, frame_host_ns(), vm->n_exits))
        shadow_widen_user_view(vm->shadow, state->pace.is_slow);
}

/* ---- the engine ---------------------------------------------------------------------------------------- */

static void tick(int signo)
{
    (void)signo; /* the entry sets the attention word */
}

/* The last steps before the first guest instruction: from here on RDTSC and CPUID fault, also in the monitor.
 */
static void start(struct trap_state *state)
{
    if (!frame_adopt_handlers())
        die("sigaction: %s", strerror(errno));
    if (prctl(PR_SET_TSC, PR_TSC_SIGSEGV, 0, 0, 0) != 0)
        die("prctl(PR_SET_TSC): %s (run `ring3 doctor`)", strerror(errno));
    /* Only some processors can; elsewhere CPUID stays a hole. */
    state->has_cpuid_fault = syscall(SYS_arch_prctl, ARCH_SET_CPUID, 0) == 0;
    state->is_started = true;
}

static void trap_run(void *opaque, struct vm_exit *exit)
{
    struct trap_state *state = opaque;
    struct vm *vm = state->vm;
    int how;

    if (!state->is_started)
        start(state);
    state->is_exit_signal = false;
    if (!prepare(state, exit))
        return;
    if (vm->single_step)
        step_begin(&state->step, vm);
    enter_state(state);
    exit->entered_ns = vm->timed ? frame_host_ns() : 0;
    how = is_stack_16bit(&vm->vcpu) ? frame_enter(&trap_world) : trap_enter(&trap_world);
    if (how == WORLD_ABORTED)
        return;
    exit->host_ns = trap_world.capture_ns;
    state->is_exit_signal = true;
    if (vm->single_step)
        step_end(&state->step, how == WORLD_FAULTED && trap_world.trapno == EXCEPTION_DB);
    leave_state(state);
    if (vm->single_step)
        step_hide_flag(&state->step, vm);
    if (how == WORLD_FAULTED && trap_world.signo == SIGSYS)
        classify_host_call(state, exit);
    else if ((uint16_t)trap_world.iret.cs != state->mirror.selector[SEG_CS])
        stop_at_foreign_code(vm);
    else if (how == WORLD_FAULTED)
        classify_fault(state, exit);
    vm->is_guest_interrupted = how == WORLD_INTERRUPTED;
    if (how == WORLD_INTERRUPTED)
        follow_pace(state);
    if (how == WORLD_FAULTED &&
        window_note_fault(&state->window, vm->shadow, exit->reason == EXIT_PAGE_FAULT, exit->fault.cr2))
        follow_window(state);
}

/* ---- for the stepper ----------------------------------------------------------------------------------- */

static void trap_registers(void *opaque, struct real_registers *real)
{
    const struct trap_state *state = opaque;
    const struct vm *vm = state->vm;
    bool is_user = vm->vcpu.cpl == 3;

    real->cpl = 3;
    real->eflags = native_flags(vm);
    mirror_describe(&state->mirror, &vm->vcpu, is_user ? shadow_user_limit(vm->shadow) : UINT64_C(1) << 32,
                    real);
    for (unsigned i = 0; i < SEG_COUNT; i++)
        if (state->loaded_natively & 1u << i)
            real->segment[i] = (struct segment){.selector = state->mirror.selector[i]};
}

static void trap_describe_exit(void *opaque, char *text, size_t size)
{
    const struct trap_state *state = opaque;
    const struct world *world = &trap_world;

    if (!state->is_exit_signal)
        snprintf(text, size, "no signal: the engine saw it before it entered the guest");
    else
        snprintf(text, size, "SIG%s, trap number %d, error code %04x, CS:EIP %04x:%08x on the host",
                 sigabbrev_np(world->signo), world->trapno, world->error, (unsigned)world->iret.cs & 0xffff,
                 (uint32_t)world->iret.rip);
}

static struct shadow_window trap_window(void *opaque)
{
    const struct trap_state *state = opaque;

    return window_place(&state->window);
}

static bool trap_uncover(void *opaque, bool must)
{
    struct trap_state *state = opaque;

    if (!window_uncover(&state->window, state->vm->shadow, must))
        return false;
    follow_window(state);
    return true;
}

static void trap_arm(void *opaque, uint64_t host_ns)
{
    struct trap_state *state = opaque;
    struct itimerspec when = {
        .it_value = {.tv_sec = (time_t)(host_ns / 1000000000u), .tv_nsec = (long)(host_ns % 1000000000u)}};

    if (timer_settime(state->timer, TIMER_ABSTIME, &when, NULL) != 0)
        die("timer_settime: %s", strerror(errno));
}

static void trap_destroy(void *opaque)
{
    struct trap_state *state = opaque;

    if (state->is_started)
        prctl(PR_SET_TSC, PR_TSC_ENABLE, 0, 0, 0);
    if (state->has_cpuid_fault)
        syscall(SYS_arch_prctl, ARCH_SET_CPUID, 1);
    if (state->has_timer)
        timer_delete(state->timer);
    crash_set_vcpu(NULL);
    munmap((void *)WINDOW_FIRST, GUARD_END - WINDOW_FIRST);
    free(state);
}

/* The alternate stack must lie where no guest ESP reaches, or the kernel would write a frame into the guest.
 */
static bool create_stack(struct trap_state *state, char *error, size_t error_size)
{
    stack_t stack = {.ss_size = ALTERNATE_STACK_SIZE};

    state->stack = mmap(NULL, ALTERNATE_STACK_SIZE, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK | MAP_NORESERVE, -1, 0);
    stack.ss_sp = state->stack;
    if (state->stack == MAP_FAILED || (uintptr_t)state->stack < WINDOW_END ||
        sigaltstack(&stack, NULL) != 0) {
        snprintf(error, error_size, "cannot make the signal stack above 4 GiB: %s", strerror(errno));
        return false;
    }
    return true;
}

static bool create_window(char *error, size_t error_size)
{
    void *window = mmap((void *)WINDOW_FIRST, GUARD_END - WINDOW_FIRST, PROT_NONE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);

    if (window != (void *)WINDOW_FIRST) {
        snprintf(error, error_size,
                 "cannot reserve the low 8 GiB of the process: %s (is something mapped there? `ring3 doctor` "
                 "tells)",
                 strerror(errno));
        return false;
    }
    return true;
}

static bool create_timer(struct trap_state *state, char *error, size_t error_size)
{
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN};

    if (!frame_install_synchronous() || !frame_install_asynchronous(SIGRTMIN, tick) ||
        timer_create(CLOCK_MONOTONIC, &event, &state->timer) != 0) {
        snprintf(error, error_size, "cannot set up signals and the timer: %s", strerror(errno));
        return false;
    }
    state->has_timer = true;
    return true;
}

/* The C library registers a restartable-sequences area for each thread, which the kernel then updates at
 * every signal: about 5 % of a trap, and nobody here reads it. */
static void drop_rseq(void)
{
#if __has_include(<sys/rseq.h>)
    if (__rseq_size != 0)
        syscall(SYS_rseq, (char *)__builtin_thread_pointer() + __rseq_offset, RSEQ_AREA_SIZE,
                RSEQ_FLAG_UNREGISTER, RSEQ_SIG);
#endif
}

static void *trap_create(struct vm *vm, char *error, size_t error_size)
{
    struct trap_state *state = calloc(1, sizeof *state);
    uint64_t fs_base = 0;

    if (state == NULL) {
        snprintf(error, error_size, "out of memory");
        return NULL;
    }
    state->vm = vm;
    drop_rseq();
    syscall(SYS_arch_prctl, ARCH_GET_FS, &fs_base);
    trap_world = (struct world){.host_fs_base = fs_base,
                                .fpu = vm->vcpu.fxsave,
                                .has_fsgsbase = (getauxval(AT_HWCAP2) & HWCAP2_FSGSBASE_BIT) != 0};
    frame_set_attention(&vm->attention);
    crash_set_vcpu(&vm->vcpu);
    if (!create_window(error, error_size)) {
        free(state);
        return NULL;
    }
    if (!create_stack(state, error, error_size) || !create_timer(state, error, error_size)) {
        trap_destroy(state);
        return NULL;
    }
    return state;
}

const struct engine trap_engine = {
    .name = "trap",
    .create = trap_create,
    .destroy = trap_destroy,
    .window = trap_window,
    .uncover = trap_uncover,
    .run = trap_run,
    .host_ns = frame_host_ns,
    .arm = trap_arm,
    .settle = trap_settle,
    .registers = trap_registers,
    .describe_exit = trap_describe_exit,
};
