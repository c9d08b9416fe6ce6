/*
 * A body of code that no machine has seen: instructions in the mix of compiled integer code, from a seed, to
 * be run once each from the first to the last. What the first pass takes beyond the second is what finding
 * and translating the code took.
 *
 * Conditional jumps go to the instruction behind them, whatever the condition says: a block ends there for
 * whoever translates, and every instruction is executed exactly once. EBX holds the address of a page of
 * data; ESP is used by pairs of PUSH and POP only. Read next: bench/peer/rows.py.
 */
#include "nano.h"

enum { EAX, ECX, EDX, EBX, ESP, EBP, ESI, EDI };
enum { LONGEST = 16 }; /* bytes that one turn may write */

static uint8_t *out;
static uint32_t seed;

static uint32_t random_below(uint32_t n)
{
    seed ^= seed << 13; /* Marsaglia's xorshift, period 2^32 - 1 */
    seed ^= seed >> 17;
    seed ^= seed << 5;
    return (seed >> 8) % n;
}

static void byte(uint32_t value)
{
    *out++ = (uint8_t)value;
}

static void word(uint32_t value)
{
    for (unsigned i = 0; i < 4; i++)
        byte(value >> 8 * i);
}

static uint32_t any_register(void)
{
    static const uint8_t free[] = {EAX, ECX, EDX, ESI, EDI};

    return free[random_below(sizeof free)];
}

/* ModRM (SDM Vol. 2, table 2-2): a register, or a word of the page at EBX by an 8- or 32-bit displacement. */
static void operand_register(uint32_t reg)
{
    byte(0xc0 | reg << 3 | any_register());
}

static void operand_memory(uint32_t reg)
{
    if (random_below(4) > 0) {
        byte(0x40 | reg << 3 | EBX);
        byte(random_below(32) * 4);
    } else {
        byte(0x80 | reg << 3 | EBX);
        word(random_below(1024) * 4);
    }
}

static uint32_t arithmetic(void)
{
    static const uint8_t of[] = {0, 1, 4, 5, 6, 7}; /* ADD OR AND SUB XOR CMP */

    return of[random_below(sizeof of)];
}

static void immediate_arithmetic(void)
{
    bool is_long = random_below(4) == 0;
    uint32_t reg = any_register();

    byte(is_long ? 0x81 : 0x83);
    byte(0xc0 | arithmetic() << 3 | reg);
    if (is_long)
        word(random_below(1 << 24));
    else
        byte(random_below(256));
}

static void one_instruction(void)
{
    uint32_t kind = random_below(100);

    if (kind < 18) { /* MOV r32, m32 */
        byte(0x8b);
        operand_memory(any_register());
    } else if (kind < 28) { /* MOV m32, r32 */
        byte(0x89);
        operand_memory(any_register());
    } else if (kind < 38) { /* MOV r32, r32 */
        byte(0x8b);
        operand_register(any_register());
    } else if (kind < 43) { /* MOV r32, imm32 */
        byte(0xb8 + any_register());
        word(random_below(1 << 24));
    } else if (kind < 53) { /* arithmetic, registers */
        byte(arithmetic() << 3 | 3);
        operand_register(any_register());
    } else if (kind < 59) { /* arithmetic, memory source */
        byte(arithmetic() << 3 | 3);
        operand_memory(any_register());
    } else if (kind < 67) {
        immediate_arithmetic();
    } else if (kind < 73) { /* LEA */
        byte(0x8d);
        operand_memory(any_register());
    } else if (kind < 78) { /* TEST */
        byte(0x85);
        operand_register(any_register());
    } else if (kind < 81) { /* SHL, SHR or SAR r32, imm8 */
        static const uint8_t of[] = {4, 5, 7};

        byte(0xc1);
        byte(0xc0 | of[random_below(sizeof of)] << 3 | any_register());
        byte(random_below(31) + 1);
    } else if (kind < 84) { /* INC, DEC */
        byte(random_below(2) * 8 + 0x40 + any_register());
    } else if (kind < 87) { /* MOVZX r32, m8 */
        byte(0x0f);
        byte(0xb6);
        operand_memory(any_register());
    } else { /* Jcc to the next instruction: 13 in 100, a block is 8 instructions */
        byte(0x70 + random_below(16));
        byte(0);
    }
}

void nano_code_generate(uint8_t *to, const uint8_t *end, uint32_t data, uint32_t n)
{
    out = to;
    seed = 0x12345678;
    byte(0xb8 + EBX); /* MOV EBX, data */
    word(data);
    while (n-- > 0) {
        if (out + LONGEST > end)
            fail("no room for so much code");
        if (n > 0 && random_below(25) == 0) {
            n--;
            byte(0x50 + any_register()); /* PUSH, POP */
            byte(0x58 + any_register());
        } else {
            one_instruction();
        }
    }
    byte(0xc3); /* RET */
}
