/*
 * The CPU as an oracle: a sequence runs natively at ring 3 in 32-bit compatibility mode, in this process, up
 * to its first exception. No part of ring3 is involved.
 *
 * Segment registers are the ones that Linux gives 32-bit programs (CS 23, DS, ES, SS 2b), FS and GS two
 * entries of the LDT. The handler finds FS as the sequence left it: it puts the thread's back before anything
 * else.
 */
#include <asm/ldt.h>
#include <asm/prctl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

#include "runner.h"

#define USER_CS 0x23
#define USER_DS 0x2b
#define ALL     (PROT_READ | PROT_WRITE | PROT_EXEC)

struct native {
    uint8_t (*memory)[PAGE_SIZE]; /* the pages, where they can be written */
    uint8_t (*initial)[PAGE_SIZE];
    uint64_t memory_seed;
    bool is_code_writable, has_second_code_page;
};

static sigjmp_buf native_return;
static struct random_result *volatile native_result;
static uint64_t native_fs_base;

/* ---- the handler --------------------------------------------------------------------------------------- */

static void capture(struct random_result *result, int signo, const ucontext_t *uc)
{
    static const int order[] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI};
    const greg_t *registers = uc->uc_mcontext.gregs;

    for (unsigned i = 0; i < GPR_COUNT; i++)
        result->gpr[i] = (uint32_t)registers[order[i]];
    result->eip = (uint32_t)registers[REG_RIP];
    result->eflags = (uint32_t)registers[REG_EFL];
    memcpy(result->fxsave, uc->uc_mcontext.fpregs, sizeof result->fxsave);
    result->vector = (int)registers[REG_TRAPNO];
    result->error = (uint32_t)registers[REG_ERR];
    result->cr2 = (uint32_t)registers[REG_CR2];
    result->status = signo == SIGPROF ? RUN_TIMEOUT : RUN_OK;
    if (signo == SIGSYS) {
        result->status = RUN_STOPPED;
        snprintf(result->text, sizeof result->text, "a system call at %08x", result->eip);
    }
}

/* FS and AC are the sequence's until they are put right: nothing before may reach for thread-local data. */
__attribute__((no_stack_protector, noinline)) static void handler(int signo, siginfo_t *info, void *context)
{
    const ucontext_t *uc = context;
    long result;

    __asm__ volatile("lea -128(%%rsp), %%rsp\n\tpushfq\n\tandq $~0x40000, (%%rsp)\n\tpopfq\n\t"
                     "lea 128(%%rsp), %%rsp"
                     :
                     :
                     : "memory", "cc");
    if ((uc->uc_mcontext.gregs[REG_CSGSFS] & 0xffff) != USER_CS) {
        if (signo == SIGPROF)
            return;
        _exit(2); /* a fault of our own */
    }
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "0"(SYS_arch_prctl), "D"(ARCH_SET_FS), "S"(native_fs_base)
                     : "rcx", "r11", "memory");
    (void)info;
    capture(native_result, signo, uc);
    siglongjmp(native_return, 1);
}

/* ---- set-up -------------------------------------------------------------------------------------------- */

static bool install_ldt(void)
{
    const struct user_desc fs = {.entry_number = RANDOM_SELECTOR_FS >> 3,
                                 .base_addr = RANDOM_FS_BASE,
                                 .limit = 0xfffff,
                                 .seg_32bit = 1,
                                 .limit_in_pages = 1,
                                 .useable = 1};
    const struct user_desc gs = {.entry_number = RANDOM_SELECTOR_GS >> 3,
                                 .base_addr = RANDOM_GS_BASE,
                                 .limit = RANDOM_GS_LIMIT,
                                 .seg_32bit = 1,
                                 .useable = 1};

    return syscall(SYS_modify_ldt, 0x11, &fs, sizeof fs) == 0 &&
           syscall(SYS_modify_ldt, 0x11, &gs, sizeof gs) == 0;
}

static int protection(const struct random_region *region)
{
    return PROT_READ | (region->is_writable ? PROT_WRITE : 0) | (region->is_code ? PROT_EXEC : 0);
}

static void *region_address(const struct random_region *region)
{
    return (void *)(uintptr_t)region->gva;
}

static bool map_memory(struct native *native)
{
    int fd = memfd_create("native", 0);

    if (fd < 0 || ftruncate(fd, (off_t)RANDOM_PAGES * PAGE_SIZE) != 0)
        return false;
    native->memory = mmap(NULL, (size_t)RANDOM_PAGES * PAGE_SIZE, PROT_READ | PROT_WRITE,
                          MAP_SHARED | MAP_POPULATE, fd, 0);
    if (native->memory == MAP_FAILED)
        return false;
    for (size_t i = 0; i < random_n_regions; i++) {
        const struct random_region *region = &random_regions[i];

        if (mmap(region_address(region), (size_t)region->n_pages * PAGE_SIZE, protection(region),
                 MAP_SHARED | MAP_FIXED_NOREPLACE | MAP_POPULATE, fd,
                 (off_t)region->first_page * PAGE_SIZE) != region_address(region))
            return false;
    }
    close(fd);
    return true;
}

static void *native_create(const char *argument, char *error, size_t error_size)
{
    static const int signals[] = {SIGSEGV, SIGBUS, SIGILL, SIGTRAP, SIGFPE, SIGSYS, SIGPROF};
    static uint8_t stack[65536], initial[RANDOM_PAGES][PAGE_SIZE];
    static struct native native = {
        .initial = initial, .memory_seed = UINT64_MAX, .has_second_code_page = true};
    stack_t alternate = {.ss_sp = stack, .ss_size = sizeof stack};
    struct sigaction action = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER};

    (void)argument;
    snprintf(error, error_size,
             "this host does not let a process run 32-bit code with an LDT at low addresses");
    if (!map_memory(&native) || !install_ldt() || !runner_forbid_compat_calls() ||
        syscall(SYS_arch_prctl, ARCH_GET_FS, &native_fs_base) != 0)
        return NULL;
    sigaltstack(&alternate, NULL);
    for (size_t i = 0; i < sizeof signals / sizeof signals[0]; i++)
        sigaction(signals[i], &action, NULL);
    return &native;
}

/* ---- runs ---------------------------------------------------------------------------------------------- */

static void set_code_protection(struct native *native, const struct random_case *random_case)
{
    uint8_t *code = (uint8_t *)(uintptr_t)RANDOM_CODE, *alias = (uint8_t *)(uintptr_t)RANDOM_ALIAS;
    int code_rights = random_case->is_code_writable ? ALL : PROT_READ | PROT_EXEC;
    int second_rights = random_case->has_second_code_page ? code_rights : PROT_NONE;

    if (native->is_code_writable == random_case->is_code_writable &&
        native->has_second_code_page == random_case->has_second_code_page &&
        native->memory_seed != UINT64_MAX)
        return;
    native->is_code_writable = random_case->is_code_writable;
    native->has_second_code_page = random_case->has_second_code_page;
    mprotect(code, PAGE_SIZE, code_rights);
    mprotect(code + PAGE_SIZE, PAGE_SIZE, second_rights);
    mprotect(alias, (size_t)PAGES_CODE * PAGE_SIZE, random_case->is_code_writable ? ALL : PROT_NONE);
}

static void set_memory(struct native *native, const struct random_case *random_case)
{
    set_code_protection(native, random_case);
    if (native->memory_seed != random_case->memory_seed)
        random_fill_memory(random_case->memory_seed, native->initial);
    native->memory_seed = random_case->memory_seed;
    memcpy(native->initial[FIRST_CODE], random_case->code, sizeof random_case->code);
    memcpy(native->memory, native->initial, (size_t)RANDOM_PAGES * PAGE_SIZE);
    for (size_t i = 0; i < random_n_regions; i++) { /* that they are there, as error codes show it */
        const struct random_region *region = &random_regions[i];

        for (uint32_t page = 0; page < region->n_pages; page++)
            if (region->first_page + page != FIRST_CODE + 1 && region->gva != RANDOM_ALIAS)
                (void)*(volatile uint8_t *)(uintptr_t)(region->gva + page * PAGE_SIZE);
    }
    if (random_case->has_second_code_page)
        (void)*(volatile uint8_t *)(uintptr_t)(RANDOM_CODE + PAGE_SIZE);
}

static void enter(const struct random_case *random_case)
{
    __asm__ volatile(
        "mov %[data_selector], %%ecx\n\t"
        "mov %%ecx, %%ds\n\t"
        "mov %%ecx, %%es\n\t"
        "fxrstor %c[fxsave](%%rax)\n\t"
        "push %%rcx\n\t" /* SS */
        "mov %c[gpr]+4*4(%%rax), %%ecx\n\t"
        "push %%rcx\n\t" /* RSP */
        "mov %c[eflags](%%rax), %%ecx\n\t"
        "push %%rcx\n\t" /* RFLAGS */
        "pushq %[code_selector]\n\t"
        "mov %c[eip](%%rax), %%ecx\n\t"
        "push %%rcx\n\t" /* RIP */
        "mov %[gs], %%ecx\n\t"
        "mov %%ecx, %%gs\n\t"
        "mov %[fs], %%ecx\n\t"
        "mov %%ecx, %%fs\n\t"
        "mov %c[gpr]+1*4(%%rax), %%ecx\n\t"
        "mov %c[gpr]+2*4(%%rax), %%edx\n\t"
        "mov %c[gpr]+3*4(%%rax), %%ebx\n\t"
        "mov %c[gpr]+5*4(%%rax), %%ebp\n\t"
        "mov %c[gpr]+6*4(%%rax), %%esi\n\t"
        "mov %c[gpr]+7*4(%%rax), %%edi\n\t"
        "mov %c[gpr]+0*4(%%rax), %%eax\n\t"
        "iretq"
        :
        : "a"(random_case), [fxsave] "i"(offsetof(struct random_case, fxsave)),
          [gpr] "i"(offsetof(struct random_case, gpr)), [eflags] "i"(offsetof(struct random_case, eflags)),
          [eip] "i"(offsetof(struct random_case, eip)), [data_selector] "i"(USER_DS),
          [code_selector] "i"(USER_CS), [fs] "i"(RANDOM_SELECTOR_FS), [gs] "i"(RANDOM_SELECTOR_GS)
        : "memory");
    __builtin_unreachable();
}

static uint64_t now_ns(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static void native_run(void *state, const struct random_case *random_case, struct random_result *result)
{
    struct native *native = state;

    uint64_t start;

    set_memory(native, random_case);
    native_result = result;
    start = now_ns();
    runner_set_alarm(NATIVE_LIMIT_US);
    if (sigsetjmp(native_return, 0) == 0)
        enter(random_case);
    runner_set_alarm(0);
    result->ns = now_ns() - start;
    memcpy(result->memory, native->memory, sizeof result->memory);
}

const struct runner_kind native_runner = {native_create, native_run};
