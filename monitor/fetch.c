/*
 * Fetching the instruction that caused an exit. The same few instructions trap again and again, so decoded
 * ones are kept, keyed by where they lie in RAM and checked against the bytes that lie there now: no
 * invalidation is needed.
 *
 * Read next: patch.c, exit.c.
 */
#include "monitor/fetch.h"

#include <stdlib.h>
#include <string.h>

#include "monitor/patch.h"

#define CACHE_BITS  13
#define CACHE_SLOTS (1u << CACHE_BITS) /* ~250 bytes each */

struct cache_slot {
    uint64_t place;               /* where in guest memory, see place_of(); 0: empty */
    uint8_t raw[INSN_MAX_LENGTH]; /* as they lay in memory, a patch included */
    bool is_patched;
    struct insn insn;
};

struct insn_cache {
    struct cache_slot slot[CACHE_SLOTS];
    struct insn uncached;
};

struct insn_cache *insn_cache_create(void)
{
    return calloc(1, sizeof(struct insn_cache));
}

void insn_cache_free(struct insn_cache *cache)
{
    free(cache);
}

/* The full way: segment and page checks as the CPU's, then the original byte where ours lies. */
static enum outcome fetch_slowly(struct vm *vm, struct insn *insn, bool *is_patched)
{
    struct vcpu *vcpu = &vm->vcpu;
    enum outcome outcome = vcpu_fetch(vcpu, insn);
    uint8_t bytes[INSN_MAX_LENGTH];
    uint8_t original;
    struct walk walk;
    struct fault fault;
    gva_t linear = vcpu->segment[SEG_CS].base + vcpu->eip;
    unsigned kind = ACCESS_FETCH | (vcpu->cpl == 3 ? ACCESS_USER : 0);

    *is_patched = false;
    if (outcome != OUTCOME_DONE || vm->patches == NULL || insn->bytes[0] != PATCH_BYTE)
        return outcome;
    if (!guest_walk(&vm->memory, vcpu, linear, kind, true, &walk, &fault) ||
        !patch_find(vm->patches, &vm->memory, walk.gpa, &original))
        return outcome;
    size_t n = vm_peek(vm, linear, bytes, sizeof bytes);

    bytes[0] = original;
    switch (decode_insn(bytes, n, vcpu_code_size(vcpu), insn)) {
    case DECODE_OK:
        break;
    case DECODE_TRUNCATED: /* its second page is not there: the fault that its fetch would have raised */
        if (!guest_walk(&vm->memory, vcpu, linear + (gva_t)n, kind, false, &walk, &vcpu->fault))
            return OUTCOME_FAULT;
        return vcpu_raise_error(vcpu, EXCEPTION_GP, 0); /* there, but not memory to fetch from */
    default:
        return vcpu_raise(vcpu, EXCEPTION_UD); /* whole when it was patched; the guest changed its tail */
    }
    *is_patched = true;
    return OUTCOME_DONE;
}

/* The page of memory that the code lies on. What was just running natively is mapped; without a window, the
 * guest's tables are asked as the CPU asks them. false: the full way finds out what is wrong. */
static bool find_code_page(struct vm *vm, gva_t linear, uint32_t *rpn)
{
    const struct vcpu *vcpu = &vm->vcpu;
    struct shadow_mapping mapping;
    struct walk walk;
    struct fault fault;

    if (vm->engine->window != NULL) {
        if (!shadow_find(vm->shadow, linear, &mapping) || !mapping.execute)
            return false;
        *rpn = mapping.rpn;
        return true;
    }
    if (!guest_walk(&vm->memory, vcpu, linear, ACCESS_FETCH | (vcpu->cpl == 3 ? ACCESS_USER : 0), false,
                    &walk, &fault))
        return false;
    *rpn = memory_rpn(&vm->memory, walk.gpa);
    return *rpn != RPN_NONE;
}

/* The byte in guest memory, and what else the meaning of bytes depends on: the code size. Never 0. */
static uint64_t place_of(const struct vcpu *vcpu, uint64_t byte)
{
    return (byte + 1) << 1 | (vcpu_code_size(vcpu) == 2);
}

enum outcome vm_fetch(struct vm *vm, const struct insn **insn, bool *is_patched)
{
    struct insn_cache *cache = vm->insn_cache;
    const struct segment *code = &vm->vcpu.segment[SEG_CS];
    gva_t linear = code->base + vm->vcpu.eip;
    struct cache_slot *slot;
    const uint8_t *raw;
    uint64_t byte, place;
    uint32_t rpn;
    enum outcome outcome;

    /* What may cross a page or the limit goes the full way. */
    if ((linear & PAGE_MASK) > PAGE_SIZE - INSN_MAX_LENGTH || vm->vcpu.eip > code->limit ||
        code->limit - vm->vcpu.eip < INSN_MAX_LENGTH || !find_code_page(vm, linear, &rpn)) {
        *insn = &cache->uncached;
        return fetch_slowly(vm, &cache->uncached, is_patched);
    }
    byte = ((uint64_t)rpn << PAGE_SHIFT) + (linear & PAGE_MASK);
    place = place_of(&vm->vcpu, byte);
    raw = vm->memory.hva + byte;
    slot = &cache->slot[(byte ^ byte >> CACHE_BITS) & (CACHE_SLOTS - 1)];
    if (slot->place == place && memcmp(slot->raw, raw, slot->insn.length) == 0) {
        *insn = &slot->insn;
        *is_patched = slot->is_patched;
        return OUTCOME_DONE;
    }
    slot->place = 0;
    outcome = fetch_slowly(vm, &slot->insn, &slot->is_patched);
    if (outcome == OUTCOME_DONE) {
        slot->place = place;
        memcpy(slot->raw, raw, sizeof slot->raw);
    }
    *insn = &slot->insn;
    *is_patched = slot->is_patched;
    return outcome;
}
