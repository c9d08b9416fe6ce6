/*
 * demand: pages that come when they are touched.
 *
 * The lesson: a kernel gives out memory page by page. The first touch of a page is a page fault; the handler
 * maps a frame, and the instruction is tried again as if nothing had been. What walks through memory faults
 * at page after page, and a monitor that sees one instruction fault again and again may find a cheaper way
 * than that of the first times, and leave it when the faults end. What the processor promises holds in every
 * way: so here one and the same instruction meets a hundred pages, and after each of them it is asked how
 * often it faulted, with what error code, CR2, EIP and registers, and what is in memory.
 *
 * Read next: reuse.c, where the pages do not stay what they are.
 */
#include "guest.h"

enum { RW = PTE_P | PTE_W, WINDOW = 0x40000000, N_PAGES = 96, HALF = N_PAGES / 2 };

static uint8_t memory[N_PAGES][PAGE_SIZE] __attribute__((aligned(4096)));
static pte *space;

/* The frames lie in the other order than the pages: what runs over the end of a page is in the wrong one. */
static uint32_t page_frame(unsigned page)
{
    return (uintptr_t)memory[N_PAGES - 1 - page];
}

static uint32_t page_at(unsigned page)
{
    return WINDOW + page * PAGE_SIZE;
}

static unsigned page_of(uint32_t linear)
{
    return (linear - WINDOW) / PAGE_SIZE;
}

/* ---- faults: those that were foreseen, and those that were met ---- */

struct fault {
    uint32_t cr2, error, eip;
    struct registers registers;
};
enum { MOST_FAULTS = 8 };
struct faults {
    unsigned n;
    struct fault fault[MOST_FAULTS];
};
static struct faults foreseen, met;

static bool is_user;         /* who touches the pages */
static uint32_t page_rights; /* U too? */
static bool reads_first, all_by_write = true;
static bool is_right = true; /* so far in this check */

static void expect(const char *what, uint32_t linear, uint32_t got, uint32_t expected)
{
    if (got != expected && is_right)
        print("     at %08x: %s: %x, expected %x\n", linear, what, got, expected);
    is_right = is_right && got == expected;
}

static void expect_registers(const char *when, uint32_t linear, const struct registers *got,
                             const struct registers *expected)
{
    expect(when, linear, memcmp(got, expected, sizeof *got) == 0, true);
}

static void expect_faults(uint32_t linear)
{
    expect("number of faults", linear, met.n, foreseen.n);
    for (unsigned i = 0; i < met.n && is_right; i++) {
        const struct fault *got = &met.fault[i], *expected = &foreseen.fault[i];

        expect("CR2", linear, got->cr2, expected->cr2);
        expect("error code", linear, got->error, expected->error);
        expect("EIP", linear, got->eip, expected->eip);
        expect_registers("registers at the fault are right", linear, &got->registers, &expected->registers);
    }
    met.n = foreseen.n = 0;
}

static void on_page_fault(struct trap_frame *frame)
{
    uint32_t cr2 = read_cr2();

    if (page_of(cr2) >= N_PAGES || met.n == MOST_FAULTS)
        fail("page fault %u at %08x by %08x", met.n, cr2, frame->eip);
    if (reads_first && !(frame->error & PF_WRITE)) { /* see `rmw` in README.md */
        all_by_write = false;
        frame->error |= PF_WRITE;
    }
    struct registers registers = {frame->eax, frame->ecx, frame->edx, frame->ebx, frame->esi, frame->edi};
    met.fault[met.n++] = (struct fault){cr2, frame->error, frame->eip, registers};
    space_map(space, cr2 & ~0xfffu, page_frame(page_of(cr2)), page_rights);
}

/*
 * A kernel whose own stack is absent has no place for the frame of a fault: then #PF goes through a task
 * gate, to a task with a stack of its own.
 */
static struct tss fault_task;
static uint8_t fault_stack[PAGE_SIZE] __attribute__((aligned(16)));
extern uint8_t fault_entry[];

__attribute__((used)) static void on_stack_fault(uint32_t error)
{
    struct trap_frame frame = {.error = error, .eip = tss.eip, .eax = tss.eax, .ecx = tss.ecx};

    frame.edx = tss.edx;
    frame.ebx = tss.ebx;
    frame.esi = tss.esi;
    frame.edi = tss.edi;
    on_page_fault(&frame);
}

__asm__("fault_entry:\n" /* the error code is on the stack: the parameter */
        "       call    on_stack_fault\n"
        "       add     $4, %esp\n"
        "       iret\n"
        "       jmp     fault_entry\n"); /* the next fault goes on after the iret */

static void prepare_fault_task(void)
{
    fault_task = (struct tss){.cr3 = (uintptr_t)space, .eip = (uintptr_t)fault_entry, .eflags = EFLAGS_FIXED};
    fault_task.esp = (uintptr_t)(fault_stack + sizeof fault_stack);
    fault_task.es = fault_task.ss = fault_task.ds = SEL_KERNEL_DATA;
    fault_task.cs = SEL_KERNEL_CODE;
    fault_task.io_map_base = 0xffff;
    tss.cr3 = (uintptr_t)space;
    gdt[SEL_OTHER_TSS / 8] = descriptor((uintptr_t)&fault_task, sizeof fault_task - 1, DESC_TSS);
}

/* ---- a model of the window: which pages are there, and what they hold ---- */

static uint8_t model[N_PAGES * PAGE_SIZE] __attribute__((aligned(4096)));
static bool is_present[N_PAGES];

static uint32_t in_model(uint32_t linear)
{
    return (uintptr_t)model + (linear - WINDOW);
}

static uint32_t in_frame(uint32_t linear)
{
    return page_frame(page_of(linear)) + linear % PAGE_SIZE;
}

static void fill_window(void)
{
    for (uint32_t at = WINDOW; at < page_at(N_PAGES); at += 4) {
        poke(in_frame(at), at * 0x1001);
        poke(in_model(at), at * 0x1001);
    }
}

static void empty_window(void)
{
    for (unsigned page = 0; page < N_PAGES; page++)
        space_map(space, page_at(page), 0, 0);
    write_cr3(read_cr3());
    memset(is_present, false, sizeof is_present);
}

/* A word is about to be accessed: each page of it that is absent will be a fault. */
static void foresee(uint32_t linear, uint32_t access, uint32_t eip, const struct registers *registers)
{
    if (is_present[page_of(linear)] && is_present[page_of(linear + 3)])
        return;
    for (uint32_t at = linear; at < linear + 4; at = (at | 0xfff) + 1) {
        if (!is_present[page_of(at)])
            foreseen.fault[foreseen.n++] =
                (struct fault){at, access | (is_user ? PF_USER : 0), eip, *registers};
        is_present[page_of(at)] = true;
    }
}

/* The word and its neighbours, which may be in the next page. */
static void expect_around(uint32_t linear)
{
    for (uint32_t at = (linear & ~3u) - 16; at <= linear + 16; at += 4)
        if (page_of(at) < N_PAGES)
            expect("memory", at, peek(in_frame(at)), peek(in_model(at)));
}

static void expect_pages(unsigned first, unsigned n)
{
    for (unsigned page = first; page < first + n; page++) {
        uint32_t a = page_frame(page), b = in_model(page_at(page)), count = PAGE_SIZE / 4;
        bool is_same;

        __asm__ volatile("repe cmpsl; sete %0" : "=q"(is_same), "+S"(a), "+D"(b), "+c"(count) : : "memory");
        expect("the page is as it ought to be", page_at(page), is_same, true);
    }
}

static void verdict(const char *name)
{
    check(name, is_right);
    is_right = true;
}

/* ---- instructions, each in a copy that no engine has seen before ---- */

typedef void code(void);
enum { COPY_SIZE = 32 };
static uint8_t kernel_code[PAGE_SIZE] __attribute__((aligned(4096)));
USER_DATA static uint8_t user_code[PAGE_SIZE] __attribute__((aligned(4096)));
USER_DATA __attribute__((used)) static uint32_t saved_esp __asm__("demand_saved_esp");

static code *fresh(code *original)
{
    static unsigned n_copies;
    uint8_t *copy = (is_user ? user_code : kernel_code) + n_copies++ * COPY_SIZE;

    if (n_copies * COPY_SIZE > sizeof kernel_code)
        fail("no room for one more piece of code");
    memcpy(copy, memory_at((uintptr_t)original), COPY_SIZE);
    return memory_at((uintptr_t)copy);
}

static struct trap run(code *copy)
{
    return is_user ? probe_user(copy) : probe_kernel(copy);
}

/* Each is done ECX times. */
#define REPEATED(name, text) CODE(name, "1:\t" text "\n\tdec %ecx\n\tjnz 1b")
#define ON_STACK_EBX(name, text)                                                                             \
    REPEATED(name, "mov %esp, demand_saved_esp\n\tmov %ebx, %esp\n\t" text                                   \
                   "\n\tmov %esp, %edx\n\tmov demand_saved_esp, %esp")
enum { STACK_LEAD = 8, CALL_SIZE = 5 }; /* the two moves before; a near call */

REPEATED(load, "mov (%ebx), %eax")
REPEATED(store, "mov %eax, (%ebx)")
REPEATED(add, "add %eax, (%ebx)")
REPEATED(exchange, "xchg %eax, (%ebx)")
REPEATED(exchange_add, "lock xadd %eax, (%ebx)")
REPEATED(push_from, "push (%ebx)\n\tpop %eax")
REPEATED(pop_to, "push %eax\n\tpop (%ebx)")
ON_STACK_EBX(push, "push %eax")
ON_STACK_EBX(pop, "pop %eax")
ON_STACK_EBX(call, "call 2f\n2:")
CODE(fill, "rep stosl")
CODE(fill_down, "std\n\trep stosl\n\tcld")
CODE(copy, "rep movsl")
CODE(copy_down, "std\n\trep movsl\n\tcld")

enum kind { LOADS, STORES, CHANGES, LOCKED }; /* the last two load and store */
enum value { OLD, GIVEN, SUM, RETURN };       /* memory's, EAX's, both, a return address */

static const struct instruction {
    const char *name;
    code *code;
    unsigned lead; /* bytes before what reaches for memory */
    enum kind kind;
    enum value eax, word;           /* afterwards */
    unsigned esp_before, esp_after; /* beyond the word; equal: it is not on the stack */
} instructions[] = {
    {"  load", load, 0, LOADS, OLD, OLD, 0, 0},
    {"  store", store, 0, STORES, GIVEN, GIVEN, 0, 0},
    {"  add", add, 0, CHANGES, GIVEN, SUM, 0, 0},
    {"  xchg", exchange, 0, LOCKED, OLD, GIVEN, 0, 0},
    {"  lock xadd", exchange_add, 0, LOCKED, OLD, SUM, 0, 0},
    {"  push from memory", push_from, 0, LOADS, OLD, OLD, 0, 0},
    {"  pop to memory", pop_to, 1, STORES, GIVEN, GIVEN, 0, 0},
    {"  push", push, STACK_LEAD, STORES, GIVEN, GIVEN, 4, 0},
    {"  pop", pop, STACK_LEAD, LOADS, OLD, OLD, 0, 4},
    {"  call", call, STACK_LEAD, STORES, GIVEN, RETURN, 4, 0},
};

static bool is_on_stack(const struct instruction *instruction)
{
    return instruction->esp_before != instruction->esp_after;
}

static void touch(const struct instruction *instruction, code *copy, uint32_t linear, unsigned times)
{
    static uint32_t given;
    uint32_t eip = (uintptr_t)copy + instruction->lead, word = peek(in_model(linear));
    struct registers registers = {given += 0x01020305, times, 2, linear + instruction->esp_before, 4, 5};

    probe_registers = registers;
    foresee(linear, instruction->kind == LOADS ? 0 : PF_WRITE, eip, &registers);
    for (; registers.ecx != 0; registers.ecx--) {
        const uint32_t values[] = {word, registers.eax, word + registers.eax, eip + CALL_SIZE};

        registers.eax = values[instruction->eax];
        word = values[instruction->word];
    }
    if (is_on_stack(instruction))
        registers.edx = linear + instruction->esp_after;
    poke(in_model(linear), word);

    struct trap trap = run(copy);
    expect("trap", linear, trap.vector, NO_TRAP);
    expect_faults(linear);
    expect_registers("registers afterwards are right", linear, &trap.registers, &registers);
    expect_around(linear);
}

/* Absent pages until an engine has learned it, then one page until it has unlearned it, and again. */
static void check_instruction(const struct instruction *instruction, uint32_t offset)
{
    /* What goes on into the next page finds both absent, the first, the second, none. */
    static const uint8_t order[] = {1, 0, 2, 2};
    code *copy = fresh(instruction->code);
    uint64_t usual_gate = idt[VECTOR_PF];

    if (is_on_stack(instruction) && !is_user)
        idt[VECTOR_PF] = gate(SEL_OTHER_TSS, 0, DESC_TASK_GATE);
    reads_first = instruction->kind >= CHANGES;
    empty_window();
    for (unsigned i = 0; i < N_PAGES; i++) {
        touch(instruction, copy, page_at(i - i % 4 + order[i % 4]) + offset, 1);
        if (i % (N_PAGES / 3) == N_PAGES / 3 - 1)
            touch(instruction, copy, page_at(i - i % 4 + order[i % 4]) + offset, 200);
    }
    reads_first = false;
    idt[VECTOR_PF] = usual_gate;
    verdict(instruction->name);
}

/* ---- string instructions ---- */

/* The model does it word by word, and says where it will be interrupted. */
static void foresee_string(struct registers *registers, uint32_t eip, bool copies, uint32_t step)
{
    for (; registers->ecx != 0; registers->ecx--) {
        if (copies)
            foresee(registers->esi, 0, eip, registers);
        foresee(registers->edi, PF_WRITE, eip, registers);
        poke(in_model(registers->edi), copies ? peek(in_model(registers->esi)) : registers->eax);
        registers->esi += copies ? step : 0;
        registers->edi += step;
    }
}

/* From the end of a page on, or down from the beginning of the next but one; every second time misaligned. */
static void touch_string(code *instruction, unsigned page, uint32_t count, bool copies, bool is_down)
{
    uint32_t from = (is_down ? page_at(page + 2) + 0x40 : page_at(page) + 0xfc0) - page % 2 * 2;
    uint32_t to = copies ? from + HALF * PAGE_SIZE + (is_down ? 0x20 : -0x20u) : from;
    struct registers registers = {page * 0x01010101 + count, count, 2, 3, from, to};

    probe_registers = registers;
    foresee_string(&registers, (uintptr_t)instruction + is_down, copies, is_down ? -4u : 4);
    struct trap trap = run(instruction);
    expect("trap", to, trap.vector, NO_TRAP);
    expect_faults(to);
    expect_registers("registers afterwards are right", to, &trap.registers, &registers);
}

/* Three pages each time, and now and then a few words that are there. */
static void check_string(const char *name, code *original, bool copies, bool is_down)
{
    code *instruction = fresh(original);

    empty_window();
    for (unsigned page = 0; page + 2 < (copies ? HALF : N_PAGES); page += 3) {
        touch_string(instruction, page, PAGE_SIZE / 4 + 0x24, copies, is_down);
        for (unsigned n = 0; n < 100 && page % 30 == 27; n++)
            touch_string(instruction, page, n % 8, copies, is_down);
        expect_pages(page + (copies ? HALF : 0), 3);
    }
    verdict(name);
}

/* ---- by all who may ---- */

static void check_all(const char *who, bool by_user, uint32_t rights)
{
    is_user = by_user;
    page_rights = rights;
    for (uint32_t offset = 8; offset < PAGE_SIZE; offset += PAGE_SIZE - 2 - 8) {
        print("%s, %s:\n", who, offset == 8 ? "one page" : "across two pages");
        for (unsigned i = 0; i < sizeof instructions / sizeof instructions[0]; i++)
            if (offset == 8 ||
                instructions[i].kind != LOCKED) /* a host may forbid locks across a cache line */
                check_instruction(&instructions[i], offset);
    }
    print("%s, repeated:\n", who);
    check_string("  rep stosd", fill, false, false);
    check_string("  rep stosd, down", fill_down, false, true);
    fill_window(); /* what is copied is different in each word */
    check_string("  rep movsd", copy, true, false);
    check_string("  rep movsd, down", copy_down, true, true);
    expect_pages(0, N_PAGES);
    verdict("  and nothing else has changed");
}

void guest_main(void)
{
    space = space_new();
    paging_on(space);
    prepare_fault_task();
    trap_set_handler(VECTOR_PF, on_page_fault);
    fill_window();

    check_all("the kernel", false, RW);
    check_all("the kernel, in pages of ring 3", false, RW | PTE_U);
    check_all("ring 3", true, RW | PTE_U);
    check_option("rmw", "what loads and stores faults as a store", all_by_write);
}
