/*
 * Instructions that keep faulting (adapt.c): the monitor is asked first, and gets the operand's address.
 *
 *       lea r9d, [operand];  mov r8d, number;  jmp [r15 + callout]
 *   1:  mov r9, [r15 + reach];  lea r8d, [operand];  the instruction, with [r9 + r8]
 *   2:
 *
 * Behind the call it goes on at 2 if the monitor has run the instruction: on a device's registers, on a page
 * that somebody must be told of. It goes on at 1 if there is only memory to be accessed, which no window has
 * yet: `reach` leads there (touch.c). What the instruction does is left to the processor then, whatever it
 * is.
 *
 * Read next: touch.c.
 */
#include "translate/build.h"

#include "shadowpt/shadowpt.h"
#include "vcpu/fail.h"

static bool is_plain_register(const struct operand *operand)
{
    return operand->kind == OPERAND_REGISTER && operand->reg.class == REGISTER_GPR32 &&
           operand->reg.index != ESP;
}

/* PUSH and POP of a register: what they access is no operand of theirs. false: it is neither. */
static bool find_stack(const struct builder *b, struct operand *stack)
{
    const struct insn *insn = b->insn;
    bool is_push = insn->opcode_map == 0 && (insn->opcode & 0xf8) == 0x50;
    bool is_pop = insn->opcode_map == 0 && (insn->opcode & 0xf8) == 0x58;

    if ((!is_push && !is_pop) || !memory_is_usual_stack(b) || !is_plain_register(&insn->operand[0]))
        return false;
    *stack = (struct operand){.kind = OPERAND_MEMORY,
                              .access = is_push ? OPERAND_WRITE : OPERAND_READ,
                              .size = 4,
                              .mem = {.base = ESP, .index = -1, .segment = SEG_SS}};
    stack->mem.displacement = is_push ? -4 : 0;
    return true;
}

static bool find_operand(const struct builder *b, struct operand *operand)
{
    const struct operand *only = lower_only_operand(b->insn);
    enum segment_index segment;

    if (only == NULL)
        return find_stack(b, operand);
    segment = (enum segment_index)only->mem.segment;
    *operand = *only;
    return b->insn->address_size == 4 && memory_is_flat(b, segment) &&
           (segment != SEG_CS || !(only->access & OPERAND_WRITE));
}

static uint8_t access_of(const struct builder *b, const struct operand *operand)
{
    return (uint8_t)(((operand->access & OPERAND_WRITE) ? ACCESS_WRITE : ACCESS_READ) |
                     ((b->mode & MODE_USER) ? ACCESS_USER : 0));
}

/* No instruction with a REX prefix can name AH to BH. */
static bool has_high_byte(const struct insn *insn)
{
    for (unsigned i = 0; i < insn->n_operands; i++)
        if (insn->operand[i].kind == OPERAND_REGISTER && insn->operand[i].reg.class == REGISTER_GPR8 &&
            insn->operand[i].reg.index >= 4)
            return true;
    return false;
}

/* Of a PUSH or POP, which is done but for this: the monitor would have moved ESP. */
static void settle_esp(struct builder *b)
{
    if (b->esp == 0)
        return;
    build_point(b, POINT_EIP, build_next_eip(b));
    emit_op_base(&b->e, 0, OP_LEA, RSP, RSP, b->esp);
    b->esp = 0;
}

void lower_adapted(struct builder *b)
{
    struct operand operand;
    struct call *call;
    size_t n_calls;

    if (!find_operand(b, &operand)) {
        build_call(b);
        return;
    }
    call = build_call_with_address(b, &operand);
    call->access_size = operand.size;
    call->access_kind = access_of(b, &operand);
    if (has_high_byte(b->insn) || b->is_shadowed || (b->mode & MODE_COUNT))
        return; /* the monitor runs it in any case */
    n_calls = b->cache->n_calls;
    call->access = build_host(b);
    b->is_reaching = true;
    lower_insn(b);
    b->is_reaching = false;
    BUG_ON(b->cache->n_calls != n_calls);
    settle_esp(b);
    call->resume = build_host(b);
}
