/*
 * Ordinary instructions where native_oracle.h does not reach: 16-bit code, ESP as an operand, how often
 * memory is touched and in what order, #DE; and that nothing but arithmetic ever becomes a stub.
 */
#include "fake_guest.h"
#include "vcpu/ordinary.h"

static struct fake_machine machine;

#define DATA 0x40000u

/* ---- memory is touched as often as by the CPU ---------------------------------------------------------- */

struct access_case {
    const char *name;
    uint8_t bytes[8];
    unsigned length, n_reads, n_writes;
};

START_TEST(memory_operands_move_once)
{
    static const struct access_case cases[] = {
        {"mov [ebx], eax", {0x89, 0x03}, 2, 0, 1},
        {"mov eax, [ebx]", {0x8b, 0x03}, 2, 1, 0},
        {"mov byte [ebx], 1", {0xc6, 0x03, 0x01}, 3, 0, 1},
        {"mov eax, [40000h]", {0xa1, guest_le32(DATA)}, 5, 1, 0},
        {"mov [40000h], al", {0xa2, guest_le32(DATA)}, 5, 0, 1},
        {"add [ebx], eax", {0x01, 0x03}, 2, 1, 1},
        {"cmp [ebx], eax", {0x39, 0x03}, 2, 1, 0},
        {"test [ebx], eax", {0x85, 0x03}, 2, 1, 0},
        {"xchg [ebx], eax", {0x87, 0x03}, 2, 1, 1},
        {"inc dword [ebx]", {0xff, 0x03}, 2, 1, 1},
        {"setz [ebx]", {0x0f, 0x94, 0x03}, 3, 0, 1},
        {"cmovz eax, [ebx], not taken", {0x0f, 0x44, 0x03}, 3, 1, 0},
        {"movzx eax, byte [ebx]", {0x0f, 0xb6, 0x03}, 3, 1, 0},
        {"bts [ebx], eax", {0x0f, 0xab, 0x03}, 3, 1, 1},
        {"bt [ebx], eax", {0x0f, 0xa3, 0x03}, 3, 1, 0},
        {"lock cmpxchg [ebx], ecx, unequal", {0xf0, 0x0f, 0xb1, 0x0b}, 4, 1, 1},
        {"movnti [ebx], eax", {0x0f, 0xc3, 0x03}, 3, 0, 1},
        {"push [ebx]", {0xff, 0x33}, 2, 1, 1},
        {"movsd", {0xa5}, 1, 1, 1},
        {"movups xmm0, [ebx]", {0x0f, 0x10, 0x03}, 3, 1, 0},
        {"movaps [ebx], xmm0", {0x0f, 0x29, 0x03}, 3, 0, 1},
        {"fld qword [ebx]", {0xdd, 0x03}, 2, 1, 0},
        {"fstp dword [ebx]", {0xd9, 0x1b}, 2, 0, 1},
        {"nop [ebx]", {0x0f, 0x1f, 0x03}, 3, 0, 0},
        {"prefetcht0 [ebx]", {0x0f, 0x18, 0x0b}, 3, 0, 0},
        {"lea eax, [ebx]", {0x8d, 0x03}, 2, 0, 0},
    };

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct vcpu *vcpu = guest_reset(&machine);
        struct insn insn;

        vcpu->cr4 = CR4_OSFXSR;
        vcpu->gpr[EBX] = vcpu->gpr[ESI] = vcpu->gpr[EDI] = DATA;
        vcpu->gpr[EAX] = 5;
        fake_write(&machine, GUEST_CODE, cases[i].bytes, cases[i].length);
        ck_assert_int_eq(vcpu_fetch(vcpu, &insn), OUTCOME_DONE);
        machine.n_reads = machine.n_writes = 0;
        ck_assert_msg(vcpu_emulate(vcpu, &insn) == OUTCOME_DONE, "%s", cases[i].name);
        ck_assert_msg(machine.n_reads == cases[i].n_reads && machine.n_writes == cases[i].n_writes,
                      "%s: %u reads, %u writes", cases[i].name, machine.n_reads, machine.n_writes);
        ck_assert_uint_eq(vcpu->eip, GUEST_CODE + cases[i].length);
    }
}
END_TEST

START_TEST(nothing_changes_if_the_write_cannot_be)
{
    struct vcpu *vcpu = guest_reset(&machine);

    fake_set_rights(&machine, DATA, PTE_P);
    vcpu->gpr[EBX] = DATA;
    vcpu->gpr[EAX] = 5;
    guest_assert_fault(vcpu, EXCEPTION_PF, PF_PRESENT | PF_WRITE, 0x01, 0x03);       /* add [ebx], eax */
    guest_assert_fault(vcpu, EXCEPTION_PF, PF_PRESENT | PF_WRITE, 0x0f, 0xc1, 0x03); /* xadd [ebx], eax */
    guest_assert_fault(vcpu, EXCEPTION_PF, PF_PRESENT | PF_WRITE, 0x87, 0x03);       /* xchg [ebx], eax */
    guest_assert_fault(vcpu, EXCEPTION_PF, PF_PRESENT | PF_WRITE, 0x0f, 0xbb, 0x03); /* btc [ebx], eax */
    ck_assert_uint_eq(machine.n_writes, 0);
}
END_TEST

/* ---- 16-bit code --------------------------------------------------------------------------------------- */

START_TEST(the_operand_size_prefix_means_the_other_size)
{
    struct vcpu *vcpu = guest_reset(&machine);

    vcpu->segment[SEG_CS].attributes &= (uint16_t)~SEGMENT_DB;
    vcpu->gpr[EAX] = 0x1111ffff;
    vcpu->gpr[EBX] = 0x22220001;
    guest_assert_done(vcpu, 0x01, 0xd8); /* add ax, bx */
    ck_assert_uint_eq(vcpu->gpr[EAX], 0x11110000);
    ck_assert_uint_eq(vcpu->eflags & (EFLAGS_CF | EFLAGS_ZF), EFLAGS_CF | EFLAGS_ZF);
    vcpu->gpr[EAX] = 0x1111ffff;
    guest_assert_done(vcpu, 0x66, 0x01, 0xd8); /* add eax, ebx */
    ck_assert_uint_eq(vcpu->gpr[EAX], 0x33340000);
    guest_assert_done(vcpu, 0x48); /* dec ax */
    ck_assert_uint_eq(vcpu->gpr[EAX], 0x3334ffff);
    guest_assert_done(vcpu, 0x66, 0x40); /* inc eax */
    ck_assert_uint_eq(vcpu->gpr[EAX], 0x33350000);
    guest_assert_done(vcpu, 0x05, 0x34, 0x12); /* add ax, 1234h */
    ck_assert_uint_eq(vcpu->gpr[EAX], 0x33351234);
    guest_assert_done(vcpu, 0x66, 0x0f, 0xb6, 0xcc); /* movzx ecx, ah */
    ck_assert_uint_eq(vcpu->gpr[ECX], 0x12);
    guest_assert_done(vcpu, 0x66, 0xc1, 0xe0, 0x04); /* shl eax, 4 */
    ck_assert_uint_eq(vcpu->gpr[EAX], 0x33512340);
}
END_TEST

START_TEST(vector_prefixes_are_not_operand_sizes)
{
    struct vcpu *vcpu = guest_reset(&machine);

    vcpu->cr4 = CR4_OSFXSR;
    vcpu->segment[SEG_CS].attributes &= (uint16_t)~SEGMENT_DB;
    vcpu->gpr[EAX] = 0x12345678;
    guest_assert_done(vcpu, 0x66, 0x0f, 0x6e, 0xc0); /* movd xmm0, eax */
    guest_assert_done(vcpu, 0x66, 0x0f, 0xfe, 0xc0); /* paddd xmm0, xmm0 */
    guest_assert_done(vcpu, 0x66, 0x0f, 0x7e, 0xc1); /* movd ecx, xmm0 */
    ck_assert_uint_eq(vcpu->gpr[ECX], 0x2468acf0);
    vcpu->gpr[EBX] = 0x1000;
    guest_assert_done(vcpu, 0x0f, 0xc3, 0x07); /* movnti [bx], eax: 32 bits all the same */
    ck_assert_uint_eq(fake_read32(&machine, 0x1000), 0x12345678);
    guest_assert_done(vcpu, 0x0f, 0xc7, 0x0f); /* cmpxchg8b [bx] */
}
END_TEST

START_TEST(real_mode_code_runs)
{
    struct vcpu *vcpu = guest_reset(&machine);

    guest_enter_real_mode(vcpu);
    vcpu->gpr[EBX] = 0xffff0100;
    fake_write16(&machine, 0x10104, 0x1234);
    guest_assert_done(vcpu, 0x81, 0x47, 0x04, 0x01, 0x00); /* add word [bx+4], 1 */
    ck_assert_uint_eq(fake_read16(&machine, 0x10104), 0x1235);
    guest_assert_done(vcpu, 0xeb, 0xf9); /* jmp -7 */
    ck_assert_uint_eq(vcpu->eip, 0);
}
END_TEST

/* ---- ESP as an operand --------------------------------------------------------------------------------- */

struct esp_case {
    uint8_t bytes[8];
    unsigned length;
    uint32_t esp, eax, ebp;
};

START_TEST(esp_is_a_register_like_any_other)
{
    /* before: eax 00010000, ebp 00000003, esp 00020000; [ebx] 00000005 */
    static const struct esp_case cases[] = {
        {{0x83, 0xec, 0x10}, 3, 0x0001fff0, 0x10000, 3},                 /* sub esp, 16 */
        {{0x83, 0xe4, 0xf0}, 3, 0x00020000, 0x10000, 3},                 /* and esp, -16 */
        {{0x01, 0xc4}, 2, 0x00030000, 0x10000, 3},                       /* add esp, eax */
        {{0x01, 0xe0}, 2, 0x00020000, 0x30000, 3},                       /* add eax, esp */
        {{0x01, 0xec}, 2, 0x00020003, 0x10000, 3},                       /* add esp, ebp */
        {{0x01, 0xe5}, 2, 0x00020000, 0x10000, 0x20003},                 /* add ebp, esp */
        {{0x01, 0xe4}, 2, 0x00040000, 0x10000, 3},                       /* add esp, esp */
        {{0x94}, 1, 0x00010000, 0x20000, 3},                             /* xchg esp, eax */
        {{0x44}, 1, 0x00020001, 0x10000, 3},                             /* inc esp */
        {{0x66, 0x4c}, 2, 0x0002ffff, 0x10000, 3},                       /* dec sp */
        {{0x0f, 0xcc}, 2, 0x00000200, 0x10000, 3},                       /* bswap esp */
        {{0x03, 0x23}, 2, 0x00020005, 0x10000, 3},                       /* add esp, [ebx] */
        {{0x6b, 0xe4, 0x03}, 3, 0x00060000, 0x10000, 3},                 /* imul esp, esp, 3 */
        {{0x6b, 0xe5, 0x07}, 3, 21, 0x10000, 3},                         /* imul esp, ebp, 7 */
        {{0x0f, 0xb6, 0xe4}, 3, 0, 0x10000, 3},                          /* movzx esp, ah */
        {{0xd1, 0xe4}, 2, 0x00040000, 0x10000, 3},                       /* shl esp, 1 */
        {{0x0f, 0xb1, 0xe5}, 3, 0x00020000, 3, 3},                       /* cmpxchg ebp, esp: unequal */
        {{0x0f, 0xa4, 0xec, 0x08}, 4, 0x02000000, 0x10000, 3},           /* shld esp, ebp, 8 */
        {{0xb8 + 4, guest_le32(0x12345678)}, 5, 0x12345678, 0x10000, 3}, /* mov esp, imm */
    };

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct vcpu *vcpu = guest_reset(&machine);

        vcpu->gpr[EAX] = 0x10000;
        vcpu->gpr[EBP] = 3;
        vcpu->gpr[EBX] = DATA;
        vcpu->gpr[ESI] = 0x51515151;
        vcpu->gpr[EDI] = 0xd1d1d1d1;
        fake_write32(&machine, DATA, 5);
        ck_assert_int_eq(guest_run_bytes(vcpu, cases[i].bytes, cases[i].length), OUTCOME_DONE);
        ck_assert_msg(vcpu->gpr[ESP] == cases[i].esp, "case %zu: esp %08x", i, vcpu->gpr[ESP]);
        ck_assert_msg(vcpu->gpr[EAX] == cases[i].eax, "case %zu: eax %08x", i, vcpu->gpr[EAX]);
        ck_assert_msg(vcpu->gpr[EBP] == cases[i].ebp, "case %zu: ebp %08x", i, vcpu->gpr[EBP]);
        ck_assert_uint_eq(vcpu->gpr[ESI], 0x51515151);
        ck_assert_uint_eq(vcpu->gpr[EDI], 0xd1d1d1d1);
    }
}
END_TEST

/* ---- division ------------------------------------------------------------------------------------------ */

struct division_case {
    uint8_t bytes[3];
    unsigned length;
    uint32_t eax, edx, ecx;
    bool fails;
};

START_TEST(division_fails_as_a_fault_of_the_guest)
{
    static const struct division_case cases[] = {
        {{0xf7, 0xf1}, 2, 1, 0, 0, true}, /* div ecx: by zero */
        {{0xf7, 0xf1}, 2, 0, 1, 1, true}, /* the quotient has 33 bits */
        {{0xf7, 0xf1}, 2, 0xffffffff, 0, 1, false},
        {{0xf6, 0xf1}, 2, 0x0200, 0, 2, true}, /* div cl: 100h */
        {{0xf6, 0xf1}, 2, 0x01ff, 0, 2, false},
        {{0x66, 0xf7, 0xf1}, 3, 0, 2, 2, true},                      /* div cx */
        {{0xf7, 0xf9}, 2, 0x80000000, 0xffffffff, 0xffffffff, true}, /* idiv: -2^31 / -1 */
        {{0xf7, 0xf9}, 2, 0, 0x80000000, 0xffffffff, true},          /* idiv: -2^63 / -1 */
        {{0xf7, 0xf9}, 2, 0x80000000, 0xffffffff, 1, false},
        {{0xf7, 0xf9}, 2, 0x80000000, 0, 1, true},
        {{0xf6, 0xf9}, 2, 0x0080, 0, 1, true},  /* idiv cl: 128 */
        {{0xf6, 0xf9}, 2, 0xff80, 0, 1, false}, /* -128 */
        {{0x66, 0xf7, 0xf9}, 3, 0x8000, 0xffff, 0xffff, true},
        {{0xd4, 0x00}, 2, 5, 0, 0, true}, /* aam 0 */
    };

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct vcpu *vcpu = guest_reset(&machine);

        vcpu->gpr[EAX] = cases[i].eax;
        vcpu->gpr[EDX] = cases[i].edx;
        vcpu->gpr[ECX] = cases[i].ecx;
        if (cases[i].fails)
            guest_check_fault(vcpu, cases[i].bytes, cases[i].length, EXCEPTION_DE, 0);
        else
            ck_assert_msg(guest_run_bytes(vcpu, cases[i].bytes, cases[i].length) == OUTCOME_DONE, "case %zu",
                          i);
    }
}
END_TEST

START_TEST(bound_checks_both_ends)
{
    struct vcpu *vcpu = guest_reset(&machine);

    vcpu->gpr[EBX] = DATA;
    fake_write32(&machine, DATA, (uint32_t)-5);
    fake_write32(&machine, DATA + 4, 7);
    vcpu->gpr[EAX] = 7;
    guest_assert_done(vcpu, 0x62, 0x03);
    vcpu->gpr[EAX] = (uint32_t)-5;
    guest_assert_done(vcpu, 0x62, 0x03);
    vcpu->gpr[EAX] = 8;
    guest_assert_fault(vcpu, EXCEPTION_BR, 0, 0x62, 0x03);
    vcpu->gpr[EAX] = (uint32_t)-6;
    guest_assert_fault(vcpu, EXCEPTION_BR, 0, 0x62, 0x03);
}
END_TEST

START_TEST(bit_offsets_reach_beyond_the_operand)
{
    struct vcpu *vcpu = guest_reset(&machine);

    vcpu->gpr[EBX] = DATA;
    vcpu->gpr[EAX] = (uint32_t)-1;
    guest_assert_done(vcpu, 0x0f, 0xab, 0x03); /* bts [ebx], eax: the bit below [ebx] */
    ck_assert_uint_eq(fake_read32(&machine, DATA - 4), 0x80000000);
    vcpu->gpr[EAX] = 0x1234ffff;
    guest_assert_done(vcpu, 0x66, 0x0f, 0xab, 0x03); /* bts [ebx], ax */
    ck_assert_uint_eq(fake_read16(&machine, DATA - 2), 0x8000);
    ck_assert_uint_eq(vcpu->eflags & EFLAGS_CF, EFLAGS_CF);
    vcpu->gpr[EAX] = 100;
    guest_assert_done(vcpu, 0x0f, 0xbb, 0x03); /* btc: byte 12, bit 4 */
    ck_assert_uint_eq(fake_read32(&machine, DATA + 12), 0x10);
    ck_assert_uint_eq(vcpu->eflags & EFLAGS_CF, 0);
}
END_TEST

/* ---- what may become a stub ---------------------------------------------------------------------------- */

START_TEST(nothing_else_is_relocated)
{
    static const uint8_t refused[][8] = {
        {0x50},                   /* push eax */
        {0x58},                   /* pop eax */
        {0x60},                   /* pusha */
        {0xc9},                   /* leave */
        {0xc3},                   /* ret */
        {0xe8, 0, 0, 0, 0},       /* call */
        {0xeb, 0},                /* jmp */
        {0x75, 0},                /* jnz */
        {0xe2, 0},                /* loop */
        {0xff, 0xe0},             /* jmp eax */
        {0xff, 0xd0},             /* call eax */
        {0xff, 0x30},             /* push [eax] */
        {0xa4},                   /* movsb */
        {0xd7},                   /* xlat */
        {0xa1, 0, 0, 0, 0},       /* mov eax, moffs */
        {0x8e, 0xd8},             /* mov ds, ax */
        {0x06},                   /* push es */
        {0xcd, 0x80},             /* int 80h */
        {0x0f, 0x05},             /* syscall */
        {0x0f, 0x34},             /* sysenter */
        {0x0f, 0xa2},             /* cpuid */
        {0x0f, 0x31},             /* rdtsc */
        {0x0f, 0x01, 0xd0},       /* xgetbv */
        {0xec},                   /* in al, dx */
        {0xf4},                   /* hlt */
        {0x9c},                   /* pushf */
        {0x0f, 0xae, 0x00},       /* fxsave [eax] */
        {0xdd, 0x30},             /* fnsave [eax] */
        {0x66, 0x0f, 0xf7, 0xc1}, /* maskmovdqu xmm0, xmm1 */
    };

    for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++) {
        struct relocated relocated;
        struct insn insn;

        ck_assert_int_eq(decode_insn(refused[i], sizeof refused[i], 4, &insn), DECODE_OK);
        ck_assert_msg(!relocate_insn(&insn, &relocated), "case %zu: %s", i, decode_mnemonic_name(&insn));
    }
}
END_TEST

/* REX prefixes are INC and DEC to the guest, VEX is LES and LDS: what comes out must have neither. */
START_TEST(a_stub_is_the_same_instruction_and_no_longer)
{
    static const struct {
        uint8_t guest[8];
        uint8_t host[RELOCATED_MAX];
        unsigned length;
    } cases[] = {
        {{0x48}, {0xff, 0xc8}, 2},
        {{0x66, 0x41}, {0x66, 0xff, 0xc1}, 3},
        {{0x64, 0x01, 0x48, 0x08}, {0x01, 0x0d, 0, 0, 0, 0}, 6},
        {{0xf0, 0x67, 0x83, 0x00, 0x07}, {0x83, 0x05, 0, 0, 0, 0, 0x07}, 7},
        {{0x82, 0xc0, 0x01}, {0x80, 0xc0, 0x01}, 3},
        {{0x01, 0xe0}, {0x01, 0xe8}, 2}, /* esp: ebp in its place */
        {{0x01, 0xec}, {0x01, 0xee}, 2}, /* esp, ebp: esi in its place */
        {{0xf3, 0x0f, 0x10, 0x00}, {0xf3, 0x0f, 0x10, 0x05, 0, 0, 0, 0}, 8},
        {{0xdd, 0x00}, {0xdd, 0x05, 0, 0, 0, 0}, 6},
    };

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct relocated relocated;
        struct insn insn;

        ck_assert_int_eq(decode_insn(cases[i].guest, sizeof cases[i].guest, 4, &insn), DECODE_OK);
        ck_assert_msg(relocate_insn(&insn, &relocated), "case %zu", i);
        ck_assert_uint_eq(relocated.length, cases[i].length);
        ck_assert_mem_eq(relocated.bytes, cases[i].host, relocated.length);
    }
}
END_TEST

int main(void)
{
    const TTest *tests[] = {
        memory_operands_move_once,
        nothing_changes_if_the_write_cannot_be,
        the_operand_size_prefix_means_the_other_size,
        vector_prefixes_are_not_operand_sizes,
        real_mode_code_runs,
        esp_is_a_register_like_any_other,
        division_fails_as_a_fault_of_the_guest,
        bound_checks_both_ends,
        bit_offsets_reach_beyond_the_operand,
        nothing_else_is_relocated,
        a_stub_is_the_same_instruction_and_no_longer,
    };

    return guest_run_suite("ordinary", tests, sizeof tests / sizeof tests[0]);
}
