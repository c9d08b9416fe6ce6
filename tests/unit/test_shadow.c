/*
 * What the shadow does for the guest, case by case: fills and their runs, A and D, and the traces of page
 * tables. test_shadow_switch.c has CR3, WP and the user view, test_shadow_host.c what the host sees of it,
 * and test_shadow_oracle.c the random mixture of it all.
 */
#include "shadow_paged.h"

/* ---- fills --------------------------------------------------------------------------------------------- */

START_TEST(a_fill_answers_the_fault)
{
    ck_assert(!is_mapped(GVA));
    ck_assert(world_read(&world, GVA + 0x1000, &value));
    ck_assert_uint_eq(value, 1);
    ck_assert_uint_eq(world.n_faults, 1);
    ck_assert(is_mapped(GVA + 0x1000));
    ck_assert_uint_eq(mapping.rpn, (DATA >> PAGE_SHIFT) + 1);
    ck_assert(mapping.write && mapping.user && !mapping.global);
    ck_assert(world_read(&world, GVA + 0x1000, &value));
    ck_assert_uint_eq(world.n_faults, 0);
}
END_TEST

START_TEST(a_run_stops_where_rights_or_frames_change)
{
    static const struct {
        const char *what;
        uint32_t pte; /* of page 8; pages 0 to 7 are alike */
    } row[] = {
        {"not present", (DATA + 8 * PAGE_SIZE) | (SEEN & ~PTE_P)},
        {"read-only", (DATA + 8 * PAGE_SIZE) | (SEEN & ~PTE_W)},
        {"supervisor", (DATA + 8 * PAGE_SIZE) | (SEEN & ~PTE_U)},
        {"not accessed", (DATA + 8 * PAGE_SIZE) | (SEEN & ~PTE_A)},
        {"not dirty", (DATA + 8 * PAGE_SIZE) | (SEEN & ~PTE_D)},
        {"another frame", (DATA + 80 * PAGE_SIZE) | SEEN},
        {"no memory", 0xfee00000 | SEEN},
        {"beyond memory", (uint32_t)RAM_SIZE | SEEN},
    };

    for (size_t i = 0; i < sizeof row / sizeof row[0]; i++) {
        set_pte(GVA + 8 * PAGE_SIZE, row[i].pte);
        ck_assert(world_read(&world, GVA + 3 * PAGE_SIZE, &value));
        ck_assert_msg(is_mapped(GVA) && is_mapped(GVA + 7 * PAGE_SIZE), "%s", row[i].what);
        ck_assert_msg(!is_mapped(GVA + 8 * PAGE_SIZE), "%s", row[i].what);
        shadow_drop_all(world.shadow);
        set_pte(GVA + 8 * PAGE_SIZE, (DATA + 8 * PAGE_SIZE) | SEEN);
    }
}
END_TEST

START_TEST(a_run_saves_faults)
{
    uint64_t before = stats().fills;

    for (uint32_t i = 0; i < 1024; i++)
        ck_assert(world_read(&world, GVA + i * PAGE_SIZE, &value));
    ck_assert_uint_le(stats().fills - before, 10);
    ck_assert_uint_eq(stats().mappings, 1024);
}
END_TEST

START_TEST(sequential_reads_set_accessed_ahead)
{
    uint64_t before = stats().fills;

    for (uint32_t i = 0; i < 1024; i++)
        *entry(TABLE, i << 12) = (DATA + i * PAGE_SIZE) | RIGHTS;
    for (uint32_t i = 0; i < 2; i++) {
        ck_assert(world_read(&world, GVA + i * PAGE_SIZE, &value));
        ck_assert(!is_mapped(GVA + (i + 1) * PAGE_SIZE));
        ck_assert(!(*entry(TABLE, (i + 1) << 12) & PTE_A));
    }
    for (uint32_t i = 2; i < 1024; i++)
        ck_assert(world_read(&world, GVA + i * PAGE_SIZE, &value));
    ck_assert_uint_le(stats().fills - before, 20);
    for (uint32_t i = 0; i < 1024; i++)
        ck_assert_uint_eq(*entry(TABLE, i << 12) & (PTE_A | PTE_D), PTE_A);
}
END_TEST

START_TEST(accesses_alone_set_accessed_where_that_is_asked_for)
{
    char error[200] = "";

    shadow_destroy(world.shadow);
    world.config.accessed_by_access = true;
    world.shadow = shadow_create(&world.config, error, sizeof error);
    ck_assert_msg(world.shadow != NULL, "%s", error);
    for (uint32_t i = 0; i < 1024; i++)
        *entry(TABLE, i << 12) = (DATA + i * PAGE_SIZE) | RIGHTS;
    for (uint32_t i = 0; i < 100; i++) {
        ck_assert(world_read(&world, GVA + i * PAGE_SIZE, &value));
        ck_assert(!(*entry(TABLE, (i + 1) << 12) & PTE_A));
    }
}
END_TEST

START_TEST(scattered_reads_set_only_their_own_accessed)
{
    for (uint32_t i = 0; i < 1024; i++)
        *entry(TABLE, i << 12) = (DATA + i * PAGE_SIZE) | RIGHTS;
    for (uint32_t i = 0; i < 1024; i += 7)
        ck_assert(world_read(&world, GVA + i * PAGE_SIZE, &value));
    for (uint32_t i = 0; i < 1024; i++)
        ck_assert_int_eq((*entry(TABLE, i << 12) & PTE_A) != 0, i % 7 == 0);
}
END_TEST

START_TEST(dirty_is_set_by_the_first_write)
{
    set_pte(GVA, DATA | RIGHTS);
    ck_assert(world_read(&world, GVA, &value));
    ck_assert(is_mapped(GVA) && !mapping.write);
    ck_assert_uint_eq(*entry(TABLE, GVA), DATA | RIGHTS | PTE_A);
    ck_assert(world_write(&world, GVA, 5));
    ck_assert_uint_eq(world.n_faults, 1);
    ck_assert_uint_eq(*entry(TABLE, GVA), DATA | SEEN);
    ck_assert(is_writable(GVA));
    ck_assert_uint_eq(*world_ram(&world, DATA), 5);
}
END_TEST

START_TEST(guest_faults_are_the_guests)
{
    struct fault fault;

    set_pte(GVA, (DATA | SEEN) & ~PTE_P);
    set_pte(GVA + PAGE_SIZE, (DATA | SEEN) & ~PTE_W);
    ck_assert(!world_access(&world, GVA, false, &value, &fault));
    ck_assert_uint_eq(fault.error, 0);
    ck_assert(!world_access(&world, GVA + PAGE_SIZE + 4, true, &value, &fault));
    ck_assert_uint_eq(fault.error, PF_PRESENT | PF_WRITE);
    ck_assert_uint_eq(fault.cr2, GVA + PAGE_SIZE + 4);
    ck_assert_uint_eq(stats().fills, 0);
}
END_TEST

START_TEST(fetches_fill_too)
{
    struct fault fault;

    ck_assert_int_eq(shadow_fault(world.shadow, &world.vcpu, GVA, PF_FETCH, &fault), SHADOW_FILLED);
    ck_assert(is_mapped(GVA));
    set_pte(GVA, DATA | (SEEN & ~PTE_U));
    world_set_cpl(&world, 3);
    ck_assert_int_eq(shadow_fault(world.shadow, &world.vcpu, GVA, PF_FETCH, &fault), SHADOW_GUEST);
    ck_assert_uint_eq(fault.error, PF_PRESENT | PF_USER);
}
END_TEST

START_TEST(what_no_mapping_can_serve_is_emulated)
{
    struct fault fault;

    set_pte(GVA, 0xb8000 | SEEN);
    set_pte(GVA + PAGE_SIZE, 0xf0000 | SEEN);
    set_pte(GVA + 2 * PAGE_SIZE, TABLE | SEEN);
    ck_assert_int_eq(shadow_fault(world.shadow, &world.vcpu, GVA, 0, &fault), SHADOW_EMULATE);
    ck_assert_int_eq(shadow_fault(world.shadow, &world.vcpu, GVA + PAGE_SIZE, 0, &fault), SHADOW_FILLED);
    ck_assert_int_eq(shadow_fault(world.shadow, &world.vcpu, GVA + PAGE_SIZE, PF_WRITE, &fault),
                     SHADOW_EMULATE);
    ck_assert_int_eq(shadow_fault(world.shadow, &world.vcpu, GVA + 2 * PAGE_SIZE, PF_WRITE, &fault),
                     SHADOW_EMULATE);
    ck_assert(!is_writable(GVA + PAGE_SIZE) && !is_writable(GVA + 2 * PAGE_SIZE));
}
END_TEST

START_TEST(tables_in_no_memory_build_nothing)
{
    struct fault fault;

    /* all ones there: without PSE, a page table at the top, and pages there too */
    world_set_registers(&world, PAGED, 0xa0000, 0);
    ck_assert_int_eq(shadow_fault(world.shadow, &world.vcpu, GVA, 0, &fault), SHADOW_EMULATE);
    world_set_registers(&world, PAGED, DIRECTORY, 0);
    set(DIRECTORY, 1, 0xfee00000 | RIGHTS);
    ck_assert_int_eq(shadow_fault(world.shadow, &world.vcpu, GVA, 0, &fault), SHADOW_EMULATE);
    ck_assert_uint_eq(stats().mappings, 0);
}
END_TEST

START_TEST(large_pages_fill_in_one)
{
    set(DIRECTORY, 1, 0x01000000 | PTE_PS | SEEN);
    set(DIRECTORY, 2, 0 | PTE_PS | SEEN);
    ck_assert(world_read(&world, GVA + 77 * PAGE_SIZE, &value));
    ck_assert_uint_eq(value, 77);
    ck_assert_uint_eq(stats().mappings, 1024);
    /* the one with the PC's holes: RAM below them, ROM, RAM above but for the tables */
    ck_assert(world_read(&world, GVA_2, &value));
    ck_assert_uint_eq(stats().mappings, 1024 + 0xa0);
    ck_assert(world_read(&world, GVA_2 + 0x100000, &value));
    ck_assert(is_writable(GVA_2 + DIRECTORY - PAGE_SIZE) && !is_writable(GVA_2 + DIRECTORY));
    ck_assert(world_read(&world, GVA_2 + 0xf0000, &value));
    ck_assert(is_mapped(GVA_2 + 0xf0000) && !mapping.write);
}
END_TEST

START_TEST(without_paging_runs_are_large)
{
    world_set_registers(&world, CR0_PE | CR0_ET, DIRECTORY, CR4_PSE);
    ck_assert(world_write(&world, 0x1234560, 1));
    ck_assert(is_writable(0x1000000) && is_writable(0x13ff000) && !is_mapped(0x1400000));
    ck_assert_uint_eq(stats().mappings, 1024);
    ck_assert(world_write(&world, 0x1000, 1));
    ck_assert(is_mapped(0x9f000) && !is_mapped(0xa0000) && !is_mapped(0xc0000));
    ck_assert_uint_eq(shadow_user_limit(world.shadow), UINT64_C(1) << 32);
}
END_TEST

/* ---- tables -------------------------------------------------------------------------------------------- */

START_TEST(a_table_entry_takes_its_page_along)
{
    static const struct {
        const char *what;
        uint32_t pte; /* instead of DATA | SEEN */
        bool is_kept, is_writable;
    } row[] = {
        {"the same", DATA | SEEN, true, true},
        {"available and cache bits", DATA | SEEN | 0xe00 | PTE_PWT | PTE_PCD, true, true},
        {"read-only", DATA | (SEEN & ~PTE_W), true, false},
        {"not dirty", DATA | (SEEN & ~PTE_D), true, false},
        {"not accessed", DATA | (SEEN & ~PTE_A), false, false},
        {"supervisor", DATA | (SEEN & ~PTE_U), false, false},
        {"not present", DATA | (SEEN & ~PTE_P), false, false},
        {"another frame", (DATA + PAGE_SIZE) | SEEN, false, false},
        {"no memory", 0xb8000 | SEEN, false, false},
    };

    for (size_t i = 0; i < sizeof row / sizeof row[0]; i++) {
        ck_assert(world_read(&world, GVA, &value));
        ck_assert_msg(is_writable(GVA), "before: %s", row[i].what);
        set_pte(GVA, row[i].pte);
        ck_assert_msg(is_mapped(GVA) == row[i].is_kept, "%s", row[i].what);
        ck_assert_msg(is_writable(GVA) == row[i].is_writable, "%s", row[i].what);
        ck_assert_msg(is_writable(GVA + PAGE_SIZE), "its neighbour: %s", row[i].what);
        world_check(&world, true);
        set_pte(GVA, DATA | SEEN);
        shadow_drop_all(world.shadow);
    }
}
END_TEST

START_TEST(a_directory_entry_takes_its_region_along)
{
    static const struct {
        const char *what;
        uint32_t pde; /* instead of TABLE | SEEN */
        bool is_kept, is_writable;
    } row[] = {
        {"the same", TABLE | SEEN, true, true},
        {"read-only", TABLE | (SEEN & ~PTE_W), true, false},
        {"not accessed", TABLE | (SEEN & ~PTE_A), false, false},
        {"supervisor", TABLE | (SEEN & ~PTE_U), false, false},
        {"not present", 0, false, false},
        {"another table, with the same page", 0x204000 | SEEN, true, true},
        {"another table", TABLE_2 | SEEN, false, false},
        {"a large page, with the same page", DATA | PTE_PS | SEEN, true, true},
        {"reserved bits", DATA | PTE_PS | SEEN | 0x2000, false, false},
        {"no memory", 0xfee00000 | SEEN, false, false},
    };

    set(0x204000, 0, DATA | SEEN);
    for (size_t i = 0; i < sizeof row / sizeof row[0]; i++) {
        set(DIRECTORY, 1, TABLE | SEEN);
        ck_assert(world_read(&world, GVA, &value));
        set(DIRECTORY, 1, row[i].pde);
        ck_assert_msg(is_mapped(GVA) == row[i].is_kept, "%s", row[i].what);
        ck_assert_msg(is_writable(GVA) == row[i].is_writable, "%s", row[i].what);
        world_check(&world, true);
        shadow_drop_all(world.shadow);
    }
}
END_TEST

START_TEST(the_guest_writes_its_tables_by_emulation)
{
    set_pte(GVA, TABLE | SEEN);
    ck_assert(world_read(&world, GVA, &value)); /* maps the table itself, and its neighbours */
    ck_assert(world_read(&world, GVA + 5 * PAGE_SIZE, &value));
    ck_assert(is_mapped(GVA) && !mapping.write);
    ck_assert(world_write(&world, GVA + 5 * 4, 0));
    ck_assert_uint_eq(world.n_emulated, 1);
    ck_assert(!is_mapped(GVA + 5 * PAGE_SIZE));
    ck_assert(!world_read(&world, GVA + 5 * PAGE_SIZE, &value));
    ck_assert_uint_eq(stats().write_protect_faults, 1);
}
END_TEST

START_TEST(a_page_that_becomes_a_table_loses_its_writers)
{
    set_pte(GVA, 0x204000 | SEEN);
    ck_assert(world_write(&world, GVA, DATA | SEEN)); /* not a table yet */
    ck_assert_uint_eq(world.n_emulated, 0);
    ck_assert(is_writable(GVA));
    set(DIRECTORY, 2, 0x204000 | RIGHTS);
    ck_assert(world_read(&world, GVA_2, &value)); /* now it is one */
    ck_assert(!is_writable(GVA));
    ck_assert(world_write(&world, GVA, 0));
    ck_assert_uint_eq(world.n_emulated, 1);
    ck_assert(!is_mapped(GVA_2));
    /* nothing comes from it any more: the trace goes with the next write */
    ck_assert(world_write(&world, GVA, 0));
    ck_assert_uint_eq(world.n_emulated, 0);
    ck_assert(is_writable(GVA));
}
END_TEST

START_TEST(a_table_that_floods_is_given_up)
{
    unsigned n_emulated = 0;

    set_pte(GVA, TABLE_2 | SEEN);
    ck_assert(world_read(&world, GVA_2, &value));
    for (uint32_t i = 0; i < 200; i++) {
        ck_assert(world_write(&world, GVA + 2048 + i * 4, 0));
        n_emulated += world.n_emulated;
    }
    ck_assert_uint_le(n_emulated, 40);
    ck_assert(is_writable(GVA));
    ck_assert(!is_mapped(GVA_2));
    ck_assert(world_read(&world, GVA_2, &value)); /* traced again */
    ck_assert(!is_writable(GVA));
}
END_TEST

START_TEST(fills_in_between_are_no_flood)
{
    ck_assert(world_read(&world, GVA_2, &value));
    for (uint32_t i = 0; i < 200; i++) {
        set_pte(GVA_2 + (512 + i) * PAGE_SIZE, (DATA + i * 8 * PAGE_SIZE) | SEEN);
        ck_assert(world_read(&world, GVA_2 + (512 + i) * PAGE_SIZE, &value));
        ck_assert(is_mapped(GVA_2));
    }
}
END_TEST

START_TEST(a_recursive_directory_is_both)
{
    gva_t own = 0xfffff000; /* of the directory, through itself */

    set(DIRECTORY, 1023, DIRECTORY | SEEN);
    ck_assert(world_read(&world, GVA, &value));
    ck_assert(world_read(&world, own + 4, &value));
    ck_assert_uint_eq(value & ~(PTE_A | PTE_D), TABLE | RIGHTS);
    ck_assert(world_write(&world, own + 4, 0));
    ck_assert(!is_mapped(GVA));
    ck_assert(!world_read(&world, GVA, &value));
    /* the table of region 2, seen through the directory */
    ck_assert(world_write(&world, 0xffc00000 + 2 * PAGE_SIZE, 0));
    ck_assert(!world_read(&world, GVA_2, &value));
    ck_assert(world_write(&world, own + 4092, 0)); /* and itself away */
    ck_assert(!world_read(&world, own, &value));
}
END_TEST

START_TEST(dropping_a_page_takes_all_its_mappings)
{
    set_pte(GVA_2, DATA | SEEN);
    ck_assert(world_read(&world, GVA, &value));
    ck_assert(world_read(&world, GVA_2, &value));
    shadow_drop_page(world.shadow, DATA >> PAGE_SHIFT);
    ck_assert(!is_mapped(GVA) && !is_mapped(GVA_2) && is_mapped(GVA + PAGE_SIZE));
    shadow_drop_page(world.shadow, RPN_NONE); /* nothing to do */
}
END_TEST

static TCase *fills_case(void)
{
    TCase *fills = tcase_create("fills");

    tcase_add_checked_fixture(fills, open_paged, close_paged);
    tcase_add_test(fills, a_fill_answers_the_fault);
    tcase_add_test(fills, a_run_stops_where_rights_or_frames_change);
    tcase_add_test(fills, a_run_saves_faults);
    tcase_add_test(fills, sequential_reads_set_accessed_ahead);
    tcase_add_test(fills, accesses_alone_set_accessed_where_that_is_asked_for);
    tcase_add_test(fills, scattered_reads_set_only_their_own_accessed);
    tcase_add_test(fills, dirty_is_set_by_the_first_write);
    tcase_add_test(fills, guest_faults_are_the_guests);
    tcase_add_test(fills, fetches_fill_too);
    tcase_add_test(fills, what_no_mapping_can_serve_is_emulated);
    tcase_add_test(fills, tables_in_no_memory_build_nothing);
    tcase_add_test(fills, large_pages_fill_in_one);
    tcase_add_test(fills, without_paging_runs_are_large);
    return fills;
}

static TCase *tables_case(void)
{
    TCase *tables = tcase_create("tables");

    tcase_add_checked_fixture(tables, open_paged, close_paged);
    tcase_add_test(tables, a_table_entry_takes_its_page_along);
    tcase_add_test(tables, a_directory_entry_takes_its_region_along);
    tcase_add_test(tables, the_guest_writes_its_tables_by_emulation);
    tcase_add_test(tables, a_page_that_becomes_a_table_loses_its_writers);
    tcase_add_test(tables, a_table_that_floods_is_given_up);
    tcase_add_test(tables, fills_in_between_are_no_flood);
    tcase_add_test(tables, a_recursive_directory_is_both);
    tcase_add_test(tables, dropping_a_page_takes_all_its_mappings);
    return tables;
}

int main(void)
{
    Suite *suite = suite_create("shadow");
    SRunner *runner;
    int failed;

    suite_add_tcase(suite, fills_case());
    suite_add_tcase(suite, tables_case());
    runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
