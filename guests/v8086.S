/*
 * v8086.S: into virtual-8086 mode and out of it.
 *
 * The way in is an IRET with VM in the flags' image. Every way out is an interrupt or exception: the CPU pushes all
 * segment registers and clears them, and comes to a gate at CPL 0. The 256 entries here note the registers in struct
 * v86 of v8086.c, whose offsets are repeated here, and return from v86_run. What did not come from virtual-8086 mode
 * goes on to the library's entries.
 *
 * Read next: v8086.c.
 */
#define KERNEL_DATA     0x10
#define SEL_OTHER_TSS   0x48
#define HAS_ERROR_CODE  0x00027d00      /* as in lib/traps.S */
#define EFLAGS_VM       0x00020000
#define FRAME_EFLAGS    8               /* behind EIP and CS, without an error code */
#define FRAME_WORDS     9               /* EIP CS EFLAGS ESP SS ES DS FS GS */

#define V86_FRAME       32              /* behind the general registers */
#define V86_VECTOR      68
#define V86_ERROR       72
#define V86_NULLED      76              /* the OR of DS, ES, FS and GS as the handler found them */

        .text
        .globl  v86_stubs               /* one every 32 bytes */
        .balign 32
v86_stubs:
        .set    vector, 0
        .rept   256
        .balign 32
        .if (vector >= 32) || (((HAS_ERROR_CODE >> (vector & 31)) & 1) == 0)
        testl   $EFLAGS_VM, FRAME_EFLAGS(%esp)
        jz      trap_stubs + 16 * vector
        pushl   $0
        .else
        testl   $EFLAGS_VM, FRAME_EFLAGS + 4(%esp)
        jz      trap_stubs + 16 * vector
        .endif
        pushl   $vector
        jmp     v86_leave
        .set    vector, vector + 1
        .endr

        .globl  v86_run                 /* (struct v86 *) */
        .type   v86_run, @function
v86_run:
        push    %ebp
        push    %ebx
        push    %esi
        push    %edi
        mov     20(%esp), %eax
        mov     %eax, v86_state
        mov     %esp, v86_esp
        mov     $FRAME_WORDS - 1, %ecx
1:      pushl   V86_FRAME(%eax, %ecx, 4)
        dec     %ecx
        jns     1b
        mov     0(%eax), %edi
        mov     4(%eax), %esi
        mov     8(%eax), %ebp
        mov     16(%eax), %ebx
        mov     20(%eax), %edx
        mov     24(%eax), %ecx
        mov     28(%eax), %eax
        iret
        .size   v86_run, . - v86_run

        .globl  v86_run_task            /* (struct v86 *): likewise, by a jump to the task of SEL_OTHER_TSS */
        .type   v86_run_task, @function
v86_run_task:
        push    %ebp
        push    %ebx
        push    %esi
        push    %edi
        mov     20(%esp), %eax
        mov     %eax, v86_state
        mov     %esp, v86_esp
        ljmp    $SEL_OTHER_TSS, $0

v86_leave:
        pusha
        mov     %ds, %ecx
        mov     %es, %edx
        or      %edx, %ecx
        mov     %fs, %edx
        or      %edx, %ecx
        mov     %gs, %edx
        or      %edx, %ecx
        mov     $KERNEL_DATA, %eax
        mov     %eax, %ds
        mov     %eax, %es
        cld
        mov     v86_state, %edi
        mov     %ecx, V86_NULLED(%edi)
        mov     32(%esp), %eax
        mov     %eax, V86_VECTOR(%edi)
        mov     36(%esp), %eax
        mov     %eax, V86_ERROR(%edi)
        mov     %esp, %esi
        mov     $8, %ecx
        rep movsl                       /* EDI ... EAX */
        add     $8, %esi
        mov     $FRAME_WORDS, %ecx
        rep movsl
        mov     v86_esp, %esp
        pop     %edi
        pop     %esi
        pop     %ebx
        pop     %ebp
        ret
        .size   v86_run_task, . - v86_run_task

        .bss
        .balign 4
v86_state:
        .skip   4
v86_esp:
        .skip   4

        .section .note.GNU-stack, "", @progbits
