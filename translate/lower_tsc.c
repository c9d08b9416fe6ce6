/*
 * RDTSC in line. The guest's TSC is nanoseconds, the host's is not: one multiplication, without touching a
 * flag, by what stands in the context (host_clock.c). EAX and EDX wait in scratch registers until the result
 * is there, so whoever interrupts sees them as they were.
 *
 * With --clock=virtual it is a nanosecond for each instruction, and r11 knows how many are done (meter.c).
 *
 * Where somebody watches, and where the host's TSC is no clock or RORX is missing, it is a call: MODE_TSC is
 * not set (mode.c).
 *
 * Read next: engine.c.
 */
#include "translate/build.h"

/* mulx high, low, by: rdx * by */
static void emit_multiply(struct emitter *e, unsigned high, unsigned low, unsigned by)
{
    emit_byte(e, 0xc4);
    emit_byte(e, (high < R8 ? 0x80 : 0) | 0x40 | (by < R8 ? 0x20 : 0) | 0x02); /* map 0F38 */
    emit_byte(e, 0x80 | (~low & 15) << 3 | 0x03);                              /* W1, F2 */
    emit_byte(e, 0xf6);
    emit_byte(e, 0xc0 | (high & 7) << 3 | (by & 7));
}

/* lea r8, [r8 + reg] */
static void emit_add(struct emitter *e, unsigned reg)
{
    emit_op_index(e, 1, OP_LEA, R8, R8, reg, 0, 0);
}

/* r8 := the host's time, as the context has it of the host's TSC; r11, EAX and EDX are lost */
static void emit_real_time(struct emitter *e)
{
    static const uint8_t rdtsc[] = {0x0f, 0x31};

    emit_bytes(e, rdtsc, sizeof rdtsc);
    emit_rotate(e, R8, RDX, 32); /* the halves change places */
    emit_add(e, RAX);
    emit_load_context64(e, R11, CONTEXT_TSC_BASE);
    emit_add(e, R11);
    emit_load_context64(e, RDX, CONTEXT_TSC_MUL);
    emit_multiply(e, R8, R11, R8);
    emit_load_context64(e, R11, CONTEXT_TSC_ADD);
    emit_add(e, R11);
}

/* r8 := the time by the instructions that are left, and by those that are done and not yet taken off; EDX is
 * lost */
static void emit_counted_time(struct builder *b)
{
    static const uint8_t not_r11[] = {0x4d, 0x89, 0xd8, 0x49, 0xf7, 0xd0}; /* mov r8, r11; not r8: -r11 - 1 */
    struct emitter *e = &b->e;

    emit_bytes(e, not_r11, sizeof not_r11);
    emit_load_context64(e, RDX, CONTEXT_TSC_ADD);
    emit_op_index(e, 1, OP_LEA, R8, R8, RDX, 0, 1 + b->uncounted);
}

bool lower_tsc(struct builder *b)
{
    struct emitter *e = &b->e;

    if (!(b->mode & MODE_TSC) || b->is_shadowed)
        return false;
    emit_mov(e, R10, RAX);
    emit_mov(e, R9, RDX);
    build_point(b, POINT_SAVED_EAX_EDX, b->eip);
    if (b->mode & MODE_COUNT)
        emit_counted_time(b);
    else
        emit_real_time(e);
    emit_mov(e, RAX, R8);
    emit_rotate(e, R8, R8, 32);
    emit_mov(e, RDX, R8);
    return true;
}
