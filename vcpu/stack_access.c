/*
 * Pushing to and popping from a stack that is not yet, or not for sure, the current one: see struct stack in
 * internal.h. An interrupt to an inner ring pushes to the stack of its TSS this way, and PUSH to its own.
 */
#include <string.h>

#include "vcpu/internal.h"

#define ACCESS_MAX 64u /* bytes that one call of ops->memory moves */

struct stack vcpu_current_stack(const struct vcpu *vcpu)
{
    return (struct stack){.segment = vcpu->segment[SEG_SS], .pointer = vcpu->gpr[ESP], .cpl = vcpu->cpl};
}

/* The offset in the segment: ESP, or SP where SS.B is clear. */
static uint32_t stack_offset(const struct stack *stack, uint32_t pointer)
{
    return (stack->segment.attributes & SEGMENT_DB) ? pointer : pointer & 0xffff;
}

static void move_pointer(struct stack *stack, uint32_t by)
{
    uint32_t moved = stack->pointer + by;

    if (stack->segment.attributes & SEGMENT_DB)
        stack->pointer = moved;
    else
        stack->pointer = (stack->pointer & 0xffff0000u) | (moved & 0xffff);
}

void vcpu_stack_skip(struct stack *stack, uint32_t bytes)
{
    move_pointer(stack, bytes);
}

static enum outcome check_limit(struct vcpu *vcpu, const struct stack *stack, uint32_t pointer, unsigned size)
{
    if (segment_contains(&stack->segment, stack_offset(stack, pointer), size))
        return OUTCOME_DONE;
    return vcpu_raise_error(vcpu, EXCEPTION_SS, stack->error_code);
}

enum outcome vcpu_stack_push(struct vcpu *vcpu, struct stack *stack, uint32_t value, unsigned size)
{
    uint32_t pointer = stack->pointer - size;
    enum outcome outcome = check_limit(vcpu, stack, pointer, size);

    if (outcome == OUTCOME_DONE)
        outcome = vcpu_access(vcpu, stack->segment.base + stack_offset(stack, pointer), &value, size,
                              ACCESS_WRITE | vcpu_access_rights(stack->cpl));
    if (outcome == OUTCOME_DONE)
        move_pointer(stack, -size);
    return outcome;
}

enum outcome vcpu_stack_pop(struct vcpu *vcpu, struct stack *stack, uint32_t *value, unsigned size)
{
    enum outcome outcome = check_limit(vcpu, stack, stack->pointer, size);

    *value = 0;
    if (outcome == OUTCOME_DONE)
        outcome = vcpu_access(vcpu, stack->segment.base + stack_offset(stack, stack->pointer), value, size,
                              ACCESS_READ | vcpu_access_rights(stack->cpl));
    if (outcome == OUTCOME_DONE)
        move_pointer(stack, size);
    return outcome;
}

/* Does the segment have all of n values from `pointer` on? false: perhaps. */
static bool has_run(const struct stack *stack, uint32_t pointer, unsigned n, unsigned size)
{
    uint32_t top = (stack->segment.attributes & SEGMENT_DB) ? 0xffffffff : 0xffff;
    uint32_t bottom = stack_offset(stack, pointer);

    return n > 0 && n * size - 1 <= top - bottom && segment_contains(&stack->segment, bottom, n * size);
}

enum outcome vcpu_stack_check_room(struct vcpu *vcpu, const struct stack *stack, unsigned n, unsigned size)
{
    enum outcome outcome = OUTCOME_DONE;

    if (has_run(stack, stack->pointer - n * size, n, size))
        return OUTCOME_DONE;
    for (unsigned i = 1; i <= n && outcome == OUTCOME_DONE; i++)
        outcome = check_limit(vcpu, stack, stack->pointer - i * size, size);
    return outcome;
}

static enum outcome check_contents(struct vcpu *vcpu, const struct stack *stack, unsigned n, unsigned size)
{
    enum outcome outcome = OUTCOME_DONE;

    if (has_run(stack, stack->pointer, n, size))
        return OUTCOME_DONE;
    for (unsigned i = 0; i < n && outcome == OUTCOME_DONE; i++)
        outcome = check_limit(vcpu, stack, stack->pointer + i * size, size);
    return outcome;
}

/* Of 2 or 4 bytes: a size that the compiler knows is no call. */
static void put_value(uint8_t *at, uint32_t value, unsigned size)
{
    if (size == 4)
        memcpy(at, &value, 4);
    else
        memcpy(at, &value, 2);
}

static uint32_t get_value(const uint8_t *at, unsigned size)
{
    uint32_t value = 0;

    if (size == 4)
        memcpy(&value, at, 4);
    else
        memcpy(&value, at, 2);
    return value;
}

/* Can [offset, offset + bytes) move in one access? Not if it wraps, and not where #AC looks at each value. */
static bool is_one_access(const struct vcpu *vcpu, const struct stack *stack, uint32_t offset, unsigned bytes)
{
    uint32_t top = (stack->segment.attributes & SEGMENT_DB) ? 0xffffffff : 0xffff;
    bool checks_alignment = stack->cpl == 3 && (vcpu->eflags & EFLAGS_AC) && (vcpu->cr0 & CR0_AM);

    return bytes <= ACCESS_MAX && bytes - 1 <= top - offset && !checks_alignment;
}

enum outcome vcpu_stack_push_frame(struct vcpu *vcpu, struct stack *stack, const uint32_t *values, unsigned n,
                                   unsigned size)
{
    unsigned bytes = n * size;
    uint32_t bottom = stack_offset(stack, stack->pointer - bytes);
    uint8_t frame[ACCESS_MAX];
    enum outcome outcome = vcpu_stack_check_room(vcpu, stack, n, size);

    if (outcome != OUTCOME_DONE)
        return outcome;
    if (!is_one_access(vcpu, stack, bottom, bytes)) {
        for (unsigned i = 0; i < n && outcome == OUTCOME_DONE; i++)
            outcome = vcpu_stack_push(vcpu, stack, values[i], size);
        return outcome;
    }
    for (unsigned i = 0; i < n; i++)
        put_value(frame + bytes - (size_t)(i + 1) * size, values[i], size);
    outcome = vcpu_access(vcpu, stack->segment.base + bottom, frame, bytes,
                          ACCESS_WRITE | vcpu_access_rights(stack->cpl));
    if (outcome == OUTCOME_DONE)
        move_pointer(stack, -bytes);
    return outcome;
}

enum outcome vcpu_stack_pop_frame(struct vcpu *vcpu, struct stack *stack, uint32_t *values, unsigned n,
                                  unsigned size)
{
    unsigned bytes = n * size;
    uint32_t bottom = stack_offset(stack, stack->pointer);
    uint8_t frame[ACCESS_MAX];
    enum outcome outcome = check_contents(vcpu, stack, n, size);

    if (outcome != OUTCOME_DONE)
        return outcome;
    if (!is_one_access(vcpu, stack, bottom, bytes)) {
        for (unsigned i = 0; i < n && outcome == OUTCOME_DONE; i++)
            outcome = vcpu_stack_pop(vcpu, stack, &values[i], size);
        return outcome;
    }
    outcome = vcpu_access(vcpu, stack->segment.base + bottom, frame, bytes,
                          ACCESS_READ | vcpu_access_rights(stack->cpl));
    if (outcome != OUTCOME_DONE)
        return outcome;
    for (unsigned i = 0; i < n; i++)
        values[i] = get_value(frame + (size_t)i * size, size);
    move_pointer(stack, bytes);
    return OUTCOME_DONE;
}
