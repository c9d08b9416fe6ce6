/*
 * User and supervisor in one window. Both run at host CPL 3, so the page tables of the host cannot tell them
 * apart: while the guest's user code runs, its segments are truncated at the user limit, and no supervisor
 * page below that limit is mapped.
 *
 * The limit follows what the guest does. It starts above everything, comes down to the lowest supervisor page
 * mapped above every user page seen, and is raised again when the user reaches for a page beyond it. Where
 * user and kernel each have their part of the address space, as is usual, it comes to rest between them, no
 * supervisor page is below it, and a change of view costs nothing. Where they are mixed, the supervisor's
 * pages below the limit go with every change to the user view. The limit moves down only to pages above every
 * user page seen, so the two directions cannot chase each other.
 *
 * A wide view has no limit, and takes all of the supervisor's pages from the user each time: for guests that
 * change views rarely, on processors that pay for a truncated code segment.
 *
 * All this is for engines with one window. A space with a window for one view alone has no limit.
 *
 * Read next: evict.c.
 */
#include "shadowpt/space.h"

#define ADDRESS_SPACE_END (UINT64_C(1) << 32)

static bool has_own_view(const struct shadow *shadow)
{
    return shadow->config.has_own_view || shadow->config.is_user_only;
}

static void drop_kernel_low(struct shadow *shadow)
{
    struct drop_batch batch = {0};

    for (uint32_t region = 0; shadow->n_kernel_low != 0 && region < space_regions(shadow); region++) {
        uint32_t page = region << shadow->region_bits;

        if (shadow->region[region].n_kernel == 0)
            continue;
        for (uint32_t end = page + space_region_pages(shadow); page < end && page < shadow->limit_page;
             page++)
            if (spte_is_kernel_only(shadow->spte[page]))
                drop_add(shadow, &batch, page);
    }
    drop_flush(shadow, &batch);
}

void shadow_set_view(struct shadow *shadow, const struct vcpu *vcpu, bool is_user)
{
    switch_follow_registers(shadow, vcpu);
    if (has_own_view(shadow))
        return;
    shadow->is_user_view = is_user;
    if (is_user && shadow->n_kernel_low != 0)
        drop_kernel_low(shadow);
}

uint64_t shadow_user_limit(const struct shadow *shadow)
{
    return shadow->limit_page == WINDOW_PAGES ? ADDRESS_SPACE_END
                                              : (uint64_t)shadow->limit_page << PAGE_SHIFT;
}

/* The first page from `page` on that belongs to the supervisor, WINDOW_PAGES if there is none. */
static uint32_t next_supervisor_page(const struct shadow *shadow, uint32_t page)
{
    for (; page < WINDOW_PAGES; page++) {
        if ((page & (space_region_pages(shadow) - 1)) == 0 &&
            shadow->region[page >> shadow->region_bits].n_kernel == 0)
            page += space_region_pages(shadow) - 1;
        else if (spte_is_kernel_only(shadow->spte[page]) && !(shadow->spte[page] & SPTE_OVERRIDE))
            return page;
    }
    return WINDOW_PAGES;
}

void shadow_raise_user_limit(struct shadow *shadow, gva_t gva)
{
    uint32_t page = gva >> PAGE_SHIFT;

    if (page < shadow->limit_page)
        return;
    if (shadow->user_end <= page)
        shadow->user_end = page + 1;
    space_set_limit(shadow, next_supervisor_page(shadow, page + 1));
    if (shadow->is_user_view)
        drop_kernel_low(shadow);
}

void shadow_widen_user_view(struct shadow *shadow, bool is_wide)
{
    shadow->is_wide = is_wide;
    space_set_limit(shadow, is_wide ? WINDOW_PAGES : next_supervisor_page(shadow, shadow->user_end));
    if (shadow->is_user_view)
        drop_kernel_low(shadow);
}

/* A run of the user's or of the supervisor's was mapped. */
void view_note_fill(struct shadow *shadow, struct page_range run, bool is_user)
{
    if (is_user) {
        if (shadow->user_end < run.end)
            shadow->user_end = run.end;
    } else if (!shadow->is_wide && !has_own_view(shadow) && run.first < shadow->limit_page &&
               run.first >= shadow->user_end) {
        space_set_limit(shadow, run.first);
    }
}
