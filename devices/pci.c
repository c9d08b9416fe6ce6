/*
 * pci: see pci.h. Section numbers are those of the PCI Local Bus Specification 2.1.
 *
 * Read next: i440fx.c, piix3.c, piix4_pm.c: the functions of this board.
 */
#include "devices/pci.h"

#include "vcpu/fail.h"

#include <string.h>

/* 3.7.4.1: CONFIG_ADDRESS */
#define ADDRESS_ENABLE    0x80000000u
#define ADDRESS_BUS(a)    ((a) >> 16 & 0xff)
#define ADDRESS_SLOT(a)   ((a) >> 11 & 0x1f)
#define ADDRESS_NUMBER(a) ((a) >> 8 & 7)
#define ADDRESS_REGISTER  0xfcu
#define ADDRESS_WRITABLE  0x80fffffcu

#define DATA_PORT 4 /* CONFIG_DATA, from the first port */

static uint32_t ones(unsigned size)
{
    return size == 4 ? UINT32_MAX : (1u << 8 * size) - 1;
}

/* ---- a function's registers ---------------------------------------------------------------------------- */

static uint8_t byte_of(uint32_t value, const struct pci_register *reg, unsigned offset)
{
    return (uint8_t)(value >> 8 * (offset - reg->offset));
}

static const struct pci_register *register_at(const struct pci_function *function, unsigned offset)
{
    for (unsigned i = 0; i < function->n_registers; i++) {
        const struct pci_register *reg = &function->registers[i];

        if (offset >= reg->offset && offset < (unsigned)reg->offset + reg->size)
            return reg;
    }
    return NULL;
}

void pci_function_reset(struct pci_function *function)
{
    memset(function->config, 0, sizeof function->config);
    for (unsigned i = 0; i < function->n_registers; i++)
        for (unsigned byte = 0; byte < function->registers[i].size; byte++)
            function->config[function->registers[i].offset + byte] =
                (uint8_t)(function->registers[i].reset >> 8 * byte);
}

void pci_function_init(struct pci_function *function, const struct pci_register *registers,
                       unsigned n_registers, void (*written)(void *ctx, unsigned offset, unsigned size),
                       void *ctx)
{
    *function = (struct pci_function){
        .registers = registers, .n_registers = n_registers, .written = written, .ctx = ctx};
    pci_function_reset(function);
}

uint32_t pci_read_config(const struct pci_function *function, unsigned offset, unsigned size)
{
    uint32_t value = 0;

    BUG_ON(offset + size > PCI_CONFIG_SIZE);
    memcpy(&value, function->config + offset, size);
    return value;
}

void pci_write_config(struct pci_function *function, unsigned offset, unsigned size, uint32_t value)
{
    BUG_ON(offset + size > PCI_CONFIG_SIZE);
    for (unsigned i = offset; i < offset + size; i++) {
        const struct pci_register *reg = register_at(function, i);
        uint8_t byte = (uint8_t)(value >> 8 * (i - offset));

        if (reg == NULL)
            continue;
        uint8_t writable = byte_of(reg->writable, reg, i), clears = byte_of(reg->clears, reg, i);

        function->config[i] = (uint8_t)((function->config[i] & ~writable) | (byte & writable));
        function->config[i] &= (uint8_t) ~(byte & clears);
    }
    if (function->written != NULL)
        function->written(function->ctx, offset, size);
}

bool pci_covers(unsigned offset, unsigned size, unsigned reg)
{
    return reg >= offset && reg < offset + size;
}

/* ---- configuration mechanism 1 ------------------------------------------------------------------------- */

static struct pci_function *addressed(const struct pci_bus *pci)
{
    if (!(pci->address & ADDRESS_ENABLE) || ADDRESS_BUS(pci->address) != 0)
        return NULL;
    return pci->function[ADDRESS_SLOT(pci->address)][ADDRESS_NUMBER(pci->address)];
}

/* CONFIG_ADDRESS is a register of 32 bits only; narrower accesses there pass it by. A configuration read that
 * no function answers ends in master abort: ones (3.7.4.1 and 6.1). */
static uint32_t config_read(void *device, uint32_t offset, unsigned size)
{
    const struct pci_bus *pci = device;
    const struct pci_function *function = addressed(pci);

    if (offset < DATA_PORT)
        return offset == 0 && size == 4 ? pci->address : ones(size);
    if (function == NULL)
        return ones(size);
    return pci_read_config(function, (pci->address & ADDRESS_REGISTER) + offset - DATA_PORT, size);
}

static void config_write(void *device, uint32_t offset, unsigned size, uint32_t value)
{
    struct pci_bus *pci = device;
    struct pci_function *function = addressed(pci);

    if (offset < DATA_PORT) {
        if (offset == 0 && size == 4)
            pci->address = value & ADDRESS_WRITABLE;
    } else if (function != NULL) {
        pci_write_config(function, (pci->address & ADDRESS_REGISTER) + offset - DATA_PORT, size, value);
    }
}

/* An access that runs over the end of CONFIG_ADDRESS is two, as on any bus of 32 bits. */
static bool is_split(uint32_t offset, unsigned size)
{
    return offset < DATA_PORT && offset + size > DATA_PORT;
}

static uint32_t pci_read(void *device, uint32_t offset, unsigned size)
{
    unsigned half = size / 2;

    if (!is_split(offset, size))
        return config_read(device, offset, size);
    return pci_read(device, offset, half) | pci_read(device, offset + half, half) << (size == 4 ? 16 : 8);
}

static void pci_write(void *device, uint32_t offset, unsigned size, uint32_t value)
{
    if (!is_split(offset, size)) {
        config_write(device, offset, size, value);
        return;
    }
    pci_write(device, offset, size / 2, value & ones(size / 2));
    pci_write(device, offset + size / 2, size / 2, value >> (size == 4 ? 16 : 8));
}

const struct bus_device_ops pci_config_ops = {.read = pci_read, .write = pci_write, .max_size = 4};

void pci_reset(struct pci_bus *pci)
{
    pci->address = 0;
}

void pci_init(struct pci_bus *pci)
{
    *pci = (struct pci_bus){0};
}

void pci_plug(struct pci_bus *pci, unsigned slot, unsigned number, struct pci_function *function)
{
    BUG_ON(slot >= PCI_SLOTS || number >= PCI_FUNCTIONS || pci->function[slot][number] != NULL);
    pci->function[slot][number] = function;
}

/* ---- windows ------------------------------------------------------------------------------------------- */

void pci_window_move(struct pci_window *window, bool is_enabled, uint32_t base)
{
    if (window->is_open && (!is_enabled || base != window->base)) {
        bus_release(window->bus, window->space, window->base);
        window->is_open = false;
    }
    if (is_enabled && !window->is_open)
        window->is_open = bus_try_claim(window->bus, window->space, base, base + (window->size - 1),
                                        window->ops, window->device, window->name);
    window->base = base;
}
