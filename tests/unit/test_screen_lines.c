/* monitor/screen_lines: what a guest's screen driver does, cell by cell, and the lines that come of it. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "monitor/screen_lines.h"

static uint8_t cells[SCREEN_ROWS * SCREEN_COLUMNS * 2];
static struct screen_lines lines;
static char shown[65536];
static size_t n_shown;

static void emit(void *ctx, const char *text, size_t n)
{
    ck_assert_ptr_eq(ctx, shown);
    ck_assert_uint_lt(n_shown + n, sizeof shown);
    memcpy(shown + n_shown, text, n);
    n_shown += n;
    shown[n_shown] = '\0';
}

static unsigned cursor_row;

/* Every write of a cell is told, as the VGA does. */
static void put_cell(unsigned row, unsigned column, char character)
{
    const struct screen screen = {
        .columns = SCREEN_COLUMNS, .rows = SCREEN_ROWS, .cursor_row = cursor_row, .cells = cells};
    size_t at = ((size_t)row * SCREEN_COLUMNS + column) * 2;

    cells[at] = (uint8_t)character;
    cells[at + 1] = 0x07;
    screen_lines_update(&lines, &screen);
}

/* A driver as teaching kernels have them: a position, newline, and a scroll by copying all cells up. */
static unsigned row, column;

static void scroll(unsigned n)
{
    for (unsigned r = 0; r + n < SCREEN_ROWS; r++) {
        for (unsigned c = 0; c < SCREEN_COLUMNS; c++)
            put_cell(r, c, (char)cells[((r + n) * SCREEN_COLUMNS + c) * 2]);
    }
    for (unsigned r = SCREEN_ROWS - n; r < SCREEN_ROWS; r++) {
        for (unsigned c = 0; c < SCREEN_COLUMNS; c++)
            put_cell(r, c, ' ');
    }
    row -= n;
}

static void clear(void)
{
    for (unsigned r = 0; r < SCREEN_ROWS; r++) {
        for (unsigned c = 0; c < SCREEN_COLUMNS; c++)
            put_cell(r, c, ' ');
    }
    row = column = 0;
}

static void print(const char *text)
{
    for (; *text != '\0'; text++) {
        if (*text == '\n' || column == SCREEN_COLUMNS) {
            row++;
            column = 0;
        }
        if (row == SCREEN_ROWS)
            scroll(1);
        if (*text == '\b')
            put_cell(row, --column, ' ');
        else if (*text != '\n')
            put_cell(row, column++, *text);
    }
}

static void pause_guest(void)
{
    screen_lines_pause(&lines); /* the first only sees that something changed */
    screen_lines_pause(&lines);
}

static void setup(void)
{
    memset(cells, 0, sizeof cells);
    row = column = cursor_row = 0;
    n_shown = 0;
    shown[0] = '\0';
    screen_lines_init(&lines, emit, shown);
}

START_TEST(lines_as_they_are_finished)
{
    print("first\nsecond");
    ck_assert_str_eq(shown, "first\n");
    print("\n\nfourth\n");
    ck_assert_str_eq(shown, "first\nsecond\n\n");
    screen_lines_end(&lines);
    ck_assert_str_eq(shown, "first\nsecond\n\nfourth\n");
    screen_lines_end(&lines);
    ck_assert_str_eq(shown, "first\nsecond\n\nfourth\n");
}
END_TEST

START_TEST(clearing_first_shows_nothing)
{
    clear();
    row = 3; /* and blank rows before the first text are no text */
    print("hello\n");
    print("world");
    screen_lines_end(&lines);
    ck_assert_str_eq(shown, "hello\nworld\n");
}
END_TEST

START_TEST(prompt_is_shown_at_a_pause)
{
    print("boot\n$");
    ck_assert_str_eq(shown, "boot\n");
    screen_lines_pause(&lines);
    ck_assert_str_eq(shown, "boot\n"); /* it may be in the middle of something */
    screen_lines_pause(&lines);
    ck_assert_str_eq(shown, "boot\n$");
    pause_guest();
    ck_assert_str_eq(shown, "boot\n$"); /* once */
    print(" ls");
    pause_guest();
    ck_assert_str_eq(shown, "boot\n$ ls");
    print(" -l\nfile\n");
    pause_guest();
    ck_assert_str_eq(shown, "boot\n$ ls -l\nfile"); /* nothing tells the end of the line yet */
    print("$");
    ck_assert_str_eq(shown, "boot\n$ ls -l\nfile\n");
}
END_TEST

START_TEST(cursor_tells_the_end_of_the_line)
{
    print("file");
    cursor_row = 1;
    print(" list");
    pause_guest();
    ck_assert_str_eq(shown, "file list\n");
    print("\n$");
    pause_guest();
    ck_assert_str_eq(shown, "file list\n$");
}
END_TEST

START_TEST(corrected_prompt_is_shown_again)
{
    print("$ lz");
    pause_guest();
    print("\bs\n");
    print("x");
    ck_assert_str_eq(shown, "$ lz\n$ ls\n");
}
END_TEST

START_TEST(scrolling_shows_each_line_once)
{
    char expected[65536] = "", line[32];

    for (unsigned i = 0; i < 200; i++) {
        snprintf(line, sizeof line, "line %u%s\n", i % 7 == 0 ? 0 : i, i % 3 == 0 ? "\n" : "");
        print(line);
        strcat(expected, line);
        if (i % 11 == 0)
            pause_guest();
    }
    screen_lines_end(&lines);
    /* What is left at the end is blank: only the text counts. */
    while (n_shown > 0 && shown[n_shown - 1] == '\n')
        shown[--n_shown] = '\0';
    for (size_t n = strlen(expected); n > 0 && expected[n - 1] == '\n'; n--)
        expected[n - 1] = '\0';
    ck_assert_str_eq(shown, expected);
}
END_TEST

START_TEST(identical_lines)
{
    for (unsigned i = 0; i < 60; i++)
        print("same\n");
    screen_lines_end(&lines);
    for (unsigned i = 0; i < 60; i++)
        ck_assert_int_eq(strncmp(shown + (size_t)i * 5, "same\n", 5), 0);
    ck_assert_uint_eq(n_shown, 300);
}
END_TEST

START_TEST(scrolling_by_several_rows)
{
    for (unsigned i = 0; i < SCREEN_ROWS; i++) {
        char line[32];

        snprintf(line, sizeof line, i == 0 ? "row %u" : "\nrow %u", i);
        print(line);
    }
    n_shown = 0;
    scroll(5);
    print("\nnew");
    pause_guest();
    ck_assert_str_eq(shown, "row 24\nnew");
}
END_TEST

START_TEST(scrolling_between_fixed_lines)
{
    print("title");
    row = SCREEN_ROWS - 1;
    column = 0;
    print("status");
    pause_guest();
    row = 1;
    column = 0;
    for (unsigned i = 0; i < 60; i++) {
        char line[32];

        snprintf(line, sizeof line, "entry %u", i);
        for (column = 0; line[column] != '\0'; column++)
            put_cell(row, column, line[column]);
        if (++row < SCREEN_ROWS - 1)
            continue;
        for (row = 1; row < SCREEN_ROWS - 2; row++) {
            for (unsigned c = 0; c < SCREEN_COLUMNS; c++)
                put_cell(row, c, (char)cells[((row + 1) * SCREEN_COLUMNS + c) * 2]);
        }
        for (unsigned c = 0; c < SCREEN_COLUMNS; c++)
            put_cell(row, c, ' ');
    }
    screen_lines_end(&lines);
    for (unsigned i = 24; i < 60;
         i++) { /* the first ones are held back: a painted screen, until it scrolls */
        char line[32];
        const char *first;

        snprintf(line, sizeof line, "entry %u\n", i);
        first = strstr(shown, line);
        ck_assert_msg(first != NULL, "%s is not in: %s", line, shown);
        ck_assert_ptr_null(strstr(first + 1, line));
    }
}
END_TEST

START_TEST(clearing_keeps_what_was_there)
{
    print("one\ntwo");
    clear();
    ck_assert_str_eq(shown, "one\ntwo\n");
    print("three\n");
    screen_lines_end(&lines);
    ck_assert_str_eq(shown, "one\ntwo\nthree\n");
}
END_TEST

START_TEST(painted_screen)
{
    static const struct {
        unsigned row;
        const char *text;
    } items[] = {{20, "Menu"}, {3, "Title"}, {10, "item"}};

    for (size_t i = 0; i < sizeof items / sizeof items[0]; i++) {
        row = items[i].row;
        column = 2;
        print(items[i].text);
    }
    pause_guest();
    ck_assert_str_eq(shown, "  Menu\n  Title\n  item");
    n_shown = 0;
    row = 3;
    column = 2;
    print("TITLE");
    pause_guest();
    ck_assert_str_eq(shown, "\n  TITLE");
}
END_TEST

START_TEST(foreign_characters)
{
    static const char drawing[] = {(char)0xc9, (char)0xcd, (char)0xbb, (char)0xba, (char)0xb0,
                                   (char)0xdb, (char)0xe1, 0x01,       0};

    print(drawing);
    screen_lines_end(&lines);
    ck_assert_str_eq(shown, "+=+|##??\n");
}
END_TEST

START_TEST(attributes_are_no_text)
{
    const struct screen screen = {.columns = SCREEN_COLUMNS, .rows = SCREEN_ROWS, .cells = cells};

    print("first\nsecond");
    cells[1] = 0x70; /* row 0 in reverse */
    screen_lines_update(&lines, &screen);
    print(" half\n");
    print("x");
    ck_assert_str_eq(shown, "first\nsecond half\n");
}
END_TEST

/* Whatever the guest paints: text of printable characters comes out, and nothing else. */
START_TEST(random_painting)
{
    srandom(1);
    for (unsigned i = 0; i < 20000; i++) {
        put_cell((unsigned)random() % SCREEN_ROWS, (unsigned)random() % SCREEN_COLUMNS, (char)random());
        if (random() % 50 == 0)
            screen_lines_pause(&lines);
        if (random() % 5000 == 0)
            clear();
        for (size_t at = 0; at < n_shown; at++)
            ck_assert(shown[at] == '\n' || (shown[at] >= ' ' && shown[at] <= '~'));
        n_shown = 0;
    }
    screen_lines_end(&lines);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("screen lines");
    TCase *tests = tcase_create("screen lines");
    SRunner *runner;
    int failed;

    tcase_add_checked_fixture(tests, setup, NULL);
    tcase_add_test(tests, lines_as_they_are_finished);
    tcase_add_test(tests, clearing_first_shows_nothing);
    tcase_add_test(tests, prompt_is_shown_at_a_pause);
    tcase_add_test(tests, cursor_tells_the_end_of_the_line);
    tcase_add_test(tests, corrected_prompt_is_shown_again);
    tcase_add_test(tests, scrolling_shows_each_line_once);
    tcase_add_test(tests, identical_lines);
    tcase_add_test(tests, scrolling_by_several_rows);
    tcase_add_test(tests, scrolling_between_fixed_lines);
    tcase_add_test(tests, clearing_keeps_what_was_there);
    tcase_add_test(tests, painted_screen);
    tcase_add_test(tests, foreign_characters);
    tcase_add_test(tests, attributes_are_no_text);
    tcase_add_test(tests, random_painting);
    suite_add_tcase(suite, tests);
    runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
