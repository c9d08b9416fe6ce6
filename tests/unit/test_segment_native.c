/*
 * Sensitive instructions against the CPU, as far as ring 3 of a 64-bit host runs them as the architecture has
 * it: loads of segment registers from a local descriptor table, far transfers between its segments, questions
 * about its descriptors, PUSHF and POPF, and all that ring 3 may not do at all. Each runs once by
 * vcpu_emulate on the fake machine, with the same table, and once natively (native_oracle.h), from 16- and
 * 32-bit code.
 *
 *     test_segment_native [SEED [ROUNDS]]     other instructions than the test suite's
 */
#include <check.h>
#include <inttypes.h>
#include <stdlib.h>

#include "native_modes.h"

#define LDT     0x001d7000u /* in the fake machine */
#define TARGETS 0x900u      /* from here on CODE holds nothing but HLT */

/* Behind those of the modes. */
static const struct oracle_segment more_segments[] = {
    {.selector = 0x1f, .base = ORACLE_CODE, .limit = ORACLE_CODE_SIZE - 1, .is_code = true, .is_32bit = true},
    {.selector = 0x27, .base = ORACLE_DATA, .limit = 0x7ff, .is_read_only = true},
    {.selector = 0x2f, .base = ORACLE_CODE, .limit = 0xbff, .is_code = true, .is_read_only = true},
    {.selector = 0x37, .base = ORACLE_DATA, .limit = 0xfff, .is_absent = true},
    {.selector = 0x3f, .base = ORACLE_CODE, .limit = 0xfff, .is_code = true, .is_absent = true},
    {.selector = 0x47, .base = ORACLE_DATA - 0x8000, .limit = 0x7fff, .is_down = true},
};

#define N_DESCRIPTORS 10 /* the last is of zeros */

static unsigned rounds = 400;

/* ---- the instruction ----------------------------------------------------------------------------------- */

struct form {
    uint8_t map, opcode, extension; /* extension: of ModRM.reg, or ANY */
};

#define ANY 0xff

static const struct form forms[] = {
    {0, 0x8c, ANY}, {0, 0x8e, ANY},                                                 /* mov Sreg */
    {0, 0x06, ANY}, {0, 0x0e, ANY}, {0, 0x16, ANY}, {0, 0x1e, ANY},                 /* push Sreg */
    {0, 0x07, ANY}, {0, 0x17, ANY}, {0, 0x1f, ANY},                                 /* pop Sreg */
    {0, 0xc4, ANY}, {0, 0xc5, ANY}, {1, 0xb2, ANY},                                 /* les, lds, lss */
    {0, 0xea, ANY}, {0, 0x9a, ANY}, {0, 0xff, 3},   {0, 0xff, 5},                   /* far jmp and call */
    {0, 0xca, ANY}, {0, 0xcb, ANY}, {0, 0xcf, ANY},                                 /* far ret, iret */
    {0, 0x9c, ANY}, {0, 0x9d, ANY}, {0, 0xfa, ANY}, {0, 0xfb, ANY}, {0, 0xf4, ANY}, /* flags, hlt */
    {0, 0xe4, ANY}, {0, 0xed, ANY}, {0, 0xee, ANY}, {0, 0x6d, ANY}, {0, 0x6e, ANY}, /* ports */
    {1, 0x02, ANY}, {1, 0x03, ANY}, {1, 0x00, 4},   {1, 0x00, 5},   {0, 0x63, ANY}, /* lar to arpl */
    {1, 0x00, 2},   {1, 0x00, 3},   {1, 0x01, 2},   {1, 0x01, 3},   {1, 0x01, 6},   /* lldt to lmsw */
    {1, 0x01, 7},   {1, 0x06, ANY}, {1, 0x08, ANY}, {1, 0x09, ANY}, {1, 0x30, ANY}, {1, 0x32, ANY},
};

static uint16_t random_selector(void)
{
    if (one_in(6))
        return random32() & 3;
    return (uint16_t)(random32() % (N_DESCRIPTORS + 2) << 3 | SELECTOR_TI | (one_in(4) ? random32() & 3 : 3));
}

/* Mostly into the HLTs. */
static uint32_t random_target(void)
{
    if (one_in(8))
        return random32();
    if (one_in(8))
        return random32() % 0x10000 | 0x1000;
    return TARGETS + random32() % (ORACLE_CODE_SIZE - TARGETS);
}

static unsigned default_size(void)
{
    return mode->code.is_32bit ? 4 : 2;
}

static bool make_insn(const struct form *form, struct insn *insn)
{
    static const uint8_t prefixes[] = {0x66, 0x67, 0x26, 0x2e, 0x36, 0x3e};
    uint8_t bytes[INSN_MAX_LENGTH];
    bool is_wide = mode->code.is_32bit; /* operands of four bytes */
    uint32_t target = random_target();
    uint16_t selector = random_selector();
    unsigned n = 0;

    while (one_in(3) && n < 3) {
        bytes[n] = prefixes[random32() % sizeof prefixes];
        if (bytes[n++] == 0x66)
            is_wide = !mode->code.is_32bit;
    }
    if (form->map == 1)
        bytes[n++] = 0x0f;
    bytes[n++] = form->opcode;
    if (form->opcode == 0xea || form->opcode == 0x9a) {
        memcpy(bytes + n, &target, is_wide ? 4 : 2);
        n += is_wide ? 4 : 2;
        memcpy(bytes + n, &selector, 2);
        n += 2;
    } else {
        bytes[n] = (uint8_t)random32();
        if (form->extension != ANY)
            bytes[n] = (uint8_t)((bytes[n] & 0xc7) | form->extension << 3);
        n++;
    }
    while (n < sizeof bytes)
        bytes[n++] = one_in(2) ? (uint8_t)(random32() & 7) : (uint8_t)random32();
    return decode_insn(bytes, sizeof bytes, default_size(), insn) == DECODE_OK && insn->sensitive != NULL &&
           insn->sensitive->handler != HANDLE_undefined;
}

/* PUSH Sreg with a 32-bit operand writes two bytes or four, as the model has it (SDM Vol 2B PUSH). */
static bool is_of_the_model(const struct insn *insn)
{
    return insn->sensitive->handler == HANDLE_push_segment && insn->operand_size == 4;
}

/* FS and GS are the test's own. */
static bool touches_host_segment(const struct insn *insn)
{
    for (unsigned i = 0; i < insn->n_operands; i++) {
        const struct operand *operand = &insn->operand[i];

        if ((operand->kind == OPERAND_MEMORY && operand->mem.segment >= SEG_FS) ||
            (operand->kind == OPERAND_REGISTER && operand->reg.class == REGISTER_SEGMENT &&
             operand->reg.index >= SEG_FS))
            return true;
    }
    return false;
}

/* ---- the state before ---------------------------------------------------------------------------------- */

static void put(uint32_t linear, uint32_t value, unsigned size)
{
    if (linear >= ORACLE_DATA && linear - ORACLE_DATA <= ORACLE_DATA_SIZE - size)
        memcpy(oracle_memory(linear), &value, size);
}

/* The host's GDT is not the guest's, which has none. */
static uint32_t without_gdt_selector(uint32_t value)
{
    bool is_null = (value & 0xfffc) == 0;

    return is_null || (value & 0xffff) >= 0x80 ? value : value | SELECTOR_TI;
}

/* What the instruction would pop, in its operand size: an offset, a selector, flags without TF, NT and AC,
 * which would end the test rather than the instruction. (POP Sreg has the selector first.) */
static void fill_stack(const struct oracle_state *state, const struct insn *insn)
{
    const uint32_t flags = random32() & (EFLAGS_DEFINED & ~(EFLAGS_TF | EFLAGS_NT | EFLAGS_AC));
    unsigned size = insn->operand_size;
    uint32_t sp = mode->stack.is_32bit ? state->gpr[ESP] : state->gpr[ESP] & 0xffff;
    uint32_t linear = mode->stack.base + sp;

    if (insn->opcode == 0x9d) {
        put(linear, flags, size);
        return;
    }
    if (insn->opcode != 0xcf && insn->opcode != 0xca && insn->opcode != 0xcb) {
        put(linear, random_selector(), 2);
        return;
    }
    put(linear, random_target(), size);
    put(linear + size, (random32() & 0xffff0000) | random_selector(), size);
    put(linear + 2 * size, flags, size);
}

/* An operand in memory: a far pointer, or a selector. */
static void fill_memory(const struct insn *insn)
{
    const struct vcpu *vcpu = &machine.vcpu;

    for (unsigned i = 0; i < insn->n_operands; i++) {
        const struct operand *operand = &insn->operand[i];
        uint32_t linear;

        if (operand->kind != OPERAND_MEMORY || operand->is_implicit)
            continue;
        linear = vcpu->segment[operand->mem.segment].base + vcpu_effective_address(vcpu, insn, operand);
        if (insn->sensitive->handler == HANDLE_mov_to_segment || insn->opcode_map == 1) {
            put(linear, random_selector(), 2);
        } else {
            put(linear, random_target(), insn->operand_size);
            put(linear + insn->operand_size, random_selector(), 2);
        }
    }
}

static void make_state(struct oracle_state *state, const struct insn *insn)
{
    struct vcpu *vcpu = &machine.vcpu;

    memset(state, 0, sizeof *state);
    for (unsigned i = 0; i < GPR_COUNT; i++)
        state->gpr[i] = one_in(2) ? (random32() & 0xffff0000) | random_selector()
                                  : without_gdt_selector(random_register());
    state->gpr[ESP] = ORACLE_DATA - mode->stack.base + (mode->stack.is_down ? 0x1000 : 0) + 0x800 +
                      random32() % 0x800 / 2 * 2;
    if (one_in(16))
        state->gpr[ESP] = without_gdt_selector(random_register());
    if (!mode->stack.is_32bit)
        state->gpr[ESP] = oracle_stack_high() | (state->gpr[ESP] & 0xffff);
    state->eip = ORACLE_INSN - mode->code.base;
    state->eflags = EFLAGS_FIXED | EFLAGS_IF | (random32() & 0x8d5) | (one_in(4) ? EFLAGS_DF : 0);
    state->fxsave[0] = 0x7f, state->fxsave[1] = 0x03, state->fxsave[24] = 0x80, state->fxsave[25] = 0x1f;

    memset(oracle_memory(ORACLE_CODE), 0xf4, ORACLE_CODE_SIZE);
    memcpy(oracle_memory(ORACLE_INSN), insn->bytes, insn->length);
    for (uint32_t i = 0; i < ORACLE_DATA_SIZE; i += 4)
        put(ORACLE_DATA + i, random32(), 4);
    memcpy(vcpu->gpr, state->gpr, sizeof vcpu->gpr);
    fill_memory(insn);
    fill_stack(state, insn);
    fake_write(&machine, ORACLE_CODE, oracle_memory(ORACLE_CODE), ORACLE_CODE_SIZE);
    fake_write(&machine, ORACLE_DATA, oracle_memory(ORACLE_DATA), ORACLE_DATA_SIZE);
}

/* ---- both runs ----------------------------------------------------------------------------------------- */

static void put_descriptor(const struct oracle_segment *segment)
{
    const struct segment hidden = segment_of(segment);

    fake_set_descriptor(&machine, LDT, segment->selector, segment->base, segment->limit,
                        (uint8_t)hidden.attributes, (hidden.attributes & SEGMENT_DB) ? 4 : 0);
}

static bool set_up(void)
{
    static const struct mode sixteen = {"", CODE16, DATA16, DATA32};
    const struct oracle_segment *segments[3 + sizeof more_segments / sizeof more_segments[0]] = {
        &sixteen.code, (mode->data.selector & SELECTOR_TI) ? &mode->data : &sixteen.data, &sixteen.stack};
    struct vcpu *vcpu = &machine.vcpu;
    struct user_desc empty = {.entry_number = N_DESCRIPTORS - 1, .read_exec_only = 1, .seg_not_present = 1};

    if (!set_up_oracle())
        return false;
    set_up_machine();
    fake_set_rights(&machine, LDT, PTE_P | PTE_W);
    vcpu->ldtr = (struct segment){
        .selector = 8, .attributes = SEGMENT_P | SYSTEM_LDT, .base = LDT, .limit = 8 * N_DESCRIPTORS - 1};
    vcpu->gdtr.limit = 0;
    vcpu->tr = (struct segment){.limit = 0x2b, .attributes = SEGMENT_P | SYSTEM_TSS16_BUSY}; /* no I/O map */
    for (size_t i = 0; i < sizeof more_segments / sizeof more_segments[0]; i++)
        segments[3 + i] = &more_segments[i];
    for (size_t i = 0; i < sizeof segments / sizeof segments[0]; i++) {
        put_descriptor(segments[i]);
        if (!oracle_make_segment(segments[i]))
            return false;
    }
    return syscall(SYS_modify_ldt, 0x11, &empty, sizeof empty) == 0;
}

static void emulate(const struct oracle_state *before, const struct insn *insn, struct oracle_state *after)
{
    struct vcpu *vcpu = &machine.vcpu;
    struct vcpu saved = *vcpu;
    enum outcome outcome;

    vcpu->eip = before->eip;
    vcpu->eflags = before->eflags;
    outcome = vcpu_emulate(vcpu, insn);
    ck_assert(outcome == OUTCOME_DONE || outcome == OUTCOME_FAULT);

    memset(after, 0, sizeof *after);
    memcpy(after->gpr, vcpu->gpr, sizeof vcpu->gpr);
    after->eip = vcpu->eip;
    after->eflags = vcpu->eflags;
    after->es = vcpu->segment[SEG_ES].selector;
    after->cs = vcpu->segment[SEG_CS].selector;
    after->ss = vcpu->segment[SEG_SS].selector;
    after->ds = vcpu->segment[SEG_DS].selector;
    after->vector = outcome == OUTCOME_FAULT ? vcpu->fault.vector : EXCEPTION_GP; /* the HLT that follows */
    after->error = outcome == OUTCOME_FAULT ? vcpu->fault.error : 0;
    after->cr2 = vcpu->fault.cr2;
    for (unsigned i = 0; i < SEG_COUNT; i++)
        vcpu->segment[i] = saved.segment[i];
    vcpu->cpl = saved.cpl;
}

static bool has_faulted(const struct oracle_state *state)
{
    return state->eip == ORACLE_INSN - mode->code.base;
}

/* The way back from the host's kernel clears the RPL of null selectors. */
static bool is_same_selector(uint16_t a, uint16_t b)
{
    return a == b || ((a | b) & ~SELECTOR_RPL) == 0;
}

/* Of a far transfer that faults the SDM does not say which of two faults comes first, nor that nothing lies
 * below the stack: some models push first, and read the outer stack before they look at the selector. */
static bool is_faulting_transfer(const struct insn *insn, const struct oracle_state *native,
                                 const struct oracle_state *ours)
{
    enum sensitive_handler handler = insn->sensitive->handler;

    return (handler == HANDLE_far_call || handler == HANDLE_far_return || handler == HANDLE_iret) &&
           has_faulted(native) && has_faulted(ours);
}

static bool is_of_the_stack(const struct oracle_state *state)
{
    return state->vector == EXCEPTION_SS || state->vector == EXCEPTION_PF;
}

static const char *difference(const struct insn *insn, const struct oracle_state *native,
                              const struct oracle_state *ours)
{
    bool is_loose = is_faulting_transfer(insn, native, ours);
    const uint32_t flags = 0x8d5 | EFLAGS_DF | EFLAGS_ID;

    if (is_wrapping_access(native, ours))
        return NULL;
    if (is_loose && (is_of_the_stack(native) || is_of_the_stack(ours)))
        return NULL;
    if (native->vector != ours->vector)
        return "vector";
    if (native->error != ours->error)
        return "error code";
    if (native->eip != ours->eip)
        return "eip";
    if (memcmp(native->gpr, ours->gpr, sizeof native->gpr) != 0)
        return "registers";
    if (!is_same_selector(native->es, ours->es) || !is_same_selector(native->ds, ours->ds) ||
        native->cs != ours->cs || native->ss != ours->ss)
        return "segments";
    if ((native->eflags ^ ours->eflags) & flags)
        return "flags";
    if (!is_loose && memcmp(oracle_memory(ORACLE_DATA), machine.ram + ORACLE_DATA, ORACLE_DATA_SIZE) != 0)
        return "memory";
    return NULL;
}

static void print_state(const char *name, const struct oracle_state *state)
{
    fprintf(stderr, "  %-7s", name);
    for (unsigned i = 0; i < GPR_COUNT; i++)
        fprintf(stderr, " %08" PRIx32, state->gpr[i]);
    fprintf(stderr, "\n          eip %08" PRIx32 " flags %08" PRIx32 " es %04x cs %04x ss %04x ds %04x",
            state->eip, state->eflags, state->es, state->cs, state->ss, state->ds);
    fprintf(stderr, " vector %d error %x cr2 %08" PRIx32 "\n", state->vector, state->error, state->cr2);
}

static unsigned n_compared, n_different, n_done;

static void try_form(const struct form *form)
{
    static struct oracle_state before, native, ours;
    struct insn insn;
    const char *what;
    char text[128];

    if (!make_insn(form, &insn) || touches_host_segment(&insn) || is_of_the_model(&insn))
        return;
    make_state(&before, &insn);
    native = before;
    oracle_run(&native);
    emulate(&before, &insn, &ours);
    n_compared++;
    n_done += !has_faulted(&ours);
    what = difference(&insn, &native, &ours);
    if (what == NULL || ++n_different > 30)
        return;
    decode_format(&insn, before.eip, text, sizeof text);
    fprintf(stderr, "%s: %s differ:", mode->name, what);
    for (unsigned i = 0; i < insn.length; i++)
        fprintf(stderr, " %02x", insn.bytes[i]);
    fprintf(stderr, "   %s\n", text);
    print_state("before", &before);
    print_state("native", &native);
    print_state("ours", &ours);
}

START_TEST(ring_3_meets_the_same_segments)
{
    const uint64_t first_seed = seed;

    n_compared = n_different = n_done = 0;
    mode = &modes[_i];
#ifdef __SANITIZE_ADDRESS__
    fprintf(stderr, "skipped: with AddressSanitizer most of the low 4 GiB is mapped\n");
    return;
#endif
    if (!oracle_init() || !set_up()) {
        fprintf(stderr, "skipped: the host does not have what %s takes\n", mode->name);
        return;
    }
    for (unsigned round = 0; round < rounds; round++) {
        for (size_t i = 0; i < sizeof forms / sizeof forms[0]; i++)
            try_form(&forms[i]);
    }
    fprintf(stderr, "%s: %u compared (%u of them ran), %u different\n", mode->name, n_compared, n_done,
            n_different);
    if (n_different != 0)
        fprintf(stderr, "again: test_segment_native %" PRIu64 " %u\n", first_seed, rounds);
    ck_assert_uint_gt(n_compared, (uintmax_t)20 * rounds);
    ck_assert_uint_gt(n_done, (uintmax_t)4 * rounds);
    ck_assert_uint_eq(n_different, 0);
}
END_TEST

int main(int argc, char **argv)
{
    Suite *suite = suite_create("segment_native");
    TCase *native = tcase_create("native");
    SRunner *runner = srunner_create(suite);
    int failed;

    if (argc > 1)
        seed = strtoull(argv[1], NULL, 0);
    if (argc > 2)
        rounds = (unsigned)strtoul(argv[2], NULL, 0);
    tcase_set_timeout(native, 0);
    tcase_add_loop_test(native, ring_3_meets_the_same_segments, 0, sizeof modes / sizeof modes[0]);
    suite_add_tcase(suite, native);
    srunner_set_fork_status(runner, CK_NOFORK); /* low addresses and signal handlers are this process's */
    srunner_run_all(runner, CK_NORMAL);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? 0 : 1;
}
