/*
 * uart16550: registers, FIFO and interrupts of the PC16550D. Section names are its data sheet's.
 *
 * The transmitter is infinitely fast: a byte written to THR is out before the write returns, so THRE and TEMT
 * are always set and the THRE interrupt is due again at once. Parity, framing and break never happen.
 *
 * Read next: board.c (board_console_input), which feeds the receiver.
 */
#include "devices/uart16550.h"

/* Register offsets; three are shared by different registers. */
enum {
    REG_DATA = 0, /* RBR, THR; DLL with DLAB */
    REG_IER = 1,  /* DLM with DLAB */
    REG_IIR = 2,  /* FCR when written */
    REG_LCR = 3,
    REG_MCR = 4,
    REG_LSR = 5,
    REG_MSR = 6,
    REG_SCR = 7,
};

#define IER_RECEIVED 0x01
#define IER_THRE     0x02
#define IER_LINE     0x04
#define IER_MODEM    0x08
#define IER_WRITABLE 0x0f

#define IIR_NONE     0x01
#define IIR_MODEM    0x00
#define IIR_THRE     0x02
#define IIR_RECEIVED 0x04
#define IIR_TIMEOUT  0x0c
#define IIR_LINE     0x06
#define IIR_FIFOS    0xc0

#define FCR_ENABLE         0x01
#define FCR_CLEAR_RECEIVER 0x02
#define FCR_TRIGGER(v)     ((v) >> 6)

#define LCR_WORD(v) (5 + ((v)&3)) /* bits */
#define LCR_STOP_2  0x04
#define LCR_PARITY  0x08
#define LCR_DLAB    0x80

#define MCR_DTR      0x01
#define MCR_RTS      0x02
#define MCR_OUT1     0x04
#define MCR_OUT2     0x08
#define MCR_LOOP     0x10
#define MCR_WRITABLE 0x1f

#define LSR_DR     0x01
#define LSR_OE     0x02
#define LSR_ERRORS 0x1e
#define LSR_THRE   0x20
#define LSR_TEMT   0x40

#define MSR_TERI 0x04
#define MSR_CTS  0x10
#define MSR_DSR  0x20
#define MSR_RI   0x40
#define MSR_DCD  0x80

#define CRYSTAL_HZ       1843200u
#define RECEIVE_TIMEOUT  4  /* character times, "FIFO Interrupt Mode Operation" */
#define FIRMWARE_DIVISOR 12 /* 9600 baud, */
#define FIRMWARE_LCR     3  /* 8N1 */

/* ---- what the guest has set up ------------------------------------------------------------------------- */

static unsigned uart_capacity(const struct uart16550 *uart)
{
    return uart->fifo_enabled ? UART16550_FIFO : 1;
}

/* The time one character takes on the line, in ns. A divisor of 0 divides by 65536, as a 16-bit counter does.
 */
static uint64_t uart_character_time(const struct uart16550 *uart)
{
    unsigned bits = 1 + LCR_WORD(uart->lcr) + !!(uart->lcr & LCR_PARITY) + (uart->lcr & LCR_STOP_2 ? 2 : 1);
    uint32_t divisor = uart->divisor == 0 ? 0x10000 : uart->divisor;

    return clock_from_ticks((uint64_t)bits * 16 * divisor, CRYSTAL_HZ);
}

static uint8_t uart_word_mask(const struct uart16550 *uart)
{
    return (uint8_t)(0xff >> (8 - LCR_WORD(uart->lcr)));
}

/* "Request to send" has come to mean "ready to receive". DTR alone does not: Linux raises it for its console
 * as it boots, and clears the FIFO when the port is opened, much later. */
bool uart16550_is_listening(const struct uart16550 *uart)
{
    return uart->mcr & MCR_RTS || uart->ier & IER_RECEIVED;
}

/* The modem's four lines: those of a terminal that is there and ready, or in loop mode our own outputs. */
static uint8_t uart_modem_lines(const struct uart16550 *uart)
{
    if (!(uart->mcr & MCR_LOOP))
        return MSR_CTS | MSR_DSR | MSR_DCD;
    return (uint8_t)((uart->mcr & MCR_RTS ? MSR_CTS : 0) | (uart->mcr & MCR_DTR ? MSR_DSR : 0) |
                     (uart->mcr & MCR_OUT1 ? MSR_RI : 0) | (uart->mcr & MCR_OUT2 ? MSR_DCD : 0));
}

/* ---- interrupts ---------------------------------------------------------------------------------------- */

/* "Interrupt Identification Register", in the order of the table there. */
static uint8_t uart_interrupt(const struct uart16550 *uart)
{
    unsigned trigger = uart->fifo_enabled ? uart->trigger : 1;

    if (uart->ier & IER_LINE && uart->lsr & LSR_ERRORS)
        return IIR_LINE;
    if (uart->ier & IER_RECEIVED && uart->fifo_count >= trigger)
        return IIR_RECEIVED;
    if (uart->ier & IER_RECEIVED && uart->receive_timeout)
        return IIR_TIMEOUT;
    if (uart->ier & IER_THRE && uart->transmit_interrupt)
        return IIR_THRE;
    if (uart->ier & IER_MODEM && uart->delta)
        return IIR_MODEM;
    return IIR_NONE;
}

static void uart_drive(struct uart16550 *uart)
{
    irq_set(&uart->irq, uart_interrupt(uart) != IIR_NONE);
}

/* A character came or was read: the four character times begin anew. */
static void uart_restart_timeout(struct uart16550 *uart)
{
    uart->receive_timeout = false;
    if (uart->fifo_enabled && uart->fifo_count > 0)
        clock_arm(uart->clock, &uart->timeout_timer,
                  clock_now(uart->clock) + RECEIVE_TIMEOUT * uart_character_time(uart));
    else
        clock_disarm(uart->clock, &uart->timeout_timer);
}

static void uart_timed_out(void *device)
{
    struct uart16550 *uart = device;
    uart->receive_timeout = true;
    uart_drive(uart);
}

/* ---- receiver ------------------------------------------------------------------------------------------ */

static void uart_clear_fifo(struct uart16550 *uart)
{
    uart->fifo_first = 0;
    uart->fifo_count = 0;
    uart_restart_timeout(uart);
}

/* A character has arrived. On overrun the FIFO keeps what it has; the single holding register does not. */
static void uart_shift_in(struct uart16550 *uart, uint8_t byte)
{
    if (uart->fifo_count == uart_capacity(uart)) {
        uart->lsr |= LSR_OE;
        if (uart->fifo_enabled)
            return;
        uart->fifo_count = 0;
    }
    uart->fifo[(uart->fifo_first + uart->fifo_count) % UART16550_FIFO] = byte & uart_word_mask(uart);
    uart->fifo_count++;
    uart_restart_timeout(uart);
}

static uint8_t uart_read_data(struct uart16550 *uart)
{
    uint8_t byte = uart->fifo[uart->fifo_first]; /* if empty: what this place held before */

    if (uart->fifo_count > 0) {
        uart->fifo_first = (uart->fifo_first + 1) % UART16550_FIFO;
        uart->fifo_count--;
        uart_restart_timeout(uart);
    }
    return byte;
}

/* The guest sets the port up. Drivers raise RTS before they clear the FIFO: a character that came in between
 * would be lost, and no real one comes that fast, so hold them back for one character time. */
static void uart_settle(struct uart16550 *uart)
{
    uart->settling = true;
    clock_arm(uart->clock, &uart->settle_timer, clock_now(uart->clock) + uart_character_time(uart));
}

static void uart_settle_if_newly_listening(struct uart16550 *uart, bool listened)
{
    if (!listened && uart16550_is_listening(uart))
        uart_settle(uart);
}

static void uart_settled(void *device)
{
    struct uart16550 *uart = device;
    uart->settling = false;
}

size_t uart16550_room(const struct uart16550 *uart)
{
    if (uart->settling || uart->mcr & MCR_LOOP || uart->fifo_count >= uart_capacity(uart))
        return 0;
    return uart_capacity(uart) - uart->fifo_count;
}

void uart16550_receive(struct uart16550 *uart, uint8_t byte)
{
    uart_shift_in(uart, byte);
    uart_drive(uart);
}

/* ---- registers ----------------------------------------------------------------------------------------- */

static void uart_write_data(struct uart16550 *uart, uint8_t byte)
{
    byte &= uart_word_mask(uart);
    if (uart->mcr & MCR_LOOP)
        uart_shift_in(uart, byte);
    else
        uart->host->console_write(uart->host->ctx, &byte, 1);
    uart->transmit_interrupt = true; /* reset by the write, and set again: the register is empty */
}

static void uart_write_ier(struct uart16550 *uart, uint8_t value)
{
    bool listened = uart16550_is_listening(uart);

    if (value & ~uart->ier & IER_THRE)
        uart->transmit_interrupt = true; /* enabling it while THRE is set raises it */
    uart->ier = value & IER_WRITABLE;
    uart_settle_if_newly_listening(uart, listened);
}

static void uart_write_fcr(struct uart16550 *uart, uint8_t value)
{
    static const uint8_t triggers[4] = {1, 4, 8, 14};
    bool enable = value & FCR_ENABLE;

    if (enable != uart->fifo_enabled || (enable && value & FCR_CLEAR_RECEIVER)) {
        uart->fifo_enabled = enable;
        uart_clear_fifo(uart);
    }
    if (enable) /* "must be a 1 when other FCR bits are written to or they will not be programmed" */
        uart->trigger = triggers[FCR_TRIGGER(value)];
    uart_settle(uart);
}

/* Loop mode switches the modem inputs over, and then our own outputs move them. */
static void uart_write_mcr(struct uart16550 *uart, uint8_t value)
{
    bool listened = uart16550_is_listening(uart);
    uint8_t before = uart_modem_lines(uart);

    uart->mcr = value & MCR_WRITABLE;
    uint8_t after = uart_modem_lines(uart), changed = (before ^ after) >> 4;
    if (after & MSR_RI)
        changed &= ~MSR_TERI; /* RI: only the end of ringing counts */
    uart->delta |= changed;
    uart_settle_if_newly_listening(uart, listened);
}

static void uart_write_divisor(struct uart16550 *uart, uint32_t offset, uint8_t value)
{
    if (offset == REG_DATA)
        uart->divisor = (uart->divisor & 0xff00) | value;
    else
        uart->divisor = (uint16_t)((uart->divisor & 0x00ff) | value << 8);
}

static void uart_write(void *device, uint32_t offset, unsigned size, uint32_t value32)
{
    struct uart16550 *uart = device;
    uint8_t value = (uint8_t)value32;
    (void)size;

    if (offset <= REG_IER && uart->lcr & LCR_DLAB) {
        uart_write_divisor(uart, offset, value);
        return;
    }
    switch (offset) {
    case REG_DATA:
        uart_write_data(uart, value);
        break;
    case REG_IER:
        uart_write_ier(uart, value);
        break;
    case REG_IIR:
        uart_write_fcr(uart, value);
        break;
    case REG_LCR:
        uart->lcr = value;
        uart_settle(uart);
        break;
    case REG_MCR:
        uart_write_mcr(uart, value);
        break;
    case REG_SCR:
        uart->scr = value;
        break;
    default: /* LSR and MSR: writing is for factory tests */
        break;
    }
    uart_drive(uart);
}

/* "The CPU ... reading the IIR" acknowledges the THRE interrupt, if that is what it reads. */
static uint8_t uart_read_iir(struct uart16550 *uart)
{
    uint8_t interrupt = uart_interrupt(uart);

    if (interrupt == IIR_THRE)
        uart->transmit_interrupt = false;
    return interrupt | (uart->fifo_enabled ? IIR_FIFOS : 0);
}

static uint8_t uart_read_lsr(struct uart16550 *uart)
{
    uint8_t value = uart->lsr | LSR_THRE | LSR_TEMT | (uart->fifo_count > 0 ? LSR_DR : 0);

    uart->lsr = 0;
    return value;
}

static uint8_t uart_read_msr(struct uart16550 *uart)
{
    uint8_t value = uart_modem_lines(uart) | uart->delta;

    uart->delta = 0;
    return value;
}

static uint8_t uart_read_register(struct uart16550 *uart, uint32_t offset)
{
    bool dlab = uart->lcr & LCR_DLAB;

    switch (offset) {
    case REG_DATA:
        return dlab ? (uint8_t)uart->divisor : uart_read_data(uart);
    case REG_IER:
        return dlab ? uart->divisor >> 8 : uart->ier;
    case REG_IIR:
        return uart_read_iir(uart);
    case REG_LCR:
        return uart->lcr;
    case REG_MCR:
        return uart->mcr;
    case REG_LSR:
        return uart_read_lsr(uart);
    case REG_MSR:
        return uart_read_msr(uart);
    default:
        return uart->scr;
    }
}

static uint32_t uart_read(void *device, uint32_t offset, unsigned size)
{
    struct uart16550 *uart = device;
    uint8_t value = uart_read_register(uart, offset);
    (void)size;

    uart_drive(uart);
    return value;
}

const struct bus_device_ops uart16550_ops = {.read = uart_read, .write = uart_write, .max_size = 1};

/* "Master Reset", but for the line format, which firmware sets and small guests rely on. */
void uart16550_reset(struct uart16550 *uart)
{
    clock_disarm(uart->clock, &uart->timeout_timer);
    clock_disarm(uart->clock, &uart->settle_timer);
    *uart = (struct uart16550){
        .divisor = FIRMWARE_DIVISOR,
        .lcr = FIRMWARE_LCR,
        .trigger = 1,
        .timeout_timer = {.fire = uart_timed_out, .ctx = uart},
        .settle_timer = {.fire = uart_settled, .ctx = uart},
        .clock = uart->clock,
        .irq = uart->irq,
        .host = uart->host,
    };
    uart_drive(uart);
}

void uart16550_init(struct uart16550 *uart, struct clock *clock, struct irq_line irq,
                    const struct board_host *host)
{
    *uart = (struct uart16550){.clock = clock, .irq = irq, .host = host};
    uart16550_reset(uart);
}
