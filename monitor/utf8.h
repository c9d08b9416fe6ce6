/* Characters that are fit for a JSON string and for a terminal. */
#ifndef RING3_UTF8_H
#define RING3_UTF8_H

#include <stddef.h>

/* The length of the character at the beginning of the n bytes, if it is well-formed UTF-8 (RFC 3629) and no
 * control character; else 0. */
size_t utf8_length(const char *bytes, size_t n);

#endif
