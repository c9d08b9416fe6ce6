/*
 * Sectors between a disk and the host, a block at a time through the drive's buffer: ATA/ATAPI-4 clause 9,
 * "Protocol", PIO data in, PIO data out and DMA.
 *
 * A block is one sector, or for READ/WRITE MULTIPLE up to the number that SET MULTIPLE MODE chose. DRQ stands
 * while a block is in the buffer; every block but the first of a write is announced by an interrupt, and so
 * is the end of a write. A DMA command has one interrupt, at its end.
 *
 * Read next: disk.h.
 */
#include "devices/ide_internal.h"

/* ---- the end of a command ---------------------------------------------------------------------------- */

void ide_complete(struct ide_drive *drive)
{
    drive->phase = IDE_IDLE;
    drive->status = STATUS_READY;
    drive->interrupt_pending = true;
}

void ide_fail(struct ide_drive *drive, uint8_t status, uint8_t error)
{
    ide_complete(drive);
    drive->status |= status | STATUS_ERR;
    drive->error = error;
}

/* ---- addresses --------------------------------------------------------------------------------------- */

bool ide_find_sector(const struct ide_drive *drive, uint32_t *sector)
{
    const struct ide_translation *chs = &drive->chs;
    uint32_t cylinder = (uint32_t)drive->lba_high << 8 | drive->lba_mid;
    uint32_t head = drive->device & DEVICE_HEAD;

    if (drive->device & DEVICE_LBA) {
        *sector = head << 24 | cylinder << 8 | drive->lba_low;
    } else {
        if (cylinder >= chs->cylinders || head >= chs->heads || drive->lba_low == 0 ||
            drive->lba_low > chs->sectors_per_track)
            return false;
        *sector = (cylinder * chs->heads + head) * chs->sectors_per_track + drive->lba_low - 1;
    }
    return *sector < drive->disk->sectors;
}

/* After a transfer the registers hold the sector it ended at, in the addressing of the command. */
static void put_sector(struct ide_drive *drive, uint32_t sector)
{
    const struct ide_translation *chs = &drive->chs;
    uint32_t cylinder = sector >> 8, head = sector >> 24, low = sector;

    if (!(drive->device & DEVICE_LBA)) {
        low = sector % chs->sectors_per_track + 1;
        head = sector / chs->sectors_per_track % chs->heads;
        cylinder = sector / chs->sectors_per_track / chs->heads;
    }
    drive->lba_low = (uint8_t)low;
    drive->lba_mid = (uint8_t)cylinder;
    drive->lba_high = (uint8_t)(cylinder >> 8);
    drive->device = (uint8_t)((drive->device & ~DEVICE_HEAD) | (head & DEVICE_HEAD));
}

/* The i-th sector of the current block could not be had: it and what follows are left over. */
static void fail_at(struct ide_drive *drive, uint32_t i, uint8_t status, uint8_t error)
{
    put_sector(drive, drive->sector + i);
    drive->count = (uint8_t)(drive->sectors_left - i);
    ide_fail(drive, status, error);
}

/* ---- blocks ------------------------------------------------------------------------------------------ */

static void offer_buffer(struct ide_drive *drive, enum ide_phase phase, uint32_t size)
{
    drive->phase = phase;
    drive->position = 0;
    drive->size = size;
    drive->status = STATUS_READY | STATUS_DRQ;
}

static uint8_t *buffered_sector(struct ide_drive *drive, uint32_t i)
{
    return drive->buffer + (size_t)i * DISK_SECTOR_SIZE;
}

/* Fills the buffer (in), or makes room for a block that is known to fit on the disk (out). */
static bool start_block(struct ide_drive *drive, enum ide_phase phase)
{
    uint32_t block = drive->sectors_left;
    if (block > drive->sectors_per_block)
        block = drive->sectors_per_block;

    for (uint32_t i = 0; i < block; i++) {
        if (drive->sector + i >= drive->disk->sectors) {
            fail_at(drive, i, 0, ERROR_IDNF);
            return false;
        }
        if (ide_is_in(phase) && !disk_read(drive->disk, drive->sector + i, buffered_sector(drive, i))) {
            fail_at(drive, i, 0, ERROR_UNC);
            return false;
        }
    }
    drive->block_sectors = block;
    offer_buffer(drive, phase, block * DISK_SECTOR_SIZE);
    return true;
}

void ide_begin_sectors(struct ide_drive *drive, enum ide_phase phase, uint32_t sectors_per_block)
{
    if (!ide_find_sector(drive, &drive->sector)) {
        ide_fail(drive, 0, ERROR_IDNF);
        return;
    }
    drive->sectors_left = drive->count == 0 ? 256 : drive->count;
    drive->sectors_per_block = sectors_per_block;
    if (start_block(drive, phase) && phase == IDE_DATA_IN)
        drive->interrupt_pending = true;
}

void ide_begin_data_in(struct ide_drive *drive, uint32_t size)
{
    drive->block_sectors = 0; /* not sectors of the disk */
    offer_buffer(drive, IDE_DATA_IN, size);
    drive->interrupt_pending = true;
}

/* Moves on behind the block in the buffer. False: it was the last one. */
static bool advance(struct ide_drive *drive)
{
    drive->sector += drive->block_sectors;
    drive->sectors_left -= drive->block_sectors;
    if (drive->sectors_left > 0)
        return true;
    put_sector(drive, drive->sector - 1);
    drive->count = 0;
    return false;
}

/* The host has read the whole buffer. There is no interrupt for the end of a read by PIO. */
static void end_block_in(struct ide_drive *drive)
{
    enum ide_phase phase = drive->phase;

    if (drive->block_sectors > 0 && advance(drive)) {
        if (start_block(drive, phase) && phase == IDE_DATA_IN)
            drive->interrupt_pending = true;
        return;
    }
    if (phase == IDE_DMA_IN)
        drive->interrupt_pending = true;
    drive->phase = IDE_IDLE;
    drive->status = STATUS_READY;
}

/* The host has filled the buffer. With the write cache off, the data is on the medium before the end is told.
 */
static void end_block_out(struct ide_drive *drive)
{
    enum ide_phase phase = drive->phase;

    for (uint32_t i = 0; i < drive->block_sectors; i++) {
        if (!disk_write(drive->disk, drive->sector + i, buffered_sector(drive, i))) {
            fail_at(drive, i, STATUS_DF, ERROR_ABRT);
            return;
        }
    }
    if (!drive->write_cache && !disk_flush(drive->disk)) {
        fail_at(drive, 0, STATUS_DF, ERROR_ABRT);
        return;
    }
    if (!advance(drive))
        ide_complete(drive);
    else if (start_block(drive, phase) && phase == IDE_DATA_OUT)
        drive->interrupt_pending = true;
}

void ide_verify_sectors(struct ide_drive *drive)
{
    if (!ide_find_sector(drive, &drive->sector)) {
        ide_fail(drive, 0, ERROR_IDNF);
        return;
    }
    drive->sectors_left = drive->count == 0 ? 256 : drive->count;
    drive->sectors_per_block = 1;
    do {
        if (!start_block(drive, IDE_DATA_IN))
            return;
    } while (advance(drive));
    ide_complete(drive);
}

/* ---- the data register ------------------------------------------------------------------------------- */

uint16_t ide_read_word(struct ide_drive *drive)
{
    if (drive->phase != IDE_DATA_IN)
        return UINT16_MAX;
    const uint8_t *bytes = drive->buffer + drive->position;
    uint16_t word = (uint16_t)(bytes[0] | bytes[1] << 8);
    drive->position += 2;
    if (drive->position == drive->size)
        end_block_in(drive);
    return word;
}

void ide_write_word(struct ide_drive *drive, uint16_t word)
{
    if (drive->phase != IDE_DATA_OUT)
        return;
    drive->buffer[drive->position++] = (uint8_t)word;
    drive->buffer[drive->position++] = (uint8_t)(word >> 8);
    if (drive->position == drive->size)
        end_block_out(drive);
}

/* ---- DMA ---------------------------------------------------------------------------------------------- */

uint32_t ide_buffered(struct ide_drive *drive, uint8_t **bytes)
{
    *bytes = drive->buffer + drive->position;
    return drive->size - drive->position;
}

void ide_skip(struct ide_drive *drive, uint32_t n)
{
    drive->position += n;
    if (drive->position < drive->size)
        return;
    if (ide_is_in(drive->phase))
        end_block_in(drive);
    else
        end_block_out(drive);
}
