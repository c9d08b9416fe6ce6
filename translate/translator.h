/*
 * The translate engine's own state, and what its files ask of each other.
 *
 * Private to translate/. Read next: engine.c.
 */
#ifndef RING3_TRANSLATE_TRANSLATOR_H
#define RING3_TRANSLATE_TRANSLATOR_H

#include <signal.h>
#include <time.h>

#include "monitor/monitor.h"
#include "translate/build.h"
#include "translate/cache.h"
#include "translate/context.h"

#define TABLES_PER_SPACE 4u

/* Where jumps of one mode go: offsets of blocks' entries in the cache; 0: not known. */
struct jump_table {
    uint32_t *slots; /* TABLE_SLOTS for indirect jumps, and as many for direct ones; NULL: not made yet */
    uint32_t mode;
    uint64_t used_at;
};

/* What a space was made for: everything that decides what an address means. */
struct space_key {
    uint32_t cr0, cr3, cr4;
    bool is_user, is_paged;
};

struct translator;

/* One window: an address space of the guest as seen by its kernel or by its user. */
struct space {
    struct translator *translator;
    struct shadow *shadow; /* NULL: not made yet */
    struct space_key key;
    uintptr_t window;
    uint64_t used_at;
    struct jump_table tables[TABLES_PER_SPACE];
    uint8_t *has_code; /* a bit per page: some table may have entries of it */
};

/* Instructions that keep faulting, by place. */
struct adaptation {
    uint64_t place;      /* + 1; 0: free */
    uint16_t n_emulated; /* faults that ended in emulation, and others,... */
    uint16_t n_faults;   /* ...since it was last given back */
    uint16_t n_needless; /* calls in a row that an ordinary access would have served */
    uint8_t n_given_back;
    uint8_t n_unprepared; /* calls since somebody looked what they are for (touch.c) */
    uint8_t as;           /* enum adapted */
    uint8_t before;       /* likewise: what it is given back to */
};

#define ADAPTATIONS 16384u

/* So many accesses to a page (of linear addresses) may still do without a mapping (touch.c). */
struct page_credit {
    uint32_t page;
    uint16_t n_accesses;
    bool was_mapped; /* when there was no more of it */
};

#define PAGES_WITH_CREDIT 1024u

/* How the guest stores into a page that has translations. */
struct code_page {
    uint32_t given_up_ms; /* host time of the last time that the translations went for a store */
    uint8_t n_given_up;   /* in quick succession */
    uint8_t n_emulated;   /* stores beside the code since then */
};

/* For --stats; measure.c names them. Costs in ns are measured while vm->timed. */
struct translator_counts {
    uint64_t entries;           /* from the run loop into translated code */
    uint64_t interruptions;     /* and out of it by a signal that was not the guest's doing */
    uint64_t faults;            /* signals that were: most fill a page */
    uint64_t lookups, links;    /* ways out of a block that found the next one: by jump table, for good */
    uint64_t sensitive, memory; /* calls out of translated code: sensitive instructions, adapted ones */
    uint64_t interpreted;       /* instructions that no block could hold */
    uint64_t adapted, given_back;
    uint64_t switches;         /* writes of paging registers */
    uint64_t inside_ns;        /* from entry to leaving */
    uint64_t find_ns, call_ns; /* of it for lookups and links, and for calls */
    uint64_t build_ns;         /* making blocks, anywhere */
};

struct translator {
    struct vm *vm;
    struct translator_counts counts;
    struct context *context;
    uint8_t *landing; /* what the context lies in */
    struct cache cache;
    struct space spaces[SHADOW_MAX_SPACES];
    struct space *space;         /* the current one: of these two */
    struct space *kernel, *user; /* for the vcpu's paging registers; user: NULL until it is needed */
    uint8_t is_user_part[256];   /* by the top byte of an address: kernel instructions found the user's pages
                                    there */
    bool has_new_paging;         /* it need not be that of the vcpu's registers */
    uint32_t mode;
    uint64_t uses;
    uint8_t *meter;       /* NULL: instructions are not counted */
    uint64_t metered;     /* what was left of it when it was last read */
    uint8_t *reservation; /* windows and the guards around them... */
    bool is_open;         /* ...are free, but for the first page; nobody else maps anything there */
    size_t reservation_size;
    struct adaptation adaptations[ADAPTATIONS];
    unsigned n_adapted;
    struct page_credit credit[PAGES_WITH_CREDIT];
    unsigned n_on_credit; /* accesses since somebody was given some */
    uint32_t faulted_eip;
    uint64_t faulted_place;       /* of the instruction of the last page fault, + 1; 0: none */
    uint64_t place;               /* the same of the last signal */
    struct code_page *code_pages; /* per rpn */
    bool is_code_dropped;         /* a page of the current space with code went away */
    struct {                      /* the last page fault: the guest's handler may come back to it (adapt.c) */
        bool is_awaited;
        uint8_t cpl;
        uint32_t eip;
        gva_t address;
        unsigned kind;
    } retry;
    uint64_t slots_in_use;      /* a bit each (reach.c)... */
    uint64_t slots_interrupted; /* ...and when the guest was interrupted last */
    bool has_rorx;        /* the processor has it, for what must not touch flags: slots, counted RDTSC */
    struct vm_exit exit;  /* of a call that leaves translate_enter */
    bool is_plain;        /* nobody watches or measures: calls may go the short way */
    bool is_call_done;    /* the last call's instruction has ended, without a fault */
    uint8_t shadow;       /* enum interrupt_shadow: there before the instruction at... */
    uint32_t resume_flag; /* EFLAGS.RF */
    uint32_t shadow_eip;
    uint64_t shadow_count; /* of instructions, then */
    struct {
        uint64_t low; /* of base, limit */
        uint16_t attributes;
    } code_segments[256]; /* what MODE_CS_SHIFT numbers; [0]: flat */
    unsigned n_code_segments;
    struct segment_note notes[SEGMENT_NOTES]; /* by the low byte of the selector */
    struct table_register noted_gdtr;         /* they hold for */
    bool has_notes;
    timer_t timer;
    bool has_timer, is_started;
    bool reads_tsc; /* RDTSC may be in line, if nobody watches */
    uint8_t *stack;
    /* Of the last signal: */
    int signo, trapno, code;
    uint32_t error;
    uint64_t cr2;
};

/* state.c */
/* EFLAGS from its pieces in the context, and into them. */
void state_take_flags(struct context *context);
void state_give_flags(struct context *context);
/* EFLAGS.IF or 0: may an interrupt be delivered once IF is set? */
uint32_t state_pending_flag(struct vm *vm);
/* How translated code makes the guest's TSC of the host's. */
void state_give_tsc(struct translator *translator);
/* Everything else in the context that follows from the vcpu. */
void state_prepare(struct translator *translator);
/* Does somebody watch exits, so that each must go through the run loop? */
bool state_is_watched(const struct vm *vm);
/* Nor measures? */
bool state_is_plain(const struct translator *translator);
/* Brings space and mode up to date. false: the guest's state has no mode. */
bool state_follow_vcpu(struct translator *translator);
void state_note_shadow(struct translator *translator);
void state_restore_shadow(struct translator *translator);
const uint8_t *state_entry_of(const struct translator *translator, const struct block *block);
void state_serialize(struct translator *translator);

/* landing.c */
/* Makes the context, all zeros, and the memory around it. false: one line in `error`. */
bool landing_create(struct translator *translator, char *error, size_t error_size);
void landing_destroy(struct translator *translator);

/* spaces.c */
bool spaces_reserve(struct translator *translator, char *error, size_t error_size);
void spaces_release(struct translator *translator);
/* Makes the space for the vcpu's registers and CPL the current one. */
void spaces_select(struct translator *translator);
/* The same when it is known which one. */
void spaces_enter(struct translator *translator, struct space *space);
struct space *spaces_user(struct translator *translator);
/* Instructions that choose their window find the user's for the addresses around this one. */
void spaces_add_user_part(struct translator *translator, gva_t address);
/* The current space's jump table for the current mode. */
const uint32_t *spaces_table(struct translator *translator);
void spaces_note_target(struct translator *translator, uint32_t eip, const struct block *block);
void spaces_forget_targets(struct translator *translator);

/* meter.c */
bool meter_create(struct translator *translator, char *error, size_t error_size);
void meter_destroy(struct translator *translator);
/* Is this where a block's check faults? */
bool meter_is_below(const struct translator *translator, uint64_t address);
void meter_fill(struct translator *translator);
void meter_take(struct translator *translator);
/* On the way into translated code, with all that has been done on the machine's count. */
static inline void meter_set(struct translator *translator)
{
    if (translator->mode & MODE_COUNT)
        meter_fill(translator);
}
/* Out of it: what it has done goes to the machine's count and clock. */
static inline void meter_read(struct translator *translator)
{
    if (translator->mode & MODE_COUNT)
        meter_take(translator);
}
/* May the event come before as many instructions as a block has at most? */
static inline bool meter_is_low(const struct translator *translator)
{
    const struct vm *vm = translator->vm;

    return (translator->mode & MODE_COUNT) &&
           vm->n_instructions + MAX_BLOCK_INSTRUCTIONS > vm->instruction_deadline;
}
void meter_run_out(struct translator *translator, struct vm_exit *exit);

/* mode.c */
/* No translated code for this state: one instruction after the other is interpreted. */
#define MODE_NONE UINT32_MAX
uint32_t mode_of(struct translator *translator, const struct vcpu *vcpu);
/* The same if it was translator->mode, and DS, ES, FS and GS are what they were then. */
uint32_t mode_after_switch(struct translator *translator, const struct vcpu *vcpu);

bool mode_is_flat(const struct segment *segment); /* base 0, and... */
bool mode_is_full(const struct segment *segment); /* ...no access through it can fail by the segment */
bool mode_is_none(const struct segment *segment); /* all do */

/* switch.c: between ring 3 and ring 0 */
/* What is known of the sides holds no more. */
void switch_forget(struct translator *translator);
/* Translated code has switched by itself: the virtual processor, mode and space follow. */
void switch_complete(struct translator *translator, const struct side *side);
static inline void switch_catch_up(struct translator *translator)
{
    if (translator->context->switched != 0)
        switch_complete(translator, &translator->context->sides[translator->context->switched - 1]);
}
/* An instruction of this kind was emulated, and has changed CS, SS and CPL: mode, space and table follow, and
 * the next time it is known. false: there is no mode. */
bool switch_follow(struct translator *translator, enum switch_kind kind);

/* notes.c: what selectors mean */
void notes_forget(struct translator *translator);
void notes_follow(struct translator *translator, bool is_watched);
void notes_take(struct translator *translator, enum segment_index index);
void notes_complete(struct context *context, enum segment_index index, const struct segment_note *note);
/* What translated code wants to know of the segment registers. */
void notes_give_segments(struct context *context);
/* As in the context: CS, and SS in the upper half. */
uint32_t notes_selectors(const struct vcpu *vcpu);
/* The same if only CS, SS and the window are others. */
void notes_give_switch(struct context *context);

/* find.c: the block for vcpu->eip. NULL: *exit is set, or the emulator ran one instruction (EXIT_STEP). */
struct block *find_block(struct translator *translator, struct vm_exit *exit);
bool find_listen(struct translator *translator);

/* adapt.c */
/* What is noted of the place. NULL: there is no room. */
struct adaptation *adapt_try(struct translator *translator, uint64_t place);
/* The instruction at this place of memory. false: there is none, or it crosses into the next page. */
bool adapt_decode(const struct translator *translator, uint64_t place, struct insn *insn);
/* The instruction is made this from now on. */
void adapt_as(struct translator *translator, struct adaptation *adaptation, enum adapted as);
enum adapted adapt_find(void *translator, uint64_t place);
/* The kernel reached for a page of the user's, in its own window. true: the instruction will choose its
 * window from now on, and is to be tried again. */
bool adapt_to_user_page(struct translator *translator, gva_t address);
void adapt_note_fault(struct translator *translator, const struct vm_exit *exit);
void adapt_look_back(struct translator *translator);
/* The instruction of the last signal has raised an exception that is the guest's own, #DE: one that does so
 * often becomes a call. */
void adapt_note_exception(struct translator *translator);
/* What is noted of a call's instruction. NULL: it was a call from the beginning. */
struct adaptation *adapt_of_call(struct translator *translator, const struct call *call);
/* If it has not been needed for long it becomes an ordinary instruction again. n_needless: how many calls
 * this one counts for; 0: it is needed. */
void adapt_note_call(struct translator *translator, struct adaptation *adaptation, struct call *call,
                     unsigned n_needless);
/* MOVS or STOS, which the emulator repeats page by page. */
bool adapt_is_fast_string(const struct insn *insn);
/* Is it about to store so many bytes that the page is being made something else? */
bool adapt_stores_much(const struct vcpu *vcpu, const struct insn *insn);
/* A string instruction that is about to clear or fill what was a page table gets the page. false: it was
 * none, or still is. */
bool adapt_to_string(struct translator *translator, const struct insn *insn, gva_t address, unsigned kind);
/* The same for the instruction of the page fault that was noted last, before it is handled. */
void adapt_to_faulted_string(struct translator *translator);
/* IRET went to vcpu->eip. */
void adapt_note_return(struct translator *translator);

/* touch.c */
/* A page fault at this place was handled without emulation. */
void touch_note_fault(struct translator *translator, uint64_t place);
/* Before a call that is no sensitive instruction is emulated. false: it was a call from the beginning. */
bool touch_prepare(struct translator *translator, struct call *call);
/* The same for an instruction that is only to be told where its operand is. */
enum touched {
    TOUCHED_NOT,      /* nothing is done */
    TOUCHED_PREPARED, /* it is to be emulated */
    TOUCHED_FAULT,    /* it has raised vcpu->fault */
    TOUCHED_MEMORY    /* it is there, at *bytes; A and D are set */
};
enum touched touch_find(struct translator *translator, struct call *call, gva_t linear, uint8_t **bytes);
static inline bool touch_is_within_page(gva_t linear, unsigned size)
{
    return (linear & PAGE_MASK) + size <= PAGE_SIZE;
}

/* reach.c */
void reach_open(struct translator *translator);
/* The call's operand is there: until reach_forget the instruction need not ask for this page again. */
void reach_note(struct translator *translator, const struct call *call, uint8_t *bytes);
void reach_clear(struct translator *translator);
/* Has the call's slot been in use when the guest was interrupted? (Once.) */
bool reach_was_interrupted(struct translator *translator, const struct call *call);
/* To be called whenever the monitor was entered, but for that. */
static inline void reach_forget(struct translator *translator)
{
    if (translator->slots_in_use != 0)
        reach_clear(translator);
}

/* quick.c */
/* Runs it, but for EIP. false: not now, and nothing has happened. linear: of its operand, if it has one. */
bool quick_run(struct vm *vm, const struct quick *quick, gva_t linear);

/* measure.c */
uint64_t measure_begin(const struct translator *translator);
void measure_end(const struct translator *translator, uint64_t *cost, uint64_t began);
void measure_report(void *translator, struct engine_stats *stats);

/* frame.c: signals, and all that touches a ucontext. */
bool frame_open(struct translator *translator, char *error, size_t error_size);
void frame_adopt(void);
void frame_close(struct translator *translator);
/* Host pointers in the x87 part of vcpu->fxsave become the guest's. */
void frame_repair_fxsave(struct translator *translator);

#endif
