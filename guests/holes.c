/*
 * holes: the sensitive instructions that ring 3 may execute, and what they give away or get wrong.
 *
 * The lesson: an instruction is *sensitive* if it reads or changes what the monitor must control. Popek and
 * Goldberg: a machine can be virtualized by trapping if every sensitive instruction is privileged. On the
 * i386 these are not (Robin and Irvine, 2000, found seventeen). Run in ring 3 they do not trap: some tell the
 * truth about the host, some quietly do nothing. This guest compares what it sees with what it set up itself:
 * `same`, or `HOLE`.
 *
 * `ring3 run --holes expose` shows the holes of the host's ring 3; with `--holes patch`, and on a real
 * machine, there is none. The exit value is their number. Two instructions that can end the machine are tried
 * only by request, with the words `sysenter` and `far` on the command line. Read next: faults.c.
 */
#include "guest.h"

static unsigned n_looks, n_holes;

static void look(const char *what, uint32_t saw, uint32_t hardware)
{
    n_looks++;
    if (saw == hardware) {
        print("same  %08x  %s\n", saw, what);
    } else {
        n_holes++;
        print("HOLE  %08x  %s: hardware has %08x\n", saw, what, hardware);
    }
}

/* The same for an instruction that ought to trap. */
static void look_trap(const char *what, struct trap trap, uint32_t vector, uint32_t error)
{
    n_looks++;
    if (trap.vector == vector && trap.error == error) {
        print("same  %s(%x)    %s\n", trap_name(vector), error, what);
    } else {
        n_holes++;
        print("HOLE  %s  %s: hardware gives %s(%x)\n", trap_name(trap.vector), what, trap_name(vector),
              error);
    }
}

/* ---- the interrupt flag ---- */

static volatile unsigned ticks;

static void on_timer(struct trap_frame *frame)
{
    (void)frame;
    ticks++;
    pic_eoi(IRQ_TIMER);
}

static uint32_t push_flags(void)
{
    uint32_t flags;
    __asm__ volatile("pushf; pop %0" : "=r"(flags) : : "memory");
    return flags;
}

static void pop_flags(uint32_t flags)
{
    __asm__ volatile("push %0; popf; nop" : : "r"(flags) : "memory", "cc");
}

/* Does the timer's interrupt come, or does the controller keep the request? */
static uint32_t request_arrives(void)
{
    enum { POLL_LIMIT = 100000 };
    unsigned before = ticks;

    pit_one_shot(50);
    for (unsigned i = 0; i < POLL_LIMIT && ticks == before && !(pic_irr(PIC1) & 1 << IRQ_TIMER); i++)
        ;
    return ticks != before;
}

USER_CODE(user_push_flags, "pushf\n\tpop %eax")
USER_CODE(user_pop_no_flags, "push $0x3002\n\tpopf") /* IOPL 3, IF clear */

static void look_at_flags(void)
{
    trap_set_handler(IRQ_BASE + IRQ_TIMER, on_timer);
    pic_init();
    pic_unmask(IRQ_TIMER);

    cli();
    look("pushf after cli: IF", push_flags() & EFLAGS_IF, 0);
    sti();
    look("pushf after sti: IF", push_flags() & EFLAGS_IF, EFLAGS_IF);
    cli();
    pop_flags(EFLAGS_FIXED | EFLAGS_IF);
    look("popf sets IF: the timer's interrupt comes", request_arrives(), 1);
    sti();
    pop_flags(EFLAGS_FIXED);
    look("popf clears IF: it does not", request_arrives(), 0);
    sti();
    cli();
    pop_flags(EFLAGS_FIXED | EFLAGS_IOPL3);
    look("popf sets IOPL, and pushf shows it", push_flags() & EFLAGS_IOPL3, EFLAGS_IOPL3);
    pop_flags(EFLAGS_FIXED);

    pic_mask(IRQ_TIMER);
    user_stack[1023] = (uintptr_t)user_return;
    struct trap trap = probe_user_with(user_push_flags, user_stack_top() - 4, EFLAGS_IOPL3);
    look("ring 3, IF clear, IOPL 3: pushf shows them", trap.registers.eax & (EFLAGS_IOPL3 | EFLAGS_IF),
         EFLAGS_IOPL3);
    trap = probe_user_with(user_pop_no_flags, user_stack_top() - 4, EFLAGS_IOPL3 | EFLAGS_IF);
    look("ring 3, IF set, IOPL 3: popf clears IF", trap.eflags & EFLAGS_IF, 0);
    trap = probe_user_with(user_pop_no_flags, user_stack_top() - 4, EFLAGS_IF);
    look("ring 3, IF set, IOPL 0: popf does not", trap.eflags & EFLAGS_IF, EFLAGS_IF);
}

/* ---- the tables and the machine status word ---- */

static USER_DATA struct table_register stored_table;
USER_CODE(user_sidt, "sidt stored_table")
USER_CODE(user_str, "str %eax")
USER_CODE(user_smsw, "smsw %eax")

static void look_at_tables(void)
{
    uint32_t selector;

    __asm__ volatile("sgdt %0" : "=m"(stored_table));
    look("sgdt: base", stored_table.base, (uintptr_t)gdt);
    look("sgdt: limit", stored_table.limit, sizeof gdt - 1);
    __asm__ volatile("sidt %0" : "=m"(stored_table));
    look("sidt: base", stored_table.base, (uintptr_t)idt);
    look("sidt: limit", stored_table.limit, sizeof idt - 1);
    stored_table = (struct table_register){0, 0};
    probe_user(user_sidt);
    look("ring 3: sidt: base", stored_table.base, (uintptr_t)idt);

    static uint64_t ldt[1];
    __asm__ volatile("sldt %0" : "=r"(selector));
    look("sldt, no LDT", selector & 0xffff, 0);
    gdt[SEL_FREE / 8] = descriptor((uintptr_t)ldt, sizeof ldt - 1, DESC_LDT);
    __asm__ volatile("lldt %0" : : "r"((uint16_t)SEL_FREE));
    __asm__ volatile("sldt %0" : "=r"(selector));
    look("sldt", selector & 0xffff, SEL_FREE);
    __asm__ volatile("lldt %0" : : "r"((uint16_t)0));
    __asm__ volatile("str %0" : "=r"(selector));
    look("str", selector & 0xffff, SEL_TSS);
    look("ring 3: str", probe_user(user_str).registers.eax & 0xffff, SEL_TSS);

    __asm__ volatile("smsw %0" : "=r"(selector));
    look("smsw", selector & 0xffff, read_cr0() & 0xffff);
    write_cr0(read_cr0() | CR0_TS);
    __asm__ volatile("smsw %0" : "=r"(selector));
    look("smsw with TS set", selector & 0xffff, read_cr0() & 0xffff);
    look("ring 3: smsw with TS set", probe_user(user_smsw).registers.eax & 0xffff, read_cr0() & 0xffff);
    __asm__ volatile("clts");
}

/* ---- segment registers and descriptors ---- */

SNIPPETS_BEGIN(readers);
SNIPPET(readers, kernel, "mov %cs, %eax");
SNIPPET(readers, kernel, "mov %ss, %eax");
SNIPPET(readers, kernel, "mov %ds, %eax");
SNIPPET(readers, kernel, "mov %es, %eax");
SNIPPET(readers, kernel, "mov %fs, %eax");
SNIPPET(readers, kernel, "push %cs; pop %eax");
SNIPPET(readers, kernel, "push %ss; pop %eax");
SNIPPET(readers, kernel, "push %ds; pop %eax");
SNIPPET(readers, kernel, "push %gs; pop %eax");
SNIPPETS_END(readers);

USER_CODE(user_read_cs, "mov %cs, %eax")
USER_CODE(user_push_ss, "push %ss\n\tpop %eax")

/* eax = the rights or limit, or 0 if ZF says no; for verr and verw, ZF. ebx = the selector. */
CODE(load_rights, "xor %eax, %eax\n\tlar %ebx, %eax\n\tjz 1f\n\txor %eax, %eax\n1:")
CODE(load_limit, "xor %eax, %eax\n\tlsl %ebx, %eax\n\tjz 1f\n\txor %eax, %eax\n1:")
CODE(verify_read, "xor %eax, %eax\n\tverr %bx\n\tsetz %al")
CODE(verify_write, "xor %eax, %eax\n\tverw %bx\n\tsetz %al")
USER_CODE(user_load_rights, "xor %eax, %eax\n\tlar %ebx, %eax\n\tjz 1f\n\txor %eax, %eax\n1:")
USER_CODE(user_verify_read, "xor %eax, %eax\n\tverr %bx\n\tsetz %al")

static uint32_t ask(struct trap (*probe)(void (*)(void)), void (*code)(void), uint32_t selector)
{
    probe_registers.ebx = selector;
    return probe(code).registers.eax;
}

/* What LAR defines (SDM Vol. 2), without the accessed bit. */
enum { RIGHTS_MASK = 0xf0fe00 };

static void look_at_segments(void)
{
    load_fs(SEL_KERNEL_DATA); /* they became null on the way to ring 3 */
    __asm__ volatile("mov %0, %%gs" : : "r"(SEL_KERNEL_DATA));
    for (const struct snippet *s = readers; s != readers_end; s++) {
        bool is_code = s->text[5] == 'c' || s->text[6] == 'c';
        look(s->text, probe_kernel(s->code).registers.eax & 0xffff,
             is_code ? SEL_KERNEL_CODE : SEL_KERNEL_DATA);
    }
    look("ring 3: mov %cs, %eax", probe_user(user_read_cs).registers.eax & 0xffff, SEL_USER_CODE);
    look("ring 3: push %ss", probe_user(user_push_ss).registers.eax & 0xffff, SEL_USER_DATA);

    gdt[SEL_SPARE / 8] = descriptor(0, 0x12345, DESC_DATA);
    look("lar kernel code", ask(probe_kernel, load_rights, SEL_KERNEL_CODE) & RIGHTS_MASK, 0xc09a00);
    look("lar user data", ask(probe_kernel, load_rights, SEL_USER_DATA) & RIGHTS_MASK, 0xc0f200);
    look("lar a TSS", ask(probe_kernel, load_rights, SEL_TSS) & RIGHTS_MASK, 0x8a00);
    look("lar nothing", ask(probe_kernel, load_rights, 0x70) & RIGHTS_MASK, 0);
    look("lsl kernel data", ask(probe_kernel, load_limit, SEL_KERNEL_DATA), 0xffffffff);
    look("lsl a small segment", ask(probe_kernel, load_limit, SEL_SPARE), 0x12345);
    look("verr kernel code", ask(probe_kernel, verify_read, SEL_KERNEL_CODE), 1);
    look("verw kernel code", ask(probe_kernel, verify_write, SEL_KERNEL_CODE), 0);
    look("verw kernel data", ask(probe_kernel, verify_write, SEL_KERNEL_DATA), 1);
    look("ring 3: lar user code", ask(probe_user, user_load_rights, SEL_USER_CODE) & RIGHTS_MASK, 0xc0fa00);
    look("ring 3: lar kernel data", ask(probe_user, user_load_rights, SEL_KERNEL_DATA) & RIGHTS_MASK, 0);
    look("ring 3: verr user data", ask(probe_user, user_verify_read, SEL_USER_DATA), 1);
    gdt[SEL_SPARE / 8] = descriptor(0, 0xffffffff, DESC_DATA);
}

/* ---- selectors that the host knows ---- */

CODE(load_fs_ebx, "mov %ebx, %fs")
CODE(pop_gs_ebx, "push %ebx\n\tpop %gs")
CODE(lgs_ebx, "push %ebx\n\tpush $0\n\tlgs (%esp), %eax\n\tadd $8, %esp")
USER_CODE(user_load_fs_ebx, "mov %ebx, %fs")
CODE(read_fs, "mov %fs:0, %eax")

static struct trap load(void (*code)(void), uint32_t selector)
{
    probe_registers.ebx = selector;
    struct trap trap = probe_kernel(code);
    load_fs(SEL_KERNEL_DATA);
    __asm__ volatile("mov %0, %%gs" : : "r"(SEL_KERNEL_DATA));
    return trap;
}

/* Linux gives every process 0x23, 0x2b and 0x33 (flat segments) and 0x7b. In this GDT they are other things.
 */
static void look_at_selectors(void)
{
    static const uint32_t marker = 0x600dcafe;

    gdt[0x20 / 8] = descriptor(0, 0xffffffff, (DESC_DATA | DESC_USER) & ~DESC_PRESENT);
    gdt[0x30 / 8] = gate(SEL_KERNEL_CODE, 0, DESC_CALL_GATE | DESC_USER);
    look_trap("mov fs, 0x23: absent", load(load_fs_ebx, 0x23), VECTOR_NP, 0x20);
    look_trap("mov fs, 0x2b: a TSS", load(load_fs_ebx, 0x2b), VECTOR_GP, 0x28);
    look_trap("pop gs, 0x33: a call gate", load(pop_gs_ebx, 0x33), VECTOR_GP, 0x30);
    look_trap("lgs, 0x7b: no descriptor", load(lgs_ebx, 0x7b), VECTOR_GP, 0x78);

    probe_registers.ebx = 0x2b;
    look_trap("ring 3: mov fs, 0x2b: a TSS", probe_user(user_load_fs_ebx), VECTOR_GP, 0x28);
    uint32_t loaded = 0;
    for (unsigned i = 0; i < 64; i++) { /* TI set, RPL 3 */
        probe_registers.ebx = i * 8 + 7;
        loaded += probe_user(user_load_fs_ebx).vector == NO_TRAP;
    }
    look("ring 3: selectors of an LDT that load, and there is no LDT", loaded, 0);

    gdt[0x20 / 8] = descriptor((uintptr_t)&marker, 3, DESC_DATA | DESC_USER);
    load_fs(0x23);
    struct trap trap = probe_kernel(read_fs);
    load_fs(SEL_KERNEL_DATA);
    look("mov fs, 0x23: a segment of this guest, read through it", trap.registers.eax, marker);
}

/* ---- the FPU, and instructions that this processor does not have ---- */

CODE(fpu, "fnop")
CODE(fpu_wait, "fwait")
CODE(mmx, "movd %eax, %mm0")
CODE(sse, "xorps %xmm0, %xmm0")
CODE(avx, ".byte 0xc5, 0xf8, 0x77") /* vzeroupper */
CODE(xgetbv, "xor %ecx, %ecx\n\t.byte 0x0f, 0x01, 0xd0")
CODE(rdrand, ".byte 0x0f, 0xc7, 0xf0")

static struct trap with_cr0(uint32_t set, void (*code)(void))
{
    uint32_t cr0 = read_cr0();
    write_cr0((cr0 & ~(uint32_t)(CR0_TS | CR0_EM | CR0_MP)) | set);
    struct trap trap = probe_kernel(code);
    write_cr0(cr0);
    return trap;
}

static void look_at_fpu(void)
{
    look_trap("fnop with CR0.TS", with_cr0(CR0_TS, fpu), VECTOR_NM, 0);
    look_trap("fnop with CR0.EM", with_cr0(CR0_EM, fpu), VECTOR_NM, 0);
    look_trap("fwait with CR0.TS and CR0.MP", with_cr0(CR0_TS | CR0_MP, fpu_wait), VECTOR_NM, 0);
    look_trap("movd to mm0 with CR0.TS", with_cr0(CR0_TS, mmx), VECTOR_NM, 0);
    look_trap("movd to mm0 with CR0.EM", with_cr0(CR0_EM, mmx), VECTOR_UD, 0);
    write_cr4(read_cr4() & ~(uint32_t)CR4_OSFXSR);
    look_trap("xorps without CR4.OSFXSR", with_cr0(0, sse), VECTOR_UD, 0);
    look_trap("vzeroupper without CR4.OSXSAVE", with_cr0(0, avx), VECTOR_UD, 0);
    struct trap trap = with_cr0(0, xgetbv);
    look_trap("xgetbv without CR4.OSXSAVE", trap, VECTOR_UD, 0); /* its eip is 2 bytes in */
}

/* CPUID itself cannot be compared with anything; but RDRAND must be what CPUID says. */
static void look_at_cpuid(void)
{
    enum { CPUID_1_ECX_RDRAND = 1 << 30 };
    uint32_t eax = 0, vendor[3], ecx, edx;

    __asm__ volatile("cpuid" : "+a"(eax), "=b"(vendor[0]), "=d"(vendor[1]), "=c"(vendor[2]));
    print("      cpuid: vendor ");
    for (unsigned i = 0; i < 12; i++)
        print("%c", (char)(vendor[i / 4] >> i % 4 * 8));
    eax = 1;
    __asm__ volatile("cpuid" : "+a"(eax), "=c"(ecx), "=d"(edx) : : "ebx");
    print(", signature %08x, features %08x %08x\n", eax, edx, ecx);
    if (!(ecx & CPUID_1_ECX_RDRAND))
        look_trap("rdrand, which cpuid does not have", with_cr0(0, rdrand), VECTOR_UD, 0);
}

/* ---- by request ---- */

enum { MSR_SYSENTER_CS = 0x174, MSR_SYSENTER_ESP, MSR_SYSENTER_EIP };
extern uint8_t sysenter_target[];
__asm__("sysenter_target: int $0x31");
USER_CODE(user_sysenter, "sysenter")
CODE(far_jump_0x23, "ljmp $0x23, $0")
CODE(iret_to_0x33,
     "push $0x43\n\tpush $user_stack + 4096\n\tpush $2\n\tpush $0x33\n\tpush $user_return\n\tiret")

static void look_at_the_dangerous(void)
{
    if (has_option("sysenter")) {
        write_msr(MSR_SYSENTER_CS, SEL_KERNEL_CODE);
        write_msr(MSR_SYSENTER_ESP, user_stack_top());
        write_msr(MSR_SYSENTER_EIP, (uintptr_t)sysenter_target);
        struct trap trap = probe_user(user_sysenter);
        look("sysenter: arrives at the address in the MSR", trap.eip, (uintptr_t)sysenter_target + 2);
        look("sysenter: at CPL 0", trap.cs & 3, 0);
    }
    if (has_option("far")) {
        gdt[0x20 / 8] = descriptor(0, 0xffffffff, (DESC_CODE | DESC_USER) & ~DESC_PRESENT);
        look_trap("far jump to 0x23, a segment of ring 3", probe_kernel(far_jump_0x23), VECTOR_GP, 0x20);
        gdt[0x30 / 8] = descriptor(0, 0xffffffff, DESC_CODE | DESC_USER);
        look("iret to 0x33, the code of ring 3 here", probe_kernel(iret_to_0x33).cs, 0x33);
    }
}

void guest_main(void)
{
    look_at_flags();
    look_at_tables();
    look_at_segments();
    look_at_fpu();
    look_at_cpuid();
    look_at_selectors();
    look_at_the_dangerous();
    print("%u checks, %u failed: %s\n", n_looks, n_holes,
          n_holes == 0 ? "this machine is as it says" : "each a hole");
    power_off(n_holes);
}
