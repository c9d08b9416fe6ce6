/*
 * The pair of programmable interrupt controllers: Intel 8259A data sheet (order number 231468), cascaded as
 * in the AT, with the edge/level control registers of the chipsets since (Intel 82371AB, "ELCR1, ELCR2").
 *
 * Read next: i8259.c, then lapic.h, where the pair's INT output ends.
 */
#ifndef RING3_I8259_H
#define RING3_I8259_H

#include "devices/devices.h"

#define I8259_MASTER_PORT  0x20
#define I8259_SLAVE_PORT   0xa0
#define I8259_ELCR_PORT    0x4d0
#define I8259_CASCADE_PIN  2 /* the master's input that the slave's INT drives */
#define I8259_SPURIOUS_PIN 7 /* what an acknowledge without a request yields */

/* Where the chip is in its initialisation sequence. The power-on state is I8259_UNINITIALISED: no interrupts.
 */
enum i8259_step { I8259_UNINITIALISED, I8259_EXPECT_ICW2, I8259_EXPECT_ICW3, I8259_EXPECT_ICW4, I8259_READY };

struct i8259 {
    enum i8259_step step;
    uint8_t lines;    /* levels of the inputs */
    uint8_t edges;    /* rises not yet acknowledged; a line that falls takes its rise back */
    uint8_t elcr;     /* 1: level-triggered */
    uint8_t imr;      /* 1: masked */
    bool imr_written; /* since ICW1, which clears it */
    uint8_t isr;      /* in service */
    uint8_t lowest;   /* the input of lowest priority; the next one up, cyclically, has the highest */

    uint8_t vector_base;       /* ICW2, T7-T3 */
    bool single, expects_icw4; /* ICW1 */
    bool special_fully_nested; /* ICW4 */
    bool auto_eoi, rotate_on_auto_eoi;
    bool special_mask; /* OCW3 */
    bool poll;         /* OCW3: the next read acknowledges */
    bool read_isr;     /* OCW3: which register port 0 reads */
};

struct i8259_pair {
    struct i8259 master, slave;
    struct irq_line intr; /* the master's INT output */
};

void i8259_init(struct i8259_pair *pair, struct irq_line intr);
void i8259_reset(struct i8259_pair *pair);

extern const struct bus_device_ops i8259_master_ops, i8259_slave_ops, i8259_elcr_ops; /* two ports each */

void i8259_set_pin(void *pair, unsigned irq,
                   bool level);                 /* for struct irq_line; irq 0-15, 2 is the cascade */
bool i8259_intr(const struct i8259_pair *pair); /* the INT output */
/* Has the guest opened this input: initialised the chip and then written a mask that lets it through? */
bool i8259_is_unmasked(const struct i8259_pair *pair, unsigned irq);
/* The INTA cycle: the vector of the request of highest priority, or the spurious one. */
uint8_t i8259_acknowledge(struct i8259_pair *pair);

#endif
