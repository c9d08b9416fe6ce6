/*
 * Who runs which ordinary instruction: the two opcode maps, laid out as in SDM Vol 2D appendix A.
 *
 *     n  native.c: on the CPU        m  move.c       b  branch.c      s  stack.c     t  string.c
 *     k  bit.c, register offset      f  bit.c, flags d  decimal.c     u  UD0-UD2: raises #UD
 *     5  group 5 (FF), by ModRM.reg  .  a prefix, sensitive, or no instruction of the profile
 *
 * Read next: native.c and stub.h for the largest part of it.
 */
#include "vcpu/ordinary.h"

#include "vcpu/internal.h"

static const char one_byte_map[] =
    /* 0123456789abcdef */
    "nnnnnn..nnnnnn.." /* 0: add, or */
    "nnnnnn..nnnnnn.." /* 1: adc, sbb */
    "nnnnnn.dnnnnnn.d" /* 2: and, daa, sub, das */
    "nnnnnn.dnnnnnn.d" /* 3: xor, aaa, cmp, aas */
    "nnnnnnnnnnnnnnnn" /* 4: inc, dec */
    "ssssssssssssssss" /* 5: push, pop */
    "ssm.....snsn...." /* 6: pusha, popa, bound, push, imul */
    "bbbbbbbbbbbbbbbb" /* 7: jcc */
    "nnnnnnnnmmmm.m.s" /* 8: group 1, test, xchg, mov, lea, pop */
    "mnnnnnnnnn....ff" /* 9: nop, xchg, cbw, cwd, sahf, lahf */
    "mmmmttttnntttttt" /* a: mov, movs, cmps, test, stos, lods, scas */
    "mmmmmmmmmmmmmmmm" /* b: mov */
    "nnbb..mmss......" /* c: group 2, ret, mov, enter, leave */
    "nnnnddfm........" /* d: group 2, aam, aad, salc, xlat */
    "bbbb....bb.b...." /* e: loop, jcxz, call, jmp */
    ".....fnnff..ffn5" /* f: cmc, group 3, clc, stc, cld, std, groups 4 and 5 */;

static const char two_byte_map[] =
    /* 0123456789abcdef */
    "...........u.m.." /* 0: ud2, prefetch */
    "........mmmmmmmm" /* 1: prefetch, nop */
    "................" /* 2 */
    "................" /* 3 */
    "nnnnnnnnnnnnnnnn" /* 4: cmovcc */
    "................" /* 5 */
    "................" /* 6 */
    "................" /* 7 */
    "bbbbbbbbbbbbbbbb" /* 8: jcc */
    "nnnnnnnnnnnnnnnn" /* 9: setcc */
    "...knn.....knnmn" /* a: bt, shld, bts, shrd, fences and clflush, imul */
    "nn.k..nn.unknnnn" /* b: cmpxchg, btr, movzx, ud1, group 8, btc, bsf, bsr, movsx */
    "nn.m...nnnnnnnnn" /* c: xadd, movnti, cmpxchg8b, bswap */
    "................" /* d */
    "................" /* e */
    "...............u" /* f: ud0 */;

_Static_assert(sizeof one_byte_map == 256 + 1 && sizeof two_byte_map == 256 + 1, "a letter for each opcode");

static char group_5(const struct insn *insn)
{
    static const char group[] = "nnb.b.s.";

    return group[insn->bytes[insn->modrm_offset] >> 3 & 7];
}

static char runner_of(const struct insn *insn)
{
    char runner = '.';

    if (insn->opcode_map == 0)
        runner = one_byte_map[insn->opcode];
    else if (insn->opcode_map == 1)
        runner = two_byte_map[insn->opcode];
    return runner == '5' ? group_5(insn) : runner;
}

static enum outcome raise_undefined(struct vcpu *vcpu, const struct insn *insn)
{
    (void)insn;
    return vcpu_raise(vcpu, EXCEPTION_UD);
}

enum outcome ordinary_emulate(struct vcpu *vcpu, const struct insn *insn)
{
    switch (runner_of(insn)) {
    case 'n':
        return ordinary_native(vcpu, insn);
    case 'm':
        return ordinary_move(vcpu, insn);
    case 'b':
        return ordinary_branch(vcpu, insn);
    case 's':
        return ordinary_stack(vcpu, insn);
    case 't':
        return ordinary_string(vcpu, insn);
    case 'k':
        return ordinary_bit(vcpu, insn);
    case 'f':
        return ordinary_flag(vcpu, insn);
    case 'd':
        return ordinary_decimal(vcpu, insn);
    case 'u':
        return raise_undefined(vcpu, insn);
    default:
        return OUTCOME_UNKNOWN;
    }
}

bool ordinary_is_known(const struct insn *insn)
{
    struct relocated relocated;
    char runner = runner_of(insn);

    return runner == 'n' ? relocate_insn(insn, &relocated) : runner != '.';
}
