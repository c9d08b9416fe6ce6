/* From screen to lines: see screen_lines.h. */
#include "monitor/screen_lines.h"

#include <string.h>

/* Code page 437 in ASCII: line drawing by shape, everything else foreign as '?'. */
static char ascii(uint8_t character)
{
    static const char drawing[] = "###|+++++++|++++"  /* b0 */
                                  "++++-++++++++=++"  /* c0 */
                                  "+++++++++++#####"; /* d0 */

    if (character >= 0x20 && character <= 0x7e)
        return (char)character;
    if (character == 0 || character == 0xff)
        return ' ';
    return character >= 0xb0 && character <= 0xdf ? drawing[character - 0xb0] : '?';
}

static unsigned text_length(const char *row)
{
    unsigned n = SCREEN_COLUMNS;

    while (n > 0 && row[n - 1] == ' ')
        n--;
    return n;
}

void screen_lines_init(struct screen_lines *lines, void (*emit)(void *ctx, const char *text, size_t n),
                       void *ctx)
{
    memset(lines, 0, sizeof *lines);
    memset(lines->now, ' ', sizeof lines->now);
    memset(lines->seen, ' ', sizeof lines->seen);
    lines->emit = emit;
    lines->ctx = ctx;
}

/* ---- showing ------------------------------------------------------------------------------------------- */

/* The rest of the text of a row of which a part may have been shown; if that has changed, all of it again. */
static void show_text(struct screen_lines *lines, const char *row, unsigned length)
{
    unsigned from = lines->part_length;

    if (from > length || memcmp(lines->part, row, from) != 0) {
        lines->emit(lines->ctx, "\n", 1);
        from = 0;
    }
    if (length > from)
        lines->emit(lines->ctx, row + from, length - from);
}

static void show_row(struct screen_lines *lines, unsigned row)
{
    unsigned length = text_length(lines->seen[row]);

    if (!lines->is_shown[row] && (length > 0 || lines->has_shown_text)) {
        show_text(lines, lines->seen[row], length);
        lines->emit(lines->ctx, "\n", 1);
        lines->has_shown_text = true;
    }
    lines->is_shown[row] = true;
    lines->part_length = 0;
}

static void go_to_row(struct screen_lines *lines, unsigned row)
{
    for (; lines->row < row; lines->row++)
        show_row(lines, lines->row);
}

/* ---- following ----------------------------------------------------------------------------------------- */

static void accept_row(struct screen_lines *lines, unsigned row)
{
    memcpy(lines->seen[row], lines->now[row], SCREEN_COLUMNS);
    lines->is_shown[row] = false;
}

/* The text grew at or below the row being written: the rows above it are finished. */
static void follow_text(struct screen_lines *lines, unsigned last_changed)
{
    for (unsigned row = lines->row; row <= last_changed; row++) {
        if (memcmp(lines->seen[row], lines->now[row], SCREEN_COLUMNS) != 0) {
            go_to_row(lines, row);
            accept_row(lines, row);
        }
    }
}

static bool is_blank(const struct screen_lines *lines)
{
    for (unsigned row = 0; row < SCREEN_ROWS; row++) {
        if (text_length(lines->now[row]) != 0)
            return false;
    }
    return true;
}

static bool is_scrolled_by(const struct screen_lines *lines, unsigned n)
{
    return memcmp(lines->now[0], lines->seen[n], (size_t)(SCREEN_ROWS - n) * SCREEN_COLUMNS) == 0;
}

/* The n last rows may hold new text, or still what was there before the scroll: that has been shown. */
static void accept_scroll(struct screen_lines *lines, unsigned n)
{
    memmove(lines->seen[0], lines->seen[n], (size_t)(SCREEN_ROWS - n) * SCREEN_COLUMNS);
    memset(lines->is_shown, true, sizeof lines->is_shown);
    lines->row = lines->row > n ? lines->row - n : 0;
    follow_text(lines, SCREEN_ROWS - 1);
}

static void accept_clear(struct screen_lines *lines)
{
    memcpy(lines->seen, lines->now, sizeof lines->seen);
    memset(lines->is_shown, false, sizeof lines->is_shown);
    lines->row = 0;
}

/* A painted screen: the rows that differ, in order. */
static void accept_painting(struct screen_lines *lines)
{
    for (unsigned row = 0; row < SCREEN_ROWS; row++) {
        if (memcmp(lines->seen[row], lines->now[row], SCREEN_COLUMNS) == 0)
            continue;
        accept_row(lines, row);
        lines->row = row;
        if (text_length(lines->seen[row]) != 0)
            show_row(lines, row);
        lines->is_shown[row] = true;
    }
}

/* A scroll by one row, or an empty screen, is certain as soon as it is complete. */
static void settle_at_change(struct screen_lines *lines)
{
    if (is_blank(lines)) {
        show_row(lines, lines->row);
        accept_clear(lines);
        lines->is_unsettled = false;
    } else if (is_scrolled_by(lines, 1)) {
        show_row(lines, lines->row);
        accept_scroll(lines, 1);
        lines->is_unsettled = false;
    }
}

/* The guest has finished whatever it did: a scroll by several rows, if some text of them is still there; else
 * it painted. */
static void settle_at_pause(struct screen_lines *lines)
{
    unsigned n = 1;

    show_row(lines, lines->row);
    while (n < SCREEN_ROWS - 1 &&
           !(is_scrolled_by(lines, n) && text_length(lines->now[SCREEN_ROWS - 1 - n]) != 0))
        n++;
    if (n < SCREEN_ROWS - 1)
        accept_scroll(lines, n);
    else
        accept_painting(lines);
    lines->is_unsettled = false;
}

void screen_lines_update(struct screen_lines *lines, const struct screen *screen)
{
    unsigned first = SCREEN_ROWS, last = 0;

    if (screen->rows != SCREEN_ROWS || screen->columns != SCREEN_COLUMNS)
        return;
    for (unsigned row = 0; row < SCREEN_ROWS; row++) {
        const uint8_t *cells = screen->cells + (size_t)row * SCREEN_COLUMNS * 2;

        if (memcmp(lines->cells[row], cells, sizeof lines->cells[row]) == 0)
            continue;
        memcpy(lines->cells[row], cells, sizeof lines->cells[row]);
        for (unsigned column = 0; column < SCREEN_COLUMNS; column++)
            lines->now[row][column] = ascii(cells[2 * column]);
        if (memcmp(lines->now[row], lines->seen[row], SCREEN_COLUMNS) != 0) {
            last = row;
            first = first < row ? first : row;
        }
        lines->has_changed = true;
    }
    if (!lines->is_unsettled && first == SCREEN_ROWS)
        return;
    if (!lines->is_unsettled && first >= lines->row) {
        follow_text(lines, last);
        return;
    }
    lines->is_unsettled = true;
    settle_at_change(lines);
}

void screen_lines_pause(struct screen_lines *lines)
{
    unsigned length;

    if (lines->has_changed) {
        lines->has_changed = false;
        return;
    }
    if (lines->is_unsettled) {
        settle_at_pause(lines);
        return;
    }
    length = text_length(lines->seen[lines->row]);
    if (lines->is_shown[lines->row] || length == lines->part_length || length == 0)
        return;
    show_text(lines, lines->seen[lines->row], length);
    memcpy(lines->part, lines->seen[lines->row], length);
    lines->part_length = length;
    lines->has_shown_text = true;
}

void screen_lines_end(struct screen_lines *lines)
{
    if (lines->is_unsettled)
        settle_at_pause(lines);
    if (text_length(lines->seen[lines->row]) != 0 || lines->part_length != 0)
        show_row(lines, lines->row);
}
