/*
 * Guests made of chance, run natively and translated, in the closed sandbox: whatever they do, the run ends
 * with a reason, or when its time is up, and the monitor is as it was.
 *
 *     test_hostile_guest                            the seeds that every test run has
 *     RING3_FUZZ_SEEDS=1000-9999 test_hostile_guest more of them
 *     RING3_FUZZ_SEEDS=1234 test_hostile_guest      one, with what became of it
 *
 *     RING3_FUZZ_ENGINE=translate ...               under one of the engines only
 *
 * A seed fixes the guest, the same under each engine, not the moment at which its time is up. Read next:
 * hostile_guest.h, hostile_run.h.
 */
#include <check.h>

#include "hostile_guest.h"
#include "hostile_run.h"

#define DEFAULT_SEEDS 200u
#define DRIVE_SIZE    (1l << 20)
#define SMALL_CACHE   (17u << 10) /* room for one block of any size */

static const struct engine *const engines[] = {&trap_engine, &translate_engine};

#define N_ENGINES ((int)(sizeof engines / sizeof engines[0]))

static void build(struct vm *vm, void *chance)
{
    hostile_build(vm, chance);
}

/* What there is to choose in an engine. The guest does not depend on it. */
static void choose(struct hostile_machine *machine, uint64_t seed)
{
    struct chance chance = chance_of_seed(~seed);

    machine->config.check_invariant = machine->engine == &trap_engine || chance_one_in(&chance, 4);
    if (machine->engine != &translate_engine || !chance_one_in(&chance, 3))
        return;
    machine->config.code_cache_limit = SMALL_CACHE << chance_below(&chance, 5); /* it is often full */
}

static const char *run_seed(const struct engine *engine, uint64_t seed, int drive)
{
    struct chance chance = chance_of_seed(seed);
    char path[64];
    struct hostile_machine machine = {
        .engine = engine,
        .config = {.ram_size = chance_one_in(&chance, 3) ? 1u << 20 : 16u << 20,
                   .rom_size = chance_one_in(&chance, 2) ? 0x20000 : 0,
                   .clock = chance_one_in(&chance, 2) ? CLOCK_VIRTUAL : CLOCK_HOST,
                   .use_userfaultfd = chance_one_in(&chance, 2),
                   .console_write = hostile_console_write,
                   .console_read = chance_one_in(&chance, 2) ? hostile_console_read : NULL},
        .cpu_us = 25000,
        .real_us = 100000,
        .is_observed = chance_one_in(&chance, 4),
        .is_stepped = chance_one_in(&chance, 8),
        .build = build,
        .ctx = &chance,
    };

    snprintf(path, sizeof path, "/proc/self/fd/%d", drive);
    if (chance_one_in(&chance, 2))
        machine.config.drive[0] = (struct drive_config){.path = path, .snapshot = chance_one_in(&chance, 2)};
    choose(&machine, seed);
    return hostile_run(&machine);
}

START_TEST(no_guest_breaks_the_monitor)
{
    const struct engine *engine = engines[_i];
    const char *only = getenv("RING3_FUZZ_ENGINE");
    uint64_t first, last, n_exits = 0, latency_ns = 0;
    unsigned n_reasons[STOP_HOST + 1] = {0}, n_failed = 0;
    int drive = memfd_create("drive", 0);

    if (only != NULL && strcmp(only, engine->name) != 0)
        return;
    ck_assert(drive >= 0 && ftruncate(drive, DRIVE_SIZE) == 0);
    hostile_read_seeds(&first, &last, DEFAULT_SEEDS);
    for (uint64_t seed = first; seed <= last; seed++) {
        const char *complaint = run_seed(engine, seed, drive);

        if (complaint != NULL) {
            n_failed++;
            printf("seed %llu: %s\n    reproduce: RING3_FUZZ_ENGINE=%s RING3_FUZZ_SEEDS=%llu "
                   "test_hostile_guest\n",
                   (unsigned long long)seed, complaint, engine->name, (unsigned long long)seed);
        } else if (first == last) {
            printf("seed %llu: %s after %llu exits: %s\n", (unsigned long long)seed,
                   stop_reason_name(hostile_result->reason), (unsigned long long)hostile_result->n_exits,
                   hostile_result->text);
        }
        n_reasons[hostile_result->reason]++;
        n_exits += hostile_result->n_exits;
        if (hostile_result->latency_ns > latency_ns)
            latency_ns = hostile_result->latency_ns;
    }
    printf("%s: %llu exits;", engine->name, (unsigned long long)n_exits);
    for (unsigned i = 0; i <= STOP_HOST; i++)
        if (n_reasons[i] != 0)
            printf(" %s %u", stop_reason_name(i), n_reasons[i]);
    printf("; longest way to the end %llu ms\n", (unsigned long long)latency_ns / 1000000);
    ck_assert_msg(n_failed == 0, "%u of %llu guests broke the monitor", n_failed,
                  (unsigned long long)(last - first + 1));
    /* the seeds are worth something only if most guests live long */
    ck_assert_uint_gt(n_exits, 100 * (last - first + 1) * (last - first >= 100));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("hostile guest");
    TCase *cases = tcase_create("native");
    SRunner *runner;
    int n_failed;

    tcase_add_loop_test(cases, no_guest_breaks_the_monitor, 0, N_ENGINES);
    tcase_set_timeout(cases, 0);
    suite_add_tcase(suite, cases);
    runner = srunner_create(suite);
    srunner_set_fork_status(runner, CK_NOFORK); /* each seed forks */
    srunner_run_all(runner, CK_NORMAL);
    n_failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return n_failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
