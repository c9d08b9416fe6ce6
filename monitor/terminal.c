/* Raw mode and the guardian: see terminal.h. */
#include "monitor/terminal.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#define TERMINAL_FD STDIN_FILENO

/* The process's, not the machine's: there is one standard input. */
static struct {
    bool is_raw;
    struct termios before, raw;
    pid_t guardian;    /* 0: none */
    int guardian_pipe; /* its other end is the guardian's; closed by our death, whatever kills us */
} terminal;

static bool is_same_mode(const struct termios *a, const struct termios *b)
{
    return a->c_iflag == b->c_iflag && a->c_oflag == b->c_oflag && a->c_lflag == b->c_lflag &&
           a->c_cflag == b->c_cflag && memcmp(a->c_cc, b->c_cc, sizeof a->c_cc) == 0;
}

/* ---- the guardian -------------------------------------------------------------------------------------- */

/* Waits for the pipe to close, then puts the terminal back, if it is still as the monitor left it: a shell
 * may have taken it over in between. It keeps nothing else open, so that readers of our output see its end.
 */
static _Noreturn void guard(int pipe_end)
{
    static const int ignored[] = {SIGTTOU, SIGTTIN, SIGTSTP, SIGHUP, SIGINT,
                                  SIGTERM, SIGQUIT, SIGPIPE, SIGALRM};
    struct termios now;
    char byte;

    prctl(PR_SET_NAME, "ring3-guardian");
    setsid(); /* what is sent to the monitor's process group does not reach it */
    for (size_t i = 0; i < sizeof ignored / sizeof ignored[0]; i++)
        signal(ignored[i], SIG_IGN);
    if (dup2(pipe_end, TERMINAL_FD + 1) < 0 || chdir("/") != 0)
        _exit(1);
    close_range(TERMINAL_FD + 2, UINT32_MAX, 0);
    while (read(TERMINAL_FD + 1, &byte, 1) < 0 && errno == EINTR)
        ;
    if (tcgetattr(TERMINAL_FD, &now) == 0 && is_same_mode(&now, &terminal.raw))
        tcsetattr(TERMINAL_FD, TCSANOW, &terminal.before);
    _exit(0);
}

static bool start_guardian(char *error, size_t error_size)
{
    int ends[2];
    pid_t child;

    if (pipe2(ends, O_CLOEXEC) != 0) {
        snprintf(error, error_size, "pipe: %s", strerror(errno));
        return false;
    }
    child = fork();
    if (child == 0) {
        close(ends[1]);
        guard(ends[0]);
    }
    close(ends[0]);
    if (child < 0) {
        snprintf(error, error_size, "fork: %s", strerror(errno));
        close(ends[1]);
        return false;
    }
    terminal.guardian = child;
    terminal.guardian_pipe = ends[1];
    return true;
}

/* It finds the terminal restored already, and ends. */
static void dismiss_guardian(void)
{
    if (terminal.guardian == 0)
        return;
    close(terminal.guardian_pipe);
    while (waitpid(terminal.guardian, NULL, 0) < 0 && errno == EINTR)
        ;
    terminal.guardian = 0;
}

/* ---- raw mode ------------------------------------------------------------------------------------------ */

static struct termios raw_mode(const struct termios *before)
{
    struct termios raw = *before;

    raw.c_iflag &= ~(tcflag_t)(BRKINT | ICRNL | IGNBRK | IGNCR | INLCR | INPCK | ISTRIP | IXON | PARMRK);
    raw.c_lflag &= ~(tcflag_t)(ECHO | ECHONL | ICANON | IEXTEN | ISIG);
    raw.c_cc[VMIN] = 1;
    raw.c_cc[VTIME] = 0;
    return raw;
}

bool terminal_make_raw(char *error, size_t error_size)
{
    if (terminal.is_raw || tcgetattr(TERMINAL_FD, &terminal.before) != 0)
        return true; /* not a terminal */
    terminal.raw = raw_mode(&terminal.before);
    if (!start_guardian(error, error_size)) /* first: there must be no moment without one */
        return false;
    if (tcsetattr(TERMINAL_FD, TCSANOW, &terminal.raw) != 0) {
        snprintf(error, error_size, "cannot set the terminal's mode: %s", strerror(errno));
        dismiss_guardian();
        return false;
    }
    terminal.is_raw = true;
    return true;
}

bool terminal_is_raw(void)
{
    return terminal.is_raw;
}

void terminal_make_raw_again(void)
{
    if (terminal.is_raw)
        tcsetattr(TERMINAL_FD, TCSANOW, &terminal.raw);
}

void terminal_restore(void)
{
    if (!terminal.is_raw)
        return;
    terminal.is_raw = false;
    tcsetattr(TERMINAL_FD, TCSANOW, &terminal.before);
    dismiss_guardian();
}
