/*
 * The kernel's IN, OUT and INVLPG, and its MOV to and from a device's registers or into a page table: called
 * from translated code as other sensitive instructions are, but most of what the emulator asks each time was
 * known when the block was made. They change neither flags nor anything that decides the mode, so that all of
 * the guest's state may stay where it is.
 *
 * (INT n, IRET, SYSENTER and SYSEXIT are told apart here, too: of them it is known how they go on.)
 *
 * Read next: callout.c, which sees to interrupts and to what the device has done.
 */
#include <Zydis/Zydis.h>

#include "monitor/machine.h"
#include "translate/build.h"
#include "translate/translator.h"

/* ---- when the block is made ---------------------------------------------------------------------------- */

static bool is_handled_by(const struct insn *insn, enum sensitive_handler handler)
{
    return insn->sensitive != NULL && insn->sensitive->handler == handler;
}

static bool is_switch(const struct insn *insn)
{
    return is_handled_by(insn, HANDLE_sysenter) || is_handled_by(insn, HANDLE_sysexit) ||
           is_handled_by(insn, HANDLE_interrupt) || is_handled_by(insn, HANDLE_iret);
}

/* No high byte: those of the accumulator, and of what drivers use, are low. */
static bool is_plain_register(const struct operand *operand)
{
    return operand->kind == OPERAND_REGISTER &&
           (operand->reg.class == REGISTER_GPR32 || operand->reg.class == REGISTER_GPR16 ||
            (operand->reg.class == REGISTER_GPR8 && operand->reg.index < 4));
}

static struct quick quick_port(const struct insn *insn, bool is_in)
{
    const struct operand *port = &insn->operand[is_in ? 1 : 0], *accumulator = &insn->operand[is_in ? 0 : 1];

    return (struct quick){.kind = (uint8_t)(is_in ? QUICK_IN : QUICK_OUT),
                          .size = accumulator->size,
                          .gpr = EAX,
                          .has_port = port->kind == OPERAND_IMMEDIATE,
                          .port = (uint8_t)port->immediate};
}

static bool is_move(const struct insn *insn)
{
    return insn->sensitive == NULL && insn->mnemonic == ZYDIS_MNEMONIC_MOV && insn->address_size == 4;
}

static struct quick quick_move(enum quick_kind kind, const struct operand *value,
                               const struct operand *memory, uint32_t mode)
{
    struct quick quick = {.kind = (uint8_t)kind, .size = memory->size};

    quick.is_immediate = value->kind == OPERAND_IMMEDIATE;
    if ((!quick.is_immediate && !is_plain_register(value)) || memory->mem.segment == SEG_CS ||
        !memory_is_flat_in(mode, memory->mem.segment))
        return (struct quick){.kind = QUICK_NOT};
    if (quick.is_immediate)
        quick.immediate = (uint32_t)value->immediate;
    else
        quick.gpr = value->reg.index;
    return quick;
}

const struct operand *quick_operand(const struct insn *insn, uint32_t mode)
{
    const struct operand *page = &insn->operand[0];

    return is_handled_by(insn, HANDLE_invlpg) && insn->address_size == 4 &&
                   memory_is_flat_in(mode, page->mem.segment)
               ? page
               : NULL;
}

struct quick quick_of(const struct insn *insn, uint32_t mode)
{
    const struct operand *to = &insn->operand[0], *from = &insn->operand[1];

    if (is_switch(insn))
        return (struct quick){.kind = QUICK_SWITCH};
    if ((mode & MODE_USER) || (insn->prefixes & (INSN_LOCK | INSN_REP | INSN_REPNE)))
        return (struct quick){.kind = QUICK_NOT};
    if (is_handled_by(insn, HANDLE_in))
        return quick_port(insn, true);
    if (is_handled_by(insn, HANDLE_out))
        return quick_port(insn, false);
    if (quick_operand(insn, mode) != NULL)
        return (struct quick){.kind = QUICK_INVLPG};
    if (is_move(insn) && from->kind == OPERAND_MEMORY)
        return quick_move(QUICK_LOAD, to, from, mode);
    if (is_move(insn) && to->kind == OPERAND_MEMORY)
        return quick_move(QUICK_STORE, from, to, mode);
    return (struct quick){.kind = QUICK_NOT};
}

/* ---- when it is run ------------------------------------------------------------------------------------ */

static const uint32_t mask_of[] = {[1] = UINT8_MAX, [2] = UINT16_MAX, [4] = UINT32_MAX};

static void set_register(struct vcpu *vcpu, const struct quick *quick, uint32_t value)
{
    uint32_t mask = mask_of[quick->size];

    vcpu->gpr[quick->gpr] = (vcpu->gpr[quick->gpr] & ~mask) | (value & mask);
}

static uint32_t value_of(const struct vcpu *vcpu, const struct quick *quick)
{
    return (quick->is_immediate ? quick->immediate : vcpu->gpr[quick->gpr]) & mask_of[quick->size];
}

static bool find_device(const struct vm *vm, gva_t linear, unsigned size, unsigned kind, uint32_t *address)
{
    gpa_t gpa;

    if (!touch_is_within_page(linear, size) || !device_pages_find(&vm->device_pages, linear, kind, &gpa) ||
        gpa > UINT32_MAX)
        return false;
    *address = (uint32_t)gpa;
    return true;
}

static bool run_load(struct vm *vm, const struct quick *quick, gva_t linear)
{
    uint32_t address;

    if (!find_device(vm, linear, quick->size, ACCESS_READ, &address))
        return false;
    set_register(&vm->vcpu, quick, bus_read(board_bus(vm->board), BUS_MEMORY, address, quick->size));
    return true;
}

/* Into a page that is a page table and nothing else. */
static bool store_into_table(struct vm *vm, const struct quick *quick, gva_t linear)
{
    uint32_t value = value_of(&vm->vcpu, quick);
    uint32_t rpn;

    if (!touch_is_within_page(linear, quick->size))
        return false;
    rpn = shadow_held(vm->shadow, &vm->vcpu, linear, ACCESS_WRITE);
    if (rpn == RPN_NONE || vm->memory.page_flags[rpn] != PAGE_IS_TABLE)
        return false;
    memory_write_page(&vm->memory, rpn, linear & PAGE_MASK, &value, quick->size);
    return true;
}

static bool run_store(struct vm *vm, const struct quick *quick, gva_t linear)
{
    uint32_t address;

    if (!find_device(vm, linear, quick->size, ACCESS_WRITE, &address))
        return store_into_table(vm, quick, linear);
    bus_write(board_bus(vm->board), BUS_MEMORY, address, quick->size, value_of(&vm->vcpu, quick));
    return true;
}

static uint16_t port_of(const struct vcpu *vcpu, const struct quick *quick)
{
    return quick->has_port ? quick->port : (uint16_t)vcpu->gpr[EDX];
}

/* The ports are the machine's own, and nobody notes what goes through them (state_is_plain). */
static bool run_in(struct vm *vm, const struct quick *quick, gva_t linear)
{
    uint16_t port = port_of(&vm->vcpu, quick);

    (void)linear;
    set_register(&vm->vcpu, quick, bus_read(board_bus(vm->board), BUS_PORT, port, quick->size));
    return true;
}

static bool run_out(struct vm *vm, const struct quick *quick, gva_t linear)
{
    uint16_t port = port_of(&vm->vcpu, quick);

    (void)linear;
    bus_write(board_bus(vm->board), BUS_PORT, port, quick->size, vm->vcpu.gpr[EAX] & mask_of[quick->size]);
    machine_follow_a20(vm, port);
    return true;
}

static bool run_invlpg(struct vm *vm, const struct quick *quick, gva_t linear)
{
    (void)quick;
    vm->vcpu.ops->invlpg(&vm->vcpu, linear);
    return true;
}

bool quick_run(struct vm *vm, const struct quick *quick, gva_t linear)
{
    static bool (*const run[])(struct vm *, const struct quick *, gva_t) = {
        [QUICK_IN] = run_in,       [QUICK_OUT] = run_out,       [QUICK_LOAD] = run_load,
        [QUICK_STORE] = run_store, [QUICK_INVLPG] = run_invlpg,
    };

    return run[quick->kind](vm, quick, linear);
}
