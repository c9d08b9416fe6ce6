/*
 * The emulator on instructions and states full of chance: each one is done, or faults, or stops the run; no
 * instruction that runs in a stub (vcpu/relocate.c) is more than its own computation. Every case follows from
 * its number, which is in the message.
 *
 * Read next: hostile_code.h.
 */
#include <Zydis/Zydis.h>

#include "fake_guest.h"
#include "hostile_code.h"
#include "vcpu/fxsave.h"
#include "vcpu/stub.h"

enum { N_CASES = 60000, N_STEPS = 6 };

/* ck_assert_msg tells the parent of every one that holds: too much for millions. */
#define expect(condition, ...)                                                                               \
    do {                                                                                                     \
        if (!(condition))                                                                                    \
            ck_abort_msg(__VA_ARGS__);                                                                       \
    } while (0)

static struct fake_machine machine;

/* ---- states -------------------------------------------------------------------------------------------- */

/* What FXRSTOR may load: anything but reserved MXCSR bits. */
static void put_fpu(struct vcpu *vcpu, struct chance *chance)
{
    struct fxsave image;

    for (unsigned i = 0; i < sizeof vcpu->fxsave; i++)
        vcpu->fxsave[i] = (uint8_t)(chance_one_in(chance, 3) ? chance_any(chance) : 0);
    image = fxsave_get(vcpu);
    image.mxcsr = chance_one_in(chance, 2) ? 0x1f80 : chance_any(chance) & 0xffff;
    if (chance_one_in(chance, 2))
        image.control = 0x37f;
    if (chance_one_in(chance, 2))
        image.status = 0;
    fxsave_put(vcpu, &image);
}

static void put_mode(struct vcpu *vcpu, struct chance *chance)
{
    static const uint32_t cr0_bits[] = {CR0_MP, CR0_EM, CR0_TS, CR0_NE, CR0_AM, CR0_WP};
    static const uint32_t cr4_bits[] = {CR4_VME, CR4_PVI, CR4_TSD,    CR4_DE,        CR4_PSE,
                                        CR4_PAE, CR4_PGE, CR4_OSFXSR, CR4_OSXMMEXCPT};

    vcpu_set_flat(vcpu, SEL_CODE0, SEL_DATA0, GUEST_CODE);
    vcpu->gdtr = (struct table_register){GUEST_GDT, GUEST_GDT_LIMIT};
    vcpu->idtr = (struct table_register){GUEST_IDT, 0x7ff};
    vcpu->tr = (struct segment){SEL_TSS, 0x8b, GUEST_TSS,
                                chance_one_in(chance, 4) ? chance_below(chance, 0x300) : 0x2ff};
    vcpu->ldtr = (struct segment){SEL_LDT, 0x82, GUEST_LDT, GUEST_LDT_LIMIT};
    switch (chance_below(chance, 8)) {
    case 0:
        guest_enter_v8086(vcpu);
        break;
    case 1:
        guest_enter_ring(vcpu, 1 + chance_below(chance, 3));
        break;
    case 2:
        guest_enter_ring(vcpu, 3);
        break;
    case 3:
        guest_enter_real_mode(vcpu);
        break;
    case 4:
        vcpu->segment[SEG_CS].attributes &= (uint16_t)~SEGMENT_DB;
        vcpu->segment[SEG_CS].limit = 0xffff;
        vcpu->segment[SEG_CS].base = GUEST_CODE;
        vcpu->eip = 0;
        break;
    case 5:
        vcpu->segment[SEG_SS].attributes &= (uint16_t)~SEGMENT_DB;
        break;
    default:
        break;
    }
    for (unsigned i = chance_below(chance, 3); i > 0; i--)
        vcpu->cr0 |= PICK(chance, cr0_bits);
    vcpu->cr4 = CR4_OSFXSR;
    for (unsigned i = chance_below(chance, 3); i > 0; i--)
        vcpu->cr4 ^= PICK(chance, cr4_bits);
    vcpu->eflags |= hostile_flags(chance) & ~EFLAGS_VM;
    for (unsigned i = 0; i < 4; i++)
        vcpu->dr[i] = hostile_address(chance);
    vcpu->dr[7] = (chance_any(chance) & DR7_WRITABLE) | DR7_FIXED;
}

static struct vcpu *make_state(struct chance *chance)
{
    struct vcpu *vcpu = &machine.vcpu;

    vcpu_reset(vcpu);
    machine.stop = STOP_NONE;
    machine.n_injections = machine.n_ports = 0;
    machine.port_value = chance_any(chance);
    memset(machine.rights, FAKE_ALL_RIGHTS, sizeof machine.rights);
    guest_fill_tables(&machine);
    for (unsigned i = 0; i < 0x100; i++)
        guest_set_idt(&machine, i, SEL_CODE0, GUEST_CODE + chance_below(chance, 16),
                      chance_one_in(chance, 8) ? chance_any(chance) & 0xff : 0xee);
    put_mode(vcpu, chance);
    put_fpu(vcpu, chance);
    for (unsigned i = 0; i < GPR_COUNT; i++)
        if (i != ESP || chance_one_in(chance, 4))
            vcpu->gpr[i] =
                chance_one_in(chance, 2) ? chance_below(chance, FAKE_RAM_SIZE) : hostile_value(chance);
    for (unsigned i = 0; i < SEG_COUNT; i++)
        if (i != SEG_CS && chance_one_in(chance, 10))
            vcpu->segment[i].limit = hostile_value(chance);
    if (chance_one_in(chance, 4))
        fake_set_rights(&machine, chance_below(chance, FAKE_RAM_SIZE), (uint8_t)chance_below(chance, 8));
    return vcpu;
}

/* ---- one instruction after another --------------------------------------------------------------------- */

static void check_outcome(const struct vcpu *vcpu, enum outcome outcome, unsigned number)
{
    expect(vcpu->cpl <= 3 && vcpu->delivering_vector == -1, "case %u: cpl %u, delivering %d", number,
           vcpu->cpl, vcpu->delivering_vector);
    expect((vcpu->eflags & EFLAGS_FIXED) && !(vcpu->eflags & ~EFLAGS_DEFINED & ~EFLAGS_FIXED),
           "case %u: eflags %08x", number, vcpu->eflags);
    switch (outcome) {
    case OUTCOME_FAULT:
        expect(vcpu->fault.vector >= 0 && vcpu->fault.vector < 32, "case %u: vector %d", number,
               vcpu->fault.vector);
        break;
    case OUTCOME_STOP:
        expect(machine.stop != STOP_NONE && machine.stop_text[0] != '\0', "case %u: no reason", number);
        break;
    default:
        expect(outcome <= OUTCOME_UNKNOWN, "case %u: outcome %d", number, outcome);
    }
}

static enum outcome step(struct vcpu *vcpu, struct chance *chance, unsigned number)
{
    char text[96];
    struct insn insn;
    enum outcome outcome = vcpu_fetch(vcpu, &insn);

    if (outcome == OUTCOME_DONE) {
        decode_format(&insn, vcpu->eip, text, 1 + chance_below(chance, sizeof text));
        outcome = vcpu_emulate(vcpu, &insn);
        expect(outcome == OUTCOME_UNKNOWN ? !vcpu_can_emulate(&insn) : true, "case %u: `%s` unknown", number,
               text);
    }
    check_outcome(vcpu, outcome, number);
    if (outcome == OUTCOME_FAULT) {
        outcome = vcpu_deliver_fault(vcpu, &vcpu->fault);
        expect(outcome == OUTCOME_DONE || outcome == OUTCOME_STOP, "case %u: delivery %d", number, outcome);
        check_outcome(vcpu, outcome, number);
    }
    if (outcome == OUTCOME_DONE && chance_one_in(chance, 4) && vcpu_accepts_interrupt(vcpu)) {
        outcome = vcpu_deliver_interrupt(vcpu, INJECT_EXTERNAL, (uint8_t)chance_any(chance));
        check_outcome(vcpu, outcome, number);
    }
    return outcome;
}

START_TEST(every_instruction_has_an_outcome)
{
    unsigned n_outcomes[OUTCOME_UNKNOWN + 1] = {0};

    fake_machine_reset(&machine);
    for (unsigned number = 0; number < N_CASES; number++) {
        struct chance chance = chance_of_seed(number);
        struct vcpu *vcpu = make_state(&chance);
        struct gadget gadget;

        hostile_gadget(&gadget, &chance);
        fake_write(&machine, GUEST_CODE, gadget.bytes, SLOT_SIZE);
        for (unsigned i = 0; i < N_STEPS; i++) {
            enum outcome outcome = step(vcpu, &chance, number);

            n_outcomes[outcome]++;
            if (outcome == OUTCOME_STOP || outcome == OUTCOME_UNKNOWN)
                break;
        }
    }
    /* The cases are worth something only if they reach everything. */
    ck_assert_uint_gt(n_outcomes[OUTCOME_DONE], N_CASES);
    ck_assert_uint_gt(n_outcomes[OUTCOME_PARTIAL], N_CASES / 1000);
    ck_assert_uint_gt(n_outcomes[OUTCOME_STOP], N_CASES / 1000);
}
END_TEST

/* ---- what stubs may hold ------------------------------------------------------------------------------- */

static bool is_computation(ZydisInstructionCategory category)
{
    static const ZydisInstructionCategory categories[] = {
        ZYDIS_CATEGORY_BINARY,  ZYDIS_CATEGORY_BITBYTE,   ZYDIS_CATEGORY_LOGICAL,    ZYDIS_CATEGORY_SHIFT,
        ZYDIS_CATEGORY_ROTATE,  ZYDIS_CATEGORY_DATAXFER,  ZYDIS_CATEGORY_CMOV,       ZYDIS_CATEGORY_SETCC,
        ZYDIS_CATEGORY_CONVERT, ZYDIS_CATEGORY_SEMAPHORE, ZYDIS_CATEGORY_NOP,        ZYDIS_CATEGORY_WIDENOP,
        ZYDIS_CATEGORY_FLAGOP,  ZYDIS_CATEGORY_MISC,      ZYDIS_CATEGORY_X87_ALU,    ZYDIS_CATEGORY_FCMOV,
        ZYDIS_CATEGORY_MMX,     ZYDIS_CATEGORY_SSE,       ZYDIS_CATEGORY_LOGICAL_FP, ZYDIS_CATEGORY_PREFETCH,
        ZYDIS_CATEGORY_DECIMAL,
    };

    for (size_t i = 0; i < sizeof categories / sizeof categories[0]; i++)
        if (categories[i] == category)
            return true;
    return false;
}

/* Looked at with fresh eyes, as the CPU will: 64-bit code. */
static void check_relocated(const struct insn *insn, const struct relocated *relocated, const char *what)
{
    ZydisDecoder decoder;
    ZydisDecodedInstruction decoded;
    ZydisDecodedOperand operands[ZYDIS_MAX_OPERAND_COUNT];

    ZydisDecoderInit(&decoder, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
    ZydisDecoderEnableMode(&decoder, ZYDIS_DECODER_MODE_TZCNT, ZYAN_FALSE);
    ZydisDecoderEnableMode(&decoder, ZYDIS_DECODER_MODE_LZCNT, ZYAN_FALSE);
    ZydisDecoderEnableMode(&decoder, ZYDIS_DECODER_MODE_MPX, ZYAN_FALSE);
    expect(ZYAN_SUCCESS(
               ZydisDecoderDecodeFull(&decoder, relocated->bytes, relocated->length, &decoded, operands)),
           "%s", what);
    expect(decoded.length == relocated->length && relocated->length <= RELOCATED_MAX, "%s", what);
    expect(is_computation(decoded.meta.category), "%s: category %s", what,
           ZydisCategoryGetString(decoded.meta.category));
    expect(decoded.operand_width <= 32 || decoded.meta.category != ZYDIS_CATEGORY_BINARY, "%s: 64-bit", what);
    for (unsigned i = 0; i < decoded.operand_count; i++) {
        const ZydisDecodedOperand *operand = &operands[i];

        if (operand->type == ZYDIS_OPERAND_TYPE_MEMORY)
            expect(operand->mem.base == ZYDIS_REGISTER_RIP && operand->mem.index == ZYDIS_REGISTER_NONE &&
                       operand->mem.disp.value == 0 && relocated->displacement_offset != 0 &&
                       operand->size <= 128,
                   "%s: memory other than the slot", what);
        if (operand->type == ZYDIS_OPERAND_TYPE_REGISTER)
            expect(ZydisRegisterGetLargestEnclosing(ZYDIS_MACHINE_MODE_LONG_64, operand->reg.value) !=
                           ZYDIS_REGISTER_RSP &&
                       ZydisRegisterGetClass(operand->reg.value) != ZYDIS_REGCLASS_SEGMENT &&
                       ZydisRegisterGetClass(operand->reg.value) != ZYDIS_REGCLASS_GPR64,
                   "%s: register %s", what, ZydisRegisterGetString(operand->reg.value));
    }
    (void)insn;
}

/* All opcodes of the two first maps, all ModRM bytes, the prefixes that change a meaning. */
START_TEST(stubs_only_compute)
{
    static const struct {
        uint8_t n, bytes[3];
    } prefixes[] = {
        {0, {0}},    {1, {0x66}},       {1, {0xf2}},       {1, {0xf3}},       {1, {0xf0}},
        {1, {0x67}}, {2, {0x66, 0xf3}}, {2, {0xf3, 0x66}}, {2, {0xf2, 0xf3}}, {3, {0xf0, 0x66, 0x64}}};
    unsigned n_relocated = 0;

    for (unsigned p = 0; p < sizeof prefixes / sizeof prefixes[0]; p++)
        for (unsigned opcode = 0; opcode < 0x200; opcode++)
            for (unsigned modrm = 0; modrm < 0x100; modrm++) {
                uint8_t bytes[16] = {0};
                struct relocated relocated;
                unsigned n = prefixes[p].n;
                struct insn insn;
                char what[64];

                memcpy(bytes, prefixes[p].bytes, n);
                if (opcode >= 0x100)
                    bytes[n++] = 0x0f;
                bytes[n++] = (uint8_t)opcode;
                bytes[n++] = (uint8_t)modrm;
                bytes[n] = (uint8_t)(modrm * 7); /* SIB, displacement or immediate */
                if (decode_insn(bytes, sizeof bytes, modrm & 1 ? 4 : 2, &insn) != DECODE_OK ||
                    !relocate_insn(&insn, &relocated))
                    continue;
                snprintf(what, sizeof what, "prefixes %u, opcode %03x, modrm %02x", p, opcode, modrm);
                check_relocated(&insn, &relocated, what);
                n_relocated++;
            }
    ck_assert_uint_gt(n_relocated, 100000);
}
END_TEST

int main(void)
{
    const TTest *tests[] = {every_instruction_has_an_outcome, stubs_only_compute};

    return guest_run_suite("hostile emulation", tests, sizeof tests / sizeof tests[0]);
}
