/*
 * Every chip of the board under accesses made of chance, of all sizes at all addresses, while time moves by
 * anything from nothing to decades. Nothing may be overrun (the sanitizers watch), every value read must fit
 * its size, and no access may keep the machine busy.
 *
 * Read next: hostile_values.h.
 */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "fake_clock.h"
#include "hostile_values.h"

#define N_MACHINES 60u
#define N_ACCESSES 20000u
#define DRIVE_SIZE (64l * 512)
#define TIME_END   (UINT64_C(1) << 62) /* 146 years: the clock's own 584 are not for guests to use up */

static struct fake_clock fake;
static bool is_over; /* the guest ended its run: what the monitor would have obeyed at once */
static uint64_t n_written;
static struct chance dma_chance;

static void host_write(void *ctx, const void *bytes, size_t n)
{
    (void)ctx;
    for (size_t i = 0; i < n; i++)
        n_written += ((const uint8_t *)bytes)[i]; /* all of it is there */
}

static void host_event(void *ctx)
{
    (void)ctx;
}

static void host_power_off(void *ctx)
{
    (void)ctx;
    is_over = true;
}

static void host_reset(void *ctx, const char *why)
{
    (void)ctx;
    is_over = why != NULL;
}

static void host_debug_exit(void *ctx, uint32_t value)
{
    (void)ctx;
    (void)value;
    is_over = true;
}

static void host_guest_write(void *ctx, uint64_t gpa, const void *bytes, size_t n)
{
    (void)ctx;
    (void)bytes;
    ck_assert_uint_le(gpa + n, 1u << 20);
}

/* Memory full of chance: descriptors of every kind, and ends of memory in the midst of transfers. */
static bool host_dma_read(void *ctx, uint64_t gpa, void *bytes, size_t n)
{
    (void)ctx;
    if (chance_one_in(&dma_chance, 20))
        return false;
    for (size_t i = 0; i < n; i++)
        ((uint8_t *)bytes)[i] = chance_one_in(&dma_chance, 2) ? 0 : (uint8_t)(chance_any(&dma_chance) + gpa);
    return true;
}

static bool host_dma_write(void *ctx, uint64_t gpa, const void *bytes, size_t n)
{
    (void)gpa;
    host_write(ctx, bytes, n);
    return !chance_one_in(&dma_chance, 20);
}

static void host_shadow_ram(void *ctx, uint64_t gpa, uint64_t size, bool is_read, bool is_write)
{
    (void)ctx;
    (void)is_read;
    (void)is_write;
    ck_assert(gpa >= 0xc0000 && gpa + size <= 0x100000);
}

static struct board *make_board(struct chance *chance, int drive)
{
    static char path[32];
    struct board_config config = {
        .ram_size = chance_one_in(chance, 2) ? 1u << 20 : 64u << 20,
        .input = (enum board_input)chance_below(chance, 3),
        .host = {.console_write = host_write,
                 .screen_changed = host_event,
                 .reset = host_reset,
                 .power_off = host_power_off,
                 .debug_exit = host_debug_exit,
                 .guest_write = host_guest_write,
                 .dma_read = host_dma_read,
                 .dma_write = host_dma_write,
                 .shadow_ram = host_shadow_ram},
        .boots_firmware = chance_one_in(chance, 3),
        .clock = &fake.clock,
    };
    char error[256] = "";
    struct board *board;

    dma_chance = *chance;
    snprintf(path, sizeof path, "/proc/self/fd/%d", drive);
    for (unsigned i = 0; i < BOARD_MAX_DRIVES && drive >= 0; i++)
        if (chance_one_in(chance, 2))
            config.drive[i] = (struct drive_config){.path = path, .snapshot = chance_one_in(chance, 2)};
    fake_clock_init(&fake);
    fake.clock.wall_offset =
        (int64_t)(chance_one_in(chance, 2) ? 946684800u : chance_any(chance)) * 1000000000;
    board = board_create(&config, error, sizeof error);
    ck_assert_msg(board != NULL, "%s", error);
    board_install_firmware(board);
    return board;
}

static uint32_t any_address(struct chance *chance, enum bus_space space)
{
    static const uint32_t bases[] = {0xa0000, 0xb8000, 0xbfffc, 0xfec00000, 0xfee00000, 0xfffffffc};
    static const uint32_t registers[] = {0x20,  0x80,  0xb0,  0xd0,  0xe0,  0xf0,  0x280, 0x300, 0x310, 0x320,
                                         0x330, 0x350, 0x360, 0x370, 0x380, 0x390, 0x3e0, 0x00,  0x10};

    if (space == BUS_PORT)
        return hostile_port(chance);
    switch (chance_below(chance, 4)) {
    case 0:
        return hostile_address(chance);
    case 1:
        return PICK(chance, bases) + chance_below(chance, 8);
    case 2:
        return 0xa0000 + chance_below(chance, 0x20000);
    default:
        return (chance_one_in(chance, 4) ? 0xfec00000u : 0xfee00000u) + PICK(chance, registers);
    }
}

/* Long leaps are rare, so that there is time for many. */
static void pass_time(struct chance *chance)
{
    static const uint64_t most[] = {
        1, 1, 1000, 1000, 100000, 100000, 50000000, 2000000000, UINT64_C(1) << 44};
    uint64_t most_now = PICK(chance, most);
    uint64_t by = ((uint64_t)chance_any(chance) << 32 | chance_any(chance)) % most_now;

    if (chance_one_in(chance, 5000))
        by = UINT64_C(1) << 59;
    if (fake.now + by < TIME_END)
        fake_clock_run_to(&fake, fake.now + by);
}

static void access_something(struct board *board, struct chance *chance)
{
    enum bus_space space = chance_one_in(chance, 3) ? BUS_MEMORY : BUS_PORT;
    uint32_t address = any_address(chance, space),
             value = chance_one_in(chance, 2) ? chance_below(chance, 256) : hostile_value(chance);
    unsigned size = 1u << chance_below(chance, 3);

    if (chance_one_in(chance, 2)) {
        bus_write(board_bus(board), space, address, size, value);
    } else {
        value = bus_read(board_bus(board), space, address, size);
        if (size < 4 && value >> 8 * size != 0)
            ck_abort_msg("%u bytes at %#x read as %#x", size, address, value);
    }
}

/* Registers of the functions that there are, which chance alone hardly finds. */
static void configure_something(struct board *board, struct chance *chance)
{
    static const uint32_t functions[] = {0x80000000, 0x80000800, 0x80000900, 0x80000b00};
    static const uint32_t values[] = {0x1, 0x5, 0x601, 0xc001, 0x21, 0xffe1, 0x8000, 0xb0b0a0a, 0xffffffff};

    bus_write(board_bus(board), BUS_PORT, 0xcf8, 4, PICK(chance, functions) | chance_below(chance, 64) << 2);
    bus_write(board_bus(board), BUS_PORT, 0xcfc + chance_below(chance, 4), 1u << chance_below(chance, 3),
              chance_one_in(chance, 2) ? PICK(chance, values) : chance_any(chance));
}

static void surroundings(struct board *board, struct chance *chance)
{
    uint8_t input[64];
    struct screen screen;
    uint32_t sum = 0;

    switch (chance_below(chance, 12)) {
    case 0:
        for (unsigned i = 0; i < sizeof input; i++)
            input[i] = (uint8_t)chance_any(chance);
        ck_assert_uint_le(board_console_input(board, input, sizeof input), sizeof input);
        break;
    case 1:
        board_screen(board, &screen);
        for (unsigned i = 0; i < 2 * screen.rows * screen.columns; i++)
            sum += screen.cells[i];
        ck_assert(screen.columns == 80 && screen.rows == 25 && sum <= 255 * 4000);
        break;
    case 2:
        board_write_apic_base(board, chance_one_in(chance, 2) ? 0xfee00900 : hostile_value(chance));
        break;
    case 3:
        if (chance_one_in(chance, 200))
            board_reset(board);
        break;
    case 4:
        (void)board_nmi_take(board);
        break;
    case 5:
        configure_something(board, chance);
        break;
    default:
        if (board_intr(board) && chance_one_in(chance, 2))
            (void)board_acknowledge(board);
    }
}

START_TEST(no_access_breaks_a_chip)
{
    struct chance chance = chance_of_seed((uint64_t)_i);
    int drive = memfd_create("drive", 0);
    struct board *board;

    ck_assert(drive >= 0 && ftruncate(drive, DRIVE_SIZE) == 0);
    board = make_board(&chance, drive);
    for (unsigned i = 0; i < N_ACCESSES; i++) {
        access_something(board, &chance);
        if (is_over) {
            board_reset(board);
            is_over = false;
        }
        pass_time(&chance);
        surroundings(board, &chance);
    }
    board_destroy(board);
    ck_assert_ptr_null(fake.clock.timers);
    close(drive);
}
END_TEST

static void write_rtc(struct board *board, uint8_t index, uint8_t value)
{
    bus_write(board_bus(board), BUS_PORT, 0x70, 1, index);
    bus_write(board_bus(board), BUS_PORT, 0x71, 1, value);
}

/* An alarm at a second, minute or hour that never comes, or only in a day's time: finding that out is not to
 * cost a walk through the day at every access, which a guest can repeat thousands of times in an instruction.
 */
START_TEST(rtc_alarm_is_found_quickly)
{
    static const uint8_t alarms[][3] = {
        {0x99, 0xff, 0xff}, {0xff, 0x99, 0xff}, {0xff, 0xff, 0x99}, {0x59, 0xff, 0xff}, {0x00, 0x00, 0x00}};
    struct chance chance = chance_of_seed(1);
    struct board *board = make_board(&chance, -1);
    struct timespec before, after;

    write_rtc(board, 5, alarms[_i][2]);
    write_rtc(board, 3, alarms[_i][1]);
    write_rtc(board, 1, alarms[_i][0]);
    write_rtc(board, 0xb, 0x22); /* 24 hours, alarm interrupt */
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &before);
    for (unsigned i = 0; i < 20000; i++)
        write_rtc(board, 0x20, 0);
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &after);
    ck_assert_int_lt(after.tv_sec - before.tv_sec, 3);
    board_destroy(board);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("hostile devices");
    TCase *cases = tcase_create("accesses");
    SRunner *runner;
    int n_failed;

    tcase_add_loop_test(cases, no_access_breaks_a_chip, 0, N_MACHINES);
    tcase_add_loop_test(cases, rtc_alarm_is_found_quickly, 0, 5);
    tcase_set_timeout(cases, 60);
    suite_add_tcase(suite, cases);
    runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    n_failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return n_failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
