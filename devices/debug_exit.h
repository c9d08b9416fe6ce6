/*
 * QEMU's isa-debug-exit device as kvm-unit-tests uses it (iobase 0xf4, iosize 4): a write ends the run, and
 * the value becomes part of the exit status.
 */
#ifndef RING3_DEBUG_EXIT_H
#define RING3_DEBUG_EXIT_H

#include "devices/devices.h"

#define DEBUG_EXIT_PORT      0xf4
#define DEBUG_EXIT_PORT_LAST 0xf7

struct debug_exit {
    const struct board_host *host;
};

void debug_exit_init(struct debug_exit *device, const struct board_host *host);

extern const struct bus_device_ops debug_exit_ops;

#endif
