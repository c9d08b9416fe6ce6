/*
 * Pages of linear addresses that lead to a device: where the last walks of the guest's tables ended. A kernel
 * reaches for few of them (the local APIC, the screen), again and again, and the walk is most of the cost.
 *
 * Unlike a TLB it is never behind the tables: it knows the entries that it was found by, and looks at them
 * each time.
 */
#ifndef RING3_DEVICE_PAGE_H
#define RING3_DEVICE_PAGE_H

#include "shadowpt/shadowpt.h"

#define DEVICE_PAGES       16u
#define DEVICE_PAGE_LEVELS 2u /* in memory: page directory and page table */

struct device_page {
    uint32_t page;   /* of linear addresses, + 1; 0: none */
    unsigned epoch;  /* it holds in */
    unsigned rights; /* what it was found for: ACCESS_READ, ACCESS_WRITE, and ACCESS_USER or not */
    gpa_t gpa;
    struct {
        const uint8_t *at; /* in guest memory */
        uint64_t entry;
    } level[DEVICE_PAGE_LEVELS];
    unsigned n_levels, entry_size;
};

struct device_pages {
    struct device_page page[DEVICE_PAGES];
    unsigned epoch; /* another one begins when all are forgotten */
};

/* Is the device's address known, for this kind of access (ACCESS_READ or ACCESS_WRITE, and ACCESS_USER)?
 * Accesses that cross into the next page are the caller's to keep away. */
bool device_pages_find(const struct device_pages *pages, gva_t linear, unsigned kind, gpa_t *gpa);
/* A walk for this access, with A and D set, ended at no memory. */
void device_pages_note(struct device_pages *pages, const struct guest_memory *memory, gva_t linear,
                       unsigned kind, const struct walk *walk);
/* To be called when anything else changes that a walk depends on: control registers, the A20 gate. */
void device_pages_forget(struct device_pages *pages);

#endif
