/*
 * Bytes of 64-bit host code. An emitter is a cursor; the functions are named after the instruction, and the
 * comment of each says it in assembly. None of the moves and address computations changes flags: the guest's
 * are in the host's.
 *
 * Private to translate/. Read next: build.h.
 */
#ifndef RING3_TRANSLATE_EMIT_H
#define RING3_TRANSLATE_EMIT_H

#include <stdint.h>
#include <string.h>

enum host_register { RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8, R9, R10, R11, R12, R13, R14, R15 };

struct emitter {
    uint8_t *at;
};

static inline void emit_byte(struct emitter *e, unsigned byte)
{
    *e->at++ = (uint8_t)byte;
}

static inline void emit_long(struct emitter *e, uint32_t value)
{
    memcpy(e->at, &value, sizeof value);
    e->at += sizeof value;
}

static inline void emit_bytes(struct emitter *e, const void *bytes, size_t n)
{
    if (n != 0) /* else there may be no bytes at all */
        memcpy(e->at, bytes, n);
    e->at += n;
}

/* REX with the high bits of ModRM.reg, SIB.index and r/m or SIB.base; left out where it would say nothing. */
static inline void emit_rex(struct emitter *e, unsigned wide, unsigned reg, unsigned index, unsigned base)
{
    unsigned rex = 0x40 | wide << 3 | (reg >> 3) << 2 | (index >> 3) << 1 | base >> 3;

    if (rex != 0x40)
        emit_byte(e, rex);
}

/* rorx to, from, n (64 bits; BMI2): no flag changes */
static inline void emit_rotate(struct emitter *e, unsigned to, unsigned from, unsigned n)
{
    emit_byte(e, 0xc4);
    emit_byte(e, (to < R8 ? 0x80 : 0) | 0x40 | (from < R8 ? 0x20 : 0) | 0x03); /* R X B inverted; map 0F3A */
    emit_byte(e, 0xfb);                                                        /* W1, F2 */
    emit_byte(e, 0xf0);
    emit_byte(e, 0xc0 | (to & 7) << 3 | (from & 7));
    emit_byte(e, n);
}

/* ModRM (and SIB) for [base + displacement]. */
static inline void emit_modrm_base(struct emitter *e, unsigned reg, unsigned base, int32_t displacement)
{
    unsigned mod = displacement == 0 && (base & 7) != RBP ? 0 : displacement == (int8_t)displacement ? 1 : 2;

    emit_byte(e, mod << 6 | (reg & 7) << 3 | (base & 7));
    if ((base & 7) == RSP)
        emit_byte(e, 0x24);
    if (mod == 1)
        emit_byte(e, (uint8_t)displacement);
    else if (mod == 2)
        emit_long(e, (uint32_t)displacement);
}

/* ModRM and SIB for [base + index * scale + displacement]; scale is given by its logarithm. */
static inline void emit_modrm_index(struct emitter *e, unsigned reg, unsigned base, unsigned index,
                                    unsigned scale, int32_t displacement)
{
    unsigned mod = displacement == 0 && (base & 7) != RBP ? 0 : displacement == (int8_t)displacement ? 1 : 2;

    emit_byte(e, mod << 6 | (reg & 7) << 3 | 4);
    emit_byte(e, scale << 6 | (index & 7) << 3 | (base & 7));
    if (mod == 1)
        emit_byte(e, (uint8_t)displacement);
    else if (mod == 2)
        emit_long(e, (uint32_t)displacement);
}

/* mov to, from (32 bits: the upper half becomes zero) */
static inline void emit_mov(struct emitter *e, unsigned to, unsigned from)
{
    emit_rex(e, 0, from, 0, to);
    emit_byte(e, 0x89);
    emit_byte(e, 0xc0 | (from & 7) << 3 | (to & 7));
}

/* mov to, from (64 bits) */
static inline void emit_mov64(struct emitter *e, unsigned to, unsigned from)
{
    emit_rex(e, 1, from, 0, to);
    emit_byte(e, 0x89);
    emit_byte(e, 0xc0 | (from & 7) << 3 | (to & 7));
}

#define MOVZX_BYTE 0xb6
#define MOVZX_WORD 0xb7

/* movzx to, from (8 or 16 bits) */
static inline void emit_movzx(struct emitter *e, unsigned opcode, unsigned to, unsigned from)
{
    emit_rex(e, 0, to, 0, from);
    emit_byte(e, 0x0f);
    emit_byte(e, opcode);
    emit_byte(e, 0xc0 | (to & 7) << 3 | (from & 7));
}

/* movzx ecx, byte ptr [r15 + r8 + displacement]: see landing.c */
static inline void emit_landing(struct emitter *e, uint32_t displacement)
{
    emit_rex(e, 0, RCX, R8, R15);
    emit_byte(e, 0x0f);
    emit_byte(e, MOVZX_BYTE);
    emit_modrm_index(e, RCX, R15, R8, 0, (int32_t)displacement);
}

/* mov to, imm32 */
static inline void emit_mov_imm(struct emitter *e, unsigned to, uint32_t value)
{
    emit_rex(e, 0, 0, 0, to);
    emit_byte(e, 0xb8 | (to & 7));
    emit_long(e, value);
}

/* op reg32, [base + displacement], for a one-byte opcode: 8b mov to, 89 mov from, 8d lea */
static inline void emit_op_base(struct emitter *e, unsigned wide, unsigned opcode, unsigned reg,
                                unsigned base, int32_t displacement)
{
    emit_rex(e, wide, reg, 0, base);
    emit_byte(e, opcode);
    emit_modrm_base(e, reg, base, displacement);
}

static inline void emit_op_index(struct emitter *e, unsigned wide, unsigned opcode, unsigned reg,
                                 unsigned base, unsigned index, unsigned scale, int32_t displacement)
{
    emit_rex(e, wide, reg, index, base);
    emit_byte(e, opcode);
    emit_modrm_index(e, reg, base, index, scale, displacement);
}

#define OP_MOV_STORE_BYTE 0x88
#define OP_MOV_STORE      0x89
#define OP_MOV_LOAD       0x8b
#define JRCXZ             0xe3 /* jrcxz rel8 */
#define JMP_SHORT         0xeb /* jmp rel8 */
#define OP_LEA            0x8d

/* mov reg32, [r15 + offset] and back */
static inline void emit_load_context(struct emitter *e, unsigned reg, int32_t offset)
{
    emit_op_base(e, 0, OP_MOV_LOAD, reg, R15, offset);
}

static inline void emit_store_context(struct emitter *e, int32_t offset, unsigned reg)
{
    emit_op_base(e, 0, OP_MOV_STORE, reg, R15, offset);
}

/* mov reg64, [r15 + offset] */
static inline void emit_load_context64(struct emitter *e, unsigned reg, int32_t offset)
{
    emit_op_base(e, 1, OP_MOV_LOAD, reg, R15, offset);
}

/* mov dword [r15 + offset], imm32 */
static inline void emit_store_context_imm(struct emitter *e, int32_t offset, uint32_t value)
{
    emit_rex(e, 0, 0, 0, R15);
    emit_byte(e, 0xc7);
    emit_modrm_base(e, 0, R15, offset);
    emit_long(e, value);
}

/* jmp [r15 + offset] */
static inline void emit_jump_context(struct emitter *e, int32_t offset)
{
    emit_rex(e, 0, 0, 0, R15);
    emit_byte(e, 0xff);
    emit_modrm_base(e, 4, R15, offset);
}

/* A jump table has two parts, of so many slots each. Indirect jumps find theirs by the low half of EIP, which
 * costs one instruction, and for return addresses, which lie anywhere, that is good enough. Direct ones,
 * which mostly lead to functions, at multiples of 16, and whose slot is known beforehand, have better, and
 * are not in the way of the others. */
#define TABLE_SLOTS 65536u

static inline uint32_t direct_slot(uint32_t eip)
{
    return TABLE_SLOTS + (((eip >> 4) + (eip << 12)) & (TABLE_SLOTS - 1));
}

/* lea r9, [r12 + r9]; jmp r9: to the block whose entry the slot named */
static inline void emit_entry_jump(struct emitter *e)
{
    emit_op_index(e, 1, OP_LEA, R9, R12, R9, 0, 0);
    emit_rex(e, 0, 0, 0, R9);
    emit_byte(e, 0xff);
    emit_byte(e, 0xc0 | 4 << 3 | (R9 & 7));
}

/* mov r9d, [r13 + slot], and there */
static inline void emit_slot_jump(struct emitter *e, uint32_t eip)
{
    emit_op_base(e, 0, OP_MOV_LOAD, R9, R13, (int32_t)(direct_slot(eip) * 4));
    emit_entry_jump(e);
}

/* jmp rel32, to be patched: returns the place of the displacement */
static inline uint8_t *emit_jump(struct emitter *e)
{
    emit_byte(e, 0xe9);
    emit_long(e, 0);
    return e->at - 4;
}

/* jcc rel32 */
static inline uint8_t *emit_jump_if(struct emitter *e, unsigned condition)
{
    emit_byte(e, 0x0f);
    emit_byte(e, 0x80 | condition);
    emit_long(e, 0);
    return e->at - 4;
}

/* JRCXZ or JMP_SHORT, forwards: returns where the distance belongs, for emit_short_here */
static inline uint8_t *emit_short(struct emitter *e, unsigned opcode)
{
    emit_byte(e, opcode);
    emit_byte(e, 0);
    return e->at - 1;
}

static inline void emit_short_here(const struct emitter *e, uint8_t *distance)
{
    *distance = (uint8_t)(e->at - (distance + 1));
}

/* The same backwards */
static inline void emit_short_back(struct emitter *e, unsigned opcode, const uint8_t *target)
{
    uint8_t *distance = emit_short(e, opcode);

    *distance = (uint8_t)(target - e->at);
}

/* jrcxz over the next; jmp, to be patched: taken if rcx is not 0 */
static inline uint8_t *emit_jump_unless_zero(struct emitter *e)
{
    emit_byte(e, JRCXZ);
    emit_byte(e, 5);
    return emit_jump(e);
}

/* Points a jump at `target`; both in the same mapping. */
static inline void emit_patch(uint8_t *displacement, const uint8_t *target)
{
    int32_t distance = (int32_t)(target - (displacement + 4));

    memcpy(displacement, &distance, sizeof distance);
}

#endif
