/*
 * The IDE function of the PIIX3 (Intel 82371SB data sheet, function 1): the two ATA channels of ide.h at
 * their legacy ports, and a bus master for each that moves the data of DMA commands between drive and memory
 * (Programming Interface for Bus Master IDE Controller 1.0).
 *
 * The legacy ports answer whether or not they are enabled here, as on QEMU. A transfer takes no time. Read
 * next: piix3_ide.c.
 */
#ifndef RING3_PIIX3_IDE_H
#define RING3_PIIX3_IDE_H

#include "devices/ide.h"
#include "devices/pci.h"

#define PIIX3_IDE_IO_SIZE 16u

/* Where firmware puts the bus master if none runs: SeaBIOS's place. */
#define PIIX3_IDE_FIRMWARE_BASE 0xc000u

struct piix3_bus_master {
    uint8_t command, status;
    uint32_t table; /* physical, of the region descriptors */
    bool request;   /* the drive's DMARQ */
    bool is_moving;
    bool interrupt; /* the drive's INTRQ */

    /* The descriptor in use. */
    uint32_t next_descriptor; /* its successor's address */
    uint32_t region, left;    /* the bytes of it that are still to be moved */
    bool is_last;

    struct ide_channel *channel;
    struct irq_line irq;
    const struct board_host *host;
};

struct piix3_ide {
    struct pci_function function;
    struct pci_window window;
    struct piix3_bus_master master[2];
};

/* The channels' INTRQ and DMARQ come here (piix3_ide_set_intrq, _dmarq: ctx is the bus master); INTRQ goes on
 * to primary and secondary. */
void piix3_ide_init(struct piix3_ide *ide, struct bus *bus, struct ide_channel *channels,
                    struct irq_line primary, struct irq_line secondary, const struct board_host *host);
void piix3_ide_reset(struct piix3_ide *ide);
void piix3_ide_open(struct piix3_ide *ide); /* what firmware sets up where none runs */

void piix3_ide_set_intrq(void *master, unsigned pin, bool level);
void piix3_ide_set_dmarq(void *master, unsigned pin, bool level);

#endif
