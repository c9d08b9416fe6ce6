/*
 * start.S: the multiboot-1 header and the first instructions of every guest.
 *
 * The loader leaves us in 32-bit protected mode with flat segments, paging off, interrupts off, EAX = a magic
 * number and EBX = the address of the multiboot information (Multiboot Specification 0.6.96, section 3.2).
 * Read next: setup.c, which the call below reaches.
 */
#define MULTIBOOT_MAGIC 0x1badb002
#define MULTIBOOT_FLAGS 0x00000003 /* modules page-aligned; tell us the memory size */

        .section .multiboot, "a"
        .balign 4
        .long MULTIBOOT_MAGIC
        .long MULTIBOOT_FLAGS
        .long -(MULTIBOOT_MAGIC + MULTIBOOT_FLAGS)

        .text
        .globl _start
        .type _start, @function
_start:
        mov     $boot_stack_top, %esp   /* the loader gave us no stack */
        xor     %ebp, %ebp              /* the end of every stack trace */
        cld
        push    %ebx                    /* multiboot information */
        push    %eax                    /* magic */
        call    guest_setup             /* does not return */
        .size _start, . - _start

        .bss
        .balign 16
        .skip   16384
boot_stack_top:

        .section .note.GNU-stack, "", @progbits
