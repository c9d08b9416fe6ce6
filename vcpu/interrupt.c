/*
 * Entering an interrupt or exception handler: through the vector table of real mode, or through a gate of the
 * IDT (SDM Vol 3A 6.12, 20.1.4, 20.3; the steps are those of Vol 2 INT n).
 *
 * Read next: task.c (task gates), then return.c (the way back).
 */
#include "vcpu/interrupt.h"

#include "vcpu/code_entry.h"
#include "vcpu/flat_switch.h"
#include "vcpu/internal.h"
#include "vcpu/segment.h"
#include "vcpu/task.h"

#define IDT_ENTRY_SIZE 8u
#define IVT_ENTRY_SIZE 4u

/* The error code that names an IDT entry (SDM Vol 3A 6.13). */
static uint32_t gate_error(const struct event *event)
{
    return event->vector * IDT_ENTRY_SIZE | ERROR_IDT | event->ext;
}

void interrupt_accept(struct vcpu *vcpu, const struct event *event)
{
    vcpu->ops->injected(vcpu, event->kind, event->vector, event->has_error, event->error);
    vcpu->halted = false;
    vcpu->interrupt_shadow = SHADOW_NONE;
    if (event->vector == EXCEPTION_DB && event->ext) /* so that the handler can use the debug registers */
        vcpu->dr[7] &= ~DR7_GD;
}

/* ---- real mode ---------------------------------------------------------------------------------------- */

static enum outcome deliver_real(struct vcpu *vcpu, const struct event *event)
{
    uint32_t entry = event->vector * IVT_ENTRY_SIZE;
    struct stack stack = vcpu_current_stack(vcpu);
    uint16_t target[2]; /* IP, CS */
    enum outcome outcome;

    if (entry + IVT_ENTRY_SIZE - 1 > vcpu->idtr.limit)
        return vcpu_raise_error(vcpu, EXCEPTION_GP, gate_error(event));
    outcome = vcpu_read_system(vcpu, vcpu->idtr.base + entry, target, sizeof target);
    if (outcome == OUTCOME_DONE)
        outcome = vcpu_stack_push_frame(
            vcpu, &stack,
            (const uint32_t[]){event->saved_eflags, vcpu->segment[SEG_CS].selector, event->return_eip}, 3, 2);
    if (outcome != OUTCOME_DONE)
        return outcome;

    interrupt_accept(vcpu, event);
    vcpu_commit_stack_pointer(vcpu, &stack);
    vcpu->segment[SEG_CS] = segment_of_paragraph(target[1], false, &vcpu->segment[SEG_CS]);
    vcpu->eip = target[0];
    vcpu->eflags &= ~(EFLAGS_IF | EFLAGS_TF | EFLAGS_AC | EFLAGS_RF);
    return OUTCOME_DONE;
}

/* ---- interrupt and trap gates ------------------------------------------------------------------------- */

/* The handler's code segment and, through `cpl`, its privilege. */
static enum outcome check_handler_code(struct vcpu *vcpu, const struct descriptor *gate, uint32_t ext,
                                       struct descriptor *code, unsigned *cpl)
{
    uint16_t selector = gate_selector(gate);
    unsigned dpl;
    enum outcome outcome;

    if (selector_is_null(selector))
        return vcpu_raise_error(vcpu, EXCEPTION_GP, ext);
    outcome = descriptor_fetch(vcpu, selector, EXCEPTION_GP, ext, code);
    if (outcome != OUTCOME_DONE)
        return outcome;
    dpl = descriptor_dpl(code);
    if (!descriptor_is_code(code) || dpl > vcpu->cpl)
        return vcpu_raise_error(vcpu, EXCEPTION_GP, selector_error(selector, ext));
    if (!descriptor_is_present(code))
        return vcpu_raise_error(vcpu, EXCEPTION_NP, selector_error(selector, ext));

    *cpl = descriptor_is_conforming(code) ? vcpu->cpl : dpl;
    /* Virtual-8086 mode is left for ring 0, or not at all. */
    if (vcpu_is_v8086(vcpu) && *cpl != 0)
        return vcpu_raise_error(vcpu, EXCEPTION_GP, selector_error(selector, ext));
    return OUTCOME_DONE;
}

/* What the handler finds on its stack. */
#define INTERRUPT_FRAME_MAX 10 /* GS, FS, DS, ES, SS, ESP, EFLAGS, CS, EIP, error code */

static void make_frame(const struct vcpu *vcpu, const struct event *event, bool is_inner,
                       struct code_entry *entry)
{
    uint32_t *frame = entry->frame;

    if (vcpu_is_v8086(vcpu)) {
        *frame++ = vcpu->segment[SEG_GS].selector;
        *frame++ = vcpu->segment[SEG_FS].selector;
        *frame++ = vcpu->segment[SEG_DS].selector;
        *frame++ = vcpu->segment[SEG_ES].selector;
    }
    if (is_inner) {
        *frame++ = vcpu->segment[SEG_SS].selector;
        *frame++ = vcpu->gpr[ESP];
    }
    *frame++ = event->saved_eflags;
    *frame++ = vcpu->segment[SEG_CS].selector;
    *frame++ = event->return_eip;
    if (event->has_error)
        *frame++ = event->error;
    entry->n = (unsigned)(frame - entry->frame);
}

static void null_data_segments(struct vcpu *vcpu)
{
    vcpu->segment[SEG_DS] = segment_null(0);
    vcpu->segment[SEG_ES] = segment_null(0);
    vcpu->segment[SEG_FS] = segment_null(0);
    vcpu->segment[SEG_GS] = segment_null(0);
}

static enum outcome enter_handler(struct vcpu *vcpu, const struct event *event, const struct descriptor *gate)
{
    uint32_t frame[INTERRUPT_FRAME_MAX];
    struct code_entry entry = {
        .frame = frame, .eip = gate_offset(gate), .size = gate_is_32bit(gate) ? 4 : 2, .ext = event->ext};
    unsigned cpl = 0;
    bool is_inner;
    enum outcome outcome = check_handler_code(vcpu, gate, event->ext, &entry.code, &cpl);

    if (outcome != OUTCOME_DONE)
        return outcome;
    entry.selector = (uint16_t)((gate_selector(gate) & ~SELECTOR_RPL) | cpl);
    is_inner = cpl != vcpu->cpl;
    if (is_inner) {
        outcome = task_inner_stack(vcpu, cpl, event->ext, &entry.stack);
        if (outcome != OUTCOME_DONE)
            return outcome;
    } else {
        entry.stack = vcpu_current_stack(vcpu);
        entry.stack.error_code = (uint16_t)event->ext;
    }
    make_frame(vcpu, event, is_inner, &entry);
    outcome = code_entry_prepare(vcpu, &entry);
    if (outcome != OUTCOME_DONE)
        return outcome;

    interrupt_accept(vcpu, event);
    if (vcpu_is_v8086(vcpu))
        null_data_segments(vcpu);
    code_entry_commit(vcpu, &entry);
    return OUTCOME_DONE;
}

static enum outcome deliver_through_gate(struct vcpu *vcpu, const struct event *event,
                                         const struct descriptor *gate)
{
    unsigned type = descriptor_system_type(gate);
    bool is_interrupt_gate = type == SYSTEM_INT16 || type == SYSTEM_INT32;

    if (!flat_enter(vcpu, event, gate)) {
        enum outcome outcome = enter_handler(vcpu, event, gate);

        if (outcome != OUTCOME_DONE)
            return outcome;
    }
    vcpu->eflags &= ~(EFLAGS_TF | EFLAGS_NT | EFLAGS_RF | EFLAGS_VM);
    if (is_interrupt_gate)
        vcpu->eflags &= ~EFLAGS_IF;
    return OUTCOME_DONE;
}

/* ---- task gates --------------------------------------------------------------------------------------- */

static enum outcome deliver_through_task_gate(struct vcpu *vcpu, const struct event *event,
                                              const struct descriptor *gate)
{
    struct task_switch task = {
        .selector = gate_selector(gate),
        .cause = TASK_INTERRUPT,
        .return_eip = event->return_eip,
        .saved_eflags = event->saved_eflags,
        .has_error = event->has_error,
        .error = event->error,
        .ext = event->ext,
    };
    enum outcome outcome = task_find_available(vcpu, task.selector, event->ext, &task.descriptor);

    if (outcome == OUTCOME_DONE)
        outcome = task_switch(vcpu, &task);
    if (outcome == OUTCOME_DONE)
        interrupt_accept(vcpu, event);
    return outcome;
}

/* ---- any gate ----------------------------------------------------------------------------------------- */

static enum outcome fetch_gate(struct vcpu *vcpu, const struct event *event, struct descriptor *gate)
{
    uint32_t offset = event->vector * IDT_ENTRY_SIZE;
    uint32_t words[2];
    enum outcome outcome;

    if (offset + IDT_ENTRY_SIZE - 1 > vcpu->idtr.limit)
        return vcpu_raise_error(vcpu, EXCEPTION_GP, gate_error(event));
    outcome = vcpu_read_system(vcpu, vcpu->idtr.base + offset, words, sizeof words);
    *gate = (struct descriptor){vcpu->idtr.base + offset, words[0], words[1]};
    return outcome;
}

enum outcome interrupt_deliver(struct vcpu *vcpu, const struct event *event)
{
    enum outcome (*deliver)(struct vcpu *, const struct event *, const struct descriptor *);
    struct descriptor gate = {0};
    enum outcome outcome;

    if (!vcpu_is_protected(vcpu))
        return deliver_real(vcpu, event);
    outcome = fetch_gate(vcpu, event, &gate);
    if (outcome != OUTCOME_DONE)
        return outcome;

    switch (descriptor_system_type(&gate)) {
    case SYSTEM_TASK_GATE:
        deliver = deliver_through_task_gate;
        break;
    case SYSTEM_INT16:
    case SYSTEM_TRAP16:
    case SYSTEM_INT32:
    case SYSTEM_TRAP32:
        deliver = deliver_through_gate;
        break;
    default:
        return vcpu_raise_error(vcpu, EXCEPTION_GP, gate_error(event));
    }
    if (event->checks_privilege && descriptor_dpl(&gate) < vcpu->cpl)
        return vcpu_raise_error(vcpu, EXCEPTION_GP, gate_error(event));
    if (!descriptor_is_present(&gate))
        return vcpu_raise_error(vcpu, EXCEPTION_NP, gate_error(event));
    return deliver(vcpu, event, &gate);
}

/* ---- INT n, INT3, INTO, INT1 -------------------------------------------------------------------------- */

#define OPCODE_INT3 0xcc
#define OPCODE_INT  0xcd
#define OPCODE_INTO 0xce
#define OPCODE_INT1 0xf1

static uint8_t interrupt_vector(const struct insn *insn)
{
    switch (insn->opcode) {
    case OPCODE_INT3:
        return EXCEPTION_BP;
    case OPCODE_INTO:
        return EXCEPTION_OF;
    case OPCODE_INT1:
        return EXCEPTION_DB;
    default:
        return (uint8_t)insn->operand[0].immediate;
    }
}

enum outcome handle_interrupt(struct vcpu *vcpu, const struct insn *insn)
{
    /* INT1 counts as an event from outside, like the hardware #DB that it imitates (SDM Vol 2 INT n). */
    bool is_int1 = insn->opcode == OPCODE_INT1;
    struct event event = {
        .kind = INJECT_SOFTWARE,
        .vector = interrupt_vector(insn),
        .return_eip = vcpu->eip + insn->length,
        .saved_eflags = vcpu->eflags,
        .ext = is_int1 ? ERROR_EXT : 0,
        .checks_privilege = !is_int1,
    };

    if (insn->opcode == OPCODE_INTO && !(vcpu->eflags & EFLAGS_OF))
        return vcpu_finish(vcpu, insn);
    if (insn->opcode == OPCODE_INT && vcpu_is_v8086(vcpu) && (vcpu->eflags & EFLAGS_IOPL) != EFLAGS_IOPL)
        return vcpu_raise_error(vcpu, EXCEPTION_GP, 0);
    return interrupt_deliver(vcpu, &event);
}
