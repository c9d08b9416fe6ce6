/*
 * ring3 translate: shows what the translator makes of a kernel's code. Nothing is run.
 *
 * Read next: translate/show.c.
 */
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "monitor/commands.h"
#include "monitor/session.h"
#include "monitor/symbols.h"
#include "translate/show.h"
#include "translate/translate.h"
#include "vcpu/fail.h"

#define MAX_SHOWN 100000u
#define MAX_NAME  256

enum show_mode { SHOW_KERNEL, SHOW_USER };

struct translate_options {
    const char *kernel, *place;
    uint64_t n_blocks;
    int mode; /* enum show_mode */
};

/* ---- options ------------------------------------------------------------------------------------------- */

static bool set_blocks(const struct option *option, const char *value, void *field, char *error,
                       size_t error_size)
{
    uint64_t *n_blocks = field;

    (void)option;
    if (options_parse_number(value, n_blocks) && *n_blocks != 0 && *n_blocks <= MAX_SHOWN)
        return true;
    snprintf(error, error_size, "not a number from 1 to %u", MAX_SHOWN);
    return false;
}

static const char *const mode_choices[] = {[SHOW_KERNEL] = "kernel", [SHOW_USER] = "user", NULL};

#define FIELD(member) offsetof(struct translate_options, member)

static const struct option options_table[] = {
    {0, "show", "PLACE", "where the first block begins: SYMBOL, SYMBOL+HEX, or a\nhexadecimal address",
     option_string, FIELD(place), NULL},
    {'n', "blocks", "N", "how many blocks, one behind the other (default 1)", set_blocks, FIELD(n_blocks),
     NULL},
    {0, "mode", "kernel|user", "as translated for ring 0 (default) or ring 3", option_choice, FIELD(mode),
     mode_choices},
};

static const struct command_line line = {
    .command = "ring3 translate",
    .arguments = "[KERNEL]",
    .summary = "Shows code of KERNEL, or of the embedded tour guest, and the host code that the translate\n"
               "engine makes of it, side by side. Nothing is run; segments are flat.",
    .epilogue =
        "In host code eax to edi and rsp are the guest's registers; r14 is where guest memory begins,\n"
        "r15 the context, r13 the jump table, r12 the code cache; r8 to r11 are scratch.\n\n"
        "exit status:\n"
        "  0  shown\n"
        "  1  the kernel cannot be read, or there is no code at that place\n"
        "  2  the command line is wrong\n",
    .options = options_table,
    .n_options = sizeof options_table / sizeof options_table[0],
    .max_arguments = 1,
};

/* ---- the place ----------------------------------------------------------------------------------------- */

static bool parse_hex(const char *text, uint32_t *value)
{
    unsigned long number;
    char *end;

    if (!isxdigit((unsigned char)text[0]))
        return false;
    number = strtoul(text, &end, 16);
    if (number > UINT32_MAX || *end != '\0')
        return false;
    *value = (uint32_t)number;
    return true;
}

static bool find_place(const struct session *session, const char *place, uint32_t *address)
{
    const struct symbols *symbols = kernel_symbols(session->kernel);
    const char *plus = strrchr(place, '+');
    char name[MAX_NAME];
    uint32_t offset = 0;

    if (symbols_address(symbols, place, address) || parse_hex(place, address))
        return true;
    if (plus == NULL || (size_t)(plus - place) >= sizeof name || !parse_hex(plus + 1, &offset))
        return false;
    memcpy(name, place, (size_t)(plus - place));
    name[plus - place] = '\0';
    if (!symbols_address(symbols, name, address))
        return false;
    *address += offset;
    return true;
}

/* ---- the command --------------------------------------------------------------------------------------- */

static bool show(struct session *session, const struct translate_options *options)
{
    struct show_request request = {.is_user = options->mode == SHOW_USER,
                                   .n_blocks = (unsigned)options->n_blocks};

    session->engine = &translate_engine;
    session->options.kernel = options->kernel;
    if (!session_open_kernel(session, false))
        return false;
    if (!find_place(session, options->place, &request.eip)) {
        snprintf(session->error, sizeof session->error, "%s is neither a symbol nor a hexadecimal number",
                 options->place);
        return false;
    }
    request.symbols = kernel_symbols(session->kernel);
    request.bytes = kernel_bytes(session->kernel, request.eip, &request.n);
    if (request.bytes == NULL) {
        snprintf(session->error, sizeof session->error, "nothing of the file is loaded at %08x", request.eip);
        return false;
    }
    return show_blocks(&request, stdout, session->error, sizeof session->error);
}

int translate_main(int argc, char **argv)
{
    struct translate_options options = {.n_blocks = 1};
    struct session *session;
    int status = EXIT_STATUS_OK;

    switch (options_parse(&line, argc, argv, &options, &options.kernel)) {
    case OPTIONS_OK:
        break;
    case OPTIONS_HELP:
        return EXIT_STATUS_OK;
    case OPTIONS_BAD:
        return EXIT_STATUS_USAGE;
    }
    if (options.place == NULL)
        return options_usage_error(line.command, "no place given: --show PLACE");
    session = calloc(1, sizeof *session);
    if (session == NULL)
        die("out of memory");
    if (!show(session, &options)) {
        fflush(stdout);
        fprintf(stderr, "ring3: %s\n", session->error);
        status = EXIT_STATUS_HOST;
    }
    kernel_close(session->kernel);
    free(session);
    return status;
}
