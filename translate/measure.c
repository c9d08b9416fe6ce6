/*
 * What the engine counts and measures, for `ring3 run --stats`. The clock is read only while somebody wants
 * to know: a lookup takes less time than reading it.
 *
 * Read next: monitor/stats.c, which writes it.
 */
#include "translate/translator.h"

uint64_t measure_begin(const struct translator *translator)
{
    return translator->vm->timed ? translator->vm->engine->host_ns() : 0;
}

void measure_end(const struct translator *translator, uint64_t *cost, uint64_t began)
{
    if (began != 0)
        *cost += translator->vm->engine->host_ns() - began;
}

static void add_shadow(struct shadow_stats *sum, const struct shadow_stats *part)
{
    sum->fills += part->fills;
    sum->pages_filled += part->pages_filled;
    sum->drops += part->drops;
    sum->write_protect_faults += part->write_protect_faults;
    sum->table_writes += part->table_writes;
    sum->evictions += part->evictions;
    sum->switches += part->switches;
    sum->mappings += part->mappings;
}

static void add_counter(struct engine_stats *stats, const char *name, uint64_t value)
{
    stats->counter[stats->n_counters++] = (struct engine_counter){.name = name, .value = value};
}

/* The time in translated code is what is left of the time inside. */
static uint64_t guest_ns(const struct translator_counts *counts)
{
    uint64_t ours = counts->find_ns + counts->call_ns;

    return counts->inside_ns > ours ? counts->inside_ns - ours : 0;
}

void measure_report(void *opaque, struct engine_stats *stats)
{
    const struct translator *translator = opaque;
    const struct translator_counts *counts = &translator->counts;
    const struct cache *cache = &translator->cache;
    uint64_t n_spaces = 0;

    *stats = (struct engine_stats){0};
    for (unsigned i = 0; i < SHADOW_MAX_SPACES; i++) {
        if (translator->spaces[i].shadow == NULL)
            continue;
        add_shadow(&stats->shadow, shadow_stats(translator->spaces[i].shadow));
        n_spaces++;
    }
    stats->shadow.switches = counts->switches; /* each space counts how often it was brought up to date */
    add_counter(stats, "blocks", cache->n_translated);
    add_counter(stats, "block_instructions", cache->n_instructions);
    add_counter(stats, "blocks_killed", cache->n_killed);
    add_counter(stats, "cache_flushes", cache->n_flushes);
    add_counter(stats, "cache_bytes", cache->used);
    add_counter(stats, "entries", counts->entries);
    add_counter(stats, "interruptions", counts->interruptions);
    add_counter(stats, "faults", counts->faults);
    add_counter(stats, "lookups", counts->lookups);
    add_counter(stats, "links", counts->links);
    add_counter(stats, "calls_sensitive", counts->sensitive);
    add_counter(stats, "calls_memory", counts->memory);
    add_counter(stats, "adapted", counts->adapted);
    add_counter(stats, "given_back", counts->given_back);
    add_counter(stats, "interpreted", counts->interpreted);
    add_counter(stats, "spaces", n_spaces);
    add_counter(stats, "guest_ns", guest_ns(counts));
    add_counter(stats, "call_ns", counts->call_ns);
    add_counter(stats, "find_ns", counts->find_ns);
    add_counter(stats, "build_ns", counts->build_ns);
}
