/*
 * What host code may look like, whatever the guest's bytes are: each host instruction of a block is decoded
 * and must keep the rules that confine the guest (memory only through the window, the reserved registers
 * never written, nothing privileged); the points must be complete; and with MODE_COUNT each way through the
 * block must count what it does.
 *
 * HOST_CODE_WRONG(format, ...) says what happens when a rule is broken, and does not return. Read next:
 * test_translate_build.c, ../fuzz/fuzz_translate.c.
 */
#ifndef RING3_UNIT_HOST_CODE_H
#define RING3_UNIT_HOST_CODE_H

#include <Zydis/Zydis.h>
#include <string.h>

#include "shadowpt/shadowpt.h"
#include "translate/build.h"

#define CODE_MAX (16u << 10)

static struct cache cache;
static ZydisDecoder decoder;
static const struct block *block;
static const uint8_t *code;
static bool is_start[CODE_MAX]; /* of a host instruction */

/* ---- one host instruction ------------------------------------------------------------------------------ */

struct host {
    ZydisDecodedInstruction insn;
    ZydisDecodedOperand operand[ZYDIS_MAX_OPERAND_COUNT];
    uint32_t offset;
};

#define REQUIRE_AT(host, condition)                                                                          \
    do {                                                                                                     \
        if (!(condition))                                                                                    \
            fail_at(host, #condition);                                                                       \
    } while (0)

#define REQUIRE(condition) REQUIRE_AT(host, condition)

static void fail_at(const struct host *host, const char *what)
{
    const uint8_t *place = cache.executable + block->code + host->offset;

    HOST_CODE_WRONG("block at %08x in mode %x, host code +%x (%s, guest %08x): not so: %s", block->eip,
                    block->mode, host->offset, ZydisMnemonicGetString(host->insn.mnemonic),
                    block_point_at(&cache, block, place)->eip, what);
}

static void check_that(const struct host *host, bool is_so, const char *what)
{
    if (!is_so)
        fail_at(host, what);
}

#define REQUIRE_OF_BLOCK(condition)                                                                          \
    do {                                                                                                     \
        if (!(condition))                                                                                    \
            HOST_CODE_WRONG("block at %08x in mode %x: not so: %s", block->eip, block->mode, #condition);    \
    } while (0)

static bool is_string(const struct host *host)
{
    return host->insn.meta.category == ZYDIS_CATEGORY_STRINGOP;
}

static bool is_rdtsc(const struct host *host)
{
    return (block->mode & MODE_TSC) && host->insn.mnemonic == ZYDIS_MNEMONIC_RDTSC;
}

/* What makes the guest's TSC of the host's, or finds the number of a page: without changing flags. */
static bool is_arithmetic(const struct host *host)
{
    return host->insn.mnemonic == ZYDIS_MNEMONIC_RORX ||
           ((block->mode & MODE_TSC) && host->insn.mnemonic == ZYDIS_MNEMONIC_MULX);
}

/* Nothing that ring 3 may not do or that leaves the cache by other ways than jumps; no stack of the host's:
 * there is none. FWAIT, EMMS and the like are the guest's own. */
static void check_kind(const struct host *host)
{
    static const ZydisInstructionCategory forbidden[] = {
        ZYDIS_CATEGORY_CALL,   ZYDIS_CATEGORY_RET,        ZYDIS_CATEGORY_PUSH,     ZYDIS_CATEGORY_POP,
        ZYDIS_CATEGORY_IO,     ZYDIS_CATEGORY_IOSTRINGOP, ZYDIS_CATEGORY_SEGOP,    ZYDIS_CATEGORY_SYSCALL,
        ZYDIS_CATEGORY_SYSRET, ZYDIS_CATEGORY_SYSTEM,     ZYDIS_CATEGORY_INTERRUPT};

    REQUIRE(host->insn.encoding == ZYDIS_INSTRUCTION_ENCODING_LEGACY || is_arithmetic(host));
    REQUIRE(!(host->insn.attributes & ZYDIS_ATTRIB_IS_PRIVILEGED));
    for (size_t i = 0; i < sizeof forbidden / sizeof forbidden[0]; i++)
        REQUIRE(host->insn.meta.category != forbidden[i] || is_rdtsc(host));
    REQUIRE(host->insn.mnemonic != ZYDIS_MNEMONIC_LEAVE && host->insn.mnemonic != ZYDIS_MNEMONIC_ENTER);
}

/* By SYSENTER and SYSEXIT, from what is known of the side that they lead to. */
static bool is_loaded_from_side(const struct host *host, size_t member)
{
    const ZydisDecodedOperand *from = &host->operand[1];
    int64_t offset = from->mem.disp.value - (int64_t)(offsetof(struct context, sides) + member);

    return host->insn.mnemonic == ZYDIS_MNEMONIC_MOV && from->type == ZYDIS_OPERAND_TYPE_MEMORY &&
           from->mem.base == ZYDIS_REGISTER_R15 && from->mem.index == ZYDIS_REGISTER_NONE &&
           (offset == SWITCH_SYSENTER * (int64_t)sizeof(struct side) ||
            offset == SWITCH_SYSEXIT * (int64_t)sizeof(struct side));
}

/* r8 to r11 are scratch; r12 and r15 are never written, r13 and r14 by switches only; the guest's registers
 * only so that their upper halves stay zero, but for ECX's way there and back, string instructions, and a
 * factor on the way to EDX's new value. */
static void check_write(const struct host *host, const ZydisDecodedOperand *operand)
{
    ZydisRegister reg = operand->reg.value;
    ZydisRegister whole = ZydisRegisterGetLargestEnclosing(ZYDIS_MACHINE_MODE_LONG_64, reg);
    bool is_wide = ZydisRegisterGetClass(reg) == ZYDIS_REGCLASS_GPR64;

    REQUIRE(ZydisRegisterGetClass(reg) != ZYDIS_REGCLASS_SEGMENT &&
            ZydisRegisterGetClass(reg) != ZYDIS_REGCLASS_CONTROL &&
            ZydisRegisterGetClass(reg) != ZYDIS_REGCLASS_DEBUG);
    if (whole < ZYDIS_REGISTER_RAX || whole > ZYDIS_REGISTER_R15)
        return;
    REQUIRE(whole < ZYDIS_REGISTER_R12 ||
            (reg == ZYDIS_REGISTER_R13 && is_loaded_from_side(host, offsetof(struct side, table))) ||
            (reg == ZYDIS_REGISTER_R14 && is_loaded_from_side(host, offsetof(struct side, window))));
    if (!is_wide || whole >= ZYDIS_REGISTER_R8)
        return;
    if (whole == ZYDIS_REGISTER_RCX)
        REQUIRE(host->insn.mnemonic == ZYDIS_MNEMONIC_MOV || host->insn.mnemonic == ZYDIS_MNEMONIC_LEA ||
                is_string(host));
    else if (whole == ZYDIS_REGISTER_RDX)
        REQUIRE((block->mode & MODE_TSC) && host->insn.mnemonic == ZYDIS_MNEMONIC_MOV &&
                host->operand[1].mem.base == ZYDIS_REGISTER_R15);
    else
        REQUIRE((whole == ZYDIS_REGISTER_RSI || whole == ZYDIS_REGISTER_RDI) &&
                (host->insn.mnemonic == ZYDIS_MNEMONIC_LEA || is_string(host)));
}

static bool is_written(const ZydisDecodedOperand *operand)
{
    return (operand->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE) != 0;
}

/* ---- what r9 and r10 hold ------------------------------------------------------------------------------ */

enum holds {
    HOLDS_ANYTHING,
    HOLDS_BYTE,   /* a number below 256 */
    HOLDS_WINDOW, /* where memory may be reached for, with 32 bits more */
    HOLDS_REACH,  /* where one operand may be, whose address the monitor was told */
    HOLDS_VCPU,
    HOLDS_NOTE,
    HOLDS_ADDRESS, /* ESI or EDI, moved into a window */
    HOLDS_UNSEEN   /* at the head of a loop: what control brings along, and must bring again */
};

/* What LEA, or MOV of a number, makes. */
struct address {
    bool is_known;
    ZydisRegister base, index;
    uint8_t scale;
    int64_t displacement; /* or the number */
};

static struct address address_from(const ZydisDecodedOperand *from)
{
    if (from->type == ZYDIS_OPERAND_TYPE_IMMEDIATE)
        return (struct address){.is_known = true, .displacement = from->imm.value.s};
    if (from->type != ZYDIS_OPERAND_TYPE_MEMORY || from->mem.type != ZYDIS_MEMOP_TYPE_AGEN)
        return (struct address){0};
    return (struct address){true, from->mem.base, from->mem.index, from->mem.scale, from->mem.disp.value};
}

static bool is_same_address(const struct address *a, const struct address *b)
{
    return a->is_known && b->is_known && a->base == b->base && a->index == b->index && a->scale == b->scale &&
           a->displacement == b->displacement;
}

static struct held {
    bool is_known; /* else control has not been seen to get here */
    enum holds r9, r10, rsi, rdi;
    struct address r8d, r10d;
} held, held_at[CODE_MAX + 1]; /* now, and at the targets of jumps */

/* What the monitor was told last, in r9d. */
static struct address told;

static enum holds held_by(ZydisRegister reg)
{
    return reg == ZYDIS_REGISTER_R9    ? held.r9
           : reg == ZYDIS_REGISTER_R10 ? held.r10
           : reg == ZYDIS_REGISTER_RSI ? held.rsi
           : reg == ZYDIS_REGISTER_RDI ? held.rdi
                                       : HOLDS_ANYTHING;
}

static void hold(ZydisRegister reg, enum holds what)
{
    if (reg == ZYDIS_REGISTER_R9)
        held.r9 = what;
    else if (reg == ZYDIS_REGISTER_R10)
        held.r10 = what;
    else if (reg == ZYDIS_REGISTER_RSI)
        held.rsi = what;
    else if (reg == ZYDIS_REGISTER_RDI)
        held.rdi = what;
}

static enum holds join(enum holds a, enum holds b)
{
    return a == b || b == HOLDS_UNSEEN ? a : a == HOLDS_UNSEEN ? b : HOLDS_ANYTHING;
}

static bool is_kept(enum holds at_head, enum holds at_jump)
{
    return at_head == HOLDS_ANYTHING || at_head == HOLDS_UNSEEN || at_head == at_jump;
}

/* One more way to here: only what holds on all of them does. */
static void merge(struct held *to, const struct held *from)
{
    if (!from->is_known)
        return;
    if (!to->is_known)
        *to = *from;
    to->r9 = join(to->r9, from->r9);
    to->r10 = join(to->r10, from->r10);
    to->rsi = join(to->rsi, from->rsi);
    to->rdi = join(to->rdi, from->rdi);
    if (!is_same_address(&to->r8d, &from->r8d))
        to->r8d.is_known = false;
    if (!is_same_address(&to->r10d, &from->r10d))
        to->r10d.is_known = false;
}

static enum holds loaded_from_context(const ZydisDecodedOperand *from)
{
    int64_t offset = from->mem.disp.value;

    if (offset == CONTEXT_VCPU)
        return HOLDS_VCPU;
    if (offset == CONTEXT_REACH || (offset >= CONTEXT_SLOTS && (offset - CONTEXT_SLOTS) % 16 == SLOT_REACH &&
                                    offset < CONTEXT_SLOTS + 16 * (int64_t)SLOTS))
        return HOLDS_REACH;
    if (offset >= CONTEXT_WINDOWS && offset < CONTEXT_FLAT_NOTES)
        return HOLDS_WINDOW;
    return offset >= CONTEXT_FLAT_NOTES && offset < CONTEXT_SLOTS ? HOLDS_NOTE : HOLDS_ANYTHING;
}

/* lea r9d, [...] and the like, or mov r9d, imm */
static void follow_address(const ZydisDecodedOperand *to, const ZydisDecodedOperand *from)
{
    if (to->reg.value == ZYDIS_REGISTER_R9D)
        told = address_from(from);
    else if (to->reg.value == ZYDIS_REGISTER_R8D)
        held.r8d = address_from(from);
    else if (to->reg.value == ZYDIS_REGISTER_R10D)
        held.r10d = address_from(from);
}

/* lea rsi, [window + rsi], or on by an element of up to 4 bytes */
static bool makes_address(const struct host *host)
{
    const ZydisDecodedOperand *to = &host->operand[0], *from = &host->operand[1];

    if (host->insn.mnemonic != ZYDIS_MNEMONIC_LEA ||
        (to->reg.value != ZYDIS_REGISTER_RSI && to->reg.value != ZYDIS_REGISTER_RDI))
        return false;
    if (from->mem.base == to->reg.value)
        return held_by(to->reg.value) == HOLDS_ADDRESS && from->mem.index == ZYDIS_REGISTER_NONE &&
               from->mem.disp.value > 0 && from->mem.disp.value <= 4;
    return (from->mem.base == ZYDIS_REGISTER_R14 || held_by(from->mem.base) == HOLDS_WINDOW) &&
           from->mem.index == to->reg.value && from->mem.scale == 1 && from->mem.disp.value == 0;
}

static void follow_holds(const struct host *host)
{
    const ZydisDecodedOperand *to = &host->operand[0], *from = &host->operand[1];
    bool is_address = makes_address(host);

    for (unsigned i = 0; i < host->insn.operand_count; i++)
        if (host->operand[i].type == ZYDIS_OPERAND_TYPE_REGISTER && is_written(&host->operand[i]))
            hold(ZydisRegisterGetLargestEnclosing(ZYDIS_MACHINE_MODE_LONG_64, host->operand[i].reg.value),
                 HOLDS_ANYTHING);
    if (to->type != ZYDIS_OPERAND_TYPE_REGISTER)
        return;
    if (is_address)
        hold(to->reg.value, HOLDS_ADDRESS);
    if (is_written(to))
        follow_address(to, from);
    if (host->insn.mnemonic == ZYDIS_MNEMONIC_MOVZX && from->size == 8)
        hold(ZydisRegisterGetLargestEnclosing(ZYDIS_MACHINE_MODE_LONG_64, to->reg.value), HOLDS_BYTE);
    if (host->insn.mnemonic == ZYDIS_MNEMONIC_MOV && from->type == ZYDIS_OPERAND_TYPE_MEMORY &&
        from->mem.base == ZYDIS_REGISTER_R15)
        hold(to->reg.value, loaded_from_context(from)); /* all 64 bits */
}

static void check_context_access(const struct host *host, const ZydisDecodedOperand *operand)
{
    int64_t offset = operand->mem.disp.value;

    if (operand->mem.index != ZYDIS_REGISTER_NONE)
        REQUIRE(held_by(operand->mem.index) == HOLDS_BYTE && operand->mem.scale == 8 &&
                !is_written(operand) &&
                (offset == CONTEXT_WINDOWS || offset == CONTEXT_FLAT_NOTES || offset == CONTEXT_FULL_NOTES));
    REQUIRE(offset >= 0 && offset < (int64_t)sizeof(struct context));
    if (is_written(operand))
        REQUIRE(offset == CONTEXT_IF || offset == CONTEXT_DF || offset == CONTEXT_SCRATCH ||
                offset == CONTEXT_FLAGS || offset == CONTEXT_BUDGET ||
                (offset >= CONTEXT_BASES && offset < CONTEXT_ADDRESS) ||
                offset == offsetof(struct context, selectors) ||
                (offset == offsetof(struct context, switched) && host->operand[1].imm.value.u >= 1 &&
                 host->operand[1].imm.value.u <= SWITCH_SYSEXIT + 1) ||
                (offset >= CONTEXT_SEGMENT_WINDOWS && offset < CONTEXT_FLAT_NOTES));
}

/* DS, ES, FS and GS, by the kernel. */
static void check_vcpu_write(const struct host *host, const ZydisDecodedOperand *operand)
{
    int64_t offset = operand->mem.disp.value - (int64_t)offsetof(struct vcpu, segment);
    int64_t segment = offset / (int64_t)sizeof(struct segment);

    REQUIRE(!(block->mode & MODE_USER) && operand->mem.index == ZYDIS_REGISTER_NONE && offset >= 0);
    REQUIRE(segment < SEG_COUNT && segment != SEG_CS && segment != SEG_SS);
    REQUIRE(offset % (int64_t)sizeof(struct segment) + operand->size / 8 <= (int64_t)sizeof(struct segment));
}

/* At the entry: has who comes there the block's EIP? */
static void check_landing(const struct host *host, const ZydisDecodedOperand *operand)
{
    REQUIRE(host->offset == block->entry + 3u && host->insn.mnemonic == ZYDIS_MNEMONIC_MOVZX);
    REQUIRE(!is_written(operand) && operand->size == 8 && operand->mem.scale == 1);
    REQUIRE((uint32_t)operand->mem.disp.value == CONTEXT_LANDING - block->eip);
}

/* The check of the budget, at the beginning: a load from as far below it as the block is long. */
static void check_budget_access(const struct host *host, const ZydisDecodedOperand *operand)
{
    REQUIRE((block->mode & MODE_COUNT) && host->offset == block->direct);
    REQUIRE(host->insn.mnemonic == ZYDIS_MNEMONIC_MOVZX && operand->mem.index == ZYDIS_REGISTER_NONE);
    REQUIRE(operand->mem.disp.value == -(int64_t)block->n_instructions);
}

/* The operand whose address the monitor was told, and no more of memory than it knows of. (BT and its kin
 * would reach for more with a register.) */
static void check_reach(const struct host *host, const ZydisDecodedOperand *operand)
{
    const struct address *address = operand->mem.index == ZYDIS_REGISTER_R10 ? &held.r10d : &held.r8d;
    const struct call *call = NULL;
    uint32_t eip = block_point_at(&cache, block, cache.executable + block->code + host->offset)->eip;

    for (size_t i = cache.n_calls; i > 0 && cache.calls[i - 1].block == block && call == NULL; i--)
        if (cache.calls[i - 1].eip == eip)
            call = &cache.calls[i - 1];
    REQUIRE(call != NULL && call->again_length != 0 && operand->size / 8 <= call->access_size);
    REQUIRE(call->slot / SLOTS_OF_KIND ==
            2u * ((block->mode & MODE_USER) != 0) + ((call->access_kind & ACCESS_WRITE) != 0));
    REQUIRE(((block->mode & MODE_USER) != 0) == ((call->access_kind & ACCESS_USER) != 0));
    REQUIRE(!is_written(operand) || (call->access_kind & ACCESS_WRITE));
    REQUIRE(operand->mem.index == ZYDIS_REGISTER_R8 || operand->mem.index == ZYDIS_REGISTER_R10);
    REQUIRE(operand->mem.scale <= 1 && operand->mem.disp.value == 0 && is_same_address(address, &told));
    REQUIRE(host->insn.mnemonic < ZYDIS_MNEMONIC_BT || host->insn.mnemonic > ZYDIS_MNEMONIC_BTS ||
            host->operand[1].type == ZYDIS_OPERAND_TYPE_IMMEDIATE);
}

/* Of the guest: [r14 + reg32's zero-extended value] or gs: with a 32-bit address. */
static void check_memory(const struct host *host, const ZydisDecodedOperand *operand)
{
    ZydisRegister base = operand->mem.base, index = operand->mem.index;

    if (operand->mem.type != ZYDIS_MEMOP_TYPE_MEM || host->insn.mnemonic == ZYDIS_MNEMONIC_NOP)
        return; /* LEA; it reaches for nothing */
    if (operand->mem.segment == ZYDIS_REGISTER_GS) {
        REQUIRE(host->insn.address_width == 32);
    } else if (is_string(host)) {
        REQUIRE(base == ZYDIS_REGISTER_RSI || base == ZYDIS_REGISTER_RDI);
    } else if (held_by(base) == HOLDS_ADDRESS) {
        REQUIRE(index == ZYDIS_REGISTER_NONE && operand->mem.disp.value == 0 && operand->size <= 32);
    } else if (base == ZYDIS_REGISTER_R14 || held_by(base) == HOLDS_WINDOW) {
        REQUIRE(index < ZYDIS_REGISTER_R12 && operand->mem.scale <= 1);
    } else if (held_by(base) == HOLDS_REACH) {
        check_reach(host, operand);
    } else if (index == ZYDIS_REGISTER_R14) {
        REQUIRE(base == ZYDIS_REGISTER_RSP && operand->mem.scale == 1);
    } else if (base == ZYDIS_REGISTER_R15 && index == ZYDIS_REGISTER_R8) {
        check_landing(host, operand);
    } else if (base == ZYDIS_REGISTER_R15) {
        check_context_access(host, operand);
    } else if (base == ZYDIS_REGISTER_R11) {
        check_budget_access(host, operand);
    } else if (held_by(base) == HOLDS_VCPU && is_written(operand)) {
        check_vcpu_write(host, operand);
    } else if (held_by(base) == HOLDS_NOTE) {
        REQUIRE(!is_written(operand) &&
                operand->mem.disp.value + operand->size / 8 <= (int)sizeof(struct segment_note));
    } else { /* the jump table, the virtual processor */
        REQUIRE(base == ZYDIS_REGISTER_R13 || base == ZYDIS_REGISTER_R8);
        REQUIRE(!is_written(operand));
    }
    REQUIRE(host->insn.address_width == 64 || operand->mem.segment == ZYDIS_REGISTER_GS);
}

static void check_operands(const struct host *host)
{
    for (unsigned i = 0; i < host->insn.operand_count; i++) {
        const ZydisDecodedOperand *operand = &host->operand[i];

        if (operand->type == ZYDIS_OPERAND_TYPE_MEMORY)
            check_memory(host, operand);
        else if (operand->type == ZYDIS_OPERAND_TYPE_REGISTER && is_written(operand))
            check_write(host, operand);
        REQUIRE(operand->type != ZYDIS_OPERAND_TYPE_POINTER);
    }
}

/* Direct jumps stay in the block, where an instruction begins, until they are linked; indirect ones go
 * through the context or the jump table. */
static void check_jump(const struct host *host)
{
    const ZydisDecodedOperand *to = &host->operand[0];
    uint64_t target;

    if (host->insn.meta.category != ZYDIS_CATEGORY_COND_BR &&
        host->insn.meta.category != ZYDIS_CATEGORY_UNCOND_BR)
        return;
    if (to->type == ZYDIS_OPERAND_TYPE_MEMORY) {
        REQUIRE(to->mem.base == ZYDIS_REGISTER_R15 &&
                (to->mem.disp.value == CONTEXT_LOOKUP || to->mem.disp.value == CONTEXT_LINK ||
                 to->mem.disp.value == CONTEXT_CALLOUT));
        return;
    }
    if (to->type == ZYDIS_OPERAND_TYPE_REGISTER) {
        REQUIRE(to->reg.value == ZYDIS_REGISTER_R9);
        return;
    }
    target = host->offset + host->insn.length + (uint64_t)to->imm.value.s;
    REQUIRE(target < block->code_size && is_start[target]);
    if (target <= host->offset)
        held_at[target] = (struct held){.is_known = true, .rsi = HOLDS_UNSEEN, .rdi = HOLDS_UNSEEN};
}

static void follow_jump(const struct host *host)
{
    bool is_always = host->insn.meta.category == ZYDIS_CATEGORY_UNCOND_BR;
    uint64_t next = host->offset + host->insn.length;

    if (!is_always && host->insn.meta.category != ZYDIS_CATEGORY_COND_BR)
        return;
    if (host->operand[0].type == ZYDIS_OPERAND_TYPE_IMMEDIATE && host->operand[0].imm.value.s >= 0) {
        merge(&held_at[next + (uint64_t)host->operand[0].imm.value.s], &held);
    } else if (host->operand[0].type == ZYDIS_OPERAND_TYPE_IMMEDIATE) {
        const struct held *head = &held_at[next + (uint64_t)host->operand[0].imm.value.s];

        REQUIRE(is_kept(head->rsi, held.rsi) && is_kept(head->rdi, held.rdi));
    }
    if (is_always)
        memset(&held, 0, sizeof held);
}

/* ---- a block ------------------------------------------------------------------------------------------- */

static uint32_t decode_at(uint32_t offset, struct host *host)
{
    host->offset = offset;
    if (ZYAN_FAILED(ZydisDecoderDecodeFull(&decoder, code + offset, block->code_size - offset, &host->insn,
                                           host->operand)))
        HOST_CODE_WRONG("block at %08x in mode %x: host code +%x is no instruction", block->eip, block->mode,
                        offset);
    return host->insn.length;
}

static void check_code(void)
{
    struct host host;

    REQUIRE_OF_BLOCK(block->code_size <= CODE_MAX);
    memset(is_start, 0, sizeof is_start);
    memset(held_at, 0, (block->code_size + 1) * sizeof held_at[0]);
    memset(&held, 0, sizeof held);
    for (uint32_t offset = 0; offset < block->code_size; offset += decode_at(offset, &host))
        is_start[offset] = true;
    REQUIRE_OF_BLOCK(is_start[0] && is_start[block->entry] && is_start[block->direct]);
    for (uint32_t offset = 0; offset < block->code_size; offset += decode_at(offset, &host)) {
        decode_at(offset, &host);
        check_jump(&host);
    }
    for (uint32_t offset = 0; offset < block->code_size; offset += decode_at(offset, &host)) {
        decode_at(offset, &host);
        merge(&held_at[offset], &held);
        held = held_at[offset];
        held.is_known = true;
        check_kind(&host);
        check_operands(&host);
        follow_holds(&host);
        follow_jump(&host);
    }
    REQUIRE_OF_BLOCK(host.insn.meta.category == ZYDIS_CATEGORY_UNCOND_BR);
}

static uint32_t decode_guest(const struct source *source, uint32_t offset, struct insn *insn)
{
    uint8_t bytes[INSN_MAX_LENGTH] = {0};

    for (unsigned k = 0; k < sizeof bytes && offset + k < source->n + source->second_n; k++)
        bytes[k] =
            offset + k < source->n ? source->bytes[offset + k] : source->second[offset + k - source->n];
    REQUIRE_OF_BLOCK(decode_insn(bytes, sizeof bytes, 4, insn) == DECODE_OK);
    return insn->length;
}

/* Does it end a turn of the loop that the block is? */
static bool is_turn(const struct insn *insn, uint32_t next)
{
    return ((insn->opcode_map == 0 && (insn->opcode & 0xf0) == 0x70) ||
            (insn->opcode_map == 1 && (insn->opcode & 0xf0) == 0x80)) &&
           next + (uint32_t)insn->operand[0].immediate == 0;
}

/* How many turns of a counted loop follow the first. */
static unsigned count_repeats(const struct source *source)
{
    unsigned n_instructions = 0, n_turn = 0, n_more;
    struct insn insn;

    for (uint32_t next = 0; next < block->guest_size;) {
        next += decode_guest(source, next, &insn);
        n_instructions++;
        if (n_turn == 0 && is_turn(&insn, next))
            n_turn = n_instructions;
    }
    if (block->n_instructions == n_instructions)
        return 0;
    REQUIRE_OF_BLOCK((block->mode & MODE_COUNT) && !(block->mode & MODE_SINGLE) && n_turn != 0);
    REQUIRE_OF_BLOCK(block->n_instructions > n_instructions);
    n_more = block->n_instructions - n_instructions;
    REQUIRE_OF_BLOCK(n_more % n_turn == 0 && n_more / n_turn <= MAX_REPEATS);
    return n_more / n_turn;
}

/* Sorted, at instructions; and each guest instruction has one of its own, in each turn. */
static void check_points(const struct source *source)
{
    unsigned n_repeats = count_repeats(source);
    uint32_t offset = 0, next = 0;
    struct insn insn;

    REQUIRE_OF_BLOCK(block->n_points > 0);
    REQUIRE_OF_BLOCK(block->n_points < 1024);
    REQUIRE_OF_BLOCK(block->points[0].offset == 0);
    for (uint32_t i = 0; i < block->n_points; i++) {
        REQUIRE_OF_BLOCK(block->points[i].offset >= offset);
        offset = block->points[i].offset;
        REQUIRE_OF_BLOCK(offset == block->code_size || is_start[offset]);
    }
    for (unsigned n = 0, i = 0; n < block->n_instructions; n++) {
        while (i < block->n_points &&
               (block->points[i].offset < block->direct || block->points[i].eip != block->eip + next))
            i++;
        REQUIRE_OF_BLOCK(i < block->n_points);
        next += decode_guest(source, next, &insn);
        if (n_repeats != 0 && is_turn(&insn, next)) {
            next = 0;
            n_repeats--;
        }
    }
    REQUIRE_OF_BLOCK(next == block->guest_size);
}

/* It reads guest memory and writes the same: a second time it would do something else. (String instructions
 * of the guest's name their two places by registers that move with them.) */
static bool is_read_and_written(const struct host *host)
{
    for (unsigned i = 0; i < host->insn.operand_count; i++) {
        const ZydisDecodedOperand *operand = &host->operand[i];

        if (operand->type == ZYDIS_OPERAND_TYPE_MEMORY && operand->mem.base != ZYDIS_REGISTER_R15 &&
            is_written(operand) && (operand->actions & ZYDIS_OPERAND_ACTION_MASK_READ))
            return !is_string(host);
    }
    return false;
}

static uint32_t eip_at(uint32_t offset)
{
    return block_point_at(&cache, block, cache.executable + block->code + offset)->eip;
}

/* A signal that comes behind such a host instruction must not find its guest instruction still to be done. */
static void check_steps(void)
{
    struct host host;

    for (uint32_t offset = 0, next; offset < block->code_size; offset = next) {
        next = offset + decode_at(offset, &host);
        if (is_read_and_written(&host))
            check_that(&host, next == block->code_size || eip_at(next) != eip_at(offset),
                       "it is the last of its guest instruction");
    }
}

/* ---- the count of instructions ------------------------------------------------------------------------- */

/* lea r11, [r11 + n]: -n instructions are counted. */
static int counted_by(const struct host *host)
{
    if (!(block->mode & MODE_COUNT))
        return 0; /* r11 is scratch */
    if (host->operand[0].type != ZYDIS_OPERAND_TYPE_REGISTER ||
        host->operand[0].reg.value != ZYDIS_REGISTER_R11 || !is_written(&host->operand[0]))
        return 0;
    REQUIRE(host->insn.mnemonic == ZYDIS_MNEMONIC_LEA);
    REQUIRE(host->operand[1].mem.base == ZYDIS_REGISTER_R11 &&
            host->operand[1].mem.index == ZYDIS_REGISTER_NONE);
    return -(int)host->operand[1].mem.disp.value;
}

/* Guest instructions that end between two points, the second of which comes later; where they have no host
 * code of their own, several do. */
static int ended_between(const struct point *first, const struct point *last)
{
    int n = 0;

    for (; first < last; first++)
        n += first[0].eip != first[1].eip;
    return n;
}

static bool has_eip(const struct point *point)
{
    return point->kind != POINT_TARGET && point->kind != POINT_ENTRY && point->kind != POINT_ENTERS &&
           point->kind != POINT_EXITS;
}

static bool is_jump_to_itself(const struct point *after)
{
    return after > block->points && after[-1].eip == after->eip;
}

/* From one host instruction to the one that runs next: what is done and not yet counted grows where the guest
 * comes to another instruction, and shrinks by what the host instruction counts. */
static void check_step(const struct host *host, uint32_t to, bool is_jump)
{
    const uint8_t *start = cache.executable + block->code;
    const struct point *before = block_point_at(&cache, block, start + host->offset);
    const struct point *after = block_point_at(&cache, block, start + to);
    int done = after->uncounted - before->uncounted + counted_by(host);

    if (!(block->mode & MODE_COUNT)) {
        REQUIRE(after->uncounted == 0);
        return;
    }
    if (!has_eip(before) || !has_eip(after)) {
        REQUIRE(done == (has_eip(before) != has_eip(after)));
        return;
    }
    if (!is_jump) {
        done -= ended_between(before, after);
        REQUIRE(done == 0 || (done == 1 && is_jump_to_itself(after)));
        return;
    }
    for (const struct point *to_point = after; to_point >= block->points && to_point->offset == after->offset;
         to_point--)
        if (done - ended_between(to_point, after) == (before->eip != to_point->eip) ||
            (before->eip == to_point->eip && done - ended_between(to_point, after) == 1))
            return;
    REQUIRE(!"a jump counts what it should");
}

static void check_count(void)
{
    struct host host;

    for (uint32_t offset = block->direct; offset < block->code_size; offset += host.insn.length) {
        const ZydisDecodedOperand *to = &host.operand[0];
        uint32_t next;

        decode_at(offset, &host);
        next = offset + host.insn.length;
        if ((host.insn.meta.category == ZYDIS_CATEGORY_COND_BR ||
             host.insn.meta.category == ZYDIS_CATEGORY_UNCOND_BR) &&
            to->type == ZYDIS_OPERAND_TYPE_IMMEDIATE)
            check_step(&host, next + (uint32_t)to->imm.value.s, true);
        if (host.insn.meta.category != ZYDIS_CATEGORY_UNCOND_BR && next < block->code_size)
            check_step(&host, next, false);
    }
}

/* ---- death --------------------------------------------------------------------------------------------- */

/* A signal may come behind any instruction of the way out of a dead block, too. */
static void check_way_out(uint32_t offset, bool is_direct)
{
    struct host host;

    do {
        const uint8_t *place = cache.executable + block->code + offset;
        struct point state = block_state_at(&cache, block, place);

        decode_at(offset, &host);
        check_kind(&host);
        check_operands(&host);
        if (is_direct)
            REQUIRE_AT(&host, state.kind == POINT_EIP && state.eip == block->eip);
        else
            REQUIRE_AT(&host, state.kind == POINT_TARGET);
        REQUIRE_AT(&host, state.esp == 0 && state.uncounted == 0);
        offset += host.insn.length;
    } while (host.insn.meta.category != ZYDIS_CATEGORY_UNCOND_BR);
}

static void check_death(void)
{
    cache_kill_place(&cache, block->place);
    REQUIRE_OF_BLOCK(block->is_dead);
    check_way_out(block->entry, false);
    check_way_out(block->direct, true);
    cache_kill_page(&cache, (uint32_t)(block->place >> PAGE_SHIFT)); /* out of the list */
}

/* false: no block can be made of it. */
static bool build_alive(const struct source *source)
{
    size_t n_calls;

    if (!cache_has_room(&cache))
        cache_empty(&cache);
    n_calls = cache.n_calls;
    block = build_block(&cache, source);
    if (block == NULL)
        return false;
    code = cache.writable + block->code;
    REQUIRE_OF_BLOCK(cache.n_calls - n_calls <= 128);
    check_code();
    check_points(source);
    check_steps();
    check_count();
    for (size_t i = n_calls; i < cache.n_calls; i++)
        REQUIRE_OF_BLOCK(cache.calls[i].block == block &&
                         is_start[cache.calls[i].resume - cache.executable - block->code]);
    return true;
}

/* The same, and dead afterwards. */
static inline bool build(const struct source *source)
{
    if (!build_alive(source))
        return false;
    check_death();
    return true;
}

#endif
