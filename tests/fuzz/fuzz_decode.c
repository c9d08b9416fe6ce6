/*
 * decode/ on any bytes: it reads none beyond those given, says the same when given no more than it needs, and
 * its text is a string.
 */
#include <string.h>

#include "decode/decode.h"
#include "fuzz.h"

static void try_format(const struct insn *insn)
{
    char text[160];

    for (size_t size = 1; size <= sizeof text; size += size < 8 ? 1 : 76) {
        memset(text, 'x', sizeof text);
        decode_format(insn, 0xfffffff8, text, size);
        FUZZ_CHECK(memchr(text, '\0', size) != NULL);
    }
    FUZZ_CHECK(decode_mnemonic_name(insn) != NULL);
}

static void try_decode(const uint8_t *bytes, size_t n, unsigned default_size)
{
    uint8_t *exact;
    struct insn insn, again;

    if (decode_insn(bytes, n, default_size, &insn) != DECODE_OK)
        return;
    FUZZ_CHECK(insn.length > 0 && insn.length <= INSN_MAX_LENGTH && insn.length <= n);
    FUZZ_CHECK(memcmp(insn.bytes, bytes, insn.length) == 0);
    FUZZ_CHECK(insn.n_operands <= INSN_MAX_OPERANDS);
    FUZZ_CHECK(insn.sensitive == sensitive_find(&insn));
    exact = malloc(insn.length); /* so that a sanitizer sees the byte behind it being read */
    FUZZ_CHECK(exact != NULL);
    memcpy(exact, bytes, insn.length);
    FUZZ_CHECK(decode_insn(exact, insn.length, default_size, &again) == DECODE_OK);
    FUZZ_CHECK(again.length == insn.length && again.mnemonic == insn.mnemonic);
    FUZZ_CHECK(decode_insn(exact, insn.length - 1u, default_size, &again) == DECODE_TRUNCATED);
    free(exact);
    (void)decode_is_in_profile(&insn);
    try_format(&insn);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    try_decode(bytes, n, 4);
    try_decode(bytes, n, 2);
    return 0;
}
