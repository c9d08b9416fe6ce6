/*
 * What `ring3 run` and `ring3 step` share: from the options to a machine with a kernel in it, and from its
 * end to one line and an exit status. (It knows the engines, and so it belongs to the program, not to the
 * library of monitor/.)
 */
#ifndef RING3_SESSION_H
#define RING3_SESSION_H

#include "monitor/run_options.h"

struct trace;
struct stats;
struct profile;

struct session {
    struct run_options options;
    const struct engine *engine;
    struct loader_config loader;
    struct kernel_image *kernel;
    struct vm vm;
    bool has_vm;
    struct trace *trace;
    struct stats *stats;
    struct profile *profile;
    char error[512]; /* one line, after a function returned false */
};

/* The one named by --engine. false: there is none, as a usage error of `command`, already shown. */
bool session_find_engine(struct session *session, const char *command);
/* And the engine, where --engine leaves the choice: which one and why is told on stderr if `tells`. */
bool session_open_kernel(struct session *session, bool tells);
/* `config` has the console's callbacks; what the options say is filled in. */
bool session_create_machine(struct session *session, struct vm_config *config);
/* --trace, --stats and --profile. */
bool session_open_observers(struct session *session);
/* Writes out what the trace holds: from a cleanup, which gets no argument. */
void session_flush(void);

int session_exit_status(const struct vm *vm);
/* Tells on stderr what ended the run, and where. */
void session_explain(const struct session *session);
/* Closes everything; what could not be written turns success into failure. Returns the exit status. */
int session_close(struct session *session, int status);
/* Dies of the signal that ended the run, so that a shell or a script sees what it would see of any program.
 */
void session_die_of_signal(int signo);

#endif
