/* The ACPI tables: checksums and pointers, as placed by the board and as placed by firmware; the fields that
 * must agree with the chips; and a walk through the DSDT that sees that all lengths fit. */
#include "devices/acpi.h"

#include "devices/aml.h"

#include <check.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define GPA 0x000f6040u

static const struct acpi_config config = {.pm_base = 0x600, .cpu_apic_id = 0, .ioapic_id = 1};
static struct acpi_tables tables;

static uint32_t get32(const uint8_t *bytes)
{
    uint32_t value;

    memcpy(&value, bytes, sizeof value);
    return value;
}

static uint8_t sum(const uint8_t *bytes, size_t n)
{
    return (uint8_t)-checksum(bytes, n);
}

static void setup(void)
{
    acpi_build(&config, &tables);
}

/* The table whose address stands at `pointer`, checked. */
static const uint8_t *table_at(const uint8_t *pointer, uint32_t base, const char *signature)
{
    uint32_t offset = get32(pointer) - base;
    const uint8_t *table = tables.bytes + offset;

    ck_assert_uint_lt(offset, tables.size);
    ck_assert_mem_eq(table, signature, 4);
    ck_assert_uint_le(offset + get32(table + 4), tables.size);
    if (strcmp(signature, "FACS") != 0)
        ck_assert_uint_eq(sum(table, get32(table + 4)), 0);
    return table;
}

static void check_tables(uint32_t base)
{
    const uint8_t *rsdt = table_at(tables.rsdp + 16, base, "RSDT");
    const uint8_t *fadt = table_at(rsdt + 36, base, "FACP");

    ck_assert_mem_eq(tables.rsdp, "RSD PTR ", 8);
    ck_assert_uint_eq(sum(tables.rsdp, 20), 0);
    ck_assert_uint_eq(get32(rsdt + 4), 36 + 8);
    table_at(rsdt + 40, base, "APIC");
    table_at(fadt + 36, base, "FACS");
    table_at(fadt + 40, base, "DSDT");
    ck_assert_uint_eq((get32(fadt + 36) - base) % ACPI_ALIGN, 0);
}

START_TEST(placed_tables_find_each_other)
{
    acpi_place(&tables, GPA);
    check_tables(GPA);
    ck_assert_uint_le(ACPI_RSDP_GPA + ACPI_RSDP_SIZE, ACPI_TABLES_GPA);
    ck_assert_uint_eq(ACPI_TABLES_GPA % ACPI_ALIGN, 0);
    ck_assert_uint_eq(ACPI_RSDP_GPA % 16, 0);
}
END_TEST

START_TEST(the_fadt_names_the_chips_registers)
{
    acpi_place(&tables, 0);
    const uint8_t *fadt = table_at(tables.bytes + tables.rsdt + 36, 0, "FACP");

    ck_assert_uint_eq(get32(fadt + 4), 244);
    ck_assert_uint_eq(fadt[46], 9);                    /* SCI */
    ck_assert_uint_eq(get32(fadt + 48), 0xb2);         /* SMI_CMD */
    ck_assert_uint_eq(fadt[52], 0xf1);                 /* ACPI_ENABLE */
    ck_assert_uint_eq(get32(fadt + 56), 0x600);        /* PM1a_EVT_BLK */
    ck_assert_uint_eq(get32(fadt + 64), 0x604);        /* PM1a_CNT_BLK */
    ck_assert_uint_eq(get32(fadt + 76), 0x608);        /* PM_TMR_BLK */
    ck_assert_uint_eq(get32(fadt + 112) & 1u << 8, 0); /* TMR_VAL_EXT: the timer has 24 bits */
    ck_assert_uint_eq(get32(fadt + 112) & 1u << 10, 1u << 10);
    ck_assert_uint_eq(get32(fadt + 120), 0xcf9); /* RESET_REG */
    ck_assert_uint_eq(fadt[128], 6);
}
END_TEST

/* What SeaBIOS does with the script. */
static uint32_t run_script(const uint8_t *script, size_t size)
{
    static const uint32_t base = 0x0fffd000;
    unsigned n_allocated = 0;

    for (const uint8_t *entry = script; entry < script + size; entry += ACPI_SCRIPT_ENTRY) {
        bool is_rsdp = strcmp((const char *)entry + 4, ACPI_RSDP_FILE) == 0;
        uint8_t *file = is_rsdp ? tables.rsdp : tables.bytes;
        uint32_t value;

        ck_assert(is_rsdp || strcmp((const char *)entry + 4, ACPI_TABLES_FILE) == 0);
        switch (get32(entry)) {
        case 1: /* allocate */
            ck_assert_uint_eq(entry[64], is_rsdp ? 2 : 1);
            ck_assert_uint_eq(get32(entry + 60), is_rsdp ? 16 : 64);
            n_allocated++;
            break;
        case 2: /* add pointer */
            ck_assert_uint_eq(n_allocated, 2);
            ck_assert_str_eq((const char *)entry + 60, ACPI_TABLES_FILE);
            ck_assert_uint_eq(entry[120], 4);
            value = get32(file + get32(entry + 116)) + base;
            memcpy(file + get32(entry + 116), &value, 4);
            break;
        case 3: /* add checksum */
            file[get32(entry + 60)] =
                (uint8_t)(file[get32(entry + 60)] - sum(file + get32(entry + 64), get32(entry + 68)));
            break;
        default:
            ck_abort_msg("command %u", get32(entry));
        }
    }
    return base;
}

START_TEST(firmware_places_them_by_the_script)
{
    uint8_t script[ACPI_MAX_SCRIPT_SIZE];
    size_t size = acpi_loader_script(&tables, script);

    ck_assert_uint_eq(size % ACPI_SCRIPT_ENTRY, 0);
    check_tables(run_script(script, size));
}
END_TEST

/* ---- AML ----------------------------------------------------------------------------------------------- */

static const uint8_t *find(const uint8_t *bytes, size_t size, const void *what, size_t n)
{
    return memmem(bytes, size, what, n);
}

START_TEST(the_dsdt_holds_what_kernels_look_for)
{
    acpi_place(&tables, 0);
    const uint8_t *fadt = table_at(tables.bytes + tables.rsdt + 36, 0, "FACP");
    const uint8_t *dsdt = table_at(fadt + 40, 0, "DSDT");
    size_t size = get32(dsdt + 4);

    /* Name (\_S5_, Package (4) {0, 0, 0, 0}) */
    ck_assert_mem_eq(dsdt + 36, "\x08\\_S5_\x12\x47\x00\x04\0\0\0\0", 14);
    ck_assert_mem_eq(dsdt + 50, "\x10", 1); /* Scope: the rest of the table */
    ck_assert_uint_eq((dsdt[51] & 0xf) + (dsdt[52] << 4), size - 51);
    ck_assert_ptr_nonnull(find(dsdt, size, "_HID\x0c\x41\xd0\x0a\x03", 9)); /* PNP0A03 */
    ck_assert_ptr_nonnull(find(dsdt, size, "_HID\x0c\x41\xd0\x05\x01", 9)); /* PNP0501 */
    ck_assert_ptr_nonnull(find(dsdt, size, "_HID\x0c\x41\xd0\x0b\x00", 9)); /* PNP0B00 */
    ck_assert_ptr_nonnull(find(dsdt, size, "_HID\x0c\x41\xd0\x03\x03", 9)); /* PNP0303 */
    /* slot 1, INTA: PIRQ A, IRQ 10; slot 3, INTA: PIRQ C, IRQ 11 */
    ck_assert_ptr_nonnull(find(dsdt, size, "\x04\x0c\xff\xff\x01\x00\x00\x00\x0a\x0a", 10));
    ck_assert_ptr_nonnull(find(dsdt, size, "\x04\x0c\xff\xff\x03\x00\x00\x00\x0a\x0b", 10));
}
END_TEST

START_TEST(integers_take_their_shortest_form)
{
    uint8_t bytes[32];
    struct layout out = {.bytes = bytes, .capacity = sizeof bytes};

    aml_integer(&out, 0);
    aml_integer(&out, 1);
    aml_integer(&out, 2);
    aml_integer(&out, 0x1234);
    aml_integer(&out, 0x12345678);
    ck_assert_uint_eq(out.size, 12);
    ck_assert_mem_eq(bytes, "\x00\x01\x0a\x02\x0b\x34\x12\x0c\x78\x56\x34\x12", 12);
}
END_TEST

START_TEST(blocks_know_their_length)
{
    uint8_t bytes[600];
    struct layout out = {.bytes = bytes, .capacity = sizeof bytes};
    struct aml_block outer = aml_begin_device(&out, "ABC");
    struct aml_block inner = aml_begin_package(&out, 2);

    put_zeroes(&out, 300);
    aml_end(&out, inner);
    aml_end(&out, outer);
    ck_assert_mem_eq(bytes, "\x5b\x82", 2);
    ck_assert_uint_eq((bytes[2] & 0xf) + (bytes[3] << 4), out.size - 2);
    ck_assert_mem_eq(bytes + 4, "ABC_\x12", 5);
    ck_assert_uint_eq((bytes[9] & 0xf) + (bytes[10] << 4), 2 + 1 + 300);
}
END_TEST

static Suite *acpi_suite(void)
{
    Suite *suite = suite_create("acpi");
    TCase *cases = tcase_create("tables");

    tcase_add_checked_fixture(cases, setup, NULL);
    tcase_add_test(cases, placed_tables_find_each_other);
    tcase_add_test(cases, the_fadt_names_the_chips_registers);
    tcase_add_test(cases, firmware_places_them_by_the_script);
    tcase_add_test(cases, the_dsdt_holds_what_kernels_look_for);
    tcase_add_test(cases, integers_take_their_shortest_form);
    tcase_add_test(cases, blocks_know_their_length);
    suite_add_tcase(suite, cases);
    return suite;
}

int main(void)
{
    SRunner *runner = srunner_create(acpi_suite());

    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
