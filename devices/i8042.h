/*
 * The keyboard controller and the keyboard behind it: IBM PS/2 Hardware Interface Technical Reference,
 * "Keyboard and Auxiliary Device Controller" and "Keyboards". Also the old way to reset the machine and to
 * open the A20 gate.
 *
 * The connector of the auxiliary device (mouse) is missing: its clock line tests as stuck and it cannot be
 * enabled, which is how drivers find that out without waiting.
 *
 * Read next: i8042.c (the controller), i8042_keyboard.c (the keyboard), scancodes.c (the tables).
 */
#ifndef RING3_I8042_H
#define RING3_I8042_H

#include "devices/devices.h"

#define I8042_DATA_PORT    0x60
#define I8042_COMMAND_PORT 0x64

#define KEYBOARD_QUEUE 16

/* The keyboard: a device of its own, at the end of a two-wire cable. */
struct keyboard {
    uint8_t queue[KEYBOARD_QUEUE]; /* scan codes and answers, not yet sent */
    uint8_t queue_first, queue_count;
    uint8_t last_sent;     /* for the resend command */
    uint8_t command;       /* waits for its parameter; 0: none */
    bool scanning;         /* reports keys */
    uint8_t scan_code_set; /* 1 or 2 */
    uint8_t leds, typematic;
};

struct i8042 {
    struct keyboard keyboard;
    uint8_t ram[32];              /* byte 0 is the command byte */
    uint8_t output, output_flags; /* the output buffer, and its bits of the status register; no bits: empty */
    uint8_t reply, reply_flags;   /* the controller's own answer, until the output buffer is free */
    uint8_t command;              /* waits for its byte at port 0x60; 0: none */
    bool last_write_was_command;  /* status bit 3 */
    bool break_prefix_seen;       /* by the translation */
    bool a20_enabled;             /* output port bit 1 */
    bool attended;                /* the guest has made use of the keyboard */

    struct irq_line irq;
    const struct board_host *host;
};

void i8042_init(struct i8042 *kbc, struct irq_line irq, const struct board_host *host);
void i8042_reset(struct i8042 *kbc); /* as firmware leaves it: interrupt and translation on, A20 open */

extern const struct bus_device_ops i8042_data_ops, i8042_command_ops; /* one port each */

/* May the next character be typed? Not before the codes of the last have been read. */
bool i8042_can_type(const struct i8042 *kbc);
/* Presses and releases the keys that type the character. One that no key types is dropped. */
void i8042_type(struct i8042 *kbc, uint8_t character);

/* ---- between the controller and the keyboard (i8042_keyboard.c) ---------------------------------------- */

void keyboard_reset(struct keyboard *keyboard);
void keyboard_command(struct keyboard *keyboard, uint8_t byte); /* a byte from the controller */
void keyboard_type(struct keyboard *keyboard, uint8_t character);
bool keyboard_send(struct keyboard *keyboard, uint8_t *byte); /* the next byte to the controller, if any */

#endif
