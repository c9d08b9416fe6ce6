/* A little guest memory, and a board that reaches it by DMA. MEMORY_SIZE says how much before this is
 * included. */
#ifndef RING3_UNIT_DMA_MEMORY_H
#define RING3_UNIT_DMA_MEMORY_H

#include <string.h>

#include "devices/devices.h"

static uint8_t memory[MEMORY_SIZE];

static bool is_memory(uint64_t gpa, size_t n)
{
    return gpa <= sizeof memory && n <= sizeof memory - gpa;
}

static bool dma_read(void *ctx, uint64_t gpa, void *bytes, size_t n)
{
    (void)ctx;
    if (is_memory(gpa, n))
        memcpy(bytes, memory + gpa, n);
    return is_memory(gpa, n);
}

static bool dma_write(void *ctx, uint64_t gpa, const void *bytes, size_t n)
{
    (void)ctx;
    if (is_memory(gpa, n))
        memcpy(memory + gpa, bytes, n);
    return is_memory(gpa, n);
}

static const struct board_host host = {.dma_read = dma_read, .dma_write = dma_write};

#endif
