/*
 * The run loop, on an engine that runs nothing: when interrupts and NMIs are delivered, what HLT waits for,
 * how virtual time passes, who is asked for attention. (What is done about an exit: test_exits.c.)
 */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "exit_world.h"

#define TIMER_VECTOR 0x20
#define MS           UINT64_C(1000000)

/* ---- the console, as the machine sees it --------------------------------------------------------------- */

static struct {
    const uint8_t *bytes; /* to be read */
    size_t n;
    bool is_over; /* after them */
    unsigned n_reads, n_polls;
    uint64_t timeout; /* of the last read */
    bool stops;       /* poll ends the run */
} console;

static size_t console_read(void *ctx, uint8_t *bytes, size_t n, uint64_t timeout_ns)
{
    size_t part = console.n < n ? console.n : n;

    (void)ctx;
    console.n_reads++;
    console.timeout = timeout_ns;
    if (part == 0 && timeout_ns != UINT64_MAX)
        fake.now += timeout_ns; /* waited in vain */
    if (console.n == 0 && console.is_over)
        return CONSOLE_OVER;
    if (part != 0)
        memcpy(bytes, console.bytes, part);
    console.bytes += part;
    console.n -= part;
    return part;
}

static void console_poll(void *ctx, struct vm *machine)
{
    (void)ctx;
    console.n_polls++;
    if (console.stops)
        vm_stop(machine, STOP_TIMEOUT, "the time is over");
}

/* ---- the machine --------------------------------------------------------------------------------------- */

static void open_machine(enum clock_mode clock, bool has_console)
{
    struct vm_config config = {
        .ram_size = RAM_SIZE, .clock = clock, .check_invariant = true, .poll = console_poll};

    memset(&console, 0, sizeof console);
    if (has_console)
        config.console_read = console_read;
    exit_world_open(&config);
    vm.vcpu.eip = CODE_GPA;
    vm.vcpu.eflags |= EFLAGS_IF;
    fake.exit = (struct vm_exit){.reason = EXIT_INTERRUPTED};
}

static void out8(uint16_t port, uint8_t value)
{
    bus_write(board_bus(vm.board), BUS_PORT, port, 1, value);
}

static uint8_t in8(uint16_t port)
{
    return (uint8_t)bus_read(board_bus(vm.board), BUS_PORT, port, 1);
}

/* IRQ 0 is vector 0x20, and the only one that is not masked. */
static void set_up_interrupt_controllers(void)
{
    static const uint8_t writes[][2] = {
        {0x20, 0x11}, {0xa0, 0x11}, {0x21, TIMER_VECTOR}, {0xa1, 0x28}, {0x21, 4}, {0xa1, 2},
        {0x21, 1},    {0xa1, 1},    {0x21, 0xfe},         {0xa1, 0xff}};

    for (size_t i = 0; i < sizeof writes / sizeof writes[0]; i++)
        out8(writes[i][0], writes[i][1]);
}

/* One tick in 10 ms. */
static void start_timer(void)
{
    set_up_interrupt_controllers();
    out8(0x43, 0x30); /* counter 0, both bytes, mode 0 */
    out8(0x40, 11932 & 0xff);
    out8(0x40, 11932 >> 8);
}

/* The timer's interrupt is pending at the CPU's pin. */
static void make_interrupt_pending(void)
{
    start_timer();
    fake.now += 11 * MS;
    vm.attention = 1;
    vm.vcpu.eflags &= ~EFLAGS_IF;
    vm_run_once(&vm);
    ck_assert(board_intr(vm.board));
    ck_assert_uint_eq(vm.vcpu.eip, CODE_GPA);
    vm.vcpu.eflags |= EFLAGS_IF;
    fake.n_runs = 0;
}

static void expect_handler(unsigned vector, uint32_t return_address)
{
    ck_assert_uint_eq(vm.vcpu.eip, HANDLERS + vector);
    ck_assert_uint_eq(get32(vm.vcpu.gpr[ESP]), return_address);
    ck_assert_uint_eq(vm.vcpu.eflags & EFLAGS_IF, 0);
}

/* What the guest does natively, between two exits. */
static void guest_moves_on(void)
{
    vm.vcpu.eip++;
}

/* ---- interrupts ---------------------------------------------------------------------------------------- */

START_TEST(an_interrupt_comes_before_the_guest_runs)
{

    open_machine(CLOCK_HOST, false);
    make_interrupt_pending();
    vm_run_once(&vm);
    expect_handler(TIMER_VECTOR, CODE_GPA);
    ck_assert_uint_eq(fake.n_runs, 1); /* from the handler on */
    ck_assert(!board_intr(vm.board));  /* acknowledged */
}
END_TEST

START_TEST(an_interrupt_waits_for_if)
{
    open_machine(CLOCK_HOST, false);
    make_interrupt_pending();
    vm.vcpu.eflags &= ~EFLAGS_IF;
    for (unsigned i = 1; i <= 3; i++) {
        vm_run_once(&vm);
        ck_assert_uint_eq(vm.vcpu.eip, CODE_GPA);
        ck_assert_uint_eq(fake.n_runs, i);
    }
    vm.vcpu.eflags |= EFLAGS_IF;
    vm_run_once(&vm);
    expect_handler(TIMER_VECTOR, CODE_GPA);
}
END_TEST

/* STI and MOV SS hold interrupts back for exactly one instruction: that one is run alone. */
START_TEST(a_shadow_lasts_one_instruction)
{
    static const enum interrupt_shadow shadows[] = {SHADOW_STI, SHADOW_MOV_SS};

    open_machine(CLOCK_HOST, false);
    make_interrupt_pending();
    vm.vcpu.interrupt_shadow = (uint8_t)shadows[_i];
    fake.guest = guest_moves_on;
    fake.exit = (struct vm_exit){.reason = EXIT_STEP};
    vm_run_once(&vm);
    ck_assert(fake.was_single_step);
    ck_assert_uint_eq(vm.vcpu.eip, CODE_GPA + 1);
    ck_assert_int_eq(vm.vcpu.interrupt_shadow, SHADOW_NONE);
    fake.guest = NULL;
    vm_run_once(&vm);
    ck_assert(!fake.was_single_step);
    expect_handler(TIMER_VECTOR, CODE_GPA + 1);
}
END_TEST

/* The instruction in the shadow did not get done (the host interrupted it): the shadow stays. */
START_TEST(a_shadow_outlasts_an_interruption)
{
    open_machine(CLOCK_HOST, false);
    make_interrupt_pending();
    vm.vcpu.interrupt_shadow = SHADOW_MOV_SS;
    vm_run_once(&vm);
    ck_assert(fake.was_single_step);
    ck_assert_int_eq(vm.vcpu.interrupt_shadow, SHADOW_MOV_SS);
    ck_assert_uint_eq(vm.vcpu.eip, CODE_GPA);
}
END_TEST

/* Nothing is pending: the guest need not be stepped through a shadow. */
START_TEST(a_shadow_alone_costs_nothing)
{
    open_machine(CLOCK_HOST, false);
    vm.vcpu.interrupt_shadow = SHADOW_STI;
    fake.guest = guest_moves_on;
    vm_run_once(&vm);
    ck_assert(!fake.was_single_step);
    ck_assert_int_eq(vm.vcpu.interrupt_shadow, SHADOW_NONE);
}
END_TEST

START_TEST(an_nmi_goes_first)
{
    open_machine(CLOCK_HOST, false);
    make_interrupt_pending();
    vm.vcpu.nmi_pending = true;
    vm_run_once(&vm);
    expect_handler(EXCEPTION_NMI, CODE_GPA); /* whose gate clears IF */
    ck_assert(!vm.vcpu.nmi_pending);
    ck_assert(board_intr(vm.board));
    vm.vcpu.eflags |= EFLAGS_IF;
    vm_run_once(&vm);
    expect_handler(TIMER_VECTOR, HANDLERS + EXCEPTION_NMI);
}
END_TEST

START_TEST(an_nmi_needs_no_if)
{
    open_machine(CLOCK_HOST, false);
    vm.vcpu.eflags &= ~EFLAGS_IF;
    vm.vcpu.nmi_pending = true;
    vm_run_once(&vm);
    expect_handler(EXCEPTION_NMI, CODE_GPA);
}
END_TEST

/* SDM Vol 3A 6.7.1: no NMI in the handler of one, until its IRET. */
START_TEST(nmis_do_not_nest)
{
    static const uint8_t iret[] = {0xcf};

    open_machine(CLOCK_HOST, false);
    put(HANDLERS + EXCEPTION_NMI, iret, sizeof iret);
    vm.vcpu.nmi_pending = true;
    vm_run_once(&vm);
    vm.vcpu.nmi_pending = true;
    vm_run_once(&vm);
    ck_assert(vm.vcpu.nmi_pending);
    fake.exit =
        (struct vm_exit){.reason = EXIT_EXCEPTION, .fault = {.vector = EXCEPTION_GP, .has_error = true}};
    vm_run_once(&vm);
    ck_assert_uint_eq(vm.vcpu.eip, CODE_GPA);
    vm_run_once(&vm);
    ck_assert(!vm.vcpu.nmi_pending);
}
END_TEST

/* ---- HLT ----------------------------------------------------------------------------------------------- */

START_TEST(halted_with_interrupts_off_is_the_end)
{
    open_machine(CLOCK_HOST, true);
    start_timer();
    vm.vcpu.eflags &= ~EFLAGS_IF;
    vm.vcpu.halted = true;
    vm_run(&vm);
    ck_assert_int_eq(vm.stop_reason, STOP_HALTED);
    ck_assert_str_eq(vm.stop_text, "halted with interrupts off");
    ck_assert_uint_eq(fake.n_runs, 0);
}
END_TEST

START_TEST(halted_for_nothing_is_the_end)
{
    open_machine(CLOCK_HOST, true);
    vm.vcpu.halted = true;
    out8(0x3fc, 3); /* somebody listens at the serial port, but */
    console.is_over = true;
    vm_run(&vm);
    ck_assert_int_eq(vm.stop_reason, STOP_HALTED);
    ck_assert_ptr_nonnull(strstr(vm.stop_text, "can never come"));
}
END_TEST

/* Real time: no busy loop, one wait until the timer is due. */
START_TEST(a_halt_waits_for_the_timer)
{
    uint64_t start;

    open_machine(CLOCK_HOST, true);
    start_timer();
    vm.attention = 0;
    vm.vcpu.halted = true;
    start = fake.now;
    while (vm.vcpu.halted) {
        vm_run_once(&vm);
        ck_assert_uint_le(console.n_reads, 3);
        ck_assert(!vm_is_stopped(&vm));
    }
    expect_handler(TIMER_VECTOR, CODE_GPA);
    ck_assert_uint_ge(fake.now - start, 10 * MS - 10000);
    ck_assert_uint_le(fake.now - start, 10 * MS + 10000);
}
END_TEST

START_TEST(a_halt_is_ended_by_an_nmi)
{
    open_machine(CLOCK_HOST, false);
    vm.vcpu.halted = true;
    vm.vcpu.eflags &= ~EFLAGS_IF;
    vm.vcpu.nmi_pending = true;
    vm_run_once(&vm);
    ck_assert(!vm.vcpu.halted);
    expect_handler(EXCEPTION_NMI, CODE_GPA);
}
END_TEST

/* Virtual time jumps to the timer: nobody waits. */
START_TEST(virtual_time_jumps_over_a_halt)
{
    uint64_t host, deadline;

    open_machine(CLOCK_VIRTUAL, false);
    start_timer();
    vm_run_once(&vm);
    deadline = vm.next_deadline;
    host = fake.now;
    ck_assert_uint_ne(deadline, CLOCK_NO_DEADLINE);
    vm.vcpu.halted = true;
    vm_run_once(&vm);
    ck_assert_uint_ge(vm.virtual_ns, deadline);
    while (vm.vcpu.halted)
        vm_run_once(&vm);
    expect_handler(TIMER_VECTOR, CODE_GPA);
    ck_assert_uint_ge(vm.virtual_ns, 10 * MS - 10000);
    ck_assert_uint_le(vm.virtual_ns, 10 * MS + 10000);
    ck_assert_uint_eq(fake.now, host);
}
END_TEST

/* ---- virtual time -------------------------------------------------------------------------------------- */

START_TEST(virtual_time_passes_with_the_guests_exits)
{
    static const uint8_t cli[] = {0xfa, 0xfa, 0xfa};
    uint64_t before;

    open_machine(CLOCK_VIRTUAL, false);
    put_code(cli, sizeof cli);
    before = vm.virtual_ns;
    vm_run_once(&vm); /* interrupted by the host: none of the guest's doing */
    ck_assert_uint_eq(vm.virtual_ns, before);
    fake.exit =
        (struct vm_exit){.reason = EXIT_EXCEPTION, .fault = {.vector = EXCEPTION_GP, .has_error = true}};
    for (unsigned i = 1; i <= 3; i++) {
        fake.now += 12345; /* real time does not count */
        vm_run_once(&vm);
        ck_assert_uint_eq(vm.virtual_ns, before + 1000 * i);
    }
    ck_assert_uint_eq(vm.vcpu.eip, CODE_GPA + 3);
}
END_TEST

/* ---- observers ----------------------------------------------------------------------------------------- */

static unsigned n_events;
static struct vm_event last_event;

static void observe(void *ctx, const struct vm *machine, const struct vm_event *event)
{
    (void)ctx, (void)machine;
    n_events++;
    last_event = *event;
}

START_TEST(every_exit_and_interrupt_is_an_event)
{
    static const uint8_t cli[] = {0xfa};

    open_machine(CLOCK_HOST, false);
    put_code(cli, sizeof cli);
    make_interrupt_pending();
    n_events = 0;
    vm_observe(&vm, observe, NULL);
    vm.vcpu.eflags &= ~EFLAGS_IF;
    vm_run_once(&vm); /* the host's business */
    ck_assert_uint_eq(n_events, 0);
    vm.vcpu.eflags |= EFLAGS_IF;
    fake.exit =
        (struct vm_exit){.reason = EXIT_EXCEPTION, .fault = {.vector = EXCEPTION_GP, .has_error = true}};
    put(HANDLERS + TIMER_VECTOR, cli, sizeof cli);
    vm_run_once(&vm); /* the interrupt, then cli in its handler */
    ck_assert_uint_eq(n_events, 2);
    ck_assert_uint_eq(last_event.sequence, 2);
    ck_assert_int_eq(last_event.disposition, DISPOSITION_EMULATED);
    ck_assert(last_event.has_insn);
    ck_assert_uint_eq(last_event.insn.length, 1);
    ck_assert_uint_eq(last_event.before.eip, HANDLERS + TIMER_VECTOR);
    ck_assert_uint_eq(vm.vcpu.eip, HANDLERS + TIMER_VECTOR + 1);
}
END_TEST

/* ---- a debugger ---------------------------------------------------------------------------------------- */

static unsigned n_entered;
static bool debugger_takes;

static void debugger_enter(void *ctx, struct vm *machine)
{
    (void)ctx;
    n_entered++;
    machine->single_step = true;
}

static bool debugger_leave(void *ctx, struct vm *machine, const struct vm_exit *exit)
{
    (void)ctx, (void)exit;
    machine->single_step = false;
    return debugger_takes;
}

START_TEST(a_debuggers_exits_are_not_the_machines)
{
    static const struct vm_debugger debugger = {.enter = debugger_enter, .leave = debugger_leave};
    static const uint8_t cli[] = {0xfa, 0xfa};
    uint64_t before;

    open_machine(CLOCK_VIRTUAL, false);
    put_code(cli, sizeof cli);
    n_events = n_entered = 0;
    vm_observe(&vm, observe, NULL);
    vm.debugger = &debugger;
    before = vm.virtual_ns;
    debugger_takes = true;
    fake.exit = (struct vm_exit){.reason = EXIT_STEP};
    vm_run_once(&vm);
    ck_assert(fake.was_single_step);
    ck_assert_uint_eq(vm.n_exits, 0);
    ck_assert_uint_eq(n_events, 0);
    ck_assert_uint_eq(vm.virtual_ns, before);
    debugger_takes = false;
    fake.exit =
        (struct vm_exit){.reason = EXIT_EXCEPTION, .fault = {.vector = EXCEPTION_GP, .has_error = true}};
    vm_run_once(&vm);
    ck_assert_uint_eq(vm.n_exits, 1);
    ck_assert_uint_eq(n_events, 1);
    ck_assert_uint_eq(vm.virtual_ns, before + 1000);
    ck_assert_uint_eq(n_entered, 2);
}
END_TEST

/* ---- attention and input ------------------------------------------------------------------------------- */

START_TEST(attention_is_paid_once)
{
    open_machine(CLOCK_HOST, false);
    vm.attention = 1;
    vm_run_once(&vm);
    ck_assert_uint_eq(console.n_polls, 1);
    ck_assert_int_eq(vm.attention, 0);
    vm_run_once(&vm);
    ck_assert_uint_eq(console.n_polls, 1);
}
END_TEST

/* --timeout, SIGTERM, Ctrl-A x: the guest does not run once more. */
START_TEST(a_request_to_stop_comes_before_the_guest)
{
    open_machine(CLOCK_HOST, false);
    console.stops = true;
    vm.attention = 1;
    vm_run(&vm);
    ck_assert_int_eq(vm.stop_reason, STOP_TIMEOUT);
    ck_assert_uint_eq(fake.n_runs, 0);
}
END_TEST

START_TEST(the_first_reason_wins)
{
    open_machine(CLOCK_HOST, false);
    vm_stop(&vm, STOP_POWER_OFF, "first");
    vm_stop(&vm, STOP_IMPOSSIBLE, "second");
    ck_assert_int_eq(vm.stop_reason, STOP_POWER_OFF);
    ck_assert_str_eq(vm.stop_text, "first");
}
END_TEST

/* The UART without its FIFO holds one byte: the guest finds the next after each read, and all in order,
 * without waiting for the next look at the console. */
START_TEST(input_comes_as_fast_as_it_is_read)
{
    uint8_t typed[200], found[sizeof typed];
    size_t n = 0;

    for (size_t i = 0; i < sizeof typed; i++)
        typed[i] = (uint8_t)(i + 1);
    open_machine(CLOCK_HOST, true);
    console.bytes = typed;
    console.n = sizeof typed;
    console.is_over = true;
    out8(0x3fb, 3); /* eight bits */
    out8(0x3fc, 3);
    fake.now += 20 * MS; /* it has settled */
    vm.attention = 1;
    for (unsigned i = 0; i < 3 * sizeof typed && n < sizeof typed; i++) {
        vm_run_once(&vm);
        if (in8(0x3fd) & 1)
            found[n++] = in8(0x3f8);
    }
    ck_assert_uint_eq(n, sizeof typed);
    ck_assert_mem_eq(found, typed, sizeof typed);
}
END_TEST

/* ---- devices ------------------------------------------------------------------------------------------- */

START_TEST(device_memory_is_emulated)
{
    static const uint8_t code[] = {0x66, 0x89, 0x03, 0x8b, 0x0b}; /* mov [ebx], ax; mov ecx, [ebx] */
    struct screen screen;

    open_machine(CLOCK_HOST, false);
    put_code(code, sizeof code);
    vm.vcpu.gpr[EBX] = 0xb8000;
    vm.vcpu.gpr[EAX] = 0x0741;
    fake.exit = (struct vm_exit){
        .reason = EXIT_PAGE_FAULT,
        .fault = {.vector = EXCEPTION_PF, .has_error = true, .error = PF_WRITE, .cr2 = 0xb8000}};
    vm_run_once(&vm);
    board_screen(vm.board, &screen);
    ck_assert_uint_eq(screen.cells[0], 'A');
    ck_assert_uint_eq(screen.cells[1], 7);
    fake.exit.fault.error = 0;
    vm_run_once(&vm);
    ck_assert_uint_eq(vm.vcpu.gpr[ECX] & 0xffff, 0x0741);
    ck_assert_uint_eq(vm.vcpu.eip, CODE_GPA + sizeof code);
}
END_TEST

/* int 0x80, which the host would have taken for its own: to the guest's gate. */
START_TEST(a_host_call_is_the_guests_interrupt)
{
    static const uint8_t code[] = {0xcd, 0x80};

    open_machine(CLOCK_HOST, false);
    put_code(code, sizeof code);
    fake.exit = (struct vm_exit){.reason = EXIT_HOST_CALL};
    vm_run_once(&vm);
    expect_handler(0x80, CODE_GPA + 2);
}
END_TEST

START_TEST(a_triple_fault_ends_the_run)
{
    static const uint8_t code[] = {0x0f, 0x0b}; /* ud2 */

    open_machine(CLOCK_HOST, false);
    put_code(code, sizeof code);
    vm.vcpu.idtr.limit = 0;
    fake.exit = (struct vm_exit){.reason = EXIT_EXCEPTION, .fault = {.vector = EXCEPTION_UD}};
    vm_run(&vm);
    ck_assert_int_eq(vm.stop_reason, STOP_TRIPLE_FAULT);
    ck_assert_ptr_nonnull(strstr(vm.stop_text, "#UD"));
    ck_assert_uint_eq(fake.n_runs, 1);
    ck_assert_uint_eq(vm.vcpu.eip, CODE_GPA); /* where it happened */
}
END_TEST

/* ---- reset --------------------------------------------------------------------------------------------- */

static unsigned n_loads, n_loads_wanted;
static bool can_load;

static bool load_again(void *loader, struct vm *machine, char *error, size_t error_size)
{
    uint32_t left;

    ck_assert_ptr_eq(loader, &n_loads);
    n_loads++;
    snprintf(error, error_size, "out of kernels");
    ck_assert(memory_read(&machine->memory, 0x5000, &left, sizeof left));
    ck_assert_uint_eq(left, 0); /* memory is as at power-on, */
    ck_assert_uint_eq(machine->vcpu.gpr[EBX], 0);
    ck_assert_uint_eq(machine->vcpu.cr0 & CR0_PE, 0);
    ck_assert_uint_eq(in8(0x3f8 + 7), 0);                           /* chips, too, */
    ck_assert_uint_eq(memory_rpn(&machine->memory, 0xf5000), 0xf5); /* and the firmware's part is done */
    ck_assert(memory_read(&machine->memory, 0xf5000, &left, sizeof left));
    ck_assert_mem_eq(&left, "_MP_", 4);
    machine->vcpu.eip = CODE_GPA;
    return can_load;
}

/* Leaves traces everywhere, and pulls the reset line; after the last time it switches the power off. */
static void guest_that_resets(void)
{
    uint32_t value = 0x12345678;

    if (n_loads == n_loads_wanted) {
        bus_write(board_bus(vm.board), BUS_PORT, 0x604, 2, 0x2000);
        return;
    }
    ck_assert(memory_write(&vm.memory, 0x5000, &value, sizeof value));
    vm.vcpu.gpr[EBX] = value;
    out8(0x3f8 + 7, 0x5a);
    bus_write(board_bus(vm.board), BUS_PORT, 0xcf8, 4, 0x80000058);
    bus_write(board_bus(vm.board), BUS_PORT, 0xcfd, 1, 0); /* PAM0 */
    out8(0x64, 0xfe);
}

static void open_resetting_machine(void)
{
    struct vm_config config = {.ram_size = RAM_SIZE,
                               .clock = CLOCK_VIRTUAL,
                               .check_invariant = true,
                               .loader = &n_loads,
                               .load = load_again};

    exit_world_open(&config);
    n_loads = 0;
    n_loads_wanted = 3;
    can_load = true;
    fake.exit = (struct vm_exit){.reason = EXIT_INTERRUPTED};
    fake.guest = guest_that_resets;
}

START_TEST(a_reset_starts_the_machine_again)
{
    open_resetting_machine();
    vm_run(&vm);
    ck_assert_uint_eq(n_loads, 3);
    ck_assert_int_eq(vm.stop_reason, STOP_POWER_OFF);
    exit_world_close();
}
END_TEST

START_TEST(a_kernel_that_cannot_be_loaded_again_ends_the_run)
{
    open_resetting_machine();
    can_load = false;
    vm_run(&vm);
    ck_assert_uint_eq(n_loads, 1);
    ck_assert_int_eq(vm.stop_reason, STOP_HOST);
    ck_assert_str_eq(vm.stop_text, "the machine cannot start again: out of kernels");
    exit_world_close();
}
END_TEST

static void write_pam0(uint8_t value)
{
    bus_write(board_bus(vm.board), BUS_PORT, 0xcf8, 4, 0x80000058);
    bus_write(board_bus(vm.board), BUS_PORT, 0xcfd, 1, value);
}

START_TEST(the_bios_area_is_switched_by_the_north_bridge)
{
    uint32_t value = 0x600df00d, seen;

    open_machine(CLOCK_VIRTUAL, false);
    ck_assert(memory_write(&vm.memory, 0xf8000, &value, sizeof value)); /* it reads only */
    ck_assert(memory_read(&vm.memory, 0xf8000, &seen, sizeof seen));
    ck_assert_uint_eq(seen, 0);
    write_pam0(0x30);
    ck_assert(memory_write(&vm.memory, 0xf8000, &value, sizeof value));
    write_pam0(0x10);
    ck_assert(memory_read(&vm.memory, 0xf8000, &seen, sizeof seen));
    ck_assert_uint_eq(seen, value);
    write_pam0(0);
    ck_assert(!memory_read(&vm.memory, 0xf8000, &seen, sizeof seen)); /* there is no ROM behind it */
    ck_assert(!vm_is_stopped(&vm));
    exit_world_close();
}
END_TEST

START_TEST(but_not_under_a_page_table)
{
    open_machine(CLOCK_VIRTUAL, false);
    vm.memory.page_flags[0xf8] |= PAGE_IS_TABLE;
    write_pam0(0x30);
    ck_assert_int_eq(vm.stop_reason, STOP_IMPOSSIBLE);
    ck_assert_ptr_nonnull(strstr(vm.stop_text, "switches the BIOS area at 0xf8000"));
    vm.memory.page_flags[0xf8] &= (uint8_t)~PAGE_IS_TABLE;
    exit_world_close();
}
END_TEST

START_TEST(without_a_loader_a_reset_ends_the_run)
{
    open_resetting_machine();
    vm.config.load = NULL;
    vm_run(&vm);
    ck_assert_uint_eq(n_loads, 0);
    ck_assert_int_eq(vm.stop_reason, STOP_RESET);
    exit_world_close();
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("run");
    TCase *tests = tcase_create("run");
    SRunner *runner;
    int failed;

    tcase_add_checked_fixture(tests, NULL, exit_world_close);
    tcase_add_test(tests, an_interrupt_comes_before_the_guest_runs);
    tcase_add_test(tests, an_interrupt_waits_for_if);
    tcase_add_loop_test(tests, a_shadow_lasts_one_instruction, 0, 2);
    tcase_add_test(tests, a_shadow_outlasts_an_interruption);
    tcase_add_test(tests, a_shadow_alone_costs_nothing);
    tcase_add_test(tests, an_nmi_goes_first);
    tcase_add_test(tests, an_nmi_needs_no_if);
    tcase_add_test(tests, nmis_do_not_nest);
    tcase_add_test(tests, halted_with_interrupts_off_is_the_end);
    tcase_add_test(tests, halted_for_nothing_is_the_end);
    tcase_add_test(tests, a_halt_waits_for_the_timer);
    tcase_add_test(tests, a_halt_is_ended_by_an_nmi);
    tcase_add_test(tests, virtual_time_jumps_over_a_halt);
    tcase_add_test(tests, virtual_time_passes_with_the_guests_exits);
    tcase_add_test(tests, every_exit_and_interrupt_is_an_event);
    tcase_add_test(tests, a_debuggers_exits_are_not_the_machines);
    tcase_add_test(tests, attention_is_paid_once);
    tcase_add_test(tests, a_request_to_stop_comes_before_the_guest);
    tcase_add_test(tests, the_first_reason_wins);
    tcase_add_test(tests, input_comes_as_fast_as_it_is_read);
    tcase_add_test(tests, device_memory_is_emulated);
    tcase_add_test(tests, a_host_call_is_the_guests_interrupt);
    tcase_add_test(tests, a_triple_fault_ends_the_run);
    tcase_add_test(tests, a_reset_starts_the_machine_again);
    tcase_add_test(tests, a_kernel_that_cannot_be_loaded_again_ends_the_run);
    tcase_add_test(tests, without_a_loader_a_reset_ends_the_run);
    tcase_add_test(tests, the_bios_area_is_switched_by_the_north_bridge);
    tcase_add_test(tests, but_not_under_a_page_table);
    suite_add_tcase(suite, tests);
    runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
