/*
 * cpu.h: one-instruction functions and the architecture's constants (Intel SDM Vol. 3, the names used there).
 *
 * Read next: guest.h, the library built on them.
 */
#ifndef GUEST_CPU_H
#define GUEST_CPU_H

#include <stdint.h>

enum { CR0_PE = 1 << 0, CR0_MP = 1 << 1, CR0_EM = 1 << 2, CR0_TS = 1 << 3, CR0_NE = 1 << 5 };
#define CR0_WP (1u << 16)
#define CR0_AM (1u << 18)
#define CR0_PG (1u << 31)
enum { CR4_TSD = 1 << 2, CR4_DE = 1 << 3, CR4_PSE = 1 << 4, CR4_PGE = 1 << 7, CR4_OSFXSR = 1 << 9 };
enum { CR4_OSXMMEXCPT = 1 << 10 };
enum {
    EFLAGS_CF = 1 << 0,
    EFLAGS_FIXED = 1 << 1,
    EFLAGS_ZF = 1 << 6,
    EFLAGS_TF = 1 << 8,
    EFLAGS_IF = 1 << 9
};
enum { EFLAGS_DF = 1 << 10, EFLAGS_IOPL3 = 3 << 12, EFLAGS_NT = 1 << 14, EFLAGS_AC = 1 << 18 };
#define EFLAGS_ARITHMETIC 0x8d5u /* CF PF AF ZF SF OF */

/* Vectors of the exceptions (SDM Vol. 3, table 6-1). */
enum {
    VECTOR_DE = 0,
    VECTOR_DB = 1,
    VECTOR_NMI = 2,
    VECTOR_BP = 3,
    VECTOR_OF = 4,
    VECTOR_BR = 5,
    VECTOR_UD = 6,
    VECTOR_NM = 7,
    VECTOR_DF = 8,
    VECTOR_TS = 10,
    VECTOR_NP = 11,
    VECTOR_SS = 12,
    VECTOR_GP = 13,
    VECTOR_PF = 14,
    VECTOR_MF = 16,
    VECTOR_AC = 17,
    VECTOR_XM = 19,
};

/* Page-table entry bits, and the bits of a page fault's error code (SDM Vol. 3, 4.3 and 4.7). */
enum { PTE_P = 1, PTE_W = 2, PTE_U = 4, PTE_A = 0x20, PTE_D = 0x40, PTE_PS = 0x80, PTE_G = 0x100 };
enum { PF_PRESENT = 1, PF_WRITE = 2, PF_USER = 4 };

/* What LGDT and LIDT load. */
struct table_register {
    uint16_t limit;
    uint32_t base;
} __attribute__((packed));

static inline void out8(uint16_t port, uint8_t value)
{
    __asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port));
}
static inline uint8_t in8(uint16_t port)
{
    uint8_t value;
    __asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port));
    return value;
}
static inline void out32(uint16_t port, uint32_t value)
{
    __asm__ volatile("outl %0, %1" : : "a"(value), "Nd"(port));
}

static inline void cli(void)
{
    __asm__ volatile("cli" : : : "memory");
}
static inline void sti(void)
{
    __asm__ volatile("sti; nop" : : : "memory"); /* nop: the shadow of STI ends inside this function */
}
/* Opens the door to interrupts for exactly one hlt. STI's shadow lets none in before the hlt sleeps. */
static inline void wait_for_interrupt(void)
{
    __asm__ volatile("sti; hlt; cli" : : : "memory");
}

#define DEFINE_CONTROL_REGISTER(name)                                                                        \
    static inline uint32_t read_##name(void)                                                                 \
    {                                                                                                        \
        uint32_t value;                                                                                      \
        __asm__ volatile("mov %%" #name ", %0" : "=r"(value) : : "memory");                                  \
        return value;                                                                                        \
    }                                                                                                        \
    static inline void write_##name(uint32_t value)                                                          \
    {                                                                                                        \
        __asm__ volatile("mov %0, %%" #name : : "r"(value) : "memory");                                      \
    }
DEFINE_CONTROL_REGISTER(cr0)
DEFINE_CONTROL_REGISTER(cr2)
DEFINE_CONTROL_REGISTER(cr3)
DEFINE_CONTROL_REGISTER(cr4)
DEFINE_CONTROL_REGISTER(dr0)
DEFINE_CONTROL_REGISTER(dr6)
DEFINE_CONTROL_REGISTER(dr7)

static inline void invlpg(uint32_t linear)
{
    __asm__ volatile("invlpg (%0)" : : "r"(linear) : "memory");
}
static inline void write_msr(uint32_t msr, uint64_t value)
{
    __asm__ volatile("wrmsr" : : "c"(msr), "A"(value) : "memory");
}
static inline uint64_t read_msr(uint32_t msr)
{
    uint64_t value;
    __asm__ volatile("rdmsr" : "=A"(value) : "c"(msr) : "memory");
    return value;
}
static inline void load_gdt(const struct table_register *table)
{
    __asm__ volatile("lgdt %0" : : "m"(*table) : "memory");
}
static inline void load_idt(const struct table_register *table)
{
    __asm__ volatile("lidt %0" : : "m"(*table) : "memory");
}
static inline void load_task_register(uint16_t selector)
{
    __asm__ volatile("ltr %0" : : "r"(selector) : "memory");
}
static inline void load_fs(uint16_t selector)
{
    __asm__ volatile("mov %0, %%fs" : : "r"((uint32_t)selector) : "memory");
}
static inline uint32_t read_fs32(uint32_t offset)
{
    uint32_t value;
    __asm__ volatile("mov %%fs:(%1), %0" : "=r"(value) : "r"(offset) : "memory");
    return value;
}

/* The memory at an address held in an integer. The compiler learns nothing about where the pointer comes
 * from. */
static inline void *memory_at(uint32_t linear)
{
    void *pointer;
    __asm__("" : "=r"(pointer) : "0"(linear));
    return pointer;
}

/* Plain 32-bit accesses at an address held in an integer, which the compiler neither drops nor merges. */
static inline uint32_t peek(uint32_t linear)
{
    uint32_t value;
    __asm__ volatile("movl (%1), %0" : "=r"(value) : "r"(linear) : "memory");
    return value;
}
static inline void poke(uint32_t linear, uint32_t value)
{
    __asm__ volatile("movl %1, (%0)" : : "r"(linear), "r"(value) : "memory");
}

#endif
