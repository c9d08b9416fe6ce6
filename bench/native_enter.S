/*
 * From 64-bit code into the image and back: uint32_t native_enter(uint32_t function, uint32_t argument, uint32_t stack)
 *
 * 32-bit code runs in compatibility mode with the flat segments of an ordinary 32-bit process. Its far return reaches
 * only addresses below 4 GiB, so native.c copies all of this there, and calls the copy.
 */
#include "guest.h"

#define HOST_CS        0x33
#define HOST_CS_COMPAT 0x23
#define HOST_DS        0x2b

        .section .rodata
        .globl  native_gate, native_gate_end
        .hidden native_gate, native_gate_end
native_gate:
        push    %rbx
        push    %rbp
        push    %r12
        push    %r13
        push    %r14
        push    %r15
        mov     %rsp, saved_rsp(%rip)
        mov     $HOST_DS, %eax
        mov     %eax, %ds
        mov     %eax, %es

        /* The function returns to guest_finish_far, whose LRET takes what lies above. */
        mov     %edx, %esp
        lea     back(%rip), %eax
        sub     $16, %rsp
        movl    $HOST_CS, 8(%rsp)
        mov     %eax, 4(%rsp)
        mov     GUEST_IMAGE + 4, %eax
        mov     %eax, (%rsp)

        mov     %edi, %edi
        pushq   $HOST_CS_COMPAT
        push    %rdi
        mov     %esi, %eax
        lretq                           /* into the function */

back:   mov     saved_rsp(%rip), %rsp
        pop     %r15
        pop     %r14
        pop     %r13
        pop     %r12
        pop     %rbp
        pop     %rbx
        ret
        .balign 8
saved_rsp:
        .quad   0
native_gate_end:

        .section .note.GNU-stack, "", @progbits
