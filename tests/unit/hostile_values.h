/*
 * Chance that a seed determines, and the values that hurt: addresses, selectors, flags and ports at the edges
 * of everything. Read next: hostile_code.h.
 */
#ifndef RING3_HOSTILE_VALUES_H
#define RING3_HOSTILE_VALUES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Where hostile_guest.h puts things; addresses aim at them. */
enum {
    HOSTILE_DIRECTORY = 0x10000, /* and four page tables behind it */
    HOSTILE_GDT = 0x20000,
    HOSTILE_IDT = 0x21000,
    HOSTILE_TSS = 0x22000, /* two 32-bit ones and a 16-bit one, 0x400 apart */
    HOSTILE_LDT = 0x23000,
    HOSTILE_HANDLERS = 0x28000,
    HOSTILE_CODE = 0x30000,
    HOSTILE_CODE_SIZE = 0x4000,
    HOSTILE_STACK = 0x48000, /* grows down; the inner ones, 0x1000 apart, above it */
    HOSTILE_DATA = 0x50000,
};

struct chance {
    uint64_t state;
};

/* Marsaglia's xorshift64. */
static inline uint32_t chance_any(struct chance *chance)
{
    chance->state ^= chance->state << 13;
    chance->state ^= chance->state >> 7;
    chance->state ^= chance->state << 17;
    return (uint32_t)(chance->state >> 32);
}

static inline uint32_t chance_below(struct chance *chance, uint32_t n)
{
    return chance_any(chance) % n;
}

static inline bool chance_one_in(struct chance *chance, uint32_t n)
{
    return chance_below(chance, n) == 0;
}

static inline struct chance chance_of_seed(uint64_t seed)
{
    struct chance chance = {0x9e3779b97f4a7c15 ^ (seed << 32 | seed)};

    for (unsigned i = 0; i < 8; i++)
        chance_any(&chance);
    return chance;
}

#define PICK(chance, table) ((table)[chance_below(chance, sizeof(table) / sizeof(table)[0])])

/* ---- values that matter -------------------------------------------------------------------------------- */

static inline uint32_t hostile_address(struct chance *chance)
{
    static const uint32_t places[] = {
        0,           0xfff,       0x1000,       HOSTILE_DIRECTORY, HOSTILE_DIRECTORY + 0x1000,
        HOSTILE_GDT, HOSTILE_IDT, HOSTILE_TSS,  HOSTILE_LDT,       HOSTILE_HANDLERS,
        0x9fff0,     0xa0000,     0xb8000,      0xbfff0,           0xc0000,
        0xffff0,     0x100000,    0x3fffff,     0x400000,          0xfffff0,
        0x1000000,   0x10000000,  0x7fffffff,   0xc0000000,        0xfec00000,
        0xfec00010,  0xfedffff0,  0xfee00000,   0xfee000b0,        0xfee00300,
        0xfee00380,  0xfee0fff0,  0xfee10000,   0xff000000,        0xfffe0000,
        0xfffffff0,  0xffffffff,  HOSTILE_CODE, HOSTILE_STACK,     HOSTILE_DATA,
        0xfffff000,  0xffc00000,  0xfee00fff,   0xffffc000,        0x48000fff,
    };

    if (chance_one_in(chance, 6))
        return chance_any(chance);
    if (chance_one_in(chance, 3))
        return HOSTILE_DATA + chance_below(chance, 0x2000);
    return PICK(chance, places) + chance_below(chance, 17) - 8;
}

static inline uint16_t hostile_selector(struct chance *chance)
{
    static const uint16_t hosts[] = {0x23, 0x2b, 0x7b, 0x78, 0x63, 0x06, 0x07, 0x0f, 0x17, 0x1f, 0x3f, 0x47};

    switch (chance_below(chance, 8)) {
    case 0:
        return (uint16_t)chance_any(chance);
    case 1:
        return PICK(chance, hosts);
    case 2:
        return (uint16_t)chance_below(chance, 4);
    default:
        return (uint16_t)(chance_below(chance, 32) << 3 | (chance_one_in(chance, 8) ? 4 : 0) |
                          (chance_one_in(chance, 4) ? chance_below(chance, 4) : 0));
    }
}

static inline uint32_t hostile_flags(struct chance *chance)
{
    static const uint32_t bits[] = {0x1,    0x40,    0x100,   0x200,   0x400,    0x800,   0x3000,
                                    0x4000, 0x10000, 0x20000, 0x40000, 0x180000, 0x200000};
    uint32_t flags = 2;

    for (unsigned i = chance_below(chance, 4); i > 0; i--)
        flags |= PICK(chance, bits);
    if ((flags & 0x20100) && !chance_one_in(chance, 3))
        flags &= ~0x20100u; /* VM ends the run, TF slows it down */
    return flags;
}

static inline uint32_t hostile_value(struct chance *chance)
{
    static const uint32_t values[] = {0,     1,      2,      0x7f,       0x80,       0xff,       0x100,
                                      0xfff, 0x1000, 0xffff, 0x10000,    0x7fffffff, 0x80000000, 0xfffffffe,
                                      32,    31,     0x4000, 0xffff0000, 0xffffffff};

    switch (chance_below(chance, 6)) {
    case 0:
        return chance_any(chance);
    case 1:
        return hostile_flags(chance);
    case 2:
        return hostile_selector(chance);
    case 3:
        return hostile_address(chance);
    default:
        return PICK(chance, values);
    }
}

static inline uint16_t hostile_port(struct chance *chance)
{
    static const uint16_t ports[] = {
        0x20,  0x21,  0x40,  0x41,  0x42,  0x43,  0x60,   0x61,   0x64,   0x70,   0x71,   0x80,  0xa0,
        0xa1,  0x1f0, 0x1f1, 0x1f2, 0x1f3, 0x1f4, 0x1f5,  0x1f6,  0x1f7,  0x3f6,  0x170,  0x176, 0x177,
        0x376, 0x3c0, 0x3c4, 0x3ce, 0x3d4, 0x3d5, 0x3da,  0x3f8,  0x3f9,  0x3fa,  0x3fb,  0x3fc, 0x3fd,
        0x3fe, 0x3ff, 0x4d0, 0x4d1, 0xe9,  0xcf8, 0xcfc,  0xffff, 0xfffe, 0xb2,   0x510,  0x511, 0x514,
        0x518, 0x600, 0x602, 0x608, 0x700, 0x702, 0xc000, 0xc002, 0xc004, 0xc008, 0xc00a, 0xc00c};
    /* ports that end the run */
    static const uint16_t final[] = {0x92, 0x604, 0xcf9, 0xf4};

    if (chance_one_in(chance, 60))
        return PICK(chance, final);
    if (chance_one_in(chance, 8))
        return (uint16_t)chance_any(chance);
    return PICK(chance, ports);
}

#endif
