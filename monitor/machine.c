/*
 * The joints of the machine: what the vcpu calls to reach memory, ports and the end of the run; what the
 * board calls to reach the console; and where each of these becomes a note of the current event. Read next:
 * run.c.
 */
#include "monitor/machine.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "vcpu/fail.h"

#define TSC_HZ_PER_NS 1 /* the virtual TSC counts nanoseconds of machine time: 1 GHz on every host */

void machine_add_note(struct vm *vm, const struct note *note)
{
    unsigned most = note->kind == NOTE_SHADOW ? EVENT_MAX_SHADOW_NOTES : EVENT_MAX_NOTES;

    if (vm->event.n_notes < most)
        vm->event.note[vm->event.n_notes++] = *note;
    else
        vm->event.dropped_notes++;
}

uint64_t machine_now(void *opaque)
{
    const struct vm *vm = opaque;

    return vm->config.clock == CLOCK_VIRTUAL ? vm->virtual_ns : vm->engine->host_ns() - vm->host_start_ns;
}

/* ---- memory -------------------------------------------------------------------------------------------- */

/* Words and descriptors are most of it: worth more than a call. */
static void copy(void *to, const void *from, unsigned size)
{
    switch (size) {
    case 4:
        memcpy(to, from, 4);
        break;
    case 8:
        memcpy(to, from, 8);
        break;
    default:
        if (size % 4 != 0) {
            memcpy(to, from, size);
            break;
        }
        for (unsigned i = 0; i < size; i += 4) /* a frame on a stack */
            memcpy((char *)to + i, (const char *)from + i, 4);
        break;
    }
}

/* A device's memory, in the pieces the bus takes. */
static void device_access(struct vm *vm, gpa_t gpa, uint8_t *bytes, unsigned size, bool is_write)
{
    struct bus *bus = board_bus(vm->board);

    if (gpa > UINT32_MAX) { /* PAE reaches further than the board's wires */
        if (!is_write)
            memset(bytes, 0xff, size);
        machine_note(vm, &(struct note){.kind = NOTE_UNCLAIMED,
                                        .address = gpa,
                                        .size = size | (unsigned)BUS_MEMORY << 8,
                                        .flag = is_write});
        return;
    }
    while (size != 0) {
        unsigned piece = size >= 4 ? 4 : size >= 2 ? 2 : 1;
        uint32_t value = 0;

        if (is_write) {
            copy(&value, bytes, piece);
            bus_write(bus, BUS_MEMORY, (uint32_t)gpa, piece, value);
        } else {
            value = bus_read(bus, BUS_MEMORY, (uint32_t)gpa, piece);
            copy(bytes, &value, piece);
        }
        machine_note(vm, &(struct note){.kind = is_write ? NOTE_MEMORY_WRITE : NOTE_MEMORY_READ,
                                        .address = gpa,
                                        .size = piece,
                                        .value = value});
        gpa += piece;
        bytes += piece;
        size -= piece;
    }
}

static void physical_access(struct vm *vm, gpa_t gpa, uint8_t *bytes, unsigned size, bool is_write)
{
    bool is_memory =
        is_write ? memory_write(&vm->memory, gpa, bytes, size) : memory_read(&vm->memory, gpa, bytes, size);

    if (!is_memory)
        device_access(vm, gpa, bytes, size, is_write);
}

static enum outcome hold_device(struct vm *vm, gva_t linear, unsigned kind)
{
    vm->held_device = true;
    return vcpu_raise_page_fault(&vm->vcpu, linear,
                                 ((kind & ACCESS_WRITE) ? PF_WRITE : 0) |
                                     ((kind & ACCESS_FETCH) ? PF_FETCH : 0) |
                                     ((kind & ACCESS_USER) ? PF_USER : 0));
}

/* The emulator reaches for descriptor tables and stacks while the user runs. */
static const struct shadow *shadow_for(const struct vm *vm, unsigned kind)
{
    return (kind & ACCESS_USER) || vm->system_shadow == NULL ? vm->shadow : vm->system_shadow;
}

/* Where the shadow has it mapped with the rights for this access, which then needs no walk. */
static uint8_t *mapped(const struct vm *vm, gva_t linear, unsigned kind)
{
    const struct shadow *shadow = shadow_for(vm, kind);
    uint8_t *hva;

    if ((kind & ACCESS_USER) && linear >= shadow_user_limit(shadow))
        return NULL;
    hva = shadow_fast(shadow, &vm->vcpu, linear, kind);
    if (hva == NULL && vm->user_shadow != NULL)
        hva = shadow_fast(vm->user_shadow, &vm->vcpu, linear, kind);
    return hva;
}

/* A store into a page that has translations, or is a page table: the guest's own are many. */
static bool held_access(struct vm *vm, gva_t linear, const void *buf, unsigned size, unsigned kind)
{
    const struct shadow *shadow = shadow_for(vm, kind);
    uint32_t rpn = shadow_held(shadow, &vm->vcpu, linear, kind);

    if (rpn == RPN_NONE || ((kind & ACCESS_USER) && linear >= shadow_user_limit(shadow)))
        return false;
    memory_write_page(&vm->memory, rpn, linear & PAGE_MASK, buf, size);
    return true;
}

static bool mapped_access(struct vm *vm, gva_t linear, void *buf, unsigned size, unsigned kind)
{
    uint8_t *hva;

    if ((linear & PAGE_MASK) + size > PAGE_SIZE)
        return false;
    hva = mapped(vm, linear, kind);
    if (hva == NULL)
        return (kind & (ACCESS_WRITE | ACCESS_PROBE)) == ACCESS_WRITE &&
               held_access(vm, linear, buf, size, kind);
    if (kind & ACCESS_PROBE)
        return true;
    copy((kind & ACCESS_WRITE) ? hva : buf, (kind & ACCESS_WRITE) ? buf : hva, size);
    return true;
}

/* Descriptor tables, TSS and inner stacks are reached by the emulator alone, again and again: where windows
 * are many and stay, it pays to map them. */
static void map_for_system(struct vm *vm, gva_t linear, gpa_t gpa, unsigned kind)
{
    struct shadow *shadow = vm->system_shadow != NULL ? vm->system_shadow : vm->shadow;
    uint32_t rpn = memory_rpn(&vm->memory, gpa);
    struct fault fault;

    if (vm->engine->create_shadow == NULL || vm->maps_by_itself || (kind & ACCESS_USER) || rpn == RPN_NONE ||
        (vm->vcpu.cpl == 3 && vm->system_shadow == NULL) ||
        ((kind & ACCESS_WRITE) && vm->memory.page_flags[rpn] != 0))
        return;
    (void)shadow_map(shadow, &vm->vcpu, linear, kind & (ACCESS_READ | ACCESS_WRITE), &fault);
}

/* Was this access foreseen? *is_allowed: with what result, in *walk or vcpu->fault. */
static bool take_foreseen(struct vm *vm, gva_t linear, unsigned size, unsigned kind, struct walk *walk,
                          bool *is_allowed)
{
    if (!vm->foreseen.is_there || vm->foreseen.linear != linear || vm->foreseen.kind != kind ||
        (linear & PAGE_MASK) + size > PAGE_SIZE)
        return false;
    vm->foreseen.is_there = false;
    *is_allowed = vm->foreseen.is_allowed;
    if (!*is_allowed)
        vm->vcpu.fault = vm->foreseen.fault;
    else if (!guest_walk_complete(&vm->memory, &vm->foreseen.walk, kind))
        return false;
    *walk = vm->foreseen.walk;
    return true;
}

static bool walk_bytes(struct vm *vm, gva_t linear, unsigned size, unsigned kind, struct walk walk[2],
                       unsigned *first_size)
{
    bool is_allowed;

    *first_size = size;
    if (take_foreseen(vm, linear, size, kind, walk, &is_allowed))
        return is_allowed;
    return guest_walk_bytes(&vm->memory, &vm->vcpu, linear, size, kind, walk, first_size, &vm->vcpu.fault);
}

static enum outcome walked_access(struct vm *vm, gva_t linear, void *buf, unsigned size, unsigned kind)
{
    struct walk walk[2];
    unsigned first_size;
    bool is_crossing;

    if (!walk_bytes(vm, linear, size, kind, walk, &first_size))
        return OUTCOME_FAULT;
    is_crossing = first_size < size;
    if ((kind & ACCESS_USER) && linear >= shadow_user_limit(vm->shadow))
        shadow_raise_user_limit(vm->shadow, linear);
    if (kind & ACCESS_PROBE)
        return OUTCOME_DONE;
    if (vm->holds_devices && (memory_rpn(&vm->memory, walk[0].gpa) == RPN_NONE ||
                              (is_crossing && memory_rpn(&vm->memory, walk[1].gpa) == RPN_NONE)))
        return hold_device(vm, linear, kind);
    if (memory_rpn(&vm->memory, walk[0].gpa) == RPN_NONE && !is_crossing)
        device_pages_note(&vm->device_pages, &vm->memory, linear, kind, &walk[0]);
    physical_access(vm, walk[0].gpa, buf, first_size, (kind & ACCESS_WRITE) != 0);
    if (is_crossing)
        physical_access(vm, walk[1].gpa, (uint8_t *)buf + first_size, size - first_size,
                        (kind & ACCESS_WRITE) != 0);
    map_for_system(vm, linear, walk[0].gpa, kind);
    return OUTCOME_DONE;
}

/* An access to a device whose address is known. */
static bool known_device_access(struct vm *vm, gva_t linear, void *buf, unsigned size, unsigned kind)
{
    gpa_t gpa;

    if ((kind & ~(ACCESS_READ | ACCESS_WRITE | ACCESS_USER)) || (linear & PAGE_MASK) + size > PAGE_SIZE ||
        !device_pages_find(&vm->device_pages, linear, kind, &gpa) || vm->holds_devices)
        return false;
    device_access(vm, gpa, buf, size, (kind & ACCESS_WRITE) != 0);
    return true;
}

__attribute__((noinline)) static enum outcome any_access(struct vm *vm, gva_t linear, void *buf,
                                                         unsigned size, unsigned kind)
{
    if (known_device_access(vm, linear, buf, size, kind))
        return OUTCOME_DONE;
    if (mapped_access(vm, linear, buf, size, kind))
        return OUTCOME_DONE;
    return walked_access(vm, linear, buf, size, kind);
}

/* Descriptor tables and stacks, where the kernel's space has them mapped. */
static uint8_t *machine_at_hand(struct vcpu *vcpu, gva_t linear, unsigned size, unsigned kind)
{
    const struct vm *vm = vcpu->machine;

    return (linear & PAGE_MASK) + size > PAGE_SIZE ? NULL
                                                   : shadow_fast(shadow_for(vm, kind), vcpu, linear, kind);
}

/* Most are the CPU's own. */
static enum outcome machine_memory(struct vcpu *vcpu, gva_t linear, void *buf, unsigned size, unsigned kind)
{
    struct vm *vm = vcpu->machine;

    if ((kind & ~(ACCESS_READ | ACCESS_WRITE)) == 0) {
        uint8_t *hva = machine_at_hand(vcpu, linear, size, kind);

        if (hva != NULL) {
            copy((kind & ACCESS_WRITE) ? hva : buf, (kind & ACCESS_WRITE) ? buf : hva, size);
            return OUTCOME_DONE;
        }
    }
    return any_access(vm, linear, buf, size, kind);
}

/* (Where it is not for `reach` the access follows, so A and D are set in any case.) */
static uint8_t *find_bytes(struct vcpu *vcpu, gva_t linear, unsigned kind)
{
    struct vm *vm = vcpu->machine;
    uint8_t *hva = mapped(vm, linear, kind);
    struct walk walk;
    struct fault fault;
    uint32_t rpn;

    if (hva != NULL)
        return hva;
    if (((kind & ACCESS_USER) && linear >= shadow_user_limit(vm->shadow)) ||
        !guest_walk(&vm->memory, vcpu, linear, kind, false, &walk, &fault))
        return NULL;
    rpn = memory_rpn(&vm->memory, walk.gpa);
    if (rpn == RPN_NONE || ((kind & ACCESS_WRITE) && vm->memory.page_flags[rpn] != 0))
        return NULL;
    return vm->memory.hva + ((uint64_t)rpn << PAGE_SHIFT) + (linear & PAGE_MASK);
}

static uint8_t *machine_reach(struct vcpu *vcpu, gva_t linear, unsigned kind)
{
    struct vm *vm = vcpu->machine;
    uint8_t *hva = find_bytes(vcpu, linear, kind);

    if (hva != NULL && (kind & ACCESS_WRITE))
        memory_will_fill(&vm->memory, (uint32_t)((size_t)(hva - vm->memory.hva) >> PAGE_SHIFT));
    return hva;
}

static void machine_physical_read(struct vcpu *vcpu, gpa_t gpa, void *buf, unsigned size)
{
    struct vm *vm = vcpu->machine;

    if (!memory_read(&vm->memory, gpa & ~vm->memory.closed_bits, buf, size))
        memset(buf, 0xff, size);
}

static void machine_paging_changed(struct vcpu *vcpu, uint32_t old_cr0, uint32_t old_cr3, uint32_t old_cr4)
{
    struct vm *vm = vcpu->machine;

    device_pages_forget(&vm->device_pages);
    if (vm->engine->paging_changed != NULL)
        vm->engine->paging_changed(vm->engine_state);
    else
        shadow_paging_changed(vm->shadow, vcpu, old_cr0, old_cr3, old_cr4);
}

static void machine_invlpg(struct vcpu *vcpu, gva_t linear)
{
    struct vm *vm = vcpu->machine;

    shadow_invlpg(vm->shadow, linear);
}

void machine_observe_shadow(void *opaque, enum shadow_change change, gva_t first, uint32_t n_pages)
{
    machine_note(
        opaque,
        &(struct note){.kind = NOTE_SHADOW, .change = (uint8_t)change, .address = first, .size = n_pages});
}

/* ---- ports, time, MSRs --------------------------------------------------------------------------------- */

static uint32_t machine_port_read(struct vcpu *vcpu, uint16_t port, unsigned size)
{
    struct vm *vm = vcpu->machine;
    uint32_t value = bus_read(board_bus(vm->board), BUS_PORT, port, size);

    machine_note(vm, &(struct note){.kind = NOTE_PORT_READ, .address = port, .size = size, .value = value});
    return value;
}

/* With the gate closed every second megabyte is another name of the one below it. */
void machine_follow_a20(struct vm *vm, uint16_t port)
{
    gpa_t closed_bits = board_a20_enabled(vm->board) ? 0 : MEMORY_A20;

    if (closed_bits == vm->memory.closed_bits)
        return;
    if (vm->engine->a20_changed == NULL) {
        /* No kernel above 1 MiB can mean it, and memory reached natively cannot be made to do it. */
        vm_stop(vm, STOP_IMPOSSIBLE,
                "the guest closed the A20 gate (port %#x): the %s engine has no addresses that wrap at 1 MiB",
                port, vm->engine->name);
        return;
    }
    vm->memory.closed_bits = closed_bits;
    device_pages_forget(&vm->device_pages);
    vm->engine->a20_changed(vm->engine_state);
}

static void machine_port_write(struct vcpu *vcpu, uint16_t port, unsigned size, uint32_t value)
{
    struct vm *vm = vcpu->machine;

    machine_note(vm, &(struct note){.kind = NOTE_PORT_WRITE, .address = port, .size = size, .value = value});
    bus_write(board_bus(vm->board), BUS_PORT, port, size, value);
    machine_follow_a20(vm, port);
}

static uint64_t machine_tsc(struct vcpu *vcpu)
{
    return machine_now(vcpu->machine) * TSC_HZ_PER_NS;
}

static void machine_clock_changed(struct vcpu *vcpu, uint32_t msr)
{
    struct vm *vm = vcpu->machine;

    pvclock_msr_written(&vm->pvclock, &vm->memory, vcpu, msr);
}

static void machine_apic_base_changed(struct vcpu *vcpu)
{
    struct vm *vm = vcpu->machine;

    /* Reserved bits were #GP already (vcpu/msr.c); what is left is a move. */
    if (!board_write_apic_base(vm->board, vcpu->msr.apic_base))
        vm_stop(vm, STOP_IMPOSSIBLE, "the guest moved the local APIC (IA32_APIC_BASE = %#llx): not modelled",
                (unsigned long long)vcpu->msr.apic_base);
}

static void machine_injected(struct vcpu *vcpu, enum injection_kind kind, uint8_t vector, bool has_error,
                             uint32_t error)
{
    machine_note(vcpu->machine, &(struct note){.kind = NOTE_INJECTED,
                                               .injection = (uint8_t)kind,
                                               .vector = vector,
                                               .has_error = has_error,
                                               .error = error});
}

static void machine_unknown_msr(struct vcpu *vcpu, uint32_t index, bool is_write, uint64_t value)
{
    machine_note(
        vcpu->machine,
        &(struct note){.kind = NOTE_UNKNOWN_MSR, .address = index, .flag = is_write, .value = value});
}

static void machine_stop(struct vcpu *vcpu, enum stop_reason reason, const char *format, ...)
{
    char text[sizeof((struct vm *)0)->stop_text];
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    vm_stop(vcpu->machine, reason, "%s", text);
}

const struct vcpu_ops machine_vcpu_ops = {
    .memory = machine_memory,
    .reach = machine_reach,
    .at_hand = machine_at_hand,
    .port_read = machine_port_read,
    .port_write = machine_port_write,
    .physical_read = machine_physical_read,
    .paging_changed = machine_paging_changed,
    .invlpg = machine_invlpg,
    .tsc = machine_tsc,
    .clock_changed = machine_clock_changed,
    .apic_base_changed = machine_apic_base_changed,
    .stop = machine_stop,
    .injected = machine_injected,
    .unknown_msr = machine_unknown_msr,
};

/* ---- the board's surroundings -------------------------------------------------------------------------- */

static void host_console_write(void *opaque, const void *bytes, size_t n)
{
    struct vm *vm = opaque;

    if (vm->config.console_write != NULL)
        vm->config.console_write(vm->config.console, bytes, n);
}

static void host_screen_changed(void *opaque)
{
    struct vm *vm = opaque;
    struct screen screen;

    if (vm->config.console_screen == NULL)
        return;
    board_screen(vm->board, &screen);
    vm->config.console_screen(vm->config.console, &screen);
}

static void host_reset(void *opaque, const char *why)
{
    vm_stop(opaque, STOP_RESET, "the guest reset the machine (%s)", why);
}

static void host_power_off(void *opaque)
{
    vm_stop(opaque, STOP_POWER_OFF, "the guest switched the power off");
}

static void host_debug_exit(void *opaque, uint32_t value)
{
    struct vm *vm = opaque;

    vm->stop_value = value;
    vm_stop(vm, STOP_DEBUG_EXIT, "the guest wrote %u to isa-debug-exit", value);
}

static void host_guest_write(void *opaque, uint64_t gpa, const void *bytes, size_t n)
{
    struct vm *vm = opaque;

    if (!memory_write_rom(&vm->memory, gpa, bytes, n))
        BUG("firmware table of %zu bytes at %#llx is not in memory", n, (unsigned long long)gpa);
}

static bool host_dma_read(void *opaque, uint64_t gpa, void *bytes, size_t n)
{
    struct vm *vm = opaque;

    return memory_read(&vm->memory, gpa, bytes, n);
}

static bool host_dma_write(void *opaque, uint64_t gpa, const void *bytes, size_t n)
{
    struct vm *vm = opaque;

    return memory_write(&vm->memory, gpa, bytes, n);
}

/* What was mapped there goes, in every space; shadows built from page tables that lie there could not be
 * found again by their addresses. */
static void leave_page(struct vm *vm, uint64_t gpa)
{
    uint32_t rpn = memory_rpn(&vm->memory, gpa);

    if (rpn == RPN_NONE || vm->shadow == NULL)
        return;
    if (vm->memory.page_flags[rpn] & PAGE_IS_TABLE)
        vm_stop(vm, STOP_IMPOSSIBLE,
                "the guest switches the BIOS area at %#llx to other memory while a page table of its own "
                "lies there",
                (unsigned long long)gpa);
    shadow_drop_page(vm->shadow, rpn);
}

static void host_shadow_ram(void *opaque, uint64_t gpa, uint64_t size, bool is_read, bool is_write)
{
    struct vm *vm = opaque;

    for (uint64_t page = gpa; page < gpa + size; page += PAGE_SIZE)
        leave_page(vm, page);
    memory_set_shadow_ram(&vm->memory, gpa, size,
                          (is_read ? SHADOW_RAM_READ : 0u) | (is_write ? SHADOW_RAM_WRITE : 0u));
}

struct board_host machine_board_host(struct vm *vm)
{
    return (struct board_host){.ctx = vm,
                               .console_write = host_console_write,
                               .screen_changed = host_screen_changed,
                               .reset = host_reset,
                               .power_off = host_power_off,
                               .debug_exit = host_debug_exit,
                               .guest_write = host_guest_write,
                               .dma_read = host_dma_read,
                               .dma_write = host_dma_write,
                               .shadow_ram = host_shadow_ram};
}

static void observe_unclaimed(void *opaque, enum bus_space space, uint32_t address, unsigned size,
                              bool is_write, uint32_t value)
{
    machine_note(opaque, &(struct note){.kind = NOTE_UNCLAIMED,
                                        .address = address,
                                        .size = size | (unsigned)space << 8,
                                        .flag = is_write,
                                        .value = value});
}

static void observe_line(void *opaque, const char *chip, unsigned pin, bool level)
{
    machine_note(opaque, &(struct note){.kind = NOTE_LINE, .name = chip, .address = pin, .flag = level});
}

struct board_observer machine_board_observer(struct vm *vm)
{
    return (struct board_observer){.unclaimed = observe_unclaimed, .line = observe_line, .ctx = vm};
}
