/*
 * What may be loaded into a segment register, by whom, and what it costs who may not (SDM Vol 3A 5.2-5.8).
 *
 * The `segment_check_*` functions do every check and note the access in the descriptor table; they leave the
 * registers alone, so that an instruction that loads several commits them together when it can no longer
 * fail.
 */
#ifndef RING3_VCPU_SEGMENT_H
#define RING3_VCPU_SEGMENT_H

#include "vcpu/descriptor.h"
#include "vcpu/vcpu.h"

/* Protected mode that is not virtual-8086: selectors name descriptors. */
static inline bool segment_uses_descriptors(const struct vcpu *vcpu)
{
    return vcpu_is_protected(vcpu) && !vcpu_is_v8086(vcpu);
}

/* DS, ES, FS, GS; also null. #GP or #NP; a task switch passes `vector` #TS instead of #GP. */
enum outcome segment_check_data(struct vcpu *vcpu, uint16_t selector, unsigned cpl, int vector, uint32_t ext,
                                struct segment *segment);
/* SS for use at `cpl`: #`vector` (#GP for MOV and returns, #TS for stacks out of a TSS), or #SS if not
 * present. */
enum outcome segment_check_stack(struct vcpu *vcpu, uint16_t selector, unsigned cpl, int vector, uint32_t ext,
                                 struct segment *segment);
/* A segment register of real and virtual-8086 mode: base is selector * 16. `old` is what it held before: real
 * mode keeps limit and attributes. */
struct segment segment_of_paragraph(uint16_t selector, bool is_v8086, const struct segment *old);
/* Any register but CS, in any mode, checked for the current CPL: as MOV Sreg does. */
enum outcome segment_check_load(struct vcpu *vcpu, enum segment_index index, uint16_t selector,
                                struct segment *segment);

/* LDTR; also null. A task switch has its own vectors for what LLDT faults with #GP and #NP. */
enum outcome segment_check_ldt(struct vcpu *vcpu, uint16_t selector, int vector, int not_present_vector,
                               uint32_t ext, struct segment *segment);

struct segment segment_null(uint16_t selector);

/* On a return to an outer ring: DS, ES, FS and GS must not keep what that ring may not use. */
void segment_drop_inaccessible(struct vcpu *vcpu, unsigned cpl);

#endif
