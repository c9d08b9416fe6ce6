/*
 * guest.h: what a teaching guest is built from. No libc; everything is in this folder.
 *
 * A guest defines guest_main(). Before it runs, the library has loaded a GDT, an IDT and a TSS and opened the
 * serial port; paging and interrupts are off. When guest_main() returns, report() ends the machine.
 *
 * An exception that nobody handles or expects prints its vector, error code, eip and cr2 and ends the machine
 * as a failure, so that no guest hangs. Read next: any guest in the folder above; then setup.c, traps.S.
 */
#ifndef GUEST_H
#define GUEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cpu.h"

/* ---- the guest ---- */

void guest_main(void);

/* Is `word` on the command line that the loader passed (ring3 run --append, qemu -append)? */
bool has_option(const char *word);

/* ---- console (COM1) ---- */

/* %s %c %u %d %x, with zero padding and width for %u and %x (%08x). */
void print(const char *format, ...) __attribute__((format(printf, 1, 2)));
void console_init(void);

/* ---- checks ---- */

/* Prints `ok name` or `FAIL name: ...`, and counts. */
void check(const char *name, bool condition);
void check_equal(const char *name, uint32_t got, uint32_t expected);
/*
 * A check of something that not every machine does, for a reason that has a name (an `option`: "limits",
 * "alignment", ...). It counts when that word is on the command line; otherwise its result is printed as a
 * note.
 */
void check_option(const char *option, const char *name, bool condition);
void fail(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn)); /* FAIL, then the end */
/* The final line `N checks, M failed`, then the end: 0 through isa-debug-exit if all passed, else 1. */
void report(void) __attribute__((noreturn));
void power_off(uint32_t debug_exit_value) __attribute__((noreturn));

/* ---- segments ---- */

/*
 * Selectors. The list avoids those that a Linux host accepts from any process (0x23, 0x2b as a data segment,
 * 0x33, 0x7b): loading them would not trap on ring3's trap engine. The guest `holes` is about what happens
 * then.
 */
enum {
    SEL_KERNEL_CODE = 0x08,
    SEL_KERNEL_DATA = 0x10,
    SEL_SPARE = 0x18, /* flat data; a guest may replace it */
    SEL_TSS = 0x28,
    SEL_USER_CODE = 0x38 | 3,
    SEL_USER_DATA = 0x40 | 3,
    SEL_OTHER_TSS = 0x48, /* 0x48 to 0x78 are for the guest to fill */
    SEL_FREE = 0x50,
    GDT_ENTRIES = 16,
};

/* Access bytes (SDM Vol. 3, 3.4.5.1 and 3.5); DPL 3 is `| DESC_USER`. */
enum {
    DESC_DATA = 0x92,
    DESC_CODE = 0x9a,
    DESC_LDT = 0x82,
    DESC_TASK_GATE = 0x85,
    DESC_TSS = 0x89,
    DESC_CALL_GATE = 0x8c,
    DESC_INTERRUPT_GATE = 0x8e,
    DESC_TRAP_GATE = 0x8f,
    DESC_PRESENT = 0x80,
    DESC_USER = 0x60,
};

/* The 32-bit TSS (SDM Vol. 3, figure 7-2). */
struct tss {
    uint32_t link, esp0, ss0, esp1, ss1, esp2, ss2;
    uint32_t cr3, eip, eflags, eax, ecx, edx, ebx, esp, ebp, esi, edi;
    uint32_t es, cs, ss, ds, fs, gs, ldt;
    uint16_t trap, io_map_base;
};

extern uint64_t gdt[GDT_ENTRIES];
extern uint64_t idt[256];
extern struct tss tss;           /* followed by... */
extern uint8_t io_map[8192 + 1]; /* ...the I/O permission bitmap, which is not in force at first */

/* A segment or system descriptor. A limit above 1 MiB - 1 is expressed in pages. */
uint64_t descriptor(uint32_t base, uint32_t limit, uint8_t access);
uint64_t gate(uint16_t selector, uint32_t offset, uint8_t access); /* also call gates, with 0 parameters */
void segments_init(void);

/* ---- traps ---- */

/* What the entry code in traps.S builds on the stack. esp and ss are there only if the trap came from ring 3.
 */
struct trap_frame {
    uint32_t edi, esi, ebp, unused_esp, ebx, edx, ecx, eax;
    uint32_t vector, error;
    uint32_t eip, cs, eflags;
    uint32_t esp, ss;
};

typedef void trap_handler(struct trap_frame *frame);

extern uint8_t trap_stubs[256][16]; /* the entry points */
void traps_init(void);
void trap_dispatch(struct trap_frame *frame); /* what every entry calls; a handler may pass a trap on */
void trap_set_handler(unsigned vector, trap_handler *handler); /* NULL: none */
const char *trap_name(unsigned vector);                        /* "#GP" */

enum { SYSCALL_VECTOR = 0x30 }; /* a gate that ring 3 may use */
enum { NO_TRAP = 0xffffffff };

/* The registers that a probe gives to its code. probe_registers keeps its values until they are changed. */
struct registers {
    uint32_t eax, ecx, edx, ebx, esi, edi;
};
extern struct registers probe_registers;

/*
 * The trap that ended a probe, and the registers then. If the code simply returned, vector is NO_TRAP, and of
 * the flags only the arithmetic ones mean something.
 */
struct trap {
    uint32_t vector, error, eip, cs, eflags, esp, cr2;
    struct registers registers;
};

/*
 * Runs `code` until it returns or traps with a vector that has no handler, and says which. At CPL 0 on the
 * caller's stack; at CPL 3 with the flags given, on the page user_stack (with paging on, `code` must then lie
 * in a page that ring 3 may execute: USER_CODE). IF is clear after a probe that trapped.
 */
struct trap probe_kernel(void (*code)(void));
struct trap probe_user(void (*code)(void));
struct trap probe_user_with(void (*code)(void), uint32_t esp, uint32_t eflags);
/* The usual check: this vector, this error code (0 if the vector has none), eip at the first instruction. */
void check_trap(const char *name, struct trap trap, uint32_t vector, uint32_t error, void (*code)(void));
void check_page_fault(const char *name, struct trap trap, uint32_t error, uint32_t cr2);
void check_returned(const char *name, struct trap trap);

/* Snippets of assembly to probe, as functions. */
#define CODE(name, text)                                                                                     \
    static __attribute__((naked, noinline)) void name(void)                                                  \
    {                                                                                                        \
        __asm__ volatile(text "\n\tret");                                                                    \
    }
#define USER_CODE(name, text)                                                                                \
    static __attribute__((naked, noinline, section(".user_text"))) void name(void)                           \
    {                                                                                                        \
        __asm__ volatile(text "\n\tret");                                                                    \
    }
#define USER_DATA __attribute__((section(".user_data")))

void user_return(void); /* in ring 3: where probed code returns to */
/*
 * A table of snippets, a line for each: SNIPPETS_BEGIN(table); SNIPPET(table, user, "cli"); ...
 * SNIPPETS_END(table); The code lies in section `.user_text` or `.kernel_text`; the rows are struct snippet
 * table[] up to table_end.
 */
struct snippet {
    const char *text;
    void (*code)(void);
};
#define SNIPPETS_BEGIN(table)                                                                                \
    extern const struct snippet table[], table##_end[];                                                      \
    __asm__(".pushsection .rodata." #table ", \"a\"; .balign 4; " #table ": .popsection")
#define SNIPPET(table, privilege, instructions)                                                              \
    __asm__(".pushsection ." #privilege "_text, \"ax\"; 771: " instructions "; ret; .popsection;"            \
            ".pushsection .rodata.text, \"a\"; 772: .asciz \"" instructions "\"; .popsection;"               \
            ".pushsection .rodata." #table ", \"a\"; .long 772b, 771b; .popsection")
#define SNIPPETS_END(table) __asm__(".pushsection .rodata." #table ", \"a\"; " #table "_end: .popsection")

extern uint8_t user_begin[], user_end[]; /* the pages with .user_text and .user_data */
extern uint32_t user_stack[1024];
uint32_t user_stack_top(void);

/* ---- paging ---- */

enum { PAGE_SIZE = 4096 };

typedef uint32_t pte; /* an entry of a page directory or a page table */

/* A zeroed page below 4 MiB, at the same linear and physical address. Never freed: there are 128. */
void *page_alloc(void);
/* A page directory that maps the first 4 MiB onto themselves, supervisor but for the user section; not page
 * 0. */
pte *space_new(void);
/* The page-table entry for `linear`, in a page table made if need be. */
pte *space_entry(pte *directory, uint32_t linear);
void space_map(pte *directory, uint32_t linear, uint32_t physical, uint32_t flags);
void paging_on(pte *directory); /* loads CR3, sets CR0.PG and CR0.WP */

/* ---- interrupt controller and timer ---- */

enum { IRQ_BASE = 0x20 }; /* IRQ n comes as vector 0x20 + n */
enum { IRQ_TIMER = 0, IRQ_KEYBOARD = 1, IRQ_COM1 = 4 };
enum { PIC1 = 0x20, PIC2 = 0xa0, PIT_CHANNEL0 = 0x40, PIT_COMMAND = 0x43 };

void pic_init(void); /* the vectors as above, every line masked */
void pic_mask(unsigned irq);
void pic_unmask(unsigned irq);
void pic_eoi(unsigned irq);
uint8_t pic_irr(uint16_t pic); /* requested, not yet in service */
uint8_t pic_isr(uint16_t pic); /* in service */
void pit_periodic(unsigned hz);
void pit_one_shot(uint16_t ticks);   /* IRQ 0 rises once, `ticks` / 1.193182 MHz from now */
bool pic_wait_request(unsigned irq); /* polls (for seconds at most) until the line is requested */

/* ---- what compilers call without being asked ---- */

void *memset(void *to, int byte, size_t n);
void *memcpy(void *restrict to, const void *restrict from, size_t n);
int memcmp(const void *a, const void *b, size_t n);

#endif
