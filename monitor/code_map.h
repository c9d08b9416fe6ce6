/*
 * Which bytes of a kernel are code: those that control flow reaches. A linear sweep alone takes tables,
 * strings and microcode among the code for instructions; patching those would corrupt them.
 */
#ifndef RING3_CODE_MAP_H
#define RING3_CODE_MAP_H

#include "monitor/image.h"
#include "monitor/symbols.h"

#define CODE_MAX_RANGES 4096u

struct code_map;

/* Follows calls and jumps from the entry point, from the functions that `symbols` (may be NULL) knows, and
 * from whatever in the file looks like a pointer to a function. NULL: one line in `error` naming the file and
 * what is wrong with its code (none there, too many pieces, pieces that overlap). */
struct code_map *code_map_create(const struct kernel_image *kernel, const struct symbols *symbols,
                                 char *error, size_t error_size);
void code_map_free(struct code_map *map);

/* The pieces of code: executable sections; without any, executable segments; all that is loaded if it is not
 * ELF. */
const struct image_section *code_map_ranges(const struct code_map *map, size_t *n);
/* Does a reached instruction start there? */
bool code_map_is_reached(const struct code_map *map, uint32_t address);
/* The first reached instruction after `after` in the piece that holds `after`; false: none. */
bool code_map_next_reached(const struct code_map *map, uint32_t after, uint32_t *address);

#endif
