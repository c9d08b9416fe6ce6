/*
 * Private to the two files of the VGA: vga.c (registers, screen) and vga_memory.c (display memory).
 */
#ifndef RING3_VGA_INTERNAL_H
#define RING3_VGA_INTERNAL_H

#include "devices/vga.h"

enum { SEQ_RESET, SEQ_CLOCKING, SEQ_MAP_MASK, SEQ_FONTS, SEQ_MEMORY_MODE };

enum {
    GFX_SET_RESET,
    GFX_ENABLE_SET_RESET,
    GFX_COLOUR_COMPARE,
    GFX_ROTATE,
    GFX_READ_MAP,
    GFX_MODE,
    GFX_MISC,
    GFX_COLOUR_DONT_CARE,
    GFX_BIT_MASK,
};

/* Plane 0 or 1 was written at `address`: the screen follows. */
void vga_memory_changed(struct vga *vga, uint16_t address);

#endif
