/*
 * nano_native MEASURE COUNT ROUNDS|grow: a computation of the 32-bit image, natively, between the markers
 * that the guest writes (bench/nano/nano.h), so that one harness times them alike. Read next: native.c.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bench/bench.h"
#include "vcpu/fail.h"

#define MARK_BEGIN 1 /* NANO_MARK_* of nano.h, which is the guest's */
#define MARK_END   2

static const struct {
    const char *name;
    enum guest_entry entry;
} measures[] = {
    {"sum", ENTRY_SUM},           {"copy", ENTRY_COPY},         {"rep-movs", ENTRY_STRING_COPY},
    {"pointers", ENTRY_POINTERS}, {"indices", ENTRY_INDICES},   {"fib", ENTRY_FIB},
    {"indirect", ENTRY_INDIRECT}, {"dispatch", ENTRY_DISPATCH}, {"sieve", ENTRY_LARGE_SIEVE},
};

static void put(char mark)
{
    if (write(STDOUT_FILENO, &mark, 1) != 1)
        die("standard output is closed");
}

int main(int argc, char **argv)
{
    struct side side = {.n = 1};
    bool is_growing, is_known = false;
    unsigned long n_rounds;
    uint32_t result = 0;

    for (size_t i = 0; argc == 4 && i < sizeof measures / sizeof measures[0]; i++) {
        if (strcmp(argv[1], measures[i].name) == 0) {
            side.entry = measures[i].entry;
            is_known = true;
        }
    }
    if (!is_known) {
        fprintf(stderr, "usage: nano_native MEASURE COUNT ROUNDS|grow\n");
        return 2;
    }
    side.argument = (uint32_t)strtoul(argv[2], NULL, 10);
    is_growing = strcmp(argv[3], "grow") == 0;
    n_rounds = strtoul(argv[3], NULL, 10);

    native_open(&side);
    for (unsigned long i = 0; i < n_rounds || is_growing; i++) {
        put(MARK_BEGIN);
        result = native_round(&side);
        put(MARK_END);
        if (is_growing && side.argument < 1u << 29)
            side.argument *= 4;
    }
    printf("=%08x\n", result);
    return EXIT_SUCCESS;
}
