/*
 * The VGA's registers and what the screen shows. Sections named are those of the IBM PS/2 Hardware Interface
 * Technical Reference, "Video Subsystem". Read next: vga_memory.c.
 */
#include "devices/vga_internal.h"

#include <string.h>

/* Ports, from VGA_PORT_FIRST */
#define PORT_ATTR_WRITE   0x0 /* index and data in turn */
#define PORT_ATTR_READ    0x1
#define PORT_MISC_WRITE   0x2 /* read: input status 0 */
#define PORT_SEQ_INDEX    0x4
#define PORT_SEQ_DATA     0x5
#define PORT_DAC_MASK     0x6
#define PORT_DAC_READ     0x7 /* index to read from; read: state */
#define PORT_DAC_WRITE    0x8 /* index to write to */
#define PORT_DAC_DATA     0x9
#define PORT_FEATURE_READ 0xa
#define PORT_MISC_READ    0xc
#define PORT_GFX_INDEX    0xe
#define PORT_GFX_DATA     0xf

#define MISC_COLOUR_PORTS                                                                                    \
    0x01 /* the CRTC and input status 1 are at 3Dx; else at 3Bx, which is not wired here */

#define STATUS0_SWITCH_SENSE 0x10 /* a colour display is attached */

#define CRTC_CURSOR_START  0x0a
#define CRTC_START_HIGH    0x0c
#define CRTC_START_LOW     0x0d
#define CRTC_CURSOR_HIGH   0x0e
#define CRTC_CURSOR_LOW    0x0f
#define CRTC_OVERFLOW      0x07
#define CRTC_RETRACE_END   0x11
#define CURSOR_OFF         0x20 /* in CRTC_CURSOR_START */
#define CRTC_PROTECTED     0x80 /* in CRTC_RETRACE_END: registers 0-7 are read-only, ... */
#define OVERFLOW_WRITABLE  0x10 /* ... but for the line compare bit of CRTC_OVERFLOW */
#define ATTR_INDEX         0x1f
#define ATTR_PALETTE_OWNED 0x20 /* the display uses the palette: the CPU cannot write it */
#define ATTR_PALETTE_SIZE  16

/* ---- the screen -------------------------------------------------------------------------------------- */

static void screen_changed(struct vga *vga)
{
    vga->generation++;
    vga->screen_changed(vga->ctx);
}

static uint16_t crtc_word(const struct vga *vga, unsigned high)
{
    return (uint16_t)(vga->crtc[high] << 8 | vga->crtc[high + 1]);
}

/* In text mode the CRTC counts characters and addresses memory in word mode: the counter, rotated left by
 * one. So characters stand at the even addresses that the odd/even mode of the CPU side writes. */
static uint16_t address_of_character(uint16_t counter)
{
    return (uint16_t)(counter << 1 | counter >> 15);
}

static uint16_t character_at_address(uint16_t address)
{
    return (uint16_t)(address >> 1 | address << 15);
}

static bool refresh_cell(struct vga *vga, unsigned cell)
{
    uint16_t address = address_of_character((uint16_t)(crtc_word(vga, CRTC_START_HIGH) + cell));
    uint8_t *shown = vga->cells[cell];

    if (shown[0] == vga->plane[0][address] && shown[1] == vga->plane[1][address])
        return false;
    shown[0] = vga->plane[0][address];
    shown[1] = vga->plane[1][address];
    return true;
}

void vga_memory_changed(struct vga *vga, uint16_t address)
{
    unsigned cell = (uint16_t)(character_at_address(address) - crtc_word(vga, CRTC_START_HIGH));

    if (cell < VGA_CELLS && refresh_cell(vga, cell))
        screen_changed(vga);
}

static void refresh_screen(struct vga *vga)
{
    for (unsigned cell = 0; cell < VGA_CELLS; cell++)
        refresh_cell(vga, cell);
}

void vga_get_screen(const struct vga *vga, struct screen *screen)
{
    unsigned cursor = (uint16_t)(crtc_word(vga, CRTC_CURSOR_HIGH) - crtc_word(vga, CRTC_START_HIGH));
    bool is_visible = cursor < VGA_CELLS && !(vga->crtc[CRTC_CURSOR_START] & CURSOR_OFF);

    *screen = (struct screen){
        .columns = VGA_COLUMNS,
        .rows = VGA_ROWS,
        .cursor_column = is_visible ? cursor % VGA_COLUMNS : VGA_COLUMNS,
        .cursor_row = is_visible ? cursor / VGA_COLUMNS : VGA_ROWS,
        .cells = vga->cells[0],
        .generation = vga->generation,
    };
}

/* ---- CRT controller ---------------------------------------------------------------------------------- */

static void write_crtc(struct vga *vga, unsigned index, uint8_t value)
{
    if (index >= VGA_CRTC_COUNT)
        return;
    if (index <= CRTC_OVERFLOW && (vga->crtc[CRTC_RETRACE_END] & CRTC_PROTECTED)) {
        if (index != CRTC_OVERFLOW)
            return;
        value = (uint8_t)((vga->crtc[index] & ~OVERFLOW_WRITABLE) | (value & OVERFLOW_WRITABLE));
    }
    if (vga->crtc[index] == value)
        return;
    vga->crtc[index] = value;
    if (index == CRTC_START_HIGH || index == CRTC_START_LOW)
        refresh_screen(vga);
    else if (index != CRTC_CURSOR_START && index != CRTC_CURSOR_HIGH && index != CRTC_CURSOR_LOW)
        return;
    screen_changed(vga);
}

static uint32_t vga_crtc_read(void *device, uint32_t offset, unsigned size)
{
    const struct vga *vga = device;

    (void)size; /* always 1 */
    if (!(vga->misc & MISC_COLOUR_PORTS))
        return 0xff;
    if (offset == 0)
        return vga->crtc_index;
    return vga->crtc_index < VGA_CRTC_COUNT ? vga->crtc[vga->crtc_index] : 0;
}

static void vga_crtc_write(void *device, uint32_t offset, unsigned size, uint32_t value)
{
    struct vga *vga = device;

    (void)size;
    if (!(vga->misc & MISC_COLOUR_PORTS))
        return;
    if (offset == 0)
        vga->crtc_index = (uint8_t)value;
    else
        write_crtc(vga, vga->crtc_index, (uint8_t)value);
}

const struct bus_device_ops vga_crtc_ops = {.read = vga_crtc_read, .write = vga_crtc_write, .max_size = 1};

/* ---- input status 1, feature control ----------------------------------------------------------------- */

/* The timing of mode 3: 449 lines of 31.78 us, 400 of them displayed, 720 of 900 dots displayed in each. */
#define LINE_NS            31778u
#define LINE_DISPLAYED_NS  25422u
#define FRAME_LINES        449u
#define DISPLAYED_LINES    400u
#define RETRACE_FIRST_LINE 412u
#define RETRACE_LINES      2u

#define STATUS1_DISPLAY_OFF      0x01
#define STATUS1_VERTICAL_RETRACE 0x08

static uint32_t vga_status_read(void *device, uint32_t offset, unsigned size)
{
    struct vga *vga = device;

    (void)offset;
    (void)size;
    if (!(vga->misc & MISC_COLOUR_PORTS))
        return 0xff;
    vga->attr_expects_data = false; /* reading resets the flip-flop */

    uint64_t now = clock_now(vga->clock);
    unsigned line = (unsigned)(now / LINE_NS % FRAME_LINES);
    uint32_t status = 0;
    if (line >= DISPLAYED_LINES || now % LINE_NS >= LINE_DISPLAYED_NS)
        status |= STATUS1_DISPLAY_OFF;
    if (line >= RETRACE_FIRST_LINE && line < RETRACE_FIRST_LINE + RETRACE_LINES)
        status |= STATUS1_VERTICAL_RETRACE;
    return status;
}

static void vga_status_write(void *device, uint32_t offset, unsigned size, uint32_t value)
{
    struct vga *vga = device;

    (void)offset;
    (void)size;
    if (vga->misc & MISC_COLOUR_PORTS)
        vga->feature = (uint8_t)value;
}

const struct bus_device_ops vga_status_ops = {
    .read = vga_status_read, .write = vga_status_write, .max_size = 1};

/* ---- attribute controller, DAC ----------------------------------------------------------------------- */

static void write_attr(struct vga *vga, uint8_t value)
{
    unsigned index = vga->attr_index & ATTR_INDEX;

    vga->attr_expects_data = !vga->attr_expects_data;
    if (vga->attr_expects_data) /* this was the index */
        vga->attr_index = value;
    else if (index < VGA_ATTR_COUNT &&
             (index >= ATTR_PALETTE_SIZE || !(vga->attr_index & ATTR_PALETTE_OWNED)))
        vga->attr[index] = value;
}

static uint8_t read_attr(const struct vga *vga)
{
    unsigned index = vga->attr_index & ATTR_INDEX;
    return index < VGA_ATTR_COUNT ? vga->attr[index] : 0;
}

static void select_colour(struct vga *vga, uint8_t index, bool is_reading)
{
    vga->dac_index = index;
    vga->dac_component = 0;
    vga->dac_reading = is_reading;
}

static void advance_dac(struct vga *vga)
{
    if (++vga->dac_component == 3) {
        vga->dac_component = 0;
        vga->dac_index++; /* wraps at 256 */
    }
}

static uint8_t read_dac(struct vga *vga)
{
    uint8_t value = vga->dac[vga->dac_index][vga->dac_component];
    advance_dac(vga);
    return value;
}

static void write_dac(struct vga *vga, uint8_t value)
{
    vga->dac_staged[vga->dac_component] = value & 0x3f; /* six bits a colour */
    if (vga->dac_component == 2)
        memcpy(vga->dac[vga->dac_index], vga->dac_staged, 3);
    advance_dac(vga);
}

/* ---- ports 3C0-3CF ----------------------------------------------------------------------------------- */

static uint32_t vga_port_read(void *device, uint32_t offset, unsigned size)
{
    struct vga *vga = device;

    (void)size; /* always 1 */
    switch (offset) {
    case PORT_ATTR_WRITE:
        return vga->attr_index;
    case PORT_ATTR_READ:
        return read_attr(vga);
    case PORT_MISC_WRITE:
        return STATUS0_SWITCH_SENSE;
    case PORT_SEQ_INDEX:
        return vga->seq_index;
    case PORT_SEQ_DATA:
        return vga->seq_index < VGA_SEQ_COUNT ? vga->seq[vga->seq_index] : 0;
    case PORT_DAC_MASK:
        return vga->dac_mask;
    case PORT_DAC_READ:
        return vga->dac_reading ? 3 : 0;
    case PORT_DAC_WRITE:
        return vga->dac_index;
    case PORT_DAC_DATA:
        return read_dac(vga);
    case PORT_FEATURE_READ:
        return vga->feature;
    case PORT_MISC_READ:
        return vga->misc;
    case PORT_GFX_INDEX:
        return vga->gfx_index;
    case PORT_GFX_DATA:
        return vga->gfx_index < VGA_GFX_COUNT ? vga->gfx[vga->gfx_index] : 0;
    }
    return 0xff; /* nothing answers */
}

static void vga_port_write(void *device, uint32_t offset, unsigned size, uint32_t value)
{
    struct vga *vga = device;
    uint8_t byte = (uint8_t)value;

    (void)size;
    switch (offset) {
    case PORT_ATTR_WRITE:
        write_attr(vga, byte);
        break;
    case PORT_MISC_WRITE:
        vga->misc = byte;
        break;
    case PORT_SEQ_INDEX:
        vga->seq_index = byte;
        break;
    case PORT_SEQ_DATA:
        if (vga->seq_index < VGA_SEQ_COUNT)
            vga->seq[vga->seq_index] = byte;
        break;
    case PORT_DAC_MASK:
        vga->dac_mask = byte;
        break;
    case PORT_DAC_READ:
        select_colour(vga, byte, true);
        break;
    case PORT_DAC_WRITE:
        select_colour(vga, byte, false);
        break;
    case PORT_DAC_DATA:
        write_dac(vga, byte);
        break;
    case PORT_GFX_INDEX:
        vga->gfx_index = byte;
        break;
    case PORT_GFX_DATA:
        if (vga->gfx_index < VGA_GFX_COUNT)
            vga->gfx[vga->gfx_index] = byte;
        break;
    default:
        break;
    }
}

const struct bus_device_ops vga_port_ops = {.read = vga_port_read, .write = vga_port_write, .max_size = 1};

/* ---- reset ------------------------------------------------------------------------------------------- */

/* Mode 3 as the video BIOS sets it: IBM PS/2 BIOS Interface Technical Reference, "Video Parameters". */
static const uint8_t mode3_crtc[VGA_CRTC_COUNT] = {0x5f, 0x4f, 0x50, 0x82, 0x55, 0x81, 0xbf, 0x1f, 0x00,
                                                   0x4f, 0x0d, 0x0e, 0x00, 0x00, 0x00, 0x00, 0x9c, 0x8e,
                                                   0x8f, 0x28, 0x1f, 0x96, 0xb9, 0xa3, 0xff};
static const uint8_t mode3_seq[VGA_SEQ_COUNT] = {0x03, 0x00, 0x03, 0x00, 0x02};
static const uint8_t mode3_gfx[VGA_GFX_COUNT] = {0x00, 0x00, 0x00, 0x00, 0x00, 0x10, 0x0e, 0x00, 0xff};
static const uint8_t mode3_attr[VGA_ATTR_COUNT] = {0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x14,
                                                   0x07, 0x38, 0x39, 0x3a, 0x3b, 0x3c, 0x3d,
                                                   0x3e, 0x3f, 0x0c, 0x00, 0x0f, 0x08, 0x00};
static const uint8_t mode3_misc = 0x67;

/* The 64 colours of mode 3: bits rgbRGB, a third and two thirds of full intensity. */
static void set_default_colours(struct vga *vga)
{
    memset(vga->dac, 0, sizeof(vga->dac));
    for (unsigned colour = 0; colour < 64; colour++)
        for (unsigned component = 0; component < 3; component++)
            vga->dac[colour][component] = (uint8_t)((colour >> (2 - component) & 1 ? 0x2a : 0) +
                                                    (colour >> (5 - component) & 1 ? 0x15 : 0));
}

static void set_power_on_state(struct vga *vga)
{
    memset(vga->plane, 0, sizeof(vga->plane));
    for (unsigned address = 0; address < 0x8000; address += 2) {
        vga->plane[0][address] = ' ';
        vga->plane[1][address] = 0x07; /* grey on black */
    }
    memset(vga->latch, 0, sizeof(vga->latch));
    memcpy(vga->crtc, mode3_crtc, sizeof(vga->crtc));
    memcpy(vga->seq, mode3_seq, sizeof(vga->seq));
    memcpy(vga->gfx, mode3_gfx, sizeof(vga->gfx));
    memcpy(vga->attr, mode3_attr, sizeof(vga->attr));
    vga->misc = mode3_misc;
    vga->feature = 0;
    vga->crtc_index = vga->seq_index = vga->gfx_index = 0;
    vga->attr_index = ATTR_PALETTE_OWNED;
    vga->attr_expects_data = false;
    vga->dac_mask = 0xff;
    select_colour(vga, 0, false);
    memset(vga->dac_staged, 0, sizeof(vga->dac_staged));
    set_default_colours(vga);
    refresh_screen(vga);
}

void vga_reset(struct vga *vga)
{
    set_power_on_state(vga);
    screen_changed(vga);
}

void vga_init(struct vga *vga, struct clock *clock, void (*on_screen_changed)(void *ctx), void *ctx)
{
    memset(vga, 0, sizeof(*vga));
    vga->clock = clock;
    vga->screen_changed = on_screen_changed;
    vga->ctx = ctx;
    set_power_on_state(vga); /* and no call out: the surroundings may not be ready */
}
