/*
 * The system management bus of the PIIX4 (82371AB data sheet, "SMBus Host Interface"), with no device on it:
 * every transaction ends at once, unacknowledged.
 */
#ifndef RING3_PIIX4_SMBUS_H
#define RING3_PIIX4_SMBUS_H

#include "devices/devices.h"

#define PIIX4_SMBUS_SIZE 16u

struct piix4_smbus {
    uint8_t registers[PIIX4_SMBUS_SIZE];
};

void piix4_smbus_reset(struct piix4_smbus *smbus);

extern const struct bus_device_ops piix4_smbus_ops; /* PIIX4_SMBUS_SIZE ports */

#endif
