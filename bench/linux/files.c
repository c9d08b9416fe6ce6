/* Files that are only memory: the system calls of input and output, and the kernel's copying. Read next:
 * main.c. */
#include "rows.h"
#include "system.h"

#define FILE_NAME  "/dev/shm/ring3-bench-linux" /* tmpfs, on the host and in the guest (main.c mounts it) */
#define FILE_PAGES 64u

static long file;
static uint8_t buffer[PAGE_SIZE];

static void prepare_file(uint32_t n)
{
    (void)n;
    file = must(system3(SYS_OPEN, (long)FILE_NAME, O_RDWR | O_CREAT, 0600), "open " FILE_NAME);
    system1(SYS_UNLINK, (long)FILE_NAME);
}

static void prepare_zero(uint32_t n)
{
    (void)n;
    file = must(system3(SYS_OPEN, (long)"/dev/zero", O_RDONLY, 0), "open /dev/zero");
}

static void finish_file(void)
{
    system1(SYS_CLOSE, file);
}

/* Writes each page in its turn; after the first turn they are there. */
static void run_write(uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        must(system4(SYS_PWRITE64, file, (long)buffer, PAGE_SIZE, (long)(i % FILE_PAGES * PAGE_SIZE)),
             "pwrite");
}

static void run_read_zero(uint32_t n)
{
    while (n-- > 0)
        must(system3(SYS_READ, file, (long)buffer, PAGE_SIZE), "read");
}

static void run_open(uint32_t n)
{
    while (n-- > 0)
        system1(SYS_CLOSE, must(system3(SYS_OPEN, (long)"/dev/zero", O_RDONLY, 0), "open /dev/zero"));
}

const struct measure file_measures[] = {
    {"write-tmpfs", prepare_file, run_write, finish_file, 0},
    {"read-zero", prepare_zero, run_read_zero, finish_file, 0},
    {"open-close", 0, run_open, 0, 0},
    {0, 0, 0, 0, 0},
};
