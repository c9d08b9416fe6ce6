/*
 * Who may touch a port (SDM Vol 1 19.5): by IOPL in protected mode, else, and always in virtual-8086 mode, by
 * the bitmap at the end of a 32-bit TSS.
 *
 * Read next: task.c, whose TSS it reads.
 */
#include "vcpu/descriptor.h"
#include "vcpu/internal.h"

#define TSS32_IO_MAP_BASE 0x66u

static bool has_io_privilege(const struct vcpu *vcpu)
{
    unsigned iopl = (vcpu->eflags & EFLAGS_IOPL) >> EFLAGS_IOPL_SHIFT;

    return !vcpu_is_protected(vcpu) || (!vcpu_is_v8086(vcpu) && vcpu->cpl <= iopl);
}

enum outcome vcpu_check_io_permission(struct vcpu *vcpu, uint16_t port, unsigned size)
{
    unsigned type = vcpu->tr.attributes & (SEGMENT_S | SEGMENT_TYPE);
    uint16_t base, bits;
    uint32_t offset;
    enum outcome outcome;

    if (has_io_privilege(vcpu))
        return OUTCOME_DONE;
    if (type != SYSTEM_TSS32_BUSY && type != SYSTEM_TSS32)
        return vcpu_raise_error(vcpu, EXCEPTION_GP, 0);
    if (vcpu->tr.limit < TSS32_IO_MAP_BASE + sizeof base - 1)
        return vcpu_raise_error(vcpu, EXCEPTION_GP, 0);
    outcome = vcpu_read_system(vcpu, vcpu->tr.base + TSS32_IO_MAP_BASE, &base, sizeof base);
    if (outcome != OUTCOME_DONE)
        return outcome;

    /* The CPU reads two bytes for every access, since the bits of several ports may cross into the next. */
    offset = (uint32_t)base + port / 8;
    if (offset + sizeof bits - 1 > vcpu->tr.limit)
        return vcpu_raise_error(vcpu, EXCEPTION_GP, 0);
    outcome = vcpu_read_system(vcpu, vcpu->tr.base + offset, &bits, sizeof bits);
    if (outcome != OUTCOME_DONE)
        return outcome;
    if (bits >> port % 8 & ((1u << size) - 1))
        return vcpu_raise_error(vcpu, EXCEPTION_GP, 0);
    return OUTCOME_DONE;
}
