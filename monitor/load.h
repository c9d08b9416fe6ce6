/* Putting a kernel into a machine: what loader.c and load_linux.c share. Private to the loader. */
#ifndef RING3_LOAD_H
#define RING3_LOAD_H

#include "monitor/image.h"

/* Low memory that boot information may take: above the 64 KiB that no ordinary process can map (window.c: an
 * access there is emulated). */
#define LOAD_LOW_FIRST 0x00010000u
#define LOAD_LOW_END   0x0009fc00u

struct load_range {
    uint64_t first, end;
};

/* What is taken in guest memory so far. */
struct load_layout {
    struct load_range taken[IMAGE_MAX_SEGMENTS + LOADER_MAX_MODULES + LOADER_MAX_BLOBS + 4];
    unsigned n_taken;
};

struct load {
    const struct kernel_image *image;
    const struct loader_config *config;
    struct vm *vm;
    struct load_layout layout;
    struct image_error error;
};

void load_take(struct load *load, uint64_t first, uint64_t size);
/* The lowest, or the highest, aligned place in [first, end) that overlaps nothing taken. */
bool load_find_lowest(const struct load *load, uint64_t first, uint64_t end, uint64_t size, uint64_t align,
                      uint64_t *place);
bool load_find_highest(const struct load *load, uint64_t first, uint64_t end, uint64_t size, uint64_t align,
                       uint64_t *place);
/* The place must be memory. */
void load_put(struct load *load, uint64_t gpa, const void *bytes, size_t size);

/* load_linux.c: what a Linux kernel needs beside its segment, and the processor at its entry. */
bool load_linux(struct load *load);

#endif
