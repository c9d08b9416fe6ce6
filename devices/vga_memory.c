/*
 * The CPU's way to the four planes of display memory: address decoding, the write modes and the read modes of
 * the graphics controller (IBM PS/2 Hardware Interface Technical Reference, "Video Subsystem", "Graphics
 * Controller Registers"). Text is the case odd/even: characters in plane 0, attributes in plane 1.
 *
 * Read next: monitor/screen_lines.c, which shows the text.
 */
#include "devices/vga_internal.h"

#define MISC_RAM_ENABLED 0x02

#define SEQ_MEMORY_MODE_SEQUENTIAL 0x04 /* 0: odd/even */
#define SEQ_MEMORY_MODE_CHAIN4     0x08

#define GFX_MODE_WRITE        0x03
#define GFX_MODE_READ_COMPARE 0x08
#define GFX_MODE_ODD_EVEN     0x10

#define ALL_PLANES  0x0f
#define EVEN_PLANES 0x05

/* Which part of A0000-BFFFF the memory answers to: the miscellaneous register's memory map field. */
static const struct aperture {
    uint32_t first, size; /* from VGA_MEMORY_FIRST */
} apertures[4] = {{0x00000, 0x20000}, {0x00000, 0x10000}, {0x10000, 0x8000}, {0x18000, 0x8000}};

static bool is_in_aperture(const struct vga *vga, uint32_t offset, uint32_t *address)
{
    const struct aperture *aperture = &apertures[vga->gfx[GFX_MISC] >> 2 & 3];

    *address = offset - aperture->first;
    return (vga->misc & MISC_RAM_ENABLED) && offset >= aperture->first && *address < aperture->size;
}

/* All bits of a byte from one bit of a plane mask. */
static uint8_t expand(uint8_t mask, unsigned plane)
{
    return mask >> plane & 1 ? 0xff : 0;
}

static uint8_t rotate_right(uint8_t value, unsigned count)
{
    return (uint8_t)(value >> count | value << (8 - count));
}

static uint8_t combine(const struct vga *vga, uint8_t value, uint8_t latch)
{
    switch (vga->gfx[GFX_ROTATE] >> 3 & 3) {
    case 1:
        return value & latch;
    case 2:
        return value | latch;
    case 3:
        return value ^ latch;
    }
    return value;
}

/* What a CPU write of `value` stores in one plane. */
static uint8_t byte_for_plane(const struct vga *vga, unsigned plane, uint8_t value)
{
    uint8_t rotated = rotate_right(value, vga->gfx[GFX_ROTATE] & 7);
    uint8_t set_reset = expand(vga->gfx[GFX_SET_RESET], plane);
    uint8_t mask = vga->gfx[GFX_BIT_MASK];
    uint8_t latch = vga->latch[plane];
    uint8_t data = 0;

    switch (vga->gfx[GFX_MODE] & GFX_MODE_WRITE) {
    case 0:
        data = vga->gfx[GFX_ENABLE_SET_RESET] >> plane & 1 ? set_reset : rotated;
        break;
    case 1:
        return latch;
    case 2:
        data = expand(value, plane);
        break;
    case 3:
        data = set_reset;
        mask &= rotated;
        break;
    }
    return (combine(vga, data, latch) & mask) | (latch & ~mask);
}

static void vga_memory_write(void *device, uint32_t offset, unsigned size, uint32_t value)
{
    struct vga *vga = device;
    uint8_t planes = vga->seq[SEQ_MAP_MASK] & ALL_PLANES;
    uint32_t address;

    (void)size; /* always 1 */
    if (!is_in_aperture(vga, offset, &address))
        return;
    if (vga->seq[SEQ_MEMORY_MODE] & SEQ_MEMORY_MODE_CHAIN4) {
        planes &= 1u << (address & 3);
        address &= ~3u;
    } else if (!(vga->seq[SEQ_MEMORY_MODE] & SEQ_MEMORY_MODE_SEQUENTIAL)) {
        planes &= EVEN_PLANES << (address & 1);
        address &= ~1u;
    }
    address %= VGA_PLANE_SIZE;
    for (unsigned plane = 0; plane < VGA_PLANES; plane++)
        if (planes >> plane & 1)
            vga->plane[plane][address] = byte_for_plane(vga, plane, (uint8_t)value);
    if (planes & 3)
        vga_memory_changed(vga, (uint16_t)address);
}

/* Read mode 1: which pixels have the colour of the compare register, as far as its planes count. */
static uint8_t compare_colours(const struct vga *vga)
{
    uint8_t differences = 0;

    for (unsigned plane = 0; plane < VGA_PLANES; plane++)
        if (vga->gfx[GFX_COLOUR_DONT_CARE] >> plane & 1)
            differences |= vga->latch[plane] ^ expand(vga->gfx[GFX_COLOUR_COMPARE], plane);
    return (uint8_t)~differences;
}

static uint32_t vga_memory_read(void *device, uint32_t offset, unsigned size)
{
    struct vga *vga = device;
    unsigned plane = vga->gfx[GFX_READ_MAP] & 3;
    uint32_t address;

    (void)size; /* always 1 */
    if (!is_in_aperture(vga, offset, &address))
        return 0xff;
    if (vga->seq[SEQ_MEMORY_MODE] & SEQ_MEMORY_MODE_CHAIN4) {
        plane = address & 3;
        address &= ~3u;
    } else if (vga->gfx[GFX_MODE] & GFX_MODE_ODD_EVEN) {
        plane = (plane & 2) | (address & 1);
        address &= ~1u;
    }
    for (unsigned i = 0; i < VGA_PLANES; i++)
        vga->latch[i] = vga->plane[i][address % VGA_PLANE_SIZE];
    return vga->gfx[GFX_MODE] & GFX_MODE_READ_COMPARE ? compare_colours(vga) : vga->latch[plane];
}

const struct bus_device_ops vga_memory_ops = {
    .read = vga_memory_read, .write = vga_memory_write, .max_size = 1};
