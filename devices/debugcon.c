/* debugcon: see debugcon.h. Read next: board.c. */
#include "devices/debugcon.h"

static uint32_t debugcon_read(void *device, uint32_t offset, unsigned size)
{
    (void)device;
    (void)offset;
    (void)size;
    return DEBUGCON_PORT;
}

static void debugcon_write(void *device, uint32_t offset, unsigned size, uint32_t value)
{
    const struct debugcon *debugcon = device;
    uint8_t byte = (uint8_t)value;
    (void)offset;
    (void)size;
    debugcon->host->console_write(debugcon->host->ctx, &byte, 1);
}

const struct bus_device_ops debugcon_ops = {.read = debugcon_read, .write = debugcon_write, .max_size = 1};

void debugcon_init(struct debugcon *device, const struct board_host *host)
{
    *device = (struct debugcon){.host = host};
}
