/* Builds small ELF32 files in memory, right or wrong on purpose, for the tests of symbols and loader. */
#ifndef RING3_TEST_ELF_BUILDER_H
#define RING3_TEST_ELF_BUILDER_H

#include <check.h>
#include <elf.h>
#include <stdint.h>
#include <string.h>

#define BUILDER_MAX 65536u

/* An executable with program headers at 0x40, section headers at 0x800, contents from 0x1000 on. Tests change
 * the fields through the typed accessors before they use the bytes. */
struct elf_builder {
    _Alignas(16) uint8_t bytes[BUILDER_MAX];
    size_t size;
    unsigned n_sections;
};

#define BUILDER_PHOFF    0x40u
#define BUILDER_SHOFF    0x800u
#define BUILDER_CONTENTS 0x1000u

static inline Elf32_Ehdr *builder_header(struct elf_builder *builder)
{
    return (Elf32_Ehdr *)(void *)builder->bytes;
}

static inline Elf32_Phdr *builder_segment(struct elf_builder *builder, unsigned index)
{
    return (Elf32_Phdr *)(void *)(builder->bytes + BUILDER_PHOFF) + index;
}

static inline Elf32_Shdr *builder_section(struct elf_builder *builder, unsigned index)
{
    return (Elf32_Shdr *)(void *)(builder->bytes + BUILDER_SHOFF) + index;
}

static inline void builder_start(struct elf_builder *builder, uint32_t entry)
{
    Elf32_Ehdr *header = builder_header(builder);

    memset(builder, 0, sizeof *builder);
    memcpy(header->e_ident, ELFMAG, SELFMAG);
    header->e_ident[EI_CLASS] = ELFCLASS32;
    header->e_ident[EI_DATA] = ELFDATA2LSB;
    header->e_ident[EI_VERSION] = EV_CURRENT;
    header->e_type = ET_EXEC;
    header->e_machine = EM_386;
    header->e_version = EV_CURRENT;
    header->e_entry = entry;
    header->e_phoff = BUILDER_PHOFF;
    header->e_ehsize = sizeof *header;
    header->e_phentsize = sizeof(Elf32_Phdr);
    header->e_shentsize = sizeof(Elf32_Shdr);
    builder->size = BUILDER_CONTENTS;
}

/* Appends bytes to the file; returns their offset. */
static inline uint32_t builder_append(struct elf_builder *builder, const void *bytes, size_t n)
{
    size_t offset = (builder->size + 15) & ~(size_t)15;

    ck_assert_uint_le(offset + n, BUILDER_MAX);
    memcpy(builder->bytes + offset, bytes, n);
    builder->size = offset + n;
    return (uint32_t)offset;
}

/* A PT_LOAD segment with the given bytes; returns its index. */
static inline unsigned builder_add_segment(struct elf_builder *builder, uint32_t gpa, uint32_t gva,
                                           const void *bytes, uint32_t file_size, uint32_t memory_size)
{
    unsigned index = builder_header(builder)->e_phnum++;

    *builder_segment(builder, index) = (Elf32_Phdr){
        .p_type = PT_LOAD,
        .p_offset = builder_append(builder, bytes, file_size),
        .p_paddr = gpa,
        .p_vaddr = gva,
        .p_filesz = file_size,
        .p_memsz = memory_size,
        .p_flags = PF_R | PF_W | PF_X,
    };
    return index;
}

/* A section whose bytes are already in the file; returns its index (from 1: 0 is the null section). */
static inline unsigned builder_add_section(struct elf_builder *builder, Elf32_Shdr section)
{
    Elf32_Ehdr *header = builder_header(builder);

    header->e_shoff = BUILDER_SHOFF;
    if (header->e_shnum == 0)
        header->e_shnum = 1;
    *builder_section(builder, header->e_shnum) = section;
    return header->e_shnum++;
}

struct builder_symbol {
    const char *name;
    uint32_t value, size;
    unsigned char info;
    uint16_t section;
};

/* A symbol table and its strings, as two sections; returns the index of the symbol table. */
static inline unsigned builder_add_symbols(struct elf_builder *builder, const struct builder_symbol *symbols,
                                           unsigned n)
{
    char strings[4096] = "";
    Elf32_Sym table[64] = {0};
    size_t used = 1;
    unsigned string_section;

    ck_assert_uint_lt(n, 64);
    for (unsigned i = 0; i < n; i++) {
        size_t length = strlen(symbols[i].name) + 1;

        ck_assert_uint_le(used + length, sizeof strings);
        memcpy(strings + used, symbols[i].name, length);
        table[i + 1] = (Elf32_Sym){.st_name = (Elf32_Word)used,
                                   .st_value = symbols[i].value,
                                   .st_size = symbols[i].size,
                                   .st_info = symbols[i].info,
                                   .st_shndx = symbols[i].section};
        used += length;
    }
    string_section =
        builder_add_section(builder, (Elf32_Shdr){.sh_type = SHT_STRTAB,
                                                  .sh_offset = builder_append(builder, strings, used),
                                                  .sh_size = (Elf32_Word)used,
                                                  .sh_addralign = 1});
    return builder_add_section(
        builder, (Elf32_Shdr){.sh_type = SHT_SYMTAB,
                              .sh_offset = builder_append(builder, table, (n + 1) * sizeof table[0]),
                              .sh_size = (Elf32_Word)((n + 1) * sizeof table[0]),
                              .sh_entsize = sizeof table[0],
                              .sh_addralign = 4,
                              .sh_link = string_section});
}

#endif
