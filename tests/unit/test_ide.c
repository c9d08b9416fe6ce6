/* ATA channels as kernels drive them: probing, PIO transfers, errors, resets; and the disk images behind
 * them. */
#include "devices/ide.h"

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define SECTORS 4000u

enum { DATA, ERROR, COUNT, LOW, MID, HIGH, DEVICE, STATUS };
#define FEATURES ERROR
#define COMMAND  STATUS

#define READY 0x50
#define DRQ   0x08
#define ERR   0x01
#define DF    0x20
#define UNC   0x40
#define IDNF  0x10
#define ABRT  0x04

static struct ide_channel channel;
static struct disk disk[2];
static char path[2][64];
static bool irq_level;
static unsigned irq_edges;

static void set_irq(void *ctx, unsigned pin, bool level)
{
    ck_assert_ptr_eq(ctx, &channel);
    ck_assert_uint_eq(pin, 14);
    irq_edges += level && !irq_level;
    irq_level = level;
}

static bool dmarq;

static void set_dmarq(void *ctx, unsigned pin, bool level)
{
    (void)pin;
    ck_assert_ptr_eq(ctx, &channel);
    dmarq = level;
}

/* Byte i of sector s of image d, as made by make_image(). */
static uint8_t pattern(unsigned d, uint32_t s, unsigned i)
{
    return (uint8_t)(d * 101 + s * 7 + (s >> 8) + i * 3 + (i >> 8));
}

static void make_file(char *name, size_t size)
{
    const char *directory = getenv("TMPDIR");
    snprintf(name, 64, "%s/ring3-ide-XXXXXX", directory != NULL ? directory : "/tmp");
    int fd = mkstemp(name);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(ftruncate(fd, (off_t)size), 0);
    close(fd);
}

static void make_image(unsigned d, uint32_t sectors)
{
    make_file(path[d], 0);
    FILE *file = fopen(path[d], "wb");
    ck_assert_ptr_nonnull(file);
    for (uint32_t s = 0; s < sectors; s++) {
        uint8_t bytes[512];
        for (unsigned i = 0; i < 512; i++)
            bytes[i] = pattern(d, s, i);
        ck_assert_uint_eq(fwrite(bytes, 512, 1, file), 1);
    }
    ck_assert_int_eq(fclose(file), 0);
}

static void attach(unsigned unit, uint32_t sectors, bool snapshot)
{
    char error[256] = "";
    make_image(unit, sectors);
    ck_assert_msg(disk_open(&disk[unit], path[unit], snapshot, error, sizeof(error)), "%s", error);
    ide_attach(&channel, unit, &disk[unit], unit);
}

static void setup_empty(void)
{
    irq_level = false;
    irq_edges = 0;
    memset(disk, 0, sizeof(disk));
    path[0][0] = path[1][0] = '\0';
    ide_init(&channel, (struct irq_line){set_irq, &channel, 14}, (struct irq_line){set_dmarq, &channel, 0});
}

static void setup(void)
{
    setup_empty();
    attach(0, SECTORS, false);
}

static void teardown(void)
{
    for (unsigned d = 0; d < 2; d++) {
        disk_close(&disk[d]);
        if (path[d][0] != '\0')
            unlink(path[d]);
    }
}

static uint8_t in(uint32_t port)
{
    return (uint8_t)ide_command_ops.read(&channel, port, 1);
}

static void out(uint32_t port, uint8_t value)
{
    ide_command_ops.write(&channel, port, 1, value);
}

static uint8_t alternate_status(void)
{
    return (uint8_t)ide_control_ops.read(&channel, 0, 1);
}

static void control(uint8_t value)
{
    ide_control_ops.write(&channel, 0, 1, value);
}

static void command_lba(uint8_t device, uint32_t lba, uint8_t count, uint8_t command)
{
    out(COUNT, count);
    out(LOW, (uint8_t)lba);
    out(MID, (uint8_t)(lba >> 8));
    out(HIGH, (uint8_t)(lba >> 16));
    out(DEVICE, (uint8_t)(0xe0 | device << 4 | (lba >> 24)));
    out(COMMAND, command);
}

static uint32_t registers_lba(void)
{
    return in(LOW) | (uint32_t)in(MID) << 8 | (uint32_t)in(HIGH) << 16 | (in(DEVICE)&0xfu) << 24;
}

static void read_block(uint8_t *bytes, unsigned size, unsigned access)
{
    for (unsigned i = 0; i < size; i += access) {
        uint32_t value = ide_command_ops.read(&channel, DATA, access);
        memcpy(bytes + i, &value, access);
    }
}

static void write_block(const uint8_t *bytes, unsigned size, unsigned access)
{
    for (unsigned i = 0; i < size; i += access) {
        uint32_t value = 0;
        memcpy(&value, bytes + i, access);
        ide_command_ops.write(&channel, DATA, access, value);
    }
}

static void expect_sector(unsigned d, uint32_t s, unsigned access)
{
    uint8_t bytes[512];
    read_block(bytes, 512, access);
    for (unsigned i = 0; i < 512; i++)
        ck_assert_msg(bytes[i] == pattern(d, s, i), "disk %u sector %u byte %u: %#x", d, s, i, bytes[i]);
}

static void expect_error(uint8_t status, uint8_t error)
{
    ck_assert_uint_eq(alternate_status(), READY | ERR | status);
    ck_assert_uint_eq(in(ERROR), error);
    ck_assert(irq_level);
    in(STATUS);
    ck_assert(!irq_level);
}

static void expect_done(void)
{
    ck_assert_uint_eq(alternate_status(), READY);
    ck_assert(irq_level);
    ck_assert_uint_eq(in(STATUS), READY);
    ck_assert(!irq_level);
    ck_assert_uint_eq(in(ERROR), 0);
}

static void expect_in_file(uint32_t sector, const uint8_t *bytes)
{
    uint8_t stored[512];
    int fd = open(path[0], O_RDONLY);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(pread(fd, stored, 512, (off_t)sector * 512), 512);
    close(fd);
    ck_assert_mem_eq(stored, bytes, 512);
}

/* ---- probing ----------------------------------------------------------------------------------------- */

START_TEST(empty_channel_floats)
{
    out(COUNT, 0x55);
    out(LOW, 0xaa);
    ck_assert_uint_ne(in(COUNT), 0x55); /* Linux: the registers do not hold values, no device */
    ck_assert_uint_eq(in(STATUS), 0x7f);
    ck_assert_uint_eq(alternate_status(), 0x7f);
    ck_assert_uint_eq(ide_command_ops.read(&channel, DATA, 2), 0xff7f);
    out(COMMAND, 0xec);
    out(COMMAND, 0x90);
    control(0x04);
    control(0x00);
    ck_assert_uint_eq(in(STATUS), 0x7f);
    ck_assert_uint_eq(irq_edges, 0);
}
END_TEST

START_TEST(missing_slave_reads_as_zero)
{
    out(DEVICE, 0xf0);
    for (unsigned i = 0; i < 1000; i++)
        ck_assert_uint_eq(in(STATUS), 0); /* xv6: havedisk1 stays false */
    ck_assert_uint_eq(alternate_status(), 0);
    out(COMMAND, 0xec);
    ck_assert_uint_eq(in(STATUS), 0); /* U-Boot: no DRQ after IDENTIFY, no device */
    ck_assert_uint_eq(ide_command_ops.read(&channel, DATA, 2), 0xff7f);
    ck_assert_uint_eq(irq_edges, 0);
    out(COUNT, 0x55); /* the master answers for the other registers */
    ck_assert_uint_eq(in(COUNT), 0x55);
    out(DEVICE, 0xe0);
    ck_assert_uint_eq(in(STATUS), READY);
}
END_TEST

START_TEST(slave_alone)
{
    attach(1, 100, false);
    ck_assert_uint_eq(in(STATUS), 0x7f); /* nobody answers as the master */
    out(DEVICE, 0xf0);
    ck_assert_uint_eq(in(STATUS), READY);
    command_lba(1, 99, 1, 0x20);
    expect_sector(1, 99, 4);
}
END_TEST

START_TEST(two_drives)
{
    attach(1, 50, true);
    command_lba(1, 7, 1, 0x20);
    ck_assert(irq_level);
    out(DEVICE, 0xe0); /* INTRQ is the selected drive's */
    ck_assert(!irq_level);
    ck_assert_uint_eq(in(STATUS), READY);
    out(DEVICE, 0xf0);
    ck_assert(irq_level);
    ck_assert_uint_eq(in(STATUS), READY | DRQ);
    expect_sector(1, 7, 2);
    command_lba(0, 7, 1, 0x20);
    expect_sector(0, 7, 2);
}
END_TEST

START_TEST(identify)
{
    uint16_t id[256];
    command_lba(0, 0, 0, 0xec);
    ck_assert_uint_eq(in(STATUS), READY | DRQ);
    for (unsigned i = 0; i < 256; i++)
        id[i] = (uint16_t)ide_command_ops.read(&channel, DATA, 2);
    ck_assert_uint_eq(in(STATUS), READY);
    ck_assert_uint_eq(id[0] & 0x8000, 0); /* ATA */
    ck_assert_uint_eq(id[1], SECTORS / 1008);
    ck_assert_uint_eq(id[3], 16);
    ck_assert_uint_eq(id[6], 63);
    ck_assert_uint_eq(id[27], 'r' << 8 | 'i');
    ck_assert_uint_eq(id[46], ' ' << 8 | ' ');
    ck_assert_uint_eq(id[47], 0x8010);
    ck_assert_uint_eq(id[49] & 0x0300, 0x0300); /* LBA, DMA */
    ck_assert_uint_eq(id[63], 0x0407);          /* multiword DMA 0-2, and 2 is chosen */
    ck_assert_uint_eq(id[53], 3);
    ck_assert_uint_eq(id[57] | (uint32_t)id[58] << 16, SECTORS / 1008 * 1008);
    ck_assert_uint_eq(id[59], 0x0110);
    ck_assert_uint_eq(id[60] | (uint32_t)id[61] << 16, SECTORS);
    ck_assert_uint_eq(id[83] & 0xd000, 0x5000); /* valid; FLUSH CACHE */
    ck_assert_uint_eq(id[85] & 0x20, 0x20);
    ck_assert_uint_eq(id[10], 'R' << 8 | 'I');
}
END_TEST

START_TEST(small_disks_have_a_geometry)
{
    static const uint32_t sizes[] = {1, 62, 63, 64, 1000, 1007, 1008, 1009};
    for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        attach(1, sizes[i], true);
        const struct ide_translation *chs = &channel.drive[1].chs;
        uint32_t product = (uint32_t)chs->cylinders * chs->heads * chs->sectors_per_track;
        ck_assert_uint_gt(product, 0);
        ck_assert_uint_le(product, sizes[i]);
        disk_close(&disk[1]);
        unlink(path[1]);
    }
}
END_TEST

/* ---- reading ----------------------------------------------------------------------------------------- */

START_TEST(read_in_every_access_size)
{
    for (unsigned access = 2; access <= 4; access += 2) {
        command_lba(0, 300, 2, 0x20);
        expect_sector(0, 300, access);
        expect_sector(0, 301, access);
        ck_assert_uint_eq(in(STATUS), READY);
        ck_assert_uint_eq(registers_lba(), 301);
        ck_assert_uint_eq(in(COUNT), 0);
    }
    command_lba(0, 5, 1, 0x21); /* an 8-bit cycle takes a word, of which it sees the low half */
    for (unsigned i = 0; i < 512; i += 2)
        ck_assert_uint_eq(in(DATA), pattern(0, 5, i));
    ck_assert_uint_eq(in(STATUS), READY);
    ck_assert_uint_eq(ide_command_ops.read(&channel, DATA, 4), 0xffffffff); /* nothing left */
}
END_TEST

/* xv6's idestart and ideintr. */
START_TEST(read_interrupts_once_a_sector)
{
    control(0);
    command_lba(0, 10, 3, 0x20);
    for (unsigned i = 0; i < 3; i++) {
        ck_assert_uint_eq(irq_edges, i + 1);
        ck_assert_uint_eq(alternate_status(), READY | DRQ);
        ck_assert(irq_level);
        ck_assert_uint_eq(in(STATUS), READY | DRQ);
        ck_assert(!irq_level);
        expect_sector(0, 10 + i, 4);
    }
    ck_assert_uint_eq(irq_edges, 3);
    ck_assert_uint_eq(in(STATUS), READY);
}
END_TEST

START_TEST(read_256_sectors)
{
    command_lba(0, 1000, 0, 0x20);
    for (unsigned i = 0; i < 256; i++) {
        ck_assert_uint_eq(in(STATUS), READY | DRQ);
        expect_sector(0, 1000 + i, 4);
    }
    ck_assert_uint_eq(in(STATUS), READY);
}
END_TEST

START_TEST(read_multiple_in_blocks)
{
    command_lba(0, 0, 4, 0xc6);
    expect_done();
    irq_edges = 0;
    command_lba(0, 20, 10, 0xc4); /* blocks of 4, 4, 2 */
    for (unsigned i = 0; i < 10; i++) {
        if (i % 4 == 0)
            ck_assert_uint_eq(in(STATUS), READY | DRQ);
        expect_sector(0, 20 + i, 2);
    }
    ck_assert_uint_eq(irq_edges, 3);
    ck_assert_uint_eq(in(STATUS), READY);
}
END_TEST

START_TEST(set_multiple_takes_powers_of_two)
{
    for (unsigned n = 1; n < 256; n++) {
        command_lba(0, 0, (uint8_t)n, 0xc6);
        bool is_legal = n == 1 || n == 2 || n == 4 || n == 8 || n == 16;
        if (is_legal)
            expect_done();
        else
            expect_error(0, ABRT);
        command_lba(0, 0, 1, 0xc4);
        ck_assert_uint_eq(in(STATUS), is_legal ? READY | DRQ : READY | ERR);
    }
    command_lba(0, 0, 0, 0xc6);
    expect_done();
    command_lba(0, 0, 1, 0xc5);
    expect_error(0, ABRT);
}
END_TEST

START_TEST(chs)
{
    out(COUNT, 1);
    out(LOW, 63);
    out(MID, 2);
    out(HIGH, 0);
    out(DEVICE, 0xa0 | 5);
    out(COMMAND, 0x20);
    expect_sector(0, (2 * 16 + 5) * 63 + 62, 2);
    ck_assert_uint_eq(in(LOW), 63);
    ck_assert_uint_eq(in(DEVICE), 0xa5);

    out(COUNT, 2); /* across a head; the registers follow */
    out(COMMAND, 0x20);
    expect_sector(0, (2 * 16 + 5) * 63 + 62, 2);
    expect_sector(0, (2 * 16 + 6) * 63, 2);
    ck_assert_uint_eq(in(LOW), 1);
    ck_assert_uint_eq(in(MID), 2);
    ck_assert_uint_eq(in(DEVICE), 0xa6);

    static const uint8_t bad[][3] = {{0, 0, 0}, {64, 0, 0}, {1, 3, 0}, {1, 0, 1}}; /* sector, cylinder */
    for (unsigned i = 0; i < 4; i++) {
        out(COUNT, 1);
        out(LOW, bad[i][0]);
        out(MID, bad[i][1]);
        out(HIGH, bad[i][2]);
        out(DEVICE, 0xa0);
        out(COMMAND, 0x20);
        expect_error(0, IDNF);
    }

    out(COUNT, 10); /* 4 heads of 10 sectors */
    out(DEVICE, 0xa3);
    out(COMMAND, 0x91);
    expect_done();
    out(COUNT, 1);
    out(LOW, 10);
    out(MID, 99);
    out(HIGH, 0);
    out(COMMAND, 0x20);
    expect_sector(0, 3999, 2);
    out(MID, 100);
    out(COMMAND, 0x20);
    expect_error(0, IDNF);
    out(DEVICE, 0xa4);
    out(MID, 0);
    out(COMMAND, 0x20);
    expect_error(0, IDNF);
    out(COUNT, 0);
    out(COMMAND, 0x91);
    expect_error(0, ABRT);
}
END_TEST

START_TEST(beyond_the_end)
{
    command_lba(0, SECTORS, 1, 0x20);
    expect_error(0, IDNF);
    command_lba(0, 0x0fffffff, 0, 0x30);
    expect_error(0, IDNF);
    command_lba(0, SECTORS - 1, 3, 0x20);
    expect_sector(0, SECTORS - 1, 4);
    expect_error(0, IDNF);
    ck_assert_uint_eq(registers_lba(), SECTORS);
    ck_assert_uint_eq(in(COUNT), 2);
    command_lba(0, SECTORS - 1, 2, 0xc4); /* a block that does not fit fails as a whole */
    expect_error(0, IDNF);
    ck_assert_uint_eq(in(COUNT), 1);
    command_lba(0, SECTORS - 1, 2, 0xc5);
    expect_error(0, IDNF);
    command_lba(0, SECTORS - 1, 2, 0x40);
    expect_error(0, IDNF);
    command_lba(0, SECTORS - 1, 1, 0x40);
    expect_done();
    command_lba(0, SECTORS, 1, 0x70);
    expect_error(0, IDNF);
    command_lba(0, SECTORS - 1, 1, 0x70);
    expect_done();
}
END_TEST

/* ---- writing ----------------------------------------------------------------------------------------- */

static void fill(uint8_t *bytes, unsigned size, unsigned seed)
{
    for (unsigned i = 0; i < size; i++)
        bytes[i] = (uint8_t)(seed + i * 5 + (i >> 8));
}

START_TEST(write_reaches_the_file)
{
    uint8_t bytes[3 * 512];
    for (unsigned access = 2; access <= 4; access += 2) {
        fill(bytes, sizeof(bytes), access);
        irq_edges = 0;
        command_lba(0, 100, 3, access == 2 ? 0x30 : 0x31);
        ck_assert_uint_eq(irq_edges, 0); /* no interrupt for the first block */
        for (unsigned i = 0; i < 3; i++) {
            ck_assert_uint_eq(in(STATUS), READY | DRQ);
            write_block(bytes + 512 * i, 512, access);
            ck_assert_uint_eq(irq_edges, i + 1);
        }
        expect_done();
        for (unsigned i = 0; i < 3; i++)
            expect_in_file(100 + i, bytes + 512 * i);
        ck_assert_uint_eq(registers_lba(), 102);
    }
    command_lba(0, 0, 0, 0xe7);
    expect_done();
    command_lba(0, 99, 1, 0x20);
    expect_sector(0, 99, 4);
    command_lba(0, 103, 1, 0x20);
    expect_sector(0, 103, 4);
}
END_TEST

START_TEST(write_multiple_in_blocks)
{
    static uint8_t bytes[19 * 512];
    fill(bytes, sizeof(bytes), 77);
    command_lba(0, 64, 19, 0xc5); /* blocks of 16 and 3 */
    write_block(bytes, 16 * 512, 4);
    ck_assert_uint_eq(irq_edges, 1);
    ck_assert_uint_eq(in(STATUS), READY | DRQ);
    write_block(bytes + 16 * 512, 3 * 512, 4);
    ck_assert_uint_eq(irq_edges, 2);
    expect_done();
    for (unsigned i = 0; i < 19; i++)
        expect_in_file(64 + i, bytes + 512 * i);
}
END_TEST

START_TEST(write_cache_off_writes_through)
{
    uint8_t bytes[512];
    fill(bytes, 512, 1);
    out(FEATURES, 0x82);
    command_lba(0, 0, 0, 0xef);
    expect_done();
    command_lba(0, 1, 1, 0x30);
    write_block(bytes, 512, 4);
    expect_done();
    expect_in_file(1, bytes);
    out(FEATURES, 0x02);
    command_lba(0, 0, 0, 0xef);
    expect_done();
    ck_assert(channel.drive[0].write_cache);
}
END_TEST

START_TEST(interrupted_write_stores_nothing)
{
    uint8_t bytes[512], before[512];
    fill(bytes, 512, 9);
    for (unsigned i = 0; i < 512; i++)
        before[i] = pattern(0, 50, i);
    command_lba(0, 50, 1, 0x30);
    write_block(bytes, 510, 2);
    command_lba(0, 50, 1, 0x20);
    expect_sector(0, 50, 2);
    command_lba(0, 50, 1, 0x30);
    write_block(bytes, 510, 2);
    control(0x04);
    control(0x00);
    write_block(bytes, 2, 2);
    expect_in_file(50, before);
}
END_TEST

/* ---- other commands, interrupts, resets -------------------------------------------------------------- */

START_TEST(unknown_commands_abort)
{
    static const uint8_t known[] = {0x20, 0x21, 0x30, 0x31, 0x40, 0x41, 0x90, 0x91, 0xc4, 0xc5, 0xc8, 0xc9,
                                    0xca, 0xcb, 0xc6, 0xe0, 0xe1, 0xe2, 0xe3, 0xe5, 0xe6, 0xe7, 0xec, 0xef};
    for (unsigned c = 0; c < 256; c++) {
        if (memchr(known, (int)c, sizeof(known)) != NULL || (c & 0xf0) == 0x10 || (c & 0xf0) == 0x70)
            continue;
        command_lba(0, 0, 1, (uint8_t)c);
        expect_error(0, ABRT);
    }
    command_lba(0, 0, 1, 0x1f);
    expect_done(); /* and the error does not stick */
}
END_TEST

START_TEST(features)
{
    static const struct {
        uint8_t feature, count;
        bool is_known;
    } cases[] = {{0x03, 0x00, true}, {0x03, 0x01, true}, {0x03, 0x0c, true},  {0x03, 0x0d, false},
                 {0x03, 0x20, true}, {0x03, 0x22, true}, {0x03, 0x23, false}, {0x03, 0x42, false},
                 {0x55, 0, true},    {0xaa, 0, true},    {0x66, 0, true},     {0xcc, 0, true},
                 {0x00, 0, false},   {0xff, 0, false}};
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        out(FEATURES, cases[i].feature);
        command_lba(0, 0, cases[i].count, 0xef);
        if (cases[i].is_known)
            expect_done();
        else
            expect_error(0, ABRT);
    }
}
END_TEST

START_TEST(power_modes)
{
    command_lba(0, 0, 0, 0xe5);
    ck_assert_uint_eq(in(COUNT), 0xff);
    expect_done();
    command_lba(0, 0, 0, 0xe6);
    expect_done();
    command_lba(0, 0, 1, 0x20); /* asleep: only a reset helps */
    ck_assert_uint_eq(in(STATUS), READY);
    control(0x04);
    control(0x00);
    command_lba(0, 0, 1, 0x20);
    expect_sector(0, 0, 4);
}
END_TEST

START_TEST(nien)
{
    control(0x02);
    command_lba(0, 0, 1, 0x20);
    ck_assert(!irq_level);
    control(0x00); /* still pending */
    ck_assert(irq_level);
    ck_assert_uint_eq(alternate_status(), READY | DRQ);
    ck_assert(irq_level);
    in(STATUS);
    ck_assert(!irq_level);
    command_lba(0, 0, 1, 0x1f);
    ck_assert(irq_level);
    command_lba(0, 0, 1, 0x20); /* a new command clears the old interrupt, then raises its own */
    ck_assert(irq_level);
}
END_TEST

static void expect_signature(void)
{
    ck_assert_uint_eq(in(ERROR), 0x01);
    ck_assert_uint_eq(in(COUNT), 1);
    ck_assert_uint_eq(in(LOW), 1);
    ck_assert_uint_eq(in(MID), 0);
    ck_assert_uint_eq(in(HIGH), 0);
    ck_assert_uint_eq(in(DEVICE), 0);
}

START_TEST(software_reset)
{
    command_lba(0, 0, 2, 0xc6);
    command_lba(0, 0, 5, 0x20);
    control(0x04);
    ck_assert(!irq_level);
    ck_assert_uint_eq(alternate_status(), 0x80);
    ck_assert_uint_eq(in(STATUS), 0x80);
    ck_assert_uint_eq(in(COUNT), 0x80);
    out(COUNT, 3); /* busy: dropped */
    out(COMMAND, 0xec);
    control(0x00);
    ck_assert_uint_eq(in(STATUS), READY);
    expect_signature();
    ck_assert(!irq_level);
    ck_assert_uint_eq(channel.drive[0].multiple, 16);
    command_lba(0, 0, 2, 0xc6);
    out(FEATURES, 0x66); /* do not revert */
    command_lba(0, 0, 0, 0xef);
    control(0x04);
    control(0x00);
    ck_assert_uint_eq(channel.drive[0].multiple, 2);
    ide_reset(&channel); /* the RESET line reverts all the same */
    ck_assert_uint_eq(channel.drive[0].multiple, 16);
    expect_signature();
}
END_TEST

START_TEST(execute_device_diagnostic)
{
    attach(1, 10, true);
    command_lba(1, 0, 0, 0x90);
    expect_signature();
    ck_assert(irq_level);
    ck_assert_uint_eq(in(STATUS), READY);
    out(DEVICE, 0x10);
    ck_assert_uint_eq(in(COUNT), 1);
    ck_assert_uint_eq(in(STATUS), READY);
}
END_TEST

START_TEST(wide_accesses_to_byte_registers)
{
    ide_command_ops.write(&channel, COUNT, 2, 0x3412);
    ck_assert_uint_eq(in(COUNT), 0x12);
    ck_assert_uint_eq(in(LOW), 0x34);
    ck_assert_uint_eq(ide_command_ops.read(&channel, COUNT, 4), 0x00003412);
    ide_command_ops.write(&channel, DEVICE, 2, 0xecf0); /* device and command in one go */
    ck_assert_uint_eq(in(STATUS), 0);
}
END_TEST

/* Any mixture of accesses: nothing breaks, and the buffer is never overrun (under the sanitizers). */
START_TEST(random_accesses)
{
    uint32_t seed = 12345;
    attach(1, 3, true);
    for (unsigned i = 0; i < 20000; i++) {
        seed = seed * 1664525 + 1013904223;
        uint32_t port = seed >> 29, value = seed >> 8;
        unsigned size = 1u << (seed >> 26 & 1);
        if (port == DATA)
            size = 1u << (seed >> 24) % 3;
        if (port + size > 8)
            size = 1;
        if ((seed >> 20 & 0x3f) == 0)
            control((uint8_t)value);
        else if (seed >> 19 & 1)
            ide_command_ops.write(&channel, port, size, value);
        else
            ide_command_ops.read(&channel, port, size);
        for (unsigned unit = 0; unit < 2; unit++)
            ck_assert(channel.drive[unit].phase == IDE_IDLE ||
                      channel.drive[unit].position < channel.drive[unit].size);
    }
}
END_TEST

/* ---- the host's failures ----------------------------------------------------------------------------- */

START_TEST(host_read_error_is_unc)
{
    ck_assert_int_eq(truncate(path[0], 100 * 512 + 7), 0); /* the image loses its end under us */
    command_lba(0, 99, 3, 0x20);
    expect_sector(0, 99, 4);
    expect_error(0, UNC);
    ck_assert_uint_eq(registers_lba(), 100);
    ck_assert_uint_eq(in(COUNT), 2);
    command_lba(0, 90, 100, 0x40);
    expect_error(0, UNC);
    ck_assert_uint_eq(registers_lba(), 100);
    command_lba(0, 98, 1, 0x20);
    expect_sector(0, 98, 4);
}
END_TEST

START_TEST(host_write_error_is_a_device_fault)
{
    uint8_t bytes[512] = {0};
    int full = open("/dev/full", O_RDWR);
    if (full < 0) {
        fprintf(stderr, "skipped: no /dev/full: %s\n", strerror(errno));
        return;
    }
    ck_assert_int_ge(dup2(full, disk[0].fd), 0);
    close(full);
    command_lba(0, 5, 2, 0x30);
    write_block(bytes, 512, 4);
    expect_error(DF, ABRT);
    ck_assert_uint_eq(registers_lba(), 5);
    ck_assert_uint_eq(in(COUNT), 2);
    command_lba(0, 0, 0, 0xe7); /* FLUSH CACHE cannot be done there either */
    expect_error(DF, ABRT);
    ck_assert(!disk_close(&disk[0]));
}
END_TEST

/* ---- snapshot ---------------------------------------------------------------------------------------- */

START_TEST(snapshot_leaves_the_file_untouched)
{
    uint8_t bytes[512], before[512];
    fill(bytes, 512, 3);
    for (unsigned i = 0; i < 512; i++)
        before[i] = pattern(0, 130, i);
    attach(0, SECTORS, true);
    ck_assert_int_eq(chmod(path[0], 0400), 0);
    command_lba(0, 130, 1, 0x30);
    write_block(bytes, 512, 4);
    expect_done();
    command_lba(0, 130, 1, 0x20);
    uint8_t seen[512];
    read_block(seen, 512, 4);
    ck_assert_mem_eq(seen, bytes, 512);
    command_lba(0, 129, 1, 0x20); /* its neighbours in the chunk are still the file's */
    expect_sector(0, 129, 4);
    command_lba(0, 131, 1, 0x20);
    expect_sector(0, 131, 4);
    command_lba(0, 0, 0, 0xe7);
    expect_done();
    expect_in_file(130, before);
    ck_assert_uint_eq(disk[0].chunks_in_use, 1);
}
END_TEST

START_TEST(snapshot_is_bounded)
{
    uint8_t bytes[512] = {0};
    attach(0, SECTORS, true);
    disk[0].chunks_in_use = DISK_SNAPSHOT_LIMIT / (64 << 10) - 1; /* one chunk is left */
    command_lba(0, 0, 1, 0x30);
    write_block(bytes, 512, 4);
    expect_done();
    command_lba(0, 1, 1, 0x30);
    write_block(bytes, 512, 4);
    expect_done();
    command_lba(0, 128, 1, 0x30);
    write_block(bytes, 512, 4);
    expect_error(DF, ABRT);
    command_lba(0, 128, 1, 0x20);
    expect_sector(0, 128, 4);
}
END_TEST

/* ---- opening ----------------------------------------------------------------------------------------- */

static void expect_refusal(const char *name, bool snapshot, const char *reason)
{
    char error[256] = "";
    ck_assert(!disk_open(&disk[0], name, snapshot, error, sizeof(error)));
    ck_assert_msg(strstr(error, name) != NULL && strstr(error, reason) != NULL, "%s", error);
    ck_assert_ptr_null(strchr(error, '\n'));
    ck_assert(disk_close(&disk[0])); /* nothing to close */
}

START_TEST(opening_what_is_no_image)
{
    char tiny[8];
    expect_refusal("/nonexistent/disk.img", false, "No such file");
    expect_refusal("/tmp", true, "not a regular file");
    expect_refusal("/dev/null", true, "not a regular file");
    make_file(path[0], 0);
    expect_refusal(path[0], false, "empty");
    ck_assert_int_eq(truncate(path[0], 513), 0);
    expect_refusal(path[0], false, "513 bytes");
    ck_assert_int_eq(truncate(path[0], (off_t)512 * 0x10000000), 0); /* sparse */
    expect_refusal(path[0], false, "128 GiB");
    ck_assert_int_eq(truncate(path[0], (off_t)512 * 0x0fffffff), 0);
    ck_assert(disk_open(&disk[0], path[0], true, tiny, sizeof(tiny)));
    ck_assert_uint_eq(disk[0].sectors, 0x0fffffff);
    ide_attach(&channel, 0, &disk[0], 0);
    command_lba(0, 0x0ffffffe, 2, 0x20);
    uint8_t bytes[512];
    read_block(bytes, 512, 4);
    expect_error(0, IDNF);
    ck_assert(disk_close(&disk[0]));
    if (geteuid() != 0) { /* root may write anything */
        ck_assert_int_eq(chmod(path[0], 0400), 0);
        expect_refusal(path[0], false, "snapshot");
    }
    ck_assert(
        !disk_open(&disk[0], "/nonexistent/disk.img", false, tiny, sizeof(tiny))); /* cut, not overrun */
    ck_assert_uint_eq(strlen(tiny), 7);
}
END_TEST

static void add_tests(Suite *suite)
{
    TCase *probing = tcase_create("no drive attached beforehand");
    tcase_add_checked_fixture(probing, setup_empty, teardown);
    tcase_add_test(probing, empty_channel_floats);
    tcase_add_test(probing, slave_alone);
    tcase_add_test(probing, snapshot_leaves_the_file_untouched);
    tcase_add_test(probing, snapshot_is_bounded);
    tcase_add_test(probing, opening_what_is_no_image);
    suite_add_tcase(suite, probing);

    TCase *master = tcase_create("one master");
    tcase_add_checked_fixture(master, setup, teardown);
    tcase_add_test(master, missing_slave_reads_as_zero);
    tcase_add_test(master, two_drives);
    tcase_add_test(master, identify);
    tcase_add_test(master, small_disks_have_a_geometry);
    tcase_add_test(master, read_in_every_access_size);
    tcase_add_test(master, read_interrupts_once_a_sector);
    tcase_add_test(master, read_256_sectors);
    tcase_add_test(master, read_multiple_in_blocks);
    tcase_add_test(master, set_multiple_takes_powers_of_two);
    tcase_add_test(master, chs);
    tcase_add_test(master, beyond_the_end);
    tcase_add_test(master, write_reaches_the_file);
    tcase_add_test(master, write_multiple_in_blocks);
    tcase_add_test(master, write_cache_off_writes_through);
    tcase_add_test(master, interrupted_write_stores_nothing);
    tcase_add_test(master, unknown_commands_abort);
    tcase_add_test(master, features);
    tcase_add_test(master, power_modes);
    tcase_add_test(master, nien);
    tcase_add_test(master, software_reset);
    tcase_add_test(master, execute_device_diagnostic);
    tcase_add_test(master, wide_accesses_to_byte_registers);
    tcase_add_test(master, random_accesses);
    tcase_add_test(master, host_read_error_is_unc);
    tcase_add_test(master, host_write_error_is_a_device_fault);
    suite_add_tcase(suite, master);
}

int main(void)
{
    Suite *suite = suite_create("ide");
    add_tests(suite);

    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
