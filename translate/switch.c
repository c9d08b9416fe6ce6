/*
 * Between ring 3 and ring 0 and back. What the guest's code relies on is another then: mode, window, jump
 * table. But a kernel comes and goes by the same few ways, and what one of them leads to stays the same until
 * a register is changed that decides it, or somebody wants to see each exit. So it is noted here: the monitor
 * need not find out again after each INT and IRET, and SYSENTER and SYSEXIT (lower_switch.c) do not need the
 * monitor at all. These leave a word for it: who finds context.switched set brings the virtual processor up
 * to date before anything else (switch_catch_up).
 *
 * What is noted is given up whenever the state is looked at anew (state_follow_vcpu): on each way into
 * translated code from the run loop, and after each instruction that may change what decides mode or space.
 *
 * Read next: lower_switch.c.
 */
#include "translate/translator.h"

void switch_forget(struct translator *translator)
{
    for (int kind = 0; kind < SWITCH_KINDS; kind++)
        translator->context->sides[kind].minus_mode = 0 - MODE_NONE;
}

static void enter(struct translator *translator, const struct side *side)
{
    struct context *context = translator->context;

    translator->mode = side->mode;
    spaces_enter(translator, side->space);
    context->table = side->table;
}

void switch_complete(struct translator *translator, const struct side *side)
{
    struct vcpu *vcpu = &translator->vm->vcpu;

    translator->vm->has_run_user = true; /* it has gone there or come from there, or both */
    vcpu->segment[SEG_CS] = side->cs;
    vcpu->segment[SEG_SS] = side->ss;
    vcpu->cpl = side->cpl;
    shadow_note_use(translator->user->shadow); /* it may have come and gone */
    enter(translator, side);
    translator->context->switched = 0;
}

static bool is_same(const struct segment *a, const struct segment *b)
{
    return a->selector == b->selector && a->attributes == b->attributes && a->base == b->base &&
           a->limit == b->limit;
}

static bool is_known(const struct side *side, uint32_t old_mode, const struct vcpu *vcpu)
{
    return side->minus_mode + old_mode == 0 && is_same(&side->cs, &vcpu->segment[SEG_CS]) &&
           is_same(&side->ss, &vcpu->segment[SEG_SS]);
}

#define FLAT_MODE (MODE_FLAT_CS | MODE_FLAT_SS)

static void note(struct translator *translator, struct side *side, uint32_t old_mode, uintptr_t old_window)
{
    const struct context *context = translator->context;
    const struct vcpu *vcpu = &translator->vm->vcpu;

    if ((old_mode & translator->mode & FLAT_MODE) != FLAT_MODE)
        return;
    *side = (struct side){.minus_mode = 0 - old_mode,
                          .selectors = notes_selectors(vcpu),
                          .table = context->table,
                          .window = context->window,
                          .window_change = context->window - old_window,
                          .space = translator->space,
                          .mode = translator->mode,
                          .cs = vcpu->segment[SEG_CS],
                          .ss = vcpu->segment[SEG_SS],
                          .cpl = vcpu->cpl};
}

bool switch_follow(struct translator *translator, enum switch_kind kind)
{
    struct context *context = translator->context;
    const struct vcpu *vcpu = &translator->vm->vcpu;
    struct side *side = &context->sides[kind];
    uint32_t old_mode = translator->mode;
    uintptr_t old_window = context->window;
    bool is_usual = !(vcpu->eflags & (EFLAGS_TF | EFLAGS_AC)); /* they decide the mode, too */

    if (!is_usual)
        switch_forget(translator);
    if (is_known(side, old_mode, vcpu)) {
        enter(translator, side);
        return true;
    }
    translator->mode = mode_after_switch(translator, vcpu);
    spaces_select(translator);
    if (translator->mode == MODE_NONE)
        return false;
    context->table = spaces_table(translator);
    if (is_usual)
        note(translator, side, old_mode, old_window);
    return true;
}
