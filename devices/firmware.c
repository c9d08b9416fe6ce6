/*
 * firmware: see firmware.h. With a BIOS image in the ROM the chips are left in their reset state, and the
 * BIOS makes its tables from what the firmware configuration device says.
 *
 * Read next: mptable.c, acpi.c, fw_cfg.c.
 */
#include "devices/firmware.h"

#include "devices/acpi.h"
#include "devices/layout.h"
#include "devices/mptable.h"

#define FIRMWARE_IOAPIC_ID 1 /* 0 is the CPU's */

/* IRQ 9 (ACPI), and 10 and 11 (PCI) are level-triggered. */
#define ELCR_SLAVE      0x0e
#define ELCR_SLAVE_PORT (I8259_ELCR_PORT + 1)

void firmware_set_up_chips(struct board *board)
{
    if (board->config.boots_firmware)
        return;
    lapic_enter_virtual_wire_mode(&board->lapic);
    board->ioapic.id = FIRMWARE_IOAPIC_ID;
    bus_write(&board->bus, BUS_PORT, ELCR_SLAVE_PORT, 1, ELCR_SLAVE);
    i440fx_shadow_bios_area(&board->bridge);
    piix3_route_pirqs(&board->piix3);
    piix3_ide_open(&board->piix3_ide);
    piix4_pm_open(&board->pm);
}

/* ---- tables -------------------------------------------------------------------------------------------- */

static void put(struct board *board, uint64_t gpa, const void *bytes, size_t n)
{
    board->config.host.guest_write(board->config.host.ctx, gpa, bytes, n);
}

static void build_acpi(const struct board *board, struct acpi_tables *tables)
{
    const struct acpi_config config = {
        .pm_base = PIIX4_FIRMWARE_PMBASE,
        .cpu_apic_id = board->lapic.id,
        .ioapic_id = board->config.boots_firmware ? 0 : FIRMWARE_IOAPIC_ID, /* 0: SeaBIOS leaves it */
    };

    acpi_build(&config, tables);
}

static void put_acpi_tables(struct board *board)
{
    struct acpi_tables tables;

    build_acpi(board, &tables);
    acpi_place(&tables, ACPI_TABLES_GPA);
    put(board, ACPI_RSDP_GPA, tables.rsdp, ACPI_RSDP_SIZE);
    put(board, ACPI_TABLES_GPA, tables.bytes, tables.size);
}

static void put_mp_tables(struct board *board)
{
    const struct mptable_config mp = {
        .cpu_apic_id = board->lapic.id,
        .cpu_apic_version = LAPIC_VERSION,
        .cpu_signature = board->config.cpu_signature,
        .cpu_features = board->config.cpu_features,
        .ioapic_id = FIRMWARE_IOAPIC_ID,
        .ioapic_version = IOAPIC_VERSION,
    };
    uint8_t tables[MPTABLE_MAX_SIZE];

    put(board, MPTABLE_GPA, tables, mptable_build(&mp, tables));
}

void firmware_put_tables(struct board *board)
{
    uint8_t bda[BDA_SIZE], ebda_size = mptable_ebda_size_kib();

    if (board->config.boots_firmware)
        return;
    mptable_build_bda(bda);
    put(board, BDA_GPA, bda, sizeof(bda));
    put(board, EBDA_GPA, &ebda_size, sizeof(ebda_size));
    put_mp_tables(board);
    put_acpi_tables(board);
}

/* ---- the firmware configuration device ----------------------------------------------------------------- */

enum e820_type { E820_RAM = 1 };

static void describe_memory(struct board *board)
{
    uint8_t entry[20];
    struct layout out = {.bytes = entry, .capacity = sizeof entry};

    put32(&out, 0);
    put32(&out, 0);
    put32(&out, (uint32_t)board->config.ram_size);
    put32(&out, (uint32_t)(board->config.ram_size >> 32));
    put32(&out, E820_RAM);
    fw_cfg_add_number(&board->fw_cfg, FW_CFG_RAM_SIZE, board->config.ram_size, 8);
    fw_cfg_add_file(&board->fw_cfg, "etc/e820", entry, out.size);
}

static void describe_acpi(struct board *board)
{
    struct acpi_tables tables;
    uint8_t script[ACPI_MAX_SCRIPT_SIZE];

    build_acpi(board, &tables);
    fw_cfg_add_file(&board->fw_cfg, ACPI_RSDP_FILE, tables.rsdp, ACPI_RSDP_SIZE);
    fw_cfg_add_file(&board->fw_cfg, ACPI_TABLES_FILE, tables.bytes, tables.size);
    fw_cfg_add_file(&board->fw_cfg, ACPI_SCRIPT_FILE, script, acpi_loader_script(&tables, script));
}

/* How the BIOS is to translate cylinders, heads and sectors: by LBA, unless the disk has no more than the
 * 1024 cylinders that its interface can name. Two bits a drive, as Bochs and QEMU have them. */
#define TRANSLATION_NONE 0
#define TRANSLATION_LBA  1
#define BIOS_CYLINDERS   1024u

static void describe_disks(struct board *board)
{
    uint8_t translations = 0;

    for (unsigned i = 0; i < BOARD_MAX_DRIVES; i++) {
        const struct ide_drive *drive = &board->ide[i / 2].drive[i % 2];
        bool is_large = drive->disk != NULL && drive->chs.cylinders > BIOS_CYLINDERS;

        translations |= (uint8_t)((is_large ? TRANSLATION_LBA : TRANSLATION_NONE) << 2 * i);
    }
    board->rtc.ram[RTC_DISK_TRANSLATION] = translations;
    board->rtc.ram[RTC_BOOT_ORDER] = RTC_BOOT_DISK;
}

void firmware_describe_machine(struct board *board)
{
    struct fw_cfg *cfg = &board->fw_cfg;

    fw_cfg_add_number(cfg, FW_CFG_NB_CPUS, 1, 2);
    fw_cfg_add_number(cfg, FW_CFG_MAX_CPUS, 1, 2);
    fw_cfg_add_number(cfg, FW_CFG_NOGRAPHIC, 0, 2);
    fw_cfg_add_number(cfg, FW_CFG_BOOT_MENU, 0, 2);
    fw_cfg_add_number(cfg, FW_CFG_IRQ0_OVERRIDE, 1, 4); /* IRQ 0 is on the I/O APIC's input 2 */
    describe_memory(board);
    describe_acpi(board);
    describe_disks(board);
}
