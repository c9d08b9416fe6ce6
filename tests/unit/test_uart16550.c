/* The PC16550D: transmitter, receiver FIFO, interrupt identification, loop mode. */
#include "devices/uart16550.h"

#include "unit/fake_clock.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>

enum { DATA, IER, IIR, LCR, MCR, LSR, MSR, SCR, FCR = IIR, DLL = DATA, DLM = IER };

static struct fake_clock fake;
static struct uart16550 uart;
static bool irq4;
static char sent[64];
static size_t n_sent;

static void irq4_set(void *ctx, unsigned pin, bool level)
{
    (void)ctx;
    (void)pin;
    irq4 = level;
}

static void console_write(void *ctx, const void *bytes, size_t n)
{
    (void)ctx;
    ck_assert_uint_le(n_sent + n, sizeof(sent) - 1);
    memcpy(sent + n_sent, bytes, n);
    n_sent += n;
}

static const struct board_host host = {.console_write = console_write};

static void setup(void)
{
    irq4 = false;
    n_sent = 0;
    memset(sent, 0, sizeof(sent));
    fake_clock_init(&fake);
    uart16550_init(&uart, &fake.clock, (struct irq_line){.set = irq4_set}, &host);
}

static void out(unsigned reg, uint8_t value)
{
    uart16550_ops.write(&uart, reg, 1, value);
}

static uint8_t in(unsigned reg)
{
    return (uint8_t)uart16550_ops.read(&uart, reg, 1);
}

static void pass(uint64_t ns)
{
    fake_clock_run_to(&fake, fake.now + ns);
}

static void receive(const char *text)
{
    for (; *text != '\0'; text++)
        uart16550_receive(&uart, (uint8_t)*text);
}

static void set_115200_8n1(void)
{
    out(LCR, 0x83);
    out(DLL, 1);
    out(DLM, 0);
    out(LCR, 0x03);
}

START_TEST(master_reset)
{
    out(IER, 0x0f);
    out(FCR, 0xc1);
    out(MCR, 0x1f);
    uart16550_reset(&uart);
    ck_assert_uint_eq(in(IER), 0);
    ck_assert_uint_eq(in(IIR), 0x01);
    ck_assert_uint_eq(in(MCR), 0);
    ck_assert_uint_eq(in(LSR), 0x60);
    ck_assert_uint_eq(in(MSR), 0xb0); /* CTS, DSR, DCD: the console is there */
    ck_assert(!irq4);
}
END_TEST

START_TEST(registers_keep_what_can_be_written)
{
    out(IER, 0xff);
    ck_assert_uint_eq(in(IER), 0x0f);
    out(MCR, 0xff);
    ck_assert_uint_eq(in(MCR), 0x1f);
    out(MCR, 0);
    out(SCR, 0xa5);
    ck_assert_uint_eq(in(SCR), 0xa5);
    out(LCR, 0x80);
    out(DLL, 0x34);
    out(DLM, 0x12);
    ck_assert_uint_eq(in(DLL), 0x34);
    ck_assert_uint_eq(in(DLM), 0x12);
    out(LCR, 0x03);
    ck_assert_uint_eq(in(IER), 0x0f); /* untouched by the divisor */
    ck_assert_uint_eq(n_sent, 0);
    out(LSR, 0xff);
    ck_assert_uint_eq(in(LSR), 0x60);
}
END_TEST

START_TEST(a_byte_is_sent_at_once)
{
    set_115200_8n1();
    out(DATA, 'h');
    ck_assert_uint_eq(in(LSR), 0x60);
    out(DATA, 'i');
    ck_assert_str_eq(sent, "hi");
    out(LCR, 0x02); /* seven bits */
    out(DATA, 0x80 | '!');
    ck_assert_str_eq(sent, "hi!");
}
END_TEST

START_TEST(the_transmit_interrupt)
{
    ck_assert(!irq4);
    out(IER, 0x02); /* enabling it with THR empty raises it */
    ck_assert(irq4);
    ck_assert_uint_eq(in(IIR), 0x02);
    ck_assert(!irq4); /* reading IIR acknowledges */
    ck_assert_uint_eq(in(IIR), 0x01);
    out(IER, 0x02); /* no change, no new interrupt */
    ck_assert(!irq4);
    out(DATA, 'x'); /* empty again at once */
    ck_assert(irq4);
    out(IER, 0x00);
    ck_assert(!irq4);
    out(IER, 0x02); /* Linux's test for broken 16550s: must come back */
    ck_assert_uint_eq(in(IIR), 0x02);
}
END_TEST

START_TEST(without_fifo_one_character_waits)
{
    ck_assert_uint_eq(uart16550_room(&uart), 1);
    out(IER, 0x01);
    receive("a");
    ck_assert(irq4);
    ck_assert_uint_eq(uart16550_room(&uart), 0);
    ck_assert_uint_eq(in(IIR), 0x04);
    ck_assert_uint_eq(in(LSR), 0x61);
    receive("b"); /* overrun: the new one replaces the old */
    ck_assert_uint_eq(in(LSR), 0x63);
    ck_assert_uint_eq(in(LSR), 0x61); /* reading clears the error */
    ck_assert_uint_eq(in(DATA), 'b');
    ck_assert(!irq4);
    ck_assert_uint_eq(in(LSR), 0x60);
}
END_TEST

START_TEST(the_fifo_interrupts_at_its_trigger_level)
{
    set_115200_8n1();
    out(FCR, 0x41); /* trigger at 4 */
    out(IER, 0x01);
    pass(1000000);
    ck_assert_uint_eq(uart16550_room(&uart), 16);
    receive("abc");
    ck_assert(!irq4);
    ck_assert_uint_eq(in(IIR), 0xc1);
    receive("d");
    ck_assert(irq4);
    ck_assert_uint_eq(in(IIR), 0xc4);
    ck_assert_uint_eq(in(DATA), 'a'); /* below the level: the request falls */
    ck_assert(!irq4);
    ck_assert_uint_eq(uart16550_room(&uart), 13);
}
END_TEST

START_TEST(the_receiver_times_out_after_four_characters)
{
    set_115200_8n1();
    out(FCR, 0xc1);
    out(IER, 0x01);
    receive("ab");
    pass(347200); /* 4 x 10 bits at 115200 baud are 347.2 us */
    ck_assert(!irq4);
    pass(1000);
    ck_assert(irq4);
    ck_assert_uint_eq(in(IIR), 0xcc);
    ck_assert_uint_eq(in(DATA), 'a'); /* a read restarts the wait */
    ck_assert(!irq4);
    pass(348000);
    ck_assert(irq4);
    ck_assert_uint_eq(in(DATA), 'b');
    pass(10000000);
    ck_assert(!irq4); /* empty: no timeout */
}
END_TEST

START_TEST(a_full_fifo_keeps_what_it_has)
{
    out(FCR, 0x01);
    receive("0123456789abcdef");
    ck_assert_uint_eq(uart16550_room(&uart), 0);
    out(IER, 0x05);
    receive("X");
    ck_assert_uint_eq(in(IIR), 0xc6); /* line status comes before data */
    ck_assert_uint_eq(in(LSR), 0x63);
    ck_assert_uint_eq(in(IIR), 0xc4);
    for (const char *expected = "0123456789abcdef"; *expected != '\0'; expected++)
        ck_assert_uint_eq(in(DATA), *expected);
    ck_assert_uint_eq(in(LSR), 0x60);
}
END_TEST

START_TEST(fcr_clears_the_fifo)
{
    out(FCR, 0x01);
    receive("abc");
    out(FCR, 0x02); /* without bit 0: the FIFO is switched off, which clears it */
    ck_assert_uint_eq(in(LSR), 0x60);
    ck_assert_uint_eq(in(IIR), 0x01);
    out(FCR, 0x01);
    receive("abc");
    out(FCR, 0x01);
    ck_assert_uint_eq(in(LSR), 0x61);
    out(FCR, 0x03);
    ck_assert_uint_eq(in(LSR), 0x60);
}
END_TEST

START_TEST(loop_mode_as_linux_probes_it)
{
    out(MCR, 0x1a); /* loop, RTS, OUT2 */
    ck_assert_uint_eq(in(MSR)&0xf0, 0x90);
    in(MSR);
    out(MCR, 0x15);                   /* loop, DTR, OUT1 */
    ck_assert_uint_eq(in(MSR), 0x6b); /* DSR, RI; CTS, DSR and DCD changed; a rising RI is no trailing edge */
    out(MCR, 0x11);
    ck_assert_uint_eq(in(MSR), 0x24);
    ck_assert_uint_eq(in(MSR), 0x20);
}
END_TEST

START_TEST(loop_mode_receives_what_it_sends)
{
    out(FCR, 0x01);
    out(MCR, 0x10);
    ck_assert_uint_eq(uart16550_room(&uart), 0); /* SIN is disconnected */
    out(IER, 0x01);
    out(DATA, 'q');
    ck_assert_uint_eq(n_sent, 0);
    ck_assert(irq4);
    ck_assert_uint_eq(in(DATA), 'q');
    for (unsigned i = 0; i < 40; i++)
        out(DATA, (uint8_t)i);
    ck_assert_uint_eq(in(LSR), 0x63);
    ck_assert_uint_eq(in(DATA), 0);
}
END_TEST

START_TEST(the_modem_status_interrupt)
{
    in(MSR);
    out(IER, 0x08);
    ck_assert(!irq4);
    out(MCR, 0x10); /* CTS, DSR and DCD fall */
    ck_assert(irq4);
    ck_assert_uint_eq(in(IIR), 0x00);
    ck_assert_uint_eq(in(MSR), 0x0b);
    ck_assert(!irq4);
}
END_TEST

START_TEST(listening)
{
    ck_assert(!uart16550_is_listening(&uart));
    out(IER, 0x01); /* xv6 leaves MCR alone */
    ck_assert(uart16550_is_listening(&uart));
    out(IER, 0x00);
    out(MCR, 0x03);
    ck_assert(uart16550_is_listening(&uart));
}
END_TEST

START_TEST(nothing_arrives_while_the_guest_sets_the_port_up)
{
    set_115200_8n1();
    out(MCR, 0x03);
    ck_assert_uint_eq(uart16550_room(&uart), 0);
    pass(50000);
    out(FCR, 0x07);
    pass(50000);
    ck_assert_uint_eq(uart16550_room(&uart), 0);
    ck_assert_uint_eq(clock_next_deadline(&fake.clock), fake.now - 50000 + 86806);
    pass(40000);
    ck_assert_uint_eq(uart16550_room(&uart), 16);
    out(IER, 0x01); /* later interrupt enables do not hold input back */
    ck_assert_uint_eq(uart16550_room(&uart), 16);
}
END_TEST

START_TEST(a_divisor_of_zero_is_the_slowest)
{
    out(LCR, 0x83);
    out(DLL, 0);
    out(DLM, 0);
    out(LCR, 0x03);
    out(FCR, 0xc1);
    out(IER, 0x01);
    receive("a");
    pass(UINT64_C(22755555555));
    ck_assert(!irq4);
    pass(1);
    ck_assert(irq4);
}
END_TEST

START_TEST(any_sequence_of_writes_is_survived)
{
    uint32_t seed = 1;
    for (unsigned i = 0; i < 200000; i++) {
        seed = seed * 1664525 + 1013904223;
        unsigned reg = seed >> 29;
        if (seed >> 8 & 1)
            out(reg, (uint8_t)(seed >> 16));
        else if (seed >> 9 & 1)
            in(reg);
        else
            uart16550_receive(&uart, (uint8_t)(seed >> 16));
        pass(seed >> 10 & 0xffff);
        ck_assert_uint_le(uart.fifo_count, 16);
        n_sent = 0;
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("uart16550");
    TCase *tests = tcase_create("uart16550");
    tcase_add_checked_fixture(tests, setup, NULL);
    tcase_add_test(tests, master_reset);
    tcase_add_test(tests, registers_keep_what_can_be_written);
    tcase_add_test(tests, a_byte_is_sent_at_once);
    tcase_add_test(tests, the_transmit_interrupt);
    tcase_add_test(tests, without_fifo_one_character_waits);
    tcase_add_test(tests, the_fifo_interrupts_at_its_trigger_level);
    tcase_add_test(tests, the_receiver_times_out_after_four_characters);
    tcase_add_test(tests, a_full_fifo_keeps_what_it_has);
    tcase_add_test(tests, fcr_clears_the_fifo);
    tcase_add_test(tests, loop_mode_as_linux_probes_it);
    tcase_add_test(tests, loop_mode_receives_what_it_sends);
    tcase_add_test(tests, the_modem_status_interrupt);
    tcase_add_test(tests, listening);
    tcase_add_test(tests, nothing_arrives_while_the_guest_sets_the_port_up);
    tcase_add_test(tests, a_divisor_of_zero_is_the_slowest);
    tcase_add_test(tests, any_sequence_of_writes_is_survived);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
