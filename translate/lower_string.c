/*
 * String instructions. ES:EDI takes no segment override, so the registers are moved into the window, and back
 * to 32 bits afterwards. The window lies at a multiple of 4 GiB: the lower halves are the guest's values at
 * any time, also when an element in the middle faults.
 *
 * Few elements are copied or stored by a loop. Kernels use REP MOVS for each memcpy(), and the processor's
 * own way to begin one takes as long as dozens of elements; where the stack of an interrupted program is
 * copied, 0.12 us on an Intel Xeon. Whether they are few, and go upwards, is asked without a flag:
 *
 *         rorx r10, rcx, 5; mov r10d, r10d        the count / 32
 *         mov r8d, [direction]; lea r10, [r10 + r8]
 *         mov r9, rcx; mov rcx, r10; jrcxz few
 *         mov rcx, r9
 *         rep movs
 *         jmp done
 *   few:  mov rcx, r9
 *   next: jrcxz done                              POINT_ELEMENT
 *         mov r9d, [rsi]
 *         mov [rdi], r9d
 *         lea rsi, [rsi + 4]                      POINT_COPIED: all three are still to be done
 *         lea rdi, [rdi + 4]                      POINT_STORED: these two are
 *         lea ecx, [rcx - 1]                      POINT_COUNTS
 *         jmp next                                POINT_ELEMENT
 *   done:
 *
 * Read next: lower_flags.c.
 */
#include "translate/build.h"

#define FEW_SHIFT 5

/* Which of ESI and EDI it uses, by opcode. */
static void registers_of(unsigned opcode, bool *uses_esi, bool *uses_edi)
{
    switch (opcode & 0xfe) {
    case 0xaa: /* stos */
    case 0xae: /* scas */
        *uses_esi = false;
        *uses_edi = true;
        break;
    case 0xac: /* lods */
        *uses_esi = true;
        *uses_edi = false;
        break;
    default: /* movs, cmps */
        *uses_esi = *uses_edi = true;
        break;
    }
}

static bool is_source_flat(const struct builder *b)
{
    for (unsigned i = 0; i < b->insn->n_operands; i++) {
        const struct operand *operand = &b->insn->operand[i];

        if (operand->kind == OPERAND_MEMORY && operand->mem.base == ESI)
            return memory_is_flat(b, (enum segment_index)operand->mem.segment);
    }
    return false;
}

static void move_into_window(struct builder *b, unsigned reg)
{
    unsigned window = R14;

    if (b->is_split) {
        memory_find_window(b, reg);
        window = R9;
    }
    emit_op_index(&b->e, 1, OP_LEA, reg, window, reg, 0, 0);
}

static unsigned size_of_element(const struct insn *insn)
{
    return (insn->opcode & 1) == 0 ? 1 : insn->operand_size;
}

/* Is it REP MOVS or REP STOS, which look at no flag and change none? */
static bool is_plain_repetition(const struct insn *insn)
{
    unsigned opcode = insn->opcode & 0xfe;

    return (insn->prefixes & (INSN_REP | INSN_REPNE)) != 0 && (opcode == 0xa4 || opcode == 0xaa);
}

/* Returns where to put the distance to `few`; ECX is in r9 there. */
static uint8_t *ask_for_few(struct builder *b)
{
    struct emitter *e = &b->e;
    uint8_t *few;

    emit_rotate(e, R10, RCX, FEW_SHIFT);
    emit_mov(e, R10, R10);
    emit_load_context(e, R8, CONTEXT_DF);
    emit_op_index(e, 1, OP_LEA, R10, R10, R8, 0, 0);
    build_save_ecx(b);
    emit_mov64(e, RCX, R10);
    few = emit_short(e, JRCXZ);
    build_restore_ecx(b);
    return few;
}

/* mov or movzx to, [rsi]; mov [rdi], from: of an element */
static void emit_load_element(struct emitter *e, unsigned size)
{
    emit_rex(e, 0, R9, 0, RSI);
    if (size != 4)
        emit_byte(e, 0x0f);
    emit_byte(e, size == 4 ? OP_MOV_LOAD : size == 2 ? MOVZX_WORD : MOVZX_BYTE);
    emit_modrm_base(e, R9, RSI, 0);
}

static void emit_store_element(struct emitter *e, unsigned size, unsigned from)
{
    if (size == 2)
        emit_byte(e, 0x66);
    emit_rex(e, 0, from, 0, RDI);
    emit_byte(e, size == 1 ? OP_MOV_STORE_BYTE : OP_MOV_STORE);
    emit_modrm_base(e, from, RDI, 0);
}

static void element_point(struct builder *b, enum point_kind kind)
{
    build_point(b, kind, b->eip);
    b->points[b->n_points - 1].length = b->insn->length;
}

/* A point's kind for elements of this size, where there are three. */
static enum point_kind sized(enum point_kind of_bytes, unsigned size)
{
    return of_bytes + (unsigned)__builtin_ctz(size);
}

static void emit_few(struct builder *b, bool copies)
{
    unsigned size = size_of_element(b->insn);
    struct emitter *e = &b->e;
    const uint8_t *next;
    uint8_t *done;

    build_ecx_is_saved(b);
    build_restore_ecx(b);
    element_point(b, POINT_ELEMENT);
    next = e->at;
    done = emit_short(e, JRCXZ);
    if (copies)
        emit_load_element(e, size);
    emit_store_element(e, size, copies ? R9 : RAX);
    if (copies) {
        element_point(b, sized(POINT_COPIED, size));
        emit_op_base(e, 1, OP_LEA, RSI, RSI, (int32_t)size);
    }
    element_point(b, sized(POINT_STORED, size));
    emit_op_base(e, 1, OP_LEA, RDI, RDI, (int32_t)size);
    element_point(b, POINT_COUNTS);
    emit_op_base(e, 0, OP_LEA, RCX, RCX, -1);
    element_point(b, POINT_ELEMENT);
    emit_short_back(e, JMP_SHORT, next);
    emit_short_here(e, done);
}

static void emit_instruction(struct emitter *e, const struct insn *insn)
{
    if ((insn->opcode & 1) && insn->operand_size == 2)
        emit_byte(e, 0x66);
    if (insn->prefixes & INSN_REP)
        emit_byte(e, 0xf3);
    else if (insn->prefixes & INSN_REPNE)
        emit_byte(e, 0xf2);
    emit_byte(e, insn->opcode);
}

static void emit_repetition(struct builder *b, bool copies)
{
    uint8_t *few = ask_for_few(b), *done;
    int8_t uncounted = b->uncounted;

    emit_instruction(&b->e, b->insn);
    build_count_this(b);
    build_point(b, POINT_EIP, build_next_eip(b));
    done = emit_short(&b->e, JMP_SHORT);
    b->uncounted = uncounted;
    emit_short_here(&b->e, few);
    emit_few(b, copies);
    emit_short_here(&b->e, done);
}

bool lower_string(struct builder *b)
{
    const struct insn *insn = b->insn;
    bool uses_esi, uses_edi;

    registers_of(insn->opcode, &uses_esi, &uses_edi);
    if (insn->address_size != 4 || (uses_edi && !memory_is_flat(b, SEG_ES)) ||
        (uses_esi && !is_source_flat(b)))
        return false;
    if (uses_esi)
        move_into_window(b, RSI);
    if (uses_edi)
        move_into_window(b, RDI);
    if (is_plain_repetition(insn) && b->source->has_rorx && !b->is_shadowed)
        emit_repetition(b, uses_esi);
    else
        emit_instruction(&b->e, insn);
    build_count_this(b);
    build_point(b, POINT_EIP, build_next_eip(b)); /* done: it must not begin again */
    if (uses_esi)
        emit_mov(&b->e, RSI, RSI);
    if (uses_edi)
        emit_mov(&b->e, RDI, RDI);
    return true;
}
