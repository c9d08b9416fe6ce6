/*
 * frames.h: a few pages of memory, each marked so that a check can tell which one it sees.
 */
#ifndef GUEST_FRAMES_H
#define GUEST_FRAMES_H

#include "guest.h"

enum { RW = PTE_P | PTE_W, RO = PTE_P };
enum { N_FRAMES = 6 };

/* The physical address of frame n, which is also a linear one in every space of space_new(). The frames lie
 * in a row from a multiple of 64 KiB. */
uint32_t frame(unsigned n);
uint32_t mark(unsigned n); /* the word at the beginning and at the end of frame n */
void frames_mark(void);    /* zeroes all frames and writes their marks */

#endif
