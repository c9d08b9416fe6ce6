/* decode: vectors (bytes, what they mean), the named errors, and no byte read beyond the buffer. */
#include <check.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "decode/decode.h"

#define COUNT(array) ((int)(sizeof(array) / sizeof((array)[0])))

/* "8b 44 24 10" -> bytes; returns how many. */
static size_t parse_hex(const char *text, uint8_t *bytes, size_t size)
{
    size_t n = 0;
    char *end;

    for (; n < size; text = end) {
        unsigned long byte = strtoul(text, &end, 16);

        if (end == text)
            break;
        bytes[n++] = (uint8_t)byte;
    }
    return n;
}

static struct insn decode_hex(const char *hex, unsigned default_size)
{
    uint8_t bytes[32];
    size_t n = parse_hex(hex, bytes, sizeof bytes);
    struct insn insn;
    enum decode_status status = decode_insn(bytes, n, default_size, &insn);

    ck_assert_msg(status == DECODE_OK, "%s: %s", hex, decode_status_name(status));
    ck_assert_msg(insn.length == n, "%s: length %u, not %zu", hex, insn.length, n);
    ck_assert_mem_eq(insn.bytes, bytes, n);
    return insn;
}

/* ---- bytes and text: all of an instruction that the text shows ----------------------------------------- */

static const struct {
    unsigned default_size;
    const char *hex, *text;
} vectors[] = {
    /* ModRM and SIB */
    {4, "8b 00", "mov eax, [eax]"},
    {4, "8b 40 10", "mov eax, [eax+0x10]"},
    {4, "8b 40 f0", "mov eax, [eax-0x10]"},
    {4, "8b 80 44 33 22 11", "mov eax, [eax+0x11223344]"},
    {4, "8b 05 44 33 22 11", "mov eax, [0x11223344]"},
    {4, "8b 45 00", "mov eax, [ebp]"},
    {4, "8b 04 24", "mov eax, [esp]"},
    {4, "8b 44 24 10", "mov eax, [esp+0x10]"},
    {4, "8d 44 88 10", "lea eax, [eax+ecx*4+0x10]"},
    {4, "8b 04 cd 00 00 00 c0", "mov eax, [ecx*8-0x40000000]"},
    {4, "8b 04 25 78 56 34 12", "mov eax, [0x12345678]"},
    /* 16-bit addressing, both ways round */
    {4, "67 8b 46 05", "mov eax, [bp+0x5]"},
    {4, "67 8b 00", "mov eax, [bx+si*1]"},
    {4, "67 8b 0e 34 12", "mov ecx, [0x1234]"},
    {4, "67 a1 34 12", "mov eax, [0x1234]"},
    {2, "8b 46 05", "mov ax, [bp+0x5]"},
    {2, "67 66 8b 04 24", "mov eax, [esp]"},
    /* prefixes */
    {4, "66 8b 00", "mov ax, [eax]"},
    {4, "65 8b 00", "mov eax, gs:[eax]"},
    {4, "2e 8b 00", "mov eax, cs:[eax]"},
    {4, "64 a1 00 00 00 00", "mov eax, fs:[0x0]"},
    {4, "f0 01 00", "lock add [eax], eax"},
    {4, "f3 a5", "rep movsd"},
    {4, "f2 ae", "repne scasb"},
    {4, "f3 90", "pause"},
    {4, "66 66 66 66 66 66 66 66 66 66 66 66 66 66 90", "nop"},
    /* immediates and branches */
    {4, "6a ff", "push 0xffffffff"},
    {4, "68 78 56 34 12", "push 0x12345678"},
    {4, "c8 34 12 05", "enter 0x1234, 0x5"},
    {4, "c2 08 00", "ret 0x8"},
    {4, "eb fe", "jmp 0x1000"},
    {4, "e8 fb ff ff ff", "call 0x1000"},
    {4, "e9 00 f0 ff ff", "jmp 0x5"},
    {4, "e9 fa ef ff ff", "jmp 0xffffffff"},
    {4, "0f 84 00 01 00 00", "jz 0x1106"},
    {4, "e3 00", "jecxz 0x1002"},
    {4, "67 e3 00", "jcxz 0x1003"},
    {4, "66 e9 00 00", "jmp 0x1004"},
    {2, "e9 00 00", "jmp 0x1003"},
    {4, "9a 78 56 34 12 08 00", "call far 0x0008:0x12345678"},
    {4, "ea 78 56 34 12 08 00", "jmp far 0x0008:0x12345678"},
    {2, "ea 34 12 00 f0", "jmp far 0xf000:0x1234"},
    {2, "66 ea 78 56 34 12 08 00", "jmp far 0x0008:0x12345678"},
    {4, "ff 28", "jmp far [eax]"},
    {4, "66 cb", "ret far"},
    /* system instructions */
    {4, "fa", "cli"},
    {4, "9c", "pushfd"},
    {2, "9c", "pushf"},
    {4, "66 9c", "pushf"},
    {2, "66 cf", "iretd"},
    {4, "0f 20 c0", "mov eax, cr0"},
    {2, "0f 22 d8", "mov cr3, eax"},
    {4, "0f 21 f8", "mov eax, dr7"},
    {4, "8e d8", "mov ds, ax"},
    {4, "8c c8", "mov eax, cs"},
    {4, "0f 01 15 00 10 00 00", "lgdt [0x1000]"},
    {4, "0f 01 38", "invlpg [eax]"},
    {4, "0f a1", "pop fs"},
    {4, "cd 80", "int 0x80"},
    {4, "f1", "int1"},
    {4, "0f 34", "sysenter"},
    {4, "0f b2 20", "lss esp, fword ptr [eax]"},
    /* the profile decides what a prefix means: no TZCNT, LZCNT, ENDBR32, WBNOINVD */
    {4, "f3 0f bc c1", "bsf eax, ecx"},
    {4, "f3 0f bd c1", "bsr eax, ecx"},
    {4, "f3 0f 09", "wbinvd"},
    /* undocumented encodings that processors run */
    {4, "82 c0 01", "add al, 0x1"},
    {4, "f6 c8 01", "test al, 0x1"},
    {4, "c0 f0 01", "shl al, 0x1"},
    {4, "d6", "salc"},
};

START_TEST(test_text)
{
    struct insn insn = decode_hex(vectors[_i].hex, vectors[_i].default_size);
    char text[64];

    decode_format(&insn, 0x1000, text, sizeof text);
    ck_assert_str_eq(text, vectors[_i].text);
}
END_TEST

/* Each vector, cut anywhere, asks for more bytes and never guesses. */
START_TEST(test_truncated)
{
    uint8_t bytes[32];
    size_t n = parse_hex(vectors[_i].hex, bytes, sizeof bytes);
    struct insn insn;

    for (size_t cut = 0; cut < n; cut++)
        ck_assert_int_eq(decode_insn(bytes, cut, vectors[_i].default_size, &insn), DECODE_TRUNCATED);
}
END_TEST

START_TEST(test_text_is_cut_at_size)
{
    struct insn insn = decode_hex("8d 44 88 10", 4);
    char text[8];

    memset(text, 'x', sizeof text);
    decode_format(&insn, 0, text, 4);
    ck_assert_str_eq(text, "lea");
    ck_assert_int_eq(text[4], 'x');
    decode_format(&insn, 0, text, 1);
    ck_assert_str_eq(text, "");
    text[0] = 'x';
    decode_format(&insn, 0, text, 0);
    ck_assert_int_eq(text[0], 'x');
    ck_assert_str_eq(decode_mnemonic_name(&insn), "lea");
}
END_TEST

/* ---- errors -------------------------------------------------------------------------------------------- */

static const struct {
    const char *hex;
    enum decode_status status;
} errors[] = {
    {"66 66 66 66 66 66 66 66 66 66 66 66 66 66 66 90", DECODE_TOO_LONG},
    {"66 66 66 66 66 66 66 66 66 66 66 66 66 66 66", DECODE_TOO_LONG},
    /* thirteen prefixes and three more bytes */
    {"2e 2e 2e 2e 2e 2e 2e 2e 2e 2e 2e 2e 8b 80 00 00 00 00", DECODE_TOO_LONG},
    {"0f 04", DECODE_INVALID},
    {"fe 38", DECODE_INVALID},          /* group 4 /7 */
    {"8e c8", DECODE_INVALID},          /* mov cs */
    {"8e f0", DECODE_INVALID},          /* segment register 6 */
    {"0f 22 c8", DECODE_INVALID},       /* mov cr1 */
    {"0f 22 e8", DECODE_INVALID},       /* mov cr5 */
    {"8d c0", DECODE_INVALID},          /* lea of a register */
    {"0f 01 d0 90", DECODE_OK},         /* xgetbv: exists, is outside the profile */
    {"f0 01 c0", DECODE_INVALID},       /* lock on a register destination */
    {"f0 8b 00", DECODE_INVALID},       /* lock on a load */
    {"f0 fa", DECODE_INVALID},          /* lock cli */
    {"f0 39 00", DECODE_INVALID},       /* lock cmp */
    {"f0 0f ba 20 01", DECODE_INVALID}, /* lock bt */
    {"f0 0f ba 28 01", DECODE_OK},      /* lock bts */
    {"f0 0f c7 08", DECODE_OK},         /* lock cmpxchg8b */
    {"0f c7 c8", DECODE_INVALID},       /* cmpxchg8b of a register */
    {"c5 c0", DECODE_TRUNCATED},        /* VEX */
    {"62 c0", DECODE_TRUNCATED},        /* EVEX */
    {"", DECODE_TRUNCATED},
};

START_TEST(test_status)
{
    uint8_t bytes[32];
    size_t n = parse_hex(errors[_i].hex, bytes, sizeof bytes);
    struct insn insn;
    enum decode_status status = decode_insn(bytes, n, 4, &insn);

    ck_assert_msg(status == errors[_i].status, "%s: %s, not %s", errors[_i].hex, decode_status_name(status),
                  decode_status_name(errors[_i].status));
}
END_TEST

/* ---- the fields that emulation reads ------------------------------------------------------------------- */

START_TEST(test_encoding_fields)
{
    struct insn insn = decode_hex("f3 66 0f b7 84 88 78 56 34 12", 4); /* movzx ax, [eax+ecx*4+disp32] */

    ck_assert_int_eq(insn.opcode_map, 1);
    ck_assert_int_eq(insn.opcode, 0xb7);
    ck_assert_int_eq(insn.opcode_offset, 3);
    ck_assert(insn.has_modrm);
    ck_assert_int_eq(insn.modrm_offset, 4);
    ck_assert_int_eq(insn.immediate_length, 0);
    ck_assert_int_eq(insn.operand_size, 2);
    ck_assert_int_eq(insn.address_size, 4);
    ck_assert_int_eq(insn.prefixes, 0); /* F3 repeats nothing here */

    insn = decode_hex("81 40 10 78 56 34 12", 4); /* add dword [eax+0x10], imm32 */
    ck_assert_int_eq(insn.opcode_map, 0);
    ck_assert_int_eq(insn.opcode, 0x81);
    ck_assert_int_eq(insn.opcode_offset, 0);
    ck_assert_int_eq(insn.modrm_offset, 1);
    ck_assert_int_eq(insn.immediate_offset, 3);
    ck_assert_int_eq(insn.immediate_length, 4);

    insn = decode_hex("c8 34 12 05", 4);
    ck_assert_int_eq(insn.immediate_offset, 1);
    ck_assert_int_eq(insn.immediate_length, 3);
    ck_assert(!insn.has_modrm);

    insn = decode_hex("ea 78 56 34 12 08 00", 4);
    ck_assert_int_eq(insn.immediate_offset, 1);
    ck_assert_int_eq(insn.immediate_length, 6);

    insn = decode_hex("c5 f8 77", 4); /* vzeroupper */
    ck_assert_int_eq(insn.opcode_map, 0xff);
    insn = decode_hex("0f 38 00 c1", 4); /* pshufb */
    ck_assert_int_eq(insn.opcode_map, 2);
    insn = decode_hex("66 0f 3a 0f c1 04", 4); /* palignr */
    ck_assert_int_eq(insn.opcode_map, 3);
    ck_assert_int_eq(insn.opcode_offset, 3);
}
END_TEST

START_TEST(test_repeat_prefixes)
{
    ck_assert_int_eq(decode_hex("f3 a4", 4).prefixes, INSN_REP);
    ck_assert_int_eq(decode_hex("f3 a6", 4).prefixes, INSN_REP);
    ck_assert_int_eq(decode_hex("f2 a6", 4).prefixes, INSN_REPNE);
    ck_assert_int_eq(decode_hex("f3 f2 a6", 4).prefixes, INSN_REPNE); /* the last one counts */
    ck_assert_int_eq(decode_hex("f2 f3 a6", 4).prefixes, INSN_REP);
    ck_assert_int_eq(decode_hex("f2 a4", 4).prefixes, INSN_REPNE);
    ck_assert_int_eq(decode_hex("f3 6d", 4).prefixes, INSN_REP);
    ck_assert_int_eq(decode_hex("f3 0f 10 00", 4).prefixes, 0); /* movss: part of the opcode */
    ck_assert_int_eq(decode_hex("f0 0f b1 08", 4).prefixes, INSN_LOCK);
    ck_assert_int_eq(decode_hex("a4", 4).prefixes, 0);
}
END_TEST

static void assert_register(const struct operand *operand, enum register_class class, unsigned index)
{
    ck_assert_int_eq(operand->kind, OPERAND_REGISTER);
    ck_assert_int_eq(operand->reg.class, class);
    ck_assert_int_eq(operand->reg.index, index);
}

static void assert_memory(const struct operand *operand, enum segment_index segment, int base,
                          int32_t displacement, unsigned size)
{
    ck_assert_int_eq(operand->kind, OPERAND_MEMORY);
    ck_assert_int_eq(operand->mem.segment, segment);
    ck_assert_int_eq(operand->mem.base, base);
    ck_assert_int_eq(operand->mem.displacement, displacement);
    ck_assert_int_eq(operand->size16, size);
}

START_TEST(test_register_operands)
{
    static const struct {
        const char *hex;
        unsigned operand;
        enum register_class class;
        unsigned index;
    } cases[] = {
        {"88 20", 1, REGISTER_GPR8, 4}, /* ah, not spl */
        {"88 38", 1, REGISTER_GPR8, 7},         {"66 89 30", 1, REGISTER_GPR16, 6},
        {"89 38", 1, REGISTER_GPR32, 7},        {"8c 28", 1, REGISTER_SEGMENT, SEG_GS},
        {"8e d0", 0, REGISTER_SEGMENT, SEG_SS}, {"16", 0, REGISTER_SEGMENT, SEG_SS},
        {"0f 22 e0", 0, REGISTER_CONTROL, 4},   {"0f 23 f8", 0, REGISTER_DEBUG, 7},
        {"0f 23 e0", 0, REGISTER_DEBUG, 4}, /* CR4.DE decides, not the decoder */
        {"d9 c3", 0, REGISTER_X87, 3},          {"0f 6f cb", 1, REGISTER_MMX, 3},
        {"0f 28 fe", 0, REGISTER_XMM, 7},       {"ec", 1, REGISTER_GPR16, 2}, /* in al, dx */
        {"d3 e0", 1, REGISTER_GPR8, 1},
    };

    for (int i = 0; i < COUNT(cases); i++) {
        struct insn insn = decode_hex(cases[i].hex, 4);

        assert_register(&insn.operand[cases[i].operand], cases[i].class, cases[i].index);
    }
}
END_TEST

START_TEST(test_memory_operands)
{
    struct insn insn = decode_hex("8b 45 fc", 4); /* mov eax, [ebp-4]: SS by its base */

    assert_memory(&insn.operand[1], SEG_SS, 5, -4, 4);
    ck_assert_int_eq(insn.operand[1].access, OPERAND_READ);
    ck_assert_int_eq(insn.operand[0].access, OPERAND_WRITE);
    ck_assert_ptr_eq(insn_memory_operand(&insn), &insn.operand[1]);

    insn = decode_hex("3e 01 45 fc", 4); /* add [ebp-4], eax with DS */
    assert_memory(&insn.operand[0], SEG_DS, 5, -4, 4);
    ck_assert_int_eq(insn.operand[0].access, OPERAND_READ | OPERAND_WRITE);

    insn = decode_hex("8b 84 d9 00 00 00 80", 4); /* mov eax, [ecx+ebx*8-2^31] */
    assert_memory(&insn.operand[1], SEG_DS, 1, INT32_MIN, 4);
    ck_assert_int_eq(insn.operand[1].mem.index, 3);
    ck_assert_int_eq(insn.operand[1].mem.scale, 8);

    insn = decode_hex("8b 04 24", 4); /* no index: esp cannot be one */
    ck_assert_int_eq(insn.operand[1].mem.index, -1);

    insn = decode_hex("a2 00 00 e0 fe", 4); /* mov [moffs], al */
    assert_memory(&insn.operand[0], SEG_DS, -1, (int32_t)0xfee00000, 1);
    ck_assert(!insn.operand[0].is_implicit);

    insn = decode_hex("67 8b 02", 4); /* mov eax, [bp+si] */
    assert_memory(&insn.operand[1], SEG_SS, 5, 0, 4);
    ck_assert_int_eq(insn.operand[1].mem.index, 6);
    ck_assert_int_eq(insn.address_size, 2);

    insn = decode_hex("0f ae 00", 4); /* fxsave */
    assert_memory(&insn.operand[0], SEG_DS, 0, 0, 512);
    ck_assert_int_eq(insn.operand[0].size, 0);
    insn = decode_hex("0f c7 08", 4); /* cmpxchg8b */
    assert_memory(&insn.operand[0], SEG_DS, 0, 0, 8);
    insn = decode_hex("0f 01 10", 4); /* lgdt m16&32 */
    assert_memory(&insn.operand[0], SEG_DS, 0, 0, 6);
}
END_TEST

/* These name an address: nothing is read there, whatever is or is not mapped. */
START_TEST(test_address_only)
{
    static const char *const cases[] = {"8d 44 88 10", "0f 01 38", "0f 1f 44 00 00", "0f 18 00", "0f 0d 08"};

    for (int i = 0; i < COUNT(cases); i++) {
        struct insn insn = decode_hex(cases[i], 4);
        const struct operand *memory = &insn.operand[insn.operand[0].kind == OPERAND_MEMORY ? 0 : 1];

        ck_assert_int_eq(memory->kind, OPERAND_MEMORY);
        ck_assert(memory->mem.is_address_only);
        ck_assert_ptr_null(insn_memory_operand(&insn));
    }
}
END_TEST

START_TEST(test_implicit_memory)
{
    struct insn insn = decode_hex("a5", 4); /* movsd */

    ck_assert_int_eq(insn.n_operands, 2);
    assert_memory(&insn.operand[0], SEG_ES, 7, 0, 4);
    assert_memory(&insn.operand[1], SEG_DS, 6, 0, 4);
    ck_assert(insn.operand[0].is_implicit && insn.operand[1].is_implicit);
    ck_assert_int_eq(insn.operand[0].access, OPERAND_WRITE);
    ck_assert_int_eq(insn.operand[1].access, OPERAND_READ);
    ck_assert_ptr_null(insn_memory_operand(&insn));

    insn = decode_hex("64 a4", 4); /* the override moves the source only */
    assert_memory(&insn.operand[0], SEG_ES, 7, 0, 1);
    assert_memory(&insn.operand[1], SEG_FS, 6, 0, 1);
    insn = decode_hex("2e 6e", 4); /* outsb cs: */
    assert_memory(&insn.operand[0], SEG_CS, 6, 0, 1);
    insn = decode_hex("66 ab", 4); /* stosw */
    assert_memory(&insn.operand[0], SEG_ES, 7, 0, 2);
    insn = decode_hex("d7", 4); /* xlat */
    assert_memory(&insn.operand[0], SEG_DS, 3, 0, 1);
    insn = decode_hex("ff 30", 4); /* push [eax]: the explicit one, then the stack */
    ck_assert_int_eq(insn.n_operands, 2);
    assert_memory(&insn.operand[0], SEG_DS, 0, 0, 4);
    assert_memory(&insn.operand[1], SEG_SS, 4, 0, 4);
    ck_assert_ptr_eq(insn_memory_operand(&insn), &insn.operand[0]);
}
END_TEST

START_TEST(test_immediates)
{
    static const struct {
        const char *hex;
        unsigned operand;
        enum operand_kind kind;
        int64_t value;
    } cases[] = {
        {"6a 80", 0, OPERAND_IMMEDIATE, -128},        {"83 c0 ff", 1, OPERAND_IMMEDIATE, -1},
        {"c1 e0 ff", 1, OPERAND_IMMEDIATE, 255},      {"e6 e9", 0, OPERAND_IMMEDIATE, 0xe9},
        {"cd 80", 0, OPERAND_IMMEDIATE, 0x80},        {"c2 ff ff", 0, OPERAND_IMMEDIATE, 0xffff},
        {"c8 ff ff 1f", 1, OPERAND_IMMEDIATE, 0x1f},  {"d1 e0", 1, OPERAND_IMMEDIATE, 1},
        {"eb 80", 0, OPERAND_RELATIVE, -128},         {"e8 00 00 00 80", 0, OPERAND_RELATIVE, INT32_MIN},
        {"66 e9 00 80", 0, OPERAND_RELATIVE, -32768},
    };

    for (int i = 0; i < COUNT(cases); i++) {
        struct insn insn = decode_hex(cases[i].hex, 4);

        ck_assert_int_eq(insn.operand[cases[i].operand].kind, cases[i].kind);
        ck_assert_msg(insn.operand[cases[i].operand].immediate == cases[i].value, "%s: %lld", cases[i].hex,
                      (long long)insn.operand[cases[i].operand].immediate);
    }
}
END_TEST

START_TEST(test_far_pointers)
{
    struct insn insn = decode_hex("9a 78 56 34 12 08 00", 4);

    ck_assert_int_eq(insn.operand[0].kind, OPERAND_FAR);
    ck_assert_int_eq(insn.operand[0].far.selector, 8);
    ck_assert_int_eq(insn.operand[0].far.offset, 0x12345678);
    insn = decode_hex("66 ea 34 12 00 f0", 4);
    ck_assert_int_eq(insn.operand[0].far.selector, 0xf000);
    ck_assert_int_eq(insn.operand[0].far.offset, 0x1234);
    ck_assert_int_eq(insn.operand_size, 2);
    insn = decode_hex("ff 6d 00", 4); /* jmp far [ebp] */
    assert_memory(&insn.operand[0], SEG_SS, 5, 0, 6);
}
END_TEST

START_TEST(test_sizes)
{
    static const struct {
        unsigned default_size;
        const char *hex;
        unsigned operand_size, address_size;
    } cases[] = {
        {4, "ab", 4, 4},    {4, "66 ab", 2, 4}, {4, "67 ab", 4, 2}, {4, "66 67 ab", 2, 2},
        {2, "ab", 2, 2},    {2, "66 ab", 4, 2}, {2, "67 ab", 2, 4}, {2, "67 66 ab", 4, 4},
        {4, "66 cf", 2, 4}, {2, "66 cf", 4, 2}, {2, "aa", 2, 2},    {4, "66 0f 01 10", 2, 4},
    };

    for (int i = 0; i < COUNT(cases); i++) {
        struct insn insn = decode_hex(cases[i].hex, cases[i].default_size);

        ck_assert_int_eq(insn.operand_size, cases[i].operand_size);
        ck_assert_int_eq(insn.address_size, cases[i].address_size);
    }
}
END_TEST

/* ---- hostile bytes ------------------------------------------------------------------------------------- */

/* Random bytes against an unreadable page: a read beyond the buffer faults; what decodes stays within its
 * bounds. */
START_TEST(test_random_bytes)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    uint8_t *map = mmap(NULL, 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    uint32_t random = 12345;

    ck_assert_ptr_ne(map, MAP_FAILED);
    ck_assert_int_eq(mprotect(map + page, page, PROT_NONE), 0);
    for (int round = 0; round < 100000; round++) {
        size_t n = (size_t)round % 17;
        unsigned default_size = round % 3 == 0 ? 2 : 4;
        uint8_t *bytes = map + page - n;
        struct insn insn, again;
        char text[80];

        for (size_t i = 0; i < n; i++) {
            random = random * 1664525 + 1013904223;
            bytes[i] = (uint8_t)(random >> 24);
        }
        if (decode_insn(bytes, n, default_size, &insn) != DECODE_OK)
            continue;
        ck_assert_int_le(insn.length, n);
        ck_assert_int_le(insn.n_operands, INSN_MAX_OPERANDS);
        ck_assert_int_le(insn.opcode_offset, insn.length);
        ck_assert_int_le(insn.modrm_offset, insn.length);
        ck_assert_int_le(insn.immediate_offset + insn.immediate_length, insn.length);
        decode_format(&insn, 0, text, sizeof text);
        ck_assert_ptr_null(strstr(text, "bytes"));
        ck_assert_int_eq(decode_insn(bytes, insn.length, default_size, &again), DECODE_OK);
        ck_assert_mem_eq(&insn, &again, sizeof insn);
    }
    munmap(map, 2 * page);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("decode");
    TCase *tests = tcase_create("decode");
    SRunner *runner;
    int failed;

    tcase_add_loop_test(tests, test_text, 0, COUNT(vectors));
    tcase_add_loop_test(tests, test_truncated, 0, COUNT(vectors));
    tcase_add_test(tests, test_text_is_cut_at_size);
    tcase_add_loop_test(tests, test_status, 0, COUNT(errors));
    tcase_add_test(tests, test_encoding_fields);
    tcase_add_test(tests, test_repeat_prefixes);
    tcase_add_test(tests, test_register_operands);
    tcase_add_test(tests, test_memory_operands);
    tcase_add_test(tests, test_address_only);
    tcase_add_test(tests, test_implicit_memory);
    tcase_add_test(tests, test_immediates);
    tcase_add_test(tests, test_far_pointers);
    tcase_add_test(tests, test_sizes);
    tcase_add_test(tests, test_random_bytes);
    suite_add_tcase(suite, tests);
    runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
