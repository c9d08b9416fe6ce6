/*
 * mc146818: the clock as arithmetic on machine time, and the three interrupts derived from it.
 *
 * There is no ticking. The time registers are computed when they are read; the flags in register C follow
 * from what happened since they were last looked at (`seen`); a timer is armed only for an enabled interrupt
 * whose flag is still clear. Register and bit names are the MC146818A data sheet's.
 *
 * Simplified: the daylight savings bit is kept and has no effect, as in every PC chipset of the last decades;
 * the square-wave output goes nowhere on a PC.
 *
 * Read next: calendar.h for days and dates, board.c for IRQ 8.
 */
#include "devices/mc146818.h"

#include "devices/calendar.h"

#include <string.h>

#define INDEX_MASK 0x7f /* bit 7 of port 0x70 masks NMI, which nothing on this board raises */

#define A_RATE       0x0f
#define A_DIVIDER    0x70
#define A_DIV_RESET  0x60 /* 11x: the divider chain is held in reset */
#define A_UIP        0x80
#define B_24H        0x02
#define B_BINARY     0x04
#define B_UPDATE     0x10
#define B_ALARM      0x20
#define B_PERIODIC   0x40
#define B_SET        0x80
#define B_INTERRUPTS (B_UPDATE | B_ALARM | B_PERIODIC) /* the flags in register C are at the same places */
#define B_SQWE       0x08
#define C_IRQF       0x80
#define D_VALID      0x80

#define HOURS_PM        0x80
#define ALARM_DONT_CARE 0xc0 /* both top bits set: any value matches */
#define FIRMWARE_A      0x26 /* 32.768 kHz, 1024 Hz periodic rate */
#define EQUIPMENT_FPU   0x02

#define NS_PER_SECOND     1000000000u
#define CRYSTAL_HZ        32768u
#define NS_OF_DIV_RESTART 500000000u /* "the first update cycle begins 500 ms after" the divider starts */
/* UIP rises 244 us before an update cycle of 1984 us ("Update Cycle Times", 32.768 kHz). */
#define NS_OF_UPDATE (244000u + 1984000u)

/* ---- fields as the registers show them ----------------------------------------------------------------- */

static uint8_t rtc_encode(const struct mc146818 *rtc, unsigned value)
{
    return (uint8_t)(rtc->ram[RTC_B] & B_BINARY ? value : value / 10 << 4 | value % 10);
}

static unsigned rtc_decode(const struct mc146818 *rtc, uint8_t value)
{
    return rtc->ram[RTC_B] & B_BINARY ? value : (value >> 4) * 10u + (value & 15);
}

static uint8_t rtc_encode_hours(const struct mc146818 *rtc, unsigned hours)
{
    if (rtc->ram[RTC_B] & B_24H)
        return rtc_encode(rtc, hours);
    unsigned on_the_dial = hours % 12 == 0 ? 12 : hours % 12;
    return (uint8_t)(rtc_encode(rtc, on_the_dial) | (hours >= 12 ? HOURS_PM : 0));
}

static unsigned rtc_decode_hours(const struct mc146818 *rtc, uint8_t value)
{
    if (rtc->ram[RTC_B] & B_24H)
        return rtc_decode(rtc, value);
    return rtc_decode(rtc, value & ~HOURS_PM) % 12 + (value & HOURS_PM ? 12 : 0);
}

/* ---- time ---------------------------------------------------------------------------------------------- */

static bool rtc_divider_is_reset(const struct mc146818 *rtc)
{
    return (rtc->ram[RTC_A] & A_DIV_RESET) == A_DIV_RESET;
}

/* Does the guest hold the time registers? */
static bool rtc_is_held(const struct mc146818 *rtc)
{
    return rtc->ram[RTC_B] & B_SET || rtc_divider_is_reset(rtc);
}

/* The divider chain, in ns: the time changes whenever it is at a whole second. */
static uint64_t rtc_divider(const struct mc146818 *rtc, uint64_t now)
{
    return now + rtc->phase;
}

static int64_t rtc_unix_time(const struct mc146818 *rtc, uint64_t now)
{
    return (int64_t)(rtc_divider(rtc, now) / NS_PER_SECOND) + rtc->offset;
}

static bool register_is_time(unsigned index)
{
    return index == RTC_SECONDS || index == RTC_MINUTES || index == RTC_HOURS || index == RTC_CENTURY ||
           (index >= RTC_DAY_OF_WEEK && index <= RTC_YEAR);
}

static uint8_t rtc_time_register(const struct mc146818 *rtc, unsigned index, int64_t unix_time)
{
    struct calendar_time time = calendar_from_unix(unix_time);

    switch (index) {
    case RTC_SECONDS:
        return rtc_encode(rtc, time.second);
    case RTC_MINUTES:
        return rtc_encode(rtc, time.minute);
    case RTC_HOURS:
        return rtc_encode_hours(rtc, time.hour);
    case RTC_DAY_OF_WEEK:
        return rtc_encode(rtc, (time.day_of_week + rtc->day_of_week_bias) % 7 + 1);
    case RTC_DAY:
        return rtc_encode(rtc, time.day);
    case RTC_MONTH:
        return rtc_encode(rtc, time.month);
    case RTC_YEAR:
        return rtc_encode(rtc, time.year % 100);
    default:
        return rtc_encode(rtc, time.year / 100 % 100);
    }
}

/* The registers become the time they would show at `now`, for the guest to hold or change. */
static void rtc_freeze(struct mc146818 *rtc, uint64_t now)
{
    int64_t unix_time = rtc_unix_time(rtc, now);

    for (unsigned index = 0; index < MC146818_REGISTERS; index++)
        if (register_is_time(index))
            rtc->ram[index] = rtc_time_register(rtc, index, unix_time);
}

/* Time goes on from the registers. What is in them may be no date at all: the calendar makes one of it. */
static void rtc_resume(struct mc146818 *rtc, uint64_t now)
{
    struct calendar_time time = {
        .second = rtc_decode(rtc, rtc->ram[RTC_SECONDS]),
        .minute = rtc_decode(rtc, rtc->ram[RTC_MINUTES]),
        .hour = rtc_decode_hours(rtc, rtc->ram[RTC_HOURS]),
        .day = rtc_decode(rtc, rtc->ram[RTC_DAY]),
        .month = rtc_decode(rtc, rtc->ram[RTC_MONTH]),
        .year = rtc_decode(rtc, rtc->ram[RTC_CENTURY]) * 100 + rtc_decode(rtc, rtc->ram[RTC_YEAR]),
    };
    int64_t unix_time = calendar_to_unix(&time);
    unsigned day_of_week = calendar_from_unix(unix_time).day_of_week;

    rtc->offset = unix_time - (int64_t)(rtc_divider(rtc, now) / NS_PER_SECOND);
    rtc->day_of_week_bias = (uint8_t)((rtc_decode(rtc, rtc->ram[RTC_DAY_OF_WEEK]) + 6 + 7 - day_of_week) % 7);
}

/* ---- events -------------------------------------------------------------------------------------------- */

/* The period of the periodic interrupt in cycles of the crystal, 0: none ("Periodic Interrupt Rate"). */
static uint64_t rtc_period(const struct mc146818 *rtc)
{
    unsigned rate = rtc->ram[RTC_A] & A_RATE;

    if (rate == 0 || rtc_divider_is_reset(rtc))
        return 0;
    return rate <= 2 ? 64u << rate : 1u << (rate - 1);
}

/* Each event's first moment after `after`, in ns of the machine's clock. */
static uint64_t rtc_next_periodic(const struct mc146818 *rtc, uint64_t after)
{
    uint64_t period = rtc_period(rtc);

    if (period == 0)
        return CLOCK_NO_DEADLINE;
    uint64_t cycles = clock_to_ticks(rtc_divider(rtc, after), CRYSTAL_HZ);
    return clock_from_ticks((cycles / period + 1) * period, CRYSTAL_HZ) - rtc->phase;
}

static uint64_t rtc_next_update(const struct mc146818 *rtc, uint64_t after)
{
    uint64_t divider = rtc_divider(rtc, after);

    if (rtc_is_held(rtc))
        return CLOCK_NO_DEADLINE;
    return after + (NS_PER_SECOND - divider % NS_PER_SECOND);
}

static bool alarm_matches(uint8_t alarm, uint8_t time)
{
    return (alarm & ALARM_DONT_CARE) == ALARM_DONT_CARE || alarm == time;
}

/* Is there a minute of the hour, or a second of the minute, that the alarm register names? */
static bool alarm_is_possible(const struct mc146818 *rtc, uint8_t alarm)
{
    for (unsigned i = 0; i < 60; i++)
        if (alarm_matches(alarm, rtc_encode(rtc, i)))
            return true;
    return false;
}

/* The first second of the day from `from` on that the alarm registers name, -1: none. Registers are compared
 * as they are, as the chip does, so a value that is no time never matches; that is seen first, since a guest
 * can make this search run at every access, and a whole day is long. */
static int32_t rtc_alarm_second(const struct mc146818 *rtc, uint32_t from)
{
    if (!alarm_is_possible(rtc, rtc->ram[RTC_MINUTES_ALARM]) ||
        !alarm_is_possible(rtc, rtc->ram[RTC_SECONDS_ALARM]))
        return -1;
    for (uint32_t hour = from / 3600; hour < 24; hour++) {
        if (!alarm_matches(rtc->ram[RTC_HOURS_ALARM], rtc_encode_hours(rtc, hour)))
            continue;
        for (uint32_t minute = 0; minute < 60; minute++) {
            uint32_t first = hour * 3600 + minute * 60;
            if (first + 59 < from || !alarm_matches(rtc->ram[RTC_MINUTES_ALARM], rtc_encode(rtc, minute)))
                continue;
            for (uint32_t second = first < from ? from - first : 0; second < 60; second++)
                if (alarm_matches(rtc->ram[RTC_SECONDS_ALARM], rtc_encode(rtc, second)))
                    return (int32_t)(first + second);
        }
    }
    return -1;
}

static uint64_t rtc_next_alarm(const struct mc146818 *rtc, uint64_t after)
{
    uint64_t update = rtc_next_update(rtc, after);

    if (update == CLOCK_NO_DEADLINE)
        return CLOCK_NO_DEADLINE;
    uint32_t from = calendar_second_of_day(rtc_unix_time(rtc, update));
    int64_t second = rtc_alarm_second(rtc, from);
    if (second < 0) { /* not today: tomorrow at this time, or never */
        second = rtc_alarm_second(rtc, 0) + (int64_t)CALENDAR_DAY;
        if (second < CALENDAR_DAY)
            return CLOCK_NO_DEADLINE;
    }
    return update + (uint64_t)(second - from) * NS_PER_SECOND;
}

struct rtc_event {
    uint8_t flag;
    uint64_t (*next)(const struct mc146818 *rtc, uint64_t after);
};

static const struct rtc_event rtc_events[] = {
    {B_PERIODIC, rtc_next_periodic},
    {B_ALARM, rtc_next_alarm},
    {B_UPDATE, rtc_next_update},
};
#define RTC_N_EVENTS (sizeof(rtc_events) / sizeof(rtc_events[0]))

/* Sets the flags of what has happened up to now. "The flag bits are set independent of the enable bits." */
static void rtc_advance(struct mc146818 *rtc, uint64_t now)
{
    for (unsigned i = 0; i < RTC_N_EVENTS; i++)
        if (!(rtc->ram[RTC_C] & rtc_events[i].flag) && rtc_events[i].next(rtc, rtc->seen) <= now)
            rtc->ram[RTC_C] |= rtc_events[i].flag;
    rtc->seen = now;
}

/* Drives IRQ 8 and plans for the next event that would raise it. Those already flagged need no timer: the
 * line is high, and stays so until register C is read. */
static void rtc_drive(struct mc146818 *rtc)
{
    uint8_t enabled = rtc->ram[RTC_B] & B_INTERRUPTS, flagged = rtc->ram[RTC_C] & enabled;
    uint64_t next = CLOCK_NO_DEADLINE;

    if (flagged)
        rtc->ram[RTC_C] |= C_IRQF;
    else
        rtc->ram[RTC_C] &= ~C_IRQF;
    for (unsigned i = 0; i < RTC_N_EVENTS && !flagged; i++) {
        if (!(enabled & rtc_events[i].flag))
            continue;
        uint64_t at = rtc_events[i].next(rtc, rtc->seen);
        if (at < next)
            next = at;
    }
    clock_arm(rtc->clock, &rtc->timer, next);
    irq_set(&rtc->irq, flagged != 0);
}

static void rtc_timer_fired(void *device)
{
    struct mc146818 *rtc = device;
    rtc_advance(rtc, clock_now(rtc->clock));
    rtc_drive(rtc);
}

/* ---- registers ----------------------------------------------------------------------------------------- */

/* Is an update due within the time that UIP announces it? */
static bool rtc_is_updating(const struct mc146818 *rtc, uint64_t now)
{
    uint64_t update = rtc_next_update(rtc, now);
    return update != CLOCK_NO_DEADLINE && update - now <= NS_OF_UPDATE;
}

/* Changes register A or B, and with it perhaps who holds the time. */
static void rtc_write_mode(struct mc146818 *rtc, unsigned index, uint8_t value, uint64_t now)
{
    bool was_held = rtc_is_held(rtc), was_reset = rtc_divider_is_reset(rtc);

    if (!was_held)
        rtc_freeze(rtc,
                   now); /* in the format of before; without effect if the time is not held after either */
    rtc->ram[index] = value;
    if (was_reset && !rtc_divider_is_reset(rtc))
        rtc->phase = (uint32_t)((NS_PER_SECOND + NS_OF_DIV_RESTART - now % NS_PER_SECOND) % NS_PER_SECOND);
    if (was_held && !rtc_is_held(rtc))
        rtc_resume(rtc, now);
}

static void rtc_write_time(struct mc146818 *rtc, unsigned index, uint8_t value, uint64_t now)
{
    bool held = rtc_is_held(rtc);

    if (!held)
        rtc_freeze(rtc, now);
    rtc->ram[index] = value;
    if (!held)
        rtc_resume(rtc, now);
}

static void rtc_write_register(struct mc146818 *rtc, unsigned index, uint8_t value, uint64_t now)
{
    switch (index) {
    case RTC_A:
        rtc_write_mode(rtc, RTC_A, value & ~A_UIP, now);
        break;
    case RTC_B:
        if (value & B_SET)
            value &= ~B_UPDATE; /* "SET ... clears UIE" */
        rtc_write_mode(rtc, RTC_B, value, now);
        break;
    case RTC_C:
    case RTC_D:
        break; /* read-only */
    default:
        if (register_is_time(index))
            rtc_write_time(rtc, index, value, now);
        else
            rtc->ram[index] = value;
        break;
    }
}

/* "Cleared by a read", and the interrupt with it. */
static uint8_t rtc_read_flags(struct mc146818 *rtc)
{
    uint8_t flags;

    rtc_advance(rtc, clock_now(rtc->clock));
    rtc_drive(rtc);
    flags = rtc->ram[RTC_C];
    rtc->ram[RTC_C] = 0;
    rtc_drive(rtc);
    return flags;
}

/* What happens meanwhile shows in register C alone; that it raises the line is its timer's business. */
static uint8_t rtc_read_register(struct mc146818 *rtc, unsigned index)
{
    uint8_t value = rtc->ram[index];

    if (index == RTC_A)
        return value | (rtc_is_updating(rtc, clock_now(rtc->clock)) ? A_UIP : 0);
    if (index == RTC_C)
        return rtc_read_flags(rtc);
    if (register_is_time(index) && !rtc_is_held(rtc))
        return rtc_time_register(rtc, index, rtc_unix_time(rtc, clock_now(rtc->clock)));
    return value;
}

static void rtc_write(void *device, uint32_t offset, unsigned size, uint32_t value)
{
    struct mc146818 *rtc = device;
    uint64_t now = clock_now(rtc->clock);
    (void)size;

    if (offset == 0) {
        rtc->index = value & INDEX_MASK;
        return;
    }
    rtc_advance(rtc, now);
    rtc_write_register(rtc, rtc->index, (uint8_t)value, now);
    rtc_drive(rtc);
}

static uint32_t rtc_read(void *device, uint32_t offset, unsigned size)
{
    struct mc146818 *rtc = device;
    (void)size;

    /* the index register can only be written */
    return offset == 0 ? 0xff : rtc_read_register(rtc, rtc->index);
}

const struct bus_device_ops mc146818_ops = {.read = rtc_read, .write = rtc_write, .max_size = 1};

/* "RESET ... clears PIE, AIE, UIE, SQWE and the flags". */
void mc146818_reset(struct mc146818 *rtc)
{
    rtc->index = 0;
    rtc->ram[RTC_B] &= ~(B_INTERRUPTS | B_SQWE);
    rtc->ram[RTC_C] = 0;
    rtc->seen = clock_now(rtc->clock);
    rtc_drive(rtc);
}

static void rtc_set_word(struct mc146818 *rtc, unsigned index, uint64_t value)
{
    uint16_t word = value > 0xffff ? 0xffff : (uint16_t)value;

    rtc->ram[index] = (uint8_t)word;
    rtc->ram[index + 1] = (uint8_t)(word >> 8);
}

static void rtc_describe_memory(struct mc146818 *rtc, uint64_t ram_size)
{
    uint64_t above_1m = ram_size > 1u << 20 ? ram_size - (1u << 20) : 0;
    uint64_t above_16m = ram_size > 16u << 20 ? ram_size - (16u << 20) : 0;

    rtc_set_word(rtc, RTC_BASE_MEMORY, ram_size < 640u << 10 ? ram_size >> 10 : 640);
    rtc_set_word(rtc, RTC_EXTENDED_MEMORY, above_1m >> 10);
    rtc_set_word(rtc, RTC_EXTENDED_MEMORY_2, above_1m >> 10);
    rtc_set_word(rtc, RTC_HIGH_MEMORY, above_16m >> 16);
}

void mc146818_init(struct mc146818 *rtc, struct clock *clock, struct irq_line irq, uint64_t ram_size)
{
    int64_t seconds = clock->wall_offset / (int64_t)NS_PER_SECOND;
    int64_t rest = clock->wall_offset % (int64_t)NS_PER_SECOND;

    if (rest < 0) {
        rest += NS_PER_SECOND;
        seconds--;
    }
    *rtc = (struct mc146818){
        .offset = seconds,
        .phase = (uint32_t)rest,
        .timer = {.fire = rtc_timer_fired, .ctx = rtc},
        .clock = clock,
        .irq = irq,
    };
    rtc->ram[RTC_A] = FIRMWARE_A;
    rtc->ram[RTC_B] = B_24H;
    rtc->ram[RTC_D] = D_VALID;
    rtc->ram[RTC_EQUIPMENT] = EQUIPMENT_FPU;
    rtc_describe_memory(rtc, ram_size);
    mc146818_reset(rtc);
}
