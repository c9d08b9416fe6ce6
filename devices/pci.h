/*
 * The PCI bus: configuration mechanism 1 and the configuration space of a function (PCI Local Bus
 * Specification 2.1, chapter 6 and section 3.7.4.1), both as plain data. A function's registers are one
 * table: what they read after reset, which bits software can change, which it clears by writing ones. A chip
 * that must act on a write gives a callback, which looks at what the registers say then.
 *
 * Read next: pci.c, then i440fx.h, the simplest function.
 */
#ifndef RING3_PCI_H
#define RING3_PCI_H

#include "devices/devices.h"

#define PCI_ADDRESS_PORT 0xcf8 /* CONFIG_ADDRESS, 32 bits; CONFIG_DATA follows it */

#define PCI_CONFIG_SIZE 256
#define PCI_SLOTS       32
#define PCI_FUNCTIONS   8
#define PCI_INTX_PINS   4

/* The header of type 0. */
enum pci_register_offset {
    PCI_VENDOR_ID = 0x00,
    PCI_DEVICE_ID = 0x02,
    PCI_COMMAND = 0x04,
    PCI_STATUS = 0x06,
    PCI_REVISION = 0x08,
    PCI_CLASS = 0x09, /* three bytes: interface, subclass, class */
    PCI_LATENCY_TIMER = 0x0d,
    PCI_HEADER_TYPE = 0x0e,
    PCI_BAR_0 = 0x10,
    PCI_BAR_4 = 0x20,
    PCI_INTERRUPT_LINE = 0x3c,
    PCI_INTERRUPT_PIN = 0x3d,
};

#define PCI_COMMAND_IO     0x0001u
#define PCI_COMMAND_MEMORY 0x0002u
#define PCI_COMMAND_MASTER 0x0004u
#define PCI_STATUS_BACK    0x0080u /* fast back-to-back capable */
#define PCI_STATUS_MEDIUM  0x0200u /* DEVSEL timing */
#define PCI_STATUS_ERRORS  0xf900u /* cleared by ones */
#define PCI_HEADER_MULTI   0x80u
#define PCI_BAR_IO         0x1u

struct pci_register {
    uint8_t offset, size; /* size 1 to 4; the table may leave bytes out: they read 0 and cannot be written */
    uint32_t reset, writable, clears; /* clears: bits that a written one clears */
};

struct pci_function {
    uint8_t config[PCI_CONFIG_SIZE];
    const struct pci_register *registers;
    unsigned n_registers;
    void (*written)(void *ctx, unsigned offset, unsigned size); /* after a write there; NULL: nothing to do */
    void *ctx;
};

/* written may be NULL. The registers hold their reset values; `written` is not called. */
void pci_function_init(struct pci_function *function, const struct pci_register *registers,
                       unsigned n_registers, void (*written)(void *ctx, unsigned offset, unsigned size),
                       void *ctx);
void pci_function_reset(struct pci_function *function);
uint32_t pci_read_config(const struct pci_function *function, unsigned offset, unsigned size);
/* As software does it: only what is writable changes. The access lies within four aligned bytes. */
void pci_write_config(struct pci_function *function, unsigned offset, unsigned size, uint32_t value);
bool pci_covers(unsigned offset, unsigned size, unsigned reg); /* does the access have that byte in it? */

struct pci_bus {
    uint32_t address;                                        /* CONFIG_ADDRESS */
    struct pci_function *function[PCI_SLOTS][PCI_FUNCTIONS]; /* bus 0, the only one */
};

void pci_init(struct pci_bus *pci);
void pci_reset(struct pci_bus *pci); /* the mechanism's own register; each function has its chip */
void pci_plug(struct pci_bus *pci, unsigned slot, unsigned number, struct pci_function *function);

extern const struct bus_device_ops pci_config_ops; /* eight ports from PCI_ADDRESS_PORT */

/* Ports or memory whose place software chooses. Where something else answers already, the window does not
 * open: the machine's fixed chips keep their places. */
struct pci_window {
    struct bus *bus;
    enum bus_space space;
    uint32_t size;
    const struct bus_device_ops *ops;
    void *device;
    const char *name;
    uint32_t base; /* while open */
    bool is_open;
};

void pci_window_move(struct pci_window *window, bool is_enabled, uint32_t base);

#endif
