/* See device_page.h. Read next: machine.c, which asks. */
#include "monitor/device_page.h"

#include <string.h>

/* What is between may be RAM, ROM or neither, and not the same for loads and stores (i440fx.c). */
#define SHADOW_RAM_FIRST 0xc0000u
#define EXTENDED_FIRST   0x100000u

static unsigned slot_of(gva_t linear)
{
    return (linear >> PAGE_SHIFT) % DEVICE_PAGES;
}

static uint64_t read_entry(const uint8_t *at, unsigned size)
{
    uint64_t wide;
    uint32_t narrow;

    if (size == sizeof wide) {
        memcpy(&wide, at, sizeof wide);
        return wide;
    }
    memcpy(&narrow, at, sizeof narrow);
    return narrow;
}

/* Is the entry what it was when the page was found by it? */
static bool is_unchanged(const struct device_page *page, unsigned level)
{
    return level >= page->n_levels ||
           read_entry(page->level[level].at, page->entry_size) == page->level[level].entry;
}

bool device_pages_find(const struct device_pages *pages, gva_t linear, unsigned kind, gpa_t *gpa)
{
    const struct device_page *page = &pages->page[slot_of(linear)];

    if (page->page != (linear >> PAGE_SHIFT) + 1 || page->epoch != pages->epoch ||
        (page->rights & (kind | ACCESS_USER)) != kind)
        return false;
    for (unsigned i = 0; i < DEVICE_PAGE_LEVELS; i++)
        if (!is_unchanged(page, i))
            return false;
    *gpa = page->gpa | (linear & PAGE_MASK);
    return true;
}

static bool is_same(const struct device_page *a, const struct device_page *b)
{
    return a->page == b->page && a->epoch == b->epoch && a->gpa == b->gpa && a->n_levels == b->n_levels &&
           a->entry_size == b->entry_size && ((a->rights ^ b->rights) & ACCESS_USER) == 0 &&
           memcmp(a->level, b->level, sizeof a->level) == 0; /* those not in use are 0 */
}

void device_pages_note(struct device_pages *pages, const struct guest_memory *memory, gva_t linear,
                       unsigned kind, const struct walk *walk)
{
    /* PAE: the registers are the first level, and are forgotten with CR3 */
    bool is_wide = walk->n_levels != 0 && walk->level[0].is_register;
    unsigned entry_size = is_wide ? sizeof(uint64_t) : sizeof(uint32_t);
    struct device_page *old;
    struct device_page page = {.page = (linear >> PAGE_SHIFT) + 1,
                               .epoch = pages->epoch,
                               .rights = kind,
                               .gpa = walk->gpa & ~(gpa_t)PAGE_MASK,
                               .entry_size = entry_size};

    if (page.gpa >= SHADOW_RAM_FIRST && page.gpa < EXTENDED_FIRST)
        return;
    for (unsigned i = is_wide; i < walk->n_levels; i++) {
        gpa_t address = walk->level[i].address;
        uint32_t rpn = memory_rpn(memory, address);
        const uint8_t *at;

        if (page.n_levels == DEVICE_PAGE_LEVELS || rpn == RPN_NONE || address < EXTENDED_FIRST)
            return;
        at = memory->hva + ((uint64_t)rpn << PAGE_SHIFT) + (address & PAGE_MASK);
        page.level[page.n_levels].at = at;
        page.level[page.n_levels].entry = read_entry(at, entry_size);
        page.n_levels++;
    }
    old = &pages->page[slot_of(linear)];
    if (is_same(old, &page)) /* loads and stores by turns */
        page.rights |= old->rights;
    *old = page;
}

void device_pages_forget(struct device_pages *pages)
{
    if (++pages->epoch == 0) /* those of long ago would come back */
        *pages = (struct device_pages){.epoch = 1};
}
