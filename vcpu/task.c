/*
 * The task-state segment: inner stacks, and switching tasks by hardware (SDM Vol 3A 7.2, 7.3).
 *
 * A task switch has two halves. Up to the point where TR changes, every check is made and every byte that
 * will be written is probed, so a fault leaves the old task as it was. After it, the new task runs, and what
 * is wrong with its segments is a fault of its own.
 *
 * Read next: transfer.c, return.c (who switches tasks).
 */
#include "vcpu/task.h"

#include <string.h>

#include "vcpu/segment.h"

/* ---- the two formats (SDM Vol 3A figures 7-2, 7-10) --------------------------------------------------- */

#define TSS_BACK_LINK   0x00u
#define TSS32_CR3       0x1cu
#define TSS32_LDT       0x60u
#define TSS32_DEBUG     0x64u /* bit 0: T */
#define TSS_PROBE_CHUNK 64u

struct tss_format {
    uint8_t width; /* of a register in it; selectors lie that far apart too */
    uint8_t min_limit;
    uint8_t stacks;   /* ESP0, SS0, ESP1, ... */
    uint8_t eip;      /* then EFLAGS and the general registers in the order of enum gpr_index */
    uint8_t segments; /* in the order of enum segment_index */
    uint8_t n_segments;
    uint8_t ldt;
};

static const struct tss_format tss16 = {2, 0x2b, 0x02, 0x0e, 0x22, 4, 0x2a};
static const struct tss_format tss32 = {4, 0x67, 0x04, 0x20, 0x48, 6, TSS32_LDT};

/* Bit 3 of the type, as for gates. */
static const struct tss_format *format_of(uint16_t attributes)
{
    return (attributes & 8) ? &tss32 : &tss16;
}

/* EIP, EFLAGS and the general registers lie together. */
#define N_REGISTERS (2 + GPR_COUNT)

struct tss_image {
    uint32_t registers[N_REGISTERS];
    uint16_t selectors[SEG_COUNT];
    uint16_t ldt;
    uint32_t cr3;
    bool has_cr3, has_debug_trap;
};

/* ---- inner stacks ------------------------------------------------------------------------------------- */

enum outcome task_inner_stack(struct vcpu *vcpu, unsigned cpl, uint32_t ext, struct stack *stack)
{
    const struct tss_format *format = format_of(vcpu->tr.attributes);
    uint32_t offset = format->stacks + cpl * 2 * format->width;
    uint32_t pointer = 0;
    uint16_t selector;
    enum outcome outcome;

    if (offset + format->width + sizeof selector - 1 > vcpu->tr.limit)
        return vcpu_raise_error(vcpu, EXCEPTION_TS, selector_error(vcpu->tr.selector, ext));
    outcome = vcpu_read_system(vcpu, vcpu->tr.base + offset, &pointer, format->width);
    if (outcome == OUTCOME_DONE)
        outcome = vcpu_read_system(vcpu, vcpu->tr.base + offset + format->width, &selector, sizeof selector);
    if (outcome == OUTCOME_DONE)
        outcome = segment_check_stack(vcpu, selector, cpl, EXCEPTION_TS, ext, &stack->segment);
    stack->pointer = pointer;
    stack->cpl = (uint8_t)cpl;
    stack->error_code = outcome == OUTCOME_DONE ? (uint16_t)selector_error(selector, ext) : 0;
    return outcome;
}

/* ---- finding the task --------------------------------------------------------------------------------- */

enum outcome task_find_available(struct vcpu *vcpu, uint16_t selector, uint32_t ext,
                                 struct descriptor *descriptor)
{
    enum outcome outcome;

    if (selector_is_null(selector) || (selector & SELECTOR_TI))
        return vcpu_raise_error(vcpu, EXCEPTION_GP, selector_error(selector, ext));
    outcome = descriptor_fetch(vcpu, selector, EXCEPTION_GP, ext, descriptor);
    if (outcome != OUTCOME_DONE)
        return outcome;
    if (!descriptor_is_available_tss(descriptor))
        return vcpu_raise_error(vcpu, EXCEPTION_GP, selector_error(selector, ext));
    if (!descriptor_is_present(descriptor))
        return vcpu_raise_error(vcpu, EXCEPTION_NP, selector_error(selector, ext));
    return OUTCOME_DONE;
}

/* ---- the first half: in the old task ------------------------------------------------------------------ */

/* The current task's descriptor is not checked again: it was when TR was loaded. */
static enum outcome find_current(struct vcpu *vcpu, struct descriptor *descriptor)
{
    uint32_t words[2];
    gva_t address = vcpu->gdtr.base + (vcpu->tr.selector & ~(SELECTOR_TI | SELECTOR_RPL));
    enum outcome outcome = vcpu_read_system(vcpu, address, words, sizeof words);

    *descriptor = (struct descriptor){address, words[0], words[1]};
    return outcome;
}

static enum outcome probe(struct vcpu *vcpu, gva_t linear, unsigned size, unsigned kind)
{
    enum outcome outcome = OUTCOME_DONE;

    for (unsigned done = 0; done < size && outcome == OUTCOME_DONE; done += TSS_PROBE_CHUNK) {
        unsigned chunk = size - done < TSS_PROBE_CHUNK ? size - done : TSS_PROBE_CHUNK;
        outcome = vcpu->ops->memory(vcpu, linear + done, NULL, chunk, kind | ACCESS_PROBE);
    }
    return outcome;
}

static bool is_nested(const struct task_switch *task)
{
    return task->cause == TASK_CALL || task->cause == TASK_INTERRUPT;
}

/* Everything that the first half will touch, before it touches anything. */
static enum outcome check_switch(struct vcpu *vcpu, const struct task_switch *task, const struct segment *tss,
                                 const struct descriptor *current)
{
    const struct tss_format *old_format = format_of(vcpu->tr.attributes);
    const struct tss_format *new_format = format_of(tss->attributes);
    unsigned saved = old_format->segments + old_format->n_segments * old_format->width - old_format->eip;
    enum outcome outcome;

    if (tss->limit < new_format->min_limit)
        return vcpu_raise_error(vcpu, EXCEPTION_TS, selector_error(task->selector, task->ext));
    if (vcpu->tr.limit < old_format->min_limit)
        return vcpu_raise_error(vcpu, EXCEPTION_TS, selector_error(vcpu->tr.selector, task->ext));

    outcome = probe(vcpu, vcpu->tr.base + old_format->eip, saved, ACCESS_WRITE);
    if (outcome == OUTCOME_DONE)
        outcome = probe(vcpu, tss->base, new_format->min_limit + 1u, ACCESS_READ);
    if (outcome == OUTCOME_DONE && is_nested(task))
        outcome = probe(vcpu, tss->base + TSS_BACK_LINK, 2, ACCESS_WRITE);
    if (outcome == OUTCOME_DONE && task->cause != TASK_IRET)
        outcome = probe(vcpu, task->descriptor.address, 8, ACCESS_WRITE);
    if (outcome == OUTCOME_DONE && !is_nested(task))
        outcome = probe(vcpu, current->address, 8, ACCESS_WRITE);
    return outcome;
}

static enum outcome save_old_task(struct vcpu *vcpu, const struct task_switch *task)
{
    const struct tss_format *format = format_of(vcpu->tr.attributes);
    uint32_t registers[N_REGISTERS] = {task->return_eip, task->saved_eflags};
    uint8_t image[N_REGISTERS * sizeof(uint32_t)];
    enum outcome outcome;

    if (task->cause == TASK_IRET)
        registers[1] &= ~EFLAGS_NT;
    memcpy(registers + 2, vcpu->gpr, sizeof vcpu->gpr);
    for (unsigned i = 0; i < N_REGISTERS; i++)
        memcpy(image + (size_t)i * format->width, &registers[i], format->width);
    outcome = vcpu_write_system(vcpu, vcpu->tr.base + format->eip, image, N_REGISTERS * format->width);

    for (unsigned i = 0; i < format->n_segments && outcome == OUTCOME_DONE; i++)
        outcome = vcpu_write_system(vcpu, vcpu->tr.base + format->segments + i * format->width,
                                    &vcpu->segment[i].selector, sizeof vcpu->segment[i].selector);
    return outcome;
}

static enum outcome read_new_task(struct vcpu *vcpu, const struct segment *tss, struct tss_image *image)
{
    const struct tss_format *format = format_of(tss->attributes);
    bool is_32bit = format == &tss32;
    uint8_t bytes[N_REGISTERS * sizeof(uint32_t)];
    uint16_t debug = 0;
    enum outcome outcome =
        vcpu_read_system(vcpu, tss->base + format->eip, bytes, N_REGISTERS * format->width);

    *image = (struct tss_image){.has_cr3 = is_32bit};
    for (unsigned i = 0; i < N_REGISTERS && outcome == OUTCOME_DONE; i++) {
        /* What the upper halves become is not written down; ones are what processors were seen to leave. */
        image->registers[i] = is_32bit || i < 2 ? 0 : 0xffff0000;
        memcpy(&image->registers[i], bytes + (size_t)i * format->width, format->width);
    }
    for (unsigned i = 0; i < format->n_segments && outcome == OUTCOME_DONE; i++)
        outcome = vcpu_read_system(vcpu, tss->base + format->segments + i * format->width,
                                   &image->selectors[i], sizeof image->selectors[i]);
    if (outcome == OUTCOME_DONE)
        outcome = vcpu_read_system(vcpu, tss->base + format->ldt, &image->ldt, sizeof image->ldt);
    if (outcome == OUTCOME_DONE && is_32bit)
        outcome = vcpu_read_system(vcpu, tss->base + TSS32_CR3, &image->cr3, sizeof image->cr3);
    if (outcome == OUTCOME_DONE && is_32bit)
        outcome = vcpu_read_system(vcpu, tss->base + TSS32_DEBUG, &debug, sizeof debug);
    image->has_debug_trap = debug & 1;
    return outcome;
}

/* ---- the second half: in the new task ----------------------------------------------------------------- */

static enum outcome load_registers(struct vcpu *vcpu, const struct task_switch *task,
                                   const struct tss_image *image)
{
    uint32_t old_cr3 = vcpu->cr3;

    vcpu->eip = image->registers[0];
    vcpu->eflags = (image->registers[1] & EFLAGS_DEFINED) | EFLAGS_FIXED;
    if (is_nested(task))
        vcpu->eflags |= EFLAGS_NT;
    memcpy(vcpu->gpr, image->registers + 2, sizeof vcpu->gpr);
    vcpu->cr0 |= CR0_TS;
    vcpu->dr[7] &= ~DR7_LOCALS;
    vcpu->halted = false;
    vcpu->interrupt_shadow = SHADOW_NONE;

    /* Selectors first, for a fault handler to see; their descriptors one by one after that. */
    for (unsigned i = 0; i < SEG_COUNT; i++)
        vcpu->segment[i] = segment_null(image->selectors[i]);
    vcpu->ldtr = segment_null(image->ldt);
    vcpu->cpl = vcpu_is_v8086(vcpu) ? 3 : image->selectors[SEG_CS] & SELECTOR_RPL;

    if (image->has_cr3 && (vcpu->cr0 & CR0_PG)) {
        if (!vcpu_load_pdptes(vcpu, vcpu->cr0, image->cr3, vcpu->cr4))
            return vcpu_raise_error(vcpu, EXCEPTION_GP, task->ext);
        vcpu->cr3 = image->cr3;
        vcpu->ops->paging_changed(vcpu, vcpu->cr0, old_cr3, vcpu->cr4);
    }
    return OUTCOME_DONE;
}

static enum outcome load_code_segment(struct vcpu *vcpu, uint16_t selector, uint32_t ext)
{
    unsigned rpl = selector & SELECTOR_RPL;
    struct descriptor descriptor;
    enum outcome outcome;

    if (selector_is_null(selector))
        return vcpu_raise_error(vcpu, EXCEPTION_TS, ext);
    outcome = descriptor_fetch(vcpu, selector, EXCEPTION_TS, ext, &descriptor);
    if (outcome != OUTCOME_DONE)
        return outcome;
    if (!descriptor_is_code(&descriptor) ||
        (descriptor_is_conforming(&descriptor) ? descriptor_dpl(&descriptor) > rpl
                                               : descriptor_dpl(&descriptor) != rpl))
        return vcpu_raise_error(vcpu, EXCEPTION_TS, selector_error(selector, ext));
    if (!descriptor_is_present(&descriptor))
        return vcpu_raise_error(vcpu, EXCEPTION_NP, selector_error(selector, ext));
    outcome = descriptor_mark_accessed(vcpu, &descriptor);
    if (outcome == OUTCOME_DONE)
        vcpu->segment[SEG_CS] = descriptor_segment(&descriptor, selector);
    return outcome;
}

static enum outcome load_segments(struct vcpu *vcpu, const struct tss_image *image, uint32_t ext)
{
    static const enum segment_index data_segments[] = {SEG_DS, SEG_ES, SEG_FS, SEG_GS};
    struct segment segment;
    enum outcome outcome = segment_check_ldt(vcpu, image->ldt, EXCEPTION_TS, EXCEPTION_TS, ext, &segment);

    if (outcome != OUTCOME_DONE)
        return outcome;
    vcpu->ldtr = segment;

    if (vcpu_is_v8086(vcpu)) {
        for (unsigned i = 0; i < SEG_COUNT; i++)
            vcpu->segment[i] = segment_of_paragraph(image->selectors[i], true, &vcpu->segment[i]);
        return OUTCOME_DONE;
    }
    outcome = load_code_segment(vcpu, image->selectors[SEG_CS], ext);
    if (outcome == OUTCOME_DONE)
        outcome = segment_check_stack(vcpu, image->selectors[SEG_SS], vcpu->cpl, EXCEPTION_TS, ext, &segment);
    if (outcome != OUTCOME_DONE)
        return outcome;
    vcpu->segment[SEG_SS] = segment;

    for (unsigned i = 0; i < sizeof data_segments / sizeof data_segments[0]; i++) {
        enum segment_index index = data_segments[i];

        outcome = segment_check_data(vcpu, image->selectors[index], vcpu->cpl, EXCEPTION_TS, ext, &segment);
        if (outcome != OUTCOME_DONE)
            return outcome;
        vcpu->segment[index] = segment;
    }
    return OUTCOME_DONE;
}

static enum outcome push_error_code(struct vcpu *vcpu, const struct task_switch *task)
{
    struct stack stack = vcpu_current_stack(vcpu);
    enum outcome outcome;

    stack.error_code = (uint16_t)task->ext;
    outcome = vcpu_stack_push(vcpu, &stack, task->error, format_of(vcpu->tr.attributes)->width);
    if (outcome == OUTCOME_DONE)
        vcpu_commit_stack_pointer(vcpu, &stack);
    return outcome;
}

static enum outcome enter_new_task(struct vcpu *vcpu, const struct task_switch *task,
                                   const struct tss_image *image)
{
    enum outcome outcome = load_registers(vcpu, task, image);

    if (outcome == OUTCOME_DONE)
        outcome = load_segments(vcpu, image, task->ext);
    if (outcome == OUTCOME_DONE && task->has_error)
        outcome = push_error_code(vcpu, task);
    if (outcome != OUTCOME_DONE)
        return outcome;
    if (vcpu->eip > vcpu->segment[SEG_CS].limit)
        return vcpu_raise_error(vcpu, EXCEPTION_GP, task->ext);
    return image->has_debug_trap ? vcpu_raise_debug(vcpu, DR6_BT) : OUTCOME_DONE;
}

/* ---- the switch --------------------------------------------------------------------------------------- */

enum outcome task_switch(struct vcpu *vcpu, const struct task_switch *task)
{
    struct segment tss = descriptor_segment(&task->descriptor, task->selector);
    struct descriptor new_descriptor = task->descriptor, current;
    struct tss_image image;
    enum outcome outcome = find_current(vcpu, &current);

    if (outcome == OUTCOME_DONE)
        outcome = check_switch(vcpu, task, &tss, &current);
    if (outcome == OUTCOME_DONE && !is_nested(task))
        outcome = descriptor_set_busy(vcpu, &current, false);
    if (outcome == OUTCOME_DONE)
        outcome = save_old_task(vcpu, task);
    if (outcome == OUTCOME_DONE && is_nested(task))
        outcome =
            vcpu_write_system(vcpu, tss.base + TSS_BACK_LINK, &vcpu->tr.selector, sizeof vcpu->tr.selector);
    if (outcome == OUTCOME_DONE && task->cause != TASK_IRET)
        outcome = descriptor_set_busy(vcpu, &new_descriptor, true);
    if (outcome == OUTCOME_DONE)
        outcome = read_new_task(vcpu, &tss, &image);
    if (outcome != OUTCOME_DONE)
        return outcome;

    tss.attributes = descriptor_attributes(&new_descriptor);
    vcpu->tr = tss;
    vcpu->has_other_data_segments = true;
    return enter_new_task(vcpu, task, &image);
}

enum outcome task_return(struct vcpu *vcpu, uint32_t return_eip)
{
    struct task_switch task = {.cause = TASK_IRET, .return_eip = return_eip, .saved_eflags = vcpu->eflags};
    unsigned type;
    enum outcome outcome =
        vcpu_read_system(vcpu, vcpu->tr.base + TSS_BACK_LINK, &task.selector, sizeof task.selector);

    if (outcome != OUTCOME_DONE)
        return outcome;
    if (selector_is_null(task.selector) || (task.selector & SELECTOR_TI))
        return vcpu_raise_error(vcpu, EXCEPTION_TS, selector_error(task.selector, 0));
    outcome = descriptor_fetch(vcpu, task.selector, EXCEPTION_TS, 0, &task.descriptor);
    if (outcome != OUTCOME_DONE)
        return outcome;
    type = descriptor_system_type(&task.descriptor);
    if (type != SYSTEM_TSS16_BUSY && type != SYSTEM_TSS32_BUSY)
        return vcpu_raise_error(vcpu, EXCEPTION_TS, selector_error(task.selector, 0));
    if (!descriptor_is_present(&task.descriptor))
        return vcpu_raise_error(vcpu, EXCEPTION_NP, selector_error(task.selector, 0));
    return task_switch(vcpu, &task);
}
