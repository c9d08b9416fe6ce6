/*
 * calendar: days are counted from 1 March of a year divisible by 400, which puts the leap day last in
 * everything: the cycle of 400 years, the century, the four years, and the year.
 *
 * Read next: mc146818.c.
 */
#include "devices/calendar.h"

#define DAYS_400_YEARS 146097
#define DAYS_100_YEARS 36524
#define DAYS_4_YEARS   1461
#define DAYS_1_YEAR    365
/* From 1 March 0000 to 1 January 1970 (a Thursday). */
#define DAYS_TO_1970 719468
#define THURSDAY     4

/* The day of the year on which a month begins, with March as month 0: 153 days in each five months. */
static int64_t day_of_month_start(int64_t month_from_march)
{
    return (153 * month_from_march + 2) / 5;
}

static int64_t floor_divide(int64_t a, int64_t b)
{
    return a / b - (a % b < 0);
}

static int64_t min(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

uint32_t calendar_second_of_day(int64_t unix_time)
{
    return (uint32_t)(unix_time - floor_divide(unix_time, CALENDAR_DAY) * CALENDAR_DAY);
}

struct calendar_time calendar_from_unix(int64_t unix_time)
{
    uint32_t second = calendar_second_of_day(unix_time);
    int64_t days_1970 = floor_divide(unix_time, CALENDAR_DAY), days = days_1970 + DAYS_TO_1970;
    int64_t cycles = floor_divide(days, DAYS_400_YEARS);

    days -= cycles * DAYS_400_YEARS;
    int64_t centuries = min(days / DAYS_100_YEARS, 3); /* the last day of the cycle is still in its fourth */
    days -= centuries * DAYS_100_YEARS;
    int64_t fours = days / DAYS_4_YEARS;
    days -= fours * DAYS_4_YEARS;
    int64_t ones = min(days / DAYS_1_YEAR, 3);
    days -= ones * DAYS_1_YEAR;

    int64_t month = (5 * days + 2) / 153; /* from March */
    int64_t year = (cycles < 0 ? 0 : cycles) * 400 + centuries * 100 + fours * 4 + ones + (month >= 10);
    return (struct calendar_time){
        .year = (uint32_t)year,
        .month = (uint32_t)(month < 10 ? month + 3 : month - 9),
        .day = (uint32_t)(days - day_of_month_start(month) + 1),
        .hour = second / 3600,
        .minute = second / 60 % 60,
        .second = second % 60,
        .day_of_week = (uint32_t)(((days_1970 + THURSDAY) % 7 + 7) % 7),
    };
}

int64_t calendar_to_unix(const struct calendar_time *time)
{
    int64_t months = (int64_t)time->year * 12 + time->month - 3; /* since 1 March 0000 */
    int64_t year = floor_divide(months, 12), month = months - year * 12;
    int64_t days = year * DAYS_1_YEAR + floor_divide(year, 4) - floor_divide(year, 100) +
                   floor_divide(year, 400) + day_of_month_start(month) + time->day - 1 - DAYS_TO_1970;

    int64_t minutes = (int64_t)time->hour * 60 + time->minute;
    return days * CALENDAR_DAY + minutes * 60 + time->second;
}
