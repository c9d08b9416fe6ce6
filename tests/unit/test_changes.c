/* monitor/changes: two states of the processor compared, one field at a time and all at once. */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "monitor/trace.h"

static struct vcpu before, after;
static char texts[TRACE_MAX_CHANGES][CHANGE_TEXT_SIZE];

static void setup(void)
{
    memset(&before, 0, sizeof before);
    memset(&after, 0, sizeof after);
    memset(texts, 0, sizeof texts);
}

static size_t changes(void)
{
    return trace_changes(&before, &after, texts, TRACE_MAX_CHANGES);
}

START_TEST(nothing_changes)
{
    ck_assert_uint_eq(changes(), 0);
    after.eip = 0x1234; /* the record says where the guest resumes */
    after.segment[SEG_CS].base = 0x1000;
    after.fxsave[10] = 1;
    ck_assert_uint_eq(changes(), 0);
}
END_TEST

START_TEST(one_field)
{
    struct vcpu *a = &after;
    struct {
        const char *text;
        void *member;
        uint64_t value;
        size_t size;
    } cases[] = {
        {"IF_virt 0→1", &a->eflags, EFLAGS_IF, 4},
        {"IOPL_virt 0→3", &a->eflags, EFLAGS_IOPL, 4},
        {"ID 0→1", &a->eflags, EFLAGS_ID, 4},
        {"cpl 0→3", &a->cpl, 3, 1},
        {"eax 00000000→deadbeef", &a->gpr[EAX], 0xdeadbeef, 4},
        {"edi 00000000→00000001", &a->gpr[EDI], 1, 4},
        {"gs 0000→002b", &a->segment[SEG_GS].selector, 0x2b, 2},
        {"tr 0000→0028", &a->tr.selector, 0x28, 2},
        {"idtr.base 00000000→c0000000", &a->idtr.base, 0xc0000000, 4},
        {"idtr.limit 0000→07ff", &a->idtr.limit, 0x7ff, 2},
        {"CR0.PG 0→1", &a->cr0, CR0_PG, 4},
        {"CR0.TS 0→1", &a->cr0, CR0_TS, 4},
        {"cr3 00000000→00101000", &a->cr3, 0x101000, 4},
        {"dr7 00000000→00000400", &a->dr[7], 0x400, 4},
        {"sysenter_eip 0000000000000000→00000000c0101234", &a->msr.sysenter_eip, 0xc0101234, 8},
        {"mtrr_fixed10 0000000000000000→0606060606060606", &a->msr.mtrr_fixed[10], 0x0606060606060606, 8},
        {"mtrr_variable15 0000000000000000→0000000000000800", &a->msr.mtrr_variable[15], 0x800, 8},
        {"halted 0→1", &a->halted, 1, 1},
    };

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        setup();
        memcpy(cases[i].member, &cases[i].value, cases[i].size);
        ck_assert_uint_eq(changes(), 1);
        ck_assert_str_eq(texts[0], cases[i].text);
    }
}
END_TEST

START_TEST(in_order)
{
    before.eflags = EFLAGS_IF | EFLAGS_CF;
    before.gpr[ECX] = 5;
    after.gpr[ECX] = 4;
    ck_assert_uint_eq(changes(), 3);
    ck_assert_str_eq(texts[0], "IF_virt 1→0");
    ck_assert_str_eq(texts[1], "CF 1→0");
    ck_assert_str_eq(texts[2], "ecx 00000005→00000004");
}
END_TEST

/* Counts on when there is no room, and touches nothing behind it. */
START_TEST(little_room)
{
    after.gpr[EAX] = after.gpr[ECX] = after.gpr[EDX] = 1;
    ck_assert_uint_eq(trace_changes(&before, &after, texts, 2), 3);
    ck_assert_str_eq(texts[1], "ecx 00000000→00000001");
    ck_assert_str_eq(texts[2], "");
    ck_assert_uint_eq(trace_changes(&before, &after, NULL, 0), 3);
}
END_TEST

/* The most there can be fits into TRACE_MAX_CHANGES texts, each whole. */
START_TEST(everything)
{
    size_t n;

    memset(&after, 0xff, offsetof(struct vcpu, fault));
    n = changes();
    ck_assert_uint_ge(n, 80);
    ck_assert_uint_le(n, TRACE_MAX_CHANGES);
    for (size_t i = 0; i < n; i++) {
        ck_assert_uint_lt(strlen(texts[i]), CHANGE_TEXT_SIZE - 1);
        ck_assert_ptr_nonnull(strstr(texts[i], "→"));
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("changes");
    TCase *tests = tcase_create("changes");
    SRunner *runner;
    int failed;

    tcase_add_checked_fixture(tests, setup, NULL);
    tcase_add_test(tests, nothing_changes);
    tcase_add_test(tests, one_field);
    tcase_add_test(tests, in_order);
    tcase_add_test(tests, little_room);
    tcase_add_test(tests, everything);
    suite_add_tcase(suite, tests);
    runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
