/*
 * Following the guest's page tables: tracing those the shadow was built from, taking back at once what a
 * write to one no longer allows, and moving from one page directory to another.
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
 * Read next: view.c.
 */
#include "shadowpt/space.h"

#include <string.h>

#include "vcpu/fail.h"

/* Writes without a fill in between; then tracing costs more than filling anew. One that takes a mapping away costs a
 * system call and counts for several. */
#define FLOOD_WRITES     32u
#define WRITES_PER_DROPS 8u
#define IDLE_PER_FLOOD   64u

/* What a page-directory entry and the leaf under it (the same one for a large page) allow a mapping, in
 * SPTE_* bits; SPTE_OVERRIDE: a write by the supervisor with CR0.WP=0. Without A there is no mapping, without
 * D no write. */
uint32_t table_rights(uint32_t pde, uint32_t pte)
{
    uint32_t both = pde & pte;
    uint32_t rights = SPTE_PRESENT;

    if (!(both & PTE_P) || !(both & PTE_A))
        return 0;
    if (both & PTE_U)
        rights |= SPTE_USER;
    if (pte & PTE_D)
        rights |= SPTE_OVERRIDE | ((both & PTE_W) ? SPTE_WRITE : 0);
    return rights;
}

/* ---- traces -------------------------------------------------------------------------------------------- */

static void trace(struct shadow *shadow, uint32_t rpn)
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
    return rpn == shadow->directory || shadow->table[rpn].first_region != 0;
}

/* A page that no space uses is written: it may be filled anew, for other addresses, and used again; or it is no table any
 * more. */
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

void table_set_directory(struct shadow *shadow, uint32_t rpn)
{
    uint32_t old = shadow->directory;

    shadow->directory = rpn;
    shadow->is_detached = false;
    if (old != RPN_NONE)
        note_use(shadow, old);
    if (rpn != RPN_NONE)
        note_use(shadow, rpn);
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

/* Traces the tables that the walk went through, before something is built from them. false: one of them is
 * not in memory, where no trace is possible. */
bool table_trace_walk(struct shadow *shadow, const struct walk *walk, gva_t gva)
{
    uint32_t region = gva >> (PAGE_SHIFT + REGION_SHIFT);

    if (walk->n_levels == 0)
        return true;
    if (shadow->directory == RPN_NONE)
        return false;

    uint32_t rpn = walk->n_levels == 2 ? memory_rpn(shadow->memory, walk->level[1].address) : 0;

    if (rpn == RPN_NONE)
        return false;
    trace(shadow, shadow->directory);
    shadow->pde[region] = space_table_entries(shadow, shadow->directory)[region]; /* A was set by the walk */
    BUG_ON(shadow->region[region].n_pages != 0 &&
           shadow->region[region].table != (walk->n_levels == 2 ? rpn + 1 : 0));
    if (walk->n_levels == 2) {
        trace(shadow, rpn);
        link_region(shadow, region, rpn);
        shadow->table[rpn].n_writes = 0;
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
        memory_rpn(shadow->memory, gpa) != spte_rpn(spte))
        drop_add(shadow, batch, page);
    else if ((spte & SPTE_WRITE) && !(rights & needed_to_write))
        protect_page(shadow, page);
}

static bool is_large(const struct shadow *shadow, uint32_t pde)
{
    return (pde & PTE_PS) && (shadow->cr4 & CR4_PSE);
}

/* All mapped pages of a region against a page-directory entry that may lead anywhere. */
static void settle_region(struct shadow *shadow, struct drop_batch *batch, uint32_t region)
{
    const uint32_t large_reserved = 0x003fe000;
    uint32_t pde = shadow->pde[region];
    bool large = is_large(shadow, pde);
    uint32_t rpn = memory_rpn(shadow->memory, pde & PTE_FRAME);
    const uint32_t *ptes = NULL;

    if (table_rights(pde, pde) == 0 || (large ? (pde & large_reserved) != 0 : rpn == RPN_NONE)) {
        drop_region(shadow, batch, region);
        return;
    }
    if (!large)
        ptes = space_table_entries(shadow, rpn);
    for (uint32_t i = 0; i < REGION_PAGES && shadow->region[region].n_pages != 0; i++) {
        uint32_t page = (region << REGION_SHIFT) + i;

        if (shadow->spte[page] == 0)
            continue;
        if (large)
            settle_page(shadow, batch, page, table_rights(pde, pde), (pde & 0xffc00000u) + (i << PAGE_SHIFT));
        else
            settle_page(shadow, batch, page, table_rights(pde, ptes[i]), ptes[i] & PTE_FRAME);
    }
    if (shadow->region[region].n_pages == 0 || large) {
        table_release(shadow, region);
        return;
    }
    trace(shadow, rpn);
    link_region(shadow, region, rpn);
}

/* Does the new entry lead elsewhere, or allow less than the old one? */
static bool is_narrower(uint32_t old, uint32_t new)
{
    return ((old ^ new) & (PTE_FRAME | PTE_P | PTE_PS)) != 0 ||
           (old & ~new &(PTE_A | PTE_D | PTE_W | PTE_U)) != 0;
}

static void follow_directory_entry(struct shadow *shadow, struct drop_batch *batch, uint32_t region,
                                   uint32_t new)
{
    uint32_t old = shadow->pde[region];

    shadow->pde[region] = new;
    if (!is_narrower(old, new))
        return;
    if (shadow->region[region].n_pages == 0)
        table_release(shadow, region);
    else
        settle_region(shadow, batch, region);
}

/* Entries first to last of the page table were written: the pages they map, in each region built from it. */
static void follow_table(struct shadow *shadow, uint32_t rpn, uint32_t first, uint32_t last)
{
    const uint32_t *ptes = space_table_entries(shadow, rpn);
    uint32_t next;

    for (uint32_t link = shadow->table[rpn].first_region; link != 0; link = next) {
        uint32_t region = link - 1;
        struct drop_batch batch = {0};

        next = shadow->region[region].next;
        for (uint32_t i = first; i <= last; i++)
            settle_page(shadow, &batch, (region << REGION_SHIFT) + i,
                        table_rights(shadow->pde[region], ptes[i]), ptes[i] & PTE_FRAME);
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

/* The directory is written again and again, and the space is not the one in use: its address space may be
 * gone, and the page serve as something else. It would be traced for ever, so it is let go until the space is
 * used again; nothing can be built from it meanwhile. */
static void detach(struct shadow *shadow)
{
    shadow_drop_all(shadow);
    table_set_directory(shadow, RPN_NONE);
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

/* Entries first to last of a table were written: the space follows. */
static void follow_write(struct shadow *shadow, uint32_t rpn, uint32_t first, uint32_t last)
{
    shadow->stats.table_writes++;
    if (rpn == shadow->directory) {
        struct drop_batch batch = {0};

        if (++shadow->n_directory_writes >= FLOOD_WRITES && shadow->used_at != shadow->set->n_uses) {
            detach(shadow);
            return;
        }

        for (uint32_t i = first; i <= last; i++)
            follow_directory_entry(shadow, &batch, i, space_table_entries(shadow, rpn)[i]);
        drop_flush(shadow, &batch);
        space_observe(shadow, SHADOW_CHANGE_TABLE_WRITE, first << REGION_SHIFT,
                      (last - first + 1) << REGION_SHIFT);
    }
    if (shadow->table[rpn].first_region != 0) {
        uint32_t region = shadow->table[rpn].first_region - 1u;
        uint64_t n_drops = shadow->stats.drops;

        follow_table(shadow, rpn, first, last);
        space_observe(shadow, SHADOW_CHANGE_TABLE_WRITE, (region << REGION_SHIFT) + first, last - first + 1);
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
        follow_write(shadow, rpn, offset / sizeof(uint32_t), (offset + n - 1) / sizeof(uint32_t));
    if (set->page[rpn].table == 0)
        table_note_idle_write(set->space[__builtin_ctzll(set->members)], rpn);
}

/* ---- the paging registers ------------------------------------------------------------------------------ */

/* The pages that are writable only because CR0.WP was 0. */
static void drop_overrides(struct shadow *shadow)
{
    struct drop_batch batch = {0};

    for (uint32_t page = 0; shadow->n_override != 0; page++)
        if (shadow->spte[page] & SPTE_OVERRIDE)
            drop_add(shadow, &batch, page);
    drop_flush(shadow, &batch);
}

/* Another page directory: regions whose entry is the same keep their pages without a look at them. */
static void switch_directory(struct shadow *shadow, uint32_t rpn)
{
    struct drop_batch batch = {0};

    table_set_directory(shadow, rpn);
    if (rpn == RPN_NONE) {
        shadow_drop_all(shadow);
        return;
    }

    const uint32_t *new = space_table_entries(shadow, rpn);

    if (memcmp(shadow->pde, new, sizeof shadow->pde) != 0) {
        for (uint32_t region = 0; region < WINDOW_REGION; region++)
            if (shadow->pde[region] != new[region])
                follow_directory_entry(shadow, &batch, region, new[region]);
        drop_flush(shadow, &batch);
    }
    if (shadow->stats.mappings != 0)
        trace(shadow, rpn);
}

/* Brings the space to the registers of the vcpu. Also at every fault, so that a state set up behind
 * vcpu_ops.paging_changed (a loader's, a snapshot's) is followed. */
void table_follow_registers(struct shadow *shadow, const struct vcpu *vcpu)
{
    uint32_t cr0_changed = shadow->cr0 ^ vcpu->cr0;
    uint32_t cr3_changed = shadow->cr3 ^ vcpu->cr3;
    uint32_t cr4_changed = shadow->cr4 ^ vcpu->cr4;

    if ((cr0_changed | cr3_changed | cr4_changed) == 0 && !shadow->is_detached)
        return;
    shadow->cr0 = vcpu->cr0;
    shadow->cr3 = vcpu->cr3;
    shadow->cr4 = vcpu->cr4;
    if ((cr0_changed & CR0_PG) || (cr4_changed & (CR4_PSE | CR4_PAE))) {
        shadow_drop_all(shadow);
        table_set_directory(shadow, RPN_NONE);
        shadow->user_end = 0;
        space_set_limit(shadow, WINDOW_PAGES);
    } else if (cr0_changed & vcpu->cr0 & CR0_WP) {
        drop_overrides(shadow);
    }
    if (!(vcpu->cr0 & CR0_PG))
        return;

    uint32_t rpn = memory_rpn(shadow->memory, vcpu->cr3 & PTE_FRAME);

    if (rpn != shadow->directory)
        switch_directory(shadow, rpn);
}

void shadow_paging_changed(struct shadow *shadow, const struct vcpu *vcpu, uint32_t old_cr0, uint32_t old_cr3,
                           uint32_t old_cr4)
{
    if (old_cr0 == vcpu->cr0 && old_cr4 == vcpu->cr4)
        shadow->stats.switches++;
    shadow_note_use(shadow);
    (void)old_cr3; /* the space compares with what it was built for */
    table_follow_registers(shadow, vcpu);
}

/* The tables that mappings were built from are traced, so no mapping can be behind its entry. */
void shadow_invlpg(struct shadow *shadow, gva_t gva)
{
    (void)shadow;
    (void)gva;
}
