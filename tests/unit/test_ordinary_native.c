/*
 * Ordinary and FPU instructions against the CPU: random ones, of every opcode, prefix and operand form, run
 * once by vcpu_emulate on the fake machine and once natively in compatibility mode (native_oracle.h), in flat
 * 32-bit code, in 16-bit code, and in what lies between. Registers, flags, FPU state, memory, and how it
 * ended, must be the same.
 *
 *     test_ordinary_native [SEED [ROUNDS]]     other instructions than the test suite's
 */
#include <Zydis/Zydis.h>
#include <check.h>
#include <inttypes.h>
#include <stdlib.h>

#include "native_modes.h"

static unsigned rounds = 16;

/* ---- the instruction ----------------------------------------------------------------------------------- */

struct form {
    uint8_t map, opcode, prefix;
};

/* Random operands; the decoder says where it ends. */
static bool make_insn(struct form form, struct insn *insn)
{
    static const uint8_t minor_prefixes[] = {0x67, 0x66, 0x26, 0x2e, 0x36, 0x3e, 0xf0, 0xf2, 0xf3};
    uint8_t bytes[INSN_MAX_LENGTH];
    unsigned n = 0;

    if (one_in(8))
        bytes[n++] = minor_prefixes[random32() % sizeof minor_prefixes];
    if (form.prefix != 0)
        bytes[n++] = form.prefix;
    if (form.map == 1)
        bytes[n++] = 0x0f;
    bytes[n++] = form.opcode;
    while (n < sizeof bytes)
        bytes[n++] = one_in(4) ? (uint8_t)(random32() & 7) : (uint8_t)random32();
    return decode_insn(bytes, sizeof bytes, mode->code.is_32bit ? 4 : 2, insn) == DECODE_OK;
}

static bool is_sensitive(const struct insn *insn)
{
    return insn->sensitive != NULL && insn->sensitive->handler != HANDLE_fpu;
}

static bool has_prefix(const struct insn *insn, uint8_t prefix)
{
    return memchr(insn->bytes, prefix, insn->opcode_offset) != NULL;
}

/* Instructions of which the CPU's answer is that of its model, or of the test process. */
static bool is_beyond_oracle(const struct insn *insn)
{
    for (unsigned i = 0; i < insn->n_operands; i++) {
        const struct operand *operand = &insn->operand[i];

        if (operand->kind == OPERAND_MEMORY && operand->mem.segment >= SEG_FS) /* the test's own TLS */
            return true;
        if (operand->kind == OPERAND_RELATIVE &&
            ((insn->length + (uint32_t)operand->immediate) &
             (insn->operand_size == 2 ? 0xffff : 0xffffffff)) < insn->length) /* a loop without end */
            return true;
    }
    switch (insn->mnemonic) {
    case ZYDIS_MNEMONIC_FNSTENV: /* code and data pointers: some models do not keep them */
    case ZYDIS_MNEMONIC_FNSAVE:
    case ZYDIS_MNEMONIC_FXSAVE:
        return true;
    case ZYDIS_MNEMONIC_BSF: /* TZCNT and LZCNT, where the host has them */
    case ZYDIS_MNEMONIC_BSR:
    case ZYDIS_MNEMONIC_LOOPE: /* on some models the prefix decides, not the opcode */
    case ZYDIS_MNEMONIC_LOOPNE:
        return has_prefix(insn, 0xf3) || has_prefix(insn, 0xf2);
    case ZYDIS_MNEMONIC_NOP: /* 0F 0D with a register: NOP (Intel) or #UD (AMD) */
        return insn->opcode_map == 1 && insn->opcode == 0x0d;
    default:
        return false;
    }
}

/* Flags that the SDM leaves undefined, of the instructions that bit.c and decimal.c compute. */
static uint32_t undefined_flags(const struct insn *insn)
{
    switch (insn->mnemonic) {
    case ZYDIS_MNEMONIC_DAA:
    case ZYDIS_MNEMONIC_DAS:
        return EFLAGS_OF;
    case ZYDIS_MNEMONIC_AAA:
    case ZYDIS_MNEMONIC_AAS:
        return EFLAGS_OF | EFLAGS_SF | EFLAGS_ZF | EFLAGS_PF;
    case ZYDIS_MNEMONIC_AAM:
    case ZYDIS_MNEMONIC_AAD:
        return EFLAGS_OF | EFLAGS_AF | EFLAGS_CF;
    case ZYDIS_MNEMONIC_BT:
    case ZYDIS_MNEMONIC_BTS:
    case ZYDIS_MNEMONIC_BTR:
    case ZYDIS_MNEMONIC_BTC:
        return EFLAGS_OF | EFLAGS_SF | EFLAGS_AF | EFLAGS_PF;
    default:
        return 0;
    }
}

/* ---- the state before ---------------------------------------------------------------------------------- */

/* Floating-point numbers of the kinds that matter, and noise. */
static void random_bytes(uint8_t *bytes, unsigned n)
{
    for (unsigned i = 0; i < n; i += 4) {
        static const uint32_t interesting[] = {0,          0x3f800000, 0x3ff00000, 0x7f800000, 0x7ff00000,
                                               0xff800001, 0x7fc00000, 0x00000001, 0x80000000, 0x00800000,
                                               0x00100000, 0x40490fdb, 0x7fefffff, 0x7f7fffff, 0x80007fff};
        uint32_t value =
            one_in(2) ? random32() : interesting[random32() % (sizeof interesting / sizeof interesting[0])];
        unsigned size = n - i < 4 ? n - i : 4;

        memcpy(bytes + i, &value, size);
    }
}

static void random_fxsave(uint8_t *fxsave)
{
    uint16_t control = one_in(4) ? (uint16_t)(0x040 | (random32() & 0xf3f)) : 0x37f;
    uint16_t status = (uint16_t)(random32() & 0x7f00);
    uint32_t mxcsr = one_in(4) ? random32() & 0xffff : 0x1f80;

    memset(fxsave, 0, 512);
    if (one_in(8))
        status |= random32() & 0x3f;
    if (status & ~control & 0x3f)
        status |= 0x8080;
    memcpy(fxsave, &control, 2);
    memcpy(fxsave + 2, &status, 2);
    fxsave[4] = one_in(2) ? 0xff : (uint8_t)random32();
    memcpy(fxsave + 24, &mxcsr, 4);
    for (unsigned i = 0; i < 8; i++) {
        uint8_t *number = fxsave + 32 + 16 * (size_t)i;

        random_bytes(number, 10);
        if (!one_in(4)) { /* a plain one */
            uint16_t exponent = (uint16_t)(0x3fff - 20 + random32() % 60 + (one_in(2) ? 0x8000 : 0));
            number[7] |= 0x80;
            memcpy(number + 8, &exponent, 2);
        }
    }
    random_bytes(fxsave + 160, 128);
}

static void make_state(struct oracle_state *state)
{
    for (unsigned i = 0; i < 8; i++)
        state->gpr[i] = random_register();
    if (!one_in(8))
        state->gpr[ESP] = ORACLE_DATA - mode->stack.base + (mode->stack.is_down ? 0x1000 : 0) + 0x800 +
                          random32() % 0x800 / 4 * 4;
    if (!mode->stack.is_32bit)
        state->gpr[ESP] = oracle_stack_high() | (state->gpr[ESP] & 0xffff);
    state->eip = ORACLE_INSN - mode->code.base;
    state->eflags = EFLAGS_FIXED | EFLAGS_IF | (random32() & 0x8d5) | (one_in(4) ? EFLAGS_DF : 0);
    random_fxsave(state->fxsave);
}

/* ---- both runs ----------------------------------------------------------------------------------------- */

static void place_insn(const struct insn *insn)
{
    memset(oracle_memory(ORACLE_CODE), 0xf4, ORACLE_CODE_SIZE);
    memcpy(oracle_memory(ORACLE_INSN), insn->bytes, insn->length);
    random_bytes(oracle_memory(ORACLE_DATA), ORACLE_DATA_SIZE);
    fake_write(&machine, ORACLE_CODE, oracle_memory(ORACLE_CODE), ORACLE_CODE_SIZE);
    fake_write(&machine, ORACLE_DATA, oracle_memory(ORACLE_DATA), ORACLE_DATA_SIZE);
}

static void emulate(const struct oracle_state *before, const struct insn *insn, struct oracle_state *after)
{
    struct vcpu *vcpu = &machine.vcpu;
    enum outcome outcome;

    memcpy(vcpu->gpr, before->gpr, sizeof vcpu->gpr);
    memcpy(vcpu->fxsave, before->fxsave, sizeof vcpu->fxsave);
    vcpu->eip = before->eip;
    vcpu->eflags = before->eflags;
    do {
        outcome = vcpu_emulate(vcpu, insn);
    } while (outcome == OUTCOME_PARTIAL);
    ck_assert_int_ne(outcome, OUTCOME_STOP);

    memset(after, 0, sizeof *after);
    memcpy(after->gpr, vcpu->gpr, sizeof vcpu->gpr);
    memcpy(after->fxsave, vcpu->fxsave, sizeof vcpu->fxsave);
    after->eip = vcpu->eip;
    after->eflags = vcpu->eflags;
    if (outcome == OUTCOME_UNKNOWN) {
        after->vector = -1;
        return;
    }
    if (outcome == OUTCOME_FAULT) {
        after->vector = vcpu->fault.vector;
        after->error = vcpu->fault.error;
        after->cr2 = vcpu->fault.cr2;
        return;
    }
    /* As in the oracle, what comes next is a hlt or no memory at all. */
    after->vector = EXCEPTION_GP;
    if (mode->code.base == 0 && (after->eip < ORACLE_CODE || after->eip >= ORACLE_CODE + ORACLE_CODE_SIZE)) {
        after->vector = EXCEPTION_PF;
        after->cr2 = after->eip;
    }
}

/* Not of the fetch at a target without memory. */
static bool is_page_fault_of_data(const struct oracle_state *state)
{
    return state->vector == EXCEPTION_PF && state->cr2 != state->eip;
}

/* Faults that models report each in their way: which operand CMPS reads first, the CR2 of a masked store or
 * of a whole FXSAVE area, whether MASKMOVQ has left x87 mode by then, how much of POPA is done, whether 16
 * bytes misaligned and beyond the limit are rather this or that, and likewise a CALL's target and its stack,
 * and a BOUND below its first word with the second beyond the limit. */
static bool has_fixed_fault(const struct insn *insn)
{
    const struct operand *memory = insn_memory_operand(insn);

    if (memory != NULL && memory->size == 16)
        return false;
    switch (insn->mnemonic) {
    case ZYDIS_MNEMONIC_CMPSB:
    case ZYDIS_MNEMONIC_CMPSW:
    case ZYDIS_MNEMONIC_CMPSD:
    case ZYDIS_MNEMONIC_MASKMOVQ:
    case ZYDIS_MNEMONIC_MASKMOVDQU:
    case ZYDIS_MNEMONIC_FXRSTOR:
    case ZYDIS_MNEMONIC_CALL:
    case ZYDIS_MNEMONIC_BOUND:
    case ZYDIS_MNEMONIC_POPA:
    case ZYDIS_MNEMONIC_POPAD:
        return false;
    default:
        return true;
    }
}

/* Whether one whose mask leaves out the bytes that are out of reach faults is the model's affair (SDM Vol 2
 * MASKMOVDQU). */
static bool is_masked_store(const struct insn *insn)
{
    return insn->mnemonic == ZYDIS_MNEMONIC_MASKMOVQ || insn->mnemonic == ZYDIS_MNEMONIC_MASKMOVDQU;
}

/* Of an unmasked overflow or underflow, PE tells whether the significand was exact, whatever the exponent: a
 * masked run, which is all that vcpu/ has, does not tell it where the result is denormal. */
static uint32_t comparable_mxcsr(const struct oracle_state *state)
{
    uint32_t mxcsr;

    memcpy(&mxcsr, state->fxsave + 24, sizeof mxcsr);
    return state->vector == EXCEPTION_XM ? mxcsr & ~0x20u : mxcsr;
}

static bool is_mmx(const struct insn *insn)
{
    for (unsigned i = 0; i < insn->n_operands; i++)
        if (insn->operand[i].kind == OPERAND_REGISTER && insn->operand[i].reg.class == REGISTER_MMX)
            return true;
    return false;
}

static uint16_t x87_status(const struct oracle_state *state)
{
    return (uint16_t)(state->fxsave[2] | state->fxsave[3] << 8);
}

static bool has_faulted(const struct oracle_state *state)
{
    return state->eip == ORACLE_INSN - mode->code.base;
}

/* By its own number: the image begins with that which TOP names. */
static const uint8_t *x87_register(const struct oracle_state *state, unsigned i)
{
    unsigned top = x87_status(state) >> 11 & 7;

    return state->fxsave + 32 + 16 * (size_t)((i - top) & 7);
}

/* TOP of an MMX instruction that faults tells whether it has made the switch from x87 already: a Golden Cove
 * has, a Zen 4 has not. */
static uint16_t comparable_status(const struct insn *insn, const struct oracle_state *state)
{
    return has_faulted(state) && is_mmx(insn) ? x87_status(state) & 0xc7ff : x87_status(state);
}

/* An x87 store that must not be made, for an exception that is not masked: whether memory is looked at all
 * the same. A Golden Cove does not, a Zen 4 does. */
static bool is_store_without_need(const struct insn *insn, const struct oracle_state *native,
                                  const struct oracle_state *ours)
{
    return insn->opcode_map == 0 && (insn->opcode & 0xf8) == 0xd8 && has_faulted(ours) &&
           !has_faulted(native) && (x87_status(native) & 0x80) != 0;
}

static const char *difference(const struct insn *insn, const struct oracle_state *native,
                              const struct oracle_state *ours)
{
    uint32_t flags = (0x8d5 | EFLAGS_DF) & ~undefined_flags(insn);

    if (is_wrapping_access(native, ours))
        return NULL;
    if (!has_fixed_fault(insn) && has_faulted(native) && has_faulted(ours))
        return NULL;
    if (is_store_without_need(insn, native, ours))
        return NULL;
    if (is_masked_store(insn) && (has_faulted(native) || has_faulted(ours)))
        return NULL;
    if (native->vector != ours->vector)
        return "vector";
    if (native->eip != ours->eip)
        return "eip";
    if (memcmp(native->gpr, ours->gpr, sizeof native->gpr) != 0)
        return "registers";
    if ((native->eflags ^ ours->eflags) & flags)
        return "flags";
    if (is_page_fault_of_data(native) && native->cr2 != ours->cr2)
        return "cr2";
    if (is_page_fault_of_data(native) && native->error != ours->error)
        return "error code";
    if (native->vector == EXCEPTION_XM) /* has an MMX operand made the switch from x87 already? */
        return comparable_mxcsr(native) != comparable_mxcsr(ours) ? "MXCSR" : NULL;
    if (memcmp(native->fxsave, ours->fxsave, 2) != 0 || native->fxsave[4] != ours->fxsave[4] ||
        comparable_status(insn, native) != comparable_status(insn, ours))
        return "x87 control, status or tags";
    if (comparable_mxcsr(native) != comparable_mxcsr(ours))
        return "MXCSR";
    for (unsigned i = 0; i < 8; i++) {
        if (memcmp(x87_register(native, i), x87_register(ours, i), 10) != 0)
            return "x87 registers";
    }
    if (memcmp(native->fxsave + 160, ours->fxsave + 160, 128) != 0)
        return "xmm registers";
    if (memcmp(oracle_memory(ORACLE_DATA), machine.ram + ORACLE_DATA, ORACLE_DATA_SIZE) != 0)
        return "memory";
    return NULL;
}

static void print_state(const char *name, const struct oracle_state *state)
{
    fprintf(stderr, "  %-7s", name);
    for (unsigned i = 0; i < 8; i++)
        fprintf(stderr, " %08" PRIx32, state->gpr[i]);
    fprintf(stderr, " eip %08" PRIx32 " flags %08" PRIx32 " vector %d error %x cr2 %08" PRIx32 "\n",
            state->eip, state->eflags, state->vector, state->error, state->cr2);
    fprintf(stderr, "          fcw %02x%02x fsw %02x%02x ftw %02x mxcsr %02x%02x\n", state->fxsave[1],
            state->fxsave[0], state->fxsave[3], state->fxsave[2], state->fxsave[4], state->fxsave[25],
            state->fxsave[24]);
}

static void print_difference(const char *what, const struct insn *insn, const struct oracle_state *before,
                             const struct oracle_state *native, const struct oracle_state *ours)
{
    char text[128];

    decode_format(insn, ORACLE_INSN - mode->code.base, text, sizeof text);
    fprintf(stderr, "%s: %s differ:", mode->name, what);
    for (unsigned i = 0; i < insn->length; i++)
        fprintf(stderr, " %02x", insn->bytes[i]);
    fprintf(stderr, "   %s\n", text);
    print_state("before", before);
    print_state("native", native);
    print_state("ours", ours);
}

struct tally {
    unsigned compared, different, skipped, unknown;
};

static void try_form(struct form form, struct tally *tally)
{
    static struct oracle_state before, native, ours;
    struct insn insn;
    const char *what;

    if (!make_insn(form, &insn) || is_sensitive(&insn))
        return;
    if (!vcpu_can_emulate(&insn)) {
        char text[128];
        decode_format(&insn, ORACLE_INSN - mode->code.base, text, sizeof text);
        fprintf(stderr, "not emulated: %s\n", text);
        tally->unknown++;
        return;
    }
    if (is_beyond_oracle(&insn)) {
        tally->skipped++;
        return;
    }
    make_state(&before);
    place_insn(&insn);
    native = before;
    oracle_run(&native);
    emulate(&before, &insn, &ours);
    tally->compared++;
    what = difference(&insn, &native, &ours);
    if (what != NULL) {
        tally->different++;
        if (tally->different <= 30)
            print_difference(what, &insn, &before, &native, &ours);
    }
}

static void try_every_opcode(struct tally *tally)
{
    static const uint8_t prefixes[] = {0, 0, 0x66, 0xf2, 0xf3};

    for (unsigned round = 0; round < rounds; round++) {
        for (unsigned map = 0; map < 2; map++) {
            for (unsigned opcode = 0; opcode < 256; opcode++) {
                for (size_t i = 0; i < sizeof prefixes; i++)
                    try_form((struct form){(uint8_t)map, (uint8_t)opcode, prefixes[i]}, tally);
            }
        }
    }
}

START_TEST(every_opcode_does_what_the_cpu_does)
{
    const uint64_t first_seed = seed;
    struct tally tally = {0};

    mode = &modes[_i];
#ifdef __SANITIZE_ADDRESS__
    fprintf(stderr, "skipped: with AddressSanitizer most of the low 4 GiB is mapped\n");
    return;
#endif
    if (!oracle_init()) {
        fprintf(stderr, "skipped: no room at %x for native code\n", ORACLE_CODE);
        return;
    }
    if (!set_up_oracle()) {
        fprintf(stderr, "skipped: no segments for %s\n", mode->name);
        return;
    }
    set_up_machine();
    try_every_opcode(&tally);
    fprintf(stderr, "%s: %u compared, %u different, %u beyond the oracle, %u not emulated\n", mode->name,
            tally.compared, tally.different, tally.skipped, tally.unknown);
    if (tally.different != 0)
        fprintf(stderr, "again: test_ordinary_native %" PRIu64 " %u\n", first_seed, rounds);
    ck_assert_uint_gt(tally.compared, 10000);
    ck_assert_uint_eq(tally.different, 0);
    ck_assert_uint_eq(tally.unknown, 0);
}
END_TEST

int main(int argc, char **argv)
{
    Suite *suite = suite_create("ordinary_native");
    TCase *native = tcase_create("native");
    SRunner *runner = srunner_create(suite);
    int failed;

    if (argc > 1)
        seed = strtoull(argv[1], NULL, 0);
    if (argc > 2)
        rounds = (unsigned)strtoul(argv[2], NULL, 0);
    tcase_set_timeout(native, 0);
    tcase_add_loop_test(native, every_opcode_does_what_the_cpu_does, 0, sizeof modes / sizeof modes[0]);
    suite_add_tcase(suite, native);
    srunner_set_fork_status(runner, CK_NOFORK); /* low addresses and signal handlers are this process's */
    srunner_run_all(runner, CK_NORMAL);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? 0 : 1;
}
