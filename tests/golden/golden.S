/*
 * The guest whose trace is golden: one kernel's life in a few hundred traps, in assembly that every assembler turns
 * into the same bytes, at addresses fixed here. It does nothing that differs between hosts: no hole (guests/holes.c),
 * no CPUID, none of the selectors that a Linux host accepts. README.md says how its trace is compared.
 */
        .set CODE,      0x08            /* selectors; the user's with RPL 3 */
        .set DATA,      0x10
        .set USER_CODE, 0x3b
        .set USER_DATA, 0x43
        .set TSS,       0x48
        .set DIRECTORY, 0x201000        /* physical = linear addresses of what is built at run time */
        .set TABLE,     0x202000
        .set STACK,     0x203fe0        /* not the page's end: some processors read beyond what IRET pops */
        .set USER_STACK, 0x206000
        .set PAGE_TO_MAP, 0x300000      /* not present at first */
        .set PAGE_TO_WRITE, 0x301000    /* read-only at first */

        .text
image:                                  /* linked at 0x100000 */
        .balign 4
        .long   0x1badb002, 0, -0x1badb002      /* multiboot 1, no wishes */

        .globl  _start
        .type   _start, @function
_start:
        cld
        mov     $STACK, %esp
        mov     $greeting, %esi         /* one exit for a whole string */
        mov     $(greeting_end - greeting), %ecx
        mov     $0xe9, %edx
        rep outsb

/* ---- tables: GDT, IDT, TSS ---- */
        .type   tables, @function
tables:
        lgdt    gdt_pointer
        ljmp    $CODE, $1f
1:      mov     $DATA, %eax
        mov     %eax, %ds
        mov     %eax, %es
        mov     %eax, %ss
        lidt    idt_pointer
        movl    $STACK, tss + 4         /* ESP0 */
        movl    $DATA, tss + 8          /* SS0 */
        mov     $TSS, %eax
        ltr     %ax

/* ---- exceptions: each handler goes on behind the instruction ---- */
        .type   exceptions, @function
exceptions:
        int3
        ud2
        xor     %ecx, %ecx
        div     %ecx
        mov     $0x4f00, %eax
        mov     %eax, %fs               /* beyond the GDT's limit: #GP(4f00) */
        mov     $0x12345678, %ecx
        rdmsr                           /* no such register: #GP(0) */

/* ---- control registers and time ---- */
        .type   control, @function
control:
        mov     %cr0, %eax
        or      $0x08, %eax             /* TS */
        mov     %eax, %cr0
        clts
        mov     %cr4, %eax
        xor     %eax, %eax
        mov     %eax, %dr7
        rdtsc

/* ---- devices: the interrupt controllers, one tick of the timer, the screen, a port that is not there ---- */
        .type   devices, @function
devices:
        mov     $pic_setup, %esi
        mov     $((pic_setup_end - pic_setup) / 2), %ecx
        xor     %edx, %edx
1:      lodsw                           /* port, value */
        mov     %al, %dl
        mov     %ah, %al
        out     %al, %dx
        loop    1b
        sti
        hlt
        cli
        movw    $0x0741, 0xb8000        /* A */
        mov     0xb8000, %ax
        mov     $0x300, %edx
        in      %dx, %al

/* ---- paging: the first 4 MiB, each at its own address ---- */
        .type   paging, @function
paging:
        mov     $DIRECTORY, %edi
        xor     %eax, %eax
        mov     $1024, %ecx
        rep stosl
        movl    $(TABLE + 7), DIRECTORY         /* present, writable, user */
        mov     $TABLE, %edi
        mov     $7, %eax
        mov     $1024, %ecx
1:      stosl
        add     $0x1000, %eax
        loop    1b
        movl    $0, TABLE + (PAGE_TO_MAP >> 10)
        movl    $(PAGE_TO_WRITE + 5), TABLE + (PAGE_TO_WRITE >> 10)
        mov     $DIRECTORY, %eax
        mov     %eax, %cr3
        mov     %cr0, %eax
        or      $0x80010000, %eax       /* PG, WP */
        mov     %eax, %cr0
        .type   page_faults, @function
page_faults:
        mov     PAGE_TO_MAP, %eax       /* on_page_fault maps it */
        movl    $1, PAGE_TO_WRITE       /* and lets this be written */
        movl    $0, TABLE + (PAGE_TO_MAP >> 10)
        invlpg  PAGE_TO_MAP
        mov     PAGE_TO_MAP, %eax       /* again */
        mov     %cr3, %eax
        mov     %eax, %cr3

/* ---- ring 3, and back by a system call ---- */
        .type   user_mode, @function
user_mode:
        push    $USER_DATA
        push    $USER_STACK
        push    $0x2                    /* EFLAGS: IF and IOPL 0 */
        push    $USER_CODE
        push    $user
        iretl
        .type   user, @function
user:
        mov     $USER_DATA, %eax
        mov     %eax, %ds
        mov     %eax, %es
        cli                             /* #GP, and on */
        in      $0x60, %al              /* #GP, and on */
        mov     $7, %eax
        int     $0x80

        .type   on_system_call, @function
on_system_call:
        mov     $DATA, %eax
        mov     %eax, %ds
        mov     %eax, %es
        cli
        hlt                             /* the end */

/* ---- handlers: EIP is on top of the stack, behind the error code where there is one ---- */
        .type   on_trap, @function
on_trap:
        iretl
        .type   on_fault_of_two_bytes, @function
on_fault_of_two_bytes:
        addl    $2, (%esp)
        iretl
        .type   on_general_protection, @function
on_general_protection:                  /* cli is one byte; the others here are two */
        push    %eax
        mov     8(%esp), %eax
        cmpb    $0xfa, (%eax)
        sete    %al
        movzbl  %al, %eax
        neg     %eax
        add     $2, %eax
        add     %eax, 8(%esp)
        pop     %eax
        add     $4, %esp
        iretl
        .type   on_page_fault, @function
on_page_fault:
        push    %eax
        mov     %cr2, %eax
        shr     $12, %eax
        push    %edx
        mov     %eax, %edx
        shl     $12, %edx
        add     $3, %edx                /* present, writable */
        mov     %edx, TABLE(, %eax, 4)
        and     $0xfffff000, %edx
        invlpg  (%edx)
        pop     %edx
        pop     %eax
        add     $4, %esp
        iretl
        .type   on_timer, @function
on_timer:
        push    %eax
        mov     $0x20, %al              /* end of interrupt */
        out     %al, $0x20
        pop     %eax
        iretl

/* ---- data ---- */
greeting:
        .ascii  "golden\n"
greeting_end:
pic_setup:                              /* vectors from 0x20 on, all but the timer masked; 1 ms, once */
        .byte   0x20, 0x11, 0xa0, 0x11, 0x21, 0x20, 0xa1, 0x28, 0x21, 0x04, 0xa1, 0x02, 0x21, 0x01, 0xa1, 0x01
        .byte   0x21, 0xfe, 0xa1, 0xff, 0x43, 0x30, 0x40, 0xa9, 0x40, 0x04
pic_setup_end:

        .balign 8, 0                    /* not with NOPs, which assemblers choose differently */
gdt:
        .quad   0, 0x00cf9b000000ffff, 0x00cf93000000ffff, 0, 0, 0, 0   /* null, CODE, DATA */
        .quad   0x00cffb000000ffff, 0x00cff3000000ffff                  /* USER_CODE, USER_DATA */
        .word   103, tss - image                                        /* TSS */
        .byte   0x10, 0x89, 0, 0
gdt_end:
        .word   0
gdt_pointer:
        .word   gdt_end - gdt - 1
        .long   gdt

        .macro  GATE handler, privilege = 0
        .word   \handler - image, CODE, 0x8e00 + (\privilege << 13), 0x10
        .endm
        .balign 8, 0
idt:
        GATE    on_fault_of_two_bytes           /* #DE */
        .quad   0, 0
        GATE    on_trap, 3                      /* #BP */
        .quad   0, 0
        GATE    on_fault_of_two_bytes           /* #UD */
        .fill   6, 8, 0
        GATE    on_general_protection           /* 13 */
        GATE    on_page_fault                   /* 14 */
        .fill   17, 8, 0
        GATE    on_timer                        /* 0x20 */
        .fill   95, 8, 0
        GATE    on_system_call, 3               /* 0x80 */
idt_end:
        .word   0
idt_pointer:
        .word   idt_end - idt - 1
        .long   idt

        .balign 8, 0
tss:
        .fill   102, 1, 0
        .word   104                     /* no I/O bitmap */

        .section .note.GNU-stack, "", @progbits
