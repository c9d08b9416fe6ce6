/*
 * monitor/console, terminal and requests: on a pseudo-terminal the mode while the guest has it and after
 * every kind of end; on pipes the bytes, the end of input, a reader that is slow or gone; and the requests by
 * signal.
 */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pty.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>
#include <utmp.h>

#include "monitor/console.h"
#include "monitor/requests.h"
#include "monitor/terminal.h"
#include "vcpu/fail.h"

#define PATIENCE_MS 10000

/* ---- the monitor's side: a run loop with nothing but a console ----------------------------------------- */

static struct console console;
static struct vm vm;
static char error[256];

static void open_console(bool uses_stdio)
{
    memset(&vm, 0, sizeof vm);
    fail_set_cleanup(terminal_restore);
    if (!console_open(&console, uses_stdio, error, sizeof error))
        die("%s", error);
    console_configure(&console, &vm.config);
    console_attach(&console, &vm.attention);
    requests_catch(&vm.attention);
}

static void say(const char *text)
{
    vm.config.console_write(&console, text, strlen(text));
}

static size_t ask(uint8_t *bytes, size_t n, uint64_t timeout_ns)
{
    size_t got = vm.config.console_read(&console, bytes, n, timeout_ns);

    if (vm.attention) {
        vm.attention = 0;
        vm.config.poll(&console, &vm);
    }
    return got;
}

/* Shows each byte of input as <hex>, until something stops it. Exit status: the stop reason. */
static void echo_until_stopped(void)
{
    uint8_t bytes[16];
    char text[8];

    open_console(true);
    say("ready\n");
    while (!vm_is_stopped(&vm)) {
        size_t n = ask(bytes, sizeof bytes, UINT64_MAX);

        if (n == CONSOLE_OVER)
            break;
        for (size_t i = 0; i < n; i++) {
            snprintf(text, sizeof text, "<%02x>", bytes[i]);
            say(text);
        }
    }
    console_close(&console);
    if (waitpid(-1, NULL, WNOHANG) != -1 || errno != ECHILD) /* the guardian has gone, and was reaped */
        _exit(99);
    _exit((int)vm.stop_reason);
}

static void die_with_raw_terminal(void)
{
    open_console(true);
    say("ready\n");
    die("a test");
}

/* Only waits: input of the guest's does not interest it. */
static void wait_until_stopped(void)
{
    open_console(true);
    say("ready\n");
    while (!vm_is_stopped(&vm))
        ask(NULL, 0, UINT64_MAX);
    console_close(&console);
    _exit((int)vm.stop_reason);
}

/* ---- the person's side: a terminal, and a shell that owns it ------------------------------------------- */

struct session {
    int master, slave;
    pid_t shell, monitor;
    int report; /* the monitor's pid, then its wait status */
    struct termios before;
    char seen[4096];
    size_t n_seen;
};

static struct session session;

static void milliseconds(unsigned ms)
{
    struct timespec pause = {.tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000};

    nanosleep(&pause, NULL);
}

/* The session's leader must outlive the monitor, as a shell does: the end of a leader hangs up the terminal.
 */
static _Noreturn void be_shell(int report, void (*body)(void))
{
    pid_t monitor;
    int status = 0;

    login_tty(session.slave);
    close(session.master);
    monitor = fork();
    if (monitor == 0) { /* which keeps `report` open as well: its end of file is the end of both */
        alarm(PATIENCE_MS / 1000);
        body();
        _exit(98);
    }
    (void)!write(report, &monitor, sizeof monitor);
    waitpid(monitor, &status, 0);
    (void)!write(report, &status, sizeof status);
    pause();
    _exit(0);
}

static void start(void (*body)(void))
{
    int ends[2];

    memset(&session, 0, sizeof session);
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    ck_assert_int_eq(openpty(&session.master, &session.slave, NULL, NULL, NULL), 0);
    ck_assert_int_eq(tcgetattr(session.slave, &session.before), 0);
    ck_assert_int_eq(pipe(ends), 0);
    session.report = ends[0];
    session.shell = fork();
    ck_assert_int_ge(session.shell, 0);
    if (session.shell == 0) {
        close(ends[0]);
        be_shell(ends[1], body);
    }
    close(ends[1]);
    ck_assert_int_eq(read(session.report, &session.monitor, sizeof session.monitor),
                     (ssize_t)sizeof session.monitor);
}

static bool is_readable(int fd, int timeout_ms)
{
    struct pollfd wait = {.fd = fd, .events = POLLIN};

    return poll(&wait, 1, timeout_ms) > 0;
}

/* Reads what the terminal shows until `text` is in it. */
static void expect_shown(const char *text)
{
    while (strstr(session.seen, text) == NULL) {
        ssize_t n;

        ck_assert_msg(is_readable(session.master, PATIENCE_MS), "waited for \"%s\", saw \"%s\"", text,
                      session.seen);
        n = read(session.master, session.seen + session.n_seen, sizeof session.seen - 1 - session.n_seen);
        ck_assert_int_gt(n, 0);
        session.n_seen += (size_t)n;
        session.seen[session.n_seen] = '\0';
    }
}

static void type(const char *keys)
{
    ck_assert_int_eq(write(session.master, keys, strlen(keys)), (ssize_t)strlen(keys));
}

static int wait_for_monitor(void)
{
    int status = 0;

    ck_assert_msg(is_readable(session.report, PATIENCE_MS), "the monitor does not end; saw \"%s\"",
                  session.seen);
    ck_assert_int_eq(read(session.report, &status, sizeof status), (ssize_t)sizeof status);
    return status;
}

static bool is_mode(const struct termios *mode)
{
    struct termios now;

    ck_assert_int_eq(tcgetattr(session.slave, &now), 0);
    return now.c_iflag == mode->c_iflag && now.c_oflag == mode->c_oflag && now.c_lflag == mode->c_lflag &&
           memcmp(now.c_cc, mode->c_cc, sizeof now.c_cc) == 0;
}

static bool is_raw(void)
{
    struct termios now;

    ck_assert_int_eq(tcgetattr(session.slave, &now), 0);
    return (now.c_lflag & (ICANON | ECHO | ISIG | IEXTEN)) == 0 && (now.c_iflag & (ICRNL | IXON)) == 0 &&
           (now.c_oflag & OPOST) != 0;
}

static void expect_mode_soon(const struct termios *mode)
{
    for (unsigned waited = 0; waited < PATIENCE_MS && !is_mode(mode); waited += 10)
        milliseconds(10);
    ck_assert_msg(is_mode(mode), "the terminal was not restored");
}

static void end_session(void)
{
    if (waitpid(session.shell, NULL, WNOHANG) == 0) {
        kill(session.shell, SIGKILL);
        waitpid(session.shell, NULL, 0);
    }
    close(session.master);
    close(session.slave);
    close(session.report);
}

/* ---- the terminal -------------------------------------------------------------------------------------- */

START_TEST(raw_until_quit)
{
    int status;

    start(echo_until_stopped);
    expect_shown("ready");
    ck_assert_msg(is_raw(), "the terminal is not raw");
    ck_assert_ptr_nonnull(strstr(session.seen, "ring3: Ctrl-A x quits, Ctrl-A h lists the keys"));
    type("\001x");
    status = wait_for_monitor();
    ck_assert(WIFEXITED(status));
    ck_assert_int_eq(WEXITSTATUS(status), STOP_SIGNAL);
    ck_assert(is_mode(&session.before));
    end_session();
}
END_TEST

START_TEST(keys_of_the_guest)
{
    start(echo_until_stopped);
    expect_shown("ready");
    type("a\r\003\032\034\177\033[A");
    expect_shown("<61><0d><03><1a><1c><7f><1b><5b><41>"); /* Ctrl-C, Ctrl-Z and Ctrl-\ are keys like others */
    type("\001\001");
    expect_shown("<01>");
    type("\001");
    milliseconds(50); /* the second key may come later */
    type("h");
    expect_shown("Ctrl-A Ctrl-A  send Ctrl-A to the guest");
    type("\001qz");
    expect_shown("<7a>");
    ck_assert_ptr_null(strstr(session.seen, "<71>")); /* not a command, and not the guest's */
    type("\001X");
    ck_assert_int_eq(WEXITSTATUS(wait_for_monitor()), STOP_SIGNAL);
    end_session();
}
END_TEST

START_TEST(quit_while_the_guest_takes_no_input)
{
    start(wait_until_stopped);
    expect_shown("ready");
    for (unsigned i = 0; i < 100; i++) { /* more than the console keeps for the guest */
        type("0123456789012345678901234567890123456789");
        if (i % 10 == 0)
            milliseconds(1);
    }
    type("\001x");
    ck_assert_int_eq(WEXITSTATUS(wait_for_monitor()), STOP_SIGNAL);
    ck_assert(is_mode(&session.before));
    end_session();
}
END_TEST

static const int stop_signals[] = {SIGTERM, SIGINT, SIGHUP, SIGQUIT};

START_TEST(restored_after_signals)
{
    int status;

    start(_i % 2 == 0 ? echo_until_stopped : wait_until_stopped);
    expect_shown("ready");
    ck_assert(is_raw());
    kill(session.monitor, stop_signals[_i]);
    status = wait_for_monitor();
    ck_assert(WIFEXITED(status));
    ck_assert_int_eq(WEXITSTATUS(status), STOP_SIGNAL);
    ck_assert(is_mode(&session.before));
    end_session();
}
END_TEST

START_TEST(restored_after_die)
{
    start(die_with_raw_terminal);
    ck_assert_int_eq(WEXITSTATUS(wait_for_monitor()), 1);
    expect_shown("ring3: a test");
    ck_assert(is_mode(&session.before));
    end_session();
}
END_TEST

START_TEST(restored_after_kill_9)
{
    int status;

    start(echo_until_stopped);
    expect_shown("ready");
    ck_assert(is_raw());
    kill(session.monitor, SIGKILL);
    status = wait_for_monitor();
    ck_assert(WIFSIGNALED(status));
    expect_mode_soon(&session.before);
    end_session();
}
END_TEST

/* Orphans come to us (see start): waits until all have ended. */
static void expect_all_to_end(void)
{
    pid_t child = 0;

    for (unsigned waited = 0; waited < PATIENCE_MS && child >= 0; waited += 10) {
        milliseconds(10);
        child = waitpid(-1, NULL, WNOHANG);
    }
    ck_assert_msg(child < 0 && errno == ECHILD, "something stays behind");
}

/* A signal to the whole process group, as from a supervisor, takes the shell along, and the terminal is hung
 * up for everybody. The guardian is not in the group; it must end all the same. */
START_TEST(guardian_ends_after_kill_9_of_the_group)
{
    start(echo_until_stopped);
    expect_shown("ready");
    kill(-session.shell, SIGKILL);
    expect_all_to_end();
    end_session();
}
END_TEST

START_TEST(guardian_leaves_the_terminal_to_others)
{
    struct termios others;

    start(echo_until_stopped);
    expect_shown("ready");
    others = session.before;
    others.c_lflag &= ~(tcflag_t)ECHO; /* a shell has taken over and edits its own line */
    ck_assert_int_eq(tcsetattr(session.slave, TCSANOW, &others), 0);
    kill(session.monitor, SIGKILL);
    wait_for_monitor();
    milliseconds(300);
    ck_assert(is_mode(&others));
    end_session();
}
END_TEST

START_TEST(raw_again_after_continue)
{
    start(echo_until_stopped);
    expect_shown("ready");
    kill(session.monitor, SIGSTOP);
    ck_assert_int_eq(tcsetattr(session.slave, TCSANOW, &session.before), 0); /* what a shell does then */
    kill(session.monitor, SIGCONT);
    for (unsigned waited = 0; waited < PATIENCE_MS && !is_raw(); waited += 10)
        milliseconds(10);
    ck_assert(is_raw());
    type("\001x");
    wait_for_monitor();
    ck_assert(is_mode(&session.before));
    end_session();
}
END_TEST

START_TEST(terminal_that_goes_away)
{
    start(echo_until_stopped);
    expect_shown("ready");
    close(session.master); /* a hang-up: SIGHUP goes to the session's leader, the terminal reads as ended */
    session.master = -1;
    expect_all_to_end();
    end_session();
}
END_TEST

/* ---- pipes --------------------------------------------------------------------------------------------- */

/* Runs `body` in a child with pipes for its three standard descriptors; what it gets, and what it says. */
struct piped {
    int input, output, errors;
    pid_t child;
};

static struct piped start_piped(void (*body)(void))
{
    int in[2], out[2], err[2];
    struct piped piped;

    ck_assert(pipe2(in, O_CLOEXEC) == 0 && pipe2(out, O_CLOEXEC) == 0 && pipe2(err, O_CLOEXEC) == 0);
    piped = (struct piped){.input = in[1], .output = out[0], .errors = err[0], .child = fork()};
    ck_assert_int_ge(piped.child, 0);
    if (piped.child == 0) {
        dup2(in[0], STDIN_FILENO);
        dup2(out[1], STDOUT_FILENO);
        dup2(err[1], STDERR_FILENO);
        close_range(STDERR_FILENO + 1, UINT32_MAX, 0);
        alarm(PATIENCE_MS / 1000);
        body();
        _exit(98);
    }
    close(in[0]);
    close(out[1]);
    close(err[1]);
    return piped;
}

static size_t read_all(int fd, char *text, size_t size)
{
    size_t n = 0;
    ssize_t got;

    while (n < size - 1 && (got = read(fd, text + n, size - 1 - n)) > 0)
        n += (size_t)got;
    text[n] = '\0';
    return n;
}

static int finish_piped(struct piped *piped)
{
    int status = 0;

    if (piped->input >= 0)
        close(piped->input);
    if (piped->output >= 0)
        close(piped->output);
    close(piped->errors);
    ck_assert_int_eq(waitpid(piped->child, &status, 0), piped->child);
    ck_assert_msg(WIFEXITED(status), "ended by signal %d", WTERMSIG(status));
    return WEXITSTATUS(status);
}

START_TEST(piped_input_is_not_interpreted)
{
    struct piped piped = start_piped(echo_until_stopped);
    char text[1024];

    ck_assert_int_eq(write(piped.input, "\001x\n\000", 4), 4);
    close(piped.input);
    piped.input = -1;
    read_all(piped.output, text, sizeof text);
    ck_assert_str_eq(text, "ready\n<01><78><0a><00>");
    read_all(piped.errors, text, sizeof text);
    ck_assert_str_eq(text, ""); /* no hint, no control codes */
    ck_assert_int_eq(finish_piped(&piped), STOP_NONE);
}
END_TEST

static uint64_t now_ns(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static void expect_waits(void)
{
    uint8_t byte;
    uint64_t before;

    open_console(true);
    while (ask(&byte, 1, UINT64_MAX) != CONSOLE_OVER)
        ;
    before = now_ns();
    ask(NULL, 0, 100000000); /* after the end of input, a wait is still a wait */
    _exit(now_ns() - before >= 90000000 && ask(&byte, 1, 0) == CONSOLE_OVER ? 0 : 1);
}

START_TEST(waiting_after_the_end_of_input)
{
    struct piped piped = start_piped(expect_waits);

    close(piped.input);
    piped.input = -1;
    ck_assert_int_eq(finish_piped(&piped), 0);
}
END_TEST

static void expect_no_input(void)
{
    uint8_t byte = 0x55;
    uint64_t before = now_ns();

    open_console(true);
    if (ask(&byte, 1, 0) != 0 || ask(&byte, 1, 50000000) != 0 || now_ns() - before < 45000000)
        _exit(1);
    _exit(byte == 0x55 ? 0 : 2);
}

START_TEST(no_input_yet)
{
    struct piped piped = start_piped(expect_no_input);
    char text[16];

    read_all(piped.output, text, sizeof text); /* until it has ended: the input stays open that long */
    ck_assert_int_eq(finish_piped(&piped), 0);
}
END_TEST

#define FLOOD 300000u

/* More than a pipe holds, to a reader that sleeps; with O_NONBLOCK set on it, as a careless parent does. */
static void flood(void)
{
    static char text[1000];

    open_console(true);
    for (unsigned i = 0; i < FLOOD / sizeof text; i++) {
        memset(text, 'a' + (int)(i % 26), sizeof text);
        vm.config.console_write(&console, text, sizeof text);
    }
    console_close(&console);
    _exit(console.write_errno);
}

static void flood_without_blocking(void)
{
    fcntl(STDOUT_FILENO, F_SETFL, O_NONBLOCK);
    flood();
}

START_TEST(slow_reader_loses_nothing)
{
    static char text[FLOOD + 100];
    struct piped piped = start_piped(_i == 0 ? flood : flood_without_blocking);
    size_t n;

    milliseconds(100);
    n = read_all(piped.output, text, sizeof text);
    ck_assert_uint_eq(n, FLOOD);
    for (unsigned i = 0; i < FLOOD; i++)
        ck_assert_int_eq(text[i], 'a' + (int)(i / 1000 % 26));
    ck_assert_int_eq(finish_piped(&piped), 0);
}
END_TEST

static void flood_until_stopped(void)
{
    static char text[100000];

    if (getenv("NONBLOCKING_OUTPUT") != NULL)
        fcntl(STDOUT_FILENO, F_SETFL, O_NONBLOCK);
    open_console(true);
    while (!vm_is_stopped(&vm)) {
        vm.config.console_write(&console, text, sizeof text);
        vm.config.poll(&console, &vm);
    }
    _exit((int)vm.stop_reason);
}

START_TEST(stuck_reader_does_not_keep_us)
{
    struct piped piped;

    if (_i == 1)
        setenv("NONBLOCKING_OUTPUT", "1", 1);
    piped = start_piped(flood_until_stopped);
    milliseconds(100);
    kill(piped.child, SIGTERM);
    int status = 0;

    ck_assert_int_eq(waitpid(piped.child, &status, 0), piped.child);
    ck_assert(WIFEXITED(status));
    ck_assert_int_eq(WEXITSTATUS(status), STOP_SIGNAL);
}
END_TEST

static void report_write_failure(void)
{
    open_console(true);
    say("text\n");
    say("more\n");
    if (vm.attention == 0)
        _exit(97);
    vm.config.poll(&console, &vm);
    fputs(vm.stop_text, stderr);
    _exit((int)vm.stop_reason);
}

START_TEST(reader_that_is_gone)
{
    struct piped piped;
    char text[256];

    signal(SIGPIPE, SIG_DFL); /* the console itself must ignore it */
    piped = start_piped(flood_until_stopped);
    close(piped.output);
    piped.output = -1;
    read_all(piped.errors, text, sizeof text);
    ck_assert_int_eq(finish_piped(&piped), STOP_HOST);
}
END_TEST

static void write_to_full_disk(void)
{
    dup2(open("/dev/full", O_WRONLY), STDOUT_FILENO);
    report_write_failure();
}

static void write_to_closed(void)
{
    close(STDOUT_FILENO);
    report_write_failure();
}

START_TEST(output_that_fails)
{
    struct piped piped = start_piped(_i == 0 ? write_to_full_disk : write_to_closed);
    char text[256];

    read_all(piped.errors, text, sizeof text);
    ck_assert_str_eq(text, _i == 0 ? "standard output cannot be written: No space left on device"
                                   : "standard output cannot be written: Bad file descriptor");
    ck_assert_int_eq(finish_piped(&piped), STOP_HOST);
}
END_TEST

static void write_screen(char character)
{
    static uint8_t cells[SCREEN_ROWS * SCREEN_COLUMNS * 2];
    static unsigned at;
    struct screen screen = {.columns = SCREEN_COLUMNS, .rows = SCREEN_ROWS, .cells = cells};

    cells[at] = (uint8_t)character;
    at += 2;
    vm.config.console_screen(&console, &screen);
}

static void show_both(void)
{
    open_console(true);
    write_screen('V');
    write_screen('G');
    write_screen('A');
    say("serial\n");
    write_screen('!');
    console_close(&console);
    _exit(0);
}

static void show_screen_alone(void)
{
    open_console(true);
    write_screen('o');
    write_screen('k');
    console_close(&console);
    _exit(0);
}

static void show_nothing(void)
{
    uint8_t byte;

    open_console(false);
    write_screen('V');
    say("serial\n");
    if (ask(&byte, 1, 0) != CONSOLE_OVER)
        _exit(1);
    console_close(&console);
    _exit(0);
}

/* Beside a readable trace: whole lines behind a mark, the last one also when it was not ended. */
static void show_quoted(void)
{
    open_console(true);
    console_quote(&console);
    say("one\r\ntw");
    say("o\nthree");
    console_close(&console);
    _exit(0);
}

START_TEST(screen_until_there_is_serial)
{
    static const struct {
        void (*body)(void);
        const char *shown;
    } cases[] = {{show_both, "VGA\nserial\n"},
                 {show_screen_alone, "ok\n"},
                 {show_nothing, ""},
                 {show_quoted, "        | one\n        | two\n        | three\n"}};
    struct piped piped = start_piped(cases[_i].body);
    char text[256];

    read_all(piped.output, text, sizeof text);
    ck_assert_str_eq(text, cases[_i].shown);
    ck_assert_int_eq(finish_piped(&piped), 0);
}
END_TEST

/* ---- requests ------------------------------------------------------------------------------------------ */

static void wait_for_timeout(void)
{
    uint64_t before = now_ns();

    open_console(false);
    requests_start_timeout(80000000);
    while (!vm_is_stopped(&vm))
        ask(NULL, 0, UINT64_MAX);
    _exit(vm.stop_reason == STOP_TIMEOUT && now_ns() - before >= 75000000 ? 0 : 1);
}

START_TEST(timeout_ends_a_wait)
{
    struct piped piped = start_piped(wait_for_timeout);

    ck_assert_int_eq(finish_piped(&piped), 0);
}
END_TEST

/* A request that arrives before the wait must not be slept over. */
static void wait_after_request(void)
{
    open_console(false);
    raise(SIGTERM);
    vm.config.console_read(&console, NULL, 0, UINT64_MAX);
    vm.config.poll(&console, &vm);
    _exit(vm.stop_reason == STOP_SIGNAL && strcmp(vm.stop_text, "stopped by SIGTERM") == 0 ? 0 : 1);
}

START_TEST(request_before_a_wait)
{
    struct piped piped = start_piped(wait_after_request);

    ck_assert_int_eq(finish_piped(&piped), 0);
}
END_TEST

/* Signals around the beginning of the wait, a microsecond apart: one that were missed would take ten seconds.
 */
START_TEST(no_request_is_slept_over)
{
    volatile int called;
    int n_missed = 0;

    requests_catch(&called);
    for (int i = 0; i < 2000; i++) {
        struct itimerval soon = {.it_value.tv_usec = 1 + i % 12};
        struct timespec begin, end;

        called = 0;
        clock_gettime(CLOCK_MONOTONIC, &begin);
        setitimer(ITIMER_REAL, &soon, NULL);
        requests_wait(NULL, 0, UINT64_C(10000000000), &called);
        clock_gettime(CLOCK_MONOTONIC, &end);
        ck_assert(called);
        n_missed += end.tv_sec - begin.tv_sec >= 10;
    }
    requests_release();
    ck_assert_int_eq(n_missed, 0);
}
END_TEST

static void keep_ignoring(void)
{
    struct sigaction now;

    signal(SIGHUP, SIG_IGN); /* nohup */
    open_console(false);
    sigaction(SIGHUP, NULL, &now);
    _exit(now.sa_handler == SIG_IGN ? 0 : 1);
}

START_TEST(ignored_signals_stay_ignored)
{
    struct piped piped = start_piped(keep_ignoring);

    ck_assert_int_eq(finish_piped(&piped), 0);
}
END_TEST

static void expect_alternate_stack(void)
{
    open_console(false);
    for (int signo = 1; signo < SIGRTMIN; signo++) {
        struct sigaction now;

        if (sigaction(signo, NULL, &now) == 0 && now.sa_handler != SIG_DFL && now.sa_handler != SIG_IGN &&
            (now.sa_flags & SA_ONSTACK) == 0)
            _exit(signo);
    }
    _exit(0);
}

START_TEST(handlers_use_the_alternate_stack)
{
    struct piped piped = start_piped(expect_alternate_stack);

    ck_assert_int_eq(finish_piped(&piped), 0);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("console");
    TCase *on_terminal = tcase_create("terminal"), *on_pipes = tcase_create("pipes"),
          *requests = tcase_create("requests");
    SRunner *runner;
    int failed;

    tcase_add_test(on_terminal, raw_until_quit);
    tcase_add_test(on_terminal, keys_of_the_guest);
    tcase_add_test(on_terminal, quit_while_the_guest_takes_no_input);
    tcase_add_loop_test(on_terminal, restored_after_signals, 0, 4);
    tcase_add_test(on_terminal, restored_after_die);
    tcase_add_test(on_terminal, restored_after_kill_9);
    tcase_add_test(on_terminal, guardian_ends_after_kill_9_of_the_group);
    tcase_add_test(on_terminal, guardian_leaves_the_terminal_to_others);
    tcase_add_test(on_terminal, raw_again_after_continue);
    tcase_add_test(on_terminal, terminal_that_goes_away);
    tcase_set_timeout(on_terminal, 30);
    suite_add_tcase(suite, on_terminal);

    tcase_add_test(on_pipes, piped_input_is_not_interpreted);
    tcase_add_test(on_pipes, waiting_after_the_end_of_input);
    tcase_add_test(on_pipes, no_input_yet);
    tcase_add_loop_test(on_pipes, slow_reader_loses_nothing, 0, 2);
    tcase_add_loop_test(on_pipes, stuck_reader_does_not_keep_us, 0, 2);
    tcase_add_test(on_pipes, reader_that_is_gone);
    tcase_add_loop_test(on_pipes, output_that_fails, 0, 2);
    tcase_add_loop_test(on_pipes, screen_until_there_is_serial, 0, 4);
    tcase_set_timeout(on_pipes, 30);
    suite_add_tcase(suite, on_pipes);

    tcase_add_test(requests, timeout_ends_a_wait);
    tcase_add_test(requests, request_before_a_wait);
    tcase_add_test(requests, no_request_is_slept_over);
    tcase_add_test(requests, ignored_signals_stay_ignored);
    tcase_add_test(requests, handlers_use_the_alternate_stack);
    tcase_set_timeout(requests, 60);
    suite_add_tcase(suite, requests);

    runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
