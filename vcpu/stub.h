/*
 * Relocated execution: an ordinary guest instruction is computed by the CPU itself, so that its result and
 * flags are right by construction. A stub is the same instruction as 64-bit code, its memory operand replaced
 * by a scratch slot, with the guest's registers loaded around it.
 *
 *     guest, 32-bit code                stub, 64-bit code
 *     64 01 48 08  add fs:[eax+8], ecx  01 0d disp32  add [rip+disp32], ecx    (the scratch slot)
 *                                       41 ff 67 30   jmp [r15+STUB_LEAVE]
 *
 * Private to vcpu/. Read next: relocate.c (how a stub is made, why it cannot do harm), native.c (its use).
 */
#ifndef RING3_VCPU_STUB_H
#define RING3_VCPU_STUB_H

#include "vcpu/vcpu.h"

#define STUB_SCRATCH_SIZE 16

/* ESP as an operand: the stub must keep rsp, so another register, one that the instruction does not use, is
 * in its place. -1: there is no ESP in it. */
typedef int8_t stand_in_t;

/* What stub_enter loads and stores; offsets in stub_offsets.h. */
struct stub_context {
    uint32_t gpr[GPR_COUNT]; /* ESP is not loaded */
    uint64_t flags;
    const uint8_t *code;
    void (*leave)(void);
    uint8_t *fpu; /* NULL, or the 16-byte-aligned FXSAVE image to load, and to store afterwards */
    _Alignas(16) uint8_t host_fpu[512];
};

struct stub {
    const uint8_t *code;
    stand_in_t stand_in;
};

/* The stub of an instruction, from the cache or made; NULL if it cannot be. Valid until the next call. */
const struct stub *stub_find(const struct insn *insn);
/* The slot that stands for the memory operand. */
uint8_t *stub_scratch(void);
/* Runs context->code. */
void stub_run(struct stub_context *context);

/* ---- relocate.c ---------------------------------------------------------------------------------------- */

#define RELOCATED_MAX 16

struct relocated {
    uint8_t bytes[RELOCATED_MAX];
    uint8_t length;
    uint8_t displacement_offset; /* of the RIP-relative disp32 that stub.c fills in; 0: no memory operand */
    stand_in_t stand_in;
};

/* False: not an instruction that may run in a stub. */
bool relocate_insn(const struct insn *insn, struct relocated *relocated);

#endif
