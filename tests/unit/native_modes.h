/*
 * What the tests against native_oracle.h share: the kinds of code that a 64-bit host runs natively, with
 * their segments in the host's LDT and in the virtual processor, and random numbers.
 */
#ifndef RING3_NATIVE_MODES_H
#define RING3_NATIVE_MODES_H

#include "fake_machine.h"
#include "native_oracle.h"

/* 16-bit segments, with limits in sight of every offset. An LDT selector has bit 2 set. */
#define CODE16                                                                                               \
    {                                                                                                        \
        .selector = 0x07, .base = ORACLE_CODE, .limit = ORACLE_CODE_SIZE - 1, .is_code = true                \
    }
#define DATA16                                                                                               \
    {                                                                                                        \
        .selector = 0x0f, .base = ORACLE_DATA, .limit = ORACLE_DATA_SIZE - 1                                 \
    }
/* Offsets 1000 to ffff, of which the last 4 KiB are memory. */
#define DOWN16                                                                                               \
    {                                                                                                        \
        .selector = 0x0f, .base = ORACLE_DATA + ORACLE_DATA_SIZE - 0x10000, .limit = 0xefff, .is_down = true \
    }
#define DATA32                                                                                               \
    {                                                                                                        \
        .selector = 0x17, .base = ORACLE_DATA, .limit = ORACLE_DATA_SIZE - 1, .is_32bit = true               \
    }
#define FLAT(selector_, is_code_)                                                                            \
    {                                                                                                        \
        .selector = (selector_), .limit = 0xffffffff, .is_32bit = true, .is_code = (is_code_)                \
    }

static const struct mode {
    const char *name;
    struct oracle_segment code, data, stack;
} modes[] = {
    {"flat 32-bit code", FLAT(ORACLE_USER_CS, true), FLAT(ORACLE_USER_DS, false),
     FLAT(ORACLE_USER_DS, false)},
    {"16-bit code", CODE16, DATA16, DATA16},
    {"16-bit code, expand-down data and stack", CODE16, DOWN16, DOWN16},
    {"16-bit code, 32-bit stack", CODE16, DATA16, DATA32},
    {"32-bit code, 16-bit stack", FLAT(ORACLE_USER_CS, true), FLAT(ORACLE_USER_DS, false), DATA16},
};

static const struct mode *mode = modes;
static struct fake_machine machine;
static uint64_t seed = 1;

static uint32_t random32(void)
{
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(seed >> 32);
}

static bool one_in(unsigned n)
{
    return random32() % n == 0;
}

/* ---- registers ----------------------------------------------------------------------------------------- */

/* Offsets in and around 8 KiB, with whatever above them. */
static uint32_t random_offset(void)
{
    uint32_t high = one_in(2) ? 0 : random32() << 16;

    switch (random32() % 6) {
    case 0:
        return random32();
    case 1:
        return high | random32() % 40;
    case 2:
        return high | (-(random32() % 40) & 0xffff);
    case 3:
        return high | (ORACLE_DATA_SIZE - 20 + random32() % 40);
    case 4:
        return high | (0xf000 + random32() % 0x1000);
    default:
        return high | random32() % ORACLE_DATA_SIZE;
    }
}

static uint32_t random_register(void)
{
    if (mode->data.base != 0)
        return random_offset();
    switch (random32() % 6) {
    case 0:
        return random32();
    case 1:
        return random32() % 40;
    case 2:
        return -(random32() % 40);
    case 3:
        return ORACLE_DATA + random32() % ORACLE_DATA_SIZE;
    default:
        return ORACLE_DATA + 0x400 + random32() % (ORACLE_DATA_SIZE - 0x800) / 16 * 16;
    }
}

/* ---- both processors ----------------------------------------------------------------------------------- */

static struct segment segment_of(const struct oracle_segment *segment)
{
    uint16_t attributes = SEGMENT_P | SEGMENT_S | SEGMENT_DPL | SEGMENT_WRITABLE | SEGMENT_ACCESSED;

    if (segment->is_read_only) /* the bit of writable data is that of readable code */
        attributes &= ~SEGMENT_WRITABLE;
    if (segment->is_absent)
        attributes &= ~SEGMENT_P;
    if (segment->is_code)
        attributes |= SEGMENT_CODE;
    if (segment->is_down)
        attributes |= SEGMENT_DOWN;
    if (segment->is_32bit)
        attributes |= SEGMENT_DB;
    return (struct segment){segment->selector, attributes, segment->base, segment->limit};
}

/* False: the host does not have such segments. */
static bool set_up_oracle(void)
{
    const struct oracle_segment *const segments[] = {&mode->code, &mode->data, &mode->stack};

    for (size_t i = 0; i < sizeof segments / sizeof segments[0]; i++)
        if ((segments[i]->selector & SELECTOR_TI) && !oracle_make_segment(segments[i]))
            return false;
    oracle_code_selector = mode->code.selector;
    oracle_data_selector = mode->data.selector;
    oracle_stack_selector = mode->stack.selector;
    return true;
}

static void set_up_machine(void)
{
    struct vcpu *vcpu = fake_machine_reset(&machine);

    vcpu_set_flat(vcpu, 0x1b, 0x23, ORACLE_INSN);
    for (unsigned i = 0; i < SEG_COUNT; i++)
        vcpu->segment[i] = segment_of(&mode->data);
    vcpu->segment[SEG_CS] = segment_of(&mode->code);
    vcpu->segment[SEG_SS] = segment_of(&mode->stack);
    vcpu->cpl = 3;
    vcpu->cr0 |= CR0_NE | CR0_MP; /* as Linux runs its processes */
    vcpu->cr4 = CR4_OSFXSR | CR4_OSXMMEXCPT;
    memset(machine.rights, 0, sizeof machine.rights);
    for (uint32_t address = ORACLE_CODE; address < ORACLE_CODE + ORACLE_CODE_SIZE; address += PAGE_SIZE)
        fake_set_rights(&machine, address, FAKE_ALL_RIGHTS);
    for (uint32_t address = ORACLE_DATA; address < ORACLE_DATA + ORACLE_DATA_SIZE; address += PAGE_SIZE)
        fake_set_rights(&machine, address, FAKE_ALL_RIGHTS);
}

/* Across 4 GiB a flat segment wraps or faults: SDM Vol 3A 5.3 leaves it to the model. */
static bool is_wrapping_access(const struct oracle_state *native, const struct oracle_state *ours)
{
    return (native->vector == EXCEPTION_GP || native->vector == EXCEPTION_SS) &&
           ours->vector == EXCEPTION_PF && ours->cr2 > -16u;
}

#endif
