/*
 * i8042_keyboard: an enhanced (102-key) keyboard, its command set, and typing on it (IBM PS/2 Hardware
 * Interface Technical Reference, "Keyboards", sections "Commands from the System" and "Scan Codes").
 *
 * Not there: scan code set 3 and the commands that only it has. They are answered by "resend", as keyboards
 * do that lack them. Keys are pressed and released at once, so the typematic rate is kept and never used.
 *
 * Read next: i8042.c, the other end of the cable.
 */
#include "devices/i8042.h"
#include "devices/scancodes.h"

enum keyboard_byte {
    KBD_SET_LEDS = 0xed,
    KBD_ECHO = 0xee,
    KBD_SCAN_CODE_SET = 0xf0,
    KBD_READ_ID = 0xf2,
    KBD_SET_TYPEMATIC = 0xf3,
    KBD_ENABLE = 0xf4,
    KBD_DEFAULT_DISABLE = 0xf5,
    KBD_SET_DEFAULT = 0xf6,
    KBD_RESEND = 0xfe,
    KBD_RESET = 0xff,

    KBD_FIRST_COMMAND = 0xed, /* no parameter is as large */

    KBD_ANSWER_ACK = 0xfa,
    KBD_ANSWER_RESEND = 0xfe,
    KBD_ANSWER_TEST_PASSED = 0xaa,
};

#define KBD_DEFAULT_TYPEMATIC 0x2b /* 10.9 a second after 500 ms */

/* The real buffer has 16 places as well; what does not fit is lost. */
static void keyboard_queue(struct keyboard *keyboard, uint8_t byte)
{
    if (keyboard->queue_count == KEYBOARD_QUEUE)
        return;
    keyboard->queue[(keyboard->queue_first + keyboard->queue_count) % KEYBOARD_QUEUE] = byte;
    keyboard->queue_count++;
}

bool keyboard_send(struct keyboard *keyboard, uint8_t *byte)
{
    if (keyboard->queue_count == 0)
        return false;
    *byte = keyboard->last_sent = keyboard->queue[keyboard->queue_first];
    keyboard->queue_first = (keyboard->queue_first + 1) % KEYBOARD_QUEUE;
    keyboard->queue_count--;
    return true;
}

static void keyboard_set_default(struct keyboard *keyboard)
{
    keyboard->queue_count = 0;
    keyboard->scan_code_set = 2;
    keyboard->typematic = KBD_DEFAULT_TYPEMATIC;
}

void keyboard_reset(struct keyboard *keyboard)
{
    *keyboard = (struct keyboard){.scanning = true};
    keyboard_set_default(keyboard);
}

/* ---- commands ------------------------------------------------------------------------------------------ */

static void keyboard_select_set(struct keyboard *keyboard, uint8_t set)
{
    if (set > 2) {
        keyboard_queue(keyboard, KBD_ANSWER_RESEND);
        return;
    }
    keyboard_queue(keyboard, KBD_ANSWER_ACK);
    if (set == 0) /* a question */
        keyboard_queue(keyboard, keyboard->scan_code_set);
    else
        keyboard->scan_code_set = set;
}

static void keyboard_parameter(struct keyboard *keyboard, uint8_t command, uint8_t byte)
{
    if (command == KBD_SCAN_CODE_SET) {
        keyboard_select_set(keyboard, byte);
        return;
    }
    if (command == KBD_SET_LEDS)
        keyboard->leds = byte & 7;
    else
        keyboard->typematic = byte & 0x7f;
    keyboard_queue(keyboard, KBD_ANSWER_ACK);
}

void keyboard_command(struct keyboard *keyboard, uint8_t byte)
{
    uint8_t command = keyboard->command;

    keyboard->command = 0;
    if (command != 0 && byte < KBD_FIRST_COMMAND) {
        keyboard_parameter(keyboard, command, byte);
        return;
    }
    switch (byte) {
    case KBD_SET_LEDS:
    case KBD_SCAN_CODE_SET:
    case KBD_SET_TYPEMATIC:
        keyboard->command = byte;
        keyboard_queue(keyboard, KBD_ANSWER_ACK);
        break;
    case KBD_ECHO:
        keyboard_queue(keyboard, KBD_ECHO);
        break;
    case KBD_READ_ID:
        keyboard_queue(keyboard, KBD_ANSWER_ACK);
        keyboard_queue(keyboard, 0xab);
        keyboard_queue(keyboard, 0x83);
        break;
    case KBD_ENABLE:
        keyboard->queue_count = 0;
        keyboard->scanning = true;
        keyboard_queue(keyboard, KBD_ANSWER_ACK);
        break;
    case KBD_DEFAULT_DISABLE:
        keyboard_set_default(keyboard);
        keyboard->scanning = false;
        keyboard_queue(keyboard, KBD_ANSWER_ACK);
        break;
    case KBD_SET_DEFAULT:
        keyboard_set_default(keyboard);
        keyboard_queue(keyboard, KBD_ANSWER_ACK);
        break;
    case KBD_RESEND:
        keyboard_queue(keyboard, keyboard->last_sent);
        break;
    case KBD_RESET:
        keyboard_reset(keyboard);
        keyboard_queue(keyboard, KBD_ANSWER_ACK);
        keyboard_queue(keyboard, KBD_ANSWER_TEST_PASSED);
        break;
    default:
        keyboard_queue(keyboard, KBD_ANSWER_RESEND);
        break;
    }
}

/* ---- typing -------------------------------------------------------------------------------------------- */

static void keyboard_press(struct keyboard *keyboard, uint8_t set2)
{
    keyboard_queue(keyboard, keyboard->scan_code_set == 1 ? scancode_translate(set2) : set2);
}

static void keyboard_release(struct keyboard *keyboard, uint8_t set2)
{
    if (keyboard->scan_code_set == 1) {
        keyboard_queue(keyboard, scancode_translate(set2) | SCANCODE_SET1_RELEASED);
        return;
    }
    keyboard_queue(keyboard, SCANCODE_BREAK);
    keyboard_queue(keyboard, set2);
}

void keyboard_type(struct keyboard *keyboard, uint8_t character)
{
    static const uint8_t modifier_keys[] = {
        [SCANCODE_PLAIN] = 0,
        [SCANCODE_SHIFT] = SCANCODE_LEFT_SHIFT,
        [SCANCODE_CTRL] = SCANCODE_LEFT_CTRL,
    };
    struct scancode key = scancode_of_character(character);

    if (key.code == 0 || !keyboard->scanning)
        return;
    uint8_t modifier_key = modifier_keys[key.modifier];
    if (modifier_key != 0)
        keyboard_press(keyboard, modifier_key);
    keyboard_press(keyboard, key.code);
    keyboard_release(keyboard, key.code);
    if (modifier_key != 0)
        keyboard_release(keyboard, modifier_key);
}
