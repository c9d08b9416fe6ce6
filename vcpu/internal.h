/*
 * What the files of vcpu/ share among themselves. Nothing outside the folder includes this.
 *
 * The rules every emulation routine keeps:
 *   1. It is called with eip at its instruction. OUTCOME_DONE means that eip is where execution goes on.
 *   2. It validates before it commits. When it returns OUTCOME_FAULT, no register, segment or flag has
 * changed (the SDM's few exceptions are commented where they occur), so that the instruction restarts after
 * the handler.
 *   3. RF and the interrupt shadow last for one instruction: vcpu_emulate clears both before it calls the
 * routine and puts them back if the instruction does not finish (a #DB trap means that it did; for
 * OUTCOME_PARTIAL it sets RF: SDM Vol 3B 17.3.1.1). A routine that gives them a new value (iret, popfd, task
 * switch; sti, mov ss) just sets it.
 *   4. The single-step trap is vcpu_emulate's too: #DB with DR6.BS after any instruction that began with TF
 * set, except INT n and its relatives, which clear TF on the way.
 *
 * Read next: descriptor.h, segment.c.
 */
#ifndef RING3_VCPU_INTERNAL_H
#define RING3_VCPU_INTERNAL_H

#include "vcpu/vcpu.h"

/* ---- the emulation routines: one for each name of the sensitive table's handlers ---------------------- */

#define SENSITIVE_HANDLER(name) enum outcome handle_##name(struct vcpu *vcpu, const struct insn *insn);
#include "decode/sensitive_handlers.def"
#undef SENSITIVE_HANDLER

static inline enum outcome vcpu_finish(struct vcpu *vcpu, const struct insn *insn)
{
    vcpu->eip += insn->length;
    return OUTCOME_DONE;
}

/* What the processor calls itself, in CPUID leaf 1 and in EDX at reset. Family 6, model 1CH, stepping 10: an
 * in-order Atom. It never speculated, so Linux leaves PTI, VERW and retpolines off
 * (arch/x86/kernel/cpu/common.c, cpu_vuln_whitelist). */
#define VCPU_SIGNATURE 0x000106cau

/* ---- memory (memory.c) -------------------------------------------------------------------------------- */

/* One access at a linear address with the rights that `kind` says, #AC for ACCESS_USER included. */
enum outcome vcpu_access(struct vcpu *vcpu, gva_t linear, void *buf, unsigned size, unsigned kind);
/* The same for a run of elements, each aligned to `alignment` (an FPU image). */
enum outcome vcpu_access_aligned(struct vcpu *vcpu, gva_t linear, void *buf, unsigned size,
                                 unsigned alignment, unsigned kind);
/* Through a segment, with the rights of the current CPL. Sizes 1..64. */
enum outcome vcpu_read(struct vcpu *vcpu, enum segment_index segment, uint32_t offset, void *buf,
                       unsigned size);
enum outcome vcpu_write(struct vcpu *vcpu, enum segment_index segment, uint32_t offset, const void *buf,
                        unsigned size);
/* Implicit accesses of the CPU to descriptor tables and TSSs: linear, with supervisor rights at any CPL. */
enum outcome vcpu_read_system(struct vcpu *vcpu, gva_t linear, void *buf, unsigned size);
enum outcome vcpu_write_system(struct vcpu *vcpu, gva_t linear, const void *buf, unsigned size);

/* ACCESS_USER for CPL 3, else 0. */
static inline unsigned vcpu_access_rights(unsigned cpl)
{
    return cpl == 3 ? ACCESS_USER : 0;
}

/* Is a misaligned access with these rights #AC (SDM Vol 3A 6.15)? */
static inline bool vcpu_checks_alignment(const struct vcpu *vcpu, unsigned rights)
{
    return (rights & ACCESS_USER) && (vcpu->cr0 & CR0_AM) && (vcpu->eflags & EFLAGS_AC);
}

/* ---- operands of up to 4 bytes (operand.c) ------------------------------------------------------------ */

/* Register, memory (through its segment), or immediate; zero-extended to 32 bits. */
enum outcome vcpu_operand_read(struct vcpu *vcpu, const struct insn *insn, const struct operand *operand,
                               uint32_t *value);
/* General register (of operand->size: an 8- or 16-bit one keeps the other bits) or memory. */
enum outcome vcpu_operand_write(struct vcpu *vcpu, const struct insn *insn, const struct operand *operand,
                                uint32_t value);

/* ---- stacks (stack_access.c) -------------------------------------------------------------------------- */

/* A stack being pushed to or popped from: a copy, so that SS:ESP stay as they are until the instruction is
 * sure to finish. `pointer` is all of ESP; where SS.B is clear only its low half moves. */
struct stack {
    struct segment segment;
    uint32_t pointer;
    uint8_t cpl; /* whose rights its accesses have */
    uint16_t
        error_code; /* of the #SS that it may raise: 0 for the current stack, SS for one being switched to */
};

struct stack vcpu_current_stack(const struct vcpu *vcpu);
/* size: 2 or 4 bytes. */
enum outcome vcpu_stack_push(struct vcpu *vcpu, struct stack *stack, uint32_t value, unsigned size);
/* #SS unless n values can be pushed. */
enum outcome vcpu_stack_check_room(struct vcpu *vcpu, const struct stack *stack, unsigned n, unsigned size);
/* values[0] is pushed first. All n are checked against the limit before any is written. */
enum outcome vcpu_stack_push_frame(struct vcpu *vcpu, struct stack *stack, const uint32_t *values, unsigned n,
                                   unsigned size);
enum outcome vcpu_stack_pop(struct vcpu *vcpu, struct stack *stack, uint32_t *value, unsigned size);
/* values[0] is popped first. */
enum outcome vcpu_stack_pop_frame(struct vcpu *vcpu, struct stack *stack, uint32_t *values, unsigned n,
                                  unsigned size);
/* ESP (or SP) moves by `bytes` without an access: RET n. */
void vcpu_stack_skip(struct stack *stack, uint32_t bytes);
/* ESP := the stack's pointer. SS is not touched. */
static inline void vcpu_commit_stack_pointer(struct vcpu *vcpu, const struct stack *stack)
{
    vcpu->gpr[ESP] = stack->pointer;
}

/* ---- segments (segment.c) ----------------------------------------------------------------------------- */

/* Do `size` >= 1 bytes at `offset` lie within the limit, expand-down included? Not: is the type right. */
bool segment_contains(const struct segment *segment, uint32_t offset, unsigned size);

/* ---- control registers (control.c) -------------------------------------------------------------------- */

/* Loads the PDPTEs for these values of the registers, if they mean PAE paging. false: one of them is not
 * valid, which is #GP, and none was loaded. */
bool vcpu_load_pdptes(struct vcpu *vcpu, uint32_t cr0, uint32_t cr3, uint32_t cr4);

/* ---- I/O permission (io_permission.c) ----------------------------------------------------------------- */

/* May the current CPL touch these ports (SDM Vol 1 19.5: IOPL, else the I/O bitmap of the TSS)? DONE; else
 * FAULT with #GP(0), or with what reading the TSS raised. */
enum outcome vcpu_check_io_permission(struct vcpu *vcpu, uint16_t port, unsigned size);

#endif
