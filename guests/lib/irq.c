/*
 * irq.c: the two 8259 interrupt controllers and channel 0 of the 8254 timer (Intel data sheets 231468,
 * 231164).
 *
 * Read next: the guest `interrupts`.
 */
#include "guest.h"

enum { ICW1_INIT_ICW4 = 0x11, ICW4_8086 = 0x01, OCW2_EOI = 0x20, OCW3_READ_IRR = 0x0a, OCW3_READ_ISR = 0x0b };
enum { PIT_HZ = 1193182, PIT_MODE0 = 0x30, PIT_MODE2 = 0x34 }; /* channel 0, low byte then high byte */
enum { CASCADE = 2, POLL_LIMIT = 1000000 };

static uint16_t controller(unsigned irq)
{
    return irq < 8 ? PIC1 : PIC2;
}

void pic_init(void)
{
    out8(PIC1, ICW1_INIT_ICW4);
    out8(PIC2, ICW1_INIT_ICW4);
    out8(PIC1 + 1, IRQ_BASE);
    out8(PIC2 + 1, IRQ_BASE + 8);
    out8(PIC1 + 1, 1 << CASCADE); /* the second controller hangs on line 2 */
    out8(PIC2 + 1, CASCADE);
    out8(PIC1 + 1, ICW4_8086);
    out8(PIC2 + 1, ICW4_8086);
    out8(PIC1 + 1, 0xff & ~(1 << CASCADE));
    out8(PIC2 + 1, 0xff);
}

void pic_mask(unsigned irq)
{
    uint16_t port = controller(irq) + 1;
    out8(port, in8(port) | (uint8_t)(1 << (irq & 7)));
}

void pic_unmask(unsigned irq)
{
    uint16_t port = controller(irq) + 1;
    out8(port, in8(port) & (uint8_t) ~(1 << (irq & 7)));
}

void pic_eoi(unsigned irq)
{
    if (irq >= 8)
        out8(PIC2, OCW2_EOI);
    out8(PIC1, OCW2_EOI);
}

uint8_t pic_irr(uint16_t pic)
{
    out8(pic, OCW3_READ_IRR);
    return in8(pic);
}

uint8_t pic_isr(uint16_t pic)
{
    out8(pic, OCW3_READ_ISR);
    return in8(pic);
}

bool pic_wait_request(unsigned irq)
{
    for (unsigned i = 0; i < POLL_LIMIT; i++) {
        if (pic_irr(controller(irq)) & 1 << (irq & 7))
            return true;
    }
    return false;
}

static void pit_program(uint8_t mode, uint32_t count)
{
    out8(PIT_COMMAND, mode);
    out8(PIT_CHANNEL0, count & 0xff);
    out8(PIT_CHANNEL0, count >> 8 & 0xff);
}

void pit_periodic(unsigned hz)
{
    pit_program(PIT_MODE2, PIT_HZ / hz);
}

void pit_one_shot(uint16_t ticks)
{
    pit_program(PIT_MODE0, ticks);
}
