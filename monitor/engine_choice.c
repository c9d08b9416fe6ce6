/*
 * --engine auto: the guest traps where Popek and Goldberg's theorem holds, and is translated where it does
 * not. The theorem's premise is checked, not hoped for: `ring3 check` must have seen all of the code, and
 * each sensitive instruction in it must trap.
 *
 * Read next: check.h.
 */
#include "monitor/engine_choice.h"

#include <inttypes.h>
#include <stdio.h>

#include "monitor/check.h"

#define TEXT_SIZE 96

/* What a machine is given beside the kernel may be code, too. */
static const char *unseen_file(const struct loader_config *config, const struct drive_config *drives,
                               unsigned n_drives)
{
    if (config->n_blobs != 0)
        return config->blob[0].path;
    if (config->n_modules != 0)
        return config->module[0].path;
    return n_drives != 0 ? drives[0].path : NULL;
}

static bool is_hole(const struct check_finding *finding, bool is_reached)
{
    return finding->is_reached == is_reached && sensitive_is_hole(finding->row);
}

/* "pushfd at 00100123, function+0x4" */
static void describe_first_hole(const struct check_report *report, bool is_reached, char *text, size_t size)
{
    const struct check_finding *finding = report->finding, *end = finding + report->n_findings;
    char insn[TEXT_SIZE];
    const char *symbol;
    uint32_t offset;

    while (finding < end && !is_hole(finding, is_reached))
        finding++;
    if (finding == end) { /* beyond those that are listed */
        snprintf(text, size, "far into it");
        return;
    }
    check_format_finding(finding, insn, sizeof insn);
    symbol = symbols_find(report->symbols, finding->address, &offset);
    if (symbol == NULL)
        snprintf(text, size, "%s at %08x", insn, finding->address);
    else
        snprintf(text, size, "%s at %08x, %.40s+0x%x", insn, finding->address, symbol, offset);
    for (char *c = text; *c != '\0'; c++) /* the file is hostile */
        if ((unsigned char)*c < ' ' || *c == 0x7f)
            *c = '?';
}

static const char *plural(uint64_t n)
{
    return n == 1 ? "" : "s";
}

static bool judge(const struct check_report *report, char *why, size_t size)
{
    char first[2 * TEXT_SIZE];

    if (report->n_holes != 0) {
        describe_first_hole(report, true, first, sizeof first);
        snprintf(why, size, "the kernel has %" PRIu64 " hole%s (first: %s)", report->n_holes,
                 plural(report->n_holes), first);
        return false;
    }
    if (report->n_doubtful_holes != 0) {
        describe_first_hole(report, false, first, sizeof first);
        snprintf(why, size, "the kernel has what may be data or %" PRIu64 " hole%s (first: %s)",
                 report->n_doubtful_holes, plural(report->n_doubtful_holes), first);
        return false;
    }
    snprintf(why, size, "each sensitive instruction of the kernel traps");
    return true;
}

bool engine_choice_traps(const struct kernel_image *kernel, const struct loader_config *config,
                         const struct drive_config *drives, unsigned n_drives, char *why, size_t size)
{
    struct check_report report;
    const char *unseen;
    char error[256];
    bool is_proven;

    if (config->holes == HOLES_PATCH) {
        snprintf(why, size, "--holes patch asks for it");
        return true;
    }
    unseen = unseen_file(config, drives, n_drives);
    if (unseen != NULL) {
        snprintf(why, size, "%s may hold code with holes", unseen);
        return false;
    }
    if (!check_open_kernel_report(&report, kernel, error, sizeof error)) {
        snprintf(why, size, "the kernel cannot be checked: %s", error);
        return false;
    }
    is_proven = judge(&report, why, size);
    check_close_report(&report);
    return is_proven;
}
