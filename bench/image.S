/* The 32-bit image of guest.S and compute.c as it was linked. IMAGE_FILE is set by the build. */
        .section .rodata
        .balign 16
        .globl  bench_image, bench_image_end
        .hidden bench_image, bench_image_end
bench_image:
        .incbin IMAGE_FILE
bench_image_end:
        .section .note.GNU-stack, "", @progbits
