/*
 * ELF32 kernels: the headers are checked against the file's size here, field by field, before libelf reads
 * any table; what libelf then returns is checked again where it is used as an offset. Read next: loader.c.
 */
#include <elf.h>
#include <gelf.h>
#include <string.h>

#include "monitor/image.h"

bool elf_is_image(const struct kernel_image *image)
{
    return image->size >= SELFMAG && memcmp(image->bytes, ELFMAG, SELFMAG) == 0;
}

static const char *file_type_name(unsigned type)
{
    static const char *const names[] = {
        [ET_NONE] = "no file type",
        [ET_REL] = "a relocatable object (ET_REL): link it first",
        [ET_DYN] = "a shared object or position-independent program (ET_DYN): link it at a fixed address",
        [ET_CORE] = "a core dump (ET_CORE)",
    };

    return type < sizeof names / sizeof names[0] && names[type] != NULL ? names[type] : "not an executable";
}

static bool check_header(const struct kernel_image *image, Elf32_Ehdr *header,
                         const struct image_error *error)
{
    const uint8_t *ident = image->bytes;
    uint64_t table_end;

    if (image->size < EI_NIDENT)
        return image_fail(error, "truncated: %zu bytes, and an ELF header has %zu", image->size,
                          sizeof *header);
    if (ident[EI_CLASS] == ELFCLASS64)
        return image_fail(error, "a 64-bit ELF file: ring3's guests are 32-bit (i386) kernels");
    if (ident[EI_CLASS] != ELFCLASS32)
        return image_fail(error, "unknown ELF class %u", ident[EI_CLASS]);
    if (ident[EI_DATA] != ELFDATA2LSB)
        return image_fail(error, "a big-endian ELF file: not for the i386");
    if (image->size < sizeof *header)
        return image_fail(error, "truncated: %zu bytes, and an ELF header has %zu", image->size,
                          sizeof *header);
    memcpy(header, image->bytes, sizeof *header);
    if (header->e_machine != EM_386)
        return image_fail(error, "an ELF file for another machine (e_machine %u): ring3 needs EM_386 (%u)",
                          header->e_machine, EM_386);
    if (ident[EI_VERSION] != EV_CURRENT || header->e_version != EV_CURRENT)
        return image_fail(error, "unknown ELF version");
    if (header->e_type != ET_EXEC)
        return image_fail(error, "not an executable ELF file but %s", file_type_name(header->e_type));
    if (header->e_phnum == 0)
        return image_fail(error, "no program headers: nothing to load");
    if (header->e_phentsize != sizeof(Elf32_Phdr))
        return image_fail(error, "program headers of %u bytes: %zu expected", header->e_phentsize,
                          sizeof(Elf32_Phdr));
    table_end = (uint64_t)header->e_phoff + (uint64_t)header->e_phnum * sizeof(Elf32_Phdr);
    if (header->e_phoff < sizeof *header || table_end > image->size)
        return image_fail(error, "truncated: the program header table (0x%x, %u entries) is outside the file",
                          header->e_phoff, header->e_phnum);
    return true;
}

static bool read_segment(struct kernel_image *image, unsigned index, const GElf_Phdr *header,
                         const struct image_error *error)
{
    struct image_segment segment = {
        .gpa = (uint32_t)header->p_paddr,
        .gva = (uint32_t)header->p_vaddr,
        .file_offset = (uint32_t)header->p_offset,
        .file_size = (uint32_t)header->p_filesz,
        .memory_size = (uint32_t)header->p_memsz,
    };

    if (segment.file_size > segment.memory_size)
        return image_fail(error, "segment %u has more bytes in the file (0x%x) than in memory (0x%x)", index,
                          segment.file_size, segment.memory_size);
    if (segment.file_size == 0)
        segment.file_offset = 0; /* bss alone: p_offset means nothing */
    else if ((uint64_t)segment.file_offset + segment.file_size > image->size)
        return image_fail(error,
                          "truncated: segment %u (0x%x bytes at 0x%x) is outside the file of 0x%zx bytes",
                          index, segment.file_size, segment.file_offset, image->size);
    return image_add_segment(image, &segment, error);
}

/* e_entry is physical in kernels that are entered with paging off, yet some linker scripts give the virtual
 * address: then the segment that holds it tells the difference. */
static bool resolve_entry(struct kernel_image *image, uint32_t entry, const struct image_error *error)
{
    for (unsigned i = 0; i < image->n_segments; i++) {
        const struct image_segment *segment = &image->segment[i];

        if (entry - segment->gpa < segment->memory_size && entry >= segment->gpa) {
            image->entry = entry;
            return true;
        }
    }
    for (unsigned i = 0; i < image->n_segments; i++) {
        const struct image_segment *segment = &image->segment[i];

        if (entry - segment->gva < segment->memory_size && entry >= segment->gva) {
            image->entry = entry - segment->gva + segment->gpa;
            return true;
        }
    }
    return image_fail(error, "its entry point 0x%08x is in none of its segments", entry);
}

bool elf_read_image(struct kernel_image *image, const struct image_error *error)
{
    Elf32_Ehdr header;
    GElf_Phdr entry; /* a copy, here and below: in the file it may lie at any address */
    Elf *elf;
    bool ok = true;

    if (!check_header(image, &header, error))
        return false;
    elf_version(EV_CURRENT);
    elf = elf_memory((char *)image->bytes, image->size); /* libelf reads it and nothing more */
    for (unsigned i = 0; ok && i < header.e_phnum; i++) {
        if (elf == NULL || gelf_getphdr(elf, (int)i, &entry) == NULL)
            ok = image_fail(error, "program headers cannot be read: %s", elf_errmsg(-1));
        else if (entry.p_type == PT_LOAD && entry.p_memsz != 0)
            ok = read_segment(image, i, &entry, error);
        else if (entry.p_type == PT_INTERP)
            ok = image_fail(error,
                            "a program for an operating system (it names an interpreter), not a kernel");
    }
    elf_end(elf);
    if (ok && image->n_segments == 0)
        return image_fail(error, "no loadable segments");
    return ok && resolve_entry(image, header.e_entry, error);
}

bool elf_next_code(const struct kernel_image *image, unsigned *index, struct image_section *section)
{
    Elf *elf;
    size_t n_sections = 0;
    bool found = false;

    if (!elf_is_image(image))
        return false;
    elf_version(EV_CURRENT);
    elf = elf_memory((char *)image->bytes, image->size);
    if (elf == NULL || elf_getshdrnum(elf, &n_sections) != 0)
        n_sections = 0;
    while (!found && *index < n_sections) {
        Elf_Scn *scn = elf_getscn(elf, (*index)++);
        GElf_Shdr header;

        if (scn == NULL || gelf_getshdr(scn, &header) == NULL || header.sh_type != SHT_PROGBITS ||
            header.sh_size == 0 ||
            (header.sh_flags & (SHF_ALLOC | SHF_EXECINSTR)) != (SHF_ALLOC | SHF_EXECINSTR))
            continue;
        /* Two of 32 bits: no overflow. What is not in the file cannot be swept. */
        if (header.sh_offset + header.sh_size > image->size)
            continue;
        *section = (struct image_section){.gva = (gva_t)header.sh_addr,
                                          .file_offset = (uint32_t)header.sh_offset,
                                          .size = (uint32_t)header.sh_size};
        found = true;
    }
    elf_end(elf);
    return found;
}
