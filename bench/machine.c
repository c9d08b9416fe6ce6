/*
 * ring3's side of the rows: the image as the guest of a machine like any other, under the trap engine, in the
 * sandbox, through the complete run loop. What a kernel would have set up is put into memory beforehand: a
 * GDT, and page tables that map all memory to itself by 4 KiB entries.
 */
#include <string.h>

#include "bench/bench.h"
#include "monitor/monitor.h"
#include "signals/signals.h"
#include "vcpu/fail.h"

#define MEMORY_SIZE 0x4000000u /* 64 MiB */
#define AREA_FIRST  0x1000000u /* what the touching loops walk over */
#define GDT         0x1000u
#define DIRECTORY   0x2000u
#define TABLES      0x10000u

#define KERNEL_CODE 0x08
#define KERNEL_DATA 0x10
#define USER_CODE   0x1b
#define USER_DATA   0x23

static struct vm vm;

static void put(gpa_t gpa, const void *bytes, size_t n)
{
    if (!memory_write(&vm.memory, gpa, bytes, n))
        die("no guest memory at %#llx", (unsigned long long)gpa);
}

/* Page-table entries of [first, end): present, writable, and what `flags` says of U, A and D. */
static void put_entries(gva_t first, gva_t end, uint32_t flags)
{
    uint32_t table[PAGE_SIZE / sizeof(uint32_t)];

    for (gva_t at = first; at < end; at += (gva_t)sizeof table / sizeof table[0] * PAGE_SIZE) {
        for (uint32_t i = 0; i < sizeof table / sizeof table[0]; i++)
            table[i] = (at + i * PAGE_SIZE) | PTE_P | PTE_W | flags;
        put(TABLES + (at >> PAGE_SHIFT) * sizeof table[0], table, sizeof table);
    }
}

static void put_tables(void)
{
    static const uint64_t gdt[] = {0, 0x00cf9b000000ffff, 0x00cf93000000ffff, 0x00cffb000000ffff,
                                   0x00cff3000000ffff};

    put(GDT, gdt, sizeof gdt);
    vm.vcpu.gdtr = (struct table_register){.base = GDT, .limit = sizeof gdt - 1};
    put_entries(0, AREA_FIRST, PTE_U | PTE_A | PTE_D);
    put_entries(AREA_FIRST, MEMORY_SIZE, PTE_A | PTE_D);
    for (uint32_t i = 0; i < MEMORY_SIZE >> 22; i++) {
        uint32_t entry = (TABLES + i * PAGE_SIZE) | PTE_P | PTE_W | PTE_U | PTE_A;

        put(DIRECTORY + i * sizeof entry, &entry, sizeof entry);
    }
    vm.vcpu.cr3 = DIRECTORY;
    vm.vcpu.cr0 |= CR0_PG | CR0_WP;
}

/* Calls a function of the image, and returns what it returned. */
static uint32_t run(enum guest_entry entry, uint32_t eax, uint32_t edx, uint32_t ecx)
{
    struct vcpu *vcpu = &vm.vcpu;
    const uint8_t *finish = bench_image + ENTRY_FINISH_OUT * sizeof(uint32_t);

    memcpy(&vcpu->eip, bench_image + entry * sizeof(uint32_t), sizeof(uint32_t));
    vcpu->gpr[EAX] = eax;
    vcpu->gpr[EDX] = edx;
    vcpu->gpr[ECX] = ecx;
    vcpu->gpr[ESP] = GUEST_STACK_TOP - 4;
    put(GUEST_STACK_TOP - 4, finish, sizeof(uint32_t));
    vm.stop_reason = STOP_NONE;
    vm_run(&vm);
    if (vm.stop_reason != STOP_DEBUG_EXIT)
        die("the guest stopped at %#x: %s", vcpu->eip, vm.stop_text);
    return vcpu->gpr[EAX];
}

/* As an IRET to CPL 3 would have left it; with IOPL 3, so that the run can end by OUT. The kernel has used
 * memory of its own above the user's, as kernels do: the user's segments end below it. */
static void enter_user_mode(void)
{
    struct vcpu *vcpu = &vm.vcpu;

    run(ENTRY_READ, AREA_FIRST, 1, 0);
    for (int i = 0; i < SEG_COUNT; i++) {
        vcpu->segment[i].selector = i == SEG_CS ? USER_CODE : USER_DATA;
        vcpu->segment[i].attributes |= SEGMENT_DPL;
    }
    vcpu->cpl = 3;
    vcpu->eflags |= EFLAGS_IOPL;
}

/* No input, ever; but the run loop asks for it every 10 ms, as it does in `ring3 run`. */
static size_t read_nothing(void *console, uint8_t *bytes, size_t n, uint64_t timeout_ns)
{
    (void)console;
    (void)bytes;
    (void)n;
    (void)timeout_ns;
    return 0;
}

void machine_open(const struct side *side)
{
    const struct vm_config config = {
        .ram_size = MEMORY_SIZE, .clock = CLOCK_HOST, .use_userfaultfd = true, .console_read = read_nothing};
    char error[256];

    if (!vm_create(&vm, &config, &trap_engine, error, sizeof error))
        die("%s", error);
    put(GUEST_IMAGE, bench_image, (size_t)(bench_image_end - bench_image));
    vcpu_set_flat(&vm.vcpu, KERNEL_CODE, KERNEL_DATA, GUEST_IMAGE);
    put_tables();
    memset(vm.memory.hva + AREA_FIRST, 1,
           MEMORY_SIZE - AREA_FIRST); /* mapping it is measured, not making it */
    if (!signals_close_sandbox(error, sizeof error))
        die("%s", error);
    if (side->is_user)
        enter_user_mode();
}

/* Nothing of the area is mapped, and the image is. */
void machine_prepare(const struct side *side)
{
    if (side->entry == ENTRY_READ || side->entry == ENTRY_WRITE) {
        shadow_drop_all(vm.shadow);
        put_entries(AREA_FIRST, MEMORY_SIZE, side->accessed_dirty);
    }
    run(ENTRY_CLI, 1, 0, 0);
}

uint32_t machine_round(const struct side *side)
{
    if (side->entry != ENTRY_READ && side->entry != ENTRY_WRITE)
        return run(side->entry, side->argument, 0, 0);
    run(side->entry, AREA_FIRST, side->n, side->stride * PAGE_SIZE);
    return 0; /* it computes nothing */
}
