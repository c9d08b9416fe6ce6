/* From screen to lines: see screen_lines.h. */
#include "monitor/screen_lines.h"

#include <string.h>

/* Code page 437 in ASCII: line drawing by shape, everything else foreign as '?'. */
static char ascii(uint8_t character)
{
    static const char drawing[] = "###|++++++|+++++"  /* b0 */
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

static bool is_same(const char *rows, const char *others, unsigned n)
{
    return memcmp(rows, others, (size_t)n * SCREEN_COLUMNS) == 0;
}

static bool adds_text(const struct screen_lines *lines, unsigned row)
{
    for (unsigned column = 0; column < SCREEN_COLUMNS; column++) {
        if (lines->now[row][column] != lines->seen[row][column] && lines->now[row][column] != ' ')
            return true;
    }
    return false;
}

static void accept_row(struct screen_lines *lines, unsigned row)
{
    if (adds_text(lines, row))
        lines->is_shown[row] = false;
    memcpy(lines->seen[row], lines->now[row], SCREEN_COLUMNS);
}

/* The row being written was only erased: by backspaces, or because a scroll of identical rows changed nothing
 * else. Once it is empty, what stood there was a line. */
static void accept_erasure(struct screen_lines *lines)
{
    unsigned row = lines->row;

    memcpy(lines->seen[row], lines->now[row], SCREEN_COLUMNS);
    if (text_length(lines->seen[row]) != 0 || lines->is_shown[row])
        return;
    memcpy(lines->seen[row], lines->full, SCREEN_COLUMNS);
    show_row(lines, row);
    memcpy(lines->seen[row], lines->now[row], SCREEN_COLUMNS);
}

/* Changes at or below the row being written. Where text is added is where the guest writes now, and the rows
 * above are finished; a row below that is only erased is being made ready. */
static void follow_text(struct screen_lines *lines, unsigned last_changed)
{
    for (unsigned row = lines->row; row <= last_changed; row++) {
        if (memcmp(lines->seen[row], lines->now[row], SCREEN_COLUMNS) == 0)
            continue;
        if (adds_text(lines, row)) {
            go_to_row(lines, row);
            accept_row(lines, row);
            memcpy(lines->full, lines->seen[row], SCREEN_COLUMNS);
        } else if (row == lines->row) {
            accept_erasure(lines);
        } else {
            accept_row(lines, row);
            lines->is_shown[row] &= text_length(lines->seen[row]) != 0; /* a fresh line, empty so far */
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

/* A block of rows [top, bottom] whose text has moved up by n rows. */
struct scroll {
    unsigned top, bottom, n;
};

/* The block begins at the first row that changed, and ends with the screen or with the row being written
 * (below it there may be a status line). */
static bool find_scroll(const struct screen_lines *lines, unsigned n, struct scroll *scroll)
{
    const unsigned bottoms[] = {SCREEN_ROWS - 1, lines->row};
    unsigned top = 0;

    while (top < SCREEN_ROWS && is_same(lines->now[top], lines->seen[top], 1))
        top++;
    for (size_t i = 0; i < sizeof bottoms / sizeof bottoms[0]; i++) {
        unsigned bottom = bottoms[i];

        *scroll = (struct scroll){.top = top, .bottom = bottom, .n = n};
        if (top + n <= bottom && is_same(lines->now[top], lines->seen[top + n], bottom - n - top + 1) &&
            (bottom == SCREEN_ROWS - 1 ||
             is_same(lines->now[bottom + 1], lines->seen[bottom + 1], SCREEN_ROWS - 1 - bottom)))
            return true;
    }
    return false;
}

/* The n last rows may hold new text, or still what was there before the scroll: that has been shown. */
static void accept_scroll(struct screen_lines *lines, const struct scroll *scroll)
{
    if (scroll->bottom > lines->row)
        go_to_row(lines, scroll->bottom);
    show_row(lines, lines->row);
    memmove(lines->seen[scroll->top], lines->seen[scroll->top + scroll->n],
            (size_t)(scroll->bottom - scroll->n - scroll->top + 1) * SCREEN_COLUMNS);
    memset(lines->is_shown + scroll->top, true, scroll->bottom - scroll->top + 1);
    lines->row = scroll->bottom - scroll->n;
    lines->is_unsettled = false;
    follow_text(lines, SCREEN_ROWS - 1);
}

static void accept_clear(struct screen_lines *lines)
{
    memcpy(lines->seen, lines->now, sizeof lines->seen);
    memset(lines->is_shown, false, sizeof lines->is_shown);
    lines->row = 0;
    lines->is_unsettled = false;
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

/* The only row that changed may be the first step of a scroll: its new characters stand below it somewhere.
 */
static bool may_be_scrolling(const struct screen_lines *lines, unsigned row)
{
    for (unsigned below = row + 1; below < SCREEN_ROWS; below++) {
        unsigned column = 0;

        while (column < SCREEN_COLUMNS && (lines->now[row][column] == lines->seen[row][column] ||
                                           lines->now[row][column] == lines->seen[below][column]))
            column++;
        if (column == SCREEN_COLUMNS)
            return true;
    }
    return false;
}

/* A scroll by one row, or an empty screen, is certain as soon as it is complete; text that was not there
 * before, as soon as it is written. */
static void settle_at_change(struct screen_lines *lines, unsigned first, unsigned last)
{
    struct scroll scroll;

    if (is_blank(lines)) {
        show_row(lines, lines->row);
        accept_clear(lines);
    } else if (find_scroll(lines, 1, &scroll)) {
        accept_scroll(lines, &scroll);
    } else if (first == last && !may_be_scrolling(lines, first)) {
        show_row(lines, lines->row);
        lines->row = first;
        lines->is_unsettled = false;
        follow_text(lines, first);
    }
}

/* The guest has finished whatever it did: a scroll by several rows, if some text of them is still there; else
 * it painted. */
static void settle_at_pause(struct screen_lines *lines)
{
    struct scroll scroll;
    unsigned n = 1;

    while (n < SCREEN_ROWS - 1 &&
           !(find_scroll(lines, n, &scroll) && text_length(lines->now[scroll.bottom - n]) != 0))
        n++;
    if (n < SCREEN_ROWS - 1) {
        accept_scroll(lines, &scroll);
        return;
    }
    show_row(lines, lines->row);
    accept_painting(lines);
    lines->is_unsettled = false;
}

static bool take_cells(struct screen_lines *lines, const struct screen *screen)
{
    bool has_changed = false;

    for (unsigned row = 0; row < SCREEN_ROWS; row++) {
        const uint8_t *cells = screen->cells + (size_t)row * SCREEN_COLUMNS * 2;

        if (memcmp(lines->cells[row], cells, sizeof lines->cells[row]) == 0)
            continue;
        memcpy(lines->cells[row], cells, sizeof lines->cells[row]);
        for (unsigned column = 0; column < SCREEN_COLUMNS; column++)
            lines->now[row][column] = ascii(cells[(size_t)2 * column]);
        has_changed = true;
    }
    return has_changed;
}

void screen_lines_update(struct screen_lines *lines, const struct screen *screen)
{
    unsigned first = 0, last = SCREEN_ROWS - 1;

    if (screen->rows != SCREEN_ROWS || screen->columns != SCREEN_COLUMNS)
        return;
    lines->cursor_row = screen->cursor_row;
    if (!take_cells(lines, screen))
        return;
    lines->has_changed = true;
    while (first < SCREEN_ROWS && is_same(lines->now[first], lines->seen[first], 1))
        first++;
    if (first == SCREEN_ROWS) {
        lines->is_unsettled = false;
        return;
    }
    while (is_same(lines->now[last], lines->seen[last], 1))
        last--;
    if (!lines->is_unsettled && first >= lines->row) {
        follow_text(lines, last);
        return;
    }
    lines->is_unsettled = true;
    settle_at_change(lines, first, last);
}

void screen_lines_pause(struct screen_lines *lines)
{
    unsigned length;

    if (lines->has_changed) {
        lines->has_changed = false;
        return;
    }
    if (lines->is_unsettled)
        settle_at_pause(lines);
    if (lines->cursor_row > lines->row) { /* a guest that keeps the cursor up to date has ended the line */
        show_row(lines, lines->row);
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
