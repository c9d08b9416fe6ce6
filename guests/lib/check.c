/*
 * check.c: named checks, the count of them, and the way out.
 *
 * isa-debug-exit is a device of emulators: a write of v to its port ends the machine with status (v << 1)
 * | 1. Read next: traps.c, for checks of faults.
 */
#include "guest.h"

enum { DEBUG_EXIT_PORT = 0xf4 };

static unsigned n_checks, n_failed;

static void count(const char *name, bool condition)
{
    n_checks++;
    if (condition)
        print("ok %s\n", name);
    else
        n_failed++;
}

void check(const char *name, bool condition)
{
    count(name, condition);
    if (!condition)
        print("FAIL %s: the condition does not hold\n", name);
}

void check_equal(const char *name, uint32_t got, uint32_t expected)
{
    count(name, got == expected);
    if (got != expected)
        print("FAIL %s: got %x, expected %x\n", name, got, expected);
}

void check_option(const char *option, const char *name, bool condition)
{
    if (has_option(option))
        check(name, condition);
    else
        print("note %s: %s (counts with option `%s`)\n", name, condition ? "yes" : "not here", option);
}

void check_trap(const char *name, struct trap trap, uint32_t vector, uint32_t error, void (*code)(void))
{
    bool as_expected = trap.vector == vector && trap.error == error && trap.eip == (uintptr_t)code;
    count(name, as_expected);
    if (!as_expected)
        print("FAIL %s: got %s(%x) at %08x, expected %s(%x) at %08x\n", name, trap_name(trap.vector),
              trap.error, trap.eip, trap_name(vector), error, (uint32_t)(uintptr_t)code);
}

void check_page_fault(const char *name, struct trap trap, uint32_t error, uint32_t cr2)
{
    bool as_expected = trap.vector == VECTOR_PF && trap.error == error && trap.cr2 == cr2;
    count(name, as_expected);
    if (!as_expected)
        print("FAIL %s: got %s(%x) cr2 %08x, expected #PF(%x) cr2 %08x\n", name, trap_name(trap.vector),
              trap.error, trap.cr2, error, cr2);
}

void check_returned(const char *name, struct trap trap)
{
    count(name, trap.vector == NO_TRAP);
    if (trap.vector != NO_TRAP)
        print("FAIL %s: got %s(%x) at %08x, expected no trap\n", name, trap_name(trap.vector), trap.error,
              trap.eip);
}

void report(void)
{
    print("%u checks, %u failed\n", n_checks, n_failed);
    power_off(n_failed == 0 ? 0 : 1);
}

void power_off(uint32_t debug_exit_value)
{
    out32(DEBUG_EXIT_PORT, debug_exit_value);
    for (;;) /* on a machine without the device */
        __asm__ volatile("cli; hlt");
}
