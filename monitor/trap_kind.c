/* Kinds of traps: see trap_kind.h. */
#include "monitor/trap_kind.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "monitor/options.h"

#define N_VECTORS     20 /* that have a name */
#define MAX_NAMES     256
#define MAX_INSN_WORD 24

/* ---- words that are names of enumerators --------------------------------------------------------------- */

struct named_word {
    const char *word, *meaning;
    size_t field;
    int value;
};

#define FIELD(member) offsetof(struct trap_kind, member)

static const struct named_word named_words[] = {
    {"exception", "the exit is an exception other than #PF", FIELD(reason), EXIT_EXCEPTION},
    {"page-fault", "the exit is a #PF", FIELD(reason), EXIT_PAGE_FAULT},
    {"host-call", "the exit is a system call instruction kept from the host", FIELD(reason), EXIT_HOST_CALL},
    {"sensitive", "the exit is a sensitive instruction that the engine found itself", FIELD(reason),
     EXIT_SENSITIVE},
    {"guest-fault", "the exit is a fault of the guest's own, found by running on virtual state",
     FIELD(reason), EXIT_GUEST_FAULT},
    {"emulated", "the instruction was run on virtual state", FIELD(disposition), DISPOSITION_EMULATED},
    {"reflected", "it was the guest's own exception, and was delivered to it", FIELD(disposition),
     DISPOSITION_REFLECTED},
    {"filled", "a page was put into the shadow", FIELD(disposition), DISPOSITION_FILLED},
    {"interrupt", "no exit: an interrupt was delivered", FIELD(disposition), DISPOSITION_INTERRUPT},
    {"stopped", "the run ended here", FIELD(disposition), DISPOSITION_STOPPED},
    {"user", "it came from CPL 3", FIELD(cpl), 3},
    {"kernel", "it came from CPL 0", FIELD(cpl), 0},
};

#define N_NAMED_WORDS (sizeof named_words / sizeof named_words[0])

static int vector_of_name(const char *name)
{
    for (int i = 0; i < N_VECTORS; i++)
        if (strcasecmp(vcpu_exception_name((unsigned)i), name) == 0)
            return i;
    return -1;
}

static bool parse_hex(const char *word, int largest, int *value)
{
    char *end;
    unsigned long number = strtoul(word, &end, 16);

    if (!isxdigit((unsigned char)word[0]) || *end != '\0' || number > (unsigned long)largest)
        return false;
    *value = (int)number;
    return true;
}

/* ---- instructions -------------------------------------------------------------------------------------- */

/* Is this the row's name ("mov-to-cr"), its first word ("mov"), or that without a size letter ("popf",
 * "ins")? */
static bool is_row_called(const struct sensitive *row, const char *word)
{
    size_t n = strlen(word);
    const char *name = row->name;

    if (strncasecmp(name, word, n) == 0) {
        const char *rest = name + n;

        if (*rest == '\0' || *rest == ' ')
            return true;
        if (strchr("BWD", *rest) != NULL && (rest[1] == '\0' || rest[1] == ' '))
            return true;
    }
    while (*name != '\0' && *word != '\0' &&
           (tolower((unsigned char)*name) == tolower((unsigned char)*word) || (*name == ' ' && *word == '-')))
        name++, word++;
    return *name == '\0' && *word == '\0';
}

static bool is_insn_word(const char *word)
{
    size_t n;
    const struct sensitive *rows = sensitive_table(&n);

    for (size_t i = 0; i < n; i++)
        if (is_row_called(&rows[i], word))
            return true;
    return false;
}

/* ---- parsing ------------------------------------------------------------------------------------------- */

struct words {
    char text[64];
    char *rest;
};

static char *next_word(struct words *words)
{
    return strtok_r(NULL, " \t", &words->rest);
}

/* The row's name as a word: "mov-to-cr". */
static void make_word(const struct sensitive *row, char word[MAX_INSN_WORD])
{
    size_t i = 0;

    for (; row->name[i] != '\0' && i < MAX_INSN_WORD - 1; i++)
        word[i] = (char)(row->name[i] == ' ' ? '-' : tolower((unsigned char)row->name[i]));
    word[i] = '\0';
}

static bool fail_unknown(const char *word, char *error, size_t error_size)
{
    char insn_words[MAX_NAMES][MAX_INSN_WORD];
    const char *names[MAX_NAMES];
    const struct sensitive *rows;
    size_t n = 0, n_rows;
    const char *suggestion;

    for (; n < N_NAMED_WORDS; n++)
        names[n] = named_words[n].word;
    rows = sensitive_table(&n_rows);
    for (size_t i = 0; i < n_rows && n < MAX_NAMES; i++, n++) {
        make_word(&rows[i], insn_words[n]);
        names[n] = insn_words[n];
    }
    suggestion = options_suggest(word, names, n);
    snprintf(error, error_size, "no kind of trap is called \"%s\"%s%s%s (`help kinds` lists them)", word,
             suggestion != NULL ? "; did you mean " : "", suggestion != NULL ? suggestion : "",
             suggestion != NULL ? "?" : "");
    return false;
}

/* "inject", and the vector behind it if there is one: returns the word after them. */
static char *parse_injection(struct words *words, struct trap_kind *kind)
{
    char *word = next_word(words);
    int vector;

    kind->wants_injection = true;
    if (word == NULL)
        return NULL;
    vector = vector_of_name(word);
    if (vector < 0 && !parse_hex(word, 0xff, &vector))
        return word;
    kind->injected = vector;
    return next_word(words);
}

static bool parse_word(const char *word, struct trap_kind *kind, char *error, size_t error_size)
{
    for (size_t i = 0; i < N_NAMED_WORDS; i++)
        if (strcasecmp(named_words[i].word, word) == 0) {
            *(int *)((char *)kind + named_words[i].field) = named_words[i].value;
            return true;
        }
    if (strcasecmp(word, "ordinary") == 0) {
        kind->wants_ordinary = true;
        return true;
    }
    if (vector_of_name(word) >= 0) {
        kind->fault = vector_of_name(word);
        return true;
    }
    if (!is_insn_word(word) || strlen(word) >= sizeof kind->insn)
        return fail_unknown(word, error, error_size);
    snprintf(kind->insn, sizeof kind->insn, "%s", word);
    return true;
}

bool trap_kind_parse(const char *text, struct trap_kind *kind, char *error, size_t error_size)
{
    struct words words;
    char *word;

    *kind = (struct trap_kind){.reason = TRAP_KIND_ANY,
                               .disposition = TRAP_KIND_ANY,
                               .fault = TRAP_KIND_ANY,
                               .cpl = TRAP_KIND_ANY,
                               .port = TRAP_KIND_ANY,
                               .injected = TRAP_KIND_ANY};
    if (strlen(text) >= sizeof kind->text) {
        snprintf(error, error_size, "too many words for one kind of trap");
        return false;
    }
    snprintf(kind->text, sizeof kind->text, "%s", text);
    snprintf(words.text, sizeof words.text, "%s", text);
    word = strtok_r(words.text, " \t", &words.rest);
    if (word == NULL) {
        snprintf(error, error_size, "on what kind of trap? (`help kinds` lists them)");
        return false;
    }
    while (word != NULL) {
        if (strcasecmp(word, "inject") == 0) {
            word = parse_injection(&words, kind);
            continue;
        }
        if (strcasecmp(word, "port") == 0) {
            word = next_word(&words);
            if (word == NULL || !parse_hex(word, 0xffff, &kind->port)) {
                snprintf(error, error_size, "port needs a number, in hexadecimal");
                return false;
            }
        } else if (!parse_word(word, kind, error, error_size)) {
            return false;
        }
        word = next_word(&words);
    }
    return true;
}

/* ---- matching ------------------------------------------------------------------------------------------ */

static bool has_injection(const struct trap_kind *kind, const struct vm_event *event)
{
    for (unsigned i = 0; i < event->n_notes; i++)
        if (event->note[i].kind == NOTE_INJECTED &&
            (kind->injected == TRAP_KIND_ANY || kind->injected == event->note[i].vector))
            return true;
    return false;
}

static bool has_port(const struct trap_kind *kind, const struct vm_event *event)
{
    for (unsigned i = 0; i < event->n_notes; i++) {
        const struct note *note = &event->note[i];

        if ((note->kind == NOTE_PORT_READ || note->kind == NOTE_PORT_WRITE) &&
            (uint64_t)kind->port - note->address < note->size)
            return true;
    }
    return false;
}

static bool is_wanted(int wanted, int value)
{
    return wanted == TRAP_KIND_ANY || wanted == value;
}

bool trap_kind_matches(const struct trap_kind *kind, const struct vm_event *event)
{
    bool is_exit = event->disposition != DISPOSITION_INTERRUPT;

    if (!is_wanted(kind->reason, is_exit ? (int)event->exit.reason : -2) ||
        !is_wanted(kind->disposition, (int)event->disposition) ||
        !is_wanted(kind->fault, exit_has_fault(&event->exit) ? event->exit.fault.vector : -2) ||
        !is_wanted(kind->cpl, event->before.cpl))
        return false;
    if (kind->wants_ordinary && (!event->has_insn || event->insn.sensitive != NULL))
        return false;
    if (kind->insn[0] != '\0' && (!event->has_insn || event->insn.sensitive == NULL ||
                                  !is_row_called(event->insn.sensitive, kind->insn)))
        return false;
    return (!kind->wants_injection || has_injection(kind, event)) &&
           (kind->port == TRAP_KIND_ANY || has_port(kind, event));
}

void trap_kind_print_help(FILE *out)
{
    fputs("A kind of trap is one or more of these words; all of them must fit:\n", out);
    for (size_t i = 0; i < N_NAMED_WORDS; i++)
        fprintf(out, "  %-14s %s\n", named_words[i].word, named_words[i].meaning);
    fprintf(out, "  %-14s %s\n", "#GP, #PF, ...", "the CPU raised this exception");
    fprintf(out, "  %-14s %s\n", "cli, popf, ...",
            "the instruction: any sensitive one (mov-to-cr, or mov for all of them)");
    fprintf(out, "  %-14s %s\n", "ordinary",
            "an instruction that is not sensitive was emulated: it touched a device or a page table");
    fprintf(out, "  %-14s %s\n", "inject [N|#XX]", "an exception or interrupt was delivered to the guest");
    fprintf(out, "  %-14s %s\n", "port N", "this I/O port was read or written");
}
