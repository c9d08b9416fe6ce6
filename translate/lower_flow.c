/*
 * Jumps, calls, returns, and loops.
 *
 * Read next: lower_string.c.
 */
#include "translate/build.h"

static uint32_t target_of(const struct builder *b)
{
    return build_next_eip(b) + (uint32_t)b->insn->operand[0].immediate;
}

static bool is_near(const struct builder *b)
{
    return b->insn->operand_size == 4;
}

static bool is_direct(const struct builder *b)
{
    return is_near(b) && target_of(b) <= b->source->limit;
}

/* Where it leads is not known here. */
static bool is_indirect(const struct builder *b)
{
    return is_near(b) && b->source->limit == UINT32_MAX;
}

/* ---- direct -------------------------------------------------------------------------------------------- */

bool lower_jcc(struct builder *b)
{
    uint8_t *displacement;

    if (!is_direct(b))
        return false;
    if (build_repeats(b, target_of(b))) {
        displacement = emit_jump_if(&b->e, (b->insn->opcode & 0x0f) ^ 1u);
        build_count_this(b);
        build_side_exit(b, displacement, build_next_eip(b));
        return true;
    }
    if (b->esp == 0) /* a loop's jump goes straight back, then */
        build_count_ahead(b);
    displacement = emit_jump_if(&b->e, b->insn->opcode & 0x0f);
    if (!b->is_counted)
        build_count_this(b);
    build_side_exit(b, displacement, target_of(b));
    return true;
}

bool lower_jump(struct builder *b)
{
    if (!is_direct(b))
        return false;
    build_flush_esp(b);
    build_count_this(b);
    build_exit(b, target_of(b));
    return true;
}

/* LOOPNE, LOOPE, LOOP, JECXZ exist in 64-bit mode, with a short displacement only. */
bool lower_loop(struct builder *b)
{
    uint8_t *displacement;

    if (!is_direct(b) || b->insn->address_size != 4)
        return false;
    emit_byte(&b->e, 0x67);
    emit_byte(&b->e, b->insn->opcode);
    emit_byte(&b->e, 2);
    build_count_this(b);
    build_point(b, POINT_EIP, build_next_eip(b));
    emit_byte(&b->e, JMP_SHORT); /* over the next */
    emit_byte(&b->e, 5);
    build_point(b, POINT_EIP, target_of(b));
    displacement = emit_jump(&b->e);
    build_side_exit(b, displacement, target_of(b));
    return true;
}

static void push_return(struct builder *b)
{
    emit_rex(&b->e, 0, 0, R14, RSP);
    emit_byte(&b->e, 0xc7);
    emit_modrm_index(&b->e, 0, RSP, R14, 0, b->esp - 4);
    emit_long(&b->e, build_next_eip(b));
    emit_op_base(&b->e, 0, OP_LEA, RSP, RSP, b->esp - 4);
    b->esp = 0;
    build_count_this(b);
}

bool lower_call(struct builder *b)
{
    if (!is_direct(b) || !memory_is_flat(b, SEG_SS))
        return false;
    push_return(b);
    build_exit(b, target_of(b));
    return true;
}

/* ---- indirect ------------------------------------------------------------------------------------------ */

bool lower_return(struct builder *b)
{
    int32_t extra = b->insn->opcode == 0xc2 ? (int32_t)(uint16_t)b->insn->operand[0].immediate : 0;

    if (!is_indirect(b) || !memory_is_flat(b, SEG_SS))
        return false;
    memory_stack(b, OP_MOV_LOAD, R8, 0);
    emit_op_base(&b->e, 0, OP_LEA, RSP, RSP, b->esp + 4 + extra);
    b->esp = 0;
    build_count_this(b);
    build_dispatch(b);
    return true;
}

static bool load_target(struct builder *b)
{
    const struct operand *operand = &b->insn->operand[0];

    if (operand->kind == OPERAND_MEMORY)
        return memory_load(b, operand, R8);
    if (operand->reg.index == ESP)
        emit_op_base(&b->e, 0, OP_LEA, R8, RSP, b->esp);
    else
        emit_mov(&b->e, R8, operand->reg.index);
    return true;
}

bool lower_jump_indirect(struct builder *b)
{
    if (!is_indirect(b) || !load_target(b))
        return false;
    build_flush_esp(b);
    build_count_this(b);
    build_dispatch(b);
    return true;
}

bool lower_call_indirect(struct builder *b)
{
    if (!is_indirect(b) || !memory_is_flat(b, SEG_SS) || !load_target(b))
        return false;
    push_return(b);
    build_dispatch(b);
    return true;
}
