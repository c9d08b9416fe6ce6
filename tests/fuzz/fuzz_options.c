/*
 * The command line of `ring3 run`: words of any bytes, a line each. What is refused is told on standard
 * error.
 */
#include <string.h>

#include "fuzz.h"
#include "monitor/run_options.h"

#define MAX_WORDS 64

static size_t split(char *text, char **words)
{
    size_t n = 0;

    words[n++] = "run";
    for (char *word = strtok(text, "\n"); word != NULL && n < MAX_WORDS; word = strtok(NULL, "\n"))
        words[n++] = word;
    words[n] = NULL;
    return n;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    static struct run_options options;
    FILE *told = fopen("/dev/null", "w"), *out = stdout, *err = stderr;
    char *words[MAX_WORDS + 1], *text = malloc(n + 1);
    enum options_result result;

    FUZZ_CHECK(told != NULL && text != NULL);
    memcpy(text, bytes, n);
    text[n] = '\0';
    stdout = told;
    stderr = told;
    result = run_options_parse(&options, (int)split(text, words), words);
    stdout = out;
    stderr = err;
    if (result == OPTIONS_OK) {
        FUZZ_CHECK(options.memory >= (1u << 20));
        FUZZ_CHECK(options.n_modules <= LOADER_MAX_MODULES && options.n_blobs <= LOADER_MAX_BLOBS);
    }
    run_options_free(&options);
    fclose(told);
    free(text);
    return 0;
}
