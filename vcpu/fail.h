/*
 * The third kind of failure: the host let us down (die) or ring3 itself is wrong (BUG). Both end the process
 * with exit status 1, print one line naming what failed, and are never compiled out. What the guest does
 * wrong goes neither way: it becomes a fault value, or vcpu_ops.stop.
 */
#ifndef RING3_FAIL_H
#define RING3_FAIL_H

/* Runs before the process ends (puts the terminal back, writes out the trace). At most one; may be NULL. */
void fail_set_cleanup(void (*cleanup)(void));
void fail_run_cleanup(void); /* once; later calls do nothing */

_Noreturn void die(const char *format, ...) __attribute__((format(printf, 1, 2)));
_Noreturn void fail_bug(const char *file, int line, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#define BUG(...) fail_bug(__FILE__, __LINE__, __VA_ARGS__)
#define BUG_ON(condition)                                                                                    \
    do {                                                                                                     \
        if (condition)                                                                                       \
            fail_bug(__FILE__, __LINE__, "%s", #condition);                                                  \
    } while (0)

#endif
