/*
 * A machine for the tests of shadowpt: guest memory, a vcpu with nothing but its paging registers, a window
 * and the shadow in it, and a "guest" that touches memory through the window with the host's own loads and
 * stores: what faults goes to shadow_fault as an engine would send it, and what must be emulated is done as
 * an emulator would.
 *
 * More spaces can be added over the same memory, each with its own window; one at a time is in use.
 */
#ifndef RING3_TESTS_SHADOW_WORLD_H
#define RING3_TESTS_SHADOW_WORLD_H

#include <check.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "shadowpt/shadowpt.h"

#define WORLD_WINDOW_SIZE (UINT64_C(1) << 32)
#define WORLD_SPACES      64

struct world_space {
    struct shadow *shadow;
    struct shadow_config config;
    uint32_t cr0, cr3, cr4; /* of the vcpu when it was left */
    uint64_t efer, pdpte[4];
    uint8_t cpl;
};

struct world {
    struct guest_memory memory;
    struct vcpu vcpu;
    /* the space in use */
    struct shadow *shadow;
    struct shadow_config config;
    struct world_space space[WORLD_SPACES]; /* all of them */
    unsigned n_spaces, current;
    unsigned n_faults, n_emulated; /* on the way of the last access */
};

/* ---- touching memory that may fault -------------------------------------------------------------------- */

static sigjmp_buf world_landing;
static volatile sig_atomic_t world_is_touching;

static void world_on_fault(int signal_number)
{
    if (!world_is_touching) {
        signal(signal_number, SIG_DFL);
        return;
    }
    siglongjmp(world_landing, 1);
}

static inline void world_catch_faults(void)
{
    struct sigaction action = {.sa_handler = world_on_fault, .sa_flags = SA_NODEFER};

    sigaction(SIGSEGV, &action, NULL);
    sigaction(SIGBUS, &action, NULL);
}

/* One 4-byte access of the host. false: it faulted. */
static inline bool world_touch(void *where, bool is_write, uint32_t *value)
{
    volatile uint32_t *word = where;

    if (sigsetjmp(world_landing, 0) != 0) {
        world_is_touching = 0;
        return false;
    }
    world_is_touching = 1;
    if (is_write)
        *word = *value;
    else
        *value = *word;
    world_is_touching = 0;
    return true;
}

/* ---- making it ----------------------------------------------------------------------------------------- */

static inline uintptr_t world_reserve_window(void)
{
    void *window =
        mmap(NULL, WORLD_WINDOW_SIZE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    ck_assert_ptr_ne(window, MAP_FAILED);
    return (uintptr_t)window;
}

static inline void world_open(struct world *world, uint64_t ram_size, uint64_t rom_size, uint32_t bias,
                              bool use_userfaultfd, unsigned max_runs)
{
    char error[200] = "";

    memset(world, 0, sizeof *world);
    world->n_spaces = 1;
    ck_assert_msg(memory_create(&world->memory, ram_size, rom_size, error, sizeof error), "%s", error);
    world->config = (struct shadow_config){
        .memory = &world->memory,
        .window = {.base = world_reserve_window(), .bias = bias, .hole_first = 1, .hole_last = 0},
        .max_runs = max_runs,
        .use_userfaultfd = use_userfaultfd,
        .check_invariant = true,
    };
    if (bias != 0) { /* the hole of a process that may not map low addresses: the window's first 64 KiB */
        world->config.window.hole_first = -bias;
        world->config.window.hole_last = -bias + 0xffff;
    }
    world->shadow = shadow_create(&world->config, error, sizeof error);
    ck_assert_msg(world->shadow != NULL, "%s", error);
    world->vcpu.cr0 = CR0_PE | CR0_ET;
    world_catch_faults();
}

/* Puts the space in use away, as it is, and takes another, with the registers it was left with. */
static inline void world_use(struct world *world, unsigned index)
{
    struct world_space *next = &world->space[index];

    world->space[world->current] = (struct world_space){.shadow = world->shadow,
                                                        .config = world->config,
                                                        .cr0 = world->vcpu.cr0,
                                                        .cr3 = world->vcpu.cr3,
                                                        .cr4 = world->vcpu.cr4,
                                                        .efer = world->vcpu.msr.efer,
                                                        .cpl = world->vcpu.cpl};
    memcpy(world->space[world->current].pdpte, world->vcpu.pdpte, sizeof world->vcpu.pdpte);
    world->current = index;
    world->shadow = next->shadow;
    world->config = next->config;
    world->vcpu.cr0 = next->cr0;
    world->vcpu.cr3 = next->cr3;
    world->vcpu.cr4 = next->cr4;
    world->vcpu.msr.efer = next->efer;
    memcpy(world->vcpu.pdpte, next->pdpte, sizeof world->vcpu.pdpte);
    world->vcpu.cpl = next->cpl;
}

/* A space like the one in use, with the same registers, in a window of its own without a hole. */
static inline unsigned world_add_space(struct world *world, bool has_own_view, bool is_user_only)
{
    struct world_space *added = &world->space[world->n_spaces];
    char error[200] = "";

    added->config = world->config;
    added->config.window =
        (struct shadow_window){.base = world_reserve_window(), .hole_first = 1, .hole_last = 0};
    added->config.has_own_view = has_own_view;
    added->config.is_user_only = is_user_only;
    added->shadow = shadow_create(&added->config, error, sizeof error);
    ck_assert_msg(added->shadow != NULL, "%s", error);
    added->cr0 = world->vcpu.cr0;
    added->cr3 = world->vcpu.cr3;
    added->cr4 = world->vcpu.cr4;
    added->efer = world->vcpu.msr.efer;
    memcpy(added->pdpte, world->vcpu.pdpte, sizeof added->pdpte);
    added->cpl = is_user_only ? 3 : has_own_view ? 0 : world->vcpu.cpl;
    return world->n_spaces++;
}

static inline void world_close(struct world *world)
{
    world_use(world, 0);
    for (unsigned i = 0; i < world->n_spaces; i++) {
        shadow_destroy(i == 0 ? world->shadow : world->space[i].shadow);
        munmap((void *)world->space[i].config.window.base, WORLD_WINDOW_SIZE);
    }
    memory_destroy(&world->memory);
}

static inline void *world_pointer(const struct world *world, gva_t gva)
{
    return (void *)(world->config.window.base + (uint32_t)(gva + world->config.window.bias));
}

static inline uint32_t *world_ram(const struct world *world, gpa_t gpa)
{
    return (uint32_t *)(void *)(world->memory.hva + gpa);
}

static inline void world_set_registers(struct world *world, uint32_t cr0, uint32_t cr3, uint32_t cr4)
{
    uint32_t old_cr0 = world->vcpu.cr0, old_cr3 = world->vcpu.cr3, old_cr4 = world->vcpu.cr4;

    world->vcpu.cr0 = cr0;
    world->vcpu.cr3 = cr3;
    world->vcpu.cr4 = cr4;
    shadow_paging_changed(world->shadow, &world->vcpu, old_cr0, old_cr3, old_cr4);
}

static inline void world_set_cpl(struct world *world, unsigned cpl)
{
    world->vcpu.cpl = (uint8_t)cpl;
    shadow_set_view(world->shadow, &world->vcpu, cpl == 3);
}

/* ---- the guest ----------------------------------------------------------------------------------------- */

/* As an emulator: through the guest's tables and the door. What is no memory reads as ones and forgets
 * writes. */
static inline bool world_emulate(struct world *world, gva_t gva, bool is_write, uint32_t *value,
                                 struct fault *fault)
{
    unsigned kind = (is_write ? ACCESS_WRITE : ACCESS_READ) | (world->vcpu.cpl == 3 ? ACCESS_USER : 0);
    struct walk walk;

    world->n_emulated++;
    if (!guest_walk(&world->memory, &world->vcpu, gva, kind, false, &walk, fault))
        return false;
    if (is_write)
        (void)memory_write(&world->memory, walk.gpa, value, sizeof *value);
    else if (!memory_read(&world->memory, walk.gpa, value, sizeof *value))
        *value = UINT32_MAX;
    return true;
}

/* The guest reads or writes the aligned word at gva. false: it got a #PF. */
static inline bool world_access(struct world *world, gva_t gva, bool is_write, uint32_t *value,
                                struct fault *fault)
{
    world->n_faults = 0;
    world->n_emulated = 0;
    for (unsigned tries = 0; tries < 8; tries++) {
        if (world_touch(world_pointer(world, gva), is_write, value))
            return true;
        world->n_faults++;
        switch (shadow_fault(world->shadow, &world->vcpu, gva, is_write ? PF_WRITE : 0, fault)) {
        case SHADOW_FILLED:
            break;
        case SHADOW_GUEST:
            return false;
        case SHADOW_EMULATE:
        case SHADOW_HOLE:
            return world_emulate(world, gva, is_write, value, fault);
        }
    }
    ck_abort_msg("%08x: faults again and again", gva);
}

static inline void world_check(struct world *world, bool everything)
{
    char error[200] = "";

    ck_assert_msg(shadow_check(world->shadow, &world->vcpu, everything, error, sizeof error), "%s", error);
}

static inline bool world_read(struct world *world, gva_t gva, uint32_t *value)
{
    struct fault fault;

    return world_access(world, gva, false, value, &fault);
}

static inline bool world_write(struct world *world, gva_t gva, uint32_t value)
{
    struct fault fault;

    return world_access(world, gva, true, &value, &fault);
}

#endif
