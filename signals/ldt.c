/*
 * Guest segments as LDT descriptors, found by content: base, limit, type, size. Two guest selectors with
 * equal descriptors share one entry; a changed descriptor is another entry. Both virtual privilege levels run
 * at host CPL 3, so every entry has DPL 3, and the view (kernel or user) shows in the limit alone.
 *
 * Read next: native_load.c.
 */
#include "signals/ldt.h"

#include <asm/ldt.h>
#include <errno.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "vcpu/fail.h"

#define SELECTOR_LDT_RPL3  0x7
#define MODIFY_LDT_WRITE   0x11
#define CONTENTS_DATA      0
#define CONTENTS_DOWN      1
#define CONTENTS_CODE      2
#define HOST_ATTRIBUTES    (SEGMENT_P | SEGMENT_S | SEGMENT_DPL | SEGMENT_ACCESSED)
#define LARGEST_BYTE_LIMIT 0xfffffu /* 20 bits */

static bool descriptor_equal(const struct ldt_descriptor *a, const struct ldt_descriptor *b)
{
    return a->base == b->base && a->limit == b->limit && a->is_code == b->is_code &&
           a->is_down == b->is_down && a->is_restricted == b->is_restricted && a->is_paged == b->is_paged &&
           a->is_32bit == b->is_32bit;
}

static void ldt_write(struct ldt *ldt, unsigned index, const struct ldt_descriptor *descriptor)
{
    struct user_desc desc = {
        .entry_number = index,
        .base_addr = descriptor->base,
        .limit = descriptor->limit,
        .seg_32bit = descriptor->is_32bit,
        .contents = descriptor->is_code   ? CONTENTS_CODE
                    : descriptor->is_down ? CONTENTS_DOWN
                                          : CONTENTS_DATA,
        .read_exec_only = descriptor->is_restricted,
        .limit_in_pages = descriptor->is_paged,
        .seg_not_present = 0,
        .useable = 1,
    };

    if (syscall(SYS_modify_ldt, MODIFY_LDT_WRITE, &desc, sizeof desc) != 0)
        die("modify_ldt: %s (run `ring3 doctor` to see what this host allows)", strerror(errno));
    ldt->n_writes++;
    ldt->entry[index].descriptor = *descriptor;
}

void ldt_begin(struct ldt *ldt)
{
    ldt->tick++;
}

uint16_t ldt_load(struct ldt *ldt, const struct ldt_descriptor *descriptor, bool *is_new)
{
    unsigned oldest = 0;

    for (unsigned i = 0; i < LDT_MAX_ENTRIES; i++) {
        struct ldt_entry *entry = &ldt->entry[i];

        if (entry->last_use != 0 && descriptor_equal(&entry->descriptor, descriptor)) {
            entry->last_use = ldt->tick;
            return (uint16_t)(i << 3 | SELECTOR_LDT_RPL3);
        }
        if (entry->last_use < ldt->entry[oldest].last_use)
            oldest = i;
    }
    BUG_ON(ldt->entry[oldest].last_use == ldt->tick); /* six registers cannot fill it */
    ldt_write(ldt, oldest, descriptor);
    ldt->entry[oldest].last_use = ldt->tick;
    *is_new = true;
    return (uint16_t)(oldest << 3 | SELECTOR_LDT_RPL3);
}

const struct ldt_descriptor *ldt_find(const struct ldt *ldt, uint16_t selector)
{
    unsigned index = selector >> 3;

    if ((selector & SELECTOR_TI) == 0 || index >= LDT_MAX_ENTRIES || ldt->entry[index].last_use == 0)
        return NULL;
    return &ldt->entry[index].descriptor;
}

struct segment ldt_segment(const struct ldt_descriptor *descriptor)
{
    return (struct segment){
        .base = descriptor->base,
        .limit = descriptor->is_paged ? descriptor->limit << PAGE_SHIFT | PAGE_MASK : descriptor->limit,
        .attributes =
            (uint16_t)(HOST_ATTRIBUTES | (descriptor->is_code ? SEGMENT_CODE : 0) |
                       (descriptor->is_down ? SEGMENT_DOWN : 0) |
                       (descriptor->is_restricted ? 0 : SEGMENT_WRITABLE) |
                       (descriptor->is_32bit ? SEGMENT_DB : 0) | (descriptor->is_paged ? SEGMENT_G : 0))};
}

/* No offset at all is valid: an expand-down segment whose limit is the last offset. (Code has no such form;
 * its limit is 0, and the engine checks EIP before it enters.) */
static void mirror_nothing(struct ldt_descriptor *descriptor)
{
    descriptor->is_32bit = true;
    descriptor->is_paged = !descriptor->is_code;
    descriptor->is_down = !descriptor->is_code;
    descriptor->limit = descriptor->is_code ? 0 : LARGEST_BYTE_LIMIT;
}

void ldt_mirror(const struct segment *segment, uint32_t bias, uint64_t reach,
                struct ldt_descriptor *descriptor)
{
    uint32_t limit = segment->limit;

    memset(descriptor, 0, sizeof *descriptor);
    descriptor->base = segment->base + bias;
    descriptor->is_code = (segment->attributes & SEGMENT_CODE) != 0;
    descriptor->is_down = !descriptor->is_code && (segment->attributes & SEGMENT_DOWN) != 0;
    descriptor->is_restricted =
        (segment->attributes & SEGMENT_WRITABLE) == 0; /* the same bit: readable code */
    descriptor->is_32bit = (segment->attributes & SEGMENT_DB) != 0;

    if (reach <= UINT32_MAX) {
        if (descriptor->is_down || segment->base >= reach) {
            mirror_nothing(descriptor);
            return;
        }
        if (limit > reach - segment->base - 1)
            limit = (uint32_t)(reach - segment->base - 1);
    }
    if (limit > LARGEST_BYTE_LIMIT) {
        descriptor->is_paged = true;
        /* The descriptor's last byte is (pages << 12) + 4095: round down, except where that is exact. */
        limit = (limit & PAGE_MASK) == PAGE_MASK ? limit >> PAGE_SHIFT : (limit >> PAGE_SHIFT) - 1;
    }
    descriptor->limit = limit;
}
