/*
 * What a fuzz target is: LLVMFuzzerTestOneInput, as libFuzzer calls it. Built with -DRING3_FUZZ=ON it is
 * linked with libFuzzer; in every other build with replay.c, which feeds it the files of its corpus.
 *
 * A target aborts when a property that it checks does not hold; sanitizers find the rest. Read next:
 * fuzz_decode.c.
 */
#ifndef RING3_FUZZ_H
#define RING3_FUZZ_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);

#define FUZZ_CHECK(condition)                                                                                \
    do {                                                                                                     \
        if (!(condition)) {                                                                                  \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                                  \
            abort();                                                                                         \
        }                                                                                                    \
    } while (0)

#endif
