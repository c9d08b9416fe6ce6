/* monitor/loader: ELF and multiboot kernels into memory, and what they find at their start. What is refused:
 * test_loader_refuses.c. */
#include "loader_world.h"

#include "monitor/patch.h"
#include "monitor/symbols.h"

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

int main(void)
{
    Suite *suite = suite_create("loader");
    TCase *good = tcase_create("loads");

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
    return run_suite(suite);
}
