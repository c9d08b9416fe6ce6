/* Loading a kernel: ELF32 by physical address, multiboot 1, Linux bzImage, all in flat 32-bit protected mode;
 * or the BIOS that is to boot from a disk. */
#ifndef RING3_LOADER_H
#define RING3_LOADER_H

#include "monitor/monitor.h"

#define LOADER_MAX_MODULES 16
#define LOADER_MAX_BLOBS   16

struct loader_module {
    const char *path, *command_line;
};

struct loader_blob {
    const char *path;
    uint64_t gpa;
};

/* Debian's package seabios. */
#define LOADER_BIOS_DIRECTORY "/usr/share/seabios"
#define LOADER_BIOS           LOADER_BIOS_DIRECTORY "/bios-256k.bin"
#define LOADER_VGA_BIOS       LOADER_BIOS_DIRECTORY "/vgabios-isavga.bin"

struct loader_config {
    bool is_bios;             /* the "kernel" is a BIOS image, which goes to the end of the address space */
    const char *kernel_path;  /* for messages; also opened if kernel_bytes is NULL */
    const void *kernel_bytes; /* the embedded guest; NULL: read kernel_path */
    size_t kernel_size;
    const char *append; /* --append, or NULL */
    const char *initrd; /* --initrd, or NULL */
    struct loader_module module[LOADER_MAX_MODULES];
    unsigned n_modules;
    struct loader_blob
        blob[LOADER_MAX_BLOBS]; /* raw files put at physical addresses, after and over the kernel */
    unsigned n_blobs;
    enum holes_mode holes;
};

/* A kernel read and checked, not yet in any machine (its ROM need decides the machine's memory). */
struct kernel_image;

/* NULL: one line in `error` naming the file and the failed check. */
struct kernel_image *kernel_open(const struct loader_config *config, char *error, size_t error_size);
uint64_t kernel_rom_size(const struct kernel_image *kernel); /* bytes of ROM below 4 GiB it wants, 0: none */
/* Puts segments, boot information, GDT and modules in memory, sets the processor's start state, patches the
 * holes if asked. false: one line in `error`. */
bool kernel_load(const struct kernel_image *kernel, const struct loader_config *config, struct vm *vm,
                 char *error, size_t error_size);
/* What the file has for a linear address (as linked), up to the end of its segment; NULL: nothing. */
const uint8_t *kernel_bytes(const struct kernel_image *kernel, gva_t address, size_t *n);
bool kernel_is_firmware(const struct kernel_image *kernel); /* it sets the machine up itself */
const struct symbols *kernel_symbols(const struct kernel_image *kernel);
void kernel_close(struct kernel_image *kernel);

#endif
