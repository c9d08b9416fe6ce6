/*
 * The hot sensitive instructions, in line: IF and the other virtual flags live in the context, so that CLI is
 * one move. Everything else sensitive is a call into the monitor.
 *
 * Read next: lower_segment.c.
 */
#include "translate/build.h"

#define POPF_SYSTEM (EFLAGS_TF | EFLAGS_NT | EFLAGS_AC | EFLAGS_ID)

static bool is_kernel(const struct builder *b)
{
    return !(b->mode & MODE_USER);
}

/* ---- IF ------------------------------------------------------------------------------------------------ */

bool lower_cli(struct builder *b)
{
    if (!is_kernel(b)) /* IOPL decides */
        return false;
    emit_store_context_imm(&b->e, CONTEXT_IF, 0);
    return true;
}

/* The instruction after STI is not interrupted; interrupts are looked for behind it. If it may jump or not,
 * there are two places to look for them: then STI is a call. */
bool lower_sti(struct builder *b)
{
    const struct source *source = b->source;
    uint32_t offset = b->eip + b->insn->length - source->eip;
    struct insn next;

    if (!is_kernel(b) || (b->mode & MODE_SINGLE) || b->is_shadowed ||
        b->block->n_instructions + 2 > MAX_BLOCK_INSTRUCTIONS || offset >= source->n ||
        decode_insn(source->bytes + offset, source->n - offset, 4, &next) != DECODE_OK ||
        !lower_has_one_way(&next))
        return false;
    emit_store_context_imm(&b->e, CONTEXT_IF, EFLAGS_IF);
    b->is_shadowed = true;
    return true;
}

/* ---- PUSHF, POPF --------------------------------------------------------------------------------------- */

/* EAX goes to r10d, and the arithmetic flags to AX: as in the context. */
static void take_flags(struct builder *b)
{
    static const uint8_t lahf_seto_al[] = {0x9f, 0x0f, 0x90, 0xc0};

    emit_mov(&b->e, R10, RAX);
    build_point(b, POINT_SAVED_EAX, b->eip);
    emit_bytes(&b->e, lahf_seto_al, sizeof lahf_seto_al);
}

/* The arithmetic flags by LAHF and SETO, the virtual ones added: no two have a bit in common. */
bool lower_pushf(struct builder *b)
{
    static const int32_t virtual[] = {CONTEXT_VIRTUAL, CONTEXT_IF, CONTEXT_DF};
    struct emitter *e = &b->e;

    if (!memory_is_usual_stack(b) || b->is_shadowed)
        return false;
    take_flags(b);
    emit_store_context(e, CONTEXT_SCRATCH, RAX);
    emit_mov(e, RAX, R10);
    build_point(b, POINT_EIP, b->eip);
    emit_rex(e, 0, R9, 0, R15); /* movzx r9d, byte [scratch + 1]: SF ZF AF PF CF */
    emit_byte(e, 0x0f);
    emit_byte(e, 0xb6);
    emit_modrm_base(e, R9, R15, CONTEXT_SCRATCH + 1);
    emit_rex(e, 0, R8, 0, R15); /* movzx r8d, byte [scratch]: OF */
    emit_byte(e, 0x0f);
    emit_byte(e, 0xb6);
    emit_modrm_base(e, R8, R15, CONTEXT_SCRATCH);
    for (int i = 0; i < 3; i++) { /* lea r8d, [r8 * 8], three times */
        emit_rex(e, 0, R8, R8, 0);
        emit_byte(e, OP_LEA);
        emit_byte(e, (R8 & 7) << 3 | 4);
        emit_byte(e, 3 << 6 | (R8 & 7) << 3 | RBP);
        emit_long(e, 0);
    }
    emit_op_index(e, 0, OP_LEA, R8, R9, R8, 2, 0); /* OF is bit 11 = 3 + 3 + 3 + 2 */
    for (unsigned i = 0; i < sizeof virtual / sizeof virtual[0]; i++) {
        emit_load_context(e, R9, virtual[i]);
        emit_op_index(e, 0, OP_LEA, R8, R8, R9, 0, 0);
    }
    memory_stack(b, OP_MOV_STORE, R8, -4);
    b->esp -= 4;
    return true;
}

/* op r9d, r8d and op r9d, imm32 */
static void combine(struct emitter *e, unsigned opcode)
{
    emit_rex(e, 0, R8, 0, R9);
    emit_byte(e, opcode);
    emit_byte(e, 0xc0 | (R8 & 7) << 3 | (R9 & 7));
}

static void combine_immediate(struct emitter *e, unsigned extension, uint32_t value)
{
    emit_rex(e, 0, 0, 0, R9);
    emit_byte(e, 0x81);
    emit_byte(e, 0xc0 | extension << 3 | (R9 & 7));
    emit_long(e, value);
}

#define OP_XOR        0x31
#define OP_TEST       0x85
#define EXTENSION_AND 4

/* The arithmetic flags go to the context, and EAX to r10d: from here on host code may do with both as it
 * likes. */
static void save_flags(struct builder *b)
{
    struct emitter *e = &b->e;

    take_flags(b);
    emit_byte(e, 0x66);
    emit_store_context(e, CONTEXT_FLAGS, RAX);
    build_point(b, POINT_SAVED_FLAGS, b->eip);
}

static void restore_flags(struct builder *b)
{
    static const uint8_t add_al_7f_sahf[] = {0x04, 0x7f, 0x9e};
    struct emitter *e = &b->e;

    build_point(b, POINT_SAVED_FLAGS, b->eip);
    emit_load_context(e, RAX, CONTEXT_FLAGS);
    emit_bytes(e, add_al_7f_sahf, sizeof add_al_7f_sahf); /* OF = (AL == 1), and the others from AH */
    emit_mov(e, RAX, R10);
    build_point(b, POINT_EIP, b->eip);
}

/* Arithmetic flags and IF in line. If any other flag would change, or an interrupt waits for IF, it is a
 * call. */
bool lower_popf(struct builder *b)
{
    static const uint8_t shl_eax_8[] = {0xc1, 0xe0, 0x08}, bt_r8_11[] = {0x41, 0x0f, 0xba, 0xe0, 0x0b};
    static const uint8_t adc_al_7f_sahf[] = {0x14, 0x7f, 0x9e};
    uint32_t system = POPF_SYSTEM | (is_kernel(b) ? EFLAGS_IOPL : 0);
    struct emitter *e = &b->e;
    uint8_t *slow[3], *done;
    unsigned n_slow = 0;

    if (!memory_is_usual_stack(b) || b->is_shadowed)
        return false;
    build_flush_esp(b);
    build_flush_count(b, POINT_EIP, b->eip);
    memory_stack(b, OP_MOV_LOAD, R8, 0);
    save_flags(b);
    emit_load_context(e, R9, CONTEXT_VIRTUAL);
    combine(e, OP_XOR);
    combine_immediate(e, EXTENSION_AND, system);
    slow[n_slow++] = emit_jump_if(e, 5); /* jne */
    emit_load_context(e, R9, CONTEXT_DF);
    combine(e, OP_XOR);
    combine_immediate(e, EXTENSION_AND, EFLAGS_DF);
    slow[n_slow++] = emit_jump_if(e, 5);
    emit_load_context(e, R9, is_kernel(b) ? CONTEXT_PENDING : CONTEXT_IF);
    combine(e, is_kernel(b) ? OP_TEST : OP_XOR);
    if (!is_kernel(b)) /* whether IF may change there is for IOPL to say */
        combine_immediate(e, EXTENSION_AND, EFLAGS_IF);
    slow[n_slow++] = emit_jump_if(e, 5);
    if (is_kernel(b)) {
        emit_mov(e, R9, R8);
        combine_immediate(e, EXTENSION_AND, EFLAGS_IF);
    }
    emit_mov(e, RAX, R8);
    emit_bytes(e, shl_eax_8, sizeof shl_eax_8); /* AH = the low byte, AL = 0 */
    emit_bytes(e, bt_r8_11, sizeof bt_r8_11);   /* CF = OF */
    emit_bytes(e, adc_al_7f_sahf, sizeof adc_al_7f_sahf);
    emit_mov(e, RAX, R10);
    emit_op_base(e, 0, OP_LEA, RSP, RSP, 4);
    build_count_this(b);
    if (is_kernel(b)) {
        build_point(b, POINT_POPS_IF, build_next_eip(b));
        emit_store_context(e, CONTEXT_IF, R9);
    }
    build_point(b, POINT_EIP, build_next_eip(b));
    build_flush_count(b, POINT_EIP, build_next_eip(b));
    done = emit_jump(e);
    for (unsigned i = 0; i < n_slow; i++)
        emit_patch(slow[i], e->at);
    restore_flags(b);
    build_call(b);
    emit_patch(done, e->at);
    return true;
}

/* ---- DF ------------------------------------------------------------------------------------------------ */

bool lower_direction(struct builder *b)
{
    bool is_down = b->insn->opcode == 0xfd;

    emit_store_context_imm(&b->e, CONTEXT_DF, is_down ? EFLAGS_DF : 0);
    emit_byte(&b->e, b->insn->opcode);
    return true;
}

/* ---- registers of the virtual processor ---------------------------------------------------------------- */

bool lower_mov_from_control(struct builder *b)
{
    static const int32_t offsets[] = {[0] = offsetof(struct vcpu, cr0),
                                      [2] = offsetof(struct vcpu, cr2),
                                      [3] = offsetof(struct vcpu, cr3),
                                      [4] = offsetof(struct vcpu, cr4)};
    const struct operand *to = &b->insn->operand[0], *from = &b->insn->operand[1];

    if (!is_kernel(b) || from->reg.class != REGISTER_CONTROL || from->reg.index > 4 || from->reg.index == 1 ||
        to->reg.index == ESP)
        return false;
    emit_load_context64(&b->e, R8, CONTEXT_VCPU);
    emit_op_base(&b->e, 0, OP_MOV_LOAD, to->reg.index, R8, offsets[from->reg.index]);
    return true;
}
