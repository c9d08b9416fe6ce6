/*
 * Instructions that keep reaching for pages that are not mapped yet.
 *
 * A page fault costs a signal, a host mapping, the host's own fault on it, and later the mapping's end: ten
 * times what the guest's handler does. An instruction that meets one new page after the other (a loop that
 * clears memory, the first store after a fork) asks the monitor first (lower_adapted.c). The monitor walks
 * the guest's tables, and the #PF is the guest's without any signal; when the guest comes back, the
 * instruction is told where in guest memory its operand is, and the page is not mapped: nobody else may ever
 * touch it. A page that was in use before is mapped, so that each time without a mapping is paid for by
 * something that the guest did: it handled a fault, its A or D bit was set, its entry was changed. So much is
 * paid for as makes the calls as dear as the mapping would have been.
 *
 * If the window serves most calls the instruction becomes an ordinary access again, and needs twice as many
 * faults the next time.
 *
 * Read next: reach.c (what is remembered of the answer), frame.c.
 */
#include "translate/translator.h"

#define FAULTED_OFTEN  4u
#define MOST_DOUBLINGS 12u /* of that */
/* Calls without a mapping: */
#define CREDIT          64   /* to a page that something has happened to */
#define CREDIT_OF_TABLE 1024 /* to what was a page table: as many as it has entries */
#define MOST_ON_CREDIT  256u /* in a row */
#define LOOK_EVERY      16u  /* calls */
#define MOST_ACCESSES   2
#define WEIGHT_OF_STAY  16u /* of a call for the page of the last, where a timer has interrupted a loop */

struct access {
    gva_t linear;
    unsigned kind;
    unsigned weight;
};

/* What it accesses; for a repeated one at first. */
static unsigned find_accesses(const struct vcpu *vcpu, const struct insn *insn,
                              struct access access[MOST_ACCESSES])
{
    unsigned n = 0;

    for (unsigned i = 0; i < insn->n_operands && n < MOST_ACCESSES; i++) {
        const struct operand *operand = &insn->operand[i];
        bool is_write = (operand->access & OPERAND_WRITE) != 0;
        gva_t linear;

        if (operand->kind != OPERAND_MEMORY || operand->mem.is_address_only)
            continue;
        linear = vcpu->segment[operand->mem.segment].base + vcpu_effective_address(vcpu, insn, operand);
        if (operand->is_implicit && operand->mem.base == ESP && is_write)
            linear -= operand->size; /* a push */
        access[n++] = (struct access){.linear = linear,
                                      .weight = 1,
                                      .kind = (is_write ? ACCESS_WRITE : ACCESS_READ) |
                                              (vcpu->cpl == 3 ? ACCESS_USER : 0)};
    }
    return n;
}

static bool can_be_call(const struct translator *translator, uint64_t place)
{
    struct access access[MOST_ACCESSES];
    struct insn insn;

    return adapt_decode(translator, place, &insn) && insn.sensitive == NULL && vcpu_can_emulate(&insn) &&
           find_accesses(&translator->vm->vcpu, &insn, access) != 0 &&
           (adapt_is_fast_string(&insn) || !(insn.prefixes & (INSN_REP | INSN_REPNE)));
}

void touch_note_fault(struct translator *translator, uint64_t place)
{
    struct adaptation *adaptation = adapt_try(translator, place);

    if (adaptation == NULL || adaptation->as == ADAPTED_CALL || adaptation->as == ADAPTED_TOUCH ||
        adaptation->n_given_back > MOST_DOUBLINGS ||
        ++adaptation->n_faults < FAULTED_OFTEN << adaptation->n_given_back)
        return;
    adaptation->n_faults = 0;
    if (can_be_call(translator, place))
        adapt_as(translator, adaptation, ADAPTED_TOUCH);
}

/* NULL: not, or not for this kind of access. */
static uint8_t *mapped_in(const struct shadow *shadow, const struct vcpu *vcpu, const struct access *access)
{
    return shadow != NULL ? shadow_fast(shadow, vcpu, access->linear, access->kind) : NULL;
}

/* In the current window, or in the user's, where the kernel may find it as well. */
static uint8_t *find_mapped(const struct vm *vm, const struct access *access)
{
    uint8_t *bytes = mapped_in(vm->shadow, &vm->vcpu, access);

    return bytes != NULL ? bytes : mapped_in(vm->user_shadow, &vm->vcpu, access);
}

/* Mapped, but for reading only: a page table, or it has translations. RPN_NONE: no. */
static uint32_t held_in(const struct shadow *shadow, const struct vcpu *vcpu, const struct access *access)
{
    return shadow != NULL && (access->kind & ACCESS_WRITE)
               ? shadow_held(shadow, vcpu, access->linear, access->kind)
               : RPN_NONE;
}

static bool is_first_use(const struct walk *walk, unsigned kind)
{
    return walk->n_levels != 0 &&
           (!(walk->level[walk->n_levels - 1].entry & PTE_A) || ((kind & ACCESS_WRITE) && !walk->dirty));
}

static struct page_credit *credit_of(struct translator *translator, uint32_t page)
{
    return &translator->credit[page * 0x9e3779b1u / (UINT32_MAX / PAGES_WITH_CREDIT + 1)];
}

static bool has_account(struct translator *translator, uint32_t page)
{
    return credit_of(translator, page)->page == page;
}

/* Something that the guest did to the page pays for some accesses without a mapping. */
static void give_credit(struct translator *translator, uint32_t page, uint16_t n_accesses)
{
    translator->n_on_credit = 0;
    *credit_of(translator, page) = (struct page_credit){.page = page, .n_accesses = n_accesses};
}

/* Where nothing new happens the pages that there are will be used for longer. */
static bool take_credit(struct translator *translator, uint32_t page, unsigned weight)
{
    struct page_credit *credit = credit_of(translator, page);

    if (credit->page != page || credit->n_accesses < weight || translator->n_on_credit == MOST_ON_CREDIT)
        return false;
    credit->n_accesses -= weight;
    translator->n_on_credit++;
    return true;
}

/* A page that cannot be mapped for writing is mapped for reading, so that it is known the next time. A and D
 * are set already. (The guest's tables that lead there are watched from now on: a slot may have them.) */
static void map(struct translator *translator, const struct access *access, bool is_user)
{
    uint32_t page = access->linear >> PAGE_SHIFT;
    struct vm *vm = translator->vm;
    struct shadow *shadow = is_user && vm->user_shadow != NULL ? vm->user_shadow : vm->shadow;
    const struct access reading = {.linear = access->linear,
                                   .kind = (access->kind & ~ACCESS_WRITE) | ACCESS_READ};
    struct fault fault;

    *credit_of(translator, page) = (struct page_credit){.page = page, .was_mapped = true};
    reach_forget(translator);
    if (shadow_map(shadow, &vm->vcpu, access->linear, access->kind, &fault) == SHADOW_EMULATE &&
        mapped_in(shadow, &vm->vcpu, &reading) == NULL)
        (void)shadow_map(shadow, &vm->vcpu, reading.linear, reading.kind, &fault);
    if (shadow != vm->shadow)
        shadow_note_use(vm->shadow); /* where the guest still is */
}

/* Its mapping is gone: the guest has changed its entry, and may do so again. */
static void map_or_wait(struct translator *translator, const struct access *access, bool is_user)
{
    uint32_t page = access->linear >> PAGE_SHIFT;

    if (has_account(translator, page) && credit_of(translator, page)->was_mapped)
        give_credit(translator, page, CREDIT);
    else
        map(translator, access, is_user);
}

static void prepare_page(struct translator *translator, const struct access *access)
{
    struct vm *vm = translator->vm;
    uint32_t page = access->linear >> PAGE_SHIFT;
    const struct walk *walk = &vm->foreseen.walk;
    bool is_allowed = guest_walk(&vm->memory, &vm->vcpu, access->linear, access->kind, true,
                                 &vm->foreseen.walk, &vm->foreseen.fault);

    vm->foreseen.is_there = true;
    vm->foreseen.is_allowed = is_allowed;
    vm->foreseen.linear = access->linear;
    vm->foreseen.kind = access->kind;
    if (!is_allowed || is_first_use(walk, access->kind))
        give_credit(translator, page, CREDIT);
    else if (memory_rpn(&vm->memory, walk->gpa) != RPN_NONE && !take_credit(translator, page, access->weight))
        map_or_wait(translator, access, walk->user);
}

/* It is mapped for reading only, and shall stay so. */
static bool stays_held(struct translator *translator, const struct insn *insn, const struct access *access,
                       bool is_touch)
{
    const struct vm *vm = translator->vm;
    uint32_t page = access->linear >> PAGE_SHIFT;
    uint32_t rpn = held_in(vm->shadow, &vm->vcpu, access);

    if (rpn == RPN_NONE)
        rpn = held_in(vm->user_shadow, &vm->vcpu, access);
    if (rpn == RPN_NONE)
        return false;
    if (vm->memory.page_flags[rpn] & PAGE_IS_TABLE)
        return true;
    if (vm->memory.page_flags[rpn] & PAGE_IS_CODE) /* who stores much gets the page: for shadow_map to ask */
        return !is_touch;
    /* No longer a page table, but likely to be filled and used as one again. */
    if (!has_account(translator, page) || adapt_stores_much(&vm->vcpu, insn))
        give_credit(translator, page, CREDIT_OF_TABLE);
    return take_credit(translator, page, 1);
}

/* Before an access that no window serves. */
static void prepare(struct translator *translator, struct adaptation *adaptation, const struct insn *insn,
                    const struct access *access)
{
    bool is_touch = adaptation->as == ADAPTED_TOUCH;

    /* Mostly it will be a device's again. */
    if (!is_touch && ++adaptation->n_unprepared < LOOK_EVERY)
        return;
    adaptation->n_unprepared = 0;
    if (!stays_held(translator, insn, access, is_touch))
        prepare_page(translator, access);
}

/* false: the window has it. */
static bool needs_call(struct translator *translator, struct adaptation *adaptation, const struct insn *insn,
                       const struct access *access)
{
    if (find_mapped(translator->vm, access) != NULL)
        return false;
    if ((access->kind & ACCESS_WRITE) && adapt_to_string(translator, insn, access->linear, access->kind))
        return true; /* it is likely to be a table again: the mapping stays as it is */
    prepare(translator, adaptation, insn, access);
    return true;
}

bool touch_prepare(struct translator *translator, struct call *call)
{
    struct adaptation *adaptation = adapt_of_call(translator, call);
    struct access access[MOST_ACCESSES];
    bool is_needed = false;
    unsigned n;

    if (adaptation == NULL)
        return false;
    n = find_accesses(&translator->vm->vcpu, &call->insn, access);
    for (unsigned i = 0; i < n; i++)
        is_needed = needs_call(translator, adaptation, &call->insn, &access[i]) || is_needed;
    adapt_note_call(translator, adaptation, call, is_needed ? 0 : 1);
    return true;
}

/* Memory whose writes concern nobody but the guest. */
static enum touched find_in_page(struct vm *vm, uint32_t rpn, const struct access *access, uint8_t **bytes)
{
    if (rpn == RPN_NONE || ((access->kind & ACCESS_WRITE) && vm->memory.page_flags[rpn] != 0))
        return TOUCHED_PREPARED;
    *bytes = vm->memory.hva + ((uint64_t)rpn << PAGE_SHIFT) + (access->linear & PAGE_MASK);
    return TOUCHED_MEMORY;
}

/* By the walk that prepare_page has made. */
static enum touched find_foreseen(struct vm *vm, const struct access *access, uint8_t **bytes)
{
    struct walk *walk = &vm->foreseen.walk;
    enum touched touched;

    if (!vm->foreseen.is_allowed) {
        vm->foreseen.is_there = false;
        vm->vcpu.fault = vm->foreseen.fault;
        return TOUCHED_FAULT;
    }
    touched = find_in_page(vm, memory_rpn(&vm->memory, walk->gpa), access, bytes);
    if (touched != TOUCHED_MEMORY || !guest_walk_complete(&vm->memory, walk, access->kind))
        return TOUCHED_PREPARED;
    vm->foreseen.is_there = false;
    return TOUCHED_MEMORY;
}

enum touched touch_find(struct translator *translator, struct call *call, gva_t linear, uint8_t **bytes)
{
    struct vm *vm = translator->vm;
    struct adaptation *adaptation = adapt_of_call(translator, call);
    uint32_t page = linear >> PAGE_SHIFT;
    bool is_staying = call->last_page == page + 1 && reach_was_interrupted(translator, call);
    const struct access access = {
        .linear = linear, .kind = call->access_kind, .weight = is_staying ? WEIGHT_OF_STAY : 1};

    if (adaptation == NULL || !touch_is_within_page(linear, call->access_size))
        return TOUCHED_NOT;
    call->last_page = page + 1;
    *bytes = find_mapped(vm, &access);
    if (*bytes == NULL)
        prepare(translator, adaptation, &call->insn, &access);
    adapt_note_call(translator, adaptation, call, *bytes == NULL ? 0 : access.weight);
    if (*bytes != NULL)
        return TOUCHED_MEMORY;
    if (vm->foreseen.is_there)
        return find_foreseen(vm, &access, bytes);
    return find_in_page(vm, held_in(vm->shadow, &vm->vcpu, &access), &access, bytes);
}
