/* monitor/symbols: lookup by address and name, sized, unsized and nested symbols, hostile tables. */
#include <stdlib.h>

#include "elf_builder.h"
#include "monitor/symbols.h"

#define FUNC   ELF32_ST_INFO(STB_GLOBAL, STT_FUNC)
#define LOCAL  ELF32_ST_INFO(STB_LOCAL, STT_FUNC)
#define OBJECT ELF32_ST_INFO(STB_GLOBAL, STT_OBJECT)
#define LABEL  ELF32_ST_INFO(STB_GLOBAL, STT_NOTYPE)
#define SOURCE ELF32_ST_INFO(STB_LOCAL, STT_FILE)

static struct elf_builder builder;

/* Section 1 is code at 0x1000-0x1fff, section 2 data at 0x3000-0x30ff. */
static unsigned build(const struct builder_symbol *symbols, unsigned n)
{
    builder_start(&builder, 0x1000);
    builder_add_section(&builder, (Elf32_Shdr){.sh_type = SHT_PROGBITS,
                                               .sh_flags = SHF_ALLOC | SHF_EXECINSTR,
                                               .sh_addr = 0x1000,
                                               .sh_size = 0x1000});
    builder_add_section(
        &builder,
        (Elf32_Shdr){.sh_type = SHT_NOBITS, .sh_flags = SHF_ALLOC, .sh_addr = 0x3000, .sh_size = 0x100});
    return builder_add_symbols(&builder, symbols, n);
}

static struct symbols *load(void)
{
    return symbols_load_bytes(builder.bytes, builder.size);
}

static void expect(const struct symbols *symbols, uint32_t address, const char *name, uint32_t offset)
{
    uint32_t found = 0xdeadbeef;
    const char *text = symbols_find(symbols, address, &found);

    if (name == NULL) {
        ck_assert_msg(text == NULL, "0x%x: got %s, want none", address, text == NULL ? "" : text);
        return;
    }
    ck_assert_msg(text != NULL && strcmp(text, name) == 0, "0x%x: got %s, want %s", address,
                  text == NULL ? "none" : text, name);
    ck_assert_uint_eq(found, offset);
}

static const struct builder_symbol ordinary[] = {
    {"later", 0x1200, 0x80, FUNC, 1},   {"kernel.c", 0, 0, SOURCE, SHN_ABS},  {"start", 0x1000, 0, LABEL, 1},
    {"main", 0x1100, 0x40, FUNC, 1},    {"table", 0x3000, 0x20, OBJECT, 2},   {"end", 0x3040, 0, LABEL, 2},
    {"missing", 0, 0, FUNC, SHN_UNDEF}, {"PAGES", 0x1104, 0, LABEL, SHN_ABS}, {"helper", 0x1300, 0, LOCAL, 1},
    {"", 0x1150, 4, FUNC, 1},
};

START_TEST(find_by_address)
{
    struct symbols *symbols;

    build(ordinary, sizeof ordinary / sizeof ordinary[0]);
    symbols = load();
    ck_assert_ptr_nonnull(symbols);
    expect(symbols, 0xfff, NULL, 0);
    expect(symbols, 0x1000, "start", 0);
    expect(symbols, 0x10ff, "start", 0xff); /* unsized: up to the next one */
    expect(symbols, 0x1100, "main", 0);
    expect(symbols, 0x1104, "main", 4); /* an absolute symbol is a number, not a place */
    expect(symbols, 0x113f, "main", 0x3f);
    expect(symbols, 0x1140, NULL, 0); /* sized: no further than its size */
    expect(symbols, 0x1150, NULL, 0); /* no name: not shown */
    expect(symbols, 0x127f, "later", 0x7f);
    expect(symbols, 0x1fff, "helper", 0xcff); /* unsized, the last: to the end of the section */
    expect(symbols, 0x2000, NULL, 0);
    expect(symbols, 0x301f, "table", 0x1f);
    expect(symbols, 0x30ff, "end", 0xbf);
    expect(symbols, 0x3100, NULL, 0);
    expect(symbols, 0xffffffff, NULL, 0);
    symbols_free(symbols);
}
END_TEST

START_TEST(find_by_name)
{
    struct symbols *symbols;
    uint32_t address = 0;

    build(ordinary, sizeof ordinary / sizeof ordinary[0]);
    symbols = load();
    ck_assert(symbols_address(symbols, "main", &address));
    ck_assert_uint_eq(address, 0x1100);
    ck_assert(symbols_address(symbols, "PAGES", &address));
    ck_assert_uint_eq(address, 0x1104);
    ck_assert(!symbols_address(symbols, "missing", &address));
    ck_assert(!symbols_address(symbols, "mai", &address));
    ck_assert(!symbols_address(symbols, "zzz", &address));
    ck_assert(!symbols_address(symbols, "", &address));
    symbols_free(symbols);
}
END_TEST

START_TEST(next_function)
{
    static const uint32_t starts[] = {0x1000, 0x1100, 0x1200, 0x1300};
    struct symbols *symbols;
    uint32_t address = 0;

    build(ordinary, sizeof ordinary / sizeof ordinary[0]);
    symbols = load();
    for (size_t i = 0; i < sizeof starts / sizeof starts[0]; i++) {
        ck_assert(symbols_next_function(symbols, address, &address));
        ck_assert_uint_eq(address, starts[i]);
    }
    ck_assert(!symbols_next_function(symbols, address, &address)); /* data symbols do not count */
    symbols_free(symbols);
}
END_TEST

START_TEST(best_of_one_address)
{
    static const struct builder_symbol aliases[] = {
        {"label", 0x1100, 0, LABEL, 1},      {"local", 0x1100, 0x10, LOCAL, 1},
        {"function", 0x1100, 0x10, FUNC, 1}, {"unsized", 0x1100, 0, FUNC, 1},
        {"twice", 0x1200, 4, LOCAL, 1},      {"twice", 0x1300, 4, FUNC, 1},
    };
    struct symbols *symbols;
    uint32_t address = 0;

    build(aliases, sizeof aliases / sizeof aliases[0]);
    symbols = load();
    expect(symbols, 0x1105, "function", 5);
    ck_assert(symbols_address(symbols, "label", &address)); /* the others are still there by name */
    ck_assert_uint_eq(address, 0x1100);
    ck_assert(symbols_address(symbols, "twice", &address)); /* the global one */
    ck_assert_uint_eq(address, 0x1300);
    symbols_free(symbols);
}
END_TEST

START_TEST(nested_symbols)
{
    static const struct builder_symbol nested[] = {
        {"outer", 0x1100, 0x100, FUNC, 1},   {"inner", 0x1110, 0x10, FUNC, 1},
        {"innermost", 0x1114, 4, OBJECT, 1}, {"label", 0x11f0, 0, LABEL, 1},
        {"next", 0x1300, 0x10, FUNC, 1},
    };
    struct symbols *symbols;

    build(nested, sizeof nested / sizeof nested[0]);
    symbols = load();
    expect(symbols, 0x1105, "outer", 5);
    expect(symbols, 0x1113, "inner", 3);
    expect(symbols, 0x1117, "innermost", 3);
    expect(symbols, 0x1118, "inner", 8);
    expect(symbols, 0x1120, "outer", 0x20);
    expect(symbols, 0x11ff, "label", 0xf);
    expect(symbols, 0x1200, NULL, 0); /* the label ends with the function around it */
    symbols_free(symbols);
}
END_TEST

START_TEST(top_of_the_address_space)
{
    static const struct builder_symbol top[] = {{"reset", 0xfffffff0, 0x10, FUNC, 1}};
    struct symbols *symbols;

    build(top, 1);
    builder_section(&builder, 1)->sh_addr = 0xfffff000;
    symbols = load();
    expect(symbols, 0xffffffff, "reset", 0xf);
    expect(symbols, 0xffffffef, NULL, 0);
    symbols_free(symbols);
}
END_TEST

START_TEST(no_symbols)
{
    uint32_t value = 7;

    ck_assert_ptr_null(symbols_load_bytes(NULL, 0));
    ck_assert_ptr_null(symbols_load_bytes("\177ELF", 4));
    builder_start(&builder, 0x1000);
    ck_assert_ptr_null(load());
    memset(builder.bytes, 0x55, 4096);
    ck_assert_ptr_null(load());
    ck_assert_ptr_null(symbols_load("/nonexistent"));
    ck_assert_ptr_null(symbols_load("/"));
    ck_assert_ptr_null(symbols_find(NULL, 0x1000, &value));
    ck_assert(!symbols_address(NULL, "main", &value));
    ck_assert(!symbols_next_function(NULL, 0, &value));
    symbols_free(NULL);
}
END_TEST

START_TEST(other_elf_class)
{
    build(ordinary, 3);
    builder.bytes[EI_CLASS] = ELFCLASS64;
    ck_assert_ptr_null(load());
    build(ordinary, 3);
    builder.bytes[EI_DATA] = ELFDATA2MSB;
    ck_assert_ptr_null(load());
}
END_TEST

/* Every 32-bit word of the headers and of the tables, replaced by hostile values one at a time; then random
 * damage. Nothing to expect but that no lookup leaves its arrays: the sanitizers watch. */
static void probe(void)
{
    struct symbols *symbols = load();
    uint32_t address, offset;

    for (uint64_t a = 0; a < UINT64_C(1) << 32; a += 0x10000001)
        symbols_find(symbols, (uint32_t)a, &offset);
    for (uint32_t a = 0x0ff0; a < 0x3110; a += 0x11)
        symbols_find(symbols, a, &offset);
    symbols_address(symbols, "main", &address);
    for (address = 0; symbols_next_function(symbols, address, &address);)
        ;
    symbols_free(symbols);
}

START_TEST(hostile_words)
{
    static const uint32_t values[] = {0, 1, 3, 0x34, 0x7fffffff, 0x80000000, 0xffff, 0xfffffff0, 0xffffffff};
    static struct elf_builder good;

    build(ordinary, sizeof ordinary / sizeof ordinary[0]);
    good = builder;
    for (size_t at = 4; at + 4 <= good.size; at += at == 0x30 ? BUILDER_SHOFF - 0x30 : 4) {
        if (at >= BUILDER_SHOFF + 6 * sizeof(Elf32_Shdr) && at < BUILDER_CONTENTS)
            continue;
        for (size_t i = 0; i < sizeof values / sizeof values[0]; i++) {
            builder = good;
            memcpy(builder.bytes + at, &values[i], 4);
            probe();
        }
    }
    for (size_t size = 0; size < good.size; size += 13) {
        builder = good;
        builder.size = size;
        probe();
    }
    srandom(1);
    for (unsigned round = 0; round < 500; round++) {
        builder = good;
        for (unsigned i = 0; i < 8; i++) {
            size_t at = (size_t)random() % good.size;

            builder.bytes[at] = (uint8_t)random();
        }
        probe();
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("symbols");
    TCase *tests = tcase_create("symbols");
    SRunner *runner;
    int failed;

    tcase_add_test(tests, find_by_address);
    tcase_add_test(tests, find_by_name);
    tcase_add_test(tests, next_function);
    tcase_add_test(tests, best_of_one_address);
    tcase_add_test(tests, nested_symbols);
    tcase_add_test(tests, top_of_the_address_space);
    tcase_add_test(tests, no_symbols);
    tcase_add_test(tests, other_elf_class);
    tcase_add_test(tests, hostile_words);
    tcase_set_timeout(tests, 60);
    suite_add_tcase(suite, tests);
    runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
