/* Parsing the lines of a trace, and reading a trace line by line: see trace_record.h. Read next:
 * trace_diff.c. */
#include "monitor/trace_record.h"

#include <errno.h>
#include <stdarg.h>
#include <string.h>

#include "monitor/trace.h"
#include "monitor/utf8.h"

/* ---- texts --------------------------------------------------------------------------------------------- */

bool text_equals(struct text a, struct text b)
{
    return a.length == b.length && (a.length == 0 || memcmp(a.start, b.start, a.length) == 0);
}

bool text_is(struct text text, const char *string)
{
    return text_equals(text, (struct text){string, strlen(string)});
}

struct text text_unquote(struct text value)
{
    if (value.length >= 2 && value.start[0] == '"')
        return (struct text){value.start + 1, value.length - 2};
    return value;
}

bool text_next_item(struct text *rest, struct text *item)
{
    const char *end, *start = rest->start;

    if (rest->length == 0) /* and perhaps no text at all */
        return false;
    end = rest->start + rest->length;
    while (start < end && *start != '"')
        start++;
    if (start >= end)
        return false;
    item->start = start + 1;
    for (start++; start < end && *start != '"'; start++)
        start += *start == '\\';
    item->length = (size_t)(start - item->start);
    rest->start = start < end ? start + 1 : end;
    rest->length = (size_t)(end - rest->start);
    return true;
}

/* ---- the parser ---------------------------------------------------------------------------------------- */

struct parser {
    const char *start, *next, *end;
    char *error;
    size_t error_size;
};

static bool fail(const struct parser *parser, const char *what)
{
    snprintf(parser->error, parser->error_size, "column %zu: %s", (size_t)(parser->next - parser->start) + 1,
             what);
    return false;
}

static bool is_at(const struct parser *parser, char c)
{
    return parser->next < parser->end && *parser->next == c;
}

static bool take(struct parser *parser, char c)
{
    if (!is_at(parser, c))
        return false;
    parser->next++;
    return true;
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool is_hex_digit(char c)
{
    return is_digit(c) || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
}

static bool parse_escape(struct parser *parser)
{
    unsigned n_digits = 0;

    if (parser->next == parser->end || strchr("\"\\/bfnrtu", *parser->next) == NULL || *parser->next == '\0')
        return fail(parser, "no such escape");
    if (*parser->next++ != 'u')
        return true;
    for (; n_digits < 4 && parser->next < parser->end && is_hex_digit(*parser->next); n_digits++)
        parser->next++;
    return n_digits == 4 || fail(parser, "\\u needs four hexadecimal digits");
}

/* From quote to quote. */
static bool parse_string(struct parser *parser)
{
    if (!take(parser, '"'))
        return fail(parser, "a string is expected");
    while (!is_at(parser, '"')) {
        size_t n = utf8_length(parser->next, (size_t)(parser->end - parser->next));

        if (parser->next == parser->end)
            return fail(parser, "the string does not end");
        if (n == 0)
            return fail(parser, "a byte that no string can hold");
        parser->next += n;
        if (parser->next[-1] == '\\' && n == 1 && !parse_escape(parser))
            return false;
    }
    parser->next++;
    return true;
}

static bool parse_list(struct parser *parser)
{
    take(parser, '[');
    if (take(parser, ']'))
        return true;
    do {
        if (!parse_string(parser))
            return false;
    } while (take(parser, ','));
    return take(parser, ']') || fail(parser, "the list does not end");
}

static bool parse_number(struct parser *parser)
{
    const char *first = parser->next;

    while (parser->next < parser->end && is_digit(*parser->next))
        parser->next++;
    return parser->next - first <= 20 || fail(parser, "a number of more than 64 bits");
}

static bool parse_literal(struct parser *parser)
{
    static const char *const literals[] = {"true", "false", "null"};

    for (size_t i = 0; i < sizeof literals / sizeof literals[0]; i++) {
        size_t n = strlen(literals[i]);

        if ((size_t)(parser->end - parser->next) >= n && memcmp(parser->next, literals[i], n) == 0) {
            parser->next += n;
            return true;
        }
    }
    return fail(parser, "a value is expected");
}

static bool parse_value(struct parser *parser, struct text *value)
{
    bool ok;

    value->start = parser->next;
    if (is_at(parser, '"'))
        ok = parse_string(parser);
    else if (is_at(parser, '['))
        ok = parse_list(parser);
    else if (parser->next < parser->end && is_digit(*parser->next))
        ok = parse_number(parser);
    else
        ok = parse_literal(parser);
    value->length = (size_t)(parser->next - value->start);
    return ok;
}

static bool parse_field(struct parser *parser, struct trace_record *record)
{
    struct trace_record_field *field = &record->field[record->n_fields];
    const char *start = parser->next;

    if (record->n_fields == TRACE_RECORD_MAX_FIELDS)
        return fail(parser, "too many fields");
    if (!parse_string(parser))
        return false;
    field->key = text_unquote((struct text){start, (size_t)(parser->next - start)});
    for (size_t i = 0; i < record->n_fields; i++)
        if (text_equals(record->field[i].key, field->key))
            return fail(parser, "a key that was there before");
    if (!take(parser, ':'))
        return fail(parser, "a colon is expected");
    if (!parse_value(parser, &field->value))
        return false;
    record->n_fields++;
    return true;
}

bool trace_record_parse(const char *line, size_t length, struct trace_record *record, char *error,
                        size_t error_size)
{
    struct parser parser = {
        .start = line, .next = line, .end = line + length, .error = error, .error_size = error_size};

    record->n_fields = 0;
    if (!take(&parser, '{'))
        return fail(&parser, "no JSON object");
    do {
        if (!parse_field(&parser, record))
            return false;
    } while (take(&parser, ','));
    if (!take(&parser, '}'))
        return fail(&parser, "the object does not end");
    return parser.next == parser.end || fail(&parser, "more after the object");
}

struct text trace_record_find(const struct trace_record *record, struct text key)
{
    for (size_t i = 0; i < record->n_fields; i++)
        if (text_equals(record->field[i].key, key))
            return record->field[i].value;
    return (struct text){NULL, 0};
}

struct text trace_record_get(const struct trace_record *record, const char *key)
{
    return trace_record_find(record, (struct text){key, strlen(key)});
}

/* ---- the reader ---------------------------------------------------------------------------------------- */

static bool fail_line(struct trace_reader *reader, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
static bool fail_line(struct trace_reader *reader, const char *format, ...)
{
    int n = snprintf(reader->error, sizeof reader->error, "%s, line %lu: ", reader->path, reader->line);
    va_list arguments;

    va_start(arguments, format);
    if (n > 0 && (size_t)n < sizeof reader->error)
        vsnprintf(reader->error + n, sizeof reader->error - (size_t)n, format, arguments);
    va_end(arguments);
    return false;
}

/* One line without its newline. false: error. *is_end: nothing was there. */
static bool read_line(struct trace_reader *reader, char *bytes, size_t *length, bool *is_end)
{
    int c;

    *length = 0;
    *is_end = false;
    reader->line++;
    while ((c = getc(reader->file)) != EOF && c != '\n') {
        if (*length == TRACE_RECORD_MAX_SIZE)
            return fail_line(reader, "longer than any record");
        bytes[(*length)++] = (char)c;
    }
    if (ferror(reader->file))
        return fail_line(reader, "cannot be read: %s", strerror(errno));
    if (c == EOF && *length > 0)
        return fail_line(reader, "cut off in the middle of a record");
    *is_end = c == EOF;
    return true;
}

static bool read_header(struct trace_reader *reader)
{
    struct text version;
    char expected[16], error[128];
    size_t length;
    bool is_end;

    if (!read_line(reader, reader->header_bytes, &length, &is_end))
        return false;
    if (is_end)
        return fail_line(reader, "the file is empty");
    if (!trace_record_parse(reader->header_bytes, length, &reader->header, error, sizeof error))
        return fail_line(reader, "not a ring3 trace: %s", error);
    version = trace_record_get(&reader->header, "ring3-trace");
    if (version.start == NULL)
        return fail_line(reader, "not a ring3 trace: the first line has no \"ring3-trace\"");
    snprintf(expected, sizeof expected, "%d", TRACE_VERSION);
    if (!text_is(version, expected))
        return fail_line(reader, "a trace of version %.*s; this program reads version %s",
                         (int)(version.length < 32 ? version.length : 32), version.start, expected);
    return true;
}

bool trace_reader_open(struct trace_reader *reader, const char *path)
{
    reader->path = path;
    reader->line = 0;
    reader->file = fopen(path, "re");
    if (reader->file == NULL) {
        snprintf(reader->error, sizeof reader->error, "%s: %s", path, strerror(errno));
        return false;
    }
    if (read_header(reader))
        return true;
    trace_reader_close(reader);
    return false;
}

enum trace_read trace_reader_next(struct trace_reader *reader)
{
    char error[128];
    size_t length;
    bool is_end;

    if (!read_line(reader, reader->record_bytes, &length, &is_end))
        return TRACE_READ_BAD;
    if (is_end) {
        reader->line--;
        fail_line(reader, "the trace was cut off here: it does not say how the run ended");
        return TRACE_READ_BAD;
    }
    if (!trace_record_parse(reader->record_bytes, length, &reader->record, error, sizeof error)) {
        fail_line(reader, "%s", error);
        return TRACE_READ_BAD;
    }
    reader->record_text = (struct text){reader->record_bytes, length};
    if (trace_record_get(&reader->record, "end").start == NULL)
        return TRACE_READ_RECORD;
    if (getc(reader->file) != EOF) {
        fail_line(reader, "the run ends here, but the file goes on");
        return TRACE_READ_BAD;
    }
    return TRACE_READ_END;
}

void trace_reader_close(struct trace_reader *reader)
{
    if (reader->file != NULL)
        fclose(reader->file);
    reader->file = NULL;
}
