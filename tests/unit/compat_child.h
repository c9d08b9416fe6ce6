/*
 * Runs a few bytes natively at ring 3 in 32-bit compatibility mode, in a child process of its own, and says
 * how that ended. No part of ring3 is involved: this is the oracle that the table of sensitive instructions
 * is held against.
 *
 * The child maps code, data and a stack below 4 GiB, installs the few things that the trap engine would (a
 * seccomp filter for 32-bit system calls, the TSC and CPUID traps, some LDT entries), jumps to CS 0x23 and
 * ends in the handler of whatever signal comes first. Behind the bytes stands a hlt: a #GP there means that
 * they ran through.
 */
#ifndef RING3_TEST_COMPAT_CHILD_H
#define RING3_TEST_COMPAT_CHILD_H

#include <asm/ldt.h>
#include <asm/prctl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/ucontext.h>
#include <sys/wait.h>
#include <unistd.h>

/* The child's memory: fixed, so that examples can name addresses; above any vm.mmap_min_addr in use. */
#define COMPAT_CODE    0x00100000u
#define COMPAT_LANDING 0x00100800u /* a hlt, for the examples that jump */
#define COMPAT_DATA    0x00101000u /* ebx, esi, edi and ebp point here */
#define COMPAT_STACK   0x00102f00u /* esp, growing down */
#define COMPAT_SIZE    0x00003000u

/* LDT entries of the child (selector = index * 8 + 7). */
#define COMPAT_LDT_DATA         0x07u
#define COMPAT_LDT_CODE         0x0fu
#define COMPAT_LDT_NOT_PRESENT  0x17u
#define COMPAT_LDT_LANDING_CODE 0x1fu /* code whose base is COMPAT_LANDING */

enum compat_ending {
    COMPAT_DIED, /* the child ended in no way that was foreseen */
    COMPAT_RAN,  /* to the hlt behind the bytes, or to the landing */
    COMPAT_TRAPPED,
    COMPAT_HOST_CALL, /* SIGSYS by the seccomp filter */
};

struct compat_result {
    volatile enum compat_ending ending;
    volatile int signal, code;
    volatile uint32_t vector, error, eip;
    volatile uint32_t eax;
    uint32_t start, end; /* of the bytes under test */
    bool has_ldt, has_tsc_trap, has_cpuid_trap, has_filter;
};

static struct compat_result *compat_result;

__attribute__((noreturn)) static inline void compat_exit(void)
{
    __asm__ volatile("syscall" : : "a"(SYS_exit_group), "D"(0) : "rcx", "r11", "memory");
    __builtin_unreachable();
}

/* FS may be anything here: nothing that reaches for thread-local data, no canary, no return. */
__attribute__((no_stack_protector)) static void compat_handler(int signal, siginfo_t *info, void *context)
{
    const greg_t *registers = ((const ucontext_t *)context)->uc_mcontext.gregs;
    struct compat_result *result = compat_result;
    uint32_t base = (registers[REG_CSGSFS] & 0xffff) == COMPAT_LDT_LANDING_CODE ? COMPAT_LANDING : 0;

    result->signal = signal;
    result->code = info->si_code;
    result->vector = (uint32_t)registers[REG_TRAPNO];
    result->error = (uint32_t)registers[REG_ERR];
    result->eip = (uint32_t)registers[REG_RIP];
    result->eax = (uint32_t)registers[REG_RAX];
    if (signal == SIGSYS)
        result->ending = COMPAT_HOST_CALL;
    else if (result->vector == 13 &&
             (result->eip + base == result->end || result->eip + base == COMPAT_LANDING))
        result->ending = COMPAT_RAN;
    else
        result->ending = COMPAT_TRAPPED;
    compat_exit();
}

static bool compat_install_ldt(void)
{
    const struct user_desc entries[] = {
        {.entry_number = 0, .limit = 0xfffff, .seg_32bit = 1, .limit_in_pages = 1, .useable = 1},
        {.entry_number = 1,
         .limit = 0xfffff,
         .seg_32bit = 1,
         .contents = MODIFY_LDT_CONTENTS_CODE,
         .limit_in_pages = 1,
         .useable = 1},
        {.entry_number = 2, .limit = 0xfffff, .seg_32bit = 1, .limit_in_pages = 1, .seg_not_present = 1},
        {.entry_number = 3,
         .base_addr = COMPAT_LANDING,
         .limit = 0xfffff,
         .seg_32bit = 1,
         .contents = MODIFY_LDT_CONTENTS_CODE,
         .limit_in_pages = 1,
         .useable = 1},
    };

    for (size_t i = 0; i < sizeof entries / sizeof entries[0]; i++) {
        if (syscall(SYS_modify_ldt, 0x11, &entries[i], sizeof entries[i]) != 0)
            return false;
    }
    return true;
}

static bool compat_install_filter(void)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AUDIT_ARCH_I386, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {.len = sizeof code / sizeof code[0], .filter = code};

    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
           prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

static void compat_catch_signals(void)
{
    static const int signals[] = {SIGSEGV, SIGBUS, SIGILL, SIGTRAP, SIGFPE, SIGSYS};
    static uint8_t stack[65536];
    stack_t alternate = {.ss_sp = stack, .ss_size = sizeof stack};
    struct sigaction action = {.sa_sigaction = compat_handler, .sa_flags = SA_SIGINFO | SA_ONSTACK};

    sigaltstack(&alternate, NULL);
    for (size_t i = 0; i < sizeof signals / sizeof signals[0]; i++)
        sigaction(signals[i], &action, NULL);
}

__attribute__((noreturn)) static void compat_enter(uint32_t eip)
{
    struct {
        uint32_t offset;
        uint16_t selector;
    } target = {eip, 0x23}; /* __USER32_CS */

    __asm__ volatile("movl %%ecx, %%esp\n\t"
                     "movl %%ebx, %%ebp\n\t"
                     "ljmpl *(%%rax)"
                     :
                     : "a"(&target), "b"(COMPAT_DATA), "c"(COMPAT_STACK), "S"(COMPAT_DATA), "D"(COMPAT_DATA)
                     : "memory");
    __builtin_unreachable();
}

static void compat_child(const uint8_t *setup, size_t n_setup, const uint8_t *bytes, size_t n_bytes)
{
    static const uint8_t flat[] = {0xb8, 0x2b, 0, 0, 0, 0x8e, 0xd8, 0x8e, 0xc0}; /* mov eax, 2b; mov ds, es */
    struct compat_result *result = compat_result;
    uint8_t *memory = mmap((void *)(uintptr_t)COMPAT_CODE, COMPAT_SIZE, PROT_READ | PROT_WRITE | PROT_EXEC,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    uint8_t *code = memory;

    if (memory != (uint8_t *)(uintptr_t)COMPAT_CODE)
        compat_exit();
    memcpy(code, flat, sizeof flat);
    code += sizeof flat;
    memcpy(code, setup, n_setup);
    code += n_setup;
    result->start = (uint32_t)(uintptr_t)code;
    memcpy(code, bytes, n_bytes);
    code += n_bytes;
    result->end = (uint32_t)(uintptr_t)code;
    *code = 0xf4;
    memory[COMPAT_LANDING - COMPAT_CODE] = 0xf4;

    result->has_ldt = compat_install_ldt();
    compat_catch_signals();
    alarm(10);
    result->has_cpuid_trap = syscall(SYS_arch_prctl, ARCH_SET_CPUID, 0) == 0;
    result->has_filter = compat_install_filter();
    result->has_tsc_trap = prctl(PR_SET_TSC, PR_TSC_SIGSEGV) == 0;
    compat_enter(COMPAT_CODE);
}

/* Runs `setup`, then `bytes`, and reports on `bytes`. */
static struct compat_result compat_run(const uint8_t *setup, size_t n_setup, const uint8_t *bytes,
                                       size_t n_bytes)
{
    struct compat_result result = {.ending = COMPAT_DIED};
    int status = 0;
    pid_t child;

    compat_result =
        mmap(NULL, sizeof *compat_result, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (compat_result == MAP_FAILED)
        return result;
    *compat_result = result;
    child = fork();
    if (child == 0) {
        compat_child(setup, n_setup, bytes, n_bytes);
        compat_exit();
    }
    if (child > 0)
        waitpid(child, &status, 0);
    result = *compat_result;
    if (child > 0 && WIFSIGNALED(status))
        result.signal = WTERMSIG(status);
    munmap(compat_result, sizeof *compat_result);
    return result;
}

#endif
