/*
 * Guest memory operands in host code.
 *
 * Through a flat segment a guest address becomes an address in the window in one of two ways:
 *
 *       [r14 + reg + disp]       fast; but it does not wrap at 4 GiB. What runs over lands in the guard
 * around the window, faults there, and is emulated. So it is for small displacements only.
 *
 *       gs: 67 [the same bytes]  wraps as the guest expects, a cycle or two slower: for everything else, and
 * for AH to BH, which no instruction with a REX prefix can name.
 *
 * The second is ring 3's alone. GS base is the user's window while the kernel runs, too, since to set it
 * costs more than all else of a change of rings (12 ns); in the kernel's code it is lea r8d, and [r14 + r8],
 * and what names AH to BH is left to the emulator (seven instructions of Linux).
 *
 * Through FS or GS with a base (per-processor and thread-local data) it is computed: lea, add the base, [r9
 * + r8]. The sum wraps, since it has 32 bits; r9 is the window, or nowhere while the segment is none. All
 * other segments, and 16-bit addresses, are left to the emulator.
 *
 * Instructions that choose their window (adapt.c), or are told where their operand is (lower_adapted.c), have
 * [r9 + r8] as well.
 *
 * Read next: lower.c.
 */
#include "translate/build.h"

#define SMALL_DISPLACEMENT 0x10000

static const uint32_t flat_bits[SEG_COUNT] = {
    [SEG_ES] = MODE_FLAT_ES, [SEG_CS] = MODE_FLAT_CS, [SEG_SS] = MODE_FLAT_SS, [SEG_DS] = MODE_FLAT_DS};

bool memory_is_flat_in(uint32_t mode, enum segment_index segment)
{
    return (mode & flat_bits[segment]) != 0;
}

bool memory_is_flat(const struct builder *b, enum segment_index segment)
{
    return memory_is_flat_in(b->mode, segment);
}

bool memory_is_usual_stack(const struct builder *b)
{
    return memory_is_flat(b, SEG_SS) && b->insn->operand_size == 4;
}

static bool has_base(const struct builder *b, enum segment_index segment)
{
    return (segment == SEG_FS && (b->mode & MODE_FULL_FS)) || (segment == SEG_GS && (b->mode & MODE_FULL_GS));
}

/* Is GS base its window? */
static bool has_gs(const struct builder *b)
{
    return (b->mode & MODE_USER) != 0;
}

bool memory_is_reachable(const struct builder *b, const struct operand *operand, const struct form *form)
{
    enum segment_index segment = (enum segment_index)operand->mem.segment;

    if (b->insn->address_size != 4)
        return false;
    if (segment == SEG_CS && (operand->access & OPERAND_WRITE))
        return false;
    if (memory_is_flat(b, segment))
        return has_gs(b) || !form->is_high_byte;
    return has_base(b, segment) && !form->is_high_byte;
}

/* ---- pieces of an instruction -------------------------------------------------------------------------- */

static unsigned log_scale(const struct operand *operand)
{
    return (unsigned)__builtin_ctz(operand->mem.scale | 8u);
}

static int32_t displacement_of(const struct builder *b, const struct operand *operand)
{
    return (int32_t)((uint32_t)operand->mem.displacement +
                     (operand->mem.base == RSP ? (uint32_t)b->esp : 0u));
}

static void emit_prefixes(struct emitter *e, const struct form *form)
{
    if (form->lock)
        emit_byte(e, 0xf0);
    if (form->operand16)
        emit_byte(e, 0x66);
    if (form->repeat != 0)
        emit_byte(e, form->repeat);
}

static void emit_opcode(struct emitter *e, const struct form *form)
{
    if (form->map == 1)
        emit_byte(e, 0x0f);
    emit_byte(e, form->opcode);
}

static void emit_window(struct emitter *e, const struct form *form, unsigned base, unsigned index,
                        int32_t displacement)
{
    emit_prefixes(e, form);
    emit_rex(e, 0, form->reg, index, base);
    emit_opcode(e, form);
    emit_modrm_index(e, form->reg, base, index, 0, displacement);
}

/* gs: 67, the operand as the guest has it. Only an address without registers needs another form: in 64-bit
 * mode the guest's would be relative to RIP. A register of the engine's takes a REX prefix: not with AH to
 * BH. */
static void emit_wrapping(struct emitter *e, const struct form *form, const struct operand *operand,
                          int32_t displacement)
{
    emit_byte(e, 0x65);
    emit_byte(e, 0x67);
    emit_prefixes(e, form);
    emit_rex(e, 0, form->reg, 0, 0);
    emit_opcode(e, form);
    if (operand->mem.base >= 0 && operand->mem.index >= 0) {
        emit_modrm_index(e, form->reg, (unsigned)operand->mem.base, (unsigned)operand->mem.index,
                         log_scale(operand), displacement);
    } else if (operand->mem.base >= 0) {
        emit_modrm_base(e, form->reg, (unsigned)operand->mem.base, displacement);
    } else {
        unsigned index = operand->mem.index >= 0 ? (unsigned)operand->mem.index : RSP; /* RSP: none */

        emit_byte(e, (form->reg & 7) << 3 | 4);
        emit_byte(e, log_scale(operand) << 6 | index << 3 | RBP); /* no base */
        emit_long(e, (uint32_t)displacement);
    }
}

/* mov r9d, reg; bswap r9d; movzx r9d, r9b; mov r9, [r15 + r9 * 8 + windows] */
void memory_find_window(struct builder *b, unsigned reg)
{
    struct emitter *e = &b->e;

    emit_mov(e, R9, reg);
    emit_rex(e, 0, 0, 0, R9);
    emit_byte(e, 0x0f);
    emit_byte(e, 0xc8 | (R9 & 7));
    emit_rex(e, 0, R9, 0, R9);
    emit_byte(e, 0x0f);
    emit_byte(e, 0xb6);
    emit_byte(e, 0xc0 | (R9 & 7) << 3 | (R9 & 7));
    emit_op_index(e, 1, OP_MOV_LOAD, R9, R15, R9, 3, CONTEXT_WINDOWS);
}

/* ---- whole instructions -------------------------------------------------------------------------------- */

void memory_emit_address(struct builder *b, const struct operand *operand, unsigned to)
{
    int32_t displacement = displacement_of(b, operand);
    struct emitter *e = &b->e;

    if (operand->mem.base >= 0 && operand->mem.index >= 0) {
        emit_op_index(e, 0, OP_LEA, to, (unsigned)operand->mem.base, (unsigned)operand->mem.index,
                      log_scale(operand), displacement);
    } else if (operand->mem.base >= 0) {
        emit_op_base(e, 0, OP_LEA, to, (unsigned)operand->mem.base, displacement);
    } else if (operand->mem.index >= 0) {
        emit_rex(e, 0, to, 0, 0);
        emit_byte(e, OP_LEA);
        emit_byte(e, (to & 7) << 3 | 4);
        emit_byte(e, log_scale(operand) << 6 | (unsigned)operand->mem.index << 3 | RBP);
        emit_long(e, (uint32_t)displacement);
    } else {
        emit_mov_imm(e, to, (uint32_t)displacement);
    }
}

/* The address alone, in a register that is free: r8, or r10 if r8 is the operand. */
static unsigned emit_sum(struct builder *b, const struct operand *operand, const struct form *form)
{
    unsigned sum = form->reg == R8 ? R10 : R8;

    memory_emit_address(b, operand, sum);
    return sum;
}

static void emit_flat(struct builder *b, const struct operand *operand, const struct form *form)
{
    int32_t displacement = displacement_of(b, operand);
    bool is_small = displacement > -SMALL_DISPLACEMENT && displacement < SMALL_DISPLACEMENT;
    bool has_index = operand->mem.index >= 0;

    if (!form->is_high_byte && !has_index && operand->mem.base == RSP && is_small) {
        emit_window(&b->e, form, RSP, R14, displacement);
    } else if (!form->is_high_byte && !has_index && operand->mem.base >= 0 && is_small) {
        emit_window(&b->e, form, R14, (unsigned)operand->mem.base, displacement);
    } else if (!form->is_high_byte && !has_index && operand->mem.base < 0 && displacement >= 0) {
        emit_prefixes(&b->e, form);
        emit_rex(&b->e, 0, form->reg, 0, R14);
        emit_opcode(&b->e, form);
        emit_modrm_base(&b->e, form->reg, R14, displacement);
    } else if (has_gs(b)) {
        emit_wrapping(&b->e, form, operand, displacement);
    } else {
        emit_window(&b->e, form, R14, emit_sum(b, operand, form), 0);
    }
}

void memory_emit(struct builder *b, const struct operand *operand, const struct form *form)
{
    enum segment_index segment = (enum segment_index)operand->mem.segment;

    if (b->is_reaching) {
        emit_window(&b->e, form, R9, R8, 0);
    } else if (memory_is_flat(b, segment) && b->is_split) {
        unsigned address = emit_sum(b, operand, form);

        memory_find_window(b, address);
        emit_window(&b->e, form, R9, address, 0);
    } else if (memory_is_flat(b, segment)) {
        emit_flat(b, operand, form);
    } else {
        unsigned sum = emit_sum(b, operand, form);

        emit_load_context(&b->e, R9, CONTEXT_BASES + 4 * (int32_t)segment);
        emit_op_index(&b->e, 0, OP_LEA, sum, sum, R9, 0, 0);
        emit_load_context64(&b->e, R9, CONTEXT_SEGMENT_WINDOWS + 8 * (int32_t)segment);
        emit_window(&b->e, form, R9, sum, 0);
    }
    if (form->immediate != NULL)
        emit_bytes(&b->e, form->immediate, form->immediate_length);
}

static bool move(struct builder *b, const struct operand *operand, unsigned opcode, unsigned reg)
{
    struct form form = {.opcode = (uint8_t)opcode, .reg = (uint8_t)reg};

    if (!memory_is_reachable(b, operand, &form))
        return false;
    memory_emit(b, operand, &form);
    return true;
}

bool memory_load(struct builder *b, const struct operand *operand, unsigned to)
{
    return move(b, operand, OP_MOV_LOAD, to);
}

bool memory_store(struct builder *b, const struct operand *operand, unsigned from)
{
    return move(b, operand, OP_MOV_STORE, from);
}

void memory_stack(struct builder *b, unsigned opcode, unsigned reg, int32_t offset)
{
    if (b->is_reaching)
        emit_op_index(&b->e, 0, opcode, reg, R9, R8, 0, 0);
    else
        emit_op_index(&b->e, 0, opcode, reg, RSP, R14, 0, b->esp + offset);
}
