/* The board as the monitor sees it: the address map, interrupt routing, console input, reset, firmware
 * tables. */
#include "devices/board.h"
#include "devices/mptable.h"

#include "unit/fake_clock.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct fake_clock fake;
static struct board *board;
static char console[256];
static size_t n_console;
static uint8_t low_memory[1 << 20];
static uint8_t shadow_ram[16];
static unsigned n_resets, n_power_offs, n_debug_exits, n_unclaimed, n_lines;
static uint32_t debug_exit_value, unclaimed_address;
static const char *reset_reason;

static void host_console_write(void *ctx, const void *bytes, size_t n)
{
    (void)ctx;
    ck_assert_uint_lt(n_console + n, sizeof(console));
    memcpy(console + n_console, bytes, n);
    n_console += n;
}

static void host_screen_changed(void *ctx)
{
    (void)ctx;
}

static void host_reset(void *ctx, const char *why)
{
    (void)ctx;
    n_resets++;
    reset_reason = why;
}

static void host_power_off(void *ctx)
{
    (void)ctx;
    n_power_offs++;
}

static void host_debug_exit(void *ctx, uint32_t value)
{
    (void)ctx;
    n_debug_exits++;
    debug_exit_value = value;
}

static void host_guest_write(void *ctx, uint64_t gpa, const void *bytes, size_t n)
{
    (void)ctx;
    ck_assert_uint_le(gpa + n, sizeof(low_memory));
    memcpy(low_memory + gpa, bytes, n);
}

static bool host_dma_read(void *ctx, uint64_t gpa, void *bytes, size_t n)
{
    (void)ctx;
    if (gpa > sizeof(low_memory) || n > sizeof(low_memory) - gpa)
        return false;
    memcpy(bytes, low_memory + gpa, n);
    return true;
}

static bool host_dma_write(void *ctx, uint64_t gpa, const void *bytes, size_t n)
{
    (void)ctx;
    if (gpa > sizeof(low_memory) || n > sizeof(low_memory) - gpa)
        return false;
    memcpy(low_memory + gpa, bytes, n);
    return true;
}

/* Of each 16 KiB of the BIOS area: R, W or both. */
static void host_shadow_ram(void *ctx, uint64_t gpa, uint64_t size, bool is_read, bool is_write)
{
    (void)ctx;
    ck_assert_uint_ge(gpa, 0xc0000);
    ck_assert_uint_le(gpa + size, 0x100000);
    for (uint64_t at = gpa; at < gpa + size; at += 0x4000)
        shadow_ram[(at - 0xc0000) / 0x4000] = (is_read ? 1 : 0) | (is_write ? 2 : 0);
}

static void observe_unclaimed(void *ctx, enum bus_space space, uint32_t address, unsigned size, bool is_write,
                              uint32_t value)
{
    (void)ctx;
    (void)space;
    (void)size;
    (void)is_write;
    (void)value;
    n_unclaimed++;
    unclaimed_address = address;
}

static void observe_line(void *ctx, const char *lines, unsigned pin, bool level)
{
    (void)ctx;
    (void)pin;
    (void)level;
    ck_assert_str_eq(lines, "isa");
    n_lines++;
}

static struct board_config config;

static void setup(void)
{
    char error[256];

    fake_clock_init(&fake);
    memset(console, 0, sizeof(console));
    memset(low_memory, 0, sizeof(low_memory));
    n_console = 0;
    config = (struct board_config){
        .ram_size = 64u << 20,
        .cpu_signature = 0x663,
        .cpu_features = 0x201,
        .host = {.console_write = host_console_write,
                 .screen_changed = host_screen_changed,
                 .reset = host_reset,
                 .power_off = host_power_off,
                 .debug_exit = host_debug_exit,
                 .guest_write = host_guest_write,
                 .dma_read = host_dma_read,
                 .dma_write = host_dma_write,
                 .shadow_ram = host_shadow_ram},
        .observer = {.unclaimed = observe_unclaimed, .line = observe_line},
        .clock = &fake.clock,
    };
    board = board_create(&config, error, sizeof(error));
    ck_assert_ptr_nonnull(board);
    n_resets = n_power_offs = n_debug_exits = n_unclaimed = n_lines = 0;
}

static void teardown(void)
{
    board_destroy(board);
    ck_assert_ptr_null(fake.clock.timers); /* nothing of the board is left in the clock */
}

static void with_input(enum board_input input)
{
    board->config.input = input;
}

static void out(uint16_t port, uint8_t value)
{
    bus_write(board_bus(board), BUS_PORT, port, 1, value);
}

static uint8_t in(uint16_t port)
{
    return (uint8_t)bus_read(board_bus(board), BUS_PORT, port, 1);
}

static void lapic_write_register(uint32_t reg, uint32_t value)
{
    bus_write(board_bus(board), BUS_MEMORY, LAPIC_BASE + reg, 4, value);
}

static void ioapic_write_entry(unsigned pin, uint32_t low, uint32_t high)
{
    bus_write(board_bus(board), BUS_MEMORY, IOAPIC_BASE, 4, 0x11 + 2 * pin);
    bus_write(board_bus(board), BUS_MEMORY, IOAPIC_BASE + 0x10, 4, high);
    bus_write(board_bus(board), BUS_MEMORY, IOAPIC_BASE, 4, 0x10 + 2 * pin);
    bus_write(board_bus(board), BUS_MEMORY, IOAPIC_BASE + 0x10, 4, low);
}

static void start_pic(uint8_t master_mask, uint8_t slave_mask)
{
    static const uint8_t sequence[][2] = {{0x20, 0x11}, {0xa0, 0x11}, {0x21, 0x20}, {0xa1, 0x28},
                                          {0x21, 0x04}, {0xa1, 0x02}, {0x21, 0x01}, {0xa1, 0x01}};
    for (unsigned i = 0; i < 8; i++)
        out(sequence[i][0], sequence[i][1]);
    out(0x21, master_mask);
    out(0xa1, slave_mask);
}

static void start_pit_100hz(void)
{
    out(0x43, 0x34);
    out(0x40, 11932 & 0xff);
    out(0x40, 11932 >> 8);
}

static void run_ms(uint64_t ms)
{
    uint64_t end = fake.now + ms * 1000000;
    while (clock_next_deadline(&fake.clock) <= end)
        fake_clock_run_to(&fake, clock_next_deadline(&fake.clock));
    fake.now = end;
}

START_TEST(every_chip_is_where_a_pc_has_it)
{
    static const struct {
        enum bus_space space;
        uint32_t address;
        const char *name;
    } expected[] = {
        {BUS_PORT, 0x20, "i8259 master"},
        {BUS_PORT, 0xa1, "i8259 slave"},
        {BUS_PORT, 0x4d1, "elcr"},
        {BUS_PORT, 0x43, "i8254"},
        {BUS_PORT, 0x61, "port b"},
        {BUS_PORT, 0x60, "i8042"},
        {BUS_PORT, 0x64, "i8042"},
        {BUS_PORT, 0x71, "mc146818"},
        {BUS_PORT, 0x80, "post"},
        {BUS_PORT, 0x92, "port 92"},
        {BUS_PORT, 0xcf9, "reset"},
        {BUS_PORT, 0xe9, "debugcon"},
        {BUS_PORT, 0xcf8, "pci"},
        {BUS_PORT, 0xcff, "pci"},
        {BUS_PORT, 0xb3, "apm"},
        {BUS_PORT, 0x510, "fw_cfg"},
        {BUS_PORT, 0x604, "piix4 pm"},
        {BUS_PORT, 0xc00f, "piix3 ide"},
        {BUS_PORT, 0xf4, "debug exit"},
        {BUS_PORT, 0xf7, "debug exit"},
        {BUS_PORT, 0x3ff, "uart16550"},
        {BUS_PORT, 0x1f7, "ide 0"},
        {BUS_PORT, 0x3f6, "ide 0"},
        {BUS_PORT, 0x376, "ide 1"},
        {BUS_PORT, 0x3d5, "vga"},
        {BUS_PORT, 0x3da, "vga"},
        {BUS_MEMORY, 0xb8000, "vga"},
        {BUS_MEMORY, 0xbffff, "vga"},
        {BUS_MEMORY, 0xfec00010, "ioapic"},
        {BUS_MEMORY, 0xfee00020, "lapic"},
    };
    for (size_t i = 0; i < sizeof(expected) / sizeof(expected[0]); i++) {
        const struct bus_range *range = bus_find(board_bus(board), expected[i].space, expected[i].address);
        ck_assert_ptr_nonnull(range);
        ck_assert_str_eq(range->name, expected[i].name);
    }
    ck_assert_ptr_null(bus_find(board_bus(board), BUS_MEMORY, 0xc0000));
    ck_assert_uint_eq(in(0x2f8), 0xff); /* no COM2 */
    ck_assert_uint_eq(n_unclaimed, 1);
    ck_assert_uint_eq(unclaimed_address, 0x2f8);
}
END_TEST

START_TEST(the_timer_interrupts_through_the_8259_in_virtual_wire_mode)
{
    start_pic(0xfe, 0xff);
    start_pit_100hz();
    unsigned ticks = 0;
    for (unsigned ms = 0; ms < 1000; ms++) {
        run_ms(1);
        if (!board_intr(board))
            continue;
        ck_assert_uint_eq(board_acknowledge(board), 0x20);
        ck_assert(!board_intr(board));
        out(0x20, 0x20);
        ticks++;
    }
    ck_assert_uint_eq(ticks, 100);             /* at once with the control word, then 99.998 a second */
    ck_assert_uint_eq(n_lines, 2 * ticks - 1); /* it is high between ticks, and falls for one pulse */
}
END_TEST

START_TEST(the_timer_interrupts_through_input_2_of_the_ioapic)
{
    start_pic(0xff, 0xff);
    lapic_write_register(0xf0, 0x13f);
    ioapic_write_entry(2, 0x30, 0);
    start_pit_100hz();
    run_ms(11);
    ck_assert(board_intr(board));
    ck_assert_uint_eq(board_acknowledge(board), 0x30);
    ck_assert(!board_intr(board));
    run_ms(10);
    ck_assert(!board_intr(board)); /* until EOI */
    lapic_write_register(0xb0, 0);
    ck_assert(board_intr(board));
}
END_TEST

START_TEST(xv6_masks_lint0_and_takes_com1_through_the_ioapic)
{
    out(0x21, 0xff);
    out(0xa1, 0xff);
    lapic_write_register(0xf0, 0x13f);
    lapic_write_register(0x350, 0x10000);
    ioapic_write_entry(4, 0x24, 0);
    out(0x3f8 + 1, 0x01);
    run_ms(2);
    ck_assert_uint_eq(board_console_input(board, (const uint8_t *)"l", 1), 1);
    ck_assert(board_intr(board));
    ck_assert_uint_eq(board_acknowledge(board), 0x24);
    ck_assert_uint_eq(in(0x3f8), 'l');
    lapic_write_register(0xb0, 0);
    ck_assert(!board_intr(board));
}
END_TEST

START_TEST(a_line_that_falls_before_the_acknowledge_is_spurious)
{
    start_pic(0xef, 0xff);
    out(0x3f8 + 1, 0x02); /* THRE */
    ck_assert(board_intr(board));
    in(0x3f8 + 2);
    ck_assert(!board_intr(board));
    ck_assert_uint_eq(i8259_acknowledge(&board->pic), 0x27);
}
END_TEST

START_TEST(without_the_local_apic_the_8259_is_the_interrupt_pin)
{
    start_pic(0xef, 0xff);
    ck_assert_uint_eq(board_apic_base(board), 0xfee00900);
    ck_assert(!board_write_apic_base(board, 0xfed00900));
    ck_assert(!board_write_apic_base(board, 0xfee00900 | 1));
    ck_assert(board_write_apic_base(board, 0xfee00100));
    ck_assert_uint_eq(bus_read(board_bus(board), BUS_MEMORY, LAPIC_BASE + 0x30, 4), 0xffffffff);
    ck_assert_uint_eq(n_unclaimed, 1);
    out(0x3f8 + 1, 0x02);
    ck_assert(board_intr(board));
    ck_assert_uint_eq(board_acknowledge(board), 0x24);
    ck_assert(board_write_apic_base(board, 0xfee00900));
    ck_assert_uint_eq(bus_read(board_bus(board), BUS_MEMORY, LAPIC_BASE + 0x30, 4) & 0xff, LAPIC_VERSION);
}
END_TEST

START_TEST(an_nmi_is_taken_once)
{
    ck_assert(!board_nmi_take(board));
    lapic_write_register(0x300, 0x00040400); /* NMI to itself */
    ck_assert(board_nmi(board));
    ck_assert(board_nmi_take(board));
    ck_assert(!board_nmi(board));
    ck_assert(!board_nmi_take(board));
}
END_TEST

START_TEST(the_rtc_comes_through_the_slave)
{
    start_pic(0xfb, 0xfe);
    out(0x70, 0x0b);
    out(0x71, 0x12);
    run_ms(1000);
    ck_assert(board_intr(board));
    ck_assert_uint_eq(board_acknowledge(board), 0x28);
    out(0x70, 0x0c);
    ck_assert_uint_eq(in(0x71) & 0x90, 0x90);
}
END_TEST

START_TEST(a_word_written_to_the_rtc_is_index_and_data)
{
    bus_write(board_bus(board), BUS_PORT, 0x70, 2, 0x5a40);
    ck_assert_uint_eq(bus_read(board_bus(board), BUS_PORT, 0x70, 2), 0x5aff);
}
END_TEST

START_TEST(output_reaches_the_console)
{
    out(0x3f8, 'u');
    out(0xe9, 'd');
    ck_assert_uint_eq(in(0xe9), 0xe9);
    ck_assert_str_eq(console, "ud");
}
END_TEST

START_TEST(input_waits_until_the_guest_listens)
{
    const uint8_t *text = (const uint8_t *)"date\r";
    ck_assert(!board_console_wants_input(board));
    ck_assert_uint_eq(board_console_input(board, text, 5), 0);
    out(0x3f8 + 4, 0x01); /* DTR alone: Linux's console, which does not read yet */
    run_ms(2);
    ck_assert(!board_console_wants_input(board));
    out(0x3f8 + 4, 0x03); /* DTR, RTS: as U-Boot and Linux begin */
    ck_assert(!board_console_wants_input(board));
    ck_assert_uint_lt(clock_next_deadline(&fake.clock), CLOCK_NO_DEADLINE); /* which will wake the monitor */
    out(0x3f8 + 2, 0x07);
    run_ms(2);
    ck_assert(board_console_wants_input(board));
    ck_assert_uint_eq(board_console_input(board, text, 5), 5);
    ck_assert_uint_eq(in(0x3f8), 'd');
    ck_assert_uint_eq(board_console_input(board, (const uint8_t *)"0123456789abcdef", 16), 12);
    ck_assert(!board_console_wants_input(board));
    ck_assert_uint_eq(in(0x64) & 1, 0); /* and nothing went to the keyboard */
}
END_TEST

START_TEST(without_a_uart_driver_input_is_typed)
{
    start_pic(0xff, 0xff);
    ck_assert(!board_console_wants_input(board));
    out(0x21, 0xfd); /* IRQ 1 unmasked, the controller left as firmware set it up */
    ck_assert(board_console_wants_input(board));
    ck_assert_uint_eq(board_console_input(board, (const uint8_t *)"ab", 2), 1);
    ck_assert_uint_eq(board_acknowledge(board), 0x21);
    ck_assert_uint_eq(in(0x60), 0x1e);
    out(0x20, 0x20);
    ck_assert_uint_eq(board_acknowledge(board), 0x21);
    ck_assert_uint_eq(in(0x60), 0x9e);
    ck_assert_uint_eq(board_console_input(board, (const uint8_t *)"b", 1), 1);
    ck_assert_uint_eq(in(0x60), 0x30);
}
END_TEST

START_TEST(initialising_the_8259_is_no_interest_in_the_keyboard)
{
    out(0x20, 0x11);
    out(0x21, 0x20);
    out(0x21, 0x04);
    out(0x21, 0x01); /* everything is unmasked until OCW1 */
    ck_assert(!board_console_wants_input(board));
    out(0x21, 0xff);
    ck_assert(!board_console_wants_input(board));
}
END_TEST

START_TEST(the_target_of_input_can_be_fixed)
{
    with_input(BOARD_INPUT_KEYBOARD);
    out(0x3f8 + 4, 0x03);
    run_ms(2);
    ck_assert_uint_eq(board_console_input(board, (const uint8_t *)"x", 1), 1);
    ck_assert_uint_eq(in(0x60), 0x2d);
    with_input(BOARD_INPUT_UART);
    ck_assert_uint_eq(board_console_input(board, (const uint8_t *)"x", 1), 1);
    ck_assert_uint_eq(in(0x3f8), 'x');
}
END_TEST

START_TEST(ways_to_reset_and_to_end)
{
    out(0x64, 0xfe);
    ck_assert_uint_eq(n_resets, 1);
    out(0x92, 0x03);
    ck_assert_uint_eq(n_resets, 2);
    out(0x92, 0x03); /* no edge */
    ck_assert_uint_eq(n_resets, 2);
    out(0xcf9, 0x02);
    ck_assert_uint_eq(n_resets, 2);
    out(0xcf9, 0x06);
    ck_assert_uint_eq(n_resets, 3);
    ck_assert_ptr_nonnull(strstr(reset_reason, "0xCF9"));
    bus_write(board_bus(board), BUS_PORT, 0xcf8, 4, 0x80000000 | 6 << 8); /* a PCI probe is no reset */
    ck_assert_uint_eq(n_resets, 3);
    ck_assert_uint_eq(bus_read(board_bus(board), BUS_PORT, 0xcf8, 4), 0x80000600);
    lapic_write_register(0x300, 0x00044500); /* INIT to itself */
    ck_assert_uint_eq(n_resets, 4);

    bus_write(board_bus(board), BUS_PORT, 0xf4, 4, 0x10);
    ck_assert_uint_eq(n_debug_exits, 1);
    ck_assert_uint_eq(debug_exit_value, 0x10);
    ck_assert_uint_eq(in(0xf4), 0);
    bus_write(board_bus(board), BUS_PORT, 0x604, 2, 0x3400); /* another sleep state */
    ck_assert_uint_eq(n_power_offs, 0);
    ck_assert_uint_eq(bus_read(board_bus(board), BUS_PORT, 0x604, 2), 0x1400); /* SLP_EN reads as 0 */
    bus_write(board_bus(board), BUS_PORT, 0x604, 2, 0x2000);
    ck_assert_uint_eq(n_power_offs, 1);
    out(0x604, 0);
    out(0x605, 0x20); /* byte by byte */
    ck_assert_uint_eq(n_power_offs, 2);
    out(0x80, 0x42);
    ck_assert_uint_eq(in(0x80), 0x42);
}
END_TEST

START_TEST(two_gates_open_a20)
{
    ck_assert(board_a20_enabled(board));
    out(0x92, 0x00);
    ck_assert(board_a20_enabled(board));
    out(0x64, 0xdd);
    ck_assert(!board_a20_enabled(board));
    out(0x92, 0x02);
    ck_assert(board_a20_enabled(board));
}
END_TEST

START_TEST(reset_brings_power_on_state_back)
{
    struct screen screen;

    start_pic(0xfe, 0xff);
    start_pit_100hz();
    out(0x3f8 + 4, 0x03);
    lapic_write_register(0xf0, 0x0ff);
    ck_assert(board_write_apic_base(board, 0xfee00100));
    out(0x70, 0x0f);
    out(0x71, 0x0a);
    out(0x64, 0xdd);
    bus_write(board_bus(board), BUS_MEMORY, 0xb8000, 2, 0x0741);
    board_screen(board, &screen);
    ck_assert_uint_eq(screen.cells[0], 'A');
    board_reset(board);
    ck_assert(!board_intr(board));
    ck_assert_ptr_null(fake.clock.timers);
    ck_assert_uint_eq(board_apic_base(board), 0xfee00900);
    ck_assert_uint_eq(bus_read(board_bus(board), BUS_MEMORY, LAPIC_BASE + 0xf0, 4), 0x1ff); /* firmware's */
    ck_assert_uint_eq(in(0x3f8 + 4), 0);
    ck_assert(!board_console_wants_input(board));
    ck_assert(board_a20_enabled(board));
    out(0x70, 0x0f);
    ck_assert_uint_eq(in(0x71), 0x0a); /* the battery keeps it */
    start_pic(0xfe, 0xff);
    start_pit_100hz();
    ck_assert(board_intr(board));
}
END_TEST

START_TEST(firmware_tables_describe_this_board)
{
    board_install_firmware(board);
    const uint8_t *pointer = low_memory + MPTABLE_GPA;
    ck_assert_int_eq(memcmp(pointer, "_MP_", 4), 0);
    uint32_t address;
    memcpy(&address, pointer + 4, 4);
    ck_assert_uint_lt(address, sizeof(low_memory) - 512);
    const uint8_t *table = low_memory + address;
    ck_assert_int_eq(memcmp(table, "PCMP", 4), 0);
    unsigned size = table[4] | table[5] << 8;
    uint8_t sum = 0;
    for (unsigned i = 0; i < size; i++)
        sum = (uint8_t)(sum + table[i]);
    ck_assert_uint_eq(sum, 0);
    /* The processor entry, a bus, then the I/O APIC: its ID is the one its register shows. */
    ck_assert_uint_eq(table[44], 0);
    ck_assert_uint_eq(table[44 + 20 + 8], 2);
    bus_write(board_bus(board), BUS_MEMORY, IOAPIC_BASE, 4, 0);
    ck_assert_uint_eq(bus_read(board_bus(board), BUS_MEMORY, IOAPIC_BASE + 0x10, 4) >> 24,
                      table[44 + 20 + 8 + 1]);
    ck_assert_uint_eq(low_memory[0x40e] | low_memory[0x40f] << 8, EBDA_GPA >> 4);
}
END_TEST

START_TEST(drives_are_attached_in_order)
{
    char path[] = "/tmp/ring3-test-board-XXXXXX", error[256];
    int fd = mkstemp(path);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(ftruncate(fd, 32768), 0);
    close(fd);

    board_destroy(board);
    config.drive[1] = (struct drive_config){.path = path, .snapshot = true};
    board = board_create(&config, error, sizeof(error));
    ck_assert_ptr_nonnull(board);
    out(0x1f6, 0xb0); /* the slave of the primary channel */
    ck_assert_uint_eq(in(0x1f7) & 0xc0, 0x40);
    unlink(path);

    config.drive[1].path = "/nonexistent/disk.img";
    ck_assert_ptr_null(board_create(&config, error, sizeof(error)));
    ck_assert_ptr_nonnull(strstr(error, "/nonexistent/disk.img"));
}
END_TEST

/* The same calls at the same times leave the same state: nothing else goes in. */
START_TEST(a_run_repeats_exactly)
{
    uint32_t checks[2];
    for (unsigned run = 0; run < 2; run++) {
        board_destroy(board);
        setup();
        uint32_t seed = 7, check = 0;
        for (unsigned i = 0; i < 50000; i++) {
            seed = seed * 1664525 + 1013904223;
            uint16_t port = (uint16_t)(seed >> 16 & 0x3ff);
            if (port >= 0xf4 && port <= 0xf7)
                continue;
            n_console = 0;
            if (seed & 0x8000)
                out(port, (uint8_t)(seed >> 7));
            else
                check = check * 31 + in(port);
            if (board_console_wants_input(board))
                board_console_input(board, (const uint8_t *)"q", 1);
            if (board_intr(board))
                check = check * 31 + board_acknowledge(board);
            fake_clock_run_to(&fake, fake.now + (seed >> 4 & 0xfff));
        }
        checks[run] = check;
    }
    ck_assert_uint_eq(checks[0], checks[1]);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("board");
    TCase *tests = tcase_create("board");
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_test(tests, every_chip_is_where_a_pc_has_it);
    tcase_add_test(tests, the_timer_interrupts_through_the_8259_in_virtual_wire_mode);
    tcase_add_test(tests, the_timer_interrupts_through_input_2_of_the_ioapic);
    tcase_add_test(tests, xv6_masks_lint0_and_takes_com1_through_the_ioapic);
    tcase_add_test(tests, a_line_that_falls_before_the_acknowledge_is_spurious);
    tcase_add_test(tests, without_the_local_apic_the_8259_is_the_interrupt_pin);
    tcase_add_test(tests, an_nmi_is_taken_once);
    tcase_add_test(tests, the_rtc_comes_through_the_slave);
    tcase_add_test(tests, a_word_written_to_the_rtc_is_index_and_data);
    tcase_add_test(tests, output_reaches_the_console);
    tcase_add_test(tests, input_waits_until_the_guest_listens);
    tcase_add_test(tests, without_a_uart_driver_input_is_typed);
    tcase_add_test(tests, initialising_the_8259_is_no_interest_in_the_keyboard);
    tcase_add_test(tests, the_target_of_input_can_be_fixed);
    tcase_add_test(tests, ways_to_reset_and_to_end);
    tcase_add_test(tests, two_gates_open_a20);
    tcase_add_test(tests, reset_brings_power_on_state_back);
    tcase_add_test(tests, firmware_tables_describe_this_board);
    tcase_add_test(tests, drives_are_attached_in_order);
    tcase_add_test(tests, a_run_repeats_exactly);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
