/*
 * What each ATA command does: ATA/ATAPI-4 clause 8, "Command descriptions". One table at the end; what is not
 * in it is aborted, as the standard demands. Read next: ide_transfer.c.
 */
#include "devices/ide_internal.h"

#include <string.h>

static void abort_command(struct ide_drive *drive)
{
    ide_fail(drive, 0, ERROR_ABRT);
}

#define MULTIWORD_DMA 0x20 /* transfer mode 0 of it */
#define MAX_DMA_MODE  2

/* ---- settings ---------------------------------------------------------------------------------------- */

static uint16_t at_most(uint32_t value, uint16_t limit)
{
    return value < limit ? (uint16_t)value : limit;
}

static struct ide_translation translation(const struct disk *disk, uint16_t heads, uint16_t sectors_per_track,
                                          uint16_t most_cylinders)
{
    uint32_t cylinders = disk->sectors / ((uint32_t)heads * sectors_per_track);

    return (struct ide_translation){at_most(cylinders, most_cylinders), heads, sectors_per_track};
}

/* 16 heads of 63 sectors, up to 16383 cylinders; a disk smaller than one such cylinder has fewer. */
static struct ide_translation default_translation(const struct disk *disk)
{
    uint16_t sectors_per_track = at_most(disk->sectors, 63);
    uint16_t heads = at_most(disk->sectors / sectors_per_track, 16);

    return translation(disk, heads, sectors_per_track, 16383);
}

void ide_set_default_settings(struct ide_drive *drive)
{
    if (drive->disk != NULL)
        drive->chs = default_translation(drive->disk);
    drive->multiple = IDE_MAX_MULTIPLE; /* so that a host that skips SET MULTIPLE MODE is served too */
    drive->dma_mode = MAX_DMA_MODE;
    drive->write_cache = true;
    drive->keep_settings = false;
}

static void initialize_device_parameters(struct ide_drive *drive)
{
    if (drive->count == 0) {
        abort_command(drive);
        return;
    }
    drive->chs = translation(drive->disk, (drive->device & DEVICE_HEAD) + 1, drive->count, UINT16_MAX);
    ide_complete(drive);
}

static void set_multiple_mode(struct ide_drive *drive)
{
    uint8_t sectors = drive->count;

    if (sectors > IDE_MAX_MULTIPLE || (sectors & (sectors - 1)) != 0) {
        drive->multiple = 0; /* the standard: READ and WRITE MULTIPLE are disabled then */
        abort_command(drive);
        return;
    }
    drive->multiple = sectors; /* 0 disables them */
    ide_complete(drive);
}

/* PIO default (00h, 01h) or PIO 0-4 with flow control (08h-0Ch), all of which are the same here; or multiword
 * DMA 0-2 (20h-22h). */
static bool set_transfer_mode(struct ide_drive *drive)
{
    uint8_t mode = drive->count;

    if (mode >= MULTIWORD_DMA && mode <= MULTIWORD_DMA + MAX_DMA_MODE) {
        drive->dma_mode = mode - MULTIWORD_DMA;
        return true;
    }
    return mode <= 0x01 || (mode >= 0x08 && mode <= 0x0c);
}

/* Subcommands are in the features register. */
static void set_features(struct ide_drive *drive)
{
    switch (drive->features) {
    case 0x02:
        drive->write_cache = true;
        break;
    case 0x82:
        drive->write_cache = false;
        if (!disk_flush(drive->disk)) {
            ide_fail(drive, STATUS_DF, ERROR_ABRT);
            return;
        }
        break;
    case 0x03:
        if (!set_transfer_mode(drive)) {
            abort_command(drive);
            return;
        }
        break;
    case 0x55: /* read look-ahead off, on: nothing shows */
    case 0xaa:
        break;
    case 0x66:
        drive->keep_settings = true;
        break;
    case 0xcc:
        drive->keep_settings = false;
        break;
    default:
        abort_command(drive);
        return;
    }
    ide_complete(drive);
}

/* ---- IDENTIFY DEVICE --------------------------------------------------------------------------------- */

static void put_word(struct ide_drive *drive, unsigned index, uint32_t value)
{
    drive->buffer[2 * (size_t)index] = (uint8_t)value;
    drive->buffer[2 * (size_t)index + 1] = (uint8_t)(value >> 8);
}

static void put_dword(struct ide_drive *drive, unsigned index, uint32_t value)
{
    put_word(drive, index, value);
    put_word(drive, index + 1, value >> 16);
}

/* Text is padded with blanks, and the first character of each pair is the high byte of its word. */
static void put_string(struct ide_drive *drive, unsigned first, unsigned last, const char *text)
{
    size_t length = strlen(text);
    size_t start = 2 * (size_t)first;

    for (size_t i = 0; i < 2 * ((size_t)last - first + 1); i++)
        drive->buffer[start + (i ^ 1)] = (uint8_t)(i < length ? text[i] : ' ');
}

#define FEATURE_POWER_MANAGEMENT (1u << 3) /* words 82 and 85 */
#define FEATURE_WRITE_CACHE      (1u << 5)
#define FEATURE_FLUSH_CACHE                                                                                  \
    (1u << 12) /* words 83 and 86, from ATA/ATAPI-5: without it Linux never flushes                          \
                */
#define WORD_IS_VALID (1u << 14)

/* "IDENTIFY DEVICE", the words that are not zero. */
static void identify_device(struct ide_drive *drive)
{
    struct ide_translation defaults = default_translation(drive->disk), chs = drive->chs;

    memset(drive->buffer, 0, DISK_SECTOR_SIZE);
    put_word(drive, 0, 1u << 6); /* not removable */
    put_word(drive, 1, defaults.cylinders);
    put_word(drive, 3, defaults.heads);
    put_word(drive, 6, defaults.sectors_per_track);
    put_string(drive, 10, 19, drive->serial);
    put_string(drive, 23, 26, "1.0");
    put_string(drive, 27, 46, "ring3 disk");
    put_word(drive, 47, 0x8000 | IDE_MAX_MULTIPLE);
    put_word(drive, 49, 1u << 11 | 1u << 9 | 1u << 8); /* IORDY, LBA, DMA */
    put_word(drive, 50, WORD_IS_VALID);
    put_word(drive, 51, 2 << 8); /* PIO mode 2 without flow control */
    put_word(drive, 53, 0x0003); /* words 54-58 and 64-70 are valid */
    put_word(drive, 54, chs.cylinders);
    put_word(drive, 55, chs.heads);
    put_word(drive, 56, chs.sectors_per_track);
    put_dword(drive, 57, (uint32_t)chs.cylinders * chs.heads * chs.sectors_per_track);
    put_word(drive, 59, drive->multiple != 0 ? 0x0100u | drive->multiple : 0);
    put_dword(drive, 60, drive->disk->sectors);
    put_word(drive, 63, 0x100u << drive->dma_mode | 0x0007); /* multiword DMA 0-2, and the chosen one */
    put_word(drive, 64, 0x0003);                             /* PIO modes 3 and 4 */
    put_word(drive, 65, 120);                                /* ns of a DMA cycle, at least and */
    put_word(drive, 66, 120);                                /* best */
    put_word(drive, 67, 120);                                /* ns of a PIO cycle, without and */
    put_word(drive, 68, 120);                                /* with flow control */
    put_word(drive, 80, 0x001e);                             /* ATA-1 to ATA/ATAPI-4 */
    put_word(drive, 82, FEATURE_WRITE_CACHE | FEATURE_POWER_MANAGEMENT);
    put_word(drive, 83, WORD_IS_VALID | FEATURE_FLUSH_CACHE);
    put_word(drive, 84, WORD_IS_VALID);
    put_word(drive, 85, (drive->write_cache ? FEATURE_WRITE_CACHE : 0) | FEATURE_POWER_MANAGEMENT);
    put_word(drive, 86, FEATURE_FLUSH_CACHE);
    put_word(drive, 87, WORD_IS_VALID);
    ide_begin_data_in(drive, DISK_SECTOR_SIZE);
}

/* ---- data -------------------------------------------------------------------------------------------- */

static void read_sectors(struct ide_drive *drive)
{
    ide_begin_sectors(drive, IDE_DATA_IN, 1);
}

static void write_sectors(struct ide_drive *drive)
{
    ide_begin_sectors(drive, IDE_DATA_OUT, 1);
}

static void read_multiple(struct ide_drive *drive)
{
    if (drive->multiple == 0)
        abort_command(drive);
    else
        ide_begin_sectors(drive, IDE_DATA_IN, drive->multiple);
}

static void write_multiple(struct ide_drive *drive)
{
    if (drive->multiple == 0)
        abort_command(drive);
    else
        ide_begin_sectors(drive, IDE_DATA_OUT, drive->multiple);
}

static void read_dma(struct ide_drive *drive)
{
    ide_begin_sectors(drive, IDE_DMA_IN, IDE_MAX_MULTIPLE);
}

static void write_dma(struct ide_drive *drive)
{
    ide_begin_sectors(drive, IDE_DMA_OUT, IDE_MAX_MULTIPLE);
}

static void flush_cache(struct ide_drive *drive)
{
    if (disk_flush(drive->disk))
        ide_complete(drive);
    else
        ide_fail(drive, STATUS_DF, ERROR_ABRT);
}

/* ---- seeking and power ------------------------------------------------------------------------------- */

static void seek(struct ide_drive *drive)
{
    uint32_t sector;

    if (ide_find_sector(drive, &sector))
        ide_complete(drive);
    else
        ide_fail(drive, 0, ERROR_IDNF);
}

static void check_power_mode(struct ide_drive *drive)
{
    drive->count = 0xff; /* active or idle */
    ide_complete(drive);
}

static void fall_asleep(struct ide_drive *drive)
{
    ide_complete(drive);
    drive->asleep = true;
}

/* ---- the table --------------------------------------------------------------------------------------- */

static const struct command {
    uint8_t first, last; /* opcodes */
    void (*run)(struct ide_drive *drive);
} commands[] = {
    {0x10, 0x1f, ide_complete}, /* RECALIBRATE */
    {0x20, 0x21, read_sectors}, /* with, without retries */
    {0x30, 0x31, write_sectors},
    {0x40, 0x41, ide_verify_sectors},
    {0x70, 0x7f, seek},
    {0x91, 0x91, initialize_device_parameters},
    {0xc4, 0xc4, read_multiple},
    {0xc5, 0xc5, write_multiple},
    {0xc6, 0xc6, set_multiple_mode},
    {0xc8, 0xc9, read_dma}, /* with, without retries */
    {0xca, 0xcb, write_dma},
    {0xe0, 0xe3, ide_complete}, /* STANDBY IMMEDIATE, IDLE IMMEDIATE, STANDBY, IDLE: nothing spins here */
    {0xe5, 0xe5, check_power_mode},
    {0xe6, 0xe6, fall_asleep},
    {0xe7, 0xe7, flush_cache},
    {0xec, 0xec, identify_device},
    {0xef, 0xef, set_features},
};

void ide_execute(struct ide_drive *drive, uint8_t command)
{
    if (drive->asleep)
        return; /* only a reset wakes it */

    /* A command given during a transfer ends the transfer; a block half written is not stored. */
    drive->phase = IDE_IDLE;
    drive->status = STATUS_READY;
    drive->error = 0;
    drive->interrupt_pending = false;
    for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++) {
        if (command >= commands[i].first && command <= commands[i].last) {
            commands[i].run(drive);
            return;
        }
    }
    abort_command(drive);
}
