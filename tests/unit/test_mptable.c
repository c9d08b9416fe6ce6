/* The MP tables as a kernel finds and reads them (MultiProcessor Specification 1.4), and the BIOS data area.
 */
#include "devices/ioapic.h"
#include "devices/lapic.h"
#include "devices/mptable.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>

static const struct mptable_config config = {
    .cpu_apic_id = 0,
    .cpu_apic_version = LAPIC_VERSION,
    .cpu_signature = 0x000106a5,
    .cpu_features = 0x0183fbff,
    .ioapic_id = 1,
    .ioapic_version = IOAPIC_VERSION,
};

static uint8_t tables[MPTABLE_MAX_SIZE + 16];
static size_t size;

static void setup(void)
{
    memset(tables, 0xa5, sizeof(tables));
    size = mptable_build(&config, tables);
    for (size_t i = size; i < sizeof(tables); i++)
        ck_assert_uint_eq(tables[i], 0xa5);
}

static uint32_t le(const uint8_t *bytes, unsigned n)
{
    uint32_t value = 0;
    while (n-- > 0)
        value = value << 8 | bytes[n];
    return value;
}

static uint8_t sum(const uint8_t *bytes, size_t n)
{
    uint8_t total = 0;
    while (n-- > 0)
        total = (uint8_t)(total + bytes[n]);
    return total;
}

START_TEST(floating_pointer)
{
    ck_assert_mem_eq(tables, "_MP_", 4);
    ck_assert_uint_eq(le(tables + 4, 4), MPTABLE_GPA + 16);
    ck_assert_uint_eq(tables[8], 1);  /* length in paragraphs */
    ck_assert_uint_eq(tables[9], 4);  /* 1.4 */
    ck_assert_uint_eq(tables[11], 0); /* a configuration table is there */
    ck_assert_uint_eq(tables[12], 0); /* virtual wire mode: no IMCR */
    ck_assert_uint_eq(sum(tables, 16), 0);
    /* Where kernels look: the BIOS ROM area, on a paragraph boundary. */
    ck_assert_uint_ge(MPTABLE_GPA, 0xf0000);
    ck_assert_uint_le(MPTABLE_GPA + size, 0x100000);
    ck_assert_uint_eq(MPTABLE_GPA % 16, 0);
}
END_TEST

START_TEST(header)
{
    const uint8_t *table = tables + 16;
    ck_assert_mem_eq(table, "PCMP", 4);
    ck_assert_uint_eq(le(table + 4, 2), size - 16);
    ck_assert_uint_eq(table[6], 4);
    ck_assert_uint_eq(sum(table, size - 16), 0);
    ck_assert_uint_eq(le(table + 28, 4), 0); /* no OEM table */
    ck_assert_uint_eq(le(table + 36, 4), 0xfee00000);
    ck_assert_uint_eq(le(table + 40, 2), 0); /* no extended table */
}
END_TEST

/* Walks the entries as kernels do: the type gives the length, types ascend, and the count is right. */
START_TEST(entries)
{
    const uint8_t *table = tables + 16, *end = tables + size, *p = table + 44;
    unsigned count = 0, last_type = 0, processors = 0, buses = 0, ioapics = 0, local[2] = {0, 0};
    int pin_of_irq[16];
    memset(pin_of_irq, -1, sizeof(pin_of_irq));

    while (p < end) {
        ck_assert_uint_ge(p[0], last_type);
        last_type = p[0];
        count++;
        switch (p[0]) {
        case 0:
            processors++;
            ck_assert_uint_eq(p[1], 0);
            ck_assert_uint_eq(p[2], 0x14);
            ck_assert_uint_eq(p[3], 3); /* enabled, bootstrap */
            ck_assert_uint_eq(le(p + 4, 4), 0x6a5);
            ck_assert_uint_eq(le(p + 8, 4), 0x0183fbff);
            p += 20;
            continue;
        case 1:
            buses++;
            ck_assert_mem_eq(p + 2, "ISA   ", 6);
            break;
        case 2:
            ioapics++;
            ck_assert_uint_eq(p[1], 1);
            ck_assert_uint_eq(p[2], 0x11);
            ck_assert_uint_eq(p[3], 1);
            ck_assert_uint_eq(le(p + 4, 4), 0xfec00000);
            break;
        case 3:
            ck_assert_uint_eq(p[1], 0); /* vectored */
            ck_assert_uint_eq(le(p + 2, 2), 0);
            ck_assert_uint_eq(p[4], 0); /* the ISA bus */
            ck_assert_uint_lt(p[5], 16);
            ck_assert_uint_eq(p[6], 1);
            ck_assert_int_eq(pin_of_irq[p[5]], -1);
            pin_of_irq[p[5]] = p[7];
            break;
        case 4:
            ck_assert_uint_lt(p[7], 2);
            local[p[7]]++;
            ck_assert_uint_eq(p[1], p[7] == 0 ? 3 : 1); /* ExtINT on LINT0, NMI on LINT1 */
            ck_assert_uint_eq(p[6], p[7] == 0 ? 0 : 0xff);
            break;
        default:
            ck_abort_msg("entry type %u", p[0]);
        }
        p += 8;
    }
    ck_assert_ptr_eq(p, end);
    ck_assert_uint_eq(count, le(table + 34, 2));
    ck_assert_uint_eq(processors, 1);
    ck_assert_uint_eq(buses, 1);
    ck_assert_uint_eq(ioapics, 1);
    ck_assert_uint_eq(local[0], 1);
    ck_assert_uint_eq(local[1], 1);
    for (int irq = 0; irq < 16; irq++)
        ck_assert_int_eq(pin_of_irq[irq], irq == 0 ? 2 : irq == 2 ? -1 : irq);
}
END_TEST

START_TEST(bios_data_area)
{
    uint8_t bda[BDA_SIZE + 1];
    bda[BDA_SIZE] = 0xa5;
    mptable_build_bda(bda);
    ck_assert_uint_eq(bda[BDA_SIZE], 0xa5);
    ck_assert_uint_eq(le(bda + 0x0e, 2) << 4, EBDA_GPA);
    ck_assert_uint_eq(le(bda + 0x13, 2), 639);
    ck_assert_uint_eq(EBDA_GPA, 639 * 1024);
    ck_assert_uint_eq(EBDA_GPA + EBDA_SIZE, 0xa0000);
    ck_assert_uint_eq(mptable_ebda_size_kib(), 1);
    ck_assert_uint_eq(bda[0x49], 3);
    ck_assert_uint_eq(le(bda + 0x4a, 2), 80);
    ck_assert_uint_eq(le(bda + 0x63, 2), 0x3d4);
    ck_assert_uint_eq(bda[0x84], 24);
    ck_assert_uint_eq(le(bda + 0x85, 2), 16);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("mptable");
    TCase *tcase = tcase_create("mptable");
    tcase_add_checked_fixture(tcase, setup, NULL);
    tcase_add_test(tcase, floating_pointer);
    tcase_add_test(tcase, header);
    tcase_add_test(tcase, entries);
    tcase_add_test(tcase, bios_data_area);
    suite_add_tcase(suite, tcase);

    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
