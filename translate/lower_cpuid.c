/*
 * CPUID in line. What it says depends on EAX alone, as long as the monitor changes nothing that CPUID shows:
 * so the monitor notes what it said the last time, and translated code compares the leaf. (Kernels run CPUID
 * less to learn anything than to serialize.)
 *
 * Read next: lower_adapted.c.
 */
#include "translate/build.h"

bool lower_cpuid(struct builder *b)
{
    static const struct {
        uint8_t reg, offset;
    } results[] = {{RBX, CPUID_EBX}, {RDX, CPUID_EDX}, {RCX, CPUID_ECX}, {RAX, CPUID_EAX}};
    struct emitter *e = &b->e;
    int8_t uncounted = b->uncounted;
    struct call *call;
    uint8_t *distance;

    if (b->is_shadowed)
        return false;
    build_flush_esp(b);
    build_save_ecx(b);
    emit_load_context64(e, RCX, CONTEXT_CPUID + CPUID_MINUS_LEAF);
    emit_op_index(e, 1, OP_LEA, RCX, RCX, RAX, 0, 0);
    distance = emit_short(e, JRCXZ);
    call = &b->cache->calls[b->cache->n_calls];
    build_call_with_saved_ecx(b);
    emit_short_here(e, distance);
    b->uncounted = uncounted;
    build_count_this(b);
    build_point(b, POINT_IDENTIFIES, build_next_eip(b));
    for (unsigned i = 0; i < sizeof results / sizeof results[0]; i++)
        emit_load_context(e, results[i].reg, CONTEXT_CPUID + results[i].offset);
    build_point(b, POINT_EIP, build_next_eip(b));
    build_flush_count(b, POINT_EIP, build_next_eip(b));
    call->resume = build_host(b);
    return true;
}
