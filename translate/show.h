/*
 * Blocks as text: the guest's instructions and the host code made of them, side by side.
 *
 * Read next: show.c.
 */
#ifndef RING3_TRANSLATE_SHOW_H
#define RING3_TRANSLATE_SHOW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

struct symbols;

struct show_request {
    const uint8_t *bytes; /* of the guest's code, from `eip` on */
    size_t n;
    uint32_t eip;
    bool is_user; /* as translated for CPL 3; all segments are flat either way */
    unsigned n_blocks;
    const struct symbols *symbols; /* may be NULL */
};

/* Blocks one behind the other in memory. false: one line in `error`, and what was printed is all there is. */
bool show_blocks(const struct show_request *request, FILE *out, char *error, size_t error_size);

#endif
