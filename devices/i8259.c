/*
 * i8259: requests, priorities and the end-of-interrupt commands of the 8259A pair. Numbers such as "ICW1" are
 * the names of the data sheet (Intel 231468).
 *
 * A request is a line that is high and, on an edge-triggered input, has risen since it was last acknowledged.
 * As on the chip a line that falls too early takes its request back, and the acknowledge then finds nothing
 * and yields input 7: the spurious interrupt. Not implemented, being outside the PC: MCS-80 mode and buffered
 * mode; their bits are accepted and have no effect.
 *
 * Read next: board.c for what drives the inputs.
 */
#include "devices/i8259.h"

#define ICW1_IC4     0x01 /* an ICW4 will follow */
#define ICW1_SNGL    0x02
#define ICW1_SELECT  0x10
#define ICW4_AEOI    0x02
#define ICW4_SFNM    0x10
#define OCW3_SELECT  0x08
#define OCW3_RIS     0x01
#define OCW3_RR      0x02
#define OCW3_POLL    0x04
#define OCW3_SMM     0x20
#define OCW3_ESMM    0x40
#define POLL_PENDING 0x80

/* ELCR bits that can be set: not the timer, keyboard, cascade, RTC and coprocessor inputs (82371AB, ELCR1/2).
 */
#define ELCR_MASTER_MASK 0xf8
#define ELCR_SLAVE_MASK  0xde

#define NO_PIN 8u

static uint8_t bit(unsigned pin)
{
    return (uint8_t)(1u << pin);
}

static uint8_t chip_requests(const struct i8259 *chip)
{
    return chip->lines & (chip->elcr | chip->edges);
}

/* The input of highest priority among `pins`, or NO_PIN. */
static unsigned chip_highest(const struct i8259 *chip, uint8_t pins)
{
    unsigned first = (chip->lowest + 1u) % 8;
    unsigned from_first = (pins | pins << 8) >> first & 0xff;

    return from_first == 0 ? NO_PIN : (first + (unsigned)__builtin_ctz(from_first)) % 8;
}

/* How many inputs come before this one. NO_PIN comes after all. */
static unsigned chip_rank(const struct i8259 *chip, unsigned pin)
{
    return pin == NO_PIN ? 8 : (pin + 7 - chip->lowest) % 8;
}

/* The input whose request INT stands for now, or NO_PIN. */
static unsigned chip_pending(const struct i8259 *chip)
{
    if (chip->step != I8259_READY)
        return NO_PIN;
    unsigned request = chip_highest(chip, chip_requests(chip) & ~chip->imr);
    if (request == NO_PIN)
        return NO_PIN;

    uint8_t blocking = chip->isr;
    if (chip->special_mask)
        blocking &= ~chip->imr;
    /* A slave's further requests pass while one of its requests is in service. */
    if (chip->special_fully_nested && request == I8259_CASCADE_PIN)
        blocking &= ~bit(I8259_CASCADE_PIN);
    unsigned in_service = chip_highest(chip, blocking);
    return chip_rank(chip, request) < chip_rank(chip, in_service) ? request : NO_PIN;
}

static void chip_set_line(struct i8259 *chip, unsigned pin, bool level)
{
    if (!level) {
        chip->lines &= ~bit(pin);
        chip->edges &= ~bit(pin);
    } else if (!(chip->lines & bit(pin))) {
        chip->lines |= bit(pin);
        chip->edges |= bit(pin);
    }
}

/* One chip's part of an INTA cycle, or of a poll. Returns the input, or NO_PIN. */
static unsigned chip_acknowledge(struct i8259 *chip)
{
    unsigned pin = chip_pending(chip);

    if (pin == NO_PIN)
        return NO_PIN;
    chip->edges &= ~bit(pin);
    if (!chip->auto_eoi)
        chip->isr |= bit(pin);
    else if (chip->rotate_on_auto_eoi)
        chip->lowest = (uint8_t)pin;
    return pin;
}

/* ---- the pair ------------------------------------------------------------------------------------------ */

/* After any change: the slave's INT is the master's input 2, and the master's INT is the pair's. */
static void pair_settle(struct i8259_pair *pair)
{
    chip_set_line(&pair->master, I8259_CASCADE_PIN, chip_pending(&pair->slave) != NO_PIN);
    irq_set(&pair->intr, i8259_intr(pair));
}

bool i8259_intr(const struct i8259_pair *pair)
{
    return chip_pending(&pair->master) != NO_PIN;
}

bool i8259_is_unmasked(const struct i8259_pair *pair, unsigned irq)
{
    const struct i8259 *chip = irq < 8 ? &pair->master : &pair->slave;
    return chip->step == I8259_READY && chip->imr_written && !(chip->imr & bit(irq % 8));
}

void i8259_set_pin(void *device, unsigned irq, bool level)
{
    struct i8259_pair *pair = device;

    if (irq == I8259_CASCADE_PIN)
        return; /* no card reaches this input */
    chip_set_line(irq < 8 ? &pair->master : &pair->slave, irq % 8, level);
    pair_settle(pair);
}

/* The slave drops its INT for a moment with every acknowledge, so that a further request is a new edge. */
static unsigned slave_acknowledge(struct i8259_pair *pair)
{
    unsigned pin = chip_acknowledge(&pair->slave);

    chip_set_line(&pair->master, I8259_CASCADE_PIN, false);
    return pin;
}

uint8_t i8259_acknowledge(struct i8259_pair *pair)
{
    struct i8259 *chip = &pair->master;
    unsigned pin = chip_acknowledge(&pair->master);

    if (pin == I8259_CASCADE_PIN && !pair->master.single) {
        chip = &pair->slave;
        pin = slave_acknowledge(pair);
    }
    if (pin == NO_PIN)
        pin = I8259_SPURIOUS_PIN;
    pair_settle(pair);
    return (uint8_t)(chip->vector_base | pin);
}

/* ---- registers ----------------------------------------------------------------------------------------- */

/* "The following occurs automatically" in the data sheet's section on ICW1. */
static void chip_write_icw1(struct i8259 *chip, uint8_t value)
{
    chip->step = I8259_EXPECT_ICW2;
    chip->single = value & ICW1_SNGL;
    chip->expects_icw4 = value & ICW1_IC4;
    chip->edges = 0; /* the edge sense circuit waits for a new rise */
    chip->imr = 0;
    chip->imr_written = false;
    chip->isr = 0;
    chip->lowest = 7;
    chip->special_mask = false;
    chip->poll = false;
    chip->read_isr = false;
    chip->rotate_on_auto_eoi = false;
    chip->special_fully_nested = false;
    chip->auto_eoi = false;
}

static void chip_end_interrupt(struct i8259 *chip, unsigned pin, bool rotate)
{
    if (pin == NO_PIN)
        return;
    chip->isr &= ~bit(pin);
    if (rotate)
        chip->lowest = (uint8_t)pin;
}

static void chip_write_ocw2(struct i8259 *chip, uint8_t value)
{
    unsigned pin = value & 7;
    /* "An IS bit that is masked will not be cleared by a non-specific EOI" in special mask mode. */
    uint8_t endable = chip->special_mask ? chip->isr & ~chip->imr : chip->isr;

    switch (value >> 5) { /* R, SL, EOI */
    case 0:
        chip->rotate_on_auto_eoi = false;
        break;
    case 1:
        chip_end_interrupt(chip, chip_highest(chip, endable), false);
        break;
    case 2: /* no operation */
        break;
    case 3:
        chip_end_interrupt(chip, pin, false);
        break;
    case 4:
        chip->rotate_on_auto_eoi = true;
        break;
    case 5:
        chip_end_interrupt(chip, chip_highest(chip, endable), true);
        break;
    case 6:
        chip->lowest = (uint8_t)pin;
        break;
    case 7:
        chip_end_interrupt(chip, pin, true);
        break;
    }
}

static void chip_write_ocw3(struct i8259 *chip, uint8_t value)
{
    if (value & OCW3_ESMM)
        chip->special_mask = value & OCW3_SMM;
    if (value & OCW3_POLL)
        chip->poll = true;
    else if (value & OCW3_RR)
        chip->read_isr = value & OCW3_RIS;
}

static enum i8259_step chip_step_after_icw3(const struct i8259 *chip)
{
    return chip->expects_icw4 ? I8259_EXPECT_ICW4 : I8259_READY;
}

/* The odd port: the rest of the initialisation sequence, or the mask (OCW1). */
static void chip_write_data(struct i8259 *chip, uint8_t value)
{
    switch (chip->step) {
    case I8259_EXPECT_ICW2:
        chip->vector_base = value & 0xf8;
        chip->step = chip->single ? chip_step_after_icw3(chip) : I8259_EXPECT_ICW3;
        break;
    case I8259_EXPECT_ICW3: /* which pin the slave is on: the wiring says so, whatever the guest writes */
        chip->step = chip_step_after_icw3(chip);
        break;
    case I8259_EXPECT_ICW4:
        chip->auto_eoi = value & ICW4_AEOI;
        chip->special_fully_nested = value & ICW4_SFNM;
        chip->step = I8259_READY;
        break;
    case I8259_UNINITIALISED:
    case I8259_READY:
        chip->imr = value;
        chip->imr_written = true;
        break;
    }
}

static void chip_write(struct i8259_pair *pair, struct i8259 *chip, uint32_t offset, uint8_t value)
{
    if (offset == 1)
        chip_write_data(chip, value);
    else if (value & ICW1_SELECT)
        chip_write_icw1(chip, value);
    else if (value & OCW3_SELECT)
        chip_write_ocw3(chip, value);
    else
        chip_write_ocw2(chip, value);
    pair_settle(pair);
}

/* The poll command makes the next read, of either port, an acknowledge. */
static uint8_t chip_poll(struct i8259_pair *pair, struct i8259 *chip)
{
    chip->poll = false;
    unsigned pin = chip == &pair->slave ? slave_acknowledge(pair) : chip_acknowledge(chip);
    pair_settle(pair);
    return pin == NO_PIN ? 0 : (uint8_t)(POLL_PENDING | pin);
}

static uint8_t chip_read(struct i8259_pair *pair, struct i8259 *chip, uint32_t offset)
{
    if (chip->poll)
        return chip_poll(pair, chip);
    if (offset == 1)
        return chip->imr;
    return chip->read_isr ? chip->isr : chip_requests(chip);
}

static uint32_t master_read(void *device, uint32_t offset, unsigned size)
{
    struct i8259_pair *pair = device;
    (void)size;
    return chip_read(pair, &pair->master, offset);
}

static void master_write(void *device, uint32_t offset, unsigned size, uint32_t value)
{
    struct i8259_pair *pair = device;
    (void)size;
    chip_write(pair, &pair->master, offset, (uint8_t)value);
}

static uint32_t slave_read(void *device, uint32_t offset, unsigned size)
{
    struct i8259_pair *pair = device;
    (void)size;
    return chip_read(pair, &pair->slave, offset);
}

static void slave_write(void *device, uint32_t offset, unsigned size, uint32_t value)
{
    struct i8259_pair *pair = device;
    (void)size;
    chip_write(pair, &pair->slave, offset, (uint8_t)value);
}

static uint32_t elcr_read(void *device, uint32_t offset, unsigned size)
{
    const struct i8259_pair *pair = device;
    (void)size;
    return offset == 0 ? pair->master.elcr : pair->slave.elcr;
}

static void elcr_write(void *device, uint32_t offset, unsigned size, uint32_t value)
{
    struct i8259_pair *pair = device;
    (void)size;
    if (offset == 0)
        pair->master.elcr = value & ELCR_MASTER_MASK;
    else
        pair->slave.elcr = value & ELCR_SLAVE_MASK;
    pair_settle(pair);
}

const struct bus_device_ops i8259_master_ops = {.read = master_read, .write = master_write, .max_size = 1};
const struct bus_device_ops i8259_slave_ops = {.read = slave_read, .write = slave_write, .max_size = 1};
const struct bus_device_ops i8259_elcr_ops = {.read = elcr_read, .write = elcr_write, .max_size = 1};

/* The lines are driven by others and stay as they are; a line that is high must fall before it can rise. */
static void chip_reset(struct i8259 *chip)
{
    *chip = (struct i8259){.step = I8259_UNINITIALISED, .lines = chip->lines, .lowest = 7};
}

void i8259_reset(struct i8259_pair *pair)
{
    chip_reset(&pair->master);
    chip_reset(&pair->slave);
    pair_settle(pair);
}

void i8259_init(struct i8259_pair *pair, struct irq_line intr)
{
    *pair = (struct i8259_pair){.intr = intr};
    i8259_reset(pair);
}
