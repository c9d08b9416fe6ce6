/* Walking a kernel's code, instruction by instruction: see check.h.
 * Read next: check.c (the report), holes.c (the patches). */
#include "monitor/check.h"

/* Offset of the next instruction that is known to be one; `n` if there is none before the end. */
static size_t next_reached(const struct code_map *map, uint32_t address, size_t offset, size_t n)
{
    uint32_t next;

    if (map == NULL || !code_map_next_reached(map, address + (uint32_t)offset, &next) || next - address >= n)
        return n;
    return next - address;
}

void check_sweep(const uint8_t *bytes, size_t n, uint32_t address, const struct code_map *map,
                 sweep_found *found, void *context, struct sweep_counts *counts)
{
    size_t known = 0; /* nothing that is taken for an instruction may span it */
    size_t offset = 0;

    counts->bytes += n;
    while (offset < n) {
        bool is_reached = map == NULL || code_map_is_reached(map, address + (uint32_t)offset);
        struct insn insn;

        if (!is_reached && offset >= known)
            known = next_reached(map, address, offset, n);
        if (decode_insn(bytes + offset, (is_reached ? n : known) - offset, 4, &insn) != DECODE_OK) {
            counts->skipped++;
            offset++;
            continue;
        }
        counts->instructions++;
        counts->reached += is_reached;
        if (insn.sensitive != NULL)
            found(context, &insn, address + (uint32_t)offset, is_reached);
        offset += insn.length;
    }
}

void check_sweep_kernel(const struct kernel_image *kernel, const struct code_map *map, sweep_found *found,
                        void *context, struct sweep_counts *counts)
{
    size_t n;
    const struct image_section *ranges = code_map_ranges(map, &n);

    for (size_t i = 0; i < n; i++)
        check_sweep(kernel->bytes + ranges[i].file_offset, ranges[i].size, ranges[i].gva, map, found, context,
                    counts);
}
