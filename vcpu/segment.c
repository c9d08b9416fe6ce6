/*
 * The checks behind loading a segment register: see segment.h.
 *
 * Read next: segment_instructions.c (the instructions that load and store them), transfer.c (CS).
 */
#include "vcpu/segment.h"

#include "vcpu/internal.h"

bool segment_contains(const struct segment *segment, uint32_t offset, unsigned size)
{
    uint32_t last = offset + size - 1;
    bool is_expand_down =
        (segment->attributes & (SEGMENT_S | SEGMENT_CODE | SEGMENT_DOWN)) == (SEGMENT_S | SEGMENT_DOWN);

    if (segment->attributes == 0)
        return false;
    if (is_expand_down) {
        uint32_t top = (segment->attributes & SEGMENT_DB) ? 0xffffffff : 0xffff;
        return offset > segment->limit && last >= offset && last <= top;
    }
    /* With a limit of 4 GiB an access may wrap: SDM Vol 3A 5.3 leaves it to the implementation. */
    return segment->limit == 0xffffffff || (last >= offset && last <= segment->limit);
}

struct segment segment_null(uint16_t selector)
{
    return (struct segment){.selector = selector};
}

enum outcome segment_check_data(struct vcpu *vcpu, uint16_t selector, unsigned cpl, int vector, uint32_t ext,
                                struct segment *segment)
{
    unsigned rpl = selector & SELECTOR_RPL;
    struct descriptor descriptor;
    enum outcome outcome;
    bool is_allowed;

    if (selector_is_null(selector)) {
        *segment = segment_null(selector);
        return OUTCOME_DONE;
    }
    outcome = descriptor_fetch(vcpu, selector, vector, ext, &descriptor);
    if (outcome != OUTCOME_DONE)
        return outcome;

    is_allowed = descriptor_is_conforming(&descriptor) ||
                 (rpl <= descriptor_dpl(&descriptor) && cpl <= descriptor_dpl(&descriptor));
    if (!descriptor_is_readable(&descriptor) || !is_allowed)
        return vcpu_raise_error(vcpu, vector, selector_error(selector, ext));
    if (!descriptor_is_present(&descriptor))
        return vcpu_raise_error(vcpu, EXCEPTION_NP, selector_error(selector, ext));

    outcome = descriptor_mark_accessed(vcpu, &descriptor);
    *segment = descriptor_segment(&descriptor, selector);
    return outcome;
}

enum outcome segment_check_stack(struct vcpu *vcpu, uint16_t selector, unsigned cpl, int vector, uint32_t ext,
                                 struct segment *segment)
{
    struct descriptor descriptor;
    enum outcome outcome;

    if (selector_is_null(selector))
        return vcpu_raise_error(vcpu, vector, ext);
    outcome = descriptor_fetch(vcpu, selector, vector, ext, &descriptor);
    if (outcome != OUTCOME_DONE)
        return outcome;
    if ((selector & SELECTOR_RPL) != cpl || descriptor_dpl(&descriptor) != cpl ||
        !descriptor_is_writable(&descriptor))
        return vcpu_raise_error(vcpu, vector, selector_error(selector, ext));
    if (!descriptor_is_present(&descriptor))
        return vcpu_raise_error(vcpu, EXCEPTION_SS, selector_error(selector, ext));

    outcome = descriptor_mark_accessed(vcpu, &descriptor);
    *segment = descriptor_segment(&descriptor, selector);
    return outcome;
}

enum outcome segment_check_ldt(struct vcpu *vcpu, uint16_t selector, int vector, int not_present_vector,
                               uint32_t ext, struct segment *segment)
{
    struct descriptor descriptor;
    enum outcome outcome;

    if (selector_is_null(selector)) {
        *segment = segment_null(selector);
        return OUTCOME_DONE;
    }
    if (selector & SELECTOR_TI)
        return vcpu_raise_error(vcpu, vector, selector_error(selector, ext));
    outcome = descriptor_fetch(vcpu, selector, vector, ext, &descriptor);
    if (outcome != OUTCOME_DONE)
        return outcome;
    if (descriptor_system_type(&descriptor) != SYSTEM_LDT)
        return vcpu_raise_error(vcpu, vector, selector_error(selector, ext));
    if (!descriptor_is_present(&descriptor))
        return vcpu_raise_error(vcpu, not_present_vector, selector_error(selector, ext));
    *segment = descriptor_segment(&descriptor, selector);
    return OUTCOME_DONE;
}

struct segment segment_of_paragraph(uint16_t selector, bool is_v8086, const struct segment *old)
{
    struct segment segment = *old;

    /* Real mode inherits limit and attributes from protected mode ("unreal mode"); a null segment has none.
     */
    if (is_v8086 || segment.attributes == 0) {
        segment.limit = 0xffff;
        segment.attributes = SEGMENT_P | SEGMENT_S | SEGMENT_WRITABLE | SEGMENT_ACCESSED;
        if (is_v8086)
            segment.attributes |= SEGMENT_DPL;
    }
    segment.selector = selector;
    segment.base = (uint32_t)selector << 4;
    return segment;
}

enum outcome segment_check_load(struct vcpu *vcpu, enum segment_index index, uint16_t selector,
                                struct segment *segment)
{
    if (!segment_uses_descriptors(vcpu)) {
        *segment = segment_of_paragraph(selector, vcpu_is_v8086(vcpu), &vcpu->segment[index]);
        return OUTCOME_DONE;
    }
    if (index == SEG_SS)
        return segment_check_stack(vcpu, selector, vcpu->cpl, EXCEPTION_GP, 0, segment);
    return segment_check_data(vcpu, selector, vcpu->cpl, EXCEPTION_GP, 0, segment);
}

void segment_drop_inaccessible(struct vcpu *vcpu, unsigned cpl)
{
    static const enum segment_index data_segments[] = {SEG_ES, SEG_DS, SEG_FS, SEG_GS};

    for (unsigned i = 0; i < sizeof data_segments / sizeof data_segments[0]; i++) {
        struct segment *segment = &vcpu->segment[data_segments[i]];
        unsigned dpl = (segment->attributes & SEGMENT_DPL) >> SEGMENT_DPL_SHIFT;
        bool is_conforming = (segment->attributes & (SEGMENT_CODE | SEGMENT_CONFORMING)) ==
                             (SEGMENT_CODE | SEGMENT_CONFORMING);

        if (dpl >= cpl || is_conforming)
            continue;
        vcpu->has_other_data_segments |= segment->attributes != 0;
        *segment = (struct segment){0};
    }
}

enum outcome vcpu_load_segment(struct vcpu *vcpu, enum segment_index index, uint16_t selector)
{
    struct segment segment;
    enum outcome outcome = segment_check_load(vcpu, index, selector, &segment);

    if (outcome == OUTCOME_DONE)
        vcpu->segment[index] = segment;
    return outcome;
}

const char *vcpu_segment_name(enum segment_index index)
{
    static const char *const names[SEG_COUNT] = {
        [SEG_ES] = "es", [SEG_CS] = "cs", [SEG_SS] = "ss", [SEG_DS] = "ds", [SEG_FS] = "fs", [SEG_GS] = "gs"};

    return names[index];
}
