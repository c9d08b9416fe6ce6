/* See backtrace.h. All of it is guest memory, and may say anything. */
#include "monitor/backtrace.h"

#define PUSH_EBP 0x55
#define MOV_RM_R 0x89

static bool read_stack(struct vm *vm, uint32_t offset, uint32_t *words, size_t n)
{
    return vm_peek(vm, vm->vcpu.segment[SEG_SS].base + offset, words, n * sizeof words[0]) ==
           n * sizeof words[0];
}

/* At a function's first instructions its frame is not made yet: `push ebp; mov ebp, esp`. Where the return
 * address lies then; false: the frame is made, or there is nothing to tell by. */
static bool find_bare_return(struct vm *vm, uint32_t *offset)
{
    gva_t linear = vm->vcpu.segment[SEG_CS].base + vm->vcpu.eip;
    uint8_t before, here;

    *offset = vm->vcpu.gpr[ESP];
    if (vm_peek(vm, linear, &here, 1) == 1 && here == PUSH_EBP)
        return true;
    *offset += 4;
    return vm_peek(vm, linear - 1, &before, 1) == 1 && before == PUSH_EBP && here == MOV_RM_R;
}

unsigned backtrace_walk(struct vm *vm, uint32_t *eip, unsigned max)
{
    uint32_t frame = vm->vcpu.gpr[EBP], offset, words[2];
    unsigned n = 0;

    eip[n++] = vm->vcpu.eip;
    if (n < max && find_bare_return(vm, &offset) && read_stack(vm, offset, words, 1))
        eip[n++] = words[0];
    while (n < max && frame != 0 && read_stack(vm, frame, words, 2) && words[1] != 0) {
        eip[n++] = words[1];
        if (words[0] <= frame)
            break; /* frames lie ever higher: this is the last one, or none */
        frame = words[0];
    }
    return n;
}
