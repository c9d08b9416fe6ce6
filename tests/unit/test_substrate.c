/*
 * The table of sensitive instructions against the processor: each row's examples are executed at ring 3 in
 * compatibility mode, and what really happened has to be what the row's substrate column says.
 */
#include <check.h>
#include <cpuid.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "decode/decode.h"
#include "unit/compat_child.h"

#ifdef __has_feature /* clang's way to say it; gcc has a macro */
#if __has_feature(address_sanitizer)
#define HAS_SANITIZER true
#endif
#endif
#ifdef __SANITIZE_ADDRESS__
#define HAS_SANITIZER true
#endif
#ifndef HAS_SANITIZER
#define HAS_SANITIZER false
#endif

#define COUNT(array) ((int)(sizeof(array) / sizeof((array)[0])))

/* ---- what may happen
 * ----------------------------------------------------------------------------------------- */

/* Endings as a set: bit n is exception n. */
#define DB   (1u << 1)
#define BP   (1u << 3)
#define OF   (1u << 4)
#define UD   (1u << 6)
#define NP   (1u << 11)
#define SS   (1u << 12)
#define GP   (1u << 13)
#define PF   (1u << 14)
#define RUNS (1u << 30)
#define CALL (1u << 31) /* into the host kernel */

/* The signals that Linux makes of them (arch/x86/kernel/traps.c). */
static const struct {
    unsigned vector;
    int signal;
    const char *name;
} vectors[] = {
    {1, SIGTRAP, "#DB"}, {3, SIGTRAP, "#BP"}, {4, SIGSEGV, "#OF"},  {6, SIGILL, "#UD"},
    {11, SIGBUS, "#NP"}, {12, SIGBUS, "#SS"}, {13, SIGSEGV, "#GP"}, {14, SIGSEGV, "#PF"},
};

/* What an example needs of the host, or follows of it. */
enum need {
    ALWAYS,
    NEEDS_LDT,
    NEEDS_TSC_TRAP,
    BY_CPUID_TRAP,    /* #GP where arch_prctl(ARCH_SET_CPUID) works, else it runs */
    BY_FEATURE_1_ECX, /* + bit: runs where CPUID.1:ECX has the bit, else #UD */
    BY_OSXSAVE = BY_FEATURE_1_ECX + 27,
    BY_SSE3 = BY_FEATURE_1_ECX + 0,
    BY_POPCNT = BY_FEATURE_1_ECX + 23,
    BY_RDRAND = BY_FEATURE_1_ECX + 30,
    BY_AVX = BY_FEATURE_1_ECX + 28,
};

/* The row is named as a check on sensitive_find; the bytes run with ebx, esi, edi, ebp at a page of zeroes.
 */
struct example {
    const char *row, *setup, *bytes;
    uint32_t intel, amd; /* the endings that are right there */
    enum need need;
};

#define EVERYWHERE(endings) (endings), (endings)
#define EAX(hex)            "b8 " hex " "                         /* mov eax, imm32 */
#define AT_EBX(hex)         "c7 03 00 08 10 00 c7 43 04 " hex " " /* [ebx] = landing, [ebx+4] = imm32 */
#define PUSH(hex)           "68 " hex " "
#define AT_TOP_OF_STACK     "bc 00 30 10 00 "
#define LANDING             "00 08 10 00"

static const struct example examples[] = {
    {"CLI", "", "fa", EVERYWHERE(GP), ALWAYS},
    {"STI", "", "fb", EVERYWHERE(GP), ALWAYS},
    {"HLT", "", "f4", EVERYWHERE(GP), ALWAYS},
    {"PUSHF", "", "66 9c", EVERYWHERE(RUNS), ALWAYS},
    {"PUSHFD", "", "9c", EVERYWHERE(RUNS), ALWAYS},
    {"POPF", "66 6a 02", "66 9d", EVERYWHERE(RUNS), ALWAYS},
    {"POPFD", "6a 02", "9d", EVERYWHERE(RUNS), ALWAYS},
    {"IN", "", "e4 60", EVERYWHERE(GP), ALWAYS},
    {"IN", "ba 60 00 00 00", "ed", EVERYWHERE(GP), ALWAYS},
    {"OUT", "", "e6 80", EVERYWHERE(GP), ALWAYS},
    {"OUT", "ba 80 00 00 00", "66 ef", EVERYWHERE(GP), ALWAYS},
    {"INSB", "ba 80 00 00 00", "6c", EVERYWHERE(GP), ALWAYS},
    {"INSW", "ba 80 00 00 00", "66 6d", EVERYWHERE(GP), ALWAYS},
    {"INSD", "ba 80 00 00 00", "6d", EVERYWHERE(GP), ALWAYS},
    {"OUTSB", "ba 80 00 00 00", "6e", EVERYWHERE(GP), ALWAYS},
    {"OUTSW", "ba 80 00 00 00", "66 6f", EVERYWHERE(GP), ALWAYS},
    {"OUTSD", "ba 80 00 00 00", "6f", EVERYWHERE(GP), ALWAYS},

    {"MOV from CR", "", "0f 20 c0", EVERYWHERE(GP), ALWAYS},
    {"MOV from CR", "", "0f 20 d0", EVERYWHERE(GP), ALWAYS},
    {"MOV to CR", "", "0f 22 d8", EVERYWHERE(GP), ALWAYS},
    {"MOV from DR", "", "0f 21 f8", EVERYWHERE(GP), ALWAYS},
    {"MOV to DR", "", "0f 23 c0", EVERYWHERE(GP), ALWAYS},
    {"MOV from Sreg", "", "8c c8", EVERYWHERE(RUNS), ALWAYS},
    {"MOV from Sreg", "", "8c 1b", EVERYWHERE(RUNS), ALWAYS},
    {"MOV to Sreg", EAX("00 00 00 00"), "8e d8", EVERYWHERE(RUNS), ALWAYS},
    {"MOV to Sreg", EAX("23 00 00 00"), "8e c0", EVERYWHERE(RUNS), ALWAYS},
    {"MOV to Sreg", EAX("28 00 00 00"), "8e d8", EVERYWHERE(RUNS), ALWAYS}, /* RPL 0, DPL 3 */
    {"MOV to Sreg", EAX("20 00 00 00"), "8e c0", EVERYWHERE(RUNS), ALWAYS},
    {"MOV to Sreg", EAX("22 00 00 00"), "8e e0", EVERYWHERE(RUNS), ALWAYS},
    {"MOV to Sreg", EAX("29 00 00 00"), "8e e8", EVERYWHERE(RUNS), ALWAYS},
    {"MOV to Sreg", EAX("30 00 00 00"), "8e d8", EVERYWHERE(RUNS), ALWAYS},
    {"MOV to Sreg", EAX("78 00 00 00"), "8e c0", EVERYWHERE(RUNS), ALWAYS},
    {"MOV to Sreg", EAX("04 00 00 00"), "8e d8", EVERYWHERE(RUNS), NEEDS_LDT}, /* RPL 0 of an LDT entry */
    {"MOV to Sreg", EAX("2b 00 00 00"), "8e d0", EVERYWHERE(RUNS), ALWAYS},
    {"MOV to Sreg", EAX("23 00 00 00"), "8e d0", EVERYWHERE(GP), ALWAYS}, /* code in SS */
    {"MOV to Sreg", EAX("7b 00 00 00"), "8e d0", EVERYWHERE(GP), ALWAYS}, /* read-only data in SS */
    {"MOV to Sreg", EAX("07 00 00 00"), "8e d0", EVERYWHERE(RUNS), NEEDS_LDT},
    {"MOV to Sreg", EAX("33 00 00 00"), "8e e8", EVERYWHERE(RUNS), ALWAYS},
    {"MOV to Sreg", EAX("7b 00 00 00"), "8e e0", EVERYWHERE(RUNS), ALWAYS},
    {"MOV to Sreg", EAX("07 00 00 00"), "8e d8", EVERYWHERE(RUNS), NEEDS_LDT},
    {"MOV to Sreg", EAX("08 00 00 00"), "8e d8", EVERYWHERE(GP), ALWAYS},
    {"MOV to Sreg", EAX("10 00 00 00"), "8e d8", EVERYWHERE(GP), ALWAYS},
    {"MOV to Sreg", EAX("18 00 00 00"), "8e d0", EVERYWHERE(GP), ALWAYS},
    {"MOV to Sreg", EAX("00 00 00 00"), "8e d0", EVERYWHERE(GP), ALWAYS}, /* null in SS */
    {"MOV to Sreg", EAX("28 00 00 00"), "8e d0", EVERYWHERE(GP), ALWAYS}, /* SS wants RPL = CPL */
    {"MOV to Sreg", EAX("17 00 00 00"), "8e d8", EVERYWHERE(NP), NEEDS_LDT},
    {"MOV to Sreg", EAX("17 00 00 00"), "8e d0", EVERYWHERE(SS), NEEDS_LDT},
    {"PUSH Sreg", "", "0e", EVERYWHERE(RUNS), ALWAYS},
    {"PUSH Sreg", "", "0f a8", EVERYWHERE(RUNS), ALWAYS},
    {"POP Sreg", "6a 2b", "07", EVERYWHERE(RUNS), ALWAYS},
    {"POP Sreg", "6a 07", "0f a1", EVERYWHERE(RUNS), NEEDS_LDT},
    {"POP Sreg", "6a 10", "1f", EVERYWHERE(GP), ALWAYS},
    {"LDS", AT_EBX("2b 00 00 00"), "c5 03", EVERYWHERE(RUNS), ALWAYS},
    {"LDS", AT_EBX("10 00 00 00"), "c5 03", EVERYWHERE(GP), ALWAYS},
    {"LES", AT_EBX("2b 00 00 00"), "c4 03", EVERYWHERE(RUNS), ALWAYS},
    {"LES", AT_EBX("10 00 00 00"), "c4 03", EVERYWHERE(GP), ALWAYS},
    {"LFS", AT_EBX("07 00 00 00"), "0f b4 03", EVERYWHERE(RUNS), NEEDS_LDT},
    {"LFS", AT_EBX("00 00 00 00"), "0f b4 03", EVERYWHERE(RUNS), ALWAYS},
    {"LFS", AT_EBX("10 00 00 00"), "0f b4 03", EVERYWHERE(GP), ALWAYS},
    {"LGS", AT_EBX("33 00 00 00"), "0f b5 03", EVERYWHERE(RUNS), ALWAYS},
    {"LGS", AT_EBX("10 00 00 00"), "0f b5 03", EVERYWHERE(GP), ALWAYS},
    {"LSS", AT_EBX("2b 00 00 00"), "0f b2 23", EVERYWHERE(RUNS), ALWAYS},
    {"LSS", AT_EBX("10 00 00 00"), "0f b2 23", EVERYWHERE(GP), ALWAYS},

    {"JMP far", "", "ea " LANDING " 08 00", EVERYWHERE(GP), ALWAYS},
    {"JMP far", "", "ea " LANDING " 10 00", EVERYWHERE(GP), ALWAYS},
    {"JMP far", "", "ea " LANDING " 23 00", EVERYWHERE(RUNS), ALWAYS},
    {"JMP far", "", "ea " LANDING " 20 00", EVERYWHERE(RUNS), ALWAYS},
    {"JMP far", "", "ea " LANDING " 33 00", EVERYWHERE(RUNS), ALWAYS}, /* to 64-bit code */
    {"JMP far", "", "ea " LANDING " 2b 00", EVERYWHERE(GP), ALWAYS},   /* data */
    {"JMP far", "", "ea " LANDING " 0f 00", EVERYWHERE(RUNS), NEEDS_LDT},
    {"JMP far", AT_EBX("23 00 00 00"), "ff 2b", EVERYWHERE(RUNS), ALWAYS},
    {"CALL far", "", "9a " LANDING " 08 00", EVERYWHERE(GP), ALWAYS},
    {"CALL far", "", "9a " LANDING " 23 00", EVERYWHERE(RUNS), ALWAYS},
    {"CALL far", AT_EBX("10 00 00 00"), "ff 1b", EVERYWHERE(GP), ALWAYS},
    {"RET far", PUSH("08 00 00 00") PUSH(LANDING), "cb", EVERYWHERE(GP), ALWAYS},
    {"RET far", PUSH("23 00 00 00") PUSH(LANDING), "cb", EVERYWHERE(RUNS), ALWAYS},
    {"RET far", PUSH("20 00 00 00") PUSH(LANDING), "cb", EVERYWHERE(GP), ALWAYS}, /* RPL below CPL */
    {"RET far", PUSH("0f 00 00 00") PUSH(LANDING), "ca 04 00", EVERYWHERE(RUNS), NEEDS_LDT},
    {"IRETD", PUSH("02 02 00 00") PUSH("08 00 00 00") PUSH(LANDING), "cf", EVERYWHERE(GP), ALWAYS},
    {"IRETD", PUSH("02 00 00 00") PUSH("23 00 00 00") PUSH(LANDING), "cf", EVERYWHERE(RUNS), ALWAYS},
    {"IRETD", PUSH("02 00 00 00") PUSH("0f 00 00 00") PUSH(LANDING), "cf", EVERYWHERE(RUNS), NEEDS_LDT},
    {"IRET", "66 6a 02 66 6a 08 66 6a 00", "66 cf", EVERYWHERE(GP), ALWAYS},
    {"IRET", "66 6a 02 66 6a 1f 66 6a 00", "66 cf", EVERYWHERE(RUNS), NEEDS_LDT},
    /* the frame ends where the stack's mapping ends: AMD reads SS:ESP behind it before it looks at the RPL */
    {"RET far", AT_TOP_OF_STACK PUSH("08 00 00 00") PUSH(LANDING), "cb", EVERYWHERE(GP | PF), ALWAYS},
    {"IRETD", AT_TOP_OF_STACK PUSH("02 00 00 00") PUSH("08 00 00 00") PUSH(LANDING), "cf",
     EVERYWHERE(GP | PF), ALWAYS},

    {"INT 0x80", EAX("ff ff ff ff"), "cd 80", EVERYWHERE(CALL | GP), ALWAYS},
    {"INT n", "", "cd 21", EVERYWHERE(GP), ALWAYS},
    {"INT n", "", "cd 40", EVERYWHERE(GP), ALWAYS},
    {"INT n", "", "cd 0e", EVERYWHERE(GP), ALWAYS},
    {"INT n", "", "cd 03", EVERYWHERE(BP), ALWAYS},
    {"INT n", "", "cd 04", EVERYWHERE(OF), ALWAYS},
    {"INT3", "", "cc", EVERYWHERE(BP), ALWAYS},
    {"INT1", "", "f1", EVERYWHERE(DB), ALWAYS},
    {"INTO", "b0 7f 04 01", "ce", EVERYWHERE(OF), ALWAYS}, /* 127 + 1 overflows */
    {"INTO", "b0 00 04 01", "ce", EVERYWHERE(RUNS), ALWAYS},

    {"LGDT", "", "0f 01 13", EVERYWHERE(GP), ALWAYS},
    {"LIDT", "", "0f 01 1b", EVERYWHERE(GP), ALWAYS},
    {"LLDT", EAX("00 00 00 00"), "0f 00 d0", EVERYWHERE(GP), ALWAYS},
    {"LTR", EAX("40 00 00 00"), "0f 00 d8", EVERYWHERE(GP), ALWAYS},
    {"LMSW", EAX("01 00 00 00"), "0f 01 f0", EVERYWHERE(GP), ALWAYS},
    {"CLTS", "", "0f 06", EVERYWHERE(GP), ALWAYS},
    {"SGDT", "", "0f 01 03", EVERYWHERE(RUNS), ALWAYS},
    {"SIDT", "", "0f 01 0b", EVERYWHERE(RUNS), ALWAYS},
    {"SLDT", "", "0f 00 c0", EVERYWHERE(RUNS), ALWAYS},
    {"STR", "", "0f 00 c8", EVERYWHERE(RUNS), ALWAYS},
    {"SMSW", "", "0f 01 e0", EVERYWHERE(RUNS), ALWAYS},
    {"LAR", EAX("08 00 00 00"), "0f 02 c8", EVERYWHERE(RUNS), ALWAYS},
    {"LSL", EAX("2b 00 00 00"), "0f 03 c8", EVERYWHERE(RUNS), ALWAYS},
    {"VERR", EAX("2b 00 00 00"), "0f 00 e0", EVERYWHERE(RUNS), ALWAYS},
    {"VERW", EAX("10 00 00 00"), "0f 00 e8", EVERYWHERE(RUNS), ALWAYS},

    {"ARPL", EAX("03 00 00 00") "31 c9", "63 c1", EVERYWHERE(RUNS), ALWAYS},

    {"INVLPG", "", "0f 01 3b", EVERYWHERE(GP), ALWAYS},
    {"INVD", "", "0f 08", EVERYWHERE(GP), ALWAYS},
    {"WBINVD", "", "0f 09", EVERYWHERE(GP), ALWAYS},
    {"RDMSR", "b9 10 00 00 00", "0f 32", EVERYWHERE(GP), ALWAYS},
    {"WRMSR", "b9 10 00 00 00", "0f 30", EVERYWHERE(GP), ALWAYS},
    {"RDPMC", "31 c9", "0f 33", EVERYWHERE(GP | RUNS), ALWAYS},
    {"RDTSC", "", "0f 31", EVERYWHERE(GP), NEEDS_TSC_TRAP},
    {"CPUID", EAX("00 00 00 00"), "0f a2", EVERYWHERE(GP | RUNS), BY_CPUID_TRAP},

    {"SYSENTER", EAX("ff ff ff ff"), "0f 34", CALL | GP, UD, ALWAYS},
    {"SYSEXIT", "", "0f 35", EVERYWHERE(GP | UD), ALWAYS},
    {"SYSCALL", EAX("ff ff ff ff"), "0f 05", UD, CALL | RUNS, ALWAYS},
    {"SYSRET", "", "0f 07", EVERYWHERE(GP | UD), ALWAYS},

    {"RSM", "", "0f aa", EVERYWHERE(UD), ALWAYS},
    {"XSETBV", "31 c9", "0f 01 d1", EVERYWHERE(GP | UD), ALWAYS},
    {"XSAVES", "", "0f c7 2b", EVERYWHERE(GP | UD), ALWAYS},
    {"XRSTORS", "", "0f c7 1b", EVERYWHERE(GP | UD), ALWAYS},
    {"MONITOR", EAX("00 10 10 00") "31 c9 31 d2", "0f 01 c8", EVERYWHERE(UD), ALWAYS},
    {"MWAIT", EAX("00 00 00 00") "31 c9", "0f 01 c9", EVERYWHERE(UD), ALWAYS},
    {"INVPCID", "", "66 0f 38 82 03", EVERYWHERE(GP | UD), ALWAYS},
    {"STAC", "", "0f 01 cb", EVERYWHERE(UD), ALWAYS},
    {"CLAC", "", "0f 01 ca", EVERYWHERE(UD), ALWAYS},
    {"GETSEC", EAX("00 00 00 00"), "0f 37", EVERYWHERE(GP | UD), ALWAYS},
    {"ENCLS", EAX("00 00 00 00"), "0f 01 cf", EVERYWHERE(GP | UD), ALWAYS},
    {"VMXON", "", "f3 0f c7 33", EVERYWHERE(GP | UD), ALWAYS},
    {"VMXOFF", "", "0f 01 c4", EVERYWHERE(GP | UD), ALWAYS},
    {"VMLAUNCH", "", "0f 01 c2", EVERYWHERE(GP | UD), ALWAYS},
    {"VMRESUME", "", "0f 01 c3", EVERYWHERE(GP | UD), ALWAYS},
    {"VMCLEAR", "", "66 0f c7 33", EVERYWHERE(GP | UD), ALWAYS},
    {"VMPTRLD", "", "0f c7 33", EVERYWHERE(GP | UD), ALWAYS},
    {"VMPTRST", "", "0f c7 3b", EVERYWHERE(GP | UD), ALWAYS},
    {"VMREAD", "", "0f 78 03", EVERYWHERE(GP | UD), ALWAYS},
    {"VMWRITE", "", "0f 79 03", EVERYWHERE(GP | UD), ALWAYS},
    {"INVEPT", "", "66 0f 38 80 03", EVERYWHERE(GP | UD), ALWAYS},
    {"INVVPID", "", "66 0f 38 81 03", EVERYWHERE(GP | UD), ALWAYS},
    {"VMRUN", EAX("00 10 10 00"), "0f 01 d8", EVERYWHERE(GP | UD), ALWAYS},
    {"VMLOAD", EAX("00 10 10 00"), "0f 01 da", EVERYWHERE(GP | UD), ALWAYS},
    {"VMSAVE", EAX("00 10 10 00"), "0f 01 db", EVERYWHERE(GP | UD), ALWAYS},
    {"STGI", "", "0f 01 dc", EVERYWHERE(GP | UD), ALWAYS},
    {"CLGI", "", "0f 01 dd", EVERYWHERE(GP | UD), ALWAYS},
    {"SKINIT", EAX("00 10 10 00"), "0f 01 de", EVERYWHERE(GP | UD), ALWAYS},
    {"INVLPGA", EAX("00 10 10 00"), "0f 01 df", EVERYWHERE(GP | UD), ALWAYS},

    {"RDTSCP", "", "0f 01 f9", EVERYWHERE(GP | UD), NEEDS_TSC_TRAP},
    {"VMCALL", EAX("ff ff ff ff"), "0f 01 c1", EVERYWHERE(RUNS | UD | GP), ALWAYS},
    {"VMMCALL", EAX("ff ff ff ff"), "0f 01 d9", EVERYWHERE(RUNS | UD | GP), ALWAYS},

    {"outside the profile", "", "0f c7 f0", EVERYWHERE(RUNS | UD), BY_RDRAND},
    {"outside the profile", "", "f3 0f b8 c1", EVERYWHERE(RUNS | UD), BY_POPCNT},
    {"outside the profile", "31 c9", "0f 01 d0", EVERYWHERE(RUNS | UD), BY_OSXSAVE}, /* xgetbv */
    {"outside the profile", "", "f2 0f 7c c1", EVERYWHERE(RUNS | UD), BY_SSE3},      /* haddps */
    {"outside the profile", "", "c5 f8 77", EVERYWHERE(RUNS | UD), BY_AVX},          /* vzeroupper */
    {"FPU/SSE instruction", "", "db e3", EVERYWHERE(RUNS), ALWAYS},
    {"FPU/SSE instruction", "", "9b", EVERYWHERE(RUNS), ALWAYS},
    {"FPU/SSE instruction", "", "0f 77", EVERYWHERE(RUNS), ALWAYS},
    {"FPU/SSE instruction", "", "0f 57 c0", EVERYWHERE(RUNS), ALWAYS},
    {"FPU/SSE instruction", "", "0f ae 03", EVERYWHERE(RUNS), ALWAYS},
    {"FPU/SSE instruction", "", "66 0f 6f 03", EVERYWHERE(RUNS), ALWAYS},
};

/* ---- helpers
 * ----------------------------------------------------------------------------------------------------- */

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

static struct compat_result run_hex(const char *setup_hex, const char *hex)
{
    uint8_t setup[64], bytes[16];
    size_t n_setup = parse_hex(setup_hex, setup, sizeof setup);

    return compat_run(setup, n_setup, bytes, parse_hex(hex, bytes, sizeof bytes));
}

/* This host's column; 0 where neither describes it. */
static uint32_t expected_endings(const struct example *example)
{
    static const uint32_t intel = signature_INTEL_ebx, amd = signature_AMD_ebx, hygon = 0x6f677948;
    uint32_t eax, ebx, ecx, edx;

    if (example->intel == example->amd)
        return example->intel;
    if (!__get_cpuid(0, &eax, &ebx, &ecx, &edx))
        return 0;
    if (ebx == intel)
        return example->intel;
    return ebx == amd || ebx == hygon ? example->amd : 0;
}

static const struct sensitive *find_row(const struct example *example)
{
    uint8_t bytes[16];
    size_t n = parse_hex(example->bytes, bytes, sizeof bytes);
    struct insn insn;

    ck_assert_int_eq(decode_insn(bytes, n, 4, &insn), DECODE_OK);
    ck_assert_ptr_nonnull(insn.sensitive);
    return insn.sensitive;
}

static void skip(const struct example *example, const char *reason)
{
    printf("SKIP %s (%s): %s\n", example->row, example->bytes, reason);
}

static uint32_t ending_of(const struct example *example, const struct compat_result *result)
{
    switch (result->ending) {
    case COMPAT_RAN:
        return RUNS;
    case COMPAT_HOST_CALL:
        return CALL;
    case COMPAT_TRAPPED:
        for (int i = 0; i < COUNT(vectors); i++) {
            if (vectors[i].vector == result->vector) {
                ck_assert_msg(result->signal == vectors[i].signal, "%s came as signal %d", vectors[i].name,
                              result->signal);
                return 1u << result->vector;
            }
        }
        ck_abort_msg("%s (%s): exception %u at %#x", example->row, example->bytes, result->vector,
                     result->eip);
        break;
    case COMPAT_DIED:
        ck_abort_msg("%s (%s): the child was lost, signal %d", example->row, example->bytes, result->signal);
        break;
    }
    return 0;
}

static const char *ending_name(uint32_t ending)
{
    if (ending == RUNS)
        return "ran";
    if (ending == CALL)
        return "entered the host kernel";
    for (int i = 0; i < COUNT(vectors); i++) {
        if (ending == 1u << vectors[i].vector)
            return vectors[i].name;
    }
    return "?";
}

/* ---- tests
 * ---------------------------------------------------------------------------------------------------------
 */

/* The expectations themselves agree with the table: what a row claims is what its examples expect. */
START_TEST(test_examples_agree_with_table)
{
    size_t n_rows;
    const struct sensitive *rows = sensitive_table(&n_rows);

    for (size_t i = 0; i < n_rows; i++) {
        uint32_t seen = 0;

        for (int k = 0; k < COUNT(examples); k++) {
            if (find_row(&examples[k]) != &rows[i])
                continue;
            ck_assert_str_eq(examples[k].row, rows[i].name);
            seen |= examples[k].intel | examples[k].amd;
        }
        ck_assert_msg(seen != 0, "no example of %s", rows[i].name);
        switch (rows[i].substrate) {
        case SUBSTRATE_TRAPS:
            ck_assert_msg((seen & (RUNS | CALL)) == 0, "%s: an example runs", rows[i].name);
            break;
        case SUBSTRATE_HOLE:
            ck_assert_msg(seen == RUNS || seen == (RUNS | UD), "%s: an example traps", rows[i].name);
            break;
        case SUBSTRATE_CONDITIONAL:
            ck_assert_msg((seen & (RUNS | CALL)) != 0, "%s: no example runs", rows[i].name);
            if (rows[i].handler == HANDLE_arpl)
                break; /* the mode decides, and here is protected mode only */
            ck_assert_msg((seen & ~(RUNS | CALL)) != 0, "%s: no example traps", rows[i].name);
            break;
        case SUBSTRATE_HOST_CALL:
            ck_assert((seen & CALL) != 0);
            break;
        }
    }
}
END_TEST

START_TEST(test_substrate)
{
    const struct example *example = &examples[_i];
    uint32_t expected = expected_endings(example), ending;
    struct compat_result result;

    if (expected == 0) {
        skip(example, "nothing is known about this vendor's processors");
        return;
    }
    result = run_hex(example->setup, example->bytes);
    if ((expected & CALL) && !result.has_filter) {
        skip(example, "the host refuses a seccomp filter");
        return;
    }
    if (example->need == NEEDS_LDT && !result.has_ldt) {
        skip(example, "the host refuses modify_ldt");
        return;
    }
    if (example->need == NEEDS_TSC_TRAP && !result.has_tsc_trap) {
        skip(example, "the host refuses prctl(PR_SET_TSC)");
        return;
    }
    if (example->need == BY_CPUID_TRAP)
        expected = result.has_cpuid_trap ? GP : RUNS;
    if (example->need >= BY_FEATURE_1_ECX) {
        uint32_t eax, ebx, ecx = 0, edx;

        __get_cpuid(1, &eax, &ebx, &ecx, &edx);
        expected = (ecx >> (example->need - BY_FEATURE_1_ECX)) & 1 ? RUNS : UD;
    }
    ending = ending_of(example, &result);
    ck_assert_msg((ending & expected) != 0, "%s (%s): %s, signal %d, error %#x, eip %#x (start %#x)",
                  example->row, example->bytes, ending_name(ending), result.signal, result.error, result.eip,
                  result.start);
    if (ending & (GP | PF | UD | NP | SS)) /* faults leave eip at the instruction */
        ck_assert_uint_eq(result.eip, result.start);
    if ((ending & GP) && strncmp(example->row, "INT ", 4) == 0)
        ck_assert_uint_eq(result.error, 8 * strtoul(example->bytes + 3, NULL, 16) + 2);
}
END_TEST

/* What the guest sees through a hole: the host's state, where its own would be different. */
static const struct {
    const char *lesson, *bytes;
    uint32_t mask, eax;
} sights[] = {
    {"POPF leaves IF on", "6a 02 9d 9c 58", 0x200, 0x200},
    {"PUSHF shows IOPL 0 whatever was popped", "68 02 30 00 00 9d 9c 58", 0x3000, 0},
    {"MOV from CS shows RPL 3", "8c c8", 3, 3},
    {"PUSH CS shows RPL 3", "0e 58", 3, 3},
    {"SMSW shows PE", "0f 01 e0", 1, 1},
    {"LAR of the host's GDT: 0x2b is data of ring 3", EAX("2b 00 00 00") "0f 02 c0", 0xf000, 0xf000},
};

START_TEST(test_sights)
{
    struct compat_result result = run_hex("", sights[_i].bytes);

    ck_assert_msg(result.ending == COMPAT_RAN, "%s: signal %d, vector %u", sights[_i].lesson, result.signal,
                  result.vector);
    ck_assert_msg((result.eax & sights[_i].mask) == sights[_i].eax, "%s: eax = %#x", sights[_i].lesson,
                  result.eax);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("substrate");
    TCase *table = tcase_create("examples"), *native = tcase_create("native");
    SRunner *runner;
    int failed;

    tcase_add_test(table, test_examples_agree_with_table);
    suite_add_tcase(suite, table);
    if (HAS_SANITIZER) {
        printf("SKIP native execution: a sanitizer owns the low addresses and the signals\n");
    } else if (run_hex("", "90").ending != COMPAT_RAN) {
        printf("SKIP native execution: this host does not run 32-bit code below 4 GiB\n");
    } else {
        tcase_add_loop_test(native, test_substrate, 0, COUNT(examples));
        tcase_add_loop_test(native, test_sights, 0, COUNT(sights));
    }
    suite_add_tcase(suite, native);
    runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
