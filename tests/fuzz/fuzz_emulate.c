/*
 * vcpu_emulate on the fake machine, from any state: the rules at the top of vcpu/internal.h hold. Input: the
 * state (struct start), then memory contents for the start of each of the tables, then code; what is missing
 * is zero.
 */
#include <string.h>

#include "fuzz.h"
#include "unit/fake_guest.h"

#define MAX_INSTRUCTIONS 8

struct start {
    uint32_t gpr[GPR_COUNT];
    uint32_t eflags, cr0, cr4;
    uint8_t ring;
    uint8_t mode;          /* bits: 1 a page without rights, 2 a read-only one, 4 16-bit code */
    uint16_t page;         /* which */
    uint8_t descriptor[8]; /* SEL_SPARE */
    uint8_t fpu[32];       /* the start of the FXSAVE area */
};

static struct fake_machine machine;

static void set_up(const struct start *start, const uint8_t *code, size_t n)
{
    struct vcpu *vcpu = guest_reset(&machine);
    uint32_t mxcsr;

    guest_enter_ring(vcpu, start->ring & 1 ? 3 : 0);
    memcpy(vcpu->gpr, start->gpr, sizeof vcpu->gpr);
    vcpu->eflags = (start->eflags & EFLAGS_DEFINED & ~EFLAGS_VM) | EFLAGS_FIXED;
    vcpu->cr0 |= start->cr0 & (CR0_AM | CR0_TS | CR0_EM | CR0_MP | CR0_NE | CR0_WP);
    vcpu->cr4 = start->cr4 & (CR4_OSFXSR | CR4_OSXMMEXCPT | CR4_TSD | CR4_PCE | CR4_DE);
    memcpy(vcpu->fxsave, start->fpu, sizeof start->fpu);
    memcpy(&mxcsr, vcpu->fxsave + 24, sizeof mxcsr);
    mxcsr &= 0xffbf; /* as LDMXCSR leaves it */
    memcpy(vcpu->fxsave + 24, &mxcsr, sizeof mxcsr);
    fake_write(&machine, GUEST_GDT + SEL_SPARE, start->descriptor, sizeof start->descriptor);
    if (start->mode & 1)
        fake_set_rights(&machine, (gva_t)(start->page % FAKE_PAGES) << PAGE_SHIFT, 0);
    if (start->mode & 2)
        fake_set_rights(&machine, (gva_t)((start->page >> 4) % FAKE_PAGES) << PAGE_SHIFT, PTE_P | PTE_U);
    if (start->mode & 4)
        vcpu->segment[SEG_CS].attributes &= (uint16_t)~SEGMENT_DB;
    vcpu->eip = GUEST_CODE;
    fake_write(&machine, GUEST_CODE, code, n < PAGE_SIZE ? (unsigned)n : PAGE_SIZE);
}

/* A fault leaves everything as it was, but for the few things that the SDM lets change. */
static void check_fault(const struct vcpu *before, const struct vcpu *after, const struct insn *insn)
{
    bool is_string = insn->prefixes & (INSN_REP | INSN_REPNE);

    FUZZ_CHECK(after->fault.vector >= 0 && after->fault.vector < 32);
    if (after->fault.is_trap)
        return;
    FUZZ_CHECK(after->eip == before->eip);
    FUZZ_CHECK(after->cpl == before->cpl);
    if (!is_string) {
        FUZZ_CHECK(memcmp(after->gpr, before->gpr, sizeof after->gpr) == 0);
        FUZZ_CHECK(memcmp(after->segment, before->segment, sizeof after->segment) == 0);
    }
}

static bool step(struct vcpu *vcpu)
{
    struct vcpu before;
    struct insn insn;
    enum outcome outcome;

    switch (vcpu_fetch(vcpu, &insn)) {
    case OUTCOME_DONE:
        break;
    case OUTCOME_FAULT:
        return vcpu_deliver_fault(vcpu, &vcpu->fault) == OUTCOME_DONE;
    default:
        return false;
    }
    before = *vcpu;
    outcome = vcpu_emulate(vcpu, &insn);
    FUZZ_CHECK(vcpu->eflags & EFLAGS_FIXED);
    FUZZ_CHECK(vcpu_is_v8086(vcpu) || !vcpu_is_protected(vcpu) ||
               vcpu->cpl == (vcpu->segment[SEG_CS].selector & 3));
    FUZZ_CHECK((outcome == OUTCOME_UNKNOWN) <= !vcpu_can_emulate(&insn));
    switch (outcome) {
    case OUTCOME_FAULT:
        check_fault(&before, vcpu, &insn);
        return vcpu_deliver_fault(vcpu, &vcpu->fault) == OUTCOME_DONE;
    case OUTCOME_DONE:
    case OUTCOME_PARTIAL:
        return !vcpu->halted;
    default:
        return false;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    struct start start = {.eflags = 0};
    size_t n_start = n < sizeof start ? n : sizeof start;

    memcpy(&start, bytes, n_start);
    set_up(&start, bytes + n_start, n - n_start);
    for (unsigned i = 0; i < MAX_INSTRUCTIONS && step(&machine.vcpu); i++)
        ;
    return 0;
}
