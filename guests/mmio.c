/*
 * mmio: device registers that look like memory, reached by every kind of instruction.
 *
 * The lesson: where there is no RAM, an access is a message to a device. The monitor sees only a fault at an
 * address; to send the message it must decode the instruction and do all of it: both operands, the flags, the
 * direction flag, the count of a REP. So each instruction here is run twice, on RAM and on a device with the
 * same contents, and must leave the same values, registers and flags. The RAM side is the processor's own
 * work.
 *
 * VGA text memory behaves like RAM and takes any access. The registers of the two APICs are 32 bits wide and
 * keep some of their bits. Read next: selfmod.c.
 */
#include "guest.h"

enum { VGA_TEXT = 0xb8000, LAPIC = 0xfee00000, IOAPIC = 0xfec00000 };
enum { LAPIC_TPR = 0x80, LAPIC_TIMER_LVT = 0x320, LAPIC_TIMER_INITIAL = 0x380, LVT_MASKED = 1 << 16 };
enum { IOAPIC_INDEX = 0, IOAPIC_DATA = 0x10, REDIRECTION_HIGH = 0x11 }; /* of pin 0 */
enum { BLOCK = 128, MIDDLE = 64 }; /* bytes that are compared; pointers point to the middle */
enum { TEXT_AT = 160 * 20 };       /* line 20 of the screen */

/* The flags that an instruction defines. */
enum {
    FLAGS_ALL = EFLAGS_ARITHMETIC,
    FLAGS_NO_AF = FLAGS_ALL & ~0x10,
    FLAGS_CF = 1,
    FLAGS_ZF = 0x40,
    FLAGS_NONE = 0
};
enum { FLAGS_MUL = 0x801, FLAGS_SHIFT = 0xc5 }; /* CF OF; CF PF ZF SF */

/* ebx, esi: in the target; edi: 32 bytes further. eax, ecx, edx: data. */
SNIPPETS_BEGIN(moves);
SNIPPET(moves, user, "mov (%ebx), %eax");
SNIPPET(moves, user, "mov (%ebx), %ax");
SNIPPET(moves, user, "mov 1(%ebx), %ah");
SNIPPET(moves, user, "mov %eax, (%ebx)");
SNIPPET(moves, user, "mov %ax, 2(%ebx)");
SNIPPET(moves, user, "mov %dh, 3(%ebx)");
SNIPPET(moves, user, "movl $0x12345678, -4(%ebx)");
SNIPPET(moves, user, "movw $0x1234, (%ebx,%ecx,4)");
SNIPPET(moves, user, "movb $0x12, 1(%ebx,%ecx)");
SNIPPET(moves, user, "mov 1(%ebx), %edx");
SNIPPET(moves, user, "mov %edx, 3(%ebx)");
SNIPPET(moves, user, "movzbl (%ebx), %eax");
SNIPPET(moves, user, "movzwl (%ebx), %ecx");
SNIPPET(moves, user, "movzbw 1(%ebx), %ax");
SNIPPET(moves, user, "movsbl 2(%ebx), %eax");
SNIPPET(moves, user, "movswl 2(%ebx), %edx");
SNIPPET(moves, user, "movsbw 3(%ebx), %cx");
SNIPPET(moves, user, "xchg %eax, (%ebx)");
SNIPPET(moves, user, "xchg %cx, (%ebx)");
SNIPPET(moves, user, "xchg %dl, 1(%ebx)");
SNIPPET(moves, user, "push (%ebx); pop %eax");
SNIPPET(moves, user, "push %eax; pop (%ebx)");
SNIPPET(moves, user, "pushw (%ebx); popw 2(%ebx)");
SNIPPET(moves, user, "notl (%ebx)");
SNIPPET(moves, user, "notb (%ebx)");
SNIPPET(moves, user, "setc (%ebx)");
SNIPPET(moves, user, "setnc 1(%ebx)");
SNIPPET(moves, user, "cmovnc (%ebx), %eax");
SNIPPET(moves, user, "cmovc (%ebx), %eax");
SNIPPET(moves, user, "mov $3, %al; xlat");
SNIPPETS_END(moves);

SNIPPETS_BEGIN(arithmetic);
SNIPPET(arithmetic, user, "add %eax, (%ebx)");
SNIPPET(arithmetic, user, "add (%ebx), %eax");
SNIPPET(arithmetic, user, "addb $0x7f, (%ebx)");
SNIPPET(arithmetic, user, "lock addw %dx, (%ebx)");
SNIPPET(arithmetic, user, "stc; adc %eax, (%ebx)");
SNIPPET(arithmetic, user, "stc; adcb (%ebx), %al");
SNIPPET(arithmetic, user, "sub %eax, (%ebx)");
SNIPPET(arithmetic, user, "sub (%ebx), %cx");
SNIPPET(arithmetic, user, "subb $1, 3(%ebx)");
SNIPPET(arithmetic, user, "stc; sbb %edx, (%ebx)");
SNIPPET(arithmetic, user, "cmp %eax, (%ebx)");
SNIPPET(arithmetic, user, "cmp (%ebx), %eax");
SNIPPET(arithmetic, user, "cmpb $0x44, (%ebx)");
SNIPPET(arithmetic, user, "cmpw $-1, 2(%ebx)");
SNIPPET(arithmetic, user, "stc; incl (%ebx)");
SNIPPET(arithmetic, user, "incb 3(%ebx)");
SNIPPET(arithmetic, user, "stc; decw (%ebx)");
SNIPPET(arithmetic, user, "lock decl (%ebx)");
SNIPPET(arithmetic, user, "negl (%ebx)");
SNIPPET(arithmetic, user, "negb (%ebx)");
SNIPPET(arithmetic, user, "xadd %eax, (%ebx)");
SNIPPET(arithmetic, user, "lock xadd %cl, (%ebx)");
SNIPPET(arithmetic, user, "cmpxchg %ecx, (%ebx)");
SNIPPET(arithmetic, user, "mov (%ebx), %eax; lock cmpxchg %ecx, (%ebx)");
SNIPPET(arithmetic, user, "mov (%ebx), %al; cmpxchg %cl, (%ebx)");
SNIPPETS_END(arithmetic);

SNIPPETS_BEGIN(logic);
SNIPPET(logic, user, "and %eax, (%ebx)");
SNIPPET(logic, user, "and (%ebx), %eax");
SNIPPET(logic, user, "andb $0x0f, (%ebx)");
SNIPPET(logic, user, "or %eax, (%ebx)");
SNIPPET(logic, user, "or (%ebx), %dx");
SNIPPET(logic, user, "lock orb $0x80, 1(%ebx)");
SNIPPET(logic, user, "xor %eax, (%ebx)");
SNIPPET(logic, user, "xorw $0xffff, (%ebx)");
SNIPPET(logic, user, "xor (%ebx), %cl");
SNIPPET(logic, user, "test %eax, (%ebx)");
SNIPPET(logic, user, "testb $0x44, (%ebx)");
SNIPPET(logic, user, "testw %cx, (%ebx)");
SNIPPETS_END(logic);

SNIPPETS_BEGIN(bits);
SNIPPET(bits, user, "btl $3, (%ebx)");
SNIPPET(bits, user, "btw $15, (%ebx)");
SNIPPET(bits, user, "btsl $31, (%ebx)");
SNIPPET(bits, user, "lock btrl $2, (%ebx)");
SNIPPET(bits, user, "btcw $0, (%ebx)");
SNIPPET(bits, user, "mov $70, %edx; bt %edx, (%ebx)       /* bit 70: 8 bytes further */");
SNIPPET(bits, user, "mov $70, %edx; lock bts %edx, (%ebx)");
SNIPPET(bits, user, "mov $-33, %edx; btr %edx, (%ebx)     /* bit -33: 8 bytes back */");
SNIPPET(bits, user, "mov $-17, %edx; btc %dx, (%ebx)");
SNIPPETS_END(bits);

SNIPPETS_BEGIN(shifts);
SNIPPET(shifts, user, "shll $4, (%ebx)");
SNIPPET(shifts, user, "shrb $1, (%ebx)");
SNIPPET(shifts, user, "sarl %cl, (%ebx)");
SNIPPET(shifts, user, "shld $8, %eax, (%ebx)");
SNIPPET(shifts, user, "shrdw %cl, %dx, (%ebx)");
SNIPPETS_END(shifts);

/* Rotations define CF only (and leave the rest); multiplications CF and OF; bsf ZF; cmpxchg8b ZF; division
 * none. */
SNIPPETS_BEGIN(rotations);
SNIPPET(rotations, user, "roll $4, (%ebx)");
SNIPPET(rotations, user, "rorb $3, 1(%ebx)");
SNIPPET(rotations, user, "stc; rclw $2, (%ebx)");
SNIPPET(rotations, user, "stc; rcrl %cl, (%ebx)");
SNIPPETS_END(rotations);

SNIPPETS_BEGIN(multiplications);
SNIPPET(multiplications, user, "mull (%ebx)");
SNIPPET(multiplications, user, "imulb (%ebx)");
SNIPPET(multiplications, user, "imul (%ebx), %ecx");
SNIPPET(multiplications, user, "imul $-3, (%ebx), %dx");
SNIPPETS_END(multiplications);

SNIPPETS_BEGIN(zero_flag);
SNIPPET(zero_flag, user, "bsf (%ebx), %eax");
SNIPPET(zero_flag, user, "bsr (%ebx), %ecx");
SNIPPET(zero_flag, user, "push %ebx; mov %ebx, %esi; mov %ecx, %ebx; cmpxchg8b (%esi); pop %ebx");
SNIPPET(zero_flag, user,
        "push %ebx; mov %ebx, %esi; mov (%esi), %eax; mov 4(%esi), %edx; mov %ecx, %ebx; "
        "lock cmpxchg8b (%esi); pop %ebx");
SNIPPETS_END(zero_flag);

SNIPPETS_BEGIN(divisions);
SNIPPET(divisions, user, "xor %edx, %edx; divl (%ebx)");
SNIPPET(divisions, user, "mov $100, %ax; idivb 1(%ebx)");
SNIPPETS_END(divisions);

/* Run three times: both pointers in the target, then only esi, then only edi. */
SNIPPETS_BEGIN(strings);
SNIPPET(strings, user, "movsb");
SNIPPET(strings, user, "movsl");
SNIPPET(strings, user, "rep movsb");
SNIPPET(strings, user, "rep movsw");
SNIPPET(strings, user, "rep movsl");
SNIPPET(strings, user, "std; rep movsl; cld");
SNIPPET(strings, user, "lea 2(%esi), %edi; rep movsb         /* overlapping: a pattern spreads */");
SNIPPET(strings, user, "xor %ecx, %ecx; rep movsl            /* nothing */");
SNIPPET(strings, user, "stosb");
SNIPPET(strings, user, "rep stosw");
SNIPPET(strings, user, "rep stosl");
SNIPPET(strings, user, "std; rep stosb; cld");
SNIPPET(strings, user, "lodsb");
SNIPPET(strings, user, "lodsl");
SNIPPET(strings, user, "rep lodsw");
SNIPPET(strings, user, "cmpsb");
SNIPPET(strings, user, "repe cmpsl");
SNIPPET(strings, user, "repne cmpsb");
SNIPPET(strings, user, "scasb");
SNIPPET(strings, user, "mov 3(%edi), %al; repne scasb");
SNIPPET(strings, user, "repe scasl");
SNIPPETS_END(strings);

/* Loads go on to a store, so that what arrived in the register shows. */
SNIPPETS_BEGIN(sse);
SNIPPET(sse, user, "movups (%esi), %xmm0; movups %xmm0, (%edi)");
SNIPPET(sse, user, "movaps (%esi), %xmm0; movaps %xmm0, (%edi)");
SNIPPET(sse, user, "movdqu 1(%esi), %xmm0; movdqu %xmm0, 3(%edi)");
SNIPPET(sse, user, "movdqa (%esi), %xmm1; movntdq %xmm1, (%edi)");
SNIPPET(sse, user, "movapd (%esi), %xmm2; movntps %xmm2, (%edi)");
SNIPPET(sse, user, "movd (%esi), %xmm3; movdqu %xmm3, (%edi)");
SNIPPET(sse, user, "movups 4(%esi), %xmm3; movd %xmm3, (%edi)");
SNIPPET(sse, user, "movq (%esi), %xmm4; movq %xmm4, 8(%edi)");
SNIPPET(sse, user, "movss (%esi), %xmm5; movups %xmm5, (%edi)");
SNIPPET(sse, user, "movsd 8(%esi), %xmm6; movsd %xmm6, (%edi)");
SNIPPET(sse, user, "xorps %xmm7, %xmm7; movhps (%esi), %xmm7; movlps 8(%esi), %xmm7; movups %xmm7, (%edi)");
SNIPPET(sse, user,
        "movups (%esi), %xmm0; movhpd %xmm0, (%edi); movlpd %xmm0, 8(%edi); movss %xmm0, 16(%edi)");
SNIPPET(sse, user, "movnti %eax, (%edi)");
SNIPPETS_END(sse);

SNIPPETS_BEGIN(x87);
SNIPPET(x87, user, "fildl (%esi); fistpl (%edi)");
SNIPPET(x87, user, "fildll (%esi); fistpll (%edi)");
SNIPPET(x87, user, "flds (%esi); fstps (%edi)");
SNIPPET(x87, user, "fldl (%esi); fstpl (%edi)");
SNIPPET(x87, user, "fnstcw (%edi)");
SNIPPETS_END(x87);

/* ---- memory: VGA text, with a model in RAM ---- */

static USER_DATA uint8_t model[BLOCK] __attribute__((aligned(16))); /* what the device's memory must become */
static USER_DATA uint8_t other_ram[BLOCK]
    __attribute__((aligned(16))); /* the second operand of string instructions */
static uint8_t expected_ram[BLOCK];
static struct trap (*run)(void (*)(void)) = probe_kernel;

static void fill(volatile uint8_t *block, uint8_t seed)
{
    for (unsigned i = 0; i < BLOCK; i++) /* with some equal bytes, for scas and cmps */
        block[i] = (uint8_t)(i % 32 == 9 ? 0 : (i % 32) * 0x11 + seed);
}

static bool same_block(const volatile uint8_t *a, const uint8_t *b)
{
    for (unsigned i = 0; i < BLOCK; i++) {
        if (a[i] != b[i])
            return false;
    }
    return true;
}

enum placement { BOTH_IN_TARGET, SOURCE_IN_TARGET, DESTINATION_IN_TARGET };

static struct trap run_on(void (*code)(void), uint32_t target, enum placement placement)
{
    uint32_t ram = (uintptr_t)other_ram + MIDDLE;

    target += MIDDLE;
    probe_registers = (struct registers){
        .eax = 0x89abcdef,
        .ecx = 3,
        .edx = 0x01234567,
        .ebx = target,
        .esi = placement == DESTINATION_IN_TARGET ? ram : target,
        .edi = placement == SOURCE_IN_TARGET ? ram : target + 32,
    };
    return run(code);
}

/* A register is the same value, or the same distance into the block. */
static bool same_register(uint32_t on_device, uint32_t on_model, uint32_t device)
{
    return on_device == on_model || on_device - device == on_model - (uintptr_t)model;
}

static bool same_outcome(const struct trap *on_device, const struct trap *on_model, uint32_t device,
                         uint32_t flags)
{
    const struct registers *d = &on_device->registers, *m = &on_model->registers;
    return on_device->vector == NO_TRAP && on_model->vector == NO_TRAP && d->eax == m->eax &&
           d->ecx == m->ecx && d->edx == m->edx && same_register(d->ebx, m->ebx, device) &&
           same_register(d->esi, m->esi, device) && same_register(d->edi, m->edi, device) &&
           ((on_device->eflags ^ on_model->eflags) & flags) == 0;
}

static bool run_on_both(const struct snippet *s, uint32_t device, enum placement placement, uint32_t flags)
{
    volatile uint8_t *memory = memory_at(device);

    fill(model, 0x44);
    fill(other_ram, 0x47);
    struct trap on_model = run_on(s->code, (uintptr_t)model, placement);
    memcpy(expected_ram, other_ram, BLOCK);

    fill(memory, 0x44);
    fill(other_ram, 0x47);
    struct trap on_device = run_on(s->code, device, placement);
    return same_outcome(&on_device, &on_model, device, flags) && same_block(memory, model) &&
           same_block(other_ram, expected_ram);
}

static void check_forms(const struct snippet *s, const struct snippet *end, uint32_t device, uint32_t flags)
{
    for (; s != end; s++)
        check(s->text, run_on_both(s, device, BOTH_IN_TARGET, flags));
}

static void check_strings(const struct snippet *s, const struct snippet *end, uint32_t device, uint32_t flags)
{
    for (; s != end; s++)
        check(s->text, run_on_both(s, device, BOTH_IN_TARGET, flags) &&
                           run_on_both(s, device, SOURCE_IN_TARGET, flags) &&
                           run_on_both(s, device, DESTINATION_IN_TARGET, flags));
}

#define TABLE(table) table, table##_end

static void check_memory(uint32_t device)
{
    check_forms(TABLE(moves), device, FLAGS_ALL);
    check_forms(TABLE(arithmetic), device, FLAGS_ALL);
    check_forms(TABLE(logic), device, FLAGS_NO_AF);
    check_forms(TABLE(bits), device, FLAGS_CF);
    check_forms(TABLE(shifts), device, FLAGS_SHIFT);
    check_forms(TABLE(rotations), device, FLAGS_CF);
    check_forms(TABLE(multiplications), device, FLAGS_MUL);
    check_forms(TABLE(zero_flag), device, FLAGS_ZF);
    check_forms(TABLE(divisions), device, FLAGS_NONE);
    check_strings(TABLE(strings), device, FLAGS_ALL);
    check_strings(TABLE(sse), device, FLAGS_ALL);
    if (!has_option("x87"))
        return;
    __asm__ volatile("fninit");
    check_strings(TABLE(x87), device, FLAGS_ALL);
}

/* ---- registers: the APICs ---- */

/* The same instructions on one 32-bit register; the model begins with what the register says. `kept`: its
 * bits. */
static void check_register(const char *name, uint32_t device, uint32_t kept, const struct snippet *s,
                           const struct snippet *end, uint32_t flags)
{
    static uint32_t word;
    bool all = true;

    for (; s != end; s++) {
        poke(device, 0x24000024);
        word = peek(device);
        probe_registers = (struct registers){
            .eax = 0x18000018, .ecx = 3, .edx = 0x01000001, .ebx = (uintptr_t)&word, .esi = (uintptr_t)&word};
        struct trap on_model = probe_kernel(s->code);
        probe_registers.ebx = probe_registers.esi = device;
        struct trap on_device = probe_kernel(s->code);
        bool same = ((peek(device) ^ word) & kept) == 0 && on_device.vector == NO_TRAP &&
                    on_device.registers.eax == on_model.registers.eax &&
                    on_device.registers.ecx == on_model.registers.ecx &&
                    on_device.registers.edx == on_model.registers.edx &&
                    ((on_device.eflags ^ on_model.eflags) & flags) == 0;
        if (!same)
            print("     %s: register %08x, model %08x\n", s->text, peek(device), word);
        all = all && same;
    }
    check(name, all);
}

/* Aligned accesses of 32 bits, which is all that an APIC promises to take. */
SNIPPETS_BEGIN(register_forms);
SNIPPET(register_forms, kernel, "mov (%ebx), %eax");
SNIPPET(register_forms, kernel, "mov %eax, (%ebx)");
SNIPPET(register_forms, kernel, "movl $0x34000034, (%ebx)");
SNIPPET(register_forms, kernel, "add %eax, (%ebx)");
SNIPPET(register_forms, kernel, "add (%ebx), %eax");
SNIPPET(register_forms, kernel, "sub %edx, (%ebx)");
SNIPPET(register_forms, kernel, "cmp %eax, (%ebx)");
SNIPPET(register_forms, kernel, "cmpl $0x24, (%ebx)");
SNIPPET(register_forms, kernel, "incl (%ebx)");
SNIPPET(register_forms, kernel, "decl (%ebx)");
SNIPPET(register_forms, kernel, "notl (%ebx)");
SNIPPET(register_forms, kernel, "negl (%ebx)");
SNIPPET(register_forms, kernel, "xchg %eax, (%ebx)");
SNIPPET(register_forms, kernel, "xadd %eax, (%ebx)");
SNIPPET(register_forms, kernel, "cmpxchg %edx, (%ebx)");
SNIPPET(register_forms, kernel, "mov (%ebx), %eax; cmpxchg %edx, (%ebx)");
SNIPPET(register_forms, kernel, "push (%ebx); pop %eax");
SNIPPET(register_forms, kernel, "push %eax; pop (%ebx)");
SNIPPET(register_forms, kernel, "mov %ebx, %esi; lodsl");
SNIPPET(register_forms, kernel, "mov %ebx, %edi; stosl");
SNIPPETS_END(register_forms);

SNIPPETS_BEGIN(register_logic);
SNIPPET(register_logic, kernel, "and %eax, (%ebx)");
SNIPPET(register_logic, kernel, "or %eax, (%ebx)");
SNIPPET(register_logic, kernel, "xor %eax, (%ebx)");
SNIPPET(register_logic, kernel, "test %eax, (%ebx)");
SNIPPET(register_logic, kernel, "testl $4, (%ebx)");
SNIPPETS_END(register_logic);

SNIPPETS_BEGIN(register_bits);
SNIPPET(register_bits, kernel, "btl $2, (%ebx)");
SNIPPET(register_bits, kernel, "btsl $3, (%ebx)");
SNIPPET(register_bits, kernel, "btrl $5, (%ebx)");
SNIPPET(register_bits, kernel, "btcl %ecx, (%ebx)");
SNIPPETS_END(register_bits);

static void check_register_all(const char *name, uint32_t device, uint32_t kept)
{
    print("%s, at %08x:\n", name, device);
    check_register("  as a number", device, kept, TABLE(register_forms), FLAGS_ALL);
    check_register("  as a mask", device, kept, TABLE(register_logic), FLAGS_NO_AF);
    check_register("  bit by bit", device, kept, TABLE(register_bits), FLAGS_CF);
    poke(device, 0);
}

static void check_registers(uint32_t lapic, uint32_t ioapic)
{
    poke(lapic + LAPIC_TIMER_LVT, LVT_MASKED);
    check_register_all("task priority register", lapic + LAPIC_TPR, 0xff);
    check_register_all("initial count of the APIC timer", lapic + LAPIC_TIMER_INITIAL, 0xffffffff);
    poke(ioapic + IOAPIC_INDEX, REDIRECTION_HIGH);
    check_register_all("a redirection entry of the I/O APIC", ioapic + IOAPIC_DATA, 0xff000000);
    check_equal("and the index register has not moved", peek(ioapic + IOAPIC_INDEX) & 0xff, REDIRECTION_HIGH);
}

/* ---- one store to memory and device ---- */

enum { LINEAR = 0x50000000, LINEAR_LAPIC = 0x50010000, LINEAR_IOAPIC = 0x50011000 };

/* The last bytes of a RAM page, and behind it, for the program at least, the first character of the screen.
 */
static void check_border(uint32_t border, uint32_t ram_page)
{
    poke(border - 2, 0x44434241);
    check("a store across RAM and device",
          peek(ram_page + PAGE_SIZE - 4) >> 16 == 0x4241 && (peek(border) & 0xffff) == 0x4443);
    check_equal("a load across RAM and device", peek(border - 2), 0x44434241);
    __asm__ volatile("lock addl $0x01010101, (%0)" : : "r"(border - 2) : "memory");
    check_equal("lock add across RAM and device", peek(border - 2), 0x45444342);
    uint32_t to = border - 8, count = 16;
    __asm__ volatile("rep stosb" : "+D"(to), "+c"(count) : "a"(0x20) : "memory");
    check("rep stosb from RAM into the device",
          count == 0 && to == border + 8 && peek(border - 8) == 0x20202020 && peek(border + 4) == 0x20202020);
}

static void clear_text(void)
{
    for (unsigned i = 0; i < BLOCK; i += 4)
        poke(VGA_TEXT + TEXT_AT + i, 0x07200720);
}

void guest_main(void)
{
    write_cr4(read_cr4() | CR4_OSFXSR);

    print("VGA text memory:\n");
    check_memory(VGA_TEXT + TEXT_AT);
    check_registers(LAPIC, IOAPIC);
    clear_text();

    pte *space = space_new();
    uint8_t *ram_page = page_alloc();
    space_map(space, LINEAR - PAGE_SIZE, (uintptr_t)ram_page, PTE_P | PTE_W);
    space_map(space, LINEAR, VGA_TEXT, PTE_P | PTE_W | PTE_U);
    space_map(space, LINEAR_LAPIC, LAPIC, PTE_P | PTE_W);
    space_map(space, LINEAR_IOAPIC, IOAPIC, PTE_P | PTE_W);
    paging_on(space);
    print("the same through page tables:\n");
    check_memory(LINEAR + TEXT_AT);
    check_registers(LINEAR_LAPIC, LINEAR_IOAPIC);
    check_border(LINEAR, (uintptr_t)ram_page);
    print("the same in ring 3:\n");
    run = probe_user;
    check_memory(LINEAR + TEXT_AT);
    clear_text();
}
