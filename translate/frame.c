/*
 * Signals of the translate engine, and everything in it that touches a ucontext.
 *
 * A synchronous signal with RIP in the code cache is the guest's: its registers are the host's, and the point
 * table says which EIP they belong to. Any other is a bug of the monitor's. An asynchronous one sets the
 * attention word, and stops the guest if it finds it running; the state is exact there, too, since every
 * instruction may begin again.
 *
 * No handler is without SA_ONSTACK: rsp is the guest's.
 *
 * Read next: translate.h.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>

#include "signals/crash.h"
#include "signals/nesting.h"
#include "translate/translator.h"
#include "vcpu/fail.h"

#define ALTERNATE_STACK_SIZE (256ul << 10)

/* The part of an FXSAVE image that 32-bit code can see: control, ST0-7, XMM0-7. */
#define FXSAVE_GUEST_BYTES 288

/* Offsets in the 64-bit FXSAVE image (SDM Vol 1 table 10-2): RIP and RDP; in the 32-bit one a selector is in
 * bytes 4 and 5 of each. */
#define FXSAVE_RIP 8
#define FXSAVE_RDP 16

/* One machine in a process runs at a time: a handler has no argument of its own. */
static struct translator *running;

static struct {
    bool is_ours;
    void (*handler)(int signo);
} signal_table[_NSIG];

/* In the order of enum gpr_index. */
static const int greg_of_gpr[GPR_COUNT] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX,
                                           REG_RSP, REG_RBP, REG_RSI, REG_RDI};

/* ---- capturing the guest ------------------------------------------------------------------------------- */

static uint32_t guest_eip_at(const struct translator *translator, const uint8_t *host)
{
    const struct block *block = cache_block_at(&translator->cache, host);

    return block == NULL ? 0 : block_point_at(&translator->cache, block, host)->eip;
}

/* The pointers to the last x87 instruction and its operand are the host's after it ran in the cache. The
 * window lies at a multiple of 4 GiB, so the operand's lower half is the guest's linear address. */
void frame_repair_fxsave(struct translator *translator)
{
    const struct vcpu *vcpu = &translator->vm->vcpu;
    uint8_t *image = translator->context->fxsave;
    uint64_t rip, rdp;

    memcpy(&rip, image + FXSAVE_RIP, sizeof rip);
    if (!cache_contains(&translator->cache, (const void *)(uintptr_t)rip))
        return;
    memcpy(&rdp, image + FXSAVE_RDP, sizeof rdp);
    rip = guest_eip_at(translator, (const uint8_t *)(uintptr_t)rip) | (uint64_t)vcpu->segment[SEG_CS].selector
                                                                          << 32;
    rdp = (uint32_t)rdp | (uint64_t)vcpu->segment[SEG_DS].selector << 32;
    memcpy(image + FXSAVE_RIP, &rip, sizeof rip);
    memcpy(image + FXSAVE_RDP, &rdp, sizeof rdp);
}

/* SYSENTER or SYSEXIT has begun (lower_switch.c): all of it, as if it had not. */
static void complete_switch(struct translator *translator, enum switch_kind kind, const greg_t *gregs)
{
    struct vcpu *vcpu = &translator->vm->vcpu;

    vcpu->eip = (uint32_t)gregs[REG_R8];
    if (kind == SWITCH_SYSENTER) {
        vcpu->gpr[ESP] = (uint32_t)vcpu->msr.sysenter_esp;
        translator->context->interrupt_flag = 0;
    } else {
        vcpu->gpr[ESP] = vcpu->gpr[ECX];
    }
    switch_complete(translator, &translator->context->sides[kind]);
}

/* ESI, EDI and ECX are those of the next element then. Is there one? */
static bool complete_element(struct vcpu *vcpu, unsigned kind)
{
    if (kind < POINT_STORED) {
        vcpu->gpr[ESI] += 1u << (kind - POINT_COPIED);
        kind += POINT_STORED - POINT_COPIED;
    }
    if (kind < POINT_COUNTS)
        vcpu->gpr[EDI] += 1u << (kind - POINT_STORED);
    if (kind < POINT_ELEMENT)
        vcpu->gpr[ECX]--;
    return vcpu->gpr[ECX] != 0;
}

/* POPA, with ESP moved. What it reads has been touched, through the window that r14 has. */
static void complete_popa(struct vcpu *vcpu, const greg_t *gregs)
{
    const uint8_t *window = (const uint8_t *)(uintptr_t)gregs[REG_R14];
    uint32_t popped[GPR_COUNT];

    memcpy(popped, window + (vcpu->gpr[ESP] - POPA_BYTES), sizeof popped);
    for (unsigned i = 0; i < GPR_COUNT; i++)
        if (i != ESP)
            vcpu->gpr[i] = popped[GPR_COUNT - 1 - i];
}

static void complete_cpuid(struct vcpu *vcpu, const struct cpuid_note *note)
{
    vcpu->gpr[EAX] = note->eax;
    vcpu->gpr[EBX] = note->ebx;
    vcpu->gpr[ECX] = note->ecx;
    vcpu->gpr[EDX] = note->edx;
}

static void apply_point(struct translator *translator, const struct point *point, const greg_t *gregs)
{
    struct context *context = translator->context;
    struct vcpu *vcpu = context->vcpu;

    context->budget = (uintptr_t)gregs[REG_R11] - point->uncounted;
    vcpu->eip = point->eip;
    vcpu->gpr[ESP] += (uint32_t)(int32_t)point->esp;
    if (point->kind >= POINT_COPIED && point->kind <= POINT_ELEMENT) {
        if (!complete_element(vcpu, point->kind)) {
            vcpu->eip += point->length;
            context->budget--;
        }
        return;
    }
    if (point->kind >= POINT_LOADS_ES) {
        notes_complete(context, point->kind - POINT_LOADS_ES, (const struct segment_note *)gregs[REG_R10]);
        return;
    }
    switch ((enum point_kind)point->kind) {
    case POINT_EIP:
        break;
    case POINT_SHADOWED:
        vcpu->interrupt_shadow = SHADOW_STI;
        break;
    case POINT_LEAVES:
        vcpu->gpr[EBP] = (uint32_t)gregs[REG_R8];
        break;
    case POINT_POPS_IF:
        context->interrupt_flag = (uint32_t)gregs[REG_R9];
        break;
    case POINT_POPS_ALL:
        complete_popa(vcpu, gregs);
        break;
    case POINT_IDENTIFIES:
        complete_cpuid(vcpu, &context->cpuid);
        break;
    case POINT_SAVED_EAX:
    case POINT_SAVED_FLAGS:
        vcpu->gpr[EAX] = (uint32_t)gregs[REG_R10];
        break;
    case POINT_SAVED_EAX_EDX:
        vcpu->gpr[EAX] = (uint32_t)gregs[REG_R10];
        vcpu->gpr[EDX] = (uint32_t)gregs[REG_R9];
        break;
    case POINT_SHADOWED_ECX:
        vcpu->interrupt_shadow = SHADOW_STI;
        vcpu->gpr[ECX] = (uint32_t)gregs[REG_R9];
        break;
    case POINT_SAVED_ECX:
        vcpu->gpr[ECX] = (uint32_t)gregs[REG_R9];
        break;
    case POINT_ENTERS:
        complete_switch(translator, SWITCH_SYSENTER, gregs);
        break;
    case POINT_EXITS:
        complete_switch(translator, SWITCH_SYSEXIT, gregs);
        break;
    case POINT_TARGET:
        vcpu->eip = (uint32_t)gregs[REG_R8];
        break;
    case POINT_ENTRY:
        vcpu->eip = (uint32_t)gregs[REG_R8];
        vcpu->gpr[ECX] = (uint32_t)gregs[REG_R9];
        break;
    default:
        break;
    }
}

/* Of the instruction at EIP, if the block has it: + 1. */
static uint64_t place_in(const struct block *block, uint32_t eip)
{
    return block != NULL && eip - block->eip < block->guest_size ? block->place + (eip - block->eip) + 1 : 0;
}

static void capture(struct translator *translator, const ucontext_t *uc)
{
    struct point point = {.kind = POINT_TARGET}; /* the jump for empty slots is in no block */
    struct context *context = translator->context;
    const greg_t *gregs = uc->uc_mcontext.gregs;
    const uint8_t *rip = (const uint8_t *)gregs[REG_RIP];
    const struct block *block = cache_block_at(&translator->cache, rip);
    struct vcpu *vcpu = context->vcpu;
    uint32_t eflags = (uint32_t)gregs[REG_EFL];

    switch_catch_up(translator);
    for (int i = 0; i < GPR_COUNT; i++)
        vcpu->gpr[i] = (uint32_t)gregs[greg_of_gpr[i]];
    if (block != NULL)
        point = block_state_at(&translator->cache, block, rip);
    apply_point(translator, &point, gregs);
    translator->place = place_in(block, vcpu->eip);
    if (point.kind != POINT_SAVED_FLAGS)
        context->flags = (uint16_t)((eflags & 0xff) << 8 | ((eflags & EFLAGS_OF) != 0));
    context->direction = eflags & EFLAGS_DF;
    if (uc->uc_mcontext.fpregs != NULL) {
        memcpy(context->fxsave, uc->uc_mcontext.fpregs, FXSAVE_GUEST_BYTES);
        frame_repair_fxsave(translator);
    }
}

/* Back to who called translate_enter; the kernel is not told that the handler ended: nothing of it is needed,
 * since the mask of a synchronous signal's handler is empty, and that of another was put back. */
static _Noreturn void leave(struct translator *translator, int how)
{
    register struct context *context __asm__("r15") = translator->context;

    __asm__ volatile("jmp translate_leave_captured" : : "a"(how), "r"(context) : "memory");
    __builtin_unreachable();
}

static bool is_in_cache(const ucontext_t *uc)
{
    return running != NULL && cache_contains(&running->cache, (const void *)uc->uc_mcontext.gregs[REG_RIP]);
}

static void on_fault(int signo, siginfo_t *info, void *opaque)
{
    ucontext_t *uc = opaque;
    struct translator *translator = running;

    if (!is_in_cache(uc))
        crash_report(signo, info, uc);
    capture(translator, uc);
    translator->signo = signo;
    translator->code = info->si_code;
    translator->trapno = (int)uc->uc_mcontext.gregs[REG_TRAPNO];
    translator->error = (uint32_t)uc->uc_mcontext.gregs[REG_ERR];
    translator->cr2 = (uint64_t)uc->uc_mcontext.gregs[REG_CR2];
    leave(translator, TRANSLATE_FAULTED);
}

static void on_event(int signo, siginfo_t *info, void *opaque)
{
    ucontext_t *uc = opaque;
    greg_t *gregs = uc->uc_mcontext.gregs;
    uintptr_t rip = (uintptr_t)gregs[REG_RIP];

    (void)info;
    if (signal_table[signo].handler != NULL)
        signal_table[signo].handler(signo);
    if (running == NULL)
        return;
    running->vm->attention = 1;
    running->context->pending = EFLAGS_IF;
    if (is_in_cache(uc)) {
        capture(running, uc);
        nesting_end(uc);
        leave(running, TRANSLATE_INTERRUPTED);
    }
    if (rip >= (uintptr_t)translate_resume_start && rip < (uintptr_t)translate_resume_end) {
        gregs[REG_R15] = (greg_t)(uintptr_t)running->context;
        gregs[REG_RIP] = (greg_t)(uintptr_t)translate_abort;
    }
}

/* ---- handlers ------------------------------------------------------------------------------------------ */

static bool install(int signo, void (*handler)(int, siginfo_t *, void *), sigset_t mask)
{
    struct sigaction action = {
        .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER, .sa_sigaction = handler, .sa_mask = mask};

    signal_table[signo].is_ours = true;
    return sigaction(signo, &action, NULL) == 0;
}

void frame_adopt(void)
{
    for (int signo = 1; signo < _NSIG; signo++) {
        struct sigaction action;

        if (signal_table[signo].is_ours || sigaction(signo, NULL, &action) != 0 ||
            action.sa_handler == SIG_DFL || action.sa_handler == SIG_IGN)
            continue;
        signal_table[signo].handler = action.sa_handler;
        if (!install(signo, on_event, nesting_asynchronous()))
            die("sigaction: %s", strerror(errno));
    }
}

static bool open_stack(struct translator *translator)
{
    stack_t stack = {.ss_size = ALTERNATE_STACK_SIZE};

    translator->stack = mmap(NULL, ALTERNATE_STACK_SIZE, PROT_READ | PROT_WRITE,
                             MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK | MAP_NORESERVE, -1, 0);
    if (translator->stack == MAP_FAILED) {
        translator->stack = NULL;
        return false;
    }
    stack.ss_sp = translator->stack;
    return sigaltstack(&stack, NULL) == 0;
}

bool frame_open(struct translator *translator, char *error, size_t error_size)
{
    static const int synchronous[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP};
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN};
    bool is_done = open_stack(translator);
    sigset_t none;

    sigemptyset(&none);
    for (size_t i = 0; is_done && i < sizeof synchronous / sizeof synchronous[0]; i++)
        is_done = install(synchronous[i], on_fault, none);
    is_done = is_done && install(SIGRTMIN, on_event, nesting_asynchronous()) &&
              timer_create(CLOCK_MONOTONIC, &event, &translator->timer) == 0;
    translator->has_timer = is_done;
    if (!is_done)
        snprintf(error, error_size, "cannot set up signals and the timer: %s", strerror(errno));
    running = translator;
    return is_done;
}

void frame_close(struct translator *translator)
{
    running = NULL;
    if (translator->has_timer)
        timer_delete(translator->timer);
    /* the alternate stack stays: a crash may still need it */
}
