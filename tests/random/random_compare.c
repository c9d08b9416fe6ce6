/*
 * Random instruction sequences, run by the CPU itself and by an engine of ring3: as many as one likes.
 *
 *     random_compare --engine interpret --seed 1 --count 1000000 --class mixed
 *
 * Ends with 0 if all were the same, with 1 if any differed, with 2 if it cannot run here.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "compare.h"

struct arguments {
    struct random_plan plan;
    const char *class; /* NULL: all that the engine can be expected to pass */
};

static void print_usage(void)
{
    printf("usage: random_compare [--engine NAME] [--seed S] [--first N] [--count N] [--class CLASS] [--cpl "
           "0|3]\n"
           "                      [--print N] [--verbose]\n"
           "classes:");
    for (size_t i = 0; i < random_n_classes; i++)
        printf(" %s", random_classes[i].name);
    printf("\nWithout --class: all but those that an engine with holes fails.\n");
}

static bool parse_one(struct arguments *arguments, const char *name, const char *value)
{
    uint64_t number = strtoull(value, NULL, 0);

    if (strcmp(name, "--engine") == 0)
        arguments->plan.engine = value;
    else if (strcmp(name, "--class") == 0)
        arguments->class = value;
    else if (strcmp(name, "--seed") == 0)
        arguments->plan.seed = number;
    else if (strcmp(name, "--first") == 0)
        arguments->plan.first = number;
    else if (strcmp(name, "--count") == 0)
        arguments->plan.count = number;
    else if (strcmp(name, "--print") == 0)
        arguments->plan.max_printed = (unsigned)number;
    else if (strcmp(name, "--cpl") == 0)
        *(number == 0 ? &arguments->plan.is_user : &arguments->plan.is_supervisor) = false;
    else
        return false;
    return true;
}

static bool parse(struct arguments *arguments, int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--verbose") == 0)
            arguments->plan.is_verbose = true;
        else if (i + 1 >= argc || !parse_one(arguments, argv[i], argv[i + 1]))
            return false;
        else
            i++;
    }
    return arguments->class == NULL || random_find_class(arguments->class) != NULL;
}

static uint64_t run_class(const struct random_pair *pair, struct random_plan *plan,
                          const struct random_class *class)
{
    struct random_tally tally = {.compared = 0};

    plan->class = class;
    random_run_plan(pair, plan, &tally);
    printf("%-9s %" PRIu64 " compared, %" PRIu64 " different, %" PRIu64 " skipped; ended by", class->name,
           tally.compared, tally.different, tally.skipped);
    for (unsigned vector = 0; vector < 32; vector++)
        if (tally.ended_by[vector] != 0)
            printf(" %s %" PRIu64, vcpu_exception_name(vector), tally.ended_by[vector]);
    printf("\n");
    return tally.different;
}

int main(int argc, char **argv)
{
    struct arguments arguments = {.plan = {.engine = "interpret",
                                           .seed = 1,
                                           .count = 1000,
                                           .is_user = true,
                                           .is_supervisor = true,
                                           .max_printed = 5}};
    struct random_pair pair;
    uint64_t different = 0;
    char error[256] = "";

    if (!parse(&arguments, argc, argv)) {
        print_usage();
        return 2;
    }
    pair.memory_seed = arguments.plan.seed;
    pair.native = runner_start(&native_runner, NULL, error, sizeof error);
    pair.ours = pair.native == NULL
                    ? NULL
                    : runner_start(&machine_runner, arguments.plan.engine, error, sizeof error);
    if (pair.ours == NULL) {
        fprintf(stderr, "random_compare: %s\n", error);
        return 2;
    }
    for (size_t i = 0; i < random_n_classes; i++) {
        const struct random_class *class = &random_classes[i];

        if (arguments.class != NULL ? strcmp(class->name, arguments.class) == 0
                                    : !class->needs_all_holes_closed)
            different += run_class(&pair, &arguments.plan, class);
    }
    runner_stop(pair.ours);
    runner_stop(pair.native);
    return different == 0 ? 0 : 1;
}
