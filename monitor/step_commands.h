/*
 * The commands of the line-oriented stepper: one table, from which they are found and explained. Read next:
 * step_commands.c.
 */
#ifndef RING3_STEP_COMMANDS_H
#define RING3_STEP_COMMANDS_H

#include <stdio.h>

#include "monitor/stepper.h"

struct step_session {
    struct stepper stepper;
    FILE *out;
    bool is_over; /* `quit` */
    bool traces;  /* `trace on`: each event is shown as it happens */
    char error[256];
    char repeated[256]; /* what an empty line does again */
};

/* false: it was wrong; one line in session->error. An empty line repeats, if `repeats`. */
bool step_execute(struct step_session *session, const char *line, bool repeats);
/* The observer for `trace on`; to be added after the stepper's own. */
void step_observe(void *session, const struct vm *vm, const struct vm_event *event);

#endif
