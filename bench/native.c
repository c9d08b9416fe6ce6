/*
 * The yardstick of plain computation: the image, natively, in compatibility mode of a process without ring3.
 * Read next: native_enter.S.
 */
#include <string.h>
#include <sys/mman.h>

#include "bench/bench.h"
#include "vcpu/fail.h"

#define GATE 0x300000

extern const uint8_t native_gate[], native_gate_end[]; /* native_enter.S */

static void *map_low(uintptr_t address, size_t size)
{
    void *memory = mmap((void *)address, size, PROT_READ | PROT_WRITE | PROT_EXEC,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);

    if (memory != (void *)address)
        die("cannot map memory at %#lx", (unsigned long)address);
    return memory;
}

void native_open(const struct side *side)
{
    size_t image_size = (size_t)(bench_image_end - bench_image);

    (void)side;
    memcpy(map_low(GUEST_IMAGE, image_size), bench_image, image_size);
    memcpy(map_low(GATE, (size_t)(native_gate_end - native_gate)), native_gate,
           (size_t)(native_gate_end - native_gate));
    map_low(GUEST_STACK_TOP - GUEST_STACK_SIZE, GUEST_STACK_SIZE);
    map_low(GUEST_ARENA, GUEST_ARENA_SIZE);
}

uint32_t native_round(const struct side *side)
{
    uint32_t (*enter)(uint32_t function, uint32_t argument, uint32_t stack);
    uintptr_t gate = GATE;
    uint32_t function;

    memcpy(&enter, &gate, sizeof enter);
    memcpy(&function, bench_image + side->entry * sizeof function, sizeof function);
    return enter(function, side->argument, GUEST_STACK_TOP);
}
