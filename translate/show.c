/*
 * The listing of `ring3 translate`. Which guest instruction a host instruction belongs to is read off the
 * block's points, as a signal handler does: so the listing shows at the same time what the state is at each
 * place.
 *
 * Read next: build.c, which makes what is shown.
 */
#include "translate/show.h"

#include <Zydis/Zydis.h>

#include "monitor/symbols.h"
#include "shadowpt/shadowpt.h"
#include "translate/build.h"

#define INSN_TEXT    96
#define TEXT_SIZE    128
#define GUEST_COLUMN 46
#define HOST_COLUMN  42
#define N_PAGES      (1u << 20) /* places are EIPs here: there is no memory */

struct listing {
    const struct show_request *request;
    struct cache cache;
    const struct block *block;
    ZydisDecoder decoder;
    ZydisFormatter formatter;
    uint32_t shown; /* guest bytes of the block whose text was printed */
    uint32_t eip;   /* of the guest, as the last line had it */
    uint32_t r8;    /* the last constant loaded into r8d: an EIP, or the number of a call */
    FILE *out;
};

/* ---- the guest's side ---------------------------------------------------------------------------------- */

static void format_place(const struct listing *listing, uint32_t eip, char *text, size_t size)
{
    uint32_t offset;
    const char *name = symbols_find(listing->request->symbols, eip, &offset);
    char *c = text;

    if (name == NULL)
        snprintf(text, size, "%08x", eip);
    else
        snprintf(text, size, offset == 0 ? "%08x %.60s" : "%08x %.60s+0x%x", eip, name, offset);
    for (; *c != '\0'; c++) /* the file is hostile */
        if ((unsigned char)*c < ' ' || *c == 0x7f)
            *c = '?';
}

/* The text of the instruction at `eip`, when the code comes to one that was not shown. */
static void format_guest(struct listing *listing, uint32_t eip, char *text, size_t size)
{
    const struct show_request *request = listing->request;
    uint32_t offset = eip - listing->block->eip, start = listing->block->eip - request->eip;
    char assembly[INSN_TEXT];
    struct insn insn;

    text[0] = '\0';
    if (offset != listing->shown || offset >= listing->block->guest_size ||
        decode_insn(request->bytes + start + offset, request->n - start - offset, 4, &insn) != DECODE_OK)
        return;
    listing->shown = offset + insn.length;
    decode_format(&insn, eip, assembly, sizeof assembly);
    snprintf(text, size, "%08x  %s", eip, assembly);
}

/* ---- what a host instruction is for -------------------------------------------------------------------- */

/* Fields of the context. ROW(offset, text) */
static const struct {
    int offset;
    const char *text;
} fields[] = {
    {CONTEXT_VCPU, "the virtual processor"},
    {CONTEXT_LOOKUP, "to the monitor: find the block for r8d"},
    {CONTEXT_LINK, "to the monitor: find it, and let the jump at r9 go there"},
    {CONTEXT_IF, "IF"},
    {CONTEXT_DF, "DF"},
    {CONTEXT_PENDING, "does an interrupt wait?"},
    {CONTEXT_VIRTUAL, "the other flags"},
    {CONTEXT_BASES + 4 * SEG_FS, "base of FS"},
    {CONTEXT_BASES + 4 * SEG_GS, "base of GS"},
};

static const ZydisDecodedOperand *memory_of(const ZydisDecodedInstruction *insn,
                                            const ZydisDecodedOperand *operand)
{
    for (unsigned i = 0; i < insn->operand_count_visible; i++)
        if (operand[i].type == ZYDIS_OPERAND_TYPE_MEMORY)
            return &operand[i];
    return NULL;
}

static void explain_context(const struct listing *listing, int64_t offset, char *text, size_t size)
{
    if (offset == CONTEXT_CALLOUT && listing->r8 < listing->cache.n_calls) {
        const struct call *call = &listing->cache.calls[listing->r8];
        char assembly[INSN_TEXT];

        decode_format(&call->insn, call->eip, assembly, sizeof assembly);
        snprintf(text, size, "to the monitor: run `%s`", assembly);
        return;
    }
    for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++)
        if (fields[i].offset == offset)
            snprintf(text, size, "%s", fields[i].text);
}

/* A way out: from here on the guest is at another instruction. */
static void explain_point(const struct listing *listing, const struct point *point, char *text, size_t size)
{
    char place[TEXT_SIZE];

    if (point->kind == POINT_SHADOWED) {
        snprintf(text, size, "in the shadow of STI");
    } else if (point->kind == POINT_EIP && point->eip != listing->eip) {
        format_place(listing, point->eip, place, sizeof place);
        snprintf(text, size, "on to %s", place);
    }
}

static void explain(struct listing *listing, const ZydisDecodedInstruction *insn,
                    const ZydisDecodedOperand *operand, uint32_t offset, const struct point *point,
                    char *text, size_t size)
{
    const struct block *block = listing->block;
    const ZydisDecodedOperand *memory = memory_of(insn, operand);

    text[0] = '\0';
    if (insn->mnemonic == ZYDIS_MNEMONIC_MOV && operand[0].type == ZYDIS_OPERAND_TYPE_REGISTER &&
        operand[0].reg.value == ZYDIS_REGISTER_R8D && operand[1].type == ZYDIS_OPERAND_TYPE_IMMEDIATE)
        listing->r8 = (uint32_t)operand[1].imm.value.u;
    if (offset == 0)
        snprintf(text, size, "r8d is not our EIP: ECX back");
    else if (offset == block->entry)
        snprintf(text, size, "indirect jumps come here: is r8d our EIP?");
    else if (memory != NULL && memory->mem.base == ZYDIS_REGISTER_R15)
        explain_context(listing, memory->mem.disp.value, text, size);
    else if (memory != NULL && memory->mem.base == ZYDIS_REGISTER_R13)
        snprintf(text, size, "the jump table");
    else if (insn->mnemonic == ZYDIS_MNEMONIC_JMP && operand[0].type == ZYDIS_OPERAND_TYPE_REGISTER)
        snprintf(text, size, "to the entry of that block, or to the monitor");
    else if (insn->mnemonic == ZYDIS_MNEMONIC_JMP && insn->length == 5 && operand[0].imm.value.s == 0)
        snprintf(text, size, "to be linked: the first time it goes on to the next line");
    else if (offset == block->direct)
        snprintf(text, size, "direct jumps come here");
    else
        explain_point(listing, point, text, size);
}

/* ---- lines --------------------------------------------------------------------------------------------- */

static void print_line(const struct listing *listing, const char *guest, uint32_t offset, const char *host,
                       const char *comment)
{
    fprintf(listing->out, "%-*s +%02x  ", GUEST_COLUMN, guest, offset);
    if (comment[0] != '\0')
        fprintf(listing->out, "%-*s ; %s\n", HOST_COLUMN, host, comment);
    else
        fprintf(listing->out, "%s\n", host);
}

/* The guest instruction whose host code begins here: of several points at one place all are looked at,
 * `point` being the last. */
static void begin_guest(struct listing *listing, const struct point *point, char *guest, size_t size)
{
    const struct point *first = point;

    while (first > listing->block->points && first[-1].offset == point->offset)
        first--;
    for (; first <= point && guest[0] == '\0'; first++) {
        if (first->kind == POINT_TARGET || first->kind == POINT_ENTRY)
            continue;
        format_guest(listing, first->eip, guest, size);
        if (guest[0] != '\0')
            listing->eip = first->eip;
    }
}

/* Returns its length. */
static unsigned print_host(struct listing *listing, uint32_t offset)
{
    const struct block *block = listing->block;
    const uint8_t *code = listing->cache.writable + block->code;
    const struct point *point =
        block_point_at(&listing->cache, block, listing->cache.executable + block->code + offset);
    ZydisDecodedInstruction insn;
    ZydisDecodedOperand operand[ZYDIS_MAX_OPERAND_COUNT];
    char guest[TEXT_SIZE] = "", host[TEXT_SIZE], comment[2 * TEXT_SIZE] = "";

    if (ZYAN_FAILED(ZydisDecoderDecodeFull(&listing->decoder, code + offset, block->code_size - offset, &insn,
                                           operand)) ||
        ZYAN_FAILED(ZydisFormatterFormatInstruction(&listing->formatter, &insn, operand,
                                                    insn.operand_count_visible, host, sizeof host, offset,
                                                    NULL))) {
        print_line(listing, "", offset, "?", "this is no instruction: a bug");
        return 1;
    }
    begin_guest(listing, point, guest, sizeof guest);
    explain(listing, &insn, operand, offset, point, comment, sizeof comment);
    listing->eip = point->eip;
    print_line(listing, guest, offset, host, comment);
    return insn.length;
}

/* Instructions without host code have none to stand beside. */
static void print_rest_of_guest(struct listing *listing, uint32_t until)
{
    char guest[TEXT_SIZE];

    while (listing->shown < until) {
        format_guest(listing, listing->block->eip + listing->shown, guest, sizeof guest);
        if (guest[0] == '\0')
            return;
        fprintf(listing->out, "%s\n", guest);
    }
}

static void print_block(struct listing *listing)
{
    const struct block *block = listing->block;
    char place[TEXT_SIZE];

    listing->shown = 0;
    listing->eip = block->eip;
    format_place(listing, block->eip, place, sizeof place);
    fprintf(listing->out, "block at %s: %u instruction%s, %u bytes, as %u bytes of host code (%s)\n", place,
            block->n_instructions, block->n_instructions == 1 ? "" : "s", block->guest_size, block->code_size,
            block->mode & MODE_USER ? "user" : "kernel");
    for (uint32_t offset = 0; offset < block->code_size;)
        offset += print_host(listing, offset);
    print_rest_of_guest(listing, block->guest_size);
}

/* ---- blocks -------------------------------------------------------------------------------------------- */

static const struct block *build(struct listing *listing, uint32_t offset)
{
    const struct show_request *request = listing->request;
    uint32_t eip = request->eip + offset, in_page = PAGE_SIZE - (eip & PAGE_MASK);
    size_t n = request->n - offset;
    struct source source = {.bytes = request->bytes + offset,
                            .limit = UINT32_MAX,
                            .n = n < in_page ? (uint32_t)n : in_page,
                            .place = eip,
                            .eip = eip,
                            .linear = eip,
                            .has_rorx = __builtin_cpu_supports("bmi2"),
                            .mode = MODE_FLAT_CS | MODE_FLAT_SS | MODE_FLAT_DS | MODE_FLAT_ES | MODE_FULL_FS |
                                    MODE_FULL_GS | MODE_FPU | MODE_SSE | (request->is_user ? MODE_USER : 0)};
    const struct block *block = build_block(&listing->cache, &source);

    if (block != NULL || n <= in_page)
        return block;
    source.second = request->bytes + offset + in_page;
    source.second_n = n - in_page < PAGE_SIZE ? (uint32_t)(n - in_page) : PAGE_SIZE;
    source.second_rpn = (eip + in_page) >> PAGE_SHIFT;
    return build_block(&listing->cache, &source);
}

static bool show_all(struct listing *listing, char *error, size_t error_size)
{
    const struct show_request *request = listing->request;
    uint32_t offset = 0;

    for (unsigned i = 0; i < request->n_blocks; i++) {
        if (offset >= request->n) {
            snprintf(error, error_size, "the code in the file ends at %08x", request->eip + offset);
            return false;
        }
        if (!cache_has_room(&listing->cache))
            cache_empty(&listing->cache);
        listing->block = build(listing, offset);
        if (listing->block == NULL) {
            snprintf(error, error_size, "no instruction begins at %08x", request->eip + offset);
            return false;
        }
        fputs(i == 0 ? "" : "\n", listing->out);
        print_block(listing);
        offset += listing->block->guest_size;
    }
    return true;
}

bool show_blocks(const struct show_request *request, FILE *out, char *error, size_t error_size)
{
    struct listing listing = {.request = request, .out = out};
    bool is_done;

    if (!cache_create(&listing.cache, N_PAGES, error, error_size))
        return false;
    ZydisDecoderInit(&listing.decoder, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
    ZydisFormatterInit(&listing.formatter, ZYDIS_FORMATTER_STYLE_INTEL);
    ZydisFormatterSetProperty(&listing.formatter, ZYDIS_FORMATTER_PROP_HEX_UPPERCASE, ZYAN_FALSE);
    ZydisFormatterSetProperty(&listing.formatter, ZYDIS_FORMATTER_PROP_ADDR_PADDING_ABSOLUTE,
                              ZYDIS_PADDING_DISABLED);
    ZydisFormatterSetProperty(&listing.formatter, ZYDIS_FORMATTER_PROP_DISP_PADDING, ZYDIS_PADDING_DISABLED);
    ZydisFormatterSetProperty(&listing.formatter, ZYDIS_FORMATTER_PROP_IMM_PADDING, ZYDIS_PADDING_DISABLED);
    is_done = show_all(&listing, error, error_size);
    cache_destroy(&listing.cache);
    return is_done;
}
