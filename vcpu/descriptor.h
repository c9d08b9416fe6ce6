/*
 * Segment and gate descriptors as they lie in the guest's GDT, LDT and IDT (SDM Vol 3A 3.4.5, 3.5, 6.11), and
 * how the CPU gets at them.
 *
 * Read next: segment.h (what may be loaded into a segment register).
 */
#ifndef RING3_VCPU_DESCRIPTOR_H
#define RING3_VCPU_DESCRIPTOR_H

#include "vcpu/vcpu.h"

struct descriptor {
    gva_t address; /* of the first of its 8 bytes */
    uint32_t low, high;
};

/* Descriptor of a selector that is not null. *is_found is false where it lies beyond its table (or there is
 * no LDT). DONE, or what reading the table raised. */
enum outcome descriptor_find(struct vcpu *vcpu, uint16_t selector, struct descriptor *descriptor,
                             bool *is_found);
/* The same, and #`vector`(selector) if not found; `ext` is ERROR_EXT or 0. */
enum outcome descriptor_fetch(struct vcpu *vcpu, uint16_t selector, int vector, uint32_t ext,
                              struct descriptor *descriptor);

/* The CPU notes in the table that a segment was loaded (code, data: accessed) or a task is running (TSS:
 * busy). Nothing is written if it says so already, since the table may be read-only. */
enum outcome descriptor_mark_accessed(struct vcpu *vcpu, struct descriptor *descriptor);
enum outcome descriptor_set_busy(struct vcpu *vcpu, struct descriptor *descriptor, bool is_busy);

/* What goes into the segment register. */
struct segment descriptor_segment(const struct descriptor *descriptor, uint16_t selector);

/* Selectors 0-3 name the unused first entry of the GDT. */
static inline bool selector_is_null(uint16_t selector)
{
    return (selector & ~SELECTOR_RPL) == 0;
}

/* The error code that names a selector (SDM Vol 3A 6.13). */
static inline uint32_t selector_error(uint16_t selector, uint32_t ext)
{
    return (selector & ~SELECTOR_RPL) | ext;
}

/* In the format of struct segment. */
static inline uint16_t descriptor_attributes(const struct descriptor *descriptor)
{
    return (uint16_t)(descriptor->high >> 8 & ~0x0f00u);
}

static inline bool descriptor_is_present(const struct descriptor *descriptor)
{
    return (descriptor_attributes(descriptor) & SEGMENT_P) != 0;
}

static inline unsigned descriptor_dpl(const struct descriptor *descriptor)
{
    return (descriptor_attributes(descriptor) & SEGMENT_DPL) >> SEGMENT_DPL_SHIFT;
}

static inline bool descriptor_is_code(const struct descriptor *descriptor)
{
    return (descriptor_attributes(descriptor) & (SEGMENT_S | SEGMENT_CODE)) == (SEGMENT_S | SEGMENT_CODE);
}

static inline bool descriptor_is_conforming(const struct descriptor *descriptor)
{
    return descriptor_is_code(descriptor) && (descriptor_attributes(descriptor) & SEGMENT_CONFORMING) != 0;
}

/* Data, or code that may be read. */
static inline bool descriptor_is_readable(const struct descriptor *descriptor)
{
    uint16_t attributes = descriptor_attributes(descriptor);

    return (attributes & SEGMENT_S) && (!(attributes & SEGMENT_CODE) || (attributes & SEGMENT_READABLE));
}

static inline bool descriptor_is_writable(const struct descriptor *descriptor)
{
    return (descriptor_attributes(descriptor) & (SEGMENT_S | SEGMENT_CODE | SEGMENT_WRITABLE)) ==
           (SEGMENT_S | SEGMENT_WRITABLE);
}

/* enum system_type, or 0 (a reserved type) for code and data. */
static inline unsigned descriptor_system_type(const struct descriptor *descriptor)
{
    uint16_t attributes = descriptor_attributes(descriptor);

    return (attributes & SEGMENT_S) ? 0 : attributes & SEGMENT_TYPE;
}

static inline bool descriptor_is_available_tss(const struct descriptor *descriptor)
{
    unsigned type = descriptor_system_type(descriptor);

    return type == SYSTEM_TSS16 || type == SYSTEM_TSS32;
}

/* Gates: bit 3 of the type tells the 32-bit ones from the 16-bit ones. */
static inline bool gate_is_32bit(const struct descriptor *gate)
{
    return (descriptor_system_type(gate) & 8) != 0;
}

static inline uint16_t gate_selector(const struct descriptor *gate)
{
    return (uint16_t)(gate->low >> 16);
}

/* Call gates: what to copy from stack to stack, in words or doublewords. */
#define GATE_PARAMETERS_MAX 31u

static inline unsigned gate_parameter_count(const struct descriptor *gate)
{
    return gate->high & GATE_PARAMETERS_MAX;
}

static inline uint32_t gate_offset(const struct descriptor *gate)
{
    uint32_t low = gate->low & 0xffff;

    return gate_is_32bit(gate) ? (gate->high & 0xffff0000u) | low : low;
}

#endif
