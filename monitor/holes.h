/* Patching a loaded kernel's virtualization holes. Private to the loader. */
#ifndef RING3_HOLES_H
#define RING3_HOLES_H

#include "monitor/image.h"

/* Makes vm->patches and fills it; the kernel is in memory already. false: one line in `error`. */
bool holes_patch(const struct kernel_image *kernel, struct vm *vm, char *error, size_t error_size);

#endif
