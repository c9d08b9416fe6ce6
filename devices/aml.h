/*
 * ACPI machine language, as much as the board's tables need, put together byte by byte: ACPI specification
 * 6.4, chapter 20, "ACPI Machine Language (AML) Specification", and section 6.4, "Resource Data Types".
 *
 * A block (scope, device, package, buffer) is begun and ended; what is put between is inside it. Read next:
 * acpi.c, the only user.
 */
#ifndef RING3_AML_H
#define RING3_AML_H

#include "devices/layout.h"

/* Where a block's length goes when the block ends. */
struct aml_block {
    size_t length_at;
};

/* A name is four characters, or two, three, ... of them with a backslash before them for the root. */
struct aml_block aml_begin_scope(struct layout *out, const char *name);
struct aml_block aml_begin_device(struct layout *out, const char *name);
struct aml_block aml_begin_package(struct layout *out, uint8_t n_elements);
void aml_end(struct layout *out, struct aml_block block);

void aml_name(struct layout *out, const char *name); /* Name(name, ...): the object follows */
void aml_integer(struct layout *out, uint32_t value);
void aml_eisa_id(struct layout *out, const char *id); /* "PNP0A03" */

/* A buffer of resource descriptors. */
struct aml_resources {
    struct aml_block buffer;
    size_t size_at, start;
};

enum aml_range_type { AML_MEMORY, AML_IO, AML_BUS };

struct aml_resources aml_begin_resources(struct layout *out);
void aml_end_resources(struct layout *out, struct aml_resources resources);
void aml_ports(struct layout *out, uint16_t first, uint8_t n); /* that the device itself answers */
void aml_irq(struct layout *out, unsigned irq);                /* edge, active high */
/* What a bridge hands on. */
void aml_word_range(struct layout *out, enum aml_range_type type, uint16_t first, uint16_t last);
void aml_memory_range(struct layout *out, uint32_t first, uint32_t last);

#endif
