/*
 * String instructions: MOVS CMPS SCAS LODS STOS, and INS and OUTS, which are sensitive. One element is one
 * instruction in all but name: registers move on after each, and a fault in the middle leaves those done done
 * (SDM Vol 2B REP).
 *
 * A repeated one runs no more than STRING_BATCH elements in a call, so that a guest cannot keep interrupts
 * out by a long one; the CPU, too, takes interrupts between elements.
 *
 * Read next: fpu.c.
 */
#include <Zydis/Zydis.h>
#include <string.h>

#include "vcpu/internal.h"
#include "vcpu/ordinary.h"

#define STRING_BATCH   4096
#define WORTH_REACHING 4u /* elements */

#define OPCODE_MOVS 0xa4
#define OPCODE_STOS 0xaa

struct string {
    struct vcpu *vcpu;
    const struct insn *insn;
    unsigned size;         /* of an element */
    uint32_t address_mask; /* of ESI, EDI and ECX */
    enum segment_index source_segment;
};

/* ---- moving along -------------------------------------------------------------------------------------- */

static struct string string_of(struct vcpu *vcpu, const struct insn *insn)
{
    struct string string = {
        .vcpu = vcpu,
        .insn = insn,
        .size = (insn->opcode & 1) ? insn->operand_size : 1,
        .address_mask = insn->address_size == 2 ? 0xffff : 0xffffffff,
        .source_segment = SEG_DS,
    };

    for (unsigned i = 0; i < insn->n_operands; i++) { /* ESI's segment may be overridden, EDI's is ES */
        if (insn->operand[i].kind == OPERAND_MEMORY && insn->operand[i].mem.base == ESI)
            string.source_segment = insn->operand[i].mem.segment;
    }
    return string;
}

static uint32_t masked_gpr(const struct string *string, enum gpr_index index)
{
    return string->vcpu->gpr[index] & string->address_mask;
}

static void add_masked(const struct string *string, enum gpr_index index, uint32_t by)
{
    uint32_t *gpr = &string->vcpu->gpr[index];

    *gpr = (*gpr & ~string->address_mask) | ((*gpr + by) & string->address_mask);
}

static void advance(const struct string *string, enum gpr_index index)
{
    add_masked(string, index, (string->vcpu->eflags & EFLAGS_DF) ? -string->size : string->size);
}

/* ---- the element of each ------------------------------------------------------------------------------- */

static enum outcome read_source(const struct string *string, uint32_t *value)
{
    *value = 0;
    return vcpu_read(string->vcpu, string->source_segment, masked_gpr(string, ESI), value, string->size);
}

static enum outcome read_destination(const struct string *string, uint32_t *value)
{
    *value = 0;
    return vcpu_read(string->vcpu, SEG_ES, masked_gpr(string, EDI), value, string->size);
}

static enum outcome write_destination(const struct string *string, uint32_t value)
{
    return vcpu_write(string->vcpu, SEG_ES, masked_gpr(string, EDI), &value, string->size);
}

/* Before a port is read, which a device notices: would the write fault? */
static enum outcome probe_destination(const struct string *string)
{
    struct vcpu *vcpu = string->vcpu;
    gva_t linear;
    enum outcome outcome =
        vcpu_segment_check(vcpu, SEG_ES, masked_gpr(string, EDI), string->size, ACCESS_WRITE, &linear);

    if (outcome != OUTCOME_DONE)
        return outcome;
    return vcpu_access(vcpu, linear, NULL, string->size,
                       ACCESS_WRITE | ACCESS_PROBE | vcpu_access_rights(vcpu->cpl));
}

static enum outcome move_element(const struct string *string)
{
    uint32_t value;
    enum outcome outcome = read_source(string, &value);

    if (outcome == OUTCOME_DONE)
        outcome = write_destination(string, value);
    if (outcome != OUTCOME_DONE)
        return outcome;
    advance(string, ESI);
    advance(string, EDI);
    return OUTCOME_DONE;
}

static enum outcome store_element(const struct string *string)
{
    enum outcome outcome = write_destination(string, string->vcpu->gpr[EAX]);

    if (outcome == OUTCOME_DONE)
        advance(string, EDI);
    return outcome;
}

static enum outcome load_element(const struct string *string)
{
    uint32_t mask = string->size == 4 ? 0xffffffff : (1u << 8 * string->size) - 1;
    uint32_t *eax = &string->vcpu->gpr[EAX], value;
    enum outcome outcome = read_source(string, &value);

    if (outcome != OUTCOME_DONE)
        return outcome;
    *eax = (*eax & ~mask) | value;
    advance(string, ESI);
    return OUTCOME_DONE;
}

/* The flags of left - right. */
static void set_compare_flags(struct vcpu *vcpu, uint32_t left, uint32_t right, unsigned size)
{
    const uint32_t sign = 1u << (8 * size - 1), mask = sign | (sign - 1);
    uint32_t result, eflags = vcpu->eflags & ~EFLAGS_ARITHMETIC;

    left &= mask;
    right &= mask;
    result = (left - right) & mask;
    if (left < right)
        eflags |= EFLAGS_CF;
    if (!(__builtin_popcount(result & 0xff) & 1))
        eflags |= EFLAGS_PF;
    if ((left ^ right ^ result) & 0x10)
        eflags |= EFLAGS_AF;
    if (result == 0)
        eflags |= EFLAGS_ZF;
    if (result & sign)
        eflags |= EFLAGS_SF;
    if ((left ^ right) & (left ^ result) & sign)
        eflags |= EFLAGS_OF;
    vcpu->eflags = eflags;
}

/* Which operand is read first, and so faults first, the SDM leaves open: it is the second one (Zen 4). */
static enum outcome compare_element(const struct string *string)
{
    uint32_t left, right;
    enum outcome outcome = read_destination(string, &right);

    if (outcome == OUTCOME_DONE)
        outcome = read_source(string, &left);
    if (outcome != OUTCOME_DONE)
        return outcome;
    set_compare_flags(string->vcpu, left, right, string->size);
    advance(string, ESI);
    advance(string, EDI);
    return OUTCOME_DONE;
}

static enum outcome scan_element(const struct string *string)
{
    uint32_t value;
    enum outcome outcome = read_destination(string, &value);

    if (outcome != OUTCOME_DONE)
        return outcome;
    set_compare_flags(string->vcpu, string->vcpu->gpr[EAX], value, string->size);
    advance(string, EDI);
    return OUTCOME_DONE;
}

static enum outcome input_element(const struct string *string)
{
    struct vcpu *vcpu = string->vcpu;
    enum outcome outcome = probe_destination(string);

    if (outcome == OUTCOME_DONE)
        outcome =
            write_destination(string, vcpu->ops->port_read(vcpu, (uint16_t)vcpu->gpr[EDX], string->size));
    if (outcome == OUTCOME_DONE)
        advance(string, EDI);
    return outcome;
}

static enum outcome output_element(const struct string *string)
{
    struct vcpu *vcpu = string->vcpu;
    uint32_t value;
    enum outcome outcome = read_source(string, &value);

    if (outcome != OUTCOME_DONE)
        return outcome;
    vcpu->ops->port_write(vcpu, (uint16_t)vcpu->gpr[EDX], string->size, value);
    advance(string, ESI);
    return OUTCOME_DONE;
}

/* ---- many elements at once ----------------------------------------------------------------------------- */

/* Those from a register's address on that lie in one page, and can be reached as a whole. */
struct stretch {
    uint8_t *bytes; /* the lowest of them; NULL: none can */
    uint32_t n;     /* elements */
};

static uint32_t lesser(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

static struct stretch reach(const struct string *string, enum segment_index segment, enum gpr_index index,
                            uint32_t most, unsigned kind)
{
    struct vcpu *vcpu = string->vcpu;
    bool is_down = (vcpu->eflags & EFLAGS_DF) != 0;
    uint32_t offset = masked_gpr(string, index), size = string->size;
    unsigned rights = vcpu_access_rights(vcpu->cpl);
    struct stretch stretch = {.n = most};
    gva_t linear;

    if (vcpu_segment_check(vcpu, segment, offset, size, kind, &linear) != OUTCOME_DONE ||
        (linear & PAGE_MASK) > PAGE_SIZE - size ||
        (linear % size != 0 && vcpu_checks_alignment(vcpu, rights)))
        return stretch;
    /* ...up to the end of the page, and to where the register wraps */
    if (is_down)
        stretch.n = lesser(stretch.n, lesser((linear & PAGE_MASK) / size, offset / size) + 1);
    else
        stretch.n = lesser(stretch.n, lesser((PAGE_SIZE - size - (linear & PAGE_MASK)) / size,
                                             (string->address_mask - offset) / size) +
                                          1);
    if (is_down)
        offset -= (stretch.n - 1) * size;
    if (vcpu_segment_check(vcpu, segment, offset, stretch.n * size, kind, &linear) == OUTCOME_DONE)
        stretch.bytes = vcpu->ops->reach(vcpu, linear, kind | rights);
    return stretch;
}

static void fill(uint8_t *bytes, size_t n, uint32_t value, unsigned size)
{
    switch (size) {
    case 1:
        memset(bytes, (int)value, n);
        break;
    case 2:
        for (size_t i = 0; i < n; i++)
            memcpy(bytes + i * 2, &value, 2);
        break;
    default:
        for (size_t i = 0; i < n; i++)
            memcpy(bytes + i * 4, &value, 4);
        break;
    }
}

static uint32_t store_many(const struct string *string, uint32_t most)
{
    struct stretch to = reach(string, SEG_ES, EDI, most, ACCESS_WRITE);

    if (to.bytes == NULL)
        return 0;
    fill(to.bytes, to.n, string->vcpu->gpr[EAX], string->size);
    return to.n;
}

/* A copy that meets its own beginning repeats it. */
static void copy(uint8_t *to, const uint8_t *from, uint32_t n, unsigned size, bool is_down)
{
    size_t n_bytes = (size_t)n * size;
    ptrdiff_t ahead = is_down ? from - to : to - from;
    uint32_t element;

    if (ahead <= 0 || ahead >= (ptrdiff_t)n_bytes) {
        memmove(to, from, n_bytes);
        return;
    }
    for (size_t i = 0; i < n_bytes; i += size) {
        size_t at = is_down ? n_bytes - size - i : i;

        memcpy(&element, from + at, size);
        memcpy(to + at, &element, size);
    }
}

static uint32_t move_many(const struct string *string, uint32_t most)
{
    bool is_down = (string->vcpu->eflags & EFLAGS_DF) != 0;
    struct stretch from = reach(string, string->source_segment, ESI, most, ACCESS_READ);
    struct stretch to = from.bytes == NULL ? from : reach(string, SEG_ES, EDI, from.n, ACCESS_WRITE);

    if (to.bytes == NULL)
        return 0;
    if (is_down)
        from.bytes += (size_t)(from.n - to.n) * string->size;
    copy(to.bytes, from.bytes, to.n, string->size, is_down);
    return to.n;
}

/* How many of at most so many elements were done; 0: the next is to be done by itself. */
static uint32_t run_many(const struct string *string, uint32_t most)
{
    uint32_t n, bytes;
    bool is_move = (string->insn->opcode & ~1u) == OPCODE_MOVS;

    if (string->vcpu->ops->reach == NULL || most < WORTH_REACHING ||
        (!is_move && (string->insn->opcode & ~1u) != OPCODE_STOS))
        return 0;
    n = is_move ? move_many(string, most) : store_many(string, most);
    bytes = (string->vcpu->eflags & EFLAGS_DF) ? -(n * string->size) : n * string->size;
    add_masked(string, EDI, bytes);
    if (is_move)
        add_masked(string, ESI, bytes);
    add_masked(string, ECX, -n);
    return n;
}

/* ---- repetition ---------------------------------------------------------------------------------------- */

/* REPE goes on while ZF is set, REPNE while it is clear; CMPS and SCAS only. */
static bool is_ended_by_zf(const struct string *string)
{
    return ((string->vcpu->eflags & EFLAGS_ZF) != 0) == ((string->insn->prefixes & INSN_REPNE) != 0);
}

/* In the middle of a repeated comparison, by a fault: Intel's processors show the flags from before it (SDM
 * Vol 2 REP), AMD's those of the last element. Both may, since the instruction begins again and sets them in
 * any case; ours are those of the host, as where the SDM leaves flags undefined, so that it does not matter
 * who runs it. */
static void leave_in_the_middle(struct vcpu *vcpu, uint32_t flags_before)
{
    if (__builtin_cpu_is("intel"))
        vcpu->eflags = (vcpu->eflags & ~EFLAGS_ARITHMETIC) | (flags_before & EFLAGS_ARITHMETIC);
}

static enum outcome run_string(const struct string *string, enum outcome (*element)(const struct string *),
                               bool is_comparison)
{
    struct vcpu *vcpu = string->vcpu;
    bool is_repeated = string->insn->prefixes & (INSN_REP | INSN_REPNE);
    uint32_t flags_before = vcpu->eflags;
    unsigned batch = (vcpu->eflags & EFLAGS_TF) ? 1 : STRING_BATCH; /* a single-step trap after each */

    if (!is_repeated) {
        enum outcome outcome = element(string);

        return outcome == OUTCOME_DONE ? vcpu_finish(vcpu, string->insn) : outcome;
    }
    while (masked_gpr(string, ECX) != 0) {
        uint32_t left = masked_gpr(string, ECX), n = run_many(string, left < batch ? left : batch);
        enum outcome outcome;

        if (n != 0) {
            batch -= n;
            continue;
        }
        outcome = batch-- == 0 ? OUTCOME_PARTIAL : element(string);
        if (outcome != OUTCOME_DONE) {
            if (is_comparison)
                leave_in_the_middle(vcpu, flags_before);
            return outcome;
        }
        add_masked(string, ECX, -1u);
        if (is_comparison && is_ended_by_zf(string))
            break;
    }
    return vcpu_finish(vcpu, string->insn);
}

enum outcome ordinary_string(struct vcpu *vcpu, const struct insn *insn)
{
    struct string string = string_of(vcpu, insn);

    switch (insn->opcode & ~1u) {
    case 0xa4:
        return run_string(&string, move_element, false);
    case 0xa6:
        return run_string(&string, compare_element, true);
    case 0xaa:
        return run_string(&string, store_element, false);
    case 0xac:
        return run_string(&string, load_element, false);
    case 0xae:
        return run_string(&string, scan_element, true);
    default:
        return OUTCOME_UNKNOWN;
    }
}

static enum outcome run_port_string(struct vcpu *vcpu, const struct insn *insn,
                                    enum outcome (*element)(const struct string *))
{
    struct string string = string_of(vcpu, insn);
    enum outcome outcome;

    outcome = vcpu_check_io_permission(vcpu, (uint16_t)vcpu->gpr[EDX], string.size);
    return outcome == OUTCOME_DONE ? run_string(&string, element, false) : outcome;
}

enum outcome handle_ins(struct vcpu *vcpu, const struct insn *insn)
{
    return run_port_string(vcpu, insn, input_element);
}

enum outcome handle_outs(struct vcpu *vcpu, const struct insn *insn)
{
    return run_port_string(vcpu, insn, output_element);
}
