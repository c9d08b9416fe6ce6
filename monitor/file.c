/* Whole files: see file.h. They are read, not mapped: a mapped file that shrinks raises SIGBUS in the reader.
 */
#include "monitor/file.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

bool file_fail(const char *subject, char *error, size_t error_size, const char *format, ...)
{
    char text[512];
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    snprintf(error, error_size, "%s: %s", subject, text);
    for (char *c = error; error_size > 0 && *c != '\0'; c++) {
        if (iscntrl((unsigned char)*c))
            *c = '?';
    }
    return false;
}

/* Reads until the end of the file, which may have grown or shrunk since it was measured. */
static bool read_fully(int fd, struct file_bytes *file, size_t capacity)
{
    while (file->size < capacity) {
        ssize_t n = read(fd, file->bytes + file->size, capacity - file->size);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return false;
        if (n == 0)
            break;
        file->size += (size_t)n;
    }
    return true;
}

static bool read_open_file(const char *path, int fd, struct file_bytes *file, char *error, size_t error_size)
{
    struct stat status;

    if (fstat(fd, &status) != 0)
        return file_fail(path, error, error_size, "cannot be examined: %s", strerror(errno));
    if (S_ISDIR(status.st_mode))
        return file_fail(path, error, error_size, "is a directory");
    if (!S_ISREG(status.st_mode))
        return file_fail(path, error, error_size, "is not a regular file");
    if ((uint64_t)status.st_size > FILE_MAX_SIZE)
        return file_fail(path, error, error_size, "is larger than 1 GiB");
    if (status.st_size == 0)
        return true;
    file->bytes = malloc((size_t)status.st_size);
    if (file->bytes == NULL)
        return file_fail(path, error, error_size, "no memory for its %lld bytes", (long long)status.st_size);
    if (!read_fully(fd, file, (size_t)status.st_size)) {
        file_fail(path, error, error_size, "cannot be read: %s", strerror(errno));
        file_free(file);
        return false;
    }
    return true;
}

bool file_read(const char *path, struct file_bytes *file, char *error, size_t error_size)
{
    int fd;
    bool ok;

    *file = (struct file_bytes){0};
    fd = open(path,
              O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* O_NONBLOCK: a FIFO without a writer must not hang us */
    if (fd < 0)
        return file_fail(path, error, error_size, "cannot be opened: %s", strerror(errno));
    ok = read_open_file(path, fd, file, error, error_size);
    close(fd);
    return ok;
}

void file_free(struct file_bytes *file)
{
    free(file->bytes);
    *file = (struct file_bytes){0};
}
