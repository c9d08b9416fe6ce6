/*
 * KVM's paravirtual clock (kernel Documentation/virt/kvm/x86/msr.rst): what the guest asks for by an MSR
 * stands in its memory from then on.
 *
 * The virtual TSC counts nanoseconds of machine time (machine.c), with the guest's own offset if it has set
 * one. So the record of the system time says one thing for ever, in the guest's words: time is TSC minus
 * offset. It is written when it is asked for and when the offset changes, and is the same in every run. That
 * RDTSC is right is the engine's business.
 *
 * Records have a version, odd while they are being written; one that is not in RAM is not written, as under
 * KVM.
 *
 * Read next: translate/host_clock.c, for an engine that reads the host's TSC.
 */
#include "monitor/pvclock.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define NS_PER_SECOND 1000000000

/* A look reads a file of /proc: not at each tick of an idle guest. */
#define ATTEND_PERIOD_NS 50000000u

/* ns = (cycles << 1) * 2^31 / 2^32: cycles are nanoseconds. */
#define CYCLE_SHIFT 1
#define CYCLE_MUL   0x80000000u

#define TIME_STABLE 1 /* the TSC is in step on all processors: there is one */

struct wall_record {
    uint32_t version, seconds, nanoseconds;
};

struct time_record {
    uint32_t version, unused;
    uint64_t tsc, ns; /* at which system time */
    uint32_t mul;
    int8_t shift;
    uint8_t flags;
    uint8_t padding[2];
};

struct steal_record {
    uint64_t ns;
    uint32_t version, flags;
    uint8_t is_preempted, padding[3];
    uint32_t more_padding[11];
};

_Static_assert(sizeof(struct wall_record) == 12 && sizeof(struct time_record) == 32 &&
                   sizeof(struct steal_record) == 64,
               "as KVM has them");

/* ---- records ------------------------------------------------------------------------------------------- */

/* The version goes on from what is there: the guest may have begun with any, or use the record again. */
static void publish(struct guest_memory *memory, gpa_t gpa, void *record, size_t size, size_t version_offset)
{
    uint8_t there[sizeof(struct steal_record)];
    uint32_t version;

    if (!memory_read(memory, gpa, there, size))
        return;
    memcpy(&version, there + version_offset, sizeof version);
    version = (version + 1) | 1;
    (void)memory_write(memory, gpa + version_offset, &version, sizeof version);
    memcpy((uint8_t *)record + version_offset, &version, sizeof version);
    (void)memory_write(memory, gpa, record, size);
    version++;
    (void)memory_write(memory, gpa + version_offset, &version, sizeof version);
}

static void publish_wall_clock(const struct pvclock *pvclock, struct guest_memory *memory, gpa_t gpa)
{
    struct wall_record record = {.seconds = (uint32_t)(pvclock->wall_ns / NS_PER_SECOND),
                                 .nanoseconds = (uint32_t)(pvclock->wall_ns % NS_PER_SECOND)};

    if (gpa != 0)
        publish(memory, gpa, &record, sizeof record, offsetof(struct wall_record, version));
}

static void publish_system_time(struct guest_memory *memory, const struct vcpu *vcpu)
{
    struct time_record record = {
        .tsc = vcpu->msr.tsc_offset, .mul = CYCLE_MUL, .shift = CYCLE_SHIFT, .flags = TIME_STABLE};

    if (vcpu->msr.kvm_system_time & MSR_KVM_ENABLED)
        publish(memory, vcpu->msr.kvm_system_time & ~MSR_KVM_ENABLED, &record, sizeof record,
                offsetof(struct time_record, version));
}

static void publish_stolen_time(const struct pvclock *pvclock, struct guest_memory *memory,
                                const struct vcpu *vcpu)
{
    struct steal_record record = {.ns = pvclock->stolen_ns};

    if (vcpu->msr.kvm_steal_time & MSR_KVM_ENABLED)
        publish(memory, vcpu->msr.kvm_steal_time & ~MSR_KVM_ENABLED, &record, sizeof record,
                offsetof(struct steal_record, version));
}

void pvclock_msr_written(struct pvclock *pvclock, struct guest_memory *memory, const struct vcpu *vcpu,
                         uint32_t msr)
{
    switch (msr) {
    case MSR_KVM_WALL_CLOCK:
    case MSR_KVM_WALL_CLOCK_OLD:
        publish_wall_clock(pvclock, memory, vcpu->msr.kvm_wall_clock);
        break;
    case MSR_KVM_STEAL_TIME:
        publish_stolen_time(pvclock, memory, vcpu);
        break;
    default:
        publish_system_time(memory, vcpu);
        break;
    }
}

/* ---- what the host's scheduler took -------------------------------------------------------------------- */

/* How long this thread was ready to run and did not (kernel Documentation/scheduler/sched-stats.rst: the
 * second number). */
static bool read_run_delay(const struct pvclock *pvclock, uint64_t *ns)
{
    char text[96];
    ssize_t n = pvclock->schedstat < 0 ? -1 : pread(pvclock->schedstat, text, sizeof text - 1, 0);
    char *end;

    if (n <= 0)
        return false;
    text[n] = '\0';
    (void)strtoull(text, &end, 10);
    if (*end != ' ')
        return false;
    *ns = strtoull(end, NULL, 10);
    return true;
}

void pvclock_open(struct pvclock *pvclock)
{
    pvclock->schedstat = open("/proc/self/schedstat", O_RDONLY | O_CLOEXEC);
    if (!read_run_delay(pvclock, &pvclock->run_delay))
        pvclock_close(pvclock);
}

void pvclock_close(struct pvclock *pvclock)
{
    if (pvclock->schedstat >= 0)
        close(pvclock->schedstat);
    pvclock->schedstat = -1;
}

void pvclock_attend(struct pvclock *pvclock, struct guest_memory *memory, const struct vcpu *vcpu,
                    uint64_t now)
{
    uint64_t run_delay;

    if (!(vcpu->msr.kvm_steal_time & MSR_KVM_ENABLED) || now < pvclock->next_ns)
        return;
    pvclock->next_ns = now + ATTEND_PERIOD_NS;
    if (!read_run_delay(pvclock, &run_delay) || run_delay <= pvclock->run_delay)
        return;
    pvclock->stolen_ns += run_delay - pvclock->run_delay;
    pvclock->run_delay = run_delay;
    publish_stolen_time(pvclock, memory, vcpu);
}
