/*
 * Taking mappings away. The notes go at once, the host mapping when the batch is flushed: one mmap takes any
 * range of the window, so pages are collected in ascending order and what lies between them, if it is
 * unmapped, goes along (measured: 0.3 us a page for scattered pages in one call, 7 us each in calls of their
 * own).
 *
 * A batch must be flushed before the guest runs again, and before its range could be mapped again.
 *
 * Read next: fill.c.
 */
#include "shadowpt/space.h"

#include <errno.h>
#include <string.h>

#include "vcpu/fail.h"

/* Nothing is mapped from first to end. */
static bool is_unmapped(const struct shadow *shadow, uint32_t first, uint32_t end)
{
    uint32_t page = first;

    while (page < end) {
        if ((page & (space_region_pages(shadow) - 1)) == 0 &&
            shadow->region[page >> shadow->region_bits].n_pages == 0)
            page += space_region_pages(shadow);
        else if (shadow->spte[page] != 0)
            return false;
        else
            page++;
    }
    return true;
}

void drop_flush(struct shadow *shadow, struct drop_batch *batch)
{
    struct page_range range = batch->range;

    *batch = (struct drop_batch){0};
    if (range.first == range.end)
        return;
    space_observe(shadow, SHADOW_CHANGE_DROP, range.first, range.end - range.first);
    if (!host_unmap(shadow, range)) {
        /* no room to punch a hole into a mapping */
        space_forget_all(shadow);
        if (!host_clear(shadow))
            die("cannot clear the guest's window: %s", strerror(errno));
    }
    space_tell_dropped(shadow);
}

/* Pages must come in ascending order. */
void drop_add(struct shadow *shadow, struct drop_batch *batch, uint32_t page)
{
    if (shadow->spte[page] == 0)
        return;
    space_unmap(shadow, page);
    if (batch->range.first != batch->range.end && is_unmapped(shadow, batch->range.end, page)) {
        batch->range.end = page + 1;
        return;
    }
    drop_flush(shadow, batch);
    batch->range = (struct page_range){page, page + 1};
}

void drop_page(struct shadow *shadow, uint32_t page)
{
    struct drop_batch batch = {0};

    drop_add(shadow, &batch, page);
    drop_flush(shadow, &batch);
}

void drop_region(struct shadow *shadow, struct drop_batch *batch, uint32_t region)
{
    uint32_t page = region << shadow->region_bits;

    for (; shadow->region[region].n_pages != 0; page++)
        drop_add(shadow, batch, page);
}

void shadow_drop_page(struct shadow *shadow, uint32_t rpn)
{
    struct shadow_set *set = shadow->set;
    struct shadow *space;

    if (rpn >= set->n_rpn)
        return;
    for (uint64_t left = set->page[rpn].mapped; (space = set_next(set, &left)) != NULL;)
        while (space->rmap_head[rpn] != 0)
            drop_page(space, space->rmap_head[rpn] - 1);
}

void shadow_drop_all(struct shadow *shadow)
{
    struct drop_batch batch = {0};

    for (uint32_t region = 0; region < space_regions(shadow); region++) {
        drop_region(shadow, &batch, region);
        table_release(shadow, region); /* one may be linked without pages */
    }
    drop_flush(shadow, &batch);
}

void shadow_move_window(struct shadow *shadow, const struct shadow_window *window)
{
    shadow_drop_all(shadow);
    host_leave(shadow);
    shadow->config.window = *window;
}
