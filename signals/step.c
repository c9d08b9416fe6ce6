/*
 * Single steps: the guest is entered with TF set, and the CPU raises #DB after one instruction (SDM Vol 3B
 * 17.3.1.4). TF is then ours and must not show: it is stripped from the flags that come back, and two
 * instructions that move EFLAGS as a whole need more. PUSHF writes our TF to the guest's stack, where it is
 * cleared again before anybody looks; POPF loads the guest's own TF, which then is the one the CPU holds (the
 * #DB after POPF still comes: what counts is TF at its beginning). Instructions that trap never see our TF:
 * they are emulated. Read next: engine.c.
 */
#include "signals/step.h"

void step_begin(struct step *step, struct vm *vm)
{
    const struct vcpu *vcpu = &vm->vcpu;
    uint8_t bytes[INSN_MAX_LENGTH];
    size_t n = vm_peek(vm, vcpu->segment[SEG_CS].base + vcpu->eip, bytes, sizeof bytes);
    struct insn insn;

    step->guest_tf = (vcpu->eflags & EFLAGS_TF) != 0;
    step->insn = STEP_INSN_OTHER;
    if (decode_insn(bytes, n, vcpu_code_size(vcpu), &insn) != DECODE_OK || insn.sensitive == NULL)
        return;
    if (insn.sensitive->handler == HANDLE_pushf)
        step->insn = STEP_INSN_PUSHF;
    else if (insn.sensitive->handler == HANDLE_popf)
        step->insn = STEP_INSN_POPF;
}

void step_end(struct step *step, bool is_done)
{
    if (!is_done)
        step->insn = STEP_INSN_OTHER;
}

bool step_loads_flags(const struct step *step)
{
    return step->insn == STEP_INSN_POPF;
}

void step_hide_flag(const struct step *step, struct vm *vm)
{
    /* The image is at the top of the stack; TF is bit 8: bit 0 of its second byte. */
    const struct segment *stack = &vm->vcpu.segment[SEG_SS];
    uint32_t top = stack->attributes & SEGMENT_DB ? vm->vcpu.gpr[ESP] : vm->vcpu.gpr[ESP] & 0xffff;
    gva_t linear = stack->base + top + 1;
    struct walk walk;
    struct fault fault;
    uint8_t byte;

    if (step->insn != STEP_INSN_PUSHF || step->guest_tf)
        return;
    if (!guest_walk(&vm->memory, &vm->vcpu, linear, ACCESS_READ, true, &walk, &fault) ||
        !memory_read(&vm->memory, walk.gpa, &byte, sizeof byte))
        return; /* the push has just been there; only a guest that unmaps its own stack by it gets here */
    byte &= (uint8_t) ~(EFLAGS_TF >> 8);
    memory_write(&vm->memory, walk.gpa, &byte, sizeof byte);
}
