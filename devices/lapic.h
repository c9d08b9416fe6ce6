/*
 * The local APIC of the one CPU, in xAPIC mode: Intel SDM Vol. 3, chapter "Advanced Programmable Interrupt
 * Controller (APIC)". Memory-mapped at LAPIC_BASE; registers are 32 bits wide at 16-byte steps.
 *
 * The timer counts the bus clock, LAPIC_BUS_HZ, divided by the divide configuration register. 1 GHz is QEMU's
 * choice too; it makes one undivided tick one nanosecond of the machine's clock.
 *
 * Read next: apic.h (what comes in), ioapic.h (who sends it).
 */
#ifndef RING3_LAPIC_H
#define RING3_LAPIC_H

#include "devices/apic.h"
#include "devices/devices.h"

#define LAPIC_BASE    0xfee00000u
#define LAPIC_LAST    0xfee00fffu
#define LAPIC_BUS_HZ  1000000000u
#define LAPIC_VERSION 0x14u /* an integrated xAPIC */

/* IA32_APIC_BASE, MSR 0x1b */
#define LAPIC_BASE_BSP    (1u << 8)
#define LAPIC_BASE_ENABLE (1u << 11)

enum lapic_lvt { LVT_TIMER, LVT_THERMAL, LVT_PERF, LVT_LINT0, LVT_LINT1, LVT_ERROR, LVT_COUNT };

/* Calls to what the APIC is wired to. None is NULL. */
struct lapic_host {
    void *ctx;
    void (*eoi)(void *ctx, uint8_t vector);   /* EOI of a level-triggered interrupt, to the I/O APIC */
    uint8_t (*extint_acknowledge)(void *ctx); /* the INTA cycle: the 8259 pair's vector */
    void (*nmi)(void *ctx);                   /* one NMI for the CPU */
    void (*init)(void *ctx);                  /* INIT for the CPU */
};

struct lapic {
    uint64_t base; /* IA32_APIC_BASE as the guest reads it */
    uint8_t id, tpr;
    uint32_t ldr, dfr, svr;
    uint32_t irr[8], isr[8], tmr[8]; /* 256 bits, one a vector */
    unsigned n_requested;            /* bits in IRR */
    uint32_t esr, esr_next;          /* as latched for reading; gathered since */
    uint32_t icr_low, icr_high;
    uint32_t lvt[LVT_COUNT];
    bool lint_level[2]; /* the pins */
    bool extint;        /* an ExtINT message waits for its INTA cycle */

    uint32_t timer_initial;  /* initial count register; 0: stopped */
    uint32_t timer_divide;   /* divide configuration register */
    uint64_t timer_deadline; /* ns: when the count reaches 0; meaningful while timer_running */
    bool timer_running;

    struct timer timer;
    struct clock *clock;
    struct lapic_host host;
};

void lapic_init(struct lapic *lapic, struct clock *clock, const struct lapic_host *host);
void lapic_reset(struct lapic *lapic); /* the RESET line: SDM "Local APIC State After Power-Up or Reset" */

/* What firmware leaves behind on a PC (MP specification, "Virtual Wire Mode"): the APIC enabled, the 8259
 * pair on LINT0 as ExtINT, NMI on LINT1. The board calls it after reset, because no firmware runs here. */
void lapic_enter_virtual_wire_mode(struct lapic *lapic);

extern const struct bus_device_ops lapic_ops; /* LAPIC_BASE..LAPIC_LAST */

/* The local interrupt pins, for struct irq_line: ctx is the lapic, pin 0 is LINT0 (INTR), 1 is LINT1 (NMI).
 */
void lapic_set_lint(void *lapic, unsigned pin, bool level);

/* A message from the APIC bus. False: no local APIC accepted it. */
bool lapic_deliver(struct lapic *lapic, const struct apic_message *message);

/* The INTR line to the core, and the core's INTA cycle, which yields the vector. If the interrupt fell away
 * in between, the spurious vector. */
bool lapic_intr(const struct lapic *lapic);
uint8_t lapic_acknowledge(struct lapic *lapic);

/* WRMSR to IA32_APIC_BASE. Clearing the enable bit disconnects the APIC: its page is unclaimed, LINT0 and
 * LINT1 become INTR and NMI of the core. */
enum lapic_base_outcome {
    LAPIC_BASE_WRITTEN,
    LAPIC_BASE_FAULT,      /* reserved bits: #GP */
    LAPIC_BASE_RELOCATION, /* a legal move away from LAPIC_BASE, which this machine does not support */
};
enum lapic_base_outcome lapic_write_base(struct lapic *lapic, uint64_t value);

#endif
