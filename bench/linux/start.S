/*
 * The program's first instructions, and what it calls the kernel with if the kernel names no entry. 32-bit code.
 * Read next: main.c.
 */
        .text
        .globl  _start
_start:
        xor     %ebp, %ebp
        mov     %esp, %eax              /* argc, argv..., 0, environment..., 0, auxiliary vector (i386 psABI) */
        and     $-16, %esp
        call    linux_main
        hlt

        .globl  system_int80
system_int80:
        int     $0x80
        ret

        .section .note.GNU-stack, "", @progbits
