/*
 * places: where code may be.
 *
 * The lesson: an instruction is fetched through CS and through the page tables, and each of the two may say
 * no. CS has a base and a limit, and a jump beyond the limit is a fault of the jump, not of what it leads to.
 * Pages with code are pages like others: one may be a page table, one may be mapped at twenty addresses, and
 * each address space may have another one at the same address. Who keeps anything derived from code, as a
 * processor's cache or a translator does, must know which of all this it depends on.
 *
 * Read next: selfmod.c, where code changes.
 */
#include "frames.h"
#include "guest.h"

/* ---- a code segment with a base and a limit ---- */

enum { SEL_CODE_AT = SEL_FREE, LIMIT = 0x7f, BEYOND = LIMIT + 1 };

static uint8_t area[256] __attribute__((aligned(16)));
static struct {
    uint32_t offset;
    uint16_t selector;
} __attribute__((packed)) entry __asm__("places_entry") __attribute__((used)) = {0, SEL_CODE_AT};

CODE(call_area, "lcall *places_entry")

static uint8_t *code_at(uint32_t offset)
{
    memset(area, 0x90, sizeof area); /* nop */
    entry.offset = offset;
    return &area[offset];
}

static void put(uint8_t *at, const char *bytes, unsigned n)
{
    memcpy(at, bytes, n);
}
#define PUT(at, bytes) put((at), (bytes), sizeof(bytes) - 1)

static struct trap run(uint32_t eax)
{
    probe_registers = (struct registers){.eax = eax, .ecx = 2};
    return probe_kernel(call_area);
}

static void expect_beyond(const char *name, struct trap trap, uint32_t eip, uint32_t eax)
{
    check(name, trap.vector == VECTOR_GP && trap.error == 0 && trap.cs == SEL_CODE_AT && trap.eip == eip &&
                    trap.registers.eax == eax);
}

static void check_code_segment(void)
{
    gdt[SEL_CODE_AT / 8] = descriptor((uintptr_t)area, LIMIT, DESC_CODE);
    for (unsigned i = 0; i < 3; i++) {
        PUT(code_at(0x10), "\xe8\x01\0\0\0\xcb\x40\xc3"); /* call 1f; lret; 1: inc eax; ret */
        check_equal("call and return in a segment with a base", run(6).registers.eax, 7);
        PUT(code_at(0x10),
            "\x74\x70\x40\xeb\x01\x90\x40\xcb"); /* jz beyond; inc eax; jmp 1f; nop; 1: inc eax; lret */
        check_equal("a jump beyond the limit that is not made", run(6).registers.eax, 8);
    }
}

/* A machine without limits would run whatever is there. */
static void check_limit(void)
{
    uint32_t esp;

    for (unsigned i = 0; i < 3; i++) {
        PUT(code_at(0x10), "\x31\xd2\x74\x70"); /* xor edx, edx; jz */
        expect_beyond("jz beyond the limit", run(1), 0x12, 1);
        PUT(code_at(0x10), "\xeb\x6e");
        expect_beyond("jmp", run(1), 0x10, 1);
        PUT(code_at(0x10), "\xe2\x6e");
        expect_beyond("loop", run(1), 0x10, 1);
        PUT(code_at(0x10), "\xff\xe0");
        expect_beyond("jmp eax", run(BEYOND), 0x10, BEYOND);
        expect_beyond("jmp eax, far beyond", run(0xc0000000), 0x10, 0xc0000000);
        PUT(code_at(0x10), "\x50\xc3"); /* push eax; ret */
        esp = run(BEYOND).esp;
        expect_beyond("ret", run(BEYOND), 0x11, BEYOND);
        PUT(code_at(0x10), "\x50\xff\xd0"); /* push eax; call eax */
        expect_beyond("call eax", run(BEYOND), 0x11, BEYOND);
        check("a call beyond the limit pushes nothing", run(BEYOND).esp == esp);
        PUT(code_at(0x10), "\xe8\x80\0\0\0");
        expect_beyond("call", run(1), 0x10, 1);

        (void)code_at(0x70);
        expect_beyond("what runs over the limit", run(1), BEYOND, 1);
        PUT(code_at(0x70) + 0xd, "\xb8\0\0\0\0"); /* mov eax, 0: its last byte is beyond */
        expect_beyond("an instruction across it", run(1), 0x7d, 1);
    }
}

/* ---- pages ---- */

enum { WINDOW = 0x40000000, FUNCTION_SIZE = 16 };
static uint32_t call(uint32_t address, uint32_t value)
{
    uint32_t result;

    __asm__ volatile("call *%1" : "=a"(result) : "r"(address), "0"(value) : "memory");
    return result;
}

/* lea eax, [eax + n]; ret */
static void put_adder(uint8_t *at, uint8_t n)
{
    PUT(at, "\x8d\x40\0\xc3");
    at[2] = n;
}

/* The end of a page table that no address uses. */
static void check_code_in_a_table(pte *space)
{
    uint8_t *code;
    uint32_t sum = 0;

    space_map(space, WINDOW, frame(0), RW);
    code = memory_at((space[WINDOW >> 22] & ~0xfffu) + 0xff0);
    put_adder(code, 3);
    for (unsigned i = 0; i < 100; i++) {
        space_map(space, WINDOW + i % 8 * PAGE_SIZE, frame(i % 5), RW);
        invlpg(WINDOW + i % 8 * PAGE_SIZE);
        sum = call((uintptr_t)code, sum) - peek(WINDOW + i % 8 * PAGE_SIZE) + mark(i % 5);
    }
    check_equal("code in a page table that is written", sum, 300);
    put_adder(code, 4);
    check_equal("and written itself", call((uintptr_t)code, 0), 4);
}

enum { N_SPACES = 150, N_CODES = N_FRAMES };

static pte directories[N_SPACES][1024] __attribute__((aligned(4096)));
static pte tables[N_SPACES][1024] __attribute__((aligned(4096)));

/* Each address space has a page of its own at the same address. */
static void check_many_spaces(pte *space)
{
    unsigned wrong = 0;

    for (unsigned i = 0; i < N_CODES; i++)
        put_adder(memory_at(frame(i)), (uint8_t)i);
    for (unsigned i = 0; i < N_SPACES; i++) {
        memcpy(directories[i], space, sizeof directories[i]);
        directories[i][WINDOW >> 22] = (uintptr_t)tables[i] | RW;
        tables[i][0] = frame(i % N_CODES) | RW;
    }
    for (unsigned round = 0; round < 3; round++)
        for (unsigned i = 0; i < N_SPACES; i++) {
            write_cr3((uintptr_t)directories[i]);
            wrong += call(WINDOW, 100) != 100 + i % N_CODES;
        }
    write_cr3((uintptr_t)space);
    check_equal("150 address spaces, each with its own code at one address", wrong, 0);
}

enum {
    N_FUNCTIONS = 8192,
    N_ALIASES = 40
}; /* 128 KiB of code, and as many places to run it at as there are of both */

static uint8_t functions[N_FUNCTIONS][FUNCTION_SIZE] __attribute__((aligned(4096)));

static void check_much_code(pte *space)
{
    const uint32_t n_pages = sizeof functions / PAGE_SIZE;
    uint32_t sum = 0, expected = 0;

    for (unsigned i = 0; i < N_FUNCTIONS; i++)
        put_adder(functions[i], (uint8_t)(i % 100));
    for (unsigned alias = 0; alias < N_ALIASES; alias++) {
        uint32_t linear = WINDOW + alias * (uint32_t)sizeof functions;

        for (unsigned page = 0; page < n_pages; page++)
            space_map(space, linear + page * PAGE_SIZE, (uintptr_t)functions + page * PAGE_SIZE, RW);
        write_cr3((uintptr_t)space);
        for (unsigned i = 0; i < N_FUNCTIONS; i++) {
            sum = call(linear + i * FUNCTION_SIZE, sum);
            expected += i % 100;
        }
    }
    check_equal("8192 functions at 40 addresses each", sum, expected);
    put_adder(functions[77], 1);
    for (unsigned alias = 0; alias < N_ALIASES; alias++)
        if (call(WINDOW + alias * (uint32_t)sizeof functions + 77 * FUNCTION_SIZE, 1) != 2)
            fail("at alias %u a function is the old one", alias);
    check("and when one is changed, it is so at each", true);
}

/* The last byte of memory, and the first one. */
static void check_wrap(pte *space)
{
    space_map(space, 0xfffff000, frame(1), RW);
    space_map(space, 0, frame(2), RW);
    invlpg(0);
    invlpg(0xfffff000);
    PUT(memory_at(frame(1) + 0xfff), "\x40"); /* inc eax */
    PUT(memory_at(frame(2)), "\x40\xc3");     /* inc eax; ret */
    check_equal("from the last address to the first", call(0xffffffff, 5), 7);
    PUT(memory_at(frame(1) + 0xffd), "\x40\x40\xc3"); /* inc eax; inc eax; ret */
    PUT(memory_at(frame(2)), "\xeb\xfb");             /* jmp -5: fffffffd */
    check_equal("and back by a jump", call(0, 5), 7);
}

void guest_main(void)
{
    pte *space;

    check_code_segment();
    if (has_option("limits"))
        check_limit();
    frames_mark();
    space = space_new();
    paging_on(space);
    check_code_in_a_table(space);
    check_many_spaces(space);
    check_wrap(space);
    check_much_code(space);
}
