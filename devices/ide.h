/*
 * An ATA channel with up to two disks: ATA/ATAPI-4 (T13/1153D), PIO and multiword DMA. Commands complete at
 * once, so BSY is seen only while SRST is held; those by DMA wait for the host to move the data.
 *
 * Read next: ide.c (registers and ports), ide_commands.c (what each command does), ide_transfer.c (sectors
 * through the data port), disk.h.
 */
#ifndef RING3_IDE_H
#define RING3_IDE_H

#include "devices/devices.h"
#include "devices/disk.h"

#define IDE_PRIMARY_COMMAND_FIRST   0x1f0
#define IDE_PRIMARY_COMMAND_LAST    0x1f7
#define IDE_PRIMARY_CONTROL         0x3f6
#define IDE_SECONDARY_COMMAND_FIRST 0x170
#define IDE_SECONDARY_COMMAND_LAST  0x177
#define IDE_SECONDARY_CONTROL       0x376

#define IDE_MAX_MULTIPLE 16 /* sectors in one block of READ/WRITE MULTIPLE */

enum ide_phase { IDE_IDLE, IDE_DATA_IN, IDE_DATA_OUT, IDE_DMA_IN, IDE_DMA_OUT };

struct ide_translation {
    uint16_t cylinders, heads, sectors_per_track;
};

struct ide_drive {
    struct disk *disk; /* NULL: nothing is connected */
    char serial[20];

    /* Command block registers. The host writes those of both drives and reads those of the selected one. */
    uint8_t error, features, count, lba_low, lba_mid, lba_high, device, status;
    bool interrupt_pending;

    /* The data transfer in progress. */
    enum ide_phase phase;
    uint32_t sector;        /* the first of the block in the buffer */
    uint32_t sectors_left;  /* in the command, including the block in the buffer */
    uint32_t block_sectors; /* in the buffer */
    uint32_t sectors_per_block;
    uint32_t position, size; /* bytes of the buffer */
    uint8_t buffer[IDE_MAX_MULTIPLE * DISK_SECTOR_SIZE];

    /* Settings. */
    struct ide_translation chs; /* the current one */
    uint8_t multiple;           /* sectors per block; 0: READ/WRITE MULTIPLE disabled */
    uint8_t dma_mode;           /* multiword, as SET FEATURES chose */
    bool write_cache;
    bool keep_settings; /* SET FEATURES 66h: a software reset does not revert the above */
    bool asleep;
};

struct ide_channel {
    struct ide_drive drive[2];
    uint8_t control; /* device control register: SRST, nIEN */
    struct irq_line irq;
    struct irq_line dmarq; /* the selected drive waits for a host that moves data */
};

void ide_init(struct ide_channel *channel, struct irq_line irq, struct irq_line dmarq);
/* Connects a disk, which stays owned by the caller. unit 0 is the master; `number` (0-3) goes into the serial
 * number. */
void ide_attach(struct ide_channel *channel, unsigned unit, struct disk *disk, unsigned number);
void ide_reset(struct ide_channel *channel); /* RESET-: power-on settings */

/* The host's end of a DMA transfer, while DMARQ is on: the bytes that are to be read or filled next (not 0),
 * and how many of them have been. */
bool ide_dma_is_to_host(struct ide_channel *channel);
uint32_t ide_dma_buffer(struct ide_channel *channel, uint8_t **bytes);
void ide_dma_advance(struct ide_channel *channel, uint32_t n);

extern const struct bus_device_ops ide_command_ops; /* eight ports; the data port takes 16 and 32 bits */
extern const struct bus_device_ops ide_control_ops; /* one port: alternate status, device control */

#endif
