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
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "signals/crash.h"
#include "signals/frame.h"
#include "signals/ldt.h"
#include "signals/signals.h"
#include "signals/world.h"
#include "vcpu/fail.h"

/* Guest linear 0 lies at this host address, so that vm.mmap_min_addr (64 KiB) leaves it usable. Compat-mode
 * addresses wrap at 4 GiB, so one 64 KiB hole remains; this choice puts it at fee00000, the local APIC: never
 * RAM. */
#define WINDOW_BIAS       0x01200000u
#define WINDOW_FIRST      0x10000ul
#define WINDOW_END        0x100000000ul
#define WINDOW_HOLE_FIRST (0u - WINDOW_BIAS)
#define WINDOW_HOLE_LAST  (WINDOW_HOLE_FIRST + 0xffffu)

#define ALTERNATE_STACK_SIZE (256ul << 10)
#define HWCAP2_FSGSBASE_BIT  2

/* EFLAGS bits that the CPU keeps for us; the others are virtual. AC is added where the guest enabled it. RF
 * goes in, but does not come back: the CPU sets it in the image that every fault saves, and it is 0 once an
 * instruction has run. */
#define NATIVE_FLAGS                                                                                         \
    (EFLAGS_CF | EFLAGS_PF | EFLAGS_AF | EFLAGS_ZF | EFLAGS_SF | EFLAGS_OF | EFLAGS_DF | EFLAGS_TF |         \
     EFLAGS_NT | EFLAGS_ID)

struct trap_state {
    struct vm *vm;
    struct ldt ldt;
    timer_t timer;
    bool has_timer, is_started;
    void *stack;
    /* What the host segments were made from; nothing is done while it still holds. */
    struct segment mirrored[SEG_COUNT];
    uint16_t selector[SEG_COUNT];
    uint64_t reach; /* the user view's limit then; 1<<32 in the kernel view */
    bool is_user;
    bool has_mirror;
};

static bool vector_has_error(int vector)
{
    return vector == EXCEPTION_DF || (vector >= EXCEPTION_TS && vector <= EXCEPTION_PF) ||
           vector == EXCEPTION_AC;
}

/* ---- into the guest ------------------------------------------------------------------------------------ */

static bool segment_equal(const struct segment *a, const struct segment *b)
{
    return a->base == b->base && a->limit == b->limit && a->attributes == b->attributes &&
           a->selector == b->selector;
}

/* A segment register that holds nothing usable: the guest's use of it must fault, as it does through a null
 * selector. SS cannot be null in compat mode at CPL 3, so it gets a descriptor without a valid offset. */
static uint16_t mirror_unusable(struct trap_state *state, int index, bool *is_new)
{
    static const struct segment nothing = {.attributes = SEGMENT_DB | SEGMENT_WRITABLE, .base = 1};
    struct ldt_descriptor descriptor;

    if (index != SEG_SS)
        return 0;
    ldt_mirror(&nothing, 0, 0, &descriptor);
    return ldt_load(&state->ldt, &descriptor, is_new);
}

static void mirror_segments(struct trap_state *state, const struct vcpu *vcpu, uint64_t reach)
{
    bool is_same_view = state->has_mirror && state->reach == reach;
    bool is_new = false;

    if (is_same_view) {
        int i = 0;

        while (i < SEG_COUNT && segment_equal(&state->mirrored[i], &vcpu->segment[i]))
            i++;
        if (i == SEG_COUNT)
            return;
    }
    ldt_begin(&state->ldt);
    for (int i = 0; i < SEG_COUNT; i++) {
        const struct segment *segment = &vcpu->segment[i];
        struct ldt_descriptor descriptor;

        if ((segment->attributes & SEGMENT_P) == 0) {
            state->selector[i] = mirror_unusable(state, i, &is_new);
        } else {
            ldt_mirror(segment, WINDOW_BIAS, reach, &descriptor);
            state->selector[i] = ldt_load(&state->ldt, &descriptor, &is_new);
        }
        state->mirrored[i] = *segment;
    }
    state->reach = reach;
    state->has_mirror = true;
    if (is_new)
        trap_world.reload = 1;
}

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

    *exit = (struct vm_exit){.reason = EXIT_INTERRUPTED};
    if (!vcpu_is_protected(vcpu) || vcpu_is_v8086(vcpu)) {
        vm_stop(vm, STOP_IMPOSSIBLE,
                "the guest went into %s mode, which no 64-bit host can run natively; "
                "the trap engine runs 32-bit protected mode only",
                vcpu_is_v8086(vcpu) ? "virtual-8086" : "real");
        return false;
    }
    if ((vcpu->segment[SEG_SS].attributes & SEGMENT_P) != 0 &&
        (vcpu->segment[SEG_SS].attributes & SEGMENT_DB) == 0) {
        /* IRETQ to a 16-bit stack loads SP alone and leaves the monitor's bits in the upper half of ESP. */
        vm_stop(vm, STOP_IMPOSSIBLE,
                "the guest loaded a 16-bit stack segment, which the trap engine cannot enter");
        return false;
    }
    if (is_user != state->is_user || !state->has_mirror) {
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
    mirror_segments(state, vcpu, reach);
    return true;
}

static void enter_state(struct trap_state *state)
{
    const struct vm *vm = state->vm;
    const struct vcpu *vcpu = &vm->vcpu;
    struct world *world = &trap_world;
    uint32_t flags = (vcpu->eflags & (NATIVE_FLAGS | EFLAGS_RF)) | EFLAGS_IF | EFLAGS_FIXED;

    if ((vcpu->eflags & EFLAGS_AC) && (vcpu->cr0 & CR0_AM) && vcpu->cpl == 3)
        flags |= EFLAGS_AC;
    if (vm->single_step)
        flags |= EFLAGS_TF;
    memcpy(world->gpr, vcpu->gpr, sizeof world->gpr);
    world->iret.rip = vcpu->eip;
    world->iret.cs = state->selector[SEG_CS];
    world->iret.rflags = flags;
    world->iret.rsp = vcpu->gpr[ESP];
    world->iret.ss = state->selector[SEG_SS];
    world->ds = state->selector[SEG_DS];
    world->es = state->selector[SEG_ES];
    world->fs = state->selector[SEG_FS];
    world->gs = state->selector[SEG_GS];
    world->timed = vm->timed;
}

/* ---- out of the guest ---------------------------------------------------------------------------------- */

/* The guest loaded a segment register natively, with a selector that the host accepts: a hole. The vcpu
 * follows what the CPU did, so that the hole shows its full consequence (a host-flat segment does not carry
 * the bias). */
static bool follow_native_load(struct trap_state *state, int index, uint16_t selector)
{
    struct segment *segment = &state->vm->vcpu.segment[index];
    const struct ldt_descriptor *mirror = ldt_find(&state->ldt, selector);

    memset(segment, 0, sizeof *segment);
    segment->selector = selector;
    if (mirror != NULL) {
        segment->base = mirror->base - WINDOW_BIAS;
        segment->limit = mirror->is_paged ? mirror->limit << PAGE_SHIFT | PAGE_MASK : mirror->limit;
        segment->attributes =
            (uint16_t)(SEGMENT_P | SEGMENT_S | SEGMENT_DPL | SEGMENT_ACCESSED |
                       (mirror->is_code ? SEGMENT_CODE : 0) | (mirror->is_down ? SEGMENT_DOWN : 0) |
                       (mirror->is_restricted ? 0 : SEGMENT_WRITABLE) | (mirror->is_32bit ? SEGMENT_DB : 0) |
                       (mirror->is_paged ? SEGMENT_G : 0));
    } else if (selector == HOST_CS_COMPAT || selector == HOST_DS) {
        segment->base = 0u - WINDOW_BIAS;
        segment->limit = UINT32_MAX;
        segment->attributes =
            (uint16_t)(SEGMENT_P | SEGMENT_S | SEGMENT_DPL | SEGMENT_ACCESSED | SEGMENT_WRITABLE |
                       SEGMENT_DB | SEGMENT_G | (selector == HOST_CS_COMPAT ? SEGMENT_CODE : 0));
    } else {
        return (selector & ~SELECTOR_RPL) ==
               0; /* null is a legal state of DS ES FS GS, anything else is not ours */
    }
    return true;
}

/* Copies the captured state to the vcpu. false: the guest left the segments in a state that cannot be
 * followed. */
static bool leave_state(struct trap_state *state)
{
    struct vm *vm = state->vm;
    struct vcpu *vcpu = &vm->vcpu;
    const struct world *world = &trap_world;
    const struct {
        int index;
        uint16_t selector;
    } now[] = {{SEG_SS, (uint16_t)world->iret.ss},
               {SEG_DS, world->ds},
               {SEG_ES, world->es},
               {SEG_FS, world->fs},
               {SEG_GS, world->gs}};
    uint32_t native = NATIVE_FLAGS;

    if (vm->single_step)
        native &= ~EFLAGS_TF; /* TF is ours, the guest's is virtual */
    memcpy(vcpu->gpr, world->gpr, sizeof world->gpr);
    vcpu->gpr[ESP] = (uint32_t)world->iret.rsp;
    vcpu->eip = (uint32_t)world->iret.rip;
    vcpu->eflags =
        (vcpu->eflags & ~(native | EFLAGS_RF)) | ((uint32_t)world->iret.rflags & native) | EFLAGS_FIXED;
    for (size_t i = 0; i < sizeof now / sizeof now[0]; i++) {
        if (now[i].selector == state->selector[now[i].index])
            continue;
        if (!follow_native_load(state, now[i].index, now[i].selector)) {
            vm_stop(vm, STOP_IMPOSSIBLE,
                    "the guest loaded the host's selector %04x into a segment register, and the CPU did not "
                    "trap it "
                    "(a virtualization hole; --holes patch closes it)",
                    now[i].selector);
            return false;
        }
        state->has_mirror = false;
    }
    return true;
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

    if (trap_world.iret.cs == state->selector[SEG_CS] &&
        vm_peek(vm, start, bytes, sizeof bytes) == sizeof bytes &&
        memcmp(bytes, int_0x80, sizeof bytes) == 0) {
        vcpu->eip -= sizeof int_0x80; /* to the instruction, as for every fault */
        exit->reason = EXIT_HOST_CALL;
        return;
    }
    vm_stop(vm, STOP_IMPOSSIBLE,
            "the guest executed sysenter or syscall, which this host's kernel took and whose return address "
            "it lost "
            "(a virtualization hole: `ring3 check` finds it, --holes patch closes it)");
}

static void classify_fault(struct trap_state *state, struct vm_exit *exit)
{
    struct vm *vm = state->vm;
    struct vcpu *vcpu = &vm->vcpu;
    const struct world *world = &trap_world;

    if (world->signo == SIGSYS) {
        classify_host_call(state, exit);
        return;
    }
    if ((uint16_t)world->iret.cs != state->selector[SEG_CS]) {
        vm_stop(vm, STOP_IMPOSSIBLE,
                "the guest reached the host's code segment %04x by a far branch that the CPU did not trap (a "
                "virtualization hole)",
                (unsigned)world->iret.cs & 0xffff);
        return;
    }
    exit->reason = EXIT_EXCEPTION;
    exit->fault = (struct fault){.vector = (int16_t)world->trapno};
    exit->fault.has_error = vector_has_error(world->trapno);
    if (exit->fault.has_error)
        exit->fault.error = world->error;
    switch (world->trapno) {
    case EXCEPTION_PF:
        exit->reason = EXIT_PAGE_FAULT;
        exit->fault.cr2 = world->cr2 - WINDOW_BIAS;
        exit->fault.error =
            (world->error & (PF_WRITE | PF_FETCH | PF_PRESENT)) | (vcpu->cpl == 3 ? PF_USER : 0);
        break;
    case EXCEPTION_DB:
        if (vm->single_step && (vcpu->eflags & EFLAGS_TF) == 0)
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

/* ---- the engine ---------------------------------------------------------------------------------------- */

static void tick(int signo)
{
    (void)signo; /* the entry sets the attention word */
}

/* The last steps before the first guest instruction: from here on RDTSC faults, also in the monitor. */
static void start(struct trap_state *state)
{
    if (!frame_adopt_handlers())
        die("sigaction: %s", strerror(errno));
    if (prctl(PR_SET_TSC, PR_TSC_SIGSEGV, 0, 0, 0) != 0)
        die("prctl(PR_SET_TSC): %s (run `ring3 doctor`)", strerror(errno));
    state->is_started = true;
}

static void trap_run(void *opaque, struct vm_exit *exit)
{
    struct trap_state *state = opaque;
    int how;

    if (!state->is_started)
        start(state);
    if (!prepare(state, exit))
        return;
    enter_state(state);
    how = trap_enter(&trap_world);
    if (how == WORLD_ABORTED)
        return;
    exit->host_ns = trap_world.capture_ns;
    if (!leave_state(state))
        return;
    if (how == WORLD_FAULTED)
        classify_fault(state, exit);
}

static struct shadow_window trap_window(void *opaque)
{
    (void)opaque;
    return (struct shadow_window){
        .base = 0, .bias = WINDOW_BIAS, .hole_first = WINDOW_HOLE_FIRST, .hole_last = WINDOW_HOLE_LAST};
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
    if (state->has_timer)
        timer_delete(state->timer);
    crash_set_vcpu(NULL);
    munmap((void *)WINDOW_FIRST, WINDOW_END - WINDOW_FIRST);
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
    void *window = mmap((void *)WINDOW_FIRST, WINDOW_END - WINDOW_FIRST, PROT_NONE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);

    if (window != (void *)WINDOW_FIRST) {
        snprintf(error, error_size,
                 "cannot reserve the low 4 GiB of the process: %s (is something mapped there? `ring3 doctor` "
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

static void *trap_create(struct vm *vm, char *error, size_t error_size)
{
    struct trap_state *state = calloc(1, sizeof *state);
    uint64_t fs_base = 0;

    if (state == NULL) {
        snprintf(error, error_size, "out of memory");
        return NULL;
    }
    state->vm = vm;
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
    .run = trap_run,
    .host_ns = frame_host_ns,
    .arm = trap_arm,
};
