/*
 * The usual ways into ring 0 and back. Nearly every kernel's segments are flat, and their descriptors are
 * always the same eight bytes: so an interrupt need not take them apart, check each field and put them
 * together again, but compares. Here is only what can be told at once, from memory that is at hand: whatever
 * is unusual, or could fault, goes the long way (interrupt.c, return.c), which does not know of this one.
 *
 * Read next: sysenter.c.
 */
#include "vcpu/flat_switch.h"

#include <stddef.h>
#include <string.h>

#include "vcpu/internal.h"
#include "vcpu/segment.h"

/* Byte 5 of the descriptors: present, by DPL and type, accessed. The code is readable, the data writable. */
enum flat { FLAT_CODE_0 = 0x9b, FLAT_DATA_0 = 0x93, FLAT_CODE_3 = 0xfb, FLAT_DATA_3 = 0xf3 };

#define FLAT_DESCRIPTOR UINT64_C(0x00cf00000000ffff) /* base 0, 4 GiB, 32-bit; without byte 5 */
#define BYTE_5_SHIFT    40

/* Offsets in a 32-bit TSS (SDM Vol 3A figure 7-2): ESP0 and, behind it, SS0 */
#define TSS_ESP0 4u
#define TSS_SS0  8u
#define TSS_ESP1 12u

#define FRAME_SIZE       12u /* EIP, CS, EFLAGS */
#define OUTER_FRAME_SIZE 20u /* and ESP, SS */

static const uint8_t *at_hand(struct vcpu *vcpu, gva_t linear, unsigned size)
{
    return vcpu->ops->at_hand(vcpu, linear, size, ACCESS_READ);
}

_Static_assert(offsetof(struct segment, attributes) == 2 && offsetof(struct segment, base) == 4, "set_flat");

/* In pieces of eight and four bytes, as segments are copied: see descriptor_segment. */
static void set_flat(struct segment *segment, uint16_t selector, enum flat flat)
{
    uint64_t first = selector | (uint32_t)(SEGMENT_G | SEGMENT_DB | flat) << 16; /* base 0 */

    memcpy(segment, &first, sizeof first);
    segment->limit = 0xffffffff;
}

static bool is_flat_stack(const struct segment *segment)
{
    return segment->attributes == (SEGMENT_G | SEGMENT_DB | FLAT_DATA_0) && segment->base == 0 &&
           segment->limit == 0xffffffff;
}

/* Does the GDT have the usual descriptor there? */
static bool names_flat(struct vcpu *vcpu, uint16_t selector, enum flat flat)
{
    uint64_t descriptor;
    const uint8_t *bytes;

    if (selector_is_null(selector) || (selector & SELECTOR_TI) || (selector | 7u) > vcpu->gdtr.limit)
        return false;
    bytes = at_hand(vcpu, vcpu->gdtr.base + (selector & ~7u), sizeof descriptor);
    if (bytes == NULL)
        return false;
    memcpy(&descriptor, bytes, sizeof descriptor);
    return descriptor == (FLAT_DESCRIPTOR | (uint64_t)flat << BYTE_5_SHIFT);
}

static bool find_inner_stack(struct vcpu *vcpu, uint16_t *selector, uint32_t *pointer)
{
    unsigned type = vcpu->tr.attributes & SEGMENT_TYPE;
    const uint8_t *bytes;

    if (type != SYSTEM_TSS32_BUSY || vcpu->tr.limit < TSS_ESP1 - 1)
        return false;
    bytes = at_hand(vcpu, vcpu->tr.base + TSS_ESP0, TSS_ESP1 - TSS_ESP0);
    if (bytes == NULL)
        return false;
    memcpy(pointer, bytes, sizeof *pointer);
    memcpy(selector, bytes + (TSS_SS0 - TSS_ESP0), sizeof *selector);
    return (*selector & SELECTOR_RPL) == 0 && names_flat(vcpu, *selector, FLAT_DATA_0);
}

/* From the bottom upwards: error code, EIP, CS, EFLAGS, and for an inner stack ESP, SS. */
static void push_frame(const struct vcpu *vcpu, const struct event *event, unsigned size, uint8_t *bottom)
{
    const uint32_t frame[] = {event->return_eip, vcpu->segment[SEG_CS].selector, event->saved_eflags,
                              vcpu->gpr[ESP], vcpu->segment[SEG_SS].selector};

    if (event->has_error) {
        memcpy(bottom, &event->error, sizeof event->error);
        bottom += sizeof event->error;
        size -= (unsigned)sizeof event->error;
    }
    if (size == OUTER_FRAME_SIZE)
        memcpy(bottom, frame, OUTER_FRAME_SIZE);
    else
        memcpy(bottom, frame, FRAME_SIZE);
}

bool flat_enter(struct vcpu *vcpu, const struct event *event, const struct descriptor *gate)
{
    bool is_inner = vcpu->cpl == 3;
    unsigned size = (is_inner ? OUTER_FRAME_SIZE : FRAME_SIZE) + (event->has_error ? 4 : 0);
    uint16_t code = gate_selector(gate), stack = vcpu->segment[SEG_SS].selector;
    uint32_t pointer = vcpu->gpr[ESP];
    uint8_t *bottom;

    if (vcpu->ops->at_hand == NULL || !gate_is_32bit(gate) || vcpu_is_v8086(vcpu) ||
        !names_flat(vcpu, code, FLAT_CODE_0))
        return false;
    if (is_inner ? !find_inner_stack(vcpu, &stack, &pointer)
                 : vcpu->cpl != 0 || !is_flat_stack(&vcpu->segment[SEG_SS]))
        return false;
    bottom = vcpu->ops->at_hand(vcpu, pointer - size, size, ACCESS_WRITE);
    if (bottom == NULL)
        return false;

    push_frame(vcpu, event, size, bottom);
    interrupt_accept(vcpu, event);
    set_flat(&vcpu->segment[SEG_CS], code & (uint16_t)~SELECTOR_RPL, FLAT_CODE_0);
    set_flat(&vcpu->segment[SEG_SS], stack, FLAT_DATA_0);
    vcpu->eip = gate_offset(gate);
    vcpu->gpr[ESP] = pointer - size;
    vcpu->cpl = 0;
    return true;
}

static uint32_t word(const uint8_t *frame, unsigned n)
{
    uint32_t value;

    memcpy(&value, frame + n * sizeof value, sizeof value);
    return value;
}

bool flat_return(struct vcpu *vcpu, uint32_t *eflags)
{
    uint32_t pointer = vcpu->gpr[ESP];
    uint16_t code, stack;
    const uint8_t *frame; /* EIP, CS, EFLAGS, ESP, SS */
    bool is_outer;

    if (vcpu->ops->at_hand == NULL || !segment_uses_descriptors(vcpu) || vcpu->cpl != 0 ||
        !is_flat_stack(&vcpu->segment[SEG_SS]))
        return false;
    frame = at_hand(vcpu, pointer, OUTER_FRAME_SIZE);
    if (frame == NULL || (word(frame, 2) & EFLAGS_VM))
        return false;
    code = (uint16_t)word(frame, 1);
    stack = (uint16_t)word(frame, 4);
    is_outer = (code & SELECTOR_RPL) == 3;
    if (is_outer ? !names_flat(vcpu, code, FLAT_CODE_3) || (stack & SELECTOR_RPL) != 3 ||
                       !names_flat(vcpu, stack, FLAT_DATA_3)
                 : (code & SELECTOR_RPL) != 0 || !names_flat(vcpu, code, FLAT_CODE_0))
        return false;

    *eflags = word(frame, 2);
    vcpu->eip = word(frame, 0);
    set_flat(&vcpu->segment[SEG_CS], code, is_outer ? FLAT_CODE_3 : FLAT_CODE_0);
    vcpu->gpr[ESP] = is_outer ? word(frame, 3) : pointer + FRAME_SIZE;
    if (!is_outer)
        return true;
    set_flat(&vcpu->segment[SEG_SS], stack, FLAT_DATA_3);
    vcpu->cpl = 3;
    segment_drop_inaccessible(vcpu, 3);
    return true;
}
