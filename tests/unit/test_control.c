/* Control and debug registers, CLTS, LMSW, SMSW, INVLPG, HLT, RDTSC; and what holds for every instruction:
 * RF, the interrupt shadow, single step. Expected values are the SDM's. */
#include "fake_guest.h"

static struct fake_machine machine;

#define MOV_TO_CR(n)   0x0f, 0x22, (uint8_t)(0xc0 | (n) << 3) /* mov crN, eax */
#define MOV_FROM_CR(n) 0x0f, 0x20, (uint8_t)(0xc0 | (n) << 3)
#define MOV_TO_DR(n)   0x0f, 0x23, (uint8_t)(0xc0 | (n) << 3)
#define MOV_FROM_DR(n) 0x0f, 0x21, (uint8_t)(0xc0 | (n) << 3)

/* ---- control registers --------------------------------------------------------------------------------- */

START_TEST(control_registers_are_for_cpl_0)
{
    struct vcpu *vcpu = guest_reset(&machine);

    guest_enter_ring(vcpu, 3);
    guest_assert_fault(vcpu, EXCEPTION_GP, 0, MOV_TO_CR(0));
    guest_assert_fault(vcpu, EXCEPTION_GP, 0, MOV_FROM_CR(0));
    guest_assert_fault(vcpu, EXCEPTION_GP, 0, MOV_TO_DR(0));
    guest_assert_fault(vcpu, EXCEPTION_GP, 0, 0x0f, 0x06);       /* clts */
    guest_assert_fault(vcpu, EXCEPTION_GP, 0, 0x0f, 0x01, 0xf0); /* lmsw ax */
    guest_assert_fault(vcpu, EXCEPTION_GP, 0, 0x0f, 0x01, 0x38); /* invlpg [eax] */
    guest_assert_fault(vcpu, EXCEPTION_GP, 0, 0x0f, 0x08);       /* invd */
    guest_assert_fault(vcpu, EXCEPTION_GP, 0, 0x0f, 0x09);       /* wbinvd */
    guest_assert_fault(vcpu, EXCEPTION_GP, 0, 0xf4);             /* hlt */
    guest_enter_ring(vcpu, 1);
    guest_assert_fault(vcpu, EXCEPTION_GP, 0, MOV_TO_CR(3));
}
END_TEST

START_TEST(virtual_8086_mode_is_ring_3)
{
    struct vcpu *vcpu = guest_reset(&machine);

    guest_enter_v8086(vcpu);
    guest_assert_fault(vcpu, EXCEPTION_GP, 0, MOV_TO_CR(0));
    guest_assert_fault(vcpu, EXCEPTION_GP, 0, 0xf4);
}
END_TEST

START_TEST(cr0_refuses_impossible_combinations)
{
    static const uint32_t bad[] = {CR0_PG, CR0_PG | CR0_ET, CR0_PE | CR0_NW};

    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct vcpu *vcpu = guest_reset(&machine);

        vcpu->gpr[EAX] = bad[i];
        guest_assert_fault(vcpu, EXCEPTION_GP, 0, MOV_TO_CR(0));
        ck_assert_uint_eq(machine.n_paging_changes, 0);
    }
}
END_TEST

START_TEST(cr0_keeps_et_and_drops_reserved_bits)
{
    struct vcpu *vcpu = guest_reset(&machine);

    vcpu->gpr[EAX] = CR0_PE | CR0_MP | 0x1ff7ffc0u;
    guest_assert_done(vcpu, MOV_TO_CR(0));
    ck_assert_uint_eq(vcpu->cr0, CR0_PE | CR0_MP | CR0_ET | CR0_WP | CR0_AM);
    guest_assert_done(vcpu, MOV_FROM_CR(0));
    ck_assert_uint_eq(vcpu->gpr[EAX], vcpu->cr0);
}
END_TEST

START_TEST(the_machine_hears_of_every_change_of_paging)
{
    struct vcpu *vcpu = guest_reset(&machine);
    uint32_t old = vcpu->cr0;

    vcpu->gpr[EAX] = CR0_PE | CR0_PG | CR0_WP;
    guest_assert_done(vcpu, MOV_TO_CR(0));
    ck_assert_uint_eq(machine.n_paging_changes, 1);
    ck_assert_uint_eq(machine.old_cr0, old);

    vcpu->gpr[EAX] |= CR0_TS | CR0_MP; /* nothing to do with paging */
    guest_assert_done(vcpu, MOV_TO_CR(0));
    ck_assert_uint_eq(machine.n_paging_changes, 1);

    vcpu->gpr[EAX] = 0x5000;
    guest_assert_done(vcpu, MOV_TO_CR(3));
    guest_assert_done(vcpu, MOV_TO_CR(3)); /* the same value flushes as well */
    ck_assert_uint_eq(machine.n_paging_changes, 3);
    ck_assert_uint_eq(machine.old_cr3, 0x5000);

    vcpu->gpr[EAX] = CR4_PSE | CR4_PGE;
    guest_assert_done(vcpu, MOV_TO_CR(4));
    ck_assert_uint_eq(machine.n_paging_changes, 4);
    ck_assert_uint_eq(machine.old_cr4, 0);
    vcpu->gpr[EAX] |= CR4_TSD | CR4_OSFXSR;
    guest_assert_done(vcpu, MOV_TO_CR(4));
    ck_assert_uint_eq(machine.n_paging_changes, 4);
}
END_TEST

START_TEST(cr4_has_the_bits_of_the_profile_and_no_other)
{
    static const uint32_t reserved[] = {CR4_VME, CR4_PVI, CR4_DE, CR4_MCE, 0x800, 0x80000000};

    for (size_t i = 0; i < sizeof reserved / sizeof reserved[0]; i++) {
        struct vcpu *vcpu = guest_reset(&machine);

        vcpu->gpr[EAX] = reserved[i];
        guest_assert_fault(vcpu, EXCEPTION_GP, 0, MOV_TO_CR(4));
    }
}
END_TEST

/* ---- the PDPTEs ---------------------------------------------------------------------------------------- */

#define PDPT 0x5020u /* aligned to 32 bytes is enough */

static struct vcpu *reset_pae(bool is_paged)
{
    static const uint64_t pdpte[4] = {0x100006001, 0x7019, 0x8e00, 0xfffffffff0000001 & 0xfffffffff};
    struct vcpu *vcpu = guest_reset(&machine);

    fake_write(&machine, PDPT, pdpte, sizeof pdpte);
    vcpu->cr3 = PDPT | 0x18; /* PWT and PCD */
    if (is_paged)
        vcpu->cr0 |= CR0_PG;
    return vcpu;
}

START_TEST(pdptes_are_loaded_when_pae_paging_begins)
{
    struct vcpu *vcpu = reset_pae(true);

    vcpu->gpr[EAX] = CR4_PAE;
    guest_assert_done(vcpu, MOV_TO_CR(4));
    ck_assert_uint_eq(vcpu->pdpte[0], 0x100006001);
    ck_assert_uint_eq(vcpu->pdpte[1], 0x7019);
    ck_assert_uint_eq(machine.n_paging_changes, 1);

    vcpu = reset_pae(false);
    vcpu->gpr[EAX] = CR4_PAE;
    guest_assert_done(vcpu, MOV_TO_CR(4));
    ck_assert_uint_eq(vcpu->pdpte[0], 0); /* no paging yet */
    vcpu->gpr[EAX] = CR0_PE | CR0_PG;
    guest_assert_done(vcpu, MOV_TO_CR(0));
    ck_assert_uint_eq(vcpu->pdpte[0], 0x100006001);
}
END_TEST

START_TEST(pdptes_are_kept_until_a_register_loads_them)
{
    struct vcpu *vcpu = reset_pae(true);
    uint32_t cr4 = CR4_PAE;

    vcpu->gpr[EAX] = cr4;
    guest_assert_done(vcpu, MOV_TO_CR(4));
    fake_write(&machine, PDPT, (const uint32_t[]){0x9001}, 4);
    ck_assert_uint_eq(vcpu->pdpte[0], 0x100006001);
    vcpu->gpr[EAX] = cr4 | CR4_OSFXSR; /* and CR0.WP, which have nothing to do with it */
    guest_assert_done(vcpu, MOV_TO_CR(4));
    vcpu->gpr[EAX] = vcpu->cr0 | CR0_WP;
    guest_assert_done(vcpu, MOV_TO_CR(0));
    ck_assert_uint_eq(vcpu->pdpte[0], 0x100006001);
    vcpu->gpr[EAX] = cr4 | CR4_PGE;
    guest_assert_done(vcpu, MOV_TO_CR(4));
    ck_assert_uint_eq(vcpu->pdpte[0], 0x100009001);
    fake_write(&machine, PDPT, (const uint32_t[]){0xa001}, 4);
    vcpu->gpr[EAX] = vcpu->cr3;
    guest_assert_done(vcpu, MOV_TO_CR(3));
    ck_assert_uint_eq(vcpu->pdpte[0], 0x10000a001);
    fake_write(&machine, PDPT, (const uint32_t[]){0xb001}, 4);
    vcpu->gpr[EAX] = vcpu->cr0 | CR0_CD;
    guest_assert_done(vcpu, MOV_TO_CR(0));
    ck_assert_uint_eq(vcpu->pdpte[0], 0x10000b001);
}
END_TEST

START_TEST(an_invalid_pdpte_is_refused)
{
    for (unsigned bit = 1; bit < 64; bit++) {
        bool is_reserved = bit <= 2 || (bit >= 5 && bit <= 8) || bit >= VCPU_PHYSICAL_BITS;
        struct vcpu *vcpu = reset_pae(true);
        uint64_t entry = UINT64_C(1) << bit;

        fake_write(&machine, PDPT + 24, &entry, sizeof entry); /* not present: anything goes */
        vcpu->gpr[EAX] = CR4_PAE;
        guest_assert_done(vcpu, MOV_TO_CR(4));
        entry |= PTE_P;
        fake_write(&machine, PDPT + 24, &entry, sizeof entry);
        fake_write(&machine, PDPT, (const uint32_t[]){0xc001}, 4);
        vcpu->gpr[EAX] = PDPT;
        if (!is_reserved) {
            guest_assert_done(vcpu, MOV_TO_CR(3));
            ck_assert_uint_eq(vcpu->pdpte[3], entry);
            continue;
        }
        guest_assert_fault(vcpu, EXCEPTION_GP, 0, MOV_TO_CR(3));
        ck_assert_uint_eq(vcpu->cr3, PDPT | 0x18);
        ck_assert_uint_eq(vcpu->pdpte[0], 0x100006001); /* none is loaded */
        vcpu->gpr[EAX] = CR4_PAE | CR4_PGE;
        guest_assert_fault(vcpu, EXCEPTION_GP, 0, MOV_TO_CR(4));
        vcpu->gpr[EAX] = vcpu->cr0 | CR0_CD;
        guest_assert_fault(vcpu, EXCEPTION_GP, 0, MOV_TO_CR(0));
        ck_assert_uint_eq(vcpu->cr4, CR4_PAE);
        ck_assert_uint_eq(vcpu->cr0 & CR0_CD, 0);
    }
}
END_TEST

START_TEST(other_control_registers_do_not_exist)
{
    struct vcpu *vcpu = guest_reset(&machine);
    struct insn insn;

    fake_write(&machine, GUEST_CODE, (const uint8_t[]){MOV_TO_CR(5)}, 3);
    if (vcpu_fetch(vcpu, &insn) == OUTCOME_DONE)
        ck_assert_int_eq(vcpu_emulate(vcpu, &insn), OUTCOME_FAULT);
    ck_assert_int_eq(vcpu->fault.vector, EXCEPTION_UD);
}
END_TEST

START_TEST(cr2_and_cr3_hold_what_was_written)
{
    struct vcpu *vcpu = guest_reset(&machine);

    vcpu->gpr[EAX] = 0xdeadbeef;
    guest_assert_done(vcpu, MOV_TO_CR(2));
    ck_assert_uint_eq(vcpu->cr2, 0xdeadbeef);
    vcpu->cr3 = 0x12345000;
    guest_assert_done(vcpu, MOV_FROM_CR(3));
    ck_assert_uint_eq(vcpu->gpr[EAX], 0x12345000);
}
END_TEST

START_TEST(lmsw_sets_pe_and_cannot_clear_it)
{
    struct vcpu *vcpu = guest_reset(&machine);

    vcpu->gpr[EAX] = 0xfffe; /* all but PE */
    guest_assert_done(vcpu, 0x0f, 0x01, 0xf0);
    ck_assert_uint_eq(vcpu->cr0, CR0_PE | CR0_MP | CR0_EM | CR0_TS | CR0_ET);

    guest_enter_real_mode(vcpu);
    vcpu->gpr[EAX] = 1;
    guest_assert_done(vcpu, 0x0f, 0x01, 0xf0);
    ck_assert_uint_eq(vcpu->cr0, CR0_PE | CR0_ET);
}
END_TEST

START_TEST(smsw_shows_cr0_at_any_privilege)
{
    struct vcpu *vcpu = guest_reset(&machine);

    vcpu->cr0 |= CR0_WP | CR0_TS;
    guest_enter_ring(vcpu, 3);
    guest_assert_done(vcpu, 0x0f, 0x01, 0xe0); /* smsw eax */
    ck_assert_uint_eq(vcpu->gpr[EAX], vcpu->cr0);
    vcpu->gpr[ECX] = 0xaaaaaaaa;
    guest_assert_done(vcpu, 0x66, 0x0f, 0x01, 0xe1); /* smsw cx */
    ck_assert_uint_eq(vcpu->gpr[ECX], 0xaaaa0000 | (vcpu->cr0 & 0xffff));
    vcpu->gpr[EBX] = 0x40000;
    fake_write32(&machine, 0x40000, 0xbbbbbbbb);
    guest_assert_done(vcpu, 0x0f, 0x01, 0x23); /* smsw [ebx] */
    ck_assert_uint_eq(fake_read32(&machine, 0x40000), 0xbbbb0000 | (vcpu->cr0 & 0xffff));
}
END_TEST

START_TEST(clts_clears_ts)
{
    struct vcpu *vcpu = guest_reset(&machine);

    vcpu->cr0 |= CR0_TS;
    guest_assert_done(vcpu, 0x0f, 0x06);
    ck_assert_uint_eq(vcpu->cr0 & CR0_TS, 0);
}
END_TEST

START_TEST(invlpg_passes_the_linear_address)
{
    struct vcpu *vcpu = guest_reset(&machine);

    vcpu->segment[SEG_FS].base = 0x1000;
    vcpu->gpr[EBX] = 0xc0100000;
    guest_assert_done(vcpu, 0x64, 0x0f, 0x01, 0x7b, 0x10); /* invlpg fs:[ebx+10h] */
    ck_assert_uint_eq(machine.n_invlpg, 1);
    ck_assert_uint_eq(machine.invlpg_address, 0xc0101010);
}
END_TEST

START_TEST(hlt_halts_after_itself)
{
    struct vcpu *vcpu = guest_reset(&machine);

    guest_assert_done(vcpu, 0xf4);
    ck_assert(vcpu->halted);
    ck_assert_uint_eq(vcpu->eip, GUEST_CODE + 1);
}
END_TEST

/* ---- debug registers ----------------------------------------------------------------------------------- */

START_TEST(debug_registers_keep_their_fixed_bits)
{
    struct vcpu *vcpu = guest_reset(&machine);

    vcpu->gpr[EAX] = 0xffffffff;
    guest_assert_done(vcpu, MOV_TO_DR(6));
    ck_assert_uint_eq(vcpu->dr[6], 0xffffefff);
    vcpu->gpr[EAX] = 0;
    guest_assert_done(vcpu, MOV_TO_DR(6));
    ck_assert_uint_eq(vcpu->dr[6], 0xffff0ff0);
    vcpu->gpr[EAX] = 0xffffd300;
    guest_assert_done(vcpu, MOV_TO_DR(7));
    ck_assert_uint_eq(vcpu->dr[7], 0xffff0700);
    vcpu->gpr[EAX] = 0x1234;
    guest_assert_done(vcpu, MOV_TO_DR(3));
    guest_assert_done(vcpu, MOV_FROM_DR(3));
    ck_assert_uint_eq(vcpu->dr[3], 0x1234);
}
END_TEST

START_TEST(dr4_and_dr5_are_dr6_and_dr7)
{
    struct vcpu *vcpu = guest_reset(&machine);

    guest_assert_done(vcpu, MOV_FROM_DR(4));
    ck_assert_uint_eq(vcpu->gpr[EAX], vcpu->dr[6]);
    guest_assert_done(vcpu, MOV_FROM_DR(5));
    ck_assert_uint_eq(vcpu->gpr[EAX], vcpu->dr[7]);
}
END_TEST

START_TEST(general_detect_faults_on_access)
{
    struct vcpu *vcpu = guest_reset(&machine);
    uint32_t eip = vcpu->eip;

    vcpu->dr[7] |= DR7_GD;
    ck_assert_int_eq(guest_run(vcpu, MOV_FROM_DR(0)), OUTCOME_FAULT);
    ck_assert_int_eq(vcpu->fault.vector, EXCEPTION_DB);
    ck_assert(!vcpu->fault.is_trap);
    ck_assert_uint_eq(vcpu->dr[6] & DR6_BD, DR6_BD);
    ck_assert_uint_eq(vcpu->eip, eip);
}
END_TEST

START_TEST(a_breakpoint_that_nobody_watches_stops_the_run)
{
    struct vcpu *vcpu = guest_reset(&machine);

    vcpu->gpr[EAX] = 0x00000402; /* G0 */
    ck_assert_int_eq(guest_run(vcpu, MOV_TO_DR(7)), OUTCOME_STOP);
    ck_assert_int_eq(machine.stop, STOP_IMPOSSIBLE);
}
END_TEST

/* ---- the counter --------------------------------------------------------------------------------------- */

START_TEST(rdtsc_adds_the_offset_and_obeys_tsd)
{
    struct vcpu *vcpu = guest_reset(&machine);

    machine.tsc = 0xffffffff;
    vcpu->msr.tsc_offset = 0x100000002;
    guest_enter_ring(vcpu, 3);
    guest_assert_done(vcpu, 0x0f, 0x31);
    ck_assert_uint_eq(vcpu->gpr[EDX], 2);
    ck_assert_uint_eq(vcpu->gpr[EAX], 1);
    vcpu->cr4 = CR4_TSD;
    guest_assert_fault(vcpu, EXCEPTION_GP, 0, 0x0f, 0x31);
    guest_enter_ring(vcpu, 0);
    guest_assert_done(vcpu, 0x0f, 0x31);
    guest_assert_fault(vcpu, EXCEPTION_GP, 0, 0x0f, 0x33);       /* rdpmc */
    guest_assert_fault(vcpu, EXCEPTION_UD, 0, 0x0f, 0x01, 0xf9); /* rdtscp */
}
END_TEST

/* ---- what holds for every instruction ------------------------------------------------------------------ */

START_TEST(rf_lasts_one_instruction)
{
    struct vcpu *vcpu = guest_reset(&machine);

    vcpu->eflags |= EFLAGS_RF;
    guest_assert_done(vcpu, 0x90);
    ck_assert_uint_eq(vcpu->eflags & EFLAGS_RF, 0);
    vcpu->eflags |= EFLAGS_RF;
    fake_set_rights(&machine, 0, 0);
    vcpu->gpr[EBX] = 0;
    guest_assert_fault(vcpu, EXCEPTION_PF, 0, 0x8b, 0x03); /* it has not finished: RF stays */
}
END_TEST

START_TEST(the_shadow_of_sti_lasts_one_instruction)
{
    struct vcpu *vcpu = guest_reset(&machine);

    guest_assert_done(vcpu, 0xfb); /* sti */
    ck_assert_uint_eq(vcpu->interrupt_shadow, SHADOW_STI);
    ck_assert(!vcpu_accepts_interrupt(vcpu));
    guest_assert_done(vcpu, 0x90);
    ck_assert_uint_eq(vcpu->interrupt_shadow, SHADOW_NONE);
    ck_assert(vcpu_accepts_interrupt(vcpu));
    guest_assert_done(vcpu, 0xfb); /* IF was set already */
    ck_assert_uint_eq(vcpu->interrupt_shadow, SHADOW_NONE);
}
END_TEST

START_TEST(single_step_traps_after_the_instruction)
{
    struct vcpu *vcpu = guest_reset(&machine);

    vcpu->eflags |= EFLAGS_TF;
    ck_assert_int_eq(guest_run(vcpu, 0x40), OUTCOME_FAULT); /* inc eax */
    ck_assert_int_eq(vcpu->fault.vector, EXCEPTION_DB);
    ck_assert(vcpu->fault.is_trap);
    ck_assert_uint_eq(vcpu->dr[6] & DR6_BS, DR6_BS);
    ck_assert_uint_eq(vcpu->eip, GUEST_CODE + 1);
    ck_assert_uint_eq(vcpu->gpr[EAX], 1);
}
END_TEST

START_TEST(single_step_looks_at_tf_before_the_instruction)
{
    struct vcpu *vcpu = guest_reset(&machine);

    guest_push(vcpu, EFLAGS_FIXED | EFLAGS_TF);
    guest_assert_done(vcpu, 0x9d); /* popfd sets TF: the next one traps */
    guest_push(vcpu, EFLAGS_FIXED);
    ck_assert_int_eq(guest_run(vcpu, 0x9d), OUTCOME_FAULT); /* and the one that clears it */
    ck_assert_int_eq(vcpu->fault.vector, EXCEPTION_DB);
    ck_assert_uint_eq(vcpu->eflags & EFLAGS_TF, 0);
    guest_assert_done(vcpu, 0x90);
}
END_TEST

START_TEST(mov_ss_delays_the_single_step)
{
    struct vcpu *vcpu = guest_reset(&machine);

    vcpu->eflags |= EFLAGS_TF;
    vcpu->gpr[EAX] = SEL_DATA0;
    guest_assert_done(vcpu, 0x8e, 0xd0); /* mov ss, ax */
    ck_assert_int_eq(guest_run(vcpu, 0x90), OUTCOME_FAULT);
    ck_assert_int_eq(vcpu->fault.vector, EXCEPTION_DB);
}
END_TEST

START_TEST(instructions_outside_the_profile_do_not_exist)
{
    struct vcpu *vcpu = guest_reset(&machine);

    guest_assert_fault(vcpu, EXCEPTION_UD, 0, 0x0f, 0x05);             /* syscall */
    guest_assert_fault(vcpu, EXCEPTION_UD, 0, 0x0f, 0x01, 0xc1);       /* vmcall */
    guest_assert_fault(vcpu, EXCEPTION_UD, 0, 0x0f, 0xc7, 0xf0);       /* rdrand eax */
    guest_assert_fault(vcpu, EXCEPTION_UD, 0, 0xc5, 0xf8, 0x77);       /* vzeroupper */
    guest_assert_fault(vcpu, EXCEPTION_UD, 0, 0xf3, 0x0f, 0xb8, 0xc1); /* popcnt eax, ecx */
    guest_assert_fault(vcpu, EXCEPTION_UD, 0, 0x0f, 0x0b);             /* ud2 */
}
END_TEST

int main(void)
{
    const TTest *tests[] = {
        control_registers_are_for_cpl_0,
        virtual_8086_mode_is_ring_3,
        cr0_refuses_impossible_combinations,
        cr0_keeps_et_and_drops_reserved_bits,
        the_machine_hears_of_every_change_of_paging,
        cr4_has_the_bits_of_the_profile_and_no_other,
        pdptes_are_loaded_when_pae_paging_begins,
        pdptes_are_kept_until_a_register_loads_them,
        an_invalid_pdpte_is_refused,
        other_control_registers_do_not_exist,
        cr2_and_cr3_hold_what_was_written,
        lmsw_sets_pe_and_cannot_clear_it,
        smsw_shows_cr0_at_any_privilege,
        clts_clears_ts,
        invlpg_passes_the_linear_address,
        hlt_halts_after_itself,
        debug_registers_keep_their_fixed_bits,
        dr4_and_dr5_are_dr6_and_dr7,
        general_detect_faults_on_access,
        a_breakpoint_that_nobody_watches_stops_the_run,
        rdtsc_adds_the_offset_and_obeys_tsd,
        rf_lasts_one_instruction,
        the_shadow_of_sti_lasts_one_instruction,
        single_step_traps_after_the_instruction,
        single_step_looks_at_tf_before_the_instruction,
        mov_ss_delays_the_single_step,
        instructions_outside_the_profile_do_not_exist,
    };

    return guest_run_suite("control", tests, sizeof tests / sizeof tests[0]);
}
