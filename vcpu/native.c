/*
 * Running an ordinary instruction in a stub: fetch its operands from the guest, let the CPU compute, put the
 * results back. The order makes it restartable: every check and every read comes before the run, a write that
 * could fault was probed, and registers change last.
 *
 * Read next: fpu.c, which does the same for x87, MMX and SSE.
 */
#include <Zydis/Zydis.h>
#include <string.h>

#include "vcpu/internal.h"
#include "vcpu/ordinary.h"

/* 16-byte operands of SSE must be aligned, but for the moves that say they need not (SDM Vol
 * 1 10.4.1, 4.1.1). */
static bool needs_alignment(const struct insn *insn, const struct operand *memory)
{
    return memory->size == 16 && insn->mnemonic != ZYDIS_MNEMONIC_MOVUPS &&
           insn->mnemonic != ZYDIS_MNEMONIC_MOVUPD && insn->mnemonic != ZYDIS_MNEMONIC_MOVDQU;
}

static enum outcome begin_memory(struct vcpu *vcpu, const struct insn *insn, struct native_run *run)
{
    const struct operand *memory = run->memory;
    const unsigned rights = vcpu_access_rights(vcpu->cpl);
    unsigned kind = 0;
    enum outcome outcome;

    if (memory->access & OPERAND_READ)
        kind |= ACCESS_READ;
    if (memory->access & OPERAND_WRITE)
        kind |= ACCESS_WRITE;
    run->offset = vcpu_effective_address(vcpu, insn, memory);
    outcome = vcpu_segment_check(vcpu, memory->mem.segment, run->offset, memory->size, kind, &run->linear);
    if (outcome == OUTCOME_DONE && needs_alignment(insn, memory) && (run->linear & 15))
        return vcpu_raise_error(vcpu, EXCEPTION_GP, 0);
    if (outcome == OUTCOME_DONE && (kind & ACCESS_WRITE)) /* before the read, which a device may notice */
        outcome = vcpu_access(vcpu, run->linear, NULL, memory->size, ACCESS_WRITE | ACCESS_PROBE | rights);
    if (outcome == OUTCOME_DONE && (kind & ACCESS_READ))
        outcome = vcpu_access(vcpu, run->linear, stub_scratch(), memory->size, ACCESS_READ | rights);
    return outcome;
}

enum outcome native_begin(struct vcpu *vcpu, const struct insn *insn, struct native_run *run)
{
    run->stub = stub_find(insn);
    if (run->stub == NULL)
        return OUTCOME_UNKNOWN;
    run->context.code = run->stub->code;
    run->context.fpu = NULL;
    run->context.flags = vcpu->eflags & EFLAGS_ARITHMETIC;
    memcpy(run->context.gpr, vcpu->gpr, sizeof vcpu->gpr);
    if (run->stub->stand_in >= 0)
        run->context.gpr[run->stub->stand_in] = vcpu->gpr[ESP];
    run->memory = insn_memory_operand(insn);
    return run->memory != NULL ? begin_memory(vcpu, insn, run) : OUTCOME_DONE;
}

void native_execute(struct native_run *run)
{
    stub_run(&run->context);
}

enum outcome native_commit(struct vcpu *vcpu, struct native_run *run)
{
    const stand_in_t stand_in = run->stub->stand_in;
    uint32_t *gpr = run->context.gpr;

    if (run->memory != NULL && (run->memory->access & OPERAND_WRITE)) {
        enum outcome outcome = vcpu_access(vcpu, run->linear, stub_scratch(), run->memory->size,
                                           ACCESS_WRITE | vcpu_access_rights(vcpu->cpl));

        if (outcome != OUTCOME_DONE)
            return outcome;
    }
    if (stand_in >= 0) {
        gpr[ESP] = gpr[stand_in];
        gpr[stand_in] = vcpu->gpr[stand_in];
    }
    memcpy(vcpu->gpr, gpr, sizeof vcpu->gpr);
    vcpu->eflags = (vcpu->eflags & ~EFLAGS_ARITHMETIC) | ((uint32_t)run->context.flags & EFLAGS_ARITHMETIC);
    return OUTCOME_DONE;
}

/* ---- division ------------------------------------------------------------------------------------------ */

static int64_t sign_extend(uint64_t value, unsigned size)
{
    unsigned unused_bits = 64 - 8 * size;

    return (int64_t)(value << unused_bits) >> unused_bits;
}

/* AX, DX:AX or EDX:EAX. */
static uint64_t dividend(const struct vcpu *vcpu, unsigned size)
{
    switch (size) {
    case 1:
        return vcpu->gpr[EAX] & 0xffff;
    case 2:
        return (vcpu->gpr[EDX] & 0xffff) << 16 | (vcpu->gpr[EAX] & 0xffff);
    default:
        return (uint64_t)vcpu->gpr[EDX] << 32 | vcpu->gpr[EAX];
    }
}

static bool unsigned_division_fails(uint64_t numerator, uint64_t divisor, unsigned size)
{
    return divisor == 0 || numerator / divisor >> 8 * size != 0;
}

static bool signed_division_fails(int64_t numerator, int64_t divisor, unsigned size)
{
    int64_t quotient;

    if (divisor == 0 || (divisor == -1 && numerator == INT64_MIN))
        return true;
    quotient = numerator / divisor;
    return quotient != sign_extend((uint64_t)quotient, size);
}

/* Would it raise #DE? The host must not: it would come as a SIGFPE of the monitor's. */
static enum outcome check_division(struct vcpu *vcpu, const struct insn *insn, const struct native_run *run)
{
    const struct operand *operand = &insn->operand[0];
    uint32_t divisor = 0;
    bool fails;

    if (run->memory != NULL)
        memcpy(&divisor, stub_scratch(), operand->size);
    else
        vcpu_operand_read(vcpu, insn, operand, &divisor);
    if (insn->mnemonic == ZYDIS_MNEMONIC_DIV)
        fails = unsigned_division_fails(dividend(vcpu, operand->size), divisor, operand->size);
    else
        fails = signed_division_fails(sign_extend(dividend(vcpu, operand->size), 2 * operand->size),
                                      sign_extend(divisor, operand->size), operand->size);
    return fails ? vcpu_raise(vcpu, EXCEPTION_DE) : OUTCOME_DONE;
}

enum outcome ordinary_native(struct vcpu *vcpu, const struct insn *insn)
{
    struct native_run run;
    enum outcome outcome = native_begin(vcpu, insn, &run);

    if (outcome == OUTCOME_DONE &&
        (insn->mnemonic == ZYDIS_MNEMONIC_DIV || insn->mnemonic == ZYDIS_MNEMONIC_IDIV))
        outcome = check_division(vcpu, insn, &run);
    if (outcome != OUTCOME_DONE)
        return outcome;
    native_execute(&run);
    outcome = native_commit(vcpu, &run);
    return outcome == OUTCOME_DONE ? vcpu_finish(vcpu, insn) : outcome;
}
