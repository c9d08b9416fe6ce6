/*
 * board: all chips and all wires of the machine. The first screen is the wiring; below it is what the monitor
 * asks of the board (devices.h).
 *
 * Read next: the chip you want to know about; i8259.c and lapic.c for how an interrupt reaches the CPU.
 */
#include "devices/board.h"

#include "devices/firmware.h"
#include "vcpu/fail.h"

#include <stdlib.h>
#include <string.h>

static void isa_set_irq(void *board, unsigned irq, bool level);
static void pirq_set_irq(void *board, unsigned irq, bool level);
static void pic_set_intr(void *board, unsigned pin, bool level);
static bool apic_bus_deliver(void *board, const struct apic_message *message);
static void apic_bus_eoi(void *board, uint8_t vector);
static uint8_t pic_acknowledge(void *board);
static void cpu_nmi(void *board);
static void cpu_init(void *board);

static struct irq_line isa_irq(struct board *board, unsigned irq)
{
    return (struct irq_line){.set = isa_set_irq, .ctx = board, .pin = irq};
}

static struct irq_line ide_intrq(struct board *board, unsigned channel)
{
    return (struct irq_line){.set = piix3_ide_set_intrq, .ctx = &board->piix3_ide.master[channel]};
}

static struct irq_line ide_dmarq(struct board *board, unsigned channel)
{
    return (struct irq_line){.set = piix3_ide_set_dmarq, .ctx = &board->piix3_ide.master[channel]};
}

static void board_wire(struct board *board)
{
    struct clock *clock = board->config.clock;
    const struct board_host *host = &board->config.host;
    const struct lapic_host lapic_host = {.ctx = board,
                                          .eoi = apic_bus_eoi,
                                          .extint_acknowledge = pic_acknowledge,
                                          .nmi = cpu_nmi,
                                          .init = cpu_init};

    lapic_init(&board->lapic, clock, &lapic_host);
    ioapic_init(&board->ioapic, apic_bus_deliver, board);
    i8259_init(&board->pic, (struct irq_line){.set = pic_set_intr, .ctx = board});
    i8254_init(&board->pit, clock, isa_irq(board, 0));
    i8042_init(&board->kbc, isa_irq(board, 1), host);
    uart16550_init(&board->com1, clock, isa_irq(board, 4), host);
    mc146818_init(&board->rtc, clock, isa_irq(board, 8), board->config.ram_size);
    ide_init(&board->ide[0], ide_intrq(board, 0), ide_dmarq(board, 0));
    ide_init(&board->ide[1], ide_intrq(board, 1), ide_dmarq(board, 1));
    vga_init(&board->vga, clock, host->screen_changed, host->ctx);
    chipset_init(&board->chipset, host);
    debugcon_init(&board->debugcon, host);
    debug_exit_init(&board->debug_exit, host);
    fw_cfg_init(&board->fw_cfg, host);

    pci_init(&board->pci);
    i440fx_init(&board->bridge, host);
    piix3_init(&board->piix3, pirq_set_irq, board);
    piix3_ide_init(&board->piix3_ide, &board->bus, board->ide, isa_irq(board, 14), isa_irq(board, 15), host);
    piix4_pm_init(&board->pm, &board->bus, clock, isa_irq(board, PIIX4_SCI_IRQ), host);
    pci_plug(&board->pci, 0, 0, &board->bridge.function);
    pci_plug(&board->pci, 1, 0, &board->piix3.function);
    pci_plug(&board->pci, 1, 1, &board->piix3_ide.function);
    pci_plug(&board->pci, 1, 3, &board->pm.function);
}

static void board_map(struct board *b)
{
    const struct {
        enum bus_space space;
        uint32_t first, size;
        const struct bus_device_ops *ops;
        void *device;
        const char *name;
    } map[] = {
        {BUS_PORT, I8259_MASTER_PORT, 2, &i8259_master_ops, &b->pic, "i8259 master"},
        {BUS_PORT, I8254_PORT, 4, &i8254_ops, &b->pit, "i8254"},
        {BUS_PORT, I8042_DATA_PORT, 1, &i8042_data_ops, &b->kbc, "i8042"},
        {BUS_PORT, I8254_PORT_B, 1, &i8254_port_b_ops, &b->pit, "port b"},
        {BUS_PORT, I8042_COMMAND_PORT, 1, &i8042_command_ops, &b->kbc, "i8042"},
        {BUS_PORT, MC146818_PORT, 2, &mc146818_ops, &b->rtc, "mc146818"},
        {BUS_PORT, CHIPSET_POST_PORT, 1, &chipset_post_ops, &b->chipset, "post"},
        {BUS_PORT, CHIPSET_PORT_92, 1, &chipset_port_92_ops, &b->chipset, "port 92"},
        {BUS_PORT, I8259_SLAVE_PORT, 2, &i8259_slave_ops, &b->pic, "i8259 slave"},
        {BUS_PORT, PIIX4_APM_PORT, 2, &piix4_apm_ops, &b->pm, "apm"},
        {BUS_PORT, DEBUGCON_PORT, 1, &debugcon_ops, &b->debugcon, "debugcon"},
        {BUS_PORT, DEBUG_EXIT_PORT, 4, &debug_exit_ops, &b->debug_exit, "debug exit"},
        {BUS_PORT, IDE_SECONDARY_COMMAND_FIRST, 8, &ide_command_ops, &b->ide[1], "ide 1"},
        {BUS_PORT, IDE_SECONDARY_CONTROL, 1, &ide_control_ops, &b->ide[1], "ide 1"},
        {BUS_PORT, IDE_PRIMARY_COMMAND_FIRST, 8, &ide_command_ops, &b->ide[0], "ide 0"},
        {BUS_PORT, IDE_PRIMARY_CONTROL, 1, &ide_control_ops, &b->ide[0], "ide 0"},
        {BUS_PORT, VGA_PORT_FIRST, 16, &vga_port_ops, &b->vga, "vga"},
        {BUS_PORT, VGA_CRTC_FIRST, 2, &vga_crtc_ops, &b->vga, "vga"},
        {BUS_PORT, VGA_STATUS_PORT, 1, &vga_status_ops, &b->vga, "vga"},
        {BUS_PORT, UART16550_COM1, 8, &uart16550_ops, &b->com1, "uart16550"},
        {BUS_PORT, I8259_ELCR_PORT, 2, &i8259_elcr_ops, &b->pic, "elcr"},
        {BUS_PORT, FW_CFG_PORT, FW_CFG_PORTS, &fw_cfg_ops, &b->fw_cfg, "fw_cfg"},
        {BUS_PORT, CHIPSET_RESET_PORT, 1, &chipset_reset_ops, &b->chipset, "reset"},
        {BUS_PORT, PCI_ADDRESS_PORT, 8, &pci_config_ops, &b->pci, "pci"}, /* around the reset port */
        {BUS_MEMORY, VGA_MEMORY_FIRST, 0x20000, &vga_memory_ops, &b->vga, "vga"},
        {BUS_MEMORY, IOAPIC_BASE, 0x1000, &ioapic_ops, &b->ioapic, "ioapic"},
        {BUS_MEMORY, LAPIC_BASE, 0x1000, &lapic_ops, &b->lapic, "lapic"},
    };

    for (size_t i = 0; i < sizeof(map) / sizeof(map[0]); i++)
        bus_claim(&b->bus, map[i].space, map[i].first, map[i].first + map[i].size - 1, map[i].ops,
                  map[i].device, map[i].name);
}

/* ---- wires that branch --------------------------------------------------------------------------------- */

/* An ISA interrupt line ends at both controllers. IRQ 0 is on the I/O APIC's input 2, because its input 0
 * belongs to the 8259 pair and the pair's input 2 to the cascade (MP specification 1.4, "I/O Interrupt
 * Assignment"). A line is up while its ISA chip or a PCI interrupt routed to it holds it up. */
static void set_level(struct board *board, uint16_t *levels, unsigned irq, bool is_held)
{
    const struct board_observer *observer = &board->config.observer;
    unsigned before = board->isa_levels | board->pirq_levels;

    *levels = (uint16_t)((*levels & ~(1u << irq)) | (unsigned)is_held << irq);
    unsigned after = board->isa_levels | board->pirq_levels;
    bool level = after >> irq & 1;

    if (after != before && observer->line != NULL)
        observer->line(observer->ctx, "isa", irq, level);
    i8259_set_pin(&board->pic, irq, level);
    ioapic_set_pin(&board->ioapic, irq == 0 ? 2 : irq, level);
}

static void isa_set_irq(void *ctx, unsigned irq, bool level)
{
    struct board *board = ctx;

    set_level(board, &board->isa_levels, irq, level);
}

static void pirq_set_irq(void *ctx, unsigned irq, bool level)
{
    struct board *board = ctx;

    set_level(board, &board->pirq_levels, irq, level);
}

/* The pair's INT output: LINT0 of the CPU (virtual wire mode) and input 0 of the I/O APIC. */
static void pic_set_intr(void *ctx, unsigned pin, bool level)
{
    struct board *board = ctx;
    (void)pin;
    lapic_set_lint(&board->lapic, 0, level);
    ioapic_set_pin(&board->ioapic, 0, level);
}

static uint8_t pic_acknowledge(void *ctx)
{
    struct board *board = ctx;
    return i8259_acknowledge(&board->pic);
}

static bool apic_bus_deliver(void *ctx, const struct apic_message *message)
{
    struct board *board = ctx;
    return lapic_deliver(&board->lapic, message);
}

static void apic_bus_eoi(void *ctx, uint8_t vector)
{
    struct board *board = ctx;
    ioapic_eoi(&board->ioapic, vector);
}

static void cpu_nmi(void *ctx)
{
    struct board *board = ctx;
    board->nmi_pending = true;
}

static void cpu_init(void *ctx)
{
    struct board *board = ctx;
    board->config.host.reset(board->config.host.ctx, "an INIT message of the local APIC");
}

/* ---- making and resetting ------------------------------------------------------------------------------ */

/* A disabled local APIC answers nowhere: accesses to its page are unclaimed like any other. */
static void board_map_lapic(struct board *board)
{
    bus_release(&board->bus, BUS_MEMORY, LAPIC_BASE);
    if (board->lapic.base & LAPIC_BASE_ENABLE)
        bus_claim(&board->bus, BUS_MEMORY, LAPIC_BASE, LAPIC_LAST, &lapic_ops, &board->lapic, "lapic");
}

static bool board_open_drives(struct board *board, char *error, size_t error_size)
{
    for (unsigned i = 0; i < BOARD_MAX_DRIVES; i++) {
        const struct drive_config *drive = &board->config.drive[i];
        if (drive->path == NULL)
            continue;
        if (!disk_open(&board->disk[i], drive->path, drive->snapshot, error, error_size))
            return false;
        board->drives_open |= (uint8_t)(1u << i);
        ide_attach(&board->ide[i / 2], i % 2, &board->disk[i], i);
    }
    return true;
}

struct board *board_create(const struct board_config *config, char *error, size_t error_size)
{
    struct board *board = calloc(1, sizeof(*board));

    if (board == NULL)
        die("no memory for the board (%zu bytes)", sizeof(*board));
    board->config = *config;
    board->bus.observer = config->observer;
    board_wire(board);
    board_map(board);
    if (!board_open_drives(board, error, error_size)) {
        board_destroy(board);
        return NULL;
    }
    i440fx_reset(&board->bridge); /* maps the BIOS area, too */
    firmware_describe_machine(board);
    firmware_set_up_chips(board);
    return board;
}

/* The clock lives longer than the board. */
static void board_disarm_timers(struct board *board)
{
    struct timer *timers[] = {&board->lapic.timer,        &board->pit.timer,         &board->rtc.timer,
                              &board->com1.timeout_timer, &board->com1.settle_timer, &board->pm.timer};

    for (size_t i = 0; i < sizeof(timers) / sizeof(timers[0]); i++)
        clock_disarm(board->config.clock, timers[i]);
}

void board_destroy(struct board *board)
{
    board_disarm_timers(board);
    fw_cfg_destroy(&board->fw_cfg);
    for (unsigned i = 0; i < BOARD_MAX_DRIVES; i++)
        if (board->drives_open >> i & 1 && !disk_close(&board->disk[i]))
            die("%s: not everything the guest wrote could be stored", board->config.drive[i].path);
    free(board);
}

void board_reset(struct board *board)
{
    board->nmi_pending = false;
    lapic_reset(&board->lapic);
    ioapic_reset(&board->ioapic);
    i8259_reset(&board->pic);
    i8254_reset(&board->pit);
    i8042_reset(&board->kbc);
    uart16550_reset(&board->com1);
    mc146818_reset(&board->rtc);
    ide_reset(&board->ide[0]);
    ide_reset(&board->ide[1]);
    vga_reset(&board->vga);
    chipset_reset(&board->chipset);
    fw_cfg_reset(&board->fw_cfg);
    pci_reset(&board->pci);
    i440fx_reset(&board->bridge);
    piix3_reset(&board->piix3);
    piix3_ide_reset(&board->piix3_ide);
    piix4_pm_reset(&board->pm);
    board_map_lapic(board);
    firmware_set_up_chips(board);
}

void board_install_firmware(struct board *board)
{
    firmware_put_tables(board);
}

void board_add_firmware_file(struct board *board, const char *name, const void *bytes, size_t size)
{
    fw_cfg_add_file(&board->fw_cfg, name, bytes, size);
}

struct bus *board_bus(struct board *board)
{
    return &board->bus;
}

/* ---- the CPU's pins ------------------------------------------------------------------------------------ */

bool board_intr(const struct board *board)
{
    return lapic_intr(&board->lapic);
}

uint8_t board_acknowledge(struct board *board)
{
    return lapic_acknowledge(&board->lapic);
}

bool board_nmi(const struct board *board)
{
    return board->nmi_pending;
}

bool board_nmi_take(struct board *board)
{
    bool pending = board->nmi_pending;

    board->nmi_pending = false;
    return pending;
}

uint64_t board_apic_base(const struct board *board)
{
    return board->lapic.base;
}

bool board_write_apic_base(struct board *board, uint64_t value)
{
    if (lapic_write_base(&board->lapic, value) != LAPIC_BASE_WRITTEN)
        return false;
    board_map_lapic(board);
    return true;
}

/* The two gates are in parallel. */
bool board_a20_enabled(const struct board *board)
{
    return board->kbc.a20_enabled || chipset_a20_enabled(&board->chipset);
}

/* ---- the person in front of it ------------------------------------------------------------------------- */

#define KEYBOARD_IRQ 1

/* Kernels that trust the firmware never touch the keyboard controller: they just unmask its interrupt. */
static bool board_attends_keyboard(const struct board *board)
{
    return board->kbc.attended || i8259_is_unmasked(&board->pic, KEYBOARD_IRQ) ||
           !ioapic_is_masked(&board->ioapic, KEYBOARD_IRQ);
}

/* Who gets what is typed now; AUTO: nobody yet. */
static enum board_input board_input_target(const struct board *board)
{
    if (board->config.input != BOARD_INPUT_AUTO)
        return board->config.input;
    if (uart16550_is_listening(&board->com1))
        return BOARD_INPUT_UART;
    return board_attends_keyboard(board) ? BOARD_INPUT_KEYBOARD : BOARD_INPUT_AUTO;
}

bool board_console_wants_input(const struct board *board)
{
    switch (board_input_target(board)) {
    case BOARD_INPUT_UART:
        return uart16550_is_listening(&board->com1) && uart16550_room(&board->com1) > 0;
    case BOARD_INPUT_KEYBOARD:
        return i8042_can_type(&board->kbc);
    case BOARD_INPUT_AUTO:
        break;
    }
    return false;
}

size_t board_console_input(struct board *board, const uint8_t *bytes, size_t n)
{
    size_t taken = 0;

    while (taken < n && board_console_wants_input(board)) {
        if (board_input_target(board) == BOARD_INPUT_UART)
            uart16550_receive(&board->com1, bytes[taken++]);
        else
            i8042_type(&board->kbc, bytes[taken++]);
    }
    return taken;
}

void board_screen(const struct board *board, struct screen *screen)
{
    vga_get_screen(&board->vga, screen);
}
