/*
 * reuse: a page is not what it was.
 *
 * The lesson: a kernel gives pages, takes them back, shares them until somebody stores, makes page tables of
 * them and puts code there; and the same few instructions in its loops meet them all. An engine that has
 * found a cheaper way for an instruction that often faults (see demand.c) must not know less in that way than
 * in the first: rights, A and D, what INVLPG and MOV to CR3 say, that a table or code is being stored to. So
 * here one load and one store meet absent pages again and again, and between them each other kind of page, a
 * device's included.
 *
 * Read next: revisit.c, for what may be kept of what was found.
 */
#include "guest.h"

enum { RW = PTE_P | PTE_W, RO = PTE_P };
enum {
    WINDOW = 0x40000000,
    ALIAS = 0x50000000,
    TABLE_WINDOW = 0x60000000,
    N_PAGES = 128,
    HALF = N_PAGES / 2
};

static uint8_t memory[N_PAGES][PAGE_SIZE] __attribute__((aligned(4096)));
static pte *space;
static unsigned turn; /* for pages that get another frame: so many pages on */

static uint32_t page_frame(unsigned page)
{
    return (uintptr_t)memory[(page + turn) % N_PAGES];
}

static uint32_t page_at(unsigned page)
{
    return WINDOW + page * PAGE_SIZE;
}

static pte *entry_of(unsigned page)
{
    return space_entry(space, page_at(page));
}

/* ---- faults ---- */

static unsigned n_faults;
static uint32_t fault_cr2;
static struct trap_frame fault_frame;
static pte entry_at_fault;
static uint32_t page_rights = RW;
static void (*give)(unsigned page);

static void give_page(unsigned page)
{
    *entry_of(page) = page_frame(page) | page_rights;
}

static void on_page_fault(struct trap_frame *frame)
{
    unsigned page;

    fault_cr2 = read_cr2();
    page = (fault_cr2 - WINDOW) / PAGE_SIZE;
    if (page >= N_PAGES || n_faults == 8)
        fail("page fault %u at %08x by %08x", n_faults, fault_cr2, frame->eip);
    n_faults++;
    fault_frame = *frame;
    entry_at_fault = *entry_of(page);
    give(page);
}

/* ---- what each page must show: a check is about all of them ---- */

static bool is_right = true; /* so far in this check */

static void expect(const char *what, unsigned page, uint32_t got, uint32_t expected)
{
    if (got != expected && is_right)
        print("     page %u: %s: %x, expected %x\n", page, what, got, expected);
    is_right = is_right && got == expected;
}

static void expect_n_faults(unsigned page, unsigned n)
{
    expect("number of faults", page, n_faults, n);
    n_faults = 0;
}

static void expect_fault(unsigned page, void (*at)(void), uint32_t cr2, uint32_t error)
{
    expect_n_faults(page, 1);
    expect("EIP", page, fault_frame.eip, (uintptr_t)at);
    expect("CR2", page, fault_cr2, cr2);
    expect("error code", page, fault_frame.error, error);
}

static void verdict(const char *name)
{
    check(name, is_right);
    is_right = true;
}

/* ---- a load and a store, for each check in a copy that no engine has seen before ---- */

typedef void code(void);
enum { COPY_SIZE = 16 };
static uint8_t kernel_code[PAGE_SIZE] __attribute__((aligned(4096)));
USER_DATA static uint8_t user_code[PAGE_SIZE] __attribute__((aligned(4096)));
static bool is_user; /* who does it */
static code *loading, *storing;

CODE(load, "mov (%ebx), %eax")
CODE(store, "mov %eax, (%ebx)")

static code *fresh(code *original)
{
    static unsigned n_copies;
    uint8_t *copy = (is_user ? user_code : kernel_code) + n_copies++ * COPY_SIZE;

    memcpy(copy, memory_at((uintptr_t)original), COPY_SIZE);
    return memory_at((uintptr_t)copy);
}

static void empty_window(void)
{
    for (unsigned page = 0; page < N_PAGES; page++)
        *entry_of(page) = 0;
    write_cr3((uintptr_t)space);
}

static void begin(void)
{
    loading = fresh(load);
    storing = fresh(store);
    empty_window();
}

static uint32_t load_at(uint32_t linear)
{
    probe_registers = (struct registers){.ebx = linear};
    return (is_user ? probe_user(loading) : probe_kernel(loading)).registers.eax;
}

static void store_at(uint32_t linear, uint32_t value)
{
    probe_registers = (struct registers){.eax = value, .ebx = linear};
    (void)(is_user ? probe_user(storing) : probe_kernel(storing));
}

/* ---- bits of an entry ---- */

static void expect_bits(const char *when, unsigned page, uint32_t expected)
{
    expect(when, page, *(volatile pte *)entry_of(page) & (PTE_A | PTE_D), expected);
}

/* As a kernel does that looks for idle pages. */
static void clear_bits(unsigned page)
{
    give_page(page);
    invlpg(page_at(page));
}

static void check_accessed_and_dirty(void)
{
    begin();
    for (unsigned page = 0; page < N_PAGES; page++) {
        if (page % 2 == 1)
            clear_bits(page); /* present */
        load_at(page_at(page));
        expect_bits("A, D after a load", page, PTE_A);
        store_at(page_at(page), 1);
        expect_bits("A, D after a store", page, PTE_A | PTE_D);
        clear_bits(page);
        load_at(page_at(page));
        expect_bits("A, D after another load", page, PTE_A);
        clear_bits(page);
        store_at(page_at(page), 2);
        expect_bits("A, D after another store", page, PTE_A | PTE_D);
        expect_n_faults(page, page % 2 == 0);
    }
    verdict("A and D tell of each page what was done to it");
}

/* Each kind of page in turn. What it does not allow is a fault, and the handler allows it. */
static void check_rights(const char *name, bool by_user, bool stores)
{
    static const uint32_t kinds[] = {0, RO, RW, RO | PTE_U, RW | PTE_U};
    const uint32_t needed = PTE_P | (stores ? PTE_W : 0) | (by_user ? PTE_U : 0);
    const uint32_t error = (stores ? PF_WRITE : 0) | (by_user ? PF_USER : 0);

    is_user = by_user;
    begin();
    for (unsigned page = 0; page < N_PAGES; page++) {
        uint32_t kind = kinds[page % 5], linear = page_at(page) + 16, in_frame = page_frame(page) + 16;

        *entry_of(page) = kind == 0 ? 0 : page_frame(page) | kind;
        poke(in_frame, page);
        if (stores)
            store_at(linear, page + 1000);
        else
            expect("loaded", page, load_at(linear), page);
        expect("memory", page, peek(in_frame), page + (stores ? 1000 : 0));
        if ((kind & needed) == needed)
            expect_n_faults(page, 0);
        else
            expect_fault(page, stores ? storing : loading, linear, error | (kind & PTE_P ? PF_PRESENT : 0));
        expect("D before the store", page, entry_at_fault & PTE_D, 0);
    }
    is_user = false;
    verdict(name);
}

/* ---- frames that change ---- */

/* The page's frame is shared: who stores gets a copy. */
static void give_copy(unsigned page)
{
    uint32_t original = page_frame(page);

    turn = HALF;
    memcpy(memory_at(page_frame(page)), memory_at(original), PAGE_SIZE);
    give_page(page);
    invlpg(page_at(page));
    turn = 0;
}

static void check_copy_on_write(void)
{
    begin();
    give = give_copy;
    for (unsigned page = 0; page < HALF; page++) {
        poke(page_frame(page), page);
        poke(page_frame(page) + PAGE_SIZE - 4, ~page);
        *entry_of(page) = page_frame(page) | RO;
        expect("before", page, load_at(page_at(page)), page);
        store_at(page_at(page), page + 1000);
        expect_fault(page, storing, page_at(page), PF_PRESENT | PF_WRITE);
        expect("after", page, load_at(page_at(page)), page + 1000);
        expect("the end of the page", page, load_at(page_at(page) + PAGE_SIZE - 4), ~page);
        expect("the original", page, peek(page_frame(page)), page);
        expect("the copy", page, peek(page_frame(page + HALF)), page + 1000);
    }
    give = give_page;
    verdict("copy on write: the store lands in the copy");
}

/* Its own frame and another one in turn, each page four times. */
static void check_remapping(void)
{
    begin();
    for (unsigned i = 0; i < 4 * N_PAGES; i++) {
        unsigned page = i / 4;
        bool is_absent = i % 4 < 2;

        turn = i % 2 * HALF;
        poke(page_frame(page) + 8, i);
        if (is_absent)
            *entry_of(page) = 0;
        else
            give_page(page);
        invlpg(page_at(page));
        if (i % 3 != 0)
            expect("what the frame had", page, load_at(page_at(page) + 8), i);
        store_at(page_at(page) + 8, i + 1000);
        expect("what it has", page, peek(page_frame(page) + 8), i + 1000);
        expect("the same, here", page, load_at(page_at(page) + 8), i + 1000);
        expect_n_faults(page, is_absent);
    }
    turn = 0;
    verdict("unmapped and mapped again: never the old frame");
}

static void check_repetition(void)
{
    const unsigned last = N_PAGES - 1;

    begin();
    for (unsigned round = 0; round < 4; round++) {
        empty_window();
        for (unsigned page = 0; page < last; page++) {
            store_at(page_at(page) + 4 * round, round);
            expect_fault(page, storing, page_at(page) + 4 * round, PF_WRITE);
        }
        for (unsigned i = 0; i < 1000; i++)
            store_at(page_at(last) + 4 * i, i + round);
        expect_n_faults(last, 1);
        for (unsigned i = 0; i < 1000; i++)
            expect("one of 1000 words", last, peek(page_frame(last) + 4 * i), i + round);
    }
    verdict("many pages once, then one a thousand times; four times");
}

/* ---- who else sees it ---- */

static void check_aliases(void)
{
    begin();
    for (unsigned page = 0; page < N_PAGES; page++) {
        uint32_t here = page_at(page) + 12, there = ALIAS + page * PAGE_SIZE + 12;

        space_map(space, there - 12, page_frame(page), RW);
        if (page % 2 == 1)
            load_at(here);
        store_at(here, page);
        expect("another load there", page, peek(there), page);
        expect("another load here", page, peek(here), page);
        poke(there, page + 1000);
        expect("after another store there", page, load_at(here), page + 1000);
        store_at(there, page + 2000);
        expect("after the same store there", page, load_at(here), page + 2000);
        poke(here, page + 3000);
        expect("after another store here", page, load_at(there), page + 3000);
        expect_n_faults(page, 1);
    }
    verdict("all instructions see the same, at either address of a frame");
}

/* ---- what is in it ---- */

/* Each page becomes the page table when it has been stored to, and is data again when the next one is it. */
static void check_tables(void)
{
    const uint32_t target = TABLE_WINDOW + PAGE_SIZE; /* the second entry's */

    begin();
    for (unsigned page = 0; page < N_PAGES; page++) {
        uint32_t a = page_frame((page + 1) % N_PAGES), b = page_frame((page + 2) % N_PAGES);

        poke(a, 2 * page);
        poke(b, 2 * page + 1);
        store_at(page_at(page) + 4, a | RW);
        space[TABLE_WINDOW >> 22] = page_frame(page) | RW;
        write_cr3((uintptr_t)space);
        expect("by the new table", page, peek(target), 2 * page);
        expect("A in it", page, load_at(page_at(page) + 4) & PTE_A, PTE_A);
        store_at(page_at(page) + 4, b | RW);
        invlpg(target);
        expect("when it was stored to", page, peek(target), 2 * page + 1);
        expect_n_faults(page, 1);
        store_at(page_at(page / 2), page);
        expect("data in what was a table", page, peek(page_frame(page / 2)), page);
        n_faults = 0;
    }
    space[TABLE_WINDOW >> 22] = 0;
    write_cr3((uintptr_t)space);
    verdict("a page becomes a page table, and is stored to");
}

/* mov $value, %eax; ret */
static void store_function(uint32_t linear, uint32_t value)
{
    store_at(linear, 0xb8 | value << 8);
    store_at(linear + 4, value >> 24 | 0xc300);
}

static uint32_t call_at(uint32_t linear)
{
    uint32_t (*function)(void) = memory_at(linear);
    return function();
}

static void check_code(void)
{
    begin();
    for (unsigned page = 1; page < N_PAGES; page++) {
        store_function(page_at(page) + 4, page);
        expect("new code", page, call_at(page_at(page) + 4), page);
        store_function(page_at(page) + 4, page + 0x10000);
        expect("patched code", page, call_at(page_at(page) + 4), page + 0x10000);
        store_function(page_at(0), page + 0x20000);
        expect("code that is patched each time", page, call_at(page_at(0)), page + 0x20000);
        expect_n_faults(page, page == 1 ? 2 : 1);
    }
    verdict("code in a new page is run, patched and run");
}

/* ---- two address spaces ---- */

static void check_spaces(void)
{
    pte *const spaces[] = {space, space_new()};

    begin();
    for (unsigned i = 0; i < 4 * HALF; i++) {
        unsigned page = i / 4;
        bool is_new = i % 4 < 2;

        space = spaces[i % 2];
        turn = i % 2 * HALF;
        write_cr3((uintptr_t)space);
        if (is_new)
            store_at(page_at(page), i);
        expect("the space's own value", page, load_at(page_at(page)), is_new ? i : i - 2);
        expect("the frame's", page, peek(page_frame(page)), is_new ? i : i - 2);
        expect_n_faults(page, is_new);
    }
    turn = 0;
    space = spaces[0];
    write_cr3((uintptr_t)space);
    verdict("two address spaces do not mix");
}

/* ---- a device in its place ---- */

enum { APIC = 0xfee00000, TASK_PRIORITY = 0x80 };

static void map_device(uint32_t rights)
{
    *entry_of(0) = APIC | rights;
    invlpg(page_at(0));
}

/* The local APIC's task priority, that is, and memory, and neither, by turns, all at one address. */
static void check_device(void)
{
    const uint32_t linear = page_at(0) + TASK_PRIORITY, in_frame = page_frame(0) + TASK_PRIORITY;

    begin();
    for (unsigned i = 0; i < 300; i++) {
        uint32_t priority = i % 16 << 4;

        map_device(RW);
        load_at(linear);
        expect_bits("A, D after a load", 0, PTE_A);
        store_at(linear, priority);
        expect_bits("A, D after a store", 0, PTE_A | PTE_D);
        expect("the device", 0, load_at(linear), priority);
        expect_n_faults(0, 0);

        clear_bits(0); /* memory */
        store_at(linear, i);
        expect("memory", 0, load_at(linear), i);
        expect("its frame", 0, peek(in_frame), i);
        expect_n_faults(0, 0);

        map_device(RO);
        expect("the device, which has not changed", 0, load_at(linear), priority);
        store_at(linear, i + 1000); /* its handler makes it memory */
        expect_fault(0, storing, linear, PF_PRESENT | PF_WRITE);
        expect("memory instead of the device", 0, peek(in_frame), i + 1000);

        *entry_of(0) = 0;
        invlpg(page_at(0));
        expect("memory, after a fault", 0, load_at(linear), i + 1000);
        expect_fault(0, loading, linear, 0);
    }
    map_device(RW);
    store_at(linear, 0);
    verdict("a device's page, memory and nothing by turns");
}

/* ---- a division that fails ---- */

CODE(divide, "div %ebx")

static unsigned n_divide_errors;

/* The instruction is run again with another divisor. */
static void on_divide_error(struct trap_frame *frame)
{
    n_divide_errors++;
    fault_frame = *frame;
    frame->ebx = 7;
}

static void check_division(void)
{
    code *dividing;

    trap_set_handler(VECTOR_DE, on_divide_error);
    begin();
    dividing = fresh(divide);
    for (unsigned i = 0; i < 1000; i++) {
        bool is_zero = i % 3 == 0, is_large = i % 3 == 1; /* the quotient would be */
        uint32_t quotient = is_zero ? i / 7 : is_large ? 613566756 + (i + 4) / 7 : 0; /* 2^32 is 4 more */
        uint32_t remainder = is_zero ? i % 7 : is_large ? (i + 4) % 7 : i;
        struct registers result;

        probe_registers = (struct registers){.eax = i,
                                             .ebx = is_zero    ? 0
                                                    : is_large ? 1
                                                               : i + 1,
                                             .edx = is_large};
        result = probe_kernel(dividing).registers;
        expect("number of errors", i, n_divide_errors, is_zero || is_large);
        if (n_divide_errors != 0) {
            expect("EIP", i, fault_frame.eip, (uintptr_t)dividing);
            expect("EAX in the handler", i, fault_frame.eax, i);
            expect("EDX in the handler", i, fault_frame.edx, is_large);
        }
        expect("quotient", i, result.eax, quotient);
        expect("remainder", i, result.edx, remainder);
        n_divide_errors = 0;
    }
    verdict("a division that fails, and one that does not, by turns");
}

/* ---- the handler is where the instruction would go on ---- */

/* Ring 3 comes to `behind_next` when the store is done, and ring 0 when it has faulted. EDI tells which. */
extern uint8_t behind[], behind_next[];
__asm__(".pushsection .user_text, \"ax\"\n"
        "behind:\n"
        "       mov     %eax, (%ebx)\n"
        "behind_next:\n"
        "       push    $0x1234\n"
        "       test    %edi, %edi\n"
        "       jnz     1f\n"
        "       add     $4, %esp\n"
        "       ret\n"
        "1:     mov     $behind_end, %eax\n"
        "       jmp     *%eax\n"
        ".popsection\n");

static uint32_t kernel_stack[PAGE_SIZE / 4] __attribute__((aligned(4096)));
enum { FRAME_SIZE = 6 * 4 }; /* error code, EIP, CS, EFLAGS, ESP, SS */

__attribute__((used)) static void end_behind(void)
{
    const uint32_t *flat = memory_at((uintptr_t)user_stack + PAGE_SIZE / 2 - FRAME_SIZE - 4);

    check_equal("a handler behind the instruction: its push is on its stack",
                kernel_stack[PAGE_SIZE / 8 - FRAME_SIZE / 4 - 1], 0x1234);
    check_equal("and nowhere else", *flat, 0);
    report();
}

/* The handler's stack is not flat. */
__asm__("behind_end:\n"
        "       mov     $0x10, %eax\n"
        "       mov     %eax, %ss\n"
        "       mov     $end_behind_stack, %esp\n"
        "       mov     %eax, %ds\n"
        "       mov     %eax, %es\n"
        "       call    end_behind\n");
__attribute__((used, aligned(16))) static uint8_t end_stack[PAGE_SIZE];
__asm__(".set end_behind_stack, end_stack + 4096\n");

static void check_handler_behind(void)
{
    is_user = true;
    page_rights = RW | PTE_U;
    begin();
    for (unsigned page = 0; page < 20; page++) {
        probe_registers = (struct registers){.ebx = page_at(page)};
        probe_user((code *)behind);
        expect_fault(page, (code *)behind, page_at(page), PF_WRITE | PF_USER);
    }
    verdict("ring 3 stores, in a place that is known by now");

    gdt[SEL_FREE / 8] = descriptor((uintptr_t)kernel_stack - (uintptr_t)user_stack, UINT32_MAX, DESC_DATA);
    tss.ss0 = SEL_FREE;
    tss.esp0 = (uintptr_t)user_stack + PAGE_SIZE / 2;
    idt[VECTOR_PF] = gate(SEL_KERNEL_CODE, (uintptr_t)behind_next, DESC_INTERRUPT_GATE);
    probe_registers = (struct registers){.ebx = page_at(40), .edi = 1};
    probe_user((code *)behind);
}

void guest_main(void)
{
    space = space_new();
    paging_on(space);
    give = give_page;
    trap_set_handler(VECTOR_PF, on_page_fault);

    check_accessed_and_dirty();
    page_rights = RW | PTE_U;
    check_rights("rights: the kernel loads", false, false);
    check_rights("rights: the kernel stores", false, true);
    check_rights("rights: ring 3 loads", true, false);
    check_rights("rights: ring 3 stores", true, true);
    page_rights = RW;
    check_copy_on_write();
    check_remapping();
    check_repetition();
    check_aliases();
    check_tables();
    check_code();
    check_spaces();
    check_device();
    check_division();
    check_handler_behind(); /* does not return */
}
