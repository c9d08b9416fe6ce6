/*
 * What the files of the generator share: chance, what is known of the registers, and the item being made.
 * Read next: operand.c, items.c.
 */
#ifndef RING3_RANDOM_GENERATOR_H
#define RING3_RANDOM_GENERATOR_H

#include "sequence.h"
#include "unit/hostile_values.h" /* struct chance */

/*
 * A register is known between the instruction that loads a constant into it and the next that writes it or
 * the next label. That is how most memory operands can be made to lie in memory, whatever their form: what is
 * not known is loaded before, and the displacement is what is missing. ESP is never known but always about in
 * the middle of the stack.
 */
struct generator {
    struct chance chance;
    struct sequence *sequence;
    const struct random_class *class;
    struct item *item; /* the one being made */
    bool is_known[GPR_COUNT];
    uint32_t value[GPR_COUNT];
    uint8_t reserved; /* registers that nothing may write now: loop counters; a bit each */
    bool is_target[SEQUENCE_MAX_ITEMS + 1];
    unsigned n_counters, depth;
};

static inline uint32_t random_any(struct generator *generator)
{
    return chance_any(&generator->chance);
}
static inline uint32_t random_below(struct generator *generator, uint32_t n)
{
    return chance_below(&generator->chance, n);
}
static inline bool random_one_in(struct generator *generator, uint32_t n)
{
    return chance_one_in(&generator->chance, n);
}

/* ---- bytes (operand.c) --------------------------------------------------------------------------------- */

void emit_byte(struct generator *generator, unsigned byte);
void emit_bytes(struct generator *generator, const char *bytes, size_t n);
#define EMIT(generator, literal) emit_bytes(generator, literal, sizeof(literal) - 1)
void emit_word(struct generator *generator, uint32_t value, unsigned size);
/* A field to be filled in by sequence_assemble. */
void emit_fixup(struct generator *generator, enum fixup_kind kind, unsigned item, int32_t addend);
/* mov reg, value; the register is known then. */
void emit_load(struct generator *generator, unsigned reg, uint32_t value);
/* The registers are not known any more. */
void forget(struct generator *generator, unsigned registers);
bool may_write(const struct generator *generator, unsigned registers);
/* A number of the kind that matters. */
uint32_t random_value(struct generator *generator);
/* An address in memory, or, once in `class->fault_rarity`, one where an access does not fit. */
uint32_t random_address(struct generator *generator, unsigned alignment);
/* One instruction of a row, with what must be loaded before; false: this try came to nothing. */
bool emit_row(struct generator *generator, const struct row *row);
/* An instruction with `opcode` and a memory operand at `address`. */
void emit_memory_insn(struct generator *generator, unsigned opcode, unsigned reg, uint32_t address);

/* ---- items (items.c, control.c): each makes one item, or a few
 * ---------------------------------------------- */

typedef bool item_maker(struct generator *generator);
item_maker make_string, make_flags, make_frame, make_fault, make_segment;
item_maker make_branch, make_indirect, make_call, make_loop, make_self_modifying;

/* Begins the next item; what it is, it must become. */
void begin_item(struct generator *generator);
unsigned current_item(const struct generator *generator);
bool has_room(const struct generator *generator, unsigned n_items);
/* Items of the class that neither branch nor use the stack. */
void make_body(struct generator *generator, unsigned n_items);
void make_label(struct generator *generator, unsigned item);

#endif
