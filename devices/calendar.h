/*
 * Dates and seconds, in the proleptic Gregorian calendar without leap seconds, for any 64-bit Unix time that
 * a clock chip can hold. Read next: mc146818.c.
 */
#ifndef RING3_CALENDAR_H
#define RING3_CALENDAR_H

#include <stdint.h>

#define CALENDAR_DAY 86400u /* seconds */

struct calendar_time {
    uint32_t year, month, day; /* month and day from 1 */
    uint32_t hour, minute, second;
    uint32_t day_of_week; /* 0: Sunday; not used by calendar_to_unix */
};

/* Times before the year 0 are shown as if 400 years, which repeat, were added often enough. */
struct calendar_time calendar_from_unix(int64_t unix_time);
/* Any values: what exceeds its range carries over, and month or day 0 is the last of the one before. */
int64_t calendar_to_unix(const struct calendar_time *time);
uint32_t calendar_second_of_day(int64_t unix_time);

#endif
