/*
 * pae: page tables with entries of 64 bits, in three levels, and pages that nobody may execute.
 *
 * The lesson: the first level is no table in memory but four registers of the processor, loaded when CR3 is.
 * What the guest writes to the place they were loaded from changes nothing until then, so a monitor has to
 * keep a copy. And the no-execute bit makes a third kind of access: a page may be read, and still a jump to
 * it is a fault.
 *
 * Read paging.c first; only what is different here is checked.
 */
#include "frames.h"
#include "guest.h"

enum { WINDOW = 0x40000000, ALIAS = 0x50000000, LARGE = 0x80200000 };
enum { LARGE_FRAME = 8 << 20, LARGE_SIZE = 2 << 20 };
enum { CR4_PAE = 1 << 5, PF_RESERVED = 8, PF_FETCH = 0x10 };
enum { MSR_EFER = 0xc0000080, EFER_NXE = 1 << 11 };
enum { CPUID_PAE = 1 << 6, CPUID_NX = 1 << 20 };
#define NX (1ull << 63)

typedef uint64_t wide_pte;

struct wide_space {
    wide_pte pdpt[4];
} __attribute__((aligned(32)));

static struct wide_space first, second;

/* ---- tables ---- */

static wide_pte *table_of(wide_pte *entry, uint32_t flags)
{
    if (!(*entry & PTE_P))
        *entry = (uintptr_t)page_alloc() | flags;
    return memory_at((uint32_t)*entry & ~0xfffu);
}

static wide_pte *directory_entry(struct wide_space *space, uint32_t linear)
{
    return &table_of(&space->pdpt[linear >> 30], PTE_P)[linear >> 21 & 511];
}

static wide_pte *entry_of(struct wide_space *space, uint32_t linear)
{
    return &table_of(directory_entry(space, linear), PTE_P | PTE_W | PTE_U)[linear >> 12 & 511];
}

/* The first 4 MiB onto themselves, as space_new() does. */
static void map_identity(struct wide_space *space)
{
    for (uint32_t at = PAGE_SIZE; at < 4u << 20; at += PAGE_SIZE) {
        bool is_user = at >= (uintptr_t)user_begin && at < (uintptr_t)user_end;
        *entry_of(space, at) = at | RW | (is_user ? PTE_U : 0);
    }
}

static void map(uint32_t linear, wide_pte entry)
{
    *entry_of(&first, linear) = entry;
    invlpg(linear);
}

CODE(load, "mov (%ebx), %eax")
CODE(store, "mov %eax, (%ebx)")
CODE(execute, "jmp *%ebx")
CODE(move_to_cr3, "mov %ebx, %cr3")
USER_CODE(user_execute, "jmp *%ebx")
USER_CODE(user_load, "mov (%ebx), %eax")

static struct trap try_access(void (*code)(void), uint32_t linear, uint32_t value)
{
    probe_registers.ebx = linear;
    probe_registers.eax = value;
    return probe_kernel(code);
}

/* QEMU forgets to say that the page is present, without which no reserved bit is looked at. */
static void check_reserved_bit(const char *name, struct trap trap, uint32_t linear)
{
    if (!has_option("reserved"))
        trap.error |= PF_PRESENT;
    check_page_fault(name, trap, PF_PRESENT | PF_RESERVED, linear);
}

static struct trap try_user(void (*code)(void), uint32_t linear)
{
    probe_registers.ebx = linear;
    return probe_user(code);
}

static uint32_t cpuid_edx(uint32_t leaf)
{
    uint32_t eax = leaf, ebx, ecx = 0, edx;
    __asm__ volatile("cpuid" : "+a"(eax), "=b"(ebx), "+c"(ecx), "=d"(edx));
    return edx;
}

/* ---- checks ---- */

static void check_mapping(void)
{
    frames_mark();
    check_page_fault("absent in the first level", try_access(load, 0xc0000000, 0), 0, 0xc0000000);
    map(WINDOW, frame(0) | RW);
    check_equal("a mapped page reads as its frame", peek(WINDOW), mark(0));
    check_equal("a load sets A", (uint32_t)*entry_of(&first, WINDOW) & (PTE_A | PTE_D), PTE_A);
    poke(WINDOW + 8, 0x1234);
    check_equal("a store arrives in the frame", peek(frame(0) + 8), 0x1234);
    check_equal("a store sets D", (uint32_t)*entry_of(&first, WINDOW) & (PTE_A | PTE_D), PTE_A | PTE_D);
    check("the upper half is as it was", *entry_of(&first, WINDOW) >> 32 == 0);
    check_page_fault("store to an absent page", try_access(store, WINDOW + 0x1004, 0), PF_WRITE,
                     WINDOW + 0x1004);
    map(WINDOW, frame(1) | RO);
    check_equal("remapped: invlpg shows the other frame", peek(WINDOW), mark(1));
    check_page_fault("read-only: a store faults", try_access(store, WINDOW, 0), PF_PRESENT | PF_WRITE,
                     WINDOW);
    *directory_entry(&first, WINDOW) &= ~(wide_pte)PTE_P;
    write_cr3(read_cr3());
    check_page_fault("a directory entry taken away takes its pages", try_access(load, WINDOW, 0), 0, WINDOW);
    *directory_entry(&first, WINDOW) |= PTE_P;
}

/* The page table itself is mapped, and written half an entry at a time. */
static void check_tables_as_memory(void)
{
    uint32_t table = (uint32_t)*directory_entry(&first, WINDOW) & ~0xfffu;

    frames_mark();
    map(WINDOW, frame(0) | RW);
    peek(WINDOW);
    map(ALIAS, table | RW);
    poke(ALIAS, frame(2) | RW);
    invlpg(WINDOW);
    check_equal("a page table written through a mapping", peek(WINDOW), mark(2));
    poke(ALIAS + 4, 0x10);
    invlpg(WINDOW);
    check_reserved_bit("a store to the upper half of an entry", try_access(load, WINDOW, 0), WINDOW);
    poke(ALIAS + 4, 0);
    invlpg(WINDOW);
    check_equal("and back", peek(WINDOW), mark(2));
}

static void check_reserved_bits(void)
{
    static const uint8_t bits[] = {36, 40, 51, 52, 62};

    for (unsigned i = 0; i < sizeof bits; i++) {
        map(WINDOW, frame(0) | RW | 1ull << bits[i]);
        check_reserved_bit("a reserved bit", try_access(load, WINDOW, 0), WINDOW);
        map(WINDOW, (frame(0) | RW | 1ull << bits[i]) & ~(wide_pte)PTE_P);
        check_page_fault("none is looked at in an absent entry", try_access(load, WINDOW, 0), 0, WINDOW);
    }
}

static void check_large_pages(void)
{
    volatile wide_pte *entry = directory_entry(&first, LARGE);
    wide_pte *small = page_alloc();

    *entry = LARGE_FRAME | PTE_PS | RW;
    peek(LARGE + 0x1000);
    check_equal("2 MiB page, without CR4.PSE: a load sets A", (uint32_t)*entry & (PTE_A | PTE_D), PTE_A);
    for (uint32_t at = 0; at < LARGE_SIZE; at += 0x10000)
        poke(LARGE + at + 4, at);
    check_equal("2 MiB page: a store sets D", (uint32_t)*entry & (PTE_A | PTE_D), PTE_A | PTE_D);
    map(ALIAS, (LARGE_FRAME + 0x1f0000) | RW);
    check_equal("2 MiB page: seen through a small page", peek(ALIAS + 4), 0x1f0000);
    check_page_fault("2 MiB page: it ends after 2 MiB", try_access(load, LARGE + LARGE_SIZE, 0), 0,
                     LARGE + LARGE_SIZE);
    *entry = LARGE_FRAME | PTE_PS | RW | 1 << 13;
    write_cr3(read_cr3());
    check_reserved_bit("2 MiB page: a reserved bit", try_access(load, LARGE, 0), LARGE);
    for (unsigned n = 0; n < 512; n++) /* the same memory, upside down */
        small[n] = (LARGE_FRAME + (511 - n) * PAGE_SIZE) | RW;
    *entry = (uintptr_t)small | RW;
    write_cr3(read_cr3());
    check_equal("split into small pages", peek(LARGE + 0x1ff000 - 0x10000 + 4), 0x10000);
    *entry = 0;
    write_cr3(read_cr3());
}

static void check_address_spaces(void)
{
    bool right = true;

    frames_mark();
    map(WINDOW, frame(0) | RW);
    second.pdpt[0] = first.pdpt[0]; /* the kernel's part is shared */
    *entry_of(&second, WINDOW) = frame(1) | RW;
    for (unsigned i = 0; i < 10; i++) {
        write_cr3((uintptr_t)(i % 2 == 0 ? &second : &first));
        right = right && peek(WINDOW) == mark(i % 2 == 0 ? 1 : 0);
        poke(WINDOW + 16 + i * 4, i);
    }
    check("mov cr3: ten switches between two address spaces", right);
    check("mov cr3: stores went to the space's own frame", peek(frame(1) + 16 + 8 * 4) == 8 &&
                                                               peek(frame(0) + 16 + 9 * 4) == 9 &&
                                                               peek(frame(0) + 16 + 8 * 4) == 0);
    second.pdpt[1] = first.pdpt[1];
    write_cr3((uintptr_t)&second);
    check_equal("mov cr3 loads the first level", peek(WINDOW), mark(0));
    write_cr3((uintptr_t)&first);
}

/* QEMU reads the first level from memory each time; a processor must not. */
static void check_first_level(void)
{
    wide_pte kept = first.pdpt[1];

    frames_mark();
    map(WINDOW, frame(0) | RW);
    peek(WINDOW);
    first.pdpt[1] = 0;
    invlpg(WINDOW);
    check_option("pdptes", "the first level in memory is not looked at",
                 try_access(load, WINDOW, 0).vector == NO_TRAP);
    first.pdpt[1] = kept | 1 << 6;
    check_option("pdptes", "a reserved bit there: mov cr3 is #GP",
                 try_access(move_to_cr3, read_cr3(), 0).vector == VECTOR_GP);
    first.pdpt[1] = 0;
    write_cr3(read_cr3());
    check_page_fault("mov cr3: then it is", try_access(load, WINDOW, 0), 0, WINDOW);
    first.pdpt[1] = kept;
    check_option("pdptes", "what becomes present there needs mov cr3, too",
                 try_access(load, WINDOW, 0).vector == VECTOR_PF);
    write_cr3(read_cr3());
    check_equal("and comes back", peek(WINDOW), mark(0));
}

static void check_no_execute(void)
{
    static const uint8_t return_7[] = {0xb8, 7, 0, 0, 0, 0xc3};

    frames_mark();
    memcpy(memory_at(frame(0)), return_7, sizeof return_7);
    map(WINDOW, frame(0) | RW | NX);
    check_reserved_bit("EFER.NXE=0: bit 63 is reserved", try_access(load, WINDOW, 0), WINDOW);
    check_page_fault("EFER.NXE=0: a fetch does not show", try_access(execute, WINDOW + 0x1000, 0), 0,
                     WINDOW + 0x1000);
    write_msr(MSR_EFER, read_msr(MSR_EFER) | EFER_NXE);
    check("EFER.NXE=1: it can be read", try_access(load, WINDOW, 0).vector == NO_TRAP);
    check("EFER.NXE=1: and written", try_access(store, WINDOW + 64, 1).vector == NO_TRAP);
    check_page_fault("EFER.NXE=1: but not executed", try_access(execute, WINDOW, 0), PF_PRESENT | PF_FETCH,
                     WINDOW);
    check_page_fault("EFER.NXE=1: a fetch from an absent page shows", try_access(execute, WINDOW + 0x1000, 0),
                     PF_FETCH, WINDOW + 0x1000);
    map(WINDOW, frame(0) | RW);
    check_equal("cleared: it runs", try_access(execute, WINDOW, 0).registers.eax, 7);
    map(WINDOW, frame(0) | RW | NX);
    check_page_fault("set again: it does not", try_access(execute, WINDOW, 0), PF_PRESENT | PF_FETCH, WINDOW);
    map(WINDOW, frame(0) | RW);
    *directory_entry(&first, WINDOW) |= NX;
    write_cr3(read_cr3());
    check_page_fault("in the directory it counts for all pages", try_access(execute, WINDOW, 0),
                     PF_PRESENT | PF_FETCH, WINDOW);
    *directory_entry(&first, WINDOW) &= ~NX;
    write_cr3(read_cr3());
    check_equal("and no longer", try_access(execute, WINDOW, 0).registers.eax, 7);
    map(ALIAS, frame(0) | RW | NX);
    check_equal("of two mappings of a frame one may be executable",
                try_access(execute, WINDOW, 0).registers.eax, 7);
    check_page_fault("and the other not", try_access(execute, ALIAS, 0), PF_PRESENT | PF_FETCH, ALIAS);

    map(WINDOW, frame(0) | RW | PTE_U | NX);
    check("ring 3 reads it", try_user(user_load, WINDOW).vector == NO_TRAP);
    check_page_fault("ring 3 does not execute it", try_user(user_execute, WINDOW),
                     PF_PRESENT | PF_USER | PF_FETCH, WINDOW);
    map(WINDOW, frame(0) | RW | PTE_U);
    check_equal("ring 3 executes it without the bit", try_user(user_execute, WINDOW).registers.eax, 7);
    write_msr(MSR_EFER, read_msr(MSR_EFER) & ~(uint64_t)EFER_NXE);
}

static void check_modes(void)
{
    pte *narrow = space_new();

    frames_mark();
    map(WINDOW, frame(0) | RW);
    space_map(narrow, WINDOW, frame(1), RW);
    peek(WINDOW);
    write_cr0(read_cr0() & ~CR0_PG);
    check_equal("paging off: linear is physical", peek(frame(2)), mark(2));
    write_cr4(read_cr4() & ~(uint32_t)CR4_PAE);
    paging_on(narrow);
    check_equal("two levels again", peek(WINDOW), mark(1));
    write_cr0(read_cr0() & ~CR0_PG);
    write_cr4(read_cr4() | CR4_PAE);
    write_cr3((uintptr_t)&first);
    write_cr0(read_cr0() | CR0_PG);
    check_equal("and three", peek(WINDOW), mark(0));
}

void guest_main(void)
{
    check("CPUID: PAE", cpuid_edx(1) & CPUID_PAE);
    check("CPUID: NX", cpuid_edx(0x80000001) & CPUID_NX);
    map_identity(&first);
    directory_entry(&first, WINDOW); /* the first level is complete before it is loaded */
    directory_entry(&first, LARGE);
    write_cr4(read_cr4() | CR4_PAE);
    write_cr3((uintptr_t)&first);
    write_cr0(read_cr0() | CR0_PG | CR0_WP);

    check_mapping();
    check_tables_as_memory();
    check_reserved_bits();
    check_large_pages();
    check_address_spaces();
    check_first_level();
    check_no_execute();
    check_modes();
}
