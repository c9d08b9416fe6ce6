/* Places as a person types them: see step_print.h. */
#include <ctype.h>
#include <string.h>
#include <strings.h>

#include "monitor/step_print.h"
#include "monitor/symbols.h"
#include "monitor/trace.h"

#define MAX_TERM 128

static bool fail(char *error, size_t error_size, const char *format, const char *what)
{
    snprintf(error, error_size, format, what);
    return false;
}

static bool parse_hex(const char *text, uint32_t *value)
{
    uint64_t number = 0;

    if (text[0] == '0' && (text[1] == 'x' || text[1] == 'X'))
        text += 2;
    if (*text == '\0')
        return false;
    for (; *text != '\0'; text++) {
        static const char digits[] = "0123456789abcdef";
        const char *digit = strchr(digits, tolower((unsigned char)*text));

        if (digit == NULL)
            return false;
        number = number << 4 | (uint64_t)(digit - digits);
        if (number > UINT32_MAX)
            return false;
    }
    *value = (uint32_t)number;
    return true;
}

static bool parse_register(const struct vcpu *vcpu, const char *name, uint32_t *value)
{
    const struct {
        const char *name;
        uint32_t value;
    } registers[] = {
        {"eax", vcpu->gpr[EAX]},  {"ecx", vcpu->gpr[ECX]},  {"edx", vcpu->gpr[EDX]},
        {"ebx", vcpu->gpr[EBX]},  {"esp", vcpu->gpr[ESP]},  {"ebp", vcpu->gpr[EBP]},
        {"esi", vcpu->gpr[ESI]},  {"edi", vcpu->gpr[EDI]},  {"eip", trace_linear(vcpu)},
        {"cr2", vcpu->cr2},       {"cr3", vcpu->cr3},       {"gdt", vcpu->gdtr.base},
        {"idt", vcpu->idtr.base}, {"ldt", vcpu->ldtr.base}, {"tss", vcpu->tr.base},
    };

    for (size_t i = 0; i < sizeof registers / sizeof registers[0]; i++)
        if (strcasecmp(registers[i].name, name) == 0) {
            *value = registers[i].value;
            return true;
        }
    return false;
}

static bool parse_term(const struct vm *vm, const char *term, uint32_t *value, char *error, size_t error_size)
{
    if (term[0] == '$')
        return parse_register(&vm->vcpu, term + 1, value) ||
               fail(error, error_size,
                    "no register is called %s (there is $eax ... $edi, $eip, $cr2, $cr3, "
                    "$gdt, $idt, $ldt, $tss)",
                    term);
    return symbols_address(vm->symbols, term, value) || parse_hex(term, value) ||
           fail(error, error_size, "%s is neither a symbol nor a hexadecimal number", term);
}

/* The first + or - behind the first character: symbols do not hold them, numbers do not begin with them. */
static const char *find_operator(const char *text)
{
    return text[0] == '\0' ? text : text + 1 + strcspn(text + 1, "+-");
}

bool step_parse_place(const struct vm *vm, const char *text, gva_t *place, char *error, size_t error_size)
{
    bool is_negative = false;

    *place = 0;
    if (*text == '\0')
        return fail(error, error_size, "%s",
                    "a place is missing: a symbol, a hexadecimal number, a $register");
    for (;;) {
        const char *end = find_operator(text);
        char term[MAX_TERM];
        uint32_t value;

        if ((size_t)(end - text) >= sizeof term)
            return fail(error, error_size, "%s", "that is too long to be a place");
        memcpy(term, text, (size_t)(end - text));
        term[end - text] = '\0';
        if (!parse_term(vm, term, &value, error, error_size))
            return false;
        *place += is_negative ? 0u - value : value;
        if (*end == '\0')
            return true;
        is_negative = *end == '-';
        text = end + 1;
    }
}
