/*
 * The signal frame: everything in ring3 that touches a ucontext. The two capture functions are called by the
 * assembly of entry.S on the alternate stack; they verify whose fault it is, copy the guest's state into the
 * world, and return. What the fault means is engine.c's business. Read next: engine.c.
 */
#include "signals/frame.h"
#include "signals/nesting.h"

#include <dlfcn.h>
#include <signal.h>
#include <stddef.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

#include "signals/crash.h"
#include "signals/world.h"

_Static_assert(offsetof(struct world, host_rsp) == WORLD_HOST_RSP, "entry.S");
_Static_assert(offsetof(struct world, host_fs_base) == WORLD_HOST_FS_BASE, "entry.S");
_Static_assert(offsetof(struct world, attention) == WORLD_ATTENTION, "entry.S");
_Static_assert(offsetof(struct world, fpu) == WORLD_FPU, "entry.S");
_Static_assert(offsetof(struct world, has_fsgsbase) == WORLD_HAS_FSGSBASE, "entry.S");
_Static_assert(offsetof(struct world, reload) == WORLD_RELOAD, "entry.S");
_Static_assert(offsetof(struct world, gpr) == WORLD_EAX, "entry.S");
_Static_assert(offsetof(struct world, iret) == WORLD_IRET, "entry.S");
_Static_assert(offsetof(struct world, ds) == WORLD_DS, "entry.S");
_Static_assert(offsetof(struct world, es) == WORLD_ES, "entry.S");
_Static_assert(offsetof(struct world, fs) == WORLD_FS, "entry.S");
_Static_assert(offsetof(struct world, gs) == WORLD_GS, "entry.S");
_Static_assert(offsetof(struct world, is_inside) == WORLD_IS_INSIDE, "entry.S");

/* Older glibc headers lack these (asm/ucontext.h of Linux 4.6). */
#define UC_SIGCONTEXT_SS     0x2
#define UC_STRICT_RESTORE_SS 0x4

/* The part of the FXSAVE image that 32-bit code can see: control, ST0-7, XMM0-7. Behind it the kernel keeps
 * notes of its own, which must not reach the guest or a trace. */
#define FXSAVE_GUEST_BYTES 288

struct world trap_world;

/* Per signal: whether one of our entries is installed, and what the asynchronous one calls. */
static struct {
    bool is_ours;
    void (*handler)(int signo);
} signal_table[_NSIG];

static volatile int *async_attention;

static unsigned frame_cs(const ucontext_t *uc)
{
    return uc->uc_mcontext.gregs[REG_CSGSFS] & 0xffff;
}

/* 64-bit code of ours, as opposed to the guest's. Guest code that reached 64-bit mode through a far jump to
 * the host's selector 0x33 (a documented hole) still lies below 4 GiB, where nothing of ours is. */
static bool frame_is_monitor(const ucontext_t *uc)
{
    return !trap_world.is_inside ||
           (frame_cs(uc) == HOST_CS && (uint64_t)uc->uc_mcontext.gregs[REG_RIP] >> 32 != 0);
}

static bool frame_is_at(const ucontext_t *uc, const char *label)
{
    return (uintptr_t)uc->uc_mcontext.gregs[REG_RIP] == (uintptr_t)label;
}

static bool frame_is_in_window(const ucontext_t *uc)
{
    uintptr_t rip = (uintptr_t)uc->uc_mcontext.gregs[REG_RIP];

    return rip >= (uintptr_t)trap_window_start && rip < (uintptr_t)trap_window_end;
}

/* A guest in 64-bit mode may also jump out of its 4 GiB, and fault where no code is. */
static bool frame_is_lost_guest(const ucontext_t *uc)
{
    Dl_info info;

    return trap_world.is_inside && !frame_is_in_window(uc) &&
           dladdr((void *)uc->uc_mcontext.gregs[REG_RIP], &info) == 0;
}

/* In the order of enum gpr_index. */
static const int greg_of_gpr[8] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI};

static void capture_guest(struct world *world, const ucontext_t *uc, unsigned fs_selector)
{
    const greg_t *gregs = uc->uc_mcontext.gregs;
    uint64_t segments = (uint64_t)gregs[REG_CSGSFS];

    for (int i = 0; i < 8; i++)
        world->gpr[i] = (uint32_t)gregs[greg_of_gpr[i]];
    world->iret.rip = (uint32_t)gregs[REG_RIP];
    world->iret.rsp = (uint32_t)gregs[REG_RSP];
    world->iret.rflags = (uint32_t)gregs[REG_EFL];
    world->iret.cs = segments & 0xffff;
    if (uc->uc_flags & UC_SIGCONTEXT_SS)
        world->iret.ss = segments >> 48;
    __asm__("mov %%ds, %0" : "=m"(world->ds));
    __asm__("mov %%es, %0" : "=m"(world->es));
    __asm__("mov %%gs, %0" : "=m"(world->gs));
    world->fs = (uint16_t)fs_selector;
    if (uc->uc_mcontext.fpregs != NULL)
        memcpy(world->fpu, uc->uc_mcontext.fpregs, FXSAVE_GUEST_BYTES);
}

static void capture_fault(struct world *world, int signo, const siginfo_t *info, const ucontext_t *uc)
{
    const greg_t *gregs = uc->uc_mcontext.gregs;

    world->signo = signo;
    world->code = info->si_code;
    world->trapno = (int)gregs[REG_TRAPNO];
    world->error = (uint32_t)gregs[REG_ERR];
    world->cr2 = (uint64_t)gregs[REG_CR2];
    world->capture_ns = world->timed ? frame_host_ns() : 0;
}

/* Called by trap_synchronous_entry. Returns if the fault is the guest's; never else. */
void trap_capture_synchronous(int signo, const siginfo_t *info, ucontext_t *uc, unsigned fs_selector)
{
    struct world *world = &trap_world;

    if (frame_is_monitor(uc) && !frame_is_lost_guest(uc)) {
        /* IRETQ itself faults when the guest's EIP or selectors cannot be loaded: the guest's fault, and its
         * state is still all in the world. Anything else of ours that faults is a bug. */
        if (!frame_is_at(uc, trap_window_iret))
            crash_report(signo, info, uc);
    } else {
        capture_guest(world, uc, fs_selector);
    }
    world->is_inside = false;
    capture_fault(world, signo, info, uc);
}

/* Called by trap_asynchronous_entry. True: the guest was interrupted, its state is captured, do not go back
 * to it. */
int trap_capture_asynchronous(int signo, const siginfo_t *info, ucontext_t *uc, unsigned fs_selector)
{
    (void)info;
    if (signal_table[signo].handler != NULL)
        signal_table[signo].handler(signo);
    if (async_attention != NULL)
        *async_attention = 1;
    if (!frame_is_monitor(uc)) {
        capture_guest(&trap_world, uc, fs_selector);
        trap_world.is_inside = false;
        trap_world.signo = signo;
        trap_world.capture_ns = trap_world.timed ? frame_host_ns() : 0;
        nesting_end(uc);
        return 1;
    }
    if (frame_is_in_window(uc))
        uc->uc_mcontext.gregs[REG_RIP] = (greg_t)(uintptr_t)trap_abort;
    return 0;
}

uint64_t frame_host_ns(void)
{
    struct timespec ts;

    /* Not the vDSO: its RDTSC faults while PR_SET_TSC is on. */
    syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/* ---- into the guest by a frame ------------------------------------------------------------------------- */

/* The frame that the kernel would have made, had it interrupted the guest where it goes on. */
static void make_frame(const struct world *world, ucontext_t *uc, struct _libc_fpstate *fpu)
{
    greg_t *gregs = uc->uc_mcontext.gregs;

    memset(uc, 0, sizeof *uc);
    uc->uc_flags = UC_SIGCONTEXT_SS | UC_STRICT_RESTORE_SS;
    for (int i = 0; i < 8; i++)
        gregs[greg_of_gpr[i]] = world->gpr[i];
    gregs[REG_RSP] = (greg_t)world->iret.rsp;
    gregs[REG_RIP] = (greg_t)world->iret.rip;
    gregs[REG_EFL] = (greg_t)world->iret.rflags;
    gregs[REG_CSGSFS] = (greg_t)(world->iret.cs | world->iret.ss << 48);
    /* Without the kernel's own notes behind it the image is a plain FXSAVE one. */
    memset(fpu, 0, sizeof *fpu);
    memcpy(fpu, world->fpu, FXSAVE_GUEST_BYTES);
    uc->uc_mcontext.fpregs = fpu;
}

int frame_enter(struct world *world)
{
    _Alignas(64) struct _libc_fpstate fpu; /* as the kernel aligns it for XRSTOR */
    ucontext_t uc;
    sigset_t asynchronous = nesting_asynchronous(), open;

    make_frame(world, &uc, &fpu);
    sigaltstack(NULL, &uc.uc_stack); /* rt_sigreturn sets it again */
    sigprocmask(SIG_BLOCK, &asynchronous, &open);
    if (*world->attention) {
        sigprocmask(SIG_SETMASK, &open, NULL);
        return WORLD_ABORTED;
    }
    uc.uc_sigmask = open;
    return trap_enter_by_frame(world, &uc);
}

/* ---- handlers ------------------------------------------------------------------------------------------ */

static bool install(int signo, void (*entry)(void), sigset_t mask)
{
    struct sigaction action = {.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER, .sa_mask = mask};

    memcpy(&action.sa_sigaction, &entry, sizeof entry);
    signal_table[signo].is_ours = true;
    return sigaction(signo, &action, NULL) == 0;
}

bool frame_install_synchronous(void)
{
    sigset_t none;

    sigemptyset(&none);
    for (size_t i = 0; i < N_SYNCHRONOUS_SIGNALS; i++)
        if (!install(synchronous_signals[i], trap_synchronous_entry, none))
            return false;
    return true;
}

bool frame_install_asynchronous(int signo, void (*handler)(int signo))
{
    signal_table[signo].handler = handler;
    return install(signo, trap_asynchronous_entry, nesting_asynchronous());
}

/* Any handler that others have installed (the console's SIGTERM, SIGALRM, SIGWINCH, ...) may interrupt the
 * guest too, with its FS base and its stack: each goes behind our entry, which calls it. */
bool frame_adopt_handlers(void)
{
    for (int signo = 1; signo < _NSIG; signo++) {
        struct sigaction action;

        if (signal_table[signo].is_ours || sigaction(signo, NULL, &action) != 0 ||
            action.sa_handler == SIG_DFL || action.sa_handler == SIG_IGN)
            continue;
        if (!frame_install_asynchronous(signo, action.sa_handler))
            return false;
    }
    return true;
}

void frame_set_attention(volatile int *attention)
{
    async_attention = attention;
    trap_world.attention = attention;
}
