/*
 * setup.c: from the boot loader's hand-over to guest_main().
 *
 * Read next: segments.c and traps.c, in the order of the calls below.
 */
#include "guest.h"

/* Multiboot Specification 0.6.96, sections 3.2 and 3.3: only what we read. */
enum { LOADER_MAGIC = 0x2badb002, INFO_COMMAND_LINE = 1 << 2 };

struct multiboot_info {
    uint32_t flags, mem_lower, mem_upper, boot_device, command_line;
};

static char command_line[256]; /* copied early: the loader's memory is not mapped later */

void guest_setup(uint32_t magic, const struct multiboot_info *info);

void guest_setup(uint32_t magic, const struct multiboot_info *info)
{
    console_init();
    segments_init();
    traps_init();
    if (magic != LOADER_MAGIC)
        fail("started by something that is not a multiboot loader (eax=%08x)", magic);
    if (info->flags & INFO_COMMAND_LINE) {
        const char *from = memory_at(info->command_line);
        for (size_t i = 0; i < sizeof command_line - 1 && from[i] != '\0'; i++)
            command_line[i] = from[i];
    }
    guest_main();
    report();
}

bool has_option(const char *word)
{
    for (const char *at = command_line; *at != '\0';) {
        size_t n = 0;
        while (word[n] != '\0' && at[n] == word[n])
            n++;
        if (word[n] == '\0' && (at[n] == '\0' || at[n] == ' '))
            return true;
        while (*at != '\0' && *at != ' ')
            at++;
        while (*at == ' ')
            at++;
    }
    return false;
}

void *memset(void *to, int byte, size_t n)
{
    void *start = to;
    __asm__ volatile("rep stosb" : "+D"(to), "+c"(n) : "a"(byte) : "memory");
    return start;
}

void *memcpy(void *restrict to, const void *restrict from, size_t n)
{
    void *start = to;
    __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(n) : : "memory");
    return start;
}

int memcmp(const void *a, const void *b, size_t n)
{
    const uint8_t *x = a, *y = b;
    for (size_t i = 0; i < n; i++) {
        if (x[i] != y[i])
            return x[i] - y[i];
    }
    return 0;
}
