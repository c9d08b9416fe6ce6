/*
 * --holes patch: each virtualization hole that control flow reaches in the kernel's code is patched where the
 * loader put it. Read next: patch.c (the table), code_map.c and sweep.c (how holes are found).
 */
#include "monitor/holes.h"

#include "monitor/check.h"
#include "monitor/patch.h"

struct patching {
    const struct kernel_image *kernel;
    const struct image_section *range; /* the kernel's code; the pieces do not overlap */
    size_t n_ranges;
    struct vm *vm;
};

/* An instruction is followed through the file: the same bytes, at their physical address. (The address it is
 * linked for may not be one of any segment: firmware has code that is copied before it runs.) */
static void patch_bytes(const struct patching *patching, const struct insn *insn, uint64_t file_offset)
{
    for (unsigned i = 0; i < patching->kernel->n_segments; i++) {
        const struct image_segment *segment = &patching->kernel->segment[i];

        if (file_offset >= segment->file_offset && file_offset - segment->file_offset < segment->file_size)
            patch_add(patching->vm->patches, &patching->vm->memory,
                      segment->gpa + (file_offset - segment->file_offset), insn);
    }
}

static void patch_hole(void *context, const struct insn *insn, uint32_t address, bool is_reached)
{
    const struct patching *patching = context;

    if (!is_reached || !sensitive_is_hole(insn->sensitive))
        return;
    for (size_t i = 0; i < patching->n_ranges; i++) {
        const struct image_section *range = &patching->range[i];

        if (address >= range->gva && address - range->gva < range->size)
            patch_bytes(patching, insn, (uint64_t)range->file_offset + (address - range->gva));
    }
}

bool holes_patch(const struct kernel_image *kernel, struct vm *vm, char *error, size_t error_size)
{
    struct patching patching = {.kernel = kernel, .vm = vm};
    struct code_map *map = code_map_create(kernel, kernel->symbols, error, error_size);
    struct sweep_counts counts = {0};

    if (map == NULL)
        return false;
    vm->patches = patch_create();
    patching.range = code_map_ranges(map, &patching.n_ranges);
    check_sweep_kernel(kernel, map, patch_hole, &patching, &counts);
    code_map_free(map);
    return true;
}
