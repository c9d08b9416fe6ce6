/*
 * ring3 check: which sensitive instructions a kernel holds, and what Popek & Goldberg's theorem says of it
 * here.
 *
 * What it lists is what --holes patch replaces: both take the same sweep. It sees what is in the file; code
 * that is written or loaded at run time, and 16-bit code, it does not see.
 *
 * Read next: code_map.c (what is code), sweep.c, check.c, check_print.c.
 */
#ifndef RING3_CHECK_H
#define RING3_CHECK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "decode/decode.h"
#include "monitor/code_map.h"
#include "monitor/file.h"

/* ---- the sweep ----------------------------------------------------------------------------------------- */

struct sweep_counts {
    uint64_t bytes, instructions;
    uint64_t reached; /* instructions that control flow was followed to */
    uint64_t skipped; /* bytes that are no instruction */
};

/* One that is not reached may be data that looks like it, and is not to be patched. */
typedef void sweep_found(void *context, const struct insn *insn, uint32_t address, bool is_reached);

/* Decodes `n` bytes that run at `address` as 32-bit code and hands each sensitive instruction to `found`, in
 * order of address. Between the instructions that `map` knows as reached (NULL: everything counts as
 * reached), what does not decode is skipped byte by byte. Adds to *counts. */
void check_sweep(const uint8_t *bytes, size_t n, uint32_t address, const struct code_map *map,
                 sweep_found *found, void *context, struct sweep_counts *counts);
/* The same for all of a kernel's code. */
void check_sweep_kernel(const struct kernel_image *kernel, const struct code_map *map, sweep_found *found,
                        void *context, struct sweep_counts *counts);

/* ---- the report ---------------------------------------------------------------------------------------- */

#define CHECK_MAX_FINDINGS (1u << 22) /* listed; what is beyond is counted only */

struct check_finding {
    uint32_t address;
    bool is_reached;
    const struct sensitive *row;
    uint8_t bytes[INSN_MAX_LENGTH], length;
};

struct check_report {
    const char *path; /* the caller's */
    const struct kernel_image *kernel;
    struct kernel_image *own_kernel; /* NULL: the kernel is the caller's */
    struct file_bytes unpacked;      /* own_kernel's bytes, if they were inside a bzImage */
    const struct symbols *symbols;   /* the kernel's; NULL: none */
    struct code_map *map;
    struct sweep_counts counts;
    struct check_finding *finding; /* in order of address within a range */
    size_t n_findings, capacity;
    uint64_t *count_by_row; /* for each row of the sensitive table; without the doubtful ones */
    uint64_t n_sensitive;   /* likewise; the sum of the next three */
    uint64_t n_trapping, n_depending, n_holes;
    uint64_t n_doubtful;       /* not reached: perhaps data */
    uint64_t n_doubtful_holes; /* of them those that would be holes */
};

/* Of a Linux bzImage it is the kernel inside that is looked at.
 * false: one line in `error` naming the file and the failed check, and nothing to close. */
bool check_open_report(struct check_report *report, const char *path, char *error, size_t error_size);
/* The same of a kernel that is open, and stays so. */
bool check_open_kernel_report(struct check_report *report, const struct kernel_image *kernel, char *error,
                              size_t error_size);
void check_close_report(struct check_report *report);

/* Every sensitive instruction found traps at ring 3, but for those whose operand or mode decides. */
bool check_is_classically_virtualizable(const struct check_report *report);
/* What was found, as text. */
void check_format_finding(const struct check_finding *finding, char *text, size_t size);

void check_print_report(const struct check_report *report, bool lists_all, FILE *out);
void check_print_json(const struct check_report *report, FILE *out);
/* The table of sensitive instructions as docs/sensitive.md. */
void check_print_table(FILE *out);

/* ring3 check KERNEL [--all] [--json]; ring3 check --table. argv[0] is "check". Returns the exit status: 0 a
 * report was made, 1 the file cannot be read, 2 usage. */
int check_main(int argc, char **argv);

#endif
