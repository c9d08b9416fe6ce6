/*
 * What is done about exits, on an engine that runs nothing. (The run loop: test_run.c.)
 */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "devices/mptable.h"
#include "exit_world.h"

static void setup(void)
{
    exit_world_open(&(struct vm_config){.ram_size = RAM_SIZE, .clock = CLOCK_HOST, .check_invariant = true});
}

static void teardown(void)
{
    exit_world_close();
}

/* ---- exceptions ---------------------------------------------------------------------------------------- */

/* What the engine reports, and what the guest's handler must find. The exit is at `at` bytes into the code.
 */
static const struct exception_case {
    const char *name;
    uint8_t code[12];
    uint8_t n, at;
    struct vm_exit exit;
    uint32_t ebx, eflags, cr0; /* besides what setup made */
    int vector;                /* what the guest sees */
    bool has_error;
    uint32_t error, eip; /* eip: from the code's start */
} exception_cases[] = {
#define EXCEPTION(vector_, ...)                                                                              \
    {                                                                                                        \
        .reason = EXIT_EXCEPTION, .fault = {.vector = (vector_), __VA_ARGS__ }                               \
    }
#define GP_OF_HOST EXCEPTION(EXCEPTION_GP, .has_error = true)
    {"#DE: div ecx",
     {0xf7, 0xf1},
     2,
     0,
     EXCEPTION(EXCEPTION_DE, .has_error = false),
     0,
     0,
     0,
     EXCEPTION_DE,
     false,
     0,
     0},
    {"#DB: TF, after a nop",
     {0x90},
     1,
     1,
     EXCEPTION(EXCEPTION_DB, .is_trap = true),
     0,
     EFLAGS_TF,
     0,
     EXCEPTION_DB,
     false,
     0,
     1},
    {"#DB: int1, reported at it",
     {0xf1},
     1,
     0,
     EXCEPTION(EXCEPTION_DB, .is_trap = false),
     0,
     0,
     0,
     EXCEPTION_DB,
     false,
     0,
     1},
    {"#DB: int1, reported after it",
     {0xf1},
     1,
     1,
     EXCEPTION(EXCEPTION_DB, .is_trap = false),
     0,
     0,
     0,
     EXCEPTION_DB,
     false,
     0,
     1},
    {"#BP: int3",
     {0xcc},
     1,
     1,
     EXCEPTION(EXCEPTION_BP, .has_error = false),
     0,
     0,
     0,
     EXCEPTION_BP,
     false,
     0,
     1},
    {"#BP: int 3",
     {0xcd, 3},
     2,
     2,
     EXCEPTION(EXCEPTION_BP, .has_error = false),
     0,
     0,
     0,
     EXCEPTION_BP,
     false,
     0,
     2},
    {"#OF: into",
     {0xce},
     1,
     1,
     EXCEPTION(EXCEPTION_OF, .has_error = false),
     0,
     EFLAGS_OF,
     0,
     EXCEPTION_OF,
     false,
     0,
     1},
    {"#BR: bound eax, [ebx]",
     {0x62, 0x03},
     2,
     0,
     EXCEPTION(EXCEPTION_BR, .has_error = false),
     0,
     0,
     0,
     EXCEPTION_BR,
     false,
     0,
     0},
    {"#UD: ud2",
     {0x0f, 0x0b},
     2,
     0,
     EXCEPTION(EXCEPTION_UD, .has_error = false),
     0,
     0,
     0,
     EXCEPTION_UD,
     false,
     0,
     0},
    {"#UD: no instruction",
     {0x0f, 0xff, 0xc0},
     3,
     0,
     EXCEPTION(EXCEPTION_UD, .has_error = false),
     0,
     0,
     0,
     EXCEPTION_UD,
     false,
     0,
     0},
    {"#NM: fnop under CR0.TS, at a trapping byte",
     {0xd9, 0xd0},
     2,
     0,
     GP_OF_HOST,
     0,
     0,
     CR0_TS,
     EXCEPTION_NM,
     false,
     0,
     0},
    {"#TS: iret under NT, and the link is no TSS",
     {0xcf},
     1,
     0,
     GP_OF_HOST,
     0,
     EFLAGS_NT,
     0,
     EXCEPTION_TS,
     true,
     0,
     0},
    {"#NP: mov fs, bx of an absent segment",
     {0x8e, 0xe3},
     2,
     0,
     EXCEPTION(EXCEPTION_GP, .has_error = true, .error = SEL_ABSENT),
     SEL_ABSENT,
     0,
     0,
     EXCEPTION_NP,
     true,
     SEL_ABSENT,
     0},
    {"#SS: mov ss, bx of an absent segment",
     {0x8e, 0xd3},
     2,
     0,
     EXCEPTION(EXCEPTION_GP, .has_error = true, .error = SEL_ABSENT),
     SEL_ABSENT,
     0,
     0,
     EXCEPTION_SS,
     true,
     SEL_ABSENT,
     0},
    {"#GP: mov fs, bx beyond the GDT, which the host answers otherwise",
     {0x8e, 0xe3},
     2,
     0,
     EXCEPTION(EXCEPTION_NP, .has_error = true, .error = 0x30),
     0x30,
     0,
     0,
     EXCEPTION_GP,
     true,
     0x30,
     0},
    {"#GP: mov eax, fs:[ebx], no segment",
     {0x64, 0x8b, 0x03},
     3,
     0,
     GP_OF_HOST,
     0,
     0,
     0,
     EXCEPTION_GP,
     true,
     0,
     0},
    {"int 0x21: #GP on the host, an interrupt for the guest",
     {0xcd, 0x21},
     2,
     0,
     EXCEPTION(EXCEPTION_GP, .has_error = true, .error = 0x10a),
     0,
     0,
     0,
     0x21,
     false,
     0,
     2},
    {"#PF: mov eax, [ebx]",
     {0x8b, 0x03},
     2,
     0,
     {.reason = EXIT_PAGE_FAULT, .fault = {.vector = EXCEPTION_PF, .has_error = true, .cr2 = UNMAPPED}},
     UNMAPPED,
     0,
     0,
     EXCEPTION_PF,
     true,
     0,
     0},
    {"#PF: mov [ebx], eax",
     {0x89, 0x03},
     2,
     0,
     {.reason = EXIT_PAGE_FAULT,
      .fault = {.vector = EXCEPTION_PF, .has_error = true, .error = PF_WRITE, .cr2 = UNMAPPED}},
     UNMAPPED,
     0,
     0,
     EXCEPTION_PF,
     true,
     PF_WRITE,
     0},
    {"#MF: fwait",
     {0x9b},
     1,
     0,
     EXCEPTION(EXCEPTION_MF, .has_error = false),
     0,
     0,
     0,
     EXCEPTION_MF,
     false,
     0,
     0},
    {"#AC: mov eax, [ebx]",
     {0x8b, 0x03},
     2,
     0,
     EXCEPTION(EXCEPTION_AC, .has_error = true),
     0,
     0,
     0,
     EXCEPTION_AC,
     true,
     0,
     0},
    {"#XM: divss xmm0, xmm1",
     {0xf3, 0x0f, 0x5e, 0xc1},
     4,
     0,
     EXCEPTION(EXCEPTION_XM, .has_error = false),
     0,
     0,
     0,
     EXCEPTION_XM,
     false,
     0,
     0},
};

START_TEST(the_guest_gets_its_exception)
{
    const struct exception_case *c = &exception_cases[_i];
    uint32_t top, pushed_error = 0;

    put_code(c->code, c->n);
    vm.vcpu.eip += c->at;
    vm.vcpu.gpr[EBX] = c->ebx;
    vm.vcpu.eflags |= c->eflags | EFLAGS_IF;
    vm.vcpu.cr0 |= c->cr0;
    vm_handle_exit(&vm, &c->exit);
    ck_assert_msg(!vm_is_stopped(&vm), "%s: %s", c->name, vm.stop_text);
    ck_assert_msg(vm.vcpu.eip == HANDLERS + (unsigned)c->vector, "%s: eip %08x", c->name, vm.vcpu.eip);
    ck_assert_uint_eq(vm.vcpu.eflags & (EFLAGS_IF | EFLAGS_TF), 0);
    top = vm.vcpu.gpr[ESP];
    if (c->has_error) {
        pushed_error = get32(top);
        top += 4;
    }
    ck_assert_uint_eq(top, STACK_GPA - 12);
    ck_assert_msg(pushed_error == c->error, "%s: error code %x", c->name, pushed_error);
    ck_assert_msg(get32(top) == CODE_GPA + c->eip, "%s: return address %08x", c->name, get32(top));
    ck_assert_uint_eq(get32(top + 4), SEL_CODE);
    ck_assert_uint_eq(get32(top + 8) & (EFLAGS_IF | c->eflags), EFLAGS_IF | c->eflags);
    if (c->vector == EXCEPTION_PF)
        ck_assert_uint_eq(vm.vcpu.cr2, UNMAPPED);
    if (c->vector == EXCEPTION_DB)
        ck_assert_uint_eq(vm.vcpu.dr[6] & DR6_BS, c->eflags & EFLAGS_TF ? DR6_BS : 0);
}
END_TEST

/* What the host refuses and the guest may do is done: no exception. */
static const struct {
    const char *name;
    uint8_t code[8];
    uint8_t n;
    struct vm_exit exit;
    uint32_t ebx;
} allowed_cases[] = {
    {"cli", {0xfa}, 1, GP_OF_HOST, 0},
    {"mov fs, bx",
     {0x8e, 0xe3},
     2,
     EXCEPTION(EXCEPTION_GP, .has_error = true, .error = SEL_SMALL),
     SEL_SMALL},
    {"mov cr2, ebx", {0x0f, 0x22, 0xd3}, 3, GP_OF_HOST, 0x1234},
    {"a page that was not mapped yet",
     {0x8b, 0x03},
     2,
     {.reason = EXIT_PAGE_FAULT, .fault = {.vector = EXCEPTION_PF, .has_error = true, .cr2 = 0x40000}},
     0x40000},
    {"mov eax, [ebx] over the truncated limit", {0x8b, 0x03}, 2, GP_OF_HOST, 0x40000},
    {"mov [ebx], eax: a page table",
     {0x89, 0x03},
     2,
     {.reason = EXIT_PAGE_FAULT,
      .fault = {.vector = EXCEPTION_PF, .has_error = true, .error = PF_WRITE, .cr2 = TABLES_GPA}},
     TABLES_GPA},
};

/* The tables are changed behind the shadow's back: whoever walks them now finds nothing. */
START_TEST(what_the_shadow_maps_is_reached_without_a_walk)
{
    uint32_t *pde = (uint32_t *)(void *)(vm.memory.hva + TABLES_GPA), kept;
    uint32_t value = 0x12345678;
    struct fault fault;

    ck_assert_int_eq(shadow_fault(vm.shadow, &vm.vcpu, STACK_GPA, PF_WRITE, &fault), SHADOW_FILLED);
    kept = *pde;
    *pde = 0;
    ck_assert_int_eq(machine_vcpu_ops.memory(&vm.vcpu, STACK_GPA + 4, &value, 4, ACCESS_WRITE), OUTCOME_DONE);
    value = 0;
    ck_assert_int_eq(machine_vcpu_ops.memory(&vm.vcpu, STACK_GPA + 4, &value, 4, ACCESS_READ), OUTCOME_DONE);
    ck_assert_uint_eq(value, 0x12345678);
    ck_assert_int_eq(machine_vcpu_ops.memory(&vm.vcpu, STACK_GPA, NULL, 4, ACCESS_WRITE | ACCESS_PROBE),
                     OUTCOME_DONE);
    /* a page of the user's it is not, and two pages are walked */
    ck_assert_int_eq(machine_vcpu_ops.memory(&vm.vcpu, STACK_GPA, &value, 4, ACCESS_READ | ACCESS_USER),
                     OUTCOME_FAULT);
    ck_assert_int_eq(machine_vcpu_ops.memory(&vm.vcpu, STACK_GPA + 0xffe, &value, 4, ACCESS_READ),
                     OUTCOME_FAULT);
    *pde = kept;
}
END_TEST

START_TEST(the_guest_may_do_it)
{
    bool is_fill;
    uint32_t esp;

    put_code(allowed_cases[_i].code, allowed_cases[_i].n);
    vm.vcpu.gpr[EBX] = allowed_cases[_i].ebx;
    vm.vcpu.gpr[EAX] = get32(TABLES_GPA);
    esp = vm.vcpu.gpr[ESP];
    is_fill = strstr(allowed_cases[_i].name, "not mapped yet") != NULL;
    vm_handle_exit(&vm, &allowed_cases[_i].exit);
    ck_assert_msg(!vm_is_stopped(&vm), "%s: %s", allowed_cases[_i].name, vm.stop_text);
    ck_assert_msg(vm.vcpu.eip == CODE_GPA + (is_fill ? 0u : allowed_cases[_i].n), "%s: eip %08x",
                  allowed_cases[_i].name, vm.vcpu.eip);
    ck_assert_uint_eq(vm.vcpu.gpr[ESP], esp);
}
END_TEST

/* A far return to CPL 0 whose frame ends where the stack's page ends: AMD's processors read the outer stack
 * behind it before they refuse, and fault there. The guest must not see it. */
START_TEST(a_fault_of_looking_ahead_is_not_the_guests)
{
    static const uint8_t code[] = {0xcb};
    const uint32_t frame[2] = {CODE_GPA + 0x100, SEL_CODE};
    const struct vm_exit exit = {.reason = EXIT_PAGE_FAULT,
                                 .fault = {.vector = EXCEPTION_PF, .has_error = true, .cr2 = UNMAPPED}};

    put_code(code, sizeof code);
    vm.vcpu.gpr[ESP] = UNMAPPED - sizeof frame;
    put(UNMAPPED - sizeof frame, frame, sizeof frame);
    vm_handle_exit(&vm, &exit);
    ck_assert_uint_eq(vm.vcpu.eip, CODE_GPA + 0x100);
    ck_assert_uint_eq(vm.vcpu.gpr[ESP], UNMAPPED);
}
END_TEST

/* ---- what the board and the processor tell each other -------------------------------------------------- */

START_TEST(firmware_describes_the_processor)
{
    enum { FLOATING_POINTER = 16, HEADER = 44, SIGNATURE = 4, FEATURES = 8 };
    const gpa_t processor = MPTABLE_GPA + FLOATING_POINTER + HEADER;

    ck_assert_uint_eq(get32(processor) & 0xff, 0); /* entry type 0: processor */
    ck_assert_uint_eq(get32(processor + SIGNATURE), vcpu_cpuid_signature() & 0xfff);
    ck_assert_uint_eq(get32(processor + FEATURES), vcpu_cpuid_features());
    ck_assert_uint_ne(vcpu_cpuid_features(), 0);
}
END_TEST

static void expect_stop(const char *text)
{
    const struct vm_exit exit = GP_OF_HOST;

    vm_handle_exit(&vm, &exit);
    ck_assert_int_eq(vm.stop_reason, STOP_IMPOSSIBLE);
    ck_assert_msg(strstr(vm.stop_text, text) != NULL, "%s", vm.stop_text);
}

/* The local APIC is where the hole of the trap engine's window is, and nowhere else. */
START_TEST(a_moved_apic_ends_the_run)
{
    static const uint8_t wrmsr[] = {0x0f, 0x30};

    put_code(wrmsr, sizeof wrmsr);
    vm.vcpu.gpr[ECX] = MSR_APIC_BASE;
    vm.vcpu.gpr[EAX] = 0xfed00000 | APIC_BASE_BSP | APIC_BASE_ENABLE;
    expect_stop("moved the local APIC");
}
END_TEST

START_TEST(a_disabled_apic_is_followed)
{
    static const uint8_t wrmsr[] = {0x0f, 0x30};
    const struct vm_exit exit = GP_OF_HOST;

    put_code(wrmsr, sizeof wrmsr);
    vm.vcpu.gpr[ECX] = MSR_APIC_BASE;
    vm.vcpu.gpr[EAX] = 0xfee00000 | APIC_BASE_BSP;
    vm_handle_exit(&vm, &exit);
    ck_assert(!vm_is_stopped(&vm));
    ck_assert_uint_eq(board_apic_base(vm.board), 0xfee00000 | APIC_BASE_BSP);
}
END_TEST

/* Both gates must be closed: port 0x92's here, and the keyboard controller's by its command 0xdd. */
START_TEST(a_closed_a20_gate_ends_the_run)
{
    static const uint8_t code[] = {0xe6, 0x92, 0xe6, 0x64}; /* out 0x92, al; out 0x64, al */
    const struct vm_exit exit = GP_OF_HOST;

    put_code(code, sizeof code);
    vm.vcpu.gpr[EAX] = 0;
    vm_handle_exit(&vm, &exit);
    ck_assert(!vm_is_stopped(&vm));
    vm.vcpu.gpr[EAX] = 0xdd;
    expect_stop("A20");
}
END_TEST

/* ---- time ---------------------------------------------------------------------------------------------- */

#define MIN_SLICE_NS 20000u
#define MAX_SLICE_NS 320000u
#define GUARD_NS     1000000u

static void set_timer(uint16_t count)
{
    struct bus *bus = board_bus(vm.board);

    bus_write(bus, BUS_PORT, 0x43, 1, 0x34); /* counter 0, both bytes, mode 2: periodic */
    bus_write(bus, BUS_PORT, 0x40, 1, count & 0xff);
    bus_write(bus, BUS_PORT, 0x40, 1, count >> 8);
}

static void timer_fires(void)
{
    fake.exit = (struct vm_exit){.reason = EXIT_INTERRUPTED};
    vm.attention = 1;
    vm_run_once(&vm);
}

/* A period of 1.7 us is less than an exit costs. The guest runs all the same, and soon for longer. */
START_TEST(a_hostile_timer_leaves_the_guest_time)
{
    uint64_t slice = MIN_SLICE_NS;

    set_timer(2);
    fake.now += 1000;
    for (unsigned i = 1; i <= 100; i++) {
        timer_fires();
        ck_assert_uint_eq(fake.n_runs, i);
        ck_assert_uint_eq(fake.armed, fake.now + slice);
        fake.now = fake.armed;
        slice = 2 * slice > MAX_SLICE_NS ? MAX_SLICE_NS : 2 * slice;
    }
    set_timer(11932); /* 10 ms: calm again */
    timer_fires();
    fake.now = fake.armed;
    set_timer(2);
    fake.now += 1000;
    timer_fires();
    ck_assert_uint_eq(fake.armed, fake.now + MIN_SLICE_NS);
}
END_TEST

/* Nor does a guest that programs the timer again and again put off the others; nor do other signals bring the
 * timers forward. */
START_TEST(a_slice_ends_when_it_ends)
{
    uint64_t slice_end;

    set_timer(2);
    fake.now += 1000;
    timer_fires();
    slice_end = fake.now + MIN_SLICE_NS;
    while (fake.now + 1000 < slice_end) {
        fake.now += 1000;
        set_timer(2);
        vm.attention = fake.now % 3000 == 0;
        vm_run_once(&vm);
        ck_assert_uint_eq(fake.armed, slice_end);
        ck_assert_uint_lt(vm.next_deadline, slice_end);
    }
}
END_TEST

/* A timer that is far off is waited for no longer than it takes. */
START_TEST(a_distant_timer_is_on_time)
{
    const uint64_t period = 10000000, start = fake.now;

    set_timer(11932); /* 10 ms */
    fake.now += 1000; /* counting begins at the next pulse */
    timer_fires();
    ck_assert_uint_ge(fake.armed, start + period - 5000);
    ck_assert_uint_le(fake.armed, start + period + 5000);
}
END_TEST

static uint64_t armed_while_waiting;

static size_t wait_for_input(void *console, uint8_t *bytes, size_t n, uint64_t timeout_ns)
{
    (void)console, (void)bytes, (void)n;
    armed_while_waiting = fake.armed;
    fake.now += timeout_ns;
    return 0;
}

/* The wait of a halted guest ends when the timer is due: the host's timer would only interrupt it. But it is
 * armed already for a guest that runs on for long after that. */
START_TEST(the_host_timer_sleeps_with_the_guest)
{
    set_timer(11932); /* 10 ms */
    fake.now += 1000; /* counting begins at the next pulse */
    timer_fires();
    ck_assert_uint_gt(fake.armed, fake.now);
    vm.config.console_read = wait_for_input;
    vm.vcpu.halted = true;
    vm.vcpu.eflags |= EFLAGS_IF;
    armed_while_waiting = 0;
    vm_run_once(&vm);
    ck_assert_uint_eq(armed_while_waiting, fake.now + GUARD_NS);
    vm.vcpu.halted = false;
    vm_run_once(&vm); /* the timer is due, and what is due is at once */
    ck_assert_uint_le(fake.armed, fake.now + GUARD_NS);
}
END_TEST

static void do_nothing(void *ctx)
{
    (void)ctx;
}

/* A deadline that moves away costs nothing now: the timer strikes as it would have, and is armed again. One
 * that comes nearer is heeded. */
START_TEST(the_host_timer_may_strike_early_and_never_late)
{
    struct timer timer = {.fire = do_nothing};
    uint64_t now = clock_now(&vm.clock), start = fake.now;

    timer_fires(); /* the first time is at once, for the console */
    clock_arm(&vm.clock, &timer, now + 2000000);
    vm_run_once(&vm);
    ck_assert_uint_eq(fake.armed, start + 2000000);
    clock_arm(&vm.clock, &timer, now + 9000000);
    ck_assert(!vm.deadline_moved);
    vm_run_once(&vm);
    ck_assert_uint_eq(fake.armed, start + 2000000);
    fake.now = fake.armed - 1; /* by our clock, which is not the timer's */
    timer_fires();
    ck_assert_uint_eq(fake.armed, start + 9000000);
    clock_arm(&vm.clock, &timer, now + 5000000);
    ck_assert(vm.deadline_moved);
    vm_run_once(&vm);
    ck_assert_uint_eq(fake.armed, start + 5000000);
    clock_disarm(&vm.clock, &timer);
}
END_TEST

/* A timer that has struck counts for nothing, also if there was nothing to arm it for at that time. */
START_TEST(a_host_timer_that_has_struck_is_armed_anew)
{
    struct timer timer = {.fire = do_nothing};
    uint64_t now = clock_now(&vm.clock), start = fake.now;

    timer_fires(); /* the first time is at once, for the console */
    clock_arm(&vm.clock, &timer, now + 2000000);
    vm_run_once(&vm);
    clock_disarm(&vm.clock, &timer);
    fake.now = fake.armed + _i; /* by our clock, which is not the timer's */
    timer_fires();
    ck_assert_uint_eq(fake.armed, start + 2000000);
    clock_arm(&vm.clock, &timer, now + 9000000);
    ck_assert(vm.deadline_moved);
    vm_run_once(&vm);
    ck_assert_uint_eq(fake.armed, start + 9000000);
    clock_disarm(&vm.clock, &timer);
}
END_TEST

/* ---- notes --------------------------------------------------------------------------------------------- */

static struct vm_event seen;

static void see(void *ctx, const struct vm *from, const struct vm_event *event)
{
    (void)ctx, (void)from;
    seen = *event;
}

/* Mappings are many, and happen at any exit; traces are compared by the others. */
START_TEST(what_the_guest_sees_finds_room_behind_mappings)
{
    vm_observe(&vm, see, NULL);
    vm_event_begin(&vm, &(struct vm_exit){.reason = EXIT_SENSITIVE});
    for (unsigned i = 0; i < 2 * EVENT_MAX_NOTES; i++)
        machine_note(&vm, &(struct note){.kind = NOTE_SHADOW, .address = i << PAGE_SHIFT, .size = 1});
    machine_note(&vm, &(struct note){.kind = NOTE_PORT_READ, .address = 0x3fd, .size = 1});
    vm_event_end(&vm, DISPOSITION_EMULATED);
    ck_assert_uint_eq(seen.n_notes, EVENT_MAX_SHADOW_NOTES + 1);
    ck_assert_int_eq(seen.note[EVENT_MAX_SHADOW_NOTES].kind, NOTE_PORT_READ);
    ck_assert_uint_eq(seen.dropped_notes, 2 * EVENT_MAX_NOTES - EVENT_MAX_SHADOW_NOTES);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("exits");
    TCase *tests = tcase_create("exits");
    SRunner *runner;
    int failed;

    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_loop_test(tests, the_guest_gets_its_exception, 0,
                        sizeof exception_cases / sizeof exception_cases[0]);
    tcase_add_loop_test(tests, the_guest_may_do_it, 0, sizeof allowed_cases / sizeof allowed_cases[0]);
    tcase_add_test(tests, what_the_shadow_maps_is_reached_without_a_walk);
    tcase_add_test(tests, a_fault_of_looking_ahead_is_not_the_guests);
    tcase_add_test(tests, firmware_describes_the_processor);
    tcase_add_test(tests, a_moved_apic_ends_the_run);
    tcase_add_test(tests, a_disabled_apic_is_followed);
    tcase_add_test(tests, a_closed_a20_gate_ends_the_run);
    tcase_add_test(tests, a_hostile_timer_leaves_the_guest_time);
    tcase_add_test(tests, a_slice_ends_when_it_ends);
    tcase_add_test(tests, a_distant_timer_is_on_time);
    tcase_add_test(tests, the_host_timer_sleeps_with_the_guest);
    tcase_add_test(tests, the_host_timer_may_strike_early_and_never_late);
    tcase_add_loop_test(tests, a_host_timer_that_has_struck_is_armed_anew, -1, 2);
    tcase_add_test(tests, what_the_guest_sees_finds_room_behind_mappings);
    suite_add_tcase(suite, tests);
    runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
