/* piix4_smbus: see piix4_smbus.h. */
#include "devices/piix4_smbus.h"

enum { REG_STATUS, REG_SLAVE_STATUS, REG_CONTROL, REG_COMMAND, REG_ADDRESS, REG_DATA0, REG_DATA1, REG_BLOCK };

#define STATUS_INTERRUPT 0x02 /* the command is done */
#define STATUS_ERROR     0x04 /* nobody acknowledged */
#define STATUS_CLEARS    0x1e

#define CONTROL_START    0x40 /* write-only */
#define CONTROL_WRITABLE 0x1d

static uint32_t smbus_read(void *device, uint32_t offset, unsigned size)
{
    const struct piix4_smbus *smbus = device;
    (void)size;

    return smbus->registers[offset];
}

static void smbus_write(void *device, uint32_t offset, unsigned size, uint32_t value)
{
    struct piix4_smbus *smbus = device;
    (void)size;

    switch (offset) {
    case REG_STATUS:
        smbus->registers[REG_STATUS] &= (uint8_t) ~(value & STATUS_CLEARS);
        break;
    case REG_CONTROL:
        smbus->registers[REG_CONTROL] = value & CONTROL_WRITABLE;
        if (value & CONTROL_START)
            smbus->registers[REG_STATUS] |= STATUS_INTERRUPT | STATUS_ERROR;
        break;
    case REG_COMMAND:
    case REG_ADDRESS:
    case REG_DATA0:
    case REG_DATA1:
    case REG_BLOCK:
        smbus->registers[offset] = (uint8_t)value;
        break;
    default: /* the slave's: nobody calls */
        break;
    }
}

const struct bus_device_ops piix4_smbus_ops = {.read = smbus_read, .write = smbus_write, .max_size = 1};

void piix4_smbus_reset(struct piix4_smbus *smbus)
{
    *smbus = (struct piix4_smbus){0};
}
