/*
 * The stack: PUSH, POP and their relatives. None of them moves rsp: it is noted in b->esp by how much ESP
 * differs, and later operands take that into account; one LEA per block makes it good. A naive Fibonacci runs
 * at 1.1 times its native time so, and at twice its time when each push moves rsp.
 *
 * Read next: lower_flow.c.
 */
#include "translate/build.h"

/* mov dword [stack - 4], imm32 */
static void store_immediate(struct builder *b, uint32_t value)
{
    emit_rex(&b->e, 0, 0, R14, RSP);
    emit_byte(&b->e, 0xc7);
    emit_modrm_index(&b->e, 0, RSP, R14, 0, b->esp - 4);
    emit_long(&b->e, value);
}

bool lower_push(struct builder *b)
{
    const struct operand *operand = &b->insn->operand[0];

    if (!memory_is_usual_stack(b))
        return false;
    if (operand->kind == OPERAND_IMMEDIATE) {
        store_immediate(b, (uint32_t)operand->immediate);
    } else if (operand->reg.index == ESP) { /* the value from before */
        emit_op_base(&b->e, 0, OP_LEA, R8, RSP, b->esp);
        memory_stack(b, OP_MOV_STORE, R8, -4);
    } else {
        memory_stack(b, OP_MOV_STORE, operand->reg.index, -4);
    }
    b->esp -= 4;
    return true;
}

/* FF /6 */
bool lower_push_operand(struct builder *b)
{
    const struct operand *operand = &b->insn->operand[0];

    if (!memory_is_usual_stack(b))
        return false;
    if (operand->kind == OPERAND_REGISTER)
        return lower_push(b);
    if (!memory_load(b, operand, R8))
        return false;
    memory_stack(b, OP_MOV_STORE, R8, -4);
    b->esp -= 4;
    return true;
}

bool lower_pop(struct builder *b)
{
    unsigned to = b->insn->operand[0].reg.index;

    if (!memory_is_usual_stack(b))
        return false;
    memory_stack(b, OP_MOV_LOAD, to, 0);
    b->esp = to == RSP ? 0 : (int16_t)(b->esp + 4);
    return true;
}

/* 8F: an ESP in the operand's address is the one after the pop (SDM Vol 2B, POP). */
bool lower_pop_memory(struct builder *b)
{
    const struct operand *operand = &b->insn->operand[0];
    struct form form = {0};

    if (!memory_is_usual_stack(b))
        return false;
    if (operand->kind == OPERAND_REGISTER)
        return lower_pop(b);
    form.reg = R8;
    if (!memory_is_reachable(b, operand, &form))
        return false;
    memory_stack(b, OP_MOV_LOAD, R8, 0);
    b->esp += 4;
    (void)memory_store(b, operand, R8);
    return true;
}

bool lower_pusha(struct builder *b)
{
    if (!memory_is_usual_stack(b))
        return false;
    for (unsigned reg = RAX; reg <= RDI; reg++) {
        unsigned from = reg;

        if (reg == RSP) {
            emit_op_base(&b->e, 0, OP_LEA, R8, RSP, b->esp);
            from = R8;
        }
        memory_stack(b, OP_MOV_STORE, from, -4 * (int32_t)(reg + 1));
    }
    b->esp -= 32;
    return true;
}

/* Both ends are read first, the near one before the far one, as the processor comes to them: after that no
 * page is missing. */
bool lower_popa(struct builder *b)
{
    if (!memory_is_usual_stack(b))
        return false;
    memory_stack(b, OP_MOV_LOAD, R8, 0);
    memory_stack(b, OP_MOV_LOAD, R8, POPA_BYTES - 4);
    b->esp += POPA_BYTES;
    build_count_this(b);
    build_point(b, POINT_POPS_ALL, build_next_eip(b)); /* nothing can fault any more */
    for (unsigned reg = RDI; reg <= RDI; reg--)        /* EDI first, EAX last; ends when 0 wraps */
        if (reg != RSP)
            memory_stack(b, OP_MOV_LOAD, reg, 4 * (int32_t)(RDI - reg) - POPA_BYTES);
    return true;
}

/* ESP takes EBP's value before EBP is read from there: what an interrupt pushes in between lies below it. */
bool lower_leave(struct builder *b)
{
    if (!memory_is_usual_stack(b))
        return false;
    emit_op_index(&b->e, 0, OP_MOV_LOAD, R8, R14, RBP, 0, 0);
    emit_mov(&b->e, RSP, RBP);
    b->esp = 4;
    build_count_this(b);
    build_point(b, POINT_LEAVES, build_next_eip(b));
    emit_mov(&b->e, RBP, R8);
    return true;
}
