/*
 * Guest instruction -> 64-bit instruction with the same effect on registers, flags and one memory operand.
 *
 * Most 32-bit encodings mean the same in 64-bit mode (default operand size 32). What must change:
 *   - prefixes: segment overrides and 67 go, LOCK and REP hints too; 66 is made anew from the operand
 *     size, since 16-bit code uses it the other way round. In MMX and SSE instructions 66, F2 and F3 are
 *     part of the opcode: kept.
 *   - 40-4F (INC, DEC) are REX prefixes: FF /0 and FF /1. 82 does not exist: 80.
 *   - the memory operand becomes RIP-relative.
 *   - ESP becomes another register (stub.h).
 *
 * The bytes come from the guest, so the result is decoded again, as 64-bit code, and must be what it was
 * meant to be: the same mnemonic, of the same length, without REX or VEX, that touches no register but
 * general ones, flags, x87, MMX and SSE, and no memory but the slot. Whatever slips past the opcode maps of
 * ordinary.c ends here.
 *
 * Read next: native.c.
 */
#include <Zydis/Zydis.h>
#include <string.h>

#include "vcpu/stub.h"

#define PREFIX_OPERAND_SIZE 0x66
#define PREFIX_REPNE        0xf2
#define PREFIX_REP          0xf3

#define MODRM_REG_SHIFT    3
#define MODRM_REG          0x38u
#define MODRM_RM           0x07u
#define MODRM_RIP_RELATIVE 0x05u /* mod 00, r/m 101 */

static void append(struct relocated *relocated, uint8_t byte)
{
    relocated->bytes[relocated->length++] = byte;
}

/* ---- writing the instruction --------------------------------------------------------------------------- */

/* Of several F2 and F3 the last one counts; 66 may stand anywhere before the 0F. */
static void append_vector_prefixes(const struct insn *insn, struct relocated *relocated)
{
    uint8_t repeat = 0;
    bool has_operand_size = false;

    for (unsigned i = 0; i + 1 < insn->opcode_offset; i++) {
        if (insn->bytes[i] == PREFIX_REP || insn->bytes[i] == PREFIX_REPNE)
            repeat = insn->bytes[i];
        else if (insn->bytes[i] == PREFIX_OPERAND_SIZE)
            has_operand_size = true;
    }
    if (has_operand_size)
        append(relocated, PREFIX_OPERAND_SIZE);
    if (repeat != 0)
        append(relocated, repeat);
}

static void append_prefixes(const struct insn *insn, struct relocated *relocated)
{
    bool is_fpu = insn->sensitive != NULL;

    if (!is_fpu && insn->operand_size == 2)
        append(relocated, PREFIX_OPERAND_SIZE);
    if (is_fpu && insn->opcode_map != 0) /* x87, in the one-byte map, takes no prefix */
        append_vector_prefixes(insn, relocated);
}

static void append_opcode(const struct insn *insn, struct relocated *relocated)
{
    if (insn->opcode_map == 1) {
        append(relocated, 0x0f);
        append(relocated, insn->opcode);
    } else if (insn->opcode >= 0x40 && insn->opcode <= 0x4f) {
        append(relocated, 0xff);
        append(relocated, (uint8_t)(0xc0 | (insn->opcode & 0x0f))); /* 40+r: c0+r, 48+r: c8+r */
    } else {
        append(relocated, insn->opcode == 0x82 ? 0x80 : insn->opcode);
    }
}

static void append_modrm(const struct insn *insn, struct relocated *relocated)
{
    uint8_t modrm = insn->bytes[insn->modrm_offset];

    if (!insn->has_modrm)
        return;
    if (insn_memory_operand(insn) == NULL) {
        append(relocated, modrm);
        return;
    }
    append(relocated, (uint8_t)((modrm & MODRM_REG) | MODRM_RIP_RELATIVE));
    relocated->displacement_offset = relocated->length;
    for (unsigned i = 0; i < sizeof(int32_t); i++)
        append(relocated, 0);
}

/* ---- reading it back ----------------------------------------------------------------------------------- */

struct decoded {
    ZydisDecodedInstruction insn;
    ZydisDecodedOperand operand[ZYDIS_MAX_OPERAND_COUNT];
};

static bool decode_64bit(const struct relocated *relocated, struct decoded *decoded)
{
    /* As decode.c has it: TZCNT and the like do not exist, the bytes are BSF. */
    static const ZydisDecoder decoder = {.machine_mode = ZYDIS_MACHINE_MODE_LONG_64,
                                         .stack_width = ZYDIS_STACK_WIDTH_64,
                                         .decoder_mode = {ZYAN_FALSE}};

    return ZYAN_SUCCESS(ZydisDecoderDecodeFull(&decoder, relocated->bytes, relocated->length, &decoded->insn,
                                               decoded->operand));
}

static bool is_stack_pointer(ZydisRegister reg)
{
    return reg == ZYDIS_REGISTER_SP || reg == ZYDIS_REGISTER_ESP || reg == ZYDIS_REGISTER_RSP;
}

static bool is_register_allowed(ZydisRegister reg)
{
    switch (ZydisRegisterGetClass(reg)) {
    case ZYDIS_REGCLASS_GPR8: /* SPL to DIL take a REX prefix, which is refused */
    case ZYDIS_REGCLASS_GPR16:
    case ZYDIS_REGCLASS_GPR32:
        return !is_stack_pointer(reg);
    case ZYDIS_REGCLASS_X87:
    case ZYDIS_REGCLASS_MMX:
    case ZYDIS_REGCLASS_XMM:
    case ZYDIS_REGCLASS_FLAGS:
        return true;
    default:
        return reg == ZYDIS_REGISTER_X87CONTROL || reg == ZYDIS_REGISTER_X87STATUS ||
               reg == ZYDIS_REGISTER_X87TAG || reg == ZYDIS_REGISTER_MXCSR;
    }
}

static bool is_operand_allowed(const ZydisDecodedOperand *operand)
{
    switch (operand->type) {
    case ZYDIS_OPERAND_TYPE_REGISTER:
        return is_register_allowed(operand->reg.value);
    case ZYDIS_OPERAND_TYPE_MEMORY:
        return operand->mem.base == ZYDIS_REGISTER_RIP && operand->mem.index == ZYDIS_REGISTER_NONE &&
               operand->size <= 8 * STUB_SCRATCH_SIZE;
    case ZYDIS_OPERAND_TYPE_IMMEDIATE:
        return !operand->imm.is_relative;
    default:
        return false;
    }
}

static bool is_as_meant(const struct insn *insn, const struct relocated *relocated)
{
    struct decoded decoded;

    if (!decode_64bit(relocated, &decoded))
        return false;
    if (decoded.insn.length != relocated->length || decoded.insn.mnemonic != insn->mnemonic ||
        decoded.insn.encoding != ZYDIS_INSTRUCTION_ENCODING_LEGACY ||
        (decoded.insn.attributes & (ZYDIS_ATTRIB_HAS_REX | ZYDIS_ATTRIB_IS_PRIVILEGED)))
        return false;
    for (unsigned i = 0; i < decoded.insn.operand_count; i++) { /* the hidden ones too */
        if (!is_operand_allowed(&decoded.operand[i]))
            return false;
    }
    return true;
}

/* ---- ESP ----------------------------------------------------------------------------------------------- */

static bool uses_gpr(const struct insn *insn, unsigned index)
{
    for (unsigned i = 0; i < insn->n_operands; i++) {
        const struct operand *operand = &insn->operand[i];

        if (operand->kind == OPERAND_REGISTER && operand->reg.index == index &&
            (operand->reg.class == REGISTER_GPR16 || operand->reg.class == REGISTER_GPR32))
            return true;
    }
    return false;
}

/* No instruction names more than two registers or has EBP, ESI or EDI for an implicit operand (strings aside,
 * which do not come here): one of the three is free. */
static stand_in_t free_gpr(const struct insn *insn)
{
    if (!uses_gpr(insn, EBP))
        return EBP;
    return !uses_gpr(insn, ESI) ? ESI : EDI;
}

static bool replace_stack_pointer(const struct insn *insn, struct relocated *relocated)
{
    struct decoded decoded;
    uint8_t gpr;

    if (!uses_gpr(insn, ESP))
        return true;
    if (!decode_64bit(relocated, &decoded))
        return false;
    relocated->stand_in = free_gpr(insn);
    gpr = (uint8_t)relocated->stand_in;
    for (unsigned i = 0; i < decoded.insn.operand_count; i++) {
        const ZydisDecodedOperand *operand = &decoded.operand[i];
        uint8_t *modrm = &relocated->bytes[decoded.insn.raw.modrm.offset];

        if (operand->type != ZYDIS_OPERAND_TYPE_REGISTER || !is_stack_pointer(operand->reg.value))
            continue;
        switch (operand->encoding) {
        case ZYDIS_OPERAND_ENCODING_MODRM_REG:
            *modrm = (uint8_t)((*modrm & ~MODRM_REG) | gpr << MODRM_REG_SHIFT);
            break;
        case ZYDIS_OPERAND_ENCODING_MODRM_RM:
            *modrm = (uint8_t)((*modrm & ~MODRM_RM) | gpr);
            break;
        case ZYDIS_OPERAND_ENCODING_OPCODE: /* the last byte of BSWAP and XCHG */
            relocated->bytes[relocated->length - 1] = (uint8_t)((decoded.insn.opcode & ~MODRM_RM) | gpr);
            break;
        default:
            return false;
        }
    }
    return true;
}

bool relocate_insn(const struct insn *insn, struct relocated *relocated)
{
    bool is_fpu = insn->sensitive != NULL && insn->sensitive->handler == HANDLE_fpu;

    *relocated = (struct relocated){.stand_in = -1};
    if (insn->sensitive != NULL && !is_fpu)
        return false;
    if (insn->opcode_map > 1) /* the profile ends before 0F 38 and 0F 3A */
        return false;
    append_prefixes(insn, relocated);
    append_opcode(insn, relocated);
    append_modrm(insn, relocated);
    for (unsigned i = 0; i < insn->immediate_length; i++)
        append(relocated, insn->bytes[insn->immediate_offset + i]);
    return replace_stack_pointer(insn, relocated) && is_as_meant(insn, relocated);
}
