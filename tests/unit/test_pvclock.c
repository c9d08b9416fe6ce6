/* The records of the paravirtual clock in guest memory. */
#include <check.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "monitor/pvclock.h"

#define RAM_SIZE UINT64_C(0x200000)
#define RECORD   UINT64_C(0x101000)
#define WALL_NS  (INT64_C(1700000000) * 1000000000 + 123456789)

static struct guest_memory memory;
static struct vcpu vcpu;
static struct pvclock pvclock;
static char schedstat[] = "/tmp/ring3-schedstat-XXXXXX";

/* How the code listener sees the version at each write: the record's page is one that has code. */
static struct {
    uint32_t version[64];
    unsigned n;
    gpa_t at;
} seen;

static void note_version(void *ctx, uint32_t rpn, uint32_t offset, uint32_t n)
{
    (void)ctx, (void)rpn, (void)offset, (void)n;
    ck_assert_uint_lt(seen.n, 64);
    ck_assert(memory_read(&memory, seen.at, &seen.version[seen.n++], 4));
}

static void setup(void)
{
    char error[256];

    ck_assert_msg(memory_create(&memory, RAM_SIZE, 0, error, sizeof error), "%s", error);
    memory.page_flags[RECORD >> PAGE_SHIFT] = PAGE_IS_CODE;
    memory.code_listener.written = note_version;
    memset(&seen, 0, sizeof seen);
    memset(&vcpu, 0, sizeof vcpu);
    pvclock = (struct pvclock){.wall_ns = WALL_NS, .schedstat = -1};
}

static void teardown(void)
{
    pvclock_close(&pvclock);
    memory_destroy(&memory);
}

static uint64_t number_at(gpa_t gpa, unsigned size)
{
    uint64_t value = 0;

    ck_assert(memory_read(&memory, gpa, &value, size));
    return value;
}

static void written(uint32_t msr)
{
    pvclock_msr_written(&pvclock, &memory, &vcpu, msr);
}

static void set_number(gpa_t gpa, uint32_t value)
{
    ck_assert(memory_write(&memory, gpa, &value, sizeof value));
    seen.n = 0;
}

/* msr.rst's formula */
static uint64_t system_time(uint64_t tsc)
{
    uint64_t delta = tsc - number_at(RECORD + 8, 8);
    int8_t shift = (int8_t)number_at(RECORD + 28, 1);

    delta = shift < 0 ? delta >> -shift : delta << shift;
    return number_at(RECORD + 16, 8) + (delta * number_at(RECORD + 24, 4) >> 32);
}

START_TEST(system_time_is_tsc_without_offset)
{
    vcpu.msr.kvm_system_time = RECORD | MSR_KVM_ENABLED;
    written(MSR_KVM_SYSTEM_TIME);
    ck_assert_uint_eq(system_time(0), 0);
    ck_assert_uint_eq(system_time(1999999999), 1999999999);
    ck_assert_uint_eq(number_at(RECORD + 29, 1), 1); /* stable */
    vcpu.msr.tsc_offset = (uint64_t)-1000;           /* the guest has set its TSC back */
    written(MSR_TSC);
    ck_assert_uint_eq(system_time(0), 1000);
    ck_assert_uint_eq(system_time(500), 1500);
}
END_TEST

START_TEST(a_disabled_record_is_not_written)
{
    vcpu.msr.kvm_system_time = RECORD;
    vcpu.msr.kvm_steal_time = RECORD;
    written(MSR_KVM_SYSTEM_TIME_OLD);
    written(MSR_KVM_STEAL_TIME);
    written(MSR_TSC);
    written(MSR_KVM_WALL_CLOCK); /* at 0: nowhere */
    ck_assert_uint_eq(seen.n, 0);
    ck_assert_uint_eq(number_at(0, 4), 0);
}
END_TEST

START_TEST(the_version_is_odd_while_a_record_is_written)
{
    static const uint32_t first[] = {0, 1, 41, 42, 0xffffffff};

    seen.at = RECORD;
    vcpu.msr.kvm_system_time = RECORD | MSR_KVM_ENABLED;
    for (unsigned i = 0; i < sizeof first / sizeof first[0]; i++) {
        set_number(RECORD, first[i]);
        written(MSR_KVM_SYSTEM_TIME);
        ck_assert_uint_eq(seen.n, 3);
        ck_assert_uint_eq(seen.version[0] & 1, 1);
        ck_assert_uint_eq(seen.version[1], seen.version[0]);
        ck_assert_uint_eq(seen.version[2], seen.version[0] + 1);
        ck_assert_uint_ne(seen.version[2], first[i]);
    }
}
END_TEST

START_TEST(the_wall_clock_is_that_of_power_on)
{
    vcpu.msr.kvm_wall_clock = RECORD + 4; /* no enable bit */
    seen.at = RECORD + 4;
    written(MSR_KVM_WALL_CLOCK);
    ck_assert_uint_eq(number_at(RECORD + 4, 4), 2);
    ck_assert_uint_eq(number_at(RECORD + 8, 4), 1700000000);
    ck_assert_uint_eq(number_at(RECORD + 12, 4), 123456789);
    ck_assert_uint_eq(seen.version[0], 1);
}
END_TEST

/* Any address is allowed, and none of them must do harm. */
START_TEST(records_where_no_memory_is)
{
    static const uint64_t places[] = {RAM_SIZE - 8,    RAM_SIZE,      0xfee00000,         0xfffffffff000,
                                      ~UINT64_C(0x3f), 0xa0000,       RAM_SIZE - 0x3f000, 0x9ffe0,
                                      0xfffffffc,      RECORD + 0xff0};

    for (unsigned i = 0; i < sizeof places / sizeof places[0]; i++) {
        seen.n = 0;
        vcpu.msr.kvm_system_time = places[i] | MSR_KVM_ENABLED;
        vcpu.msr.kvm_steal_time = (places[i] & ~MSR_KVM_STEAL_RESERVED) | MSR_KVM_ENABLED;
        vcpu.msr.kvm_wall_clock = places[i];
        written(MSR_KVM_SYSTEM_TIME);
        written(MSR_KVM_STEAL_TIME);
        written(MSR_KVM_WALL_CLOCK);
    }
    ck_assert_uint_eq(number_at(RECORD + 0xff0 + 28, 1), 1); /* over the end of a page */
}
END_TEST

static void host_says(const char *text)
{
    ck_assert_int_eq(ftruncate(pvclock.schedstat, 0), 0);
    ck_assert_int_eq(pwrite(pvclock.schedstat, text, strlen(text), 0), (ssize_t)strlen(text));
}

START_TEST(stolen_time_follows_the_host)
{
    pvclock.schedstat = mkstemp(schedstat);
    ck_assert_int_ge(pvclock.schedstat, 0);
    unlink(schedstat);
    pvclock.run_delay = 1000;
    host_says("5000 1700 3\n");
    seen.at = RECORD + 8;
    pvclock_attend(&pvclock, &memory, &vcpu, 0); /* nobody asked */
    ck_assert_uint_eq(pvclock.stolen_ns, 0);
    vcpu.msr.kvm_steal_time = RECORD | MSR_KVM_ENABLED;
    written(MSR_KVM_STEAL_TIME);
    ck_assert_uint_eq(number_at(RECORD, 8), 0);
    pvclock_attend(&pvclock, &memory, &vcpu, 1);
    ck_assert_uint_eq(number_at(RECORD, 8), 700);
    ck_assert_uint_eq(number_at(RECORD + 8, 4), 4);
    host_says("6000 2700 4\n");
    pvclock_attend(&pvclock, &memory, &vcpu, 2); /* too soon */
    ck_assert_uint_eq(number_at(RECORD, 8), 700);
    pvclock_attend(&pvclock, &memory, &vcpu, 100000000);
    ck_assert_uint_eq(number_at(RECORD, 8), 1700);
    host_says("0 17\n"); /* never back */
    pvclock_attend(&pvclock, &memory, &vcpu, 200000000);
    host_says("nothing");
    pvclock_attend(&pvclock, &memory, &vcpu, 300000000);
    ck_assert_uint_eq(number_at(RECORD, 8), 1700);
    ck_assert_uint_eq(number_at(RECORD + 8, 4) & 1, 0);
}
END_TEST

START_TEST(the_host_is_asked_if_it_knows)
{
    pvclock_open(&pvclock);
    if (access("/proc/self/schedstat", R_OK) == 0)
        ck_assert_int_ge(pvclock.schedstat, 0);
    vcpu.msr.kvm_steal_time = RECORD | MSR_KVM_ENABLED;
    pvclock_attend(&pvclock, &memory, &vcpu, 0);
    ck_assert_uint_eq(number_at(RECORD, 8), pvclock.stolen_ns);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("monitor/pvclock");
    TCase *tests = tcase_create("records");
    SRunner *runner;
    int failed;

    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_test(tests, system_time_is_tsc_without_offset);
    tcase_add_test(tests, a_disabled_record_is_not_written);
    tcase_add_test(tests, the_version_is_odd_while_a_record_is_written);
    tcase_add_test(tests, the_wall_clock_is_that_of_power_on);
    tcase_add_test(tests, records_where_no_memory_is);
    tcase_add_test(tests, stolen_time_follows_the_host);
    tcase_add_test(tests, the_host_is_asked_if_it_knows);
    suite_add_tcase(suite, tests);
    runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? 0 : 1;
}
