/*
 * copies: a string instruction, element by element.
 *
 * The lesson: REP MOVS and REP STOS may stop between any two elements, for a page that is absent or for an
 * interrupt, and go on later as if nothing had been. For that their progress is in the registers: ESI, EDI
 * and ECX are those of the element that comes next. And the elements go one by one: a copy to one byte
 * further on spreads a pattern. An engine that copies in a way of its own (many bytes at once, or a few by a
 * loop) must show none of that. So here all is compared with a model in C, up and down, for each size, for
 * few elements and many, for each way to overlap; with pages that come when they are touched; and with the
 * timer between (with the word `long` for long, and with `quick` for fewer counts).
 *
 * Read next: userkernel.c, for what the U/S bit is there for.
 */
#include "guest.h"

enum { AREA = 320, MIDDLE = AREA / 2, MAX_COUNT = 34, MAX_DISTANCE = 5 };
enum { WINDOW = 0x40000000, N_PAGES = 8, N_ROUNDS = 40 };

struct kind {
    const char *name;
    void (*code)(void);
    uint32_t size;
    bool copies;
};

/* Each is one instruction, and RET. */
#define KIND(label, instruction)                                                                             \
    void label(void);                                                                                        \
    __asm__(#label ": " instruction "; ret")

KIND(copy_bytes, "rep movsb");
KIND(copy_words, "rep movsw");
KIND(copy_longs, "rep movsl");
KIND(store_bytes, "rep stosb");
KIND(store_words, "rep stosw");
KIND(store_longs, "rep stosl");

static const struct kind kinds[] = {{"  movsb", copy_bytes, 1, true},   {"  movsw", copy_words, 2, true},
                                    {"  movsl", copy_longs, 4, true},   {"  stosb", store_bytes, 1, false},
                                    {"  stosw", store_words, 2, false}, {"  stosl", store_longs, 4, false}};

static const struct kind *running; /* NULL: there is nothing to be done from the beginning */

static uint32_t run(const struct kind *kind, struct registers *r, bool is_down)
{
    uint32_t flags;

    running = r->ecx != 0 ? kind : NULL;
    __asm__ volatile(
        "pushfl; orl %[flags], (%%esp); popfl; call *%[code]; pushfl; popl %%eax; cld"
        : "+S"(r->esi), "+D"(r->edi), "+c"(r->ecx), "=a"(flags)
        : "a"(r->eax), [code] "r"(kind->code), [flags] "r"(EFLAGS_ARITHMETIC | (is_down ? EFLAGS_DF : 0))
        : "memory", "cc");
    return flags;
}

/* ---- the model ---- */

static void copy_element(uint8_t *to, const uint8_t *from, uint32_t size)
{
    uint8_t element[4];

    for (uint32_t i = 0; i < size; i++)
        element[i] = from[i];
    for (uint32_t i = 0; i < size; i++)
        to[i] = element[i];
}

/* Memory that begins at `linear` for the instruction is at `model`. */
static void foresee(const struct kind *kind, struct registers *r, bool is_down, uint8_t *model,
                    uint32_t linear)
{
    uint32_t step = is_down ? -kind->size : kind->size;

    for (; r->ecx != 0; r->ecx--) {
        const uint8_t *from = kind->copies ? model + (r->esi - linear) : (const uint8_t *)&r->eax;

        copy_element(model + (r->edi - linear), from, kind->size);
        r->esi += kind->copies ? step : 0;
        r->edi += step;
    }
}

static bool is_same(const struct registers *a, const struct registers *b)
{
    return a->esi == b->esi && a->edi == b->edi && a->ecx == b->ecx;
}

/* ---- in memory that is there ---- */

static uint8_t area[AREA], model[AREA], pattern[AREA + MAX_COUNT];
static bool is_right;

static void copy_near(const struct kind *kind, uint32_t count, int distance, bool is_down)
{
    uint32_t at = (uintptr_t)area + MIDDLE;
    struct registers r = {.eax = 0xa1b2c300 + count, .ecx = count, .esi = at, .edi = at + (uint32_t)distance};
    struct registers expected = r;

    memcpy(area, pattern + count, AREA);
    memcpy(model, pattern + count, AREA);
    foresee(kind, &expected, is_down, model, (uintptr_t)area);
    is_right = is_right && (run(kind, &r, is_down) & EFLAGS_ARITHMETIC) == EFLAGS_ARITHMETIC &&
               is_same(&r, &expected) && memcmp(area, model, AREA) == 0;
}

static void check_near(const char *how)
{
    print("few elements%s:\n", how);
    for (unsigned i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        is_right = true;
        for (uint32_t count = 0; count <= MAX_COUNT; count += has_option("quick") ? 8 : 1)
            for (int distance = -MAX_DISTANCE; distance <= MAX_DISTANCE; distance++) {
                copy_near(&kinds[i], count, distance, false);
                copy_near(&kinds[i], count, distance, true);
            }
        check(kinds[i].name, is_right);
    }
}

/* ---- in pages that come when they are touched ---- */

static uint8_t frames[N_PAGES][PAGE_SIZE] __attribute__((aligned(4096)));
static uint8_t pages_model[N_PAGES * PAGE_SIZE];
static pte *space;

static struct {
    const struct kind *kind;
    struct registers before;
    bool is_down;
    unsigned n_faults;
} tried;

static bool is_in(uint32_t address, uint32_t first, uint32_t size)
{
    return address - first < size;
}

/* Where the registers say it has come to is where it could not go on. */
static void on_page_fault(struct trap_frame *frame)
{
    uint32_t cr2 = read_cr2(), n_done = tried.before.ecx - frame->ecx;
    uint32_t moved = n_done * (tried.is_down ? -tried.kind->size : tried.kind->size);
    bool is_store = is_in(cr2, frame->edi, tried.kind->size);
    bool is_load = tried.kind->copies && is_in(cr2, frame->esi, tried.kind->size);

    if (!is_in(cr2, WINDOW, N_PAGES * PAGE_SIZE) || *space_entry(space, cr2) != 0)
        fail("page fault at %08x by %08x", cr2, frame->eip);
    is_right = is_right && frame->eip == (uintptr_t)tried.kind->code && n_done <= tried.before.ecx &&
               frame->edi == tried.before.edi + moved &&
               frame->esi == tried.before.esi + (tried.kind->copies ? moved : 0) &&
               (frame->error & PF_WRITE ? is_store : is_load);
    *space_entry(space, cr2) = (uintptr_t)frames[(cr2 - WINDOW) / PAGE_SIZE] | PTE_P | PTE_W;
    tried.n_faults++;
}

static void empty_window(void)
{
    for (unsigned page = 0; page < N_PAGES; page++)
        *space_entry(space, WINDOW + page * PAGE_SIZE) = 0;
    write_cr3((uintptr_t)space);
}

static void copy_far(const struct kind *kind, uint32_t count, uint32_t from, uint32_t to, bool is_down)
{
    struct registers r = {.eax = 0x01020304 * count, .ecx = count, .esi = WINDOW + from, .edi = WINDOW + to};
    struct registers expected = r;

    tried.kind = kind;
    tried.before = r;
    tried.is_down = is_down;
    empty_window();
    foresee(kind, &expected, is_down, pages_model, WINDOW);
    (void)run(kind, &r, is_down);
    is_right = is_right && is_same(&r, &expected);
}

/* Over the end of a page, by one byte more each time, here, there, and at both at once. */
static void check_far(const char *how)
{
    print("absent pages%s:\n", how);
    for (unsigned i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        is_right = true;
        tried.n_faults = 0;
        for (uint32_t n = 0; n < 24; n++) {
            uint32_t edge = PAGE_SIZE - n, inside = 3 * PAGE_SIZE + 100;

            copy_far(&kinds[i], 1 + n, edge, inside, false);
            copy_far(&kinds[i], 1 + n, inside, edge, false);
            copy_far(&kinds[i], 1 + n, edge, edge + 5 * PAGE_SIZE, false);
            copy_far(&kinds[i], 1 + n, edge + PAGE_SIZE, edge + PAGE_SIZE + 1, false);
            copy_far(&kinds[i], 1 + n, edge + PAGE_SIZE, inside, true);
            copy_far(&kinds[i], 1 + n, inside, edge + PAGE_SIZE, true);
            copy_far(&kinds[i], 200 + n, edge + PAGE_SIZE, edge + 4 * PAGE_SIZE, false);
        }
        is_right = is_right && tried.n_faults > 24 && memcmp(frames, pages_model, sizeof frames) == 0;
        check(kinds[i].name, is_right);
    }
}

/* ---- with interrupts ---- */

static unsigned n_interrupts, n_finished;

/* With its last element an instruction is done: nobody finds it waiting with nothing left. */
static void on_timer(struct trap_frame *frame)
{
    if (running != NULL && frame->eip == (uintptr_t)running->code && frame->ecx == 0)
        n_finished++;
    n_interrupts++;
    pic_eoi(IRQ_TIMER);
}

void guest_main(void)
{
    space = space_new();
    paging_on(space);
    trap_set_handler(VECTOR_PF, on_page_fault);
    for (unsigned page = 0; page < N_PAGES; page++)
        for (unsigned i = 0; i < PAGE_SIZE; i++)
            frames[page][i] = pages_model[page * PAGE_SIZE + i] = (uint8_t)(i * 5 + i / 256 + page * 11);

    for (unsigned i = 0; i < sizeof pattern; i++)
        pattern[i] = (uint8_t)(i * 7);
    check_near("");
    check_far("");

    pic_init();
    trap_set_handler(IRQ_BASE + IRQ_TIMER, on_timer);
    pit_periodic(8000);
    pic_unmask(IRQ_TIMER);
    sti();
    for (unsigned i = 0; i < (has_option("long") ? N_ROUNDS : 1); i++)
        check_near(", interrupted");
    check_far(", interrupted");
    cli();
    pic_mask(IRQ_TIMER);
    check("the timer has interrupted", n_interrupts > 0);
    check_option("elements", "and never after the last element", n_finished == 0);
    report();
}
