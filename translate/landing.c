/*
 * Has an indirect jump come to the right block? A slot of the jump table is found by the lower half of EIP
 * alone, so each block looks at its entry whether r8d is its own EIP, and must do so without touching flags.
 * JRCXZ branches without them, but only if RCX is zero, as a difference is if all is well; and a branch that
 * is taken right behind a jump costs a quarter of a small function (fib() on an Intel Xeon: 1.65 times native
 * with it, 1.27 without). So RCX is to be zero if the EIP is another. No arithmetic makes that of a
 * difference for little; a load does:
 *
 *      movzx ecx, byte ptr [r15 + r8 + (CONTEXT_LANDING - EIP)]
 *
 * reads the byte at the *landing* if r8d is EIP, and that is 1; else it reads as far from there as the two
 * differ, anywhere in gigabytes that all are 0. Nobody ever wrote there, so they are the host's one
 * page of zeros (and page tables that lead to it, 16 MiB if all were ever read).
 *
 * The displacement has 32 bits and a sign: for the higher EIPs the landing is 4 GiB further up, where a
 * second byte is 1. Neither can be read by mistake: two EIPs differ by less than 4 GiB, and those of one slot
 * by a multiple of 64 KiB, give or take 15 (direct_slot). For the same reason the context may lie in the
 * middle of it, since r15 has to be near: it is not near any multiple of 64 KiB from the landing.
 *
 * Read next: emit_entries in build.c.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "translate/translator.h"

#define GIB     (UINT64_C(1) << 30)
#define MARGIN  (UINT64_C(2) << 20)
#define BELOW   (2 * GIB + MARGIN)
#define SIZE    (8 * GIB + 2 * MARGIN)
#define APART   (4 * GIB)
#define NEAREST 15u

_Static_assert(CONTEXT_LANDING >= sizeof(struct context) + NEAREST && CONTEXT_LANDING % PAGE_SIZE == 0 &&
                   CONTEXT_LANDING + NEAREST < TABLE_SLOTS,
               "no EIP of another block's finds the context");

static bool mark(uint8_t *at)
{
    if (mprotect(at, PAGE_SIZE, PROT_READ | PROT_WRITE) != 0)
        return false;
    *at = 1;
    return mprotect(at, PAGE_SIZE, PROT_READ) == 0;
}

bool landing_create(struct translator *translator, char *error, size_t error_size)
{
    uint8_t *memory = mmap(NULL, SIZE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    size_t context_size = (sizeof(struct context) + PAGE_SIZE - 1) & ~(size_t)(PAGE_SIZE - 1);
    uint8_t *landing, *context;

    if (memory == MAP_FAILED) {
        snprintf(error, error_size,
                 "cannot reserve %zu GiB of addresses: %s (is there a limit on address space? `ulimit -v`)",
                 (size_t)(SIZE / GIB), strerror(errno));
        return false;
    }
    translator->landing = memory;
    landing = memory + BELOW;
    context = landing - CONTEXT_LANDING;
    if (!mark(landing) || !mark(landing + APART) ||
        mprotect(context, context_size, PROT_READ | PROT_WRITE) != 0) {
        snprintf(error, error_size, "cannot make the translator's context: %s", strerror(errno));
        return false;
    }
    translator->context = (struct context *)(void *)context;
    return true;
}

void landing_destroy(struct translator *translator)
{
    if (translator->landing != NULL)
        munmap(translator->landing, SIZE);
}
