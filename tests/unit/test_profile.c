/* monitor/profile: which lines samples become, and files that cannot be written. The timer's signal is raised
 * here. */
#include <check.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>

#include "event_world.h"
#include "monitor/profile.h"

static struct profile *profile;
static char error[512], *text;

static void setup(void)
{
    struct itimerval off = {0};

    event_world_open();
    profile = profile_open(event_path, &event_vm, error, sizeof error);
    ck_assert_msg(profile != NULL, "%s", error);
    setitimer(ITIMER_PROF, &off, NULL);
    profile_attend(profile, &event_vm); /* should it have fired already */
    event_vm.vcpu.eip = 0x100234;
    event_vm.is_guest_interrupted = true;
}

static void teardown(void)
{
    free(text);
    text = NULL;
    event_world_close();
}

static void sample(unsigned n_signals)
{
    event_vm.attention = 0;
    for (unsigned i = 0; i < n_signals; i++)
        raise(SIGPROF);
    ck_assert_int_eq(event_vm.attention, n_signals != 0);
    profile_attend(profile, &event_vm);
}

static void finish(void)
{
    ck_assert_msg(profile_close(profile, error, sizeof error), "%s", error);
    text = event_read_file(event_path, NULL);
}

static void assert_line(const char *line)
{
    ck_assert_msg(strstr(text, line) != NULL, "no line %s in:\n%s", line, text);
}

START_TEST(guest_and_monitor)
{
    sample(1);
    sample(2);
    event_vm.is_guest_interrupted = false;
    sample(4);
    finish();
    assert_line("kernel;0x00100000 3\n");
    assert_line("kernel;0x00100000;[monitor] 4\n");
}
END_TEST

START_TEST(nothing_is_due)
{
    sample(0);
    finish();
    ck_assert_ptr_null(strstr(text, "kernel;0x00100000"));
}
END_TEST

/* By the page: whose program it is nobody knows. */
START_TEST(user)
{
    event_vm.vcpu.cpl = 3;
    event_vm.vcpu.segment[SEG_CS].base = 0x8000000;
    sample(1);
    event_vm.vcpu.eip += 8;
    sample(1);
    event_vm.vcpu.eip += 0x1000;
    sample(1);
    finish();
    assert_line("user;0x08100000 2\n");
    assert_line("user;0x08101000 1\n");
}
END_TEST

START_TEST(more_stacks_than_room)
{
    for (uint32_t page = 0; page < 40000; page++) {
        event_vm.vcpu.eip = page << PAGE_SHIFT;
        sample(1);
    }
    finish();
    assert_line("kernel;0x00000000 1\n");
    assert_line("[others] ");
}
END_TEST

START_TEST(cannot_be_written)
{
    char message[512] = "";

    finish();
    ck_assert_ptr_null(profile_open("/nowhere/at/all", &event_vm, message, sizeof message));
    ck_assert_ptr_nonnull(strstr(message, "/nowhere/at/all"));
    profile = profile_open("/dev/full", &event_vm, message, sizeof message);
    ck_assert_ptr_nonnull(profile);
    sample(1);
    ck_assert(!profile_close(profile, message, sizeof message));
    ck_assert_ptr_nonnull(strstr(message, "No space left"));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("profile");
    TCase *tests = tcase_create("profile");
    SRunner *runner;
    int failed;

    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_test(tests, guest_and_monitor);
    tcase_add_test(tests, nothing_is_due);
    tcase_add_test(tests, user);
    tcase_add_test(tests, more_stacks_than_room);
    tcase_add_test(tests, cannot_be_written);
    suite_add_tcase(suite, tests);
    runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? 0 : 1;
}
