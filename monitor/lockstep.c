/*
 * The reference has no devices and no clock. What comes from outside the processor and its memory (ports
 * read, device memory, the time stamp counter, interrupts) is noted when the machine gets it, and given to
 * the reference when it asks for the same: so it does not matter how the machine's time runs, nor where its
 * engine stops. What goes out (ports and device memory written) is noted too, and must be the same.
 *
 * After each turn of the machine's loop the reference runs until its registers are the machine's and the
 * notes are used up. When it has not come there after MAX_INSTRUCTIONS, or has asked for something else, they
 * differ; and also when there is a difference in memory or the other registers, unless the reference has only
 * come there for the first time, and the machine, in a loop, for the second or third. Where in between is for
 * a person to find, with the last instructions of the reference; a machine that stops more often narrows it.
 *
 * Read next: lockstep_compare.c.
 */
#include "monitor/lockstep.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "monitor/machine.h"
#include "vcpu/fail.h"

#define MAX_INSTRUCTIONS 50000000u
#define MAX_NOTES        65536u
#define HISTORY          16u

enum input_kind {
    INPUT_PORT_READ,
    INPUT_PORT_WRITE,
    INPUT_DEVICE_READ,
    INPUT_DEVICE_WRITE,
    INPUT_TSC,
    INPUT_INTERRUPT
};

struct input {
    uint8_t kind, size;
    uint8_t vector, injection;
    uint32_t address;
    uint64_t value;
    uint8_t bytes[64];                    /* of device memory */
    uint32_t gpr[GPR_COUNT], eip, eflags; /* where an interrupt came */
};

struct lockstep {
    struct vm *vm;
    struct vcpu_ops machine_ops; /* the machine's, with notes taken */
    struct vcpu vcpu;            /* the reference */
    struct guest_memory memory;
    uint8_t *is_written; /* by page: by the reference since the last comparison; else 0 */
    uint64_t n_instructions;
    struct input *input; /* a queue: [first_input, n_inputs) */
    size_t first_input, n_inputs;
    uint32_t history[HISTORY]; /* eips of the reference's last instructions */
    char nearest[512];         /* how it differed when it first was at the machine's eip in this turn */
    char *text;                /* of this turn; empty: no difference yet */
};

/* The one machine that is followed: its vcpu's `machine` is the struct vm, which knows nothing of this. */
static struct lockstep *followed;

__attribute__((format(printf, 2, 3))) static void differ(struct lockstep *lockstep, const char *format, ...)
{
    va_list arguments;

    if (lockstep->text[0] != '\0')
        return;
    va_start(arguments, format);
    vsnprintf(lockstep->text, LOCKSTEP_TEXT, format, arguments);
    va_end(arguments);
}

/* ---- the machine's side: notes ---------------------------------------------------------------------------
 */

static void note(const struct input *input)
{
    if (followed->n_inputs >= MAX_NOTES / 2) /* time for the engine to come back to the loop */
        followed->vm->attention = 1;
    if (followed->n_inputs == MAX_NOTES)
        differ(followed, "more than %u accesses to devices in one turn", MAX_NOTES);
    else
        followed->input[followed->n_inputs++] = *input;
}

static uint32_t noted_port_read(struct vcpu *vcpu, uint16_t port, unsigned size)
{
    uint32_t value = machine_vcpu_ops.port_read(vcpu, port, size);

    note(&(struct input){.kind = INPUT_PORT_READ, .size = (uint8_t)size, .address = port, .value = value});
    return value;
}

static void noted_port_write(struct vcpu *vcpu, uint16_t port, unsigned size, uint32_t value)
{
    note(&(struct input){.kind = INPUT_PORT_WRITE, .size = (uint8_t)size, .address = port, .value = value});
    machine_vcpu_ops.port_write(vcpu, port, size, value);
}

static uint64_t noted_tsc(struct vcpu *vcpu)
{
    uint64_t value = machine_vcpu_ops.tsc(vcpu);

    note(&(struct input){.kind = INPUT_TSC, .value = value});
    return value;
}

static bool is_device(const struct guest_memory *memory, const struct vcpu *vcpu, gva_t linear, unsigned kind)
{
    struct walk walk;
    struct fault fault;

    return guest_walk((struct guest_memory *)memory, vcpu, linear, kind, true, &walk, &fault) &&
           memory_rpn(memory, walk.gpa) == RPN_NONE;
}

static enum outcome noted_memory(struct vcpu *vcpu, gva_t linear, void *buf, unsigned size, unsigned kind)
{
    const struct guest_memory *memory = &followed->vm->memory;
    bool is_noted =
        !(kind & ACCESS_PROBE) && (is_device(memory, vcpu, linear, kind & ~ACCESS_PROBE) ||
                                   is_device(memory, vcpu, linear + size - 1, kind & ~ACCESS_PROBE));
    enum outcome outcome = machine_vcpu_ops.memory(vcpu, linear, buf, size, kind);
    struct input input = {.kind = (kind & ACCESS_WRITE) ? INPUT_DEVICE_WRITE : INPUT_DEVICE_READ,
                          .size = (uint8_t)size,
                          .address = linear};

    if (is_noted && outcome == OUTCOME_DONE) {
        memcpy(input.bytes, buf, size);
        note(&input);
    }
    return outcome;
}

static void noted_injected(struct vcpu *vcpu, enum injection_kind kind, uint8_t vector, bool has_error,
                           uint32_t error)
{
    struct input input = {.kind = INPUT_INTERRUPT,
                          .vector = vector,
                          .injection = (uint8_t)kind,
                          .eip = vcpu->eip,
                          .eflags = vcpu->eflags};

    memcpy(input.gpr, vcpu->gpr, sizeof input.gpr);
    if (kind == INJECT_EXTERNAL || kind == INJECT_NMI)
        note(&input);
    machine_vcpu_ops.injected(vcpu, kind, vector, has_error, error);
}

/* ---- the reference's side ---------------------------------------------------------------------------------
 */

/* The next note, which must be of this kind; NULL: it is not, and they differ. */
static const struct input *next_input(struct lockstep *lockstep, enum input_kind kind, uint32_t address,
                                      unsigned size)
{
    static const char *const names[] = {"reads port",           "writes port",   "reads device memory",
                                        "writes device memory", "reads the TSC", "is interrupted"};
    const struct input *input = &lockstep->input[lockstep->first_input];

    if (lockstep->first_input == lockstep->n_inputs) {
        differ(lockstep, "the reference %s %x, the machine has not", names[kind], address);
        return NULL;
    }
    if (input->kind != kind || input->address != address || input->size != size) {
        differ(lockstep, "the reference %s %x (%u bytes), the machine %s %x (%u)", names[kind], address, size,
               names[input->kind], input->address, input->size);
        return NULL;
    }
    lockstep->first_input++;
    return input;
}

static uint32_t repeated_port_read(struct vcpu *vcpu, uint16_t port, unsigned size)
{
    const struct input *input = next_input(vcpu->machine, INPUT_PORT_READ, port, size);

    return input == NULL ? 0 : (uint32_t)input->value;
}

static void check_written(struct lockstep *lockstep, const struct input *input, uint64_t value)
{
    if (input != NULL && input->value != value)
        differ(lockstep, "to %x the reference writes %llx, the machine %llx", input->address,
               (unsigned long long)value, (unsigned long long)input->value);
}

static void repeated_port_write(struct vcpu *vcpu, uint16_t port, unsigned size, uint32_t value)
{
    check_written(vcpu->machine, next_input(vcpu->machine, INPUT_PORT_WRITE, port, size), value);
}

static uint64_t repeated_tsc(struct vcpu *vcpu)
{
    const struct input *input = next_input(vcpu->machine, INPUT_TSC, 0, 0);

    return input == NULL ? 0 : input->value;
}

static void access_memory(struct lockstep *lockstep, gpa_t gpa, void *buf, unsigned size, unsigned kind)
{
    if (!(kind & ACCESS_WRITE)) {
        (void)memory_read(&lockstep->memory, gpa, buf, size);
        return;
    }
    (void)memory_write(&lockstep->memory, gpa, buf, size);
    lockstep->is_written[memory_rpn(&lockstep->memory, gpa)] = 1;
}

static bool is_in_memory(const struct lockstep *lockstep, gpa_t gpa)
{
    return memory_rpn(&lockstep->memory, gpa) != RPN_NONE;
}

/* One note, also where only the first or the second part is a device's. */
static void access_device(struct lockstep *lockstep, gva_t linear, void *buf, unsigned size, unsigned kind)
{
    const struct input *input =
        next_input(lockstep, (kind & ACCESS_WRITE) ? INPUT_DEVICE_WRITE : INPUT_DEVICE_READ, linear, size);

    if (input == NULL)
        return;
    if (!(kind & ACCESS_WRITE))
        memcpy(buf, input->bytes, size);
    else if (memcmp(buf, input->bytes, size) != 0)
        differ(lockstep, "the reference and the machine write different values to device memory at %08x",
               linear);
}

static enum outcome repeated_memory(struct vcpu *vcpu, gva_t linear, void *buf, unsigned size, unsigned kind)
{
    struct lockstep *lockstep = vcpu->machine;
    struct walk walk[2];
    unsigned first_size;
    bool is_crossing;

    if (!guest_walk_bytes(&lockstep->memory, vcpu, linear, size, kind, walk, &first_size, &vcpu->fault))
        return OUTCOME_FAULT;
    is_crossing = first_size < size;
    if (kind & ACCESS_PROBE)
        return OUTCOME_DONE;
    if (!is_in_memory(lockstep, walk[0].gpa) || (is_crossing && !is_in_memory(lockstep, walk[1].gpa))) {
        access_device(lockstep, linear, buf, size, kind);
        if (!(kind & ACCESS_WRITE))
            return OUTCOME_DONE;
    }
    if (is_in_memory(lockstep, walk[0].gpa))
        access_memory(lockstep, walk[0].gpa, buf, first_size, kind);
    if (is_crossing && is_in_memory(lockstep, walk[1].gpa))
        access_memory(lockstep, walk[1].gpa, (uint8_t *)buf + first_size, size - first_size, kind);
    return OUTCOME_DONE;
}

static void read_physical(struct vcpu *vcpu, gpa_t gpa, void *buf, unsigned size)
{
    const struct lockstep *lockstep = vcpu->machine;

    if (!memory_read(&lockstep->memory, gpa, buf, size))
        memset(buf, 0xff, size);
}

static void ignore_paging(struct vcpu *vcpu, uint32_t old_cr0, uint32_t old_cr3, uint32_t old_cr4)
{
    (void)vcpu, (void)old_cr0, (void)old_cr3, (void)old_cr4;
}

static void ignore_invlpg(struct vcpu *vcpu, gva_t linear)
{
    (void)vcpu, (void)linear;
}

/* The same record in the reference's memory: nothing in it is from outside, once no time is stolen. */
static void repeated_clock_change(struct vcpu *vcpu, uint32_t msr)
{
    struct lockstep *lockstep = vcpu->machine;

    pvclock_msr_written(&lockstep->vm->pvclock, &lockstep->memory, vcpu, msr);
}

static void ignore_apic_base(struct vcpu *vcpu)
{
    (void)vcpu;
}

static void ignore_injected(struct vcpu *vcpu, enum injection_kind kind, uint8_t vector, bool has_error,
                            uint32_t error)
{
    (void)vcpu, (void)kind, (void)vector, (void)has_error, (void)error;
}

static void ignore_msr(struct vcpu *vcpu, uint32_t index, bool is_write, uint64_t value)
{
    (void)vcpu, (void)index, (void)is_write, (void)value;
}

static void stop_reference(struct vcpu *vcpu, enum stop_reason reason, const char *format, ...)
{
    char text[512];
    va_list arguments;
    struct lockstep *lockstep = vcpu->machine;

    (void)reason;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    if (!vm_is_stopped(lockstep->vm)) /* else both came to an end */
        differ(lockstep, "the reference stops: %s", text);
}

static const struct vcpu_ops reference_ops = {
    .memory = repeated_memory,
    .port_read = repeated_port_read,
    .port_write = repeated_port_write,
    .physical_read = read_physical,
    .paging_changed = ignore_paging,
    .invlpg = ignore_invlpg,
    .tsc = repeated_tsc,
    .clock_changed = repeated_clock_change,
    .apic_base_changed = ignore_apic_base,
    .stop = stop_reference,
    .injected = ignore_injected,
    .unknown_msr = ignore_msr,
};

/* ---- the reference runs
 * ------------------------------------------------------------------------------------ */

/* The machine may have stopped between any two elements of a string instruction, so the reference runs them
 * one by one: by the trap flag, whose #DB is not the guest's. */
static enum outcome run_string(struct vcpu *vcpu, const struct insn *insn)
{
    uint32_t dr6 = vcpu->dr[6];
    enum outcome outcome;

    vcpu->eflags |= EFLAGS_TF;
    outcome = vcpu_emulate(vcpu, insn);
    vcpu->eflags &= ~(EFLAGS_TF | EFLAGS_RF);
    if (outcome == OUTCOME_FAULT && vcpu->fault.is_trap) {
        vcpu->dr[6] = dr6;
        return OUTCOME_DONE;
    }
    return outcome;
}

static void step(struct lockstep *lockstep)
{
    struct vcpu *vcpu = &lockstep->vcpu;
    struct insn insn;
    enum outcome outcome;
    bool is_string;

    lockstep->history[lockstep->n_instructions++ % HISTORY] = vcpu->eip;
    outcome = vcpu_fetch(vcpu, &insn);
    if (outcome == OUTCOME_DONE) {
        is_string = (insn.prefixes & (INSN_REP | INSN_REPNE)) && !(vcpu->eflags & EFLAGS_TF);
        outcome = is_string ? run_string(vcpu, &insn) : vcpu_emulate(vcpu, &insn);
    }
    if (outcome == OUTCOME_FAULT)
        outcome = vcpu_deliver_fault(vcpu, &vcpu->fault);
    if (outcome == OUTCOME_UNKNOWN)
        differ(lockstep, "the reference cannot run the instruction at %08x", vcpu->eip);
}

static bool is_at(const struct vcpu *vcpu, const uint32_t *gpr, uint32_t eip, uint32_t eflags)
{
    return vcpu->eip == eip && ((vcpu->eflags ^ eflags) & ~EFLAGS_RF) == 0 &&
           memcmp(vcpu->gpr, gpr, sizeof vcpu->gpr) == 0;
}

static bool take_interrupt(struct lockstep *lockstep)
{
    const struct input *input = &lockstep->input[lockstep->first_input];
    struct vcpu *vcpu = &lockstep->vcpu;

    if (lockstep->first_input == lockstep->n_inputs || input->kind != INPUT_INTERRUPT ||
        !is_at(vcpu, input->gpr, input->eip, input->eflags))
        return false;
    lockstep->first_input++;
    vcpu->halted = false;
    vcpu_deliver_interrupt(vcpu, input->injection, input->vector);
    return true;
}

/* Has it come to where the machine is? */
static bool has_arrived(const struct lockstep *lockstep)
{
    const struct vcpu *machine = &lockstep->vm->vcpu;

    return lockstep->first_input == lockstep->n_inputs && lockstep->vcpu.halted == machine->halted &&
           lockstep->vcpu.cpl == machine->cpl &&
           is_at(&lockstep->vcpu, machine->gpr, machine->eip, machine->eflags);
}

static void follow(struct lockstep *lockstep)
{
    const struct vcpu *machine = &lockstep->vm->vcpu;
    char text[512];

    lockstep->nearest[0] = '\0';
    for (unsigned n = 0; lockstep->text[0] == '\0' && !has_arrived(lockstep); n++) {
        if (take_interrupt(lockstep))
            continue;
        if (lockstep->nearest[0] == '\0' && lockstep->vcpu.eip == machine->eip && n > 0 &&
            lockstep->first_input == lockstep->n_inputs)
            lockstep_compare_processors(&lockstep->vcpu, machine, lockstep->nearest,
                                        sizeof lockstep->nearest);
        if (lockstep->vcpu.halted || n == MAX_INSTRUCTIONS) {
            lockstep_compare_processors(&lockstep->vcpu, machine, text, sizeof text);
            differ(lockstep, "reference→machine: %s", text);
            return;
        }
        step(lockstep);
    }
}

/* What may stand in a page-table entry of the machine's and not yet in the reference's: A, since an engine
 * that looks ahead walks (SDM Vol 3A 4.10.2.3 lets processors do so), and D, where the machine stopped
 * between a fault that made the page writable and the store. A is taken over. */
enum entry_state { ENTRY_SAME, ENTRY_EARLY_DIRTY, ENTRY_DIFFERENT };

static enum entry_state compare_entry(struct lockstep *lockstep, uint32_t rpn, unsigned offset)
{
    size_t at = ((size_t)rpn << PAGE_SHIFT) + offset;
    uint32_t a, b;

    memcpy(&a, lockstep->memory.hva + at, sizeof a);
    memcpy(&b, lockstep->vm->memory.hva + at, sizeof b);
    if (!(lockstep->vm->memory.page_flags[rpn] & PAGE_IS_TABLE) || (b & ~(a | PTE_A | PTE_D)) || (a & ~b))
        return ENTRY_DIFFERENT;
    a |= b & PTE_A;
    memcpy(lockstep->memory.hva + at, &a, sizeof a);
    return a == b ? ENTRY_SAME : ENTRY_EARLY_DIRTY;
}

/* The machine's D may be early for some turns, not for ever. */
#define MAX_EARLY_TURNS 200

static void compare_page(struct lockstep *lockstep, uint32_t rpn)
{
    const uint8_t *a = lockstep->memory.hva + ((size_t)rpn << PAGE_SHIFT);
    const uint8_t *b = lockstep->vm->memory.hva + ((size_t)rpn << PAGE_SHIFT);
    uint8_t n_turns = lockstep->is_written[rpn];

    lockstep->is_written[rpn] = 0;
    if (memcmp(a, b, PAGE_SIZE) == 0)
        return;
    for (unsigned offset = 0; offset < PAGE_SIZE; offset += sizeof(uint32_t)) {
        enum entry_state state;

        if (memcmp(a + offset, b + offset, sizeof(uint32_t)) == 0)
            continue;
        state = compare_entry(lockstep, rpn, offset);
        if (state == ENTRY_SAME)
            continue;
        if (state == ENTRY_EARLY_DIRTY && n_turns < MAX_EARLY_TURNS) {
            lockstep->is_written[rpn] = (uint8_t)(n_turns + 1);
            continue;
        }
        lockstep->is_written[rpn] = 1; /* it is looked at again */
        differ(lockstep,
               "reference→machine: memory at physical %08llx: %02x %02x %02x %02x→%02x %02x %02x %02x",
               (unsigned long long)memory_gpa(&lockstep->memory, rpn) + offset, a[offset], a[offset + 1],
               a[offset + 2], a[offset + 3], b[offset], b[offset + 1], b[offset + 2], b[offset + 3]);
        return;
    }
}

static void compare_written_pages(struct lockstep *lockstep)
{
    for (uint32_t rpn = 0; rpn < lockstep->memory.size >> PAGE_SHIFT; rpn++)
        if (lockstep->is_written[rpn])
            compare_page(lockstep, rpn);
}

/* ---- together
 * ---------------------------------------------------------------------------------------------- */

static void append_history(struct lockstep *lockstep)
{
    size_t length = strlen(lockstep->text);
    uint64_t n = lockstep->n_instructions < HISTORY ? lockstep->n_instructions : HISTORY;

    if (lockstep->nearest[0] != '\0')
        length += (size_t)snprintf(lockstep->text + length, LOCKSTEP_TEXT - length,
                                   " (when it came to the machine's eip, reference→machine: %s)",
                                   lockstep->nearest);
    length += (size_t)snprintf(
        lockstep->text + length, LOCKSTEP_TEXT - length,
        "; after %llu instructions; the last:", (unsigned long long)lockstep->n_instructions);
    for (uint64_t i = lockstep->n_instructions - n; i < lockstep->n_instructions && length < LOCKSTEP_TEXT;
         i++)
        length += (size_t)snprintf(lockstep->text + length, LOCKSTEP_TEXT - length, " %08x",
                                   lockstep->history[i % HISTORY]);
}

/* The reference has arrived: is all the same? */
static void compare(struct lockstep *lockstep)
{
    char difference[512];

    lockstep->first_input = lockstep->n_inputs = 0;
    if (lockstep_compare_processors(&lockstep->vcpu, &lockstep->vm->vcpu, difference, sizeof difference))
        differ(lockstep, "reference→machine: %s", difference);
    compare_written_pages(lockstep);
}

/* A turn can pass the same registers more than once. Does the reference come to the same state later on? */
static bool comes_later(struct lockstep *lockstep)
{
    uint64_t end = lockstep->n_instructions + MAX_INSTRUCTIONS;
    char *text = lockstep->text, later[LOCKSTEP_TEXT];
    bool is_same = false;

    lockstep->text = later;
    while (!is_same && lockstep->n_instructions < end) {
        later[0] = '\0';
        step(lockstep);
        follow(lockstep);
        if (later[0] != '\0') /* it does not come there again */
            break;
        compare(lockstep);
        is_same = later[0] == '\0';
    }
    lockstep->text = text;
    return is_same;
}

bool lockstep_turn(struct lockstep *lockstep, char *text)
{
    bool is_there;

    lockstep->text = text;
    text[0] = '\0';
    vm_run_once(lockstep->vm);
    if (vm_is_stopped(lockstep->vm)) /* in the middle of an instruction, perhaps */
        return text[0] == '\0';
    follow(lockstep);
    is_there = text[0] == '\0';
    if (is_there)
        compare(lockstep);
    if (text[0] == '\0')
        return true;
    append_history(lockstep);
    if (!is_there || !comes_later(lockstep))
        return false;
    text[0] = '\0';
    return true;
}

/* Only what holds data: RAM that nobody has touched takes no room. */
static void copy_memory(struct guest_memory *to, const struct guest_memory *from)
{
    off_t start = 0, end;

    while ((start = lseek(from->fd, start, SEEK_DATA)) >= 0 &&
           (end = lseek(from->fd, start, SEEK_HOLE)) > start) {
        memcpy(to->hva + start, from->hva + start, (size_t)(end - start));
        start = end;
    }
}

struct lockstep *lockstep_create(struct vm *vm, char *error, size_t error_size)
{
    struct lockstep *lockstep = calloc(1, sizeof *lockstep);

    if (lockstep == NULL)
        die("out of memory");
    BUG_ON(followed != NULL);
    lockstep->vm = vm;
    if (!memory_create(&lockstep->memory, vm->config.ram_size, vm->config.rom_size, error, error_size)) {
        free(lockstep);
        return NULL;
    }
    lockstep->is_written = calloc(lockstep->memory.size >> PAGE_SHIFT, 1);
    lockstep->input = calloc(MAX_NOTES, sizeof *lockstep->input);
    if (lockstep->is_written == NULL || lockstep->input == NULL)
        die("out of memory");
    pvclock_close(&vm->pvclock);
    copy_memory(&lockstep->memory, &vm->memory);
    lockstep->vcpu = vm->vcpu;
    lockstep->vcpu.ops = &reference_ops;
    lockstep->vcpu.machine = lockstep;
    lockstep->machine_ops = machine_vcpu_ops;
    lockstep->machine_ops.memory = noted_memory;
    lockstep->machine_ops.port_read = noted_port_read;
    lockstep->machine_ops.port_write = noted_port_write;
    lockstep->machine_ops.tsc = noted_tsc;
    lockstep->machine_ops.injected = noted_injected;
    vm->vcpu.ops = &lockstep->machine_ops;
    followed = lockstep;
    return lockstep;
}

void lockstep_destroy(struct lockstep *lockstep)
{
    lockstep->vm->vcpu.ops = &machine_vcpu_ops;
    followed = NULL;
    memory_destroy(&lockstep->memory);
    free(lockstep->is_written);
    free(lockstep->input);
    free(lockstep);
}

uint64_t lockstep_instructions(const struct lockstep *lockstep)
{
    return lockstep->n_instructions;
}
