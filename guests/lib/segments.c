/*
 * segments.c: the GDT and the TSS. Everything is flat (base 0, 4 GiB): paging does the protecting.
 *
 * The TSS is there for two things only: the stack for traps from ring 3 (SS0:ESP0), and the I/O permission
 * bitmap behind it. Read next: traps.c.
 */
#include "guest.h"

enum {
    FLAG_32BIT = 1 << 14,
    FLAG_PAGES = 1 << 15
}; /* D/B and G, as bits of a descriptor's upper word >> 8 */

uint64_t gdt[GDT_ENTRIES] __attribute__((aligned(8)));

/* One object, so that the bitmap follows the TSS as the architecture wants it. */
__asm__(".bss; .balign 128; .globl tss, io_map; tss: .skip 104; io_map: .skip 8193; .text");
_Static_assert(sizeof(struct tss) == 104, "the size that the line above reserves");

static uint8_t trap_stack[8192] __attribute__((aligned(16)));

uint64_t descriptor(uint32_t base, uint32_t limit, uint8_t access)
{
    bool is_segment = (access & 0x10) != 0;
    uint32_t flags = is_segment ? FLAG_32BIT : 0;

    if (limit > 0xfffff) {
        limit >>= 12;
        flags |= FLAG_PAGES;
    }
    uint32_t low = base << 16 | (limit & 0xffff);
    uint32_t high =
        (base & 0xff000000) | (limit & 0xf0000) | flags << 8 | (uint32_t)access << 8 | (base >> 16 & 0xff);
    return (uint64_t)high << 32 | low;
}

uint64_t gate(uint16_t selector, uint32_t offset, uint8_t access)
{
    uint32_t low = (uint32_t)selector << 16 | (offset & 0xffff);
    uint32_t high = (offset & 0xffff0000) | (uint32_t)access << 8;
    return (uint64_t)high << 32 | low;
}

void segments_init(void)
{
    const struct table_register gdtr = {sizeof gdt - 1, (uintptr_t)gdt};

    gdt[SEL_KERNEL_CODE / 8] = descriptor(0, 0xffffffff, DESC_CODE);
    gdt[SEL_KERNEL_DATA / 8] = descriptor(0, 0xffffffff, DESC_DATA);
    gdt[SEL_SPARE / 8] = descriptor(0, 0xffffffff, DESC_DATA);
    gdt[SEL_USER_CODE / 8] = descriptor(0, 0xffffffff, DESC_CODE | DESC_USER);
    gdt[SEL_USER_DATA / 8] = descriptor(0, 0xffffffff, DESC_DATA | DESC_USER);
    gdt[SEL_TSS / 8] = descriptor((uintptr_t)&tss, sizeof tss + sizeof io_map - 1, DESC_TSS);

    tss.ss0 = SEL_KERNEL_DATA;
    tss.esp0 = (uintptr_t)(trap_stack + sizeof trap_stack);
    tss.io_map_base = 0xffff; /* beyond the limit: no bitmap, every port is denied */

    load_gdt(&gdtr);
    __asm__ volatile("ljmp %0, $1f\n1:" : : "i"(SEL_KERNEL_CODE));
    __asm__ volatile("mov %0, %%ds; mov %0, %%es; mov %0, %%ss; mov %0, %%fs; mov %0, %%gs"
                     :
                     : "r"(SEL_KERNEL_DATA));
    load_task_register(SEL_TSS);
}
