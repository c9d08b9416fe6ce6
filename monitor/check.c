/*
 * ring3 check: opens a kernel as the loader does, sweeps its code and counts what it finds by the table of
 * sensitive instructions. Read next: check_print.c.
 */
#include "monitor/check.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "monitor/file.h"
#include "monitor/options.h"
#include "monitor/payload.h"
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

    if (is_reached) {
        count_row(report, insn->sensitive);
    } else {
        report->n_doubtful++;
        report->n_doubtful_holes += sensitive_is_hole(insn->sensitive);
    }
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

bool check_open_kernel_report(struct check_report *report, const struct kernel_image *kernel, char *error,
                              size_t error_size)
{
    size_t n_rows;

    sensitive_table(&n_rows);
    *report = (struct check_report){.path = kernel->path, .kernel = kernel};
    if (kernel->format == IMAGE_LINUX || kernel->format == IMAGE_BIOS)
        return file_fail(
            kernel->path, error, error_size,
            kernel->format == IMAGE_LINUX
                ? "a Linux bzImage, whose code is compressed; ring3 check unpacks it and tells what is in it"
                : "a BIOS, whose code cannot be told from its data");
    report->symbols = kernel_symbols(report->kernel);
    report->map = code_map_create(report->kernel, report->symbols, error, error_size);
    if (report->map == NULL) {
        check_close_report(report);
        return false;
    }
    report->count_by_row = calloc(n_rows, sizeof *report->count_by_row);
    if (report->count_by_row == NULL)
        die("out of memory for the report on %s", report->path);
    check_sweep_kernel(report->kernel, report->map, add_finding, report, &report->counts);
    return true;
}

/* Instead of a bzImage, the kernel in it; NULL if that fails. The bytes must live as long as it. */
static struct kernel_image *open_inner_kernel(struct kernel_image *outer, struct file_bytes *unpacked,
                                              char *error, size_t error_size)
{
    struct image_error where = {.path = outer->path, .text = error, .size = error_size};
    struct loader_config config = {.kernel_path = outer->path};
    struct kernel_image *inner = NULL;

    if (payload_unpack(outer, unpacked, &where)) {
        config.kernel_bytes = unpacked->bytes;
        config.kernel_size = unpacked->size;
        inner = kernel_open(&config, error, error_size);
    }
    kernel_close(outer);
    return inner;
}

bool check_open_report(struct check_report *report, const char *path, char *error, size_t error_size)
{
    struct loader_config config = {.kernel_path = path};
    struct kernel_image *kernel = kernel_open(&config, error, error_size);
    struct file_bytes unpacked = {0};

    if (kernel != NULL && kernel->format == IMAGE_LINUX)
        kernel = open_inner_kernel(kernel, &unpacked, error, error_size);
    if (kernel == NULL || !check_open_kernel_report(report, kernel, error, error_size)) {
        kernel_close(kernel);
        file_free(&unpacked);
        return false;
    }
    report->own_kernel = kernel;
    report->unpacked = unpacked;
    return true;
}

void check_close_report(struct check_report *report)
{
    kernel_close(report->own_kernel);
    file_free(&report->unpacked);
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

struct check_options {
    const char *path;
    bool lists_all, wants_json, wants_table;
};

#define FIELD(member) offsetof(struct check_options, member)

static const struct option options_table[] = {
    {0, "all", NULL, "list those that trap, and the doubtful ones, too", option_flag, FIELD(lists_all), NULL},
    {0, "json", NULL, "print the whole report as one JSON object", option_flag, FIELD(wants_json), NULL},
    {0, "table", NULL, "without KERNEL: print the table that all of this comes from\n(docs/sensitive.md)",
     option_flag, FIELD(wants_table), NULL},
};

static const struct command_line line = {
    .command = "ring3 check",
    .arguments = "KERNEL",
    .summary =
        "Lists the sensitive instructions of KERNEL (ELF32, multiboot 1, Linux bzImage), in the sense of\n"
        "Popek and Goldberg, says what ring 3 of this kind of host makes of each, and whether trapping\n"
        "alone runs the kernel right.",
    .epilogue =
        "Control flow is followed from the entry point, the symbols and whatever looks like a function\n"
        "pointer. What nothing leads to is listed as doubtful: it may be data. Code that is not in the\n"
        "file, and 16-bit code, is not seen.\n\n"
        "exit status:\n"
        "  0  a report was made\n"
        "  1  the kernel cannot be read\n"
        "  2  the command line is wrong\n",
    .options = options_table,
    .n_options = sizeof options_table / sizeof options_table[0],
    .max_arguments = 1,
};

static enum options_result parse_options(int argc, char **argv, struct check_options *options)
{
    enum options_result result;

    *options = (struct check_options){0};
    result = options_parse(&line, argc, argv, options, &options->path);
    if (result != OPTIONS_OK || (options->path != NULL) != options->wants_table)
        return result;
    options_usage_error(line.command, options->wants_table ? "--table takes no KERNEL" : "no KERNEL given");
    return OPTIONS_BAD;
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
    enum options_result parsed = parse_options(argc, argv, &options);
    char error[512];

    if (parsed != OPTIONS_OK)
        return parsed == OPTIONS_HELP ? EXIT_STATUS_OK : EXIT_STATUS_USAGE;
    if (options.wants_table) {
        check_print_table(stdout);
        return flush_output();
    }
    if (!check_open_report(&report, options.path, error, sizeof error)) {
        fprintf(stderr, "ring3 check: %s\n", error);
        return EXIT_STATUS_HOST;
    }
    if (options.wants_json)
        check_print_json(&report, stdout);
    else
        check_print_report(&report, options.lists_all, stdout);
    check_close_report(&report);
    return flush_output();
}
