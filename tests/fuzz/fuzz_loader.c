/*
 * The loaders on any file, as the kernel: it is refused with one line, or loaded into memory with an entry
 * point, its symbols can be asked for, and its holes patched.
 */
#include <string.h>

#include "fuzz.h"
#include "monitor/loader.h"
#include "monitor/patch.h"
#include "monitor/symbols.h"

static void check_message(const char *error)
{
    FUZZ_CHECK(error[0] != '\0' && strchr(error, '\n') == NULL);
}

static void ask_symbols(const struct kernel_image *kernel)
{
    const struct symbols *symbols = kernel_symbols(kernel);
    uint32_t address = 0, offset, found;

    if (symbols == NULL)
        return;
    for (unsigned i = 0; i < 64 && symbols_next_function(symbols, address, &address); i++) {
        const char *name = symbols_find(symbols, address, &offset);

        if (name != NULL)
            (void)symbols_address(symbols, name, &found);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    static struct vm vm;
    char error[512] = "";
    struct loader_config config = {.kernel_path = "kernel",
                                   .kernel_bytes = bytes,
                                   .kernel_size = n,
                                   .append = "word",
                                   .holes = HOLES_PATCH};
    struct kernel_image *kernel;

    if (n == 0)
        return 0;
    kernel = kernel_open(&config, error, sizeof error);
    if (kernel == NULL) {
        check_message(error);
        return 0;
    }
    memset(&vm, 0, sizeof vm);
    if (kernel_rom_size(kernel) <= MEMORY_MAX_ROM &&
        memory_create(&vm.memory, 2u << 20, kernel_rom_size(kernel), error, sizeof error)) {
        if (!kernel_load(kernel, &config, &vm, error, sizeof error))
            check_message(error);
        ask_symbols(kernel);
        patch_free(vm.patches);
        memory_destroy(&vm.memory);
    }
    kernel_close(kernel);
    return 0;
}
