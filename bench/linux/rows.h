/*
 * The measures, a row each: what does n operations, and what is done before and behind it while no clock
 * runs. bench/peer/linux_rows.py has the same names, and says what is promised. Read next: compute.c,
 * memory.c, process.c, files.c.
 */
#ifndef RING3_BENCH_LINUX_ROWS_H
#define RING3_BENCH_LINUX_ROWS_H

#include <stdint.h>

struct measure {
    const char *name;
    void (*prepare)(uint32_t n);
    void (*run)(uint32_t n);
    void (*finish)(void);
    uint32_t limit; /* of n in a round; 0: none */
};

/* Ended by one without a name. */
extern const struct measure compute_measures[], memory_measures[], process_measures[], file_measures[];

/* How this program calls itself to do nothing, and the path to do so. */
extern const char *own_path;
#define EXIT_COMMAND "exit"

#endif
