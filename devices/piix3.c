/* piix3: see piix3.h. Names are the 82371SB data sheet's. Read next: board.c (isa_set_irq). */
#include "devices/piix3.h"

#include "vcpu/fail.h"

#define PIRQ_OFF 0x80u
#define PIRQ_IRQ 0x0fu

static const struct pci_register registers[] = {
    {PCI_VENDOR_ID, 4, 0x70008086, 0, 0},
    {PCI_COMMAND, 2, PCI_COMMAND_IO | PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER, 0x0008, 0},
    {PCI_STATUS, 2, PCI_STATUS_MEDIUM, 0, PCI_STATUS_ERRORS},
    {PCI_REVISION, 4, 0x06010000, 0, 0},
    {PCI_HEADER_TYPE, 1, PCI_HEADER_MULTI, 0, 0},
    {0x4c, 1, 0x4d, 0xff, 0},                         /* IORT */
    {0x4e, 2, 0x0003, 0xffff, 0},                     /* XBCS */
    {PIIX3_PIRQ_ROUTE, 4, 0x80808080, 0x8f8f8f8f, 0}, /* PIRQRC[A:D] */
    {0x69, 1, 0x02, 0xfe, 0},                         /* TOM */
    {0x6a, 2, 0, 0x8091, 0},                          /* MSTAT */
    {0x70, 2, 0x8080, 0xcfcf, 0},                     /* MBIRQ0-1 */
    {0x76, 2, 0x0c0c, 0x8f8f, 0},                     /* MBDMA0-1 */
    {0x78, 2, 0x0002, 0xffff, 0},                     /* PCSC */
    {0x80, 1, 0, 0x7f, 0},                            /* APICBASE */
    {0x82, 1, 0, 0x0f, 0},                            /* DLC */
    {0xa0, 1, 0x08, 0x1f, 0},                         /* SMICNTL */
    {0xa2, 2, 0, 0x01ff, 0},                          /* SMIEN */
    {0xa4, 4, 0, 0xffffffff, 0},                      /* SEE */
    {0xa8, 1, 0x0f, 0xff, 0},                         /* FTMR */
    {0xaa, 2, 0, 0, 0x01ff},                          /* SMIREQ */
    {0xac, 1, 0, 0xff, 0},                            /* CTLTMR */
    {0xae, 1, 0, 0xff, 0},                            /* CTHTMR */
};

/* ISA lines that must be high now. Table "PIRQRC": IRQ 0, 1, 2, 8 and 13 are reserved. */
static uint16_t wanted_lines(const struct piix3 *bridge)
{
    const uint16_t reserved = 1u << 0 | 1u << 1 | 1u << 2 | 1u << 8 | 1u << 13;
    uint16_t wanted = 0;

    for (unsigned pirq = 0; pirq < PCI_INTX_PINS; pirq++) {
        uint8_t route = bridge->function.config[PIIX3_PIRQ_ROUTE + pirq];

        if (bridge->asserted[pirq] != 0 && !(route & PIRQ_OFF))
            wanted |= (uint16_t)(1u << (route & PIRQ_IRQ));
    }
    return wanted & (uint16_t)~reserved;
}

static void drive(struct piix3 *bridge)
{
    uint16_t wanted = wanted_lines(bridge), changed = wanted ^ bridge->driven;

    bridge->driven = wanted;
    for (unsigned irq = 0; irq < 16; irq++)
        if (changed >> irq & 1)
            bridge->set_isa(bridge->ctx, irq, wanted >> irq & 1);
}

unsigned piix3_pirq_of(unsigned slot, unsigned pin)
{
    return (slot + pin + PCI_INTX_PINS - 1) % PCI_INTX_PINS;
}

void piix3_set_intx(struct piix3 *bridge, unsigned slot, unsigned pin, bool level)
{
    uint32_t *asserted = &bridge->asserted[piix3_pirq_of(slot, pin)];

    BUG_ON(slot >= PCI_SLOTS || pin >= PCI_INTX_PINS);
    *asserted = (*asserted & ~(1u << slot)) | (uint32_t)level << slot;
    drive(bridge);
}

static void piix3_written(void *ctx, unsigned offset, unsigned size)
{
    (void)offset;
    (void)size;
    drive(ctx);
}

void piix3_reset(struct piix3 *bridge)
{
    pci_function_reset(&bridge->function);
    drive(bridge);
}

void piix3_route_pirqs(struct piix3 *bridge)
{
    pci_write_config(&bridge->function, PIIX3_PIRQ_ROUTE, 4, 0x0b0b0a0a);
}

void piix3_init(struct piix3 *bridge, void (*set_isa)(void *ctx, unsigned irq, bool level), void *ctx)
{
    *bridge = (struct piix3){.set_isa = set_isa, .ctx = ctx};
    pci_function_init(&bridge->function, registers, sizeof registers / sizeof registers[0], piix3_written,
                      bridge);
}
