/*
 * vcpu/relocate.c on any instruction: what it lets into a stub fits there, and is a 64-bit instruction that
 * touches no memory but the slot and no register of the monitor's. The check here is a second one, by the
 * decoder alone.
 */
#include <Zydis/Zydis.h>

#include "decode/decode.h"
#include "fuzz.h"
#include "vcpu/ordinary.h"

static void check_relocated(const struct relocated *relocated)
{
    /* As decode.c has it: the bytes of TZCNT and MPX are what they were before. */
    static const ZydisDecoder decoder = {.machine_mode = ZYDIS_MACHINE_MODE_LONG_64,
                                         .stack_width = ZYDIS_STACK_WIDTH_64,
                                         .decoder_mode = {ZYAN_FALSE}};
    ZydisDecodedInstruction insn;
    ZydisDecodedOperand operands[ZYDIS_MAX_OPERAND_COUNT];

    FUZZ_CHECK(relocated->length > 0 && relocated->length <= RELOCATED_MAX);
    FUZZ_CHECK(
        ZYAN_SUCCESS(ZydisDecoderDecodeFull(&decoder, relocated->bytes, relocated->length, &insn, operands)));
    FUZZ_CHECK(insn.length == relocated->length);
    FUZZ_CHECK(insn.meta.category != ZYDIS_CATEGORY_SYSCALL && insn.meta.category != ZYDIS_CATEGORY_CALL &&
               insn.meta.category != ZYDIS_CATEGORY_UNCOND_BR &&
               insn.meta.category != ZYDIS_CATEGORY_COND_BR && insn.meta.category != ZYDIS_CATEGORY_PUSH &&
               insn.meta.category != ZYDIS_CATEGORY_POP);
    FUZZ_CHECK((insn.attributes & ZYDIS_ATTRIB_IS_PRIVILEGED) == 0);
    for (unsigned i = 0; i < insn.operand_count; i++) {
        const ZydisDecodedOperand *operand = &operands[i];

        if (operand->type == ZYDIS_OPERAND_TYPE_MEMORY)
            FUZZ_CHECK(operand->mem.base == ZYDIS_REGISTER_RIP && relocated->displacement_offset != 0);
        if (operand->type == ZYDIS_OPERAND_TYPE_REGISTER)
            FUZZ_CHECK(ZydisRegisterGetLargestEnclosing(ZYDIS_MACHINE_MODE_LONG_64, operand->reg.value) !=
                       ZYDIS_REGISTER_RSP);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    struct insn insn;
    struct relocated relocated;

    for (unsigned size = 2; size <= 4; size += 2) {
        if (decode_insn(bytes, n, size, &insn) == DECODE_OK && relocate_insn(&insn, &relocated))
            check_relocated(&relocated);
    }
    return 0;
}
