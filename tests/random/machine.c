/*
 * A sequence in ring3's machine, under any engine: flat protected mode with paging, at CPL 3 or CPL 0. There
 * is no kernel. The IDT is empty, so that the first exception becomes a triple fault, which ends the run with
 * all registers as they were at the exception, and with the exception at the head of the chain.
 *
 * The machine lives on from case to case: what an engine keeps of one must not show in the next.
 */
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/time.h>

#include "monitor/interpret.h"
#include "monitor/monitor.h"
#include "runner.h"
#include "signals/signals.h"
#include "translate/translate.h"

/* Guest physical addresses. */
#define DIRECTORY   0x10000u /* and the page tables behind it */
#define TABLES      0x20000u /* GDT, LDT and TSS */
#define LDT_OFFSET  0x100u
#define TSS_OFFSET  0x200u
#define FIRST_FRAME 0x100000u
#define RAM_SIZE    (2u << 20)

/* Selectors as Linux has them, so that what reads them natively sees the same. */
#define SELECTOR_CODE 0x23
#define SELECTOR_DATA 0x2b
#define SELECTOR_LDT  0x30
#define SELECTOR_TSS  0x40

#define FLAT_LIMIT      0xffffffffu
#define ATTRIBUTES_CODE 0xc0fbu /* 32-bit, 4 GiB, DPL 3, accessed */
#define ATTRIBUTES_DATA 0xc0f3u
#define ATTRIBUTES_FS   0xd0f3u /* AVL set: so Linux makes entries of the LDT */
#define ATTRIBUTES_GS   0x50f3u

#define MAX_DISTURBANCE_US 40

struct machine {
    struct vm vm;
    uint8_t (*initial)[PAGE_SIZE];
    uint64_t memory_seed;
};

static struct machine machine;
static volatile sig_atomic_t is_time_up;

/* ---- set-up -------------------------------------------------------------------------------------------- */

static const struct engine *find_engine(const char *name)
{
    static const struct engine *const engines[] = {&trap_engine, &interpret_engine, &translate_engine};

    for (size_t i = 0; i < sizeof engines / sizeof engines[0]; i++)
        if (strcmp(engines[i]->name, name) == 0)
            return engines[i];
    return NULL;
}

static void on_alarm(int signo)
{
    (void)signo;
    is_time_up = 1;
    machine.vm.attention = 1;
}

/* As the host's timers do: the guest is interrupted wherever it is, and goes on. */
static void on_disturbance(int signo)
{
    (void)signo;
    machine.vm.attention = 1;
}

static void set_disturbance(unsigned us)
{
    const struct itimerval timer = {.it_value = {0, us}}; /* once: handlers must not pile up on a busy host */

    setitimer(ITIMER_REAL, &timer, NULL);
}

static void poll_alarm(void *console, struct vm *vm)
{
    (void)console;
    if (is_time_up)
        vm_stop(vm, STOP_TIMEOUT, "its time is up");
}

static void write32(struct vm *vm, uint32_t gpa, uint32_t value)
{
    memory_write(&vm->memory, gpa, &value, sizeof value);
}

static void put_descriptor(struct vm *vm, uint32_t gpa, const struct segment *segment)
{
    uint32_t limit = segment->attributes & SEGMENT_G ? segment->limit >> PAGE_SHIFT : segment->limit;

    write32(vm, gpa, (limit & 0xffff) | segment->base << 16);
    write32(vm, gpa + 4,
            (segment->base >> 16 & 0xff) | (uint32_t)segment->attributes << 8 | (limit & 0xf0000) |
                (segment->base & 0xff000000));
}

static void put_entry(struct vm *vm, uint32_t gva, uint32_t frame, uint32_t rights)
{
    uint32_t table = DIRECTORY + PAGE_SIZE * (gva == RANDOM_TABLES ? 1u : gva < 0x800000 ? 2u : 3u);

    write32(vm, DIRECTORY + (gva >> 22) * 4, table | PTE_P | PTE_W | PTE_U);
    write32(vm, table + (gva >> PAGE_SHIFT & 1023) * 4, rights == 0 ? 0 : frame | rights | PTE_P);
}

static void put_region(struct vm *vm, const struct random_region *region, uint32_t rights)
{
    for (uint32_t i = 0; i < region->n_pages; i++)
        put_entry(vm, region->gva + i * PAGE_SIZE, FIRST_FRAME + (region->first_page + i) * PAGE_SIZE,
                  rights);
}

static const struct segment fs = {RANDOM_SELECTOR_FS, ATTRIBUTES_FS, RANDOM_FS_BASE, FLAT_LIMIT};
static const struct segment gs = {RANDOM_SELECTOR_GS, ATTRIBUTES_GS, RANDOM_GS_BASE, RANDOM_GS_LIMIT};
static const struct segment code = {SELECTOR_CODE, ATTRIBUTES_CODE, 0, FLAT_LIMIT};
static const struct segment data = {SELECTOR_DATA, ATTRIBUTES_DATA, 0, FLAT_LIMIT};
static const struct segment ldt = {SELECTOR_LDT, 0x82, RANDOM_TABLES + LDT_OFFSET, 15};
static const struct segment tss = {SELECTOR_TSS, 0x8b, RANDOM_TABLES + TSS_OFFSET, 0x67};

static void build(struct vm *vm)
{
    struct vcpu *vcpu = &vm->vcpu;

    put_descriptor(vm, TABLES + (SELECTOR_CODE & ~7u), &code);
    put_descriptor(vm, TABLES + (SELECTOR_DATA & ~7u), &data);
    put_descriptor(vm, TABLES + SELECTOR_LDT, &ldt);
    put_descriptor(vm, TABLES + SELECTOR_TSS, &tss);
    put_descriptor(vm, TABLES + LDT_OFFSET + (RANDOM_SELECTOR_FS & ~7u), &fs);
    put_descriptor(vm, TABLES + LDT_OFFSET + (RANDOM_SELECTOR_GS & ~7u), &gs);
    write32(vm, TABLES + TSS_OFFSET + 0x64, 0x68u << 16); /* no I/O bitmap */
    put_entry(vm, RANDOM_TABLES, TABLES, PTE_W);
    for (size_t i = 0; i < random_n_regions; i++)
        put_region(vm, &random_regions[i], PTE_U | (random_regions[i].is_writable ? PTE_W : 0));
    vcpu_set_flat(vcpu, SELECTOR_CODE, SELECTOR_DATA, RANDOM_CODE);
    vcpu->gdtr = (struct table_register){RANDOM_TABLES, 0x47};
    vcpu->idtr = (struct table_register){RANDOM_TABLES, 0};
    vcpu->cr3 = DIRECTORY;
    vcpu->cr4 = CR4_OSFXSR | CR4_OSXMMEXCPT;
    vcpu->cr0 |= CR0_PG | CR0_WP | CR0_NE | CR0_MP | CR0_AM;
}

static void *machine_create(const char *name, char *error, size_t error_size)
{
    static uint8_t initial[RANDOM_PAGES][PAGE_SIZE];
    const struct engine *engine = find_engine(name);
    const struct vm_config config = {
        .ram_size = RAM_SIZE, .clock = CLOCK_VIRTUAL, .poll = poll_alarm, .use_userfaultfd = true};
    struct sigaction action = {.sa_handler = on_alarm, .sa_flags = SA_ONSTACK};
    struct sigaction disturbance = {.sa_handler = on_disturbance, .sa_flags = SA_ONSTACK};

    if (engine == NULL) {
        snprintf(error, error_size, "there is no engine \"%s\"", name);
        return NULL;
    }
    sigaction(SIGPROF, &action, NULL);
    sigaction(SIGALRM, &disturbance, NULL);
    if (!vm_create(&machine.vm, &config, engine, error, error_size))
        return NULL;
    if (!runner_forbid_compat_calls()) {
        snprintf(error, error_size, "no seccomp filter");
        return NULL;
    }
    machine.initial = initial;
    machine.memory_seed = UINT64_MAX;
    build(&machine.vm);
    return &machine;
}

/* ---- runs ---------------------------------------------------------------------------------------------- */

static void set_memory(const struct random_case *random_case)
{
    struct vm *vm = &machine.vm;
    uint32_t rights = PTE_U | (random_case->is_code_writable ? PTE_W : 0);

    if (machine.memory_seed != random_case->memory_seed)
        random_fill_memory(random_case->memory_seed, machine.initial);
    machine.memory_seed = random_case->memory_seed;
    memcpy(machine.initial[FIRST_CODE], random_case->code, sizeof random_case->code);
    memory_write(&vm->memory, FIRST_FRAME, machine.initial, (size_t)RANDOM_PAGES * PAGE_SIZE);
    put_region(vm, &random_regions[0], rights);
    put_region(vm, &random_regions[1], random_case->is_code_writable ? PTE_U | PTE_W : 0);
    if (!random_case->has_second_code_page)
        put_entry(vm, RANDOM_CODE + PAGE_SIZE, 0, 0);
    for (unsigned i = 0; i < PAGES_CODE; i++) { /* as a kernel would, after a change of rights */
        vm->vcpu.ops->invlpg(&vm->vcpu, RANDOM_CODE + i * PAGE_SIZE);
        vm->vcpu.ops->invlpg(&vm->vcpu, RANDOM_ALIAS + i * PAGE_SIZE);
    }
}

/* The code stays as it is, and so do the engine's ideas of it. */
static void set_data(void)
{
    memory_write(&machine.vm.memory, FIRST_FRAME + FIRST_DATA * PAGE_SIZE, machine.initial[FIRST_DATA],
                 (size_t)(RANDOM_PAGES - FIRST_DATA) * PAGE_SIZE);
}

static struct segment with_dpl(struct segment segment, unsigned dpl)
{
    segment.attributes = (uint16_t)((segment.attributes & ~SEGMENT_DPL) | dpl << SEGMENT_DPL_SHIFT);
    return segment;
}

static void set_registers(struct vcpu *vcpu, const struct random_case *random_case)
{
    const unsigned cpl = random_case->is_supervisor ? 0 : 3;

    memcpy(vcpu->gpr, random_case->gpr, sizeof vcpu->gpr);
    memcpy(vcpu->fxsave, random_case->fxsave, sizeof vcpu->fxsave);
    vcpu->eip = random_case->eip;
    vcpu->eflags = random_case->eflags;
    vcpu->cpl = (uint8_t)cpl;
    vcpu->segment[SEG_CS] = with_dpl(code, cpl);
    vcpu->segment[SEG_SS] = vcpu->segment[SEG_DS] = vcpu->segment[SEG_ES] = with_dpl(data, cpl);
    if (cpl == 0) {
        vcpu->segment[SEG_CS].selector &= (uint16_t)~3u;
        vcpu->segment[SEG_SS].selector &= (uint16_t)~3u;
    }
    vcpu->segment[SEG_FS] = fs;
    vcpu->segment[SEG_GS] = gs;
    vcpu->ldtr = ldt;
    vcpu->tr = tss;
    vcpu->interrupt_shadow = SHADOW_NONE;
    vcpu->halted = false;
    vcpu->cr2 = 0;
    vcpu->dr[6] = DR6_FIXED;
    vcpu->chain.count = 0;
    vcpu->delivering_vector = -1;
}

static void tell(const struct vm *vm, struct random_result *result)
{
    const struct vcpu *vcpu = &vm->vcpu;

    memcpy(result->gpr, vcpu->gpr, sizeof result->gpr);
    memcpy(result->fxsave, vcpu->fxsave, sizeof result->fxsave);
    result->eip = vcpu->eip;
    result->eflags = vcpu->eflags;
    memory_read(&vm->memory, FIRST_FRAME, result->memory, sizeof result->memory);
    result->status = RUN_STOPPED;
    if (vm->stop_reason == STOP_TIMEOUT) {
        result->status = RUN_TIMEOUT;
    } else if (vm->stop_reason == STOP_TRIPLE_FAULT && vcpu->chain.count > 0) {
        result->status = RUN_OK;
        result->vector = vcpu->chain.fault[0].vector;
        result->error = vcpu->chain.fault[0].has_error ? vcpu->chain.fault[0].error : 0;
        result->cr2 = vcpu->chain.fault[0].cr2;
    }
    snprintf(result->text, sizeof result->text, "%.255s", vm->stop_text);
}

static void run_once(const struct random_case *random_case, unsigned disturbance_us)
{
    struct vm *vm = &machine.vm;

    set_registers(&vm->vcpu, random_case);
    vm->stop_reason = STOP_NONE;
    vm->stop_text[0] = '\0';
    vm->spin_exits = UINT64_MAX; /* each case is a life of its own */
    vm->attention = 0;
    is_time_up = 0;
    runner_set_alarm(MACHINE_LIMIT_US);
    set_disturbance(disturbance_us);
    vm_run(vm);
    set_disturbance(0);
    runner_set_alarm(0);
}

static void machine_run(void *state, const struct random_case *random_case, struct random_result *result)
{
    (void)state;
    for (unsigned i = 0; i < random_case->n_runs; i++) {
        if (i == 0 || random_case->is_code_writable)
            set_memory(random_case);
        else
            set_data();
        run_once(random_case,
                 random_case->is_disturbed ? 1 + (random_case->eip + 7 * i) % MAX_DISTURBANCE_US : 0);
    }
    tell(&machine.vm, result);
}

const struct runner_kind machine_runner = {machine_create, machine_run};
