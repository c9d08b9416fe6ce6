/*
 * The machine's life: made of its parts, stopped with a reason, taken apart; and the few things that need all
 * of it. Read next: run.c.
 */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "monitor/exit.h"
#include "monitor/fetch.h"
#include "monitor/patch.h"
#include "vcpu/fail.h"

static void deadline_changed(void *opaque)
{
    vm_note_deadline(opaque);
}

static bool create_board(struct vm *vm, char *error, size_t error_size)
{
    struct board_config config = {.ram_size = vm->config.ram_size,
                                  .host = machine_board_host(vm),
                                  .observer = machine_board_observer(vm),
                                  .clock = &vm->clock,
                                  .input = vm->config.input,
                                  .boots_firmware = vm->config.boots_firmware,
                                  .cpu_signature = vcpu_cpuid_signature(),
                                  .cpu_features = vcpu_cpuid_features()};

    memcpy(config.drive, vm->config.drive, sizeof config.drive);
    vm->board = board_create(&config, error, error_size);
    if (vm->board == NULL)
        return false;
    board_install_firmware(vm->board);
    return true;
}

static bool create_shadow(struct vm *vm, char *error, size_t error_size)
{
    if (vm->engine->create_shadow != NULL) {
        vm->shadow = vm->engine->create_shadow(vm->engine_state);
        return true;
    }

    struct shadow_window no_window = {.hole_last = UINT32_MAX};
    struct shadow_config config = {.memory = &vm->memory,
                                   .window = vm->engine->window != NULL ? vm->engine->window(vm->engine_state)
                                                                        : no_window,
                                   .use_userfaultfd = vm->config.use_userfaultfd,
                                   .check_invariant = vm->config.check_invariant,
                                   .observe = machine_observe_shadow,
                                   .observe_ctx = vm};

    vm->shadow = shadow_create(&config, error, error_size);
    return vm->shadow != NULL;
}

bool vm_create(struct vm *vm, const struct vm_config *config, const struct engine *engine, char *error,
               size_t error_size)
{
    struct timespec wall;

    memset(vm, 0, sizeof *vm);
    vm->config = *config;
    vm->engine = engine;
    vm->vcpu.ops = &machine_vcpu_ops;
    vm->vcpu.machine = vm;
    vm->next_deadline = CLOCK_NO_DEADLINE;
    vm->deadline_moved = true;
    vm->pvclock.schedstat = -1;
    vm->instruction_deadline = UINT64_MAX; /* until the loop sets one */
    vm->clock = (struct clock){.now = machine_now, .ctx = vm, .deadline_changed = deadline_changed};
    if (config->clock == CLOCK_HOST) {
        clock_gettime(CLOCK_REALTIME, &wall);
        vm->clock.wall_offset = (int64_t)wall.tv_sec * 1000000000 + wall.tv_nsec;
        pvclock_open(&vm->pvclock); /* its file cannot be opened once the sandbox is closed */
    } else {
        vm->clock.wall_offset = VIRTUAL_WALL_START;
    }
    vm->pvclock.wall_ns = vm->clock.wall_offset;
    vm->host_start_ns = engine->host_ns();
    vm->insn_cache = insn_cache_create();
    if (vm->insn_cache == NULL ||
        !memory_create(&vm->memory, config->ram_size, config->rom_size, error, error_size))
        goto failed;
    vcpu_stub_init(); /* its memory cannot be made once the sandbox is closed */
    vcpu_reset(&vm->vcpu);
    vm->engine_state = engine->create(vm, error, error_size);
    if (vm->engine_state == NULL || !create_board(vm, error, error_size) ||
        !create_shadow(vm, error, error_size))
        goto failed;
    return true;
failed:
    vm_destroy(vm);
    return false;
}

void vm_destroy(struct vm *vm)
{
    if (vm->shadow != NULL && vm->engine->create_shadow == NULL)
        shadow_destroy(vm->shadow);
    if (vm->board != NULL)
        board_destroy(vm->board);
    if (vm->engine_state != NULL)
        vm->engine->destroy(vm->engine_state);
    patch_free(vm->patches);
    insn_cache_free(vm->insn_cache);
    pvclock_close(&vm->pvclock);
    memory_destroy(&vm->memory);
    memset(vm, 0, sizeof *vm);
}

/* Nothing may be mapped while memory changes under it, nor be translated. */
static void clear_memory(struct vm *vm)
{
    memory_clear_ram(&vm->memory);
    for (uint64_t rpn = 0; rpn < vm->memory.ram_size >> PAGE_SHIFT; rpn++)
        shadow_drop_page(vm->shadow, (uint32_t)rpn);
}

/* As the reset has left the gate. */
static void open_a20(struct vm *vm)
{
    if (vm->memory.closed_bits == 0)
        return;
    vm->memory.closed_bits = 0;
    device_pages_forget(&vm->device_pages);
    vm->engine->a20_changed(vm->engine_state);
}

void vm_restart(struct vm *vm)
{
    uint32_t old_cr0 = vm->vcpu.cr0, old_cr3 = vm->vcpu.cr3, old_cr4 = vm->vcpu.cr4;
    char error[512];

    patch_free(vm->patches);
    vm->patches = NULL;
    clear_memory(vm);
    vcpu_reset(&vm->vcpu);
    machine_vcpu_ops.paging_changed(&vm->vcpu, old_cr0, old_cr3, old_cr4);
    board_reset(vm->board);
    board_install_firmware(vm->board);
    open_a20(vm);
    vm->stop_reason = STOP_NONE;
    vm->deadline_moved = true;
    if (!vm->config.load(vm->config.loader, vm, error, sizeof error))
        vm_stop(vm, STOP_HOST, "the machine cannot start again: %s", error);
}

void vm_observe_on_the_spot(struct vm *vm,
                            void (*event)(void *ctx, const struct vm *vm, const struct vm_event *event),
                            void *ctx)
{
    BUG_ON(vm->n_observers == VM_MAX_OBSERVERS);
    vm->observer[vm->n_observers++] = (struct vm_observer){.event = event, .ctx = ctx};
}

void vm_observe(struct vm *vm, void (*event)(void *ctx, const struct vm *vm, const struct vm_event *event),
                void *ctx)
{
    vm_observe_on_the_spot(vm, event, ctx);
    vm->n_watchers++;
}

/* ---- stopping ------------------------------------------------------------------------------------------ */

const char *stop_reason_name(enum stop_reason reason)
{
    static const char *const names[] = {
        [STOP_NONE] = "running",          [STOP_POWER_OFF] = "power-off",
        [STOP_HALTED] = "halted",         [STOP_DEBUG_EXIT] = "debug-exit",
        [STOP_RESET] = "reset",           [STOP_TRIPLE_FAULT] = "triple-fault",
        [STOP_IMPOSSIBLE] = "impossible", [STOP_TIMEOUT] = "timeout",
        [STOP_SIGNAL] = "signal",         [STOP_HOST] = "host",
    };

    return names[reason];
}

void vm_stop(struct vm *vm, enum stop_reason reason, const char *format, ...)
{
    va_list arguments;

    if (vm_is_stopped(vm))
        return;
    vm->stop_reason = reason;
    va_start(arguments, format);
    vsnprintf(vm->stop_text, sizeof vm->stop_text, format, arguments);
    va_end(arguments);
}

void vm_stop_at_insn(struct vm *vm, const struct insn *insn, const char *why)
{
    char text[96], bytes[3 * INSN_MAX_LENGTH + 1] = "";

    decode_format(insn, vm->vcpu.eip, text, sizeof text);
    for (size_t i = 0; i < insn->length; i++)
        snprintf(bytes + 3 * i, sizeof bytes - 3 * i, "%02x ", insn->bytes[i]);
    vm_stop(vm, STOP_IMPOSSIBLE, "cannot run `%s` (%.*s): %s", text, 3 * insn->length - 1, bytes, why);
}

/* ---- steps of the loop that need more than a line ------------------------------------------------------ */

void vm_deliver_interrupt(struct vm *vm, enum injection_kind kind, uint8_t vector)
{
    vm_event_begin(vm, &(struct vm_exit){.reason = EXIT_INTERRUPTED});
    vcpu_deliver_interrupt(&vm->vcpu, kind, vector);
    vm_event_end(vm, vm_is_stopped(vm) ? DISPOSITION_STOPPED : DISPOSITION_INTERRUPT);
}

/* Called when the watch timer of --clock=virtual fires: has the guest burnt that much CPU time since its last
 * exit? */
void vm_check_spinning(struct vm *vm, uint64_t limit_cpu_ns)
{
    struct timespec ts;
    uint64_t cpu_ns;

    vm->deadline_moved = true; /* watch on */
    syscall(SYS_clock_gettime, CLOCK_THREAD_CPUTIME_ID, &ts);
    cpu_ns = (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
    if (vm->spin_exits != vm->n_exits) { /* the interruption itself counts as one exit */
        vm->spin_exits = vm->n_exits + 1;
        vm->spin_cpu_ns = cpu_ns;
    } else {
        vm->spin_exits = vm->n_exits + 1;
        if (cpu_ns - vm->spin_cpu_ns >= limit_cpu_ns)
            vm_stop(vm, STOP_IMPOSSIBLE,
                    "the guest loops at this place without ever trapping, so under --clock=virtual no time "
                    "passes for "
                    "it; use --clock=host, or an engine that counts instructions (translate)");
    }
}

void vm_check_shadow(struct vm *vm)
{
    char error[256];

    if (vm->config.check_invariant && !shadow_check(vm->shadow, &vm->vcpu, false, error, sizeof error))
        BUG("shadow invariant broken after exit %llu at %04x:%08x: %s", (unsigned long long)vm->n_exits,
            vm->vcpu.segment[SEG_CS].selector, vm->vcpu.eip, error);
}

size_t vm_peek(struct vm *vm, gva_t gva, void *buf, size_t n)
{
    uint8_t *bytes = buf;
    size_t done = 0;

    while (done < n) {
        gva_t address = gva + (gva_t)done;
        size_t piece = PAGE_SIZE - (address & PAGE_MASK);
        struct walk walk;
        struct fault fault;

        if (piece > n - done)
            piece = n - done;
        if (!guest_walk(&vm->memory, &vm->vcpu, address, ACCESS_READ, true, &walk, &fault) ||
            !memory_read(&vm->memory, walk.gpa, bytes + done, piece))
            break;
        done += piece;
    }
    return done;
}
