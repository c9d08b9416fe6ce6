/*
 * CPUID: one fixed processor on every host, so that a guest takes the same paths everywhere and a trace
 * compares. What each choice is for stands in docs/cpuid.md; the bits are exactly those whose instructions
 * decode/profile.c admits and whose registers control.c and msr.c have.
 *
 * Read next: ordinary.c.
 */
#include "vcpu/internal.h"

/* Leaf 1, EDX */
#define FEATURE_FPU   0x00000001u
#define FEATURE_PSE   0x00000008u
#define FEATURE_TSC   0x00000010u
#define FEATURE_MSR   0x00000020u
#define FEATURE_PAE   0x00000040u
#define FEATURE_CX8   0x00000100u
#define FEATURE_APIC  0x00000200u
#define FEATURE_SEP   0x00000800u
#define FEATURE_MTRR  0x00001000u
#define FEATURE_PGE   0x00002000u
#define FEATURE_CMOV  0x00008000u
#define FEATURE_PAT   0x00010000u
#define FEATURE_CLFSH 0x00080000u
#define FEATURE_MMX   0x00800000u
#define FEATURE_FXSR  0x01000000u
#define FEATURE_SSE   0x02000000u
#define FEATURE_SSE2  0x04000000u
/* Leaf 80000001H, EDX */
#define FEATURE_NX 0x00100000u
/* Leaf 1, ECX */
#define FEATURE_HYPERVISOR 0x80000000u

/* Leaf 40000001H, EAX (kernel Documentation/virt/kvm/x86/cpuid.rst) */
#define KVM_CLOCKSOURCE        0x00000001u /* the MSRs 11H and 12H */
#define KVM_NOP_IO_DELAY       0x00000002u /* no delays between accesses to ports */
#define KVM_CLOCKSOURCE2       0x00000008u /* the MSRs 4B564D00H and 4B564D01H */
#define KVM_STEAL_TIME         0x00000020u
#define KVM_CLOCKSOURCE_STABLE 0x01000000u /* the flag of that name in the record may be believed */

#define KVM_FEATURES                                                                                         \
    (KVM_CLOCKSOURCE | KVM_NOP_IO_DELAY | KVM_CLOCKSOURCE2 | KVM_STEAL_TIME | KVM_CLOCKSOURCE_STABLE)

#define FEATURES                                                                                             \
    (FEATURE_FPU | FEATURE_PSE | FEATURE_TSC | FEATURE_MSR | FEATURE_PAE | FEATURE_CX8 | FEATURE_APIC |      \
     FEATURE_SEP | FEATURE_MTRR | FEATURE_PGE | FEATURE_CMOV | FEATURE_PAT | FEATURE_CLFSH | FEATURE_MMX |   \
     FEATURE_FXSR | FEATURE_SSE | FEATURE_SSE2)

/* Leaf 1, EBX: CLFLUSH works on 8 quadwords; APIC ID 0, no brand index, one logical processor. */
#define CLFLUSH_LINE 0x00000800u

/* Four characters as CPUID returns them: the first one lowest. */
#define TEXT(a, b, c, d) ((uint32_t)(a) | (uint32_t)(b) << 8 | (uint32_t)(c) << 16 | (uint32_t)(d) << 24)

/* Leaf 80000008H, EAX, beside the physical ones */
#define LINEAR_BITS 32

struct cpuid_leaf {
    uint32_t leaf;
    uint32_t eax, ebx, ecx, edx;
};

#define LEAF_FEATURES   1u
#define LEAF_LAST_BASIC 2u

static const struct cpuid_leaf leaves[] = {
    /* The order of the vendor's parts is EBX, EDX, ECX: "Genu" "ineI" "ntel". */
    {0, LEAF_LAST_BASIC, TEXT('G', 'e', 'n', 'u'), TEXT('n', 't', 'e', 'l'), TEXT('i', 'n', 'e', 'I')},
    {LEAF_FEATURES, VCPU_SIGNATURE, CLFLUSH_LINE, FEATURE_HYPERVISOR, FEATURES},
    {LEAF_LAST_BASIC, 0x00000001, 0, 0, 0}, /* caches and TLBs: nothing is said (null descriptors) */
    /* The hypervisor's own range, by convention: EBX, ECX, EDX. The name says whose conventions are meant. */
    {0x40000000, 0x40000001, TEXT('K', 'V', 'M', 'K'), TEXT('V', 'M', 'K', 'V'), TEXT('M', 0, 0, 0)},
    {0x40000001, KVM_FEATURES, 0, 0, 0},
    {0x80000000, 0x80000008, 0, 0, 0},
    {0x80000001, 0, 0, 0, FEATURE_NX},
    {0x80000002, TEXT('r', 'i', 'n', 'g'), TEXT('3', ' ', 'v', 'i'), TEXT('r', 't', 'u', 'a'),
     TEXT('l', ' ', 'i', '6')},
    {0x80000003, TEXT('8', '6', ' ', 'p'), TEXT('r', 'o', 'c', 'e'), TEXT('s', 's', 'o', 'r'), 0},
    {0x80000004, 0, 0, 0, 0},
    {0x80000005, 0, 0, 0, 0},
    {0x80000006, 0, 0, 0, 0},
    {0x80000007, 0, 0, 0, 0},
    {0x80000008, VCPU_PHYSICAL_BITS | LINEAR_BITS << 8, 0, 0, 0},
};

uint32_t vcpu_cpuid_signature(void)
{
    return VCPU_SIGNATURE;
}

uint32_t vcpu_cpuid_features(void)
{
    return FEATURES;
}

/* A leaf that does not exist answers as the last basic one does (SDM Vol 2A, CPUID: "input EAX is out of
 * range"). */
static const struct cpuid_leaf *find_leaf(uint32_t leaf)
{
    const struct cpuid_leaf *last_basic = NULL;

    for (size_t i = 0; i < sizeof leaves / sizeof leaves[0]; i++) {
        if (leaves[i].leaf == leaf)
            return &leaves[i];
        if (leaves[i].leaf == LEAF_LAST_BASIC)
            last_basic = &leaves[i];
    }
    return last_basic;
}

enum outcome handle_cpuid(struct vcpu *vcpu, const struct insn *insn)
{
    const struct cpuid_leaf *leaf = find_leaf(vcpu->gpr[EAX]);
    uint32_t edx = leaf->edx;

    /* A local APIC that is switched off is not there (SDM Vol 3A 10.4.3). */
    if (leaf->leaf == LEAF_FEATURES && !(vcpu->msr.apic_base & APIC_BASE_ENABLE))
        edx &= ~FEATURE_APIC;
    vcpu->gpr[EAX] = leaf->eax;
    vcpu->gpr[EBX] = leaf->ebx;
    vcpu->gpr[ECX] = leaf->ecx;
    vcpu->gpr[EDX] = edx;
    return vcpu_finish(vcpu, insn);
}
