/*
 * descriptors: what a load of a segment register means is in the descriptor table at that moment.
 *
 * The lesson: a segment register has a visible part, the selector, and a hidden one: base, limit, attributes.
 * A load takes the hidden part from the table, checks it, and marks the descriptor as accessed; from then on
 * the table may change, and the register does not. Kernels load the same selectors thousands of times a
 * second, and a monitor would gladly remember what came out. It must see every change all the same: so each
 * thing is done here often enough to be remembered, then something changes, and it is done again.
 *
 * Read next: faults.c, for selectors that may not be loaded.
 */
#include "guest.h"

enum { OFTEN = 5, BIG_GDT = 64, SEL_TWIN = SEL_SPARE + 256, SEL_LAST = (BIG_GDT - 1) * 8 };
enum { DESC_ACCESSED = 1, ACCESS_SHIFT = 40 };

static volatile uint32_t words[4] = {0x11111111, 0x22222222, 0x33333333, 0x44444444};
static uint64_t big_gdt[BIG_GDT], other_gdt[BIG_GDT];

static uint32_t address_of(volatile uint32_t *word)
{
    return (uintptr_t)word;
}

static uint64_t segment_at(volatile uint32_t *word)
{
    return descriptor(address_of(word), 0xffffffff, DESC_DATA | DESC_ACCESSED);
}

static void use_gdt(uint64_t *table, uint32_t n)
{
    const struct table_register gdtr = {(uint16_t)(n * 8 - 1), (uintptr_t)table};

    load_gdt(&gdtr);
}

/* ---- four ways to load, and what is there then ---- */

struct loaded {
    uint32_t selector, word;
};

static struct loaded by_mov(uint16_t selector)
{
    struct loaded loaded;

    __asm__ volatile("mov %2, %%fs; mov %%fs, %0; mov %%fs:0, %1"
                     : "=&r"(loaded.selector), "=r"(loaded.word)
                     : "r"((uint32_t)selector)
                     : "memory");
    return loaded;
}

static struct loaded by_mov_from_memory(uint16_t selector)
{
    struct loaded loaded;

    __asm__ volatile("movw %2, %%gs; mov %%gs, %0; mov %%gs:0, %1"
                     : "=&r"(loaded.selector), "=r"(loaded.word)
                     : "m"(selector)
                     : "memory");
    return loaded;
}

static struct loaded by_pop(uint16_t selector)
{
    struct loaded loaded;
    uint32_t moved;

    __asm__ volatile("mov %%esp, %2; push %3; pop %%fs; sub %%esp, %2; mov %%fs, %0; mov %%fs:0, %1"
                     : "=&r"(loaded.selector), "=&r"(loaded.word), "=&r"(moved)
                     : "r"(0xabcd0000u | selector)
                     : "memory");
    check_equal("pop fs: esp is where it was", moved, 0);
    return loaded;
}

static struct loaded by_pop_gs(uint16_t selector)
{
    struct loaded loaded;

    __asm__ volatile("push %2; pop %%gs; mov %%gs, %0; mov %%gs:0, %1"
                     : "=&r"(loaded.selector), "=r"(loaded.word)
                     : "r"((uint32_t)selector)
                     : "memory");
    return loaded;
}

typedef struct loaded load_function(uint16_t selector);

static const struct {
    const char *name;
    load_function *load;
} ways[] = {
    {"mov fs, reg", by_mov}, {"mov gs, mem", by_mov_from_memory}, {"pop fs", by_pop}, {"pop gs", by_pop_gs}};

static const char *way; /* for the names of checks */

static void check_loaded(const char *what, struct loaded loaded, uint16_t selector, uint32_t word)
{
    if (loaded.selector != selector || loaded.word != word)
        print("%s: selector %04x, word %08x\n", way, loaded.selector, loaded.word);
    check(what, loaded.selector == selector && loaded.word == word);
}

static void check_often(const char *what, load_function *load, uint16_t selector, uint32_t word)
{
    for (unsigned i = 0; i + 1 < OFTEN; i++)
        (void)load(selector);
    check_loaded(what, load(selector), selector, word);
}

/* ---- changes ---- */

static void check_way(load_function *load)
{
    print("%s:\n", way);
    memcpy(big_gdt, gdt, sizeof gdt);
    big_gdt[SEL_SPARE / 8] = segment_at(&words[0]);
    big_gdt[SEL_TWIN / 8] = segment_at(&words[0]);
    big_gdt[SEL_LAST / 8] = segment_at(&words[3]);
    use_gdt(big_gdt, BIG_GDT);
    check_often("a segment", load, SEL_SPARE, words[0]);

    big_gdt[SEL_SPARE / 8] = segment_at(&words[1]);
    check_often("the same selector, another base", load, SEL_SPARE, words[1]);
    check_often("a selector 256 further, the base from before", load, SEL_TWIN, words[0]);
    big_gdt[SEL_TWIN / 8] = segment_at(&words[1]);
    check_often("two selectors, one base", load, SEL_TWIN, words[1]);
    check_often("and the first one again", load, SEL_SPARE, words[1]);

    memcpy(other_gdt, big_gdt, sizeof big_gdt);
    other_gdt[SEL_SPARE / 8] = segment_at(&words[2]);
    use_gdt(other_gdt, BIG_GDT);
    check_often("another table", load, SEL_SPARE, words[2]);
    use_gdt(big_gdt, BIG_GDT);
    check_often("and back", load, SEL_SPARE, words[1]);

    big_gdt[SEL_SPARE / 8] = segment_at(&words[1]) & ~((uint64_t)DESC_ACCESSED << ACCESS_SHIFT);
    check_loaded("not yet accessed", load(SEL_SPARE), SEL_SPARE, words[1]);
    check("and now it is", (big_gdt[SEL_SPARE / 8] >> ACCESS_SHIFT & DESC_ACCESSED) != 0);
    use_gdt(gdt, GDT_ENTRIES);
}

/* ---- loads that work no more ---- */

CODE(load_fs_eax, "mov %eax, %fs")
CODE(pop_gs_eax, "push %eax\n\tpop %gs")
CODE(load_ds_eax, "push %ds\n\tmov %eax, %ds\n\tpop %ds")
CODE(read_fs, "mov %fs:0, %eax")
CODE(write_gs, "mov %eax, %gs:0x20")
CODE(read_gs_high, "mov %gs:0xfffffffc, %eax")

static void load_often(uint16_t selector)
{
    for (unsigned i = 0; i < OFTEN; i++) {
        (void)by_mov(selector);
        (void)by_pop_gs(selector);
    }
}

static void expect(const char *name, void (*code)(void), uint32_t selector, uint32_t vector, uint32_t offset)
{
    struct trap trap;

    probe_registers.eax = selector;
    trap = probe_kernel(code);
    check(name,
          trap.vector == vector && trap.error == (selector & ~3u) && trap.eip == (uintptr_t)code + offset);
}

static void check_refusals(void)
{
    memcpy(big_gdt, gdt, sizeof gdt);
    big_gdt[SEL_SPARE / 8] = segment_at(&words[0]);
    big_gdt[SEL_LAST / 8] = segment_at(&words[3]);
    use_gdt(big_gdt, BIG_GDT);
    load_often(SEL_SPARE);
    load_often(SEL_LAST);
    expect("#GP: the same segment with RPL 3", load_fs_eax, SEL_SPARE | 3, VECTOR_GP, 0);

    big_gdt[SEL_SPARE / 8] &= ~((uint64_t)DESC_PRESENT << ACCESS_SHIFT);
    expect("#NP: mov fs of what is absent now", load_fs_eax, SEL_SPARE, VECTOR_NP, 0);
    expect("#NP: pop gs", pop_gs_eax, SEL_SPARE, VECTOR_NP, 1);
    expect("#NP: mov ds", load_ds_eax, SEL_SPARE, VECTOR_NP, 1);
    big_gdt[SEL_SPARE / 8] = segment_at(&words[0]);
    load_often(SEL_SPARE);

    use_gdt(big_gdt, BIG_GDT - 1);
    expect("#GP: mov fs of what is beyond the table now", load_fs_eax, SEL_LAST, VECTOR_GP, 0);
    expect("#GP: pop gs", pop_gs_eax, SEL_LAST, VECTOR_GP, 1);
    use_gdt(big_gdt, BIG_GDT);
    check_loaded("and within it again", by_mov(SEL_LAST), SEL_LAST, words[3]);
    big_gdt[SEL_LAST / 8] = descriptor(0, 0xffffffff, DESC_CODE & ~2);
    expect("#GP: mov fs of what cannot be read now", load_fs_eax, SEL_LAST, VECTOR_GP, 0);
    use_gdt(gdt, GDT_ENTRIES);
}

/* ---- no segment ---- */

static void check_null(void)
{
    static const uint16_t null_selectors[] = {0, 3};
    struct trap trap;

    for (unsigned i = 0; i < 2 * OFTEN; i++) {
        uint32_t null = null_selectors[i % 2], selector;

        load_fs(SEL_KERNEL_DATA);
        __asm__ volatile("mov %0, %%gs" : : "r"(SEL_KERNEL_DATA));
        if (read_fs32(address_of(&words[1])) != words[1])
            fail("fs is no flat segment");
        load_fs((uint16_t)null);
        __asm__ volatile("push %1; pop %%gs; mov %%fs, %0" : "=r"(selector) : "r"(null));
        if (selector != null)
            fail("fs is %04x", selector);
        trap = probe_kernel(read_fs);
        check("a read through no segment", trap.vector == VECTOR_GP && trap.error == 0);
        trap = probe_kernel(write_gs);
        check("a write", trap.vector == VECTOR_GP && trap.error == 0);
        trap = probe_kernel(read_gs_high);
        check("a read at the other end", trap.vector == VECTOR_GP && trap.error == 0);
    }
}

/* ---- DS and ES ---- */

/* Through DS, which is another segment meanwhile: what lies at offset 4. */
static uint32_t read_through_ds(uint16_t selector)
{
    uint32_t value;

    __asm__ volatile("push %%ds; mov %1, %%ds; mov 4, %0; pop %%ds"
                     : "=&r"(value)
                     : "r"((uint32_t)selector)
                     : "memory");
    return value;
}

static uint32_t read_through_es(uint16_t selector)
{
    uint32_t value;

    __asm__ volatile("push %%es; push %1; pop %%es; mov %%es:4, %0; pop %%es"
                     : "=&r"(value)
                     : "r"((uint32_t)selector)
                     : "memory");
    return value;
}

static void check_data_segments(void)
{
    uint64_t flat = gdt[SEL_SPARE / 8];
    uint32_t flat_word = *(volatile uint32_t *)memory_at(4);

    for (unsigned i = 0; i < OFTEN; i++) {
        gdt[SEL_SPARE / 8] = flat;
        for (unsigned k = 0; k < OFTEN; k++)
            if (read_through_ds(SEL_SPARE) != flat_word || read_through_es(SEL_SPARE) != flat_word)
                fail("ds or es is no flat segment");
        gdt[SEL_SPARE / 8] = segment_at(&words[i % 3]);
        check_equal("ds: what was flat has a base", read_through_ds(SEL_SPARE), words[i % 3 + 1]);
        check_equal("es: likewise", read_through_es(SEL_SPARE), words[i % 3 + 1]);
    }
    gdt[SEL_SPARE / 8] = flat;
}

/* ---- interrupts in between ---- */

static volatile unsigned ticks;

static void on_timer(struct trap_frame *frame)
{
    (void)frame;
    ticks++;
    load_fs(SEL_KERNEL_DATA);
    pic_eoi(IRQ_TIMER);
}

enum { TIMER_HZ = 1000, TICKS = 60, FEW_TICKS = 3, MOST_LOADS = 50 * 1000 * 1000 };

/* The handler leaves another FS behind. GS, which it leaves alone, is never half of one segment and half of
 * another. */
static void check_interrupted(void)
{
    unsigned wrong = 0, n = 0, n_ticks = has_option("quick") ? FEW_TICKS : TICKS;

    gdt[SEL_SPARE / 8] = segment_at(&words[2]);
    trap_set_handler(IRQ_BASE + IRQ_TIMER, on_timer);
    pic_init();
    pic_unmask(IRQ_TIMER);
    pit_periodic(TIMER_HZ);
    sti();
    for (; ticks < n_ticks && n < MOST_LOADS; n++) {
        uint16_t selector = n % 2 ? SEL_SPARE : SEL_KERNEL_DATA;
        uint32_t offset = n % 2 ? 0 : address_of(&words[2]), value;

        __asm__ volatile("mov %1, %%fs; mov %1, %%gs; mov %%gs:(%2), %0"
                         : "=&r"(value)
                         : "r"((uint32_t)selector), "r"(offset)
                         : "memory");
        wrong += value != words[2];
    }
    cli();
    pic_mask(IRQ_TIMER);
    check("loads, and interrupts in between", wrong == 0 && ticks >= n_ticks);
}

void guest_main(void)
{
    for (unsigned i = 0; i < sizeof ways / sizeof ways[0]; i++) {
        way = ways[i].name;
        check_way(ways[i].load);
    }
    check_refusals();
    check_data_segments();
    check_interrupted();
    if (has_option("null"))
        check_null();
    load_fs(SEL_KERNEL_DATA);
    __asm__ volatile("mov %0, %%gs" : : "r"(SEL_KERNEL_DATA));
}
