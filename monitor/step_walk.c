/*
 * The way from a linear address to memory, twice: through the guest's page tables as the CPU would walk them,
 * and through what the shadow has mapped in their stead. Read next: shadowpt/walk.c, shadowpt/space.h.
 */
#include "monitor/step_print.h"

#include <string.h>

#define ENTRY_FRAME UINT64_C(0xffffff000)

struct bit {
    uint64_t mask;
    const char *set, *clear;
};

static const struct bit entry_bits[] = {
    {PTE_W, "writable", "read-only"}, {PTE_U, "user", "supervisor"}, {PTE_A, "accessed", "not accessed"},
    {PTE_D, "dirty", NULL},           {PTE_PWT, "PWT", NULL},        {PTE_PCD, "PCD", NULL},
    {PTE_NX, "no-execute", NULL},
};

static void print_bits(const struct vcpu *vcpu, uint64_t entry, bool is_leaf, FILE *out)
{
    for (size_t i = 0; i < sizeof entry_bits / sizeof entry_bits[0]; i++) {
        const struct bit *bit = &entry_bits[i];
        const char *text = (entry & bit->mask) != 0 ? bit->set : bit->clear;

        if (text != NULL && (bit->mask != PTE_D || is_leaf))
            fprintf(out, " %s", text);
    }
    if (is_leaf && (entry & PTE_G) != 0)
        fputs(vcpu->cr4 & CR4_PGE ? " global" : " (global, but CR4.PGE is 0)", out);
}

static void print_level(const struct vcpu *vcpu, const struct walk_level *level, bool is_leaf, bool is_large,
                        FILE *out)
{
    bool is_pae = (vcpu->cr4 & CR4_PAE) != 0;
    unsigned entry_size = is_pae ? 8 : 4;
    unsigned index = level->is_register ? (unsigned)(level->address / entry_size) % 4
                                        : (unsigned)(level->address & PAGE_MASK) / entry_size;
    unsigned long long entry = level->entry;

    if (level->is_register)
        fprintf(out, "  %s %2u, a register = %016llx ", level->name, index, entry);
    else
        fprintf(out, "  %s %4u at %08llx = %0*llx ", level->name, index, (unsigned long long)level->address,
                (int)entry_size * 2, entry);
    if ((entry & PTE_P) == 0) {
        fputs(" not present\n", out);
        return;
    }
    if (!level->is_register)
        print_bits(vcpu, entry, is_leaf, out);
    if (is_large)
        fprintf(out, " -> %u MiB page %08llx\n", is_pae ? 2 : 4,
                entry & ENTRY_FRAME & (is_pae ? ~0x1fffffull : ~0x3fffffull));
    else
        fprintf(out, " -> %s %08llx\n",
                is_leaf              ? "page"
                : level->is_register ? "directory"
                                     : "table",
                entry & ENTRY_FRAME);
}

static void print_refusal(const struct fault *fault, FILE *out)
{
    fprintf(out, "  guest    an access is the guest's own #PF: %s\n",
            (fault->error & PF_RESERVED) ? "a reserved bit is set" : "not present");
}

static const char *page_kind(const struct vm *vm, uint32_t rpn)
{
    if (rpn == RPN_NONE)
        return "no memory: a device, or nothing";
    if (vm->memory.page_flags[rpn] & PAGE_IS_ROM)
        return "ROM";
    if (vm->memory.page_flags[rpn] & PAGE_IS_TABLE)
        return "RAM that holds page tables";
    return "RAM";
}

static void print_result(const struct vm *vm, const struct walk *walk, uint32_t rpn, FILE *out)
{
    bool kernel_writes = walk->write || (vm->vcpu.cr0 & CR0_WP) == 0;

    fprintf(out, "  guest    physical %08llx (%s); kernel %s, user %s%s\n", (unsigned long long)walk->gpa,
            page_kind(vm, rpn), kernel_writes ? "reads and writes" : "reads",
            !walk->user   ? "nothing"
            : walk->write ? "reads and writes"
                          : "reads",
            walk->execute ? "" : ", nobody executes");
}

/* Why a write that the guest's tables allow is caught. */
static const char *write_obstacle(const struct vm *vm, const struct walk *walk, uint32_t rpn)
{
    uint8_t flags = vm->memory.page_flags[rpn];

    if (flags & PAGE_IS_ROM)
        return "a write traps: it is ROM";
    if (flags & PAGE_IS_TABLE)
        return "a write traps: the shadow must follow it, since it may change a page table";
    if (!walk->dirty)
        return "the first write traps: the D bit has to be set";
    return walk->write ? "a write traps once, and is then allowed" : "a write traps";
}

static void print_shadow(const struct vm *vm, gva_t gva, const struct walk *walk, uint32_t rpn, FILE *out)
{
    struct shadow_window window;
    struct shadow_mapping mapping;

    if (vm->engine->window == NULL) {
        fprintf(out, "  shadow   none: this engine maps nothing\n");
        return;
    }
    window = vm->engine->window(vm->engine_state);
    if (!shadow_find(vm->shadow, gva, &mapping)) {
        fprintf(out, "  shadow   not mapped: %s\n",
                walk == NULL      ? "and must not be"
                : rpn == RPN_NONE ? "each access traps and goes to a device"
                                  : "the next access traps, and the page is put in");
        return;
    }
    fprintf(out, "  shadow   mapped at host address %08llx to RAM page %x, %s, %s%s%s\n",
            (unsigned long long)window.base + (uint32_t)(gva + window.bias), mapping.rpn,
            mapping.write ? "writable" : "read-only", mapping.user ? "for user and kernel" : "for the kernel",
            mapping.execute ? "" : ", not executable", mapping.global ? ", global" : "");
    if (walk != NULL && mapping.rpn != rpn)
        fprintf(
            out,
            "           that is another page than the tables say now: as a TLB may, until it is flushed\n");
    else if (walk != NULL && !mapping.write)
        fprintf(out, "           %s\n", write_obstacle(vm, walk, rpn));
}

void step_print_walk(struct vm *vm, gva_t gva, FILE *out)
{
    const struct vcpu *vcpu = &vm->vcpu;
    struct walk walk = {0};
    struct fault fault;
    bool is_present = guest_walk(&vm->memory, vcpu, gva, ACCESS_READ, true, &walk, &fault);
    uint32_t rpn = is_present ? memory_rpn(&vm->memory, walk.gpa) : RPN_NONE;

    fprintf(out, "linear %08x", gva);
    step_print_symbol(vm, gva, out);
    if ((vcpu->cr0 & CR0_PG) == 0)
        fputs("; paging is off: physical addresses are linear ones\n", out);
    else
        fprintf(out, "; CR3 %08x, CR0.WP %u, CR4.PSE %u%s\n", vcpu->cr3, (vcpu->cr0 & CR0_WP) != 0,
                (vcpu->cr4 & CR4_PSE) != 0, (vcpu->cr4 & CR4_PAE) ? ", CR4.PAE 1" : "");
    for (unsigned i = 0; i < walk.n_levels; i++) {
        bool is_large = walk.is_large && i == walk.n_levels - 1;

        print_level(vcpu, &walk.level[i], is_large || strcmp(walk.level[i].name, "PTE") == 0, is_large, out);
    }
    if (is_present)
        print_result(vm, &walk, rpn, out);
    else
        print_refusal(&fault, out);
    print_shadow(vm, gva, is_present ? &walk : NULL, rpn, out);
}
