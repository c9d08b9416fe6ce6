/*
 * Private to the three files of the ATA channel: ide.c (registers, ports, reset), ide_commands.c (the
 * commands), ide_transfer.c (sectors through the data port).
 */
#ifndef RING3_IDE_INTERNAL_H
#define RING3_IDE_INTERNAL_H

#include "devices/ide.h"

#define STATUS_BSY  0x80
#define STATUS_DRDY 0x40
#define STATUS_DF   0x20 /* device fault */
#define STATUS_DSC  0x10 /* seek complete */
#define STATUS_DRQ  0x08
#define STATUS_ERR  0x01

#define STATUS_READY (STATUS_DRDY | STATUS_DSC)

#define ERROR_UNC  0x40 /* uncorrectable data */
#define ERROR_IDNF 0x10 /* no such sector */
#define ERROR_ABRT 0x04

#define DEVICE_LBA  0x40
#define DEVICE_DEV  0x10
#define DEVICE_HEAD 0x0f

#define COMMAND_EXECUTE_DEVICE_DIAGNOSTIC 0x90 /* addresses both drives, so the channel does it */

/* ide_commands.c */
void ide_execute(struct ide_drive *drive, uint8_t command);
void ide_set_default_settings(struct ide_drive *drive);

/* ide_transfer.c */
void ide_complete(struct ide_drive *drive);
void ide_fail(struct ide_drive *drive, uint8_t status, uint8_t error); /* status: bits besides ERR */
bool ide_find_sector(const struct ide_drive *drive, uint32_t *sector); /* the one in the registers */
void ide_begin_sectors(struct ide_drive *drive, enum ide_phase phase, uint32_t sectors_per_block);
void ide_begin_data_in(struct ide_drive *drive, uint32_t size); /* of bytes that are in the buffer */
void ide_verify_sectors(struct ide_drive *drive);
uint16_t ide_read_word(struct ide_drive *drive);
void ide_write_word(struct ide_drive *drive, uint16_t word);
static inline bool ide_is_dma(const struct ide_drive *drive)
{
    return drive->phase == IDE_DMA_IN || drive->phase == IDE_DMA_OUT;
}
static inline bool ide_is_in(enum ide_phase phase)
{
    return phase == IDE_DATA_IN || phase == IDE_DMA_IN;
}
uint32_t ide_buffered(struct ide_drive *drive, uint8_t **bytes); /* of a DMA transfer, what is next */
void ide_skip(struct ide_drive *drive, uint32_t n);              /* so much of it is done */

#endif
