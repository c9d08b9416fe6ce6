/* i440fx: see i440fx.h. Names are the 82441FX data sheet's. Read next: shadowpt/memory.c, which maps what PAM
 * says. */
#include "devices/i440fx.h"

#define PAM_REGISTERS 7
#define PAM_READ      1u
#define PAM_WRITE     2u
#define PAM_WRITABLE  0x33u

static const struct pci_register registers[] = {
    {PCI_VENDOR_ID, 4, 0x12378086, 0, 0},
    {PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER, 0x0100, 0},
    {PCI_STATUS, 2, PCI_STATUS_BACK | PCI_STATUS_MEDIUM, 0, PCI_STATUS_ERRORS},
    {PCI_REVISION, 4, 0x06000002, 0, 0},
    {PCI_LATENCY_TIMER, 1, 0, 0xf8, 0},
    {0x0f, 1, 0, 0, 0},                    /* BIST */
    {0x50, 2, 0, 0xffff, 0},               /* PMCCFG */
    {0x52, 1, 0, 0xff, 0},                 /* DETURBO */
    {0x53, 1, 0x80, 0xff, 0},              /* DBC */
    {0x54, 1, 0, 0xff, 0},                 /* AXC */
    {0x55, 2, 0, 0xffff, 0},               /* DRT */
    {0x57, 2, 0x1001, 0xffff, 0},          /* DRAMC, DRAMT */
    {I440FX_PAM, 1, 0, 0x30, 0},           /* PAM0: F0000-FFFFF in its upper half */
    {I440FX_PAM + 1, 2, 0, 0x3333, 0},     /* PAM1-2: 16 KiB each half, from C0000 on */
    {I440FX_PAM + 3, 4, 0, 0x33333333, 0}, /* PAM3-6 */
    {0x60, 4, 0x01010101, 0xffffffff, 0},  /* DRB0-3 */
    {0x64, 4, 0x01010101, 0xffffffff, 0},  /* DRB4-7 */
    {0x68, 1, 0, 0xff, 0},                 /* FDHC */
    {0x70, 1, 0, 0xff, 0},                 /* MTT */
    {0x71, 1, 0x10, 0xff, 0},              /* CLT */
    {0x72, 1, 0x1a, 0, 0},                 /* SMRAM: enabled, and locked by D_LCK */
    {0x90, 1, 0, 0x1b, 0},                 /* ERRCMD */
    {0x91, 1, 0, 0, 0x11},                 /* ERRSTS */
};

static void apply(const struct i440fx *bridge, uint32_t gpa, uint32_t size, unsigned attributes)
{
    bridge->host->shadow_ram(bridge->host->ctx, gpa, size, attributes & PAM_READ, attributes & PAM_WRITE);
}

/* PAM0 has F0000-FFFFF in its upper half; PAM1-6 have two parts of 16 KiB each, the lower one in the lower
 * half. */
static void apply_pam(const struct i440fx *bridge, unsigned index)
{
    unsigned pam = bridge->function.config[I440FX_PAM + index];
    uint32_t gpa = 0xc0000 + (index - 1) * 0x8000;

    if (index == 0) {
        apply(bridge, 0xf0000, 0x10000, pam >> 4);
        return;
    }
    apply(bridge, gpa, 0x4000, pam);
    apply(bridge, gpa + 0x4000, 0x4000, pam >> 4);
}

static void i440fx_written(void *ctx, unsigned offset, unsigned size)
{
    for (unsigned i = 0; i < PAM_REGISTERS; i++)
        if (pci_covers(offset, size, I440FX_PAM + i))
            apply_pam(ctx, i);
}

void i440fx_reset(struct i440fx *bridge)
{
    pci_function_reset(&bridge->function);
    for (unsigned i = 0; i < PAM_REGISTERS; i++)
        apply_pam(bridge, i);
}

void i440fx_shadow_bios_area(struct i440fx *bridge)
{
    for (unsigned i = 0; i < PAM_REGISTERS; i++)
        pci_write_config(&bridge->function, I440FX_PAM + i, 1, PAM_WRITABLE & (PAM_READ << 4 | PAM_READ));
}

void i440fx_init(struct i440fx *bridge, const struct board_host *host)
{
    *bridge = (struct i440fx){.host = host};
    pci_function_init(&bridge->function, registers, sizeof registers / sizeof registers[0], i440fx_written,
                      bridge);
}
