/*
 * Building a block: guest instructions one after the other become host code, until one that always jumps
 * away, the end of the page, or a bound.
 *
 * Two rules make the state exact wherever a block is left (a fault, a signal, a call into the monitor):
 *   1. The host code of an instruction changes what the guest can see of registers with its last host
 * instruction, or in steps after each of which it may begin again. Only scratch registers change before.
 *   2. Where a fixed transformation leads from the host's registers to the guest's (ESP lags behind by the
 * pushes and pops so far; EIP is not in a register at all) a *point* says so, for all host addresses up to
 * the next one.
 *
 * Private to translate/. Read next: build.c, then lower.c: the map from opcodes to the functions below.
 */
#ifndef RING3_TRANSLATE_BUILD_H
#define RING3_TRANSLATE_BUILD_H

#include "translate/cache.h"
#include "translate/context.h"
#include "translate/emit.h"

/* What the code of a block relies on, beside the guest's bytes. */
enum mode_bit {
    MODE_USER = 1 << 0,    /* CPL 3; else 0 */
    MODE_FLAT_DS = 1 << 1, /* base 0, limit 4 GiB, readable and writable */
    MODE_FLAT_ES = 1 << 2,
    MODE_FLAT_SS = 1 << 3, /* and 32-bit */
    MODE_FULL_FS = 1 << 4, /* any base, limit 4 GiB, readable and writable; or none at all */
    MODE_FULL_GS = 1 << 5,
    MODE_FLAT_CS = 1 << 6, /* readable */
    MODE_FPU = 1 << 7,     /* CR0.TS and EM are clear */
    MODE_SSE = 1 << 8,     /* and CR4.OSFXSR is set */
    MODE_SINGLE = 1 << 9,  /* one instruction a block */
    MODE_COUNT = 1 << 10,  /* instructions are counted */
    MODE_TSC = 1 << 11,    /* RDTSC may be in line */
    MODE_CS_SHIFT = 16,    /* 8 bits: which base and limit CS has; 0: flat */
};

#define MAX_BLOCK_INSTRUCTIONS 64
#define MAX_SIDE_EXITS         MAX_BLOCK_INSTRUCTIONS
#define MAX_LOOPS              4
#define MAX_REPEATS            3
#define ENOUGH_INSTRUCTIONS    24 /* where there are conditional jumps: what follows may never be reached */

/* A jump out of the middle of a block, whose code follows the block's. */
struct side_exit {
    uint8_t *displacement; /* of the conditional jump */
    uint32_t eip;
    int16_t esp;
    int8_t uncounted;
};

/* What an instruction that keeps faulting is made (adapt.c). */
enum adapted {
    ADAPTED_NOT,
    ADAPTED_CALL,  /* a call into the monitor: no window serves it */
    ADAPTED_TOUCH, /* likewise: it reaches for pages that are not mapped yet (touch.c) */
    ADAPTED_SPLIT  /* it chooses between the kernel's window and the user's by the address */
};

/* The guest's bytes from the block's first instruction on: they are in one page, or two. */
struct source {
    const uint8_t *bytes;  /* up to the end of the first page */
    uint32_t n;            /* of them; CS's limit counts */
    const uint8_t *second; /* the page after; NULL: cannot be fetched now */
    uint32_t second_n, second_rpn;
    uint64_t place;
    uint32_t eip, linear, mode;
    uint32_t limit; /* of CS: a jump beyond it is #GP at the jump (SDM Vol 2A, JMP) */
    bool has_rorx;  /* the processor has it: more can be asked without a flag */
    enum adapted (*adapted)(void *ctx, uint64_t place); /* NULL: no instruction has needed more than others */
    void *ctx;
};

struct builder {
    struct emitter e;
    struct cache *cache;
    struct block *block;
    const struct source *source;
    uint8_t *start;          /* of the block's code, as written */
    const struct insn *insn; /* being translated */
    struct insn decoded;
    uint32_t eip; /* of it */
    uint32_t mode;
    int16_t esp;      /* what rsp lacks */
    int8_t uncounted; /* MODE_COUNT: instructions done since the budget was last brought up to date */
    bool is_counted;  /* this instruction is among them already */
    uint8_t *longest; /* where the entry's check wants to know how many instructions the block has */
    bool is_ended;    /* control does not reach the next instruction */
    bool is_shadowed; /* this instruction comes after an STI */
    bool is_split;    /* this instruction chooses its window by the address */
    bool is_reaching; /* it finds memory at r9 + r8 */
    struct point *points;
    uint32_t n_points;
    uint16_t beginnings[MAX_BLOCK_INSTRUCTIONS]; /* of the instructions: the numbers of their first points */
    struct side_exit exits[MAX_SIDE_EXITS];
    unsigned n_exits;
    uint32_t heads[MAX_LOOPS]; /* of loops in the block, by EIP: known when it is made a second time */
    unsigned n_heads;
    bool has_crooked_loop; /* whose head is not aligned */
    unsigned n_repeats;    /* MODE_COUNT: the block is a loop, of which another turn follows */
    bool is_repeating;     /* from here on */
};

/* NULL: not one instruction can be translated (its second page is absent, or decoding fails): run it by the
 * emulator. There must be room (cache_has_room). */
struct block *build_block(struct cache *cache, const struct source *source);

/* The link (where a direct jump that is not chained yet leads to) goes through the jump table from now on:
 * its target cannot be chained to. */
void build_unlink(uint8_t *link, uint32_t eip);

/* ---- build.c: for the lower_*.c files ------------------------------------------------------------------ */

static inline uint32_t build_next_eip(const struct builder *b)
{
    return b->eip + b->insn->length;
}
/* From here on the guest is at `eip`, with ESP as b->esp says. */
void build_point(struct builder *b, enum point_kind kind, uint32_t eip);
/* lea esp, [rsp + b->esp] */
void build_flush_esp(struct builder *b);
/* This instruction is done (it jumps): count it. */
void build_count_this(struct builder *b);
/* The same for a jump that is about to be made, so that both ways out of it are counted. */
void build_count_ahead(struct builder *b);
/* lea r11, [r11 - b->uncounted]; the guest is at `eip`, as a point of this kind says */
void build_flush_count(struct builder *b, enum point_kind kind, uint32_t eip);
/* A conditional jump goes to `eip`: shall another turn of the loop that it ends follow, so that it is only
 * jumped if the loop is over? */
bool build_repeats(struct builder *b, uint32_t eip);
/* The jump to a fixed EIP; ESP must be flushed. */
void build_exit(struct builder *b, uint32_t eip);
/* The jump to the EIP in r8d, ESP flushed. */
void build_dispatch(struct builder *b);
void build_side_exit(struct builder *b, uint8_t *displacement, uint32_t eip);
/* The instruction becomes a call into the monitor. */
void build_call(struct builder *b);
/* The same, and the monitor gets the address of this operand, whose segment is flat. */
struct call *build_call_with_address(struct builder *b, const struct operand *memory);
/* Where the code behind here will run. */
const uint8_t *build_host(const struct builder *b);
/* ECX waits in r9 while JRCXZ decides, and comes back. */
void build_save_ecx(struct builder *b);
void build_restore_ecx(struct builder *b);
/* A jump leads here that left it there. */
void build_ecx_is_saved(struct builder *b);
/* The same as build_call for jumps that left ECX in r9. */
void build_call_with_saved_ecx(struct builder *b);

/* ---- memory.c: guest memory operands ------------------------------------------------------------------- */

/* What stands around a memory operand. */
struct form {
    bool lock, operand16;
    uint8_t repeat; /* F2, F3: part of an SSE opcode; 0: none */
    uint8_t map;    /* 0: one byte, 1: 0F */
    uint8_t opcode;
    uint8_t reg;       /* of ModRM: a register of the host or an opcode extension */
    bool is_high_byte; /* reg is AH to BH, and no REX may appear */
    const uint8_t *immediate;
    uint8_t immediate_length;
};

/* Can translated code reach it? Else the instruction must be a call. */
bool memory_is_reachable(const struct builder *b, const struct operand *operand, const struct form *form);
void memory_emit(struct builder *b, const struct operand *operand, const struct form *form);
/* lea to, [operand]: the offset alone */
void memory_emit_address(struct builder *b, const struct operand *operand, unsigned to);
/* mov to, dword [operand] and back; false: not reachable */
bool memory_load(struct builder *b, const struct operand *operand, unsigned to);
bool memory_store(struct builder *b, const struct operand *operand, unsigned from);
/* [rsp + b->esp + offset] on the guest's stack, which must be flat */
void memory_stack(struct builder *b, unsigned opcode, unsigned reg, int32_t offset);
bool memory_is_flat_in(uint32_t mode, enum segment_index segment);
bool memory_is_flat(const struct builder *b, enum segment_index segment);
/* The stack is flat, and the instruction moves it by 4 bytes at a time. */
bool memory_is_usual_stack(const struct builder *b);
/* r9 := the window that has the linear address in `reg` */
void memory_find_window(struct builder *b, unsigned reg);

/* ---- lower.c ------------------------------------------------------------------------------------------- */

/* Translates b->insn. */
void lower_insn(struct builder *b);
/* Has it one operand in memory, where it accesses nothing beside what the operand says, and does it stay what
 * it is in host code? The operand, or NULL. */
const struct operand *lower_only_operand(const struct insn *insn);
/* An instruction that keeps faulting: the monitor is asked first. */
void lower_adapted(struct builder *b);
/* May the instruction stand between STI and the check for interrupts? Where it leads to is one place. */
bool lower_has_one_way(const struct insn *insn);

/* Each returns false if the instruction must be a call instead, and has emitted nothing then. */
bool lower_push(struct builder *b);
bool lower_push_operand(struct builder *b);
bool lower_pop(struct builder *b);
bool lower_pop_memory(struct builder *b);
bool lower_pusha(struct builder *b);
bool lower_popa(struct builder *b);
bool lower_leave(struct builder *b);
bool lower_jcc(struct builder *b);
bool lower_jump(struct builder *b);
bool lower_call(struct builder *b);
bool lower_return(struct builder *b);
bool lower_loop(struct builder *b);
bool lower_jump_indirect(struct builder *b);
bool lower_call_indirect(struct builder *b);
bool lower_string(struct builder *b);
bool lower_cli(struct builder *b);
bool lower_sti(struct builder *b);
bool lower_pushf(struct builder *b);
bool lower_popf(struct builder *b);
bool lower_direction(struct builder *b);
bool lower_push_segment(struct builder *b);
bool lower_mov_from_segment(struct builder *b);
bool lower_mov_to_segment(struct builder *b);
bool lower_pop_segment(struct builder *b);
bool lower_mov_from_control(struct builder *b);
bool lower_tsc(struct builder *b);
bool lower_cpuid(struct builder *b);
bool lower_sysenter(struct builder *b);
bool lower_sysexit(struct builder *b);

/* quick.c */
struct quick quick_of(const struct insn *insn, uint32_t mode);
/* Of an instruction that is no call for its operand's sake: the operand whose address is of use, or NULL. */
const struct operand *quick_operand(const struct insn *insn, uint32_t mode);

#endif
