/*
 * The debug console of Bochs and QEMU, port 0xE9: a byte written appears on the console. It reads as 0xe9, by
 * which a guest knows that it is there.
 */
#ifndef RING3_DEBUGCON_H
#define RING3_DEBUGCON_H

#include "devices/devices.h"

#define DEBUGCON_PORT 0xe9

struct debugcon {
    const struct board_host *host;
};

void debugcon_init(struct debugcon *device, const struct board_host *host);

extern const struct bus_device_ops debugcon_ops;

#endif
