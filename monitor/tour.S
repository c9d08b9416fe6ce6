/* The embedded guest of `ring3 run` without a kernel: guests/tour.c as it was linked. TOUR_FILE is set by the build. */
    .section .rodata
    .balign 16
    .global tour_start, tour_end
tour_start:
    .incbin TOUR_FILE
tour_end:
    .section .note.GNU-stack, "", @progbits
