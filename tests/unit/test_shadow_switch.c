/* The shadow when the guest switches: CR3, INVLPG, CR0.WP, and between user and supervisor. */
#include "shadow_paged.h"

/* ---- the paging registers ------------------------------------------------------------------------------ */

START_TEST(a_switch_keeps_what_is_the_same)
{
    struct shadow_stats before;

    set(OTHER, 2, DATA | PTE_PS | SEEN);
    ck_assert(world_read(&world, GVA, &value));
    ck_assert(world_read(&world, GVA_2, &value));
    set(OTHER, 1, TABLE | SEEN);
    before = stats();
    world_set_registers(&world, PAGED, OTHER, CR4_PSE);
    ck_assert(is_mapped(GVA) && !is_mapped(GVA_2));
    ck_assert_uint_eq(stats().fills, before.fills);
    ck_assert_uint_eq(stats().switches, before.switches + 1);
    world_check(&world, true);
    set(OTHER, 1, 0); /* the new directory is the traced one */
    ck_assert(!is_mapped(GVA));
}
END_TEST

START_TEST(a_switch_compares_page_by_page)
{
    set(0x204000, 3, (DATA + 3 * PAGE_SIZE) | SEEN);
    set(0x204000, 4, (DATA + 5 * PAGE_SIZE) | SEEN);
    set(0x204000, 5, (DATA + 5 * PAGE_SIZE) | (SEEN & ~PTE_A));
    set(OTHER, 1, 0x204000 | SEEN);
    ck_assert(world_read(&world, GVA, &value));
    world_set_registers(&world, PAGED, OTHER, CR4_PSE);
    ck_assert(is_mapped(GVA + 3 * PAGE_SIZE));
    ck_assert_uint_eq(stats().mappings, 1);
    set(0x204000, 3, 0);
    ck_assert(!is_mapped(GVA + 3 * PAGE_SIZE));
}
END_TEST

START_TEST(reloading_cr3_and_invlpg_keep_everything)
{
    uint64_t before;

    ck_assert(world_read(&world, GVA, &value));
    before = stats().mappings;
    world_set_registers(&world, PAGED, DIRECTORY, CR4_PSE);
    world_set_registers(&world, PAGED, DIRECTORY, CR4_PSE | CR4_PGE);
    shadow_invlpg(world.shadow, GVA);
    ck_assert_uint_eq(stats().mappings, before);
    ck_assert_uint_eq(stats().switches, 1);
    ck_assert_uint_eq(stats().drops, 0);
}
END_TEST

static unsigned n_protections;

static void count_protections(void *ctx, enum shadow_change change, gva_t first, uint32_t n_pages)
{
    (void)ctx;
    (void)first;
    (void)n_pages;
    n_protections += change == SHADOW_CHANGE_PROTECT;
}

START_TEST(going_back_and_forth_protects_once)
{
    char error[200] = "";

    shadow_destroy(world.shadow);
    world.config.observe = count_protections;
    world.shadow = shadow_create(&world.config, error, sizeof error);
    world_set_registers(&world, PAGED, DIRECTORY, CR4_PSE);
    n_protections = 0;
    set_pte(GVA, DIRECTORY | SEEN);
    set_pte(GVA + PAGE_SIZE, OTHER | SEEN);
    ck_assert(world_write(&world, GVA + PAGE_SIZE, 0));
    set(OTHER, 1, TABLE | SEEN);
    ck_assert(is_writable(GVA + PAGE_SIZE));
    for (unsigned i = 0; i < 10; i++)
        world_set_registers(&world, PAGED, (i & 1) ? DIRECTORY : OTHER, CR4_PSE);
    ck_assert_uint_le(n_protections,
                      2); /* the directory that is left is not given up, nor the other forgotten */
    ck_assert(is_mapped(GVA + PAGE_SIZE) && !mapping.write);
    world_set_registers(&world, PAGED, DIRECTORY, CR4_PSE);
    ck_assert(world_write(&world, GVA + PAGE_SIZE, 0)); /* not in use: writable again at the first write */
    ck_assert_uint_eq(world.n_emulated, 0);
}
END_TEST

START_TEST(registers_set_behind_our_back_are_followed)
{
    ck_assert(world_read(&world, GVA, &value));
    world.vcpu.cr3 = 0x205000; /* an empty directory */
    ck_assert(!world_read(&world, GVA_2, &value));
    ck_assert(!is_mapped(GVA));
}
END_TEST

START_TEST(wp_clear_lets_the_supervisor_write)
{
    set_pte(GVA, DATA | (SEEN & ~PTE_W));
    ck_assert(world_read(&world, GVA, &value));
    ck_assert(!world_write(&world, GVA, 1));
    world_set_registers(&world, PAGED & ~CR0_WP, DIRECTORY, CR4_PSE);
    ck_assert(world_write(&world, GVA, 1));
    ck_assert(is_writable(GVA) && !mapping.user);
    set_pte(GVA, DATA | (SEEN & ~PTE_W & ~PTE_D)); /* and still follows its entry */
    ck_assert(!is_writable(GVA));
    ck_assert(world_write(&world, GVA, 1));
    world_set_registers(&world, PAGED, DIRECTORY, CR4_PSE);
    ck_assert(!world_write(&world, GVA, 1));
    ck_assert(world_read(&world, GVA, &value));
}
END_TEST

START_TEST(wp_clear_is_not_for_the_user)
{
    set_pte(GVA, DATA | (SEEN & ~PTE_W));
    world_set_registers(&world, PAGED & ~CR0_WP, DIRECTORY, CR4_PSE);
    ck_assert(world_write(&world, GVA, 1));
    world_set_cpl(&world, 3);
    ck_assert(!is_mapped(GVA));
    ck_assert(world_read(&world, GVA, &value));
    ck_assert(!world_write(&world, GVA, 2));
    world_set_cpl(&world, 0); /* the only page of its region changes its kind: its table is still followed */
    for (uint32_t i = 1; i < 1024; i++)
        set_pte(GVA + i * PAGE_SIZE, 0);
    ck_assert(world_read(&world, GVA, &value));
    ck_assert(world_write(&world, GVA, 2));
    ck_assert(is_writable(GVA));
    world_check(&world, true);
    set_pte(GVA, 0);
    ck_assert(!is_mapped(GVA));
}
END_TEST

/* ---- the user view ------------------------------------------------------------------------------------- */

START_TEST(the_usual_split_costs_nothing)
{
    struct shadow_stats before;

    for (uint32_t i = 0; i < 1024; i++) /* region 2 is the kernel's */
        set_pte(GVA_2 + i * PAGE_SIZE, (DATA + (1024 + i) * PAGE_SIZE) | (SEEN & ~PTE_U));
    ck_assert(world_read(&world, GVA_2 + 0x5000, &value));
    ck_assert_uint_eq(shadow_user_limit(world.shadow), GVA_2);
    world_set_cpl(&world, 3);
    ck_assert(world_read(&world, GVA, &value));
    before = stats();
    for (unsigned i = 0; i < 10; i++)
        world_set_cpl(&world, i & 1 ? 3 : 0);
    ck_assert_uint_eq(stats().drops, before.drops);
    ck_assert_uint_eq(shadow_user_limit(world.shadow), GVA_2);
}
END_TEST

START_TEST(a_mixed_kernel_is_kept_from_the_user)
{
    struct fault fault;

    set_pte(GVA + 4 * PAGE_SIZE, (DATA + 4 * PAGE_SIZE) | (SEEN & ~PTE_U));
    ck_assert(world_read(&world, GVA + 4 * PAGE_SIZE, &value));
    ck_assert_uint_eq(shadow_user_limit(world.shadow), GVA + 4 * PAGE_SIZE);
    world_set_cpl(&world, 3);
    ck_assert(is_mapped(GVA + 4 * PAGE_SIZE)); /* out of reach */
    shadow_raise_user_limit(world.shadow, GVA + 9 * PAGE_SIZE);
    ck_assert_uint_eq(shadow_user_limit(world.shadow), UINT64_C(1) << 32);
    ck_assert(!is_mapped(GVA + 4 * PAGE_SIZE)); /* in reach, so gone */
    ck_assert(!world_access(&world, GVA + 4 * PAGE_SIZE, false, &value, &fault));
    ck_assert_uint_eq(fault.error, PF_PRESENT | PF_USER);
    ck_assert(world_read(&world, GVA + 9 * PAGE_SIZE, &value));
    world_set_cpl(&world, 0);
    ck_assert(world_read(&world, GVA + 4 * PAGE_SIZE, &value));
    ck_assert_uint_eq(shadow_user_limit(world.shadow), UINT64_C(1) << 32); /* a user page is above it */
    world_set_cpl(&world, 3);
    ck_assert(!is_mapped(GVA + 4 * PAGE_SIZE) && is_mapped(GVA + 9 * PAGE_SIZE));
}
END_TEST

START_TEST(the_limit_moves_between_user_and_supervisor)
{
    set_pte(GVA, DATA | (SEEN & ~PTE_U)); /* an early identity map of the kernel's, low */
    set_pte(GVA_2 + 0x5000, DATA | (SEEN & ~PTE_U));
    ck_assert(world_read(&world, GVA_2 + 0x5000, &value));
    ck_assert(world_read(&world, GVA, &value));
    ck_assert_uint_eq(shadow_user_limit(world.shadow), GVA);
    set_pte(GVA, 0);
    shadow_raise_user_limit(world.shadow,
                            GVA + PAGE_SIZE); /* what the engine does when the user gets there */
    ck_assert_uint_eq(shadow_user_limit(world.shadow), GVA_2 + 0x5000);
    shadow_raise_user_limit(world.shadow, GVA + PAGE_SIZE);
    ck_assert_uint_eq(shadow_user_limit(world.shadow), GVA_2 + 0x5000);
    shadow_raise_user_limit(world.shadow, 0xfffff123);
    ck_assert_uint_eq(shadow_user_limit(world.shadow), UINT64_C(1) << 32);
}
END_TEST

START_TEST(a_wide_view_has_no_limit_and_no_supervisor_pages)
{
    set_pte(GVA_2 + 0x5000, DATA | (SEEN & ~PTE_U));
    ck_assert(world_read(&world, GVA_2 + 0x5000, &value));
    world_set_cpl(&world, 3);
    ck_assert(world_read(&world, GVA, &value));
    shadow_widen_user_view(world.shadow, true);
    ck_assert_uint_eq(shadow_user_limit(world.shadow), UINT64_C(1) << 32);
    ck_assert(is_mapped(GVA) && !is_mapped(GVA_2 + 0x5000));
    world_set_cpl(&world, 0);
    ck_assert(world_read(&world, GVA_2 + 0x5000, &value)); /* which would lower the limit of another view */
    ck_assert_uint_eq(shadow_user_limit(world.shadow), UINT64_C(1) << 32);
    world_set_cpl(&world, 3);
    ck_assert(is_mapped(GVA) && !is_mapped(GVA_2 + 0x5000));
    world_set_cpl(&world, 0);
    ck_assert(world_read(&world, GVA_2 + 0x5000, &value));
    shadow_widen_user_view(world.shadow, false);
    ck_assert_uint_eq(shadow_user_limit(world.shadow), GVA_2 + 0x5000);
    world_set_cpl(&world, 3);
    ck_assert(is_mapped(GVA_2 + 0x5000));
}
END_TEST

START_TEST(the_user_view_maps_nothing_of_the_supervisors)
{
    struct fault fault;

    set_pte(GVA, DATA | (SEEN & ~PTE_U));
    shadow_set_view(world.shadow, &world.vcpu, true); /* but CPL is 0: an engine between two worlds */
    ck_assert_int_eq(shadow_fault(world.shadow, &world.vcpu, GVA, 0, &fault), SHADOW_EMULATE);
    ck_assert(!is_mapped(GVA));
    ck_assert_int_eq(shadow_fault(world.shadow, &world.vcpu, GVA + PAGE_SIZE, 0, &fault), SHADOW_FILLED);
    ck_assert(!is_mapped(GVA) && is_mapped(GVA + PAGE_SIZE));
}
END_TEST

static TCase *registers_case(void)
{
    TCase *registers = tcase_create("registers");

    tcase_add_checked_fixture(registers, open_paged, close_paged);
    tcase_add_test(registers, a_switch_keeps_what_is_the_same);
    tcase_add_test(registers, a_switch_compares_page_by_page);
    tcase_add_test(registers, reloading_cr3_and_invlpg_keep_everything);
    tcase_add_test(registers, going_back_and_forth_protects_once);
    tcase_add_test(registers, registers_set_behind_our_back_are_followed);
    tcase_add_test(registers, wp_clear_lets_the_supervisor_write);
    tcase_add_test(registers, wp_clear_is_not_for_the_user);
    return registers;
}

static TCase *view_case(void)
{
    TCase *view = tcase_create("user view");

    tcase_add_checked_fixture(view, open_paged, close_paged);
    tcase_add_test(view, the_usual_split_costs_nothing);
    tcase_add_test(view, a_mixed_kernel_is_kept_from_the_user);
    tcase_add_test(view, the_limit_moves_between_user_and_supervisor);
    tcase_add_test(view, the_user_view_maps_nothing_of_the_supervisors);
    tcase_add_test(view, a_wide_view_has_no_limit_and_no_supervisor_pages);
    return view;
}

int main(void)
{
    Suite *suite = suite_create("shadow_switch");
    SRunner *runner;
    int failed;

    suite_add_tcase(suite, registers_case());
    suite_add_tcase(suite, view_case());
    runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
