/*
 * The real-time clock and CMOS memory: Motorola MC146818A data sheet, in its PC wiring (ports 0x70 and
 * 0x71, 32.768 kHz crystal, IRQ 8), with 128 bytes and the fields that BIOSes keep there.
 *
 * The time is not ticked: it is the machine's clock plus an offset that the guest may set. While the guest
 * holds it (SET, or the divider chain in reset) the registers themselves are the time. Read next: mc146818.c.
 */
#ifndef RING3_MC146818_H
#define RING3_MC146818_H

#include "devices/devices.h"

#define MC146818_PORT      0x70
#define MC146818_REGISTERS 128

enum mc146818_register {
    RTC_SECONDS,
    RTC_SECONDS_ALARM,
    RTC_MINUTES,
    RTC_MINUTES_ALARM,
    RTC_HOURS,
    RTC_HOURS_ALARM,
    RTC_DAY_OF_WEEK,
    RTC_DAY,
    RTC_MONTH,
    RTC_YEAR,
    RTC_A,
    RTC_B,
    RTC_C,
    RTC_D,
    RTC_SHUTDOWN = 0x0f, /* the BIOS's reason to go on after a reset; plain memory */
    RTC_EQUIPMENT = 0x14,
    RTC_BASE_MEMORY = 0x15,     /* KiB below 640 KiB, 16 bits */
    RTC_EXTENDED_MEMORY = 0x17, /* KiB above 1 MiB, 16 bits; also at 0x30 */
    RTC_EXTENDED_MEMORY_2 = 0x30,
    RTC_CENTURY = 0x32,
    RTC_HIGH_MEMORY = 0x34, /* 64 KiB units above 16 MiB, 16 bits */
    RTC_DISK_TRANSLATION = 0x39,
    RTC_BOOT_ORDER = 0x3d, /* what the BIOS boots from, four bits each, the first one lowest: */
};

#define RTC_BOOT_DISK 2

struct mc146818 {
    uint8_t index;                   /* port 0x70 */
    uint8_t ram[MC146818_REGISTERS]; /* time registers: meaningful while the time is held */
    int64_t offset;                  /* s: Unix time is (now + phase) / 1 s + offset */
    uint32_t phase;                  /* ns, below one second */
    uint8_t day_of_week_bias;        /* the guest may call any day Sunday */
    uint64_t seen;                   /* ns: events up to here are in register C */

    struct timer timer;
    struct clock *clock;
    struct irq_line irq;
};

/* Sets the clock from clock->wall_offset and the memory fields from ram_size. */
void mc146818_init(struct mc146818 *rtc, struct clock *clock, struct irq_line irq, uint64_t ram_size);
void mc146818_reset(struct mc146818 *rtc); /* interrupts off; time and memory have a battery */

extern const struct bus_device_ops mc146818_ops; /* two ports */

#endif
