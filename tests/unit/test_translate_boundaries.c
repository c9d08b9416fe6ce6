/*
 * translate/: a signal may arrive between any two host instructions, and each time the guest is found at a
 * boundary between two of its own instructions: all registers and flags are the interpreter's there.
 *
 * Each sequence is stepped through by the host's trap flag. At the first host instruction in the code cache
 * it is interrupted, as by a timer; then it begins anew and is interrupted at the second; and so on. After
 * each interruption it goes on to its end.
 */
#include <check.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>

#include "monitor/interpret.h"
#include "monitor/monitor.h"
#include "signals/nesting.h"
#include "translate/translate.h"
#include "translate/translator.h"

#define RAM_SIZE    (2u << 20)
#define CODE        0x10000u
#define STACK       0x21000u /* in the middle of a page */
#define DATA        0x30000u
#define GDT         0x30800u
#define IDT         0x30900u
#define AREA        0x20000u /* what a sequence may change */
#define AREA_BYTES  0x20000u
#define MOST_STEPS  4000u
#define MOST_STATES 400u

#define SELECTOR_CODE 0x08
#define SELECTOR_DATA 0x10
#define SYSENTER_CS   0x18 /* and the three behind it */
#define RUNS_TO_WARM  100  /* until blocks are linked, notes taken, and instructions adapted */

/* ---- sequences ----------------------------------------------------------------------------------------- */

struct sequence {
    const char *text;
    const uint8_t *begin, *end;
    unsigned cpl;
};

/* Each ends in HLT, or at CPL 3 in INT3, which the test sees to. ebx: DATA. */
#define SEQUENCE(label, text)                                                                                \
    extern const uint8_t label##_begin[], label##_end[];                                                     \
    __asm__(".pushsection .rodata\n.code32\n" #label "_begin:\n" text "\n" #label "_end:\n.code64\n"         \
            ".popsection")
#define ROW(label, level)                                                                                    \
    {                                                                                                        \
        .text = #label, .begin = label##_begin, .end = label##_end, .cpl = level                             \
    }

#define SET_FLAGS   "mov $0x80000001, %eax; add %eax, %eax; mov $7, %eax\n" /* CF OF, and PF clear */
#define CLEAR_FLAGS "mov $1, %eax; test %eax, %eax\n"

SEQUENCE(ordinary,
         SET_FLAGS "mov %eax, (%ebx); lea 4(%ebx), %ecx; adc $3, %ecx; xchg %ecx, %edx; sbb %esi, %esi");
SEQUENCE(stack,
         SET_FLAGS "push %eax; push %ebx; pushl $5; popl %ecx; pop %edx; pop %esi; push %esp; pop %edi;"
                   " pusha; mov %esp, %eax; mov %eax, %ecx; xor %edx, %edx; xor %esi, %esi; mov %esi, %edi; "
                   "popa; push %ebp; mov %esp, %ebp; sub $8, %esp; leave");
SEQUENCE(flags,
         SET_FLAGS "pushf; " CLEAR_FLAGS "popf; pushf; pop %eax; push $0x0d5; popf; push $0x802; popf");
SEQUENCE(interrupt_flag,
         SET_FLAGS "sti; nop; cli; sti; mov %eax, %ecx; pushf; cli; popf; adc $0, %ecx; cli; pushf;"
                   " sti; nop; popf; nop");
SEQUENCE(direction, SET_FLAGS "std; lodsl; cld; lodsl; pushf; std; popf; adc %eax, %eax");
SEQUENCE(jumps,
         SET_FLAGS "jc 1f; inc %eax; 1: jnc 2f; inc %eax; 2: jmp 3f; inc %eax; 3: mov $3, %ecx;"
                   " 4: loop 4b; mov $2, %ecx; 5: adc $1, %edx; dec %ecx; jnz 5b; jecxz 6f; inc %eax; 6:");
SEQUENCE(calls, SET_FLAGS "call 1f; adc $1, %eax; jmp 2f; 1: push $7; pop %ecx; ret; 2:"
                          " call 4f; 4: pop %esi; add $(3f - 4b), %esi; call *%esi; push %esi; call *(%esp);"
                          " pop %esi; jmp 5f; 3: sub $1, %edx; ret $0; 5: nop");
SEQUENCE(segments,
         SET_FLAGS "mov %ds, %eax; mov %eax, %es; push %ds; pop %es; push %es; pop %ds; adc $0, %eax;"
                   " mov %ss, %ecx; push %es; pop %ecx");
SEQUENCE(control, SET_FLAGS "mov %cr0, %eax; mov %cr2, %ecx; mov %cr3, %edx; adc $0, %edx; clts; smsw %ecx");
SEQUENCE(identity,
         SET_FLAGS "push %ebx; mov $1, %eax; cpuid; mov $0, %eax; cpuid; mov $8, %ebx; mov $9, %ecx;"
                   " mov $10, %edx; mov $0, %eax; cpuid; pop %ebx; adc $0, %eax");
SEQUENCE(ports,
         SET_FLAGS "in $0x21, %al; adc $0, %al; out %al, $0x80; mov $0x21, %edx; in %dx, %al; sti; nop;"
                   " in $0x21, %al; cli");
SEQUENCE(divisions,
         SET_FLAGS "xor %edx, %edx; mov $100, %eax; mov $7, %ecx; div %ecx; imul $3, %eax, %esi; bswap %eax;"
                   " cmpxchg %ecx, (%ebx); xadd %ecx, (%ebx); lock incl (%ebx); setc (%ebx)");
SEQUENCE(user, SET_FLAGS "push %eax; pushf; " CLEAR_FLAGS
                         "popf; pop %ecx; adc (%ebx), %ecx; call 1f; jmp 2f; 1: ret;"
                         " 2: push $0x8d5; popf; mov %ds, %eax; mov %eax, %es");

SEQUENCE(strings,
         SET_FLAGS "movsl; lodsb; stosw; scasb; cmpsl; mov $3, %ecx; rep movsb; mov $2, %ecx; rep stosl;"
                   " sbb %edx, %edx; xlat");
SEQUENCE(memory,
         SET_FLAGS "pushl (%ebx); popl 8(%ebx); pushw 4(%ebx); popw 6(%ebx); push %es; pop %edx; push %ds;"
                   " pop %es; cmpxchg8b 16(%ebx); rcll $1, (%ebx); mov %ah, 1(%ebx); movsbl 1(%ebx), %ecx;"
                   " bts $3, (%ebx); bsf (%ebx), %edx; shld $5, %eax, (%ebx)");
SEQUENCE(shadows,
         SET_FLAGS "mov %esp, %ebp; push %eax; sti; leave; cli; sti; push %ecx; cli; sti; pop %edx; cli; sti;"
                   " adc %eax, %eax; cli; sti; jc 1f; nop; 1: cli; sti; cli");
SEQUENCE(
    vectors,
    "fninit; " SET_FLAGS "movd %eax, %xmm0; paddd %xmm0, %xmm0; movd %xmm0, 4(%ebx); movups (%ebx), %xmm1;"
    " fld1; fldpi; fstps (%ebx); pand %xmm1, %xmm0; adc (%ebx), %eax; ucomiss (%ebx), %xmm1; sbb %ecx, %ecx");
SEQUENCE(time, SET_FLAGS "nop; rdtsc; adc $0, %eax; rdtsc; push %eax; rdtsc; pop %ecx");

SEQUENCE(devices, SET_FLAGS "mov $0xfee00000, %esi; mov 0x20(%esi), %eax; adc $0, %eax; orl $0, 0x80(%esi);"
                            " movl $0, 0x80(%esi); pushl 0x20(%esi); pop %ecx");
/* ECX and EDX are SYSEXIT's; the kernel's code is in the middle. */
SEQUENCE(rings, SET_FLAGS
         "call 1f; 1: pop %edx; add $(2f - 1b), %edx; mov $3, %esi; 2: dec %esi; js 3f; mov %esp, %ecx;"
         " adc $0, %edi; sysenter; rings_entry: cli; adc $0, %edi; push %edx; pop %edx; sti; sysexit;"
         " 3: nop");
extern const uint8_t rings_entry[];
/* MOV from a test register, which no 32-bit processor but the 80486 has. */
SEQUENCE(undefined,
         SET_FLAGS "nop; .byte 0x0f, 0x24, 0xc0; adc $0, %eax; jmp 1f; nop; 1: .byte 0x0f, 0x24, 0xc0;"
                   " call 2f; jmp 4f; undefined_entry: addl $3, (%esp); iret; nop; 2: .byte 0x0f, 0x24, 0xc0;"
                   " ret; 4: nop");
extern const uint8_t undefined_entry[];

/* RDTSC, the last, is only by instructions what it should be. */
static const struct sequence sequences[] = {
    ROW(ordinary, 0), ROW(stack, 0),     ROW(flags, 0),    ROW(interrupt_flag, 0), ROW(direction, 0),
    ROW(jumps, 0),    ROW(calls, 0),     ROW(segments, 0), ROW(control, 0),        ROW(identity, 0),
    ROW(ports, 0),    ROW(divisions, 0), ROW(ordinary, 3), ROW(stack, 3),          ROW(jumps, 3),
    ROW(calls, 3),    ROW(user, 3),      ROW(strings, 0),  ROW(memory, 0),         ROW(shadows, 0),
    ROW(vectors, 0),  ROW(strings, 3),   ROW(memory, 3),   ROW(devices, 0),        ROW(undefined, 0),
    ROW(rings, 3),    ROW(time, 0),
};
#define N_SEQUENCES (sizeof sequences / sizeof sequences[0])

/* ---- the machine --------------------------------------------------------------------------------------- */

static struct vm vm;
static struct vcpu first;
static uint8_t area[AREA_BYTES];
static uint32_t code_size;

static void on_signal(int signo)
{
    (void)signo;
}

static void create(enum clock_mode clock)
{
    const struct vm_config config = {.ram_size = RAM_SIZE, .clock = clock, .use_userfaultfd = true};
    char error[256];

    signal(SIGALRM, on_signal);
    ck_assert_msg(vm_create(&vm, &config, &translate_engine, error, sizeof error), "%s", error);
    for (uint32_t i = 0; i < AREA_BYTES; i++)
        area[i] = (uint8_t)(i * 7 + i / 256);
}

static void put_words(uint32_t gpa, uint32_t low, uint32_t high)
{
    const uint32_t words[] = {low, high};

    ck_assert(memory_write(&vm.memory, gpa, words, sizeof words));
}

static void put_descriptor(uint32_t number, uint32_t low, uint32_t high)
{
    put_words(GDT + number * 8, low, high);
}

/* A flat machine with a GDT, paging off, interrupts masked at the controllers. */
static void load(const struct sequence *sequence)
{
    static const uint8_t end_kernel[] = {0xf4}, end_user[] = {0xcc};
    const uint8_t *end = sequence->cpl == 0 ? end_kernel : end_user;
    uint16_t rpl = (uint16_t)sequence->cpl;
    uint32_t handler = CODE + (uint32_t)(undefined_entry - undefined_begin);

    code_size = (uint32_t)(sequence->end - sequence->begin);
    ck_assert(memory_write(&vm.memory, CODE, sequence->begin, code_size));
    ck_assert(memory_write(&vm.memory, CODE + code_size, end, 1));
    ck_assert(memory_write(&vm.memory, AREA, area, sizeof area));
    put_descriptor(SELECTOR_CODE / 8, 0x0000ffff, 0x00cf9b00 | (uint32_t)rpl << 13);
    put_descriptor(SELECTOR_DATA / 8, 0x0000ffff, 0x00cf9300 | (uint32_t)rpl << 13);
    for (uint32_t i = 0; i < 4; i++)
        put_descriptor(SYSENTER_CS / 8 + i, 0x0000ffff,
                       0x00cf9300 | (i % 2 == 0 ? 0x800 : 0) | (i < 2 ? 0 : 0x6000));
    put_words(IDT + 8 * EXCEPTION_UD, SELECTOR_CODE << 16 | (handler & 0xffff),
              (handler & 0xffff0000) | 0x8e00);
    ck_assert(memory_read(&vm.memory, AREA, area, sizeof area));
    vcpu_set_flat(&vm.vcpu, SELECTOR_CODE | rpl, SELECTOR_DATA | rpl, CODE);
    for (unsigned i = 0; i < SEG_COUNT; i++)
        vm.vcpu.segment[i].attributes |= (uint16_t)(rpl << SEGMENT_DPL_SHIFT);
    vm.vcpu.cpl = (uint8_t)rpl;
    vm.vcpu.gdtr = (struct table_register){GDT, SYSENTER_CS + 0x1f};
    vm.vcpu.idtr = (struct table_register){IDT, 8 * EXCEPTION_UD + 7};
    vm.vcpu.msr.sysenter_cs = SYSENTER_CS;
    vm.vcpu.msr.sysenter_esp = STACK - 0x100;
    vm.vcpu.msr.sysenter_eip = CODE + (uint32_t)(rings_entry - rings_begin);
    vm.vcpu.cr4 |= CR4_OSFXSR;
    for (unsigned i = 0; i < GPR_COUNT; i++)
        vm.vcpu.gpr[i] = 0x01010101 * (i + 1);
    vm.vcpu.gpr[ESP] = STACK;
    vm.vcpu.gpr[EBX] = DATA;
    vm.vcpu.gpr[ESI] = DATA + 64;
    vm.vcpu.gpr[EDI] = DATA + 128;
    first = vm.vcpu;
}

static void begin_anew(void)
{
    vm.vcpu = first;
    ck_assert(memory_write(&vm.memory, AREA, area, sizeof area));
    vm.stop_reason = STOP_NONE;
    vm.attention = 0;
    vm.deadline_moved = false; /* else calls leave translated code to see */
    vm.n_instructions = vm.n_timed_instructions = vm.virtual_ns = 0;
    vm.instruction_deadline = UINT64_MAX;
}

static bool is_over(void)
{
    return vm.vcpu.halted || vm.vcpu.eip == CODE + code_size;
}

/* ---- as the interpreter has it ---------------------------------------------------------------------------
 */

/* After so many instructions; and if the next one is a fault: in its handler, before the first one there. */
static struct vcpu states[MOST_STATES], handler_states[MOST_STATES];
static unsigned n_states;
static uint8_t area_at_end[AREA_BYTES];

static void interpret(void)
{
    uint64_t n_before = UINT64_MAX;

    begin_anew();
    while (!is_over()) {
        struct vm_exit exit = {.reason = EXIT_INTERRUPTED};

        ck_assert_uint_lt(vm.n_instructions, MOST_STATES - 1);
        if (vm.n_instructions != n_before)
            states[vm.n_instructions] = vm.vcpu;
        handler_states[vm.n_instructions] = vm.vcpu;
        n_before = vm.n_instructions;
        if (!interpret_one(&vm, &exit)) {
            vm_pass_instructions(&vm);
            vm_handle_exit(&vm, &exit);
        }
        ck_assert_msg(!vm_is_stopped(&vm), "%s", vm.stop_text);
    }
    n_states = (unsigned)vm.n_instructions + 1;
    states[n_states - 1] = handler_states[n_states - 1] = vm.vcpu;
    ck_assert(memory_read(&vm.memory, AREA, area_at_end, sizeof area_at_end));
}

/* ---- stepping ------------------------------------------------------------------------------------------ */

/* The monitor's own code is not stepped. On each way into translated code the attention word is asked for
 * (enter.S), and as long as its pointer leads nowhere that is a signal: then the trap flag is set. */
static const volatile int *nowhere;
static struct sigaction fault_action, event_action;
static volatile unsigned steps, step_of_signal;

static void on_fault(int signo, siginfo_t *info, void *opaque)
{
    ucontext_t *uc = opaque;

    if (info->si_addr != (const void *)nowhere) {
        fault_action.sa_sigaction(signo, info, uc);
        return;
    }
    uc->uc_mcontext.gregs[REG_RAX] = (greg_t)(uintptr_t)&vm.attention;
    uc->uc_mcontext.gregs[REG_EFL] |= EFLAGS_TF;
}

static bool is_on_the_way(uintptr_t rip)
{
    return rip >= (uintptr_t)translate_resume_start && rip < (uintptr_t)translate_resume_end;
}

static void on_step(int signo, siginfo_t *info, void *opaque)
{
    const struct translator *translator = vm.engine_state;
    ucontext_t *uc = opaque;
    uintptr_t rip = (uintptr_t)uc->uc_mcontext.gregs[REG_RIP];

    (void)signo;
    if (!cache_contains(&translator->cache, (const void *)rip)) {
        if (!is_on_the_way(rip))
            uc->uc_mcontext.gregs[REG_EFL] &= ~(greg_t)EFLAGS_TF;
    } else if (++steps == step_of_signal) {
        event_action.sa_sigaction(SIGRTMIN, info, uc);
    }
}

static void handle(int signo, void (*handler)(int, siginfo_t *, void *), struct sigaction *before)
{
    struct sigaction action = {.sa_sigaction = handler,
                               .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER,
                               .sa_mask = nesting_asynchronous()};

    ck_assert_int_eq(sigaction(signo, &action, before), 0);
}

static void prepare_to_step(void)
{
    nowhere = mmap(NULL, PAGE_SIZE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    ck_assert_ptr_ne((const void *)nowhere, MAP_FAILED);
    sigaction(SIGRTMIN, NULL, &event_action);
    handle(SIGTRAP, on_step, NULL);
    handle(SIGSEGV, on_fault, &fault_action);
}

/* Until it is over, or is interrupted. */
static void run(bool is_stepped)
{
    struct context *context = ((struct translator *)vm.engine_state)->context;
    struct vm_exit exit;

    context->attention = is_stepped ? nowhere : &vm.attention;
    do {
        vm.engine->run(vm.engine_state, &exit);
        if (vm_is_counted(&vm))
            vm_pass_instructions(&vm);
        if (exit.reason != EXIT_INTERRUPTED)
            vm_handle_exit(&vm, &exit);
    } while (!is_over() && !vm_is_stopped(&vm) && !vm.attention && !vm_is_due(&vm));
}

static void expect_end(const char *what)
{
    static uint8_t got[AREA_BYTES];

    ck_assert_msg(is_over(), "%s: it came to %08x", what, vm.vcpu.eip);
    ck_assert(memory_read(&vm.memory, AREA, got, sizeof got));
    ck_assert_msg(memcmp(got, area_at_end, sizeof got) == 0, "%s: memory at the end", what);
    ck_assert_msg(memcmp(vm.vcpu.gpr, states[n_states - 1].gpr, sizeof vm.vcpu.gpr) == 0,
                  "%s: registers at the end", what);
}

/* A string instruction may be between two of its elements. */
static bool is_repeated(uint32_t eip)
{
    uint8_t byte;

    return memory_read(&vm.memory, eip, &byte, 1) && (byte & 0xfe) == 0xf2;
}

static bool are_registers(const struct vcpu *state)
{
    struct vcpu expected = *state;

    if (is_repeated(state->eip)) {
        expected.gpr[ECX] = vm.vcpu.gpr[ECX];
        expected.gpr[ESI] = vm.vcpu.gpr[ESI];
        expected.gpr[EDI] = vm.vcpu.gpr[EDI];
    }
    return memcmp(vm.vcpu.gpr, expected.gpr, sizeof expected.gpr) == 0;
}

/* FCW, FSW, FTW; ST0 to 7 and XMM0 to 7. The pointers are another matter (frame.c). */
static bool is_fpu_state(const struct vcpu *state)
{
    return memcmp(vm.vcpu.fxsave, state->fxsave, 5) == 0 &&
           memcmp(vm.vcpu.fxsave + 32, state->fxsave + 32, 256) == 0;
}

static bool are_selectors(const struct vcpu *state)
{
    for (unsigned i = 0; i < SEG_COUNT; i++)
        if (vm.vcpu.segment[i].selector != state->segment[i].selector)
            return false;
    return true;
}

static bool is_state(const struct vcpu *state)
{
    const struct vcpu *vcpu = &vm.vcpu;

    return vcpu->eip == state->eip && ((vcpu->eflags ^ state->eflags) & ~EFLAGS_RF) == 0 &&
           are_registers(state) && are_selectors(state) && is_fpu_state(state) && vcpu->cpl == state->cpl &&
           vcpu->interrupt_shadow == state->interrupt_shadow;
}

static bool is_after(uint64_t n_instructions)
{
    return is_state(&states[n_instructions]) || is_state(&handler_states[n_instructions]);
}

static void expect_counted_boundary(const char *what)
{
    const struct vcpu *got = &vm.vcpu, *expected = &states[vm.n_instructions];
    unsigned n = (unsigned)vm.n_instructions;

    ck_assert_msg(n < n_states, "%s: after %u instructions", what, n);
    ck_assert_msg(
        is_after(n),
        "%s: after %u instructions at %08x, flags %08x, eax %08x, ecx %08x, esp %08x; should be at %08x, "
        "%08x, %08x, %08x, %08x",
        what, n, got->eip, got->eflags, got->gpr[EAX], got->gpr[ECX], got->gpr[ESP], expected->eip,
        expected->eflags, expected->gpr[EAX], expected->gpr[ECX], expected->gpr[ESP]);
}

static void expect_boundary(const char *what)
{
    const struct vcpu *got = &vm.vcpu;

    for (unsigned i = 0; i < n_states; i++)
        if (is_after(i))
            return;
    ck_abort_msg("%s: at %08x, flags %08x, eax %08x, esp %08x", what, got->eip, got->eflags, got->gpr[EAX],
                 got->gpr[ESP]);
}

/* false: the sequence has fewer steps. */
static bool interrupt_at(const struct sequence *sequence, unsigned step)
{
    char what[80];

    snprintf(what, sizeof what, "%s, CPL %u, interrupted at host instruction %u", sequence->text,
             sequence->cpl, step);
    begin_anew();
    steps = 0;
    step_of_signal = step;
    run(true);
    if (steps < step) {
        expect_end(what);
        return false;
    }
    if (vm_is_counted(&vm))
        expect_counted_boundary(what);
    else
        expect_boundary(what);
    vm.attention = 0;
    run(false);
    expect_end(what);
    return true;
}

static void check_sequence(const struct sequence *sequence)
{
    unsigned step = 1;

    load(sequence);
    interpret();
    for (unsigned i = 0; i < RUNS_TO_WARM; i++) {
        begin_anew();
        run(false);
        expect_end(sequence->text);
    }
    prepare_to_step();
    while (interrupt_at(sequence, step))
        ck_assert_uint_lt(step++, MOST_STEPS);
    ck_assert_uint_gt(step, n_states); /* it has been stepped through */
}

START_TEST(with_real_time)
{
    create(CLOCK_HOST);
    check_sequence(&sequences[_i]);
}
END_TEST

START_TEST(with_time_by_instructions)
{
    create(CLOCK_VIRTUAL);
    check_sequence(&sequences[_i]);
}
END_TEST

/* Just before an event the engine interprets, so that one which is to find translated code takes a run-up. */
#define RUN_UP (CODE - 0x10u)
static const uint8_t run_up[0x10] = {0xb9, 80,   0,    0, 0, /* mov ecx, 80 */
                                     0x49, 0x75, 0xfd,       /* 1: dec ecx; jnz 1b */
                                     0xeb, 0x06};            /* jmp CODE */
#define RUN_UP_INSTRUCTIONS 162u

static void take_run_up(void)
{
    ck_assert(memory_write(&vm.memory, RUN_UP, run_up, sizeof run_up));
    first.eip = RUN_UP;
}

/* An event is due after so many instructions: before the next one, be it a fault. */
START_TEST(events)
{
    const struct sequence *sequence = &sequences[_i];
    char what[80];

    create(CLOCK_VIRTUAL);
    load(sequence);
    take_run_up();
    interpret();
    for (unsigned n = RUN_UP_INSTRUCTIONS; n < n_states; n++)
        for (unsigned i = 0; i < RUNS_TO_WARM; i++) {
            snprintf(what, sizeof what, "%s, CPL %u, an event after %u", sequence->text, sequence->cpl, n);
            begin_anew();
            vm.instruction_deadline = n;
            run(false);
            ck_assert_msg(vm.n_instructions == n, "%s: it comes after %u", what, (unsigned)vm.n_instructions);
            ck_assert_msg(is_state(&states[n]), "%s: it finds the guest at %08x", what, vm.vcpu.eip);
        }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("translate/boundaries");
    TCase *tests = tcase_create("boundaries");
    SRunner *runner;
    int failed;

    tcase_add_loop_test(tests, with_real_time, 0, N_SEQUENCES - 1);
    tcase_add_loop_test(tests, with_time_by_instructions, 0, N_SEQUENCES);
    tcase_add_loop_test(tests, events, 0, N_SEQUENCES);
    suite_add_tcase(suite, tests);
    runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
