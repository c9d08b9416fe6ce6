/*
 * Write protection of pages that are mapped already: what tracing a page table needs, wherever the page is
 * mapped.
 *
 * mprotect splits a host mapping in three. userfaultfd holds single pages of a mapping back without splitting
 * it, and makes the write a SIGBUS with the CPU's error code, so that to the engine it is a page fault like
 * any other. It asks for a registration of the host mapping first (an mmap over it loses it; then it is made
 * again) and in return gives up the kernel's fault-around there: so only mappings that hold a traced page are
 * registered.
 *
 * Measured: userfaultfd 1.0 us to register, 1.2 us to protect, 1.0 us to lift; mprotect in the middle of a
 * mapping 4.5 us and 4.0 us.
 *
 * Read next: drop.c.
 */
#include "shadowpt/space.h"

#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Leaves set->uffd at -1 where the host refuses: mprotect serves as well. */
void protect_open(struct shadow_set *set)
{
    const uint64_t features = UFFD_FEATURE_SIGBUS | UFFD_FEATURE_WP_HUGETLBFS_SHMEM;
    struct uffdio_api api = {.api = UFFD_API, .features = features};
    int uffd;

    if (set->uffd >= 0)
        return;
    uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY);
    if (uffd < 0)
        return;
    if (ioctl(uffd, UFFDIO_API, &api) != 0 || (api.features & features) != features) {
        close(uffd);
        return;
    }
    set->uffd = uffd;
}

void protect_close(struct shadow_set *set)
{
    if (set->uffd >= 0)
        close(set->uffd);
    set->uffd = -1;
}

bool shadow_uses_userfaultfd(const struct shadow *shadow)
{
    return shadow->uffd >= 0;
}

static bool hold_back(const struct shadow *shadow, uint32_t page, bool is_held)
{
    struct uffdio_writeprotect request = {
        .range = {.start = host_address(shadow, page), .len = PAGE_SIZE},
        .mode = is_held ? UFFDIO_WRITEPROTECT_MODE_WP : 0,
    };

    return ioctl(shadow->uffd, UFFDIO_WRITEPROTECT, &request) == 0;
}

static bool register_around(struct shadow *shadow, uint32_t page)
{
    struct page_range run = space_mark_registered(shadow, page, host_reach(shadow, page));
    struct uffdio_register request = {
        .range = {.start = host_address(shadow, run.first),
                  .len = (uint64_t)(run.end - run.first) * PAGE_SIZE},
        .mode = UFFDIO_REGISTER_MODE_WP,
    };

    return ioctl(shadow->uffd, UFFDIO_REGISTER, &request) == 0;
}

static bool protect_by_userfaultfd(struct shadow *shadow, uint32_t page)
{
    if (shadow->uffd < 0)
        return false;
    if (!(shadow->spte[page] & SPTE_HOST_UFFD) && !register_around(shadow, page))
        return false;
    return hold_back(shadow, page, true);
}

/* The page, mapped writable, becomes read-only: it is held back, unless the caller knows better. What the
 * host refuses to protect is unmapped. */
void protect_page(struct shadow *shadow, uint32_t page)
{
    uint32_t gone = SPTE_WRITE | SPTE_OVERRIDE;
    uint32_t held = (shadow->spte[page] & (SPTE_WRITE | SPTE_OVERRIDE)) == SPTE_WRITE ? SPTE_HELD : 0;

    if (!protect_by_userfaultfd(shadow, page)) {
        if (!host_set_writable(shadow, page, false)) {
            drop_page(shadow, page);
            return;
        }
        gone |= SPTE_HOST_WRITE;
    }
    space_set_flags(shadow, page, (shadow->spte[page] & PAGE_MASK & ~gone) | held);
    space_observe(shadow, SHADOW_CHANGE_PROTECT, page, 1);
}

static void protect_mappings(struct shadow *shadow, uint32_t rpn)
{
    uint32_t next;

    for (uint32_t link = shadow->rmap_head[rpn]; link != 0; link = next) {
        uint32_t page = link - 1;
        uint32_t spte = shadow->spte[page];

        next = shadow->rmap_next[page];
        if (spte_rpn(spte) == rpn && (spte & SPTE_WRITE)) /* else it went with others, for want of room */
            protect_page(shadow, page);
    }
}

/* Every mapping of the page, in every space, becomes read-only. */
void protect_everywhere(struct shadow_set *set, uint32_t rpn)
{
    struct shadow *shadow;

    for (uint64_t left = set->page[rpn].mapped; (shadow = set_next(set, &left)) != NULL;)
        protect_mappings(shadow, rpn);
}

/* The page, mapped read-only, becomes writable in the host; the caller notes it. */
bool protect_lift(struct shadow *shadow, uint32_t page)
{
    if (shadow->spte[page] & SPTE_HOST_WRITE)
        return hold_back(shadow, page, false);
    return host_set_writable(shadow, page, true);
}
