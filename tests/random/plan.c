/*
 * Many sequences of one class, and what is said of those that differ. Read next: random_compare.c.
 */
#include <inttypes.h>
#include <stdio.h>

#include "compare.h"

/* ---- minimisation -------------------------------------------------------------------------------------- */

static bool differs(const struct random_pair *pair, const struct sequence *sequence, enum run_status status)
{
    const struct random_result *native, *ours;

    return random_try(pair, sequence, &native, &ours).verdict == VERDICT_DIFFERENT && ours->status == status;
}

/* Runs of items first, then ever shorter ones. Any difference will do that ends in the same way: the shorter
 * sequence may show another one, which is as welcome. But one that lost the end of a loop is no find. */
void random_minimise(const struct random_pair *pair, struct sequence *sequence)
{
    const struct random_result *native, *ours;
    enum run_status status;

    random_try(pair, sequence, &native, &ours);
    status = ours->status;
    for (unsigned length = sequence->n_items / 2; length > 0; length = length > 1 ? length / 2 : 0) {
        for (unsigned first = 0; first < sequence->n_items; first += length) {
            const struct sequence before = *sequence;

            for (unsigned i = first; i < first + length && i < sequence->n_items; i++)
                sequence->item[i].is_dropped = true;
            if (!differs(pair, sequence, status))
                *sequence = before;
        }
    }
}

/* ---- reports ------------------------------------------------------------------------------------------- */

static void print_case(const struct random_plan *plan, uint64_t number, bool is_supervisor)
{
    printf("seed %" PRIu64 ", class %s, number %" PRIu64 ", CPL %d", plan->seed, plan->class->name, number,
           is_supervisor ? 0 : 3);
}

static void print_failure(const struct random_pair *pair, const struct random_plan *plan, uint64_t number,
                          const struct sequence *original)
{
    static struct sequence smallest;
    static struct random_result kept;
    const struct random_result *native, *ours;
    struct comparison comparison;

    smallest = *original;
    random_minimise(pair, &smallest);
    comparison = random_try(pair, &smallest, &native, &ours);
    kept = *native;
    if (comparison.verdict == VERDICT_DIFFERENT)
        printf("as small as it gets: %s\n", comparison.what);
    else
        printf("it does not fail again: the engine keeps something from case to case\n");
    sequence_print(comparison.verdict == VERDICT_DIFFERENT ? &smallest : original);
    printf("          eax      ecx      edx      ebx      esp      ebp      esi      edi\n  before ");
    for (unsigned i = 0; i < GPR_COUNT; i++)
        printf(" %08" PRIx32, smallest.gpr[i]);
    printf(" eip %08" PRIx32 " flags %08" PRIx32 "\n", smallest.start, smallest.eflags);
    random_print_result("CPU", &kept);
    random_print_result("engine", ours);
    printf("  again: random_compare --engine %s --seed %" PRIu64 " --class %s --first %" PRIu64
           " --count 1 --cpl %d\n",
           plan->engine, plan->seed, plan->class->name, number, smallest.is_supervisor ? 0 : 3);
}

/* ---- the plan ------------------------------------------------------------------------------------------ */

static void run_one(const struct random_pair *pair, const struct random_plan *plan, uint64_t number,
                    bool is_supervisor, struct random_tally *tally)
{
    static struct sequence sequence;
    const struct random_result *native, *ours;
    struct comparison comparison;

    sequence_generate(&sequence, plan->seed, number, plan->class, is_supervisor);
    comparison = random_try(pair, &sequence, &native, &ours);
    if (plan->is_verbose) {
        print_case(plan, number, is_supervisor);
        printf("\n");
        sequence_print(&sequence);
        random_print_result("CPU", native);
        random_print_result("engine", ours);
    }
    if (comparison.verdict == VERDICT_SKIPPED) {
        tally->skipped++;
        return;
    }
    tally->compared++;
    tally->ended_by[native->vector & 31]++;
    if (comparison.verdict == VERDICT_SAME)
        return;
    tally->different++;
    print_case(plan, number, is_supervisor);
    printf(": %s\n", comparison.what);
    if (tally->different <= plan->max_printed)
        print_failure(pair, plan, number, &sequence);
    fflush(stdout);
}

void random_run_plan(const struct random_pair *pair, const struct random_plan *plan,
                     struct random_tally *tally)
{
    for (uint64_t number = plan->first; number < plan->first + plan->count; number++) {
        if (plan->is_user)
            run_one(pair, plan, number, false, tally);
        if (plan->is_supervisor && !plan->class->needs_all_holes_closed) /* selectors show the CPL */
            run_one(pair, plan, number, true, tally);
    }
}
