/*
 * Reading commands: see step_input.h.
 *
 * libedit must install no signal handlers: one without SA_ONSTACK would be run on the guest's stack, one that
 * is installed after the engine has adopted the handlers would find the guest's FS base. EL_SIGNAL stays 0
 * (its default), and bytes are read here, where a signal that comes at the prompt is seen.
 */
#include "monitor/step_input.h"

#include <errno.h>
#include <histedit.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <wchar.h>

#include "monitor/requests.h"
#include "vcpu/fail.h"

#define HISTORY_SIZE 500

struct step_editor {
    EditLine *edit;
    History *history;
};

static volatile sig_atomic_t is_interrupted;

void step_input_interrupt(void)
{
    is_interrupted = 1;
}

/* ---- the editor ---------------------------------------------------------------------------------------- */

static char *prompt(EditLine *edit)
{
    static char text[] = STEP_PROMPT;

    (void)edit;
    return text;
}

/* Waits for input or a signal; one that came before the wait ends it as well. */
static void wait_for_input(void)
{
    struct pollfd input = {.fd = STDIN_FILENO, .events = POLLIN};
    sigset_t old;

    requests_block(&old);
    if (!is_interrupted && !requests_is_stop_wanted())
        ppoll(&input, 1, NULL, &old);
    sigprocmask(SIG_SETMASK, &old, NULL);
}

/* libedit's way to get a byte; 0: the end, -1: give the line up. */
static int get_character(EditLine *edit, wchar_t *character)
{
    for (;;) {
        unsigned char byte;
        ssize_t n;

        wait_for_input();
        if (requests_is_stop_wanted())
            return 0;
        if (is_interrupted)
            return -1;
        if (requests_take_continued()) { /* a shell had the terminal meanwhile */
            el_set(edit, EL_PREP_TERM, 1);
            el_set(edit, EL_REFRESH);
            continue;
        }
        n = read(STDIN_FILENO, &byte, 1);
        if (n == 0 || (n < 0 && errno != EINTR))
            return 0;
        if (n == 1 && byte < 0x80) { /* commands are ASCII */
            *character = byte;
            return 1;
        }
    }
}

static struct step_editor *open_editor(void)
{
    struct step_editor *editor = calloc(1, sizeof *editor);
    HistEvent event;

    if (editor == NULL)
        die("out of memory");
    editor->edit = el_init("ring3", stdin, stdout, stderr);
    editor->history = history_init();
    if (editor->edit == NULL || editor->history == NULL)
        die("cannot set up line editing");
    history(editor->history, &event, H_SETSIZE, HISTORY_SIZE);
    el_set(editor->edit, EL_EDITOR, "emacs");
    el_set(editor->edit, EL_PROMPT, prompt);
    el_set(editor->edit, EL_HIST, history, editor->history);
    el_set(editor->edit, EL_GETCFN, get_character);
    return editor;
}

static enum step_read read_edited(struct step_input *input)
{
    struct step_editor *editor = input->editor;
    HistEvent event;
    int n = 0;
    const char *line;

    is_interrupted = 0;
    line = el_gets(editor->edit, &n);
    if (is_interrupted) {
        fputs("^C\n", stdout);
        el_reset(editor->edit);
        return STEP_READ_INTERRUPTED;
    }
    if (line == NULL || n <= 0) {
        putchar('\n');
        return STEP_READ_END;
    }
    free(input->line);
    input->line = strdup(line);
    if (input->line == NULL)
        die("out of memory");
    if (line[strspn(line, " \t\n")] != '\0')
        history(editor->history, &event, H_ENTER, line);
    return STEP_READ_LINE;
}

/* ---- plain lines --------------------------------------------------------------------------------------- */

static void echo(const char *line)
{
    printf(STEP_PROMPT "%s%s", line, strchr(line, '\n') != NULL ? "" : "\n");
}

static enum step_read read_plain(struct step_input *input)
{
    ssize_t n;

    do {
        errno = 0;
        n = getline(&input->line, &input->line_size, stdin);
        if (n < 0 && errno == EINTR && !requests_is_stop_wanted())
            clearerr(stdin);
    } while (n < 0 && errno == EINTR && !requests_is_stop_wanted());
    if (n < 0)
        return STEP_READ_END;
    input->n_stdin_lines++;
    if (strlen(input->line) != (size_t)n) /* a NUL byte: no command has one */
        input->line[0] = '\0';
    echo(input->line);
    return STEP_READ_LINE;
}

static enum step_read read_source(struct step_input *input)
{
    struct step_source *source = &input->source[input->next];
    const char *end = memchr(source->text, '\n', source->size);
    size_t n = end != NULL ? (size_t)(end - source->text) : source->size;

    free(input->line);
    input->line = strndup(source->text, n);
    if (input->line == NULL)
        die("out of memory");
    input->line_size = 0;
    source->text += end != NULL ? n + 1 : n;
    source->size -= end != NULL ? n + 1 : n;
    source->line++;
    echo(input->line);
    return STEP_READ_LINE;
}

/* ---- the interface ------------------------------------------------------------------------------------- */

void step_input_open(struct step_input *input)
{
    bool is_terminal = isatty(STDIN_FILENO) != 0;

    input->reads_stdin = input->n_sources == 0 || is_terminal;
    if (input->reads_stdin && is_terminal && isatty(STDOUT_FILENO))
        input->editor = open_editor();
}

void step_input_close(struct step_input *input)
{
    if (input->editor != NULL) {
        history_end(input->editor->history);
        el_end(input->editor->edit);
        free(input->editor);
    }
    free(input->line);
    input->editor = NULL;
    input->line = NULL;
}

enum step_read step_input_next(struct step_input *input, const char **line, bool *is_typed)
{
    enum step_read read = STEP_READ_END;

    while (input->next < input->n_sources && input->source[input->next].size == 0)
        input->next++;
    *is_typed = input->next == input->n_sources && input->editor != NULL;
    if (input->next < input->n_sources)
        read = read_source(input);
    else if (input->editor != NULL)
        read = read_edited(input);
    else if (input->reads_stdin)
        read = read_plain(input);
    *line = input->line;
    return read;
}

void step_input_place(const struct step_input *input, char *text, size_t size)
{
    if (input->next < input->n_sources)
        snprintf(text, size, "%s, line %u", input->source[input->next].name, input->source[input->next].line);
    else
        snprintf(text, size, "standard input, line %u", input->n_stdin_lines);
}
