/*
 * Which instructions there are, by kind, as opcodes with a few bits left to chance; the decoder tells what
 * they are. Read next: operand.c.
 */
#include <Zydis/Zydis.h>
#include <string.h>

#include "sequence.h"

#define BIT(reg) (1u << (reg))

static const struct row move_rows[] = {
    {0, 0x88, 3, -1, 0, ROW_MODRM},                  /* mov r/m, r and back */
    {0, 0x88, 3, -1, 0, ROW_MODRM | ROW_MEMORY},     /* */
    {0, 0x8d, 0, -1, 0, ROW_MODRM | ROW_MEMORY},     /* lea */
    {0, 0xa0, 3, -1, BIT(EAX), ROW_MOFFS},           /* mov al, moffs */
    {0, 0xb0, 15, -1, 0, 0},                         /* mov r, imm */
    {0, 0xc6, 1, 0, 0, ROW_MODRM},                   /* mov r/m, imm */
    {1, 0xb6, 9, -1, 0, ROW_MODRM},                  /* movzx, movsx */
    {0, 0x86, 1, -1, 0, ROW_MODRM},                  /* xchg */
    {0, 0x90, 7, -1, BIT(EAX), 0},                   /* xchg eax, r */
    {1, 0xc8, 7, -1, 0, 0},                          /* bswap */
    {0, 0x98, 1, -1, BIT(EAX) | BIT(EDX), 0},        /* cbw, cwd */
    {0, 0xd7, 0, -1, BIT(EAX) | BIT(EBX), ROW_XLAT}, /* xlat */
    {1, 0xc3, 0, -1, 0, ROW_MODRM | ROW_MEMORY},     /* movnti */
};

static const struct row alu_rows[] = {
    {0, 0x00, 0x3b, -1, 0, ROW_MODRM}, /* add or adc sbb and sub xor cmp: r/m, r and back */
    {0, 0x00, 0x3b, -1, 0, ROW_MODRM | ROW_MEMORY},
    {0, 0x10, 0x0b, -1, 0, ROW_MODRM}, /* adc, sbb: they consume CF */
    {0, 0x04, 0x39, -1, BIT(EAX), 0},  /* with al, eax */
    {0, 0x80, 1, -1, 0, ROW_MODRM},    /* with an immediate */
    {0, 0x83, 0, -1, 0, ROW_MODRM},
    {0, 0x84, 1, -1, 0, ROW_MODRM}, /* test */
    {0, 0xa8, 1, -1, 0, 0},
    {0, 0xf6, 1, 0, 0, ROW_MODRM},
    {0, 0xf6, 1, 2, 0, ROW_MODRM}, /* not */
    {0, 0xf6, 1, 3, 0, ROW_MODRM}, /* neg */
    {0, 0x40, 15, -1, 0, 0},       /* inc, dec */
    {0, 0xfe, 1, 0, 0, ROW_MODRM},
    {0, 0xfe, 1, 1, 0, ROW_MODRM},
};

static const struct row shift_rows[] = {
    {0, 0xc0, 1, -1, 0, ROW_MODRM}, /* rol ror rcl rcr shl shr sal sar: imm8 */
    {0, 0xd0, 3, -1, 0, ROW_MODRM}, /* 1, cl */
    {0, 0xd0, 3, 2, 0, ROW_MODRM},  /* rcl, rcr: they consume CF */
    {0, 0xd0, 3, 3, 0, ROW_MODRM},  {1, 0xa4, 1, -1, 0, ROW_MODRM}, /* shld */
    {1, 0xac, 1, -1, 0, ROW_MODRM},                                 /* shrd */
};

static const struct row bit_rows[] = {
    {1, 0xa3, 0x18, -1, 0, ROW_MODRM | ROW_BIT_OFFSET | ROW_CHECKED_FLAGS}, /* bt bts btr btc r/m, r */
    {1, 0xba, 0, 4, 0, ROW_MODRM | ROW_CHECKED_FLAGS},                      /* with imm8 */
    {1, 0xba, 0, 5, 0, ROW_MODRM | ROW_CHECKED_FLAGS | ROW_LOCK},
    {1, 0xba, 0, 6, 0, ROW_MODRM | ROW_CHECKED_FLAGS | ROW_LOCK},
    {1, 0xba, 0, 7, 0, ROW_MODRM | ROW_CHECKED_FLAGS | ROW_LOCK},
    {1, 0xbc, 1, -1, 0, ROW_MODRM | ROW_CHECKED_FLAGS}, /* bsf, bsr */
};

static const struct row multiply_rows[] = {
    {0, 0xf6, 1, 4, BIT(EAX) | BIT(EDX), ROW_MODRM}, /* mul */
    {0, 0xf6, 1, 5, BIT(EAX) | BIT(EDX), ROW_MODRM}, /* imul */
    {0, 0xf6, 1, 6, BIT(EAX) | BIT(EDX), ROW_MODRM | ROW_DIVIDE},
    {0, 0xf6, 1, 7, BIT(EAX) | BIT(EDX), ROW_MODRM | ROW_DIVIDE},
    {1, 0xaf, 0, -1, 0, ROW_MODRM},
    {0, 0x69, 2, -1, 0, ROW_MODRM},
};

static const struct row condition_rows[] = {
    {1, 0x90, 15, -1, 0, ROW_MODRM}, /* setcc */
    {1, 0x40, 15, -1, 0, ROW_MODRM}, /* cmovcc */
    {0, 0x9e, 0, -1, BIT(EAX), 0},   /* sahf */
    {0, 0x9f, 0, -1, BIT(EAX), 0},   /* lahf */
    {0, 0xf5, 0, -1, 0, 0},          /* cmc */
    {0, 0xf8, 1, -1, 0, 0},          /* clc, stc */
    {0, 0xd6, 0, -1, BIT(EAX), 0},   /* salc */
};

static const struct row decimal_rows[] = {
    {0, 0x27, 0x08, -1, BIT(EAX), ROW_CHECKED_FLAGS}, /* daa, das */
    {0, 0x37, 0x08, -1, BIT(EAX), ROW_CHECKED_FLAGS}, /* aaa, aas */
    {0, 0xd4, 0x01, -1, BIT(EAX), ROW_CHECKED_FLAGS}, /* aam, aad */
};

static const struct row atomic_rows[] = {
    {0, 0x00, 0x31, -1, 0, ROW_MODRM | ROW_MEMORY | ROW_LOCK}, /* add to xor (cmp is #UD with LOCK) */
    {0, 0x80, 1, -1, 0, ROW_MODRM | ROW_MEMORY | ROW_LOCK},
    {0, 0x83, 0, -1, 0, ROW_MODRM | ROW_MEMORY | ROW_LOCK},
    {0, 0xfe, 1, 0, 0, ROW_MODRM | ROW_MEMORY | ROW_LOCK},
    {0, 0xfe, 1, 1, 0, ROW_MODRM | ROW_MEMORY | ROW_LOCK},
    {0, 0xf6, 1, 2, 0, ROW_MODRM | ROW_MEMORY | ROW_LOCK},
    {0, 0xf6, 1, 3, 0, ROW_MODRM | ROW_MEMORY | ROW_LOCK},
    {0, 0x86, 1, -1, 0, ROW_MODRM | ROW_LOCK},                               /* xchg */
    {1, 0xc0, 1, -1, 0, ROW_MODRM | ROW_LOCK},                               /* xadd */
    {1, 0xb0, 1, -1, BIT(EAX), ROW_MODRM | ROW_LOCK},                        /* cmpxchg */
    {1, 0xc7, 0, 1, BIT(EAX) | BIT(EDX), ROW_MODRM | ROW_MEMORY | ROW_LOCK}, /* cmpxchg8b */
    {1, 0xab, 0x10, -1, 0, ROW_MODRM | ROW_MEMORY | ROW_BIT_OFFSET | ROW_CHECKED_FLAGS | ROW_LOCK},
};

static const struct row stack_rows[] = {
    {0, 0x50, 7, -1, 0, 0}, /* push r */
    {0, 0x58, 7, -1, 0, 0}, /* pop r */
    {0, 0x68, 2, -1, 0, 0}, /* push imm */
    {0, 0xff, 0, 6, 0, ROW_MODRM}, {0, 0x8f, 0, 0, 0, ROW_MODRM},
};

static const struct row x87_rows[] = {
    {0, 0xd8, 7, -1, 0, ROW_MODRM},
    {0, 0xd8, 7, -1, 0, ROW_MODRM | ROW_MEMORY},
    {0, 0xd8, 7, -1, 0, ROW_MODRM | ROW_REGISTER},
    {0, 0xd9, 0, 0, 0, ROW_MODRM}, /* fld */
    {0, 0xdd, 0, 0, 0, ROW_MODRM | ROW_MEMORY},
    {0, 0xdf, 0, 4, BIT(EAX), ROW_MODRM | ROW_REGISTER}, /* fnstsw ax */
    {0, 0x9b, 0, -1, 0, 0},                              /* fwait */
};

static const struct row mmx_rows[] = {
    {1, 0x60, 15, -1, 0, ROW_MODRM}, {1, 0xd0, 15, -1, 0, ROW_MODRM}, {1, 0xe0, 15, -1, 0, ROW_MODRM},
    {1, 0xf0, 15, -1, 0, ROW_MODRM}, {1, 0x70, 7, -1, 0, ROW_MODRM},  {1, 0xc4, 1, -1, 0, ROW_MODRM},
    {1, 0x77, 0, -1, 0, 0}, /* emms */
};

static const struct row sse_rows[] = {
    {1, 0x10, 7, -1, 0, ROW_MODRM | ROW_SIMD | ROW_ALIGNED},
    {1, 0x28, 7, -1, 0, ROW_MODRM | ROW_SIMD | ROW_ALIGNED},
    {1, 0x50, 15, -1, 0, ROW_MODRM | ROW_SIMD | ROW_ALIGNED},
    {1, 0x58, 7, -1, 0, ROW_MODRM | ROW_SIMD | ROW_ALIGNED},
    {1, 0x60, 15, -1, 0, ROW_MODRM | ROW_SIMD | ROW_ALIGNED},
    {1, 0x70, 15, -1, 0, ROW_MODRM | ROW_SIMD | ROW_ALIGNED},
    {1, 0xc2, 4, -1, 0, ROW_MODRM | ROW_SIMD | ROW_ALIGNED},
    {1, 0xc4, 1, -1, 0, ROW_MODRM | ROW_SIMD | ROW_ALIGNED},
    {1, 0xd0, 15, -1, 0, ROW_MODRM | ROW_SIMD | ROW_ALIGNED},
    {1, 0xe0, 15, -1, 0, ROW_MODRM | ROW_SIMD | ROW_ALIGNED},
    {1, 0xf0, 7, -1, 0, ROW_MODRM | ROW_SIMD | ROW_ALIGNED},
    {1, 0xf8, 7, -1, 0, ROW_MODRM | ROW_SIMD | ROW_ALIGNED},
    {1, 0xae, 0, 2, 0, ROW_MODRM | ROW_MEMORY | ROW_MXCSR},             /* ldmxcsr */
    {1, 0xae, 0, 3, 0, ROW_MODRM | ROW_MEMORY},                         /* stmxcsr */
    {1, 0xae, 0, 7, 0, ROW_MODRM},                                      /* sfence, clflush */
    {1, 0xf7, 0, -1, 0, ROW_MODRM | ROW_REGISTER | ROW_SIMD | ROW_EDI}, /* maskmov */
};

#define GROUP(rows)                                                                                          \
    {                                                                                                        \
        rows, sizeof(rows) / sizeof(rows)[0]                                                                 \
    }

const struct row_group random_rows[KIND_ROWS] = {
    [KIND_MOVE] = GROUP(move_rows),         [KIND_ALU] = GROUP(alu_rows),
    [KIND_SHIFT] = GROUP(shift_rows),       [KIND_BIT] = GROUP(bit_rows),
    [KIND_MULTIPLY] = GROUP(multiply_rows), [KIND_CONDITION] = GROUP(condition_rows),
    [KIND_DECIMAL] = GROUP(decimal_rows),   [KIND_ATOMIC] = GROUP(atomic_rows),
    [KIND_STACK] = GROUP(stack_rows),       [KIND_X87] = GROUP(x87_rows),
    [KIND_MMX] = GROUP(mmx_rows),           [KIND_SSE] = GROUP(sse_rows),
};

static bool has_prefix(const struct insn *insn, uint8_t prefix)
{
    return memchr(insn->bytes, prefix, insn->opcode_offset) != NULL;
}

bool random_is_fair(const struct insn *insn)
{
    if (!decode_is_in_profile(insn) || (insn->sensitive != NULL && insn->sensitive->handler != HANDLE_fpu))
        return false;
    switch (insn->mnemonic) {
    case ZYDIS_MNEMONIC_UD0: /* has a ModRM byte, or has not */
        return false;
    case ZYDIS_MNEMONIC_FNSTENV: /* the FPU's code and data pointers: some models do not keep them */
    case ZYDIS_MNEMONIC_FNSAVE:
    case ZYDIS_MNEMONIC_FXSAVE:
    case ZYDIS_MNEMONIC_FXRSTOR:
    case ZYDIS_MNEMONIC_FLDENV:
    case ZYDIS_MNEMONIC_FRSTOR:
        return false;
    case ZYDIS_MNEMONIC_BSF: /* TZCNT and LZCNT, where the host has them */
    case ZYDIS_MNEMONIC_BSR:
        return !has_prefix(insn, 0xf3) && !has_prefix(insn, 0xf2);
    case ZYDIS_MNEMONIC_NOP: /* 0F 0D with a register: NOP (Intel) or #UD (AMD) */
        return insn->opcode_map != 1 || insn->opcode != 0x0d;
    default:
        return true;
    }
}
