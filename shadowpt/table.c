/*
 * Following the guest's page tables: tracing those the shadow was built from, and taking back at once what a
 * write to one no longer allows.
 *
 * A write is followed in every space that uses the page, in use or not.
 *
 * A page may be a directory and a page table at the same time (a recursive mapping), or a table of several
 * regions; it is looked at in each role.
 *
 * Traces are dropped lazily. A page that no region refers to any more keeps its trace until it is written, so
 * that going back and forth between two address spaces protects nothing anew. A page table that is written
 * again and again without being used (the guest builds or tears down an address space) loses everything built
 * from it, and with it the trace; the next fill that walks through it traces it again.
 *
 * Read next: switch.c.
 */
#include "shadowpt/space.h"

#include "vcpu/fail.h"

/* Writes without a fill in between; then tracing costs more than filling anew. One that takes a mapping away
 * costs a system call and counts for several. */
#define FLOOD_WRITES     32u
#define WRITES_PER_DROPS 8u
#define IDLE_PER_FLOOD   64u

/* What a page-directory entry and the leaf under it (the same one for a large page) allow a mapping, in
 * SPTE_* bits; SPTE_OVERRIDE: a write by the supervisor with CR0.WP=0; SPTE_NX: it must have that. Without A
 * there is no mapping, without D no write. */
uint32_t table_rights(const struct paging_mode *mode, uint64_t pde, uint64_t pte)
{
    uint64_t both = pde & pte, either = pde | pte;
    uint32_t rights = SPTE_PRESENT;

    if (!(both & PTE_P) || !(both & PTE_A) || (either & mode->reserved))
        return 0;
    if (either & mode->no_execute)
        rights |= SPTE_NX;
    if (both & PTE_U)
        rights |= SPTE_USER;
    if (pte & PTE_D)
        rights |= SPTE_OVERRIDE | ((both & PTE_W) ? SPTE_WRITE : 0);
    return rights;
}

/* ---- traces -------------------------------------------------------------------------------------------- */

void table_trace(struct shadow *shadow, uint32_t rpn)
{
    if (space_is_table(shadow, rpn))
        return;
    shadow->memory->page_flags[rpn] |= PAGE_IS_TABLE;
    shadow->set->page[rpn].n_idle_writes = 0;
    shadow->table[rpn].n_writes = 0;
    protect_everywhere(shadow->set, rpn);
}

void table_untrace(struct shadow *shadow, uint32_t rpn)
{
    shadow->memory->page_flags[rpn] &= (uint8_t)~PAGE_IS_TABLE;
}

bool table_is_used_by(const struct shadow *shadow, uint32_t rpn)
{
    for (unsigned i = 0; i < PAGING_DIRECTORIES; i++)
        if (shadow->directory[i] == rpn)
            return true;
    return shadow->table[rpn].first_region != 0;
}

/* A page that no space uses is written: it may be filled anew, for other addresses, and used again; or it is
 * no table any more. */
void table_note_idle_write(struct shadow *shadow, uint32_t rpn)
{
    struct page_spaces *page = &shadow->set->page[rpn];

    if (page->n_idle_writes++ >= shadow->config.flood_writes / IDLE_PER_FLOOD)
        table_untrace(shadow, rpn);
}

bool table_is_used(const struct shadow *shadow, uint32_t rpn)
{
    return shadow->set->page[rpn].table != 0;
}

/* The space begins or ends to use the page. */
static void note_use(struct shadow *shadow, uint32_t rpn)
{
    if (table_is_used_by(shadow, rpn))
        shadow->set->page[rpn].table |= shadow->bit;
    else
        shadow->set->page[rpn].table &= ~shadow->bit;
}

void table_set_directory(struct shadow *shadow, unsigned which, uint32_t rpn)
{
    uint32_t old = shadow->directory[which];

    shadow->directory[which] = rpn;
    if (old != RPN_NONE)
        note_use(shadow, old);
    if (rpn != RPN_NONE)
        note_use(shadow, rpn);
}

void table_forget_directories(struct shadow *shadow)
{
    for (unsigned i = 0; i < PAGING_DIRECTORIES; i++)
        table_set_directory(shadow, i, RPN_NONE);
}

/* ---- which table a region comes from ------------------------------------------------------------------- */

void table_release(struct shadow *shadow, uint32_t region)
{
    struct region *released = &shadow->region[region];

    if (released->table == 0)
        return;

    uint32_t rpn = released->table - 1;
    uint16_t *link = &shadow->table[rpn].first_region;

    while (*link != region + 1)
        link = &shadow->region[*link - 1].next;
    *link = released->next;
    released->next = 0;
    released->table = 0;
    note_use(shadow, rpn);
}

static void link_region(struct shadow *shadow, uint32_t region, uint32_t rpn)
{
    struct region *linked = &shadow->region[region];
    struct table *table = &shadow->table[rpn];

    if (linked->table == rpn + 1)
        return;
    table_release(shadow, region);
    linked->table = rpn + 1;
    linked->next = table->first_region;
    table->first_region = (uint16_t)(region + 1);
    note_use(shadow, rpn);
}

/* The entry of the region, as it is in its directory. */
uint64_t table_directory_entry(const struct shadow *shadow, uint32_t region)
{
    return space_entry(shadow, shadow->directory[region >> shadow->region_bits],
                       region & (space_region_pages(shadow) - 1));
}

/* Traces the tables that the walk went through, before something is built from them. false: one of them is
 * not in memory, where no trace is possible. */
bool table_trace_walk(struct shadow *shadow, const struct walk *walk, gva_t gva)
{
    uint32_t region = (gva >> PAGE_SHIFT) >> shadow->region_bits;
    uint32_t directory = shadow->directory[region >> shadow->region_bits];
    uint32_t table = 0; /* + 1; 0: a large page */

    if (walk->n_levels == 0)
        return true;
    if (directory == RPN_NONE)
        return false;
    if (!walk->is_large) {
        uint32_t rpn = memory_rpn(shadow->memory, walk->level[walk->n_levels - 1].address);

        if (rpn == RPN_NONE)
            return false;
        table = rpn + 1;
    }
    table_trace(shadow, directory);
    shadow->pde[region] = table_directory_entry(shadow, region); /* A was set by the walk */
    BUG_ON(shadow->region[region].n_pages != 0 && shadow->region[region].table != table);
    if (table != 0) {
        table_trace(shadow, table - 1);
        link_region(shadow, region, table - 1);
        shadow->table[table - 1].n_writes = 0;
    } else {
        table_release(shadow, region);
    }
    return true;
}

/* ---- comparing mappings with entries ------------------------------------------------------------------- */

/* A mapped page against the entries that are to stand for it now. */
static void settle_page(struct shadow *shadow, struct drop_batch *batch, uint32_t page, uint32_t rights,
                        gpa_t gpa)
{
    uint32_t spte = shadow->spte[page];
    uint32_t needed_to_write = (spte & SPTE_OVERRIDE) ? SPTE_OVERRIDE : SPTE_WRITE;

    if (spte == 0)
        return;
    if (rights == 0 || ((spte & SPTE_USER) && !(rights & SPTE_USER)) ||
        (!(spte & SPTE_NX) && (rights & SPTE_NX)) || memory_rpn(shadow->memory, gpa) != spte_rpn(spte))
        drop_add(shadow, batch, page);
    else if ((spte & SPTE_WRITE) && !(rights & needed_to_write))
        protect_page(shadow, page);
    if ((shadow->spte[page] & SPTE_HELD) && !(rights & SPTE_WRITE))
        space_set_flags(shadow, page, shadow->spte[page] & PAGE_MASK & ~(uint32_t)SPTE_HELD);
}

/* All mapped pages of a region against a page-directory entry that may lead anywhere. */
static void settle_region(struct shadow *shadow, struct drop_batch *batch, uint32_t region)
{
    const struct paging_mode *mode = shadow->mode;
    uint64_t pde = shadow->pde[region];
    bool is_large = (pde & mode->large) != 0;
    uint32_t rpn = memory_rpn(shadow->memory, pde & mode->frame);

    if (table_rights(mode, pde, pde) == 0 ||
        (is_large ? (pde & mode->large_reserved) != 0 : rpn == RPN_NONE)) {
        drop_region(shadow, batch, region);
        return;
    }
    for (uint32_t i = 0; i < space_region_pages(shadow) && shadow->region[region].n_pages != 0; i++) {
        uint32_t page = (region << shadow->region_bits) + i;

        if (shadow->spte[page] == 0)
            continue;

        uint64_t pte = is_large ? pde : space_entry(shadow, rpn, i);
        gpa_t gpa = is_large ? (pde & mode->large_frame) + ((gpa_t)i << PAGE_SHIFT) : pte & mode->frame;

        settle_page(shadow, batch, page, table_rights(mode, pde, pte), gpa);
    }
    if (shadow->region[region].n_pages == 0 || is_large) {
        table_release(shadow, region);
        return;
    }
    table_trace(shadow, rpn);
    link_region(shadow, region, rpn);
}

/* Does the new entry lead elsewhere, or allow less than the old one? */
static bool is_narrower(const struct paging_mode *mode, uint64_t old, uint64_t new)
{
    return ((old ^ new) & (mode->frame | mode->reserved | PTE_P | PTE_PS)) != 0 ||
           (old & ~new &(PTE_A | PTE_D | PTE_W | PTE_U)) != 0 || (new & ~old & mode->no_execute) != 0;
}

void table_follow_directory_entry(struct shadow *shadow, struct drop_batch *batch, uint32_t region,
                                  uint64_t new)
{
    uint64_t old = shadow->pde[region];

    shadow->pde[region] = new;
    if (!is_narrower(shadow->mode, old, new))
        return;
    if (shadow->region[region].n_pages == 0)
        table_release(shadow, region);
    else
        settle_region(shadow, batch, region);
}

/* Entries first to last of the page table were written: the pages they map, in each region built from it. */
static void follow_table(struct shadow *shadow, uint32_t rpn, uint32_t first, uint32_t last)
{
    uint32_t next;

    for (uint32_t link = shadow->table[rpn].first_region; link != 0; link = next) {
        uint32_t region = link - 1;
        struct drop_batch batch = {0};

        next = shadow->region[region].next;
        for (uint32_t i = first; i <= last; i++) {
            uint64_t pte = space_entry(shadow, rpn, i);

            settle_page(shadow, &batch, (region << shadow->region_bits) + i,
                        table_rights(shadow->mode, shadow->pde[region], pte), pte & shadow->mode->frame);
        }
        drop_flush(shadow, &batch);
    }
}

static void drop_everything_from(struct shadow *shadow, uint32_t rpn)
{
    while (shadow->table[rpn].first_region != 0) {
        uint32_t region = shadow->table[rpn].first_region - 1u;
        struct drop_batch batch = {0};

        drop_region(shadow, &batch, region);
        drop_flush(shadow, &batch);
        table_release(shadow, region);
    }
}

/* A directory is written again and again, and the space is not the one in use: its address space may be gone,
 * and the page serve as something else. It would be traced for ever, so it is let go until the space is used
 * again; nothing can be built from it meanwhile. */
static void detach(struct shadow *shadow)
{
    shadow_drop_all(shadow);
    table_forget_directories(shadow);
    shadow->is_detached = true;
}

static void note_write(struct shadow *shadow, uint32_t rpn, bool has_dropped)
{
    uint32_t flood = shadow->config.flood_writes == 0 ? FLOOD_WRITES : shadow->config.flood_writes;
    struct table *table = &shadow->table[rpn];

    table->n_writes = (uint16_t)(table->n_writes + (has_dropped ? flood / WRITES_PER_DROPS : 1));
    if (table->n_writes >= flood)
        drop_everything_from(shadow, rpn);
}

void shadow_give_up_table(struct guest_memory *memory, uint32_t rpn)
{
    struct shadow_set *set = memory->shadows;
    struct shadow *shadow;

    if (set == NULL)
        return;
    for (uint64_t left = set->page[rpn].table; (shadow = set_next(set, &left)) != NULL;) {
        drop_everything_from(shadow, rpn);
        if (table_is_used_by(shadow, rpn) && shadow->used_at != set->n_uses)
            detach(shadow);
    }
    if (set->page[rpn].table == 0)
        memory->page_flags[rpn] &= (uint8_t)~PAGE_IS_TABLE;
}

/* Entries first to last of this directory were written. */
static void follow_directory(struct shadow *shadow, unsigned which, uint32_t first, uint32_t last)
{
    uint32_t region = (which << shadow->region_bits) + first;
    struct drop_batch batch = {0};

    for (uint32_t i = 0; i <= last - first; i++)
        table_follow_directory_entry(shadow, &batch, region + i, table_directory_entry(shadow, region + i));
    drop_flush(shadow, &batch);
    space_observe(shadow, SHADOW_CHANGE_TABLE_WRITE, region << shadow->region_bits,
                  (last - first + 1) << shadow->region_bits);
}

/* n bytes of a table were written: the space follows. */
static void follow_write(struct shadow *shadow, uint32_t rpn, uint32_t offset, uint32_t n)
{
    uint32_t first = offset / shadow->mode->entry_size;
    uint32_t last = (offset + n - 1) / shadow->mode->entry_size;
    bool is_directory = false;

    shadow->stats.table_writes++;
    for (unsigned i = 0; i < PAGING_DIRECTORIES; i++) {
        if (rpn != shadow->directory[i])
            continue;
        is_directory = true;
        follow_directory(shadow, i, first, last);
    }
    if (is_directory && ++shadow->n_directory_writes >= FLOOD_WRITES &&
        shadow->used_at != shadow->set->n_uses) {
        detach(shadow);
        return;
    }
    if (shadow->table[rpn].first_region != 0) {
        uint32_t region = shadow->table[rpn].first_region - 1u;
        uint64_t n_drops = shadow->stats.drops;

        follow_table(shadow, rpn, first, last);
        space_observe(shadow, SHADOW_CHANGE_TABLE_WRITE, (region << shadow->region_bits) + first,
                      last - first + 1);
        note_write(shadow, rpn, shadow->stats.drops != n_drops);
    }
}

void shadow_table_written(struct guest_memory *memory, uint32_t rpn, uint32_t offset, uint32_t n)
{
    struct shadow_set *set = memory->shadows;
    struct shadow *shadow;

    if (n == 0 || set == NULL)
        return;
    for (uint64_t left = set->page[rpn].table; (shadow = set_next(set, &left)) != NULL;)
        if (table_is_used_by(shadow, rpn)) /* following in another space may have ended that */
            follow_write(shadow, rpn, offset, n);
    if (set->page[rpn].table == 0 && set->members != 0)
        table_note_idle_write(set->space[__builtin_ctzll(set->members)], rpn);
}
