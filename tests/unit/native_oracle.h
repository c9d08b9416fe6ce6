/*
 * The CPU as an oracle: runs one instruction of 32- or 16-bit code natively at ring 3, with given registers,
 * flags, FPU state and memory, and says what it left behind. No part of ring3 is involved.
 *
 * Unlike compat_child.h this needs no child process, and so can run a hundred thousand instructions: nothing
 * here loads FS or GS or makes a system call. Code and data lie at fixed low addresses, as in the machine
 * under test; around the instruction stand hlts, so that wherever it goes, the first #GP or page fault ends
 * the run.
 */
#ifndef RING3_NATIVE_ORACLE_H
#define RING3_NATIVE_ORACLE_H

#include <asm/ldt.h>
#include <setjmp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#define ORACLE_CODE      0x00110000u
#define ORACLE_INSN      (ORACLE_CODE + 0x800) /* where the instruction is */
#define ORACLE_CODE_SIZE 0x1000u
#define ORACLE_DATA      0x00120000u
#define ORACLE_DATA_SIZE 0x2000u

#define ORACLE_USER_CS 0x23 /* Linux: __USER32_CS, __USER_DS */
#define ORACLE_USER_DS 0x2b

/* What CS, DS and ES, and SS are to be. */
struct oracle_segment {
    uint16_t selector;
    uint32_t base, limit;
    bool is_32bit, is_code, is_down;
    bool is_read_only; /* of code: cannot be read */
    bool is_absent;
};

struct oracle_state {
    uint32_t gpr[8]; /* in the hardware's order */
    uint32_t eip, eflags;
    uint16_t es, cs, ss, ds; /* afterwards */
    _Alignas(16) uint8_t fxsave[512];
    int vector; /* of the exception that ended the run */
    uint32_t error, cr2;
};

static sigjmp_buf oracle_return;
static uint16_t oracle_code_selector = ORACLE_USER_CS, oracle_data_selector = ORACLE_USER_DS,
                oracle_stack_selector = ORACLE_USER_DS;
/* The frame of the IRETQ. To a 16-bit stack it loads SP alone: ESP keeps bits 31 to 16 of this address. */
static _Alignas(65536) uint8_t oracle_frame[4096];
static struct oracle_state *volatile oracle_result;

static void oracle_handler(int signal, siginfo_t *info, void *context)
{
    static const int order[] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI};
    const ucontext_t *uc = context;
    const greg_t *registers = uc->uc_mcontext.gregs;
    struct oracle_state *result = oracle_result;

    (void)signal;
    (void)info;
    for (unsigned i = 0; i < 8; i++)
        result->gpr[i] = (uint32_t)registers[order[i]];
    result->eip = (uint32_t)registers[REG_RIP];
    result->eflags = (uint32_t)registers[REG_EFL];
    result->cs = (uint16_t)registers[REG_CSGSFS];
    result->ss = (uint16_t)(registers[REG_CSGSFS] >> 48);
    __asm__ volatile("mov %%ds, %0; mov %%es, %1" : "=rm"(result->ds), "=rm"(result->es));
    memcpy(result->fxsave, uc->uc_mcontext.fpregs, sizeof result->fxsave);
    result->vector = (int)registers[REG_TRAPNO];
    result->error = (uint32_t)registers[REG_ERR];
    result->cr2 = (uint32_t)registers[REG_CR2];
    siglongjmp(oracle_return, 1);
}

static uint8_t *oracle_memory(uint32_t address)
{
    return (uint8_t *)(uintptr_t)address;
}

/* False where the host has no room at the fixed addresses. */
static bool oracle_init(void)
{
    static bool is_ready;
    static const int signals[] = {SIGSEGV, SIGBUS, SIGILL, SIGTRAP, SIGFPE};
    static uint8_t stack[65536];
    stack_t alternate = {.ss_sp = stack, .ss_size = sizeof stack};
    struct sigaction action = {.sa_sigaction = oracle_handler,
                               .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER};
    void *code = oracle_memory(ORACLE_CODE), *data = oracle_memory(ORACLE_DATA);
    const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE;

    if (is_ready)
        return true;
    if (mmap(code, ORACLE_CODE_SIZE, PROT_READ | PROT_WRITE | PROT_EXEC, flags, -1, 0) != code ||
        mmap(data, ORACLE_DATA_SIZE, PROT_READ | PROT_WRITE, flags, -1, 0) != data)
        return false;
    sigaltstack(&alternate, NULL);
    for (size_t i = 0; i < sizeof signals / sizeof signals[0]; i++)
        sigaction(signals[i], &action, NULL);
    is_ready = true;
    return true;
}

/* Puts the segment, of a limit below 1 MiB, into the LDT at its selector. False: the host does not let us. */
static bool oracle_make_segment(const struct oracle_segment *segment)
{
    struct user_desc entry = {.entry_number = segment->selector >> 3,
                              .base_addr = segment->base,
                              .limit = segment->limit,
                              .seg_32bit = segment->is_32bit,
                              .contents = segment->is_code   ? MODIFY_LDT_CONTENTS_CODE
                                          : segment->is_down ? MODIFY_LDT_CONTENTS_STACK
                                                             : MODIFY_LDT_CONTENTS_DATA,
                              .read_exec_only = segment->is_read_only,
                              .seg_not_present = segment->is_absent,
                              .useable = 1};

    return syscall(SYS_modify_ldt, 1, &entry, sizeof entry) == 0;
}

static uint32_t oracle_stack_high(void)
{
    return (uint32_t)(uintptr_t)oracle_frame & 0xffff0000u;
}

/* Runs the instruction at ORACLE_INSN from `state` (gpr, eip, eflags, fxsave), in place. */
static void oracle_run(struct oracle_state *state)
{
    oracle_result = state;
    if (sigsetjmp(oracle_return, 0) != 0)
        return;
    __asm__ volatile(
        "lea 4096+%[frame], %%rsp\n\t"
        "movzwl %[data_selector], %%ecx\n\t"
        "mov %%ecx, %%ds\n\t"
        "mov %%ecx, %%es\n\t"
        "fxrstor %c[fxsave](%%rax)\n\t"
        "movzwl %[stack_selector], %%ecx\n\t"
        "push %%rcx\n\t" /* SS */
        "mov 4*4(%%rax), %%ecx\n\t"
        "push %%rcx\n\t" /* RSP */
        "mov %c[eflags](%%rax), %%ecx\n\t"
        "push %%rcx\n\t" /* RFLAGS */
        "movzwl %[code_selector], %%ecx\n\t"
        "push %%rcx\n\t" /* CS */
        "mov %c[eip](%%rax), %%ecx\n\t"
        "push %%rcx\n\t" /* RIP */
        "mov 1*4(%%rax), %%ecx\n\t"
        "mov 2*4(%%rax), %%edx\n\t"
        "mov 3*4(%%rax), %%ebx\n\t"
        "mov 5*4(%%rax), %%ebp\n\t"
        "mov 6*4(%%rax), %%esi\n\t"
        "mov 7*4(%%rax), %%edi\n\t"
        "mov 0*4(%%rax), %%eax\n\t"
        "iretq"
        :
        : "a"(state), [fxsave] "i"(offsetof(struct oracle_state, fxsave)),
          [eflags] "i"(offsetof(struct oracle_state, eflags)), [eip] "i"(offsetof(struct oracle_state, eip)),
          [data_selector] "m"(oracle_data_selector), [stack_selector] "m"(oracle_stack_selector),
          [code_selector] "m"(oracle_code_selector), [frame] "m"(oracle_frame)
        : "memory");
    __builtin_unreachable();
}

#endif
