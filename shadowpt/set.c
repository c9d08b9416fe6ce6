/*
 * The set of all shadow spaces over one guest memory: up to SHADOW_MAX_SPACES windows, one for each guest
 * address space and view that an engine keeps, all of them true at once, whichever is active.
 *
 * What the spaces share is kept here: by page of memory, which spaces map it and which use it as a page table
 * (two words of bits: to tell all spaces of a write costs one look, and one call for each that cares); one
 * userfaultfd, since a sandbox that was closed meanwhile opens no other; and one count of host mappings,
 * since the process has one limit.
 *
 * Read next: space.c.
 */
#include "shadowpt/space.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "vcpu/fail.h"

static struct shadow_set *new_set(struct guest_memory *memory)
{
    struct shadow_set *set = calloc(1, sizeof *set);

    if (set == NULL)
        return NULL;
    set->memory = memory;
    set->n_rpn = (uint32_t)(memory->size >> PAGE_SHIFT);
    set->uffd = -1;
    set->page = set_reserve_array(set->n_rpn, sizeof *set->page);
    if (set->page == NULL) {
        free(set);
        return NULL;
    }
    return set;
}

/* Puts the space into a free place. false: one line in `error`. */
bool set_join(struct shadow *shadow, char *error, size_t error_size)
{
    struct guest_memory *memory = shadow->memory;

    if (memory->shadows == NULL)
        memory->shadows = new_set(memory);
    if (memory->shadows == NULL) {
        snprintf(error, error_size, "cannot allocate the set of shadow spaces: %s", strerror(errno));
        return false;
    }
    for (unsigned id = 0; id < SHADOW_MAX_SPACES; id++) {
        struct shadow_set *set = memory->shadows;

        if (set->space[id] != NULL)
            continue;
        set->space[id] = shadow;
        set->members |= UINT64_C(1) << id;
        shadow->set = set;
        shadow->id = id;
        shadow->bit = UINT64_C(1) << id;
        shadow->used_at = ++set->n_uses;
        return true;
    }
    snprintf(error, error_size, "there are %u shadow spaces already", SHADOW_MAX_SPACES);
    return false;
}

/* Nothing is mapped in it, and it uses no table any more. */
void set_leave(struct shadow *shadow)
{
    if (shadow->set == NULL)
        return;
    shadow->set->members &= ~shadow->bit;
    shadow->set->space[shadow->id] = NULL;
}

void set_close(struct guest_memory *memory)
{
    struct shadow_set *set = memory->shadows;

    memory->shadows = NULL;
    if (set == NULL)
        return;
    BUG_ON(set->members != 0);
    protect_close(set);
    invariant_close(set);
    set_release_array(set->page, set->n_rpn, sizeof *set->page);
    free(set);
}

/* Zeros, of which only what is touched costs memory. */
void *set_reserve_array(size_t n, size_t size)
{
    void *array =
        mmap(NULL, n * size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    return array == MAP_FAILED ? NULL : array;
}

void set_release_array(void *array, size_t n, size_t size)
{
    if (array != NULL)
        munmap(array, n * size);
}

void set_drop_all(struct shadow_set *set)
{
    struct shadow *shadow;

    for (uint64_t left = set->members; (shadow = set_next(set, &left)) != NULL;)
        shadow_drop_all(shadow);
}

void shadow_note_use(struct shadow *shadow)
{
    if (shadow->used_at != shadow->set->n_uses)
        shadow->used_at = ++shadow->set->n_uses;
    shadow->n_directory_writes = 0;
}

/* ---- code ---------------------------------------------------------------------------------------------- */

void shadow_protect_code(struct guest_memory *memory, uint32_t rpn)
{
    if (memory->page_flags[rpn] & PAGE_IS_CODE)
        return;
    memory->page_flags[rpn] |= PAGE_IS_CODE;
    if (memory->shadows != NULL)
        protect_everywhere(memory->shadows, rpn);
}

void shadow_forget_code(struct guest_memory *memory, uint32_t rpn)
{
    memory->page_flags[rpn] &= (uint8_t)~PAGE_IS_CODE;
}
