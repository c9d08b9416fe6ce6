/*
 * Instructions that keep faulting (adapt.c): the monitor is asked first, and gets the operand's address.
 *
 *   1:  r8d = the address;  is it in the page that the slot has?  if so: to 2
 *       r9d = the address;  mov r8d, number;  jmp [r15 + callout]
 *   2:  mov r9, [r15 + the slot's]
 *       the instruction, with [r9 + r8]
 *   3:
 *
 * Behind the call it goes on at 3 if the monitor has run the instruction: on a device's registers, on a page
 * that somebody must be told of. If there is only memory to be accessed the instruction is left to the
 * processor, whatever it does: at 1, with the page in the slot, for the next times as well (reach.c).
 *
 * Processors without RORX have no slots, nor has --clock=virtual: a slot is emptied by any signal, and the
 * guest might learn of that by an A bit which it has cleared. There nothing is looked for at 1, and it goes
 * on at 2 each time: r8d = the address, and r9 is the context's `reach`.
 *
 * Flags are the guest's all the while: so RORX finds the page's number, LEA compares, and JRCXZ decides. The
 * slot's number is minus the sum of two pages', that of the operand's first byte and of its last, which are
 * to be the same.
 *
 * Read next: touch.c, reach.c.
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

/* DIV and IDIV: they raise exceptions of their own, and are here for that as well. The emulator spares them a
 * signal. */
static bool is_division(const struct insn *insn)
{
    return insn->opcode_map == 0 && (insn->opcode & 0xfe) == 0xf6 &&
           (insn->bytes[insn->modrm_offset] & 0x30) == 0x30;
}

static bool find_operand(const struct builder *b, struct operand *operand)
{
    const struct operand *only = lower_only_operand(b->insn);
    enum segment_index segment;

    if (is_division(b->insn))
        return false;
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

/* to := the number of the page that the address in `from` is in */
static void emit_page(struct emitter *e, unsigned to, unsigned from)
{
    emit_rotate(e, to, from, PAGE_SHIFT); /* the offset in the page is in the upper half now */
    emit_mov(e, to, to);
}

/* Returns where to put the distance to 2. ECX is in r9 there, and r8d is the address. */
static uint8_t *look_into_slot(struct builder *b, const struct operand *operand, int32_t slot)
{
    struct emitter *e = &b->e;
    bool is_byte = operand->size == 1;
    uint8_t *distance;

    memory_emit_address(b, operand, R8);
    emit_page(e, R10, R8);
    if (!is_byte) {
        emit_op_base(e, 0, OP_LEA, R11, R8, operand->size - 1);
        emit_page(e, R11, R11);
    }
    build_save_ecx(b);
    emit_load_context(e, RCX, slot + SLOT_MINUS_PAGES);
    emit_op_index(e, 0, OP_LEA, RCX, RCX, R10, is_byte ? 1 : 0, 0);
    if (!is_byte)
        emit_op_index(e, 0, OP_LEA, RCX, RCX, R11, 0, 0);
    distance = emit_short(e, JRCXZ);
    build_ecx_is_saved(b);
    build_restore_ecx(b);
    return distance;
}

/* The instruction itself, with its operand at r9 + r8. As behind the call, it is on the count at the end. */
static void emit_access(struct builder *b)
{
    size_t n_calls = b->cache->n_calls;

    b->is_reaching = true;
    lower_insn(b);
    b->is_reaching = false;
    BUG_ON(b->cache->n_calls != n_calls);
    build_count_this(b);
    settle_esp(b);
    build_point(b, POINT_EIP, build_next_eip(b));
    build_flush_count(b, POINT_EIP, build_next_eip(b));
}

/* Those of one kind may share them. */
static uint8_t slot_of(const struct builder *b, uint8_t access_kind)
{
    unsigned kind = ((access_kind & ACCESS_USER) ? 2 : 0) + ((access_kind & ACCESS_WRITE) ? 1 : 0);

    return (uint8_t)(kind * SLOTS_OF_KIND + (unsigned)b->cache->n_calls % SLOTS_OF_KIND);
}

static uint8_t length_to(const uint8_t *end, const uint8_t *start)
{
    BUG_ON(end - start > UINT8_MAX);
    return (uint8_t)(end - start);
}

static int32_t offset_of(uint8_t slot)
{
    return CONTEXT_SLOTS + slot * (int32_t)sizeof(struct slot);
}

void lower_adapted(struct builder *b)
{
    struct operand operand;
    uint8_t access_kind, slot;
    uint8_t *distance = NULL;
    const uint8_t *again;
    struct call *call;
    bool may_reach = !has_high_byte(b->insn) && !b->is_shadowed;
    bool has_slot = may_reach && b->source->has_rorx && !(b->mode & MODE_COUNT);

    if (!find_operand(b, &operand)) {
        build_call(b);
        return;
    }
    build_flush_esp(b);
    access_kind = access_of(b, &operand);
    slot = slot_of(b, access_kind);
    again = build_host(b);
    if (has_slot)
        distance = look_into_slot(b, &operand, offset_of(slot));
    call = build_call_with_address(b, &operand);
    call->access_size = operand.size;
    call->access_kind = access_kind;
    if (!may_reach)
        return; /* the monitor runs it in any case */
    call->slot = slot;
    call->has_slot = has_slot;
    if (has_slot) {
        emit_short_here(&b->e, distance);
        build_ecx_is_saved(b);
        build_restore_ecx(b);
        emit_load_context64(&b->e, R9, offset_of(slot) + SLOT_REACH);
    } else {
        again = build_host(b);
        memory_emit_address(b, &operand, R8);
        emit_load_context64(&b->e, R9, CONTEXT_REACH);
    }
    emit_access(b);
    call->resume = build_host(b);
    call->again_length = length_to(call->resume, again);
}
