/*
 * A raw disk image as sectors; in snapshot mode, a sparse layer of written sectors over it. Shape: disk.h.
 *
 * Read next: ide_transfer.c.
 */
#include "devices/disk.h"

#include "vcpu/fail.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define CHUNK_SECTORS 128u /* 64 KiB */
#define MAX_CHUNKS    (DISK_SNAPSHOT_LIMIT / (CHUNK_SECTORS * DISK_SECTOR_SIZE))

struct disk_chunk {
    uint64_t is_written[CHUNK_SECTORS / 64]; /* a bit a sector; the others are still those of the file */
    uint8_t sector[CHUNK_SECTORS][DISK_SECTOR_SIZE];
};

/* ---- open and close ---------------------------------------------------------------------------------- */

static bool refuse(struct disk *disk, char *error, size_t error_size, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

static bool refuse(struct disk *disk, char *error, size_t error_size, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(error, error_size, format, arguments);
    va_end(arguments);
    if (disk->fd >= 0)
        close(disk->fd);
    *disk = (struct disk){0};
    return false;
}

bool disk_open(struct disk *disk, const char *path, bool snapshot, char *error, size_t error_size)
{
    struct stat status;

    *disk = (struct disk){.snapshot = snapshot};
    /* O_NONBLOCK: a FIFO is to be refused, not waited for. */
    disk->fd = open(path, (snapshot ? O_RDONLY : O_RDWR) | O_CLOEXEC | O_NONBLOCK);
    if (disk->fd < 0) {
        bool is_writing_the_problem = !snapshot && (errno == EACCES || errno == EROFS || errno == EPERM);
        return refuse(disk, error, error_size, "drive %s: %s%s", path, strerror(errno),
                      is_writing_the_problem ? " (to leave the file untouched, add ,snapshot)" : "");
    }
    if (fstat(disk->fd, &status) != 0)
        return refuse(disk, error, error_size, "drive %s: %s", path, strerror(errno));
    if (!S_ISREG(status.st_mode))
        return refuse(disk, error, error_size, "drive %s: not a regular file", path);
    if (status.st_size == 0)
        return refuse(disk, error, error_size, "drive %s: the file is empty", path);
    if (status.st_size % DISK_SECTOR_SIZE != 0)
        return refuse(disk, error, error_size,
                      "drive %s: %" PRId64
                      " bytes is not a whole number of 512-byte sectors (a raw image is)",
                      path, (int64_t)status.st_size);
    if (status.st_size / DISK_SECTOR_SIZE > DISK_MAX_SECTORS)
        return refuse(disk, error, error_size,
                      "drive %s: larger than 128 GiB, the limit of 28-bit ATA addresses", path);
    disk->sectors = (uint32_t)(status.st_size / DISK_SECTOR_SIZE);

    if (snapshot) {
        disk->n_chunks = (disk->sectors + CHUNK_SECTORS - 1) / CHUNK_SECTORS;
        disk->chunks = calloc(disk->n_chunks, sizeof(struct disk_chunk *));
        if (disk->chunks == NULL)
            return refuse(disk, error, error_size, "drive %s: no memory for the snapshot's table", path);
    }
    return true;
}

bool disk_close(struct disk *disk)
{
    if (disk->sectors == 0)
        return true;

    bool is_stored = disk_flush(disk);

    for (uint32_t i = 0; i < disk->n_chunks; i++)
        free(disk->chunks[i]);
    free(disk->chunks);
    if (close(disk->fd) != 0)
        is_stored = false;
    *disk = (struct disk){0};
    return is_stored;
}

/* ---- sectors ----------------------------------------------------------------------------------------- */

static off_t offset_of(uint32_t sector)
{
    return (off_t)sector * DISK_SECTOR_SIZE;
}

static bool read_file(const struct disk *disk, uint32_t sector, uint8_t *bytes)
{
    size_t done = 0;

    while (done < DISK_SECTOR_SIZE) {
        ssize_t n = pread(disk->fd, bytes + done, DISK_SECTOR_SIZE - done, offset_of(sector) + (off_t)done);
        if (n > 0)
            done += (size_t)n;
        else if (n == 0 || errno != EINTR) /* 0: somebody truncated the file under us */
            return false;
    }
    return true;
}

static bool write_file(const struct disk *disk, uint32_t sector, const uint8_t *bytes)
{
    size_t done = 0;

    while (done < DISK_SECTOR_SIZE) {
        ssize_t n = pwrite(disk->fd, bytes + done, DISK_SECTOR_SIZE - done, offset_of(sector) + (off_t)done);
        if (n > 0)
            done += (size_t)n;
        else if (n == 0 || errno != EINTR)
            return false;
    }
    return true;
}

static struct disk_chunk *find_chunk(const struct disk *disk, uint32_t sector)
{
    return disk->chunks[sector / CHUNK_SECTORS];
}

static struct disk_chunk *find_or_make_chunk(struct disk *disk, uint32_t sector)
{
    struct disk_chunk **slot = &disk->chunks[sector / CHUNK_SECTORS];

    if (*slot == NULL && disk->chunks_in_use < MAX_CHUNKS) {
        *slot = calloc(1, sizeof(struct disk_chunk));
        if (*slot != NULL)
            disk->chunks_in_use++;
    }
    return *slot;
}

static uint64_t *written_word(struct disk_chunk *chunk, uint32_t sector)
{
    return &chunk->is_written[sector % CHUNK_SECTORS / 64];
}

bool disk_read(const struct disk *disk, uint32_t sector, uint8_t *bytes)
{
    BUG_ON(sector >= disk->sectors);
    struct disk_chunk *chunk = disk->snapshot ? find_chunk(disk, sector) : NULL;

    if (chunk == NULL || !(*written_word(chunk, sector) >> sector % 64 & 1))
        return read_file(disk, sector, bytes);
    memcpy(bytes, chunk->sector[sector % CHUNK_SECTORS], DISK_SECTOR_SIZE);
    return true;
}

bool disk_write(struct disk *disk, uint32_t sector, const uint8_t *bytes)
{
    BUG_ON(sector >= disk->sectors);
    if (!disk->snapshot)
        return write_file(disk, sector, bytes);

    struct disk_chunk *chunk = find_or_make_chunk(disk, sector);
    if (chunk == NULL)
        return false;
    memcpy(chunk->sector[sector % CHUNK_SECTORS], bytes, DISK_SECTOR_SIZE);
    *written_word(chunk, sector) |= UINT64_C(1) << sector % 64;
    return true;
}

bool disk_flush(struct disk *disk)
{
    return disk->snapshot || fdatasync(disk->fd) == 0;
}
