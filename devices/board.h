/*
 * The board: every chip of the PC, as plain data. Private to devices/ and its tests; the rest of the program
 * sees devices.h only.
 *
 * Every chip is a pair <chip>.c/.h and follows one pattern:
 *   struct <chip>                  its state; the only pointers in it are wires (clock, lines, host), which
 *                                  <chip>_init puts there and nothing else changes
 *   <chip>_init(chip, wires...)    from zeroed memory to the power-on state, once
 *   <chip>_reset(chip)             the RESET line: the power-on state again, the wires stay
 *   <chip>_ops                     what the bus calls (several, <chip>_<part>_ops, if the chip answers in
 * several places) <chip>_set_pin(chip, pin, on)  an input, for struct irq_line
 *
 * Read next: board.c.
 */
#ifndef RING3_BOARD_H
#define RING3_BOARD_H

#include "devices/chipset.h"
#include "devices/debug_exit.h"
#include "devices/debugcon.h"
#include "devices/devices.h"
#include "devices/disk.h"
#include "devices/fw_cfg.h"
#include "devices/i440fx.h"
#include "devices/i8042.h"
#include "devices/i8254.h"
#include "devices/i8259.h"
#include "devices/ide.h"
#include "devices/ioapic.h"
#include "devices/lapic.h"
#include "devices/mc146818.h"
#include "devices/pci.h"
#include "devices/piix3.h"
#include "devices/piix3_ide.h"
#include "devices/piix4_pm.h"
#include "devices/uart16550.h"
#include "devices/vga.h"

struct board {
    struct bus bus;

    struct i8259_pair pic;
    struct lapic lapic;
    struct ioapic ioapic;
    struct i8254 pit;
    struct mc146818 rtc;
    struct i8042 kbc;
    struct uart16550 com1;
    struct vga vga;
    struct ide_channel ide[2];
    struct chipset chipset;
    struct pci_bus pci;
    struct i440fx bridge;
    struct piix3 piix3;
    struct piix3_ide piix3_ide;
    struct piix4_pm pm;
    struct fw_cfg fw_cfg;
    struct debugcon debugcon;
    struct debug_exit debug_exit;

    uint16_t isa_levels;  /* of the 16 ISA interrupt lines, for the observer */
    uint16_t pirq_levels; /* what the PCI interrupts add to them */
    bool nmi_pending;

    /* Not state of the machine: what it was made from. */
    struct disk disk[BOARD_MAX_DRIVES];
    uint8_t drives_open; /* a bit a drive */
    struct board_config config;
};

#endif
