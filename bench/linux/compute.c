/*
 * Computation, by the functions that bench/compute.c and bench/compute_large.c have for all benchmarks, and
 * the copying of a C library. Read next: memory.c.
 */
#include "rows.h"
#include "system.h"

#include "../guest.h"

#define ENTRY(enumerator, function) uint32_t function(uint32_t n);
GUEST_ENTRIES(ENTRY)
#undef ENTRY

#define ARENA_PAGES (GUEST_ARENA_SIZE / PAGE_SIZE)
#define MIB         0x100000u

static volatile uint32_t result; /* nothing is computed for nothing */

/* Used once before the clock runs: a monitor may map what the guest's kernel has populated only when it is
 * used, and by whom. */
static void prepare_arena(void (*run)(uint32_t n))
{
    touch_pages(map_pages((void *)GUEST_ARENA, ARENA_PAGES, MAP_PRIVATE | MAP_FIXED), ARENA_PAGES);
    run(1);
}

static void finish_arena(void)
{
    unmap_pages((uint8_t *)GUEST_ARENA, ARENA_PAGES);
}

static void run_sieve(uint32_t n)
{
    result = compute_large_sieve(n);
}

static void prepare_sieve(uint32_t n)
{
    (void)n;
    prepare_arena(run_sieve);
}

static void run_fib(uint32_t n)
{
    uint32_t sum = 0;

    while (n-- > 0)
        sum += compute_calls(30);
    result = sum;
}

static void run_copy_words(uint32_t n)
{
    result = compute_copy(n);
}

static void prepare_copy_words(uint32_t n)
{
    (void)n;
    prepare_arena(run_copy_words);
}

static void run_copy_string(uint32_t n)
{
    result = compute_string_copy(n);
}

static void prepare_copy_string(uint32_t n)
{
    (void)n;
    prepare_arena(run_copy_string);
}

/* 1 MiB, by vectors of 16 bytes: how i386 C libraries copy what is not small. */
static void run_copy_vectors(uint32_t n)
{
    while (n-- > 0) {
        const uint8_t *from = (const uint8_t *)GUEST_ARENA;
        uint8_t *to = (uint8_t *)GUEST_ARENA + MIB;
        const uint8_t *end = from + MIB;

        __asm__ volatile("0: movdqu (%[from]), %%xmm0\n\t"
                         "movdqu 16(%[from]), %%xmm1\n\t"
                         "movdqu 32(%[from]), %%xmm2\n\t"
                         "movdqu 48(%[from]), %%xmm3\n\t"
                         "movdqa %%xmm0, (%[to])\n\t"
                         "movdqa %%xmm1, 16(%[to])\n\t"
                         "movdqa %%xmm2, 32(%[to])\n\t"
                         "movdqa %%xmm3, 48(%[to])\n\t"
                         "add $64, %[from]\n\t"
                         "add $64, %[to]\n\t"
                         "cmp %[end], %[from]\n\t"
                         "jb 0b"
                         : [from] "+&r"(from), [to] "+&r"(to)
                         : [end] "r"(end)
                         : "memory", "cc");
    }
}

static void prepare_copy_vectors(uint32_t n)
{
    (void)n;
    prepare_arena(run_copy_vectors);
}

static void run_pointers(uint32_t n)
{
    result = compute_pointers(n);
}

static void run_indices(uint32_t n)
{
    result = compute_indices(n);
}

const struct measure compute_measures[] = {
    {"sieve", prepare_sieve, run_sieve, finish_arena, 0},
    {"fib", 0, run_fib, 0, 0},
    {"memcpy", prepare_copy_vectors, run_copy_vectors, finish_arena, 0},
    {"copy-words", prepare_copy_words, run_copy_words, finish_arena, 0},
    {"copy-string", prepare_copy_string, run_copy_string, finish_arena, 0},
    {"pointers", 0, run_pointers, 0, 0},
    {"indices", 0, run_indices, 0, 0},
    {0, 0, 0, 0, 0},
};
