/*
 * The memory that stubs live in, and the cache of those made so far.
 *
 * Code, and a page of scratch. The code is a memfd, mapped twice, once to write and once to run, so that
 * no page is ever both; the scratch page follows the executable mapping, in reach of a RIP-relative
 * displacement. All of it is the host's: nothing here is guest state, and nothing outlives one instruction
 * but the translation of its bytes. One vCPU thread at a time.
 *
 * Read next: stub_enter.S.
 */
#include "vcpu/stub.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "vcpu/fail.h"
#include "vcpu/stub_offsets.h"

#define STUB_SIZE  32u /* an instruction and the jump back, and no line split */
#define STUB_COUNT 4096u
#define CODE_SIZE  ((size_t)STUB_COUNT * STUB_SIZE)

_Static_assert(offsetof(struct stub_context, gpr[EAX]) == STUB_EAX, "stub_enter.S");
_Static_assert(offsetof(struct stub_context, gpr[ECX]) == STUB_ECX, "stub_enter.S");
_Static_assert(offsetof(struct stub_context, gpr[EDX]) == STUB_EDX, "stub_enter.S");
_Static_assert(offsetof(struct stub_context, gpr[EBX]) == STUB_EBX, "stub_enter.S");
_Static_assert(offsetof(struct stub_context, gpr[EBP]) == STUB_EBP, "stub_enter.S");
_Static_assert(offsetof(struct stub_context, gpr[ESI]) == STUB_ESI, "stub_enter.S");
_Static_assert(offsetof(struct stub_context, gpr[EDI]) == STUB_EDI, "stub_enter.S");
_Static_assert(offsetof(struct stub_context, flags) == STUB_FLAGS, "stub_enter.S");
_Static_assert(offsetof(struct stub_context, code) == STUB_CODE, "stub_enter.S");
_Static_assert(offsetof(struct stub_context, leave) == STUB_LEAVE, "stub_enter.S");
_Static_assert(offsetof(struct stub_context, fpu) == STUB_FPU, "stub_enter.S");
_Static_assert(offsetof(struct stub_context, host_fpu) == STUB_HOST_FPU, "stub_enter.S");

/* stub_enter.S */
void stub_enter(struct stub_context *context);
void stub_leave(void);

struct cached_stub {
    struct stub stub;
    uint8_t length; /* of the guest's instruction; 0: the entry is free */
    uint8_t operand_size, address_size;
    uint8_t bytes[INSN_MAX_LENGTH];
};

static struct {
    uint8_t *writable, *executable, *scratch;
    struct cached_stub cache[STUB_COUNT];
} stubs;

/* ---- memory -------------------------------------------------------------------------------------------- */

static void *map_pages(void *address, size_t size, int protection, int flags, int fd)
{
    void *mapped = mmap(address, size, protection, flags, fd, 0);

    if (mapped == MAP_FAILED)
        die("cannot map memory for instruction stubs: %s", strerror(errno));
    return mapped;
}

void vcpu_stub_init(void)
{
    int fd;

    if (stubs.writable != NULL)
        return;
    fd = memfd_create("ring3-stubs", MFD_CLOEXEC);
    if (fd < 0 || ftruncate(fd, (off_t)CODE_SIZE) != 0)
        die("cannot make memory for instruction stubs: %s", strerror(errno));
    stubs.executable =
        map_pages(NULL, CODE_SIZE + PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
    stubs.scratch = stubs.executable + CODE_SIZE;
    map_pages(stubs.executable, CODE_SIZE, PROT_READ | PROT_EXEC, MAP_SHARED | MAP_FIXED, fd);
    stubs.writable = map_pages(NULL, CODE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd);
    close(fd);
}

uint8_t *stub_scratch(void)
{
    return stubs.scratch;
}

/* ---- making and finding -------------------------------------------------------------------------------- */

static void write_stub(unsigned slot, struct relocated *relocated)
{
    static const uint8_t leave[] = {0x41, 0xff, 0x67, STUB_LEAVE}; /* jmp *STUB_LEAVE(%r15) */
    uint8_t *code = stubs.writable + (size_t)slot * STUB_SIZE;

    _Static_assert(RELOCATED_MAX + sizeof leave <= STUB_SIZE, "a stub fits its slot");
    if (relocated->displacement_offset != 0) {
        const uint8_t *next = stubs.executable + (size_t)slot * STUB_SIZE + relocated->length;
        int32_t displacement = (int32_t)(stubs.scratch - next);

        memcpy(relocated->bytes + relocated->displacement_offset, &displacement, sizeof displacement);
    }
    memcpy(code, relocated->bytes, relocated->length);
    memcpy(code + relocated->length, leave, sizeof leave);
    vcpu_serialize();
}

/* FNV-1a */
static unsigned hash_insn(const struct insn *insn)
{
    uint32_t hash = 0x811c9dc5u ^ insn->operand_size;

    for (unsigned i = 0; i < insn->length; i++)
        hash = (hash ^ insn->bytes[i]) * 0x01000193u;
    return (hash ^ hash >> 15) % STUB_COUNT;
}

static bool is_cached(const struct cached_stub *cached, const struct insn *insn)
{
    return cached->length == insn->length && cached->operand_size == insn->operand_size &&
           cached->address_size == insn->address_size &&
           memcmp(cached->bytes, insn->bytes, insn->length) == 0;
}

const struct stub *stub_find(const struct insn *insn)
{
    unsigned slot = hash_insn(insn);
    struct cached_stub *cached = &stubs.cache[slot];
    struct relocated relocated;

    if (is_cached(cached, insn))
        return &cached->stub;
    if (!relocate_insn(insn, &relocated))
        return NULL;
    vcpu_stub_init();
    write_stub(slot, &relocated);
    *cached = (struct cached_stub){
        .stub = {.code = stubs.executable + (size_t)slot * STUB_SIZE, .stand_in = relocated.stand_in},
        .length = insn->length,
        .operand_size = insn->operand_size,
        .address_size = insn->address_size,
    };
    memcpy(cached->bytes, insn->bytes, insn->length);
    return &cached->stub;
}

void stub_run(struct stub_context *context)
{
    context->leave = stub_leave;
    stub_enter(context);
}
