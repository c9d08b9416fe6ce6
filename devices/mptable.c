/*
 * The MP tables, entry by entry as in chapter 4 of the MultiProcessor Specification 1.4, and the words of the
 * BIOS data area that protected-mode kernels look at. Field names in the comments are the specification's.
 *
 * Read next: board.c (board_install_firmware).
 */
#include "devices/mptable.h"

#include "devices/ioapic.h"
#include "devices/lapic.h"
#include "devices/layout.h"

#include <string.h>

#define FLOATING_POINTER_SIZE 16u
#define HEADER_SIZE           44u
#define SPEC_REVISION         4 /* 1.4 */

#define ISA_BUS  0
#define ISA_IRQS 16

enum entry_type { ENTRY_PROCESSOR, ENTRY_BUS, ENTRY_IOAPIC, ENTRY_IO_INTERRUPT, ENTRY_LOCAL_INTERRUPT };
enum interrupt_type { INT_VECTORED, INT_NMI, INT_SMI, INT_EXTINT };

#define CPU_ENABLED       0x01
#define CPU_BOOTSTRAP     0x02
#define IOAPIC_ENABLED    0x01
#define ALL_LOCAL_APICS   0xff
#define CONFORMS_TO_BUS   0 /* polarity and trigger: ISA is edge-triggered, active high */
#define NUMBER_OF_ENTRIES (1 + 1 + 1 + (ISA_IRQS - 1) + 2)

_Static_assert(FLOATING_POINTER_SIZE + HEADER_SIZE + 20 + 8 * (NUMBER_OF_ENTRIES - 1) <= MPTABLE_MAX_SIZE,
               "the tables fit");
_Static_assert(MPTABLE_GPA % 16 == 0, "the floating pointer is searched for on paragraph boundaries");

/* 4.1 */
static void put_floating_pointer(struct layout *out)
{
    uint8_t *start = out->bytes + out->size;

    put_text(out, "_MP_");
    put32(out, MPTABLE_GPA + FLOATING_POINTER_SIZE); /* PHYSICAL ADDRESS POINTER */
    put8(out, FLOATING_POINTER_SIZE / 16);           /* LENGTH */
    put8(out, SPEC_REVISION);
    put8(out, 0);       /* CHECKSUM */
    put_zeroes(out, 5); /* feature bytes: there is a configuration table; virtual wire mode, so no IMCR */
    start[10] = checksum(start, FLOATING_POINTER_SIZE);
}

/* 4.2. BASE TABLE LENGTH and CHECKSUM are filled in when the entries are there. */
static void put_header(struct layout *out)
{
    put_text(out, "PCMP");
    put16(out, 0); /* BASE TABLE LENGTH */
    put8(out, SPEC_REVISION);
    put8(out, 0); /* CHECKSUM */
    put_text(out, "RING3   ");
    put_text(out, "ring3 PC    ");
    put_zeroes(out, 6); /* no OEM TABLE */
    put16(out, NUMBER_OF_ENTRIES);
    put32(out, LAPIC_BASE);
    put_zeroes(out, 4); /* no EXTENDED TABLE */
}

/* 4.3.1 */
static void put_processor(struct layout *out, const struct mptable_config *config)
{
    put8(out, ENTRY_PROCESSOR);
    put8(out, config->cpu_apic_id);
    put8(out, config->cpu_apic_version);
    put8(out, CPU_ENABLED | CPU_BOOTSTRAP);
    put32(out, config->cpu_signature & 0xfff);
    put32(out, config->cpu_features);
    put_zeroes(out, 8);
}

/* 4.3.2 */
static void put_bus(struct layout *out)
{
    put8(out, ENTRY_BUS);
    put8(out, ISA_BUS);
    put_text(out, "ISA   ");
}

/* 4.3.3 */
static void put_ioapic(struct layout *out, const struct mptable_config *config)
{
    put8(out, ENTRY_IOAPIC);
    put8(out, config->ioapic_id);
    put8(out, config->ioapic_version);
    put8(out, IOAPIC_ENABLED);
    put32(out, IOAPIC_BASE);
}

/* 4.3.4 and 4.3.5 have the same shape. */
static void put_interrupt(struct layout *out, enum entry_type entry, enum interrupt_type type, uint8_t irq,
                          uint8_t apic_id, uint8_t pin)
{
    put8(out, (uint8_t)entry);
    put8(out, (uint8_t)type);
    put16(out, CONFORMS_TO_BUS);
    put8(out, ISA_BUS);
    put8(out, irq);
    put8(out, apic_id);
    put8(out, pin);
}

size_t mptable_build(const struct mptable_config *config, uint8_t bytes[MPTABLE_MAX_SIZE])
{
    struct layout out = {.bytes = bytes, .capacity = MPTABLE_MAX_SIZE};
    put_floating_pointer(&out);

    struct layout table = {.bytes = bytes + out.size, .capacity = MPTABLE_MAX_SIZE - out.size};
    put_header(&table);
    put_processor(&table, config);
    put_bus(&table);
    put_ioapic(&table, config);
    for (uint8_t irq = 0; irq < ISA_IRQS; irq++) {
        if (irq == 2)
            continue; /* the cascade of the 8259 pair; its input serves the timer, IRQ 0 */
        put_interrupt(&table, ENTRY_IO_INTERRUPT, INT_VECTORED, irq, config->ioapic_id, irq == 0 ? 2 : irq);
    }
    put_interrupt(&table, ENTRY_LOCAL_INTERRUPT, INT_EXTINT, 0, config->cpu_apic_id, 0);
    put_interrupt(&table, ENTRY_LOCAL_INTERRUPT, INT_NMI, 0, ALL_LOCAL_APICS, 1);

    table.bytes[4] = (uint8_t)table.size; /* BASE TABLE LENGTH */
    table.bytes[5] = (uint8_t)(table.size >> 8);
    table.bytes[7] = checksum(table.bytes, table.size);
    return out.size + table.size;
}

/* IBM PS/2 BIOS Interface Technical Reference, "BIOS Data Area"; offsets from BDA_GPA. */
static const struct bda_word {
    uint8_t offset;
    uint16_t value;
} bda_words[] = {
    {0x00, 0x03f8},          /* COM1 */
    {0x0e, EBDA_GPA >> 4},   /* segment of the extended BIOS data area */
    {0x10, 0x0222},          /* equipment: FPU, 80x25 colour display, one serial port */
    {0x13, BASE_MEMORY_KIB}, /* memory size */
    {0x1a, 0x001e},          /* keyboard buffer: head, */
    {0x1c, 0x001e},          /* tail (empty), */
    {0x80, 0x001e},          /* start, */
    {0x82, 0x003e},          /* end */
    {0x49, 0x0003},          /* video mode */
    {0x4a, 80},              /* columns */
    {0x4c, 0x1000},          /* bytes of a text page */
    {0x60, 0x0d0e},          /* cursor: first and last scan line */
    {0x63, 0x03d4},          /* CRT controller */
    {0x84, 24},              /* rows - 1 */
    {0x85, 16},              /* character height */
};

_Static_assert(EBDA_GPA == BASE_MEMORY_KIB * 1024, "the EBDA is what conventional memory gave up");

void mptable_build_bda(uint8_t bytes[BDA_SIZE])
{
    memset(bytes, 0, BDA_SIZE);
    for (size_t i = 0; i < sizeof(bda_words) / sizeof(bda_words[0]); i++) {
        bytes[bda_words[i].offset] = (uint8_t)bda_words[i].value;
        bytes[bda_words[i].offset + 1] = (uint8_t)(bda_words[i].value >> 8);
    }
}

uint8_t mptable_ebda_size_kib(void)
{
    return EBDA_SIZE / 1024;
}
