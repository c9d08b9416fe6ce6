/*
 * nano: the table of measures, the command line, and the rounds between two markers. Read next: ops.S.
 */
#include "nano.h"

#include "bench/guest.h"

/* ---- the measures -------------------------------------------------------------------------------------- */

/* Code of the image, by its place in the image's table; the argument goes into EAX (regparm 3). */
#define BOTH(name, index)                                                                                    \
    {name, .entry = (index), .is_image = true},                                                              \
    {                                                                                                        \
        name "/user", .entry = (index), .is_image = true, .is_user = true                                    \
    }

static const struct measure {
    const char *name;
    void (*code)(void);
    enum guest_entry entry;
    bool is_image, is_generated, is_user;
} measures[] = {
    BOTH("sum", ENTRY_SUM),
    BOTH("copy", ENTRY_COPY),
    BOTH("rep-movs", ENTRY_STRING_COPY),
    BOTH("pointers", ENTRY_POINTERS),
    BOTH("indices", ENTRY_INDICES),
    BOTH("fib", ENTRY_FIB),
    BOTH("indirect", ENTRY_INDIRECT),
    BOTH("dispatch", ENTRY_DISPATCH),
    BOTH("sieve", ENTRY_LARGE_SIEVE),
    {"loop", .code = nano_loop},
    {"cli-sti", .code = nano_cli_sti},
    {"pushf", .code = nano_pushf},
    {"popf", .code = nano_popf},
    {"in-pic", .code = nano_in_pic},
    {"out-pic", .code = nano_out_pic},
    {"out-post", .code = nano_out_post},
    {"in-cmos", .code = nano_in_cmos},
    {"mmio-read", .code = nano_mmio_read},
    {"mmio-write", .code = nano_mmio_write},
    {"table-write", .code = nano_table_write},
    {"cr3-switch", .code = nano_cr3_switch},
    {"rdtsc", .code = nano_rdtsc},
    {"cpuid", .code = nano_cpuid},
    {"invlpg", .code = nano_invlpg},
    {"read-cr0", .code = nano_read_cr0},
    {"read-cr2", .code = nano_read_cr2},
    {"call", .code = nano_call},
    {"divide-error", .code = nano_divide_error},
    {"page-fault", .code = nano_page_fault},
    {"loop/user", .code = nano_user_loop, .is_user = true},
    {"call/user", .code = nano_user_call, .is_user = true},
    {"int/user", .code = nano_user_int, .is_user = true},
    {"page-fault/user", .code = nano_user_page_fault, .is_user = true},
    {"code", .is_generated = true},
    {"sysenter/user", .code = nano_user_sysenter, .is_user = true},
};

#define N_MEASURES (sizeof measures / sizeof measures[0])

/* The generated code, and its data behind it. */
#define CODE_BEGIN (GUEST_ARENA + 0x300000)
#define CODE_DATA  (GUEST_ARENA + GUEST_ARENA_SIZE - PAGE_SIZE)

static struct space kernel_space, user_space;

/* ---- what the harness reads ---------------------------------------------------------------------------- */

static void put(char c)
{
    out8(NANO_MARKER_PORT, (uint8_t)c);
}

static void put_text(const char *text)
{
    while (*text != '\0')
        put(*text++);
}

static void put_hexadecimal(uint32_t value)
{
    for (int shift = 28; shift >= 0; shift -= 4)
        put("0123456789abcdef"[value >> shift & 15]);
}

/* ---- one measure --------------------------------------------------------------------------------------- */

static void (*code_of(const struct measure *measure))(void)
{
    const uint32_t *entries = memory_at(GUEST_IMAGE);
    void (*code)(void) = measure->code;

    if (measure->is_image)
        code = memory_at(entries[measure->entry]);
    if (measure->is_generated)
        code = memory_at(CODE_BEGIN);
    return code;
}

static void prepare(const struct measure *measure, uint32_t n)
{
    const struct space *space = measure->is_user ? &user_space : &kernel_space;

    nano_space_enter(space);
    probe_registers = (struct registers){
        .ebx = (uintptr_t)space->directory, .ecx = (uintptr_t)space->other, .edx = space->pair_entry};
    if (measure->code == nano_table_write)
        probe_registers.ebx = (uintptr_t)space->spare;
    if (measure->is_generated)
        nano_code_generate(memory_at(CODE_BEGIN), memory_at(CODE_DATA), CODE_DATA, n);
}

/* Returns false, having said why, if the code trapped. Loops return 0 and entries count: either is the
 * result. */
static bool do_round(const struct measure *measure, uint32_t n, uint32_t *result)
{
    void (*code)(void) = code_of(measure);
    struct trap trap;

    probe_registers.eax = measure->is_generated ? 0 : n;
    probe_registers.esi = n;
    nano_events = 0;
    put(NANO_MARK_BEGIN);
    trap = measure->is_user ? probe_user(code) : probe_kernel(code);
    put(NANO_MARK_END);
    if (trap.vector != NO_TRAP) {
        put_text("!");
        put_text(trap_name(trap.vector));
        put_text(" at ");
        put_hexadecimal(trap.eip);
        put_text("\n");
        return false;
    }
    *result = trap.registers.eax + nano_events;
    return true;
}

static void finish(uint32_t result)
{
    put('=');
    put_hexadecimal(result);
    put('\n');
}

static void run(const struct measure *measure, uint32_t n, uint32_t n_rounds, bool is_growing)
{
    uint32_t result = 0;

    prepare(measure, n);
    for (uint32_t i = 0; i < n_rounds || is_growing; i++) {
        if (!do_round(measure, n, &result))
            return;
        if (is_growing && n < 1u << 29)
            n *= 4;
    }
    finish(result);
}

/* ---- the command line ---------------------------------------------------------------------------------- */

static char command_line[256];

/* Multiboot Specification 0.6.96, section 3.3: flags at 0, the command line's address at 16. */
static void copy_command_line(void)
{
    const char *from = memory_at(peek(nano_boot_info + 16));

    if (!(peek(nano_boot_info) & 1 << 2))
        return;
    for (size_t i = 0; i < sizeof command_line - 1 && from[i] != '\0'; i++)
        command_line[i] = from[i];
}

/* Where the value of `name=` begins; it ends at a space or the end. NULL: it is not there. */
static const char *find_value(const char *name)
{
    for (const char *at = command_line; *at != '\0'; at++) {
        size_t i = 0;

        if (at > command_line && at[-1] != ' ')
            continue;
        while (name[i] != '\0' && at[i] == name[i])
            i++;
        if (name[i] == '\0' && at[i] == '=')
            return at + i + 1;
    }
    return NULL;
}

static uint32_t find_number(const char *name, uint32_t otherwise)
{
    const char *at = find_value(name);
    uint32_t number = 0;

    if (at == NULL)
        return otherwise;
    for (; *at >= '0' && *at <= '9'; at++)
        number = number * 10 + (uint32_t)(*at - '0');
    return number;
}

static bool is_value(const char *value, const char *name)
{
    while (*name != '\0' && *value == *name)
        value++, name++;
    return *name == '\0' && (*value == '\0' || *value == ' ');
}

/* ---- the machine --------------------------------------------------------------------------------------- */

enum { IA32_SYSENTER_CS = 0x174, IA32_SYSENTER_ESP = 0x175, IA32_SYSENTER_EIP = 0x176 };

static uint32_t sysenter_stack[64];

static void set_entries(void)
{
    const uint32_t first = NANO_SYSENTER_CODE / 8;

    gdt[first] = gdt[SEL_KERNEL_CODE / 8];
    gdt[first + 1] = gdt[SEL_KERNEL_DATA / 8];
    gdt[first + 2] = gdt[SEL_USER_CODE / 8];
    gdt[first + 3] = gdt[SEL_USER_DATA / 8];
    write_msr(IA32_SYSENTER_CS, NANO_SYSENTER_CODE);
    write_msr(IA32_SYSENTER_ESP,
              (uintptr_t)(sysenter_stack + sizeof sysenter_stack / sizeof *sysenter_stack));
    write_msr(IA32_SYSENTER_EIP, (uintptr_t)nano_sysenter_entry);

    idt[VECTOR_DE] = gate(SEL_KERNEL_CODE, (uintptr_t)nano_divide_entry, DESC_INTERRUPT_GATE);
    idt[VECTOR_PF] = gate(SEL_KERNEL_CODE, (uintptr_t)nano_page_fault_entry, DESC_INTERRUPT_GATE);
    idt[NANO_SYSCALL_VECTOR] =
        gate(SEL_KERNEL_CODE, (uintptr_t)nano_syscall_entry, DESC_INTERRUPT_GATE | DESC_USER);
}

static void run_all(uint32_t n, uint32_t n_rounds)
{
    for (size_t i = 0; i < N_MEASURES; i++) {
        if (measures[i].code == nano_user_sysenter && !has_option("sysenter"))
            continue;
        put_text(measures[i].name);
        run(&measures[i], n, n_rounds, false);
    }
}

void guest_main(void)
{
    const char *wanted;
    uint32_t n, n_rounds;

    copy_command_line();
    wanted = find_value("measure");
    n = find_number("n", 1);
    n_rounds = find_number("rounds", 1);
    if (wanted == NULL || n == 0)
        fail("the command line wants measure=NAME and n=COUNT, see bench/nano/nano.h");

    pic_init();
    memcpy(memory_at(GUEST_IMAGE), nano_image, (size_t)(nano_image_end - nano_image));
    kernel_space = nano_space_new(false);
    user_space = nano_space_new(true);
    set_entries();

    if (is_value(wanted, "all")) {
        run_all(n, n_rounds);
        power_off(0);
    }
    for (size_t i = 0; i < N_MEASURES; i++) {
        if (is_value(wanted, measures[i].name)) {
            run(&measures[i], n, n_rounds, has_option("grow"));
            power_off(0);
        }
    }
    fail("no such measure: %s", wanted);
}
