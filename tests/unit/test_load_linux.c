/* Linux bzImages and BIOS images: where they go, what a kernel finds at its entry, and files that are not
 * what they say. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "devices/acpi.h"
#include "monitor/image.h"
#include "monitor/loader.h"
#include "shadowpt/shadowpt.h"

#include "unit/hostile_values.h"

#define MIB       (UINT64_C(1) << 20)
#define RAM_SIZE  (64 * MIB)
#define SETUP     3u /* sectors of set-up code */
#define PAYLOAD   ((1 + SETUP) * 512u)
#define FILE_SIZE (PAYLOAD + 5000u)

static uint8_t file[FILE_SIZE];
static struct loader_config config;
static struct vm vm;
static struct kernel_image *kernel;
static char error[512];
static char initrd[] = "/tmp/ring3-initrd-XXXXXX";

static void put(unsigned offset, uint64_t value, unsigned size)
{
    memcpy(file + offset, &value, size);
}

/* As Debian's kernels are, but for the sizes. */
static void fresh(void)
{
    memset(file, 0xee, sizeof file); /* set-up code */
    put(0x1f1, SETUP, 1);
    put(0x1fe, 0xaa55, 2);
    put(0x200, 0x6aeb, 2); /* the header ends at 0x26c */
    memcpy(file + 0x202, "HdrS", 4);
    put(0x206, 0x020f, 2);
    put(0x211, 0x01, 1); /* LOADED_HIGH */
    put(0x22c, 0x7fffffff, 4);
    put(0x230, 0x1000000, 4);
    put(0x234, 1, 1);
    put(0x236, 0, 2);
    put(0x238, 2047, 4);
    put(0x258, 16 * MIB, 8);      /* pref_address */
    put(0x260, (8 * MIB) + 1, 4); /* init_size */
    for (unsigned i = PAYLOAD; i < FILE_SIZE; i++)
        file[i] = (uint8_t)(i * 3);
    config =
        (struct loader_config){.kernel_path = "bzImage", .kernel_bytes = file, .kernel_size = sizeof file};
    error[0] = '\0';
}

static bool load(uint64_t ram_size)
{
    kernel = kernel_open(&config, error, sizeof error);
    if (kernel == NULL)
        return false;
    memset(&vm, 0, sizeof vm);
    ck_assert(memory_create(&vm.memory, ram_size, kernel_rom_size(kernel), error, sizeof error));
    vcpu_reset(&vm.vcpu);
    memset(vm.vcpu.gpr, 0xcc, sizeof vm.vcpu.gpr);
    return kernel_load(kernel, &config, &vm, error, sizeof error);
}

static void unload(void)
{
    if (kernel != NULL)
        memory_destroy(&vm.memory);
    kernel_close(kernel);
    kernel = NULL;
}

static void expect_loaded(void)
{
    ck_assert_msg(load(RAM_SIZE), "not loaded: %s", error);
}

static void expect_refused(uint64_t ram_size, const char *part)
{
    ck_assert_msg(!load(ram_size), "was loaded; want \"%s\"", part);
    ck_assert_msg(strstr(error, part) != NULL, "got \"%s\", want \"%s\"", error, part);
    ck_assert_ptr_null(strchr(error, '\n'));
    unload();
}

static uint64_t read_param(unsigned offset, unsigned size)
{
    uint64_t value = 0;

    ck_assert(memory_read(&vm.memory, vm.vcpu.gpr[ESI] + offset, &value, size));
    return value;
}

static void make_initrd(size_t size)
{
    int fd = mkstemp(strcpy(initrd, "/tmp/ring3-initrd-XXXXXX"));

    ck_assert(fd >= 0 && ftruncate(fd, (off_t)size) == 0 && pwrite(fd, "INITRD", 6, 0) == 6);
    close(fd);
    config.initrd = initrd;
}

/* ---- Linux --------------------------------------------------------------------------------------------- */

START_TEST(the_kernel_lies_at_1_mib_and_starts_flat)
{
    const struct vcpu *vcpu = &vm.vcpu;
    uint8_t bytes[FILE_SIZE - PAYLOAD];
    uint64_t descriptor;

    fresh();
    expect_loaded();
    ck_assert(memory_read(&vm.memory, 0x100000, bytes, sizeof bytes));
    ck_assert_mem_eq(bytes, file + PAYLOAD, sizeof bytes);
    ck_assert_uint_eq(vcpu->eip, 0x100000);
    ck_assert_uint_eq(vcpu->segment[SEG_CS].selector, 0x10);
    for (unsigned i = 0; i < SEG_COUNT; i++)
        if (i != SEG_CS)
            ck_assert_uint_eq(vcpu->segment[i].selector, 0x18);
    ck_assert_uint_eq(vcpu->segment[SEG_DS].limit, 0xffffffff);
    ck_assert_uint_eq(vcpu->eflags, EFLAGS_FIXED);
    ck_assert_uint_eq(vcpu->cr0 & (CR0_PE | CR0_PG), CR0_PE);
    ck_assert_uint_eq(vcpu->gpr[EBX] | vcpu->gpr[EBP] | vcpu->gpr[EDI], 0);
    ck_assert_uint_eq(vcpu->gdtr.limit, 31);
    ck_assert(memory_read(&vm.memory, vcpu->gdtr.base + 0x10, &descriptor, 8));
    ck_assert_uint_eq(descriptor, UINT64_C(0x00cf9b000000ffff));
    ck_assert(memory_read(&vm.memory, vcpu->gdtr.base + 0x18, &descriptor, 8));
    ck_assert_uint_eq(descriptor, UINT64_C(0x00cf93000000ffff));
    ck_assert_uint_eq(vcpu->msr.mtrr_def_type, 0xc06);
    unload();
}
END_TEST

START_TEST(the_boot_parameters_say_what_there_is)
{
    char command_line[64];

    fresh();
    config.append = "console=ttyS0 quiet";
    expect_loaded();
    ck_assert_uint_eq(read_param(0x1f1, 1), SETUP); /* the header was copied, */
    ck_assert_uint_eq(read_param(0x260, 4), 8 * MIB + 1);
    ck_assert_uint_eq(read_param(0x26c, 4), 0); /* up to its end, */
    ck_assert_uint_eq(read_param(0x1f0, 1), 0); /* and from its start */
    ck_assert_uint_eq(read_param(0x1ef, 1), 0); /* sentinel */
    ck_assert_uint_eq(read_param(0x210, 1), 0xff);
    ck_assert_uint_eq(read_param(0x214, 4), 0x100000);
    ck_assert_uint_eq(read_param(0x218, 8), 0); /* no RAM disk */
    ck_assert_uint_eq(read_param(0x250, 8), 0);
    ck_assert_uint_eq(read_param(0x070, 8), ACPI_RSDP_GPA);
    ck_assert_uint_eq(read_param(0x1e0, 4), 63 * 1024);
    ck_assert_uint_eq(read_param(0x0f, 1), 1); /* a VGA */
    ck_assert(memory_read(&vm.memory, read_param(0x228, 4), command_line, sizeof command_line));
    ck_assert_str_eq(command_line, "console=ttyS0 quiet");
    unload();
}
END_TEST

START_TEST(the_memory_map_is_a_pcs)
{
    static const struct {
        uint64_t first, size;
        uint32_t type;
    } map[] = {{0, 0x9fc00, 1}, {0x9fc00, 0x400, 2}, {0xf0000, 0x10000, 2}, {0x100000, RAM_SIZE - MIB, 1}};

    fresh();
    expect_loaded();
    ck_assert_uint_eq(read_param(0x1e8, 1), 4);
    for (unsigned i = 0; i < 4; i++) {
        ck_assert_uint_eq(read_param(0x2d0 + 20 * i, 8), map[i].first);
        ck_assert_uint_eq(read_param(0x2d0 + 20 * i + 8, 8), map[i].size);
        ck_assert_uint_eq(read_param(0x2d0 + 20 * i + 16, 4), map[i].type);
    }
    unload();
}
END_TEST

START_TEST(the_ram_disk_lies_as_high_as_it_may)
{
    char text[7] = "";

    fresh();
    make_initrd(10000);
    expect_loaded();
    ck_assert_uint_eq(read_param(0x218, 4), RAM_SIZE - 3 * PAGE_SIZE);
    ck_assert_uint_eq(read_param(0x21c, 4), 10000);
    ck_assert(memory_read(&vm.memory, RAM_SIZE - 3 * PAGE_SIZE, text, 6));
    ck_assert_str_eq(text, "INITRD");
    unload();
    put(0x22c, 40 * MIB - 1, 4);
    expect_loaded();
    ck_assert_uint_eq(read_param(0x218, 4), 40 * MIB - 3 * PAGE_SIZE);
    unload();
    unlink(initrd);
}
END_TEST

START_TEST(the_ram_disk_stays_clear_of_the_kernel)
{
    fresh();
    make_initrd(40 * MIB);
    expect_refused(RAM_SIZE, "no room for this initial RAM disk of 41943040 bytes");
    put(0x260, MIB, 4); /* init_size */
    expect_loaded();
    ck_assert_uint_eq(read_param(0x218, 4), 24 * MIB);
    unload();
    put(0x22c, 0, 4); /* nothing is low enough */
    expect_refused(RAM_SIZE, "no room for this initial RAM disk");
    unlink(initrd);
}
END_TEST

START_TEST(raw_files_and_parameters_avoid_each_other)
{
    fresh();
    make_initrd(4096);
    config.n_blobs = 1;
    config.blob[0] = (struct loader_blob){.path = initrd, .gpa = 0x10000};
    expect_loaded();
    ck_assert_uint_eq(vm.vcpu.gpr[ESI], 0x11000);
    unload();
    config.blob[0].gpa = RAM_SIZE - 4096;
    expect_loaded();
    ck_assert_uint_eq(read_param(0x218, 4), RAM_SIZE - 2 * 4096);
    unload();
    unlink(initrd);
}
END_TEST

START_TEST(old_kernels_do_without_the_newer_fields)
{
    fresh();
    put(0x206, 0x0206, 2);
    put(0x200, 0x3aeb, 2); /* the header ends at 0x23c: what follows is code */
    put(0x236, 0x1, 2);
    expect_loaded();
    ck_assert_uint_eq(read_param(0x23c, 4), 0);
    unload();
    put(0x1f1, 0, 1); /* means 4 */
    expect_loaded();
    unload();
}
END_TEST

START_TEST(a_hostile_header_length_is_cut)
{
    fresh();
    put(0x201, 0xff, 1);
    expect_loaded();
    ck_assert_uint_eq(read_param(0x290, 4), 0);
    ck_assert_uint_eq(read_param(0x1e8, 1), 4);
    unload();
}
END_TEST

static const struct {
    unsigned offset;
    uint64_t value;
    unsigned size;
    const char *part;
} refused[] = {
    {0x206, 0x0205, 2, "boot protocol 2.05"},
    {0x206, 0x0000, 2, "older than 2.06"},
    {0x211, 0x00, 1, "a Linux zImage"},
    {0x236, 0x01, 2, "a 64-bit Linux kernel"},
    {0x1f1, 0x40, 1, "cut off: its 64 sectors of set-up code"},
    {0x1f1, 0xff, 1, "cut off"},
    {0x201, 0x10, 1, "its set-up header ends at 0x212"},
    {0x258, UINT64_MAX, 8, "beyond 4 GiB"},
    {0x258, UINT64_C(1) << 32, 8, "beyond 4 GiB"},
    {0x258, 0xffffffff, 8, "outside the memory of 64M"},
    {0x260, 0xffffffff, 4, "outside the memory of 64M"},
};

START_TEST(headers_that_cannot_be)
{
    fresh();
    put(refused[_i].offset, refused[_i].value, refused[_i].size);
    expect_refused(RAM_SIZE, refused[_i].part);
}
END_TEST

START_TEST(too_little_memory)
{
    fresh();
    expect_refused(16 * MIB, "unpacks itself up to 0x1800001, outside the memory of 16M");
}
END_TEST

START_TEST(files_that_end_early)
{
    for (size_t size = 0; size <= PAYLOAD; size++) {
        fresh();
        config.kernel_size = size;
        expect_refused(RAM_SIZE, "bzImage: ");
    }
}
END_TEST

START_TEST(a_command_line_that_is_too_long)
{
    char text[2049];

    fresh();
    memset(text, 'x', sizeof text - 1);
    text[2048] = '\0';
    config.append = text;
    expect_refused(RAM_SIZE, "--append has 2048 characters; this kernel takes 2047");
    config.append = text + 1;
    expect_loaded();
    unload();
    put(0x238, 0xffffffff, 4); /* and a kernel that takes all there is */
    config.append = text;
    expect_loaded();
    unload();
}
END_TEST

START_TEST(options_of_other_formats)
{
    fresh();
    config.n_modules = 1;
    config.module[0].path = "module";
    expect_refused(RAM_SIZE, "--module needs a multiboot kernel");
    fresh();
    config.holes = HOLES_PATCH;
    expect_refused(RAM_SIZE, "--holes patch cannot see the code of a bzImage");
    fresh();
    config.initrd = "/nowhere/initrd";
    expect_refused(RAM_SIZE, "/nowhere/initrd: cannot be opened");
}
END_TEST

/* Whatever the header says: it loads, or is refused in one line. */
START_TEST(damaged_headers)
{
    struct chance chance = chance_of_seed((uint64_t)_i);

    fresh();
    for (unsigned n = 1 + chance_below(&chance, 6); n > 0; n--)
        put(0x1f1 + chance_below(&chance, 0x78), hostile_value(&chance), 1u << chance_below(&chance, 3));
    config.append = "quiet";
    if (load(RAM_SIZE))
        ck_assert_uint_eq(read_param(0x1e8, 1), 4);
    else
        ck_assert_msg(strncmp(error, "bzImage: ", 9) == 0 && strchr(error, '\n') == NULL, "%s", error);
    unload();
}
END_TEST

/* ---- BIOS ---------------------------------------------------------------------------------------------- */

static uint8_t bios[128 << 10];

static void fresh_bios(void)
{
    memset(bios, 0x90, sizeof bios);
    memcpy(bios + sizeof bios - 16, "\xea\x5b\xe0\x00\xf0", 5);
    config = (struct loader_config){
        .is_bios = true, .kernel_path = "bios", .kernel_bytes = bios, .kernel_size = sizeof bios};
}

START_TEST(a_bios_ends_where_the_address_space_does)
{
    uint8_t bytes[5];

    fresh_bios();
    kernel = kernel_open(&config, error, sizeof error);
    ck_assert_msg(kernel != NULL, "%s", error);
    ck_assert(kernel_is_firmware(kernel));
    ck_assert_uint_eq(kernel_rom_size(kernel), sizeof bios);
    file_free(&kernel->vga_rom); /* there is no board to give it to */
    memset(&vm, 0, sizeof vm);
    ck_assert(memory_create(&vm.memory, RAM_SIZE, sizeof bios, error, sizeof error));
    vcpu_reset(&vm.vcpu);
    ck_assert(kernel_load(kernel, &config, &vm, error, sizeof error));
    ck_assert(memory_read(&vm.memory, 0xfffffff0, bytes, sizeof bytes));
    ck_assert_mem_eq(bytes, "\xea\x5b\xe0\x00\xf0", 5);
    ck_assert_uint_eq(vm.vcpu.segment[SEG_CS].base + vm.vcpu.eip, 0xfffffff0);
    memory_set_shadow_ram(&vm.memory, MEMORY_BIOS_FIRST, 0x40000, 0);
    ck_assert(memory_read(&vm.memory, 0xffff0, bytes, sizeof bytes));
    ck_assert_mem_eq(bytes, "\xea\x5b\xe0\x00\xf0", 5);
    unload();
}
END_TEST

START_TEST(what_is_no_bios)
{
    fresh_bios();
    config.kernel_size -= 512;
    expect_refused(RAM_SIZE, "not a BIOS");
    fresh_bios();
    config.kernel_size = 0;
    expect_refused(RAM_SIZE, "the file is empty");
    fresh_bios();
    config.holes = HOLES_PATCH;
    expect_refused(RAM_SIZE, "--holes patch cannot");
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("load_linux");
    TCase *linux_case = tcase_create("linux"), *bios_case = tcase_create("bios");
    SRunner *runner = srunner_create(suite);
    int failed;

    tcase_add_test(linux_case, the_kernel_lies_at_1_mib_and_starts_flat);
    tcase_add_test(linux_case, the_boot_parameters_say_what_there_is);
    tcase_add_test(linux_case, the_memory_map_is_a_pcs);
    tcase_add_test(linux_case, the_ram_disk_lies_as_high_as_it_may);
    tcase_add_test(linux_case, the_ram_disk_stays_clear_of_the_kernel);
    tcase_add_test(linux_case, raw_files_and_parameters_avoid_each_other);
    tcase_add_test(linux_case, old_kernels_do_without_the_newer_fields);
    tcase_add_test(linux_case, a_hostile_header_length_is_cut);
    tcase_add_loop_test(linux_case, headers_that_cannot_be, 0, sizeof refused / sizeof refused[0]);
    tcase_add_test(linux_case, too_little_memory);
    tcase_add_test(linux_case, files_that_end_early);
    tcase_add_test(linux_case, a_command_line_that_is_too_long);
    tcase_add_test(linux_case, options_of_other_formats);
    tcase_add_loop_test(linux_case, damaged_headers, 0, 500);
    suite_add_tcase(suite, linux_case);
    tcase_add_test(bios_case, a_bios_ends_where_the_address_space_does);
    tcase_add_test(bios_case, what_is_no_bios);
    suite_add_tcase(suite, bios_case);
    srunner_run_all(runner, CK_ENV);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
