/* The signal frame's interface to the rest of the trap engine. See frame.c. */
#ifndef RING3_FRAME_H
#define RING3_FRAME_H

#include <stdbool.h>
#include <stdint.h>

struct world;

/* Handlers for the exceptions that a guest can raise: SIGSEGV SIGBUS SIGILL SIGFPE SIGTRAP SIGSYS. */
bool frame_install_synchronous(void);
/* `handler` runs on `signo`, wherever it arrives, and must only set words; the guest is stopped if it was
 * running. */
bool frame_install_asynchronous(int signo, void (*handler)(int signo));
/* Puts every handler installed so far by others behind the asynchronous entry. */
bool frame_adopt_handlers(void);
/* The word that asynchronous handlers set and the window re-checks. */
void frame_set_attention(volatile int *attention);
/* As trap_enter, for a guest with a 16-bit stack. Slower: four system calls. */
int frame_enter(struct world *world);
/* CLOCK_MONOTONIC by the real system call. */
uint64_t frame_host_ns(void);

#endif
