/*
 * The comparison of machines on Linux: one program, /init of the guest and an ordinary process of the host,
 * static and without a C library. Its words (the kernel hands init what follows "--" on its command line):
 *
 *   boot                          says that it began
 *   measure MS ROUNDS [NAME...]   each measure, or those named: finds a count n that takes MS, then does
 *                                 ROUNDS of them and says the nanoseconds of each
 *   repeat N ROUNDS [NAME...]     the same with a count of N
 *   processes COUNT PAGES         COUNT processes that touched PAGES pages each, twice, and sleep
 *   idle SECONDS                  does nothing
 *
 * Each line it writes begins with '@' and the time of CLOCK_MONOTONIC, which bench/peer/linux.py compares
 * with its own; the last is "done". As /init it then switches the machine off. Read next: rows.h,
 * bench/peer/linux_machines.py.
 */
#include <stdbool.h>
#include <stddef.h>

#include "rows.h"
#include "system.h"

#define LINE_SIZE   1024u
#define SECOND_NS   1000000000u
#define MOST_ROUNDS 63u
#define MOST_N      (1u << 30)

extern void system_int80(void);
void (*system_entry)(void) = system_int80;
const char *own_path;

static bool is_init;

/* ---- words --------------------------------------------------------------------------------------------- */

static char line[LINE_SIZE];
static uint32_t line_length;

static void say(const char *text)
{
    while (*text && line_length < LINE_SIZE - 1)
        line[line_length++] = *text++;
}

static void say_number(uint32_t value, uint32_t n_digits)
{
    char digits[11];
    uint32_t at = sizeof digits;

    digits[--at] = 0;
    do {
        digits[--at] = (char)('0' + value % 10);
        value /= 10;
    } while (value || sizeof digits - 1 - at < n_digits);
    say(digits + at);
}

static struct timespec32 now(void)
{
    struct timespec32 time = {0, 0};

    must(system2(SYS_CLOCK_GETTIME, CLOCK_MONOTONIC, (long)&time), "clock_gettime");
    return time;
}

static void begin_line(const char *text)
{
    struct timespec32 time = now();

    line_length = 0;
    say("@");
    say_number((uint32_t)time.seconds, 1);
    say(".");
    say_number((uint32_t)time.nanoseconds, 9);
    say(" ");
    say(text);
}

static void end_line(void)
{
    line[line_length++] = '\n';
    system3(SYS_WRITE, 1, (long)line, (long)line_length);
}

static void say_line(const char *text)
{
    begin_line(text);
    end_line();
}

static _Noreturn void finish(int status)
{
    if (is_init)
        system3(SYS_REBOOT, (long)0xfee1dead, 672274793, 0x4321fedc); /* LINUX_REBOOT_CMD_POWER_OFF */
    leave(status);
}

void fail(const char *what)
{
    begin_line("failed: ");
    say(what);
    end_line();
    finish(1);
}

static bool is_same(const char *a, const char *b)
{
    while (*a && *a == *b)
        a++, b++;
    return *a == *b;
}

static uint32_t parse_number(const char *text)
{
    uint32_t value = 0;

    if (!text)
        fail("a number is missing");
    for (; *text; text++) {
        if (*text < '0' || *text > '9')
            fail("not a number");
        value = value * 10 + (uint32_t)(*text - '0');
    }
    return value;
}

/* ---- measuring ----------------------------------------------------------------------------------------- */

/* A round: n operations, and how many nanoseconds they took. */
static uint32_t time_round(const struct measure *measure, uint32_t n)
{
    struct timespec32 began, ended;
    uint32_t seconds;

    if (measure->prepare)
        measure->prepare(n);
    began = now();
    measure->run(n);
    ended = now();
    if (measure->finish)
        measure->finish();
    seconds = (uint32_t)(ended.seconds - began.seconds);
    if (seconds > 3)
        return UINT32_MAX;
    return seconds * SECOND_NS + (uint32_t)ended.nanoseconds - (uint32_t)began.nanoseconds;
}

/* Does a round of n take as long as it must? What is new takes longer once, so it must the second time, too.
 */
static bool is_long_enough(const struct measure *measure, uint32_t n, uint32_t round_ns)
{
    for (unsigned i = 0; i < 2; i++) {
        if (time_round(measure, n) < round_ns)
            return false;
    }
    return true;
}

static uint32_t find_count(const struct measure *measure, uint32_t round_ns)
{
    uint32_t n = 1, most = measure->limit ? measure->limit : MOST_N;

    while (n < most && !is_long_enough(measure, n, round_ns))
        n *= 2;
    return n;
}

static void measure_row(const struct measure *measure, uint32_t n, uint32_t n_rounds)
{
    uint32_t took[MOST_ROUNDS];

    for (uint32_t i = 0; i < n_rounds; i++)
        took[i] = time_round(measure, n);
    begin_line("row "); /* with the time at which it is written, not before */
    say(measure->name);
    say(" ");
    say_number(n, 1);
    for (uint32_t i = 0; i < n_rounds; i++) {
        say(" ");
        say_number(took[i], 1);
    }
    end_line();
}

static bool is_wanted(const char *name, char **names)
{
    if (!*names)
        return true;
    for (; *names; names++) {
        if (is_same(name, *names))
            return true;
    }
    return false;
}

/* By rounds that take so many milliseconds, or of a number that is given. */
static void do_measure(char **words, bool is_timed)
{
    static const struct measure *const all[] = {compute_measures, memory_measures, process_measures,
                                                file_measures, NULL};
    uint32_t number = parse_number(words[0]), n_rounds = parse_number(words[1]);

    if (n_rounds > MOST_ROUNDS)
        fail("too many rounds");
    for (size_t i = 0; all[i]; i++) {
        for (const struct measure *measure = all[i]; measure->name; measure++) {
            if (is_wanted(measure->name, words + 2))
                measure_row(measure, is_timed ? find_count(measure, number * 1000000u) : number, n_rounds);
        }
    }
}

/* ---- other modes --------------------------------------------------------------------------------------- */

static void do_processes(char **words)
{
    uint32_t count = parse_number(words[0]), n_pages = parse_number(words[1]);
    int ready[2] = {0, 0};
    char byte = 0;

    must(system1(SYS_PIPE, (long)ready), "pipe");
    for (uint32_t i = 0; i < count; i++) {
        if (must(system0(SYS_FORK), "fork") != 0)
            continue;
        uint8_t *pages = map_pages(NULL, n_pages, MAP_PRIVATE);

        touch_pages(pages, n_pages);
        sleep_milliseconds(1000); /* all the others have been running meanwhile */
        touch_pages(pages, n_pages);
        system3(SYS_WRITE, ready[1], (long)&byte, 1);
        for (;;)
            system0(SYS_PAUSE);
    }
    for (uint32_t i = 0; i < count; i++)
        must(system3(SYS_READ, ready[0], (long)&byte, 1), "read");
    say_line("ready");
    sleep_milliseconds(3000);
}

static void do_idle(char **words)
{
    uint32_t seconds = parse_number(words[0]);

    sleep_milliseconds(2000); /* what the kernel still does after its start */
    say_line("begin");
    sleep_milliseconds(seconds * 1000);
    say_line("end");
}

/* ---- the program --------------------------------------------------------------------------------------- */

static void set_up_machine(void)
{
    must(system4(SYS_MOUNT, (long)"dev", (long)"/dev", (long)"devtmpfs", 0), "mount /dev");
    system2(SYS_MKDIR, (long)"/dev/shm", 0755);
    must(system4(SYS_MOUNT, (long)"shm", (long)"/dev/shm", (long)"tmpfs", 0), "mount /dev/shm");
}

static void find_system_entry(char **environment)
{
    while (*environment)
        environment++;
    for (const uint32_t *aux = (const uint32_t *)(environment + 1); *aux; aux += 2) {
        if (*aux == AT_SYSINFO)
            system_entry = (void (*)(void))aux[1];
    }
}

/* With the stack as the kernel hands it over: argc, argv, the environment, the auxiliary vector. */
_Noreturn void linux_main(uint32_t *stack);

void linux_main(uint32_t *stack)
{
    char **words = (char **)(stack + 1);
    const char *mode;

    find_system_entry(words + stack[0] + 1);
    own_path = *words++;
    mode = *words ? *words++ : "boot";
    if (is_same(mode, EXIT_COMMAND))
        leave(0);
    is_init = system0(SYS_GETPID) == 1;
    say_line("began");
    if (is_init)
        set_up_machine();
    if (is_same(mode, "measure"))
        do_measure(words, true);
    else if (is_same(mode, "repeat"))
        do_measure(words, false);
    else if (is_same(mode, "processes"))
        do_processes(words);
    else if (is_same(mode, "idle"))
        do_idle(words);
    else if (!is_same(mode, "boot"))
        fail("no such mode");
    say_line("done");
    finish(0);
}
