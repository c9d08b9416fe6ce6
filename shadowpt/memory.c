/*
 * Guest physical memory: one memfd that holds all RAM and ROM, the map of the PC's physical addresses onto
 * it, and the one door through which the monitor and the devices read and write it.
 *
 * Below ram_size a page sits in the memfd at its own physical address, holes included (they cost nothing:
 * nobody touches those pages); the ROM that ends at 4 GiB follows. So rpn == gpa >> 12 for everything but
 * that ROM. Only in the BIOS area the map can change: each part of it is RAM, or shows the ROM
 * (memory_set_shadow_ram).
 *
 * Read next: walk.c (the guest's page tables in this memory), space.h (the shadow of them).
 */
#include "shadowpt/space.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "vcpu/fail.h"

/* Pages filled one behind the other before the host is asked for more, and for how many. */
#define FILLED_IN_A_ROW 16u
#define FILL_AHEAD      64u

#define ADDRESS_SPACE_END (UINT64_C(1) << 32)
#define ROM_MIRROR_SIZE   0x20000u /* of the ROM's end shows below 1 MiB, too */

/* ---- making it ----------------------------------------------------------------------------------------- */

/* Is it more of the same? The pages behind it follow, or there are none. */
static bool continues(const struct memory_region *last, const struct memory_region *region)
{
    uint32_t n = (uint32_t)(last->size >> PAGE_SHIFT);
    uint32_t rpn = last->rpn == RPN_NONE ? RPN_NONE : last->rpn + n;
    uint32_t write_rpn = last->write_rpn == RPN_NONE ? RPN_NONE : last->write_rpn + n;

    return last->gpa + last->size == region->gpa && last->is_rom == region->is_rom && region->rpn == rpn &&
           region->write_rpn == write_rpn;
}

static void add_region(struct guest_memory *memory, struct memory_region region)
{
    struct memory_region *last = memory->n_regions == 0 ? NULL : &memory->region[memory->n_regions - 1];

    if (region.size == 0)
        return;
    if (last != NULL && continues(last, &region)) {
        last->size += region.size;
        return;
    }
    BUG_ON(memory->n_regions == MEMORY_MAX_REGIONS);
    memory->region[memory->n_regions++] = region;
}

static void add_ram(struct guest_memory *memory, gpa_t gpa, uint64_t size)
{
    uint32_t rpn = (uint32_t)(gpa >> PAGE_SHIFT);

    add_region(memory, (struct memory_region){.gpa = gpa, .size = size, .rpn = rpn, .write_rpn = rpn});
}

/* The page of ROM that shows at an address of the BIOS area. */
static uint32_t rom_mirror(const struct guest_memory *memory, gpa_t gpa)
{
    uint64_t from_end = MEMORY_EXTENDED - gpa;

    if (from_end > ROM_MIRROR_SIZE || from_end > memory->size - memory->ram_size)
        return RPN_NONE;
    return (uint32_t)((memory->size - from_end) >> PAGE_SHIFT);
}

/* One page, since a ROM may begin in the middle of what can be switched. */
static void add_bios_page(struct guest_memory *memory, gpa_t gpa)
{
    unsigned mode = memory->shadow_ram[(gpa - MEMORY_BIOS_FIRST) / MEMORY_SHADOW_SIZE];
    uint32_t ram = (uint32_t)(gpa >> PAGE_SHIFT);
    struct memory_region region = {.gpa = gpa, .size = PAGE_SIZE};

    region.rpn = mode & SHADOW_RAM_READ ? ram : rom_mirror(memory, gpa);
    region.write_rpn = mode & SHADOW_RAM_WRITE ? ram : RPN_NONE;
    region.is_rom = region.rpn != region.write_rpn;
    memory->page_flags[ram] &= (uint8_t)~PAGE_IS_ROM;
    if (region.rpn == ram && region.is_rom)
        memory->page_flags[ram] |= PAGE_IS_ROM;
    if (region.rpn != RPN_NONE || region.write_rpn != RPN_NONE)
        add_region(memory, region);
}

/* The PC's map of physical addresses. */
static void map_regions(struct guest_memory *memory)
{
    uint64_t rom_size = memory->size - memory->ram_size;
    uint32_t rom = (uint32_t)(memory->ram_size >> PAGE_SHIFT);

    memory->n_regions = 0;
    add_ram(memory, 0, MEMORY_VGA_FIRST);
    for (gpa_t gpa = MEMORY_BIOS_FIRST; gpa < MEMORY_EXTENDED; gpa += PAGE_SIZE)
        add_bios_page(memory, gpa);
    add_ram(memory, MEMORY_EXTENDED, memory->ram_size - MEMORY_EXTENDED);
    add_region(memory, (struct memory_region){.gpa = ADDRESS_SPACE_END - rom_size,
                                              .size = rom_size,
                                              .rpn = rom,
                                              .write_rpn = RPN_NONE,
                                              .is_rom = true});
}

void memory_set_shadow_ram(struct guest_memory *memory, gpa_t gpa, uint64_t size, unsigned shadow_ram)
{
    BUG_ON(gpa < MEMORY_BIOS_FIRST || gpa + size > MEMORY_EXTENDED || (gpa | size) % MEMORY_SHADOW_SIZE != 0);
    for (gpa_t end = gpa + size; gpa < end; gpa += MEMORY_SHADOW_SIZE)
        memory->shadow_ram[(gpa - MEMORY_BIOS_FIRST) / MEMORY_SHADOW_SIZE] = (uint8_t)shadow_ram;
    map_regions(memory);
}

bool memory_create(struct guest_memory *memory, uint64_t ram_size, uint64_t rom_size, char *error,
                   size_t error_size)
{
    memset(memory, 0, sizeof *memory);
    memory->fd = -1;
    if (ram_size < MEMORY_EXTENDED || ram_size > MEMORY_MAX_RAM || (ram_size & PAGE_MASK) != 0) {
        snprintf(error, error_size, "guest memory must be 1 MiB to %u MiB, in whole pages",
                 (unsigned)(MEMORY_MAX_RAM >> 20));
        return false;
    }
    if (rom_size > MEMORY_MAX_ROM || (rom_size & PAGE_MASK) != 0) {
        snprintf(error, error_size, "the ROM below 4 GiB must be at most %u MiB, in whole pages",
                 (unsigned)(MEMORY_MAX_ROM >> 20));
        return false;
    }
    memory->ram_size = ram_size;
    memory->size = ram_size + rom_size;
    memory->page_flags = calloc(memory->size >> PAGE_SHIFT, sizeof *memory->page_flags);
    if (memory->page_flags == NULL) {
        snprintf(error, error_size, "cannot allocate the page flags: %s", strerror(errno));
        return false;
    }
    memory->fd = memfd_create("guest-memory", MFD_CLOEXEC);
    if (memory->fd < 0 || ftruncate(memory->fd, (off_t)memory->size) != 0) {
        snprintf(error, error_size, "cannot create %llu MiB of guest memory: %s",
                 (unsigned long long)(memory->size >> 20), strerror(errno));
        memory_destroy(memory);
        return false;
    }
    void *hva = mmap(NULL, memory->size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, memory->fd, 0);
    if (hva == MAP_FAILED) {
        snprintf(error, error_size, "cannot map %llu MiB of guest memory: %s",
                 (unsigned long long)(memory->size >> 20), strerror(errno));
        memory_destroy(memory);
        return false;
    }
    memory->hva = hva;
    memset(memory->page_flags + (ram_size >> PAGE_SHIFT), PAGE_IS_ROM, rom_size >> PAGE_SHIFT);
    memset(memory->shadow_ram, SHADOW_RAM_READ, sizeof memory->shadow_ram);
    map_regions(memory);
    return true;
}

void memory_destroy(struct guest_memory *memory)
{
    set_close(memory);
    if (memory->hva != NULL)
        munmap(memory->hva, memory->size);
    if (memory->fd >= 0)
        close(memory->fd);
    free(memory->page_flags);
    memset(memory, 0, sizeof *memory);
    memory->fd = -1;
}

/* ---- addresses ----------------------------------------------------------------------------------------- */

static const struct memory_region *region_of(const struct guest_memory *memory, gpa_t gpa)
{
    for (unsigned i = 0; i < memory->n_regions; i++) {
        const struct memory_region *region = &memory->region[i];

        if (gpa - region->gpa < region->size)
            return region;
    }
    return NULL;
}

uint32_t memory_rpn(const struct guest_memory *memory, gpa_t gpa)
{
    /* nearly every address is in extended memory, where the page numbers agree */
    if (gpa - MEMORY_EXTENDED < memory->ram_size - MEMORY_EXTENDED)
        return (uint32_t)(gpa >> PAGE_SHIFT);

    const struct memory_region *region = region_of(memory, gpa);

    if (region == NULL || region->rpn == RPN_NONE)
        return RPN_NONE;
    return region->rpn + (uint32_t)((gpa - region->gpa) >> PAGE_SHIFT);
}

gpa_t memory_gpa(const struct guest_memory *memory, uint32_t rpn)
{
    gpa_t offset = (gpa_t)rpn << PAGE_SHIFT;

    BUG_ON(offset >= memory->size);
    if (offset < memory->ram_size)
        return offset;
    return ADDRESS_SPACE_END - (memory->size - offset);
}

uint32_t memory_run(const struct guest_memory *memory, gpa_t gpa)
{
    const struct memory_region *region = region_of(memory, gpa);

    if (region == NULL || region->rpn == RPN_NONE)
        return 0;
    return (uint32_t)((region->gpa + region->size - gpa + PAGE_MASK) >> PAGE_SHIFT);
}

/* ---- the door ------------------------------------------------------------------------------------------ */

enum door { DOOR_READ, DOOR_WRITE, DOOR_WRITE_ROM };

/* Which page of a region the door opens; RPN_NONE: none. */
static uint32_t door_rpn(const struct memory_region *region, enum door door)
{
    return door == DOOR_WRITE && region->write_rpn != RPN_NONE ? region->write_rpn : region->rpn;
}

/* The bytes at gpa, and how many of the n from there on lie in the same region; NULL: no memory there. */
static uint8_t *span(const struct guest_memory *memory, gpa_t gpa, size_t n, enum door door, size_t *part)
{
    const struct memory_region *region = region_of(memory, gpa);

    if (region == NULL || door_rpn(region, door) == RPN_NONE)
        return NULL;

    uint64_t offset = gpa - region->gpa;

    *part = region->size - offset < n ? (size_t)(region->size - offset) : n;
    return memory->hva + ((uint64_t)door_rpn(region, door) << PAGE_SHIFT) + offset;
}

static bool is_backed(const struct guest_memory *memory, gpa_t gpa, size_t n, enum door door)
{
    size_t part;

    for (; n > 0; gpa += part, n -= part)
        if (span(memory, gpa, n, door, &part) == NULL)
            return false;
    return true;
}

bool memory_read(const struct guest_memory *memory, gpa_t gpa, void *buf, size_t n)
{
    uint8_t *to = buf;
    size_t part;

    if (!is_backed(memory, gpa, n, DOOR_READ))
        return false;
    for (; n > 0; to += part, gpa += part, n -= part) {
        const uint8_t *from = span(memory, gpa, n, DOOR_READ, &part);

        BUG_ON(from == NULL);
        memcpy(to, from, part);
    }
    return true;
}

static void tell_code_listener(struct guest_memory *memory, uint32_t rpn, uint32_t offset, uint32_t n)
{
    if (memory->code_listener.written != NULL)
        memory->code_listener.written(memory->code_listener.ctx, rpn, offset, n);
}

/* One page of a write. Every change of guest memory that does not come from a mapping the guest holds goes
 * through here or through memory_update_entry: the place to note dirty pages, or to tell whoever depends on
 * the content. */
static void write_page(struct guest_memory *memory, uint8_t *hva, const uint8_t *from, size_t n,
                       bool may_write_rom)
{
    uint64_t offset = (uint64_t)(hva - memory->hva);
    uint32_t rpn = (uint32_t)(offset >> PAGE_SHIFT);
    uint8_t flags = memory->page_flags[rpn];

    if ((flags & PAGE_IS_ROM) && !may_write_rom)
        return;
    memcpy(hva, from, n);
    if (flags & PAGE_IS_CODE)
        tell_code_listener(memory, rpn, (uint32_t)(offset & PAGE_MASK), (uint32_t)n);
    if (flags & PAGE_IS_TABLE)
        shadow_table_written(memory, rpn, (uint32_t)(offset & PAGE_MASK), (uint32_t)n);
}

/* Pages that others depend on are cleared through the door, so that they are told. */
void memory_clear_ram(struct guest_memory *memory)
{
    static const uint8_t zeros[PAGE_SIZE];

    for (uint64_t at = 0; at < memory->ram_size; at += PAGE_SIZE)
        if (memory->page_flags[at >> PAGE_SHIFT] & (PAGE_IS_TABLE | PAGE_IS_CODE))
            write_page(memory, memory->hva + at, zeros, PAGE_SIZE, true);
    if (madvise(memory->hva, memory->ram_size, MADV_REMOVE) != 0)
        memset(memory->hva, 0, memory->ram_size); /* slower, and it keeps the pages */
    memory->filling.first = memory->filling.end = 0;
}

/* Measured for pages that the host has not given yet: 3.2 us each, one by one; 2.35 by 16 or more. */
void memory_will_fill(struct guest_memory *memory, uint32_t rpn)
{
    uint32_t n_pages = (uint32_t)(memory->ram_size >> PAGE_SHIFT);

    if (rpn == memory->filling.last)
        return;
    memory->filling.n_in_a_row = rpn == memory->filling.last + 1 ? memory->filling.n_in_a_row + 1 : 0;
    memory->filling.last = rpn;
    if (memory->filling.n_in_a_row < FILLED_IN_A_ROW || rpn >= n_pages ||
        (rpn >= memory->filling.first && rpn < memory->filling.end))
        return;
    memory->filling.first = rpn;
    memory->filling.end = n_pages - rpn < FILL_AHEAD ? n_pages : rpn + FILL_AHEAD;
    /* only a hint: kernels before 5.14 do not know it */
    (void)madvise(memory->hva + ((size_t)rpn << PAGE_SHIFT),
                  (size_t)(memory->filling.end - rpn) << PAGE_SHIFT, MADV_POPULATE_WRITE);
}

static bool write_bytes(struct guest_memory *memory, gpa_t gpa, const void *buf, size_t n, enum door door)
{
    const uint8_t *from = buf;
    size_t part;

    if (!is_backed(memory, gpa, n, door))
        return false;
    for (; n > 0; from += part, gpa += part, n -= part) {
        size_t to_page_end = PAGE_SIZE - (size_t)(gpa & PAGE_MASK);
        uint8_t *to = span(memory, gpa, n < to_page_end ? n : to_page_end, door, &part);

        BUG_ON(to == NULL);
        write_page(memory, to, from, part, door == DOOR_WRITE_ROM);
    }
    return true;
}

void memory_write_page(struct guest_memory *memory, uint32_t rpn, uint32_t offset, const void *buf, size_t n)
{
    BUG_ON(offset + n > PAGE_SIZE);
    write_page(memory, memory->hva + ((uint64_t)rpn << PAGE_SHIFT) + offset, buf, n, false);
}

bool memory_write(struct guest_memory *memory, gpa_t gpa, const void *buf, size_t n)
{
    return write_bytes(memory, gpa, buf, n, DOOR_WRITE);
}

bool memory_write_rom(struct guest_memory *memory, gpa_t gpa, const void *buf, size_t n)
{
    return write_bytes(memory, gpa, buf, n, DOOR_WRITE_ROM);
}

bool memory_update_entry(struct guest_memory *memory, gpa_t gpa, uint32_t old, uint32_t new)
{
    uint32_t rpn = memory_rpn(memory, gpa);

    BUG_ON((gpa & (sizeof old - 1)) != 0);
    if (rpn == RPN_NONE || (memory->page_flags[rpn] & PAGE_IS_ROM))
        return true;

    void *entry = memory->hva + ((uint64_t)rpn << PAGE_SHIFT) + (gpa & PAGE_MASK);

    if (!__atomic_compare_exchange_n((uint32_t *)entry, &old, new, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
        return false;
    if (memory->page_flags[rpn] & PAGE_IS_CODE)
        tell_code_listener(memory, rpn, (uint32_t)(gpa & PAGE_MASK), sizeof old);
    return true;
}
