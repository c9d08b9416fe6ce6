/*
 * The PCI-to-ISA bridge: Intel 82371SB (PIIX3) data sheet (order number 290550), function 0. It routes the
 * four PCI interrupt lines to ISA ones; the rest of its configuration space holds what is written. (The chips
 * of the ISA bus that it also has inside are files of their own; its function 1 is piix3_ide.h.)
 *
 * Read next: piix3.c.
 */
#ifndef RING3_PIIX3_H
#define RING3_PIIX3_H

#include "devices/pci.h"

#define PIIX3_PIRQ_ROUTE 0x60 /* four registers */

struct piix3 {
    struct pci_function function;
    uint32_t asserted[PCI_INTX_PINS]; /* PIRQ A-D: a bit a slot */
    uint16_t driven;                  /* ISA lines that are high because of a PIRQ */
    void (*set_isa)(void *ctx, unsigned irq, bool level);
    void *ctx;
};

/* set_isa: an input of the interrupt controllers, which other chips may drive, too. */
void piix3_init(struct piix3 *bridge, void (*set_isa)(void *ctx, unsigned irq, bool level), void *ctx);
void piix3_reset(struct piix3 *bridge); /* no PIRQ is routed; what asserts them stays */

/* What firmware sets up where none runs: PIRQ A-D on IRQ 10, 10, 11, 11, the places that SeaBIOS chooses. */
void piix3_route_pirqs(struct piix3 *bridge);

/* INTA-D (0-3) of a slot. Each slot's pins are turned by one against its neighbours'. */
void piix3_set_intx(struct piix3 *bridge, unsigned slot, unsigned pin, bool level);
unsigned piix3_pirq_of(unsigned slot, unsigned pin);

#endif
