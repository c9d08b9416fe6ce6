/*
 * paging: what the memory management unit promises, one promise a check.
 *
 * The lesson: the processor walks the guest's tables by itself, so a monitor cannot trap the walk. It keeps
 * *shadow* tables and must make every promise below come true with them: that a mapping changes when the
 * guest says INVLPG, that A and D bits appear in tables which nobody has written, that a store into a page
 * which happens to be a page table changes a mapping, in whatever form the store comes.
 *
 * Only what the SDM promises is checked: between a change of an entry and the flush, old and new are both
 * right. Read next: pagetables.c, for tables that are written in unusual ways; userkernel.c, for the U/S bit.
 */
#include "frames.h"
#include "guest.h"

/* Three windows of linear addresses, each with a page table of its own. */
enum { WINDOW = 0x40000000, ALIAS = 0x50000000, LARGE = 0x60000000 };
enum { LARGE_FRAME = 8 << 20, LARGE_SIZE = 4 << 20 }; /* 4 MiB of memory that nothing else uses */

static pte *space;

static void map(uint32_t linear, uint32_t physical, uint32_t flags)
{
    space_map(space, linear, physical, flags);
    invlpg(linear);
}

CODE(load, "mov (%ebx), %eax")
CODE(store, "mov %eax, (%ebx)")
CODE(execute, "jmp *%ebx")

static struct trap try_access(void (*code)(void), uint32_t linear, uint32_t value)
{
    probe_registers.ebx = linear;
    probe_registers.eax = value;
    return probe_kernel(code);
}

/* ---- mapping ---- */

static void check_mapping(void)
{
    frames_mark();
    check_page_fault("a page directory entry that is not there", try_access(load, WINDOW, 0), 0, WINDOW);
    map(WINDOW, frame(0), RW);
    check_equal("a mapped page reads as its frame", peek(WINDOW), mark(0));
    poke(WINDOW + 8, 0x1234);
    check_equal("a store arrives in the frame", peek(frame(0) + 8), 0x1234);
    map(ALIAS, frame(0), RW);
    poke(ALIAS + 8, 0x5678);
    check_equal("a frame mapped twice is one frame", peek(WINDOW + 8), 0x5678);

    check_page_fault("load from an absent page", try_access(load, WINDOW + 0x1004, 0), 0, WINDOW + 0x1004);
    check_page_fault("store to an absent page", try_access(store, WINDOW + 0x1ffc, 0), PF_WRITE,
                     WINDOW + 0x1ffc);
    struct trap trap = try_access(execute, WINDOW + 0x1010, 0);
    check_page_fault("fetch from an absent page", trap, 0, WINDOW + 0x1010);
    check_equal("fetch from an absent page: eip is there", trap.eip, WINDOW + 0x1010);
    space_map(space, WINDOW + 0x1000, frame(1), RW);
    check_equal("absent to present needs no invlpg", peek(WINDOW + 0x1000), mark(1));

    map(WINDOW, frame(2), RW);
    check_equal("remapped: invlpg shows the other frame", peek(WINDOW), mark(2));
    check_equal("remapped: the alias stays", peek(ALIAS), mark(0));
    map(WINDOW, 0, 0);
    check_page_fault("unmapped: invlpg takes it away", try_access(load, WINDOW, 0), 0, WINDOW);
    check_equal("unmapped: its neighbour stays", peek(WINDOW + 0x1000), mark(1));
    space[WINDOW >> 22] &= ~(pte)PTE_P;
    write_cr3(read_cr3());
    check_page_fault("a directory entry taken away takes its pages", try_access(load, WINDOW + 0x1000, 0), 0,
                     WINDOW + 0x1000);
    space[WINDOW >> 22] |= PTE_P;
    check_equal("and brings them back", peek(WINDOW + 0x1000), mark(1));
}

/* The same linear address, two frames with different code in them. */
static void check_execution(void)
{
    static const uint8_t return_1[] = {0xb8, 1, 0, 0, 0, 0xc3}, return_2[] = {0xb8, 2, 0, 0, 0, 0xc3};
    frames_mark();
    memcpy(memory_at(frame(0)), return_1, sizeof return_1);
    memcpy(memory_at(frame(1)), return_2, sizeof return_2);
    map(WINDOW, frame(0), RO);
    check_equal("code in a frame runs", try_access(execute, WINDOW, 0).registers.eax, 1);
    map(WINDOW, frame(1), RO);
    check_equal("remapped: the other code runs", try_access(execute, WINDOW, 0).registers.eax, 2);
}

/* ---- protection ---- */

static void check_protection(void)
{
    frames_mark();
    map(WINDOW, frame(0), RO);
    check_equal("read-only: loads work", peek(WINDOW), mark(0));
    check_page_fault("read-only, CR0.WP=1: the kernel's store faults", try_access(store, WINDOW, 1),
                     PF_PRESENT | PF_WRITE, WINDOW);
    check_equal("read-only: nothing was stored", peek(frame(0)), mark(0));
    write_cr0(read_cr0() & ~CR0_WP);
    check_returned("read-only, CR0.WP=0: the kernel may store", try_access(store, WINDOW, 1));
    check_equal("read-only, CR0.WP=0: and did", peek(frame(0)), 1);
    write_cr0(read_cr0() | CR0_WP);
    check_page_fault("CR0.WP=1 again: it may not", try_access(store, WINDOW, 2), PF_PRESENT | PF_WRITE,
                     WINDOW);

    map(WINDOW, frame(0), RW);
    poke(WINDOW, 3);
    space[WINDOW >> 22] &= ~(pte)PTE_W;
    write_cr3(read_cr3());
    check_page_fault("a read-only directory entry wins", try_access(store, WINDOW, 4), PF_PRESENT | PF_WRITE,
                     WINDOW);
    space[WINDOW >> 22] |= PTE_W;
    write_cr3(read_cr3());
    check_returned("and no longer", try_access(store, WINDOW, 5));
    map(WINDOW, frame(0), RO);
    check_page_fault("protected: invlpg takes the right to write", try_access(store, WINDOW, 6),
                     PF_PRESENT | PF_WRITE, WINDOW);
    check_equal("protected: the last good store is there", peek(WINDOW), 5);
}

static void check_accessed_and_dirty(void)
{
    frames_mark();
    map(WINDOW, frame(0), RW);
    const volatile pte *entry = space_entry(space, WINDOW);
    volatile pte *directory_entry = &space[WINDOW >> 22];

    *directory_entry &= ~(pte)PTE_A;
    write_cr3(read_cr3());
    peek(WINDOW);
    check_equal("A: a load sets it, and not D", *entry & (PTE_A | PTE_D), PTE_A);
    check("A: in the directory, too", *directory_entry & PTE_A);
    poke(WINDOW + 4, 1);
    check_equal("D: a store sets it", *entry & (PTE_A | PTE_D), PTE_A | PTE_D);

    map(WINDOW, frame(0), RW); /* as a kernel does that looks for idle pages */
    peek(WINDOW);
    check_equal("A: cleared, then set by the next load", *entry & (PTE_A | PTE_D), PTE_A);
    map(WINDOW, frame(0), RW);
    poke(WINDOW, 2);
    check_equal("D: cleared, then set by the next store", *entry & (PTE_A | PTE_D), PTE_A | PTE_D);
    map(WINDOW, frame(0), RO);
    try_access(store, WINDOW, 3);
    check("D: a store that faults does not set it", !(*entry & PTE_D));

    for (unsigned n = 0; n < 5; n++)
        map(WINDOW + n * PAGE_SIZE, frame(n), RW);
    memset(memory_at(WINDOW), 0xaa, 4 * PAGE_SIZE);
    bool all = true;
    for (unsigned n = 0; n < 4; n++)
        all = all && (*space_entry(space, WINDOW + n * PAGE_SIZE) & PTE_D);
    check("D: a string store sets it in each page", all);
    check("D: and in no page beyond", !(*space_entry(space, WINDOW + 4 * PAGE_SIZE) & PTE_D));
}

/* ---- accesses to two pages ---- */

static void check_crossing(void)
{
    frames_mark();
    map(WINDOW, frame(3), RW); /* frames in the other order than pages */
    map(WINDOW + PAGE_SIZE, frame(1), RW);
    poke(WINDOW + PAGE_SIZE - 2, 0x11223344);
    check("a store across two pages: both have their part",
          peek(frame(3) + PAGE_SIZE - 4) >> 16 == 0x3344 && (peek(frame(1)) & 0xffff) == 0x1122);
    check_equal("a load across two pages", peek(WINDOW + PAGE_SIZE - 2), 0x11223344);

    map(WINDOW + PAGE_SIZE, frame(1), RO);
    check_page_fault("the second page is read-only", try_access(store, WINDOW + PAGE_SIZE - 2, 0),
                     PF_PRESENT | PF_WRITE, WINDOW + PAGE_SIZE);
    map(WINDOW + PAGE_SIZE, 0, 0);
    check_page_fault("the second page is absent", try_access(store, WINDOW + PAGE_SIZE - 1, 0), PF_WRITE,
                     WINDOW + PAGE_SIZE);
    check_equal("nothing was stored in the first", peek(frame(3) + PAGE_SIZE - 4) >> 16, 0x3344);
    map(WINDOW, 0, 0);
    map(WINDOW + PAGE_SIZE, frame(1), RW);
    check_page_fault("the first page is absent", try_access(load, WINDOW + PAGE_SIZE - 2, 0), 0,
                     WINDOW + PAGE_SIZE - 2);
}

/* Demand paging: what every kernel does, and string instructions that go on where they stopped. */
static struct trap_frame first_fault;
static unsigned n_faults;

static void on_page_fault(struct trap_frame *trap)
{
    uint32_t page = read_cr2() & ~(PAGE_SIZE - 1u);
    if (n_faults++ == 0)
        first_fault = *trap;
    if (page - WINDOW >= 4 * PAGE_SIZE)
        fail("page fault at %08x in demand paging", read_cr2());
    space_map(space, page, frame((page - WINDOW) / PAGE_SIZE), RW);
}

CODE(copy, "rep movsb")

static void check_demand_paging(void)
{
    frames_mark();
    for (unsigned n = 0; n < 4; n++)
        map(WINDOW + n * PAGE_SIZE, 0, 0);
    trap_set_handler(VECTOR_PF, on_page_fault);
    uint32_t at = WINDOW + 0x800, count = 3 * PAGE_SIZE / 4;
    __asm__ volatile("rep stosl" : "+D"(at), "+c"(count) : "a"(0x77777777) : "memory");
    trap_set_handler(VECTOR_PF, NULL);

    check_equal("rep stosd over 4 absent pages: 4 faults", n_faults, 4);
    check("the first with nothing done",
          first_fault.edi == WINDOW + 0x800 && first_fault.ecx == 3 * PAGE_SIZE / 4);
    check("and all is done in the end", count == 0 && at == WINDOW + 0x800 + 3 * PAGE_SIZE);
    check("every word is stored", peek(frame(0) + 0x800) == 0x77777777 && peek(frame(1)) == 0x77777777 &&
                                      peek(frame(3) + 0x7fc) == 0x77777777 && peek(frame(3) + 0x800) == 0);
    map(WINDOW + PAGE_SIZE, 0, 0);
    probe_registers = (struct registers){.ecx = PAGE_SIZE, .esi = WINDOW + 0xff0, .edi = WINDOW + 0x2000};
    struct trap trap = probe_kernel(copy);
    check_page_fault("rep movsb into an absent source page", trap, 0, WINDOW + PAGE_SIZE);
    check("it stops between two bytes", trap.registers.ecx == PAGE_SIZE - 16 &&
                                            trap.registers.esi == WINDOW + 0x1000 &&
                                            trap.registers.edi == WINDOW + 0x2010);
}

/* ---- 4 MiB pages ---- */

static void check_large_pages(void)
{
    volatile pte *entry = &space[LARGE >> 22];
    pte *small = page_alloc();

    write_cr4(read_cr4() | CR4_PSE);
    *entry = LARGE_FRAME | PTE_PS | RW;
    peek(LARGE + 0x1000);
    check_equal("4 MiB page: a load sets A in the directory entry", *entry & (PTE_A | PTE_D), PTE_A);
    for (uint32_t at = 0; at < LARGE_SIZE; at += 0x10000)
        poke(LARGE + at + 4, at);
    check_equal("4 MiB page: a store sets D", *entry & (PTE_A | PTE_D), PTE_A | PTE_D);
    map(ALIAS, LARGE_FRAME + 0x3f0000, RW);
    check_equal("4 MiB page: seen through a small page", peek(ALIAS + 4), 0x3f0000);
    *entry = LARGE_FRAME | PTE_PS | RO;
    invlpg(LARGE + 0x123000); /* any address in the page names it */
    check_page_fault("4 MiB page: read-only", try_access(store, LARGE + 0x200004, 0), PF_PRESENT | PF_WRITE,
                     LARGE + 0x200004);
    check_equal("4 MiB page: read-only can be read", peek(LARGE + 0x200004), 0x200000);

    for (unsigned n = 0; n < 1024; n++) /* the same memory, upside down */
        small[n] = (LARGE_FRAME + (1023 - n) * PAGE_SIZE) | RW;
    *entry = (uintptr_t)small | RW;
    write_cr3(read_cr3());
    check_equal("split into small pages", peek(LARGE + 0x3ff000 - 0x10000 + 4), 0x10000);
    bool same = true;
    for (unsigned n = 0; n < 1024; n++)
        poke(LARGE + n * PAGE_SIZE + 8, n);
    *entry = LARGE_FRAME | PTE_PS | RW;
    write_cr3(read_cr3());
    for (unsigned n = 0; n < 1024; n++)
        same = same && peek(LARGE + (1023 - n) * PAGE_SIZE + 8) == n;
    check("joined again: 1024 stores are where they belong", same);

    /* Without CR4.PSE the bit means nothing: the entry points to a page table, which we put there first. */
    memset(memory_at(LARGE), 0, PAGE_SIZE);
    poke(LARGE, frame(0) | RW);
    frames_mark();
    write_cr4(read_cr4() & ~(uint32_t)CR4_PSE);
    check_equal("CR4.PSE=0: it was a page table all the time", peek(LARGE), mark(0));
    write_cr4(read_cr4() | CR4_PSE);
    check_equal("CR4.PSE=1: and is a 4 MiB page again", peek(LARGE) & ~0xfffu, frame(0));
    *entry = 0;
    write_cr3(read_cr3());
}

/* ---- address spaces ---- */

static void check_address_spaces(void)
{
    pte *other = space_new();
    bool right = true;

    frames_mark();
    map(WINDOW, frame(0), RW);
    space_map(other, WINDOW, frame(1), RW);
    for (unsigned i = 0; i < 10; i++) {
        write_cr3((uintptr_t)(i % 2 == 0 ? other : space));
        right = right && peek(WINDOW) == mark(i % 2 == 0 ? 1 : 0);
        poke(WINDOW + 16 + i * 4, i);
    }
    check("mov cr3: ten switches between two address spaces", right);
    check("mov cr3: stores went to the space's own frame", peek(frame(1) + 16 + 8 * 4) == 8 &&
                                                               peek(frame(0) + 16 + 9 * 4) == 9 &&
                                                               peek(frame(0) + 16 + 8 * 4) == 0);
    space_map(other, WINDOW, frame(2), RW);
    write_cr3((uintptr_t)other);
    check_equal("mov cr3: tables changed while not in use", peek(WINDOW), mark(2));
    space_map(other, WINDOW, frame(3), RW);
    write_cr3((uintptr_t)other);
    check_equal("mov cr3: the same value flushes", peek(WINDOW), mark(3));
    other[ALIAS >> 22] = space[ALIAS >> 22]; /* one page table in two directories */
    space_map(space, ALIAS, frame(4), RW);
    write_cr3((uintptr_t)other);
    check_equal("a page table shared by two spaces, here", peek(ALIAS), mark(4));
    space_map(other, ALIAS, frame(5), RW);
    write_cr3((uintptr_t)space);
    check_equal("and there", peek(ALIAS), mark(5));
    check_equal("back: the first space is as it was", peek(WINDOW), mark(0));

    write_cr0(read_cr0() & ~CR0_PG);
    check_equal("paging off: linear is physical", peek(frame(0)), mark(0));
    space_map(space, WINDOW, frame(2), RW);
    write_cr0(read_cr0() | CR0_PG);
    check_equal("paging on: tables changed meanwhile", peek(WINDOW), mark(2));
}

static void check_global_pages(void)
{
    frames_mark();
    write_cr4(read_cr4() | CR4_PGE);
    map(WINDOW, frame(0), RW | PTE_G);
    check_equal("global page", peek(WINDOW), mark(0));
    space_map(space, WINDOW, frame(1), RW | PTE_G);
    write_cr3(read_cr3());
    uint32_t seen = peek(WINDOW);
    check("global page: mov cr3 may keep the old entry", seen == mark(0) || seen == mark(1));
    invlpg(WINDOW);
    check_equal("global page: invlpg may not", peek(WINDOW), mark(1));
    space_map(space, WINDOW, frame(2), RW | PTE_G);
    write_cr4(read_cr4() & ~(uint32_t)CR4_PGE);
    check_equal("global page: nor does a change of CR4.PGE", peek(WINDOW), mark(2));
}

void guest_main(void)
{
    space = space_new();
    paging_on(space);

    check_mapping();
    check_execution();
    check_protection();
    check_accessed_and_dirty();
    check_crossing();
    check_demand_paging();
    check_large_pages();
    check_address_spaces();
    check_global_pages();
}
