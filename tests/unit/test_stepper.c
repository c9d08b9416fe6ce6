/*
 * monitor/stepper: steps, traps and breakpoints over an engine made up here: a processor that knows NOP, JMP,
 * CLI and HLT, fetches through the window's host mappings as a real one would, and leaves the rest to the
 * machine, which is the real one.
 */
#include <check.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "monitor/stepper.h"
#include "monitor/trace.h"

#define WINDOW_SIZE (UINT64_C(1) << 32)
#define CODE        0x100000u
#define PAGE_A      CODE
#define PAGE_B      (CODE + PAGE_SIZE)

static struct vm vm;
static struct stepper stepper;
static void *window;
static unsigned n_entries; /* into the guest */

/* ---- the engine ---------------------------------------------------------------------------------------- */

static uint64_t fake_now;

static uint64_t fake_host_ns(void)
{
    return fake_now += 10;
}

static void *fake_create(struct vm *machine, char *error, size_t error_size)
{
    (void)machine, (void)error, (void)error_size;
    window = mmap(NULL, WINDOW_SIZE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return window == MAP_FAILED ? NULL : window;
}

static void fake_destroy(void *state)
{
    munmap(state, WINDOW_SIZE);
}

static struct shadow_window fake_window(void *state)
{
    return (struct shadow_window){.base = (uintptr_t)state, .hole_first = 1, .hole_last = 0};
}

/* What /proc/self/maps says of the host page: 'x' it can be executed, '-' it cannot. */
static char execution_right(gva_t gva)
{
    uintptr_t address = (uintptr_t)window + gva;
    FILE *maps = fopen("/proc/self/maps", "r");
    char line[512], rights[8] = "";

    ck_assert_ptr_nonnull(maps);
    while (fgets(line, sizeof line, maps) != NULL) {
        unsigned long start, end;

        ck_assert_int_eq(sscanf(line, "%lx-%lx %7s", &start, &end, rights), 3);
        if (address >= start && address < end)
            break;
        rights[2] = '-';
    }
    fclose(maps);
    return rights[2];
}

static bool fetch(gva_t gva, uint8_t *byte, struct vm_exit *exit)
{
    struct shadow_mapping mapping;

    if (!shadow_find(vm.shadow, gva, &mapping) || execution_right(gva) != 'x') {
        *exit = (struct vm_exit){
            .reason = EXIT_PAGE_FAULT,
            .fault = {.vector = EXCEPTION_PF, .has_error = true, .error = PF_FETCH, .cr2 = gva}};
        return false;
    }
    *byte = vm.memory.hva[((uint64_t)mapping.rpn << PAGE_SHIFT) + (gva & PAGE_MASK)];
    return true;
}

static void fake_run(void *state, struct vm_exit *exit)
{
    (void)state;
    n_entries++;
    *exit = (struct vm_exit){.reason = EXIT_INTERRUPTED};
    while (!vm.attention) {
        uint32_t eip = vm.vcpu.eip;
        uint8_t opcode, displacement;

        if (!fetch(eip, &opcode, exit))
            return;
        if (opcode == 0x90) {
            vm.vcpu.eip++;
        } else if (opcode == 0xeb) {
            if (!fetch(eip + 1, &displacement, exit))
                return;
            vm.vcpu.eip += 2 + (uint32_t)(int8_t)displacement;
        } else {
            *exit = (struct vm_exit){.reason = EXIT_EXCEPTION,
                                     .fault = {.vector = EXCEPTION_GP, .has_error = true}};
            exit->entered_ns = fake_now;
            exit->host_ns = fake_host_ns();
            return;
        }
        if (vm.single_step) {
            exit->reason = EXIT_STEP;
            return;
        }
    }
}

static void fake_arm(void *state, uint64_t host_ns)
{
    (void)state, (void)host_ns;
}

static void fake_describe(void *state, char *text, size_t size)
{
    (void)state;
    snprintf(text, size, "made up");
}

static const struct engine fake_engine = {.name = "fake",
                                          .create = fake_create,
                                          .destroy = fake_destroy,
                                          .window = fake_window,
                                          .run = fake_run,
                                          .host_ns = fake_host_ns,
                                          .arm = fake_arm,
                                          .describe_exit = fake_describe};

/* ---- the guest ----------------------------------------------------------------------------------------- */

#define NOP 0x90
#define JMP 0xeb
#define CLI 0xfa
#define HLT 0xf4

static void put(gva_t gva, const uint8_t *bytes, size_t n)
{
    ck_assert(memory_write(&vm.memory, gva, bytes, n));
}

#define PUT(gva, ...) put(gva, (const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__}))

/* nop; nop; cli; nop; jmp B | B: nop; nop; cli; jmp to the hlt | A+20: hlt */
static void put_program(void)
{
    uint8_t nops[PAGE_SIZE];

    memset(nops, NOP, sizeof nops);
    put(PAGE_A, nops, sizeof nops);
    put(PAGE_B, nops, sizeof nops);
    PUT(PAGE_A, NOP, NOP, CLI, NOP, JMP, 0x60); /* to +0x66 */
    PUT(PAGE_A + 0x66, CLI);
    PUT(PAGE_B - 1, JMP, 0x10); /* over the page boundary, to B+0x11 */
    PUT(PAGE_B + 0x11, NOP, CLI, NOP, HLT);
}

static void setup(void)
{
    struct vm_config config = {.ram_size = 4 << 20, .clock = CLOCK_VIRTUAL};
    char error[256];

    n_entries = 0;
    ck_assert_msg(vm_create(&vm, &config, &fake_engine, error, sizeof error), "%s", error);
    put_program();
    vcpu_set_flat(&vm.vcpu, 8, 16, CODE);
    vm.vcpu.eflags |= EFLAGS_IF;
}

static void setup_stepper(void)
{
    setup();
    stepper_init(&stepper, &vm);
}

static void teardown(void)
{
    vm_destroy(&vm);
}

/* ---- tests --------------------------------------------------------------------------------------------- */

static void expect_stop(enum stepper_stop stop, enum stepper_stop wanted, uint32_t eip)
{
    struct shadow_mapping mapping;

    ck_assert_int_eq(stop, wanted);
    ck_assert_msg(vm.vcpu.eip == eip, "at %x, not at %x", vm.vcpu.eip, eip);
    ck_assert(!vm.single_step);
    ck_assert_uint_eq(stepper.n_held, 0);
    ck_assert(!shadow_find(vm.shadow, PAGE_A, &mapping) || execution_right(PAGE_A) == 'x');
    ck_assert(!shadow_find(vm.shadow, PAGE_B, &mapping) || execution_right(PAGE_B) == 'x');
}

START_TEST(instructions)
{
    uint64_t time;

    expect_stop(stepper_run(&stepper, STEPPER_INSTRUCTION), STEPPER_REACHED, CODE + 1);
    ck_assert_uint_eq(stepper.n_instructions, 1);
    ck_assert_int_eq(stepper.last.event.disposition, DISPOSITION_FILLED); /* of the page, on the way */
    time = vm.virtual_ns;
    expect_stop(stepper_run(&stepper, STEPPER_INSTRUCTION), STEPPER_REACHED, CODE + 2);
    ck_assert(!stepper.has_trap);
    ck_assert_uint_eq(vm.virtual_ns, time); /* a step is no exit */
    ck_assert_uint_eq(vm.event.sequence, 1);
    expect_stop(stepper_run(&stepper, STEPPER_INSTRUCTION), STEPPER_REACHED, CODE + 3);
    ck_assert(stepper.has_trap);
    ck_assert_uint_eq(stepper.n_instructions, 2); /* the CLI was emulated */
    ck_assert_uint_gt(vm.virtual_ns, time);
    ck_assert(!(vm.vcpu.eflags & EFLAGS_IF));
}
END_TEST

START_TEST(traps)
{
    const struct stepper_trap *last = &stepper.last;

    ck_assert_uint_eq(last->event.sequence, 0);
    expect_stop(stepper_run(&stepper, STEPPER_TRAP), STEPPER_REACHED, CODE);
    ck_assert_int_eq(last->event.disposition, DISPOSITION_FILLED);
    expect_stop(stepper_run(&stepper, STEPPER_TRAP), STEPPER_REACHED, CODE + 3);
    ck_assert_int_eq(last->event.disposition, DISPOSITION_EMULATED);
    ck_assert_str_eq(last->event.insn.sensitive->name, "CLI");
    ck_assert_str_eq(last->how, "made up");
    ck_assert(last->event.before.eflags & EFLAGS_IF);
    ck_assert(!(last->after.eflags & EFLAGS_IF));
    ck_assert_uint_eq(last->event.guest_ns, 10);
    ck_assert_uint_eq(stepper.least_guest_ns, 10);
    expect_stop(stepper_run(&stepper, STEPPER_TRAP), STEPPER_REACHED, CODE + 0x67);
    ck_assert_uint_eq(last->event.sequence, 3);
}
END_TEST

START_TEST(place_on_this_page)
{
    ck_assert_uint_eq(stepper_break_at(&stepper, CODE + 4), 1);
    expect_stop(stepper_run(&stepper, STEPPER_CONTINUE), STEPPER_BREAKPOINT, CODE + 4);
    ck_assert_uint_eq(stepper.hit->number, 1);
    ck_assert_uint_eq(stepper.hit->n_hits, 1);
    /* and on from there: the breakpoint under our feet does not count */
    expect_stop(stepper_run(&stepper, STEPPER_CONTINUE), STEPPER_ENDED, PAGE_B + 0x15);
    ck_assert_uint_eq(stepper.breakpoint[0].n_hits, 1);
}
END_TEST

/* The page is held, so the guest runs there at full speed; and none of its bytes is changed. */
START_TEST(place_on_another_page)
{
    uint8_t before[PAGE_SIZE], after[PAGE_SIZE];

    memory_read(&vm.memory, PAGE_B, before, sizeof before);
    stepper_break_at(&stepper, PAGE_B + 0x13);
    expect_stop(stepper_run(&stepper, STEPPER_CONTINUE), STEPPER_BREAKPOINT, PAGE_B + 0x13);
    ck_assert_uint_lt(n_entries, 20); /* not an entry for each of the 4000 instructions on page A */
    ck_assert_int_eq(execution_right(PAGE_B), 'x');
    memory_read(&vm.memory, PAGE_B, after, sizeof after);
    ck_assert_mem_eq(before, after, sizeof before);
}
END_TEST

/* The jump over the page boundary begins before the held page and ends on it. */
START_TEST(instruction_over_the_boundary)
{
    vm.vcpu.eip = PAGE_B - 1;
    stepper_break_at(&stepper, PAGE_B + 0x800);
    expect_stop(stepper_run(&stepper, STEPPER_TRAP), STEPPER_REACHED, PAGE_B - 1); /* fill */
    expect_stop(stepper_run(&stepper, STEPPER_TRAP), STEPPER_REACHED, PAGE_B + 0x13);
    ck_assert_str_eq(stepper.last.event.insn.sensitive->name, "CLI");
}
END_TEST

START_TEST(run_to_a_place)
{
    stepper_break_at(&stepper, CODE + 3);
    expect_stop(stepper_run_to(&stepper, PAGE_B + 0x11), STEPPER_BREAKPOINT, CODE + 3);
    expect_stop(stepper_run_to(&stepper, PAGE_B + 0x11), STEPPER_REACHED, PAGE_B + 0x11);
    ck_assert_ptr_null(stepper.hit);
    ck_assert_uint_eq(stepper.n_breakpoints, 1);
}
END_TEST

START_TEST(a_loop_meets_it_again)
{
    PUT(PAGE_A, NOP, NOP, JMP, 0xfc); /* for ever */
    stepper_break_at(&stepper, CODE + 1);
    for (unsigned i = 1; i <= 3; i++) {
        expect_stop(stepper_run(&stepper, STEPPER_CONTINUE), STEPPER_BREAKPOINT, CODE + 1);
        ck_assert_uint_eq(stepper.hit->n_hits, i);
    }
    PUT(PAGE_A + 1, JMP, 0xfe); /* an instruction that jumps to itself */
    expect_stop(stepper_run(&stepper, STEPPER_CONTINUE), STEPPER_BREAKPOINT, CODE + 1);
}
END_TEST

START_TEST(kinds_of_traps)
{
    struct trap_kind kind;
    char error[256];

    ck_assert_msg(trap_kind_parse("cli", &kind, error, sizeof error), "%s", error);
    ck_assert_uint_eq(stepper_break_on(&stepper, &kind), 1);
    ck_assert(trap_kind_parse("hlt", &kind, error, sizeof error));
    ck_assert_uint_eq(stepper_break_on(&stepper, &kind), 2);
    expect_stop(stepper_run(&stepper, STEPPER_CONTINUE), STEPPER_BREAKPOINT, CODE + 3);
    ck_assert_uint_eq(stepper.hit->number, 1);
    expect_stop(stepper_run(&stepper, STEPPER_CONTINUE), STEPPER_BREAKPOINT, CODE + 0x67);
    ck_assert(stepper_delete(&stepper, 1));
    expect_stop(stepper_run(&stepper, STEPPER_CONTINUE), STEPPER_BREAKPOINT, PAGE_B + 0x15);
    ck_assert_uint_eq(stepper.hit->number, 2);
    expect_stop(stepper_run(&stepper, STEPPER_CONTINUE), STEPPER_ENDED, PAGE_B + 0x15);
    ck_assert_int_eq(vm.stop_reason, STOP_HALTED);
    expect_stop(stepper_run(&stepper, STEPPER_INSTRUCTION), STEPPER_ENDED, PAGE_B + 0x15);
}
END_TEST

START_TEST(breakpoints_are_counted)
{
    for (unsigned i = 1; i <= STEPPER_MAX_BREAKPOINTS; i++)
        ck_assert_uint_eq(stepper_break_at(&stepper, CODE + 0x800 + i), i);
    ck_assert_uint_eq(stepper_break_at(&stepper, CODE), 0);
    ck_assert(!stepper_delete(&stepper, 99));
    ck_assert(stepper_delete(&stepper, 1));
    ck_assert(!stepper_delete(&stepper, 1));
    ck_assert_uint_eq(stepper.breakpoint[0].number, 2);
    ck_assert_uint_eq(stepper_break_at(&stepper, CODE + 0x900), STEPPER_MAX_BREAKPOINTS + 1);
    expect_stop(stepper_run_to(&stepper, CODE + 4), STEPPER_REACHED, CODE + 4); /* one more fits */
}
END_TEST

START_TEST(interrupted)
{
    stepper_interrupt(&stepper);
    expect_stop(stepper_run(&stepper, STEPPER_CONTINUE), STEPPER_INTERRUPTED, CODE);
    expect_stop(stepper_run(&stepper, STEPPER_CONTINUE), STEPPER_ENDED, PAGE_B + 0x15);
}
END_TEST

/* ---- the golden rule ----------------------------------------------------------------------------------- */

struct record {
    uint64_t sequence, time;
    uint32_t eip, after_eip, eflags;
    enum disposition disposition;
    unsigned n_notes;
};

static struct record records[64];
static unsigned n_records;

static void keep_record(void *ctx, const struct vm *machine, const struct vm_event *event)
{
    (void)ctx;
    ck_assert_uint_lt(n_records, 64);
    records[n_records++] =
        (struct record){event->sequence,      event->time,        event->before.eip, machine->vcpu.eip,
                        machine->vcpu.eflags, event->disposition, event->n_notes};
}

/* However it is stepped, the machine has the same events at the same times. */
START_TEST(no_trace_is_left)
{
    struct record wanted[64];
    unsigned n_wanted;
    uint64_t time;

    n_records = 0;
    vm_observe(&vm, keep_record, NULL);
    vm_run(&vm);
    ck_assert_uint_ge(n_records, 5);
    memcpy(wanted, records, sizeof wanted);
    n_wanted = n_records;
    time = vm.virtual_ns;

    for (unsigned way = 0; way < 3; way++) {
        teardown();
        setup_stepper();
        n_records = 0;
        vm_observe(&vm, keep_record, NULL);
        if (way == 2)
            for (unsigned i = 0; i < STEPPER_MAX_BREAKPOINTS; i++)
                stepper_break_at(&stepper, PAGE_B + i);
        while (stepper_run(&stepper, way == 0   ? STEPPER_INSTRUCTION
                                     : way == 1 ? STEPPER_TRAP
                                                : STEPPER_CONTINUE) != STEPPER_ENDED)
            ck_assert_uint_lt(n_entries, 10000);
        ck_assert_uint_eq(n_records, n_wanted);
        ck_assert_mem_eq(records, wanted, sizeof wanted);
        ck_assert_uint_eq(vm.virtual_ns, time);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("stepper");
    TCase *tests = tcase_create("stepper"), *rule = tcase_create("golden rule");
    SRunner *runner;
    int failed;

    tcase_add_checked_fixture(tests, setup_stepper, teardown);
    tcase_add_test(tests, instructions);
    tcase_add_test(tests, traps);
    tcase_add_test(tests, place_on_this_page);
    tcase_add_test(tests, place_on_another_page);
    tcase_add_test(tests, instruction_over_the_boundary);
    tcase_add_test(tests, run_to_a_place);
    tcase_add_test(tests, a_loop_meets_it_again);
    tcase_add_test(tests, kinds_of_traps);
    tcase_add_test(tests, breakpoints_are_counted);
    tcase_add_test(tests, interrupted);
    suite_add_tcase(suite, tests);
    tcase_add_checked_fixture(rule, setup, teardown);
    tcase_add_test(rule, no_trace_is_left);
    suite_add_tcase(suite, rule);
    tcase_set_timeout(tests, 60);
    tcase_set_timeout(rule, 60);
    runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
