/*
 * A machine on an engine that runs nothing: it hands over the exits that a test made up. No signal, no native
 * code; the machine around it is the real one.
 *
 *     exit_world_open(&(struct vm_config){.ram_size = RAM_SIZE, ...});
 *     put_code(code, sizeof code);
 *     vm_handle_exit(&vm, &exit);      // or: fake.exit = ...; vm_run_once(&vm)
 *     exit_world_close();
 */
#ifndef RING3_TESTS_EXIT_WORLD_H
#define RING3_TESTS_EXIT_WORLD_H

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "monitor/exit.h"
#include "monitor/machine.h"

#define RAM_SIZE   (16u << 20)
#define GDT_GPA    0x1000u
#define IDT_GPA    0x2000u
#define TSS_GPA    0x3000u
#define TABLES_GPA 0x4000u /* a page directory, 4 MiB pages */
#define CODE_GPA   0x10000u
#define STACK_GPA  0x20000u
/* Handler n is at HANDLERS + n. */
#define HANDLERS 0x30000u

#define SEL_CODE   0x08
#define SEL_DATA   0x10
#define SEL_ABSENT 0x18
#define SEL_SMALL  0x20 /* data of one page */
#define SEL_TSS    0x28
#define GDT_LIMIT  0x2f

#define WINDOW_SIZE (UINT64_C(1) << 32)
#define UNMAPPED    0x00c00000u /* RAM, but no page of the guest's */

static struct vm vm;

/* ---- the engine ---------------------------------------------------------------------------------------- */

static struct {
    struct vm_exit exit;  /* what run() hands over */
    void (*guest)(void);  /* before that, what the guest does to vm.vcpu, or time to it; may be NULL */
    bool was_single_step; /* run() was asked for one instruction */
    uint64_t now, armed;  /* host ns */
    unsigned n_runs;
    void *window;
} fake;

static void *fake_create(struct vm *unused, char *error, size_t error_size)
{
    (void)unused, (void)error, (void)error_size;
    return &fake;
}

static void fake_destroy(void *state)
{
    (void)state;
}

static struct shadow_window fake_window(void *state)
{
    (void)state;
    fake.window = mmap(NULL, WINDOW_SIZE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    ck_assert_ptr_ne(fake.window, MAP_FAILED);
    return (struct shadow_window){.base = (uintptr_t)fake.window, .hole_first = 1, .hole_last = 0};
}

static void fake_run(void *state, struct vm_exit *exit)
{
    (void)state;
    fake.n_runs++;
    fake.was_single_step = vm.single_step;
    if (fake.guest != NULL)
        fake.guest();
    *exit = fake.exit;
}

static uint64_t fake_host_ns(void)
{
    return fake.now;
}

static void fake_arm(void *state, uint64_t host_ns)
{
    (void)state;
    fake.armed = host_ns;
}

static const struct engine fake_engine = {.name = "fake",
                                          .create = fake_create,
                                          .destroy = fake_destroy,
                                          .window = fake_window,
                                          .run = fake_run,
                                          .host_ns = fake_host_ns,
                                          .arm = fake_arm};

/* ---- the machine --------------------------------------------------------------------------------------- */

static inline void put(gpa_t gpa, const void *bytes, size_t n)
{
    ck_assert(memory_write(&vm.memory, gpa, bytes, n));
}

static inline uint32_t get32(gpa_t gpa)
{
    uint32_t value = 0;

    ck_assert(memory_read(&vm.memory, gpa, &value, sizeof value));
    return value;
}

static inline void put_descriptor(unsigned selector, uint32_t base, uint32_t limit, unsigned access,
                                  unsigned flags)
{
    uint64_t descriptor = (limit & 0xffff) | (uint64_t)(base & 0xffffff) << 16 | (uint64_t)access << 40 |
                          (uint64_t)(limit >> 16 & 0xf) << 48 | (uint64_t)flags << 52 |
                          (uint64_t)(base >> 24) << 56;

    put(GDT_GPA + selector, &descriptor, sizeof descriptor);
}

/* A kernel with segments, an IDT of interrupt gates, a TSS, and paging over all but the last 4 MiB of RAM. */
static inline void exit_world_open_on(const struct engine *engine, const struct vm_config *config)
{
    char error[256] = "";

    memset(&fake, 0, sizeof fake);
    fake.now = 1000000;
    ck_assert_msg(vm_create(&vm, config, engine, error, sizeof error), "%s", error);
    put_descriptor(SEL_CODE, 0, 0xfffff, 0x9b, 0xc);
    put_descriptor(SEL_DATA, 0, 0xfffff, 0x93, 0xc);
    put_descriptor(SEL_ABSENT, 0, 0xfffff, 0x13, 0xc);
    put_descriptor(SEL_SMALL, 0, 0xfff, 0x93, 0x4);
    put_descriptor(SEL_TSS, TSS_GPA, 0x67, 0x8b, 0);
    for (unsigned vector = 0; vector < 256; vector++) {
        uint64_t gate = ((HANDLERS + vector) & 0xffff) | (uint64_t)SEL_CODE << 16 | UINT64_C(0x8e) << 40 |
                        (uint64_t)((HANDLERS + vector) >> 16) << 48;

        put(IDT_GPA + 8 * vector, &gate, sizeof gate);
    }
    for (uint32_t i = 0; i < 3; i++) {
        uint32_t gpde = i << 22 | PTE_P | PTE_W | PTE_PS;

        put(TABLES_GPA + 4 * i, &gpde, sizeof gpde);
    }
    vcpu_set_flat(&vm.vcpu, SEL_CODE, SEL_DATA, CODE_GPA);
    vm.vcpu.gdtr = (struct table_register){.base = GDT_GPA, .limit = GDT_LIMIT};
    vm.vcpu.idtr = (struct table_register){.base = IDT_GPA, .limit = 0x7ff};
    vm.vcpu.tr = (struct segment){
        .selector = SEL_TSS, .base = TSS_GPA, .limit = 0x67, .attributes = SEGMENT_P | SYSTEM_TSS32_BUSY};
    vm.vcpu.segment[SEG_FS] = (struct segment){0};
    vm.vcpu.gpr[ESP] = STACK_GPA;
    vm.vcpu.gpr[EDX] = 0;
    vm.vcpu.cr3 = TABLES_GPA;
    vm.vcpu.cr4 |= CR4_PSE;
    vm.vcpu.cr0 |= CR0_PG | CR0_NE;
    machine_vcpu_ops.paging_changed(&vm.vcpu, vm.vcpu.cr0 & ~CR0_PG, 0, 0);
}

static inline void exit_world_open(const struct vm_config *config)
{
    exit_world_open_on(&fake_engine, config);
}

static inline void exit_world_close(void)
{
    vm_destroy(&vm);
    if (fake.window != NULL)
        munmap(fake.window, WINDOW_SIZE);
}

static inline void put_code(const uint8_t *code, size_t n)
{
    put(CODE_GPA, code, n);
    vm.vcpu.eip = CODE_GPA;
}

#endif
