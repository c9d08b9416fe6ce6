/*
 * The reference beside a machine: it agrees with engines that are right, on guests with devices, paging and
 * interrupts, and tells where one is wrong.
 */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "monitor/interpret.h"
#include "monitor/loader.h"
#include "monitor/lockstep.h"
#include "translate/translate.h"

/* The translator's windows and the sanitizer's shadow have no room beside each other. */
#ifdef __SANITIZE_ADDRESS__
#define HAS_SANITIZER true
#else
#define HAS_SANITIZER false
#endif

static struct vm vm;
static struct kernel_image *kernel;
static struct lockstep *lockstep;
static char text[LOCKSTEP_TEXT];

static void open_guest(const char *name, const struct engine *engine)
{
    struct loader_config config = {.append = "limits alignment simd rmw msr int1 x87 lock fpu sysenter far"};
    struct vm_config machine = {.ram_size = 16u << 20, .clock = CLOCK_VIRTUAL};
    char path[512], error[512] = "";

    snprintf(path, sizeof path, "%s/%s.elf", GUESTS, name);
    config.kernel_path = path;
    kernel = kernel_open(&config, error, sizeof error);
    ck_assert_msg(kernel != NULL, "%s", error);
    ck_assert_msg(vm_create(&vm, &machine, engine, error, sizeof error), "%s", error);
    ck_assert_msg(kernel_load(kernel, &config, &vm, error, sizeof error), "%s", error);
    lockstep = lockstep_create(&vm, error, sizeof error);
    ck_assert_msg(lockstep != NULL, "%s", error);
}

static void close_guest(void)
{
    lockstep_destroy(lockstep);
    vm_destroy(&vm);
    kernel_close(kernel);
}

static const char *const names[] = {"privileged",     "paging", "pae",     "pagetables", "reuse",
                                    "userkernel",     "faults", "selfmod", "escape",     "interrupts",
                                    /* long */ "mmio" /* likewise */};
#define N_LONG  2
#define N_NAMES ((int)(sizeof names / sizeof names[0]))

static void follow_guest(const char *name, const struct engine *engine)
{
    open_guest(name, engine);
    while (!vm_is_stopped(&vm))
        ck_assert_msg(lockstep_turn(lockstep, text), "%s under %s: %s", name, engine->name, text);
    ck_assert_msg(vm.stop_reason == STOP_DEBUG_EXIT && vm.stop_value == 0, "%s: %s", name, vm.stop_text);
    ck_assert_uint_gt(lockstep_instructions(lockstep), 10000);
    close_guest();
}

START_TEST(the_interpreter_is_followed)
{
    follow_guest(names[_i], &interpret_engine);
}
END_TEST

START_TEST(the_translator_is_followed)
{
    follow_guest(names[_i], &translate_engine);
}
END_TEST

/* ---- differences --------------------------------------------------------------------------------------- */

static void run_some_turns(void)
{
    for (unsigned i = 0; i < 20; i++)
        ck_assert_msg(lockstep_turn(lockstep, text), "%s", text);
}

static void expect_difference(const char *what)
{
    bool is_same = true;

    for (unsigned i = 0; i < 50 && is_same; i++)
        is_same = lockstep_turn(lockstep, text);
    ck_assert_msg(!is_same, "no difference");
    ck_assert_msg(strstr(text, what) != NULL, "\"%s\" is not in: %s", what, text);
    close_guest();
}

START_TEST(a_wrong_segment_is_told)
{
    open_guest("privileged", &interpret_engine);
    run_some_turns();
    vm.vcpu.segment[SEG_GS].limit ^= 1;
    expect_difference("gs ");
}
END_TEST

START_TEST(a_wrong_control_register_is_told)
{
    open_guest("privileged", &interpret_engine);
    run_some_turns();
    vm.vcpu.cr2 ^= 0x1000;
    expect_difference("cr2 ");
}
END_TEST

START_TEST(a_wrong_fpu_register_is_told)
{
    open_guest("privileged", &interpret_engine);
    run_some_turns();
    vm.vcpu.fxsave[160] ^= 1;
    expect_difference("xmm0-7");
}
END_TEST

/* In the page that the stack is in, which is written all the time. */
START_TEST(wrong_memory_is_told)
{
    uint8_t byte = 0xa5;

    open_guest("privileged", &interpret_engine);
    run_some_turns();
    ck_assert(memory_write(&vm.memory, (vm.vcpu.gpr[ESP] & ~PAGE_MASK) + 1, &byte, 1));
    expect_difference("memory at physical ");
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("lockstep");
    TCase *cases = tcase_create("lockstep");
    SRunner *runner = srunner_create(suite);
    int failed;

    tcase_add_loop_test(cases, the_interpreter_is_followed, 0, HAS_SANITIZER ? N_NAMES - N_LONG : N_NAMES);
    if (!HAS_SANITIZER)
        tcase_add_loop_test(cases, the_translator_is_followed, 0, N_NAMES);
    tcase_add_test(cases, a_wrong_segment_is_told);
    tcase_add_test(cases, a_wrong_control_register_is_told);
    tcase_add_test(cases, a_wrong_fpu_register_is_told);
    tcase_add_test(cases, wrong_memory_is_told);
    suite_add_tcase(suite, cases);
    srunner_run_all(runner, CK_NORMAL);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
