/* Operands of up to four bytes, whatever they are: register, memory, immediate. Read next: emulate.c. */
#include "vcpu/internal.h"

#include "vcpu/fail.h"

static uint32_t read_register(const struct vcpu *vcpu, const struct operand *operand)
{
    unsigned index = operand->reg.index;

    switch (operand->reg.class) {
    case REGISTER_GPR8: /* 4-7 are the high bytes of 0-3 */
        return (index < 4 ? vcpu->gpr[index] : vcpu->gpr[index - 4] >> 8) & 0xff;
    case REGISTER_GPR16:
        return vcpu->gpr[index] & 0xffff;
    case REGISTER_GPR32:
        return vcpu->gpr[index];
    default:
        BUG("register class %u read as a general operand", operand->reg.class);
    }
}

static void write_register(struct vcpu *vcpu, const struct operand *operand, uint32_t value)
{
    unsigned index = operand->reg.index;
    uint32_t *gpr;

    switch (operand->reg.class) {
    case REGISTER_GPR8:
        gpr = &vcpu->gpr[index & 3];
        *gpr = index < 4 ? (*gpr & ~0xffu) | (value & 0xff) : (*gpr & ~0xff00u) | (value & 0xff) << 8;
        break;
    case REGISTER_GPR16:
        gpr = &vcpu->gpr[index];
        *gpr = (*gpr & ~0xffffu) | (value & 0xffff);
        break;
    case REGISTER_GPR32:
        vcpu->gpr[index] = value;
        break;
    default:
        BUG("register class %u written as a general operand", operand->reg.class);
    }
}

enum outcome vcpu_operand_read(struct vcpu *vcpu, const struct insn *insn, const struct operand *operand,
                               uint32_t *value)
{
    *value = 0;
    switch (operand->kind) {
    case OPERAND_REGISTER:
        *value = read_register(vcpu, operand);
        return OUTCOME_DONE;
    case OPERAND_MEMORY:
        BUG_ON(operand->size > sizeof *value);
        return vcpu_read(vcpu, operand->mem.segment, vcpu_effective_address(vcpu, insn, operand), value,
                         operand->size);
    case OPERAND_IMMEDIATE:
        *value = (uint32_t)operand->immediate;
        return OUTCOME_DONE;
    default:
        BUG("operand kind %u read", operand->kind);
    }
}

enum outcome vcpu_operand_write(struct vcpu *vcpu, const struct insn *insn, const struct operand *operand,
                                uint32_t value)
{
    switch (operand->kind) {
    case OPERAND_REGISTER:
        write_register(vcpu, operand, value);
        return OUTCOME_DONE;
    case OPERAND_MEMORY:
        BUG_ON(operand->size > sizeof value);
        return vcpu_write(vcpu, operand->mem.segment, vcpu_effective_address(vcpu, insn, operand), &value,
                          operand->size);
    default:
        BUG("operand kind %u written", operand->kind);
    }
}
