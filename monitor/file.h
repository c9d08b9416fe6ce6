/* Reading a whole regular file, with one line of explanation when that fails. */
#ifndef RING3_FILE_H
#define RING3_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define FILE_MAX_SIZE (UINT64_C(1) << 30)

struct file_bytes {
    uint8_t *bytes; /* NULL for an empty file */
    size_t size;
};

/* false: one line in `error`, beginning with the path. Nothing but a regular file of up to FILE_MAX_SIZE is
 * read. */
bool file_read(const char *path, struct file_bytes *file, char *error, size_t error_size);
void file_free(struct file_bytes *file);

/* Puts "subject: what" in `error`, control characters of the subject (a file name can hold any) shown as '?',
 * so that it stays one line. Always false. */
bool file_fail(const char *subject, char *error, size_t error_size, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

#endif
