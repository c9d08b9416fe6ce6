/* Private to decode/: what profile.c knows beyond decode.h. */
#ifndef RING3_PROFILE_H
#define RING3_PROFILE_H

#include "decode/decode.h"

/* x87, MMX or SSE: #NM if CR0.TS is set, and #NM or #UD under CR0.EM (SDM Vol 3A table 9-2 and 13.1). */
bool profile_is_fpu(const struct insn *insn);

#endif
