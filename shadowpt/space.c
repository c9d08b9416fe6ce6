/*
 * The notes of a shadow space: sptes, the reverse map from RAM pages to them, and the counts that bound and
 * speed up everything else (pages and kernel-only pages of each region; host mappings, counted by their
 * beginnings).
 *
 * The arrays are reserved for the whole window and the whole memory, but a page of them is touched only when
 * something is mapped there: a guest pays for what it uses, and creating a space costs five mmaps.
 *
 * Read next: host.c.
 */
#include "shadowpt/space.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "vcpu/fail.h"

#define DEFAULT_MAX_RUNS 16384u /* a quarter of vm.max_map_count's default */
#define LEAST_MAX_RUNS   64u    /* an instruction touches at most a dozen pages; they must fit at once */

/* ---- life ---------------------------------------------------------------------------------------------- */

struct shadow *shadow_create(const struct shadow_config *config, char *error, size_t error_size)
{
    struct shadow *shadow = calloc(1, sizeof *shadow);

    if (shadow == NULL) {
        snprintf(error, error_size, "cannot allocate a shadow space: %s", strerror(errno));
        return NULL;
    }
    shadow->config = *config;
    shadow->memory = config->memory;
    shadow->n_rpn = (uint32_t)(config->memory->size >> PAGE_SHIFT);
    shadow->max_runs = config->max_runs == 0 ? DEFAULT_MAX_RUNS : config->max_runs;
    if (shadow->max_runs < LEAST_MAX_RUNS)
        shadow->max_runs = LEAST_MAX_RUNS;
    shadow->region_bits = REGION_BITS;
    for (unsigned i = 0; i < PAGING_DIRECTORIES; i++)
        shadow->directory[i] = RPN_NONE;
    shadow->limit_page = WINDOW_PAGES;
    shadow->uffd = -1;
    shadow->spte = set_reserve_array(WINDOW_PAGES, sizeof *shadow->spte);
    shadow->rmap_next = set_reserve_array(WINDOW_PAGES, sizeof *shadow->rmap_next);
    shadow->rmap_prev = set_reserve_array(WINDOW_PAGES, sizeof *shadow->rmap_prev);
    shadow->rmap_head = set_reserve_array(shadow->n_rpn, sizeof *shadow->rmap_head);
    shadow->table = set_reserve_array(shadow->n_rpn, sizeof *shadow->table);
    if (!set_join(shadow, error, error_size)) {
        shadow_destroy(shadow);
        return NULL;
    }
    if (shadow->spte == NULL || shadow->rmap_next == NULL || shadow->rmap_prev == NULL ||
        shadow->rmap_head == NULL || shadow->table == NULL) {
        snprintf(error, error_size, "cannot reserve the shadow's arrays: %s", strerror(errno));
        shadow_destroy(shadow);
        return NULL;
    }
    if (config->use_userfaultfd) {
        protect_open(shadow->set);
        shadow->uffd = shadow->set->uffd;
    }
    if (config->check_invariant)
        invariant_open(shadow->set);
    return shadow;
}

void shadow_destroy(struct shadow *shadow)
{
    if (shadow == NULL)
        return;
    if (shadow->set != NULL) {
        shadow_drop_all(shadow);
        table_forget_directories(shadow);
        host_leave(shadow);
    }
    set_leave(shadow);
    set_release_array(shadow->table, shadow->n_rpn, sizeof *shadow->table);
    set_release_array(shadow->rmap_head, shadow->n_rpn, sizeof *shadow->rmap_head);
    set_release_array(shadow->rmap_prev, WINDOW_PAGES, sizeof *shadow->rmap_prev);
    set_release_array(shadow->rmap_next, WINDOW_PAGES, sizeof *shadow->rmap_next);
    set_release_array(shadow->spte, WINDOW_PAGES, sizeof *shadow->spte);
    free(shadow);
}

const struct shadow_stats *shadow_stats(const struct shadow *shadow)
{
    return &shadow->stats;
}

bool shadow_find(const struct shadow *shadow, gva_t gva, struct shadow_mapping *mapping)
{
    uint32_t spte = shadow->spte[gva >> PAGE_SHIFT];

    if (spte == 0)
        return false;
    *mapping = (struct shadow_mapping){.rpn = spte_rpn(spte),
                                       .write = (spte & SPTE_WRITE) != 0,
                                       .user = (spte & SPTE_USER) != 0,
                                       .execute = (spte & SPTE_NX) == 0,
                                       .global = (spte & SPTE_GLOBAL) && (shadow->cr4 & CR4_PGE)};
    return true;
}

uint8_t *shadow_fast(const struct shadow *shadow, const struct vcpu *vcpu, gva_t gva, unsigned kind)
{
    uint32_t spte = shadow->spte[gva >> PAGE_SHIFT];
    uint32_t needed = SPTE_PRESENT | ((kind & ACCESS_WRITE) ? SPTE_WRITE : 0) |
                      ((kind & ACCESS_USER) ? SPTE_USER : 0); /* an override is never the user's */

    if ((spte & needed) != needed || ((kind & ACCESS_FETCH) && (spte & SPTE_NX)) ||
        !space_is_for(shadow, vcpu))
        return NULL;
    return shadow->memory->hva + ((uint64_t)spte_rpn(spte) << PAGE_SHIFT) + (gva & PAGE_MASK);
}

uint32_t shadow_held(const struct shadow *shadow, const struct vcpu *vcpu, gva_t gva, unsigned kind)
{
    uint32_t spte = shadow->spte[gva >> PAGE_SHIFT];
    uint32_t needed = SPTE_PRESENT | SPTE_HELD | ((kind & ACCESS_USER) ? SPTE_USER : 0);

    return (spte & needed) == needed && space_is_for(shadow, vcpu) ? spte_rpn(spte) : RPN_NONE;
}

void space_observe(struct shadow *shadow, enum shadow_change change, uint32_t first, uint32_t n)
{
    if (shadow->config.observe != NULL)
        shadow->config.observe(shadow->config.observe_ctx, change, first << PAGE_SHIFT, n);
}

/* ---- the reverse map ----------------------------------------------------------------------------------- */

static void rmap_add(struct shadow *shadow, uint32_t page, uint32_t rpn)
{
    uint32_t head = shadow->rmap_head[rpn];

    shadow->rmap_next[page] = head;
    shadow->rmap_prev[page] = 0;
    if (head != 0)
        shadow->rmap_prev[head - 1] = page + 1;
    else
        shadow->set->page[rpn].mapped |= shadow->bit;
    shadow->rmap_head[rpn] = page + 1;
}

static void rmap_remove(struct shadow *shadow, uint32_t page, uint32_t rpn)
{
    uint32_t next = shadow->rmap_next[page];
    uint32_t prev = shadow->rmap_prev[page];

    if (next != 0)
        shadow->rmap_prev[next - 1] = prev;
    if (prev != 0)
        shadow->rmap_next[prev - 1] = next;
    else
        shadow->rmap_head[rpn] = next;
    if (shadow->rmap_head[rpn] == 0)
        shadow->set->page[rpn].mapped &= ~shadow->bit;
}

/* ---- counts -------------------------------------------------------------------------------------------- */

/* Will the host keep two adjacent pages in one mapping? */
static bool is_joined(uint32_t left, uint32_t right)
{
    const uint32_t host = SPTE_HOST_WRITE | SPTE_HOST_UFFD | SPTE_NX;

    if (left == 0 || right == 0)
        return left == right;
    return spte_rpn(right) == spte_rpn(left) + 1 && ((left ^ right) & host) == 0;
}

static uint32_t spte_at(const struct shadow *shadow,
                        uint32_t page) /* page -1 and the one past the end: unmapped */
{
    return page < WINDOW_PAGES ? shadow->spte[page] : 0;
}

/* Counts, or with -1 uncounts, the host mapping that begins at page, if one does. */
static void count_run(struct shadow *shadow, uint32_t page, int by)
{
    if (page >= WINDOW_PAGES || is_joined(spte_at(shadow, page - 1), shadow->spte[page]))
        return;

    struct region *region = space_region_of(shadow, page);

    region->n_runs = (uint16_t)(region->n_runs + by);
    shadow->n_runs += (uint32_t)by;
    shadow->set->n_runs += (uint32_t)by;
}

static void count_page(struct shadow *shadow, uint32_t page, uint32_t spte, int by)
{
    struct region *region = space_region_of(shadow, page);

    if (spte == 0)
        return;
    region->n_pages = (uint16_t)(region->n_pages + by);
    shadow->stats.mappings += (uint64_t)(int64_t)by;
    if (spte & SPTE_OVERRIDE)
        shadow->n_override += (uint32_t)by;
    if (!spte_is_kernel_only(spte))
        return;
    region->n_kernel = (uint16_t)(region->n_kernel + by);
    if (page < shadow->limit_page)
        shadow->n_kernel_low += (uint32_t)by;
}

static void write_spte(struct shadow *shadow, uint32_t page, uint32_t spte)
{
    count_run(shadow, page, -1);
    count_run(shadow, page + 1, -1);
    count_page(shadow, page, shadow->spte[page], -1);
    shadow->spte[page] = spte;
    count_page(shadow, page, spte, 1);
    count_run(shadow, page, 1);
    count_run(shadow, page + 1, 1);
}

/* ---- changes ------------------------------------------------------------------------------------------- */

/* Notes n pages with consecutive rpns, none of which was mapped; they lie in one region. Only the ends of
 * such a run can begin or end a host mapping. */
void space_map_run(struct shadow *shadow, uint32_t first, uint32_t n, uint32_t rpn, uint32_t flags)
{
    count_run(shadow, first, -1);
    count_run(shadow, first + n, -1);
    for (uint32_t i = 0; i < n; i++) {
        shadow->spte[first + i] = ((rpn + i) << PAGE_SHIFT) | flags;
        count_page(shadow, first + i, flags, 1);
        rmap_add(shadow, first + i, rpn + i);
    }
    count_run(shadow, first, 1);
    count_run(shadow, first + n, 1);
    invariant_log(shadow, first, n);
}

void space_set_flags(struct shadow *shadow, uint32_t page, uint32_t flags)
{
    write_spte(shadow, page, (shadow->spte[page] & ~PAGE_MASK) | flags);
    invariant_log(shadow, page, 1);
}

/* The owner's notes of the pages that went: after the host mapping has gone, and before the guest runs. */
void space_tell_dropped(struct shadow *shadow)
{
    struct page_range gone = shadow->gone;

    shadow->gone = (struct page_range){0};
    if (gone.first != gone.end && shadow->config.dropped != NULL)
        shadow->config.dropped(shadow->config.dropped_ctx, shadow, gone.first << PAGE_SHIFT,
                               gone.end - gone.first);
}

static void note_gone(struct shadow *shadow, uint32_t page)
{
    if (page != shadow->gone.end || shadow->gone.first == shadow->gone.end) {
        space_tell_dropped(shadow);
        shadow->gone.first = page;
    }
    shadow->gone.end = page + 1;
}

void space_unmap(struct shadow *shadow, uint32_t page)
{
    uint32_t spte = shadow->spte[page];

    if (spte == 0)
        return;
    rmap_remove(shadow, page, spte_rpn(spte));
    write_spte(shadow, page, 0);
    shadow->stats.drops++;
    note_gone(shadow, page);
    if (space_region_of(shadow, page)->n_pages == 0)
        table_release(shadow, page >> shadow->region_bits);
    invariant_log(shadow, page, 1);
}

/* The part of the host mapping around page that lies in its region, and in `reach`, is about to be registered
 * with userfaultfd: returns it and notes that. (Not beyond the region: the scan is bounded, and registered
 * neighbours merge in the host anyway.) */
struct page_range space_mark_registered(struct shadow *shadow, uint32_t page, struct page_range reach)
{
    struct page_range run = {page, page + 1};
    uint32_t first = page & ~(space_region_pages(shadow) - 1);
    uint32_t end = first + space_region_pages(shadow);

    if (first < reach.first)
        first = reach.first;
    if (end > reach.end)
        end = reach.end;
    while (run.first > first && is_joined(shadow->spte[run.first - 1], shadow->spte[run.first]))
        run.first--;
    while (run.end < end && is_joined(shadow->spte[run.end - 1], shadow->spte[run.end]))
        run.end++;
    count_run(shadow, run.first, -1);
    count_run(shadow, run.end, -1);
    for (uint32_t i = run.first; i < run.end; i++)
        shadow->spte[i] |= SPTE_HOST_UFFD;
    count_run(shadow, run.first, 1);
    count_run(shadow, run.end, 1);
    return run;
}

void space_forget_all(struct shadow *shadow)
{
    for (uint32_t region = 0; region < space_regions(shadow); region++) {
        uint32_t page = region << shadow->region_bits;

        for (; shadow->region[region].n_pages != 0; page++)
            space_unmap(shadow, page);
    }
    space_tell_dropped(shadow);
    BUG_ON(shadow->stats.mappings != 0 || shadow->n_runs != 0 || shadow->n_kernel_low != 0);
}

static uint32_t count_kernel_only(const struct shadow *shadow, uint32_t first, uint32_t end)
{
    uint32_t n = 0;

    for (uint32_t page = first; page < end; page++)
        n += spte_is_kernel_only(shadow->spte[page]);
    return n;
}

void space_set_limit(struct shadow *shadow, uint32_t limit_page)
{
    uint32_t whole = limit_page >> shadow->region_bits;

    shadow->limit_page = limit_page;
    shadow->n_kernel_low = 0;
    for (uint32_t region = 0; region < whole; region++)
        shadow->n_kernel_low += shadow->region[region].n_kernel;
    if (whole < space_regions(shadow) && shadow->region[whole].n_kernel != 0)
        shadow->n_kernel_low += count_kernel_only(shadow, whole << shadow->region_bits, limit_page);
}
