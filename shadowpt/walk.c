/*
 * The walk of the guest's page tables, as the CPU does it (SDM Vol 3A 4.3 and 4.4, and 4.6 to 4.8 for rights,
 * faults and the accessed and dirty bits).
 *
 * A paging mode is a row of a table (paging.h); the walk itself knows none of them. 32-bit paging has 4 MiB
 * pages with CR4.PSE; PAE has entries of 8 bytes, three levels of which the first is four registers, 2 MiB
 * pages and, with EFER.NXE, pages that cannot be executed.
 *
 * Read next: fill.c, which turns a walk into a mapping.
 */
#include "shadowpt/paging.h"

#include <string.h>

#include "vcpu/fail.h"

#define PAE_FRAME (((UINT64_C(1) << VCPU_PHYSICAL_BITS) - 1) & ~(uint64_t)PAGE_MASK)
/* Bits 62 to MAXPHYADDR. */
#define PAE_RESERVED (~PTE_NX & ~((UINT64_C(1) << VCPU_PHYSICAL_BITS) - 1))

#define TWO_LEVEL .entry_size = 4, .index_bits = 10, .frame = 0xfffff000
#define PAE                                                                                                  \
    .entry_size = 8, .index_bits = 9, .has_pdptes = true, .frame = PAE_FRAME, .large = PTE_PS,               \
    .large_frame = PAE_FRAME & ~UINT64_C(0x1fffff), .large_reserved = 0x001fe000

enum { MODE_TWO_LEVEL, MODE_TWO_LEVEL_PSE, MODE_PAE, MODE_PAE_NX };

/* SDM Vol 3A tables 4-4 to 4-6 and 4-8 to 4-11. The profile has PAT, so bit 12 of a large entry and bit 7 of
 * a small one select memory types; it does not have PSE-36, so bits 21:13 of a 4 MiB entry are reserved. */
static const struct paging_mode modes[] = {
    [MODE_TWO_LEVEL] = {TWO_LEVEL},
    [MODE_TWO_LEVEL_PSE] = {TWO_LEVEL, .large = PTE_PS, .large_frame = 0xffc00000,
                            .large_reserved = 0x003fe000},
    [MODE_PAE] = {PAE, .reserved = PAE_RESERVED | PTE_NX},
    [MODE_PAE_NX] = {PAE, .reserved = PAE_RESERVED, .no_execute = PTE_NX},
};

const struct paging_mode *paging_mode_of(const struct vcpu *vcpu)
{
    if (!(vcpu->cr0 & CR0_PG))
        return NULL;
    if (vcpu->cr4 & CR4_PAE)
        return &modes[(vcpu->msr.efer & EFER_NXE) ? MODE_PAE_NX : MODE_PAE];
    return &modes[(vcpu->cr4 & CR4_PSE) ? MODE_TWO_LEVEL_PSE : MODE_TWO_LEVEL];
}

static uint64_t read_entry(const struct guest_memory *memory, const struct paging_mode *mode, gpa_t address)
{
    uint32_t rpn = memory_rpn(memory, address); /* an entry is in one page */
    bool is_wide = mode->entry_size == sizeof(uint64_t);
    const uint8_t *bytes;
    uint64_t wide;
    uint32_t narrow;

    if (rpn == RPN_NONE)
        return is_wide ? UINT64_MAX : UINT32_MAX;
    bytes = memory->hva + ((uint64_t)rpn << PAGE_SHIFT) + (address & PAGE_MASK);
    if (is_wide) {
        memcpy(&wide, bytes, sizeof wide);
        return wide;
    }
    memcpy(&narrow, bytes, sizeof narrow);
    return narrow;
}

/* SDM Vol 3A 4.6.1, with neither SMEP nor SMAP. */
static bool is_allowed(const struct vcpu *vcpu, const struct walk *walk, unsigned kind)
{
    if ((kind & ACCESS_FETCH) && !walk->execute)
        return false;
    if (kind & ACCESS_USER)
        return walk->user && (walk->write || !(kind & ACCESS_WRITE));
    return walk->write || !(kind & ACCESS_WRITE) || !(vcpu->cr0 & CR0_WP);
}

/* The error code of SDM Vol 3A 4.7; where no page can forbid it, a fetch does not show in it. */
static bool refuse(struct fault *fault, const struct paging_mode *mode, gva_t gva, unsigned kind,
                   uint32_t cause)
{
    bool shows_fetch = (kind & ACCESS_FETCH) && mode->no_execute != 0;

    *fault = (struct fault){.vector = EXCEPTION_PF,
                            .has_error = true,
                            .error = cause | ((kind & ACCESS_WRITE) ? PF_WRITE : 0) |
                                     ((kind & ACCESS_USER) ? PF_USER : 0) | (shows_fetch ? PF_FETCH : 0),
                            .cr2 = gva};
    return false;
}

/* Sets A in every entry used, and D in the last on a write (SDM Vol 3A 4.8); both are in an entry's low half.
 * false: an entry changed under us. */
bool guest_walk_complete(struct guest_memory *memory, struct walk *walk, unsigned kind)
{
    for (unsigned i = 0; i < walk->n_levels; i++) {
        uint32_t old = (uint32_t)walk->level[i].entry;
        uint32_t new = old | PTE_A;

        if (walk->level[i].is_register)
            continue;
        if (i == walk->n_levels - 1 && (kind & ACCESS_WRITE))
            new |= PTE_D;
        if (new != old && !memory_update_entry(memory, walk->level[i].address, old, new))
            return false;
    }
    if (kind & ACCESS_WRITE)
        walk->dirty = true;
    return true;
}

/* Without clearing levels that nobody looks at: that would take longer than the walk. */
static void begin(struct walk *walk)
{
    walk->gpa = 0;
    walk->is_large = walk->is_global = walk->dirty = false;
    walk->user = walk->write = walk->execute = true;
    walk->n_levels = 0;
}

/* The directory for gva. false: the register that should lead to it does not. */
static bool find_directory(const struct vcpu *vcpu, const struct paging_mode *mode, gva_t gva,
                           struct walk *walk, gpa_t *directory)
{
    /* (of all 32 bits, without PDPTEs) */
    unsigned which = (unsigned)((uint64_t)gva >> paging_directory_shift(mode));

    if (mode->has_pdptes)
        walk->level[walk->n_levels++] = (struct walk_level){
            .address = (vcpu->cr3 & CR3_PDPT_FRAME) + which * sizeof vcpu->pdpte[0],
            .entry = vcpu->pdpte[which],
            .name = "PDPTE",
            .is_register = true,
        };
    *directory = paging_directory(mode, vcpu, which);
    return *directory != UINT64_MAX;
}

/* Reads the tables down to the page. */
static bool descend(const struct guest_memory *memory, const struct vcpu *vcpu,
                    const struct paging_mode *mode, gva_t gva, unsigned kind, struct walk *walk,
                    struct fault *fault)
{
    static const char *const names[] = {"PDE", "PTE"};
    gpa_t table;

    begin(walk);
    if (!find_directory(vcpu, mode, gva, walk, &table))
        return refuse(fault, mode, gva, kind, 0);
    for (unsigned i = 0; i < 2; i++) {
        unsigned shift = PAGE_SHIFT + (1 - i) * mode->index_bits;
        uint32_t index = (gva >> shift) & ((1u << mode->index_bits) - 1);
        gpa_t address = (table + (gpa_t)index * mode->entry_size) & ~memory->closed_bits;
        uint64_t entry = read_entry(memory, mode, address);

        walk->level[walk->n_levels++] =
            (struct walk_level){.address = address, .entry = entry, .name = names[i]};
        if (!(entry & PTE_P))
            return refuse(fault, mode, gva, kind, 0);
        walk->write = walk->write && (entry & PTE_W);
        walk->user = walk->user && (entry & PTE_U);
        walk->execute = walk->execute && !(entry & mode->no_execute);
        walk->is_large = i == 0 && (entry & mode->large);
        if (entry & (mode->reserved | (walk->is_large ? mode->large_reserved : 0)))
            return refuse(fault, mode, gva, kind, PF_PRESENT | PF_RESERVED);
        if (walk->is_large || i == 1) {
            uint64_t frame = walk->is_large ? mode->large_frame : mode->frame;

            walk->gpa = (entry & frame) | (gva & ((1u << shift) - 1));
            walk->dirty = (entry & PTE_D) != 0;
            walk->is_global = (entry & PTE_G) && (vcpu->cr4 & CR4_PGE);
            return true;
        }
        table = entry & mode->frame;
    }
    BUG("a walk without a last level");
}

bool guest_walk(struct guest_memory *memory, const struct vcpu *vcpu, gva_t gva, unsigned kind, bool is_peek,
                struct walk *walk, struct fault *fault)
{
    const struct paging_mode *mode = paging_mode_of(vcpu);

    if (mode == NULL) {
        begin(walk);
        walk->gpa = gva & ~memory->closed_bits;
        walk->dirty = true;
        return true;
    }
    do {
        if (!descend(memory, vcpu, mode, gva, kind, walk, fault))
            return false;
        if (!is_allowed(vcpu, walk, kind))
            return refuse(fault, mode, gva, kind, PF_PRESENT);
    } while (!is_peek && !guest_walk_complete(memory, walk, kind));
    walk->gpa &= ~memory->closed_bits;
    return true;
}

bool guest_walk_bytes(struct guest_memory *memory, const struct vcpu *vcpu, gva_t gva, unsigned size,
                      unsigned kind, struct walk walk[2], unsigned *first_size, struct fault *fault)
{
    unsigned to_page_end = PAGE_SIZE - (gva & PAGE_MASK);

    *first_size = size < to_page_end ? size : to_page_end;
    if (size <= to_page_end)
        return guest_walk(memory, vcpu, gva, kind, false, &walk[0], fault);
    return guest_walk(memory, vcpu, gva, kind, true, &walk[0], fault) &&
           guest_walk(memory, vcpu, gva + to_page_end, kind, false, &walk[1], fault) &&
           guest_walk(memory, vcpu, gva, kind, false, &walk[0], fault);
}
