/* Disassembly text: Intel syntax by Zydis's formatter, lower case, no padding of numbers.
 * Read next: sensitive.c. */
#include <stdio.h>
#include <string.h>

#include "decode/decode.h"
#include "decode/zydis_decoder.h"

/* struct insn keeps the effective address size; whether 0x67 stands before it gives back the default size. */
static unsigned default_size(const struct insn *insn)
{
    static const char prefixes[] = "\x26\x2e\x36\x3e\x64\x65\x66\x67\xf0\xf2\xf3";

    for (unsigned i = 0; i < insn->length && memchr(prefixes, insn->bytes[i], sizeof prefixes - 1); i++) {
        if (insn->bytes[i] == 0x67)
            return insn->address_size == 4 ? 2 : 4;
    }
    return insn->address_size;
}

static void format_bytes(const struct insn *insn, char *text, size_t size)
{
    size_t used = 0;

    text[0] = '\0';
    for (unsigned i = 0; i < insn->length && used + 1 < size; i++) {
        int n = snprintf(text + used, size - used, "%s%02x", i == 0 ? "(bytes) " : " ", insn->bytes[i]);

        used += (size_t)n;
    }
}

/* Zydis computes branch targets in 64 bits; eip wraps at 32. Gives the displacement that leads to the wrapped
 * target. */
static void wrap_targets(const ZydisDecodedInstruction *instruction, ZydisDecodedOperand *operands,
                         uint32_t eip)
{
    for (unsigned i = 0; i < instruction->operand_count_visible; i++) {
        ZydisDecodedOperandImm *imm = &operands[i].imm;

        if (operands[i].type == ZYDIS_OPERAND_TYPE_IMMEDIATE && imm->is_relative) {
            uint32_t target = eip + instruction->length + (uint32_t)imm->value.s;

            imm->value.s = (int64_t)target - ((int64_t)eip + instruction->length);
        }
    }
}

void decode_format(const struct insn *insn, uint32_t eip, char *text, size_t size)
{
    ZydisDecodedInstruction instruction;
    ZydisDecodedOperand operands[ZYDIS_MAX_OPERAND_COUNT];
    ZydisFormatter formatter;
    char full[128];

    if (size == 0)
        return;
    if (ZYAN_FAILED(ZydisDecoderDecodeFull(decode_zydis_decoder(default_size(insn)), insn->bytes,
                                           insn->length, &instruction, operands)) ||
        ZYAN_FAILED(ZydisFormatterInit(&formatter, ZYDIS_FORMATTER_STYLE_INTEL))) {
        format_bytes(insn, text, size);
        return;
    }
    wrap_targets(&instruction, operands, eip);
    ZydisFormatterSetProperty(&formatter, ZYDIS_FORMATTER_PROP_HEX_UPPERCASE, ZYAN_FALSE);
    ZydisFormatterSetProperty(&formatter, ZYDIS_FORMATTER_PROP_ADDR_PADDING_ABSOLUTE, ZYDIS_PADDING_DISABLED);
    ZydisFormatterSetProperty(&formatter, ZYDIS_FORMATTER_PROP_DISP_PADDING, ZYDIS_PADDING_DISABLED);
    ZydisFormatterSetProperty(&formatter, ZYDIS_FORMATTER_PROP_IMM_PADDING, ZYDIS_PADDING_DISABLED);
    if (ZYAN_FAILED(ZydisFormatterFormatInstruction(&formatter, &instruction, operands,
                                                    instruction.operand_count_visible, full, sizeof full, eip,
                                                    NULL)))
        format_bytes(insn, text, size);
    else
        snprintf(text, size, "%s", full);
}

const char *decode_mnemonic_name(const struct insn *insn)
{
    const char *name = ZydisMnemonicGetString((ZydisMnemonic)insn->mnemonic);

    return name != NULL ? name : "invalid";
}
