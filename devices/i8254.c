/*
 * i8254: three counters whose counts and outputs are functions of the time, not things that tick.
 *
 * A channel remembers when its counting element was loaded and with what; count and OUT at any CLK pulse
 * follow by arithmetic, so a period of 2 us costs no more than one of 55 ms. Section names are the 8254 data
 * sheet's. Timing: what is written before pulse t is loaded at pulse t + 1 and counts down from the pulse
 * after.
 *
 * What the data sheet leaves open is decided here: a count of 1 in modes 2 and 3, which it forbids, counts as
 * 2; digits above 9 in a BCD count weigh what they say.
 *
 * Read next: i8259.c, which sees channel 0 as input 0.
 */
#include "devices/i8254.h"

/* Control word, "8254 Programming". */
#define CONTROL_BCD       0x01
#define CONTROL_MODE(v)   (((v) >> 1) & 7)
#define CONTROL_ACCESS(v) (((v) >> 4) & 3)
#define CONTROL_SELECT(v) ((v) >> 6)
#define SELECT_READ_BACK  3
/* Read-back command. The two latch bits are active low. */
#define READ_BACK_NO_STATUS  0x10
#define READ_BACK_NO_COUNT   0x20
#define READ_BACK_CHANNEL(n) (0x02u << (n))
/* Status byte; the low six bits repeat the control word. */
#define STATUS_OUT        0x80
#define STATUS_NULL_COUNT 0x40

#define CONTROL_PORT 3

#define PORT_B_GATE2   0x01
#define PORT_B_REFRESH 0x10
#define PORT_B_OUT2    0x20
#define PORT_B_WRITABLE                                                                                      \
    0x0f /* gate, speaker data, and two enables for memory and bus errors, which never come */

#define CLK_NEVER INT64_MAX

static i8254_clk pit_now(const struct i8254 *pit)
{
    return (i8254_clk)clock_to_ticks(clock_now(pit->clock), I8254_HZ);
}

/* ---- counts -------------------------------------------------------------------------------------------- */

static uint32_t channel_modulus(const struct i8254_channel *channel)
{
    return channel->bcd ? 10000 : 0x10000;
}

/* A written count as a number of pulses: 0 stands for the modulus. */
static uint32_t channel_decode_count(const struct i8254_channel *channel, uint16_t written)
{
    uint32_t count = written;

    if (channel->bcd)
        count =
            (written >> 12) * 1000u + (written >> 8 & 15) * 100u + (written >> 4 & 15) * 10u + (written & 15);
    if (count == 0)
        return channel_modulus(channel);
    if (count == 1 && (channel->mode == 2 || channel->mode == 3))
        return 2;
    return count;
}

static uint16_t channel_encode_count(const struct i8254_channel *channel, uint32_t count)
{
    if (!channel->bcd)
        return (uint16_t)count;
    return (uint16_t)(count / 1000 % 10 << 12 | count / 100 % 10 << 8 | count / 10 % 10 << 4 | count % 10);
}

/* ---- the counting element as a function of time -------------------------------------------------------- */

static bool channel_is_periodic(const struct i8254_channel *channel)
{
    return channel->mode == 2 || channel->mode == 3;
}

/* Modes whose counting GATE starts; in all others it stops counting while low. */
static bool channel_is_triggered(const struct i8254_channel *channel)
{
    return channel->mode == 1 || channel->mode == 5;
}

/* Pulses since the load. Negative: the load is still ahead. */
static i8254_clk channel_elapsed(const struct i8254_channel *channel, i8254_clk now)
{
    return channel->paused ? channel->elapsed : now - channel->start;
}

/* For how much of a period OUT is high: in mode 3 half of it, and for odd counts one pulse more. */
static i8254_clk channel_high_pulses(const struct i8254_channel *channel)
{
    return channel->mode == 2 ? channel->count - 1 : (channel->count + 1) / 2;
}

static bool channel_out(const struct i8254_channel *channel, i8254_clk now)
{
    i8254_clk elapsed = channel_elapsed(channel, now), count = channel->count;

    if (!channel->running || elapsed < 0)
        return channel->out_until_start;
    switch (channel->mode) {
    case 0: /* interrupt on terminal count */
    case 1: /* hardware retriggerable one-shot */
        return elapsed >= count;
    case 2: /* rate generator */
    case 3: /* square wave; "if GATE goes low while OUT is low, OUT is set high immediately" */
        return channel->paused || elapsed % count < channel_high_pulses(channel);
    default: /* 4 and 5, software and hardware triggered strobe */
        return elapsed != count;
    }
}

/* The first pulse after `now` at which OUT may change, or CLK_NEVER. */
static i8254_clk channel_next_change(const struct i8254_channel *channel, i8254_clk now)
{
    i8254_clk elapsed = channel_elapsed(channel, now), count = channel->count;

    if (!channel->running || channel->paused)
        return CLK_NEVER;
    if (elapsed < 0)
        return channel->start;
    if (channel_is_periodic(channel)) {
        i8254_clk phase = elapsed % count, high = channel_high_pulses(channel);
        return now - phase + (phase < high ? high : count);
    }
    if (elapsed < count)
        return channel->start + count;
    if (elapsed == count && channel->mode >= 4)
        return now + 1;
    return CLK_NEVER;
}

/* Did counting make OUT rise within (before, now]? The level alone would not show a rise from high to high.
 */
static bool channel_has_risen(const struct i8254_channel *channel, i8254_clk before, i8254_clk now)
{
    i8254_clk last_rise = channel->start + channel->count + (channel->mode >= 4);

    if (!channel->running || channel->paused || now < channel->start)
        return false;
    if (channel_is_periodic(channel))
        last_rise = now - (now - channel->start) % channel->count;
    return before < last_rise && last_rise <= now && last_rise != channel->start;
}

static uint16_t channel_read_count(const struct i8254_channel *channel, i8254_clk now)
{
    i8254_clk elapsed = channel_elapsed(channel, now), modulus = channel_modulus(channel);
    i8254_clk count = channel->count;

    if (!channel->running)
        return 0;
    if (elapsed < 0)
        elapsed = 0;
    if (channel_is_periodic(channel)) {
        i8254_clk phase = elapsed % count, high = channel_high_pulses(channel);
        if (channel->mode == 3) /* counts an even number down by two, twice a period */
            return channel_encode_count(channel,
                                        (uint32_t)((count & ~1) - 2 * (phase < high ? phase : phase - high)));
        return channel_encode_count(channel, (uint32_t)(count - phase));
    }
    /* "The counter wraps around to the highest count and continues counting." */
    return channel_encode_count(channel, (uint32_t)((count + modulus * 2 - elapsed % modulus) % modulus));
}

/* ---- what happens to a channel ------------------------------------------------------------------------- */

/* The count register is transferred to the counting element at pulse `start`. */
static void channel_load(struct i8254_channel *channel, i8254_clk now, i8254_clk start)
{
    channel->out_until_start = channel->mode == 0 ? false : channel_out(channel, now);
    channel->count = channel->next_count;
    channel->next_pending = false;
    channel->start = start;
    channel->running = true;
    channel->paused = !channel->gate && !channel_is_triggered(channel);
    channel->elapsed = 0;
}

/* Brings the channel from `before` to `now`: a new count waiting for the end of a period may have been
 * loaded. Returns whether OUT has risen on the way. */
static bool channel_advance(struct i8254_channel *channel, i8254_clk before, i8254_clk now)
{
    bool risen = false;

    if (channel->next_pending && channel->running && now >= channel->next_start) {
        i8254_clk boundary = channel->next_start;
        bool into_low_half = !channel_out(channel, boundary);

        risen = channel_has_risen(channel, before, boundary);
        channel_load(channel, boundary, boundary);
        if (into_low_half) /* mode 3 reloads at each half: as if the period had begun earlier */
            channel->start -= channel_high_pulses(channel);
        before = boundary;
    }
    return channel_has_risen(channel, before, now) || risen;
}

static void channel_write_control(struct i8254_channel *channel, uint8_t control)
{
    static const uint8_t modes[8] = {0, 1, 2, 3, 4, 5, 2, 3};

    *channel = (struct i8254_channel){
        .mode = modes[CONTROL_MODE(control)],
        .bcd = control & CONTROL_BCD,
        .access = CONTROL_ACCESS(control),
        .gate = channel->gate,
        .out_until_start = CONTROL_MODE(control) != 0,
        .next_pending = true,
        .next_start = CLK_NEVER,
    };
}

/* A complete count has been written. */
static void channel_write_count(struct i8254_channel *channel, uint16_t written, i8254_clk now)
{
    bool counting = channel->running && !channel->paused && now >= channel->start;

    channel->next_count = channel_decode_count(channel, written);
    channel->next_pending = true;
    channel->next_start = CLK_NEVER;
    if (channel_is_triggered(channel))
        return; /* GATE loads it */
    if (!channel_is_periodic(channel) || !channel->running || now < channel->start)
        channel_load(channel, now, now + 1);
    else if (counting && channel->mode == 2)
        channel->next_start = now + channel->count - (now - channel->start) % channel->count;
    else if (counting)
        channel->next_start = channel_next_change(channel, now);
}

static void channel_write(struct i8254_channel *channel, uint8_t value, i8254_clk now)
{
    switch (channel->access) {
    case I8254_LATCH: /* not a stored state */
    case I8254_LSB:
        channel_write_count(channel, value, now);
        return;
    case I8254_MSB:
        channel_write_count(channel, (uint16_t)(value << 8), now);
        return;
    case I8254_LSB_MSB:
        break;
    }
    if (channel->write_msb_next) {
        channel_write_count(channel, (uint16_t)(value << 8 | channel->written_lsb), now);
    } else {
        channel->written_lsb = value;
        if (channel->mode == 0) { /* "Writing the first byte disables counting. OUT is set low immediately" */
            channel->running = false;
            channel->out_until_start = false;
        }
    }
    channel->write_msb_next = !channel->write_msb_next;
}

static void channel_set_gate(struct i8254_channel *channel, bool level, i8254_clk now)
{
    if (channel->gate == level)
        return;
    channel->gate = level;
    if (channel_is_triggered(channel) || channel_is_periodic(channel)) {
        if (level && channel->next_count != 0)
            channel_load(channel, now, now + 1);
    } else if (level && channel->paused) {
        channel->paused = false;
        if (now >= channel->start) /* else it is not even loaded */
            channel->start = now - channel->elapsed;
    }
    if (!level && channel->running && !channel->paused && !channel_is_triggered(channel)) {
        channel->elapsed = now < channel->start ? 0 : now - channel->start;
        channel->paused = true;
        channel->next_start = CLK_NEVER; /* GATE will reload, with whatever is in the count register */
    }
}

/* ---- latches and reads --------------------------------------------------------------------------------- */

static void channel_latch_count(struct i8254_channel *channel, i8254_clk now)
{
    if (channel->count_latched)
        return; /* "the count read will be the count at the time the first command was issued" */
    channel->latched_count = channel_read_count(channel, now);
    channel->count_latched = true;
}

static void channel_latch_status(struct i8254_channel *channel, i8254_clk now)
{
    if (channel->status_latched)
        return;
    bool null_count = channel->next_pending || now < channel->start;
    channel->latched_status =
        (uint8_t)((channel_out(channel, now) ? STATUS_OUT : 0) | (null_count ? STATUS_NULL_COUNT : 0) |
                  channel->access << 4 | channel->mode << 1 | (channel->bcd ? CONTROL_BCD : 0));
    channel->status_latched = true;
}

static uint8_t channel_read(struct i8254_channel *channel, i8254_clk now)
{
    if (channel->status_latched) {
        channel->status_latched = false;
        return channel->latched_status;
    }
    uint16_t count = channel->count_latched ? channel->latched_count : channel_read_count(channel, now);
    bool msb = channel->access == I8254_MSB || (channel->access == I8254_LSB_MSB && channel->read_msb_next);

    if (channel->access == I8254_LSB_MSB)
        channel->read_msb_next = !channel->read_msb_next;
    if (msb || channel->access != I8254_LSB_MSB)
        channel->count_latched = false;
    return (uint8_t)(msb ? count >> 8 : count);
}

/* ---- the chip ------------------------------------------------------------------------------------------ */

/* Brings all channels to the present. Every access begins with it, so that it finds the state of now. */
static i8254_clk pit_advance(struct i8254 *pit)
{
    i8254_clk now = pit_now(pit);
    bool risen = channel_advance(&pit->channel[0], pit->irq_time, now);

    channel_advance(&pit->channel[1], pit->irq_time, now);
    channel_advance(&pit->channel[2], pit->irq_time, now);
    if (risen) { /* however many times: the line has one edge to show for it */
        irq_set(&pit->irq, false);
        irq_set(&pit->irq, true);
        pit->irq_level = true;
    }
    pit->irq_time = now;
    return now;
}

/* Drives IRQ 0 after time or the guest may have changed channel 0, and plans for its next change. */
static void pit_drive(struct i8254 *pit, i8254_clk now)
{
    const struct i8254_channel *channel = &pit->channel[0];
    bool level = channel_out(channel, now);
    i8254_clk next = channel_next_change(channel, now);

    if (level != pit->irq_level)
        irq_set(&pit->irq, level);
    pit->irq_level = level;
    clock_arm(pit->clock, &pit->timer,
              next == CLK_NEVER ? CLOCK_NO_DEADLINE : clock_from_ticks((uint64_t)next, I8254_HZ));
}

static void pit_timer_fired(void *device)
{
    struct i8254 *pit = device;
    pit_drive(pit, pit_advance(pit));
}

static void pit_read_back(struct i8254 *pit, uint8_t command, i8254_clk now)
{
    for (unsigned i = 0; i < I8254_CHANNELS; i++) {
        if (!(command & READ_BACK_CHANNEL(i)))
            continue;
        if (!(command & READ_BACK_NO_COUNT))
            channel_latch_count(&pit->channel[i], now);
        if (!(command & READ_BACK_NO_STATUS))
            channel_latch_status(&pit->channel[i], now);
    }
}

static void pit_write_control(struct i8254 *pit, uint8_t control, i8254_clk now)
{
    unsigned select = CONTROL_SELECT(control);

    if (select == SELECT_READ_BACK)
        pit_read_back(pit, control, now);
    else if (CONTROL_ACCESS(control) == I8254_LATCH)
        channel_latch_count(&pit->channel[select], now);
    else
        channel_write_control(&pit->channel[select], control);
}

static void pit_write(void *device, uint32_t offset, unsigned size, uint32_t value)
{
    struct i8254 *pit = device;
    i8254_clk now = pit_advance(pit);
    (void)size;

    if (offset == CONTROL_PORT)
        pit_write_control(pit, (uint8_t)value, now);
    else
        channel_write(&pit->channel[offset], (uint8_t)value, now);
    pit_drive(pit, now);
}

static uint32_t pit_read(void *device, uint32_t offset, unsigned size)
{
    struct i8254 *pit = device;
    i8254_clk now = pit_advance(pit);
    (void)size;

    pit_drive(pit, now);
    return offset == CONTROL_PORT ? 0xff : channel_read(&pit->channel[offset], now);
}

const struct bus_device_ops i8254_ops = {.read = pit_read, .write = pit_write, .max_size = 1};

static uint32_t port_b_read(void *device, uint32_t offset, unsigned size)
{
    struct i8254 *pit = device;
    i8254_clk now = pit_advance(pit);
    (void)offset;
    (void)size;

    pit_drive(pit, now);
    return pit->port_b | (now / I8254_REFRESH_CLK % 2 != 0 ? PORT_B_REFRESH : 0u) |
           (channel_out(&pit->channel[I8254_SPEAKER], now) ? PORT_B_OUT2 : 0u);
}

static void port_b_write(void *device, uint32_t offset, unsigned size, uint32_t value)
{
    struct i8254 *pit = device;
    i8254_clk now = pit_advance(pit);
    (void)offset;
    (void)size;

    pit->port_b = value & PORT_B_WRITABLE;
    channel_set_gate(&pit->channel[I8254_SPEAKER], value & PORT_B_GATE2, now);
    pit_drive(pit, now);
}

const struct bus_device_ops i8254_port_b_ops = {.read = port_b_read, .write = port_b_write, .max_size = 1};

/* "After power-up the state of the 8254 is undefined": here all counters stand still in mode 0. */
void i8254_reset(struct i8254 *pit)
{
    for (unsigned i = 0; i < I8254_CHANNELS; i++)
        pit->channel[i] = (struct i8254_channel){
            .access = I8254_LSB_MSB, .gate = i != I8254_SPEAKER, .next_start = CLK_NEVER};
    pit->port_b = 0;
    pit->irq_time = pit_now(pit);
    pit_drive(pit, pit->irq_time);
}

void i8254_init(struct i8254 *pit, struct clock *clock, struct irq_line irq)
{
    *pit = (struct i8254){.clock = clock, .irq = irq, .timer = {.fire = pit_timer_fired, .ctx = pit}};
    i8254_reset(pit);
}
