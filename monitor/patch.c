/*
 * The table of patched instructions: open addressing by guest-physical address; nothing is ever removed. Read
 * next: check.c, whose sweep finds the holes, and loader.c, which patches them.
 */
#include "monitor/patch.h"

#include <stdlib.h>

#include "vcpu/fail.h"

#define PATCH_FIRST_CAPACITY 1024u /* a power of two */

struct patch {
    gpa_t gpa;
    uint8_t original;
    bool is_used;
};

struct patch_table {
    struct patch *patch;
    size_t n, capacity;
};

static struct patch *allocate(size_t capacity)
{
    struct patch *patch = calloc(capacity, sizeof *patch);

    if (patch == NULL)
        die("out of memory for patches");
    return patch;
}

struct patch_table *patch_create(void)
{
    struct patch_table *patches = calloc(1, sizeof *patches);

    if (patches == NULL)
        die("out of memory for patches");
    patches->capacity = PATCH_FIRST_CAPACITY;
    patches->patch = allocate(patches->capacity);
    return patches;
}

void patch_free(struct patch_table *patches)
{
    if (patches == NULL)
        return;
    free(patches->patch);
    free(patches);
}

/* The slot that holds `gpa`, or the free one where it would go. There is always a free one. */
static struct patch *slot(const struct patch_table *patches, gpa_t gpa)
{
    size_t mask = patches->capacity - 1;
    size_t i = (size_t)((gpa * UINT64_C(0x9e3779b97f4a7c15)) >> 32) & mask; /* Fibonacci hashing */

    while (patches->patch[i].is_used && patches->patch[i].gpa != gpa)
        i = (i + 1) & mask;
    return &patches->patch[i];
}

static void grow(struct patch_table *patches)
{
    struct patch *old = patches->patch;
    size_t old_capacity = patches->capacity;

    patches->capacity *= 2;
    patches->patch = allocate(patches->capacity);
    for (size_t i = 0; i < old_capacity; i++) {
        if (old[i].is_used)
            *slot(patches, old[i].gpa) = old[i];
    }
    free(old);
}

void patch_add(struct patch_table *patches, struct guest_memory *memory, gpa_t gpa, const struct insn *insn)
{
    const uint8_t byte = PATCH_BYTE;
    uint8_t present;
    struct patch *patch;

    /* What was swept is the file; what is patched is the memory it was loaded into. */
    if (!memory_read(memory, gpa, &present, 1) || present != insn->bytes[0] || present == PATCH_BYTE)
        return;
    if (2 * (patches->n + 1) > patches->capacity)
        grow(patches);
    patch = slot(patches, gpa);
    if (!patch->is_used)
        patches->n++;
    *patch = (struct patch){.gpa = gpa, .original = present, .is_used = true};
    memory_write_rom(memory, gpa, &byte, 1);
}

bool patch_find(const struct patch_table *patches, const struct guest_memory *memory, gpa_t gpa,
                uint8_t *original)
{
    const struct patch *patch = slot(patches, gpa);
    uint8_t present;

    if (!patch->is_used || !memory_read(memory, gpa, &present, 1) || present != PATCH_BYTE)
        return false;
    *original = patch->original;
    return true;
}

size_t patch_count(const struct patch_table *patches)
{
    return patches->n;
}
