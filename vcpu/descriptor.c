/* Finding descriptors in the guest's tables, and unpacking them: see descriptor.h. */
#include "vcpu/descriptor.h"

#include <string.h>

#include "vcpu/internal.h"

#define DESCRIPTOR_SIZE 8u
/* Byte 5 of a descriptor holds the type. */
#define TYPE_BYTE  5u
#define TYPE_SHIFT 8u
#define TSS_BUSY   0x2u

enum outcome descriptor_find(struct vcpu *vcpu, uint16_t selector, struct descriptor *descriptor,
                             bool *is_found)
{
    bool is_local = (selector & SELECTOR_TI) != 0;
    uint32_t offset = selector & ~(SELECTOR_TI | SELECTOR_RPL);
    uint32_t base = is_local ? vcpu->ldtr.base : vcpu->gdtr.base;
    uint32_t limit = is_local ? vcpu->ldtr.limit : vcpu->gdtr.limit;
    bool has_table = !is_local || (vcpu->ldtr.attributes & SEGMENT_P);
    uint32_t words[2];
    enum outcome outcome;

    *is_found = has_table && offset + DESCRIPTOR_SIZE - 1 <= limit;
    if (!*is_found)
        return OUTCOME_DONE;
    outcome = vcpu_read_system(vcpu, base + offset, words, sizeof words);
    if (outcome != OUTCOME_DONE)
        return outcome;
    *descriptor = (struct descriptor){base + offset, words[0], words[1]};
    return OUTCOME_DONE;
}

enum outcome descriptor_fetch(struct vcpu *vcpu, uint16_t selector, int vector, uint32_t ext,
                              struct descriptor *descriptor)
{
    bool is_found;
    enum outcome outcome = descriptor_find(vcpu, selector, descriptor, &is_found);

    if (outcome == OUTCOME_DONE && !is_found)
        return vcpu_raise_error(vcpu, vector, selector_error(selector, ext));
    return outcome;
}

static enum outcome write_type_byte(struct vcpu *vcpu, struct descriptor *descriptor, uint32_t high)
{
    uint8_t byte = (uint8_t)(high >> TYPE_SHIFT);

    if (high == descriptor->high)
        return OUTCOME_DONE;
    descriptor->high = high;
    return vcpu_write_system(vcpu, descriptor->address + TYPE_BYTE, &byte, sizeof byte);
}

enum outcome descriptor_mark_accessed(struct vcpu *vcpu, struct descriptor *descriptor)
{
    return write_type_byte(vcpu, descriptor, descriptor->high | SEGMENT_ACCESSED << TYPE_SHIFT);
}

enum outcome descriptor_set_busy(struct vcpu *vcpu, struct descriptor *descriptor, bool is_busy)
{
    uint32_t high = descriptor->high & ~(TSS_BUSY << TYPE_SHIFT);

    return write_type_byte(vcpu, descriptor, is_busy ? high | TSS_BUSY << TYPE_SHIFT : high);
}

_Static_assert(offsetof(struct segment, attributes) == 2 && offsetof(struct segment, base) == 4,
               "descriptor_segment");

struct segment descriptor_segment(const struct descriptor *descriptor, uint16_t selector)
{
    uint32_t limit = (descriptor->high & 0xf0000) | (descriptor->low & 0xffff);
    uint16_t attributes = descriptor_attributes(descriptor);
    uint32_t base =
        descriptor->low >> 16 | (descriptor->high & 0xff) << 16 | (descriptor->high & 0xff000000u);
    uint64_t first = selector | (uint32_t)attributes << 16 | (uint64_t)base << 32;
    struct segment segment;

    /* In one piece, as it will be copied soon: a processor that has to put it together from the pieces waits
     * for each of them to reach its cache. */
    memcpy(&segment, &first, sizeof first);
    segment.limit = (attributes & SEGMENT_G) ? limit << PAGE_SHIFT | PAGE_MASK : limit;
    return segment;
}
