/* What the guest's page tables have to do with. Read next: process.c. */
#include "rows.h"
#include "system.h"

#define MOST_PAGES 4096u /* 16 MiB */

static uint8_t *pages;
static uint32_t n_mapped;

static void prepare_pages(uint32_t n)
{
    n_mapped = n;
    pages = map_pages(0, n, MAP_PRIVATE);
}

static void finish_pages(void)
{
    unmap_pages(pages, n_mapped);
}

static void run_first_touch(uint32_t n)
{
    touch_pages(pages, n);
}

/* As a program does that computes something new: each page is filled where it comes from the kernel. */
static void run_fill(uint32_t n)
{
    volatile uint32_t *words = (volatile uint32_t *)pages;

    for (uint32_t i = 0; i < n * (PAGE_SIZE / sizeof *words); i++)
        words[i] = i;
}

static void run_map_touch_unmap(uint32_t n)
{
    while (n-- > 0) {
        const uint32_t arguments[6] = {
            0, PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, UINT32_MAX, 0};
        uint8_t *page = (uint8_t *)must(system1(SYS_MMAP, (long)arguments), "mmap");

        touch_pages(page, 1);
        unmap_pages(page, 1);
    }
}

static void prepare_page(uint32_t n)
{
    (void)n;
    prepare_pages(1);
    touch_pages(pages, 1);
}

/* Takes a page's write permission, gives it back, and writes. */
static void run_protect(uint32_t n)
{
    while (n-- > 0) {
        must(system3(SYS_MPROTECT, (long)pages, PAGE_SIZE, PROT_READ), "mprotect");
        must(system3(SYS_MPROTECT, (long)pages, PAGE_SIZE, PROT_READ | PROT_WRITE), "mprotect");
        touch_pages(pages, 1);
    }
}

/* A thousand pages in use, by turns: no page table changes, but no small TLB holds them. */
static void run_working_set(uint32_t n)
{
    uint32_t at = 0;

    while (n-- > 0) {
        at = (at * 5 + 1) % 1024; /* visits all */
        ((volatile uint8_t *)pages)[at * (PAGE_SIZE + 64) % (1024 * PAGE_SIZE)]++;
    }
}

static void prepare_working_set(uint32_t n)
{
    (void)n;
    prepare_pages(1024);
    touch_pages(pages, 1024);
    run_working_set(1024);
}

const struct measure memory_measures[] = {
    {"first-touch", prepare_pages, run_first_touch, finish_pages, MOST_PAGES},
    {"fill", prepare_pages, run_fill, finish_pages, MOST_PAGES},
    {"mmap-munmap", 0, run_map_touch_unmap, 0, 0},
    {"mprotect", prepare_page, run_protect, finish_pages, 0},
    {"working-set", prepare_working_set, run_working_set, finish_pages, 0},
    {0, 0, 0, 0, 0},
};
