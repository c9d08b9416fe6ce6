/*
 * BT, BTS, BTR and BTC with the bit offset in a register: in memory it is signed and reaches beyond the
 * operand (SDM Vol 2A BT), so the operand's address depends on it. And the instructions on single flags.
 *
 * Read next: decimal.c.
 */
#include <Zydis/Zydis.h>

#include "vcpu/internal.h"
#include "vcpu/ordinary.h"

/* The whole operand that has the bit: moved by multiples of the operand size. */
static struct operand operand_of_bit(const struct operand *base, unsigned operand_size, uint32_t bit_offset)
{
    struct operand operand = *base;
    int32_t bit = operand_size == 2 ? (int16_t)bit_offset : (int32_t)bit_offset;
    unsigned shift = operand_size == 2 ? 4 : 5;

    if (operand.kind == OPERAND_MEMORY)
        operand.mem.displacement =
            (int32_t)((uint32_t)operand.mem.displacement + (uint32_t)(bit >> shift) * operand_size);
    return operand;
}

enum outcome ordinary_bit(struct vcpu *vcpu, const struct insn *insn)
{
    uint32_t bit_offset, value, mask;
    struct operand operand;
    bool is_write = insn->mnemonic != ZYDIS_MNEMONIC_BT;
    enum outcome outcome = vcpu_operand_read(vcpu, insn, &insn->operand[1], &bit_offset);

    if (outcome != OUTCOME_DONE)
        return outcome;
    operand = operand_of_bit(&insn->operand[0], insn->operand_size, bit_offset);
    if (is_write && operand.kind == OPERAND_MEMORY) { /* a write fault comes before the read is seen */
        gva_t linear;

        outcome = vcpu_segment_check(vcpu, operand.mem.segment, vcpu_effective_address(vcpu, insn, &operand),
                                     operand.size, ACCESS_READ | ACCESS_WRITE, &linear);
        if (outcome == OUTCOME_DONE)
            outcome = vcpu_access(vcpu, linear, NULL, operand.size,
                                  ACCESS_WRITE | ACCESS_PROBE | vcpu_access_rights(vcpu->cpl));
    }
    if (outcome == OUTCOME_DONE)
        outcome = vcpu_operand_read(vcpu, insn, &operand, &value);
    if (outcome != OUTCOME_DONE)
        return outcome;

    mask = 1u << (bit_offset & (8u * insn->operand_size - 1));
    if (is_write) {
        uint32_t changed = value;

        if (insn->mnemonic == ZYDIS_MNEMONIC_BTS)
            changed |= mask;
        else if (insn->mnemonic == ZYDIS_MNEMONIC_BTR)
            changed &= ~mask;
        else
            changed ^= mask;
        outcome = vcpu_operand_write(vcpu, insn, &operand, changed);
        if (outcome != OUTCOME_DONE)
            return outcome;
    }
    vcpu->eflags = (value & mask) ? vcpu->eflags | EFLAGS_CF : vcpu->eflags & ~EFLAGS_CF;
    return vcpu_finish(vcpu, insn);
}

/* ---- flags --------------------------------------------------------------------------------------------- */

#define AH_FLAGS (EFLAGS_CF | EFLAGS_PF | EFLAGS_AF | EFLAGS_ZF | EFLAGS_SF)

enum outcome ordinary_flag(struct vcpu *vcpu, const struct insn *insn)
{
    uint32_t *eax = &vcpu->gpr[EAX];

    switch (insn->mnemonic) {
    case ZYDIS_MNEMONIC_CLC:
        vcpu->eflags &= ~EFLAGS_CF;
        break;
    case ZYDIS_MNEMONIC_STC:
        vcpu->eflags |= EFLAGS_CF;
        break;
    case ZYDIS_MNEMONIC_CMC:
        vcpu->eflags ^= EFLAGS_CF;
        break;
    case ZYDIS_MNEMONIC_CLD:
        vcpu->eflags &= ~EFLAGS_DF;
        break;
    case ZYDIS_MNEMONIC_STD:
        vcpu->eflags |= EFLAGS_DF;
        break;
    case ZYDIS_MNEMONIC_LAHF:
        *eax = (*eax & ~0xff00u) | ((vcpu->eflags & AH_FLAGS) | EFLAGS_FIXED) << 8;
        break;
    case ZYDIS_MNEMONIC_SAHF:
        vcpu->eflags = (vcpu->eflags & ~AH_FLAGS) | (*eax >> 8 & AH_FLAGS);
        break;
    case ZYDIS_MNEMONIC_SALC: /* AL := CF ? FFH : 0 */
        *eax = (*eax & ~0xffu) | ((vcpu->eflags & EFLAGS_CF) ? 0xff : 0);
        break;
    default:
        return OUTCOME_UNKNOWN;
    }
    return vcpu_finish(vcpu, insn);
}
