/* The command line of `ring3 run`, and of the commands that start a machine in the same way. */
#ifndef RING3_RUN_OPTIONS_H
#define RING3_RUN_OPTIONS_H

#include "monitor/loader.h"
#include "monitor/options.h"

enum console_mode { CONSOLE_STDIO, CONSOLE_NONE };
enum boot_mode { BOOT_KERNEL, BOOT_DISK };

struct run_options {
    const char *kernel; /* NULL: the embedded guest */
    const char *engine;
    uint64_t memory; /* bytes */
    const char *append, *initrd;
    const char *bios; /* NULL: Debian's SeaBIOS */
    struct loader_module module[LOADER_MAX_MODULES];
    unsigned n_modules;
    struct loader_blob blob[LOADER_MAX_BLOBS];
    unsigned n_blobs;
    struct drive_config drive[BOARD_MAX_DRIVES];
    unsigned n_drives;
    int boot;    /* enum boot_mode */
    int holes;   /* enum holes_mode */
    int clock;   /* enum clock_mode */
    int console; /* enum console_mode */
    int input;   /* enum board_input */
    const char *trace, *stats, *profile;
    uint64_t timeout;    /* ns; 0: none */
    uint64_t idle_slack; /* ns: see idle.h */
    bool reboots;
    bool check_shadow, no_userfaultfd, lockstep;
    /* What the strings above point into. */
    char *storage[LOADER_MAX_MODULES + LOADER_MAX_BLOBS + BOARD_MAX_DRIVES];
    unsigned n_storage;
};

/* Sets the defaults, then parses. */
enum options_result run_options_parse(struct run_options *options, int argc, char **argv);
/* For another command with these options: what they are when none is given; and the parser, with rows of the
 * command's own (which hide those of the same name). The rows' fields are offsets from *options. */
void run_options_init(struct run_options *options);
enum options_result run_options_parse_for(const struct command_line *command, int argc, char **argv,
                                          struct run_options *options);
void run_options_free(struct run_options *options);

#endif
