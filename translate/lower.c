/*
 * From opcodes to host code: the two opcode maps, laid out as in SDM Vol 2D appendix A, and the instructions
 * that stay what they are but for their operand in memory.
 *
 *     p  the same instruction             i  inc, dec             u o  push, pop            A D  pusha, popa
 *     l  lea                              m  mov moffs            j J  jcc, jmp             c r  call, ret
 *     w  loop, jcxz                       s  string               U O  push, pop memory     v    leave
 *     C S F f  cli, sti, pushf, popf      e H  push, pop Sreg     g h  mov from, to Sreg    R    mov from CR
 *     d  cld, std                         x    xlat               n    does nothing         t    rdtsc
 *     y  sysenter                         Y    sysexit             q    cpuid
 *     5  group 5 (FF)                     G    group 15 (0F AE)   X    x87
 *     .  a call into the monitor: sensitive, or rare
 *
 * Which engine may run an instruction natively is thus one letter. What the CPUID profile leaves out, and the
 * FPU when CR0 says so, become calls whatever their letter is.
 *
 * Read next: lower_stack.c, lower_flow.c, lower_string.c, lower_flags.c, lower_segment.c, lower_switch.c,
 * lower_tsc.c, lower_cpuid.c, lower_adapted.c.
 */
#include <Zydis/Zydis.h>

#include "translate/build.h"

static const char one_byte_map[] =
    /* 0123456789abcdef */
    "ppppppeHppppppe." /* 0: add, push, pop es, or, push cs */
    "ppppppe.ppppppeH" /* 1: adc, push ss, sbb, push, pop ds */
    "pppppp..pppppp.." /* 2: and, sub */
    "pppppp..pppppp.." /* 3: xor, cmp */
    "iiiiiiiiiiiiiiii" /* 4: inc, dec */
    "uuuuuuuuoooooooo" /* 5: push, pop */
    "AD......upup...." /* 6: pusha, popa, push, imul */
    "jjjjjjjjjjjjjjjj" /* 7: jcc */
    "ppppppppppppglhO" /* 8: group 1, test, xchg, mov, mov Sreg, lea, mov Sreg, pop */
    "pppppppppp.pFfpp" /* 9: xchg, cbw, cwd, fwait, pushf, popf, sahf, lahf */
    "mmmmssssppssssss" /* a: mov, movs, cmps, test, stos, lods, scas */
    "pppppppppppppppp" /* b: mov */
    "pprr..pp.v......" /* c: group 2, ret, mov, leave */
    "pppp...xXXXXXXXX" /* d: group 2, xlat, x87 */
    "wwww....cJ.J...." /* e: loop, jcxz, call, jmp */
    ".....pppppCSddp5" /* f: cmc, group 3, clc, stc, cli, sti, cld, std, groups 4 and 5 */;

static const char two_byte_map[] =
    /* 0123456789abcdef */
    ".............n.." /* 0: prefetch */
    "ppppppppnnnnnnnn" /* 1: sse moves, prefetch, nop */
    "R.......pppppppp" /* 2: mov from CR, sse */
    ".t..yY.........." /* 3: rdtsc, sysenter, sysexit */
    "pppppppppppppppp" /* 4: cmovcc */
    "pppppppppppppppp" /* 5: sse */
    "pppppppppppppppp" /* 6: mmx */
    "pppppppp......pp" /* 7: mmx, emms */
    "jjjjjjjjjjjjjjjj" /* 8: jcc */
    "pppppppppppppppp" /* 9: setcc */
    "eHqppp..eH.pppGp" /* a: push, pop fs, cpuid, bt, push, pop gs, shld, bts, shrd, group 15, imul */
    "pp.p..pp..pppppp" /* b: cmpxchg, btr, movzx, group 8, btc, bsf, bsr, movsx */
    "pppppppppppppppp" /* c: xadd, sse, movnti, cmpxchg8b, bswap */
    "pppppppppppppppp" /* d: mmx, sse */
    "pppppppppppppppp" /* e */
    "ppppppp.ppppppp." /* f; not maskmovq */;

_Static_assert(sizeof one_byte_map == 256 + 1 && sizeof two_byte_map == 256 + 1, "a letter for each opcode");

static unsigned modrm_reg(const struct insn *insn)
{
    return insn->bytes[insn->modrm_offset] >> 3 & 7;
}

static bool has_memory(const struct insn *insn)
{
    return insn->has_modrm && insn->bytes[insn->modrm_offset] < 0xc0;
}

/* FLDENV, FNSTENV, FRSTOR, FNSAVE: they show pointers, which must be the guest's. */
static bool is_environment(const struct insn *insn)
{
    return has_memory(insn) && (insn->opcode == 0xd9 || insn->opcode == 0xdd) &&
           (modrm_reg(insn) == 4 || modrm_reg(insn) == 6);
}

static char letter_of(const struct insn *insn)
{
    static const char group_5[] = "ppK.L.U.";
    char letter = '.';

    if (insn->opcode_map == 0)
        letter = one_byte_map[insn->opcode];
    else if (insn->opcode_map == 1)
        letter = two_byte_map[insn->opcode];
    switch (letter) {
    case '5':
        return group_5[modrm_reg(insn)];
    case 'G': /* fences, CLFLUSH; FXSAVE and its kin are state of the machine */
        return !has_memory(insn) || modrm_reg(insn) == 7 ? 'p' : '.';
    case 'X':
        return is_environment(insn) ? '.' : 'p';
    default:
        return letter;
    }
}

/* ---- the same instruction ------------------------------------------------------------------------------ */

static bool is_fpu(const struct insn *insn)
{
    return insn->sensitive != NULL && insn->sensitive->handler == HANDLE_fpu;
}

static bool is_fpu_enabled(const struct builder *b)
{
    bool is_sse = b->insn->opcode_map != 0 && b->insn->isa_set != ZYDIS_ISA_SET_PENTIUMMMX;

    return (b->mode & (is_sse ? MODE_SSE : MODE_FPU)) != 0;
}

/* In MMX and SSE instructions 66, F2 and F3 are part of the opcode: of several F2 and F3 the last one counts.
 */
static void find_vector_prefixes(const struct insn *insn, struct form *form)
{
    for (unsigned i = 0; i + 1 < insn->opcode_offset; i++) {
        if (insn->bytes[i] == 0xf2 || insn->bytes[i] == 0xf3)
            form->repeat = insn->bytes[i];
        else if (insn->bytes[i] == 0x66)
            form->operand16 = true;
    }
}

static bool uses_register(const struct insn *insn, enum register_class class, unsigned first, unsigned last)
{
    for (unsigned i = 0; i < insn->n_operands; i++)
        if (insn->operand[i].kind == OPERAND_REGISTER && insn->operand[i].reg.class == class &&
            insn->operand[i].reg.index >= first && insn->operand[i].reg.index <= last)
            return true;
    return false;
}

static bool uses_esp(const struct insn *insn)
{
    return uses_register(insn, REGISTER_GPR32, ESP, ESP) || uses_register(insn, REGISTER_GPR16, ESP, ESP);
}

static struct form form_of(const struct insn *insn)
{
    struct form form = {.lock = (insn->prefixes & INSN_LOCK) != 0,
                        .map = insn->opcode_map,
                        .opcode = insn->opcode == 0x82 && insn->opcode_map == 0 ? 0x80 : insn->opcode,
                        .immediate = insn->bytes + insn->immediate_offset,
                        .immediate_length = insn->immediate_length,
                        .is_high_byte = uses_register(insn, REGISTER_GPR8, 4, 7)};

    if (insn->has_modrm)
        form.reg = (uint8_t)modrm_reg(insn);
    if (!is_fpu(insn))
        form.operand16 = insn->operand_size == 2;
    else if (insn->opcode_map != 0)
        find_vector_prefixes(insn, &form);
    return form;
}

/* 64-bit mode means the same by the same bytes, but for prefixes that say nothing here. */
static void emit_registers(struct builder *b, const struct form *form)
{
    struct emitter *e = &b->e;

    if (form->lock)
        emit_byte(e, 0xf0);
    if (form->operand16)
        emit_byte(e, 0x66);
    if (form->repeat != 0)
        emit_byte(e, form->repeat);
    if (form->map == 1)
        emit_byte(e, 0x0f);
    emit_byte(e, form->opcode);
    if (b->insn->has_modrm)
        emit_byte(e, b->insn->bytes[b->insn->modrm_offset]);
    emit_bytes(e, form->immediate, form->immediate_length);
}

static bool lower_plain(struct builder *b)
{
    struct form form = form_of(b->insn);

    if (has_memory(b->insn)) {
        const struct operand *memory = insn_memory_operand(b->insn);

        if (memory == NULL || !memory_is_reachable(b, memory, &form))
            return false;
        if (uses_esp(b->insn))
            build_flush_esp(b);
        memory_emit(b, memory, &form);
        return true;
    }
    if (uses_esp(b->insn))
        build_flush_esp(b);
    emit_registers(b, &form);
    return true;
}

/* MOV between EBP and ESP need not wait for ESP. */
static bool lower_mov_from_esp(struct builder *b)
{
    const struct operand *to = &b->insn->operand[0], *from = &b->insn->operand[1];

    if (b->insn->mnemonic != ZYDIS_MNEMONIC_MOV || b->insn->operand_size != 4 ||
        to->kind != OPERAND_REGISTER || from->kind != OPERAND_REGISTER || to->reg.class != REGISTER_GPR32 ||
        from->reg.class != REGISTER_GPR32 || from->reg.index != ESP || to->reg.index == ESP || b->esp == 0)
        return false;
    emit_op_base(&b->e, 0, OP_LEA, to->reg.index, RSP, b->esp);
    return true;
}

/* 40 to 4F are prefixes in 64-bit mode. */
static bool lower_increment(struct builder *b)
{
    if (uses_esp(b->insn))
        build_flush_esp(b);
    if (b->insn->operand_size == 2)
        emit_byte(&b->e, 0x66);
    emit_byte(&b->e, 0xff);
    emit_byte(&b->e, 0xc0 | (b->insn->opcode & 0x0f)); /* 40+r: c0+r, 48+r: c8+r */
    return true;
}

static bool lower_lea(struct builder *b)
{
    const struct operand *to = &b->insn->operand[0], *address = &b->insn->operand[1];

    if (b->insn->address_size != 4 || b->insn->operand_size != 4 || address->kind != OPERAND_MEMORY)
        return false;
    if (to->reg.index == ESP)
        build_flush_esp(b);
    memory_emit_address(b, address, to->reg.index);
    return true;
}

/* A0 to A3 have a 64-bit address in 64-bit mode: 8A, 8B, 88, 89. */
static bool lower_moffs(struct builder *b)
{
    static const uint8_t opcodes[] = {0x8a, 0x8b, 0x88, 0x89};
    const struct operand *memory = insn_memory_operand(b->insn);
    struct form form = {.opcode = opcodes[b->insn->opcode & 3],
                        .operand16 = (b->insn->opcode & 1) && b->insn->operand_size == 2};

    if (memory == NULL || !memory_is_reachable(b, memory, &form))
        return false;
    memory_emit(b, memory, &form);
    return true;
}

/* AL := DS:[EBX + AL] */
static bool lower_xlat(struct builder *b)
{
    static const uint8_t movzx_r8_al[] = {0x44, 0x0f, 0xb6, 0xc0};
    const struct insn *insn = b->insn;

    if (insn->address_size != 4 || insn->n_operands == 0 ||
        !memory_is_flat(b, (enum segment_index)insn->operand[0].mem.segment) ||
        insn->operand[0].kind != OPERAND_MEMORY)
        return false;
    emit_bytes(&b->e, movzx_r8_al, sizeof movzx_r8_al);
    emit_op_index(&b->e, 0, OP_LEA, R8, RBX, R8, 0, 0);
    emit_op_index(&b->e, 0, 0x8a, RAX, R14, R8, 0, 0);
    return true;
}

/* ---- which ----------------------------------------------------------------------------------------------
 */

bool lower_has_one_way(const struct insn *insn)
{
    switch (letter_of(insn)) {
    case 'j':
    case 'w':
    case 'S':
        return false;
    default:
        return true;
    }
}

/* BT and its kin with a register: they reach for any bit behind, or before. */
static bool is_bit_string(const struct insn *insn)
{
    return insn->opcode_map == 1 && (insn->opcode & 0xe7) == 0xa3;
}

const struct operand *lower_only_operand(const struct insn *insn)
{
    char letter = letter_of(insn);

    return (letter == 'p' && has_memory(insn) && !is_bit_string(insn)) || letter == 'm'
               ? insn_memory_operand(insn)
               : NULL;
}

static bool try_lower(struct builder *b)
{
    char letter = letter_of(b->insn);

    if (is_fpu(b->insn) && !is_fpu_enabled(b))
        return false;
    if (b->insn->sensitive != NULL && !is_fpu(b->insn) && b->insn->sensitive->handler == HANDLE_undefined)
        return false;
    switch (letter) {
    case 'p':
        return lower_mov_from_esp(b) || lower_plain(b);
    case 'i':
        return lower_increment(b);
    case 'l':
        return lower_lea(b);
    case 'm':
        return lower_moffs(b);
    case 'n':
        return true;
    case 'x':
        return lower_xlat(b);
    case 'u':
        return lower_push(b);
    case 'U':
        return lower_push_operand(b);
    case 'o':
        return lower_pop(b);
    case 'O':
        return lower_pop_memory(b);
    case 'A':
        return lower_pusha(b);
    case 'D':
        return lower_popa(b);
    case 'v':
        return lower_leave(b);
    case 'j':
        return lower_jcc(b);
    case 'J':
        return lower_jump(b);
    case 'c':
        return lower_call(b);
    case 'r':
        return lower_return(b);
    case 'w':
        return lower_loop(b);
    case 'K':
        return lower_call_indirect(b);
    case 'L':
        return lower_jump_indirect(b);
    case 's':
        return lower_string(b);
    case 'C':
        return lower_cli(b);
    case 'S':
        return lower_sti(b);
    case 'F':
        return lower_pushf(b);
    case 'f':
        return lower_popf(b);
    case 'd':
        return lower_direction(b);
    case 'e':
        return lower_push_segment(b);
    case 'g':
        return lower_mov_from_segment(b);
    case 'h':
        return lower_mov_to_segment(b);
    case 'H':
        return lower_pop_segment(b);
    case 'R':
        return lower_mov_from_control(b);
    case 't':
        return lower_tsc(b);
    case 'q':
        return lower_cpuid(b);
    case 'y':
        return lower_sysenter(b);
    case 'Y':
        return lower_sysexit(b);
    default:
        return false;
    }
}

void lower_insn(struct builder *b)
{
    if (!try_lower(b))
        build_call(b);
}
