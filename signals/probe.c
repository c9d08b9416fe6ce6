/*
 * What this host offers: each probe tries the thing itself, in a child process where the trying would last.
 * For `ring3 doctor`, whose every line comes from the table at the end.
 *
 * Read next: engine.c, which needs what is probed here.
 */
#include <asm/ldt.h>
#include <asm/prctl.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <seccomp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "signals/signals.h"
#include "signals/world.h"

#define HWCAP2_FSGSBASE_BIT 2
#define LOW_ADDRESS         0x10000
#define DEFAULT_MAP_COUNT   65530

/* Runs `attempt` in a child: its changes end with it. Returns 0, or the errno it failed with; -signal if it
 * died. */
static int in_child(int (*attempt)(void))
{
    pid_t child = fork();
    int status = 0;

    if (child < 0)
        return errno;
    if (child == 0) {
        prctl(PR_SET_DUMPABLE, 0, 0, 0, 0); /* an attempt that dies leaves no core file */
        _exit(attempt() & 0x7f);
    }
    while (waitpid(child, &status, 0) < 0 && errno == EINTR)
        ;
    return WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
}

static void describe(struct host_probe *probe, int failure)
{
    probe->is_available = failure == 0;
    if (failure < 0)
        snprintf(probe->detail, sizeof probe->detail, "the attempt died of %s", strsignal(-failure));
    else
        snprintf(probe->detail, sizeof probe->detail, "%s", failure == 0 ? "works" : strerror(failure));
}

/* ---- the attempts -------------------------------------------------------------------------------------- */

static int attempt_modify_ldt(void)
{
    struct user_desc desc = {
        .entry_number = 0, .limit = 0xfffff, .seg_32bit = 1, .limit_in_pages = 1, .useable = 1};

    return syscall(SYS_modify_ldt, 0x11, &desc, sizeof desc) == 0 ? 0 : errno;
}

/* A far return to the host's own 32-bit code segment, and from there another one back to 64-bit mode. Code
 * and stack of the 32-bit part must lie low, and our 64-bit stack pointer would be cut: it waits in memory.
 */
static int attempt_compat_mode(void)
{
    static uint64_t saved_rsp;
    static const uint8_t far_return = 0xcb; /* lret, 32-bit */
    static const uint8_t jump[] = {0x48, 0xb8, 0, 0, 0,    0,
                                   0,    0,    0, 0, 0xff, 0xe0}; /* mov $0, %rax; jmp *%rax */
    uint8_t *low = mmap((void *)LOW_ADDRESS, 2ul * PAGE_SIZE, PROT_READ | PROT_WRITE | PROT_EXEC,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    uint32_t *stack;

    if (low != (void *)LOW_ADDRESS)
        return errno;
    low[0] = far_return;
    memcpy(low + 16, jump, sizeof jump);
    stack = (uint32_t *)(void *)(low + 2ul * PAGE_SIZE) - 2;
    stack[0] = LOW_ADDRESS + 16; /* what the 32-bit lret pops */
    stack[1] = HOST_CS;
    __asm__ volatile(
        "lea 1f(%%rip), %%rax\n\t"
        "mov %%rax, (%[target])\n\t"
        "mov %%rsp, %[saved]\n\t"
        "mov %[stack], %%rsp\n\t"
        "pushq %[compat]\n\t"
        "pushq %[code]\n\t"
        "lretq\n"
        "1:\n\t"
        "mov %[saved], %%rsp"
        : [saved] "+m"(saved_rsp)
        : [stack] "r"(stack), [target] "r"(low + 18), [compat] "i"(HOST_CS_COMPAT), [code] "i"(LOW_ADDRESS)
        : "rax", "memory", "cc");
    return 0;
}

static int attempt_cpuid_fault(void)
{
    return syscall(SYS_arch_prctl, ARCH_SET_CPUID, 0) == 0 ? 0 : errno;
}

static int attempt_tsc_fault(void)
{
    return prctl(PR_SET_TSC, PR_TSC_SIGSEGV, 0, 0, 0) == 0 ? 0 : errno;
}

static void succeed(int signo)
{
    (void)signo;
    _exit(0);
}

/* The sandbox itself, and that it holds: a call that is not on the list fails, and a 32-bit one is SIGSYS
 * (or, where the kernel has none, the #GP of a missing gate). */
static int attempt_seccomp(void)
{
    char error[128];

    if (!signals_close_sandbox(error, sizeof error))
        return EPERM;
    if (syscall(SYS_getppid) >= 0)
        return ENOSYS;
    signal(SIGSYS, succeed);
    signal(SIGSEGV, succeed);
    __asm__ volatile("int $0x80" : : "a"(20) : "memory"); /* getpid */
    return ENOSYS;
}

static int attempt_userfaultfd(void)
{
    const uint64_t features = UFFD_FEATURE_SIGBUS | UFFD_FEATURE_WP_HUGETLBFS_SHMEM;
    struct uffdio_api api = {.api = UFFD_API, .features = features};
    int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | UFFD_USER_MODE_ONLY);

    if (fd < 0 || ioctl(fd, UFFDIO_API, &api) != 0)
        return errno;
    return (api.features & features) == features ? 0 : EOPNOTSUPP;
}

/* The window, and what must stay empty above it (engine.c). */
static int attempt_window(void)
{
    void *low = mmap((void *)LOW_ADDRESS, (1ul << 33) - LOW_ADDRESS, PROT_NONE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);

    return low == (void *)LOW_ADDRESS ? 0 : errno;
}

/* translate/spaces.c: 64 windows of 4 GiB, and guards of the same size; translate/landing.c. */
static int attempt_addresses(void)
{
    return mmap(NULL, 529ul << 30, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0) !=
                   MAP_FAILED
               ? 0
               : errno;
}

static int attempt_memfd(void)
{
    return memfd_create("ring3-probe", MFD_CLOEXEC) >= 0 ? 0 : errno;
}

/* ---- the readings -------------------------------------------------------------------------------------- */

static long read_number(const char *path)
{
    FILE *file = fopen(path, "re");
    long value = -1;

    if (file != NULL) {
        if (fscanf(file, "%ld", &value) != 1)
            value = -1;
        fclose(file);
    }
    return value;
}

static void describe_number(struct host_probe *probe, long value)
{
    if (value < 0)
        snprintf(probe->detail, sizeof probe->detail, "cannot be read; taken as good");
    else
        snprintf(probe->detail, sizeof probe->detail, "%ld", value);
}

static void read_min_addr(struct host_probe *probe)
{
    long value = read_number("/proc/sys/vm/mmap_min_addr");

    probe->is_available = value <= LOW_ADDRESS;
    describe_number(probe, value);
}

static void read_map_count(struct host_probe *probe)
{
    long value = read_number("/proc/sys/vm/max_map_count");

    probe->is_available = value < 0 || value >= DEFAULT_MAP_COUNT;
    describe_number(probe, value);
}

static void read_fsgsbase(struct host_probe *probe)
{
    probe->is_available = (getauxval(AT_HWCAP2) & HWCAP2_FSGSBASE_BIT) != 0;
    snprintf(probe->detail, sizeof probe->detail, "%s", probe->is_available ? "wrfsbase" : "arch_prctl");
}

static void read_umip(struct host_probe *probe)
{
    FILE *file = fopen("/proc/cpuinfo", "re");
    char *line = NULL;
    size_t size = 0;

    probe->is_available = false;
    while (file != NULL && getline(&line, &size, file) > 0)
        if (strncmp(line, "flags", 5) == 0 && strstr(line, " umip") != NULL) {
            probe->is_available = true;
            break;
        }
    free(line);
    if (file != NULL)
        fclose(file);
    snprintf(probe->detail, sizeof probe->detail, "%s",
             probe->is_available ? "the host kernel answers sgdt, sidt, sldt, str, smsw with made-up values"
                                 : "sgdt, sidt, sldt, str, smsw read the host's own registers");
}

static const struct {
    const char *name;
    bool is_required, is_needed_by_translate;
    int (*attempt)(void); /* in a child */
    void (*read)(struct host_probe *probe);
    const char *consequence;
} probe_table[] = {
    {"compat mode", true, false, attempt_compat_mode, NULL, "32-bit code cannot run: no trap engine"},
    {"modify_ldt", true, false, attempt_modify_ldt, NULL,
     "guest segments cannot be mirrored: no trap engine"},
    {"low 8 GiB", true, false, attempt_window, NULL, "the guest's window cannot be reserved: no trap engine"},
    {"529 GiB of space", false, true, attempt_addresses, NULL,
     "windows cannot be reserved (a limit on address space? `ulimit -v`): no translate engine"},
    {"memfd", true, true, attempt_memfd, NULL, "guest RAM cannot be shared between mappings"},
    {"seccomp filter", true, true, attempt_seccomp, NULL,
     "the guest's int 0x80 would reach the host kernel: no trap engine"},
    {"TSC faulting", true, false, attempt_tsc_fault, NULL, "rdtsc would read the host's counter"},
    {"CPUID faulting", false, false, attempt_cpuid_fault, NULL, "cpuid is a hole: --holes patch closes it"},
    {"userfaultfd", false, false, attempt_userfaultfd, NULL,
     "page tables are write-protected by mprotect, which splits mappings"},
    {"FSGSBASE", false, false, NULL, read_fsgsbase, "each trap costs one more system call"},
    {"UMIP", false, false, NULL, read_umip,
     "unpatched guests can read the host's descriptor-table addresses"},
    {"vm.mmap_min_addr", true, false, NULL, read_min_addr, "the guest's window begins at host address 65536"},
    {"vm.max_map_count", false, false, NULL, read_map_count,
     "fewer shadow mappings at a time: guests with many page tables run slower"},
};

size_t signals_probe_host(struct host_probe *probes, size_t max)
{
    size_t n = 0;

    for (size_t i = 0; i < sizeof probe_table / sizeof probe_table[0] && n < max; i++, n++) {
        probes[n] = (struct host_probe){.name = probe_table[i].name,
                                        .is_required = probe_table[i].is_required,
                                        .is_needed_by_translate = probe_table[i].is_needed_by_translate,
                                        .consequence = probe_table[i].consequence};
        if (probe_table[i].attempt != NULL)
            describe(&probes[n], in_child(probe_table[i].attempt));
        else
            probe_table[i].read(&probes[n]);
    }
    return n;
}
