/* Bus master IDE as a driver uses it: descriptor tables, both directions, the ends that a transfer can have,
 * and tables that no driver would write. */
#include "devices/piix3_ide.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define MEMORY_SIZE (1u << 20)
#include "dma_memory.h"

#define BM      PIIX3_IDE_FIRMWARE_BASE
#define TABLE   0x1000u
#define SECTORS 600u

#define ACTIVE    0x01
#define ERROR     0x02
#define INTERRUPT 0x04

static struct bus bus;
static struct ide_channel channel[2];
static struct piix3_ide ide;
static struct disk disk;
static bool irq[16];

static void set_irq(void *ctx, unsigned pin, bool level)
{
    (void)ctx;
    irq[pin] = level;
}

static uint8_t pattern(uint32_t i)
{
    return (uint8_t)(i * 7 + (i >> 9) * 3);
}

static void setup(void)
{
    char path[32], error[256] = "";
    int fd = memfd_create("disk", 0);
    uint8_t sector[512];

    for (uint32_t s = 0; s < SECTORS; s++) {
        for (unsigned i = 0; i < 512; i++)
            sector[i] = pattern(s * 512 + i);
        ck_assert_int_eq(write(fd, sector, 512), 512);
    }
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    ck_assert_msg(disk_open(&disk, path, true, error, sizeof error), "%s", error);
    close(fd);
    memset(&bus, 0, sizeof bus);
    memset(memory, 0, sizeof memory);
    for (unsigned i = 0; i < 2; i++)
        ide_init(&channel[i], (struct irq_line){piix3_ide_set_intrq, &ide.master[i], 0},
                 (struct irq_line){piix3_ide_set_dmarq, &ide.master[i], 0});
    piix3_ide_init(&ide, &bus, channel, (struct irq_line){set_irq, NULL, 14},
                   (struct irq_line){set_irq, NULL, 15}, &host);
    ide_attach(&channel[0], 0, &disk, 0);
    bus_claim(&bus, BUS_PORT, 0x1f0, 0x1f7, &ide_command_ops, &channel[0], "ide 0");
    piix3_ide_open(&ide);
}

static void teardown(void)
{
    disk_close(&disk);
}

static uint32_t in(uint32_t port, unsigned size)
{
    return bus_read(&bus, BUS_PORT, port, size);
}

static void out(uint32_t port, unsigned size, uint32_t value)
{
    bus_write(&bus, BUS_PORT, port, size, value);
}

static void put_descriptor(unsigned index, uint32_t gpa, uint32_t count_and_flags)
{
    memcpy(memory + TABLE + 8 * index, &gpa, 4);
    memcpy(memory + TABLE + 8 * index + 4, &count_and_flags, 4);
}

#define LAST 0x80000000u

static void command(uint8_t opcode, uint32_t lba, uint8_t count)
{
    out(0x1f2, 1, count);
    out(0x1f3, 1, lba & 0xff);
    out(0x1f4, 1, lba >> 8 & 0xff);
    out(0x1f5, 1, lba >> 16 & 0xff);
    out(0x1f6, 1, 0xe0);
    out(0x1f7, 1, opcode);
}

/* As Linux: table, direction, clear the status; the command; then the start. */
static void transfer(uint8_t opcode, uint32_t lba, uint8_t count)
{
    uint8_t direction = opcode == 0xc8 ? 0x08 : 0x00;

    out(BM + 4, 4, TABLE);
    out(BM, 1, direction);
    out(BM + 2, 1, 0x66);
    command(opcode, lba, count);
    out(BM, 1, direction | 1);
}

static void expect_bytes(uint32_t gpa, uint32_t offset, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        if (memory[gpa + i] != pattern(offset + i))
            ck_abort_msg("byte %u is %02x, want %02x", i, memory[gpa + i], pattern(offset + i));
}

START_TEST(it_is_found_and_sized)
{
    ck_assert_uint_eq(pci_read_config(&ide.function, 0, 4), 0x70108086);
    ck_assert_uint_eq(pci_read_config(&ide.function, 9, 2), 0x0180);
    ck_assert_uint_eq(pci_read_config(&ide.function, 0x40, 4), 0x80008000);
    pci_write_config(&ide.function, 0x20, 4, 0xffffffff);
    ck_assert_uint_eq(pci_read_config(&ide.function, 0x20, 4), 0xfffffff1);
    ck_assert(!ide.window.is_open);
    pci_write_config(&ide.function, 0x20, 4, 0xd000);
    ck_assert_uint_eq(in(0xd000, 1), 0);
    pci_write_config(&ide.function, 4, 2, 0);
    ck_assert_uint_eq(in(0xd000, 1), 0xff);
}
END_TEST

START_TEST(a_read_scatters_over_the_descriptors)
{
    put_descriptor(0, 0x8000, 512);
    put_descriptor(1, 0x9002, 30);
    put_descriptor(2, 0xa000, (3 * 512 - 30) | LAST);
    transfer(0xc8, 5, 4);
    ck_assert_uint_eq(in(BM + 2, 1), 0x60 | INTERRUPT);
    ck_assert(irq[14]);
    ck_assert_uint_eq(in(0x1f7, 1), 0x50);
    ck_assert(!irq[14]);
    expect_bytes(0x8000, 5 * 512, 512);
    expect_bytes(0x9002, 6 * 512, 30);
    expect_bytes(0xa000, 6 * 512 + 30, 3 * 512 - 30);
    out(BM + 2, 1, 0x64);
    ck_assert_uint_eq(in(BM + 2, 1), 0x60);
}
END_TEST

START_TEST(a_whole_command_of_256_sectors_moves)
{
    put_descriptor(0, 0x10000, 0); /* 64 KiB */
    put_descriptor(1, 0x40000, 0 | LAST);
    transfer(0xc8, 100, 0);
    ck_assert_uint_eq(in(BM + 2, 1), 0x60 | INTERRUPT);
    expect_bytes(0x10000, 100 * 512, 0x10000);
    expect_bytes(0x40000, 100 * 512 + 0x10000, 0x10000);
}
END_TEST

START_TEST(a_write_gathers)
{
    uint8_t sector[512];

    memset(memory + 0x8000, 0xaa, 512);
    memset(memory + 0x9000, 0xbb, 512);
    put_descriptor(0, 0x8000, 512);
    put_descriptor(1, 0x9000, 512 | LAST);
    transfer(0xca, 20, 2);
    ck_assert_uint_eq(in(BM + 2, 1), 0x60 | INTERRUPT);
    ck_assert(disk_read(&disk, 20, sector));
    ck_assert_uint_eq(sector[0], 0xaa);
    ck_assert(disk_read(&disk, 21, sector));
    ck_assert_uint_eq(sector[511], 0xbb);
}
END_TEST

START_TEST(the_bus_master_may_start_first)
{
    put_descriptor(0, 0x8000, 512 | LAST);
    out(BM + 4, 4, TABLE);
    out(BM, 1, 0x09);
    ck_assert_uint_eq(in(BM + 2, 1), ACTIVE);
    command(0xc8, 7, 1);
    ck_assert_uint_eq(in(BM + 2, 1), INTERRUPT);
    expect_bytes(0x8000, 7 * 512, 512);
}
END_TEST

START_TEST(too_large_a_table_stays_active)
{
    put_descriptor(0, 0x8000, 1024 | LAST);
    transfer(0xc8, 0, 1);
    ck_assert_uint_eq(in(BM + 2, 1), 0x60 | ACTIVE | INTERRUPT);
    expect_bytes(0x8000, 0, 512);
    ck_assert_uint_eq(memory[0x8200], 0);
    out(BM, 1, 0x08);
    ck_assert_uint_eq(in(BM + 2, 1), 0x60 | INTERRUPT);
}
END_TEST

START_TEST(too_small_a_table_leaves_the_drive_waiting)
{
    put_descriptor(0, 0x8000, 512 | LAST);
    transfer(0xc8, 0, 2);
    ck_assert_uint_eq(in(BM + 2, 1), 0x60); /* neither active nor interrupting: the table was too small */
    ck_assert_uint_eq(in(0x1f7, 1), 0x58);
    out(0x1f7, 1, 0xe0); /* and another command ends that */
    ck_assert_uint_eq(in(0x1f7, 1), 0x50);
}
END_TEST

START_TEST(memory_that_is_not_there_is_an_error)
{
    put_descriptor(0, 0xf0000000, 512 | LAST);
    transfer(0xc8, 0, 1);
    ck_assert_uint_eq(in(BM + 2, 1), 0x60 | ERROR);
    out(BM, 1, 0);
    out(BM + 2, 1, ERROR);
    out(BM + 4, 4, 0xfffffff0);
    out(BM, 1, 9);
    ck_assert_uint_eq(in(BM + 2, 1) & (ERROR | ACTIVE), ERROR);
}
END_TEST

START_TEST(the_wrong_direction_moves_nothing)
{
    put_descriptor(0, 0x8000, 512 | LAST);
    out(BM + 4, 4, TABLE);
    command(0xc8, 0, 1);
    out(BM, 1, 0x01); /* to the drive, which wants to give */
    ck_assert_uint_eq(in(BM + 2, 1), ACTIVE);
    ck_assert_uint_eq(memory[0x8001], 0);
}
END_TEST

START_TEST(a_sector_that_is_not_there_ends_in_an_error_of_the_drive)
{
    put_descriptor(0, 0x8000, 0 | LAST);
    transfer(0xc8, SECTORS - 20, 40); /* more than a buffer full is there */
    ck_assert_uint_eq(in(0x1f7, 1), 0x51);
    ck_assert_uint_eq(in(0x1f1, 1), 0x10);
    ck_assert_uint_eq(in(0x1f3, 1), SECTORS & 0xff);
    ck_assert(in(BM + 2, 1) & INTERRUPT);
}
END_TEST

START_TEST(the_channels_are_apart)
{
    put_descriptor(0, 0x8000, 512 | LAST);
    out(BM + 8 + 4, 4, TABLE);
    out(BM + 8, 1, 0x09);
    ck_assert_uint_eq(in(BM + 8 + 4, 4), TABLE);
    ck_assert_uint_eq(in(BM + 4, 4), 0);
    command(0xc8, 0, 1);
    ck_assert_uint_eq(memory[0x8001], 0);
    ck_assert_uint_eq(in(BM + 8 + 2, 1), ACTIVE);
}
END_TEST

static Suite *bus_master_suite(void)
{
    Suite *suite = suite_create("piix3_ide");
    TCase *cases = tcase_create("bus master");

    tcase_add_checked_fixture(cases, setup, teardown);
    tcase_add_test(cases, it_is_found_and_sized);
    tcase_add_test(cases, a_read_scatters_over_the_descriptors);
    tcase_add_test(cases, a_whole_command_of_256_sectors_moves);
    tcase_add_test(cases, a_write_gathers);
    tcase_add_test(cases, the_bus_master_may_start_first);
    tcase_add_test(cases, too_large_a_table_stays_active);
    tcase_add_test(cases, too_small_a_table_leaves_the_drive_waiting);
    tcase_add_test(cases, memory_that_is_not_there_is_an_error);
    tcase_add_test(cases, the_wrong_direction_moves_nothing);
    tcase_add_test(cases, a_sector_that_is_not_there_ends_in_an_error_of_the_drive);
    tcase_add_test(cases, the_channels_are_apart);
    suite_add_tcase(suite, cases);
    return suite;
}

int main(void)
{
    SRunner *runner = srunner_create(bus_master_suite());

    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
