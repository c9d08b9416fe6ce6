/*
 * Guest symbols: one array sorted by address, one by name, both searched by bisection.
 *
 * The file is hostile: libelf checks the tables it hands out, and every name and index is checked again here.
 * Sized symbols may nest (a label inside a function), so each knows the nearest sized symbol around it;
 * unsized ones (labels of assembly code) reach to the next symbol or to the end of their section. Read next:
 * image_elf.c.
 */
#include "monitor/symbols.h"

#include <gelf.h>
#include <libelf.h>
#include <stdlib.h>
#include <string.h>

#include "monitor/file.h"
#include "vcpu/fail.h"

#define SYMBOLS_MAX                                                                                          \
    (1u << 22)              /* far more than any kernel has; bounds what a hostile file makes us allocate */
#define SYMBOLS_MAX_NEST 32 /* sized symbols around one address that are tried */
#define NO_SYMBOL        UINT32_MAX

struct symbol {
    uint32_t address;
    uint64_t end;    /* first address past it */
    uint32_t name;   /* offset in `names` */
    uint32_t around; /* index of the nearest earlier sized symbol that holds `address`, or NO_SYMBOL */
    bool is_sized, is_code, is_absolute;
    uint8_t rank; /* which of several at one address is shown: the lowest */
};

struct symbols {
    struct symbol *by_address; /* without absolute ones, one for each address */
    size_t n_by_address;
    struct symbol *by_name;
    size_t n_by_name;
    char *names;
};

/* ---- reading ----------------------------------------------------------------------------------------- */

struct symbol_reader {
    Elf *elf;
    struct symbol *symbol;
    size_t n, capacity;
    char *names;
    size_t names_size, names_capacity;
};

static void *grow(void *array, size_t *capacity, size_t needed, size_t element)
{
    if (needed <= *capacity)
        return array;
    *capacity = needed > *capacity * 2 ? needed : *capacity * 2;
    array = realloc(array, *capacity * element);
    if (array == NULL)
        die("out of memory for the guest's symbols");
    return array;
}

/* Functions before objects before plain labels; sized before unsized; global before local. */
static uint8_t symbol_rank(unsigned type, unsigned binding, bool is_sized)
{
    unsigned by_type = type == STT_FUNC ? 0 : type == STT_OBJECT ? 1 : 2;

    return (uint8_t)(by_type * 4 + (is_sized ? 0 : 2) + (binding == STB_LOCAL ? 1 : 0));
}

static bool is_wanted(const GElf_Sym *sym, const char *name)
{
    unsigned type = GELF_ST_TYPE(sym->st_info);

    if (type != STT_FUNC && type != STT_OBJECT && type != STT_NOTYPE)
        return false;
    return sym->st_shndx != SHN_UNDEF && sym->st_shndx != SHN_COMMON && name != NULL && name[0] != '\0';
}

static void add_symbol(struct symbol_reader *reader, const GElf_Sym *sym, const char *name)
{
    unsigned type = GELF_ST_TYPE(sym->st_info);
    size_t length = strlen(name) + 1;
    struct symbol symbol = {
        .address = (uint32_t)sym->st_value,
        .is_sized = sym->st_size != 0,
        .is_code = type == STT_FUNC,
        .is_absolute = sym->st_shndx == SHN_ABS,
        .rank = symbol_rank(type, GELF_ST_BIND(sym->st_info), sym->st_size != 0),
        .around = NO_SYMBOL,
    };

    symbol.end = (uint64_t)symbol.address + (uint32_t)sym->st_size;
    if (!symbol.is_absolute) {
        Elf_Scn *section = elf_getscn(reader->elf, sym->st_shndx);
        GElf_Shdr header;

        if (section == NULL || gelf_getshdr(section, &header) == NULL)
            return;
        if (!symbol.is_sized)
            symbol.end = (header.sh_addr & UINT32_MAX) + (header.sh_size & UINT32_MAX);
        if (type == STT_NOTYPE && (header.sh_flags & SHF_EXECINSTR) != 0)
            symbol.is_code = true;
    }
    if (reader->names_size + length > UINT32_MAX)
        return;
    reader->names = grow(reader->names, &reader->names_capacity, reader->names_size + length, 1);
    memcpy(reader->names + reader->names_size, name, length);
    symbol.name = (uint32_t)reader->names_size;
    reader->names_size += length;
    reader->symbol = grow(reader->symbol, &reader->capacity, reader->n + 1, sizeof *reader->symbol);
    reader->symbol[reader->n++] = symbol;
}

static void read_table(struct symbol_reader *reader, Elf_Scn *section, const GElf_Shdr *header)
{
    Elf_Data *data = elf_getdata(section, NULL);
    size_t n = data == NULL || data->d_buf == NULL ? 0 : data->d_size / sizeof(Elf32_Sym);

    for (size_t i = 1; i < n && i < SYMBOLS_MAX; i++) {
        GElf_Sym sym;
        const char *name;

        if (gelf_getsym(data, (int)i, &sym) == NULL)
            return;
        name = elf_strptr(reader->elf, header->sh_link, sym.st_name);
        if (is_wanted(&sym, name))
            add_symbol(reader, &sym, name);
    }
}

/* The full symbol table, or, in a stripped file, the dynamic one. */
static void read_symbols(struct symbol_reader *reader)
{
    static const unsigned kinds[] = {SHT_SYMTAB, SHT_DYNSYM};

    for (size_t k = 0; k < sizeof kinds / sizeof kinds[0] && reader->n == 0; k++) {
        Elf_Scn *section = NULL;

        while ((section = elf_nextscn(reader->elf, section)) != NULL) {
            GElf_Shdr header;

            if (gelf_getshdr(section, &header) != NULL && header.sh_type == kinds[k]) {
                read_table(reader, section, &header);
                break;
            }
        }
    }
}

/* ---- ordering ---------------------------------------------------------------------------------------- */

static int compare_address(const void *a, const void *b)
{
    const struct symbol *x = a, *y = b;

    if (x->address != y->address)
        return x->address < y->address ? -1 : 1;
    if (x->rank != y->rank)
        return x->rank < y->rank ? -1 : 1;
    return x->name < y->name ? -1 : x->name > y->name; /* file order: the result never depends on qsort */
}

static int compare_name(const void *a, const void *b, void *names)
{
    const struct symbol *x = a, *y = b;
    int order = strcmp((const char *)names + x->name, (const char *)names + y->name);

    if (order != 0)
        return order;
    return x->rank != y->rank ? (x->rank < y->rank ? -1 : 1) : compare_address(a, b);
}

static void index_by_address(struct symbols *symbols)
{
    struct symbol *symbol = symbols->by_address;
    size_t n = 0;
    uint32_t around = NO_SYMBOL;

    qsort(symbol, symbols->n_by_address, sizeof *symbol, compare_address);
    for (size_t i = 0; i < symbols->n_by_address; i++) {
        if (symbol[i].is_absolute)
            continue;
        if (n > 0 && symbol[n - 1].address == symbol[i].address) {
            symbol[n - 1].is_code |= symbol[i].is_code;
            continue;
        }
        symbol[n++] = symbol[i];
    }
    symbols->n_by_address = n;
    for (size_t i = 0; i < n; i++) {
        while (around != NO_SYMBOL && symbol[around].end <= symbol[i].address)
            around = symbol[around].around;
        symbol[i].around = around;
        if (symbol[i].is_sized) {
            around = (uint32_t)i;
            continue;
        }
        if (i + 1 < n && symbol[i + 1].address < symbol[i].end)
            symbol[i].end = symbol[i + 1].address;
        if (around != NO_SYMBOL && symbol[around].end < symbol[i].end)
            symbol[i].end = symbol[around].end;
    }
}

static struct symbols *index_symbols(struct symbol_reader *reader)
{
    struct symbols *symbols;

    if (reader->n == 0) {
        free(reader->names);
        free(reader->symbol);
        return NULL;
    }
    symbols = calloc(1, sizeof *symbols);
    if (symbols != NULL)
        symbols->by_name = calloc(reader->n, sizeof *symbols->by_name);
    if (symbols == NULL || symbols->by_name == NULL)
        die("out of memory for the guest's symbols");
    symbols->names = reader->names;
    symbols->by_address = reader->symbol;
    symbols->n_by_address = symbols->n_by_name = reader->n;
    memcpy(symbols->by_name, reader->symbol, reader->n * sizeof *reader->symbol);
    qsort_r(symbols->by_name, symbols->n_by_name, sizeof *symbols->by_name, compare_name, symbols->names);
    index_by_address(symbols);
    return symbols;
}

/* ---- the interface ----------------------------------------------------------------------------------- */

struct symbols *symbols_load_bytes(const void *bytes, size_t n)
{
    struct symbol_reader reader = {0};
    size_t class_length;
    const char *ident;

    if (bytes == NULL || n < sizeof(Elf32_Ehdr) || elf_version(EV_CURRENT) == EV_NONE)
        return NULL;
    reader.elf = elf_memory((char *)bytes, n); /* libelf reads it and nothing more */
    if (reader.elf == NULL)
        return NULL;
    ident = elf_getident(reader.elf, &class_length);
    if (elf_kind(reader.elf) == ELF_K_ELF && ident != NULL && class_length > EI_DATA &&
        ident[EI_CLASS] == ELFCLASS32 && ident[EI_DATA] == ELFDATA2LSB)
        read_symbols(&reader);
    elf_end(reader.elf);
    return index_symbols(&reader);
}

struct symbols *symbols_load(const char *path)
{
    char error[256];
    struct file_bytes file;
    struct symbols *symbols;

    if (!file_read(path, &file, error, sizeof error))
        return NULL;
    symbols = symbols_load_bytes(file.bytes, file.size);
    file_free(&file);
    return symbols;
}

void symbols_free(struct symbols *symbols)
{
    if (symbols == NULL)
        return;
    free(symbols->by_address);
    free(symbols->by_name);
    free(symbols->names);
    free(symbols);
}

/* How many symbols start at or before `address`. */
static size_t count_up_to(const struct symbols *symbols, uint32_t address)
{
    size_t low = 0, high = symbols->n_by_address;

    while (low < high) {
        size_t middle = low + (high - low) / 2;

        if (symbols->by_address[middle].address <= address)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

const char *symbols_find(const struct symbols *symbols, uint32_t address, uint32_t *offset)
{
    size_t n = symbols == NULL ? 0 : count_up_to(symbols, address);
    uint32_t index = n == 0 ? NO_SYMBOL : (uint32_t)(n - 1);

    for (unsigned i = 0; i < SYMBOLS_MAX_NEST && index != NO_SYMBOL; i++) {
        const struct symbol *symbol = &symbols->by_address[index];

        if (address < symbol->end) {
            if (offset != NULL)
                *offset = address - symbol->address;
            return symbols->names + symbol->name;
        }
        index = symbol->around;
    }
    return NULL;
}

bool symbols_address(const struct symbols *symbols, const char *name, uint32_t *address)
{
    size_t low = 0, high = symbols == NULL ? 0 : symbols->n_by_name;

    while (low < high) { /* the first of that name: the best-ranked one */
        size_t middle = low + (high - low) / 2;

        if (strcmp(symbols->names + symbols->by_name[middle].name, name) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    if (symbols == NULL || low == symbols->n_by_name ||
        strcmp(symbols->names + symbols->by_name[low].name, name) != 0)
        return false;
    *address = symbols->by_name[low].address;
    return true;
}

bool symbols_next_function(const struct symbols *symbols, uint32_t after, uint32_t *address)
{
    size_t n = symbols == NULL ? 0 : symbols->n_by_address;

    for (size_t i = n == 0 ? 0 : count_up_to(symbols, after); i < n; i++) {
        if (symbols->by_address[i].is_code) {
            *address = symbols->by_address[i].address;
            return true;
        }
    }
    return false;
}
