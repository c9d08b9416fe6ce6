/*
 * The instruction set of the virtual CPU, by the extensions that make it up: a Pentium Pro with MMX, FXSR,
 * SSE and SSE2 (the CPUID profile is the same on every host). An extension that is not listed does not exist.
 *
 * Read next: vcpu/cpuid.c, which tells the guest the same.
 */
#include "decode/profile.h"

#include <Zydis/Zydis.h>

enum isa_kind { ISA_OUTSIDE, ISA_INTEGER, ISA_FPU };

static const uint8_t isa_kinds[ZYDIS_ISA_SET_MAX_VALUE + 1] = {
    [ZYDIS_ISA_SET_I86] = ISA_INTEGER,
    [ZYDIS_ISA_SET_I186] = ISA_INTEGER,
    [ZYDIS_ISA_SET_I286REAL] = ISA_INTEGER,
    [ZYDIS_ISA_SET_I286PROTECTED] = ISA_INTEGER,
    [ZYDIS_ISA_SET_I386] = ISA_INTEGER,
    [ZYDIS_ISA_SET_I486] = ISA_INTEGER,
    [ZYDIS_ISA_SET_I486REAL] = ISA_INTEGER,
    [ZYDIS_ISA_SET_PENTIUMREAL] = ISA_INTEGER,
    [ZYDIS_ISA_SET_PPRO] = ISA_INTEGER, /* SYSENTER, SYSEXIT, UD2 */
    [ZYDIS_ISA_SET_CMOV] = ISA_INTEGER,
    [ZYDIS_ISA_SET_RDPMC] = ISA_INTEGER,
    [ZYDIS_ISA_SET_LAHF] = ISA_INTEGER,
    [ZYDIS_ISA_SET_FAT_NOP] = ISA_INTEGER,
    [ZYDIS_ISA_SET_PREFETCH_NOP] = ISA_INTEGER, /* 0F 0D: a NOP since the first x86-64 processors */
    [ZYDIS_ISA_SET_PAUSE] = ISA_INTEGER,
    [ZYDIS_ISA_SET_SSE_PREFETCH] = ISA_INTEGER,
    [ZYDIS_ISA_SET_CLFSH] = ISA_INTEGER,
    [ZYDIS_ISA_SET_X87] = ISA_FPU,
    [ZYDIS_ISA_SET_FCMOV] = ISA_FPU,
    [ZYDIS_ISA_SET_PENTIUMMMX] = ISA_FPU,
    [ZYDIS_ISA_SET_FXSAVE] = ISA_FPU,
    [ZYDIS_ISA_SET_SSE] = ISA_FPU,
    [ZYDIS_ISA_SET_SSEMXCSR] = ISA_FPU,
    [ZYDIS_ISA_SET_SSE2] = ISA_FPU,
    [ZYDIS_ISA_SET_SSE2MMX] = ISA_FPU,
};

bool decode_is_in_profile(const struct insn *insn)
{
    return insn->isa_set <= ZYDIS_ISA_SET_MAX_VALUE && isa_kinds[insn->isa_set] != ISA_OUTSIDE;
}

bool profile_is_fpu(const struct insn *insn)
{
    if (insn->opcode_map == 0 && insn->opcode >= 0xd8 && insn->opcode <= 0xdf)
        return true; /* the x87 escapes: FCOMI came with the Pentium Pro's integer instructions */
    switch (insn->mnemonic) {
    case ZYDIS_MNEMONIC_SFENCE: /* of SSE and SSE2, but without their registers: never #NM */
    case ZYDIS_MNEMONIC_LFENCE:
    case ZYDIS_MNEMONIC_MFENCE:
    case ZYDIS_MNEMONIC_MOVNTI:
        return false;
    default:
        return insn->isa_set <= ZYDIS_ISA_SET_MAX_VALUE && isa_kinds[insn->isa_set] == ISA_FPU;
    }
}
