/* RDMSR, WRMSR and CPUID: the profile of docs/cpuid.md. */
#include "fake_guest.h"

static struct fake_machine machine;

#define RDMSR 0x0f, 0x32
#define WRMSR 0x0f, 0x30
#define CPUID 0x0f, 0xa2

static uint64_t read_msr(struct vcpu *vcpu, uint32_t index)
{
    vcpu->gpr[ECX] = index;
    guest_assert_done(vcpu, RDMSR);
    return (uint64_t)vcpu->gpr[EDX] << 32 | vcpu->gpr[EAX];
}

static void set_operands(struct vcpu *vcpu, uint32_t index, uint64_t value)
{
    vcpu->gpr[ECX] = index;
    vcpu->gpr[EAX] = (uint32_t)value;
    vcpu->gpr[EDX] = (uint32_t)(value >> 32);
}

START_TEST(msrs_are_for_cpl_0)
{
    struct vcpu *vcpu = guest_reset(&machine);

    guest_enter_ring(vcpu, 3);
    vcpu->gpr[ECX] = MSR_TSC;
    guest_assert_fault(vcpu, EXCEPTION_GP, 0, RDMSR);
    guest_assert_fault(vcpu, EXCEPTION_GP, 0, WRMSR);
    ck_assert_uint_eq(machine.n_unknown_msrs, 0);
}
END_TEST

START_TEST(an_unknown_msr_faults_and_is_reported)
{
    struct vcpu *vcpu = guest_reset(&machine);

    vcpu->gpr[ECX] = 0xc0000081; /* STAR: the profile has no SYSCALL */
    guest_assert_fault(vcpu, EXCEPTION_GP, 0, RDMSR);
    guest_assert_fault(vcpu, EXCEPTION_GP, 0, WRMSR);
    ck_assert_uint_eq(machine.n_unknown_msrs, 2);
    ck_assert_uint_eq(machine.unknown_msr, 0xc0000081);
}
END_TEST

START_TEST(msrs_hold_what_they_may)
{
    static const struct {
        uint32_t index;
        uint64_t written, read;
    } cases[] = {
        {MSR_SYSENTER_CS, 0x60, 0x60},
        {MSR_SYSENTER_ESP, 0xfffffffff0000000, 0xf0000000}, /* the upper half does not exist */
        {MSR_SYSENTER_EIP, 0xc0100000, 0xc0100000},
        {MSR_MTRR_PHYS_BASE, 0xfd0000006, 0xfd0000006},
        {MSR_MTRR_PHYS_BASE + 15, 0xff0000800, 0xff0000800},
        {MSR_MTRR_FIX_64K, 0x0605040106050401, 0x0605040106050401},
        {MSR_MTRR_FIX_4K_0 + 7, 0x0505050505050505, 0x0505050505050505},
        {MSR_MTRR_DEF_TYPE, 0xc06, 0xc06},
        {MSR_PAT, 0x0007010600070106, 0x0007010600070106},
        {MSR_BIOS_SIGN_ID, 0x1234, 0}, /* no microcode: a write is how software asks */
        {MSR_MISC_ENABLE, 0x400000, 0x400000},
        {MSR_EFER, EFER_NXE, EFER_NXE},
    };

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct vcpu *vcpu = guest_reset(&machine);

        set_operands(vcpu, cases[i].index, cases[i].written);
        guest_assert_done(vcpu, WRMSR);
        ck_assert_uint_eq(read_msr(vcpu, cases[i].index), cases[i].read);
    }
}
END_TEST

START_TEST(msrs_refuse_what_they_must)
{
    static const struct {
        uint32_t index;
        uint64_t value;
    } cases[] = {
        {MSR_MTRR_CAP, 0x508},                    /* read-only */
        {MSR_PLATFORM_ID, 0},                     /* read-only */
        {MSR_MTRR_PHYS_BASE, 0x1000000000},       /* beyond 36 bits */
        {MSR_MTRR_PHYS_BASE, 0x2},                /* no such memory type */
        {MSR_MTRR_PHYS_BASE + 1, 0x400},          /* reserved */
        {MSR_MTRR_FIX_16K_0, 0x0600000000000007}, /* UC- is for the PAT */
        {MSR_MTRR_DEF_TYPE, 0x1006},              /* reserved */
        {MSR_PAT, 0x0000000000000002},            /* no such memory type */
        {MSR_APIC_BASE, 0xfee00c00 | 0x100},      /* x2APIC */
        {MSR_APIC_BASE, 0xfee00800},              /* BSP is read-only */
        {MSR_MISC_ENABLE, 0x100000001},           /* reserved */
        {MSR_EFER, EFER_NXE | 1},                 /* SYSCALL */
        {MSR_EFER, 0x100},                        /* long mode */
    };

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct vcpu *vcpu = guest_reset(&machine);

        set_operands(vcpu, cases[i].index, cases[i].value);
        ck_assert_msg(guest_run(vcpu, WRMSR) == OUTCOME_FAULT, "case %zu", i);
        ck_assert_int_eq(vcpu->fault.vector, EXCEPTION_GP);
        ck_assert_uint_eq(machine.n_unknown_msrs, 0);
    }
}
END_TEST

START_TEST(mtrr_cap_says_what_there_is)
{
    struct vcpu *vcpu = guest_reset(&machine);

    ck_assert_uint_eq(read_msr(vcpu, MSR_MTRR_CAP), 0x508);
}
END_TEST

START_TEST(the_apic_hears_of_its_base)
{
    struct vcpu *vcpu = guest_reset(&machine);

    ck_assert_uint_eq(read_msr(vcpu, MSR_APIC_BASE), 0xfee00900);
    set_operands(vcpu, MSR_APIC_BASE, 0xfed00900);
    guest_assert_done(vcpu, WRMSR);
    ck_assert_uint_eq(machine.n_apic_base_changes, 1);
    ck_assert_uint_eq(vcpu->msr.apic_base, 0xfed00900);
}
END_TEST

START_TEST(paging_hears_of_efer)
{
    struct vcpu *vcpu = guest_reset(&machine);

    set_operands(vcpu, MSR_EFER, EFER_NXE);
    guest_assert_done(vcpu, WRMSR);
    ck_assert_uint_eq(machine.n_paging_changes, 1);
}
END_TEST

START_TEST(the_tsc_can_be_set)
{
    struct vcpu *vcpu = guest_reset(&machine);

    machine.tsc = 1000;
    set_operands(vcpu, MSR_TSC, 0x500000000);
    guest_assert_done(vcpu, WRMSR);
    machine.tsc = 1010;
    ck_assert_uint_eq(read_msr(vcpu, MSR_TSC), 0x50000000a);
    guest_assert_done(vcpu, 0x0f, 0x31); /* rdtsc */
    ck_assert_uint_eq(vcpu->gpr[EAX], 0xa);
    ck_assert_uint_eq(vcpu->gpr[EDX], 5);
    ck_assert_uint_eq(machine.n_clock_changes, 1);
    ck_assert_uint_eq(machine.clock_msr, MSR_TSC);
}
END_TEST

START_TEST(the_clock_hears_of_its_msrs)
{
    static const struct {
        uint32_t index, other;
    } cases[] = {{MSR_KVM_WALL_CLOCK, MSR_KVM_WALL_CLOCK_OLD},
                 {MSR_KVM_WALL_CLOCK_OLD, MSR_KVM_WALL_CLOCK},
                 {MSR_KVM_SYSTEM_TIME, MSR_KVM_SYSTEM_TIME_OLD},
                 {MSR_KVM_SYSTEM_TIME_OLD, MSR_KVM_SYSTEM_TIME},
                 {MSR_KVM_STEAL_TIME, MSR_KVM_STEAL_TIME}};
    struct vcpu *vcpu = guest_reset(&machine);

    for (unsigned i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        uint64_t value = 0x100001001 + ((uint64_t)i << 12);

        ck_assert_uint_ne(read_msr(vcpu, cases[i].index), value);
        set_operands(vcpu, cases[i].index, value);
        guest_assert_done(vcpu, WRMSR);
        ck_assert_uint_eq(machine.n_clock_changes, i + 1);
        ck_assert_uint_eq(machine.clock_msr, cases[i].index);
        ck_assert_uint_eq(read_msr(vcpu, cases[i].other), value);
    }
}
END_TEST

START_TEST(the_record_of_stolen_time_is_aligned)
{
    struct vcpu *vcpu = guest_reset(&machine);

    for (uint64_t bit = 2; bit <= 0x20; bit <<= 1) {
        set_operands(vcpu, MSR_KVM_STEAL_TIME, 0x1000 | bit | MSR_KVM_ENABLED);
        guest_assert_fault(vcpu, EXCEPTION_GP, 0, WRMSR);
    }
    ck_assert_uint_eq(machine.n_clock_changes, 0);
    ck_assert_uint_eq(read_msr(vcpu, MSR_KVM_STEAL_TIME), 0);
    set_operands(vcpu, MSR_KVM_SYSTEM_TIME, 0x1003); /* KVM lets the others be anywhere */
    guest_assert_done(vcpu, WRMSR);
}
END_TEST

/* ---- CPUID --------------------------------------------------------------------------------------------- */

static void cpuid(struct vcpu *vcpu, uint32_t leaf)
{
    vcpu->gpr[EAX] = leaf;
    guest_assert_done(vcpu, CPUID);
}

START_TEST(cpuid_names_the_vendor_and_the_hypervisor)
{
    struct vcpu *vcpu = guest_reset(&machine);
    char text[49] = "";

    guest_enter_ring(vcpu, 3);
    cpuid(vcpu, 0);
    ck_assert_uint_eq(vcpu->gpr[EAX], 2);
    memcpy(text, &vcpu->gpr[EBX], 4);
    memcpy(text + 4, &vcpu->gpr[EDX], 4);
    memcpy(text + 8, &vcpu->gpr[ECX], 4);
    ck_assert_str_eq(text, "GenuineIntel");

    memset(text, 0, sizeof text);
    cpuid(vcpu, 0x40000000);
    memcpy(text, &vcpu->gpr[EBX], 4);
    memcpy(text + 4, &vcpu->gpr[ECX], 4);
    memcpy(text + 8, &vcpu->gpr[EDX], 4);
    ck_assert_str_eq(text, "KVMKVMKVM");
    ck_assert_uint_eq(vcpu->gpr[EAX], 0x40000001);

    memset(text, 0, sizeof text);
    for (uint32_t i = 0; i < 3; i++) {
        static const enum gpr_index order[] = {EAX, EBX, ECX, EDX};

        cpuid(vcpu, 0x80000002 + i);
        for (unsigned j = 0; j < 4; j++)
            memcpy(text + (size_t)16 * i + (size_t)4 * j, &vcpu->gpr[order[j]], 4);
    }
    ck_assert_str_eq(text, "ring3 virtual i686 processor");
}
END_TEST

START_TEST(cpuid_features_are_the_profile)
{
    struct vcpu *vcpu = guest_reset(&machine);

    cpuid(vcpu, 1);
    ck_assert_uint_eq(vcpu->gpr[EAX], 0x000106ca);
    ck_assert_uint_eq(vcpu->gpr[EBX], 0x00000800);
    ck_assert_uint_eq(vcpu->gpr[ECX], 0x80000000);
    ck_assert_uint_eq(vcpu->gpr[EDX], 0x0789bb79);
    cpuid(vcpu, 0x40000001); /* KVM's: clock sources, stable; no I/O delay; stolen time */
    ck_assert_uint_eq(vcpu->gpr[EAX], 0x0100002b);
    ck_assert_uint_eq(vcpu->gpr[EDX], 0);
    cpuid(vcpu, 0x80000001);
    ck_assert_uint_eq(vcpu->gpr[EDX], 0x00100000);
    cpuid(vcpu, 0x80000008);
    ck_assert_uint_eq(vcpu->gpr[EAX], 0x2024);
}
END_TEST

START_TEST(a_disabled_apic_is_not_listed)
{
    struct vcpu *vcpu = guest_reset(&machine);

    vcpu->msr.apic_base &= ~(uint64_t)APIC_BASE_ENABLE;
    cpuid(vcpu, 1);
    ck_assert_uint_eq(vcpu->gpr[EDX] & 0x200, 0);
}
END_TEST

START_TEST(a_missing_leaf_answers_as_the_last_basic_one)
{
    struct vcpu *vcpu = guest_reset(&machine);

    cpuid(vcpu, 0x7);
    ck_assert_uint_eq(vcpu->gpr[EAX], 1);
    ck_assert_uint_eq(vcpu->gpr[EBX], 0);
    cpuid(vcpu, 0x80000009);
    ck_assert_uint_eq(vcpu->gpr[EAX], 1);
}
END_TEST

int main(void)
{
    const TTest *tests[] = {
        msrs_are_for_cpl_0,
        an_unknown_msr_faults_and_is_reported,
        msrs_hold_what_they_may,
        msrs_refuse_what_they_must,
        mtrr_cap_says_what_there_is,
        the_apic_hears_of_its_base,
        paging_hears_of_efer,
        the_tsc_can_be_set,
        the_clock_hears_of_its_msrs,
        the_record_of_stolen_time_is_aligned,
        cpuid_names_the_vendor_and_the_hypervisor,
        cpuid_features_are_the_profile,
        a_disabled_apic_is_not_listed,
        a_missing_leaf_answers_as_the_last_basic_one,
    };

    return guest_run_suite("msr_cpuid", tests, sizeof tests / sizeof tests[0]);
}
