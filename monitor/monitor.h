/*
 * monitor: the virtual machine, its run loop, and everything a person touches (loader, trace, commands).
 *
 * An engine is a source of exits and nothing more: engine->run() runs guest code until something needs the
 * monitor; vm_handle_exit() does not know which engine it came from, nor that signals exist. Unit tests feed
 * it synthetic exits.
 *
 * Read next: run.c (the loop, on one page), exit.c (what is done about an exit), machine.c (how the parts are
 * joined).
 */
#ifndef RING3_MONITOR_H
#define RING3_MONITOR_H

#include "devices/devices.h"
#include "monitor/device_page.h"
#include "monitor/idle.h"
#include "monitor/pvclock.h"
#include "shadowpt/shadowpt.h"
#include "vcpu/vcpu.h"

struct vm;

/* ---- exits ------------------------------------------------------------------------------------------- */

/* EXIT_REASON(enumerator, name in traces and statistics) */
#define EXIT_REASONS(EXIT_REASON)                                                                            \
    EXIT_REASON(EXIT_EXCEPTION, "exception") /* the CPU raised fault.vector; #GP and #UD are where sensitive \
                                                instructions come from */                                    \
    EXIT_REASON(EXIT_PAGE_FAULT, "page-fault") /* #PF: fault.cr2 (guest linear) and fault.error */           \
    EXIT_REASON(EXIT_HOST_CALL, "host-call")   /* a system call instruction was kept from the host kernel */ \
    EXIT_REASON(EXIT_SENSITIVE, "sensitive")   /* the engine wants the instruction at CS:EIP emulated */     \
    EXIT_REASON(EXIT_GUEST_FAULT, "guest-fault") /* the guest's own fault, raised by vcpu/ with all checks:  \
                                                    nothing is left but to deliver it */                     \
    EXIT_REASON(EXIT_INTERRUPTED, "interrupted") /* a host timer or input: nothing happened in the guest */  \
    EXIT_REASON(EXIT_STEP, "step")               /* one instruction was run because vm->single_step is on */

enum exit_reason {
#define EXIT_REASON(enumerator, name) enumerator,
    EXIT_REASONS(EXIT_REASON)
#undef EXIT_REASON
        EXIT_REASON_COUNT
};

struct vm_exit {
    enum exit_reason reason;
    struct fault fault;
    const struct insn *insn; /* EXIT_SENSITIVE: the instruction at CS:EIP, if the engine has it; else NULL */
    /* Only if vm->timed, else 0: the host's time (monotonic ns) when the guest was entered, and when it had
     * stopped and its state was in the engine's hands. */
    uint64_t entered_ns, host_ns;
};

/* What was done about it: DISPOSITION(enumerator, name) */
#define DISPOSITIONS(DISPOSITION)                                                                            \
    DISPOSITION(DISPOSITION_EMULATED, "emulated") /* the instruction was run on virtual state */             \
    DISPOSITION(DISPOSITION_REFLECTED,                                                                       \
                "reflected")                    /* the guest's own exception: delivered through its IDT */   \
    DISPOSITION(DISPOSITION_FILLED, "filled")   /* the shadow now maps the page */                           \
    DISPOSITION(DISPOSITION_RESUMED, "resumed") /* nothing to do */                                          \
    DISPOSITION(DISPOSITION_STOPPED, "stopped") /* the run ends here */                                      \
    DISPOSITION(DISPOSITION_INTERRUPT, "interrupt") /* not an exit: a device interrupt was delivered */

enum disposition {
#define DISPOSITION(enumerator, name) enumerator,
    DISPOSITIONS(DISPOSITION)
#undef DISPOSITION
        DISPOSITION_COUNT
};

/* Is there an exception in exit->fault? */
bool exit_has_fault(const struct vm_exit *exit);
const char *exit_reason_name(enum exit_reason reason);
const char *disposition_name(enum disposition disposition);
const char *stop_reason_name(enum stop_reason reason);

/* ---- engines ----------------------------------------------------------------------------------------- */

/* What the engine has made the real CPU hold for the guest; only the stepper looks. */
struct real_registers {
    uint8_t cpl;
    uint32_t eflags;
    struct segment segment[SEG_COUNT]; /* host selectors and descriptors */
    bool is_loaded[SEG_COUNT];         /* false: it is made when the guest is entered next */
};

#define ENGINE_MAX_COUNTERS 32

/* For the statistics: the spaces' counts, all together, and the engine's own by name (static strings). */
struct engine_stats {
    struct shadow_stats shadow;
    unsigned n_counters;
    struct engine_counter {
        const char *name;
        uint64_t value;
    } counter[ENGINE_MAX_COUNTERS];
};

struct engine {
    const char *name; /* as in --engine */
    /* Called once, before the guest starts and before the sandbox closes. NULL: one line in `error`. */
    void *(*create)(struct vm *vm, char *error, size_t error_size);
    void (*destroy)(void *state);
    /* run() counts retired instructions in vm->n_instructions. */
    bool counts_instructions;
    /* run() ends the shadow of STI or MOV SS, and RF, with the next instruction, and what is there when it
     * returns has not ended. Else a shadow that was there before is over when EIP has moved. */
    bool ends_shadows;
    /* The window that shadowpt is to fill: where it lies now. NULL: it has none, and reaches the guest's
     * memory through vcpu_ops.memory alone. */
    struct shadow_window (*window)(void *state);
    /* An engine with several windows makes and owns all spaces, and sets vm->shadow to the current one: this
     * makes the first. NULL: there is one space, the machine's, in window(). */
    struct shadow *(*create_shadow)(void *state);
    /* The guest needs memory in the window's hole (SHADOW_HOLE); `must`: it runs code there. True: the
     * window has moved, the guest may try again; false: emulate the access. NULL: it cannot move. */
    bool (*uncover)(void *state, bool must);
    /* Runs guest code from vm->vcpu; leaves exact state there and the exit in *exit. */
    void (*run)(void *state, struct vm_exit *exit);
    /* With create_shadow: the vcpu's paging registers changed, so another space may be needed. */
    void (*paging_changed)(void *state);
    /* Host time source that is safe while this engine runs (monotonic ns). */
    uint64_t (*host_ns)(void);
    /* Arms the host timer so that run() returns EXIT_INTERRUPTED no later than `host_ns` (0: disarm). */
    void (*arm)(void *state, uint64_t host_ns);
    /* The A20 gate moved: guest_walk has other answers from now on. NULL: the engine cannot follow that, and
     * closing the gate ends the run. */
    void (*a20_changed)(void *state);
    /* May be NULL. The last exit is the machine's own, not a debugger's: what the guest did behind the
     * engine's back, and goes on unnoticed until an exit, comes to light now. */
    void (*settle)(void *state);
    /* For the stepper; either may be NULL. What the CPU holds while the guest runs; in one line, by what way
     * the last exit came. */
    void (*registers)(void *state, struct real_registers *real);
    void (*describe_exit)(void *state, char *text, size_t size);
    /* What the engine counted so far; costs are measured only while vm->timed. NULL: it has one space, and
     * counts nothing. */
    void (*stats)(void *state, struct engine_stats *stats);
};

/* ---- events: one for each exit and each interrupt, for the trace, the statistics and the stepper --------
 */

enum note_kind {
    NOTE_PORT_READ,
    NOTE_PORT_WRITE, /* address, size, value */
    NOTE_MEMORY_READ,
    NOTE_MEMORY_WRITE, /* a device's memory: address (gpa), size, value */
    NOTE_INJECTED,     /* vector, has_error, error, injection */
    NOTE_UNCLAIMED,    /* an access that no device answers: is_write in `flag`, space in `size >> 8` */
    NOTE_UNKNOWN_MSR,  /* address = index, flag = is_write, value */
    NOTE_LINE,         /* name, address = pin, flag = level */
    NOTE_SHADOW,       /* change, address = first gva, size = pages */
    NOTE_HOLE, /* a segment load that the host did not trap, made up for now: name = register, address =
                  selector */
};

struct note {
    enum note_kind kind;
    uint64_t address, value;
    uint32_t size;
    bool flag;
    uint8_t vector;
    bool has_error;
    uint32_t error;
    uint8_t injection; /* enum injection_kind */
    uint8_t change;    /* enum shadow_change */
    const char *name;  /* static string */
};

#define EVENT_MAX_NOTES 24
/* Of them: what the guest sees finds room behind any number of mappings. */
#define EVENT_MAX_SHADOW_NOTES 12

/* --clock=virtual begins at this Unix time (ns): 2000-01-01 00:00:00 UTC, in every run. */
#define VIRTUAL_WALL_START (INT64_C(946684800) * 1000000000)

struct vm_event {
    uint64_t sequence; /* from 1 */
    uint64_t time;     /* machine time, ns */
    struct vm_exit exit;
    enum disposition disposition;
    bool has_insn, is_patched; /* is_patched: the byte in memory is ours, `insn` is the original */
    struct insn insn;
    struct vcpu before; /* the processor at the exit; vm->vcpu is after */
    unsigned n_notes, dropped_notes;
    struct note note[EVENT_MAX_NOTES];
    /* Host cost in ns (when vm->timed): from the guest stopping to the exit being in the monitor's hands,
     * handling. */
    uint64_t capture_ns, handle_ns;
    /* Likewise: from the entry into the guest to its state being in the engine's hands. */
    uint64_t guest_ns;
};

struct vm_observer {
    void (*event)(void *ctx, const struct vm *vm, const struct vm_event *event);
    void *ctx;
};

#define VM_MAX_OBSERVERS 4

/* A debugger stands between the loop and the engine. What it causes (single steps, pages it holds) is no exit
 * of the machine: nothing is handled, no event is made, no virtual time passes. */
struct vm_debugger {
    void (*enter)(void *ctx, struct vm *vm); /* just before the guest runs; may set vm->single_step */
    /* Just after. true: this exit is the debugger's own, and its business is done. */
    bool (*leave)(void *ctx, struct vm *vm, const struct vm_exit *exit);
    void *ctx;
};

/* ---- the machine ------------------------------------------------------------------------------------- */

enum clock_mode { CLOCK_HOST, CLOCK_VIRTUAL };
enum holes_mode { HOLES_EXPOSE, HOLES_PATCH };

struct insn_cache;  /* fetch.h */
struct patch_table; /* patch.h */
struct symbols;     /* symbols.h */
struct profile;     /* profile.h */

#define CONSOLE_OVER SIZE_MAX

struct vm_config {
    uint64_t ram_size;
    uint64_t rom_size; /* ends at 4 GiB; 0: none */
    enum clock_mode clock;
    struct drive_config drive[BOARD_MAX_DRIVES];
    bool check_invariant;
    bool use_userfaultfd;
    uint64_t idle_slack_ns;  /* an idle guest's tick may be late by so much (idle.h); 0: none is */
    size_t code_cache_limit; /* the translator's: bytes of host code before all of it goes; 0: its own */
    enum board_input input;
    bool boots_firmware; /* a BIOS is put into the ROM: see board_config */
    /* A reset starts the machine again: puts into cleared memory, and a reset processor, what power-on found
     * there. false: one line in `error`. NULL: a reset ends the run. */
    void *loader;
    bool (*load)(void *loader, struct vm *vm, char *error, size_t error_size);
    /* The console: bytes out, the screen, bytes in. Any may be NULL. */
    void *console;
    void (*console_write)(void *console, const void *bytes, size_t n);
    void (*console_screen)(void *console, const struct screen *screen);
    /* Waits until input, a signal, or `timeout_ns` (UINT64_MAX: no limit) is over, then puts up to n bytes; n
     * of 0 only waits. Returns how many, or CONSOLE_OVER at the end of input. */
    size_t (*console_read)(void *console, uint8_t *bytes, size_t n, uint64_t timeout_ns);
    /* Called whenever attention was set: SIGTERM, --timeout, Ctrl-A x become vm_stop here. */
    void (*poll)(void *console, struct vm *vm);
};

struct vm {
    struct vcpu vcpu;
    struct guest_memory memory;
    struct clock clock;
    struct pvclock pvclock;
    struct board *board;
    struct shadow *shadow;
    struct shadow *system_shadow; /* of the supervisor's view, if `shadow` is another; else NULL */
    struct shadow *user_shadow;   /* of the user's view, likewise: the supervisor may reach there, too */
    struct device_pages device_pages;
    struct vm_config config;

    const struct engine *engine;
    void *engine_state;

    /* Virtual time (CLOCK_VIRTUAL), and the host time of power-on (CLOCK_HOST). */
    uint64_t virtual_ns, host_start_ns;

    uint64_t next_deadline; /* of the clock; CLOCK_NO_DEADLINE: none */
    uint64_t next_input;    /* machine time at which the console is asked for input again */
    uint64_t slice_end;     /* machine time before which the devices' timers do not run again */
    uint64_t slice_ns;      /* how long that slice is */
    struct idle idle;       /* what is known of the waits in HLT */
    uint8_t input[64];      /* read from the console, not yet taken by the board */
    size_t n_input;

    uint64_t n_exits;
    /* Retired, the emulated ones included; without engine->counts_instructions only those. */
    uint64_t n_instructions;
    /* --clock=virtual with an engine that counts: time has passed for so many of them; and before which one
     * run() must return EXIT_INTERRUPTED. */
    uint64_t n_timed_instructions, instruction_deadline;
    uint64_t spin_exits, spin_cpu_ns; /* --clock=virtual: when the guest last did something */
    bool deadline_moved;              /* the host timer must be armed again */
    uint64_t armed_ns;                /* for this host time; 0: it is not armed, or has struck */
    bool is_input_over;               /* the console has no more input, ever */
    bool single_step;                 /* run() returns EXIT_STEP after each instruction */
    bool timed;                       /* measure host costs for events */
    bool has_run_user; /* the guest, at CPL 3, since it waited last; an engine that goes there without leaving
                          run() sets it */

    /* For an engine that runs ordinary instructions by vcpu_emulate: while holds_devices is on, one that
     * would touch a device's memory changes nothing and raises a #PF there instead, with held_device set. As
     * an exit (EXIT_PAGE_FAULT) it is run again, and the device's doings belong to an event. */
    bool holds_devices, held_device;
    /* The engine decides about this instruction's pages: what the emulator reaches is not mapped for it. */
    bool maps_by_itself;
    /* It has peeked where the instruction will reach: that access need not walk again. Holds until
     * vm_handle_exit ends. */
    struct {
        bool is_there, is_allowed;
        gva_t linear;
        unsigned kind;
        struct walk walk;   /* if it is allowed... */
        struct fault fault; /* ...and if not */
    } foreseen;

    enum stop_reason stop_reason;
    uint32_t stop_value; /* isa-debug-exit */
    char stop_text[1024];

    /* Set from asynchronous signal handlers; read by the run loop and the engine's last check before the
     * guest. */
    volatile int attention;
    /* The engine tells, when run() returns: an asynchronous signal found the guest's code running. */
    bool is_guest_interrupted;

    struct insn_cache *insn_cache; /* fetch.c; rebuilt at will */
    struct patch_table *patches;   /* NULL: --holes expose */
    const struct symbols *symbols; /* NULL: none */
    struct profile *profile;       /* NULL: none */
    struct vm_observer observer[VM_MAX_OBSERVERS];
    unsigned n_observers;
    unsigned n_watchers; /* of them those that look at the guest between two exits, or at how it exited: each
                            exit goes through the run loop for them */
    struct vm_event event;              /* being built; only when there are observers */
    const struct vm_debugger *debugger; /* NULL: none */
};

/* false: one line in `error`. vm is the caller's memory, zeroed here. */
bool vm_create(struct vm *vm, const struct vm_config *config, const struct engine *engine, char *error,
               size_t error_size);
void vm_destroy(struct vm *vm);
void vm_observe(struct vm *vm, void (*event)(void *ctx, const struct vm *vm, const struct vm_event *event),
                void *ctx);
/* The same for one that only counts: an engine may handle exits on the spot, and leave the guest for none. Of
 * such an event exit.entered_ns and exit.host_ns are 0. */
void vm_observe_on_the_spot(struct vm *vm,
                            void (*event)(void *ctx, const struct vm *vm, const struct vm_event *event),
                            void *ctx);

/* Runs until vm_is_stopped(), and beyond it if that was a reset and config.load is there. */
void vm_run(struct vm *vm);
/* Everything as at power-on but for the clock, the disks and the battery-backed memory. */
void vm_restart(struct vm *vm);
/* One turn of the loop: pending interrupt, guest, exit. For the stepper. */
void vm_run_once(struct vm *vm);
void vm_handle_exit(struct vm *vm, const struct vm_exit *exit);
/* What comes of an instruction that was emulated, with any outcome but UNKNOWN: it counts, or its fault is
 * delivered. */
enum disposition vm_end_insn(struct vm *vm, enum outcome outcome);
/* The clock's next deadline is another. */
void vm_note_deadline(struct vm *vm);
/* For an engine that wants to look at a guest which may never exit: within so many ns, unless a timer is
 * armed that does it some time. Real time only. */
void vm_interrupt_within(struct vm *vm, uint64_t ns);
/* --clock=virtual with an engine that counts: what each instruction costs. */
#define VIRTUAL_NS_PER_INSTRUCTION 1u
/* Then machine time catches up with vm->n_instructions. */
void vm_pass_instructions(struct vm *vm);
/* Is time to be told by instructions? */
bool vm_is_counted(const struct vm *vm);
/* Have as many been run as may be before the loop looks for what is due? */
bool vm_is_due(const struct vm *vm);
static inline bool vm_is_stopped(const struct vm *vm)
{
    return vm->stop_reason != STOP_NONE;
}
/* First reason wins. `format` says what happened in one line; the place (cs:eip, symbol) is added by the
 * caller of vm_run. */
void vm_stop(struct vm *vm, enum stop_reason reason, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* Guest linear memory as a debugger reads it: no faults, no A/D bits. Returns how many bytes were there. */
size_t vm_peek(struct vm *vm, gva_t gva, void *buf, size_t n);

#endif
