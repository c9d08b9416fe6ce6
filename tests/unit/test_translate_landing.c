/* What a block reads at its entry: 1 for its own EIP, 0 for every other that its slot of a jump table may
 * lead to it, whatever the context in the middle of it holds. */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "translate/translator.h"

#define RANDOM_PAIRS 20000
#define SEED         1

static struct translator translator;

static void setup(void)
{
    char error[256] = "";

    memset(&translator, 0, sizeof translator);
    ck_assert_msg(landing_create(&translator, error, sizeof error), "%s", error);
    memset(translator.context, 0xff, sizeof *translator.context);
}

static void teardown(void)
{
    landing_destroy(&translator);
}

/* As emit_landing has it: r15 + r8 + a displacement with a sign. */
static unsigned look(uint32_t r8, uint32_t eip)
{
    int64_t displacement = (int32_t)(CONTEXT_LANDING - eip);

    return *(const volatile uint8_t *)((uintptr_t)translator.context + r8 + (uintptr_t)displacement);
}

/* Where the displacement changes its sign, and at both ends. */
static const uint32_t edges[] = {0,          1,          0x7ffe,     0x7fff,     0x8000,     0x8001,
                                 0x00100690, 0x7ffeffff, 0x7fff8000, 0x7fffffff, 0x80000000, 0x80007fff,
                                 0x80008000, 0x80008001, 0xc0101000, 0xffff7fff, 0xffff8000, 0xffffffff};

#define N_EDGES (int)(sizeof edges / sizeof edges[0])

START_TEST(a_block_knows_its_eip)
{
    ck_assert_uint_eq(look(edges[_i], edges[_i]), 1);
}
END_TEST

/* By the lower half for indirect jumps, and for direct ones by direct_slot. */
START_TEST(nobody_else_of_the_slot_is_taken_for_it)
{
    uint32_t eip = edges[_i];

    for (uint32_t k = 1; k < 0x10000; k += k < 64 ? 1 : 61) {
        ck_assert_uint_eq(look(eip + (k << 16), eip), 0);
        for (uint32_t s = 0; s < 16; s++) {
            uint32_t other = ((eip + (k << 16)) & ~15u) | s;

            if (direct_slot(other) == direct_slot(eip) && other != eip)
                ck_assert_uint_eq(look(other, eip), 0);
        }
    }
}
END_TEST

START_TEST(random_pairs)
{
    srand(SEED);
    for (int i = 0; i < RANDOM_PAIRS; i++) {
        uint32_t eip = (uint32_t)rand() << 16 ^ (uint32_t)rand();
        uint32_t other = (uint32_t)rand() << 16 | (eip & 0xffff);

        ck_assert_uint_eq(look(eip, eip), 1);
        ck_assert_uint_eq(look(other, eip), other == eip);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("translate/landing");
    TCase *tests = tcase_create("landing");
    SRunner *runner;
    int n_failed;

    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_loop_test(tests, a_block_knows_its_eip, 0, N_EDGES);
    tcase_add_loop_test(tests, nobody_else_of_the_slot_is_taken_for_it, 0, N_EDGES);
    tcase_add_test(tests, random_pairs);
    suite_add_tcase(suite, tests);
    runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    n_failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return n_failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
