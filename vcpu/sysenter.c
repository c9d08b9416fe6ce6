/*
 * SYSENTER and SYSEXIT: the fast way to ring 0 and back, with flat segments made up on the spot (SDM Vol
 * 3A 5.8.7). Both take their selectors from one MSR: CS of ring 0, then its SS, CS of ring 3, its SS.
 *
 * Read next: task.c.
 */
#include "vcpu/internal.h"

#define FLAT_ATTRIBUTES (SEGMENT_G | SEGMENT_DB | SEGMENT_P | SEGMENT_S | SEGMENT_WRITABLE | SEGMENT_ACCESSED)

static void load_flat(struct vcpu *vcpu, unsigned cs_selector, unsigned cpl)
{
    uint16_t attributes = (uint16_t)(FLAT_ATTRIBUTES | cpl << SEGMENT_DPL_SHIFT);

    vcpu->segment[SEG_CS] = (struct segment){.selector = (uint16_t)(cs_selector | cpl),
                                             .attributes = attributes | SEGMENT_CODE,
                                             .limit = 0xffffffff};
    vcpu->segment[SEG_SS] = (struct segment){
        .selector = (uint16_t)((cs_selector + 8) | cpl), .attributes = attributes, .limit = 0xffffffff};
    vcpu->cpl = (uint8_t)cpl;
}

static bool has_selectors(const struct vcpu *vcpu)
{
    return (vcpu->msr.sysenter_cs & ~(uint64_t)SELECTOR_RPL & 0xffff) != 0;
}

enum outcome handle_sysenter(struct vcpu *vcpu, const struct insn *insn)
{
    (void)insn;
    if (!vcpu_is_protected(vcpu) || !has_selectors(vcpu))
        return vcpu_raise_error(vcpu, EXCEPTION_GP, 0);
    vcpu->eflags &= ~(EFLAGS_VM | EFLAGS_IF | EFLAGS_RF);
    load_flat(vcpu, vcpu->msr.sysenter_cs & 0xfffc, 0);
    vcpu->gpr[ESP] = (uint32_t)vcpu->msr.sysenter_esp;
    vcpu->eip = (uint32_t)vcpu->msr.sysenter_eip;
    return OUTCOME_DONE;
}

enum outcome handle_sysexit(struct vcpu *vcpu, const struct insn *insn)
{
    (void)insn;
    if (!vcpu_is_protected(vcpu) || !has_selectors(vcpu) || vcpu->cpl != 0)
        return vcpu_raise_error(vcpu, EXCEPTION_GP, 0);
    load_flat(vcpu, (vcpu->msr.sysenter_cs & 0xfffc) + 16, 3);
    vcpu->gpr[ESP] = vcpu->gpr[ECX];
    vcpu->eip = vcpu->gpr[EDX];
    return OUTCOME_DONE;
}
