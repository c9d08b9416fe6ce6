/*
 * The world switch: into the guest by IRETQ, out of it through a signal handler that never returns to the kernel.
 *
 * Why IRETQ and no rt_sigreturn: leaving a handler by rt_sigreturn costs a system call and the restoring of a
 * 2.7 KiB frame. IRETQ from 64-bit ring 3 to 32-bit ring 3 is a plain instruction. It is allowed because the handlers
 * are SA_NODEFER with an empty mask (so there is no mask to restore) and because the frame's guest state has been copied
 * to the vcpu. The alternate stack does not leak: the kernel starts at its top whenever RSP is not on it.
 *
 * Read next: frame.c.
 */
#include "signals/world.h"

        .text

/*
 * int trap_enter(struct world *world)       rdi = world
 *
 * Callee-saved registers stay on the monitor's stack; both ways out (trap_leave, trap_abort) pop them.
 */
        .globl  trap_enter
        .hidden trap_enter
        .type   trap_enter, @function
        .p2align 5
trap_enter:
        push    %rbx
        push    %rbp
        push    %r12
        push    %r13
        push    %r14
        push    %r15
        mov     %rsp, WORLD_HOST_RSP(%rdi)
        mov     WORLD_FPU(%rdi), %rax
        fxrstor (%rax)                  /* x87, MMX, SSE, MXCSR: the guest's from here on */
        movl    $1, WORLD_IS_INSIDE(%rdi)

/*
 * The restartable window. An asynchronous handler that interrupts it sets *attention and sends us to trap_abort, so
 * that no event is lost between the check and the guest. Nothing before the check may be repeated at a cost, and
 * nothing in the window may change what a second trap_enter reads.
 */
        .globl  trap_window_start
        .hidden trap_window_start
trap_window_start:
        mov     WORLD_ATTENTION(%rdi), %rax
        cmpl    $0, (%rax)
        jne     trap_abort

        /* DS, ES and GS survive the monitor (64-bit mode ignores them): load them only if they differ. */
        cmpl    $0, WORLD_RELOAD(%rdi)
        jne     1f
        mov     %ds, %eax
        cmp     WORLD_DS(%rdi), %ax
        jne     1f
        mov     %es, %eax
        cmp     WORLD_ES(%rdi), %ax
        jne     1f
        mov     %gs, %eax
        cmp     WORLD_GS(%rdi), %ax
        je      2f
1:      mov     WORLD_DS(%rdi), %ds
        mov     WORLD_ES(%rdi), %es
        mov     WORLD_GS(%rdi), %gs
        movl    $0, WORLD_RELOAD(%rdi)
        /* FS always: its hidden base is the monitor's TLS now, the load fetches the guest's from the LDT. */
2:      mov     WORLD_FS(%rdi), %fs

        /* 32-bit code cannot see these; a guest that finds a way to 64-bit mode shall find no pointer of ours. */
        xor     %r8d, %r8d
        xor     %r9d, %r9d
        xor     %r10d, %r10d
        xor     %r11d, %r11d
        xor     %r12d, %r12d
        xor     %r13d, %r13d
        xor     %r14d, %r14d
        xor     %r15d, %r15d
        mov     WORLD_EAX+4(%rdi), %ecx
        mov     WORLD_EAX+8(%rdi), %edx
        mov     WORLD_EAX+12(%rdi), %ebx
        mov     WORLD_EAX+20(%rdi), %ebp
        mov     WORLD_EAX+24(%rdi), %esi
        mov     WORLD_EAX+0(%rdi), %eax
        lea     WORLD_IRET(%rdi), %rsp
        mov     WORLD_EAX+28(%rdi), %edi
        .globl  trap_window_iret
        .hidden trap_window_iret
trap_window_iret:
        iretq
        .globl  trap_window_end
        .hidden trap_window_end
trap_window_end:
        .size   trap_enter, . - trap_enter

/* Back from the window without having run the guest. All registers but RIP are garbage; FS base is the monitor's
 * (the handler put it back) or, when the jump came from the check above, was never changed. */
        .globl  trap_abort
        .hidden trap_abort
        .type   trap_abort, @function
trap_abort:
        lea     trap_world(%rip), %rdi
        movl    $0, WORLD_IS_INSIDE(%rdi)
        mov     WORLD_HOST_RSP(%rdi), %rsp
        fninit                          /* the ABI's control words: the guest's must not trap or round for us */
        ldmxcsr default_mxcsr(%rip)
        mov     $WORLD_ABORTED, %eax
        jmp     trap_leave
        .size   trap_abort, . - trap_abort

/*
 * int trap_enter_by_frame(struct world *world, const ucontext_t *uc)       rdi = world, rsi = uc
 *
 * The other way in, for a 16-bit stack: IRETQ to one loads SP alone, and the upper half of ESP would be the monitor's.
 * The kernel knows how to load it (espfix64), and rt_sigreturn asks it to: the frame is made by hand (frame.c). What the
 * kernel does not take from a frame is loaded here: DS ES FS GS, and of EFLAGS NT and ID. All asynchronous signals are
 * blocked until the kernel takes the mask from the frame, so there is no window.
 */
        .globl  trap_enter_by_frame
        .hidden trap_enter_by_frame
        .type   trap_enter_by_frame, @function
trap_enter_by_frame:
        push    %rbx
        push    %rbp
        push    %r12
        push    %r13
        push    %r14
        push    %r15
        mov     %rsp, WORLD_HOST_RSP(%rdi)
        mov     WORLD_DS(%rdi), %ds
        mov     WORLD_ES(%rdi), %es
        mov     WORLD_GS(%rdi), %gs
        mov     WORLD_FS(%rdi), %fs
        movl    $0, WORLD_RELOAD(%rdi)
        movl    $1, WORLD_IS_INSIDE(%rdi)
        mov     WORLD_IRET+16(%rdi), %eax
        and     $0x204000, %eax         /* ID, NT */
        push    %rax
        popfq
        mov     %rsi, %rsp              /* the frame: what a handler's return address has been popped off */
        mov     $15, %eax               /* rt_sigreturn */
        syscall
        ud2                             /* it does not return */
        .size   trap_enter_by_frame, . - trap_enter_by_frame

/*
 * Signal handlers: rdi = signal number, rsi = siginfo, rdx = ucontext; RSP is on the alternate stack.
 *
 * The kernel gives a handler its code and stack segment, clears DF, TF and RF, and resets the FPU. What it leaves as the
 * guest had it, and C cannot live with: the FS base (TLS), AC (SMAP aside, misaligned accesses would fault), and NT
 * (the next IRETQ would fault).
 */
        .macro  REPAIR_CPU_STATE
        pushq   $0x2
        popfq                           /* AC, NT, DF = 0 */
        lea     trap_world(%rip), %r8
        cmpl    $0, WORLD_HAS_FSGSBASE(%r8)
        je      8f
        mov     WORLD_HOST_FS_BASE(%r8), %rax
        wrfsbase %rax
        jmp     9f
8:      mov     %rdi, %r9               /* arch_prctl(ARCH_SET_FS): clobbers rax rcx r11; keep the arguments */
        mov     %rsi, %r10
        mov     $158, %eax
        mov     $0x1002, %edi
        mov     WORLD_HOST_FS_BASE(%r8), %rsi
        push    %rdx
        syscall
        pop     %rdx
        mov     %r9, %rdi
        mov     %r10, %rsi
9:
        .endm

        .globl  trap_synchronous_entry
        .hidden trap_synchronous_entry
        .type   trap_synchronous_entry, @function
        .p2align 5
trap_synchronous_entry:
        mov     %fs, %r9d
        push    %r9                     /* also aligns: the kernel leaves RSP = 16n + 8 here, as after a call */
        REPAIR_CPU_STATE
        mov     (%rsp), %ecx            /* 4th argument: the guest's FS selector */
        call    trap_capture_synchronous /* returns only if it was the guest's */
        mov     $WORLD_FAULTED, %eax
        mov     WORLD_HOST_RSP+trap_world(%rip), %rsp
        jmp     trap_leave
        .size   trap_synchronous_entry, . - trap_synchronous_entry

        .globl  trap_asynchronous_entry
        .hidden trap_asynchronous_entry
        .type   trap_asynchronous_entry, @function
        .p2align 5
trap_asynchronous_entry:
        mov     %fs, %r9d
        push    %r9
        REPAIR_CPU_STATE
        mov     (%rsp), %ecx
        call    trap_capture_asynchronous
        test    %eax, %eax
        jnz     3f
        add     $8, %rsp
        ret                             /* the monitor was interrupted: back to it by rt_sigreturn */
3:      mov     $WORLD_INTERRUPTED, %eax
        mov     WORLD_HOST_RSP+trap_world(%rip), %rsp
        jmp     trap_leave
        .size   trap_asynchronous_entry, . - trap_asynchronous_entry

/* The common way back into the monitor: eax = WORLD_*, rsp = the value trap_enter saved. */
        .type   trap_leave, @function
trap_leave:
        pop     %r15
        pop     %r14
        pop     %r13
        pop     %r12
        pop     %rbp
        pop     %rbx
        ret
        .size   trap_leave, . - trap_leave

        .section .rodata
        .p2align 2
default_mxcsr:
        .long   0x1f80

        .section .note.GNU-stack, "", @progbits
