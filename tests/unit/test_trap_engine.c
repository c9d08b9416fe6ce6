/*
 * The trap engine on bare machine code: what each kind of signal becomes, segments with a base, the
 * restartable window, and guests that try to reach the host. Native: not under sanitizers.
 */
#include <check.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "monitor/monitor.h"
#include "signals/signals.h"

#define CODE_GPA      0x100000u
#define DATA_GPA      0x200000u
#define GDT_GPA       0x300000u
#define SELECTOR_CODE 0x08
#define SELECTOR_DATA 0x10

static struct vm vm;

static void put_descriptor(unsigned index, uint32_t base, uint32_t limit, unsigned access, unsigned flags)
{
    uint64_t descriptor = (limit & 0xffff) | (uint64_t)(base & 0xffffff) << 16 | (uint64_t)access << 40 |
                          (uint64_t)(limit >> 16 & 0xf) << 48 | (uint64_t)flags << 52 |
                          (uint64_t)(base >> 24) << 56;

    ck_assert(memory_write(&vm.memory, GDT_GPA + 8 * index, &descriptor, sizeof descriptor));
}

/* A machine of 16 MiB with `code` at CODE_GPA, flat segments and a GDT. */
static void start(const uint8_t *code, size_t n)
{
    struct vm_config config = {.ram_size = 16u << 20, .clock = CLOCK_HOST, .check_invariant = true};
    char error[256] = "";

    ck_assert_msg(vm_create(&vm, &config, &trap_engine, error, sizeof error), "%s", error);
    ck_assert(memory_write(&vm.memory, CODE_GPA, code, n));
    put_descriptor(1, 0, 0xfffff, 0x9b, 0xc);
    put_descriptor(2, 0, 0xfffff, 0x93, 0xc);
    put_descriptor(3, DATA_GPA, 0xfff, 0x93, 0x4); /* 0x18: 4 KiB of data at DATA_GPA */
    vcpu_set_flat(&vm.vcpu, SELECTOR_CODE, SELECTOR_DATA, CODE_GPA);
    vm.vcpu.gdtr = (struct table_register){.base = GDT_GPA, .limit = 8 * 4 - 1};
    vm.vcpu.gpr[ESP] = DATA_GPA + 0x10000;
}

/* RDTSC faults from the first entry on, and Check's own clock is the vDSO's. */
static void give_back_tsc(void)
{
    ck_assert_int_eq(prctl(PR_SET_TSC, PR_TSC_ENABLE, 0, 0, 0), 0);
}

static struct vm_exit run_to_any_exit(void)
{
    struct vm_exit exit;

    vm.engine->run(vm.engine_state, &exit);
    return exit;
}

/* Runs to the first exit that is not a page fill or a host event. */
static struct vm_exit run_to_exit(void)
{
    struct vm_exit exit;

    for (;;) {
        exit = run_to_any_exit();
        if (exit.reason == EXIT_INTERRUPTED) {
            vm.attention = 0;
            if (!vm_is_stopped(&vm))
                continue;
        }
        if (exit.reason == EXIT_PAGE_FAULT) {
            struct fault fault;

            if (shadow_fault(vm.shadow, &vm.vcpu, exit.fault.cr2, exit.fault.error, &fault) == SHADOW_FILLED)
                continue;
        }
        give_back_tsc();
        return exit;
    }
}

/* INT1 under a hypervisor is reported at the instruction by some, after it by others. */
#define EIP_ANY UINT32_MAX

static const struct {
    const char *name;
    uint8_t code[16];
    size_t n;
    int vector;
    uint32_t error;
    uint32_t eip; /* from CODE_GPA: faults at the instruction, traps after it */
} exception_cases[] = {
    {"div by zero: #DE", {0x31, 0xc9, 0xf7, 0xf1}, 4, EXCEPTION_DE, 0, 2},
    {"int1: #DB", {0xf1}, 1, EXCEPTION_DB, 0, EIP_ANY},
    {"int3: #BP", {0xcc}, 1, EXCEPTION_BP, 0, 1},
    {"into: #OF", {0xb0, 0x7f, 0x04, 0x01, 0xce}, 5, EXCEPTION_OF, 0, 5},
    {"bound: #BR", {0xb8, 0xff, 0xff, 0xff, 0x7f, 0x62, 0x05, 0, 0, 0x20, 0}, 11, EXCEPTION_BR, 0, 5},
    {"ud2: #UD", {0x0f, 0x0b}, 2, EXCEPTION_UD, 0, 0},
    {"hlt: #GP", {0xf4}, 1, EXCEPTION_GP, 0, 0},
    {"cli: #GP", {0xfa}, 1, EXCEPTION_GP, 0, 0},
    {"int 0x21: #GP(0x10a)", {0xcd, 0x21}, 2, EXCEPTION_GP, 0x10a, 0},
    {"mov to ds of a kernel selector: #GP", {0x66, 0xb8, 0x10, 0, 0x8e, 0xd8}, 6, EXCEPTION_GP, 0x10, 4},
    /* fninit; push 0x36e (no masks); fldcw [esp]; fldz; fld1; fdivrp; fwait */
    {"x87 divide by zero: #MF",
     {0xdb, 0xe3, 0x6a, 0x00, 0xd9, 0x2c, 0x24, 0xd9, 0xe8, 0xd9, 0xee, 0xde, 0xf9, 0x9b},
     14,
     EXCEPTION_MF,
     0,
     13},
    /* push 0 (mask nothing); ldmxcsr [esp]; xorps xmm0, xmm0; divss xmm0, xmm0 (invalid) */
    {"SSE invalid operation: #XM",
     {0x6a, 0x00, 0x0f, 0xae, 0x14, 0x24, 0x0f, 0x57, 0xc0, 0xf3, 0x0f, 0x5e, 0xc0},
     13,
     EXCEPTION_XM,
     0,
     9},
};

START_TEST(test_exception)
{
    struct vm_exit exit;

    start(exception_cases[_i].code, exception_cases[_i].n);
    exit = run_to_exit();
    ck_assert_msg(exit.reason == EXIT_EXCEPTION, "%s: exit %s", exception_cases[_i].name,
                  exit_reason_name(exit.reason));
    ck_assert_msg(exit.fault.vector == exception_cases[_i].vector &&
                      exit.fault.error == exception_cases[_i].error,
                  "%s: vector %d error %#x", exception_cases[_i].name, exit.fault.vector, exit.fault.error);
    ck_assert_msg(exception_cases[_i].eip == EIP_ANY || vm.vcpu.eip == CODE_GPA + exception_cases[_i].eip,
                  "%s: eip %#x", exception_cases[_i].name, vm.vcpu.eip);
}
END_TEST

/* ---- with the sandbox closed: in a child, for it cannot be opened again -------------------------------- */

struct sandboxed {
    struct vm_exit exit;
    struct vcpu vcpu;
    enum stop_reason stop_reason;
    char stop_text[512];
};

static void run_sandboxed(const uint8_t *code, size_t n, struct sandboxed *result)
{
    struct sandboxed *shared =
        mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    int status = 0;
    pid_t child;

    ck_assert_ptr_ne(shared, MAP_FAILED);
    start(code, n);
    child = fork();
    ck_assert_int_ge(child, 0);
    if (child == 0) {
        char error[256];

        if (!signals_close_sandbox(error, sizeof error))
            _exit(1);
        shared->exit = run_to_exit();
        shared->vcpu = vm.vcpu;
        shared->stop_reason = vm.stop_reason;
        memcpy(shared->stop_text, vm.stop_text, sizeof shared->stop_text);
        _exit(0);
    }
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert_msg(WIFEXITED(status) && WEXITSTATUS(status) == 0, "status %#x", (unsigned)status);
    *result = *shared;
}

/* mov eax, 0x14 (getpid); int 0x80: the host kernel must not see it. */
START_TEST(test_int80_is_host_call)
{
    static const uint8_t code[] = {0xb8, 0x14, 0, 0, 0, 0xcd, 0x80};
    struct sandboxed result;

    run_sandboxed(code, sizeof code, &result);
    ck_assert_int_eq(result.exit.reason, EXIT_HOST_CALL);
    ck_assert_uint_eq(result.vcpu.eip, CODE_GPA + 5);
    ck_assert_uint_eq(result.vcpu.gpr[EAX], 0x14);
}
END_TEST

/* sysenter and syscall: #UD where the CPU refuses them in compat mode, else the run stops; never a host call.
 */
START_TEST(test_fast_system_call_is_kept)
{
    static const uint8_t code[2][7] = {{0xb8, 0x14, 0, 0, 0, 0x0f, 0x34}, {0xb8, 0x14, 0, 0, 0, 0x0f, 0x05}};
    struct sandboxed result;

    run_sandboxed(code[_i], sizeof code[_i], &result);
    if (result.stop_reason != STOP_NONE) {
        ck_assert_int_eq(result.stop_reason, STOP_IMPOSSIBLE);
        ck_assert_msg(strstr(result.stop_text, "sysenter or syscall") != NULL, "%s", result.stop_text);
    } else {
        ck_assert_int_eq(result.exit.reason, EXIT_EXCEPTION);
        ck_assert_int_eq(result.exit.fault.vector, EXCEPTION_UD);
        ck_assert_uint_eq(result.vcpu.eip, CODE_GPA + 5);
    }
}
END_TEST

/* 64-bit code that a guest could reach: the calls that the monitor does not need fail. */
START_TEST(test_sandbox_denies)
{
    int status = 0;
    pid_t child = fork();

    if (child == 0) {
        char error[256];

        if (!signals_close_sandbox(error, sizeof error))
            _exit(1);
        if (open("/etc/passwd", O_RDONLY) >= 0 || socket(AF_INET, SOCK_STREAM, 0) >= 0 || fork() >= 0 ||
            execl("/bin/true", "true", (char *)NULL) != -1 || kill(getppid(), 0) == 0 ||
            ptrace(PTRACE_TRACEME) == 0)
            _exit(2);
        _exit(0);
    }
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert_msg(WIFEXITED(status) && WEXITSTATUS(status) == 0, "status %#x", (unsigned)status);
}
END_TEST

/* A data segment with a base and a limit: fs:[0] is DATA_GPA; an access over the limit faults. */
START_TEST(test_segment_base_and_limit)
{
    static const uint8_t code[] = {
        0x64, 0xa1, 0,    0,    0,    0,    /* mov eax, fs:[0] */
        0x64, 0x8b, 0x1d, 0xfd, 0x0f, 0, 0, /* mov ebx, fs:[0xffd]: ends one byte over */
    };
    uint32_t value = 0x12345678;
    struct vm_exit exit;

    start(code, sizeof code);
    ck_assert(memory_write(&vm.memory, DATA_GPA, &value, sizeof value));
    vm.vcpu.segment[SEG_FS] =
        (struct segment){.selector = 0x18, .base = DATA_GPA, .limit = 0xfff, .attributes = 0x4093};
    exit = run_to_exit();
    ck_assert_uint_eq(vm.vcpu.gpr[EAX], value);
    ck_assert_int_eq(exit.fault.vector, EXCEPTION_GP);
    ck_assert_uint_eq(vm.vcpu.eip, CODE_GPA + 6);
}
END_TEST

/* ---- the lowest 64 KiB, which no ordinary user may map on the host ------------------------------------- */

static uint32_t window_bias(void)
{
    return vm.engine->window(vm.engine_state).bias;
}

/* Runs until the guest has written to isa-debug-exit. */
static void run_to_the_end(const uint8_t *code, size_t n)
{
    start(code, n);
    vm_run(&vm);
    give_back_tsc();
    ck_assert_msg(vm.stop_reason == STOP_DEBUG_EXIT, "%s", vm.stop_text);
}

static uint32_t word_at(gpa_t gpa)
{
    uint32_t value = 0;

    ck_assert(memory_read(&vm.memory, gpa, &value, sizeof value));
    return value;
}

/* A few accesses are emulated: the window stays where code runs fast. */
START_TEST(test_some_low_accesses)
{
    static const uint8_t code[] = {0xc7, 0x05, 0,    0,    0, 0, 1, 2, 3, 4, /* mov dword [0], 0x04030201 */
                                   0xff, 0x05, 0,    0,    0, 0,             /* inc dword [0] */
                                   0xff, 0x35, 0xfe, 0xff, 0, 0, /* push dword [0xfffe]: half in, half out */
                                   0xe7, 0xf4};                  /* out 0xf4, eax */

    run_to_the_end(code, sizeof code);
    ck_assert_uint_eq(word_at(0), 0x04030202);
    ck_assert_uint_eq(window_bias(), 0);
}
END_TEST

/* Many move the window, and once the guest has left its low memory for long it moves back. */
START_TEST(test_many_low_accesses)
{
    static const uint8_t code[] = {
        0xb9, 0xe8, 0x03, 0,    0,    /* mov ecx, 1000 */
        0xff, 0x05, 0xfc, 0xff, 0, 0, /* 1: inc dword [0xfffc] */
        0xe2, 0xf8,                   /* loop 1b */
        0xe7, 0xf4,                   /* out 0xf4, eax */
        0xb9, 0x00, 0xa0, 0,    0,    /* mov ecx, 40960 */
        0xfa,                         /* 2: cli */
        0xe2, 0xfd,                   /* loop 2b */
        0xff, 0x05, 0xfc, 0xff, 0, 0, /* inc dword [0xfffc] */
        0xe7, 0xf4,                   /* out 0xf4, eax */
    };

    run_to_the_end(code, sizeof code);
    ck_assert_uint_eq(word_at(0xfffc), 1000);
    ck_assert_uint_ne(window_bias(), 0);
    vm.stop_reason = STOP_NONE;
    vm_run(&vm);
    give_back_tsc();
    ck_assert_uint_eq(word_at(0xfffc), 1001);
    ck_assert_uint_eq(window_bias(), 0);
}
END_TEST

/* Code in low memory moves it at once. */
START_TEST(test_low_code)
{
    static const uint8_t code[] = {0xc7, 0x05, 0,    0x80, 0, 0,
                                   0xe7, 0xf4, 0,    0, /* mov dword [0x8000], out 0xf4, eax */
                                   0xea, 0,    0x80, 0,    0, SELECTOR_CODE,
                                   0}; /* jmp SELECTOR_CODE:0x8000 */

    run_to_the_end(code, sizeof code);
    ck_assert_uint_ne(window_bias(), 0);
}
END_TEST

/* The FPU state survives exits: fld1 before, fistp after. */
START_TEST(test_fpu_survives)
{
    static const uint8_t code[] = {0xdb, 0xe3, 0xd9, 0xe8, 0xfa, 0xdb, 0x1d, 0, 0, 0x20, 0, 0xf4};
    uint32_t value = 0;

    start(code, sizeof code);
    for (int i = 0; i < 2; i++) {
        struct vm_exit exit = run_to_exit();

        ck_assert_int_eq(exit.fault.vector, EXCEPTION_GP);
        vm.vcpu.eip++; /* over cli, then hlt */
    }
    ck_assert(memory_read(&vm.memory, DATA_GPA, &value, sizeof value));
    ck_assert_uint_eq(value, 1);
}
END_TEST

/* AC and NT in the guest's flags must not hurt the monitor. pushfd; or dword [esp], 0x44000; popfd; hlt. */
START_TEST(test_guest_flags_do_not_reach_us)
{
    static const uint8_t code[] = {0x9c, 0x81, 0x0c, 0x24, 0, 0x40, 0x04, 0, 0x9d, 0x8d, 0x76, 0x00, 0xf4};
    struct vm_exit exit;

    start(code, sizeof code);
    exit = run_to_exit();
    ck_assert_int_eq(exit.fault.vector, EXCEPTION_GP);
    ck_assert_uint_ne(vm.vcpu.eflags & EFLAGS_NT, 0);
    exit = run_to_exit(); /* and back in with NT set */
    ck_assert_int_eq(exit.fault.vector, EXCEPTION_GP);
}
END_TEST

/* Where the guest's CR0.AM and CPL let AC do something, POPF changes the real one, and it is the guest's. The
 * same code as above. */
START_TEST(test_ac_of_a_user_is_kept)
{
    static const uint8_t code[] = {0x9c, 0x81, 0x0c, 0x24, 0, 0, 0x04, 0, 0x9d, 0x8d, 0x76, 0x00, 0xf4};

    start(code, sizeof code);
    vm.vcpu.cr0 |= CR0_AM;
    vm.vcpu.cpl = 3;
    vm.vcpu.segment[SEG_CS].selector |= 3;
    vm.vcpu.segment[SEG_SS].selector |= 3;
    ck_assert_int_eq(run_to_exit().fault.vector, EXCEPTION_GP);
    ck_assert_uint_ne(vm.vcpu.eflags & EFLAGS_AC, 0);
    vm.vcpu.eflags &= ~EFLAGS_AC;
    ck_assert_int_eq(run_to_exit().fault.vector, EXCEPTION_GP);
    ck_assert_uint_eq(vm.vcpu.eflags & EFLAGS_AC, 0);
}
END_TEST

/* ---- 16-bit stacks, which IRETQ cannot enter ----------------------------------------------------------- */

#define STACK_64K  ((struct segment){.selector = 0x18, .base = DATA_GPA, .limit = 0xffff, .attributes = 0x93})
#define XMM0       160 /* in the FXSAVE image */
#define ESP_BEFORE 0x12340004u

/* Pushes wrap at 64 KiB; the upper half of ESP is the guest's, and so is all the rest of its state. */
START_TEST(test_16bit_stack)
{
    static const uint8_t code[] = {
        0x50,                   /* push eax: SP 0004 -> 0000 */
        0x51,                   /* push ecx: SP 0000 -> fffc */
        0x89, 0xe3,             /* mov ebx, esp */
        0x66, 0x0f, 0x7e, 0xc7, /* movd edi, xmm0 */
        0x5a,                   /* pop edx */
        0xfa,                   /* cli */
    };
    const uint32_t xmm0 = 0xcafef00d, flags = EFLAGS_FIXED | EFLAGS_NT | EFLAGS_ID | EFLAGS_CF | EFLAGS_DF;
    uint32_t pushed[2] = {0, 0};
    struct vm_exit exit;

    start(code, sizeof code);
    vm.vcpu.segment[SEG_SS] = STACK_64K;
    vm.vcpu.eflags = flags;
    memcpy(vm.vcpu.fxsave + XMM0, &xmm0, sizeof xmm0);
    vm.vcpu.gpr[EAX] = 0x11111111;
    vm.vcpu.gpr[ECX] = 0x22222222;
    vm.vcpu.gpr[ESI] = 0x33333333;
    vm.vcpu.gpr[ESP] = ESP_BEFORE;
    exit = run_to_exit();
    ck_assert_int_eq(exit.fault.vector, EXCEPTION_GP);
    ck_assert_uint_eq(vm.vcpu.eip, CODE_GPA + sizeof code - 1);
    ck_assert_uint_eq(vm.vcpu.gpr[EBX], 0x1234fffc);
    ck_assert_uint_eq(vm.vcpu.gpr[ESP], 0x12340000);
    ck_assert_uint_eq(vm.vcpu.gpr[EDX], 0x22222222);
    ck_assert_uint_eq(vm.vcpu.gpr[ESI], 0x33333333);
    ck_assert_uint_eq(vm.vcpu.gpr[EDI], xmm0);
    ck_assert_uint_eq(vm.vcpu.eflags, flags);
    ck_assert(memory_read(&vm.memory, DATA_GPA, &pushed[0], 4));
    ck_assert(memory_read(&vm.memory, DATA_GPA + 0xfffc, &pushed[1], 4));
    ck_assert_uint_eq(pushed[0], 0x11111111);
    ck_assert_uint_eq(pushed[1], 0x22222222);
}
END_TEST

/* What POPF is about to clear, TF, still traps after it: and that is no INT1. */
START_TEST(test_last_single_step)
{
    static const uint8_t code[] = {0x9d, 0xf1}; /* popf; int1 */
    const uint32_t image = EFLAGS_FIXED;
    struct vm_exit exit;

    start(code, sizeof code);
    ck_assert(memory_write(&vm.memory, vm.vcpu.gpr[ESP], &image, sizeof image));
    vm.vcpu.eflags |= EFLAGS_TF;
    exit = run_to_exit();
    ck_assert_int_eq(exit.fault.vector, EXCEPTION_DB);
    ck_assert(exit.fault.is_trap);
    ck_assert_uint_eq(vm.vcpu.eip, CODE_GPA + 1);
    ck_assert_uint_eq(vm.vcpu.eflags & EFLAGS_TF, 0);
    exit = run_to_exit();
    ck_assert_int_eq(exit.fault.vector, EXCEPTION_DB);
    ck_assert(!exit.fault.is_trap);
}
END_TEST

/* A far jump to the host's 64-bit selector, and one to its 32-bit one: documented holes, and the end of the
 * run. */
START_TEST(test_far_jump_to_host)
{
    static const uint8_t code[2][8] = {{0xea, 7, 0, 0x10, 0, 0x33, 0, 0xf4},
                                       {0xea, 7, 0, 0x10, 0, 0x23, 0, 0xf4}};

    start(code[_i], sizeof code[_i]);
    run_to_exit();
    ck_assert(vm_is_stopped(&vm));
    ck_assert_int_eq(vm.stop_reason, STOP_IMPOSSIBLE);
    ck_assert_ptr_nonnull(strstr(vm.stop_text, "far branch"));
}
END_TEST

/* ---- the restartable window ---------------------------------------------------------------------------- */

#define TRAPS_WANTED  1000000
#define WATCH_SECONDS 30

static volatile sig_atomic_t ticks;

static void count_tick(int signo)
{
    (void)signo;
    ticks++;
}

/*
 * A process beside the test watches how far it has got. If that stands still, a tick was lost, however slow
 * the machine is. It must be another process: a signal to this one would free the guest, and hide the loss.
 */
static volatile unsigned long *progress;

static pid_t start_watch(void)
{
    static const char text[] = "a timer tick was lost: the guest spins and nobody stops it\n";
    unsigned long before;
    pid_t watch;

    progress = mmap(NULL, PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    ck_assert_ptr_ne((void *)progress, MAP_FAILED);
    watch = fork();
    ck_assert_int_ge(watch, 0);
    if (watch != 0)
        return watch;
    do {
        before = *progress;
        sleep(WATCH_SECONDS);
    } while (*progress != before);
    if (write(STDERR_FILENO, text, sizeof text - 1) > 0)
        kill(getppid(), SIGKILL);
    _exit(0);
}

static void end_watch(pid_t watch)
{
    kill(watch, SIGKILL);
    ck_assert_int_eq(waitpid(watch, NULL, 0), watch);
}

/*
 * One-shot ticks, each armed only after the one before was seen as an attention, at delays that sweep over
 * the whole of an exit; the guest mixes traps with native loops. If one tick fell between the check and the
 * guest, the last loop would never end. A million traps.
 */
START_TEST(test_no_tick_is_lost)
{
    static const uint8_t code[] = {
        0xfa,                /* 1: cli */
        0x40,                /* inc eax */
        0xa9, 0x0f, 0, 0, 0, /* test eax, 15 */
        0x75, 0xf6,          /* jnz 1b */
        0xb9, 0x40, 0, 0, 0, /* mov ecx, 64 */
        0x49,                /* 2: dec ecx */
        0x75, 0xfd,          /* jnz 2b */
        0xeb, 0xed,          /* jmp 1b */
    };
    unsigned traps = 0, seen = 0;
    uint64_t delay = 1;

    pid_t watch = start_watch();
    signal(SIGUSR1, count_tick);
    start(code, sizeof code);
    vm.engine->arm(vm.engine_state, vm.engine->host_ns() + 1000);
    while (traps < TRAPS_WANTED) {
        struct vm_exit exit;
        bool was_attention;

        vm.engine->run(vm.engine_state, &exit);
        ++*progress;
        was_attention = vm.attention != 0;
        if (was_attention) {
            vm.attention = 0;
            seen++;
            delay = delay * 7 % 39989 + 1; /* 1 to 39989 ns: every place of an exit that takes some µs */
            vm.engine->arm(vm.engine_state, vm.engine->host_ns() + delay);
        }
        if (exit.reason == EXIT_EXCEPTION) {
            ck_assert_int_eq(exit.fault.vector, EXCEPTION_GP);
            vm.vcpu.eip++;
            traps++;
        } else if (exit.reason == EXIT_PAGE_FAULT) {
            struct fault fault;

            ck_assert_int_eq(shadow_fault(vm.shadow, &vm.vcpu, exit.fault.cr2, exit.fault.error, &fault),
                             SHADOW_FILLED);
        } else {
            ck_assert_int_eq(exit.reason, EXIT_INTERRUPTED);
        }
    }
    ck_assert_uint_gt(seen, 1000);
    /* The guest only spins now: a tick must stop it, 1000 times over. */
    vm.vcpu.eip = CODE_GPA + 14;
    for (int i = 0; i < 1000; i++) {
        struct vm_exit exit;

        vm.vcpu.gpr[ECX] = 0;
        vm.attention = 0;
        vm.vcpu.eip = CODE_GPA + 14;
        vm.engine->arm(vm.engine_state, vm.engine->host_ns() + (uint64_t)i * 20);
        vm.engine->run(vm.engine_state, &exit);
        ck_assert_int_eq(exit.reason, EXIT_INTERRUPTED);
        ++*progress;
    }
    give_back_tsc();
    end_watch(watch);
}
END_TEST

/* The same on a 16-bit stack, which is entered another way: no tick falls between the check and the guest. */
START_TEST(test_no_tick_is_lost_on_a_16bit_stack)
{
    static const uint8_t code[] = {0xeb, 0xfe}; /* 1: jmp 1b */
    struct vm_exit exit;

    pid_t watch = start_watch();
    start(code, sizeof code);
    vm.vcpu.segment[SEG_SS] = STACK_64K;
    vm.vcpu.gpr[ESP] = ESP_BEFORE;
    for (unsigned i = 0; i < 100000; i++) {
        vm.attention = 0;
        vm.engine->arm(vm.engine_state, vm.engine->host_ns() + i * 7 % 19997);
        vm.engine->run(vm.engine_state, &exit);
        if (exit.reason == EXIT_PAGE_FAULT)
            shadow_fault(vm.shadow, &vm.vcpu, exit.fault.cr2, exit.fault.error, &exit.fault);
        else
            ck_assert_int_eq(exit.reason, EXIT_INTERRUPTED);
        ck_assert_uint_eq(vm.vcpu.gpr[ESP], ESP_BEFORE);
        ck_assert_uint_eq(vm.vcpu.eip, CODE_GPA);
    }
    give_back_tsc();
    end_watch(watch);
}
END_TEST

/* A guest whose ESP points anywhere must never find a signal frame written there. */
START_TEST(test_no_frame_at_guest_esp)
{
    static const uint8_t code[] = {0xfa, 0xeb, 0xfd}; /* 1: cli; jmp 1b */
    uint8_t page[2 * PAGE_SIZE], seen[2 * PAGE_SIZE];
    struct vm_exit exit;

    start(code, sizeof code);
    memset(page, 0xa5, sizeof page);
    ck_assert(memory_write(&vm.memory, DATA_GPA, page, sizeof page));
    vm.vcpu.gpr[ESP] = DATA_GPA + sizeof page;
    for (int i = 0; i < 1000; i++) {
        vm.engine->arm(vm.engine_state, vm.engine->host_ns() + 500);
        vm.engine->run(vm.engine_state, &exit);
        vm.attention = 0;
        if (exit.reason == EXIT_EXCEPTION)
            vm.vcpu.eip++;
        else if (exit.reason == EXIT_PAGE_FAULT)
            shadow_fault(vm.shadow, &vm.vcpu, exit.fault.cr2, exit.fault.error, &exit.fault);
    }
    give_back_tsc();
    ck_assert(memory_read(&vm.memory, DATA_GPA, seen, sizeof seen));
    ck_assert_mem_eq(seen, page, sizeof page);
}
END_TEST

/* ---- a fault of the monitor itself --------------------------------------------------------------------- */

START_TEST(test_monitor_fault_is_reported)
{
    static const uint8_t code[] = {0xfa};
    char report[4096] = "";
    int ends[2], status = 0;
    pid_t child;
    ssize_t n;
    size_t length = 0;

    ck_assert_int_eq(pipe(ends), 0);
    child = fork();
    if (child == 0) {
        dup2(ends[1], STDERR_FILENO);
        start(code, sizeof code);
        run_to_exit();
        *(volatile int *)(uintptr_t)0x7fff00000000 = 1; /* nothing is mapped there */
        _exit(0);
    }
    close(ends[1]);
    while ((n = read(ends[0], report + length, sizeof report - 1 - length)) > 0)
        length += (size_t)n;
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert_msg(WIFEXITED(status) && WEXITSTATUS(status) == 1, "status %#x", (unsigned)status);
    ck_assert_msg(strstr(report, "the monitor itself faulted") != NULL, "%s", report);
    ck_assert_msg(strstr(report, "cs:eip 0008:00100000") != NULL, "%s", report);
    ck_assert_msg(strstr(report, "#1 ") != NULL, "no backtrace through the frame: %s", report);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("trap engine");
    TCase *cases = tcase_create("exits");
    TCase *window = tcase_create("window");
    SRunner *runner;
    int failed;

    tcase_add_loop_test(cases, test_exception, 0, sizeof exception_cases / sizeof exception_cases[0]);
    tcase_add_test(cases, test_int80_is_host_call);
    tcase_add_loop_test(cases, test_fast_system_call_is_kept, 0, 2);
    tcase_add_test(cases, test_sandbox_denies);
    tcase_add_test(cases, test_segment_base_and_limit);
    tcase_add_test(cases, test_some_low_accesses);
    tcase_add_test(cases, test_many_low_accesses);
    tcase_add_test(cases, test_low_code);
    tcase_add_test(cases, test_fpu_survives);
    tcase_add_test(cases, test_guest_flags_do_not_reach_us);
    tcase_add_test(cases, test_ac_of_a_user_is_kept);
    tcase_add_test(cases, test_16bit_stack);
    tcase_add_test(cases, test_last_single_step);
    tcase_add_loop_test(cases, test_far_jump_to_host, 0, 2);
    tcase_add_test(cases, test_no_frame_at_guest_esp);
    tcase_add_test(cases, test_monitor_fault_is_reported);
    tcase_add_test(window, test_no_tick_is_lost);
    tcase_add_test(window, test_no_tick_is_lost_on_a_16bit_stack);
    tcase_set_timeout(window, 0);
    suite_add_tcase(suite, cases);
    suite_add_tcase(suite, window);
    runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
