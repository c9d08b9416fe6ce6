/*
 * The profile: how often the guest was found where, when the host's timer of processor time fired.
 *
 * The signal only asks for attention; the sample is taken when the run loop attends, which is before the
 * guest goes on: then its state is exact under every engine. Whether the time was the guest's or the
 * monitor's the engine has told (vm->is_guest_interrupted). Stacks are kept as lines of text, the format of
 * the file.
 *
 * Read next: backtrace.c.
 */
#include "monitor/profile.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>

#include "monitor/backtrace.h"
#include "monitor/symbols.h"
#include "vcpu/fail.h"

#define PERIOD_US  1003u /* 997 Hz: in step with nothing that ticks */
#define MAX_FRAMES 64u
#define MAX_LINE   4096u
#define MAX_NAME   120u
#define N_SLOTS    (1u << 16)
#define TEXT_SIZE  (16u << 20)

/* A stack, as text without the count. */
struct stack {
    const char *text; /* NULL: the slot is free */
    uint64_t count;
};

struct profile {
    FILE *file;
    char path[256];
    struct stack *slot;
    unsigned n_stacks;
    char *text; /* all stacks', made now: touched as it fills */
    size_t used;
    uint64_t n_others; /* samples for whose stack there was no room */
};

/* The process's: a handler gets no argument. */
static int n_due;
static volatile int *volatile attention_word;

static void on_timer(int signo)
{
    (void)signo;
    __atomic_fetch_add(&n_due, 1, __ATOMIC_RELAXED);
    if (attention_word != NULL)
        *attention_word = 1;
}

/* ---- a sample ------------------------------------------------------------------------------------------ */

struct line {
    char text[MAX_LINE];
    size_t length;
};

/* What the file format gives a meaning to, and what is no text, becomes an underscore: the file is hostile.
 */
static void add_frame(struct line *line, const char *name)
{
    if (line->length + MAX_NAME + 2 > sizeof line->text)
        return;
    if (line->length != 0)
        line->text[line->length++] = ';';
    for (unsigned i = 0; i < MAX_NAME && name[i] != '\0'; i++) {
        unsigned char c = (unsigned char)name[i];

        line->text[line->length++] = c <= ' ' || c == ';' || c >= 0x7f ? '_' : (char)c;
    }
    line->text[line->length] = '\0';
}

/* Programs of the guest have no symbols here: their code is told by the page. */
static void add_place(struct line *line, const struct vm *vm, uint32_t eip)
{
    gva_t linear = vm->vcpu.segment[SEG_CS].base + eip;
    const char *name = vm->vcpu.cpl == 3 ? NULL : symbols_find(vm->symbols, linear, &(uint32_t){0});
    char page[16];

    snprintf(page, sizeof page, "0x%08x", linear & ~(gva_t)PAGE_MASK);
    add_frame(line, name != NULL ? name : page);
}

/* A frame counts while it lies in a function that is known: what is beyond may be anything. */
static bool is_plausible(const struct vm *vm, uint32_t eip)
{
    return symbols_find(vm->symbols, vm->vcpu.segment[SEG_CS].base + eip, &(uint32_t){0}) != NULL;
}

static void describe(struct vm *vm, struct line *line)
{
    uint32_t eip[MAX_FRAMES];
    bool is_user = vm->vcpu.cpl == 3;
    unsigned n = is_user ? 1 : backtrace_walk(vm, eip, MAX_FRAMES), n_good = 1;

    if (is_user)
        eip[0] = vm->vcpu.eip;
    while (n_good < n &&
           is_plausible(vm, eip[n_good] - 1)) /* the call may be the last thing in its function */
        n_good++;
    add_frame(line, is_user ? "user" : "kernel");
    for (unsigned i = n_good; i-- > 0;)
        add_place(line, vm, i == 0 ? eip[i] : eip[i] - 1);
}

static uint32_t hash_of(const char *text)
{
    uint32_t hash = 2166136261u; /* FNV-1a */

    for (; *text != '\0'; text++)
        hash = (hash ^ (unsigned char)*text) * 16777619u;
    return hash;
}

static void count(struct profile *profile, const struct line *line, uint64_t n)
{
    uint32_t i = hash_of(line->text) % N_SLOTS;
    struct stack *stack = &profile->slot[i];

    while (stack->text != NULL && strcmp(stack->text, line->text) != 0) {
        i = (i + 1) % N_SLOTS;
        stack = &profile->slot[i];
    }
    if (stack->text == NULL) {
        if (profile->n_stacks == N_SLOTS / 2 || profile->used + line->length + 1 > TEXT_SIZE) {
            profile->n_others += n;
            return;
        }
        stack->text = memcpy(profile->text + profile->used, line->text, line->length + 1);
        profile->used += line->length + 1;
        profile->n_stacks++;
    }
    stack->count += n;
}

void profile_attend(struct profile *profile, struct vm *vm)
{
    struct line line = {.length = 0};
    int n = __atomic_exchange_n(&n_due, 0, __ATOMIC_RELAXED);

    if (n == 0)
        return;
    describe(vm, &line);
    if (!vm->is_guest_interrupted)
        add_frame(&line, "[monitor]");
    count(profile, &line, (uint64_t)n);
}

/* ---- life ---------------------------------------------------------------------------------------------- */

static void set_timer(unsigned period_us)
{
    struct itimerval timer = {.it_interval = {.tv_usec = period_us}, .it_value = {.tv_usec = period_us}};

    if (setitimer(ITIMER_PROF, &timer, NULL) != 0)
        die("setitimer: %s", strerror(errno));
}

static void start_timer(struct vm *vm)
{
    struct sigaction action = {.sa_handler = on_timer, .sa_flags = SA_ONSTACK | SA_RESTART};

    n_due = 0;
    attention_word = &vm->attention;
    sigemptyset(&action.sa_mask);
    if (sigaction(SIGPROF, &action, NULL) != 0)
        die("sigaction of SIGPROF: %s", strerror(errno));
    set_timer(PERIOD_US);
}

static void release(struct profile *profile)
{
    free(profile->slot);
    free(profile->text);
    free(profile);
}

struct profile *profile_open(const char *path, struct vm *vm, char *error, size_t error_size)
{
    struct profile *profile = calloc(1, sizeof *profile);

    if (profile != NULL) {
        profile->slot = calloc(N_SLOTS, sizeof *profile->slot);
        profile->text = malloc(TEXT_SIZE);
    }
    if (profile == NULL || profile->slot == NULL || profile->text == NULL)
        die("out of memory for the profile");
    profile->file = fopen(path, "we");
    if (profile->file == NULL) {
        snprintf(error, error_size, "cannot open the profile %s: %s", path, strerror(errno));
        release(profile);
        return NULL;
    }
    snprintf(profile->path, sizeof profile->path, "%s", path);
    vm->profile = profile;
    start_timer(vm);
    return profile;
}

static void write_all(const struct profile *profile)
{
    for (unsigned i = 0; i < N_SLOTS; i++)
        if (profile->slot[i].text != NULL)
            fprintf(profile->file, "%s %llu\n", profile->slot[i].text,
                    (unsigned long long)profile->slot[i].count);
    if (profile->n_others != 0)
        fprintf(profile->file, "[others] %llu\n", (unsigned long long)profile->n_others);
}

bool profile_close(struct profile *profile, char *error, size_t error_size)
{
    bool is_written;

    set_timer(0);
    attention_word = NULL;
    write_all(profile);
    is_written = ferror(profile->file) == 0;
    if (fclose(profile->file) != 0 || !is_written) {
        snprintf(error, error_size, "cannot write the profile to %s: %s", profile->path, strerror(errno));
        is_written = false;
    }
    release(profile);
    return is_written;
}
