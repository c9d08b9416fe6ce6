/*
 * traps.c: the IDT, who handles which vector, and probes.
 *
 * Read next: traps.S, where a trap enters and leaves.
 */
#include "guest.h"

void probe_call(void (*code)(void), const struct registers *in, struct registers *out);
void probe_enter_user(uint32_t eip, uint32_t esp, uint32_t eflags, const struct registers *in);
void probe_recover(void);
extern uint32_t probe_eflags;

uint64_t idt[256] __attribute__((aligned(8)));

static trap_handler *handlers[256];
static bool probing;
static struct trap probed;
struct registers probe_registers;

static const char *const names[] = {"#DE", "#DB",       "NMI",      "#BP", "#OF", "#BR", "#UD",
                                    "#NM", "#DF",       "vector 9", "#TS", "#NP", "#SS", "#GP",
                                    "#PF", "vector 15", "#MF",      "#AC", "#MC", "#XM"};

const char *trap_name(unsigned vector)
{
    if (vector < sizeof names / sizeof names[0])
        return names[vector];
    if (vector == NO_TRAP)
        return "no trap";
    return vector == SYSCALL_VECTOR ? "the system call" : "an interrupt";
}

void traps_init(void)
{
    const struct table_register idtr = {sizeof idt - 1, (uintptr_t)idt};

    for (unsigned vector = 0; vector < 256; vector++)
        idt[vector] = gate(SEL_KERNEL_CODE, (uintptr_t)trap_stubs[vector], DESC_INTERRUPT_GATE);
    /* What ring 3 may raise by an instruction: INT3, INTO, and the system call. */
    idt[VECTOR_BP] = gate(SEL_KERNEL_CODE, (uintptr_t)trap_stubs[VECTOR_BP], DESC_INTERRUPT_GATE | DESC_USER);
    idt[VECTOR_OF] = gate(SEL_KERNEL_CODE, (uintptr_t)trap_stubs[VECTOR_OF], DESC_INTERRUPT_GATE | DESC_USER);
    idt[SYSCALL_VECTOR] =
        gate(SEL_KERNEL_CODE, (uintptr_t)trap_stubs[SYSCALL_VECTOR], DESC_INTERRUPT_GATE | DESC_USER);
    load_idt(&idtr);
}

void trap_set_handler(unsigned vector, trap_handler *handler)
{
    handlers[vector] = handler;
}

/* Called by trap_entry with interrupts off. What it leaves in the frame is where the CPU goes next. */
void trap_dispatch(struct trap_frame *frame)
{
    uint32_t cr2 = frame->vector == VECTOR_PF ? read_cr2() : 0;
    bool from_user = (frame->cs & 3) == 3;

    if (handlers[frame->vector] != NULL) {
        handlers[frame->vector](frame);
        return;
    }
    if (!probing)
        fail("unexpected %s (vector %u), error %x, at %x:%08x, cr2 %08x", trap_name(frame->vector),
             frame->vector, frame->error, frame->cs, frame->eip, cr2);

    probed = (struct trap){
        .vector = frame->vector,
        .error = frame->error,
        .eip = frame->eip,
        .cs = frame->cs,
        .eflags = frame->eflags,
        .esp = from_user ? frame->esp : (uintptr_t)(&frame->eflags + 1),
        .cr2 = cr2,
        .registers = {frame->eax, frame->ecx, frame->edx, frame->ebx, frame->esi, frame->edi},
    };
    probing = false; /* a trap in the recovery is not expected */
    frame->eip = (uintptr_t)probe_recover;
    frame->cs = SEL_KERNEL_CODE;
    frame->eflags = EFLAGS_FIXED;
}

struct trap probe_kernel(void (*code)(void))
{
    probed = (struct trap){.vector = NO_TRAP};
    probing = true;
    probe_call(code, &probe_registers, &probed.registers);
    probing = false;
    if (probed.vector == NO_TRAP)
        probed.eflags = probe_eflags;
    return probed;
}

uint32_t user_stack_top(void)
{
    return (uintptr_t)user_stack + PAGE_SIZE;
}

struct trap probe_user_with(void (*code)(void), uint32_t esp, uint32_t eflags)
{
    probed = (struct trap){.vector = NO_TRAP};
    probing = true;
    probe_enter_user((uintptr_t)code, esp, eflags | EFLAGS_FIXED, &probe_registers);
    if (probed.vector == SYSCALL_VECTOR && probed.eip == (uintptr_t)user_return + 2)
        probed.vector = NO_TRAP; /* it returned */
    return probed;
}

struct trap probe_user(void (*code)(void))
{
    user_stack[1023] = (uintptr_t)user_return;
    return probe_user_with(code, user_stack_top() - 4, 0);
}
