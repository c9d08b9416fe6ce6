/*
 * The window in the process: where guest linear pages live, and the system calls that map, unmap and protect
 * them. Nothing here knows what a mapping means.
 *
 * Guest address a lives at base + (uint32_t)(a + bias), so guest addresses that follow each other do not
 * where that sum wraps, nor across the hole: every range is cut there.
 *
 * In an open window what is unmapped is free; but Linux frees its own page table when the last mapping goes
 * from a chunk, the 2 MiB that the table maps, and makes a new one with the next (measured: 3.4 us of the 9
 * to map and unmap a page). So when the guest's last page goes from a chunk, an inaccessible one is mapped
 * elsewhere in it, the chunk's anchor, and stays until something else is mapped there.
 *
 * Read next: protect.c, drop.c.
 */
#include "shadowpt/space.h"

#include <sys/mman.h>

/* Measured: populating a writable run costs 0.35 us a page against 1.25 us for each first write (shared
 * memory has no fault-around for writes); for reads the kernel's fault-around (16 pages a fault) is as cheap
 * and wastes nothing. */
#define POPULATE_MAX_PAGES 128u
#define AROUND_PAGES       16u

#define MOST_ANCHORS 2048u /* in all spaces together: each is a host mapping, and a host page table */

static uint32_t wrap_page(const struct shadow *shadow)
{
    return (uint32_t)-shadow->config.window.bias >> PAGE_SHIFT;
}

uintptr_t host_address(const struct shadow *shadow, uint32_t page)
{
    return shadow->config.window.base + (uint32_t)((page << PAGE_SHIFT) + shadow->config.window.bias);
}

static void *host_pointer(const struct shadow *shadow, uint32_t page)
{
    return (void *)host_address(shadow, page);
}

bool host_is_hole(const struct shadow *shadow, uint32_t page)
{
    const struct shadow_window *window = &shadow->config.window;

    return window->hole_first <= window->hole_last && page >= window->hole_first >> PAGE_SHIFT &&
           page <= window->hole_last >> PAGE_SHIFT;
}

/* The pages around `page`, itself not in the hole, that also follow each other in the host. */
struct page_range host_reach(const struct shadow *shadow, uint32_t page)
{
    const struct shadow_window *window = &shadow->config.window;
    uint32_t wrap = wrap_page(shadow);
    struct page_range reach =
        page < wrap ? (struct page_range){0, wrap} : (struct page_range){wrap, WINDOW_PAGES};

    if (window->hole_first > window->hole_last)
        return reach;

    uint32_t hole_first = window->hole_first >> PAGE_SHIFT;
    uint32_t hole_end = (window->hole_last >> PAGE_SHIFT) + 1;

    if (page < hole_first && reach.end > hole_first)
        reach.end = hole_first;
    if (page >= hole_end && reach.first < hole_end)
        reach.first = hole_end;
    return reach;
}

/* ---- anchors ------------------------------------------------------------------------------------------- */

static void forget_anchor(struct shadow *shadow, uint32_t chunk)
{
    shadow->set->n_anchors -= shadow->anchor[chunk] != 0;
    shadow->anchor[chunk] = 0;
}

/* Something else is in the range now, or nothing. */
static void forget_anchors(struct shadow *shadow, struct page_range range)
{
    for (uint32_t chunk = range.first / CHUNK_PAGES; chunk * CHUNK_PAGES < range.end; chunk++) {
        uint32_t anchor = chunk * CHUNK_PAGES + shadow->anchor[chunk] - 1;

        if (shadow->anchor[chunk] != 0 && anchor >= range.first && anchor < range.end)
            forget_anchor(shadow, chunk);
    }
}

static bool is_empty(const struct shadow *shadow, uint32_t chunk)
{
    const uint32_t *spte = &shadow->spte[(size_t)chunk * CHUNK_PAGES];

    if (shadow->region[chunk * CHUNK_PAGES >> shadow->region_bits].n_pages == 0)
        return true; /* a region is a chunk, or two */
    for (uint32_t i = 0; i < CHUNK_PAGES; i++)
        if (spte[i] != 0)
            return false;
    return true;
}

/* What is mapped is mostly next to other things. */
static bool has_neighbour(const struct shadow *shadow, struct page_range range)
{
    return (range.first % CHUNK_PAGES != 0 && shadow->spte[range.first - 1] != 0) ||
           (range.end % CHUNK_PAGES != 0 && shadow->spte[range.end] != 0);
}

/* The range lies within a chunk, and is about to go. */
static bool wants_anchor(const struct shadow *shadow, struct page_range range)
{
    uint32_t chunk = range.first / CHUNK_PAGES;

    return shadow->anchor[chunk] == 0 && shadow->set->n_anchors < MOST_ANCHORS &&
           shadow->config.window.bias == 0 && !has_neighbour(shadow, range) && is_empty(shadow, chunk);
}

/* ---- mapping ------------------------------------------------------------------------------------------- */

/* The host's page tables have a no-execute bit on every CPU that ring3 runs on; compat-mode code honours it.
 */
static int protection_for(uint32_t spte)
{
    return PROT_READ | ((spte & SPTE_HOST_WRITE) ? PROT_WRITE : 0) | ((spte & SPTE_NX) ? 0 : PROT_EXEC);
}

/* Maps memory pages rpn.. at the run, which lies within one reach, with the rights in `flags` (SPTE_*);
 * `wanted` is the page that will be touched next. */
bool host_map(struct shadow *shadow, struct page_range run, uint32_t rpn, uint32_t flags, uint32_t wanted)
{
    uint32_t n = run.end - run.first;
    bool is_writable = (flags & SPTE_HOST_WRITE) != 0;
    bool is_populated = is_writable && n > 1 && n <= POPULATE_MAX_PAGES;
    int how = MAP_SHARED | MAP_FIXED | (is_populated ? MAP_POPULATE : 0);

    if (mmap(host_pointer(shadow, run.first), (size_t)n * PAGE_SIZE, protection_for(flags), how,
             shadow->memory->fd, (off_t)((uint64_t)rpn << PAGE_SHIFT)) == MAP_FAILED)
        return false;
    forget_anchors(shadow, run);
    if (is_writable && !is_populated && n > 1) {
        uint32_t first = wanted & ~(AROUND_PAGES - 1);
        uint32_t end = first + AROUND_PAGES;

        if (first < run.first)
            first = run.first;
        if (end > run.end)
            end = run.end;
        /* only a hint: kernels before 5.14 do not know it */
        (void)madvise(host_pointer(shadow, first), (size_t)(end - first) * PAGE_SIZE, MADV_POPULATE_READ);
    }
    return true;
}

/* ---- unmapping ----------------------------------------------------------------------------------------- */

static bool reserve(void *first, size_t size)
{
    return mmap(first, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0) !=
           MAP_FAILED;
}

/* Not where something is mapped now: who maps there again would take it away, and the table with it. It can
 * be done without, where the host has no room for it. */
static void lay_anchor(struct shadow *shadow, struct page_range range)
{
    uint32_t chunk = range.first / CHUNK_PAGES;
    uint32_t last = chunk * CHUNK_PAGES + CHUNK_PAGES - 1;
    uint32_t page = range.end <= last ? last : chunk * CHUNK_PAGES;

    if (!reserve(host_pointer(shadow, page), PAGE_SIZE))
        return;
    shadow->anchor[chunk] = (uint16_t)(page % CHUNK_PAGES + 1);
    shadow->set->n_anchors++;
}

/* Nothing of the range, which lies within one reach, is accessible any more; the notes know that already. An
 * address of a window that is not open never becomes free for the process. */
static bool unmap(struct shadow *shadow, struct page_range range)
{
    if (!shadow->config.window.is_open)
        return reserve(host_pointer(shadow, range.first), (size_t)(range.end - range.first) * PAGE_SIZE);
    forget_anchors(shadow, range);
    if (range.first / CHUNK_PAGES == (range.end - 1) / CHUNK_PAGES && wants_anchor(shadow, range))
        lay_anchor(shadow, range);
    return munmap(host_pointer(shadow, range.first), (size_t)(range.end - range.first) * PAGE_SIZE) == 0;
}

bool host_unmap(struct shadow *shadow, struct page_range range)
{
    while (range.first < range.end) {
        if (host_is_hole(shadow, range.first)) {
            range.first++;
            continue;
        }

        struct page_range reach = host_reach(shadow, range.first);
        uint32_t end = reach.end < range.end ? reach.end : range.end;

        if (!unmap(shadow, (struct page_range){range.first, end}))
            return false;
        range.first = end;
    }
    return true;
}

/* Empties the whole window when there is no room even for that: a process over its limit of mappings may
 * still unmap. The window is free for a moment, but the monitor maps nothing meanwhile. */
bool host_clear(struct shadow *shadow)
{
    struct page_range range = {0, 0};

    for (; range.first < WINDOW_PAGES; range.first = range.end) {
        range.end = range.first + 1;
        if (host_is_hole(shadow, range.first))
            continue;
        range.end = host_reach(shadow, range.first).end;
        forget_anchors(shadow, range);
        if (munmap(host_pointer(shadow, range.first), (size_t)(range.end - range.first) * PAGE_SIZE) != 0 ||
            !host_unmap(shadow, range))
            return false;
    }
    return true;
}

void host_leave(struct shadow *shadow)
{
    if (shadow->config.window.is_open)
        (void)host_clear(shadow); /* of anchors */
}

bool host_set_writable(struct shadow *shadow, uint32_t page, bool is_writable)
{
    uint32_t spte = (shadow->spte[page] & ~(uint32_t)SPTE_HOST_WRITE) | (is_writable ? SPTE_HOST_WRITE : 0);

    return mprotect(host_pointer(shadow, page), PAGE_SIZE, protection_for(spte)) == 0;
}

bool shadow_allow_fetch(struct shadow *shadow, gva_t gva, bool is_allowed)
{
    uint32_t page = gva >> PAGE_SHIFT, spte = shadow->spte[page];
    return spte != 0 && mprotect(host_pointer(shadow, page), PAGE_SIZE,
                                 protection_for(spte | (is_allowed ? 0 : SPTE_NX))) == 0;
}
