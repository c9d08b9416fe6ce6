/*
 * i8042: the keyboard controller. A command goes to port 0x64, its byte, if it has one, to port 0x60; other
 * bytes for port 0x60 go on to the keyboard. Everything comes back through the one output buffer at port
 * 0x60.
 *
 * The controller works in no time: the input buffer is always empty. Its own answers come before what the
 * keyboard has to say, and neither overwrites what the guest has not read yet.
 *
 * Read next: i8042_keyboard.c.
 */
#include "devices/i8042.h"
#include "devices/scancodes.h"

#define STATUS_OUTPUT_FULL 0x01
#define STATUS_SYSTEM      0x04 /* the self test has passed */
#define STATUS_COMMAND     0x08
#define STATUS_UNLOCKED    0x10
#define STATUS_AUX         0x20
#define STATUS_TIMEOUT     0x40

#define COMMAND_BYTE_IRQ          0x01
#define COMMAND_BYTE_SYSTEM       0x04
#define COMMAND_BYTE_KBD_DISABLED 0x10
#define COMMAND_BYTE_AUX_DISABLED 0x20
#define COMMAND_BYTE_TRANSLATE    0x40
#define COMMAND_BYTE_FIRMWARE                                                                                \
    (COMMAND_BYTE_IRQ | COMMAND_BYTE_SYSTEM | COMMAND_BYTE_AUX_DISABLED | COMMAND_BYTE_TRANSLATE)

#define OUTPUT_PORT_NOT_RESET 0x01
#define OUTPUT_PORT_A20       0x02
#define OUTPUT_PORT_IRQ       0x10
#define OUTPUT_PORT_IDLE      0xc0 /* keyboard clock and data high */
#define INPUT_PORT            0xa0 /* not locked, no manufacturing jumper */

enum i8042_command {
    CMD_READ_RAM = 0x20,  /* to 0x3f */
    CMD_WRITE_RAM = 0x60, /* to 0x7f */
    CMD_TEST_PASSWORD = 0xa4,
    CMD_AUX_DISABLE = 0xa7,
    CMD_AUX_ENABLE = 0xa8,
    CMD_AUX_TEST = 0xa9,
    CMD_SELF_TEST = 0xaa,
    CMD_KBD_TEST = 0xab,
    CMD_KBD_DISABLE = 0xad,
    CMD_KBD_ENABLE = 0xae,
    CMD_READ_INPUT_PORT = 0xc0,
    CMD_READ_OUTPUT_PORT = 0xd0,
    CMD_WRITE_OUTPUT_PORT = 0xd1,
    CMD_WRITE_KBD_OUTPUT = 0xd2,
    CMD_WRITE_AUX_OUTPUT = 0xd3,
    CMD_WRITE_AUX = 0xd4,
    CMD_DISABLE_A20 = 0xdd,
    CMD_ENABLE_A20 = 0xdf,
    CMD_READ_TEST_INPUTS = 0xe0,
    CMD_PULSE_OUTPUT = 0xf0, /* to 0xff */

    REPLY_NO_PASSWORD = 0xf1,
    REPLY_SELF_TEST_PASSED = 0x55,
    REPLY_LINE_OK = 0x00,
    REPLY_CLOCK_STUCK_HIGH = 0x02,
    REPLY_TIMEOUT = 0xfe,
};

/* ---- the output buffer --------------------------------------------------------------------------------- */

/* The keyboard's next byte as the guest shall see it. With translation a break code is one byte, not two. */
static bool kbc_receive(struct i8042 *kbc, uint8_t *byte)
{
    while (keyboard_send(&kbc->keyboard, byte)) {
        if (!(kbc->ram[0] & COMMAND_BYTE_TRANSLATE))
            return true;
        if (*byte == SCANCODE_BREAK) {
            kbc->break_prefix_seen = true;
            continue;
        }
        *byte = scancode_translate(*byte) | (kbc->break_prefix_seen ? SCANCODE_SET1_RELEASED : 0);
        kbc->break_prefix_seen = false;
        return true;
    }
    return false;
}

/* After any change: fills the output buffer if it is free, and drives IRQ 1, which follows it. */
static void kbc_settle(struct i8042 *kbc)
{
    if (!kbc->output_flags && kbc->reply_flags) {
        kbc->output = kbc->reply;
        kbc->output_flags = kbc->reply_flags;
        kbc->reply_flags = 0;
    } else if (!kbc->output_flags && !(kbc->ram[0] & COMMAND_BYTE_KBD_DISABLED)) {
        if (kbc_receive(kbc, &kbc->output))
            kbc->output_flags = STATUS_OUTPUT_FULL;
    }
    irq_set(&kbc->irq,
            kbc->output_flags && !(kbc->output_flags & STATUS_AUX) && kbc->ram[0] & COMMAND_BYTE_IRQ);
}

static void kbc_reply(struct i8042 *kbc, uint8_t byte, uint8_t flags)
{
    kbc->reply = byte;
    kbc->reply_flags = flags | STATUS_OUTPUT_FULL;
}

static uint32_t kbc_read_data(void *device, uint32_t offset, unsigned size)
{
    struct i8042 *kbc = device;
    uint8_t byte = kbc->output; /* stays readable when it has been read */
    (void)offset;
    (void)size;

    kbc->output_flags = 0;
    irq_set(&kbc->irq, false); /* also if the next byte is here: it makes a new edge */
    kbc_settle(kbc);
    return byte;
}

static uint32_t kbc_read_status(void *device, uint32_t offset, unsigned size)
{
    const struct i8042 *kbc = device;
    (void)offset;
    (void)size;
    return kbc->output_flags | STATUS_UNLOCKED | (kbc->last_write_was_command ? STATUS_COMMAND : 0u) |
           (kbc->ram[0] & COMMAND_BYTE_SYSTEM ? STATUS_SYSTEM : 0u);
}

/* ---- commands ------------------------------------------------------------------------------------------ */

static void kbc_reset_machine(const struct i8042 *kbc)
{
    kbc->host->reset(kbc->host->ctx, "the keyboard controller's RESET line");
}

static void kbc_write_ram(struct i8042 *kbc, unsigned index, uint8_t value)
{
    if (index == 0) {
        value |= COMMAND_BYTE_AUX_DISABLED; /* cannot be cleared: there is no auxiliary device interface */
        kbc->attended = kbc->attended || !(value & COMMAND_BYTE_KBD_DISABLED);
    }
    kbc->ram[index] = value;
}

static void kbc_set_keyboard_enabled(struct i8042 *kbc, bool enabled)
{
    if (enabled)
        kbc->ram[0] &= ~COMMAND_BYTE_KBD_DISABLED;
    else
        kbc->ram[0] |= COMMAND_BYTE_KBD_DISABLED;
    kbc->attended = kbc->attended || enabled;
}

static void kbc_write_output_port(struct i8042 *kbc, uint8_t value)
{
    kbc->a20_enabled = value & OUTPUT_PORT_A20;
    if (!(value & OUTPUT_PORT_NOT_RESET))
        kbc_reset_machine(kbc);
}

static uint8_t kbc_output_port(const struct i8042 *kbc)
{
    return (uint8_t)(OUTPUT_PORT_IDLE | OUTPUT_PORT_NOT_RESET | (kbc->a20_enabled ? OUTPUT_PORT_A20 : 0) |
                     (kbc->output_flags ? OUTPUT_PORT_IRQ : 0));
}

/* A byte for port 0x60 that belongs to the command before it. */
static void kbc_finish_command(struct i8042 *kbc, uint8_t command, uint8_t byte)
{
    switch (command) {
    case CMD_WRITE_OUTPUT_PORT:
        kbc_write_output_port(kbc, byte);
        break;
    case CMD_WRITE_KBD_OUTPUT:
        kbc_reply(kbc, byte, 0);
        break;
    case CMD_WRITE_AUX_OUTPUT:
        kbc_reply(kbc, byte, STATUS_AUX);
        break;
    case CMD_WRITE_AUX: /* nobody answers */
        kbc_reply(kbc, REPLY_TIMEOUT, STATUS_AUX | STATUS_TIMEOUT);
        break;
    default: /* CMD_WRITE_RAM + index */
        kbc_write_ram(kbc, command - CMD_WRITE_RAM, byte);
        break;
    }
}

static void kbc_start_command(struct i8042 *kbc, uint8_t command)
{
    switch (command) {
    case CMD_WRITE_OUTPUT_PORT:
    case CMD_WRITE_KBD_OUTPUT:
    case CMD_WRITE_AUX_OUTPUT:
    case CMD_WRITE_AUX:
        kbc->command = command;
        break;
    case CMD_TEST_PASSWORD:
        kbc_reply(kbc, REPLY_NO_PASSWORD, 0);
        break;
    case CMD_AUX_DISABLE:
    case CMD_AUX_ENABLE: /* stays disabled */
        break;
    case CMD_AUX_TEST:
        kbc_reply(kbc, REPLY_CLOCK_STUCK_HIGH, 0);
        break;
    case CMD_SELF_TEST:
        kbc->ram[0] |= COMMAND_BYTE_SYSTEM;
        kbc_reply(kbc, REPLY_SELF_TEST_PASSED, 0);
        break;
    case CMD_KBD_TEST:
        kbc_reply(kbc, REPLY_LINE_OK, 0);
        break;
    case CMD_KBD_DISABLE:
        kbc_set_keyboard_enabled(kbc, false);
        break;
    case CMD_KBD_ENABLE:
        kbc_set_keyboard_enabled(kbc, true);
        break;
    case CMD_READ_INPUT_PORT:
        kbc_reply(kbc, INPUT_PORT, 0);
        break;
    case CMD_READ_OUTPUT_PORT:
        kbc_reply(kbc, kbc_output_port(kbc), 0);
        break;
    case CMD_DISABLE_A20:
    case CMD_ENABLE_A20:
        kbc->a20_enabled = command == CMD_ENABLE_A20;
        break;
    case CMD_READ_TEST_INPUTS: /* clock and data of an idle keyboard */
        kbc_reply(kbc, 0x03, 0);
        break;
    default: /* the ranges; what the controller does not know it ignores */
        if (command >= CMD_PULSE_OUTPUT && !(command & OUTPUT_PORT_NOT_RESET))
            kbc_reset_machine(kbc);
        else if (command >= CMD_WRITE_RAM && command < CMD_WRITE_RAM + sizeof(kbc->ram))
            kbc->command = command;
        else if (command >= CMD_READ_RAM && command < CMD_READ_RAM + sizeof(kbc->ram))
            kbc_reply(kbc, kbc->ram[command - CMD_READ_RAM], 0);
        break;
    }
}

static void kbc_write_command(void *device, uint32_t offset, unsigned size, uint32_t value)
{
    struct i8042 *kbc = device;
    (void)offset;
    (void)size;

    kbc->last_write_was_command = true;
    kbc->command = 0;
    kbc_start_command(kbc, (uint8_t)value);
    kbc_settle(kbc);
}

static void kbc_write_data(void *device, uint32_t offset, unsigned size, uint32_t value)
{
    struct i8042 *kbc = device;
    uint8_t command = kbc->command;
    (void)offset;
    (void)size;

    kbc->last_write_was_command = false;
    kbc->command = 0;
    if (command != 0) {
        kbc_finish_command(kbc, command, (uint8_t)value);
    } else { /* sending to the keyboard needs its clock: it enables the interface */
        kbc_set_keyboard_enabled(kbc, true);
        keyboard_command(&kbc->keyboard, (uint8_t)value);
    }
    kbc_settle(kbc);
}

const struct bus_device_ops i8042_data_ops = {.read = kbc_read_data, .write = kbc_write_data, .max_size = 1};
const struct bus_device_ops i8042_command_ops = {
    .read = kbc_read_status, .write = kbc_write_command, .max_size = 1};

/* ---- typing -------------------------------------------------------------------------------------------- */

bool i8042_can_type(const struct i8042 *kbc)
{
    return kbc->keyboard.scanning && !(kbc->ram[0] & COMMAND_BYTE_KBD_DISABLED) && !kbc->output_flags &&
           kbc->keyboard.queue_count == 0;
}

void i8042_type(struct i8042 *kbc, uint8_t character)
{
    keyboard_type(&kbc->keyboard, character);
    kbc_settle(kbc);
}

void i8042_reset(struct i8042 *kbc)
{
    *kbc = (struct i8042){
        .ram = {COMMAND_BYTE_FIRMWARE}, .a20_enabled = true, .irq = kbc->irq, .host = kbc->host};
    keyboard_reset(&kbc->keyboard);
    kbc_settle(kbc);
}

void i8042_init(struct i8042 *kbc, struct irq_line irq, const struct board_host *host)
{
    *kbc = (struct i8042){.irq = irq, .host = host};
    i8042_reset(kbc);
}
