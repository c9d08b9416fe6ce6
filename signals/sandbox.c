/*
 * The sandbox: from the first guest instruction on, the process can only make the system calls that a running
 * monitor makes. A guest that took the whole process over could still open nothing, connect nowhere and
 * execute nothing.
 *
 * Two filters: every 32-bit system call (the guest's int 0x80) is SIGSYS, which is how the trap engine sees
 * it; a 64-bit call that is not on the list fails with EPERM. The list is data, with the argument pinned
 * where one value is all we ever pass. Beside them, where the host has it, stands syscall user dispatch: any
 * call made from below 4 GiB, where only guest code lies, is SIGSYS too, also that of a guest which found its
 * way to 64-bit mode.
 *
 * Read next: crash.c.
 */
#include <asm/prctl.h>
#include <errno.h>
#include <linux/userfaultfd.h>
#include <seccomp.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <termios.h>
#include <unistd.h>

#include "signals/signals.h"

#define LOW_MEMORY_END (UINT64_C(1) << 32)

/* Older headers lack these (linux/prctl.h of Linux 5.11). */
#ifndef PR_SET_SYSCALL_USER_DISPATCH
#define PR_SET_SYSCALL_USER_DISPATCH 59
#define PR_SYS_DISPATCH_ON           1
#endif

struct allowed_call {
    int number;
    int argument; /* which argument is pinned; -1: none */
    uint64_t value;
};

#define ANY(call)                                                                                            \
    {                                                                                                        \
        SCMP_SYS(call), -1, 0                                                                                \
    }
#define ONLY(call, argument, value)                                                                          \
    {                                                                                                        \
        SCMP_SYS(call), argument, value                                                                      \
    }

static const struct allowed_call allowed[] = {
    /* console, trace, disk images: on descriptors that are open already */
    ANY(read),
    ANY(write),
    ANY(writev),
    ANY(pread64),
    ANY(pwrite64),
    ANY(lseek),
    ANY(ftruncate),
    ANY(fsync),
    ANY(fdatasync),
    ANY(close),
    ANY(fstat),
    ANY(newfstatat),
    ANY(ppoll),
    ANY(poll),
    ANY(pselect6),
    ONLY(ioctl, 1, TCGETS),
    ONLY(ioctl, 1, TCSETS),
    ONLY(ioctl, 1, TCSETSW),
    ONLY(ioctl, 1, TCSETSF),
    ONLY(ioctl, 1, TIOCGWINSZ),
    ONLY(ioctl, 1, FIONREAD),
    /* shadow mappings */
    ANY(mmap),
    ANY(munmap),
    ANY(mprotect),
    ANY(madvise),
    ANY(mremap),
    ANY(brk),
    ONLY(ioctl, 1, UFFDIO_REGISTER),
    ONLY(ioctl, 1, UFFDIO_UNREGISTER),
    ONLY(ioctl, 1, UFFDIO_WRITEPROTECT),
    /* segments and the FS base */
    ANY(modify_ldt),
    ONLY(arch_prctl, 0, ARCH_SET_FS),
    ONLY(arch_prctl, 0, ARCH_SET_GS),
    ONLY(arch_prctl, 0, ARCH_SET_CPUID),
    ONLY(prctl, 0, PR_SET_TSC),
    /* time and signals */
    ANY(clock_gettime),
    ANY(clock_nanosleep),
    ANY(timer_settime),
    ANY(timer_delete),
    ANY(rt_sigreturn),
    ANY(rt_sigprocmask),
    ANY(rt_sigaction),
    ANY(sigaltstack),
    ANY(restart_syscall),
    ANY(setitimer),
    ANY(alarm),
    /* memory checks of libunwind in a crash report */
    ANY(mincore),
    ANY(msync),
    ANY(pipe2),
    /* the end */
    ANY(wait4),
    ANY(getpid),
    ANY(gettid),
    ANY(exit),
    ANY(exit_group),
    ANY(futex),
    ANY(getrandom),
};

/* abort() and raise(): to this process only. */
static int add_tgkill(scmp_filter_ctx filter)
{
    struct scmp_arg_cmp self = {0, SCMP_CMP_EQ, (uint64_t)getpid(), 0};

    return seccomp_rule_add_array(filter, SCMP_ACT_ALLOW, SCMP_SYS(tgkill), 1, &self);
}

static int add_rules(scmp_filter_ctx filter)
{
    for (size_t i = 0; i < sizeof allowed / sizeof allowed[0]; i++) {
        const struct allowed_call *call = &allowed[i];
        struct scmp_arg_cmp pin = {(unsigned)call->argument, SCMP_CMP_EQ, call->value, 0};
        int error = call->argument < 0
                        ? seccomp_rule_add_array(filter, SCMP_ACT_ALLOW, call->number, 0, NULL)
                        : seccomp_rule_add_array(filter, SCMP_ACT_ALLOW, call->number, 1, &pin);

        if (error != 0)
            return error;
    }
    return add_tgkill(filter);
}

/* One filter for each architecture: a rule in a filter for both would let the guest's int 0x80 through. */
static int load_filters(scmp_filter_ctx native, scmp_filter_ctx compat)
{
    int error = add_rules(native);

    if (error == 0)
        error = seccomp_arch_remove(compat, SCMP_ARCH_NATIVE);
    if (error == 0)
        error = seccomp_arch_add(compat, SCMP_ARCH_X86);
    if (error == 0) /* the third ABI of an x86-64 kernel: nobody here speaks it */
        error = seccomp_arch_add(compat, SCMP_ARCH_X32);
    if (error == 0)
        error = seccomp_load(compat);
    if (error == 0)
        error = seccomp_load(native);
    return error;
}

/* Linux 5.11 and later; it is a second line, so its absence is no error. */
static void dispatch_low_calls(void)
{
    (void)prctl(PR_SET_SYSCALL_USER_DISPATCH, PR_SYS_DISPATCH_ON, LOW_MEMORY_END, UINT64_MAX - LOW_MEMORY_END,
                NULL);
}

bool signals_close_sandbox(char *error, size_t error_size)
{
    scmp_filter_ctx native = seccomp_init(SCMP_ACT_ERRNO(EPERM));
    scmp_filter_ctx compat = seccomp_init(SCMP_ACT_TRAP);
    int failure = native == NULL || compat == NULL ? -ENOMEM : 0;

    /* Each filter must let the other's architecture pass. */
    if (failure == 0)
        failure = seccomp_attr_set(native, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_ALLOW);
    if (failure == 0)
        failure = seccomp_attr_set(compat, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_ALLOW);
    if (failure == 0)
        dispatch_low_calls();
    if (failure == 0)
        failure = load_filters(native, compat);
    if (native != NULL)
        seccomp_release(native);
    if (compat != NULL)
        seccomp_release(compat);
    if (failure != 0) {
        snprintf(error, error_size,
                 "cannot close the seccomp sandbox: %s (`ring3 doctor` tells what this host allows)",
                 strerror(-failure));
        return false;
    }
    return true;
}
