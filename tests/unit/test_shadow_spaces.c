/*
 * Many spaces over one memory: all follow the guest's tables, in use or not; pages of tables and of code are
 * held back in all of them; they share one bound on host mappings; and what else an engine with a window for
 * each address space and view relies on. test_shadow_oracle.c has the random mixture.
 */
#include "shadow_paged.h"

#include <inttypes.h>
#include <sys/wait.h>
#include <unistd.h>

#include "signals/signals.h"

/* A second space, for OTHER; the first stays for DIRECTORY, and in use. */
static void open_two(void)
{
    open_paged();
    world_add_space(&world, false, false);
    world_use(&world, 1);
    world_set_registers(&world, PAGED, OTHER, CR4_PSE);
    world_use(&world, 0);
}

static bool is_mapped_in(unsigned index, gva_t gva)
{
    struct shadow *shadow = index == world.current ? world.shadow : world.space[index].shadow;

    return shadow_find(shadow, gva, &mapping);
}

static bool is_writable_in(unsigned index, gva_t gva)
{
    return is_mapped_in(index, gva) && mapping.write;
}

static void read_in(unsigned index, gva_t gva)
{
    unsigned before = world.current;

    world_use(&world, index);
    ck_assert(world_read(&world, gva, &value));
    world_use(&world, before);
}

static struct shadow_stats stats_of(unsigned index)
{
    return *shadow_stats(index == world.current ? world.shadow : world.space[index].shadow);
}

/* ---- tables -------------------------------------------------------------------------------------------- */

START_TEST(a_shared_table_is_followed_by_all)
{
    read_in(0, GVA);
    read_in(1, GVA);
    set_pte(GVA, 0);
    ck_assert(!is_mapped_in(0, GVA) && !is_mapped_in(1, GVA));
    ck_assert(is_mapped_in(0, GVA + PAGE_SIZE) && is_mapped_in(1, GVA + PAGE_SIZE));
    set_pte(GVA + PAGE_SIZE, (DATA + PAGE_SIZE) | (SEEN & ~PTE_W));
    ck_assert(is_mapped_in(1, GVA + PAGE_SIZE) && !mapping.write);
    world_check(&world, true);
}
END_TEST

START_TEST(private_tables_are_followed_by_their_own)
{
    set(0x204000, 0, (DATA + 7 * PAGE_SIZE) | SEEN);
    set(OTHER, 1, 0x204000 | RIGHTS);
    read_in(0, GVA);
    read_in(1, GVA);
    ck_assert(is_mapped_in(1, GVA));
    ck_assert_uint_eq(mapping.rpn, (DATA >> PAGE_SHIFT) + 7);
    set(0x204000, 0, 0); /* of the space that is not in use */
    ck_assert(is_mapped_in(0, GVA) && !is_mapped_in(1, GVA));
    ck_assert_uint_eq(stats_of(0).table_writes, 0);
    read_in(1, GVA_2);
    set(OTHER, 2, 0);
    ck_assert(!is_mapped_in(1, GVA_2));
}
END_TEST

START_TEST(a_table_of_one_space_is_read_only_in_all)
{
    set_pte(GVA, 0x204000 | SEEN);
    ck_assert(world_write(&world, GVA, DATA | SEEN));
    ck_assert(is_writable_in(0, GVA));
    set(OTHER, 3, 0x204000 | RIGHTS);
    read_in(1, 0x00c00000); /* now it is a table there */
    ck_assert(is_mapped_in(0, GVA) && !mapping.write);
    ck_assert(world_write(&world, GVA, 0));
    ck_assert_uint_eq(world.n_emulated, 1);
    ck_assert(!is_mapped_in(1, 0x00c00000));
    ck_assert(world_write(&world, GVA, 0)); /* of no space any more */
    ck_assert_uint_eq(world.n_emulated, 0);
    ck_assert(is_writable_in(0, GVA));
}
END_TEST

START_TEST(a_trace_stays_while_one_space_needs_it)
{
    set_pte(GVA_2, TABLE | SEEN);
    read_in(0, GVA);
    read_in(1, GVA);
    set(DIRECTORY, 1, 0);
    ck_assert(!is_mapped_in(0, GVA) && is_mapped_in(1, GVA));
    ck_assert(world_write(&world, GVA_2 + 4, (DATA + PAGE_SIZE) | SEEN));
    ck_assert_uint_eq(world.n_emulated, 1);
    set(OTHER, 1, 0);
    ck_assert(world_write(&world, GVA_2 + 4, 0));
    ck_assert_uint_eq(world.n_emulated, 0);
}
END_TEST

/* The address space of the second is gone, and the page of its directory is data now. */
START_TEST(a_directory_that_floods_is_let_go)
{
    unsigned n_emulated = 0;

    set_pte(GVA, OTHER | SEEN);
    read_in(1, GVA_2);
    for (uint32_t i = 0; i < 200; i++) {
        ck_assert(world_write(&world, GVA + 2048 + i * 4, i));
        n_emulated += world.n_emulated;
    }
    ck_assert_uint_le(n_emulated, 40);
    ck_assert(is_writable_in(0, GVA));
    ck_assert_uint_eq(stats_of(1).mappings, 0);
    world_check(&world, true);
    read_in(1, GVA_2); /* or it was not: then it is traced again */
    ck_assert(!is_writable_in(0, GVA));
    ck_assert(world_write(&world, GVA + 8, 0));
    ck_assert(!is_mapped_in(1, GVA_2));
}
END_TEST

START_TEST(the_directory_in_use_is_not_let_go)
{
    read_in(0, GVA);
    for (uint32_t i = 0; i < 200; i++)
        set(DIRECTORY, 512 + i, i);
    ck_assert(is_mapped_in(0, GVA));
}
END_TEST

START_TEST(a_page_is_dropped_in_all)
{
    read_in(0, GVA);
    read_in(1, GVA);
    shadow_drop_page(world.shadow, DATA >> PAGE_SHIFT);
    ck_assert(!is_mapped_in(0, GVA) && !is_mapped_in(1, GVA) && is_mapped_in(1, GVA + PAGE_SIZE));
}
END_TEST

/* ---- views --------------------------------------------------------------------------------------------- */

START_TEST(a_window_of_the_users_maps_nothing_else)
{
    unsigned user = world_add_space(&world, false, true);
    struct fault fault;

    set_pte(GVA + 3 * PAGE_SIZE, (DATA + 3 * PAGE_SIZE) | (SEEN & ~PTE_U));
    set_pte(GVA + 9 * PAGE_SIZE, (DATA + 9 * PAGE_SIZE) | (SEEN & ~PTE_W));
    world_use(&world, user);
    ck_assert(world_read(&world, GVA, &value));
    ck_assert(is_mapped(GVA + 2 * PAGE_SIZE) && !is_mapped(GVA + 3 * PAGE_SIZE));
    ck_assert_uint_eq(shadow_user_limit(world.shadow), UINT64_C(1) << 32);
    ck_assert(!world_read(&world, GVA + 3 * PAGE_SIZE, &value));
    /* a kernel that reaches for the user's pages */
    world_set_cpl(&world, 0);
    world_set_registers(&world, PAGED & ~CR0_WP, DIRECTORY, CR4_PSE);
    ck_assert_int_eq(shadow_fault(world.shadow, &world.vcpu, GVA + 3 * PAGE_SIZE, 0, &fault), SHADOW_EMULATE);
    ck_assert_int_eq(shadow_fault(world.shadow, &world.vcpu, GVA + 9 * PAGE_SIZE, PF_WRITE, &fault),
                     SHADOW_EMULATE);
    ck_assert_int_eq(shadow_fault(world.shadow, &world.vcpu, GVA + 9 * PAGE_SIZE, 0, &fault), SHADOW_FILLED);
    world_check(&world, true);
}
END_TEST

START_TEST(a_window_of_the_kernels_has_no_limit)
{
    unsigned kernel = world_add_space(&world, true, false);

    set_pte(GVA, DATA | (SEEN & ~PTE_U));
    world_use(&world, kernel);
    ck_assert(world_read(&world, GVA, &value));
    ck_assert_uint_eq(shadow_user_limit(world.shadow), UINT64_C(1) << 32);
    shadow_set_view(world.shadow, &world.vcpu, true);
    ck_assert(is_mapped(GVA));
}
END_TEST

/* ---- code ---------------------------------------------------------------------------------------------- */

static struct {
    unsigned n_written, n_stores;
    uint32_t rpn, offset, n;
    bool gives_up;
} seen;

static void note_written(void *ctx, uint32_t rpn, uint32_t offset, uint32_t n)
{
    (void)ctx;
    seen.n_written++;
    seen.rpn = rpn;
    seen.offset = offset;
    seen.n = n;
}

static bool note_store(void *ctx, uint32_t rpn, uint32_t offset)
{
    (void)ctx;
    seen.n_stores++;
    seen.rpn = rpn;
    seen.offset = offset;
    return seen.gives_up;
}

static void listen(bool gives_up)
{
    memset(&seen, 0, sizeof seen);
    seen.gives_up = gives_up;
    world.memory.code_listener = (struct memory_code_listener){.written = note_written, .store = note_store};
}

START_TEST(code_is_read_only_in_all_spaces)
{
    uint32_t rpn = (DATA >> PAGE_SHIFT) + 1;

    listen(false);
    read_in(0, GVA);
    read_in(1, GVA);
    shadow_protect_code(&world.memory, rpn);
    ck_assert(is_mapped_in(0, GVA + PAGE_SIZE) && !mapping.write);
    ck_assert(is_mapped_in(1, GVA + PAGE_SIZE) && !mapping.write);
    ck_assert(is_writable_in(0, GVA) && is_writable_in(1, GVA + 2 * PAGE_SIZE));
    ck_assert(world_write(&world, GVA + PAGE_SIZE + 12, 5));
    ck_assert_uint_eq(world.n_emulated, 1);
    ck_assert(seen.n_stores == 1 && seen.n_written == 1);
    ck_assert(seen.rpn == rpn && seen.offset == 12 && seen.n == 4);
    /* new mappings too */
    shadow_drop_all(world.shadow);
    ck_assert(world_write(&world, GVA, 1));
    ck_assert(is_writable(GVA) && !is_writable(GVA + PAGE_SIZE));
    world_check(&world, true);
}
END_TEST

START_TEST(code_that_is_given_up_is_data_again)
{
    uint32_t rpn = DATA >> PAGE_SHIFT;

    listen(true);
    shadow_protect_code(&world.memory, rpn);
    read_in(0, GVA);
    read_in(1, GVA);
    ck_assert(!is_writable_in(0, GVA) && !is_writable_in(1, GVA));
    ck_assert(world_write(&world, GVA, 5));
    ck_assert_uint_eq(world.n_emulated, 0);
    ck_assert_uint_eq(seen.n_stores, 1);
    ck_assert(is_writable_in(0, GVA) && !is_writable_in(1, GVA)); /* the other when it stores there */
    ck_assert(!(world.memory.page_flags[rpn] & PAGE_IS_CODE));
    world_use(&world, 1);
    ck_assert(world_write(&world, GVA, 6));
    ck_assert_uint_eq(seen.n_stores, 1);
    ck_assert_uint_eq(seen.n_written, 0);
    shadow_protect_code(&world.memory, rpn);
    shadow_forget_code(&world.memory, rpn);
    ck_assert(!is_writable_in(0, GVA) && !is_writable_in(1, GVA));
    ck_assert(world_write(&world, GVA, 7));
    ck_assert_uint_eq(seen.n_stores, 1);
}
END_TEST

START_TEST(every_write_to_code_is_told)
{
    uint32_t rpn = TABLE >> PAGE_SHIFT;

    listen(true);
    set_pte(GVA, DATA | RIGHTS);
    set_pte(GVA + PAGE_SIZE, TABLE | SEEN);
    shadow_protect_code(&world.memory, rpn); /* a page table, too */
    ck_assert(world_read(&world, GVA, &value));
    ck_assert(seen.n_written == 1 && seen.rpn == rpn && seen.offset == 0 && seen.n == 4); /* A */
    set_pte(GVA + 2 * PAGE_SIZE, 0);
    ck_assert(seen.n_written == 2 && seen.offset == 8);
    ck_assert(world_write(&world, GVA + PAGE_SIZE + 12, 0)); /* no use to give it up: it is a table */
    ck_assert(seen.n_stores == 0 && seen.n_written == 3 && seen.offset == 12);
    ck_assert(world.memory.page_flags[rpn] & PAGE_IS_CODE);
}
END_TEST

/* ---- dropped, and the fast lookup ---------------------------------------------------------------------- */

static uint32_t dropped_pages;
static struct shadow *dropped_of;

static void note_dropped(void *ctx, struct shadow *shadow, gva_t first, uint32_t n_pages)
{
    (void)ctx;
    dropped_of = shadow;
    for (uint32_t i = 0; i < n_pages; i++)
        ck_assert_msg(!shadow_find(shadow, first + i * PAGE_SIZE, &mapping), "%08x", first + i * PAGE_SIZE);
    dropped_pages += n_pages;
}

START_TEST(what_is_dropped_is_told)
{
    struct shadow *second;

    world.config.dropped = note_dropped;
    second = world.space[world_add_space(&world, true, false)].shadow;
    read_in(2, GVA);
    set_pte(GVA, 0);
    ck_assert(dropped_of == second);
    ck_assert_uint_eq(dropped_pages, 1);
    set(DIRECTORY, 1, 0);
    ck_assert_uint_eq(dropped_pages, stats_of(2).pages_filled);
}
END_TEST

START_TEST(what_is_mapped_needs_no_walk)
{
    set_pte(GVA + PAGE_SIZE, (DATA + PAGE_SIZE) | (SEEN & ~PTE_U));
    set_pte(GVA + 2 * PAGE_SIZE, (DATA + 2 * PAGE_SIZE) | (SEEN & ~PTE_W));
    ck_assert_ptr_null(shadow_fast(world.shadow, &world.vcpu, GVA, ACCESS_READ));
    for (uint32_t i = 0; i < 3; i++)
        ck_assert(world_read(&world, GVA + i * PAGE_SIZE, &value));
    for (uint32_t i = 0; i < 3; i++) {
        gva_t gva = GVA + i * PAGE_SIZE + 0x123;
        void *there = world_ram(&world, DATA + (gpa_t)i * PAGE_SIZE + 0x123);

        ck_assert_ptr_eq(shadow_fast(world.shadow, &world.vcpu, gva, ACCESS_READ), there);
        ck_assert_ptr_eq(shadow_fast(world.shadow, &world.vcpu, gva, ACCESS_WRITE), i == 2 ? NULL : there);
        ck_assert_ptr_eq(shadow_fast(world.shadow, &world.vcpu, gva, ACCESS_READ | ACCESS_USER),
                         i == 1 ? NULL : there);
        ck_assert_ptr_eq(shadow_fast(world.shadow, &world.vcpu, gva, ACCESS_WRITE | ACCESS_USER),
                         i == 0 ? there : NULL);
    }
    world.vcpu.cr3 = OTHER; /* behind the back of the space */
    ck_assert_ptr_null(shadow_fast(world.shadow, &world.vcpu, GVA, ACCESS_READ));
    world.vcpu.cr3 = DIRECTORY;
}
END_TEST

/* ---- what they share ----------------------------------------------------------------------------------- */

static unsigned count_host_mappings(void)
{
    FILE *file = fopen("/proc/self/maps", "re");
    unsigned n = 0;
    char line[512];

    ck_assert_ptr_nonnull(file);
    while (fgets(line, sizeof line, file) != NULL)
        n += strstr(line, "guest-memory") != NULL;
    fclose(file);
    return n - 1; /* the monitor's own */
}

START_TEST(one_bound_for_all)
{
    const unsigned bound = 200;

    world_close(&world);
    open_paged();
    shadow_destroy(world.shadow);
    world.config.max_runs = bound;
    world.shadow = shadow_create(&world.config, (char[1]){0}, 1);
    for (uint32_t i = 0; i < 1024; i++)
        *entry(TABLE, i << 12) = (DATA + (i ^ 1) * PAGE_SIZE) | SEEN;
    while (world.n_spaces < 4)
        world_add_space(&world, true, false);
    for (uint32_t i = 0; i < 4; i++)
        for (uint32_t page = 0; page < 28; page++) { /* each counts twice, itself and the gap behind it */
            read_in(i, GVA + page * 32 * PAGE_SIZE);
            ck_assert_uint_le(count_host_mappings(), bound);
        }
    /* the one used longest ago paid for it */
    ck_assert_uint_gt(stats_of(0).evictions, 0);
    ck_assert_uint_eq(stats_of(1).evictions + stats_of(2).evictions + stats_of(3).evictions, 0);
    shadow_note_use(world.space[1].shadow);
    for (uint32_t page = 0; page < 28; page++)
        read_in(3, GVA + (page * 32 + 2) * PAGE_SIZE);
    ck_assert_uint_gt(stats_of(2).evictions, 0);
    ck_assert_uint_eq(stats_of(1).evictions + stats_of(3).evictions, 0);
    world_check(&world, true);
}
END_TEST

/* KiB of the process's own memory; guest memory is not. */
static long own_memory(void)
{
    FILE *file = fopen("/proc/self/status", "re");
    long size = -1;
    char line[200];

    ck_assert_ptr_nonnull(file);
    while (size < 0 && fgets(line, sizeof line, file) != NULL)
        if (strncmp(line, "RssAnon:", 8) == 0)
            size = strtol(line + 8, NULL, 10);
    fclose(file);
    return size;
}

START_TEST(there_may_be_many)
{
    long before = own_memory();
    char error[200] = "";

    while (world.n_spaces < SHADOW_MAX_SPACES) {
        unsigned i = world_add_space(&world, true, false);

        read_in(i, GVA);
        read_in(i, GVA_2);
    }
    ck_assert_int_le(own_memory() - before, 64L * 128);
    ck_assert_ptr_null(shadow_create(&world.config, error, sizeof error));
    ck_assert_ptr_nonnull(strstr(error, "64 shadow spaces"));
    set_pte(GVA, 0);
    for (unsigned i = 1; i < SHADOW_MAX_SPACES; i++)
        ck_assert(i == 1 || (!is_mapped_in(i, GVA) && is_mapped_in(i, GVA_2)));
    shadow_destroy(world.space[17].shadow); /* and its place is free again */
    world.space[17].shadow = shadow_create(&world.space[17].config, error, sizeof error);
    ck_assert_msg(world.space[17].shadow != NULL, "%s", error);
    read_in(17, GVA_2);
    world_check(&world, true);
}
END_TEST

/* The sandbox is closed before an engine knows how many spaces it will need. */
static void add_in_sandbox(void)
{
    unsigned added;

    if (!signals_close_sandbox((char[200]){0}, 200))
        _exit(77);
    added = world_add_space(&world, true, false);
    world_use(&world, added);
    for (uint32_t i = 0; i < 16; i++)
        ck_assert(world_write(&world, GVA + i * PAGE_SIZE, i));
    set(DIRECTORY, 3, (DATA + 3 * PAGE_SIZE) | RIGHTS);
    *world_ram(&world, DATA + 3 * PAGE_SIZE) = DATA | SEEN;
    ck_assert(world_read(&world, 0x00c00000, &value));
    if (is_writable(GVA + 3 * PAGE_SIZE) || !is_writable(GVA + 4 * PAGE_SIZE) ||
        shadow_uses_userfaultfd(world.shadow) != shadow_uses_userfaultfd(world.space[0].shadow))
        _exit(1);
    shadow_destroy(world.shadow);
    _exit(0);
}

START_TEST(a_space_is_made_in_the_sandbox)
{
    pid_t child = fork();
    int status;

    ck_assert_int_ge(child, 0);
    if (child == 0)
        add_in_sandbox();
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert(WIFEXITED(status));
    if (WEXITSTATUS(status) == 77)
        printf("skipped: this host lets no seccomp sandbox be closed\n");
    else
        ck_assert_int_eq(WEXITSTATUS(status), 0);
}
END_TEST

START_TEST(the_check_looks_at_all_spaces)
{
    char why[200] = "";

    read_in(1, GVA);
    *entry(TABLE, GVA) = 0;
    ck_assert(!shadow_check(world.shadow, &world.vcpu, true, why, sizeof why));
    ck_assert_ptr_nonnull(strstr(why, "not in the guest's tables"));
    *entry(TABLE, GVA) = DATA | SEEN;
}
END_TEST

static TCase *new_case(Suite *suite, const char *name)
{
    TCase *made = tcase_create(name);

    tcase_add_checked_fixture(made, open_two, close_paged);
    suite_add_tcase(suite, made);
    return made;
}

int main(void)
{
    Suite *suite = suite_create("shadow_spaces");
    TCase *tables = new_case(suite, "tables");
    TCase *views = new_case(suite, "views");
    TCase *code = new_case(suite, "code");
    TCase *told = new_case(suite, "told and asked");
    TCase *shared = new_case(suite, "shared");
    SRunner *runner;
    int failed;

    tcase_add_test(tables, a_shared_table_is_followed_by_all);
    tcase_add_test(tables, private_tables_are_followed_by_their_own);
    tcase_add_test(tables, a_table_of_one_space_is_read_only_in_all);
    tcase_add_test(tables, a_trace_stays_while_one_space_needs_it);
    tcase_add_test(tables, a_directory_that_floods_is_let_go);
    tcase_add_test(tables, the_directory_in_use_is_not_let_go);
    tcase_add_test(tables, a_page_is_dropped_in_all);
    tcase_add_test(views, a_window_of_the_users_maps_nothing_else);
    tcase_add_test(views, a_window_of_the_kernels_has_no_limit);
    tcase_add_test(code, code_is_read_only_in_all_spaces);
    tcase_add_test(code, code_that_is_given_up_is_data_again);
    tcase_add_test(code, every_write_to_code_is_told);
    tcase_add_test(told, what_is_dropped_is_told);
    tcase_add_test(told, what_is_mapped_needs_no_walk);
    tcase_add_test(shared, one_bound_for_all);
    tcase_add_test(shared, there_may_be_many);
    tcase_add_test(shared, a_space_is_made_in_the_sandbox);
    tcase_add_test(shared, the_check_looks_at_all_spaces);
    runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
