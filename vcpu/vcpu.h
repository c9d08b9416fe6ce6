/*
 * vcpu: the virtual i386 processor: its registers, its segments and faults, and the emulation of every
 * instruction that cannot run natively.
 *
 * `struct vcpu` is plain data: all of the guest-visible CPU state and nothing that cannot be rebuilt. An
 * engine runs guest code on it; what the engine cannot run comes here, one decoded instruction at a time.
 * Memory, ports and the rest of the machine are reached only through `struct vcpu_ops`, so that tests put a
 * fake machine underneath.
 *
 * The source of all behaviour is the Intel SDM (volumes 2 and 3A); sections are cited at the code.
 * Read next: x86.h (architectural constants), segment.c, interrupt.c, then emulate.c.
 */
#ifndef RING3_VCPU_H
#define RING3_VCPU_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "decode/decode.h"
#include "vcpu/x86.h"

typedef uint32_t gva_t;       /* guest linear address */
typedef uint64_t gpa_t;       /* guest physical address */
#define VCPU_PHYSICAL_BITS 36 /* MAXPHYADDR */

/* ---- state ------------------------------------------------------------------------------------------- */

enum gpr_index { EAX, ECX, EDX, EBX, ESP, EBP, ESI, EDI, GPR_COUNT };

/* A segment register: the visible selector and the hidden part. `attributes` is in the format of bytes 5-6 of
 * a descriptor: bits 0-3 type, 4 S, 5-6 DPL, 7 P, 12 AVL, 14 D/B, 15 G (masks SEGMENT_* in x86.h); `limit` is
 * in bytes, the last valid offset (granularity already applied). A null selector has attributes 0: unusable.
 */
struct segment {
    uint16_t selector;
    uint16_t attributes;
    uint32_t base;
    uint32_t limit;
};

struct table_register { /* GDTR, IDTR */
    uint32_t base;
    uint16_t limit;
};

/* An exception on its way: vector -1 is none. */
struct fault {
    int16_t vector;
    bool has_error;
    uint32_t error;
    uint32_t cr2; /* for #PF */
    bool is_trap; /* #DB after the instruction: eip is past it, and RF is not forced in the saved EFLAGS */
};

/* More than the longest chain there is: #DB, #GP delivering it, #PF delivering that, one more that makes it
 * #DF, and one that ends it. */
#define VCPU_FAULT_CHAIN 8

enum interrupt_shadow { SHADOW_NONE, SHADOW_STI, SHADOW_MOV_SS };

struct vcpu_ops;

struct vcpu {
    uint32_t gpr[GPR_COUNT];
    uint32_t eip;
    uint32_t eflags;          /* the virtual EFLAGS: IF here is IF_virt, IOPL the guest's; bit 1 always set */
    uint8_t cpl;              /* the virtual one; equals the RPL of CS except while VM or real mode */
    uint8_t interrupt_shadow; /* enum interrupt_shadow: for exactly the next instruction */
    bool halted;              /* HLT executed, waiting for an interrupt */
    /* DS, ES, FS or GS were loaded by the way: by a task switch, or a return to an outer ring. It is cleared
     * by whoever wants to know. */
    bool has_other_data_segments;
    bool nmi_pending, nmi_blocked;
    struct segment segment[SEG_COUNT];
    struct segment ldtr, tr;
    struct table_register gdtr, idtr;
    uint32_t cr0, cr2, cr3, cr4;
    uint64_t pdpte[4]; /* under PAE: loaded with CR3, and not looked up again (SDM Vol 3A 4.4.1) */
    uint32_t dr[8];
    struct {
        uint64_t tsc_offset; /* added to ops->tsc() */
        uint64_t sysenter_cs, sysenter_esp, sysenter_eip;
        uint64_t pat, efer, apic_base, misc_enable;
        uint64_t mtrr_def_type, mtrr_fixed[11], mtrr_variable[16];
        uint64_t kvm_wall_clock, kvm_system_time, kvm_steal_time;
    } msr;
    /* The fault that the emulation routine which returned OUTCOME_FAULT raised. */
    struct fault fault;
    /* The exception being delivered, for the #DF and triple-fault rules (-1: none). */
    int16_t delivering_vector;
    /* How the last delivery went wrong, in the order it happened: what escalates to a triple fault is
     * explained from here. fault[0] is the one first raised; each further one was raised while delivering its
     * predecessor, or, once they had become a #DF, while delivering that. */
    struct {
        struct fault fault[VCPU_FAULT_CHAIN];
        uint8_t count;
        int16_t interrupt; /* the interrupt whose delivery began it, or -1: an exception did */
        uint16_t cs;       /* of the interrupted instruction */
        uint32_t eip;
    } chain;
    /* x87/MMX/SSE state as FXSAVE (32-bit form) lays it out. */
    _Alignas(16) uint8_t fxsave[512];

    const struct vcpu_ops *ops; /* rebuilt by whoever makes the machine */
    void *machine;              /* for ops; rebuilt likewise */
};

/* ---- outcomes ---------------------------------------------------------------------------------------- */

enum outcome {
    OUTCOME_DONE,    /* finished; eip is at the next instruction */
    OUTCOME_PARTIAL, /* a repeated string instruction got part of the way: state is exact, eip is still at it
                      */
    OUTCOME_FAULT,   /* vcpu->fault is raised; registers, eip and memory are as the SDM says for that fault */
    OUTCOME_STOP,    /* ops->stop was called: the run ends */
    OUTCOME_UNKNOWN, /* not an instruction that can be emulated: nothing has changed */
};

/* ---- the machine underneath ---------------------------------------------------------------------------- */

enum access_kind {
    ACCESS_READ = 1,
    ACCESS_WRITE = 2,
    ACCESS_FETCH = 4,
    ACCESS_USER =
        8, /* with CPL 3 rights; absent: supervisor (also implicit accesses to descriptor tables and TSS) */
    ACCESS_PROBE = 16, /* check (and set A/D) only: no data moves; buf may be NULL */
};

enum stop_reason {
    STOP_NONE,
    STOP_POWER_OFF,
    STOP_HALTED, /* HLT with interrupts off and no NMI source */
    STOP_DEBUG_EXIT,
    STOP_RESET,
    STOP_TRIPLE_FAULT,
    STOP_IMPOSSIBLE, /* state or instruction that no guest should reach and that we do not approximate */
    STOP_TIMEOUT,
    STOP_SIGNAL, /* SIGTERM, SIGINT, Ctrl-A x */
    STOP_HOST,   /* the host failed us in a way that ends the run cleanly (stdout closed, trace disk full) */
};

enum injection_kind { INJECT_EXCEPTION, INJECT_SOFTWARE, INJECT_EXTERNAL, INJECT_NMI };

struct vcpu_ops {
    /* Linear memory through the guest's paging. size 1..64; may cross a page. Returns DONE, FAULT (#PF in
     * vcpu->fault) or STOP. A write is checked in full before any byte moves. Physical addresses without RAM
     * go to the devices, as one access where size is 1, 2 or 4 and it does not cross a page. */
    enum outcome (*memory)(struct vcpu *vcpu, gva_t linear, void *buf, unsigned size, unsigned kind);
    /* For more than that at once: the byte at `linear` in the host, where the rest of its page follows, for
     * accesses of this kind, with A and D set as for one of them. NULL: not without `memory`, since it
     * faults, or somebody must be told of it. May be NULL itself. */
    uint8_t *(*reach)(struct vcpu *vcpu, gva_t linear, unsigned kind);
    /* `size` bytes of linear memory in the host, for an access with supervisor rights (ACCESS_READ or
     * ACCESS_WRITE) that does not cross a page, if it is known that it can neither fault nor set a bit nor
     * needs to be told to anybody. NULL: perhaps it cannot; nothing has changed. May be NULL itself. */
    uint8_t *(*at_hand)(struct vcpu *vcpu, gva_t linear, unsigned size, unsigned kind);
    uint32_t (*port_read)(struct vcpu *vcpu, uint16_t port, unsigned size);
    void (*port_write)(struct vcpu *vcpu, uint16_t port, unsigned size, uint32_t value);
    /* Physical memory, for the PDPTEs; ones where there is none. */
    void (*physical_read)(struct vcpu *vcpu, gpa_t gpa, void *buf, unsigned size);
    /* CR0.PG/WP/PE, CR4.PSE/PAE/PGE, EFER.NXE changed, CR3 was written or the PDPTEs were loaded: called
     * after vcpu changed. */
    void (*paging_changed)(struct vcpu *vcpu, uint32_t old_cr0, uint32_t old_cr3, uint32_t old_cr4);
    void (*invlpg)(struct vcpu *vcpu, gva_t linear);
    uint64_t (*tsc)(struct vcpu *vcpu);
    /* The TSC was set, or an MSR of KVM's clock was written: what it tells the guest in memory may change.
     * Called after vcpu changed. */
    void (*clock_changed)(struct vcpu *vcpu, uint32_t msr);
    /* IA32_APIC_BASE was written (the local APIC listens). */
    void (*apic_base_changed)(struct vcpu *vcpu);
    /* The run ends. First reason wins. */
    void (*stop)(struct vcpu *vcpu, enum stop_reason reason, const char *format, ...)
        __attribute__((format(printf, 3, 4)));
    /* Observation only: an exception or interrupt passed all checks and the registers are about to change
     * (one whose delivery faults is not reported, what it becomes is); an unknown MSR was touched. */
    void (*injected)(struct vcpu *vcpu, enum injection_kind kind, uint8_t vector, bool has_error,
                     uint32_t error);
    void (*unknown_msr)(struct vcpu *vcpu, uint32_t index, bool is_write, uint64_t value);
};

/* ---- life -------------------------------------------------------------------------------------------- */

/* Power-on state of SDM Vol 3A table 9-1 (real mode at f000:fff0). ops and machine are kept. */
void vcpu_reset(struct vcpu *vcpu);
/* Flat 32-bit protected mode, paging off: CS 0x08 or as given, DS.. 0x10; used by the loaders. GDTR is the
 * caller's. */
void vcpu_set_flat(struct vcpu *vcpu, uint16_t code_selector, uint16_t data_selector, uint32_t eip);

/* ---- emulation --------------------------------------------------------------------------------------- */

/* Emulates the instruction at CS:EIP, already decoded: sensitive ones by their table row, ordinary ones with
 * memory operands (and register-only ones) exactly, flags included. */
enum outcome vcpu_emulate(struct vcpu *vcpu, const struct insn *insn);
/* True if vcpu_emulate can run it (else it would return OUTCOME_UNKNOWN). */
bool vcpu_can_emulate(const struct insn *insn);
/* Makes the memory in which ordinary instructions are run; done at the first use, unless earlier (a sandbox
 * may forbid it later). Dies if the host has none. */
void vcpu_stub_init(void);
/* Between writing code through one linear address and running it at another. (stub_enter.S) */
void vcpu_serialize(void);
/* Reads up to `n` bytes at CS:EIP as the CPU fetches them, and decodes. DONE; FAULT (#PF, #GP over limit,
 * #UD); STOP. */
enum outcome vcpu_fetch(struct vcpu *vcpu, struct insn *insn);

/* ---- exceptions and interrupts ------------------------------------------------------------------------- */

/* Delivers through the IDT (SDM Vol 3A ch. 6), escalating to #DF and triple fault. DONE or STOP. What is
 * saved is vcpu->eip. INJECT_EXTERNAL and INJECT_NMI only for the interrupt form: a software interrupt is
 * vcpu_emulate'd, since only the instruction knows the eip to go back to when its gate refuses it. */
enum outcome vcpu_deliver_fault(struct vcpu *vcpu, const struct fault *fault);
enum outcome vcpu_deliver_interrupt(struct vcpu *vcpu, enum injection_kind kind, uint8_t vector);
/* IF_virt=1, no shadow, not in a state that blocks them. */
bool vcpu_accepts_interrupt(const struct vcpu *vcpu);
bool vcpu_accepts_nmi(const struct vcpu *vcpu);
const char *vcpu_exception_name(unsigned vector); /* "#GP" */

/* Loads ES, SS, DS, FS or GS with every check of MOV Sreg. DONE, or FAULT with nothing changed. */
enum outcome vcpu_load_segment(struct vcpu *vcpu, enum segment_index index, uint16_t selector);
const char *vcpu_segment_name(enum segment_index index); /* "ds" */

/* ---- helpers for engines and monitor ------------------------------------------------------------------- */

enum outcome vcpu_raise(struct vcpu *vcpu, int vector); /* no error code */
enum outcome vcpu_raise_error(struct vcpu *vcpu, int vector, uint32_t error);
enum outcome vcpu_raise_page_fault(struct vcpu *vcpu, gva_t address, uint32_t error);
/* Sets dr6_bits in DR6 and raises #DB; a trap (eip is past the instruction) unless the bits say BD. */
enum outcome vcpu_raise_debug(struct vcpu *vcpu, uint32_t dr6_bits);
/* Address of a memory operand: offset within its segment, address size applied. */
uint32_t vcpu_effective_address(const struct vcpu *vcpu, const struct insn *insn,
                                const struct operand *operand);
/* The segment's own checks (null, limit, type). DONE, or FAULT with #GP/#SS; *linear is segment base +
 * offset. */
enum outcome vcpu_segment_check(struct vcpu *vcpu, enum segment_index segment, uint32_t offset, unsigned size,
                                unsigned kind, gva_t *linear);
/* What CPUID leaf 1 says in EAX and EDX (docs/cpuid.md), for the firmware's tables. */
uint32_t vcpu_cpuid_signature(void);
uint32_t vcpu_cpuid_features(void);
static inline bool vcpu_is_protected(const struct vcpu *vcpu)
{
    return (vcpu->cr0 & CR0_PE) != 0;
}
static inline bool vcpu_is_v8086(const struct vcpu *vcpu)
{
    return (vcpu->eflags & EFLAGS_VM) != 0;
}
static inline unsigned vcpu_code_size(const struct vcpu *vcpu) /* 4 or 2: the D bit of CS */
{
    return (vcpu->segment[SEG_CS].attributes & SEGMENT_DB) ? 4 : 2;
}

#endif
