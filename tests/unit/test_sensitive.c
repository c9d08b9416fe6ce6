/* The table of sensitive instructions: complete, without doubles, and found by the right operands only. */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "decode/decode.h"

#define COUNT(array) ((int)(sizeof(array) / sizeof((array)[0])))

static size_t parse_hex(const char *text, uint8_t *bytes, size_t size)
{
    size_t n = 0;
    char *end;

    for (; n < size; text = end) {
        unsigned long byte = strtoul(text, &end, 16);

        if (end == text)
            break;
        bytes[n++] = (uint8_t)byte;
    }
    return n;
}

static struct insn decode_hex(const char *hex)
{
    uint8_t bytes[INSN_MAX_LENGTH];
    struct insn insn;

    ck_assert_msg(decode_insn(bytes, parse_hex(hex, bytes, sizeof bytes), 4, &insn) == DECODE_OK, "%s", hex);
    return insn;
}

static const struct sensitive *row_named(const char *name)
{
    size_t n;
    const struct sensitive *rows = sensitive_table(&n);

    for (size_t i = 0; i < n; i++) {
        if (strcmp(rows[i].name, name) == 0)
            return &rows[i];
    }
    return NULL;
}

START_TEST(test_rows_are_unique_and_filled)
{
    size_t n;
    const struct sensitive *rows = sensitive_table(&n);

    for (size_t i = 0; i < n; i++) {
        ck_assert_ptr_eq(row_named(rows[i].name), &rows[i]);
        ck_assert(rows[i].state[0] != '\0');
        ck_assert_ptr_nonnull(rows[i].note);
        ck_assert_int_lt(rows[i].handler, HANDLE_COUNT);
        ck_assert_ptr_nonnull(sensitive_class_name(&rows[i]));
        ck_assert_ptr_nonnull(substrate_name(rows[i].substrate));
        /* What always traps needs no patch; what never traps needs one; a condition is told. */
        if (rows[i].substrate == SUBSTRATE_TRAPS)
            ck_assert_msg(!sensitive_is_hole(&rows[i]), "%s", rows[i].name);
        if (rows[i].substrate == SUBSTRATE_HOLE)
            ck_assert_msg(sensitive_is_hole(&rows[i]), "%s", rows[i].name);
        if (rows[i].substrate == SUBSTRATE_CONDITIONAL)
            ck_assert_msg(rows[i].note[0] != '\0', "%s", rows[i].name);
        /* Privileged instructions trap: if not, the host has opened the privilege up. */
        if (rows[i].is_privileged)
            ck_assert_msg(rows[i].substrate == SUBSTRATE_TRAPS || rows[i].handler == HANDLE_rdpmc, "%s",
                          rows[i].name);
    }
}
END_TEST

/* Robin & Irvine, Analysis of the Intel Pentium's Ability to Support a Secure Virtual Machine Monitor, USENIX
 * Security 2000: the instructions that are sensitive and not privileged. */
START_TEST(test_robin_irvine_list)
{
    static const char *const list[] = {
        "SGDT",     "SIDT",    "SLDT",    "SMSW",     "PUSHF",         "PUSHFD",      "POPF",      "POPFD",
        "LAR",      "LSL",     "VERR",    "VERW",     "STR",           "INT n",       "PUSH Sreg", "POP Sreg",
        "CALL far", "JMP far", "RET far", "INT 0x80", "MOV from Sreg", "MOV to Sreg",
    };
    size_t n, marked = 0;
    const struct sensitive *rows = sensitive_table(&n);

    for (int i = 0; i < COUNT(list); i++) {
        const struct sensitive *row = row_named(list[i]);

        ck_assert_msg(row != NULL && row->in_robin_irvine, "%s", list[i]);
        ck_assert(!row->is_privileged);
    }
    for (size_t i = 0; i < n; i++)
        marked += rows[i].in_robin_irvine;
    ck_assert_uint_eq(marked, COUNT(list));
}
END_TEST

/* SDM Vol 3A 5.9 (privileged), Vol 1 19.5.1 (IOPL-sensitive), and the pages of the extensions. */
START_TEST(test_privileged_instructions)
{
    static const char *const list[] = {
        "f4",
        "0f 01 10",
        "0f 01 18",
        "0f 00 d0",
        "0f 00 d8",
        "0f 22 c0",
        "0f 20 c0",
        "0f 01 f0",
        "0f 06",
        "0f 23 c0",
        "0f 21 c0",
        "0f 08",
        "0f 09",
        "0f 01 38",
        "0f 32",
        "0f 30",
        "0f 33",
        "0f 35",
        "0f 07",
        "0f aa",
        "fa",
        "fb",
        "e4 60",
        "ee",
        "6c",
        "6d",
        "66 6d",
        "6e",
        "6f",
        "66 6f",
        "0f 01 c8",
        "0f 01 c9",
        "66 0f 38 82 00",
        "0f 01 d1",
        "0f c7 28",
        "0f c7 18",
        "0f 01 ca",
        "0f 01 cb",
        "0f 37",
        "0f 01 cf",
        "f3 0f c7 30",
        "0f 01 c4",
        "0f 01 c2",
        "0f 01 c3",
        "66 0f c7 30",
        "0f c7 30",
        "0f c7 38",
        "0f 78 00",
        "0f 79 00",
        "66 0f 38 80 00",
        "66 0f 38 81 00",
        "0f 01 d8",
        "0f 01 da",
        "0f 01 db",
        "0f 01 dc",
        "0f 01 dd",
        "0f 01 de",
        "0f 01 df",
    };
    const struct sensitive *seen[COUNT(list)];
    size_t n, privileged = 0;
    const struct sensitive *rows = sensitive_table(&n);

    for (int i = 0; i < COUNT(list); i++) {
        struct insn insn = decode_hex(list[i]);

        ck_assert_msg(insn.sensitive != NULL && insn.sensitive->is_privileged, "%s", list[i]);
        seen[i] = insn.sensitive;
        for (int k = 0; k < i; k++)
            ck_assert_msg(seen[k] != seen[i], "%s is named twice", list[i]);
    }
    for (size_t i = 0; i < n; i++)
        privileged += rows[i].is_privileged;
    ck_assert_uint_eq(privileged, COUNT(list));
}
END_TEST

static const struct {
    const char *hex, *row; /* NULL: innocuous */
} lookups[] = {
    /* MOV, PUSH, POP: the operands decide */
    {"0f 20 d8", "MOV from CR"},
    {"0f 22 d8", "MOV to CR"},
    {"0f 21 c0", "MOV from DR"},
    {"0f 23 f8", "MOV to DR"},
    {"8c d8", "MOV from Sreg"},
    {"8c 00", "MOV from Sreg"},
    {"8e 00", "MOV to Sreg"},
    {"89 c8", NULL},
    {"8b 00", NULL},
    {"a1 00 00 00 00", NULL},
    {"c7 00 00 00 00 00", NULL},
    {"b8 80 00 00 00", NULL},
    {"1e", "PUSH Sreg"},
    {"0f a0", "PUSH Sreg"},
    {"50", NULL},
    {"6a 80", NULL},
    {"ff 30", NULL},
    {"1f", "POP Sreg"},
    {"58", NULL},
    {"8f 00", NULL},
    /* near and far */
    {"eb fe", NULL},
    {"e9 00 00 00 00", NULL},
    {"ff e0", NULL},
    {"ff 20", NULL},
    {"ff 28", "JMP far"},
    {"ea 00 00 00 00 08 00", "JMP far"},
    {"e8 00 00 00 00", NULL},
    {"ff 10", NULL},
    {"ff 18", "CALL far"},
    {"9a 00 00 00 00 08 00", "CALL far"},
    {"c3", NULL},
    {"c2 04 00", NULL},
    {"cb", "RET far"},
    {"ca 04 00", "RET far"},
    {"cf", "IRETD"},
    {"66 cf", "IRET"},
    /* vectors */
    {"cd 80", "INT 0x80"},
    {"cd 81", "INT n"},
    {"cd 00", "INT n"},
    {"cc", "INT3"},
    /* the families */
    {"d9 c0", "FPU/SSE instruction"},
    {"9b", "FPU/SSE instruction"},
    {"da c1", "FPU/SSE instruction"},       /* fcmovb */
    {"df f0", "FPU/SSE instruction"},       /* fcomip */
    {"0f ae 00", "FPU/SSE instruction"},    /* fxsave */
    {"0f ae 18", "FPU/SSE instruction"},    /* stmxcsr */
    {"0f 77", "FPU/SSE instruction"},       /* emms */
    {"0f 6f 00", "FPU/SSE instruction"},    /* movq mm */
    {"66 0f 7f 00", "FPU/SSE instruction"}, /* movdqa */
    {"f2 0f 58 c1", "FPU/SSE instruction"}, /* addsd */
    {"66 0f d4 c1", "FPU/SSE instruction"}, /* paddq */
    {"0f d4 c1", "FPU/SSE instruction"},    /* paddq mm: SSE2 */
    {"0f ae f8", NULL},                     /* sfence */
    {"0f ae e8", NULL},                     /* lfence */
    {"0f ae f0", NULL},                     /* mfence */
    {"0f c3 00", NULL},                     /* movnti */
    {"0f 18 00", NULL},                     /* prefetchnta */
    {"f3 90", NULL},
    {"0f 1f 00", NULL},
    {"f3 0f 1e fa", NULL}, /* endbr32 */
    {"0f 40 c1", NULL},    /* cmovo */
    {"0f c7 08", NULL},    /* cmpxchg8b */
    {"0f 0b", NULL},       /* ud2: #UD everywhere */
    {"63 c0", "ARPL"},
    {"0f c7 f0", "outside the profile"},          /* rdrand */
    {"0f c7 f8", "outside the profile"},          /* rdseed */
    {"f3 0f c7 f8", "outside the profile"},       /* rdpid */
    {"0f 01 d0", "outside the profile"},          /* xgetbv */
    {"0f 01 d6", "outside the profile"},          /* xtest */
    {"c7 f8 00 00 00 00", "outside the profile"}, /* xbegin */
    {"0f ae 20", "outside the profile"},          /* xsave */
    {"0f ae 28", "outside the profile"},          /* xrstor */
    {"0f 38 f0 00", "outside the profile"},       /* movbe */
    {"f3 0f b8 c1", "outside the profile"},       /* popcnt */
    {"f2 0f 38 f0 c1", "outside the profile"},    /* crc32 */
    {"f2 0f f0 00", "outside the profile"},       /* lddqu: SSE3 */
    {"df 08", "outside the profile"},             /* fisttp: SSE3 */
    {"0f 38 00 c1", "outside the profile"},       /* pshufb mm: SSSE3 */
    {"66 0f 38 17 c1", "outside the profile"},    /* ptest: SSE4.1 */
    {"66 0f 38 dc c1", "outside the profile"},    /* aesenc */
    {"0f 0f c1 9e", "outside the profile"},       /* 3DNow! */
    {"c5 f8 77", "outside the profile"},          /* VEX */
    {"62 f1 7c 48 28 c0", "outside the profile"}, /* EVEX */
    {"66 0f ae 38", "outside the profile"},       /* clflushopt */
    {"0f 01 ee", "outside the profile"},          /* rdpkru */
    {"0f 01 fc", "outside the profile"},          /* clzero */
    {"0f 01 f9", "RDTSCP"},
    {"0f 05", "SYSCALL"},
    {"0f 34", "SYSENTER"},
};

START_TEST(test_lookup)
{
    struct insn insn = decode_hex(lookups[_i].hex);

    ck_assert_ptr_eq(insn.sensitive, sensitive_find(&insn));
    if (lookups[_i].row == NULL)
        ck_assert_msg(insn.sensitive == NULL, "%s is %s", lookups[_i].hex, insn.sensitive->name);
    else
        ck_assert_msg(insn.sensitive != NULL && strcmp(insn.sensitive->name, lookups[_i].row) == 0,
                      "%s is %s, not %s", lookups[_i].hex,
                      insn.sensitive != NULL ? insn.sensitive->name : "innocuous", lookups[_i].row);
}
END_TEST

static bool has_fpu_register(const struct insn *insn)
{
    for (unsigned i = 0; i < insn->n_operands; i++) {
        const struct operand *operand = &insn->operand[i];

        if (operand->kind == OPERAND_REGISTER &&
            (operand->reg.class == REGISTER_X87 || operand->reg.class == REGISTER_MMX ||
             operand->reg.class == REGISTER_XMM))
            return true;
    }
    return false;
}

/* Every opcode of the first two maps with every ModRM and prefix: an x87, MMX or XMM register is never
 * innocuous. */
START_TEST(test_fpu_registers)
{
    static const uint8_t prefixes[] = {0x3e, 0x66, 0xf2, 0xf3};
    uint8_t bytes[INSN_MAX_LENGTH] = {0};
    unsigned n_found = 0;

    bytes[0] = prefixes[_i];
    for (unsigned opcode = 0; opcode < 512; opcode++) {
        unsigned at = 1;
        struct insn insn;

        if (opcode >= 256)
            bytes[at++] = 0x0f;
        bytes[at++] = (uint8_t)opcode;
        for (unsigned modrm = 0; modrm < 256; modrm++) {
            bytes[at] = (uint8_t)modrm;
            if (decode_insn(bytes, sizeof bytes, 4, &insn) != DECODE_OK || !has_fpu_register(&insn))
                continue;
            n_found++;
            ck_assert_msg(insn.sensitive != NULL && (insn.sensitive->handler == HANDLE_fpu ||
                                                     insn.sensitive->handler == HANDLE_undefined),
                          "%s, opcode %#x %#x", decode_mnemonic_name(&insn), opcode, modrm);
        }
    }
    ck_assert_uint_gt(n_found, 1000);
}
END_TEST

/* What the rows say of handlers: whatever is outside the profile is #UD. */
START_TEST(test_profile)
{
    struct insn insn = decode_hex(lookups[_i].hex);

    if (insn.sensitive != NULL && strcmp(insn.sensitive->name, "outside the profile") == 0)
        ck_assert_int_eq(insn.sensitive->handler, HANDLE_undefined);
    if (!decode_is_in_profile(&insn))
        ck_assert(insn.sensitive != NULL && insn.sensitive->handler == HANDLE_undefined);
}
END_TEST

START_TEST(test_names)
{
    ck_assert_str_eq(sensitive_class_name(row_named("CLI")), "control");
    ck_assert_str_eq(sensitive_class_name(row_named("SIDT")), "behaviour");
    ck_assert_str_eq(sensitive_class_name(row_named("POPF")), "control+behaviour");
    ck_assert_str_eq(substrate_name(SUBSTRATE_TRAPS), "traps");
    ck_assert_str_eq(substrate_name(SUBSTRATE_HOLE), "hole");
    ck_assert_str_eq(substrate_name(SUBSTRATE_CONDITIONAL), "conditional");
    ck_assert_str_eq(substrate_name(SUBSTRATE_HOST_CALL), "host call");
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("sensitive");
    TCase *tests = tcase_create("table");
    SRunner *runner;
    int failed;

    tcase_add_test(tests, test_rows_are_unique_and_filled);
    tcase_add_test(tests, test_robin_irvine_list);
    tcase_add_test(tests, test_privileged_instructions);
    tcase_add_loop_test(tests, test_lookup, 0, COUNT(lookups));
    tcase_add_loop_test(tests, test_profile, 0, COUNT(lookups));
    tcase_add_loop_test(tests, test_fpu_registers, 0, 4);
    tcase_add_test(tests, test_names);
    suite_add_tcase(suite, tests);
    runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
