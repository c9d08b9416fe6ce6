/*
 * Notes of what loading a selector makes of a segment register, for translated code (lower_segment.c). A note
 * follows from the selector, the descriptor and GDTR alone, for a load at CPL 0; it is for segments that keep
 * the mode as it is: flat ones in DS and ES; in FS and GS those of 4 GiB, and none at all.
 *
 * Where FS or GS is none its window is nowhere: what is accessed there faults, and the emulator says how.
 *
 * Read next: mode.c.
 */
#include "translate/translator.h"

#define NOWHERE (UINT64_C(1) << 32) /* from a window: between it and the next one */

/* Matches no selector: the difference is never 0. */
static const struct segment_note no_note = {.minus_selector = 1};

void notes_forget(struct translator *translator)
{
    struct context *context = translator->context;

    for (unsigned i = 0; i < SEGMENT_NOTES; i++)
        context->flat_notes[i] = context->full_notes[i] = &no_note;
    translator->has_notes = false;
}

/* Where somebody watches the instructions that are trapped, each is a call. */
void notes_follow(struct translator *translator, bool is_watched)
{
    const struct table_register *gdtr = &translator->vm->vcpu.gdtr;

    if (translator->has_notes && (is_watched || gdtr->base != translator->noted_gdtr.base ||
                                  gdtr->limit != translator->noted_gdtr.limit))
        notes_forget(translator);
}

/* The segment register was just loaded at CPL 0. */
void notes_take(struct translator *translator, enum segment_index index)
{
    struct context *context = translator->context;
    const struct vcpu *vcpu = &translator->vm->vcpu;
    const struct segment *segment = &vcpu->segment[index];
    struct segment_note *note = &translator->notes[segment->selector % SEGMENT_NOTES];
    uint32_t linear = vcpu->gdtr.base + (segment->selector & ~7u);
    const uint8_t *bytes;
    uint64_t descriptor;

    if (vcpu->cpl != 0 || (segment->selector & 4) || (linear & PAGE_MASK) > PAGE_SIZE - sizeof descriptor ||
        (segment->selector | 7u) > vcpu->gdtr.limit)
        return;
    bytes = shadow_fast(translator->vm->shadow, vcpu, linear, ACCESS_READ);
    if (bytes == NULL)
        return;
    memcpy(&descriptor, bytes, sizeof descriptor);
    notes_follow(translator, false);
    translator->noted_gdtr = vcpu->gdtr;
    translator->has_notes = true;
    *note = (struct segment_note){.minus_selector = 0u - segment->selector,
                                  .linear = linear,
                                  .minus_descriptor = 0 - descriptor,
                                  .segment = *segment,
                                  .window = mode_is_none(segment) ? NOWHERE : 0};
    context->flat_notes[segment->selector % SEGMENT_NOTES] = mode_is_flat(segment) ? note : &no_note;
    context->full_notes[segment->selector % SEGMENT_NOTES] =
        mode_is_full(segment) || mode_is_none(segment) ? note : &no_note;
}

/* A signal came in the middle of a load from this note. */
void notes_complete(struct context *context, enum segment_index index, const struct segment_note *note)
{
    context->vcpu->segment[index] = note->segment;
    context->bases[index] = note->segment.base;
    context->segment_windows[index] = context->window + note->window;
}

static void give_window(struct context *context, enum segment_index index)
{
    context->segment_windows[index] =
        context->window + (mode_is_none(&context->vcpu->segment[index]) ? NOWHERE : 0);
}

uint32_t notes_selectors(const struct vcpu *vcpu)
{
    return vcpu->segment[SEG_CS].selector | (uint32_t)vcpu->segment[SEG_SS].selector << 16;
}

void notes_give_segments(struct context *context)
{
    context->selectors = notes_selectors(context->vcpu);
    for (unsigned i = 0; i < SEG_COUNT; i++)
        context->bases[i] = context->vcpu->segment[i].base;
    give_window(context, SEG_FS);
    give_window(context, SEG_GS);
}

void notes_give_switch(struct context *context)
{
    context->selectors = notes_selectors(context->vcpu);
    context->bases[SEG_CS] = context->vcpu->segment[SEG_CS].base;
    context->bases[SEG_SS] = context->vcpu->segment[SEG_SS].base;
    give_window(context, SEG_FS);
    give_window(context, SEG_GS);
}
