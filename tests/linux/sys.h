/* System calls of Linux on the i386 for a program without a C library: int 0x80, see
 * arch/x86/entry/syscalls/syscall_32.tbl. A negative result is an errno. */
#ifndef RING3_TESTS_LINUX_SYS_H
#define RING3_TESTS_LINUX_SYS_H

enum {
    SYS_exit = 1,
    SYS_fork = 2,
    SYS_write = 4,
    SYS_waitpid = 7,
    SYS_munmap = 91,
    SYS_ftruncate = 93,
    SYS_mprotect = 125,
    SYS_rt_sigaction = 174,
    SYS_mmap2 = 192,
    SYS_clock_gettime = 265,
    SYS_memfd_create = 356,
};

enum { PROT_READ = 1, PROT_WRITE = 2, PROT_EXEC = 4, PROT_RWX = 7 };
enum { MAP_SHARED = 1, MAP_PRIVATE = 2, MAP_ANONYMOUS = 0x20 };
enum { SIGSEGV = 11, SA_SIGINFO = 4 };
enum { CLOCK_MONOTONIC = 1 };

/* Six arguments: EBX, ECX, EDX, ESI, EDI, and EBP, which the compiler may need itself. */
static long sys6(long number, long a, long b, long c, long d, long e, long f)
{
    long result;

    __asm__ volatile("push %[f]\n\t"
                     "push %%ebp\n\t"
                     "mov 4(%%esp), %%ebp\n\t"
                     "int $0x80\n\t"
                     "pop %%ebp\n\t"
                     "add $4, %%esp"
                     : "=a"(result)
                     : "0"(number), "b"(a), "c"(b), "d"(c), "S"(d), "D"(e), [f] "m"(f)
                     : "memory", "cc");
    return result;
}

#define sys3(number, a, b, c) sys6(SYS_##number, (long)(a), (long)(b), (long)(c), 0, 0, 0)

static void *map(unsigned size, int protection, int flags, int fd)
{
    return (void *)sys6(SYS_mmap2, 0, (long)size, protection, flags, fd, 0);
}

static int protect(void *address, unsigned size, int protection)
{
    return (int)sys3(mprotect, address, size, protection);
}

static int fork(void)
{
    return (int)sys3(fork, 0, 0, 0);
}

static void __attribute__((noreturn)) leave(int status)
{
    for (;;)
        sys3(exit, status, 0, 0);
}

/* The status word of the child: exit status * 256, or the signal that killed it. */
static int wait_for(int child)
{
    int status = -1;

    return sys3(waitpid, child, &status, 0) == child ? status : -1;
}

static unsigned milliseconds(void)
{
    long time[2] = {0, 0};

    sys3(clock_gettime, CLOCK_MONOTONIC, time, 0);
    return (unsigned)time[0] * 1000u + (unsigned)time[1] / 1000000u;
}

#endif
