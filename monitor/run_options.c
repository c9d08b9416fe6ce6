/* The table of `ring3 run`'s options. Read next: cmd_run.c. */
#include "monitor/run_options.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "vcpu/fail.h"

#define DEFAULT_MEMORY     (UINT64_C(256) << 20)
#define DEFAULT_IDLE_SLACK (8 * NS_PER_MS)
#define MAX_IDLE_SLACK_MS  1000u
#define NS_PER_MS          UINT64_C(1000000)
#define MAX_ROWS           40

/* A copy of `value` that can be cut into pieces. */
static char *keep(struct run_options *options, const char *value)
{
    char *copy = strdup(value);

    if (copy == NULL)
        die("out of memory");
    options->storage[options->n_storage++] = copy;
    return copy;
}

static bool fail(char *error, size_t error_size, const char *text)
{
    snprintf(error, error_size, "%s", text);
    return false;
}

static bool add_module(const struct option *option, const char *value, void *field, char *error,
                       size_t error_size)
{
    struct run_options *options = field;
    char *path, *comma;

    (void)option;
    if (options->n_modules == LOADER_MAX_MODULES)
        return fail(error, error_size, "too many modules");
    if (value[0] == '\0' || value[0] == ',')
        return fail(error, error_size, "names no file");
    path = keep(options, value);
    comma = strchr(path, ',');
    if (comma != NULL)
        *comma++ = '\0';
    options->module[options->n_modules++] = (struct loader_module){.path = path, .command_line = comma};
    return true;
}

static bool add_drive(const struct option *option, const char *value, void *field, char *error,
                      size_t error_size)
{
    static const char suffix[] = ",snapshot";
    struct run_options *options = field;
    struct drive_config drive = {0};
    size_t length = strlen(value);
    char *path;

    (void)option;
    if (options->n_drives == BOARD_MAX_DRIVES)
        return fail(error, error_size, "too many drives: the board has two IDE channels of two");
    path = keep(options, value);
    if (length >= sizeof suffix - 1 && strcmp(path + length - (sizeof suffix - 1), suffix) == 0) {
        drive.snapshot = true;
        path[length - (sizeof suffix - 1)] = '\0';
    }
    if (path[0] == '\0')
        return fail(error, error_size, "names no file");
    drive.path = path;
    options->drive[options->n_drives++] = drive;
    return true;
}

static bool add_blob(const struct option *option, const char *value, void *field, char *error,
                     size_t error_size)
{
    struct run_options *options = field;
    struct loader_blob blob = {0};
    char *path, *at;

    (void)option;
    if (options->n_blobs == LOADER_MAX_BLOBS)
        return fail(error, error_size, "too many files");
    path = keep(options, value);
    at = strrchr(path, '@');
    if (at == NULL || at == path)
        return fail(error, error_size, "must be FILE@ADDRESS");
    *at = '\0';
    if (!options_parse_number(at + 1, &blob.gpa) || blob.gpa > UINT32_MAX)
        return fail(error, error_size, "not a 32-bit physical address");
    blob.path = path;
    options->blob[options->n_blobs++] = blob;
    return true;
}

/* What a script with nothing to say passes may be empty. */
static bool set_append(const struct option *option, const char *value, void *field, char *error,
                       size_t error_size)
{
    (void)option, (void)error, (void)error_size;
    *(const char **)field = value;
    return true;
}

/* The default, spelled out: the last of an option and its contrary counts. */
static bool clear_flag(const struct option *option, const char *value, void *field, char *error,
                       size_t error_size)
{
    (void)option, (void)value, (void)error, (void)error_size;
    *(bool *)field = false;
    return true;
}

static bool set_memory(const struct option *option, const char *value, void *field, char *error,
                       size_t error_size)
{
    uint64_t *memory = field;

    if (!option_size(option, value, field, error, error_size))
        return false;
    if (*memory < MEMORY_EXTENDED || *memory > MEMORY_MAX_RAM || *memory % PAGE_SIZE != 0)
        return fail(error, error_size, "a machine has 1M to 3G of memory, in whole 4K pages");
    return true;
}

static bool set_idle_slack(const struct option *option, const char *value, void *field, char *error,
                           size_t error_size)
{
    uint64_t milliseconds;

    (void)option;
    if (!options_parse_number(value, &milliseconds) || milliseconds > MAX_IDLE_SLACK_MS)
        return fail(error, error_size, "not a number of milliseconds from 0 to 1000");
    *(uint64_t *)field = milliseconds * NS_PER_MS;
    return true;
}

static const char *const input_choices[] = {
    [BOARD_INPUT_AUTO] = "auto", [BOARD_INPUT_UART] = "serial", [BOARD_INPUT_KEYBOARD] = "keyboard", NULL};
static const char *const boot_choices[] = {[BOOT_KERNEL] = "kernel", [BOOT_DISK] = "disk", NULL};
static const char *const holes_choices[] = {[HOLES_EXPOSE] = "expose", [HOLES_PATCH] = "patch", NULL};
static const char *const clock_choices[] = {[CLOCK_HOST] = "host", [CLOCK_VIRTUAL] = "virtual", NULL};
static const char *const console_choices[] = {[CONSOLE_STDIO] = "stdio", [CONSOLE_NONE] = "none", NULL};

#define FIELD(member) offsetof(struct run_options, member)

static const struct option options_table[] = {
    {0, "engine", "NAME",
     "how guest code runs: trap (natively; what is sensitive traps),\ntranslate (by binary translation), "
     "interpret (instruction by\ninstruction, slow), or auto: trap if ring3 check proves that\nnothing "
     "sensitive "
     "fails to trap, else translate (default)",
     option_string, FIELD(engine), NULL},
    {'m', "memory", "SIZE", "guest RAM, 1M to 3G (default 256M)", set_memory, FIELD(memory), NULL},
    {0, "append", "STRING", "command line of a Linux or multiboot kernel", set_append, FIELD(append), NULL},
    {0, "initrd", "FILE", "initial RAM disk of a Linux kernel", option_string, FIELD(initrd), NULL},
    {0, "module", "FILE[,CMDLINE]", "multiboot module; may be given several times", add_module, 0, NULL},
    {0, "load", "FILE@ADDRESS",
     "put a raw file at a physical address, over the kernel;\nmay be given several times", add_blob, 0, NULL},
    {0, "drive", "FILE[,snapshot]",
     "IDE disk from a raw image; with snapshot the file is not\nwritten; up to four", add_drive, 0, NULL},
    {0, "boot", "kernel|disk", "boot KERNEL (default), or the first disk that a BIOS can boot from",
     option_choice, FIELD(boot), boot_choices},
    {0, "bios", "FILE",
     "the BIOS of --boot disk (default: SeaBIOS of Debian's package\nseabios, bios-256k.bin)", option_string,
     FIELD(bios), NULL},
    {0, "reboot", NULL, "start the machine again when the guest resets it, instead of\nending the run",
     option_flag, FIELD(reboots), NULL},
    {0, "no-reboot", NULL, "end the run when the guest resets the machine (default)", clear_flag,
     FIELD(reboots), NULL},
    {0, "holes", "expose|patch",
     "with the trap engine, sensitive instructions that do not trap:\nleft alone (default), or found ahead "
     "of "
     "time and replaced by\nones that do",
     option_choice, FIELD(holes), holes_choices},
    {0, "clock", "host|virtual",
     "real time (default), or time that passes with exits: then two\nruns of a guest are the same",
     option_choice, FIELD(clock), clock_choices},
    {0, "idle-slack", "MS",
     "how late the tick of a guest may come in which nothing else\nhappens (default 8; 0: never late)",
     set_idle_slack, FIELD(idle_slack), NULL},
    {0, "console", "stdio|none",
     "serial port, port 0xE9 and VGA text on standard input and\noutput (default), or nowhere", option_choice,
     FIELD(console), console_choices},
    {0, "input", "auto|serial|keyboard",
     "what standard input is connected to (default: what the guest\nlistens to first)", option_choice,
     FIELD(input), input_choices},
    {0, "trace", "FILE", "write every exit to FILE as JSON Lines; -: readable lines\non standard output",
     option_string, FIELD(trace), NULL},
    {0, "stats", "FILE", "write counts and costs of exits to FILE as JSON", option_string, FIELD(stats),
     NULL},
    {0, "profile", "FILE",
     "write where the guest spent its processor time to FILE, as\nstacks with counts (for flame graphs)",
     option_string, FIELD(profile), NULL},
    {0, "timeout", "SECONDS", "stop after so many seconds of real time (exit status 4)", option_duration,
     FIELD(timeout), NULL},
    {0, "check-shadow", NULL, "debug: check the shadow page tables at every exit", option_flag,
     FIELD(check_shadow), NULL},
    {0, "no-userfaultfd", NULL, "debug: write-protect by mprotect even where userfaultfd works", option_flag,
     FIELD(no_userfaultfd), NULL},
    {0, "lockstep", NULL,
     "debug: repeat everything on a reference processor, slowly, and\nstop at the first difference",
     option_flag, FIELD(lockstep), NULL},
};

static const struct command_line line = {
    .command = "ring3 run",
    .arguments = "[KERNEL]",
    .summary = "Boots KERNEL, an ELF32 or multiboot 1 file or a 32-bit Linux bzImage, or without one the\n"
               "embedded tour guest; or a disk (--boot disk).\n"
               "On a terminal, Ctrl-A x quits and Ctrl-A h lists the keys; Ctrl-C goes to the guest.",
    .epilogue = "exit status:\n"
                "  0  the guest switched the power off, reset, or halted with interrupts off\n"
                "  1  the host or the monitor failed\n"
                "  2  the command line is wrong\n"
                "  3  the guest died: triple fault, or a state that cannot be run\n"
                "  4  --timeout\n"
                "  (v << 1) | 1 after the guest wrote v to isa-debug-exit (port 0xf4)\n",
    .options = options_table,
    .n_options = sizeof options_table / sizeof options_table[0],
    .max_arguments = 1,
};

void run_options_init(struct run_options *options)
{
    *options = (struct run_options){.memory = DEFAULT_MEMORY, .idle_slack = DEFAULT_IDLE_SLACK};
}

static bool has_option(const struct command_line *command, const char *name)
{
    for (size_t i = 0; i < command->n_options; i++)
        if (strcmp(command->options[i].name, name) == 0)
            return true;
    return false;
}

/* What no kernel would see, or no disk. */
static const char *find_contradiction(const struct run_options *options)
{
    if (options->boot == BOOT_KERNEL)
        return options->bios != NULL ? "--bios is for --boot disk" : NULL;
    if (options->kernel != NULL)
        return "--boot disk boots what is on the disk: it takes no KERNEL";
    if (options->append != NULL || options->initrd != NULL || options->n_modules != 0)
        return "--append, --initrd and --module are for a KERNEL, and --boot disk takes none";
    if (options->n_drives == 0)
        return "--boot disk needs a disk: --drive FILE";
    return NULL;
}

static enum options_result parse_whole(const struct command_line *command, int argc, char **argv,
                                       struct run_options *options)
{
    enum options_result result = options_parse(command, argc, argv, options, &options->kernel);
    const char *contradiction = result == OPTIONS_OK ? find_contradiction(options) : NULL;

    if (contradiction == NULL)
        return result;
    options_usage_error(command->command, "%s", contradiction);
    return OPTIONS_BAD;
}

enum options_result run_options_parse_for(const struct command_line *command, int argc, char **argv,
                                          struct run_options *options)
{
    struct option rows[MAX_ROWS];
    struct command_line whole = *command;

    BUG_ON(command->n_options + sizeof options_table / sizeof options_table[0] > MAX_ROWS);
    memcpy(rows, command->options, command->n_options * sizeof rows[0]);
    for (size_t i = 0; i < sizeof options_table / sizeof options_table[0]; i++)
        if (!has_option(command, options_table[i].name))
            rows[whole.n_options++] = options_table[i];
    whole.options = rows;
    return parse_whole(&whole, argc, argv, options);
}

enum options_result run_options_parse(struct run_options *options, int argc, char **argv)
{
    run_options_init(options);
    return parse_whole(&line, argc, argv, options);
}

void run_options_free(struct run_options *options)
{
    for (unsigned i = 0; i < options->n_storage; i++)
        free(options->storage[i]);
    options->n_storage = 0;
}
