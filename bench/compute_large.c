/*
 * More plain computation, for the comparison with a translator (bench/peer): what a translator finds easy
 * (streams), what it finds hard (calls, indirect calls, dependent loads: compute_pointers), and string
 * instructions. Each does its work n times and returns a value that depends on it. Read next:
 * bench/peer/rows.py, which says what each is expected to take.
 */
#include <stddef.h>
#include <stdint.h>

#include "guest.h"

#define ENTRY(enumerator, function) uint32_t function(uint32_t n);
GUEST_ENTRIES(ENTRY)
#undef ENTRY

#define MIB   0x100000u
#define WORDS (MIB / sizeof(uint32_t))

static uint32_t *const source = (uint32_t *)GUEST_ARENA;
static uint32_t *const target = (uint32_t *)(GUEST_ARENA + MIB);
static uint8_t *const sieve = (uint8_t *)(GUEST_ARENA + 2 * MIB);

/* Every pass does its loads again. */
static inline void forget_memory(void)
{
    __asm__ volatile("" : : : "memory");
}

static void fill_source(void)
{
    for (uint32_t i = 0; i < WORDS; i++)
        source[i] = i * 2654435761u;
}

/* Not inlined into itself, which compilers do several levels deep (compute_calls), and then little is called.
 */
static __attribute__((noinline)) uint32_t fibonacci(uint32_t n)
{
    return n < 2 ? n : fibonacci(n - 1) + fibonacci(n - 2);
}

/* Naive Fibonacci numbers, of a size that everybody has seen: fib(32). */
uint32_t compute_fib(uint32_t n)
{
    uint32_t sum = 0;

    while (n-- > 0)
        sum += fibonacci(32);
    return sum;
}

/* Loads that do not depend on each other: the sum of 512 KiB, which is not the size of any usual cache: at
 * its edge the figure depends on which pages the memory happens to be. */
uint32_t compute_sum(uint32_t n)
{
    uint32_t sum = 0;

    fill_source();
    while (n-- > 0) {
        forget_memory();
        for (uint32_t i = 0; i < WORDS / 2; i++)
            sum += source[i];
    }
    return sum;
}

/* Copies 1 MiB, a word at a time. */
uint32_t compute_copy(uint32_t n)
{
    fill_source();
    while (n-- > 0) {
        forget_memory();
        for (uint32_t i = 0; i < WORDS; i++)
            target[i] = source[i];
    }
    return target[1] + target[WORDS - 1];
}

/* Copies 1 MiB by a string instruction. */
uint32_t compute_string_copy(uint32_t n)
{
    fill_source();
    while (n-- > 0) {
        uint32_t *to = target;
        const uint32_t *from = source;
        size_t count = WORDS;

        __asm__ volatile("rep movsl" : "+D"(to), "+S"(from), "+c"(count) : : "memory");
    }
    return target[1] + target[WORDS - 1];
}

/* Primes below a million, in 1 MiB of bytes. */
uint32_t compute_large_sieve(uint32_t n)
{
    uint32_t primes = 0;

    while (n-- > 0) {
        for (uint32_t i = 0; i < MIB; i++)
            sieve[i] = 0;
        for (uint32_t i = 2; i < MIB; i++) {
            if (sieve[i])
                continue;
            primes++;
            for (uint32_t j = i + i; j < MIB; j += i)
                sieve[j] = 1;
        }
    }
    return primes;
}

/* ---- indirect calls ------------------------------------------------------------------------------------ */

#define OPERATIONS(OPERATION)                                                                                \
    OPERATION(0, x + 0x9e3779b9u)                                                                            \
    OPERATION(1, x * 5)                                                                                      \
    OPERATION(2, x ^ x >> 7)                                                                                 \
    OPERATION(3, x << 3 | x >> 29)                                                                           \
    OPERATION(4, ~x)                                                                                         \
    OPERATION(5, x - 0x7f4a7c15u)                                                                            \
    OPERATION(6, x ^ x << 13)                                                                                \
    OPERATION(7, x >> 11 | x << 21)

#define OPERATION(number, value)                                                                             \
    static uint32_t operation_##number(uint32_t x)                                                           \
    {                                                                                                        \
        return value;                                                                                        \
    }
OPERATIONS(OPERATION)
#undef OPERATION

static uint32_t (*const volatile operations[])(uint32_t) = {
#define OPERATION(number, value) operation_##number,
    OPERATIONS(OPERATION)
#undef OPERATION
};

/*
 * 8 n calls through a table, each place in the code always calling the same function, as most indirect calls
 * of a kernel do: the processor predicts them all.
 */
uint32_t compute_indirect(uint32_t n)
{
    uint32_t x = 0;

    while (n-- > 0) {
#define OPERATION(number, value) x = operations[number](x);
        OPERATIONS(OPERATION)
#undef OPERATION
    }
    return x;
}

/*
 * n calls from one place to eight functions, as an interpreter makes them. The order repeats after 64 calls,
 * and yet processors guess many wrong.
 */
uint32_t compute_dispatch(uint32_t n)
{
    uint8_t order[64];
    uint32_t seed = 1, x = 0;

    for (uint32_t i = 0; i < sizeof order; i++) {
        seed = seed * 1103515245u + 12345u;
        order[i] = seed >> 16 & 7;
    }
    for (uint32_t i = 0; i < n; i++)
        x = operations[order[i % sizeof order]](x);
    return x;
}
