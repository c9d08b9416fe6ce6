/*
 * escape: a program that tries to get out of its machine, and one that counts on how exactly the machine
 * behaves.
 *
 * The lesson: whatever a monitor does to run a guest leaves traces where a guest can look: selectors of the
 * host's, addresses where the monitor keeps things, system calls, instructions of the host's processor,
 * translations of code that has changed since. A hostile guest tries them all, mostly from ring 3, and each
 * try must end as it would on a PC.
 *
 * Read next: selfmod.c (more about code that changes), holes.c (what an engine that runs code natively gives
 * away).
 */
#include "frames.h"
#include "guest.h"

enum { CODE_AT = 0x40000000, ALIAS_AT = 0x50000000 };
enum { USER_RW = PTE_P | PTE_W | PTE_U };

static pte *space;

/* ---- selectors that mean something on the host: 64-bit Linux has code at 0x23 and 0x33, data at 0x2b ------
 */

USER_CODE(jump_0x23, "ljmp $0x23, $user_return")
USER_CODE(jump_0x33, "ljmp $0x33, $user_return")
USER_CODE(jump_0x2b, "ljmp $0x2b, $user_return")
USER_CODE(call_0x33, "lcall $0x33, $user_return")
USER_CODE(return_0x33, "push $0x33\n\tpush $user_return\n\tlret")
USER_CODE(load_0x2b, "mov $0x2b, %eax\n\tmov %eax, %es")
USER_CODE(load_0x53, "mov $0x53, %eax\n\tmov %eax, %gs")

/* Here 0x20 and 0x30 are empty, and 0x28 is the TSS. */
static void check_far(const char *name, struct trap trap, uint32_t selector)
{
    check(name, trap.vector == VECTOR_GP && trap.error == selector && trap.cs == SEL_USER_CODE);
}

static void check_selectors(void)
{
    if (has_option("far")) {
        check_far("far jump to 23", probe_user(jump_0x23), 0x20);
        check_far("far jump to 33", probe_user(jump_0x33), 0x30);
        check_far("far jump to 2b", probe_user(jump_0x2b), 0x28);
        check_far("far call to 33", probe_user(call_0x33), 0x30);
        check_far("far return to 33", probe_user(return_0x33), 0x30);
        check_far("es = 2b", probe_user(load_0x2b), 0x28);
    }
    check_far("gs = 53, which is nothing here either", probe_user(load_0x53), 0x50);
}

/* ---- addresses where nothing of the guest is
 * --------------------------------------------------------------- */

USER_CODE(jump_ebx, "jmp *%ebx")
USER_CODE(read_ebx, "mov (%ebx), %eax")
USER_CODE(write_ebx, "mov %eax, (%ebx)")
USER_CODE(read_below_ebx, "mov -0x40000000(%ebx), %eax")
USER_CODE(read_scaled, "mov 0x10(%ebx,%ebx,8), %eax")
CODE(kernel_jump_ebx, "jmp *%ebx")

static const uint32_t places[] = {0x00000000, 0x08048000, 0x3ffff000, 0x56555000, 0x7ffff000, 0x80000000,
                                  0xbffff000, 0xc0000000, 0xdeadb000, 0xf7fc1000, 0xfffe0000, 0xfffffff0};

static bool is_fault_at(struct trap trap, uint32_t error, uint32_t address)
{
    return trap.vector == VECTOR_PF && trap.error == error && trap.cr2 == address;
}

static void check_places(void)
{
    bool jumps = true, kernel_jumps = true, reads = true, writes = true;

    for (unsigned i = 0; i < sizeof places / sizeof places[0]; i++) {
        probe_registers.ebx = places[i];
        struct trap trap = probe_user(jump_ebx);
        jumps = jumps && is_fault_at(trap, PF_USER, places[i]) && trap.eip == places[i];
        trap = probe_kernel(kernel_jump_ebx);
        kernel_jumps = kernel_jumps && is_fault_at(trap, 0, places[i]) && trap.eip == places[i];
        trap = probe_user(read_ebx);
        reads = reads && is_fault_at(trap, PF_USER, places[i]) && trap.eip == (uintptr_t)read_ebx;
        trap = probe_user(write_ebx);
        writes = writes && is_fault_at(trap, PF_USER | PF_WRITE, places[i]);
    }
    check("jumps to absent pages, high and low: #PF there", jumps);
    check("the same in ring 0", kernel_jumps);
    check("reads of them", reads);
    check("writes to them", writes);

    poke(frame(0) + 0x20, 0x600df00d);
    probe_registers.ebx = ALIAS_AT + 0x40000020u;
    check_equal("a negative displacement", probe_user(read_below_ebx).registers.eax, 0x600df00d);
    probe_registers.ebx = (0x100000000ull + ALIAS_AT + 0x20 - 0x10) / 9; /* ebx * 9 + 10 wraps at 4 GiB */
    uint32_t wrapped = probe_registers.ebx * 9 + 0x10;
    poke(frame(0) + (wrapped - ALIAS_AT), 0x0ddba11);
    check_equal("a sum that wraps", probe_user(read_scaled).registers.eax, 0x0ddba11);
}

/* ---- system calls of the host's
 * ---------------------------------------------------------------------------- */

USER_CODE(int_0x80, "mov $1, %eax\n\tmov $42, %ebx\n\tint $0x80") /* exit(42), on Linux */
USER_CODE(try_syscall, "mov $60, %eax\n\t.byte 0x0f, 0x05") /* of AMD's processors only, in 32-bit mode */
USER_CODE(try_sysenter, "mov $1, %eax\n\tmov $42, %ebx\n\tmov %esp, %ebp\n\tsysenter")

static void check_system_calls(void)
{
    struct trap trap = probe_user(int_0x80);

    check("int 80 through a gate of ring 0: #GP", trap.vector == VECTOR_GP && trap.error == 0x80 * 8 + 2);
    idt[0x80] = gate(SEL_KERNEL_CODE, (uintptr_t)trap_stubs[0x80], DESC_INTERRUPT_GATE | DESC_USER);
    trap = probe_user(int_0x80);
    check("int 80 through a gate of ring 3: this kernel's", trap.vector == 0x80 && trap.registers.eax == 1);
    if (has_option("sysenter")) {
        trap = probe_user(try_sysenter);
        check("sysenter where SYSENTER_CS is 0: #GP", trap.vector == VECTOR_GP && trap.error == 0);
        check("syscall: #UD", probe_user(try_syscall).vector == VECTOR_UD);
    }
}

/* ---- long instructions
 * ------------------------------------------------------------------------------------- */

USER_CODE(insn_15, ".byte 0x3e, 0x3e, 0x3e, 0x3e, 0x3e, 0x3e, 0x3e, 0x3e, 0x3e, 0x3e\n\tmov $7, %eax")
USER_CODE(insn_16, ".byte 0x3e, 0x3e, 0x3e, 0x3e, 0x3e, 0x3e, 0x3e, 0x3e, 0x3e, 0x3e, 0x3e\n\tmov $7, %eax")
USER_CODE(prefixes, ".byte 0x66, 0x66, 0x2e, 0x36, 0x26, 0x64, 0x65, 0x3e\n\tmov $0x1234, %ax")
USER_CODE(lock_nop, ".byte 0xf0\n\tnop")
USER_CODE(lock_load, ".byte 0xf0\n\tmov (%esp), %eax")

static void check_long(void)
{
    check_equal("15 bytes", probe_user(insn_15).registers.eax, 7);
    check_trap("16 bytes: #GP", probe_user(insn_16), VECTOR_GP, 0, insn_16);
    struct trap trap = probe_user(prefixes);
    check("redundant prefixes, a second 66 too",
          trap.vector == NO_TRAP && (trap.registers.eax & 0xffff) == 0x1234);
    check_trap("LOCK before a nop: #UD", probe_user(lock_nop), VECTOR_UD, 0, lock_nop);
    check_option("lock", "LOCK before a load: #UD", probe_user(lock_load).vector == VECTOR_UD);
}

/* ---- instructions across two pages
 * -------------------------------------------------------------------------- */

/* mov $value, %eax; ret */
static void write_function(uint32_t address, uint32_t value)
{
    volatile uint8_t *code = memory_at(address);
    code[0] = 0xb8;
    poke(address + 1, value);
    code[5] = 0xc3;
}

static struct trap call_user(uint32_t address)
{
    void (*code)(void) = memory_at(address);
    return probe_user(code);
}

static void check_across(void)
{
    const uint32_t at = CODE_AT + PAGE_SIZE - 3;

    write_function(frame(2) - 3, 0x11223344); /* frames 1 and 2 */
    poke(frame(3), 0xc3556677);
    space_map(space, CODE_AT, frame(1), USER_RW);
    space_map(space, CODE_AT + PAGE_SIZE, frame(2), USER_RW);
    check_equal("an instruction in two pages", call_user(at).registers.eax, 0x11223344);
    *space_entry(space, CODE_AT + PAGE_SIZE) = 0;
    invlpg(CODE_AT + PAGE_SIZE);
    struct trap trap = call_user(at);
    check("its second page is gone: #PF there, eip at its start",
          is_fault_at(trap, PF_USER, CODE_AT + PAGE_SIZE) && trap.eip == at);
    space_map(space, CODE_AT + PAGE_SIZE, frame(3), USER_RW);
    invlpg(CODE_AT + PAGE_SIZE);
    poke(frame(3), 0x00c35566);
    check_equal("its second page is another", call_user(at).registers.eax, 0x55663344);
    space_map(space, CODE_AT + PAGE_SIZE, frame(3), PTE_P | PTE_W);
    invlpg(CODE_AT + PAGE_SIZE);
    trap = call_user(at);
    check("its second page is the kernel's: #PF",
          is_fault_at(trap, PF_USER | PF_PRESENT, CODE_AT + PAGE_SIZE) && trap.eip == at);
}

/* ---- code that changes, in ring 3
 * ---------------------------------------------------------------------------- */

static USER_DATA uint8_t own_code[16];

/* Each leaves 9 in eax if the change was seen, and 1 if not. */
USER_CODE(change_next, "mov %ebx, %edi\n\t"
                       "movl $0x000001b8, (%edi)\n\tmovl $0xc300, 4(%edi)\n\t" /* mov $1, %eax; ret */
                       "call *%ebx\n\t"
                       "movb $9, 1(%edi)\n\t"
                       "call *%ebx")
USER_CODE(change_by_string, "mov %ebx, %edi\n\t"
                            "movl $0x000001b8, (%edi)\n\tmovl $0xc300, 4(%edi)\n\t"
                            "call *%ebx\n\t"
                            "push $9\n\tmov %esp, %esi\n\tinc %edi\n\tmov $4, %ecx\n\tcld\n\trep movsb\n\t"
                            "add $4, %esp\n\tcall *%ebx")
/* The code at ebx calls itself changed: movb $9, 8(%ebx); mov $1, %eax; ret. */
USER_CODE(change_itself, "movl $0x087343c6, (%ebx)\n\tmovb $8, 2(%ebx)\n\tmovb $9, 3(%ebx)\n\t"
                         "movl $0x000090b8, 4(%ebx)\n\tmovb $0x90, 4(%ebx)\n\tmovb $0x90, 5(%ebx)\n\t"
                         "movb $0x90, 6(%ebx)\n\tmovb $0xb8, 7(%ebx)\n\tmovl $1, 8(%ebx)\n\t"
                         "movb $0xc3, 12(%ebx)\n\tcall *%ebx")

static void check_changes(void)
{
    probe_registers.ebx = (uintptr_t)own_code;
    check_equal("a store to code that has run", probe_user(change_next).registers.eax, 9);
    check_equal("rep movsb to it", probe_user(change_by_string).registers.eax, 9);
    check_equal("a store to the instructions behind it", probe_user(change_itself).registers.eax, 9);

    space_map(space, CODE_AT, frame(4), PTE_P | PTE_U);
    space_map(space, ALIAS_AT, frame(4), USER_RW);
    invlpg(CODE_AT);
    invlpg(ALIAS_AT);
    bool is_seen = true;
    for (unsigned i = 0; i < 20; i++) {
        write_function(ALIAS_AT, i);
        is_seen = is_seen && call_user(CODE_AT).registers.eax == i; /* IRET serializes */
    }
    check("stores through another address", is_seen);
    bool is_read = true;
    for (unsigned i = 0; i < 20; i++) {
        write_function(ALIAS_AT, i);
        call_user(CODE_AT);
        is_read = is_read && peek(CODE_AT + 1) == i && *(volatile uint8_t *)memory_at(CODE_AT) == 0xb8;
    }
    check("code reads as it was written", is_read);
}

/* What stands here is known; an engine may have put other bytes there. */
CODE(sensitive, "sgdt -8(%esp)\n\tpushf\n\tpop %eax\n\tsmsw %eax\n\tstr %ecx")

static void check_own_bytes(void)
{
    static const uint8_t bytes[] = {0x0f, 0x01, 0x44, 0x24, 0xf8, 0x9c, 0x58,
                                    0x0f, 0x01, 0xe0, 0x0f, 0x00, 0xc9, 0xc3};

    probe_kernel(sensitive);
    check("sensitive instructions of the kernel read as they are",
          memcmp((void *)sensitive, bytes, sizeof bytes) == 0);
}

/* ---- instructions of a newer processor --------------------------------------------------------------------
 */

SNIPPETS_BEGIN(newer);
SNIPPET(newer, user, ".byte 0xc5, 0xf8, 0x77");                   /* vzeroupper */
SNIPPET(newer, user, ".byte 0xc5, 0xf9, 0xef, 0xc0");             /* vpxor */
SNIPPET(newer, user, ".byte 0xc4, 0xe2, 0x7b, 0xf7, 0xc0");       /* shrx */
SNIPPET(newer, user, ".byte 0x62, 0xf1, 0x7d, 0x48, 0xef, 0xc0"); /* EVEX; BOUND of a register */
SNIPPET(newer, user, ".byte 0x0f, 0xc7, 0xf0");                   /* rdrand */
SNIPPET(newer, user, ".byte 0x0f, 0xc7, 0xf8");                   /* rdseed */
SNIPPET(newer, user, ".byte 0xf3, 0x0f, 0xc7, 0xf8");             /* rdpid */
SNIPPET(newer, user, ".byte 0x0f, 0x01, 0xd0");                   /* xgetbv */
SNIPPET(newer, user, ".byte 0x0f, 0x01, 0xf9");                   /* rdtscp */
SNIPPET(newer, user, ".byte 0x0f, 0x01, 0xee");                   /* rdpkru */
SNIPPET(newer, user, ".byte 0xf3, 0x0f, 0xb8, 0xc0");             /* popcnt */
SNIPPET(newer, user, ".byte 0x0f, 0x38, 0x00, 0xc0");             /* pshufb */
SNIPPET(newer, user, ".byte 0xf2, 0x0f, 0x38, 0xf0, 0xc0");       /* crc32 */
SNIPPET(newer, user, ".byte 0x66, 0x0f, 0x3a, 0x0f, 0xc0, 0x01"); /* palignr */
SNIPPET(newer, user, ".byte 0xf3, 0x0f, 0xae, 0xc0");             /* rdfsbase, in 64-bit mode */
SNIPPETS_END(newer);

USER_CODE(lzcnt, "mov $0x100, %eax\n\t.byte 0xf3, 0x0f, 0xbd, 0xc0")
USER_CODE(tzcnt, "mov $0x100, %eax\n\t.byte 0xf3, 0x0f, 0xbc, 0xc0")

static void check_newer(void)
{
    for (const struct snippet *snippet = newer; snippet < newer_end; snippet++)
        check_trap(snippet->text, probe_user(snippet->code), VECTOR_UD, 0, snippet->code);
    check_equal("lzcnt is bsr here", probe_user(lzcnt).registers.eax, 8);
    check_equal("tzcnt is bsf here", probe_user(tzcnt).registers.eax, 8);
}

void guest_main(void)
{
    frames_mark();
    space = space_new();
    space_map(space, ALIAS_AT, frame(0), USER_RW);
    paging_on(space);
    check_selectors();
    check_places();
    check_system_calls();
    check_long();
    check_across();
    check_changes();
    check_own_bytes();
    check_newer();
}
