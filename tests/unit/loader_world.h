/*
 * A kernel file made on the spot, and a machine's memory to load it into: what the tests of monitor/loader
 * share.
 */
#ifndef RING3_UNIT_LOADER_WORLD_H
#define RING3_UNIT_LOADER_WORLD_H

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "elf_builder.h"
#include "monitor/bootinfo.h"
#include "monitor/loader.h"

#define COUNT(array) (sizeof(array) / sizeof(array)[0])
#define RAM_SIZE     (UINT64_C(16) << 20)

static struct elf_builder builder;
static struct loader_config config;
static struct vm vm;
static char error[512];
static char directory[] = "/tmp/ring3-loader-XXXXXX";

static const uint8_t code[64] = {0xfa, 0xf4, 0xeb, 0xfd, [63] = 0x99};

static void fresh(uint32_t entry)
{
    builder_start(&builder, entry);
    config = (struct loader_config){.kernel_path = "kernel.elf", .kernel_bytes = builder.bytes};
    error[0] = '\0';
}

static struct kernel_image *open_kernel(void)
{
    config.kernel_size = builder.size;
    return kernel_open(&config, error, sizeof error);
}

/* Opens, makes memory and loads. NULL: `error` says why. */
static struct kernel_image *load(uint64_t ram_size)
{
    struct kernel_image *kernel = open_kernel();

    if (kernel == NULL)
        return NULL;
    memset(&vm, 0, sizeof vm);
    ck_assert_msg(memory_create(&vm.memory, ram_size, kernel_rom_size(kernel), error, sizeof error), "%s",
                  error);
    memset(vm.vcpu.gpr, 0xcc, sizeof vm.vcpu.gpr);
    if (kernel_load(kernel, &config, &vm, error, sizeof error))
        return kernel;
    memory_destroy(&vm.memory);
    kernel_close(kernel);
    return NULL;
}

static void unload(struct kernel_image *kernel)
{
    memory_destroy(&vm.memory);
    kernel_close(kernel);
}

/* ---- multiboot headers --------------------------------------------------------------------------------- */

/* Puts a header at the start of the contents of segment 0 (or wherever) and returns it for changes. */
static uint32_t *put_multiboot(uint32_t offset, uint32_t flags)
{
    uint32_t *header = (uint32_t *)(void *)(builder.bytes + offset);

    header[0] = MULTIBOOT_HEADER_MAGIC;
    header[1] = flags;
    header[2] = 0u - MULTIBOOT_HEADER_MAGIC - flags;
    return header;
}

/* A kernel at 1 MiB with a multiboot header. */
static void fresh_multiboot(uint32_t flags)
{
    fresh(0x100020);
    builder_add_segment(&builder, 0x100000, 0x100000, code, sizeof code, sizeof code);
    put_multiboot(builder_segment(&builder, 0)->p_offset, flags);
}

/* A flat file of 256 bytes, no ELF, loaded at 2 MiB by the addresses in its header. */
static uint32_t *fresh_flat(void)
{
    uint32_t *header;

    fresh(0);
    memset(builder.bytes, 0x90, BUILDER_MAX);
    builder.size = 256;
    header = put_multiboot(16, MULTIBOOT_ADDRESSES);
    header[3] = 0x200010;
    header[4] = 0x200000;
    header[5] = 0;
    header[6] = 0;
    header[7] = 0x200040;
    return header;
}

static const char *write_file(const char *name, const void *bytes, size_t n)
{
    static char path[4][512];
    static unsigned next;
    char *place = path[next++ % 4];
    FILE *file;

    snprintf(place, sizeof path[0], "%s/%s", directory, name);
    file = fopen(place, "wb");
    ck_assert_ptr_nonnull(file);
    ck_assert_uint_eq(fwrite(bytes, 1, n, file), n);
    ck_assert_int_eq(fclose(file), 0);
    return place;
}

/* main() of a test program; removes the files. */
static int run_suite(Suite *suite)
{
    SRunner *runner;
    char remove_directory[128];
    int failed;

    if (mkdtemp(directory) == NULL) {
        perror(directory);
        return EXIT_FAILURE;
    }
    runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    snprintf(remove_directory, sizeof remove_directory, "rm -rf '%s'", directory);
    if (system(remove_directory) != 0)
        failed++;
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

#endif
