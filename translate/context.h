/*
 * What translated code and enter.S know by offset: r15 points to a struct context while guest code runs.
 *
 * Registers in translated code: eax ecx edx ebx ebp esi edi are the guest's, in the host registers of the
 * same names, rsp is the guest's ESP; the upper halves are zero. The host's arithmetic flags and DF are the
 * guest's. r8 to r11 are scratch, but with MODE_COUNT r11 is the budget (meter.c); r12 is the start of the
 * code cache, r13 the jump table, r14 the window (in ring 3's code GS base, too), r15 the context. Everything
 * else of the guest is in struct vcpu.
 *
 * Read next: enter.S.
 */
#ifndef RING3_TRANSLATE_CONTEXT_H
#define RING3_TRANSLATE_CONTEXT_H

/* Offsets in struct context and struct vcpu; checked against the structs in state.c. */
#define CONTEXT_HOST_RSP  0
#define CONTEXT_VCPU      8
#define CONTEXT_ATTENTION 16
#define CONTEXT_TARGET    24
#define CONTEXT_CACHE     32
#define CONTEXT_TABLE     40
#define CONTEXT_WINDOW    48
#define CONTEXT_LOOKUP    56
#define CONTEXT_LINK      64
#define CONTEXT_CALLOUT   72
#define CONTEXT_FLAGS     80
#define CONTEXT_DF        84
#define CONTEXT_IF        88
#define CONTEXT_PENDING   92
#define CONTEXT_VIRTUAL   96
#define CONTEXT_SCRATCH   100
#define CONTEXT_SITE      104
#define CONTEXT_FXSAVE    112
#define CONTEXT_BUDGET    120
#define CONTEXT_TSC_BASE  128
#define CONTEXT_TSC_MUL   136
#define CONTEXT_TSC_ADD   144
#define CONTEXT_REACH     152
#define CONTEXT_BASES     160 /* by enum segment_index, 4 bytes each */
#define CONTEXT_ADDRESS   184
#define CONTEXT_WINDOWS   192 /* by the top byte of a linear address, 8 bytes each */

#define CONTEXT_SEGMENT_WINDOWS 2240 /* by enum segment_index, 8 bytes each */
#define CONTEXT_FLAT_NOTES      2288 /* by the low byte of a selector, 8 bytes each */
#define CONTEXT_FULL_NOTES      4336
#define CONTEXT_SLOTS           6384 /* 16 bytes each */

#define CONTEXT_CPUID 7408

#define CONTEXT_LANDING 0x8000 /* see landing.c */

#define CPUID_MINUS_LEAF 0
#define CPUID_EAX        8
#define CPUID_EBX        12
#define CPUID_ECX        16
#define CPUID_EDX        20

#define SLOT_MINUS_PAGES 0
#define SLOT_REACH       8

#define NOTE_MINUS_SELECTOR   0
#define NOTE_LINEAR           4
#define NOTE_MINUS_DESCRIPTOR 8
#define NOTE_SEGMENT          16
#define NOTE_WINDOW           32

#define VCPU_GPR    0
#define VCPU_EIP    32
#define VCPU_EFLAGS 36

#define FXSAVE_XMM 160

/* What translate_enter returns. */
#define TRANSLATE_ABORTED     0 /* attention was set before the guest ran on: struct vcpu has all its state */
#define TRANSLATE_LEFT        1 /* a function called from translated code wants the monitor to go on */
#define TRANSLATE_FAULTED     2 /* a synchronous signal: state and fault were captured */
#define TRANSLATE_INTERRUPTED 3 /* an asynchronous signal: state was captured */

#ifndef __ASSEMBLER__

#include <stdbool.h>
#include <stdint.h>

#include "vcpu/vcpu.h"

#define SEGMENT_NOTES 256

/* What loading a selector at CPL 0 makes of a segment register (notes.c). */
struct segment_note {
    uint32_t minus_selector;
    uint32_t linear;           /* of the descriptor */
    uint64_t minus_descriptor; /* as it was then */
    struct segment segment;
    uint64_t window; /* to be added to the window where the segment is used: 0, or nowhere */
};

/* An instruction with an operand in memory that no window serves remembers where it was (reach.c), until the
 * monitor is entered for anything but that: what the guest's tables say cannot have changed. */
#define SLOTS_OF_KIND 16u
#define SLOT_KINDS    4u /* by ring 3 or not, for writing or not: what the one may reach the other may not */
#define SLOTS         (SLOTS_OF_KIND * SLOT_KINDS)

struct slot {
    uint32_t minus_pages; /* minus that of its first byte's page and of its last one's; 1: it is empty */
    uintptr_t reach;      /* as in the context */
};

/* What CPUID said the last time. */
struct cpuid_note {
    uint64_t minus_leaf; /* of 64 bits; CPUID_UNKNOWN: nothing is known */
    uint32_t eax, ebx, ecx, edx;
};

#define CPUID_UNKNOWN (UINT64_C(1) << 32)

struct space;
struct translator;

/* What a switch between ring 3 and ring 0 by SYSENTER, SYSEXIT or a gate leads to (switch.c). */
enum switch_kind { SWITCH_SYSENTER, SWITCH_SYSEXIT, SWITCH_IN, SWITCH_OUT, SWITCH_WITHIN, SWITCH_KINDS };

struct side {
    uint32_t minus_mode; /* of the block that it is reached from; one that no block has: it is not known */
    uint32_t selectors;  /* as in the context */
    const uint32_t *table;
    uintptr_t window;
    uint64_t window_change; /* from the one before */
    /* And for the monitor: */
    struct space *space;
    uint32_t mode;
    struct segment cs, ss;
    uint8_t cpl;
};

struct context {
    uint64_t host_rsp;
    struct vcpu *vcpu;
    const volatile int *attention;
    const uint8_t *target; /* where translated code goes on */
    const uint8_t *cache;
    const uint32_t *table;
    uintptr_t window;
    /* Ways out of translated code, in enter.S. */
    void (*lookup)(void);  /* r8d: the guest's EIP */
    void (*link)(void);    /* r8d: likewise; r9: the end of the direct jump that may be patched */
    void (*callout)(void); /* r8d: number of the call; r9d: address */
    uint16_t flags;        /* AL = OF, AH = SF ZF AF PF CF: as SETO and LAHF leave them */
    uint16_t unused;
    uint32_t direction;      /* EFLAGS.DF of the guest, or 0 */
    uint32_t interrupt_flag; /* EFLAGS.IF of the guest, or 0 */
    uint32_t pending;        /* EFLAGS.IF if an interrupt may be deliverable once IF is set, or 0 */
    uint32_t virtual_flags;  /* the guest's EFLAGS without arithmetic flags, bit 1, DF, IF, RF and VM */
    uint32_t scratch;
    const uint8_t *site; /* r9 of `link` */
    uint8_t *fxsave;     /* 16-byte aligned, in struct vcpu */
    uintptr_t budget; /* r11: an address, so many bytes into the meter as instructions are left (meter.c) */
    /* The guest's TSC is ((the host's + tsc_base) * tsc_mul >> 64) + tsc_add, valid in MODE_TSC; or tsc_add -
     * r11, with MODE_COUNT. */
    uint64_t tsc_base, tsc_mul, tsc_add;
    uintptr_t reach; /* to be added to the address of a call's operand: there it is (touch.c) */
    uint32_t bases[SEG_COUNT];
    uint32_t address;   /* r9d of `callout`, if the call has an operand whose address is of use */
    uint32_t selectors; /* CS, and SS in the upper half */
    /* For the kernel's instructions that reach for the user's memory: which window has an address (spaces.c).
     */
    uintptr_t windows[256];
    uintptr_t segment_windows[SEG_COUNT]; /* where FS and GS find memory, if the mode has them */
    const struct segment_note *flat_notes[SEGMENT_NOTES], *full_notes[SEGMENT_NOTES];
    struct slot slots[SLOTS];
    struct cpuid_note cpuid;
    struct translator *translator;
    uint32_t switched; /* translated code has gone to sides[switched - 1]; 0: the monitor knows where it is */
    struct side sides[SWITCH_KINDS];
};

/* enter.S */
int translate_enter(struct context *context);
void translate_lookup_stub(void);
void translate_link_stub(void);
void translate_callout_stub(void);
/* Labels: state is complete in struct vcpu from start to end, so that a signal handler sends what it
 * interrupts there to translate_abort. */
extern const char translate_resume_start[], translate_resume_end[], translate_abort[];
/* Where handlers go when they have captured the guest's state; eax is the result of translate_enter. */
extern const char translate_leave_captured[];

/* callout.c: called by enter.S with the guest's state in struct vcpu. NULL: leave translate_enter. */
const uint8_t *translate_on_lookup(struct context *context);
const uint8_t *translate_on_link(struct context *context);
const uint8_t *translate_on_callout(struct context *context, uint32_t number);

#endif
#endif
