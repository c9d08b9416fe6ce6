/*
 * Following control flow through a kernel: see code_map.h. One byte of state for each byte of code and a work
 * list; each byte is queued and decoded at most once as the start of an instruction, so hostile files cost no
 * more.
 */
#include "monitor/code_map.h"

#include <Zydis/Mnemonic.h>
#include <elf.h>
#include <stdlib.h>
#include <string.h>

#include "decode/decode.h"
#include "monitor/file.h"
#include "vcpu/fail.h"

enum byte_state {
    REACHED = 1, /* a reached instruction starts here */
    INSIDE = 2,  /* a reached instruction goes on here */
    QUEUED = 4,
    ENDS_FLOW =
        8, /* the last byte of a reached jump or return: what follows is another piece of code, or data */
};

struct addresses {
    uint32_t *address;
    size_t n, capacity;
};

struct code_map {
    const uint8_t *bytes; /* the file */
    size_t size;
    struct image_section *range;
    uint8_t **state; /* for each range, enum byte_state for each byte */
    size_t n_ranges;
    uint32_t lowest, highest; /* addresses of code: most numbers are not between them */
    struct addresses queue;   /* to be followed */
    struct addresses pointer; /* numbers that may be addresses of code */
};

#define POINTER_ROUNDS 16 /* over all pointers, for each confidence; two or three are the rule */

/* Opcodes around the start of a function. */
enum {
    PUSH_EBX = 0x53,
    PUSH_EBP = 0x55,
    PUSH_ESI = 0x56,
    PUSH_EDI = 0x57,
    FILLER_NOP = 0x90,
    RET = 0xc3,
    FILLER_INT3 = 0xcc
};

/* ---- addresses ----------------------------------------------------------------------------------------- */

static size_t find_range(const struct code_map *map, uint32_t address)
{
    if (address >= map->lowest && address <= map->highest) {
        for (size_t i = 0; i < map->n_ranges; i++) {
            if (address - map->range[i].gva < map->range[i].size)
                return i;
        }
    }
    return map->n_ranges;
}

static uint8_t *find_state(const struct code_map *map, uint32_t address)
{
    size_t i = find_range(map, address);

    return i == map->n_ranges ? NULL : &map->state[i][address - map->range[i].gva];
}

/* The code at `address`, and how much of it follows; NULL: none. */
static const uint8_t *find_bytes(const struct code_map *map, uint32_t address, size_t *n)
{
    size_t i = find_range(map, address);
    uint32_t offset;

    *n = 0;
    if (i == map->n_ranges)
        return NULL;
    offset = address - map->range[i].gva;
    *n = map->range[i].size - offset;
    return map->bytes + map->range[i].file_offset + offset;
}

static bool decode_at(const struct code_map *map, uint32_t address, struct insn *insn)
{
    size_t n;
    const uint8_t *bytes = find_bytes(map, address, &n);

    return bytes != NULL && decode_insn(bytes, n, 4, insn) == DECODE_OK;
}

/* ---- following ----------------------------------------------------------------------------------------- */

static void add_address(struct addresses *addresses, uint32_t address)
{
    if (addresses->n == addresses->capacity) {
        addresses->capacity = addresses->capacity == 0 ? 1024 : addresses->capacity * 2;
        addresses->address = realloc(addresses->address, addresses->capacity * sizeof *addresses->address);
        if (addresses->address == NULL)
            die("out of memory for the kernel's control flow");
    }
    addresses->address[addresses->n++] = address;
}

static void enqueue(struct code_map *map, uint32_t address)
{
    uint8_t *state = find_state(map, address);

    if (state == NULL || (*state & (REACHED | INSIDE | QUEUED)))
        return;
    *state |= QUEUED;
    add_address(&map->queue, address);
}

/* Nothing falls through these. */
static bool ends_flow(const struct insn *insn)
{
    switch (insn->mnemonic) {
    case ZYDIS_MNEMONIC_JMP:
    case ZYDIS_MNEMONIC_RET:
    case ZYDIS_MNEMONIC_IRET:
    case ZYDIS_MNEMONIC_IRETD:
    case ZYDIS_MNEMONIC_SYSEXIT:
    case ZYDIS_MNEMONIC_UD0:
    case ZYDIS_MNEMONIC_UD1:
    case ZYDIS_MNEMONIC_UD2:
        return true;
    default:
        return false;
    }
}

/* The address that a direct branch, near or far, names. */
static bool branch_target(const struct insn *insn, uint32_t address, uint32_t *target)
{
    const struct operand *operand = &insn->operand[0];

    if (insn->n_operands != 0 && operand->kind == OPERAND_RELATIVE)
        *target = address + insn->length + (uint32_t)operand->immediate;
    else if (insn->n_operands != 0 && operand->kind == OPERAND_FAR)
        *target = operand->far.offset;
    else
        return false;
    return true;
}

/* push offset handler; mov [table], offset handler */
static void collect_constants(struct code_map *map, const struct insn *insn)
{
    for (unsigned i = 0; i < insn->n_operands; i++) {
        const struct operand *operand = &insn->operand[i];

        if (operand->kind == OPERAND_IMMEDIATE && operand->size == 4 &&
            find_state(map, (uint32_t)operand->immediate) != NULL)
            add_address(&map->pointer, (uint32_t)operand->immediate);
    }
}

static void follow_from(struct code_map *map, uint32_t address)
{
    uint8_t *state;
    struct insn insn;
    uint32_t target;

    while ((state = find_state(map, address)) != NULL && !(*state & (REACHED | INSIDE)) &&
           decode_at(map, address, &insn)) {
        *state |= REACHED;
        for (unsigned i = 1; i < insn.length; i++)
            state[i] |= INSIDE;
        if (branch_target(&insn, address, &target))
            enqueue(map, target);
        collect_constants(map, &insn);
        if (ends_flow(&insn)) {
            state[insn.length - 1] |= ENDS_FLOW;
            break;
        }
        address += insn.length;
    }
}

static void follow_queue(struct code_map *map)
{
    while (map->queue.n != 0)
        follow_from(map, map->queue.address[--map->queue.n]);
}

/* ---- where to begin ------------------------------------------------------------------------------------ */

/* A string: six printable characters, or three to five and a NUL. Hardly any function starts so. */
static bool looks_like_text(const uint8_t *bytes, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (i == 6)
            return true;
        if (bytes[i] == '\0')
            return i >= 3;
        if ((bytes[i] < ' ' || bytes[i] >= 0x7f) && bytes[i] != '\n' && bytes[i] != '\t')
            return false;
    }
    return false;
}

static bool looks_like_data(const uint8_t *bytes, size_t n)
{
    return looks_like_text(bytes, n) || (n >= 2 && bytes[0] == 0 && bytes[1] == 0); /* add [eax], al */
}

/* Would it pass for the start of a function? To its first return or jump it decodes, stays within the CPUID
 * profile and the code, and cuts through nothing that is known to be code. */
static bool is_plausible(const struct code_map *map, uint32_t address)
{
    enum { LONGEST = 64 };

    const uint8_t *bytes;
    size_t n;

    bytes = find_bytes(map, address, &n);
    if (bytes == NULL || looks_like_data(bytes, n))
        return false;
    for (unsigned i = 0; i < LONGEST; i++) {
        const uint8_t *state = find_state(map, address);
        struct insn insn;
        uint32_t target;

        if (state == NULL || (*state & INSIDE))
            return false;
        if (*state & REACHED)
            return true;
        if (!decode_at(map, address, &insn) || !decode_is_in_profile(&insn))
            return false;
        if (branch_target(&insn, address, &target) && insn.operand[0].kind == OPERAND_RELATIVE) {
            const uint8_t *there = find_state(map, target);

            if (there == NULL || (*there & INSIDE))
                return false;
        }
        if (ends_flow(&insn))
            return true;
        address += insn.length;
    }
    return true;
}

static void follow_symbols(struct code_map *map, const struct symbols *symbols)
{
    for (size_t i = 0; i < map->n_ranges; i++) {
        uint32_t first = map->range[i].gva, address = first;
        uint32_t offset;

        if (symbols_find(symbols, first, &offset) != NULL && offset == 0)
            enqueue(map, first);
        while (symbols_next_function(symbols, address, &address) && address - first < map->range[i].size)
            enqueue(map, address);
    }
    follow_queue(map);
}

/* How much speaks for a pointer; the less, the later it is followed. */
enum confidence { AFTER_END, AFTER_RETURN_BYTE, WITH_PROLOGUE, PLAUSIBLE, CONFIDENCE_COUNT };

static enum confidence confidence_in(const struct code_map *map, uint32_t address)
{
    size_t n;
    const uint8_t *here = find_bytes(map, address, &n), *before = find_bytes(map, address - 1, &n);
    const uint8_t *state = find_state(map, address - 1);

    if (state == NULL || (*state & ENDS_FLOW))
        return AFTER_END;
    if (!(*state & (REACHED | INSIDE))) {
        if (*before == FILLER_NOP || *before == FILLER_INT3)
            return AFTER_END;
        if (*before == RET)
            return AFTER_RETURN_BYTE;
    }
    return *here == PUSH_EBX || *here == PUSH_EBP || *here == PUSH_ESI || *here == PUSH_EDI ? WITH_PROLOGUE
                                                                                            : PLAUSIBLE;
}

/* Tables of functions, of jumps, of symbols: any aligned word of the file. */
static void collect_words(struct code_map *map)
{
    for (size_t offset = 0; offset + 4 <= map->size; offset += 4) {
        uint32_t word;

        memcpy(&word, map->bytes + offset, sizeof word);
        if (find_state(map, word) != NULL)
            add_address(&map->pointer, word);
    }
}

static bool follow_pointer(struct code_map *map, uint32_t address)
{
    if (!is_plausible(map, address))
        return false;
    enqueue(map, address);
    follow_queue(map);
    return code_map_is_reached(map, address);
}

/* The best ones first, and again while there is something new: they are rarely wrong, and what they reach
 * shows which of the others point into the middle of instructions. */
static void follow_pointers(struct code_map *map)
{
    for (unsigned least = AFTER_END; least < CONFIDENCE_COUNT; least++) {
        bool has_new = true;

        for (unsigned round = 0; round < POINTER_ROUNDS && has_new; round++) {
            has_new = false;
            for (size_t i = 0; i < map->pointer.n; i++) { /* n grows meanwhile */
                uint32_t address = map->pointer.address[i];

                if (!code_map_is_reached(map, address) && confidence_in(map, address) <= least)
                    has_new |= follow_pointer(map, address);
            }
        }
    }
}

/* The entry point is a physical address; the code may be linked elsewhere. */
static void follow_entry(struct code_map *map, const struct kernel_image *kernel)
{
    enqueue(map, kernel->entry);
    for (unsigned i = 0; i < kernel->n_segments; i++) {
        const struct image_segment *segment = &kernel->segment[i];

        if (kernel->entry - segment->gpa < segment->memory_size)
            enqueue(map, kernel->entry - segment->gpa + segment->gva);
    }
    follow_queue(map);
}

/* ---- where the code is --------------------------------------------------------------------------------- */

static bool next_executable_segment(const struct kernel_image *kernel, unsigned *index,
                                    struct image_section *range)
{
    Elf32_Ehdr header;

    /* Nobody has checked the headers if the file is loaded by the addresses of a multiboot header, nor the
     * segments that need no memory. */
    if (kernel->size < sizeof header)
        return false;
    memcpy(&header, kernel->bytes, sizeof header);
    while (*index < header.e_phnum) {
        uint64_t offset = header.e_phoff + (uint64_t)(*index)++ * sizeof(Elf32_Phdr);
        Elf32_Phdr segment;

        if (offset + sizeof segment > kernel->size)
            return false;
        memcpy(&segment, kernel->bytes + offset, sizeof segment);
        if (segment.p_type != PT_LOAD || !(segment.p_flags & PF_X) || segment.p_filesz == 0 ||
            (uint64_t)segment.p_offset + segment.p_filesz > kernel->size)
            continue;
        *range = (struct image_section){
            .gva = segment.p_vaddr, .file_offset = segment.p_offset, .size = segment.p_filesz};
        return true;
    }
    return false;
}

static bool next_segment(const struct kernel_image *kernel, unsigned *index, struct image_section *range)
{
    while (*index < kernel->n_segments) {
        const struct image_segment *segment = &kernel->segment[(*index)++];

        if (segment->file_size == 0)
            continue;
        *range = (struct image_section){
            .gva = segment->gva, .file_offset = segment->file_offset, .size = segment->file_size};
        return true;
    }
    return false;
}

typedef bool range_source(const struct kernel_image *kernel, unsigned *index, struct image_section *range);

/* A hostile file may list the same bytes over and over: no more code is taken than the file has bytes. */
static bool read_ranges(struct code_map *map, const struct kernel_image *kernel, range_source *next,
                        char *error, size_t error_size)
{
    struct image_section range;
    unsigned index = 0;
    uint64_t total = 0;

    while (next(kernel, &index, &range)) {
        total += range.size;
        if (map->n_ranges == CODE_MAX_RANGES)
            return file_fail(kernel->path, error, error_size, "more than %u executable sections",
                             CODE_MAX_RANGES);
        if (total > kernel->size)
            return file_fail(kernel->path, error, error_size, "its executable sections overlap in the file");
        map->range[map->n_ranges++] = range;
    }
    return true;
}

static bool read_code(struct code_map *map, const struct kernel_image *kernel, char *error, size_t error_size)
{
    bool is_elf = elf_is_image(kernel);

    if (!read_ranges(map, kernel, is_elf ? elf_next_code : next_segment, error, error_size))
        return false;
    if (is_elf && map->n_ranges == 0 && !read_ranges(map, kernel, next_executable_segment, error, error_size))
        return false;
    if (map->n_ranges == 0)
        return file_fail(kernel->path, error, error_size, "no executable section or segment: no code");
    return true;
}

static void allocate_states(struct code_map *map)
{
    map->lowest = UINT32_MAX;
    for (size_t i = 0; i < map->n_ranges; i++) {
        uint32_t first = map->range[i].gva, last = first + map->range[i].size - 1;

        map->state[i] = calloc(map->range[i].size, 1);
        if (map->state[i] == NULL)
            die("out of memory for %u bytes of the kernel's code", map->range[i].size);
        if (last < first) { /* it wraps: every address may be code */
            first = 0;
            last = UINT32_MAX;
        }
        map->lowest = first < map->lowest ? first : map->lowest;
        map->highest = last > map->highest ? last : map->highest;
    }
}

/* ---- the interface ------------------------------------------------------------------------------------- */

struct code_map *code_map_create(const struct kernel_image *kernel, const struct symbols *symbols,
                                 char *error, size_t error_size)
{
    struct code_map *map = calloc(1, sizeof *map);

    if (map == NULL || (map->range = calloc(CODE_MAX_RANGES, sizeof *map->range)) == NULL ||
        (map->state = calloc(CODE_MAX_RANGES, sizeof *map->state)) == NULL)
        die("out of memory for the kernel's code");
    map->bytes = kernel->bytes;
    map->size = kernel->size;
    if (!read_code(map, kernel, error, error_size)) {
        code_map_free(map);
        return NULL;
    }
    allocate_states(map);
    follow_entry(map, kernel);
    follow_symbols(map, symbols);
    collect_words(map);
    follow_pointers(map);
    return map;
}

void code_map_free(struct code_map *map)
{
    if (map == NULL)
        return;
    for (size_t i = 0; i < map->n_ranges; i++)
        free(map->state[i]);
    free(map->state);
    free(map->range);
    free(map->queue.address);
    free(map->pointer.address);
    free(map);
}

const struct image_section *code_map_ranges(const struct code_map *map, size_t *n)
{
    *n = map->n_ranges;
    return map->range;
}

bool code_map_is_reached(const struct code_map *map, uint32_t address)
{
    const uint8_t *state = find_state(map, address);

    return state != NULL && (*state & REACHED);
}

bool code_map_next_reached(const struct code_map *map, uint32_t after, uint32_t *address)
{
    size_t i = find_range(map, after);

    if (i == map->n_ranges)
        return false;
    for (uint32_t offset = after - map->range[i].gva + 1; offset < map->range[i].size; offset++) {
        if (map->state[i][offset] & REACHED) {
            *address = map->range[i].gva + offset;
            return true;
        }
    }
    return false;
}
