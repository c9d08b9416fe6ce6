/*
 * The message that interrupt sources send to local APICs: what the I/O APIC puts on the APIC bus, and what a
 * local APIC makes of its interrupt command register (Intel SDM Vol. 3, "Message Addressing and Delivery").
 * Shared by ioapic.h (sender) and lapic.h (receiver, and sender to itself).
 */
#ifndef RING3_APIC_H
#define RING3_APIC_H

#include <stdbool.h>
#include <stdint.h>

/* Bits 10:8 of the ICR, of an LVT entry and of an I/O APIC redirection entry. */
enum apic_delivery_mode {
    APIC_FIXED = 0,
    APIC_LOWEST_PRIORITY = 1,
    APIC_SMI = 2,
    APIC_REMOTE_READ = 3, /* reserved since the Pentium */
    APIC_NMI = 4,
    APIC_INIT = 5,
    APIC_STARTUP = 6, /* ICR only */
    APIC_EXTINT = 7,  /* LVT and I/O APIC only: the vector comes from the 8259 pair */
};

struct apic_message {
    enum apic_delivery_mode mode;
    uint8_t vector;
    uint8_t destination; /* an APIC ID, or a mask to match with the LDR */
    bool logical;        /* destination is a logical one */
    bool level;          /* level-triggered: the receiver broadcasts its EOI */
};

#endif
