/*
 * The frame of a block: its two entries, the instructions, the ways out. See build.h.
 *
 * Layout of a block's code:
 *
 *       miss:      mov rcx, r9;  jmp [r15 + lookup]
 *       entry:     mov r9, rcx;  movzx ecx, byte [landing + r8 - EIP];  jrcxz miss
 *                  mov rcx, r9
 *       direct:    the instructions
 *                  side exits
 *
 * Indirect jumps come to `entry` through a table that may be wrong about who asked: r8d must be the block's
 * EIP. The check is made without touching flags, which are the guest's (landing.c).
 *
 * Read next: memory.c.
 */
#include "translate/build.h"

#include "shadowpt/shadowpt.h"
#include "vcpu/fail.h"

/* ---- points, ESP --------------------------------------------------------------------------------------- */

void build_point(struct builder *b, enum point_kind kind, uint32_t eip)
{
    b->points[b->n_points++] = (struct point){.offset = (uint16_t)(b->e.at - b->start),
                                              .kind = (uint8_t)kind,
                                              .uncounted = b->uncounted,
                                              .esp = b->esp,
                                              .eip = eip};
}

static void point_here(struct builder *b)
{
    build_point(b, b->is_shadowed ? POINT_SHADOWED : POINT_EIP, b->eip);
}

void build_flush_esp(struct builder *b)
{
    if (b->esp == 0)
        return;
    emit_op_base(&b->e, 0, OP_LEA, RSP, RSP, b->esp);
    b->esp = 0;
    point_here(b);
}

/* ---- counting ------------------------------------------------------------------------------------------ */

/* lea r11, [r11 + n] */
static void emit_count(struct builder *b, int n)
{
    emit_op_base(&b->e, 1, OP_LEA, R11, R11, n);
}

void build_count_this(struct builder *b)
{
    if (!(b->mode & MODE_COUNT))
        return;
    b->uncounted++;
    b->is_counted = true;
}

void build_count_ahead(struct builder *b)
{
    if (!(b->mode & MODE_COUNT))
        return;
    emit_count(b, -(b->uncounted + 1));
    b->uncounted = -1;
    point_here(b);
    b->uncounted = 0; /* behind the jump */
    b->is_counted = true;
}

void build_flush_count(struct builder *b, enum point_kind kind, uint32_t eip)
{
    if (b->uncounted == 0)
        return;
    emit_count(b, -b->uncounted);
    b->uncounted = 0;
    build_point(b, kind, eip);
}

/* A short loop has less to do in a turn than there is to count and to check: several turns do so once. */
bool build_repeats(struct builder *b, uint32_t eip)
{
    unsigned n_here = b->block->n_instructions + 1u, n_turn = n_here / (b->n_repeats + 1);

    if (!(b->mode & MODE_COUNT) || (b->mode & MODE_SINGLE) || eip != b->source->eip || b->esp != 0 ||
        b->is_shadowed || b->n_repeats == MAX_REPEATS || n_here + n_turn > ENOUGH_INSTRUCTIONS)
        return false;
    b->n_repeats++;
    b->is_repeating = true;
    return true;
}

/* At a block's beginning: a load from as many bytes below r11 as the block has instructions. It does nothing,
 * unless the budget does not suffice: then it faults (meter.c). */
static void emit_check(struct builder *b)
{
    if (!(b->mode & MODE_COUNT))
        return;
    emit_rex(&b->e, 0, R9, 0, R11);
    emit_byte(&b->e, 0x0f);
    emit_byte(&b->e, 0xb6); /* movzx r9d, byte [r11 - n] */
    emit_byte(&b->e, 2 << 6 | (R9 & 7) << 3 | (R11 & 7));
    b->longest = b->e.at;
    emit_long(&b->e, 0);
}

static void finish_check(struct builder *b)
{
    int32_t displacement = -(int32_t)b->block->n_instructions;

    if (b->longest != NULL)
        memcpy(b->longest, &displacement, sizeof displacement);
}

/* ---- ways out ------------------------------------------------------------------------------------------ */

/* Chaining: within the page, both addresses are mapped together or not at all. */
static bool is_same_page(const struct builder *b, uint32_t eip)
{
    return ((b->source->linear + (eip - b->source->eip)) ^ b->source->linear) <= PAGE_MASK &&
           b->block->second_rpn == 0;
}

static void emit_table_jump(struct builder *b, uint32_t eip)
{
    emit_mov_imm(&b->e, R8, eip);
    emit_slot_jump(&b->e, eip);
}

#define LINK_SIZE         20 /* a link, or the table jump that may take its place */
#define MOV_SIZE          6  /* mov r8d, imm32: both begin with it */
#define LEA_SIZE          7
#define JUMP_CONTEXT_SIZE 4

void build_unlink(uint8_t *link, uint32_t eip)
{
    struct emitter e = {.at = link + MOV_SIZE};

    emit_slot_jump(&e, eip);
    BUG_ON(e.at > link + LINK_SIZE);
}

/* mov r8d, eip; lea r9, [rip - ...]; jmp [r15 + link]: r9 is the end of the jump that led here */
static void emit_link(struct builder *b, const uint8_t *jump_end, uint32_t eip)
{
    static const uint8_t nops[LINK_SIZE - MOV_SIZE - LEA_SIZE - JUMP_CONTEXT_SIZE] = {0x90, 0x90, 0x90};
    int32_t distance;

    emit_mov_imm(&b->e, R8, eip);
    emit_bytes(&b->e, nops, sizeof nops);
    emit_rex(&b->e, 1, R9, 0, 0);
    emit_byte(&b->e, OP_LEA);
    emit_byte(&b->e, (R9 & 7) << 3 | RBP); /* rip-relative */
    distance = (int32_t)(jump_end - (b->e.at + 4));
    emit_long(&b->e, (uint32_t)distance);
    emit_jump_context(&b->e, CONTEXT_LINK);
}

/* mov r9, rcx; mov ecx, [pending]; jrcxz 1f; mov rcx, r9; lookup; 1: mov rcx, r9: if an interrupt waits, the
 * monitor is asked for the way on from `eip`, or with POINT_TARGET from where r8d says. */
static void emit_check_pending(struct builder *b, enum point_kind kind, uint32_t eip)
{
    uint8_t *skip;

    emit_mov64(&b->e, R9, RCX);
    build_point(b, kind == POINT_TARGET ? POINT_ENTRY : POINT_SAVED_ECX, eip);
    emit_load_context(&b->e, RCX, CONTEXT_PENDING);
    skip = emit_short(&b->e, JRCXZ);
    emit_mov64(&b->e, RCX, R9);
    if (kind != POINT_TARGET)
        emit_mov_imm(&b->e, R8, eip);
    emit_jump_context(&b->e, CONTEXT_LOOKUP);
    emit_short_here(&b->e, skip);
    emit_mov64(&b->e, RCX, R9);
}

/* The shadow of STI ends: the guest is at `eip`, and what is left is ESP. A signal must not repeat what is
 * done. */
static void leave_shadow(struct builder *b, uint32_t eip)
{
    b->is_shadowed = false;
    b->eip = eip;
    build_point(b, POINT_EIP, eip);
    build_flush_esp(b);
    build_flush_count(b, POINT_EIP, eip);
    emit_check_pending(b, POINT_EIP, eip);
}

void build_exit(struct builder *b, uint32_t eip)
{
    if (b->is_shadowed)
        leave_shadow(b, eip);
    build_point(b, POINT_EIP, eip);
    build_flush_count(b, POINT_EIP, eip);
    if (is_same_page(b, eip)) {
        uint8_t *displacement = emit_jump(&b->e);

        if (eip == b->source->eip)
            emit_patch(displacement, b->start + b->block->direct);
        else
            emit_link(b, displacement + 4, eip);
    } else {
        emit_table_jump(b, eip);
    }
    b->is_ended = true;
}

void build_dispatch(struct builder *b)
{
    build_point(b, POINT_TARGET, 0);
    build_flush_count(b, POINT_TARGET, 0);
    if (b->is_shadowed) {
        b->is_shadowed = false;
        emit_check_pending(b, POINT_TARGET, 0);
        build_point(b, POINT_TARGET, 0);
    }
    emit_movzx(&b->e, MOVZX_WORD, R9, R8);
    emit_op_index(&b->e, 0, OP_MOV_LOAD, R9, R13, R9, 2, 0);
    emit_entry_jump(&b->e);
    b->is_ended = true;
}

void build_side_exit(struct builder *b, uint8_t *displacement, uint32_t eip)
{
    b->exits[b->n_exits++] = (struct side_exit){
        .displacement = displacement, .eip = eip, .esp = b->esp, .uncounted = b->uncounted};
}

/* Where an instruction of this block begins, if `eip` is one's. */
static const struct point *beginning_of(const struct builder *b, uint32_t eip)
{
    if (eip - b->source->eip >= b->block->guest_size)
        return NULL;
    for (unsigned i = 0; i < b->block->n_instructions; i++) {
        const struct point *point = &b->points[b->beginnings[i]];

        if (point->eip == eip)
            return point->kind == POINT_EIP ? point : NULL;
    }
    return NULL;
}

/* Where a loop in the middle of the block begins. */
static void note_head(struct builder *b, uint32_t eip, const uint8_t *host)
{
    if (b->n_heads == MAX_LOOPS)
        return;
    b->heads[b->n_heads++] = eip;
    b->has_crooked_loop |= (host - b->cache->writable) % CACHE_ALIGNMENT != 0;
}

static bool is_head(const struct builder *b, uint32_t eip)
{
    for (unsigned i = 0; i < b->n_heads; i++)
        if (b->heads[i] == eip)
            return true;
    return false;
}

/* NOP r/m, as long as need be (SDM Vol 2B, table 4-12) */
static void align(struct builder *b)
{
    static const uint8_t nops[8][8] = {{0x90},
                                       {0x66, 0x90},
                                       {0x0f, 0x1f, 0x00},
                                       {0x0f, 0x1f, 0x40},
                                       {0x0f, 0x1f, 0x44},
                                       {0x66, 0x0f, 0x1f, 0x44},
                                       {0x0f, 0x1f, 0x80},
                                       {0x0f, 0x1f, 0x84}};
    size_t n = -(size_t)(b->e.at - b->cache->writable) % CACHE_ALIGNMENT;

    for (size_t length; n > 0; n -= length) {
        length = n < sizeof nops[0] ? n : sizeof nops[0];
        emit_bytes(&b->e, nops[length - 1], length);
    }
}

/* Jumps within the block. What is counted must be counted along the way; and going back takes a check of the
 * budget, which is at the block's beginning only. */
static bool stays_inside(struct builder *b, const struct side_exit *exit, const struct point *inside)
{
    bool is_back = b->start + inside->offset < exit->displacement;

    if ((b->mode & MODE_COUNT) && is_back)
        return false;
    if (is_back)
        note_head(b, exit->eip, b->start + inside->offset);
    if (exit->uncounted == inside->uncounted) {
        emit_patch(exit->displacement, b->start + inside->offset);
        return true;
    }
    emit_patch(exit->displacement, b->e.at);
    build_point(b, POINT_EIP, exit->eip);
    emit_count(b, inside->uncounted - exit->uncounted);
    b->uncounted = inside->uncounted;
    build_point(b, POINT_EIP, exit->eip);
    emit_patch(emit_jump(&b->e), b->start + inside->offset);
    return true;
}

static void emit_side_exits(struct builder *b)
{
    for (unsigned i = 0; i < b->n_exits; i++) {
        const struct side_exit *exit = &b->exits[i];
        const struct point *inside = beginning_of(b, exit->eip);

        b->esp = exit->esp;
        b->uncounted = exit->uncounted;
        if (inside != NULL && inside->esp == exit->esp && stays_inside(b, exit, inside))
            continue;
        if (exit->esp == 0 && exit->uncounted == 0 && is_same_page(b, exit->eip)) {
            if (exit->eip == b->source->eip) {
                emit_patch(exit->displacement, b->start + b->block->direct);
                continue;
            }
            emit_patch(exit->displacement, b->e.at);
            build_point(b, POINT_EIP, exit->eip);
            emit_link(b, exit->displacement + 4, exit->eip);
            continue;
        }
        emit_patch(exit->displacement, b->e.at);
        b->eip = exit->eip; /* it has been reached: what is left is ESP */
        build_point(b, POINT_EIP, exit->eip);
        build_flush_esp(b);
        build_exit(b, exit->eip);
    }
}

/* ---- calls --------------------------------------------------------------------------------------------- */

/* What decides mode and space: CR0, CR3, CR4, EFER, the segments, CPL, the virtual flags. */
static bool keeps_mode(const struct insn *insn)
{
    if (insn->sensitive == NULL)
        return true;
    switch (insn->sensitive->handler) {
    case HANDLE_in:
    case HANDLE_out:
    case HANDLE_ins:
    case HANDLE_outs:
    case HANDLE_cli:
    case HANDLE_sti:
    case HANDLE_hlt:
    case HANDLE_pushf:
    case HANDLE_tsc:
    case HANDLE_cpuid:
    case HANDLE_invlpg:
    case HANDLE_mov_from_segment:
    case HANDLE_push_segment:
    case HANDLE_fpu:
        return true;
    default:
        return false;
    }
}

static bool loads_segment(const struct insn *insn)
{
    return insn->sensitive != NULL && (insn->sensitive->handler == HANDLE_mov_to_segment ||
                                       insn->sensitive->handler == HANDLE_pop_segment);
}

static bool is_quiet(const struct insn *insn)
{
    if (insn->sensitive == NULL)
        return false;
    switch (insn->sensitive->handler) {
    case HANDLE_mov_to_segment:
    case HANDLE_pop_segment:
        return insn->operand[0].reg.index != SEG_SS; /* which holds interrupts back */
    case HANDLE_cpuid:
    case HANDLE_tsc:
    case HANDLE_invlpg:
    case HANDLE_clts:
    case HANDLE_mov_from_segment:
    case HANDLE_push_segment:
        return true;
    default:
        return false;
    }
}

const uint8_t *build_host(const struct builder *b)
{
    return b->cache->executable + (b->e.at - b->cache->writable);
}

struct call *build_call_with_address(struct builder *b, const struct operand *memory)
{
    struct call *call = &b->cache->calls[b->cache->n_calls];

    build_flush_esp(b);
    build_flush_count(b, b->is_shadowed ? POINT_SHADOWED : POINT_EIP, b->eip);
    if (memory != NULL)
        memory_emit_address(b, memory, R9);
    b->is_counted = true; /* by who runs it */
    *call = (struct call){.insn = *b->insn,
                          .eip = b->eip,
                          .block = b->block,
                          .keeps_mode = keeps_mode(b->insn),
                          .loads_segment = loads_segment(b->insn),
                          .is_quiet = is_quiet(b->insn),
                          .quick = quick_of(b->insn, b->mode)};
    emit_mov_imm(&b->e, R8, (uint32_t)b->cache->n_calls++);
    emit_jump_context(&b->e, CONTEXT_CALLOUT);
    call->resume = build_host(b);
    return call;
}

void build_call(struct builder *b)
{
    (void)build_call_with_address(b, quick_operand(b->insn, b->mode));
}

void build_ecx_is_saved(struct builder *b)
{
    build_point(b, b->is_shadowed ? POINT_SHADOWED_ECX : POINT_SAVED_ECX, b->eip);
}

void build_save_ecx(struct builder *b)
{
    emit_mov64(&b->e, R9, RCX);
    build_ecx_is_saved(b);
}

void build_restore_ecx(struct builder *b)
{
    emit_mov64(&b->e, RCX, R9);
    point_here(b);
}

void build_call_with_saved_ecx(struct builder *b)
{
    build_ecx_is_saved(b);
    build_restore_ecx(b);
    build_call(b);
}

/* ---- instructions -------------------------------------------------------------------------------------- */

static void emit_entries(struct builder *b)
{
    build_point(b, POINT_ENTRY, 0);
    emit_mov64(&b->e, RCX, R9);
    build_point(b, POINT_TARGET, 0);
    emit_jump_context(&b->e, CONTEXT_LOOKUP);
    b->block->entry = (uint16_t)(b->e.at - b->start);
    emit_mov64(&b->e, R9, RCX);
    build_point(b, POINT_ENTRY, 0);
    emit_landing(&b->e, CONTEXT_LANDING - b->source->eip);
    emit_short_back(&b->e, JRCXZ, b->start);
    emit_mov64(&b->e, RCX, R9);
    b->block->direct = (uint16_t)(b->e.at - b->start);
    build_point(b, POINT_EIP, b->source->eip);
    emit_check(b);
}

/* The bytes of the next instruction, over the page's end if need be; returns how many there are. */
static uint32_t fetch(const struct builder *b, uint32_t offset, uint8_t bytes[INSN_MAX_LENGTH])
{
    const struct source *source = b->source;
    uint32_t n = source->n - offset < INSN_MAX_LENGTH ? source->n - offset : INSN_MAX_LENGTH;
    uint32_t rest = INSN_MAX_LENGTH - n;

    memcpy(bytes, source->bytes + offset, n);
    if (source->second == NULL)
        return n;
    if (rest > source->second_n)
        rest = source->second_n;
    memcpy(bytes + n, source->second, rest);
    return n + rest;
}

/* false: the block must end before this instruction. */
static bool decode_next(struct builder *b, uint32_t offset)
{
    const struct source *source = b->source;
    uint8_t copy[INSN_MAX_LENGTH];
    const uint8_t *bytes = source->bytes + offset;
    uint32_t n = source->n - offset;

    if (n < INSN_MAX_LENGTH) {
        n = fetch(b, offset, copy);
        bytes = copy;
    }
    if (decode_insn(bytes, n, 4, &b->decoded) != DECODE_OK)
        return false;
    b->insn = &b->decoded;
    if (offset + b->insn->length <= source->n)
        return true;
    /* it crosses: such an instruction is a block by itself */
    if (offset != 0)
        return false;
    b->block->second_rpn = source->second_rpn + 1;
    return true;
}

/* (Another instruction may be at the place by now.) The user's code never chooses: it has one window, and the
 * other is the kernel's, though both may run the same page. */
static void lower_as(struct builder *b, enum adapted adapted)
{
    b->is_split = adapted == ADAPTED_SPLIT && !(b->mode & MODE_USER);
    if ((adapted == ADAPTED_CALL || adapted == ADAPTED_TOUCH) && b->insn->sensitive == NULL)
        lower_adapted(b);
    else
        lower_insn(b);
    b->is_split = false;
}

static void build_instructions(struct builder *b)
{
    const struct source *source = b->source;
    int most = source->mode & MODE_SINGLE ? 1 : MAX_BLOCK_INSTRUCTIONS;
    uint32_t offset = 0;
    bool was_shadowed;

    while (!b->is_ended && offset < source->n && b->block->n_instructions < most &&
           (b->n_exits == 0 || b->block->n_instructions < ENOUGH_INSTRUCTIONS) && decode_next(b, offset)) {
        was_shadowed = b->is_shadowed;
        b->is_counted = false;
        b->eip = source->eip + offset;
        if (is_head(b, b->eip)) {
            point_here(b);
            align(b);
        }
        b->beginnings[b->block->n_instructions] = (uint16_t)b->n_points;
        point_here(b);
        lower_as(b, source->adapted == NULL ? ADAPTED_NOT
                                            : source->adapted(source->ctx, source->place + offset));
        if (!b->is_counted)
            build_count_this(b);
        offset += b->insn->length;
        b->block->n_instructions++;
        if (was_shadowed && !b->is_ended)
            leave_shadow(b, source->eip + offset);
        if (b->block->guest_size < offset)
            b->block->guest_size = (uint16_t)offset;
        if (b->is_repeating)
            offset = 0;
        b->is_repeating = false;
    }
    b->is_shadowed = false;
    if (b->is_ended || b->block->n_instructions == 0)
        return;
    b->eip = source->eip + offset;
    build_point(b, POINT_EIP, b->eip);
    build_flush_esp(b);
    build_exit(b, b->eip);
}

/* Never reached. */
static void make_room_for_seal(struct builder *b)
{
    while (b->e.at < b->start + b->block->direct + SEAL_SIZE)
        emit_jump_context(&b->e, CONTEXT_LOOKUP);
}

/* false: not one instruction could be translated. */
static bool build(struct builder *b)
{
    const struct source *source = b->source;

    b->block = cache_new_block(b->cache);
    b->start = b->cache->writable + b->cache->used;
    b->e.at = b->start;
    b->points = &b->cache->points[b->cache->n_points];
    b->block->place = source->place;
    b->block->eip = source->eip;
    b->block->mode = source->mode;
    emit_entries(b);
    build_instructions(b);
    if (b->block->n_instructions == 0)
        return false;
    emit_side_exits(b);
    finish_check(b);
    make_room_for_seal(b);
    return true;
}

struct block *build_block(struct cache *cache, const struct source *source)
{
    struct builder b = {.cache = cache, .source = source, .mode = source->mode};
    size_t n_calls = cache->n_calls;

    if (!build(&b))
        return NULL;
    if (b.has_crooked_loop) { /* once more, now that it is known where its loops begin */
        struct builder second = {.cache = cache, .source = source, .mode = source->mode};

        memcpy(second.heads, b.heads, sizeof second.heads);
        second.n_heads = b.n_heads;
        cache->n_calls = n_calls;
        (void)build(&second);
        b = second;
    }
    b.block->code_size = (uint32_t)(b.e.at - b.start);
    b.block->n_points = b.n_points;
    cache_add_block(cache, b.block);
    return b.block;
}
