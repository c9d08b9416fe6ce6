/*
 * tour: a kernel in one file that meets every mechanism of its virtual machine once.
 *
 * The lesson: this code does what every kernel does at boot. Each numbered step uses instructions that ring 3
 * may not execute, so under ring3 each of them traps and is emulated, and the text it prints is the proof
 * that it worked. Run it with `ring3 run --trace -` to see the traps between the lines.
 *
 * Read next: privileged.c, which takes the instructions one by one; lib/guest.h for what is called here.
 */
#include "guest.h"

/* ---- step 3: the timer ---- */

static volatile unsigned ticks;

static void on_timer(struct trap_frame *frame)
{
    (void)frame;
    ticks++;
    pic_eoi(IRQ_TIMER);
}

static void meet_the_timer(void)
{
    trap_set_handler(IRQ_BASE + IRQ_TIMER, on_timer);
    pic_init();
    pic_unmask(IRQ_TIMER);
    pit_periodic(100);
    while (ticks < 3) {
        unsigned before = ticks;
        wait_for_interrupt(); /* sti; hlt; cli */
        if (ticks != before)
            print("      tick %u\n", ticks);
    }
    pic_mask(IRQ_TIMER);
}

/* ---- step 5: a page that appears when it is touched ---- */

enum { LAZY_PAGE = 0x40000000 };

static pte *space;
static unsigned faults;

static void on_page_fault(struct trap_frame *frame)
{
    uint32_t address = read_cr2();
    if (address - LAZY_PAGE >= PAGE_SIZE)
        fail("page fault at %08x, which is no part of the tour", address);
    faults++;
    print("      page fault: eip %08x touched %08x, error code %x: map a page and retry\n", frame->eip,
          address, frame->error);
    space_map(space, LAZY_PAGE, (uintptr_t)page_alloc(), PTE_P | PTE_W);
}

/* ---- step 6: ring 3 ---- */

enum { CALL_EXIT = 1, CALL_PRINT = 4, TOUR_SYSCALL = 0x80 };

extern uint8_t user_program[], user_message[];
static bool user_exited;

/* Prints, exits, prints again: what ring 3 asks for in EAX, with its argument in EBX. */
__asm__(".section .user_text, \"ax\"\n"
        "user_program:\n"
        "       mov     $4, %eax\n"
        "       mov     $user_message, %ebx\n"
        "       int     $0x80\n"
        "       cli\n" /* not for ring 3: the handler below steps over it */
        "       mov     $1, %eax\n"
        "       int     $0x80\n"
        ".section .user_data, \"aw\"\n"
        "user_message: .asciz \"hello from ring 3, by a system call\"\n"
        ".text\n");

static void on_system_call(struct trap_frame *frame)
{
    if (frame->eax == CALL_PRINT) {
        print("      %s\n", (const char *)memory_at(frame->ebx));
    } else {
        user_exited = frame->eax == CALL_EXIT;
        trap_set_handler(TOUR_SYSCALL, NULL); /* so that the probe below ends here: the kernel goes on */
        trap_dispatch(frame);
    }
}

static void on_protection_fault(struct trap_frame *frame)
{
    print("      ring 3 tried cli at %08x and got #GP(%x): only the kernel may\n", frame->eip, frame->error);
    frame->eip += 1; /* cli is one byte */
}

static void visit_ring3(void)
{
    idt[TOUR_SYSCALL] |= (uint64_t)DESC_USER << 40; /* DPL 3: ring 3 may raise it */
    trap_set_handler(TOUR_SYSCALL, on_system_call);
    trap_set_handler(VECTOR_GP, on_protection_fault);
    probe_user_with((void (*)(void))user_program, user_stack_top(), EFLAGS_IF);
    if (!user_exited)
        fail("the program in ring 3 did not end by its exit call");
}

/* ---- the tour ---- */

void guest_main(void)
{
    print("ring3 tour: a small kernel meets its machine\n");
    print("  1  the serial port works: you are reading it (two port accesses a character)\n");

    cli();
    sti();
    cli();
    print("  2  cli, sti, cli: the interrupt flag is off again; nothing was pending\n");

    print("  3  the timer at 100 Hz through the 8259; hlt sleeps until it ticks\n");
    meet_the_timer();

    space = space_new();
    paging_on(space);
    print("  4  paging is on: CR3 %08x, CR0 %08x; linear = physical up to 4 MiB\n", read_cr3(), read_cr0());

    print("  5  a store to a page that is not there\n");
    trap_set_handler(VECTOR_PF, on_page_fault);
    poke(LAZY_PAGE + 0x123 * 4, 42);
    if (peek(LAZY_PAGE + 0x123 * 4) != 42 || faults != 1)
        fail("the store was retried %u times and left %u", faults, peek(LAZY_PAGE + 0x123 * 4));
    print("      the store was done again and the value is there; entry now %08x: A and D set\n",
          *space_entry(space, LAZY_PAGE));

    print("  6  iret to ring 3\n");
    visit_ring3();
    print("      back in the kernel: the program has ended\n");

    print("  7  the end: cli; hlt. Nothing can wake this processor any more.\n");
    for (;;)
        __asm__ volatile("cli; hlt");
}
