/*
 * ring3 doctor: what this host offers to the engines, what is missing, and what follows from it. What is
 * probed, and how, is signals/probe.c's.
 *
 * Read next: signals/probe.c.
 */
#include <stdio.h>
#include <string.h>

#include "monitor/commands.h"
#include "monitor/options.h"
#include "signals/signals.h"

#define EXIT_CANNOT_RUN 1

struct doctor_options {
    bool is_json;
};

static const struct option doctor_options[] = {
    {0, "json", NULL, "print a JSON object instead of a table", option_flag,
     offsetof(struct doctor_options, is_json), NULL},
};

static const struct command_line doctor_line = {
    .command = "ring3 doctor",
    .arguments = "",
    .summary = "Tries what ring3 needs of this host, and tells what is missing and what follows from it.",
    .epilogue = "exit status:\n"
                "  0  guests can be run\n"
                "  1  something that the trap engine needs is missing\n"
                "  2  the command line is wrong\n",
    .options = doctor_options,
    .n_options = sizeof doctor_options / sizeof doctor_options[0],
};

/* ---- the table ----------------------------------------------------------------------------------------- */

static const char *verdict_word(const struct host_probe *probe)
{
    if (probe->is_available)
        return "yes";
    return probe->is_required ? "MISSING" : "no";
}

static void print_table(const struct host_probe *probes, size_t n)
{
    int name_width = 0;

    for (size_t i = 0; i < n; i++)
        if ((int)strlen(probes[i].name) > name_width)
            name_width = (int)strlen(probes[i].name);
    for (size_t i = 0; i < n; i++) {
        printf("%-*s  %-7s  %s\n", name_width, probes[i].name, verdict_word(&probes[i]), probes[i].detail);
        if (!probes[i].is_available)
            printf("%*s  %7s  -> %s\n", name_width, "", "", probes[i].consequence);
    }
}

/* Missing, and of this weight for the trap engine? */
static bool is_missing(const struct host_probe *probe, bool is_required)
{
    bool is_other_engines = probe->is_needed_by_translate && !probe->is_required;

    return !probe->is_available && probe->is_required == is_required && !is_other_engines;
}

static void print_names(const struct host_probe *probes, size_t n, bool is_required)
{
    const char *separator = "";

    for (size_t i = 0; i < n; i++) {
        if (!is_missing(&probes[i], is_required))
            continue;
        printf("%s%s", separator, probes[i].name);
        separator = ", ";
    }
}

static size_t count_missing(const struct host_probe *probes, size_t n, bool is_required)
{
    size_t missing = 0;

    for (size_t i = 0; i < n; i++)
        missing += is_missing(&probes[i], is_required);
    return missing;
}

static bool can_translate(const struct host_probe *probes, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (probes[i].is_needed_by_translate && !probes[i].is_available)
            return false;
    return true;
}

static void print_verdict(const struct host_probe *probes, size_t n)
{
    if (count_missing(probes, n, true) != 0) {
        printf("\nThe trap engine cannot run here. Missing: ");
        print_names(probes, n, true);
        printf(".\n");
    } else if (count_missing(probes, n, false) != 0) {
        printf("\nThe trap engine runs here (--engine trap), without: ");
        print_names(probes, n, false);
        printf(".\n");
    } else {
        printf("\nThe trap engine runs here (--engine trap), with everything it can use.\n");
    }
    printf("The translate engine %s here (--engine translate).\n",
           can_translate(probes, n) ? "runs" : "cannot run");
}

/* ---- JSON ---------------------------------------------------------------------------------------------- */

/* Our own words and the host's numbers: nothing that needs escaping but these two. */
static void print_json_string(const char *text)
{
    putchar('"');
    for (; *text != '\0'; text++) {
        if (*text == '"' || *text == '\\')
            putchar('\\');
        putchar(*text);
    }
    putchar('"');
}

static void print_json(const struct host_probe *probes, size_t n)
{
    printf("{\n  \"ring3-doctor\": 1,\n  \"engines\": {\"trap\": %s, \"translate\": %s},\n  \"host\": {",
           count_missing(probes, n, true) == 0 ? "true" : "false",
           can_translate(probes, n) ? "true" : "false");
    for (size_t i = 0; i < n; i++) {
        printf("%s\n    ", i == 0 ? "" : ",");
        print_json_string(probes[i].name);
        printf(": {\"available\": %s, \"required\": %s, \"detail\": ",
               probes[i].is_available ? "true" : "false", probes[i].is_required ? "true" : "false");
        print_json_string(probes[i].detail);
        if (!probes[i].is_available) {
            printf(", \"consequence\": ");
            print_json_string(probes[i].consequence);
        }
        putchar('}');
    }
    printf("\n  }\n}\n");
}

int doctor_main(int argc, char **argv)
{
    struct doctor_options options = {0};
    struct host_probe probes[HOST_PROBES_MAX];
    size_t n;

    switch (options_parse(&doctor_line, argc, argv, &options, NULL)) {
    case OPTIONS_OK:
        break;
    case OPTIONS_HELP:
        return EXIT_STATUS_OK;
    case OPTIONS_BAD:
        return EXIT_STATUS_USAGE;
    }
    n = signals_probe_host(probes, HOST_PROBES_MAX);
    if (options.is_json) {
        print_json(probes, n);
    } else {
        print_table(probes, n);
        print_verdict(probes, n);
    }
    return count_missing(probes, n, true) == 0 ? EXIT_STATUS_OK : EXIT_CANNOT_RUN;
}
