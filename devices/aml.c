/* aml: see aml.h. Section numbers are those of the ACPI specification 6.4. */
#include "devices/aml.h"

#include <stdio.h>
#include <string.h>

/* 20.2.1 and 20.2.5 */
enum aml_opcode {
    AML_ZERO = 0x00,
    AML_ONE = 0x01,
    AML_NAME = 0x08,
    AML_BYTE = 0x0a,
    AML_WORD = 0x0b,
    AML_DWORD = 0x0c,
    AML_SCOPE = 0x10,
    AML_BUFFER = 0x11,
    AML_PACKAGE = 0x12,
    AML_EXTENDED = 0x5b,
    AML_EXTENDED_DEVICE = 0x82,
};

#define NAME_LENGTH 4

/* ---- names and blocks ---------------------------------------------------------------------------------- */

/* 20.2.2: one segment, padded with underscores; a backslash stands for the root. */
static void put_name(struct layout *out, const char *name)
{
    if (*name == '\\')
        put8(out, (uint8_t)*name++);
    BUG_ON(strlen(name) > NAME_LENGTH);
    put_text(out, name);
    for (size_t i = strlen(name); i < NAME_LENGTH; i++)
        put8(out, '_');
}

/* 20.2.4: the length is always laid out in two bytes (12 bits), which is never too short here. */
static struct aml_block begin_block(struct layout *out)
{
    struct aml_block block = {.length_at = out->size};

    put16(out, 0);
    return block;
}

void aml_end(struct layout *out, struct aml_block block)
{
    size_t length = out->size - block.length_at;

    BUG_ON(length >= 1 << 12);
    out->bytes[block.length_at] = (uint8_t)(0x40 | (length & 0xf));
    out->bytes[block.length_at + 1] = (uint8_t)(length >> 4);
}

struct aml_block aml_begin_scope(struct layout *out, const char *name)
{
    put8(out, AML_SCOPE);
    struct aml_block block = begin_block(out);

    put_name(out, name);
    return block;
}

struct aml_block aml_begin_device(struct layout *out, const char *name)
{
    put8(out, AML_EXTENDED);
    put8(out, AML_EXTENDED_DEVICE);
    struct aml_block block = begin_block(out);

    put_name(out, name);
    return block;
}

struct aml_block aml_begin_package(struct layout *out, uint8_t n_elements)
{
    put8(out, AML_PACKAGE);
    struct aml_block block = begin_block(out);

    put8(out, n_elements);
    return block;
}

/* ---- objects ------------------------------------------------------------------------------------------- */

void aml_name(struct layout *out, const char *name)
{
    put8(out, AML_NAME);
    put_name(out, name);
}

void aml_integer(struct layout *out, uint32_t value)
{
    if (value <= 1) {
        put8(out, value == 0 ? AML_ZERO : AML_ONE);
    } else if (value <= UINT8_MAX) {
        put8(out, AML_BYTE);
        put8(out, (uint8_t)value);
    } else if (value <= UINT16_MAX) {
        put8(out, AML_WORD);
        put16(out, (uint16_t)value);
    } else {
        put8(out, AML_DWORD);
        put32(out, value);
    }
}

/* 19.3.4, "EISAID": three letters of 5 bits each and four hexadecimal digits, the first byte highest. */
void aml_eisa_id(struct layout *out, const char *id)
{
    unsigned digits = 0;
    uint32_t value;

    BUG_ON(strlen(id) != 7 || sscanf(id + 3, "%4x", &digits) != 1);
    value = (uint32_t)(id[0] - '@') << 26 | (uint32_t)(id[1] - '@') << 21 | (uint32_t)(id[2] - '@') << 16 |
            digits;
    put8(out, AML_DWORD);
    put32(out, __builtin_bswap32(value));
}

/* ---- resources ----------------------------------------------------------------------------------------- */

struct aml_resources aml_begin_resources(struct layout *out)
{
    struct aml_resources resources;

    put8(out, AML_BUFFER);
    resources.buffer = begin_block(out);
    put8(out, AML_WORD);
    resources.size_at = out->size;
    put16(out, 0);
    resources.start = out->size;
    return resources;
}

void aml_end_resources(struct layout *out, struct aml_resources resources)
{
    put8(out, 0x79); /* 6.4.2.9: end tag; */
    put8(out, 0);    /* no checksum */
    out->bytes[resources.size_at] = (uint8_t)(out->size - resources.start);
    out->bytes[resources.size_at + 1] = (uint8_t)((out->size - resources.start) >> 8);
    aml_end(out, resources.buffer);
}

/* 6.4.2.5 */
void aml_ports(struct layout *out, uint16_t first, uint8_t n)
{
    put8(out, 0x47);
    put8(out, 1); /* all 16 address lines are decoded */
    put16(out, first);
    put16(out, first);
    put8(out, 1); /* alignment */
    put8(out, n);
}

/* 6.4.2.1, in the short form that says edge-triggered and active high. */
void aml_irq(struct layout *out, unsigned irq)
{
    put8(out, 0x22);
    put16(out, (uint16_t)(1u << irq));
}

#define RANGE_FIXED       0x0c /* minimum and maximum are fixed; a producer */
#define IO_ENTIRE         0x03 /* ISA and other addresses alike */
#define MEMORY_READ_WRITE 0x01 /* not cacheable */

/* 6.4.3.5.3 */
void aml_word_range(struct layout *out, enum aml_range_type type, uint16_t first, uint16_t last)
{
    put8(out, 0x88);
    put16(out, 13);
    put8(out, (uint8_t)type);
    put8(out, RANGE_FIXED);
    put8(out, type == AML_IO ? IO_ENTIRE : 0);
    put16(out, 0); /* granularity */
    put16(out, first);
    put16(out, last);
    put16(out, 0); /* translation */
    put16(out, (uint16_t)(last - first + 1));
}

/* 6.4.3.5.2 */
void aml_memory_range(struct layout *out, uint32_t first, uint32_t last)
{
    put8(out, 0x87);
    put16(out, 23);
    put8(out, AML_MEMORY);
    put8(out, RANGE_FIXED);
    put8(out, MEMORY_READ_WRITE);
    put32(out, 0);
    put32(out, first);
    put32(out, last);
    put32(out, 0);
    put32(out, last - first + 1);
}
