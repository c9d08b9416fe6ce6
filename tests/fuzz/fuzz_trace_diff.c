/*
 * The reader of traces on any two files: the input, cut at the first zero byte, or in the middle where there
 * is none.
 */
#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "fuzz.h"
#include "monitor/trace_diff.h"

static int make_file(const uint8_t *bytes, size_t n)
{
    int fd = memfd_create("trace", 0);

    FUZZ_CHECK(fd >= 0 && write(fd, bytes, n) == (ssize_t)n);
    return fd;
}

static void diff(const uint8_t *a, size_t n_a, const uint8_t *b, size_t n_b, bool is_guest_visible)
{
    const struct trace_diff_options options = {
        .is_guest_visible = is_guest_visible, .n_context = 2, .ignored = {"time"}, .n_ignored = 1};
    int fd_a = make_file(a, n_a), fd_b = make_file(b, n_b);
    char path_a[32], path_b[32], error[256] = "", *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    enum trace_diff_result result;

    FUZZ_CHECK(out != NULL);
    snprintf(path_a, sizeof path_a, "/proc/self/fd/%d", fd_a);
    snprintf(path_b, sizeof path_b, "/proc/self/fd/%d", fd_b);
    result = trace_diff(path_a, path_b, &options, out, error, sizeof error);
    FUZZ_CHECK(result != TRACE_DIFF_UNREADABLE || error[0] != '\0');
    FUZZ_CHECK(result != TRACE_DIFF_DIFFERENT || n_a != n_b || memcmp(a, b, n_a) != 0);
    fclose(out);
    free(text);
    close(fd_a);
    close(fd_b);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    const uint8_t *cut = n == 0 ? NULL : memchr(bytes, 0, n);
    size_t n_a = cut == NULL ? n / 2 : (size_t)(cut - bytes), skipped = cut == NULL ? 0 : 1;

    if (n == 0)
        return 0;
    diff(bytes, n_a, bytes + n_a + skipped, n - n_a - skipped, false);
    diff(bytes, n_a, bytes, n_a, true);
    return 0;
}
