/*
 * The serial port: National Semiconductor PC16550D data sheet (the 16550A that kernels detect).
 *
 * Characters leave at once, so the transmitter is always empty again when the guest looks; they arrive as
 * fast as the guest takes them. The line speed matters in one place only, the receiver's timeout interrupt.
 *
 * The INTR output reaches the PIC whether or not OUT2 is set. A real PC gates it with OUT2, QEMU does not,
 * and xv6 relies on that. Read next: uart16550.c.
 */
#ifndef RING3_UART16550_H
#define RING3_UART16550_H

#include "devices/devices.h"

#define UART16550_COM1 0x3f8
#define UART16550_FIFO 16

struct uart16550 {
    uint8_t ier, lcr, mcr, scr;
    uint8_t lsr;   /* error bits only; the rest follows from the FIFO */
    uint8_t delta; /* MSR bits 3:0 */
    uint16_t divisor;
    bool fifo_enabled;
    uint8_t trigger; /* characters at which the receiver interrupts */

    uint8_t fifo[UART16550_FIFO]; /* the receiver's; without FIFO mode only one place is used */
    uint8_t fifo_first, fifo_count;
    bool receive_timeout;    /* characters have waited for four character times */
    bool transmit_interrupt; /* the holding register became empty, and IIR has not said so yet */
    bool settling;           /* just configured: nothing arrives within one character time */

    struct timer timeout_timer, settle_timer;
    struct clock *clock;
    struct irq_line irq;
    const struct board_host *host;
};

void uart16550_init(struct uart16550 *uart, struct clock *clock, struct irq_line irq,
                    const struct board_host *host);
void uart16550_reset(struct uart16550 *uart);

extern const struct bus_device_ops uart16550_ops; /* eight ports */

/* Is the guest ready to receive: has it raised RTS, or enabled the receive interrupt? */
bool uart16550_is_listening(const struct uart16550 *uart);
/* Characters that may arrive now without an overrun. */
size_t uart16550_room(const struct uart16550 *uart);
void uart16550_receive(struct uart16550 *uart, uint8_t byte);

#endif
