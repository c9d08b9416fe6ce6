/* The kernel inside a Linux bzImage: an ELF file, compressed. For ring3 check; the machine boots the bzImage
 * as it is, and the kernel unpacks itself. */
#ifndef RING3_PAYLOAD_H
#define RING3_PAYLOAD_H

#include "monitor/image.h"

#define PAYLOAD_MAX_SIZE                                                                                     \
    (UINT64_C(128) << 20) /* unpacked: a few bytes can stand for as many as one likes                        \
                           */

/* Unpacks it into *unpacked, which the caller frees (file_free). false: one line in *error, and nothing to
 * free. */
bool payload_unpack(const struct kernel_image *image, struct file_bytes *unpacked,
                    const struct image_error *error);

#endif
