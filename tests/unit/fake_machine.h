/*
 * A machine small enough to see through, to put under a vcpu in unit tests: flat RAM whose linear addresses
 * are its physical ones, page rights that a test may take away, ports that log, and a record of what the vcpu
 * reported.
 *
 *     static struct fake_machine machine;
 *     struct vcpu *vcpu = fake_machine_reset(&machine);   // then vcpu_set_flat(), fake_write32(), ...
 */
#ifndef RING3_FAKE_MACHINE_H
#define RING3_FAKE_MACHINE_H

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "vcpu/vcpu.h"

#define FAKE_RAM_SIZE   0x200000u /* beyond it nothing is mapped: #PF */
#define FAKE_PAGES      (FAKE_RAM_SIZE / PAGE_SIZE)
#define FAKE_LOG        64
#define FAKE_ALL_RIGHTS (PTE_P | PTE_W | PTE_U)

struct fake_port_access {
    bool is_write;
    uint16_t port;
    uint8_t size;
    uint32_t value;
};

struct fake_injection {
    enum injection_kind kind;
    uint8_t vector;
    bool has_error;
    uint32_t error;
};

struct fake_machine {
    struct vcpu vcpu;
    uint8_t ram[FAKE_RAM_SIZE];
    uint8_t
        rights[FAKE_PAGES]; /* PTE_P, PTE_W, PTE_U; PTE_W counts for the supervisor too, as under CR0.WP */

    unsigned n_reads, n_writes; /* memory accesses that moved data */
    bool is_reachable;          /* whole pages, too, without these accesses */
    bool is_at_hand;            /* what the supervisor may access */
    unsigned n_at_hand;         /* pieces of memory that were */
    struct fake_port_access port[FAKE_LOG];
    unsigned n_ports;
    uint32_t port_value; /* what port_read returns, cut to size */
    struct fake_injection injection[FAKE_LOG];
    unsigned n_injections;
    unsigned n_paging_changes, n_invlpg, n_unknown_msrs, n_apic_base_changes;
    uint32_t old_cr0, old_cr3, old_cr4; /* of the last paging change */
    gva_t invlpg_address;
    uint32_t unknown_msr;
    uint64_t tsc;
    unsigned n_clock_changes;
    uint32_t clock_msr;    /* of the last clock change */
    enum stop_reason stop; /* the first */
    char stop_text[512];
};

static inline enum outcome fake_memory(struct vcpu *vcpu, gva_t linear, void *buf, unsigned size,
                                       unsigned kind)
{
    struct fake_machine *machine = vcpu->machine;
    uint8_t *bytes = buf;

    for (unsigned i = 0; i < size; i++) {
        gva_t address = linear + i;
        uint8_t rights = address < FAKE_RAM_SIZE ? machine->rights[address >> PAGE_SHIFT] : 0;
        uint32_t needed = PTE_P | ((kind & ACCESS_WRITE) ? PTE_W : 0) | ((kind & ACCESS_USER) ? PTE_U : 0);

        if ((rights & needed) != needed) {
            uint32_t error = ((rights & PTE_P) ? PF_PRESENT : 0) | ((kind & ACCESS_WRITE) ? PF_WRITE : 0) |
                             ((kind & ACCESS_USER) ? PF_USER : 0);
            return vcpu_raise_page_fault(vcpu, address, error);
        }
    }
    if (kind & ACCESS_PROBE)
        return OUTCOME_DONE;
    for (unsigned i = 0; i < size; i++) {
        if (kind & ACCESS_WRITE)
            machine->ram[linear + i] = bytes[i];
        else
            bytes[i] = machine->ram[linear + i];
    }
    if (kind & ACCESS_WRITE)
        machine->n_writes++;
    else
        machine->n_reads++;
    return OUTCOME_DONE;
}

static inline uint8_t *fake_reach(struct vcpu *vcpu, gva_t linear, unsigned kind)
{
    struct fake_machine *machine = vcpu->machine;
    uint8_t rights = linear < FAKE_RAM_SIZE ? machine->rights[linear >> PAGE_SHIFT] : 0;
    uint32_t needed = PTE_P | ((kind & ACCESS_WRITE) ? PTE_W : 0) | ((kind & ACCESS_USER) ? PTE_U : 0);

    return machine->is_reachable && (rights & needed) == needed ? machine->ram + linear : NULL;
}

static inline uint8_t *fake_at_hand(struct vcpu *vcpu, gva_t linear, unsigned size, unsigned kind)
{
    struct fake_machine *machine = vcpu->machine;
    uint8_t rights = linear < FAKE_RAM_SIZE ? machine->rights[linear >> PAGE_SHIFT] : 0;
    uint32_t needed = PTE_P | ((kind & ACCESS_WRITE) ? PTE_W : 0);

    if (!machine->is_at_hand || (linear & PAGE_MASK) + size > PAGE_SIZE || (rights & needed) != needed)
        return NULL;
    machine->n_at_hand++;
    return machine->ram + linear;
}

static inline void fake_log_port(struct fake_machine *machine, struct fake_port_access access)
{
    if (machine->n_ports < FAKE_LOG)
        machine->port[machine->n_ports++] = access;
}

static inline uint32_t fake_port_read(struct vcpu *vcpu, uint16_t port, unsigned size)
{
    struct fake_machine *machine = vcpu->machine;
    uint32_t value = size == 4 ? machine->port_value : machine->port_value & ((1u << 8 * size) - 1);

    fake_log_port(machine, (struct fake_port_access){false, port, (uint8_t)size, value});
    return value;
}

static inline void fake_port_write(struct vcpu *vcpu, uint16_t port, unsigned size, uint32_t value)
{
    fake_log_port(vcpu->machine, (struct fake_port_access){true, port, (uint8_t)size, value});
}

static inline void fake_physical_read(struct vcpu *vcpu, gpa_t gpa, void *buf, unsigned size)
{
    struct fake_machine *machine = vcpu->machine;

    if (gpa + size <= FAKE_RAM_SIZE)
        memcpy(buf, machine->ram + gpa, size);
    else
        memset(buf, 0xff, size);
}

static inline void fake_paging_changed(struct vcpu *vcpu, uint32_t old_cr0, uint32_t old_cr3,
                                       uint32_t old_cr4)
{
    struct fake_machine *machine = vcpu->machine;

    machine->n_paging_changes++;
    machine->old_cr0 = old_cr0;
    machine->old_cr3 = old_cr3;
    machine->old_cr4 = old_cr4;
}

static inline void fake_invlpg(struct vcpu *vcpu, gva_t linear)
{
    struct fake_machine *machine = vcpu->machine;

    machine->n_invlpg++;
    machine->invlpg_address = linear;
}

static inline uint64_t fake_tsc(struct vcpu *vcpu)
{
    return ((struct fake_machine *)vcpu->machine)->tsc;
}

static inline void fake_clock_changed(struct vcpu *vcpu, uint32_t msr)
{
    struct fake_machine *machine = vcpu->machine;

    machine->n_clock_changes++;
    machine->clock_msr = msr;
}

static inline void fake_apic_base_changed(struct vcpu *vcpu)
{
    ((struct fake_machine *)vcpu->machine)->n_apic_base_changes++;
}

__attribute__((format(printf, 3, 4))) static inline void fake_stop(struct vcpu *vcpu, enum stop_reason reason,
                                                                   const char *format, ...)
{
    struct fake_machine *machine = vcpu->machine;
    va_list arguments;

    if (machine->stop != STOP_NONE)
        return;
    machine->stop = reason;
    va_start(arguments, format);
    vsnprintf(machine->stop_text, sizeof machine->stop_text, format, arguments);
    va_end(arguments);
}

static inline void fake_injected(struct vcpu *vcpu, enum injection_kind kind, uint8_t vector, bool has_error,
                                 uint32_t error)
{
    struct fake_machine *machine = vcpu->machine;

    if (machine->n_injections < FAKE_LOG)
        machine->injection[machine->n_injections++] = (struct fake_injection){kind, vector, has_error, error};
}

static inline void fake_unknown_msr(struct vcpu *vcpu, uint32_t index, bool is_write, uint64_t value)
{
    struct fake_machine *machine = vcpu->machine;

    (void)is_write;
    (void)value;
    machine->n_unknown_msrs++;
    machine->unknown_msr = index;
}

/* All of the machine as new: RAM zero, every page with all rights, the CPU as after power-on. */
static inline struct vcpu *fake_machine_reset(struct fake_machine *machine)
{
    static const struct vcpu_ops ops = {
        .memory = fake_memory,
        .reach = fake_reach,
        .at_hand = fake_at_hand,
        .port_read = fake_port_read,
        .port_write = fake_port_write,
        .physical_read = fake_physical_read,
        .paging_changed = fake_paging_changed,
        .invlpg = fake_invlpg,
        .tsc = fake_tsc,
        .clock_changed = fake_clock_changed,
        .apic_base_changed = fake_apic_base_changed,
        .stop = fake_stop,
        .injected = fake_injected,
        .unknown_msr = fake_unknown_msr,
    };

    memset(machine, 0, sizeof *machine);
    memset(machine->rights, FAKE_ALL_RIGHTS, sizeof machine->rights);
    machine->vcpu.ops = &ops;
    machine->vcpu.machine = machine;
    vcpu_reset(&machine->vcpu);
    return &machine->vcpu;
}

static inline void fake_set_rights(struct fake_machine *machine, gva_t linear, uint8_t rights)
{
    machine->rights[linear >> PAGE_SHIFT] = rights;
}

static inline void fake_write(struct fake_machine *machine, gva_t linear, const void *bytes, unsigned n)
{
    memcpy(machine->ram + linear, bytes, n);
}

static inline void fake_write16(struct fake_machine *machine, gva_t linear, uint16_t value)
{
    memcpy(machine->ram + linear, &value, sizeof value);
}

static inline void fake_write32(struct fake_machine *machine, gva_t linear, uint32_t value)
{
    memcpy(machine->ram + linear, &value, sizeof value);
}

static inline uint8_t fake_read8(const struct fake_machine *machine, gva_t linear)
{
    return machine->ram[linear];
}

static inline uint16_t fake_read16(const struct fake_machine *machine, gva_t linear)
{
    uint16_t value;

    memcpy(&value, machine->ram + linear, sizeof value);
    return value;
}

static inline uint32_t fake_read32(const struct fake_machine *machine, gva_t linear)
{
    uint32_t value;

    memcpy(&value, machine->ram + linear, sizeof value);
    return value;
}

/* A segment descriptor (SDM Vol 3A figure 3-8): access is byte 5, flags the high nibble of byte 6 (8: G, 4:
 * D/B). */
static inline void fake_set_descriptor(struct fake_machine *machine, gva_t table, uint16_t selector,
                                       uint32_t base, uint32_t limit, uint8_t access, uint8_t flags)
{
    gva_t address = table + (selector & 0xfff8u);

    fake_write32(machine, address, (limit & 0xffff) | base << 16);
    fake_write32(machine, address + 4,
                 (base >> 16 & 0xff) | (uint32_t)access << 8 | (limit & 0xf0000) | (uint32_t)flags << 20 |
                     (base & 0xff000000u));
}

/* A gate (SDM Vol 3A figures 5-8, 6-2) at its own address; `parameters` for call gates only. */
static inline void fake_set_gate(struct fake_machine *machine, gva_t address, uint16_t selector,
                                 uint32_t offset, uint8_t access, uint8_t parameters)
{
    fake_write32(machine, address, (offset & 0xffff) | (uint32_t)selector << 16);
    fake_write32(machine, address + 4, (offset & 0xffff0000u) | (uint32_t)access << 8 | parameters);
}

#endif
