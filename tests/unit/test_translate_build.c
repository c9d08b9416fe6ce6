/*
 * translate/build and lower*: what host code may look like, whatever the guest's bytes are. Blocks are made
 * from all code of the guests, in every mode, and from random bytes; each host instruction is decoded and
 * must keep the rules that confine the guest: memory only through the window, the reserved registers never
 * written, nothing privileged.
 */
#include <Zydis/Zydis.h>
#include <check.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "monitor/image.h"
#include "shadowpt/shadowpt.h"
#include "translate/build.h"

#define N_PAGES    (1u << 20)
#define N_RANDOM   30000
#define MAX_GUESTS 32
#define CODE_MAX   (16u << 10)

#define FLAT   (MODE_FLAT_CS | MODE_FLAT_DS | MODE_FLAT_ES | MODE_FLAT_SS)
#define FULL   (MODE_FULL_FS | MODE_FULL_GS)
#define VECTOR (MODE_FPU | MODE_SSE)

static const uint32_t modes[] = {
    FLAT | FULL | VECTOR,
    FLAT | FULL | VECTOR | MODE_USER,
    FLAT,
    FLAT | MODE_FPU | MODE_USER,
    MODE_FLAT_CS | MODE_FLAT_SS | FULL,
    MODE_FLAT_DS | MODE_FLAT_ES | 1u << MODE_CS_SHIFT,
    FLAT | FULL | VECTOR | MODE_SINGLE,
    FLAT | FULL | VECTOR | MODE_TSC,
    0,
};

#define N_MODES ((int)(sizeof modes / sizeof modes[0]))

static struct cache cache;
static ZydisDecoder decoder;
static const struct block *block;
static const uint8_t *code;
static bool is_start[CODE_MAX]; /* of a host instruction */

static void setup(void)
{
    char error[256];

    ck_assert_msg(cache_create(&cache, N_PAGES, error, sizeof error), "%s", error);
    ZydisDecoderInit(&decoder, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
}

static void teardown(void)
{
    cache_destroy(&cache);
}

/* ---- one host instruction ------------------------------------------------------------------------------ */

struct host {
    ZydisDecodedInstruction insn;
    ZydisDecodedOperand operand[ZYDIS_MAX_OPERAND_COUNT];
    uint32_t offset;
};

/* Check notes each assertion in a file, and there are hundreds of millions: so only those that fail are one.
 */
#define REQUIRE(condition)                                                                                   \
    do {                                                                                                     \
        if (!(condition))                                                                                    \
            fail_at(host, #condition);                                                                       \
    } while (0)

static void fail_at(const struct host *host, const char *what)
{
    const uint8_t *place = cache.executable + block->code + host->offset;

    ck_abort_msg("block at %08x in mode %x, host code +%x (%s, guest %08x): not so: %s", block->eip,
                 block->mode, host->offset, ZydisMnemonicGetString(host->insn.mnemonic),
                 block_point_at(&cache, block, place)->eip, what);
}

static void check_that(const struct host *host, bool is_so, const char *what)
{
    if (!is_so)
        fail_at(host, what);
}

#define REQUIRE_OF_BLOCK(condition)                                                                          \
    do {                                                                                                     \
        if (!(condition))                                                                                    \
            ck_abort_msg("block at %08x in mode %x: not so: %s", block->eip, block->mode, #condition);       \
    } while (0)

static bool is_string(const struct host *host)
{
    return host->insn.meta.category == ZYDIS_CATEGORY_STRINGOP;
}

static bool is_rdtsc(const struct host *host)
{
    return (block->mode & MODE_TSC) && host->insn.mnemonic == ZYDIS_MNEMONIC_RDTSC;
}

/* What makes the guest's TSC of the host's. */
static bool is_tsc_arithmetic(const struct host *host)
{
    return (block->mode & MODE_TSC) &&
           (host->insn.mnemonic == ZYDIS_MNEMONIC_RORX || host->insn.mnemonic == ZYDIS_MNEMONIC_MULX);
}

/* Nothing that ring 3 may not do or that leaves the cache by other ways than jumps; no stack of the host's:
 * there is none. FWAIT, EMMS and the like are the guest's own. */
static void check_kind(const struct host *host)
{
    static const ZydisInstructionCategory forbidden[] = {
        ZYDIS_CATEGORY_CALL,   ZYDIS_CATEGORY_RET,        ZYDIS_CATEGORY_PUSH,     ZYDIS_CATEGORY_POP,
        ZYDIS_CATEGORY_IO,     ZYDIS_CATEGORY_IOSTRINGOP, ZYDIS_CATEGORY_SEGOP,    ZYDIS_CATEGORY_SYSCALL,
        ZYDIS_CATEGORY_SYSRET, ZYDIS_CATEGORY_SYSTEM,     ZYDIS_CATEGORY_INTERRUPT};

    REQUIRE(host->insn.encoding == ZYDIS_INSTRUCTION_ENCODING_LEGACY || is_tsc_arithmetic(host));
    REQUIRE(!(host->insn.attributes & ZYDIS_ATTRIB_IS_PRIVILEGED));
    for (size_t i = 0; i < sizeof forbidden / sizeof forbidden[0]; i++)
        REQUIRE(host->insn.meta.category != forbidden[i] || is_rdtsc(host));
    REQUIRE(host->insn.mnemonic != ZYDIS_MNEMONIC_LEAVE && host->insn.mnemonic != ZYDIS_MNEMONIC_ENTER);
}

/* r8 to r11 are scratch; r12 to r15 are never written; the guest's registers only so that their upper halves
 * stay zero, but for ECX's way there and back, string instructions, and a factor on the way to EDX's new
 * value. */
static void check_write(const struct host *host, const ZydisDecodedOperand *operand)
{
    ZydisRegister reg = operand->reg.value;
    ZydisRegister whole = ZydisRegisterGetLargestEnclosing(ZYDIS_MACHINE_MODE_LONG_64, reg);
    bool is_wide = ZydisRegisterGetClass(reg) == ZYDIS_REGCLASS_GPR64;

    REQUIRE(ZydisRegisterGetClass(reg) != ZYDIS_REGCLASS_SEGMENT &&
            ZydisRegisterGetClass(reg) != ZYDIS_REGCLASS_CONTROL &&
            ZydisRegisterGetClass(reg) != ZYDIS_REGCLASS_DEBUG);
    if (whole < ZYDIS_REGISTER_RAX || whole > ZYDIS_REGISTER_R15)
        return;
    REQUIRE(whole < ZYDIS_REGISTER_R12);
    if (!is_wide || whole >= ZYDIS_REGISTER_R8)
        return;
    if (whole == ZYDIS_REGISTER_RCX)
        REQUIRE(host->insn.mnemonic == ZYDIS_MNEMONIC_MOV || is_string(host));
    else if (whole == ZYDIS_REGISTER_RDX)
        REQUIRE((block->mode & MODE_TSC) && host->insn.mnemonic == ZYDIS_MNEMONIC_MOV &&
                host->operand[1].mem.base == ZYDIS_REGISTER_R15);
    else
        REQUIRE((whole == ZYDIS_REGISTER_RSI || whole == ZYDIS_REGISTER_RDI) &&
                (host->insn.mnemonic == ZYDIS_MNEMONIC_LEA || is_string(host)));
}

static bool is_written(const ZydisDecodedOperand *operand)
{
    return (operand->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE) != 0;
}

static void check_context_access(const struct host *host, const ZydisDecodedOperand *operand)
{
    int64_t offset = operand->mem.disp.value;

    REQUIRE(operand->mem.index == ZYDIS_REGISTER_NONE);
    REQUIRE(offset >= 0 && offset < (int64_t)sizeof(struct context));
    if (is_written(operand))
        REQUIRE(offset == CONTEXT_IF || offset == CONTEXT_DF || offset == CONTEXT_SCRATCH ||
                offset == CONTEXT_BUDGET);
}

/* Of the guest: [r14 + reg32's zero-extended value] or gs: with a 32-bit address. */
static void check_memory(const struct host *host, const ZydisDecodedOperand *operand)
{
    ZydisRegister base = operand->mem.base, index = operand->mem.index;

    if (operand->mem.type != ZYDIS_MEMOP_TYPE_MEM)
        return; /* LEA */
    if (operand->mem.segment == ZYDIS_REGISTER_GS) {
        REQUIRE(host->insn.address_width == 32);
    } else if (is_string(host)) {
        REQUIRE(base == ZYDIS_REGISTER_RSI || base == ZYDIS_REGISTER_RDI);
    } else if (base == ZYDIS_REGISTER_R14) {
        REQUIRE(index < ZYDIS_REGISTER_R12 && operand->mem.scale <= 1);
    } else if (index == ZYDIS_REGISTER_R14) {
        REQUIRE(base == ZYDIS_REGISTER_RSP && operand->mem.scale == 1);
    } else if (base == ZYDIS_REGISTER_R15) {
        check_context_access(host, operand);
    } else { /* the jump table, the virtual processor */
        REQUIRE(base == ZYDIS_REGISTER_R13 || base == ZYDIS_REGISTER_R8);
        REQUIRE(!is_written(operand));
    }
    REQUIRE(host->insn.address_width == 64 || operand->mem.segment == ZYDIS_REGISTER_GS);
}

static void check_operands(const struct host *host)
{
    for (unsigned i = 0; i < host->insn.operand_count; i++) {
        const ZydisDecodedOperand *operand = &host->operand[i];

        if (operand->type == ZYDIS_OPERAND_TYPE_MEMORY)
            check_memory(host, operand);
        else if (operand->type == ZYDIS_OPERAND_TYPE_REGISTER && is_written(operand))
            check_write(host, operand);
        REQUIRE(operand->type != ZYDIS_OPERAND_TYPE_POINTER);
    }
}

/* Direct jumps stay in the block, where an instruction begins, until they are linked; indirect ones go
 * through the context or the jump table. */
static void check_jump(const struct host *host)
{
    const ZydisDecodedOperand *to = &host->operand[0];
    uint64_t target;

    if (host->insn.meta.category != ZYDIS_CATEGORY_COND_BR &&
        host->insn.meta.category != ZYDIS_CATEGORY_UNCOND_BR)
        return;
    if (to->type == ZYDIS_OPERAND_TYPE_MEMORY) {
        REQUIRE(to->mem.base == ZYDIS_REGISTER_R15 &&
                (to->mem.disp.value == CONTEXT_LOOKUP || to->mem.disp.value == CONTEXT_LINK ||
                 to->mem.disp.value == CONTEXT_CALLOUT));
        return;
    }
    if (to->type == ZYDIS_OPERAND_TYPE_REGISTER) {
        REQUIRE(to->reg.value == ZYDIS_REGISTER_R9);
        return;
    }
    target = host->offset + host->insn.length + (uint64_t)to->imm.value.s;
    REQUIRE(target < block->code_size && is_start[target]);
}

/* ---- a block ------------------------------------------------------------------------------------------- */

static uint32_t decode_at(uint32_t offset, struct host *host)
{
    host->offset = offset;
    if (ZYAN_FAILED(ZydisDecoderDecodeFull(&decoder, code + offset, block->code_size - offset, &host->insn,
                                           host->operand)))
        ck_abort_msg("block at %08x in mode %x: host code +%x is no instruction", block->eip, block->mode,
                     offset);
    return host->insn.length;
}

static void check_code(void)
{
    struct host host;

    REQUIRE_OF_BLOCK(block->code_size <= CODE_MAX);
    memset(is_start, 0, sizeof is_start);
    for (uint32_t offset = 0; offset < block->code_size; offset += decode_at(offset, &host))
        is_start[offset] = true;
    REQUIRE_OF_BLOCK(is_start[0] && is_start[block->entry] && is_start[block->direct]);
    for (uint32_t offset = 0; offset < block->code_size; offset += decode_at(offset, &host)) {
        decode_at(offset, &host);
        check_kind(&host);
        check_operands(&host);
        check_jump(&host);
    }
    REQUIRE_OF_BLOCK(host.insn.meta.category == ZYDIS_CATEGORY_UNCOND_BR);
}

/* Sorted, at instructions; and each guest instruction has one of its own. */
static void check_points(const struct source *source)
{
    uint32_t offset = 0, next = 0;
    struct insn insn;

    REQUIRE_OF_BLOCK(block->n_points > 0);
    REQUIRE_OF_BLOCK(block->n_points < 1024);
    REQUIRE_OF_BLOCK(block->points[0].offset == 0);
    for (uint32_t i = 0; i < block->n_points; i++) {
        REQUIRE_OF_BLOCK(block->points[i].offset >= offset);
        offset = block->points[i].offset;
        REQUIRE_OF_BLOCK(offset == block->code_size || is_start[offset]);
    }
    for (unsigned n = 0, i = 0; n < block->n_instructions; n++) {
        uint8_t bytes[INSN_MAX_LENGTH] = {0};

        for (unsigned k = 0; k < sizeof bytes && next + k < source->n + source->second_n; k++)
            bytes[k] = next + k < source->n ? source->bytes[next + k] : source->second[next + k - source->n];
        while (i < block->n_points &&
               (block->points[i].offset < block->direct || block->points[i].eip != block->eip + next))
            i++;
        REQUIRE_OF_BLOCK(i < block->n_points);
        REQUIRE_OF_BLOCK(decode_insn(bytes, sizeof bytes, 4, &insn) == DECODE_OK);
        next += insn.length;
    }
    REQUIRE_OF_BLOCK(next == block->guest_size);
}

/* It reads guest memory and writes the same: a second time it would do something else. (String instructions
 * of the guest's name their two places by registers that move with them.) */
static bool is_read_and_written(const struct host *host)
{
    for (unsigned i = 0; i < host->insn.operand_count; i++) {
        const ZydisDecodedOperand *operand = &host->operand[i];

        if (operand->type == ZYDIS_OPERAND_TYPE_MEMORY && operand->mem.base != ZYDIS_REGISTER_R15 &&
            is_written(operand) && (operand->actions & ZYDIS_OPERAND_ACTION_MASK_READ))
            return !is_string(host);
    }
    return false;
}

static uint32_t eip_at(uint32_t offset)
{
    return block_point_at(&cache, block, cache.executable + block->code + offset)->eip;
}

/* A signal that comes behind such a host instruction must not find its guest instruction still to be done. */
static void check_steps(void)
{
    struct host host;

    for (uint32_t offset = 0, next; offset < block->code_size; offset = next) {
        next = offset + decode_at(offset, &host);
        if (is_read_and_written(&host))
            check_that(&host, next == block->code_size || eip_at(next) != eip_at(offset),
                       "it is the last of its guest instruction");
    }
}

/* All state that the caller sees in the cache. */
static bool build(const struct source *source)
{
    size_t n_calls;

    if (!cache_has_room(&cache))
        cache_empty(&cache);
    n_calls = cache.n_calls;
    block = build_block(&cache, source);
    if (block == NULL)
        return false;
    code = cache.writable + block->code;
    REQUIRE_OF_BLOCK(cache.n_calls - n_calls <= 128);
    check_code();
    check_points(source);
    check_steps();
    for (size_t i = n_calls; i < cache.n_calls; i++)
        REQUIRE_OF_BLOCK(cache.calls[i].block == block &&
                         is_start[cache.calls[i].resume - cache.executable - block->code]);
    return true;
}

/* ---- where guest code comes from ----------------------------------------------------------------------- */

static struct source source_at(const uint8_t *bytes, size_t n, uint32_t eip, uint32_t mode)
{
    uint32_t in_page = PAGE_SIZE - (eip & PAGE_MASK);
    struct source source = {.bytes = bytes, .place = eip, .eip = eip, .linear = eip, .mode = mode};

    source.n = n < in_page ? (uint32_t)n : in_page;
    if (n > in_page) {
        source.second = bytes + in_page;
        source.second_n = (uint32_t)(n - in_page < PAGE_SIZE ? n - in_page : PAGE_SIZE);
        source.second_rpn = (eip + in_page) >> PAGE_SHIFT;
    }
    return source;
}

/* Blocks one behind the other, and from the middle of instructions. */
static unsigned build_section(const uint8_t *bytes, size_t n, uint32_t eip, uint32_t mode)
{
    unsigned n_blocks = 0;

    for (size_t offset = 0; offset < n;) {
        struct source source = source_at(bytes + offset, n - offset, eip + (uint32_t)offset, mode);
        bool is_built = build(&source);

        n_blocks += is_built;
        offset += is_built && offset % 3 != 0 ? block->guest_size : 1;
    }
    return n_blocks;
}

static unsigned build_guest(const char *path, uint32_t mode)
{
    struct loader_config config = {.kernel_path = path};
    struct image_section section;
    unsigned index = 0, n_blocks = 0;
    char error[256];
    struct kernel_image *kernel = kernel_open(&config, error, sizeof error);

    ck_assert_msg(kernel != NULL, "%s", error);
    while (elf_next_code(kernel, &index, &section))
        n_blocks += build_section(kernel->bytes + section.file_offset, section.size, section.gva, mode);
    kernel_close(kernel);
    return n_blocks;
}

START_TEST(all_code_of_the_guests)
{
    DIR *dir = opendir(GUESTS);
    unsigned n_guests = 0;
    struct dirent *entry;
    char path[1024];

    ck_assert_msg(dir != NULL, "%s: build the target guests", GUESTS);
    while ((entry = readdir(dir)) != NULL) {
        size_t n = strlen(entry->d_name);

        if (n < 4 || strcmp(entry->d_name + n - 4, ".elf") != 0)
            continue;
        snprintf(path, sizeof path, "%s/%s", GUESTS, entry->d_name);
        ck_assert_uint_gt(build_guest(path, modes[_i]), 100);
        n_guests++;
    }
    closedir(dir);
    ck_assert_uint_gt(n_guests, 5);
}
END_TEST

static uint64_t random_state = 0x9e3779b97f4a7c15;

static uint32_t random_number(void)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return (uint32_t)(random_state >> 32);
}

/* Prefixes and two-byte opcodes more often than chance has them; sometimes over the end of a page. */
START_TEST(random_bytes)
{
    static const uint8_t usual[] = {0x66, 0x67, 0xf0, 0xf2, 0xf3, 0x2e, 0x36, 0x64, 0x65, 0x0f, 0x0f, 0x0f};
    uint8_t bytes[64];
    unsigned n_blocks = 0;

    for (int i = 0; i < N_RANDOM; i++) {
        uint32_t eip =
            (random_number() & 3) == 0 ? 0x300ff0 + random_number() % 16 : random_number() & 0xfffffff;
        struct source source;

        for (size_t k = 0; k < sizeof bytes; k++)
            bytes[k] =
                (random_number() & 3) == 0 ? usual[random_number() % sizeof usual] : (uint8_t)random_number();
        source = source_at(bytes, sizeof bytes, eip, modes[_i]);
        n_blocks += build(&source);
    }
    ck_assert_uint_gt(n_blocks, N_RANDOM / 4);
}
END_TEST

/* Every opcode with every ModRM byte. */
START_TEST(every_opcode)
{
    uint8_t bytes[16] = {0};

    for (unsigned i = 0; i < 2 * 65536; i++) {
        struct source source;
        unsigned n = 0;

        if (i >= 65536)
            bytes[n++] = 0x0f;
        bytes[n++] = (uint8_t)(i >> 8);
        bytes[n++] = (uint8_t)i;
        source = source_at(bytes, sizeof bytes, 0x100000, modes[_i] | MODE_SINGLE);
        build(&source);
    }
}
END_TEST

/* push ebp; sti; dec dword [200000]; pop ebp; ret: ESP is still to be moved when a waiting interrupt is
 * looked for, and the DEC is done. */
START_TEST(an_interrupt_is_looked_for_behind_the_shadow_of_sti)
{
    static const uint8_t bytes[] = {0x55, 0xfb, 0xff, 0x0d, 0x00, 0x00, 0x20, 0x00, 0x5d, 0xc3};
    struct source source = source_at(bytes, sizeof bytes, 0x100000, modes[_i]);

    ck_assert(build(&source));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("translate/build");
    TCase *tests = tcase_create("build");
    SRunner *runner;
    int failed;

    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_loop_test(tests, all_code_of_the_guests, 0, N_MODES);
    tcase_add_loop_test(tests, random_bytes, 0, N_MODES);
    tcase_add_loop_test(tests, every_opcode, 0, N_MODES);
    tcase_add_loop_test(tests, an_interrupt_is_looked_for_behind_the_shadow_of_sti, 0, N_MODES);
    suite_add_tcase(suite, tests);
    runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? 0 : 1;
}
