/* Segment, limit and alignment checks, effective addresses, and the instruction fetch. Expected values are
 * the SDM's. */
#include "fake_guest.h"

static struct fake_machine machine;

#define DATA 0x40000u

static struct segment data_segment(uint32_t base, uint32_t limit, uint16_t attributes)
{
    return (struct segment){.selector = SEL_SPARE, .base = base, .limit = limit, .attributes = attributes};
}

#define ATTRIBUTES_DATA      0x4093
#define ATTRIBUTES_DOWN_16   0x0097
#define ATTRIBUTES_DOWN_32   0x4097
#define ATTRIBUTES_READ_ONLY 0x4091
#define ATTRIBUTES_EXECUTE   0x4099
#define ATTRIBUTES_CODE      0x409b

/* ---- vcpu_segment_check -------------------------------------------------------------------------------- */

struct segment_case {
    const char *name;
    enum segment_index index;
    struct segment segment;
    uint32_t offset;
    unsigned size, kind;
    int vector; /* -1: allowed */
};

START_TEST(segments_are_checked)
{
    const struct segment_case cases[] = {
        {"whole limit", SEG_DS, {0x10, ATTRIBUTES_DATA, 0x1000, 0xfff}, 0xffc, 4, ACCESS_READ, -1},
        {"one past", SEG_DS, {0x10, ATTRIBUTES_DATA, 0x1000, 0xfff}, 0xffd, 4, ACCESS_READ, EXCEPTION_GP},
        {"far past",
         SEG_DS,
         {0x10, ATTRIBUTES_DATA, 0x1000, 0xfff},
         0x80000000,
         1,
         ACCESS_READ,
         EXCEPTION_GP},
        {"offset wraps",
         SEG_DS,
         {0x10, ATTRIBUTES_DATA, 0, 0xfffffffe},
         0xffffffff,
         4,
         ACCESS_READ,
         EXCEPTION_GP},
        {"stack", SEG_SS, {0x10, ATTRIBUTES_DATA, 0x1000, 0xfff}, 0x1000, 1, ACCESS_READ, EXCEPTION_SS},
        {"null", SEG_ES, {0, 0, 0, 0}, 0, 1, ACCESS_READ, EXCEPTION_GP},
        {"read-only, read", SEG_DS, {0x10, ATTRIBUTES_READ_ONLY, 0, 0xfff}, 0, 1, ACCESS_READ, -1},
        {"read-only, write",
         SEG_DS,
         {0x10, ATTRIBUTES_READ_ONLY, 0, 0xfff},
         0,
         1,
         ACCESS_WRITE,
         EXCEPTION_GP},
        {"code, read", SEG_CS, {0x10, ATTRIBUTES_CODE, 0, 0xfff}, 0, 1, ACCESS_READ, -1},
        {"code, write", SEG_CS, {0x10, ATTRIBUTES_CODE, 0, 0xfff}, 0, 1, ACCESS_WRITE, EXCEPTION_GP},
        {"execute-only, read", SEG_CS, {0x10, ATTRIBUTES_EXECUTE, 0, 0xfff}, 0, 1, ACCESS_READ, EXCEPTION_GP},
        {"expand-down, at limit",
         SEG_DS,
         {0x10, ATTRIBUTES_DOWN_32, 0, 0xfff},
         0xfff,
         1,
         ACCESS_READ,
         EXCEPTION_GP},
        {"expand-down, above", SEG_DS, {0x10, ATTRIBUTES_DOWN_32, 0, 0xfff}, 0x1000, 4, ACCESS_WRITE, -1},
        {"expand-down 32, top", SEG_DS, {0x10, ATTRIBUTES_DOWN_32, 0, 0xfff}, 0xfffffffc, 4, ACCESS_READ, -1},
        {"expand-down 16, top", SEG_DS, {0x10, ATTRIBUTES_DOWN_16, 0, 0xfff}, 0xfffe, 2, ACCESS_READ, -1},
        {"expand-down 16, past",
         SEG_DS,
         {0x10, ATTRIBUTES_DOWN_16, 0, 0xfff},
         0xffff,
         2,
         ACCESS_READ,
         EXCEPTION_GP},
    };

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct vcpu *vcpu = guest_reset(&machine);
        gva_t linear = 0;
        enum outcome outcome;

        vcpu->segment[cases[i].index] = cases[i].segment;
        outcome =
            vcpu_segment_check(vcpu, cases[i].index, cases[i].offset, cases[i].size, cases[i].kind, &linear);
        ck_assert_msg((outcome == OUTCOME_DONE) == (cases[i].vector < 0), "%s", cases[i].name);
        if (cases[i].vector < 0) {
            ck_assert_uint_eq(linear, cases[i].segment.base + cases[i].offset);
        } else {
            ck_assert_msg(vcpu->fault.vector == cases[i].vector, "%s", cases[i].name);
            ck_assert_uint_eq(vcpu->fault.error, 0);
        }
    }
}
END_TEST

START_TEST(real_mode_checks_the_limit_and_not_the_type)
{
    struct vcpu *vcpu = guest_reset(&machine);
    gva_t linear;

    guest_enter_real_mode(vcpu);
    vcpu->segment[SEG_CS].attributes = ATTRIBUTES_EXECUTE;
    ck_assert_int_eq(vcpu_segment_check(vcpu, SEG_CS, 0x10, 2, ACCESS_WRITE, &linear), OUTCOME_DONE);
    ck_assert_uint_eq(linear, 0x10010);
    ck_assert_int_eq(vcpu_segment_check(vcpu, SEG_DS, 0xffff, 2, ACCESS_READ, &linear), OUTCOME_FAULT);
    ck_assert_int_eq(vcpu->fault.vector, EXCEPTION_GP);
    ck_assert_int_eq(vcpu_segment_check(vcpu, SEG_SS, 0xffff, 2, ACCESS_READ, &linear), OUTCOME_FAULT);
    ck_assert_int_eq(vcpu->fault.vector, EXCEPTION_SS);
}
END_TEST

START_TEST(linear_addresses_wrap_at_4_gib)
{
    struct vcpu *vcpu = guest_reset(&machine);

    vcpu->segment[SEG_FS] = data_segment(0xfffff000, 0xffffffff, ATTRIBUTES_DATA);
    fake_write32(&machine, DATA, 0x12345678);
    vcpu->gpr[EBX] = DATA + 0x1000;
    guest_assert_done(vcpu, 0x64, 0x8b, 0x03); /* mov eax, fs:[ebx] */
    ck_assert_uint_eq(vcpu->gpr[EAX], 0x12345678);
}
END_TEST

/* ---- effective addresses ------------------------------------------------------------------------------- */

START_TEST(sixteen_bit_addresses_wrap_at_64_kib)
{
    struct vcpu *vcpu = guest_reset(&machine);

    vcpu->gpr[EBX] = 0xabcdff00;
    vcpu->gpr[ESI] = 0x12340200;
    guest_assert_done(vcpu, 0x67, 0x8d, 0x40, 0x01); /* lea eax, [bx+si+1] */
    ck_assert_uint_eq(vcpu->gpr[EAX], 0x101);
}
END_TEST

START_TEST(thirty_two_bit_addresses_add_all_their_parts)
{
    struct vcpu *vcpu = guest_reset(&machine);

    vcpu->gpr[EBP] = 0xfffffff0;
    vcpu->gpr[ECX] = 0x40000003;
    guest_assert_done(vcpu, 0x8d, 0x84, 0x8d, guest_le32(0x100)); /* lea eax, [ebp+ecx*4+100h] */
    ck_assert_uint_eq(vcpu->gpr[EAX], 0xfc);
}
END_TEST

START_TEST(ebp_and_esp_address_the_stack_segment)
{
    struct vcpu *vcpu = guest_reset(&machine);

    vcpu->segment[SEG_SS] = data_segment(0, 0xfff, ATTRIBUTES_DATA);
    vcpu->gpr[EBP] = 0x1000;
    guest_assert_fault(vcpu, EXCEPTION_SS, 0, 0x8b, 0x45, 0x00); /* mov eax, [ebp] */
    guest_assert_done(vcpu, 0x3e, 0x8b, 0x45, 0x00);             /* mov eax, ds:[ebp] */
}
END_TEST

/* ---- alignment ----------------------------------------------------------------------------------------- */

START_TEST(alignment_is_checked_for_ring_3_under_am_and_ac)
{
    static const struct {
        uint32_t cr0, eflags;
        unsigned ring;
        bool faults;
    } cases[] = {
        {CR0_AM, EFLAGS_AC, 3, true},
        {CR0_AM, EFLAGS_AC, 0, false},
        {CR0_AM, 0, 3, false},
        {0, EFLAGS_AC, 3, false},
    };

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct vcpu *vcpu = guest_reset(&machine);

        guest_enter_ring(vcpu, cases[i].ring);
        vcpu->cr0 |= cases[i].cr0;
        vcpu->eflags |= cases[i].eflags;
        vcpu->gpr[EBX] = DATA + 2;
        if (cases[i].faults)
            guest_assert_fault(vcpu, EXCEPTION_AC, 0, 0x8b, 0x03); /* mov eax, [ebx] */
        else
            guest_assert_done(vcpu, 0x8b, 0x03);
    }
}
END_TEST

START_TEST(alignment_follows_the_size_of_the_operand)
{
    struct vcpu *vcpu = guest_reset(&machine);

    guest_enter_ring(vcpu, 3);
    vcpu->cr0 |= CR0_AM;
    vcpu->eflags |= EFLAGS_AC;
    vcpu->gpr[EBX] = DATA + 2;
    guest_assert_done(vcpu, 0x66, 0x8b, 0x03); /* mov ax, [ebx] */
    vcpu->gpr[EBX] = DATA + 1;
    guest_assert_done(vcpu, 0x8a, 0x03); /* mov al, [ebx] */
    guest_assert_fault(vcpu, EXCEPTION_AC, 0, 0x66, 0x8b, 0x03);
    vcpu->gpr[EBX] = DATA + 4;
    guest_assert_fault(vcpu, EXCEPTION_AC, 0, 0x0f, 0xc7, 0x0b); /* cmpxchg8b [ebx] */
    guest_assert_fault(vcpu, EXCEPTION_AC, 0, 0xdd, 0x03);       /* fld qword [ebx] */
    guest_assert_done(vcpu, 0x62, 0x03);                         /* bound eax, [ebx]: two doublewords */
}
END_TEST

/* ---- paging -------------------------------------------------------------------------------------------- */

START_TEST(a_write_that_crosses_into_an_absent_page_writes_nothing)
{
    struct vcpu *vcpu = guest_reset(&machine);

    fake_set_rights(&machine, DATA + PAGE_SIZE, 0);
    vcpu->gpr[EBX] = DATA + PAGE_SIZE - 2;
    guest_assert_fault(vcpu, EXCEPTION_PF, PF_WRITE, 0x89, 0x03); /* mov [ebx], eax */
    ck_assert_uint_eq(vcpu->fault.cr2, DATA + PAGE_SIZE);
    guest_assert_fault(vcpu, EXCEPTION_PF, PF_WRITE, 0x01, 0x03); /* add [ebx], eax */
    ck_assert_uint_eq(machine.n_writes, 0);
}
END_TEST

START_TEST(ring_3_has_user_rights_and_others_have_not)
{
    struct vcpu *vcpu = guest_reset(&machine);

    fake_set_rights(&machine, DATA, PTE_P | PTE_W);
    vcpu->gpr[EBX] = DATA;
    guest_assert_done(vcpu, 0x8b, 0x03);
    guest_enter_ring(vcpu, 1);
    guest_assert_done(vcpu, 0x8b, 0x03);
    guest_enter_ring(vcpu, 3);
    guest_assert_fault(vcpu, EXCEPTION_PF, PF_PRESENT | PF_USER, 0x8b, 0x03);
}
END_TEST

/* ---- fetch --------------------------------------------------------------------------------------------- */

#define CODE_END (GUEST_CODE + PAGE_SIZE)

static enum outcome fetch(struct vcpu *vcpu, uint32_t eip, const uint8_t *bytes, unsigned n,
                          struct insn *insn)
{
    fake_write(&machine, vcpu->segment[SEG_CS].base + eip, bytes, n);
    vcpu->eip = eip;
    return vcpu_fetch(vcpu, insn);
}

START_TEST(the_next_page_is_touched_only_if_needed)
{
    static const uint8_t five[] = {0xb8, 1, 2, 3, 4}; /* mov eax, imm32 */
    struct vcpu *vcpu = guest_reset(&machine);
    struct insn insn;

    fake_set_rights(&machine, CODE_END, 0);
    ck_assert_int_eq(fetch(vcpu, CODE_END - 5, five, 5, &insn), OUTCOME_DONE);
    ck_assert_uint_eq(insn.length, 5);
    ck_assert_int_eq(fetch(vcpu, CODE_END - 4, five, 4, &insn), OUTCOME_FAULT);
    ck_assert_int_eq(vcpu->fault.vector, EXCEPTION_PF);
    ck_assert_uint_eq(vcpu->fault.cr2, CODE_END);
    fake_set_rights(&machine, CODE_END, FAKE_ALL_RIGHTS);
    ck_assert_int_eq(fetch(vcpu, CODE_END - 4, five, 5, &insn), OUTCOME_DONE);
    ck_assert_uint_eq((uint32_t)insn.operand[1].immediate, 0x04030201);
}
END_TEST

START_TEST(the_limit_of_cs_ends_the_fetch)
{
    static const uint8_t five[] = {0xb8, 1, 2, 3, 4};
    struct vcpu *vcpu = guest_reset(&machine);
    struct insn insn;

    vcpu->segment[SEG_CS].limit = GUEST_CODE + 4;
    ck_assert_int_eq(fetch(vcpu, GUEST_CODE, five, 5, &insn), OUTCOME_DONE);
    vcpu->segment[SEG_CS].limit = GUEST_CODE + 3;
    ck_assert_int_eq(fetch(vcpu, GUEST_CODE, five, 5, &insn), OUTCOME_FAULT);
    ck_assert_int_eq(vcpu->fault.vector, EXCEPTION_GP);
    ck_assert_int_eq(fetch(vcpu, GUEST_CODE + 4, five, 5, &insn), OUTCOME_FAULT);
    ck_assert_int_eq(vcpu->fault.vector, EXCEPTION_GP);
}
END_TEST

START_TEST(fetch_faults_by_what_the_bytes_are)
{
    static const struct {
        uint8_t bytes[16];
        int vector;
    } cases[] = {
        {{0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x90},
         EXCEPTION_GP},
        {{0xf0, 0x90}, EXCEPTION_UD},       /* lock nop */
        {{0xf0, 0x01, 0xc0}, EXCEPTION_UD}, /* lock add eax, eax */
        {{0xf0, 0x8b, 0x00}, EXCEPTION_UD}, /* lock mov eax, [eax] */
        {{0x0f, 0x04}, EXCEPTION_UD},
        {{0xfe, 0xff}, EXCEPTION_UD},
    };
    struct insn insn;

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct vcpu *vcpu = guest_reset(&machine);

        ck_assert_int_eq(fetch(vcpu, GUEST_CODE, cases[i].bytes, 16, &insn), OUTCOME_FAULT);
        ck_assert_msg(vcpu->fault.vector == cases[i].vector, "case %zu: vector %d", i, vcpu->fault.vector);
    }
}
END_TEST

START_TEST(cs_says_how_wide_the_code_is)
{
    static const uint8_t bytes[] = {0xb8, 1, 2, 3, 4};
    struct vcpu *vcpu = guest_reset(&machine);
    struct insn insn;

    vcpu->segment[SEG_CS].attributes &= (uint16_t)~SEGMENT_DB;
    ck_assert_int_eq(fetch(vcpu, GUEST_CODE, bytes, 5, &insn), OUTCOME_DONE);
    ck_assert_uint_eq(insn.length, 3); /* mov ax, 0201h */
}
END_TEST

START_TEST(user_code_is_fetched_with_user_rights)
{
    struct vcpu *vcpu = guest_reset(&machine);
    struct insn insn;

    fake_set_rights(&machine, GUEST_CODE, PTE_P);
    ck_assert_int_eq(fetch(vcpu, GUEST_CODE, (const uint8_t[]){0x90}, 1, &insn), OUTCOME_DONE);
    guest_enter_ring(vcpu, 3);
    ck_assert_int_eq(vcpu_fetch(vcpu, &insn), OUTCOME_FAULT);
    ck_assert_int_eq(vcpu->fault.vector, EXCEPTION_PF);
}
END_TEST

int main(void)
{
    const TTest *tests[] = {
        segments_are_checked,
        real_mode_checks_the_limit_and_not_the_type,
        linear_addresses_wrap_at_4_gib,
        sixteen_bit_addresses_wrap_at_64_kib,
        thirty_two_bit_addresses_add_all_their_parts,
        ebp_and_esp_address_the_stack_segment,
        alignment_is_checked_for_ring_3_under_am_and_ac,
        alignment_follows_the_size_of_the_operand,
        a_write_that_crosses_into_an_absent_page_writes_nothing,
        ring_3_has_user_rights_and_others_have_not,
        the_next_page_is_touched_only_if_needed,
        the_limit_of_cs_ends_the_fetch,
        fetch_faults_by_what_the_bytes_are,
        cs_says_how_wide_the_code_is,
        user_code_is_fetched_with_user_rights,
    };

    return guest_run_suite("memory", tests, sizeof tests / sizeof tests[0]);
}
