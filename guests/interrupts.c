/*
 * interrupts: when an interrupt comes, when it must wait, and who goes first.
 *
 * The lesson: under ring3 the real interrupt flag is never clear; the guest's IF is a bit in the monitor, and
 * whether an interrupt may come is decided there, between two instructions: not while IF is 0, nor in the
 * shadow of STI, nor while the 8259 has something more urgent in service, nor (an NMI) before the IRET of the
 * last NMI.
 *
 * Every handler writes a letter when it begins and the small letter when it ends; a check is a comparison
 * with the order that the processor and the 8259 prescribe. T: timer, IRQ 0. S: serial port, IRQ 4. R:
 * real-time clock, IRQ 8. N: NMI. I: a software interrupt. Read next: faults.c; lib/irq.c for the controller.
 */
#include "guest.h"

enum { COM1 = 0x3f8, COM1_IER = COM1 + 1, COM1_IIR = COM1 + 2, IER_TRANSMITTER_EMPTY = 2 };
enum { RTC_INDEX = 0x70, RTC_DATA = 0x71, RTC_A = 0x0a, RTC_B = 0x0b, RTC_C = 0x0c, RTC_PERIODIC = 0x40 };
enum { IRQ_SPURIOUS = 7, IRQ_RTC = 8, IRQ_SPURIOUS_SLAVE = 15, SOFTWARE_VECTOR = 0x41 };

static volatile char log[32];
static volatile unsigned log_length;
static volatile struct trap_frame last_timer_frame;

static void note(char letter)
{
    if (log_length < sizeof log - 1)
        log[log_length++] = letter;
}

/* Does the log say this? */
static bool log_is(const char *expected)
{
    for (unsigned i = 0;; i++) {
        if (log[i] != expected[i])
            return false;
        if (expected[i] == '\0')
            return true;
    }
}

/* Compares the log with what may be there (the second and third may be NULL), and empties it. Leaves IF
 * clear. */
static void check_log_one_of(const char *name, const char *expected, const char *or_this, const char *or_that)
{
    char seen[sizeof log];

    cli();
    bool is_known =
        log_is(expected) || (or_this != NULL && log_is(or_this)) || (or_that != NULL && log_is(or_that));
    check(name, is_known);
    for (unsigned i = 0; i < sizeof log; i++) {
        seen[i] = log[i];
        log[i] = '\0';
    }
    log_length = 0;
    if (!is_known)
        print("     saw \"%s\", expected \"%s\"\n", seen, expected);
}

static void check_log(const char *name, const char *expected)
{
    check_log_one_of(name, expected, NULL, NULL);
}

/* ---- sources ---- */

static void request_timer(void)
{
    pit_one_shot(50);
    if (!pic_wait_request(IRQ_TIMER))
        fail("the timer does not request IRQ 0");
}

/* The transmitter is empty, so enabling its interrupt is a request at once. */
static void request_serial(void)
{
    while (!(in8(COM1 + 5) & 0x40))
        ;
    out8(COM1_IER, IER_TRANSMITTER_EMPTY);
    if (!pic_wait_request(IRQ_COM1))
        fail("the serial port does not request IRQ 4");
}

static void rtc_write(uint8_t index, uint8_t value)
{
    out8(RTC_INDEX, index);
    out8(RTC_DATA, value);
}

static uint8_t rtc_read(uint8_t index)
{
    out8(RTC_INDEX, index);
    return in8(RTC_DATA);
}

static void rtc_start(void)
{
    rtc_read(RTC_C);
    rtc_write(RTC_A, (rtc_read(RTC_A) & 0xf0) | 6); /* 1024 Hz */
    rtc_write(RTC_B, rtc_read(RTC_B) | RTC_PERIODIC);
}

static void rtc_stop(void)
{
    rtc_write(RTC_B, rtc_read(RTC_B) & ~RTC_PERIODIC);
    rtc_read(RTC_C); /* which lowers the line */
}

/* ---- handlers ---- */

static void (*inside)(void); /* what the next handler does between its two letters, once */

static void do_inside(void)
{
    void (*action)(void) = inside;
    inside = NULL;
    if (action != NULL)
        action();
}

static void on_timer(struct trap_frame *frame)
{
    last_timer_frame = *frame;
    note('T');
    do_inside();
    note('t');
    pic_eoi(IRQ_TIMER);
}

static void on_serial(struct trap_frame *frame)
{
    (void)frame;
    note('S');
    out8(COM1_IER, 0);
    in8(COM1_IIR);
    do_inside();
    note('s');
    pic_eoi(IRQ_COM1);
}

static void on_rtc(struct trap_frame *frame)
{
    (void)frame;
    note('R');
    do_inside();
    rtc_stop();
    note('r');
    pic_eoi(IRQ_RTC);
}

/* IRQ 7 and 15 come also when a request was withdrawn; then the controller has nothing in service. */
static void on_irq7(struct trap_frame *frame)
{
    (void)frame;
    note(pic_isr(PIC1) & 1 << IRQ_SPURIOUS ? '7' : '?');
}

static void on_irq15(struct trap_frame *frame)
{
    (void)frame;
    note(pic_isr(PIC2) & 1 << (IRQ_SPURIOUS_SLAVE - 8) ? '8' : '?');
    out8(PIC1, 0x20); /* the first controller does have its cascade line in service */
}

static void on_software(struct trap_frame *frame)
{
    (void)frame;
    note('I');
    do_inside();
    note('i');
}

/* ---- masks ---- */

CODE(spurious_by_hand, "int $0x27")

static void check_masks(void)
{
    request_timer();
    check_log("IF=0: a request waits", "");
    sti();
    check_log("IF=1: it comes", "Tt");
    check("with IF=1 in its frame", last_timer_frame.eflags & EFLAGS_IF);

    pic_mask(IRQ_TIMER);
    request_timer();
    sti();
    check_log("masked in the 8259: a request waits", "");
    check("and is seen in the IRR", pic_irr(PIC1) & 1 << IRQ_TIMER);
    sti();
    pic_unmask(IRQ_TIMER);
    check_log("unmasked: it comes", "Tt");

    request_timer();
    out8(PIC1, 0x0c); /* OCW3: poll */
    check_equal("the poll command acknowledges instead of the processor", in8(PIC1), 0x80 | IRQ_TIMER);
    check_equal("and puts the line in service", pic_isr(PIC1), 1 << IRQ_TIMER);
    out8(PIC1, 0x60 | IRQ_TIMER); /* OCW2: specific end of interrupt */
    check_equal("until a specific EOI", pic_isr(PIC1), 0);
    out8(PIC1, 0x0c);
    check_equal("poll with no request", in8(PIC1) & 0x80, 0);
}

static void check_spurious(void)
{
    probe_kernel(spurious_by_hand);
    check_log("a spurious IRQ 7 is told by the ISR", "?");

    /*
     * A timer that is programmed anew lowers its line and withdraws its request. The 8259A then has nothing
     * to acknowledge and says IRQ 7; machines differ in whether the processor still asks, and QEMU keeps the
     * request.
     */
    request_timer();
    out8(PIT_COMMAND, 0x30);
    sti();
    check_log_one_of("a withdrawn request is gone, spurious, or kept", "", "?", "Tt");
    check_equal("and leaves nothing in service", pic_isr(PIC1), 0);

    pic_unmask(IRQ_RTC);
    rtc_start();
    if (!pic_wait_request(IRQ_RTC))
        fail("the real-time clock does not request IRQ 8");
    pic_mask(IRQ_RTC);
    sti();
    check_log_one_of("the same at the second controller: gone or spurious", "", "?", NULL);
    check("nothing in service at either", pic_isr(PIC1) == 0 && pic_isr(PIC2) == 0);
    rtc_stop();
}

/* ---- priorities and nesting ---- */

static void request_timer_and_enable(void)
{
    request_timer();
    sti();
    cli();
}

static void request_serial_and_enable(void)
{
    request_serial();
    sti();
    cli();
}

static void show_timer_in_service(void)
{
    check_equal("the timer is in service", pic_isr(PIC1), 1 << IRQ_TIMER);
    request_timer();
    sti();
    cli();
    note('.');
    pic_eoi(IRQ_TIMER);
    sti();
    cli();
}

static void show_rtc_in_service(void)
{
    check("IRQ 8 is in service at the second controller", pic_isr(PIC2) == 1);
    check("and its cascade line at the first", pic_isr(PIC1) == 1 << 2);
}

static void check_priorities(void)
{
    request_serial();
    request_timer();
    sti();
    check_log("two wait: the timer goes first", "TtSs");

    inside = request_timer_and_enable;
    request_serial();
    sti();
    check_log("the timer comes into the serial port's handler", "STts");

    inside = request_serial_and_enable;
    request_timer();
    sti();
    check_log("the serial port does not come into the timer's", "TtSs");

    inside = show_timer_in_service;
    request_timer();
    sti();
    check_log("the timer comes into its own handler after the EOI only", "T.Ttt");

    out8(PIC1, 0xc0 | IRQ_TIMER); /* OCW2: this line has the lowest priority now */
    request_serial();
    request_timer();
    sti();
    check_log("priorities rotated: the serial port goes first", "SsTt");
    out8(PIC1, 0xc0 | 7);

    pic_unmask(IRQ_RTC);
    inside = show_rtc_in_service;
    rtc_start();
    if (!pic_wait_request(IRQ_RTC))
        fail("the real-time clock does not request IRQ 8");
    request_serial();
    sti();
    check_log("IRQ 8 comes by way of line 2, before IRQ 4", "RrSs");
    check("and all is over", pic_isr(PIC1) == 0 && pic_isr(PIC2) == 0);
}

/* ---- between which instructions ---- */

CODE(shadow_of_sti, "sti\n\tcli")
CODE(after_the_shadow, "sti\n\tnop\n\tcli")
CODE(software_in_the_shadow, "sti\n\tint $0x41\n\tnop\n\tcli")
CODE(sleep_then_stop, "sti\n\thlt\n\tcli")
USER_CODE(user_code, "nop")

static void check_instruction_boundaries(void)
{
    request_timer();
    probe_kernel(shadow_of_sti);
    check_log("sti; cli: the shadow of STI reaches to the cli", "");
    probe_kernel(after_the_shadow);
    check_log("sti; nop; cli: the interrupt comes after the nop", "Tt");
    check_equal("at the cli", last_timer_frame.eip, (uintptr_t)after_the_shadow + 2);

    request_timer();
    probe_kernel(software_in_the_shadow);
    check_log("sti; int: the int goes first, and its gate keeps the timer out", "IiTt");
    check_equal("the timer finds the instruction after the int", last_timer_frame.eip,
                (uintptr_t)software_in_the_shadow + 3);
    idt[SOFTWARE_VECTOR] |= 1ull << 40; /* a trap gate */
    request_timer();
    probe_kernel(software_in_the_shadow);
    check_log("through a trap gate: the timer comes in at once", "TtIi");
    /* Before the handler's first instruction; QEMU lets the shadow of STI reach over it. */
    check("at the handler's entry", last_timer_frame.eip - (uintptr_t)trap_stubs[SOFTWARE_VECTOR] <= 2);

    pit_one_shot(20000);
    probe_kernel(sleep_then_stop);
    check_log("sti; hlt: sleeps until the interrupt", "Tt");
    check_equal("which finds the instruction after the hlt", last_timer_frame.eip,
                (uintptr_t)sleep_then_stop + 2);
    request_timer();
    probe_kernel(sleep_then_stop);
    check_log("sti; hlt with a request waiting: does not sleep", "Tt");

    pic_mask(IRQ_TIMER);
    request_timer();
    pic_unmask(IRQ_RTC);
    rtc_start();
    probe_kernel(sleep_then_stop);
    check_log("hlt: a masked request does not end the sleep, another does", "Rr");
    pic_unmask(IRQ_TIMER);
    user_stack[1023] = (uintptr_t)user_return;
    probe_user_with(user_code, user_stack_top() - 4, EFLAGS_IF);
    check_log("iret to ring 3 with IF=1: the interrupt comes", "Tt");
    check("before the first instruction there",
          last_timer_frame.cs == SEL_USER_CODE && last_timer_frame.eip == (uintptr_t)user_code);
}

/* ---- in the middle of an instruction ---- */

static volatile uint8_t timer_came __attribute__((used));
static unsigned n_halfway;

enum { RDTSC_OFFSET = 1 + 5 + 5 };
CODE(rdtsc_until_timer, "sti\n"
                        "1:\tmov $0x11111111, %eax\n\t"
                        "mov $0x22222222, %edx\n\t"
                        "rdtsc\n\t"
                        "cmpb $0, timer_came\n\t"
                        "je 1b\n\t"
                        "cli")

/* ---- RF ---- */

enum { EFLAGS_RF = 1 << 16 };

static volatile uint32_t flags_at_timer;

static void on_timer_with_flags(struct trap_frame *frame)
{
    flags_at_timer = frame->eflags;
    pic_eoi(IRQ_TIMER);
}

/* IRET with RF holds instruction breakpoints back for one instruction; then RF is clear again. */
static void check_resume_flag(void)
{
    cli();
    trap_set_handler(IRQ_BASE + IRQ_TIMER, on_timer_with_flags);
    flags_at_timer = EFLAGS_RF;
    pit_one_shot(2000);
    __asm__ volatile("pushf; orl $0x10200, (%%esp); push %%cs; push $1f; iret; 1: mov $100000000, %%ecx\n"
                     "2: dec %%ecx; jz 3f; cmpl $0x10000, %0; je 2b; 3: cli"
                     : "+m"(flags_at_timer)
                     :
                     : "ecx", "memory", "cc");
    trap_set_handler(IRQ_BASE + IRQ_TIMER, on_timer);
    check_option("rf", "RF ends with the instruction that IRET went to", !(flags_at_timer & EFLAGS_RF));
}

static void on_timer_at_rdtsc(struct trap_frame *frame)
{
    timer_came = 1;
    if (frame->eip == (uintptr_t)rdtsc_until_timer + RDTSC_OFFSET)
        n_halfway += frame->eax != 0x11111111 || frame->edx != 0x22222222;
    pic_eoi(IRQ_TIMER);
}

/* A monitor may make more than one instruction of RDTSC. */
static void check_no_middle(void)
{
    const uint16_t n_rounds = has_option("quick") ? 3 : 50;

    trap_set_handler(IRQ_BASE + IRQ_TIMER, on_timer_at_rdtsc);
    for (uint16_t i = 0; i < n_rounds; i++) {
        timer_came = 0;
        pit_one_shot(60 + i);
        probe_kernel(rdtsc_until_timer);
    }
    trap_set_handler(IRQ_BASE + IRQ_TIMER, on_timer);
    check_equal("an interrupt before RDTSC finds eax and edx as they were", n_halfway, 0);
}

/* ---- NMI ---- */

enum {
    LAPIC = 0xfee00000,
    LAPIC_ID = LAPIC + 0x20,
    LAPIC_ICR_LOW = LAPIC + 0x300,
    LAPIC_ICR_HIGH = LAPIC + 0x310
};
enum { ICR_NMI_ASSERT = 0x4400, SHORT_WHILE = 1000 };

/* To ourselves; the local APIC delivers it before this returns, if it may come at all. */
static void send_nmi(void)
{
    poke(LAPIC_ICR_HIGH, peek(LAPIC_ID) & 0xff000000);
    poke(LAPIC_ICR_LOW, ICR_NMI_ASSERT);
    for (unsigned i = 0; i < SHORT_WHILE; i++)
        peek(LAPIC_ID);
}

static void on_nmi(struct trap_frame *frame)
{
    (void)frame;
    note('N');
    do_inside();
    note('n');
}

static void send_two_nmis(void)
{
    send_nmi();
    send_nmi();
    note('.');
}

static void send_nmi_and_return_from_something(void)
{
    send_nmi();
    __asm__ volatile("int $0x41" : : : "memory");
}

static void check_nmi(void)
{
    trap_set_handler(VECTOR_NMI, on_nmi);
    cli();
    send_nmi();
    check_log("an NMI does not ask for IF", "Nn");
    for (int i = 0; i < 8; i++)
        send_nmi();
    check_log("the next eight do not, either", "NnNnNnNnNnNnNnNn");
    inside = send_two_nmis;
    send_nmi();
    check_log("the next NMI waits for the IRET; two that wait are one", "N.nNn");
    inside = send_nmi_and_return_from_something;
    send_nmi();
    check_log("but any IRET will do, in the handler as well", "NIiNnn");
    request_timer();
    send_nmi();
    check_log("an NMI goes before the timer and lets it not in", "Nn");
    sti();
    check_log("the timer comes when IF allows it", "Tt");
}

void guest_main(void)
{
    pic_init();
    trap_set_handler(IRQ_BASE + IRQ_TIMER, on_timer);
    trap_set_handler(IRQ_BASE + IRQ_COM1, on_serial);
    trap_set_handler(IRQ_BASE + IRQ_RTC, on_rtc);
    trap_set_handler(IRQ_BASE + IRQ_SPURIOUS, on_irq7);
    trap_set_handler(IRQ_BASE + IRQ_SPURIOUS_SLAVE, on_irq15);
    trap_set_handler(SOFTWARE_VECTOR, on_software);
    pit_one_shot(0xffff); /* the boot loader's timer is running: take it over while IRQ 0 is masked */
    pic_unmask(IRQ_TIMER);
    pic_unmask(IRQ_COM1);

    check_masks();
    check_spurious();
    check_priorities();
    check_instruction_boundaries();
    check_resume_flag();
    check_no_middle();
    check_nmi();
}
