/*
 * What the guest's state is while translated code runs, and what it is in the virtual processor: one becomes
 * the other on every way in and out.
 *
 * Read next: mode.c, spaces.c.
 */
#include "monitor/machine.h"
#include "translate/host_clock.h"
#include "translate/translator.h"

#define OFFSET(member, constant)                                                                             \
    _Static_assert(offsetof(struct context, member) == (constant), "enter.S and translated code")
OFFSET(host_rsp, CONTEXT_HOST_RSP);
OFFSET(vcpu, CONTEXT_VCPU);
OFFSET(attention, CONTEXT_ATTENTION);
OFFSET(target, CONTEXT_TARGET);
OFFSET(cache, CONTEXT_CACHE);
OFFSET(table, CONTEXT_TABLE);
OFFSET(window, CONTEXT_WINDOW);
OFFSET(lookup, CONTEXT_LOOKUP);
OFFSET(link, CONTEXT_LINK);
OFFSET(callout, CONTEXT_CALLOUT);
OFFSET(flags, CONTEXT_FLAGS);
OFFSET(direction, CONTEXT_DF);
OFFSET(interrupt_flag, CONTEXT_IF);
OFFSET(pending, CONTEXT_PENDING);
OFFSET(virtual_flags, CONTEXT_VIRTUAL);
OFFSET(scratch, CONTEXT_SCRATCH);
OFFSET(site, CONTEXT_SITE);
OFFSET(fxsave, CONTEXT_FXSAVE);
OFFSET(budget, CONTEXT_BUDGET);
OFFSET(tsc_base, CONTEXT_TSC_BASE);
OFFSET(tsc_mul, CONTEXT_TSC_MUL);
OFFSET(tsc_add, CONTEXT_TSC_ADD);
OFFSET(reach, CONTEXT_REACH);
OFFSET(bases, CONTEXT_BASES);
OFFSET(address, CONTEXT_ADDRESS);
OFFSET(windows, CONTEXT_WINDOWS);
OFFSET(segment_windows, CONTEXT_SEGMENT_WINDOWS);
OFFSET(flat_notes, CONTEXT_FLAT_NOTES);
OFFSET(full_notes, CONTEXT_FULL_NOTES);
OFFSET(slots, CONTEXT_SLOTS);
OFFSET(cpuid, CONTEXT_CPUID);
OFFSET(cpuid.eax, CONTEXT_CPUID + CPUID_EAX);
OFFSET(cpuid.edx, CONTEXT_CPUID + CPUID_EDX);
_Static_assert(sizeof(struct slot) == 16 && offsetof(struct slot, minus_pages) == SLOT_MINUS_PAGES &&
                   offsetof(struct slot, reach) == SLOT_REACH,
               "lower_adapted.c");
#undef OFFSET
#define OFFSET(member, constant)                                                                             \
    _Static_assert(offsetof(struct segment_note, member) == (constant), "lower_segment.c")
OFFSET(minus_selector, NOTE_MINUS_SELECTOR);
OFFSET(linear, NOTE_LINEAR);
OFFSET(minus_descriptor, NOTE_MINUS_DESCRIPTOR);
OFFSET(segment, NOTE_SEGMENT);
OFFSET(window, NOTE_WINDOW);
_Static_assert(sizeof(struct segment) == 12 && offsetof(struct segment, base) == 4, "lower_segment.c");
_Static_assert(offsetof(struct vcpu, gpr) == VCPU_GPR && offsetof(struct vcpu, eip) == VCPU_EIP, "enter.S");

#define FLAGS_OF_HOST                                                                                        \
    (EFLAGS_CF | EFLAGS_PF | EFLAGS_AF | EFLAGS_ZF | EFLAGS_SF | EFLAGS_OF | EFLAGS_DF | EFLAGS_IF)
#define FLAGS_BY_LAHF (EFLAGS_CF | EFLAGS_PF | EFLAGS_AF | EFLAGS_ZF | EFLAGS_SF)

/* EFLAGS is in pieces while translated code runs. */
void state_take_flags(struct context *context)
{
    struct vcpu *vcpu = context->vcpu;

    vcpu->eflags = (vcpu->eflags & ~FLAGS_OF_HOST) | (context->flags >> 8 & FLAGS_BY_LAHF) |
                   (context->flags & 1 ? EFLAGS_OF : 0) | context->direction | context->interrupt_flag;
}

void state_give_flags(struct context *context)
{
    uint32_t eflags = context->vcpu->eflags;

    context->flags = (uint16_t)((eflags & FLAGS_BY_LAHF) << 8 | ((eflags & EFLAGS_OF) != 0));
    context->direction = eflags & EFLAGS_DF;
    context->interrupt_flag = eflags & EFLAGS_IF;
    /* Bit 1 as well: LAHF has it, and PUSHF adds the two. */
    context->virtual_flags = eflags & ~(FLAGS_OF_HOST | EFLAGS_RF | EFLAGS_VM | EFLAGS_FIXED);
}

uint32_t state_pending_flag(struct vm *vm)
{
    return vm->attention || vm->vcpu.nmi_pending || board_nmi(vm->board) || board_intr(vm->board) ? EFLAGS_IF
                                                                                                  : 0;
}

/* As machine_tsc and the emulator of RDTSC have it. It changes when the host's clock is looked at (on the way
 * into translated code), and with the guest's own offset (WRMSR). */
void state_give_tsc(struct translator *translator)
{
    const struct vm *vm = translator->vm;
    struct context *context = translator->context;
    struct host_clock_line line;

    if (translator->meter != NULL)
        return; /* meter.c does, and will */
    line = host_clock_line();
    context->tsc_base = 0 - line.tsc;
    context->tsc_mul = line.mul;
    context->tsc_add = line.ns - vm->host_start_ns + vm->vcpu.msr.tsc_offset;
}

void state_prepare(struct translator *translator)
{
    struct context *context = translator->context;

    state_give_flags(context);
    notes_give_segments(context);
    context->table = spaces_table(translator);
    context->pending = state_pending_flag(translator->vm);
}

bool state_is_watched(const struct vm *vm)
{
    return vm->n_watchers != 0 || vm->debugger != NULL || vm->config.check_invariant;
}

bool state_is_plain(const struct translator *translator)
{
    const struct vm *vm = translator->vm;

    return vm->n_observers == 0 && !vm->timed && !state_is_watched(vm) && vm->vcpu.ops == &machine_vcpu_ops;
}

bool state_follow_vcpu(struct translator *translator)
{
    switch_forget(translator);
    translator->context->cpuid.minus_leaf = CPUID_UNKNOWN; /* IA32_APIC_BASE is in it */
    translator->mode = mode_of(translator, &translator->vm->vcpu);
    spaces_select(translator);
    notes_follow(translator, state_is_watched(translator->vm));
    return translator->mode != MODE_NONE;
}

/* The shadow of STI or MOV SS, and RF, end with the next instruction; until then: state_restore_shadow. */
void state_note_shadow(struct translator *translator)
{
    struct vm *vm = translator->vm;

    translator->shadow = vm->vcpu.interrupt_shadow;
    translator->resume_flag = vm->vcpu.eflags & EFLAGS_RF;
    translator->shadow_eip = vm->vcpu.eip;
    translator->shadow_count = vm->n_instructions;
    vm->vcpu.interrupt_shadow = SHADOW_NONE;
    vm->vcpu.eflags &= ~EFLAGS_RF;
}

/* The instruction after STI or MOV SS has not run yet. (Where instructions are not counted it may be long
 * ago, and the guest at the same place again: then an interrupt waits for one instruction more.) */
void state_restore_shadow(struct translator *translator)
{
    struct vm *vm = translator->vm;

    if (vm->vcpu.eip == translator->shadow_eip && vm->n_instructions == translator->shadow_count) {
        vm->vcpu.eflags |= translator->resume_flag;
        if (vm->vcpu.interrupt_shadow == SHADOW_NONE)
            vm->vcpu.interrupt_shadow = translator->shadow;
    }
    translator->shadow = SHADOW_NONE;
    translator->resume_flag = 0;
}

/* ---- host code -------------------------------------------------------------------------------------------
 */

const uint8_t *state_entry_of(const struct translator *translator, const struct block *block)
{
    return translator->cache.executable + block->code + block->direct;
}

/* Code is written through another address than the one that it runs at. */
void state_serialize(struct translator *translator)
{
    if (translator->cache.is_written)
        vcpu_serialize();
    translator->cache.is_written = false;
}
