/*
 * bench: every speed and size that ring3 promises, measured against its yardstick on the same machine in the
 * same minute.
 *
 * A row compares two *sides*. Each side lives in a process of its own (the machine's has its window, its
 * signal handlers and its sandbox; the yardstick has none of them) and does short rounds when told to, in
 * turn with the other side, on the same core. A round is measured in CPU time of its thread, so that waiting
 * for the core does not count. The row's figure is the median of the ratios of adjacent rounds.
 *
 * Read next: main.c (the rows), worker.c (rounds and medians), bare.c, native.c, machine.c (the sides),
 * process.c (whole processes: start-up and memory).
 */
#ifndef RING3_BENCH_H
#define RING3_BENCH_H

#include <stdbool.h>
#include <stdint.h>

#include "bench/guest.h"

/* ---- sides --------------------------------------------------------------------------------------------- */

struct side {
    void (*open)(const struct side *side); /* in the process of the side, once */
    uint32_t (*round)(const struct side *side);
    void (*prepare)(const struct side *side); /* before each round, not measured; may be NULL */
    uint32_t n;                               /* operations a round: what a round's time is divided by */
    enum guest_entry entry;                   /* for native.c and machine.c */
    uint32_t argument;       /* for compute entries; what it computes is compared between the sides */
    uint32_t stride;         /* of memory touches, in pages */
    uint32_t accessed_dirty; /* PTE_A, PTE_D in the touched entries, before */
    bool is_user;            /* machine.c: guest code runs at CPL 3 */
};

/* bare.c: what the host's kernel takes, without ring3 */
void bare_trap_open(const struct side *side);
uint32_t bare_trap_round(const struct side *side);
void bare_fill_open(const struct side *side);
void bare_fill_prepare(const struct side *side);
uint32_t bare_fill_round(const struct side *side);

/* native.c: the image in compatibility mode of an ordinary process */
void native_open(const struct side *side);
uint32_t native_round(const struct side *side);

/* machine.c: the image as a guest of the trap engine, through the complete run loop */
void machine_open(const struct side *side);
void machine_prepare(const struct side *side);
uint32_t machine_round(const struct side *side);

/* ---- measuring ----------------------------------------------------------------------------------------- */

struct summary {
    double median, low, high; /* quartiles */
};

struct comparison {
    struct summary subject, yardstick; /* ns an operation */
    struct summary ratio;
};

/* false: one line in `error`. */
bool compare_sides(const struct side *subject, const struct side *yardstick, unsigned n_rounds,
                   struct comparison *comparison, char *error, unsigned error_size);
struct summary summarize(double *values, unsigned n); /* sorts them */

/* process.c: `program` is ring3. */
bool measure_start(const char *program, const char *kernel, unsigned n_rounds, struct summary *wall_ns,
                   struct summary *cpu_ns, char *error, unsigned error_size);

struct footprint {
    unsigned anon_kib, file_kib, page_table_kib; /* RssAnon, RssFile, VmPTE */
};

/* Runs `ring3 run arguments...` with `input` typed until `until` has appeared on its standard output. */
bool measure_footprint(const char *program, const char *const *arguments, const char *input,
                       const char *until, struct footprint *footprint, char *error, unsigned error_size);

/* uboot.c */
struct uboot {
    const char *kernel;
    char tree[32]; /* a temporary file */
    char load[64]; /* for --load */
};

bool uboot_prepare(struct uboot *uboot); /* false: it is not installed */
void uboot_clean_up(const struct uboot *uboot);

extern const uint8_t bench_image[], bench_image_end[]; /* image.S */

#endif
