/*
 * A raw disk image on the host, seen as sectors. In snapshot mode the file is opened read-only and written
 * sectors live in memory, in chunks made on first write, up to DISK_SNAPSHOT_LIMIT bytes.
 *
 * Transfers are complete or report failure: a host error is never dropped.
 */
#ifndef RING3_DISK_H
#define RING3_DISK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define DISK_SECTOR_SIZE    512u
#define DISK_MAX_SECTORS    0x0fffffffu /* what LBA28 can count */
#define DISK_SNAPSHOT_LIMIT (256u << 20)

struct disk_chunk;

struct disk {
    int fd;
    bool snapshot;
    uint32_t sectors; /* 0: not open */
    struct disk_chunk *
        *chunks;       /* snapshot mode: one slot for each DISK_CHUNK_SECTORS sectors; NULL: never written */
    uint32_t n_chunks; /* slots */
    uint32_t chunks_in_use;
};

/* On failure: false, and one line (which file, what is wrong with it) in `error`. */
bool disk_open(struct disk *disk, const char *path, bool snapshot, char *error, size_t error_size);
/* False if the host could not store everything that was written. Does nothing to a disk that is not open. */
bool disk_close(struct disk *disk);

/* One sector, 512 bytes. sector < disk->sectors. False: host I/O error, or the snapshot is full. */
bool disk_read(const struct disk *disk, uint32_t sector, uint8_t *bytes);
bool disk_write(struct disk *disk, uint32_t sector, const uint8_t *bytes);
bool disk_flush(struct disk *disk);

#endif
