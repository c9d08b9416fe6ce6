/*
 * The shadow under PAE, where it differs: four directories from registers, entries of 8 bytes, regions of 2
 * MiB, and pages that cannot be executed. test_shadow_oracle.c has the random mixture.
 */
#include "shadow_world.h"

#define RAM_SIZE  (UINT64_C(64) << 20)
#define DIRECTORY 0x200000u
#define OTHER     0x201000u
#define TABLE     0x202000u
#define TABLE_2   0x203000u
#define DATA      0x1000000u
#define GVA       0x40200000u /* directory 1, its entry 1 */
#define GVA_2     0x40400000u
#define SEEN      ((uint64_t)(PTE_P | PTE_W | PTE_U | PTE_A | PTE_D))
#define PAGED     (CR0_PE | CR0_ET | CR0_PG | CR0_WP)

static struct world world;
static struct shadow_mapping mapping;
static uint32_t value;
static struct fault fault;

static void set(gpa_t table, uint32_t index, uint64_t to)
{
    ck_assert(memory_write(&world.memory, table + (gpa_t)index * 8, &to, sizeof to));
}

static void load_pdptes(uint64_t first, uint64_t second)
{
    world.vcpu.pdpte[0] = first;
    world.vcpu.pdpte[1] = second;
    world_set_registers(&world, PAGED, 0x5000, CR4_PAE);
}

static void open_pae(void)
{
    world_open(&world, RAM_SIZE, 0, 0, true, 0);
    world.vcpu.msr.efer = EFER_NXE;
    set(DIRECTORY, 1, TABLE | SEEN);
    set(DIRECTORY, 2, TABLE_2 | SEEN);
    for (uint32_t i = 0; i < 512; i++) {
        set(TABLE, i, (DATA + i * PAGE_SIZE) | SEEN);
        set(TABLE_2, i, (DATA + (512 + i) * PAGE_SIZE) | SEEN);
        *world_ram(&world, DATA + (gpa_t)i * PAGE_SIZE) = i;
    }
    load_pdptes(0, DIRECTORY | PTE_P);
}

static void close_pae(void)
{
    world_check(&world, true);
    world_close(&world);
}

static bool is_mapped(gva_t gva)
{
    return shadow_find(world.shadow, gva, &mapping);
}

static enum shadow_result fetch(gva_t gva)
{
    return shadow_fault(world.shadow, &world.vcpu, gva, PF_FETCH, &fault);
}

START_TEST(a_run_ends_with_its_region)
{
    for (uint32_t i = 0; i < 512; i++)
        ck_assert(world_read(&world, GVA + i * PAGE_SIZE, &value) && value == i);
    ck_assert_uint_eq(shadow_stats(world.shadow)->mappings, 512);
    ck_assert_uint_le(shadow_stats(world.shadow)->fills, 6);
    ck_assert(is_mapped(GVA) && mapping.execute && mapping.write);
    ck_assert(!is_mapped(GVA_2));
    set(DIRECTORY, 1, 0);
    ck_assert_uint_eq(shadow_stats(world.shadow)->mappings, 0);
}
END_TEST

START_TEST(large_pages_are_2_mib)
{
    set(DIRECTORY, 1, DATA | PTE_PS | SEEN);
    ck_assert(world_read(&world, GVA + 77 * PAGE_SIZE, &value) && value == 77);
    ck_assert_uint_eq(shadow_stats(world.shadow)->mappings, 512);
    set(DIRECTORY, 1, DATA | PTE_PS | SEEN | UINT64_C(1) << 40);
    ck_assert_uint_eq(shadow_stats(world.shadow)->mappings, 0);
}
END_TEST

START_TEST(half_an_entry_is_followed)
{
    uint32_t nx = 0x80000000, reserved = 0x10;

    ck_assert(world_read(&world, GVA, &value));
    ck_assert(memory_write(&world.memory, TABLE + 4, &nx, sizeof nx));
    ck_assert(!is_mapped(GVA) && is_mapped(GVA + PAGE_SIZE));
    ck_assert(world_read(&world, GVA, &value));
    ck_assert(memory_write(&world.memory, TABLE + 4, &reserved, sizeof reserved));
    ck_assert(!is_mapped(GVA));
    ck_assert(!world_read(&world, GVA, &value));
}
END_TEST

START_TEST(a_page_that_is_not_to_be_executed_is_not)
{
    set(TABLE, 3, (DATA + 3 * PAGE_SIZE) | SEEN | PTE_NX);
    ck_assert(world_write(&world, GVA, 5));
    ck_assert(is_mapped(GVA + 2 * PAGE_SIZE) && !is_mapped(GVA + 3 * PAGE_SIZE)); /* another run */
    ck_assert(world_write(&world, GVA + 3 * PAGE_SIZE, 5));
    ck_assert(is_mapped(GVA + 3 * PAGE_SIZE) && !mapping.execute && mapping.write);
    ck_assert_int_eq(fetch(GVA + 3 * PAGE_SIZE), SHADOW_GUEST);
    ck_assert_uint_eq(fault.error, PF_PRESENT | PF_FETCH);
    ck_assert_ptr_nonnull(shadow_fast(world.shadow, &world.vcpu, GVA + 3 * PAGE_SIZE, ACCESS_READ));
    ck_assert_ptr_null(shadow_fast(world.shadow, &world.vcpu, GVA + 3 * PAGE_SIZE, ACCESS_FETCH));
    ck_assert_ptr_nonnull(shadow_fast(world.shadow, &world.vcpu, GVA, ACCESS_FETCH));
    world_check(&world, true); /* against what the host has */
    set(TABLE, 3, (DATA + 3 * PAGE_SIZE) | SEEN);
    ck_assert(is_mapped(GVA + 3 * PAGE_SIZE) && !mapping.execute); /* until somebody wants it */
    ck_assert_int_eq(fetch(GVA + 3 * PAGE_SIZE), SHADOW_FILLED);
    ck_assert(is_mapped(GVA + 3 * PAGE_SIZE) && mapping.execute);
    set(DIRECTORY, 1, TABLE | SEEN | PTE_NX);
    ck_assert(!is_mapped(GVA));
}
END_TEST

START_TEST(nx_survives_write_protection)
{
    set(TABLE, 3, (DATA + 3 * PAGE_SIZE) | SEEN | PTE_NX);
    ck_assert(world_write(&world, GVA + 3 * PAGE_SIZE, 5));
    for (unsigned i = 0; i < 2; i++) {
        shadow_protect_code(&world.memory, (DATA >> PAGE_SHIFT) + 3);
        ck_assert(is_mapped(GVA + 3 * PAGE_SIZE) && !mapping.execute && !mapping.write);
        world_check(&world, true);
        shadow_forget_code(&world.memory, (DATA >> PAGE_SHIFT) + 3);
        ck_assert(world_write(&world, GVA + 3 * PAGE_SIZE, 6));
        ck_assert(is_mapped(GVA + 3 * PAGE_SIZE) && !mapping.execute && mapping.write);
        world_check(&world, true);
        /* and once more by mprotect */
        shadow_destroy(world.shadow);
        world.config.use_userfaultfd = false;
        world.shadow = shadow_create(&world.config, (char[1]){0}, 1);
        ck_assert(world_write(&world, GVA + 3 * PAGE_SIZE, 5));
    }
}
END_TEST

START_TEST(efer_says_what_bit_63_means)
{
    set(TABLE, 3, (DATA + 3 * PAGE_SIZE) | SEEN | PTE_NX);
    ck_assert(world_read(&world, GVA + 3 * PAGE_SIZE, &value));
    world.vcpu.msr.efer = 0;
    load_pdptes(0, DIRECTORY | PTE_P);
    ck_assert(!is_mapped(GVA + 3 * PAGE_SIZE));
    ck_assert(!world_access(&world, GVA + 3 * PAGE_SIZE, false, &value, &fault));
    ck_assert_uint_eq(fault.error, PF_PRESENT | PF_RESERVED);
}
END_TEST

START_TEST(directories_are_switched_one_by_one)
{
    uint64_t drops;

    set(OTHER, 2, TABLE_2 | SEEN);
    ck_assert(world_read(&world, GVA, &value));
    ck_assert(world_read(&world, GVA_2, &value));
    drops = shadow_stats(world.shadow)->drops;
    load_pdptes(OTHER | PTE_P, DIRECTORY | PTE_P);
    ck_assert_uint_eq(shadow_stats(world.shadow)->drops, drops);
    load_pdptes(OTHER | PTE_P, OTHER | PTE_P); /* one page is two directories */
    ck_assert(!is_mapped(GVA) && is_mapped(GVA_2));
    ck_assert(world_read(&world, GVA_2 - 0x40000000, &value));
    set(OTHER, 2, 0);
    ck_assert(!is_mapped(GVA_2) && !is_mapped(GVA_2 - 0x40000000));
    load_pdptes(OTHER | PTE_P, 0);
    ck_assert(!world_read(&world, GVA_2, &value));
    load_pdptes(0, UINT64_C(0x100000001)); /* beyond memory: all ones */
    ck_assert(!world_access(&world, GVA, false, &value, &fault));
    ck_assert_uint_eq(fault.error, PF_PRESENT | PF_RESERVED);
}
END_TEST

START_TEST(beyond_4_gib_there_is_nothing)
{
    set(TABLE, 0, UINT64_C(0x100000000) | DATA | SEEN);
    ck_assert_int_eq(shadow_fault(world.shadow, &world.vcpu, GVA, 0, &fault), SHADOW_EMULATE);
    ck_assert(!is_mapped(GVA));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("shadow_pae");
    TCase *pae = tcase_create("PAE");
    SRunner *runner;
    int failed;

    tcase_add_checked_fixture(pae, open_pae, close_pae);
    tcase_add_test(pae, a_run_ends_with_its_region);
    tcase_add_test(pae, large_pages_are_2_mib);
    tcase_add_test(pae, half_an_entry_is_followed);
    tcase_add_test(pae, a_page_that_is_not_to_be_executed_is_not);
    tcase_add_test(pae, nx_survives_write_protection);
    tcase_add_test(pae, efer_says_what_bit_63_means);
    tcase_add_test(pae, directories_are_switched_one_by_one);
    tcase_add_test(pae, beyond_4_gib_there_is_nothing);
    suite_add_tcase(suite, pae);
    runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
