/*
 * Scan codes: which key types a character, and the controller's translation from set 2 to set 1.
 */
#ifndef RING3_SCANCODES_H
#define RING3_SCANCODES_H

#include <stdint.h>

/* Set 2 make codes of the keys that matter here; the break code is the same after SCANCODE_BREAK. */
#define SCANCODE_BREAK         0xf0
#define SCANCODE_SET1_RELEASED 0x80 /* set 1: a bit of the break code */
#define SCANCODE_LEFT_SHIFT    0x12
#define SCANCODE_LEFT_CTRL     0x14

enum scancode_modifier { SCANCODE_PLAIN, SCANCODE_SHIFT, SCANCODE_CTRL };

struct scancode {
    uint8_t code; /* set 2, 0: no key types this character */
    uint8_t modifier;
};

/* On a US keyboard. */
struct scancode scancode_of_character(uint8_t character);
/* A make code. What is in no table passes unchanged. */
uint8_t scancode_translate(uint8_t set2);

#endif
