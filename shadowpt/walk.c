/*
 * The walk of the guest's page tables, as the CPU does it (SDM Vol 3A 4.3, and 4.6 to 4.8 for rights, faults
 * and the accessed and dirty bits).
 *
 * A paging mode is a table of levels; the walk itself knows none of them. 2-level paging with 4 MiB pages
 * (PSE) is the one mode that the CPUID profile offers; PAE is one more row (entries of 8 bytes, three levels,
 * NX).
 *
 * Read next: fill.c, which turns a walk into a mapping.
 */
#include "shadowpt/shadowpt.h"

#include "vcpu/fail.h"

struct paging_level {
    const char *name;
    unsigned shift; /* of the linear address, to its index into this table */
    uint32_t index_mask;
    uint32_t frame_mask; /* the next table, or the page */
    bool may_be_large;   /* with PTE_PS, an entry maps a page */
    uint32_t large_frame_mask;
    uint32_t large_reserved; /* bits that must be 0 then */
};

struct paging_mode {
    unsigned n_levels;
    unsigned entry_size;
    struct paging_level level[WALK_MAX_LEVELS];
};

/* SDM Vol 3A tables 4-4 to 4-6. The profile has PAT, so bit 12 of a 4 MiB entry and bit 7 of a 4 KiB entry
 * select memory types; it does not have PSE-36, so bits 21:13 of a 4 MiB entry are reserved. */
static const struct paging_mode two_level = {
    .n_levels = 2,
    .entry_size = 4,
    .level = {{.name = "PDE",
               .shift = 22,
               .index_mask = 0x3ff,
               .frame_mask = 0xfffff000,
               .may_be_large = true,
               .large_frame_mask = 0xffc00000,
               .large_reserved = 0x003fe000},
              {.name = "PTE", .shift = 12, .index_mask = 0x3ff, .frame_mask = 0xfffff000}},
};

/* NULL: paging is off. */
static const struct paging_mode *mode_of(const struct vcpu *vcpu)
{
    if (!(vcpu->cr0 & CR0_PG))
        return NULL;
    BUG_ON(vcpu->cr4 & CR4_PAE); /* not in the profile: setting it is #GP */
    return &two_level;
}

static uint32_t read_entry(const struct guest_memory *memory, gpa_t address)
{
    uint32_t entry;

    if (!memory_read(memory, address, &entry, sizeof entry))
        return UINT32_MAX;
    return entry;
}

/* SDM Vol 3A 4.6.1, with neither SMEP nor SMAP nor NX. */
static bool is_allowed(const struct vcpu *vcpu, const struct walk *walk, unsigned kind)
{
    if (kind & ACCESS_USER)
        return walk->user && (walk->write || !(kind & ACCESS_WRITE));
    return walk->write || !(kind & ACCESS_WRITE) || !(vcpu->cr0 & CR0_WP);
}

/* The error code of SDM Vol 3A 4.7; without NXE or SMEP a fetch does not show in it. */
static bool refuse(struct fault *fault, gva_t gva, unsigned kind, uint32_t cause)
{
    *fault = (struct fault){.vector = EXCEPTION_PF,
                            .has_error = true,
                            .error = cause | ((kind & ACCESS_WRITE) ? PF_WRITE : 0) |
                                     ((kind & ACCESS_USER) ? PF_USER : 0),
                            .cr2 = gva};
    return false;
}

/* Sets A in every entry used, and D in the last on a write (SDM Vol 3A 4.8). false: an entry changed under
 * us. */
static bool set_accessed_dirty(struct guest_memory *memory, struct walk *walk, unsigned kind)
{
    for (unsigned i = 0; i < walk->n_levels; i++) {
        uint32_t old = (uint32_t)walk->level[i].entry;
        uint32_t new = old | PTE_A;

        if (i == walk->n_levels - 1 && (kind & ACCESS_WRITE))
            new |= PTE_D;
        if (new != old && !memory_update_entry(memory, walk->level[i].address, old, new))
            return false;
    }
    if (kind & ACCESS_WRITE)
        walk->dirty = true;
    return true;
}

/* Reads the tables down to the page. */
static bool descend(const struct guest_memory *memory, const struct vcpu *vcpu,
                    const struct paging_mode *mode, gva_t gva, unsigned kind, struct walk *walk,
                    struct fault *fault)
{
    gpa_t table = vcpu->cr3 & mode->level[0].frame_mask;

    *walk = (struct walk){.user = true, .write = true, .execute = true};
    for (unsigned i = 0; i < mode->n_levels; i++) {
        const struct paging_level *level = &mode->level[i];
        gpa_t address = table + (gpa_t)((gva >> level->shift) & level->index_mask) * mode->entry_size;
        address &= ~memory->closed_bits;
        uint32_t entry = read_entry(memory, address);

        walk->level[walk->n_levels++] =
            (struct walk_level){.address = address, .entry = entry, .name = level->name};
        if (!(entry & PTE_P))
            return refuse(fault, gva, kind, 0);
        walk->write = walk->write && (entry & PTE_W);
        walk->user = walk->user && (entry & PTE_U);
        walk->is_large = level->may_be_large && (entry & PTE_PS) && (vcpu->cr4 & CR4_PSE);
        if (walk->is_large && (entry & level->large_reserved))
            return refuse(fault, gva, kind, PF_PRESENT | PF_RESERVED);
        if (walk->is_large || i == mode->n_levels - 1) {
            uint32_t frame_mask = walk->is_large ? level->large_frame_mask : level->frame_mask;

            walk->gpa = (entry & frame_mask) | (gva & ~frame_mask);
            walk->dirty = (entry & PTE_D) != 0;
            walk->is_global = (entry & PTE_G) && (vcpu->cr4 & CR4_PGE);
            return true;
        }
        table = entry & level->frame_mask;
    }
    BUG("a walk without a last level");
}

bool guest_walk(struct guest_memory *memory, const struct vcpu *vcpu, gva_t gva, unsigned kind, bool is_peek,
                struct walk *walk, struct fault *fault)
{
    const struct paging_mode *mode = mode_of(vcpu);

    if (mode == NULL) {
        *walk = (struct walk){
            .gpa = gva & ~memory->closed_bits, .user = true, .write = true, .execute = true, .dirty = true};
        return true;
    }
    do {
        if (!descend(memory, vcpu, mode, gva, kind, walk, fault))
            return false;
        if (!is_allowed(vcpu, walk, kind))
            return refuse(fault, gva, kind, PF_PRESENT);
    } while (!is_peek && !set_accessed_dirty(memory, walk, kind));
    walk->gpa &= ~memory->closed_bits;
    return true;
}
