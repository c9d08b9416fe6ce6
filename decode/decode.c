/*
 * bytes -> struct insn: Zydis does the decoding, this file flattens its answer into the few fields that
 * emulation needs. Everything lives on the stack or is constant, so any number of threads and signal handlers
 * may decode.
 *
 * Read next: sensitive.c (which instructions matter), profile.c (which exist at all), format.c (the text).
 */
#include "decode/decode.h"

#include <Zydis/Zydis.h>
#include <string.h>

#include "decode/zydis_decoder.h"

#define PREFIX_OPERAND_SIZE 0x66
#define PREFIX_ADDRESS_SIZE 0x67
#define PREFIX_REPNE        0xf2
#define PREFIX_REP          0xf3

/* A constant has no initialisation order and no race. The fields are those that ZydisDecoderInit fills; what
 * is switched off are reinterpretations of opcodes that the CPUID profile does not have: there F3 0F BC is
 * BSF with a meaningless prefix and not TZCNT, F3 0F 1E FA is a NOP and not ENDBR32 (SDM Vol 2, each "#UD or
 * legacy" note). */
#define DECODER(mode, width)                                                                                 \
    {                                                                                                        \
        .machine_mode = (mode), .stack_width = (width), .decoder_mode = { ZYAN_FALSE }                       \
    }
static const ZydisDecoder decoder32 = DECODER(ZYDIS_MACHINE_MODE_LEGACY_32, ZYDIS_STACK_WIDTH_32);
static const ZydisDecoder decoder16 = DECODER(ZYDIS_MACHINE_MODE_LEGACY_16, ZYDIS_STACK_WIDTH_16);

const ZydisDecoder *decode_zydis_decoder(unsigned default_size)
{
    return default_size == 2 ? &decoder16 : &decoder32;
}

/* ---- operands ------------------------------------------------------------------------------------------ */

static int8_t gpr_number(ZydisRegister reg)
{
    if (reg >= ZYDIS_REGISTER_EAX && reg <= ZYDIS_REGISTER_EDI)
        return (int8_t)(reg - ZYDIS_REGISTER_EAX);
    if (reg >= ZYDIS_REGISTER_AX && reg <= ZYDIS_REGISTER_DI)
        return (int8_t)(reg - ZYDIS_REGISTER_AX);
    return -1;
}

/* Each run of consecutive Zydis registers and the class it becomes. */
static const struct {
    uint16_t first, last;
    uint8_t class;
} register_ranges[] = {
    {ZYDIS_REGISTER_EAX, ZYDIS_REGISTER_EDI, REGISTER_GPR32},
    {ZYDIS_REGISTER_AX, ZYDIS_REGISTER_DI, REGISTER_GPR16},
    {ZYDIS_REGISTER_AL, ZYDIS_REGISTER_BH, REGISTER_GPR8},
    {ZYDIS_REGISTER_ES, ZYDIS_REGISTER_GS, REGISTER_SEGMENT},
    {ZYDIS_REGISTER_CR0, ZYDIS_REGISTER_CR7, REGISTER_CONTROL},
    {ZYDIS_REGISTER_DR0, ZYDIS_REGISTER_DR7, REGISTER_DEBUG},
    {ZYDIS_REGISTER_ST0, ZYDIS_REGISTER_ST7, REGISTER_X87},
    {ZYDIS_REGISTER_MM0, ZYDIS_REGISTER_MM7, REGISTER_MMX},
    {ZYDIS_REGISTER_XMM0, ZYDIS_REGISTER_XMM7, REGISTER_XMM},
};

static void convert_register(ZydisRegister reg, struct operand *operand)
{
    operand->kind = OPERAND_REGISTER;
    operand->reg.class = REGISTER_OTHER;
    for (size_t i = 0; i < sizeof register_ranges / sizeof register_ranges[0]; i++) {
        if (reg >= register_ranges[i].first && reg <= register_ranges[i].last) {
            operand->reg.class = register_ranges[i].class;
            operand->reg.index = (uint8_t)(reg - register_ranges[i].first);
            return;
        }
    }
}

/* These name an address and touch nothing there: no fault, no device read (SDM Vol 2: INVLPG, NOP, PREFETCHh,
 * PREFETCHW). LEA is known to Zydis. */
static bool only_names_address(ZydisMnemonic mnemonic)
{
    switch (mnemonic) {
    case ZYDIS_MNEMONIC_INVLPG:
    case ZYDIS_MNEMONIC_NOP:
    case ZYDIS_MNEMONIC_PREFETCH:
    case ZYDIS_MNEMONIC_PREFETCHNTA:
    case ZYDIS_MNEMONIC_PREFETCHT0:
    case ZYDIS_MNEMONIC_PREFETCHT1:
    case ZYDIS_MNEMONIC_PREFETCHT2:
    case ZYDIS_MNEMONIC_PREFETCHW:
        return true;
    default:
        return false;
    }
}

static void convert_memory(const ZydisDecodedInstruction *zydis, const ZydisDecodedOperandMem *mem,
                           struct operand *operand)
{
    operand->kind = OPERAND_MEMORY;
    operand->mem.segment = SEG_DS;
    if (mem->segment >= ZYDIS_REGISTER_ES && mem->segment <= ZYDIS_REGISTER_GS)
        operand->mem.segment = (uint8_t)(mem->segment - ZYDIS_REGISTER_ES);
    operand->mem.base = gpr_number(mem->base);
    operand->mem.index = gpr_number(mem->index);
    operand->mem.scale = mem->scale != 0 ? mem->scale : 1;
    operand->mem.displacement = (int32_t)mem->disp.value;
    operand->mem.is_address_only = mem->type == ZYDIS_MEMOP_TYPE_AGEN || only_names_address(zydis->mnemonic);
}

static void convert_operand(const ZydisDecodedInstruction *zydis, const ZydisDecodedOperand *from,
                            struct operand *to)
{
    to->size16 = (uint16_t)(from->size / 8);
    to->size = to->size16 <= UINT8_MAX ? (uint8_t)to->size16 : 0;
    if (from->actions & ZYDIS_OPERAND_ACTION_MASK_READ)
        to->access |= OPERAND_READ;
    if (from->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE)
        to->access |= OPERAND_WRITE;
    to->is_implicit = from->visibility != ZYDIS_OPERAND_VISIBILITY_EXPLICIT;
    switch (from->type) {
    case ZYDIS_OPERAND_TYPE_REGISTER:
        convert_register(from->reg.value, to);
        break;
    case ZYDIS_OPERAND_TYPE_MEMORY:
        convert_memory(zydis, &from->mem, to);
        break;
    case ZYDIS_OPERAND_TYPE_POINTER:
        to->kind = OPERAND_FAR;
        to->far.selector = from->ptr.segment;
        to->far.offset = from->ptr.offset;
        break;
    case ZYDIS_OPERAND_TYPE_IMMEDIATE:
        to->kind = from->imm.is_relative ? OPERAND_RELATIVE : OPERAND_IMMEDIATE;
        to->immediate = from->imm.is_signed ? from->imm.value.s : (int64_t)from->imm.value.u;
        break;
    default:
        break;
    }
}

/* Visible operands in Intel order, then the hidden ones in memory. Hidden registers (eax of mul, the flags)
 * say nothing that the mnemonic does not. */
static void convert_operands(const ZydisDecodedInstruction *zydis, const ZydisDecodedOperand *operands,
                             struct insn *insn)
{
    for (unsigned i = 0; i < zydis->operand_count; i++) {
        bool is_visible = i < zydis->operand_count_visible;

        if (!is_visible && operands[i].type != ZYDIS_OPERAND_TYPE_MEMORY)
            continue;
        if (insn->n_operands == INSN_MAX_OPERANDS)
            break;
        convert_operand(zydis, &operands[i], &insn->operand[insn->n_operands++]);
    }
}

/* ---- the rest of the instruction ----------------------------------------------------------------------- */

static void convert_prefixes(const ZydisDecodedInstruction *zydis, unsigned default_size, struct insn *insn)
{
    const ZydisInstructionAttributes repeats =
        ZYDIS_ATTRIB_ACCEPTS_REP | ZYDIS_ATTRIB_ACCEPTS_REPE | ZYDIS_ATTRIB_ACCEPTS_REPNE;
    unsigned other_size = default_size == 4 ? 2 : 4;

    insn->operand_size = (uint8_t)default_size;
    insn->address_size = (uint8_t)default_size;
    for (unsigned i = 0; i < zydis->raw.prefix_count; i++) {
        uint8_t prefix = insn->bytes[i];

        if (prefix == PREFIX_OPERAND_SIZE)
            insn->operand_size = (uint8_t)other_size;
        else if (prefix == PREFIX_ADDRESS_SIZE)
            insn->address_size = (uint8_t)other_size;
        else if ((prefix == PREFIX_REP || prefix == PREFIX_REPNE) && (zydis->attributes & repeats))
            insn->prefixes = prefix == PREFIX_REP ? INSN_REP : INSN_REPNE; /* the last one counts */
    }
    if (zydis->attributes & ZYDIS_ATTRIB_HAS_LOCK)
        insn->prefixes |= INSN_LOCK;
}

static void convert_encoding(const ZydisDecodedInstruction *zydis, struct insn *insn)
{
    static const struct {
        uint8_t number, escape_bytes;
    } maps[] = {
        [ZYDIS_OPCODE_MAP_DEFAULT] = {0, 0},
        [ZYDIS_OPCODE_MAP_0F] = {1, 1},
        [ZYDIS_OPCODE_MAP_0F38] = {2, 2},
        [ZYDIS_OPCODE_MAP_0F3A] = {3, 2},
    };
    unsigned map = (unsigned)zydis->opcode_map;

    insn->opcode = zydis->opcode;
    insn->opcode_map = 0xff;
    if (zydis->encoding == ZYDIS_INSTRUCTION_ENCODING_LEGACY && map < sizeof maps / sizeof maps[0]) {
        insn->opcode_map = maps[map].number;
        insn->opcode_offset = (uint8_t)(zydis->raw.prefix_count + maps[map].escape_bytes);
    }
    insn->has_modrm = (zydis->attributes & ZYDIS_ATTRIB_HAS_MODRM) != 0;
    insn->modrm_offset = insn->has_modrm ? zydis->raw.modrm.offset : 0;
    for (unsigned i = 0; i < 2; i++) { /* two: ENTER iw, ib and the far pointers */
        if (zydis->raw.imm[i].size == 0)
            continue;
        if (insn->immediate_length == 0)
            insn->immediate_offset = zydis->raw.imm[i].offset;
        insn->immediate_length = (uint8_t)(insn->immediate_length + zydis->raw.imm[i].size / 8);
    }
}

static enum decode_status convert_status(ZyanStatus status)
{
    switch (status) {
    case ZYDIS_STATUS_NO_MORE_DATA:
        return DECODE_TRUNCATED;
    case ZYDIS_STATUS_INSTRUCTION_TOO_LONG:
        return DECODE_TOO_LONG;
    default:
        return DECODE_INVALID;
    }
}

enum decode_status decode_insn(const uint8_t *bytes, size_t n, unsigned default_size, struct insn *insn)
{
    const ZydisDecoder *decoder = decode_zydis_decoder(default_size);
    ZydisDecoderContext context;
    ZydisDecodedInstruction zydis;
    ZydisDecodedOperand operands[ZYDIS_MAX_OPERAND_COUNT];
    ZyanStatus status;

    memset(insn, 0, sizeof *insn);
    if (n == 0)
        return DECODE_TRUNCATED;
    status = ZydisDecoderDecodeInstruction(decoder, &context, bytes, n, &zydis);
    if (ZYAN_FAILED(status))
        return convert_status(status);
    status = ZydisDecoderDecodeOperands(decoder, &context, &zydis, operands, zydis.operand_count);
    if (ZYAN_FAILED(status))
        return convert_status(status);

    memcpy(insn->bytes, bytes, zydis.length);
    insn->length = zydis.length;
    insn->mnemonic = (uint16_t)zydis.mnemonic;
    insn->isa_set = (uint8_t)zydis.meta.isa_set;
    convert_prefixes(&zydis, default_size, insn);
    convert_encoding(&zydis, insn);
    convert_operands(&zydis, operands, insn);
    insn->sensitive = sensitive_find(insn);
    return DECODE_OK;
}

const char *decode_status_name(enum decode_status status)
{
    static const char *const names[] = {
        [DECODE_OK] = "ok",
        [DECODE_TRUNCATED] = "truncated",
        [DECODE_TOO_LONG] = "longer than 15 bytes",
        [DECODE_INVALID] = "invalid opcode",
    };

    return names[status];
}

const struct operand *insn_memory_operand(const struct insn *insn)
{
    for (unsigned i = 0; i < insn->n_operands; i++) {
        const struct operand *operand = &insn->operand[i];

        if (operand->kind == OPERAND_MEMORY && !operand->is_implicit && !operand->mem.is_address_only)
            return operand;
    }
    return NULL;
}
