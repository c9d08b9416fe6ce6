/*
 * paging.c: two-level page tables (SDM Vol. 3, section 4.3), built at addresses where linear = physical.
 *
 * Read next: the guest `paging`.
 */
#include "guest.h"

enum { POOL_PAGES = 128, IDENTITY_SIZE = 4 << 20 };

static uint8_t pool[POOL_PAGES][PAGE_SIZE] __attribute__((aligned(PAGE_SIZE)));

void *page_alloc(void)
{
    static unsigned used;
    if (used == POOL_PAGES)
        fail("out of pages: raise POOL_PAGES");
    return pool[used++];
}

pte *space_entry(pte *directory, uint32_t linear)
{
    pte *entry = &directory[linear >> 22];
    if (!(*entry & PTE_P))
        *entry = (uintptr_t)page_alloc() | PTE_P | PTE_W | PTE_U; /* the page table's entries decide */
    pte *table = memory_at(*entry & ~0xfffu);
    return &table[linear >> 12 & 1023];
}

void space_map(pte *directory, uint32_t linear, uint32_t physical, uint32_t flags)
{
    *space_entry(directory, linear) = physical | flags;
}

pte *space_new(void)
{
    pte *directory = page_alloc();
    for (uint32_t at = PAGE_SIZE; at < IDENTITY_SIZE; at += PAGE_SIZE) {
        bool is_user = at >= (uintptr_t)user_begin && at < (uintptr_t)user_end;
        space_map(directory, at, at, PTE_P | PTE_W | (is_user ? PTE_U : 0));
    }
    return directory;
}

void paging_on(pte *directory)
{
    write_cr3((uintptr_t)directory);
    write_cr0(read_cr0() | CR0_PG | CR0_WP);
}
