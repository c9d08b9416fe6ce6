/*
 * ring3 run: from the command line to a running machine, and from its end to one line and an exit status.
 * Read next: cmd_session.c (how the machine is made), run.c (its loop).
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "monitor/commands.h"
#include "monitor/console.h"
#include "monitor/lockstep.h"
#include "monitor/requests.h"
#include "monitor/session.h"
#include "monitor/terminal.h"
#include "signals/signals.h"
#include "vcpu/fail.h"

/* One run, from its options to its end. */
struct run {
    struct session session;
    struct console console;
    struct lockstep *lockstep; /* NULL: without */
};

static void clean_up_after_failure(void)
{
    terminal_restore();
    session_flush();
}

static bool create_machine(struct run *run)
{
    struct vm_config config = {0};

    console_configure(&run->console, &config);
    if (run->session.options.trace != NULL && strcmp(run->session.options.trace, "-") == 0)
        console_quote(&run->console);
    if (!session_create_machine(&run->session, &config))
        return false;
    console_attach(&run->console, &run->session.vm.attention);
    requests_catch(&run->session.vm.attention);
    return true;
}

static bool create_lockstep(struct run *run)
{
    struct session *session = &run->session;

    if (!session->options.lockstep)
        return true;
    run->lockstep = lockstep_create(&session->vm, session->error, sizeof session->error);
    return run->lockstep != NULL;
}

static bool prepare(struct run *run)
{
    struct session *session = &run->session;

    fail_set_cleanup(clean_up_after_failure);
    /* The terminal before the machine: its guardian is a fork, which must not hold the guest's memory. */
    return session_open_kernel(session, session->options.console == CONSOLE_STDIO) &&
           console_open(&run->console, session->options.console == CONSOLE_STDIO, session->error,
                        sizeof session->error) &&
           create_machine(run) && create_lockstep(run) && session_open_observers(session) &&
           signals_close_sandbox(session->error, sizeof session->error);
}

static void run_machine(struct run *run)
{
    struct vm *vm = &run->session.vm;
    char text[LOCKSTEP_TEXT];

    if (run->lockstep == NULL) {
        vm_run(vm);
        return;
    }
    while (!vm_is_stopped(vm))
        if (!lockstep_turn(run->lockstep, text))
            vm_stop(vm, STOP_HOST, "the engine and the reference differ: %s", text);
    lockstep_destroy(run->lockstep);
}

/* The run itself, and how it ended. */
static int execute(struct run *run)
{
    int status = EXIT_STATUS_HOST;

    if (!prepare(run)) {
        console_close(&run->console);
        fprintf(stderr, "ring3: %s\n", run->session.error);
        return status;
    }
    if (run->session.options.timeout != 0)
        requests_start_timeout(run->session.options.timeout);
    run_machine(run);
    console_close(&run->console);
    if (run->console.is_line_open && isatty(STDOUT_FILENO) && isatty(STDERR_FILENO))
        fputc('\n', stderr);
    session_explain(&run->session);
    if (run->console.write_errno == 0) /* else the guest's last words are lost, however it ended */
        status = session_exit_status(&run->session.vm);
    return status;
}

int run_main(int argc, char **argv)
{
    struct run *run = calloc(1, sizeof *run);
    int status = EXIT_STATUS_OK, stop_signal = 0;

    if (run == NULL)
        die("out of memory");
    switch (run_options_parse(&run->session.options, argc, argv)) {
    case OPTIONS_OK:
        if (run->session.options.lockstep && run->session.options.holes == HOLES_PATCH)
            status = options_usage_error("ring3 run", "--lockstep compares unpatched code: no --holes patch");
        else
            status = session_find_engine(&run->session, "ring3 run") ? execute(run) : EXIT_STATUS_USAGE;
        stop_signal = requests_stop_signal();
        break;
    case OPTIONS_HELP:
        break;
    case OPTIONS_BAD:
        status = EXIT_STATUS_USAGE;
        break;
    }
    status = session_close(&run->session, status);
    free(run);
    if (stop_signal != 0)
        session_die_of_signal(stop_signal);
    return status;
}
