/*
 * The bound on host mappings. Linux gives a process 65530 of them; a guest that maps scattered pages
 * everywhere would use them up, and then even unmapping fails. So each space counts where its host mappings
 * begin, and before the sum is one too many, whole regions go: of the space used longest ago first, and in it
 * those filled longest ago first, until an eighth of the bound is free again. The space that fills now comes
 * last.
 *
 * Regions that add no host mapping (a long run goes through them) stay: to drop them would win nothing.
 *
 * Read next: invariant.c.
 */
#include "shadowpt/space.h"

#define NO_REGION MAX_REGIONS

static bool has_earlier_fill(const struct shadow *shadow, uint32_t region, uint32_t than)
{
    return than == NO_REGION || shadow->region[region].filled_at < shadow->region[than].filled_at;
}

static uint32_t oldest_region(const struct shadow *shadow)
{
    uint32_t oldest = NO_REGION;

    for (uint32_t region = 0; region < space_regions(shadow); region++)
        if (shadow->region[region].n_pages != 0 && shadow->region[region].n_runs != 0 &&
            has_earlier_fill(shadow, region, oldest))
            oldest = region;
    return oldest;
}

/* The space with the longest time since it was used, `shadow` only if it is the only one. */
static struct shadow *least_recently_used(struct shadow *shadow)
{
    struct shadow *space, *least = shadow;

    for (uint64_t left = shadow->set->members; (space = set_next(shadow->set, &left)) != NULL;)
        if (space != shadow && space->n_runs != 0 && (least == shadow || space->used_at < least->used_at))
            least = space;
    return least;
}

void evict_for(struct shadow *shadow, uint32_t n)
{
    uint32_t keep = shadow->max_runs - shadow->max_runs / 8;

    if (shadow->set->n_runs + n <= shadow->max_runs)
        return;
    if (keep > shadow->max_runs - n)
        keep = shadow->max_runs - n;
    while (shadow->set->n_runs > keep) {
        struct drop_batch batch = {0};
        struct shadow *space = least_recently_used(shadow);
        uint32_t region = oldest_region(space);

        if (region == NO_REGION)
            return;
        space->stats.evictions += space->region[region].n_pages;
        drop_region(space, &batch, region);
        drop_flush(space, &batch);
    }
}
