/* translate/: instructions that choose their window by the address are the kernel's alone. */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "translate/build.h"

#define KERNEL  (MODE_FLAT_CS | MODE_FLAT_DS | MODE_FLAT_ES | MODE_FLAT_SS)
#define N_PAGES 16

/* mov eax, [ecx + 4]; rep movsd; ret */
static const uint8_t guest[] = {0x8b, 0x41, 0x04, 0xf3, 0xa5, 0xc3};

static struct cache cache;

static void setup(void)
{
    char error[256];

    ck_assert_msg(cache_create(&cache, N_PAGES, error, sizeof error), "%s", error);
}

static void teardown(void)
{
    cache_destroy(&cache);
}

static enum adapted all_split(void *ctx, uint64_t place)
{
    (void)ctx;
    (void)place;
    return ADAPTED_SPLIT;
}

static const struct block *build_from(const uint8_t *bytes, uint32_t n, uint32_t mode,
                                      enum adapted (*adapted)(void *ctx, uint64_t place))
{
    struct source source = {.bytes = bytes,
                            .limit = UINT32_MAX,
                            .n = n,
                            .place = 0x1000,
                            .eip = 0x1000,
                            .linear = 0x1000,
                            .mode = mode,
                            .adapted = adapted};
    const struct block *block = build_block(&cache, &source);

    ck_assert_ptr_nonnull(block);
    return block;
}

static const struct block *build(uint32_t mode, enum adapted (*adapted)(void *ctx, uint64_t place))
{
    return build_from(guest, sizeof guest, mode, adapted);
}

static bool is_same_code(const struct block *a, const struct block *b)
{
    return a->code_size == b->code_size &&
           memcmp(cache.executable + a->code, cache.executable + b->code, a->code_size) == 0;
}

START_TEST(the_kernels_instructions_choose)
{
    ck_assert(!is_same_code(build(KERNEL, all_split), build(KERNEL, NULL)));
}
END_TEST

START_TEST(the_users_never_do)
{
    ck_assert(is_same_code(build(KERNEL | MODE_USER, all_split), build(KERNEL | MODE_USER, NULL)));
}
END_TEST

static enum adapted all_called(void *ctx, uint64_t place)
{
    (void)ctx;
    (void)place;
    return ADAPTED_TOUCH;
}

/* What was adapted at the place may have been another instruction, and nobody would give this one back. */
START_TEST(sensitive_instructions_stay_what_they_are)
{
    static const uint8_t bytes[] = {0xfa, 0x9c, 0xd9, 0x00, 0x89, 0x03, 0xc3}; /* cli; pushf; fld; mov; ret */

    build_from(bytes, sizeof bytes, KERNEL | MODE_FPU, all_called);
    ck_assert_uint_eq(cache.n_calls, 2);
    ck_assert_uint_eq(cache.calls[0].insn.opcode, 0x89);
    ck_assert_uint_eq(cache.calls[1].insn.opcode, 0xc3);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("translate/split");
    TCase *tests = tcase_create("split");
    SRunner *runner;
    int failed;

    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_test(tests, the_kernels_instructions_choose);
    tcase_add_test(tests, the_users_never_do);
    tcase_add_test(tests, sensitive_instructions_stay_what_they_are);
    suite_add_tcase(suite, tests);
    runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
