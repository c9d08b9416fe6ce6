/*
 * The translate engine's side of the run loop: into translated code, and what its ways out ask for.
 *
 * Most calls out of translated code never reach the run loop: the monitor handles the exit (vm_handle_exit)
 * where it happened and the guest goes on, unless somebody watches the exits, or something else is to be done
 * first: an interrupt, a timer, the end.
 *
 * Read next: mode.c, spaces.c, find.c.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "monitor/interpret.h"
#include "monitor/machine.h"
#include "signals/crash.h"
#include "translate/host_clock.h"
#include "translate/translate.h"
#include "translate/translator.h"
#include "vcpu/fail.h"

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
OFFSET(bases, CONTEXT_BASES);
OFFSET(windows, CONTEXT_WINDOWS);
OFFSET(segment_windows, CONTEXT_SEGMENT_WINDOWS);
OFFSET(flat_notes, CONTEXT_FLAT_NOTES);
OFFSET(full_notes, CONTEXT_FULL_NOTES);
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

static struct translator *translator_of(struct context *context)
{
    return (struct translator *)((char *)context - offsetof(struct translator, context));
}

/* ---- the virtual processor and the context ------------------------------------------------------------- */

/* EFLAGS is in pieces while translated code runs. */
static void take_flags(struct context *context)
{
    struct vcpu *vcpu = context->vcpu;

    vcpu->eflags = (vcpu->eflags & ~FLAGS_OF_HOST) | (context->flags >> 8 & FLAGS_BY_LAHF) |
                   (context->flags & 1 ? EFLAGS_OF : 0) | context->direction | context->interrupt_flag;
}

static void give_flags(struct context *context)
{
    uint32_t eflags = context->vcpu->eflags;

    context->flags = (uint16_t)((eflags & FLAGS_BY_LAHF) << 8 | ((eflags & EFLAGS_OF) != 0));
    context->direction = eflags & EFLAGS_DF;
    context->interrupt_flag = eflags & EFLAGS_IF;
    /* Bit 1 as well: LAHF has it, and PUSHF adds the two. */
    context->virtual_flags = eflags & ~(FLAGS_OF_HOST | EFLAGS_RF | EFLAGS_VM | EFLAGS_FIXED);
}

/* May an interrupt be delivered once IF is set? */
static uint32_t pending_flag(struct vm *vm)
{
    return vm->attention || vm->vcpu.nmi_pending || board_intr(vm->board) ? EFLAGS_IF : 0;
}

/* As machine_tsc and the emulator of RDTSC have it. It changes when the host's clock is looked at (on the way
 * into translated code), and with the guest's own offset (WRMSR). */
static void give_tsc(struct translator *translator)
{
    const struct vm *vm = translator->vm;
    struct context *context = &translator->context;
    struct host_clock_line line = host_clock_line();

    context->tsc_base = 0 - line.tsc;
    context->tsc_mul = line.mul;
    context->tsc_add = line.ns - vm->host_start_ns + vm->vcpu.msr.tsc_offset;
}

/* Everything in the context that follows from the vcpu. */
static void prepare(struct translator *translator)
{
    struct context *context = &translator->context;

    give_flags(context);
    notes_give_segments(context);
    context->table = spaces_table(translator);
    context->pending = pending_flag(translator->vm);
}

/* Does somebody watch exits, so that each must go through the run loop? */
static bool is_watched(const struct vm *vm)
{
    return vm->n_watchers != 0 || vm->debugger != NULL || vm->config.check_invariant;
}

/* Nor measures, nor counts? */
static bool is_plain(const struct translator *translator)
{
    const struct vm *vm = translator->vm;

    return translator->meter == NULL && vm->n_observers == 0 && !vm->timed && !is_watched(vm) &&
           vm->vcpu.ops == &machine_vcpu_ops;
}

/* Brings space and mode up to date. false: the guest's state has no mode. */
static bool follow_vcpu(struct translator *translator)
{
    translator->mode = mode_of(translator, &translator->vm->vcpu);
    spaces_select(translator);
    notes_follow(translator, is_watched(translator->vm));
    return translator->mode != MODE_NONE;
}

/* ---- ways out of translated code ----------------------------------------------------------------------- */

/* Has the run loop something to do before the guest goes on? interrupt_flag: EFLAGS.IF or 0. */
static inline __attribute__((always_inline)) bool must_leave(struct translator *translator,
                                                             uint32_t interrupt_flag)
{
    struct context *context = &translator->context;
    struct vm *vm = translator->vm;

    context->pending = pending_flag(vm);
    return vm_is_stopped(vm) || vm->vcpu.halted || vm->attention || vm->deadline_moved ||
           (context->pending & interrupt_flag) || (vm->vcpu.nmi_pending && vcpu_accepts_nmi(&vm->vcpu));
}

static const uint8_t *leave_with(struct translator *translator, const struct vm_exit *exit)
{
    translator->exit = *exit;
    give_flags(&translator->context); /* translate_run takes them */
    return NULL;
}

static const uint8_t *leave_interrupted(struct translator *translator)
{
    return leave_with(translator, &(struct vm_exit){.reason = EXIT_INTERRUPTED});
}

static const uint8_t *entry_of(const struct translator *translator, const struct block *block)
{
    return translator->cache.executable + block->code + block->direct;
}

/* Code is written through another address than the one that it runs at. */
static void serialize(struct translator *translator)
{
    if (translator->cache.is_written)
        vcpu_serialize();
    translator->cache.is_written = false;
}

static const uint8_t *look_up(struct translator *translator)
{
    struct vm_exit exit;
    struct block *block = find_block(translator, &exit);

    if (block == NULL)
        return leave_with(translator, &exit);
    spaces_note_target(translator, block->eip, block);
    serialize(translator);
    return entry_of(translator, block);
}

/* As a direct jump to another page does: the entry that the table has for EIP checks it, and comes back if it
 * is another's. */
static const uint8_t *go_to_eip(struct translator *translator)
{
    const struct cache *cache = &translator->cache;
    uint32_t slot = translator->context.table[direct_slot(translator->vm->vcpu.eip)];

    if (slot == 0)
        return look_up(translator);
    serialize(translator);
    return cache->executable + slot;
}

static const uint8_t *on_lookup(struct translator *translator)
{
    take_flags(&translator->context);
    meter_read(translator);
    if (must_leave(translator, translator->context.interrupt_flag))
        return leave_interrupted(translator);
    return look_up(translator);
}

/* A direct jump within a page finds its target: from now on it goes there by itself. */
static const uint8_t *on_link(struct translator *translator)
{
    const struct context *context = &translator->context;
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
    serialize(translator);
    return host;
}

/* x87 state is in the CPU while XMM registers are in the vcpu; the emulator wants all of it there. */
static void take_fpu(struct translator *translator)
{
    _Alignas(16) uint8_t image[512];

    __asm__ volatile("fxsave64 %0" : "=m"(image));
    memcpy(translator->context.fxsave, image, FXSAVE_XMM);
    frame_repair_fxsave(translator);
}

static void give_fpu(struct translator *translator)
{
    __asm__ volatile("fxrstor64 (%0)" : : "r"(translator->context.fxsave) : "memory");
}

/* (A fault's handler may be there, too.) */
static bool is_next(const struct translator *translator, const struct call *call, uint64_t n_flushes)
{
    return translator->cache.n_flushes == n_flushes && !translator->is_code_dropped &&
           !call->block->is_dead && translator->vm->vcpu.eip == call->eip + call->insn.length &&
           translator->is_call_done && !meter_is_low(translator);
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
        give_flags(&translator->context);
        return call->resume;
    }
    if (!follow_vcpu(translator)) /* which may empty the cache (mode.c) */
        return leave_interrupted(translator);
    may_resume = may_resume && translator->cache.n_flushes == n_flushes;
    if (call->insn.sensitive != NULL && call->insn.sensitive->handler == HANDLE_iret)
        adapt_note_return(translator);
    prepare(translator);
    if (may_resume && mode == translator->mode && space == translator->space)
        return call->resume;
    return go_to_eip(translator);
}

/* The same after a quiet instruction: of what translated code relies on it can only have changed segments. */
static const uint8_t *go_on_quietly(struct translator *translator, const struct call *call,
                                    uint64_t n_flushes)
{
    if (mode_of(translator, &translator->vm->vcpu) != translator->mode || /* it may empty the cache, too */
        !is_next(translator, call, n_flushes))
        return go_on(translator, call, n_flushes);
    meter_set(translator);
    notes_give_segments(&translator->context);
    give_flags(&translator->context);
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

/* The shadow of STI or MOV SS, and RF, end with the next instruction; until then: restore_shadow. */
static void note_shadow(struct translator *translator)
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
static void restore_shadow(struct translator *translator)
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

static void note_load(struct translator *translator, const struct call *call)
{
    if (call->loads_segment && translator->vm->vcpu.eip == call->eip + call->insn.length)
        notes_take(translator, call->insn.operand[0].reg.index);
}

static const uint8_t *on_callout(struct translator *translator, struct call *call)
{
    struct vm *vm = translator->vm;
    struct vm_exit exit = {.reason = EXIT_SENSITIVE, .insn = &call->insn};
    uint64_t n_flushes = translator->cache.n_flushes;
    bool is_fpu = call->insn.sensitive != NULL && call->insn.sensitive->handler == HANDLE_fpu;
    uint64_t n_instructions;
    bool is_adapted = false;

    vm->vcpu.eip = call->eip;
    take_flags(&translator->context);
    meter_read(translator);
    restore_shadow(translator);
    if (call->insn.sensitive != NULL)
        translator->counts.sensitive++;
    else
        translator->counts.memory++;
    if (call->insn.sensitive == NULL && vm->n_watchers == 0)
        is_adapted = adapt_note_call(translator, call);
    if (is_watched(vm))
        return leave_with(translator, &exit);
    if (call->is_quiet && run_quietly(vm, call)) {
        translator->is_call_done = true;
        note_load(translator, call);
        return go_on_quietly(translator, call, n_flushes);
    }
    if (is_fpu)
        take_fpu(translator);
    n_instructions = vm->n_instructions;
    vm->maps_by_itself = is_adapted;
    vm_handle_exit(vm, &exit);
    vm->maps_by_itself = false;
    translator->is_call_done = vm->n_instructions != n_instructions;
    note_load(translator, call);
    if (is_fpu)
        give_fpu(translator);
    if (call->insn.sensitive != NULL && call->insn.sensitive->handler == HANDLE_msr)
        give_tsc(translator);
    if (must_leave(translator, vm->vcpu.eflags & EFLAGS_IF))
        return leave_interrupted(translator);
    note_shadow(translator);
    return go_on(translator, call, n_flushes);
}

const uint8_t *translate_on_lookup(struct context *context)
{
    struct translator *translator = translator_of(context);
    uint64_t began = measure_begin(translator);
    const uint8_t *host = on_lookup(translator);

    translator->counts.lookups++;
    measure_end(translator, &translator->counts.find_ns, began);
    return host;
}

const uint8_t *translate_on_link(struct context *context)
{
    struct translator *translator = translator_of(context);
    uint64_t began = measure_begin(translator);
    const uint8_t *host = on_link(translator);

    translator->counts.links++;
    measure_end(translator, &translator->counts.find_ns, began);
    return host;
}

/* Kept out of the short way, for its sake. */
__attribute__((noinline)) static const uint8_t *on_long_callout(struct translator *translator,
                                                                struct call *call)
{
    uint64_t began = measure_begin(translator);
    const uint8_t *host = on_callout(translator, call);

    measure_end(translator, &translator->counts.call_ns, began);
    return host;
}

/* After a call that went the short way, if that has done more than the instruction says. */
__attribute__((noinline)) static const uint8_t *after_quick(struct translator *translator,
                                                            const struct call *call, uint64_t n_flushes)
{
    take_flags(&translator->context);
    if (must_leave(translator, translator->vm->vcpu.eflags & EFLAGS_IF))
        return leave_interrupted(translator);
    return go_on(translator, call, n_flushes);
}

/* After INT, IRET, SYSENTER or SYSEXIT. */
static const uint8_t *go_on_anywhere(struct translator *translator, const struct call *call)
{
    if (must_leave(translator, translator->vm->vcpu.eflags & EFLAGS_IF))
        return leave_interrupted(translator);
    note_shadow(translator);
    return go_on(translator, call, translator->cache.n_flushes);
}

/* It has not been done; but a task switch faults in the new task, and must not be run again. */
static const uint8_t *after_failed_switch(struct translator *translator, const struct call *call)
{
    struct vm *vm = translator->vm;
    struct fault fault = vm->vcpu.fault;

    vm->n_exits++;
    vm->n_instructions += fault.is_trap;
    translator->is_call_done = fault.is_trap;
    (void)vcpu_deliver_fault(&vm->vcpu, &fault); /* if it fails the machine has stopped */
    return go_on_anywhere(translator, call);
}

/* Between ring 3 and ring 0, by an instruction: the space is another, CS and SS, and nothing else, if it is
 * neither a task switch nor a return that takes data segments away. */
__attribute__((noinline)) static const uint8_t *on_switch(struct translator *translator, struct call *call)
{
    struct context *context = &translator->context;
    struct vm *vm = translator->vm;
    enum outcome outcome;

    vm->vcpu.eip = call->eip;
    take_flags(context);
    vm->vcpu.has_other_data_segments = false;
    outcome = vcpu_emulate(&vm->vcpu, &call->insn);
    if (outcome == OUTCOME_FAULT)
        return after_failed_switch(translator, call);
    vm->n_exits++;
    vm->n_instructions += outcome == OUTCOME_DONE;
    translator->is_call_done = outcome == OUTCOME_DONE;
    if (outcome != OUTCOME_DONE || translator->has_new_paging || vm->vcpu.has_other_data_segments)
        return go_on_anywhere(translator, call);
    if (must_leave(translator, vm->vcpu.eflags & EFLAGS_IF))
        return leave_interrupted(translator);
    note_shadow(translator);
    translator->mode = mode_after_switch(translator, &vm->vcpu);
    spaces_select(translator);
    if (translator->mode == MODE_NONE)
        return leave_interrupted(translator);
    if (call->insn.sensitive->handler == HANDLE_iret)
        adapt_note_return(translator);
    translator->is_code_dropped = false;
    give_flags(context);
    notes_give_switch(context);
    context->table = spaces_table(translator);
    return go_to_eip(translator);
}

const uint8_t *translate_on_callout(struct context *context, uint32_t number)
{
    struct translator *translator = translator_of(context);
    struct vm *vm = translator->vm;
    struct call *call = &translator->cache.calls[number];
    uint64_t n_flushes = translator->cache.n_flushes;

    if (call->quick.kind == QUICK_NOT || !translator->is_plain || translator->shadow != SHADOW_NONE ||
        translator->resume_flag != 0)
        return on_long_callout(translator, call);
    if (call->quick.kind == QUICK_SWITCH)
        return on_switch(translator, call);
    vm->vcpu.eip = call->eip;
    if (!quick_run(vm, &call->quick))
        return on_long_callout(translator, call);
    vm->vcpu.eip += call->insn.length;
    vm->n_exits++;
    vm->n_instructions++;
    call->was_quick = true;
    translator->is_call_done = true;
    if (must_leave(translator, context->interrupt_flag) || !is_next(translator, call, n_flushes))
        return after_quick(translator, call, n_flushes);
    return call->resume;
}

/* ---- the engine ---------------------------------------------------------------------------------------- */

/* In which window did it fault? The kernel's instructions reach for the user's, too. */
static uint64_t faulting_address(struct translator *translator)
{
    uint64_t address = translator->cr2 - translator->context.window;
    const struct space *user = translator->user;

    if (address >> 32 == 0 || user == NULL || (translator->cr2 - user->window) >> 32 != 0)
        return address;
    translator->vm->shadow = user->shadow; /* for this exit: the next run selects anew */
    return translator->cr2 - user->window;
}

static void classify_fault(struct translator *translator, struct vm_exit *exit)
{
    struct vm *vm = translator->vm;
    uint64_t address = faulting_address(translator);

    if (translator->trapno == EXCEPTION_DE)
        adapt_note_exception(translator);
    if (translator->trapno != EXCEPTION_PF && translator->trapno != EXCEPTION_GP) {
        *exit = (struct vm_exit){.reason = EXIT_EXCEPTION,
                                 .fault = {.vector = (int16_t)translator->trapno,
                                           .has_error = translator->trapno == EXCEPTION_AC}};
        return;
    }
    /* CR2 is the last page fault's: #GP sets none */
    if (translator->trapno == EXCEPTION_PF && meter_is_below(translator, translator->cr2)) {
        meter_run_out(translator, exit);
        return;
    }
    if (translator->trapno == EXCEPTION_GP || address >> 32 != 0) {
        /* a misaligned SSE operand, or an address that ran over the window: the emulator knows */
        *exit = (struct vm_exit){.reason = EXIT_SENSITIVE};
        return;
    }
    if (vm->vcpu.cpl != 3 && vm->shadow == translator->kernel->shadow &&
        adapt_to_user_page(translator, (gva_t)address)) {
        *exit = (struct vm_exit){.reason = EXIT_INTERRUPTED};
        return;
    }
    *exit = (struct vm_exit){
        .reason = EXIT_PAGE_FAULT,
        .fault = {.vector = EXCEPTION_PF,
                  .has_error = true,
                  .error = (translator->error & PF_WRITE) | (vm->vcpu.cpl == 3 ? PF_USER : 0),
                  .cr2 = (uint32_t)address}};
    adapt_note_fault(translator, exit);
    adapt_to_faulted_string(translator);
}

/* States without a mode, and single steps. */
static void run_interpreted(struct translator *translator, struct vm_exit *exit)
{
    struct vm *vm = translator->vm;

    while (!vm->attention && !vm_is_due(vm)) {
        translator->counts.interpreted++;
        if (!interpret_one(vm, exit))
            return;
        if (vm->single_step) {
            exit->reason = EXIT_STEP;
            return;
        }
    }
    vm->is_guest_interrupted = true;
}

/* Handlers that others installed may interrupt translated code, too. */
static void start(struct translator *translator)
{
    frame_adopt();
    translator->reads_tsc = translator->vm->config.clock == CLOCK_HOST && host_clock_start();
    translator->is_started = true;
}

static void translate_run(void *opaque, struct vm_exit *exit)
{
    struct translator *translator = opaque;
    struct vm *vm = translator->vm;
    struct block *block;
    uint64_t entered_ns;
    int how;

    if (!translator->is_started)
        start(translator);
    host_clock_adjust();
    translator->is_plain = is_plain(translator);
    *exit = (struct vm_exit){.reason = EXIT_INTERRUPTED};
    adapt_look_back(translator);
    if (!follow_vcpu(translator) || vm->single_step) {
        run_interpreted(translator, exit);
        return;
    }
    if (meter_is_low(translator)) {
        meter_run_out(translator, exit);
        return;
    }
    block = find_block(translator, exit);
    if (block == NULL)
        return;
    serialize(translator);
    meter_set(translator);
    prepare(translator);
    give_tsc(translator);
    translator->is_code_dropped = false;
    translator->context.target = entry_of(translator, block);
    note_shadow(translator);
    entered_ns = measure_begin(translator);
    how = translate_enter(&translator->context);
    translator->counts.entries++;
    translator->counts.faults += how == TRANSLATE_FAULTED;
    translator->counts.interruptions += how == TRANSLATE_INTERRUPTED;
    vm->is_guest_interrupted = how == TRANSLATE_INTERRUPTED;
    take_flags(&translator->context);
    meter_read(translator);
    restore_shadow(translator);
    if (how == TRANSLATE_LEFT || how == TRANSLATE_ABORTED)
        frame_repair_fxsave(translator);
    if (how == TRANSLATE_LEFT)
        *exit = translator->exit;
    else if (how == TRANSLATE_FAULTED)
        classify_fault(translator, exit);
    exit->entered_ns = entered_ns; /* which leaving, or a fault, has overwritten */
    exit->host_ns = measure_begin(translator);
    translator->counts.inside_ns += exit->host_ns - entered_ns;
}

static void translate_arm(void *opaque, uint64_t host_ns)
{
    struct translator *translator = opaque;
    uint64_t ns = host_ns == 0 ? 0 : host_clock_to_monotonic(host_ns);
    struct itimerspec when = {
        .it_value = {.tv_sec = (time_t)(ns / 1000000000u), .tv_nsec = (long)(ns % 1000000000u)}};

    if (timer_settime(translator->timer, TIMER_ABSTIME, &when, NULL) != 0)
        die("timer_settime: %s", strerror(errno));
}

static void translate_paging_changed(void *opaque)
{
    struct translator *translator = opaque;

    translator->counts.switches++;
    translator->has_new_paging = true;
}

/* Every walk may have another answer now. */
static void translate_a20_changed(void *opaque)
{
    struct translator *translator = opaque;

    for (unsigned i = 0; i < SHADOW_MAX_SPACES; i++)
        if (translator->spaces[i].shadow != NULL)
            shadow_drop_all(translator->spaces[i].shadow);
}

static void translate_destroy(void *opaque)
{
    struct translator *translator = opaque;

    frame_close(translator);
    crash_set_vcpu(NULL);
    spaces_release(translator);
    cache_destroy(&translator->cache);
    meter_destroy(translator);
    free(translator->code_pages);
    free(translator);
}

static struct shadow *translate_create_shadow(void *opaque)
{
    struct translator *translator = opaque;

    find_listen(translator);
    translator->has_new_paging = true;
    spaces_select(translator);
    return translator->vm->shadow;
}

static void *translate_create(struct vm *vm, char *error, size_t error_size)
{
    struct translator *translator = calloc(1, sizeof *translator);
    size_t n_pages = vm->memory.size >> PAGE_SHIFT;

    if (translator == NULL) {
        snprintf(error, error_size, "out of memory");
        return NULL;
    }
    host_clock_open();
    translator->vm = vm;
    translator->n_code_segments = 1;
    translator->code_pages = calloc(n_pages, sizeof *translator->code_pages);
    if (translator->code_pages == NULL || !spaces_reserve(translator, error, error_size) ||
        !cache_create(&translator->cache, n_pages, error, error_size) ||
        (vm->config.clock == CLOCK_VIRTUAL && !meter_create(translator, error, error_size)) ||
        !frame_open(translator, error, error_size)) {
        translate_destroy(translator);
        return NULL;
    }
    if (vm->config.code_cache_limit != 0 && vm->config.code_cache_limit < translator->cache.limit)
        translator->cache.limit = vm->config.code_cache_limit;
    translator->context = (struct context){.vcpu = &vm->vcpu,
                                           .attention = &vm->attention,
                                           .cache = translator->cache.executable,
                                           .lookup = translate_lookup_stub,
                                           .link = translate_link_stub,
                                           .callout = translate_callout_stub,
                                           .fxsave = vm->vcpu.fxsave};
    notes_forget(translator);
    crash_set_vcpu(&vm->vcpu);
    return translator;
}

const struct engine translate_engine = {
    .name = "translate",
    .a20_changed = translate_a20_changed,
    .counts_instructions = true, /* with --clock=virtual */
    .ends_shadows = true,
    .create = translate_create,
    .destroy = translate_destroy,
    .create_shadow = translate_create_shadow,
    .run = translate_run,
    .host_ns = host_clock_ns,
    .arm = translate_arm,
    .paging_changed = translate_paging_changed,
    .stats = measure_report,
};
