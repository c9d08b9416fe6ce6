/*
 * signals: the trap engine. Guest code runs natively in 32-bit compatibility mode at host CPL 3, in the low 4
 * GiB of this process; what it may not do, the CPU faults, Linux turns into a signal, and the handler turns
 * into an exit.
 *
 * Read next: world.h (what the world switch saves, and where), entry.S (the switch itself), frame.c (the one
 * place that knows the signal frame), ldt.c (guest segments as LDT descriptors), engine.c (the loop's side of
 * it), sandbox.c.
 */
#ifndef RING3_SIGNALS_H
#define RING3_SIGNALS_H

#include <stdbool.h>
#include <stddef.h>

#include "monitor/monitor.h"

/* Only one machine can run under the trap engine in a process: there is one low 4 GiB. */
extern const struct engine trap_engine;

/* What this host offers to the engines; for `ring3 doctor` and for start-up errors that name what is missing.
 */
struct host_probe {
    const char *name; /* "modify_ldt" */
    bool is_available;
    bool is_required;            /* the trap engine cannot run without it */
    bool is_needed_by_translate; /* nor the translate engine */
    char detail[96];             /* what was seen: "denied: Operation not permitted", "65536", ... */
    const char *consequence;     /* what follows when it is missing */
};

#define HOST_PROBES_MAX 16

/* Fills `probes`; returns how many. Changes nothing that lasts. */
size_t signals_probe_host(struct host_probe *probes, size_t max);

/* Closes the sandbox: from now on the process can only make the system calls that the running monitor needs,
 * and a system call by 32-bit code (the guest's int 0x80) becomes SIGSYS. false: one line in `error`. */
bool signals_close_sandbox(char *error, size_t error_size);

#endif
