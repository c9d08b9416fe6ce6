/*
 * --holes patch: the sensitive instructions that ring 3 does not trap are found in the kernel's executable
 * sections ahead of time, and the first byte of each is replaced by HLT, which does trap. The original is
 * kept here, by guest-physical address. Guest reads of a patched page see the HLT: a documented limit.
 */
#ifndef RING3_PATCH_H
#define RING3_PATCH_H

#include "decode/decode.h"
#include "shadowpt/shadowpt.h"

#define PATCH_BYTE 0xf4 /* hlt: one byte, #GP at CPL 3, cheaper than ud2 (SIGSEGV against SIGILL) */

struct patch_table;

struct patch_table *patch_create(void);
void patch_free(struct patch_table *patches);
/* Remembers the original byte at `gpa` and writes PATCH_BYTE there. */
void patch_add(struct patch_table *patches, struct guest_memory *memory, gpa_t gpa, const struct insn *insn);
/* The original instruction's first byte, if `gpa` is patched and still holds PATCH_BYTE. */
bool patch_find(const struct patch_table *patches, const struct guest_memory *memory, gpa_t gpa,
                uint8_t *original);
size_t patch_count(const struct patch_table *patches);

#endif
