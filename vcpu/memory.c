/*
 * The one way from an instruction to memory: segment checks, alignment check, and then vcpu_ops.memory, which
 * pages. Also the instruction fetch. The order of the checks is the CPU's (SDM Vol 3A 6.9): segment before
 * page.
 *
 * Read next: operand.c.
 */
#include "vcpu/internal.h"

static bool segment_is_writable(const struct segment *segment)
{
    return (segment->attributes & (SEGMENT_CODE | SEGMENT_WRITABLE)) == SEGMENT_WRITABLE;
}

static bool segment_is_readable(const struct segment *segment)
{
    return (segment->attributes & (SEGMENT_CODE | SEGMENT_READABLE)) != SEGMENT_CODE;
}

/* SDM Vol 3A 5.3-5.5. In real and virtual-8086 mode only the limit counts: what the hidden part says of the
 * type is left over from reset or from protected mode. */
enum outcome vcpu_segment_check(struct vcpu *vcpu, enum segment_index index, uint32_t offset, unsigned size,
                                unsigned kind, gva_t *linear)
{
    const struct segment *segment = &vcpu->segment[index];

    if (vcpu_is_protected(vcpu) && !vcpu_is_v8086(vcpu) && segment->attributes != 0) {
        if ((kind & ACCESS_WRITE) && !segment_is_writable(segment))
            return vcpu_raise_error(vcpu, EXCEPTION_GP, 0);
        if ((kind & ACCESS_READ) && !segment_is_readable(segment))
            return vcpu_raise_error(vcpu, EXCEPTION_GP, 0);
    }
    if (!segment_contains(segment, offset, size))
        return vcpu_raise_error(vcpu, index == SEG_SS ? EXCEPTION_SS : EXCEPTION_GP, 0);
    *linear = segment->base + offset;
    return OUTCOME_DONE;
}

/* SDM Vol 3A table 6-7. A size's lowest set bit is its alignment, but for 80-bit reals and 48-bit far
 * pointers (and pseudo-descriptors). */
static unsigned natural_alignment(unsigned size)
{
    switch (size) {
    case 10:
        return 8;
    case 6:
        return 4;
    default:
        return size & -size;
    }
}

enum outcome vcpu_access_aligned(struct vcpu *vcpu, gva_t linear, void *buf, unsigned size,
                                 unsigned alignment, unsigned kind)
{
    /* Before a page fault: SDM Vol 3A table 6-2 has it the other way, but processors do it so (Zen 4). */
    if ((linear & (alignment - 1)) && vcpu_checks_alignment(vcpu, kind))
        return vcpu_raise_error(vcpu, EXCEPTION_AC, 0);
    return vcpu->ops->memory(vcpu, linear, buf, size, kind);
}

enum outcome vcpu_access(struct vcpu *vcpu, gva_t linear, void *buf, unsigned size, unsigned kind)
{
    return vcpu_access_aligned(vcpu, linear, buf, size, natural_alignment(size), kind);
}

enum outcome vcpu_read(struct vcpu *vcpu, enum segment_index segment, uint32_t offset, void *buf,
                       unsigned size)
{
    gva_t linear = 0;
    enum outcome outcome = vcpu_segment_check(vcpu, segment, offset, size, ACCESS_READ, &linear);

    if (outcome != OUTCOME_DONE)
        return outcome;
    return vcpu_access(vcpu, linear, buf, size, ACCESS_READ | vcpu_access_rights(vcpu->cpl));
}

enum outcome vcpu_write(struct vcpu *vcpu, enum segment_index segment, uint32_t offset, const void *buf,
                        unsigned size)
{
    gva_t linear = 0;
    enum outcome outcome = vcpu_segment_check(vcpu, segment, offset, size, ACCESS_WRITE, &linear);

    if (outcome != OUTCOME_DONE)
        return outcome;
    /* ops->memory takes one buffer for both directions; a write only reads it. */
    return vcpu_access(vcpu, linear, (void *)buf, size, ACCESS_WRITE | vcpu_access_rights(vcpu->cpl));
}

enum outcome vcpu_read_system(struct vcpu *vcpu, gva_t linear, void *buf, unsigned size)
{
    return vcpu->ops->memory(vcpu, linear, buf, size, ACCESS_READ);
}

enum outcome vcpu_write_system(struct vcpu *vcpu, gva_t linear, const void *buf, unsigned size)
{
    return vcpu->ops->memory(vcpu, linear, (void *)buf, size, ACCESS_WRITE);
}

uint32_t vcpu_effective_address(const struct vcpu *vcpu, const struct insn *insn,
                                const struct operand *operand)
{
    uint32_t address = (uint32_t)operand->mem.displacement;

    if (operand->mem.base >= 0)
        address += vcpu->gpr[operand->mem.base];
    if (operand->mem.index >= 0)
        address += vcpu->gpr[operand->mem.index] * operand->mem.scale;
    return insn->address_size == 2 ? address & 0xffff : address;
}

/* Bytes from eip to the limit of CS, no more than an instruction can have. */
static unsigned fetchable_bytes(const struct vcpu *vcpu)
{
    uint32_t limit = vcpu->segment[SEG_CS].limit;

    if (vcpu->eip > limit)
        return 0;
    return limit - vcpu->eip >= INSN_MAX_LENGTH ? INSN_MAX_LENGTH : limit - vcpu->eip + 1;
}

/* The second page is touched only when the bytes on the first do not make an instruction, as the CPU faults
 * on it only then. */
enum outcome vcpu_fetch(struct vcpu *vcpu, struct insn *insn)
{
    uint8_t bytes[INSN_MAX_LENGTH];
    unsigned n = 0, n_fetchable = fetchable_bytes(vcpu);

    while (n < n_fetchable) {
        gva_t linear = vcpu->segment[SEG_CS].base + vcpu->eip + n;
        unsigned chunk = PAGE_SIZE - (linear & PAGE_MASK);
        enum outcome outcome;

        if (chunk > n_fetchable - n)
            chunk = n_fetchable - n;
        outcome =
            vcpu->ops->memory(vcpu, linear, bytes + n, chunk, ACCESS_FETCH | vcpu_access_rights(vcpu->cpl));
        if (outcome != OUTCOME_DONE)
            return outcome;
        n += chunk;
        switch (decode_insn(bytes, n, vcpu_code_size(vcpu), insn)) {
        case DECODE_OK:
            return OUTCOME_DONE;
        case DECODE_TRUNCATED:
            break;
        case DECODE_TOO_LONG:
            return vcpu_raise_error(vcpu, EXCEPTION_GP, 0);
        case DECODE_INVALID:
            return vcpu_raise(vcpu, EXCEPTION_UD);
        }
    }
    return vcpu_raise_error(vcpu, EXCEPTION_GP, 0); /* it goes on past the limit of CS */
}
