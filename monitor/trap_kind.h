/*
 * Kinds of traps, to stop at: "#PF reflected", "cli", "user inject #GP", "port 3f8". A kind is a conjunction
 * of words; trap_kind.c has the table of them.
 */
#ifndef RING3_TRAP_KIND_H
#define RING3_TRAP_KIND_H

#include <stdio.h>

#include "monitor/monitor.h"

#define TRAP_KIND_ANY (-1)

struct trap_kind {
    int reason, disposition; /* enum exit_reason, enum disposition; or TRAP_KIND_ANY */
    int fault;               /* the exit's vector */
    int cpl;                 /* at the exit */
    int port;                /* one that was read or written */
    bool wants_injection;    /* an exception or interrupt was delivered to the guest... */
    int injected;            /* ...through this vector, or TRAP_KIND_ANY */
    bool wants_ordinary;     /* an instruction was emulated that is not sensitive */
    char insn[24];           /* a sensitive instruction, in small letters; "": any */
    char text[64];           /* the words, as they were given */
};

/* Reads "WORD WORD...". false: one line in `error`. */
bool trap_kind_parse(const char *text, struct trap_kind *kind, char *error, size_t error_size);
bool trap_kind_matches(const struct trap_kind *kind, const struct vm_event *event);
/* Prints the words there are, and what they mean. */
void trap_kind_print_help(FILE *out);

#endif
