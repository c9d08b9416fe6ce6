/*
 * A synchronous fault in the monitor's own code is a bug of ours. The report is made with fixed buffers and
 * write(2): what faulted, what the guest was doing, and the monitor's backtrace, which libunwind takes
 * through the signal frame.
 */
#define UNW_LOCAL_ONLY
#include "signals/crash.h"

#include <libunwind.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "vcpu/fail.h"
#include "vcpu/vcpu.h"

#define CRASH_MAX_FRAMES 48

static const struct vcpu *crash_vcpu;

extern const char __ehdr_start[] __attribute__((visibility("hidden")));

void crash_set_vcpu(const struct vcpu *vcpu)
{
    crash_vcpu = vcpu;
}

static void say(const char *format, ...) __attribute__((format(printf, 1, 2)));
static void say(const char *format, ...)
{
    char line[256];
    va_list arguments;
    int n;

    va_start(arguments, format);
    n = vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    if (n > 0 && write(STDERR_FILENO, line, (size_t)n < sizeof line ? (size_t)n : sizeof line - 1) < 0)
        _exit(1); /* nobody is listening */
}

static void say_guest(const struct vcpu *vcpu)
{
    say("guest: cs:eip %04x:%08x eflags %08x cpl %u cr0 %08x cr2 %08x cr3 %08x cr4 %08x\n",
        vcpu->segment[SEG_CS].selector, vcpu->eip, vcpu->eflags, vcpu->cpl, vcpu->cr0, vcpu->cr2, vcpu->cr3,
        vcpu->cr4);
    say("guest: eax %08x ecx %08x edx %08x ebx %08x esp %08x ebp %08x esi %08x edi %08x\n", vcpu->gpr[EAX],
        vcpu->gpr[ECX], vcpu->gpr[EDX], vcpu->gpr[EBX], vcpu->gpr[ESP], vcpu->gpr[EBP], vcpu->gpr[ESI],
        vcpu->gpr[EDI]);
}

static void say_backtrace(ucontext_t *uc)
{
    unw_cursor_t cursor;

    /* On x86-64 libunwind's context is the ucontext; the flag says that its first frame was interrupted, not
     * called. */
    if (unw_init_local2(&cursor, (unw_context_t *)uc, UNW_INIT_SIGNAL_FRAME) != 0) {
        say("backtrace: libunwind cannot start\n");
        return;
    }
    for (int i = 0; i < CRASH_MAX_FRAMES; i++) {
        unw_word_t ip = 0, offset = 0;
        char name[96];

        unw_get_reg(&cursor, UNW_REG_IP, &ip);
        if (ip == 0)
            break;
        if (unw_get_proc_name(&cursor, name, sizeof name, &offset) != 0)
            strcpy(name, "?");
        say("  #%-2d ring3+0x%lx %s+0x%lx\n", i, (unsigned long)(ip - (uintptr_t)__ehdr_start), name,
            (unsigned long)offset);
        if (unw_step(&cursor) <= 0)
            break;
    }
}

void crash_report(int signo, const siginfo_t *info, ucontext_t *uc)
{
    static volatile sig_atomic_t is_crashing;

    if (is_crashing++)
        _exit(1); /* the report itself faulted: what is out is out */
    say("ring3: the monitor itself faulted: %s (trap %d, error %#x) at ring3+0x%lx, address %p\n",
        strsignal(signo), (int)uc->uc_mcontext.gregs[REG_TRAPNO], (unsigned)uc->uc_mcontext.gregs[REG_ERR],
        (unsigned long)((uintptr_t)uc->uc_mcontext.gregs[REG_RIP] - (uintptr_t)__ehdr_start), info->si_addr);
    if (crash_vcpu != NULL)
        say_guest(crash_vcpu);
    say("monitor backtrace (resolve with: addr2line -fe ring3 0x...):\n");
    say_backtrace(uc);
    fail_run_cleanup();
    say("ring3: this is a bug in ring3; please report it with the lines above\n");
    _exit(1);
}
