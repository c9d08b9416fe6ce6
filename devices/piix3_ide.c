/*
 * piix3_ide: see piix3_ide.h. Names are the 82371SB data sheet's; section numbers those of the Programming
 * Interface for Bus Master IDE Controller 1.0.
 *
 * Read next: ide_transfer.c, the drive's end.
 */
#include "devices/piix3_ide.h"

#define REG_IDETIM    0x40
#define IDETIM_DECODE 0x8000u
#define REG_BMIBA     PCI_BAR_4
#define BMIBA_BASE    0x0000fff0u

static const struct pci_register registers[] = {
    {PCI_VENDOR_ID, 4, 0x70108086, 0, 0},
    {PCI_COMMAND, 2, 0, PCI_COMMAND_IO | PCI_COMMAND_MASTER, 0},
    {PCI_STATUS, 2, PCI_STATUS_BACK | PCI_STATUS_MEDIUM, 0, PCI_STATUS_ERRORS},
    {PCI_REVISION, 4, 0x01018000, 0, 0}, /* legacy ports only, bus master */
    {PCI_LATENCY_TIMER, 1, 0, 0xf0, 0},
    {REG_BMIBA, 4, PCI_BAR_IO, 0xfffffff0, 0},
    {REG_IDETIM, 4, 0, 0xf3fff3ff, 0},
    {0x44, 1, 0, 0xff, 0}, /* SIDETIM */
};

/* The registers of one channel. */
enum { REG_COMMAND = 0, REG_STATUS = 2, REG_TABLE = 4, MASTER_SIZE = 8 };

#define COMMAND_START     0x01
#define COMMAND_TO_MEMORY 0x08
#define COMMAND_WRITABLE  (COMMAND_START | COMMAND_TO_MEMORY)

#define STATUS_ACTIVE    0x01
#define STATUS_ERROR     0x02
#define STATUS_INTERRUPT 0x04
#define STATUS_CAPABLE   0x60 /* drive 0, drive 1: software's notes */

/* 1.2: the physical region descriptor */
#define DESCRIPTOR_SIZE  8
#define DESCRIPTOR_LAST  0x80000000u
#define DESCRIPTOR_COUNT 0xfffeu
#define DESCRIPTOR_MAX   0x10000u

/* ---- moving data --------------------------------------------------------------------------------------- */

static bool is_to_memory(const struct piix3_bus_master *master)
{
    return master->command & COMMAND_TO_MEMORY;
}

static void stop(struct piix3_bus_master *master, uint8_t status)
{
    master->status = (uint8_t)((master->status & ~STATUS_ACTIVE) | status);
}

/* False: the transfer ends here. */
static bool next_region(struct piix3_bus_master *master)
{
    uint32_t descriptor[2];

    if (master->is_last) {
        stop(master, 0);
        return false;
    }
    if (!master->host->dma_read(master->host->ctx, master->next_descriptor, descriptor, DESCRIPTOR_SIZE)) {
        stop(master, STATUS_ERROR);
        return false;
    }
    master->next_descriptor += DESCRIPTOR_SIZE;
    master->region = descriptor[0] & ~1u;
    master->left = descriptor[1] & DESCRIPTOR_COUNT;
    if (master->left == 0)
        master->left = DESCRIPTOR_MAX;
    master->is_last = descriptor[1] & DESCRIPTOR_LAST;
    return true;
}

static bool move_bytes(struct piix3_bus_master *master, uint8_t *bytes, uint32_t n)
{
    const struct board_host *host = master->host;

    return is_to_memory(master) ? host->dma_write(host->ctx, master->region, bytes, n)
                                : host->dma_read(host->ctx, master->region, bytes, n);
}

/* What fits both the region and the drive's buffer. False: the transfer ends here. */
static bool move_piece(struct piix3_bus_master *master)
{
    uint8_t *bytes;
    uint32_t n = ide_dma_buffer(master->channel, &bytes);

    if (master->left == 0 && !next_region(master))
        return false;
    if (n > master->left)
        n = master->left;
    if (!move_bytes(master, bytes, n)) {
        stop(master, STATUS_ERROR);
        return false;
    }
    master->region += n;
    master->left -= n;
    ide_dma_advance(master->channel, n);
    return true;
}

/* Moves as long as the drive asks for it and the bus master may; each descriptor moves at least two bytes, so
 * the drive's sectors bound it. A direction that the drive did not mean moves nothing. */
static void move(struct piix3_bus_master *master)
{
    if (master->is_moving)
        return;
    master->is_moving = true;
    while ((master->status & STATUS_ACTIVE) && master->request &&
           ide_dma_is_to_host(master->channel) == is_to_memory(master) && move_piece(master))
        ;
    if (!master->request && master->left == 0 && master->is_last) /* 3.1: both ended together */
        stop(master, 0);
    master->is_moving = false;
}

void piix3_ide_set_dmarq(void *ctx, unsigned pin, bool level)
{
    struct piix3_bus_master *master = ctx;
    (void)pin;

    master->request = level;
    if (level)
        move(master);
}

void piix3_ide_set_intrq(void *ctx, unsigned pin, bool level)
{
    struct piix3_bus_master *master = ctx;
    (void)pin;

    if (level && !master->interrupt)
        master->status |= STATUS_INTERRUPT;
    master->interrupt = level;
    irq_set(&master->irq, level);
}

/* ---- the bus master's registers ------------------------------------------------------------------------ */

static void write_command(struct piix3_bus_master *master, uint8_t value)
{
    uint8_t rising = value & ~master->command;

    master->command = value & COMMAND_WRITABLE;
    if (!(value & COMMAND_START))
        stop(master, 0);
    if (!(rising & COMMAND_START))
        return;
    master->status |= STATUS_ACTIVE;
    master->next_descriptor = master->table;
    master->left = 0;
    master->is_last = false;
    move(master);
}

static void write_byte(struct piix3_bus_master *master, unsigned reg, uint8_t value)
{
    switch (reg) {
    case REG_COMMAND:
        write_command(master, value);
        break;
    case REG_STATUS:
        master->status &= (uint8_t) ~(value & (STATUS_ERROR | STATUS_INTERRUPT));
        master->status = (uint8_t)((master->status & ~STATUS_CAPABLE) | (value & STATUS_CAPABLE));
        break;
    case REG_TABLE:
    case REG_TABLE + 1:
    case REG_TABLE + 2:
    case REG_TABLE + 3: {
        unsigned shift = 8 * (reg - REG_TABLE);

        master->table = (master->table & ~(0xffu << shift)) | ((uint32_t)value << shift & ~3u);
        break;
    }
    default:
        break;
    }
}

static uint8_t read_byte(const struct piix3_bus_master *master, unsigned reg)
{
    switch (reg) {
    case REG_COMMAND:
        return master->command;
    case REG_STATUS:
        return master->status;
    case REG_COMMAND + 1:
    case REG_STATUS + 1:
        return 0;
    default:
        return (uint8_t)(master->table >> 8 * (reg - REG_TABLE));
    }
}

static uint32_t master_read(void *device, uint32_t offset, unsigned size)
{
    const struct piix3_ide *ide = device;
    uint32_t value = 0;

    for (unsigned i = 0; i < size; i++)
        value |= (uint32_t)read_byte(&ide->master[(offset + i) / MASTER_SIZE], (offset + i) % MASTER_SIZE)
                 << 8 * i;
    return value;
}

static void master_write(void *device, uint32_t offset, unsigned size, uint32_t value)
{
    struct piix3_ide *ide = device;

    for (unsigned i = 0; i < size; i++)
        write_byte(&ide->master[(offset + i) / MASTER_SIZE], (offset + i) % MASTER_SIZE,
                   (uint8_t)(value >> 8 * i));
}

static const struct bus_device_ops master_ops = {.read = master_read, .write = master_write, .max_size = 4};

/* ---- configuration space ------------------------------------------------------------------------------- */

static void move_window(struct piix3_ide *ide)
{
    uint32_t bar = pci_read_config(&ide->function, REG_BMIBA, 4);
    bool is_port = bar >> 16 == 0 && (bar & BMIBA_BASE) != 0;

    pci_window_move(&ide->window,
                    is_port && (pci_read_config(&ide->function, PCI_COMMAND, 2) & PCI_COMMAND_IO),
                    bar & BMIBA_BASE);
}

static void piix3_ide_written(void *ctx, unsigned offset, unsigned size)
{
    (void)offset;
    (void)size;
    move_window(ctx);
}

void piix3_ide_open(struct piix3_ide *ide)
{
    pci_write_config(&ide->function, REG_BMIBA, 4, PIIX3_IDE_FIRMWARE_BASE);
    pci_write_config(&ide->function, REG_IDETIM, 4, IDETIM_DECODE << 16 | IDETIM_DECODE);
    pci_write_config(&ide->function, PCI_COMMAND, 2, PCI_COMMAND_IO | PCI_COMMAND_MASTER);
}

void piix3_ide_reset(struct piix3_ide *ide)
{
    pci_function_reset(&ide->function);
    move_window(ide);
    for (unsigned i = 0; i < 2; i++)
        ide->master[i] = (struct piix3_bus_master){.request = ide->master[i].request,
                                                   .interrupt = ide->master[i].interrupt,
                                                   .channel = ide->master[i].channel,
                                                   .irq = ide->master[i].irq,
                                                   .host = ide->master[i].host};
}

void piix3_ide_init(struct piix3_ide *ide, struct bus *bus, struct ide_channel *channels,
                    struct irq_line primary, struct irq_line secondary, const struct board_host *host)
{
    *ide = (struct piix3_ide){.window = {.bus = bus,
                                         .space = BUS_PORT,
                                         .size = PIIX3_IDE_IO_SIZE,
                                         .ops = &master_ops,
                                         .device = ide,
                                         .name = "piix3 ide"}};
    ide->master[0] = (struct piix3_bus_master){.channel = &channels[0], .irq = primary, .host = host};
    ide->master[1] = (struct piix3_bus_master){.channel = &channels[1], .irq = secondary, .host = host};
    pci_function_init(&ide->function, registers, sizeof registers / sizeof registers[0], piix3_ide_written,
                      ide);
}
