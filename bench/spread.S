/*
 * A guest that costs the monitor as much memory as it can: 64 MiB through 4 KiB entries, every second page written and
 * then the ones between read, so that each page is a mapping of its own. Then it says so and waits.
 */
#define DIRECTORY 0x200000
#define TABLES    0x201000
#define N_TABLES  16
#define PAGE_SIZE 0x1000
#define N_BYTES   (N_TABLES << 22)
#define FIRST     0x400000

        .section .multiboot, "a"
        .balign 4
        .long 0x1badb002, 0, -0x1badb002

        .text
        .globl  _start
_start:
        mov     $TABLES, %edi
        mov     $0x7, %eax              /* P, W, U; A and D clear */
1:      mov     %eax, (%edi)
        add     $4, %edi
        add     $PAGE_SIZE, %eax
        cmp     $(N_BYTES + 7), %eax
        jne     1b

        mov     $DIRECTORY, %edi
        mov     $(TABLES + 7), %eax
        mov     $N_TABLES, %ecx
2:      mov     %eax, (%edi)
        add     $4, %edi
        add     $PAGE_SIZE, %eax
        dec     %ecx
        jnz     2b

        mov     $DIRECTORY, %eax
        mov     %eax, %cr3
        mov     %cr0, %eax
        or      $0x80000000, %eax       /* PG */
        mov     %eax, %cr0

        mov     $FIRST, %eax
3:      movb    $1, (%eax)
        add     $(2 * PAGE_SIZE), %eax
        cmp     $N_BYTES, %eax
        jb      3b
        mov     $(FIRST + PAGE_SIZE), %eax
4:      testb   $1, (%eax)
        add     $(2 * PAGE_SIZE), %eax
        cmp     $N_BYTES, %eax
        jb      4b

        mov     $'!', %al
        out     %al, $0xe9
        sti                             /* with interrupts off, HLT would end the run */
5:      hlt
        jmp     5b

        .section .note.GNU-stack, "", @progbits
