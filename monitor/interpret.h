/* The reference engine: see interpret.c. */
#ifndef RING3_INTERPRET_H
#define RING3_INTERPRET_H

#include "monitor/monitor.h"

/* Needs nothing of the host, and any number of machines may run under it. */
extern const struct engine interpret_engine;

#endif
