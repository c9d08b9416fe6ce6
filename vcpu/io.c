/* IN and OUT. Their string forms are in string.c. Read next: io_permission.c. */
#include "vcpu/internal.h"

/* An immediate port is one byte without sign, a register port is DX. */
static uint16_t port_number(const struct vcpu *vcpu, const struct operand *port)
{
    return port->kind == OPERAND_IMMEDIATE ? (uint8_t)port->immediate : (uint16_t)vcpu->gpr[EDX];
}

enum outcome handle_in(struct vcpu *vcpu, const struct insn *insn)
{
    const struct operand *accumulator = &insn->operand[0];
    uint16_t port = port_number(vcpu, &insn->operand[1]);
    enum outcome outcome = vcpu_check_io_permission(vcpu, port, accumulator->size);

    if (outcome != OUTCOME_DONE)
        return outcome;
    outcome =
        vcpu_operand_write(vcpu, insn, accumulator, vcpu->ops->port_read(vcpu, port, accumulator->size));
    return outcome == OUTCOME_DONE ? vcpu_finish(vcpu, insn) : outcome;
}

enum outcome handle_out(struct vcpu *vcpu, const struct insn *insn)
{
    uint16_t port = port_number(vcpu, &insn->operand[0]);
    const struct operand *accumulator = &insn->operand[1];
    enum outcome outcome = vcpu_check_io_permission(vcpu, port, accumulator->size);
    uint32_t value;

    if (outcome == OUTCOME_DONE)
        outcome = vcpu_operand_read(vcpu, insn, accumulator, &value);
    if (outcome != OUTCOME_DONE)
        return outcome;
    vcpu->ops->port_write(vcpu, port, accumulator->size, value);
    return vcpu_finish(vcpu, insn);
}
