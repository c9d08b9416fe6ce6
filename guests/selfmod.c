/*
 * selfmod: code that is written while it runs.
 *
 * The lesson: to the i386 code is data, and the processor notices a store to code that it is about to run. An
 * engine that runs guest code natively has this for free. An engine that translates it, or that patches it,
 * must notice every such store, through whatever address it comes, and without drowning when data and code
 * share a page.
 *
 * Stores through another linear address are followed by a serializing instruction, as the SDM asks (Vol.
 * 3, 8.1.3 and 11.6). Read next: README.md, for what else there is.
 */
#include "frames.h"
#include "guest.h"

enum { MOV_EAX_IMM32 = 0xb8, NOP = 0x90, RET = 0xc3 };
enum { CODE_AT = 0x40000000, DATA_AT = 0x50000000 }; /* two addresses of the same frame */

typedef uint32_t function(void);

static uint32_t call(uint32_t address)
{
    function *code = memory_at(address);
    return code();
}

/* mov $value, %eax; ret */
static void write_function(uint32_t address, uint32_t value)
{
    volatile uint8_t *code = memory_at(address);
    code[0] = MOV_EAX_IMM32;
    poke(address + 1, value);
    code[5] = RET;
}

/* ---- code that patches itself ---- */

CODE(patch_next_instruction, "movl $2, 1f + 1\n"
                             "1:\tmov $1, %eax")

/* The immediate of the add grows by one each time round: 1 + 2 + ... + 100. */
CODE(patch_loop, "movl $1, 1f + 1\n\t"
                 "mov $100, %ecx\n\t"
                 "xor %eax, %eax\n"
                 "1:\t.byte 0x05\n\t" /* add $..., %eax */
                 "\t.long 0\n\t"
                 "incl 1b + 1\n\t"
                 "dec %ecx\n\t"
                 "jnz 1b")

/* A jump that is turned around: its displacement changes from 0 to "past the inc". */
CODE(patch_jump, "movb $0, 1f + 1\n\t"
                 "xor %eax, %eax\n\t"
                 "mov $10, %ecx\n"
                 "1:\tjmp 2f\n"
                 "2:\tinc %eax\n\t"
                 "3:\tcmp $5, %ecx\n\t"
                 "jne 4f\n\t"
                 "movb $3b - 2b, 1b + 1\n"
                 "4:\tdec %ecx\n\t"
                 "jnz 1b")

/* A string store that writes over the instructions behind it. */
CODE(patch_by_string, "mov $1f, %edi\n\t"
                      "mov $0x90, %al\n\t"
                      "mov $5, %ecx\n\t"
                      "mov $7, %edx\n\t"
                      "rep stosb\n"
                      "1:\tmov $8, %edx\n\t"
                      "mov %edx, %eax")

static void check_own_code(void)
{
    check_equal("the next instruction", probe_kernel(patch_next_instruction).registers.eax, 2);
    check_equal("an instruction in a loop", probe_kernel(patch_loop).registers.eax, 5050);
    check_equal("the same loop again", probe_kernel(patch_loop).registers.eax, 5050);
    check_equal("a jump, in the middle of its loop", probe_kernel(patch_jump).registers.eax, 6);
    check_equal("instructions under a rep stosb", probe_kernel(patch_by_string).registers.eax, 7);
}

/* ---- generated code ---- */

/* A counter on the page of the code that counts: every store is to a page of code and changes none. */
CODE(count_beside_code, "movl $0, 2f\n\t"
                        "mov $1000, %ecx\n"
                        "1:\tincl 2f\n\t"
                        "dec %ecx\n\t"
                        "jnz 1b\n\t"
                        "mov 2f, %eax\n\t"
                        "ret\n\t"
                        ".balign 4\n"
                        "2:\t.long 0")

static void check_generated_code(void)
{
    uint32_t buffer = frame(0);
    bool right = true;

    for (unsigned i = 0; i < 1000; i++) {
        write_function(buffer, i * 3);
        right = right && call(buffer) == i * 3;
    }
    check("a function generated 1000 times at one address", right);
    right = true;
    for (unsigned i = 0; i < 1000; i++)
        right = right && call(buffer) == 999 * 3;
    check("and called 1000 times", right);

    right = true;
    for (unsigned i = 0; i < 200; i++)
        write_function(buffer + i * 16, i);
    for (unsigned i = 0; i < 200; i++)
        right = right && call(buffer + i * 16) == i;
    check("200 functions in one page", right);
    write_function(buffer + 16, 12345);
    check("one of them changes", call(buffer + 16) == 12345);
    check("and the others do not", call(buffer) == 0 && call(buffer + 32) == 2);

    memcpy(memory_at(buffer + 0x800), memory_at(buffer + 16), 6);
    check_equal("a function copied by rep movsb", call(buffer + 0x800), 12345);
    memset(memory_at(buffer + 0x800), NOP, 8);
    write_function(buffer + 0x808, 77);
    check_equal("filled with nops by rep stosb", call(buffer + 0x800), 77);

    uint32_t across = frame(1) - 3; /* the immediate lies in two pages */
    write_function(across, 0x11223344);
    check_equal("an instruction in two pages", call(across), 0x11223344);
    memset(memory_at(frame(1)), 0x55, 1);
    check_equal("changed in the second", call(across), 0x11553344);
    memset(memory_at(frame(1) - 1), 0x66, 1);
    check_equal("changed in the first", call(across), 0x11556644);

    check_equal("a counter beside its code", probe_kernel(count_beside_code).registers.eax, 1000);

    /* Code that nobody could have seen before it ran: mov %cr0, %eax; ret. */
    static const uint8_t read_cr0_code[] = {0x0f, 0x20, 0xc0, RET};
    memcpy(memory_at(buffer), read_cr0_code, sizeof read_cr0_code);
    check_equal("a generated privileged instruction", call(buffer), read_cr0());
    write_function(buffer, 5);
    check_equal("replaced by an ordinary one", call(buffer), 5);
}

/* ---- code under two addresses ---- */

static void check_aliases(void)
{
    pte *space = space_new();

    space_map(space, CODE_AT, frame(2), PTE_P);
    space_map(space, DATA_AT, frame(2), PTE_P | PTE_W);
    paging_on(space);
    bool right = true;
    for (unsigned i = 0; i < 100; i++) {
        write_function(DATA_AT, i);
        write_cr3(read_cr3()); /* serializes */
        right = right && call(CODE_AT) == i;
    }
    check("code written through another address, 100 times", right);
    write_function(frame(2), 4711);
    write_cr3(read_cr3());
    check("and through a third", call(CODE_AT) == 4711 && call(DATA_AT) == 4711);

    write_function(frame(3), 1000);
    space_map(space, CODE_AT, frame(3), PTE_P);
    invlpg(CODE_AT);
    check_equal("another frame of code under the address", call(CODE_AT), 1000);
    write_function(DATA_AT, 1);
    write_cr3(read_cr3());
    check_equal("the old frame changes unseen", call(CODE_AT), 1000);
    space_map(space, CODE_AT, frame(2), PTE_P);
    invlpg(CODE_AT);
    check_equal("until it is back", call(CODE_AT), 1);
}

/* The same in ring 3, where the page is code, data and stack of a program. */
static USER_DATA uint8_t user_code[16];
USER_CODE(patch_in_ring3, "movb $0xb8, (%ebx)\n\t" /* mov $9, %eax; ret */
                          "movl $9, 1(%ebx)\n\t"
                          "movb $0xc3, 5(%ebx)\n\t"
                          "call *%ebx\n\t"
                          "mov %eax, %edx\n\t"
                          "incl 1(%ebx)\n\t"
                          "call *%ebx")

static void check_ring3(void)
{
    probe_registers.ebx = (uintptr_t)user_code;
    struct trap trap = probe_user(patch_in_ring3);
    check("ring 3 generates a function, calls it, changes it, calls it again",
          trap.vector == NO_TRAP && trap.registers.edx == 9 && trap.registers.eax == 10);
}

void guest_main(void)
{
    check_own_code();
    check_generated_code();
    check_aliases();
    check_ring3();
}
