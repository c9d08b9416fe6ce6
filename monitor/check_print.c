/* The report of ring3 check for people and for programs, and the table as a page of the documentation.
 * Read next: holes.c, which patches what is reported. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "monitor/check.h"

/* ---- what a row means to the report -------------------------------------------------------------------- */

enum part { PART_HOLES, PART_DEPENDING, PART_TRAPPING, PART_COUNT };

static const struct {
    const char *title;
} parts[PART_COUNT] = {
    [PART_HOLES] = {"Holes: ring 3 runs them, or may, and the monitor does not see it"},
    [PART_DEPENDING] = {"By operand or mode: they trap where a kernel needs it"},
    [PART_TRAPPING] = {"Trapped: the processor hands them to the monitor"},
};

static enum part part_of(const struct sensitive *row)
{
    if (sensitive_is_hole(row))
        return PART_HOLES;
    return row->substrate == SUBSTRATE_CONDITIONAL ? PART_DEPENDING : PART_TRAPPING;
}

/* The address as the reader knows it: function+offset, or nothing. */
static void print_symbol(const struct check_report *report, uint32_t address, FILE *out)
{
    uint32_t offset = 0;
    const char *name = symbols_find(report->symbols, address, &offset);
    int width = 0;

    if (name != NULL) {
        for (; *name != '\0'; name++, width++)
            fputc((unsigned char)*name < ' ' || *name == 0x7f ? '?' : *name, out); /* the file is hostile */
        width += fprintf(out, "+0x%x", offset);
    }
    fprintf(out, "%*s", width < 32 ? 32 - width : 1, "");
}

void check_format_finding(const struct check_finding *finding, char *text, size_t size)
{
    struct insn insn;

    text[0] = '\0';
    if (decode_insn(finding->bytes, finding->length, 4, &insn) == DECODE_OK)
        decode_format(&insn, finding->address, text, size);
}

/* ---- the verdict --------------------------------------------------------------------------------------- */

static const char *verdict(const struct check_report *report)
{
    if (report->n_sensitive == 0)
        return "Classically virtualizable here: it holds no sensitive instruction at all.";
    if (check_is_classically_virtualizable(report))
        return "Classically virtualizable here: every sensitive instruction traps at ring 3.";
    return "Not classically virtualizable here: sensitive instructions run at ring 3 without a trap\n"
           "(Popek and Goldberg 1974, theorem 1, asks that all of them trap).";
}

static const char *engine_options(const struct check_report *report)
{
    if (report->unpacked.size != 0) /* what a bzImage unpacks while it runs, nobody can patch before */
        return "--engine translate";
    return check_is_classically_virtualizable(report) ? "--engine trap" : "--engine trap --holes patch";
}

static void print_advice(const struct check_report *report, FILE *out)
{
    if (report->unpacked.size != 0) {
        fputs(
            "The bzImage unpacks this code while it runs, so it cannot be patched before. Translation runs\n"
            "everything right: --engine translate.\n",
            out);
        return;
    }
    fprintf(out,
            "Trapping alone runs it right with %s. Translation runs everything right:\n"
            "--engine translate.\n",
            engine_options(report));
    if (!check_is_classically_virtualizable(report))
        fprintf(out,
                "Patching puts a byte that traps in place of each of the %" PRIu64
                " holes before the start; left\n"
                "exposed (--holes expose) they are a lesson, and the kernel may well notice.\n",
                report->n_holes);
    if (report->n_doubtful != 0)
        fprintf(out,
                "Nothing was seen to lead to the %" PRIu64 " doubtful ones%s: they may be data, and are not\n"
                "patched. If they are code after all, only translation is exact.\n",
                report->n_doubtful, report->symbols == NULL ? " (there are no symbols)" : "");
}

/* ---- for people ---------------------------------------------------------------------------------------- */

static void print_summary(const struct check_report *report, FILE *out)
{
    if (report->unpacked.size != 0)
        fprintf(out, "%s: a Linux bzImage; this is of the kernel in it, an ELF file of %zu bytes\n",
                report->path, report->unpacked.size);
    fprintf(out, "%s: %" PRIu64 " bytes of code, %" PRIu64 " instructions, %" PRIu64 " of them followed\n",
            report->path, report->counts.bytes, report->counts.instructions, report->counts.reached);
    fprintf(out,
            "Sensitive: %" PRIu64 ": %" PRIu64 " trap, %" PRIu64 " by operand or mode, %" PRIu64
            " holes; and %" PRIu64 " doubtful\n",
            report->n_sensitive, report->n_trapping, report->n_depending, report->n_holes,
            report->n_doubtful);
}

static void print_rows(const struct check_report *report, enum part part, FILE *out)
{
    size_t n_rows;
    const struct sensitive *rows = sensitive_table(&n_rows);
    bool has_title = false;

    for (size_t i = 0; i < n_rows; i++) {
        if (report->count_by_row[i] == 0 || part_of(&rows[i]) != part)
            continue;
        if (!has_title)
            fprintf(out, "\n%s\n", parts[part].title);
        has_title = true;
        fprintf(out, "%7" PRIu64 "  %-20s %-17s  %s\n", report->count_by_row[i], rows[i].name,
                sensitive_class_name(&rows[i]), rows[i].state);
        if (part != PART_TRAPPING)
            fprintf(out, "%31s%s\n", "", rows[i].note);
    }
}

static const char *finding_mark(const struct check_finding *finding)
{
    if (!finding->is_reached)
        return "doubtful";
    return part_of(finding->row) == PART_HOLES ? "hole" : "";
}

static void print_findings(const struct check_report *report, bool lists_all, FILE *out)
{
    fprintf(out, "\nWhere%s\n", lists_all ? "" : " (--all: those that trap, and the doubtful ones, too)");
    for (size_t i = 0; i < report->n_findings; i++) {
        const struct check_finding *finding = &report->finding[i];
        char text[96];

        if (!lists_all && (!finding->is_reached || part_of(finding->row) == PART_TRAPPING))
            continue;
        check_format_finding(finding, text, sizeof text);
        fprintf(out, "  %08x  ", finding->address);
        if (report->symbols != NULL)
            print_symbol(report, finding->address, out);
        fprintf(out, "%-*s%s\n", lists_all ? 10 : 6, finding_mark(finding), text);
    }
    if (report->n_findings == CHECK_MAX_FINDINGS)
        fprintf(out, "  (no more than %u are listed)\n", CHECK_MAX_FINDINGS);
}

void check_print_report(const struct check_report *report, bool lists_all, FILE *out)
{
    print_summary(report, out);
    for (unsigned part = 0; part < PART_COUNT; part++)
        print_rows(report, (enum part)part, out);
    if (report->n_holes + report->n_depending != 0 || (lists_all && report->n_findings != 0))
        print_findings(report, lists_all, out);
    fprintf(out, "\n%s\n", verdict(report));
    print_advice(report, out);
}

/* ---- for programs -------------------------------------------------------------------------------------- */

/* File and symbol names are bytes of any kind: what is not printable ASCII becomes an escape of its value. */
static void print_string(const char *text, FILE *out)
{
    fputc('"', out);
    for (; *text != '\0'; text++) {
        unsigned char c = (unsigned char)*text;

        if (c == '"' || c == '\\')
            fprintf(out, "\\%c", c);
        else if (c < ' ' || c >= 0x7f)
            fprintf(out, "\\u%04x", c);
        else
            fputc(c, out);
    }
    fputc('"', out);
}

static void print_bool(const char *key, bool value, FILE *out)
{
    fprintf(out, "\"%s\":%s", key, value ? "true" : "false");
}

static void print_json_rows(const struct check_report *report, FILE *out)
{
    size_t n_rows;
    const struct sensitive *rows = sensitive_table(&n_rows);
    const char *comma = "";

    for (size_t i = 0; i < n_rows; i++) {
        if (report->count_by_row[i] == 0)
            continue;
        fprintf(out, "%s\n    {\"name\":", comma);
        print_string(rows[i].name, out);
        fprintf(out, ",\"class\":\"%s\",", sensitive_class_name(&rows[i]));
        print_bool("privileged", rows[i].is_privileged, out);
        fprintf(out, ",\"substrate\":\"%s\",", substrate_name(rows[i].substrate));
        print_bool("hole", sensitive_is_hole(&rows[i]), out);
        fprintf(out, ",\"count\":%" PRIu64 "}", report->count_by_row[i]);
        comma = ",";
    }
}

static void print_json_findings(const struct check_report *report, FILE *out)
{
    for (size_t i = 0; i < report->n_findings; i++) {
        const struct check_finding *finding = &report->finding[i];
        uint32_t offset = 0;
        const char *symbol = symbols_find(report->symbols, finding->address, &offset);
        char text[96];

        fprintf(out, "%s\n    {\"address\":\"0x%08x\",\"symbol\":", i == 0 ? "" : ",", finding->address);
        if (symbol != NULL)
            print_string(symbol, out);
        else
            fputs("null", out);
        fprintf(out, ",\"offset\":%u,\"bytes\":\"", offset);
        for (unsigned k = 0; k < finding->length; k++)
            fprintf(out, "%02x", finding->bytes[k]);
        check_format_finding(finding, text, sizeof text);
        fputs("\",\"text\":", out);
        print_string(text, out);
        fputs(",\"name\":", out);
        print_string(finding->row->name, out);
        fputc(',', out);
        print_bool("hole", sensitive_is_hole(finding->row), out);
        fputc(',', out);
        print_bool("doubtful", !finding->is_reached, out);
        fputc('}', out);
    }
}

void check_print_json(const struct check_report *report, FILE *out)
{
    size_t n_ranges;
    const struct image_section *range = code_map_ranges(report->map, &n_ranges);

    fputs("{\"version\":1,\n  \"file\":", out);
    print_string(report->path, out);
    fputs(",\n  \"code\":[", out);
    for (size_t i = 0; i < n_ranges; i++)
        fprintf(out, "%s{\"address\":\"0x%08x\",\"size\":%u}", i == 0 ? "" : ",", range[i].gva,
                range[i].size);
    fprintf(out,
            "],\n  \"bytes\":%" PRIu64 ",\"instructions\":%" PRIu64 ",\"reached\":%" PRIu64
            ",\"skipped\":%" PRIu64 ",\n  \"sensitive\":%" PRIu64 ",\"trapping\":%" PRIu64
            ",\"conditional\":%" PRIu64 ",\"holes\":%" PRIu64 ",\"doubtful\":%" PRIu64 ",\n  ",
            report->counts.bytes, report->counts.instructions, report->counts.reached, report->counts.skipped,
            report->n_sensitive, report->n_trapping, report->n_depending, report->n_holes,
            report->n_doubtful);
    print_bool("symbols", report->symbols != NULL, out);
    fputs(",\n  ", out);
    print_bool("classically_virtualizable", check_is_classically_virtualizable(report), out);
    fprintf(out, ",\"options\":\"%s\",\n  \"by_instruction\":[", engine_options(report));
    print_json_rows(report, out);
    fputs("],\n  \"found\":[", out);
    print_json_findings(report, out);
    fputs("]}\n", out);
}

/* ---- for the documentation ----------------------------------------------------------------------------- */

static const char *handler_name(enum sensitive_handler handler)
{
    static const char *const names[] = {
#define SENSITIVE_HANDLER(name) [HANDLE_##name] = #name,
#include "decode/sensitive_handlers.def"
#undef SENSITIVE_HANDLER
    };

    return names[handler];
}

void check_print_table(FILE *out)
{
    size_t n;
    const struct sensitive *rows = sensitive_table(&n);

    fputs(
        "# The sensitive instructions\n"
        "\n"
        "This page is printed by `ring3 check --table` from `decode/sensitive.def`; do not edit it.\n"
        "\n"
        "An instruction is *sensitive* (Popek and Goldberg, 1974) if it changes the state of the machine\n"
        "(**control**) or depends on it (**behaviour**); it is *privileged* if the architecture faults it\n"
        "outside ring 0. A machine can be virtualized by trapping alone if every sensitive instruction is\n"
        "privileged. The i386 fails that: **RI** marks the list of Robin and Irvine (2000). The column *at\n"
        "ring 3* says what a 64-bit Linux host makes of the instruction in an unprivileged process, and\n"
        "*patched* which ones `--holes patch` replaces, because there are cases that nobody would see.\n"
        "`tests/unit/test_substrate.c` executes every row and compares.\n"
        "\n"
        "Not in the table: BSF and BSR with a meaningless F3 prefix. The virtual CPU ignores the prefix; a\n"
        "host with TZCNT and LZCNT runs those instead, which differ in the flags, for a source of 0, and "
        "for\n"
        "LZCNT in the result. Nothing that a compiler makes for a processor without them can tell.\n"
        "\n"
        "| instruction | privileged | class | list | at ring 3 | patched | state | note | handler |\n"
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |\n",
        out);
    for (size_t i = 0; i < n; i++)
        fprintf(out, "| %s | %s | %s | %s | %s | %s | %s | %s | %s |\n", rows[i].name,
                rows[i].is_privileged ? "yes" : "", sensitive_class_name(&rows[i]),
                rows[i].in_robin_irvine ? "RI" : "", substrate_name(rows[i].substrate),
                sensitive_is_hole(&rows[i]) ? "yes" : "", rows[i].state, rows[i].note,
                handler_name(rows[i].handler));
}
