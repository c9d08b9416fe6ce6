/*
 * The ways out of translated code, and back.
 *
 * Most calls never reach the run loop: the monitor handles the exit (vm_handle_exit) where it happened and
 * the guest goes on, unless somebody watches the exits, or something else is to be done first: an interrupt,
 * a timer, the end.
 *
 * Read next: quick.c, find.c.
 */
#include <string.h>

#include "monitor/monitor.h"
#include "translate/translator.h"

/* Has the run loop something to do before the guest goes on? interrupt_flag: EFLAGS.IF or 0. */
static inline __attribute__((always_inline)) bool must_leave(struct translator *translator,
                                                             uint32_t interrupt_flag)
{
    struct context *context = translator->context;
    struct vm *vm = translator->vm;

    context->pending = state_pending_flag(vm);
    return vm_is_stopped(vm) || vm->vcpu.halted || vm->attention || vm->deadline_moved ||
           (context->pending & interrupt_flag) ||
           ((vm->vcpu.nmi_pending || board_nmi(vm->board)) && vcpu_accepts_nmi(&vm->vcpu));
}

/* The same after an instruction that went the short way; true also where must_leave had to be asked. */
static inline __attribute__((always_inline)) bool may_have_to_leave(struct translator *translator)
{
    struct context *context = translator->context;
    struct vm *vm = translator->vm;

    if (vm->stop_reason != STOP_NONE || vm->attention || vm->deadline_moved || vm->vcpu.nmi_pending ||
        board_nmi(vm->board))
        return true;
    context->pending = board_intr(vm->board) ? EFLAGS_IF : 0;
    return (context->pending & context->interrupt_flag) != 0;
}

static const uint8_t *leave_with(struct translator *translator, const struct vm_exit *exit)
{
    translator->exit = *exit;
    state_give_flags(translator->context); /* translate_run takes them */
    return NULL;
}

static const uint8_t *leave_interrupted(struct translator *translator)
{
    return leave_with(translator, &(struct vm_exit){.reason = EXIT_INTERRUPTED});
}

/* What is due comes before the fetch, which may fault. (Where there is a block its own check sees to it.) */
static const uint8_t *look_up(struct translator *translator)
{
    struct vm_exit exit;
    struct block *block;

    if (vm_is_due(translator->vm))
        return leave_interrupted(translator);
    block = find_block(translator, &exit);
    if (block == NULL)
        return leave_with(translator, &exit);
    spaces_note_target(translator, block->eip, block);
    state_serialize(translator);
    return state_entry_of(translator, block);
}

/* As a direct jump to another page does: the entry that the table has for EIP checks it, and comes back if it
 * is another's. */
static const uint8_t *go_to_eip(struct translator *translator)
{
    const struct cache *cache = &translator->cache;
    uint32_t slot = translator->context->table[direct_slot(translator->vm->vcpu.eip)];

    if (slot == 0)
        return look_up(translator);
    state_serialize(translator);
    return cache->executable + slot;
}

static const uint8_t *on_lookup(struct translator *translator)
{
    reach_forget(translator);
    switch_catch_up(translator);
    state_take_flags(translator->context);
    meter_read(translator);
    if (must_leave(translator, translator->context->interrupt_flag))
        return leave_interrupted(translator);
    return look_up(translator);
}

/* A direct jump within a page finds its target: from now on it goes there by itself. */
static const uint8_t *on_link(struct translator *translator)
{
    const struct context *context = translator->context;
    const struct cache *cache = &translator->cache;
    uint64_t n_flushes = cache->n_flushes;
    const uint8_t *host = on_lookup(translator);
    const struct block *from, *to;

    if (host == NULL || cache->n_flushes != n_flushes)
        return host;
    from = cache_block_at(cache, context->site - 1);
    to = cache_block_at(cache, host);
    if (from == NULL || to == NULL || from->is_dead || from->second_rpn != 0)
        return host;
    if (to->second_rpn != 0 || from->place >> PAGE_SHIFT != to->place >> PAGE_SHIFT) {
        int32_t displacement;

        memcpy(&displacement, context->site - sizeof displacement, sizeof displacement);
        build_unlink(cache->writable + (context->site + displacement - cache->executable), to->eip);
    } else {
        emit_patch(cache->writable + (context->site - 4 - cache->executable),
                   cache->writable + (host - cache->executable));
    }
    translator->cache.is_written = true;
    state_serialize(translator);
    return host;
}

/* x87 state is in the CPU while XMM registers are in the vcpu; the emulator wants all of it there. */
static void take_fpu(struct translator *translator)
{
    _Alignas(16) uint8_t image[512];

    __asm__ volatile("fxsave64 %0" : "=m"(image));
    memcpy(translator->context->fxsave, image, FXSAVE_XMM);
    frame_repair_fxsave(translator);
}

static void give_fpu(struct translator *translator)
{
    __asm__ volatile("fxrstor64 (%0)" : : "r"(translator->context->fxsave) : "memory");
}

/* Is the host code behind the call still there, for what the guest has there? */
static bool is_code_kept(const struct translator *translator, const struct call *call, uint64_t n_flushes)
{
    return translator->cache.n_flushes == n_flushes && !translator->is_code_dropped && !call->block->is_dead;
}

/* And is the guest there? (A fault's handler may be, too.) */
static bool is_next(const struct translator *translator, const struct call *call, uint64_t n_flushes)
{
    return is_code_kept(translator, call, n_flushes) && translator->is_call_done &&
           translator->vm->vcpu.eip == call->eip + call->insn.length && !meter_is_low(translator);
}

/* Of what has gone through a gate, or by IRET. */
static enum switch_kind kind_of_switch(const struct translator *translator)
{
    bool was_user = (translator->mode & MODE_USER) != 0, is_user = translator->vm->vcpu.cpl == 3;

    return was_user == is_user ? SWITCH_WITHIN : is_user ? SWITCH_OUT : SWITCH_IN;
}

/* Where CS, SS and the space are others, and nothing else is (switch_follow). */
static const uint8_t *go_on_switched(struct translator *translator)
{
    translator->is_code_dropped = false;
    state_give_flags(translator->context);
    notes_give_switch(translator->context);
    return go_to_eip(translator);
}

/* Behind the call, if the code there is still what the guest would run next. */
static const uint8_t *go_on(struct translator *translator, const struct call *call, uint64_t n_flushes)
{
    uint32_t mode = translator->mode;
    const struct space *space = translator->space;
    bool may_resume = is_next(translator, call, n_flushes);

    translator->is_code_dropped = false;
    meter_set(translator);
    if (may_resume && call->keeps_mode) {
        state_give_flags(translator->context);
        return call->resume;
    }
    if (call->keeps_mode && !translator->has_new_paging && !translator->vm->vcpu.has_other_data_segments)
        return switch_follow(translator, kind_of_switch(translator)) /* into a fault's handler */
                   ? go_on_switched(translator)
                   : leave_interrupted(translator);
    if (!state_follow_vcpu(translator)) /* which may empty the cache (mode.c) */
        return leave_interrupted(translator);
    may_resume = may_resume && translator->cache.n_flushes == n_flushes;
    if (call->insn.sensitive != NULL && call->insn.sensitive->handler == HANDLE_iret)
        adapt_note_return(translator);
    state_prepare(translator);
    if (may_resume && mode == translator->mode && space == translator->space)
        return call->resume;
    return go_to_eip(translator);
}

/* The same after a quiet instruction: of what translated code relies on it can only have changed segments. */
static const uint8_t *go_on_quietly(struct translator *translator, const struct call *call,
                                    uint64_t n_flushes)
{
    bool keeps_mode = call->keeps_mode;

    if ((!keeps_mode && mode_of(translator, &translator->vm->vcpu) != translator->mode) ||
        !is_next(translator, call, n_flushes)) /* it may have emptied the cache, too */
        return go_on(translator, call, n_flushes);
    meter_set(translator);
    if (!keeps_mode)
        notes_give_segments(translator->context);
    state_give_flags(translator->context);
    return call->resume;
}

/* The monitor's way to handle an exit, without what this instruction cannot need. false: it did not run (a
 * fault changes nothing), and the whole way is to be gone. */
static bool run_quietly(struct vm *vm, const struct call *call)
{
    if (vm->n_observers != 0 || vm->attention || vcpu_emulate(&vm->vcpu, &call->insn) != OUTCOME_DONE)
        return false;
    vm->n_exits++;
    vm->n_instructions++;
    return true;
}
static void note_load(struct translator *translator, const struct call *call)
{
    if (call->loads_segment && translator->vm->vcpu.eip == call->eip + call->insn.length)
        notes_take(translator, call->insn.operand[0].reg.index);
}

/* Where nobody wants to see each one. */
static void note_cpuid(struct translator *translator, const struct call *call, uint32_t leaf)
{
    const uint32_t *gpr = translator->vm->vcpu.gpr;

    if (call->insn.sensitive != NULL && call->insn.sensitive->handler == HANDLE_cpuid && translator->is_plain)
        translator->context->cpuid =
            (struct cpuid_note){0 - (uint64_t)leaf, gpr[EAX], gpr[EBX], gpr[ECX], gpr[EDX]};
}

/* After an instruction that may have done anything. */
static const uint8_t *go_on_anywhere(struct translator *translator, const struct call *call,
                                     uint64_t n_flushes)
{
    if (must_leave(translator, translator->vm->vcpu.eflags & EFLAGS_IF))
        return leave_interrupted(translator);
    state_note_shadow(translator);
    return go_on(translator, call, n_flushes);
}

/* is_prepared: touch_prepare need not be asked. */
static const uint8_t *on_callout(struct translator *translator, struct call *call, bool is_prepared)
{
    struct vm *vm = translator->vm;
    struct vm_exit exit = {.reason = EXIT_SENSITIVE, .insn = &call->insn};
    uint64_t n_flushes = translator->cache.n_flushes;
    bool is_fpu = call->insn.sensitive != NULL && call->insn.sensitive->handler == HANDLE_fpu;
    uint64_t n_instructions;
    bool is_adapted = is_prepared;
    uint32_t leaf = vm->vcpu.gpr[EAX]; /* if it is CPUID */

    vm->vcpu.eip = call->eip;
    state_take_flags(translator->context);
    state_restore_shadow(translator);
    if (call->insn.sensitive != NULL)
        translator->counts.sensitive++;
    else
        translator->counts.memory++;
    if (call->insn.sensitive == NULL && vm->n_watchers == 0 && !is_prepared)
        is_adapted = touch_prepare(translator, call);
    if (state_is_watched(vm))
        return leave_with(translator, &exit);
    if (call->is_quiet && run_quietly(vm, call)) {
        translator->is_call_done = true;
        note_cpuid(translator, call, leaf);
        note_load(translator, call);
        return go_on_quietly(translator, call, n_flushes);
    }
    if (is_fpu)
        take_fpu(translator);
    n_instructions = vm->n_instructions;
    vm->vcpu.has_other_data_segments = false;
    vm->maps_by_itself = is_adapted;
    vm_handle_exit(vm, &exit);
    vm->maps_by_itself = false;
    translator->is_call_done = vm->n_instructions != n_instructions;
    if (!translator->is_call_done && translator->cache.n_flushes == n_flushes && vm->vcpu.eip != call->eip)
        call->was_needed = true; /* in a handler; not between two turns of a string instruction */
    note_load(translator, call);
    if (is_fpu)
        give_fpu(translator);
    if (call->insn.sensitive != NULL && call->insn.sensitive->handler == HANDLE_msr)
        state_give_tsc(translator);
    return go_on_anywhere(translator, call, n_flushes);
}

const uint8_t *translate_on_lookup(struct context *context)
{
    struct translator *translator = context->translator;
    uint64_t began = measure_begin(translator);
    const uint8_t *host = on_lookup(translator);

    translator->counts.lookups++;
    measure_end(translator, &translator->counts.find_ns, began);
    return host;
}

const uint8_t *translate_on_link(struct context *context)
{
    struct translator *translator = context->translator;
    uint64_t began = measure_begin(translator);
    const uint8_t *host = on_link(translator);

    translator->counts.links++;
    measure_end(translator, &translator->counts.find_ns, began);
    return host;
}

/* Kept out of the short way, for its sake. */
__attribute__((noinline)) static const uint8_t *on_long_callout(struct translator *translator,
                                                                struct call *call, bool is_prepared)
{
    uint64_t began = measure_begin(translator);
    const uint8_t *host;

    reach_forget(translator);
    host = on_callout(translator, call, is_prepared);

    measure_end(translator, &translator->counts.call_ns, began);
    return host;
}

/* After a call that went the short way, if that has done more than the instruction says. */
__attribute__((noinline)) static const uint8_t *after_quick(struct translator *translator,
                                                            const struct call *call, uint64_t n_flushes)
{
    state_take_flags(translator->context);
    translator->is_call_done = true;
    return go_on_anywhere(translator, call, n_flushes);
}

static inline const uint8_t *end_quickly(struct translator *translator, const struct call *call,
                                         uint64_t n_flushes)
{
    struct vm *vm = translator->vm;

    vm->vcpu.eip += call->insn.length;
    vm->n_exits++;
    vm->n_instructions++;
    if (may_have_to_leave(translator) || !is_code_kept(translator, call, n_flushes))
        return after_quick(translator, call, n_flushes);
    meter_set(translator);
    return call->resume;
}

/* Not done; but a task switch faults in the new task, and must not be run again. */
static const uint8_t *after_failure(struct translator *translator, const struct call *call,
                                    enum outcome outcome, uint64_t n_flushes)
{
    struct vm *vm = translator->vm;
    uint64_t n_instructions = vm->n_instructions;

    (void)vm_end_insn(vm, outcome);
    translator->is_call_done = vm->n_instructions != n_instructions;
    return go_on_anywhere(translator, call, n_flushes);
}

/* Between ring 3 and ring 0, by an instruction: the space is another, CS and SS, and nothing else, if it is
 * neither a task switch nor a return that takes data segments away. */
__attribute__((noinline)) static const uint8_t *on_switch(struct translator *translator, struct call *call)
{
    struct context *context = translator->context;
    struct vm *vm = translator->vm;
    uint64_t n_flushes = translator->cache.n_flushes;
    enum sensitive_handler handler = call->insn.sensitive->handler;
    enum switch_kind kind;
    enum outcome outcome;

    vm->vcpu.eip = call->eip;
    reach_forget(translator);
    state_take_flags(context);
    vm->vcpu.has_other_data_segments = false;
    outcome = vcpu_emulate(&vm->vcpu, &call->insn);
    vm->n_exits++;
    if (outcome != OUTCOME_DONE)
        return after_failure(translator, call, outcome, n_flushes);
    vm->n_instructions++;
    translator->is_call_done = true;
    if (translator->has_new_paging || vm->vcpu.has_other_data_segments)
        return go_on_anywhere(translator, call, n_flushes);
    if (must_leave(translator, vm->vcpu.eflags & EFLAGS_IF))
        return leave_interrupted(translator);
    state_note_shadow(translator);
    kind = handler == HANDLE_sysenter  ? SWITCH_SYSENTER
           : handler == HANDLE_sysexit ? SWITCH_SYSEXIT
                                       : kind_of_switch(translator);
    if (!switch_follow(translator, kind))
        return leave_interrupted(translator);
    if (handler == HANDLE_iret)
        adapt_note_return(translator);
    meter_set(translator);
    return go_on_switched(translator);
}

/* The guest's own page fault. */
static const uint8_t *on_access_fault(struct translator *translator, struct call *call, uint64_t n_flushes)
{
    reach_forget(translator);
    state_take_flags(translator->context);
    state_restore_shadow(translator);
    translator->vm->vcpu.has_other_data_segments = false;
    call->was_needed = true;
    translator->vm->n_exits++;
    return after_failure(translator, call, OUTCOME_FAULT, n_flushes);
}

/* An instruction whose operand no window has yet. Mostly it is the guest's fault, or memory. */
__attribute__((noinline)) static const uint8_t *on_access(struct translator *translator, struct call *call)
{
    struct context *context = translator->context;
    uint64_t n_flushes = translator->cache.n_flushes;
    uint8_t *bytes;
    enum touched touched = touch_find(translator, call, context->address, &bytes);

    if (touched == TOUCHED_FAULT)
        return on_access_fault(translator, call, n_flushes);
    if (touched != TOUCHED_MEMORY || call->again_length == 0 || !is_code_kept(translator, call, n_flushes))
        return on_long_callout(translator, call, touched != TOUCHED_NOT);
    translator->vm->n_exits++;
    translator->resume_flag = 0; /* it is done now */
    if (call->has_slot)
        reach_note(translator, call, bytes);
    else
        context->reach = (uintptr_t)bytes - context->address;
    return call->resume - call->again_length;
}

/* In the shadow of STI or MOV SS, or with RF set, as each instruction is that is tried again after a fault?
 */
static inline bool is_shadowed(struct translator *translator, const struct call *call)
{
    if (translator->shadow == SHADOW_NONE && translator->resume_flag == 0)
        return false;
    if (call->eip == translator->shadow_eip)
        return translator->shadow != SHADOW_NONE || call->again_length == 0;
    translator->shadow = SHADOW_NONE; /* they ended with the instruction before */
    translator->resume_flag = 0;
    return false;
}

const uint8_t *translate_on_callout(struct context *context, uint32_t number)
{
    struct translator *translator = context->translator;
    struct vm *vm = translator->vm;
    struct call *call = &translator->cache.calls[number];
    uint64_t n_flushes = translator->cache.n_flushes;

    switch_catch_up(translator);
    meter_read(translator); /* devices ask what time it is */
    if (!translator->is_plain || is_shadowed(translator, call))
        return on_long_callout(translator, call, false);
    if (call->quick.kind == QUICK_SWITCH)
        return on_switch(translator, call);
    vm->vcpu.eip = call->eip;
    if (call->quick.kind != QUICK_NOT && quick_run(vm, &call->quick, context->address)) {
        reach_forget(translator);
        call->was_needed = true;
        return end_quickly(translator, call, n_flushes);
    }
    return call->access_kind != 0 ? on_access(translator, call) : on_long_callout(translator, call, false);
}
