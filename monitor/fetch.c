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

#define CACHE_SLOTS 1024 /* a power of two; ~200 bytes each */

struct cache_slot {
    uint64_t place;               /* byte in guest memory, plus one; 0: empty */
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

enum outcome vm_fetch(struct vm *vm, const struct insn **insn, bool *is_patched)
{
    struct insn_cache *cache = vm->insn_cache;
    const struct segment *code = &vm->vcpu.segment[SEG_CS];
    gva_t linear = code->base + vm->vcpu.eip;
    struct shadow_mapping mapping;
    struct cache_slot *slot;
    const uint8_t *raw;
    uint64_t place;
    enum outcome outcome;

    /* What was just running natively is mapped; anything else, and what may cross a page, goes the full way.
     */
    if ((code->attributes & SEGMENT_DB) == 0 || (linear & PAGE_MASK) > PAGE_SIZE - INSN_MAX_LENGTH ||
        vm->vcpu.eip > code->limit || code->limit - vm->vcpu.eip < INSN_MAX_LENGTH ||
        !shadow_find(vm->shadow, linear, &mapping)) {
        *insn = &cache->uncached;
        return fetch_slowly(vm, &cache->uncached, is_patched);
    }
    place = ((uint64_t)mapping.rpn << PAGE_SHIFT) + (linear & PAGE_MASK);
    raw = vm->memory.hva + place;
    slot = &cache->slot[(place ^ place >> 10) & (CACHE_SLOTS - 1)];
    if (slot->place == place + 1 && memcmp(slot->raw, raw, slot->insn.length) == 0) {
        *insn = &slot->insn;
        *is_patched = slot->is_patched;
        return OUTCOME_DONE;
    }
    slot->place = 0;
    outcome = fetch_slowly(vm, &slot->insn, &slot->is_patched);
    if (outcome == OUTCOME_DONE) {
        slot->place = place + 1;
        memcpy(slot->raw, raw, sizeof slot->raw);
    }
    *insn = &slot->insn;
    *is_patched = slot->is_patched;
    return outcome;
}
