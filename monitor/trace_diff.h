/* The first difference of two traces. See trace_diff.c; the command is cmd_trace.c. */
#ifndef RING3_TRACE_DIFF_H
#define RING3_TRACE_DIFF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#define TRACE_DIFF_MAX_IGNORED 32
#define TRACE_DIFF_MAX_CONTEXT 1000

struct trace_diff_options {
    bool is_guest_visible; /* compare only what the guest could see: docs/trace.md says what that is */
    unsigned n_context;    /* equal records shown before the difference */
    const char *ignored[TRACE_DIFF_MAX_IGNORED]; /* keys that are not compared */
    size_t n_ignored;
};

enum trace_diff_result {
    TRACE_DIFF_SAME,
    TRACE_DIFF_DIFFERENT,
    TRACE_DIFF_UNREADABLE, /* and no difference up to there; one line in `error` */
};

/* Reports on `out`, for a person. */
enum trace_diff_result trace_diff(const char *path_a, const char *path_b,
                                  const struct trace_diff_options *options, FILE *out, char *error,
                                  size_t error_size);

#endif
