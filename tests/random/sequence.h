/*
 * Random instruction sequences: what one is, and the memory that it runs in. The same bytes with the same
 * start state run on the CPU (native.c) and in a machine under an engine (machine.c), and must leave the same
 * state behind.
 *
 * All of a sequence follows from (seed, number, class, privilege). It is a list of items, each a few
 * instructions that belong together, so that a failing sequence can be made smaller by leaving items out
 * (minimise.c); what items say of each other's addresses are fixups.
 *
 * Read next: generate.c, rows.c (which instructions there are), compare.c.
 */
#ifndef RING3_RANDOM_SEQUENCE_H
#define RING3_RANDOM_SEQUENCE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "decode/decode.h"
#include "vcpu/vcpu.h"

/* ---- memory, at the same linear addresses natively and in the guest ------------------------------------ */

enum {
    RANDOM_CODE = 0x00420000,  /* two pages; writable if the sequence modifies itself */
    RANDOM_ALIAS = 0x00430000, /* the same two pages, writable; only if the sequence modifies itself */
    RANDOM_DATA = 0x00440000,
    RANDOM_READ_ONLY = 0x00450000,
    RANDOM_STACK = 0x00460000,
    RANDOM_STACK_MIDDLE = RANDOM_STACK + PAGE_SIZE,
    RANDOM_SELECTOR_FS = 0x07, /* entry 0 of the LDT: base RANDOM_FS_BASE, 4 GiB */
    RANDOM_SELECTOR_GS = 0x0f, /* entry 1: RANDOM_GS_BASE, limit RANDOM_GS_LIMIT */
    RANDOM_FS_BASE = RANDOM_DATA,
    RANDOM_GS_BASE = RANDOM_DATA + 0x1000,
    RANDOM_GS_LIMIT = 0x1fff,
};
#define RANDOM_HIGH 0xd0000000u
/* Where the guest has its GDT, LDT and TSS, for the supervisor: far from what sequences reach by mistake. */
#define RANDOM_TABLES 0xf7654000u

/* The pages behind them, in the order of the memory images. */
enum {
    PAGES_CODE = 2,
    PAGES_DATA = 4,
    PAGES_STACK = 2,
    FIRST_CODE = 0,
    FIRST_DATA = FIRST_CODE + PAGES_CODE,
    FIRST_READ_ONLY = FIRST_DATA + PAGES_DATA,
    FIRST_STACK,
    FIRST_HIGH = FIRST_STACK + PAGES_STACK,
    RANDOM_PAGES,
};

/* Within the data: what the generator keeps for itself. */
enum {
    RANDOM_COUNTERS = RANDOM_DATA + 0x3f00, /* of loops */
    RANDOM_MXCSRS = RANDOM_DATA + 0x3f80,   /* values without reserved bits */
    RANDOM_MXCSR_COUNT = 8,
    RANDOM_DATA_FREE = 0x3f00, /* below it anything may be written */
};

struct random_region {
    const char *name;
    uint32_t gva, first_page, n_pages;
    bool is_code, is_writable;
};
extern const struct random_region random_regions[];
extern const size_t random_n_regions;

/* What stands in the pages at the start; the code pages are the sequence's. */
void random_fill_memory(uint64_t seed, uint8_t memory[RANDOM_PAGES][PAGE_SIZE]);

/* ---- the sequence -------------------------------------------------------------------------------------- */

enum {
    ITEM_MAX_BYTES = 64,
    ITEM_MAX_FIXUPS = 2,
    SEQUENCE_MAX_ITEMS = 80,
};

enum fixup_kind { FIXUP_REL8, FIXUP_REL32, FIXUP_ABSOLUTE };

struct fixup {
    uint8_t kind, offset; /* of the field, in the item's bytes */
    uint8_t item;         /* the target; n_items: the end */
    int32_t addend;
};

struct item {
    uint8_t bytes[ITEM_MAX_BYTES];
    uint8_t n_bytes, n_fixups;
    uint8_t loose_flags; /* offset of an instruction before which flags are undefined; 0: none */
    struct fixup fixup[ITEM_MAX_FIXUPS];
    bool is_dropped;
};

struct sequence {
    struct item item[SEQUENCE_MAX_ITEMS];
    unsigned n_items;
    uint32_t start; /* of the code */
    bool is_supervisor, is_code_writable, has_second_code_page;
    uint8_t n_runs;    /* by the engine, one after the other: what it keeps of code must not show */
    bool is_disturbed; /* a host signal arrives meanwhile */
    uint32_t gpr[GPR_COUNT], eflags;
    uint8_t fxsave[512];
};

/* As it is run: the code in its two pages, with INT3 around it and UD2 at its end. */
struct random_case {
    uint8_t code[PAGES_CODE * PAGE_SIZE];
    uint32_t end;                             /* address of the UD2 */
    uint32_t loose_flags[SEQUENCE_MAX_ITEMS]; /* addresses at which arithmetic flags are undefined */
    uint64_t memory_seed;
    bool is_supervisor, is_code_writable, has_second_code_page;
    uint8_t n_runs;
    bool is_disturbed;
    uint32_t gpr[GPR_COUNT], eip, eflags;
    _Alignas(16) uint8_t fxsave[512];
};

/* ---- classes ------------------------------------------------------------------------------------------- */

/* CLASS_KIND(enumerator): what items there are. The first ones are rows of instructions (rows.c). */
enum item_kind {
    KIND_MOVE,
    KIND_ALU,
    KIND_SHIFT,
    KIND_BIT,
    KIND_MULTIPLY,
    KIND_CONDITION,
    KIND_DECIMAL,
    KIND_ATOMIC,
    KIND_STACK,
    KIND_X87,
    KIND_MMX,
    KIND_SSE,
    KIND_ROWS, /* how many of that sort */
    KIND_STRING = KIND_ROWS,
    KIND_FLAGS, /* pushf, popf */
    KIND_FRAME, /* pusha, popa, enter, leave */
    KIND_BRANCH,
    KIND_INDIRECT,
    KIND_CALL,
    KIND_LOOP,
    KIND_FAULT,
    KIND_SELF_MODIFYING,
    KIND_SEGMENT,
    KIND_COUNT
};

struct random_class {
    const char *name;
    uint8_t weight[KIND_COUNT];
    uint16_t fault_rarity; /* one memory operand in so many is out of bounds */
    bool is_code_writable;
    /* Beyond what code at ring 3 can be fooled about: reads selectors and descriptors, so that only an engine
     * without holes passes. */
    bool needs_all_holes_closed;
};
extern const struct random_class random_classes[];
extern const size_t random_n_classes;
const struct random_class *random_find_class(const char *name);

/* ---- operations ---------------------------------------------------------------------------------------- */

void sequence_generate(struct sequence *sequence, uint64_t seed, uint64_t number,
                       const struct random_class *class, bool is_supervisor);
/* Lays the items out that are not dropped. */
void sequence_assemble(const struct sequence *sequence, uint64_t memory_seed, struct random_case *result);
void sequence_print(const struct sequence *sequence);

/* ---- for the generator's files ------------------------------------------------------------------------- */

enum row_flags {
    ROW_MODRM = 1,
    ROW_MEMORY = 2,         /* only with a memory operand */
    ROW_REGISTER = 4,       /* only without */
    ROW_LOCK = 8,           /* may have LOCK */
    ROW_CHECKED_FLAGS = 16, /* flags that the SDM leaves undefined and that an engine may compute otherwise */
    ROW_ALIGNED = 32,       /* the operand is mostly aligned to 16 bytes */
    ROW_DIVIDE = 64,
    ROW_BIT_OFFSET = 128, /* the register operand is an offset in bits from the memory operand */
    ROW_MOFFS = 256,
    ROW_SIMD = 512, /* with one of the prefixes that choose among SIMD instructions */
    ROW_XLAT = 1024,
    ROW_MXCSR = 2048,
    ROW_EDI = 4096, /* stores at edi */
};

/* An opcode, or several: the bits of `vary` are chance. */
struct row {
    uint8_t map, opcode, vary;
    int8_t reg;       /* ModRM.reg, or -1: any */
    uint8_t implicit; /* general registers used without being named: a bit each */
    uint16_t flags;
};

struct row_group {
    const struct row *rows;
    size_t n_rows;
};
extern const struct row_group random_rows[KIND_ROWS];
/* Can both sides run it, with an answer that the SDM or the CPU itself gives? */
bool random_is_fair(const struct insn *insn);

#endif
