/*
 * The programmable interval timer: Intel 8254 data sheet (order number 231164), and port 0x61 of the PC,
 * which gates its channel 2 and shows two outputs.
 *
 * Channel 0 drives IRQ 0, channel 1 timed DRAM refresh (only its toggle bit in port 0x61 is left), channel 2
 * the speaker. Read next: i8254.c.
 */
#ifndef RING3_I8254_H
#define RING3_I8254_H

#include "devices/devices.h"

#define I8254_PORT        0x40
#define I8254_PORT_B      0x61
#define I8254_HZ          1193182u
#define I8254_CHANNELS    3
#define I8254_SPEAKER     2   /* the channel that port 0x61 gates */
#define I8254_REFRESH_CLK 18u /* CLK pulses between DRAM refreshes, as every BIOS set channel 1 up */

/* How a 16-bit count goes through the 8-bit port: the RW bits of the control word. */
enum i8254_access { I8254_LATCH, I8254_LSB, I8254_MSB, I8254_LSB_MSB };

/* A moment or a duration in CLK pulses since power-on. Signed: a moment may lie before power-on. */
typedef int64_t i8254_clk;

struct i8254_channel {
    uint8_t mode; /* 0-5 */
    bool bcd;
    enum i8254_access access;
    bool gate;

    /* The counting element: it holds `count` at `start`, and one less at each later pulse. */
    bool running;         /* loaded since the control word, or about to be (start is ahead) */
    bool paused;          /* GATE stopped it `elapsed` pulses after its load (not in modes 1 and 5) */
    bool out_until_start; /* OUT while there is no load, or before it takes effect */
    uint32_t count;       /* in pulses, 1-65536 */
    i8254_clk start, elapsed;

    /* The count register, for the next load. */
    uint32_t next_count;  /* in pulses; 0: not written since the control word */
    bool next_pending;    /* not loaded yet; the status byte calls it null count */
    i8254_clk next_start; /* when the running period ends and it will be loaded (modes 2 and 3) */

    /* The bus side. */
    bool write_msb_next, read_msb_next;
    uint8_t written_lsb;
    bool count_latched, status_latched;
    uint16_t latched_count;
    uint8_t latched_status;
};

struct i8254 {
    struct i8254_channel channel[I8254_CHANNELS];
    uint8_t port_b;     /* port 0x61, the four bits that can be written */
    bool irq_level;     /* OUT of channel 0 as last driven, */
    i8254_clk irq_time; /* and when */

    struct timer timer; /* the next change of channel 0's OUT */
    struct clock *clock;
    struct irq_line irq;
};

void i8254_init(struct i8254 *pit, struct clock *clock, struct irq_line irq);
void i8254_reset(struct i8254 *pit); /* no channel counts until it is programmed */

extern const struct bus_device_ops i8254_ops;        /* four ports */
extern const struct bus_device_ops i8254_port_b_ops; /* port 0x61 */

#endif
