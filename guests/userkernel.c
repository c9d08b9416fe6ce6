/*
 * userkernel: the wall between ring 3 and the kernel, tried from ring 3.
 *
 * The lesson: under ring3 both the guest's kernel and its programs run in ring 3, so the wall that the guest
 * relies on is not the processor's: the monitor builds it from segment limits and from what it maps when. It
 * must stand wherever user pages lie (here they have kernel pages below, above and next to them), and what a
 * program gets for touching it must be exactly the processor's answer: vector, error code, CR2.
 *
 * Read next: faults.c, for the other exceptions.
 */
#include "frames.h"
#include "guest.h"

/* Pages beside pages: user, kernel, read-only user, nothing. And kernel pages high up, where most kernels
 * live. */
enum {
    USER_PAGE = 0x40000000,
    KERNEL_PAGE = 0x40001000,
    READ_ONLY_PAGE = 0x40002000,
    ABSENT_PAGE = 0x40003000
};
enum { HIGH_PAGE = 0xc0000000, HIGH_USER_PAGE = 0xd0000000, RIGHTS_PAGE = 0x50000000 };

static pte *space;

static struct trap user_access(void (*code)(void), uint32_t linear)
{
    probe_registers =
        (struct registers){.eax = 0x5a5a5a5a, .ecx = 64, .ebx = linear, .esi = linear, .edi = linear};
    return probe_user(code);
}

USER_CODE(load, "mov (%ebx), %eax")
USER_CODE(store, "mov %eax, (%ebx)")
USER_CODE(execute, "jmp *%ebx")
USER_CODE(bit_test, "btl $3, (%ebx)")

/* ---- pages ---- */

static void check_page(const char *name, uint32_t linear, uint32_t error)
{
    print("%s, at %08x:\n", name, linear);
    check_page_fault("  load", user_access(load, linear), error | PF_USER, linear);
    check_page_fault("  store", user_access(store, linear), error | PF_USER | PF_WRITE, linear);
    struct trap trap = user_access(execute, linear);
    check_page_fault("  fetch", trap, error | PF_USER, linear);
    check_equal("  fetch: eip", trap.eip, linear);
}

SNIPPETS_BEGIN(writers);
SNIPPET(writers, user, "movb %al, (%ebx)");
SNIPPET(writers, user, "pop (%ebx)");
SNIPPET(writers, user, "setc (%ebx)");
SNIPPET(writers, user, "fnstcw (%ebx)");
SNIPPET(writers, user, "stosl");
SNIPPETS_END(writers);

/* The processor asks for the right to write at once. QEMU loads first, and so its fault is one of a read. */
SNIPPETS_BEGIN(read_writers);
SNIPPET(read_writers, user, "incl (%ebx)");
SNIPPET(read_writers, user, "lock xadd %eax, (%ebx)");
SNIPPET(read_writers, user, "xchg %eax, (%ebx)");
SNIPPET(read_writers, user, "btsl $3, (%ebx)");
SNIPPET(read_writers, user, "cmpxchg %ecx, (%ebx)");
SNIPPETS_END(read_writers);

static void check_pages(void)
{
    uint32_t gdt_word = peek((uintptr_t)gdt + SEL_KERNEL_CODE);

    check_returned("a user page: load", user_access(load, USER_PAGE));
    check_returned("a user page: store", user_access(store, USER_PAGE));
    check_equal("a user page: the kernel sees the store", peek(USER_PAGE), 0x5a5a5a5a);
    check_returned("a user page above the kernel: store", user_access(store, HIGH_USER_PAGE));

    check_page("kernel code, below the program", (uintptr_t)guest_main, PF_PRESENT);
    check_page("the GDT, above the program", (uintptr_t)gdt + SEL_KERNEL_CODE, PF_PRESENT);
    check_page("a kernel page between user pages", KERNEL_PAGE, PF_PRESENT);
    check_page("a kernel page in the last GiB", HIGH_PAGE, PF_PRESENT);
    check_page("no page", ABSENT_PAGE, 0);
    check_page("page 0", 0, 0);
    check("kernel memory is as it was", peek((uintptr_t)gdt + SEL_KERNEL_CODE) == gdt_word &&
                                            peek(KERNEL_PAGE) == mark(1) && peek(HIGH_PAGE) == mark(4));

    check_returned("a read-only user page: load", user_access(load, READ_ONLY_PAGE));
    check_page_fault("a read-only user page: store", user_access(store, READ_ONLY_PAGE),
                     PF_PRESENT | PF_WRITE | PF_USER, READ_ONLY_PAGE);

    const uint32_t target = KERNEL_PAGE + 8, write_error = PF_PRESENT | PF_WRITE | PF_USER;
    bool all_by_write = true;
    print("each of these on a kernel page is a fault:\n");
    for (const struct snippet *s = writers; s != writers_end; s++)
        check_page_fault(s->text, user_access(s->code, target), write_error, target);
    for (const struct snippet *s = read_writers; s != read_writers_end; s++) {
        struct trap trap = user_access(s->code, target);
        all_by_write = all_by_write && trap.error == write_error;
        trap.error |= PF_WRITE;
        check_page_fault(s->text, trap, write_error, target);
    }
    check_option("rmw", "these five are faults of a write", all_by_write);
    check_page_fault("bt only reads", user_access(bit_test, KERNEL_PAGE + 8), PF_PRESENT | PF_USER,
                     KERNEL_PAGE + 8);
}

/* Both levels of the tables must allow it. */
static void check_rights_of_both_levels(void)
{
    space_map(space, RIGHTS_PAGE, frame(5), RW | PTE_U);
    check_returned("user page in a user directory entry", user_access(store, RIGHTS_PAGE));
    space[RIGHTS_PAGE >> 22] &= ~(pte)PTE_U;
    write_cr3(read_cr3());
    check_page_fault("user page in a kernel directory entry", user_access(load, RIGHTS_PAGE),
                     PF_PRESENT | PF_USER, RIGHTS_PAGE);
    space[RIGHTS_PAGE >> 22] = (space[RIGHTS_PAGE >> 22] | PTE_U) & ~(pte)PTE_W;
    write_cr3(read_cr3());
    check_page_fault("writable page in a read-only directory entry", user_access(store, RIGHTS_PAGE),
                     PF_PRESENT | PF_WRITE | PF_USER, RIGHTS_PAGE);
    space[RIGHTS_PAGE >> 22] |= PTE_W;
    space_map(space, RIGHTS_PAGE, frame(5), RW);
    write_cr3(read_cr3());
    check_page_fault("the kernel takes its page back", user_access(load, RIGHTS_PAGE), PF_PRESENT | PF_USER,
                     RIGHTS_PAGE);
    space_map(space, RIGHTS_PAGE, frame(5), RW | PTE_U);
    invlpg(RIGHTS_PAGE);
    check_returned("and gives it again", user_access(load, RIGHTS_PAGE));
}

USER_CODE(fill, "rep stosb")
USER_CODE(steal, "mov $0x40000100, %edi\n\trep movsb")
USER_CODE(push_here, "push %eax")
USER_CODE(pop_here, "pop %eax")
USER_CODE(call_here, "call *%ebx")

static void check_borders(void)
{
    uint32_t border = KERNEL_PAGE;

    poke(border - 4, 0);
    check_page_fault("a load across the border", user_access(load, border - 2), PF_PRESENT | PF_USER, border);
    check_page_fault("a store across the border", user_access(store, border - 2),
                     PF_PRESENT | PF_WRITE | PF_USER, border);
    check("it left nothing on either side", peek(border - 4) == 0 && peek(border) == mark(1));
    struct trap trap = user_access(fill, border - 16);
    check_page_fault("rep stosb into the kernel", trap, PF_PRESENT | PF_WRITE | PF_USER, border);
    check("it stops at the border",
          trap.registers.ecx == 64 - 16 && trap.registers.edi == border && peek(border) == mark(1));
    check_page_fault("rep movsb out of the kernel", user_access(steal, border), PF_PRESENT | PF_USER, border);

    check_page_fault("push with the kernel above esp", probe_user_with(push_here, HIGH_PAGE + 0x100, 0),
                     PF_PRESENT | PF_WRITE | PF_USER, HIGH_PAGE + 0xfc);
    check_page_fault("push below the last page of a stack",
                     probe_user_with(push_here, ABSENT_PAGE + 0x1000, 0), PF_WRITE | PF_USER,
                     ABSENT_PAGE + 0xffc);
    check_page_fault("pop from the kernel", probe_user_with(pop_here, KERNEL_PAGE, 0), PF_PRESENT | PF_USER,
                     KERNEL_PAGE);
    check_page_fault("call with the stack in the kernel", probe_user_with(call_here, KERNEL_PAGE + 0x10, 0),
                     PF_PRESENT | PF_WRITE | PF_USER, KERNEL_PAGE + 0xc);
}

/* ---- segments and gates ---- */

USER_CODE(load_kernel_ds, "mov %ebx, %ds")
USER_CODE(load_kernel_ss, "mov %ebx, %ss")
USER_CODE(pop_kernel_fs, "push %ebx\n\tpop %fs")
USER_CODE(far_jump, "ljmp $0x08, $guest_main")
USER_CODE(far_call, "lcall $0x08, $guest_main")
USER_CODE(far_return, "push $0x08\n\tpush $guest_main\n\tlret")
USER_CODE(interrupt_return, "push $2\n\tpush $0x08\n\tpush $guest_main\n\tiret")
USER_CODE(interrupt_return_rpl3, "push $2\n\tpush $0x0b\n\tpush $guest_main\n\tiret")
USER_CODE(interrupt_return_home, "push $0x3202\n\tpush $0x3b\n\tpush $1f\n\tiret\n1:\tcli")
USER_CODE(kernel_interrupt, "int $0x40")
USER_CODE(use_fs, "mov %fs:(%ebx), %eax")

static void check_trap_code(const char *name, struct trap trap, uint32_t vector, uint32_t error)
{
    check(name, trap.vector == vector && trap.error == error);
    if (trap.vector != vector || trap.error != error)
        print("     got %s(%x) at %08x\n", trap_name(trap.vector), trap.error, trap.eip);
}

static void check_selectors(void)
{
    check_trap_code("mov ds, kernel data", user_access(load_kernel_ds, SEL_KERNEL_DATA), VECTOR_GP,
                    SEL_KERNEL_DATA);
    check_trap_code("mov ds, kernel data with RPL 3", user_access(load_kernel_ds, SEL_KERNEL_DATA | 3),
                    VECTOR_GP, SEL_KERNEL_DATA);
    check_trap_code("mov ds, kernel code", user_access(load_kernel_ds, SEL_KERNEL_CODE), VECTOR_GP,
                    SEL_KERNEL_CODE);
    check_trap_code("mov ss, kernel data", user_access(load_kernel_ss, SEL_KERNEL_DATA), VECTOR_GP,
                    SEL_KERNEL_DATA);
    check_trap_code("pop fs, kernel data", user_access(pop_kernel_fs, SEL_KERNEL_DATA), VECTOR_GP,
                    SEL_KERNEL_DATA);
    check_trap_code("far jump to kernel code", probe_user(far_jump), VECTOR_GP, SEL_KERNEL_CODE);
    check_trap_code("far call to kernel code", probe_user(far_call), VECTOR_GP, SEL_KERNEL_CODE);
    check_trap_code("far return to kernel code", probe_user(far_return), VECTOR_GP, SEL_KERNEL_CODE);
    check_trap_code("iret to kernel code", probe_user(interrupt_return), VECTOR_GP, SEL_KERNEL_CODE);
    check_trap_code("iret to kernel code with RPL 3", probe_user(interrupt_return_rpl3), VECTOR_GP,
                    SEL_KERNEL_CODE);
    struct trap trap = probe_user(interrupt_return_home);
    check_trap_code("iret to ring 3 with IF and IOPL in the flags: cli is still #GP", trap, VECTOR_GP, 0);
    check_equal("and the flags have neither", trap.eflags & (EFLAGS_IF | EFLAGS_IOPL3), 0);
    check_trap("an interrupt gate for the kernel", probe_user(kernel_interrupt), VECTOR_GP, 0x40 * 8 + 2,
               kernel_interrupt);

    load_fs(SEL_USER_DATA);
    check_returned("a segment of ring 3 survives the way there", user_access(use_fs, USER_PAGE));
    gdt[SEL_SPARE / 8] = descriptor(USER_PAGE, 0xfff, DESC_DATA);
    load_fs(SEL_SPARE);
    trap = user_access(use_fs, 0);
    check_option("limits", "a segment of the kernel becomes null on the way: #GP(0)",
                 trap.vector == VECTOR_GP && trap.error == 0);
    load_fs(SEL_KERNEL_DATA);
}

/* A call gate with two parameters: the processor switches stacks and copies them. */
extern uint8_t gate_target[];
static volatile uint32_t gate_parameters[2];
static volatile uint32_t gate_esp;

__attribute__((used)) static void on_gate(uint32_t esp, uint32_t first, uint32_t second)
{
    gate_esp = esp;
    gate_parameters[0] = first;
    gate_parameters[1] = second;
}

__asm__("gate_target:\n" /* esp: eip, cs, 22, 11, the caller's esp, ss */
        "       push    12(%esp)\n"
        "       push    12(%esp)\n"
        "       lea     8(%esp), %eax\n"
        "       push    %eax\n"
        "       call    on_gate\n"
        "       add     $12, %esp\n"
        "       lret    $8\n");

USER_CODE(call_gate, "push $11\n\tpush $22\n\tmov %esp, %edi\n\tlcall $0x53, $0\n\tsub %esp, %edi")
USER_CODE(call_gate_only, "lcall $0x53, $0")

static void on_system_call(struct trap_frame *frame)
{
    check("an interrupt from ring 3 comes on the stack of the TSS", (uintptr_t)(frame + 1) == tss.esp0);
    check("with ring 3's stack in the frame",
          frame->ss == SEL_USER_DATA && frame->cs == SEL_USER_CODE && frame->esp == user_stack_top());
    trap_set_handler(SYSCALL_VECTOR, NULL);
    trap_dispatch(frame);
}

static void check_gates(void)
{
    trap_set_handler(SYSCALL_VECTOR, on_system_call);
    probe_user(load);

    gdt[SEL_FREE / 8] = gate(SEL_KERNEL_CODE, (uintptr_t)gate_target, DESC_CALL_GATE | DESC_USER) | 2ull
                                                                                                        << 32;
    tss.esp0 -= 256; /* our frame is not under the one of a trap */
    struct trap trap = probe_user(call_gate);
    tss.esp0 += 256;
    check_returned("a call gate leads into the kernel and back", trap);
    check("with its two parameters", gate_parameters[0] == 22 && gate_parameters[1] == 11);
    check_equal("on the kernel's stack", gate_esp, tss.esp0 - 256 - 6 * 4);
    check_equal("and leaves ring 3's stack without them", trap.registers.edi, (uint32_t)-8);

    gdt[SEL_FREE / 8] &= ~((uint64_t)DESC_PRESENT << 40);
    check_trap("a call gate that is not present", probe_user(call_gate_only), VECTOR_NP, SEL_FREE,
               call_gate_only);
    gdt[SEL_FREE / 8] = gate(SEL_KERNEL_CODE, (uintptr_t)gate_target, DESC_CALL_GATE);
    check_trap("a call gate for the kernel", probe_user(call_gate_only), VECTOR_GP, SEL_FREE, call_gate_only);
}

/* ---- ports ---- */

/* 0x3ff is the UART's scratch register; reading its neighbours 0x3fc-0x3fe does nothing. */
USER_CODE(in_3ff, "mov $0x3ff, %dx\n\tin %dx, %al")
USER_CODE(in_3fe, "mov $0x3fe, %dx\n\tin %dx, %al")
USER_CODE(in16_3fe, "mov $0x3fe, %dx\n\tin %dx, %ax")
USER_CODE(in16_3ff, "mov $0x3ff, %dx\n\tin %dx, %ax")
USER_CODE(in32_3fc, "mov $0x3fc, %dx\n\tin %dx, %eax")
USER_CODE(out_3ff, "mov $0x3ff, %dx\n\tmov $0x77, %al\n\tout %al, %dx")
USER_CODE(out_21, "out %al, $0x21")
USER_CODE(disable, "cli")
USER_CODE(enable, "sti\n\tnop")
USER_CODE(halt, "hlt")

static void reload_task_register(uint32_t limit)
{
    gdt[SEL_TSS / 8] = descriptor((uintptr_t)&tss, limit, DESC_TSS);
    load_task_register(SEL_TSS);
}

static void check_ports(void)
{
    check_trap_code("no bitmap: in", probe_user(in_3ff), VECTOR_GP, 0);
    check_trap("no bitmap: out", probe_user(out_21), VECTOR_GP, 0, out_21);

    memset(io_map, 0xff, sizeof io_map);
    io_map[0x3ff / 8] &= (uint8_t)~0x80;
    tss.io_map_base = sizeof tss;
    check_returned("bitmap: out to the port that it allows", probe_user(out_3ff));
    struct trap trap = probe_user(in_3ff);
    check("bitmap: in from it", trap.vector == NO_TRAP && (trap.registers.eax & 0xff) == 0x77);
    check_trap_code("bitmap: its neighbour", probe_user(in_3fe), VECTOR_GP, 0);
    check_trap_code("bitmap: two bytes, the first denied", probe_user(in16_3fe), VECTOR_GP, 0);
    check_trap_code("bitmap: two bytes, the second denied", probe_user(in16_3ff), VECTOR_GP, 0);
    check_trap_code("bitmap: four bytes, three denied", probe_user(in32_3fc), VECTOR_GP, 0);
    io_map[0x3ff / 8] &= 0x0f;
    trap = probe_user(in32_3fc);
    check("bitmap: four bytes, all allowed", trap.vector == NO_TRAP && trap.registers.eax >> 24 == 0x77);

    reload_task_register(sizeof tss +
                         0x7f); /* the processor reads two bytes of the bitmap: here, one is missing */
    check_trap_code("bitmap cut off: the same port", probe_user(in_3ff), VECTOR_GP, 0);
    reload_task_register(sizeof tss + 0x80);
    check_returned("bitmap one byte longer: allowed", probe_user(in_3ff));
    reload_task_register(sizeof tss + sizeof io_map - 1);
    tss.io_map_base = 0xffff;
    check_trap_code("bitmap gone: denied", probe_user(in_3ff), VECTOR_GP, 0);

    user_stack[1023] = (uintptr_t)user_return;
    check_returned("IOPL 3: in", probe_user_with(in_3ff, user_stack_top() - 4, EFLAGS_IOPL3));
    trap = probe_user_with(disable, user_stack_top() - 4, EFLAGS_IOPL3 | EFLAGS_IF);
    check("IOPL 3: cli clears IF", trap.vector == NO_TRAP && !(trap.eflags & EFLAGS_IF));
    trap = probe_user_with(enable, user_stack_top() - 4, EFLAGS_IOPL3);
    check("IOPL 3: sti sets it", trap.vector == NO_TRAP && (trap.eflags & EFLAGS_IF));
    check_trap("IOPL 3: hlt is for CPL 0 all the same",
               probe_user_with(halt, user_stack_top() - 4, EFLAGS_IOPL3), VECTOR_GP, 0, halt);
    check_trap("IOPL 0 again: cli", probe_user(disable), VECTOR_GP, 0, disable);
}

void guest_main(void)
{
    pic_init(); /* every line masked: IF will be set now and then */
    frames_mark();
    space = space_new();
    space_map(space, USER_PAGE, frame(0), RW | PTE_U);
    space_map(space, KERNEL_PAGE, frame(1), RW);
    space_map(space, READ_ONLY_PAGE, frame(2), RO | PTE_U);
    space_map(space, HIGH_PAGE, frame(4), RW);
    space_map(space, HIGH_USER_PAGE, frame(3), RW | PTE_U);
    paging_on(space);

    check_pages();
    check_rights_of_both_levels();
    check_borders();
    check_selectors();
    check_gates();
    check_ports();
}
