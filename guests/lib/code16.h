/*
 * code16.h: pieces of 16-bit code, written in C files as strings and copied to low memory to run.
 *
 *     CODE16(name, "mov (%bx), %ax")          struct code16 name(), for run(name())
 *
 * Each ends in INT 0x60, so that every way out of it is an interrupt. It must not depend on where it lies:
 * relative jumps only.
 */
#ifndef GUEST_CODE16_H
#define GUEST_CODE16_H

#include <stdint.h>

enum { END_VECTOR = 0x60, END_SIZE = 2 };

struct code16 {
    const char *text;
    const uint8_t *begin, *end; /* the INT 0x60 included */
};

#define CODE16(name, text)                                                                                   \
    extern const uint8_t name##_begin[], name##_end[];                                                       \
    __asm__(".pushsection .rodata; .code16; " #name "_begin: " text "; int $0x60; " #name                    \
            "_end: .code32; .popsection");                                                                   \
    static inline struct code16 name(void)                                                                   \
    {                                                                                                        \
        return (struct code16){text, name##_begin, name##_end};                                              \
    }

/* A table of them, as SNIPPET of guest.h makes one: struct code16 table[], up to table_end. */
#define TABLE16_BEGIN(table)                                                                                 \
    extern const struct code16 table[], table##_end[];                                                       \
    __asm__(".pushsection .rodata." #table ", \"a\"; .balign 4; " #table ": .popsection")
#define ROW16(table, instructions)                                                                           \
    __asm__(".pushsection .rodata; .code16; 771: " instructions "; int $0x60; 773: .code32; .popsection;"    \
            ".pushsection .rodata.text, \"a\"; 772: .asciz \"" instructions "\"; .popsection;"               \
            ".pushsection .rodata." #table ", \"a\"; .long 772b, 771b, 773b; .popsection")
#define TABLE16_END(table) __asm__(".pushsection .rodata." #table ", \"a\"; " #table "_end: .popsection")

#endif
