/* See session.h. Read next: vm.c (the machine), run.c (its loop), loader.c (the kernel). */
#include "monitor/session.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "monitor/engine_choice.h"
#include "monitor/interpret.h"
#include "monitor/profile.h"
#include "monitor/requests.h"
#include "monitor/stats.h"
#include "monitor/symbols.h"
#include "monitor/trace.h"
#include "signals/signals.h"
#include "translate/translate.h"
#include "vcpu/fail.h"

extern const uint8_t tour_start[], tour_end[]; /* tour.S */

/* For the cleanup alone. */
static struct trace *trace_to_flush;

void session_flush(void)
{
    if (trace_to_flush != NULL)
        trace_flush(trace_to_flush);
}

/* ---- before -------------------------------------------------------------------------------------------- */

/* No engine: the choice of one. */
static const struct engine auto_engine = {.name = "auto"};

/* All there are; the first is the default. */
static const struct engine *const engines[] = {&auto_engine, &trap_engine, &translate_engine,
                                               &interpret_engine, NULL};

static const struct engine *find_engine(const char *name)
{
    const struct engine *const *engine = engines;

    while (name != NULL && *engine != NULL && strcmp((*engine)->name, name) != 0)
        engine++;
    return *engine;
}

static void fail_unknown_engine(const char *command, const char *name)
{
    char names[128] = "";
    size_t length = 0;

    for (const struct engine *const *engine = engines; *engine != NULL && length < sizeof names; engine++)
        length += (size_t)snprintf(names + length, sizeof names - length, " %s", (*engine)->name);
    options_usage_error(command, "no engine is called %s; there is:%s", name, names);
}

bool session_find_engine(struct session *session, const char *command)
{
    session->engine = find_engine(session->options.engine);
    if (session->engine == NULL)
        fail_unknown_engine(command, session->options.engine);
    return session->engine != NULL;
}

static void choose_engine(struct session *session, bool tells)
{
    const struct run_options *options = &session->options;
    bool traps;
    char why[512];

    if (session->engine == &auto_engine) {
        traps = engine_choice_traps(session->kernel, &session->loader, options->drive, options->n_drives, why,
                                    sizeof why);
        session->engine = traps ? &trap_engine : &translate_engine;
        if (tells)
            fprintf(stderr, "ring3: engine %s: %s\n", session->engine->name, why);
    }
    if (session->engine != &trap_engine)
        session->loader.holes = HOLES_EXPOSE; /* there are none to close */
}

/* --boot disk: the "kernel" is a BIOS. */
static bool choose_bios(struct session *session)
{
    const char *bios = session->options.bios;

    session->loader.is_bios = true;
    session->loader.kernel_path = bios != NULL ? bios : LOADER_BIOS;
    if (bios == NULL && access(LOADER_BIOS, R_OK) != 0) {
        snprintf(session->error, sizeof session->error,
                 "there is no BIOS to boot a disk with (%s): install the Debian package seabios, or name one "
                 "with --bios",
                 LOADER_BIOS);
        return false;
    }
    return true;
}

bool session_open_kernel(struct session *session, bool tells)
{
    const struct run_options *options = &session->options;

    session->loader = (struct loader_config){.kernel_path = options->kernel,
                                             .append = options->append,
                                             .initrd = options->initrd,
                                             .n_modules = options->n_modules,
                                             .n_blobs = options->n_blobs,
                                             .holes = (enum holes_mode)options->holes};
    memcpy(session->loader.module, options->module, sizeof options->module);
    memcpy(session->loader.blob, options->blob, sizeof options->blob);
    if (options->boot == BOOT_DISK) {
        if (!choose_bios(session))
            return false;
    } else if (options->kernel == NULL) {
        session->loader.kernel_path = "tour";
        session->loader.kernel_bytes = tour_start;
        session->loader.kernel_size = (size_t)(tour_end - tour_start);
    }
    session->kernel = kernel_open(&session->loader, session->error, sizeof session->error);
    if (session->kernel == NULL)
        return false;
    choose_engine(session, tells);
    return true;
}

/* Linux attends to the keyboard long before it opens its console: a command line that names the serial port
 * means that what is typed is for there. */
static enum board_input choose_input(const struct run_options *options)
{
    bool is_serial = options->append != NULL && strstr(options->append, "console=ttyS0") != NULL;

    if (options->input == BOARD_INPUT_AUTO && is_serial)
        return BOARD_INPUT_UART;
    return (enum board_input)options->input;
}

static bool load_kernel(void *opaque, struct vm *vm, char *error, size_t error_size)
{
    const struct session *session = opaque;

    return kernel_load(session->kernel, &session->loader, vm, error, error_size);
}

bool session_create_machine(struct session *session, struct vm_config *config)
{
    const struct run_options *options = &session->options;

    config->ram_size = options->memory;
    config->rom_size = kernel_rom_size(session->kernel);
    config->clock = (enum clock_mode)options->clock;
    config->check_invariant = options->check_shadow;
    config->idle_slack_ns = options->idle_slack;
    config->use_userfaultfd = !options->no_userfaultfd;
    config->input = choose_input(options);
    config->boots_firmware = kernel_is_firmware(session->kernel);
    config->loader = session;
    config->load = options->reboots ? load_kernel : NULL;
    memcpy(config->drive, options->drive, sizeof config->drive);
    if (!vm_create(&session->vm, config, session->engine, session->error, sizeof session->error))
        return false;
    session->has_vm = true;
    session->vm.symbols = kernel_symbols(session->kernel);
    return load_kernel(session, &session->vm, session->error, sizeof session->error);
}

bool session_open_observers(struct session *session)
{
    const struct run_options *options = &session->options;

    if (options->trace != NULL) {
        session->trace = trace_open(options->trace, &session->vm, session->loader.kernel_path,
                                    session->loader.holes, session->error, sizeof session->error);
        if (session->trace == NULL)
            return false;
        trace_to_flush = session->trace;
    }
    if (options->stats != NULL) {
        session->stats = stats_open(options->stats, &session->vm, session->error, sizeof session->error);
        if (session->stats == NULL)
            return false;
    }
    if (options->profile != NULL) {
        session->profile =
            profile_open(options->profile, &session->vm, session->error, sizeof session->error);
        if (session->profile == NULL)
            return false;
    }
    return true;
}

/* ---- after --------------------------------------------------------------------------------------------- */

int session_exit_status(const struct vm *vm)
{
    switch (vm->stop_reason) {
    case STOP_NONE:
    case STOP_POWER_OFF:
    case STOP_HALTED:
    case STOP_RESET:
    case STOP_SIGNAL:
        return EXIT_STATUS_OK;
    case STOP_DEBUG_EXIT:
        return (int)((vm->stop_value << 1 | 1) & 0xff);
    case STOP_TRIPLE_FAULT:
    case STOP_IMPOSSIBLE:
        return EXIT_STATUS_GUEST;
    case STOP_TIMEOUT:
        return EXIT_STATUS_TIMEOUT;
    case STOP_HOST:
        return EXIT_STATUS_HOST;
    }
    BUG("stop reason %d", vm->stop_reason);
}

void session_explain(const struct session *session)
{
    const struct vm *vm = &session->vm;
    char symbol[TRACE_TEXT_SIZE];

    trace_format_symbol(vm->symbols, trace_linear(&vm->vcpu), symbol, sizeof symbol);
    fprintf(stderr, "ring3: %s, at %04x:%08x%s%s%s\n", vm->stop_text, vm->vcpu.segment[SEG_CS].selector,
            vm->vcpu.eip, symbol[0] != '\0' ? " (" : "", symbol, symbol[0] != '\0' ? ")" : "");
}

static void report(int *status, const char *error)
{
    fprintf(stderr, "ring3: %s\n", error);
    *status = EXIT_STATUS_HOST;
}

int session_close(struct session *session, int status)
{
    trace_to_flush = NULL;
    if (session->trace != NULL && !trace_close(session->trace, session->error, sizeof session->error))
        report(&status, session->error);
    if (session->stats != NULL && !stats_close(session->stats, session->error, sizeof session->error))
        report(&status, session->error);
    if (session->profile != NULL && !profile_close(session->profile, session->error, sizeof session->error))
        report(&status, session->error);
    requests_release();
    if (session->has_vm)
        vm_destroy(&session->vm);
    kernel_close(session->kernel);
    run_options_free(&session->options);
    return status;
}

void session_die_of_signal(int signo)
{
    struct sigaction action = {.sa_handler = SIG_DFL};

    fflush(NULL);
    sigaction(signo, &action, NULL);
    raise(signo);
}
