/*
 * traps.S: the 256 entry points, the way back, and the two ways to run code that is expected to trap.
 *
 * An entry pushes what the CPU did not (a zero in place of an error code, the vector), then the registers: that is
 * struct trap_frame of guest.h, whose offsets are repeated here. Segment registers are never read, only set to what
 * the privilege level in the frame calls for: reading them gives other values on ring3's trap engine (see the guest
 * `holes`). Read next: traps.c.
 */
#define KERNEL_CODE     0x08
#define KERNEL_DATA     0x10
#define USER_CODE       0x3b
#define USER_DATA       0x43
#define SYSCALL_VECTOR  0x30
#define FRAME_CS        44              /* offset of cs in struct trap_frame */
#define HAS_ERROR_CODE  0x00027d00      /* a bit a vector: 8, 10-14, 17 (SDM Vol. 3, table 6-1) */

        .text

/* ---- in ---- */

        .globl trap_stubs               /* one every 16 bytes */
        .balign 16
trap_stubs:
        .set vector, 0
        .rept 256
        .balign 16
        .if (vector >= 32) || (((HAS_ERROR_CODE >> (vector & 31)) & 1) == 0)
        pushl   $0                      /* this vector has no error code */
        .endif
        pushl   $vector
        jmp     trap_entry
        .set vector, vector + 1
        .endr

        .type trap_entry, @function
trap_entry:
        pusha
        cld
        testb   $3, FRAME_CS(%esp)
        jz      1f
        mov     $KERNEL_DATA, %eax      /* from ring 3: its data segments are not ours */
        mov     %eax, %ds
        mov     %eax, %es
1:      push    %esp                    /* struct trap_frame * */
        call    trap_dispatch
        add     $4, %esp

/* ---- out: to wherever the frame now points ---- */

        testb   $3, FRAME_CS(%esp)
        jz      1f
        mov     $USER_DATA, %eax
        mov     %eax, %ds
        mov     %eax, %es
1:      popa
        add     $8, %esp                /* vector, error code */
        iret
        .size trap_entry, . - trap_entry

/* ---- probes: call code; come back by its return, or by trap_dispatch sending us to probe_recover ---- */

        .macro load_registers in        /* struct registers at \in, which is eax itself */
        mov     4(\in), %ecx
        mov     8(\in), %edx
        mov     12(\in), %ebx
        mov     16(\in), %esi
        mov     20(\in), %edi
        mov     (\in), \in
        .endm

        .globl probe_call               /* (code, const struct registers *in, struct registers *out) */
        .type probe_call, @function
probe_call:
        push    %ebp
        push    %ebx
        push    %esi
        push    %edi
        mov     %esp, probe_esp
        mov     20(%esp), %ebp          /* code */
        mov     24(%esp), %eax          /* in */
        cmp     $0, %eax                /* the arithmetic flags begin as 0, but for PF */
        load_registers %eax
        call    *%ebp
        pushf
        pop     probe_eflags
        mov     probe_esp, %esp
        mov     28(%esp), %ebp          /* out */
        mov     %eax, (%ebp)
        mov     %ecx, 4(%ebp)
        mov     %edx, 8(%ebp)
        mov     %ebx, 12(%ebp)
        mov     %esi, 16(%ebp)
        mov     %edi, 20(%ebp)
        jmp     probe_return
        .size probe_call, . - probe_call

        .globl probe_enter_user         /* (eip, esp, eflags, const struct registers *in) */
        .type probe_enter_user, @function
probe_enter_user:
        push    %ebp
        push    %ebx
        push    %esi
        push    %edi
        mov     %esp, probe_esp
        mov     $USER_DATA, %ebx
        mov     %ebx, %ds
        mov     %ebx, %es
        mov     %esp, %ebp              /* build the frame of a trap that never happened */
        push    %ebx                    /* ss */
        push    24(%ebp)                /* esp */
        push    28(%ebp)                /* eflags */
        push    $USER_CODE              /* cs */
        push    20(%ebp)                /* eip */
        mov     32(%ebp), %eax          /* in */
        load_registers %eax
        iret
        .size probe_enter_user, . - probe_enter_user

        .globl probe_recover            /* trap_dispatch makes a frame return here, at CPL 0 with clean flags */
        .type probe_recover, @function
probe_recover:
        mov     $KERNEL_DATA, %eax
        mov     %eax, %ss
        mov     probe_esp, %esp
        mov     %eax, %ds
        mov     %eax, %es
probe_return:
        pop     %edi
        pop     %esi
        pop     %ebx
        pop     %ebp
        ret
        .size probe_recover, . - probe_recover

        .bss
        .balign 4
probe_esp:
        .skip   4
        .globl probe_eflags             /* when the code of probe_call returned */
probe_eflags:
        .skip   4

/* ---- in ring 3 ---- */

        .section .user_text, "ax"
        .globl user_return              /* where code run by probe_user returns to */
        .type user_return, @function
user_return:
        int     $SYSCALL_VECTOR
        .size user_return, . - user_return

        .section .user_data, "aw"
        .balign 4096
        .globl user_stack
        .type user_stack, @object
user_stack:
        .skip   4096
        .size user_stack, 4096

        .section .note.GNU-stack, "", @progbits
