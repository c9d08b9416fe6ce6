/* Are two results the same, as far as the SDM promises? See compare.c. */
#ifndef RING3_RANDOM_COMPARE_H
#define RING3_RANDOM_COMPARE_H

#include "runner.h"

enum verdict {
    VERDICT_SAME,
    VERDICT_SKIPPED, /* the oracle has no answer: it ran on and on, or went where it shows what a guest would
                        not */
    VERDICT_DIFFERENT,
};

struct comparison {
    enum verdict verdict;
    char what[160]; /* the first difference */
};

struct comparison random_compare(const struct random_case *random_case, const struct random_result *native,
                                 const struct random_result *ours);
void random_print_result(const char *name, const struct random_result *result);

/* A sequence, run by both. */
struct random_pair {
    struct runner *native, *ours;
    uint64_t memory_seed;
};
/* The results stay valid until the next case. */
struct comparison random_try(const struct random_pair *pair, const struct sequence *sequence,
                             const struct random_result **native, const struct random_result **ours);
/* Leaves out items that the difference does not need. */
void random_minimise(const struct random_pair *pair, struct sequence *sequence);

/* What a program of theirs does with each class: `count` sequences from number `first` on, at both privilege
 * levels. Failures are printed, the first `max_printed` in full. */
struct random_tally {
    uint64_t compared, skipped, different;
    uint64_t ended_by[32]; /* exceptions, of those compared */
};
struct random_plan {
    const char *engine;
    const struct random_class *class;
    uint64_t seed, first, count;
    bool is_user, is_supervisor;
    bool is_verbose; /* also what is the same */
    unsigned max_printed;
};
void random_run_plan(const struct random_pair *pair, const struct random_plan *plan,
                     struct random_tally *tally);

#endif
