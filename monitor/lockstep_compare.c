/*
 * Where two processors differ. Left out is what engines may do in their own way: RF (the processor clears it
 * when it will), the interrupt shadow (an engine knows it when it stops), and what of the FPU's state names
 * the last instruction (FOP, FIP, FDP: some host processors do not keep them). Read next: lockstep.c.
 */
#include <stdio.h>
#include <string.h>

#include "monitor/lockstep.h"
#include "monitor/trace.h"

#define MAX_CHANGES 8

/* Fields of the FXSAVE image (SDM Vol 1 table 10-2). */
static const struct {
    const char *name;
    uint16_t offset, size;
} fpu_fields[] = {
    {"x87 control, status and tags", 0, 5},
    {"MXCSR", 24, 4},
    {"st0", 32, 10},
    {"st1", 48, 10},
    {"st2", 64, 10},
    {"st3", 80, 10},
    {"st4", 96, 10},
    {"st5", 112, 10},
    {"st6", 128, 10},
    {"st7", 144, 10},
    {"xmm0-7", 160, 128},
};

static void append(char *text, size_t size, const char *what)
{
    size_t n = strlen(text);

    snprintf(text + n, size - n, "%s%s", n == 0 ? "" : ", ", what);
}

static bool is_same_segment(const struct segment *a, const struct segment *b)
{
    return a->selector == b->selector && a->base == b->base && a->limit == b->limit &&
           ((a->attributes ^ b->attributes) & ~SEGMENT_ACCESSED) == 0;
}

static void compare_segments(const struct vcpu *reference, const struct vcpu *other, char *text, size_t size)
{
    for (unsigned i = 0; i < SEG_COUNT; i++) {
        const struct segment *a = &reference->segment[i], *b = &other->segment[i];
        char change[128];

        if (is_same_segment(a, b))
            continue;
        snprintf(change, sizeof change, "%s %04x:%08x+%08x.%04x→%04x:%08x+%08x.%04x", vcpu_segment_name(i),
                 a->selector, a->base, a->limit, a->attributes, b->selector, b->base, b->limit,
                 b->attributes);
        append(text, size, change);
    }
}

static void compare_fpu(const struct vcpu *reference, const struct vcpu *other, char *text, size_t size)
{
    for (size_t i = 0; i < sizeof fpu_fields / sizeof fpu_fields[0]; i++)
        if (memcmp(reference->fxsave + fpu_fields[i].offset, other->fxsave + fpu_fields[i].offset,
                   fpu_fields[i].size) != 0)
            append(text, size, fpu_fields[i].name);
}

bool lockstep_compare_processors(const struct vcpu *reference, const struct vcpu *other, char *text,
                                 size_t size)
{
    char changes[MAX_CHANGES][CHANGE_TEXT_SIZE], eip[32];
    struct vcpu a = *reference;
    size_t n;

    text[0] = '\0';
    a.eflags = (a.eflags & ~EFLAGS_RF) | (other->eflags & EFLAGS_RF);
    if (a.eip != other->eip) {
        snprintf(eip, sizeof eip, "eip %08x→%08x", a.eip, other->eip);
        append(text, size, eip);
    }
    n = trace_changes(&a, other, changes, MAX_CHANGES);
    for (size_t i = 0; i < n && i < MAX_CHANGES; i++)
        append(text, size, changes[i]);
    compare_segments(&a, other, text, size);
    compare_fpu(&a, other, text, size);
    return text[0] != '\0';
}
