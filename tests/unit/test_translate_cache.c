/* translate/cache: finding blocks by what they were made from and by host address, points, and how blocks
 * die. */
#include <check.h>
#include <string.h>

#include "shadowpt/shadowpt.h"
#include "translate/build.h"
#include "translate/cache.h"

#define N_PAGES 16u
#define MODE    (MODE_FLAT_CS | MODE_FLAT_DS | MODE_FLAT_ES | MODE_FLAT_SS)

static struct cache cache;
static char error[256];

static void setup(void)
{
    ck_assert_msg(cache_create(&cache, N_PAGES, error, sizeof error), "%s", error);
}

static void teardown(void)
{
    cache_destroy(&cache);
}

/* A block of `code`, placed at `place` of guest memory and run at the same EIP. What does not fit into the
 * page is on the page `second_rpn`. */
static struct block *make(uint32_t place, uint32_t mode, const char *code, uint32_t n, uint32_t second_rpn)
{
    uint32_t in_page = PAGE_SIZE - (place & PAGE_MASK);
    struct source source = {.bytes = (const uint8_t *)code,
                            .limit = UINT32_MAX,
                            .n = n < in_page ? n : in_page,
                            .place = place,
                            .eip = place,
                            .linear = place,
                            .mode = mode};

    if (n > in_page) {
        source.second = source.bytes + in_page;
        source.second_n = n - in_page;
        source.second_rpn = second_rpn;
    }
    return build_block(&cache, &source);
}

static struct block *make_nops(uint32_t place)
{
    return make(place, MODE, "\x90\x90\x90\xc3", 4, 0); /* nop; nop; nop; ret */
}

/* ---- finding ------------------------------------------------------------------------------------------- */

START_TEST(found_by_all_that_it_relies_on)
{
    struct block *block = make_nops(0x1010);

    ck_assert_ptr_nonnull(block);
    ck_assert_uint_eq(block->n_instructions, 4);
    ck_assert_uint_eq(block->guest_size, 4);
    ck_assert_ptr_eq(cache_find(&cache, 0x1010, 0x1010, MODE), block);
    ck_assert_ptr_null(cache_find(&cache, 0x1011, 0x1010, MODE));
    ck_assert_ptr_null(cache_find(&cache, 0x1010, 0x1011, MODE));
    ck_assert_ptr_null(cache_find(&cache, 0x1010, 0x1010, MODE | MODE_USER));
}
END_TEST

START_TEST(one_place_many_modes)
{
    struct block *kernel = make_nops(0x1010);
    struct block *user = make(0x1010, MODE | MODE_USER, "\xfa\xc3", 2, 0);

    ck_assert_ptr_eq(cache_find(&cache, 0x1010, 0x1010, MODE), kernel);
    ck_assert_ptr_eq(cache_find(&cache, 0x1010, 0x1010, MODE | MODE_USER), user);
}
END_TEST

START_TEST(found_by_host_address)
{
    const struct block *block[3];

    for (uint32_t i = 0; i < 3; i++)
        block[i] = make_nops(0x1000 + 16 * i);
    ck_assert_ptr_null(cache_block_at(&cache, cache.executable)); /* the jump for empty slots */
    for (int i = 0; i < 3; i++) {
        const uint8_t *start = cache.executable + block[i]->code;

        ck_assert_ptr_eq(cache_block_at(&cache, start), block[i]);
        ck_assert_ptr_eq(cache_block_at(&cache, start + block[i]->code_size - 1), block[i]);
        ck_assert_ptr_ne(cache_block_at(&cache, start + block[i]->code_size), block[i]);
        ck_assert_uint_eq((block[i]->code + block[i]->direct) % 32, 0);
    }
    ck_assert(cache_contains(&cache, cache.executable + cache.size - 1));
    ck_assert(!cache_contains(&cache, cache.executable + cache.size));
    ck_assert(!cache_contains(&cache, cache.executable - 1));
}
END_TEST

/* What is written appears in the other mapping. */
START_TEST(mapped_twice)
{
    const struct block *block = make_nops(0x1000);

    ck_assert_ptr_ne(cache.writable, cache.executable);
    ck_assert_mem_eq(cache.writable + block->code, cache.executable + block->code, block->code_size);
}
END_TEST

START_TEST(points_tell_eip_and_esp)
{
    /* push eax; push eax; nop */
    const struct block *block = make(0x1000, MODE, "\x50\x50\x90", 3, 0);
    const uint8_t *start = cache.executable + block->code;
    const struct point *point = block_point_at(&cache, block, start);
    bool is_seen = false;

    ck_assert_int_eq(point->kind, POINT_ENTRY);
    for (uint32_t i = 0; i < block->code_size; i++) {
        point = block_point_at(&cache, block, start + i);
        if (point->kind == POINT_EIP && point->eip == 0x1002) {
            is_seen = true;
            ck_assert_int_eq(point->esp, -8);
        }
        ck_assert_uint_le(point->offset, i);
    }
    ck_assert(is_seen);
}
END_TEST

/* ---- death --------------------------------------------------------------------------------------------- */

START_TEST(overlaps_by_byte)
{
    make_nops(0x1010);
    ck_assert(cache_has_code_of(&cache, 1));
    ck_assert(!cache_has_code_of(&cache, 2));
    ck_assert(!cache_overlaps(&cache, 1, 0x00, 0x10));
    ck_assert(cache_overlaps(&cache, 1, 0x00, 0x11));
    ck_assert(cache_overlaps(&cache, 1, 0x13, 1));
    ck_assert(!cache_overlaps(&cache, 1, 0x14, 0x100));
    ck_assert(!cache_overlaps(&cache, 2, 0x10, 4));
}
END_TEST

/* No jump leads into a dead block: its entry goes to the monitor. */
START_TEST(a_killed_page)
{
    struct block *dead = make_nops(0x1010), *alive = make_nops(0x2010);
    uint8_t before[8];

    memcpy(before, cache.writable + dead->code + dead->entry, sizeof before);
    cache_kill_page(&cache, 1);
    ck_assert(dead->is_dead && !alive->is_dead);
    ck_assert_mem_ne(before, cache.writable + dead->code + dead->entry, sizeof before);
    ck_assert_ptr_null(cache_find(&cache, 0x1010, 0x1010, MODE));
    ck_assert_ptr_eq(cache_find(&cache, 0x2010, 0x2010, MODE), alive);
    ck_assert(!cache_has_code_of(&cache, 1));
    ck_assert(!cache_overlaps(&cache, 1, 0x10, 4));
    ck_assert_ptr_eq(cache_block_at(&cache, cache.executable + dead->code),
                     dead); /* it may still be running */
    ck_assert_uint_eq(cache.n_killed, 1);
    ck_assert_ptr_ne(make_nops(0x1010), dead);
    ck_assert_ptr_nonnull(cache_find(&cache, 0x1010, 0x1010, MODE));
}
END_TEST

/* An instruction over the end of a page is a block by itself, and belongs to both pages, wherever they lie.
 */
START_TEST(over_a_page)
{
    const char mov[] = "\xb8\x11\x22\x33\x44\x90";

    for (uint32_t second = 0; second < 4; second++) {
        struct block *block = make(0x2ffd, MODE, mov, 6, second);

        ck_assert_ptr_nonnull(block);
        ck_assert_uint_eq(block->n_instructions, 1);
        ck_assert_uint_eq(block->second_rpn, second + 1);
        ck_assert(cache_overlaps(&cache, 2, 0xffd, 1));
        if (second != 2) { /* the same page twice has the first part's place alone */
            ck_assert(cache_overlaps(&cache, second, 1, 1));
            ck_assert(!cache_overlaps(&cache, second, 2, 1));
        }
        cache_kill_page(&cache, second);
        ck_assert(block->is_dead);
        cache_kill_page(&cache, 2);
        ck_assert_ptr_null(cache_find(&cache, 0x2ffd, 0x2ffd, MODE));
    }
    ck_assert_ptr_null(make(0x2ffd, MODE, mov, 3, 0)); /* the second page cannot be fetched */
}
END_TEST

START_TEST(lists_of_two_pages)
{
    struct block *first = make_nops(0x2000), *crossing, *last;

    crossing = make(0x2ffd, MODE, "\xb8\x11\x22\x33\x44", 5, 3);
    last = make_nops(0x3800);
    cache_kill_page(&cache, 3);
    ck_assert(!first->is_dead && crossing->is_dead && last->is_dead);
    ck_assert(cache_overlaps(&cache, 2, 0, 1));
    ck_assert(!cache_overlaps(&cache, 2, 0xffd, 3));
}
END_TEST

/* However often a place is made anew, its page has one block to look at. */
START_TEST(a_place_killed_again_and_again)
{
    struct block *other = make_nops(0x1020);

    for (int i = 0; i < 100; i++) {
        struct block *block = make_nops(0x1010);

        cache_kill_place(&cache, 0x1011);
        ck_assert(block->is_dead && block->is_sealed && !other->is_dead);
        ck_assert_ptr_eq(cache.by_page[1], other);
        ck_assert_ptr_null(other->next_page[0]);
    }
}
END_TEST

/* ---- filling ------------------------------------------------------------------------------------------- */

START_TEST(emptied_when_full)
{
    uint32_t n = 0;

    while (cache_has_room(&cache)) {
        ck_assert_ptr_nonnull(make_nops((n * 4) % (N_PAGES * PAGE_SIZE)));
        n++;
    }
    ck_assert_uint_gt(n, 1000);
    ck_assert_uint_eq(cache.n_translated, n);
    cache_empty(&cache);
    ck_assert_uint_eq(cache.n_flushes, 1);
    ck_assert(cache_has_room(&cache));
    ck_assert_ptr_null(cache_find(&cache, 0, 0, MODE));
    ck_assert_ptr_null(cache_block_at(&cache, cache.executable + 64));
    for (uint32_t i = 0; i < N_PAGES; i++)
        ck_assert(!cache_has_code_of(&cache, i));
    ck_assert_ptr_nonnull(make_nops(0));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("translate/cache");
    TCase *tests = tcase_create("cache");
    SRunner *runner;
    int failed;

    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_test(tests, found_by_all_that_it_relies_on);
    tcase_add_test(tests, one_place_many_modes);
    tcase_add_test(tests, found_by_host_address);
    tcase_add_test(tests, mapped_twice);
    tcase_add_test(tests, points_tell_eip_and_esp);
    tcase_add_test(tests, overlaps_by_byte);
    tcase_add_test(tests, a_killed_page);
    tcase_add_test(tests, over_a_page);
    tcase_add_test(tests, lists_of_two_pages);
    tcase_add_test(tests, a_place_killed_again_and_again);
    tcase_add_test(tests, emptied_when_full);
    suite_add_tcase(suite, tests);
    runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? 0 : 1;
}
