/*
 * The x87 and SSE state as FXSAVE lays it out outside 64-bit mode (SDM Vol 1 10.5.1, table 10-2). struct vcpu
 * holds it as bytes; it is copied to and from this structure.
 *
 * Private to vcpu/. Read next: fpu.c.
 */
#ifndef RING3_VCPU_FXSAVE_H
#define RING3_VCPU_FXSAVE_H

#include <string.h>

#include "vcpu/vcpu.h"

struct fxsave {
    uint16_t control, status;
    uint8_t tags; /* bit i: physical register i is not empty */
    uint8_t reserved0;
    uint16_t opcode;
    uint32_t instruction;
    uint16_t instruction_selector, reserved1;
    uint32_t data;
    uint16_t data_selector, reserved2;
    uint32_t mxcsr, mxcsr_mask;
    uint8_t st[8][16]; /* ST(0) first, ten bytes each */
    uint8_t xmm[8][16];
    uint8_t reserved3[224];
};
_Static_assert(sizeof(struct fxsave) == 512 && offsetof(struct fxsave, xmm) == 160, "SDM Vol 1 table 10-2");

/* What 32-bit software sees of it; the rest is left alone in memory. */
#define FXSAVE_USED offsetof(struct fxsave, reserved3)

/* Control and status word (SDM Vol 1 8.1.3, 8.1.5): the same six exceptions in the low bits of both. */
#define X87_EXCEPTIONS      0x003fu
#define X87_PE              0x0020u
#define X87_CONTROL_DEFINED 0x1f7fu
#define X87_CONTROL_FIXED   0x0040u
#define X87_CONTROL_INIT    0x037fu
#define X87_STATUS_ES       0x0080u
#define X87_STATUS_B        0x8000u
#define X87_STATUS_TOP      0x3800u
#define X87_TOP_SHIFT       11

/* MXCSR (SDM Vol 1 10.2.3) */
#define MXCSR_IE          0x0001u
#define MXCSR_DE          0x0002u
#define MXCSR_ZE          0x0004u
#define MXCSR_UE          0x0010u
#define MXCSR_FLAGS       0x003fu
#define MXCSR_UM          0x0800u
#define MXCSR_MASKS       0x1f80u
#define MXCSR_MASKS_SHIFT 7
#define MXCSR_FTZ         0x8000u
#define MXCSR_DEFINED     0xffffu

static inline struct fxsave fxsave_get(const struct vcpu *vcpu)
{
    struct fxsave image;

    memcpy(&image, vcpu->fxsave, sizeof image);
    return image;
}

static inline void fxsave_put(struct vcpu *vcpu, const struct fxsave *image)
{
    memcpy(vcpu->fxsave, image, sizeof *image);
}

static inline unsigned fxsave_top(const struct fxsave *image)
{
    return (image->status & X87_STATUS_TOP) >> X87_TOP_SHIFT;
}

/* An exception that has happened and is not masked: the next waiting instruction raises it. */
static inline unsigned fxsave_pending(const struct fxsave *image)
{
    return image->status & ~image->control & X87_EXCEPTIONS;
}

/* ---- fpu_image.c --------------------------------------------------------------------------------------- */

/* The physical registers stay where they are, the stack's top moves: ST(i) are other ones now. */
void fxsave_set_top(struct fxsave *image, unsigned top);
/* ES and B follow from flags and masks. */
void fxsave_set_summary(struct fxsave *image);

enum outcome fpu_save_environment(struct vcpu *vcpu, const struct insn *insn);    /* FNSTENV */
enum outcome fpu_restore_environment(struct vcpu *vcpu, const struct insn *insn); /* FLDENV */
enum outcome fpu_save(struct vcpu *vcpu, const struct insn *insn);                /* FNSAVE */
enum outcome fpu_restore(struct vcpu *vcpu, const struct insn *insn);             /* FRSTOR */
enum outcome fpu_fxsave(struct vcpu *vcpu, const struct insn *insn);
enum outcome fpu_fxrstor(struct vcpu *vcpu, const struct insn *insn);
enum outcome fpu_load_mxcsr(struct vcpu *vcpu, const struct insn *insn);
enum outcome fpu_store_mxcsr(struct vcpu *vcpu, const struct insn *insn);
enum outcome fpu_masked_store(struct vcpu *vcpu, const struct insn *insn); /* MASKMOVQ, MASKMOVDQU */

/* ---- sse_exception.c ----------------------------------------------------------------------------------- */

/* The MXCSR to run with instead of the guest's: everything masked, no flag set. */
uint32_t sse_quiet_mxcsr(uint32_t mxcsr);
/* The exceptions that the guest's own MXCSR would have shown after the run that left `after`. */
uint32_t sse_raised(const struct insn *insn, uint32_t mxcsr, const struct fxsave *after);

#endif
