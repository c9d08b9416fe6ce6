/*
 * A machine full of hostile code (hostile_code.h): descriptor tables with one of everything and chance in the
 * rest, page tables that map themselves, other tables, devices, ROM and nothing, and handlers that go on with
 * the next slot after a fault. All of it follows from a seed.
 */
#ifndef RING3_HOSTILE_GUEST_H
#define RING3_HOSTILE_GUEST_H

#include <string.h>

#include "hostile_code.h"
#include "monitor/monitor.h"
#include "monitor/patch.h"
#include "signals/signals.h"

static inline void hostile_put(struct vm *vm, uint32_t gpa, const void *bytes, size_t n)
{
    (void)memory_write(&vm->memory, gpa, bytes, n);
}

static inline void hostile_put32(struct vm *vm, uint32_t gpa, uint32_t value)
{
    hostile_put(vm, gpa, &value, sizeof value);
}

/* ---- descriptor tables --------------------------------------------------------------------------------- */

static inline void hostile_put_descriptor(struct vm *vm, uint32_t gpa, uint32_t base, uint32_t limit,
                                          uint32_t access, uint32_t flags)
{
    hostile_put32(vm, gpa, (limit & 0xffff) | base << 16);
    hostile_put32(vm, gpa + 4,
                  (base >> 16 & 0xff) | access << 8 | (limit & 0xf0000) | flags << 20 | (base & 0xff000000));
}

static inline void hostile_put_gate(struct vm *vm, uint32_t gpa, uint16_t selector, uint32_t offset,
                                    uint32_t access)
{
    hostile_put32(vm, gpa, (offset & 0xffff) | (uint32_t)selector << 16);
    hostile_put32(vm, gpa + 4, (offset & 0xffff0000) | access << 8);
}

static inline void hostile_put_any_descriptor(struct vm *vm, uint32_t gpa, struct chance *chance)
{
    static const uint32_t limits[] = {0xfffff, 0xffffe, 0xfff, 0x67, 0x1000, 0, 0xfee00, 0x80000};
    uint32_t base = chance_one_in(chance, 2) ? 0 : hostile_address(chance);
    uint32_t access = chance_any(chance) & 0xff;

    if (!chance_one_in(chance, 8))
        access |= 0x80;
    if (chance_one_in(chance, 4))
        hostile_put_gate(vm, gpa, hostile_selector(chance), HOSTILE_CODE, access & ~0x10u);
    else
        hostile_put_descriptor(vm, gpa, base, PICK(chance, limits),
                               access | (chance_one_in(chance, 4) ? 0 : 0x10), chance_any(chance) & 0xf);
}

static inline void hostile_put_segments(struct vm *vm, struct chance *chance)
{
    static const struct {
        uint32_t base, limit;
        uint8_t access, flags;
    } fixed[] = {
        {0, 0, 0, 0},
        {0, 0xfffff, 0x9b, 0xc},                   /* 08: code */
        {0, 0xfffff, 0x93, 0xc},                   /* 10: data */
        {0, 0xfffff, 0xfb, 0xc},                   /* 1b: the user's code */
        {0, 0xfffff, 0xf3, 0xc},                   /* 23: and data */
        {HOSTILE_TSS, 0x1ff, 0x89, 0},             /* 28 */
        {HOSTILE_LDT, 0xff, 0x82, 0},              /* 30 */
        {0, 0xfffff, 0x9f, 0xc},                   /* 38: conforming */
        {HOSTILE_CODE, 0xffff, 0x9b, 0},           /* 40: 16-bit code */
        {HOSTILE_STACK - 0x8000, 0xffff, 0x93, 0}, /* 48: 16-bit stack */
        {0, 0xf, 0x97, 0xc},                       /* 50: expand-down */
        {0, 0xfffff, 0x99, 0xc},                   /* 58: execute-only */
        {0, 0xfffff, 0x91, 0xc},                   /* 60: read-only */
        {HOSTILE_TSS + 0x400, 0x67, 0x89, 0},      /* 68 */
        {HOSTILE_TSS + 0x800, 0x2b, 0x81, 0},      /* 70 */
        {0xffff0000, 0xfffff, 0x93, 0xc},          /* 78: a base that wraps */
        {HOSTILE_DATA, 0xfff, 0xf3, 0x4},          /* 83: small */
        {0xfee00000, 0xfff, 0xf3, 0x4},            /* 8b: the window's hole */
    };

    for (unsigned i = 0; i < 64; i++) {
        if (i < sizeof fixed / sizeof fixed[0])
            hostile_put_descriptor(vm, HOSTILE_GDT + i * 8, fixed[i].base, fixed[i].limit, fixed[i].access,
                                   fixed[i].flags);
        else
            hostile_put_any_descriptor(vm, HOSTILE_GDT + i * 8, chance);
    }
    for (unsigned i = 0; i < 32; i++)
        hostile_put_any_descriptor(vm, HOSTILE_LDT + i * 8, chance);
}

static inline void hostile_put_tss(struct vm *vm, uint32_t tss, struct chance *chance)
{
    const uint32_t fields[] = {0,
                               HOSTILE_STACK + 0x1000,
                               0x10,
                               HOSTILE_STACK + 0x2000,
                               hostile_selector(chance),
                               HOSTILE_STACK + 0x3000,
                               hostile_selector(chance),
                               chance_one_in(chance, 4) ? hostile_address(chance) : HOSTILE_DIRECTORY,
                               HOSTILE_CODE + chance_below(chance, 64) * SLOT_SIZE,
                               hostile_flags(chance)};

    hostile_put(vm, tss, fields, sizeof fields);
    for (unsigned offset = sizeof fields; offset < 0x60; offset += 4)
        hostile_put32(vm, tss + offset, hostile_value(chance));
    hostile_put32(vm, tss + 0x38, HOSTILE_STACK);
    for (unsigned offset = 0x48; offset < 0x60; offset += 4)
        hostile_put32(vm, tss + offset, hostile_selector(chance));
    hostile_put32(vm, tss + 0x4c, 0x08);
    hostile_put32(vm, tss + 0x50, 0x10);
    hostile_put32(vm, tss + 0x64, 0x68u << 16);
}

/* After a fault eip goes to the next slot, and after an interrupt as well, so that no loop holds a guest up
 * for long. The handler of interrupts is in slots itself. */
static inline void hostile_put_handlers(struct vm *vm, struct chance *chance)
{
    static const uint8_t with_error[] = {0x83, 0xc4, 0x04};
    static const uint8_t next_slot[] = {0x83, 0x24, 0x24, 0xe0, 0x83, 0x04, 0x24, 0x20, 0xcf};
    static const uint8_t interrupt[3][SLOT_SIZE] = {
        {0x50, 0xb0, 0x20, 0xe6, 0x20, 0xe6, 0xa0, 0xeb, 23},       /* push eax; end for the 8259s */
        {0xc7, 0x05, 0xb0, 0x00, 0xe0, 0xfe, 0, 0, 0, 0, 0xeb, 20}, /* and for the local APIC */
        {0x58, 0x83, 0x24, 0x24, 0xe0, 0x83, 0x04, 0x24, 0x20, 0xcf},
    };
    const uint32_t error_vectors = 0x00027d00;
    bool is_wild = chance_one_in(chance, 6);

    hostile_put(vm, HOSTILE_HANDLERS, with_error, sizeof with_error);
    hostile_put(vm, HOSTILE_HANDLERS + 3, next_slot, sizeof next_slot);
    hostile_put(vm, HOSTILE_HANDLERS + 0x40, interrupt, sizeof interrupt);
    for (unsigned vector = 0; vector < 256; vector++) {
        bool has_error = vector < 32 && (error_vectors >> vector & 1);
        uint32_t handler = HOSTILE_HANDLERS + (vector >= 32 ? 0x40u : has_error ? 0 : 3);
        uint32_t access = chance_one_in(chance, 4) ? 0x8f : 0xee;

        if (is_wild && chance_one_in(chance, 3))
            hostile_put_gate(vm, HOSTILE_IDT + vector * 8, hostile_selector(chance), hostile_address(chance),
                             chance_any(chance) & 0xff);
        else if (chance_one_in(chance, vector == EXCEPTION_DF ? 2 : 24)) /* a task gate */
            hostile_put_gate(vm, HOSTILE_IDT + vector * 8, chance_one_in(chance, 2) ? 0x68 : 0x70, 0, 0xe5);
        else
            hostile_put_gate(vm, HOSTILE_IDT + vector * 8, 0x08, handler, access);
    }
}

/* ---- page tables --------------------------------------------------------------------------------------- */

static inline void hostile_put_pages(struct vm *vm, struct chance *chance)
{
    static const uint32_t targets[] = {HOSTILE_DIRECTORY, HOSTILE_DIRECTORY + 0x1000,
                                       0xa0000,           0xb8000,
                                       0xf0000,           0xfee00000,
                                       0xfec00000,        0xfff000,
                                       0x1000000,         0x7ffff000,
                                       HOSTILE_GDT,       HOSTILE_CODE,
                                       0xfffff000,        HOSTILE_DATA};
    bool is_user = chance_one_in(chance, 2), is_wild = chance_one_in(chance, 3);
    bool has_low_code = chance_one_in(chance, 3); /* where the host maps nothing */
    uint32_t rights = is_user ? 7 : 3;

    for (uint32_t i = 0; i < 4 * 1024; i++) {
        uint32_t pte = i << 12 | rights;

        if (i > 0x80 && chance_one_in(chance, is_wild ? 4 : 40))
            pte = PICK(chance, targets) | (chance_any(chance) & 0x1e7) | 1;
        else if (i > 0x80 && chance_one_in(chance, 20))
            pte = chance_any(chance);
        else if (chance_one_in(chance, 3))
            pte |= 0x60;
        hostile_put32(vm, HOSTILE_DIRECTORY + 0x1000 + i * 4, pte);
    }
    for (uint32_t i = 0; i < 1024; i++) {
        uint32_t pde = 0;

        if (i < 4)
            pde = (HOSTILE_DIRECTORY + 0x1000 + (i << 12)) | 7;
        else if (i >= 1020 || chance_one_in(chance, is_wild ? 3 : 50))
            pde = PICK(chance, targets) | (chance_any(chance) & 0x1e7) | 1;
        hostile_put32(vm, HOSTILE_DIRECTORY + i * 4, pde);
    }
    for (uint32_t i = 0; has_low_code && i < HOSTILE_CODE_SIZE / PAGE_SIZE; i++)
        hostile_put32(vm, HOSTILE_DIRECTORY + 0x1000 + i * 4, HOSTILE_CODE + (i << 12) + rights);
    if (chance_one_in(chance, 2))
        hostile_put32(vm, HOSTILE_DIRECTORY + 0x3fb * 4, 0xfec00083); /* the APICs, 4 MiB */
    if (chance_one_in(chance, 2))
        hostile_put32(vm, HOSTILE_DIRECTORY + 0x3ff * 4, HOSTILE_DIRECTORY | rights); /* itself */
}

/* As --holes patch does, but wherever something looks like an instruction. */
static inline void hostile_patch_code(struct vm *vm)
{
    uint8_t code[HOSTILE_CODE_SIZE];

    vm->patches = patch_create();
    if (!memory_read(&vm->memory, HOSTILE_CODE, code, sizeof code))
        return;
    for (size_t at = 0; at < sizeof code - INSN_MAX_LENGTH;) {
        struct insn insn;

        if (decode_insn(code + at, INSN_MAX_LENGTH, 4, &insn) != DECODE_OK) {
            at++;
            continue;
        }
        if (insn.sensitive != NULL && insn.sensitive->needs_patch)
            patch_add(vm->patches, &vm->memory, HOSTILE_CODE + at, &insn);
        at += insn.length;
    }
}

/* ---- together ------------------------------------------------------------------------------------------ */

static inline void hostile_put_code(struct vm *vm, struct chance *chance)
{
    uint8_t code[HOSTILE_CODE_SIZE];
    struct gadget gadget = {.n = 0};

    memset(code, 0x90, sizeof code);
    if (chance_one_in(chance, 2)) { /* to ring 3 */
        emit_push(&gadget, 0x23);
        emit_push(&gadget, HOSTILE_STACK);
        emit_push(&gadget, (hostile_flags(chance) & ~0x24100u) | EFLAGS_IF);
        emit_push(&gadget, 0x1b);
        emit_push(&gadget, HOSTILE_CODE + SLOT_SIZE);
        emit(&gadget, 1, 0xcf);
    } else {
        emit(&gadget, 1, 0xfb); /* sti */
    }
    memcpy(code, gadget.bytes, gadget.n);
    for (unsigned slot = 1; slot < HOSTILE_CODE_SIZE / SLOT_SIZE - 1; slot++) {
        hostile_gadget(&gadget, chance);
        memcpy(code + (size_t)slot * SLOT_SIZE, gadget.bytes, gadget.n < SLOT_SIZE ? gadget.n : SLOT_SIZE);
    }
    gadget.n = 0; /* the last slot: all over again */
    emit_load(&gadget, ESP, HOSTILE_STACK);
    emit(&gadget, 1, 0xe9);
    emit(&gadget, 4, 0u - (HOSTILE_CODE_SIZE - SLOT_SIZE + 10));
    memcpy(code + HOSTILE_CODE_SIZE - SLOT_SIZE, gadget.bytes, gadget.n);
    hostile_put(vm, HOSTILE_CODE, code, sizeof code);
}

/* As firmware or a kernel would leave them: interrupts come. */
static inline void hostile_start_devices(struct vm *vm, struct chance *chance)
{
    const struct {
        uint16_t port;
        uint8_t value;
    } writes[] = {
        {0x20, 0x11},
        {0x21, 0x20},
        {0x21, 4},
        {0x21, 1},
        {0xa0, 0x11},
        {0xa1, 0x28},
        {0xa1, 2},
        {0xa1, 1},
        {0x21, 0},
        {0xa1, 0}, /* 8259s: vectors 20-2f, all open */
        {0x43, 0x34},
        {0x40, (uint8_t)chance_any(chance)},
        {0x40, (uint8_t)(1 + chance_below(chance, 6))},
        {0x3f9, (uint8_t)chance_below(chance, 16)},
    };

    for (size_t i = 0; i < sizeof writes / sizeof writes[0]; i++)
        bus_write(board_bus(vm->board), BUS_PORT, writes[i].port, 1, writes[i].value);
}

static inline void hostile_build(struct vm *vm, struct chance *chance)
{
    struct vcpu *vcpu = &vm->vcpu;

    hostile_put_segments(vm, chance);
    hostile_put_handlers(vm, chance);
    for (unsigned i = 0; i < 3; i++)
        hostile_put_tss(vm, HOSTILE_TSS + i * 0x400, chance);
    hostile_put_pages(vm, chance);
    hostile_put_code(vm, chance);
    if (chance_one_in(chance, 4) && vm->engine == &trap_engine)
        hostile_patch_code(vm);
    vcpu_set_flat(vcpu, 0x08, 0x10, HOSTILE_CODE);
    vcpu->gdtr = (struct table_register){HOSTILE_GDT, 0x1ff};
    vcpu->idtr = (struct table_register){HOSTILE_IDT, 0x7ff};
    vcpu->tr = (struct segment){.selector = 0x28, .attributes = 0x8b, .base = HOSTILE_TSS, .limit = 0x1ff};
    vcpu->ldtr = (struct segment){.selector = 0x30, .attributes = 0x82, .base = HOSTILE_LDT, .limit = 0xff};
    vcpu->gpr[ESP] = HOSTILE_STACK;
    if (!chance_one_in(chance, 4))
        hostile_start_devices(vm, chance);
    vcpu->cr4 = CR4_OSFXSR | CR4_OSXMMEXCPT | (chance_one_in(chance, 2) ? CR4_PSE | CR4_PGE : 0);
    if (!chance_one_in(chance, 4)) {
        vcpu->cr3 = HOSTILE_DIRECTORY;
        vcpu->cr0 |= CR0_PG | CR0_NE | (chance_one_in(chance, 2) ? CR0_WP : 0) |
                     (chance_one_in(chance, 4) ? CR0_AM : 0);
    }
}

#endif
