/*
 * ring3 step: a machine that is run by commands, instruction by instruction and trap by trap. This is the
 * line- oriented stepper; what it does is stepper.c's, what it shows step_print.h's. Read next:
 * step_commands.c.
 */
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "monitor/commands.h"
#include "monitor/console.h"
#include "monitor/file.h"
#include "monitor/requests.h"
#include "monitor/session.h"
#include "monitor/step_commands.h"
#include "monitor/step_input.h"
#include "monitor/step_print.h"
#include "signals/signals.h"
#include "vcpu/fail.h"

struct step_options {
    struct run_options run; /* first: the rows of `ring3 run` are offsets in it */
    const char *command[STEP_MAX_SOURCES], *file[STEP_MAX_SOURCES];
    unsigned n_commands, n_files;
};

struct step {
    struct step_options options;
    struct session session;
    struct step_session commands;
    struct step_input input;
    struct file_bytes file[STEP_MAX_SOURCES];
    struct console console; /* the guest's, for output */
};

/* For the handler of SIGINT, which gets no argument. */
static struct stepper *stepper_to_interrupt;

/* ---- options ------------------------------------------------------------------------------------------- */

static bool add_text(const char **list, unsigned *n, const char *value, char *error, size_t error_size)
{
    if (*n == STEP_MAX_SOURCES) {
        snprintf(error, error_size, "too many");
        return false;
    }
    list[(*n)++] = value;
    return true;
}

static bool add_command(const struct option *option, const char *value, void *field, char *error,
                        size_t error_size)
{
    struct step_options *options = field;

    (void)option;
    return add_text(options->command, &options->n_commands, value, error, error_size);
}

static bool add_file(const struct option *option, const char *value, void *field, char *error,
                     size_t error_size)
{
    struct step_options *options = field;

    (void)option;
    return add_text(options->file, &options->n_files, value, error, error_size);
}

static const char *const clock_choices[] = {[CLOCK_HOST] = "host", [CLOCK_VIRTUAL] = "virtual", NULL};

static const struct option step_options[] = {
    {0, "engine", "NAME", "trap (default here: traps are what is to be seen), translate,\ninterpret, or auto",
     option_string, offsetof(struct step_options, run.engine), NULL},
    {'x', "execute", "COMMAND", "a command of the session; may be given several times", add_command, 0, NULL},
    {0, "commands", "FILE", "read commands from FILE, after those of -x; may be given several\ntimes",
     add_file, 0, NULL},
    {0, "clock", "host|virtual",
     "real time, or time that passes with exits (default here): then it\nstands still while you look",
     option_choice, offsetof(struct step_options, run.clock), clock_choices},
};

static const struct command_line step_line = {
    .command = "ring3 step",
    .arguments = "[KERNEL]",
    .summary =
        "Runs KERNEL, or the embedded tour guest, by commands: to the next instruction, the next trap, a\n"
        "place. They come from -x, --commands, and then from standard input if that is a terminal, or if\n"
        "there are no others. `help` lists them. What the guest prints is shown as lines behind a bar; it\n"
        "gets no input.",
    .epilogue = "exit status:\n"
                "  0  the session ended, by quit or for want of more commands\n"
                "  1  the host or the monitor failed\n"
                "  2  the command line is wrong, or a command that was not typed on a terminal\n"
                "  4  --timeout\n",
    .options = step_options,
    .n_options = sizeof step_options / sizeof step_options[0],
    .max_arguments = 1,
};

/* ---- the guest's surroundings ----------------------------------------------------------------------------
 */

/* Nobody types; but a halted guest waits here, until a signal or its timer. */
static size_t console_read(void *opaque, uint8_t *bytes, size_t n, uint64_t timeout_ns)
{
    struct console *console = opaque;
    struct timespec timeout = {.tv_sec = (time_t)(timeout_ns / 1000000000u),
                               .tv_nsec = (long)(timeout_ns % 1000000000u)};
    sigset_t old;

    (void)bytes;
    if (!console->has_serial)
        screen_lines_pause(&console->screen);
    if (timeout_ns != 0) {
        requests_block(&old);
        if (!requests_is_stop_wanted() && !stepper_to_interrupt->is_interrupted)
            ppoll(NULL, 0, timeout_ns == UINT64_MAX ? NULL : &timeout, &old);
        sigprocmask(SIG_SETMASK, &old, NULL);
    }
    return n == 0 ? 0 : CONSOLE_OVER;
}

static void console_poll(void *opaque, struct vm *vm)
{
    const struct console *console = opaque;

    if (requests_stop_signal() != 0)
        vm_stop(vm, STOP_SIGNAL, "stopped by SIG%s", sigabbrev_np(requests_stop_signal()));
    else if (requests_is_timed_out())
        vm_stop(vm, STOP_TIMEOUT, "the time given by --timeout is over");
    else if (console->write_errno != 0 || ferror(stdout))
        vm_stop(vm, STOP_HOST, "standard output cannot be written");
}

/* Ctrl-C ends the run that goes on, or the line that is typed; never the session. */
static void on_interrupt(int signo)
{
    (void)signo;
    stepper_interrupt(stepper_to_interrupt);
    step_input_interrupt();
}

static void catch_signals(struct step *step)
{
    struct sigaction action = {.sa_handler = on_interrupt, .sa_flags = SA_ONSTACK};

    stepper_to_interrupt = &step->commands.stepper;
    requests_catch(&step->session.vm.attention);
    sigemptyset(&action.sa_mask);
    if (isatty(STDIN_FILENO) && sigaction(SIGINT, &action, NULL) != 0)
        die("sigaction: SIGINT");
}

/* ---- before and after ------------------------------------------------------------------------------------
 */

/* All files are read now: the sandbox lets none be opened later. */
static bool read_sources(struct step *step)
{
    const struct step_options *options = &step->options;
    struct step_input *input = &step->input;

    for (unsigned i = 0; i < options->n_commands; i++)
        input->source[input->n_sources++] = (struct step_source){
            .name = "-x", .text = options->command[i], .size = strlen(options->command[i])};
    for (unsigned i = 0; i < options->n_files; i++) {
        if (input->n_sources == STEP_MAX_SOURCES) {
            snprintf(step->session.error, sizeof step->session.error, "too many -x and --commands");
            return false;
        }
        if (!file_read(options->file[i], &step->file[i], step->session.error, sizeof step->session.error))
            return false;
        input->source[input->n_sources++] = (struct step_source){
            .name = options->file[i], .text = (const char *)step->file[i].bytes, .size = step->file[i].size};
    }
    return true;
}

static bool prepare(struct step *step)
{
    struct session *session = &step->session;
    struct vm_config config = {0};

    fail_set_cleanup(session_flush);
    console_init(&step->console, step->options.run.console == CONSOLE_STDIO);
    console_quote(&step->console); /* between the stepper's own lines */
    console_configure(&step->console, &config);
    config.console_read = console_read;
    config.poll = console_poll;
    if (!read_sources(step) || !session_open_kernel(session, true) ||
        !session_create_machine(session, &config) || !session_open_observers(session))
        return false;
    stepper_init(&step->commands.stepper, &session->vm);
    vm_observe(&session->vm, step_observe, &step->commands);
    step->commands.out = stdout;
    console_attach(&step->console, &session->vm.attention);
    catch_signals(step);
    step_input_open(&step->input);
    return signals_close_sandbox(session->error, sizeof session->error);
}

/* A command that nobody can correct ends the session: a script must not go on after a mistake. */
static bool fail_command(struct step *step, bool is_typed)
{
    char place[300];

    fflush(stdout);
    if (is_typed) {
        fprintf(stderr, "%s\n", step->commands.error);
        return false;
    }
    step_input_place(&step->input, place, sizeof place);
    fprintf(stderr, "ring3: %s: %s\n", place, step->commands.error);
    return true;
}

static int converse(struct step *step)
{
    step_print_here(&step->session.vm, stdout);
    while (!step->commands.is_over && !requests_is_stop_wanted() &&
           step->session.vm.stop_reason != STOP_HOST) {
        const char *line;
        bool is_typed;
        enum step_read read;

        fflush(stdout);
        read = step_input_next(&step->input, &line, &is_typed);
        if (read == STEP_READ_END)
            break;
        step->commands.stepper.is_interrupted = 0; /* a Ctrl-C at the prompt is over */
        if (read == STEP_READ_LINE && !step_execute(&step->commands, line, is_typed) &&
            fail_command(step, is_typed))
            return EXIT_STATUS_USAGE;
    }
    if (requests_is_timed_out())
        return EXIT_STATUS_TIMEOUT;
    if (step->session.vm.stop_reason != STOP_HOST)
        return EXIT_STATUS_OK;
    fprintf(stderr, "ring3: %s\n", step->session.vm.stop_text);
    return EXIT_STATUS_HOST;
}

static int execute(struct step *step)
{
    step->session.options = step->options.run;
    if (!session_find_engine(&step->session, "ring3 step"))
        return EXIT_STATUS_USAGE;
    if (!prepare(step)) {
        fprintf(stderr, "ring3: %s\n", step->session.error);
        return EXIT_STATUS_HOST;
    }
    if (step->options.run.timeout != 0)
        requests_start_timeout(step->options.run.timeout);
    return converse(step);
}

int step_main(int argc, char **argv)
{
    struct step *step = calloc(1, sizeof *step);
    int status = EXIT_STATUS_OK, stop_signal = 0;

    if (step == NULL)
        die("out of memory");
    run_options_init(&step->options.run);
    step->options.run.clock = CLOCK_VIRTUAL;
    step->options.run.engine = "trap"; /* traps are what is to be seen */
    switch (run_options_parse_for(&step_line, argc, argv, &step->options.run)) {
    case OPTIONS_OK:
        status = execute(step);
        stop_signal = requests_stop_signal();
        break;
    case OPTIONS_HELP:
        break;
    case OPTIONS_BAD:
        status = EXIT_STATUS_USAGE;
        break;
    }
    if (step->session.has_vm)
        console_close(&step->console);
    step_input_close(&step->input);
    status = session_close(&step->session, status);
    for (unsigned i = 0; i < STEP_MAX_SOURCES; i++)
        file_free(&step->file[i]);
    free(step);
    if (stop_signal != 0)
        session_die_of_signal(stop_signal);
    return status;
}
