/*
 * The local APIC: how an interrupt goes through. lapic_deliver() or a local source → lapic_accept_vector()
 * sets IRR → lapic_intr() holds when the highest IRR bit beats the processor priority → lapic_acknowledge()
 * moves it to ISR → lapic_write_eoi(). The sections named are those of the APIC chapter of the Intel SDM,
 * Vol. 3. Read next: lapic_timer.c.
 */
#include "devices/lapic_internal.h"

enum icr_shorthand { TO_DESTINATION, TO_SELF, TO_ALL, TO_OTHERS };

#define DFR_FLAT      0xfu
#define LOWEST_VECTOR 16 /* 0-15 are illegal in messages and in the LVT */
#define BROADCAST     0xffu
#define NO_VECTOR     (-1)

/* ---- 256-bit registers ------------------------------------------------------------------------------- */

static void bit_assign(uint32_t bits[8], uint8_t vector, bool value)
{
    uint32_t mask = 1u << vector % 32;
    bits[vector / 32] = value ? bits[vector / 32] | mask : bits[vector / 32] & ~mask;
}

static int highest_bit(const uint32_t bits[8])
{
    for (int word = 7; word >= 0; word--)
        if (bits[word] != 0)
            return word * 32 + 31 - __builtin_clz(bits[word]);
    return NO_VECTOR;
}

/* ---- accepting interrupts ---------------------------------------------------------------------------- */

static void request(struct lapic *lapic, uint8_t vector, bool level)
{
    if (!lapic_vector_is_set(lapic->irr, vector))
        lapic->n_requested++;
    bit_assign(lapic->irr, vector, true);
    bit_assign(lapic->tmr, vector, level);
}

/* An error interrupt is raised once; writing the ESR rearms it ("Error Handling"). */
void lapic_report_error(struct lapic *lapic, uint32_t error)
{
    bool is_armed = lapic->esr_next == 0;
    uint32_t lvt = lapic->lvt[LVT_ERROR];
    uint8_t vector = lvt & LVT_VECTOR;

    lapic->esr_next |= error;
    if (!is_armed || (lvt & LVT_MASKED))
        return;
    if (vector < LOWEST_VECTOR)
        lapic->esr_next |= ESR_RECEIVE_ILLEGAL_VECTOR;
    else
        request(lapic, vector, false);
}

void lapic_accept_vector(struct lapic *lapic, uint8_t vector, bool level)
{
    if (vector < LOWEST_VECTOR)
        lapic_report_error(lapic, ESR_RECEIVE_ILLEGAL_VECTOR);
    else
        request(lapic, vector, level);
}

/* What a message or a local source does on arrival. STARTUP finds a running CPU and is ignored; an SMI would
 * run firmware's handler, of which there is none; the reserved modes do nothing. */
static bool accept(struct lapic *lapic, enum apic_delivery_mode mode, uint8_t vector, bool level)
{
    switch (mode) {
    case APIC_FIXED:
    case APIC_LOWEST_PRIORITY:
        if (!lapic_is_software_enabled(lapic))
            return false; /* "Local APIC State After It Has Been Software Disabled" */
        lapic_accept_vector(lapic, vector, level);
        return true;
    case APIC_NMI:
        lapic->host.nmi(lapic->host.ctx);
        return true;
    case APIC_INIT:
        lapic->host.init(lapic->host.ctx);
        return true;
    case APIC_EXTINT:
        lapic->extint = true;
        return true;
    case APIC_SMI:
    case APIC_STARTUP:
    case APIC_REMOTE_READ:
        break;
    }
    return true;
}

/* "Determining IPI Destination" */
static bool is_addressed(const struct lapic *lapic, uint8_t destination, bool logical)
{
    uint8_t logical_id = lapic->ldr >> 24;

    if (destination == BROADCAST)
        return true;
    if (!logical)
        return destination == lapic->id;
    if (lapic->dfr >> 28 == DFR_FLAT)
        return destination & logical_id;
    return destination >> 4 == logical_id >> 4 && (destination & logical_id & 0xf);
}

bool lapic_deliver(struct lapic *lapic, const struct apic_message *message)
{
    if (!lapic_is_connected(lapic) || !is_addressed(lapic, message->destination, message->logical))
        return false;
    return accept(lapic, message->mode, message->vector, message->level);
}

/* "Issuing Interprocessor Interrupts". With one CPU only messages to oneself arrive anywhere; to send
 * anything but a fixed interrupt that way by a shorthand is "invalid" in the SDM's tables, and done here as
 * if by destination. */
void lapic_send_ipi(struct lapic *lapic)
{
    uint32_t icr = lapic->icr_low;
    enum apic_delivery_mode mode = lapic_mode_of(icr);
    uint8_t vector = (uint8_t)icr;
    bool is_for_us = false;

    if ((mode == APIC_FIXED || mode == APIC_LOWEST_PRIORITY) && vector < LOWEST_VECTOR) {
        lapic_report_error(lapic, ESR_SEND_ILLEGAL_VECTOR);
        return;
    }
    if (mode == APIC_EXTINT || (mode == APIC_INIT && !(icr & ICR_ASSERT)))
        return; /* reserved; and the INIT level de-assert, which only synchronises arbitration */

    switch ((enum icr_shorthand)(icr >> ICR_SHORTHAND_SHIFT & 3)) {
    case TO_DESTINATION:
        is_for_us = is_addressed(lapic, lapic->icr_high >> 24, icr & ICR_LOGICAL);
        break;
    case TO_SELF:
    case TO_ALL:
        is_for_us = true;
        break;
    case TO_OTHERS:
        break;
    }
    if (is_for_us)
        (void)accept(lapic, mode, vector, false); /* IPIs are edges whatever the trigger bit says */
}

/* ---- to the core ------------------------------------------------------------------------------------- */

/* "Processor Priority Register" */
uint8_t lapic_processor_priority(const struct lapic *lapic)
{
    int in_service = highest_bit(lapic->isr);
    uint8_t isrv = in_service == NO_VECTOR ? 0 : (uint8_t)in_service;

    return lapic->tpr >> 4 >= isrv >> 4 ? lapic->tpr : isrv & 0xf0;
}

static int deliverable_vector(const struct lapic *lapic)
{
    int requested;

    if (lapic->n_requested == 0)
        return NO_VECTOR;
    requested = highest_bit(lapic->irr);
    if (requested >> 4 <= lapic_processor_priority(lapic) >> 4)
        return NO_VECTOR;
    return requested;
}

static bool extint_is_asserted(const struct lapic *lapic)
{
    if (!lapic_is_connected(lapic))
        return lapic->lint_level[0]; /* LINT0 is the core's INTR */
    if (lapic->extint)
        return true;
    for (unsigned pin = 0; pin < 2; pin++) {
        uint32_t lvt = lapic->lvt[LVT_LINT0 + pin];
        if (lapic->lint_level[pin] && !(lvt & LVT_MASKED) && lapic_mode_of(lvt) == APIC_EXTINT)
            return true;
    }
    return false;
}

bool lapic_intr(const struct lapic *lapic)
{
    if (lapic->n_requested == 0 && !lapic->extint && !lapic->lint_level[0] && !lapic->lint_level[1])
        return false; /* asked after each access to any device */
    return extint_is_asserted(lapic) || (lapic_is_connected(lapic) && deliverable_vector(lapic) != NO_VECTOR);
}

/* ---- acknowledge and EOI ----------------------------------------------------------------------------- */

uint8_t lapic_acknowledge(struct lapic *lapic)
{
    if (!lapic_is_connected(lapic) || extint_is_asserted(lapic)) {
        lapic->extint = false;
        return lapic->host.extint_acknowledge(lapic->host.ctx);
    }
    int vector = deliverable_vector(lapic);
    if (vector == NO_VECTOR)
        return (uint8_t)lapic->svr; /* "Spurious Interrupt": neither IRR nor ISR changes */

    lapic_timer_catch_up(lapic); /* expiries up to now belong to the IRR bit as it was */
    bit_assign(lapic->irr, (uint8_t)vector, false);
    lapic->n_requested--;
    bit_assign(lapic->isr, (uint8_t)vector, true);
    lapic_timer_schedule(lapic);
    return (uint8_t)vector;
}

/* A level-triggered fixed interrupt on a LINT pin, like an I/O APIC input: asks until EOI (remote IRR). */
void lapic_service_level_lint(struct lapic *lapic, unsigned pin)
{
    uint32_t *lvt = &lapic->lvt[LVT_LINT0 + pin];

    if (!lapic->lint_level[pin] || (*lvt & (LVT_MASKED | LVT_REMOTE_IRR)) || !(*lvt & LVT_LEVEL) ||
        lapic_mode_of(*lvt) != APIC_FIXED)
        return;
    *lvt |= LVT_REMOTE_IRR;
    lapic_accept_vector(lapic, *lvt & LVT_VECTOR, true);
}

void lapic_write_eoi(struct lapic *lapic)
{
    int vector = highest_bit(lapic->isr);

    if (vector == NO_VECTOR)
        return;
    bit_assign(lapic->isr, (uint8_t)vector, false);
    if (!lapic_vector_is_set(lapic->tmr, (uint8_t)vector))
        return;
    for (unsigned pin = 0; pin < 2; pin++) {
        uint32_t *lvt = &lapic->lvt[LVT_LINT0 + pin];
        if ((*lvt & LVT_VECTOR) == (uint8_t)vector) {
            *lvt &= ~LVT_REMOTE_IRR;
            lapic_service_level_lint(lapic, pin);
        }
    }
    lapic->host.eoi(lapic->host.ctx, (uint8_t)vector);
}

/* ---- the LINT pins ----------------------------------------------------------------------------------- */

void lapic_set_lint(void *ctx, unsigned pin, bool level)
{
    struct lapic *lapic = ctx;

    if (pin > 1)
        return;
    bool is_rising = level && !lapic->lint_level[pin];
    lapic->lint_level[pin] = level;

    if (!lapic_is_connected(lapic)) {
        if (pin == 1 && is_rising)
            lapic->host.nmi(lapic->host.ctx); /* LINT1 is the core's NMI */
        return;
    }
    uint32_t lvt = lapic->lvt[LVT_LINT0 + pin];
    enum apic_delivery_mode mode = lapic_mode_of(lvt);
    if (mode == APIC_EXTINT)
        return; /* a level, looked at by extint_is_asserted() */
    if (mode == APIC_FIXED && (lvt & LVT_LEVEL))
        lapic_service_level_lint(lapic, pin);
    else if (is_rising && !(lvt & LVT_MASKED) && mode != APIC_LOWEST_PRIORITY) /* reserved in the LVT */
        (void)accept(lapic, mode, lvt & LVT_VECTOR, false);
}
