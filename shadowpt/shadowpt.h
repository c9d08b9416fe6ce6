/*
 * shadowpt: guest RAM, the walk of the guest's page tables, and the shadow of them made of mmaps.
 *
 * Three letters keep the worlds apart: gva (guest linear), gpa (guest physical), hva (host virtual); a fourth
 * number, the rpn, counts pages of the one memfd that holds all guest RAM and ROM. `gpte` is an entry of the
 * guest's tables, `spte` our note of what is mapped in a window.
 *
 * The invariant: each shadow mapping is allowed by the guest's tables, or by what a real TLB could still
 * hold, and points to the right page. Read next: memory.c, walk.c, space.h.
 */
#ifndef RING3_SHADOWPT_H
#define RING3_SHADOWPT_H

#include "vcpu/vcpu.h"

/* ---- guest physical memory ----------------------------------------------------------------------------- */

#define RPN_NONE           UINT32_MAX
#define MEMORY_MAX_REGIONS 20
#define MEMORY_MAX_RAM     (UINT64_C(3) << 30)
#define MEMORY_VGA_FIRST   0xa0000u /* 640 KiB: no RAM here, the VGA answers */
#define MEMORY_BIOS_FIRST  0xc0000u /* option and system ROM, or RAM in its place: memory_set_shadow_ram */
#define MEMORY_EXTENDED    0x100000u
#define MEMORY_A20         0x100000u /* the address bit behind the A20 gate */
#define MEMORY_MAX_ROM     (UINT64_C(16) << 20)
#define MEMORY_SHADOW_SIZE 0x4000u /* what of the BIOS area can be switched apart */
#define MEMORY_SHADOWS     ((MEMORY_EXTENDED - MEMORY_BIOS_FIRST) / MEMORY_SHADOW_SIZE)

struct memory_region {
    gpa_t gpa; /* page-aligned, like size */
    uint64_t size;
    uint32_t rpn;       /* of its first page; RPN_NONE: nothing answers reads */
    uint32_t write_rpn; /* where guest writes go, if not to the same pages; RPN_NONE: they are dropped */
    bool is_rom;        /* guest writes do not go to the same pages */
};

/* Where reads and writes of a part of the BIOS area go. Bits, as in the north bridge's registers: without
 * READ the ROM at the top of 4 GiB is read, whose last 128 KiB show at E0000H too; without WRITE nothing is
 * written. */
enum memory_shadow { SHADOW_RAM_READ = 1, SHADOW_RAM_WRITE = 2 };

/* Per-page flags, indexed by rpn. All writes, the guest's, the devices' and the monitor's, honour them. */
enum page_flag {
    PAGE_IS_TABLE = 1, /* holds guest page tables the shadow was built from: writes are traced */
    PAGE_IS_ROM = 2,
    PAGE_IS_CODE = 4,  /* translations or decoded instructions depend on it */
    PAGE_IS_DIRTY = 8, /* for snapshots and migration */
};

struct shadow_set;

/* Whoever keeps translations of guest code: told of what happens to pages with PAGE_IS_CODE. It must not call
 * back into shadowpt, but for shadow_forget_code. */
struct memory_code_listener {
    void *ctx;
    /* n bytes of the page were written through the door: by the emulator, a device, the walk (A and D) or the
     * monitor. */
    void (*written)(void *ctx, uint32_t rpn, uint32_t offset, uint32_t n);
    /* The guest is about to store there. true: the translations are given up, and the page becomes writable;
     * false: the store is to be emulated. */
    bool (*store)(void *ctx, uint32_t rpn, uint32_t offset);
};

struct guest_memory {
    int fd;            /* memfd */
    uint8_t *hva;      /* all of it, read-write, for the monitor */
    uint64_t size;     /* bytes in the memfd */
    uint64_t ram_size; /* as given with --memory */
    struct memory_region region[MEMORY_MAX_REGIONS];
    unsigned n_regions;
    uint8_t shadow_ram[MEMORY_SHADOWS]; /* enum memory_shadow, of each 16 KiB of the BIOS area */
    uint8_t *page_flags;
    gpa_t closed_bits; /* of the CPU's physical addresses, that the A20 gate keeps at 0; only walks see it */
    struct memory_code_listener code_listener; /* all NULL: nobody has translations */
    struct shadow_set *shadows;                /* the spaces over this memory; NULL until there is one */
    struct {
        uint32_t last, n_in_a_row; /* rpn of the page filled last, and how many before it were neighbours */
        uint32_t first, end;       /* the host has these ready */
    } filling;
};

/* RAM of `ram_size` bytes (a multiple of 4 KiB, 1 MiB to MEMORY_MAX_RAM) with the PC's holes, and `rom_size`
 * bytes of ROM that end at 4 GiB (0: none). false: one line in `error`. */
bool memory_create(struct guest_memory *memory, uint64_t ram_size, uint64_t rom_size, char *error,
                   size_t error_size);
void memory_destroy(struct guest_memory *memory);
/* Switches [gpa, gpa + size) of the BIOS area, whole parts of it, to RAM or ROM. The machine starts with RAM
 * that reads only. What was mapped or remembered by physical address is the caller's to drop. */
void memory_set_shadow_ram(struct guest_memory *memory, gpa_t gpa, uint64_t size, unsigned shadow_ram);
/* All RAM as at power-on: zero. */
void memory_clear_ram(struct guest_memory *memory);
/* This page is about to be filled, as those of memory that a guest begins to use: when that goes on from page
 * to page the host is asked for some ahead. */
void memory_will_fill(struct guest_memory *memory, uint32_t rpn);
/* The page behind an address, or RPN_NONE: no RAM or ROM there. */
uint32_t memory_rpn(const struct guest_memory *memory, gpa_t gpa);
gpa_t memory_gpa(const struct guest_memory *memory, uint32_t rpn);
/* How many pages from this address on have consecutive rpns (0: no RAM or ROM there). */
uint32_t memory_run(const struct guest_memory *memory, gpa_t gpa);
/* THE door to guest memory. false: some byte of the range is not RAM or ROM; then nothing was moved.
 * memory_write is the guest's and the devices': ROM drops it; memory_write_rom the loader's and the board's.
 */
bool memory_read(const struct guest_memory *memory, gpa_t gpa, void *buf, size_t n);
bool memory_write(struct guest_memory *memory, gpa_t gpa, const void *buf, size_t n);
bool memory_write_rom(struct guest_memory *memory, gpa_t gpa, const void *buf, size_t n);
/* The same as memory_write for bytes within a page whose rpn is known. */
void memory_write_page(struct guest_memory *memory, uint32_t rpn, uint32_t offset, const void *buf, size_t n);
/* As the CPU's walk setting A and D bits in the naturally aligned page-table entry at gpa: one atomic step,
 * and no trace is told, since A and D only ever grow by it. false: the entry is no longer `old`; then nothing
 * was written. An entry in ROM, or where there is no memory, stays as it is. */
bool memory_update_entry(struct guest_memory *memory, gpa_t gpa, uint32_t old, uint32_t new);

/* ---- the guest's page tables --------------------------------------------------------------------------- */

#define WALK_MAX_LEVELS 3 /* under PAE: PDPTE, PDE, PTE */

struct walk_level {
    gpa_t address;  /* of the entry */
    uint64_t entry; /* as it was read, before A and D were set */
    const char *name;
    bool is_register; /* a PDPTE: it was loaded from that address, which says nothing any more */
};

struct walk {
    gpa_t gpa;
    bool is_large, is_global;
    bool user, write, execute;                /* intersection of the levels' rights */
    bool dirty;                               /* D set in the leaf */
    struct walk_level level[WALK_MAX_LEVELS]; /* of them there are... */
    unsigned n_levels;
};

/* Walks as the CPU would (SDM Vol 3A ch. 4: 32-bit paging with PSE, PAE paging with NX). kind is ACCESS_*.
 * Sets A, and D on writes, unless `is_peek`; a walk that faults sets nothing. false: *fault is the #PF.
 * Paging off: identity, no levels. Entries read as all ones where the guest's tables lie outside memory. */
bool guest_walk(struct guest_memory *memory, const struct vcpu *vcpu, gva_t gva, unsigned kind, bool is_peek,
                struct walk *walk, struct fault *fault);

/* Makes of a walk that was a peek, and found its page, one that was none: A and D are set. false: an entry
 * has changed since, and the walk is to be made again. */
bool guest_walk_complete(struct guest_memory *memory, struct walk *walk, unsigned kind);

/* The same as guest_walk for `size` bytes (no more than a page), which may cross into a second page: then
 * both are walked, and neither gets A or D unless both accesses are allowed. *first_size of the bytes are in
 * the first. */
bool guest_walk_bytes(struct guest_memory *memory, const struct vcpu *vcpu, gva_t gva, unsigned size,
                      unsigned kind, struct walk walk[2], unsigned *first_size, struct fault *fault);

/* ---- shadow spaces ------------------------------------------------------------------------------------- */

#define SHADOW_MAX_SPACES 64 /* over one guest memory */

struct shadow;

/* A window: guest linear address a lives at base + (uint32_t)(a + bias). [hole_first, hole_last] are guest
 * addresses that cannot be mapped there (hole_first > hole_last: none). */
struct shadow_window {
    uintptr_t base;
    uint32_t bias;
    uint32_t hole_first, hole_last;
    /* What is not mapped is free, rather than reserved, but for some pages that nobody may access: nobody
     * else maps anything there (measured: 1.5 us less for each page that is mapped, 0.8 us for each that
     * goes). */
    bool is_open;
};

enum shadow_change {
    SHADOW_CHANGE_FILL,
    SHADOW_CHANGE_DROP,
    SHADOW_CHANGE_PROTECT,
    SHADOW_CHANGE_TABLE_WRITE
};

struct shadow_stats {
    uint64_t fills;        /* faults answered by mapping */
    uint64_t pages_filled; /* pages mapped by them, neighbours included */
    uint64_t drops;        /* pages unmapped */
    uint64_t write_protect_faults;
    uint64_t table_writes; /* writes to guest page tables followed */
    uint64_t evictions;    /* of them to stay within the bound on host mappings */
    uint64_t switches;     /* CR3 writes */
    uint64_t mappings;     /* now */
};

struct shadow_config {
    struct guest_memory *memory;
    struct shadow_window window; /* already reserved, PROT_NONE; or free */
    unsigned max_runs; /* bound on separate host mappings, of all spaces together; 0: a default well under the
                          VMA limit */
    /* So many writes to a page table without a fill in between, and it loses its trace; fewer where they take
     * mappings away. 0: a default for an engine to which each is a fault. */
    unsigned flood_writes;
    bool accessed_by_access; /* A is never set for what is read ahead: which pages that are depends on how the
                                host interrupts the guest */
    bool use_userfaultfd;    /* write protection by userfaultfd where the host has it */
    bool check_invariant; /* debug: check what changed at every exit, everything every 1024, or more if there
                             is much */
    /* The window is of one view alone, so that there is no user limit and nothing to take away when the view
     * changes: of the supervisor... */
    bool has_own_view;
    /* ...or of the user: no page is ever mapped there that CPL 3 may not use. */
    bool is_user_only;
    void (*observe)(void *ctx, enum shadow_change change, gva_t first, uint32_t n_pages);
    void *observe_ctx;
    /* These pages, each of which was mapped, are so no longer: called before the guest runs again or
     * something else is mapped there. It must not call back into shadowpt. May be NULL. */
    void (*dropped)(void *ctx, struct shadow *shadow, gva_t first, uint32_t n_pages);
    void *dropped_ctx;
};

enum shadow_result {
    SHADOW_FILLED,  /* retry the instruction */
    SHADOW_GUEST,   /* the guest's own #PF: in *fault */
    SHADOW_EMULATE, /* no mapping can serve: MMIO, a write to ROM or to a traced page table */
    SHADOW_HOLE,    /* memory, but at an address in the window's hole: emulate, or move the window */
};

/* Joins the spaces over config->memory; all of them follow the guest's tables all the time, each for the
 * paging registers it was last brought to, and cost nothing while the guest leaves their tables alone. Once a
 * first space has been made, another needs no system call that a running monitor would not make. NULL: one
 * line in `error`. */
struct shadow *shadow_create(const struct shadow_config *config, char *error, size_t error_size);
void shadow_destroy(struct shadow *shadow);

/* The engine enters the window, and the registers are to be those of the space (shadow_paging_changed, if
 * they may differ): what is evicted, and which tables are given up, goes by how long ago a space was used. */
void shadow_note_use(struct shadow *shadow);

/* In how many regions that have supervisor pages mapped do the vcpu's page directories say something else
 * than those that the space was brought to last? 0: the supervisor's part is the same. UINT_MAX: nothing can
 * be compared. */
unsigned shadow_count_foreign(const struct shadow *shadow, const struct vcpu *vcpu);

/* A host #PF at `gva` with the CPU's error code (PF_WRITE, PF_FETCH count; privilege is vcpu->cpl). */
enum shadow_result shadow_fault(struct shadow *shadow, struct vcpu *vcpu, gva_t gva, uint32_t error,
                                struct fault *fault);

/* The same for an access of this kind (ACCESS_*) that has not happened yet. */
enum shadow_result shadow_map(struct shadow *shadow, struct vcpu *vcpu, gva_t gva, unsigned kind,
                              struct fault *fault);

/* User/supervisor separation in one window: while the user view is on, no supervisor page below the user
 * limit is mapped; what lies at or above the limit must be kept out of reach by truncating the user view's
 * segments. */
void shadow_set_view(struct shadow *shadow, const struct vcpu *vcpu, bool is_user);
/* First linear address out of reach for the user view; 1<<32: everything is in reach. */
uint64_t shadow_user_limit(const struct shadow *shadow);
/* The user touches `gva` at or above the limit, and the guest's tables allow it: raises the limit. */
void shadow_raise_user_limit(struct shadow *shadow, gva_t gva);
/* A wide user view reaches everything, so nothing of the supervisor's stays mapped in it: its segments need
 * not be truncated, but each change of view costs the supervisor its mappings. */
void shadow_widen_user_view(struct shadow *shadow, bool is_wide);

/* To be called by vcpu_ops.paging_changed and .invlpg. */
void shadow_paging_changed(struct shadow *shadow, const struct vcpu *vcpu, uint32_t old_cr0, uint32_t old_cr3,
                           uint32_t old_cr4);
void shadow_invlpg(struct shadow *shadow, gva_t gva);
/* memory.c calls it after a write to a page with PAGE_IS_TABLE: every space that uses it follows. */
void shadow_table_written(struct guest_memory *memory, uint32_t rpn, uint32_t offset, uint32_t n);
/* Every mapping of the page goes, in all spaces (its content's meaning changed: patching, ROM, reset). */
void shadow_drop_page(struct shadow *shadow, uint32_t rpn);
void shadow_drop_all(struct shadow *shadow);
/* The page, a page table till now, is about to be written over: everything built from it goes, and with it
 * the trace, so that the writes are free. Not if it is a directory in use. */
void shadow_give_up_table(struct guest_memory *memory, uint32_t rpn);
/* Translations depend on the page: from now on no space maps it writable, and memory->code_listener is told
 * of stores and writes to it... */
void shadow_protect_code(struct guest_memory *memory, uint32_t rpn);
/* ...until nothing depends on it any more. Mappings become writable as the guest stores there. */
void shadow_forget_code(struct guest_memory *memory, uint32_t rpn);
/* From now on the window lies there (reserved or free likewise); nothing is mapped in it. */
void shadow_move_window(struct shadow *shadow, const struct shadow_window *window);

/* What is mapped at gva now: false if nothing. For `walk`, tests and the invariant. */
struct shadow_mapping {
    uint32_t rpn;
    bool write, user, global, execute;
};
bool shadow_find(const struct shadow *shadow, gva_t gva, struct shadow_mapping *mapping);
/* The byte at gva in guest_memory, if the space maps its page with the rights that an access of this kind
 * (ACCESS_*) needs, and was built for the vcpu's paging registers: then the walk would allow it, and has
 * nothing to set; the rest of the page follows. NULL: take the long way. A page that may be written so is
 * neither ROM nor a page table nor code. */
uint8_t *shadow_fast(const struct shadow *shadow, const struct vcpu *vcpu, gva_t gva, unsigned kind);
/* The page of memory at gva, if the space maps it read-only, although the guest's tables allow a write of
 * this kind and have nothing to set, because it is a page table or has translations: to be written through
 * the door. RPN_NONE: take the long way. */
uint32_t shadow_held(const struct shadow *shadow, const struct vcpu *vcpu, gva_t gva, unsigned kind);
/* For a debugger: instructions on the page of gva cannot be fetched, and the attempt is a #PF with PF_FETCH,
 * until they are allowed again, which must be before anything else is asked of the shadow. Nothing the guest
 * sees changes. false: the page is not mapped now. */
bool shadow_allow_fetch(struct shadow *shadow, gva_t gva, bool is_allowed);
const struct shadow_stats *shadow_stats(const struct shadow *shadow);
bool shadow_uses_userfaultfd(const struct shadow *shadow);
/* Checks every mapping against the guest's tables and the host's: of this space after bringing it to the
 * vcpu's registers, and of all others as they are. false: one line in `error`. To be called at each exit when
 * check_invariant is on (it decides itself how much to check). */
bool shadow_check(struct shadow *shadow, const struct vcpu *vcpu, bool everything, char *error,
                  size_t error_size);

#endif
