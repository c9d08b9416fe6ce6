/*
 * The I/O APIC (Intel 82093AA data sheet; section numbers below are its). See ioapic.h for the shape of it.
 *
 * Read next: lapic_interrupts.c.
 */
#include "devices/ioapic.h"

#include <string.h>

/* 3.1: the two memory-mapped registers */
#define IOREGSEL 0x00u
#define IOWIN    0x10u

/* 3.2: what IOREGSEL selects */
#define REG_ID          0x00
#define REG_VERSION     0x01
#define REG_ARBITRATION 0x02
#define REG_REDIRECTION 0x10 /* two 32-bit halves for each pin, low half first */

/* 3.2.4: redirection entry */
#define ENTRY_VECTOR          0xffu
#define ENTRY_MODE_SHIFT      8
#define ENTRY_LOGICAL         (1u << 11)
#define ENTRY_DELIVERY_STATUS (1u << 12) /* read-only; delivery is immediate here, so always idle */
#define ENTRY_REMOTE_IRR      (1u << 14) /* read-only */
#define ENTRY_LEVEL           (1u << 15)
#define ENTRY_MASKED          (1u << 16)
#define ENTRY_LOW_WRITABLE    0x0001afffu
#define ENTRY_HIGH_WRITABLE   0xff000000u
#define ENTRY_DESTINATION     56

static bool entry_is_level(uint64_t entry)
{
    /* The trigger bit counts for fixed and lowest priority; the other modes are edges (3.2.4, "Delivery
     * Mode"). */
    unsigned mode = entry >> ENTRY_MODE_SHIFT & 7;
    return (entry & ENTRY_LEVEL) && (mode == APIC_FIXED || mode == APIC_LOWEST_PRIORITY);
}

static bool send(struct ioapic *ioapic, unsigned pin)
{
    uint64_t entry = ioapic->redirection[pin];
    struct apic_message message = {
        .mode = (enum apic_delivery_mode)(entry >> ENTRY_MODE_SHIFT & 7),
        .vector = entry & ENTRY_VECTOR,
        .destination = (uint8_t)(entry >> ENTRY_DESTINATION),
        .logical = entry & ENTRY_LOGICAL,
        .level = entry_is_level(entry),
    };
    return ioapic->deliver(ioapic->ctx, &message);
}

/* A level-triggered input asks once until EOI. One that the local APIC did not accept (it was disabled) asks
 * again when the line is driven or the entry is written. */
static void service_level(struct ioapic *ioapic, unsigned pin)
{
    uint64_t entry = ioapic->redirection[pin];

    if (!entry_is_level(entry) || !ioapic->asserted[pin] || (entry & (ENTRY_MASKED | ENTRY_REMOTE_IRR)))
        return;
    if (send(ioapic, pin))
        ioapic->redirection[pin] |= ENTRY_REMOTE_IRR;
}

bool ioapic_is_masked(const struct ioapic *ioapic, unsigned pin)
{
    return ioapic->redirection[pin] & ENTRY_MASKED;
}

void ioapic_set_pin(void *ctx, unsigned pin, bool level)
{
    struct ioapic *ioapic = ctx;

    if (pin >= IOAPIC_PINS)
        return;
    bool is_rising = level && !ioapic->asserted[pin];
    ioapic->asserted[pin] = level;

    uint64_t entry = ioapic->redirection[pin];
    if (entry_is_level(entry))
        service_level(ioapic, pin);
    else if (is_rising && !(entry & ENTRY_MASKED)) /* an edge on a masked input is not held (3.2.4) */
        send(ioapic, pin);
}

void ioapic_eoi(void *ctx, uint8_t vector)
{
    struct ioapic *ioapic = ctx;

    for (unsigned pin = 0; pin < IOAPIC_PINS; pin++) {
        uint64_t entry = ioapic->redirection[pin];
        if (!entry_is_level(entry) || (entry & ENTRY_VECTOR) != vector)
            continue;
        ioapic->redirection[pin] &= ~(uint64_t)ENTRY_REMOTE_IRR;
        service_level(ioapic, pin);
    }
}

void ioapic_set_id(struct ioapic *ioapic, uint8_t id)
{
    ioapic->id = id & 0xf;
}

static uint32_t read_register(const struct ioapic *ioapic)
{
    switch (ioapic->index) {
    case REG_ID:
    case REG_ARBITRATION: /* 3.2.3: loaded with the ID */
        return (uint32_t)ioapic->id << 24;
    case REG_VERSION:
        return (IOAPIC_PINS - 1) << 16 | IOAPIC_VERSION;
    }
    unsigned half = (unsigned)ioapic->index - REG_REDIRECTION;
    if (ioapic->index < REG_REDIRECTION || half >= 2 * IOAPIC_PINS)
        return 0; /* reserved */
    return (uint32_t)(ioapic->redirection[half / 2] >> (half & 1 ? 32 : 0));
}

static void write_entry_low(struct ioapic *ioapic, unsigned pin, uint32_t value)
{
    uint64_t *entry = &ioapic->redirection[pin];

    *entry = (*entry & ~(uint64_t)ENTRY_LOW_WRITABLE) | (value & ENTRY_LOW_WRITABLE);
    /* Remote IRR is defined for level-triggered entries only. Kernels rely on a turn to edge clearing it. */
    if (!entry_is_level(*entry))
        *entry &= ~(uint64_t)ENTRY_REMOTE_IRR;
    service_level(ioapic, pin);
}

static void write_register(struct ioapic *ioapic, uint32_t value)
{
    if (ioapic->index == REG_ID) {
        ioapic_set_id(ioapic, (uint8_t)(value >> 24));
        return;
    }
    unsigned half = (unsigned)ioapic->index - REG_REDIRECTION;
    if (ioapic->index < REG_REDIRECTION || half >= 2 * IOAPIC_PINS)
        return; /* read-only or reserved */
    unsigned pin = half / 2;
    if (half & 1)
        ioapic->redirection[pin] =
            (uint32_t)ioapic->redirection[pin] | (uint64_t)(value & ENTRY_HIGH_WRITABLE) << 32;
    else
        write_entry_low(ioapic, pin, value);
}

/* 3.1: registers are accessed as 32-bit quantities. The index is one byte wide, so narrower accesses to it
 * work. */
static uint32_t ioapic_read(void *device, uint32_t offset, unsigned size)
{
    const struct ioapic *ioapic = device;

    if (offset == IOREGSEL)
        return ioapic->index;
    if (offset == IOWIN && size == 4)
        return read_register(ioapic);
    return 0;
}

static void ioapic_write(void *device, uint32_t offset, unsigned size, uint32_t value)
{
    struct ioapic *ioapic = device;

    if (offset == IOREGSEL)
        ioapic->index = (uint8_t)value;
    else if (offset == IOWIN && size == 4)
        write_register(ioapic, value);
}

const struct bus_device_ops ioapic_ops = {.read = ioapic_read, .write = ioapic_write, .max_size = 4};

void ioapic_reset(struct ioapic *ioapic)
{
    ioapic->index = 0;
    ioapic->id = 0;
    for (unsigned pin = 0; pin < IOAPIC_PINS; pin++)
        ioapic->redirection[pin] = ENTRY_MASKED;
    /* `asserted` is the wires: what drives them is reset on its own. */
}

void ioapic_init(struct ioapic *ioapic, bool (*deliver)(void *ctx, const struct apic_message *message),
                 void *ctx)
{
    memset(ioapic, 0, sizeof(*ioapic));
    ioapic->deliver = deliver;
    ioapic->ctx = ctx;
    ioapic_reset(ioapic);
}
