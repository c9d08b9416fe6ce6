/*
 * Address spaces for the measures: the library's (the first 4 MiB), the benchmark's image and its arena at
 * their own addresses, the local APIC, and a few pages at NANO_AREA. Pages that kernel measures use are the
 * kernel's and those that user measures use are ring 3's, as in any kernel.
 *
 * The pages that nano_cr3_switch touches are ring 3's in both: they stand for the user memory that a kernel
 * looks into. Read next: code.c.
 */
#include "nano.h"

#include "bench/guest.h"

/* As kernels map pages that they know to be in use. */
enum { IN_USE = PTE_P | PTE_W | PTE_A | PTE_D };

static void map_range(pte *directory, uint32_t first, uint32_t end, uint32_t flags)
{
    for (uint32_t at = first; at < end; at += PAGE_SIZE)
        space_map(directory, at, at, flags);
}

static void map_touched(pte *directory)
{
    for (uint32_t i = 0; i < NANO_TOUCHED_PAGES; i++)
        space_map(directory, NANO_AREA + i * PAGE_SIZE, (uintptr_t)page_alloc(), IN_USE | PTE_U);
}

/* The kernel's page tables are the same in both spaces; the table of NANO_AREA is not. */
static pte *make_other(const pte *directory)
{
    pte *other = page_alloc();

    for (uint32_t i = 0; i < PAGE_SIZE / sizeof(pte); i++)
        other[i] = i == NANO_AREA >> 22 ? 0 : directory[i];
    map_touched(other);
    return other;
}

struct space nano_space_new(bool is_user)
{
    uint32_t flags = IN_USE | (is_user ? PTE_U : 0);
    struct space space = {.directory = space_new()};

    map_range(space.directory, GUEST_IMAGE, GUEST_STACK_TOP, flags);
    map_range(space.directory, GUEST_ARENA, GUEST_ARENA + GUEST_ARENA_SIZE, flags);
    space_map(space.directory, NANO_LOCAL_APIC, NANO_LOCAL_APIC, IN_USE);
    map_touched(space.directory);
    space.spare = space_entry(space.directory, NANO_SPARE);
    space.pair = space_entry(space.directory, NANO_PAIR);
    space.pair_entry = (uint32_t)(uintptr_t)page_alloc() | flags;
    space.other = make_other(space.directory);
    return space;
}

/* All four pages of NANO_AREA are touched, so that the table that maps them is one in use. */
void nano_space_enter(const struct space *space)
{
    nano_pair_table = space->pair;
    nano_pair_entry = space->pair_entry;
    space->pair[0] = space->pair[1] = 0;
    paging_on(space->directory);
    for (uint32_t i = 0; i < NANO_TOUCHED_PAGES; i++)
        peek(NANO_AREA + i * PAGE_SIZE);
}
