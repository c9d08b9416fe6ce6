/*
 * The rows: what ring3 promises, how it is measured, and the table. `bench/run own` builds this and starts
 * it. docs/benchmarks.md explains each row. Read next: worker.c.
 */
#include <errno.h>
#include <getopt.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bench/bench.h"
#include "vcpu/fail.h"
#include "vcpu/x86.h"

#define START_TARGET_NS      10e6
#define FOOTPRINT_TARGET_KIB (16.0 * 1024)
#define START_ROUNDS_DIVISOR 4

/* ---- the rows ------------------------------------------------------------------------------------------ */

#define TRAPS  512
#define FILLS  256
#define PAGES  4096
#define SPREAD 3 /* pages from one touch to the next: no run, no streak, no neighbour to map along */

#define MACHINE .open = machine_open, .prepare = machine_prepare, .round = machine_round
#define NATIVE  .open = native_open, .round = native_round
#define BARE    .open = bare_fill_open, .prepare = bare_fill_prepare, .round = bare_fill_round

/* Both sides do the same piece of the image. */
#define COMPUTE(label, of, amount)                                                                           \
    {"plain computation, " label ", guest kernel mode",                                                      \
     1.03,                                                                                                   \
     {MACHINE, .n = 1, .entry = (of), .argument = (amount)},                                                 \
     {NATIVE, .n = 1, .entry = (of), .argument = (amount)}},                                                 \
    {                                                                                                        \
        "plain computation, " label ", guest user mode", 1.03,                                               \
            {MACHINE, .n = 1, .entry = (of), .argument = (amount), .is_user = true},                         \
        {                                                                                                    \
            NATIVE, .n = 1, .entry = (of), .argument = (amount)                                              \
        }                                                                                                    \
    }

static const struct row {
    const char *name;
    double target; /* the ratio may be no more */
    struct side subject, yardstick;
} rows[] = {
    {"trapped cli / bare hlt, SIGSEGV, rt_sigreturn",
     1.0,
     {MACHINE, .n = TRAPS, .entry = ENTRY_CLI, .argument = TRAPS},
     {.open = bare_trap_open, .round = bare_trap_round, .n = TRAPS}},
    {"shadow fill, read / bare fault, mmap, touch",
     1.3,
     {MACHINE, .n = FILLS, .entry = ENTRY_READ, .stride = SPREAD},
     {BARE, .n = FILLS, .entry = ENTRY_READ, .stride = SPREAD}},
    {"shadow fill, write / the same, writing",
     1.3,
     {MACHINE, .n = FILLS, .entry = ENTRY_WRITE, .stride = SPREAD},
     {BARE, .n = FILLS, .entry = ENTRY_WRITE, .stride = SPREAD}},
    {"contiguous read, A clear, per page",
     0.3,
     {MACHINE, .n = PAGES, .entry = ENTRY_READ, .stride = 1},
     {BARE, .n = FILLS, .entry = ENTRY_READ, .stride = SPREAD}},
    {"contiguous write, D set, per page",
     0.3,
     {MACHINE, .n = PAGES, .entry = ENTRY_WRITE, .stride = 1, .accessed_dirty = PTE_A | PTE_D},
     {BARE, .n = FILLS, .entry = ENTRY_WRITE, .stride = SPREAD}},
    COMPUTE("calls", ENTRY_CALLS, 31),
    COMPUTE("sieve", ENTRY_SIEVE, 40),
    COMPUTE("hash", ENTRY_HASH, 800000),
    COMPUTE("matrix", ENTRY_MATRIX, 240),
    COMPUTE("pointer chase", ENTRY_POINTERS, 1000000),
    COMPUTE("index chase", ENTRY_INDICES, 1000000),
};

/* ---- the table ----------------------------------------------------------------------------------------- */

struct options {
    const char *program, *kernels, *xv6;
    const char *only;
    unsigned n_rounds;
    bool is_json;
};

static unsigned n_printed, n_missed, n_failed;

static void print_head(const struct options *options)
{
    if (options->is_json)
        printf("{\"rounds\": %u, \"rows\": [", options->n_rounds);
    else
        printf("%-52s %11s %11s %7s  %-15s %6s\n", "", "ring3", "yardstick", "ratio", "quartiles", "target");
    fflush(stdout);
}

static void print_row(const struct options *options, const char *name, const char *unit, double value,
                      double yardstick, struct summary ratio, double target)
{
    bool is_ok = ratio.median <= target;

    n_missed += !is_ok;
    if (options->is_json) {
        printf("%s\n  {\"name\": \"%s\", \"unit\": \"%s\", \"ring3\": %.3f, \"yardstick\": %.3f, \"ratio\": "
               "%.4f, "
               "\"low\": %.4f, \"high\": %.4f, \"target\": %.2f, \"ok\": %s}",
               n_printed > 0 ? "," : "", name, unit, value, yardstick, ratio.median, ratio.low, ratio.high,
               target, is_ok ? "true" : "false");
    } else {
        char quartiles[32];

        snprintf(quartiles, sizeof quartiles, "%.3f - %.3f", ratio.low, ratio.high);
        printf("%-52s %8.2f %-2s %8.2f %-2s %7.3f  %-15s <=%4.2f %s\n", name, value, unit, yardstick, unit,
               ratio.median, quartiles, target, is_ok ? "OK" : "MISS");
    }
    n_printed++;
    fflush(stdout);
}

static bool is_wanted(const struct options *options, const char *name)
{
    return options->only == NULL || strstr(name, options->only) != NULL;
}

static void fail(const char *name, const char *error)
{
    fprintf(stderr, "bench: %s: %s\n", name, error);
    n_failed++;
}

static void run_rows(const struct options *options)
{
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        const struct row *row = &rows[i];
        struct comparison comparison;
        char error[256];

        if (!is_wanted(options, row->name))
            continue;
        if (!compare_sides(&row->subject, &row->yardstick, options->n_rounds, &comparison, error,
                           sizeof error))
            fail(row->name, error);
        else
            print_row(options, row->name, "us", comparison.subject.median / 1e3,
                      comparison.yardstick.median / 1e3, comparison.ratio, row->target);
    }
}

/* ---- whole processes ----------------------------------------------------------------------------------- */

static struct summary divide(struct summary summary, double by)
{
    return (struct summary){summary.median / by, summary.low / by, summary.high / by};
}

static void run_start(const struct options *options)
{
    static const char name[] = "start-up to the first guest instruction";
    struct summary wall, cpu;
    char kernel[4096], error[4600];
    unsigned n_rounds = options->n_rounds / START_ROUNDS_DIVISOR + 1;

    if (!is_wanted(options, name))
        return;
    snprintf(kernel, sizeof kernel, "%s/first.elf", options->kernels);
    if (!measure_start(options->program, kernel, n_rounds, &wall, &cpu, error, sizeof error)) {
        fail(name, error);
        return;
    }
    print_row(options, name, "ms", wall.median / 1e6, START_TARGET_NS / 1e6, divide(wall, START_TARGET_NS),
              1.0);
    print_row(options, "start-up, run and end, processor time", "ms", cpu.median / 1e6, START_TARGET_NS / 1e6,
              divide(cpu, START_TARGET_NS), 1.0);
}

static void run_footprint(const struct options *options, const char *name, const char *const *arguments,
                          const char *input, const char *until)
{
    struct footprint footprint;
    struct summary ratio;
    char error[256];
    double kib;

    if (!is_wanted(options, name))
        return;
    if (!measure_footprint(options->program, arguments, input, until, &footprint, error, sizeof error)) {
        fail(name, error);
        return;
    }
    kib = footprint.anon_kib + footprint.file_kib + footprint.page_table_kib;
    ratio.median = ratio.low = ratio.high = kib / FOOTPRINT_TARGET_KIB;
    print_row(options, name, "MB", kib / 1024, FOOTPRINT_TARGET_KIB / 1024, ratio, 1.0);
}

static void run_footprints(const struct options *options)
{
    struct uboot uboot;
    char spread[4096], kernel[4096], disk[4096], root[4096];

    snprintf(spread, sizeof spread, "%s/spread.elf", options->kernels);
    run_footprint(options, "memory beyond guest RAM, 16384 scattered pages",
                  (const char *[]){spread, "-m", "128", NULL}, "", "!");
    if (uboot_prepare(&uboot)) {
        run_footprint(options, "memory beyond guest RAM, U-Boot at its prompt",
                      (const char *[]){uboot.kernel, "--load", uboot.load, NULL}, " ", "\n=> ");
        uboot_clean_up(&uboot);
    }
    if (options->xv6 == NULL)
        return;
    snprintf(kernel, sizeof kernel, "%s/kernel", options->xv6);
    snprintf(disk, sizeof disk, "%s/xv6.img,snapshot", options->xv6);
    snprintf(root, sizeof root, "%s/fs.img,snapshot", options->xv6);
    run_footprint(
        options, "memory beyond guest RAM, xv6 at its shell",
        (const char *[]){kernel, "-m", "512", "--holes", "patch", "--drive", disk, "--drive", root, NULL}, "",
        "$ ");
}

/* ---- the program --------------------------------------------------------------------------------------- */

/* One core for all: the two sides of a row see the same caches, the same clock speed and the same neighbours.
 */
static void pin(void)
{
    cpu_set_t allowed, one;
    int last = -1;

    if (sched_getaffinity(0, sizeof allowed, &allowed) != 0)
        die("sched_getaffinity: %s", strerror(errno));
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
        if (CPU_ISSET(cpu, &allowed))
            last = cpu;
    CPU_ZERO(&one);
    CPU_SET(last, &one);
    if (sched_setaffinity(0, sizeof one, &one) != 0)
        die("sched_setaffinity: %s", strerror(errno));
}

static void print_help(void)
{
    printf("usage: bench/run own [--rounds N] [--json] [--only TEXT] [--xv6 FOLDER]\n\n"
           "Measures what ring3 promises about speed and size, each against its yardstick.\n\n"
           "  --rounds N    rounds of each side (default 200)\n"
           "  --json        the same figures for programs\n"
           "  --only TEXT   only rows whose name contains TEXT\n"
           "  --xv6 FOLDER  also boot the xv6 built there, for its memory row\n");
}

static bool parse(struct options *options, int argc, char **argv)
{
    static const struct option names[] = {
        {"rounds", required_argument, NULL, 'r'}, {"json", no_argument, NULL, 'j'},
        {"only", required_argument, NULL, 'o'},   {"xv6", required_argument, NULL, 'x'},
        {"help", no_argument, NULL, 'h'},         {NULL, 0, NULL, 0}};
    int option;

    while ((option = getopt_long(argc, argv, "", names, NULL)) != -1) {
        switch (option) {
        case 'r':
            options->n_rounds = (unsigned)strtoul(optarg, NULL, 10);
            break;
        case 'j':
            options->is_json = true;
            break;
        case 'o':
            options->only = optarg;
            break;
        case 'x':
            options->xv6 = optarg;
            break;
        case 'h':
            print_help();
            exit(EXIT_SUCCESS);
        default:
            return false;
        }
    }
    return options->n_rounds > 0 && optind == argc;
}

int main(int argc, char **argv)
{
    struct options options = {.program = RING3_PROGRAM, .kernels = BENCH_KERNELS, .n_rounds = 200};

    if (!parse(&options, argc, argv)) {
        fprintf(stderr, "Try `bench/run own --help`.\n");
        return 2;
    }
    pin();
    print_head(&options);
    run_rows(&options);
    run_start(&options);
    run_footprints(&options);
    if (options.is_json)
        printf("\n]}\n");
    else
        printf("%u of %u rows meet their target\n", n_printed - n_missed, n_printed);
    return n_failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
