/* The interpreter as an engine: what it runs itself, what it hands over as an exit, and what it counts. */
#include <stdlib.h>

#include "exit_world.h"
#include "monitor/interpret.h"

#define DEVICE_GVA 0xfee00020u /* the local APIC's ID */

static struct vm_exit run(void)
{
    struct vm_exit exit;

    vm.engine->run(vm.engine_state, &exit);
    return exit;
}

/* The code at CODE_GPA, run until the first exit. */
#define RUN(...) run_code((const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__}))
static struct vm_exit run_code(const uint8_t *code, size_t n)
{
    put_code(code, n);
    return run();
}

static void open_world(void)
{
    exit_world_open_on(&interpret_engine, &(struct vm_config){.ram_size = RAM_SIZE, .clock = CLOCK_VIRTUAL});
    vm.instruction_deadline = UINT64_MAX; /* vm_run_once, which is not called here, says how long to run */
}

START_TEST(ordinary_instructions_run_inside_and_a_sensitive_one_is_an_exit)
{
    struct vm_exit exit = RUN(0xb8, 5, 0, 0, 0, /* mov eax, 5 */
                              0x40,             /* inc eax */
                              0x50,             /* push eax */
                              0xfa /* cli */);

    ck_assert_int_eq(exit.reason, EXIT_SENSITIVE);
    ck_assert_uint_eq(vm.vcpu.eip, CODE_GPA + 7);
    ck_assert_uint_eq(get32(STACK_GPA - 4), 6);
    ck_assert_uint_eq(vm.n_instructions, 3);
    vm.vcpu.eflags |= EFLAGS_IF;
    vm_handle_exit(&vm, &exit);
    ck_assert_uint_eq(vm.vcpu.eip, CODE_GPA + 8);
    ck_assert_uint_eq(vm.vcpu.eflags & EFLAGS_IF, 0);
    ck_assert_uint_eq(vm.n_instructions, 4);
}
END_TEST

START_TEST(a_fault_is_delivered_as_it_was_raised)
{
    struct vm_exit exit = RUN(0xa1, 0x00, 0x00, 0xc0, 0x00 /* mov eax, [UNMAPPED] */);

    ck_assert_int_eq(exit.reason, EXIT_GUEST_FAULT);
    ck_assert_int_eq(exit.fault.vector, EXCEPTION_PF);
    ck_assert_uint_eq(exit.fault.cr2, UNMAPPED);
    vm_handle_exit(&vm, &exit);
    ck_assert_uint_eq(vm.vcpu.eip, HANDLERS + EXCEPTION_PF);
    ck_assert_uint_eq(vm.vcpu.cr2, UNMAPPED);
    ck_assert_uint_eq(get32(STACK_GPA - 12), CODE_GPA);
    ck_assert_uint_eq(vm.n_instructions, 0);
}
END_TEST

START_TEST(a_fetch_may_fault_too)
{
    struct vm_exit exit;

    vm.vcpu.eip = UNMAPPED;
    exit = run();
    ck_assert_int_eq(exit.reason, EXIT_GUEST_FAULT);
    ck_assert_int_eq(exit.fault.vector, EXCEPTION_PF);
    ck_assert_uint_eq(exit.fault.cr2, UNMAPPED);
}
END_TEST

START_TEST(a_single_step_trap_follows_its_instruction)
{
    struct vm_exit exit;

    vm.vcpu.eflags |= EFLAGS_TF;
    exit = RUN(0x40 /* inc eax */, 0x40);
    ck_assert_int_eq(exit.reason, EXIT_GUEST_FAULT);
    ck_assert_int_eq(exit.fault.vector, EXCEPTION_DB);
    ck_assert_uint_eq(vm.vcpu.eip, CODE_GPA + 1);
    vm_handle_exit(&vm, &exit);
    ck_assert_uint_eq(vm.vcpu.eip, HANDLERS + EXCEPTION_DB);
    ck_assert_uint_eq(get32(STACK_GPA - 12), CODE_GPA + 1);
    ck_assert_uint_eq(vm.vcpu.dr[6] & DR6_BS, DR6_BS);
    ck_assert_uint_eq(vm.n_instructions, 1);
}
END_TEST

START_TEST(a_device_is_touched_by_the_monitor_and_once)
{
    uint32_t gpde = 0xfec00000 | PTE_P | PTE_W | PTE_PS;
    struct vm_exit exit;

    put(TABLES_GPA + 4 * (DEVICE_GVA >> 22), &gpde, sizeof gpde);
    vm.vcpu.gpr[EAX] = 0x12345678;
    exit = RUN(0xa1, 0x20, 0x00, 0xe0, 0xfe /* mov eax, [DEVICE_GVA] */);
    ck_assert_int_eq(exit.reason, EXIT_PAGE_FAULT);
    ck_assert_uint_eq(exit.fault.cr2, DEVICE_GVA);
    ck_assert_uint_eq(vm.vcpu.gpr[EAX], 0x12345678);
    ck_assert_uint_eq(vm.n_instructions, 0);
    vm_handle_exit(&vm, &exit);
    ck_assert_uint_eq(vm.vcpu.eip, CODE_GPA + 5);
    ck_assert_uint_eq(vm.vcpu.gpr[EAX], 0);
    ck_assert_uint_eq(vm.n_instructions, 1);
}
END_TEST

START_TEST(a_step_is_one_instruction)
{
    struct vm_exit exit;

    vm.single_step = true;
    exit = RUN(0x40, 0x40 /* inc eax twice */);
    ck_assert_int_eq(exit.reason, EXIT_STEP);
    ck_assert_uint_eq(vm.vcpu.eip, CODE_GPA + 1);
}
END_TEST

START_TEST(attention_stops_it_before_the_next_instruction)
{
    vm.attention = 1;
    ck_assert_int_eq(RUN(0x40).reason, EXIT_INTERRUPTED);
    ck_assert_uint_eq(vm.vcpu.eip, CODE_GPA);
}
END_TEST

START_TEST(a_deadline_of_the_loop_ends_an_endless_loop)
{
    vm.engine->arm(vm.engine_state, 1); /* long ago */
    ck_assert_int_eq(RUN(0xeb, 0xfe /* jmp $ */).reason, EXIT_INTERRUPTED);
    ck_assert_int_eq(vm.attention, 1);
}
END_TEST

/* However often it was interrupted since: the clock of an exit does not depend on that. */
START_TEST(the_clock_has_all_instructions_before_an_exit)
{
    uint8_t code[102] = {[100] = 0x0f, [101] = 0x31 /* rdtsc */};

    memset(code, 0x90, 100);
    put_code(code, sizeof code);
    while (vm.vcpu.eip != CODE_GPA + sizeof code)
        vm_run_once(&vm);
    ck_assert_uint_ge(vm.vcpu.gpr[EAX], 100);
}
END_TEST

START_TEST(code_that_was_written_is_run_as_written)
{
    struct vm_exit exit = RUN(0xb0, 1, 0xf4 /* mov al, 1; hlt */);
    const uint8_t two = 2;

    ck_assert_int_eq(exit.reason, EXIT_SENSITIVE);
    put(CODE_GPA + 1, &two, 1);
    vm.vcpu.eip = CODE_GPA;
    run();
    ck_assert_uint_eq(vm.vcpu.gpr[EAX] & 0xff, 2);
}
END_TEST

START_TEST(the_same_bytes_mean_another_thing_in_16_bit_code)
{
    const uint8_t code[] = {0xb8, 1, 0, 0x40, 0x40, 0xf4}; /* mov ax, 1; inc ax; inc ax; hlt */

    put_code(code, sizeof code);
    run(); /* mov eax, 40400001; hlt */
    ck_assert_uint_eq(vm.vcpu.gpr[EAX], 0x40400001);
    vm.vcpu.segment[SEG_CS].attributes &= ~SEGMENT_DB;
    vm.vcpu.eip = CODE_GPA;
    run();
    ck_assert_uint_eq(vm.vcpu.gpr[EAX], 0x40400003);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("interpret");
    TCase *cases = tcase_create("interpret");
    SRunner *runner;
    int failed;

    tcase_add_checked_fixture(cases, open_world, exit_world_close);
    tcase_add_test(cases, ordinary_instructions_run_inside_and_a_sensitive_one_is_an_exit);
    tcase_add_test(cases, a_fault_is_delivered_as_it_was_raised);
    tcase_add_test(cases, a_fetch_may_fault_too);
    tcase_add_test(cases, a_single_step_trap_follows_its_instruction);
    tcase_add_test(cases, a_device_is_touched_by_the_monitor_and_once);
    tcase_add_test(cases, a_step_is_one_instruction);
    tcase_add_test(cases, attention_stops_it_before_the_next_instruction);
    tcase_add_test(cases, a_deadline_of_the_loop_ends_an_endless_loop);
    tcase_add_test(cases, the_clock_has_all_instructions_before_an_exit);
    tcase_add_test(cases, code_that_was_written_is_run_as_written);
    tcase_add_test(cases, the_same_bytes_mean_another_thing_in_16_bit_code);
    suite_add_tcase(suite, cases);
    runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
