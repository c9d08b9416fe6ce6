/*
 * Ordinary instructions: those that are not sensitive, and come here because of what they touch (a device's
 * memory, a guarded page table, an address outside the window) or because an engine steps through everything.
 *
 * Private to vcpu/. Read next: ordinary.c, which decides who runs what.
 */
#ifndef RING3_VCPU_ORDINARY_H
#define RING3_VCPU_ORDINARY_H

#include "vcpu/vcpu.h"

enum outcome ordinary_emulate(struct vcpu *vcpu, const struct insn *insn);
bool ordinary_is_known(const struct insn *insn);

#endif
