/*
 * A guest for the fake machine: descriptor tables with one of each kind of segment, a TSS, and one
 * instruction at a time. The layout is fixed so that expected values can be written down as numbers.
 */
#ifndef RING3_FAKE_GUEST_H
#define RING3_FAKE_GUEST_H

#include <check.h>
#include <stdlib.h>

#include "fake_machine.h"

enum {
    GUEST_GDT = 0x1000,
    GUEST_GDT_LIMIT = 0x1ff,
    GUEST_IDT = 0x2000,
    GUEST_TSS = 0x3000,
    GUEST_TSS_B = 0x3400, /* another 32-bit one */
    GUEST_TSS_16 = 0x3800,
    GUEST_LDT = 0x4000,
    GUEST_LDT_LIMIT = 0x1f,
    GUEST_CODE = 0x10000, /* where guest_run puts the instruction, flat */
    GUEST_STACK = 0x20000,
    GUEST_STACK0 = 0x21000, /* SS0:ESP0 of the TSS */
    GUEST_STACK1 = 0x22000,
    GUEST_USER_STACK = 0x23000,
};

/* Selectors, with the RPL they are used with. All segments are flat where nothing else is said. */
enum {
    SEL_CODE0 = 0x08,
    SEL_DATA0 = 0x10,
    SEL_CODE3 = 0x1b,
    SEL_DATA3 = 0x23,
    SEL_TSS = 0x28,
    SEL_LDT = 0x30,
    SEL_CONFORMING = 0x38,    /* DPL 0 */
    SEL_DATA_ABSENT = 0x40,   /* DPL 0, not present */
    SEL_DATA_READONLY = 0x48, /* DPL 0 */
    SEL_EXECUTE_ONLY = 0x50,  /* DPL 0 */
    SEL_CODE16 = 0x58,        /* DPL 0, limit ffff, D=0 */
    SEL_DATA16 = 0x60,        /* DPL 0, limit ffff, B=0 */
    SEL_CODE_SHORT = 0x68,    /* DPL 0, limit fff */
    SEL_CODE_ABSENT = 0x70,   /* DPL 0, not present */
    SEL_TSS_B = 0x78,
    SEL_TSS_16 = 0x80,
    SEL_CODE1 = 0x88,
    SEL_DATA1 = 0x90,
    SEL_DOWN = 0x98,       /* DPL 0, data, expand-down, limit ffff: valid above */
    SEL_DATA_SHORT = 0xa0, /* DPL 0, limit fff */
    SEL_FRESH = 0xa8,      /* DPL 0, data, never accessed */
    SEL_SPARE = 0xb0,      /* up to the test */
    SEL_BEYOND = 0x200,
    SEL_LOCAL_DATA = 0x0c, /* in the LDT: DPL 0 */
    SEL_LOCAL_BEYOND = 0x24,
};

static inline void guest_set_gdt(struct fake_machine *machine, uint16_t selector, uint32_t base,
                                 uint32_t limit, uint8_t access, uint8_t flags)
{
    fake_set_descriptor(machine, GUEST_GDT, selector, base, limit, access, flags);
}

static inline void guest_set_idt(struct fake_machine *machine, unsigned vector, uint16_t selector,
                                 uint32_t offset, uint8_t access)
{
    fake_set_gate(machine, GUEST_IDT + vector * 8, selector, offset, access, 0);
}

static inline void guest_fill_tables(struct fake_machine *machine)
{
    guest_set_gdt(machine, SEL_CODE0, 0, 0xfffff, 0x9b, 0xc);
    guest_set_gdt(machine, SEL_DATA0, 0, 0xfffff, 0x93, 0xc);
    guest_set_gdt(machine, SEL_CODE3, 0, 0xfffff, 0xfb, 0xc);
    guest_set_gdt(machine, SEL_DATA3, 0, 0xfffff, 0xf3, 0xc);
    guest_set_gdt(machine, SEL_TSS, GUEST_TSS, 0x2ff, 0x89, 0);
    guest_set_gdt(machine, SEL_LDT, GUEST_LDT, GUEST_LDT_LIMIT, 0x82, 0);
    guest_set_gdt(machine, SEL_CONFORMING, 0, 0xfffff, 0x9f, 0xc);
    guest_set_gdt(machine, SEL_DATA_ABSENT, 0, 0xfffff, 0x13, 0xc);
    guest_set_gdt(machine, SEL_DATA_READONLY, 0, 0xfffff, 0x91, 0xc);
    guest_set_gdt(machine, SEL_EXECUTE_ONLY, 0, 0xfffff, 0x99, 0xc);
    guest_set_gdt(machine, SEL_CODE16, 0, 0xffff, 0x9b, 0);
    guest_set_gdt(machine, SEL_DATA16, 0, 0xffff, 0x93, 0);
    guest_set_gdt(machine, SEL_CODE_SHORT, 0, 0xfff, 0x9b, 0x4);
    guest_set_gdt(machine, SEL_CODE_ABSENT, 0, 0xfffff, 0x1b, 0xc);
    guest_set_gdt(machine, SEL_TSS_B, GUEST_TSS_B, 0x67, 0x89, 0);
    guest_set_gdt(machine, SEL_TSS_16, GUEST_TSS_16, 0x2b, 0x81, 0);
    guest_set_gdt(machine, SEL_CODE1, 0, 0xfffff, 0xbb, 0xc);
    guest_set_gdt(machine, SEL_DATA1, 0, 0xfffff, 0xb3, 0xc);
    guest_set_gdt(machine, SEL_DOWN, 0, 0xffff, 0x97, 0x4);
    guest_set_gdt(machine, SEL_DATA_SHORT, 0, 0xfff, 0x93, 0x4);
    guest_set_gdt(machine, SEL_FRESH, 0, 0xfffff, 0x92, 0xc);
    fake_set_descriptor(machine, GUEST_LDT, SEL_LOCAL_DATA, 0x100, 0xfff, 0x93, 0x4);

    fake_write32(machine, GUEST_TSS + 4, GUEST_STACK0);
    fake_write16(machine, GUEST_TSS + 8, SEL_DATA0);
    fake_write32(machine, GUEST_TSS + 12, GUEST_STACK1);
    fake_write16(machine, GUEST_TSS + 16, SEL_DATA1 | 1);
}

/* Ring 0, flat, at GUEST_CODE, with TR and LDTR loaded. */
static inline struct vcpu *guest_reset(struct fake_machine *machine)
{
    struct vcpu *vcpu = fake_machine_reset(machine);

    guest_fill_tables(machine);
    vcpu_set_flat(vcpu, SEL_CODE0, SEL_DATA0, GUEST_CODE);
    vcpu->gdtr = (struct table_register){GUEST_GDT, GUEST_GDT_LIMIT};
    vcpu->idtr = (struct table_register){GUEST_IDT, 0x7ff};
    vcpu->tr = (struct segment){SEL_TSS, 0x8b, GUEST_TSS, 0x2ff};
    fake_write(machine, GUEST_GDT + SEL_TSS + 5, &(uint8_t){0x8b}, 1);
    vcpu->ldtr = (struct segment){SEL_LDT, 0x82, GUEST_LDT, GUEST_LDT_LIMIT};
    vcpu->gpr[ESP] = GUEST_STACK;
    return vcpu;
}

static inline void guest_enter_ring(struct vcpu *vcpu, unsigned ring)
{
    static const uint16_t code[] = {SEL_CODE0, SEL_CODE1 | 1, 0, SEL_CODE3};
    static const uint16_t data[] = {SEL_DATA0, SEL_DATA1 | 1, 0, SEL_DATA3};

    for (unsigned i = 0; i < SEG_COUNT; i++) {
        struct segment *segment = &vcpu->segment[i];

        segment->selector = i == SEG_CS ? code[ring] : data[ring];
        segment->attributes = (uint16_t)((segment->attributes & ~SEGMENT_DPL) | ring << SEGMENT_DPL_SHIFT);
    }
    vcpu->cpl = (uint8_t)ring;
    if (ring == 3)
        vcpu->gpr[ESP] = GUEST_USER_STACK;
}

static inline void guest_enter_v8086(struct vcpu *vcpu)
{
    for (unsigned i = 0; i < SEG_COUNT; i++)
        vcpu->segment[i] =
            (struct segment){.selector = 0x1000, .base = 0x10000, .limit = 0xffff, .attributes = 0xf3};
    vcpu->segment[SEG_SS] =
        (struct segment){.selector = 0x2000, .base = 0x20000, .limit = 0xffff, .attributes = 0xf3};
    vcpu->eflags |= EFLAGS_VM;
    vcpu->cpl = 3;
    vcpu->eip = 0;
    vcpu->gpr[ESP] = 0x1000;
}

static inline void guest_enter_real_mode(struct vcpu *vcpu)
{
    vcpu->cr0 &= ~CR0_PE;
    for (unsigned i = 0; i < SEG_COUNT; i++)
        vcpu->segment[i] =
            (struct segment){.selector = 0x1000, .base = 0x10000, .limit = 0xffff, .attributes = 0x93};
    vcpu->segment[SEG_SS] =
        (struct segment){.selector = 0x2000, .base = 0x20000, .limit = 0xffff, .attributes = 0x93};
    vcpu->idtr = (struct table_register){0, 0x3ff};
    vcpu->eip = 0;
    vcpu->gpr[ESP] = 0x1000;
}

/* Puts the instruction at CS:EIP, fetches and emulates it. */
static inline enum outcome guest_run_bytes(struct vcpu *vcpu, const uint8_t *bytes, unsigned n)
{
    struct fake_machine *machine = vcpu->machine;
    struct insn insn;
    enum outcome outcome;

    fake_write(machine, vcpu->segment[SEG_CS].base + vcpu->eip, bytes, n);
    outcome = vcpu_fetch(vcpu, &insn);
    if (outcome != OUTCOME_DONE)
        return outcome;
    ck_assert_uint_eq(insn.length, n);
    machine->n_writes = 0;
    return vcpu_emulate(vcpu, &insn);
}

#define GUEST_BYTES(...)                                                                                     \
    (const uint8_t[])                                                                                        \
    {                                                                                                        \
        __VA_ARGS__                                                                                          \
    }
#define guest_run(vcpu, ...)   guest_run_bytes(vcpu, GUEST_BYTES(__VA_ARGS__), sizeof GUEST_BYTES(__VA_ARGS__))
#define guest_assert_done(...) ck_assert_int_eq(guest_run(__VA_ARGS__), OUTCOME_DONE)
#define guest_le16(value)      (uint8_t)(value), (uint8_t)((value) >> 8)
#define guest_le32(value)      guest_le16(value), guest_le16((value) >> 16)

/* The instruction must fault and leave everything as it was. */
static inline void guest_check_fault(struct vcpu *vcpu, const uint8_t *bytes, unsigned n, int vector,
                                     uint32_t error)
{
    struct vcpu before;
    struct fault fault;

    memcpy(&before, vcpu, sizeof before);
    ck_assert_int_eq(guest_run_bytes(vcpu, bytes, n), OUTCOME_FAULT);
    fault = vcpu->fault;
    ck_assert_str_eq(vcpu_exception_name((unsigned)fault.vector), vcpu_exception_name((unsigned)vector));
    if (fault.has_error)
        ck_assert_uint_eq(fault.error, error);
    memcpy(&vcpu->fault, &before.fault, sizeof before.fault);
    ck_assert_mem_eq(vcpu, &before, sizeof before);
    vcpu->fault = fault;
}

#define guest_assert_fault(vcpu, vector, error, ...)                                                         \
    guest_check_fault(vcpu, GUEST_BYTES(__VA_ARGS__), sizeof GUEST_BYTES(__VA_ARGS__), vector, error)

static inline void guest_push(struct vcpu *vcpu, uint32_t value)
{
    vcpu->gpr[ESP] -= 4;
    fake_write32(vcpu->machine, vcpu->segment[SEG_SS].base + vcpu->gpr[ESP], value);
}

/* Value number `i` from the top of the stack. */
static inline uint32_t guest_stack32(const struct vcpu *vcpu, unsigned i)
{
    return fake_read32(vcpu->machine, vcpu->segment[SEG_SS].base + vcpu->gpr[ESP] + 4 * i);
}

static inline uint16_t guest_stack16(const struct vcpu *vcpu, unsigned i)
{
    return fake_read16(vcpu->machine, vcpu->segment[SEG_SS].base + (vcpu->gpr[ESP] & 0xffff) + 2 * i);
}

/* main() of a test program with one suite of one case. */
static inline int guest_run_suite(const char *name, const TTest *const *tests, size_t n)
{
    Suite *suite = suite_create(name);
    TCase *tcase = tcase_create(name);
    SRunner *runner;
    int n_failed;

    for (size_t i = 0; i < n; i++)
        tcase_add_test(tcase, tests[i]);
    suite_add_tcase(suite, tcase);
    runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    n_failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return n_failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

#endif
