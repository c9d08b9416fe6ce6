/*
 * KVM's paravirtual clock: records in the guest's memory by which it reads time without an exit, and learns
 * what the host's scheduler took from it. See pvclock.c.
 */
#ifndef RING3_PVCLOCK_H
#define RING3_PVCLOCK_H

#include "shadowpt/shadowpt.h"
#include "vcpu/vcpu.h"

/* Beside the MSRs, which are in struct vcpu. */
struct pvclock {
    int64_t wall_ns;    /* Unix time at machine time 0 */
    uint64_t stolen_ns; /* since power-on */
    uint64_t run_delay; /* what the host said last, ns */
    uint64_t next_ns;   /* machine time at which it is asked again */
    int schedstat;      /* descriptor; -1: nothing is ever stolen */
};

/* Must come before the sandbox closes. Without, or where the host keeps no such statistics, no time is
 * stolen. */
void pvclock_open(struct pvclock *pvclock);
void pvclock_close(struct pvclock *pvclock);
/* MSR_TSC or one of the clock's own was written: the record that follows from it goes to memory. */
void pvclock_msr_written(struct pvclock *pvclock, struct guest_memory *memory, const struct vcpu *vcpu,
                         uint32_t msr);
/* Brings the record of stolen time up to date, now and then. */
void pvclock_attend(struct pvclock *pvclock, struct guest_memory *memory, const struct vcpu *vcpu,
                    uint64_t now);

#endif
