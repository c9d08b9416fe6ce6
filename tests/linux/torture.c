/*
 * A program for Linux in the machine: user code that changes while it runs, in all the ways in which a
 * just-in-time compiler, a debugger or a loader changes code, and page protection that changes with it. What
 * a translator must notice, it must notice here.
 *
 * `torture SECONDS`: each case once, its name and "ok" a line; then all of them again and again, so many
 * seconds. Exit status 0 if all went well. Started by tests/e2e/test_linux.py; freestanding, see sys.h.
 */
#include <stdint.h>

#include "sys.h"

#define PAGE 4096u

typedef uint32_t code(void);

static uint32_t seed = 1;

/* Numerical Recipes' linear congruential generator. */
static uint32_t next_random(void)
{
    seed = seed * 1664525u + 1013904223u;
    return seed >> 8;
}

/* ---- output -------------------------------------------------------------------------------------------- */

static void say(const char *text)
{
    unsigned n = 0;

    while (text[n] != '\0')
        n++;
    sys3(write, 1, text, n);
}

static void say_number(uint32_t number)
{
    char text[12];
    unsigned i = sizeof text - 1;

    text[i] = '\0';
    do
        text[--i] = (char)('0' + number % 10);
    while ((number /= 10) != 0);
    say(&text[i]);
}

static void __attribute__((noreturn)) fail(const char *what, uint32_t got, uint32_t wanted)
{
    say("FAILED: ");
    say(what);
    say(": got ");
    say_number(got);
    say(", want ");
    say_number(wanted);
    say("\n");
    leave(1);
}

static void expect(const char *what, uint32_t got, uint32_t wanted)
{
    if (got != wanted)
        fail(what, got, wanted);
}

static void *checked_map(int protection, int flags, int fd)
{
    void *address = map(PAGE, protection, flags, fd);

    if ((uintptr_t)address > (uintptr_t)-PAGE)
        fail("mmap", -(uint32_t)(uintptr_t)address, 0);
    return address;
}

static void unmap(void *address)
{
    expect("munmap", (uint32_t)sys3(munmap, address, PAGE, 0), 0);
}

/* ---- code ---------------------------------------------------------------------------------------------- */

/* mov $value, %eax; ret */
static void put_answer(uint8_t *at, uint32_t value)
{
    at[0] = 0xb8;
    __builtin_memcpy(at + 1, &value, sizeof value);
    at[5] = 0xc3;
}

static uint32_t call(const void *at)
{
    return ((code *)(uintptr_t)at)();
}

/* Written and run in one page, somewhere else each time. */
static void written_and_run(void)
{
    uint8_t *page = checked_map(PROT_RWX, MAP_PRIVATE | MAP_ANONYMOUS, -1);

    for (uint32_t i = 0; i < 3000; i++) {
        uint8_t *at = page + next_random() % (PAGE - 6);

        put_answer(at, i);
        expect("written code", call(at), i);
    }
    unmap(page);
}

/* One byte of a loop's body, the same place always: what was translated is stale each time. */
static void one_byte_changed(void)
{
    /* mov $10, %ecx; xor %eax, %eax; 1: add $0, %eax; dec %ecx; jnz 1b; ret */
    static const uint8_t loop[] = {0xb9, 10, 0, 0, 0, 0x31, 0xc0, 0x83, 0xc0, 0, 0x49, 0x75, 0xfa, 0xc3};
    uint8_t *page = checked_map(PROT_RWX, MAP_PRIVATE | MAP_ANONYMOUS, -1);

    __builtin_memcpy(page, loop, sizeof loop);
    for (uint32_t i = 0; i < 3000; i++) {
        page[9] = i & 0x7f;
        expect("changed operand", call(page), 10 * (i & 0x7f));
    }
    unmap(page);
}

/* A store that changes the very next instruction: an i386 from the Pentium on must see it. */
static void next_instruction_changed(void)
{
    uint8_t *page = checked_map(PROT_RWX, MAP_PRIVATE | MAP_ANONYMOUS, -1);
    uint32_t target = (uint32_t)(uintptr_t)page + 8;

    for (uint32_t i = 0; i < 2000; i++) {
        page[0] = 0xc6; /* movb $i, target */
        page[1] = 0x05;
        __builtin_memcpy(page + 2, &target, sizeof target);
        page[6] = (uint8_t)i;
        put_answer(page + 7, 0xaabbcc00 | (uint8_t)~i);
        expect("the next instruction", call(page), 0xaabbcc00 | (uint8_t)i);
    }
    unmap(page);
}

/* An instruction that lies in two pages, each written by itself. */
static void across_two_pages(void)
{
    uint8_t *pages = map(2 * PAGE, PROT_RWX, MAP_PRIVATE | MAP_ANONYMOUS, -1);
    uint8_t *at = pages + PAGE - 3;

    for (uint32_t i = 0; i < 1000; i++) {
        put_answer(at, i * 0x10001);
        expect("across two pages", call(at), i * 0x10001);
        at[4] ^= 0x55;
        expect("across two pages, the second", call(at), (i * 0x10001) ^ 0x55000000);
        at[1] ^= 0x55;
        expect("across two pages, the first", call(at), (i * 0x10001) ^ 0x55000055);
    }
    unmap(pages);
    unmap(pages + PAGE);
}

/* ---- protection ---------------------------------------------------------------------------------------- */

/* Never writable and executable at once. */
static void written_then_executable(void)
{
    uint8_t *page = checked_map(PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1);

    for (uint32_t i = 0; i < 500; i++) {
        put_answer(page, i);
        expect("mprotect rx", (uint32_t)protect(page, PAGE, PROT_READ | PROT_EXEC), 0);
        expect("protected code", call(page), i);
        expect("mprotect rw", (uint32_t)protect(page, PAGE, PROT_READ | PROT_WRITE), 0);
    }
    unmap(page);
}

static uint8_t *guarded;
static volatile uint32_t n_faults;

/* Opens the page, as a garbage collector's barrier does; the store is repeated on return. */
static void on_fault(int signal)
{
    (void)signal;
    n_faults++;
    if (protect(guarded, PAGE, PROT_RWX) != 0)
        leave(2);
}

static void fault_opens_the_page(void)
{
    const uint32_t action[5] = {(uint32_t)(uintptr_t)on_fault, 0, 0, 0, 0};
    const uint32_t default_action[5] = {0};

    guarded = checked_map(PROT_RWX, MAP_PRIVATE | MAP_ANONYMOUS, -1);
    n_faults = 0;
    expect("sigaction", (uint32_t)sys6(SYS_rt_sigaction, SIGSEGV, (long)action, 0, 8, 0, 0), 0);
    for (uint32_t i = 0; i < 300; i++) {
        expect("mprotect rx", (uint32_t)protect(guarded, PAGE, PROT_READ | PROT_EXEC), 0);
        put_answer(guarded, i);
        expect("code written by a fault", call(guarded), i);
    }
    expect("faults", n_faults, 300);
    sys6(SYS_rt_sigaction, SIGSEGV, (long)default_action, 0, 8, 0, 0);
    unmap(guarded);
}

/* What is not allowed kills: a write to code, and a jump to nothing. */
static void forbidden_accesses_kill(void)
{
    uint8_t *page = checked_map(PROT_RWX, MAP_PRIVATE | MAP_ANONYMOUS, -1);
    int child;

    put_answer(page, 7);
    expect("before", call(page), 7);
    expect("mprotect rx", (uint32_t)protect(page, PAGE, PROT_READ | PROT_EXEC), 0);
    child = fork();
    if (child == 0) {
        *(volatile uint8_t *)page = 0;
        leave(0);
    }
    expect("write to code", (uint32_t)wait_for(child) & 0x7f, SIGSEGV);
    expect("after", call(page), 7);
    unmap(page);
    child = fork();
    if (child == 0)
        leave((int)call(page));
    expect("jump to nothing", (uint32_t)wait_for(child) & 0x7f, SIGSEGV);
}

/* ---- one page, several addresses and processes
 * ------------------------------------------------------------- */

static int shared_file(void)
{
    int fd = (int)sys3(memfd_create, "code", 0, 0);

    if (fd < 0 || sys3(ftruncate, fd, PAGE, 0) != 0)
        fail("memfd", (uint32_t)-fd, 0);
    return fd;
}

/* One fd for the life of the program; each case maps it anew. */
static int file = -1;

static void written_by_another_mapping(void)
{
    uint8_t *writable, *executable;

    if (file < 0)
        file = shared_file();
    writable = checked_map(PROT_READ | PROT_WRITE, MAP_SHARED, file);
    executable = checked_map(PROT_READ | PROT_EXEC, MAP_SHARED, file);
    for (uint32_t i = 0; i < 2000; i++) {
        put_answer(writable + 16 * (i % 8), i);
        expect("written by another mapping", call(executable + 16 * (i % 8)), i);
    }
    unmap(writable);
    unmap(executable);
}

static void written_by_another_process(void)
{
    uint8_t *page = checked_map(PROT_RWX, MAP_SHARED | MAP_ANONYMOUS, -1);

    for (uint32_t i = 0; i < 30; i++) {
        int child;

        put_answer(page, i);
        expect("ours", call(page), i);
        child = fork();
        if (child == 0) {
            put_answer(page, i + 1000);
            leave(call(page) == i + 1000 ? 0 : 1);
        }
        expect("the child", (uint32_t)wait_for(child), 0);
        expect("written by another process", call(page), i + 1000);
    }
    unmap(page);
}

/* Copy on write: code of the same address and the same page before differs afterwards. */
static void copies_differ(void)
{
    uint8_t *page = checked_map(PROT_RWX, MAP_PRIVATE | MAP_ANONYMOUS, -1);

    for (uint32_t i = 0; i < 30; i++) {
        int child;

        put_answer(page, i);
        expect("before the copy", call(page), i);
        child = fork();
        if (child == 0) {
            uint32_t before = call(page);

            put_answer(page, i + 1000);
            leave(before == i && call(page) == i + 1000 ? 0 : 1);
        }
        expect("the child with its copy", (uint32_t)wait_for(child), 0);
        expect("our copy", call(page), i);
    }
    unmap(page);
}

/* ---- floating point --------------------------------------------------------------------------------------
 */

/* x87 (long double) and SSE2 (double) together, long enough to be switched away from. */
static uint32_t compute(uint32_t start)
{
    long double x = start;
    double y = start;

    for (uint32_t i = 1; i <= 100000; i++) {
        x = x * 0.75L + (long double)i / 3;
        y = y * 0.5 + (double)i / 7;
    }
    return (uint32_t)(int64_t)(x * 1000) ^ (uint32_t)(int32_t)(y * 1000);
}

static void floating_point_in_four_processes(void)
{
    uint32_t wanted[4];
    int child[4];

    for (uint32_t i = 0; i < 4; i++)
        wanted[i] = compute(i * 1000);
    for (uint32_t i = 0; i < 4; i++) {
        child[i] = fork();
        if (child[i] == 0) {
            for (unsigned round = 0; round < 3; round++)
                if (compute(i * 1000) != wanted[i])
                    leave(1);
            leave(0);
        }
    }
    for (unsigned i = 0; i < 4; i++)
        expect("floating point", (uint32_t)wait_for(child[i]), 0);
}

/* ---- all of them -----------------------------------------------------------------------------------------
 */

#define CASE(name)                                                                                           \
    {                                                                                                        \
#name, name                                                                                          \
    }

static const struct {
    const char *name;
    void (*run)(void);
} cases[] = {
    CASE(written_and_run),
    CASE(one_byte_changed),
    CASE(next_instruction_changed),
    CASE(across_two_pages),
    CASE(written_then_executable),
    CASE(fault_opens_the_page),
    CASE(forbidden_accesses_kill),
    CASE(written_by_another_mapping),
    CASE(written_by_another_process),
    CASE(copies_differ),
    CASE(floating_point_in_four_processes),
};

#define N_CASES (sizeof cases / sizeof cases[0])

static uint32_t parse(const char *text)
{
    uint32_t number = 0;

    while (*text >= '0' && *text <= '9')
        number = number * 10 + (uint32_t)(*text++ - '0');
    return number;
}

/* The stack as the kernel leaves it: argc, argv[0], argv[1]... */
__attribute__((used)) static void __attribute__((noreturn)) run(const uint32_t *stack)
{
    uint32_t seconds = stack[0] > 1 ? parse((const char *)(uintptr_t)stack[2]) : 0;
    uint32_t start, rounds = 0;

    for (unsigned i = 0; i < N_CASES; i++) {
        start = milliseconds();
        cases[i].run();
        say(cases[i].name);
        say(" ok ");
        say_number(milliseconds() - start);
        say(" ms\n");
    }
    start = milliseconds();
    while (milliseconds() - start < seconds * 1000) {
        cases[next_random() % N_CASES].run();
        rounds++;
    }
    say("torture: all is well; ");
    say_number(rounds);
    say(" more\n");
    leave(0);
}

__asm__(".globl _start\n"
        "_start:\n\t"
        "xor %ebp, %ebp\n\t"
        "mov %esp, %eax\n\t"
        "and $-16, %esp\n\t"
        "sub $12, %esp\n\t"
        "push %eax\n\t"
        "call run\n");
