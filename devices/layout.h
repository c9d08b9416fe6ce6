/* Bytes of a table being laid out one after the other, little-endian, for the firmware's tables: mptable.c,
 * acpi.c. Room is the caller's to guarantee; running out of it is a bug. */
#ifndef RING3_LAYOUT_H
#define RING3_LAYOUT_H

#include <stddef.h>
#include <stdint.h>

#include "vcpu/fail.h"

struct layout {
    uint8_t *bytes;
    size_t size, capacity;
};

static inline void put8(struct layout *out, uint8_t value)
{
    BUG_ON(out->size == out->capacity);
    out->bytes[out->size++] = value;
}

static inline void put16(struct layout *out, uint16_t value)
{
    put8(out, (uint8_t)value);
    put8(out, (uint8_t)(value >> 8));
}

static inline void put32(struct layout *out, uint32_t value)
{
    put16(out, (uint16_t)value);
    put16(out, (uint16_t)(value >> 16));
}

static inline void put_text(struct layout *out, const char *text)
{
    while (*text != '\0')
        put8(out, (uint8_t)*text++);
}

static inline void put_zeroes(struct layout *out, size_t n)
{
    while (n-- > 0)
        put8(out, 0);
}

/* What makes all bytes of a checked structure add up to zero, in the place of a zero among them. */
static inline uint8_t checksum(const uint8_t *bytes, size_t size)
{
    uint8_t sum = 0;

    for (size_t i = 0; i < size; i++)
        sum = (uint8_t)(sum + bytes[i]);
    return (uint8_t)-sum;
}

#endif
