/*
 * Plain computation: six small programs that stand for what ordinary 32-bit code does between two traps.
 * None traps, all work in the first- and second-level caches, so that only the processor is measured. Each
 * returns a value that depends on all it did; the two worlds must agree on it. Read next: machine.c, native.c
 * (who runs them).
 */
#include <stdint.h>

#include "guest.h"

#define ENTRY(enumerator, function) uint32_t function(uint32_t n);
GUEST_ENTRIES(ENTRY)
#undef ENTRY

#define SIEVE_SIZE  16384u
#define MATRIX_SIZE 24u
#define CHASE_SIZE  1024u

static uint8_t composite[SIEVE_SIZE];
static uint32_t hash_table[256];
static int32_t left[MATRIX_SIZE][MATRIX_SIZE], right[MATRIX_SIZE][MATRIX_SIZE],
    product[MATRIX_SIZE][MATRIX_SIZE];
static uint32_t chain[CHASE_SIZE];
static struct link {
    const struct link *next;
} links[CHASE_SIZE];

/* Calls, returns, pushes and pops: naive Fibonacci numbers. */
uint32_t compute_calls(uint32_t n)
{
    return n < 2 ? n : compute_calls(n - 1) + compute_calls(n - 2);
}

/* Byte stores and branches: primes below SIEVE_SIZE, n times. */
uint32_t compute_sieve(uint32_t n)
{
    uint32_t primes = 0;

    while (n-- > 0) {
        for (uint32_t i = 0; i < SIEVE_SIZE; i++)
            composite[i] = 0;
        for (uint32_t i = 2; i < SIEVE_SIZE; i++) {
            if (composite[i])
                continue;
            primes++;
            for (uint32_t j = i + i; j < SIEVE_SIZE; j += i)
                composite[j] = 1;
        }
    }
    return primes;
}

/* Table look-ups that feed each other: CRC-32 of n bytes. */
uint32_t compute_hash(uint32_t n)
{
    uint32_t crc = UINT32_MAX;

    for (uint32_t i = 0; i < 256; i++) {
        uint32_t value = i;

        for (unsigned bit = 0; bit < 8; bit++)
            value = value >> 1 ^ (0xedb88320u & -(value & 1));
        hash_table[i] = value;
    }
    for (uint32_t i = 0; i < n; i++)
        crc = hash_table[(crc ^ i) & 0xff] ^ crc >> 8;
    return ~crc;
}

/* Multiplications and regular loads: an integer matrix product, n times. */
uint32_t compute_matrix(uint32_t n)
{
    uint32_t trace = 0;

    for (uint32_t i = 0; i < MATRIX_SIZE; i++) {
        for (uint32_t j = 0; j < MATRIX_SIZE; j++) {
            left[i][j] = (int32_t)(i + 2 * j);
            right[i][j] = (int32_t)(3 * i - j);
        }
    }
    while (n-- > 0) {
        for (uint32_t i = 0; i < MATRIX_SIZE; i++) {
            for (uint32_t j = 0; j < MATRIX_SIZE; j++) {
                int32_t sum = 0;

                for (uint32_t k = 0; k < MATRIX_SIZE; k++)
                    sum += left[i][k] * right[k][j];
                product[i][j] = sum;
            }
        }
        trace = trace * 31 + (uint32_t)product[n % MATRIX_SIZE][n % MATRIX_SIZE];
    }
    return trace;
}

/* Who comes after the i-th: all of them, in an order that no prefetcher knows. */
static uint32_t after(uint32_t i)
{
    return (i * 769 + 257) % CHASE_SIZE;
}

/* Nothing but dependent loads: n steps along a chain of pointers. The worst case for anything that makes a
 * load slower. */
uint32_t compute_pointers(uint32_t n)
{
    const struct link *at = links;

    for (uint32_t i = 0; i < CHASE_SIZE; i++)
        links[i].next = &links[after(i)];
    while (n-- > 0)
        at = at->next;
    return (uint32_t)(at - links);
}

/* The same along a chain of indices: an address is computed in each step. */
uint32_t compute_indices(uint32_t n)
{
    uint32_t at = 0;

    for (uint32_t i = 0; i < CHASE_SIZE; i++)
        chain[i] = after(i);
    while (n-- > 0)
        at = chain[at];
    return at;
}
