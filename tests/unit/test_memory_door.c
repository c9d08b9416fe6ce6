/* The one door to guest memory: the PC's map of physical addresses, bounds, ROM, and who is told of a write.
 */
#include <check.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "shadowpt/shadowpt.h"

#define MIB (UINT64_C(1) << 20)

static struct guest_memory memory;

static void open_memory(uint64_t ram_size, uint64_t rom_size)
{
    char error[200] = "";

    ck_assert_msg(memory_create(&memory, ram_size, rom_size, error, sizeof error), "%s", error);
}

static void open_usual(void)
{
    open_memory(16 * MIB, 128 << 10);
}

static void close_memory(void)
{
    memory_destroy(&memory);
}

static bool is_all(const uint8_t *bytes, size_t n, uint8_t value)
{
    return n == 0 || (bytes[0] == value && memcmp(bytes, bytes + 1, n - 1) == 0);
}

START_TEST(addresses_map_to_pages_and_back)
{
    static const struct {
        gpa_t gpa;
        uint32_t rpn;
    } row[] = {
        {0, 0},
        {0x9ffff, 0x9f},
        {0xa0000, RPN_NONE},
        {0xbffff, RPN_NONE},
        {0xc0000, 0xc0},
        {0xfffff, 0xff},
        {0x100000, 0x100},
        {16 * MIB - 1, 0xfff},
        {16 * MIB, RPN_NONE},
        {0xfee00000, RPN_NONE},
        {0xfffdffff, RPN_NONE},
        {0xfffe0000, 0x1000},
        {0xffffffff, 0x101f},
        {UINT64_C(1) << 32, RPN_NONE},
        {UINT64_MAX, RPN_NONE},
    };

    for (size_t i = 0; i < sizeof row / sizeof row[0]; i++) {
        ck_assert_msg(memory_rpn(&memory, row[i].gpa) == row[i].rpn, "%llx", (unsigned long long)row[i].gpa);
        if (row[i].rpn != RPN_NONE)
            ck_assert_uint_eq(memory_gpa(&memory, row[i].rpn), row[i].gpa & ~(gpa_t)PAGE_MASK);
    }
}
END_TEST

START_TEST(runs_end_where_regions_do)
{
    ck_assert_uint_eq(memory_run(&memory, 0), 0xa0);
    ck_assert_uint_eq(memory_run(&memory, 0x9f123), 1);
    ck_assert_uint_eq(memory_run(&memory, 0xa0000), 0);
    ck_assert_uint_eq(memory_run(&memory, 0xc0000), 0x40);
    ck_assert_uint_eq(memory_run(&memory, 0x100000), 0xf00);
    ck_assert_uint_eq(memory_run(&memory, 0xffffffff), 1);
}
END_TEST

START_TEST(sizes_are_checked)
{
    static const struct {
        uint64_t ram, rom;
        bool is_fine;
    } row[] = {
        {MIB, 0, true},
        {MIB - PAGE_SIZE, 0, false},
        {0, 0, false},
        {MIB + 1, 0, false},
        {MEMORY_MAX_RAM, MEMORY_MAX_ROM, true},
        {MEMORY_MAX_RAM + PAGE_SIZE, 0, false},
        {MIB, 4097, false},
        {MIB, MEMORY_MAX_ROM + PAGE_SIZE, false},
        {UINT64_MAX, 0, false},
        {MIB, UINT64_MAX & ~(uint64_t)PAGE_MASK, false},
    };

    for (size_t i = 0; i < sizeof row / sizeof row[0]; i++) {
        char error[200] = "";
        struct guest_memory made;

        ck_assert_int_eq(memory_create(&made, row[i].ram, row[i].rom, error, sizeof error), row[i].is_fine);
        ck_assert_int_eq(error[0] == '\0', row[i].is_fine);
        ck_assert_ptr_null(strchr(error, '\n'));
        if (row[i].is_fine)
            memory_destroy(&made);
    }
}
END_TEST

START_TEST(smallest_memory_has_no_extended_region)
{
    open_memory(MIB, 0);
    ck_assert_uint_eq(memory.n_regions, 2);
    ck_assert_uint_eq(memory_rpn(&memory, MIB - 1), 0xff);
    ck_assert_uint_eq(memory_rpn(&memory, MIB), RPN_NONE);
    close_memory();
}
END_TEST

START_TEST(reads_see_writes_across_pages_and_regions)
{
    uint8_t out[3 * PAGE_SIZE], in[3 * PAGE_SIZE];

    for (size_t i = 0; i < sizeof out; i++)
        out[i] = (uint8_t)(i * 7 + 1);
    ck_assert(memory_write(&memory, 0x200ffd, out, sizeof out));
    ck_assert(memory_read(&memory, 0x200ffd, in, sizeof in));
    ck_assert_mem_eq(in, out, sizeof out);
    /* the ROM area ends where extended memory begins: the write reaches only the latter */
    ck_assert(memory_write(&memory, MEMORY_EXTENDED - 16, out, 32));
    ck_assert(memory_read(&memory, MEMORY_EXTENDED - 16, in, 32));
    for (size_t i = 0; i < 16; i++)
        ck_assert_uint_eq(in[i], 0);
    ck_assert_mem_eq(in + 16, out + 16, 16);
    ck_assert(memory_write(&memory, 0x9ffff, out, 1));
    ck_assert(memory_read(&memory, 0x5000, in, 0));
}
END_TEST

START_TEST(nothing_moves_unless_all_of_it_is_there)
{
    static const struct {
        gpa_t gpa;
        size_t n;
    } row[] = {
        {0x9fffc, 8},           {0xa0000, 1},       {0xbfffe, 4},         {16 * MIB - 1, 2},
        {0xfffdfffc, 8},        {0xfffffffc, 8},    {UINT64_MAX, 1},      {UINT64_MAX - 3, 8},
        {UINT64_C(1) << 63, 4}, {0x9f000, 0x22000}, {0x100000, 16 * MIB},
    };
    uint8_t *buf = malloc(16 * MIB);

    for (size_t i = 0; i < sizeof row / sizeof row[0]; i++) {
        memset(buf, 0x5a, row[i].n);
        ck_assert(!memory_read(&memory, row[i].gpa, buf, row[i].n));
        ck_assert(is_all(buf, row[i].n, 0x5a));
        ck_assert(!memory_write(&memory, row[i].gpa, buf, row[i].n));
        ck_assert(!memory_write_rom(&memory, row[i].gpa, buf, row[i].n));
    }
    free(buf);
    ck_assert(is_all(memory.hva, memory.size, 0));
}
END_TEST

START_TEST(rom_is_written_by_the_board_only)
{
    static const gpa_t rom[] = {0xc0000, 0xf0000, 0xffffc, 0xfffe0000, 0xfffffffc};
    uint32_t value = 0xdeadbeef, seen;

    for (size_t i = 0; i < sizeof rom / sizeof rom[0]; i++) {
        ck_assert(memory.page_flags[memory_rpn(&memory, rom[i])] & PAGE_IS_ROM);
        ck_assert(memory_write(&memory, rom[i], &value, sizeof value));
        ck_assert(memory_read(&memory, rom[i], &seen, sizeof seen));
        ck_assert_uint_eq(seen, 0);
        ck_assert(memory_write_rom(&memory, rom[i], &value, sizeof value));
        ck_assert(memory_read(&memory, rom[i], &seen, sizeof seen));
        ck_assert_uint_eq(seen, value);
    }
    ck_assert(!(memory.page_flags[memory_rpn(&memory, 0x9f000)] & PAGE_IS_ROM));
    ck_assert(!(memory.page_flags[memory_rpn(&memory, 0x100000)] & PAGE_IS_ROM));
}
END_TEST

START_TEST(entries_change_only_from_what_was_read)
{
    uint32_t entry = 0x1003, seen;

    ck_assert(memory_write(&memory, 0x3010, &entry, sizeof entry));
    ck_assert(!memory_update_entry(&memory, 0x3010, 0x1001, 0x1021));
    ck_assert(memory_read(&memory, 0x3010, &seen, sizeof seen));
    ck_assert_uint_eq(seen, 0x1003);
    ck_assert(memory_update_entry(&memory, 0x3010, 0x1003, 0x1023));
    ck_assert(memory_read(&memory, 0x3010, &seen, sizeof seen));
    ck_assert_uint_eq(seen, 0x1023);
    /* what cannot hold A and D stays as it is, and the walk goes on */
    ck_assert(memory_update_entry(&memory, 0xfffff000, 0, PTE_A));
    ck_assert(memory_read(&memory, 0xfffff000, &seen, sizeof seen));
    ck_assert_uint_eq(seen, 0);
    ck_assert(memory_update_entry(&memory, 0xa0000, 0, PTE_A));
    ck_assert(memory_update_entry(&memory, 0xfee00000, 0, PTE_A));
}
END_TEST

static uint8_t read_byte(gpa_t gpa)
{
    uint8_t byte = 0xff; /* nobody there */

    memory_read(&memory, gpa, &byte, 1);
    return byte;
}

static bool write_byte(gpa_t gpa, uint8_t byte)
{
    return memory_write(&memory, gpa, &byte, 1);
}

START_TEST(bios_area_is_ram_or_shows_the_rom)
{
    ck_assert(memory_write_rom(&memory, 0xf1234, "R", 1)); /* RAM, which reads only at the start */
    ck_assert(memory_write_rom(&memory, 0xffff1234, "F", 1));

    memory_set_shadow_ram(&memory, MEMORY_BIOS_FIRST, 0x40000, 0);
    ck_assert_uint_eq(memory_rpn(&memory, 0xf1234), memory_rpn(&memory, 0xffff1234));
    ck_assert_uint_eq(read_byte(0xf1234), 'F');
    ck_assert(write_byte(0xf1234, 'x'));
    ck_assert_uint_eq(read_byte(0xf1234), 'F');
    ck_assert_uint_eq(memory_rpn(&memory, 0xc0000), RPN_NONE); /* the ROM has 128 KiB */
    ck_assert(!write_byte(0xc0000, 'x'));
    ck_assert_uint_eq(memory_run(&memory, 0xe0000), 0x20);

    memory_set_shadow_ram(&memory, 0xf0000, 0x10000, SHADOW_RAM_READ | SHADOW_RAM_WRITE);
    ck_assert_uint_eq(read_byte(0xf1234), 'R');
    ck_assert(write_byte(0xf1234, 'w'));
    ck_assert_uint_eq(read_byte(0xf1234), 'w');
    ck_assert(!(memory.page_flags[0xf1] & PAGE_IS_ROM));

    memory_set_shadow_ram(&memory, 0xf0000, 0x10000, SHADOW_RAM_READ);
    ck_assert(write_byte(0xf1234, 'x'));
    ck_assert_uint_eq(read_byte(0xf1234), 'w');
    ck_assert(memory.page_flags[0xf1] & PAGE_IS_ROM);
}
END_TEST

START_TEST(rom_is_copied_to_the_ram_below_it)
{
    ck_assert(memory_write_rom(&memory, 0xfffe4000, "F", 1));
    memory_set_shadow_ram(&memory, 0xe4000, 0x4000, SHADOW_RAM_WRITE); /* read ROM, write RAM */
    ck_assert_uint_eq(read_byte(0xe4000), 'F');
    ck_assert(write_byte(0xe4000, 'w'));
    ck_assert_uint_eq(read_byte(0xe4000), 'F');
    memory_set_shadow_ram(&memory, 0xe4000, 0x4000, SHADOW_RAM_READ);
    ck_assert_uint_eq(read_byte(0xe4000), 'w');

    memory_set_shadow_ram(&memory, 0xc0000, 0x4000, SHADOW_RAM_WRITE); /* no ROM there, but RAM takes it */
    ck_assert_uint_eq(memory_rpn(&memory, 0xc0000), RPN_NONE);
    ck_assert(write_byte(0xc0000, 'w'));
    memory_set_shadow_ram(&memory, 0xc0000, 0x4000, SHADOW_RAM_READ);
    ck_assert_uint_eq(read_byte(0xc0000), 'w');
}
END_TEST

START_TEST(every_mix_of_shadows_has_room)
{
    for (unsigned i = 0; i < 12; i++) /* as the registers can: 12 of 16 KiB, and the last 64 KiB */
        memory_set_shadow_ram(&memory, MEMORY_BIOS_FIRST + i * MEMORY_SHADOW_SIZE, MEMORY_SHADOW_SIZE,
                              i % 2 == 0 ? SHADOW_RAM_READ : SHADOW_RAM_WRITE);
    memory_set_shadow_ram(&memory, 0xf0000, 0x10000, SHADOW_RAM_READ);
    ck_assert_uint_eq(memory_rpn(&memory, 0xc0000), 0xc0);
    ck_assert_uint_eq(memory_rpn(&memory, 0xc4000), RPN_NONE);
}
END_TEST

START_TEST(ram_is_cleared_and_rom_stays)
{
    ck_assert(write_byte(0x1000, 'w'));
    ck_assert(memory_write_rom(&memory, 0xffff1234, "F", 1));
    memory_clear_ram(&memory);
    ck_assert_uint_eq(read_byte(0x1000), 0);
    ck_assert_uint_eq(read_byte(0xffff1234), 'F');
}
END_TEST

static unsigned n_resident(uint32_t first, uint32_t end)
{
    unsigned char resident[4096];
    unsigned n = 0;

    ck_assert_int_eq(
        mincore(memory.hva + ((size_t)first << PAGE_SHIFT), (size_t)(end - first) << PAGE_SHIFT, resident),
        0);
    for (uint32_t i = 0; i < end - first; i++)
        n += resident[i] & 1;
    return n;
}

/* Twice, since the memory is given back in between; and to the end of RAM, which is not passed. */
START_TEST(memory_that_is_filled_is_there_ahead)
{
    const uint32_t end = 16 * MIB >> PAGE_SHIFT;

    if (madvise(memory.hva, PAGE_SIZE, MADV_POPULATE_WRITE) != 0)
        return; /* Linux before 5.14 */
    for (unsigned round = 0; round < 2; round++) {
        for (uint32_t rpn = 0x800; rpn < 0x840; rpn += 2) {
            memory_will_fill(&memory, rpn);
            memory_will_fill(&memory, rpn);
        }
        for (uint32_t rpn = 0x400; rpn < 0x408; rpn++)
            memory_will_fill(&memory, rpn);
        ck_assert_uint_eq(n_resident(0x100, end), 0);
        for (uint32_t rpn = end - 40; rpn < end; rpn++)
            memory_will_fill(&memory, rpn);
        ck_assert_uint_eq(n_resident(end - 40 + 16, end), 24);
        ck_assert_uint_eq(n_resident(0x100, end), 24);
        memory_clear_ram(&memory);
    }
}
END_TEST

static Suite *memory_suite(void)
{
    Suite *suite = suite_create("memory_door");
    TCase *usual = tcase_create("16 MiB and 128 KiB of ROM");
    TCase *sizes = tcase_create("sizes");

    tcase_add_checked_fixture(usual, open_usual, close_memory);
    tcase_add_test(usual, addresses_map_to_pages_and_back);
    tcase_add_test(usual, runs_end_where_regions_do);
    tcase_add_test(usual, reads_see_writes_across_pages_and_regions);
    tcase_add_test(usual, nothing_moves_unless_all_of_it_is_there);
    tcase_add_test(usual, rom_is_written_by_the_board_only);
    tcase_add_test(usual, entries_change_only_from_what_was_read);
    tcase_add_test(usual, bios_area_is_ram_or_shows_the_rom);
    tcase_add_test(usual, rom_is_copied_to_the_ram_below_it);
    tcase_add_test(usual, every_mix_of_shadows_has_room);
    tcase_add_test(usual, ram_is_cleared_and_rom_stays);
    tcase_add_test(usual, memory_that_is_filled_is_there_ahead);
    suite_add_tcase(suite, usual);
    tcase_add_test(sizes, sizes_are_checked);
    tcase_add_test(sizes, smallest_memory_has_no_extended_region);
    suite_add_tcase(suite, sizes);
    return suite;
}

int main(void)
{
    SRunner *runner = srunner_create(memory_suite());
    int failed;

    srunner_run_all(runner, CK_NORMAL);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
