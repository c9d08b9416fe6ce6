/*
 * The same hostile guest under the translator and under the reference, in virtual time: which is told by
 * instructions, so that timers and interrupts come before the same instruction under both, and after a time
 * that is chosen here both must have come to the same state, whatever the guest has done meanwhile.
 *
 *     test_hostile_engines                            the seeds that every test run has
 *     RING3_FUZZ_SEEDS=1000-9999 test_hostile_engines more of them
 *     RING3_FUZZ_SEEDS=1234 test_hostile_engines      one, with what became of it
 *     RING3_FUZZ_UNTIL=20000 ...                      for so many ns, to find where they part
 *
 * Read next: hostile_guest.h, hostile_run.h.
 */
#include <check.h>
#include <inttypes.h>

#include "hostile_guest.h"
#include "hostile_run.h"
#include "monitor/interpret.h"
#include "monitor/lockstep.h"

#define DEFAULT_SEEDS 100u
#define RAM_SIZE      (16u << 20)
#define MAX_NS        400000u
#define N_ENTRIES     (5ul * 1024)
#define SMALL_CACHE   (17u << 10) /* room for one block of any size */

/* Where a run has come to. In shared memory. */
struct end {
    struct vcpu vcpu;
    uint64_t n_instructions, virtual_ns;
    uint32_t tables[N_ENTRIES]; /* the page directory and its tables, at the start */
    uint8_t ram[RAM_SIZE];
};

struct guest {
    uint64_t seed, until_ns;
    uint32_t ram_size;
    struct chance chance;
    struct end *end;
};

static void build(struct vm *vm, void *ctx)
{
    struct guest *guest = ctx;

    hostile_build(vm, &guest->chance);
    (void)memory_read(&vm->memory, HOSTILE_DIRECTORY, guest->end->tables, sizeof guest->end->tables);
    vm->next_input = hostile_until_ns =
        guest->until_ns; /* before the same instruction the loop attends, and asks */
}

static void finish(struct vm *vm, void *ctx)
{
    struct guest *guest = ctx;

    guest->end->vcpu = vm->vcpu;
    guest->end->n_instructions = vm->n_instructions;
    guest->end->virtual_ns = vm->virtual_ns;
    for (uint32_t gpa = 0; gpa < guest->ram_size; gpa += PAGE_SIZE) /* video memory is a hole in it */
        (void)memory_read(&vm->memory, gpa, guest->end->ram + gpa, PAGE_SIZE);
}

/* NULL: it ended as it should. */
static const char *run(struct guest *guest, const struct engine *engine, struct hostile_result *result)
{
    struct chance choice = chance_of_seed(~guest->seed);
    struct hostile_machine machine = {.engine = engine,
                                      .cpu_us = 4000000,
                                      .real_us = 8000000,
                                      .build = build,
                                      .finish = finish,
                                      .ctx = guest};
    const char *complaint;

    guest->chance = chance_of_seed(guest->seed);
    guest->ram_size = chance_one_in(&guest->chance, 3) ? 1u << 20 : RAM_SIZE;
    machine.config = (struct vm_config){.ram_size = guest->ram_size,
                                        .rom_size = chance_one_in(&guest->chance, 2) ? 0x20000 : 0,
                                        .clock = CLOCK_VIRTUAL,
                                        .use_userfaultfd = chance_one_in(&choice, 2),
                                        .console_write = hostile_console_write};
    if (chance_one_in(&choice, 3))
        machine.config.code_cache_limit = SMALL_CACHE << chance_below(&choice, 5);
    complaint = hostile_run(&machine);
    *result = *hostile_result;
    return complaint;
}

/* When A and D of a page-table entry are set is the processor's choice, within bounds: an engine that looks
 * ahead walks (SDM Vol 3A 4.10.2.3), and where the guest clears them and does not say so they may stay clear.
 */
static bool is_same(uint32_t gpa, uint32_t before, uint32_t after)
{
    uint32_t free = (before & after & PTE_P) != 0 && gpa - HOSTILE_DIRECTORY < N_ENTRIES * sizeof before
                        ? PTE_A | PTE_D
                        : 0;

    return ((before ^ after) & ~free) == 0;
}

static bool differ_in_memory(const struct guest *guest, const struct end *a, const struct end *b, char *text,
                             size_t size)
{
    for (uint32_t gpa = 0; gpa < guest->ram_size; gpa += 4) {
        uint32_t before, after;

        memcpy(&before, a->ram + gpa, sizeof before);
        memcpy(&after, b->ram + gpa, sizeof after);
        if (is_same(gpa, before, after))
            continue;
        snprintf(text, size, "memory at %08x: %08x→%08x", gpa, before, after);
        return true;
    }
    return false;
}

static bool differ(const struct guest *guest, const struct end *a, const struct end *b, char *text,
                   size_t size)
{
    struct vcpu reference = a->vcpu;
    size_t n;

    reference.cr2 =
        b->vcpu.cr2; /* models do not agree which operand CMPS reads first, and the translator runs it */
    if (lockstep_compare_processors(&reference, &b->vcpu, text, size)) {
        n = strlen(text);
        snprintf(text + n, size - n,
                 "; after %" PRIu64 "→%" PRIu64 " instructions, %" PRIu64 "→%" PRIu64 " ns",
                 a->n_instructions, b->n_instructions, a->virtual_ns, b->virtual_ns);
        return true;
    }
    if (a->n_instructions != b->n_instructions || a->virtual_ns != b->virtual_ns) {
        snprintf(text, size, "instructions %" PRIu64 "→%" PRIu64 ", time %" PRIu64 "→%" PRIu64,
                 a->n_instructions, b->n_instructions, a->virtual_ns, b->virtual_ns);
        return true;
    }
    return differ_in_memory(guest, a, b, text, size);
}

/* Who changes his page tables and does not say so may go on with what was there before: when the new entries
 * count is the processor's choice (SDM Vol 3A 4.10.4). */
static bool has_new_tables(const struct end *end)
{
    for (uint32_t i = 0; i < N_ENTRIES; i++) {
        uint32_t entry;

        memcpy(&entry, end->ram + HOSTILE_DIRECTORY + (size_t)i * sizeof entry, sizeof entry);
        if ((entry ^ end->tables[i]) & ~(uint32_t)(PTE_A | PTE_D))
            return true;
    }
    return (end->vcpu.cr0 & CR0_PG) && end->vcpu.cr3 != HOSTILE_DIRECTORY;
}

enum verdict { SAME, SKIPPED, DIFFERENT };

static enum verdict try_seed(uint64_t seed, struct end *ends, char *text, size_t size)
{
    struct guest guest = {.seed = seed};
    const char *until = getenv("RING3_FUZZ_UNTIL");
    struct hostile_result reference, other;
    char difference[1024];
    const char *complaint;

    guest.until_ns = until != NULL ? strtoull(until, NULL, 10) : 1000 + seed * 7919 % MAX_NS;
    guest.end = &ends[0];
    complaint = run(&guest, &interpret_engine, &reference);
    if (complaint == NULL) {
        guest.end = &ends[1];
        complaint = run(&guest, &translate_engine, &other);
    }
    if (complaint != NULL) {
        snprintf(text, size, "%s", complaint);
        return DIFFERENT;
    }
    snprintf(text, size, "%s: %s (%" PRIu64 " instructions)", stop_reason_name(reference.reason),
             reference.text, ends[0].n_instructions);
    if (has_new_tables(&ends[0]) || has_new_tables(&ends[1]))
        return SKIPPED;
    if (reference.latency_ns != 0 || other.latency_ns != 0) /* the host's time was up before the guest's */
        return SKIPPED;
    if (reference.reason != other.reason || strcmp(reference.text, other.text) != 0) {
        snprintf(text, size, "%s, %s→%s, %s", stop_reason_name(reference.reason), reference.text,
                 stop_reason_name(other.reason), other.text);
        return DIFFERENT;
    }
    if (!differ(&guest, &ends[0], &ends[1], difference, sizeof difference))
        return SAME;
    snprintf(text, size, "%s", difference);
    return DIFFERENT;
}

/* What the reference would run next, if linear addresses are physical. */
static void print_next(const struct end *end)
{
    uint32_t linear = end->vcpu.segment[SEG_CS].base + end->vcpu.eip;
    unsigned size = end->vcpu.segment[SEG_CS].attributes & SEGMENT_DB ? 4 : 2;
    struct insn insn;
    char text[128];

    if (linear > RAM_SIZE - INSN_MAX_LENGTH ||
        decode_insn(end->ram + linear, INSN_MAX_LENGTH, size, &insn) != DECODE_OK)
        return;
    decode_format(&insn, end->vcpu.eip, text, sizeof text);
    printf("    at %08x: %s\n", end->vcpu.eip, text);
}

/* They found something once. */
static const uint64_t memorable[] = {1082, 1152, 1168, 1463};

START_TEST(translator_and_reference_agree)
{
    struct end *ends =
        mmap(NULL, 2 * sizeof *ends, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    uint64_t first, last, n_seeds, n[DIFFERENT + 1] = {0}, n_instructions = 0;

    ck_assert(ends != MAP_FAILED);
    hostile_read_seeds(&first, &last, DEFAULT_SEEDS);
    n_seeds =
        last - first + 1 + (getenv("RING3_FUZZ_SEEDS") == NULL ? sizeof memorable / sizeof memorable[0] : 0);
    for (uint64_t i = 0; i < n_seeds; i++) {
        char text[2048];
        uint64_t seed = first + i <= last ? first + i : memorable[first + i - last - 1];
        enum verdict verdict = try_seed(seed, ends, text, sizeof text);

        n[verdict]++;
        n_instructions += ends[0].n_instructions;
        if (verdict == DIFFERENT)
            printf("seed %" PRIu64 ": reference→translator: %s\n    reproduce: RING3_FUZZ_SEEDS=%" PRIu64
                   " test_hostile_engines\n",
                   seed, text, seed);
        else if (first == last)
            printf("seed %" PRIu64 ": %s\n", seed, text);
        if (first == last)
            print_next(&ends[0]);
    }
    printf("%" PRIu64 " the same, %" PRIu64 " skipped, %" PRIu64 " different; %" PRIu64 " instructions\n",
           n[SAME], n[SKIPPED], n[DIFFERENT], n_instructions);
    munmap(ends, 2 * sizeof *ends);
    ck_assert_uint_eq(n[DIFFERENT], 0);
    ck_assert_uint_le(n[SKIPPED], 1 + n_seeds / 2);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("hostile guests under two engines");
    TCase *cases = tcase_create("native");
    SRunner *runner;
    int n_failed;

    tcase_add_test(cases, translator_and_reference_agree);
    tcase_set_timeout(cases, 0);
    suite_add_tcase(suite, cases);
    runner = srunner_create(suite);
    srunner_set_fork_status(runner, CK_NOFORK); /* each guest forks */
    srunner_run_all(runner, CK_NORMAL);
    n_failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return n_failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
