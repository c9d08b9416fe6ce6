/*
 * The instructions that move FPU state as a whole: FNSTENV FLDENV FNSAVE FRSTOR FXSAVE FXRSTOR LDMXCSR
 * STMXCSR, and the masked stores. Their native 64-bit forms have other layouts, or show the host's pointers;
 * so they are written out, on the FXSAVE image.
 *
 * Read next: fpu.c, which calls them.
 */
#include "vcpu/fxsave.h"
#include "vcpu/internal.h"
#include "vcpu/ordinary.h"

/* ---- memory: areas larger than one access, whole or not at all ----------------------------------------- */

#define CHUNK 64u

static enum outcome access_area(struct vcpu *vcpu, gva_t linear, void *buf, unsigned size, unsigned alignment,
                                unsigned kind)
{
    for (unsigned done = 0; done < size; done += CHUNK) {
        unsigned n = size - done < CHUNK ? size - done : CHUNK;
        enum outcome outcome =
            vcpu_access_aligned(vcpu, linear + done, buf == NULL ? NULL : (uint8_t *)buf + done, n, alignment,
                                kind | vcpu_access_rights(vcpu->cpl));

        if (outcome != OUTCOME_DONE)
            return outcome;
    }
    return OUTCOME_DONE;
}

static enum outcome locate_area(struct vcpu *vcpu, const struct insn *insn, unsigned size, unsigned kind,
                                gva_t *linear)
{
    const struct operand *operand = &insn->operand[0];

    return vcpu_segment_check(vcpu, operand->mem.segment, vcpu_effective_address(vcpu, insn, operand), size,
                              kind, linear);
}

static enum outcome read_area(struct vcpu *vcpu, const struct insn *insn, void *buf, unsigned size)
{
    gva_t linear;
    enum outcome outcome = locate_area(vcpu, insn, size, ACCESS_READ, &linear);

    if (outcome != OUTCOME_DONE)
        return outcome;
    return access_area(vcpu, linear, buf, size, insn->operand_size, ACCESS_READ);
}

static enum outcome write_area(struct vcpu *vcpu, const struct insn *insn, const void *buf, unsigned size)
{
    gva_t linear;
    enum outcome outcome = locate_area(vcpu, insn, size, ACCESS_WRITE, &linear);

    if (outcome == OUTCOME_DONE)
        outcome = access_area(vcpu, linear, NULL, size, insn->operand_size, ACCESS_WRITE | ACCESS_PROBE);
    if (outcome != OUTCOME_DONE)
        return outcome;
    return access_area(vcpu, linear, (void *)buf, size, insn->operand_size, ACCESS_WRITE);
}

/* ---- registers and tags -------------------------------------------------------------------------------- */

void fxsave_set_top(struct fxsave *image, unsigned top)
{
    const struct fxsave old = *image;
    unsigned moved = top - fxsave_top(image);

    for (unsigned i = 0; i < 8; i++)
        memcpy(image->st[i], old.st[(i + moved) & 7], sizeof image->st[i]);
    image->status = (uint16_t)((image->status & ~X87_STATUS_TOP) | top << X87_TOP_SHIFT);
}

void fxsave_set_summary(struct fxsave *image)
{
    image->status &= (uint16_t) ~(X87_STATUS_ES | X87_STATUS_B);
    if (fxsave_pending(image))
        image->status |= X87_STATUS_ES | X87_STATUS_B;
}

enum x87_tag { TAG_VALID, TAG_ZERO, TAG_SPECIAL, TAG_EMPTY };

/* SDM Vol 1 8.1.7: NaN, infinity, denormal and unsupported are special. */
static enum x87_tag tag_of(const uint8_t *number)
{
    uint64_t significand;
    uint16_t exponent;

    memcpy(&significand, number, sizeof significand);
    memcpy(&exponent, number + sizeof significand, sizeof exponent);
    exponent &= 0x7fff;
    if (exponent == 0 && significand == 0)
        return TAG_ZERO;
    if (exponent == 0 || exponent == 0x7fff || !(significand >> 63))
        return TAG_SPECIAL;
    return TAG_VALID;
}

/* Two bits for each physical register. */
static uint16_t full_tags(const struct fxsave *image)
{
    unsigned tags = 0;

    for (unsigned i = 0; i < 8; i++) {
        bool is_empty = !(image->tags & (1u << i));
        enum x87_tag tag = is_empty ? TAG_EMPTY : tag_of(image->st[(i - fxsave_top(image)) & 7]);

        tags |= (unsigned)tag << 2 * i;
    }
    return (uint16_t)tags;
}

static uint8_t abridged_tags(uint16_t full)
{
    unsigned tags = 0;

    for (unsigned i = 0; i < 8; i++) {
        if ((full >> 2 * i & 3) != TAG_EMPTY)
            tags |= 1u << i;
    }
    return (uint8_t)tags;
}

static void initialize_x87(struct fxsave *image)
{
    fxsave_set_top(image, 0);
    image->control = X87_CONTROL_INIT;
    image->status = 0;
    image->tags = 0;
    image->opcode = 0;
    image->instruction = image->data = 0;
    image->instruction_selector = image->data_selector = 0;
}

/* ---- the environment: seven words or doublewords (SDM Vol 1 figures 8-9 to 8-12) ----------------------- */

#define ENVIRONMENT_WORDS 7
#define OPCODE_MASK       0x7ffu
#define REAL_HIGH_SHIFT   12 /* where real mode keeps the bits of a pointer above the low 16 */

static bool has_selectors(const struct vcpu *vcpu)
{
    return vcpu_is_protected(vcpu) && !vcpu_is_v8086(vcpu);
}

/* Of the 16-bit forms these are the low halves. */
static void pack_environment(const struct vcpu *vcpu, const struct fxsave *image, uint32_t *words)
{
    /* Unused high halves read as ones. */
    const uint32_t unused = 0xffff0000u;

    words[0] = unused | image->control;
    words[1] = unused | image->status;
    words[2] = unused | full_tags(image);
    if (has_selectors(vcpu)) {
        words[3] = image->instruction;
        words[4] = image->instruction_selector | (image->opcode & OPCODE_MASK) << 16;
        words[5] = image->data;
        words[6] = unused | image->data_selector;
    } else {
        uint32_t instruction = ((uint32_t)image->instruction_selector << 4) + image->instruction;
        uint32_t data = ((uint32_t)image->data_selector << 4) + image->data;

        words[3] = unused | (instruction & 0xffff);
        words[4] = (instruction >> 16) << REAL_HIGH_SHIFT | (image->opcode & OPCODE_MASK);
        words[5] = unused | (data & 0xffff);
        words[6] = (data >> 16) << REAL_HIGH_SHIFT;
    }
}

static void unpack_environment(const struct vcpu *vcpu, const uint32_t *words, unsigned size,
                               struct fxsave *image)
{
    const uint32_t pointer_mask = size == 2 ? 0xffff : 0xffffffff;

    image->control = (words[0] & X87_CONTROL_DEFINED) | X87_CONTROL_FIXED;
    fxsave_set_top(image, (words[1] & X87_STATUS_TOP) >> X87_TOP_SHIFT);
    image->status = (uint16_t)words[1];
    image->tags = abridged_tags((uint16_t)words[2]);
    if (has_selectors(vcpu)) {
        image->instruction = words[3] & pointer_mask;
        image->instruction_selector = (uint16_t)words[4];
        image->opcode = size == 2 ? 0 : words[4] >> 16 & OPCODE_MASK;
        image->data = words[5] & pointer_mask;
        image->data_selector = (uint16_t)words[6];
    } else {
        image->instruction = (words[3] & 0xffff) | words[4] >> REAL_HIGH_SHIFT << 16;
        image->instruction_selector = 0;
        image->opcode = words[4] & OPCODE_MASK;
        image->data = (words[5] & 0xffff) | words[6] >> REAL_HIGH_SHIFT << 16;
        image->data_selector = 0;
    }
    fxsave_set_summary(image);
}

static void words_to_bytes(const uint32_t *words, unsigned size, uint8_t *bytes)
{
    for (unsigned i = 0; i < ENVIRONMENT_WORDS; i++)
        memcpy(bytes + (size_t)i * size, &words[i], size);
}

static void bytes_to_words(const uint8_t *bytes, unsigned size, uint32_t *words)
{
    for (unsigned i = 0; i < ENVIRONMENT_WORDS; i++) {
        words[i] = 0;
        memcpy(&words[i], bytes + (size_t)i * size, size);
    }
}

#define X87_REGISTER_SIZE 10u
#define AREA_MAX          (ENVIRONMENT_WORDS * 4 + 8 * X87_REGISTER_SIZE)

enum outcome fpu_save_environment(struct vcpu *vcpu, const struct insn *insn)
{
    struct fxsave image = fxsave_get(vcpu);
    uint32_t words[ENVIRONMENT_WORDS];
    uint8_t area[AREA_MAX];
    enum outcome outcome;

    pack_environment(vcpu, &image, words);
    words_to_bytes(words, insn->operand_size, area);
    outcome = write_area(vcpu, insn, area, ENVIRONMENT_WORDS * insn->operand_size);
    if (outcome != OUTCOME_DONE)
        return outcome;
    image.control |= X87_EXCEPTIONS; /* stored, then masked: a handler is expected to look */
    fxsave_set_summary(&image);
    fxsave_put(vcpu, &image);
    return vcpu_finish(vcpu, insn);
}

enum outcome fpu_restore_environment(struct vcpu *vcpu, const struct insn *insn)
{
    struct fxsave image = fxsave_get(vcpu);
    uint32_t words[ENVIRONMENT_WORDS];
    uint8_t area[AREA_MAX];
    enum outcome outcome = read_area(vcpu, insn, area, ENVIRONMENT_WORDS * insn->operand_size);

    if (outcome != OUTCOME_DONE)
        return outcome;
    bytes_to_words(area, insn->operand_size, words);
    unpack_environment(vcpu, words, insn->operand_size, &image);
    fxsave_put(vcpu, &image);
    return vcpu_finish(vcpu, insn);
}

enum outcome fpu_save(struct vcpu *vcpu, const struct insn *insn)
{
    const unsigned environment = ENVIRONMENT_WORDS * insn->operand_size;
    struct fxsave image = fxsave_get(vcpu);
    uint32_t words[ENVIRONMENT_WORDS];
    uint8_t area[AREA_MAX];
    enum outcome outcome;

    pack_environment(vcpu, &image, words);
    words_to_bytes(words, insn->operand_size, area);
    for (unsigned i = 0; i < 8; i++)
        memcpy(area + environment + (size_t)i * X87_REGISTER_SIZE, image.st[i], X87_REGISTER_SIZE);
    outcome = write_area(vcpu, insn, area, environment + 8 * X87_REGISTER_SIZE);
    if (outcome != OUTCOME_DONE)
        return outcome;
    initialize_x87(&image);
    fxsave_put(vcpu, &image);
    return vcpu_finish(vcpu, insn);
}

enum outcome fpu_restore(struct vcpu *vcpu, const struct insn *insn)
{
    const unsigned environment = ENVIRONMENT_WORDS * insn->operand_size;
    struct fxsave image = fxsave_get(vcpu);
    uint32_t words[ENVIRONMENT_WORDS];
    uint8_t area[AREA_MAX];
    enum outcome outcome = read_area(vcpu, insn, area, environment + 8 * X87_REGISTER_SIZE);

    if (outcome != OUTCOME_DONE)
        return outcome;
    bytes_to_words(area, insn->operand_size, words);
    unpack_environment(vcpu, words, insn->operand_size, &image);
    for (unsigned i = 0; i < 8; i++)
        memcpy(image.st[i], area + environment + (size_t)i * X87_REGISTER_SIZE, X87_REGISTER_SIZE);
    fxsave_put(vcpu, &image);
    return vcpu_finish(vcpu, insn);
}

/* ---- FXSAVE, FXRSTOR, MXCSR ---------------------------------------------------------------------------- */

/* All 512 bytes are checked; they must be aligned whatever EFLAGS.AC says. */
static enum outcome locate_fxsave_area(struct vcpu *vcpu, const struct insn *insn, unsigned kind,
                                       gva_t *linear)
{
    enum outcome outcome = locate_area(vcpu, insn, sizeof(struct fxsave), kind, linear);

    if (outcome != OUTCOME_DONE)
        return outcome;
    if (*linear & 15)
        return vcpu_raise_error(vcpu, EXCEPTION_GP, 0);
    return access_area(vcpu, *linear, NULL, sizeof(struct fxsave), 1, kind | ACCESS_PROBE);
}

enum outcome fpu_fxsave(struct vcpu *vcpu, const struct insn *insn)
{
    struct fxsave image = fxsave_get(vcpu);
    gva_t linear;
    enum outcome outcome = locate_fxsave_area(vcpu, insn, ACCESS_WRITE, &linear);

    image.mxcsr_mask = MXCSR_DEFINED;
    if (outcome == OUTCOME_DONE)
        outcome = access_area(vcpu, linear, &image, FXSAVE_USED, 1, ACCESS_WRITE);
    return outcome == OUTCOME_DONE ? vcpu_finish(vcpu, insn) : outcome;
}

enum outcome fpu_fxrstor(struct vcpu *vcpu, const struct insn *insn)
{
    struct fxsave image = fxsave_get(vcpu);
    uint32_t mxcsr_mask = image.mxcsr_mask;
    gva_t linear;
    enum outcome outcome = locate_fxsave_area(vcpu, insn, ACCESS_READ, &linear);

    if (outcome == OUTCOME_DONE)
        outcome = access_area(vcpu, linear, &image, FXSAVE_USED, 1, ACCESS_READ);
    if (outcome != OUTCOME_DONE)
        return outcome;
    if (image.mxcsr & ~MXCSR_DEFINED)
        return vcpu_raise_error(vcpu, EXCEPTION_GP, 0);
    image.mxcsr_mask = mxcsr_mask;
    image.control = (image.control & X87_CONTROL_DEFINED) | X87_CONTROL_FIXED;
    fxsave_set_summary(&image);
    fxsave_put(vcpu, &image);
    return vcpu_finish(vcpu, insn);
}

enum outcome fpu_load_mxcsr(struct vcpu *vcpu, const struct insn *insn)
{
    struct fxsave image = fxsave_get(vcpu);
    enum outcome outcome = vcpu_operand_read(vcpu, insn, &insn->operand[0], &image.mxcsr);

    if (outcome != OUTCOME_DONE)
        return outcome;
    if (image.mxcsr & ~MXCSR_DEFINED)
        return vcpu_raise_error(vcpu, EXCEPTION_GP, 0);
    fxsave_put(vcpu, &image);
    return vcpu_finish(vcpu, insn);
}

enum outcome fpu_store_mxcsr(struct vcpu *vcpu, const struct insn *insn)
{
    enum outcome outcome = vcpu_operand_write(vcpu, insn, &insn->operand[0], fxsave_get(vcpu).mxcsr);

    return outcome == OUTCOME_DONE ? vcpu_finish(vcpu, insn) : outcome;
}

/* ---- masked stores ------------------------------------------------------------------------------------- */

/* MMX register i is physical register i (SDM Vol 1 9.2.2), the image is in the order of the stack. */
static const uint8_t *vector_register(const struct fxsave *image, const struct operand *operand)
{
    unsigned index = operand->reg.index & 7;

    if (operand->reg.class == REGISTER_XMM)
        return image->xmm[index];
    return image->st[(index - fxsave_top(image)) & 7];
}

/* Stores the bytes of operand 0 whose byte in operand 1 has its top bit set at [EDI]: all, or none. */
enum outcome fpu_masked_store(struct vcpu *vcpu, const struct insn *insn)
{
    const bool is_mmx = insn->operand[0].reg.class == REGISTER_MMX;
    struct fxsave image = fxsave_get(vcpu);
    const uint8_t *data = vector_register(&image, &insn->operand[0]);
    const uint8_t *mask = vector_register(&image, &insn->operand[1]);
    const enum segment_index segment = insn_memory_segment(insn);
    const uint32_t address_mask = insn->address_size == 2 ? 0xffff : 0xffffffff;

    for (unsigned pass = 0; pass < 2; pass++) {
        for (unsigned i = 0; i < (is_mmx ? 8 : 16); i++) {
            gva_t linear;
            enum outcome outcome;
            uint8_t byte = data[i];

            if (!(mask[i] & 0x80))
                continue;
            outcome = vcpu_segment_check(vcpu, segment, (vcpu->gpr[EDI] + i) & address_mask, 1, ACCESS_WRITE,
                                         &linear);
            if (outcome == OUTCOME_DONE)
                outcome = vcpu_access(vcpu, linear, &byte, 1,
                                      ACCESS_WRITE | vcpu_access_rights(vcpu->cpl) |
                                          (pass == 0 ? ACCESS_PROBE : 0));
            if (outcome != OUTCOME_DONE)
                return outcome;
        }
    }
    if (is_mmx) { /* any MMX instruction: TOP is 0, and all registers are valid */
        fxsave_set_top(&image, 0);
        image.tags = 0xff;
        fxsave_put(vcpu, &image);
    }
    return vcpu_finish(vcpu, insn);
}
