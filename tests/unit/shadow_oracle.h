/*
 * The oracle of test_shadow_oracle.c: the machine of its random guest, a plain walk of that guest's page
 * tables, and the comparison of every mapping of the shadow, in every space, with it.
 */
#ifndef RING3_TESTS_SHADOW_ORACLE_H
#define RING3_TESTS_SHADOW_ORACLE_H

#include <stdarg.h>

#include "shadow_world.h"

#define RAM_SIZE  (UINT64_C(8) << 20)
#define ROM_SIZE  (UINT64_C(64) << 10)
#define ROM_FIRST ((UINT64_C(1) << 32) - ROM_SIZE)

/* ---- the machine --------------------------------------------------------------------------------------- */

static const gpa_t directory_gpa[] = {0x400000, 0x401000, 0x402000};
static const gpa_t table_gpa[] = {0x403000, 0x404000, 0x405000, 0x406000,
                                  0x5ff000, 0x9f000,  0x7ff000, 0xffff0000};
/* what the guest touches, by region of 4 MiB; one holds the window's hole and its wrap */
static const uint32_t touched_region[] = {0, 1, 2, 511, 768, 1019, 1023};

#define N(array) (sizeof(array) / sizeof((array)[0]))

static struct world world;
static unsigned run_number, step;
static uint64_t random_state;

static _Noreturn void fail_step(const char *format, ...) __attribute__((format(printf, 1, 2)));

static _Noreturn void fail_step(const char *format, ...)
{
    char what[200];
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(what, sizeof what, format, arguments);
    va_end(arguments);
    ck_abort_msg("ORACLE_RUN=%u, step %u: %s", run_number, step, what);
}

/* (libcheck notes the place of every assertion in a file: far too slow for those that hold) */
#define expect(condition, ...)                                                                               \
    do {                                                                                                     \
        if (!(condition))                                                                                    \
            fail_step(__VA_ARGS__);                                                                          \
    } while (0)

static uint32_t pick(uint32_t n) /* 0 to n - 1 */
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return (uint32_t)((random_state >> 32) * n >> 32);
}

static bool one_in(uint32_t n)
{
    return pick(n) == 0;
}

/* ---- the oracle ---------------------------------------------------------------------------------------- */

struct expected {
    bool is_present, is_reserved, is_large;
    bool user, write, execute, accessed, dirty;
    gpa_t gpa;
    gpa_t directory, table; /* of the leaf, if it is not large; UINT64_MAX: not even a directory */
};

static bool is_pae(void)
{
    return (world.vcpu.cr4 & CR4_PAE) != 0;
}

static unsigned entry_size(void)
{
    return is_pae() ? 8 : 4;
}

static uint32_t n_entries(void) /* of a table */
{
    return PAGE_SIZE / entry_size();
}

static unsigned directory_bits(void) /* of a linear address, below the directory's index */
{
    return is_pae() ? 21 : 22;
}

/* Where the byte is in the memfd; UINT64_MAX: nowhere. */
static uint64_t offset_of(gpa_t gpa)
{
    if (gpa > UINT32_MAX)
        return UINT64_MAX;
    if (gpa >= ROM_FIRST)
        return RAM_SIZE + (gpa - ROM_FIRST);
    return gpa >= RAM_SIZE || (gpa >= 0xa0000 && gpa < 0xc0000) ? UINT64_MAX : gpa;
}

static bool is_rom(gpa_t gpa)
{
    return (gpa >= ROM_FIRST && gpa <= UINT32_MAX) || (gpa >= 0xc0000 && gpa < 0x100000);
}

static uint32_t load(gpa_t gpa)
{
    uint64_t offset = offset_of(gpa);
    uint32_t value = UINT32_MAX;

    if (offset != UINT64_MAX)
        memcpy(&value, world.memory.hva + offset, sizeof value);
    return value;
}

static uint64_t load_entry(gpa_t gpa)
{
    return load(gpa) | (is_pae() ? (uint64_t)load(gpa + 4) << 32 : 0);
}

static bool has_reserved_bits(uint64_t entry, bool is_large)
{
    if (!is_pae())
        return is_large && (entry & 0x3fe000);
    if ((entry & PTE_NX) && !(world.vcpu.msr.efer & EFER_NXE))
        return true;
    return (entry & 0x7ffffff000000000) || (is_large && (entry & 0x1fe000));
}

static gpa_t frame_of(uint64_t entry)
{
    return entry & 0xffffff000;
}

static gpa_t directory_for(gva_t gva)
{
    uint64_t pdpte = world.vcpu.pdpte[gva >> 30];

    if (!is_pae())
        return frame_of(world.vcpu.cr3);
    return (pdpte & PTE_P) ? frame_of(pdpte) : UINT64_MAX;
}

static struct expected look_up(gva_t gva)
{
    struct expected e = {.user = true, .write = true, .execute = true, .accessed = true, .dirty = true};
    gva_t large_mask = (1u << directory_bits()) - 1;
    gpa_t at;

    if (!(world.vcpu.cr0 & CR0_PG)) {
        e.is_present = true;
        e.gpa = gva;
        return e;
    }
    e.directory = directory_for(gva);
    if (e.directory == UINT64_MAX)
        return e;
    at = e.directory + (gpa_t)(gva >> directory_bits()) % n_entries() * entry_size();

    uint64_t pde = load_entry(at);

    e.accessed = (pde & PTE_A) || is_rom(at);
    e.user = pde & PTE_U;
    e.write = pde & PTE_W;
    e.execute = !is_pae() || !(pde & PTE_NX);
    if (!(pde & PTE_P))
        return e;
    e.is_large = (pde & PTE_PS) && (is_pae() || (world.vcpu.cr4 & CR4_PSE));
    e.is_reserved = has_reserved_bits(pde, e.is_large);
    if (e.is_reserved || e.is_large) {
        e.is_present = !e.is_reserved;
        e.dirty = (pde & PTE_D) || is_rom(at);
        e.gpa = (frame_of(pde) & ~(gpa_t)large_mask) | (gva & large_mask);
        return e;
    }
    e.table = frame_of(pde);
    at = e.table + (gpa_t)(gva >> 12) % n_entries() * entry_size();

    uint64_t pte = load_entry(at);

    e.is_reserved = (pte & PTE_P) && has_reserved_bits(pte, false);
    e.is_present = (pte & PTE_P) && !e.is_reserved;
    e.accessed = e.accessed && ((pte & PTE_A) || is_rom(at));
    e.dirty = (pte & PTE_D) || is_rom(at);
    e.user = e.user && (pte & PTE_U);
    e.write = e.write && (pte & PTE_W);
    e.execute = e.execute && (!is_pae() || !(pte & PTE_NX));
    e.gpa = frame_of(pte) | (gva & PAGE_MASK);
    return e;
}

/* The error code of the #PF this access gets, or -1: none. */
static int expected_fault(gva_t gva, unsigned kind)
{
    struct expected e = look_up(gva);
    bool is_user = world.vcpu.cpl == 3, is_write = kind & ACCESS_WRITE, is_fetch = kind & ACCESS_FETCH;
    bool shows_fetch = is_fetch && is_pae() && (world.vcpu.msr.efer & EFER_NXE);
    int code = (is_write ? PF_WRITE : 0) | (is_user ? PF_USER : 0) | (int)(shows_fetch ? PF_FETCH : 0);

    if (e.is_reserved)
        return code | PF_PRESENT | PF_RESERVED;
    if (!e.is_present)
        return code;
    if (is_fetch && !e.execute)
        return code | PF_PRESENT;
    if (is_user ? !e.user || (is_write && !e.write) : is_write && !e.write && (world.vcpu.cr0 & CR0_WP))
        return code | PF_PRESENT;
    return -1;
}

/* ---- what the shadow told ------------------------------------------------------------------------------ */

/* By space and page: told of as filled, and not yet as dropped. */
static uint8_t was_told[WORLD_SPACES][1u << 20];

static void note_fill(unsigned space, gva_t first, uint32_t n_pages)
{
    memset(&was_told[space][first >> PAGE_SHIFT], 1, n_pages);
}

static void note_dropped(void *ctx, struct shadow *shadow, gva_t first, uint32_t n_pages)
{
    unsigned space = (unsigned)(uintptr_t)ctx;

    (void)shadow;
    for (uint32_t i = 0; i < n_pages; i++) {
        uint8_t *told = &was_told[space][(first >> PAGE_SHIFT) + i];

        expect(*told, "%08x of space %u: dropped, but not mapped", first + i * PAGE_SIZE, space);
        *told = 0;
    }
}

/* Pages with translations, and their content as their owner knows it. */
static struct code {
    uint32_t rpn; /* 0: none (page 0 is never one) */
    uint8_t bytes[PAGE_SIZE];
} code[6];

static const uint8_t *page_bytes(uint32_t rpn)
{
    return world.memory.hva + ((uint64_t)rpn << PAGE_SHIFT);
}

static struct code *find_code(uint32_t rpn)
{
    for (size_t i = 0; i < N(code); i++)
        if (rpn != 0 && code[i].rpn == rpn)
            return &code[i];
    return NULL;
}

static void note_written(void *ctx, uint32_t rpn, uint32_t offset, uint32_t n)
{
    struct code *written = find_code(rpn);

    (void)ctx;
    expect(written != NULL, "told of a write to page %x, which is no code", rpn);
    memcpy(written->bytes + offset, page_bytes(rpn) + offset, n);
}

static bool decide_store(void *ctx, uint32_t rpn, uint32_t offset)
{
    struct code *stored = find_code(rpn);

    (void)ctx;
    (void)offset;
    expect(stored != NULL, "asked about a store to page %x, which is no code", rpn);
    if (one_in(2))
        return false;
    stored->rpn = 0;
    return true;
}

static void check_code(void)
{
    for (size_t i = 0; i < N(code); i++)
        expect(code[i].rpn == 0 || memcmp(code[i].bytes, page_bytes(code[i].rpn), PAGE_SIZE) == 0,
               "page %x of code was written, and nobody told", code[i].rpn);
}

/* ---- checks after each step ---------------------------------------------------------------------------- */

static uint8_t is_used_table[(RAM_SIZE + ROM_SIZE) >> PAGE_SHIFT];

static void note_tables(gva_t gva)
{
    struct expected e = look_up(gva);

    if (!(world.vcpu.cr0 & CR0_PG))
        return;
    expect(offset_of(e.directory) != UINT64_MAX, "%08x: mapped by a directory in no memory", gva);
    is_used_table[offset_of(e.directory) >> PAGE_SHIFT] = 1;
    if (e.is_large)
        return;
    expect(offset_of(e.table) != UINT64_MAX, "%08x: mapped by a table in no memory", gva);
    is_used_table[offset_of(e.table) >> PAGE_SHIFT] = 1;
}

static void check_mapping(gva_t gva, const struct shadow_mapping *mapping)
{
    struct expected e = look_up(gva);
    bool is_override = mapping->write && !e.write;

    expect(e.is_present && e.accessed, "%08x: mapped, but P or A is clear", gva);
    expect(offset_of(e.gpa) >> PAGE_SHIFT == mapping->rpn, "%08x: mapped to %x", gva, mapping->rpn);
    expect(!mapping->user || e.user, "%08x: mapped for the user", gva);
    expect(!mapping->execute || e.execute, "%08x: executable, but NX is set", gva);
    expect(mapping->user || !world.config.is_user_only, "%08x: the supervisor's, in a window of the user's",
           gva);
    expect(mapping->user || world.vcpu.cpl != 3 || gva >= shadow_user_limit(world.shadow),
           "%08x: the supervisor's, in the user's view", gva);
    if (!mapping->write)
        return;
    expect(e.dirty, "%08x: writable, but D is clear", gva);
    expect(!is_override || (!mapping->user && !(world.vcpu.cr0 & CR0_WP)), "%08x: writable, but W is clear",
           gva);
    expect(!is_rom(e.gpa), "%08x: ROM is writable", gva);
    expect(!is_used_table[mapping->rpn], "%08x: the table %x is writable", gva, mapping->rpn);
    expect(find_code(mapping->rpn) == NULL, "%08x: the page of code %x is writable", gva, mapping->rpn);
}

/* What the host does at the page, in fact. */
static void check_host(gva_t gva)
{
    struct shadow_mapping mapping;
    uint32_t seen;
    uint32_t *where = world_pointer(&world, gva | (pick(1024) * 4));

    if (!shadow_find(world.shadow, gva, &mapping)) {
        expect(!world_touch(where, false, &seen), "%08x: readable, though nothing is mapped", gva);
        return;
    }

    const uint32_t *truth =
        (const uint32_t *)(const void *)(world.memory.hva + ((uint64_t)mapping.rpn << PAGE_SHIFT) +
                                         ((uintptr_t)where & PAGE_MASK));

    expect(world_touch(where, false, &seen), "%08x: not readable, though it is mapped", gva);
    expect(seen == *truth, "%08x: reads %08x, memory has %08x", gva, seen, *truth);
    expect(world_touch(where, true, &seen) == mapping.write, "%08x: %s", gva,
           mapping.write ? "cannot be written" : "can be written");
}

static uint64_t n_found;
static gva_t sample[4];

static void note_mapping(gva_t gva, const struct shadow_mapping *mapping)
{
    (void)mapping;
    note_tables(gva);
    if (pick((uint32_t)++n_found) < N(sample))
        sample[pick(N(sample))] = gva;
}

/* Each page of the space in use that the guest may have touched and that is mapped. */
static void for_each_mapping(void (*look)(gva_t gva, const struct shadow_mapping *mapping))
{
    struct shadow_mapping mapping;

    for (size_t i = 0; i < N(touched_region); i++)
        for (gva_t gva = touched_region[i] << 22, n = 0; n < 1024; n++, gva += PAGE_SIZE) {
            bool is_mapped = shadow_find(world.shadow, gva, &mapping);

            expect(is_mapped == was_told[world.current][gva >> PAGE_SHIFT], "%08x: %s, and nobody told", gva,
                   is_mapped ? "mapped" : "dropped");
            if (is_mapped)
                look(gva, &mapping);
        }
}

static void check_all_spaces(void (*check)(void))
{
    unsigned in_use = world.current;

    for (unsigned i = 0; i < world.n_spaces; i++) {
        world_use(&world, i);
        check();
    }
    world_use(&world, in_use);
}

static void find_tables(void)
{
    n_found = 0;
    for_each_mapping(note_mapping);
    expect(n_found == shadow_stats(world.shadow)->mappings, "%llu mappings found",
           (unsigned long long)n_found);
}

static void check_mappings(void)
{
    for_each_mapping(check_mapping);
}

static void check_world(void)
{
    char error[200] = "";

    memset(is_used_table, 0, sizeof is_used_table);
    check_all_spaces(find_tables);
    check_all_spaces(check_mappings);
    memset(sample, 0, sizeof sample);
    find_tables();
    for (size_t i = 0; i < N(sample); i++)
        if (sample[i] != 0)
            check_host(sample[i]);
    check_host(touched_region[pick(3)] << 22 | pick(1024) << 12);
    check_code();
    expect(shadow_check(world.shadow, &world.vcpu, step % 64 == 0, error, sizeof error), "%s", error);
}

#endif
