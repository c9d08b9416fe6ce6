/* Which engine runs a kernel when nobody said (--engine auto). See engine_choice.c. */
#ifndef RING3_ENGINE_CHOICE_H
#define RING3_ENGINE_CHOICE_H

#include "monitor/loader.h"

/* true: trapping alone runs this machine exactly, as far as `ring3 check` can prove it; false: translation is
 * needed. Either way `why` says so, as the end of a sentence. */
bool engine_choice_traps(const struct kernel_image *kernel, const struct loader_config *config,
                         const struct drive_config *drives, unsigned n_drives, char *why, size_t size);

#endif
