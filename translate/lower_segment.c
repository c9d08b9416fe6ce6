/*
 * Segment registers.
 *
 * A kernel loads the same few selectors at each way in and out, and their descriptors hardly ever change. So
 * the monitor notes what a load made of selector and descriptor (notes.c), and the next one compares both and
 * takes the result from the note. What else the load depends on does not change while the note is there, or
 * is part of the mode: CPL 0, protected mode, GDTR.
 *
 * Read next: notes.c.
 */
#include "translate/build.h"

static int32_t segment_offset(unsigned segment)
{
    return (int32_t)(offsetof(struct vcpu, segment) + segment * sizeof(struct segment));
}

/* ---- from ---------------------------------------------------------------------------------------------- */

/* movzx to, word [base + offset] */
static void emit_load_word(struct emitter *e, unsigned to, unsigned base, int32_t offset)
{
    emit_rex(e, 0, to, 0, base);
    emit_byte(e, 0x0f);
    emit_byte(e, MOVZX_WORD);
    emit_modrm_base(e, to, base, offset);
}

/* to := the selector; r8 is used on the way. CS and SS may be ahead of the vcpu's (switch.c). */
static void emit_selector(struct builder *b, unsigned to, unsigned segment)
{
    const int32_t selectors = offsetof(struct context, selectors);

    if (segment == SEG_CS || segment == SEG_SS) {
        emit_load_word(&b->e, to, R15, selectors + (segment == SEG_SS ? 2 : 0));
        return;
    }
    emit_load_context64(&b->e, R8, CONTEXT_VCPU);
    emit_load_word(&b->e, to, R8, segment_offset(segment) + (int32_t)offsetof(struct segment, selector));
}

/* Only the lower half of what ESP makes room for is written (SDM Vol 2B, PUSH). */
bool lower_push_segment(struct builder *b)
{
    if (!memory_is_usual_stack(b))
        return false;
    emit_selector(b, R8, b->insn->operand[0].reg.index);
    emit_byte(&b->e, 0x66);
    memory_stack(b, OP_MOV_STORE, R8, -4);
    b->esp -= 4;
    return true;
}

bool lower_mov_from_segment(struct builder *b)
{
    const struct operand *to = &b->insn->operand[0], *from = &b->insn->operand[1];

    if (to->kind != OPERAND_REGISTER || to->reg.index == ESP || b->insn->operand_size != 4)
        return false;
    emit_selector(b, to->reg.index, from->reg.index);
    return true;
}

/* ---- to ------------------------------------------------------------------------------------------------ */

static bool is_flat_by_mode(unsigned segment)
{
    return segment == SEG_DS || segment == SEG_ES;
}

/* The mode stays what it is: only such segments have notes. */
static bool can_load(const struct builder *b, unsigned segment)
{
    static const uint32_t mode_bits[SEG_COUNT] = {
        [SEG_ES] = MODE_FLAT_ES, [SEG_DS] = MODE_FLAT_DS, [SEG_FS] = MODE_FULL_FS, [SEG_GS] = MODE_FULL_GS};

    return !(b->mode & MODE_USER) && !b->is_shadowed && (b->mode & mode_bits[segment]) != 0;
}

/* r10 := the note for the low byte of the selector in r8d; is it for all of it, and is the descriptor in the
 * table still the same? Differences are made with LEA: flags are the guest's. */
static void emit_comparison(struct builder *b, unsigned segment, uint8_t *miss[2])
{
    struct emitter *e = &b->e;

    emit_movzx(e, MOVZX_BYTE, R10, R8);
    emit_op_index(e, 1, OP_MOV_LOAD, R10, R15, R10, 3,
                  is_flat_by_mode(segment) ? CONTEXT_FLAT_NOTES : CONTEXT_FULL_NOTES);
    build_save_ecx(b);
    emit_op_base(e, 0, OP_MOV_LOAD, RCX, R10, NOTE_MINUS_SELECTOR);
    emit_op_index(e, 0, OP_LEA, RCX, RCX, R8, 0, 0);
    miss[0] = emit_jump_unless_zero(e);
    emit_op_base(e, 0, OP_MOV_LOAD, RCX, R10, NOTE_LINEAR);
    emit_op_index(e, 1, OP_MOV_LOAD, RCX, R14, RCX, 0, 0);
    emit_op_base(e, 1, OP_MOV_LOAD, R8, R10, NOTE_MINUS_DESCRIPTOR);
    emit_op_index(e, 1, OP_LEA, RCX, RCX, R8, 0, 0);
    miss[1] = emit_jump_unless_zero(e);
    build_restore_ecx(b);
}

/* From the first store on a signal handler makes the load complete (notes_complete). */
static void emit_load(struct builder *b, unsigned segment, int16_t popped)
{
    struct emitter *e = &b->e;

    emit_load_context64(e, R9, CONTEXT_VCPU);
    emit_op_base(e, 1, OP_MOV_LOAD, R8, R10, NOTE_SEGMENT);
    build_count_this(b);
    b->esp = popped;
    build_point(b, (enum point_kind)(POINT_LOADS_ES + segment), build_next_eip(b));
    emit_op_base(e, 1, OP_MOV_STORE, R8, R9, segment_offset(segment));
    emit_op_base(e, 0, OP_MOV_LOAD, R8, R10, NOTE_SEGMENT + 8);
    emit_op_base(e, 0, OP_MOV_STORE, R8, R9, segment_offset(segment) + 8);
    emit_op_base(e, 0, OP_MOV_LOAD, R8, R10, NOTE_SEGMENT + 4);
    emit_op_base(e, 0, OP_MOV_STORE, R8, R15, CONTEXT_BASES + 4 * (int32_t)segment);
    if (!is_flat_by_mode(segment)) {
        emit_op_base(e, 1, OP_MOV_LOAD, R8, R10, NOTE_WINDOW);
        emit_op_index(e, 1, OP_LEA, R8, R14, R8, 0, 0);
        emit_op_base(e, 1, OP_MOV_STORE, R8, R15, CONTEXT_SEGMENT_WINDOWS + 8 * (int32_t)segment);
    }
    build_point(b, POINT_EIP, build_next_eip(b));
}

/* The selector is in r8d; ESP and the count of instructions are flushed. If the note is not right, it is a
 * call. */
static void load(struct builder *b, unsigned segment, int16_t popped)
{
    uint32_t eip = b->eip;
    uint8_t *miss[2], *done;

    emit_comparison(b, segment, miss);
    emit_load(b, segment, popped);
    b->eip = build_next_eip(b);
    build_flush_esp(b);
    build_flush_count(b, POINT_EIP, b->eip);
    done = emit_jump(&b->e);
    b->eip = eip;
    emit_patch(miss[0], b->e.at);
    emit_patch(miss[1], b->e.at);
    build_call_with_saved_ecx(b);
    emit_patch(done, b->e.at);
}

bool lower_mov_to_segment(struct builder *b)
{
    unsigned segment = b->insn->operand[0].reg.index;
    const struct operand *from = &b->insn->operand[1];
    struct form form = {.map = 1, .opcode = MOVZX_WORD, .reg = R8};

    if (!can_load(b, segment))
        return false;
    if (from->kind == OPERAND_MEMORY ? from->mem.segment == segment || !memory_is_reachable(b, from, &form)
                                     : from->reg.index == ESP)
        return false;
    build_flush_esp(b);
    build_flush_count(b, POINT_EIP, b->eip);
    if (from->kind == OPERAND_MEMORY)
        memory_emit(b, from, &form);
    else
        emit_movzx(&b->e, MOVZX_WORD, R8, from->reg.index);
    load(b, segment, 0);
    return true;
}

bool lower_pop_segment(struct builder *b)
{
    unsigned segment = b->insn->operand[0].reg.index;

    if (!can_load(b, segment) || !memory_is_usual_stack(b))
        return false;
    build_flush_esp(b);
    build_flush_count(b, POINT_EIP, b->eip);
    memory_stack(b, OP_MOV_LOAD, R8, 0);
    emit_movzx(&b->e, MOVZX_WORD, R8, R8);
    load(b, segment, 4);
    return true;
}
