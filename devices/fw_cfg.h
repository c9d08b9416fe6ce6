/*
 * QEMU's firmware configuration device, by which firmware and kernels are told what the machine is and get
 * files: QEMU's docs/specs/fw_cfg. An item is a key of 16 bits and its bytes; the file directory gives keys
 * to names. Read by port 0x511 byte by byte, or by DMA through a descriptor in guest memory.
 *
 * Read next: fw_cfg.c; board.c (board_offer_firmware), which fills it.
 */
#ifndef RING3_FW_CFG_H
#define RING3_FW_CFG_H

#include "devices/devices.h"

#define FW_CFG_PORT  0x510
#define FW_CFG_PORTS 12

#define FW_CFG_MAX_ITEMS 48
#define FW_CFG_NAME_SIZE 56

enum fw_cfg_key {
    FW_CFG_SIGNATURE = 0x00,
    FW_CFG_ID = 0x01,
    FW_CFG_RAM_SIZE = 0x03,
    FW_CFG_NOGRAPHIC = 0x04,
    FW_CFG_NB_CPUS = 0x05,
    FW_CFG_BOOT_MENU = 0x0e,
    FW_CFG_MAX_CPUS = 0x0f,
    FW_CFG_FILE_DIR = 0x19,
    FW_CFG_FILE_FIRST = 0x20,
    FW_CFG_IRQ0_OVERRIDE = 0x8002,
};

struct fw_cfg_item {
    uint16_t key;
    char name[FW_CFG_NAME_SIZE]; /* of a file; "": none */
    uint32_t size;
    uint8_t *bytes; /* a copy, owned */
};

struct fw_cfg {
    uint16_t selected;
    uint32_t position; /* in the item */
    uint64_t dma_address;
    struct fw_cfg_item item[FW_CFG_MAX_ITEMS];
    unsigned n_items, n_files;
    const struct board_host *host;
};

void fw_cfg_init(struct fw_cfg *cfg, const struct board_host *host);
void fw_cfg_destroy(struct fw_cfg *cfg);
void fw_cfg_reset(struct fw_cfg *cfg); /* the items stay */

/* Copies the bytes; replaces an item or file of the same key or name. Of a name longer than the directory
 * holds, or of more items than there is room for, it dies. */
void fw_cfg_add(struct fw_cfg *cfg, uint16_t key, const void *bytes, size_t size);
void fw_cfg_add_number(struct fw_cfg *cfg, uint16_t key, uint64_t value, unsigned size);
void fw_cfg_add_file(struct fw_cfg *cfg, const char *name, const void *bytes, size_t size);

extern const struct bus_device_ops fw_cfg_ops; /* FW_CFG_PORTS ports */

#endif
