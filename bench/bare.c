/*
 * The yardsticks of trapping and of mapping: the least that a Linux process pays for them. A privileged
 * instruction through a signal handler that steps over it; a fault on a page that the handler maps. Both
 * return by rt_sigreturn, as handlers do. Read next: native.c.
 */
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#include "bench/bench.h"
#include "vcpu/fail.h"
#include "vcpu/x86.h"

static void catch_faults(void (*handler)(int, siginfo_t *, void *))
{
    struct sigaction action = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO};

    if (sigaction(SIGSEGV, &action, NULL) != 0)
        die("sigaction");
}

/* ---- a trap -------------------------------------------------------------------------------------------- */

static void step_over(int signo, siginfo_t *info, void *context)
{
    ucontext_t *uc = context;

    (void)signo;
    (void)info;
    uc->uc_mcontext.gregs[REG_RIP]++;
}

void bare_trap_open(const struct side *side)
{
    (void)side;
    catch_faults(step_over);
}

uint32_t bare_trap_round(const struct side *side)
{
    for (uint32_t i = 0; i < side->n; i++)
        __asm__ volatile("hlt");
    return 0;
}

/* ---- a page -------------------------------------------------------------------------------------------- */

static struct {
    uint8_t *window;
    size_t size;
    int fd, protection;
} fill;

static void map_page(int signo, siginfo_t *info, void *context)
{
    uintptr_t page = (uintptr_t)info->si_addr & ~(uintptr_t)PAGE_MASK;
    uintptr_t offset = page - (uintptr_t)fill.window;

    (void)signo;
    (void)context;
    if (offset >= fill.size || mmap((void *)page, PAGE_SIZE, fill.protection, MAP_SHARED | MAP_FIXED, fill.fd,
                                    (off_t)offset) == MAP_FAILED)
        _exit(1);
}

void bare_fill_prepare(const struct side *side)
{
    (void)side;
    if (mmap(fill.window, fill.size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1,
             0) == MAP_FAILED)
        die("cannot empty the window");
}

/* The memory is there already, as the guest's is: what is measured is mapping it. */
void bare_fill_open(const struct side *side)
{
    void *all;

    fill.size = (size_t)side->n * side->stride * PAGE_SIZE;
    fill.fd = memfd_create("bare-fill", MFD_CLOEXEC);
    fill.protection = PROT_READ | PROT_EXEC | (side->entry == ENTRY_WRITE ? PROT_WRITE : 0);
    if (fill.fd < 0 || ftruncate(fill.fd, (off_t)fill.size) != 0)
        die("cannot create memory");
    all = mmap(NULL, fill.size, PROT_READ | PROT_WRITE, MAP_SHARED, fill.fd, 0);
    fill.window = mmap(NULL, fill.size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (all == MAP_FAILED || fill.window == MAP_FAILED)
        die("cannot map memory");
    memset(all, 1, fill.size);
    catch_faults(map_page);
}

uint32_t bare_fill_round(const struct side *side)
{
    size_t stride = (size_t)side->stride * PAGE_SIZE;
    volatile uint8_t *at = fill.window;

    for (uint32_t i = 0; i < side->n; i++, at += stride) {
        if (side->entry == ENTRY_WRITE)
            *at = 1;
        else
            (void)*at;
    }
    return 0;
}
