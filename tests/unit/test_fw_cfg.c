/* The firmware configuration device as SeaBIOS and Linux read it: signature, items, directory, DMA. */
#include "devices/fw_cfg.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>

#define MEMORY_SIZE (1u << 16)
#include "dma_memory.h"

#define ACCESS 0x2000u /* where the DMA descriptor lies */

static struct fw_cfg cfg;

static void setup(void)
{
    memset(memory, 0, sizeof memory);
    fw_cfg_init(&cfg, &host);
}

static void teardown(void)
{
    fw_cfg_destroy(&cfg);
}

static void select_key(uint16_t key)
{
    fw_cfg_ops.write(&cfg, 0, 2, key);
}

static uint8_t next(void)
{
    return (uint8_t)fw_cfg_ops.read(&cfg, 1, 1);
}

static uint32_t next_be(unsigned size)
{
    uint32_t value = 0;

    while (size-- > 0)
        value = value << 8 | next();
    return value;
}

static void expect_next(const char *text)
{
    for (; *text != '\0'; text++)
        ck_assert_uint_eq(next(), (uint8_t)*text);
}

static void put_be(uint32_t gpa, uint64_t value, unsigned size)
{
    for (unsigned i = 0; i < size; i++)
        memory[gpa + i] = (uint8_t)(value >> 8 * (size - 1 - i));
}

/* Returns the control word afterwards. */
static uint32_t dma(uint32_t control, uint64_t gpa, uint32_t length)
{
    put_be(ACCESS, control, 4);
    put_be(ACCESS + 4, length, 4);
    put_be(ACCESS + 8, gpa, 8);
    fw_cfg_ops.write(&cfg, 4, 4, 0);
    fw_cfg_ops.write(&cfg, 8, 4, __builtin_bswap32(ACCESS));
    return (uint32_t)memory[ACCESS] << 24 | memory[ACCESS + 1] << 16 | memory[ACCESS + 2] << 8 |
           memory[ACCESS + 3];
}

START_TEST(it_says_what_it_is)
{
    select_key(FW_CFG_SIGNATURE);
    expect_next("QEMU");
    ck_assert_uint_eq(next(), 0); /* behind the end */
    select_key(FW_CFG_ID);
    ck_assert_uint_eq(next(), 3);
    ck_assert_uint_eq(fw_cfg_ops.read(&cfg, 4, 4), 0x554d4551);
    ck_assert_uint_eq(fw_cfg_ops.read(&cfg, 8, 4), 0x47464320);
}
END_TEST

START_TEST(items_are_read_from_their_start)
{
    fw_cfg_add_number(&cfg, FW_CFG_NB_CPUS, 0x1234, 2);
    select_key(FW_CFG_NB_CPUS);
    ck_assert_uint_eq(next(), 0x34);
    ck_assert_uint_eq(next(), 0x12);
    ck_assert_uint_eq(next(), 0);
    select_key(FW_CFG_NB_CPUS);
    ck_assert_uint_eq(next(), 0x34);
    select_key(0x1fff); /* there is none */
    ck_assert_uint_eq(next(), 0);
    fw_cfg_add_number(&cfg, FW_CFG_NB_CPUS, 7, 2); /* replaced */
    select_key(FW_CFG_NB_CPUS);
    ck_assert_uint_eq(next(), 7);
}
END_TEST

START_TEST(files_are_found_by_the_directory)
{
    fw_cfg_add_file(&cfg, "etc/one", "first", 5);
    fw_cfg_add_file(&cfg, "etc/two", "second", 6);
    fw_cfg_add_file(&cfg, "etc/one", "other", 5);
    select_key(FW_CFG_FILE_DIR);
    ck_assert_uint_eq(next_be(4), 2);
    ck_assert_uint_eq(next_be(4), 5);
    ck_assert_uint_eq(next_be(2), FW_CFG_FILE_FIRST);
    ck_assert_uint_eq(next_be(2), 0);
    expect_next("etc/one");
    for (unsigned i = 0; i < 56 - 7; i++)
        ck_assert_uint_eq(next(), 0);
    ck_assert_uint_eq(next_be(4), 6);
    ck_assert_uint_eq(next_be(2), FW_CFG_FILE_FIRST + 1);
    select_key(FW_CFG_FILE_FIRST);
    expect_next("other");
}
END_TEST

START_TEST(dma_selects_reads_and_skips)
{
    fw_cfg_add_file(&cfg, "etc/file", "0123456789", 10);
    ck_assert_uint_eq(dma(FW_CFG_FILE_FIRST << 16 | 0x0a, 0x3000, 4), 0);
    ck_assert_mem_eq(memory + 0x3000, "0123", 5);
    ck_assert_uint_eq(dma(0x04, 0, 2), 0);
    memory[0x3004] = 0xff;
    ck_assert_uint_eq(dma(0x02, 0x3000, 6), 0);
    ck_assert_mem_eq(memory + 0x3000, "6789\0\0", 6); /* zeros behind the end */
    ck_assert_uint_eq(dma(FW_CFG_FILE_FIRST << 16 | 0x08, 0, 0), 0);
    expect_next("01");
}
END_TEST

START_TEST(dma_that_cannot_be_is_an_error)
{
    ck_assert_uint_eq(dma(0x02, 0xfffe, 4), 1);              /* past the end of memory */
    ck_assert_uint_eq(dma(0x02, UINT64_MAX - 1, 4), 1);      /* and of addresses */
    ck_assert_uint_eq(dma(0x02, 0x4000, UINT32_MAX), 1);     /* a length made to run over it */
    ck_assert_uint_eq(dma(FW_CFG_ID << 16 | 0x18, 0, 4), 1); /* items are read-only */
    ck_assert_uint_eq(dma(0x04, 0, UINT32_MAX), 0);
    ck_assert_uint_eq(dma(0x04, 0, UINT32_MAX), 0);
    ck_assert_uint_eq(next(), 0);
    fw_cfg_ops.write(&cfg, 4, 4, 0xffffffff); /* a descriptor that is nowhere */
    fw_cfg_ops.write(&cfg, 8, 4, 0xffffffff);
}
END_TEST

START_TEST(narrow_accesses_do_nothing)
{
    select_key(FW_CFG_SIGNATURE);
    fw_cfg_ops.write(&cfg, 0, 1, FW_CFG_ID);
    ck_assert_uint_eq(next(), 'Q');
    ck_assert_uint_eq(fw_cfg_ops.read(&cfg, 0, 1), 0);
    ck_assert_uint_eq(fw_cfg_ops.read(&cfg, 0, 4), 0);
    ck_assert_uint_eq(next(), 'E'); /* nothing was taken */
}
END_TEST

static Suite *fw_cfg_suite(void)
{
    Suite *suite = suite_create("fw_cfg");
    TCase *cases = tcase_create("fw_cfg");

    tcase_add_checked_fixture(cases, setup, teardown);
    tcase_add_test(cases, it_says_what_it_is);
    tcase_add_test(cases, items_are_read_from_their_start);
    tcase_add_test(cases, files_are_found_by_the_directory);
    tcase_add_test(cases, dma_selects_reads_and_skips);
    tcase_add_test(cases, dma_that_cannot_be_is_an_error);
    tcase_add_test(cases, narrow_accesses_do_nothing);
    suite_add_tcase(suite, cases);
    return suite;
}

int main(void)
{
    SRunner *runner = srunner_create(fw_cfg_suite());

    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
