/*
 * Into translated code and out of it.
 *
 * The guest's general registers, flags and XMM registers move between the CPU and struct vcpu here; x87 and MMX state
 * stays in the CPU as long as translate_enter has not returned, since no code of the monitor uses it. Flags are kept
 * without PUSHF and POPF, which are slow: LAHF and SETO read them, an addition and SAHF put them back.
 *
 * Read next: engine.c.
 */
#include "translate/context.h"

        .text

        .macro  EACH_XMM op
        \op     0
        \op     1
        \op     2
        \op     3
        \op     4
        \op     5
        \op     6
        \op     7
        .endm
        .macro  LOAD_XMM n
        movaps  FXSAVE_XMM+16*\n(%r11), %xmm\n
        .endm
        .macro  STORE_XMM n
        movaps  %xmm\n, FXSAVE_XMM+16*\n(%r11)
        .endm

/*
 * int translate_enter(struct context *context)       rdi = context
 *
 * Goes to context->target with the state in struct vcpu. Callee-saved registers stay on the monitor's stack.
 */
        .globl  translate_enter
        .hidden translate_enter
        .type   translate_enter, @function
        .p2align 5
translate_enter:
        push    %rbx
        push    %rbp
        push    %r12
        push    %r13
        push    %r14
        push    %r15
        sub     $8, %rsp                /* aligned for the calls below */
        mov     %rdi, %r15
        mov     CONTEXT_FXSAVE(%r15), %r11
        fxrstor64 (%r11)
        mov     %rsp, CONTEXT_HOST_RSP(%r15)

/*
 * On with the guest. A signal that arrives from here to the jump sets *attention and sends us to translate_abort: no
 * event is lost between the check and the guest, and all of the guest's state is in memory.
 */
        .globl  translate_resume_start
        .hidden translate_resume_start
translate_resume_start:
        mov     CONTEXT_ATTENTION(%r15), %rax
        cmpl    $0, (%rax)
        jne     translate_abort
        mov     CONTEXT_CACHE(%r15), %r12
        mov     CONTEXT_TABLE(%r15), %r13
        mov     CONTEXT_WINDOW(%r15), %r14
        mov     CONTEXT_FXSAVE(%r15), %r11
        EACH_XMM LOAD_XMM
        mov     CONTEXT_VCPU(%r15), %r10
        cmpl    $0, CONTEXT_DF(%r15)
        je      1f
        std
1:      movzwl  CONTEXT_FLAGS(%r15), %eax
        add     $0x7f, %al              /* OF = (AL == 1) */
        sahf                            /* the others; from here on only MOV */
        mov     VCPU_GPR+4(%r10), %ecx
        mov     VCPU_GPR+8(%r10), %edx
        mov     VCPU_GPR+12(%r10), %ebx
        mov     VCPU_GPR+20(%r10), %ebp
        mov     VCPU_GPR+24(%r10), %esi
        mov     VCPU_GPR+28(%r10), %edi
        mov     VCPU_GPR+0(%r10), %eax
        mov     VCPU_EIP(%r10), %r8d    /* for the check at a block's indirect entry */
        mov     CONTEXT_BUDGET(%r15), %r11
        mov     VCPU_GPR+16(%r10), %esp
        jmp     *CONTEXT_TARGET(%r15)
        .globl  translate_resume_end
        .hidden translate_resume_end
translate_resume_end:
        .size   translate_enter, . - translate_enter

/* The guest's state goes to struct vcpu; rsp becomes the monitor's; DF is clear. r8 and r9 are kept. */
        .macro  SAVE_GUEST
        mov     CONTEXT_VCPU(%r15), %r10
        mov     %r11, CONTEXT_BUDGET(%r15)
        mov     CONTEXT_FXSAVE(%r15), %r11
        mov     %esp, VCPU_GPR+16(%r10)
        mov     CONTEXT_HOST_RSP(%r15), %rsp
        mov     %eax, VCPU_GPR+0(%r10)
        mov     %ecx, VCPU_GPR+4(%r10)
        mov     %edx, VCPU_GPR+8(%r10)
        mov     %ebx, VCPU_GPR+12(%r10)
        mov     %ebp, VCPU_GPR+20(%r10)
        mov     %esi, VCPU_GPR+24(%r10)
        mov     %edi, VCPU_GPR+28(%r10)
        lahf
        seto    %al
        mov     %ax, CONTEXT_FLAGS(%r15)
        cld
        EACH_XMM STORE_XMM
        mov     %r15, %rdi
        .endm

/* rax: where to go on, or 0 */
        .macro  GO_ON
        test    %rax, %rax
        jz      leave
        mov     %rax, CONTEXT_TARGET(%r15)
        jmp     translate_resume_start
        .endm

/* A jump whose target the jump table does not have. r8d = EIP */
        .globl  translate_lookup_stub
        .hidden translate_lookup_stub
        .p2align 5
translate_lookup_stub:
        SAVE_GUEST
        mov     %r8d, VCPU_EIP(%r10)
        call    translate_on_lookup
        GO_ON

/* A direct jump that was not chained yet. r8d = EIP, r9 = behind its displacement */
        .globl  translate_link_stub
        .hidden translate_link_stub
        .p2align 5
translate_link_stub:
        SAVE_GUEST
        mov     %r8d, VCPU_EIP(%r10)
        mov     %r9, CONTEXT_SITE(%r15)
        call    translate_on_link
        GO_ON

/* An instruction that the monitor runs. r8d = number of the call, r9d = address of its operand, if that is of
 * use */
        .globl  translate_callout_stub
        .hidden translate_callout_stub
        .p2align 5
translate_callout_stub:
        SAVE_GUEST
        mov     %r9d, CONTEXT_ADDRESS(%r15)
        mov     %r8d, %esi
        call    translate_on_callout
        GO_ON

/* Out of translate_enter, with the guest's XMM registers in struct vcpu and its x87 state in the CPU. */
leave:
        mov     $TRANSLATE_LEFT, %eax
        jmp     1f
        .globl  translate_abort
        .hidden translate_abort
translate_abort:                        /* r15 = context */
        mov     CONTEXT_HOST_RSP(%r15), %rsp
        cld
        mov     $TRANSLATE_ABORTED, %eax
1:      sub     $512+16, %rsp           /* x87 state alone: XMM registers may be the monitor's by now */
        lea     15(%rsp), %rsi
        and     $-16, %rsi
        fxsave64 (%rsi)
        mov     CONTEXT_FXSAVE(%r15), %rdi
        mov     $FXSAVE_XMM/8, %ecx
        rep movsq
        add     $512+16, %rsp
        fninit                          /* the ABI's control words: the guest's must not trap or round for us */
        ldmxcsr default_mxcsr(%rip)
        jmp     2f

/* Likewise, from a signal handler: all state was captured, the CPU has the kernel's defaults. eax = result */
        .globl  translate_leave_captured
        .hidden translate_leave_captured
translate_leave_captured:
        mov     CONTEXT_HOST_RSP(%r15), %rsp
2:      add     $8, %rsp
        pop     %r15
        pop     %r14
        pop     %r13
        pop     %r12
        pop     %rbp
        pop     %rbx
        ret

        .section .rodata
        .p2align 2
default_mxcsr:
        .long   0x1f80

        .section .note.GNU-stack, "", @progbits
