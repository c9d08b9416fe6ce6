/*
 * The comparison of what the CPU left behind with what an engine did. Left out is what cannot be the same for
 * a reason that has nothing to do with the engine; each time the reason is given here.
 * Read next: minimise.c, plan.c.
 */
#include "compare.h"

#include <Zydis/Zydis.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define COMPARED_FLAGS                                                                                       \
    (EFLAGS_CF | EFLAGS_PF | EFLAGS_AF | EFLAGS_ZF | EFLAGS_SF | EFLAGS_DF | EFLAGS_OF | EFLAGS_AC |         \
     EFLAGS_ID)

/* Loops that write over their own counters run on: for a time that an engine may not have. */
#define LONG_RUN_NS 200000u

__attribute__((format(printf, 2, 3))) static bool differ(struct comparison *comparison, const char *format,
                                                         ...)
{
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(comparison->what, sizeof comparison->what, format, arguments);
    va_end(arguments);
    comparison->verdict = VERDICT_DIFFERENT;
    return true;
}

static struct comparison skipped(void)
{
    return (struct comparison){.verdict = VERDICT_SKIPPED};
}

/* Natively data pages are not executable, so that a sequence which went astray cannot do harm; a guest
 * without NX would run them. */
static bool is_astray(const struct random_result *native)
{
    return native->vector == EXCEPTION_PF && (native->error & PF_FETCH) && (native->error & PF_PRESENT);
}

/* Where the guest has its descriptor tables, the CPU's process has nothing. */
static bool is_at_tables(const struct random_result *native)
{
    return native->vector == EXCEPTION_PF && (native->cr2 & ~(uint32_t)PAGE_MASK) == RANDOM_TABLES;
}

static bool is_at_wrap(uint32_t offset)
{
    return offset > -64u || offset < 64;
}

/* Across 4 GiB a flat segment wraps or faults: SDM Vol 3A 5.3 leaves it to the model. */
static bool is_wrapping_access(const struct random_result *native, const struct random_result *ours)
{
    return (native->vector == EXCEPTION_GP || native->vector == EXCEPTION_SS) &&
           ours->vector == EXCEPTION_PF && (is_at_wrap(ours->cr2) || is_at_wrap(ours->cr2 - RANDOM_FS_BASE));
}

static bool find_insn(const struct random_result *result, struct insn *insn)
{
    uint32_t offset = result->eip - RANDOM_CODE;

    return offset <= PAGES_CODE * PAGE_SIZE - INSN_MAX_LENGTH &&
           decode_insn(result->memory[FIRST_CODE] + offset, INSN_MAX_LENGTH, 4, insn) == DECODE_OK;
}

/* Whether a masked store whose mask is all zeros faults, and whether AC counts for one, is the model's choice
 * (SDM Vol 2, MASKMOVQ). */
static bool is_masked_store_fault(const struct random_result *result)
{
    struct insn insn;

    return (result->vector == EXCEPTION_PF || result->vector == EXCEPTION_GP ||
            result->vector == EXCEPTION_AC) &&
           find_insn(result, &insn) &&
           (insn.mnemonic == ZYDIS_MNEMONIC_MASKMOVQ || insn.mnemonic == ZYDIS_MNEMONIC_MASKMOVDQU);
}

/* Instructions whose faults models report each in their way: which operand CMPS reads first, and what PUSHA,
 * POPA and ENTER have done already when a later one of their accesses faults. */
static bool has_loose_fault(const struct random_result *native)
{
    struct insn insn;

    if (!find_insn(native, &insn))
        return false;
    switch (insn.mnemonic) {
    case ZYDIS_MNEMONIC_CMPSB:
    case ZYDIS_MNEMONIC_CMPSW:
    case ZYDIS_MNEMONIC_CMPSD:
    case ZYDIS_MNEMONIC_PUSHA:
    case ZYDIS_MNEMONIC_PUSHAD:
    case ZYDIS_MNEMONIC_POPA:
    case ZYDIS_MNEMONIC_POPAD:
    case ZYDIS_MNEMONIC_ENTER:
        return true;
    default:
        return false;
    }
}

/* The guest's IDT is empty, so INT3 and INTO raise #GP for their entry, before they have ended. INT 3 is two
 * bytes long. */
static struct random_result as_without_idt(const struct random_result *native)
{
    struct random_result result = *native;
    uint32_t offset = native->eip - RANDOM_CODE;

    if (native->vector == EXCEPTION_BP || native->vector == EXCEPTION_OF) {
        result.error = (uint32_t)native->vector * 8 + ERROR_IDT;
        result.vector = EXCEPTION_GP;
        result.eip--;
        if (offset >= 2 && offset <= PAGES_CODE * PAGE_SIZE &&
            native->memory[FIRST_CODE][offset - 2] == 0xcd &&
            native->memory[FIRST_CODE][offset - 1] == native->vector)
            result.eip--;
    }
    return result;
}

/* Of the error code of #PF: the host has NX, the guest has not; and at CPL 0 the access is the supervisor's.
 */
static uint32_t error_mask(const struct random_case *random_case, int vector)
{
    if (vector != EXCEPTION_PF)
        return UINT32_MAX;
    return ~(PF_FETCH | (random_case->is_supervisor ? PF_USER : 0));
}

static bool compare_end(const struct random_case *random_case, const struct random_result *native,
                        const struct random_result *ours, struct comparison *comparison)
{
    if (native->vector != ours->vector)
        return differ(comparison, "exception: %s at %08x, not %s at %08x",
                      vcpu_exception_name((unsigned)native->vector), native->eip,
                      vcpu_exception_name((unsigned)ours->vector), ours->eip);
    if (native->eip != ours->eip)
        return differ(comparison, "eip: %08x, not %08x", native->eip, ours->eip);
    if ((native->error ^ ours->error) & error_mask(random_case, native->vector))
        return differ(comparison, "error code: %x, not %x", native->error, ours->error);
    if (native->vector == EXCEPTION_PF && native->cr2 != ours->cr2)
        return differ(comparison, "cr2: %08x, not %08x", native->cr2, ours->cr2);
    return false;
}

/* An exception came between an instruction that leaves flags undefined and the next one, which sets them. */
static bool are_flags_loose(const struct random_case *random_case, uint32_t eip)
{
    for (unsigned i = 0; i < SEQUENCE_MAX_ITEMS; i++)
        if (random_case->loose_flags[i] == eip)
            return true;
    return false;
}

static bool compare_registers(const struct random_case *random_case, const struct random_result *native,
                              const struct random_result *ours, struct comparison *comparison)
{
    static const char *const names[] = {"eax", "ecx", "edx", "ebx", "esp", "ebp", "esi", "edi"};
    uint32_t flags =
        are_flags_loose(random_case, native->eip) ? EFLAGS_DF | EFLAGS_AC | EFLAGS_ID : COMPARED_FLAGS;

    for (unsigned i = 0; i < GPR_COUNT; i++)
        if (native->gpr[i] != ours->gpr[i])
            return differ(comparison, "%s: %08x, not %08x", names[i], native->gpr[i], ours->gpr[i]);
    if ((native->eflags ^ ours->eflags) & flags)
        return differ(comparison, "flags: %08x, not %08x", native->eflags & flags, ours->eflags & flags);
    return false;
}

static bool compare_fpu(const struct random_result *native, const struct random_result *ours,
                        struct comparison *comparison)
{
    const uint8_t *a = native->fxsave, *b = ours->fxsave;

    if (memcmp(a + 24, b + 24, 4) != 0)
        return differ(comparison, "MXCSR: %02x%02x, not %02x%02x", a[25], a[24], b[25], b[24]);
    if (native->vector == EXCEPTION_XM) /* has an MMX operand made the switch from x87 already? */
        return false;
    if (memcmp(a, b, 5) != 0)
        return differ(comparison,
                      "x87 control, status, tags: %02x%02x %02x%02x %02x, not %02x%02x %02x%02x %02x", a[1],
                      a[0], a[3], a[2], a[4], b[1], b[0], b[3], b[2], b[4]);
    for (unsigned i = 0; i < 8; i++)
        if (memcmp(a + 32 + 16 * (size_t)i, b + 32 + 16 * (size_t)i, 10) != 0)
            return differ(comparison, "st%u", i);
    for (unsigned i = 0; i < 8; i++)
        if (memcmp(a + 160 + 16 * (size_t)i, b + 160 + 16 * (size_t)i, 16) != 0)
            return differ(comparison, "xmm%u", i);
    return false;
}

static uint32_t page_address(uint32_t page)
{
    for (size_t i = 0; i < random_n_regions; i++)
        if (page >= random_regions[i].first_page &&
            page < random_regions[i].first_page + random_regions[i].n_pages)
            return random_regions[i].gva + (page - random_regions[i].first_page) * PAGE_SIZE;
    return 0;
}

static bool compare_memory(const struct random_result *native, const struct random_result *ours,
                           struct comparison *comparison)
{
    for (uint32_t page = 0; page < RANDOM_PAGES; page++) {
        const uint8_t *a = native->memory[page], *b = ours->memory[page];
        uint32_t offset = 0;

        if (memcmp(a, b, PAGE_SIZE) == 0)
            continue;
        while (a[offset] == b[offset])
            offset++;
        return differ(comparison, "memory at %08x: %02x, not %02x", page_address(page) + offset, a[offset],
                      b[offset]);
    }
    return false;
}

struct comparison random_compare(const struct random_case *random_case, const struct random_result *native,
                                 const struct random_result *ours)
{
    struct comparison comparison = {.verdict = VERDICT_SAME};
    static struct random_result expected;

    if (native->status != RUN_OK || is_astray(native) || is_at_tables(native))
        return skipped();
    if (ours->status == RUN_TIMEOUT && native->ns > LONG_RUN_NS)
        return skipped();
    if (ours->status != RUN_OK) {
        differ(&comparison, "%s", ours->status == RUN_TIMEOUT ? "it ran on and on" : ours->text);
        return comparison;
    }
    expected = as_without_idt(native);
    if (is_wrapping_access(&expected, ours) || is_masked_store_fault(native) || is_masked_store_fault(ours))
        return skipped();
    if (has_loose_fault(native) && ours->eip == native->eip &&
        (ours->vector == EXCEPTION_PF || is_wrapping_access(&expected, ours)))
        return skipped();
    if (!compare_end(random_case, &expected, ours, &comparison) &&
        !compare_registers(random_case, &expected, ours, &comparison) &&
        !compare_fpu(&expected, ours, &comparison))
        compare_memory(&expected, ours, &comparison);
    return comparison;
}

void random_print_result(const char *name, const struct random_result *result)
{
    static const char *const statuses[] = {"", ", time was up", ", stopped", ", died"};

    printf("  %-7s", name);
    for (unsigned i = 0; i < GPR_COUNT; i++)
        printf(" %08" PRIx32, result->gpr[i]);
    printf(" eip %08" PRIx32 " flags %08" PRIx32 " %s error %x cr2 %08" PRIx32 "%s %s\n", result->eip,
           result->eflags, vcpu_exception_name((unsigned)result->vector), result->error, result->cr2,
           statuses[result->status], result->status == RUN_OK ? "" : result->text);
}

struct comparison random_try(const struct random_pair *pair, const struct sequence *sequence,
                             const struct random_result **native, const struct random_result **ours)
{
    static struct random_case random_case;

    sequence_assemble(sequence, pair->memory_seed, &random_case);
    runner_begin(pair->native, &random_case);
    runner_begin(pair->ours, &random_case);
    *native = runner_wait(pair->native);
    *ours = runner_wait(pair->ours);
    return random_compare(&random_case, *native, *ours);
}
