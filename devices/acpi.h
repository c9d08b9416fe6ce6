/*
 * The ACPI tables of the board (ACPI specification 6.4, chapter 5; in the forms of ACPI 3.0, which 32-bit
 * kernels know): RSDP, RSDT, FADT, FACS, MADT, DSDT. Built as bytes with pointers that are offsets, since
 * they end up at a fixed place where no firmware runs, and where firmware likes it if one does: acpi_place()
 * for the first, acpi_loader_script() for the second.
 *
 * Read next: acpi.c, aml.h.
 */
#ifndef RING3_ACPI_H
#define RING3_ACPI_H

#include <stddef.h>
#include <stdint.h>

#define ACPI_RSDP_GPA   0x000f6000u /* where no firmware runs */
#define ACPI_TABLES_GPA 0x000f6040u
#define ACPI_MAX_SIZE   6144u
#define ACPI_RSDP_SIZE  20u
#define ACPI_ALIGN      64u /* of the FACS, which is first */

/* How firmware finds the tables: files of the firmware configuration device, and the script that places them.
 */
#define ACPI_RSDP_FILE   "etc/acpi/rsdp"
#define ACPI_TABLES_FILE "etc/acpi/tables"
#define ACPI_SCRIPT_FILE "etc/table-loader"

#define ACPI_MAX_FIXUPS      8
#define ACPI_SCRIPT_ENTRY    ((size_t)128)
#define ACPI_MAX_SCRIPT_SIZE (ACPI_SCRIPT_ENTRY * (2 * ACPI_MAX_FIXUPS + 4))

struct acpi_config {
    uint16_t pm_base; /* of the PIIX4's power registers */
    uint8_t cpu_apic_id, ioapic_id;
};

struct acpi_tables {
    uint8_t rsdp[ACPI_RSDP_SIZE];
    uint8_t bytes[ACPI_MAX_SIZE];
    uint32_t size;
    uint32_t rsdt;                     /* its offset */
    uint32_t pointer[ACPI_MAX_FIXUPS]; /* offsets of 32-bit pointers that hold offsets */
    unsigned n_pointers;
    struct acpi_checked {
        uint32_t first, size;
    } table[ACPI_MAX_FIXUPS]; /* with a checksum in byte 9 */
    unsigned n_tables;
};

void acpi_build(const struct acpi_config *config, struct acpi_tables *tables);
/* Turns offsets into addresses, and fills in the checksums. */
void acpi_place(struct acpi_tables *tables, uint32_t gpa);
/* The commands with which firmware does the same to the files, as not placed (QEMU's hw/acpi/bios-linker-
 * loader describes them). Returns the length. */
size_t acpi_loader_script(const struct acpi_tables *tables, uint8_t script[ACPI_MAX_SCRIPT_SIZE]);

#endif
