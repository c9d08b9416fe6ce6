/*
 * Puts a checked kernel image into a machine: segments, modules and raw files into guest memory, boot
 * information where nothing else is, and the processor at the entry point. Read next: image.c (what was
 * checked before), bootinfo.c (what the kernel is told), holes.c (--holes patch).
 */
#include <stdlib.h>
#include <string.h>

#include "monitor/bootinfo.h"
#include "monitor/holes.h"
#include "monitor/load.h"
#include "vcpu/fail.h"

#define ROM_MAX_SIZE (UINT64_C(16) << 20) /* above the APICs' pages at 0xfec00000 and 0xfee00000 */
#define ROM_FIRST    ((UINT64_C(1) << 32) - ROM_MAX_SIZE)
#define ROM_ALIGN    UINT64_C(0x10000)

void load_take(struct load *load, uint64_t first, uint64_t size)
{
    struct load_layout *layout = &load->layout;

    BUG_ON(layout->n_taken == sizeof layout->taken / sizeof layout->taken[0]);
    layout->taken[layout->n_taken++] = (struct load_range){.first = first, .end = first + size};
}

static uint64_t round_up(uint64_t value, uint64_t align)
{
    return (value + align - 1) & ~(align - 1);
}

bool load_find_lowest(const struct load *load, uint64_t first, uint64_t end, uint64_t size, uint64_t align,
                      uint64_t *place)
{
    const struct load_layout *layout = &load->layout;
    uint64_t candidate = round_up(first, align);
    bool moved = true;

    while (moved) {
        moved = false;
        for (unsigned i = 0; i < layout->n_taken; i++) {
            if (candidate < layout->taken[i].end && layout->taken[i].first < candidate + size) {
                candidate = round_up(layout->taken[i].end, align);
                moved = true;
            }
        }
    }
    *place = candidate;
    return candidate <= end && size <= end - candidate;
}

bool load_find_highest(const struct load *load, uint64_t first, uint64_t end, uint64_t size, uint64_t align,
                       uint64_t *place)
{
    const struct load_layout *layout = &load->layout;
    bool moved = true;

    while (moved) {
        moved = false;
        if (end < size || end - size < first)
            return false;
        *place = (end - size) & ~(align - 1);
        for (unsigned i = 0; i < layout->n_taken; i++) {
            if (*place < layout->taken[i].end && layout->taken[i].first < *place + size) {
                end = layout->taken[i].first;
                moved = true;
            }
        }
    }
    return *place >= first;
}

/* ---- ROM ----------------------------------------------------------------------------------------------- */

uint64_t kernel_rom_size(const struct kernel_image *kernel)
{
    uint64_t first = UINT64_C(1) << 32;

    for (unsigned i = 0; i < kernel->n_segments; i++) {
        if (kernel->segment[i].gpa >= ROM_FIRST && kernel->segment[i].gpa < first)
            first = kernel->segment[i].gpa;
    }
    for (unsigned i = 0; i < kernel->n_blobs; i++) {
        if (kernel->blob_gpa[i] >= ROM_FIRST && kernel->blob_gpa[i] < first)
            first = kernel->blob_gpa[i];
    }
    return round_up((UINT64_C(1) << 32) - first, ROM_ALIGN);
}

/* ---- into memory --------------------------------------------------------------------------------------- */

static bool check_place(const struct load *load, const struct image_error *error, const char *what,
                        uint64_t gpa, uint64_t size)
{
    uint64_t ram_size = load->vm->memory.ram_size, end = gpa + size;

    if (gpa >= ROM_FIRST || end <= MEMORY_VGA_FIRST || (gpa >= MEMORY_EXTENDED && end <= ram_size))
        return true;
    if (gpa < MEMORY_EXTENDED)
        return image_fail(
            error, "%s at 0x%08llx of 0x%llx bytes runs into the video and BIOS area (0x%x to 0x%x)", what,
            (unsigned long long)gpa, (unsigned long long)size, MEMORY_VGA_FIRST, MEMORY_EXTENDED - 1);
    if (end <= MEMORY_MAX_RAM)
        return image_fail(error,
                          "%s at 0x%08llx of 0x%llx bytes is outside the memory of %lluM: "
                          "--memory %lluM would hold it",
                          what, (unsigned long long)gpa, (unsigned long long)size,
                          (unsigned long long)(ram_size >> 20),
                          (unsigned long long)(round_up(end, 1 << 20) >> 20));
    return image_fail(error,
                      "%s at physical address 0x%08llx is outside any memory a machine can have "
                      "(RAM up to 3 GiB, ROM from 0x%08llx)",
                      what, (unsigned long long)gpa, (unsigned long long)ROM_FIRST);
}

void load_put(struct load *load, uint64_t gpa, const void *bytes, size_t size)
{
    if (size != 0 && !memory_write_rom(&load->vm->memory, gpa, bytes, size))
        BUG("no memory at 0x%llx, which was checked", (unsigned long long)gpa);
}

static void put_zeros(struct load *load, uint64_t gpa, uint64_t size)
{
    static const uint8_t zeros[65536];

    while (size != 0) {
        size_t n = size < sizeof zeros ? (size_t)size : sizeof zeros;

        load_put(load, gpa, zeros, n);
        gpa += n;
        size -= n;
    }
}

static bool load_segments(struct load *load)
{
    for (unsigned i = 0; i < load->image->n_segments; i++) {
        const struct image_segment *segment = &load->image->segment[i];

        if (!check_place(load, &load->error, "segment", segment->gpa, segment->memory_size))
            return false;
        load_put(load, segment->gpa, load->image->bytes + segment->file_offset, segment->file_size);
        put_zeros(load, (uint64_t)segment->gpa + segment->file_size,
                  segment->memory_size - segment->file_size);
        load_take(load, segment->gpa, segment->memory_size);
    }
    return true;
}

/* Raw files go last, over whatever is there: that is what they are for. */
static bool load_blobs(struct load *load)
{
    for (unsigned i = 0; i < load->image->n_blobs; i++) {
        const struct file_bytes *file = &load->image->blob[i];

        struct image_error error = load->error;

        error.path = load->config->blob[i].path;
        if (!check_place(load, &error, "--load", load->image->blob_gpa[i], file->size))
            return false;
        load_put(load, load->image->blob_gpa[i], file->bytes, file->size);
        load_take(load, load->image->blob_gpa[i], file->size);
    }
    return true;
}

/* Modules go to page boundaries above the kernel, so that its own early allocations, which tend to follow it,
 * and the modules are the least likely to meet. */
static bool load_modules(struct load *load, struct boot_request *request)
{
    uint64_t first = MEMORY_EXTENDED, end = load->vm->memory.ram_size;

    for (unsigned i = 0; i < load->image->n_segments; i++) {
        uint64_t segment_end = (uint64_t)load->image->segment[i].gpa + load->image->segment[i].memory_size;

        if (segment_end <= end && segment_end > first)
            first = segment_end;
    }
    for (unsigned i = 0; i < load->config->n_modules; i++) {
        const struct file_bytes *file = &load->image->module[i];
        uint64_t gpa;

        if (!load_find_lowest(load, first, end, file->size, PAGE_SIZE, &gpa))
            return file_fail(load->config->module[i].path, load->error.text, load->error.size,
                             "no room for this module of %zu bytes above the kernel in %lluM of memory",
                             file->size, (unsigned long long)(end >> 20));
        load_put(load, gpa, file->bytes, file->size);
        load_take(load, gpa, file->size);
        request->module[i] = (struct loaded_module){.gpa = (uint32_t)gpa, .size = (uint32_t)file->size};
    }
    return true;
}

static bool load_boot_block(struct load *load, const struct boot_request *request, struct boot_block *block)
{
    uint64_t gpa;

    bootinfo_build(request, 0, block);
    free(block->bytes);
    if (!load_find_lowest(load, LOAD_LOW_FIRST, LOAD_LOW_END, block->size, PAGE_SIZE, &gpa) &&
        !load_find_lowest(load, MEMORY_EXTENDED, load->vm->memory.ram_size, block->size, PAGE_SIZE, &gpa))
        return image_fail(&load->error,
                          "no room for 0x%x bytes of boot information beside it in %lluM of memory",
                          block->size, (unsigned long long)(load->vm->memory.ram_size >> 20));
    bootinfo_build(request, (uint32_t)gpa, block);
    load_put(load, gpa, block->bytes, block->size);
    free(block->bytes);
    block->bytes = NULL;
    return true;
}

/* The machine state of Multiboot Specification 3.2; without multiboot the same, with zeroed registers. */
static void set_processor(struct load *load, const struct boot_block *block)
{
    struct vcpu *vcpu = &load->vm->vcpu;

    memset(vcpu->gpr, 0, sizeof vcpu->gpr);
    vcpu_set_flat(vcpu, BOOT_CODE_SELECTOR, BOOT_DATA_SELECTOR, load->image->entry);
    vcpu->gdtr = (struct table_register){.base = block->gdt, .limit = 8 * BOOT_GDT_ENTRIES - 1};
    vcpu->idtr =
        (struct table_register){0}; /* any exception before the kernel's own LIDT is a triple fault */
    vcpu->gpr[ESP] = block->stack_top;
    if (load->image->format == IMAGE_MULTIBOOT) {
        vcpu->gpr[EAX] = MULTIBOOT_LOADER_MAGIC;
        vcpu->gpr[EBX] = block->multiboot_info;
    }
}

/* Boot information and the processor's start, by the format. A BIOS finds the processor as a reset leaves it.
 */
static bool start_kernel(struct load *load)
{
    struct boot_request request = {.image = load->image, .config = load->config, .memory = &load->vm->memory};
    struct boot_block block;

    switch (load->image->format) {
    case IMAGE_BIOS:
        return true;
    case IMAGE_LINUX:
        return load_linux(load);
    case IMAGE_ELF:
    case IMAGE_MULTIBOOT:
        break;
    }
    if (!load_modules(load, &request) || !load_boot_block(load, &request, &block))
        return false;
    set_processor(load, &block);
    return true;
}

/* The option ROM of the display adapter. */
static void offer_vga_rom(struct load *load)
{
    const struct file_bytes *rom = &load->image->vga_rom;

    if (rom->size != 0)
        board_add_firmware_file(load->vm->board, "vgaroms/vgabios.bin", rom->bytes, rom->size);
}

bool kernel_load(const struct kernel_image *kernel, const struct loader_config *config, struct vm *vm,
                 char *error, size_t error_size)
{
    struct load load = {
        .image = kernel,
        .config = config,
        .vm = vm,
        .error = {.path = config->kernel_path, .text = error, .size = error_size},
    };

    if (!load_segments(&load) || !load_blobs(&load) || !start_kernel(&load))
        return false;
    offer_vga_rom(&load);
    return config->holes != HOLES_PATCH || holes_patch(kernel, vm, error, error_size);
}
