/*
 * The first difference of two traces: both are read side by side, record against record, field against field.
 * The guest-visible projection leaves out what belongs to the monitor alone (shadow fills, the cause of an
 * exit, numbers and times), so that runs with another engine, another option or another host can be compared.
 * Read next: trace_record.c.
 */
#include "monitor/trace_diff.h"

#include <stdlib.h>
#include <string.h>

#include "monitor/trace_record.h"
#include "vcpu/fail.h"

struct side {
    struct trace_reader reader;
    enum trace_read read; /* what the last step gave */
};

struct diff {
    const struct trace_diff_options *options;
    FILE *out;
    struct side side[2];  /* A, B */
    struct text *context; /* a ring of the last equal records, as lines */
    unsigned long n_equal;
    bool is_translated; /* one of them is of the translator */
};

/* ---- what counts --------------------------------------------------------------------------------------- */

/* Keys of what the guest did and saw. */
static const char *const guest_keys[] = {"cs",  "eip",     "cpl",   "bytes",  "insn",
                                         "sym", "changes", "notes", "resume", "end"};
/* Notes of what the guest did and saw begin so. */
static const char *const guest_notes[] = {"in ",     "out ",       "mmio-read ",  "mmio-write ",
                                          "inject ", "unclaimed ", "unknown-msr-"};

/* Changes of what the processor has for the system begin so: these no engine makes without an exit. */
static const char *const system_changes[] = {"gdtr", "idtr", "ldtr ",    "tr ",       "CR0.", "cr3 ",
                                             "cr4 ", "dr",   "sysenter", "apic_base", "efer"};

static bool is_in(struct text text, const char *const *list, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (text_is(text, list[i]))
            return true;
    return false;
}

static bool begins_with_one(struct text text, const char *const *list, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        size_t length = strlen(list[i]);

        if (text.length >= length && memcmp(text.start, list[i], length) == 0)
            return true;
    }
    return false;
}

static bool is_guest_note(struct text note)
{
    return begins_with_one(note, guest_notes, sizeof guest_notes / sizeof guest_notes[0]);
}

static bool changes_the_system(struct text changes)
{
    struct text change;

    while (text_next_item(&changes, &change))
        if (begins_with_one(change, system_changes, sizeof system_changes / sizeof system_changes[0]))
            return true;
    return false;
}

/* RF: every instruction clears it, and engines bring that up to date at different exits. */
static bool is_guest_change(struct text change)
{
    static const char *const lazy[] = {"RF "};

    return !begins_with_one(change, lazy, 1);
}

typedef bool item_filter(struct text item);

static bool next_that(item_filter *is_wanted, struct text *rest, struct text *item)
{
    while (text_next_item(rest, item))
        if (is_wanted(*item))
            return true;
    return false;
}

/* A sensitive instruction, a device, an injection, the end: not a mere matter of the monitor's mappings. The
 * translator runs many a sensitive instruction (CLI, POPF, MOV from CR0) without an exit: beside one of its
 * traces only those count that it cannot. */
static bool is_guest_visible(const struct diff *diff, const struct trace_record *record)
{
    struct text notes = trace_record_get(record, "notes"), note;

    if (trace_record_get(record, "end").start != NULL ||
        text_is(trace_record_get(record, "act"), "\"stopped\"") || next_that(is_guest_note, &notes, &note))
        return true;
    return trace_record_get(record, "class").start != NULL &&
           (!diff->is_translated || changes_the_system(trace_record_get(record, "changes")));
}

/* Where the CPU says so by a trap, the place is the one after the instruction. */
static bool is_place_of_trap(const struct trace_record *record, struct text key)
{
    struct text fault = trace_record_get(record, "fault");

    return (text_is(key, "eip") || text_is(key, "sym")) &&
           (text_is(fault, "\"#BP\"") || text_is(fault, "\"#OF\""));
}

static bool is_compared(const struct diff *diff, struct text key)
{
    if (is_in(key, diff->options->ignored, diff->options->n_ignored))
        return false;
    return !diff->options->is_guest_visible ||
           is_in(key, guest_keys, sizeof guest_keys / sizeof guest_keys[0]);
}

static bool are_lists_equal(item_filter *is_wanted, struct text a, struct text b)
{
    struct text item_a, item_b;
    bool has_a, has_b;

    do {
        has_a = next_that(is_wanted, &a, &item_a);
        has_b = next_that(is_wanted, &b, &item_b);
        if (has_a != has_b || (has_a && !text_equals(item_a, item_b)))
            return false;
    } while (has_a);
    return true;
}

static bool is_equal(const struct diff *diff, struct text key, struct text a, struct text b)
{
    if (diff->options->is_guest_visible && text_is(key, "notes"))
        return are_lists_equal(is_guest_note, a, b);
    if (diff->options->is_guest_visible && text_is(key, "changes"))
        return are_lists_equal(is_guest_change, a, b);
    /* Whether the monitor looks at the instruction is its own business. */
    if (diff->options->is_guest_visible && (text_is(key, "bytes") || text_is(key, "insn")) &&
        (a.start == NULL || b.start == NULL))
        return true;
    return text_equals(a, b) && (a.start == NULL) == (b.start == NULL);
}

typedef void differing_field(struct diff *diff, struct text key, struct text a, struct text b);

/* Calls `found` (which may be NULL) for each field that differs; returns how many there are. */
static unsigned compare(struct diff *diff, const struct trace_record *a, const struct trace_record *b,
                        differing_field *found)
{
    unsigned n = 0;

    for (size_t i = 0; i < a->n_fields + b->n_fields; i++) {
        bool is_of_a = i < a->n_fields;
        const struct trace_record_field *field = is_of_a ? &a->field[i] : &b->field[i - a->n_fields];
        struct text value_a = trace_record_find(a, field->key), value_b = trace_record_find(b, field->key);

        if (!is_of_a && value_a.start != NULL)
            continue; /* seen already */
        if (diff->options->is_guest_visible &&
            (is_place_of_trap(a, field->key) || is_place_of_trap(b, field->key)))
            continue;
        if (!is_compared(diff, field->key) || is_equal(diff, field->key, value_a, value_b))
            continue;
        n++;
        if (found != NULL)
            found(diff, field->key, value_a, value_b);
    }
    return n;
}

/* ---- printing ------------------------------------------------------------------------------------------ */

static void print_text(FILE *out, struct text text)
{
    fwrite(text.start != NULL ? text.start : "", 1, text.length, out);
}

static void print_column(FILE *out, int width, struct text text)
{
    print_text(out, text);
    for (int i = (int)text.length; i < width; i++)
        putc(' ', out);
    putc(' ', out);
}

static struct text get(const struct trace_record *record, const char *key)
{
    return text_unquote(trace_record_get(record, key));
}

static void print_list(FILE *out, const struct trace_record *record, const char *key, const char **separator)
{
    struct text rest = trace_record_get(record, key), item;

    while (text_next_item(&rest, &item)) {
        fputs(*separator, out);
        print_text(out, item);
        *separator = ", ";
    }
}

static void print_record(FILE *out, char mark, const struct trace_record *record)
{
    struct text end = get(record, "end"), insn = get(record, "insn");
    const char *separator = "";

    fprintf(out, "%c ", mark);
    if (end.start != NULL) {
        fprintf(out, "%7s  ", "end");
    } else {
        struct text sequence = get(record, "seq");

        fprintf(out, "%*s", sequence.length < 7 ? (int)(7 - sequence.length) : 0, "");
        print_text(out, sequence);
        fputs("  ", out);
    }
    print_text(out, get(record, "cs"));
    putc(':', out);
    print_text(out, get(record, "eip"));
    putc(' ', out);
    print_column(out, 22, get(record, "sym"));
    if (end.start != NULL) {
        print_text(out, end);
    } else {
        print_column(out, 28, insn.start != NULL ? insn : get(record, "exit"));
        print_column(out, 5, get(record, "fault"));
        print_column(out, 10, get(record, "act"));
        print_list(out, record, "changes", &separator);
        print_list(out, record, "notes", &separator);
    }
    putc('\n', out);
}

static void print_value(FILE *out, char name, struct text value)
{
    fprintf(out, "  %c: ", name);
    if (value.start == NULL)
        fputs("(not there)", out);
    else
        print_text(out, value);
    putc('\n', out);
}

static void print_field(struct diff *diff, struct text key, struct text a, struct text b)
{
    fputs("  ", diff->out);
    print_column(diff->out, 10, key);
    print_value(diff->out, 'A', a);
    fprintf(diff->out, "  %10s ", "");
    print_value(diff->out, 'B', b);
}

static void print_header_field(struct diff *diff, struct text key, struct text a, struct text b)
{
    fputs("headers differ: ", diff->out);
    print_text(diff->out, key);
    fputs(": A ", diff->out);
    print_text(diff->out, a);
    fputs(", B ", diff->out);
    print_text(diff->out, b);
    putc('\n', diff->out);
}

/* ---- context ------------------------------------------------------------------------------------------- */

static void keep_context(struct diff *diff, struct text line)
{
    struct text *kept;
    char *copy;

    if (diff->options->n_context == 0)
        return;
    copy = malloc(line.length);
    if (copy == NULL)
        die("out of memory for the records before the difference");
    memcpy(copy, line.start, line.length);
    kept = &diff->context[diff->n_equal % diff->options->n_context];
    free((char *)kept->start);
    *kept = (struct text){copy, line.length};
}

static void print_context(struct diff *diff)
{
    unsigned n = diff->options->n_context;

    for (unsigned long i = diff->n_equal > n ? diff->n_equal - n : 0; i < diff->n_equal; i++) {
        struct text line = diff->context[i % n];
        struct trace_record record;
        char error[128];

        if (trace_record_parse(line.start, line.length, &record, error, sizeof error))
            print_record(diff->out, ' ', &record);
    }
}

/* ---- the comparison ------------------------------------------------------------------------------------ */

/* The next record that counts. */
static void step(const struct diff *diff, struct side *side)
{
    do {
        side->read = trace_reader_next(&side->reader);
    } while (side->read == TRACE_READ_RECORD && diff->options->is_guest_visible &&
             !is_guest_visible(diff, &side->reader.record));
}

static bool is_end(const struct trace_record *record)
{
    return trace_record_get(record, "end").start != NULL;
}

static void report_difference(struct diff *diff)
{
    const struct trace_reader *a = &diff->side[0].reader, *b = &diff->side[1].reader;

    fprintf(diff->out, "first difference after %lu equal records: line %lu of A (%s), line %lu of B (%s)\n\n",
            diff->n_equal, a->line, a->path, b->line, b->path);
    print_context(diff);
    print_record(diff->out, 'A', &a->record);
    print_record(diff->out, 'B', &b->record);
    if (is_end(&a->record) != is_end(&b->record)) {
        fprintf(diff->out, "\n%c ends here, %c goes on\n", is_end(&a->record) ? 'A' : 'B',
                is_end(&a->record) ? 'B' : 'A');
        return;
    }
    fputs("\nwhat differs:\n", diff->out);
    compare(diff, &a->record, &b->record, print_field);
}

static enum trace_diff_result compare_records(struct diff *diff, char *error, size_t error_size)
{
    struct side *a = &diff->side[0], *b = &diff->side[1];

    for (;; diff->n_equal++) {
        step(diff, a);
        step(diff, b);
        for (unsigned i = 0; i < 2; i++)
            if (diff->side[i].read == TRACE_READ_BAD) {
                snprintf(error, error_size, "%s", diff->side[i].reader.error);
                return TRACE_DIFF_UNREADABLE;
            }
        if (compare(diff, &a->reader.record, &b->reader.record, NULL) != 0) {
            report_difference(diff);
            return TRACE_DIFF_DIFFERENT;
        }
        if (a->read == TRACE_READ_END)
            return TRACE_DIFF_SAME;
        keep_context(diff, a->reader.record_text);
    }
}

static enum trace_diff_result run(struct diff *diff, char *error, size_t error_size)
{
    enum trace_diff_result result;
    unsigned n_headers =
        compare(diff, &diff->side[0].reader.header, &diff->side[1].reader.header, print_header_field);

    result = compare_records(diff, error, error_size);
    if (result == TRACE_DIFF_SAME)
        fprintf(diff->out, "%lu records%s are the same\n", diff->n_equal,
                diff->options->is_guest_visible ? " that the guest can see" : "");
    if (result == TRACE_DIFF_UNREADABLE)
        fprintf(diff->out, "the first %lu records are the same\n", diff->n_equal);
    return result == TRACE_DIFF_SAME && n_headers != 0 ? TRACE_DIFF_DIFFERENT : result;
}

enum trace_diff_result trace_diff(const char *path_a, const char *path_b,
                                  const struct trace_diff_options *options, FILE *out, char *error,
                                  size_t error_size)
{
    const char *paths[2] = {path_a, path_b};
    struct diff *diff = calloc(1, sizeof *diff); /* its readers are too large for a stack */
    enum trace_diff_result result = TRACE_DIFF_UNREADABLE;
    bool is_open = true;

    if (diff == NULL)
        die("out of memory");
    diff->options = options;
    diff->out = out;
    diff->context = calloc(options->n_context + 1, sizeof *diff->context);
    if (diff->context == NULL)
        die("out of memory for the records before the difference");
    for (unsigned i = 0; i < 2 && is_open; i++) {
        is_open = trace_reader_open(&diff->side[i].reader, paths[i]);
        if (!is_open)
            snprintf(error, error_size, "%s", diff->side[i].reader.error);
    }
    for (unsigned i = 0; i < 2 && is_open; i++)
        diff->is_translated |=
            text_is(trace_record_get(&diff->side[i].reader.header, "engine"), "\"translate\"");
    if (is_open)
        result = run(diff, error, error_size);
    for (unsigned i = 0; i < 2; i++)
        trace_reader_close(&diff->side[i].reader);
    for (unsigned i = 0; i < options->n_context; i++)
        free((char *)diff->context[i].start);
    free(diff->context);
    free(diff);
    return result;
}
