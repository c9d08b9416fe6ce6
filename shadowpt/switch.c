/*
 * Moving a space to other paging registers: another page directory, or four of them under PAE, another form
 * of tables, CR0.WP.
 *
 * A switch compares the new directory with the old one, entry by entry, and looks at mappings only where they
 * differ (table.c).
 *
 * Read next: view.c.
 */
#include "shadowpt/space.h"

#include <limits.h>
#include <string.h>

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
static void switch_directory(struct shadow *shadow, unsigned which, uint32_t rpn)
{
    uint32_t region = which << shadow->region_bits;
    uint32_t end = region + space_region_pages(shadow);
    struct drop_batch batch = {0};

    table_set_directory(shadow, which, rpn);
    for (; region < end; region++) {
        if (rpn == RPN_NONE) {
            drop_region(shadow, &batch, region);
            table_release(shadow, region); /* one may be linked without pages */
            continue;
        }

        uint64_t new = table_directory_entry(shadow, region);

        if (shadow->pde[region] != new)
            table_follow_directory_entry(shadow, &batch, region, new);
    }
    drop_flush(shadow, &batch);
    if (rpn != RPN_NONE && shadow->stats.mappings != 0)
        table_trace(shadow, rpn);
}

/* Other forms of tables, or none: nothing can stay. */
static void change_mode(struct shadow *shadow, const struct paging_mode *mode)
{
    shadow_drop_all(shadow);
    table_forget_directories(shadow);
    shadow->user_end = 0;
    space_set_limit(shadow, WINDOW_PAGES);
    shadow->mode = mode;
    shadow->region_bits = mode == NULL ? REGION_BITS : mode->index_bits;
}

static void follow_directories(struct shadow *shadow, const struct vcpu *vcpu)
{
    unsigned n = shadow->mode->has_pdptes ? PAGING_DIRECTORIES : 1;

    shadow->is_detached = false;
    for (unsigned i = 0; i < n; i++) {
        uint32_t rpn = memory_rpn(shadow->memory, paging_directory(shadow->mode, vcpu, i));

        if (rpn != shadow->directory[i])
            switch_directory(shadow, i, rpn);
    }
}

static unsigned count_foreign(const struct shadow *shadow, unsigned which, uint32_t rpn)
{
    uint32_t region = which << shadow->region_bits;
    unsigned n = 0;

    for (uint32_t i = 0; i < space_region_pages(shadow); i++, region++)
        if (shadow->region[region].n_kernel != 0 &&
            (rpn == RPN_NONE ||
             ((space_entry(shadow, rpn, i) ^ shadow->pde[region]) & ~(uint64_t)PTE_A) != 0))
            n++;
    return n;
}

unsigned shadow_count_foreign(const struct shadow *shadow, const struct vcpu *vcpu)
{
    const struct paging_mode *mode = paging_mode_of(vcpu);
    unsigned n = 0;

    if (mode == NULL || mode != shadow->mode || ((shadow->cr4 ^ vcpu->cr4) & (CR4_PSE | CR4_PAE)))
        return UINT_MAX;
    for (unsigned i = 0; i < (mode->has_pdptes ? PAGING_DIRECTORIES : 1u); i++) {
        uint32_t rpn = memory_rpn(shadow->memory, paging_directory(mode, vcpu, i));

        if (rpn != shadow->directory[i])
            n += count_foreign(shadow, i, rpn);
    }
    return n;
}

/* Brings the space to the registers of the vcpu. Also at every fault, so that a state set up behind
 * vcpu_ops.paging_changed (a loader's, a snapshot's) is followed. */
void switch_follow_registers(struct shadow *shadow, const struct vcpu *vcpu)
{
    uint32_t cr0_changed = shadow->cr0 ^ vcpu->cr0;
    uint32_t cr4_changed = shadow->cr4 ^ vcpu->cr4;
    const struct paging_mode *mode;

    if (space_is_for(shadow, vcpu) && !shadow->is_detached)
        return;
    shadow->cr0 = vcpu->cr0;
    shadow->cr3 = vcpu->cr3;
    shadow->cr4 = vcpu->cr4;
    shadow->efer = vcpu->msr.efer;
    memcpy(shadow->pdpte, vcpu->pdpte, sizeof shadow->pdpte);
    mode = paging_mode_of(vcpu);
    if (mode != shadow->mode || (cr4_changed & (CR4_PSE | CR4_PAE)))
        change_mode(shadow, mode);
    else if (cr0_changed & vcpu->cr0 & CR0_WP)
        drop_overrides(shadow);
    if (mode != NULL)
        follow_directories(shadow, vcpu);
}

void shadow_paging_changed(struct shadow *shadow, const struct vcpu *vcpu, uint32_t old_cr0, uint32_t old_cr3,
                           uint32_t old_cr4)
{
    if (old_cr0 == vcpu->cr0 && old_cr4 == vcpu->cr4 && shadow->efer == vcpu->msr.efer)
        shadow->stats.switches++;
    shadow_note_use(shadow);
    (void)old_cr3; /* the space compares with what it was built for */
    switch_follow_registers(shadow, vcpu);
}

/* The tables that mappings were built from are traced, so no mapping can be behind its entry. */
void shadow_invlpg(struct shadow *shadow, gva_t gva)
{
    (void)shadow;
    (void)gva;
}
