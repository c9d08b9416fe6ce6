/*
 * What the host sees of the shadow: how many mappings it needs, that the window stays reserved, where it
 * wraps, write protection by userfaultfd and by mprotect, a host that runs out of mappings; and that the
 * invariant check sees what is wrong.
 */
#include "shadow_paged.h"

#include <inttypes.h>
#include <unistd.h>

#define WINDOW_END (world.config.window.base + WORLD_WINDOW_SIZE)

/* The process's mappings, as the kernel lists them. */
struct maps {
    unsigned n_all;      /* in the whole process */
    unsigned n_memory;   /* of guest memory in the window */
    uint64_t n_reserved; /* bytes of the window that are mapped somehow */
};

static struct maps read_maps(void)
{
    FILE *file = fopen("/proc/self/maps", "re");
    struct maps maps = {0};
    char line[512];

    ck_assert_ptr_nonnull(file);
    while (fgets(line, sizeof line, file) != NULL) {
        uint64_t first, end;

        maps.n_all++;
        ck_assert_int_eq(sscanf(line, "%" SCNx64 "-%" SCNx64, &first, &end), 2);
        if (end <= world.config.window.base || first >= WINDOW_END)
            continue;
        if (first < world.config.window.base)
            first = world.config.window.base;
        maps.n_reserved += (end < WINDOW_END ? end : WINDOW_END) - first;
        maps.n_memory += strstr(line, "guest-memory") != NULL;
    }
    fclose(file);
    return maps;
}

static void reopen(bool use_userfaultfd, unsigned max_runs)
{
    char error[200] = "";

    shadow_destroy(world.shadow);
    world.config.use_userfaultfd = use_userfaultfd;
    world.config.max_runs = max_runs;
    world.shadow = shadow_create(&world.config, error, sizeof error);
    ck_assert_msg(world.shadow != NULL, "%s", error);
    world_set_registers(&world, PAGED, DIRECTORY, CR4_PSE);
}

/* Region 1 as frames that never follow each other. */
static void scatter(void)
{
    for (uint32_t i = 0; i < 1024; i++)
        *entry(TABLE, i << 12) = (DATA + (i ^ 1) * PAGE_SIZE) | SEEN;
}

/* ---- the window ---------------------------------------------------------------------------------------- */

START_TEST(the_window_stays_reserved)
{
    ck_assert_uint_eq(read_maps().n_reserved, WORLD_WINDOW_SIZE);
    for (uint32_t i = 0; i < 1024; i += 3)
        ck_assert(world_read(&world, GVA + i * PAGE_SIZE, &value));
    for (uint32_t i = 0; i < 1024; i += 5)
        set_pte(GVA + i * PAGE_SIZE, 0);
    ck_assert_uint_eq(read_maps().n_reserved, WORLD_WINDOW_SIZE);
    shadow_drop_all(world.shadow);
    ck_assert_uint_eq(read_maps().n_reserved, WORLD_WINDOW_SIZE);
    ck_assert_uint_eq(read_maps().n_memory, 0);
}
END_TEST

/* Where nobody else maps anything. */
static void open_window(void)
{
    void *window = mmap((void *)UINT64_C(0x280000000000), WORLD_WINDOW_SIZE, PROT_NONE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);

    ck_assert_ptr_eq(window, (void *)UINT64_C(0x280000000000));
    munmap(window, WORLD_WINDOW_SIZE);
    munmap((void *)world.config.window.base, WORLD_WINDOW_SIZE);
    world.config.window.base = (uintptr_t)window;
    world.config.window.is_open = true;
}

START_TEST(an_open_window_has_what_is_mapped_and_no_more)
{
    open_window();
    reopen(_i == 0, 0);
    for (uint32_t i = 0; i < 1024; i += 3)
        ck_assert(world_read(&world, GVA + i * PAGE_SIZE, &value));
    ck_assert_uint_eq(read_maps().n_reserved, stats().mappings * PAGE_SIZE);
    for (uint32_t i = 0; i < 1024; i += 300)
        set_pte(GVA + i * PAGE_SIZE, 0);
    world_check(&world, true);
    ck_assert_uint_eq(read_maps().n_reserved, stats().mappings * PAGE_SIZE);
    ck_assert_uint_gt(stats().mappings, 0);
    shadow_drop_all(world.shadow);
    ck_assert_uint_le(read_maps().n_reserved, 2 * PAGE_SIZE); /* anchors */
    ck_assert(world_read(&world, GVA + PAGE_SIZE, &value));
    reopen(_i == 0, 0);
    ck_assert_uint_eq(read_maps().n_reserved, 0);
}
END_TEST

static uint64_t n_anchors(void)
{
    return read_maps().n_reserved / PAGE_SIZE - stats().mappings;
}

/* A chunk of 2 MiB keeps one page when the last one goes, so that the host keeps its page table. */
START_TEST(an_anchor_for_each_chunk_that_was_used)
{
    const uint32_t chunk = 512 * PAGE_SIZE;

    open_window();
    reopen(_i == 0, 0);
    for (uint32_t i = 0; i < 1024; i++)
        *entry(TABLE, i << 12) = 0;
    for (uint32_t round = 0; round < 3; round++) {
        for (uint32_t i = 0; i < 5; i++) { /* two pages in turn, and one in the other half of the region */
            set_pte(GVA + i % 2 * PAGE_SIZE, DATA | SEEN);
            ck_assert(world_read(&world, GVA + i % 2 * PAGE_SIZE, &value));
            set_pte(GVA + i % 2 * PAGE_SIZE, 0);
            ck_assert(!world_read(&world, GVA + i % 2 * PAGE_SIZE, &value));
            ck_assert_uint_eq(n_anchors(), round == 0 ? 1 : 2);
        }
        set_pte(GVA + chunk, DATA | SEEN);
        ck_assert(world_read(&world, GVA + chunk, &value));
        ck_assert_uint_eq(n_anchors(), round == 0 ? 1 : 2);
        set_pte(GVA + chunk, 0);
        ck_assert_uint_eq(n_anchors(), 2);
        world_check(&world, true);
    }
    set_pte(GVA + chunk - PAGE_SIZE, DATA | SEEN); /* where the first one's is, as it happens */
    ck_assert(world_read(&world, GVA + chunk - PAGE_SIZE, &value));
    ck_assert_uint_eq(n_anchors(), 1);
    set_pte(GVA + chunk - PAGE_SIZE, 0);
    ck_assert_uint_eq(n_anchors(), 2);
    world_check(&world, true);
}
END_TEST

START_TEST(contiguous_pages_share_one_mapping)
{
    for (uint32_t i = 0; i < 2048; i++)
        ck_assert(world_read(&world, GVA + i * PAGE_SIZE, &value));
    ck_assert_uint_eq(read_maps().n_memory, 1);
    ck_assert_uint_eq(stats().mappings, 2048);
}
END_TEST

/* With a bias that is no multiple of a region and no hole, a region lies partly at the window's end and
 * partly at its beginning. */
START_TEST(runs_are_cut_where_the_window_wraps)
{
    const uint32_t at = 100; /* the page of region 1 that lives at the window's first address */

    close_paged();
    open_paged();
    world.config.window.bias = -(GVA + at * PAGE_SIZE);
    reopen(true, 0);
    for (uint32_t i = 90; i < 110; i++) {
        shadow_drop_all(world.shadow);
        ck_assert(world_read(&world, GVA + i * PAGE_SIZE, &value));
        ck_assert_uint_eq(value, i);
        ck_assert_int_eq(is_mapped(GVA + 99 * PAGE_SIZE), i < at);
        ck_assert_int_eq(is_mapped(GVA + 100 * PAGE_SIZE), i >= at);
        world_check(&world, true);
    }
    for (uint32_t i = 0; i < 1024; i++)
        ck_assert(world_read(&world, GVA + i * PAGE_SIZE, &value) && value == i);
    set(DIRECTORY, 1, 0); /* a drop across the wrap */
    ck_assert_uint_eq(read_maps().n_memory, 0);
}
END_TEST

START_TEST(the_hole_is_known)
{
    struct fault fault;

    world.config.window.hole_first = GVA + 0x10000;
    world.config.window.hole_last = GVA + 0x1ffff;
    reopen(true, 0);
    ck_assert_int_eq(shadow_fault(world.shadow, &world.vcpu, GVA + 0x10000, 0, &fault), SHADOW_HOLE);
    ck_assert_int_eq(shadow_fault(world.shadow, &world.vcpu, GVA + 0x1ffff, PF_WRITE, &fault), SHADOW_HOLE);
    ck_assert(world_read(&world, GVA + 0xf000, &value));
    ck_assert(world_read(&world, GVA + 0x20000, &value));
    ck_assert(is_mapped(GVA + 0xf000) && !is_mapped(GVA + 0x10000));
    ck_assert(!is_mapped(GVA + 0x1f000) && is_mapped(GVA + 0x20000));
    set_pte(GVA + 0x10000, 0); /* and the guest's tables go first there, too */
    ck_assert_int_eq(shadow_fault(world.shadow, &world.vcpu, GVA + 0x10000, 0, &fault), SHADOW_GUEST);
}
END_TEST

/* Moving the window by 64 MiB within the same reservation, and its hole with it. */
START_TEST(the_window_moves)
{
    struct shadow_window window = world.config.window;

    ck_assert(world_read(&world, GVA + 0x10000, &value));
    ck_assert(is_mapped(GVA + 0x10000));
    window.bias += 0x4000000;
    window.hole_first = GVA + 0x20000;
    window.hole_last = GVA + 0x2ffff;
    shadow_move_window(world.shadow, &window);
    world.config.window = window;
    ck_assert(!is_mapped(GVA + 0x10000));
    ck_assert_uint_eq(read_maps().n_memory, 0);
    ck_assert(world_read(&world, GVA + 0x10000, &value));
    ck_assert_uint_eq(value, 16);
    ck_assert(is_mapped(GVA + 0x10000) && !is_mapped(GVA + 0x20000));
    world_check(&world, true);
}
END_TEST

/* ---- the bound ----------------------------------------------------------------------------------------- */

START_TEST(host_mappings_stay_within_their_bound)
{
    const unsigned bound = 200;

    reopen(false, bound);
    scatter();
    for (uint32_t i = 0; i < 1024; i++)
        *entry(TABLE_2, i << 12) = (DATA + (1024 + (i ^ 1)) * PAGE_SIZE) | SEEN;
    for (uint32_t i = 0; i < 4096; i++) {
        uint32_t page = i * 769 % 2048;

        ck_assert(world_read(&world, GVA + page * PAGE_SIZE, &value));
        ck_assert(is_mapped(GVA + page * PAGE_SIZE));
        if (i % 256 == 0) {
            ck_assert_uint_le(read_maps().n_memory, bound);
            world_check(&world, true);
        }
    }
    ck_assert_uint_gt(stats().evictions, 0);
    ck_assert_uint_le(stats().mappings, bound);
}
END_TEST

START_TEST(the_region_filled_longest_ago_goes_first)
{
    reopen(false, 200);
    scatter();
    ck_assert(world_read(&world, GVA_2 + 1024 * 2048, &value)); /* one long run... */
    for (uint32_t i = 0; i < 95; i++)
        ck_assert(world_read(&world, GVA + i * 2 * PAGE_SIZE, &value));
    ck_assert_uint_eq(stats().evictions, 0);
    for (uint32_t i = 0; i < 64; i++) /* ...and more short ones, in a third region */
        set(0x204000, i * 2, (DATA + i * 3 * PAGE_SIZE) | SEEN);
    set(DIRECTORY, 3, 0x204000 | SEEN);
    for (uint32_t i = 0; i < 64; i++)
        ck_assert(world_read(&world, 0x00c00000 + i * 2 * PAGE_SIZE, &value));
    ck_assert_uint_gt(stats().evictions, 0);
    ck_assert(!is_mapped(GVA) && is_mapped(0x00c00000));
}
END_TEST

#define EXHAUSTING_PAGES ((size_t)140000)

/* Takes mappings of the process until none is left, then gives `n` back. Until what it returns is unmapped
 * nobody may allocate, as a check does: a sanitizer that gets no memory ends the process. */
static uint8_t *exhaust_mappings(unsigned n)
{
    const size_t n_pages = EXHAUSTING_PAGES;
    uint8_t *pages =
        mmap(NULL, n_pages * PAGE_SIZE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    size_t i = 0;

    ck_assert_ptr_ne(pages, MAP_FAILED);
    while (i < n_pages && mprotect(pages + i * PAGE_SIZE, PAGE_SIZE, PROT_READ) == 0)
        i += 2;
    if (i >= n_pages)
        return pages; /* a host with a higher limit: the test then shows nothing, and passes */
    for (size_t last = i - 2; n >= 2; n -= 2, last -= 2)
        if (mprotect(pages + last * PAGE_SIZE, PAGE_SIZE, PROT_NONE) != 0)
            abort();
    return pages;
}

START_TEST(a_host_without_room_is_survived)
{
    uint8_t *taken;
    uint32_t n_right = 0;
    uint64_t n_drops;

    reopen(_i != 0, 0);
    scatter();
    taken = exhaust_mappings(40);
    for (uint32_t i = 0; i < 1024; i++) {
        n_right += world_read(&world, GVA + i * PAGE_SIZE, &value) && value == (i ^ 1);
        if (i % 7 == 0)
            set_pte(GVA + i * PAGE_SIZE, 0); /* dropping from the middle needs room as well */
    }
    n_drops = stats().drops;
    shadow_drop_all(world.shadow);
    munmap(taken, EXHAUSTING_PAGES * PAGE_SIZE);
    ck_assert_uint_eq(n_right, 1024);
    ck_assert_uint_gt(n_drops, 500);
}
END_TEST

/* ---- write protection ---------------------------------------------------------------------------------- */

/* Pages of one long writable mapping become page tables, one after the other, and are data again. */
static void make_tables_of(uint32_t n)
{
    ck_assert(world_write(&world, GVA, 0));
    for (uint32_t i = 0; i < n; i++) {
        set(DIRECTORY, 100 + i, (DATA + (i * 3 + 1) * PAGE_SIZE) | RIGHTS);
        *world_ram(&world, DATA + (i * 3 + 1) * PAGE_SIZE) = (DATA + 2000 * PAGE_SIZE) | SEEN;
        ck_assert(world_read(&world, (100 + i) << 22, &value));
    }
    for (uint32_t i = 0; i < n; i++)
        ck_assert(!is_writable(GVA + (i * 3 + 1) * PAGE_SIZE) && is_writable(GVA + i * 3 * PAGE_SIZE));
}

START_TEST(userfaultfd_protects_without_splitting)
{
    if (!shadow_uses_userfaultfd(world.shadow)) {
        printf("skipped: this host has no userfaultfd write protection\n");
        return;
    }
    for (uint32_t i = 0; i < 1024; i++)
        ck_assert(world_write(&world, GVA + i * PAGE_SIZE, 0));
    make_tables_of(40);
    ck_assert_uint_le(read_maps().n_memory, 1 + 40);
    world_check(&world, true);
}
END_TEST

START_TEST(mprotect_serves_as_well)
{
    reopen(false, 0);
    ck_assert(!shadow_uses_userfaultfd(world.shadow));
    for (uint32_t i = 0; i < 1024; i++)
        ck_assert(world_write(&world, GVA + i * PAGE_SIZE, 0));
    make_tables_of(40);
    ck_assert_uint_gt(read_maps().n_memory, 80);
    world_check(&world, true);
}
END_TEST

START_TEST(tables_become_data_again)
{
    reopen(_i != 0, 0);
    for (uint32_t i = 0; i < 1024; i++)
        ck_assert(world_write(&world, GVA + i * PAGE_SIZE, 0));
    make_tables_of(20);
    for (uint32_t i = 0; i < 20; i++) {
        ck_assert(
            world_write(&world, GVA + (i * 3 + 1) * PAGE_SIZE, 0)); /* the one entry that maps something */
        ck_assert_uint_eq(world.n_emulated, 1);
        ck_assert(!is_mapped((100 + i) << 22));
        ck_assert(world_write(&world, GVA + (i * 3 + 1) * PAGE_SIZE, 7));
        ck_assert_uint_eq(world.n_emulated, 0);
        ck_assert(is_writable(GVA + (i * 3 + 1) * PAGE_SIZE));
        world_check(&world, true);
    }
    ck_assert_uint_eq(read_maps().n_memory, 1);
}
END_TEST

/* A run that is mapped anew has lost its registration, and a fill can bring a traced page along. */
START_TEST(traced_pages_within_a_new_run_are_held_back)
{
    reopen(_i != 0, 0);
    for (uint32_t i = 0; i < 8; i++)
        set_pte(GVA_2 + i * PAGE_SIZE, (TABLE - 4 * PAGE_SIZE + i * PAGE_SIZE) | SEEN);
    for (unsigned round = 0; round < 3; round++) {
        for (uint32_t i = 0; i < 8; i++)
            ck_assert(world_read(&world, GVA_2 + i * PAGE_SIZE, &value));
        ck_assert(world_read(&world, GVA, &value));
        for (uint32_t i = 0; i < 8; i++) {
            bool is_table = i == 2 || i == 4 || i == 5; /* DIRECTORY, TABLE, TABLE_2 */

            ck_assert_int_eq(is_writable(GVA_2 + i * PAGE_SIZE), !is_table);
            value = *world_ram(&world, TABLE - 4 * PAGE_SIZE + i * PAGE_SIZE);
            ck_assert_int_eq(world_touch(world_pointer(&world, GVA_2 + i * PAGE_SIZE), true, &value),
                             !is_table);
        }
        world_check(&world, true);
        shadow_drop_page(world.shadow, (TABLE - PAGE_SIZE) >> PAGE_SHIFT);
        if (round == 1)
            shadow_drop_all(world.shadow);
    }
}
END_TEST

START_TEST(fetching_can_be_denied_for_a_while)
{
    ck_assert(!shadow_allow_fetch(world.shadow, GVA, false)); /* not mapped */
    ck_assert(world_read(&world, GVA, &value));
    ck_assert(shadow_allow_fetch(world.shadow, GVA + PAGE_SIZE, false));
    ck_assert_uint_eq(read_maps().n_memory, 3);
    ck_assert(world_write(&world, GVA + PAGE_SIZE, 3));
    ck_assert_uint_eq(world.n_faults, 0);
    ck_assert(shadow_allow_fetch(world.shadow, GVA + PAGE_SIZE, true));
    ck_assert_uint_eq(read_maps().n_memory, 1);
}
END_TEST

/* ---- the invariant check ------------------------------------------------------------------------------- */

static char why[200];

static bool holds(bool everything)
{
    return shadow_check(world.shadow, &world.vcpu, everything, why, sizeof why);
}

START_TEST(the_check_sees_an_entry_changed_behind_the_door)
{
    ck_assert(world_read(&world, GVA, &value));
    ck_assert(holds(false) && holds(true));
    *entry(TABLE, GVA) = 0;
    ck_assert(holds(false)); /* nothing is known to have changed */
    ck_assert(!holds(true));
    ck_assert_ptr_nonnull(strstr(why, "not in the guest's tables"));
    *entry(TABLE, GVA) = DATA | SEEN;
    ck_assert(holds(true));
}
END_TEST

START_TEST(the_check_sees_each_kind_of_wrong)
{
    static const struct {
        uint32_t pte;
        const char *why;
    } row[] = {
        {(DATA + PAGE_SIZE) | SEEN, "mapped to page"},
        {DATA | (SEEN & ~PTE_U), "mapped for the user"},
        {DATA | (SEEN & ~PTE_W), "the guest's tables forbid it"},
        {DATA | (SEEN & ~PTE_D), "D is clear"},
        {DATA | (SEEN & ~PTE_A), "A is clear"},
    };

    ck_assert(world_read(&world, GVA, &value));
    for (size_t i = 0; i < sizeof row / sizeof row[0]; i++) {
        *entry(TABLE, GVA) = row[i].pte;
        ck_assert(!holds(true));
        ck_assert_msg(strstr(why, row[i].why) != NULL, "%s, not %s", why, row[i].why);
    }
    *entry(TABLE, GVA) = DATA | SEEN;
    world.memory.page_flags[DATA >> PAGE_SHIFT] |= PAGE_IS_TABLE;
    ck_assert(!holds(true) && strstr(why, "page table") != NULL);
    world.memory.page_flags[DATA >> PAGE_SHIFT] = 0;
    world.memory.page_flags[TABLE >> PAGE_SHIFT] = 0;
    ck_assert(!holds(true) && strstr(why, "not traced") != NULL);
    world.memory.page_flags[TABLE >> PAGE_SHIFT] = PAGE_IS_TABLE;
    ck_assert(holds(true));
}
END_TEST

START_TEST(the_check_sees_what_the_host_has)
{
    uint8_t *page;

    ck_assert(world_read(&world, GVA, &value));
    page = world_pointer(&world, GVA + PAGE_SIZE);
    ck_assert_int_eq(mprotect(page, PAGE_SIZE, PROT_READ), 0);
    ck_assert(!holds(true) && strstr(why, "the host maps page") != NULL);
    ck_assert_int_eq(mprotect(page, PAGE_SIZE, PROT_READ | PROT_WRITE | PROT_EXEC), 0);
    ck_assert(holds(true));
    ck_assert_ptr_eq(mmap(page, PAGE_SIZE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0), page);
    ck_assert(!holds(true) && strstr(why, "the host maps") != NULL);
    shadow_drop_all(world.shadow);
    ck_assert_ptr_eq(mmap(page, PAGE_SIZE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0), page);
    ck_assert(!holds(true) && strstr(why, "something else") != NULL);
    ck_assert_int_eq(mprotect(page, PAGE_SIZE, PROT_NONE), 0);
}
END_TEST

START_TEST(the_check_looks_at_what_changed)
{
    ck_assert(holds(true));
    ck_assert(world_read(&world, GVA, &value));
    *entry(TABLE, GVA) = 0;
    ck_assert(!holds(false));
    *entry(TABLE, GVA) = DATA | SEEN;
}
END_TEST

static TCase *new_case(const char *name)
{
    TCase *made = tcase_create(name);

    tcase_add_checked_fixture(made, open_paged, close_paged);
    tcase_set_timeout(made, 30);
    return made;
}

int main(void)
{
    Suite *suite = suite_create("shadow_host");
    TCase *window = new_case("window");
    TCase *bound = new_case("bound");
    TCase *protection = new_case("write protection");
    TCase *check = new_case("invariant");
    SRunner *runner;
    int failed;

    tcase_add_test(window, the_window_stays_reserved);
    tcase_add_loop_test(window, an_open_window_has_what_is_mapped_and_no_more, 0, 2);
    tcase_add_loop_test(window, an_anchor_for_each_chunk_that_was_used, 0, 2);
    tcase_add_test(window, contiguous_pages_share_one_mapping);
    tcase_add_test(window, runs_are_cut_where_the_window_wraps);
    tcase_add_test(window, the_hole_is_known);
    tcase_add_test(window, the_window_moves);
    tcase_add_test(bound, host_mappings_stay_within_their_bound);
    tcase_add_test(bound, the_region_filled_longest_ago_goes_first);
    tcase_add_loop_test(bound, a_host_without_room_is_survived, 0, 2);
    tcase_add_test(protection, userfaultfd_protects_without_splitting);
    tcase_add_test(protection, mprotect_serves_as_well);
    tcase_add_loop_test(protection, tables_become_data_again, 0, 2);
    tcase_add_loop_test(protection, traced_pages_within_a_new_run_are_held_back, 0, 2);
    tcase_add_test(protection, fetching_can_be_denied_for_a_while);
    tcase_add_test(check, the_check_sees_an_entry_changed_behind_the_door);
    tcase_add_test(check, the_check_sees_each_kind_of_wrong);
    tcase_add_test(check, the_check_sees_what_the_host_has);
    tcase_add_test(check, the_check_looks_at_what_changed);
    suite_add_tcase(suite, window);
    suite_add_tcase(suite, bound);
    suite_add_tcase(suite, protection);
    suite_add_tcase(suite, check);
    runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
