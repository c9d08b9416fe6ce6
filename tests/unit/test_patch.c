/* monitor/patch: what is remembered, what is written, and when a patch no longer counts. */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "monitor/patch.h"

static struct guest_memory memory;
static struct patch_table *patches;

static void setup(void)
{
    char error[256];

    ck_assert_msg(memory_create(&memory, 4 << 20, 64 << 10, error, sizeof error), "%s", error);
    patches = patch_create();
}

static void teardown(void)
{
    patch_free(patches);
    memory_destroy(&memory);
}

static uint8_t byte_at(gpa_t gpa)
{
    uint8_t byte = 0;

    ck_assert(memory_read(&memory, gpa, &byte, 1));
    return byte;
}

static struct insn put_insn(gpa_t gpa, const char *bytes, size_t n)
{
    struct insn insn = {.length = (uint8_t)n};

    memcpy(insn.bytes, bytes, n);
    ck_assert(memory_write_rom(&memory, gpa, bytes, n));
    return insn;
}

START_TEST(patches_and_finds)
{
    struct insn popf = put_insn(0x100000, "\x9d", 1);
    struct insn sgdt = put_insn(0x100ffe, "\x0f\x01\x05\x00\x00\x00\x00", 7); /* over a page boundary */
    uint8_t original = 0;

    ck_assert_uint_eq(patch_count(patches), 0);
    ck_assert(!patch_find(patches, &memory, 0x100000, &original));
    patch_add(patches, &memory, 0x100000, &popf);
    patch_add(patches, &memory, 0x100ffe, &sgdt);
    ck_assert_uint_eq(patch_count(patches), 2);
    ck_assert_uint_eq(byte_at(0x100000), PATCH_BYTE);
    ck_assert_uint_eq(byte_at(0x100ffe), PATCH_BYTE);
    ck_assert_uint_eq(byte_at(0x100fff), 0x01); /* only the first byte */
    ck_assert(patch_find(patches, &memory, 0x100000, &original));
    ck_assert_uint_eq(original, 0x9d);
    ck_assert(patch_find(patches, &memory, 0x100ffe, &original));
    ck_assert_uint_eq(original, 0x0f);
    ck_assert(!patch_find(patches, &memory, 0x100001, &original));
}
END_TEST

START_TEST(patches_rom)
{
    struct insn popf = put_insn(0xfffffff0, "\x9d", 1);
    uint8_t original = 0;

    patch_add(patches, &memory, 0xfffffff0, &popf);
    ck_assert_uint_eq(byte_at(0xfffffff0), PATCH_BYTE);
    ck_assert(patch_find(patches, &memory, 0xfffffff0, &original));
    ck_assert_uint_eq(original, 0x9d);
}
END_TEST

/* The guest put other code there, or its own HLT, before or after: not ours. */
START_TEST(only_while_it_is_there)
{
    struct insn popf = put_insn(0x100000, "\x9d", 1), hlt = put_insn(0x100010, "\xf4", 1);
    uint8_t original = 0x55, nop = 0x90, patch = PATCH_BYTE;

    patch_add(patches, &memory, 0x100000, &popf);
    ck_assert(memory_write(&memory, 0x100000, &nop, 1));
    ck_assert(!patch_find(patches, &memory, 0x100000, &original));
    ck_assert(memory_write(&memory, 0x100000, &patch, 1)); /* written back as it was read: still ours */
    ck_assert(patch_find(patches, &memory, 0x100000, &original));
    ck_assert_uint_eq(original, 0x9d);

    patch_add(patches, &memory, 0x100010, &hlt); /* a HLT needs no patch */
    ck_assert(!patch_find(patches, &memory, 0x100010, &original));
    ck_assert(memory_write(&memory, 0x100020, &nop, 1));
    patch_add(patches, &memory, 0x100020, &popf); /* memory is not what was swept */
    ck_assert_uint_eq(byte_at(0x100020), 0x90);
    patch_add(patches, &memory, 0xf0000000, &popf); /* no memory there */
    ck_assert(!patch_find(patches, &memory, 0xf0000000, &original));
    ck_assert_uint_eq(patch_count(patches), 1);
}
END_TEST

START_TEST(adding_twice)
{
    struct insn popf = put_insn(0x100000, "\x9d", 1);
    uint8_t original = 0;

    patch_add(patches, &memory, 0x100000, &popf);
    patch_add(patches, &memory, 0x100000, &popf);
    ck_assert_uint_eq(patch_count(patches), 1);
    ck_assert(patch_find(patches, &memory, 0x100000, &original));
    ck_assert_uint_eq(original, 0x9d);
}
END_TEST

START_TEST(many)
{
    struct insn insn = {.length = 1};
    uint8_t original = 0;

    for (gpa_t gpa = 0x100000; gpa < 0x110000; gpa += 3) {
        insn.bytes[0] = (uint8_t)(gpa % 199);
        ck_assert(memory_write(&memory, gpa, insn.bytes, 1));
        patch_add(patches, &memory, gpa, &insn);
    }
    ck_assert_uint_eq(patch_count(patches), (0x10000 + 2) / 3);
    for (gpa_t gpa = 0x100000; gpa < 0x110000; gpa++) {
        ck_assert_int_eq(patch_find(patches, &memory, gpa, &original), (gpa - 0x100000) % 3 == 0);
        if ((gpa - 0x100000) % 3 == 0)
            ck_assert_uint_eq(original, gpa % 199);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("patch");
    TCase *tests = tcase_create("patch");
    SRunner *runner;
    int failed;

    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_test(tests, patches_and_finds);
    tcase_add_test(tests, patches_rom);
    tcase_add_test(tests, only_while_it_is_there);
    tcase_add_test(tests, adding_twice);
    tcase_add_test(tests, many);
    suite_add_tcase(suite, tests);
    runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
