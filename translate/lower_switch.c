/*
 * SYSENTER and SYSEXIT in line. If what they lead to from this mode is noted (switch.c), window and jump
 * table are taken from the note, and what else follows from it is left to the monitor, when it looks next.
 * All else is a call, after which it is noted.
 *
 * Flags are the guest's throughout: neither instruction changes an arithmetic one.
 *
 * Read next: switch.c.
 */
#include "translate/build.h"

static int32_t side_offset(enum switch_kind kind, size_t member)
{
    return (int32_t)(offsetof(struct context, sides) + (size_t)kind * sizeof(struct side) + member);
}

#define SIDE(kind, member) side_offset(kind, offsetof(struct side, member))

/* Returns the jump that is taken, with ecx in r9d, if the side is not known. */
static uint8_t *emit_comparison(struct builder *b, enum switch_kind kind)
{
    struct emitter *e = &b->e;
    uint8_t *miss;

    build_save_ecx(b);
    emit_load_context(e, RCX, SIDE(kind, minus_mode));
    emit_op_base(e, 0, OP_LEA, RCX, RCX, (int32_t)b->mode);
    miss = emit_jump_unless_zero(e);
    build_restore_ecx(b);
    return miss;
}

static void move_segment_window(struct emitter *e, enum segment_index segment)
{
    int32_t offset = (int32_t)(offsetof(struct context, segment_windows) + segment * sizeof(uintptr_t));

    emit_load_context64(e, R10, offset);
    emit_op_index(e, 1, OP_LEA, R10, R10, R9, 0, 0);
    emit_op_base(e, 1, OP_MOV_STORE, R10, R15, offset);
}

/* r8d: where it goes on. From here on a signal handler completes the switch. */
static void emit_switch(struct builder *b, enum switch_kind kind)
{
    struct emitter *e = &b->e;

    emit_store_context_imm(e, offsetof(struct context, switched), (uint32_t)kind + 1);
    emit_load_context(e, R9, SIDE(kind, selectors));
    emit_store_context(e, offsetof(struct context, selectors), R9);
    emit_load_context64(e, R9, SIDE(kind, window_change));
    move_segment_window(e, SEG_FS);
    move_segment_window(e, SEG_GS);
    emit_load_context64(e, R13, SIDE(kind, table));
    emit_load_context64(e, R14, SIDE(kind, window));
    build_dispatch(b);
}

static bool can_switch(const struct builder *b, uint32_t privilege)
{
    return (b->mode & (MODE_USER | MODE_SINGLE)) == privilege;
}

static void finish(struct builder *b, uint8_t *miss, bool was_shadowed, int8_t uncounted)
{
    b->is_shadowed = was_shadowed;
    b->uncounted = uncounted;
    emit_patch(miss, b->e.at);
    build_call_with_saved_ecx(b);
    b->is_shadowed = false;
    build_exit(b, build_next_eip(b)); /* which it never comes to */
}

bool lower_sysenter(struct builder *b)
{
    int8_t uncounted = b->uncounted;
    uint8_t *miss;

    if (!can_switch(b, MODE_USER))
        return false;
    build_flush_esp(b);
    miss = emit_comparison(b, SWITCH_SYSENTER);
    emit_load_context64(&b->e, R8, CONTEXT_VCPU);
    emit_op_base(&b->e, 0, OP_MOV_LOAD, R9, R8, (int32_t)offsetof(struct vcpu, msr.sysenter_esp));
    emit_op_base(&b->e, 0, OP_MOV_LOAD, R8, R8, (int32_t)offsetof(struct vcpu, msr.sysenter_eip));
    build_count_ahead(b);
    build_point(b, POINT_ENTERS, 0);
    emit_mov(&b->e, RSP, R9);
    emit_store_context_imm(&b->e, CONTEXT_IF, 0);
    emit_switch(b, SWITCH_SYSENTER);
    finish(b, miss, false, uncounted);
    return true;
}

/* Behind STI, as kernels have it, interrupts are looked for in ring 3. */
bool lower_sysexit(struct builder *b)
{
    bool was_shadowed = b->is_shadowed;
    int8_t uncounted = b->uncounted;
    uint8_t *miss;

    if (!can_switch(b, 0))
        return false;
    build_flush_esp(b);
    miss = emit_comparison(b, SWITCH_SYSEXIT);
    emit_mov(&b->e, R8, RDX);
    build_count_ahead(b);
    build_point(b, POINT_EXITS, 0);
    emit_mov(&b->e, RSP, RCX);
    emit_switch(b, SWITCH_SYSEXIT);
    finish(b, miss, was_shadowed, uncounted);
    return true;
}
