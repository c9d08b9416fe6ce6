/*
 * The state that the world switch moves between the monitor and the guest, and the offsets by which entry.S
 * knows it. There is one world in a process, because there is one low 4 GiB; a signal handler must find it
 * without TLS (the guest may have moved the FS base), so it has a fixed place. Read next: entry.S.
 */
#ifndef RING3_WORLD_H
#define RING3_WORLD_H

/* Offsets in struct world; checked against the struct in frame.c. */
#define WORLD_HOST_RSP     0
#define WORLD_HOST_FS_BASE 8
#define WORLD_ATTENTION    16
#define WORLD_FPU          24
#define WORLD_HAS_FSGSBASE 32
#define WORLD_RELOAD       36
#define WORLD_EAX          40 /* eax ecx edx ebx esp ebp esi edi, 4 bytes each */
#define WORLD_IRET         72 /* rip cs rflags rsp ss, 8 bytes each, as IRETQ pops them */
#define WORLD_DS           112
#define WORLD_ES           114
#define WORLD_FS           116
#define WORLD_GS           118
#define WORLD_IS_INSIDE    120

#define HOST_CS        0x33 /* __USER_CS: the monitor's own code segment */
#define HOST_CS_COMPAT 0x23 /* __USER32_CS */
#define HOST_DS        0x2b /* __USER_DS */

/* What trap_enter returns. */
#define WORLD_ABORTED     0 /* attention was set: the guest did not run */
#define WORLD_FAULTED     1 /* a synchronous signal: world.fault describes it */
#define WORLD_INTERRUPTED 2 /* an asynchronous signal stopped the guest */

#ifndef __ASSEMBLER__

#include <stdbool.h>
#include <stdint.h>

struct world {
    uint64_t host_rsp;     /* the monitor's stack while the guest runs */
    uint64_t host_fs_base; /* the monitor's TLS */
    const volatile int *attention;
    void *fpu; /* the guest's FXSAVE image */
    uint32_t has_fsgsbase;
    uint32_t reload; /* a descriptor changed: load DS ES FS GS even if the selectors are the same */
    uint32_t gpr[8]; /* in the order of enum gpr_index */
    struct {
        uint64_t rip, cs, rflags, rsp, ss;
    } iret;
    uint16_t ds, es, fs, gs;
    uint32_t is_inside; /* the guest runs, or is about to: set on the way in, cleared by the capture */

    /* Filled by the capture in frame.c, not used by entry.S: */
    int signo;
    int code;   /* si_code */
    int trapno; /* the CPU's exception vector, where the signal has one */
    uint32_t error;
    uint64_t cr2;        /* host address */
    bool timed;          /* take capture_ns */
    uint64_t capture_ns; /* host ns when the signal was in our hands */
};

extern struct world trap_world;

/* Runs the guest until something stops it. Returns WORLD_*. (entry.S) */
int trap_enter(struct world *world);
/* The same through the kernel, by a signal frame that holds the guest's state. (entry.S; frame.c makes it) */
int trap_enter_by_frame(struct world *world, const void *uc);

/* Signal handlers (entry.S); they repair the CPU state that C relies on, then call the C part in frame.c. */
void trap_synchronous_entry(void);
void trap_asynchronous_entry(void);

/* Labels in entry.S: the restartable window, the IRETQ in it, and where an interrupted window goes. */
extern const char trap_window_start[], trap_window_iret[], trap_window_end[], trap_abort[];

#endif
#endif
