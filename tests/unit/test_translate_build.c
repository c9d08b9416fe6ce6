/*
 * translate/build and lower*: blocks are made from all code of the guests, in every mode, and from random
 * bytes, and must keep the rules of host_code.h.
 */
#include <check.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>

#include "monitor/image.h"

/* Check notes each assertion in a file, and there are hundreds of millions: so only those that fail are one.
 */
#define HOST_CODE_WRONG(...) ck_abort_msg(__VA_ARGS__)
#include "host_code.h"

#define N_PAGES    (1u << 20)
#define N_RANDOM   30000
#define MAX_GUESTS 32

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
    FLAT | FULL | VECTOR | MODE_COUNT | MODE_TSC,
    FLAT | FULL | VECTOR | MODE_TSC,
    MODE_FLAT_CS | MODE_FLAT_SS | MODE_COUNT | MODE_USER,
    0,
};

#define N_MODES ((int)(sizeof modes / sizeof modes[0]))

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

/* ---- where guest code comes from ----------------------------------------------------------------------- */

/* As if each instruction had faulted often. */
static enum adapted all_called(void *ctx, uint64_t place)
{
    (void)ctx;
    (void)place;
    return ADAPTED_TOUCH;
}

static struct source source_at(const uint8_t *bytes, size_t n, uint32_t eip, uint32_t mode)
{
    uint32_t in_page = PAGE_SIZE - (eip & PAGE_MASK);
    struct source source = {
        .bytes = bytes, .place = eip, .eip = eip, .linear = eip, .mode = mode, .limit = UINT32_MAX};

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
        source.adapted = i & 1 ? all_called : NULL;
        source.has_rorx = i & 2;
        n_blocks += build(&source);
    }
    ck_assert_uint_gt(n_blocks, N_RANDOM / 4);
}
END_TEST

static void build_every_opcode(uint32_t mode, enum adapted (*adapted)(void *ctx, uint64_t place),
                               bool has_rorx)
{
    uint8_t bytes[16] = {0};

    for (unsigned i = 0; i < 2 * 65536; i++) {
        struct source source;
        unsigned n = 0;

        if (i >= 65536)
            bytes[n++] = 0x0f;
        bytes[n++] = (uint8_t)(i >> 8);
        bytes[n++] = (uint8_t)i;
        source = source_at(bytes, sizeof bytes, 0x100000, mode | MODE_SINGLE);
        source.adapted = adapted;
        source.has_rorx = has_rorx;
        build(&source);
    }
}

/* Every opcode with every ModRM byte. */
START_TEST(every_opcode)
{
    build_every_opcode(modes[_i], NULL, true);
}
END_TEST

START_TEST(every_opcode_that_keeps_faulting)
{
    build_every_opcode(modes[_i], all_called, _i != 2);
}
END_TEST

/* Where instructions are counted there are no slots. */
static void check_reaching(struct source *source, bool is_reaching)
{
    bool may_have_slot = !(source->mode & MODE_COUNT);
    const uint8_t *bytes = source->bytes;

    for (int has_rorx = 0; has_rorx < 2; has_rorx++) {
        const struct call *call = &cache.calls[cache.n_calls];

        source->has_rorx = has_rorx;
        ck_assert(build_alive(source));
        ck_assert_msg((call->again_length != 0) == is_reaching, "%02x %02x", bytes[0], bytes[1]);
        ck_assert_msg(call->has_slot == (is_reaching && has_rorx && may_have_slot), "%02x %02x", bytes[0],
                      bytes[1]);
    }
}

/* Which are only told where their operand is. */
START_TEST(instructions_that_find_memory_by_the_monitor)
{
    static const struct {
        uint8_t bytes[8];
        uint8_t n;
        bool is_reaching;
    } cases[] = {
        {{0x89, 0x03}, 2, true},                   /* mov [ebx], eax */
        {{0xf6, 0x03, 0x01}, 3, true},             /* test byte [ebx], 1 */
        {{0xa3, 0, 0, 0x20, 0}, 5, true},          /* mov [200000], eax */
        {{0xf0, 0x0f, 0xb1, 0x0c, 0x24}, 5, true}, /* lock cmpxchg [esp], ecx */
        {{0x55}, 1, true},                         /* push ebp */
        {{0x5b}, 1, true},                         /* pop ebx */
        {{0x54}, 1, false},                        /* push esp */
        {{0x5c}, 1, false},                        /* pop esp */
        {{0x0f, 0xab, 0x03}, 3, false},            /* bts [ebx], eax: any bit of memory */
        {{0x0f, 0xba, 0x2b, 0x05}, 4, true},       /* bts [ebx], 5 */
        {{0x88, 0x23}, 2, false},                  /* mov [ebx], ah: no REX prefix */
        {{0x64, 0x89, 0x03}, 3, false},            /* mov fs:[ebx], eax */
        {{0x67, 0x89, 0x07}, 3, false},            /* mov [bx], eax */
        {{0xf7, 0x33}, 2, false},                  /* div [ebx]: it has other reasons, too */
        {{0xff, 0x33}, 2, false},                  /* push [ebx]: two operands */
        {{0xa5}, 1, false},                        /* movsd */
    };

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct source source =
            source_at(cases[i].bytes, cases[i].n, 0x100000, FLAT | FULL | (_i != 0 ? MODE_USER : 0));

        source.adapted = all_called;
        check_reaching(&source, cases[i].is_reaching);
        source.mode |= MODE_COUNT;
        check_reaching(&source, cases[i].is_reaching);
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

static bool loads_pending(void)
{
    struct host host;

    for (uint32_t offset = block->direct; offset < block->code_size; offset += host.insn.length) {
        decode_at(offset, &host);
        for (unsigned i = 0; i < host.insn.operand_count; i++)
            if (host.operand[i].type == ZYDIS_OPERAND_TYPE_MEMORY &&
                host.operand[i].mem.base == ZYDIS_REGISTER_R15 &&
                host.operand[i].mem.disp.value == CONTEXT_PENDING)
                return true;
    }
    return false;
}

/* STI before each kind of jump: no call, but where it may go two ways. */
START_TEST(sti_before_a_jump)
{
    static const struct {
        uint8_t bytes[16];
        size_t n_calls;
    } cases[] = {
        {{0xfb, 0xc3}, 0},             /* sti; ret */
        {{0x50, 0xfb, 0xc3}, 0},       /* push eax; sti; ret: ESP is not yet moved */
        {{0xfb, 0xc2, 0x08, 0x00}, 0}, /* sti; ret 8 */
        {{0xfb, 0xeb, 0x10}, 0},       /* sti; jmp */
        {{0xfb, 0xeb, 0xfd}, 0},       /* sti; jmp to it */
        {{0x50, 0xfb, 0xe8}, 0},       /* push eax; sti; call */
        {{0xfb, 0xff, 0xe0}, 0},       /* sti; jmp eax */
        {{0x5b, 0xfb, 0xff, 0x13}, 0}, /* pop ebx; sti; call [ebx] */
        {{0xfb, 0x74, 0x10}, 1},       /* sti; jz */
        {{0xfb, 0xe2, 0x10}, 1},       /* sti; loop */
        {{0xfb, 0xfb, 0xc3}, 1},       /* sti; sti; ret: the second one's shadow would be too long */
    };

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct source source =
            source_at(cases[i].bytes, sizeof cases[i].bytes, 0x100000, FLAT | (_i != 0 ? MODE_COUNT : 0));
        size_t n_calls = cache.n_calls;

        ck_assert(build_alive(&source));
        ck_assert_msg(cache.n_calls - n_calls >= cases[i].n_calls, "case %zu", i);
        if (cases[i].n_calls != 0)
            ck_assert_uint_eq(cache.calls[n_calls].eip, 0x100000);
        else
            ck_assert_msg(cache.n_calls == n_calls, "case %zu calls", i);
        ck_assert_msg(cases[i].n_calls != 0 || loads_pending(), "case %zu", i);
    }
}
END_TEST

/* mov ecx, 100; xor eax, eax; 1: add eax, [esi]; add esi, 4; 2: dec edx; jnz 2b; dec ecx; jnz 1b; ret: the
 * heads of both loops lie in the middle of the block. */
START_TEST(loops_are_aligned)
{
    static const uint8_t bytes[] = {0xb9, 0x64, 0x00, 0x00, 0x00, 0x31, 0xc0, 0x03, 0x06, 0x83,
                                    0xc6, 0x04, 0x4a, 0x75, 0xfd, 0x49, 0x75, 0xf5, 0xc3};
    unsigned n_loops = 0;

    for (uint32_t eip = 0x100000; eip < 0x100040; eip++) {
        struct source source = source_at(bytes, sizeof bytes, eip, FLAT);
        struct host host;

        ck_assert(build_alive(&source));
        ck_assert_uint_eq(block->guest_size, sizeof bytes);
        for (uint32_t offset = block->direct; offset < block->code_size; offset += host.insn.length) {
            decode_at(offset, &host);
            if (host.insn.meta.category == ZYDIS_CATEGORY_COND_BR && host.operand[0].imm.value.s < 0) {
                ck_assert_uint_eq(
                    (block->code + offset + host.insn.length + (uint64_t)host.operand[0].imm.value.s) % 32,
                    0);
                n_loops++;
            }
        }
    }
    ck_assert_uint_eq(n_loops, 2 * 0x40);
}
END_TEST

/* add eax, [esi]; add esi, 4; dec ecx; jnz; ret. With the budget counted and checked in each turn it would
 * take twice as long. */
START_TEST(several_turns_of_a_loop_are_counted_at_once)
{
    static const uint8_t bytes[] = {0x03, 0x06, 0x83, 0xc6, 0x04, 0x49, 0x75, 0xf8, 0xc3};
    struct source source = source_at(bytes, sizeof bytes, 0x100000, FLAT | MODE_COUNT);
    unsigned n_counts = 0;
    struct host host;

    ck_assert(build_alive(&source));
    ck_assert_uint_eq(block->guest_size, sizeof bytes);
    ck_assert_uint_eq(block->n_instructions, (MAX_REPEATS + 1) * 4 + 1);
    for (uint32_t offset = block->direct; offset < block->code_size; offset += host.insn.length) {
        decode_at(offset, &host);
        n_counts += counted_by(&host) != 0;
        if (host.insn.meta.category == ZYDIS_CATEGORY_COND_BR && host.operand[0].imm.value.s < 0)
            break;
    }
    ck_assert_uint_eq(n_counts, 1);

    source.mode = FLAT | MODE_COUNT | MODE_SINGLE;
    ck_assert(build_alive(&source));
    ck_assert_uint_eq(block->n_instructions, 1);
}
END_TEST

/* Where CS has a limit, a jump that may lead beyond it is the emulator's: the fault is the jump's. */
START_TEST(jumps_and_the_limit_of_cs)
{
    static const struct {
        uint8_t bytes[8];
        bool is_direct;
    } cases[] = {{{0xeb, 0x10}, true}, {{0x74, 0x10}, true},  {{0xe8, 0x10}, true},  {{0xe2, 0x10}, true},
                 {{0xc3}, false},      {{0xff, 0xe0}, false}, {{0xff, 0xd0}, false}, {{0xc2, 4}, false}};
    const uint32_t eip = 0x1000;

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        for (uint32_t limit = eip + 8; limit < eip + 0x20; limit++) {
            struct source source = source_at(cases[i].bytes, sizeof cases[i].bytes, eip, FLAT);
            size_t n_calls = cache.n_calls;
            bool is_beyond = eip + 2 + 0x10 + (cases[i].bytes[0] == 0xe8 ? 3 : 0) > limit;

            source.n = cases[i].bytes[0] == 0xe8 ? 5 : cases[i].bytes[0] == 0xc2 ? 3 : 2;
            source.limit = limit;
            ck_assert(build_alive(&source));
            ck_assert_uint_eq(cache.n_calls - n_calls, is_beyond || !cases[i].is_direct);
        }
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
    tcase_add_loop_test(tests, every_opcode_that_keeps_faulting, 0, 6);
    tcase_add_loop_test(tests, instructions_that_find_memory_by_the_monitor, 0, 2);
    tcase_add_loop_test(tests, an_interrupt_is_looked_for_behind_the_shadow_of_sti, 0, N_MODES);
    tcase_add_loop_test(tests, sti_before_a_jump, 0, 2);
    tcase_add_test(tests, loops_are_aligned);
    tcase_add_test(tests, several_turns_of_a_loop_are_counted_at_once);
    tcase_add_test(tests, jumps_and_the_limit_of_cs);
    suite_add_tcase(suite, tests);
    runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? 0 : 1;
}
