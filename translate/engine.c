/*
 * The translate engine's side of the run loop: into translated code, and what it means that the guest is out
 * of it again.
 *
 * Read next: state.c, callout.c.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "monitor/interpret.h"
#include "signals/crash.h"
#include "translate/host_clock.h"
#include "translate/translate.h"
#include "translate/translator.h"
#include "vcpu/fail.h"

/* In which window did it fault? The kernel's instructions reach for the user's, too. */
static uint64_t faulting_address(struct translator *translator)
{
    uint64_t address = translator->cr2 - translator->context->window;
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
    translator->reads_tsc =
        translator->vm->config.clock == CLOCK_HOST ? host_clock_start() : translator->has_rorx;
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
    translator->is_plain = state_is_plain(translator);
    *exit = (struct vm_exit){.reason = EXIT_INTERRUPTED};
    adapt_look_back(translator);
    if (!state_follow_vcpu(translator) || vm->single_step) {
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
    state_serialize(translator);
    meter_set(translator);
    state_prepare(translator);
    state_give_tsc(translator);
    translator->is_code_dropped = false;
    translator->context->target = state_entry_of(translator, block);
    state_note_shadow(translator);
    reach_forget(translator);
    entered_ns = measure_begin(translator);
    how = translate_enter(translator->context);
    translator->counts.entries++;
    translator->counts.faults += how == TRANSLATE_FAULTED;
    translator->counts.interruptions += how == TRANSLATE_INTERRUPTED;
    if (how == TRANSLATE_INTERRUPTED)
        translator->slots_interrupted = translator->slots_in_use;
    vm->is_guest_interrupted = how == TRANSLATE_INTERRUPTED;
    state_take_flags(translator->context);
    meter_read(translator);
    state_restore_shadow(translator);
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
    landing_destroy(translator);
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
    if (translator->code_pages == NULL || !landing_create(translator, error, error_size) ||
        !spaces_reserve(translator, error, error_size) ||
        !cache_create(&translator->cache, n_pages, error, error_size) ||
        (vm->config.clock == CLOCK_VIRTUAL && !meter_create(translator, error, error_size)) ||
        !frame_open(translator, error, error_size)) {
        translate_destroy(translator);
        return NULL;
    }
    if (vm->config.code_cache_limit != 0 && vm->config.code_cache_limit < translator->cache.limit)
        translator->cache.limit = vm->config.code_cache_limit;
    *translator->context = (struct context){.translator = translator,
                                            .vcpu = &vm->vcpu,
                                            .attention = &vm->attention,
                                            .cache = translator->cache.executable,
                                            .lookup = translate_lookup_stub,
                                            .link = translate_link_stub,
                                            .callout = translate_callout_stub,
                                            .fxsave = vm->vcpu.fxsave};
    notes_forget(translator);
    reach_open(translator);
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
