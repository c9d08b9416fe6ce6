/* The benchmark's 32-bit image, to be copied to where it is linked. IMAGE_FILE is set by the build. */
        .section .rodata
        .balign 16
        .globl  nano_image, nano_image_end
nano_image:
        .incbin IMAGE_FILE
nano_image_end:
        .section .note.GNU-stack, "", @progbits
