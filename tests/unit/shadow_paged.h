/*
 * The guest of test_shadow.c and test_shadow_switch.c: two page directories over two page tables that map 8
 * MiB page by page, everything allowed, A and D set.
 */
#ifndef RING3_TESTS_SHADOW_PAGED_H
#define RING3_TESTS_SHADOW_PAGED_H

#include "shadow_world.h"

#define RAM_SIZE  (UINT64_C(64) << 20)
#define DIRECTORY 0x200000u
#define OTHER     0x201000u /* another directory */
#define TABLE     0x202000u /* maps region 1 */
#define TABLE_2   0x203000u /* maps region 2 */
#define DATA      0x1000000u
#define GVA       0x00400000u
#define GVA_2     0x00800000u
#define RIGHTS    (PTE_P | PTE_W | PTE_U)
#define SEEN      (RIGHTS | PTE_A | PTE_D)
#define PAGED     (CR0_PE | CR0_ET | CR0_PG | CR0_WP)

static struct world world;
static struct shadow_mapping mapping;
static uint32_t value;

static inline uint32_t *entry(gpa_t table, gva_t gva) /* of a page table */
{
    return world_ram(&world, table + (gva >> 12 & 0x3ff) * 4);
}

/* As the guest's kernel stores it, through the door. */
static inline void set(gpa_t table, uint32_t index, uint32_t to)
{
    ck_assert(memory_write(&world.memory, table + (gpa_t)index * 4, &to, sizeof to));
}

static inline void set_pte(gva_t gva, uint32_t to)
{
    set(gva >> 22 == 1 ? TABLE : TABLE_2, gva >> 12 & 0x3ff, to);
}

/* Regions 1 and 2 map DATA and what follows, page by page; region 0 nothing. */
static inline void open_paged(void)
{
    world_open(&world, RAM_SIZE, 0, 0, true, 0);
    for (gpa_t directory = DIRECTORY; directory <= OTHER; directory += PAGE_SIZE) {
        set(directory, 1, TABLE | RIGHTS);
        set(directory, 2, TABLE_2 | RIGHTS);
    }
    for (uint32_t i = 0; i < 1024; i++) {
        set(TABLE, i, (DATA + i * PAGE_SIZE) | SEEN);
        set(TABLE_2, i, (DATA + (1024 + i) * PAGE_SIZE) | SEEN);
        *world_ram(&world, DATA + i * PAGE_SIZE) = i;
    }
    world_set_registers(&world, PAGED, DIRECTORY, CR4_PSE);
}

static inline void close_paged(void)
{
    world_check(&world, true);
    world_close(&world);
}

static inline bool is_mapped(gva_t gva)
{
    return shadow_find(world.shadow, gva, &mapping);
}

static inline bool is_writable(gva_t gva)
{
    return is_mapped(gva) && mapping.write;
}

static inline struct shadow_stats stats(void)
{
    return *shadow_stats(world.shadow);
}

#endif
