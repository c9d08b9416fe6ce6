/*
 * Private to shadowpt: a shadow space, and what its files ask of each other.
 *
 * A space is the 4 GiB window of one guest linear address space plus the notes of what is mapped in it. Two
 * rules carry everything:
 *
 * 1. Every mapping was built from a page directory and a page table that are *traced*: they carry
 * PAGE_IS_TABLE, no window maps them writable, so each change of them comes through memory_write to
 * shadow_table_written, which takes away at once what the change no longer allows. The shadow is therefore
 * never behind the guest's tables; a real TLB may be, but need not (SDM Vol 3A 4.10.2.3: it may drop any
 * entry at any time). That makes INVLPG and the reload of an unchanged CR3 free, and a CR3 switch a
 * comparison of two page directories.
 * 2. Each page of the window is described by one spte, and each spte of a guest page hangs on the reverse map
 * of its rpn. What is not in an spte is PROT_NONE in the host, reserved, never a hole.
 *
 * `page` always counts pages of guest *linear* addresses; only host.c knows where they are in the process.
 *
 * There may be many spaces over one memory; they are all true all the time, also while the guest runs in
 * another. What a rule says of "the" mappings of a page or the use of a table is meant of all of them.
 *
 * Read in this order: set.c (what the spaces share), space.c (sptes, reverse map, run counts), host.c (the
 * system calls), drop.c, fill.c, table.c, switch.c, view.c, evict.c, invariant.c.
 */
#ifndef RING3_SHADOWPT_SPACE_H
#define RING3_SHADOWPT_SPACE_H

#include <stdio.h>
#include <string.h>

#include "shadowpt/paging.h"

#define WINDOW_PAGES (1u << 20)
#define MAX_REGIONS  2048u /* a region is what one page-directory entry maps */
#define REGION_BITS  10u   /* 1024 pages each; paging off counts as that, and PAE has half of it */

/* An spte: the rpn in bits 31:12 and these. 0: nothing is mapped. */
enum {
    SPTE_PRESENT = 1,
    SPTE_WRITE = 2,     /* the guest can write through it now */
    SPTE_USER = 4,      /* the guest's tables let CPL 3 use it; absent: kernel-only */
    SPTE_GLOBAL = 8,    /* the leaf's G bit */
    SPTE_OVERRIDE = 16, /* writable only because CR0.WP is 0; never with SPTE_USER */
    SPTE_HOST_WRITE =
        32, /* the host mapping is PROT_WRITE; without SPTE_WRITE userfaultfd holds the page back */
    SPTE_HOST_UFFD = 64, /* the host mapping is registered with userfaultfd */
    SPTE_NX = 128,       /* nobody can execute it; the host mapping is not PROT_EXEC */
    SPTE_HELD = 256,     /* without SPTE_WRITE: the guest's tables allow it, a page table or code do not */
};

static inline uint32_t spte_rpn(uint32_t spte)
{
    return spte >> PAGE_SHIFT;
}

static inline bool spte_is_kernel_only(uint32_t spte)
{
    return (spte & (SPTE_PRESENT | SPTE_USER)) == SPTE_PRESENT;
}

/* Lists are linked by index + 1, so that untouched zero memory is an empty list. */
struct region {
    uint32_t table;     /* rpn + 1 of the page table its pages were filled from; 0: a large page, or none */
    uint16_t next;      /* + 1: another region filled from the same page table */
    uint16_t n_pages;   /* mapped */
    uint16_t n_kernel;  /* of them kernel-only */
    uint16_t n_runs;    /* host mappings that begin in it */
    uint64_t filled_at; /* fill number, for eviction */
};

struct table {             /* per rpn: a guest page table */
    uint16_t first_region; /* + 1: filled from it */
    uint16_t n_writes;     /* since the last fill from it */
};

struct page_range {
    uint32_t first, end;
};

struct page_spaces {       /* per rpn: bit i is space i */
    uint64_t mapped;       /* the spaces that map it: their reverse maps are not empty */
    uint64_t table;        /* the spaces that use it as a directory or page table */
    uint8_t n_idle_writes; /* while it is traced and no space uses it */
};

struct shadow_set { /* all spaces over one memory (set.c) */
    struct guest_memory *memory;
    struct shadow *space[SHADOW_MAX_SPACES];
    uint64_t members; /* the places that are taken */
    uint32_t n_rpn;
    struct page_spaces *page; /* by rpn; lazily touched */
    uint32_t n_runs;          /* host mappings of all spaces */
    uint32_t n_anchors;       /* beside them (host.c) */
    uint64_t n_uses;          /* how often another space came into use */
    int uffd;                 /* shared; -1: none, or not wanted yet */
    /* debug option (invariant.c) */
    FILE *maps; /* NULL: not checked */
    uint64_t memory_inode;
};

/* Takes the lowest space out of *left. NULL: none is left. */
static inline struct shadow *set_next(const struct shadow_set *set, uint64_t *left)
{
    if (*left == 0)
        return NULL;

    struct shadow *shadow = set->space[__builtin_ctzll(*left)];

    *left &= *left - 1;
    return shadow;
}

#define CHANGE_LOG 64

#define CHUNK_PAGES 512u /* what one page table of the host maps */

struct shadow {
    struct shadow_config config;
    struct guest_memory *memory;
    struct shadow_set *set; /* it is space `id` of */
    unsigned id;
    uint64_t bit; /* 1 << id */
    uint64_t used_at;
    uint32_t n_rpn;
    uint32_t max_runs;

    /* by page of the window; lazily touched */
    uint32_t *spte;
    uint32_t *rmap_next, *rmap_prev; /* + 1: the other mappings of the same rpn */
    /* by rpn; lazily touched */
    uint32_t *rmap_head; /* + 1 */
    struct table *table;

    struct region region[MAX_REGIONS];
    uint16_t anchor[WINDOW_PAGES / CHUNK_PAGES]; /* by chunk (host.c): which page of it, + 1; 0: none */
    uint32_t n_runs;                             /* host mappings, counted by where they begin */
    uint32_t n_override;                         /* pages with SPTE_OVERRIDE */
    uint64_t n_fills;

    /* the paging registers the space was built for... */
    uint32_t cr0, cr3, cr4;
    uint64_t efer, pdpte[PAGING_DIRECTORIES];
    /* ...and what they mean: the form of the tables, and the page directories */
    const struct paging_mode *mode; /* NULL: paging is off */
    unsigned region_bits;
    uint32_t directory[PAGING_DIRECTORIES]; /* rpns, the first alone without PAE; RPN_NONE: it is in no
                                               memory... */
    bool is_detached;            /* ...or they were given up until the space is used again (table.c) */
    uint32_t n_directory_writes; /* since the last use */
    uint64_t pde[MAX_REGIONS];   /* of regions with pages: up to date; of others: as last seen */

    /* sequential faults (fill.c) */
    uint32_t streak_page; /* the page after the last run that was mapped */
    uint32_t streak_length;
    unsigned n_failures; /* host mappings refused in a row */

    /* user view (view.c) */
    bool is_user_view;
    bool is_wide;          /* the limit stays above everything */
    uint32_t limit_page;   /* first page out of the user view's reach */
    uint32_t user_end;     /* the page after the highest one mapped for the user */
    uint32_t n_kernel_low; /* kernel-only pages mapped below limit_page */

    int uffd; /* the set's; -1: write protection is by mprotect */

    struct page_range gone; /* unmapped, but config.dropped was not told yet */

    /* debug option (invariant.c) */
    unsigned n_checks;
    unsigned n_changes; /* > CHANGE_LOG: too many, check everything */
    struct page_range change[CHANGE_LOG];

    struct shadow_stats stats;
};

/* set.c: what the spaces over one memory share. */
bool set_join(struct shadow *shadow, char *error, size_t error_size);
void set_leave(struct shadow *shadow);
void set_close(struct guest_memory *memory);
void set_drop_all(struct shadow_set *set);
void *set_reserve_array(size_t n, size_t size);
void set_release_array(void *array, size_t n, size_t size);

/* space.c: the notes. None of these calls the host. */
void space_map_run(struct shadow *shadow, uint32_t first, uint32_t n, uint32_t rpn, uint32_t flags);
void space_set_flags(struct shadow *shadow, uint32_t page, uint32_t flags);
void space_unmap(struct shadow *shadow, uint32_t page);
struct page_range space_mark_registered(struct shadow *shadow, uint32_t page, struct page_range reach);
void space_forget_all(struct shadow *shadow);
void space_tell_dropped(struct shadow *shadow);
void space_set_limit(struct shadow *shadow, uint32_t limit_page);
void space_observe(struct shadow *shadow, enum shadow_change change, uint32_t first, uint32_t n);
static inline bool space_must_hold_back(const struct shadow *shadow, uint32_t rpn)
{
    return (shadow->memory->page_flags[rpn] & (PAGE_IS_TABLE | PAGE_IS_CODE)) != 0;
}
static inline bool space_is_table(const struct shadow *shadow, uint32_t rpn)
{
    return (shadow->memory->page_flags[rpn] & PAGE_IS_TABLE) != 0;
}
static inline uint32_t space_region_pages(const struct shadow *shadow)
{
    return 1u << shadow->region_bits;
}
static inline uint32_t space_regions(const struct shadow *shadow)
{
    return WINDOW_PAGES >> shadow->region_bits;
}
static inline struct region *space_region_of(struct shadow *shadow, uint32_t page)
{
    return &shadow->region[page >> shadow->region_bits];
}
/* An entry of a page table or directory, which has as many as a region has pages. */
static inline uint64_t space_entry(const struct shadow *shadow, uint32_t rpn, uint32_t index)
{
    const void *table = shadow->memory->hva + ((uint64_t)rpn << PAGE_SHIFT);

    return shadow->mode->entry_size == sizeof(uint64_t) ? ((const uint64_t *)table)[index]
                                                        : ((const uint32_t *)table)[index];
}
/* Is it built for the registers as they are? */
static inline bool space_is_for(const struct shadow *shadow, const struct vcpu *vcpu)
{
    return shadow->cr3 == vcpu->cr3 && shadow->cr0 == vcpu->cr0 && shadow->cr4 == vcpu->cr4 &&
           (!(vcpu->cr4 & CR4_PAE) || (shadow->efer == vcpu->msr.efer &&
                                       memcmp(shadow->pdpte, vcpu->pdpte, sizeof shadow->pdpte) == 0));
}

/* host.c: the system calls on the window. false: the host has no room for another mapping. */
bool host_map(struct shadow *shadow, struct page_range run, uint32_t rpn, uint32_t flags, uint32_t wanted);
bool host_unmap(struct shadow *shadow, struct page_range range);
bool host_clear(struct shadow *shadow);
/* Nothing is mapped in the window, and it is used no more. */
void host_leave(struct shadow *shadow);
bool host_set_writable(struct shadow *shadow, uint32_t page, bool is_writable);
struct page_range host_reach(const struct shadow *shadow, uint32_t page);
bool host_is_hole(const struct shadow *shadow, uint32_t page);
uintptr_t host_address(const struct shadow *shadow, uint32_t page);

/* protect.c: write protection of mapped pages, by userfaultfd or mprotect. */
void protect_open(struct shadow_set *set);
void protect_close(struct shadow_set *set);
void protect_page(struct shadow *shadow, uint32_t page);
void protect_everywhere(struct shadow_set *set, uint32_t rpn);
bool protect_lift(struct shadow *shadow, uint32_t page);

/* drop.c: taking mappings away. A batch collects ascending pages and coalesces what lies between. */
struct drop_batch {
    struct page_range range;
};
void drop_add(struct shadow *shadow, struct drop_batch *batch, uint32_t page);
void drop_flush(struct shadow *shadow, struct drop_batch *batch);
void drop_page(struct shadow *shadow, uint32_t page);
void drop_region(struct shadow *shadow, struct drop_batch *batch, uint32_t region);

/* table.c: tracing the guest's tables. */
bool table_trace_walk(struct shadow *shadow, const struct walk *walk, gva_t gva);
bool table_is_used_by(const struct shadow *shadow, uint32_t rpn);
bool table_is_used(const struct shadow *shadow, uint32_t rpn); /* by any space */
void table_untrace(struct shadow *shadow, uint32_t rpn);
void table_note_idle_write(struct shadow *shadow, uint32_t rpn);
void table_release(struct shadow *shadow, uint32_t region);
uint32_t table_rights(const struct paging_mode *mode, uint64_t pde, uint64_t pte);
void table_trace(struct shadow *shadow, uint32_t rpn);
void table_set_directory(struct shadow *shadow, unsigned which, uint32_t rpn);
void table_forget_directories(struct shadow *shadow);
uint64_t table_directory_entry(const struct shadow *shadow, uint32_t region);
void table_follow_directory_entry(struct shadow *shadow, struct drop_batch *batch, uint32_t region,
                                  uint64_t new);

/* switch.c: following the paging registers. */
void switch_follow_registers(struct shadow *shadow, const struct vcpu *vcpu);

/* view.c */
void view_note_fill(struct shadow *shadow, struct page_range run, bool is_user);

/* evict.c: makes sure that `n` more host mappings fit. */
void evict_for(struct shadow *shadow, uint32_t n);

/* invariant.c */
void invariant_open(struct shadow_set *set);
void invariant_close(struct shadow_set *set);
void invariant_log(struct shadow *shadow, uint32_t first, uint32_t n);

#endif
