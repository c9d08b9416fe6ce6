/*
 * ring3 run: from the command line to a running machine, and from its end to one line and an exit status.
 * Read next: vm.c (the machine), run.c (its loop), loader.c (the kernel).
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "monitor/commands.h"
#include "monitor/console.h"
#include "monitor/requests.h"
#include "monitor/run_options.h"
#include "monitor/stats.h"
#include "monitor/symbols.h"
#include "monitor/terminal.h"
#include "monitor/trace.h"
#include "signals/signals.h"
#include "vcpu/fail.h"

extern const uint8_t tour_start[], tour_end[]; /* tour.S */

/* One run, from its options to its end. */
struct run {
    struct run_options options;
    struct loader_config loader;
    struct kernel_image *kernel;
    struct console console;
    struct vm vm;
    bool has_vm;
    struct trace *trace;
    struct stats *stats;
    char error[512];
};

/* For the cleanup alone, which gets no argument. */
static struct trace *trace_to_flush;

static void clean_up_after_failure(void)
{
    terminal_restore();
    if (trace_to_flush != NULL)
        trace_flush(trace_to_flush);
}

/* ---- before ----------------------------------------------------------------------------------------------
 */

/* All there are; the first is the default. */
static const struct engine *const engines[] = {&trap_engine, NULL};

static const struct engine *find_engine(const char *name)
{
    const struct engine *const *engine = engines;

    while (name != NULL && *engine != NULL && strcmp((*engine)->name, name) != 0)
        engine++;
    return *engine;
}

static int fail_unknown_engine(const char *name)
{
    char names[128] = "";
    size_t length = 0;

    for (const struct engine *const *engine = engines; *engine != NULL && length < sizeof names; engine++)
        length += (size_t)snprintf(names + length, sizeof names - length, " %s", (*engine)->name);
    return options_usage_error("ring3 run", "no engine is called %s; there is:%s", name, names);
}

static bool open_kernel(struct run *run)
{
    const struct run_options *options = &run->options;

    run->loader = (struct loader_config){.kernel_path = options->kernel,
                                         .append = options->append,
                                         .n_modules = options->n_modules,
                                         .n_blobs = options->n_blobs,
                                         .holes = (enum holes_mode)options->holes};
    memcpy(run->loader.module, options->module, sizeof options->module);
    memcpy(run->loader.blob, options->blob, sizeof options->blob);
    if (options->kernel == NULL) {
        run->loader.kernel_path = "tour";
        run->loader.kernel_bytes = tour_start;
        run->loader.kernel_size = (size_t)(tour_end - tour_start);
    }
    run->kernel = kernel_open(&run->loader, run->error, sizeof run->error);
    return run->kernel != NULL;
}

static bool create_machine(struct run *run, const struct engine *engine)
{
    const struct run_options *options = &run->options;
    struct vm_config config = {.ram_size = options->memory,
                               .rom_size = kernel_rom_size(run->kernel),
                               .clock = (enum clock_mode)options->clock,
                               .check_invariant = options->check_shadow,
                               .use_userfaultfd = !options->no_userfaultfd};

    memcpy(config.drive, options->drive, sizeof config.drive);
    console_configure(&run->console, &config);
    if (!vm_create(&run->vm, &config, engine, run->error, sizeof run->error))
        return false;
    run->has_vm = true;
    run->vm.symbols = kernel_symbols(run->kernel);
    console_attach(&run->console, &run->vm.attention);
    requests_catch(&run->vm.attention);
    return kernel_load(run->kernel, &run->loader, &run->vm, run->error, sizeof run->error);
}

static bool open_observers(struct run *run)
{
    const struct run_options *options = &run->options;

    if (options->trace != NULL) {
        run->trace = trace_open(options->trace, &run->vm, run->loader.kernel_path, run->loader.holes,
                                run->error, sizeof run->error);
        if (run->trace == NULL)
            return false;
        trace_to_flush = run->trace;
    }
    if (options->stats != NULL) {
        run->stats = stats_open(options->stats, &run->vm, run->error, sizeof run->error);
        if (run->stats == NULL)
            return false;
    }
    return true;
}

static bool prepare(struct run *run, const struct engine *engine)
{
    fail_set_cleanup(clean_up_after_failure);
    /* The terminal before the machine: its guardian is a fork, which must not hold the guest's memory. */
    return open_kernel(run) &&
           console_open(&run->console, run->options.console == CONSOLE_STDIO, run->error,
                        sizeof run->error) &&
           create_machine(run, engine) && open_observers(run) &&
           signals_close_sandbox(run->error, sizeof run->error);
}

/* ---- after -----------------------------------------------------------------------------------------------
 */

static int exit_status(const struct vm *vm)
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

/* What ended the run, and where. */
static void explain(const struct run *run)
{
    const struct vm *vm = &run->vm;
    const struct segment *code = &vm->vcpu.segment[SEG_CS];
    char symbol[128];

    if (run->console.is_line_open && isatty(STDOUT_FILENO) && isatty(STDERR_FILENO))
        fputc('\n', stderr);
    trace_format_symbol(vm->symbols, code->base + vm->vcpu.eip, symbol, sizeof symbol);
    fprintf(stderr, "ring3: %s, at %04x:%08x%s%s%s\n", vm->stop_text, code->selector, vm->vcpu.eip,
            symbol[0] != '\0' ? " (" : "", symbol, symbol[0] != '\0' ? ")" : "");
}

static void report(int *status, const char *error)
{
    fprintf(stderr, "ring3: %s\n", error);
    *status = EXIT_STATUS_HOST;
}

/* Closes everything; what could not be written turns success into failure. */
static int finish(struct run *run, int status)
{
    trace_to_flush = NULL;
    if (run->trace != NULL && !trace_close(run->trace, run->error, sizeof run->error))
        report(&status, run->error);
    if (run->stats != NULL && !stats_close(run->stats, run->error, sizeof run->error))
        report(&status, run->error);
    requests_release();
    if (run->has_vm)
        vm_destroy(&run->vm);
    kernel_close(run->kernel);
    run_options_free(&run->options);
    return status;
}

/* Dies of the signal that ended the run, so that a shell or a script sees what it would see of any program.
 */
static void die_of_signal(int signo)
{
    struct sigaction action = {.sa_handler = SIG_DFL};

    fflush(NULL);
    sigaction(signo, &action, NULL);
    raise(signo);
}

/* The run itself, and how it ended. */
static int execute(struct run *run, const struct engine *engine)
{
    int status = EXIT_STATUS_HOST;

    if (!prepare(run, engine)) {
        console_close(&run->console);
        fprintf(stderr, "ring3: %s\n", run->error);
        return status;
    }
    if (run->options.timeout != 0)
        requests_start_timeout(run->options.timeout);
    vm_run(&run->vm);
    console_close(&run->console);
    explain(run);
    if (run->console.write_errno == 0) /* else the guest's last words are lost, however it ended */
        status = exit_status(&run->vm);
    return status;
}

int run_main(int argc, char **argv)
{
    struct run *run = calloc(1, sizeof *run);
    int status = EXIT_STATUS_OK, stop_signal = 0;
    const struct engine *engine;

    if (run == NULL)
        die("out of memory");
    switch (run_options_parse(&run->options, argc, argv)) {
    case OPTIONS_OK:
        engine = find_engine(run->options.engine);
        status = engine != NULL ? execute(run, engine) : fail_unknown_engine(run->options.engine);
        stop_signal = requests_stop_signal();
        break;
    case OPTIONS_HELP:
        break;
    case OPTIONS_BAD:
        status = EXIT_STATUS_USAGE;
        break;
    }
    status = finish(run, status);
    free(run);
    if (stop_signal != 0)
        die_of_signal(stop_signal);
    return status;
}
