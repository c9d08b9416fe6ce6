/*
 * Counting instructions, for --clock=virtual: events come before the same instruction in every run.
 *
 * r11 points into the *meter*, a stretch of readable memory, as many bytes above its beginning as
 * instructions are left until the next event. Translated code takes off what it has done with LEA, which
 * leaves the flags alone. Each block begins with a load from as far below r11 as the block is long: below the
 * meter nothing is mapped, so the load faults when the event might fall into the block. Then the instructions
 * that are left are run one by one, and the event comes exactly where it belongs, however the guest's code
 * was cut into blocks. The price is two host instructions a block, no branch, no flags, and a signal for each
 * event. (All pages of the meter are the host's one zero page: nobody writes.)
 *
 * Read next: engine.c.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "monitor/interpret.h"
#include "translate/translator.h"

#define METER_SIZE (UINT64_C(16) << 20) /* instructions at most between two looks */
#define GUARD_SIZE (UINT64_C(1) << 16)  /* more than the longest block */

bool meter_create(struct translator *translator, char *error, size_t error_size)
{
    uint8_t *memory = mmap(NULL, GUARD_SIZE + METER_SIZE + GUARD_SIZE, PROT_NONE,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    if (memory == MAP_FAILED || mprotect(memory + GUARD_SIZE, METER_SIZE + GUARD_SIZE, PROT_READ) != 0) {
        snprintf(error, error_size, "cannot make the meter of instructions: %s", strerror(errno));
        return false;
    }
    translator->meter = memory + GUARD_SIZE;
    return true;
}

void meter_destroy(struct translator *translator)
{
    if (translator->meter != NULL)
        munmap(translator->meter - GUARD_SIZE, GUARD_SIZE + METER_SIZE + GUARD_SIZE);
}

bool meter_is_below(const struct translator *translator, uint64_t address)
{
    return translator->meter != NULL && (uintptr_t)translator->meter - address <= GUARD_SIZE;
}

void meter_fill(struct translator *translator)
{
    struct vm *vm = translator->vm;
    struct context *context = translator->context;
    uint64_t left =
        vm->instruction_deadline > vm->n_instructions ? vm->instruction_deadline - vm->n_instructions : 0;

    _Static_assert(VIRTUAL_NS_PER_INSTRUCTION == 1, "time is what the budget lacks");
    vm_pass_instructions(vm);
    translator->metered = left < METER_SIZE ? left : METER_SIZE;
    context->budget = (uintptr_t)translator->meter + translator->metered;
    context->tsc_add = vm->virtual_ns + context->budget + vm->vcpu.msr.tsc_offset;
}

void meter_take(struct translator *translator)
{
    struct vm *vm = translator->vm;
    uint64_t left = translator->context->budget - (uintptr_t)translator->meter;

    vm->n_instructions += translator->metered - left;
    translator->metered = left;
    vm_pass_instructions(vm);
}

/* The event is nearer than a block is long. */
void meter_run_out(struct translator *translator, struct vm_exit *exit)
{
    struct vm *vm = translator->vm;

    *exit = (struct vm_exit){.reason = EXIT_INTERRUPTED};
    while (meter_is_low(translator) && !vm_is_due(vm) && !vm->attention)
        if (!interpret_one(vm, exit))
            return;
}
