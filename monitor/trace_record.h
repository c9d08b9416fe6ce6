/*
 * Reading traces back: one record a line, each a JSON object of strings, numbers, literals and lists of
 * strings, and nothing deeper. Any bytes may be in the file; what is not such an object is refused with its
 * line number, and what is accepted is well-formed UTF-8 without control characters, fit for a terminal.
 *
 * Values are kept as they are written (a string with its quotes and escapes): our writer has one way to write
 * each, so equal values are equal bytes.
 */
#ifndef RING3_TRACE_RECORD_H
#define RING3_TRACE_RECORD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#define TRACE_RECORD_MAX_SIZE   65536 /* bytes in a line */
#define TRACE_RECORD_MAX_FIELDS 48

struct text { /* not NUL-terminated */
    const char *start;
    size_t length;
};

struct trace_record_field {
    struct text key;   /* without quotes */
    struct text value; /* as written */
};

struct trace_record {
    struct trace_record_field field[TRACE_RECORD_MAX_FIELDS];
    size_t n_fields;
};

/* false: one line in `error`, without file or line number. The record points into `line`. */
bool trace_record_parse(const char *line, size_t length, struct trace_record *record, char *error,
                        size_t error_size);
/* The value of a key; {NULL, 0} if it has none. */
struct text trace_record_find(const struct trace_record *record, struct text key);
struct text trace_record_get(const struct trace_record *record, const char *key);

bool text_equals(struct text a, struct text b);
bool text_is(struct text text, const char *string);
/* What stands between the quotes of a string; the text itself, if it is none. */
struct text text_unquote(struct text value);
/* Steps through the strings of a list: `rest` begins as the value. false: no more. */
bool text_next_item(struct text *rest, struct text *item);

/* ---- a trace, record by record ------------------------------------------------------------------------- */

struct trace_reader {
    FILE *file;
    const char *path;
    unsigned long line; /* of the record, from 1: the header */
    struct trace_record header, record;
    struct text record_text; /* the whole of it */
    char error[256];
    char header_bytes[TRACE_RECORD_MAX_SIZE], record_bytes[TRACE_RECORD_MAX_SIZE];
};

enum trace_read {
    TRACE_READ_RECORD, /* in reader->record */
    TRACE_READ_END,    /* likewise, and it is the last: how the run ended */
    TRACE_READ_BAD,    /* one line in reader->error: damaged, cut off, or unreadable */
};

/* Opens and reads the header. false: one line in reader->error. `path` must outlive the reader. */
bool trace_reader_open(struct trace_reader *reader, const char *path);
enum trace_read trace_reader_next(struct trace_reader *reader);
void trace_reader_close(struct trace_reader *reader);

#endif
