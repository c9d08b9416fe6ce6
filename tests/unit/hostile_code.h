/*
 * Hostile code: streams of instructions that a seed determines, most of them valid, and chosen to hurt a
 * monitor. Each gadget (one to a few instructions) fills a slot of fixed size, so that a fault handler can go
 * on with the next one.
 *
 * Read next: hostile_guest.h (the machine around it), test_hostile_guest.c (natively), test_hostile_emulate.c
 * (by the emulator).
 */
#ifndef RING3_HOSTILE_CODE_H
#define RING3_HOSTILE_CODE_H

#include "hostile_values.h"
#include "vcpu/vcpu.h"

#define SLOT_SIZE 32u /* the longest gadget, and a power of two */

/* ---- writing code -------------------------------------------------------------------------------------- */

struct gadget {
    uint8_t bytes[2 * SLOT_SIZE];
    unsigned n;
};

static inline void emit(struct gadget *gadget, unsigned n, uint64_t bytes)
{
    for (unsigned i = 0; i < n && gadget->n < sizeof gadget->bytes; i++)
        gadget->bytes[gadget->n++] = (uint8_t)(bytes >> 8 * i);
}

static inline void emit_load(struct gadget *gadget, unsigned reg, uint32_t value)
{
    emit(gadget, 1, 0xb8 + reg);
    emit(gadget, 4, value);
}

static inline void emit_push(struct gadget *gadget, uint32_t value)
{
    emit(gadget, 1, 0x68);
    emit(gadget, 4, value);
}

/* mov dword [address], value */
static inline void emit_store(struct gadget *gadget, uint32_t address, uint32_t value)
{
    emit(gadget, 2, 0x05c7);
    emit(gadget, 4, address);
    emit(gadget, 4, value);
}

static inline void emit_prefixes(struct gadget *gadget, struct chance *chance)
{
    static const uint8_t prefixes[] = {0x66, 0x66, 0x67, 0xf0, 0xf2, 0xf3,
                                       0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65};
    unsigned n = chance_one_in(chance, 4) ? 1 + chance_below(chance, 2) : 0;

    if (chance_one_in(chance, 100))
        n = 10 + chance_below(chance, 8);
    for (; n > 0; n--)
        emit(gadget, 1, PICK(chance, prefixes));
}

/* ---- gadgets ------------------------------------------------------------------------------------------- */

static inline void gadget_noise(struct gadget *gadget, struct chance *chance)
{
    for (unsigned i = 0; i < 8; i++)
        emit(gadget, 1, chance_any(chance));
}

/* One-byte and two-byte opcodes with whatever follows. */
static inline void gadget_any_instruction(struct gadget *gadget, struct chance *chance)
{
    emit_prefixes(gadget, chance);
    if (chance_one_in(chance, 2))
        emit(gadget, 1, 0x0f);
    emit(gadget, 1, chance_any(chance));
    emit(gadget, 1, chance_one_in(chance, 2) ? 0x05 | chance_below(chance, 8) << 3 : chance_any(chance));
    emit(gadget, 4, hostile_address(chance));
    emit(gadget, 4, hostile_value(chance));
}

static inline void gadget_sensitive(struct gadget *gadget, struct chance *chance)
{
    static const struct {
        uint8_t n, bytes[3];
        bool has_modrm;
    } opcodes[] = {
        {1, {0xfa}, false},       {1, {0xfb}, false},       {1, {0x9c}, false},
        {1, {0x9d}, false},       {2, {0x0f, 0x00}, true},  {2, {0x0f, 0x01}, true},
        {2, {0x0f, 0x02}, true},  {2, {0x0f, 0x03}, true},  {2, {0x0f, 0x06}, false},
        {2, {0x0f, 0x08}, false}, {2, {0x0f, 0x09}, false}, {2, {0x0f, 0x30}, false},
        {2, {0x0f, 0x31}, false}, {2, {0x0f, 0x32}, false}, {2, {0x0f, 0x33}, false},
        {2, {0x0f, 0xa2}, false}, {1, {0x8c}, true},        {1, {0x8e}, true},
        {1, {0x63}, true},        {1, {0x62}, true},        {1, {0xcc}, false},
        {1, {0xce}, false},       {1, {0xf1}, false},       {2, {0x0f, 0x0b}, false},
        {1, {0xc4}, true},        {1, {0xc5}, true},        {2, {0x0f, 0xb2}, true},
        {2, {0x0f, 0xb4}, true},  {2, {0x0f, 0xb5}, true},  {2, {0x0f, 0xae}, true},
        {2, {0x0f, 0xc7}, true},  {1, {0xff}, true},        {1, {0x9b}, false},
        {1, {0xc8}, true},        {1, {0x60}, false},       {1, {0x61}, false},
        {1, {0xd7}, false},       {1, {0xcf}, false},       {1, {0xcb}, false},
        {1, {0xca}, true},        {1, {0xf4}, false},       {2, {0x0f, 0xa1}, false},
        {2, {0x0f, 0xa9}, false}, {1, {0x17}, false},       {1, {0x1f}, false},
        {1, {0x07}, false},       {2, {0x0f, 0xaa}, false}, {2, {0x0f, 0x35}, false},
    };
    unsigned i = chance_below(chance, sizeof opcodes / sizeof opcodes[0]);

    emit_load(gadget, chance_below(chance, 4), hostile_value(chance));
    emit_prefixes(gadget, chance);
    for (unsigned k = 0; k < opcodes[i].n; k++)
        emit(gadget, 1, opcodes[i].bytes[k]);
    if (!opcodes[i].has_modrm)
        return;
    emit(gadget, 1, chance_one_in(chance, 2) ? chance_any(chance) : 0x05 | chance_below(chance, 8) << 3);
    emit(gadget, 4, hostile_address(chance));
}

static inline void gadget_load_segment(struct gadget *gadget, struct chance *chance)
{
    emit_load(gadget, EAX, hostile_selector(chance));
    emit(gadget, 1, 0x8e);
    emit(gadget, 1, 0xc0 | chance_below(chance, 6) << 3);
    if (chance_one_in(chance, 2)) { /* and use it: [fs|gs|es|ss:address] */
        emit(gadget, 1, (const uint8_t[]){0x26, 0x36, 0x64, 0x65}[chance_below(chance, 4)]);
        emit(gadget, 1, 0xa1);
        emit(gadget, 4, hostile_address(chance));
    }
}

static inline void gadget_set_flags(struct gadget *gadget, struct chance *chance)
{
    emit_push(gadget, hostile_flags(chance));
    emit(gadget, 1, 0x9d);
}

/* The start of a slot; sometimes by its other name, where a page table may map it too. */
static inline uint32_t any_slot(struct chance *chance)
{
    uint32_t slot = chance_below(chance, HOSTILE_CODE_SIZE / SLOT_SIZE) * SLOT_SIZE;

    return chance_one_in(chance, 4) ? slot : HOSTILE_CODE + slot;
}

/* A far branch: direct, or by RETF. */
static inline void gadget_far(struct gadget *gadget, struct chance *chance)
{
    uint32_t eip = chance_one_in(chance, 6) ? hostile_address(chance) : any_slot(chance);
    uint16_t selector = hostile_selector(chance);

    if (chance_one_in(chance, 40))
        selector = 0x33; /* 64-bit mode */
    if (chance_one_in(chance, 3)) {
        emit_push(gadget, selector);
        emit_push(gadget, eip);
        emit(gadget, 1, chance_one_in(chance, 4) ? 0xca : 0xcb);
        emit(gadget, 2, 0);
        return;
    }
    emit_prefixes(gadget, chance);
    emit(gadget, 1, chance_one_in(chance, 2) ? 0xea : 0x9a);
    emit(gadget, 4, eip);
    emit(gadget, 2, selector);
}

static inline void gadget_iret(struct gadget *gadget, struct chance *chance)
{
    if (chance_one_in(chance, 2)) {
        emit_push(gadget, hostile_selector(chance));
        emit_push(gadget, hostile_address(chance));
    }
    emit_push(gadget, hostile_flags(chance));
    emit(gadget, 2, 0x6a | (unsigned)(chance_one_in(chance, 2) ? 0x08 : 0x1b) << 8);
    emit_push(gadget, HOSTILE_CODE + chance_below(chance, HOSTILE_CODE_SIZE));
    emit(gadget, 1, 0xcf);
}

static inline void gadget_interrupt(struct gadget *gadget, struct chance *chance)
{
    emit(gadget, 2, 0xcd | (unsigned)(chance_one_in(chance, 4) ? 0x80 : chance_any(chance) & 0xff) << 8);
}

static inline void gadget_port(struct gadget *gadget, struct chance *chance)
{
    static const uint8_t opcodes[] = {0xec, 0xed, 0xee, 0xef};

    for (unsigned i = 0; i < 2; i++) {
        emit_load(gadget, EAX, chance_one_in(chance, 2) ? chance_below(chance, 256) : hostile_value(chance));
        emit_load(gadget, EDX, hostile_port(chance));
        if (chance_one_in(chance, 4))
            emit(gadget, 1, 0x66);
        emit(gadget, 1, PICK(chance, opcodes));
    }
}

static inline void gadget_string(struct gadget *gadget, struct chance *chance)
{
    static const uint8_t opcodes[] = {0xa4, 0xa5, 0xa6, 0xa7, 0xaa, 0xab, 0xac,
                                      0xad, 0xae, 0xaf, 0x6c, 0x6d, 0x6e, 0x6f};
    static const uint32_t counts[] = {0xffffffff, 0x80000000, 0x100000, 0x10000, 0x1001, 64, 3, 1, 0};

    emit_load(gadget, ESI, hostile_address(chance));
    emit_load(gadget, EDI, hostile_address(chance));
    emit_load(gadget, ECX, PICK(chance, counts));
    emit_load(gadget, EDX, hostile_port(chance));
    emit(gadget, 1, chance_one_in(chance, 3) ? 0xfd : 0xfc);
    emit_prefixes(gadget, chance);
    emit(gadget, 1, chance_one_in(chance, 3) ? 0xf2 : 0xf3);
    emit(gadget, 1, PICK(chance, opcodes));
}

/* Ordinary instructions with a memory operand at a place that bites. */
static inline void gadget_memory(struct gadget *gadget, struct chance *chance)
{
    static const uint8_t opcodes[] = {0x00, 0x01, 0x03, 0x09, 0x29, 0x39, 0x84, 0x85, 0x86, 0x87, 0x88,
                                      0x89, 0x8a, 0x8b, 0x8f, 0xd1, 0xd3, 0xf6, 0xf7, 0xfe, 0xff, 0x8d};
    static const uint8_t long_opcodes[] = {0xa3, 0xab, 0xb0, 0xb1, 0xb3, 0xb6, 0xb7, 0xbb, 0xbe, 0xc0, 0xc1,
                                           0xc7, 0x10, 0x11, 0x28, 0x29, 0x6f, 0x7f, 0x90, 0xa4, 0xad, 0xc3,
                                           0xba, 0xd6, 0x2b, 0xe7, 0x12, 0x16, 0x58, 0x5e, 0xf0, 0x70};

    emit_load(gadget, EBX, hostile_address(chance));
    emit_load(gadget, EAX, hostile_value(chance));
    emit_prefixes(gadget, chance);
    if (chance_one_in(chance, 2)) {
        emit(gadget, 1, PICK(chance, opcodes));
    } else {
        emit(gadget, 1, 0x0f);
        emit(gadget, 1, PICK(chance, long_opcodes));
    }
    emit(gadget, 1, chance_one_in(chance, 3) ? chance_any(chance) : 0x03 | chance_below(chance, 8) << 3);
    emit(gadget, 4, hostile_value(chance));
}

/* Control and debug registers: to, from, and by LMSW and CLTS. */
static inline void gadget_control(struct gadget *gadget, struct chance *chance)
{
    static const uint32_t cr0[] = {0x11, 0x80000011, 0x80010011, 0x8001003b, 0x80050033, 0x60000011, 0x10};
    static const uint32_t cr3[] = {HOSTILE_DIRECTORY,
                                   HOSTILE_DIRECTORY,
                                   HOSTILE_DIRECTORY + 0x1000,
                                   0,
                                   0xa0000,
                                   0xfee00000,
                                   HOSTILE_CODE,
                                   0xfff000,
                                   0xf0000,
                                   0x7ffff000,
                                   HOSTILE_DIRECTORY | 0x18};
    static const uint32_t cr4[] = {0, 0x10, 0x90, 0x610, 0x4, 0x1, 0x20, 0x600, 0x80, 0x800};

    switch (chance_below(chance, 6)) {
    case 0:
        emit_load(gadget, EAX, PICK(chance, cr0));
        emit(gadget, 3, 0xc0220f);
        break;
    case 1:
        emit_load(gadget, EAX, PICK(chance, cr3));
        emit(gadget, 3, 0xd8220f);
        break;
    case 2:
        emit_load(gadget, EAX, chance_one_in(chance, 6) ? chance_any(chance) : PICK(chance, cr4));
        emit(gadget, 3, 0xe0220f);
        break;
    case 3: /* invlpg */
        emit(gadget, 3, 0x3d010f);
        emit(gadget, 4, hostile_address(chance));
        break;
    case 4:
        emit_load(gadget, EAX, hostile_value(chance));
        emit(gadget, 2, 0x230f);
        emit(gadget, 1, 0xc0 | chance_below(chance, 8) << 3);
        break;
    default:
        emit_load(gadget, EAX, hostile_value(chance));
        emit(gadget, 1, 0x0f);
        emit(gadget, 1, 0x20 + chance_below(chance, 4));
        emit(gadget, 1, chance_any(chance));
    }
}

static inline void gadget_msr(struct gadget *gadget, struct chance *chance)
{
    static const uint32_t msrs[] = {0x10,  0x1b,  0x174, 0x175, 0x176, 0x1a0, 0x200, 0x20f,      0x250,
                                    0x258, 0x26f, 0x277, 0x2ff, 0xfe,  0x8b,  0x17,  0xc0000080, 0xc0000100};

    emit_load(gadget, ECX, chance_one_in(chance, 8) ? chance_any(chance) : PICK(chance, msrs));
    emit_load(gadget, EAX, hostile_value(chance));
    emit_load(gadget, EDX, chance_one_in(chance, 3) ? hostile_value(chance) : 0);
    emit(gadget, 2, chance_one_in(chance, 3) ? 0x320f : 0x300f);
}

/* LGDT, LIDT, LLDT, LTR; a pseudo-descriptor at HOSTILE_DATA. */
static inline void gadget_tables(struct gadget *gadget, struct chance *chance)
{
    if (chance_one_in(chance, 2)) {
        uint32_t base = chance_one_in(chance, 4) ? hostile_address(chance)
                                                 : (chance_one_in(chance, 2) ? HOSTILE_GDT : HOSTILE_IDT);

        emit_store(gadget, HOSTILE_DATA, base << 16 | (hostile_value(chance) & 0xffff));
        emit_store(gadget, HOSTILE_DATA + 4, base >> 16);
        emit(gadget, 2, 0x010f);
        emit(gadget, 1, 0x05 | chance_below(chance, 4) << 3);
        emit(gadget, 4, HOSTILE_DATA);
        return;
    }
    emit_load(gadget, EAX, hostile_selector(chance));
    emit(gadget, 2, 0x000f);
    emit(gadget, 1, 0xd0 | chance_below(chance, 2) << 3);
}

static inline void gadget_stack(struct gadget *gadget, struct chance *chance)
{
    static const uint8_t uses[] = {0x50, 0x58, 0x60, 0x61, 0xc3, 0xc9, 0x9c,
                                   0x9d, 0x06, 0x0e, 0x16, 0x54, 0x5c};

    emit_load(gadget, ESP, chance_one_in(chance, 2) ? HOSTILE_STACK - 64 : hostile_address(chance));
    emit_prefixes(gadget, chance);
    emit(gadget, 1, PICK(chance, uses));
    if (!chance_one_in(chance, 4))
        emit_load(gadget, ESP, HOSTILE_STACK - 256);
}

/* A 16-bit stack, and something on it; the slots after it find it, too. */
static inline void gadget_16bit_stack(struct gadget *gadget, struct chance *chance)
{
    static const uint8_t uses[] = {0x50, 0x58, 0x60, 0x61, 0x9c, 0x9d, 0x06, 0x54, 0x90};

    emit_load(gadget, EAX, 0x48);
    emit(gadget, 2, 0xd08e);
    emit_load(gadget, ESP,
              chance_one_in(chance, 3) ? hostile_value(chance) : 0x4000 + chance_below(chance, 0x4000));
    emit(gadget, 1, PICK(chance, uses));
    gadget_any_instruction(gadget, chance);
}

/* A page-table entry, a descriptor, a gate, a TSS field, or code. */
static inline void gadget_store(struct gadget *gadget, struct chance *chance)
{
    static const uint32_t tables[] = {HOSTILE_DIRECTORY,
                                      HOSTILE_DIRECTORY,
                                      HOSTILE_DIRECTORY + 0x1000,
                                      HOSTILE_DIRECTORY + 0x2000,
                                      HOSTILE_GDT,
                                      HOSTILE_GDT,
                                      HOSTILE_LDT,
                                      HOSTILE_IDT,
                                      HOSTILE_TSS,
                                      HOSTILE_CODE,
                                      HOSTILE_HANDLERS};
    uint32_t table = PICK(chance, tables), value = chance_any(chance), address;

    if (table >= HOSTILE_DIRECTORY && table < HOSTILE_GDT) {
        value = (hostile_address(chance) & ~0xfffu) | (chance_any(chance) & 0x1e7);
        if (!chance_one_in(chance, 3))
            value |= 3;
    }
    address = table + chance_below(chance, 1024) * 4;
    if (chance_one_in(chance, 3))
        address &= ~0xf00u; /* the busy part */
    emit_store(gadget, address, value);
    if (table < HOSTILE_GDT && chance_one_in(chance, 2)) {
        emit(gadget, 1, 0xa1); /* and use it */
        emit(gadget, 4, chance_one_in(chance, 2) ? address << 10 : address << 20);
    }
}

static inline void gadget_shadow(struct gadget *gadget, struct chance *chance)
{
    emit(gadget, 1, 0xfa);
    if (chance_one_in(chance, 2)) {
        emit(gadget, 3, 0xd08cfb); /* sti; mov eax, ss */
        emit(gadget, 2, 0xd08e);   /* mov ss, eax */
    }
    emit(gadget, 1, 0xfb);
    gadget_any_instruction(gadget, chance);
}

static inline void gadget_halt(struct gadget *gadget, struct chance *chance)
{
    emit(gadget, 2, chance_one_in(chance, 12) ? 0xf490 : 0xf4fb); /* nop or sti; hlt */
}

/* A timer with a short period, or an interrupt that comes at once. */
static inline void gadget_timer(struct gadget *gadget, struct chance *chance)
{
    static const uint32_t lapic[] = {0x80,  0xb0,  0xf0,  0x300, 0x310, 0x320, 0x340, 0x350, 0x360,
                                     0x370, 0x380, 0x3e0, 0x20,  0xd0,  0xe0,  0x390, 0x30};

    switch (chance_below(chance, 3)) {
    case 0: /* 8254, channel 0 */
        emit_load(gadget, EAX, chance_below(chance, 256));
        emit(gadget, 2, 0x43e6);
        emit_load(gadget, EAX, chance_below(chance, 4));
        emit(gadget, 4, 0x40e640e6);
        break;
    case 1:
        emit_store(gadget, 0xfee00000 + PICK(chance, lapic),
                   chance_one_in(chance, 2) ? chance_below(chance, 256) | chance_below(chance, 4) << 16
                                            : hostile_value(chance));
        break;
    default: /* RTC */
        emit_load(gadget, EAX, chance_below(chance, 14));
        emit(gadget, 2, 0x70e6);
        emit_load(gadget, EAX, chance_below(chance, 256));
        emit(gadget, 2, 0x71e6);
        emit(gadget, 2, 0x00b0); /* 8259: all lines open */
        emit(gadget, 4, 0xa1e621e6);
    }
}

static inline void gadget_fpu(struct gadget *gadget, struct chance *chance)
{
    emit(gadget, 1, 0xd8 + chance_below(chance, 8));
    emit(gadget, 1, chance_one_in(chance, 2) ? chance_any(chance) : 0x05 | chance_below(chance, 8) << 3);
    emit(gadget, 4, hostile_address(chance));
    if (chance_one_in(chance, 2))
        emit(gadget, 1, 0x9b);
}

static inline void gadget_host_call(struct gadget *gadget, struct chance *chance)
{
    static const uint16_t calls[] = {0x80cd, 0x340f, 0x050f};

    emit_load(gadget, EAX, chance_below(chance, 400));
    emit_load(gadget, EBX, hostile_value(chance));
    emit_load(gadget, ECX, hostile_value(chance));
    if (chance_one_in(chance, 2))
        emit_load(gadget, EBP, hostile_address(chance));
    emit(gadget, 2, chance_one_in(chance, 3) ? PICK(chance, calls) : 0x80cd);
}

/* A loop that never traps, or a branch to another slot, or across its own bytes. */
static inline void gadget_loop(struct gadget *gadget, struct chance *chance)
{
    switch (chance_below(chance, 8)) {
    case 0:
        emit(gadget, 2, 0xfeeb);
        break;
    case 1:
        emit(gadget, 2, 0xebu | chance_any(chance) << 8);
        break;
    case 2: /* by RET */
        emit_push(gadget, any_slot(chance));
        emit(gadget, 1, 0xc3);
        break;
    default:
        emit_load(gadget, ECX, chance_below(chance, 2000));
        emit(gadget, 2, 0xfee2);
    }
}

static inline void hostile_gadget(struct gadget *gadget, struct chance *chance)
{
    static const struct {
        void (*write)(struct gadget *gadget, struct chance *chance);
        unsigned weight;
    } kinds[] = {
        {gadget_noise, 4},      {gadget_any_instruction, 14},
        {gadget_sensitive, 14}, {gadget_load_segment, 10},
        {gadget_set_flags, 8},  {gadget_far, 4},
        {gadget_iret, 4},       {gadget_interrupt, 4},
        {gadget_port, 10},      {gadget_string, 10},
        {gadget_memory, 14},    {gadget_control, 6},
        {gadget_msr, 4},        {gadget_tables, 3},
        {gadget_stack, 5},      {gadget_16bit_stack, 3},
        {gadget_store, 10},     {gadget_shadow, 4},
        {gadget_halt, 1},       {gadget_timer, 5},
        {gadget_fpu, 5},        {gadget_host_call, 2},
        {gadget_loop, 3},
    };
    unsigned total = 0, choice, i = 0;

    for (unsigned k = 0; k < sizeof kinds / sizeof kinds[0]; k++)
        total += kinds[k].weight;
    choice = chance_below(chance, total);
    while (choice >= kinds[i].weight)
        choice -= kinds[i++].weight;
    gadget->n = 0;
    kinds[i].write(gadget, chance);
}

#endif
