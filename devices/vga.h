/*
 * The VGA, as far as text goes: IBM PS/2 Hardware Interface Technical Reference, "Video Subsystem". All
 * registers and the four 64 KiB planes of display memory with the full CPU data path are there (so fonts can
 * be loaded and read back); what is shown is the 80x25 text page at the CRTC's start address. A guest that
 * sets a graphics mode gets its memory and no picture.
 *
 * No video BIOS runs here: reset leaves what the BIOS leaves after setting mode 3 (80x25 colour text).
 */
#ifndef RING3_VGA_H
#define RING3_VGA_H

#include "devices/devices.h"

#define VGA_MEMORY_FIRST 0x000a0000u
#define VGA_MEMORY_LAST  0x000bffffu
#define VGA_PORT_FIRST   0x3c0 /* attribute controller, misc output, sequencer, DAC, graphics controller */
#define VGA_PORT_LAST    0x3cf
#define VGA_CRTC_FIRST   0x3d4
#define VGA_CRTC_LAST    0x3d5
#define VGA_STATUS_PORT  0x3da

#define VGA_COLUMNS 80
#define VGA_ROWS    25
#define VGA_CELLS   (VGA_COLUMNS * VGA_ROWS)

#define VGA_PLANES     4
#define VGA_PLANE_SIZE 0x10000
#define VGA_CRTC_COUNT 25
#define VGA_SEQ_COUNT  5
#define VGA_GFX_COUNT  9
#define VGA_ATTR_COUNT 21

struct vga {
    uint8_t plane[VGA_PLANES][VGA_PLANE_SIZE];
    uint8_t latch[VGA_PLANES]; /* loaded by each read of display memory */

    uint8_t misc, feature;
    uint8_t crtc_index, crtc[VGA_CRTC_COUNT];
    uint8_t seq_index, seq[VGA_SEQ_COUNT];
    uint8_t gfx_index, gfx[VGA_GFX_COUNT];
    uint8_t attr_index, attr[VGA_ATTR_COUNT];
    bool attr_expects_data; /* the flip-flop behind port 0x3c0 */
    uint8_t dac_mask;
    bool dac_reading;      /* the last index went to 0x3c7 */
    uint8_t dac_index;     /* of the colour to access next */
    uint8_t dac_component; /* 0 red, 1 green, 2 blue */
    uint8_t dac_staged[3]; /* written components; the third one commits the colour */
    uint8_t dac[256][3];

    uint8_t cells[VGA_CELLS][2]; /* what the screen shows, kept up to date: character, attribute */
    uint64_t generation;         /* grows with every visible change */

    struct clock *clock; /* for the retrace bits */
    void (*screen_changed)(void *ctx);
    void *ctx;
};

void vga_init(struct vga *vga, struct clock *clock, void (*screen_changed)(void *ctx), void *ctx);
void vga_reset(struct vga *vga);

extern const struct bus_device_ops vga_memory_ops; /* VGA_MEMORY_FIRST..VGA_MEMORY_LAST */
extern const struct bus_device_ops vga_port_ops;   /* VGA_PORT_FIRST..VGA_PORT_LAST */
extern const struct bus_device_ops vga_crtc_ops;   /* VGA_CRTC_FIRST..VGA_CRTC_LAST */
extern const struct bus_device_ops vga_status_ops; /* VGA_STATUS_PORT */

/* A view of the screen; `cells` stays owned by the vga. A hidden or off-screen cursor is at column
 * VGA_COLUMNS. */
void vga_get_screen(const struct vga *vga, struct screen *screen);

#endif
