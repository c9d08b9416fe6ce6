/*
 * SIMD floating-point exceptions without a trap: an SSE instruction runs with every exception masked, and
 * from the flags it left follows what it would have raised (SDM Vol 1 11.5).
 *
 * Two things differ between masked and unmasked, and are made up for here:
 *   - unmasked, an exception found before the computation (#I, #D, #Z) keeps those after it from being found;
 *   - unmasked, underflow is reported for a tiny result even if it is exact (11.5.2.5), and flush-to-zero is
 * off.
 *
 * Read next: fpu_image.c.
 */
#include <Zydis/Zydis.h>

#include "vcpu/fxsave.h"

#define PRE_COMPUTATION (MXCSR_IE | MXCSR_DE | MXCSR_ZE)

uint32_t sse_quiet_mxcsr(uint32_t mxcsr)
{
    uint32_t quiet = (mxcsr & MXCSR_DEFINED & ~MXCSR_FLAGS) | MXCSR_MASKS;

    return (mxcsr & MXCSR_UM) ? quiet : quiet & ~MXCSR_FTZ;
}

/* The instructions that can have a tiny result: how many numbers of which size they leave. */
static const struct arithmetic {
    uint16_t mnemonic;
    uint8_t n, size;
} arithmetic[] = {
    {ZYDIS_MNEMONIC_ADDPS, 4, 4}, {ZYDIS_MNEMONIC_ADDSS, 1, 4},    {ZYDIS_MNEMONIC_ADDPD, 2, 8},
    {ZYDIS_MNEMONIC_ADDSD, 1, 8}, {ZYDIS_MNEMONIC_SUBPS, 4, 4},    {ZYDIS_MNEMONIC_SUBSS, 1, 4},
    {ZYDIS_MNEMONIC_SUBPD, 2, 8}, {ZYDIS_MNEMONIC_SUBSD, 1, 8},    {ZYDIS_MNEMONIC_MULPS, 4, 4},
    {ZYDIS_MNEMONIC_MULSS, 1, 4}, {ZYDIS_MNEMONIC_MULPD, 2, 8},    {ZYDIS_MNEMONIC_MULSD, 1, 8},
    {ZYDIS_MNEMONIC_DIVPS, 4, 4}, {ZYDIS_MNEMONIC_DIVSS, 1, 4},    {ZYDIS_MNEMONIC_DIVPD, 2, 8},
    {ZYDIS_MNEMONIC_DIVSD, 1, 8}, {ZYDIS_MNEMONIC_CVTPD2PS, 2, 4}, {ZYDIS_MNEMONIC_CVTSD2SS, 1, 4},
};

/* Exponent zero, fraction not. */
static bool is_denormal(const uint8_t *number, unsigned size)
{
    uint64_t bits = 0, sign = 1ull << (8 * size - 1);
    unsigned fraction_bits = size == 4 ? 23 : 52;

    memcpy(&bits, number, size);
    bits &= ~sign;
    return bits != 0 && bits >> fraction_bits == 0;
}

static bool has_tiny_result(const struct insn *insn, const struct fxsave *after)
{
    for (size_t i = 0; i < sizeof arithmetic / sizeof arithmetic[0]; i++) {
        const struct arithmetic *row = &arithmetic[i];

        if (row->mnemonic != insn->mnemonic)
            continue;
        for (unsigned j = 0; j < row->n; j++) {
            if (is_denormal(after->xmm[insn->operand[0].reg.index & 7] + (size_t)j * row->size, row->size))
                return true;
        }
    }
    return false;
}

uint32_t sse_raised(const struct insn *insn, uint32_t mxcsr, const struct fxsave *after)
{
    uint32_t raised = after->mxcsr & MXCSR_FLAGS;
    uint32_t unmasked = ~(mxcsr >> MXCSR_MASKS_SHIFT);

    if (!(mxcsr & MXCSR_UM) && has_tiny_result(insn, after))
        raised |= MXCSR_UE;
    if (raised & unmasked & PRE_COMPUTATION)
        raised &= PRE_COMPUTATION;
    return raised;
}
