/*
 * What signals ask of a running machine: to stop, that its time is up, that the terminal came back. Handlers
 * only set words; the run loop's poll turns the words into vm_stop. (They run on the alternate stack, and
 * under the trap engine behind its own entry: the guest's ESP and FS base may be live when they arrive.)
 */
#ifndef RING3_REQUESTS_H
#define RING3_REQUESTS_H

#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>

/* Catches SIGTERM, SIGINT, SIGHUP, SIGQUIT (unless ignored already, as under nohup), SIGALRM and SIGCONT, and
 * ignores SIGPIPE. `attention` is set to 1 with each; it must live until requests_release. */
void requests_catch(volatile int *attention);
void requests_release(void);
/* SIGALRM comes after so many ns of real time. */
void requests_start_timeout(uint64_t ns);

int requests_stop_signal(void); /* the first that asked the run to stop; 0: none */
bool requests_is_timed_out(void);
bool requests_take_continued(void); /* true once after each SIGCONT */
/* Something wants the run to end: a blocking call must not be taken up again. */
bool requests_is_stop_wanted(void);
/* Blocks the signals caught here, so that a wait can open them atomically (ppoll with *old as its mask). */
void requests_block(sigset_t *old);
/* Waits as poll does, UINT64_MAX being for ever, but not at all if *called is set, and no longer than until
 * one of the signals caught here sets it: not even if that comes between the two. */
void requests_wait(struct pollfd *fds, nfds_t n, uint64_t timeout_ns, const volatile int *called);

#endif
