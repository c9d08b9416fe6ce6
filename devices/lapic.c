/*
 * The local APIC: registers and reset. The sections named are those of the APIC chapter of the Intel SDM,
 * Vol. 3. Read next: lapic_interrupts.c, where the work is done.
 */
#include "devices/lapic_internal.h"

#include <string.h>

/* "Local APIC Register Address Map" */
#define REG_ID            0x020
#define REG_VERSION       0x030
#define REG_TPR           0x080
#define REG_APR           0x090
#define REG_PPR           0x0a0
#define REG_EOI           0x0b0
#define REG_RRD           0x0c0
#define REG_LDR           0x0d0
#define REG_DFR           0x0e0
#define REG_SVR           0x0f0
#define REG_ISR           0x100 /* eight registers each */
#define REG_TMR           0x180
#define REG_IRR           0x200
#define REG_ESR           0x280
#define REG_ICR_LOW       0x300
#define REG_ICR_HIGH      0x310
#define REG_LVT           0x320 /* six registers, in the order of enum lapic_lvt */
#define REG_TIMER_INITIAL 0x380
#define REG_TIMER_CURRENT 0x390
#define REG_TIMER_DIVIDE  0x3e0
#define REG_STEP          0x10

#define SVR_WRITABLE     0x1ffu
#define DFR_FIXED        0x0fffffffu
#define ICR_LOW_WRITABLE 0x000ccfffu
#define LVT_MODE_SHIFT   8

static const uint32_t lvt_writable[LVT_COUNT] = {
    [LVT_TIMER] = 0x300ff, [LVT_THERMAL] = 0x107ff, [LVT_PERF] = 0x107ff,
    [LVT_LINT0] = 0x1a7ff, [LVT_LINT1] = 0x1a7ff,   [LVT_ERROR] = 0x100ff,
};

static void write_lvt(struct lapic *lapic, enum lapic_lvt index, uint32_t value)
{
    uint32_t kept = lapic->lvt[index] & LVT_REMOTE_IRR;

    value &= lvt_writable[index];
    if (!lapic_is_software_enabled(lapic))
        value |= LVT_MASKED; /* "Local APIC State After It Has Been Software Disabled" */
    if (!(value & LVT_LEVEL))
        kept = 0;
    lapic->lvt[index] = value | kept;
    if (index == LVT_LINT0 || index == LVT_LINT1)
        lapic_service_level_lint(lapic, index - LVT_LINT0);
}

static void write_svr(struct lapic *lapic, uint32_t value)
{
    lapic->svr = value & SVR_WRITABLE;
    if (!lapic_is_software_enabled(lapic))
        for (unsigned i = 0; i < LVT_COUNT; i++)
            lapic->lvt[i] |= LVT_MASKED;
}

/* Which entry of the LVT, or which 32 bits of a 256-bit register, lives at `reg`; NULL: neither. */
static uint32_t *find_lvt(struct lapic *lapic, uint32_t reg)
{
    unsigned index = (reg - REG_LVT) / REG_STEP;
    return reg >= REG_LVT && index < LVT_COUNT ? &lapic->lvt[index] : NULL;
}

static uint32_t *find_vector_bits(struct lapic *lapic, uint32_t reg)
{
    unsigned index = reg / REG_STEP % 8;

    switch (reg & ~0x7fu) {
    case REG_ISR:
        return &lapic->isr[index];
    case REG_TMR:
        return &lapic->tmr[index];
    case REG_IRR:
        return &lapic->irr[index];
    }
    return NULL;
}

static uint32_t read_numbered(struct lapic *lapic, uint32_t reg)
{
    const uint32_t *bits = find_vector_bits(lapic, reg);
    const uint32_t *lvt = find_lvt(lapic, reg);

    if (bits != NULL)
        return *bits;
    if (lvt != NULL)
        return *lvt;
    lapic_report_error(lapic, ESR_ILLEGAL_REGISTER);
    return 0;
}

static uint32_t read_register(struct lapic *lapic, uint32_t reg)
{
    switch (reg) {
    case REG_ID:
        return (uint32_t)lapic->id << 24;
    case REG_VERSION:
        return (LVT_COUNT - 1) << 16 | LAPIC_VERSION;
    case REG_TPR:
        return lapic->tpr;
    case REG_PPR:
        return lapic_processor_priority(lapic);
    case REG_LDR:
        return lapic->ldr;
    case REG_DFR:
        return lapic->dfr;
    case REG_SVR:
        return lapic->svr;
    case REG_ESR:
        return lapic->esr;
    case REG_ICR_LOW:
        return lapic->icr_low;
    case REG_ICR_HIGH:
        return lapic->icr_high;
    case REG_TIMER_INITIAL:
        return lapic->timer_initial;
    case REG_TIMER_CURRENT:
        return lapic_timer_current_count(lapic);
    case REG_TIMER_DIVIDE:
        return lapic->timer_divide;
    case REG_APR: /* of the bus-arbitrated APICs before the Pentium 4 */
    case REG_RRD:
    case REG_EOI: /* write-only */
        return 0;
    default:
        return read_numbered(lapic, reg);
    }
}

static void write_register(struct lapic *lapic, uint32_t reg, uint32_t value)
{
    const uint32_t *lvt = find_lvt(lapic, reg);

    if (find_vector_bits(lapic, reg) != NULL)
        return; /* read-only */
    if (lvt != NULL) {
        write_lvt(lapic, (enum lapic_lvt)(lvt - lapic->lvt), value);
        return;
    }
    switch (reg) {
    case REG_ID:
        lapic->id = value >> 24;
        break;
    case REG_TPR:
        lapic->tpr = (uint8_t)value;
        break;
    case REG_EOI:
        lapic_write_eoi(lapic);
        break;
    case REG_LDR:
        lapic->ldr = value & 0xff000000;
        break;
    case REG_DFR:
        lapic->dfr = value | DFR_FIXED;
        break;
    case REG_SVR:
        write_svr(lapic, value);
        break;
    case REG_ESR: /* any write latches what was gathered, for the next read */
        lapic->esr = lapic->esr_next;
        lapic->esr_next = 0;
        break;
    case REG_ICR_LOW:
        lapic->icr_low = value & ICR_LOW_WRITABLE; /* delivery status: always idle */
        lapic_send_ipi(lapic);
        break;
    case REG_ICR_HIGH:
        lapic->icr_high = value & 0xff000000;
        break;
    case REG_TIMER_INITIAL:
        lapic_timer_write_initial(lapic, value);
        break;
    case REG_TIMER_DIVIDE:
        lapic_timer_write_divide(lapic, value);
        break;
    case REG_VERSION: /* read-only */
    case REG_APR:
    case REG_PPR:
    case REG_RRD:
    case REG_TIMER_CURRENT:
        break;
    default:
        lapic_report_error(lapic, ESR_ILLEGAL_REGISTER);
    }
}

/* What an expiry of the timer changes. The other registers are read without asking for the time, which costs
 * more than the rest of the access: kernels read their ID here all the time. */
static bool register_follows_timer(uint32_t offset)
{
    return offset == REG_TIMER_CURRENT || (offset >= REG_IRR && offset < REG_IRR + 0x80);
}

/* Kept out of lapic_read, for the others' sake. */
__attribute__((noinline)) static uint32_t read_following_timer(struct lapic *lapic, uint32_t offset)
{
    lapic_timer_catch_up(lapic);
    lapic_timer_schedule(lapic);
    return read_register(lapic, offset);
}

/* "The Local APIC Block Diagram": registers are to be accessed by aligned 32-bit loads and stores; what other
 * accesses do is undefined. Here narrower loads see their part of the register, and other stores are dropped.
 */
static uint32_t lapic_read(void *device, uint32_t offset, unsigned size)
{
    struct lapic *lapic = device;
    unsigned byte = offset & 0xf;

    if (!lapic_is_connected(lapic))
        return UINT32_MAX;
    if (byte + size > 4)
        return 0;
    offset &= ~0xfu;
    return (register_follows_timer(offset) ? read_following_timer(lapic, offset)
                                           : read_register(lapic, offset)) >>
           byte * 8;
}

static void lapic_write(void *device, uint32_t offset, unsigned size, uint32_t value)
{
    struct lapic *lapic = device;

    if (!lapic_is_connected(lapic) || (offset & 0xf) || size != 4)
        return;
    lapic_timer_catch_up(lapic);
    write_register(lapic, offset, value);
    lapic_timer_schedule(lapic);
}

const struct bus_device_ops lapic_ops = {.read = lapic_read, .write = lapic_write, .max_size = 4};

/* ---- power-up, reset, IA32_APIC_BASE ----------------------------------------------------------------- */

static void reset_registers(struct lapic *lapic)
{
    clock_disarm(lapic->clock, &lapic->timer);
    lapic->id = 0;
    lapic->tpr = 0;
    lapic->ldr = 0;
    lapic->dfr = UINT32_MAX;
    lapic->svr = 0xff;
    memset(lapic->irr, 0, sizeof(lapic->irr));
    lapic->n_requested = 0;
    memset(lapic->isr, 0, sizeof(lapic->isr));
    memset(lapic->tmr, 0, sizeof(lapic->tmr));
    lapic->esr = lapic->esr_next = 0;
    lapic->icr_low = lapic->icr_high = 0;
    for (unsigned i = 0; i < LVT_COUNT; i++)
        lapic->lvt[i] = LVT_MASKED;
    lapic->extint = false;
    lapic->timer_initial = 0;
    lapic->timer_divide = 0;
    lapic->timer_running = false;
    /* lint_level is the wires: what drives them is reset on its own. */
}

void lapic_reset(struct lapic *lapic)
{
    reset_registers(lapic);
    lapic->base = LAPIC_BASE | LAPIC_BASE_BSP | LAPIC_BASE_ENABLE;
}

void lapic_enter_virtual_wire_mode(struct lapic *lapic)
{
    lapic->svr |= SVR_ENABLE;
    write_lvt(lapic, LVT_LINT0, APIC_EXTINT << LVT_MODE_SHIFT);
    write_lvt(lapic, LVT_LINT1, APIC_NMI << LVT_MODE_SHIFT);
}

enum lapic_base_outcome lapic_write_base(struct lapic *lapic, uint64_t value)
{
    const uint64_t address_bits = 0xffffff000; /* MAXPHYADDR 36 */

    if (value & ~(address_bits | LAPIC_BASE_BSP | LAPIC_BASE_ENABLE))
        return LAPIC_BASE_FAULT; /* the x2APIC bit included: CPUID does not offer it */
    if ((value & address_bits) != LAPIC_BASE)
        return LAPIC_BASE_RELOCATION;
    if (lapic_is_connected(lapic) && !(value & LAPIC_BASE_ENABLE))
        reset_registers(lapic); /* "Enabling or Disabling the Local APIC": its state is lost */
    lapic->base = LAPIC_BASE | LAPIC_BASE_BSP | (value & LAPIC_BASE_ENABLE); /* the BSP bit is hard-wired */
    return LAPIC_BASE_WRITTEN;
}

void lapic_init(struct lapic *lapic, struct clock *clock, const struct lapic_host *host)
{
    memset(lapic, 0, sizeof(*lapic));
    lapic->clock = clock;
    lapic->host = *host;
    lapic->timer = (struct timer){.fire = lapic_timer_fire, .ctx = lapic};
    lapic_reset(lapic);
}
