/*
 * switches: there and back, thousands of times.
 *
 * The lesson: a kernel is entered and left all the time, mostly by the same few ways, so an engine learns
 * what each of them leads to. It must learn again when something changes that decides it: an MSR, a
 * descriptor, a gate, the stack in the TSS, the address space, a flag, what FS holds. Here each of these
 * changes between two calls that have become a habit; and a timer interrupts all of it at any place.
 *
 * With the word `sysenter` (guests/README.md) the calls are SYSENTER and SYSEXIT as well as INT and IRET.
 *
 * Read next: moments.c.
 */
#include "guest.h"

enum { HABIT = 300, ROUNDS = 40, FEW_ROUNDS = 4 };
enum { MSR_SYSENTER_CS = 0x174, MSR_SYSENTER_ESP = 0x175, MSR_SYSENTER_EIP = 0x176 };

/* In a row, as SYSENTER and SYSEXIT have them. */
enum {
    CODE_0 = 0x48,
    DATA_0 = 0x50,
    CODE_3 = 0x58 | 3,
    DATA_3 = 0x60 | 3,
    USER_FS = 0x68 | 3,
    KERNEL_FS = 0x70
};

static unsigned how_often;
static uint64_t first_gdt[GDT_ENTRIES];

/* ---- the calls ----------------------------------------------------------------------------------------- */

/* Ring 3 counts EBX down to 0, unless its selectors are not EDI (CS, SS) or %fs:0 is not ESI. */
#define COUNT_DOWN                                                                                           \
    "2:     mov     %cs, %eax\n"                                                                             \
    "       shl     $16, %eax\n"                                                                             \
    "       mov     %ss, %ax\n"                                                                              \
    "       cmp     %eax, %edi\n"                                                                            \
    "       jne     3f\n"                                                                                    \
    "       cmp     %fs:0, %esi\n"                                                                           \
    "       jne     3f\n"                                                                                    \
    "       dec     %ebx\n"                                                                                  \
    "       jnz     1b\n"                                                                                    \
    "3:\n"
USER_CODE(call_by_sysenter, "1: mov %esp, %ecx\n mov $2f, %edx\n sysenter\n" COUNT_DOWN)
USER_CODE(call_by_int, "1: int $0x41\n" COUNT_DOWN)
/* For engines under which reading a selector does not trap. */
USER_CODE(call_by_int_only, "1: int $0x41\n cmp %fs:0, %esi\n jne 3f\n dec %ebx\n jnz 1b\n 3:")

/* Behind the habit: a misaligned access, or one to the kernel's memory, through FS. */
#define CALL_ONLY "1: mov %esp, %ecx\n mov $2f, %edx\n sysenter\n 2: dec %ebx\n jnz 1b\n"
USER_CODE(misalign, CALL_ONLY "mov -7(%esp), %eax")
USER_CODE(reach_kernel, CALL_ONLY "mov %fs:(%esi), %eax")

/* What the kernel sees, in its own FS too: summed up, since all calls of a habit see the same. */
static volatile uint32_t n_calls, cs_ss, eflags_seen, stack_seen, fs_seen;
static volatile uint32_t in_fs = 0x5eed;
USER_DATA static volatile uint32_t in_user_fs[2] = {0xcafe, 0xbeef};

#define LOOK_ROUND                                                                                           \
    "       incl    n_calls\n"                                                                               \
    "       mov     %esp, stack_seen\n"                                                                      \
    "       push    %fs\n"                                                                                   \
    "       push    %eax\n"                                                                                  \
    "       mov     $0x70, %eax\n"                                                                           \
    "       mov     %eax, %fs\n"                                                                             \
    "       mov     %fs:0, %eax\n"                                                                           \
    "       mov     %eax, fs_seen\n"

__asm__("entry_by_sysenter:\n" LOOK_ROUND "       mov     %cs, %eax\n"
        "       shl     $16, %eax\n"
        "       mov     %ss, %ax\n"
        "       mov     %eax, cs_ss\n"
        "       pushf\n"
        "       popl    eflags_seen\n"
        "       pop     %eax\n"
        "       pop     %fs\n"
        "       sti\n"
        "       sysexit\n"
        "entry_by_int:\n" LOOK_ROUND "       pop     %eax\n"
        "       pop     %fs\n"
        "       iret\n"
        /* another one, which says so */
        "other_entry_by_sysenter:\n"
        "       addl    $0x10000, n_calls\n"
        "       jmp     entry_by_sysenter\n"
        "other_entry_by_int:\n"
        "       addl    $0x10000, n_calls\n"
        "       jmp     entry_by_int\n");
/* Sets AC in the last call of a habit. */
__asm__("entry_with_ac:\n"
        "       incl    n_calls\n"
        "       cmpl    $300, n_calls\n"
        "       jne     1f\n"
        "       pushf\n"
        "       orl     $0x40000, (%esp)\n"
        "       push    %cs\n"
        "       push    $1f\n"
        "       iret\n"
        "1:     sti\n"
        "       sysexit\n");
extern uint8_t entry_with_ac[];

extern uint8_t entry_by_sysenter[], entry_by_int[], other_entry_by_sysenter[], other_entry_by_int[];

static uint8_t stacks[2][1024] __attribute__((aligned(16)));

static uint32_t top_of(unsigned stack)
{
    return (uintptr_t)stacks[stack] + sizeof stacks[stack];
}

static void set_gate(const void *entry)
{
    idt[0x41] = gate(SEL_KERNEL_CODE, (uintptr_t)entry, DESC_INTERRUPT_GATE | DESC_USER);
}

/* ---- one habit ----------------------------------------------------------------------------------------- */

static bool by_sysenter;
static uint32_t user_flags;

/* Ring 3 is entered by IRET first, with other selectors than SYSEXIT's: the first turn shows them. */
static struct trap call(uint32_t fs_value)
{
    const uint32_t selectors =
        by_sysenter ? (uint32_t)CODE_3 << 16 | DATA_3 : (uint32_t)SEL_USER_CODE << 16 | SEL_USER_DATA;
    void (*code)(void) = by_sysenter              ? call_by_sysenter
                         : has_option("sysenter") ? call_by_int
                                                  : call_by_int_only;

    n_calls = 0;
    cs_ss = fs_seen = stack_seen = eflags_seen = 0;
    probe_registers = (struct registers){.ebx = HABIT, .edi = selectors, .esi = fs_value};
    user_stack[1023] = (uintptr_t)user_return;
    return probe_user_with(code, user_stack_top() - 4, user_flags);
}

static bool is_right = true;

static void expect(const char *what, uint32_t got, uint32_t expected)
{
    if (got != expected && is_right)
        print("     %s: %x, expected %x\n", what, got, expected);
    is_right = is_right && got == expected;
}

static void verdict(const char *name)
{
    char text[80] = "sysenter: ";
    unsigned n = by_sysenter ? 10 : 0;

    for (unsigned i = 0; name[i] != '\0' && n < sizeof text - 1; i++)
        text[n++] = name[i];
    text[n] = '\0';
    check(text, is_right);
    is_right = true;
}

static void expect_calls(uint32_t calls, unsigned stack)
{
    struct trap trap = call(in_user_fs[0]);

    expect("the trap at the end", trap.vector, NO_TRAP);
    expect("turns that ring 3 has not done", trap.registers.ebx, 0);
    expect("calls", n_calls, calls);
    expect("the kernel's stack", stack_seen, top_of(stack) - (by_sysenter ? 0 : 20));
    expect("the kernel's FS", fs_seen, in_fs);
    if (!by_sysenter)
        return;
    expect("the kernel's CS and SS", cs_ss, (uint32_t)CODE_0 << 16 | DATA_0);
    expect("the kernel's IF", eflags_seen & EFLAGS_IF, 0);
}

static void set_usual(void)
{
    memcpy(gdt, first_gdt, sizeof first_gdt);
    if (by_sysenter) {
        write_msr(MSR_SYSENTER_CS, CODE_0);
        write_msr(MSR_SYSENTER_ESP, top_of(0));
        write_msr(MSR_SYSENTER_EIP, (uintptr_t)entry_by_sysenter);
    } else {
        set_gate(entry_by_int);
    }
    load_fs(USER_FS);
    user_flags = 0;
}

/* The stack on which the timer and the end of a probe come is the library's. */
static uint32_t usual_esp0;

static void use_stack(unsigned stack)
{
    if (by_sysenter)
        write_msr(MSR_SYSENTER_ESP, top_of(stack));
    else
        tss.esp0 = top_of(stack);
}

/* ---- what changes -------------------------------------------------------------------------------------- */

static void check_entry(void)
{
    for (unsigned i = 0; i < how_often; i++) {
        bool is_other = i % 2 != 0;

        if (by_sysenter)
            write_msr(MSR_SYSENTER_EIP, (uintptr_t)(is_other ? other_entry_by_sysenter : entry_by_sysenter));
        else
            set_gate(is_other ? other_entry_by_int : entry_by_int);
        expect_calls(is_other ? HABIT * 0x10001u : HABIT, 0);
    }
    set_usual();
    verdict("another entry every 300 calls");
}

static void check_stack(void)
{
    for (unsigned i = 0; i < how_often; i++) {
        use_stack(i % 2);
        expect_calls(HABIT, i % 2);
    }
    use_stack(0);
    verdict("another stack every 300 calls");
}

/* %fs:0 is another word then; or FS is null, and there is none. */
static void check_fs(void)
{
    for (unsigned i = 0; i < how_often; i++) {
        struct trap trap;

        gdt[USER_FS / 8] = descriptor((uintptr_t)&in_user_fs[i % 2], UINT32_MAX, DESC_DATA | DESC_USER);
        load_fs(USER_FS);
        trap = call(in_user_fs[i % 2]);
        expect("turns with this FS", trap.registers.ebx, 0);
        load_fs(0);
        trap = call(0);
        expect("without FS", trap.vector, has_option("limits") ? VECTOR_GP : trap.vector);
        expect("calls before that", n_calls, 1);
        expect("the kernel's FS", fs_seen, in_fs);
    }
    set_usual();
    verdict("another FS every 300 calls, and none");
}

/* The same addresses are other pages. */
static void check_spaces(void)
{
    static uint32_t other_page[PAGE_SIZE / 4] __attribute__((aligned(4096)));
    pte *spaces[] = {memory_at(read_cr3()), space_new()};
    const uint32_t page = (uintptr_t)in_user_fs & ~(PAGE_SIZE - 1), at = ((uintptr_t)in_user_fs - page) / 4;
    uint32_t value = in_user_fs[0];

    space_map(spaces[1], page, (uintptr_t)other_page, PTE_P | PTE_W | PTE_U);
    memcpy(other_page, memory_at(page), PAGE_SIZE);
    other_page[at] = ~value;
    for (unsigned i = 0; i < how_often; i++) {
        write_cr3((uintptr_t)spaces[i % 2]);
        expect("%fs:0 in this space", in_user_fs[0], i % 2 == 0 ? value : ~value);
        expect_calls(HABIT, 0);
    }
    write_cr3((uintptr_t)spaces[0]);
    verdict("another address space every 300 calls");
}

static struct trap call_and(void (*code)(void), uint32_t esi)
{
    struct trap trap;

    n_calls = 0;
    probe_registers = (struct registers){.ebx = HABIT, .esi = esi};
    trap = probe_user(code);
    expect("calls", n_calls, HABIT);
    return trap;
}

static void check_alignment(void)
{
    uint32_t cr0 = read_cr0();

    write_cr0(cr0 | CR0_AM);
    for (unsigned i = 0; i < how_often; i++) {
        bool has_ac = i % 2 != 0;
        struct trap trap;

        write_msr(MSR_SYSENTER_EIP, (uintptr_t)(has_ac ? entry_with_ac : entry_by_sysenter));
        trap = call_and(misalign, 0);
        expect("misaligned", trap.vector, has_ac ? (uint32_t)VECTOR_AC : NO_TRAP);
    }
    write_cr0(cr0);
    set_usual();
    check_option("alignment", "sysenter: AC set after 300 calls", is_right);
    is_right = true;
}

static void check_wall(void)
{
    for (unsigned i = 0; i < how_often; i++) {
        struct trap trap = call_and(reach_kernel, (uintptr_t)&in_fs - (uintptr_t)in_user_fs);

        expect("kernel memory", trap.vector, VECTOR_PF);
        expect("the fault's error", trap.error, PF_USER | PF_PRESENT);
    }
    verdict("the kernel's memory after 300 calls");
}

/* ---- where code is is CS's business, too --------------------------------------------------------------- */

/* Two functions at one address: which of them is there, the base of CS says. After eight turns of the one, by
 * SYSEXIT, come four calls of the other, by IRET, each in a code segment of its own with another limit. */
enum { OTHER_BASE = 0x1000, TURNS = 4000 };
static const uint32_t other_code[] = {SEL_SPARE | 3, USER_FS, KERNEL_FS | 3, 0x78 | 3};
USER_DATA static volatile uint32_t n_wrong, n_flat, n_other;
__attribute__((used)) static volatile uint32_t n_turns, n_other_turn, caller_esp;
extern uint8_t flat_function[], entry_of_flat[], entry_of_other[];
__asm__(".pushsection .user_text, \"ax\"\n"
        "       .balign 4096\n"
        "flat_function:\n"
        "       mov     %cs, %eax\n"
        "       cmp     $0x5b, %ax\n"
        "       je      1f\n"
        "       incl    n_wrong\n"
        "1:     incl    n_flat\n"
        "       mov     %esp, %ecx\n"
        "       mov     $flat_function, %edx\n"
        "       sysenter\n"
        "       .balign 4096\n"
        "       mov     %cs, %eax\n"
        "       cmp     $0x5b, %ax\n"
        "       jne     1f\n"
        "       incl    n_wrong\n"
        "1:     incl    n_other\n"
        "       int     $0x41\n"
        "       .balign 4096\n"
        ".popsection\n"
        "entry_of_flat:\n"
        "       mov     %ecx, caller_esp\n"
        "       incl    n_turns\n"
        "       cmpl    $4000, n_turns\n"
        "       jae     3f\n"
        "       testl   $7, n_turns\n"
        "       jz      1f\n"
        "       sysexit\n"
        "1:     movl    $0, n_other_turn\n"
        "2:     mov     n_other_turn, %ebx\n"
        "       push    $0x63\n"
        "       push    caller_esp\n"
        "       push    $2\n"
        "       push    other_code(, %ebx, 4)\n"
        "       push    $flat_function\n"
        "       iret\n"
        "entry_of_other:\n"
        "       incl    n_other_turn\n"
        "       cmpl    $4, n_other_turn\n"
        "       jb      2b\n"
        "       mov     caller_esp, %ecx\n"
        "       mov     $flat_function, %edx\n"
        "       sysexit\n"
        "3:     mov     $user_return, %edx\n"
        "       sysexit\n");

static void check_code_segments(void)
{
    for (unsigned i = 0; i < 4; i++)
        gdt[other_code[i] / 8] = descriptor(OTHER_BASE, (0x10000000u << i) - 1, DESC_CODE | DESC_USER);
    write_msr(MSR_SYSENTER_EIP, (uintptr_t)entry_of_flat);
    set_gate(entry_of_other);
    probe_user((void (*)(void))flat_function);
    expect("turns", n_flat, TURNS);
    expect("turns in other segments", n_other, (TURNS / 8 - 1) * 4);
    expect("of them in the wrong one", n_wrong, 1); /* the first: it is not SYSEXIT's */
    set_usual();
    verdict("other code segments between calls");
}

/* ---- and a timer --------------------------------------------------------------------------------------- */

static volatile unsigned n_ticks, n_ticks_in_ring_3;

static void on_timer(struct trap_frame *frame)
{
    n_ticks++;
    n_ticks_in_ring_3 += (frame->cs & 3) == 3;
    pic_eoi(IRQ_TIMER);
}

/* (A probe that has returned leaves IF clear.) */
static void check_interrupts(void)
{
    unsigned n_rounds = 0, enough = how_often / 2;

    n_ticks = n_ticks_in_ring_3 = 0;
    trap_set_handler(IRQ_BASE + IRQ_TIMER, on_timer);
    pit_periodic(5000);
    pic_unmask(IRQ_TIMER);
    user_flags = EFLAGS_IF;
    for (; n_rounds < 2 * how_often || (n_ticks_in_ring_3 < enough && n_rounds < 10000); n_rounds++)
        expect_calls(HABIT, 0);
    pic_mask(IRQ_TIMER);
    set_usual();
    expect("did the timer interrupt ring 3?", n_ticks_in_ring_3 >= enough, true);
    verdict("interrupted by a timer");
}

/* ---- all of them --------------------------------------------------------------------------------------- */

static void check_all(void)
{
    set_usual();
    usual_esp0 = tss.esp0;
    use_stack(0);
    expect_calls(HABIT, 0);
    verdict("300 calls");
    check_entry();
    check_stack();
    check_fs();
    check_spaces();
    if (by_sysenter) {
        check_alignment();
        check_wall();
        check_code_segments();
    }
    check_interrupts();
    tss.esp0 = usual_esp0;
}

void guest_main(void)
{
    gdt[CODE_0 / 8] = descriptor(0, UINT32_MAX, DESC_CODE);
    gdt[DATA_0 / 8] = descriptor(0, UINT32_MAX, DESC_DATA);
    gdt[CODE_3 / 8] = descriptor(0, UINT32_MAX, DESC_CODE | DESC_USER);
    gdt[DATA_3 / 8] = descriptor(0, UINT32_MAX, DESC_DATA | DESC_USER);
    gdt[USER_FS / 8] = descriptor((uintptr_t)in_user_fs, UINT32_MAX, DESC_DATA | DESC_USER);
    gdt[KERNEL_FS / 8] = descriptor((uintptr_t)&in_fs, UINT32_MAX, DESC_DATA);
    memcpy(first_gdt, gdt, sizeof first_gdt);
    how_often = has_option("quick") ? FEW_ROUNDS : ROUNDS;
    paging_on(space_new());
    pic_init();
    check_all();
    if (has_option("sysenter")) {
        by_sysenter = true;
        check_all();
    }
}
