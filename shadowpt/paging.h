/*
 * Private to shadowpt: the formats of guest page tables, as data. All of them have a directory of tables of
 * pages; what differs is how wide an entry is, how many a table has, and what its bits mean.
 *
 * Read next: walk.c, which has the table of modes.
 */
#ifndef RING3_SHADOWPT_PAGING_H
#define RING3_SHADOWPT_PAGING_H

#include "shadowpt/shadowpt.h"

#define PAGING_DIRECTORIES 4 /* at most: under PAE each quarter of the address space has its own */

struct paging_mode {
    unsigned entry_size;  /* bytes */
    unsigned index_bits;  /* a table has 1 << index_bits entries */
    bool has_pdptes;      /* registers loaded from where CR3 points lead to the directories, not CR3 itself */
    uint64_t frame;       /* of a table or a page */
    uint64_t large;       /* this bit of a directory entry makes it a page; 0: no such pages */
    uint64_t large_frame; /* then */
    uint64_t reserved;    /* must be 0 in an entry that is present */
    uint64_t large_reserved; /* and in one of a large page, besides */
    uint64_t no_execute;     /* 0: no such bit */
};

/* NULL: paging is off. */
const struct paging_mode *paging_mode_of(const struct vcpu *vcpu);

static inline unsigned paging_directory_shift(const struct paging_mode *mode) /* of a linear address */
{
    return PAGE_SHIFT + 2 * mode->index_bits;
}

/* Where the directory for this part of the linear addresses is: UINT64_MAX: the register says "not present".
 */
static inline gpa_t paging_directory(const struct paging_mode *mode, const struct vcpu *vcpu, unsigned which)
{
    if (!mode->has_pdptes)
        return vcpu->cr3 & mode->frame;
    return (vcpu->pdpte[which] & PTE_P) ? vcpu->pdpte[which] & mode->frame : UINT64_MAX;
}

#endif
