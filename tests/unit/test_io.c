/* Ports: IN, OUT, INS, OUTS, and who may touch them. Expected values are the SDM's (Vol 1 ch. 19; Vol 2). */
#include "fake_guest.h"

static struct fake_machine machine;

#define DATA 0x40000u

static void assert_port(unsigned i, bool is_write, uint16_t port, unsigned size, uint32_t value)
{
    ck_assert_uint_lt(i, machine.n_ports);
    ck_assert(machine.port[i].is_write == is_write);
    ck_assert_uint_eq(machine.port[i].port, port);
    ck_assert_uint_eq(machine.port[i].size, size);
    ck_assert_uint_eq(machine.port[i].value, value);
}

START_TEST(in_fills_the_accumulator_of_its_size)
{
    struct vcpu *vcpu = guest_reset(&machine);

    machine.port_value = 0xdeadbeef;
    vcpu->gpr[EAX] = 0x11111111;
    vcpu->gpr[EDX] = 0x12340378;
    guest_assert_done(vcpu, 0xe4, 0x80); /* in al, 80h */
    ck_assert_uint_eq(vcpu->gpr[EAX], 0x111111ef);
    guest_assert_done(vcpu, 0x66, 0xed); /* in ax, dx */
    ck_assert_uint_eq(vcpu->gpr[EAX], 0x1111beef);
    guest_assert_done(vcpu, 0xe5, 0xff); /* in eax, ffh */
    ck_assert_uint_eq(vcpu->gpr[EAX], 0xdeadbeef);
    assert_port(0, false, 0x80, 1, 0xef);
    assert_port(1, false, 0x378, 2, 0xbeef);
    assert_port(2, false, 0xff, 4, 0xdeadbeef);
}
END_TEST

START_TEST(out_takes_the_accumulator_of_its_size)
{
    struct vcpu *vcpu = guest_reset(&machine);

    vcpu->gpr[EAX] = 0x12345678;
    vcpu->gpr[EDX] = 0xcfc;
    guest_assert_done(vcpu, 0xe6, 0xf0);
    guest_assert_done(vcpu, 0x66, 0xef);
    guest_assert_done(vcpu, 0xef);
    guest_assert_done(vcpu, 0xee);
    assert_port(0, true, 0xf0, 1, 0x78);
    assert_port(1, true, 0xcfc, 2, 0x5678);
    assert_port(2, true, 0xcfc, 4, 0x12345678);
    assert_port(3, true, 0xcfc, 1, 0x78);
}
END_TEST

START_TEST(iopl_below_cpl_asks_the_bitmap)
{
    struct vcpu *vcpu = guest_reset(&machine);

    guest_enter_ring(vcpu, 3);
    vcpu->eflags |= EFLAGS_IOPL;
    guest_assert_done(vcpu, 0xe4, 0x60);
    vcpu->eflags &= ~EFLAGS_IOPL;
    fake_write16(&machine, GUEST_TSS + 102, 104); /* the bitmap: ports 0-3f allowed, 40 not */
    fake_write(&machine, GUEST_TSS + 104 + 8, (const uint8_t[]){0x01}, 1);
    guest_assert_done(vcpu, 0xe4, 0x3f);
    guest_assert_fault(vcpu, EXCEPTION_GP, 0, 0xe4, 0x40);
    guest_assert_fault(vcpu, EXCEPTION_GP, 0, 0xe5, 0x3f); /* four ports, one of them 40 */
    guest_assert_fault(vcpu, EXCEPTION_GP, 0, 0xe6, 0x40);
    vcpu->gpr[EDX] = 0x40;
    vcpu->gpr[EDI] = vcpu->gpr[ESI] = DATA;
    guest_assert_fault(vcpu, EXCEPTION_GP, 0, 0x6c); /* insb */
    guest_assert_fault(vcpu, EXCEPTION_GP, 0, 0x6e); /* outsb */
    ck_assert_uint_eq(machine.n_ports, 2);
}
END_TEST

START_TEST(ins_stores_what_it_reads)
{
    struct vcpu *vcpu = guest_reset(&machine);

    machine.port_value = 0xabcd1234;
    vcpu->gpr[EDX] = 0x1f0;
    vcpu->gpr[ECX] = 3;
    vcpu->gpr[EDI] = DATA;
    guest_assert_done(vcpu, 0xf3, 0x66, 0x6d); /* rep insw */
    ck_assert_uint_eq(machine.n_ports, 3);
    ck_assert_uint_eq(vcpu->gpr[ECX], 0);
    ck_assert_uint_eq(vcpu->gpr[EDI], DATA + 6);
    ck_assert_uint_eq(fake_read32(&machine, DATA), 0x12341234);
    ck_assert_uint_eq(fake_read32(&machine, DATA + 4), 0x00001234);
}
END_TEST

START_TEST(ins_does_not_read_the_port_for_memory_that_faults)
{
    struct vcpu *vcpu = guest_reset(&machine);

    fake_set_rights(&machine, DATA + PAGE_SIZE, PTE_P | PTE_U);
    vcpu->gpr[EDX] = 0x1f0;
    vcpu->gpr[ECX] = 4;
    vcpu->gpr[EDI] = DATA + PAGE_SIZE - 2;
    ck_assert_int_eq(guest_run(vcpu, 0xf3, 0x6c), OUTCOME_FAULT); /* rep insb */
    ck_assert_int_eq(vcpu->fault.vector, EXCEPTION_PF);
    ck_assert_uint_eq(vcpu->fault.cr2, DATA + PAGE_SIZE);
    ck_assert_uint_eq(machine.n_ports, 2);
    ck_assert_uint_eq(vcpu->gpr[ECX], 2);
    ck_assert_uint_eq(vcpu->gpr[EDI], DATA + PAGE_SIZE);
    ck_assert_uint_eq(vcpu->eip, GUEST_CODE);
}
END_TEST

START_TEST(outs_sends_from_an_overridden_segment)
{
    struct vcpu *vcpu = guest_reset(&machine);

    vcpu->segment[SEG_FS].base = 0x1000;
    fake_write32(&machine, DATA + 0x1000, 0x44332211);
    vcpu->gpr[EDX] = 0x3f8;
    vcpu->gpr[ESI] = DATA;
    vcpu->gpr[ECX] = 0xffff0002;
    guest_assert_done(vcpu, 0xf3, 0x64, 0x67, 0x6e); /* rep outsb, by SI and CX */
    ck_assert_uint_eq(machine.n_ports, 2);
    ck_assert_uint_eq(vcpu->gpr[ECX], 0xffff0000);
    vcpu->gpr[ECX] = 2;
    vcpu->gpr[ESI] = DATA;
    guest_assert_done(vcpu, 0xf3, 0x64, 0x6e);
    assert_port(2, true, 0x3f8, 1, 0x11);
    assert_port(3, true, 0x3f8, 1, 0x22);
}
END_TEST

int main(void)
{
    const TTest *tests[] = {
        in_fills_the_accumulator_of_its_size,
        out_takes_the_accumulator_of_its_size,
        iopl_below_cpl_asks_the_bitmap,
        ins_stores_what_it_reads,
        ins_does_not_read_the_port_for_memory_that_faults,
        outs_sends_from_an_overridden_segment,
    };

    return guest_run_suite("io", tests, sizeof tests / sizeof tests[0]);
}
