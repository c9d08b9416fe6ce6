/* Guest symbols of an ELF file, by address and by name. */
#ifndef RING3_SYMBOLS_H
#define RING3_SYMBOLS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct symbols;

/* NULL: no symbols (not an ELF file, none in it, or it cannot be read). */
struct symbols *symbols_load(const char *path);
struct symbols *symbols_load_bytes(const void *bytes, size_t n);
void symbols_free(struct symbols *symbols);
/* The function or object that holds `address`, and the offset in it; NULL: none. `symbols` may be NULL. */
const char *symbols_find(const struct symbols *symbols, uint32_t address, uint32_t *offset);
bool symbols_address(const struct symbols *symbols, const char *name, uint32_t *address);
/* The first function that starts after `after`; false: none. */
bool symbols_next_function(const struct symbols *symbols, uint32_t after, uint32_t *address);

#endif
