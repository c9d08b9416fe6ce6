/* chipset: see chipset.h. Read next: board.c. */
#include "devices/chipset.h"

#define PORT_92_FAST_RESET 0x01
#define PORT_92_A20        0x02
#define PORT_92_WRITABLE   0x03

#define RESET_CONTROL_HARD     0x02 /* kind of reset: all of them are the same here */
#define RESET_CONTROL_CPU      0x04 /* a rise resets */
#define RESET_CONTROL_FULL     0x08
#define RESET_CONTROL_WRITABLE (RESET_CONTROL_HARD | RESET_CONTROL_CPU | RESET_CONTROL_FULL)

/* ---- port 0x80 ----------------------------------------------------------------------------------------- */

static uint32_t post_read(void *device, uint32_t offset, unsigned size)
{
    const struct chipset *chipset = device;
    (void)offset;
    (void)size;
    return chipset->post_code;
}

static void post_write(void *device, uint32_t offset, unsigned size, uint32_t value)
{
    struct chipset *chipset = device;
    (void)offset;
    (void)size;
    chipset->post_code = (uint8_t)value;
}

const struct bus_device_ops chipset_post_ops = {.read = post_read, .write = post_write, .max_size = 1};

/* ---- port 0x92 ----------------------------------------------------------------------------------------- */

static uint32_t port_92_read(void *device, uint32_t offset, unsigned size)
{
    const struct chipset *chipset = device;
    (void)offset;
    (void)size;
    return chipset->port_92;
}

static void port_92_write(void *device, uint32_t offset, unsigned size, uint32_t value)
{
    struct chipset *chipset = device;
    uint8_t rising = value & ~chipset->port_92 & PORT_92_WRITABLE;
    (void)offset;
    (void)size;

    chipset->port_92 = value & PORT_92_WRITABLE;
    if (rising & PORT_92_FAST_RESET)
        chipset->host->reset(chipset->host->ctx, "port 0x92, fast reset");
}

const struct bus_device_ops chipset_port_92_ops = {
    .read = port_92_read, .write = port_92_write, .max_size = 1};

bool chipset_a20_enabled(const struct chipset *chipset)
{
    return chipset->port_92 & PORT_92_A20;
}

/* ---- port 0xCF9: it lies within the PCI configuration address, which is written as 32 bits ------------- */

static uint32_t reset_read(void *device, uint32_t offset, unsigned size)
{
    const struct chipset *chipset = device;
    (void)offset;
    (void)size;
    return chipset->reset_control;
}

static void reset_write(void *device, uint32_t offset, unsigned size, uint32_t value)
{
    struct chipset *chipset = device;
    uint8_t rising = value & ~chipset->reset_control & RESET_CONTROL_WRITABLE;
    (void)offset;
    (void)size;

    chipset->reset_control = value & RESET_CONTROL_WRITABLE;
    if (rising & RESET_CONTROL_CPU)
        chipset->host->reset(chipset->host->ctx, "port 0xCF9, reset control");
}

const struct bus_device_ops chipset_reset_ops = {
    .read = reset_read, .write = reset_write, .max_size = 1, .bytes_only = true};

/* A20 is open, as boot loaders leave it. */
void chipset_reset(struct chipset *chipset)
{
    *chipset = (struct chipset){.port_92 = PORT_92_A20, .host = chipset->host};
}

void chipset_init(struct chipset *chipset, const struct board_host *host)
{
    *chipset = (struct chipset){.host = host};
    chipset_reset(chipset);
}
