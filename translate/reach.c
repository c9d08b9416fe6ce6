/*
 * Where instructions without a window find memory.
 *
 * One that met pages which are not mapped (touch.c) is told where its operand is each time. But it often
 * stays in a page for a while: a loop that fills it word by word, a function that pushes its registers. So it
 * has a slot, which says what was found the last time, and asks only when it comes to another page
 * (lower_adapted.c): a TLB of one entry, filled by the monitor.
 *
 * It is emptied whenever the monitor is entered for anything else, before the guest goes on. So as long as it
 * holds the guest has neither changed a register that decides about paging nor said by INVLPG that its tables
 * are other ones, and no page has become a page table or got translations. What the guest only writes into
 * its tables need not be noticed, as by a processor's TLB.
 *
 * Read next: callout.c.
 */
#include "monitor/monitor.h"
#include "translate/translator.h"

/* A loop that stays in the page is better off without the slot (touch.c), and only an interruption tells. */
#define LOOK_AFTER_NS 10000000u

void reach_note(struct translator *translator, const struct call *call, uint8_t *bytes)
{
    struct context *context = translator->context;
    uint32_t page = context->address >> PAGE_SHIFT;

    context->slots[call->slot] =
        (struct slot){.minus_pages = 0 - 2 * page, .reach = (uintptr_t)bytes - context->address};
    translator->slots_in_use |= UINT64_C(1) << call->slot;
    vm_interrupt_within(translator->vm, LOOK_AFTER_NS);
}

void reach_clear(struct translator *translator)
{
    for (uint64_t rest = translator->slots_in_use; rest != 0; rest &= rest - 1)
        translator->context->slots[__builtin_ctzll(rest)].minus_pages = 1;
    translator->slots_in_use = 0;
}

bool reach_was_interrupted(struct translator *translator, const struct call *call)
{
    uint64_t bit = UINT64_C(1) << call->slot;
    bool was_in_use = (translator->slots_interrupted & bit) != 0;

    translator->slots_interrupted &= ~bit;
    return was_in_use;
}

void reach_open(struct translator *translator)
{
    _Static_assert(SLOTS == 64, "a bit each");
    translator->slots_in_use = UINT64_MAX;
    reach_clear(translator);
    translator->has_rorx = __builtin_cpu_supports("bmi2");
}
