/* debug_exit: see debug_exit.h. Read next: board.c. */
#include "devices/debug_exit.h"

static uint32_t debug_exit_read(void *device, uint32_t offset, unsigned size)
{
    (void)device;
    (void)offset;
    (void)size;
    return 0;
}

static void debug_exit_write(void *device, uint32_t offset, unsigned size, uint32_t value)
{
    const struct debug_exit *exit_device = device;
    (void)offset;
    (void)size;
    exit_device->host->debug_exit(exit_device->host->ctx, value);
}

const struct bus_device_ops debug_exit_ops = {
    .read = debug_exit_read, .write = debug_exit_write, .max_size = 4};

void debug_exit_init(struct debug_exit *device, const struct board_host *host)
{
    *device = (struct debug_exit){.host = host};
}
