/*
 * A data-segment load does not trap if the selector happens to be one that the host accepts: its flat
 * segments (0x20, 0x28), its 64-bit code (0x30), its per-CPU segment (0x78), with any RPL, and every live
 * entry of our own LDT. The CPU then has the host's descriptor in the register, not the guest's: a
 * virtualization hole, open until the next exit.
 *
 * There it is noticed, because the register holds another selector than it was entered with, and the load is
 * made up for: the guest's descriptor is loaded as MOV would have done it. A first use through the wrong base
 * usually exits by itself (the host's flat segments begin at host address 0, where nothing is mapped), so
 * that many kernels never notice; but nothing guarantees it. `--holes patch` closes the hole.
 *
 * Read next: docs/holes.md.
 */
#include "signals/native_load.h"

#include "monitor/machine.h"
#include "signals/world.h"

#define FLAT_ATTRIBUTES                                                                                      \
    (SEGMENT_P | SEGMENT_S | SEGMENT_DPL | SEGMENT_ACCESSED | SEGMENT_WRITABLE | SEGMENT_DB | SEGMENT_G)

/* What the CPU holds, in guest terms, when the guest's own tables have no such segment: the fault that
 * hardware would have raised is lost, and the register does what the host's descriptor says. */
static void follow_host(struct vm *vm, const struct ldt *ldt, uint32_t bias, enum segment_index index,
                        uint16_t selector)
{
    const struct ldt_descriptor *mirror = ldt_find(ldt, selector);
    uint16_t host = selector & (uint16_t)~SELECTOR_RPL;
    struct segment segment = {.selector = selector};

    if (mirror != NULL) {
        segment = ldt_segment(mirror);
        segment.selector = selector;
        segment.base -= bias;
    } else if (host == (HOST_CS_COMPAT & ~SELECTOR_RPL) || host == (HOST_DS & ~SELECTOR_RPL)) {
        segment.base = 0u - bias;
        segment.limit = UINT32_MAX;
        segment.attributes = FLAT_ATTRIBUTES | (host == (HOST_DS & ~SELECTOR_RPL) ? 0 : SEGMENT_CODE);
    } /* the others: unusable, so that the next use comes to the emulator and faults as a null selector's does
       */
    vm->vcpu.segment[index] = segment;
}

void native_load_follow(struct vm *vm, const struct ldt *ldt, uint32_t bias, enum segment_index index,
                        uint16_t selector)
{
    struct fault before = vm->vcpu.fault;

    machine_note(vm,
                 &(struct note){.kind = NOTE_HOLE, .address = selector, .name = vcpu_segment_name(index)});
    if (vcpu_load_segment(&vm->vcpu, index, selector) != OUTCOME_DONE)
        follow_host(vm, ldt, bias, index, selector);
    vm->vcpu.fault = before;
}
