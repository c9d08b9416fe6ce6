/*
 * The VGA text screen as a stream of lines, for a console that is no screen: a row is shown when the guest
 * has gone on to the next, a scroll is recognised and shows nothing again, and text without an end of line is
 * shown once the guest pauses. A program that paints the whole screen comes out as the rows it changed.
 */
#ifndef RING3_SCREEN_LINES_H
#define RING3_SCREEN_LINES_H

#include "devices/devices.h"

#define SCREEN_ROWS    25
#define SCREEN_COLUMNS 80

struct screen_lines {
    void (*emit)(void *ctx, const char *text, size_t n);
    void *ctx;
    uint8_t cells[SCREEN_ROWS][SCREEN_COLUMNS * 2]; /* as they were at the last update */
    char now[SCREEN_ROWS][SCREEN_COLUMNS];          /* the same as text */
    char seen[SCREEN_ROWS][SCREEN_COLUMNS];         /* the text that is accounted for */
    bool is_shown[SCREEN_ROWS];                     /* of `seen` */
    unsigned row;                                   /* where the guest writes */
    char full[SCREEN_COLUMNS];                      /* its text when some was last added to it */
    unsigned cursor_row;
    bool is_unsettled; /* the guest changed a row above: scrolling, clearing or painting, not yet known which
                        */
    bool has_changed;  /* since the last pause */
    bool has_shown_text;       /* blank rows before the first text are not shown */
    char part[SCREEN_COLUMNS]; /* what of `row` was shown without an end of line */
    unsigned part_length;
};

void screen_lines_init(struct screen_lines *lines, void (*emit)(void *ctx, const char *text, size_t n),
                       void *ctx);
/* At every change of the screen. */
void screen_lines_update(struct screen_lines *lines, const struct screen *screen);
/* Now and then: does something if the screen did not change since the last call. */
void screen_lines_pause(struct screen_lines *lines);
/* Shows what is left, with its end of line. */
void screen_lines_end(struct screen_lines *lines);

#endif
