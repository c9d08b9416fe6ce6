/*
 * Spaces: one window for each address space and privilege view that the guest uses, so that a CR3 write or a
 * change of privilege is a change of window and nothing else. The windows are 4 GiB each, 8 GiB apart; what
 * lies between them catches addresses that run over (memory.c). Spaces are made as they are needed, and the
 * one used longest ago is taken when there are no more.
 *
 * The kernel's part of all address spaces is usually one and the same, and so is its space then: it follows
 * CR3, which costs nothing for what is the same. The user's pages are not mapped there but in the spaces of
 * the user's view; the kernel's instructions that reach for them choose their window by the address
 * (adapt.c).
 *
 * Each space has jump tables: where indirect jumps go, by EIP. An entry holds as long as its page is mapped
 * in the space.
 *
 * Read next: find.c.
 */
#include <asm/prctl.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "monitor/machine.h"
#include "translate/translator.h"
#include "vcpu/fail.h"

#define WINDOW_SIZE   (UINT64_C(4) << 30)
#define WINDOW_STRIDE (2 * WINDOW_SIZE)
#define PAGES         (1u << 20)

#define HWCAP2_FSGSBASE_BIT 2

#define TABLE_SIZE (sizeof(uint32_t[2]) * TABLE_SLOTS)

/* A write to a page table is a call, once the instruction that does it is known. */
#define FLOOD_WRITES 1024u

#define KEY_CR0 (CR0_PG | CR0_WP)
#define KEY_CR4 (CR4_PSE | CR4_PAE | CR4_PGE)

/* ---- memory -------------------------------------------------------------------------------------------- */

/* Below where Linux places what a process maps without saying where: it goes from the top downwards, or, with
 * an unlimited stack, from a third of the address space (2aaaaaaaa000) upwards (Documentation/x86/x86_64/mm;
 * arch/x86/mm/mmap.c). And above the sanitizers' shadow memory. */
#define FREE_FIRST UINT64_C(0x200000000000)
#define FREE_END   UINT64_C(0x280000000000)

/* Where nobody else maps anything, windows are cheaper: what is unmapped need not be reserved. A page at the
 * beginning stays, so that another machine of this process looks elsewhere. NULL: there is no such place. */
static void *find_free(size_t size)
{
    const int how = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    char *usual = mmap(NULL, PAGE_SIZE, PROT_NONE, how, -1, 0);
    bool is_usual = usual != MAP_FAILED && (uintptr_t)usual >= FREE_END;

    if (usual != MAP_FAILED)
        munmap(usual, PAGE_SIZE);
    for (uintptr_t at = FREE_FIRST; is_usual && at + size <= FREE_END; at += size) {
        char *first = mmap((void *)at, size, PROT_NONE, how | MAP_FIXED_NOREPLACE, -1, 0);

        if (first == (void *)at && munmap(first + PAGE_SIZE, size - PAGE_SIZE) == 0)
            return first;
        if (first != MAP_FAILED) /* kernels before 4.17 take the address for a hint */
            munmap(first, size);
    }
    return NULL;
}

static uintptr_t gs_base; /* as it was set last; 0: not by us */

bool spaces_reserve(struct translator *translator, char *error, size_t error_size)
{
    size_t size = (SHADOW_MAX_SPACES + 1) * WINDOW_STRIDE;
    void *reservation = find_free(size);

    gs_base = 0; /* another engine may have run in this process */
    translator->is_open = reservation != NULL;
    if (reservation == NULL)
        reservation = mmap(NULL, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (reservation == MAP_FAILED) {
        snprintf(error, error_size,
                 "cannot reserve %zu GiB of addresses: %s (is there a limit on address space? `ulimit -v`)",
                 size >> 30, strerror(errno));
        return false;
    }
    translator->reservation = reservation;
    translator->reservation_size = size;
    for (unsigned i = 0; i < SHADOW_MAX_SPACES; i++) {
        uintptr_t first = ((uintptr_t)reservation + WINDOW_SIZE / 2 + WINDOW_SIZE - 1) & ~(WINDOW_SIZE - 1);

        translator->spaces[i].translator = translator;
        translator->spaces[i].window = first + i * WINDOW_STRIDE;
    }
    return true;
}

void spaces_release(struct translator *translator)
{
    for (unsigned i = 0; i < SHADOW_MAX_SPACES; i++) {
        struct space *space = &translator->spaces[i];

        shadow_destroy(space->shadow); /* it tells of what it drops, until it is gone */
        for (unsigned j = 0; j < TABLES_PER_SPACE; j++)
            if (space->tables[j].slots != NULL)
                munmap(space->tables[j].slots, TABLE_SIZE);
        if (space->has_code != NULL)
            munmap(space->has_code, PAGES / 8);
    }
    if (translator->reservation != NULL)
        munmap(translator->reservation, translator->reservation_size);
}

static void *reserve(size_t size)
{
    void *memory =
        mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    if (memory == MAP_FAILED)
        die("cannot make a jump table: %s", strerror(errno));
    return memory;
}

/* ---- jump tables --------------------------------------------------------------------------------------- */

static void clear(void *memory, size_t size)
{
    if (madvise(memory, size, MADV_DONTNEED) != 0)
        memset(memory, 0, size);
}

const uint32_t *spaces_table(struct translator *translator)
{
    struct space *space = translator->space;
    struct jump_table *oldest = &space->tables[0];

    for (unsigned i = 0; i < TABLES_PER_SPACE; i++) {
        struct jump_table *table = &space->tables[i];

        if (table->slots != NULL && table->mode == translator->mode) {
            table->used_at = ++translator->uses;
            return table->slots;
        }
        if (table->slots == NULL || table->used_at < oldest->used_at)
            oldest = table;
        if (table->slots == NULL)
            break;
    }
    if (oldest->slots == NULL) {
        oldest->slots = reserve(TABLE_SIZE);
    } else {
        clear(oldest->slots, TABLE_SIZE);
        switch_forget(translator); /* a side may have it */
    }
    oldest->mode = translator->mode;
    oldest->used_at = ++translator->uses;
    return oldest->slots;
}

static void note_page(struct space *space, gva_t linear)
{
    uint32_t page = linear >> PAGE_SHIFT;

    if (space->has_code == NULL)
        space->has_code = reserve(PAGES / 8);
    space->has_code[page / 8] |= (uint8_t)(1u << page % 8);
}

void spaces_note_target(struct translator *translator, uint32_t eip, const struct block *block)
{
    uint32_t *slots = (uint32_t *)(uintptr_t)translator->context->table;
    gva_t linear = translator->vm->vcpu.segment[SEG_CS].base + eip;

    uint32_t entry = block->code + block->entry;

    /* Which part had no entry is not known. If it was not the one for direct jumps, it was the other. */
    if (slots[direct_slot(eip)] != entry)
        slots[direct_slot(eip)] = entry;
    else
        slots[eip & (TABLE_SLOTS - 1)] = entry;
    note_page(translator->space, linear);
    if (block->second_rpn != 0)
        note_page(translator->space, linear + PAGE_SIZE);
}

/* The entries of one page, and of instructions that cross into it. With a code segment that has a base,
 * linear addresses and EIPs differ: then all go. */
static void forget_page(struct space *space, uint32_t page)
{
    uint32_t first = (page << PAGE_SHIFT) - INSN_MAX_LENGTH;

    for (unsigned i = 0; i < TABLES_PER_SPACE; i++) {
        struct jump_table *table = &space->tables[i];

        if (table->slots == NULL)
            continue;
        if ((table->mode & MODE_FLAT_CS) == 0) {
            clear(table->slots, TABLE_SIZE);
            continue;
        }
        for (uint32_t n = 0; n < INSN_MAX_LENGTH; n++) {
            table->slots[(first + n) & (TABLE_SLOTS - 1)] = 0;
            table->slots[direct_slot(first + n)] = 0;
        }
        memset(&table->slots[(page << PAGE_SHIFT) & (TABLE_SLOTS - 1)], 0,
               PAGE_SIZE * sizeof table->slots[0]);
        for (uint32_t n = 0; n < 16; n++) /* each 16th one is next to the other */
            memset(&table->slots[direct_slot((page << PAGE_SHIFT) + n)], 0,
                   PAGE_SIZE / 16 * sizeof table->slots[0]);
    }
}

static void pages_dropped(void *opaque, struct shadow *shadow, gva_t first, uint32_t n_pages)
{
    struct space *space = opaque;
    uint32_t page = first >> PAGE_SHIFT;

    (void)shadow;
    if (space->has_code == NULL)
        return;
    for (; n_pages > 0; n_pages--, page++) {
        uint8_t *byte = &space->has_code[page / 8];

        if (*byte == 0 && page % 8 == 0 && n_pages >= 8) {
            page += 7;
            n_pages -= 7;
            continue;
        }
        if (!(*byte & 1u << page % 8))
            continue;
        *byte &= (uint8_t) ~(1u << page % 8);
        forget_page(space, page);
        if (space == space->translator->space)
            space->translator->is_code_dropped = true;
    }
}

static void forget_space(struct space *space)
{
    for (unsigned i = 0; i < TABLES_PER_SPACE; i++)
        if (space->tables[i].slots != NULL)
            clear(space->tables[i].slots, TABLE_SIZE);
    if (space->has_code != NULL)
        clear(space->has_code, PAGES / 8);
}

void spaces_forget_targets(struct translator *translator)
{
    for (unsigned i = 0; i < SHADOW_MAX_SPACES; i++)
        forget_space(&translator->spaces[i]);
}

/* ---- which space --------------------------------------------------------------------------------------- */

static struct space_key key_of(const struct vcpu *vcpu)
{
    struct space_key key = {.is_user = vcpu->cpl == 3, .is_paged = (vcpu->cr0 & CR0_PG) != 0};

    if (!key.is_paged)
        return key;
    key.cr0 = vcpu->cr0 & KEY_CR0;
    key.cr3 = vcpu->cr3;
    key.cr4 = vcpu->cr4 & KEY_CR4;
    return key;
}

static bool is_same_key(const struct space_key *a, const struct space_key *b)
{
    return a->cr0 == b->cr0 && a->cr3 == b->cr3 && a->cr4 == b->cr4 && a->is_user == b->is_user &&
           a->is_paged == b->is_paged;
}

static struct shadow *create_shadow(struct translator *translator, struct space *space)
{
    struct vm *vm = translator->vm;
    struct shadow_config config = {
        .memory = &vm->memory,
        .window = {.base = space->window, .hole_first = 1, .hole_last = 0, .is_open = translator->is_open},
        .flood_writes = FLOOD_WRITES,
        .accessed_by_access = vm_is_counted(vm), /* two runs are the same */
        .use_userfaultfd = vm->config.use_userfaultfd,
        .check_invariant = vm->config.check_invariant,
        .has_own_view = !space->key.is_user,
        .is_user_only = space->key.is_user,
        .observe = machine_observe_shadow,
        .observe_ctx = vm,
        .dropped = pages_dropped,
        .dropped_ctx = space};
    char error[256];
    struct shadow *shadow = shadow_create(&config, error, sizeof error);

    if (shadow == NULL)
        die("%s", error);
    return shadow;
}

static struct space *spaces_of_view(struct translator *translator, bool is_user)
{
    return &translator->spaces[is_user ? SHADOW_MAX_SPACES / 2 : 0];
}

/* A space is of one view for ever, since views differ in what is mapped: half of them are the kernel's. */
static struct space *find_space(struct translator *translator, const struct space_key *key)
{
    struct space *first = spaces_of_view(translator, key->is_user), *oldest = first;

    for (struct space *space = first; space < first + SHADOW_MAX_SPACES / 2; space++) {
        if (space->shadow == NULL) {
            space->key = *key;
            space->shadow = create_shadow(translator, space);
            return space;
        }
        if (is_same_key(&space->key, key))
            return space;
        if (space->used_at < oldest->used_at)
            oldest = space;
    }
    forget_space(oldest);
    oldest->key = *key;
    return oldest;
}

/* The kernel's part of the tables is usually the same in all address spaces: then one space serves, and what
 * the kernel has mapped stays. Where it differs each address space has its own. */
static struct space *find_kernel(struct translator *translator, const struct space_key *key)
{
    struct space *kernel = translator->kernel;

    if (kernel != NULL && key->is_paged && kernel->key.is_paged && kernel->key.cr0 == key->cr0 &&
        kernel->key.cr4 == key->cr4 && shadow_count_foreign(kernel->shadow, &translator->vm->vcpu) == 0) {
        kernel->key = *key;
        return kernel;
    }
    return find_space(translator, key);
}

/* ---- the current one ----------------------------------------------------------------------------------- */

/* GS base is the user's window: only ring 3's code reaches for memory by it (memory.c), and the monitor has
 * no use for it. */
static void set_gs_base(uintptr_t base)
{
    static bool is_asked, has_fsgsbase;

    if (base == gs_base)
        return;
    gs_base = base;
    if (!is_asked)
        has_fsgsbase = (getauxval(AT_HWCAP2) & HWCAP2_FSGSBASE_BIT) != 0;
    is_asked = true;
    if (has_fsgsbase)
        __asm__ volatile("wrgsbase %0" : : "r"(base));
    else
        syscall(SYS_arch_prctl, ARCH_SET_GS, base);
}

/* Instructions that choose: the user's part may be anywhere, as far as it has been found. */
static void fill_windows(struct translator *translator)
{
    uintptr_t kernel = translator->kernel->window;
    uintptr_t user = translator->user != NULL ? translator->user->window : kernel;

    for (unsigned i = 0; i < 256; i++)
        translator->context->windows[i] = translator->is_user_part[i] ? user : kernel;
}

void spaces_add_user_part(struct translator *translator, gva_t address)
{
    translator->is_user_part[address >> 24] = 1;
    (void)spaces_user(translator);
    fill_windows(translator);
}

static void follow_registers(struct space *space, const struct vcpu *vcpu)
{
    shadow_paging_changed(space->shadow, vcpu, vcpu->cr0, vcpu->cr3, vcpu->cr4);
}

/* The user's space of the current address space. */
struct space *spaces_user(struct translator *translator)
{
    const struct vcpu *vcpu = &translator->vm->vcpu;
    struct space_key key = key_of(vcpu);

    if (translator->user != NULL)
        return translator->user;
    key.is_user = true;
    translator->user = find_space(translator, &key);
    follow_registers(translator->user, vcpu);
    translator->user->used_at = ++translator->uses;
    translator->vm->user_shadow = translator->user->shadow;
    fill_windows(translator);
    return translator->user;
}

void spaces_enter(struct translator *translator, struct space *space)
{
    struct vm *vm = translator->vm;

    translator->space = space;
    space->used_at = ++translator->uses;
    vm->shadow = space->shadow;
    shadow_note_use(vm->shadow);
    translator->context->window = space->window;
    if (space->key.is_user) {
        vm->has_run_user = true;
        set_gs_base(space->window);
    }
    /* the emulator reaches for descriptor tables and stacks with the supervisor's rights while the user runs
     */
    vm->system_shadow = space->key.is_user ? translator->kernel->shadow : NULL;
}

/* The user's space of an address space that was here before is kept ready; a new one is made when it is
 * needed. */
static void select_anew(struct translator *translator)
{
    const struct vcpu *vcpu = &translator->vm->vcpu;
    struct space_key key = key_of(vcpu);
    struct space *first = spaces_of_view(translator, true);

    key.is_user = false;
    translator->kernel = find_kernel(translator, &key);
    follow_registers(translator->kernel, vcpu);
    key.is_user = true;
    translator->user = NULL;
    translator->vm->user_shadow = NULL;
    for (struct space *space = first; space < first + SHADOW_MAX_SPACES / 2 && space->shadow != NULL; space++)
        if (is_same_key(&space->key, &key)) {
            (void)spaces_user(translator);
            break;
        }
    fill_windows(translator);
    translator->space = NULL;
}

void spaces_select(struct translator *translator)
{
    struct vm *vm = translator->vm;
    struct space *space;

    if (translator->has_new_paging) {
        translator->has_new_paging = false;
        select_anew(translator);
    }
    space = vm->vcpu.cpl == 3 ? spaces_user(translator) : translator->kernel;
    if (translator->space == NULL || space != translator->space || vm->shadow != space->shadow)
        spaces_enter(translator, space);
}
