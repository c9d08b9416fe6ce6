/*
 * realmode: the processor as it wakes up, a fast 8086 with 32-bit registers.
 *
 * The lesson: in real mode a segment is its selector times 16, nothing is protected and nothing is
 * privileged, and an interrupt is a far call through a table at the address in IDTR. But the segments' hidden
 * parts are there all the same: the limit is still checked (64 KiB, or what protected mode left behind:
 * "unreal mode"), and the switch of modes changes CR0.PE and nothing else.
 *
 * For each check the guest goes to real mode and comes back. No 64-bit processor runs real mode natively, so
 * the trap engine stops at the first switch; the other engines run it.
 *
 * Read next: realmode.S, the way there and back; v8086.c, where the same code is under protection.
 */
#include "code16.h"
#include "guest.h"

/* Segments of 64 KiB, at these paragraphs, and the vector table. */
enum { CODE = 0x4000, DATA = 0x5000, EXTRA = 0x6000, STACK = 0x7000, OTHER = 0x4200, VECTORS = 0x48000 };
enum { SNIPPET = 0x1000 }; /* where the piece of code lies in CODE */
enum { TOP = 0x8000 };     /* SP at first */
enum { SEL_CODE16 = 0x48, SEL_DATA16 = 0x50 };
enum { N_VECTORS = 256, STUB_SIZE = 8 };
enum { LINEAR = 16 }; /* a paragraph */

/* What a piece of code begins with, and what the interrupt that ended it found. */
struct real {
    uint32_t eax, ecx, edx, ebx, esp, ebp, esi, edi, eflags;
    uint16_t es, ss, ds, fs, gs;
    uint16_t vector, ip, cs, flags;
    struct table_register idtr;
} __attribute__((packed));

extern const uint8_t real_begin[], real_stubs[], real_state[], real_end[];
void real_run(uint32_t inherited_selector);

static struct real begin; /* the state that code begins with */
static uint32_t inherited = SEL_DATA16;

static void reset(void)
{
    begin = (struct real){.esp = TOP,
                          .eflags = EFLAGS_FIXED,
                          .es = EXTRA,
                          .ss = STACK,
                          .ds = DATA,
                          .fs = DATA,
                          .gs = DATA,
                          .idtr = {4 * N_VECTORS - 1, VECTORS}};
    inherited = SEL_DATA16;
}

static void set_vector(unsigned vector, uint16_t segment, uint16_t offset)
{
    poke(VECTORS + 4 * vector, (uint32_t)segment << 16 | offset);
}

static void prepare(void)
{
    pic_init(); /* a BIOS may have left the timer ticking */
    memcpy(memory_at(CODE * LINEAR), real_begin, (size_t)(real_end - real_begin));
    for (unsigned vector = 0; vector < N_VECTORS; vector++)
        set_vector(vector, CODE, (uint16_t)(real_stubs - real_begin + vector * STUB_SIZE));
    gdt[SEL_CODE16 / 8] = descriptor(CODE * LINEAR, 0xffff, DESC_CODE) & ~(UINT64_C(1) << 54);
    gdt[SEL_DATA16 / 8] = descriptor(0, 0xffff, DESC_DATA) & ~(UINT64_C(1) << 54);
    reset();
}

/* Runs the bytes at CODE:SNIPPET. */
static struct real run_there(void)
{
    const struct table_register idtr = {sizeof idt - 1, (uintptr_t)idt};
    struct real *state = memory_at(CODE * LINEAR + (uint32_t)(real_state - real_begin));

    *state = begin;
    real_run(inherited);
    load_idt(&idtr);
    return *state;
}

static struct real run(struct code16 code)
{
    memcpy(memory_at(CODE * LINEAR + SNIPPET), code.begin, (size_t)(code.end - code.begin));
    return run_there();
}

/* It came to its end, and not by another interrupt. */
static bool is_over(const struct real *state, struct code16 code)
{
    return state->vector == END_VECTOR && state->cs == CODE && state->ip == SNIPPET + (code.end - code.begin);
}

/* Runs it with the registers in `begin`, and says what it was if it did not come to its end. */
static struct real run_to_end(struct code16 code)
{
    struct real state = run(code);

    if (!is_over(&state, code)) {
        check(code.text, false);
        print("  ended by vector %u at %04x:%04x\n", state.vector, state.cs, state.ip);
    }
    return state;
}

/* Faulted there: the saved IP is the instruction's. */
static void check_fault(const char *name, struct code16 code, unsigned vector)
{
    struct real state = run(code);

    check_equal(name, state.vector, vector);
    check_equal("  its IP", state.ip, SNIPPET);
}

/* What only machines that check limits do. */
static void check_limit(const char *name, struct code16 code, unsigned vector)
{
    struct real state = run(code);

    check_option("limits", name, state.vector == vector && state.ip == SNIPPET);
}

/* ---- addresses ---- */

CODE16(load, "mov (%bx), %ax")
CODE16(load_es, "mov %es:(%bx), %ax")
CODE16(load_bp, "mov (%bp), %ax")
CODE16(load_dword, "mov (%bx), %eax")
CODE16(load_far_up, "mov 4(%bx), %ax")
CODE16(load_sum, "mov (%bx,%si), %ax")
CODE16(load_ebx, "mov (%ebx), %eax")
CODE16(load_scaled, "mov 2(%ebx,%esi,4), %eax")
CODE16(address, "lea 0x10(%bp,%di), %eax")
CODE16(load_segments, "mov $0x1234, %ax; mov %ax, %es; mov %ax, %fs; push %ss; pop %gs; lds (%bx), %si")

static void check_addresses(void)
{
    print("addresses: segment * 16 + offset\n");
    poke(DATA * LINEAR + 0x100, 0x11223344);
    poke(EXTRA * LINEAR + 0x100, 0x55667788);
    poke(STACK * LINEAR + 0x100, 0x99aabbcc);
    begin.ebx = begin.ebp = 0xabcd0100; /* the upper halves do not count */
    check_equal("DS by default", run_to_end(load()).eax, 0x3344);
    check_equal("a prefix for ES", run_to_end(load_es()).eax, 0x7788);
    check_equal("SS for BP", run_to_end(load_bp()).eax, 0xbbcc);
    check_equal("32 bits at once", run_to_end(load_dword()).eax, 0x11223344);
    begin.ds = DATA + 0x10;
    begin.ebx = 0;
    check_equal("another name for the same byte", run_to_end(load()).eax, 0x3344);
    begin.ds = 0xffff;
    begin.ebx = 0x10;
    check_equal("FFFF:0010 is the megabyte, with A20 open", run_to_end(load()).eax, peek(0x100000) & 0xffff);

    print("they wrap at 64 KiB\n");
    reset();
    poke(DATA * LINEAR, 0x00c0ffee);
    begin.ebx = 0xfffc;
    check_equal("FFFC + 4 is 0", run_to_end(load_far_up()).eax, 0xffee);
    begin.esi = 5;
    check_equal("BX + SI wraps too", run_to_end(load_sum()).eax, 0xc0ff);
    begin.ebp = 0xfff0, begin.edi = 0x22;
    check_equal("and LEA says so", run_to_end(address()).eax, 0x22);
    begin.ebx = 0x100, begin.esi = 1;
    poke(DATA * LINEAR + 0x106, 0xfeedf00d);
    check_equal("with a prefix, 32-bit addresses as ever", run_to_end(load_scaled()).eax, 0xfeedf00d);

    print("they end at the limit\n");
    begin.ebx = 0x10000;
    check_limit("beyond 64 KiB: #GP", load_ebx(), VECTOR_GP);
    begin.ebx = 0xffff;
    check_limit("a word at FFFF: #GP", load(), VECTOR_GP);
    begin.ebx = 0xfffd;
    check_limit("four bytes at FFFD: #GP", load_dword(), VECTOR_GP);
    begin.ebp = 0xffff;
    check_limit("a word at SS:FFFF: #SS", load_bp(), VECTOR_SS);

    print("selectors are just numbers\n");
    reset();
    begin.ebx = 0x200;
    poke(DATA * LINEAR + 0x200, 0xfff35678);
    struct real state = run_to_end(load_segments());
    check_equal("ES", state.es, 0x1234);
    check_equal("FS", state.fs, 0x1234);
    check_equal("GS", state.gs, STACK);
    check_equal("DS, by LDS", state.ds, 0xfff3);
    check_equal("SI, by LDS", state.esi, 0x5678);
    reset();
}

/* ---- the A20 gate ---- */

/* Port 92 and the keyboard controller each hold it open. */
CODE16(a20, "in $0x92, %al; and $0xfc, %al; out %al, $0x92; mov $0xdd, %al; out %al, $0x64; mov (%bx), %ecx;"
            "incw (%bx); mov %es:(%si), %ebp;"
            "mov $0xdf, %al; out %al, $0x64; in $0x92, %al; or $2, %al; and $0xfe, %al; out %al, $0x92;"
            "mov (%bx), %edx")

static void check_a20(void)
{
    if (!has_option("a20"))
        return;
    print("the A20 gate, closed and opened again\n");
    const uint32_t low = peek(0x600), high = peek(0x100600);
    poke(0x600, 0x11112222);
    begin.ds = 0xffff, begin.ebx = 0x610;
    begin.es = 0, begin.esi = 0x600;
    struct real state = run_to_end(a20());
    check_equal("closed: the second megabyte is the first", state.ecx, 0x11112222);
    check_equal("to write as well", state.ebp, 0x11112223);
    check_equal("open: it is itself", state.edx, high);
    check_equal("nothing was lost", peek(0x100600), high);
    poke(0x600, low);
    reset();
}

/* ---- protected mode's inheritance ---- */

CODE16(reload, "mov %ds, %ax; mov %ax, %ds; mov (%ebx), %eax")

static void check_unreal_mode(void)
{
    print("unreal mode: the limit outlives protected mode\n");
    inherited = SEL_KERNEL_DATA;
    begin.ds = 0;
    begin.ebx = (uintptr_t)&gdt[SEL_KERNEL_CODE / 8];
    check_equal("DS of 4 GiB", run_to_end(load_ebx()).eax, peek((uintptr_t)&gdt[SEL_KERNEL_CODE / 8]));
    check_equal("loading it sets the base alone", run_to_end(reload()).eax,
                peek((uintptr_t)&gdt[SEL_KERNEL_CODE / 8]));
    begin.ds = DATA;
    begin.ebx -= DATA * LINEAR;
    check_equal("a base and an offset above 1 MiB", run_to_end(load_ebx()).eax,
                peek((uintptr_t)&gdt[SEL_KERNEL_CODE / 8]));
    reset();
}

CODE16(protected_and_back, "mov %cr0, %eax; or $1, %al; mov %eax, %cr0; mov %cs, %cx; mov %ds:0x100, %dx;"
                           "lar %bx, %esi; mov %cr0, %eax; and $0xfe, %al; mov %eax, %cr0")
CODE16(lmsw_sets,
       "smsw %ax; mov %ax, %cx; or $1, %ax; lmsw %ax; smsw %dx; and $0xfe, %ax; lmsw %ax; smsw %bx;"
       "mov %cr0, %eax; and $0xfe, %al; mov %eax, %cr0; smsw %si")

static void check_switch(void)
{
    print("the switch itself\n");
    poke(DATA * LINEAR + 0x100, 0x1234abcd);
    begin.ebx = SEL_KERNEL_DATA;
    struct real state = run_to_end(protected_and_back());
    check_equal("in protected mode CS is what it was", state.ecx, CODE);
    check_equal("and so is DS, with its base", state.edx, 0xabcd);
    check_equal("LAR exists there", state.esi & 0xff00, DESC_DATA << 8 | 1 << 8);

    state = run_to_end(lmsw_sets());
    check_equal("SMSW: PE is clear", state.ecx & CR0_PE, 0);
    check_equal("LMSW sets PE", state.edx & CR0_PE, CR0_PE);
    check_equal("and cannot clear it", state.ebx & CR0_PE, CR0_PE);
    check_equal("MOV to CR0 can", state.esi & CR0_PE, 0);
    reset();
}

/* ---- the stack ---- */

CODE16(push_word, "push %ax")
CODE16(push_dword, "pushl %eax")
CODE16(push_sp, "push %sp; pop %ax")
CODE16(pop_sp, "push %ax; pop %sp")
CODE16(push_everything, "pusha; pop %ax; add $14, %sp")
CODE16(pop_everything, "pushal; xor %eax, %eax; xor %ebx, %ebx; xor %edi, %edi; popal")
CODE16(push_immediates, "push $-2; push $0x1234; pop %ax; pop %cx; pushl $-3; popl %edx")
CODE16(enter_leave, "enter $8, $0; mov %sp, %ax; mov %bp, %cx; leave")
CODE16(enter_nested, "enter $2, $2; mov (%bp), %ax; mov -2(%bp), %cx; mov -4(%bp), %dx; mov %sp, %si; leave")
CODE16(nothing, "nop")

static void check_stack(void)
{
    print("the stack: SS:SP\n");
    begin.eax = 0x12345678;
    begin.esp = 0xabcd0000 | TOP; /* the upper half is not used, and stays */
    check_equal("push ax: ESP", run_to_end(push_word()).esp, 0xabcd0000 | (TOP - 2));
    check_equal("push ax: the word", peek(STACK * LINEAR + TOP - 2) & 0xffff, 0x5678);
    check_equal("push eax: ESP", run_to_end(push_dword()).esp, 0xabcd0000 | (TOP - 4));
    check_equal("push eax: the dword", peek(STACK * LINEAR + TOP - 4), 0x12345678);
    begin.esp = 0;
    check_equal("at 0 it wraps", run_to_end(push_word()).esp, 0xfffe);
    check_equal("to the top of the segment", peek(STACK * LINEAR + 0xfffc) >> 16, 0x5678);
    begin.esp = 4;
    check_equal("and so does the frame of an interrupt", run_to_end(nothing()).esp, 4);
    begin.esp = TOP;
    check_equal("push sp pushes what it was before", run_to_end(push_sp()).eax & 0xffff, TOP);
    begin.eax = 0x4000;
    check_equal("pop sp", run_to_end(pop_sp()).esp, 0x4000);
    begin.edi = 0xabcd1111;
    check_equal("pusha: DI is last", run_to_end(push_everything()).eax & 0xffff, 0x1111);
    begin.eax = 0x10203040, begin.ebx = 0x50607080;
    struct real state = run_to_end(pop_everything());
    check("popad: all but ESP",
          state.eax == 0x10203040 && state.ebx == 0x50607080 && state.edi == 0xabcd1111);
    state = run_to_end(push_immediates());
    check_equal("push imm8 is extended to a word", state.ecx & 0xffff, 0xfffe);
    check_equal("push imm16", state.eax & 0xffff, 0x1234);
    check_equal("push imm8, 32 bits", state.edx, 0xfffffffd);

    begin.ebp = 0x77770100;
    state = run_to_end(enter_leave());
    check_equal("enter: SP", state.eax & 0xffff, TOP - 10);
    check_equal("enter: BP", state.ecx & 0xffff, TOP - 2);
    check_equal("leave: BP", state.ebp, 0x77770100);
    check_equal("leave: SP", state.esp, TOP);
    poke(STACK * LINEAR + 0xfe, 0x00005a5a);
    state = run_to_end(enter_nested());
    check_equal("enter, nested: the caller's BP", state.eax & 0xffff, 0x0100);
    check_equal("enter, nested: the display", state.ecx & 0xffff, 0x5a5a);
    check_equal("enter, nested: its own frame", state.edx & 0xffff, TOP - 2);
    check_equal("enter, nested: SP", state.esi & 0xffff, TOP - 8);
    reset();
}

/* ---- going elsewhere ---- */

CODE16(far_call, "mov $0x4001, %ax; push %cs; push $0x2000; call 1f; 1: lcall $0x4200, $0x300")
CODE16(far_call_memory, "lcall *(%bx)")
CODE16(far_call_wide, "ljmpl *(%bx)")
CODE16(near_wide, "calll 1f; 1: popl %eax")
CODE16(near_indirect, "mov $0x1007, %ax; jmp *%ax; int3; int3; mov $0x55, %cl")
CODE16(loop_cx, "xor %eax, %eax; 1: inc %eax; loop 1b")
CODE16(loop_ecx, "xor %eax, %eax; 1: inc %eax; .byte 0x67; loop 1b")
CODE16(jump_if_cx, "xor %eax, %eax; jcxz 1f; inc %ax; 1: jecxz 2f; or $2, %al; 2: nop")

static void check_transfers(void)
{
    print("near and far\n");
    /* at OTHER:300: a far return that takes two more words off the stack */
    poke(OTHER * LINEAR + 0x300, 0x0004ca90); /* nop; lret $4 */
    struct real state = run_to_end(far_call());
    check_equal("a far call and lret 4: SP", state.esp, TOP - 2);
    poke(OTHER * LINEAR + 0x300, 0x000060cd); /* int 0x60 */
    poke(DATA * LINEAR + 0x40, (uint32_t)OTHER << 16 | 0x300);
    begin.ebx = 0x40;
    check_equal("a far call through memory: IP", run(far_call_memory()).ip, 0x302);
    check_equal("it pushed CS", peek(STACK * LINEAR + TOP - 4) >> 16, CODE);
    check_equal("over IP", peek(STACK * LINEAR + TOP - 4) & 0xffff, SNIPPET + 2);
    poke(DATA * LINEAR + 0x40, 0x300);
    poke(DATA * LINEAR + 0x44, OTHER);
    state = run(far_call_wide());
    check_equal("a far jump with a 32-bit offset: CS", state.cs, OTHER);
    check_equal("and IP", state.ip, 0x302);
    check_equal("a near call with a 32-bit operand", run_to_end(near_wide()).eax, SNIPPET + 6);
    check_equal("a near jump to a register", run_to_end(near_indirect()).ecx, 0x55);

    print("loops count in CX, or with a prefix in ECX\n");
    begin.ecx = 0x10003;
    state = run_to_end(loop_cx());
    check_equal("loop: turns", state.eax, 3);
    check_equal("loop: ECX", state.ecx, 0x10000);
    begin.ecx = 5;
    check_equal("addr32 loop: turns", run_to_end(loop_ecx()).eax, 5);
    begin.ecx = 0x10000;
    check_equal("jcxz jumps, jecxz does not", run_to_end(jump_if_cx()).eax, 2);

    print("IP wraps in a jump\n");
    reset();
    poke(CODE * LINEAR + 0xfff8, 0x00000000);
    poke(CODE * LINEAR + 0xfffc, 0x100ae990); /* nop; jmp +100a: from ffff+... to SNIPPET + 9 */
    memcpy(memory_at(CODE * LINEAR + SNIPPET), "\xe9\xfa\xef\x90\x90\x90\x90\x90\x90\x90\xcd\x60", 12);
    state = run_there(); /* jmp fffd */
    check_equal("from FFFD to 100A", state.ip, SNIPPET + 12);
    if (has_option("limits")) { /* elsewhere it runs on into the next segment */
        poke(CODE * LINEAR + 0xfffc, 0x90909090);
        memcpy(memory_at(CODE * LINEAR + SNIPPET), "\xe9\xfc\xef", 3);
        state = run_there(); /* jmp ffff */
        check_equal("but not from one instruction to the next: #GP", state.vector, VECTOR_GP);
    }
}

/* ---- strings ---- */

CODE16(move_bytes, "rep movsb")
CODE16(move_wide, "rep movsl")
CODE16(store_words, "rep stosw")
CODE16(store_flat, ".byte 0x67; rep stosw")
CODE16(load_override, "lodsw %es:(%si)")
CODE16(compare, "repe cmpsb")
CODE16(scan, "repne scasb")
CODE16(move_down, "std; rep movsw; cld")
CODE16(translate, "xlat")

static void check_strings(void)
{
    print("strings: DS:SI to ES:DI\n");
    poke(DATA * LINEAR + 0xfffc, 0x44332211);
    poke(DATA * LINEAR, 0x88776655);
    begin.esi = 0xaaaafffe, begin.edi = 0xbbbb0010, begin.ecx = 0xcccc0004;
    struct real state = run_to_end(move_bytes());
    check_equal("movsb: what it moved, SI wrapped", peek(EXTRA * LINEAR + 0x10), 0x66554433);
    check_equal("movsb: ESI", state.esi, 0xaaaa0002);
    check_equal("movsb: EDI", state.edi, 0xbbbb0014);
    check_equal("movsb: ECX", state.ecx, 0xcccc0000);
    begin.esi = 0, begin.edi = 0x20, begin.ecx = 1;
    run_to_end(move_wide());
    check_equal("movsd", peek(EXTRA * LINEAR + 0x20), 0x88776655);
    begin.eax = 0x1234, begin.edi = 0x30, begin.ecx = 2;
    check_equal("stosw: EDI", run_to_end(store_words()).edi, 0x34);
    check_equal("stosw", peek(EXTRA * LINEAR + 0x30), 0x12341234);
    begin.edi = 0x40;
    check_equal("stosw by ECX and EDI: ECX", run_to_end(store_flat()).ecx, 0);
    check_equal("stosw by ECX and EDI", peek(EXTRA * LINEAR + 0x40), 0x12341234);
    begin.esi = 0x20;
    check_equal("lodsw from ES", run_to_end(load_override()).eax, 0x6655);
    poke(DATA * LINEAR + 0x50, 0x00636261);
    poke(EXTRA * LINEAR + 0x50, 0x00786261);
    begin.esi = begin.edi = 0x50, begin.ecx = 10;
    state = run_to_end(compare());
    check_equal("cmpsb: where they differ", state.esi, 0x53);
    check_equal("cmpsb: CF", state.flags & EFLAGS_CF, EFLAGS_CF);
    begin.eax = 'x';
    check_equal("scasb: where it is", run_to_end(scan()).edi, 0x53);
    begin.esi = 2, begin.edi = 0x62, begin.ecx = 2;
    state = run_to_end(move_down());
    check_equal("downwards", peek(EXTRA * LINEAR + 0x60), 0x88776655);
    check_equal("downwards: SI", state.esi, 0xfffe);
    begin.ebx = 0xffff, begin.eax = 2;
    check_equal("xlat wraps", run_to_end(translate()).eax, 0x66);
    reset();
}

/* ---- flags ---- */

CODE16(set_flags, "push %ax; popf; pushf; pop %cx; push $2; popf")
CODE16(set_eflags, "pushl %eax; popfl; pushfl; popl %ecx; push $2; popf")
CODE16(interrupts, "sti; pushf; cli; pushf; pop %ax; pop %cx")
CODE16(return_from, "push %ax; push %cs; call 1f; jmp 2f; 1: iret; 2: pushf; pop %cx; push $2; popf")

static void check_flags(void)
{
    print("flags are anybody's\n");
    struct real state = run_to_end(interrupts());
    check_equal("sti", state.ecx & EFLAGS_IF, EFLAGS_IF);
    check_equal("cli", state.eax & EFLAGS_IF, 0);
    begin.eax = EFLAGS_IF | EFLAGS_IOPL3 | EFLAGS_NT | EFLAGS_DF | EFLAGS_ARITHMETIC | EFLAGS_FIXED;
    check_equal("popf sets IF, IOPL and NT", run_to_end(set_flags()).ecx & 0xffff, begin.eax);
    check_equal("and so does iret", run_to_end(return_from()).ecx & 0xffff, begin.eax);
    begin.eax = EFLAGS_AC | EFLAGS_FIXED | EFLAGS_CF;
    check_equal("popfd sets AC", run_to_end(set_eflags()).ecx & (EFLAGS_AC | 0xffff), begin.eax);
    begin.eax = EFLAGS_FIXED | 1 << 17;
    check_equal("and not VM", run_to_end(set_eflags()).ecx & 1 << 17, 0);
    reset();
}

/* ---- interrupts ---- */

CODE16(software, "int $0x61")
CODE16(breakpoint, "int3")
CODE16(overflow, "mov $0x7f, %al; inc %al; into")
CODE16(no_overflow, "xor %ax, %ax; into")
CODE16(divide, "xor %cx, %cx; div %cx")
CODE16(divide_aam, "aam $0")
CODE16(out_of_bounds, "bound %ax, (%bx)")
CODE16(undefined, "ud2")
CODE16(step, "pushf; pop %ax; or $1, %ah; push %ax; popf; nop; nop")
CODE16(handled, "mov $7, %ax; int $0x70; mov %ax, %cx")
CODE16(wait, "sti; hlt; nop")
CODE16(short_table, "int $0x62")

static void check_interrupt(const char *name, struct code16 code, unsigned vector, unsigned ip)
{
    struct real state = run(code);

    check_equal(name, state.vector, vector);
    check_equal("  its IP", state.ip, SNIPPET + ip);
    check_equal("  its SP, after the frame", state.esp, TOP);
}

static void check_interrupts(void)
{
    print("interrupts: a far call through the table, with FLAGS\n");
    begin.eflags = EFLAGS_FIXED | EFLAGS_CF | EFLAGS_IF;
    struct real state = run(software());
    check_equal("int 61: vector", state.vector, 0x61);
    check_equal("int 61: CS", state.cs, CODE);
    check_equal("int 61: IP is behind it", state.ip, SNIPPET + 2);
    check_equal("int 61: FLAGS, from before", state.flags & 0xfff, EFLAGS_FIXED | EFLAGS_CF | EFLAGS_IF);
    reset();
    check_interrupt("int3", breakpoint(), VECTOR_BP, 1);
    check_interrupt("into with OF", overflow(), VECTOR_OF, 5);
    run_to_end(no_overflow());
    check_interrupt("a division by 0: at it, and no error code", divide(), VECTOR_DE, 2);
    check_interrupt("aam 0", divide_aam(), VECTOR_DE, 0);
    begin.eax = 5;
    poke(DATA * LINEAR, 0x00040001);
    check_interrupt("bound", out_of_bounds(), VECTOR_BR, 0);
    check_interrupt("ud2", undefined(), VECTOR_UD, 0);
    check_interrupt("a single step", step(), VECTOR_DB, 8);

    poke(OTHER * LINEAR, 0xcf06c083); /* add $6, %ax; iret */
    set_vector(0x70, OTHER, 0);
    state = run_to_end(handled());
    check_equal("a handler, and iret", state.ecx & 0xffff, 13);
    check_equal("SP is what it was", state.esp, TOP);

    begin.idtr.limit = 4 * 0x61 - 1 + 4;
    check_interrupt("beyond the limit of IDTR: #GP", short_table(), VECTOR_GP, 0);
    reset();
    memcpy(memory_at(VECTORS + 0x1000), memory_at(VECTORS), 4 * N_VECTORS);
    set_vector(0x61, OTHER, 2); /* if the old table were used */
    begin.idtr.base = VECTORS + 0x1000;
    check_interrupt("LIDT moves the table", software(), 0x61, 2);
    reset();
}

static void check_timer(void)
{
    print("the timer\n");
    pic_unmask(IRQ_TIMER);
    pit_one_shot(1000);
    struct real state = run(wait());
    pic_mask(IRQ_TIMER);
    pic_eoi(IRQ_TIMER);
    check_equal("comes in real mode as well", state.vector, IRQ_BASE + IRQ_TIMER);
    check_equal("behind the hlt", state.ip, SNIPPET + 2);
    check_equal("with IF set before", state.flags & EFLAGS_IF, EFLAGS_IF);
    reset();
}

/* ---- instructions ---- */

TABLE16_BEGIN(allowed);
ROW16(allowed, "cli");
ROW16(allowed, "invd");
ROW16(allowed, "wbinvd");
ROW16(allowed, "clts");
ROW16(allowed, "mov %cr3, %eax");
ROW16(allowed, "mov %dr7, %eax");
ROW16(allowed, "xor %ecx, %ecx; mov $0x10, %cl; rdmsr");
ROW16(allowed, "invlpg (%bx)");
ROW16(allowed, "sgdt (%bx)");
ROW16(allowed, "sidt (%bx)");
ROW16(allowed, "in $0x61, %al");
ROW16(allowed, "mov $0x80, %dx; out %al, %dx");
TABLE16_END(allowed);

/* Descriptors do not exist, and what is only about them does not either. */
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
ROW16(nonexistent, ".byte 0x8e, 0xc8"); /* mov %ax, %cs */
TABLE16_END(nonexistent);

CODE16(load_table, "sgdtl 0x110; lgdtw (%bx); sgdtl 0x100; lgdtl 0x110")
CODE16(load_table_wide, "sgdtl 0x110; lgdtl (%bx); sgdtl 0x100; lgdtl 0x110")

static void check_instructions(void)
{
    print("nothing is privileged\n");
    for (const struct code16 *row = allowed; row < allowed_end; row++) {
        struct real state = run(*row);
        check(row->text, is_over(&state, *row));
    }
    print("nothing has descriptors\n");
    for (const struct code16 *row = nonexistent; row < nonexistent_end; row++)
        check_fault(row->text, *row, VECTOR_UD);

    print("LGDT with a 16-bit operand loads 24 bits of base\n");
    begin.ebx = 0x120;
    poke(DATA * LINEAR + 0x120, 0x5678007f);
    poke(DATA * LINEAR + 0x124, 0x00009abc);
    run_to_end(load_table());
    check_equal("lgdtw: base", peek(DATA * LINEAR + 0x102), 0x00bc5678);
    check_equal("lgdtw: limit", peek(DATA * LINEAR + 0x100) & 0xffff, 0x7f);
    run_to_end(load_table_wide());
    check_equal("lgdtl: base", peek(DATA * LINEAR + 0x102), 0x9abc5678);
    reset();
}

void guest_main(void)
{
    prepare();
    check_addresses();
    check_a20();
    check_unreal_mode();
    check_switch();
    check_stack();
    check_transfers();
    check_strings();
    check_flags();
    check_interrupts();
    check_timer();
    check_instructions();
}
