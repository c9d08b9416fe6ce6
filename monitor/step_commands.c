/* The stepper's commands: see step_commands.h. Read next: stepper.c, step_print.h. */
#include "monitor/step_commands.h"

#include <ctype.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "monitor/options.h"
#include "monitor/step_print.h"
#include "monitor/trace.h"

#define DEFAULT_WORDS        8
#define DEFAULT_INSTRUCTIONS 8
#define MAX_UNITS            65536
#define MAX_COMMANDS         32

struct step_command {
    const char *name, *arguments, *summary;
    bool (*run)(struct step_session *session, const char *arguments);
    bool repeats; /* by an empty line */
};

static bool fail(struct step_session *session, const char *format, ...) __attribute__((format(printf, 2, 3)));
static bool fail(struct step_session *session, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(session->error, sizeof session->error, format, arguments);
    va_end(arguments);
    return false;
}

/* ---- arguments ----------------------------------------------------------------------------------------- */

/* The first word into `word`; returns what follows. */
static const char *split_word(const char *text, char *word, size_t size)
{
    size_t n;

    text += strspn(text, " \t\n");
    n = strcspn(text, " \t\n");
    snprintf(word, size, "%.*s", (int)n, text);
    text += n;
    return text + strspn(text, " \t\n");
}

/* A count, in decimal; 1 if there is none. */
static bool parse_count(struct step_session *session, const char *text, uint64_t *count)
{
    *count = 1;
    if (*text == '\0')
        return true;
    if (!options_parse_number(text, count) || *count == 0)
        return fail(session, "%s is not a number of times", text);
    return true;
}

static bool parse_place(struct step_session *session, const char *text, gva_t *place)
{
    return step_parse_place(session->stepper.vm, text, place, session->error, sizeof session->error);
}

/* ---- running ------------------------------------------------------------------------------------------- */

static bool is_alive(struct step_session *session)
{
    return !vm_is_stopped(session->stepper.vm) ||
           fail(session, "the machine has stopped: %s", session->stepper.vm->stop_text);
}

/* What a run came to. */
static void report(struct step_session *session, enum stepper_stop stop)
{
    struct stepper *stepper = &session->stepper;
    FILE *out = session->out;

    if (stepper->has_trap && !session->traces)
        step_print_trap(stepper, out);
    if (stop == STEPPER_BREAKPOINT && stepper->hit->is_trap)
        fprintf(out, "breakpoint %u: on %s\n", stepper->hit->number, stepper->hit->kind.text);
    if (stop == STEPPER_BREAKPOINT && !stepper->hit->is_trap)
        fprintf(out, "breakpoint %u\n", stepper->hit->number);
    if (stop == STEPPER_INTERRUPTED)
        fputs("interrupted\n", out);
    if (stop == STEPPER_ENDED)
        fprintf(out, "the machine has stopped: %s\n", stepper->vm->stop_text);
    step_print_here(stepper->vm, out);
}

static bool run(struct step_session *session, enum stepper_goal goal, uint64_t count)
{
    struct stepper *stepper = &session->stepper;
    enum stepper_stop stop = STEPPER_REACHED;

    if (!is_alive(session))
        return false;
    fflush(session->out); /* the guest writes to the same place */
    while (count-- > 0 && stop == STEPPER_REACHED) {
        stop = stepper_run(stepper, goal);
        if (count > 0 && stop == STEPPER_REACHED && stepper->has_trap && !session->traces)
            step_print_trap(stepper, session->out);
    }
    report(session, stop);
    return true;
}

static bool run_step(struct step_session *session, const char *arguments)
{
    uint64_t count;

    return parse_count(session, arguments, &count) && run(session, STEPPER_INSTRUCTION, count);
}

static bool run_trap(struct step_session *session, const char *arguments)
{
    uint64_t count;

    return parse_count(session, arguments, &count) && run(session, STEPPER_TRAP, count);
}

static bool run_continue(struct step_session *session, const char *arguments)
{
    enum stepper_stop stop;
    uint64_t count;

    if (!parse_count(session, arguments, &count) || !is_alive(session))
        return false;
    fflush(session->out);
    do {
        stop = stepper_run(&session->stepper, STEPPER_CONTINUE);
    } while (stop == STEPPER_BREAKPOINT && --count > 0);
    report(session, stop);
    return true;
}

static bool run_until(struct step_session *session, const char *arguments)
{
    gva_t place;

    if (!parse_place(session, arguments, &place) || !is_alive(session))
        return false;
    fflush(session->out);
    report(session, stepper_run_to(&session->stepper, place));
    return true;
}

/* ---- breakpoints --------------------------------------------------------------------------------------- */

static void print_breakpoint(const struct step_session *session, const struct breakpoint *breakpoint)
{
    fprintf(session->out, "%3u  ", breakpoint->number);
    if (breakpoint->is_trap) {
        fprintf(session->out, "on %s", breakpoint->kind.text);
    } else {
        fprintf(session->out, "at %08x", breakpoint->place);
        step_print_symbol(session->stepper.vm, breakpoint->place, session->out);
    }
    fprintf(session->out, ", met %llu times\n", (unsigned long long)breakpoint->n_hits);
}

static bool list_breakpoints(struct step_session *session)
{
    const struct stepper *stepper = &session->stepper;

    if (stepper->n_breakpoints == 0)
        fputs("no breakpoints\n", session->out);
    for (unsigned i = 0; i < stepper->n_breakpoints; i++)
        print_breakpoint(session, &stepper->breakpoint[i]);
    return true;
}

static bool run_break(struct step_session *session, const char *arguments)
{
    struct stepper *stepper = &session->stepper;
    struct trap_kind kind;
    char word[8];
    const char *rest = split_word(arguments, word, sizeof word);
    unsigned number;
    gva_t place;

    if (*arguments == '\0')
        return list_breakpoints(session);
    if (strcmp(word, "on") == 0) {
        if (!trap_kind_parse(rest, &kind, session->error, sizeof session->error))
            return false;
        number = stepper_break_on(stepper, &kind);
    } else {
        if (!parse_place(session, arguments, &place))
            return false;
        number = stepper_break_at(stepper, place);
    }
    if (number == 0)
        return fail(session, "there are %d breakpoints already", STEPPER_MAX_BREAKPOINTS);
    print_breakpoint(session, &stepper->breakpoint[stepper->n_breakpoints - 1]);
    return true;
}

static bool run_delete(struct step_session *session, const char *arguments)
{
    uint64_t number;

    if (*arguments == '\0') {
        while (session->stepper.n_breakpoints > 0)
            stepper_delete(&session->stepper, session->stepper.breakpoint[0].number);
        return true;
    }
    if (!options_parse_number(arguments, &number) || number > UINT32_MAX ||
        !stepper_delete(&session->stepper, (unsigned)number))
        return fail(session, "there is no breakpoint %s", arguments);
    return true;
}

/* ---- looking ------------------------------------------------------------------------------------------- */

static bool run_registers(struct step_session *session, const char *arguments)
{
    (void)arguments;
    step_print_registers(session->stepper.vm, session->out);
    return true;
}

/* "/16w", "/4i", "/s": what x and xp take before the place. */
struct layout {
    unsigned n;
    char letter; /* b h w i s */
};

static bool parse_layout(struct step_session *session, const char *text, struct layout *layout)
{
    char *end;
    unsigned long n = strtoul(text, &end, 10);

    *layout = (struct layout){.letter = 'w'};
    if (*end != '\0' && strchr("bhwis", *end) != NULL)
        layout->letter = *end++;
    if (*end != '\0' || n > MAX_UNITS)
        return fail(session, "/%s is no layout: a number (to %d) and b, h, w (bytes, halves, words), i or s",
                    text, MAX_UNITS);
    layout->n = (unsigned)n;
    if (layout->n == 0)
        layout->n = layout->letter == 'i' ? DEFAULT_INSTRUCTIONS : layout->letter == 's' ? 1 : DEFAULT_WORDS;
    return true;
}

static bool examine(struct step_session *session, const char *arguments, bool is_physical)
{
    static const char letters[] = "bhws";
    static const enum step_format formats[] = {STEP_BYTES, STEP_HALVES, STEP_WORDS, STEP_STRING};
    struct layout layout = {.n = DEFAULT_WORDS, .letter = 'w'};
    char word[32];
    gva_t place;

    if (*arguments == '/') {
        arguments = split_word(arguments + 1, word, sizeof word);
        if (!parse_layout(session, word, &layout))
            return false;
    }
    if (!parse_place(session, arguments, &place))
        return false;
    if (layout.letter == 'i' && is_physical)
        return fail(session, "instructions are shown by linear address: x/i");
    if (layout.letter == 'i')
        step_print_code(session->stepper.vm, place, layout.n, session->out);
    else
        step_print_memory(session->stepper.vm, is_physical, place,
                          formats[strchr(letters, layout.letter) - letters], layout.n, session->out);
    return true;
}

static bool run_examine(struct step_session *session, const char *arguments)
{
    return examine(session, arguments, false);
}

static bool run_examine_physical(struct step_session *session, const char *arguments)
{
    return examine(session, arguments, true);
}

static bool run_disassemble(struct step_session *session, const char *arguments)
{
    gva_t place = trace_linear(&session->stepper.vm->vcpu);

    if (*arguments != '\0' && !parse_place(session, arguments, &place))
        return false;
    step_print_code(session->stepper.vm, place, DEFAULT_INSTRUCTIONS, session->out);
    return true;
}

static bool run_walk(struct step_session *session, const char *arguments)
{
    gva_t place;

    if (!parse_place(session, arguments, &place))
        return false;
    step_print_walk(session->stepper.vm, place, session->out);
    return true;
}

static bool run_why(struct step_session *session, const char *arguments)
{
    (void)arguments;
    step_print_why(&session->stepper, session->out);
    return true;
}

static bool run_backtrace(struct step_session *session, const char *arguments)
{
    (void)arguments;
    step_print_backtrace(session->stepper.vm, session->out);
    return true;
}

static bool run_symbol(struct step_session *session, const char *arguments)
{
    gva_t place;

    if (!parse_place(session, arguments, &place))
        return false;
    fprintf(session->out, "%08x", place);
    step_print_symbol(session->stepper.vm, place, session->out);
    putc('\n', session->out);
    return true;
}

static bool run_trace(struct step_session *session, const char *arguments)
{
    bool is_on = strcmp(arguments, "on") == 0;
    char titles[TRACE_LINE_SIZE];

    if (!is_on && strcmp(arguments, "off") != 0)
        return fail(session, "trace on, or trace off");
    session->traces = is_on;
    trace_format_titles(titles, sizeof titles);
    if (is_on)
        fprintf(session->out, "%s\n", titles);
    return true;
}

void step_observe(void *opaque, const struct vm *vm, const struct vm_event *event)
{
    struct step_session *session = opaque;
    char line[TRACE_LINE_SIZE];

    if (!session->traces)
        return;
    trace_format_event(vm->symbols, event, &vm->vcpu, line, sizeof line);
    fprintf(session->out, "%s\n", line);
    fflush(session->out);
}

/* ---- the rest ------------------------------------------------------------------------------------------ */

static bool run_quit(struct step_session *session, const char *arguments)
{
    (void)arguments;
    session->is_over = true;
    return true;
}

static bool run_help(struct step_session *session, const char *arguments);

static const struct step_command commands[] = {
    {"step", "[N]", "run one instruction (or N), natively if it does not trap", run_step, true},
    {"trap", "[N]", "run to the next trap or interrupt (or the Nth)", run_trap, true},
    {"continue", "[N]", "run to a breakpoint (the Nth)", run_continue, true},
    {"until", "PLACE", "run to a place, or to a breakpoint", run_until, false},
    {"break", "PLACE | on KIND...", "stop at a place, or after a kind of trap; alone: list them", run_break,
     false},
    {"delete", "[N]", "take a breakpoint away, or all of them", run_delete, false},
    {"regs", "", "the processor: virtual, and real while the guest runs", run_registers, false},
    {"x", "[/[N][bhwis]] PLACE", "memory: N bytes, halves, words, instructions, or a string", run_examine,
     false},
    {"xp", "[/[N][bhws]] ADDRESS", "the same by physical address", run_examine_physical, false},
    {"disassemble", "[PLACE]", "the next instructions", run_disassemble, false},
    {"walk", "PLACE", "the guest's page tables level by level, and the shadow of it", run_walk, false},
    {"why", "", "the life of the last trap, and what each part of it cost", run_why, false},
    {"bt", "", "the calls that led here, by frame pointers", run_backtrace, false},
    {"symbol", "PLACE", "an address and its symbol", run_symbol, false},
    {"trace", "on | off", "show each event as it happens", run_trace, false},
    {"help", "[COMMAND | kinds]", "this list; a command; the kinds of traps", run_help, false},
    {"quit", "", "end the session", run_quit, false},
};

#define N_COMMANDS (sizeof commands / sizeof commands[0])

/* By name or by its beginning; of several, the first in the table. */
static const struct step_command *find_command(const char *word)
{
    for (size_t i = 0; i < N_COMMANDS; i++)
        if (strcmp(commands[i].name, word) == 0)
            return &commands[i];
    for (size_t i = 0; i < N_COMMANDS; i++)
        if (strncmp(commands[i].name, word, strlen(word)) == 0)
            return &commands[i];
    return NULL;
}

static bool fail_unknown(struct step_session *session, const char *word)
{
    const char *names[N_COMMANDS];
    const char *suggestion;

    for (size_t i = 0; i < N_COMMANDS; i++)
        names[i] = commands[i].name;
    suggestion = options_suggest(word, names, N_COMMANDS);
    if (suggestion != NULL)
        return fail(session, "no command is called %s; did you mean %s?", word, suggestion);
    return fail(session, "no command is called %s (`help` lists them)", word);
}

static void print_command(const struct step_session *session, const struct step_command *command)
{
    char left[64];

    snprintf(left, sizeof left, "%s %s", command->name, command->arguments);
    fprintf(session->out, "  %-26s %s\n", left, command->summary);
}

static bool run_help(struct step_session *session, const char *arguments)
{
    const struct step_command *command;

    if (strcmp(arguments, "kinds") == 0) {
        trap_kind_print_help(session->out);
        return true;
    }
    if (*arguments != '\0') {
        command = find_command(arguments);
        if (command == NULL)
            return fail_unknown(session, arguments);
        print_command(session, command);
        return true;
    }
    for (size_t i = 0; i < N_COMMANDS; i++)
        print_command(session, &commands[i]);
    fputs(
        "A command may be cut short: s, t, c, u, b, r, w, d. An empty line repeats step, trap and continue.\n"
        "A place is a symbol, a hexadecimal number or a $register, with + and -: main+1c, $esp-4.\n",
        session->out);
    return true;
}

/* "x/8i main": the layout follows the command's name at once. */
static size_t command_length(const char *line)
{
    size_t n = 0;

    while (isalpha((unsigned char)line[n]))
        n++;
    return line[n] == '/' || line[n] == '\0' || isspace((unsigned char)line[n]) ? n : strcspn(line, " \t\n");
}

bool step_execute(struct step_session *session, const char *line, bool repeats)
{
    const struct step_command *command;
    char text[sizeof session->repeated], word[32];
    size_t length;

    session->error[0] = '\0';
    line += strspn(line, " \t\n");
    if (*line == '\0' && repeats)
        line = session->repeated;
    if (*line == '\0' || *line == '#') /* a comment in a file of commands */
        return true;
    length = strlen(line);
    while (length > 0 && isspace((unsigned char)line[length - 1]))
        length--;
    if (length >= sizeof text)
        return fail(session, "that is too long to be a command");
    snprintf(text, sizeof text, "%.*s", (int)length, line);
    length = command_length(text);
    snprintf(word, sizeof word, "%.*s", (int)length, text);
    command = find_command(word);
    if (command == NULL || length >= sizeof word)
        return fail_unknown(session, word);
    snprintf(session->repeated, sizeof session->repeated, "%s", command->repeats ? text : "");
    return command->run(session, text + length + strspn(text + length, " \t"));
}
