/*
 * The code cache: host code, the blocks it is made of, and how blocks are found: by what they were translated
 * from, by the RAM page they came from, and by a host address inside them.
 *
 * A block belongs to a place in RAM (page and offset), an EIP (its code contains absolute ones) and a mode
 * (struct mode below): everything that its code relies on. The same code in two address spaces is one block.
 * Blocks die with a write to their page; their memory comes back when the cache is full and all of it is
 * emptied.
 *
 * Private to translate/. Read next: build.h.
 */
#ifndef RING3_TRANSLATE_CACHE_H
#define RING3_TRANSLATE_CACHE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "decode/decode.h"

/* What the state at a host address means: the guest's EIP and what ESP lacks. */
enum point_kind {
    POINT_EIP,           /* at the beginning of the instruction at `eip`, or where it may begin again */
    POINT_SHADOWED,      /* likewise, in the shadow of an STI */
    POINT_SAVED_EAX,     /* likewise, but eax is in r10d */
    POINT_SAVED_EAX_EDX, /* likewise, and edx is in r9d */
    POINT_SAVED_ECX,     /* likewise, but ecx is in r9d */
    POINT_SAVED_FLAGS,   /* likewise, but eax is in r10d, and the arithmetic flags are in the context */
    POINT_LEAVES,        /* LEAVE is done, but EBP is still to be made r8d */
    POINT_POPS_IF,       /* POPF is, but IF is still to be made r9d */
    POINT_POPS_ALL,      /* POPA is, but the registers are still to be loaded from below ESP */
    POINT_IDENTIFIES,    /* CPUID is, but they are still to be loaded from the context */
    POINT_TARGET,        /* eip is in r8d */
    POINT_ENTRY,         /* likewise, and ecx is in r9d */
    POINT_SHADOWED_ECX,  /* POINT_SHADOWED, but ecx is in r9d */
    POINT_ENTERS,        /* POINT_TARGET, but SYSENTER is still to be completed */
    POINT_EXITS,         /* and SYSEXIT */
    /* Between two elements of a string instruction (lower_string.c), by their sizes of 1, 2 and 4 bytes: */
    POINT_COPIED,                    /* ESI, EDI and ECX are still to be moved on... */
    POINT_STORED = POINT_COPIED + 3, /* ...EDI and ECX are... */
    POINT_COUNTS = POINT_STORED + 3, /* ...ECX is, of whatever size; */
    POINT_ELEMENT,                   /* nothing is. With ECX 0 the instruction is done. */
    POINT_LOADS_ES,                  /* POINT_EIP, but ES is still to be made what the note at r10 says... */
    POINT_LOADS_GS = POINT_LOADS_ES + SEG_GS, /* ...and so for each segment register */
};

#define POPA_BYTES 32

/* From this offset in the block on, until the next point's. */
struct point {
    uint16_t offset;
    uint8_t kind;     /* enum point_kind */
    int8_t uncounted; /* instructions that are done and not yet taken off the budget; -1: one is, ahead */
    int16_t esp;      /* to be added to rsp */
    uint8_t length;   /* of the instruction, from POINT_COPIED to POINT_ELEMENT */
    uint32_t eip;
};

/* Of where direct jumps go, and the heads of loops: a short loop should not lie across two lines. */
#define CACHE_ALIGNMENT 32u

/* At a block's direct entry there is room for so many bytes: those that lead elsewhere when it is dead. */
#define SEAL_SIZE 20u

struct block {
    uint64_t place; /* byte in guest memory (rpn and offset) of its first instruction */
    uint32_t eip;
    uint32_t mode;
    uint32_t code, code_size; /* offset in the cache */
    uint16_t entry,
        direct; /* offsets in the block: of the indirect entry, which checks r8d, and the direct one */
    uint16_t guest_size; /* bytes translated */
    uint16_t n_instructions;
    uint32_t n_points;
    const struct point *points;
    struct block *next_hash, *next_page[2]; /* [1]: for the page after, where the last instruction crosses */
    uint32_t second_rpn;                    /* + 1; 0: it does not cross */
    bool is_dead;
    bool is_sealed; /* and its direct entry leads elsewhere */
};

/* The kernel's IN, OUT, MOV and INVLPG in short, and what changes the ring (quick.c). */
enum quick_kind { QUICK_NOT, QUICK_IN, QUICK_OUT, QUICK_LOAD, QUICK_STORE, QUICK_INVLPG, QUICK_SWITCH };

struct quick {
    uint8_t kind; /* enum quick_kind */
    uint8_t size, gpr;
    bool has_port; /* else it is DX */
    uint16_t port;
    bool is_immediate; /* what is stored: `immediate`; else `gpr` */
    uint32_t immediate;
};

/* An instruction that the monitor runs when translated code gets to it. */
struct call {
    struct insn insn;
    uint32_t eip;
    uint32_t last_page; /* of the last access that the monitor knows of, + 1 */
    struct block *block;
    const uint8_t *resume; /* host address behind it */
    struct quick quick;
    bool keeps_mode;    /* neither mode nor space can change, unless it faults */
    bool loads_segment; /* MOV or POP to a segment register */
    bool is_quiet;      /* it reaches no device and changes nothing about interrupts */
    bool was_needed;    /* since adapt_note_call asked: for a device, or by a fault that it raised */
    /* Of an instruction with one operand in memory, through a flat segment, whose linear address comes along:
     */
    uint8_t access_kind; /* ACCESS_READ or ACCESS_WRITE, and ACCESS_USER; 0: any other */
    uint8_t access_size;
    uint8_t slot;
    bool has_slot;
    /* So far before `resume` begins host code that does it, with the address that the slot has, or else the
     * context's `reach`; 0: the monitor runs it each time. */
    uint8_t again_length;
} __attribute__((aligned(256))); /* by its number it is found with a shift, and each call must find it */

struct cache {
    uint8_t *writable; /* the code, mapped twice: no page is ever both */
    const uint8_t *executable;
    size_t size, used;
    size_t limit;         /* full at: `size`, or less, for a test of what being full does */
    struct block *blocks; /* in the order of their code */
    size_t n_blocks;
    struct point *points;
    size_t n_points;
    struct call *calls;
    size_t n_calls;
    struct block **hash;
    struct block **by_page; /* per rpn */
    size_t n_pages;
    bool is_written; /* code that may run next was written since the processor was told */
    uint64_t n_flushes, n_translated, n_killed; /* blocks */
    uint64_t n_instructions;                    /* translated */
};

/* false: one line in `error`. n_pages: of guest memory. */
bool cache_create(struct cache *cache, size_t n_pages, char *error, size_t error_size);
void cache_destroy(struct cache *cache);
/* Room for one more block of any size? Else it must be emptied. */
bool cache_has_room(const struct cache *cache);
void cache_empty(struct cache *cache);
struct block *cache_find(struct cache *cache, uint64_t place, uint32_t eip, uint32_t mode);
/* A new block, whose code begins at cache->used; it is found once it was added. */
struct block *cache_new_block(struct cache *cache);
void cache_add_block(struct cache *cache, struct block *block);
bool cache_has_code_of(const struct cache *cache, uint32_t rpn);
/* Do live blocks of the page translate any of these bytes? */
bool cache_overlaps(const struct cache *cache, uint32_t rpn, uint32_t offset, uint32_t n);
/* The blocks of the page die: no jump leads into them any more, and those running find out at their next
 * exit. */
void cache_kill_page(struct cache *cache, uint32_t rpn);
/* Those that translate the instruction at this place die, and may be made anew: the guest's code is the same.
 */
void cache_kill_place(struct cache *cache, uint64_t place);
/* The block whose code a host address lies in, or NULL. */
struct block *cache_block_at(const struct cache *cache, const uint8_t *host);
const struct point *block_point_at(const struct cache *cache, const struct block *block, const uint8_t *host);
/* The same for the guest's state when RIP is there: where the block's death has put other code, that is what
 * is being run. (The last x87 instruction may have been run before.) */
struct point block_state_at(const struct cache *cache, const struct block *block, const uint8_t *host);
static inline bool cache_contains(const struct cache *cache, const void *host)
{
    return (size_t)((const uint8_t *)host - cache->executable) < cache->size;
}

#endif
