/*
 * nano: the guest of the comparison with QEMU (bench/peer). One multiboot image that holds every measure: the
 * computations of the benchmark's 32-bit image (bench/guest.h), a loop for each sensitive operation, and a
 * generator of code to be run once. Its command line says which, how often, and what the harness learns:
 *
 *   measure=NAME   the measure; `measure=all` runs each once, for the tests
 *   n=COUNT        operations a round; with `grow` the first round's, and each round is four times the last
 *   rounds=COUNT   how many rounds
 *   sysenter       with measure=all: also SYSENTER, which ends a machine that cannot have it
 *
 * On port 0xE9 it writes MARK_BEGIN before a round and MARK_END behind it, and nobody asks the guest what
 * time it is. At last `=` and what the last round computed (eight hexadecimal digits), or `!` and why it
 * failed.
 *
 * Read next: main.c (the measures), ops.S (the loops), spaces.c (what is mapped where), code.c (the
 * generator).
 */
#ifndef RING3_BENCH_NANO_H
#define RING3_BENCH_NANO_H

#define NANO_MARKER_PORT 0xe9
#define NANO_MARK_BEGIN  1
#define NANO_MARK_END    2

#define NANO_REPEATED 8 /* how often cheap operations are done in one turn of their loop: ops.S, rows.py */

/* Linear addresses beyond what the guests' library maps. */
#define NANO_AREA       0x30000000 /* pages that loops touch, map and unmap */
#define NANO_LOCAL_APIC 0xfee00000

/* Segments for SYSENTER and SYSEXIT, which want four in a row (SDM Vol. 2, SYSEXIT). */
#define NANO_SYSENTER_CODE 0x50

#define NANO_SYSCALL_VECTOR 0x31

#ifndef __ASSEMBLER__
#include <stdint.h>

#include "guest.h" /* the guests' library, guests/lib */

/* ops.S. Each does its operation ESI times. */
#define NANO_OPERATIONS(OP)                                                                                  \
    OP(nano_loop)                                                                                            \
    OP(nano_cli_sti)                                                                                         \
    OP(nano_pushf)                                                                                           \
    OP(nano_popf)                                                                                            \
    OP(nano_in_pic)                                                                                          \
    OP(nano_out_pic)                                                                                         \
    OP(nano_out_post)                                                                                        \
    OP(nano_in_cmos)                                                                                         \
    OP(nano_mmio_read)                                                                                       \
    OP(nano_mmio_write)                                                                                      \
    OP(nano_table_write)                                                                                     \
    OP(nano_cr3_switch)                                                                                      \
    OP(nano_rdtsc)                                                                                           \
    OP(nano_cpuid)                                                                                           \
    OP(nano_invlpg)                                                                                          \
    OP(nano_read_cr0)                                                                                        \
    OP(nano_read_cr2)                                                                                        \
    OP(nano_call)                                                                                            \
    OP(nano_divide_error)                                                                                    \
    OP(nano_page_fault)                                                                                      \
    OP(nano_user_loop)                                                                                       \
    OP(nano_user_call)                                                                                       \
    OP(nano_user_int)                                                                                        \
    OP(nano_user_sysenter)                                                                                   \
    OP(nano_user_page_fault)
#define OP(name) void name(void);
NANO_OPERATIONS(OP)
#undef OP

void nano_syscall_entry(void);
void nano_sysenter_entry(void);
void nano_divide_entry(void);
void nano_page_fault_entry(void);

extern uint32_t nano_boot_info;   /* the address that the boot loader passed */
extern uint32_t nano_events;      /* how often one of the entries above ran */
extern uint32_t nano_pair_entry;  /* what the page-fault handler maps... */
extern uint32_t *nano_pair_table; /* ...by this page-table entry or the next */

/* spaces.c */
struct space {
    pte *directory; /* the one that is in force */
    pte *other;     /* the same, but for the pages that nano_cr3_switch touches */
    pte *spare;     /* an entry that is not in use, of a table that is */
    pte *pair;      /* the entries of NANO_PAIR_PAGES */
    uint32_t pair_entry;
};
enum { NANO_TOUCHED_PAGES = 4, NANO_PAIR = NANO_AREA + 0x10000, NANO_SPARE = NANO_AREA + 0x20000 };

/* With what the measures use mapped for ring 3, or for the kernel alone. */
struct space nano_space_new(bool is_user);
void nano_space_enter(const struct space *space);

/* code.c: writes n instructions and a RET at `to`; they use the page `data`. */
void nano_code_generate(uint8_t *to, const uint8_t *end, uint32_t data, uint32_t n);

extern const uint8_t nano_image[], nano_image_end[]; /* image.S: linked at GUEST_IMAGE */
#endif

#endif
