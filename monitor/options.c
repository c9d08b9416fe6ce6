/* Command lines from tables: see options.h. */
#include "monitor/options.h"

#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HELP_COLUMN 32 /* where the descriptions start */
#define MAX_NAMES   64
#define MAX_WORD    32

static const struct option help_option = {'h', "help", NULL, "show this text", NULL, 0, NULL};

/* ---- misspellings -------------------------------------------------------------------------------------- */

/* Edit distance with adjacent transpositions as one step (optimal string alignment), by three rows. */
static size_t edit_distance(const char *a, const char *b)
{
    size_t rows[3][MAX_WORD + 1], n = strlen(a), m = strlen(b);
    size_t *before = rows[0], *last = rows[1], *row = rows[2];

    if (n > MAX_WORD || m > MAX_WORD)
        return SIZE_MAX;
    for (size_t j = 0; j <= m; j++)
        last[j] = j;
    for (size_t i = 1; i <= n; i++) {
        size_t *oldest = before;

        row[0] = i;
        for (size_t j = 1; j <= m; j++) {
            size_t best = last[j - 1] + (a[i - 1] != b[j - 1]);

            if (last[j] + 1 < best)
                best = last[j] + 1;
            if (row[j - 1] + 1 < best)
                best = row[j - 1] + 1;
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] && before[j - 2] + 1 < best)
                best = before[j - 2] + 1;
            row[j] = best;
        }
        before = last;
        last = row;
        row = oldest;
    }
    return last[m];
}

const char *options_suggest(const char *word, const char *const *names, size_t n)
{
    const char *best = NULL;
    size_t best_distance = SIZE_MAX;

    for (size_t i = 0; i < n; i++) {
        size_t distance = edit_distance(word, names[i]);

        if (strlen(word) >= 2 && strncmp(word, names[i], strlen(word)) == 0)
            distance = 0; /* an abbreviation */
        if (distance < best_distance) {
            best_distance = distance;
            best = names[i];
        }
    }
    return best_distance <= 2 && best_distance < strlen(word) ? best : NULL;
}

/* ---- errors and help ----------------------------------------------------------------------------------- */

int options_usage_error(const char *command, const char *format, ...)
{
    va_list arguments;

    fprintf(stderr, "%s: ", command);
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fprintf(stderr, "\nTry `%s --help`.\n", command);
    return EXIT_STATUS_USAGE;
}

/* Text from HELP_COLUMN on; a newline in it starts a line in the same column. */
static void print_in_column(const char *text, size_t column)
{
    printf("%*s", column < HELP_COLUMN ? (int)(HELP_COLUMN - column) : 1, "");
    for (const char *c = text; *c != '\0'; c++) {
        putchar(*c);
        if (*c == '\n')
            printf("%*s", HELP_COLUMN, "");
    }
    putchar('\n');
}

static void print_option(const struct option *option)
{
    char left[96];
    int n = option->letter != 0 ? snprintf(left, sizeof left, "  -%c, --%s", option->letter, option->name)
                                : snprintf(left, sizeof left, "      --%s", option->name);

    if (option->argument != NULL)
        n += snprintf(left + n, sizeof left - (size_t)n, " %s", option->argument);
    fputs(left, stdout);
    if (n >= HELP_COLUMN) {
        putchar('\n');
        n = 0;
    }
    print_in_column(option->help, (size_t)n);
}

void options_print_help(const struct command_line *line)
{
    printf("usage: %s [OPTIONS]%s%s\n\n%s\n\noptions:\n", line->command,
           line->arguments[0] != '\0' ? " " : "", line->arguments, line->summary);
    for (size_t i = 0; i < line->n_options; i++)
        print_option(&line->options[i]);
    print_option(&help_option);
    if (line->epilogue != NULL)
        printf("\n%s", line->epilogue);
}

/* ---- parsing ------------------------------------------------------------------------------------------- */

struct parser {
    const struct command_line *line;
    int argc, next;
    char **argv;
    void *target;
};

static const struct option *find_long(const struct command_line *line, const char *name, size_t length)
{
    for (size_t i = 0; i < line->n_options; i++) {
        if (strlen(line->options[i].name) == length && strncmp(line->options[i].name, name, length) == 0)
            return &line->options[i];
    }
    return length == strlen(help_option.name) && strncmp(help_option.name, name, length) == 0 ? &help_option
                                                                                              : NULL;
}

static const struct option *find_letter(const struct command_line *line, char letter)
{
    for (size_t i = 0; i < line->n_options; i++) {
        if (line->options[i].letter == letter)
            return &line->options[i];
    }
    return letter == help_option.letter ? &help_option : NULL;
}

static enum options_result fail_unknown(const struct command_line *line, const char *name, size_t length)
{
    const char *names[MAX_NAMES];
    char word[MAX_WORD + 1];
    const char *suggestion;
    size_t n = 0;

    for (; n < line->n_options && n < MAX_NAMES - 1; n++)
        names[n] = line->options[n].name;
    names[n++] = help_option.name;
    snprintf(word, sizeof word, "%.*s", (int)length, name);
    suggestion = options_suggest(word, names, n);
    if (suggestion != NULL)
        options_usage_error(line->command, "unknown option --%.*s; did you mean --%s?", (int)length, name,
                            suggestion);
    else
        options_usage_error(line->command, "unknown option --%.*s", (int)length, name);
    return OPTIONS_BAD;
}

/* `attached` is the value written together with the option, or NULL. */
static enum options_result apply(struct parser *parser, const struct option *option, const char *attached)
{
    const struct command_line *line = parser->line;
    const char *value = attached;
    char error[256] = "";

    if (option == &help_option) {
        options_print_help(line);
        return OPTIONS_HELP;
    }
    if (option->argument == NULL && attached != NULL) {
        options_usage_error(line->command, "--%s takes no value", option->name);
        return OPTIONS_BAD;
    }
    if (option->argument != NULL && value == NULL) {
        if (parser->next == parser->argc) {
            options_usage_error(line->command, "--%s needs a value: %s", option->name, option->argument);
            return OPTIONS_BAD;
        }
        value = parser->argv[parser->next++];
    }
    if (!option->set(option, value, (char *)parser->target + option->field, error, sizeof error)) {
        options_usage_error(line->command, "--%s%s%s: %s", option->name, value != NULL ? " " : "",
                            value != NULL ? value : "", error);
        return OPTIONS_BAD;
    }
    return OPTIONS_OK;
}

static enum options_result parse_long(struct parser *parser, const char *text)
{
    const char *equals = strchr(text, '=');
    size_t length = equals != NULL ? (size_t)(equals - text) : strlen(text);
    const struct option *option = find_long(parser->line, text, length);

    if (option == NULL)
        return fail_unknown(parser->line, text, length);
    return apply(parser, option, equals != NULL ? equals + 1 : NULL);
}

/* -m256M, -m 256M, and several letters without values in one word. */
static enum options_result parse_letters(struct parser *parser, const char *text)
{
    for (const char *letter = text; *letter != '\0'; letter++) {
        const struct option *option = find_letter(parser->line, *letter);
        bool takes_rest = option != NULL && option->argument != NULL && letter[1] != '\0';
        enum options_result result;

        if (option == NULL) {
            options_usage_error(parser->line->command, "unknown option -%c", *letter);
            return OPTIONS_BAD;
        }
        result = apply(parser, option, takes_rest ? letter + 1 : NULL);
        if (result != OPTIONS_OK || takes_rest)
            return result;
    }
    return OPTIONS_OK;
}

enum options_result options_parse(const struct command_line *line, int argc, char **argv, void *target,
                                  const char **arguments)
{
    struct parser parser = {.line = line, .argc = argc, .next = 1, .argv = argv, .target = target};
    bool only_arguments = false;
    unsigned n_arguments = 0;

    while (parser.next < argc) {
        const char *word = argv[parser.next++];
        enum options_result result = OPTIONS_OK;

        if (!only_arguments && strcmp(word, "--") == 0) {
            only_arguments = true;
        } else if (!only_arguments && strncmp(word, "--", 2) == 0) {
            result = parse_long(&parser, word + 2);
        } else if (!only_arguments && word[0] == '-' && word[1] != '\0') {
            result = parse_letters(&parser, word + 1);
        } else if (n_arguments == line->max_arguments) {
            options_usage_error(line->command, "one argument too many: %s", word);
            result = OPTIONS_BAD;
        } else {
            arguments[n_arguments++] = word;
        }
        if (result != OPTIONS_OK)
            return result;
    }
    if (n_arguments < line->min_arguments) {
        options_usage_error(line->command, "missing argument: %s", line->arguments);
        return OPTIONS_BAD;
    }
    return OPTIONS_OK;
}

/* ---- setters ------------------------------------------------------------------------------------------- */

bool options_parse_number(const char *text, uint64_t *number)
{
    bool is_hex = text[0] == '0' && (text[1] == 'x' || text[1] == 'X');
    const char *digits = is_hex ? text + 2 : text;
    char *end;

    if (digits[0] == '\0' || digits[strspn(digits, is_hex ? "0123456789abcdefABCDEF" : "0123456789")] != '\0')
        return false;
    errno = 0;
    *number = strtoull(digits, &end, is_hex ? 16 : 10);
    return errno == 0;
}

bool option_flag(const struct option *option, const char *value, void *field, char *error, size_t error_size)
{
    (void)option, (void)value, (void)error, (void)error_size;
    *(bool *)field = true;
    return true;
}

bool option_string(const struct option *option, const char *value, void *field, char *error,
                   size_t error_size)
{
    (void)option;
    if (value[0] == '\0') {
        snprintf(error, error_size, "must not be empty");
        return false;
    }
    *(const char **)field = value;
    return true;
}

bool option_choice(const struct option *option, const char *value, void *field, char *error,
                   size_t error_size)
{
    int used = snprintf(error, error_size, "must be one of:");

    for (int i = 0; option->choices[i] != NULL; i++) {
        if (strcmp(value, option->choices[i]) == 0) {
            *(int *)field = i;
            return true;
        }
        if (used >= 0 && (size_t)used < error_size)
            used += snprintf(error + used, error_size - (size_t)used, " %s", option->choices[i]);
    }
    return false;
}

bool option_size(const struct option *option, const char *value, void *field, char *error, size_t error_size)
{
    static const char suffixes[] = "KMG";
    size_t length = strlen(value);
    char last = length == 0 ? '\0' : (char)toupper((unsigned char)value[length - 1]);
    const char *suffix = last == '\0' ? NULL : strchr(suffixes, last);
    unsigned shift = suffix != NULL ? 10 * (unsigned)(suffix - suffixes + 1) : 20;
    char digits[32];
    uint64_t number;

    (void)option;
    snprintf(digits, sizeof digits, "%.*s", (int)(suffix != NULL ? length - 1 : length), value);
    if (length >= sizeof digits || !options_parse_number(digits, &number) || number > UINT64_MAX >> shift) {
        snprintf(error, error_size, "not a size; write 64M, 1G, 2048K, or a number of MiB");
        return false;
    }
    *(uint64_t *)field = number << shift;
    return true;
}

bool option_duration(const struct option *option, const char *value, void *field, char *error,
                     size_t error_size)
{
    char *end;
    double seconds;

    (void)option;
    /* strtod knows inf, nan and hexadecimal as well: digits and one point are enough here. */
    seconds = strtod(value, &end);
    if (value[strspn(value, "0123456789.")] != '\0' || end == value || *end != '\0' || !(seconds > 0) ||
        seconds > 1e9) {
        snprintf(error, error_size, "not a number of seconds above 0");
        return false;
    }
    *(uint64_t *)field = (uint64_t)(seconds * 1e9);
    return true;
}
