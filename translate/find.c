/*
 * Finding the block for the guest's EIP, or making it; and giving blocks up when their code is written.
 *
 * A block is entered only while its page is mapped in the current space: then the guest's tables allow the
 * fetch, and when they no longer do the mapping goes, and with it the entry in the jump table.
 *
 * Read next: adapt.c.
 */
#include "monitor/exit.h"
#include "monitor/interpret.h"
#include "monitor/machine.h"
#include "translate/translator.h"

/* A page whose translations went so often, each time soon after the last, has both code and data that is
 * written... */
#define MUCH_GIVEN_UP 8u
#define SOON_MS       2u
/* ...unless so many stores follow that it must be data only by now. */
#define MANY_STORES 64u

/* ---- the page ------------------------------------------------------------------------------------------ */

/* true: it is mapped. false: *exit is the guest's fault, or (EXIT_INTERRUPTED) no mapping can serve. */
static bool map_code(struct translator *translator, gva_t linear, uint32_t *rpn, struct vm_exit *exit)
{
    struct vm *vm = translator->vm;
    struct vcpu *vcpu = &vm->vcpu;
    uint32_t error = PF_FETCH | (vcpu->cpl == 3 ? PF_USER : 0);
    struct shadow_mapping mapping;
    struct fault fault;

    *exit = (struct vm_exit){.reason = EXIT_INTERRUPTED};
    for (int tries = 0; tries < 3; tries++) {
        if (shadow_find(vm->shadow, linear, &mapping) && mapping.execute) {
            *rpn = mapping.rpn;
            return true;
        }
        switch (shadow_fault(vm->shadow, vcpu, linear, error, &fault)) {
        case SHADOW_FILLED:
            break;
        case SHADOW_GUEST:
            *exit = (struct vm_exit){.reason = EXIT_GUEST_FAULT, .fault = fault};
            return false;
        default:
            return false;
        }
    }
    return false;
}

/* Instructions that cannot be a block: from memory that is none, at the end of the world, or invalid. */
static void interpret(struct translator *translator, struct vm_exit *exit)
{
    translator->counts.interpreted++;
    *exit = (struct vm_exit){.reason = EXIT_INTERRUPTED};
    (void)interpret_one(translator->vm, exit);
}

/* ---- making a block ------------------------------------------------------------------------------------ */

static const uint8_t *page_bytes(const struct translator *translator, uint32_t rpn)
{
    return translator->vm->memory.hva + ((uint64_t)rpn << PAGE_SHIFT);
}

static void protect(struct translator *translator, const struct block *block)
{
    uint32_t rpn = (uint32_t)(block->place >> PAGE_SHIFT);

    shadow_protect_code(&translator->vm->memory, rpn);
    if (block->second_rpn != 0)
        shadow_protect_code(&translator->vm->memory, block->second_rpn - 1);
}

/* Bytes from EIP on that CS's limit and the page allow. */
static uint32_t bytes_left(const struct segment *code, uint32_t eip, gva_t linear)
{
    uint32_t in_page = PAGE_SIZE - (linear & PAGE_MASK);
    uint64_t in_segment = (uint64_t)code->limit - eip + 1;

    return in_segment < in_page ? (uint32_t)in_segment : in_page;
}

static bool add_second_page(struct translator *translator, struct source *source)
{
    const struct segment *code = &translator->vm->vcpu.segment[SEG_CS];
    struct vm_exit exit;

    if ((source->linear & PAGE_MASK) + source->n != PAGE_SIZE || source->n >= INSN_MAX_LENGTH ||
        source->eip + source->n == 0 || source->eip + source->n > code->limit ||
        !map_code(translator, source->linear + source->n, &source->second_rpn, &exit))
        return false;
    source->second = page_bytes(translator, source->second_rpn);
    source->second_n = bytes_left(code, source->eip + source->n, source->linear + source->n);
    return true;
}

static struct block *make_block(struct translator *translator, uint32_t rpn, gva_t linear)
{
    struct vm *vm = translator->vm;
    const struct vcpu *vcpu = &vm->vcpu;
    struct source source = {.bytes = page_bytes(translator, rpn) + (linear & PAGE_MASK),
                            .n = bytes_left(&vcpu->segment[SEG_CS], vcpu->eip, linear),
                            .place = ((uint64_t)rpn << PAGE_SHIFT) + (linear & PAGE_MASK),
                            .eip = vcpu->eip,
                            .linear = linear,
                            .mode = translator->mode,
                            .limit = vcpu->segment[SEG_CS].limit,
                            .has_rorx = translator->has_rorx,
                            .adapted = translator->n_adapted != 0 ? adapt_find : NULL,
                            .ctx = translator};
    struct block *block;
    uint64_t began = measure_begin(translator);

    if (!cache_has_room(&translator->cache)) {
        cache_empty(&translator->cache);
        spaces_forget_targets(translator);
    }
    block = build_block(&translator->cache, &source);
    if (block == NULL && add_second_page(translator, &source))
        block = build_block(&translator->cache, &source);
    if (block != NULL)
        protect(translator, block);
    measure_end(translator, &translator->counts.build_ns, began);
    return block;
}

/* The second page of a block that crosses is mapped where it was? */
static bool is_whole(struct translator *translator, const struct block *block, gva_t linear)
{
    uint32_t rpn;
    struct vm_exit exit;

    return block->second_rpn == 0 ||
           (map_code(translator, (linear | PAGE_MASK) + 1, &rpn, &exit) && rpn + 1 == block->second_rpn);
}

struct block *find_block(struct translator *translator, struct vm_exit *exit)
{
    struct vm *vm = translator->vm;
    struct vcpu *vcpu = &vm->vcpu;
    const struct segment *code = &vcpu->segment[SEG_CS];
    gva_t linear = code->base + vcpu->eip;
    struct block *block;
    uint32_t rpn;

    if (vcpu->eip > code->limit) {
        *exit = (struct vm_exit){.reason = EXIT_GUEST_FAULT,
                                 .fault = {.vector = EXCEPTION_GP, .has_error = true, .cr2 = 0}};
        return NULL;
    }
    if (!map_code(translator, linear, &rpn, exit)) {
        if (exit->reason == EXIT_INTERRUPTED)
            interpret(translator, exit);
        return NULL;
    }
    block = cache_find(&translator->cache, ((uint64_t)rpn << PAGE_SHIFT) + (linear & PAGE_MASK), vcpu->eip,
                       translator->mode);
    if (block != NULL && is_whole(translator, block, linear))
        return block;
    block = make_block(translator, rpn, linear);
    if (block == NULL)
        interpret(translator, exit);
    return block;
}

/* ---- code that is written ------------------------------------------------------------------------------ */

/* Machine time: what is done about a page must be the same in every run with --clock=virtual. */
static uint32_t now_ms(const struct translator *translator)
{
    return (uint32_t)(machine_now(translator->vm) / 1000000u);
}

/* A store beside the code of a page that has both. true: there have been too many for that. */
static bool is_data_after_all(struct code_page *page)
{
    if (++page->n_emulated < MANY_STORES)
        return false;
    *page = (struct code_page){0};
    return true;
}

static void code_written(void *opaque, uint32_t rpn, uint32_t offset, uint32_t n)
{
    struct translator *translator = opaque;

    if (!cache_overlaps(&translator->cache, rpn, offset, n) &&
        !is_data_after_all(&translator->code_pages[rpn]))
        return;
    cache_kill_page(&translator->cache, rpn);
    shadow_forget_code(&translator->vm->memory, rpn);
}

/* A store into a page with code, before it happens. Usually the page has changed its use, and the
 * translations go; but a page that has both code and data in it would be translated again and again. */
static bool code_store(void *opaque, uint32_t rpn, uint32_t offset)
{
    struct translator *translator = opaque;
    struct code_page *page = &translator->code_pages[rpn];
    uint32_t now = now_ms(translator);

    (void)offset;
    if (now - page->given_up_ms > SOON_MS)
        page->n_given_up = 0;
    if (page->n_given_up >= MUCH_GIVEN_UP && !is_data_after_all(page)) {
        page->given_up_ms = now;
        return false;
    }
    page->n_given_up++;
    page->n_emulated = 0;
    page->given_up_ms = now;
    cache_kill_page(&translator->cache, rpn);
    return true;
}

bool find_listen(struct translator *translator)
{
    translator->vm->memory.code_listener =
        (struct memory_code_listener){.ctx = translator, .written = code_written, .store = code_store};
    return true;
}
