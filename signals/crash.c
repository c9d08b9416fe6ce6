/*
 * A synchronous fault in the monitor's own code is a bug of ours. The report is made with fixed buffers and
 * write(2): what faulted, what the guest was doing, and the monitor's backtrace, which libunwind takes
 * through the signal frame.
 *
 * Read next: frame.c, which decides whose fault it is.
 */
#define UNW_LOCAL_ONLY
#include "signals/crash.h"

#include <dlfcn.h>
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

void crash_set_vcpu(const struct vcpu *vcpu)
{
    crash_vcpu = vcpu;
}

static void __attribute__((format(printf, 1, 2))) say(const char *format, ...)
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

/* The module and the offset in it, and the function where it is exported: without opening a file, which the
 * sandbox forbids by now. */
static void say_place(int number, uintptr_t address)
{
    Dl_info info = {0};
    const char *module = "?";

    if (dladdr((void *)address, &info) != 0 && info.dli_fname != NULL) {
        module = strrchr(info.dli_fname, '/');
        module = module != NULL ? module + 1 : info.dli_fname;
    }
    say("  #%-2d %s+0x%lx%s%s\n", number, module, (unsigned long)(address - (uintptr_t)info.dli_fbase),
        info.dli_sname ? " in " : "", info.dli_sname ? info.dli_sname : "");
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
        unw_word_t ip = 0;

        unw_get_reg(&cursor, UNW_REG_IP, &ip);
        if (ip == 0)
            break;
        say_place(i, ip);
        if (unw_step(&cursor) <= 0)
            break;
    }
}

void crash_report(int signo, const siginfo_t *info, ucontext_t *uc)
{
    static volatile sig_atomic_t is_crashing;

    if (is_crashing++)
        _exit(1); /* the report itself faulted: what is out is out */
    say("ring3: the monitor itself faulted: %s (trap %d, error %#x), address %p\n", strsignal(signo),
        (int)uc->uc_mcontext.gregs[REG_TRAPNO], (unsigned)uc->uc_mcontext.gregs[REG_ERR], info->si_addr);
    if (crash_vcpu != NULL)
        say_guest(crash_vcpu);
    say("monitor backtrace (resolve with: addr2line -fe ring3 0x...):\n");
    say_backtrace(uc);
    fail_run_cleanup();
    say("ring3: this is a bug in ring3; please report it with the lines above\n");
    _exit(1);
}
