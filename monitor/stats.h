/*
 * --stats: where the exits and the host's time go. Counts and costs per exit reason and per instruction, what
 * was injected, what the shadow did; as one JSON object (docs/stats.md).
 */
#ifndef RING3_STATS_H
#define RING3_STATS_H

#include "monitor/monitor.h"

struct stats;

/* Observes vm and turns on vm->timed. The file is opened now, so that a bad path is told before the run.
 * NULL: one line in `error`. */
struct stats *stats_open(const char *path, struct vm *vm, char *error, size_t error_size);
/* Writes the object and closes. false: one line in `error`. */
bool stats_close(struct stats *stats, char *error, size_t error_size);

#endif
