/*
 * acpi: see acpi.h. Section numbers and field names are those of the ACPI specification 6.4.
 *
 * Read next: board.c (board_install_firmware, board_offer_firmware).
 */
#include "devices/acpi.h"

#include "devices/aml.h"
#include "devices/i8042.h"
#include "devices/ioapic.h"
#include "devices/lapic.h"
#include "devices/mc146818.h"
#include "devices/piix3.h"
#include "devices/piix4_pm.h"
#include "devices/uart16550.h"

#include <string.h>

#define HEADER_CHECKSUM 9
#define RSDP_CHECKSUM   8
#define RSDP_RSDT       16

/* ---- table headers ------------------------------------------------------------------------------------- */

struct builder {
    struct acpi_tables *tables;
    struct layout out;
};

/* 5.2.6: the header that tables share; end_table fills in length and checksum. */
static uint32_t begin_table(struct builder *builder, const char *signature, uint8_t revision)
{
    struct layout *out = &builder->out;
    uint32_t start;

    put_zeroes(out, (8 - out->size % 8) % 8);
    start = (uint32_t)out->size;
    put_text(out, signature);
    put32(out, 0); /* Length */
    put8(out, revision);
    put8(out, 0); /* Checksum */
    put_text(out, "RING3 ");
    put_text(out, "RING3PC ");
    put32(out, 1);         /* OEM Revision */
    put_text(out, "RNG3"); /* Creator ID, Creator Revision */
    put32(out, 1);
    return start;
}

static void end_table(struct builder *builder, uint32_t start)
{
    struct acpi_tables *tables = builder->tables;
    uint32_t size = (uint32_t)builder->out.size - start;

    BUG_ON(tables->n_tables == ACPI_MAX_FIXUPS);
    memcpy(builder->out.bytes + start + 4, &size, sizeof size);
    tables->table[tables->n_tables++] = (struct acpi_checked){.first = start, .size = size};
}

static void put_pointer(struct builder *builder, uint32_t offset)
{
    BUG_ON(builder->tables->n_pointers == ACPI_MAX_FIXUPS);
    builder->tables->pointer[builder->tables->n_pointers++] = (uint32_t)builder->out.size;
    put32(&builder->out, offset);
}

/* ---- FACS, MADT, FADT, RSDT, RSDP ---------------------------------------------------------------------- */

/* 5.2.10. It has no checksum. */
static uint32_t put_facs(struct builder *builder)
{
    struct layout *out = &builder->out;
    uint32_t start = (uint32_t)out->size;

    put_text(out, "FACS");
    put32(out, 64);          /* Length */
    put_zeroes(out, 64 - 8); /* no waking vector, lock free, version 0 */
    return start;
}

/* 5.2.12.5, MPS INTI flags */
#define INTI_CONFORMS          0
#define INTI_LEVEL_ACTIVE_HIGH 0x000d

static void put_override(struct layout *out, uint8_t irq, uint32_t input, uint16_t flags)
{
    put8(out, 2); /* Interrupt Source Override */
    put8(out, 10);
    put8(out, 0); /* ISA */
    put8(out, irq);
    put32(out, input);
    put16(out, flags);
}

/* 5.2.12 */
static uint32_t put_madt(struct builder *builder, const struct acpi_config *config)
{
    struct layout *out = &builder->out;
    uint32_t start = begin_table(builder, "APIC", 1);

    put32(out, LAPIC_BASE);
    put32(out, 1); /* PCAT_COMPAT: there are 8259s, too */

    put8(out, 0); /* Processor Local APIC */
    put8(out, 8);
    put8(out, 0); /* ACPI Processor UID */
    put8(out, config->cpu_apic_id);
    put32(out, 1); /* enabled */

    put8(out, 1); /* I/O APIC */
    put8(out, 12);
    put8(out, config->ioapic_id);
    put8(out, 0);
    put32(out, IOAPIC_BASE);
    put32(out, 0); /* its first input is global interrupt 0 */

    put_override(out, 0, 2, INTI_CONFORMS); /* board.c: isa_set_irq */
    put_override(out, PIIX4_SCI_IRQ, PIIX4_SCI_IRQ, INTI_LEVEL_ACTIVE_HIGH);

    put8(out, 4); /* Local APIC NMI */
    put8(out, 6);
    put8(out, 0xff); /* of all processors */
    put16(out, INTI_CONFORMS);
    put8(out, 1); /* LINT1 */
    end_table(builder, start);
    return start;
}

/* 5.2.9, Fixed ACPI Description Table Fixed Feature Flags */
#define FLAG_WBINVD        (1u << 0)
#define FLAG_PROC_C1       (1u << 2)
#define FLAG_NO_PWR_BUTTON (1u << 4) /* PWR_BUTTON set: it is no fixed feature, and no device either */
#define FLAG_NO_SLP_BUTTON (1u << 5)
#define FLAG_NO_FIX_RTC    (1u << 6)
#define FLAG_RESET_REG     (1u << 10)

#define BOOT_LEGACY_DEVICES 0x0001
#define BOOT_8042           0x0002

#define LATENCY_NEVER_C2 101 /* larger than 100 and 1000: not supported */
#define LATENCY_NEVER_C3 1001

#define RESET_PORT  0xcf9
#define RESET_VALUE 0x06

#define FADT_SIZE 244 /* of revision 3 */

/* 5.2.3.2 */
static void put_port_address(struct layout *out, uint8_t bits, uint64_t port)
{
    put8(out, 1); /* system I/O */
    put8(out, bits);
    put8(out, 0); /* bit offset */
    put8(out, 1); /* byte access */
    put32(out, (uint32_t)port);
    put32(out, (uint32_t)(port >> 32));
}

/* 5.2.9. The extended addresses stay zero: the 32-bit ones count. */
static uint32_t put_fadt(struct builder *builder, const struct acpi_config *config, uint32_t facs,
                         uint32_t dsdt)
{
    struct layout *out = &builder->out;
    uint32_t start = begin_table(builder, "FACP", 3);

    put_pointer(builder, facs);
    put_pointer(builder, dsdt);
    put8(out, 0);
    put8(out, 0); /* Preferred_PM_Profile: unspecified */
    put16(out, PIIX4_SCI_IRQ);
    put32(out, PIIX4_APM_PORT); /* SMI_CMD */
    put8(out, PIIX4_ACPI_ENABLE);
    put8(out, PIIX4_ACPI_DISABLE);
    put8(out, 0); /* S4BIOS_REQ */
    put8(out, 0); /* PSTATE_CNT */
    put32(out, config->pm_base + PIIX4_PM1_STATUS);
    put32(out, 0);
    put32(out, config->pm_base + PIIX4_PM1_CONTROL);
    put32(out, 0);
    put32(out, 0); /* PM2_CNT_BLK */
    put32(out, config->pm_base + PIIX4_PM_TIMER);
    put32(out, 0); /* GPE0_BLK */
    put32(out, 0);
    put8(out, 4); /* PM1_EVT_LEN */
    put8(out, 2); /* PM1_CNT_LEN */
    put8(out, 0);
    put8(out, 4);       /* PM_TMR_LEN */
    put_zeroes(out, 4); /* GPE0_BLK_LEN, GPE1_BLK_LEN, GPE1_BASE, CST_CNT */
    put16(out, LATENCY_NEVER_C2);
    put16(out, LATENCY_NEVER_C3);
    put16(out, 0); /* FLUSH_SIZE, FLUSH_STRIDE: WBINVD does it */
    put16(out, 0);
    put_zeroes(out, 4); /* DUTY_OFFSET, DUTY_WIDTH, DAY_ALRM, MON_ALRM */
    put8(out, RTC_CENTURY);
    put16(out, BOOT_LEGACY_DEVICES | BOOT_8042);
    put8(out, 0);
    put32(out, FLAG_WBINVD | FLAG_PROC_C1 | FLAG_NO_PWR_BUTTON | FLAG_NO_SLP_BUTTON | FLAG_NO_FIX_RTC |
                   FLAG_RESET_REG);
    put_port_address(out, 8, RESET_PORT);
    put8(out, RESET_VALUE);
    put_zeroes(out, start + FADT_SIZE - out->size);
    end_table(builder, start);
    return start;
}

static void put_rsdt(struct builder *builder, uint32_t fadt, uint32_t madt)
{
    uint32_t start = begin_table(builder, "RSDT", 1);

    put_pointer(builder, fadt);
    put_pointer(builder, madt);
    end_table(builder, start);
    builder->tables->rsdt = start;
}

/* 5.2.5.3, the part that ACPI 1.0 has. The checksum comes when it is placed. */
static void build_rsdp(struct acpi_tables *tables)
{
    struct layout out = {.bytes = tables->rsdp, .capacity = ACPI_RSDP_SIZE};

    put_text(&out, "RSD PTR ");
    put8(&out, 0); /* Checksum */
    put_text(&out, "RING3 ");
    put8(&out, 0); /* Revision: 1.0 */
    put32(&out, tables->rsdt);
}

/* ---- DSDT ---------------------------------------------------------------------------------------------- */

/* The ISA devices whose place nothing else tells. */
static const struct isa_device {
    const char *name, *id;
    uint8_t unique_id;
    struct {
        uint16_t first;
        uint8_t n;
    } ports[2];
    uint8_t irq;
} isa_devices[] = {
    {"COM1", "PNP0501", 1, {{UART16550_COM1, 8}}, 4},
    {"RTC", "PNP0B00", 0, {{MC146818_PORT, 2}}, 8},
    {"KBD", "PNP0303", 0, {{I8042_DATA_PORT, 1}, {I8042_COMMAND_PORT, 1}}, 1},
};

static void put_isa_device(struct layout *out, const struct isa_device *device)
{
    struct aml_block block = aml_begin_device(out, device->name);

    aml_name(out, "_HID");
    aml_eisa_id(out, device->id);
    if (device->unique_id != 0) {
        aml_name(out, "_UID");
        aml_integer(out, device->unique_id);
    }
    aml_name(out, "_CRS");
    struct aml_resources resources = aml_begin_resources(out);

    for (unsigned i = 0; i < 2 && device->ports[i].n != 0; i++)
        aml_ports(out, device->ports[i].first, device->ports[i].n);
    aml_irq(out, device->irq);
    aml_end_resources(out, resources);
    aml_end(out, block);
}

static void put_isa_bridge(struct layout *out)
{
    struct aml_block isa = aml_begin_device(out, "ISA");

    aml_name(out, "_ADR");
    aml_integer(out, 1u << 16); /* slot 1, function 0 */
    for (size_t i = 0; i < sizeof isa_devices / sizeof isa_devices[0]; i++)
        put_isa_device(out, &isa_devices[i]);
    aml_end(out, isa);
}

/* 6.2.13: the interrupt of each pin of each slot. It is the same with both kinds of controller, since an ISA
 * line ends at the I/O APIC input of its number, and the PIRQ registers are left as firmware set them. */
static void put_pci_routing(struct layout *out)
{
    static const uint8_t pirq_irq[PCI_INTX_PINS] = {10, 10, 11, 11};

    aml_name(out, "_PRT");
    struct aml_block table = aml_begin_package(out, (PCI_SLOTS - 1) * PCI_INTX_PINS);

    for (unsigned slot = 1; slot < PCI_SLOTS; slot++) {
        for (unsigned pin = 0; pin < PCI_INTX_PINS; pin++) {
            struct aml_block entry = aml_begin_package(out, 4);

            aml_integer(out, slot << 16 | 0xffff); /* all functions */
            aml_integer(out, pin);
            aml_integer(out, 0); /* wired: no link device */
            aml_integer(out, pirq_irq[piix3_pirq_of(slot, pin)]);
            aml_end(out, entry);
        }
    }
    aml_end(out, table);
}

/* What the host bridge keeps, and what reaches the PCI bus. RAM ends below the memory it names. */
static void put_pci_resources(struct layout *out)
{
    aml_name(out, "_CRS");
    struct aml_resources resources = aml_begin_resources(out);

    aml_word_range(out, AML_BUS, 0, 0xff);
    aml_ports(out, PCI_ADDRESS_PORT, 8);
    aml_word_range(out, AML_IO, 0, PCI_ADDRESS_PORT - 1);
    aml_word_range(out, AML_IO, PCI_ADDRESS_PORT + 8, 0xffff);
    aml_memory_range(out, 0x000a0000, 0x000bffff);
    aml_memory_range(out, 0xc0000000, IOAPIC_BASE - 1);
    aml_end_resources(out, resources);
}

static uint32_t put_dsdt(struct builder *builder)
{
    struct layout *out = &builder->out;
    uint32_t start = begin_table(builder, "DSDT", 1);

    aml_name(out, "\\_S5"); /* 7.4.2: soft off is SLP_TYP 0 */
    struct aml_block types = aml_begin_package(out, 4);
    for (unsigned i = 0; i < 4; i++)
        aml_integer(out, 0);
    aml_end(out, types);

    struct aml_block bus = aml_begin_scope(out, "\\_SB");
    struct aml_block pci = aml_begin_device(out, "PCI0");
    aml_name(out, "_HID");
    aml_eisa_id(out, "PNP0A03");
    aml_name(out, "_UID");
    aml_integer(out, 0);
    put_pci_resources(out);
    put_pci_routing(out);
    put_isa_bridge(out);
    aml_end(out, pci);
    aml_end(out, bus);
    end_table(builder, start);
    return start;
}

/* ---- all of them --------------------------------------------------------------------------------------- */

void acpi_build(const struct acpi_config *config, struct acpi_tables *tables)
{
    struct builder builder = {.tables = tables, .out = {.bytes = tables->bytes, .capacity = ACPI_MAX_SIZE}};

    memset(tables, 0, sizeof *tables);
    uint32_t facs = put_facs(&builder);
    uint32_t dsdt = put_dsdt(&builder);
    uint32_t fadt = put_fadt(&builder, config, facs, dsdt);
    uint32_t madt = put_madt(&builder, config);

    put_rsdt(&builder, fadt, madt);
    tables->size = (uint32_t)builder.out.size;
    build_rsdp(tables);
}

static void relocate(uint8_t *pointer, uint32_t gpa)
{
    uint32_t value;

    memcpy(&value, pointer, sizeof value);
    value += gpa;
    memcpy(pointer, &value, sizeof value);
}

void acpi_place(struct acpi_tables *tables, uint32_t gpa)
{
    for (unsigned i = 0; i < tables->n_pointers; i++)
        relocate(tables->bytes + tables->pointer[i], gpa);
    for (unsigned i = 0; i < tables->n_tables; i++) {
        uint8_t *table = tables->bytes + tables->table[i].first;

        table[HEADER_CHECKSUM] = checksum(table, tables->table[i].size);
    }
    relocate(tables->rsdp + RSDP_RSDT, gpa);
    tables->rsdp[RSDP_CHECKSUM] = checksum(tables->rsdp, ACPI_RSDP_SIZE);
}

/* ---- the same by firmware ------------------------------------------------------------------------------ */

enum script_command { SCRIPT_ALLOCATE = 1, SCRIPT_ADD_POINTER = 2, SCRIPT_ADD_CHECKSUM = 3 };
enum script_zone { ZONE_HIGH = 1, ZONE_F_SEGMENT = 2 };

#define SCRIPT_NAME_SIZE 56

static void put_file(struct layout *out, const char *name)
{
    put_text(out, name);
    put_zeroes(out, SCRIPT_NAME_SIZE - strlen(name));
}

/* Entries have one size; this one is full up to the end of the previous and what was put since. */
static void end_entry(struct layout *out)
{
    put_zeroes(out, (ACPI_SCRIPT_ENTRY - out->size % ACPI_SCRIPT_ENTRY) % ACPI_SCRIPT_ENTRY);
}

static void put_allocate(struct layout *out, const char *file, uint32_t align, enum script_zone zone)
{
    put32(out, SCRIPT_ALLOCATE);
    put_file(out, file);
    put32(out, align);
    put8(out, (uint8_t)zone);
    end_entry(out);
}

static void put_add_pointer(struct layout *out, const char *file, uint32_t offset)
{
    put32(out, SCRIPT_ADD_POINTER);
    put_file(out, file);
    put_file(out, ACPI_TABLES_FILE);
    put32(out, offset);
    put8(out, 4); /* size of the pointer */
    end_entry(out);
}

static void put_add_checksum(struct layout *out, const char *file, uint32_t offset, uint32_t first,
                             uint32_t size)
{
    put32(out, SCRIPT_ADD_CHECKSUM);
    put_file(out, file);
    put32(out, offset);
    put32(out, first);
    put32(out, size);
    end_entry(out);
}

size_t acpi_loader_script(const struct acpi_tables *tables, uint8_t script[ACPI_MAX_SCRIPT_SIZE])
{
    struct layout out = {.bytes = script, .capacity = ACPI_MAX_SCRIPT_SIZE};

    put_allocate(&out, ACPI_RSDP_FILE, 16, ZONE_F_SEGMENT);
    put_allocate(&out, ACPI_TABLES_FILE, ACPI_ALIGN, ZONE_HIGH);
    for (unsigned i = 0; i < tables->n_pointers; i++)
        put_add_pointer(&out, ACPI_TABLES_FILE, tables->pointer[i]);
    for (unsigned i = 0; i < tables->n_tables; i++)
        put_add_checksum(&out, ACPI_TABLES_FILE, tables->table[i].first + HEADER_CHECKSUM,
                         tables->table[i].first, tables->table[i].size);
    put_add_pointer(&out, ACPI_RSDP_FILE, RSDP_RSDT);
    put_add_checksum(&out, ACPI_RSDP_FILE, RSDP_CHECKSUM, 0, ACPI_RSDP_SIZE);
    return out.size;
}
