/*
 * The benchmark's 32-bit image: one flat piece of machine code that runs in the guest and, for comparison,
 * natively in compatibility mode. It is linked at GUEST_IMAGE and lies there in both worlds. It begins with a
 * table of entries; each is a function with its arguments in EAX, EDX and ECX (regparm 3) and its result in
 * EAX. What it returns to decides the world: guest_finish_out ends the guest's run, guest_finish_far goes
 * back to 64-bit code.
 *
 * Read next: guest.S (traps and memory), compute.c (plain computation), compute_large.c (the same on
 * megabytes).
 */
#ifndef RING3_BENCH_GUEST_H
#define RING3_BENCH_GUEST_H

#define GUEST_IMAGE       0x400000
#define GUEST_STACK_TOP   0x500000
#define GUEST_STACK_SIZE  0x10000
#define GUEST_FINISH_PORT 0xf4 /* isa-debug-exit */

/* What is too large for the image: zeroed memory at the same place in both worlds. */
#define GUEST_ARENA      0x800000
#define GUEST_ARENA_SIZE 0x800000

/* ENTRY(enumerator, function) */
#define GUEST_ENTRIES(ENTRY)                                                                                 \
    ENTRY(ENTRY_FINISH_OUT, guest_finish_out)                                                                \
    ENTRY(ENTRY_FINISH_FAR, guest_finish_far)                                                                \
    ENTRY(ENTRY_CLI, guest_cli)                                                                              \
    ENTRY(ENTRY_READ, guest_read)                                                                            \
    ENTRY(ENTRY_WRITE, guest_write)                                                                          \
    ENTRY(ENTRY_CALLS, compute_calls)                                                                        \
    ENTRY(ENTRY_SIEVE, compute_sieve)                                                                        \
    ENTRY(ENTRY_HASH, compute_hash)                                                                          \
    ENTRY(ENTRY_MATRIX, compute_matrix)                                                                      \
    ENTRY(ENTRY_POINTERS, compute_pointers)                                                                  \
    ENTRY(ENTRY_INDICES, compute_indices)                                                                    \
    ENTRY(ENTRY_FIB, compute_fib)                                                                            \
    ENTRY(ENTRY_INDIRECT, compute_indirect)                                                                  \
    ENTRY(ENTRY_DISPATCH, compute_dispatch)                                                                  \
    ENTRY(ENTRY_SUM, compute_sum)                                                                            \
    ENTRY(ENTRY_COPY, compute_copy)                                                                          \
    ENTRY(ENTRY_STRING_COPY, compute_string_copy)                                                            \
    ENTRY(ENTRY_LARGE_SIEVE, compute_large_sieve)

#ifndef __ASSEMBLER__
enum guest_entry {
#define ENTRY(enumerator, function) enumerator,
    GUEST_ENTRIES(ENTRY)
#undef ENTRY
};
#endif

#endif
