/*
 * A loop for each operation, and the short kernel entries that some of them reach. A loop does its operation ESI times,
 * may use any register, and returns 0 in EAX. All loops turn by the same two instructions, so that nano_loop is what
 * to subtract. What is cheap is done eight times a turn (`repeated`): a turn's own time is no constant, as it overlaps
 * with what else is in the loop, and shall be a small part. ESI is then rounded up. Read next: spaces.c.
 */
#include "nano.h"

#define FAULTING_LENGTH 2               /* of the DIV below */

        .macro op name
        .globl  \name
        .type   \name, @function
        .balign 16
\name:
        .endm

        .macro again label
        dec     %esi
        jnz     \label
        xor     %eax, %eax
        ret
        .endm

        .macro repeated first, second=  /* one or two instructions, NANO_REPEATED times a turn */
        add     $(NANO_REPEATED - 1), %esi
        shr     $3, %esi
77:     .rept   NANO_REPEATED
        \first
        \second
        .endr
        again   77b
        .endm

        .text

/* The image's entry point: notes what the loader passed in EBX, for the command line, and goes on as every guest. */
        op      nano_start
        mov     %ebx, nano_boot_info
        jmp     _start

        op      nano_loop
1:      again   1b

        op      nano_cli_sti
        repeated "cli", "sti"
        op      nano_pushf
        repeated "pushf", "lea 4(%esp), %esp"
        op      nano_popf
        pushf
        pop     %edx
        repeated "push %edx", "popf"
        op      nano_in_pic
        repeated "in $0x21, %al"        /* the first 8259's mask */

        op      nano_out_pic
        in      $0x21, %al
        repeated "out %al, $0x21"
        op      nano_out_post
        repeated "out %al, $0x80"       /* the POST code: no device of consequence */

        op      nano_in_cmos
        mov     $0x0f, %al
        out     %al, $0x70
        repeated "in $0x71, %al"
        op      nano_mmio_read
        mov     $NANO_LOCAL_APIC, %ebx
        repeated "mov 0x20(%ebx), %eax" /* its ID */

        op      nano_mmio_write
        mov     $NANO_LOCAL_APIC, %ebx
        xor     %eax, %eax
        repeated "mov %eax, 0x80(%ebx)" /* the task priority */

/*
 * EBX: a page-table entry that is not in use. By turns it maps a page and none, and a page that the same table maps is
 * read once a turn: the table stays in use.
 */
        op      nano_table_write
        add     $(NANO_REPEATED - 1), %esi
        shr     $3, %esi
1:      .rept   NANO_REPEATED / 2
        mov     %edx, (%ebx)
        movl    $0, (%ebx)
        .endr
        testb   $1, NANO_AREA
        again   1b

/* EBX, ECX: two page directories; four pages are touched in each. Ends in the first. */
        .macro  touch_pages
        testb   $1, NANO_AREA
        testb   $1, NANO_AREA + 0x1000
        testb   $1, NANO_AREA + 0x2000
        testb   $1, NANO_AREA + 0x3000
        .endm
        op      nano_cr3_switch
1:      mov     %ecx, %cr3
        touch_pages
        mov     %ebx, %cr3
        dec     %esi                    /* here: a move to CR3 leaves the flags undefined */
        jz      2f
        touch_pages
        again   1b
2:      xor     %eax, %eax
        ret

        op      nano_rdtsc
        repeated "rdtsc"
        op      nano_cpuid
        repeated "xor %eax, %eax", "cpuid"
        op      nano_invlpg
        mov     $NANO_AREA, %ebx
        repeated "invlpg (%ebx)", "testb $1, (%ebx)"
        op      nano_read_cr0
        repeated "mov %cr0, %eax"
        op      nano_read_cr2
        repeated "mov %cr2, %eax"
        op      nano_call
        repeated "call nothing"
nothing:
        ret

        op      nano_divide_error
        xor     %ecx, %ecx
1:      div     %cl
        again   1b

/* Touches one page, then the other; the handler maps the one and unmaps the other, so that each touch faults. */
        .macro  touch_pair              /* EBX is the page, and 1 in its bit 12 makes it the other */
        mov     $(NANO_AREA + 0x10000), %ebx
1:      testb   $1, (%ebx)
        xor     $0x1000, %ebx
        again   1b
        .endm

        op      nano_page_fault
        touch_pair

/* ---- kernel entries: as short as they can be ---- */

        op      nano_syscall_entry
        incl    %ss:nano_events
        iret

        op      nano_sysenter_entry
        incl    %ss:nano_events
        sysexit                         /* to EDX, with ECX as its stack */

        op      nano_divide_entry
        incl    %ss:nano_events
        addl    $FAULTING_LENGTH, (%esp)
        iret

/* The error code is on top. From ring 3, DS is flat, too: what the processor checks is the page. */
        op      nano_page_fault_entry
        push    %eax
        push    %ecx
        push    %edx
        incl    nano_events
        mov     %cr2, %eax
        mov     nano_pair_table, %ecx
        mov     nano_pair_entry, %edx
        test    $0x1000, %eax
        jz      1f
        mov     %edx, 4(%ecx)           /* the second page comes, the first goes */
        movl    $0, (%ecx)
        jmp     2f
1:      mov     %edx, (%ecx)
        movl    $0, 4(%ecx)
2:      xor     $0x1000, %eax
        invlpg  (%eax)
        pop     %edx
        pop     %ecx
        pop     %eax
        add     $4, %esp
        iret

/* ---- in ring 3 ---- */

        .section .user_text, "ax"

        op      nano_user_loop
1:      again   1b

        op      nano_user_call
        repeated "call user_nothing"
user_nothing:
        ret

        op      nano_user_int
1:      int     $NANO_SYSCALL_VECTOR
        again   1b

        op      nano_user_sysenter
1:      mov     %esp, %ecx
        mov     $2f, %edx
        sysenter
2:      again   1b

        op      nano_user_page_fault
        touch_pair

        .bss
        .balign 4
        .globl  nano_boot_info, nano_events, nano_pair_entry, nano_pair_table
nano_boot_info:
        .skip   4
nano_events:
        .skip   4
nano_pair_entry:
        .skip   4
nano_pair_table:
        .skip   4

        .section .note.GNU-stack, "", @progbits
