/* MOV in its ordinary forms, MOVNTI, LEA, XLAT, BOUND, CLFLUSH, and the hints, which do nothing.
 * Read next: bit.c. */
#include <Zydis/Zydis.h>

#include "vcpu/internal.h"
#include "vcpu/ordinary.h"

static enum outcome move(struct vcpu *vcpu, const struct insn *insn)
{
    uint32_t value;
    enum outcome outcome = vcpu_operand_read(vcpu, insn, &insn->operand[1], &value);

    if (outcome == OUTCOME_DONE)
        outcome = vcpu_operand_write(vcpu, insn, &insn->operand[0], value);
    return outcome == OUTCOME_DONE ? vcpu_finish(vcpu, insn) : outcome;
}

static enum outcome load_address(struct vcpu *vcpu, const struct insn *insn)
{
    enum outcome outcome = vcpu_operand_write(vcpu, insn, &insn->operand[0],
                                              vcpu_effective_address(vcpu, insn, &insn->operand[1]));

    return outcome == OUTCOME_DONE ? vcpu_finish(vcpu, insn) : outcome;
}

/* AL := [EBX + AL], AL without sign. */
static enum outcome translate_byte(struct vcpu *vcpu, const struct insn *insn)
{
    uint32_t offset = vcpu->gpr[EBX] + (vcpu->gpr[EAX] & 0xff);
    uint8_t value;
    enum outcome outcome;

    if (insn->address_size == 2)
        offset &= 0xffff;
    outcome = vcpu_read(vcpu, insn_memory_segment(insn), offset, &value, sizeof value);
    if (outcome != OUTCOME_DONE)
        return outcome;
    vcpu->gpr[EAX] = (vcpu->gpr[EAX] & ~0xffu) | value;
    return vcpu_finish(vcpu, insn);
}

/* The bounds are a signed pair in memory, both inclusive. */
static enum outcome check_bounds(struct vcpu *vcpu, const struct insn *insn)
{
    const struct operand *pair = &insn->operand[1];
    uint32_t offset = vcpu_effective_address(vcpu, insn, pair);
    int32_t index = (int32_t)vcpu->gpr[insn->operand[0].reg.index], lower, upper;
    uint32_t bounds[2] = {0, 0};
    gva_t linear;
    enum outcome outcome =
        vcpu_segment_check(vcpu, pair->mem.segment, offset, 2 * insn->operand_size, ACCESS_READ, &linear);

    if (outcome == OUTCOME_DONE)
        outcome = vcpu_access_aligned(vcpu, linear, bounds, 2 * insn->operand_size, insn->operand_size,
                                      ACCESS_READ | vcpu_access_rights(vcpu->cpl));
    if (outcome != OUTCOME_DONE)
        return outcome;
    if (insn->operand_size == 2) {
        index = (int16_t)index;
        lower = (int16_t)bounds[0];
        upper = (int16_t)(bounds[0] >> 16);
    } else {
        lower = (int32_t)bounds[0];
        upper = (int32_t)bounds[1];
    }
    return index < lower || index > upper ? vcpu_raise(vcpu, EXCEPTION_BR) : vcpu_finish(vcpu, insn);
}

/* It is checked as a read of one byte (SDM Vol 2A CLFLUSH), and there is no cache to flush. */
static enum outcome flush_line(struct vcpu *vcpu, const struct insn *insn)
{
    const struct operand *operand = &insn->operand[0];
    gva_t linear;
    enum outcome outcome = vcpu_segment_check(
        vcpu, operand->mem.segment, vcpu_effective_address(vcpu, insn, operand), 1, ACCESS_READ, &linear);

    if (outcome == OUTCOME_DONE)
        outcome =
            vcpu_access(vcpu, linear, NULL, 1, ACCESS_READ | ACCESS_PROBE | vcpu_access_rights(vcpu->cpl));
    return outcome == OUTCOME_DONE ? vcpu_finish(vcpu, insn) : outcome;
}

enum outcome ordinary_move(struct vcpu *vcpu, const struct insn *insn)
{
    switch (insn->mnemonic) {
    case ZYDIS_MNEMONIC_MOV:
    case ZYDIS_MNEMONIC_MOVNTI:
        return move(vcpu, insn);
    case ZYDIS_MNEMONIC_LEA:
        return load_address(vcpu, insn);
    case ZYDIS_MNEMONIC_XLAT:
        return translate_byte(vcpu, insn);
    case ZYDIS_MNEMONIC_BOUND:
        return check_bounds(vcpu, insn);
    case ZYDIS_MNEMONIC_CLFLUSH:
        return flush_line(vcpu, insn);
    case ZYDIS_MNEMONIC_XCHG: /* 90 */
    case ZYDIS_MNEMONIC_NOP:
    case ZYDIS_MNEMONIC_PAUSE:
    case ZYDIS_MNEMONIC_LFENCE:
    case ZYDIS_MNEMONIC_MFENCE:
    case ZYDIS_MNEMONIC_SFENCE:
    case ZYDIS_MNEMONIC_PREFETCH:
    case ZYDIS_MNEMONIC_PREFETCHW:
    case ZYDIS_MNEMONIC_PREFETCHNTA:
    case ZYDIS_MNEMONIC_PREFETCHT0:
    case ZYDIS_MNEMONIC_PREFETCHT1:
    case ZYDIS_MNEMONIC_PREFETCHT2:
        return vcpu_finish(vcpu, insn);
    default:
        return OUTCOME_UNKNOWN;
    }
}
