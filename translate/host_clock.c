/*
 * The host's clock by its TSC. Linux makes CLOCK_MONOTONIC of the TSC as well, where it trusts it, so this is
 * the same line with other numbers: a point on it and a slope. The slope is measured between two looks at
 * both clocks, and bent a little so that the lines meet again in a second; the point moves along, and so the
 * clock never jumps back.
 *
 * It is one for the process, as the TSC is.
 *
 * Read next: lower_tsc.c, which reads it in translated code.
 */
#include "translate/host_clock.h"

#include <cpuid.h>
#include <fcntl.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>
#include <x86intrin.h>

#define NS_PER_SECOND 1000000000

#define FIRST_BASELINE_NS 1000000u   /* two looks 50 ns wide: 50 ppm at worst, until the next */
#define ADJUST_NS         250000000u /* between two looks */
#define ADJUST_CYCLES     1000000000u
#define TRIES             8
#define WIDE_CYCLES       100000u /* we were interrupted at every try */

/* Further off than this for each ns since the last look is no drift: a clock stood still. */
#define JUMP_MIN_NS   1000000
#define JUMP_FRACTION 1000
#define MAX_BEND_NS   500000 /* a second */

/* CPUID leaf 80000007H, EDX (SDM Vol 3B 17.17.1) */
#define INVARIANT_TSC 0x100u

__extension__ typedef unsigned __int128 uint128_t;

static struct {
    bool is_usable, is_running;
    struct host_clock_sample sample; /* the last look */
    struct host_clock_line line;
    uint64_t lead; /* over CLOCK_MONOTONIC, on purpose */
} host_clock;

static uint64_t monotonic_ns(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * NS_PER_SECOND + (uint64_t)ts.tv_nsec;
}

/* ---- can it? ------------------------------------------------------------------------------------------- */

/* Does Linux trust it? It watches the TSC against other clocks, and the processors' against one another. */
static bool is_hosts_clock(void)
{
    char name[16] = "";
    int fd = open("/sys/devices/system/clocksource/clocksource0/current_clocksource", O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? 0 : read(fd, name, sizeof name - 1);

    if (fd >= 0)
        close(fd);
    return n > 0 && strcmp(name, "tsc\n") == 0;
}

static bool is_invariant(void)
{
    unsigned eax, ebx, ecx, edx;

    return __get_cpuid(0x80000007, &eax, &ebx, &ecx, &edx) && (edx & INVARIANT_TSC);
}

/* Has nobody in this process made RDTSC fault? */
static bool is_readable(void)
{
    int mode = 0;

    return prctl(PR_GET_TSC, &mode, 0, 0, 0) == 0 && mode == PR_TSC_ENABLE;
}

/* ---- looking ------------------------------------------------------------------------------------------- */

/* The narrowest of a few; false: none was narrow. The TSC is read first, so that the line made from the two
 * is never behind what CLOCK_MONOTONIC has shown. */
static bool look(struct host_clock_sample *sample)
{
    uint64_t width = WIDE_CYCLES;

    for (int i = 0; i < TRIES; i++) {
        uint64_t tsc = __rdtsc(), ns = monotonic_ns(), end = __rdtsc();

        if (end - tsc >= width)
            continue;
        width = end - tsc;
        *sample = (struct host_clock_sample){.tsc = tsc, .ns = ns};
    }
    return width < WIDE_CYCLES;
}

/* 0: not slower than the TSC, which mul cannot say. */
static uint64_t slope(uint64_t ns, uint64_t cycles)
{
    return ns < cycles ? (uint64_t)(((uint128_t)ns << 64) / cycles) : 0;
}

uint64_t host_clock_at(const struct host_clock_line *line, uint64_t tsc)
{
    return line->ns + (uint64_t)((uint128_t)(tsc - line->tsc) * line->mul >> 64);
}

/* ---- following CLOCK_MONOTONIC ------------------------------------------------------------------------- */

static int64_t clamp(int64_t value, int64_t limit)
{
    return value > limit ? limit : value < -limit ? -limit : value;
}

/* By so many ns in a second. */
static uint64_t bend(uint64_t mul, int64_t ns)
{
    uint64_t change = (uint64_t)((uint128_t)mul * (uint64_t)(ns < 0 ? -ns : ns) / NS_PER_SECOND);

    return ns < 0 ? mul - change : mul + change;
}

struct host_clock_line host_clock_next_line(const struct host_clock_line *last,
                                            const struct host_clock_sample *before,
                                            const struct host_clock_sample *now, uint64_t *lead)
{
    bool is_reset = now->tsc < before->tsc; /* the host has slept, and its TSC with it */
    uint64_t ns = is_reset ? last->ns : host_clock_at(last, now->tsc);
    int64_t behind = (int64_t)(now->ns + *lead - ns);
    int64_t limit = JUMP_MIN_NS + (int64_t)((now->ns - before->ns) / JUMP_FRACTION);
    uint64_t mul = is_reset ? 0 : slope(now->ns - before->ns, now->tsc - before->tsc);

    if (mul == 0 || behind > limit || behind < -limit) {
        if (behind < 0)
            *lead += (uint64_t)-behind;
        else
            ns += (uint64_t)behind;
        return (struct host_clock_line){.tsc = now->tsc, .ns = ns, .mul = last->mul};
    }
    return (struct host_clock_line){.tsc = now->tsc, .ns = ns, .mul = bend(mul, clamp(behind, MAX_BEND_NS))};
}

void host_clock_adjust(void)
{
    struct host_clock_sample now;
    uint64_t tsc = __rdtsc();

    /* a look after a TSC that went back is due, too */
    if (!host_clock.is_running || tsc - host_clock.line.tsc < ADJUST_CYCLES ||
        host_clock_at(&host_clock.line, tsc) - host_clock.line.ns < ADJUST_NS || !look(&now))
        return;
    host_clock.line = host_clock_next_line(&host_clock.line, &host_clock.sample, &now, &host_clock.lead);
    host_clock.sample = now;
}

/* ---- life ---------------------------------------------------------------------------------------------- */

void host_clock_open(void)
{
    if (host_clock.is_running)
        return;
    host_clock.is_usable = __builtin_cpu_supports("bmi2") && is_invariant() && is_readable() &&
                           is_hosts_clock() && look(&host_clock.sample);
}

bool host_clock_start(void)
{
    struct host_clock_sample now;

    if (host_clock.is_running || !host_clock.is_usable)
        return host_clock.is_running;
    while (monotonic_ns() - host_clock.sample.ns < FIRST_BASELINE_NS) {
    }
    if (!look(&now))
        return false;
    host_clock.line = (struct host_clock_line){
        .tsc = now.tsc,
        .ns = now.ns,
        .mul = slope(now.ns - host_clock.sample.ns, now.tsc - host_clock.sample.tsc)};
    host_clock.is_running = host_clock.line.mul != 0;
    host_clock.sample = now;
    return host_clock.is_running;
}

uint64_t host_clock_ns(void)
{
    return host_clock.is_running ? host_clock_at(&host_clock.line, __rdtsc()) : monotonic_ns();
}

uint64_t host_clock_to_monotonic(uint64_t ns)
{
    return ns - host_clock.lead;
}

struct host_clock_line host_clock_line(void)
{
    return host_clock.line;
}
