/*
 * ring3 check: opens a kernel as the loader does, sweeps its code and counts what it finds by the table of
 * sensitive instructions. Read next: check_print.c.
 */
#include "monitor/check.h"

#include <errno.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>

#include "monitor/file.h"
#include "vcpu/fail.h"

/* ---- the report ---------------------------------------------------------------------------------------- */

static void count_row(struct check_report *report, const struct sensitive *row)
{
    size_t n_rows;
    const struct sensitive *rows = sensitive_table(&n_rows);

    report->count_by_row[row - rows]++;
    report->n_sensitive++;
    if (sensitive_is_hole(row))
        report->n_holes++;
    else if (row->substrate == SUBSTRATE_CONDITIONAL)
        report->n_depending++;
    else
        report->n_trapping++;
}

static void add_finding(void *context, const struct insn *insn, uint32_t address, bool is_reached)
{
    struct check_report *report = context;
    struct check_finding *finding;

    if (is_reached)
        count_row(report, insn->sensitive);
    else
        report->n_doubtful++;
    if (report->n_findings == CHECK_MAX_FINDINGS)
        return;
    if (report->n_findings == report->capacity) {
        report->capacity = report->capacity == 0 ? 256 : report->capacity * 2;
        report->finding = realloc(report->finding, report->capacity * sizeof *report->finding);
        if (report->finding == NULL)
            die("out of memory for what was found in %s", report->path);
    }
    finding = &report->finding[report->n_findings++];
    *finding = (struct check_finding){
        .address = address, .is_reached = is_reached, .row = insn->sensitive, .length = insn->length};
    memcpy(finding->bytes, insn->bytes, insn->length);
}

bool check_open_report(struct check_report *report, const char *path, char *error, size_t error_size)
{
    struct loader_config config = {.kernel_path = path};
    size_t n_rows;

    sensitive_table(&n_rows);
    *report = (struct check_report){.path = path};
    report->kernel = kernel_open(&config, error, error_size);
    if (report->kernel == NULL)
        return false;
    report->symbols = kernel_symbols(report->kernel);
    report->map = code_map_create(report->kernel, report->symbols, error, error_size);
    if (report->map == NULL) {
        check_close_report(report);
        return false;
    }
    report->count_by_row = calloc(n_rows, sizeof *report->count_by_row);
    if (report->count_by_row == NULL)
        die("out of memory for the report on %s", path);
    check_sweep_kernel(report->kernel, report->map, add_finding, report, &report->counts);
    return true;
}

void check_close_report(struct check_report *report)
{
    kernel_close(report->kernel);
    code_map_free(report->map);
    free(report->finding);
    free(report->count_by_row);
    *report = (struct check_report){0};
}

bool check_is_classically_virtualizable(const struct check_report *report)
{
    return report->n_holes == 0;
}

/* ---- the command --------------------------------------------------------------------------------------- */

static const char usage[] =
    "Usage: ring3 check [--all] [--json] KERNEL\n"
    "       ring3 check --table\n"
    "\n"
    "Lists the sensitive instructions of a kernel (ELF32 or multiboot), in the sense of Popek and Goldberg,\n"
    "says what ring 3 of this kind of host makes of each, and whether trapping alone runs the kernel right.\n"
    "\n"
    "  --all    list those that trap, and the doubtful ones, too\n"
    "  --json   the whole report as one JSON object\n"
    "  --table  print the table that all of this comes from (docs/sensitive.md) and end\n"
    "  --help   this text\n"
    "\n"
    "Control flow is followed from the entry point, the symbols and whatever looks like a function pointer.\n"
    "What nothing leads to is listed as doubtful: it may be data. Code that is not in the file, and 16-bit\n"
    "code, is not seen.\n"
    "\n"
    "Exit status: 0 a report was made; 1 the kernel cannot be read; 2 usage.\n";

struct check_options {
    const char *path;
    bool lists_all, wants_json, wants_table, wants_help;
};

static bool parse_options(int argc, char **argv, struct check_options *options)
{
    enum { OPTION_ALL = 256, OPTION_JSON, OPTION_TABLE, OPTION_HELP };
    static const struct option known[] = {{"all", no_argument, NULL, OPTION_ALL},
                                          {"json", no_argument, NULL, OPTION_JSON},
                                          {"table", no_argument, NULL, OPTION_TABLE},
                                          {"help", no_argument, NULL, OPTION_HELP},
                                          {0}};
    int option;

    *options = (struct check_options){0};
    optind = 0; /* glibc: start over, whoever parsed before */
    while ((option = getopt_long(argc, argv, "h", known, NULL)) != -1) {
        if (option == OPTION_ALL)
            options->lists_all = true;
        else if (option == OPTION_JSON)
            options->wants_json = true;
        else if (option == OPTION_TABLE)
            options->wants_table = true;
        else if (option == OPTION_HELP || option == 'h')
            options->wants_help = true;
        else
            return false;
    }
    if (options->wants_help)
        return true;
    if (options->wants_table)
        return optind == argc;
    if (optind + 1 != argc) {
        fprintf(stderr, "ring3 check: %s\n",
                optind == argc ? "no KERNEL given" : "more than one KERNEL given");
        return false;
    }
    options->path = argv[optind];
    return true;
}

static int flush_output(void)
{
    if (fflush(stdout) == 0 && !ferror(stdout))
        return 0;
    fprintf(stderr, "ring3 check: the report cannot be written: %s\n", strerror(errno));
    return 1;
}

int check_main(int argc, char **argv)
{
    struct check_options options;
    struct check_report report;
    char error[512];

    if (!parse_options(argc, argv, &options)) {
        fputs("Try 'ring3 check --help'.\n", stderr);
        return 2;
    }
    if (options.wants_help || options.wants_table) {
        if (options.wants_help)
            fputs(usage, stdout);
        else
            check_print_table(stdout);
        return flush_output();
    }
    if (!check_open_report(&report, options.path, error, sizeof error)) {
        fprintf(stderr, "ring3 check: %s\n", error);
        return 1;
    }
    if (options.wants_json)
        check_print_json(&report, stdout);
    else
        check_print_report(&report, options.lists_all, stdout);
    check_close_report(&report);
    return flush_output();
}
