/* fw_cfg: see fw_cfg.h. Names are those of QEMU's docs/specs/fw_cfg. */
#include "devices/fw_cfg.h"

#include "vcpu/fail.h"

#include <stdlib.h>
#include <string.h>

#define PORT_SELECTOR 0 /* 16 bits, little-endian */
#define PORT_DATA     1 /* bytes */
#define PORT_DMA_HIGH 4 /* 64 bits, big-endian; the write of the low half starts it */
#define PORT_DMA_LOW  8

#define ID_TRADITIONAL 1
#define ID_DMA         2

/* struct FWCfgDmaAccess: control, length, address; big-endian */
#define DMA_SIZE   16
#define DMA_ERROR  0x01u
#define DMA_READ   0x02u
#define DMA_SKIP   0x04u
#define DMA_SELECT 0x08u /* the key is in the upper half */
#define DMA_WRITE  0x10u

#define DMA_PIECE 4096u

static const uint8_t dma_signature[8] = "QEMU CFG";

/* struct FWCfgFile: size, key (big-endian), reserved, name */
#define FILE_ENTRY_SIZE 64
#define FILE_ENTRY_KEY  4
#define FILE_ENTRY_NAME 8

static void put_be(uint8_t *bytes, uint64_t value, unsigned size)
{
    for (unsigned i = 0; i < size; i++)
        bytes[i] = (uint8_t)(value >> 8 * (size - 1 - i));
}

static uint64_t get_be(const uint8_t *bytes, unsigned size)
{
    uint64_t value = 0;

    for (unsigned i = 0; i < size; i++)
        value = value << 8 | bytes[i];
    return value;
}

/* ---- items --------------------------------------------------------------------------------------------- */

static struct fw_cfg_item *find_item(struct fw_cfg *cfg, uint16_t key)
{
    for (unsigned i = 0; i < cfg->n_items; i++)
        if (cfg->item[i].key == key)
            return &cfg->item[i];
    return NULL;
}

static struct fw_cfg_item *find_file(struct fw_cfg *cfg, const char *name)
{
    for (unsigned i = 0; i < cfg->n_items; i++)
        if (strcmp(cfg->item[i].name, name) == 0)
            return &cfg->item[i];
    return NULL;
}

static struct fw_cfg_item *put_item(struct fw_cfg *cfg, uint16_t key, const void *bytes, size_t size)
{
    struct fw_cfg_item *item = find_item(cfg, key);
    uint8_t *copy = malloc(size + 1); /* + 1: an empty item is one, too */

    BUG_ON(size >= UINT32_MAX);
    if (copy == NULL)
        die("no memory for a firmware configuration item of %zu bytes", size);
    if (size != 0)
        memcpy(copy, bytes, size);
    if (item == NULL) {
        BUG_ON(cfg->n_items == FW_CFG_MAX_ITEMS);
        item = &cfg->item[cfg->n_items++];
        *item = (struct fw_cfg_item){.key = key};
    }
    free(item->bytes);
    item->bytes = copy;
    item->size = (uint32_t)size;
    return item;
}

/* The directory: the number of files, and an entry for each. */
static void put_directory(struct fw_cfg *cfg)
{
    uint8_t directory[4 + FW_CFG_MAX_ITEMS * FILE_ENTRY_SIZE] = {0};
    uint8_t *entry = directory + 4;

    put_be(directory, cfg->n_files, 4);
    for (unsigned i = 0; i < cfg->n_items; i++) {
        const struct fw_cfg_item *item = &cfg->item[i];

        if (item->name[0] == '\0')
            continue;
        put_be(entry, item->size, 4);
        put_be(entry + FILE_ENTRY_KEY, item->key, 2);
        memcpy(entry + FILE_ENTRY_NAME, item->name, FW_CFG_NAME_SIZE);
        entry += FILE_ENTRY_SIZE;
    }
    put_item(cfg, FW_CFG_FILE_DIR, directory, (size_t)(entry - directory));
}

void fw_cfg_add(struct fw_cfg *cfg, uint16_t key, const void *bytes, size_t size)
{
    put_item(cfg, key, bytes, size);
}

void fw_cfg_add_number(struct fw_cfg *cfg, uint16_t key, uint64_t value, unsigned size)
{
    uint8_t bytes[8];

    for (unsigned i = 0; i < sizeof bytes; i++)
        bytes[i] = (uint8_t)(value >> 8 * i);
    put_item(cfg, key, bytes, size);
}

void fw_cfg_add_file(struct fw_cfg *cfg, const char *name, const void *bytes, size_t size)
{
    const struct fw_cfg_item *old = find_file(cfg, name);
    struct fw_cfg_item *item;

    BUG_ON(name[0] == '\0' || strlen(name) >= FW_CFG_NAME_SIZE);
    item =
        put_item(cfg, old != NULL ? old->key : (uint16_t)(FW_CFG_FILE_FIRST + cfg->n_files++), bytes, size);
    strncpy(item->name, name, FW_CFG_NAME_SIZE - 1);
    put_directory(cfg);
}

/* ---- reading ------------------------------------------------------------------------------------------- */

static void select_item(struct fw_cfg *cfg, uint16_t key)
{
    cfg->selected = key;
    cfg->position = 0;
}

/* The next n bytes of the item; behind its end are zeros. */
static void take(struct fw_cfg *cfg, uint8_t *bytes, uint32_t n)
{
    const struct fw_cfg_item *item = find_item(cfg, cfg->selected);
    uint32_t left = item == NULL || cfg->position > item->size ? 0 : item->size - cfg->position;
    uint32_t part = n < left ? n : left;

    memset(bytes, 0, n);
    if (part != 0)
        memcpy(bytes, item->bytes + cfg->position, part);
    cfg->position += part;
}

/* ---- DMA ----------------------------------------------------------------------------------------------- */

static bool dma_read_item(struct fw_cfg *cfg, uint64_t gpa, uint32_t length)
{
    uint8_t piece[DMA_PIECE];

    for (uint32_t n; length != 0; length -= n, gpa += n) {
        n = length < DMA_PIECE ? length : DMA_PIECE;
        take(cfg, piece, n);
        if (!cfg->host->dma_write(cfg->host->ctx, gpa, piece, n))
            return false;
    }
    return true;
}

static void dma_skip(struct fw_cfg *cfg, uint32_t length)
{
    cfg->position = length > UINT32_MAX - cfg->position ? UINT32_MAX : cfg->position + length;
}

/* No item here takes writes. */
static bool dma_transfer(struct fw_cfg *cfg, uint32_t control, uint64_t gpa, uint32_t length)
{
    if (control & DMA_SELECT)
        select_item(cfg, (uint16_t)(control >> 16));
    if (control & DMA_READ)
        return dma_read_item(cfg, gpa, length);
    if (control & DMA_WRITE)
        return false;
    if (control & DMA_SKIP)
        dma_skip(cfg, length);
    return true;
}

static void dma_run(struct fw_cfg *cfg)
{
    const struct board_host *host = cfg->host;
    uint64_t gpa = cfg->dma_address;
    uint8_t access[DMA_SIZE], result[4];
    bool ok;

    cfg->dma_address = 0;
    if (!host->dma_read(host->ctx, gpa, access, sizeof access))
        return; /* there is no place for an error either */
    ok = dma_transfer(cfg, (uint32_t)get_be(access, 4), get_be(access + 8, 8),
                      (uint32_t)get_be(access + 4, 4));
    put_be(result, ok ? 0 : DMA_ERROR, sizeof result);
    host->dma_write(host->ctx, gpa, result, sizeof result);
}

/* ---- ports --------------------------------------------------------------------------------------------- */

static uint32_t fw_cfg_read(void *device, uint32_t offset, unsigned size)
{
    struct fw_cfg *cfg = device;
    uint32_t value = 0;
    uint8_t byte;

    if (offset >= PORT_DMA_HIGH) {
        memcpy(&value, dma_signature + offset - PORT_DMA_HIGH, size);
        return value;
    }
    if (offset != PORT_DATA || size != 1)
        return 0;
    take(cfg, &byte, 1);
    return byte;
}

static void fw_cfg_write(void *device, uint32_t offset, unsigned size, uint32_t value)
{
    struct fw_cfg *cfg = device;

    if (offset == PORT_SELECTOR && size == 2) {
        select_item(cfg, (uint16_t)value);
    } else if (offset == PORT_DMA_HIGH && size == 4) {
        cfg->dma_address = (uint64_t)__builtin_bswap32(value) << 32;
    } else if (offset == PORT_DMA_LOW && size == 4) {
        cfg->dma_address |= __builtin_bswap32(value);
        dma_run(cfg);
    }
}

const struct bus_device_ops fw_cfg_ops = {.read = fw_cfg_read, .write = fw_cfg_write, .max_size = 4};

/* ---- life ---------------------------------------------------------------------------------------------- */

void fw_cfg_reset(struct fw_cfg *cfg)
{
    select_item(cfg, 0);
    cfg->dma_address = 0;
}

void fw_cfg_init(struct fw_cfg *cfg, const struct board_host *host)
{
    *cfg = (struct fw_cfg){.host = host};
    put_directory(cfg);
    fw_cfg_add(cfg, FW_CFG_SIGNATURE, "QEMU", 4);
    fw_cfg_add_number(cfg, FW_CFG_ID, ID_TRADITIONAL | ID_DMA, 4);
}

void fw_cfg_destroy(struct fw_cfg *cfg)
{
    for (unsigned i = 0; i < cfg->n_items; i++)
        free(cfg->item[i].bytes);
    cfg->n_items = 0;
}
