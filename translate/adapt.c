/*
 * Instructions that need another form than most.
 *
 * Those that fault again and again because no mapping can serve them (stores into page tables, accesses to
 * devices) become calls into the monitor: tens of nanoseconds instead of a signal. If such a call turns out
 * to reach ordinary memory most of the time (a copying loop that once met a device) it becomes an ordinary
 * access again.
 *
 * Those of the kernel that reach for the user's pages choose their window by the address from then on: the
 * kernel's window need not have the user's pages, and can be the same for all address spaces (spaces.c).
 *
 * Read next: touch.c (those whose pages are not mapped yet), engine.c.
 */
#include "monitor/fetch.h"
#include "translate/translator.h"

#define OPCODE_MOVS 0xa4
#define OPCODE_TEST 0xa8
#define OPCODE_STOS 0xaa
#define OPCODE_SCAS 0xae
#define MUCH_STORED 256u /* bytes */

#define WAYS           4u
#define EMULATED_OFTEN 4u
/* Before it is given back: a call costs some 50 ns, and what it saves is more than 2000. */
#define NEEDLESS_OFTEN   256u
#define NEEDLESS_TOUCHES 32u

/* Where it may be noted: one of WAYS. Two places that were in each other's way would be so in every boot of a
 * kernel that is loaded at random: the distance between them stays. */
static struct adaptation *group_of(struct translator *translator, uint64_t place)
{
    uint64_t hash = place * UINT64_C(0x9e3779b97f4a7c15);

    return &translator->adaptations[(hash >> 40) % (ADAPTATIONS / WAYS) * WAYS];
}

static struct adaptation *find(struct translator *translator, uint64_t place)
{
    struct adaptation *group = group_of(translator, place);

    for (unsigned i = 0; i < WAYS; i++)
        if (group[i].place == place + 1)
            return &group[i];
    return NULL;
}

/* Of a group, the one that may go. NULL: all are adapted, and stay unless `is_urgent`. */
static struct adaptation *find_victim(struct translator *translator, struct adaptation *group, bool is_urgent)
{
    for (unsigned i = 0; i < WAYS; i++)
        if (group[i].place == 0)
            return &group[i];
    for (unsigned i = 0; i < WAYS; i++)
        if (group[i].as == ADAPTED_NOT)
            return &group[i];
    if (!is_urgent)
        return NULL;
    cache_kill_place(&translator->cache, group[0].place - 1);
    return &group[0];
}

/* What is noted of the place. NULL: there is no room. */
static struct adaptation *take(struct translator *translator, uint64_t place, bool is_urgent)
{
    struct adaptation *adaptation = find(translator, place);

    if (adaptation != NULL)
        return adaptation;
    adaptation = find_victim(translator, group_of(translator, place), is_urgent);
    if (adaptation != NULL)
        *adaptation = (struct adaptation){.place = place + 1};
    return adaptation;
}

struct adaptation *adapt_try(struct translator *translator, uint64_t place)
{
    return take(translator, place, false);
}

void adapt_as(struct translator *translator, struct adaptation *adaptation, enum adapted as)
{
    if (adaptation->as == ADAPTED_NOT || adaptation->as == ADAPTED_SPLIT)
        adaptation->before = adaptation->as;
    adaptation->as = (uint8_t)as;
    adaptation->n_needless = 0;
    translator->n_adapted++;
    translator->counts.adapted++;
    cache_kill_place(&translator->cache, adaptation->place - 1);
}

static void give_back(struct translator *translator, struct adaptation *adaptation)
{
    adaptation->as = adaptation->before;
    adaptation->n_emulated = adaptation->n_faults = 0;
    if (adaptation->n_given_back < UINT8_MAX)
        adaptation->n_given_back++;
    translator->counts.given_back++;
    cache_kill_place(&translator->cache, adaptation->place - 1);
}

enum adapted adapt_find(void *opaque, uint64_t place)
{
    const struct adaptation *adaptation = find(opaque, place);

    return adaptation != NULL ? adaptation->as : ADAPTED_NOT;
}

static bool is_string(const struct insn *insn)
{
    return insn->opcode_map == 0 && insn->opcode >= OPCODE_MOVS && insn->opcode <= OPCODE_SCAS + 1u &&
           (insn->opcode & 0xfe) != OPCODE_TEST;
}

/* A page fault that was not filled may end in emulation: it did if EIP is behind the instruction next time.
 */
void adapt_note_fault(struct translator *translator, const struct vm_exit *exit)
{
    const struct vm *vm = translator->vm;

    translator->retry.is_awaited = true;
    translator->retry.cpl = vm->vcpu.cpl;
    translator->retry.eip = vm->vcpu.eip;
    translator->retry.address = exit->fault.cr2;
    translator->retry.kind = (exit->fault.error & PF_WRITE ? ACCESS_WRITE : ACCESS_READ) |
                             (exit->fault.error & PF_USER ? ACCESS_USER : 0);
    translator->faulted_place = vm->n_watchers == 0 ? translator->place : 0;
    translator->faulted_eip = vm->vcpu.eip;
}

/* Can it be written so that it chooses its window? */
static bool can_split(const struct insn *insn)
{
    if (is_string(insn))
        return true;
    return insn_memory_operand(insn) != NULL && insn->opcode_map <= 1;
}

bool adapt_to_user_page(struct translator *translator, gva_t address)
{
    struct vm *vm = translator->vm;
    struct vcpu *vcpu = &vm->vcpu;
    gva_t linear = vcpu->segment[SEG_CS].base + vcpu->eip;
    struct shadow_mapping code;
    struct adaptation *adaptation;
    const struct insn *insn;
    struct walk walk;
    struct fault fault;
    bool is_patched;
    uint64_t place;

    if (vm->n_watchers != 0 || !(vcpu->cr0 & CR0_PG) ||
        !guest_walk(&vm->memory, vcpu, address, ACCESS_READ, true, &walk, &fault) || !walk.user ||
        !shadow_find(vm->shadow, linear, &code) || code.user ||
        vm_fetch(vm, &insn, &is_patched) != OUTCOME_DONE || !can_split(insn))
        return false;
    place = ((uint64_t)code.rpn << PAGE_SHIFT) + (linear & PAGE_MASK);
    adaptation = take(translator, place, true);
    if (adaptation->as != ADAPTED_NOT)
        return false; /* it was, and is here all the same: another way */
    adapt_as(translator, adaptation, ADAPTED_SPLIT);
    spaces_add_user_part(translator, address);
    return true;
}

bool adapt_decode(const struct translator *translator, uint64_t place, struct insn *insn)
{
    size_t n = PAGE_SIZE - (size_t)(place & PAGE_MASK);

    return decode_insn(translator->vm->memory.hva + place, n < INSN_MAX_LENGTH ? n : INSN_MAX_LENGTH, 4,
                       insn) == DECODE_OK;
}

/* A string instruction has one fault for many bytes, and the next time it copies something else. */
static bool is_string_at(const struct translator *translator, uint64_t place)
{
    struct insn insn;

    return adapt_decode(translator, place, &insn) && is_string(&insn);
}

void adapt_look_back(struct translator *translator)
{
    uint64_t place = translator->faulted_place - 1;
    uint32_t moved = translator->vm->vcpu.eip - translator->faulted_eip;
    struct adaptation *adaptation;

    if (translator->faulted_place == 0)
        return;
    translator->faulted_place = 0;
    if (moved == 0 || moved > INSN_MAX_LENGTH) {
        touch_note_fault(translator, place);
        return;
    }
    adaptation = take(translator, place, true);
    if (adaptation->as == ADAPTED_CALL || ++adaptation->n_emulated < EMULATED_OFTEN ||
        is_string_at(translator, place))
        return;
    adapt_as(translator, adaptation, ADAPTED_CALL);
}

void adapt_note_exception(struct translator *translator)
{
    uint64_t place = translator->place - 1;
    struct adaptation *adaptation;
    struct insn insn;

    if (translator->place == 0 || translator->vm->n_watchers != 0)
        return;
    adaptation = adapt_try(translator, place);
    if (adaptation == NULL || adaptation->as != ADAPTED_NOT || ++adaptation->n_emulated < EMULATED_OFTEN)
        return;
    adaptation->n_emulated = 0;
    if (adapt_decode(translator, place, &insn) && vcpu_can_emulate(&insn))
        adapt_as(translator, adaptation, ADAPTED_CALL);
}

struct adaptation *adapt_of_call(struct translator *translator, const struct call *call)
{
    uint64_t place = call->block->place + (call->eip - call->block->eip);
    struct adaptation *adaptation = find(translator, place);

    return adaptation != NULL && (adaptation->as == ADAPTED_CALL || adaptation->as == ADAPTED_TOUCH)
               ? adaptation
               : NULL;
}

void adapt_note_call(struct translator *translator, struct adaptation *adaptation, struct call *call,
                     unsigned n_needless)
{
    unsigned often = adaptation->as == ADAPTED_TOUCH ? NEEDLESS_TOUCHES : NEEDLESS_OFTEN;

    if (call->was_needed)
        adaptation->n_needless = 0;
    call->was_needed = false;
    adaptation->n_needless = (uint16_t)(n_needless == 0 ? 0 : adaptation->n_needless + n_needless);
    if (adaptation->n_needless >= often)
        give_back(translator, adaptation);
}

bool adapt_is_fast_string(const struct insn *insn)
{
    return insn->opcode_map == 0 &&
           ((insn->opcode & 0xfe) == OPCODE_STOS || (insn->opcode & 0xfe) == OPCODE_MOVS);
}

bool adapt_stores_much(const struct vcpu *vcpu, const struct insn *insn)
{
    unsigned shift;

    if (!(insn->prefixes & INSN_REP) || !adapt_is_fast_string(insn))
        return false;
    shift = (insn->opcode & 1) == 0 ? 0 : insn->operand_size == 4 ? 2 : 1;
    return (uint64_t)vcpu->gpr[ECX] << shift >= MUCH_STORED;
}

/* The page table that a store of this kind would reach; RPN_NONE: it is none. */
static uint32_t table_at(struct vm *vm, gva_t address, unsigned kind)
{
    struct walk walk;
    struct fault fault;
    uint32_t rpn;

    if (!guest_walk(&vm->memory, &vm->vcpu, address, kind, true, &walk, &fault))
        return RPN_NONE;
    rpn = memory_rpn(&vm->memory, walk.gpa);
    return rpn != RPN_NONE && (vm->memory.page_flags[rpn] & PAGE_IS_TABLE) ? rpn : RPN_NONE;
}

bool adapt_to_string(struct translator *translator, const struct insn *insn, gva_t address, unsigned kind)
{
    struct vm *vm = translator->vm;
    uint32_t rpn = adapt_stores_much(&vm->vcpu, insn) ? table_at(vm, address, kind) : RPN_NONE;

    if (rpn == RPN_NONE)
        return false;
    shadow_give_up_table(&vm->memory, rpn);
    return !(vm->memory.page_flags[rpn] & PAGE_IS_TABLE);
}

void adapt_to_faulted_string(struct translator *translator)
{
    gva_t address = translator->retry.address;
    unsigned kind = translator->retry.kind;
    const struct insn *insn;
    bool is_patched;

    if ((kind & ACCESS_WRITE) && table_at(translator->vm, address, kind) != RPN_NONE &&
        vm_fetch(translator->vm, &insn, &is_patched) == OUTCOME_DONE)
        (void)adapt_to_string(translator, insn, address, kind);
}

/* A handler for page faults that ends usually made the page present, and the instruction is tried again: the
 * page is mapped now, without the second signal. A store whose D bit would have to be set is left to itself:
 * D is never set ahead. */
void adapt_note_return(struct translator *translator)
{
    struct vm *vm = translator->vm;
    struct vcpu *vcpu = &vm->vcpu;
    unsigned kind = translator->retry.kind;
    struct walk walk;
    struct fault fault;

    if (!translator->retry.is_awaited || vcpu->eip != translator->retry.eip ||
        vcpu->cpl != translator->retry.cpl)
        return;
    translator->retry.is_awaited = false;
    if (!guest_walk(&vm->memory, vcpu, translator->retry.address, kind, true, &walk, &fault) ||
        ((kind & ACCESS_WRITE) && !walk.dirty))
        return;
    (void)shadow_map(walk.user && vm->user_shadow != NULL ? vm->user_shadow : vm->shadow, vcpu,
                     translator->retry.address, kind, &fault);
}
