/*
 * The image's table of entries, its two ways to end, and the loops that trap and touch memory. 32-bit code; arguments
 * in EAX, EDX, ECX. Read next: compute.c.
 */
#include "guest.h"

        .section .entries, "a"
#define ENTRY(enumerator, function) .long function;
GUEST_ENTRIES(ENTRY)

        .text
/* The guest's run ends here; its result is in EAX. */
        .globl  guest_finish_out
guest_finish_out:
        out     %al, $GUEST_FINISH_PORT

/* Native: what the caller pushed is a far pointer into 64-bit code. */
        .globl  guest_finish_far
guest_finish_far:
        lret

/* EAX times CLI. */
        .globl  guest_cli
        .p2align 4
guest_cli:
        cli
        dec     %eax
        jnz     guest_cli
        ret

/* Reads a byte at EAX, EAX + ECX, ...: EDX of them. */
        .globl  guest_read
        .p2align 4
guest_read:
        testb   $1, (%eax)
        add     %ecx, %eax
        dec     %edx
        jnz     guest_read
        ret

/* The same, writing. */
        .globl  guest_write
        .p2align 4
guest_write:
        movb    $1, (%eax)
        add     %ecx, %eax
        dec     %edx
        jnz     guest_write
        ret

        .section .note.GNU-stack, "", @progbits
