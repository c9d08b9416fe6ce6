/*
 * What a stepper shows of a machine, as text: where it stands, its registers virtual and real, memory, code,
 * page tables and their shadow, the life of a trap. Nothing here changes the machine, nor what it will do.
 *
 * Read next: step_code.c, step_registers.c, step_walk.c, step_why.c; step_place.c reads what a person types.
 */
#ifndef RING3_STEP_PRINT_H
#define RING3_STEP_PRINT_H

#include <stdio.h>

#include "monitor/stepper.h"

/* ---- places ----------------------------------------------------------------------------------------------
 */

/* "main", "main+1c", "c0101234", "0x1000", "$eip+5", "$esp": all numbers hexadecimal; symbols first. false:
 * one line in `error`. */
bool step_parse_place(const struct vm *vm, const char *text, gva_t *place, char *error, size_t error_size);

/* ---- code and memory -------------------------------------------------------------------------------------
 */

/* "=> 0008:00100a3d main+0x1d   fb   sti": the instruction that is next. */
void step_print_here(struct vm *vm, FILE *out);
void step_print_code(struct vm *vm, gva_t start, unsigned n_instructions, FILE *out);

enum step_format { STEP_BYTES = 1, STEP_HALVES = 2, STEP_WORDS = 4, STEP_STRING = 0 };

void step_print_memory(struct vm *vm, bool is_physical, uint64_t start, enum step_format format, unsigned n,
                       FILE *out);
/* By the chain of frame pointers. */
void step_print_backtrace(struct vm *vm, FILE *out);

/* ---- state -----------------------------------------------------------------------------------------------
 */

void step_print_registers(struct vm *vm, FILE *out);
void step_print_walk(struct vm *vm, gva_t gva, FILE *out);
/* The last trap in one line; its life in a dozen. */
void step_print_trap(const struct stepper *stepper, FILE *out);
void step_print_why(const struct stepper *stepper, FILE *out);

/* " main+0x1c", or "": for behind an address. */
void step_print_symbol(const struct vm *vm, gva_t address, FILE *out);

#endif
