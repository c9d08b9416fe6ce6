/* Where the guest's processor time goes: `ring3 run --profile`. See docs/profile.md. */
#ifndef RING3_PROFILE_H
#define RING3_PROFILE_H

#include "monitor/monitor.h"

struct profile;

/* Starts the host's timer. NULL: one line in `error`. */
struct profile *profile_open(const char *path, struct vm *vm, char *error, size_t error_size);
/* The run loop attends: takes a sample, if one is due. */
void profile_attend(struct profile *profile, struct vm *vm);
/* Stops the timer, writes and frees. false: one line in `error`. */
bool profile_close(struct profile *profile, char *error, size_t error_size);

#endif
