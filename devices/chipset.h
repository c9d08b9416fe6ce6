/*
 * The single registers that PC chipsets added over time and that are no chip of their own: ways to reset the
 * machine (ports 0x92 and 0xCF9), the A20 gate in port 0x92, and the POST code port 0x80.
 *
 * Source: Intel 82371AB (PIIX4) data sheet for 0x92 and 0xCF9.
 */
#ifndef RING3_CHIPSET_H
#define RING3_CHIPSET_H

#include "devices/devices.h"

#define CHIPSET_POST_PORT  0x80
#define CHIPSET_PORT_92    0x92
#define CHIPSET_RESET_PORT 0xcf9

struct chipset {
    uint8_t post_code;
    uint8_t port_92;
    uint8_t reset_control;
    const struct board_host *host;
};

void chipset_init(struct chipset *chipset, const struct board_host *host);
void chipset_reset(struct chipset *chipset);

extern const struct bus_device_ops chipset_post_ops, chipset_port_92_ops, chipset_reset_ops;

bool chipset_a20_enabled(const struct chipset *chipset);

#endif
