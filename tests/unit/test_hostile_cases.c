/*
 * Hostile guests with one aim each: to reach the host through its 64-bit code
 * segment, to trap the monitor in an endless delivery, to keep it busy within
 * one instruction, to be taken for something else. They run as those of test_hostile_guest.c do.
 *
 * Read next: hostile_run.h.
 */
#include <check.h>
#include <sys/prctl.h>

#include "hostile_code.h"
#include "hostile_run.h"

enum { CODE = HOSTILE_CODE, HANDLER = HOSTILE_CODE + 0x200 };

struct guest {
    const char *name;
    uint8_t code[64];    /* at CODE, CPL 0, paging off */
    uint8_t handler[16]; /* of every vector */
    uint32_t esp;        /* 0: HOSTILE_STACK */
    uint32_t handler_at; /* 0: HANDLER */
    uint64_t virtual_ns; /* not 0: under --clock=virtual, from this time on */
    const char *text;    /* in what is said at the end; NULL: anything */
    enum stop_reason reason;
    bool is_paged;       /* one page of 4 MiB, and nothing else */
    bool is_quick;       /* before its time is up */
    bool needs_dispatch; /* of the host: syscall user dispatch */
    bool is_translated;  /* by the translator; else natively */
};

#define TO_64_BIT                  0xea, 0x07, 0x00, 0x03, 0x00, 0x33, 0x00 /* jmp 0x33:next */
#define FAR_BRANCH                 "far branch"
#define LAPIC_STORE(register, ...) 0xc7, 0x05, (register) & 0xff, (register) >> 8, 0xe0, 0xfe, __VA_ARGS__
#define IRET                       0xcf
/* mov eax, 11; mov cr0, eax; fninit; push 0; fldcw [esp]; fldz; fld1; fdiv st0, st1; fwait; cli; hlt */
#define X87_WITHOUT_NE                                                                                       \
    .code = {0xb8, 0x11, 0,    0,    0,    0x0f, 0x22, 0xc0, 0xdb, 0xe3, 0x6a, 0,                            \
             0xd9, 0x2c, 0x24, 0xd9, 0xee, 0xd9, 0xe8, 0xd8, 0xf1, 0x9b, 0xfa, 0xf4},                        \
    .reason = STOP_IMPOSSIBLE, .text = "CR0.NE clear"

static const struct guest guests[] = {
    /* ---- 64-bit mode: a documented hole, and the end of the run; but an orderly one ---- */
    {.name = "64-bit: spins", .code = {TO_64_BIT, 0xeb, 0xfe}, .reason = STOP_IMPOSSIBLE, .text = FAR_BRANCH},
    {.name = "64-bit: hlt", .code = {TO_64_BIT, 0xf4}, .reason = STOP_IMPOSSIBLE, .text = FAR_BRANCH},
    {.name = "64-bit: the registers that 32-bit code lacks are all 0",
     /* or r8, r9; ..r10; ..r11; ..r12; ..r13; ..r14; ..r15; jz +2; jmp $; hlt */
     .code = {TO_64_BIT, 0x4d, 0x09, 0xc8, 0x4d, 0x09, 0xd0, 0x4d, 0x09, 0xd8, 0x4d, 0x09, 0xe0, 0x4d,
              0x09,      0xe8, 0x4d, 0x09, 0xf0, 0x4d, 0x09, 0xf8, 0x74, 0x02, 0xeb, 0xfe, 0xf4},
     .reason = STOP_IMPOSSIBLE,
     .text = FAR_BRANCH,
     .is_quick = true},
    {.name = "64-bit: writes through r12", /* mov [r12], rax; hlt */
     .code = {TO_64_BIT, 0x49, 0x89, 0x04, 0x24, 0xf4},
     .reason = STOP_IMPOSSIBLE,
     .text = FAR_BRANCH},
    {.name = "64-bit: jumps out of the low 4 GiB", /* mov rax, 8 << 32; jmp rax */
     .code = {TO_64_BIT, 0x48, 0xb8, 0, 0, 0, 0, 8, 0, 0, 0, 0xff, 0xe0},
     .reason = STOP_IMPOSSIBLE,
     .text = FAR_BRANCH},
    {.name = "64-bit: rsp where nothing is", /* mov rsp, 8 << 32; push rax */
     .code = {TO_64_BIT, 0x48, 0xbc, 0, 0, 0, 0, 8, 0, 0, 0, 0x50},
     .reason = STOP_IMPOSSIBLE,
     .text = FAR_BRANCH},
    {.name = "64-bit: moves the FS and GS bases", /* mov rax, 8 << 32; wrfsbase rax; wrgsbase rax; hlt */
     .code = {TO_64_BIT, 0x48, 0xb8, 0,    0,    0,    0,    8,    0,    0,    0,
              0xf3,      0x48, 0x0f, 0xae, 0xd0, 0xf3, 0x48, 0x0f, 0xae, 0xd8, 0xf4},
     .reason = STOP_IMPOSSIBLE,
     .text = FAR_BRANCH},
    {.name = "64-bit: int 0x80: exit", /* mov eax, 1; int 0x80 */
     .code = {TO_64_BIT, 0xb8, 1, 0, 0, 0, 0xcd, 0x80, 0xf4},
     .reason = STOP_IMPOSSIBLE,
     .text = FAR_BRANCH},
    {.name = "64-bit: syscall: exit", /* mov eax, 231; syscall */
     .code = {TO_64_BIT, 0xb8, 231, 0, 0, 0, 0x0f, 0x05, 0xf4},
     .reason = STOP_IMPOSSIBLE,
     .text = FAR_BRANCH,
     .needs_dispatch = true},

    /* ---- faults that lead to faults ---- */
    {.name = "a stack that does not exist", /* ud2 */
     .code = {0x0f, 0x0b},
     .handler = {IRET},
     .esp = 0x90000000,
     .is_paged = true,
     .reason = STOP_TRIPLE_FAULT,
     .text = "#PF"},
    {.name = "a stack without memory",
     .code = {0x0f, 0x0b},
     .handler = {IRET},
     .esp = 0x90000000,
     .reason = STOP_TIMEOUT},
    {.name = "handlers that do not exist, until the stack is used up",
     .code = {0x0f, 0x0b},
     .esp = 0x1000,
     .handler_at = 0x500000,
     .is_paged = true,
     .reason = STOP_TRIPLE_FAULT,
     .text = "#PF"},
    {.name = "a handler that faults for ever",
     .code = {0x0f, 0x0b},
     .handler = {0x0f, 0x0b},
     .reason = STOP_TIMEOUT},
    {.name = "a handler that goes back to the fault",
     .code = {0x0f, 0x0b},
     .handler = {IRET},
     .reason = STOP_TIMEOUT},
    {.name = "a breakpoint whose handler is a breakpoint",
     .code = {0xcc},
     .handler = {0xcc},
     .reason = STOP_TIMEOUT},
    {.name = "TF, and its handler sets it again", /* pushf; or byte [esp+1], 1; popf; jmp $ */
     .code = {0x9c, 0x80, 0x4c, 0x24, 0x01, 0x01, 0x9d, 0xeb, 0xfe},
     .handler = {0x80, 0x4c, 0x24, 0x09, 0x01, IRET}, /* or byte [esp+9], 1; iret */
     .reason = STOP_TIMEOUT},

    /* ---- much in one instruction, and nothing in many ---- */
    {.name = "rep stosd from the local APIC on", /* mov edi, fee00000; mov ecx, -1; rep stosd; again */
     .code = {0xbf, 0, 0, 0xe0, 0xfe, 0xb9, 0xff, 0xff, 0xff, 0xff, 0xfc, 0xf3, 0xab, 0xeb, 0xf1},
     .reason = STOP_TIMEOUT},
    {.name = "rep movsb over video memory", /* mov esi, a0000; mov edi, b8000; mov ecx, -1; rep movsb */
     .code = {0xbe, 0, 0, 0x0a, 0, 0xbf, 0, 0x80, 0x0b, 0, 0xb9, 0xff, 0xff, 0xff, 0xff, 0xf3, 0xa4, 0xeb,
              0xed},
     .reason = STOP_TIMEOUT},
    {.name = "rep lodsb of nothing, backwards", /* mov esi, 80000000; mov ecx, -1; std; rep lodsb */
     .code = {0xbe, 0, 0, 0, 0x80, 0xb9, 0xff, 0xff, 0xff, 0xff, 0xfd, 0xf3, 0xac, 0xeb, 0xf1},
     .reason = STOP_TIMEOUT},
    {.name = "rep outsb to the serial port", /* mov dx, 3f8; mov esi, 50000; mov ecx, -1; rep outsb */
     .code = {0xba, 0xf8, 3, 0, 0, 0xbe, 0, 0, 5, 0, 0xb9, 0xff, 0xff, 0xff, 0xff, 0xf3, 0x6e, 0xeb, 0xed},
     .reason = STOP_TIMEOUT},
    {.name = "a loop without a trap", .code = {0xeb, 0xfe}, .reason = STOP_TIMEOUT},
    {.name = "halted with interrupts on", .code = {0xfb, 0xf4, 0xeb, 0xfc}, .reason = STOP_TIMEOUT},

    /* ---- time and interrupts ---- */
    {.name =
         "an interrupt, and after sti only a jump to itself", /* LAPIC: on, vector 40 to itself; sti; jmp $ */
     .code = {LAPIC_STORE(0x0f0, 0xff, 0x01, 0x00, 0x00), LAPIC_STORE(0x300, 0x40, 0x40, 0x04, 0x00), 0xfb,
              0xeb, 0xfe},
     .handler = {0xfa, 0xf4},
     .reason = STOP_HALTED,
     .is_quick = true},
    {.name = "sleeps until the end of time", /* LAPIC: on, timer / 128, vector 40; again: longest count, sti,
                                                hlt */
     .code = {LAPIC_STORE(0x0f0, 0xff, 0x01, 0x00, 0x00), LAPIC_STORE(0x3e0, 0x0a, 0x00, 0x00, 0x00),
              LAPIC_STORE(0x320, 0x40, 0x00, 0x00, 0x00), LAPIC_STORE(0x380, 0xff, 0xff, 0xff, 0xff), 0xfb,
              0xf4, 0xeb, 0xf2},
     .handler = {LAPIC_STORE(0x0b0, 0, 0, 0, 0), IRET},
     .reason = STOP_IMPOSSIBLE,
     .text = "virtual clock",
     .virtual_ns = (UINT64_C(1) << 62) - 1000000000000,
     .is_quick = true},

    /* ---- faults that look like others ---- */
    {.name = "a misaligned operand when the last page fault was the end of a budget", /* mov eax, 200; mov
                                                                 cr4, eax; LAPIC: on, timer / 2, vector 40;
                                                                 mov ebx, 1; sti; jmp $ */
     .code = {0xb8, 0x00, 0x02, 0, 0, 0x0f, 0x22, 0xe0, LAPIC_STORE(0x0f0, 0xff, 0x01, 0x00, 0x00),
              LAPIC_STORE(0x320, 0x40, 0x00, 0x00, 0x00), LAPIC_STORE(0x380, 0x00, 0x10, 0x00, 0x00), 0xbb, 1,
              0, 0, 0, 0xfb, 0xeb, 0xfe},
     .handler = {0x4b, 0x78, 0x07, 0x0f, 0x28, 0x05, 0x01, 0, 5, 0, 0xfa, 0xf4}, /* dec ebx; js 1f;
                                                                 movaps xmm0, [50001]; 1: cli; hlt */
     .virtual_ns = 1,
     .reason = STOP_HALTED,
     .is_quick = true,
     .is_translated = true},
    {.name = "an x87 exception with CR0.NE clear", X87_WITHOUT_NE, .is_quick = true},
    {.name = "an x87 exception with CR0.NE clear, translated",
     X87_WITHOUT_NE,
     .is_quick = true,
     .is_translated = true},
    {.name = "popa where there is nothing, translated",
     .code = {0x61},
     .esp = 0x90000000,
     .is_paged = true,
     .reason = STOP_TRIPLE_FAULT,
     .text = "(cr2 90000000, error 0)",
     .is_translated = true},

    /* ---- a store that Linux makes for the CPU, where that has UMIP: 0x1000 past 4 GiB wraps ---- */
    {.name = "sldt beyond 4 GiB", /* mov fs, 0x18; sldt fs:[0x2000]; cli; hlt */
     .code = {0xb8, 0x18, 0, 0, 0, 0x8e, 0xe0, 0x64, 0x0f, 0x00, 0x05, 0, 0x20, 0, 0, 0xfa, 0xf4},
     .reason = STOP_HALTED},
};

static void put32(struct vm *vm, uint32_t gpa, uint32_t value)
{
    ck_assert(memory_write(&vm->memory, gpa, &value, sizeof value));
}

static void put_flat(struct vm *vm, unsigned index, uint32_t access, uint32_t base)
{
    put32(vm, HOSTILE_GDT + 8 * index, 0xffff | base << 16);
    put32(vm, HOSTILE_GDT + 8 * index + 4,
          (base >> 16 & 0xff) | access << 8 | 0xcf0000 | (base & 0xff000000));
}

static void build(struct vm *vm, void *ctx)
{
    const struct guest *guest = ctx;
    const uint32_t handler = guest->handler_at != 0 ? guest->handler_at : HANDLER;

    put_flat(vm, 1, 0x9b, 0);
    put_flat(vm, 2, 0x93, 0);
    put_flat(vm, 3, 0x93, 0xfffff000);
    for (unsigned vector = 0; vector < 256; vector++) {
        put32(vm, HOSTILE_IDT + 8 * vector, 0x080000 | (handler & 0xffff));
        put32(vm, HOSTILE_IDT + 8 * vector + 4, (handler & 0xffff0000) | 0x8f00);
    }
    ck_assert(memory_write(&vm->memory, CODE, guest->code, sizeof guest->code));
    ck_assert(memory_write(&vm->memory, HANDLER, guest->handler, sizeof guest->handler));
    vcpu_set_flat(&vm->vcpu, 0x08, 0x10, CODE);
    vm->vcpu.gdtr = (struct table_register){HOSTILE_GDT, 0x1f};
    vm->vcpu.idtr = (struct table_register){HOSTILE_IDT, 0x7ff};
    vm->vcpu.gpr[ESP] = guest->esp != 0 ? guest->esp : HOSTILE_STACK;
    vm->virtual_ns = guest->virtual_ns;
    if (guest->is_paged) {
        put32(vm, HOSTILE_DIRECTORY, PTE_P | PTE_W | PTE_PS);
        vm->vcpu.cr4 = CR4_PSE;
        vm->vcpu.cr3 = HOSTILE_DIRECTORY;
        vm->vcpu.cr0 |= CR0_PG;
    }
}

static bool has_dispatch(void)
{
    return prctl(PR_SET_SYSCALL_USER_DISPATCH, PR_SYS_DISPATCH_OFF, 0, 0, 0) == 0;
}

START_TEST(ends_as_it_should)
{
    const struct guest *guest = &guests[_i];
    struct hostile_machine machine = {
        .engine = guest->is_translated ? &translate_engine : &trap_engine,
        .config = {.ram_size = 1u << 20,
                   .clock = guest->virtual_ns != 0 ? CLOCK_VIRTUAL : CLOCK_HOST,
                   .console_write = hostile_console_write,
                   .console_read = hostile_console_read},
        .cpu_us = 30000,
        .real_us = 200000,
        .build = build,
        .ctx = (void *)guest,
    };
    const char *complaint;

    if (guest->needs_dispatch && !has_dispatch()) {
        printf("SKIP %s: this host has no syscall user dispatch\n", guest->name);
        return;
    }
    complaint = hostile_run(&machine);
    ck_assert_msg(complaint == NULL, "%s: %s", guest->name, complaint);
    ck_assert_msg(hostile_result->reason == guest->reason, "%s: %s: %s", guest->name,
                  stop_reason_name(hostile_result->reason), hostile_result->text);
    ck_assert_msg(guest->text == NULL || strstr(hostile_result->text, guest->text) != NULL, "%s: %s",
                  guest->name, hostile_result->text);
    ck_assert_msg(!guest->is_quick || hostile_result->latency_ns == 0, "%s: only when its time was up",
                  guest->name);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("hostile cases");
    TCase *cases = tcase_create("native");
    SRunner *runner;
    int n_failed;

    tcase_add_loop_test(cases, ends_as_it_should, 0, sizeof guests / sizeof guests[0]);
    tcase_set_timeout(cases, 60);
    suite_add_tcase(suite, cases);
    runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    n_failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return n_failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
