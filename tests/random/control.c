/*
 * Items that say where execution goes: branches, calls, loops, and code that changes itself.
 * Read next: generate.c.
 */
#include "generator.h"

/* A label: registers may come with different values. */
void make_label(struct generator *generator, unsigned item)
{
    if (item <= SEQUENCE_MAX_ITEMS)
        generator->is_target[item] = true;
}

static unsigned pick_target(struct generator *generator)
{
    unsigned target = current_item(generator) + 1 + random_below(generator, 4);

    if (target > SEQUENCE_MAX_ITEMS)
        target = SEQUENCE_MAX_ITEMS;
    make_label(generator, target);
    return target;
}

static unsigned pick_free(struct generator *generator)
{
    unsigned reg;

    do {
        reg = random_below(generator, GPR_COUNT);
    } while (reg == ESP || !may_write(generator, 1u << reg));
    return reg;
}

static void emit_jcc(struct generator *generator, unsigned condition, unsigned target)
{
    if (random_one_in(generator, 2)) {
        emit_byte(generator, 0x70 | condition);
        emit_fixup(generator, FIXUP_REL8, target, 0);
    } else {
        emit_byte(generator, 0x0f);
        emit_byte(generator, 0x80 | condition);
        emit_fixup(generator, FIXUP_REL32, target, 0);
    }
}

bool make_branch(struct generator *generator)
{
    switch (random_below(generator, 8)) {
    case 0: /* loopne, loope, loop, jecxz */
        if (!may_write(generator, 1u << ECX))
            return false;
        if (random_one_in(generator, 6))
            emit_byte(generator, 0x67); /* by cx */
        emit_byte(generator, 0xe0 + random_below(generator, 4));
        emit_fixup(generator, FIXUP_REL8, pick_target(generator), 0);
        forget(generator, 1u << ECX);
        return true;
    case 1:
        emit_byte(generator, 0xe9);
        emit_fixup(generator, FIXUP_REL32, pick_target(generator), 0);
        return true;
    case 2:
        emit_byte(generator, 0xeb);
        emit_fixup(generator, FIXUP_REL8, pick_target(generator), 0);
        return true;
    default:
        emit_jcc(generator, random_below(generator, 16), pick_target(generator));
        return true;
    }
}

/* jmp or call through a register or memory. */
bool make_indirect(struct generator *generator)
{
    unsigned reg = pick_free(generator);
    unsigned kind = random_one_in(generator, 3) ? 2 : 4; /* call, jmp */
    uint32_t address;

    if (random_one_in(generator, 2)) {
        emit_byte(generator, 0xb8 + reg);
        emit_fixup(generator, FIXUP_ABSOLUTE, pick_target(generator), 0);
        forget(generator, 1u << reg);
        if (random_one_in(generator, 24))
            emit_byte(generator, 0x66); /* cuts the target off */
        emit_byte(generator, 0xff);
        emit_byte(generator, 0xc0 | kind << 3 | reg);
        return true;
    }
    if (random_one_in(generator, 2)) { /* push target; ret */
        emit_byte(generator, 0x68);
        emit_fixup(generator, FIXUP_ABSOLUTE, pick_target(generator), 0);
        if (random_one_in(generator, 2)) {
            emit_byte(generator, 0xc3);
        } else {
            emit_byte(generator, 0xc2);
            emit_word(generator, random_below(generator, 16) * 4, 2);
        }
        return true;
    }
    address = RANDOM_DATA + random_below(generator, RANDOM_DATA_FREE - 4);
    emit_byte(generator, 0xc7); /* mov dword [address], target */
    emit_byte(generator, 0x05);
    emit_word(generator, address, 4);
    emit_fixup(generator, FIXUP_ABSOLUTE, pick_target(generator), 0);
    emit_memory_insn(generator, 0xff, kind, address);
    return true;
}

/* Branches into the next `n` items lead to the current one instead. */
static void close_to_branches(struct generator *generator, unsigned n)
{
    struct sequence *sequence = generator->sequence;
    unsigned current = current_item(generator);

    for (unsigned i = 0; i < current; i++)
        for (unsigned k = 0; k < sequence->item[i].n_fixups; k++) {
            struct fixup *fixup = &sequence->item[i].fixup[k];

            if (fixup->item > current && fixup->item <= current + n)
                fixup->item = (uint8_t)current;
        }
    forget(generator, 0xff);
}

/* call f; jmp over; f: ...; ret; over: */
bool make_call(struct generator *generator)
{
    unsigned first = current_item(generator), n = 1 + random_below(generator, 3);

    if (generator->depth > 1 || !has_room(generator, n + 4))
        return false;
    generator->depth++;
    close_to_branches(generator, n + 2);
    emit_byte(generator, 0xe8);
    emit_fixup(generator, FIXUP_REL32, first + 2, 0);
    begin_item(generator);
    emit_byte(generator, 0xeb);
    emit_fixup(generator, FIXUP_REL8, first + 3 + n, 0);
    make_label(generator, first + 2);
    make_body(generator, n);
    begin_item(generator);
    if (random_one_in(generator, 3)) {
        emit_byte(generator, 0xc2);
        emit_word(generator, 4 * random_below(generator, 4), 2);
    } else {
        emit_byte(generator, 0xc3);
    }
    make_label(generator, first + 1);
    make_label(generator, first + 3 + n);
    generator->depth--;
    return true;
}

/* A loop that ends: its counter is a register that is held back from others, or lies in memory. */
bool make_loop(struct generator *generator)
{
    unsigned n = 1 + random_below(generator, 4), head = current_item(generator) + 1;
    unsigned kind = random_below(generator, 3), reg = kind == 0 ? ECX : pick_free(generator);
    uint32_t counter = RANDOM_COUNTERS + 4 * (generator->n_counters++ & 31);
    uint32_t count = 1 + random_below(generator, random_one_in(generator, 6) ? 300 : 8);

    if (generator->depth > 1 || !has_room(generator, n + 4) || !may_write(generator, 1u << reg))
        return false;
    generator->depth++;
    close_to_branches(generator, n + 1);
    if (kind == 2) {
        EMIT(generator, "\xc7\x05"); /* mov dword [counter], count */
        emit_word(generator, counter, 4);
        emit_word(generator, count, 4);
    } else {
        emit_load(generator, reg, count);
        forget(generator, 1u << reg);
    }
    make_label(generator, head);
    generator->reserved |= kind == 2 ? 0 : 1u << reg;
    make_body(generator, n);
    generator->reserved &= (uint8_t)(kind == 2 ? 0xff : ~(1u << reg));
    begin_item(generator);
    if (kind == 0) {
        emit_byte(generator, 0xe2); /* loop */
        emit_fixup(generator, FIXUP_REL8, head, 0);
    } else {
        if (kind == 1) {
            emit_byte(generator, 0x48 + reg); /* dec reg */
        } else {
            EMIT(generator, "\xff\x0d"); /* dec dword [counter] */
            emit_word(generator, counter, 4);
        }
        emit_byte(generator, 0x0f);
        emit_byte(generator, 0x85);
        emit_fixup(generator, FIXUP_REL32, head, 0);
    }
    make_label(generator, current_item(generator) + 1);
    generator->depth--;
    return true;
}

/* ---- code that changes itself: a later item is `mov reg, imm32`, whose immediate is what changes --------
 */

enum { IMMEDIATE = 1 }; /* its offset */

static void emit_victim(struct generator *generator)
{
    unsigned reg = pick_free(generator);

    begin_item(generator);
    emit_load(generator, reg, random_any(generator));
    forget(generator, 1u << reg);
}

/* CPUID serializes, as a change through another linear address asks for (SDM Vol 3A 8.1.3). */
static void emit_serialize(struct generator *generator)
{
    EMIT(generator, "\x31\xc0\x0f\xa2");
    for (unsigned reg = EAX; reg <= EBX; reg++)
        emit_load(generator, reg, random_value(generator));
}

bool make_self_modifying(struct generator *generator)
{
    unsigned victim = current_item(generator) + 1;
    const int32_t alias = (int32_t)(RANDOM_ALIAS - RANDOM_CODE);
    unsigned offset = random_below(generator, 4);

    if (generator->reserved != 0 || !generator->sequence->is_code_writable || !has_room(generator, 2))
        return false;
    switch (random_below(generator, 6)) {
    case 0: /* mov dword [victim], imm */
        EMIT(generator, "\xc7\x05");
        emit_fixup(generator, FIXUP_ABSOLUTE, victim, IMMEDIATE);
        emit_word(generator, random_any(generator), 4);
        break;
    case 1: /* inc byte [victim] */
        EMIT(generator, "\xfe\x05");
        emit_fixup(generator, FIXUP_ABSOLUTE, victim, IMMEDIATE + (int32_t)offset);
        break;
    case 2: /* rep stosb, or movsb from the data */
        emit_byte(generator, 0xbf);
        emit_fixup(generator, FIXUP_ABSOLUTE, victim, IMMEDIATE + (int32_t)offset);
        emit_load(generator, ESI, RANDOM_DATA + random_below(generator, 0x3000));
        emit_load(generator, ECX, 4 - offset);
        EMIT(generator, "\xfc\xf3");
        emit_byte(generator, random_one_in(generator, 2) ? 0xa4 : 0xaa);
        forget(generator, 1u << ESI | 1u << EDI | 1u << ECX);
        break;
    case 3:                                             /* through the alias */
        if (!generator->sequence->has_second_code_page) /* or CPUID's answer may be seen by a fault */
            return false;
        EMIT(generator, "\xc7\x05");
        emit_fixup(generator, FIXUP_ABSOLUTE, victim, IMMEDIATE + alias);
        emit_word(generator, random_any(generator), 4);
        emit_serialize(generator);
        break;
    case 4: /* another register: b8+reg; a victim that is read as data first */
        EMIT(generator, "\xa1");
        emit_fixup(generator, FIXUP_ABSOLUTE, victim, 0);
        EMIT(generator, "\x80\x35"); /* xor byte [victim], 3: eax-ebx, esi-edi among each other */
        emit_fixup(generator, FIXUP_ABSOLUTE, victim, 0);
        emit_byte(generator, 1);
        forget(generator, 0xff);
        emit_victim(generator);
        generator->item->bytes[0] = (uint8_t)(0xb8 + (random_one_in(generator, 2) ? ECX : EDI));
        forget(generator, 0xff);
        return true;
    default: /* a store that misses the code by a byte */
        EMIT(generator, "\xa2");
        emit_fixup(generator, FIXUP_ABSOLUTE, SEQUENCE_MAX_ITEMS, 2);
        break;
    }
    emit_victim(generator);
    return true;
}
