/* signals/probe: what a host denies is found and named, and probing changes nothing. */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <seccomp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "signals/signals.h"

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define HAS_SANITIZER true
#endif
#endif
#ifdef __SANITIZE_ADDRESS__
#define HAS_SANITIZER true
#endif
#ifndef HAS_SANITIZER
#define HAS_SANITIZER false
#endif

static struct host_probe probes[HOST_PROBES_MAX];
static size_t n_probes;

static void probe(void)
{
    n_probes = signals_probe_host(probes, HOST_PROBES_MAX);
}

static const struct host_probe *find(const char *name)
{
    for (size_t i = 0; i < n_probes; i++)
        if (strcmp(probes[i].name, name) == 0)
            return &probes[i];
    ck_abort_msg("no probe is called %s", name);
}

static void expect_missing(const char *name, int failure)
{
    const struct host_probe *found = find(name);

    ck_assert_msg(!found->is_available, "%s: %s", name, found->detail);
    ck_assert_str_eq(found->detail, strerror(failure));
}

START_TEST(all_are_described)
{
    probe();
    ck_assert_uint_ge(n_probes, 10);
    for (size_t i = 0; i < n_probes; i++) {
        ck_assert_str_ne(probes[i].name, "");
        ck_assert_str_ne(probes[i].detail, "");
        ck_assert_str_ne(probes[i].consequence, "");
        for (size_t k = 0; k < i; k++)
            ck_assert_str_ne(probes[i].name, probes[k].name);
    }
    ck_assert_uint_eq(signals_probe_host(probes, 3), 3);
}
END_TEST

/* As some container runtimes do. */
START_TEST(denied_by_a_container)
{
    static const struct {
        const char *name;
        int number, failure;
    } cases[] = {{"modify_ldt", SCMP_SYS(modify_ldt), ENOSYS},
                 {"userfaultfd", SCMP_SYS(userfaultfd), EPERM},
                 {"memfd", SCMP_SYS(memfd_create), EACCES}};
    scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ALLOW);

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        ck_assert_int_eq(
            seccomp_rule_add(filter, SCMP_ACT_ERRNO((uint32_t)cases[i].failure), cases[i].number, 0), 0);
    ck_assert_int_eq(seccomp_rule_add(filter, SCMP_ACT_ERRNO(EPERM), SCMP_SYS(prctl), 1,
                                      SCMP_A0(SCMP_CMP_EQ, PR_SET_TSC, 0)),
                     0);
    ck_assert_int_eq(seccomp_load(filter), 0);
    seccomp_release(filter);

    probe();
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        expect_missing(cases[i].name, cases[i].failure);
    expect_missing("TSC faulting", EPERM);
    ck_assert(find("modify_ldt")->is_required);
    ck_assert(!find("userfaultfd")->is_required);
    ck_assert(find("compat mode")->is_available); /* one thing denied is not blamed on another */
    ck_assert(HAS_SANITIZER || find("low 8 GiB")->is_available);
}
END_TEST

START_TEST(low_memory_taken)
{
    ck_assert_ptr_ne(
        mmap((void *)0x20000000, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0),
        MAP_FAILED);
    probe();
    expect_missing("low 8 GiB", EEXIST);
}
END_TEST

START_TEST(address_space_limited)
{
    struct rlimit limit = {.rlim_cur = 1ul << 30, .rlim_max = RLIM_INFINITY};

    ck_assert_int_eq(setrlimit(RLIMIT_AS, &limit), 0);
    probe();
    expect_missing("low 8 GiB", ENOMEM);
}
END_TEST

/* No filter, no faulting instruction, no segment, no mapping is left behind. */
START_TEST(nothing_lasts)
{
    uint32_t low, high;
    char ldt[64];
    int fd;

    probe();
    __asm__ volatile("rdtsc" : "=a"(low), "=d"(high));
    __asm__ volatile("cpuid" : "=a"(low) : "a"(0) : "ebx", "ecx", "edx");
    ck_assert_int_eq(syscall(SYS_modify_ldt, 0, ldt, sizeof ldt), 0); /* bytes in it */
    fd = open("/dev/null", O_RDONLY);
    ck_assert_int_ge(fd, 0);
    close(fd);
    ck_assert_int_eq(prctl(PR_GET_SECCOMP, 0, 0, 0, 0), 0);
    ck_assert_int_eq(msync((void *)0x10000, 4096, MS_ASYNC), -1);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("probe");
    TCase *tests = tcase_create("probe");
    SRunner *runner;
    int failed;

    tcase_add_test(tests, all_are_described);
    tcase_add_test(tests, denied_by_a_container);
    if (!HAS_SANITIZER) {
        tcase_add_test(tests, low_memory_taken);
        tcase_add_test(tests, address_space_limited);
    }
    tcase_add_test(tests, nothing_lasts);
    if (HAS_SANITIZER)
        printf("SKIP what is said of the low 8 GiB, which the address sanitizer has taken\n");
    suite_add_tcase(suite, tests);
    runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
