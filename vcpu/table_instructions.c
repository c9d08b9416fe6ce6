/*
 * The instructions around descriptor tables: LGDT to STR, and those that ask about a descriptor without
 * loading it (LAR, LSL, VERR, VERW, ARPL).
 *
 * Read next: exception.c.
 */
#include <string.h>

#include "vcpu/internal.h"
#include "vcpu/segment.h"

/* The opcode extension of group 6 (0F 00) and group 7 (0F 01). */
static unsigned modrm_reg(const struct insn *insn)
{
    return insn->bytes[insn->modrm_offset] >> 3 & 7;
}

/* ---- GDTR, IDTR --------------------------------------------------------------------------------------- */

#define GROUP7_SGDT 0u /* SIDT 1 */
#define GROUP7_LGDT 2u /* LIDT 3 */

/* In memory: limit, then base. */
struct pseudo_descriptor {
    uint16_t limit;
    uint32_t base;
} __attribute__((packed));

enum outcome handle_load_table(struct vcpu *vcpu, const struct insn *insn)
{
    struct table_register *table = modrm_reg(insn) == GROUP7_LGDT ? &vcpu->gdtr : &vcpu->idtr;
    const struct operand *source = &insn->operand[0];
    struct pseudo_descriptor value;
    enum outcome outcome;

    if (vcpu->cpl != 0)
        return vcpu_raise_error(vcpu, EXCEPTION_GP, 0);
    outcome = vcpu_read(vcpu, source->mem.segment, vcpu_effective_address(vcpu, insn, source), &value,
                        sizeof value);
    if (outcome != OUTCOME_DONE)
        return outcome;
    table->limit = value.limit;
    table->base = insn->operand_size == 2 ? value.base & 0xffffff : value.base;
    return vcpu_finish(vcpu, insn);
}

/* All 32 bits of the base with either operand size (SDM Vol 2 SGDT). */
enum outcome handle_store_table(struct vcpu *vcpu, const struct insn *insn)
{
    const struct table_register *table = modrm_reg(insn) == GROUP7_SGDT ? &vcpu->gdtr : &vcpu->idtr;
    const struct operand *destination = &insn->operand[0];
    struct pseudo_descriptor value = {table->limit, table->base};
    enum outcome outcome = vcpu_write(vcpu, destination->mem.segment,
                                      vcpu_effective_address(vcpu, insn, destination), &value, sizeof value);

    return outcome == OUTCOME_DONE ? vcpu_finish(vcpu, insn) : outcome;
}

/* ---- LDTR, TR ----------------------------------------------------------------------------------------- */

#define GROUP6_SLDT 0u /* STR 1 */
#define GROUP6_LLDT 2u /* LTR 3 */

static enum outcome load_ldtr(struct vcpu *vcpu, uint16_t selector)
{
    struct segment ldtr;
    enum outcome outcome = segment_check_ldt(vcpu, selector, EXCEPTION_GP, EXCEPTION_NP, 0, &ldtr);

    if (outcome == OUTCOME_DONE)
        vcpu->ldtr = ldtr;
    return outcome;
}

static enum outcome load_tr(struct vcpu *vcpu, uint16_t selector)
{
    struct descriptor descriptor;
    enum outcome outcome;

    if (selector_is_null(selector))
        return vcpu_raise_error(vcpu, EXCEPTION_GP, 0);
    if (selector & SELECTOR_TI)
        return vcpu_raise_error(vcpu, EXCEPTION_GP, selector_error(selector, 0));
    outcome = descriptor_fetch(vcpu, selector, EXCEPTION_GP, 0, &descriptor);
    if (outcome != OUTCOME_DONE)
        return outcome;
    if (!descriptor_is_available_tss(&descriptor))
        return vcpu_raise_error(vcpu, EXCEPTION_GP, selector_error(selector, 0));
    if (!descriptor_is_present(&descriptor))
        return vcpu_raise_error(vcpu, EXCEPTION_NP, selector_error(selector, 0));
    outcome = descriptor_set_busy(vcpu, &descriptor, true);
    if (outcome == OUTCOME_DONE)
        vcpu->tr = descriptor_segment(&descriptor, selector);
    return outcome;
}

enum outcome handle_load_system(struct vcpu *vcpu, const struct insn *insn)
{
    uint32_t selector;
    enum outcome outcome;

    if (!segment_uses_descriptors(vcpu))
        return vcpu_raise(vcpu, EXCEPTION_UD);
    if (vcpu->cpl != 0)
        return vcpu_raise_error(vcpu, EXCEPTION_GP, 0);
    outcome = vcpu_operand_read(vcpu, insn, &insn->operand[0], &selector);
    if (outcome == OUTCOME_DONE)
        outcome = modrm_reg(insn) == GROUP6_LLDT ? load_ldtr(vcpu, (uint16_t)selector)
                                                 : load_tr(vcpu, (uint16_t)selector);
    return outcome == OUTCOME_DONE ? vcpu_finish(vcpu, insn) : outcome;
}

enum outcome handle_store_system(struct vcpu *vcpu, const struct insn *insn)
{
    uint16_t selector = modrm_reg(insn) == GROUP6_SLDT ? vcpu->ldtr.selector : vcpu->tr.selector;
    enum outcome outcome;

    if (!segment_uses_descriptors(vcpu))
        return vcpu_raise(vcpu, EXCEPTION_UD);
    outcome = vcpu_operand_write(vcpu, insn, &insn->operand[0], selector);
    return outcome == OUTCOME_DONE ? vcpu_finish(vcpu, insn) : outcome;
}

/* ---- asking about a descriptor ------------------------------------------------------------------------ */

#define OPCODE_LAR  0x02u /* LSL 03 */
#define GROUP6_VERR 4u    /* VERW 5 */

/* Descriptor types a question may be about, a bit each (SDM Vol 2, the tables under LAR and LSL). */
#define LAR_TYPES                                                                                            \
    (1u << SYSTEM_TSS16 | 1u << SYSTEM_LDT | 1u << SYSTEM_TSS16_BUSY | 1u << SYSTEM_CALL16 |                 \
     1u << SYSTEM_TASK_GATE | 1u << SYSTEM_TSS32 | 1u << SYSTEM_TSS32_BUSY | 1u << SYSTEM_CALL32)
#define LSL_TYPES                                                                                            \
    (1u << SYSTEM_TSS16 | 1u << SYSTEM_LDT | 1u << SYSTEM_TSS16_BUSY | 1u << SYSTEM_TSS32 |                  \
     1u << SYSTEM_TSS32_BUSY)

static void set_zf(struct vcpu *vcpu, bool value)
{
    vcpu->eflags = value ? vcpu->eflags | EFLAGS_ZF : vcpu->eflags & ~EFLAGS_ZF;
}

/* Privilege to see a descriptor: CPL and RPL, except for conforming code. */
static bool is_visible(const struct vcpu *vcpu, const struct descriptor *descriptor, uint16_t selector)
{
    unsigned dpl = descriptor_dpl(descriptor);

    return descriptor_is_conforming(descriptor) || (vcpu->cpl <= dpl && (selector & SELECTOR_RPL) <= dpl);
}

/* Finds the descriptor of a selector that is asked about; a bad selector is an answer, not a fault. */
static enum outcome ask(struct vcpu *vcpu, uint16_t selector, struct descriptor *descriptor, bool *is_good)
{
    enum outcome outcome;

    *is_good = false;
    if (selector_is_null(selector))
        return OUTCOME_DONE;
    outcome = descriptor_find(vcpu, selector, descriptor, is_good);
    if (outcome == OUTCOME_DONE && *is_good)
        *is_good = is_visible(vcpu, descriptor, selector);
    return outcome;
}

enum outcome handle_lar_lsl(struct vcpu *vcpu, const struct insn *insn)
{
    bool is_lar = insn->opcode == OPCODE_LAR;
    unsigned types = is_lar ? LAR_TYPES : LSL_TYPES;
    struct descriptor descriptor;
    uint32_t selector;
    bool is_good;
    enum outcome outcome;

    if (!segment_uses_descriptors(vcpu))
        return vcpu_raise(vcpu, EXCEPTION_UD);
    outcome = vcpu_operand_read(vcpu, insn, &insn->operand[1], &selector);
    if (outcome == OUTCOME_DONE)
        outcome = ask(vcpu, (uint16_t)selector, &descriptor, &is_good);
    if (outcome != OUTCOME_DONE)
        return outcome;

    if (is_good && !(descriptor_attributes(&descriptor) & SEGMENT_S))
        is_good = types >> descriptor_system_type(&descriptor) & 1;
    if (is_good) { /* into a register: cannot fail */
        uint32_t answer = is_lar ? descriptor.high & 0x00ffff00 : descriptor_segment(&descriptor, 0).limit;
        outcome = vcpu_operand_write(vcpu, insn, &insn->operand[0], answer);
    }
    set_zf(vcpu, is_good);
    return outcome == OUTCOME_DONE ? vcpu_finish(vcpu, insn) : outcome;
}

enum outcome handle_verify(struct vcpu *vcpu, const struct insn *insn)
{
    struct descriptor descriptor;
    uint32_t selector;
    bool is_good;
    enum outcome outcome;

    if (!segment_uses_descriptors(vcpu))
        return vcpu_raise(vcpu, EXCEPTION_UD);
    outcome = vcpu_operand_read(vcpu, insn, &insn->operand[0], &selector);
    if (outcome == OUTCOME_DONE)
        outcome = ask(vcpu, (uint16_t)selector, &descriptor, &is_good);
    if (outcome != OUTCOME_DONE)
        return outcome;

    if (is_good)
        is_good = modrm_reg(insn) == GROUP6_VERR ? descriptor_is_readable(&descriptor)
                                                 : descriptor_is_writable(&descriptor);
    set_zf(vcpu, is_good);
    return vcpu_finish(vcpu, insn);
}

enum outcome handle_arpl(struct vcpu *vcpu, const struct insn *insn)
{
    uint32_t destination, source;
    enum outcome outcome;

    if (!segment_uses_descriptors(vcpu))
        return vcpu_raise(vcpu, EXCEPTION_UD);
    outcome = vcpu_operand_read(vcpu, insn, &insn->operand[0], &destination);
    if (outcome == OUTCOME_DONE)
        outcome = vcpu_operand_read(vcpu, insn, &insn->operand[1], &source);
    if (outcome != OUTCOME_DONE)
        return outcome;

    if ((destination & SELECTOR_RPL) < (source & SELECTOR_RPL)) {
        destination = (destination & ~SELECTOR_RPL) | (source & SELECTOR_RPL);
        outcome = vcpu_operand_write(vcpu, insn, &insn->operand[0], destination);
        if (outcome != OUTCOME_DONE)
            return outcome;
        set_zf(vcpu, true);
    } else {
        set_zf(vcpu, false);
    }
    return vcpu_finish(vcpu, insn);
}
