/*
 * Items that are more than one instruction of a row: strings, flags, stack frames, faults, segments.
 * Read next: control.c.
 */
#include "generator.h"

/* ---- string instructions ------------------------------------------------------------------------------- */

static uint32_t string_address(struct generator *generator)
{
    if (random_one_in(generator, 8)) /* near the end: a repeated one faults on its way */
        return RANDOM_DATA + PAGES_DATA * PAGE_SIZE - random_below(generator, 64);
    if (random_one_in(generator, 12))
        return RANDOM_HIGH + random_below(generator, PAGE_SIZE);
    return random_one_in(generator, 3) ? random_address(generator, 4) : random_address(generator, 1);
}

bool make_string(struct generator *generator)
{
    static const uint8_t opcodes[] = {0xa4, 0xa6, 0xaa, 0xac, 0xae, 0xa4, 0xaa};
    static const uint8_t repeats[] = {0xf3, 0xf3, 0xf2};
    bool is_down = random_one_in(generator, 3);
    unsigned opcode = PICK(&generator->chance, opcodes) + random_below(generator, 2);
    bool is_word = random_one_in(generator, 4);

    if (!may_write(generator, 1u << ESI | 1u << EDI | 1u << ECX | 1u << EAX))
        return false;
    if (!random_one_in(generator, 8)) {
        emit_load(generator, ESI, string_address(generator));
        emit_load(generator, EDI, string_address(generator));
    }
    emit_load(generator, ECX,
              random_one_in(generator, 8) ? random_below(generator, 3000) : random_below(generator, 40));
    if (is_down)
        emit_byte(generator, 0xfd); /* std */
    if (random_one_in(generator, 16))
        emit_byte(generator, 0x3e); /* ds: as without */
    if (random_one_in(generator, 40))
        emit_byte(generator, 0x67); /* si, di, cx */
    if (is_word)
        emit_byte(generator, 0x66);
    if (!random_one_in(generator, 3))
        emit_byte(generator, PICK(&generator->chance, repeats));
    emit_byte(generator, opcode);
    forget(generator, 1u << ESI | 1u << EDI | 1u << ECX | 1u << EAX);
    if (is_down && !random_one_in(generator, 6))
        emit_byte(generator, 0xfc); /* cld */
    return true;
}

/* ---- flags --------------------------------------------------------------------------------------------- */

/* Only what ring 3 may change, so that the answer is the same at CPL 0 with IF set and IOPL 0. */
static void emit_popf(struct generator *generator)
{
    uint32_t bits = random_any(generator) &
                    (EFLAGS_CF | EFLAGS_PF | EFLAGS_AF | EFLAGS_ZF | EFLAGS_SF | EFLAGS_OF | EFLAGS_ID);

    if (random_one_in(generator, 8))
        bits |= EFLAGS_DF;
    if (random_one_in(generator, 24))
        bits |= EFLAGS_TF;
    if (random_one_in(generator, 24) && !generator->sequence->is_supervisor)
        bits |= EFLAGS_AC;
    EMIT(generator, "\x9c\x81\x34\x24"); /* pushf; xor dword [esp], bits; popf */
    emit_word(generator, bits, 4);
    if (random_one_in(generator, 8) && !(bits & (EFLAGS_TF | EFLAGS_AC)))
        emit_byte(generator, 0x66);
    emit_byte(generator, 0x9d);
}

bool make_flags(struct generator *generator)
{
    unsigned reg = random_below(generator, GPR_COUNT);

    switch (random_below(generator, 3)) {
    case 0:
        emit_popf(generator);
        return true;
    case 1:
        emit_byte(generator, 0xfc + random_below(generator, 2) * random_below(generator, 2)); /* cld, std */
        return true;
    default:
        if (reg == ESP || !may_write(generator, 1u << reg))
            return false;
        emit_byte(generator, 0x9c);
        emit_byte(generator, 0x58 + reg); /* pushf; pop reg */
        forget(generator, 1u << reg);
        return true;
    }
}

/* ---- stack frames -------------------------------------------------------------------------------------- */

/* Sometimes where it does not fit. */
static void emit_stack_place(struct generator *generator)
{
    if (random_one_in(generator, 12))
        emit_load(generator, ESP,
                  random_one_in(generator, 2)
                      ? RANDOM_STACK + random_below(generator, 40)
                      : RANDOM_STACK + PAGES_STACK * PAGE_SIZE - random_below(generator, 40));
    else if (random_one_in(generator, 3))
        emit_load(generator, ESP, RANDOM_STACK_MIDDLE + random_below(generator, 40) - 20);
}

bool make_frame(struct generator *generator)
{
    unsigned kind = random_below(generator, 5);

    if (generator->reserved != 0)
        return false;
    emit_stack_place(generator);
    if (kind >= 2 && random_one_in(generator, 2))
        emit_load(generator, EBP, RANDOM_STACK_MIDDLE - random_below(generator, 128));
    if (random_one_in(generator, 6))
        emit_byte(generator, 0x66);
    switch (kind) {
    case 0:
        emit_byte(generator, 0x60); /* pusha */
        return true;
    case 1:
        emit_byte(generator, 0x61); /* popa */
        forget(generator, 0xff);
        break;
    case 2:
    case 3:
        emit_byte(generator, 0xc8); /* enter */
        emit_word(generator, random_below(generator, 64), 2);
        emit_byte(generator, random_one_in(generator, 2) ? 0 : random_below(generator, 36));
        forget(generator, 1u << EBP);
        break;
    default:
        emit_byte(generator, 0xc9); /* leave */
        forget(generator, 1u << EBP);
        break;
    }
    emit_load(generator, ESP, RANDOM_STACK_MIDDLE);
    return true;
}

/* ---- faults -------------------------------------------------------------------------------------------- */

struct snippet {
    const char *bytes;
    uint8_t length;
    bool is_user_only; /* at CPL 0 it would run */
};
#define SNIPPET(literal)                                                                                     \
    {                                                                                                        \
        literal, sizeof(literal) - 1, false                                                                  \
    }
#define USER_SNIPPET(literal)                                                                                \
    {                                                                                                        \
        literal, sizeof(literal) - 1, true                                                                   \
    }

static const struct snippet fault_snippets[] = {
    SNIPPET("\xcc"),                                                         /* int3 */
    SNIPPET("\x0f\x0b"),                                                     /* ud2 */
    SNIPPET("\x8d\xc0"),                                                     /* lea of a register: #UD */
    SNIPPET("\xf0\x90"),                                                     /* LOCK on what cannot: #UD */
    SNIPPET("\xf0\x01\xc0"),                                                 /* on a register: #UD */
    SNIPPET("\xf0\x8b\x03"),                                                 /* on a load: #UD */
    SNIPPET("\xff\xff"),                                                     /* group 5, /7 */
    SNIPPET("\xfe\xf8"),                                                     /* group 4, /7 */
    SNIPPET("\x0f\xc7\xc8"),                                                 /* cmpxchg8b of a register */
    SNIPPET("\xd4\x00"),                                                     /* aam 0: #DE */
    SNIPPET("\x31\xc9\xf7\xf1"),                                             /* xor ecx, ecx; div ecx */
    SNIPPET("\xb8\x00\x00\x00\x80\x99\x6a\xff\xf7\x3c\x24"),                 /* INT_MIN / -1 */
    SNIPPET("\xb0\x7f\x04\x01\xce"),                                         /* add al, 1 overflows; into */
    SNIPPET("\x6a\x05\x6a\x02\x31\xc0\x62\x04\x24"),                         /* bound: #BR */
    SNIPPET("\x6a\x05\x6a\x00\xb8\x03\x00\x00\x00\x62\x04\x24"),             /* bound, within */
    SNIPPET("\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x90"), /* 15 bytes */
    SNIPPET("\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x90"),
    SNIPPET("\x3e\x36\x26\x64\x65\x2e\x66\x66\x3e\x3e\x01\xc0"), /* redundant prefixes */
    SNIPPET("\x66\x70\x00\x66\x71\x00"),                         /* a 16-bit branch cuts eip off */
    USER_SNIPPET("\xf4"),                                        /* hlt: #GP and so on */
    USER_SNIPPET("\xfa"),
    USER_SNIPPET("\xfb"),
    USER_SNIPPET("\xec"),
    USER_SNIPPET("\xe7\x80"),
    USER_SNIPPET("\x6c"),
    USER_SNIPPET("\xf3\x6f"),
    USER_SNIPPET("\x0f\x20\xc0"),
    USER_SNIPPET("\x0f\x22\xd8"),
    USER_SNIPPET("\x0f\x21\xc0"),
    USER_SNIPPET("\x0f\x06"),
    USER_SNIPPET("\x0f\x01\x3b"),
    USER_SNIPPET("\x0f\x01\x13"),
    USER_SNIPPET("\x0f\x30"),
    USER_SNIPPET("\x0f\x32"),
    USER_SNIPPET("\x0f\x09"),
    USER_SNIPPET("\xcd\x30"), /* int 30h: beyond any gate */
    USER_SNIPPET("\xcd\x03"),
};

bool make_fault(struct generator *generator)
{
    const struct snippet *snippet = &PICK(&generator->chance, fault_snippets);

    if (generator->reserved != 0 || (snippet->is_user_only && generator->sequence->is_supervisor))
        return false;
    if (random_one_in(generator, 2)) { /* a plain access or call to where there is nothing */
        static const uint8_t opcodes[] = {0x00, 0x03, 0x89, 0x8b, 0x87, 0xd1, 0x29, 0xff};

        emit_memory_insn(generator, PICK(&generator->chance, opcodes), random_below(generator, 3),
                         random_one_in(generator, 2) ? 0x80000 + (random_any(generator) & 0x3fffff)
                                                     : RANDOM_READ_ONLY + random_below(generator, PAGE_SIZE));
        forget(generator, 0xff);
        return true;
    }
    emit_bytes(generator, snippet->bytes, snippet->length);
    forget(generator, 1u << EAX | 1u << ECX | 1u << EDX);
    return true;
}

/* ---- segment registers: what they say, and what loads of them do ----------------------------------------
 */

static unsigned pick_scratch(struct generator *generator)
{
    static const uint8_t registers[] = {EAX, ECX, EDX, EBX, ESI, EDI};

    return PICK(&generator->chance, registers);
}

bool make_segment(struct generator *generator)
{
    static const uint16_t selectors[] = {RANDOM_SELECTOR_FS, RANDOM_SELECTOR_GS, 0, 3, 0x2b};
    static const uint8_t pushes[] = {0x06, 0x0e, 0x16, 0x1e};
    unsigned reg = pick_scratch(generator);

    if (generator->reserved != 0)
        return false;
    switch (random_below(generator, 6)) {
    case 0: /* mov reg, sreg: all but fs and gs say what the host's say */
        emit_byte(generator, 0x8c);
        emit_byte(generator, 0xc0 | random_below(generator, 6) << 3 | reg);
        break;
    case 1: /* push sreg; pop reg */
        if (random_one_in(generator, 2)) {
            emit_byte(generator, PICK(&generator->chance, pushes));
        } else {
            emit_byte(generator, 0x0f);
            emit_byte(generator, random_one_in(generator, 2) ? 0xa0 : 0xa8);
        }
        emit_byte(generator, 0x58 + reg);
        EMIT(generator, "\x0f\xb7"); /* movzx: some models push four bytes, others two */
        emit_byte(generator, 0xc0 | reg << 3 | reg);
        EMIT(generator, "\xc7\x44\x24\xfc"); /* mov dword [esp-4], 0 */
        emit_word(generator, 0, 4);
        break;
    case 2: /* mov fs or gs; an access through it */
    case 3:
        emit_load(generator, reg, PICK(&generator->chance, selectors));
        emit_byte(generator, 0x8e);
        emit_byte(generator, 0xe0 | random_below(generator, 2) << 3 | reg);
        emit_load(generator, reg, random_below(generator, 0x1000));
        emit_byte(generator, random_one_in(generator, 2) ? 0x64 : 0x65);
        EMIT(generator, "\x8b");
        emit_byte(generator, reg << 3 | reg);
        break;
    case 4: /* push; pop fs or gs */
        EMIT(generator, "\x6a");
        emit_byte(generator, PICK(&generator->chance, selectors));
        EMIT(generator, "\x0f");
        emit_byte(generator, random_one_in(generator, 2) ? 0xa1 : 0xa9);
        break;
    default: /* lar, lsl, verr, verw */
        emit_load(generator, reg, PICK(&generator->chance, selectors));
        EMIT(generator, "\x0f");
        if (random_one_in(generator, 2)) {
            emit_byte(generator, 0x02 + random_below(generator, 2));
            emit_byte(generator, 0xc0 | reg << 3 | reg);
        } else {
            emit_byte(generator, 0x00);
            emit_byte(generator, 0xe0 | random_below(generator, 2) << 3 | reg);
        }
        break;
    }
    forget(generator, 1u << reg);
    return true;
}
