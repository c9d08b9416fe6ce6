/*
 * What firmware would have left in low memory for kernels to find: the MP tables (MultiProcessor
 * Specification 1.4) of a PC with one CPU, one ISA bus and one I/O APIC, and the BIOS data area. Built as
 * bytes; the board writes them into guest memory.
 */
#ifndef RING3_MPTABLE_H
#define RING3_MPTABLE_H

#include <stddef.h>
#include <stdint.h>

#define MPTABLE_GPA      0x000f5000u /* the floating pointer, on a 16-byte boundary; the table follows it */
#define MPTABLE_MAX_SIZE 512u

#define BDA_GPA         0x00000400u
#define BDA_SIZE        256u
#define EBDA_GPA        0x0009fc00u /* the last KiB of conventional memory */
#define EBDA_SIZE       1024u
#define BASE_MEMORY_KIB 639u /* conventional memory below the EBDA */

struct mptable_config {
    uint8_t cpu_apic_id, cpu_apic_version;
    uint32_t cpu_signature; /* CPUID.1:EAX, bits 11:0 are used */
    uint32_t cpu_features;  /* CPUID.1:EDX */
    uint8_t ioapic_id;      /* must differ from cpu_apic_id: they share the APIC bus */
    uint8_t ioapic_version;
};

/* The floating pointer structure and the configuration table, to be placed at MPTABLE_GPA. Returns the
 * length. */
size_t mptable_build(const struct mptable_config *config, uint8_t bytes[MPTABLE_MAX_SIZE]);

/* The BIOS data area, to be placed at BDA_GPA, and the first byte (its size in KiB) of the EBDA, at EBDA_GPA.
 */
void mptable_build_bda(uint8_t bytes[BDA_SIZE]);
uint8_t mptable_ebda_size_kib(void);

#endif
