/*
 * The mode: what translated code relies on beside the guest's bytes (enum mode_bit), read off the virtual
 * processor. States that are rare and hard (16-bit code, single stepping by TF, alignment checks) have no
 * mode: the emulator runs them.
 *
 * Read next: spaces.c.
 */
#include "monitor/machine.h"
#include "translate/translator.h"

#define DATA_TYPE (SEGMENT_P | SEGMENT_S | SEGMENT_CODE | SEGMENT_WRITABLE | SEGMENT_DOWN)
#define DATA_WANT (SEGMENT_P | SEGMENT_S | SEGMENT_WRITABLE)

/* Readable, writable, 4 GiB: no access through it can fail by the segment. */
bool mode_is_full(const struct segment *segment)
{
    return (segment->attributes & DATA_TYPE) == DATA_WANT && segment->limit == UINT32_MAX;
}

bool mode_is_flat(const struct segment *segment)
{
    return mode_is_full(segment) && segment->base == 0;
}

/* After a null selector was loaded: every access fails by the segment. */
bool mode_is_none(const struct segment *segment)
{
    return !(segment->attributes & SEGMENT_P);
}

/* Few combinations of base and limit are ever used for code; when there are too many all are forgotten. */
static uint32_t number_of_code_segment(struct translator *translator, const struct segment *code)
{
    uint64_t low = (uint64_t)code->base << 32 | code->limit;
    uint16_t readable = code->attributes & SEGMENT_READABLE;

    if (low == UINT32_MAX && readable != 0)
        return 0;
    for (unsigned i = 1; i < translator->n_code_segments; i++)
        if (translator->code_segments[i].low == low && translator->code_segments[i].attributes == readable)
            return i;
    if (translator->n_code_segments ==
        sizeof translator->code_segments / sizeof translator->code_segments[0]) {
        cache_empty(&translator->cache);
        spaces_forget_targets(translator);
        translator->n_code_segments = 1;
    }
    translator->code_segments[translator->n_code_segments].low = low;
    translator->code_segments[translator->n_code_segments].attributes = readable;
    return translator->n_code_segments++;
}

/* Where somebody watches exits, or notes what comes from outside (lockstep), RDTSC is a call. */
static bool may_read_tsc(const struct translator *translator, const struct vcpu *vcpu)
{
    const struct vm *vm = translator->vm;

    return translator->reads_tsc && vm->n_watchers == 0 && vm->debugger == NULL &&
           vcpu->ops == &machine_vcpu_ops && !(vcpu->cpl == 3 && (vcpu->cr4 & CR4_TSD));
}

#define DATA_BITS (MODE_FLAT_DS | MODE_FLAT_ES | MODE_FULL_FS | MODE_FULL_GS)

static uint32_t data_bits(const struct segment *segment)
{
    return (mode_is_flat(&segment[SEG_DS]) ? MODE_FLAT_DS : 0) |
           (mode_is_flat(&segment[SEG_ES]) ? MODE_FLAT_ES : 0) |
           (mode_is_full(&segment[SEG_FS]) || mode_is_none(&segment[SEG_FS]) ? MODE_FULL_FS : 0) |
           (mode_is_full(&segment[SEG_GS]) || mode_is_none(&segment[SEG_GS]) ? MODE_FULL_GS : 0);
}

/* All bits but DATA_BITS. */
static uint32_t other_bits(struct translator *translator, const struct vcpu *vcpu)
{
    const struct segment *segment = vcpu->segment;
    uint32_t mode = translator->meter != NULL ? MODE_COUNT : 0, number;

    if (!vcpu_is_protected(vcpu) || vcpu_is_v8086(vcpu) || !(segment[SEG_CS].attributes & SEGMENT_DB) ||
        (vcpu->eflags & EFLAGS_TF) || ((vcpu->eflags & EFLAGS_AC) && (vcpu->cr0 & CR0_AM) && vcpu->cpl == 3))
        return MODE_NONE;
    if (vcpu->cpl == 3)
        mode |= MODE_USER;
    else if (vcpu->cpl != 0)
        return MODE_NONE; /* rings 1 and 2: IOPL counts, and nobody uses them */
    if (mode_is_flat(&segment[SEG_SS]) && (segment[SEG_SS].attributes & SEGMENT_DB))
        mode |= MODE_FLAT_SS;
    if (may_read_tsc(translator, vcpu))
        mode |= MODE_TSC;
    if (!(vcpu->cr0 & (CR0_TS | CR0_EM)))
        mode |= MODE_FPU | (vcpu->cr4 & CR4_OSFXSR ? MODE_SSE : 0);
    number = number_of_code_segment(translator, &segment[SEG_CS]);
    return mode | (number == 0 ? MODE_FLAT_CS : number << MODE_CS_SHIFT);
}

uint32_t mode_of(struct translator *translator, const struct vcpu *vcpu)
{
    uint32_t mode = other_bits(translator, vcpu);

    return mode == MODE_NONE ? MODE_NONE : mode | data_bits(vcpu->segment);
}

uint32_t mode_after_switch(struct translator *translator, const struct vcpu *vcpu)
{
    uint32_t mode = other_bits(translator, vcpu);

    return mode == MODE_NONE ? MODE_NONE : mode | (translator->mode & DATA_BITS);
}
