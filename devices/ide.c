/*
 * The ATA channel: command block and control block registers, drive selection, INTRQ and DMARQ, resets
 * (ATA/ATAPI-4 clauses 6 and 7). Read next: ide_commands.c.
 *
 * The host writes the registers of both drives at once and reads those of the selected one. Where no drive
 * answers, reads see what hardware shows: a lone master answers for a missing slave with status 0; with
 * nobody there the lines float high, but for DD7, which the host pulls down so that the empty bus does not
 * look busy.
 */
#include "devices/ide_internal.h"

#include "vcpu/fail.h"

#include <stdio.h>
#include <string.h>

/* Command block, from the first port */
enum {
    PORT_DATA,
    PORT_ERROR, /* write: features */
    PORT_COUNT,
    PORT_LBA_LOW,
    PORT_LBA_MID,
    PORT_LBA_HIGH,
    PORT_DEVICE,
    PORT_STATUS, /* write: command */
};

#define CONTROL_NIEN 0x02 /* interrupts off */
#define CONTROL_SRST 0x04

#define FLOATING_BYTE 0x7f
#define FLOATING_WORD 0xff7f

#define DIAGNOSTIC_PASSED 0x01

static struct ide_drive *selected_drive(struct ide_channel *channel)
{
    /* Both drives hold the same DEV bit. */
    return &channel->drive[channel->drive[0].device & DEVICE_DEV ? 1 : 0];
}

static bool is_in_software_reset(const struct ide_channel *channel)
{
    return channel->control & CONTROL_SRST;
}

/* INTRQ and DMARQ are driven by the selected drive; nIEN takes INTRQ off the bus. */
static void update_lines(struct ide_channel *channel)
{
    const struct ide_drive *drive = selected_drive(channel);

    irq_set(&channel->irq,
            drive->disk != NULL && drive->interrupt_pending && !(channel->control & CONTROL_NIEN));
    irq_set(&channel->dmarq, drive->disk != NULL && ide_is_dma(drive));
}

/* ---- resets ------------------------------------------------------------------------------------------ */

/* "Signature": what the registers hold after a reset or a diagnosis. DEV is 0: drive 0 is selected. */
static void post_signature(struct ide_drive *drive)
{
    drive->phase = IDE_IDLE;
    drive->interrupt_pending = false;
    drive->asleep = false;
    drive->error = DIAGNOSTIC_PASSED;
    drive->count = 1;
    drive->lba_low = 1;
    drive->lba_mid = 0;
    drive->lba_high = 0;
    drive->device = 0;
    drive->status = STATUS_READY;
}

static void software_reset(struct ide_channel *channel)
{
    for (unsigned unit = 0; unit < 2; unit++) {
        struct ide_drive *drive = &channel->drive[unit];
        if (!drive->keep_settings)
            ide_set_default_settings(drive);
        post_signature(drive);
    }
}

static void execute_device_diagnostic(struct ide_channel *channel)
{
    for (unsigned unit = 0; unit < 2; unit++)
        post_signature(&channel->drive[unit]);
    channel->drive[0].interrupt_pending = true; /* drive 0 reports for both */
}

/* ---- reading ----------------------------------------------------------------------------------------- */

static uint16_t read_data(struct ide_channel *channel)
{
    struct ide_drive *drive = selected_drive(channel);

    return drive->disk != NULL ? ide_read_word(drive) : FLOATING_WORD;
}

static uint8_t register_of(const struct ide_drive *drive, uint32_t port)
{
    switch (port) {
    case PORT_ERROR:
        return drive->error;
    case PORT_COUNT:
        return drive->count;
    case PORT_LBA_LOW:
        return drive->lba_low;
    case PORT_LBA_MID:
        return drive->lba_mid;
    case PORT_LBA_HIGH:
        return drive->lba_high;
    case PORT_DEVICE:
        return drive->device;
    }
    return drive->status;
}

/* Any register but data, without side effects. */
static uint8_t peek_register(struct ide_channel *channel, uint32_t port)
{
    const struct ide_drive *drive = selected_drive(channel);

    if (drive->disk == NULL) {
        const struct ide_drive *master = &channel->drive[0];
        if (master->disk == NULL)
            return FLOATING_BYTE;
        if (port == PORT_STATUS)
            return 0;
        drive = master;
    }
    if (is_in_software_reset(channel))
        return STATUS_BSY; /* whatever register is read */
    return register_of(drive, port);
}

static uint8_t read_register(struct ide_channel *channel, uint32_t port)
{
    if (port == PORT_DATA)
        return (uint8_t)read_data(channel); /* an 8-bit cycle takes a whole word off the drive */
    uint8_t value = peek_register(channel, port);
    if (port == PORT_STATUS)
        selected_drive(channel)->interrupt_pending = false;
    return value;
}

/* The data port moves 16 bits a cycle; a 32-bit access there is two cycles. The other ports are one byte wide
 * each. */
static uint32_t ide_command_read(void *device, uint32_t offset, unsigned size)
{
    struct ide_channel *channel = device;
    uint32_t value = 0;

    if (offset == PORT_DATA && size >= 2) {
        value = read_data(channel);
        if (size == 4)
            value |= (uint32_t)read_data(channel) << 16;
    } else {
        for (unsigned i = 0; i < size; i++)
            value |= (uint32_t)read_register(channel, offset + i) << 8 * i;
    }
    update_lines(channel);
    return value;
}

/* ---- writing ----------------------------------------------------------------------------------------- */

static void write_data(struct ide_channel *channel, uint16_t word)
{
    struct ide_drive *drive = selected_drive(channel);

    if (drive->disk != NULL)
        ide_write_word(drive, word);
}

static void write_command(struct ide_channel *channel, uint8_t command)
{
    struct ide_drive *drive = selected_drive(channel);

    if (command == COMMAND_EXECUTE_DEVICE_DIAGNOSTIC)
        execute_device_diagnostic(channel);
    else if (drive->disk != NULL)
        ide_execute(drive, command);
}

static void latch_register(struct ide_drive *drive, uint32_t port, uint8_t value)
{
    switch (port) {
    case PORT_ERROR:
        drive->features = value;
        break;
    case PORT_COUNT:
        drive->count = value;
        break;
    case PORT_LBA_LOW:
        drive->lba_low = value;
        break;
    case PORT_LBA_MID:
        drive->lba_mid = value;
        break;
    case PORT_LBA_HIGH:
        drive->lba_high = value;
        break;
    case PORT_DEVICE:
        drive->device = value;
        break;
    default:
        break;
    }
}

static void write_register(struct ide_channel *channel, uint32_t port, uint8_t value)
{
    if (port == PORT_DATA) {
        write_data(channel, value);
        return;
    }
    if (port == PORT_STATUS) {
        write_command(channel, value);
        return;
    }
    for (unsigned unit = 0; unit < 2; unit++)
        latch_register(&channel->drive[unit], port, value);
}

static void ide_command_write(void *device, uint32_t offset, unsigned size, uint32_t value)
{
    struct ide_channel *channel = device;

    if (is_in_software_reset(channel))
        return; /* busy */
    if (offset == PORT_DATA && size >= 2) {
        write_data(channel, (uint16_t)value);
        if (size == 4)
            write_data(channel, (uint16_t)(value >> 16));
    } else {
        for (unsigned i = 0; i < size; i++)
            write_register(channel, offset + i, (uint8_t)(value >> 8 * i));
    }
    update_lines(channel);
}

const struct bus_device_ops ide_command_ops = {
    .read = ide_command_read, .write = ide_command_write, .max_size = 4};

/* ---- control block ----------------------------------------------------------------------------------- */

static uint32_t ide_control_read(void *device, uint32_t offset, unsigned size)
{
    (void)offset;
    (void)size;
    return peek_register(device, PORT_STATUS); /* alternate status: the interrupt stays pending */
}

static void ide_control_write(void *device, uint32_t offset, unsigned size, uint32_t value)
{
    struct ide_channel *channel = device;
    bool was_in_reset = is_in_software_reset(channel);

    (void)offset;
    (void)size;
    channel->control = value & (CONTROL_SRST | CONTROL_NIEN);
    if (is_in_software_reset(channel) != was_in_reset)
        software_reset(
            channel); /* at the start to drop what is under way, at the end to post the signature */
    update_lines(channel);
}

const struct bus_device_ops ide_control_ops = {
    .read = ide_control_read, .write = ide_control_write, .max_size = 1};

/* ---- DMA ---------------------------------------------------------------------------------------------- */

bool ide_dma_is_to_host(struct ide_channel *channel)
{
    return selected_drive(channel)->phase == IDE_DMA_IN;
}

uint32_t ide_dma_buffer(struct ide_channel *channel, uint8_t **bytes)
{
    return ide_buffered(selected_drive(channel), bytes);
}

void ide_dma_advance(struct ide_channel *channel, uint32_t n)
{
    ide_skip(selected_drive(channel), n);
    update_lines(channel);
}

/* ---- power-on ---------------------------------------------------------------------------------------- */

void ide_reset(struct ide_channel *channel)
{
    channel->control = 0;
    for (unsigned unit = 0; unit < 2; unit++) {
        channel->drive[unit].features = 0;
        ide_set_default_settings(&channel->drive[unit]);
        post_signature(&channel->drive[unit]);
    }
    update_lines(channel);
}

void ide_init(struct ide_channel *channel, struct irq_line irq, struct irq_line dmarq)
{
    memset(channel, 0, sizeof(*channel));
    channel->irq = irq;
    channel->dmarq = dmarq;
    for (unsigned unit = 0; unit < 2; unit++)
        ide_set_default_settings(&channel->drive[unit]);
    for (unsigned unit = 0; unit < 2; unit++)
        post_signature(&channel->drive[unit]);
}

void ide_attach(struct ide_channel *channel, unsigned unit, struct disk *disk, unsigned number)
{
    BUG_ON(unit > 1);
    struct ide_drive *drive = &channel->drive[unit];

    drive->disk = disk;
    snprintf(drive->serial, sizeof(drive->serial), "RING3-%u", number);
    ide_set_default_settings(drive);
}
