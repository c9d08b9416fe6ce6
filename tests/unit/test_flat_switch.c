/*
 * The short ways into ring 0 and back against the long ones: whatever bit is turned in what they look at,
 * registers, memory and reports are the same. The long way is what runs where no memory is at hand.
 */
#include "fake_guest.h"

static struct fake_machine machine, by_long_way;

enum { HANDLER = 0x12345678, VECTOR = 0x40, RETURN_ADDRESS = 0x11000, STACK = GUEST_STACK - 0x100 };

static const uint8_t int_n[] = {0xcd, VECTOR}, iret[] = {0xcf};

/* ---- situations --------------------------------------------------------------------------------------- */

static void in_ring_0(struct vcpu *vcpu)
{
    guest_set_idt(vcpu->machine, VECTOR, SEL_CODE0, HANDLER, 0xee);
    guest_set_idt(vcpu->machine, EXCEPTION_PF, SEL_CODE0, HANDLER, 0x8f);
    vcpu->eflags |= EFLAGS_IF | EFLAGS_CF;
}

static void in_ring_3(struct vcpu *vcpu)
{
    in_ring_0(vcpu);
    guest_enter_ring(vcpu, 3);
}

static void push_frame(struct vcpu *vcpu, uint16_t code)
{
    guest_push(vcpu, EFLAGS_FIXED | EFLAGS_IF | EFLAGS_ZF | EFLAGS_RF);
    guest_push(vcpu, code);
    guest_push(vcpu, RETURN_ADDRESS);
}

static void with_frame_of_ring_0(struct vcpu *vcpu)
{
    vcpu->gpr[ESP] = STACK;
    push_frame(vcpu, SEL_CODE0);
}

static void with_frame_of_ring_3(struct vcpu *vcpu)
{
    vcpu->gpr[ESP] = STACK;
    guest_push(vcpu, SEL_DATA3);
    guest_push(vcpu, GUEST_USER_STACK);
    push_frame(vcpu, SEL_CODE3);
    vcpu->segment[SEG_DS].attributes |= SEGMENT_DPL; /* it may stay; ES, FS and GS may not */
}

static const struct situation {
    const char *name;
    void (*prepare)(struct vcpu *vcpu);
    const uint8_t *bytes; /* of the instruction; NULL: a page fault */
    unsigned n_bytes;
    unsigned n_at_hand; /* pieces of memory that the short way needs */
} situations[] = {
    {"INT n in ring 0", in_ring_0, int_n, sizeof int_n, 2},
    {"INT n in ring 3", in_ring_3, int_n, sizeof int_n, 4},
    {"#PF in ring 0", in_ring_0, NULL, 0, 2},
    {"#PF in ring 3", in_ring_3, NULL, 0, 4},
    {"IRET to ring 0", with_frame_of_ring_0, iret, sizeof iret, 2},
    {"IRET to ring 3", with_frame_of_ring_3, iret, sizeof iret, 3},
};

#define N_SITUATIONS (sizeof situations / sizeof situations[0])

/* ---- what is turned ----------------------------------------------------------------------------------- */

#define IN_VCPU(member)                                                                                      \
    {                                                                                                        \
        offsetof(struct fake_machine, vcpu.member), sizeof(((struct vcpu *)NULL)->member)                    \
    }
#define IN_RAM(address, size)                                                                                \
    {                                                                                                        \
        offsetof(struct fake_machine, ram) + (address), size                                                 \
    }

static const struct piece {
    size_t offset, size; /* in the machine */
} pieces[] = {
    IN_VCPU(eflags),
    IN_VCPU(cpl),
    IN_VCPU(gpr[ESP]),
    IN_VCPU(segment),
    IN_VCPU(tr),
    IN_VCPU(gdtr.base),
    IN_VCPU(gdtr.limit),
    IN_VCPU(idtr.limit),
    IN_VCPU(cr0),
    IN_RAM(GUEST_IDT + 8 * VECTOR, 8),
    IN_RAM(GUEST_IDT + 8 * EXCEPTION_PF, 8),
    IN_RAM(GUEST_GDT + SEL_CODE0, 32), /* code and data of rings 0 and 3 */
    IN_RAM(GUEST_TSS + 4, 6),
    IN_RAM(STACK - 20, 20),
    {offsetof(struct fake_machine, rights) + (GUEST_STACK >> PAGE_SHIFT) - 1, 1},
    {offsetof(struct fake_machine, rights) + (GUEST_STACK0 >> PAGE_SHIFT) - 1, 1},
    {offsetof(struct fake_machine, rights) + (GUEST_GDT >> PAGE_SHIFT), 1},
    {offsetof(struct fake_machine, rights) + (GUEST_TSS >> PAGE_SHIFT), 1},
};

static size_t count_bits(void)
{
    size_t n = 0;

    for (size_t i = 0; i < sizeof pieces / sizeof pieces[0]; i++)
        n += 8 * pieces[i].size;
    return n;
}

static void turn_bit(struct fake_machine *on, size_t n)
{
    const struct piece *piece = pieces;

    for (; n >= 8 * piece->size; piece++)
        n -= 8 * piece->size;
    ((uint8_t *)on)[piece->offset + n / 8] ^= (uint8_t)(1u << n % 8);
}

/* ---- the comparison ----------------------------------------------------------------------------------- */

#define NO_BIT SIZE_MAX

static enum outcome run(struct fake_machine *on, const struct situation *situation, const size_t bits[2],
                        bool is_at_hand)
{
    const struct fault fault = {.vector = EXCEPTION_PF, .has_error = true, .error = PF_USER, .cr2 = 0x1234};
    struct vcpu *vcpu = guest_reset(on);
    struct insn insn;

    vcpu->gdtr.limit = SEL_DATA3 | 7; /* as small as will do */
    vcpu->tr.limit = 11;
    situation->prepare(vcpu);
    for (int i = 0; i < 2; i++)
        if (bits[i] != NO_BIT)
            turn_bit(on, bits[i]);
    on->is_at_hand = is_at_hand;
    if (situation->bytes == NULL)
        return vcpu_deliver_fault(vcpu, &fault);
    ck_assert_int_eq(decode_insn(situation->bytes, situation->n_bytes, 4, &insn), DECODE_OK);
    return vcpu_emulate(vcpu, &insn);
}

/* Returns how many pieces of memory were at hand. */
static unsigned compare(const struct situation *situation, size_t first_bit, size_t second_bit)
{
    const size_t bits[] = {first_bit, second_bit};
    enum outcome expected = run(&by_long_way, situation, bits, false);
    enum outcome outcome = run(&machine, situation, bits, true);
    unsigned n_at_hand = machine.n_at_hand;

    ck_assert_msg(outcome == expected, "%s, bits %zd and %zd turned: outcome %d, not %d", situation->name,
                  (ssize_t)first_bit, (ssize_t)second_bit, outcome, expected);
    by_long_way.vcpu.machine = &machine;
    by_long_way.is_at_hand = true;
    by_long_way.n_at_hand = n_at_hand;
    by_long_way.n_reads = machine.n_reads;
    by_long_way.n_writes = machine.n_writes;
    ck_assert_msg(memcmp(&machine, &by_long_way, sizeof machine) == 0,
                  "%s, bits %zd and %zd turned: not the same", situation->name, (ssize_t)first_bit,
                  (ssize_t)second_bit);
    return n_at_hand;
}

START_TEST(the_usual_case_goes_the_short_way)
{
    for (size_t i = 0; i < N_SITUATIONS; i++) {
        const struct situation *situation = &situations[i];

        ck_assert_uint_eq(compare(situation, NO_BIT, NO_BIT), situation->n_at_hand);
        ck_assert_uint_eq(machine.n_writes, 0);
    }
}
END_TEST

START_TEST(no_bit_makes_a_difference)
{
    for (size_t i = 0; i < N_SITUATIONS; i++)
        for (size_t bit = 0; bit < count_bits(); bit++)
            (void)compare(&situations[i], bit, NO_BIT);
}
END_TEST

START_TEST(nor_do_two)
{
    uint32_t random = 1;
    size_t n = count_bits(), bits[2];

    for (int i = 0; i < 1000; i++) {
        for (int j = 0; j < 2; j++) {
            random = random * 1664525u + 1013904223u;
            bits[j] = (size_t)((uint64_t)random * n >> 32);
        }
        (void)compare(&situations[(size_t)i % N_SITUATIONS], bits[0], bits[1]);
    }
}
END_TEST

int main(void)
{
    const TTest *tests[] = {the_usual_case_goes_the_short_way, no_bit_makes_a_difference, nor_do_two};

    return guest_run_suite("flat_switch", tests, sizeof tests / sizeof tests[0]);
}
