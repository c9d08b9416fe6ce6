/*
 * The host bridge: Intel 440FX PCIset, 82441FX data sheet (order number 290549). Of it software sees its
 * configuration space, and the programmable attribute map (PAM): what of the BIOS area is RAM.
 *
 * The memory for system management mode stays locked: there is no such mode. Read next: piix3.h.
 */
#ifndef RING3_I440FX_H
#define RING3_I440FX_H

#include "devices/pci.h"

#define I440FX_PAM 0x59 /* seven registers */

struct i440fx {
    struct pci_function function;
    const struct board_host *host;
};

void i440fx_init(struct i440fx *bridge, const struct board_host *host);
void i440fx_reset(struct i440fx *bridge); /* the BIOS area is ROM */

/* What firmware leaves where none runs: all of the BIOS area is RAM that reads only. */
void i440fx_shadow_bios_area(struct i440fx *bridge);

#endif
