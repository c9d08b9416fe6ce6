/*
 * RDMSR and WRMSR. The registers are one table: where each lives in struct vcpu, which bits a write may set,
 * and what else it must be. What the table does not have is #GP(0), and a line in the trace (SDM Vol 4; Vol
 * 3A 9.4, 11.11 and 11.12 for the APIC base, the MTRRs and the PAT).
 *
 * Read next: cpuid.c.
 */
#include <Zydis/Zydis.h>
#include <string.h>

#include "vcpu/internal.h"

/* MTRRs describe physical memory. */
#define PHYSICAL_PAGES (((1ull << VCPU_PHYSICAL_BITS) - 1) & ~(uint64_t)PAGE_MASK)
#define MTRR_CAP_VALUE 0x508 /* write combining, fixed ranges, eight variable ones */
#define MTRR_MASK_V    0x800ull

/* ---- what a value must be beside its bits -------------------------------------------------------------- */

static bool is_memory_type(unsigned type) /* UC, WC, WT, WP, WB */
{
    return type == 0 || type == 1 || (type >= 4 && type <= 6);
}

static bool is_low_byte_memory_type(uint64_t value)
{
    return is_memory_type(value & 0xff);
}

static bool are_memory_types(uint64_t value)
{
    for (unsigned shift = 0; shift < 64; shift += 8) {
        if (!is_memory_type(value >> shift & 0xff))
            return false;
    }
    return true;
}

static bool are_pat_types(uint64_t value) /* as the MTRRs', and 7: UC- */
{
    for (unsigned shift = 0; shift < 64; shift += 8) {
        unsigned type = value >> shift & 0xff;

        if (type != 7 && !is_memory_type(type))
            return false;
    }
    return true;
}

/* ---- the table ----------------------------------------------------------------------------------------- */

enum msr_kind {
    MSR_STORED,   /* a uint64_t of struct vcpu */
    MSR_CONSTANT, /* reads as `constant`; a write is #GP */
    MSR_IGNORING, /* reads as `constant`; a write does nothing */
    MSR_COUNTER,  /* the TSC: stored as the distance from the machine's */
};

struct msr {
    uint32_t index;
    uint8_t kind;
    bool is_apic_base, is_efer, is_clock;
    uint16_t offset;                  /* in struct vcpu */
    uint64_t constant;                /* what reads show, or what a write cannot change */
    uint64_t writable;                /* other bits must be as they are: #GP */
    uint64_t ignored;                 /* of those, bits that may be anything */
    bool (*is_valid)(uint64_t value); /* NULL: any */
};

#define STORED(member) .kind = MSR_STORED, .offset = offsetof(struct vcpu, msr.member)
#define HIGH_HALF      0xffffffff00000000ull
#define MTRR_PAIR(n)                                                                                         \
    {.index = MSR_MTRR_PHYS_BASE + 2 * (n),                                                                  \
     STORED(mtrr_variable[2 * (n)]),                                                                         \
     .writable = PHYSICAL_PAGES | 0xff,                                                                      \
     .is_valid = is_low_byte_memory_type},                                                                   \
    {                                                                                                        \
        .index = MSR_MTRR_PHYS_BASE + 2 * (n) + 1, STORED(mtrr_variable[2 * (n) + 1]),                       \
        .writable = PHYSICAL_PAGES | MTRR_MASK_V                                                             \
    }
#define MTRR_FIXED(msr, n)                                                                                   \
    {                                                                                                        \
        .index = (msr), STORED(mtrr_fixed[n]), .writable = ~0ull, .is_valid = are_memory_types               \
    }
/* Of the address KVM checks no more than this. */
#define KVM_CLOCK(msr, member, reserved)                                                                     \
    {                                                                                                        \
        .index = (msr), STORED(member), .writable = ~(uint64_t)(reserved), .is_clock = true                  \
    }

static const struct msr msrs[] = {
    {.index = MSR_TSC, .kind = MSR_COUNTER},
    {.index = MSR_PLATFORM_ID, .kind = MSR_CONSTANT},
    {.index = MSR_APIC_BASE,
     STORED(apic_base),
     .writable = PHYSICAL_PAGES | APIC_BASE_ENABLE,
     .is_apic_base = true},
    {.index = MSR_BIOS_SIGN_ID, .kind = MSR_IGNORING}, /* the microcode revision; none */
    /* The segment is a selector; of the pointers a 32-bit processor has only the low halves. */
    {.index = MSR_SYSENTER_CS, STORED(sysenter_cs), .writable = 0xffffffff, .ignored = HIGH_HALF},
    {.index = MSR_SYSENTER_ESP, STORED(sysenter_esp), .writable = 0xffffffff, .ignored = HIGH_HALF},
    {.index = MSR_SYSENTER_EIP, STORED(sysenter_eip), .writable = 0xffffffff, .ignored = HIGH_HALF},
    {.index = MSR_MISC_ENABLE,
     STORED(misc_enable),
     .writable = MISC_ENABLE_FAST_STRINGS | MISC_ENABLE_LIMIT_CPUID},
    {.index = MSR_MTRR_CAP, .kind = MSR_CONSTANT, .constant = MTRR_CAP_VALUE},
    MTRR_PAIR(0),
    MTRR_PAIR(1),
    MTRR_PAIR(2),
    MTRR_PAIR(3),
    MTRR_PAIR(4),
    MTRR_PAIR(5),
    MTRR_PAIR(6),
    MTRR_PAIR(7),
    MTRR_FIXED(MSR_MTRR_FIX_64K, 0),
    MTRR_FIXED(MSR_MTRR_FIX_16K_0, 1),
    MTRR_FIXED(MSR_MTRR_FIX_16K_1, 2),
    MTRR_FIXED(MSR_MTRR_FIX_4K_0, 3),
    MTRR_FIXED(MSR_MTRR_FIX_4K_0 + 1, 4),
    MTRR_FIXED(MSR_MTRR_FIX_4K_0 + 2, 5),
    MTRR_FIXED(MSR_MTRR_FIX_4K_0 + 3, 6),
    MTRR_FIXED(MSR_MTRR_FIX_4K_0 + 4, 7),
    MTRR_FIXED(MSR_MTRR_FIX_4K_0 + 5, 8),
    MTRR_FIXED(MSR_MTRR_FIX_4K_0 + 6, 9),
    MTRR_FIXED(MSR_MTRR_FIX_4K_0 + 7, 10),
    {.index = MSR_EFER, STORED(efer), .writable = EFER_NXE, .is_efer = true},
    {.index = MSR_PAT, STORED(pat), .writable = ~0ull, .is_valid = are_pat_types},
    {.index = MSR_MTRR_DEF_TYPE,
     STORED(mtrr_def_type),
     .writable = 0xcff,
     .is_valid = is_low_byte_memory_type},
    KVM_CLOCK(MSR_KVM_WALL_CLOCK_OLD, kvm_wall_clock, 0),
    KVM_CLOCK(MSR_KVM_SYSTEM_TIME_OLD, kvm_system_time, 0),
    KVM_CLOCK(MSR_KVM_WALL_CLOCK, kvm_wall_clock, 0),
    KVM_CLOCK(MSR_KVM_SYSTEM_TIME, kvm_system_time, 0),
    KVM_CLOCK(MSR_KVM_STEAL_TIME, kvm_steal_time, MSR_KVM_STEAL_RESERVED),
};

static const struct msr *find_msr(uint32_t index)
{
    for (size_t i = 0; i < sizeof msrs / sizeof msrs[0]; i++) {
        if (msrs[i].index == index)
            return &msrs[i];
    }
    return NULL;
}

/* ---- reading and writing ------------------------------------------------------------------------------- */

static uint64_t read_msr(struct vcpu *vcpu, const struct msr *msr)
{
    uint64_t value;

    switch (msr->kind) {
    case MSR_STORED:
        memcpy(&value, (const uint8_t *)vcpu + msr->offset, sizeof value);
        return value;
    case MSR_COUNTER:
        return vcpu->ops->tsc(vcpu) + vcpu->msr.tsc_offset;
    default:
        return msr->constant;
    }
}

static bool may_write_msr(struct vcpu *vcpu, const struct msr *msr, uint64_t value)
{
    switch (msr->kind) {
    case MSR_CONSTANT:
        return false;
    case MSR_STORED:
        return ((value ^ read_msr(vcpu, msr)) & ~msr->writable & ~msr->ignored) == 0 &&
               (msr->is_valid == NULL || msr->is_valid(value));
    default:
        return true;
    }
}

static void write_msr(struct vcpu *vcpu, const struct msr *msr, uint64_t value)
{
    switch (msr->kind) {
    case MSR_STORED:
        value &= ~msr->ignored;
        memcpy((uint8_t *)vcpu + msr->offset, &value, sizeof value);
        if (msr->is_apic_base)
            vcpu->ops->apic_base_changed(vcpu);
        if (msr->is_efer)
            vcpu->ops->paging_changed(vcpu, vcpu->cr0, vcpu->cr3, vcpu->cr4);
        if (msr->is_clock)
            vcpu->ops->clock_changed(vcpu, msr->index);
        break;
    case MSR_COUNTER:
        vcpu->msr.tsc_offset = value - vcpu->ops->tsc(vcpu);
        vcpu->ops->clock_changed(vcpu, msr->index);
        break;
    default:
        break;
    }
}

enum outcome handle_msr(struct vcpu *vcpu, const struct insn *insn)
{
    bool is_write = insn->mnemonic == ZYDIS_MNEMONIC_WRMSR;
    uint64_t value = (uint64_t)vcpu->gpr[EDX] << 32 | vcpu->gpr[EAX];
    const struct msr *msr = find_msr(vcpu->gpr[ECX]);

    if (vcpu->cpl != 0)
        return vcpu_raise_error(vcpu, EXCEPTION_GP, 0);
    if (msr == NULL) {
        vcpu->ops->unknown_msr(vcpu, vcpu->gpr[ECX], is_write, is_write ? value : 0);
        return vcpu_raise_error(vcpu, EXCEPTION_GP, 0);
    }
    if (is_write) {
        if (!may_write_msr(vcpu, msr, value))
            return vcpu_raise_error(vcpu, EXCEPTION_GP, 0);
        write_msr(vcpu, msr, value);
    } else {
        value = read_msr(vcpu, msr);
        vcpu->gpr[EAX] = (uint32_t)value;
        vcpu->gpr[EDX] = (uint32_t)(value >> 32);
    }
    return vcpu_finish(vcpu, insn);
}
