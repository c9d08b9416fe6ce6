/* Code, memory and the stack, as text. Read next: step_registers.c. */
#include <ctype.h>
#include <string.h>

#include "monitor/backtrace.h"
#include "monitor/patch.h"
#include "monitor/step_print.h"
#include "monitor/trace.h"

#define MAX_FRAMES    64
#define MAX_STRING    256
#define BYTES_COLUMN  24
#define SYMBOL_COLUMN 22

void step_print_symbol(const struct vm *vm, gva_t address, FILE *out)
{
    char symbol[TRACE_TEXT_SIZE];

    trace_format_symbol(vm->symbols, address, symbol, sizeof symbol);
    if (symbol[0] != '\0')
        fprintf(out, " %s", symbol);
}

/* ---- code ---------------------------------------------------------------------------------------------- */

/* Puts back the byte that --holes patch replaced. */
static bool undo_patch(struct vm *vm, gva_t gva, uint8_t *byte)
{
    struct walk walk;
    struct fault fault;

    return vm->patches != NULL && *byte == PATCH_BYTE &&
           guest_walk(&vm->memory, &vm->vcpu, gva, ACCESS_READ, true, &walk, &fault) &&
           patch_find(vm->patches, &vm->memory, walk.gpa, byte);
}

/* One line, without mark. Returns the instruction's length, 0: nothing can be read there. */
static unsigned print_insn(struct vm *vm, gva_t gva, FILE *out)
{
    uint8_t bytes[INSN_MAX_LENGTH];
    size_t n = vm_peek(vm, gva, bytes, sizeof bytes);
    char symbol[TRACE_TEXT_SIZE], text[TRACE_TEXT_SIZE], hex[2 * INSN_MAX_LENGTH + 1] = "";
    bool is_patched = n > 0 && undo_patch(vm, gva, &bytes[0]);
    struct insn insn = {.length = 1};
    enum decode_status status;

    trace_format_symbol(vm->symbols, gva, symbol, sizeof symbol);
    fprintf(out, "%08x %-*s ", gva, SYMBOL_COLUMN, symbol);
    if (n == 0) {
        fprintf(out, "(not mapped by the guest)");
        return 0;
    }
    status = decode_insn(bytes, n, vcpu_code_size(&vm->vcpu), &insn);
    if (status == DECODE_OK)
        /* The text shows branch targets: as EIP has them, not as linear addresses. */
        decode_format(&insn, gva - vm->vcpu.segment[SEG_CS].base, text, sizeof text);
    else
        snprintf(text, sizeof text, "(%s)", decode_status_name(status));
    for (unsigned i = 0; i < insn.length; i++)
        snprintf(hex + (size_t)2 * i, 3, "%02x", bytes[i]);
    fprintf(out, "%-*s %s%s", BYTES_COLUMN, hex, text, is_patched ? "  (patched: traps)" : "");
    return insn.length;
}

void step_print_here(struct vm *vm, FILE *out)
{
    const struct vcpu *vcpu = &vm->vcpu;

    fprintf(out, "=> %04x:", vcpu->segment[SEG_CS].selector);
    print_insn(vm, trace_linear(vcpu), out);
    fprintf(out, "%s%s\n", vcpu->cpl == 3 ? "  (user)" : "", vcpu->halted ? "  (halted)" : "");
}

void step_print_code(struct vm *vm, gva_t start, unsigned n_instructions, FILE *out)
{
    gva_t here = trace_linear(&vm->vcpu);

    for (unsigned i = 0; i < n_instructions; i++) {
        unsigned length;

        fputs(start == here ? "=> " : "   ", out);
        length = print_insn(vm, start, out);
        putc('\n', out);
        if (length == 0)
            return;
        start += length;
    }
}

/* ---- memory -------------------------------------------------------------------------------------------- */

/* How many of the n bytes are there. */
static size_t peek(struct vm *vm, bool is_physical, uint64_t address, uint8_t *bytes, size_t n)
{
    size_t done = 0;

    if (!is_physical)
        return vm_peek(vm, (gva_t)address, bytes, n);
    while (done < n && memory_read(&vm->memory, address + done, bytes + done, 1))
        done++;
    return done;
}

static void print_string(struct vm *vm, bool is_physical, uint64_t address, FILE *out)
{
    fprintf(out, "%08llx  \"", (unsigned long long)address);
    for (unsigned i = 0; i < MAX_STRING; i++) {
        uint8_t byte;

        if (peek(vm, is_physical, address + i, &byte, 1) == 0) {
            fputs("\" (no memory behind it)\n", out);
            return;
        }
        if (byte == 0) {
            fputs("\"\n", out);
            return;
        }
        if (byte == '"' || byte == '\\')
            fprintf(out, "\\%c", byte);
        else if (byte >= 0x20 && byte < 0x7f)
            putc(byte, out);
        else
            fprintf(out, byte == '\n' ? "\\n" : "\\x%02x", byte);
    }
    fputs("\"...\n", out);
}

static void print_text_column(const uint8_t *bytes, size_t n, FILE *out)
{
    fputs(" |", out);
    for (size_t i = 0; i < n; i++)
        putc(bytes[i] >= 0x20 && bytes[i] < 0x7f ? bytes[i] : '.', out);
    fputs("|", out);
}

/* One line of up to 16 bytes. false: there is less memory than was asked for. */
static bool print_line(struct vm *vm, bool is_physical, uint64_t address, unsigned unit, size_t n, FILE *out)
{
    uint8_t bytes[16];
    size_t there = peek(vm, is_physical, address, bytes, n);

    fprintf(out, "%08llx ", (unsigned long long)address);
    for (size_t i = 0; i + unit <= there; i += unit) {
        uint32_t value = 0;

        memcpy(&value, bytes + i, unit);
        fprintf(out, " %0*x", (int)unit * 2, value);
    }
    if (there < n)
        fprintf(out, " (no memory%s)", is_physical ? " there" : ", or not mapped by the guest");
    else if (unit == 1)
        print_text_column(bytes, there, out);
    putc('\n', out);
    return there == n;
}

void step_print_memory(struct vm *vm, bool is_physical, uint64_t start, enum step_format format, unsigned n,
                       FILE *out)
{
    unsigned unit = (unsigned)format;

    if (format == STEP_STRING) {
        print_string(vm, is_physical, start, out);
        return;
    }
    for (size_t left = (size_t)n * unit; left > 0;) {
        size_t piece = left < 16 ? left : 16;

        if (!print_line(vm, is_physical, start, unit, piece, out))
            return;
        start += piece;
        if (!is_physical)
            start &= UINT32_MAX;
        left -= piece;
    }
}

/* ---- the stack ----------------------------------------------------------------------------------------- */

/* A return address may lie behind its function, when the call is the last thing there: the symbol is the
 * call's. */
static void print_frame(struct vm *vm, unsigned n, uint32_t eip, FILE *out)
{
    fprintf(out, "#%-2u %08x", n, eip);
    step_print_symbol(vm, vm->vcpu.segment[SEG_CS].base + eip - (n > 0), out);
    putc('\n', out);
}

void step_print_backtrace(struct vm *vm, FILE *out)
{
    uint32_t eip[MAX_FRAMES];
    unsigned n = backtrace_walk(vm, eip, MAX_FRAMES);

    for (unsigned i = 0; i < n; i++)
        print_frame(vm, i, eip[i], out);
}
