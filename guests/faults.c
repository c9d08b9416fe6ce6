/*
 * faults: every exception of the i386, with its error code and the eip that the handler finds.
 *
 * The lesson: an exception is a *fault* (eip is the instruction, which can be tried again), a *trap* (eip is
 * the next instruction) or an *abort*, and some push an error code that names a selector. Under ring3 each
 * begins as a signal of Linux, and the guest must not see the difference. What the processor does when it
 * cannot deliver an exception is the last part: a double fault, and the one thing that task gates are still
 * good for.
 *
 * Read next: lib/traps.S, where they all arrive.
 */
#include "frames.h"
#include "guest.h"

/* GDT entries of this guest; SEL_SPARE changes its meaning all the time. */
enum { SEL_CODE_ABSENT = 0x50, SEL_EXECUTE_ONLY = 0x58, SEL_SMALL_TSS = 0x60, SEL_READ_ONLY = 0x68 };
enum { SEL_BEYOND_GDT = 0xf8 };

/* The code must end in this trap, `offset` bytes after its first instruction. */
static void expect(const char *name, void (*code)(void), uint32_t vector, uint32_t error, uint32_t offset)
{
    struct trap trap = probe_kernel(code);
    trap.eip -= offset;
    check_trap(name, trap, vector, error, code);
}

/* ---- arithmetic and its instructions ---- */

CODE(divide_by_zero, "div %ecx")
CODE(divide_overflow, "idiv %ecx")
CODE(adjust_by_zero, "aam $0")
CODE(overflow, "mov $0x7fffffff, %eax\n\tinc %eax\n\tinto")
CODE(no_overflow, "xor %eax, %eax\n\tinto")
CODE(out_of_bounds, "bound %eax, (%ebx)")
CODE(breakpoint, "int3")
CODE(breakpoint_by_number, ".byte 0xcd, 3")

static void check_arithmetic(void)
{
    static const int32_t bounds[2] = {-5, 5};

    probe_registers = (struct registers){.eax = 1, .ecx = 0};
    expect("#DE: division by zero", divide_by_zero, VECTOR_DE, 0, 0);
    expect("#DE: aam 0", adjust_by_zero, VECTOR_DE, 0, 0);
    probe_registers = (struct registers){.eax = 0x80000000, .edx = 0xffffffff, .ecx = (uint32_t)-1};
    expect("#DE: a quotient that does not fit", divide_overflow, VECTOR_DE, 0, 0);
    struct trap trap = probe_kernel(divide_overflow);
    check("#DE: a fault leaves the registers alone",
          trap.registers.eax == 0x80000000 && trap.registers.edx == 0xffffffff);

    expect("#OF: into with OF set; a trap", overflow, VECTOR_OF, 0, 7);
    check_returned("into with OF clear", probe_kernel(no_overflow));
    probe_registers = (struct registers){.eax = 6, .ebx = (uintptr_t)bounds};
    expect("#BR: 6 in -5..5; a fault", out_of_bounds, VECTOR_BR, 0, 0);
    probe_registers.eax = (uint32_t)-5;
    check_returned("bound: -5 in -5..5", probe_kernel(out_of_bounds));
    expect("#BP: int3; a trap", breakpoint, VECTOR_BP, 0, 1);
    expect("#BP: int 3, in two bytes", breakpoint_by_number, VECTOR_BP, 0, 2);
}

/* ---- invalid opcodes: no instruction, or not with these operands ---- */

SNIPPETS_BEGIN(invalid);
SNIPPET(invalid, kernel, "ud2");
SNIPPET(invalid, kernel, ".byte 0xf0, 0x90 /* lock nop */");
SNIPPET(invalid, kernel, ".byte 0xf0, 0x01, 0xc0 /* lock add %eax, %eax */");
SNIPPET(invalid, kernel, ".byte 0x8d, 0xc0 /* lea of a register */");
SNIPPET(invalid, kernel, ".byte 0x8e, 0xc8 /* mov %eax, %cs */");
SNIPPET(invalid, kernel, ".byte 0x8e, 0xf0 /* mov to no segment register */");
SNIPPET(invalid, kernel, ".byte 0x0f, 0x20, 0xc8 /* mov %cr1, %eax */");
SNIPPET(invalid, kernel, ".byte 0x0f, 0x01, 0xf8 /* invlpg of a register */");
SNIPPET(invalid, kernel, ".byte 0x0f, 0xc7, 0xc8 /* cmpxchg8b of a register */");
SNIPPETS_END(invalid);

static void check_invalid_opcodes(void)
{
    for (const struct snippet *s = invalid; s != invalid_end; s++)
        expect(s->text, s->code, VECTOR_UD, 0, 0);
}

/* ---- debug exceptions ---- */

enum { DR6_B0 = 1, DR6_BS = 1 << 14, DR7_L0 = 1, DR7_LEN4_WRITE = 0xd << 16 };

CODE(single_step, "pushf\n\torl $0x100, (%esp)\n\tpopf\n\tnop\n\tnop")
CODE(step_over_mov_ss,
     "mov $0x10, %eax\n\tpushf\n\torl $0x100, (%esp)\n\tpopf\n\tmov %eax, %ss\n\tnop\n\tnop")
USER_CODE(two_steps, "nop\n\tnop")
CODE(store_eax, "mov %eax, (%ebx)\n\tnop")
CODE(int1, ".byte 0xf1")

static void check_debug(void)
{
    write_dr6(0);
    struct trap trap = probe_kernel(single_step);
    trap.eip -= 10;
    check_trap("#DB: TF traps after one more instruction", trap, VECTOR_DB, 0, single_step);
    check("#DB: with TF in the frame", trap.eflags & EFLAGS_TF);
    check("#DB: and BS in DR6", read_dr6() & DR6_BS);
    trap = probe_kernel(step_over_mov_ss);
    trap.eip -= 17;
    check_trap("#DB: not between mov ss and the next instruction", trap, VECTOR_DB, 0, step_over_mov_ss);
    write_dr6(0);
    user_stack[1023] = (uintptr_t)user_return;
    trap = probe_user_with(two_steps, user_stack_top() - 4, EFLAGS_TF);
    trap.eip -= 1;
    check_trap("#DB: TF by iret to ring 3", trap, VECTOR_DB, 0, two_steps);
    write_dr6(0);
    trap = probe_kernel(int1);
    check_option("int1", "#DB: int1; a trap, and DR6 says that it was no step",
                 trap.vector == VECTOR_DB && trap.eip == (uintptr_t)int1 + 1 && !(read_dr6() & DR6_BS));

    /* A machine without hardware breakpoints may end here; so only by request. */
    if (!has_option("breakpoints"))
        return;
    static uint32_t watched;
    probe_registers.ebx = (uintptr_t)&watched;
    write_dr0((uintptr_t)&watched);
    write_dr7(DR7_L0 | DR7_LEN4_WRITE);
    trap = probe_kernel(store_eax);
    write_dr7(0);
    trap.eip -= 2;
    check_trap("#DB: a store to a watched word; a trap", trap, VECTOR_DB, 0, store_eax);
    check("#DB: and its number in DR6", read_dr6() & DR6_B0);
    write_dr0((uintptr_t)two_steps);
    write_dr7(DR7_L0);
    trap = probe_kernel(two_steps);
    write_dr7(0);
    check_trap("#DB: a watched instruction; a fault", trap, VECTOR_DB, 0, two_steps);
}

/* ---- selectors ---- */

CODE(load_fs_eax, "mov %eax, %fs")
CODE(load_ss_eax, "mov %eax, %ss")
CODE(pop_gs, "push %eax\n\tpop %gs")
CODE(far_jump_absent, "ljmp $0x50, $0")
CODE(far_jump_data, "ljmp $0x10, $0")
CODE(far_jump_null, "ljmp $0, $0")
CODE(far_jump_small_tss, "ljmp $0x60, $0")
CODE(far_return_absent, "push $0x50\n\tpush $0\n\tlret")
CODE(iret_null, "push $2\n\tpush $0\n\tpush $0\n\tiret")
CODE(nested_iret, "pushf\n\torl $0x4000, (%esp)\n\tpopf\n\tiret")
CODE(int_0x50, "int $0x50")

static void expect_load(const char *name, void (*code)(void), uint32_t selector, uint32_t vector)
{
    probe_registers.eax = selector;
    expect(name, code, vector, selector & ~3u, 0);
}

static void check_selectors(void)
{
    const struct table_register idtr = {sizeof idt - 1, (uintptr_t)idt},
                                short_idtr = {0x50 * 8 - 1, idtr.base};

    gdt[SEL_CODE_ABSENT / 8] = descriptor(0, 0xffffffff, DESC_CODE & ~DESC_PRESENT);
    gdt[SEL_EXECUTE_ONLY / 8] = descriptor(0, 0xffffffff, DESC_CODE & ~2);
    gdt[SEL_READ_ONLY / 8] = descriptor(0, 0xffffffff, DESC_DATA & ~2);
    gdt[SEL_SMALL_TSS / 8] = descriptor((uintptr_t)&tss, 0x66, DESC_TSS);
    gdt[SEL_SPARE / 8] = descriptor(0, 0xffffffff, DESC_DATA & ~DESC_PRESENT);

    expect_load("#NP: an absent segment", load_fs_eax, SEL_SPARE, VECTOR_NP);
    expect_load("#SS: an absent stack segment", load_ss_eax, SEL_SPARE, VECTOR_SS);
    expect("#NP: far jump to an absent code segment", far_jump_absent, VECTOR_NP, SEL_CODE_ABSENT, 0);
    expect("#NP: far return to one", far_return_absent, VECTOR_NP, SEL_CODE_ABSENT, 4);
    idt[0x50] &= ~((uint64_t)DESC_PRESENT << 40);
    expect("#NP: an absent gate; the error code names the IDT", int_0x50, VECTOR_NP, 0x50 * 8 + 2, 0);
    load_idt(&short_idtr);
    expect("#GP: a vector beyond the IDT", int_0x50, VECTOR_GP, 0x50 * 8 + 2, 0);
    load_idt(&idtr);

    expect_load("#GP: a selector beyond the GDT", load_fs_eax, SEL_BEYOND_GDT, VECTOR_GP);
    expect_load("#GP: the same with RPL 3: RPL is not in the error code", load_fs_eax, SEL_BEYOND_GDT | 3,
                VECTOR_GP);
    expect_load("#GP: code that cannot be read, as data", load_fs_eax, SEL_EXECUTE_ONLY, VECTOR_GP);
    expect_load("#GP: a TSS as data", load_fs_eax, SEL_SMALL_TSS, VECTOR_GP);
    expect_load("#GP: data of the kernel with RPL 3", load_fs_eax, SEL_READ_ONLY | 3, VECTOR_GP);
    expect_load("#GP: no stack segment", load_ss_eax, 0, VECTOR_GP);
    expect_load("#GP: a stack segment with another RPL", load_ss_eax, SEL_KERNEL_DATA | 1, VECTOR_GP);
    expect_load("#GP: a stack segment of ring 3", load_ss_eax, SEL_USER_DATA, VECTOR_GP);
    expect_load("#GP: a stack segment that is read-only", load_ss_eax, SEL_READ_ONLY, VECTOR_GP);
    expect_load("#GP: code as a stack", load_ss_eax, SEL_KERNEL_CODE, VECTOR_GP);
    probe_registers.eax = SEL_BEYOND_GDT;
    expect("#GP: pop gs", pop_gs, VECTOR_GP, SEL_BEYOND_GDT, 1);
    expect("#GP: far jump to data", far_jump_data, VECTOR_GP, SEL_KERNEL_DATA, 0);
    expect("#GP: far jump to nowhere", far_jump_null, VECTOR_GP, 0, 0);
    expect("#GP: iret to nowhere", iret_null, VECTOR_GP, 0, 6);

    expect("#TS: a TSS that is too small", far_jump_small_tss, VECTOR_TS, SEL_SMALL_TSS, 0);
    tss.link = SEL_KERNEL_DATA;
    expect("#TS: iret with NT to a task that is none", nested_iret, VECTOR_TS, SEL_KERNEL_DATA, 9);
    load_fs(SEL_KERNEL_DATA);
    __asm__ volatile("mov %0, %%gs" : : "r"(SEL_KERNEL_DATA));
}

/* ---- limits and types of segments in use ---- */

CODE(load_through_fs, "mov %fs:(%ebx), %eax")
CODE(store_through_fs, "mov %eax, %fs:(%ebx)")
CODE(load_through_cs, "mov %cs:(%ebx), %eax")
CODE(load_through_ss, "mov %ss:(%ebx), %eax")

/* A stack segment with B clear: pushes and pops use SP, and the upper half of ESP stays, through traps too.
 */
CODE(use_small_stack, "mov     %esp, %esi\n\t"
                      "mov     %ebx, %ss\n\t"
                      "mov     $0x12340004, %esp\n\t"
                      "push    %eax\n\t" /* at 0 */
                      "push    %ecx\n\t" /* at fffc */
                      "cli\n\t"
                      "mov     %esp, %edi\n\t"
                      "pop     %edx\n\t"
                      "mov     $0x10, %ebx\n\t"
                      "mov     %ebx, %ss\n\t"
                      "mov     %esi, %esp")
enum { DESC_B_BIT = 54 };

static void check_small_stack(void)
{
    static uint32_t stack[0x10000 / 4];

    gdt[SEL_SPARE / 8] = descriptor((uintptr_t)stack, 0xffff, DESC_DATA) & ~(1ull << DESC_B_BIT);
    probe_registers = (struct registers){.eax = 0x11111111, .ecx = 0x22222222, .ebx = SEL_SPARE};
    struct trap trap = probe_kernel(use_small_stack);
    check_returned("a 16-bit stack", trap);
    check("a 16-bit stack: pushes wrap at 64 KiB", stack[0] == 0x11111111 && stack[0xfffc / 4] == 0x22222222);
    check_equal("a 16-bit stack: the upper half of esp stays", trap.registers.edi, 0x1234fffc);
    check_equal("a 16-bit stack: pop", trap.registers.edx, 0x22222222);
}

/* QEMU's translator knows no limits and no read-only segments. */
static void expect_limit(const char *name, void (*code)(void), uint32_t offset, uint32_t vector)
{
    probe_registers.ebx = offset;
    struct trap trap = probe_kernel(code);
    check_option("limits", name, trap.vector == vector && trap.error == 0 && trap.eip == (uintptr_t)code);
}

static void check_limits(void)
{
    static uint32_t words[4] = {1, 2, 3, 4};

    gdt[SEL_SPARE / 8] = descriptor((uintptr_t)words, 7, DESC_DATA);
    load_fs(SEL_SPARE);
    probe_registers.ebx = 4;
    check("a segment of two words: the second", probe_kernel(load_through_fs).registers.eax == 2);
    expect_limit("#GP: the third", load_through_fs, 8, VECTOR_GP);
    expect_limit("#GP: half of the third", load_through_fs, 6, VECTOR_GP);
    gdt[SEL_SPARE / 8] = descriptor((uintptr_t)words, 7, DESC_DATA | 4);
    load_fs(SEL_SPARE);
    check("expand-down above the two words: the third", read_fs32(8) == 3);
    expect_limit("#GP: expand-down: the second", load_through_fs, 4, VECTOR_GP);
    load_fs(SEL_READ_ONLY);
    check("a read-only segment: load", read_fs32((uintptr_t)words) == 1);
    expect_limit("#GP: a read-only segment: store", store_through_fs, (uintptr_t)words, VECTOR_GP);
    load_fs(0);
    expect_limit("#GP: no segment", load_through_fs, (uintptr_t)words, VECTOR_GP);

    gdt[SEL_SPARE / 8] = descriptor(0, 0x3fffff, DESC_DATA); /* covers this guest, and no more */
    __asm__ volatile("mov %0, %%ss" : : "r"(SEL_SPARE));
    probe_registers.ebx = 0x400000;
    struct trap trap = probe_kernel(load_through_ss);
    __asm__ volatile("mov %0, %%ss" : : "r"(SEL_KERNEL_DATA));
    check_option("limits", "#SS: beyond the stack segment",
                 trap.vector == VECTOR_SS && trap.error == 0 && trap.eip == (uintptr_t)load_through_ss);
    load_fs(SEL_KERNEL_DATA);
    probe_registers.ebx = (uintptr_t)words;
    check_returned("code that can be read: load", probe_kernel(load_through_cs));
}

/* ---- floating point and alignment ---- */

CODE(use_fpu, "fnop")
CODE(fpu_divide_by_zero, "fninit\n\t"
                         "push $0x037b\n\t" /* the control word, with ZM clear */
                         "fldcw (%esp)\n\t"
                         "pop %eax\n\t"
                         "fld1\n\t"
                         "fldz\n\t"
                         "fdivrp\n"
                         "fpu_wait: fwait")
CODE(sse_divide_by_zero, "push $0x1d80\n\t" /* MXCSR with ZM clear */
                         "ldmxcsr (%esp)\n\t"
                         "pop %eax\n\t"
                         "push $0x3f800000\n\t"
                         "movss (%esp), %xmm0\n\t"
                         "pop %eax\n\t"
                         "xorps %xmm1, %xmm1\n"
                         "sse_divide: divss %xmm1, %xmm0")
USER_CODE(load_ebx, "mov (%ebx), %eax")
extern uint8_t fpu_wait[], sse_divide[];

static void check_coprocessor(void)
{
    uint32_t cr0 = read_cr0(), cr4 = read_cr4();

    /* Ring 3 of the host has its own TS and EM: on ring3's trap engine these are holes (see the guest
     * `holes`). */
    write_cr0(cr0 | CR0_TS);
    struct trap trap = probe_kernel(use_fpu);
    check_option("fpu", "#NM: the FPU with CR0.TS",
                 trap.vector == VECTOR_NM && trap.eip == (uintptr_t)use_fpu);
    write_cr0((cr0 & ~(uint32_t)CR0_TS) | CR0_EM);
    trap = probe_kernel(use_fpu);
    check_option("fpu", "#NM: the FPU with CR0.EM",
                 trap.vector == VECTOR_NM && trap.eip == (uintptr_t)use_fpu);

    write_cr0((cr0 & ~(uint32_t)(CR0_TS | CR0_EM)) | CR0_NE | CR0_MP);
    trap = probe_kernel(fpu_divide_by_zero);
    check("#MF: at the next instruction that waits",
          trap.vector == VECTOR_MF && trap.eip == (uintptr_t)fpu_wait);
    __asm__ volatile("fninit");

    write_cr4(cr4 | CR4_OSFXSR | CR4_OSXMMEXCPT);
    trap = probe_kernel(sse_divide_by_zero);
    check_option("simd", "#XM: an SSE division by zero",
                 trap.vector == VECTOR_XM && trap.eip == (uintptr_t)sse_divide);
    const uint32_t mxcsr = 0x1f80;
    __asm__ volatile("ldmxcsr %0" : : "m"(mxcsr));

    static USER_DATA uint32_t words[2];
    probe_registers.ebx = (uintptr_t)words + 1;
    user_stack[1023] = (uintptr_t)user_return;
    check_returned("EFLAGS.AC without CR0.AM: nothing",
                   probe_user_with(load_ebx, user_stack_top() - 4, EFLAGS_AC));
    write_cr0(read_cr0() | CR0_AM);
    trap = probe_user_with(load_ebx, user_stack_top() - 4, EFLAGS_AC);
    check_option("alignment", "#AC: a misaligned load in ring 3",
                 trap.vector == VECTOR_AC && trap.error == 0 && trap.eip == (uintptr_t)load_ebx);
    check_returned("CR0.AM without EFLAGS.AC: nothing", probe_user_with(load_ebx, user_stack_top() - 4, 0));
    write_cr0(cr0);
    write_cr4(cr4);
}

/* ---- tasks, and the double fault ---- */

static struct tss other_tss;
static volatile uint32_t task_error; /* NO_ERROR_CODE, or what the processor pushed */
static volatile unsigned task_runs;
static void (*task_action)(void);
extern uint8_t task_entry[], task_stack_top[], after_double_fault[];
enum { NO_ERROR_CODE = 0xffffffff };

__attribute__((used)) static void on_task(uint32_t error)
{
    task_error = error;
    task_runs++;
    if (task_action != NULL)
        task_action();
}

/* The IRET returns to the task that was interrupted. The next time, this one goes on after its IRET. */
__asm__("task_entry:\n"
        "       mov     $-1, %eax\n"
        "       cmp     $task_stack_top, %esp\n" /* is there an error code? */
        "       je      1f\n"
        "       pop     %eax\n"
        "1:     push    %eax\n"
        "       call    on_task\n"
        "       pop     %eax\n"
        "       iret\n"
        "       jmp     task_entry\n"
        ".pushsection .bss\n"
        "       .balign 16\n"
        "       .skip   4096\n"
        "task_stack_top:\n"
        ".popsection\n");

CODE(int_0x51, "int $0x51")
CODE(call_task, "lcall $0x48, $0")
CODE(fault_twice, "mov %eax, %fs\nafter_double_fault:")
USER_CODE(system_call, "int $0x30")

static void look_at_tasks(void)
{
    check("the new task knows the old", other_tss.link == SEL_TSS);
    check("both are busy", (gdt[SEL_TSS / 8] >> 41 & 1) && (gdt[SEL_OTHER_TSS / 8] >> 41 & 1));
    check_equal("the old one's registers are in its TSS", tss.ebx, 0x1234);
    check("the switch has set CR0.TS", read_cr0() & CR0_TS);
}

static void repair_gate(void)
{
    idt[VECTOR_GP] |= (uint64_t)DESC_PRESENT << 40;
    tss.eip = (uintptr_t)after_double_fault; /* an abort: where it came from is not defined */
}

static void skip_load(void)
{
    tss.eip += 2;
}

/* What is wrong with the new task is its own fault, at its first instruction: the switch is done, and neither
 * it nor what led to it is done again. */
static struct trap_frame task_fault;
static unsigned n_task_faults;
extern uint8_t faulty_entry[], faulty_stack_top[];
__asm__("faulty_entry:\n"
        "       iret\n"
        "       jmp     faulty_entry\n"
        ".pushsection .bss\n"
        "       .balign 16\n"
        "       .skip   4096\n"
        "faulty_stack_top:\n"
        ".popsection\n");

static void on_task_fault(struct trap_frame *frame)
{
    task_fault = *frame;
    n_task_faults++;
}

static void check_task_faults(void)
{
    static struct tss faulty;
    uint64_t good = gdt[SEL_OTHER_TSS / 8];
    struct trap trap;

    faulty = other_tss;
    faulty.eip = (uintptr_t)faulty_entry;
    faulty.esp = (uintptr_t)faulty_stack_top;
    faulty.eflags = EFLAGS_FIXED;
    faulty.fs = SEL_BEYOND_GDT;
    gdt[SEL_OTHER_TSS / 8] = descriptor((uintptr_t)&faulty, sizeof faulty - 1, DESC_TSS);
    n_task_faults = 0;
    trap_set_handler(VECTOR_TS, on_task_fault);
    trap = probe_kernel(int_0x51);
    trap_set_handler(VECTOR_TS, NULL);
    gdt[SEL_OTHER_TSS / 8] = good;
    check_returned("an interrupt to a task with a bad FS", trap);
    check_equal("#TS: once", n_task_faults, 1);
    check_equal("#TS: error code", task_fault.error, SEL_BEYOND_GDT & ~3u);
    check_equal("#TS: in the new task", task_fault.eip, (uintptr_t)faulty_entry);
}

static uint32_t good_esp0, double_fault_cr2;

static void repair_stack(void)
{
    double_fault_cr2 = read_cr2();
    tss.esp0 = good_esp0;
    tss.eip = (uintptr_t)user_return;
}

static void check_tasks(void)
{
    other_tss = (struct tss){
        .eip = (uintptr_t)task_entry,
        .eflags = EFLAGS_FIXED,
        .esp = (uintptr_t)task_stack_top,
        .es = SEL_KERNEL_DATA,
        .cs = SEL_KERNEL_CODE,
        .ss = SEL_KERNEL_DATA,
        .ds = SEL_KERNEL_DATA,
        .io_map_base = 0xffff,
    };
    gdt[SEL_OTHER_TSS / 8] = descriptor((uintptr_t)&other_tss, sizeof other_tss - 1, DESC_TSS);
    idt[0x51] = gate(SEL_OTHER_TSS, 0, DESC_TASK_GATE);
    idt[VECTOR_DF] = gate(SEL_OTHER_TSS, 0, DESC_TASK_GATE);

    probe_registers = (struct registers){.eax = 0x5678, .ebx = 0x1234};
    task_action = look_at_tasks;
    struct trap trap = probe_kernel(int_0x51);
    task_action = NULL;
    check_returned("an interrupt through a task gate", trap);
    check_equal("the task ran", task_runs, 1);
    check_equal("with no error code", task_error, NO_ERROR_CODE);
    check_equal("iret has put the registers back", trap.registers.eax, 0x5678);
    check("and the task is not busy", !(gdt[SEL_OTHER_TSS / 8] >> 41 & 1));
    check_returned("a far call to its TSS", probe_kernel(call_task));
    check_equal("is the same task again", task_runs, 2);
    check_task_faults();
    idt[VECTOR_NP] = gate(SEL_OTHER_TSS, 0, DESC_TASK_GATE);
    gdt[SEL_SPARE / 8] = descriptor(0, 0xffffffff, DESC_DATA & ~DESC_PRESENT);
    probe_registers.eax = SEL_SPARE;
    task_action = skip_load;
    check_returned("an exception through a task gate", probe_kernel(load_fs_eax));
    check_equal("the error code is on the task's stack", task_error, SEL_SPARE);
    __asm__ volatile("clts");

    /* #GP finds its gate absent, which is #NP, while a contributory exception is being delivered: #DF. */
    idt[VECTOR_GP] &= ~((uint64_t)DESC_PRESENT << 40);
    probe_registers.eax = SEL_BEYOND_GDT;
    task_action = repair_gate;
    check_returned("#DF: #GP without a handler, through a task gate", probe_kernel(fault_twice));
    check_equal("#DF: error code", task_error, 0);
    check_equal("#DF: once", task_runs, 4);

    /* The kernel's stack is gone. Only another task, with a stack of its own, can say so. */
    pte *space = space_new();
    tss.cr3 = other_tss.cr3 = (uintptr_t)space;
    paging_on(space);
    good_esp0 = tss.esp0;
    tss.esp0 = 0x40001000;
    task_action = repair_stack;
    trap = probe_user(system_call);
    check("#DF: a system call onto a stack that is not there",
          task_runs == 5 && task_error == 0 && trap.vector == NO_TRAP);
    check_equal("#DF: cr2 tells which page the stack should have had", double_fault_cr2 & ~0xfffu,
                0x40000000);
    __asm__ volatile("clts");
}

void guest_main(void)
{
    check_arithmetic();
    check_invalid_opcodes();
    check_debug();
    check_selectors();
    check_limits();
    check_small_stack();
    check_coprocessor();
    check_tasks();
}
