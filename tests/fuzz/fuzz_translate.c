/*
 * The translator's blocks of any bytes in any mode: the host code keeps the rules of unit/host_code.h. Input:
 * where the code is and what it may rely on (struct start), then the bytes: blocks are made of them one
 * behind the other, and again as a jump into the middle of an instruction would have them.
 */
#include <string.h>

#include "fuzz.h"

#define HOST_CODE_WRONG(...) (fprintf(stderr, __VA_ARGS__), abort())
#include "unit/host_code.h"

#define N_PAGES   1024u
#define MAX_BYTES 512u
#define MODE_BITS 12 /* enum mode_bit */

struct start {
    uint16_t mode;   /* its lower bits, and from bit 12 on the number of CS */
    uint16_t eip;    /* its lower bits */
    uint32_t base;   /* of CS, if that is not flat */
    uint32_t called; /* which instructions are adapted: a bit each, by place */
    uint8_t options; /* bits: 1 no second page, 2 a high EIP, 4 no slots */
};

static uint32_t mode_of_start(const struct start *start)
{
    uint32_t mode = start->mode & ((1u << MODE_BITS) - 1), number = start->mode >> 12;

    return number == 0 ? mode | MODE_FLAT_CS : (mode & ~(uint32_t)MODE_FLAT_CS) | number << MODE_CS_SHIFT;
}

static enum adapted adapted(void *ctx, uint64_t place)
{
    const struct start *start = ctx;

    return start->called >> (place & 31) & 1 ? ADAPTED_TOUCH : ADAPTED_NOT;
}

static struct source source_of(struct start *start, const uint8_t *bytes, uint32_t n, uint32_t offset)
{
    uint32_t mode = mode_of_start(start);
    uint32_t eip = (start->options & 2 ? 0xffff0000 : 0x100000) + start->eip + offset;
    uint32_t linear = eip + (mode & MODE_FLAT_CS ? 0 : start->base),
             in_page = PAGE_SIZE - (linear & PAGE_MASK);
    struct source source = {.bytes = bytes + offset,
                            .limit = UINT32_MAX,
                            .n = n - offset < in_page ? n - offset : in_page,
                            .place = linear & (N_PAGES * PAGE_SIZE - 1),
                            .eip = eip,
                            .linear = linear,
                            .mode = mode,
                            .has_rorx = !(start->options & 4),
                            .adapted = adapted,
                            .ctx = start};

    if (n - offset > in_page && !(start->options & 1)) {
        source.second = bytes + offset + in_page;
        source.second_n = n - offset - in_page;
        source.second_rpn = (uint32_t)(source.place >> PAGE_SHIFT) ^ 1;
    }
    return source;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    static bool is_ready;
    struct start start = {.mode = 0};
    char error[256];

    if (n < sizeof start)
        return 0;
    memcpy(&start, bytes, sizeof start);
    bytes += sizeof start;
    n = n - sizeof start < MAX_BYTES ? n - sizeof start : MAX_BYTES;
    if (!is_ready) {
        FUZZ_CHECK(cache_create(&cache, N_PAGES, error, sizeof error));
        ZydisDecoderInit(&decoder, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
    }
    is_ready = true;
    for (uint32_t offset = 0; offset < n;) {
        struct source source = source_of(&start, bytes, (uint32_t)n, offset);
        bool is_built = build(&source);

        offset += is_built && offset % 3 != 0 ? block->guest_size : 1;
    }
    cache_empty(&cache);
    return 0;
}
