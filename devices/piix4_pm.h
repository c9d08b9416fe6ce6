/*
 * Power management: function 3 of the Intel 82371AB (PIIX4) data sheet (order number 290562), whose registers
 * are ACPI's PM1 blocks and power management timer. Here are: the timer and its event, SCI_EN, soft off (S5),
 * the APM ports through which ACPI is switched on, and a system management bus with nothing on it.
 *
 * Not there: power button, sleep states other than S5, system management mode (its set-up bit is on from the
 * start, as on QEMU without that mode, so that firmware does not try it).
 *
 * Read next: piix4_pm.c, acpi.h (the tables that announce it).
 */
#ifndef RING3_PIIX4_PM_H
#define RING3_PIIX4_PM_H

#include "devices/pci.h"
#include "devices/piix4_smbus.h"

#define PIIX4_PM_TIMER_HZ 3579545u
#define PIIX4_PM_IO_SIZE  64u
#define PIIX4_APM_PORT    0xb2 /* APMC, APMS */
#define PIIX4_SCI_IRQ     9    /* hardwired (data sheet, "SCI") */

/* Registers at PMBASE. */
enum piix4_pm_register {
    PIIX4_PM1_STATUS = 0x00,
    PIIX4_PM1_ENABLE = 0x02,
    PIIX4_PM1_CONTROL = 0x04,
    PIIX4_PM_TIMER = 0x08,
};

/* Where firmware puts them if none runs: SeaBIOS's places. */
#define PIIX4_FIRMWARE_PMBASE 0x600u
#define PIIX4_FIRMWARE_SMBASE 0x700u

/* What the tables tell the guest to write to APMC. */
#define PIIX4_ACPI_ENABLE  0xf1
#define PIIX4_ACPI_DISABLE 0xf0

struct piix4_pm {
    struct pci_function function;
    struct pci_window pm_window, smbus_window;

    uint16_t status, enable, control; /* PM1 */
    uint64_t overflows;               /* of the timer's bit 23, as far as `status` has them */
    uint8_t apm_control, apm_status;
    struct piix4_smbus smbus;

    struct timer timer; /* the next overflow, while somebody would notice */
    struct clock *clock;
    struct irq_line sci;
    const struct board_host *host;
};

void piix4_pm_init(struct piix4_pm *pm, struct bus *bus, struct clock *clock, struct irq_line sci,
                   const struct board_host *host);
void piix4_pm_reset(struct piix4_pm *pm); /* its ports are switched off */

/* What firmware sets up where none runs. */
void piix4_pm_open(struct piix4_pm *pm);

extern const struct bus_device_ops piix4_apm_ops; /* two ports */

#endif
