/*
 * frames.c: see frames.h.
 */
#include "frames.h"

static uint8_t frames[N_FRAMES][PAGE_SIZE] __attribute__((aligned(64 << 10)));

uint32_t frame(unsigned n)
{
    return (uintptr_t)frames[n];
}

uint32_t mark(unsigned n)
{
    return 0xf0000000 | n;
}

void frames_mark(void)
{
    for (unsigned n = 0; n < N_FRAMES; n++) {
        memset(frames[n], 0, PAGE_SIZE);
        poke(frame(n), mark(n));
        poke(frame(n) + PAGE_SIZE - 4, mark(n));
    }
}
