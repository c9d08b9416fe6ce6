/* monitor/loader: ELF and multiboot kernels into memory, what they find at their start, and every way to
 * fail. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "elf_builder.h"
#include "monitor/bootinfo.h"
#include "monitor/loader.h"
#include "monitor/patch.h"
#include "monitor/symbols.h"

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

static void expect_loaded(const struct kernel_image *kernel)
{
    ck_assert_msg(kernel != NULL, "not loaded: %s", error);
}

static uint32_t read32(uint64_t gpa)
{
    uint32_t value = 0;

    ck_assert(memory_read(&vm.memory, gpa, &value, sizeof value));
    return value;
}

static void expect_string(uint64_t gpa, const char *text)
{
    char found[256] = "";

    ck_assert_uint_lt(strlen(text), sizeof found);
    ck_assert(memory_read(&vm.memory, gpa, found, strlen(text) + 1));
    ck_assert_str_eq(found, text);
}

/* One line that begins with the file's name and holds `part`. */
static void expect_error(const char *name, const char *part)
{
    ck_assert_msg(strncmp(error, name, strlen(name)) == 0 && strstr(error, part) != NULL,
                  "got \"%s\", want \"%s: ... %s ...\"", error, name, part);
    ck_assert_ptr_null(strchr(error, '\n'));
}

static void expect_no_kernel(const char *part)
{
    ck_assert_msg(load(RAM_SIZE) == NULL, "was loaded; want \"%s\"", part);
    expect_error("kernel.elf: ", part);
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

/* ---- what works ---------------------------------------------------------------------------------------- */

START_TEST(segments_by_physical_address)
{
    uint8_t found[128], zeros[64] = {0};
    struct kernel_image *kernel;

    fresh(0x100004);
    builder_add_segment(&builder, 0x100000, 0x80100000, code, sizeof code, 128);
    builder_add_segment(&builder, 0x7c00, 0x7c00, code, 4, 4);
    builder_add_segment(&builder, 0x200000, 0x80200000, "", 0, 0x100000); /* bss alone */
    builder_segment(&builder, 2)->p_offset = 0xffffffff;                  /* which nothing reads */
    kernel = load(RAM_SIZE);
    expect_loaded(kernel);
    ck_assert(memory_read(&vm.memory, 0x100000, found, sizeof found));
    ck_assert_mem_eq(found, code, sizeof code);
    ck_assert_mem_eq(found + 64, zeros, 64);
    ck_assert(memory_read(&vm.memory, 0x7c00, found, 4));
    ck_assert_mem_eq(found, code, 4);
    ck_assert_uint_eq(vm.vcpu.eip, 0x100004); /* already physical, although no virtual address is */
    ck_assert_uint_eq(kernel_rom_size(kernel), 0);
    unload(kernel);
}
END_TEST

START_TEST(bss_is_zeroed)
{
    struct kernel_image *kernel = NULL;
    uint8_t dirt[0x20000];

    memset(dirt, 0xee, sizeof dirt);
    fresh(0x100000);
    builder_add_segment(&builder, 0x100000, 0x100000, code, sizeof code, sizeof dirt);
    kernel = open_kernel();
    expect_loaded(kernel);
    memset(&vm, 0, sizeof vm);
    ck_assert(memory_create(&vm.memory, RAM_SIZE, 0, error, sizeof error));
    ck_assert(memory_write(&vm.memory, 0x100000, dirt, sizeof dirt));
    ck_assert(kernel_load(kernel, &config, &vm, error, sizeof error));
    for (uint32_t i = sizeof code; i < sizeof dirt; i += 4)
        ck_assert_uint_eq(read32(0x100000 + i), 0);
    unload(kernel);
}
END_TEST

START_TEST(virtual_entry_is_translated)
{
    struct kernel_image *kernel;

    fresh(0xc0100010);
    builder_add_segment(&builder, 0x100000, 0xc0100000, code, sizeof code, 64);
    kernel = load(RAM_SIZE);
    expect_loaded(kernel);
    ck_assert_uint_eq(vm.vcpu.eip, 0x100010);
    unload(kernel);
}
END_TEST

START_TEST(start_state_without_multiboot)
{
    struct kernel_image *kernel;
    const struct vcpu *vcpu = &vm.vcpu;

    fresh(0x100000);
    builder_add_segment(&builder, 0x100000, 0x100000, code, sizeof code, 64);
    kernel = load(RAM_SIZE);
    expect_loaded(kernel);
    ck_assert_uint_eq(vcpu->segment[SEG_CS].selector, 0x08);
    for (unsigned i = 0; i < SEG_COUNT; i++) {
        ck_assert_uint_eq(vcpu->segment[i].base, 0);
        ck_assert_uint_eq(vcpu->segment[i].limit, 0xffffffff);
        if (i != SEG_CS)
            ck_assert_uint_eq(vcpu->segment[i].selector, 0x10);
    }
    ck_assert_uint_eq(vcpu->cr0 & (CR0_PE | CR0_PG), CR0_PE);
    ck_assert_uint_eq(vcpu->eflags, EFLAGS_FIXED);
    for (unsigned i = 0; i < GPR_COUNT; i++) {
        if (i != ESP)
            ck_assert_uint_eq(vcpu->gpr[i], 0);
    }
    /* The stack and the GDT are in conventional memory; the descriptors agree with the hidden parts. */
    ck_assert_uint_ge(vcpu->gpr[ESP], 0x9000 + 4096);
    ck_assert_uint_lt(vcpu->gpr[ESP], 0x9fc00);
    ck_assert_uint_eq(vcpu->gdtr.limit, 31);
    ck_assert_uint_eq(read32(vcpu->gdtr.base), 0);
    ck_assert_uint_eq(read32(vcpu->gdtr.base + 0x08), 0x0000ffff);
    ck_assert_uint_eq(read32(vcpu->gdtr.base + 0x0c), 0x00cf9b00);
    ck_assert_uint_eq(read32(vcpu->gdtr.base + 0x14), 0x00cf9300);
    ck_assert_uint_eq(read32(vcpu->gdtr.base + 0x1c), 0x00cf9300);
    unload(kernel);
}
END_TEST

START_TEST(rom_below_4_gib)
{
    struct kernel_image *kernel;
    uint8_t found[4];

    fresh(0xfff0001c);
    builder_add_segment(&builder, 0xfff00000, 0xfff00000, code, sizeof code, sizeof code);
    builder_add_segment(&builder, 0xfffffff0, 0xfff0, code, 16, 16);
    kernel = load(RAM_SIZE);
    expect_loaded(kernel);
    ck_assert_uint_eq(kernel_rom_size(kernel), 0x100000);
    ck_assert_uint_eq(vm.vcpu.eip, 0xfff0001c);
    ck_assert(memory_read(&vm.memory, 0xfffffff0, found, 4));
    ck_assert_mem_eq(found, code, 4);
    unload(kernel);
}
END_TEST

START_TEST(boot_block_avoids_the_kernel)
{
    struct kernel_image *kernel;

    fresh(0x9000);
    builder_add_segment(&builder, 0x9000, 0x9000, code, sizeof code, 0x9fc00 - 0x9000);
    builder_add_segment(&builder, 0x100000, 0x100000, code, sizeof code, 0x2001);
    kernel = load(RAM_SIZE);
    expect_loaded(kernel);
    ck_assert_uint_ge(vm.vcpu.gdtr.base, 0x103000);
    ck_assert_uint_ge(vm.vcpu.gpr[ESP], 0x103000);
    ck_assert_mem_eq(vm.memory.hva + 0x9000, code, sizeof code);
    unload(kernel);
}
END_TEST

START_TEST(symbols_of_the_kernel)
{
    static const struct builder_symbol symbols[] = {
        {"kernel_main", 0x80100000, 0x40, ELF32_ST_INFO(STB_GLOBAL, STT_FUNC), 1}};
    struct kernel_image *kernel;
    uint32_t offset;

    fresh(0x100000);
    builder_add_segment(&builder, 0x100000, 0x80100000, code, sizeof code, 64);
    builder_add_section(&builder,
                        (Elf32_Shdr){.sh_type = SHT_PROGBITS, .sh_addr = 0x80100000, .sh_size = 64});
    builder_add_symbols(&builder, symbols, 1);
    kernel = load(RAM_SIZE);
    expect_loaded(kernel);
    ck_assert_str_eq(symbols_find(kernel_symbols(kernel), 0x80100004, &offset), "kernel_main");
    ck_assert_uint_eq(offset, 4);
    unload(kernel);
}
END_TEST

/* popf; jmp to a second popf at 0x10; between them, bytes that look like one and are not reached. */
static const uint8_t holes[32] = {
    0x9d, 0xeb, 0x0d, 0x9d, [0x10] = 0x9d, [0x11] = 0xf4, [0x12] = 0xeb, [0x13] = 0xfe};

START_TEST(holes_are_patched)
{
    struct kernel_image *kernel;
    uint8_t original = 0;

    fresh(0x80100000);
    builder_add_segment(&builder, 0x100000, 0x80100000, holes, sizeof holes, sizeof holes);
    builder_add_section(&builder, (Elf32_Shdr){.sh_type = SHT_PROGBITS,
                                               .sh_flags = SHF_ALLOC | SHF_EXECINSTR,
                                               .sh_addr = 0x80100000,
                                               .sh_offset = builder_segment(&builder, 0)->p_offset,
                                               .sh_size = sizeof holes});
    builder_add_symbols(&builder, NULL, 0);
    config.holes = HOLES_PATCH;
    kernel = load(RAM_SIZE);
    expect_loaded(kernel);
    ck_assert_ptr_nonnull(vm.patches);
    ck_assert_uint_eq(patch_count(vm.patches), 2);
    ck_assert(patch_find(vm.patches, &vm.memory, 0x100000, &original));
    ck_assert_uint_eq(original, 0x9d);
    ck_assert(patch_find(vm.patches, &vm.memory, 0x100010, &original));
    ck_assert_uint_eq(vm.memory.hva[0x100003], 0x9d);
    ck_assert_uint_eq(vm.memory.hva[0x100011], 0xf4); /* the kernel's own HLT */
    ck_assert(!patch_find(vm.patches, &vm.memory, 0x100011, &original));
    patch_free(vm.patches);
    unload(kernel);
}
END_TEST

/* Nothing aligns the tables of a hostile file: read in place they would be misaligned accesses. */
START_TEST(tables_at_odd_offsets)
{
    struct kernel_image *kernel;

    fresh(0x100000);
    builder_add_segment(&builder, 0x100000, 0x100000, holes, sizeof holes, sizeof holes);
    builder_add_section(&builder, (Elf32_Shdr){.sh_type = SHT_PROGBITS,
                                               .sh_flags = SHF_ALLOC | SHF_EXECINSTR,
                                               .sh_addr = 0x100000,
                                               .sh_offset = builder_segment(&builder, 0)->p_offset,
                                               .sh_size = sizeof holes});
    builder_add_symbols(&builder, NULL, 0);
    memmove(builder.bytes + BUILDER_PHOFF + 1, builder.bytes + BUILDER_PHOFF, sizeof(Elf32_Phdr));
    memmove(builder.bytes + BUILDER_SHOFF + 3, builder.bytes + BUILDER_SHOFF, 8 * sizeof(Elf32_Shdr));
    builder_header(&builder)->e_phoff += 1;
    builder_header(&builder)->e_shoff += 3;
    config.holes = HOLES_PATCH;
    kernel = load(RAM_SIZE);
    expect_loaded(kernel);
    ck_assert_uint_eq(vm.vcpu.eip, 0x100000);
    ck_assert_ptr_nonnull(vm.patches);
    ck_assert_uint_eq(patch_count(vm.patches), 2);
    patch_free(vm.patches);
    unload(kernel);
}
END_TEST

START_TEST(holes_are_left_alone)
{
    struct kernel_image *kernel;

    fresh(0x100000);
    builder_add_segment(&builder, 0x100000, 0x100000, holes, sizeof holes, sizeof holes);
    kernel = load(RAM_SIZE);
    expect_loaded(kernel);
    ck_assert_ptr_null(vm.patches);
    ck_assert_mem_eq(vm.memory.hva + 0x100000, holes, sizeof holes);
    unload(kernel);
}
END_TEST

/* ---- multiboot ----------------------------------------------------------------------------------------- */

static struct multiboot_info read_info(void)
{
    struct multiboot_info info;

    ck_assert_uint_eq(vm.vcpu.gpr[EAX], MULTIBOOT_LOADER_MAGIC);
    ck_assert(memory_read(&vm.memory, vm.vcpu.gpr[EBX], &info, sizeof info));
    return info;
}

START_TEST(multiboot_information)
{
    struct kernel_image *kernel;
    struct multiboot_info info;

    fresh_multiboot(MULTIBOOT_PAGE_ALIGN | MULTIBOOT_MEMORY_INFO | MULTIBOOT_VIDEO_MODE);
    config.append = "console=ttyS0 quiet";
    kernel = load(RAM_SIZE);
    expect_loaded(kernel);
    ck_assert_uint_eq(vm.vcpu.eip, 0x100020);
    info = read_info();
    ck_assert_uint_eq(info.flags, 0x124d);
    ck_assert_uint_eq(info.mem_lower, 639);
    ck_assert_uint_eq(info.mem_upper, 15 * 1024);
    expect_string(info.cmdline, "kernel.elf console=ttyS0 quiet");
    expect_string(info.boot_loader_name, "ring3");
    ck_assert_uint_eq(info.mods_count, 0);
    ck_assert_uint_eq(info.framebuffer_addr_low, 0xb8000);
    ck_assert_uint_eq(info.framebuffer_type, 2);
    unload(kernel);
}
END_TEST

START_TEST(multiboot_without_append)
{
    struct kernel_image *kernel;

    fresh_multiboot(0);
    kernel = load(RAM_SIZE);
    expect_loaded(kernel);
    expect_string(read_info().cmdline, "kernel.elf");
    unload(kernel);
}
END_TEST

START_TEST(multiboot_memory_map)
{
    static const struct {
        uint64_t first, end;
        uint32_t type;
    } expected[] = {
        {0, 0x9fc00, MULTIBOOT_MEMORY_AVAILABLE},
        {0x9fc00, 0xa0000, MULTIBOOT_MEMORY_RESERVED},
        {0xf0000, 0x100000, MULTIBOOT_MEMORY_RESERVED},
        {0x100000, RAM_SIZE, MULTIBOOT_MEMORY_AVAILABLE},
        {0xffff0000, 0x100000000, MULTIBOOT_MEMORY_RESERVED},
    };
    struct kernel_image *kernel;
    struct multiboot_info info;
    uint32_t at;

    fresh_multiboot(0);
    builder_add_segment(&builder, 0xffffff00, 0xffffff00, code, sizeof code, sizeof code);
    kernel = load(RAM_SIZE);
    expect_loaded(kernel);
    info = read_info();
    at = info.mmap_addr;
    for (size_t i = 0; i < COUNT(expected); i++) {
        struct multiboot_mmap entry;

        ck_assert_uint_lt(at, info.mmap_addr + info.mmap_length);
        ck_assert(memory_read(&vm.memory, at, &entry, sizeof entry));
        ck_assert_uint_eq(entry.size, 20);
        ck_assert_uint_eq(entry.addr_low, expected[i].first);
        ck_assert_uint_eq(entry.addr_high, 0);
        ck_assert_uint_eq(entry.len_low, expected[i].end - expected[i].first);
        ck_assert_uint_eq(entry.len_high, 0);
        ck_assert_uint_eq(entry.type, expected[i].type);
        at += entry.size + 4;
    }
    ck_assert_uint_eq(at, info.mmap_addr + info.mmap_length);
    unload(kernel);
}
END_TEST

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

START_TEST(multiboot_modules)
{
    struct kernel_image *kernel;
    struct multiboot_info info;
    struct multiboot_module module[3];
    char expected[600];

    fresh_multiboot(MULTIBOOT_PAGE_ALIGN);
    builder_segment(&builder, 0)->p_memsz = 0x1001; /* the kernel ends just above a page */
    config.n_modules = 3;
    config.module[0] =
        (struct loader_module){.path = write_file("one", "first module", 12), .command_line = "a b"};
    config.module[1] = (struct loader_module){.path = write_file("two", "", 0)};
    config.module[2] = (struct loader_module){.path = write_file("three", "third", 5)};
    kernel = load(RAM_SIZE);
    expect_loaded(kernel);
    info = read_info();
    ck_assert_uint_eq(info.mods_count, 3);
    ck_assert(memory_read(&vm.memory, info.mods_addr, module, sizeof module));
    ck_assert_uint_eq(module[0].mod_start, 0x102000);
    ck_assert_uint_eq(module[0].mod_end, 0x10200c);
    expect_string(module[0].mod_start, "first module");
    snprintf(expected, sizeof expected, "%s a b", config.module[0].path);
    expect_string(module[0].string, expected);
    ck_assert_uint_eq(module[1].mod_end, module[1].mod_start);
    expect_string(module[1].string, config.module[1].path);
    ck_assert_uint_eq(module[2].mod_start % PAGE_SIZE, 0);
    ck_assert_uint_ge(module[2].mod_start, module[0].mod_end);
    expect_string(module[2].mod_start, "third");
    unload(kernel);
}
END_TEST

START_TEST(multiboot_long_command_line)
{
    struct kernel_image *kernel;
    static char line[700 * 1024];

    /* Too long for conventional memory: it all goes above the kernel. */
    memset(line, 'x', sizeof line - 1);
    fresh_multiboot(0);
    config.append = line;
    kernel = load(RAM_SIZE);
    expect_loaded(kernel);
    ck_assert_uint_ge(vm.vcpu.gpr[EBX], 0x101000);
    expect_string(read_info().cmdline + sizeof "kernel.elf" - 1 + sizeof line - 1, "x");
    unload(kernel);
}
END_TEST

START_TEST(flat_file)
{
    struct kernel_image *kernel;
    uint32_t *header = fresh_flat();

    header[6] = 0x200200; /* bss end */
    kernel = load(RAM_SIZE);
    expect_loaded(kernel);
    ck_assert_uint_eq(vm.vcpu.eip, 0x200040);
    ck_assert_mem_eq(vm.memory.hva + 0x200000, builder.bytes, 256);
    ck_assert_uint_eq(read32(0x200100), 0);
    unload(kernel);
}
END_TEST

START_TEST(flat_file_in_part)
{
    struct kernel_image *kernel;
    uint32_t *header = fresh_flat();

    header[4] = 0x200008; /* loading starts 8 bytes before the header, 8 into the file */
    header[5] = 0x200088; /* and ends here */
    kernel = load(RAM_SIZE);
    expect_loaded(kernel);
    ck_assert_mem_eq(vm.memory.hva + 0x200008, builder.bytes + 8, 0x80);
    ck_assert_uint_eq(read32(0x200088), 0);
    unload(kernel);
}
END_TEST

START_TEST(addresses_win_over_elf_headers)
{
    struct kernel_image *kernel;
    uint32_t *header, offset;

    fresh_multiboot(0);
    builder.bytes[EI_CLASS] = ELFCLASS64; /* not even looked at */
    offset = builder_segment(&builder, 0)->p_offset;
    header = put_multiboot(offset, MULTIBOOT_ADDRESSES);
    header[3] = header[4] = 0x300000;
    header[5] = 0x300040;
    header[6] = 0;
    header[7] = 0x300030;
    kernel = load(RAM_SIZE);
    expect_loaded(kernel);
    ck_assert_uint_eq(vm.vcpu.eip, 0x300030);
    ck_assert_mem_eq(vm.memory.hva + 0x300000, builder.bytes + offset, 0x40);
    unload(kernel);
}
END_TEST

START_TEST(header_beyond_8192_bytes_is_none)
{
    struct kernel_image *kernel;

    fresh(0x100000);
    builder.size = 8192 - 8;
    builder_add_segment(&builder, 0x100000, 0x100000, code, sizeof code, 64);
    put_multiboot(8192 - 8, 0);
    kernel = load(RAM_SIZE);
    expect_loaded(kernel);
    ck_assert_uint_eq(vm.vcpu.gpr[EAX], 0);
    unload(kernel);
}
END_TEST

START_TEST(raw_files_at_addresses)
{
    struct kernel_image *kernel;

    fresh(0x100000);
    builder_add_segment(&builder, 0x100000, 0x100000, code, sizeof code, 64);
    config.n_blobs = 2;
    config.blob[0] = (struct loader_blob){.path = write_file("patch", "PATCH", 5), .gpa = 0x100010};
    config.blob[1] = (struct loader_blob){.path = write_file("rom", "ROM", 3), .gpa = 0xfffe0000};
    kernel = load(RAM_SIZE);
    expect_loaded(kernel);
    ck_assert_uint_eq(kernel_rom_size(kernel), 0x20000);
    ck_assert_mem_eq(vm.memory.hva + 0x100010, "PATCH", 5);
    ck_assert_uint_eq(read32(0xfffe0000), 0x4d4f52);
    unload(kernel);
}
END_TEST

/* ---- what does not: files ------------------------------------------------------------------------------ */

START_TEST(bad_files)
{
    char fifo[512];

    fresh(0);
    config.kernel_bytes = NULL;
    config.kernel_path = "/nonexistent/kernel";
    ck_assert_ptr_null(open_kernel());
    expect_error("/nonexistent/kernel: ", "cannot be opened: No such file or directory");
    config.kernel_path = directory;
    ck_assert_ptr_null(open_kernel());
    expect_error(directory, "is a directory");
    config.kernel_path = write_file("empty", "", 0);
    ck_assert_ptr_null(open_kernel());
    expect_error(config.kernel_path, "the file is empty");
    snprintf(fifo, sizeof fifo, "%s/fifo", directory);
    ck_assert_int_eq(mkfifo(fifo, 0600), 0);
    config.kernel_path = fifo;
    ck_assert_ptr_null(open_kernel());
    expect_error(fifo, "is not a regular file");
    config.kernel_path = "/dev/null";
    ck_assert_ptr_null(open_kernel());
    expect_error("/dev/null: ", "is not a regular file");
    config.kernel_path = write_file("two\nlines", "", 0);
    ck_assert_ptr_null(open_kernel());
    expect_error(directory, "two?lines: the file is empty");
}
END_TEST

START_TEST(unreadable_file)
{
    fresh(0);
    config.kernel_bytes = NULL;
    config.kernel_path = write_file("secret", "x", 1);
    ck_assert_int_eq(chmod(config.kernel_path, 0), 0);
    if (geteuid() == 0)
        return; /* root reads everything: nothing to see */
    ck_assert_ptr_null(open_kernel());
    expect_error(config.kernel_path, "cannot be opened: Permission denied");
}
END_TEST

static const struct {
    const char *bytes;
    size_t size, at;
    const char *part;
} mistaken[] = {
    {"hello, world", 12, 0, "not a kernel: neither an ELF file nor a multiboot 1 header"},
    {"\x1f\x8b", 2, 0, "compressed with gzip"},
    {"\xfd"
     "7zXZ",
     5, 0, "compressed with xz"},
    {"\x28\xb5\x2f\xfd", 4, 0, "compressed with zstd"},
    {"MZ", 2, 0, "a DOS or Windows program"},
    {"#!/bin/sh", 9, 0, "a script"},
    {"\x55\xaa", 2, 510, "a boot sector"},
    {"\177EL", 3, 0, "not a kernel"},
};

START_TEST(not_a_kernel)
{
    fresh(0);
    memset(builder.bytes, 0, sizeof builder.bytes);
    memcpy(builder.bytes + mistaken[_i].at, mistaken[_i].bytes, mistaken[_i].size);
    builder.size = mistaken[_i].at + mistaken[_i].size;
    expect_no_kernel(mistaken[_i].part);
}
END_TEST

START_TEST(bad_companions)
{
    fresh_multiboot(0);
    config.n_modules = 1;
    config.module[0].path = "/nonexistent/module";
    ck_assert_ptr_null(load(RAM_SIZE));
    expect_error("/nonexistent/module: ", "cannot be opened");
    config.module[0].path = directory;
    ck_assert_ptr_null(load(RAM_SIZE));
    expect_error(directory, "is a directory");
    config.module[0].path = write_file("big", builder.bytes, BUILDER_MAX);
    builder_segment(&builder, 0)->p_memsz = (15u << 20) - 8 * 4096; /* 16 pages do not fit above it */
    ck_assert_ptr_null(load(RAM_SIZE));
    expect_error(config.module[0].path, "no room for this module of 65536 bytes above the kernel in 16M");

    fresh_multiboot(0);
    config.n_blobs = 1;
    config.blob[0] = (struct loader_blob){.path = "/nonexistent/blob", .gpa = 0};
    ck_assert_ptr_null(load(RAM_SIZE));
    expect_error("/nonexistent/blob: ", "cannot be opened");
    config.blob[0] = (struct loader_blob){.path = write_file("blob", "12", 2), .gpa = 0xffffffff};
    ck_assert_ptr_null(load(RAM_SIZE));
    expect_error(config.blob[0].path, "past 4 GiB");
    config.blob[0].gpa = UINT64_MAX;
    ck_assert_ptr_null(load(RAM_SIZE));
    expect_error(config.blob[0].path, "past 4 GiB");
    config.blob[0].gpa = RAM_SIZE;
    ck_assert_ptr_null(load(RAM_SIZE));
    expect_error(config.blob[0].path,
                 "--load at 0x01000000 of 0x2 bytes is outside the memory of 16M: --memory 17M");
}
END_TEST

START_TEST(multiboot_options_without_multiboot)
{
    fresh(0x100000);
    builder_add_segment(&builder, 0x100000, 0x100000, code, sizeof code, 64);
    config.append = "quiet";
    expect_no_kernel("--append needs a multiboot kernel");
    config.append = NULL;
    config.n_modules = 1;
    config.module[0].path = "/dev/null";
    expect_no_kernel("--module needs a multiboot kernel");
}
END_TEST

/* ---- what does not: ELF headers ------------------------------------------------------------------------ */

static void cut_ident(void)
{
    builder.size = 10;
}
static void cut_header(void)
{
    builder.size = 40;
}
static void class_64(void)
{
    builder.bytes[EI_CLASS] = ELFCLASS64;
}
static void class_none(void)
{
    builder.bytes[EI_CLASS] = 7;
}
static void big_endian(void)
{
    builder.bytes[EI_DATA] = ELFDATA2MSB;
}
static void other_machine(void)
{
    builder_header(&builder)->e_machine = EM_ARM;
}
static void other_version(void)
{
    builder_header(&builder)->e_version = 9;
}
static void relocatable(void)
{
    builder_header(&builder)->e_type = ET_REL;
}
static void shared(void)
{
    builder_header(&builder)->e_type = ET_DYN;
}
static void core(void)
{
    builder_header(&builder)->e_type = ET_CORE;
}
static void strange_type(void)
{
    builder_header(&builder)->e_type = 0xfe00;
}
static void no_program_headers(void)
{
    builder_header(&builder)->e_phnum = 0;
}
static void program_header_size(void)
{
    builder_header(&builder)->e_phentsize = 33;
}
static void program_headers_outside(void)
{
    builder_header(&builder)->e_phoff = 0xffffffe0;
}
static void program_headers_inside_header(void)
{
    builder_header(&builder)->e_phoff = 4;
}
static void too_many_program_headers(void)
{
    builder_header(&builder)->e_phnum = 0xffff;
}
static void nothing_to_load(void)
{
    builder_segment(&builder, 0)->p_type = PT_NOTE;
}
static void nothing_in_memory(void)
{
    builder_segment(&builder, 0)->p_memsz = builder_segment(&builder, 0)->p_filesz = 0;
}
static void interpreter(void)
{
    builder_add_segment(&builder, 0x200000, 0x200000, "/lib/ld.so", 11, 11);
    builder_segment(&builder, 1)->p_type = PT_INTERP;
}
static void more_in_file(void)
{
    builder_segment(&builder, 0)->p_memsz = 8;
}
static void segment_outside_file(void)
{
    builder_segment(&builder, 0)->p_offset = 0xfffffff0;
}
static void segment_cut(void)
{
    builder.size -= 1;
}
static void segment_wraps(void)
{
    builder_segment(&builder, 0)->p_memsz = 0xfff00001;
}
static void segments_overlap(void)
{
    builder_add_segment(&builder, 0x10003f, 0x400000, code, 16, 16);
}
static void segment_in_video(void)
{
    builder_add_segment(&builder, 0x9fff0, 0x9fff0, code, 32, 32);
}
static void segment_in_bios(void)
{
    builder_add_segment(&builder, 0xf0000, 0xf0000, code, 32, 32);
}
static void segment_beyond_ram(void)
{
    builder_add_segment(&builder, 0x2000000, 0x2000000, code, 16, 0x100001);
}
static void segment_beyond_all(void)
{
    builder_add_segment(&builder, 0xc0100000, 0xc0100000, code, 16, 16);
}
static void entry_outside(void)
{
    builder_header(&builder)->e_entry = 0x100040;
}
static void many_segments(void)
{
    for (unsigned i = 1; i <= IMAGE_MAX_SEGMENTS; i++)
        *builder_segment(&builder, i) =
            (Elf32_Phdr){.p_type = PT_LOAD, .p_paddr = 0x200000 + i * 16, .p_memsz = 16};
    builder_header(&builder)->e_phnum = IMAGE_MAX_SEGMENTS + 1;
}
static void kernel_fills_memory(void)
{
    builder_segment(&builder, 0)->p_memsz = 15u << 20;
    builder_add_segment(&builder, 0x9000, 0x9000, code, 16, 0xa0000 - 0x9000);
}

static const struct {
    void (*damage)(void);
    const char *part;
} damages[] = {
    {cut_ident, "truncated: 10 bytes, and an ELF header has 52"},
    {cut_header, "truncated: 40 bytes"},
    {class_64, "a 64-bit ELF file"},
    {class_none, "unknown ELF class 7"},
    {big_endian, "a big-endian ELF file"},
    {other_machine, "an ELF file for another machine (e_machine 40)"},
    {other_version, "unknown ELF version"},
    {relocatable, "a relocatable object (ET_REL)"},
    {shared, "position-independent program (ET_DYN)"},
    {core, "a core dump"},
    {strange_type, "not an executable"},
    {no_program_headers, "no program headers"},
    {program_header_size, "program headers of 33 bytes: 32 expected"},
    {program_headers_outside, "the program header table (0xffffffe0, 1 entries) is outside the file"},
    {program_headers_inside_header, "the program header table (0x4, 1 entries)"},
    {too_many_program_headers, "the program header table (0x40, 65535 entries) is outside the file"},
    {nothing_to_load, "no loadable segments"},
    {nothing_in_memory, "no loadable segments"},
    {interpreter, "it names an interpreter"},
    {more_in_file, "segment 0 has more bytes in the file (0x40) than in memory (0x8)"},
    {segment_outside_file, "truncated: segment 0 (0x40 bytes at 0xfffffff0) is outside the file"},
    {segment_cut, "truncated: segment 0"},
    {segment_wraps, "runs past 4 GiB"},
    {segments_overlap, "segments overlap: 0x00100000 of 0x40 bytes and 0x0010003f of 0x10 bytes"},
    {segment_in_video, "runs into the video and BIOS area"},
    {segment_in_bios, "runs into the video and BIOS area"},
    {segment_beyond_ram,
     "segment at 0x02000000 of 0x100001 bytes is outside the memory of 16M: --memory 34M"},
    {segment_beyond_all, "segment at physical address 0xc0100000 is outside any memory a machine can have"},
    {entry_outside, "its entry point 0x00100040 is in none of its segments"},
    {many_segments, "more than 64 loadable segments"},
    {kernel_fills_memory, "no room for 0x1020 bytes of boot information"},
};

START_TEST(damaged_elf)
{
    fresh(0x100000);
    builder_add_segment(&builder, 0x100000, 0x100000, code, sizeof code, 64);
    damages[_i].damage();
    expect_no_kernel(damages[_i].part);
}
END_TEST

/* ---- what does not: multiboot headers ------------------------------------------------------------------ */

START_TEST(bad_multiboot)
{
    uint32_t *header;

    fresh_multiboot(0x0008);
    expect_no_kernel("requires features that ring3 does not have (flags 0x8)");
    fresh_flat();
    put_multiboot(16, 0);
    expect_no_kernel("has no load addresses (flag 16), and it is not an ELF file");
    header = fresh_flat();
    header[2]++;
    expect_no_kernel("not a kernel");
    fresh_flat();
    builder.size = 40; /* the addresses are cut off */
    expect_no_kernel("not a kernel");
    header = fresh_flat();
    header[4] = 0x200011; /* loading would start after the header */
    expect_no_kernel("multiboot load address 0x00200011 does not fit");
    header = fresh_flat();
    header[4] = 0x1fffff; /* or before the file */
    expect_no_kernel("multiboot load address 0x001fffff does not fit");
    header = fresh_flat();
    header[5] = 0x200101;
    expect_no_kernel("multiboot load end 0x00200101 is not within the file");
    header = fresh_flat();
    header[5] = 0x200000;
    expect_no_kernel("multiboot load end 0x00200000 is not within the file");
    header = fresh_flat();
    header[6] = 0x2000ff;
    expect_no_kernel("multiboot bss end 0x002000ff is before the end");
    header = fresh_flat();
    header[6] = 0x1000;
    expect_no_kernel("multiboot bss end 0x00001000 is before the end");
    header = fresh_flat();
    header[7] = 0x200100;
    expect_no_kernel("entry point 0x00200100 is in none");
    header = fresh_flat();
    header[7] = 0x1fffff;
    expect_no_kernel("entry point 0x001fffff is in none");
}
END_TEST

/* Hostile words everywhere in the headers, and random damage: loaded or one line, never anything else. */
static void try_load(void)
{
    struct kernel_image *kernel;

    error[0] = '\0';
    kernel = load(UINT64_C(4) << 20);
    if (kernel != NULL) {
        unload(kernel);
    } else {
        ck_assert_ptr_null(strchr(error, '\n'));
        ck_assert_uint_ne(strlen(error), 0);
    }
}

START_TEST(hostile_headers)
{
    static const uint32_t values[] = {0,          1,          0x34,       0x1000,    0x100000,
                                      0x7fffffff, 0x80000000, 0xfffff000, 0xffffffff};
    static struct elf_builder good;

    fresh_multiboot(0);
    builder_add_segment(&builder, 0x200000, 0x200000, code, sizeof code, 4096);
    good = builder;
    for (size_t at = 0x10; at < BUILDER_PHOFF + 2 * sizeof(Elf32_Phdr); at += 4) {
        for (size_t i = 0; i < COUNT(values); i++) {
            builder = good;
            memcpy(builder.bytes + at, &values[i], 4);
            try_load();
        }
    }
    fresh_flat();
    good = builder;
    for (size_t at = 16; at < 16 + 32; at += 4) {
        for (size_t i = 0; i < COUNT(values); i++) {
            builder = good;
            memcpy(builder.bytes + at, &values[i], 4);
            try_load();
        }
    }
    for (size_t size = 0; size < 64; size++) {
        builder = good;
        builder.size = size;
        try_load();
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("loader");
    TCase *good = tcase_create("loads"), *bad = tcase_create("refuses");
    SRunner *runner;
    char remove_directory[128];
    int failed;

    if (mkdtemp(directory) == NULL) {
        perror(directory);
        return EXIT_FAILURE;
    }
    tcase_add_test(good, segments_by_physical_address);
    tcase_add_test(good, bss_is_zeroed);
    tcase_add_test(good, virtual_entry_is_translated);
    tcase_add_test(good, start_state_without_multiboot);
    tcase_add_test(good, tables_at_odd_offsets);
    tcase_add_test(good, rom_below_4_gib);
    tcase_add_test(good, boot_block_avoids_the_kernel);
    tcase_add_test(good, symbols_of_the_kernel);
    tcase_add_test(good, holes_are_patched);
    tcase_add_test(good, holes_are_left_alone);
    tcase_add_test(good, multiboot_information);
    tcase_add_test(good, multiboot_without_append);
    tcase_add_test(good, multiboot_memory_map);
    tcase_add_test(good, multiboot_modules);
    tcase_add_test(good, multiboot_long_command_line);
    tcase_add_test(good, flat_file);
    tcase_add_test(good, flat_file_in_part);
    tcase_add_test(good, addresses_win_over_elf_headers);
    tcase_add_test(good, header_beyond_8192_bytes_is_none);
    tcase_add_test(good, raw_files_at_addresses);
    suite_add_tcase(suite, good);

    tcase_add_test(bad, bad_files);
    tcase_add_test(bad, unreadable_file);
    tcase_add_loop_test(bad, not_a_kernel, 0, COUNT(mistaken));
    tcase_add_test(bad, bad_companions);
    tcase_add_test(bad, multiboot_options_without_multiboot);
    tcase_add_loop_test(bad, damaged_elf, 0, COUNT(damages));
    tcase_add_test(bad, bad_multiboot);
    tcase_add_test(bad, hostile_headers);
    tcase_set_timeout(bad, 60);
    suite_add_tcase(suite, bad);

    runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    snprintf(remove_directory, sizeof remove_directory, "rm -rf '%s'", directory);
    if (system(remove_directory) != 0)
        failed++;
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
