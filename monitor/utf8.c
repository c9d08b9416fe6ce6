/* See utf8.h. */
#include "monitor/utf8.h"

#include <stdint.h>

/* By first byte; the range of the second decides about overlong forms, surrogates, what is beyond U+10FFFF,
 * and the C1 controls U+0080-9F. */
static const struct {
    uint8_t first, last, second_first, second_last, length;
} forms[] = {
    {0x20, 0x7e, 0, 0, 1},       {0xc2, 0xc2, 0xa0, 0xbf, 2}, {0xc3, 0xdf, 0x80, 0xbf, 2},
    {0xe0, 0xe0, 0xa0, 0xbf, 3}, {0xe1, 0xec, 0x80, 0xbf, 3}, {0xed, 0xed, 0x80, 0x9f, 3},
    {0xee, 0xef, 0x80, 0xbf, 3}, {0xf0, 0xf0, 0x90, 0xbf, 4}, {0xf1, 0xf3, 0x80, 0xbf, 4},
    {0xf4, 0xf4, 0x80, 0x8f, 4},
};

size_t utf8_length(const char *bytes, size_t n)
{
    const uint8_t *c = (const uint8_t *)bytes;

    for (size_t i = 0; n > 0 && i < sizeof forms / sizeof forms[0]; i++) {
        if (c[0] < forms[i].first || c[0] > forms[i].last)
            continue;
        if (n < forms[i].length ||
            (forms[i].length > 1 && (c[1] < forms[i].second_first || c[1] > forms[i].second_last)))
            return 0;
        for (size_t k = 2; k < forms[i].length; k++)
            if ((c[k] & 0xc0) != 0x80)
                return 0;
        return forms[i].length;
    }
    return 0;
}
