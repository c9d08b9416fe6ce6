/*
 * piix4_pm: see piix4_pm.h. Names are the 82371AB data sheet's, with ACPI's names of the same bits.
 *
 * Read next: acpi.c.
 */
#include "devices/piix4_pm.h"

#define REG_PMBA      0x40
#define REG_DEVACTB   0x58
#define REG_PMREGMISC 0x80
#define REG_SMBBA     0x90
#define REG_SMBHSTCFG 0xd2

#define PMREGMISC_IO_ENABLE 0x01
#define SMBHSTCFG_ENABLE    0x01
#define DEVACTB_APMC_EN     0x02000000u

/* PMSTS, PMEN and PMCNTRL. */
#define PM1_TMROF        0x0001u /* TMR_STS, TMR_EN */
#define PM1_STATUSES     0x8d21u
#define PM1_ENABLES      0x0521u
#define CONTROL_SCI_EN   0x0001u
#define CONTROL_SLP_TYP  0x1c00u /* SUS_TYP; 0 is soft off */
#define CONTROL_SLP_EN   0x2000u /* SUS_EN: write-only */
#define CONTROL_WRITABLE (CONTROL_SCI_EN | 0x0002u | CONTROL_SLP_TYP)

#define TIMER_MASK     0xffffffu /* 24 bits */
#define OVERFLOW_SHIFT 23        /* TMROF_STS is set whenever bit 23 changes */

static const struct pci_register registers[] = {
    {PCI_VENDOR_ID, 4, 0x71138086, 0, 0},
    {PCI_COMMAND, 2, 0, PCI_COMMAND_IO, 0},
    {PCI_STATUS, 2, PCI_STATUS_BACK | PCI_STATUS_MEDIUM, 0, PCI_STATUS_ERRORS},
    {PCI_REVISION, 4, 0x06800003, 0, 0}, /* revision 3: the timer reads right at the first try */
    {PCI_INTERRUPT_LINE, 2, 0x0100, 0x00ff, 0},
    {REG_PMBA, 4, 0x00000001, 0x0000ffc0, 0},
    {0x44, 4, 0, 0xffffffff, 0}, /* CNTA */
    {0x48, 4, 0, 0xffffffff, 0}, /* CNTB */
    {0x4c, 4, 0, 0xffffffff, 0}, /* GPICTL */
    {0x50, 4, 0, 0xffffff, 0},   /* DEVRESD */
    {0x54, 4, 0, 0xffffffff, 0}, /* DEVACTA */
    {REG_DEVACTB, 4, DEVACTB_APMC_EN, 0x01ffffff, 0},
    {0x5c, 4, 0, 0xffffffff, 0}, /* DEVRESA-J follow */
    {0x60, 4, 0, 0xffffffff, 0},
    {0x64, 4, 0, 0xffffffff, 0},
    {0x68, 4, 0, 0xffffffff, 0},
    {0x6c, 4, 0, 0xffffffff, 0},
    {0x70, 4, 0, 0xffffffff, 0},
    {0x74, 4, 0, 0xffffffff, 0},
    {0x78, 4, 0, 0xffffffff, 0},
    {0x7c, 4, 0, 0xffffffff, 0},
    {REG_PMREGMISC, 1, 0, 0x01, 0},
    {REG_SMBBA, 4, 0x00000001, 0x0000fff0, 0},
    {REG_SMBHSTCFG, 1, 0, 0x0f, 0},
    {0xd3, 3, 0, 0xffffff, 0}, /* SMBSLVC, SMBSHDW1-2 */
};

/* ---- the timer and the SCI ----------------------------------------------------------------------------- */

static uint64_t ticks(const struct piix4_pm *pm)
{
    return clock_to_ticks(clock_now(pm->clock), PIIX4_PM_TIMER_HZ);
}

/* Lets the overflows up to now be seen, drives the line, and arms the timer if one more would show. */
static void update(struct piix4_pm *pm)
{
    uint64_t overflows = ticks(pm) >> OVERFLOW_SHIFT;

    if (overflows != pm->overflows)
        pm->status |= PM1_TMROF;
    pm->overflows = overflows;
    irq_set(&pm->sci, (pm->control & CONTROL_SCI_EN) && (pm->status & pm->enable & PM1_ENABLES));
    if ((pm->enable & PM1_TMROF) && !(pm->status & PM1_TMROF))
        clock_arm(pm->clock, &pm->timer,
                  clock_from_ticks((overflows + 1) << OVERFLOW_SHIFT, PIIX4_PM_TIMER_HZ));
    else
        clock_disarm(pm->clock, &pm->timer);
}

static void timer_fired(void *ctx)
{
    update(ctx);
}

/* ---- the registers at PMBASE --------------------------------------------------------------------------- */

/* The 32 bits at a multiple of 4. What is not listed belongs to device monitors that monitor nothing. */
static uint32_t read_pair(const struct piix4_pm *pm, uint32_t offset)
{
    switch (offset) {
    case PIIX4_PM1_STATUS:
        return pm->status | (uint32_t)pm->enable << 16;
    case PIIX4_PM1_CONTROL:
        return pm->control;
    case PIIX4_PM_TIMER:
        return (uint32_t)ticks(pm) & TIMER_MASK;
    }
    return 0;
}

static uint32_t pm_read(void *device, uint32_t offset, unsigned size)
{
    struct piix4_pm *pm = device;

    update(pm);
    if ((offset & 3) + size > 4) /* an unaligned one: two cycles */
        return pm_read(pm, offset, size / 2) | pm_read(pm, offset + size / 2, size / 2) << 8 * (size / 2);
    return read_pair(pm, offset & ~3u) >> 8 * (offset & 3);
}

static void write_control(struct piix4_pm *pm, uint16_t value)
{
    pm->control = value & CONTROL_WRITABLE;
    if ((value & CONTROL_SLP_EN) && (value & CONTROL_SLP_TYP) == 0)
        pm->host->power_off(pm->host->ctx);
}

static void write_byte(struct piix4_pm *pm, uint32_t offset, uint8_t byte)
{
    unsigned shift = 8 * (offset & 1);
    uint16_t value = (uint16_t)(byte << shift), mask = (uint16_t)(0xff << shift);

    switch (offset & ~1u) {
    case PIIX4_PM1_STATUS:
        pm->status &= (uint16_t)~value; /* ones clear */
        break;
    case PIIX4_PM1_ENABLE:
        pm->enable = (uint16_t)((pm->enable & ~mask) | (value & PM1_ENABLES));
        break;
    case PIIX4_PM1_CONTROL:
        write_control(pm, (uint16_t)((pm->control & ~mask) | value));
        break;
    default:
        break;
    }
}

static void pm_write(void *device, uint32_t offset, unsigned size, uint32_t value)
{
    struct piix4_pm *pm = device;

    update(pm);
    /* The word that switches the power off is judged whole. */
    if (offset == PIIX4_PM1_CONTROL && size >= 2)
        write_control(pm, (uint16_t)value);
    else
        for (unsigned i = 0; i < size; i++)
            write_byte(pm, offset + i, (uint8_t)(value >> 8 * i));
    update(pm);
}

static const struct bus_device_ops pm_ops = {.read = pm_read, .write = pm_write, .max_size = 4};

/* ---- APM ----------------------------------------------------------------------------------------------- */

static uint32_t apm_read(void *device, uint32_t offset, unsigned size)
{
    const struct piix4_pm *pm = device;
    (void)size;

    return offset == 0 ? pm->apm_control : pm->apm_status;
}

/* APMC would raise an SMI, whose handler does what is done here: hand the power registers to the guest, or
 * take them back (ACPI 4.8.2.5, "SCI_EN"). */
static void apm_write(void *device, uint32_t offset, unsigned size, uint32_t value)
{
    struct piix4_pm *pm = device;
    (void)size;

    if (offset == 1) {
        pm->apm_status = (uint8_t)value;
        return;
    }
    pm->apm_control = (uint8_t)value;
    if (value == PIIX4_ACPI_ENABLE)
        pm->control |= CONTROL_SCI_EN;
    else if (value == PIIX4_ACPI_DISABLE)
        pm->control &= (uint16_t)~CONTROL_SCI_EN;
    update(pm);
}

const struct bus_device_ops piix4_apm_ops = {.read = apm_read, .write = apm_write, .max_size = 1};

/* ---- configuration space ------------------------------------------------------------------------------- */

static void move_windows(struct piix4_pm *pm)
{
    const uint8_t *config = pm->function.config;

    pci_window_move(&pm->pm_window, config[REG_PMREGMISC] & PMREGMISC_IO_ENABLE,
                    pci_read_config(&pm->function, REG_PMBA, 2) & 0xffc0);
    pci_window_move(&pm->smbus_window, config[REG_SMBHSTCFG] & SMBHSTCFG_ENABLE,
                    pci_read_config(&pm->function, REG_SMBBA, 2) & 0xfff0);
}

static void piix4_pm_written(void *ctx, unsigned offset, unsigned size)
{
    (void)offset;
    (void)size;
    move_windows(ctx);
}

void piix4_pm_open(struct piix4_pm *pm)
{
    pci_write_config(&pm->function, REG_PMBA, 4, PIIX4_FIRMWARE_PMBASE);
    pci_write_config(&pm->function, REG_PMREGMISC, 1, PMREGMISC_IO_ENABLE);
    pci_write_config(&pm->function, REG_SMBBA, 4, PIIX4_FIRMWARE_SMBASE);
    pci_write_config(&pm->function, REG_SMBHSTCFG, 1, SMBHSTCFG_ENABLE);
    pci_write_config(&pm->function, PCI_INTERRUPT_LINE, 1, PIIX4_SCI_IRQ);
}

void piix4_pm_reset(struct piix4_pm *pm)
{
    pci_function_reset(&pm->function);
    move_windows(pm);
    pm->status = pm->enable = pm->control = 0;
    pm->overflows = ticks(pm) >> OVERFLOW_SHIFT;
    pm->apm_control = pm->apm_status = 0;
    piix4_smbus_reset(&pm->smbus);
    update(pm);
}

void piix4_pm_init(struct piix4_pm *pm, struct bus *bus, struct clock *clock, struct irq_line sci,
                   const struct board_host *host)
{
    *pm = (struct piix4_pm){
        .timer = {.fire = timer_fired, .ctx = pm}, .clock = clock, .sci = sci, .host = host};
    pm->pm_window = (struct pci_window){.bus = bus,
                                        .space = BUS_PORT,
                                        .size = PIIX4_PM_IO_SIZE,
                                        .ops = &pm_ops,
                                        .device = pm,
                                        .name = "piix4 pm"};
    pm->smbus_window = (struct pci_window){.bus = bus,
                                           .space = BUS_PORT,
                                           .size = PIIX4_SMBUS_SIZE,
                                           .ops = &piix4_smbus_ops,
                                           .device = &pm->smbus,
                                           .name = "piix4 smbus"};
    pci_function_init(&pm->function, registers, sizeof registers / sizeof registers[0], piix4_pm_written, pm);
    piix4_pm_reset(pm);
}
