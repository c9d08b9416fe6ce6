/*
 * The shadow against an oracle: a random guest edits page tables, switches address spaces, toggles paging
 * bits and touches memory; after each step every mapping is compared with a plain walk of the guest's tables
 * (shadow_oracle.h), and so is what the host's loads and stores through the window really do. Half of the
 * runs have several spaces, of all kinds, half have PAE, and what is not in use is checked just the same;
 * pages become code, and what the shadow tells of fills, drops and writes to code must be all there is.
 *
 * Each run is named by one number, its configuration and seed: a failure prints it, and
 * ORACLE_RUN=<number> [ORACLE_STEPS=<n>] test_shadow_oracle repeats it alone. What the runs together have met
 * is counted by name; the last test fails if some name was never met.
 */
#include "shadow_oracle.h"

#define N_RUNS    32u
#define STEPS     800u
#define BIAS      0x01200000u
#define FEW_RUNS  96u /* host mappings, so that eviction happens */
#define BASIC_CR0 (CR0_PE | CR0_ET)

/* ---- what has been met --------------------------------------------------------------------------------- */

#define EVENTS(X)                                                                                            \
    X(FILL, "a fault filled")                                                                                \
    X(RUN, "a fill mapped several pages")                                                                    \
    X(READ_AHEAD, "a streak set A ahead")                                                                    \
    X(UPGRADE, "a read-only mapping became writable")                                                        \
    X(NOT_PRESENT, "a guest fault: not present")                                                             \
    X(FORBIDDEN, "a guest fault: rights")                                                                    \
    X(RESERVED, "a guest fault: reserved bits")                                                              \
    X(OVERRIDE, "a write with CR0.WP=0 to a read-only page")                                                 \
    X(WP_SET, "CR0.WP set while overrides were mapped")                                                      \
    X(LARGE, "a 4 MiB page was touched")                                                                     \
    X(UNPAGED, "memory was touched with paging off")                                                         \
    X(MMIO, "an address without memory was touched")                                                         \
    X(ROM_WRITE, "ROM was written")                                                                          \
    X(TABLE_BY_GUEST, "a traced table was written by the guest")                                             \
    X(TABLE_BY_DEVICE, "a traced table was written by a device")                                             \
    X(TABLE_DROP, "a table write dropped pages")                                                             \
    X(TABLE_KEEP, "a table write dropped nothing")                                                           \
    X(PROTECT, "mapped pages were write-protected")                                                          \
    X(SWITCH_KEEP, "a CR3 switch kept pages")                                                                \
    X(SWITCH_DROP, "a CR3 switch dropped pages")                                                             \
    X(SWITCH_SAME, "CR3 was written with its own value")                                                     \
    X(NO_DIRECTORY, "CR3 led to no memory")                                                                  \
    X(VIEW_DROP, "the user view dropped supervisor pages")                                                   \
    X(LIMIT_RAISED, "the user limit was raised")                                                             \
    X(LIMIT_LOWERED, "the user limit came down")                                                             \
    X(EVICTION, "mappings were evicted")                                                                     \
    X(RECURSIVE, "a directory was mapped as its own page table")                                             \
    X(HOLE, "the hole of the window was touched")                                                            \
    X(PAGE_DROPPED, "all mappings of a page were dropped on request")                                        \
    X(SPACE_CHANGED, "another space came into use")                                                          \
    X(SPACE_AT_REST_DROP, "a space not in use dropped pages for a table write")                              \
    X(SPACE_AT_REST_EVICTION, "a space not in use paid for a fill")                                          \
    X(CODE_PROTECTED, "a page became code")                                                                  \
    X(CODE_WRITTEN, "a page of code was written by a device")                                                \
    X(CODE_EMULATED, "a store of the guest to code was emulated")                                            \
    X(CODE_GIVEN_UP, "a store of the guest to code made it data")                                            \
    X(FAST, "an access needed no walk")                                                                      \
    X(PAE, "memory was touched under PAE")                                                                   \
    X(PAE_KEEP, "new PDPTEs kept pages")                                                                     \
    X(NO_EXECUTE, "a page was mapped that cannot be executed")                                               \
    X(FETCH, "a fetch filled")                                                                               \
    X(FETCH_FORBIDDEN, "a guest fault: a fetch from a page with NX")                                         \
    X(MODE_CHANGED, "PAE or NX was switched on or off")

enum event {
#define EVENT_NAME(name, text) EVENT_##name,
    EVENTS(EVENT_NAME)
#undef EVENT_NAME
        EVENT_COUNT
};

static const char *const event_text[EVENT_COUNT] = {
#define EVENT_TEXT(name, text) [EVENT_##name] = (text),
    EVENTS(EVENT_TEXT)
#undef EVENT_TEXT
};

/* by event, and after them the runs that passed; shared with the processes of the runs */
static uint64_t *met;
static bool may_use_pae; /* in this run */
static unsigned first_run = 0, end_run = N_RUNS, n_steps = STEPS;

static void meet(enum event event)
{
    met[event]++;
}

/* ---- steps --------------------------------------------------------------------------------------------- */

static uint64_t random_flags(void)
{
    uint64_t flags = 0;

    flags |= one_in(24) ? 0 : PTE_P;
    flags |= one_in(4) ? 0 : PTE_W;
    flags |= one_in(4) ? 0 : PTE_U;
    flags |= one_in(3) ? 0 : PTE_A;
    flags |= one_in(2) ? 0 : PTE_D;
    flags |= one_in(6) ? PTE_G : 0;
    if (is_pae()) {
        flags |= one_in(6) ? PTE_NX : 0;
        flags |= one_in(60) ? UINT64_C(1) << (33 + pick(30)) : 0; /* beyond 4 GiB, or reserved */
    }
    return flags;
}

static uint32_t random_frame(void)
{
    switch (pick(12)) {
    case 0:
        return (uint32_t)table_gpa[pick(N(table_gpa))];
    case 1:
        return (uint32_t)directory_gpa[pick(N(directory_gpa))];
    case 2:
        return 0xa0000 + pick(0x60) * PAGE_SIZE; /* VGA, and ROM */
    case 3:
        return one_in(2) ? (uint32_t)ROM_FIRST + pick(16) * PAGE_SIZE : 0xfee00000;
    case 4:
        return pick(0xa0) * PAGE_SIZE;
    case 5:
        return (uint32_t)RAM_SIZE + pick(4) * PAGE_SIZE - 2 * PAGE_SIZE;
    default:
        return 0x100000 + pick((RAM_SIZE >> PAGE_SHIFT) - 0x100) * PAGE_SIZE;
    }
}

static uint64_t random_pde(void)
{
    static const uint32_t large_frame[] = {0, 0, 0x400000, 0x400000, 0x600000, 0x800000, 0xffe00000};

    if (one_in(6))
        return (large_frame[pick(N(large_frame))] & (is_pae() ? UINT32_MAX : 0xffc00000)) | random_flags() |
               PTE_PS | (one_in(10) ? 1u << (13 + pick(9)) : 0);
    if (one_in(16))
        return random_frame() | random_flags();
    if (one_in(8))
        return (uint32_t)directory_gpa[pick(N(directory_gpa))] | random_flags();
    return (uint32_t)table_gpa[pick(N(table_gpa))] | random_flags() | (one_in(4) ? 0 : PTE_P | PTE_W | PTE_U);
}

/* Of one of the directories, at a region that is touched. */
static gpa_t random_directory_entry(void)
{
    gva_t gva = touched_region[pick(N(touched_region))] << 22 | pick(2) << 21;

    return directory_gpa[pick(N(directory_gpa))] +
           (gpa_t)(gva >> directory_bits()) % n_entries() * entry_size();
}

/* The mappings dropped, or with `is_eviction` evicted, in the spaces that are not in use. */
static uint64_t count_at_rest(bool is_eviction)
{
    uint64_t n = 0;

    for (unsigned i = 0; i < world.n_spaces; i++)
        if (i != world.current)
            n += is_eviction ? shadow_stats(world.space[i].shadow)->evictions
                             : shadow_stats(world.space[i].shadow)->drops;
    return n;
}

/* As a device, or the board where it is ROM. */
static void store(gpa_t gpa, const void *bytes, size_t n)
{
    const struct shadow_stats before = *shadow_stats(world.shadow);
    uint64_t at_rest = count_at_rest(false);

    if (is_rom(gpa))
        expect(memory_write_rom(&world.memory, gpa, bytes, n), "cannot write ROM");
    else
        expect(memory_write(&world.memory, gpa, bytes, n), "cannot write RAM");
    if (count_at_rest(false) != at_rest)
        meet(EVENT_SPACE_AT_REST_DROP);
    if (find_code((uint32_t)(offset_of(gpa) >> PAGE_SHIFT)) != NULL)
        meet(EVENT_CODE_WRITTEN);
    if (shadow_stats(world.shadow)->table_writes == before.table_writes)
        return;
    meet(EVENT_TABLE_BY_DEVICE);
    meet(shadow_stats(world.shadow)->drops == before.drops ? EVENT_TABLE_KEEP : EVENT_TABLE_DROP);
}

static void edit_directory_entry(void)
{
    uint64_t entry = random_pde();

    store(random_directory_entry(), &entry, entry_size());
}

/* A stretch of entries with frames that follow each other, in one write or entry by entry. */
static void edit_table(void)
{
    uint32_t first = pick(n_entries());
    uint32_t n = one_in(3) ? 1 : 1 + pick(120);
    uint64_t frame = random_frame(), flags = random_flags();
    gpa_t at = table_gpa[pick(N(table_gpa))] + (gpa_t)first * entry_size();
    uint8_t entry[128 * sizeof(uint64_t)];

    if (n > n_entries() - first)
        n = n_entries() - first;
    for (uint32_t i = 0; i < n; i++) {
        uint64_t made = frame + (uint64_t)i * PAGE_SIZE + (one_in(20) ? random_flags() : flags);

        memcpy(entry + (size_t)i * entry_size(), &made, entry_size());
    }
    if (one_in(2)) {
        store(at, entry, (size_t)n * entry_size());
        return;
    }
    for (uint32_t i = 0; i < n; i++)
        store(at + (gpa_t)i * entry_size(), entry + (size_t)i * entry_size(), entry_size());
}

/* One entry, a few bits: what an operating system does when it ages, protects or copies on write. */
static void edit_bits(void)
{
    static const uint64_t bit[] = {PTE_P,  PTE_W, PTE_U,    PTE_A,    PTE_D,  PTE_G,
                                   PTE_PS, 0x200, 1u << 13, 1u << 21, PTE_NX, UINT64_C(1) << 40};
    gpa_t at = one_in(3) ? random_directory_entry()
                         : table_gpa[pick(N(table_gpa))] + (gpa_t)pick(n_entries()) * entry_size();
    uint64_t entry = load_entry(at) ^ bit[pick(is_pae() ? N(bit) : N(bit) - 2)];

    if (one_in(4)) /* one byte of it */
        store(at, &entry, 1);
    else
        store(at, &entry, entry_size());
}

/* As the CPU loads them: some lead nowhere, some to the same directory. */
static void random_pdptes(void)
{
    for (unsigned i = 0; i < 4; i++) {
        if (one_in(3))
            continue;
        world.vcpu.pdpte[i] = directory_gpa[pick(N(directory_gpa))] | PTE_P;
        if (one_in(16))
            world.vcpu.pdpte[i] = one_in(2) ? UINT64_C(0x100400001) : 0xa0001;
        if (one_in(16))
            world.vcpu.pdpte[i] &= ~(uint64_t)PTE_P;
    }
}

static void switch_directory(void)
{
    const struct shadow_stats before = *shadow_stats(world.shadow);
    uint32_t cr3 = (uint32_t)directory_gpa[pick(N(directory_gpa))];

    if (is_pae())
        random_pdptes();
    else if (one_in(30))
        cr3 = one_in(2) ? 0xa0000 : (uint32_t)RAM_SIZE;
    world_set_registers(&world, world.vcpu.cr0, cr3, world.vcpu.cr4);
    if (!is_pae() && offset_of(cr3) == UINT64_MAX)
        meet(EVENT_NO_DIRECTORY);
    if (is_pae() && shadow_stats(world.shadow)->mappings != 0)
        meet(EVENT_PAE_KEEP);
    if (shadow_stats(world.shadow)->drops != before.drops)
        meet(EVENT_SWITCH_DROP);
    if (shadow_stats(world.shadow)->mappings != 0)
        meet(EVENT_SWITCH_KEEP);
}

/* Two address spaces that share regions, as every kernel makes them. */
static void copy_directory_entries(void)
{
    gpa_t from = directory_gpa[pick(N(directory_gpa))], to = directory_gpa[pick(N(directory_gpa))];

    for (size_t i = 0; i < N(touched_region); i++) {
        gpa_t offset = (gpa_t)(touched_region[i] << 22 >> directory_bits()) % n_entries() * entry_size();
        uint64_t entry = load_entry(from + offset);

        if (!one_in(4))
            store(to + offset, &entry, entry_size());
    }
}

static void reload_cr3(void)
{
    uint64_t before = shadow_stats(world.shadow)->drops;

    world_set_registers(&world, world.vcpu.cr0, world.vcpu.cr3, world.vcpu.cr4);
    expect(shadow_stats(world.shadow)->drops == before, "CR3 kept its value, and pages were dropped");
    meet(EVENT_SWITCH_SAME);
}

static void toggle_registers(void)
{
    uint32_t cr0 = world.vcpu.cr0, cr4 = world.vcpu.cr4;

    if (world.vcpu.cpl == 3)
        return; /* privileged */
    if (may_use_pae && one_in(4)) {
        world.vcpu.msr.efer ^= EFER_NXE;
        if (one_in(6))
            cr4 ^= CR4_PAE;
        meet(EVENT_MODE_CHANGED);
    }
    switch (pick(8)) {
    case 0:
        cr4 ^= CR4_PSE;
        break;
    case 1:
    case 2:
        cr4 ^= CR4_PGE;
        break;
    case 3:
        cr0 ^= CR0_PG;
        break;
    default:
        cr0 ^= CR0_WP;
        break;
    }

    uint64_t before = shadow_stats(world.shadow)->drops;

    world_set_registers(&world, cr0, world.vcpu.cr3, cr4);
    if (!may_use_pae && (cr0 & CR0_WP) && !((cr0 ^ world.vcpu.cr0) & CR0_PG) &&
        shadow_stats(world.shadow)->drops != before)
        meet(EVENT_WP_SET);
}

static void change_privilege(void)
{
    uint64_t before = shadow_stats(world.shadow)->drops;

    if (world.config.has_own_view)
        return;
    world_set_cpl(&world, world.vcpu.cpl == 3 ? 0 : 3);
    if (shadow_stats(world.shadow)->drops != before)
        meet(EVENT_VIEW_DROP);
}

static void drop_some_page(void)
{
    struct expected e = look_up(touched_region[pick(N(touched_region))] << 22 | pick(1024) << 12);
    uint64_t before = shadow_stats(world.shadow)->drops;
    struct shadow_mapping mapping;

    if (!e.is_present || offset_of(e.gpa) == UINT64_MAX)
        return;
    shadow_drop_page(world.shadow, (uint32_t)(offset_of(e.gpa) >> PAGE_SHIFT));
    if (shadow_stats(world.shadow)->drops != before)
        meet(EVENT_PAGE_DROPPED);
    for (size_t i = 0; i < N(touched_region); i++)
        for (gva_t gva = touched_region[i] << 22, n = 0; n < 1024; n++, gva += PAGE_SIZE)
            expect(!shadow_find(world.shadow, gva, &mapping) || mapping.rpn != offset_of(e.gpa) >> PAGE_SHIFT,
                   "%08x: still mapped", gva);
}

/* Another space comes into use: for the registers it was made for, or for those of now. */
static void change_space(void)
{
    const struct vcpu before = world.vcpu;

    if (world.n_spaces == 1)
        return;
    world_use(&world, pick(world.n_spaces));
    if (one_in(2)) {
        world.vcpu.msr.efer = before.msr.efer;
        memcpy(world.vcpu.pdpte, before.pdpte, sizeof before.pdpte);
        world_set_registers(&world, before.cr0, before.cr3, before.cr4);
    } else
        shadow_note_use(world.shadow);
    meet(EVENT_SPACE_CHANGED);
}

static void note_access(gva_t gva, bool is_write, const struct expected *e, const struct shadow_stats *before)
{
    const struct shadow_stats *after = shadow_stats(world.shadow);
    bool is_hole = world.config.window.hole_first <= gva && gva <= world.config.window.hole_last;

    if (after->fills != before->fills)
        meet(EVENT_FILL);
    if (after->pages_filled > before->pages_filled + 1)
        meet(EVENT_RUN);
    if (after->evictions != before->evictions)
        meet(EVENT_EVICTION);
    if (!(world.vcpu.cr0 & CR0_PG))
        meet(EVENT_UNPAGED);
    if (e->is_large)
        meet(EVENT_LARGE);
    if (offset_of(e->gpa) == UINT64_MAX)
        meet(EVENT_MMIO);
    if (is_write && is_rom(e->gpa))
        meet(EVENT_ROM_WRITE);
    if (is_write && !e->write)
        meet(EVENT_OVERRIDE);
    if (after->table_writes != before->table_writes)
        meet(EVENT_TABLE_BY_GUEST);
    if (is_hole)
        meet(EVENT_HOLE);
    if (!e->is_large && (world.vcpu.cr0 & CR0_PG) && e->table == e->directory)
        meet(EVENT_RECURSIVE);
    if ((world.vcpu.cr0 & CR0_PG) && is_pae()) {
        meet(EVENT_PAE);
        if (!e->execute)
            meet(EVENT_NO_EXECUTE);
    }
}

/* What the fast lookup promises, against the oracle. */
static void check_fast(gva_t gva, bool is_write, const struct expected *e, int code_of_fault)
{
    unsigned kind = (is_write ? ACCESS_WRITE : ACCESS_READ) | (world.vcpu.cpl == 3 ? ACCESS_USER : 0);
    const uint8_t *found = shadow_fast(world.shadow, &world.vcpu, gva, kind);
    struct shadow_mapping mapping;

    if (found == NULL) {
        expect(!shadow_find(world.shadow, gva, &mapping) || (is_write && !mapping.write) ||
                   (world.vcpu.cpl == 3 && !mapping.user),
               "%08x: mapped, but a walk is needed", gva);
        return;
    }
    meet(EVENT_FAST);
    expect(code_of_fault < 0 && found == world.memory.hva + offset_of(e->gpa), "%08x: found where it is not",
           gva);
    expect(e->accessed && (!is_write || (e->dirty && !is_rom(e->gpa))), "%08x: the walk is needed", gva);
}

/* The guest touches a word, and gets what the oracle says: the value, or the fault. */
static void touch(gva_t gva, bool is_write)
{
    const struct shadow_stats before = *shadow_stats(world.shadow);
    uint64_t limit = shadow_user_limit(world.shadow);
    int code = expected_fault(gva, is_write ? ACCESS_WRITE : ACCESS_READ);
    struct expected e = look_up(gva);
    uint32_t value = (uint32_t)(one_in(3) ? random_pde() : random_frame() | random_flags());
    uint32_t truth = load(e.gpa), old;
    struct shadow_mapping mapping;
    bool was_mapped = shadow_find(world.shadow, gva, &mapping);
    uint64_t at_rest = count_at_rest(true);
    bool was_code = find_code((uint32_t)(offset_of(e.gpa) >> PAGE_SHIFT)) != NULL;
    struct fault fault;

    check_fast(gva, is_write, &e, code);
    if (world.vcpu.cpl == 3 && gva >= limit) { /* the engine's segments catch it, not the window */
        if (code >= 0)
            return;
        shadow_raise_user_limit(world.shadow, gva);
        expect(gva < shadow_user_limit(world.shadow), "%08x: the limit was not raised above it", gva);
        meet(EVENT_LIMIT_RAISED);
    }
    old = truth;
    if (!is_write)
        value = ~truth;

    bool is_done = world_access(&world, gva, is_write, &value, &fault);

    if (!is_done) {
        expect(code >= 0, "%08x: #PF %x where none should be", gva, fault.error);
        expect(fault.error == (uint32_t)code, "%08x: error code %x, not %x", gva, fault.error,
               (unsigned)code);
        expect(fault.cr2 == gva, "%08x: CR2 is %08x", gva, fault.cr2);
        meet((code & PF_RESERVED)  ? EVENT_RESERVED
             : (code & PF_PRESENT) ? EVENT_FORBIDDEN
                                   : EVENT_NOT_PRESENT);
        return;
    }
    expect(code < 0, "%08x: no #PF where %x should be", gva, (unsigned)code);
    if (was_mapped && !mapping.write && is_write && shadow_find(world.shadow, gva, &mapping) && mapping.write)
        meet(EVENT_UPGRADE);
    if (shadow_user_limit(world.shadow) < limit)
        meet(EVENT_LIMIT_LOWERED);
    note_access(gva, is_write, &e, &before);
    if (count_at_rest(true) != at_rest)
        meet(EVENT_SPACE_AT_REST_EVICTION);
    if (is_write && was_code)
        meet(find_code((uint32_t)(offset_of(e.gpa) >> PAGE_SHIFT)) != NULL ? EVENT_CODE_EMULATED
                                                                           : EVENT_CODE_GIVEN_UP);
    /* the walk may have set A or D in the very word */
    if (!is_write)
        expect(((value ^ truth) & ~(PTE_A | PTE_D)) == 0, "%08x: reads %08x, not %08x", gva, value, truth);
    else if (is_rom(e.gpa) || offset_of(e.gpa) == UINT64_MAX)
        expect(((load(e.gpa) ^ old) & ~(PTE_A | PTE_D)) == 0, "%08x: ROM was written", gva);
    else
        expect(load(e.gpa) == value, "%08x: %08x was written, memory has %08x", gva, value, load(e.gpa));
    if (is_write)
        return; /* it may have changed the tables */
    e = look_up(gva);
    expect(e.accessed, "%08x: read, but A is clear", gva);
}

static gva_t random_gva(void)
{
    static gva_t last;

    if (one_in(2)) /* near the last one */
        last += pick(8) * PAGE_SIZE;
    else
        last = touched_region[pick(N(touched_region))] << 22 | pick(1024) << 12;
    for (size_t i = 0; i < N(touched_region); i++)
        if (last >> 22 == touched_region[i])
            return last | pick(1024) * 4;
    return last = pick(1024) << 12;
}

/* Reads page after page, as a copy or a checksum does. */
static void march(void)
{
    gva_t gva = random_gva() & ~PAGE_MASK;
    uint32_t n = 4 + pick(20);

    for (uint32_t i = 0; i < n && (gva + i * PAGE_SIZE) >> 22 == gva >> 22; i++) {
        struct expected ahead = look_up(gva + (i + 1) * PAGE_SIZE);

        if (world.vcpu.cpl == 3 && gva + i * PAGE_SIZE >= shadow_user_limit(world.shadow))
            return;
        if (expected_fault(gva + i * PAGE_SIZE, ACCESS_READ) >= 0)
            return;
        touch(gva + i * PAGE_SIZE, false);
        if (ahead.is_present && !ahead.accessed && look_up(gva + (i + 1) * PAGE_SIZE).accessed)
            meet(EVENT_READ_AHEAD);
    }
}

/* A page that was touched lately, or one of tables: translations of it are made, in the place of others, and
 * perhaps the guest stores to it. */
static void protect_code(void)
{
    struct code *place = &code[pick(N(code))];
    uint32_t rpn = (uint32_t)(table_gpa[pick(N(table_gpa) - 1)] >> PAGE_SHIFT);
    struct shadow_mapping mapping;
    gva_t gva = random_gva();

    for (unsigned tries = 0; tries < 64; tries++, gva = random_gva())
        if (shadow_find(world.shadow, gva, &mapping) && (mapping.write || one_in(8))) {
            rpn = mapping.rpn;
            break;
        }
    if (place->rpn != 0)
        shadow_forget_code(&world.memory, place->rpn);
    place->rpn = 0;
    if (rpn == 0 || find_code(rpn) != NULL)
        return;
    place->rpn = rpn;
    memcpy(place->bytes, page_bytes(rpn), PAGE_SIZE);
    shadow_protect_code(&world.memory, rpn);
    meet(EVENT_CODE_PROTECTED);
    if (one_in(2))
        touch(gva, true);
}

static void invalidate(void)
{
    shadow_invlpg(world.shadow, random_gva());
}

static void touch_somewhere(void)
{
    for (unsigned n = 1 + pick(16); n > 0; n--)
        touch(random_gva(), one_in(2));
}

/* The guest runs code there, as far as the shadow is concerned. */
static void fetch(void)
{
    gva_t gva = random_gva();
    int code = expected_fault(gva, ACCESS_FETCH);
    struct shadow_mapping mapping;
    struct fault fault;

    if (world.vcpu.cpl == 3 && gva >= shadow_user_limit(world.shadow))
        return;
    switch (shadow_fault(world.shadow, &world.vcpu, gva, PF_FETCH, &fault)) {
    case SHADOW_GUEST:
        expect(code >= 0 && fault.error == (uint32_t)code, "%08x: #PF %x, not %x", gva, fault.error,
               (unsigned)code);
        if (code & PF_FETCH && code & PF_PRESENT && !(code & PF_RESERVED) && !look_up(gva).execute)
            meet(EVENT_FETCH_FORBIDDEN);
        break;
    case SHADOW_FILLED:
        expect(code < 0, "%08x: no #PF where %x should be", gva, (unsigned)code);
        if (shadow_find(world.shadow, gva, &mapping)) { /* else there was no room: it faults again */
            expect(mapping.execute, "%08x: filled, but cannot be executed", gva);
            meet(EVENT_FETCH);
        }
        break;
    default:
        expect(code < 0, "%08x: no #PF where %x should be", gva, (unsigned)code);
    }
}

static void leave_unpaged_mode(void)
{
    if (!(world.vcpu.cr0 & CR0_PG) && world.vcpu.cpl != 3)
        world_set_registers(&world, world.vcpu.cr0 | CR0_PG, world.vcpu.cr3, world.vcpu.cr4);
}

static const struct {
    void (*take)(void);
    unsigned weight;
} steps[] = {
    {touch_somewhere, 90},     {march, 12},
    {edit_table, 14},          {edit_bits, 24},
    {edit_directory_entry, 3}, {copy_directory_entries, 4},
    {switch_directory, 6},     {reload_cr3, 3},
    {toggle_registers, 4},     {leave_unpaged_mode, 20},
    {change_privilege, 12},    {drop_some_page, 3},
    {invalidate, 4},           {change_space, 12},
    {protect_code, 6},         {fetch, 16},
};

static void take_step(void)
{
    unsigned total = 0, chosen;

    for (size_t i = 0; i < N(steps); i++)
        total += steps[i].weight;
    chosen = pick(total);
    for (size_t i = 0; i < N(steps); chosen -= steps[i].weight, i++)
        if (chosen < steps[i].weight) {
            steps[i].take();
            return;
        }
}

static void observe(void *ctx, enum shadow_change change, gva_t first, uint32_t n_pages)
{
    expect(n_pages > 0, "a change of no pages");
    if (change == SHADOW_CHANGE_FILL)
        note_fill((unsigned)(uintptr_t)ctx, first, n_pages);
    if (change == SHADOW_CHANGE_PROTECT)
        meet(EVENT_PROTECT);
}

/* Space `index` is made anew, so that what it tells is noted as its own. */
static void listen_to(unsigned index)
{
    struct world_space *space = &world.space[index];

    shadow_destroy(space->shadow);
    space->config.observe = observe;
    space->config.dropped = note_dropped;
    space->config.observe_ctx = space->config.dropped_ctx = (void *)(uintptr_t)index;
    space->shadow = shadow_create(&space->config, (char[1]){0}, 1);
    expect(space->shadow != NULL, "no space");
}

static void open_spaces(bool are_many)
{
    if (are_many) {
        world_add_space(&world, false, false);
        world_add_space(&world, true, false);
        world_add_space(&world, false, true);
    }
    for (unsigned i = 1; i < world.n_spaces; i++)
        listen_to(i);
    world.space[0].shadow = world.shadow;
    world.space[0].config = world.config;
    listen_to(0);
    world.shadow = world.space[0].shadow;
    world.config = world.space[0].config;
    world.memory.code_listener =
        (struct memory_code_listener){.written = note_written, .store = decide_store};
}

static void run_oracle(unsigned number)
{
    run_number = number;
    random_state = (number + 1) * UINT64_C(0x9e3779b97f4a7c15);
    may_use_pae = (number & 16) != 0;
    world_open(&world, RAM_SIZE, ROM_SIZE, (number & 1) ? BIAS : 0, (number & 2) != 0,
               (number & 4) ? FEW_RUNS : 0);
    open_spaces((number & 8) != 0);
    for (uint64_t i = 0; i < world.memory.size / 4; i++)
        ((uint32_t *)(void *)world.memory.hva)[i] = (uint32_t)i * 2654435761u & ~PTE_P;
    if (may_use_pae)
        world.vcpu.cr4 = CR4_PAE;
    for (step = 0; step < 60; step++) {
        edit_table();
        edit_directory_entry();
    }
    for (unsigned i = 0; i < 4; i++)
        world.vcpu.pdpte[i] = directory_gpa[0] | PTE_P;
    world.vcpu.msr.efer = may_use_pae ? EFER_NXE : 0;
    world_set_registers(&world, BASIC_CR0 | CR0_PG | CR0_WP, (uint32_t)directory_gpa[0],
                        CR4_PSE | CR4_PGE | (may_use_pae ? CR4_PAE : 0));
    for (step = 0; step < n_steps; step++) {
        take_step();
        check_world();
    }
    world_close(&world);
}

START_TEST(shadow_agrees_with_the_oracle)
{
    run_oracle((unsigned)_i);
    met[EVENT_COUNT]++;
}
END_TEST

START_TEST(everything_was_met)
{
    if (met[EVENT_COUNT] != N_RUNS)
        return; /* some runs were not asked for, or failed and say so themselves */
    for (unsigned i = 0; i < EVENT_COUNT; i++)
        ck_assert_msg(met[i] != 0, "never met: %s", event_text[i]);
}
END_TEST

static Suite *oracle_suite(void)
{
    Suite *suite = suite_create("shadow_oracle");
    TCase *runs = tcase_create("runs");
    TCase *coverage = tcase_create("coverage");

    tcase_set_timeout(runs, 60);
    tcase_add_loop_test(runs, shadow_agrees_with_the_oracle, (int)first_run, (int)end_run);
    suite_add_tcase(suite, runs);
    tcase_add_test(coverage, everything_was_met);
    suite_add_tcase(suite, coverage);
    return suite;
}

int main(void)
{
    const char *only = getenv("ORACLE_RUN"), *steps_wanted = getenv("ORACLE_STEPS");
    SRunner *runner;
    int failed;

    if (only != NULL) {
        first_run = (unsigned)strtoul(only, NULL, 10);
        end_run = first_run + 1;
    }
    if (steps_wanted != NULL)
        n_steps = (unsigned)strtoul(steps_wanted, NULL, 10);
    met = mmap(NULL, (EVENT_COUNT + 1) * sizeof *met, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
               0);
    runner = srunner_create(oracle_suite());
    srunner_run_all(runner, CK_NORMAL);
    if (getenv("CK_VERBOSITY") != NULL)
        for (unsigned i = 0; i < EVENT_COUNT; i++)
            printf("%8llu %s\n", (unsigned long long)met[i], event_text[i]);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
