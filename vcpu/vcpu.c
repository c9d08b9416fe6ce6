/*
 * The virtual processor's beginnings: power-on state, raising a fault, what may interrupt it.
 *
 * Read next: descriptor.c and segment.c (what a selector means), then exception.c (how a fault reaches its
 * handler).
 */
#include "vcpu/vcpu.h"

#include <string.h>

#include "vcpu/internal.h"

#define FLAT_ATTRIBUTES (SEGMENT_G | SEGMENT_DB | SEGMENT_P | SEGMENT_S | SEGMENT_WRITABLE | SEGMENT_ACCESSED)
#define REAL_ATTRIBUTES (SEGMENT_P | SEGMENT_S | SEGMENT_WRITABLE | SEGMENT_ACCESSED)

/* Offsets in the FXSAVE image (SDM Vol 1 table 10-2). */
#define FXSAVE_FCW   0
#define FXSAVE_FTW   4
#define FXSAVE_MXCSR 24

void vcpu_reset(struct vcpu *vcpu)
{
    const struct vcpu_ops *ops = vcpu->ops;
    void *machine = vcpu->machine;

    *vcpu = (struct vcpu){
        .gpr[EDX] = VCPU_SIGNATURE,
        .eip = 0xfff0,
        .eflags = EFLAGS_FIXED,
        .ldtr = {.limit = 0xffff, .attributes = SEGMENT_P | SYSTEM_LDT},
        .tr = {.limit = 0xffff, .attributes = SEGMENT_P | SYSTEM_TSS32_BUSY},
        .gdtr = {.limit = 0xffff},
        .idtr = {.limit = 0xffff},
        .cr0 = CR0_CD | CR0_NW | CR0_ET,
        .dr = {[6] = DR6_FIXED, [7] = DR7_FIXED},
        .msr = {.pat = 0x0007040600070406,
                .apic_base = 0xfee00000 | APIC_BASE_BSP | APIC_BASE_ENABLE,
                .misc_enable = 1},
        .fault = {.vector = -1},
        .delivering_vector = -1,
        .chain.interrupt = -1,
        .ops = ops,
        .machine = machine,
    };
    for (unsigned i = 0; i < SEG_COUNT; i++)
        vcpu->segment[i] = (struct segment){.limit = 0xffff, .attributes = REAL_ATTRIBUTES};
    vcpu->segment[SEG_CS] = (struct segment){.selector = 0xf000,
                                             .base = 0xffff0000,
                                             .limit = 0xffff,
                                             .attributes = REAL_ATTRIBUTES | SEGMENT_CODE};

    vcpu->fxsave[FXSAVE_FCW] = 0x40;
    vcpu->fxsave[FXSAVE_FTW] = 0xff; /* FTW 5555H: all registers hold zeros, none is empty */
    memcpy(vcpu->fxsave + FXSAVE_MXCSR, &(uint32_t){0x1f80}, sizeof(uint32_t));
}

void vcpu_set_flat(struct vcpu *vcpu, uint16_t code_selector, uint16_t data_selector, uint32_t eip)
{
    for (unsigned i = 0; i < SEG_COUNT; i++)
        vcpu->segment[i] =
            (struct segment){.selector = data_selector, .limit = 0xffffffff, .attributes = FLAT_ATTRIBUTES};
    vcpu->segment[SEG_CS].selector = code_selector;
    vcpu->segment[SEG_CS].attributes |= SEGMENT_CODE;
    vcpu->cpl = 0;
    vcpu->eip = eip;
    vcpu->eflags = EFLAGS_FIXED;
    vcpu->cr0 = CR0_PE | CR0_ET;
}

/* ---- raising ------------------------------------------------------------------------------------------ */

enum outcome vcpu_raise(struct vcpu *vcpu, int vector)
{
    vcpu->fault = (struct fault){.vector = (int16_t)vector};
    return OUTCOME_FAULT;
}

enum outcome vcpu_raise_error(struct vcpu *vcpu, int vector, uint32_t error)
{
    vcpu->fault = (struct fault){.vector = (int16_t)vector, .has_error = true, .error = error};
    return OUTCOME_FAULT;
}

enum outcome vcpu_raise_page_fault(struct vcpu *vcpu, gva_t address, uint32_t error)
{
    vcpu->fault = (struct fault){.vector = EXCEPTION_PF, .has_error = true, .error = error, .cr2 = address};
    return OUTCOME_FAULT;
}

enum outcome vcpu_raise_debug(struct vcpu *vcpu, uint32_t dr6_bits)
{
    vcpu->dr[6] |= dr6_bits;
    vcpu->fault = (struct fault){.vector = EXCEPTION_DB, .is_trap = (dr6_bits & DR6_BD) == 0};
    return OUTCOME_FAULT;
}

/* ---- interruptibility --------------------------------------------------------------------------------- */

bool vcpu_accepts_interrupt(const struct vcpu *vcpu)
{
    return (vcpu->eflags & EFLAGS_IF) != 0 && vcpu->interrupt_shadow == SHADOW_NONE;
}

/* STI holds back maskable interrupts only; MOV SS and POP SS hold back NMIs too (SDM Vol 3A 6.8.3). */
bool vcpu_accepts_nmi(const struct vcpu *vcpu)
{
    return !vcpu->nmi_blocked && vcpu->interrupt_shadow != SHADOW_MOV_SS;
}

const char *vcpu_exception_name(unsigned vector)
{
    static const char *const names[] = {
        [EXCEPTION_DE] = "#DE", [EXCEPTION_DB] = "#DB", [EXCEPTION_NMI] = "NMI", [EXCEPTION_BP] = "#BP",
        [EXCEPTION_OF] = "#OF", [EXCEPTION_BR] = "#BR", [EXCEPTION_UD] = "#UD",  [EXCEPTION_NM] = "#NM",
        [EXCEPTION_DF] = "#DF", [EXCEPTION_TS] = "#TS", [EXCEPTION_NP] = "#NP",  [EXCEPTION_SS] = "#SS",
        [EXCEPTION_GP] = "#GP", [EXCEPTION_PF] = "#PF", [EXCEPTION_MF] = "#MF",  [EXCEPTION_AC] = "#AC",
        [EXCEPTION_MC] = "#MC", [EXCEPTION_XM] = "#XM",
    };

    if (vector < sizeof names / sizeof names[0] && names[vector] != NULL)
        return names[vector];
    return vector < 32 ? "reserved" : "interrupt";
}
