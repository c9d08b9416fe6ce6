/*
 * Into and out of a stub (stub.h). A guest instruction without REX cannot name r8-r15, and a stub never names rsp, so
 * r15 keeps the context and rsp stays the monitor's own stack: a signal may arrive at any of these instructions.
 */
#include "vcpu/stub_offsets.h"

        .text

/* void stub_enter(struct stub_context *context) */
        .globl  stub_enter
        .type   stub_enter, @function
stub_enter:
        .cfi_startproc
        push    %rbx                    /* what the ABI wants kept and the guest's registers overwrite */
        .cfi_adjust_cfa_offset 8
        .cfi_rel_offset %rbx, 0
        push    %rbp
        .cfi_adjust_cfa_offset 8
        .cfi_rel_offset %rbp, 0
        push    %r15
        .cfi_adjust_cfa_offset 8
        .cfi_rel_offset %r15, 0
        mov     %rdi, %r15

        mov     STUB_FPU(%r15), %rax    /* NULL: the instruction leaves x87 and SSE alone */
        test    %rax, %rax
        jz      1f
        fxsave64 STUB_HOST_FPU(%r15)
        fxrstor (%rax)                  /* never faults on pending x87 exceptions; MXCSR was checked */
1:
        pushq   STUB_FLAGS(%r15)        /* arithmetic flags only: TF, DF, AC, NT stay clear */
        .cfi_adjust_cfa_offset 8
        popfq
        .cfi_adjust_cfa_offset -8
        mov     STUB_EAX(%r15), %eax    /* mov leaves the flags as they are */
        mov     STUB_ECX(%r15), %ecx
        mov     STUB_EDX(%r15), %edx
        mov     STUB_EBX(%r15), %ebx
        mov     STUB_EBP(%r15), %ebp
        mov     STUB_ESI(%r15), %esi
        mov     STUB_EDI(%r15), %edi
        jmp     *STUB_CODE(%r15)        /* the instruction, then: jmp *STUB_LEAVE(%r15) */

        .globl  stub_leave
stub_leave:
        mov     %eax, STUB_EAX(%r15)
        mov     %ecx, STUB_ECX(%r15)
        mov     %edx, STUB_EDX(%r15)
        mov     %ebx, STUB_EBX(%r15)
        mov     %ebp, STUB_EBP(%r15)
        mov     %esi, STUB_ESI(%r15)
        mov     %edi, STUB_EDI(%r15)
        pushfq
        .cfi_adjust_cfa_offset 8
        popq    STUB_FLAGS(%r15)
        .cfi_adjust_cfa_offset -8

        mov     STUB_FPU(%r15), %rax
        test    %rax, %rax
        jz      2f
        fxsave  (%rax)                  /* no REX.W: the 32-bit form of the pointers */
        fxrstor64 STUB_HOST_FPU(%r15)
2:
        pop     %r15
        .cfi_adjust_cfa_offset -8
        .cfi_restore %r15
        pop     %rbp
        .cfi_adjust_cfa_offset -8
        .cfi_restore %rbp
        pop     %rbx
        .cfi_adjust_cfa_offset -8
        .cfi_restore %rbx
        ret
        .cfi_endproc
        .size   stub_enter, . - stub_enter

/*
 * void vcpu_serialize(void): code was written through another linear address than the one that it runs at, so a
 * serializing instruction must come between (SDM Vol 3A 8.1.3). IRET is the one that ring 3 has beside CPUID, which
 * may be made to fault.
 */
        .globl  vcpu_serialize
        .type   vcpu_serialize, @function
vcpu_serialize:
        .cfi_startproc
        mov     %rsp, %rdx
        mov     %ss, %eax
        push    %rax                    /* SS */
        push    %rdx                    /* RSP */
        pushfq                          /* RFLAGS */
        mov     %cs, %eax
        push    %rax                    /* CS */
        lea     1f(%rip), %rax
        push    %rax                    /* RIP */
        .cfi_adjust_cfa_offset 40
        iretq
        .cfi_adjust_cfa_offset -40
1:
        ret
        .cfi_endproc
        .size   vcpu_serialize, . - vcpu_serialize

        .section .note.GNU-stack, "", @progbits
