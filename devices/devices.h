/*
 * devices: the chips of the PC and the board that wires them.
 *
 * A chip is a .c/.h pair named after the part. Its state is one plain struct inside `struct board`; it is
 * reached by (device, offset, size) callbacks from the bus, drives interrupt lines through `struct irq_line`,
 * and asks the one `struct clock` for the time. No chip knows the guest CPU, the host's clock or the process.
 *
 * Units: time in nanoseconds of the machine's clock; port and memory accesses of 1, 2 or 4 bytes; offsets
 * from the start of the claimed range. Read next: board.c (all wiring, on one screen), bus.c, clock.c.
 */
#ifndef RING3_DEVICES_H
#define RING3_DEVICES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* ---- time -------------------------------------------------------------------------------------------- */

/* A pending call at a moment of machine time. Owned by its chip; linked into the clock while armed. */
struct timer {
    uint64_t deadline; /* ns */
    void (*fire)(void *ctx);
    void *ctx;
    struct timer *next; /* armed timers, earliest first */
    bool armed;
    bool is_one_shot; /* software sets it again after each expiry: one that comes late is not lost */
};

/* The machine's clock. The monitor supplies `now`; it is either host time or virtual time, and chips cannot
 * tell. */
struct clock {
    uint64_t (*now)(void *ctx); /* ns since power-on; never goes back */
    void *ctx;
    int64_t wall_offset; /* ns: Unix time at power-on, for the RTC */
    struct timer *timers;
    void (*deadline_changed)(void *ctx); /* the earliest deadline moved; may be NULL */
};

#define CLOCK_NO_DEADLINE UINT64_MAX

uint64_t clock_now(const struct clock *clock);
/* Re-arms an armed timer. CLOCK_NO_DEADLINE disarms it. */
void clock_arm(struct clock *clock, struct timer *timer, uint64_t deadline);
void clock_disarm(struct clock *clock, struct timer *timer);
uint64_t clock_next_deadline(const struct clock *clock);       /* CLOCK_NO_DEADLINE if none */
uint64_t clock_deadline_after_next(const struct clock *clock); /* likewise */
bool clock_next_is_one_shot(const struct clock *clock);        /* false if none */
/* Fires every timer whose deadline has passed, in order; of equal deadlines the one armed first. A periodic
 * chip catches up by arithmetic and re-arms beyond the present, so one call fires each of its timers once,
 * however short the period and however long ago the last call. */
void clock_run(struct clock *clock);

/* A chip that counts cycles of `hz` converts without overflow or drift: ticks completed at a time, and the
 * first time at which that many are completed. clock_to_ticks(clock_from_ticks(t, hz), hz) == t for hz up to
 * 1 GHz. */
uint64_t clock_to_ticks(uint64_t ns, uint32_t hz);
uint64_t clock_from_ticks(uint64_t ticks, uint32_t hz); /* CLOCK_NO_DEADLINE if beyond it */

/* ---- interrupt lines --------------------------------------------------------------------------------- */

/* A handle to one input pin of some chip. `set` is called on every drive, also of an unchanged level. */
struct irq_line {
    void (*set)(void *ctx, unsigned pin, bool level);
    void *ctx;
    unsigned pin;
};

static inline void irq_set(const struct irq_line *line, bool level)
{
    if (line->set != NULL)
        line->set(line->ctx, line->pin, level);
}

/* ---- bus --------------------------------------------------------------------------------------------- */

enum bus_space { BUS_PORT, BUS_MEMORY };

/* What a chip answers to. size is 1, 2 or 4; a chip that is narrower (`max_size`), or whose range ends in the
 * middle of the access, sees the access split by the bus into halves, low one first, as the ISA bus does.
 * What reaches a chip lies within its range, though not always on a multiple of its size. Bits of a value
 * above `size` are zero in writes and ignored in what read returns. */
struct bus_device_ops {
    uint32_t (*read)(void *device, uint32_t offset, unsigned size);
    void (*write)(void *device, uint32_t offset, unsigned size, uint32_t value);
    unsigned max_size; /* 1, 2 or 4 */
    bool bytes_only;   /* a wider access that covers the range is not for this chip but for another whose
                          range lies around it (port 0xCF9, in the PCI configuration address) */
};

struct bus_range {
    uint32_t first, last; /* inclusive */
    const struct bus_device_ops *ops;
    void *device;
    const char *name; /* of the chip, for traces */
};

#define BUS_MAX_RANGES 32

/* Every access and every line change can be seen in one place each. Any member may be NULL. */
struct board_observer {
    void (*unclaimed)(void *ctx, enum bus_space space, uint32_t address, unsigned size, bool is_write,
                      uint32_t value); /* value: as written, or the ones that were read */
    void (*line)(void *ctx, const char *lines, unsigned pin, bool level); /* "isa", IRQ: changed its level */
    void *ctx;
};

#define BUS_ROUTES 16u

/* Where an access went the last time. */
struct bus_route {
    uint64_t key;                     /* address, and size << 32; 0: no access */
    const struct bus_device_ops *ops; /* of who takes it as it is; NULL: it is to be cut, or nobody answers */
    void *device;
    uint32_t offset, mask;
};

struct bus {
    struct bus_range ports[BUS_MAX_RANGES];
    struct bus_range memory[BUS_MAX_RANGES];
    unsigned n_ports, n_memory;
    struct bus_route route[2][BUS_ROUTES]; /* by enum bus_space, and the address */
    struct board_observer observer;
};

/* Claims [first, last]. Overlap with an earlier claim, unless that is of bytes_only, or a full table, is a
 * wiring bug and aborts. */
void bus_claim(struct bus *bus, enum bus_space space, uint32_t first, uint32_t last,
               const struct bus_device_ops *ops, void *device, const char *name);
/* The same for a range that the guest chose: false, and nothing is claimed, if it overlaps another or runs
 * past the end of the space. */
bool bus_try_claim(struct bus *bus, enum bus_space space, uint32_t first, uint32_t last,
                   const struct bus_device_ops *ops, void *device, const char *name);
/* Gives a claim back (the local APIC's page, when it is disabled). Does nothing if no range starts at
 * `first`. */
void bus_release(struct bus *bus, enum bus_space space, uint32_t first);
/* An access of 1, 2 or 4 bytes. Unclaimed: reads as ones, writes are dropped, and the observer is told. */
uint32_t bus_read(struct bus *bus, enum bus_space space, uint32_t address, unsigned size);
void bus_write(struct bus *bus, enum bus_space space, uint32_t address, unsigned size, uint32_t value);
const struct bus_range *bus_find(const struct bus *bus, enum bus_space space, uint32_t address);

/* ---- the board --------------------------------------------------------------------------------------- */

#define BOARD_MAX_DRIVES 4

struct drive_config {
    const char *path; /* raw image; NULL: no drive. Outlives the board */
    bool snapshot;    /* writes stay in memory, the file is opened read-only */
};

/* Calls from the board to its surroundings. None is NULL. */
struct board_host {
    void *ctx;
    void (*console_write)(void *ctx, const void *bytes, size_t n); /* UART transmit and port 0xE9 */
    void (*screen_changed)(void *ctx);                             /* VGA text memory or cursor written */
    void (*reset)(void *ctx, const char *why);     /* i8042 line, ports 0xCF9 and 0x92, an INIT message */
    void (*power_off)(void *ctx);                  /* ACPI sleep state S5 through the PIIX4 */
    void (*debug_exit)(void *ctx, uint32_t value); /* isa-debug-exit, port 0xf4 (value as written) */
    void (*guest_write)(void *ctx, uint64_t gpa, const void *bytes, size_t n); /* firmware's tables */
    /* Bus masters: ROM drops what is written. false: not all of it is memory; then nothing was moved. */
    bool (*dma_read)(void *ctx, uint64_t gpa, void *bytes, size_t n);
    bool (*dma_write)(void *ctx, uint64_t gpa, const void *bytes, size_t n);
    /* [gpa, gpa + size) of the BIOS area reads from RAM (is_read) or ROM, and takes writes (is_write). */
    void (*shadow_ram)(void *ctx, uint64_t gpa, uint64_t size, bool is_read, bool is_write);
};

/* Which chip gets what is typed. AUTO: the UART once the guest listens on it (RTS or its receive
 * interrupt is on), else the keyboard once the guest attends to it; until then nothing is taken. UART: only
 * there, and once the guest listens. */
enum board_input { BOARD_INPUT_AUTO, BOARD_INPUT_UART, BOARD_INPUT_KEYBOARD };

struct board_config {
    uint64_t ram_size; /* bytes */
    struct drive_config drive[BOARD_MAX_DRIVES];
    enum board_input input;
    bool boots_firmware; /* a BIOS is in the ROM and finds the chips as after a reset; else the board does
                            the part of firmware itself */
    uint32_t cpu_signature, cpu_features; /* CPUID.1 EAX and EDX, for the MP tables */
    struct board_host host;
    struct board_observer observer;
    struct clock *clock;
};

struct board;

/* Makes and wires the board. On failure returns NULL and puts one line (what, where, what to do) in `error`.
 */
struct board *board_create(const struct board_config *config, char *error, size_t error_size);
void board_destroy(struct board *board);
/* The RESET line: every chip to its power-on state, or to what firmware leaves where a kernel relies on it.
 */
void board_reset(struct board *board);
/* Where no firmware runs: MP and ACPI tables and BIOS data area, through guest_write. */
void board_install_firmware(struct board *board);
/* A file for firmware, in the firmware configuration device; the bytes are copied. */
void board_add_firmware_file(struct board *board, const char *name, const void *bytes, size_t size);

struct bus *board_bus(struct board *board);
/* The INTR and NMI pins of the CPU. acknowledge runs the INTA cycle and returns the vector (0-255); call it
 * only while board_intr() holds; a line that fell away meanwhile gives the PIC's spurious vector. */
bool board_intr(const struct board *board);
uint8_t board_acknowledge(struct board *board);
bool board_nmi(const struct board *board);
bool board_nmi_take(struct board *board); /* true once for each NMI edge */
/* The local APIC's base register, IA32_APIC_BASE. Writing returns false for a value this machine cannot
 * follow (reserved bits, or a page other than 0xfee00000); the register is then unchanged. */
uint64_t board_apic_base(const struct board *board);
bool board_write_apic_base(struct board *board, uint64_t value);
/* The A20 gate. Address bit 20 is not masked here: a guest that closes the gate and then relies on
 * wrap-around must be told that it cannot. */
bool board_a20_enabled(const struct board *board);

/* Console input (bytes typed): to the UART, or as scan codes to the i8042 (enum board_input). Returns how
 * many were taken; the rest must be offered again when board_console_wants_input(), which changes only in bus
 * accesses, clock_run and here. */
size_t board_console_input(struct board *board, const uint8_t *bytes, size_t n);
bool board_console_wants_input(const struct board *board);

/* VGA text screen as code page 437 bytes, `rows` lines of `columns` characters, for the console and for
 * tests. */
struct screen {
    unsigned columns, rows; /* 80, 25 */
    unsigned cursor_column, cursor_row;
    const uint8_t *cells; /* rows*columns pairs: character, attribute */
    uint64_t generation;  /* grows with every change */
};
void board_screen(const struct board *board, struct screen *screen);

#endif
