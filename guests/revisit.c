/*
 * revisit: an instruction comes to the same page again.
 *
 * The lesson: what a processor has found in the page tables it keeps, until it is told to forget. An engine
 * that has to look pages up for one instruction (see demand.c and reuse.c) will keep what it found as well,
 * and then it must know what it may keep it for: for the same page, all of the operand's bytes, the same kind
 * of access, the same privilege, and not longer than a processor would. So here each instruction walks over
 * 12 pages as it likes: it stays, goes on, returns, and reaches over the end of a page into the next, whose
 * frame lies elsewhere. When it has done so the pages go, and come back as other frames. At last the timer
 * interrupts all that.
 *
 * With the word `sysenter` (README.md) ring 3 comes, by SYSEXIT, to pages where the kernel has just been.
 *
 * Read next: copies.c, for instructions that touch many places.
 */
#include "guest.h"

enum { WINDOW = 0x40000000, N_PAGES = 12, N_VISITS = 400, N_ROUNDS = 8, FRAME_STEP = 7 };

static uint8_t memory[N_PAGES][PAGE_SIZE] __attribute__((aligned(4096)));
static uint8_t expected[N_PAGES][PAGE_SIZE]
    __attribute__((aligned(4))); /* of each page, wherever its frame is */
USER_DATA static uint32_t visits[N_VISITS];
static pte *space;
static unsigned turn; /* of the frames */
static bool is_user;  /* who does it */

static uint32_t page_at(unsigned page)
{
    return WINDOW + page * PAGE_SIZE;
}

/* Neighbours have frames that are none. */
static uint8_t *frame_of(unsigned page)
{
    return memory[(page * FRAME_STEP + turn) % N_PAGES];
}

/* ---- faults, interrupts ---- */

static unsigned n_faults, n_interrupts;

static void on_page_fault(struct trap_frame *frame)
{
    uint32_t cr2 = read_cr2();
    unsigned page = (cr2 - WINDOW) / PAGE_SIZE;

    if (page >= N_PAGES || *space_entry(space, cr2) != 0)
        fail("page fault at %08x by %08x", cr2, frame->eip);
    *space_entry(space, cr2) = (uintptr_t)frame_of(page) | PTE_P | PTE_W | (is_user ? PTE_U : 0);
    n_faults++;
}

static void on_timer(struct trap_frame *frame)
{
    (void)frame;
    n_interrupts++;
    pic_eoi(IRQ_TIMER);
}

/* ---- the walk ---- */

static uint32_t seed = 1;

static uint32_t any(uint32_t below)
{
    seed = seed * 1664525 + 1013904223;
    return (seed >> 8) % below;
}

/* Half of the time it stays in the page. One visit in eight is at the end, where an operand may reach over
 * it. (With LOCK that takes some processors thousands of times as long.) */
static void plan_visits(unsigned size, bool is_locked)
{
    unsigned page = 0;

    for (unsigned i = 0; i < N_VISITS; i++) {
        unsigned offset = any(8) == 0 ? PAGE_SIZE - 1 - any(size) : any(PAGE_SIZE - size);

        if (any(2) == 0)
            page = any(N_PAGES - 1);
        visits[i] = page_at(page) + (is_locked ? offset & ~3u : offset);
    }
}

static void empty_window(void)
{
    for (unsigned page = 0; page < N_PAGES; page++)
        *space_entry(space, page_at(page)) = 0;
    write_cr3((uintptr_t)space);
}

/* The frames that the pages have from now on show what is expected of them. */
static void fill_frames(void)
{
    for (unsigned page = 0; page < N_PAGES; page++)
        memcpy(frame_of(page), expected[page], PAGE_SIZE);
}

/* Of the bytes of an operand, which are contiguous in what is expected as they are for the instruction. */
static bool is_touched[N_PAGES];

static uint8_t *model_at(uint32_t linear, unsigned size)
{
    is_touched[(linear - WINDOW) / PAGE_SIZE] = true;
    is_touched[(linear + size - 1 - WINDOW) / PAGE_SIZE] = true;
    return expected[0] + (linear - WINDOW);
}

static uint64_t model_read(uint32_t linear, unsigned size)
{
    uint64_t value = 0;

    memcpy(&value, model_at(linear, size), size);
    return value;
}

static void model_write(uint32_t linear, unsigned size, uint64_t value)
{
    memcpy(model_at(linear, size), &value, size);
}

/* ---- the instructions: EBX is where, EDI counts down, EAX and EDX go from one visit to the next ---- */

#define WALK(instruction) "1: mov (%esi), %ebx\n add $4, %esi\n " instruction "\n dec %edi\n jnz 1b\n ret"
/* ESP is where; in ring 3 only, where no interrupt is pushed there. */
#define WALK_ON_STACK(instruction)                                                                           \
    "mov %esp, %ebp\n 1: mov (%esi), %esp\n add $4, %esi\n " instruction                                     \
    "\n dec %edi\n jnz 1b\n mov %ebp, %esp\n ret"

typedef void model(uint32_t at, struct registers *registers);

struct kind {
    const char *name;
    unsigned size;
    enum { USUAL, LOCKED, ON_STACK } manner;
    const uint8_t *code, *end;
    model *model;
};

#define KIND(label, text)                                                                                    \
    extern const uint8_t label##_code[], label##_end[];                                                      \
    __asm__(".pushsection .rodata\n" #label "_code: " text "\n" #label "_end:\n.popsection")

KIND(load, WALK("add (%ebx), %eax"));
KIND(store, WALK("mov %edi, (%ebx)"));
KIND(store_byte, WALK("mov %dl, (%ebx)\n inc %edx"));
KIND(store_word, WALK("mov %di, (%ebx)"));
KIND(increment, WALK("incl (%ebx)"));
KIND(add_word, WALK("mov $0x80000010, %ebp\n add %di, 0x7ffffff0(%ebx, %ebp)"));
KIND(exchange, WALK("xchg %eax, (%ebx)"));
KIND(exchange_add, WALK("lock xadd %eax, (%ebx)"));
KIND(compare_eight, WALK("cmpxchg8b (%ebx)"));
KIND(bit, WALK("btcl $5, (%ebx)\n adc $0, %eax"));
KIND(push, WALK_ON_STACK("add $4, %esp\n push %edi"));
KIND(pop, WALK_ON_STACK("pop %edx\n add %edx, %eax"));

static void model_load(uint32_t at, struct registers *registers)
{
    registers->eax += model_read(at, 4);
}

static void model_store(uint32_t at, struct registers *registers)
{
    model_write(at, 4, registers->edi);
}

static void model_store_byte(uint32_t at, struct registers *registers)
{
    model_write(at, 1, registers->edx++);
}

static void model_store_word(uint32_t at, struct registers *registers)
{
    model_write(at, 2, registers->edi);
}

static void model_increment(uint32_t at, struct registers *registers)
{
    (void)registers;
    model_write(at, 4, model_read(at, 4) + 1);
}

static void model_add_word(uint32_t at, struct registers *registers)
{
    model_write(at, 2, model_read(at, 2) + registers->edi);
}

static void model_exchange(uint32_t at, struct registers *registers)
{
    uint32_t old = model_read(at, 4);

    model_write(at, 4, registers->eax);
    registers->eax = old;
}

static void model_exchange_add(uint32_t at, struct registers *registers)
{
    uint32_t old = model_read(at, 4);

    model_write(at, 4, old + registers->eax);
    registers->eax = old;
}

static void model_compare_eight(uint32_t at, struct registers *registers)
{
    uint64_t old = model_read(at, 8);

    if (old == ((uint64_t)registers->edx << 32 | registers->eax)) {
        model_write(at, 8, (uint64_t)registers->ecx << 32 | at);
    } else {
        model_write(at, 8, old);
        registers->edx = old >> 32;
        registers->eax = (uint32_t)old;
    }
}

static void model_bit(uint32_t at, struct registers *registers)
{
    uint32_t old = model_read(at, 4);

    model_write(at, 4, old ^ 1 << 5);
    registers->eax += old >> 5 & 1;
}

static void model_push(uint32_t at, struct registers *registers)
{
    model_write(at, 4, registers->edi);
}

static void model_pop(uint32_t at, struct registers *registers)
{
    registers->edx = model_read(at, 4);
    registers->eax += registers->edx;
}

#define ROW(label, text, size, manner)                                                                       \
    {                                                                                                        \
        text, size, manner, label##_code, label##_end, model_##label                                         \
    }
static const struct kind kinds[] = {
    ROW(load, "add mem, reg", 4, USUAL),
    ROW(store, "mov reg, mem", 4, USUAL),
    ROW(store_byte, "mov reg8, mem", 1, USUAL),
    ROW(store_word, "mov reg16, mem", 2, USUAL),
    ROW(increment, "inc mem", 4, USUAL),
    ROW(add_word, "add reg16, mem, with an index", 2, USUAL),
    ROW(exchange, "xchg reg, mem", 4, LOCKED),
    ROW(exchange_add, "lock xadd reg, mem", 4, LOCKED),
    ROW(compare_eight, "cmpxchg8b mem", 8, USUAL),
    ROW(bit, "btc imm, mem", 4, USUAL),
    ROW(push, "push reg", 4, ON_STACK),
    ROW(pop, "pop reg", 4, ON_STACK),
};
enum { N_KINDS = sizeof kinds / sizeof kinds[0] };

/* ---- running it ---- */

enum { COPY_SIZE = 64, N_COPIES = N_KINDS * 4 };
static uint8_t kernel_code[N_COPIES][COPY_SIZE] __attribute__((aligned(4096)));
USER_DATA static uint8_t user_code[N_COPIES][COPY_SIZE] __attribute__((aligned(4096)));
static unsigned n_copies;

/* A copy that no engine has seen before. */
static void *fresh(const struct kind *kind)
{
    uint8_t *copy = is_user ? user_code[n_copies] : kernel_code[n_copies];

    if (++n_copies > N_COPIES || kind->end - kind->code > COPY_SIZE)
        fail("no room for another copy");
    return memcpy(copy, kind->code, (size_t)(kind->end - kind->code));
}

static struct registers run(void (*code)(void), bool is_interrupted)
{
    struct trap trap;

    if (is_user) {
        user_stack[1023] = (uintptr_t)user_return;
        trap = probe_user_with(code, user_stack_top() - 4, is_interrupted ? EFLAGS_IF : 0);
    } else {
        if (is_interrupted)
            sti();
        trap = probe_kernel(code);
        cli();
    }
    if (trap.vector != NO_TRAP)
        fail("trap %u at %08x", trap.vector, trap.eip);
    return trap.registers;
}

static bool is_same_page(const void *a, const void *b)
{
    const uint32_t *of_a = a, *of_b = b;

    for (unsigned i = 0; i < PAGE_SIZE / 4; i++)
        if (of_a[i] != of_b[i])
            return false;
    return true;
}

static bool is_as_expected(const struct registers *got, const struct registers *model)
{
    unsigned n_touched = 0;

    for (unsigned page = 0; page < N_PAGES; page++) {
        n_touched += is_touched[page];
        if (!is_same_page(frame_of(page), expected[page])) {
            print("     page %u is not what it should be\n", page);
            return false;
        }
    }
    if (got->eax != model->eax || got->edx != model->edx || n_faults != n_touched)
        print("     eax %x, edx %x, %u faults; expected %x, %x, %u\n", got->eax, got->edx, n_faults,
              model->eax, model->edx, n_touched);
    return got->eax == model->eax && got->edx == model->edx && n_faults == n_touched;
}

/* All visits, by the instruction and by its model. */
static bool do_round(const struct kind *kind, void (*code)(void), bool is_interrupted)
{
    struct registers got, model = {.eax = any(1000), .ecx = any(1000), .edx = any(1000), .edi = N_VISITS};

    plan_visits(kind->size, kind->manner == LOCKED);
    fill_frames();
    empty_window();
    memset(is_touched, 0, sizeof is_touched);
    n_faults = 0;
    probe_registers = model;
    probe_registers.esi = (uintptr_t)visits;
    for (; model.edi > 0; model.edi--)
        kind->model(visits[N_VISITS - model.edi], &model);
    got = run(code, is_interrupted);
    return is_as_expected(&got, &model);
}

static char *append(char *to, const char *text)
{
    while (*text != '\0')
        *to++ = *text++;
    *to = '\0';
    return to;
}

static void check_kind(const struct kind *kind, bool is_interrupted)
{
    void (*code)(void) = (void (*)(void))(uintptr_t)fresh(kind);
    bool is_right = true;
    char name[80];

    for (unsigned round = 0; round < N_ROUNDS && is_right; round++) {
        turn = round;
        is_right = do_round(kind, code, is_interrupted);
    }
    append(append(append(name, is_user ? "ring 3, " : "ring 0, "), is_interrupted ? "interrupted, " : ""),
           kind->name);
    check(name, is_right);
}

/* The kernel's stack is there for interrupts and faults as well: it does not walk. */
static void check_kinds(bool by_user, bool is_interrupted)
{
    is_user = by_user;
    n_copies = is_interrupted ? N_KINDS : 0;
    for (unsigned i = 0; i < N_KINDS; i++)
        if (is_user || kinds[i].manner != ON_STACK)
            check_kind(&kinds[i], is_interrupted);
}

/* ---- the wall ---- */

/* Ring 3 tries to load from the page where the kernel has just loaded, by up to 16 instructions, each of
 * which the handler skips; then it calls, and the kernel loads from a page on. EDI counts down, and ESI says
 * by which of the 16 it is tried first. */
enum { MSR_SYSENTER_CS = 0x174, MSR_SYSENTER_ESP = 0x175, MSR_SYSENTER_EIP = 0x176 };
enum { CODE_0 = 0x48, CODE_3 = 0x58 | 3, N_TRIES = 16, TRY_SIZE = 2 };
extern uint8_t climb_enter[], climb_call[], climb_over[], climb_load[];
__asm__("climb_enter:\n"
        "       add     $4096, %ebx\n"
        "climb_load:\n"
        "       mov     (%ebx), %eax\n"
        "       inc     %esi\n"
        "       and     $15, %esi\n"
        "       lea     climb_call(%esi, %esi), %edx\n"
        "       sysexit\n"
        ".pushsection .user_text, \"ax\"\n"
        "climb_call:\n"
        "       .rept   16\n"
        "       mov     (%ebx), %eax\n"
        "       .endr\n"
        "       mov     %esp, %ecx\n"
        "       dec     %edi\n"
        "       jz      climb_over\n"
        "       sysenter\n"
        "climb_over:\n"
        "       ret\n"
        ".popsection\n");

static uint8_t climb_stack[1024] __attribute__((aligned(16)));
static unsigned n_denied;
static bool is_denied_rightly;

static void on_climb_fault(struct trap_frame *frame)
{
    uint32_t at = frame->eip - (uintptr_t)climb_call;

    if ((frame->cs & 3) == 0) {
        on_page_fault(frame);
        return;
    }
    is_denied_rightly = is_denied_rightly && at < N_TRIES * TRY_SIZE && at % TRY_SIZE == 0 &&
                        (frame->error & ~(uint32_t)PF_PRESENT) == PF_USER;
    n_denied++;
    frame->eip += TRY_SIZE;
}

static void check_wall(void)
{
    gdt[CODE_0 / 8] = gdt[SEL_KERNEL_CODE / 8];
    gdt[CODE_0 / 8 + 1] = gdt[SEL_KERNEL_DATA / 8];
    gdt[CODE_3 / 8] = gdt[SEL_USER_CODE / 8];
    gdt[CODE_3 / 8 + 1] = gdt[SEL_USER_DATA / 8];
    write_msr(MSR_SYSENTER_CS, CODE_0);
    write_msr(MSR_SYSENTER_ESP, (uintptr_t)climb_stack + sizeof climb_stack);
    write_msr(MSR_SYSENTER_EIP, (uintptr_t)climb_enter);
    trap_set_handler(VECTOR_PF, on_climb_fault);
    is_user = false;
    is_denied_rightly = true;
    for (unsigned round = 0; round < 2 * N_ROUNDS; round++) {
        unsigned n_tries = N_TRIES;

        turn = round;
        empty_window();
        user_stack[1023] = (uintptr_t)user_return;
        probe_registers =
            (struct registers){.ebx = page_at(0) - PAGE_SIZE, .esi = round * N_PAGES, .edi = N_PAGES};
        n_denied = 0;
        (void)probe_user_with((void (*)(void))(uintptr_t)climb_call, user_stack_top() - 4, 0);
        for (unsigned i = 1; i < N_PAGES; i++)
            n_tries += N_TRIES - (round * N_PAGES + i) % N_TRIES;
        is_denied_rightly = is_denied_rightly && n_denied == n_tries;
    }
    check_option("sysenter", "ring 3 may not load where the kernel just has", is_denied_rightly);
}

void guest_main(void)
{
    space = space_new();
    paging_on(space);
    trap_set_handler(VECTOR_PF, on_page_fault);
    for (unsigned page = 0; page < N_PAGES; page++)
        for (unsigned i = 0; i < PAGE_SIZE; i++)
            expected[page][i] = any(256);

    check_kinds(false, false);
    check_kinds(true, false);

    pic_init();
    trap_set_handler(IRQ_BASE + IRQ_TIMER, on_timer);
    pit_periodic(8000);
    pic_unmask(IRQ_TIMER);
    check_kinds(false, true);
    check_kinds(true, true);
    pic_mask(IRQ_TIMER);
    check("the timer has interrupted", n_interrupts > 0);

    if (has_option("sysenter"))
        check_wall();
    report();
}
