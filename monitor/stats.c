/*
 * Statistics of a run. Costs are host nanoseconds from the guest stopping to the exit handled, kept in
 * log-linear histograms: 8 steps to each power of two, so a percentile is right to 12 %.
 *
 * Read next: trace.c, the other observer.
 */
#include "monitor/stats.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define STEPS_PER_OCTAVE 8
#define OCTAVE_SHIFT     3
#define HISTOGRAM_SLOTS  (STEPS_PER_OCTAVE * 40)
#define MAX_INSTRUCTIONS                                                                                     \
    128 /* distinct names; the table of sensitive ones has fewer, ordinary ones share the rest */

struct cost {
    uint64_t count, total, min;
    uint32_t histogram[HISTOGRAM_SLOTS];
};

struct named_cost {
    char name[24];
    struct cost cost;
};

struct stats {
    FILE *file;
    char path[256];
    struct vm *vm;
    struct cost reason[EXIT_REASON_COUNT];
    uint64_t disposition[DISPOSITION_COUNT];
    uint64_t injected_exception[256], injected_interrupt[256];
    struct named_cost instruction[MAX_INSTRUCTIONS];
    unsigned n_instructions;
};

static unsigned histogram_slot(uint64_t ns)
{
    unsigned octave, slot;

    if (ns < STEPS_PER_OCTAVE)
        return (unsigned)ns;
    octave = 63u - (unsigned)__builtin_clzll(ns);
    slot = (octave - OCTAVE_SHIFT + 1) * STEPS_PER_OCTAVE +
           (unsigned)(ns >> (octave - OCTAVE_SHIFT)) % STEPS_PER_OCTAVE;
    return slot < HISTOGRAM_SLOTS ? slot : HISTOGRAM_SLOTS - 1;
}

/* The least value that falls into a slot. */
static uint64_t histogram_value(unsigned slot)
{
    unsigned octave = slot / STEPS_PER_OCTAVE;

    if (octave == 0)
        return slot;
    return (uint64_t)(STEPS_PER_OCTAVE + slot % STEPS_PER_OCTAVE) << (octave - 1);
}

static void cost_add(struct cost *cost, uint64_t ns)
{
    if (cost->count == 0 || ns < cost->min)
        cost->min = ns;
    cost->count++;
    cost->total += ns;
    cost->histogram[histogram_slot(ns)]++;
}

/* The value at the nearest rank, rounded down to its slot, but never below the least. */
static uint64_t cost_percentile(const struct cost *cost, unsigned percent)
{
    uint64_t rank = (cost->count * percent + 99) / 100, seen = 0;
    unsigned slot = 0;

    while (slot < HISTOGRAM_SLOTS - 1 && (seen += cost->histogram[slot]) < rank)
        slot++;
    return histogram_value(slot) < cost->min ? cost->min : histogram_value(slot);
}

static struct cost *instruction_cost(struct stats *stats, const struct insn *insn)
{
    const char *name = insn->sensitive != NULL ? insn->sensitive->name : decode_mnemonic_name(insn);
    unsigned i = 0;

    while (i < stats->n_instructions &&
           strncmp(stats->instruction[i].name, name, sizeof stats->instruction[i].name - 1) != 0)
        i++;
    if (i == MAX_INSTRUCTIONS)
        return &stats->instruction[MAX_INSTRUCTIONS - 1].cost;
    if (i == stats->n_instructions) {
        stats->n_instructions++;
        snprintf(stats->instruction[i].name, sizeof stats->instruction[i].name, "%s",
                 i == MAX_INSTRUCTIONS - 1 ? "others" : name);
    }
    return &stats->instruction[i].cost;
}

static void count_injections(struct stats *stats, const struct vm_event *event)
{
    for (unsigned i = 0; i < event->n_notes; i++) {
        const struct note *note = &event->note[i];

        if (note->kind == NOTE_INJECTED && note->injection == INJECT_EXCEPTION)
            stats->injected_exception[note->vector]++;
        else if (note->kind == NOTE_INJECTED)
            stats->injected_interrupt[note->vector]++;
    }
}

static void observe(void *opaque, const struct vm *vm, const struct vm_event *event)
{
    struct stats *stats = opaque;
    uint64_t ns = event->capture_ns + event->handle_ns;

    (void)vm;
    stats->disposition[event->disposition]++;
    count_injections(stats, event);
    if (event->disposition == DISPOSITION_INTERRUPT)
        return;
    cost_add(&stats->reason[event->exit.reason], ns);
    if (event->has_insn)
        cost_add(instruction_cost(stats, &event->insn), ns);
}

struct stats *stats_open(const char *path, struct vm *vm, char *error, size_t error_size)
{
    struct stats *stats = calloc(1, sizeof *stats);

    if (stats == NULL) {
        snprintf(error, error_size, "out of memory for the statistics");
        return NULL;
    }
    stats->file = fopen(path, "we");
    if (stats->file == NULL) {
        snprintf(error, error_size, "cannot open the statistics file %s: %s", path, strerror(errno));
        free(stats);
        return NULL;
    }
    snprintf(stats->path, sizeof stats->path, "%s", path);
    stats->vm = vm;
    vm->timed = true;
    vm_observe_on_the_spot(vm, observe, stats);
    return stats;
}

/* ---- writing ------------------------------------------------------------------------------------------- */

static void write_cost(FILE *file, const char *separator, const char *name, const struct cost *cost)
{
    fprintf(file,
            "%s\n    \"%s\": {\"count\": %llu, \"total_ns\": %llu, \"min_ns\": %llu, \"p50_ns\": %llu, "
            "\"p99_ns\": %llu}",
            separator, name, (unsigned long long)cost->count, (unsigned long long)cost->total,
            (unsigned long long)cost->min, (unsigned long long)cost_percentile(cost, 50),
            (unsigned long long)cost_percentile(cost, 99));
}

static void write_vectors(FILE *file, const char *title, const uint64_t counts[256], bool is_exception)
{
    const char *separator = "";

    fprintf(file, "  \"%s\": {", title);
    for (unsigned i = 0; i < 256; i++) {
        if (counts[i] == 0)
            continue;
        if (is_exception)
            fprintf(file, "%s\"%s\": %llu", separator, vcpu_exception_name(i), (unsigned long long)counts[i]);
        else
            fprintf(file, "%s\"%u\": %llu", separator, i, (unsigned long long)counts[i]);
        separator = ", ";
    }
    fprintf(file, "},\n");
}

static void write_counters(FILE *file, const struct engine_stats *engine)
{
    const char *separator = "";

    if (engine->n_counters == 0)
        return;
    fprintf(file, "  \"engine_counts\": {");
    for (unsigned i = 0; i < engine->n_counters; i++, separator = ", ")
        fprintf(file, "%s\"%s\": %llu", separator, engine->counter[i].name,
                (unsigned long long)engine->counter[i].value);
    fprintf(file, "},\n");
}

static void ask_engine(const struct vm *vm, struct engine_stats *engine)
{
    *engine = (struct engine_stats){0};
    if (vm->engine->stats != NULL)
        vm->engine->stats(vm->engine_state, engine);
    else
        engine->shadow = *shadow_stats(vm->shadow);
}

static void write_all(const struct stats *stats)
{
    struct engine_stats engine;
    const struct shadow_stats *shadow = &engine.shadow;
    const char *separator = "";
    FILE *file = stats->file;

    ask_engine(stats->vm, &engine);
    fprintf(file, "{\n  \"ring3-stats\": 1,\n  \"engine\": \"%s\",\n  \"machine_ns\": %llu,\n",
            stats->vm->engine->name, (unsigned long long)stats->vm->clock.now(stats->vm->clock.ctx));
    if (stats->vm->engine->counts_instructions)
        fprintf(file, "  \"retired\": %llu,\n", (unsigned long long)stats->vm->n_instructions);
    fprintf(file, "  \"ticks_passed_over\": %llu,\n", (unsigned long long)stats->vm->idle.n_passed);
    fprintf(file, "  \"exits\": {");
    for (unsigned i = 0; i < EXIT_REASON_COUNT; i++)
        if (stats->reason[i].count != 0) {
            write_cost(file, separator, exit_reason_name(i), &stats->reason[i]);
            separator = ",";
        }
    fprintf(file, "\n  },\n  \"instructions\": {");
    separator = "";
    for (unsigned i = 0; i < stats->n_instructions; i++, separator = ",")
        write_cost(file, separator, stats->instruction[i].name, &stats->instruction[i].cost);
    fprintf(file, "\n  },\n  \"dispositions\": {");
    separator = "";
    for (unsigned i = 0; i < DISPOSITION_COUNT; i++)
        if (stats->disposition[i] != 0) {
            fprintf(file, "%s\"%s\": %llu", separator, disposition_name(i),
                    (unsigned long long)stats->disposition[i]);
            separator = ", ";
        }
    fprintf(file, "},\n");
    write_vectors(file, "injected_exceptions", stats->injected_exception, true);
    write_vectors(file, "injected_interrupts", stats->injected_interrupt, false);
    write_counters(file, &engine);
    fprintf(file,
            "  \"shadow\": {\"fills\": %llu, \"pages_filled\": %llu, \"drops\": %llu, "
            "\"write_protect_faults\": %llu, "
            "\"table_writes\": %llu, \"evictions\": %llu, \"cr3_writes\": %llu, \"mappings\": %llu}\n}\n",
            (unsigned long long)shadow->fills, (unsigned long long)shadow->pages_filled,
            (unsigned long long)shadow->drops, (unsigned long long)shadow->write_protect_faults,
            (unsigned long long)shadow->table_writes, (unsigned long long)shadow->evictions,
            (unsigned long long)shadow->switches, (unsigned long long)shadow->mappings);
}

bool stats_close(struct stats *stats, char *error, size_t error_size)
{
    bool is_written;

    write_all(stats);
    is_written = ferror(stats->file) == 0;
    if (fclose(stats->file) != 0 || !is_written) {
        snprintf(error, error_size, "cannot write the statistics to %s: %s", stats->path, strerror(errno));
        is_written = false;
    }
    free(stats);
    return is_written;
}
