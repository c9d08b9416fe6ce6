/*
 * The I/O APIC: Intel 82093AA data sheet (order number 290566). 24 inputs, each with a redirection entry that
 * says which interrupt message an event on the input becomes. Memory-mapped at IOAPIC_BASE as an index
 * register and a data window.
 *
 * A line handle carries "asserted", not volts, so an entry's polarity bit is kept and has no effect: the
 * board would have wired an inverter.
 *
 * Read next: lapic.h, the receiver.
 */
#ifndef RING3_IOAPIC_H
#define RING3_IOAPIC_H

#include "devices/apic.h"
#include "devices/devices.h"

#define IOAPIC_BASE    0xfec00000u
#define IOAPIC_LAST    0xfec00fffu
#define IOAPIC_PINS    24
#define IOAPIC_VERSION 0x11u

struct ioapic {
    uint8_t index; /* IOREGSEL */
    uint8_t id;    /* 4 bits */
    uint64_t redirection[IOAPIC_PINS];
    bool asserted[IOAPIC_PINS]; /* the pins */

    /* Sends to the local APIC; false: not accepted. */
    bool (*deliver)(void *ctx, const struct apic_message *message);
    void *ctx;
};

void ioapic_init(struct ioapic *ioapic, bool (*deliver)(void *ctx, const struct apic_message *message),
                 void *ctx);
void ioapic_reset(struct ioapic *ioapic); /* every input masked, ID 0 */

/* Firmware's part, done by the board after reset: the ID that the MP table announces. Kernels compare the
 * two. */
void ioapic_set_id(struct ioapic *ioapic, uint8_t id);

extern const struct bus_device_ops ioapic_ops; /* IOAPIC_BASE..IOAPIC_LAST */

bool ioapic_is_masked(const struct ioapic *ioapic, unsigned pin);
void ioapic_set_pin(void *ioapic, unsigned pin, bool level); /* for struct irq_line; ctx is the ioapic */
void ioapic_eoi(void *ioapic, uint8_t vector);               /* the local APIC's EOI broadcast */

#endif
