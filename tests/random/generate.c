/*
 * Puts a sequence together: a class says how often each kind of item comes, chance does the rest.
 * Read next: native.c, machine.c.
 */
#include <stdio.h>
#include <string.h>

#include "generator.h"

/* ---- classes ------------------------------------------------------------------------------------------- */

#define PLAIN                                                                                                \
    [KIND_MOVE] = 12, [KIND_ALU] = 16, [KIND_SHIFT] = 6, [KIND_BIT] = 3, [KIND_MULTIPLY] = 3,                \
    [KIND_CONDITION] = 6

const struct random_class random_classes[] = {
    {"mixed",
     {PLAIN, [KIND_DECIMAL] = 1, [KIND_ATOMIC] = 3, [KIND_STACK] = 6, [KIND_X87] = 3, [KIND_MMX] = 2,
      [KIND_SSE] = 3, [KIND_STRING] = 4, [KIND_FLAGS] = 2, [KIND_FRAME] = 2, [KIND_BRANCH] = 8,
      [KIND_INDIRECT] = 3, [KIND_CALL] = 2, [KIND_LOOP] = 2, [KIND_FAULT] = 1},
     .fault_rarity = 200},
    {"integer", {PLAIN, [KIND_DECIMAL] = 3, [KIND_FLAGS] = 2}, .fault_rarity = 400},
    {"control",
     {[KIND_MOVE] = 4,
      [KIND_ALU] = 6,
      [KIND_CONDITION] = 2,
      [KIND_STACK] = 4,
      [KIND_FRAME] = 2,
      [KIND_BRANCH] = 12,
      [KIND_INDIRECT] = 6,
      [KIND_CALL] = 6,
      [KIND_LOOP] = 6},
     .fault_rarity = 1000},
    {"stack",
     {[KIND_MOVE] = 3,
      [KIND_ALU] = 3,
      [KIND_STACK] = 20,
      [KIND_FRAME] = 8,
      [KIND_FLAGS] = 3,
      [KIND_CALL] = 3},
     .fault_rarity = 100},
    {"string", {[KIND_MOVE] = 3, [KIND_ALU] = 3, [KIND_STRING] = 12, [KIND_FLAGS] = 1}, .fault_rarity = 60},
    {"atomic", {[KIND_MOVE] = 4, [KIND_ALU] = 4, [KIND_ATOMIC] = 16, [KIND_LOOP] = 1}, .fault_rarity = 100},
    {"x87", {[KIND_MOVE] = 2, [KIND_CONDITION] = 1, [KIND_X87] = 20, [KIND_MMX] = 2}, .fault_rarity = 400},
    {"simd",
     {[KIND_MOVE] = 2, [KIND_MMX] = 8, [KIND_SSE] = 16, [KIND_X87] = 1, [KIND_BRANCH] = 1},
     .fault_rarity = 400},
    {"faults",
     {PLAIN, [KIND_STACK] = 6, [KIND_FRAME] = 3, [KIND_STRING] = 4, [KIND_BRANCH] = 3, [KIND_CALL] = 1,
      [KIND_ATOMIC] = 2, [KIND_SSE] = 2, [KIND_FAULT] = 6},
     .fault_rarity = 12},
    {"selfmod",
     {PLAIN, [KIND_STACK] = 2, [KIND_STRING] = 1, [KIND_BRANCH] = 4, [KIND_LOOP] = 8, [KIND_CALL] = 4,
      [KIND_SELF_MODIFYING] = 24},
     .fault_rarity = 400,
     .is_code_writable = true},
    {"segments",
     {[KIND_MOVE] = 8, [KIND_ALU] = 4, [KIND_STACK] = 2, [KIND_SEGMENT] = 12, [KIND_BRANCH] = 2},
     .fault_rarity = 200,
     .needs_all_holes_closed = true},
};
const size_t random_n_classes = sizeof random_classes / sizeof random_classes[0];

const struct random_class *random_find_class(const char *name)
{
    for (size_t i = 0; i < random_n_classes; i++)
        if (strcmp(random_classes[i].name, name) == 0)
            return &random_classes[i];
    return NULL;
}

static item_maker *const makers[KIND_COUNT] = {
    [KIND_STRING] = make_string,     [KIND_FLAGS] = make_flags,
    [KIND_FRAME] = make_frame,       [KIND_BRANCH] = make_branch,
    [KIND_INDIRECT] = make_indirect, [KIND_CALL] = make_call,
    [KIND_LOOP] = make_loop,         [KIND_FAULT] = make_fault,
    [KIND_SEGMENT] = make_segment,   [KIND_SELF_MODIFYING] = make_self_modifying,
};

/* ---- items --------------------------------------------------------------------------------------------- */

unsigned current_item(const struct generator *generator)
{
    return (unsigned)(generator->item - generator->sequence->item);
}

bool has_room(const struct generator *generator, unsigned n_items)
{
    return current_item(generator) + n_items < SEQUENCE_MAX_ITEMS;
}

void begin_item(struct generator *generator)
{
    struct sequence *sequence = generator->sequence;

    generator->item = &sequence->item[sequence->n_items++];
    *generator->item = (struct item){.n_bytes = 0};
    if (generator->is_target[current_item(generator)])
        forget(generator, 0xff);
}

static enum item_kind pick_kind(struct generator *generator, enum item_kind limit)
{
    unsigned sum = 0, choice;

    for (unsigned kind = 0; kind < limit; kind++)
        sum += generator->class->weight[kind];
    choice = random_below(generator, sum);
    for (unsigned kind = 0; kind < limit; kind++) {
        if (choice < generator->class->weight[kind])
            return kind;
        choice -= generator->class->weight[kind];
    }
    return KIND_ALU;
}

static bool make_row(struct generator *generator, enum item_kind kind)
{
    const struct row_group *group = &random_rows[kind];

    return emit_row(generator, &group->rows[random_below(generator, (uint32_t)group->n_rows)]);
}

/* One item, of a kind below `limit`; a try that came to nothing is a nop. */
static void make_item(struct generator *generator, enum item_kind limit)
{
    begin_item(generator);
    for (unsigned i = 0; i < 8; i++) {
        const struct generator before = *generator;
        enum item_kind kind = pick_kind(generator, limit);

        if (kind < KIND_ROWS ? make_row(generator, kind) : makers[kind](generator))
            return;
        struct chance chance = generator->chance;

        *generator = before;
        generator->chance = chance;
        *generator->item = (struct item){.n_bytes = 0};
    }
    emit_byte(generator, 0x90);
}

void make_body(struct generator *generator, unsigned n_items)
{
    for (unsigned i = 0; i < n_items; i++) {
        begin_item(generator);
        for (unsigned tries = 0; tries < 8 && generator->item->n_bytes == 0; tries++) {
            enum item_kind kind = pick_kind(generator, KIND_ROWS);

            if (kind == KIND_STACK)
                kind = KIND_ALU;
            if (!make_row(generator, kind))
                generator->item->n_bytes = 0;
        }
    }
}

/* ---- the start state ----------------------------------------------------------------------------------- */

/* Floating-point numbers of the kinds that matter, and noise. */
static void make_numbers(struct generator *generator, uint8_t *bytes, unsigned n)
{
    static const uint32_t interesting[] = {0,          0x3f800000, 0x3ff00000, 0x7f800000, 0x7ff00000,
                                           0xff800001, 0x7fc00000, 0x00000001, 0x80000000, 0x00800000,
                                           0x00100000, 0x40490fdb, 0x7fefffff, 0x7f7fffff, 0x80007fff};

    for (unsigned i = 0; i < n; i += 4) {
        uint32_t value =
            random_one_in(generator, 2) ? random_any(generator) : PICK(&generator->chance, interesting);

        memcpy(bytes + i, &value, n - i < 4 ? n - i : 4);
    }
}

static void make_fxsave(struct generator *generator, uint8_t *fxsave)
{
    uint16_t control =
        random_one_in(generator, 6) ? (uint16_t)(0x40 | (random_any(generator) & 0xf3f)) : 0x37f;
    uint16_t status = (uint16_t)(random_any(generator) & 0x7f00);
    uint32_t mxcsr = random_one_in(generator, 6) ? random_any(generator) & 0xffbf : 0x1f80;

    memset(fxsave, 0, 512);
    memcpy(fxsave, &control, 2);
    memcpy(fxsave + 2, &status, 2);
    fxsave[4] = random_one_in(generator, 2) ? 0xff : (uint8_t)random_any(generator);
    memcpy(fxsave + 24, &mxcsr, 4);
    for (unsigned i = 0; i < 8; i++) {
        uint8_t *number = fxsave + 32 + 16 * (size_t)i;

        make_numbers(generator, number, 10);
        if (!random_one_in(generator, 4)) { /* a plain one */
            uint16_t exponent = (uint16_t)(0x3fff - 20 + random_below(generator, 60) +
                                           (random_one_in(generator, 2) ? 0x8000 : 0));
            number[7] |= 0x80;
            memcpy(number + 8, &exponent, 2);
        }
    }
    make_numbers(generator, fxsave + 160, 128);
}

static void make_start(struct generator *generator)
{
    struct sequence *sequence = generator->sequence;

    for (unsigned reg = 0; reg < GPR_COUNT; reg++) {
        sequence->gpr[reg] = random_value(generator);
        generator->value[reg] = sequence->gpr[reg];
        generator->is_known[reg] = reg != ESP;
    }
    sequence->gpr[ESP] = RANDOM_STACK_MIDDLE - 4 * random_below(generator, 32);
    sequence->eflags = EFLAGS_FIXED | EFLAGS_IF | (random_any(generator) & 0x8d5);
    make_fxsave(generator, sequence->fxsave);
    sequence->n_runs = random_one_in(generator, 4) ? 3 : 1;
    sequence->is_disturbed = random_one_in(generator, 4);
    sequence->is_code_writable = generator->class->is_code_writable;
    /* What models do differently with segment registers is made up for in the instructions that follow. */
    sequence->has_second_code_page = generator->class->needs_all_holes_closed || !random_one_in(generator, 8);
    switch (random_below(generator, 3)) {
    case 0: /* the code lies in both pages, or ends where the second one would begin */
        sequence->start = RANDOM_CODE + PAGE_SIZE - random_below(generator, 200);
        break;
    default:
        sequence->start = RANDOM_CODE + random_below(generator, 0x200);
        break;
    }
}

/* ---- together ------------------------------------------------------------------------------------------ */

static uint32_t layout(const struct sequence *sequence, uint32_t address[SEQUENCE_MAX_ITEMS + 1])
{
    uint32_t at = sequence->start;

    for (unsigned i = 0; i < sequence->n_items; i++) {
        address[i] = at;
        at += sequence->item[i].is_dropped ? 0 : sequence->item[i].n_bytes;
    }
    for (unsigned i = sequence->n_items; i <= SEQUENCE_MAX_ITEMS; i++)
        address[i] = at;
    return at;
}

void sequence_generate(struct sequence *sequence, uint64_t seed, uint64_t number,
                       const struct random_class *class, bool is_supervisor)
{
    struct generator generator = {
        .chance = chance_of_seed(seed * 0x9e3779b97f4a7c15u ^ number * 0xd1342543de82ef95u),
        .sequence = sequence,
        .class = class,
    };
    uint32_t address[SEQUENCE_MAX_ITEMS + 1];
    unsigned n;

    for (const char *c = class->name; *c != '\0'; c++)
        generator.chance.state = generator.chance.state * 131 + (uint8_t)*c;
    chance_any(&generator.chance);
    *sequence = (struct sequence){.is_supervisor = is_supervisor};
    make_start(&generator);
    n = 3 + random_below(&generator, random_one_in(&generator, 3) ? 56 : 20);
    while (sequence->n_items < n)
        make_item(&generator, KIND_COUNT);
    while (layout(sequence, address) > RANDOM_CODE + sizeof((struct random_case *)0)->code - ITEM_MAX_BYTES)
        sequence->n_items--;
}

static void apply_fixups(const struct item *item, uint32_t at, const uint32_t *address, uint8_t *bytes)
{
    for (unsigned i = 0; i < item->n_fixups; i++) {
        const struct fixup *fixup = &item->fixup[i];
        uint32_t value = address[fixup->item] + (uint32_t)fixup->addend;
        unsigned size = fixup->kind == FIXUP_REL8 ? 1 : 4;

        if (fixup->kind != FIXUP_ABSOLUTE)
            value -= at + fixup->offset + size;
        if (fixup->kind == FIXUP_REL8 && value + 0x80 > 0xff)
            value = 0; /* too far: to the next instruction */
        memcpy(bytes + fixup->offset, &value, size);
    }
}

void sequence_assemble(const struct sequence *sequence, uint64_t memory_seed, struct random_case *result)
{
    static const uint8_t ud2[] = {0x0f, 0x0b};
    uint32_t address[SEQUENCE_MAX_ITEMS + 1];

    *result = (struct random_case){.memory_seed = memory_seed,
                                   .is_supervisor = sequence->is_supervisor,
                                   .is_code_writable = sequence->is_code_writable,
                                   .has_second_code_page = sequence->has_second_code_page,
                                   .n_runs = sequence->n_runs,
                                   .is_disturbed = sequence->is_disturbed,
                                   .eip = sequence->start,
                                   .eflags = sequence->eflags};
    memcpy(result->gpr, sequence->gpr, sizeof result->gpr);
    memcpy(result->fxsave, sequence->fxsave, sizeof result->fxsave);
    memset(result->code, 0xcc, sizeof result->code);
    result->end = layout(sequence, address);
    for (unsigned i = 0; i < sequence->n_items; i++) {
        const struct item *item = &sequence->item[i];
        uint8_t bytes[ITEM_MAX_BYTES];

        memcpy(bytes, item->bytes, item->n_bytes);
        apply_fixups(item, address[i], address, bytes);
        if (item->loose_flags != 0)
            result->loose_flags[i] = address[i] + item->loose_flags;
        if (!item->is_dropped)
            memcpy(result->code + (address[i] - RANDOM_CODE), bytes, item->n_bytes);
    }
    memcpy(result->code + (result->end - RANDOM_CODE), ud2, sizeof ud2);
}

void sequence_print(const struct sequence *sequence)
{
    static struct random_case assembled;
    uint32_t address[SEQUENCE_MAX_ITEMS + 1];

    sequence_assemble(sequence, 0, &assembled);
    layout(sequence, address);
    for (unsigned i = 0; i < sequence->n_items; i++) {
        if (sequence->item[i].is_dropped)
            continue;
        for (uint32_t at = address[i]; at < address[i + 1];) {
            struct insn insn;
            char text[128] = "(bad)";
            unsigned n = 1;

            if (decode_insn(assembled.code + (at - RANDOM_CODE), INSN_MAX_LENGTH, 4, &insn) == DECODE_OK) {
                decode_format(&insn, at, text, sizeof text);
                n = insn.length;
            }
            printf("  %08x  ", at);
            for (unsigned k = 0; k < n; k++)
                printf("%02x", assembled.code[at - RANDOM_CODE + k]);
            printf("%*s%s\n", n < 12 ? 24 - 2 * (int)n : 1, "", text);
            at += n;
        }
    }
    printf("  %08x  0f0b                    end\n", assembled.end);
}

/* ---- memory -------------------------------------------------------------------------------------------- */

const struct random_region random_regions[] = {
    {"code", RANDOM_CODE, FIRST_CODE, PAGES_CODE, true, false},
    {"alias", RANDOM_ALIAS, FIRST_CODE, PAGES_CODE, true, true},
    {"data", RANDOM_DATA, FIRST_DATA, PAGES_DATA, false, true},
    {"read-only", RANDOM_READ_ONLY, FIRST_READ_ONLY, 1, false, false},
    {"stack", RANDOM_STACK, FIRST_STACK, PAGES_STACK, false, true},
    {"high", RANDOM_HIGH, FIRST_HIGH, 1, false, true},
};
const size_t random_n_regions = sizeof random_regions / sizeof random_regions[0];

void random_fill_memory(uint64_t seed, uint8_t memory[RANDOM_PAGES][PAGE_SIZE])
{
    struct generator generator = {.chance = chance_of_seed(seed)};
    uint8_t *mxcsrs = memory[FIRST_DATA] + (RANDOM_MXCSRS - RANDOM_DATA);

    for (unsigned page = FIRST_DATA; page < RANDOM_PAGES; page++)
        make_numbers(&generator, memory[page], PAGE_SIZE);
    for (unsigned i = 0; i < RANDOM_MXCSR_COUNT; i++) {
        uint32_t value = (random_any(&generator) & 0xe03f) | (i < 6 ? 0x1f80u : 0);

        memcpy(mxcsrs + 4 * (size_t)i, &value, sizeof value);
    }
}
