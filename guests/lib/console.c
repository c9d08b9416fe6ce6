/*
 * console.c: text on COM1, by polling (National Semiconductor PC16550D data sheet, section 8).
 *
 * Read next: check.c.
 */
#include <stdarg.h>

#include "guest.h"

enum { COM1 = 0x3f8, UART_DATA = 0, UART_IER = 1, UART_FCR = 2, UART_LCR = 3, UART_MCR = 4, UART_LSR = 5 };
enum {
    LCR_8N1 = 0x03,
    LCR_DLAB = 0x80,
    FCR_ENABLE_AND_CLEAR = 0x07,
    MCR_DTR_RTS_OUT2 = 0x0b,
    LSR_THRE = 0x20
};
enum { POLL_LIMIT = 1000000 }; /* a dead line loses text; it does not hang the guest */

void console_init(void)
{
    out8(COM1 + UART_IER, 0);
    out8(COM1 + UART_LCR, LCR_8N1 | LCR_DLAB);
    out8(COM1 + UART_DATA, 1); /* divisor 1: 115200 baud */
    out8(COM1 + UART_IER, 0);
    out8(COM1 + UART_LCR, LCR_8N1);
    out8(COM1 + UART_FCR, FCR_ENABLE_AND_CLEAR);
    out8(COM1 + UART_MCR, MCR_DTR_RTS_OUT2);
}

static void put_char(char c)
{
    for (unsigned i = 0; i < POLL_LIMIT && !(in8(COM1 + UART_LSR) & LSR_THRE); i++)
        ;
    out8(COM1 + UART_DATA, (uint8_t)c);
}

static void put_number(uint32_t value, unsigned base, unsigned width, char padding)
{
    char digits[10];
    unsigned n = 0;

    do {
        digits[n++] = "0123456789abcdef"[value % base];
        value /= base;
    } while (value != 0);
    for (; width > n; width--)
        put_char(padding);
    while (n > 0)
        put_char(digits[--n]);
}

static void print_list(const char *format, va_list arguments)
{
    for (const char *c = format; *c != '\0'; c++) {
        if (*c != '%') {
            put_char(*c);
            continue;
        }
        char padding = ' ';
        unsigned width = 0;
        c++;
        if (*c == '0')
            padding = *c++;
        while (*c >= '0' && *c <= '9')
            width = width * 10 + (unsigned)(*c++ - '0');
        switch (*c) {
        case 's':
            for (const char *s = va_arg(arguments, const char *); *s != '\0'; s++)
                put_char(*s);
            break;
        case 'c':
            put_char((char)va_arg(arguments, int));
            break;
        case 'u':
            put_number(va_arg(arguments, uint32_t), 10, width, padding);
            break;
        case 'x':
            put_number(va_arg(arguments, uint32_t), 16, width, padding);
            break;
        case 'd': {
            int value = va_arg(arguments, int);
            if (value < 0)
                put_char('-');
            put_number(value < 0 ? -(uint32_t)value : (uint32_t)value, 10, width, padding);
            break;
        }
        default: /* shows the mistake in the text */
            put_char('%');
            put_char(*c);
        }
    }
}

void print(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    print_list(format, arguments);
    va_end(arguments);
}

void fail(const char *format, ...)
{
    va_list arguments;
    print("FAIL ");
    va_start(arguments, format);
    print_list(format, arguments);
    va_end(arguments);
    print("\n");
    power_off(1);
}
