/*
 * realmode.S: from protected mode to real mode and back.
 *
 * What lies between real_begin and real_end is copied to physical 0x40000, where real mode can reach it, and runs
 * there as CS = 4000 in real mode and as CS = SEL_CODE16 in protected mode. The way there loads the registers from
 * struct real of realmode.c, whose offsets are repeated here; then the piece of code under test runs at 4000:1000.
 * Each way out of it is an interrupt: all 256 vectors lead to real_stubs, which note the registers and come back.
 *
 * Read next: realmode.c.
 */
#define KERNEL_CODE     0x08
#define KERNEL_DATA     0x10
#define SEL_CODE16      0x48
#define CODE            0x4000
#define SNIPPET         0x1000

#define STATE(offset)   %cs:real_state - real_begin + (offset)
#define EAX             0
#define ECX             4
#define EDX             8
#define EBX             12
#define ESP             16
#define EBP             20
#define ESI             24
#define EDI             28
#define EFLAGS          32
#define ES              36
#define SS              38
#define DS              40
#define FS              42
#define GS              44
#define VECTOR          46
#define IP              48
#define CS              50
#define FLAGS           52
#define IDTR            54
#define STATE_SIZE      60

        .section .rodata
        .code16
        .globl  real_begin, real_stubs, real_state, real_end
real_begin:                             /* protected mode, 16-bit code */
        mov     %cr0, %eax
        and     $~1, %al
        mov     %eax, %cr0
        ljmp    $CODE, $1f - real_begin
1:      lidtl   STATE(IDTR)
        mov     STATE(SS), %ss
        mov     STATE(ESP), %esp
        pushl   STATE(EFLAGS)
        popfl
        mov     STATE(ES), %es
        mov     STATE(DS), %ds
        mov     STATE(FS), %fs
        mov     STATE(GS), %gs
        mov     STATE(EAX), %eax
        mov     STATE(ECX), %ecx
        mov     STATE(EDX), %edx
        mov     STATE(EBX), %ebx
        mov     STATE(EBP), %ebp
        mov     STATE(ESI), %esi
        mov     STATE(EDI), %edi
        ljmp    $CODE, $SNIPPET

        .balign 8
real_stubs:                             /* one every 8 bytes */
        .set    vector, 0
        .rept   256
        .balign 8
        pushw   $vector
        jmp     real_leave
        .set    vector, vector + 1
        .endr
real_leave:
        mov     %eax, STATE(EAX)
        mov     %ecx, STATE(ECX)
        mov     %edx, STATE(EDX)
        mov     %ebx, STATE(EBX)
        mov     %ebp, STATE(EBP)
        mov     %esi, STATE(ESI)
        mov     %edi, STATE(EDI)
        mov     %es, STATE(ES)
        mov     %ss, STATE(SS)
        mov     %ds, STATE(DS)
        mov     %fs, STATE(FS)
        mov     %gs, STATE(GS)
        popw    STATE(VECTOR)
        popw    STATE(IP)
        popw    STATE(CS)
        popw    STATE(FLAGS)
        mov     %esp, STATE(ESP)
        mov     %cr0, %eax
        or      $1, %al
        mov     %eax, %cr0
        ljmpl   $KERNEL_CODE, $real_return
        .balign 4
real_state:
        .skip   STATE_SIZE
real_end:
        .code32

        .text
        .globl  real_run                /* (selector): real mode inherits this segment in DS, ES, SS, FS, GS */
        .type   real_run, @function
real_run:
        push    %ebp
        push    %ebx
        push    %esi
        push    %edi
        mov     %esp, real_esp
        mov     20(%esp), %eax
        mov     %eax, %ds
        mov     %eax, %es
        mov     %eax, %ss
        mov     %eax, %fs
        mov     %eax, %gs
        ljmp    $SEL_CODE16, $0
real_return:
        mov     $KERNEL_DATA, %eax
        mov     %eax, %ds
        mov     %eax, %es
        mov     %eax, %ss
        mov     %eax, %fs
        mov     %eax, %gs
        mov     real_esp, %esp
        cld
        pop     %edi
        pop     %esi
        pop     %ebx
        pop     %ebp
        ret
        .size   real_run, . - real_run

        .bss
        .balign 4
real_esp:
        .skip   4

        .section .note.GNU-stack, "", @progbits
