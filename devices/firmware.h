/* What firmware does on a PC, done by the board where none runs, and what it is told where one does. Private
 * to the board. */
#ifndef RING3_FIRMWARE_H
#define RING3_FIRMWARE_H

#include "devices/board.h"

/* After each reset: the chips as kernels rely on firmware to leave them. */
void firmware_set_up_chips(struct board *board);
/* Tables in the BIOS area and in low memory. */
void firmware_put_tables(struct board *board);
/* Fills the firmware configuration device and the CMOS memory. */
void firmware_describe_machine(struct board *board);

#endif
