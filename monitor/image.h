/*
 * A kernel file, read and checked: what the formats have in common. Private to the loader.
 *
 * image_elf.c and image_multiboot.c turn a file into this; loader.c puts it in memory. Everything in the file
 * is hostile, so a segment listed here has been checked against the file's size and against its neighbours.
 */
#ifndef RING3_IMAGE_H
#define RING3_IMAGE_H

#include "monitor/file.h"
#include "monitor/loader.h"

#define IMAGE_MAX_SEGMENTS 64

struct image_segment {
    uint32_t gpa, gva;    /* where it goes, and the address it was linked for */
    uint32_t file_offset; /* into the file: file_size bytes from there exist */
    uint32_t file_size;
    uint32_t memory_size; /* not 0, not less than file_size; the rest is zeros; gpa + memory_size <= 4 GiB */
};

/* What the loader needs of the set-up header of a Linux kernel (Documentation/arch/x86/boot.rst), checked;
 * all of it is copied from the file into the boot parameters. */
struct linux_header {
    uint32_t size;         /* bytes of it, from LINUX_HEADER on */
    uint64_t run_end;      /* memory that the kernel needs before it looks at the map ends here */
    uint64_t initrd_end;   /* where an initial RAM disk may reach to */
    uint32_t command_line; /* bytes that it may be long */
};

#define LINUX_HEADER       0x1f1u /* where it is in the file, and in the boot parameters */
#define LINUX_HEADER_END   0x290u /* where it ends at the latest */
#define LINUX_LOAD_ADDRESS 0x100000u

/* Where in the file the compressed kernel is: size bytes from there exist. */
struct linux_payload {
    uint32_t file_offset, size;
};

enum image_format { IMAGE_ELF, IMAGE_MULTIBOOT, IMAGE_LINUX, IMAGE_BIOS };

struct kernel_image {
    const char *path;     /* for messages; the caller's */
    const uint8_t *bytes; /* the whole file */
    size_t size;
    struct file_bytes file; /* owns `bytes`, unless they are the embedded guest's */
    struct image_segment segment[IMAGE_MAX_SEGMENTS];
    unsigned n_segments;
    uint32_t entry; /* physical */
    enum image_format format;
    struct linux_header linux_header; /* IMAGE_LINUX */
    struct symbols *symbols;
    /* Read along with it, so that every file is known to be readable before there is a machine. */
    struct file_bytes module[LOADER_MAX_MODULES];
    struct file_bytes blob[LOADER_MAX_BLOBS];
    uint64_t blob_gpa[LOADER_MAX_BLOBS];
    unsigned n_blobs;
    struct file_bytes initrd;
    struct file_bytes vga_rom; /* IMAGE_BIOS: the display adapter's option ROM; may be empty */
};

/* Where a message goes. image_fail always returns false. */
struct image_error {
    const char *path;
    char *text;
    size_t size;
};

#define image_fail(error, ...) (file_fail((error)->path, (error)->text, (error)->size, __VA_ARGS__), false)

/* Multiboot 1 (Multiboot Specification 0.6.96, section 3.1). */
#define MULTIBOOT_HEADER_MAGIC 0x1badb002u
#define MULTIBOOT_LOADER_MAGIC 0x2badb002u /* in EAX at the entry */
#define MULTIBOOT_SEARCH       8192u       /* the header lies wholly in so many first bytes */

enum multiboot_flag {
    MULTIBOOT_PAGE_ALIGN = 0x00000001,  /* modules on page boundaries */
    MULTIBOOT_MEMORY_INFO = 0x00000002, /* mem_* and, where known, mmap_* are wanted */
    MULTIBOOT_VIDEO_MODE = 0x00000004,  /* wants to be told of the video mode */
    MULTIBOOT_ADDRESSES = 0x00010000,   /* load addresses are in the header: "a.out kludge" */
    MULTIBOOT_MUST_UNDERSTAND = 0x0000ffff,
};

struct multiboot_header {
    uint32_t offset; /* in the file */
    uint32_t flags;
    uint32_t header_addr, load_addr, load_end_addr, bss_end_addr, entry_addr; /* with MULTIBOOT_ADDRESSES */
};

/* True: the file has a header with a good checksum. */
bool multiboot_find(const struct kernel_image *image, struct multiboot_header *header);
/* Does ring3 provide what the header asks for? */
bool multiboot_check(const struct multiboot_header *header, const struct image_error *error);
/* The one segment that the header's own addresses describe. */
bool multiboot_read(struct kernel_image *image, const struct multiboot_header *header,
                    const struct image_error *error);

bool elf_is_image(const struct kernel_image *image); /* starts with the ELF magic */
/* The loadable segments and the physical entry point. */
bool elf_read_image(struct kernel_image *image, const struct image_error *error);
bool linux_is_image(const struct kernel_image *image); /* a bzImage or what looks like one */
bool linux_read_image(struct kernel_image *image, const struct image_error *error);
/* Of an image that linux_read_image has read. */
bool linux_find_payload(const struct kernel_image *image, struct linux_payload *payload,
                        const struct image_error *error);
bool bios_read_image(struct kernel_image *image, const struct image_error *error);

/* Executable sections of an ELF file in order, for the sweep: false after the last. *index starts at 0. */
struct image_section {
    uint32_t gva, file_offset, size;
};
bool elf_next_code(const struct kernel_image *image, unsigned *index, struct image_section *section);

/* Adds a segment after checking its place in the address space and against those already there. */
bool image_add_segment(struct kernel_image *image, const struct image_segment *segment,
                       const struct image_error *error);

#endif
