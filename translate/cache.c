/* See cache.h. Read next: build.c. */
#include "translate/cache.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "shadowpt/shadowpt.h"
#include "translate/context.h"
#include "translate/emit.h"
#include "vcpu/fail.h"

#define CODE_SIZE    (32u << 20)
#define MAX_BLOCKS   (1u << 18)
#define MAX_POINTS   (1u << 22)
#define MAX_CALLS    (1u << 17)
#define HASH_SIZE    (1u << 16)
#define BLOCK_CODE   (16u << 10) /* more than any block's code... */
#define BLOCK_CALLS  128u        /* ...calls... */
#define BLOCK_POINTS 1024u       /* ...and points */
#define BLOCK_ENTRY  24u         /* what of a block is before its instructions (build.c) */

/* ---- memory -------------------------------------------------------------------------------------------- */

/* Reserved in full, touched as it fills. */
static void *reserve(size_t size)
{
    void *memory =
        mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    return memory == MAP_FAILED ? NULL : memory;
}

static bool create_code(struct cache *cache)
{
    int fd = memfd_create("ring3-code", MFD_CLOEXEC);
    void *executable, *writable;

    if (fd < 0)
        return false;
    if (ftruncate(fd, CODE_SIZE) != 0) {
        close(fd);
        return false;
    }
    executable = mmap(NULL, CODE_SIZE, PROT_READ | PROT_EXEC, MAP_SHARED, fd, 0);
    writable = mmap(NULL, CODE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    cache->executable = executable == MAP_FAILED ? NULL : executable;
    cache->writable = writable == MAP_FAILED ? NULL : writable;
    cache->size = cache->limit = CODE_SIZE;
    return cache->executable != NULL && cache->writable != NULL;
}

/* Of the next block, so that its instructions are aligned. */
static size_t block_start(size_t used)
{
    return ((used + BLOCK_ENTRY + CACHE_ALIGNMENT - 1) & ~(size_t)(CACHE_ALIGNMENT - 1)) - BLOCK_ENTRY;
}

/* What an empty slot of a jump table leads to: offset 0. */
static void write_miss(struct cache *cache)
{
    struct emitter emitter = {.at = cache->writable};

    emit_jump_context(&emitter, CONTEXT_LOOKUP);
    cache->used = block_start((size_t)(emitter.at - cache->writable));
}

bool cache_create(struct cache *cache, size_t n_pages, char *error, size_t error_size)
{
    *cache = (struct cache){.n_pages = n_pages};
    cache->blocks = reserve(MAX_BLOCKS * sizeof *cache->blocks);
    cache->points = reserve(MAX_POINTS * sizeof *cache->points);
    cache->calls = reserve(MAX_CALLS * sizeof *cache->calls);
    cache->hash = reserve(HASH_SIZE * sizeof(struct block *));
    cache->by_page = reserve(n_pages * sizeof(struct block *));
    if (!create_code(cache) || cache->blocks == NULL || cache->points == NULL || cache->calls == NULL ||
        cache->hash == NULL || cache->by_page == NULL) {
        snprintf(error, error_size, "cannot make the code cache: %s", strerror(errno));
        cache_destroy(cache);
        return false;
    }
    write_miss(cache);
    cache->is_written = true;
    return true;
}

static void release(void *memory, size_t size)
{
    if (memory != NULL)
        munmap(memory, size);
}

void cache_destroy(struct cache *cache)
{
    release((void *)(uintptr_t)cache->executable, CODE_SIZE);
    release(cache->writable, CODE_SIZE);
    release(cache->blocks, MAX_BLOCKS * sizeof *cache->blocks);
    release(cache->points, MAX_POINTS * sizeof *cache->points);
    release(cache->calls, MAX_CALLS * sizeof *cache->calls);
    release(cache->hash, HASH_SIZE * sizeof(struct block *));
    release(cache->by_page, cache->n_pages * sizeof(struct block *));
    *cache = (struct cache){0};
}

bool cache_has_room(const struct cache *cache)
{
    return cache->used + BLOCK_CODE <= cache->limit && cache->n_blocks < MAX_BLOCKS &&
           cache->n_points + BLOCK_POINTS <= MAX_POINTS && cache->n_calls + BLOCK_CALLS <= MAX_CALLS;
}

/* The host's pages go back, so that a cache that was full once does not stay resident. */
static void forget(void *memory, size_t size)
{
    if (madvise(memory, size, MADV_DONTNEED) != 0)
        memset(memory, 0, size);
}

void cache_empty(struct cache *cache)
{
    forget(cache->blocks, MAX_BLOCKS * sizeof *cache->blocks);
    forget(cache->points, MAX_POINTS * sizeof *cache->points);
    forget(cache->calls, MAX_CALLS * sizeof *cache->calls);
    forget(cache->hash, HASH_SIZE * sizeof(struct block *));
    forget(cache->by_page, cache->n_pages * sizeof(struct block *));
    cache->n_blocks = cache->n_points = cache->n_calls = 0;
    cache->n_flushes++;
    write_miss(cache);
}

/* ---- finding ------------------------------------------------------------------------------------------- */

static size_t hash_of(uint64_t place, uint32_t eip, uint32_t mode)
{
    uint64_t hash =
        place * UINT64_C(0x9e3779b97f4a7c15) ^ (uint64_t)eip * 0x85ebca6b ^ (uint64_t)mode * 0xc2b2ae35;

    return (hash ^ hash >> 32) & (HASH_SIZE - 1);
}

/* Dead blocks leave their chains when somebody passes. */
struct block *cache_find(struct cache *cache, uint64_t place, uint32_t eip, uint32_t mode)
{
    struct block **link = &cache->hash[hash_of(place, eip, mode)];

    while (*link != NULL) {
        struct block *block = *link;

        if (block->is_dead) {
            *link = block->next_hash;
            continue;
        }
        if (block->place == place && block->eip == eip && block->mode == mode)
            return block;
        link = &block->next_hash;
    }
    return NULL;
}

struct block *cache_block_at(const struct cache *cache, const uint8_t *host)
{
    size_t offset = (size_t)(host - cache->executable);
    size_t low = 0, high = cache->n_blocks;

    while (low < high) {
        size_t middle = (low + high) / 2;

        if (cache->blocks[middle].code <= offset)
            low = middle + 1;
        else
            high = middle;
    }
    if (low == 0 || offset - cache->blocks[low - 1].code >= cache->blocks[low - 1].code_size)
        return NULL;
    return &cache->blocks[low - 1];
}

const struct point *block_point_at(const struct cache *cache, const struct block *block, const uint8_t *host)
{
    size_t offset = (size_t)(host - cache->executable) - block->code;
    uint32_t i = block->n_points;

    while (i > 1 && block->points[i - 1].offset > offset)
        i--;
    return &block->points[i - 1];
}

struct point block_state_at(const struct cache *cache, const struct block *block, const uint8_t *host)
{
    size_t offset = (size_t)(host - cache->executable) - block->code;

    if (block->is_sealed && offset >= block->direct && offset - block->direct < SEAL_SIZE)
        return (struct point){.kind = POINT_EIP, .eip = block->eip};
    return *block_point_at(cache, block, host);
}

/* ---- life ---------------------------------------------------------------------------------------------- */

struct block *cache_new_block(struct cache *cache)
{
    struct block *block = &cache->blocks[cache->n_blocks];

    *block = (struct block){.code = (uint32_t)cache->used, .points = &cache->points[cache->n_points]};
    return block;
}

static unsigned page_link(const struct block *block, uint32_t rpn)
{
    return block->second_rpn == rpn + 1 && (uint32_t)(block->place >> PAGE_SHIFT) != rpn;
}

static void add_to_page(struct cache *cache, struct block *block, uint32_t rpn)
{
    block->next_page[page_link(block, rpn)] = cache->by_page[rpn];
    cache->by_page[rpn] = block;
}

void cache_add_block(struct cache *cache, struct block *block)
{
    size_t slot = hash_of(block->place, block->eip, block->mode);
    uint32_t rpn = (uint32_t)(block->place >> PAGE_SHIFT);

    block->next_hash = cache->hash[slot];
    cache->hash[slot] = block;
    add_to_page(cache, block, rpn);
    if (block->second_rpn != 0 && block->second_rpn != rpn + 1)
        add_to_page(cache, block, block->second_rpn - 1);
    cache->is_written = true;
    cache->n_blocks++;
    cache->n_points += block->n_points;
    cache->used = block_start(block->code + block->code_size);
    cache->n_translated++;
    cache->n_instructions += block->n_instructions;
}

bool cache_has_code_of(const struct cache *cache, uint32_t rpn)
{
    return cache->by_page[rpn] != NULL;
}

bool cache_overlaps(const struct cache *cache, uint32_t rpn, uint32_t offset, uint32_t n)
{
    for (struct block *block = cache->by_page[rpn]; block != NULL;
         block = block->next_page[page_link(block, rpn)]) {
        uint32_t first = (uint32_t)(block->place & PAGE_MASK), end = first + block->guest_size;

        if (page_link(block, rpn) != 0) { /* its tail */
            first = 0;
            end -= PAGE_SIZE;
        }
        if (!block->is_dead && offset < end && first < offset + n)
            return true;
    }
    return false;
}

/* A jump that found the block in a jump table goes to the dispatcher from now on. */
static void seal(struct cache *cache, struct block *block)
{
    struct emitter emitter = {.at = cache->writable + block->code + block->entry};

    block->is_dead = true;
    cache->is_written = true;
    emit_jump_context(&emitter, CONTEXT_LOOKUP);
    cache->n_killed++;
}

/* Blocks of the same page jump to each other's direct entries: there, they are sent on to whatever is made in
 * this one's place, through the jump table. Nobody comes back into a dead block. */
static void seal_direct(struct cache *cache, struct block *block)
{
    struct emitter emitter = {.at = cache->writable + block->code + block->direct};

    block->is_sealed = true;
    emit_mov_imm(&emitter, R8, block->eip);
    emit_slot_jump(&emitter, block->eip);
    BUG_ON(emitter.at > cache->writable + block->code + block->direct + SEAL_SIZE);
}

void cache_kill_place(struct cache *cache, uint64_t place)
{
    uint32_t rpn = (uint32_t)(place >> PAGE_SHIFT);

    struct block **link = &cache->by_page[rpn], *block;

    /* The dead go from the list: a place may be made anew again and again. */
    while ((block = *link) != NULL) {
        if (!block->is_dead && place - block->place < block->guest_size) {
            seal(cache, block);
            seal_direct(cache, block);
        }
        if (block->is_dead)
            *link = block->next_page[page_link(block, rpn)];
        else
            link = &block->next_page[page_link(block, rpn)];
    }
}

void cache_kill_page(struct cache *cache, uint32_t rpn)
{
    for (struct block *block = cache->by_page[rpn]; block != NULL;
         block = block->next_page[page_link(block, rpn)])
        if (!block->is_dead)
            seal(cache, block);
    cache->by_page[rpn] = NULL;
}
