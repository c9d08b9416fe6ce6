/*
 * Private to the three files of the local APIC: lapic.c (registers, reset), lapic_interrupts.c (acceptance,
 * priority, EOI, IPIs, pins), lapic_timer.c.
 */
#ifndef RING3_LAPIC_INTERNAL_H
#define RING3_LAPIC_INTERNAL_H

#include "devices/lapic.h"

#define SVR_ENABLE (1u << 8)

/* "Error Status Register" */
#define ESR_SEND_ILLEGAL_VECTOR    (1u << 5)
#define ESR_RECEIVE_ILLEGAL_VECTOR (1u << 6)
#define ESR_ILLEGAL_REGISTER       (1u << 7)

#define ICR_LOGICAL         (1u << 11)
#define ICR_ASSERT          (1u << 14)
#define ICR_SHORTHAND_SHIFT 18

#define LVT_VECTOR     0xffu
#define LVT_REMOTE_IRR (1u << 14)
#define LVT_LEVEL      (1u << 15)
#define LVT_MASKED     (1u << 16)
#define LVT_PERIODIC   (1u << 17)

/* Bits 10:8 of the ICR and of LVT entries. */
static inline enum apic_delivery_mode lapic_mode_of(uint32_t icr_or_lvt)
{
    return (enum apic_delivery_mode)(icr_or_lvt >> 8 & 7);
}

/* Is the APIC there at all (IA32_APIC_BASE)? And then: has software enabled it (SVR)? */
static inline bool lapic_is_connected(const struct lapic *lapic)
{
    return lapic->base & LAPIC_BASE_ENABLE;
}

static inline bool lapic_is_software_enabled(const struct lapic *lapic)
{
    return lapic->svr & SVR_ENABLE;
}

/* lapic_interrupts.c */
static inline bool lapic_vector_is_set(const uint32_t bits[8], uint8_t vector)
{
    return bits[vector / 32] >> vector % 32 & 1;
}
void lapic_report_error(struct lapic *lapic, uint32_t error);
void lapic_accept_vector(struct lapic *lapic, uint8_t vector, bool level);
void lapic_send_ipi(struct lapic *lapic); /* the one in the ICR */
uint8_t lapic_processor_priority(const struct lapic *lapic);
void lapic_write_eoi(struct lapic *lapic);
void lapic_service_level_lint(struct lapic *lapic, unsigned pin);

/* lapic_timer.c: catch up before, and schedule after, everything that looks at or changes the timer. */
void lapic_timer_catch_up(struct lapic *lapic);
void lapic_timer_schedule(struct lapic *lapic);
uint32_t lapic_timer_current_count(const struct lapic *lapic);
void lapic_timer_write_initial(struct lapic *lapic, uint32_t value);
void lapic_timer_write_divide(struct lapic *lapic, uint32_t value);
void lapic_timer_fire(void *lapic); /* for struct timer */

#endif
