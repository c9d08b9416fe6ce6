/*
 * The terminal on standard input: raw while the guest has it, and as it was afterwards, on every way out. A
 * normal end and die() restore it; so does the crash report, through fail_set_cleanup; and when the monitor
 * is killed outright, a guardian process does.
 */
#ifndef RING3_TERMINAL_H
#define RING3_TERMINAL_H

#include <stdbool.h>
#include <stddef.h>

/* Puts the terminal into raw mode: each key goes to the guest, Ctrl-C and Ctrl-Z too. Output keeps its
 * newline translation. Nothing happens, and that is success, if standard input is no terminal. To be called
 * before the machine is made: the guardian is a fork. false: one line in `error`. */
bool terminal_make_raw(char *error, size_t error_size);
bool terminal_is_raw(void);
/* After SIGCONT: the shell has put its own settings there meanwhile. */
void terminal_make_raw_again(void);
/* As it was before terminal_make_raw; may be called at any time, any number of times, also by a crash
 * handler. */
void terminal_restore(void);

#endif
