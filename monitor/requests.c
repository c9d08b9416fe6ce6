/* Requests by signal: see requests.h. Read next: console.c, which asks for them. */
#include "monitor/requests.h"

#include <errno.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include "vcpu/fail.h"

/* The process's, not the machine's: there is one set of signals. */
static volatile sig_atomic_t stop_signal, timed_out, continued;
static volatile int *volatile attention_word;

/* How long requests_wait waits; the kernel reads it when it begins. A handler that runs before makes it
 * nothing, and needs no signals blocked: two system calls less for each time that an idle guest wakes. */
static volatile struct timespec wait_time;

#define FOREVER_S 1000000000

static const int caught[] = {SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGALRM, SIGCONT};

#define N_CAUGHT (sizeof caught / sizeof caught[0])

/* A signal that arrives just before a write blocks on a full pipe does not interrupt it. So once the run is
 * to end SIGALRM comes again and again. */
#define NAG_US 20000

static void set_alarm(struct timeval first)
{
    struct itimerval timer = {.it_interval = {.tv_usec = NAG_US}, .it_value = first};

    if (setitimer(ITIMER_REAL, &timer, NULL) != 0)
        die("setitimer: %s", strerror(errno));
}

static void on_signal(int signo)
{
    int saved_errno = errno;

    wait_time.tv_sec = 0;
    wait_time.tv_nsec = 0;
    if (signo == SIGCONT) {
        continued = 1;
    } else if (signo == SIGALRM) {
        timed_out = stop_signal == 0;
    } else if (stop_signal == 0) {
        stop_signal = signo;
        set_alarm((struct timeval){.tv_usec = NAG_US});
    }
    if (attention_word != NULL)
        *attention_word = 1;
    errno = saved_errno;
}

static void set_handler(int signo, void (*handler)(int))
{
    /* No SA_RESTART: a write that blocks on a full pipe must come back to see the request. */
    struct sigaction action = {.sa_handler = handler, .sa_flags = SA_ONSTACK};

    sigemptyset(&action.sa_mask);
    if (sigaction(signo, &action, NULL) != 0)
        die("sigaction of signal %d: %s", signo, strerror(errno));
}

void requests_catch(volatile int *attention)
{
    stop_signal = timed_out = continued = 0;
    attention_word = attention;
    for (size_t i = 0; i < N_CAUGHT; i++) {
        struct sigaction old;

        if (sigaction(caught[i], NULL, &old) == 0 && old.sa_handler != SIG_IGN)
            set_handler(caught[i], on_signal);
    }
    set_handler(SIGPIPE, SIG_IGN);
}

void requests_release(void)
{
    struct itimerval off = {0};

    attention_word = NULL;
    setitimer(ITIMER_REAL, &off, NULL);
}

void requests_start_timeout(uint64_t ns)
{
    struct timeval first = {.tv_sec = (time_t)(ns / 1000000000u),
                            .tv_usec = (suseconds_t)(ns % 1000000000u / 1000u)};

    if (first.tv_sec == 0 && first.tv_usec == 0)
        first.tv_usec = 1;
    set_alarm(first);
}

int requests_stop_signal(void)
{
    return stop_signal;
}

bool requests_is_timed_out(void)
{
    return timed_out != 0;
}

bool requests_take_continued(void)
{
    bool was = continued != 0;

    continued = 0;
    return was;
}

bool requests_is_stop_wanted(void)
{
    return stop_signal != 0 || timed_out != 0;
}

void requests_block(sigset_t *old)
{
    sigset_t set;

    sigemptyset(&set);
    for (size_t i = 0; i < N_CAUGHT; i++)
        sigaddset(&set, caught[i]);
    sigprocmask(SIG_BLOCK, &set, old);
}

void requests_wait(struct pollfd *fds, nfds_t n, uint64_t timeout_ns, const volatile int *called)
{
    bool is_forever = timeout_ns == UINT64_MAX;

    wait_time.tv_sec = is_forever ? FOREVER_S : (time_t)(timeout_ns / 1000000000u);
    wait_time.tv_nsec = is_forever ? 0 : (long)(timeout_ns % 1000000000u);
    if (*called == 0)
        syscall(SYS_ppoll, fds, n, &wait_time, NULL, 0); /* the C library's would read it too early */
}
