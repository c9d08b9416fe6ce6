/*
 * v8086: virtual-8086 mode, an 8086 in a cage.
 *
 * The lesson: with EFLAGS.VM set, selectors are paragraphs as in real mode, but the privilege is 3: pages
 * protect, ports are behind the bitmap of the TSS, and what would change the machine faults. CLI, STI, PUSHF,
 * POPF, INT n and IRET ask for IOPL 3: without it they are #GP, so that a monitor can play the 8086's
 * interrupts. This guest has such a monitor, a trap-and-emulate one like the monitor that may be running it.
 *
 * No 64-bit processor has virtual-8086 mode any more while it runs 64-bit code, so the trap engine stops at
 * the IRET that enters it; the other engines run it.
 *
 * Read next: v8086.S, the way in and out; realmode.c, the same without the cage.
 */
#include "code16.h"
#include "frames.h"
#include "guest.h"

/* Segments at these paragraphs; the piece of code under test lies at CODE:SNIPPET. */
enum { CODE = 0x4000, DATA = 0x5000, STACK = 0x6000, HANDLER = 0x4800, LINEAR = 16 };
enum { SNIPPET = 0x1000, TOP = 0x8000 };
enum { STUB_SIZE = 32, N_VECTORS = 256 };
#define EFLAGS_VM (1u << 17)

/* What runs, and what the interrupt that ended it found. */
struct v86 {
    uint32_t edi, esi, ebp, unused_esp, ebx, edx, ecx, eax;
    uint32_t eip, cs, eflags, esp, ss, es, ds, fs, gs; /* as on the stack of the handler */
    uint32_t vector, error;
    uint32_t nulled; /* what was in DS, ES, FS and GS when the handler came */
};

extern const uint8_t v86_stubs[N_VECTORS][STUB_SIZE];
void v86_run(struct v86 *state);
void v86_run_task(struct v86 *state);

static struct v86 begin;
static uint8_t task_stack[4096] __attribute__((aligned(16)));
static struct tss task;

static void reset(void)
{
    begin = (struct v86){.eip = SNIPPET,
                         .cs = CODE,
                         .eflags = EFLAGS_VM | EFLAGS_FIXED,
                         .esp = TOP,
                         .ss = STACK,
                         .es = DATA,
                         .ds = DATA,
                         .fs = 0xf5,
                         .gs = 0x1234};
    tss.io_map_base = 0xffff;
}

static void prepare(void)
{
    pic_init(); /* a BIOS may have left the timer ticking */
    for (unsigned vector = 0; vector < N_VECTORS; vector++) {
        bool is_open = vector == VECTOR_BP || vector == VECTOR_OF || vector == END_VECTOR;
        idt[vector] = gate(SEL_KERNEL_CODE, (uintptr_t)v86_stubs[vector],
                           DESC_INTERRUPT_GATE | (is_open ? DESC_USER : 0));
    }
    reset();
}

static void place(struct code16 code)
{
    memcpy(memory_at(CODE * LINEAR + SNIPPET), code.begin, (size_t)(code.end - code.begin));
}

static struct v86 run(struct code16 code)
{
    struct v86 state = begin;

    place(code);
    v86_run(&state);
    return state;
}

/* The INT 0x60 at its end: an interrupt with IOPL 3, else #GP(0) at it. */
static bool is_over(const struct v86 *state, struct code16 code)
{
    uint32_t end = SNIPPET + (uint32_t)(code.end - code.begin);

    if ((state->eflags & EFLAGS_IOPL3) == EFLAGS_IOPL3)
        return state->vector == END_VECTOR && state->eip == end;
    return state->vector == VECTOR_GP && state->error == 0 && state->eip == end - END_SIZE;
}

static struct v86 run_to_end(struct code16 code)
{
    struct v86 state = run(code);

    if (!is_over(&state, code)) {
        check(code.text, false);
        print("  ended by %s(%x) at %04x:%08x\n", trap_name(state.vector), state.error, state.cs, state.eip);
    }
    return state;
}

static void check_fault(struct code16 code, unsigned vector, uint32_t error)
{
    struct v86 state = run(code);

    check(code.text, state.vector == vector && state.error == error && state.eip == SNIPPET);
    if (state.vector != vector || state.error != error || state.eip != SNIPPET)
        print("  %s(%x) at %08x\n", trap_name(state.vector), state.error, state.eip);
}

static void check_faults(const struct code16 *row, const struct code16 *end, unsigned vector)
{
    for (; row < end; row++)
        check_fault(*row, vector, 0);
}

/* ---- in and out ---- */

CODE16(look, "mov %cs, %ax; mov (%bx), %cx; mov %es:4(%bx), %edx; push %ax; pushl %edx")
CODE16(load_segments, "mov $0xabcd, %si; mov %si, %fs; mov %si, %gs; lds (%bx), %di; les (%bx), %di")
CODE16(unaligned, "mov (%ebx), %eax")

static void check_entry(void)
{
    print("in by IRET, out by an interrupt\n");
    poke(DATA * LINEAR + 0x100, 0x11223344);
    poke(DATA * LINEAR + 0x104, 0x55667788);
    begin.ebx = 0x0100;
    struct v86 state = run_to_end(look());
    check_equal("CS is a paragraph", state.eax, CODE);
    check_equal("DS too", state.ecx, 0x3344);
    check_equal("and ES", state.edx, 0x55667788);
    check_equal("the stack is SS:SP", state.esp, TOP - 6);
    check_equal("what was pushed", peek(STACK * LINEAR + TOP - 6), 0x55667788);
    check_equal("VM is in the flags' image", state.eflags & EFLAGS_VM, EFLAGS_VM);
    check("all segment registers are saved", state.cs == CODE && state.ss == STACK && state.es == DATA &&
                                                 state.ds == DATA && state.fs == 0xf5 && state.gs == 0x1234);
    check_equal("and null in the handler", state.nulled, 0);
    poke(DATA * LINEAR + 0x200, 0x43210055);
    begin.ebx = 0x200;
    begin.es = DATA;
    state = run_to_end(load_segments());
    check("selectors are just numbers",
          state.fs == 0xabcd && state.gs == 0xabcd && state.ds == 0x4321 && state.es != DATA);
    reset();
    begin.ebx = 0xffff;
    state = run(unaligned());
    check_option("limits", "the limit is 64 KiB: #GP(0)", state.vector == VECTOR_GP && state.eip == SNIPPET);
    reset();
}

/* ---- IOPL ---- */

TABLE16_BEGIN(iopl_sensitive);
ROW16(iopl_sensitive, "cli");
ROW16(iopl_sensitive, "sti");
ROW16(iopl_sensitive, "pushf");
ROW16(iopl_sensitive, "pushfl");
ROW16(iopl_sensitive, "popf");
ROW16(iopl_sensitive, "popfl");
ROW16(iopl_sensitive, ".byte 0xcd, 3"); /* INT 3 in two bytes */
ROW16(iopl_sensitive, "int $0x21");
ROW16(iopl_sensitive, "iret");
ROW16(iopl_sensitive, "iretl");
TABLE16_END(iopl_sensitive);

CODE16(breakpoint, "int3")
CODE16(overflow, "mov $0x7f, %al; inc %al; into")
CODE16(disable, "cli; pushf; pop %ax")
CODE16(enable, "sti; pushf; pop %ax")
CODE16(set_flags, "push %ax; popf; pushf; pop %ax")
CODE16(return_from, "push %ax; push %cs; call 1f; jmp 2f; 1: iret; 2: pushf; pop %ax")
CODE16(closed_gate, "int $0x21")

static void check_iopl(void)
{
    print("IOPL 0: these are the monitor's to play\n");
    check_faults(iopl_sensitive, iopl_sensitive_end, VECTOR_GP);
    begin.eflags |= 2 << 12;
    check_fault(iopl_sensitive[0], VECTOR_GP, 0); /* IOPL 2 is not enough */
    reset();
    struct v86 state = run(breakpoint());
    check("int3 is not one of them", state.vector == VECTOR_BP && state.eip == SNIPPET + 1);
    state = run(overflow());
    check("nor is into", state.vector == VECTOR_OF && state.eip == SNIPPET + 5);

    print("IOPL 3: they are the processor's\n");
    begin.eflags |= EFLAGS_IOPL3 | EFLAGS_IF;
    state = run_to_end(disable());
    check_equal("cli", state.eax & (EFLAGS_IF | EFLAGS_IOPL3), EFLAGS_IOPL3);
    check_equal("cli, in the flags' image", state.eflags & EFLAGS_IF, 0);
    begin.eflags &= ~(uint32_t)EFLAGS_IF;
    check_equal("sti", run_to_end(enable()).eax & EFLAGS_IF, EFLAGS_IF);
    begin.eax = EFLAGS_FIXED | EFLAGS_IF | EFLAGS_CF | EFLAGS_NT;
    check_equal("popf: IF and NT, not IOPL", run_to_end(set_flags()).eax & 0x7fff,
                EFLAGS_FIXED | EFLAGS_IF | EFLAGS_CF | EFLAGS_NT | EFLAGS_IOPL3);
    begin.eax = EFLAGS_FIXED | EFLAGS_IF | EFLAGS_ZF;
    check_equal("iret: likewise", run_to_end(return_from()).eax & 0x7fff,
                EFLAGS_FIXED | EFLAGS_IF | EFLAGS_ZF | EFLAGS_IOPL3);
    check_fault(closed_gate(), VECTOR_GP, 8 * 0x21 + 2);
    reset();
}

/* ---- privilege ---- */

TABLE16_BEGIN(privileged);
ROW16(privileged, "hlt");
ROW16(privileged, "clts");
ROW16(privileged, "invd");
ROW16(privileged, "wbinvd");
ROW16(privileged, "mov %cr0, %eax");
ROW16(privileged, "mov %eax, %cr0");
ROW16(privileged, "mov %dr7, %eax");
ROW16(privileged, "lmsw %ax");
ROW16(privileged, "lgdt (%bx)");
ROW16(privileged, "lidt (%bx)");
ROW16(privileged, "invlpg (%bx)");
ROW16(privileged, "rdmsr");
ROW16(privileged, "wrmsr");
TABLE16_END(privileged);

TABLE16_BEGIN(nonexistent);
ROW16(nonexistent, "sldt %ax");
ROW16(nonexistent, "str %ax");
ROW16(nonexistent, "lldt %ax");
ROW16(nonexistent, "ltr %ax");
ROW16(nonexistent, "lar %ax, %cx");
ROW16(nonexistent, "lsl %ax, %cx");
ROW16(nonexistent, "verr %ax");
ROW16(nonexistent, "verw %ax");
ROW16(nonexistent, "arpl %ax, (%bx)");
ROW16(nonexistent, "ud2");
TABLE16_END(nonexistent);

CODE16(ask, "smsw %ax; sgdtl (%bx); sidtl 8(%bx)")
CODE16(divide, "div %cl")
CODE16(two_steps, "nop; nop")

static void check_privilege(void)
{
    print("the privilege is 3\n");
    check_faults(privileged, privileged_end, VECTOR_GP);
    print("and there are no descriptors\n");
    check_faults(nonexistent, nonexistent_end, VECTOR_UD);
    begin.ebx = 0x300;
    check_equal("smsw may ask", run_to_end(ask()).eax & CR0_PE, CR0_PE);
    check_equal("and so may sgdt", peek(DATA * LINEAR + 0x302), (uintptr_t)gdt);
    check_equal("and sidt", peek(DATA * LINEAR + 0x30a), (uintptr_t)idt);
    check_fault(divide(), VECTOR_DE, 0);
    begin.eflags |= EFLAGS_TF;
    struct v86 state = run(two_steps());
    check("a single step", state.vector == VECTOR_DB && state.eip == SNIPPET + 1);
    reset();
}

/* ---- ports ---- */

enum { PORT = 0x61, NEXT_PORT = PORT + 1 };

CODE16(port_in, "in $0x61, %al")
CODE16(port_in_word, "in $0x61, %ax")

static void deny(unsigned port, bool is_denied)
{
    io_map[port / 8] = (uint8_t)((io_map[port / 8] & ~(1u << port % 8)) | (unsigned)is_denied << port % 8);
}

static void check_ports(void)
{
    print("ports: the bitmap decides, whatever IOPL says\n");
    check_fault(port_in(), VECTOR_GP, 0); /* no bitmap */
    tss.io_map_base = sizeof tss;
    deny(PORT, false);
    deny(NEXT_PORT, true);
    run_to_end(port_in());
    check_fault(port_in_word(), VECTOR_GP, 0);
    deny(PORT, true);
    check_fault(port_in(), VECTOR_GP, 0);
    begin.eflags |= EFLAGS_IOPL3;
    check_fault(port_in(), VECTOR_GP, 0);
    deny(PORT, false);
    run_to_end(port_in());
    check("a port that is open", true);
    reset();
}

/* ---- the timer ---- */

CODE16(poll, "1: in $0x61, %al; jmp 1b")

static void check_timer(void)
{
    print("the timer comes out of it\n");
    tss.io_map_base = sizeof tss;
    begin.eflags |= EFLAGS_IF; /* the processor's IF: IOPL 0 does not matter to it */
    pic_unmask(IRQ_TIMER);
    pit_one_shot(1000);
    struct v86 state = run(poll());
    pic_mask(IRQ_TIMER);
    pic_eoi(IRQ_TIMER);
    check_equal("its vector", state.vector, IRQ_BASE + IRQ_TIMER);
    check("its place", state.cs == CODE && state.eip >= SNIPPET && state.eip <= SNIPPET + 2);
    reset();
}

/* ---- a task ---- */

CODE16(in_task, "mov $0x77, %bl; int3")

static void check_task(void)
{
    struct v86 state = {0};

    print("in by a task switch\n");
    place(in_task());
    task = (struct tss){.ss0 = SEL_KERNEL_DATA,
                        .esp0 = (uintptr_t)(task_stack + sizeof task_stack),
                        .cr3 = read_cr3(),
                        .eip = SNIPPET,
                        .eflags = EFLAGS_VM | EFLAGS_FIXED,
                        .cs = CODE,
                        .ss = STACK,
                        .esp = TOP,
                        .ds = DATA,
                        .es = DATA,
                        .fs = 0x4567,
                        .gs = DATA,
                        .io_map_base = 0xffff};
    gdt[SEL_OTHER_TSS / 8] = descriptor((uintptr_t)&task, sizeof task - 1, DESC_TSS);
    v86_run_task(&state);
    load_task_register(SEL_TSS); /* the jump left it available */
    __asm__ volatile("clts");
    check_equal("the task ran until", state.vector, VECTOR_BP);
    check_equal("at", state.eip, SNIPPET + 3);
    check_equal("with its registers", state.ebx & 0xff, 0x77);
    check("and segments", state.cs == CODE && state.fs == 0x4567 && state.ds == DATA);
    check_equal("in virtual-8086 mode", state.eflags & EFLAGS_VM, EFLAGS_VM);
}

/* ---- pages ---- */

enum { ABSENT = 0x52000, READ_ONLY = 0x53000, MOVED = 0x54000 };

CODE16(read_page, "mov (%bx), %ax")
CODE16(write_page, "mov %ax, (%bx)")

static void check_page(const char *name, struct code16 code, uint32_t linear, uint32_t error)
{
    struct v86 state;

    begin.ds = linear < 0x100000 ? linear >> 4 : 0xffff;
    begin.ebx = linear - begin.ds * LINEAR;
    state = run(code);
    check(name, state.vector == VECTOR_PF && state.error == error && read_cr2() == linear);
    if (state.vector != VECTOR_PF || state.error != error || read_cr2() != linear)
        print("  %s(%x), cr2 %08x\n", trap_name(state.vector), state.error, read_cr2());
}

static void check_pages(void)
{
    pte *space = space_new();

    print("pages: the 8086's megabyte is what the tables make it\n");
    for (uint32_t linear = CODE * LINEAR; linear < 0x70000; linear += PAGE_SIZE)
        space_map(space, linear, linear, RW | PTE_U);
    frames_mark();
    space_map(space, ABSENT, 0, 0);
    space_map(space, READ_ONLY, frame(1), RO | PTE_U);
    space_map(space, MOVED, frame(2), RW | PTE_U);
    space_map(space, 0, frame(3), RW | PTE_U); /* its vector table */
    paging_on(space);

    begin.ds = MOVED / LINEAR;
    check_equal("a page from elsewhere", run_to_end(read_page()).eax & 0xffff, mark(2) & 0xffff);
    check_page("an absent page", read_page(), ABSENT, PF_USER);
    check_page("a page to read only", write_page(), READ_ONLY, PF_USER | PF_PRESENT | PF_WRITE);
    check_page("the kernel, at FFFF:0010", read_page(), 0x100000, PF_USER | PF_PRESENT);
    reset();
}

/* ---- the monitor ---- */

/* An 8086 program: its interrupt flag is seen to change, and INT 21 goes to its own handler. */
CODE16(program, "sti; pushf; pop %si; cli; pushf; pop %di; sti; mov $5, %ax; int $0x21; pushf; pop %bp; hlt")
CODE16(handler, "pushf; pop %dx; add %ax, %ax; iret")

struct monitor {
    struct v86 cpu;
    bool virtual_if;
    unsigned n_interrupts, n_traps;
};

static uint16_t *word_at(uint32_t segment, uint32_t offset)
{
    return memory_at(segment * LINEAR + (offset & 0xffff));
}

static void push(struct v86 *cpu, uint32_t value)
{
    cpu->esp = (cpu->esp - 2) & 0xffff;
    *word_at(cpu->ss, cpu->esp) = (uint16_t)value;
}

static uint32_t pop(struct v86 *cpu)
{
    uint32_t value = *word_at(cpu->ss, cpu->esp);

    cpu->esp = (cpu->esp + 2) & 0xffff;
    return value;
}

/* The flags that the program sees and sets. */
static uint32_t virtual_flags(const struct monitor *monitor)
{
    return (monitor->cpu.eflags & ~(uint32_t)(EFLAGS_IF | EFLAGS_IOPL3)) |
           (monitor->virtual_if ? EFLAGS_IF : 0);
}

static void set_virtual_flags(struct monitor *monitor, uint32_t flags)
{
    monitor->virtual_if = (flags & EFLAGS_IF) != 0;
    monitor->cpu.eflags = EFLAGS_VM | EFLAGS_FIXED | (flags & 0xffff & ~(uint32_t)(EFLAGS_IF | EFLAGS_IOPL3));
}

/* As an 8086 does it: FLAGS, CS and IP on the stack, and on to the vector. */
static void reflect_interrupt(struct monitor *monitor, unsigned vector)
{
    struct v86 *cpu = &monitor->cpu;

    push(cpu, virtual_flags(monitor));
    push(cpu, cpu->cs);
    push(cpu, cpu->eip);
    monitor->virtual_if = false;
    cpu->eip = *word_at(0, 4 * vector);
    cpu->cs = *word_at(0, 4 * vector + 2);
    monitor->n_interrupts++;
}

/* false: the program halted, or did what this monitor does not know. */
static bool emulate(struct monitor *monitor)
{
    struct v86 *cpu = &monitor->cpu;
    const uint8_t *code = memory_at(cpu->cs * LINEAR + cpu->eip);

    cpu->eip++;
    switch (code[0]) {
    case 0x9c: /* pushf */
        push(cpu, virtual_flags(monitor));
        return true;
    case 0x9d: /* popf */
        set_virtual_flags(monitor, pop(cpu));
        return true;
    case 0xcd: /* int n */
        cpu->eip++;
        reflect_interrupt(monitor, code[1]);
        return true;
    case 0xcf: /* iret */
        cpu->eip = pop(cpu);
        cpu->cs = pop(cpu);
        set_virtual_flags(monitor, pop(cpu));
        return true;
    case 0xfa: /* cli */
    case 0xfb: /* sti */
        monitor->virtual_if = code[0] == 0xfb;
        return true;
    default:
        cpu->eip--;
        return false;
    }
}

static void check_monitor(void)
{
    struct monitor monitor = {.cpu = begin};
    struct code16 code = handler();

    print("a monitor: what traps is emulated\n");
    memcpy(memory_at(HANDLER * LINEAR), code.begin, (size_t)(code.end - code.begin));
    poke(4 * 0x21, (uint32_t)HANDLER << 16);
    place(program());
    do {
        v86_run(&monitor.cpu);
        monitor.n_traps++;
    } while (monitor.cpu.vector == VECTOR_GP && emulate(&monitor));

    const struct v86 *cpu = &monitor.cpu;
    check_equal("the program came to its HLT", *(const uint8_t *)memory_at(cpu->cs * LINEAR + cpu->eip),
                0xf4);
    check_equal("its handler ran", cpu->eax & 0xffff, 10);
    check_equal("once", monitor.n_interrupts, 1);
    check_equal("after sti it saw IF", cpu->esi & EFLAGS_IF, EFLAGS_IF);
    check_equal("after cli it did not", cpu->edi & EFLAGS_IF, 0);
    check_equal("in the handler neither", cpu->edx & EFLAGS_IF, 0);
    check_equal("after its iret again", cpu->ebp & EFLAGS_IF, EFLAGS_IF);
    check_equal("its stack is as it was", cpu->esp & 0xffff, TOP);
    check_equal("and it trapped so often", monitor.n_traps, 10);
}

void guest_main(void)
{
    prepare();
    check_entry();
    check_iopl();
    check_privilege();
    check_ports();
    check_timer();
    check_task();
    check_pages();
    check_monitor();
}
