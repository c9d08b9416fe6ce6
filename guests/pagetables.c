/*
 * pagetables: page tables are memory, and a store to them can look like any store.
 *
 * The lesson: a monitor learns of a changed mapping because it write-protects the pages that hold guest page
 * tables: each store to one traps and is emulated, and the shadow follows. So every instruction that can
 * store must work on a page table, of any width, at any alignment, through any alias, and repeated by REP.
 * And a page becomes a page table, or stops being one, without a word to anybody.
 *
 * Read next: demand.c, where pages come and go; mmio.c, where the same instructions meet memory that is not
 * memory.
 */
#include "frames.h"
#include "guest.h"

/* Two windows of linear addresses, each with a page table of its own, and where the directory maps itself. */
enum { WINDOW = 0x40000000, ALIAS = 0x50000000, SELF = 0xffc00000 };

static pte *space;

static void map(uint32_t linear, uint32_t physical, uint32_t flags)
{
    space_map(space, linear, physical, flags);
    invlpg(linear);
}

CODE(load, "mov (%ebx), %eax")
CODE(store, "mov %eax, (%ebx)")

static struct trap try_access(void (*code)(void), uint32_t linear, uint32_t value)
{
    probe_registers.ebx = linear;
    probe_registers.eax = value;
    return probe_kernel(code);
}

/* ---- page tables as memory ---- */

/*
 * Each changes the entry at ebx from frame 0 to frame 1, which is 0x1000 higher. eax = the new entry, edx =
 * 0x1000, esi = the address of a copy of the new entry.
 */
SNIPPETS_BEGIN(entry_stores);
SNIPPET(entry_stores, kernel, "mov %eax, (%ebx)");
SNIPPET(entry_stores, kernel, "mov %ax, (%ebx)");
SNIPPET(entry_stores, kernel, "mov %ah, 1(%ebx)");
SNIPPET(entry_stores, kernel, "add %edx, (%ebx)");
SNIPPET(entry_stores, kernel, "lock orl $0x1000, (%ebx)");
SNIPPET(entry_stores, kernel, "xorb $0x10, 1(%ebx)");
SNIPPET(entry_stores, kernel, "neg %edx; sub %edx, (%ebx)");
SNIPPET(entry_stores, kernel, "btsl $12, (%ebx)");
SNIPPET(entry_stores, kernel, "lock btc %edi, (%ebx)");
SNIPPET(entry_stores, kernel, "xchg %eax, (%ebx)");
SNIPPET(entry_stores, kernel, "lock xadd %edx, (%ebx)");
SNIPPET(entry_stores, kernel, "mov (%ebx), %eax; lea (%eax,%edx), %ecx; lock cmpxchg %ecx, (%ebx)");
SNIPPET(entry_stores, kernel, "push %eax; pop (%ebx)");
SNIPPET(entry_stores, kernel, "mov %ebx, %edi; stosl");
SNIPPET(entry_stores, kernel, "mov %ebx, %edi; movsl");
SNIPPET(entry_stores, kernel, "mov %ebx, %edi; mov $4, %ecx; rep movsb");
SNIPPET(entry_stores, kernel, "notl (%ebx); notl (%ebx); mov %eax, (%ebx)");
SNIPPETS_END(entry_stores);

static void check_entry_stores(void)
{
    static uint32_t new_entry;
    frames_mark();
    for (const struct snippet *s = entry_stores; s != entry_stores_end; s++) {
        map(WINDOW, frame(0), RW);
        poke(WINDOW + 8, 0); /* the mapping is in use, dirty, and perhaps cached */
        new_entry = frame(1) | RW | PTE_A | PTE_D;
        probe_registers = (struct registers){.eax = new_entry,
                                             .edx = 0x1000,
                                             .ebx = (uintptr_t)space_entry(space, WINDOW),
                                             .esi = (uintptr_t)&new_entry,
                                             .edi = 12};
        struct trap trap = probe_kernel(s->code);
        invlpg(WINDOW);
        check(s->text, trap.vector == NO_TRAP && peek(WINDOW) == mark(1));
    }
}

/* ---- string instructions ---- */

static void check_table_strings(void)
{
    static pte prepared[8];
    pte *table = space_entry(space, WINDOW);
    bool right = true;

    frames_mark();
    for (unsigned n = 0; n < 8; n++)
        prepared[n] = frame(n % N_FRAMES) | RW;
    uint32_t from = (uintptr_t)prepared, to = (uintptr_t)table, count = 8;
    __asm__ volatile("rep movsl" : "+S"(from), "+D"(to), "+c"(count) : : "memory");
    write_cr3(read_cr3());
    for (unsigned n = 0; n < 8; n++)
        right = right && peek(WINDOW + n * PAGE_SIZE) == mark(n % N_FRAMES);
    check("rep movsd into a page table", right);

    right = true;
    from = (uintptr_t)(table + 7), to = (uintptr_t)(table + 8),
    count = 8; /* moves 8 pages up by one, from the end */
    __asm__ volatile("std; rep movsl; cld" : "+S"(from), "+D"(to), "+c"(count) : : "memory");
    write_cr3(read_cr3());
    for (unsigned n = 0; n < 8; n++)
        right = right && peek(WINDOW + (n + 1) * PAGE_SIZE) == mark(n % N_FRAMES);
    check("std; rep movsd within a page table", right);

    to = (uintptr_t)table, count = 1024;
    __asm__ volatile("rep stosl" : "+D"(to), "+c"(count) : "a"(0) : "memory");
    write_cr3(read_cr3());
    check_page_fault("rep stosd clears a page table: the first page", try_access(load, WINDOW, 0), 0, WINDOW);
    check_page_fault("rep stosd clears a page table: the ninth", try_access(load, WINDOW + 0x8000, 0), 0,
                     WINDOW + 0x8000);
}

/* ---- layouts ---- */

static void check_table_layouts(void)
{
    pte *table = space_entry(space, WINDOW);

    frames_mark();
    map(WINDOW, frame(0), RW);
    map(WINDOW + PAGE_SIZE, frame(0), RW);
    peek(WINDOW);
    peek(WINDOW + PAGE_SIZE);
    uint64_t both = (uint64_t)(frame(3) | RW) << 32 | frame(2) | RW;
    table[0] = both & 0xffff; /* all but the two halves that one store will bring */
    table[1] = both >> 32 & 0xffff0000;
    poke((uintptr_t)table + 2, (uint32_t)(both >> 16));
    write_cr3(read_cr3());
    check("a misaligned store into two entries",
          peek(WINDOW) == mark(2) && peek(WINDOW + PAGE_SIZE) == mark(3));

    map(ALIAS, frame(5), RW); /* a data page, and after it the page table once more */
    map(ALIAS + PAGE_SIZE, (uintptr_t)table, RW);
    poke(ALIAS + PAGE_SIZE - 2,
         (frame(4) | RW) << 16 | 0x4321); /* frames 3 and 4 differ in the low halves only */
    invlpg(WINDOW);
    check_equal("a store across a data page and a page table: the mapping", peek(WINDOW), mark(4));
    check_equal("a store across a data page and a page table: the data", peek(frame(5) + PAGE_SIZE - 4) >> 16,
                0x4321);

    poke(ALIAS + PAGE_SIZE, frame(1) | RW);
    invlpg(WINDOW);
    check_equal("a page table written through another address", peek(WINDOW), mark(1));
    check("A shows through that address", peek(ALIAS + PAGE_SIZE) & PTE_A);
    map(ALIAS + PAGE_SIZE, (uintptr_t)table, RO);
    check_page_fault("which can be read-only", try_access(store, ALIAS + PAGE_SIZE, 0), PF_PRESENT | PF_WRITE,
                     ALIAS + PAGE_SIZE);

    space[SELF >> 22] = (uintptr_t)space | RW; /* the directory as its own page table */
    uint32_t entry_at = SELF + (WINDOW >> 12) * 4;
    check_equal("self-map: the directory", peek(0xfffff000 + (SELF >> 22) * 4) & ~0xfffu, (uintptr_t)space);
    check_equal("self-map: an entry", peek(entry_at) & ~0xfffu, frame(1));
    poke(entry_at, frame(2) | RW);
    invlpg(WINDOW);
    check_equal("self-map: a mapping changed through it", peek(WINDOW), mark(2));
    poke(0xfffff000 + (WINDOW >> 22) * 4, 0);
    write_cr3(read_cr3());
    check_page_fault("self-map: a directory entry cleared through it", try_access(load, WINDOW, 0), 0,
                     WINDOW);
    check_page_fault("self-map: and its page table is out of sight", try_access(load, entry_at, 0), 0,
                     entry_at);

    /* The table is memory again; then another page, full of data, becomes a table by a single store. */
    bool right = true;
    for (unsigned n = 0; n < 1024; n++)
        poke((uintptr_t)table + n * 4, n * 0x01010101);
    for (unsigned n = 0; n < 1024; n++)
        right = right && peek((uintptr_t)table + n * 4) == n * 0x01010101;
    check("a page table that is one no longer holds data", right);
    memset(memory_at(frame(0)), 0, PAGE_SIZE);
    poke(frame(0) + 4, frame(3) | RW);
    space[WINDOW >> 22] = frame(0) | RW;
    check_equal("data becomes a page table", peek(WINDOW + PAGE_SIZE), mark(3));
    poke(frame(0) + 4, frame(4) | RW);
    invlpg(WINDOW + PAGE_SIZE);
    check_equal("and is one", peek(WINDOW + PAGE_SIZE), mark(4));
    space[WINDOW >> 22] = (uintptr_t)table | RW;
    memset(table, 0, PAGE_SIZE);
    space[SELF >> 22] = 0;
    write_cr3(read_cr3());
}

void guest_main(void)
{
    space = space_new();
    paging_on(space);

    check_entry_stores();
    check_table_strings();
    check_table_layouts();
}
