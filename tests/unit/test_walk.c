/* The walk of the guest's page tables: rights, error codes, A and D, large pages, hostile tables. */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "shadowpt/shadowpt.h"

#define MIB       (UINT64_C(1) << 20)
#define DIRECTORY 0x10000u
#define TABLE     0x11000u
#define PAGE      0x345000u /* physical */
#define GVA       0x08049123u
#define RIGHTS    (PTE_P | PTE_W | PTE_U)

static struct guest_memory memory;
static struct vcpu vcpu;
static struct walk walk;
static struct fault fault;

static uint32_t *entry_at(gpa_t gpa)
{
    return (uint32_t *)(void *)(memory.hva + gpa);
}

static uint32_t *pde(void)
{
    return entry_at(DIRECTORY + (GVA >> 22) * 4);
}

static uint32_t *pte(void)
{
    return entry_at(TABLE + ((GVA >> 12) & 0x3ff) * 4);
}

static void open_machine(void)
{
    char error[200] = "";

    ck_assert_msg(memory_create(&memory, 16 * MIB, 64 << 10, error, sizeof error), "%s", error);
    memset(&vcpu, 0, sizeof vcpu);
    vcpu.cr0 = CR0_PE | CR0_PG;
    vcpu.cr3 = DIRECTORY;
    vcpu.cr4 = CR4_PSE | CR4_PGE;
    *pde() = TABLE | RIGHTS;
    *pte() = PAGE | RIGHTS;
}

static void close_machine(void)
{
    memory_destroy(&memory);
}

static bool walks(unsigned kind)
{
    return guest_walk(&memory, &vcpu, GVA, kind, false, &walk, &fault);
}

static bool peeks(unsigned kind)
{
    return guest_walk(&memory, &vcpu, GVA, kind, true, &walk, &fault);
}

/* The #PF that a refused access must raise. */
static void expect_fault(unsigned kind, uint32_t error)
{
    memset(&fault, 0xff, sizeof fault);
    ck_assert(!walks(kind));
    ck_assert_int_eq(fault.vector, EXCEPTION_PF);
    ck_assert(fault.has_error);
    ck_assert_uint_eq(fault.error, error);
    ck_assert_uint_eq(fault.cr2, GVA);
}

/* The gate stands between the CPU and all of memory, its page tables included. */
START_TEST(a_closed_a20_gate_folds_the_megabytes)
{
    memory.closed_bits = MEMORY_A20;
    ck_assert(walks(ACCESS_READ));
    ck_assert_uint_eq(walk.gpa, (PAGE & ~MEMORY_A20) | (GVA & PAGE_MASK));
    vcpu.cr3 = DIRECTORY | MEMORY_A20;
    ck_assert(walks(ACCESS_WRITE));
    ck_assert_uint_eq(walk.level[0].address, DIRECTORY + (GVA >> 22) * 4);
    ck_assert_uint_eq(*pte() & (PTE_A | PTE_D), PTE_A | PTE_D);
    vcpu.cr0 = CR0_PE;
    ck_assert(guest_walk(&memory, &vcpu, 0x10ffef, ACCESS_READ, false, &walk, &fault));
    ck_assert_uint_eq(walk.gpa, 0xffef);
    memory.closed_bits = 0;
    ck_assert(guest_walk(&memory, &vcpu, 0x10ffef, ACCESS_READ, false, &walk, &fault));
    ck_assert_uint_eq(walk.gpa, 0x10ffef);
}
END_TEST

START_TEST(paging_off_is_identity)
{
    vcpu.cr0 = CR0_PE;
    ck_assert(walks(ACCESS_WRITE | ACCESS_USER));
    ck_assert_uint_eq(walk.gpa, GVA);
    ck_assert_uint_eq(walk.n_levels, 0);
    ck_assert(walk.user && walk.write && walk.execute && walk.dirty && !walk.is_large && !walk.is_global);
}
END_TEST

START_TEST(two_levels_lead_to_the_page)
{
    *pte() |= PTE_G;
    ck_assert(walks(ACCESS_READ | ACCESS_USER));
    ck_assert_uint_eq(walk.gpa, PAGE | (GVA & PAGE_MASK));
    ck_assert_uint_eq(walk.n_levels, 2);
    ck_assert_uint_eq(walk.level[0].address, DIRECTORY + (GVA >> 22) * 4);
    ck_assert_uint_eq(walk.level[0].entry, TABLE | RIGHTS);
    ck_assert_str_eq(walk.level[0].name, "PDE");
    ck_assert_uint_eq(walk.level[1].address, TABLE + ((GVA >> 12) & 0x3ff) * 4);
    ck_assert_uint_eq(walk.level[1].entry, PAGE | RIGHTS | PTE_G);
    ck_assert_str_eq(walk.level[1].name, "PTE");
    ck_assert(walk.is_global && !walk.is_large);
    vcpu.cr4 &= ~CR4_PGE;
    ck_assert(walks(ACCESS_READ));
    ck_assert(!walk.is_global);
    vcpu.cr3 |= PTE_PWT | PTE_PCD; /* the only other bits of CR3; they lead nowhere else */
    ck_assert(walks(ACCESS_READ));
}
END_TEST

/* Each right, in each entry, for each access: SDM Vol 3A 4.6.1. */
START_TEST(rights_are_the_intersection)
{
    for (unsigned bits = 0; bits < 32; bits++) {
        bool pde_w = bits & 1, pde_u = bits & 2, pte_w = bits & 4, pte_u = bits & 8, wp = bits & 16;
        bool w = pde_w && pte_w, u = pde_u && pte_u;

        *pde() = TABLE | PTE_P | (pde_w ? PTE_W : 0) | (pde_u ? PTE_U : 0);
        *pte() = PAGE | PTE_P | (pte_w ? PTE_W : 0) | (pte_u ? PTE_U : 0);
        vcpu.cr0 = CR0_PE | CR0_PG | (wp ? CR0_WP : 0);
        ck_assert(peeks(ACCESS_READ));
        ck_assert_int_eq(walk.write, w);
        ck_assert_int_eq(walk.user, u);
        ck_assert(peeks(ACCESS_FETCH));
        ck_assert_int_eq(peeks(ACCESS_WRITE), w || !wp);
        ck_assert_int_eq(peeks(ACCESS_READ | ACCESS_USER), u);
        ck_assert_int_eq(peeks(ACCESS_FETCH | ACCESS_USER), u);
        ck_assert_int_eq(peeks(ACCESS_WRITE | ACCESS_USER), u && w);
    }
}
END_TEST

START_TEST(error_codes_name_the_cause)
{
    *pte() &= ~PTE_P;
    expect_fault(ACCESS_READ, 0);
    expect_fault(ACCESS_WRITE, PF_WRITE);
    expect_fault(ACCESS_READ | ACCESS_USER, PF_USER);
    expect_fault(ACCESS_FETCH | ACCESS_USER, PF_USER); /* no I bit without NX */
    *pte() = PAGE | PTE_P;
    expect_fault(ACCESS_READ | ACCESS_USER, PF_PRESENT | PF_USER);
    expect_fault(ACCESS_WRITE | ACCESS_USER, PF_PRESENT | PF_USER | PF_WRITE);
    vcpu.cr0 |= CR0_WP;
    expect_fault(ACCESS_WRITE, PF_PRESENT | PF_WRITE);
    *pde() = 0;
    expect_fault(ACCESS_WRITE | ACCESS_USER, PF_USER | PF_WRITE);
}
END_TEST

START_TEST(accessed_and_dirty_follow_the_access)
{
    ck_assert(peeks(ACCESS_WRITE));
    ck_assert_uint_eq(*pde() | *pte(), TABLE | PAGE | RIGHTS);
    ck_assert(walks(ACCESS_READ));
    ck_assert(!walk.dirty);
    ck_assert_uint_eq(*pde(), TABLE | RIGHTS | PTE_A);
    ck_assert_uint_eq(*pte(), PAGE | RIGHTS | PTE_A);
    ck_assert(walks(ACCESS_WRITE));
    ck_assert(walk.dirty);
    ck_assert_uint_eq(*pde(), TABLE | RIGHTS | PTE_A); /* D is the leaf's */
    ck_assert_uint_eq(*pte(), PAGE | RIGHTS | PTE_A | PTE_D);
}
END_TEST

START_TEST(a_fault_sets_nothing)
{
    *pte() = PAGE | PTE_P;
    expect_fault(ACCESS_WRITE | ACCESS_USER, PF_PRESENT | PF_USER | PF_WRITE);
    ck_assert_uint_eq(*pde(), TABLE | RIGHTS);
    ck_assert_uint_eq(*pte(), PAGE | PTE_P);
}
END_TEST

START_TEST(large_pages_need_pse)
{
    *pde() = 0x00800000 | RIGHTS | PTE_PS | PTE_G;
    ck_assert(walks(ACCESS_WRITE));
    ck_assert(walk.is_large && walk.is_global && walk.n_levels == 1);
    ck_assert_uint_eq(walk.gpa, 0x00800000 | (GVA & 0x3fffff));
    ck_assert_uint_eq(*pde(), 0x00800000 | RIGHTS | PTE_PS | PTE_G | PTE_A | PTE_D);
    *pde() |= 1 << 12; /* the PAT bit, not reserved */
    ck_assert(walks(ACCESS_READ));
    ck_assert_uint_eq(walk.gpa, 0x00800000 | (GVA & 0x3fffff));
    vcpu.cr4 &= ~CR4_PSE;
    *pde() = TABLE | RIGHTS | PTE_PS; /* now an ignored bit */
    ck_assert(walks(ACCESS_READ));
    ck_assert_uint_eq(walk.gpa, PAGE | (GVA & PAGE_MASK));
}
END_TEST

START_TEST(reserved_bits_fault)
{
    for (unsigned bit = 13; bit <= 21; bit++) {
        *pde() = 0x00800000 | RIGHTS | PTE_PS | (1u << bit);
        expect_fault(ACCESS_READ, PF_PRESENT | PF_RESERVED);
        expect_fault(ACCESS_WRITE | ACCESS_USER, PF_PRESENT | PF_RESERVED | PF_WRITE | PF_USER);
        *pde() &= ~PTE_P; /* not present goes first */
        expect_fault(ACCESS_READ, 0);
    }
}
END_TEST

START_TEST(tables_outside_memory_read_as_ones)
{
    vcpu.cr3 = 0xa0000; /* all ones: a 4 MiB entry with reserved bits */
    expect_fault(ACCESS_READ, PF_PRESENT | PF_RESERVED);
    vcpu.cr3 = DIRECTORY;
    *pde() = 0xfee00000 | RIGHTS;
    ck_assert(walks(ACCESS_WRITE | ACCESS_USER));
    ck_assert_uint_eq(walk.gpa, 0xfffff000 | (GVA & PAGE_MASK));
}
END_TEST

START_TEST(a_directory_that_maps_itself_settles)
{
    /* one entry is both levels' */
    gva_t gva = (5u << 22) | (5u << 12) | 5 * 4;
    uint32_t *entry = entry_at(DIRECTORY + 5 * 4);

    *entry = DIRECTORY | RIGHTS;
    ck_assert(guest_walk(&memory, &vcpu, gva, ACCESS_WRITE, false, &walk, &fault));
    ck_assert_uint_eq(walk.gpa, DIRECTORY + 5 * 4);
    ck_assert_uint_eq(*entry, DIRECTORY | RIGHTS | PTE_A | PTE_D);
}
END_TEST

START_TEST(tables_in_rom_work_but_keep_no_bits)
{
    uint32_t in_rom = PAGE | RIGHTS;

    *pde() = 0xfffff000 | RIGHTS;
    ck_assert(memory_write_rom(&memory, 0xfffff000 + ((GVA >> 12) & 0x3ff) * 4, &in_rom, sizeof in_rom));
    ck_assert(walks(ACCESS_WRITE));
    ck_assert_uint_eq(walk.gpa, PAGE | (GVA & PAGE_MASK));
    ck_assert(walks(ACCESS_READ));
    ck_assert_uint_eq(walk.level[1].entry, PAGE | RIGHTS);
}
END_TEST

/* ---- PAE ----------------------------------------------------------------------------------------------- */

#define PAE_GVA    0xc5249123u /* directory 3 */
#define PAE_OFFSET (PAE_GVA & PAGE_MASK)

static uint64_t *pae_entry(gpa_t gpa)
{
    return (uint64_t *)(void *)(memory.hva + gpa);
}

static uint64_t *pae_pde(void)
{
    return pae_entry(DIRECTORY + ((PAE_GVA >> 21) & 0x1ff) * 8);
}

static uint64_t *pae_pte(void)
{
    return pae_entry(TABLE + ((PAE_GVA >> 12) & 0x1ff) * 8);
}

static void open_pae(void)
{
    open_machine();
    vcpu.cr4 = CR4_PAE | CR4_PGE;
    vcpu.cr3 = 0x9020;
    vcpu.msr.efer = EFER_NXE;
    vcpu.pdpte[3] = DIRECTORY | PTE_P;
    *pae_pde() = TABLE | RIGHTS;
    *pae_pte() = PAGE | RIGHTS;
}

static bool pae_walks(unsigned kind)
{
    return guest_walk(&memory, &vcpu, PAE_GVA, kind, false, &walk, &fault);
}

static void expect_pae_fault(unsigned kind, uint32_t error)
{
    memset(&fault, 0xff, sizeof fault);
    ck_assert(!pae_walks(kind));
    ck_assert_int_eq(fault.vector, EXCEPTION_PF);
    ck_assert_uint_eq(fault.error, error);
    ck_assert_uint_eq(fault.cr2, PAE_GVA);
}

START_TEST(three_levels_lead_to_the_page)
{
    *pae_pte() |= PTE_G;
    ck_assert(pae_walks(ACCESS_WRITE | ACCESS_USER));
    ck_assert_uint_eq(walk.gpa, PAGE | PAE_OFFSET);
    ck_assert(walk.execute && walk.is_global && !walk.is_large);
    ck_assert_uint_eq(walk.n_levels, 3);
    ck_assert(walk.level[0].is_register && walk.level[0].address == 0x9020 + 3 * 8);
    ck_assert_uint_eq(walk.level[0].entry, DIRECTORY | PTE_P);
    ck_assert_str_eq(walk.level[0].name, "PDPTE");
    ck_assert_uint_eq(walk.level[1].address, DIRECTORY + ((PAE_GVA >> 21) & 0x1ff) * 8);
    ck_assert_str_eq(walk.level[1].name, "PDE");
    ck_assert_uint_eq(walk.level[2].address, TABLE + ((PAE_GVA >> 12) & 0x1ff) * 8);
    ck_assert_str_eq(walk.level[2].name, "PTE");
    ck_assert_uint_eq(*pae_pde(), TABLE | RIGHTS | PTE_A);
    ck_assert_uint_eq(*pae_pte(), PAGE | RIGHTS | PTE_G | PTE_A | PTE_D);
    ck_assert_uint_eq(vcpu.pdpte[3], DIRECTORY | PTE_P); /* has no A */
    vcpu.pdpte[3] = 0;
    vcpu.pdpte[2] = DIRECTORY | PTE_P;
    expect_pae_fault(ACCESS_WRITE, PF_WRITE);
}
END_TEST

START_TEST(no_execute_counts_in_each_level)
{
    for (unsigned bits = 0; bits < 4; bits++) {
        *pae_pde() = TABLE | RIGHTS | ((bits & 1) ? PTE_NX : 0);
        *pae_pte() = PAGE | RIGHTS | ((bits & 2) ? PTE_NX : 0);
        ck_assert(pae_walks(ACCESS_READ));
        ck_assert_int_eq(walk.execute, bits == 0);
        ck_assert(pae_walks(ACCESS_WRITE | ACCESS_USER));
        if (bits == 0) {
            ck_assert(pae_walks(ACCESS_FETCH));
            continue;
        }
        expect_pae_fault(ACCESS_FETCH, PF_PRESENT | PF_FETCH);
        expect_pae_fault(ACCESS_FETCH | ACCESS_USER, PF_PRESENT | PF_FETCH | PF_USER);
        vcpu.msr.efer = 0; /* then the bit is reserved */
        expect_pae_fault(ACCESS_READ, PF_PRESENT | PF_RESERVED);
        expect_pae_fault(ACCESS_FETCH, PF_PRESENT | PF_RESERVED);
        vcpu.msr.efer = EFER_NXE;
    }
    /* a fetch shows, whatever the cause */
    *pae_pde() = TABLE | RIGHTS;
    *pae_pte() = 0;
    expect_pae_fault(ACCESS_FETCH, PF_FETCH);
    *pae_pte() = PAGE | PTE_P;
    expect_pae_fault(ACCESS_FETCH | ACCESS_USER, PF_PRESENT | PF_FETCH | PF_USER);
    vcpu.msr.efer = 0;
    expect_pae_fault(ACCESS_FETCH | ACCESS_USER, PF_PRESENT | PF_USER);
}
END_TEST

START_TEST(pae_has_reserved_bits_in_each_level)
{
    for (unsigned bit = 9; bit < 63; bit++) {
        uint64_t flag = UINT64_C(1) << bit;
        bool is_reserved = bit >= 36;

        if (bit >= 12 && bit < 36)
            continue; /* the frame */
        *pae_pde() = TABLE | RIGHTS | flag;
        *pae_pte() = PAGE | RIGHTS;
        if (is_reserved)
            expect_pae_fault(ACCESS_READ, PF_PRESENT | PF_RESERVED);
        else
            ck_assert(pae_walks(ACCESS_READ));
        *pae_pde() = TABLE | RIGHTS;
        *pae_pte() = PAGE | RIGHTS | flag;
        if (is_reserved)
            expect_pae_fault(ACCESS_WRITE, PF_PRESENT | PF_RESERVED | PF_WRITE);
        else
            ck_assert(pae_walks(ACCESS_READ));
        *pae_pte() = flag; /* not present goes first */
        expect_pae_fault(ACCESS_READ, 0);
    }
}
END_TEST

START_TEST(pae_large_pages_need_no_pse)
{
    *pae_pde() = 0x00a00000 | RIGHTS | PTE_PS | PTE_G | 1 << 12;
    ck_assert(pae_walks(ACCESS_WRITE));
    ck_assert(walk.is_large && walk.is_global && walk.n_levels == 2);
    ck_assert_uint_eq(walk.gpa, 0x00a00000 | (PAE_GVA & 0x1fffff));
    ck_assert_uint_eq(*pae_pde() & (PTE_A | PTE_D), PTE_A | PTE_D);
    for (unsigned bit = 13; bit <= 20; bit++) {
        *pae_pde() = 0x00a00000 | RIGHTS | PTE_PS | 1u << bit;
        expect_pae_fault(ACCESS_READ, PF_PRESENT | PF_RESERVED);
    }
    *pae_pde() = UINT64_C(0xf00a00000) | RIGHTS | PTE_PS | PTE_NX;
    ck_assert(pae_walks(ACCESS_READ));
    ck_assert(!walk.execute);
    ck_assert_uint_eq(walk.gpa, UINT64_C(0xf00a00000) | (PAE_GVA & 0x1fffff));
}
END_TEST

START_TEST(pae_reaches_where_nothing_is)
{
    *pae_pte() = UINT64_C(0xffffff000) | RIGHTS;
    ck_assert(pae_walks(ACCESS_WRITE));
    ck_assert_uint_eq(walk.gpa, UINT64_C(0xffffff000) | PAE_OFFSET);
    ck_assert_uint_eq(memory_rpn(&memory, walk.gpa), RPN_NONE);
    *pae_pde() = UINT64_C(0x800011000) | RIGHTS; /* a table there is all ones */
    expect_pae_fault(ACCESS_READ, PF_PRESENT | PF_RESERVED);
    vcpu.pdpte[3] = UINT64_C(0x800010000) | PTE_P;
    expect_pae_fault(ACCESS_READ, PF_PRESENT | PF_RESERVED);
}
END_TEST

static Suite *walk_suite(void)
{
    Suite *suite = suite_create("walk");
    TCase *two_level = tcase_create("two levels");
    TCase *pae = tcase_create("PAE");

    tcase_add_checked_fixture(two_level, open_machine, close_machine);
    tcase_add_test(two_level, paging_off_is_identity);
    tcase_add_test(two_level, two_levels_lead_to_the_page);
    tcase_add_test(two_level, rights_are_the_intersection);
    tcase_add_test(two_level, error_codes_name_the_cause);
    tcase_add_test(two_level, accessed_and_dirty_follow_the_access);
    tcase_add_test(two_level, a_fault_sets_nothing);
    tcase_add_test(two_level, large_pages_need_pse);
    tcase_add_test(two_level, reserved_bits_fault);
    tcase_add_test(two_level, a_closed_a20_gate_folds_the_megabytes);
    tcase_add_test(two_level, tables_outside_memory_read_as_ones);
    tcase_add_test(two_level, a_directory_that_maps_itself_settles);
    tcase_add_test(two_level, tables_in_rom_work_but_keep_no_bits);
    suite_add_tcase(suite, two_level);
    tcase_add_checked_fixture(pae, open_pae, close_machine);
    tcase_add_test(pae, three_levels_lead_to_the_page);
    tcase_add_test(pae, no_execute_counts_in_each_level);
    tcase_add_test(pae, pae_has_reserved_bits_in_each_level);
    tcase_add_test(pae, pae_large_pages_need_no_pse);
    tcase_add_test(pae, pae_reaches_where_nothing_is);
    suite_add_tcase(suite, pae);
    return suite;
}

int main(void)
{
    SRunner *runner = srunner_create(walk_suite());
    int failed;

    srunner_run_all(runner, CK_NORMAL);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
