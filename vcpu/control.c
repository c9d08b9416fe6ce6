/*
 * Control and debug registers, the task-switched flag, the TLB and the caches, HLT, and the two counters. All
 * but SMSW and RDTSC are for CPL 0 (SDM Vol 3A 5.9).
 *
 * Read next: msr.c.
 */
#include <string.h>

#include "vcpu/internal.h"

#define CR0_WRITABLE (CR0_PE | CR0_MP | CR0_EM | CR0_TS | CR0_NE | CR0_WP | CR0_AM | CR0_NW | CR0_CD | CR0_PG)
#define CR0_PAGING   (CR0_PE | CR0_WP | CR0_PG)
/* Changes of these load the PDPTEs anew (SDM Vol 3A 4.4.1). */
#define CR0_LOADS_PDPTES (CR0_CD | CR0_NW | CR0_PG)
#define CR4_LOADS_PDPTES (CR4_PAE | CR4_PGE | CR4_PSE)
/* The bits whose features the CPUID profile has (docs/cpuid.md); any other is reserved: #GP. */
#define CR4_WRITABLE (CR4_TSD | CR4_PSE | CR4_PAE | CR4_PGE | CR4_PCE | CR4_OSFXSR | CR4_OSXMMEXCPT)
#define CR4_PAGING   (CR4_PSE | CR4_PAE | CR4_PGE)
/* LMSW reaches the low four bits, and cannot clear PE. */
#define LMSW_BITS (CR0_PE | CR0_MP | CR0_EM | CR0_TS)

static bool is_kernel(const struct vcpu *vcpu)
{
    return vcpu->cpl == 0;
}

static enum outcome deny(struct vcpu *vcpu)
{
    return vcpu_raise_error(vcpu, EXCEPTION_GP, 0);
}

/* ---- control registers --------------------------------------------------------------------------------- */

/* SDM Vol 2B MOV CR: which combinations of CR0 fault. */
static bool is_cr0_valid(uint32_t cr0)
{
    return !((cr0 & CR0_PG) && !(cr0 & CR0_PE)) && !((cr0 & CR0_NW) && !(cr0 & CR0_CD));
}

/* Bits of a PDPTE that must be 0 if it is present. */
#define PDPTE_RESERVED (~((UINT64_C(1) << VCPU_PHYSICAL_BITS) - 1) | 0x1e6)

bool vcpu_load_pdptes(struct vcpu *vcpu, uint32_t cr0, uint32_t cr3, uint32_t cr4)
{
    uint64_t pdpte[4];

    if (!(cr0 & CR0_PG) || !(cr4 & CR4_PAE))
        return true;
    vcpu->ops->physical_read(vcpu, cr3 & CR3_PDPT_FRAME, pdpte, sizeof pdpte);
    for (unsigned i = 0; i < 4; i++)
        if ((pdpte[i] & PTE_P) && (pdpte[i] & PDPTE_RESERVED))
            return false;
    memcpy(vcpu->pdpte, pdpte, sizeof pdpte);
    return true;
}

static enum outcome write_cr0(struct vcpu *vcpu, uint32_t value)
{
    const uint32_t old = vcpu->cr0;

    bool loads = ((old ^ value) & CR0_LOADS_PDPTES) && (vcpu->cr4 & CR4_PAE);

    if (!is_cr0_valid(value) || (loads && !vcpu_load_pdptes(vcpu, value, vcpu->cr3, vcpu->cr4)))
        return deny(vcpu);
    vcpu->cr0 = (value & CR0_WRITABLE) | CR0_ET;
    if (((old ^ vcpu->cr0) & CR0_PAGING) || loads)
        vcpu->ops->paging_changed(vcpu, old, vcpu->cr3, vcpu->cr4);
    return OUTCOME_DONE;
}

static enum outcome write_cr3(struct vcpu *vcpu, uint32_t value)
{
    const uint32_t old = vcpu->cr3;

    if (!vcpu_load_pdptes(vcpu, vcpu->cr0, value, vcpu->cr4))
        return deny(vcpu);
    vcpu->cr3 = value;
    vcpu->ops->paging_changed(vcpu, vcpu->cr0, old, vcpu->cr4); /* the same value too: it flushes the TLB */
    return OUTCOME_DONE;
}

static enum outcome write_cr4(struct vcpu *vcpu, uint32_t value)
{
    const uint32_t old = vcpu->cr4;

    if ((value & ~CR4_WRITABLE) ||
        (((old ^ value) & CR4_LOADS_PDPTES) && !vcpu_load_pdptes(vcpu, vcpu->cr0, vcpu->cr3, value)))
        return deny(vcpu);
    vcpu->cr4 = value;
    if ((old ^ value) & CR4_PAGING)
        vcpu->ops->paging_changed(vcpu, vcpu->cr0, vcpu->cr3, old);
    return OUTCOME_DONE;
}

static enum outcome write_control(struct vcpu *vcpu, unsigned index, uint32_t value)
{
    switch (index) {
    case 0:
        return write_cr0(vcpu, value);
    case 2:
        vcpu->cr2 = value;
        return OUTCOME_DONE;
    case 3:
        return write_cr3(vcpu, value);
    default:
        return write_cr4(vcpu, value);
    }
}

static uint32_t read_control(const struct vcpu *vcpu, unsigned index)
{
    switch (index) {
    case 0:
        return vcpu->cr0;
    case 2:
        return vcpu->cr2;
    case 3:
        return vcpu->cr3;
    default:
        return vcpu->cr4;
    }
}

enum outcome handle_mov_cr(struct vcpu *vcpu, const struct insn *insn)
{
    const struct operand *destination = &insn->operand[0], *source = &insn->operand[1];
    bool is_write = destination->reg.class == REGISTER_CONTROL;
    unsigned index = is_write ? destination->reg.index : source->reg.index;
    enum outcome outcome;

    if (index != 0 && index != 2 && index != 3 && index != 4)
        return vcpu_raise(vcpu, EXCEPTION_UD);
    if (!is_kernel(vcpu))
        return deny(vcpu);
    if (is_write)
        outcome = write_control(vcpu, index, vcpu->gpr[source->reg.index]);
    else
        outcome = vcpu_operand_write(vcpu, insn, destination, read_control(vcpu, index));
    return outcome == OUTCOME_DONE ? vcpu_finish(vcpu, insn) : outcome;
}

enum outcome handle_clts(struct vcpu *vcpu, const struct insn *insn)
{
    if (!is_kernel(vcpu))
        return deny(vcpu);
    vcpu->cr0 &= ~CR0_TS;
    return vcpu_finish(vcpu, insn);
}

enum outcome handle_lmsw(struct vcpu *vcpu, const struct insn *insn)
{
    uint32_t value, sticky = vcpu->cr0 & CR0_PE;
    enum outcome outcome;

    if (!is_kernel(vcpu))
        return deny(vcpu);
    outcome = vcpu_operand_read(vcpu, insn, &insn->operand[0], &value);
    if (outcome == OUTCOME_DONE)
        outcome = write_cr0(vcpu, (vcpu->cr0 & ~LMSW_BITS) | (value & LMSW_BITS) | sticky);
    return outcome == OUTCOME_DONE ? vcpu_finish(vcpu, insn) : outcome;
}

/* To memory it is 16 bits at any operand size; a 32-bit register receives all of CR0. */
enum outcome handle_smsw(struct vcpu *vcpu, const struct insn *insn)
{
    enum outcome outcome = vcpu_operand_write(vcpu, insn, &insn->operand[0], vcpu->cr0);

    return outcome == OUTCOME_DONE ? vcpu_finish(vcpu, insn) : outcome;
}

/* ---- debug registers ----------------------------------------------------------------------------------- */

/* Without CR4.DE (not in the profile) 4 and 5 are other names of 6 and 7 (SDM Vol 3B 17.2.2). */
static unsigned debug_register(unsigned index)
{
    return index == 4 || index == 5 ? index + 2 : index;
}

static void write_debug(struct vcpu *vcpu, unsigned index, uint32_t value)
{
    switch (index) {
    case 6:
        vcpu->dr[6] = (value & DR6_WRITABLE) | DR6_FIXED;
        break;
    case 7:
        vcpu->dr[7] = (value & DR7_WRITABLE) | DR7_FIXED;
        break;
    default:
        vcpu->dr[index] = value;
    }
}

enum outcome handle_mov_dr(struct vcpu *vcpu, const struct insn *insn)
{
    const struct operand *destination = &insn->operand[0], *source = &insn->operand[1];
    bool is_write = destination->reg.class == REGISTER_DEBUG;
    unsigned index = debug_register(is_write ? destination->reg.index : source->reg.index);

    if (!is_kernel(vcpu))
        return deny(vcpu);
    if (vcpu->dr[7] & DR7_GD)
        return vcpu_raise_debug(vcpu, DR6_BD);
    if (!is_write) {
        vcpu->gpr[destination->reg.index] = vcpu->dr[index];
        return vcpu_finish(vcpu, insn);
    }
    /* Nothing here watches the addresses: a guest that counts on its breakpoints must not run on without. */
    if (index == 7 && (vcpu->gpr[source->reg.index] & DR7_ENABLES)) {
        vcpu->ops->stop(vcpu, STOP_IMPOSSIBLE, "DR7 = %08x enables a breakpoint: not modelled",
                        vcpu->gpr[source->reg.index]);
        return OUTCOME_STOP;
    }
    write_debug(vcpu, index, vcpu->gpr[source->reg.index]);
    return vcpu_finish(vcpu, insn);
}

/* ---- TLB, caches, activity ----------------------------------------------------------------------------- */

/* The address is computed and not checked (SDM Vol 2A INVLPG: no limit, no canonicality). */
enum outcome handle_invlpg(struct vcpu *vcpu, const struct insn *insn)
{
    const struct operand *operand = &insn->operand[0];

    if (!is_kernel(vcpu))
        return deny(vcpu);
    vcpu->ops->invlpg(vcpu,
                      vcpu->segment[operand->mem.segment].base + vcpu_effective_address(vcpu, insn, operand));
    return vcpu_finish(vcpu, insn);
}

/* INVD and WBINVD: there is no cache that software could see. */
enum outcome handle_cache(struct vcpu *vcpu, const struct insn *insn)
{
    return is_kernel(vcpu) ? vcpu_finish(vcpu, insn) : deny(vcpu);
}

enum outcome handle_hlt(struct vcpu *vcpu, const struct insn *insn)
{
    if (!is_kernel(vcpu))
        return deny(vcpu);
    vcpu->halted = true;
    return vcpu_finish(vcpu, insn);
}

/* ---- counters ------------------------------------------------------------------------------------------ */

enum outcome handle_tsc(struct vcpu *vcpu, const struct insn *insn)
{
    uint64_t tsc;

    if ((vcpu->cr4 & CR4_TSD) && !is_kernel(vcpu))
        return deny(vcpu);
    tsc = vcpu->ops->tsc(vcpu) + vcpu->msr.tsc_offset;
    vcpu->gpr[EAX] = (uint32_t)tsc;
    vcpu->gpr[EDX] = (uint32_t)(tsc >> 32);
    return vcpu_finish(vcpu, insn);
}

/* Privilege or not, it faults: the profile has no counter that ECX could name. */
enum outcome handle_rdpmc(struct vcpu *vcpu, const struct insn *insn)
{
    (void)insn;
    return deny(vcpu);
}
