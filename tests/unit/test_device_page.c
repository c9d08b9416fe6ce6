/* Pages known to be a device's: for which accesses, and until when. */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "monitor/device_page.h"

#define MIB       (UINT64_C(1) << 20)
#define DIRECTORY 0x110000u
#define TABLE     0x111000u
#define LOW_TABLE 0xf0000u
#define POINTERS  0x112000u
#define DEVICE    0xfee00000u
#define GVA       0xc8049123u
#define RIGHTS    (PTE_P | PTE_W)

static struct guest_memory memory;
static struct vcpu vcpu;
static struct device_pages pages;

static uint32_t *entry_at(gpa_t gpa)
{
    return (uint32_t *)(void *)(memory.hva + gpa);
}

static uint32_t *pde(void)
{
    return entry_at(DIRECTORY + (GVA >> 22) * 4);
}

static uint32_t *pte(gpa_t table)
{
    return entry_at(table + ((GVA >> 12) & 0x3ff) * 4);
}

static void open_machine(void)
{
    char error[200] = "";

    ck_assert_msg(memory_create(&memory, 16 * MIB, 64 << 10, error, sizeof error), "%s", error);
    memset(&vcpu, 0, sizeof vcpu);
    memset(&pages, 0, sizeof pages);
    vcpu.cr0 = CR0_PE | CR0_PG;
    vcpu.cr3 = DIRECTORY;
    vcpu.cr4 = CR4_PSE;
    *pde() = TABLE | RIGHTS;
    *pte(TABLE) = DEVICE | RIGHTS;
}

static void close_machine(void)
{
    memory_destroy(&memory);
}

static void note(unsigned kind)
{
    struct walk walk;
    struct fault fault;

    ck_assert(guest_walk(&memory, &vcpu, GVA, kind, false, &walk, &fault));
    device_pages_note(&pages, &memory, GVA, kind, &walk);
}

static bool is_known(unsigned kind)
{
    gpa_t gpa = 0;
    bool is_found = device_pages_find(&pages, GVA, kind, &gpa);

    ck_assert(!is_found || gpa == (DEVICE | (GVA & PAGE_MASK)));
    return is_found;
}

START_TEST(known_for_what_it_was_found_for)
{
    ck_assert(!is_known(ACCESS_READ));
    note(ACCESS_READ);
    ck_assert(is_known(ACCESS_READ));
    ck_assert(!is_known(ACCESS_WRITE)); /* D is not set */
    ck_assert(!is_known(ACCESS_READ | ACCESS_USER));
    note(ACCESS_WRITE);
    ck_assert(!is_known(ACCESS_READ)); /* that was with D clear */
    note(ACCESS_READ);
    ck_assert(is_known(ACCESS_READ));
    ck_assert(is_known(ACCESS_WRITE));
    device_pages_forget(&pages);
    ck_assert(!is_known(ACCESS_READ));
    *pde() |= PTE_U;
    *pte(TABLE) |= PTE_U;
    note(ACCESS_READ | ACCESS_USER);
    ck_assert(is_known(ACCESS_READ | ACCESS_USER));
    ck_assert(!is_known(ACCESS_READ));
}
END_TEST

/* Another page that has the same slot. */
START_TEST(only_that_page)
{
    gpa_t gpa;

    note(ACCESS_READ);
    ck_assert(!device_pages_find(&pages, GVA + DEVICE_PAGES * PAGE_SIZE, ACCESS_READ, &gpa));
    ck_assert(!device_pages_find(&pages, GVA + PAGE_SIZE, ACCESS_READ, &gpa));
}
END_TEST

START_TEST(any_bit_of_its_entries_counts)
{
    uint32_t *entries[] = {pde(), pte(TABLE)};

    for (unsigned i = 0; i < 2; i++)
        for (unsigned bit = 0; bit < 32; bit++) {
            uint32_t before;

            note(ACCESS_WRITE);
            before = *entries[i];
            *entries[i] ^= 1u << bit;
            ck_assert_msg(!is_known(ACCESS_WRITE), "level %u, bit %u", i, bit);
            *entries[i] = before;
            ck_assert(is_known(ACCESS_WRITE));
        }
}
END_TEST

START_TEST(pae_and_large_pages)
{
    vcpu.cr3 = POINTERS;
    vcpu.cr4 = CR4_PAE;
    vcpu.pdpte[GVA >> 30] = DIRECTORY | PTE_P;
    *entry_at(DIRECTORY + ((GVA >> 21) & 0x1ff) * 8) = TABLE | RIGHTS;
    *entry_at(TABLE + ((GVA >> 12) & 0x1ff) * 8) = DEVICE | RIGHTS;
    note(ACCESS_WRITE);
    ck_assert(is_known(ACCESS_WRITE));
    *entry_at(TABLE + ((GVA >> 12) & 0x1ff) * 8 + 4) ^= 1; /* the upper half */
    ck_assert(!is_known(ACCESS_WRITE));

    vcpu.cr3 = DIRECTORY;
    vcpu.cr4 = CR4_PSE;
    *pde() = ((DEVICE - (GVA & 0x3ff000)) & 0xffc00000) | RIGHTS | PTE_PS;
    {
        struct walk walk;
        struct fault fault;
        gpa_t gpa;

        ck_assert(guest_walk(&memory, &vcpu, GVA, ACCESS_READ, false, &walk, &fault));
        device_pages_note(&pages, &memory, GVA, ACCESS_READ, &walk);
        ck_assert(device_pages_find(&pages, GVA + 1, ACCESS_READ, &gpa));
        ck_assert_uint_eq(gpa, walk.gpa + 1);
        *pde() &= ~PTE_PS;
        ck_assert(!device_pages_find(&pages, GVA, ACCESS_READ, &gpa));
    }
}
END_TEST

START_TEST(without_paging)
{
    vcpu.cr0 = CR0_PE;
    {
        struct walk walk;
        struct fault fault;
        gpa_t gpa;

        ck_assert(guest_walk(&memory, &vcpu, DEVICE + 4, ACCESS_READ, false, &walk, &fault));
        device_pages_note(&pages, &memory, DEVICE + 4, ACCESS_READ, &walk);
        ck_assert(device_pages_find(&pages, DEVICE + 8, ACCESS_READ, &gpa));
        ck_assert_uint_eq(gpa, DEVICE + 8);
    }
}
END_TEST

/* What is below 1 MiB may be switched without a byte of any entry changing. */
START_TEST(never_in_shadow_ram)
{
    *pte(TABLE) = 0xc8000 | RIGHTS;
    note(ACCESS_WRITE);
    ck_assert(!is_known(ACCESS_WRITE));
    *pde() = LOW_TABLE | RIGHTS;
    *pte(LOW_TABLE) = DEVICE | RIGHTS;
    note(ACCESS_READ);
    ck_assert(!is_known(ACCESS_READ));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("device pages");
    TCase *tests = tcase_create("device pages");
    SRunner *runner;
    int failed;

    tcase_add_checked_fixture(tests, open_machine, close_machine);
    tcase_add_test(tests, known_for_what_it_was_found_for);
    tcase_add_test(tests, only_that_page);
    tcase_add_test(tests, any_bit_of_its_entries_counts);
    tcase_add_test(tests, pae_and_large_pages);
    tcase_add_test(tests, without_paging);
    tcase_add_test(tests, never_in_shadow_ram);
    suite_add_tcase(suite, tests);
    runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
