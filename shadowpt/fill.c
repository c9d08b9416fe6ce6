/*
 * Answering a host page fault: the guest's own fault, an access that must be emulated, or one that a mapping
 * serves.
 *
 * A mapping gives the intersection of what the guest's tables allow and what must be caught: no write before
 * the D bit is set, none to ROM, to a traced page table or to translated code. With the page come neighbours
 * that are contiguous in memory and have the same rights, so that the host keeps few and long mappings. Only
 * neighbours whose A bit (for writes: and D bit) the guest or the CPU has set already, or, when faults march
 * through memory one after the other, also some whose A bit we set now: a CPU may set A for a prefetch as
 * well (SDM Vol 3A 4.8, 4.10.2.3). D is never set ahead.
 *
 * Read next: table.c (how the shadow follows the tables it was built from).
 */
#include "shadowpt/space.h"

#include <errno.h>
#include <string.h>

#include "vcpu/fail.h"

#define RUN_BEHIND      64u  /* 4 KiB pages mapped along with the faulting one, before it */
#define RUN_AHEAD       128u /* and after it */
#define STREAK_BEGINS   3u   /* adjacent faults */
#define READ_AHEAD_MOST 256u
#define RUNS_PER_FILL   3u /* host mappings that one fill can add: a new one, in the middle of an old one */
#define HOST_FAILURES   3u /* mappings refused in a row, each time with the window emptied: give up */

struct fill {
    const struct walk *walk;
    uint32_t page, rpn;    /* that faulted */
    uint32_t flags;        /* for the sptes of the whole run */
    uint32_t table;        /* rpn; RPN_NONE: one large page, or paging is off: contiguous by itself */
    uint64_t pte_mask;     /* what a neighbour's entry must share... */
    uint64_t pte_pattern;  /* ...and how */
    uint32_t n_read_ahead; /* pages after the faulting one that need no A bit yet */
    bool is_held_back;     /* the page that faulted */
    struct page_range run;
};

static unsigned access_kind(const struct vcpu *vcpu, uint32_t error)
{
    return ((error & PF_WRITE)   ? ACCESS_WRITE
            : (error & PF_FETCH) ? ACCESS_FETCH
                                 : ACCESS_READ) |
           (vcpu->cpl == 3 ? ACCESS_USER : 0);
}

/* ---- the run around the page --------------------------------------------------------------------------- */

/* Must the host map the page read-only? Drops a trace that nobody needs any more, unless writes are cheap:
 * then the page is likely to be a table again. */
static bool is_held_back(struct shadow *shadow, uint32_t rpn)
{
    if (!space_must_hold_back(shadow, rpn))
        return false;
    if (space_is_table(shadow, rpn) && !table_is_used(shadow, rpn) && shadow->config.flood_writes == 0)
        table_untrace(shadow, rpn);
    return space_must_hold_back(shadow, rpn);
}

static bool is_rom(const struct shadow *shadow, uint32_t rpn)
{
    return (shadow->memory->page_flags[rpn] & PAGE_IS_ROM) != 0;
}

/* May this neighbour be mapped along with the page? */
static bool belongs_to_run(struct shadow *shadow, const struct fill *fill, uint32_t page)
{
    gpa_t gpa = fill->walk->gpa + (((gpa_t)page - fill->page) << PAGE_SHIFT);

    if (shadow->spte[page] != 0)
        return false;
    if (fill->table != RPN_NONE) {
        uint64_t pte = space_entry(shadow, fill->table, page & (space_region_pages(shadow) - 1));
        uint64_t mask = fill->pte_mask;

        if (page > fill->page && page - fill->page <= fill->n_read_ahead)
            mask &= ~(uint64_t)PTE_A;
        if ((pte & mask) != (fill->pte_pattern & mask))
            return false;
        gpa = pte & shadow->mode->frame;
    }

    uint32_t rpn = memory_rpn(shadow->memory, gpa);

    if (rpn == RPN_NONE || rpn != fill->rpn + (page - fill->page) ||
        is_rom(shadow, rpn) != is_rom(shadow, fill->rpn))
        return false;
    /* userfaultfd can hold single pages of a writable run back; mprotect would split it */
    return is_held_back(shadow, rpn) == fill->is_held_back || shadow->uffd >= 0;
}

/* The pages that may come along at most: of the same region, and the same stretch of the host. */
static struct page_range widest_run(const struct shadow *shadow, const struct fill *fill)
{
    struct page_range widest = host_reach(shadow, fill->page);
    uint32_t first = fill->page & ~(space_region_pages(shadow) - 1);
    uint32_t end = first + space_region_pages(shadow);
    uint32_t ahead = fill->n_read_ahead > RUN_AHEAD ? fill->n_read_ahead : RUN_AHEAD;

    if (fill->table != RPN_NONE && fill->page - first > RUN_BEHIND)
        first = fill->page - RUN_BEHIND;
    if (fill->table != RPN_NONE && end - fill->page > ahead)
        end = fill->page + ahead;
    if (widest.first < first)
        widest.first = first;
    if (widest.end > end)
        widest.end = end;
    return widest;
}

static void find_run(struct shadow *shadow, struct fill *fill)
{
    fill->run = (struct page_range){fill->page, fill->page + 1};
    if (fill->flags & SPTE_OVERRIDE)
        return;

    struct page_range widest = widest_run(shadow, fill);

    while (fill->run.first > widest.first && belongs_to_run(shadow, fill, fill->run.first - 1))
        fill->run.first--;
    while (fill->run.end < widest.end && belongs_to_run(shadow, fill, fill->run.end))
        fill->run.end++;
}

/* Sets the A bits of the pages read ahead. */
static void set_accessed_ahead(struct shadow *shadow, const struct fill *fill)
{
    gpa_t address = fill->walk->level[fill->walk->n_levels - 1].address;

    for (uint32_t page = fill->page + 1; page < fill->run.end; page++) {
        uint32_t pte = (uint32_t)space_entry(shadow, fill->table, page & (space_region_pages(shadow) - 1));

        address += shadow->mode->entry_size;
        if (!(pte & PTE_A))
            (void)memory_update_entry(shadow->memory, address, pte, pte | PTE_A);
    }
}

/* ---- mapping ------------------------------------------------------------------------------------------- */

/* The rights of the mapping made for this access. A page that is held back counts as writable where
 * userfaultfd does the holding. */
static uint32_t flags_for(const struct shadow *shadow, const struct fill *fill, unsigned kind)
{
    const struct walk *walk = fill->walk;
    uint32_t flags = SPTE_PRESENT | (walk->is_global ? SPTE_GLOBAL : 0) | (walk->execute ? 0 : SPTE_NX);

    if (walk->write && walk->dirty && !is_rom(shadow, fill->rpn) &&
        (!fill->is_held_back || shadow->uffd >= 0))
        flags |= SPTE_WRITE | SPTE_HOST_WRITE;
    if (walk->write || !(kind & ACCESS_WRITE))
        return flags | (walk->user ? SPTE_USER : 0);
    /* the walk allowed a write that the tables do not: CR0.WP is 0, and only the supervisor may */
    return flags | SPTE_OVERRIDE | SPTE_WRITE | SPTE_HOST_WRITE;
}

/* How far beyond the page entries without A may be read ahead. */
static uint32_t follow_streak(struct shadow *shadow, uint32_t page)
{
    shadow->streak_length = page == shadow->streak_page ? shadow->streak_length + 1 : 1;
    if (shadow->streak_length < STREAK_BEGINS || shadow->config.accessed_by_access)
        return 0;

    uint32_t doublings = shadow->streak_length - STREAK_BEGINS + 2;

    return doublings >= 8 ? READ_AHEAD_MOST : 1u << doublings;
}

static void map_run(struct shadow *shadow, struct fill *fill)
{
    bool is_writable = (fill->flags & SPTE_HOST_WRITE) != 0;
    uint32_t n, first_rpn;

    fill->n_read_ahead = follow_streak(shadow, fill->page);
    find_run(shadow, fill);
    n = fill->run.end - fill->run.first;
    first_rpn = fill->rpn - (fill->page - fill->run.first);
    if (!host_map(shadow, fill->run, first_rpn, fill->flags, fill->page)) {
        if (++shadow->n_failures == HOST_FAILURES)
            die("the host refuses to map guest memory: %s", strerror(errno));
        set_drop_all(shadow->set);
        return; /* the guest faults again */
    }
    shadow->n_failures = 0;
    if (fill->table != RPN_NONE)
        set_accessed_ahead(shadow, fill);
    space_map_run(shadow, fill->run.first, n, first_rpn, fill->flags);
    space_region_of(shadow, fill->page)->filled_at = ++shadow->n_fills;
    shadow->streak_page = fill->run.end;
    shadow->stats.fills++;
    shadow->stats.pages_filled += n;
    view_note_fill(shadow, fill->run, fill->walk->user);
    space_observe(shadow, SHADOW_CHANGE_FILL, fill->run.first, n);
    for (uint32_t page = fill->run.first; is_writable && page < fill->run.end; page++)
        if (space_must_hold_back(shadow, spte_rpn(shadow->spte[page])) && (shadow->spte[page] & SPTE_WRITE))
            protect_page(shadow, page);
}

/* Is the page mapped read-only, and nothing but that in the way of this access? */
static bool is_upgrade(uint32_t spte, const struct fill *fill)
{
    return (spte & SPTE_PRESENT) && !(spte & SPTE_WRITE) && (fill->flags & SPTE_WRITE) &&
           !fill->is_held_back && spte_rpn(spte) == fill->rpn &&
           ((spte ^ fill->flags) & (SPTE_USER | SPTE_OVERRIDE | SPTE_NX)) == 0;
}

static void upgrade(struct shadow *shadow, uint32_t page)
{
    if (!protect_lift(shadow, page)) {
        drop_page(shadow, page); /* the guest faults again */
        return;
    }
    space_set_flags(shadow, page, (shadow->spte[page] & PAGE_MASK) | SPTE_WRITE | SPTE_HOST_WRITE);
    shadow->stats.fills++;
    shadow->stats.pages_filled++;
    space_observe(shadow, SHADOW_CHANGE_FILL, page, 1);
}

/* What the neighbours of a 4 KiB page must be like is in its page table. */
static void look_at_neighbours(const struct shadow *shadow, struct fill *fill)
{
    const struct walk_level *leaf;

    if (fill->walk->n_levels == 0 || fill->walk->is_large)
        return;
    leaf = &fill->walk->level[fill->walk->n_levels - 1];
    fill->table = memory_rpn(shadow->memory, leaf->address);
    fill->pte_mask =
        PTE_P | PTE_A | PTE_W | PTE_U | PTE_G | shadow->mode->reserved | shadow->mode->no_execute;
    fill->pte_pattern = leaf->entry | PTE_A;
    if (fill->walk->write) {
        fill->pte_mask |= PTE_D;
        fill->pte_pattern |= fill->walk->dirty ? PTE_D : 0;
    }
}

/* ---- the fault ----------------------------------------------------------------------------------------- */

/* May the guest's own store reach the page? If nothing but translations is in the way, their owner decides.
 */
static bool may_store(struct shadow *shadow, struct fill *fill, gva_t gva)
{
    const struct memory_code_listener *listener = &shadow->memory->code_listener;

    if (is_rom(shadow, fill->rpn))
        return false;
    if (space_is_table(shadow, fill->rpn) && !table_is_used(shadow, fill->rpn))
        table_note_idle_write(shadow, fill->rpn);
    fill->is_held_back = space_must_hold_back(shadow, fill->rpn);
    if (!fill->is_held_back)
        return true;
    if (space_is_table(shadow, fill->rpn) || listener->store == NULL ||
        !listener->store(listener->ctx, fill->rpn, gva & PAGE_MASK))
        return false;
    shadow_forget_code(shadow->memory, fill->rpn);
    fill->is_held_back = false;
    return true;
}

/* A window that is the user's, now or always, maps nothing else, whoever asks: an engine between two worlds,
 * at CPL 0 but not in its view; a kernel that reaches for the user's pages. */
static bool is_out_of_view(const struct shadow *shadow, const struct walk *walk, unsigned kind)
{
    if (shadow->config.is_user_only)
        return !walk->user || ((kind & ACCESS_WRITE) && !walk->write);
    return shadow->is_user_view && !walk->user;
}

enum shadow_result shadow_fault(struct shadow *shadow, struct vcpu *vcpu, gva_t gva, uint32_t error,
                                struct fault *fault)
{
    return shadow_map(shadow, vcpu, gva, access_kind(vcpu, error), fault);
}

enum shadow_result shadow_map(struct shadow *shadow, struct vcpu *vcpu, gva_t gva, unsigned kind,
                              struct fault *fault)
{
    struct walk walk;
    struct fill fill = {.walk = &walk, .page = gva >> PAGE_SHIFT, .table = RPN_NONE};

    shadow_note_use(shadow);
    switch_follow_registers(shadow, vcpu);
    if (!guest_walk(shadow->memory, vcpu, gva, kind, false, &walk, fault))
        return SHADOW_GUEST;
    fill.rpn = memory_rpn(shadow->memory, walk.gpa);
    if (fill.rpn == RPN_NONE)
        return SHADOW_EMULATE;
    if (host_is_hole(shadow, fill.page))
        return SHADOW_HOLE;
    if (is_out_of_view(shadow, &walk, kind))
        return SHADOW_EMULATE;
    evict_for(shadow, RUNS_PER_FILL);
    if (!table_trace_walk(shadow, &walk, gva))
        return SHADOW_EMULATE;
    fill.is_held_back = is_held_back(shadow, fill.rpn);
    if ((kind & ACCESS_WRITE) && !may_store(shadow, &fill, gva)) {
        shadow->stats.write_protect_faults++;
        return SHADOW_EMULATE;
    }
    fill.flags = flags_for(shadow, &fill, kind);
    if (is_upgrade(shadow->spte[fill.page], &fill)) {
        upgrade(shadow, fill.page);
        return SHADOW_FILLED;
    }
    if (shadow->spte[fill.page] != 0) { /* mapped, but with rights of another kind */
        drop_page(shadow, fill.page);
        (void)table_trace_walk(shadow, &walk, gva); /* that may have released the region */
    }
    look_at_neighbours(shadow, &fill);
    map_run(shadow, &fill);
    return SHADOW_FILLED;
}
