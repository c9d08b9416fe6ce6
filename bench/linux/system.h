/*
 * What the benchmark's program needs of Linux for i386, without a C library: system calls, by the entry that
 * the kernel recommends to a process (AT_SYSINFO, the one libraries use). A result from -4095 to -1 is an
 * error. Read next: main.c.
 */
#ifndef RING3_BENCH_LINUX_SYSTEM_H
#define RING3_BENCH_LINUX_SYSTEM_H

#include <stdint.h>

#define PAGE_SIZE 4096u

/* arch/x86/entry/syscalls/syscall_32.tbl */
enum system_call {
    SYS_EXIT = 1,
    SYS_FORK = 2,
    SYS_READ = 3,
    SYS_WRITE = 4,
    SYS_OPEN = 5,
    SYS_CLOSE = 6,
    SYS_WAITPID = 7,
    SYS_UNLINK = 10,
    SYS_EXECVE = 11,
    SYS_GETPID = 20,
    SYS_MOUNT = 21,
    SYS_PAUSE = 29,
    SYS_KILL = 37,
    SYS_MKDIR = 39,
    SYS_PIPE = 42,
    SYS_GETPPID = 64,
    SYS_REBOOT = 88,
    SYS_MMAP = 90, /* its arguments are in memory */
    SYS_MUNMAP = 91,
    SYS_MPROTECT = 125,
    SYS_SCHED_YIELD = 158,
    SYS_NANOSLEEP = 162,
    SYS_RT_SIGACTION = 174,
    SYS_PWRITE64 = 181,
    SYS_MADVISE = 219,
    SYS_FUTEX = 240,
    SYS_CLOCK_GETTIME = 265,
};

enum {
    AT_SYSINFO = 32,
    CLOCK_MONOTONIC = 1,
    FUTEX_WAIT = 0,
    FUTEX_WAKE = 1,
    MADV_NOHUGEPAGE = 15,
    MAP_SHARED = 1,
    MAP_PRIVATE = 2,
    MAP_FIXED = 0x10,
    MAP_ANONYMOUS = 0x20,
    O_RDONLY = 0,
    O_RDWR = 2,
    O_CREAT = 0x40,
    PROT_READ = 1,
    PROT_WRITE = 2,
    SIGKILL = 9,
    SIGUSR1 = 10,
};

struct timespec32 {
    int32_t seconds;
    int32_t nanoseconds;
};

/* The kernel's entry, or int 0x80 where it names none. */
extern void (*system_entry)(void);

/* The fifth argument, where there is one, is 0: mount's data, the upper half of a position. */
static inline long system4(enum system_call number, long a, long b, long c, long d)
{
    long result;

    __asm__ volatile("call *%[entry]"
                     : "=a"(result)
                     : "0"(number), "b"(a), "c"(b), "d"(c), "S"(d), "D"(0), [entry] "m"(system_entry)
                     : "memory", "cc");
    return result;
}

static inline long system3(enum system_call number, long a, long b, long c)
{
    return system4(number, a, b, c, 0);
}

static inline long system2(enum system_call number, long a, long b)
{
    return system4(number, a, b, 0, 0);
}

static inline long system1(enum system_call number, long a)
{
    return system4(number, a, 0, 0, 0);
}

static inline long system0(enum system_call number)
{
    return system4(number, 0, 0, 0, 0);
}

/* Ends the program with a message. */
_Noreturn void fail(const char *what);

_Noreturn static inline void leave(int status)
{
    for (;;)
        system1(SYS_EXIT, status);
}

/* The result of a system call that must not fail. */
static inline long must(long result, const char *what)
{
    if (result < 0 && result >= -4095)
        fail(what);
    return result;
}

/* Anonymous pages of 4 KiB, never huge ones, whatever the host and the guest would rather have. */
static inline uint8_t *map_pages(void *at, uint32_t n_pages, uint32_t flags)
{
    const uint32_t arguments[6] = {(uint32_t)at,          n_pages * PAGE_SIZE, PROT_READ | PROT_WRITE,
                                   flags | MAP_ANONYMOUS, UINT32_MAX,          0};
    long address = must(system1(SYS_MMAP, (long)arguments), "mmap");

    system3(SYS_MADVISE, address, (long)(n_pages * PAGE_SIZE), MADV_NOHUGEPAGE);
    return (uint8_t *)address;
}

static inline void unmap_pages(uint8_t *pages, uint32_t n_pages)
{
    must(system2(SYS_MUNMAP, (long)pages, (long)(n_pages * PAGE_SIZE)), "munmap");
}

static inline void touch_pages(uint8_t *pages, uint32_t n_pages)
{
    for (uint32_t i = 0; i < n_pages; i++)
        ((volatile uint8_t *)pages)[i * PAGE_SIZE] = 1;
}

static inline void sleep_milliseconds(uint32_t milliseconds)
{
    struct timespec32 time = {(int32_t)(milliseconds / 1000), (int32_t)(milliseconds % 1000 * 1000000)};

    /* What is left of an interrupted sleep is written back. */
    while (system2(SYS_NANOSLEEP, (long)&time, (long)&time) != 0)
        continue;
}

#endif
