/*
 * How late an idle guest's tick may come: a guest that halts, is woken by its local APIC's timer and sets it
 * for the next multiple of 4 ms, with and without what forbids to be late.
 */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "devices/lapic.h"
#include "exit_world.h"

#define MS    UINT64_C(1000000)
#define TICK  (4 * MS)
#define SLACK (8 * MS)

#define VECTOR   0xec
#define PERIODIC (1u << 17)

static struct {
    bool is_periodic;
    bool runs_user;     /* at each tick */
    uint64_t busy_ns;   /* at each tick */
    uint64_t sleep_end; /* machine time: another timer of the kernel's; 0: none */
    uint64_t due;       /* what the timer is set for */
    uint64_t max_late, sleep_late;
    unsigned n_ticks;
} guest;

static uint64_t key_at; /* machine time; 0: never */

static uint64_t now(void)
{
    return clock_now(&vm.clock);
}

static void lapic_write(uint32_t reg, uint32_t value)
{
    bus_write(board_bus(vm.board), BUS_MEMORY, LAPIC_BASE + reg, 4, value);
}

static void set_timer(void)
{
    uint64_t due = (now() / TICK + 1) * TICK;

    if (guest.sleep_end > now() && guest.sleep_end < due)
        due = guest.sleep_end;
    fake.now += 3000; /* between reading the time and setting the timer */
    guest.due = due + 3000;
    if (!guest.is_periodic)
        lapic_write(0x380, (uint32_t)(guest.due - now()));
}

static void halt(void)
{
    vm.vcpu.eip = CODE_GPA;
    vm.vcpu.gpr[ESP] = STACK_GPA;
    vm.vcpu.eflags |= EFLAGS_IF;
    vm.vcpu.halted = true;
}

/* Whatever woke the guest: the handler, and HLT again. */
static void guest_runs(void)
{
    if (board_intr(vm.board)) /* to be delivered first */
        return;
    if (vm.vcpu.eip == HANDLERS + VECTOR) {
        guest.n_ticks++;
        lapic_write(0xb0, 0);
        if (now() > guest.due && now() - guest.due > guest.max_late)
            guest.max_late = now() - guest.due;
        if (guest.sleep_end != 0 && now() >= guest.sleep_end) {
            guest.sleep_late = now() - guest.sleep_end;
            guest.sleep_end = 0;
        }
        vm.has_run_user |= guest.runs_user;
        fake.now += 20000 + guest.busy_ns;
        set_timer();
    }
    halt();
}

/* Nothing comes but the key. */
static size_t wait_for_key(void *ctx, uint8_t *bytes, size_t n, uint64_t timeout_ns)
{
    uint64_t start = now();

    (void)ctx;
    if (timeout_ns == UINT64_MAX)
        abort();
    ck_assert(timeout_ns == 0 || fake.armed == 0 || fake.armed >= fake.now + timeout_ns);
    if (key_at >= start && key_at < start + timeout_ns && n != 0) {
        fake.now += key_at - start;
        *bytes = 'k';
        key_at = 0;
        return 1;
    }
    fake.now += timeout_ns;
    return 0;
}

static void open_guest(uint64_t slack)
{
    memset(&guest, 0, sizeof guest);
    key_at = 0;
    exit_world_open(&(struct vm_config){
        .ram_size = RAM_SIZE, .clock = CLOCK_HOST, .idle_slack_ns = slack, .console_read = wait_for_key});
    vm.vcpu.msr.kvm_system_time = 0x8000 | 1;
    fake.exit = (struct vm_exit){.reason = EXIT_INTERRUPTED};
    fake.guest = guest_runs;
    lapic_write(0xf0, 0x1ff);
    lapic_write(0x3e0, 0xb); /* undivided */
    lapic_write(0x320, VECTOR);
    bus_write(board_bus(vm.board), BUS_PORT, 0x3f9, 1, 1); /* the serial port's interrupt: keys are wanted */
    bus_write(board_bus(vm.board), BUS_PORT, 0x3fc, 1, 0xb);
    set_timer();
    halt();
}

static void run_for(uint64_t ns)
{
    uint64_t end = now() + ns;

    guest.n_ticks = 0;
    guest.max_late = 0;
    while (now() < end) {
        vm_run_once(&vm);
        ck_assert_msg(!vm_is_stopped(&vm), "%s", vm.stop_text);
    }
}

static void expect_each_tick(void)
{
    run_for(2000 * MS);
    ck_assert_uint_ge(guest.n_ticks, 499);
    ck_assert_uint_le(guest.max_late, MS);
    ck_assert_uint_eq(vm.idle.n_passed, 0);
    exit_world_close();
}

START_TEST(an_idle_guest_sleeps_over_ticks)
{
    open_guest(SLACK);
    run_for(100 * MS); /* not so soon */
    ck_assert_uint_ge(guest.n_ticks, 24);
    run_for(900 * MS);
    ck_assert_uint_lt(guest.n_ticks, 130);
    run_for(1200 * MS);
    ck_assert_uint_ge(guest.n_ticks, 99);
    ck_assert_uint_le(guest.n_ticks, 101);
    ck_assert_uint_ge(guest.max_late, SLACK - MS);
    ck_assert_uint_le(guest.max_late, SLACK + MS);
    ck_assert_uint_gt(vm.idle.n_passed, 200);
    exit_world_close();
}
END_TEST

START_TEST(without_slack_each_tick_comes)
{
    open_guest(0);
    expect_each_tick();
}
END_TEST

/* It counts its ticks, for all we know. */
START_TEST(a_guest_without_kvms_clock_gets_each_tick)
{
    open_guest(SLACK);
    vm.vcpu.msr.kvm_system_time = 0x8000;
    expect_each_tick();
}
END_TEST

/* Such a tick would be lost, not late. */
START_TEST(a_periodic_timer_is_never_late)
{
    open_guest(SLACK);
    guest.is_periodic = true;
    lapic_write(0x320, VECTOR | PERIODIC);
    lapic_write(0x380, TICK);
    expect_each_tick();
}
END_TEST

START_TEST(a_program_that_sleeps_in_a_loop_is_not_idle)
{
    open_guest(SLACK);
    guest.runs_user = true;
    expect_each_tick();
}
END_TEST

START_TEST(a_busy_kernel_is_not_idle)
{
    open_guest(SLACK);
    guest.busy_ns = 3 * MS;
    expect_each_tick();
}
END_TEST

/* One such as comes between two ticks; the kernel tells the timer of it one tick before. */
START_TEST(a_sleep_ends_late_by_a_small_part_of_it)
{
    static const uint64_t sleeps[] = {90, 300, 500, 800, 3000};

    for (size_t i = 0; i < sizeof sleeps / sizeof sleeps[0]; i++) {
        open_guest(SLACK);
        guest.runs_user = true;
        run_for(1000 * MS);
        guest.runs_user = false;
        guest.sleep_end = now() + sleeps[i] * MS + TICK / 3;
        run_for((sleeps[i] + 40) * MS);
        ck_assert_uint_eq(guest.sleep_end, 0);
        ck_assert_uint_le(guest.sleep_late, sleeps[i] * MS / 32 + MS);
        ck_assert_uint_le(guest.sleep_late, SLACK + MS);
        exit_world_close();
    }
}
END_TEST

START_TEST(a_key_ends_idleness)
{
    uint64_t when;

    open_guest(SLACK);
    run_for(2000 * MS);
    when = now() + 2 * TICK + TICK / 2;
    key_at = when;
    while (key_at != 0)
        vm_run_once(&vm);
    ck_assert_uint_eq(now(), when);
    run_for(100 * MS);
    ck_assert_uint_ge(guest.n_ticks, 24);
    exit_world_close();
}
END_TEST

/* The wait ends for it at the latest, also if it was set when the wait had begun. */
START_TEST(no_other_timer_is_late)
{
    struct idle idle = {0};
    struct idle_halt halt = {.others = CLOCK_NO_DEADLINE, .slack = SLACK, .is_kernel = true};

    for (halt.n_exits = 1; halt.now < 1000 * MS; halt.n_exits++) {
        halt.deadline = (halt.now / TICK + 1) * TICK;
        halt.now = idle_wait_end(&idle, &halt);
    }
    halt.deadline = halt.now + TICK;
    halt.others = halt.deadline + TICK - TICK / 9;
    ck_assert_uint_eq(idle_wait_end(&idle, &halt), halt.deadline);
    halt.n_exits++;
    halt.now = halt.deadline;
    halt.deadline = halt.now + TICK;
    halt.others = halt.deadline + TICK + TICK / 4;
    ck_assert_uint_eq(idle_wait_end(&idle, &halt), halt.deadline + TICK);
    ck_assert_uint_eq(idle_wait_end(&idle, &halt), halt.deadline + TICK);
    halt.others = halt.deadline + TICK / 4;
    ck_assert_uint_eq(idle_wait_end(&idle, &halt), halt.others);
    halt.deadline -= TICK / 4; /* another is the first now, and that is no tick */
    ck_assert_uint_eq(idle_wait_end(&idle, &halt), halt.deadline);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("idle");
    TCase *tests = tcase_create("idle");
    SRunner *runner;
    int n_failed;

    tcase_add_test(tests, an_idle_guest_sleeps_over_ticks);
    tcase_add_test(tests, without_slack_each_tick_comes);
    tcase_add_test(tests, a_guest_without_kvms_clock_gets_each_tick);
    tcase_add_test(tests, a_periodic_timer_is_never_late);
    tcase_add_test(tests, a_program_that_sleeps_in_a_loop_is_not_idle);
    tcase_add_test(tests, a_busy_kernel_is_not_idle);
    tcase_add_test(tests, a_sleep_ends_late_by_a_small_part_of_it);
    tcase_add_test(tests, a_key_ends_idleness);
    tcase_add_test(tests, no_other_timer_is_late);
    suite_add_tcase(suite, tests);
    runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    n_failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return n_failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
