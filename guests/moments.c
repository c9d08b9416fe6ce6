/*
 * moments: what time it is, and where an interrupt comes.
 *
 * The lesson: between two instructions nothing happens, unless an interrupt comes; and it may come between
 * any two. A machine whose time is told by its instructions (ring3 run --clock=virtual) must therefore count
 * each one, whichever way it has gone: run by the processor as it is, by a call into the monitor, or by code
 * that stands for the call. So here the time-stamp counter is read behind each kind of instruction that a
 * kernel has, in both rings, while a timer interrupts all of it; the times go into a sum, and of each
 * interrupt where it came, with all registers. On a PC the sum is another each time. Where time is counted it
 * is always the same, whatever runs the guest.
 *
 * With the word `sysenter` (guests/README.md) ring 3 calls by SYSENTER as well as by INT; `long`: for longer.
 *
 * Read next: interrupts.c.
 */
#include "guest.h"

enum { ROUNDS = 300, MANY_ROUNDS = 12000, MOST_TICKS = 80 };
enum { DEMAND = 0x40000000, LAPIC = 0xfee00000, CALL_VECTOR = 0x41 };
enum { SYSENTER_CODE = 0x48, SYSENTER_DATA = 0x50, SYSEXIT_CODE = 0x58 | 3, SYSEXIT_DATA = 0x60 | 3 };
enum { MSR_SYSENTER_CS = 0x174, MSR_SYSENTER_ESP = 0x175, MSR_SYSENTER_EIP = 0x176 };

/* ebx: the local APIC's registers; esi: an entry of a page table; edi: the page that it is for, which is
 * absent; ecx: a small count. EAX, ECX, EDX are the code's. */
SNIPPETS_BEGIN(kernel_steps);
SNIPPET(kernel_steps, kernel, "in $0x21, %al");
SNIPPET(kernel_steps, kernel, "out %al, $0x80");
SNIPPET(kernel_steps, kernel, "mov $0x80, %dx; mov $-1, %eax; out %eax, %dx");
SNIPPET(kernel_steps, kernel, "mov $0x0f, %al; out %al, $0x70; in $0x71, %al");
SNIPPET(kernel_steps, kernel, "mov 0x20(%ebx), %eax");
SNIPPET(kernel_steps, kernel, "movl $0, 0x80(%ebx)");
SNIPPET(kernel_steps, kernel, "testl $1, 0x20(%ebx)");
SNIPPET(kernel_steps, kernel, "movl $0, (%esi); movl $2, (%esi); movl $0, (%esi)");
SNIPPET(kernel_steps, kernel, "mov (%edi), %eax; add $1, %eax");
SNIPPET(kernel_steps, kernel, "incl (%edi); incl 4(%edi)");
SNIPPET(kernel_steps, kernel, "invlpg (%edi); mov %eax, (%edi)");
SNIPPET(kernel_steps, kernel, "1: mov %ecx, (%edi,%ecx,4); dec %ecx; jnz 1b");
SNIPPET(kernel_steps, kernel, "push (%edi); pop (%edi)");
SNIPPET(kernel_steps, kernel, "int $0x40");
SNIPPET(kernel_steps, kernel, "xor %edx, %edx; div %edx; nop");
SNIPPET(kernel_steps, kernel, "ud2; nop");
SNIPPET(kernel_steps, kernel, "push %ebx; mov $1, %eax; cpuid; mov $1, %eax; cpuid; pop %ebx");
SNIPPET(kernel_steps, kernel, "push %ebx; mov $0, %eax; cpuid; pop %ebx; nop");
SNIPPET(kernel_steps, kernel, "1: rdtsc; dec %ecx; jnz 1b");
SNIPPET(kernel_steps, kernel, "mov %cr0, %eax; mov %eax, %cr0");
SNIPPET(kernel_steps, kernel, "mov %cr3, %eax; mov %eax, %cr3");
SNIPPET(kernel_steps, kernel, "mov %cr2, %eax; clts");
SNIPPET(kernel_steps, kernel, "pushf; popf");
SNIPPET(kernel_steps, kernel, "cli; nop; sti; nop");
SNIPPET(kernel_steps, kernel, "cli; sti; ret");
SNIPPET(kernel_steps, kernel, "pushf; cli; popf; nop");
SNIPPET(kernel_steps, kernel, "mov %ss, %eax; mov %eax, %ss; nop");
SNIPPET(kernel_steps, kernel, "push %ds; pop %ds; push %es; pop %es");
SNIPPET(kernel_steps, kernel, "push %cs; push $1f; pushf; popf; lret; 1: nop");
SNIPPET(kernel_steps, kernel, "1: loop 1b");
SNIPPET(kernel_steps, kernel, "1: dec %ecx; jnz 1b; call 2f; jmp 3f; 2: ret; 3:");
SNIPPET(kernel_steps, kernel,
        "push %esi; push %edi; mov %esp, %esi; sub $64, %esp; mov %esp, %edi; rep movsb;"
        " add $64, %esp; pop %edi; pop %esi");
SNIPPET(kernel_steps, kernel, "push %edi; mov $900, %ecx; rep stosl; pop %edi");
SNIPPET(kernel_steps, kernel, "hlt; nop");
SNIPPETS_END(kernel_steps);

SNIPPETS_BEGIN(user_steps);
SNIPPET(user_steps, user, "nop");
SNIPPET(user_steps, user, "rdtsc");
SNIPPET(user_steps, user, "1: int $0x41; dec %ecx; jnz 1b");
SNIPPET(user_steps, user, "mov (%edi), %eax; int $0x41");
SNIPPET(user_steps, user, "1: mov %eax, (%edi,%ecx,4); dec %ecx; jnz 1b");
SNIPPET(user_steps, user, "push %ebx; mov $1, %eax; cpuid; pop %ebx; pushf; popf");
SNIPPET(user_steps, user, "xor %edx, %edx; div %edx; nop; ud2; nop");
SNIPPETS_END(user_steps);

SNIPPETS_BEGIN(sysenter_steps);
SNIPPET(sysenter_steps, user,
        "mov %ecx, %esi; 1: mov %esp, %ecx; mov $2f, %edx; sysenter; 2: dec %esi; jnz 1b");
SNIPPET(sysenter_steps, user,
        "mov %ecx, %esi; 1: nop; nop; mov %esp, %ecx; mov $2f, %edx; sysenter; 2: rdtsc; "
        "int $0x41; dec %esi; jnz 1b");
SNIPPETS_END(sysenter_steps);

__asm__("moments_by_sysenter:\n"
        "       push    %ecx\n"
        "       push    %edx\n"
        "       nop\n"
        "       pop     %edx\n"
        "       pop     %ecx\n"
        "       sti\n"
        "       sysexit\n");
extern uint8_t moments_by_sysenter[];

static uint8_t sysenter_stack[1024] __attribute__((aligned(16)));
static uint8_t frame_of_demand[PAGE_SIZE] __attribute__((aligned(4096)));
static pte *entry_of_demand;

/* ---- what has been seen ---- */

static uint32_t sum, n_moments;
static unsigned n_interrupts;
static uint64_t last_time, last_interrupt;
static bool has_gone_back;

static void add(uint32_t value)
{
    sum = (sum ^ value) * 0x01000193;
    sum ^= sum >> 15;
}

static uint64_t read_tsc(void)
{
    uint32_t low, high;

    __asm__ volatile("rdtsc" : "=a"(low), "=d"(high));
    return (uint64_t)high << 32 | low;
}

static uint32_t random(uint32_t below)
{
    static uint32_t state = 1;

    state = state * 1664525 + 1013904223;
    return (state >> 16) % below;
}

static void note_time(uint64_t *last)
{
    uint64_t now = read_tsc();

    has_gone_back |= now < *last;
    *last = now;
    add((uint32_t)now);
}

/* Anywhere but in the timer's handler. */
static void note_moment(void)
{
    note_time(&last_time);
    n_moments++;
}

static void on_timer(struct trap_frame *frame)
{
    const uint32_t *registers = &frame->edi;

    for (unsigned i = 0; i < 8; i++)
        add(i == 3 ? 0 : registers[i]); /* ESP there is the library's */
    add(frame->eip);
    add(frame->cs);
    add(frame->eflags & (EFLAGS_ARITHMETIC | EFLAGS_IF | EFLAGS_DF));
    if (frame->cs & 3)
        add(frame->esp);
    note_time(&last_interrupt);
    n_interrupts++;
    pic_eoi(IRQ_TIMER);
    pit_one_shot((uint16_t)(1 + random(MOST_TICKS)));
}

/* ---- traps on the way ---- */

static void on_call(struct trap_frame *frame)
{
    (void)frame;
    note_moment();
}

/* DIV %edx and UD2 are two bytes long. */
static void skip(struct trap_frame *frame)
{
    note_moment();
    frame->eip += 2;
}

static void on_page_fault(struct trap_frame *frame)
{
    if (read_cr2() - DEMAND >= PAGE_SIZE || (*entry_of_demand & PTE_P))
        fail("page fault at %08x by %08x", read_cr2(), frame->eip);
    note_moment();
    *entry_of_demand = (uintptr_t)frame_of_demand | PTE_P | PTE_W | PTE_U;
}

static void take_page_away(void)
{
    *entry_of_demand = 0;
    invlpg(DEMAND);
}

/* ---- the steps ---- */

static void spin(uint32_t turns)
{
    __asm__ volatile("1: dec %0; jnz 1b" : "+r"(turns) : : "cc");
}

static void run_in_kernel(const struct snippet *step)
{
    static void (*code)(void);
    uint32_t count = 1 + random(20);

    code = step->code;
    __asm__ volatile("call *%[code]"
                     : "+c"(count)
                     : [code] "m"(code), "b"(LAPIC), "S"(entry_of_demand), "D"(DEMAND)
                     : "eax", "edx", "memory", "cc");
}

static void run_in_user(const struct snippet *step)
{
    struct trap trap;

    probe_registers = (struct registers){.edi = DEMAND, .ecx = 1 + random(20)};
    user_stack[1023] = (uintptr_t)user_return;
    trap = probe_user_with(step->code, user_stack_top() - 4, EFLAGS_IF);
    if (trap.vector != NO_TRAP)
        fail("%s: trap %u at %08x", step->text, trap.vector, trap.eip);
    sti();
}

static void run_any(const struct snippet *begin, const struct snippet *end,
                    void (*run)(const struct snippet *))
{
    take_page_away();
    spin(1 + random(300));
    run(&begin[random((uint32_t)(end - begin))]);
    note_moment();
}

static void set_up_sysenter(void)
{
    gdt[SYSENTER_CODE / 8] = descriptor(0, UINT32_MAX, DESC_CODE);
    gdt[SYSENTER_DATA / 8] = descriptor(0, UINT32_MAX, DESC_DATA);
    gdt[SYSEXIT_CODE / 8] = descriptor(0, UINT32_MAX, DESC_CODE | DESC_USER);
    gdt[SYSEXIT_DATA / 8] = descriptor(0, UINT32_MAX, DESC_DATA | DESC_USER);
    write_msr(MSR_SYSENTER_CS, SYSENTER_CODE);
    write_msr(MSR_SYSENTER_ESP, (uintptr_t)sysenter_stack + sizeof sysenter_stack);
    write_msr(MSR_SYSENTER_EIP, (uintptr_t)moments_by_sysenter);
}

static void set_up_traps(void)
{
    idt[CALL_VECTOR] =
        gate(SEL_KERNEL_CODE, (uintptr_t)trap_stubs[CALL_VECTOR], DESC_INTERRUPT_GATE | DESC_USER);
    trap_set_handler(CALL_VECTOR, on_call);
    trap_set_handler(0x40, on_call);
    trap_set_handler(VECTOR_DE, skip);
    trap_set_handler(VECTOR_UD, skip);
    trap_set_handler(VECTOR_PF, on_page_fault);
    trap_set_handler(IRQ_BASE + IRQ_TIMER, on_timer);
}

void guest_main(void)
{
    uint32_t n_rounds = has_option("long") ? MANY_ROUNDS : ROUNDS;
    pte *space = space_new();

    space_map(space, LAPIC, LAPIC, PTE_P | PTE_W);
    entry_of_demand = space_entry(space, DEMAND);
    *space_entry(space, DEMAND) = 0;
    space[DEMAND >> 22] |= PTE_U;
    paging_on(space);
    set_up_traps();
    print("%u rounds:\n", n_rounds);
    pic_init();
    pic_unmask(IRQ_TIMER);
    pit_one_shot(MOST_TICKS);
    sti();
    for (unsigned i = 0; i < n_rounds; i++) {
        run_any(kernel_steps, kernel_steps_end, run_in_kernel);
        run_any(user_steps, user_steps_end, run_in_user);
        if (has_option("sysenter")) {
            if (i == 0)
                set_up_sysenter();
            run_any(sysenter_steps, sysenter_steps_end, run_in_user);
        }
    }
    cli();
    print("     %u moments, %u interrupts: %08x\n", n_moments, n_interrupts, sum);
    check("the timer has interrupted", n_interrupts > 0);
    check("time does not go back", !has_gone_back);
    report();
}
