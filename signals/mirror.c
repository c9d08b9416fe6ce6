/*
 * The guest's segment registers, made true on the host: each gets the selector of an LDT entry that mirrors
 * its hidden part. Read next: ldt.c; native_load.c for the loads that the CPU did not trap.
 */
#include "signals/mirror.h"

/* S and DPL 3, as every descriptor that ring 3 can load. */
static bool segment_equal(const struct segment *a, const struct segment *b)
{
    return a->base == b->base && a->limit == b->limit && a->attributes == b->attributes &&
           a->selector == b->selector;
}

static bool is_usable(const struct segment *segment)
{
    return (segment->attributes & SEGMENT_P) != 0;
}

/* A segment register that holds nothing usable: the guest's use of it must fault, as it does through a null
 * selector. SS cannot be null in compat mode at CPL 3, so it gets a descriptor without a valid offset. */
static bool make_descriptor(const struct mirror *mirror, const struct segment *segment, int index,
                            uint64_t reach, struct ldt_descriptor *descriptor)
{
    static const struct segment nothing = {.attributes = SEGMENT_DB | SEGMENT_WRITABLE, .base = 1};

    if (is_usable(segment))
        ldt_mirror(segment, mirror->bias, reach, descriptor);
    else if (index == SEG_SS)
        ldt_mirror(&nothing, 0, 0, descriptor);
    else
        return false;
    return true;
}

static bool holds(const struct mirror *mirror, const struct vcpu *vcpu, uint64_t reach)
{
    if (!mirror->is_valid || mirror->reach != reach)
        return false;
    for (int i = 0; i < SEG_COUNT; i++)
        if (!segment_equal(&mirror->mirrored[i], &vcpu->segment[i]))
            return false;
    return true;
}

void mirror_load(struct mirror *mirror, const struct vcpu *vcpu, uint64_t reach, bool *is_new)
{
    if (holds(mirror, vcpu, reach))
        return;
    ldt_begin(&mirror->ldt);
    for (int i = 0; i < SEG_COUNT; i++) {
        struct ldt_descriptor descriptor;

        mirror->selector[i] = make_descriptor(mirror, &vcpu->segment[i], i, reach, &descriptor)
                                  ? ldt_load(&mirror->ldt, &descriptor, is_new)
                                  : 0;
        mirror->mirrored[i] = vcpu->segment[i];
    }
    mirror->reach = reach;
    mirror->is_valid = true;
}

void mirror_describe(const struct mirror *mirror, const struct vcpu *vcpu, uint64_t reach,
                     struct real_registers *real)
{
    for (int i = 0; i < SEG_COUNT; i++) {
        struct ldt_descriptor descriptor;

        real->segment[i] = (struct segment){0};
        real->is_loaded[i] = mirror->is_valid && mirror->reach == reach &&
                             segment_equal(&mirror->mirrored[i], &vcpu->segment[i]);
        if (make_descriptor(mirror, &vcpu->segment[i], i, reach, &descriptor))
            real->segment[i] = ldt_segment(&descriptor);
        if (real->is_loaded[i])
            real->segment[i].selector = mirror->selector[i];
    }
}
