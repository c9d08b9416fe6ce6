/*
 * privileged: every privileged instruction of the i386, once in the kernel and once in ring 3.
 *
 * The lesson: an instruction is *privileged* (Popek and Goldberg, 1974) if it works at CPL 0 and traps at
 * CPL 3. A monitor that runs its guest in ring 3 gets control at each of them, for nothing: the processor
 * does the watching. Part 1 shows that each has its effect at CPL 0. Part 2 shows that ring 3 gets #GP for
 * each, with nothing done.
 *
 * Read next: holes.c, for the instructions that ought to be privileged and are not.
 */
#include "guest.h"

/* ---- part 1: at CPL 0 ---- */

static volatile unsigned ticks;

static void on_timer(struct trap_frame *frame)
{
    (void)frame;
    ticks++;
    pic_eoi(IRQ_TIMER);
}

static void check_interrupt_flag(void)
{
    trap_set_handler(IRQ_BASE + IRQ_TIMER, on_timer);
    pic_init();
    pic_unmask(IRQ_TIMER);

    cli();
    pit_one_shot(100);
    check("cli: the timer requests its interrupt", pic_wait_request(IRQ_TIMER));
    check("cli: and does not get it", ticks == 0);
    sti();
    check("sti: now it does", ticks == 1);
    cli();

    pit_one_shot(10000);
    wait_for_interrupt();
    check("hlt: sleeps until the interrupt", ticks == 2);
    pic_mask(IRQ_TIMER);
}

/* The UART's scratch register (0x3ff) remembers a byte; its divisor (0x3f8-0x3f9, behind DLAB) remembers two.
 */
static void check_ports(void)
{
    enum { COM1 = 0x3f8, LCR = COM1 + 3, MCR = COM1 + 4, SCRATCH = COM1 + 7, DLAB_8N1 = 0x83, N81 = 0x03 };
    uint16_t divisor;
    uint32_t four_registers;

    out8(SCRATCH, 0x5a);
    check_equal("out dx, al; in al, dx", in8(SCRATCH), 0x5a);

    uint8_t mask = in8(PIC1 + 1), read_back;
    __asm__ volatile("outb %%al, $0x21; mov $0, %%al; inb $0x21, %%al"
                     : "=a"(read_back)
                     : "a"((uint8_t)~mask));
    out8(PIC1 + 1, mask);
    check_equal("out 0x21, al; in al, 0x21", read_back, (uint8_t)~mask);

    out8(LCR, DLAB_8N1); /* 16 bits reach two 8-bit registers; restored before the next character */
    __asm__ volatile("outw %%ax, %%dx; xor %%eax, %%eax; inw %%dx, %%ax"
                     : "=a"(divisor)
                     : "a"(0x1234), "d"(COM1));
    __asm__ volatile("outw %%ax, %%dx" : : "a"(1), "d"(COM1));
    out8(LCR, N81);
    check_equal("out dx, ax; in ax, dx", divisor, 0x1234);

    __asm__ volatile("outl %%eax, %%dx; xor %%eax, %%eax; inl %%dx, %%eax"
                     : "=a"(four_registers)
                     : "a"(0xc300000b), "d"(MCR)); /* 0x0b: the modem control register as it was */
    check_equal("out dx, eax; in eax, dx", four_registers & 0xff0000ff, 0xc300000b);

    static uint8_t bytes[4] = {0x11, 0x22, 0x33, 0x44};
    uint8_t *at = bytes;
    uint32_t count = 3;
    __asm__ volatile("outsb" : "+S"(at) : "d"(SCRATCH) : "memory");
    check("outsb: the port has the byte, esi is past it", in8(SCRATCH) == 0x11 && at == bytes + 1);
    __asm__ volatile("rep outsb" : "+S"(at), "+c"(count) : "d"(SCRATCH) : "memory");
    check("rep outsb: the last byte stays, ecx is 0", in8(SCRATCH) == 0x44 && at == bytes + 4 && count == 0);
    at = bytes;
    __asm__ volatile("insb" : "+D"(at) : "d"(SCRATCH) : "memory");
    check("insb: memory has the byte, edi is past it", bytes[0] == 0x44 && at == bytes + 1);
    at = bytes + 3;
    count = 3;
    __asm__ volatile("std; rep insb; cld" : "+D"(at), "+c"(count) : "d"(SCRATCH) : "memory");
    check("std; rep insb: memory filled downwards",
          bytes[1] == 0x44 && bytes[2] == 0x44 && bytes[3] == 0x44 && at == bytes && count == 0);
}

CODE(int_0x40, "int $0x40")
CODE(lldt_not_an_ldt, "mov $0x10, %eax\n\tlldt %ax")
CODE(lldt_absent, "mov $0x58, %eax\n\tlldt %ax")
CODE(ltr_busy, "mov $0x28, %eax\n\tltr %ax")

static void check_tables(void)
{
    static uint64_t other_gdt[GDT_ENTRIES], other_idt[256], ldt[2];
    static struct tss other_tss;
    static const uint32_t marker = 0x600dcafe;
    const struct table_register gdtr = {sizeof gdt - 1, (uintptr_t)gdt},
                                idtr = {sizeof idt - 1, (uintptr_t)idt};
    const struct table_register other_gdtr = {sizeof other_gdt - 1, (uintptr_t)other_gdt};
    const struct table_register other_idtr = {sizeof other_idt - 1, (uintptr_t)other_idt};

    memcpy(other_gdt, gdt, sizeof gdt);
    other_gdt[SEL_SPARE / 8] = descriptor((uintptr_t)&marker, 3, DESC_DATA);
    load_gdt(&other_gdtr);
    load_fs(SEL_SPARE);
    check_equal("lgdt: the same selector is another segment", read_fs32(0), marker);
    load_gdt(&gdtr);
    check_equal("lgdt: a loaded segment keeps its hidden part", read_fs32(0), marker);
    load_fs(SEL_SPARE);
    check_equal("lgdt: and loses it when loaded again", read_fs32((uintptr_t)&marker), marker);

    memcpy(other_idt, idt, sizeof idt);
    other_idt[0x40] = idt[0x41];
    load_idt(&other_idtr);
    check_equal("lidt: int 0x40 arrives elsewhere", probe_kernel(int_0x40).vector, 0x41);
    load_idt(&idtr);
    check_equal("lidt: and here again", probe_kernel(int_0x40).vector, 0x40);

    gdt[SEL_FREE / 8] = descriptor((uintptr_t)ldt, sizeof ldt - 1, DESC_LDT);
    gdt[SEL_FREE / 8 + 1] = descriptor((uintptr_t)ldt, sizeof ldt - 1, DESC_LDT & ~DESC_PRESENT);
    __asm__ volatile("lldt %0" : : "r"((uint16_t)SEL_FREE));
    check("lldt: an LDT is accepted", true);
    struct trap trap = probe_kernel(lldt_not_an_ldt);
    check("lldt: a data segment is #GP(selector)", trap.vector == VECTOR_GP && trap.error == SEL_KERNEL_DATA);
    trap = probe_kernel(lldt_absent);
    check("lldt: an absent LDT is #NP(selector)", trap.vector == VECTOR_NP && trap.error == SEL_FREE + 8);
    __asm__ volatile("lldt %0" : : "r"((uint16_t)0));
    check("lldt: no LDT at all is accepted", true);

    gdt[SEL_OTHER_TSS / 8] = descriptor((uintptr_t)&other_tss, sizeof other_tss - 1, DESC_TSS);
    load_task_register(SEL_OTHER_TSS);
    check_equal("ltr: marks the TSS busy", gdt[SEL_OTHER_TSS / 8] >> 40 & 0xff, DESC_TSS | 2);
    trap = probe_kernel(ltr_busy);
    check("ltr: a busy TSS is #GP(selector)", trap.vector == VECTOR_GP && trap.error == SEL_TSS);
    gdt[SEL_TSS / 8] &= ~(2ull << 40);
    load_task_register(SEL_TSS);
}

#define CHECK_DEBUG_REGISTER(n)                                                                              \
    do {                                                                                                     \
        uint32_t value;                                                                                      \
        __asm__ volatile("mov %1, %%dr" #n "; mov %%dr" #n ", %0"                                            \
                         : "=r"(value)                                                                       \
                         : "r"(0x1000 * (n) + 0x123));                                                       \
        check_equal("mov dr" #n ", reg; mov reg, dr" #n, value, 0x1000 * (n) + 0x123);                       \
    } while (0)

CODE(read_dr4, "mov %dr4, %eax")
CODE(write_cr4_eax, "mov %eax, %cr4")

/* DR4 and DR5 are other names of DR6 and DR7, unless the processor has debugging extensions and they are on.
 * One without them has the bit reserved in CR4. */
static void check_debugging_extensions(void)
{
    uint32_t cr4 = read_cr4();

    probe_registers.eax = cr4 | CR4_DE;
    struct trap trap = probe_kernel(write_cr4_eax);
    if (trap.vector == NO_TRAP)
        check_trap("mov dr4: #UD when CR4.DE is set", probe_kernel(read_dr4), VECTOR_UD, 0, read_dr4);
    else
        check_trap("mov cr4: #GP for CR4.DE, which this processor lacks", trap, VECTOR_GP, 0, write_cr4_eax);
    write_cr4(cr4);
    check_returned("mov dr4: another name of dr6 when it is not", probe_kernel(read_dr4));
}

static void check_registers(void)
{
    uint32_t cr0 = read_cr0(), cr4 = read_cr4();

    write_cr0(cr0 | CR0_WP | CR0_AM);
    check_equal("mov cr0, reg; mov reg, cr0", read_cr0(), cr0 | CR0_WP | CR0_AM);
    write_cr0(cr0);
    __asm__ volatile("lmsw %0" : : "r"((uint16_t)(cr0 | CR0_TS)));
    check_equal("lmsw: sets CR0.TS", read_cr0(), cr0 | CR0_TS);
    __asm__ volatile("clts");
    check_equal("clts: clears CR0.TS", read_cr0(), cr0 & ~(uint32_t)CR0_TS);
    __asm__ volatile("lmsw %0" : : "r"((uint16_t)(cr0 & ~CR0_PE)));
    check("lmsw: cannot clear CR0.PE", read_cr0() & CR0_PE);
    write_cr0(cr0);

    write_cr2(0xdeadbee0);
    check_equal("mov cr2, reg; mov reg, cr2", read_cr2(), 0xdeadbee0);
    write_cr3(0x7000); /* paging is off: nobody follows it */
    check_equal("mov cr3, reg; mov reg, cr3", read_cr3(), 0x7000);
    write_cr4(cr4 | CR4_TSD | CR4_PGE);
    check_equal("mov cr4, reg; mov reg, cr4", read_cr4(), cr4 | CR4_TSD | CR4_PGE);
    write_cr4(cr4);

    write_dr7(0); /* the four breakpoints are off while they are written */
    CHECK_DEBUG_REGISTER(0);
    CHECK_DEBUG_REGISTER(1);
    CHECK_DEBUG_REGISTER(2);
    CHECK_DEBUG_REGISTER(3);
    write_dr6(0);
    check_equal("mov dr6: the reserved bits are fixed", read_dr6(), 0xffff0ff0);
    check_equal("mov dr7: bit 10 is fixed", read_dr7(), 0x400);
    check_debugging_extensions();
}

enum { MSR_TSC = 0x10, MSR_SYSENTER_CS = 0x174, MSR_SYSENTER_ESP, MSR_SYSENTER_EIP };
enum { NO_SUCH_MSR = 0x3fff };

CODE(read_no_such_msr, "mov $0x3fff, %ecx\n\trdmsr")

/* SYSEXIT goes to CS = MSR + 16 and SS = MSR + 24 with RPL 3, EIP = EDX, ESP = ECX (SDM Vol. 2, SYSEXIT). */
CODE(leave_by_sysexit, "mov $user_return, %edx\n\t"
                       "mov $user_stack + 4096, %ecx\n\t"
                       "sysexit")

static void check_msrs(void)
{
    write_msr(MSR_SYSENTER_CS, SEL_USER_CODE - 3 - 16);
    write_msr(MSR_SYSENTER_ESP, 0x12345678);
    write_msr(MSR_SYSENTER_EIP, 0x9abcdef0);
    check("wrmsr, rdmsr: the SYSENTER registers", read_msr(MSR_SYSENTER_CS) == SEL_USER_CODE - 3 - 16 &&
                                                      read_msr(MSR_SYSENTER_ESP) == 0x12345678 &&
                                                      read_msr(MSR_SYSENTER_EIP) == 0x9abcdef0);
    uint64_t earlier = read_msr(MSR_TSC);
    check("rdmsr: the time stamp counter does not go back", read_msr(MSR_TSC) >= earlier);
    struct trap trap = probe_kernel(read_no_such_msr);
    check_option("msr", "rdmsr: an unknown register is #GP(0)", trap.vector == VECTOR_GP && trap.error == 0);

    trap = probe_kernel(leave_by_sysexit);
    check("sysexit: ring 3 runs", trap.vector == SYSCALL_VECTOR && trap.cs == SEL_USER_CODE);
    check_equal("sysexit: on the stack from ecx", trap.esp, user_stack_top());
}

static inline uint64_t rdtsc(void)
{
    uint64_t value;
    __asm__ volatile("rdtsc" : "=A"(value) : : "memory");
    return value;
}

enum { ARITHMETIC_FLAGS = 0x8d5 };

static uint32_t flags_after_rdtsc(uint32_t flags)
{
    __asm__ volatile("push %0\n\tpopf\n\trdtsc\n\tpushf\n\tpop %0"
                     : "+b"(flags)
                     :
                     : "eax", "edx", "cc", "memory");
    return flags & ARITHMETIC_FLAGS;
}

/* How often it does in a thousand times; each third one is read by RDMSR, if that is asked for. */
static unsigned times_it_goes_back(bool by_both)
{
    uint64_t last = rdtsc();
    unsigned n_back = 0;

    for (unsigned i = 0; i < 1000; i++) {
        uint64_t now = by_both && i % 3 == 0 ? read_msr(MSR_TSC) : rdtsc();

        n_back += now < last;
        last = now;
    }
    return n_back;
}

static void check_time_stamps(void)
{
    uint64_t last = rdtsc(), begin;

    check_equal("rdtsc: does not go back", times_it_goes_back(false), 0);
    check("rdtsc: it counts", rdtsc() > last);
    check_option("msr", "rdtsc, rdmsr: one counter", times_it_goes_back(true) == 0);
    check_equal("rdtsc: keeps the flags", flags_after_rdtsc(ARITHMETIC_FLAGS | EFLAGS_FIXED),
                ARITHMETIC_FLAGS);
    check_equal("rdtsc: also when they are clear", flags_after_rdtsc(EFLAGS_FIXED), 0);

    last = rdtsc();
    write_msr(MSR_TSC, last + (1ull << 40));
    begin = rdtsc();
    check_option("msr", "wrmsr: the time stamp counter goes on from there",
                 begin >= last + (1ull << 40) && begin < last + (1ull << 40) + (1ull << 36));
    check_option("msr", "rdmsr agrees", read_msr(MSR_TSC) - begin < 1ull << 36);
    write_msr(MSR_TSC, rdtsc() - (1ull << 40));
}

static void check_caches(void)
{
    enum { WINDOW = 0x40000000 };
    pte *space = space_new();
    uint32_t *first = page_alloc(), *second = page_alloc();

    *first = 1;
    *second = 2;
    space_map(space, WINDOW, (uintptr_t)first, PTE_P | PTE_W);
    paging_on(space);
    check_equal("invlpg: a page", peek(WINDOW), 1);
    space_map(space, WINDOW, (uintptr_t)second, PTE_P | PTE_W);
    invlpg(WINDOW);
    check_equal("invlpg: another page at the same address", peek(WINDOW), 2);
    write_cr0(read_cr0() & ~(CR0_PG | CR0_WP));

    /* INVD drops what is not written back: harmless right after WBINVD, with interrupts off. */
    __asm__ volatile("wbinvd; invd" : : : "memory");
    check("wbinvd, invd: memory is as it was", *first == 1 && *second == 2);
}

/* ---- part 2: at CPL 3 ---- */

SNIPPETS_BEGIN(privileged_instructions);
SNIPPET(privileged_instructions, user, "cli");
SNIPPET(privileged_instructions, user, "sti");
SNIPPET(privileged_instructions, user, "hlt");
SNIPPET(privileged_instructions, user, "in $0x80, %al");
SNIPPET(privileged_instructions, user, "in %dx, %al");
SNIPPET(privileged_instructions, user, "in %dx, %ax");
SNIPPET(privileged_instructions, user, "in %dx, %eax");
SNIPPET(privileged_instructions, user, "out %al, $0x80");
SNIPPET(privileged_instructions, user, "out %al, %dx");
SNIPPET(privileged_instructions, user, "out %ax, %dx");
SNIPPET(privileged_instructions, user, "out %eax, %dx");
SNIPPET(privileged_instructions, user, "insb");
SNIPPET(privileged_instructions, user, "rep insb");
SNIPPET(privileged_instructions, user, "outsb");
SNIPPET(privileged_instructions, user, "rep outsb");
SNIPPET(privileged_instructions, user, "lgdt user_stack");
SNIPPET(privileged_instructions, user, "lidt user_stack");
SNIPPET(privileged_instructions, user, "lldt %ax");
SNIPPET(privileged_instructions, user, "ltr %ax");
SNIPPET(privileged_instructions, user, "lmsw %ax");
SNIPPET(privileged_instructions, user, "clts");
SNIPPET(privileged_instructions, user, "mov %cr0, %eax");
SNIPPET(privileged_instructions, user, "mov %eax, %cr0");
SNIPPET(privileged_instructions, user, "mov %cr2, %eax");
SNIPPET(privileged_instructions, user, "mov %eax, %cr2");
SNIPPET(privileged_instructions, user, "mov %cr3, %eax");
SNIPPET(privileged_instructions, user, "mov %eax, %cr3");
SNIPPET(privileged_instructions, user, "mov %cr4, %eax");
SNIPPET(privileged_instructions, user, "mov %eax, %cr4");
SNIPPET(privileged_instructions, user, "mov %dr0, %eax");
SNIPPET(privileged_instructions, user, "mov %eax, %dr0");
SNIPPET(privileged_instructions, user, "mov %dr6, %eax");
SNIPPET(privileged_instructions, user, "mov %eax, %dr7");
SNIPPET(privileged_instructions, user, "rdmsr");
SNIPPET(privileged_instructions, user, "wrmsr");
SNIPPET(privileged_instructions, user, "rdpmc");
SNIPPET(privileged_instructions, user, "invlpg user_stack");
SNIPPET(privileged_instructions, user, "wbinvd");
SNIPPET(privileged_instructions, user, "invd");
SNIPPET(privileged_instructions, user, "sysexit");
SNIPPETS_END(privileged_instructions);

USER_CODE(user_rdtsc, "rdtsc")
USER_CODE(user_int_0x40, "int $0x40")

static void check_ring3(void)
{
    print("In ring 3, each of these is #GP(0):\n");
    for (const struct snippet *s = privileged_instructions; s != privileged_instructions_end; s++)
        check_trap(s->text, probe_user(s->code), VECTOR_GP, 0, s->code);
    check("ring 3: none of it had an effect", !(read_cr0() & CR0_TS) && read_dr7() == 0x400);

    check_trap("ring 3: int 0x40, a gate for the kernel only", probe_user(user_int_0x40), VECTOR_GP,
               0x40 * 8 + 2, user_int_0x40);
    check_returned("ring 3: rdtsc, unless...", probe_user(user_rdtsc));
    write_cr4(read_cr4() | CR4_TSD);
    check_trap("ring 3: rdtsc, ...CR4.TSD is set", probe_user(user_rdtsc), VECTOR_GP, 0, user_rdtsc);
    write_cr4(read_cr4() & ~(uint32_t)CR4_TSD);
}

enum { APIC_BASE_ENABLE = 1 << 11, FEATURE_APIC = 1 << 9, MSR_APIC_BASE = 0x1b };

/* By one instruction, again and again; at first and at last by the leaf that is of interest. */
static bool cpuid_always_says(uint32_t feature, bool is_there)
{
    bool is_always = true;

    for (int i = 0; i < 20; i++) {
        uint32_t leaf = i % 4 == 1 ? 0 : 1, eax = leaf, ebx, ecx = 0, edx;

        __asm__ volatile("cpuid" : "+a"(eax), "=b"(ebx), "+c"(ecx), "=d"(edx));
        is_always = is_always && (leaf == 0 || ((edx & feature) != 0) == is_there);
    }
    return is_always;
}

/* A local APIC that is switched off is not there (SDM Vol. 3, 11.4.3). Some cannot be switched on again. */
static void check_features(void)
{
    bool had_apic = cpuid_always_says(FEATURE_APIC, true);

    write_msr(MSR_APIC_BASE, read_msr(MSR_APIC_BASE) & ~(uint64_t)APIC_BASE_ENABLE);
    check_option("cpuid", "CPUID shows an APIC that is on, and none that is off",
                 had_apic && cpuid_always_says(FEATURE_APIC, false));
}

void guest_main(void)
{
    check_interrupt_flag();
    check_ports();
    check_tables();
    check_registers();
    check_msrs();
    check_time_stamps();
    check_caches();
    check_ring3();
    check_features();
}
