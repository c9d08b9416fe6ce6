/*
 * Ordinary instructions: those that are not sensitive, and come here because of what they touch (a device's
 * memory, a guarded page table, an address outside the window) or because an engine steps through everything.
 *
 * The CPU itself computes what it can (native.c); written out in C is what 64-bit mode lacks or does
 * differently, and what reads memory in a way of its own.
 *
 * Private to vcpu/. Read next: ordinary.c, which decides who runs what.
 */
#ifndef RING3_VCPU_ORDINARY_H
#define RING3_VCPU_ORDINARY_H

#include "vcpu/stub.h"
#include "vcpu/vcpu.h"

enum outcome ordinary_emulate(struct vcpu *vcpu, const struct insn *insn);
bool ordinary_is_known(const struct insn *insn);

#define EFLAGS_ARITHMETIC (EFLAGS_CF | EFLAGS_PF | EFLAGS_AF | EFLAGS_ZF | EFLAGS_SF | EFLAGS_OF)

/* The segment of an instruction's memory operand, implicit ones included: overrides applied. */
static inline enum segment_index insn_memory_segment(const struct insn *insn)
{
    for (unsigned i = 0; i < insn->n_operands; i++) {
        if (insn->operand[i].kind == OPERAND_MEMORY)
            return insn->operand[i].mem.segment;
    }
    return SEG_DS;
}

/* ---- who runs what ------------------------------------------------------------------------------------- */

/* native.c: computed by the CPU */
enum outcome ordinary_native(struct vcpu *vcpu, const struct insn *insn);
/* move.c: mov, lea, xlat, bound, nop */
enum outcome ordinary_move(struct vcpu *vcpu, const struct insn *insn);
/* bit.c: bt, bts, btr, btc with the offset in a register; clc, cld, lahf, ... */
enum outcome ordinary_bit(struct vcpu *vcpu, const struct insn *insn);
enum outcome ordinary_flag(struct vcpu *vcpu, const struct insn *insn);
/* decimal.c: daa, das, aaa, aas, aam, aad */
enum outcome ordinary_decimal(struct vcpu *vcpu, const struct insn *insn);
/* stack.c: push, pop, pusha, popa, enter, leave */
enum outcome ordinary_stack(struct vcpu *vcpu, const struct insn *insn);
/* branch.c: near jmp, call, ret, jcc, loop */
enum outcome ordinary_branch(struct vcpu *vcpu, const struct insn *insn);
/* string.c: movs, cmps, scas, lods, stos */
enum outcome ordinary_string(struct vcpu *vcpu, const struct insn *insn);

/* ---- a native run in its steps (native.c) -------------------------------------------------------------- */

struct native_run {
    const struct stub *stub;
    const struct operand *memory; /* NULL: registers only */
    uint32_t offset;              /* of the memory operand in its segment */
    gva_t linear;
    struct stub_context context;
};

/* Finds the stub, checks and reads the memory operand. Nothing of the guest changes but A and D bits. */
enum outcome native_begin(struct vcpu *vcpu, const struct insn *insn, struct native_run *run);
void native_execute(struct native_run *run);
/* Writes the memory operand, then registers and flags. */
enum outcome native_commit(struct vcpu *vcpu, struct native_run *run);

#endif
