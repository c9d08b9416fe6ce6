/*
 * The invariant, checked: every mapping is allowed by the guest's tables as they are now and points to the
 * right page; the tables it came from are traced; what must be caught is not writable; the notes agree with
 * each other, and the host's own list of the process's mappings agrees with the notes.
 *
 * A debug option. At each exit what changed since the last one is checked, and everything every 1024 exits,
 * or more if there is much: so an exit costs the same, however large the guest.
 * The host's list is read through a descriptor opened beforehand, so that it works inside the sandbox as
 * well.
 *
 * Read next: tests/unit/test_shadow_oracle.c, which turns it on.
 */
#include "shadowpt/space.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define CHECKS_PER_FULL_CHECK 1024u /* at least */
#define ITEMS_PER_EXIT        8u    /* mappings, and pages of memory */
#define WINDOW_BYTES          (UINT64_C(1) << 32)

struct report {
    char *text;
    size_t size;
};

static bool fails(const struct report *report, const char *format, ...) __attribute__((format(printf, 2, 3)));

static bool fails(const struct report *report, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(report->text, report->size, format, arguments);
    va_end(arguments);
    return false;
}

void invariant_open(struct shadow_set *set)
{
    struct stat status;

    if (set->maps != NULL)
        return;
    if (fstat(set->memory->fd, &status) == 0)
        set->memory_inode = status.st_ino;
    set->maps = fopen("/proc/self/maps", "re");
}

void invariant_close(struct shadow_set *set)
{
    if (set->maps != NULL)
        fclose(set->maps);
    set->maps = NULL;
}

void invariant_log(struct shadow *shadow, uint32_t first, uint32_t n)
{
    if (!shadow->config.check_invariant || shadow->n_changes > CHANGE_LOG)
        return;
    if (shadow->n_changes > 0 && shadow->change[shadow->n_changes - 1].end == first) {
        shadow->change[shadow->n_changes - 1].end = first + n;
        return;
    }
    if (shadow->n_changes < CHANGE_LOG)
        shadow->change[shadow->n_changes] = (struct page_range){first, first + n};
    shadow->n_changes++;
}

/* ---- a mapping against the guest's tables -------------------------------------------------------------- */

/* Each level: traced, and A set (unless the entry is in ROM and cannot hold it). */
static bool check_levels(const struct shadow *shadow, const struct report *report, gva_t gva,
                         const struct walk *walk)
{
    for (unsigned i = 0; i < walk->n_levels; i++) {
        const struct walk_level *level = &walk->level[i];

        if (level->is_register)
            continue;

        uint32_t rpn = memory_rpn(shadow->memory, level->address);

        if (rpn == RPN_NONE)
            return fails(report, "%08x: mapped by a %s outside memory", gva, level->name);
        if (!space_is_table(shadow, rpn) || !table_is_used_by(shadow, rpn))
            return fails(report, "%08x: its %s at %09" PRIx64 " is not traced", gva, level->name,
                         level->address);
        if (!(level->entry & PTE_A) && !(shadow->memory->page_flags[rpn] & PAGE_IS_ROM))
            return fails(report, "%08x: mapped, but A is clear in its %s", gva, level->name);
    }
    return true;
}

/* D is set, or cannot be: in ROM. */
static bool is_dirty(const struct shadow *shadow, const struct walk *walk)
{
    return walk->n_levels == 0 || walk->dirty ||
           (shadow->memory->page_flags[memory_rpn(shadow->memory, walk->level[walk->n_levels - 1].address)] &
            PAGE_IS_ROM) != 0;
}

static bool check_writable(const struct shadow *shadow, const struct report *report, gva_t gva, uint32_t spte,
                           const struct walk *walk)
{
    uint8_t page_flags = shadow->memory->page_flags[spte_rpn(spte)];
    bool is_held = !(spte & SPTE_WRITE) && (spte & SPTE_HOST_WRITE);

    if (is_held && !(spte & SPTE_HOST_UFFD))
        return fails(report, "%08x: writable in the host only", gva);
    if ((spte & SPTE_HELD) && (!walk->write || !is_dirty(shadow, walk)))
        return fails(report, "%08x: held back from writes that the guest's tables do not allow", gva);
    if (!(spte & SPTE_WRITE))
        return true;
    if (!(spte & SPTE_HOST_WRITE))
        return fails(report, "%08x: noted writable, but not so in the host", gva);
    if (page_flags & (PAGE_IS_TABLE | PAGE_IS_ROM | PAGE_IS_CODE))
        return fails(report, "%08x: writable, but a %s", gva,
                     (page_flags & PAGE_IS_ROM)     ? "ROM page"
                     : (page_flags & PAGE_IS_TABLE) ? "page table"
                                                    : "page of code");
    if (!is_dirty(shadow, walk))
        return fails(report, "%08x: writable, but D is clear", gva);
    if (!(spte & SPTE_OVERRIDE))
        return walk->write || fails(report, "%08x: writable, but the guest's tables forbid it", gva);
    if ((spte & SPTE_USER) || (shadow->cr0 & CR0_WP))
        return fails(report, "%08x: write protection overridden for the user, or with CR0.WP set", gva);
    return true;
}

static bool check_page(struct shadow *shadow, const struct report *report, const struct vcpu *vcpu,
                       uint32_t page)
{
    uint32_t spte = shadow->spte[page];
    gva_t gva = page << PAGE_SHIFT;
    struct fault fault;
    struct walk walk;

    if (spte == 0)
        return true;
    if (host_is_hole(shadow, page))
        return fails(report, "%08x: mapped in the window's hole", gva);
    if (!guest_walk(shadow->memory, vcpu, gva, ACCESS_READ, true, &walk, &fault))
        return fails(report, "%08x: mapped, but not in the guest's tables", gva);
    if (memory_rpn(shadow->memory, walk.gpa) != spte_rpn(spte))
        return fails(report, "%08x: mapped to page %05x, not to %05x", gva, spte_rpn(spte),
                     memory_rpn(shadow->memory, walk.gpa));
    if ((spte & SPTE_USER) && !walk.user)
        return fails(report, "%08x: mapped for the user, but the guest's tables forbid it", gva);
    if (!(spte & SPTE_NX) && !walk.execute)
        return fails(report, "%08x: executable, but the guest's tables forbid it", gva);
    if (shadow->config.is_user_only && !(spte & SPTE_USER))
        return fails(report, "%08x: the supervisor's, but mapped in a window of the user's", gva);
    if (spte_is_kernel_only(spte) && shadow->is_user_view && page < shadow->limit_page)
        return fails(report, "%08x: the supervisor's, but mapped in the user view", gva);
    return check_levels(shadow, report, gva, &walk) && check_writable(shadow, report, gva, spte, &walk);
}

/* ---- the notes among themselves ------------------------------------------------------------------------ */

static bool check_rmap(const struct shadow *shadow, const struct report *report, uint32_t page)
{
    uint32_t spte = shadow->spte[page];

    if (spte == 0)
        return true;

    uint32_t prev = shadow->rmap_prev[page];
    uint32_t next = shadow->rmap_next[page];
    uint32_t here = prev != 0 ? shadow->rmap_next[prev - 1] : shadow->rmap_head[spte_rpn(spte)];

    if (here != page + 1 || (next != 0 && shadow->rmap_prev[next - 1] != page + 1))
        return fails(report, "%08x: not on the reverse map of page %05x", page << PAGE_SHIFT, spte_rpn(spte));
    return true;
}

/* The bits of this space, by page of memory. */
static bool check_bits(const struct shadow *shadow, const struct report *report)
{
    for (uint32_t rpn = 0; rpn < shadow->n_rpn; rpn++) {
        const struct page_spaces *page = &shadow->set->page[rpn];

        if (((page->mapped & shadow->bit) != 0) != (shadow->rmap_head[rpn] != 0))
            return fails(report, "page %05x: noted wrongly whether the space maps it", rpn);
        if (((page->table & shadow->bit) != 0) != table_is_used_by(shadow, rpn))
            return fails(report, "page %05x: noted wrongly whether the space uses it as a table", rpn);
    }
    return true;
}

/* A window is large and mostly empty. */
static bool is_empty(const struct shadow *shadow, uint32_t first, uint32_t n)
{
    static const uint32_t nothing[1u << REGION_BITS];

    return memcmp(&shadow->spte[first], nothing, n * sizeof nothing[0]) == 0;
}

static bool check_counts(const struct shadow *shadow, const struct report *report)
{
    uint64_t n_mappings = 0;
    uint32_t n_runs = 0, n_low = 0, n_override = 0;

    for (uint32_t i = 0; i < space_regions(shadow); i++) {
        const struct region *region = &shadow->region[i];
        uint32_t n_pages = 0, n_kernel = 0, first = i << shadow->region_bits;

        if (region->n_pages == 0 && region->n_kernel == 0 && region->n_runs == 0 &&
            is_empty(shadow, first, space_region_pages(shadow)))
            continue;
        for (uint32_t page = first; page < first + space_region_pages(shadow); page++) {
            uint32_t spte = shadow->spte[page];

            n_pages += spte != 0;
            n_kernel += spte_is_kernel_only(spte);
            n_low += spte_is_kernel_only(spte) && page < shadow->limit_page;
            n_override += (spte & SPTE_OVERRIDE) != 0;
        }
        if (n_pages != region->n_pages || n_kernel != region->n_kernel)
            return fails(report, "region %03x: %u pages, %u of the kernel, counted as %u and %u", i, n_pages,
                         n_kernel, region->n_pages, region->n_kernel);
        n_mappings += n_pages;
        n_runs += region->n_runs;
    }
    if (n_mappings != shadow->stats.mappings || n_runs != shadow->n_runs || n_low != shadow->n_kernel_low ||
        n_override != shadow->n_override)
        return fails(report, "the totals of mappings, runs, kernel pages and overrides disagree");
    return true;
}

/* ---- the host ------------------------------------------------------------------------------------------ */

struct host_mapping {
    uint64_t first, end, offset, inode;
    char rights[5];
};

/* One line of /proc/self/maps: adds the guest pages it maps to *n_found. */
static bool check_host_mapping(const struct shadow *shadow, const struct report *report,
                               const struct host_mapping *mapping, uint64_t *n_found)
{
    uint64_t base = shadow->config.window.base;
    uint64_t first = mapping->first > base ? mapping->first : base;
    uint64_t end = mapping->end < base + WINDOW_BYTES ? mapping->end : base + WINDOW_BYTES;
    bool is_memory = mapping->inode == shadow->set->memory_inode;

    if (!is_memory && strncmp(mapping->rights, "---", 3) == 0)
        return true; /* reserved */
    for (uint64_t hva = first; hva < end; hva += PAGE_SIZE) {
        uint32_t page = (uint32_t)(hva - base - shadow->config.window.bias) >> PAGE_SHIFT;
        uint32_t spte = shadow->spte[page];
        uint64_t rpn = (mapping->offset + (hva - mapping->first)) >> PAGE_SHIFT;

        if (host_is_hole(shadow, page))
            continue;
        if (!is_memory)
            return fails(report, "%08x: something else is mapped there", page << PAGE_SHIFT);
        if (spte == 0 || spte_rpn(spte) != rpn ||
            ((spte & SPTE_HOST_WRITE) != 0) != (mapping->rights[1] == 'w') ||
            ((spte & SPTE_NX) == 0) != (mapping->rights[2] == 'x'))
            return fails(report, "%08x: the host maps page %05" PRIx64 " %s, noted is %08x",
                         page << PAGE_SHIFT, rpn, mapping->rights, spte);
        ++*n_found;
    }
    return true;
}

static bool parse_host_mapping(const char *line, struct host_mapping *mapping)
{
    return sscanf(line, "%" SCNx64 "-%" SCNx64 " %4s %" SCNx64 " %*s %" SCNu64, &mapping->first,
                  &mapping->end, mapping->rights, &mapping->offset, &mapping->inode) == 5;
}

static bool check_host(const struct shadow *shadow, const struct report *report)
{
    uint64_t base = shadow->config.window.base;
    FILE *maps = shadow->set->maps;
    uint64_t n_found = 0;
    char *line = NULL;
    size_t size = 0;
    bool is_right = true;

    if (maps == NULL)
        return true; /* no list, nothing to compare */
    fflush(maps);    /* forgets what was read before */
    rewind(maps);
    while (is_right && getline(&line, &size, maps) > 0) {
        struct host_mapping mapping;

        if (parse_host_mapping(line, &mapping) && mapping.end > base && mapping.first < base + WINDOW_BYTES)
            is_right = check_host_mapping(shadow, report, &mapping, &n_found);
    }
    free(line);
    if (is_right && n_found != shadow->stats.mappings)
        return fails(report, "the host maps %" PRIu64 " pages, noted are %" PRIu64, n_found,
                     shadow->stats.mappings);
    return is_right;
}

/* ---- together ------------------------------------------------------------------------------------------ */

static bool check_everything(struct shadow *shadow, const struct report *report, const struct vcpu *vcpu)
{
    for (uint32_t region = 0; region < space_regions(shadow); region++) {
        if (shadow->region[region].n_pages == 0)
            continue;
        for (uint32_t page = region << shadow->region_bits; page < (region + 1) << shadow->region_bits;
             page++)
            if (!check_page(shadow, report, vcpu, page) || !check_rmap(shadow, report, page))
                return false;
    }
    return check_counts(shadow, report) && check_bits(shadow, report) && check_host(shadow, report);
}

static bool check_changes(struct shadow *shadow, const struct report *report, const struct vcpu *vcpu)
{
    for (unsigned i = 0; i < shadow->n_changes; i++)
        for (uint32_t page = shadow->change[i].first; page < shadow->change[i].end; page++)
            if (!check_page(shadow, report, vcpu, page) || !check_rmap(shadow, report, page))
                return false;
    return true;
}

static uint64_t exits_per_full_check(const struct shadow *shadow)
{
    uint64_t n = (shadow->stats.mappings + shadow->n_rpn) / ITEMS_PER_EXIT;

    return n > CHECKS_PER_FULL_CHECK ? n : CHECKS_PER_FULL_CHECK;
}

/* The processor for whose registers the space was built. */
static struct vcpu vcpu_of(const struct shadow *shadow)
{
    struct vcpu vcpu = {
        .cr0 = shadow->cr0, .cr3 = shadow->cr3, .cr4 = shadow->cr4, .msr = {.efer = shadow->efer}};

    memcpy(vcpu.pdpte, shadow->pdpte, sizeof vcpu.pdpte);
    return vcpu;
}

static bool check_space(struct shadow *shadow, const struct report *report, bool everything)
{
    struct vcpu vcpu;

    everything =
        everything || shadow->n_changes > CHANGE_LOG || ++shadow->n_checks >= exits_per_full_check(shadow);
    if (!everything && shadow->n_changes == 0)
        return true;
    vcpu = vcpu_of(shadow);
    if (everything ? !check_everything(shadow, report, &vcpu) : !check_changes(shadow, report, &vcpu))
        return false;
    shadow->n_changes = 0;
    if (everything)
        shadow->n_checks = 0;
    return true;
}

bool shadow_check(struct shadow *shadow, const struct vcpu *vcpu, bool everything, char *error,
                  size_t error_size)
{
    const struct report report = {error, error_size};
    struct shadow *space;

    switch_follow_registers(shadow, vcpu);
    for (uint64_t left = shadow->set->members; (space = set_next(shadow->set, &left)) != NULL;)
        if (!check_space(space, &report, everything))
            return false;
    return true;
}
