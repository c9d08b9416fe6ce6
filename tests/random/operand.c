/*
 * Instructions with operands of every form: ModRM and SIB, both address sizes, segment overrides,
 * displacements that wrap around. Read next: items.c.
 */
#include <string.h>

#include "generator.h"

/* ---- bytes --------------------------------------------------------------------------------------------- */

void emit_byte(struct generator *generator, unsigned byte)
{
    struct item *item = generator->item;

    if (item->n_bytes < ITEM_MAX_BYTES)
        item->bytes[item->n_bytes++] = (uint8_t)byte;
}

void emit_bytes(struct generator *generator, const char *bytes, size_t n)
{
    for (size_t i = 0; i < n; i++)
        emit_byte(generator, (uint8_t)bytes[i]);
}

void emit_word(struct generator *generator, uint32_t value, unsigned size)
{
    for (unsigned i = 0; i < size; i++)
        emit_byte(generator, value >> 8 * i & 0xff);
}

void emit_fixup(struct generator *generator, enum fixup_kind kind, unsigned target, int32_t addend)
{
    struct item *item = generator->item;

    if (item->n_fixups < ITEM_MAX_FIXUPS)
        item->fixup[item->n_fixups++] = (struct fixup){
            .kind = (uint8_t)kind, .offset = item->n_bytes, .item = (uint8_t)target, .addend = addend};
    emit_word(generator, 0, kind == FIXUP_REL8 ? 1 : 4);
}

void emit_load(struct generator *generator, unsigned reg, uint32_t value)
{
    emit_byte(generator, 0xb8 + reg);
    emit_word(generator, value, 4);
    generator->is_known[reg] = reg != ESP;
    generator->value[reg] = value;
}

void forget(struct generator *generator, unsigned registers)
{
    for (unsigned reg = 0; reg < GPR_COUNT; reg++)
        if (registers & 1u << reg)
            generator->is_known[reg] = false;
}

bool may_write(const struct generator *generator, unsigned registers)
{
    return (generator->reserved & registers) == 0;
}

/* ---- values -------------------------------------------------------------------------------------------- */

uint32_t random_value(struct generator *generator)
{
    static const uint32_t values[] = {0,          1,          2,          0x7f,       0x80,      0xff,
                                      0x100,      0x7fff,     0x8000,     0xffff,     0x10000,   0x7fffffff,
                                      0x80000000, 0x80000001, 0xfffffffe, 0xffffffff, 0x40000000};

    switch (random_below(generator, 4)) {
    case 0:
        return random_any(generator);
    case 1:
        return random_below(generator, 40);
    case 2:
        return random_address(generator, 1);
    default:
        return PICK(&generator->chance, values);
    }
}

static uint8_t random_byte(struct generator *generator)
{
    static const uint8_t bytes[] = {0, 1, 2, 0x7f, 0x80, 0xff, 0xfe, 31, 32, 33};

    return random_one_in(generator, 2) ? (uint8_t)random_any(generator) : PICK(&generator->chance, bytes);
}

/* Where an access is refused, or may be. */
static uint32_t bad_address(struct generator *generator)
{
    const uint32_t places[] = {RANDOM_DATA + PAGES_DATA * PAGE_SIZE,
                               RANDOM_DATA,
                               RANDOM_READ_ONLY,
                               RANDOM_READ_ONLY + PAGE_SIZE,
                               RANDOM_STACK,
                               RANDOM_STACK + PAGES_STACK * PAGE_SIZE,
                               RANDOM_HIGH,
                               RANDOM_HIGH + PAGE_SIZE,
                               0x80000,
                               0x1000,
                               RANDOM_CODE,
                               RANDOM_CODE + PAGES_CODE * PAGE_SIZE,
                               0x80000000,
                               0xfffff000};

    if (random_one_in(generator, 8))
        return 0x80000 + (random_any(generator) & 0x7fffffff);
    return PICK(&generator->chance, places) - random_below(generator, 12);
}

uint32_t random_address(struct generator *generator, unsigned alignment)
{
    uint32_t mask = ~(alignment - 1);

    if (random_one_in(generator, generator->class->fault_rarity))
        return bad_address(generator);
    switch (random_below(generator, 24)) {
    case 0: /* across two pages */
        return (RANDOM_DATA + (1 + random_below(generator, PAGES_DATA - 1)) * PAGE_SIZE -
                random_below(generator, 16)) &
               mask;
    case 1:
        return (RANDOM_HIGH + random_below(generator, PAGE_SIZE - 64)) & mask;
    case 2:
        return (RANDOM_STACK_MIDDLE - 0x400 + random_below(generator, 0x800)) & mask;
    default:
        return (RANDOM_DATA + random_below(generator, RANDOM_DATA_FREE - 64)) &
               (random_one_in(generator, 2) ? mask : mask & ~3u);
    }
}

/* ---- memory operands ----------------------------------------------------------------------------------- */

#define NO_REGISTER 8u

struct place {
    uint32_t address; /* linear */
    bool is_16bit;
    unsigned avoid; /* registers that the operand may not be made of; a bit each */
};

static unsigned pick_register(struct generator *generator, unsigned avoid)
{
    unsigned reg;

    do {
        reg = random_below(generator, GPR_COUNT);
    } while (reg == ESP || (avoid & 1u << reg));
    return reg;
}

/* A value for it, if it needs one. */
static uint32_t know(struct generator *generator, unsigned reg)
{
    if (!generator->is_known[reg])
        emit_load(generator, reg,
                  random_one_in(generator, 3) ? random_any(generator) : random_value(generator));
    return generator->value[reg];
}

struct modrm {
    uint8_t bytes[6];
    unsigned n;
};

static void put(struct modrm *modrm, uint32_t value, unsigned size)
{
    for (unsigned i = 0; i < size; i++)
        modrm->bytes[modrm->n++] = (uint8_t)(value >> 8 * i);
}

/* [bx+si] and its kin: offsets of 16 bits, to be used with FS, whose base is the data's. */
static void encode_16bit(struct generator *generator, const struct place *place, unsigned reg,
                         struct modrm *modrm)
{
    static const uint8_t parts[8][2] = {{EBX, ESI},         {EBX, EDI},        {EBP, ESI},
                                        {EBP, EDI},         {ESI, 8},          {EDI, NO_REGISTER},
                                        {EBP, NO_REGISTER}, {EBX, NO_REGISTER}};
    unsigned rm = random_below(generator, 8);
    uint32_t displacement = place->address - RANDOM_FS_BASE;

    for (unsigned i = 0; i < 2; i++) {
        unsigned part = parts[rm][i];

        if (part == NO_REGISTER)
            continue;
        if ((place->avoid & 1u << part) && !generator->is_known[part]) {
            put(modrm, 0x06u | reg << 3, 1); /* [disp16] */
            put(modrm, place->address - RANDOM_FS_BASE, 2);
            return;
        }
        displacement -= know(generator, part);
    }
    put(modrm, 0x80u | reg << 3 | rm, 1);
    put(modrm, displacement, 2);
}

static unsigned scale_bits(struct generator *generator, unsigned index)
{
    return index == NO_REGISTER ? 0 : random_below(generator, 4);
}

/* Base, index and displacement of any size, the displacement being what is missing. */
static void encode_32bit(struct generator *generator, const struct place *place, unsigned reg,
                         struct modrm *modrm)
{
    uint32_t missing = place->address;
    unsigned base = NO_REGISTER, index = NO_REGISTER, scale, mod = 2;
    bool has_sib = random_one_in(generator, 2);

    if (!random_one_in(generator, 6))
        base = random_one_in(generator, 6) ? ESP : pick_register(generator, place->avoid);
    if (has_sib && !random_one_in(generator, 4))
        index = pick_register(generator, place->avoid);
    has_sib = has_sib || base == ESP;
    scale = scale_bits(generator, index);
    if (index != NO_REGISTER)
        missing -= know(generator, index) << scale;
    if (base == ESP)
        missing = RANDOM_STACK_MIDDLE - 0x200 + (missing & 0x3fc) - RANDOM_STACK_MIDDLE -
                  (index == NO_REGISTER ? 0 : generator->value[index] << scale);
    else if (base != NO_REGISTER && base != index && random_one_in(generator, 2) &&
             may_write(generator, 1u << base)) {
        /* a short form: the base is what is missing */
        int8_t displacement = base == EBP || random_one_in(generator, 2) ? (int8_t)random_any(generator) : 0;

        mod = displacement != 0 || base == EBP ? 1 : 0;
        emit_load(generator, base, missing - (uint32_t)displacement);
        missing = (uint32_t)displacement;
    } else if (base != NO_REGISTER)
        missing -= know(generator, base);

    if (base == NO_REGISTER) {
        put(modrm, reg << 3 | (has_sib ? 4u : 5u), 1);
        if (has_sib)
            put(modrm, scale << 6 | (index == NO_REGISTER ? 4u : index) << 3 | 5, 1);
        put(modrm, missing, 4);
        return;
    }
    put(modrm, mod << 6 | reg << 3 | (has_sib ? 4u : base), 1);
    if (has_sib)
        put(modrm, scale << 6 | (index == NO_REGISTER ? 4u : index) << 3 | base, 1);
    put(modrm, missing, mod == 2 ? 4 : mod);
}

/* The prefixes that go with a way to write the address, which they change. */
static void choose_segment(struct generator *generator, struct place *place, struct modrm *prefixes)
{
    static const uint8_t flat[] = {0x26, 0x2e, 0x36, 0x3e};
    uint32_t offset = place->address - RANDOM_FS_BASE;

    switch (random_below(generator, 24)) {
    case 0:
        if (offset < 0x10000) {
            place->is_16bit = true;
            put(prefixes, 0x64, 1);
            put(prefixes, 0x67, 1);
        }
        break;
    case 1: /* also below its base: the sum wraps */
        place->address = offset;
        put(prefixes, 0x64, 1);
        break;
    case 2:
        offset = place->address - RANDOM_GS_BASE;
        if (offset > RANDOM_GS_LIMIT && !random_one_in(generator, 8))
            offset %= RANDOM_GS_LIMIT - 15;
        place->address = offset;
        put(prefixes, 0x65, 1);
        break;
    case 3:
        put(prefixes, PICK(&generator->chance, flat), 1);
        break;
    default:
        break;
    }
}

static void encode_place(struct generator *generator, const struct place *place, unsigned reg,
                         struct modrm *modrm)
{
    if (place->is_16bit)
        encode_16bit(generator, place, reg, modrm);
    else
        encode_32bit(generator, place, reg, modrm);
}

/* ---- instructions -------------------------------------------------------------------------------------- */

static unsigned written_registers(const struct insn *insn)
{
    unsigned registers = 0;

    for (unsigned i = 0; i < insn->n_operands; i++) {
        const struct operand *operand = &insn->operand[i];

        if (operand->kind != OPERAND_REGISTER || !(operand->access & OPERAND_WRITE))
            continue;
        if (operand->reg.class == REGISTER_GPR8)
            registers |= 1u << (operand->reg.index & 3);
        else if (operand->reg.class == REGISTER_GPR16 || operand->reg.class == REGISTER_GPR32)
            registers |= 1u << operand->reg.index;
    }
    return registers;
}

/* What an instruction needs in registers that its operands do not show. */
static void prepare_implicit(struct generator *generator, const struct row *row, unsigned reg, bool is_memory)
{
    if ((row->flags & ROW_DIVIDE) && !random_one_in(generator, 6)) {
        emit_load(generator, EDX, 0);
        if (random_one_in(generator, 2))
            emit_load(generator, EAX, random_below(generator, 256));
    }
    if ((row->flags & ROW_BIT_OFFSET) && is_memory && reg != ESP)
        emit_load(generator, reg, random_below(generator, 0x4000) - 0x2000);
    if (row->flags & ROW_XLAT)
        emit_load(generator, EBX, random_address(generator, 1));
    if (row->flags & ROW_EDI)
        emit_load(generator, EDI, random_address(generator, 1));
}

static void choose_prefixes(struct generator *generator, const struct row *row, bool is_memory,
                            struct modrm *prefixes)
{
    static const uint8_t simd[] = {0x66, 0x66, 0xf2, 0xf3};

    if ((row->flags & ROW_LOCK) && is_memory && !random_one_in(generator, 4))
        put(prefixes, 0xf0, 1);
    if ((row->flags & ROW_SIMD) ? !random_one_in(generator, 3) : false)
        put(prefixes, PICK(&generator->chance, simd), 1);
    else if (!(row->flags & ROW_SIMD) && random_one_in(generator, 5))
        put(prefixes, 0x66, 1);
}

static struct place choose_place(struct generator *generator, const struct row *row, unsigned avoid)
{
    struct place place = {.avoid = avoid};

    if (row->flags & ROW_MXCSR)
        place.address = RANDOM_MXCSRS + 4 * random_below(generator, RANDOM_MXCSR_COUNT);
    else if (row->flags & ROW_LOCK) /* no split locks: hosts are made to punish them */
        place.address = random_address(generator, 8) & ~7u;
    else
        place.address =
            random_address(generator, (row->flags & ROW_ALIGNED) && !random_one_in(generator, 12) ? 16 : 1);
    return place;
}

/* Appends the instruction to the item; the decoder finds its end. */
static bool finish_insn(struct generator *generator, const struct row *row, const struct modrm *prefixes,
                        unsigned opcode, const struct modrm *modrm)
{
    struct item *item = generator->item;
    uint8_t bytes[INSN_MAX_LENGTH + 16];
    struct insn insn;
    unsigned n = prefixes->n, written;

    memcpy(bytes, prefixes->bytes, n);
    if (row->map == 1)
        bytes[n++] = 0x0f;
    bytes[n++] = (uint8_t)opcode;
    memcpy(bytes + n, modrm->bytes, modrm->n);
    for (n += modrm->n; n < sizeof bytes; n++)
        bytes[n] = random_byte(generator);
    if (decode_insn(bytes, INSN_MAX_LENGTH, 4, &insn) != DECODE_OK || !random_is_fair(&insn))
        return false;
    written = written_registers(&insn);
    if (!may_write(generator, written | row->implicit) || item->n_bytes + insn.length + 11u > ITEM_MAX_BYTES)
        return false;
    emit_bytes(generator, (const char *)insn.bytes, insn.length);
    forget(generator, written | row->implicit);
    if (written & 1u << ESP)
        emit_load(generator, ESP, RANDOM_STACK_MIDDLE);
    if (row->flags & ROW_CHECKED_FLAGS) { /* cmp eax, imm */
        item->loose_flags = item->n_bytes;
        emit_byte(generator, 0x3d);
        emit_word(generator, random_value(generator), 4);
    }
    return true;
}

static bool try_row(struct generator *generator, const struct row *row)
{
    struct modrm prefixes = {.n = 0}, modrm = {.n = 0};
    unsigned opcode = row->opcode ^ (random_any(generator) & row->vary);
    unsigned reg = row->reg >= 0 ? (unsigned)row->reg : random_below(generator, 8);
    bool is_memory = (row->flags & ROW_MODRM) && !(row->flags & ROW_REGISTER) &&
                     ((row->flags & ROW_MEMORY) || random_one_in(generator, 2));
    unsigned avoid = row->implicit | generator->reserved;

    if (row->flags & ROW_BIT_OFFSET)
        avoid |= 1u << reg;
    if (!may_write(generator, row->implicit) ||
        !may_write(generator, avoid & ~row->implicit & ~generator->reserved))
        return false;
    choose_prefixes(generator, row, is_memory, &prefixes);
    prepare_implicit(generator, row, reg, is_memory);
    if (is_memory) {
        struct place place = choose_place(generator, row, avoid);

        if (!(row->flags & ROW_LOCK))
            choose_segment(generator, &place, &prefixes);
        encode_place(generator, &place, reg, &modrm);
    } else if (row->flags & ROW_MODRM) {
        put(&modrm, 0xc0u | reg << 3 | random_below(generator, 8), 1);
    } else if (row->flags & ROW_MOFFS) {
        put(&modrm, random_address(generator, 1), 4);
    }
    return finish_insn(generator, row, &prefixes, opcode, &modrm);
}

bool emit_row(struct generator *generator, const struct row *row)
{
    for (unsigned i = 0; i < 16; i++) {
        const struct generator before = *generator;
        const struct item item = *generator->item;

        if (try_row(generator, row))
            return true;
        struct chance chance = generator->chance;

        *generator->item = item;
        *generator = before;
        generator->chance = chance;
    }
    return false;
}

void emit_memory_insn(struct generator *generator, unsigned opcode, unsigned reg, uint32_t address)
{
    struct place place = {.address = address, .avoid = generator->reserved | 1u << ESP};
    struct modrm modrm = {.n = 0};

    encode_32bit(generator, &place, reg, &modrm);
    emit_byte(generator, opcode);
    emit_bytes(generator, (const char *)modrm.bytes, modrm.n);
}
