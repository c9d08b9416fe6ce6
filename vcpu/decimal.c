/*
 * Decimal adjustment: 64-bit mode has none of these, so they are written out as in the SDM's pseudocode (Vol
 * 2A AAA to AAS, DAA, DAS). Flags that the SDM leaves undefined: AAM and AAD clear CF, OF and AF, the others
 * leave them alone.
 *
 * Read next: stack.c.
 */
#include <Zydis/Zydis.h>

#include "vcpu/internal.h"
#include "vcpu/ordinary.h"

static void set_flag(struct vcpu *vcpu, uint32_t flag, bool is_set)
{
    vcpu->eflags = is_set ? vcpu->eflags | flag : vcpu->eflags & ~flag;
}

static void set_result_flags(struct vcpu *vcpu, uint8_t result)
{
    set_flag(vcpu, EFLAGS_ZF, result == 0);
    set_flag(vcpu, EFLAGS_SF, (result & 0x80) != 0);
    set_flag(vcpu, EFLAGS_PF, !(__builtin_popcount(result) & 1));
}

static void set_al(struct vcpu *vcpu, uint8_t value)
{
    vcpu->gpr[EAX] = (vcpu->gpr[EAX] & ~0xffu) | value;
}

static void set_ax(struct vcpu *vcpu, uint16_t value)
{
    vcpu->gpr[EAX] = (vcpu->gpr[EAX] & ~0xffffu) | value;
}

/* DAA and DAS, on packed digits: add or subtract 6 in each digit that left its range. */
static void adjust_packed(struct vcpu *vcpu, bool is_subtraction)
{
    const uint8_t old = (uint8_t)vcpu->gpr[EAX];
    const bool old_carry = vcpu->eflags & EFLAGS_CF;
    bool adjusts_low = (old & 0x0f) > 9 || (vcpu->eflags & EFLAGS_AF);
    bool adjusts_high = old > 0x99 || old_carry;
    uint8_t correction = (uint8_t)((adjusts_low ? 0x06 : 0) + (adjusts_high ? 0x60 : 0));
    /* The low digit of DAS may borrow from a high one that is in range: that is a carry too. */
    bool borrows = is_subtraction && adjusts_low && old < 0x06;

    set_al(vcpu, (uint8_t)(is_subtraction ? old - correction : old + correction));
    set_flag(vcpu, EFLAGS_AF, adjusts_low);
    set_flag(vcpu, EFLAGS_CF, adjusts_high || borrows);
    set_result_flags(vcpu, (uint8_t)vcpu->gpr[EAX]);
}

/* AAA and AAS, on one digit in AL with the carry into AH: on AX as a whole, as all since the 286 do. */
static void adjust_unpacked(struct vcpu *vcpu, bool is_subtraction)
{
    uint16_t ax = (uint16_t)vcpu->gpr[EAX];
    bool adjusts = (ax & 0x0f) > 9 || (vcpu->eflags & EFLAGS_AF);

    if (adjusts)
        ax = (uint16_t)(is_subtraction ? ax - 0x106 : ax + 0x106);
    set_ax(vcpu, ax & 0xff0f);
    set_flag(vcpu, EFLAGS_AF, adjusts);
    set_flag(vcpu, EFLAGS_CF, adjusts);
}

enum outcome ordinary_decimal(struct vcpu *vcpu, const struct insn *insn)
{
    uint8_t al = (uint8_t)vcpu->gpr[EAX], ah = (uint8_t)(vcpu->gpr[EAX] >> 8);
    uint8_t base = (uint8_t)insn->operand[0].immediate; /* of AAM and AAD */

    switch (insn->mnemonic) {
    case ZYDIS_MNEMONIC_DAA:
    case ZYDIS_MNEMONIC_DAS:
        adjust_packed(vcpu, insn->mnemonic == ZYDIS_MNEMONIC_DAS);
        return vcpu_finish(vcpu, insn);
    case ZYDIS_MNEMONIC_AAA:
    case ZYDIS_MNEMONIC_AAS:
        adjust_unpacked(vcpu, insn->mnemonic == ZYDIS_MNEMONIC_AAS);
        return vcpu_finish(vcpu, insn);
    case ZYDIS_MNEMONIC_AAM:
        if (base == 0)
            return vcpu_raise(vcpu, EXCEPTION_DE);
        set_ax(vcpu, (uint16_t)(al / base << 8 | al % base));
        break;
    case ZYDIS_MNEMONIC_AAD:
        set_ax(vcpu, (uint8_t)(al + ah * base));
        break;
    default:
        return OUTCOME_UNKNOWN;
    }
    set_result_flags(vcpu, (uint8_t)vcpu->gpr[EAX]);
    vcpu->eflags &= ~(EFLAGS_CF | EFLAGS_OF | EFLAGS_AF);
    return vcpu_finish(vcpu, insn);
}
